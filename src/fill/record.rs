//! `bubblebench.plan/2`: what `plan --json` prints.

use super::bubble_list::{BubbleList, MemoryLevel, Planned};
use super::overrun::Variation;
use super::pack::SideRun;
use crate::pipeline::BubbleKind;
use crate::pipeline::operations::OperationRecord;
use crate::records::bubbles::BubbleClass;
use crate::records::cost_model::Source;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

/// Name and version of the format, the value of `schema` in every plan.
pub const SCHEMA: &str = "bubblebench.plan/2";

/// What `plan --json` prints: the job, the side work put into each stage's bubbles, and what filling them is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    /// Name and version of this format: `bubblebench.plan/2`.
    pub schema: String,
    /// Path of the job file.
    pub job: String,
    /// Name of the job's model: the preset's name, or its shape in words.
    pub model: String,
    /// Name of the machine whose cost model the plan was made with.
    pub machine: String,
    /// GPUs of the job: pipeline × tensor-parallel × context-parallel × data-parallel ranks.
    pub gpus: u64,
    /// Name of the job's pipeline schedule, such as `1f1b` or `zb-h1`; `list` for operations from a file that names none.
    pub schedule: String,
    /// Number of pipeline stages.
    pub stages: u64,
    /// Micro-batches that each pipeline runs in one iteration.
    pub micro_batches: u64,
    /// Model chunks that each device runs, 2 in a two-way pipeline (its devices hold two whole stages); 1 where the
    /// schedule does not divide a stage.
    pub chunks: u64,
    /// Length of an iteration without side work, in ns: pipeline, gradient all-reduce and optimizer step. With measured
    /// bubbles it is the length of the measured iteration.
    pub iteration_ns: u64,
    /// Lower end of the 95 % interval of `iteration_ns`, in ns, from the intervals of all prices; with measured bubbles it
    /// equals `iteration_ns`.
    pub iteration_low_ns: u64,
    /// Upper end of the 95 % interval of `iteration_ns`, in ns; with measured bubbles it equals `iteration_ns`.
    pub iteration_high_ns: u64,
    /// Tokens that the job trains on a second, over all GPUs.
    pub tokens_per_s: f64,
    /// FLOPs that training needs, a second and GPU, in TFLOP/s: three times the forward's, every pair of positions counted,
    /// nothing recomputed.
    pub tflops_per_gpu: f64,
    /// `tflops_per_gpu` with what is recomputed.
    pub hardware_tflops_per_gpu: f64,
    /// 6 · parameters · tokens, a second and GPU, in TFLOP/s.
    pub six_n_tflops_per_gpu: f64,
    /// `tflops_per_gpu` ÷ the GPU's peak in the job's number format; null where the GPU's data sheet is not known.
    pub model_flops_utilization: Option<f64>,
    /// `hardware_tflops_per_gpu` ÷ the GPU's peak in the job's number format; null where the GPU's data sheet is not known.
    pub hardware_flops_utilization: Option<f64>,
    /// Hours of one GPU that a billion tokens take.
    pub gpu_hours_per_billion_tokens: f64,
    /// Time of the pipeline alone in an iteration without side work, in ns. With measured bubbles it equals
    /// `iteration_ns`.
    pub pipeline_ns: u64,
    /// Time of one message between two neighbouring stages, in ns.
    pub send_recv_ns: u64,
    /// Time to exchange the gradients, and with ZeRO the parameters, over the ranks that hold the same layers, and to sum
    /// the gradient of the embedding between the stages that share it, in ns.
    pub data_parallel_ns: u64,
    /// Time of the optimizer step and of the passes over gradients and parameters around it, in ns.
    pub optimizer_ns: u64,
    /// Fraction of the stages' pipeline time in which they compute nothing; gradient all-reduce and optimizer step are
    /// not counted. With measured bubbles it is that of the measured iteration.
    pub bubble_ratio: f64,
    /// Fraction of a micro-batch's activations that the weight gradients still need once the backward to the inputs is
    /// done (Qi et al., arXiv 2401.10241, table 2).
    pub weight_share: f64,
    /// Memory of one GPU, in bytes; null where neither the job nor the cost model says it, and then nothing was checked
    /// against it.
    pub memory_bytes: Option<u64>,
    /// The pipeline's stages in order, with the side work on each.
    pub stage: Vec<PlanStage>,
    /// The job's side models in the order of the job file.
    pub side: Vec<PlanSide>,
    /// What filling the bubbles is worth, compared with the job alone and with what other flags would make of it.
    pub outcome: Outcome,
    /// The same model and batch on the same GPUs with other flags: each kind of flag changed alone, then the best of all
    /// together.
    pub alternatives: Vec<Alternative>,
    /// Whether every time of the main job was predicted from inputs within the range that the cost model was measured
    /// on.
    pub in_range: bool,
    /// Every price that the iteration is made of.
    pub prices: Vec<PlanPrice>,
    /// The prices that nobody measured on this machine, a phrase each: from a data sheet, extrapolated, or unknown and
    /// counted as 0; and what a waiting receive keeps of a GPU, if nobody measured that.
    pub assumed: Vec<String>,
    /// The measured run that the bubbles come from; absent where they come from the simulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredFrom>,
    /// How the bubbles' lengths vary from iteration to iteration, and for how much of them the gate opens; absent where nothing
    /// is known of how they vary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lengths: Option<PlanLengths>,
    /// Sentences on what was assumed, extrapolated, left out or not checked.
    pub notes: Vec<String>,
    /// Every operation of the iteration without side work, the stages one after another, each in the order in which it
    /// runs; only with `--operations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<OperationRecord>>,
}

