//! `cost_model.json`: what was learnt from one machine's measurements, in a form other tools can read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use super::measurement::Interval;
pub use super::topology::{Topology, TopologyKind};
pub use crate::shape::LayerShape;

/// Value of `schema` in every `cost_model.json`: name and version of the format.
pub const SCHEMA: &str = "bubblebench.cost_model/2";

/// What the measurements of one machine say about operations, layers, collectives and co-runs nobody measured.
/// `bubblebench fit` makes it; `predict` and `plan` read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    /// Name and version of this format, `bubblebench.cost_model/2`; files of version 1 are read too.
    pub schema: String,
    /// The machine and device that the times are of.
    pub machine: ModelMachine,
    /// The measurements or published figures that the model was made from.
    pub made_from: MadeFrom,
    /// Layers measured in all three phases (forward, backward to inputs, backward to weights), which are answered as
    /// measured.
    pub layer: Vec<LayerAnchor>,
    /// Fitted times of single operations, and of layer phases as the sum of their operations.
    pub operations: OperationFits,
    /// Time over message size, one curve for each collective, number of ranks and nodes, element type and kind of
    /// latency.
    pub collectives: Vec<CollectiveFit>,
    /// How the machine's GPUs are joined, where that is stated; it says how a group's bandwidth changes with its ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// How much programs that share a device slow each other down.
    pub interference: Interference,
    /// What stopping and starting the side work in a bubble costs; null if neither opening the gate nor a drain was
    /// measured.
    pub gate: Option<GateCost>,
    /// Error of each part of the model on cases that were held out of its fit (docs/cost-model.md, "Held out").
    pub accuracy: Vec<Accuracy>,
    /// Smallest and largest value measured of every input, by name (`hidden`, `sequence`,
    /// `collective/all_reduce/bytes`, …). A question outside of them is answered with `in_range` false.
    pub valid: BTreeMap<String, Range>,
    /// Of a model joined from several, which of them answers for each part (`layers`, `operations/gemm`, `collectives/all_reduce`,
    /// `gate`, …); absent where all parts are of one machine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, Origin>,
}

impl CostModel {
    /// The part of a joined model that a collective belongs to: `collectives/all_reduce` within a node,
    /// `collectives/all_reduce/between_nodes` over several.
    pub fn collective_part(operation: &str, nodes: u64) -> String {
        let name = operation.split('/').next().unwrap_or(operation);
        let network = if nodes > 1 { "/between_nodes" } else { "" };
        format!("collectives/{name}{network}")
    }

    /// What kind of figures answers for a part (`layers`, `collectives/all_reduce`, …).
    pub fn source_of(&self, part: &str) -> Source {
        let own = match (self.machine.source, &self.made_from.source) {
            // Version 1 had no other word for it.
            (Source::Measured, Some(_)) => Source::Published,
            (source, _) => source,
        };
        self.origins.get(part).map_or(own, |origin| origin.source)
    }
}

/// The cost model that a part of a joined one was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Name of the machine.
    pub machine: String,
    /// Whether its figures were measured, published by others or taken from a data sheet.
    pub source: Source,
}

/// The machine that a cost model is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelMachine {
    /// The name of the machine's folder under `results/`.
    pub name: String,
    /// The device measured, by its name: the GPU's, or the processor's model where the host was measured.
    pub device: String,
    /// What the cases ran on: `host` (CPU threads) or `cuda` (a GPU).
    pub backend: String,
    /// Memory of the first GPU, or of the host where there is no GPU, in bytes; null where it is not known.
    pub memory_bytes: Option<u64>,
    /// Whether the figures were measured, published by others or taken from a data sheet; `measured` where absent.
    #[serde(default)]
    pub source: Source,
}

/// What kind of figures answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Measured on the machine that the model is of, by this program or by the one whose log was imported.
    #[default]
    Measured,
    /// Published by others, for a machine of this kind.
    Published,
    /// From the device's data sheet, with the efficiency of another machine.
    Datasheet,
}

impl Source {
    /// The word that reports and records spell.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Measured => "measured",
            Source::Published => "published",
            Source::Datasheet => "datasheet",
        }
    }
}

/// Where the figures of a cost model come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MadeFrom {
    /// SHA-256 of `measurements.jsonl` in hexadecimal; null for models made of published figures.
    pub measurements_sha256: Option<String>,
    /// Commit of the program whose run was measured; null where it is not known, as for imported and published figures.
    pub commit: Option<String>,
    /// When the last case it was made from ended, RFC 3339 in UTC.
    pub at: String,
    /// Where figures come from that were published by others instead of measured by this program; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A layer that was measured: the model answers with it where the shape is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerAnchor {
    /// Shape of the layer on one tensor-parallel rank, with its element type and recomputation.
    pub shape: LayerShape,
    /// Time of the forward pass in nanoseconds.
    pub forward_ns: Interval,
    /// Time of the backward pass to the layer's input in nanoseconds, recomputed activations included.
    pub backward_input_ns: Interval,
    /// Time of the backward pass to the weights in nanoseconds.
    pub backward_weight_ns: Interval,
    /// Bytes of activations that one micro-batch keeps on one rank between forward and backward.
    pub activation_bytes: u64,
    /// Bytes of the layer's parameters on one rank, in the layer's element type, without gradients and optimizer state.
    pub parameter_bytes: u64,
}

