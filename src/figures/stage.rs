//! A filled pipeline stage: its work and bubbles as the case replays them, and when the gate stands open.

use super::chart::Quantity;
use super::figure::{Activity, Figure, FigureData, LaneSpan, Picture, TimeLanes, stem};
use super::{ReportSide, evenly, rest, with_side};
use crate::pipeline::schedule::{Schedule, ScheduleName, ScheduleSpec, Work};
use crate::pipeline::simulate::simulate;
use crate::pipeline::times::{StageTimes, Times};
use crate::records::Measurement;
use crate::records::fill_verdict::{self, FillVerdict};
use crate::records::measurement::{FillOutcome, Kind};

/// Lanes of one picture at most; the numbers have all.
const LANES: usize = 12;

/// A figure for each side of the report that filled a stage.
pub fn figures(sides: &[ReportSide]) -> Vec<Figure> {
    sides.iter().filter_map(|side| figure(side, sides)).collect()
}

fn figure(side: &ReportSide, sides: &[ReportSide]) -> Option<Figure> {
    let filled: Vec<(&Measurement, &FillOutcome)> = rows(side).filter_map(|r| Some((r, r.fill.as_ref()?))).collect();
    if filled.is_empty() {
        return None;
    }
    let lanes: Vec<(String, Vec<LaneSpan>)> =
        evenly(&filled, LANES).iter().filter_map(|(record, _)| Some((lane_name(record), spans(record)?))).collect();
    let end_ns = lanes.iter().flat_map(|(_, spans)| spans.iter().map(|span| span.end_ns)).fold(0.0, f64::max);
    if lanes.is_empty() || end_ns <= 0.0 {
        return None;
    }
    let name = if sides.len() > 1 { format!("filled-stage-{}", side.name) } else { "filled-stage".into() };
    Some(Figure {
        name: stem(&name),
        title: with_side("A pipeline stage with a small model in its bubbles", side, sides),
        caption: format!(
            "One iteration of each measured stage, from the times of its forward and backward passes: where it works, where \
                  it waits for the other stages, and for how long the gate lets the small model run there. What came of it, and \
                  what had been predicted, is in the numbers.{}",
            rest(filled.len().saturating_sub(lanes.len()), "stages")
        ),
        picture: Picture::Lanes(TimeLanes { lanes, end_ns }),
        data: data(side, &filled),
    })
}

/// The filled stages, without their noise floors, in which nothing runs.
fn rows(side: &ReportSide) -> impl Iterator<Item = &Measurement> {
    side.records.iter().filter(|r| r.kind == Kind::Fill && !fill_verdict::is_nothing(&r.id))
}

fn lane_name(record: &Measurement) -> String {
    let stage = record.param_u64("stage").map_or(String::new(), |stage| format!("stage {stage}, "));
    let whole = if record.param_str("grain") == Some("step") { ", whole steps" } else { "" };
    format!("{stage}{}{whole}", record.param_str("side").unwrap_or("side"))
}

/// The stage's operations by its schedule, the bubbles between them, and the gate's openings; `None` where the record does not
/// say what they follow from.
fn spans(record: &Measurement) -> Option<Vec<LaneSpan>> {
    let number = |name: &str| record.param_u64(name).filter(|&n| (1..=64).contains(&n)).map(|n| n as usize);
    let ns = |name: &str| record.params.get(name).and_then(serde_json::Value::as_f64).filter(|ns| *ns >= 0.0);
    let (stages, micro_batches) = (number("stages")?, number("micro_batches")?);
    let stage = record.param_u64("stage").filter(|&stage| stage < stages as u64)? as usize;
    let name = ScheduleName::parse(record.param_str("schedule")?).ok()?;
    let times = Times::even(stages, StageTimes::new(ns("forward_ns")? as u64, ns("backward_ns")? as u64, 0), 0);
    let spec = ScheduleSpec {
        name,
        stages,
        micro_batches,
        chunks: None,
        memory_limit: None,
        weight_share: 0.0,
        times: &times,
    };
    let timeline = simulate(Schedule::build(&spec).ok()?, times.clone()).ok()?;
    let mut spans = Vec::new();
    let mut free = 0.0;
    let margin = ns("margin_ns").unwrap_or(0.0);
    for (operation, start, end) in timeline.operations(stage) {
        let (start_ns, end_ns) = (start as f64, end as f64);
        spans.extend(bubble(free, start_ns, margin));
        let activity = if operation.work == Work::Forward { Activity::Forward } else { Activity::Backward };
        spans.push(LaneSpan { activity, start_ns, end_ns, micro_batch: Some(u64::from(operation.micro_batch)) });
        free = end_ns;
    }
    spans.extend(bubble(free, timeline.iteration_ns as f64, margin));
    Some(spans)
}

/// A bubble, with the open gate in it: the side has to stand still the margin before the bubble ends, and the gate stays shut
/// where that leaves nothing.
fn bubble(start_ns: f64, end_ns: f64, margin_ns: f64) -> Vec<LaneSpan> {
    if end_ns - start_ns < 1.0 {
        return Vec::new();
    }
    let span = |activity, end_ns| LaneSpan { activity, start_ns, end_ns, micro_batch: None };
    let mut spans = vec![span(Activity::Bubble, end_ns)];
    if end_ns - margin_ns > start_ns {
        spans.push(span(Activity::Open, end_ns - margin_ns));
    }
    spans
}

fn data(side: &ReportSide, filled: &[(&Measurement, &FillOutcome)]) -> FigureData {
    let (ns, ratio, percent) = (Some(Quantity::Nanoseconds), Some(Quantity::Ratio), Some(Quantity::Percent));
    let mut data = FigureData::new(&[
        ("machine", None),
        ("stage", None),
        ("bubble_ns", ns),
        ("open_ns", ns),
        ("bubble_used_percent", percent),
        ("predicted_used_percent", percent),
        ("main_slowdown", ratio),
        ("ci95_low", ratio),
        ("ci95_high", ratio),
        ("predicted_slowdown", ratio),
        ("noise_floor_low", ratio),
        ("noise_floor_high", ratio),
        ("verdict", None),
        ("side_steps_per_s", Some(Quantity::PerSecond)),
        ("stop_latency_ns", ns),
        ("overrun_p50_ns", ns),
        ("overrun_max_ns", ns),
    ]);
    for (record, fill) in filled {
        let nothing = fill_verdict::nothing_of(&side.records, &record.id);
        data.row([
            side.name.as_str().into(),
            record.id.trim_start_matches("fill/").into(),
            fill.bubble_ns.into(),
            fill.open_ns.into(),
            fill.bubble_used_percent.into(),
            fill.predicted_bubble_used_percent.into(),
            fill.main_slowdown.median.into(),
            fill.main_slowdown.low.into(),
            fill.main_slowdown.high.into(),
            fill.predicted_main_slowdown.into(),
            nothing.map(|nothing| nothing.low).into(),
            nothing.map(|nothing| nothing.high).into(),
            FillVerdict::judge(&fill.main_slowdown, nothing).words().into(),
            fill.side_steps_per_s.into(),
            fill.stop_latency_ns.median.into(),
            fill.overrun_p50_ns.into(),
            fill.overrun_max_ns.into(),
        ]);
    }
    data
}