/// A price of the main job's iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanPrice {
    /// What was priced.
    pub what: String,
    /// Predicted time in ns; null where no cost model knows it, and then it counts as 0.
    pub time_ns: Option<f64>,
    /// Lower end of its 95 % interval, in ns.
    pub low_ns: Option<f64>,
    /// Upper end of its 95 % interval, in ns.
    pub high_ns: Option<f64>,
    /// Whether it lies within what was measured; false where it has no price.
    pub in_range: bool,
    /// Where the figures come from that answered: `measured`, `published` or `datasheet`; null where none did.
    pub source: Option<Source>,
}

/// Bubbles whose lengths vary: each is filled for a low quantile of its lengths, as a gate will open for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanLengths {
    /// Quantile of a bubble's lengths that it is filled for, from 0.001 to 0.5.
    pub quantile: f64,
    /// Iterations of the measured run whose bubbles line up by position, on the stage with the fewest: the lengths are learned from
    /// them. Null where the job states how much lengths vary.
    pub iterations: Option<u64>,
    /// Standard deviation of a simulated bubble's length over its length, as the job states it; null where lengths are learned.
    pub jitter: Option<f64>,
    /// Bubbles that may be filled, at their median lengths, summed over all stages, in ns.
    pub median_ns: u64,
    /// The same at the lengths that they are filled for, in ns.
    pub expected_ns: u64,
    /// Time in an iteration that stages wait on average for side work that is still running when a bubble ends, summed over all
    /// stages, in ns; part of `lost_ns`.
    pub overrun_ns: f64,
}

impl PlanLengths {
    /// The sums over a plan's stages; where the lengths come from is left open.
    pub fn of(stages: &[PlanStage], quantile: f64) -> Self {
        let bubbles = || stages.iter().flat_map(|stage| stage.bubbles.list().fillable());
        let expected = |bubble: Planned| {
            let slot = bubble.slot();
            slot.end_ns - slot.start_ns
        };
        PlanLengths {
            quantile,
            iterations: None,
            jitter: None,
            median_ns: bubbles().map(|bubble| bubble.length_ns()).sum(),
            expected_ns: bubbles().map(expected).sum(),
            overrun_ns: stages.iter().filter_map(|stage| stage.overrun_ns).fold(0.0, |sum, ns| sum + ns),
        }
    }
}

