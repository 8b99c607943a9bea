//! `measurements.jsonl`: one line a case. Times are nanoseconds of *one* operation.

use super::flags;
use super::telemetry::Telemetry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Value of `schema` in every line of `measurements.jsonl`: name and version of the format.
pub const SCHEMA: &str = "bubblebench.measurement/2";

/// What a case measures, and so which fields its line has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A single operation (a product, a layer normalisation, …).
    Operation,
    /// A phase of a whole layer, or a whole training step of a small model.
    Layer,
    /// A collective or send/recv between ranks.
    Collective,
    /// Two programs beside each other on one device.
    Corun,
    /// The gate between main and side work, or a pipeline stage with side work in its bubbles.
    Fill,
    /// The run's closing line: every case of its list has a line before this one.
    End,
}

/// What a case ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Threads of the host's CPU.
    Host,
    /// One or more GPUs, by the CUDA driver.
    Cuda,
}

impl Backend {
    /// The backend as records spell it: `host` or `cuda`.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Host => "host",
            Backend::Cuda => "cuda",
        }
    }
}

/// What the caches held when a timed run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// None of the operands: the caches were flushed, or the runs rotate over copies larger than the last-level cache.
    Cold,
    /// What the run before left there: the same buffers are used again and again.
    Warm,
}

/// How the work of a case reaches the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Launch {
    /// Kernels are put on a CUDA stream one by one.
    Stream,
    /// A captured CUDA graph is replayed.
    Graph,
    /// The host calls a plain function.
    Call,
}

/// The check that ran before timing. A case whose check fails reports no time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// What the result was held against, e.g. `f64 reference`.
    pub against: String,
    /// Largest error of the result, max|x − ref| / max|ref|, over all tensors checked; 0 for exact checks.
    pub max_error: f64,
    /// Elements that were wrong over all ranks (exact checks), or beyond the tolerance.
    pub wrong: u64,
}

/// One of the separate times at which a run came to a case: from its first to its last sample there, between which no
/// other case ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Visit {
    /// When the visit ended, RFC 3339 in UTC.
    pub at: String,
    /// How many of the samples it gave; those of all visits stand one after the other in `samples_ns`.
    pub samples: u64,
    /// Median of its samples, in nanoseconds of one operation.
    pub median_ns: f64,
    /// Collectives: median of its isolated latencies, in nanoseconds; null for every other case.
    pub isolated_ns: Option<f64>,
}

