//! A timeline for people: one line per stage in the terminal, and a table of where its time goes.

use super::lanes::{Lanes, Part};
use crate::pipeline::{Bubble, BubbleKind, Timeline, activations, bubbles};
use crate::report::{Screen, Table};
use crate::units::{counted, format_ns};
use std::fmt::Write;

/// Headline, picture and table.
pub fn render(timeline: &Timeline, weight_share: f64, screen: Screen) -> String {
    let schedule = &timeline.schedule;
    let chunks = if schedule.chunks > 1 { format!(", {} chunks a stage", schedule.chunks) } else { String::new() };
    let mut text = format!(
        "{}: {}, {}{chunks}\niteration {}, bubble ratio {:.4}\n\n",
        schedule.name.text(),
        counted(schedule.stages, "stage"),
        counted(schedule.micro_batches, "micro-batch"),
        format_ns(timeline.iteration_ns as f64),
        timeline.bubble_ratio()
    );
    text = screen.prose(&text, 2) + &picture(timeline, screen);
    let _ = write!(text, "\n{}", table(timeline, weight_share).terminal(screen));
    text
}

/// One line per stage; each column shows what takes most of its time. `F` forward, `B` backward (to inputs, or whole),
/// `W` backward to weights, `·` bubble.
pub fn picture(timeline: &Timeline, screen: Screen) -> String {
    let letters = if timeline.schedule.name.fused_backward() {
        "F forward  B backward  · bubble"
    } else {
        "F forward  B backward to inputs  W backward to weights  · bubble"
    };
    let stages: Vec<usize> = (0..timeline.schedule.stages).collect();
    draw(&Lanes::of_timeline(timeline), &stages, screen, letters)
}

/// These stages' lanes over a line that says what the letters mean.
pub fn draw(lanes: &Lanes, stages: &[usize], screen: Screen, letters: &str) -> String {
    let label = stages.iter().max().map_or(1, |most| most.to_string().len());
    let columns = columns(screen, label);
    let mut text = String::new();
    for &stage in stages {
        let row: String = lanes.columns(stage, columns).into_iter().map(letter).collect();
        let _ = writeln!(text, "{stage:>label$} │{row}│");
    }
    let column = format_ns(lanes.end_ns as f64 / columns as f64);
    screen.text(&text) + &key(screen, label, &format!("{letters}  (one column {column})"))
}

/// Columns of a picture whose rows are labelled in so many characters.
pub fn columns(screen: Screen, label: usize) -> usize {
    screen.picture_columns().saturating_sub(label + 3).clamp(16, 400)
}

/// The line under a picture that says what its characters mean, its entries kept whole.
pub fn key(screen: Screen, label: usize, entries: &str) -> String {
    screen.broken(&format!("{:label$}  {entries}\n", ""), "  ", 0)
}

/// Side models are lower-case letters, in the order of the plan's sides.
pub fn letter(part: Option<Part>) -> char {
    match part {
        None => '·',
        Some(Part::Forward) => 'F',
        Some(Part::Backward) => 'B',
        Some(Part::Weights) => 'W',
        Some(Part::Compute) => '█',
        Some(Part::Side(index)) => char::from(b'a' + (index % 26) as u8),
    }
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
    )
    .spare(&["longest", "busy", "count"]);
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
    use crate::pipeline::{Schedule, ScheduleName, ScheduleSpec, StageTimes, Times, simulate};

    #[test]
    fn the_picture_shows_every_stage_where_it_is() {
        let times = Times::even(2, StageTimes::new(10, 5, 5), 0);
        let spec = ScheduleSpec {
            name: ScheduleName::Gpipe,
            stages: 2,
            micro_batches: 2,
            chunks: None,
            memory_limit: None,
            weight_share: 0.4,
            times: &times,
        };
        let timeline = simulate(Schedule::build(&spec).unwrap(), times.clone()).unwrap();
        // Six time steps of 10 ns, four columns each.
        let text = picture(&timeline, Screen::wide(24 + 4));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "0 │FFFFFFFF········BBBBBBBB│");
        assert_eq!(lines[1], "1 │····FFFFFFFFBBBBBBBB····│");
        assert!(render(&timeline, 0.4, Screen::wide(80)).contains("bubble ratio 0.3333"));
    }
}