/// A measured run of the job whose bubbles take the place of simulated ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasuredFrom {
    /// Path of the bubbles file that was read.
    pub file: String,
    /// The profiles that the bubbles file was made from.
    pub source: String,
    /// Number of the iteration that the plan was made on; where lengths are learned from many, the one that stands for what lies
    /// between the bubbles.
    pub iteration: u64,
    /// Number of iterations of the run, those of which the file lists no bubble included.
    pub iterations: u64,
    /// Pipeline time that the simulator gives for the same job, in ns.
    pub simulated_ns: u64,
    /// Bubbles of class `dependency` in the iteration, summed over all stages, in ns; they may be filled.
    pub dependency_ns: u64,
    /// Bubbles of class `tail` (end of the iteration), summed over all stages, in ns; they may be filled.
    pub tail_ns: u64,
    /// Bubbles of class `communication` (exposed collectives), summed over all stages, in ns; they are not filled.
    pub communication_ns: u64,
    /// Bubbles of class `launch` (the host launched late), summed over all stages, in ns; they are not filled.
    pub launch_ns: u64,
}

/// One pipeline stage on one GPU: its times, its memory, its bubbles and the side work on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanStage {
    /// Index of the stage, from 0.
    pub stage: u64,
    /// Predicted time of one micro-batch's forward on this stage, all its chunks together, in ns.
    pub forward_ns: u64,
    /// Predicted time of one micro-batch's backward to the inputs on this stage, all its chunks together, in ns.
    pub backward_input_ns: u64,
    /// Predicted time of one micro-batch's backward to the weights on this stage, all its chunks together, in ns.
    pub backward_weight_ns: u64,
    /// Time in an iteration in which the stage computes for the main job, in ns.
    pub busy_ns: u64,
    /// Length of all bubbles of the stage in an iteration, in ns, those that may not be filled included.
    pub bubble_ns: u64,
    /// Side work done in this stage's bubbles on average, in ns of the side models' time alone: what was put into them, less what is
    /// not begun where they vary and end before. Margins are not counted.
    pub filled_ns: u64,
    /// Side work beside the stage's own operations, in ns of the side models' time alone.
    pub beside_ns: f64,
    /// Delay of the main job on this stage in an iteration, in ns, before waits of other stages absorb any of it.
    pub lost_ns: f64,
    /// Part of `lost_ns` in which the stage waits on average for side work that is still running when a bubble ends, in ns; absent
    /// where the bubbles' lengths are not known to vary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun_ns: Option<f64>,
    /// Weights on one GPU of the stage, in bytes.
    pub weights_bytes: u64,
    /// Gradients on one GPU of the stage, in bytes.
    pub gradients_bytes: u64,
    /// Optimizer state on one GPU of the stage, in bytes.
    pub optimizer_bytes: u64,
    /// Activations that the stage keeps for one micro-batch between its forward and its backward, in bytes.
    pub activation_bytes_per_micro_batch: u64,
    /// Most activations that the stage holds at once, in micro-batches; not whole where only the part for the weight
    /// gradients remains.
    pub peak_activations: f64,
    /// Most memory that the main job takes on one GPU of the stage, in bytes: weights, gradients, optimizer state,
    /// activations at their peak, and what it works with beside them.
    pub peak_bytes: u64,
    /// Side models that keep memory on this stage through the whole iteration.
    pub resident: Vec<PlanResident>,
    /// Side models that run beside the stage's own operations; empty unless the job sets `beside_compute`.
    pub beside: Vec<PlanBeside>,
    /// Bubbles of the stage in order of time.
    pub bubbles: PlanBubbles,
}

