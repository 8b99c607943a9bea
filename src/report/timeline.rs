//! A timeline for people: one line per stage in the terminal, and a table of where its time goes.

use crate::pipeline::{Bubble, BubbleKind, Timeline, Work, activations, bubbles};
use crate::report::Table;
use crate::units::format_ns;
use std::fmt::Write;

/// Headline, picture and table.
pub fn render(timeline: &Timeline, weight_share: f64, width: usize) -> String {
    let schedule = &timeline.schedule;
    let chunks = if schedule.chunks > 1 { format!(", {} chunks a stage", schedule.chunks) } else { String::new() };
    let mut text = format!(
        "{}: {} stages, {} micro-batches{chunks}\niteration {}, bubble ratio {:.4}\n\n",
        schedule.name.text(),
        schedule.stages,
        schedule.micro_batches,
        format_ns(timeline.iteration_ns as f64),
        timeline.bubble_ratio()
    );
    text += &picture(timeline, width);
    let _ = write!(text, "\n{}", table(timeline, weight_share).terminal());
    text
}

/// One line per stage; each column shows what takes most of its time. `F` forward, `B` backward (to inputs, or whole),
/// `W` backward to weights, `·` bubble.
pub fn picture(timeline: &Timeline, width: usize) -> String {
    let stages = timeline.schedule.stages;
    let label = format!("{}", stages - 1).len();
    let columns = width.saturating_sub(label + 3).clamp(16, 400);
    let end = (0..stages).map(|s| timeline.window_start_ns(s) + timeline.iteration_ns).max().unwrap_or(0);
    let mut text = String::new();
    for stage in 0..stages {
        let _ = writeln!(text, "{stage:>label$} │{}│", row(timeline, stage, columns, end.max(1)));
    }
    let letters = if timeline.schedule.name.fused_backward() {
        "F forward  B backward  · bubble"
    } else {
        "F forward  B backward to inputs  W backward to weights  · bubble"
    };
    let _ = writeln!(text, "{:label$}  {letters}  (one column {})", "", format_ns(end as f64 / columns as f64));
    text
}

fn row(timeline: &Timeline, stage: usize, columns: usize, end: u64) -> String {
    let column = end as f64 / columns as f64;
    let mut time = vec![[0.0f64; 3]; columns];
    for (operation, start, stop) in timeline.operations(stage) {
        let kind = match operation.work {
            Work::Forward => 0,
            Work::BackwardInput | Work::Backward => 1,
            Work::BackwardWeight => 2,
        };
        let (mut at, stop) = (start as f64, stop as f64);
        let mut index = ((at / column) as usize).min(columns - 1);
        while at < stop {
            let border = if index + 1 == columns { f64::INFINITY } else { (index + 1) as f64 * column };
            time[index][kind] += stop.min(border) - at;
            at = border;
            index += 1;
        }
    }
    time.iter()
        .map(|spent| {
            let idle = column - spent.iter().sum::<f64>();
            let shown = (0..3).fold((idle, '·'), |best, k| {
                if spent[k] > 0.0 && spent[k] >= best.0 { (spent[k], ['F', 'B', 'W'][k]) } else { best }
            });
            shown.1
        })
        .collect()
}

/// A row per stage: busy time, bubbles by kind, activations.
pub fn table(timeline: &Timeline, weight_share: f64) -> Table {
    let mut table = Table::new(
        "Stages",
        "Time of one iteration; bubbles are idle time, by kind; peak activations in micro-batches.",
        &[
            "stage",
            "busy",
            "bubbles",
            "warmup",
            "before backward",
            "steady",
            "cooldown",
            "tail",
            "longest",
            "count",
            "peak",
        ],
    );
    for stage in 0..timeline.schedule.stages {
        let list = bubbles::of_stage(timeline, stage);
        let sum = |keep: &dyn Fn(&Bubble) -> bool| list.iter().filter(|b| keep(b)).map(Bubble::length_ns).sum::<u64>();
        let mut cells = vec![stage.to_string(), time(timeline.busy_ns(stage)), time(sum(&|_| true))];
        cells.extend(BubbleKind::ALL.map(|kind| time(sum(&|b| b.kind == kind))));
        cells.push(time(list.iter().map(Bubble::length_ns).max().unwrap_or(0)));
        cells.push(list.len().to_string());
        cells.push(format!("{:.2}", activations::peak(&timeline.schedule, stage, weight_share)));
        table.row(cells);
    }
    table
}

fn time(ns: u64) -> String {
    if ns == 0 { "–".into() } else { format_ns(ns as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Name, Schedule, Spec, StageTimes, Times, simulate};

    #[test]
    fn the_picture_shows_every_stage_where_it_is() {
        let times = Times::even(2, StageTimes::new(10, 5, 5), 0);
        let spec = Spec {
            name: Name::Gpipe,
            stages: 2,
            micro_batches: 2,
            chunks: None,
            memory_limit: None,
            weight_share: 0.4,
            times: &times,
        };
        let timeline = simulate(Schedule::build(&spec).unwrap(), times.clone()).unwrap();
        // Six time steps of 10 ns, four columns each.
        let text = picture(&timeline, 24 + 4);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "0 │FFFFFFFF········BBBBBBBB│");
        assert_eq!(lines[1], "1 │····FFFFFFFFBBBBBBBB····│");
        assert!(render(&timeline, 0.4, 80).contains("bubble ratio 0.3333"));
    }
}
