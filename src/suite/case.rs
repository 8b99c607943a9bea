//! What a case is: a name, a check, and an answer to "how long do n take?".

use super::stop_rule::StopRule;
use crate::Result;
use crate::clock::Trial;
use crate::records::measurement::{Backend, Cache, FillOutcome, Kind, Launch, Verified};
use serde_json::{Map, Value};

/// What the machine offers the cases.
#[derive(Debug, Clone)]
pub struct Context {
    /// The preset whose list the cases come from.
    pub preset: super::Preset,
    /// The device that the run measures on.
    pub platform: super::Platform,
    /// Number of cores this process may use.
    pub cores: usize,
    /// Bytes of last-level cache: on the host all instances together that those cores use, on a GPU the L2 cache of the
    /// machine's first GPU.
    pub last_level_cache_bytes: u64,
}

/// A case by name, before anything is allocated: listing, filtering and resuming need no more.
pub trait Spec {
    /// The case's stable name, a path such as `gpt/h512-a8-s256-b1-t1-f32/forward`, which tables and baselines are
    /// joined on.
    fn id(&self) -> String;
    /// Makes the case; nothing of its data is allocated before [`Case::prepare`]. An error where this machine cannot
    /// run it.
    fn build(&self, context: &Context) -> Result<Box<dyn Case>>;
    /// Frees what cases of one list share and keep for each other, so that a later visit finds it on new memory.
    fn forget(&self) {}
}

/// What a case's record holds whatever the times are.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseInfo {
    /// The case's stable name, as [`Spec::id`] gives it.
    pub id: String,
    /// Which of the kinds of record its line is.
    pub kind: Kind,
    /// Whether it runs on the CPU or on a CUDA device.
    pub backend: Backend,
    /// What was run, by name: shape, phase, ranks, bytes, … with the unit in the name.
    pub params: Map<String, Value>,
    /// Whether the caches hold the case's data when its work starts (warm) or were emptied before (cold).
    pub cache: Option<Cache>,
    /// How the work gets to the device: kernels on a stream, a CUDA graph, or a plain call on the host.
    pub launch: Option<Launch>,
    /// Floating-point operations of one operation, a multiply-add counted as two; `None` where the case has no such
    /// count.
    pub flop: Option<f64>,
    /// Bytes that one operation must read and write; of a collective the message size. `None` where they are not
    /// counted.
    pub bytes: Option<f64>,
    /// Name of the way in which main and side share the device (`free`, `priority`, …); `None` where nothing runs
    /// beside.
    pub sharing: Option<String>,
    /// Flags that are known before anything is timed; [`crate::records::flags`] lists them.
    pub flags: Vec<String>,
}

impl CaseInfo {
    /// A warm case without parameters or counts, launched by a call on the host and on a stream on a GPU.
    pub fn new(id: impl Into<String>, kind: Kind, backend: Backend) -> Self {
        CaseInfo {
            id: id.into(),
            kind,
            backend,
            params: Map::new(),
            cache: Some(Cache::Warm),
            launch: match backend {
                Backend::Host => Some(Launch::Call),
                Backend::Cuda => Some(Launch::Stream),
            },
            flop: None,
            bytes: None,
            sharing: None,
            flags: Vec::new(),
        }
    }

    /// The same with one more parameter; an earlier one of that name is replaced.
    pub fn param(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.params.insert(name.to_string(), value.into());
        self
    }

    /// The same with several more parameters, in their order; earlier ones of these names are replaced.
    pub fn params(mut self, params: Map<String, Value>) -> Self {
        self.params.extend(params);
        self
    }
}

/// One timed batch of operations.
#[derive(Debug, Clone, PartialEq)]
pub struct RawSample {
    /// Nanoseconds of the whole batch.
    pub ns: f64,
    /// Operations in the batch.
    pub iterations: u64,
    /// SM clock in MHz during the batch; `None` where none was read, as on the host.
    pub sm_clock_mhz: Option<f64>,
    /// Whether the SM clock is not known to 1 %: the sample is then never discarded because of it.
    pub clock_unresolved: bool,
    /// Whether the device itself reported that it throttled meanwhile, which no clock here does so far; such a sample
    /// is always set aside.
    pub throttled: bool,
    /// Whether a cold trial's stream could not be held until the work was on it: launch latency is then part of a short
    /// time.
    pub unblocked: bool,
    /// What the case measured beside the time; of the same variant in all samples of a case.
    pub detail: Detail,
}

impl RawSample {
    /// A sample of `iterations` operations that took `ns` nanoseconds together, without a clock or details.
    pub fn new(ns: f64, iterations: u64) -> Self {
        RawSample {
            ns,
            iterations,
            sm_clock_mhz: None,
            clock_unresolved: false,
            throttled: false,
            unblocked: false,
            detail: Detail::None,
        }
    }

    /// A sample of `iterations` operations with the time and the clock readings of this trial.
    pub fn of(trial: &Trial, iterations: u64) -> Self {
        RawSample {
            sm_clock_mhz: trial.sm_clock_mhz,
            clock_unresolved: trial.clock_unresolved,
            throttled: trial.throttled,
            unblocked: trial.unblocked,
            ..RawSample::new(trial.ns, iterations)
        }
    }

    /// Nanoseconds of one operation: the batch's time ÷ its iterations.
    pub fn per_operation_ns(&self) -> f64 {
        self.ns / self.iterations.max(1) as f64
    }

    /// What the stop rule looks at: of a filled stage the pair's slowdown, which is what the case is asked for, else the
    /// time of one operation in nanoseconds.
    pub fn judged(&self) -> f64 {
        match &self.detail {
            Detail::Fill { empty_ns, .. } => self.per_operation_ns() / empty_ns,
            _ => self.per_operation_ns(),
        }
    }
}