/// A side model that keeps memory on a stage through the whole iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanResident {
    /// Name of the side model.
    pub side: String,
    /// Whether the side may stop within a step and so keeps all its memory between bubbles; if false it runs whole
    /// steps only and keeps parameters and optimizer state.
    pub split: bool,
    /// Memory that the side keeps while the main job or another side runs, in bytes.
    pub held_bytes: u64,
}

/// Operations of one phase of a stage beside which a side model runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanBeside {
    /// Name of the side model.
    pub side: String,
    /// Phase of the main job's operations: `forward` or `backward`.
    pub phase: String,
    /// Number of the stage's operations in an iteration beside which the side runs.
    pub operations: u64,
    /// Work that the side does beside all these operations together, in ns of its time alone.
    pub work_ns: f64,
    /// Time by which each of these operations becomes longer, the call that closes the gate included, in ns.
    pub cost_each_ns: f64,
}

/// The bubbles of a stage in order of time, as a list of [`PlanBubble`]s. There may be millions: they are made from fewer bytes
/// when they are asked for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(from = "Vec<PlanBubble>")]
#[schemars(with = "Vec<PlanBubble>")]
pub struct PlanBubbles {
    list: BubbleList,
    /// Names of the side models, by the index that runs have.
    sides: Arc<[String]>,
}

impl PlanBubbles {
    /// The bubbles of a stage's plan, with the names of the side models that its runs refer to.
    pub fn new(list: BubbleList, sides: Arc<[String]>) -> Self {
        PlanBubbles { list, sides }
    }

    /// The bubbles as the planner has them, which are quicker to go through.
    pub const fn list(&self) -> &BubbleList {
        &self.list
    }

    /// The name of the side model that a run is of.
    pub fn side(&self, run: &SideRun) -> &str {
        &self.sides[run.side]
    }

    /// The bubbles in order of time.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = PlanBubble> + ExactSizeIterator {
        self.list.iter().map(|planned| PlanBubble {
            start_ns: planned.start_ns,
            end_ns: planned.end_ns,
            kind: planned.kind,
            live_micro_batches: planned.level.live_micro_batches,
            free_bytes: planned.level.free_bytes.map(|bytes| bytes as u64),
            fills: planned.runs.iter().map(|run| self.fill(run)).collect(),
            class: planned.class,
            expected_ns: planned.variation.map(|variation| variation.expected_ns),
            deviation_ns: planned.variation.map(|variation| variation.deviation_ns),
        })
    }

    /// Side work in all bubbles, in order of time.
    pub fn fills(&self) -> impl Iterator<Item = PlanFill> {
        self.list.runs().iter().map(|run| self.fill(run))
    }

    fn fill(&self, run: &SideRun) -> PlanFill {
        PlanFill {
            side: self.side(run).to_string(),
            start_ns: run.start_ns,
            end_ns: run.end_ns(),
            kernels: run.kernels,
            work_ns: Some(run.work_ns).filter(|_| run.work_ns != run.takes_ns),
        }
    }
}

