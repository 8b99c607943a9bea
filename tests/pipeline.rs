//! Schedules, their simulator, and the plans made on them.

#[path = "pipeline/forms.rs"]
mod forms;
#[path = "pipeline/given.rs"]
mod given;
#[path = "pipeline/plans.rs"]
mod plans;
#[path = "pipeline/properties.rs"]
mod properties;
#[path = "pipeline/published.rs"]
mod published;
#[path = "pipeline/searched.rs"]
mod searched;

use bubblebench::pipeline::activations::{self, DEFAULT_WEIGHT_SHARE};
use bubblebench::pipeline::{Schedule, ScheduleName, ScheduleSpec, Timeline, Times, simulate};

fn spec(
    name: ScheduleName,
    stages: usize,
    micro_batches: usize,
    chunks: Option<usize>,
    times: &Times,
) -> ScheduleSpec<'_> {
    ScheduleSpec { name, stages, micro_batches, chunks, memory_limit: None, weight_share: DEFAULT_WEIGHT_SHARE, times }
}

fn run(name: ScheduleName, micro_batches: usize, chunks: Option<usize>, times: &Times) -> Timeline {
    let schedule = Schedule::build(&spec(name, times.stage.len(), micro_batches, chunks, times)).unwrap();
    simulate(schedule, times.clone()).unwrap()
}

fn peaks(timeline: &Timeline, weight_share: f64) -> Vec<f64> {
    (0..timeline.schedule.stages).map(|s| activations::peak(&timeline.schedule, s, weight_share)).collect()
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}
