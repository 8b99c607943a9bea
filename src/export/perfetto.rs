//! A timeline as Chrome trace events (JSON), which ui.perfetto.dev and chrome://tracing open: one track a stage with
//! its operations and bubbles, a track for the side work planned into them, and one counter a stage.
//!
//! Event fields follow the Trace Event Format: `ph` X (complete), C (counter), M (metadata); `ts` and `dur` in µs.

use super::{Content, Exported};
use crate::fill::plan::FillPlan;
use crate::fill::record::PlanFill;
use crate::pipeline::activations::Live;
use crate::pipeline::memory::GIB;
use crate::pipeline::{Timeline, Work, bubbles};
use crate::records::files;
use crate::{Error, Result};
use std::io::Write;
use std::path::Path;

/// A quantity shown as one counter track a stage, beside the stage's operations.
pub struct Counter<'a> {
    /// Name and unit of the counter, e.g. `free memory (GiB)`.
    pub name: &'a str,
    /// The counter's value on a stage, by its number, while the given `Live` activations are held there.
    pub value: &'a dyn Fn(usize, Live) -> f64,
}

/// A piece of side work planned beside the stages' own work.
#[derive(Debug, Clone, PartialEq)]
pub struct SideSpan {
    /// The pipeline stage that it runs on, counted from 0.
    pub stage: usize,
    /// When it starts, in nanoseconds on the timeline's clock.
    pub start_ns: u64,
    /// When it ends, in nanoseconds on the timeline's clock.
    pub end_ns: u64,
    /// The side work's name, which labels its event.
    pub name: String,
}

/// The trace of a plan, as `plan --trace` writes it: fails only where text cannot be made.
pub fn of_plan(plan: &FillPlan) -> Result<Exported> {
    let mut out = Vec::new();
    with_plan(plan, |counter, side| write(&mut out, &plan.timeline, counter, side))
        .map_err(|e| Error::bug(format!("a trace cannot be written: {e}")))?;
    let text = String::from_utf8(out).map_err(|e| Error::bug(format!("a trace is no text: {e}")))?;
    let notes = vec!["lost: intervals, prices, alternatives; `bubblebench plan --json` has them".to_string()];
    Ok(Exported { content: Content::File(text), notes })
}

/// Writes the trace of a plan to a file: its operations, bubbles and side work, and each stage's free memory, or its
/// activations where the GPU's memory is not known.
pub fn write_plan(path: &Path, plan: &FillPlan) -> Result<()> {
    with_plan(plan, |counter, side| write_file(path, &plan.timeline, counter, side))
}

/// Calls `then` with the counter and the side work of a plan.
fn with_plan<T>(plan: &FillPlan, then: impl FnOnce(&Counter, &[SideSpan]) -> T) -> T {
    let share = plan.timeline.schedule.chunk_share();
    let live = |live: Live| live.micro_batches(share, plan.weight_share);
    let free = |stage: usize, at: Live| plan.memory.free_bytes(stage, live(at)).unwrap_or(0.0) / GIB;
    let held = |_: usize, at: Live| live(at);
    let counter = match plan.memory.total_bytes {
        Some(_) => Counter { name: "free memory (GiB)", value: &free },
        None => Counter { name: "activations (micro-batches)", value: &held },
    };
    let mut side = Vec::new();
    for stage in &plan.record.stage {
        let span = |f: PlanFill| SideSpan {
            stage: stage.stage as usize,
            start_ns: f.start_ns,
            end_ns: f.end_ns,
            name: f.side,
        };
        side.extend(stage.bubbles.fills().map(span));
    }
    then(&counter, &side)
}

/// Writes the trace to a file, of which a reader sees the whole or nothing.
pub fn write_file(path: &Path, timeline: &Timeline, counter: &Counter, side: &[SideSpan]) -> Result<()> {
    files::write_atomic_with(path, |out| write(out, timeline, counter, side))
}