/// One line of `measurements.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// `bubblebench.measurement/2`: name and version of this format; lines of version 1 lack `visits` and are still read.
    pub schema: String,
    /// Stable path of the case, e.g. `gpt/h512-a8-s256-b1-t1-f32/forward`.
    pub id: String,
    /// What the case measures.
    pub kind: Kind,
    /// What was run: shape, phase, ranks, bytes, … by name, units in the names.
    pub params: Map<String, Value>,
    /// The device measured, by its name: the GPU's, or the processor's model on the host.
    pub device: String,
    /// What the case ran on.
    pub backend: Backend,
    /// Samples in nanoseconds of one operation, in the order taken, of which at most 1,000 are kept: batch time ÷
    /// `iterations_per_sample`.
    pub samples_ns: Vec<f64>,
    /// Number of samples that the statistics are made of, those set aside as throttled left out.
    pub samples_total: u64,
    /// Operations that were run back to back for one sample.
    pub iterations_per_sample: u64,
    /// Median time of one operation in nanoseconds, for collectives the pipelined one; null where there is no time, for
    /// the reason in `flags`. Imported figures may be a mean: see `params.statistic`.
    pub median_ns: Option<f64>,
    /// Lower end of the median's 95 % interval, in nanoseconds: of the bootstrap, or the smallest of the visits' medians
    /// where that is lower; null where there is no interval.
    pub ci95_low_ns: Option<f64>,
    /// Upper end of the median's 95 % interval, in nanoseconds: of the bootstrap, or the largest of the visits' medians
    /// where that is higher; null where there is no interval.
    pub ci95_high_ns: Option<f64>,
    /// The separate visits that the samples are of, in the order made; null where the case is visited once: on a GPU,
    /// for co-run pairs and filled stages, and where nothing was timed.
    #[serde(default)]
    pub visits: Option<Vec<Visit>>,
    /// Shortest sample, in nanoseconds of one operation; null where it is not known.
    pub min_ns: Option<f64>,
    /// 99 % quantile of the samples in nanoseconds; null under 500 samples.
    pub p99_ns: Option<f64>,
    /// Whether the case was timed with cold or warm caches; null where the question has no meaning.
    pub cache: Option<Cache>,
    /// How the work reached the device; null where the question has no meaning.
    pub launch: Option<Launch>,
    /// Floating-point operations of one operation, a multiply-add counted as two; null where they were not counted.
    pub flop: Option<f64>,
    /// Bytes that one operation must read and write (for collectives: the message size as nccl-tests counts it); null
    /// where they were not counted.
    pub bytes: Option<f64>,
    /// The check of the result that ran before timing; null where the case has none.
    pub verified: Option<Verified>,
    /// Median SM clock of the samples in MHz, or the sensors' median where none was read beside them; null on the host,
    /// and where it is not known.
    pub sm_clock_mhz: Option<f64>,
    /// Mean power of the GPU while the case ran, in watts: `power_mean_w` of the telemetry. Null on the host, and where
    /// no sensor answered.
    pub power_w: Option<f64>,
    /// Samples set aside because the SM clock was below 96 % of the case's median; null on the host, and where nothing
    /// was timed.
    pub throttled_samples: Option<u64>,
    /// All samples that were thrown away: the throttled ones, and pairs that overlapped too little or whose side did
    /// nothing. Null for imported lines and wrong results.
    pub discarded_samples: Option<u64>,
    /// What the GPU's sensors said while the case ran; null on the host, and where no sensor answered.
    #[serde(default)]
    pub telemetry: Option<Telemetry>,
    /// What was odd about the case: `noisy`, `oversubscribed`, `capped`, `shared-gpu`, `software`, `other-processes`,
    /// `sw-power-cap`, … (docs/reading.md explains each).
    pub flags: Vec<String>,
    /// When the case ended, RFC 3339 in UTC.
    pub at: String,
    /// The run this line belongs to.
    pub run: String,

    // Collective lines.
    /// Collectives: latency in nanoseconds when every operation is synchronised on its own (maximum over ranks);
    /// `median_ns` is the pipelined one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_ns: Option<Interval>,
    /// Collectives: algorithm bandwidth in GB/s (10⁹ bytes a second), bytes ÷ pipelined time, as nccl-tests defines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algbw_gb_per_s: Option<f64>,
    /// Collectives: bus bandwidth in GB/s, `algbw_gb_per_s` times nccl-tests' factor of the operation, as 2(n−1)/n for
    /// an all-reduce; absent for operations without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busbw_gb_per_s: Option<f64>,

    // Co-run lines.
    /// Co-run: time of the main alone, in nanoseconds; filled stage: time of the iteration with empty bubbles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_ns: Option<Interval>,
    /// Co-run: time of the main beside the side, in nanoseconds; filled stage: time of the iteration with the side in
    /// its bubbles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together_ns: Option<Interval>,
    /// Co-run: together ÷ alone of the same pair, with an interval of its own, because the runs of a pair are
    /// interleaved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowdown: Option<Interval>,
    /// Co-run: median progress of the side alone, per second, in the unit `params.side_unit` (training steps, FLOP or
    /// bytes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side_alone_per_s: Option<f64>,
    /// Co-run: median progress of the side beside the main, per second, in the unit `params.side_unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side_together_per_s: Option<f64>,
    /// Co-run: share of the main's time that the side's slices or steps cover, median over pairs, in percent; a pair
    /// below 95 % is discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_percent: Option<f64>,
    /// How main and side share the device: `free`, `split` or `nice` on the CPU, `stream` or `priority` on a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<String>,

    // The filled stage.
    /// Filled stage: what the bubbles of an iteration gave, and what had been predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<FillOutcome>,
}

/// A median with its 95 % interval, in the unit that the field's name gives.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// The median.
    pub median: f64,
    /// Lower end of the median's 95 % interval.
    pub low: f64,
    /// Upper end of the median's 95 % interval.
    pub high: f64,
}