/// What some kinds of case measure beside the time of the batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// Nothing: the time is all there is.
    None,
    /// Of a collective: the latency of operations synchronised one by one, the maximum over ranks; the sample's `ns` is
    /// of the pipelined batch.
    Isolated {
        /// Nanoseconds of one isolated operation, the median of those in the sample.
        ns: f64,
    },
    /// Of a co-run case: the pair's other measurements; the sample's `ns` is of the main beside the side.
    Pair {
        /// Nanoseconds of one pass of the main alone, while the sample's `ns` is of all its passes.
        alone_ns: f64,
        /// The side's progress alone, in its own unit (`side_unit` of the parameters) per second.
        side_alone_per_s: f64,
        /// The side's progress beside the main, in the same unit per second.
        side_together_per_s: f64,
        /// Share of the main's time during which the side was at work, in percent.
        overlap_percent: f64,
    },
    /// Of a filled pipeline stage: its partner with empty bubbles and the account of the bubbles; the sample's `ns` is
    /// of the filled iteration.
    Fill {
        /// Nanoseconds of the partner iteration, whose bubbles stayed empty.
        empty_ns: f64,
        /// What happened in the filled iteration's bubbles.
        outcome: FillSample,
    },
}

/// The account of the bubbles of one filled iteration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FillSample {
    /// Bubble time of the iteration as the schedule has it, in nanoseconds.
    pub bubble_ns: f64,
    /// Number of bubbles in the iteration.
    pub bubbles: u64,
    /// How many of them were long enough for the gate to be opened.
    pub bubbles_opened: u64,
    /// Nanoseconds during which the gate stood open, over all bubbles.
    pub open_ns: f64,
    /// The side's operations done in the iteration's bubbles, counted as the nanoseconds that they take alone.
    pub side_work_ns: f64,
    /// The same work in training steps of the side, fractions included.
    pub side_steps: f64,
    /// Nanoseconds from each closing of the gate until the side stood still, 0 where it had stopped before; where it was
    /// still at work at the next opening, until then.
    pub stop_latencies_ns: Vec<f64>,
    /// Nanoseconds from the true end of each opened bubble to the end of the side's last operation in it.
    pub overruns_ns: Vec<f64>,
    /// How long the main waited for each of these operations, 0 where it had ended by then, without those that lost their core
    /// meanwhile.
    pub waits_ns: Vec<f64>,
    /// The overruns from the expected close, without operations that lost their core meanwhile.
    pub expected_overruns_ns: Vec<f64>,
    /// Number of opened bubbles whose last operation lost its core meanwhile.
    pub preempted: u64,
    /// Nanoseconds from the expected close of each opening to its closing.
    pub late_closes_ns: Vec<f64>,
    /// Of each opened bubble the length that it was opened for ÷ how long it lasted.
    pub learned_over_true: Vec<f64>,
}

/// How a case wants to be sampled; the preset's stop rule is narrowed by it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Shorter operations are batched until a sample takes at least 70 % of this many nanoseconds; 0: they are never
    /// batched, and `sample(n)` gives n samples.
    pub batch_ns: f64,
    /// Fewest samples before the interval is looked at, where the preset asks for fewer; the time cap ends a case earlier.
    pub min_samples: usize,
    /// Samples that are taken even beyond the time cap: with fewer the case's result would mean nothing.
    pub least_samples: usize,
    /// Whether a run on the host comes back to the case, so that its samples are of several times. Not where a sample
    /// holds what it is compared with (pairs), and not where making the case takes longer than all its samples.
    pub revisited: bool,
    /// A stop rule of the case's own in place of the preset's: where a sample takes so long that the preset's time would
    /// say nothing, or where something else than a time is to be told.
    pub rule: Option<StopRule>,
}

impl Sampling {
    /// The same for one of several visits.
    pub fn of_one_visit(&self, visits: usize) -> Self {
        let share = |samples: usize| samples.div_ceil(visits.max(1));
        Sampling { min_samples: share(self.min_samples), least_samples: share(self.least_samples), ..*self }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { batch_ns: 200_000.0, min_samples: 10, least_samples: 3, revisited: true, rule: None }
    }
}

/// A benchmark case: it prepares and checks itself, and tells how long its work takes.
pub trait Case {
    /// What the case's record holds whatever the times are; preparing and sampling may add parameters and flags to it.
    fn info(&self) -> &CaseInfo;

    /// How the case wants to be sampled; by default in batches of about 0.2 ms and at least ten of them.
    fn sampling(&self) -> Sampling {
        Sampling::default()
    }

    /// Allocates, runs once and checks the result (`None`: nothing to check); an error where the machine cannot run it.
    /// After an error or a wrong result no time is reported.
    fn prepare(&mut self) -> Result<Option<Verified>>;

    /// Makes the case for a later visit of a run that has checked it before, on new memory. The check may be left out,
    /// and `None` is returned where it was; by default it is made again.
    fn prepare_again(&mut self) -> Result<Option<Verified>> {
        self.prepare()
    }

    /// Times `n` operations: as one sample of `n` iterations where the case batches, else as up to `n` samples. An
    /// error where the device or a rank fails, or the case was not prepared.
    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>>;

    /// Says that what was sampled so far was to warm up: from here on it counts.
    fn begin(&mut self) {}

    /// Number of trials that the case itself has thrown away so far, such as pairs without overlap.
    fn discarded(&self) -> u64 {
        0
    }

    /// What a fill case predicted before it ran, with the measured fields empty; `None` for every other case. Called
    /// once, after all samples are taken.
    fn outcome(&self, _samples: &[RawSample]) -> Option<FillOutcome> {
        None
    }
}