/// Writes the trace to `out` as one JSON object: each stage's operations, bubbles and counter, then the side work.
/// Fails only where writing does.
pub fn write(out: &mut impl Write, timeline: &Timeline, counter: &Counter, side: &[SideSpan]) -> std::io::Result<()> {
    let name = timeline.schedule.name.text();
    let stages = timeline.schedule.stages;
    writeln!(out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    write!(out, r#"{{"ph":"M","pid":0,"name":"process_name","args":{{"name":"pipeline, {name}"}}}}"#)?;
    for stage in 0..stages {
        track(out, 2 * stage, &format!("stage {stage}"))?;
        if side.iter().any(|s| s.stage == stage) {
            track(out, 2 * stage + 1, &format!("stage {stage}, side work"))?;
        }
    }
    for stage in 0..stages {
        stage_events(out, timeline, stage)?;
        counter_events(out, timeline, stage, counter)?;
    }
    for span in side {
        let label = serde_json::to_string(&span.name)?;
        complete(out, 2 * span.stage + 1, "side", &label, span.start_ns, span.end_ns, "{}")?;
    }
    writeln!(out, "\n]}}")?;
    out.flush()
}

fn track(out: &mut impl Write, tid: usize, name: &str) -> std::io::Result<()> {
    write!(
        out,
        ",\n{{\"ph\":\"M\",\"pid\":0,\"tid\":{tid},\"name\":\"thread_name\",\"args\":{{\"name\":\"{name}\"}}}}"
    )?;
    write!(
        out,
        ",\n{{\"ph\":\"M\",\"pid\":0,\"tid\":{tid},\"name\":\"thread_sort_index\",\"args\":{{\"sort_index\":{tid}}}}}"
    )
}

/// `name` and `args` are JSON already.
fn complete(
    out: &mut impl Write,
    tid: usize,
    category: &str,
    name: &str,
    start_ns: u64,
    end_ns: u64,
    args: &str,
) -> std::io::Result<()> {
    let (ts, dur) = (micros(start_ns), micros(end_ns - start_ns));
    write!(
        out,
        ",\n{{\"ph\":\"X\",\"pid\":0,\"tid\":{tid},\"cat\":\"{category}\",\"name\":{name},\"ts\":{ts},\"dur\":{dur},\"args\":{args}}}"
    )
}

fn stage_events(out: &mut impl Write, timeline: &Timeline, stage: usize) -> std::io::Result<()> {
    for (o, start, end) in timeline.operations(stage) {
        let (letter, category) = match o.work {
            Work::Forward => ("F", "forward"),
            Work::BackwardInput => ("B", "backward_input"),
            Work::BackwardWeight => ("W", "backward_weight"),
            Work::Backward => ("BW", "backward"),
        };
        let args = format!(r#"{{"micro_batch":{},"chunk":{}}}"#, o.micro_batch, o.chunk);
        complete(out, 2 * stage, category, &format!("\"{letter}{}\"", o.micro_batch), start, end, &args)?;
    }
    for b in bubbles::of_stage(timeline, stage) {
        let name = format!("\"bubble: {}\"", b.kind.name());
        complete(out, 2 * stage, "bubble", &name, b.start_ns, b.end_ns, "{}")?;
    }
    Ok(())
}

/// The counter changes where an operation ends.
fn counter_events(out: &mut impl Write, timeline: &Timeline, stage: usize, counter: &Counter) -> std::io::Result<()> {
    let mut live = Live::default();
    let mut show = |at: u64, live: Live| {
        let value = (counter.value)(stage, live);
        let (name, ts) = (counter.name, micros(at));
        write!(
            out,
            ",\n{{\"ph\":\"C\",\"pid\":0,\"name\":\"stage {stage} {name}\",\"ts\":{ts},\"args\":{{\"value\":{value:.4}}}}}"
        )
    };
    show(timeline.window_start_ns(stage), live)?;
    for (operation, _, end) in timeline.operations(stage) {
        live.after(operation);
        show(end, live)?;
    }
    Ok(())
}

/// Whole nanoseconds as µs, to the last digit.
fn micros(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Schedule, ScheduleName, ScheduleSpec, StageTimes, Times, simulate};
    use serde_json::Value;

    fn timeline() -> Timeline {
        let times = Times::even(3, StageTimes::new(1_500, 1_001, 700), 40);
        let spec = ScheduleSpec {
            name: ScheduleName::ZbH1,
            stages: 3,
            micro_batches: 4,
            chunks: None,
            memory_limit: None,
            weight_share: 0.5,
            times: &times,
        };
        simulate(Schedule::build(&spec).unwrap(), times.clone()).unwrap()
    }

    #[test]
    fn the_trace_is_json_and_each_track_is_full_and_free_of_overlaps() {
        let (timeline, mut out) = (timeline(), Vec::new());
        let counter = Counter { name: "activations", value: &|_, live| live.micro_batches(1.0, 0.5) };
        let side = [SideSpan { stage: 1, start_ns: 0, end_ns: 900, name: "mlp \"x\"".into() }];
        write(&mut out, &timeline, &counter, &side).unwrap();
        let trace: Value = serde_json::from_slice(&out).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        for stage in 0..3 {
            let mut spans: Vec<(f64, f64)> = events
                .iter()
                .filter(|e| e["ph"] == "X" && e["tid"] == 2 * stage)
                .map(|e| (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap()))
                .collect();
            spans.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut at = 0.0;
            for (start, length) in spans {
                assert!((start - at).abs() < 1e-9, "stage {stage} at {start} after {at}");
                at = start + length;
            }
            assert!((at - timeline.iteration_ns as f64 / 1000.0).abs() < 1e-9);
        }
        assert!(events.iter().any(|e| e["name"] == "mlp \"x\"" && e["tid"] == 3));
        let counters = events.iter().filter(|e| e["ph"] == "C").count();
        assert_eq!(counters, 3 * (1 + 3 * 4));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let counter = Counter { name: "x", value: &|_, _| 0.0 };
        let error = write_file(Path::new("/no/such/folder/t.json"), &timeline(), &counter, &[]).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder/t.json"), "{error}");
    }
}
