//! Whole steps against segments, a side a row.

use crate::fill::segments::{GrainComparison, GrainOutcome};
use crate::report::{Screen, Table};
use crate::units::{counted, format_ns};

/// The table and what the reader should know of it, as they are printed on a screen.
pub fn render(sides: &[GrainComparison], notes: &[String], screen: Screen) -> String {
    table(sides).terminal(screen) + &super::notes(notes, screen)
}

/// The table of a job's sides.
pub fn table(sides: &[GrainComparison]) -> Table {
    let each =
        || sides.iter().flat_map(|side| [&side.whole_steps, &side.segments]).map(|grain| grain.carried_out.iterations);
    let (fewest, most) = (each().min().unwrap_or(0), each().max().unwrap_or(0));
    let carried_out =
        if fewest == most { counted(most, "iteration") } else { format!("{fewest} to {}", counted(most, "iteration")) };
    let text = format!(
        "Each side alone in the job's bubbles, stopping between whole steps only, or between any two segments (its kernels, the longest of which is shown): bubble time that becomes side work and the main job's slowdown, as planned; in brackets as a gate that keeps to the time carried it out event by event, over {}.{}",
        carried_out,
        origin(sides)
    );
    let mut table = Table::new(
        "Whole steps against segments",
        &text,
        &["side", "step", "segment", "steps: used", "slower by", "segments: used", "slower by"],
    )
    .spare(&["segment", "step"]);
    for side in sides {
        let mut cells = vec![side.side.clone(), format_ns(side.step_ns as f64), format_ns(side.segment_ns as f64)];
        cells.extend([&side.whole_steps, &side.segments].into_iter().flat_map(outcome));
        table.row(cells);
    }
    table
}

/// Where the slowdown comes from, if no event says.
fn origin(sides: &[GrainComparison]) -> &'static str {
    match sides.iter().any(|side| side.segments.carried_out.slowdown.is_some()) {
        true => "",
        false => {
            " No bubble is known to vary, so that the slowdown is by the measured or published figures of a gate; `bubble_jitter` makes them vary."
        }
    }
}

fn outcome(grain: &GrainOutcome) -> [String; 2] {
    let carried_out = &grain.carried_out;
    let slower = |ratio: f64| 100.0 * (ratio - 1.0);
    let in_brackets = carried_out.slowdown.map(|ratio| format!(" ({:.2})", slower(ratio)));
    let worked = carried_out.came.work_ns / carried_out.came.bubble_ns.max(1.0);
    [
        format!("{:.0} % ({:.0})", 100.0 * grain.used, 100.0 * worked),
        format!("{:.2} %{}", slower(grain.slowdown), in_brackets.unwrap_or_default()),
    ]
}
