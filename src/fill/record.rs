//! `bubblebench.plan/1`: what `plan --json` prints.

use crate::pipeline::BubbleKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const SCHEMA: &str = "bubblebench.plan/1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    pub schema: String,
    pub job: String,
    pub model: String,
    /// Whose cost model it was made with.
    pub machine: String,
    pub gpus: u64,
    pub schedule: String,
    pub stages: u64,
    pub micro_batches: u64,
    pub chunks: u64,
    /// Pipeline, gradient all-reduce and optimizer step.
    pub iteration_ns: u64,
    pub pipeline_ns: u64,
    pub send_recv_ns: u64,
    /// Gradients over the data-parallel ranks, and between the stages that share the embedding.
    pub data_parallel_ns: u64,
    /// The gradients' norm and the optimizer step.
    pub optimizer_ns: u64,
    /// Of the pipeline alone.
    pub bubble_ratio: f64,
    pub weight_share: f64,
    /// `None` where it is not known: then memory was not checked.
    pub memory_bytes: Option<u64>,
    pub stage: Vec<PlanStage>,
    pub side: Vec<PlanSide>,
    pub outcome: Outcome,
    pub alternatives: Vec<Alternative>,
    /// Every price lies within what the cost model was measured on.
    pub in_range: bool,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanStage {
    pub stage: u64,
    pub forward_ns: u64,
    pub backward_input_ns: u64,
    pub backward_weight_ns: u64,
    pub busy_ns: u64,
    pub bubble_ns: u64,
    /// Side work put into this stage's bubbles.
    pub filled_ns: u64,
    pub weights_bytes: u64,
    pub gradients_bytes: u64,
    pub optimizer_bytes: u64,
    pub activation_bytes_per_micro_batch: u64,
    pub peak_activations: f64,
    pub peak_bytes: u64,
    pub bubbles: Vec<PlanBubble>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanBubble {
    pub start_ns: u64,
    pub end_ns: u64,
    pub kind: BubbleKind,
    pub live_micro_batches: f64,
    /// Free at that moment, beside the main job and the headroom.
    pub free_bytes: Option<u64>,
    pub fill: Option<PlanFill>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFill {
    pub side: String,
    pub start_ns: u64,
    pub end_ns: u64,
}

/// A side model over the whole job, all tensor- and data-parallel ranks together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSide {
    pub name: String,
    pub step_ns: f64,
    pub margin_ns: f64,
    pub memory_bytes: u64,
    pub bubbles_used: u64,
    pub steps_per_iteration: f64,
    pub steps_per_s: f64,
}

/// What filling is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Fraction of bubble time that becomes side work.
    pub bubble_used: f64,
    /// Filled iteration ÷ empty iteration.
    pub main_slowdown: f64,
    /// Useful work per time, main + side (by its value), over main alone.
    pub gain: f64,
    /// 1 / (1 − bubble ratio): every bubble filled to the brim at value 1.
    pub gain_bound: f64,
    /// What the best other schedule that fits the memory would win without any filling.
    pub best_schedule: Option<String>,
    pub best_schedule_gain: f64,
    /// gain ÷ best_schedule_gain: what filling wins beyond what a flag would have won.
    pub net_gain: f64,
    /// Side work of all GPUs in one iteration, in seconds of one GPU.
    pub recovered_gpu_s: f64,
}

/// The same job under another schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    pub schedule: String,
    pub chunks: u64,
    pub iteration_ns: u64,
    pub bubble_ratio: f64,
    /// This job's iteration ÷ the alternative's.
    pub gain: f64,
    /// The same with its remaining bubbles filled.
    pub gain_filled: f64,
    pub peak_activations: f64,
    /// `None` where the memory is not known.
    pub fits_memory: Option<bool>,
}