/// Fitted times of single operations: t = Σ coefficient · feature (docs/cost-model.md).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationFits {
    /// Fits of matrix products, one per phase: `forward`, `backward_input`, `backward_weight`; another element type's
    /// or cold caches' stand behind it, as in `forward/f32/cold`.
    pub gemm: BTreeMap<String, Fit>,
    /// Fits of attention, one per phase: `forward`, `backward`; with the same endings as those of products.
    pub attention: BTreeMap<String, Fit>,
    /// Fits of operations bound by memory, by name (`layernorm/forward`, `residual`, `adamw`, …); `any` stands for all
    /// together and answers for names that were not measured.
    pub streaming: BTreeMap<String, Fit>,
    /// Fixed cost of one operation, and fits of whole layer phases.
    pub launch: LaunchFit,
}

/// A fitted time, t = Σ coefficient · feature, with non-negative coefficients and relative residuals
/// (docs/cost-model.md, "Making a fit").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// Names of the features, in the order of the coefficients: `1`, `flop`, `bytes`, `m*k`, … (docs/cost-model.md
    /// lists them).
    pub features: Vec<String>,
    /// Nanoseconds per unit of each feature; none is negative.
    pub coefficients_ns: Vec<f64>,
    /// How far the truth may lie below the prediction: 95 % of the time it is from predicted · (1 − low) to predicted ·
    /// (1 + high), by the errors on held-out cases.
    pub relative_low: f64,
    /// How far the truth may lie above the prediction, as a share of it; see `relative_low`.
    pub relative_high: f64,
    /// Number of measured cases that the coefficients were fitted to.
    pub cases: u64,
    /// What the sum is multiplied by near measured cases; absent where cross-validation found no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchors: Option<Anchors>,
    /// Of products: whether no measured case had a GELU in its epilogue, so that one is priced as a pass of its own; absent
    /// where some had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_gelu: bool,
}

/// The correction of a fit near measured cases: the sum of features is multiplied by exp(Σ weight · K(d ÷ length)),
/// d = √Σ ln²(size ÷ the point's), K(h) = (1 + √3·h)·e^(−√3·h), the exponent held between the least and the greatest ln
/// ratio of the points and 0 (docs/cost-model.md, "Near measured cases").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Anchors {
    /// Names of the sizes that distances are counted in: `m`, `n`, `k`; `bytes`; … (docs/cost-model.md lists them).
    pub sizes: Vec<String>,
    /// Distance over which a point speaks for its surroundings, in units of ln(size).
    pub length: f64,
    /// Part of the ratios' variance that was taken to be noise when the weights were found; 0 makes the correction exact
    /// at every point.
    pub nugget: f64,
    /// The measured cases.
    pub points: Vec<AnchorPoint>,
}

/// One measured case that corrects a fit around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnchorPoint {
    /// Its sizes, in the order of the names.
    pub at: Vec<f64>,
    /// Its measured time ÷ the sum of features.
    pub ratio: f64,
    /// Its weight in the exponent of the correction.
    pub weight: f64,
}

/// What operations cost beyond their own work: the fixed cost of each, and the difference between a layer and the sum
/// of its operations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LaunchFit {
    /// Median of the fixed costs (feature `1`) of the operations' fits, in nanoseconds; 0 where it is too small to see.
    pub per_operation_ns: f64,
    /// Fits of whole layer phases, by phase; where there is one for each element type, with the type behind, as
    /// `forward/bf16`. The coefficient of `operations_ns` is the layer's time ÷ the sum of its
    /// operations' times: above 1 for launch gaps and operands that left the cache.
    pub additivity: BTreeMap<String, Fit>,
}

