//! What a case is: a name, a check, and an answer to "how long do n take?".

use crate::Result;
use crate::clock::Trial;
use crate::records::measurement::{Backend, Cache, FillOutcome, Kind, Launch, Verified};
use serde_json::{Map, Value};

/// What the machine offers the cases.
#[derive(Debug, Clone)]
pub struct Context {
    pub preset: super::Preset,
    pub platform: super::Platform,
    /// Cores this process may use.
    pub cores: usize,
    /// All instances together that those cores use.
    pub last_level_cache_bytes: u64,
}

/// A case by name, before anything is allocated: listing, filtering and resuming need no more.
pub trait Spec {
    fn id(&self) -> String;
    /// Makes the case. Nothing is allocated on the device before [`Case::prepare`].
    fn build(&self, context: &Context) -> Result<Box<dyn Case>>;
}

/// What stands in the record whatever the times are.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseInfo {
    pub id: String,
    pub kind: Kind,
    pub backend: Backend,
    pub params: Map<String, Value>,
    pub cache: Option<Cache>,
    pub launch: Option<Launch>,
    /// Of one operation.
    pub flop: Option<f64>,
    pub bytes: Option<f64>,
    pub sharing: Option<String>,
    pub flags: Vec<String>,
}

impl CaseInfo {
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

    pub fn param(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.params.insert(name.to_string(), value.into());
        self
    }

    /// Several parameters at once, in their order.
    pub fn params(mut self, params: Map<String, Value>) -> Self {
        self.params.extend(params);
        self
    }
}

/// One timed batch.
#[derive(Debug, Clone, PartialEq)]
pub struct RawSample {
    /// Of the whole batch.
    pub ns: f64,
    pub iterations: u64,
    pub sm_clock_mhz: Option<f64>,
    /// The clock could not be told to 1 %: the sample is never discarded because of it.
    pub clock_unresolved: bool,
    pub throttled: bool,
    /// A cold trial whose stream could not be held: launch latency is part of a short time.
    pub unblocked: bool,
    pub detail: Detail,
}

impl RawSample {
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

    /// What a clock said of a batch.
    pub fn of(trial: &Trial, iterations: u64) -> Self {
        RawSample {
            sm_clock_mhz: trial.sm_clock_mhz,
            clock_unresolved: trial.clock_unresolved,
            throttled: trial.throttled,
            unblocked: trial.unblocked,
            ..RawSample::new(trial.ns, iterations)
        }
    }

    pub fn per_operation_ns(&self) -> f64 {
        self.ns / self.iterations.max(1) as f64
    }
}

/// What some kinds of case measure beside the time.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    None,
    /// Collectives: one operation synchronised on its own, max over ranks; the sample's `ns` is the pipelined batch.
    Isolated {
        ns: f64,
    },
    /// Co-run: the sample's `ns` is the main beside the side; `alone_ns` is its partner of the same pair.
    Pair {
        alone_ns: f64,
        side_alone_per_s: f64,
        side_together_per_s: f64,
        overlap_percent: f64,
    },
    /// Filled stage: the sample's `ns` is the filled iteration; `empty_ns` is its partner with empty bubbles.
    Fill {
        empty_ns: f64,
        outcome: FillSample,
    },
}

/// One filled iteration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FillSample {
    pub bubble_ns: f64,
    pub bubbles: u64,
    pub bubbles_opened: u64,
    pub open_ns: f64,
    /// Side operations done in the iteration's bubbles, in time they take alone.
    pub side_work_ns: f64,
    pub side_steps: f64,
    /// One per closing.
    pub stop_latencies_ns: Vec<f64>,
}

/// How a case wants to be sampled; the preset's stop rule is narrowed by it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Shorter operations are batched until a sample takes this long (0: never batch, `sample(n)` gives n samples).
    pub batch_ns: f64,
    pub min_samples: usize,
    /// Samples without which the case's answer means nothing: taken even past the time cap.
    pub least_samples: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { batch_ns: 200_000.0, min_samples: 10, least_samples: 3 }
    }
}

pub trait Case {
    fn info(&self) -> &CaseInfo;

    fn sampling(&self) -> Sampling {
        Sampling::default()
    }

    /// Allocates, runs once, and checks the result; `Err` or a wrong result means no time is reported.
    fn prepare(&mut self) -> Result<Option<Verified>>;

    /// How long do `n` take? Batching cases answer with one sample of `n` iterations, others with `n` samples.
    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>>;

    /// Trials the case threw away itself so far (no overlap, say).
    fn discarded(&self) -> u64 {
        0
    }

    /// What only the case knows once all samples are in: predictions made beforehand, flags. Called once.
    fn outcome(&self, _samples: &[RawSample]) -> Option<FillOutcome> {
        None
    }
}
