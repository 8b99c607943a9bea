//! `measurements.jsonl`: one line a case. Times are nanoseconds of *one* operation.

use super::flags;
use super::telemetry::Telemetry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub const SCHEMA: &str = "bubblebench.measurement/1";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One operation of the vocabulary (a product, a layernorm, …).
    Operation,
    /// A phase of a whole layer, or a whole training step of a small model.
    Layer,
    Collective,
    /// Two programs beside each other.
    Corun,
    /// The gate and the filled pipeline stage.
    Fill,
    /// The run's closing line: every case of its list has a line before this one.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    Host,
    Cuda,
}

impl Backend {
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Host => "host",
            Backend::Cuda => "cuda",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    Cold,
    Warm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Launch {
    /// Kernels put on a CUDA stream one by one.
    Stream,
    /// A captured CUDA graph, replayed.
    Graph,
    /// A plain function call on the host.
    Call,
}

/// The check that ran before timing. A case whose check fails reports no time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// What the result was held against, e.g. `f64 reference`.
    pub against: String,
    /// max|x − ref| / max|ref| over all tensors checked; 0 for exact checks.
    pub max_error: f64,
    /// Elements that were wrong (exact checks), or beyond the tolerance.
    pub wrong: u64,
}

/// One line of `measurements.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    pub schema: String,
    /// Stable path of the case, e.g. `gpt/h512-a8-s256-b1-t1-f32/forward`.
    pub id: String,
    pub kind: Kind,
    /// What was run: shape, phase, ranks, bytes, … by name, units in the names.
    pub params: Map<String, Value>,
    pub device: String,
    pub backend: Backend,
    /// At most 1,000 kept, in the order taken; each is batch time ÷ `iterations_per_sample`.
    pub samples_ns: Vec<f64>,
    pub samples_total: u64,
    pub iterations_per_sample: u64,
    pub median_ns: Option<f64>,
    pub ci95_low_ns: Option<f64>,
    pub ci95_high_ns: Option<f64>,
    pub min_ns: Option<f64>,
    /// Null under 500 samples.
    pub p99_ns: Option<f64>,
    pub cache: Option<Cache>,
    pub launch: Option<Launch>,
    /// Floating-point operations of one operation.
    pub flop: Option<f64>,
    /// Bytes one operation must read and write (for collectives: the message size as nccl-tests counts it).
    pub bytes: Option<f64>,
    pub verified: Option<Verified>,
    pub sm_clock_mhz: Option<f64>,
    pub power_w: Option<f64>,
    pub throttled_samples: Option<u64>,
    pub discarded_samples: Option<u64>,
    /// What the GPU's sensors said meanwhile; null on the host, and where no sensor answered.
    #[serde(default)]
    pub telemetry: Option<Telemetry>,
    /// `noisy`, `oversubscribed`, `capped`, `shared-gpu`, `software`, `other-processes`, `sw-power-cap`, …
    pub flags: Vec<String>,
    /// When the case ended, RFC 3339 in UTC.
    pub at: String,
    /// The run this line belongs to.
    pub run: String,

    // Collective lines.
    /// Latency when every operation is synchronised on its own (max over ranks); `median_ns` is the pipelined one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_ns: Option<Interval>,
    /// bytes ÷ pipelined time, as nccl-tests defines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algbw_gb_per_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busbw_gb_per_s: Option<f64>,

    // Co-run lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_ns: Option<Interval>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together_ns: Option<Interval>,
    /// together ÷ alone of the same pair (its own interval: pairs were interleaved).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowdown: Option<Interval>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side_alone_per_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side_together_per_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<String>,

    // The filled stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<FillOutcome>,
}

/// A median with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// What a filled pipeline stage did, beside the same stage with empty bubbles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FillOutcome {
    /// Bubble time of one iteration as the schedule has it.
    pub bubble_ns: f64,
    /// Bubbles of one iteration, those long enough to be opened, and the time the gate stood open in them.
    pub bubbles: u64,
    pub bubbles_opened: u64,
    pub open_ns: f64,
    /// filled ÷ empty iteration time, pairs interleaved.
    pub main_slowdown: Interval,
    /// Side operations' own time (alone) ÷ bubble time, in percent: how much bubble became work.
    pub bubble_used_percent: f64,
    pub side_steps_per_s: f64,
    /// From the gate's closing to the side's acknowledgement that it stands still.
    pub stop_latency_ns: Interval,
    /// What was expected before the run, from calibration alone.
    pub predicted_main_slowdown: f64,
    pub predicted_bubble_used_percent: f64,
    pub predicted_stop_latency_ns: f64,
}

impl Measurement {
    /// A record with every measured field empty; the suite fills it in.
    pub fn blank(id: impl Into<String>, kind: Kind, backend: Backend) -> Self {
        Measurement {
            schema: SCHEMA.into(),
            id: id.into(),
            kind,
            params: Map::new(),
            device: String::new(),
            backend,
            samples_ns: Vec::new(),
            samples_total: 0,
            iterations_per_sample: 1,
            median_ns: None,
            ci95_low_ns: None,
            ci95_high_ns: None,
            min_ns: None,
            p99_ns: None,
            cache: None,
            launch: None,
            flop: None,
            bytes: None,
            verified: None,
            sm_clock_mhz: None,
            power_w: None,
            throttled_samples: None,
            discarded_samples: None,
            telemetry: None,
            flags: Vec::new(),
            at: String::new(),
            run: String::new(),
            isolated_ns: None,
            algbw_gb_per_s: None,
            busbw_gb_per_s: None,
            alone_ns: None,
            together_ns: None,
            slowdown: None,
            side_alone_per_s: None,
            side_together_per_s: None,
            overlap_percent: None,
            sharing: None,
            fill: None,
        }
    }

    /// Whether the line carries this flag, one of [`super::flags`] or a throttling reason.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Whether the run that goes on leaves this case as it is: it has a time, or ended the run and would end it again. A case
    /// without a time for any other reason is tried again.
    pub fn is_settled(&self) -> bool {
        self.median_ns.is_some() || self.has_flag(flags::GPU_FAULT) || self.has_flag(flags::BUG)
    }

    /// The parameter as an integer, if it is one.
    pub fn param_u64(&self, name: &str) -> Option<u64> {
        self.params.get(name).and_then(Value::as_u64)
    }

    pub fn param_str(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }
}
