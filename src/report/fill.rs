//! The filled stage and the gate: predicted against measured, and what the slowdown says beside its noise floor.

use super::Table;
use super::layers::time_cell;
use crate::records::Measurement;
use crate::records::fill_verdict::{self, FillVerdict};
use crate::records::measurement::{FillOutcome, Interval, Kind};
use crate::units::{format_ns, significant};

/// A row a filled stage: what was measured, and in brackets what was predicted before; its noise floor, and what that lets
/// be said of the slowdown.
pub fn filled(records: &[Measurement]) -> Table {
    let mut table = Table::new(
        "Filled pipeline stage",
        "One stage replayed with its real operations and waits; filled against empty iterations, interleaved. Each figure: measured (predicted before the run). A/A: empty against empty. overrun: from the bubble's end to the end of the side's last operation in it, negative where that is before.",
        &["stage", "main slowdown", "A/A", "verdict", "bubble used", "overrun", "side steps/s", "stop latency", "bubbles opened"],
    )
    .spare(&["stop latency", "bubbles opened", "side steps/s", "overrun", "A/A"]);
    for record in records.iter().filter(|record| !fill_verdict::is_nothing(&record.id)) {
        let Some(fill) = &record.fill else { continue };
        let nothing = fill_verdict::nothing_of(records, &record.id);
        table.row(vec![
            record.id.trim_start_matches("fill/").into(),
            format!("{} ({:+.2}%)", slowdown(&fill.main_slowdown), 100.0 * (fill.predicted_main_slowdown - 1.0)),
            nothing.map_or("–".into(), slowdown),
            FillVerdict::judge(&fill.main_slowdown, nothing).words().into(),
            format!("{:.0}% ({:.0}%)", fill.bubble_used_percent, fill.predicted_bubble_used_percent),
            overrun(fill),
            predicted(significant(fill.side_steps_per_s), fill.predicted_side_steps_per_s.map(significant)),
            format!("{} ({})", stop_latency(fill), format_ns(fill.predicted_stop_latency_ns)),
            format!("{} of {}", fill.bubbles_opened, fill.bubbles),
        ]);
    }
    table
}

/// The median's distance from none and its interval, in percent: the verdict rests on its ends.
fn slowdown(ratio: &Interval) -> String {
    let percent = |ratio: f64| 100.0 * (ratio - 1.0);
    format!("{:+.2}% [{:+.2}, {:+.2}]", percent(ratio.median), percent(ratio.low), percent(ratio.high))
}

fn predicted(measured: String, predicted: Option<String>) -> String {
    match predicted {
        Some(predicted) => format!("{measured} ({predicted})"),
        None => measured,
    }
}

/// The usual overrun and a rare one; older lines have neither.
fn overrun(fill: &FillOutcome) -> String {
    let Some(usual) = fill.overrun_p50_ns.map(format_ns) else { return "–".into() };
    match (fill.overrun_p99_ns, fill.overrun_max_ns) {
        (Some(rare), _) => format!("{usual}, p99 {}", format_ns(rare)),
        (None, Some(most)) => format!("{usual}, most {}", format_ns(most)),
        (None, None) => usual,
    }
}

/// A side that was never let in was never stopped.
fn stop_latency(fill: &FillOutcome) -> String {
    if fill.bubbles_opened == 0 { "–".into() } else { format_ns(fill.stop_latency_ns.median) }
}

/// Times of the gate, and of sides that it stops and lets on.
pub fn gate(records: &[Measurement]) -> Table {
    let mut table = Table::new(
        "Gate",
        "open: opening to the side's first operation; drain: closing to the side standing still, the operation in flight included; restart: time a side loses by going on after a pause.",
        &["what", "time", "p99"],
    );
    for record in records.iter().filter(|r| r.kind == Kind::Fill) {
        let Some(what) = record.id.strip_prefix("fill/gate/") else { continue };
        let p99 = record.p99_ns.map_or("–".into(), format_ns);
        table.row(vec![what.into(), time_cell(record), p99]);
    }
    table
}