impl PartialEq for PlanBubbles {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Serialize for PlanBubbles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl From<Vec<PlanBubble>> for PlanBubbles {
    fn from(bubbles: Vec<PlanBubble>) -> Self {
        let (mut list, mut sides) = (BubbleList::default(), Vec::new());
        for bubble in bubbles {
            let run = |fill: PlanFill| {
                let side = sides.iter().position(|name| *name == fill.side).unwrap_or_else(|| {
                    sides.push(fill.side);
                    sides.len() - 1
                });
                let takes_ns = fill.end_ns.saturating_sub(fill.start_ns);
                let work_ns = fill.work_ns.unwrap_or(takes_ns);
                SideRun { side, start_ns: fill.start_ns, kernels: fill.kernels, work_ns, takes_ns }
            };
            let runs: Vec<SideRun> = bubble.fills.into_iter().map(run).collect();
            list.push(&Planned {
                start_ns: bubble.start_ns,
                end_ns: bubble.end_ns,
                kind: bubble.kind,
                level: MemoryLevel {
                    live_micro_batches: bubble.live_micro_batches,
                    free_bytes: bubble.free_bytes.map(|bytes| bytes as f64),
                },
                class: bubble.class,
                variation: bubble.expected_ns.map(|expected_ns| Variation {
                    expected_ns,
                    deviation_ns: bubble.deviation_ns.unwrap_or(0.0),
                    parts: &[],
                }),
                runs: &runs,
            });
        }
        PlanBubbles { list, sides: sides.into() }
    }
}

/// A maximal interval in which a stage computes nothing, and the side work in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanBubble {
    /// Start of the bubble, in ns from the beginning of the iteration.
    pub start_ns: u64,
    /// Expected end of the bubble, in ns from the beginning of the iteration.
    pub end_ns: u64,
    /// Place of the bubble in the schedule; of a measured bubble found by how much of the stage's work was done before
    /// it.
    pub kind: BubbleKind,
    /// Activations that the stage holds during the bubble, in micro-batches.
    pub live_micro_batches: f64,
    /// Memory free during the bubble, in bytes, beyond what the main job holds and the headroom; null where the GPU's
    /// memory is not known.
    pub free_bytes: Option<u64>,
    /// Side work in the bubble, in order of time; empty if nothing runs there.
    pub fills: Vec<PlanFill>,
    /// What a measured bubble waits for: `dependency`, `tail`, `communication` or `launch`; side work goes into the
    /// first two only. Absent for simulated bubbles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<BubbleClass>,
    /// Length that the gate opens for, and that is filled, in ns: a low quantile of the bubble's lengths. Absent where its length
    /// is not known to vary; where it is, `end_ns` is by its median length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ns: Option<u64>,
    /// Standard deviation of the bubble's length about its median as far as it is shorter, in ns; absent as `expected_ns` is.
    /// How learned lengths are distributed about the median is not kept: what late ends cost in a plan that is read back is in its sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation_ns: Option<f64>,
}

/// A side model's run of kernels in one bubble, without a pause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFill {
    /// Name of the side model.
    pub side: String,
    /// Start of the side's first kernel, in ns from the beginning of the iteration.
    pub start_ns: u64,
    /// End of the side's last kernel, in ns from the beginning of the iteration.
    pub end_ns: u64,
    /// Number of the side's kernels that run.
    pub kernels: u64,
    /// Time of these kernels alone, in ns; absent where they take as long in the bubble. They take longer beside a receive that
    /// keeps multiprocessors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_ns: Option<u64>,
}

/// A side model and what it does in the whole job, all tensor- and data-parallel ranks together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSide {
    /// Name of the side model in the job file.
    pub name: String,
    /// Where its kernel times come from: `own profile` (the job file), `measured`, `cost model`, or `cost model,
    /// extrapolated`.
    pub source: String,
    /// Time of one training step of the side alone, in ns.
    pub step_ns: f64,
    /// Number of kernels that a step is divided into; the side can pause between any two of them if it may stop within
    /// a step.
    pub kernels_per_step: u64,
    /// Time of its longest kernel alone, in ns: the most that the main job waits for if a bubble ends early.
    pub longest_kernel_ns: u64,
    /// Time lost at the ends of each run in which no kernel of the side can run, in ns: `open_ns` + `restart_ns` +
    /// `signal_ns`.
    pub margin_ns: u64,
    /// Time from opening the gate to the side's first kernel, in ns.
    pub open_ns: u64,
    /// Time that resuming after a pause takes beyond `open_ns`, in ns.
    pub restart_ns: u64,
    /// Time from closing the gate until it is certain that nothing of the side runs, in ns, beyond the kernel in
    /// flight.
    pub signal_ns: u64,
    /// Time that the main job loses by each run of the side, in ns: the call that closes the gate, and the delay behind
    /// a filled bubble, side work that ends late now and then included.
    pub cost_ns: f64,
    /// Speed of the side in a bubble in which the main job waits in a receive, 1 being its speed alone: the receive's thread blocks
    /// keep multiprocessors.
    #[serde(default = "full_speed")]
    pub receive_rate: f64,
    /// Lower end of the interval of `receive_rate`.
    #[serde(default = "full_speed")]
    pub receive_rate_low: f64,
    /// Upper end of the interval of `receive_rate`.
    #[serde(default = "full_speed")]
    pub receive_rate_high: f64,
    /// Memory that the side takes while it runs or is stopped within a step, in bytes.
    pub memory_bytes: u64,
    /// Memory that the side keeps between two steps, in bytes.
    pub resident_bytes: u64,
    /// Value of a second of its work, where a second of the main job's work has value 1.
    pub value: f64,
    /// Number of bubbles of one pipeline, all its stages together, in which the side runs in each iteration.
    pub bubbles_used: u64,
    /// Training steps of the side in one iteration on average, over all tensor- and data-parallel ranks of the job.
    pub steps_per_iteration: f64,
    /// Training steps of the side per second, over all tensor- and data-parallel ranks of the job, with the iteration
    /// as long as filling makes it.
    pub steps_per_s: f64,
    /// Lower end of the 95 % interval of `steps_per_s`.
    pub steps_per_s_low: f64,
    /// Upper end of the 95 % interval of `steps_per_s`.
    pub steps_per_s_high: f64,
    /// Why the side was put nowhere; absent if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<String>,
}

