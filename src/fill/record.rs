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
    /// Where the bubbles come from, if not from the simulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredFrom>,
    pub notes: Vec<String>,
}

/// A run of the job whose bubbles take the place of simulated ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasuredFrom {
    pub file: String,
    /// The profile it was read from.
    pub source: String,
    pub iteration: u64,
    pub iterations: u64,
    /// The simulator's pipeline time for the same job.
    pub simulated_ns: u64,
    /// Idle time of all stages by class: what fills, and what does not.
    pub dependency_ns: u64,
    pub tail_ns: u64,
    pub communication_ns: u64,
    pub launch_ns: u64,
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
    /// Side work beside this stage's own.
    pub beside_ns: f64,
    /// What the main job loses on this stage in an iteration, before waits elsewhere swallow any of it.
    pub lost_ns: f64,
    pub weights_bytes: u64,
    pub gradients_bytes: u64,
    pub optimizer_bytes: u64,
    pub activation_bytes_per_micro_batch: u64,
    pub peak_activations: f64,
    pub peak_bytes: u64,
    /// What stays in its memory through the iteration.
    pub resident: Vec<PlanResident>,
    pub beside: Vec<PlanBeside>,
    pub bubbles: Vec<PlanBubble>,
}

/// A side model's state on a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanResident {
    pub side: String,
    /// It may stop within a step, and keeps all its memory between bubbles; else whole steps run and only its state stays.
    pub split: bool,
    pub held_bytes: u64,
}

/// Operations of the stage's own beside which a side model runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanBeside {
    pub side: String,
    /// `forward` or `backward`.
    pub phase: String,
    pub operations: u64,
    pub work_ns: f64,
    /// What each of these operations takes longer.
    pub cost_each_ns: f64,
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
    /// In order of time.
    pub fills: Vec<PlanFill>,
    /// Of measured bubbles, what they wait for; side work goes into `dependency` and `tail` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFill {
    pub side: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub kernels: u64,
}

/// A side model over the whole job, all tensor- and data-parallel ranks together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSide {
    pub name: String,
    /// Where its kernels come from.
    pub source: String,
    pub step_ns: f64,
    pub kernels_per_step: u64,
    pub longest_kernel_ns: u64,
    /// Lost at the ends of each run: open, restart, and signal with drain.
    pub margin_ns: u64,
    pub open_ns: u64,
    pub restart_ns: u64,
    pub signal_ns: u64,
    /// What the main job loses by each run: the closing call, and what follows a filled bubble.
    pub cost_ns: f64,
    pub memory_bytes: u64,
    pub resident_bytes: u64,
    pub value: f64,
    /// On one pipeline of the job.
    pub bubbles_used: u64,
    pub steps_per_iteration: f64,
    pub steps_per_s: f64,
    /// Of a side that is put nowhere: what it lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<String>,
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
    /// The other schedule that, with its own bubbles filled, does most useful work; `None` if this one does.
    pub best_filled_schedule: Option<String>,
    pub best_filled_gain: f64,
    /// Side work of all GPUs in one iteration, in seconds of one GPU.
    pub recovered_gpu_s: f64,
    /// What the main job's slowdown costs on all GPUs.
    pub lost_gpu_s: f64,
    /// What the best other schedule would free with nothing filled.
    pub schedule_gpu_s: f64,
    /// recovered − lost − schedule.
    pub net_recovered_gpu_s: f64,
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