/// What a filled pipeline stage did, beside the same stage with empty bubbles. Of an A/A row, whose name ends in
/// `+nothing`, both iterations of a pair are empty.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FillOutcome {
    /// Bubble time of one iteration as the schedule has it, in nanoseconds.
    pub bubble_ns: f64,
    /// Number of bubbles in one iteration.
    pub bubbles: u64,
    /// Number of bubbles in one iteration that were long enough for the gate to be opened.
    pub bubbles_opened: u64,
    /// Time that the gate stood open in one iteration, all bubbles together, in nanoseconds.
    pub open_ns: f64,
    /// Filled ÷ empty iteration time, of interleaved pairs.
    pub main_slowdown: Interval,
    /// How much bubble time became work: time that the side operations done in it take alone ÷ bubble time, in percent.
    pub bubble_used_percent: f64,
    /// Training steps of the side per second of the filled iteration.
    pub side_steps_per_s: f64,
    /// Time in nanoseconds from the gate's closing to the side's acknowledgement that it stands still; 0 where it had
    /// stopped by the clock before, and where no bubble was opened.
    pub stop_latency_ns: Interval,
    /// Slowdown of the main (filled ÷ empty) that was expected before the run, from calibration alone.
    pub predicted_main_slowdown: f64,
    /// Share of bubble time used that was expected before the run, from calibration alone, in percent.
    pub predicted_bubble_used_percent: f64,
    /// Training steps of the side per second of the filled iteration that were expected before the run; absent in older
    /// lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_side_steps_per_s: Option<f64>,
    /// Stop latency that was expected before the run, in nanoseconds: the median over 20 bubbles of calibration.
    pub predicted_stop_latency_ns: f64,
    /// Pairs of a filled and an empty iteration that the figures are of; absent in older lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<u64>,
    /// Openings of all pairs in which the side did something, which the overruns are of; absent in older lines and in A/A
    /// rows, as are all that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openings: Option<u64>,
    /// Median over openings of the end of the side's last operation − the true end of the bubble, in nanoseconds; 0 or less:
    /// it had ended by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun_p50_ns: Option<f64>,
    /// 99 % quantile of the same, in nanoseconds; absent under 100 openings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun_p99_ns: Option<f64>,
    /// Largest of the same, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun_max_ns: Option<f64>,
    /// Mean over openings whose last operation kept its core of how long the main waited for it: max(0, its end − the true end of
    /// the bubble), in nanoseconds; absent in older lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrun_mean_ns: Option<f64>,
    /// Median over openings of the end of the side's last operation − the expected close, in nanoseconds, without
    /// operations that lost their core meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_overrun_p50_ns: Option<f64>,
    /// 99 % quantile of the same, in nanoseconds; absent under 100 openings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_overrun_p99_ns: Option<f64>,
    /// Openings whose last operation lost its core to another thread meanwhile, as far as the thread that started it can
    /// tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempted_openings: Option<u64>,
    /// Time in nanoseconds from the expected close of an opening to its closing by the main.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_close_ns: Option<Interval>,
    /// Learned length of a bubble, which its opening names ÷ how long it lasted, waking included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_over_true: Option<Interval>,
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
            visits: None,
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

    /// Whether both are of several visits, and this one of more.
    pub fn has_more_visits(&self, other: &Measurement) -> bool {
        matches!((&self.visits, &other.visits), (Some(own), Some(others)) if own.len() > others.len())
    }

    /// Whether the visits can be those of this line; if not, what is wrong with them.
    pub(super) fn check_visits(&self) -> Result<(), String> {
        let Some(visits) = &self.visits else { return Ok(()) };
        let times = visits.iter().flat_map(|visit| [Some(visit.median_ns), visit.isolated_ns]).flatten();
        let samples = visits.iter().map(|visit| visit.samples).fold(0, u64::saturating_add);
        if visits.is_empty() || visits.iter().any(|visit| visit.samples == 0) {
            return Err("a visit with no samples".into());
        }
        if let Some(time) = times.into_iter().find(|time| !(time.is_finite() && *time >= 0.0)) {
            return Err(format!("a visit's time is {time} ns"));
        }
        if samples != self.samples_total {
            return Err(format!("visits hold {samples} samples, samples_total says {}", self.samples_total));
        }
        Ok(())
    }

    /// Whether the run that goes on leaves this case as it is: it has a time, or ended the run and would end it again.
    /// A case without a time for any other reason is tried again.
    pub fn is_settled(&self) -> bool {
        self.median_ns.is_some() || self.has_flag(flags::GPU_FAULT) || self.has_flag(flags::BUG)
    }

    /// The parameter of this name as an integer; `None` where it is absent or no non-negative integer.
    pub fn param_u64(&self, name: &str) -> Option<u64> {
        self.params.get(name).and_then(Value::as_u64)
    }

    /// The parameter of this name as text; `None` where it is absent or no text.
    pub fn param_str(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }
}