/// Plans of before the receive was known to slow sides down.
const fn full_speed() -> f64 {
    1.0
}

/// What filling the bubbles is worth, compared with the job alone and with other flags. Intervals are at 95 %: from those of
/// the prices, of the side models' steps, of the gate's costs and of what a waiting receive
/// leaves the sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Fraction of all bubble time that becomes side work, on average.
    pub bubble_used: f64,
    /// Length of the filled iteration ÷ length of the empty one.
    pub main_slowdown: f64,
    /// Lower end of the interval of `main_slowdown`.
    pub main_slowdown_low: f64,
    /// Upper end of the interval of `main_slowdown`.
    pub main_slowdown_high: f64,
    /// Useful work per time relative to the main job alone: (main work + side work × value) ÷ main work ÷
    /// `main_slowdown`. The exchange of gradients and the optimizer step are main work too.
    pub gain: f64,
    /// Lower end of the interval of `gain`.
    pub gain_low: f64,
    /// Upper end of the interval of `gain`.
    pub gain_high: f64,
    /// Upper bound of `gain` from bubbles alone at the median times: every bubble filled completely with the most valuable
    /// side.
    pub gain_bound: f64,
    /// The other flags that shorten the iteration most without any filling, as its `describes` has them, among alternatives
    /// that fit the memory and are `sure`; null if none shortens it.
    pub best_alternative: Option<String>,
    /// Length of this job's iteration ÷ that of `best_alternative`, both without side work; 1 if there is none.
    pub best_alternative_gain: f64,
    /// Lower end of the interval of `best_alternative_gain`.
    pub best_alternative_gain_low: f64,
    /// Upper end of the interval of `best_alternative_gain`.
    pub best_alternative_gain_high: f64,
    /// `gain` ÷ `best_alternative_gain`: what filling wins beyond what a change of flags would have won.
    pub net_gain: f64,
    /// Lower end of the interval of `net_gain`.
    pub net_gain_low: f64,
    /// Upper end of the interval of `net_gain`.
    pub net_gain_high: f64,
    /// Whether filling wins more than a change of flags would: true if all of the interval of `net_gain` lies above 1, false if
    /// all of it lies below or nothing is filled, null if 1 lies within it.
    pub filling_pays: Option<bool>,
    /// The other flags that do the most useful work with their own bubbles filled, among alternatives that fit the memory and
    /// are `sure`; null if the job's own flags do.
    pub best_filled_alternative: Option<String>,
    /// `gain_filled` of `best_filled_alternative`; the plan's own `gain` if there is none.
    pub best_filled_alternative_gain: f64,
    /// The other schedule that alone shortens the iteration most without any filling, among those that fit the memory; null
    /// if none shortens it.
    pub best_schedule: Option<String>,
    /// Length of this job's iteration ÷ that under `best_schedule`, both without side work; 1 if there is none.
    pub best_schedule_gain: f64,
    /// The other schedule that alone does the most useful work with its own bubbles filled, among those that fit the memory;
    /// null if the job's own schedule does.
    pub best_filled_schedule: Option<String>,
    /// `gain_filled` of `best_filled_schedule`; the plan's own `gain` if there is none.
    pub best_filled_gain: f64,
    /// Side work of all GPUs in one iteration, in GPU-seconds of the side models' time alone, each side's times its value.
    pub recovered_gpu_s: f64,
    /// GPU-seconds that the main job's slowdown costs on all GPUs in one iteration.
    pub lost_gpu_s: f64,
    /// GPU-seconds that `best_schedule` would free on all GPUs in one iteration with nothing filled; 0 if there is
    /// none.
    pub schedule_gpu_s: f64,
    /// GPU-seconds that `best_alternative` would free on all GPUs in one iteration with nothing filled; 0 if there is none.
    pub alternative_gpu_s: f64,
    /// `recovered_gpu_s` − `lost_gpu_s` − `alternative_gpu_s`, in GPU-seconds of one iteration.
    pub net_recovered_gpu_s: f64,
}

