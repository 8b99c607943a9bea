//! `cost_model.json`: what was learnt from one machine's measurements, in a form other tools can read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use super::measurement::Interval;
pub use crate::shape::LayerShape;

pub const SCHEMA: &str = "bubblebench.cost_model/1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    pub schema: String,
    pub machine: ModelMachine,
    pub made_from: MadeFrom,
    pub layer: Vec<LayerAnchor>,
    pub operations: OperationFits,
    pub collectives: Vec<CollectiveFit>,
    pub interference: Interference,
    pub gate: Option<GateCost>,
    pub accuracy: Vec<Accuracy>,
    /// Smallest and largest value measured of every input, by name (`hidden`, `sequence`, `collective/all_reduce/bytes`, …).
    pub valid: BTreeMap<String, Range>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelMachine {
    /// The folder's name under `results/`.
    pub name: String,
    pub device: String,
    pub backend: String,
    pub memory_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MadeFrom {
    /// SHA-256 of `measurements.jsonl`; null for models made of published figures.
    pub measurements_sha256: Option<String>,
    pub commit: Option<String>,
    pub at: String,
    /// Where figures that nobody here measured come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A layer that was measured: the model answers with it where the shape is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerAnchor {
    pub shape: LayerShape,
    pub forward_ns: Interval,
    pub backward_input_ns: Interval,
    pub backward_weight_ns: Interval,
    pub activation_bytes: u64,
    pub parameter_bytes: u64,
}

/// Fitted times of single operations: t = Σ coefficient · feature (docs/cost-model.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationFits {
    /// Products, one fit per phase: `forward`, `backward_input`, `backward_weight`.
    pub gemm: BTreeMap<String, Fit>,
    /// Attention, one fit per phase: `forward`, `backward`.
    pub attention: BTreeMap<String, Fit>,
    /// Operations bound by memory, by name (`layernorm/forward`, `residual`, `adamw`, …).
    pub streaming: BTreeMap<String, Fit>,
    /// Cost of asking for one operation, and of each layer phase beyond its operations.
    pub launch: LaunchFit,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// Names of the features, in the order of the coefficients.
    pub features: Vec<String>,
    /// Nanoseconds per unit of each feature.
    pub coefficients_ns: Vec<f64>,
    /// 95 % of the residuals lie within [−low, +high] of the prediction, relative.
    pub relative_low: f64,
    pub relative_high: f64,
    pub cases: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LaunchFit {
    pub per_operation_ns: f64,
    /// Layer time ÷ sum of its operations' times, per phase: launch gaps and cache carry-over.
    pub additivity: BTreeMap<String, Fit>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectiveFit {
    pub operation: String,
    pub ranks: u64,
    pub nodes: u64,
    pub dtype: String,
    /// `pipelined` or `isolated`.
    pub latency: String,
    pub segments: Vec<Segment>,
    /// From which size on which algorithm ran, where the records say it; empty where they do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<AlgorithmFrom>,
    pub relative_low: f64,
    pub relative_high: f64,
    /// CTAs (SMs) the collective takes while it runs, where known.
    pub ctas: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// `algorithm` (and protocol, as `ring/LL128`) ran from this size on, up to the next entry's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlgorithmFrom {
    pub from_bytes: u64,
    pub algorithm: String,
}

/// t = latency_ns + ns_per_byte · bytes for from_bytes ≤ bytes < to_bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    pub from_bytes: u64,
    pub to_bytes: u64,
    pub latency_ns: f64,
    pub ns_per_byte: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interference {
    /// Pairs that were measured, answered as measured.
    pub pairs: Vec<CorunPair>,
    /// How hard each side presses on each resource (slowdown it causes to a probe of that resource − 1), by side then resource.
    pub pressure: BTreeMap<String, BTreeMap<String, f64>>,
    /// How much each main suffers per unit of pressure on each resource, by main then resource.
    pub sensitivity: BTreeMap<String, BTreeMap<String, f64>>,
    /// Slowdown of the main beside nothing, measured the same way: the noise floor.
    pub noise_floor: Option<Interval>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorunPair {
    pub main: String,
    pub side: String,
    pub sharing: String,
    pub slowdown: Interval,
    /// Side progress together ÷ alone; null where the side's progress was not counted.
    pub side_rate: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateCost {
    /// From opening the gate to the side's first operation.
    pub open_ns: f64,
    /// The call that closes it.
    pub close_ns: f64,
    /// From closing to the side standing still (the operation in flight included), worst side measured.
    pub drain_ns: f64,
    /// The same by side model.
    pub drain_by_side_ns: BTreeMap<String, f64>,
    /// Time lost by a side when it goes on after a pause, beyond `open_ns`.
    pub restart_ns: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// `gemm`, `attention`, `streaming`, `layer`, `collective`, `corun`, …
    pub what: String,
    /// Cases held out of the fit.
    pub held_out: u64,
    /// Mean absolute percentage error on them.
    pub mape_percent: f64,
    pub worst_percent: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    pub low: f64,
    pub high: f64,
}
