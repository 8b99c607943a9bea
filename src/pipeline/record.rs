//! `bubblebench.timeline/1`: what `simulate --json` prints.

use super::activations;
use super::bubbles::{self, BubbleKind};
use super::simulate::Timeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const SCHEMA: &str = "bubblebench.timeline/1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimelineRecord {
    pub schema: String,
    pub schedule: String,
    pub stages: u64,
    pub micro_batches: u64,
    pub iteration_ns: u64,
    /// 1 − work of all stages / (stages · iteration).
    pub bubble_ratio: f64,
    /// Most activations each stage holds at once, in micro-batches.
    pub peak_activations: Vec<f64>,
    pub stage: Vec<StageRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageRecord {
    pub stage: u64,
    pub busy_ns: u64,
    pub bubbles: Vec<BubbleRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BubbleRecord {
    pub start_ns: u64,
    pub end_ns: u64,
    pub kind: BubbleKind,
    /// Activations the stage holds during the bubble, in micro-batches.
    pub live_micro_batches: f64,
}

impl TimelineRecord {
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