/// The same model and batch on the same GPUs with other flags, for comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// Which kind of flag it changes, of several the one that changes most: `schedule`, `layout`, `recompute` or `division`.
    pub kind: String,
    /// Its flags that differ from the job's own, in words: `pipeline 2, data 4, zb-h1`.
    pub describes: String,
    /// Name of the schedule.
    pub schedule: String,
    /// Model chunks that each device runs under it, 2 in a two-way pipeline; 1 where it does not divide a stage.
    pub chunks: u64,
    /// Pipeline-parallel size.
    pub pipeline: u64,
    /// Tensor-parallel size.
    pub tensor: u64,
    /// Data-parallel size.
    pub data: u64,
    /// Sequences of one micro-batch.
    pub micro_batch: u64,
    /// Length of an iteration without side work, in ns: pipeline, gradient all-reduce and optimizer step.
    pub iteration_ns: u64,
    /// Lower end of the 95 % interval of `iteration_ns`, in ns.
    pub iteration_low_ns: u64,
    /// Upper end of the 95 % interval of `iteration_ns`, in ns.
    pub iteration_high_ns: u64,
    /// Fraction of the stages' pipeline time in which they compute nothing.
    pub bubble_ratio: f64,
    /// Simulated length of this job's iteration ÷ that of the alternative, both without side work; above 1 the
    /// alternative is faster.
    pub gain: f64,
    /// Lower end of the 95 % interval of `gain`. Prices that both rest on are wrong in both alike, so it is narrower than the
    /// iterations' own.
    pub gain_low: f64,
    /// Upper end of the 95 % interval of `gain`.
    pub gain_high: f64,
    /// Useful work per time relative to the main job alone under its own flags, with the alternative's bubbles filled with
    /// the same sides; null where the schedule has too many operations to be filled for comparison.
    pub gain_filled: Option<f64>,
    /// Most activations that any stage holds at once, in micro-batches.
    pub peak_activations: f64,
    /// Whether the main job itself fits a GPU's memory on every stage and leaves the headroom free; null where the memory is not
    /// known.
    pub fits_memory: Option<bool>,
    /// Whether every kind of price that it rests on (layers, other operations, collectives, messages) is as well known as the
    /// job's own of that kind. If not, it is shown and counts for nothing.
    pub sure: bool,
}

impl Alternative {
    /// Whether the job fits under these flags as far as is known.
    pub fn may_fit(&self) -> bool {
        self.fits_memory != Some(false)
    }
}
