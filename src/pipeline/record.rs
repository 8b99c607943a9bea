//! `bubblebench.timeline/1`: what `simulate --json` prints.

use super::activations;
use super::bubbles::{self, BubbleKind};
use super::operations::OperationRecord;
use super::simulate::Timeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name and version of the format, which every file holds in `schema`.
pub const SCHEMA: &str = "bubblebench.timeline/1";

/// The bubbles of one iteration of a pipeline schedule, as `simulate --json` prints them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimelineRecord {
    /// Always `bubblebench.timeline/1`.
    pub schema: String,
    /// The schedule's name, e.g. `1f1b`; `list` for operations from a file that names none.
    pub schedule: String,
    /// Number of pipeline stages.
    pub stages: u64,
    /// Micro-batches of the iteration.
    pub micro_batches: u64,
    /// Time of the iteration in ns: to the last end of any stage, or the longest span of one stage in `zb-h2`, `zb-1p`,
    /// `zb-2p` and `zb-v`.
    pub iteration_ns: u64,
    /// The share of the iteration in which stages compute nothing: 1 − work of all stages / (stages · iteration).
    pub bubble_ratio: f64,
    /// The most activations that each stage holds at once, in micro-batches, by stage.
    pub peak_activations: Vec<f64>,
    /// One entry a stage, in pipeline order.
    pub stage: Vec<StageRecord>,
    /// Every operation with its time, the stages one after another, each in the order in which it runs; only with
    /// `--operations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<OperationRecord>>,
}

/// One stage's work and bubbles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageRecord {
    /// The stage's number, counted from 0.
    pub stage: u64,
    /// Time in which the stage computes, in ns; with its bubbles it fills the iteration exactly.
    pub busy_ns: u64,
    /// All bubbles of the stage, in order of time.
    pub bubbles: Vec<BubbleRecord>,
}

/// One maximal interval in which a stage computes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BubbleRecord {
    /// When the bubble begins, in ns from the start of the pipeline's first operation.
    pub start_ns: u64,
    /// When the bubble ends, in ns from the start of the pipeline's first operation.
    pub end_ns: u64,
    /// Where in the schedule the bubble lies.
    pub kind: BubbleKind,
    /// Activations that the stage holds during the bubble, in micro-batches.
    pub live_micro_batches: f64,
}

impl TimelineRecord {
    /// The record of a timeline; `weight_share` is the part of a micro-batch's activations that W still needs, 0 to 1.
    pub fn new(timeline: &Timeline, weight_share: f64) -> Self {
        let schedule = &timeline.schedule;
        let stages = 0..schedule.stages;
        TimelineRecord {
            schema: SCHEMA.into(),
            schedule: schedule.name.text().into(),
            stages: schedule.stages as u64,
            micro_batches: schedule.micro_batches as u64,
            iteration_ns: timeline.iteration_ns,
            bubble_ratio: timeline.bubble_ratio(),
            peak_activations: stages.clone().map(|s| activations::peak(schedule, s, weight_share)).collect(),
            stage: stages.map(|s| StageRecord::new(timeline, s, weight_share)).collect(),
            operations: None,
        }
    }
}

impl StageRecord {
    fn new(timeline: &Timeline, stage: usize, weight_share: f64) -> Self {
        let share = timeline.schedule.chunk_share();
        let bubbles = bubbles::of_stage(timeline, stage)
            .into_iter()
            .map(|b| BubbleRecord {
                start_ns: b.start_ns,
                end_ns: b.end_ns,
                kind: b.kind,
                live_micro_batches: b.live.micro_batches(share, weight_share),
            })
            .collect();
        StageRecord { stage: stage as u64, busy_ns: timeline.busy_ns(stage), bubbles }
    }
}