/// Time of one collective over message size: straight pieces in bytes, between the same ranks and of one element type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectiveFit {
    /// The collective, as `all_reduce`; with its pattern or a reduction other than the sum behind it, as
    /// `send_recv/ping_pong`.
    pub operation: String,
    /// Number of ranks that take part, two or more.
    pub ranks: u64,
    /// Number of nodes that the ranks are on.
    pub nodes: u64,
    /// Element type of the message: `bf16`, `f32`, …
    pub dtype: String,
    /// Which of the two times of a collective it is: `pipelined` (back to back, nccl-tests' figure) or `isolated` (each
    /// operation synchronised on its own).
    pub latency: String,
    /// The pieces of the curve, by rising size and without gaps. Sizes outside are answered by the first or last piece,
    /// out of range.
    pub segments: Vec<Segment>,
    /// From which size on which algorithm ran, where the records say it; empty where they do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<AlgorithmFrom>,
    /// How far the truth may lie below the prediction: 95 % of the time it is from predicted · (1 − low) to predicted ·
    /// (1 + high), by the errors on sizes left out of all curves.
    pub relative_low: f64,
    /// How far the truth may lie above the prediction, as a share of it; see `relative_low`.
    pub relative_high: f64,
    /// Most thread blocks (CTAs) that the collective ran in at any size, each of which takes an SM; null where not
    /// known.
    pub ctas: Option<u64>,
    /// Flags of the measurements that hold for the curve: `oversubscribed`, or none. Such a curve stays out of the
    /// accuracy figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// An algorithm that a collective uses from one message size on, up to the next entry's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmFrom {
    /// Smallest message size, in bytes, that the algorithm was seen at.
    pub from_bytes: u64,
    /// The algorithm, with its protocol where that is known: `ring`, `ring/LL128`.
    pub algorithm: String,
}

/// One straight piece of a collective's curve: `t = latency_ns + ns_per_byte · bytes` for sizes from `from_bytes` up
/// to, but not including, `to_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Smallest message size of the piece, in bytes.
    pub from_bytes: u64,
    /// End of the piece, in bytes: the first size that no longer belongs to it.
    pub to_bytes: u64,
    /// Part of the time that does not depend on the size, in nanoseconds; never negative.
    pub latency_ns: f64,
    /// Nanoseconds for each further byte of the message; never negative.
    pub ns_per_byte: f64,
}

/// How much programs slow each other down that share a device. Unmeasured pairs follow from pressure and sensitivity:
/// slowdown = 1 + Σ pressure · sensitivity (after Bubble-Up, Mars et al., MICRO 2011).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interference {
    /// Pairs that were measured, answered as measured.
    pub pairs: Vec<CorunPair>,
    /// How hard each side presses on each resource: the slowdown it causes to a probe of that resource, less 1. By
    /// side, then sharing mode and resource, as `free/memory`.
    pub pressure: BTreeMap<String, BTreeMap<String, f64>>,
    /// How much each main suffers per unit of pressure on each resource, by main, then sharing mode and resource, as
    /// `free/memory`; `…/presence` is what any side costs.
    pub sensitivity: BTreeMap<String, BTreeMap<String, f64>>,
    /// Slowdown of the main beside nothing, measured the same way: the median, and the widest interval, of all such
    /// pairs. Null where none was measured.
    pub noise_floor: Option<Interval>,
}

/// A main and a side that were measured beside each other on one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorunPair {
    /// The main, by name: a layer's forward or backward pass (`gpt-…-forward`), a probe or a product.
    pub main: String,
    /// The side, by name: a small model that trains (`convnet-b16`), a pressure program, an all-reduce, or `nothing`.
    pub side: String,
    /// How main and side share the device: `free`, `split` or `nice` on the CPU, `stream` or `priority` on a GPU.
    pub sharing: String,
    /// Time of the main beside the side ÷ its time alone.
    pub slowdown: Interval,
    /// The side's progress beside the main ÷ its progress alone, 1 if it keeps all of its speed; null where it was not
    /// counted.
    pub side_rate: Option<f64>,
    /// Training steps a second of the side alone; absent where the side does not train, and in models that an earlier
    /// version made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side_alone_per_s: Option<f64>,
}

/// What it costs to let side work run in a bubble and to stop it again, by a page of memory shared between both
/// (docs/corun.md, "The gate"). What was not measured counts as 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateCost {
    /// Time from opening the gate to the side's first operation, in nanoseconds.
    pub open_ns: f64,
    /// Time of the main's call that closes the gate, in nanoseconds.
    pub close_ns: f64,
    /// Time from closing the gate until the side stands still (the operation in flight included), in nanoseconds: that
    /// of the worst side measured.
    pub drain_ns: f64,
    /// Time from closing the gate until the side stands still, in nanoseconds, by side model: the 95 % quantile, or the
    /// median of fewer than 20 samples.
    pub drain_by_side_ns: BTreeMap<String, f64>,
    /// Time that a side loses when it goes on after a pause, beyond `open_ns`, in nanoseconds: that of the worst side
    /// measured.
    pub restart_ns: f64,
}

/// Error of one part of the model, on cases that were left out of the fit which predicted them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// The part: `gemm`, `attention`, `streaming`, `layer`, `layer/forward`, `collective`, `collective/new size`,
    /// `corun`, …
    pub what: String,
    /// Number of cases that were held out and predicted.
    pub held_out: u64,
    /// Mean absolute error over the held-out cases, each relative to the measured time (or slowdown), in percent.
    pub mape_percent: f64,
    /// Largest absolute error among the held-out cases, relative to the measured time (or slowdown), in percent.
    pub worst_percent: f64,
}

/// The values of one input that were measured; what lies outside is predicted with a wider interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Smallest value measured.
    pub low: f64,
    /// Largest value measured.
    pub high: f64,
}
