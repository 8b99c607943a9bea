//! A device as these cases use it: its operations, and how their time is read.

use crate::Result;
use crate::clock::{Clock, HostClock};
use crate::ops::Ops;
use crate::ops::host::{Host, HostConfig};
use crate::ops::work::Operation;
use crate::records::measurement::{Backend, Cache, Launch};
use crate::suite::case::Sampling;
use crate::suite::{Context, RawSample};
use serde_json::Value;

/// How a case's work is started and what the caches hold when it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchMode {
    pub cache: Cache,
    pub launch: Launch,
}

/// Work to be timed: one operation, or one pass of a model.
pub type TimedWork<'a, O> = &'a mut (dyn FnMut(&mut O) + Send);

pub trait Bench: Sized + Send + 'static {
    type Ops: Ops<Buffer: Send + Sync> + Send;
    const BACKEND: Backend;
    /// Cold by buffers rotated in the case, where the device cannot be made cold itself.
    const ROTATES: bool;

    fn open(context: &Context) -> Result<Self>;
    /// Whether a bench opened earlier serves this context as well.
    fn serves(&self, context: &Context) -> bool;
    /// Runs where the device's loops are cheapest to drive from.
    fn within<R: Send>(&mut self, work: impl FnOnce(&mut Self::Ops) -> R + Send) -> R;
    /// Before the first sample of a case: captures its graph, where it is launched as one. The work has run before.
    fn settle(&mut self, how: LaunchMode, work: TimedWork<'_, Self::Ops>) -> Result<()>;
    /// What the device chose for an operation that has run: goes into the case's parameters.
    fn choice(&self, _operation: &Operation) -> Option<Value> {
        None
    }
    /// Times `n` runs: one sample of all of them, or a sample each where every run is made cold.
    fn time(&mut self, how: LaunchMode, n: u64, work: TimedWork<'_, Self::Ops>) -> Result<Vec<RawSample>>;
}

/// On a GPU a warm sample is long enough that the gap before its first launch is nothing in it, and that the GPU keeps
/// its clock; runs that are made cold one by one cannot be batched. A rotation is as cold in a batch as one by one.
pub fn sampling<R: Bench>(how: LaunchMode) -> Sampling {
    let batch_ns = match (R::ROTATES, how.cache) {
        (true, _) => return Sampling::default(),
        (false, Cache::Warm) => 5e6,
        (false, Cache::Cold) => 0.0,
    };
    Sampling { batch_ns, ..Sampling::default() }
}

/// The host's CPU threads. A cold case rotates over copies of its buffers there.
pub struct HostBench {
    host: Host,
}

impl Bench for HostBench {
    type Ops = Host;
    const BACKEND: Backend = Backend::Host;
    const ROTATES: bool = true;

    fn open(context: &Context) -> Result<Self> {
        Ok(HostBench { host: Host::new(HostConfig { threads: context.cores, cores: None, nice: None })? })
    }

    fn serves(&self, context: &Context) -> bool {
        self.host.threads() == context.cores
    }

    fn within<R: Send>(&mut self, work: impl FnOnce(&mut Host) -> R + Send) -> R {
        self.host.run(work)
    }

    fn settle(&mut self, _: LaunchMode, _: TimedWork<'_, Host>) -> Result<()> {
        Ok(())
    }

    fn time(&mut self, _: LaunchMode, n: u64, work: TimedWork<'_, Host>) -> Result<Vec<RawSample>> {
        let trial = self.host.run(|host| {
            HostClock.time(&mut || {
                (0..n).for_each(|_| work(host));
                host.synchronize()
            })
        })?;
        Ok(vec![RawSample::new(trial.ns, n)])
    }
}
