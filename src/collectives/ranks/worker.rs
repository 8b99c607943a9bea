//! What the group needs of a transport: a [`Worker`] is one rank's side of the cases, on its own device. NCCL is one; the
//! coordinator drives it from a thread of this process or from a process of its own, and knows nothing of how data moves.

use crate::Result;
use crate::collectives::{Element, Exchange};
use crate::units::{counted, format_bytes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes by which communicators find each other (an `ncclUniqueId`): rank 0 makes them, everybody is handed them.
pub const ID_BYTES: usize = 128;
pub type MeetingId = [u8; ID_BYTES];

/// One exchange as every rank runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub exchange: Exchange,
    pub dtype: Element,
    /// Operations captured in a CUDA graph and replayed.
    pub graph: bool,
    /// Buffers registered with the communicator.
    pub registered: bool,
    /// Most thread blocks (channels) the communicator may use.
    pub max_ctas: Option<u32>,
}

impl Task {
    pub fn bytes(&self) -> u64 {
        (self.exchange.elements * self.dtype.bytes()) as u64
    }
}

/// `all_reduce of 64MiB bf16 between 8 ranks`
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exchange { operation, ranks, .. } = self.exchange;
        let (size, dtype) = (format_bytes(self.bytes()), self.dtype.name());
        write!(f, "{} of {size} {dtype} between {}", operation.path(), counted(ranks, "rank"))
    }
}

/// One rank's nanoseconds: of the whole pipelined batch, and of each operation on its own; ÷ passes already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankTiming {
    pub pipelined_ns: f64,
    pub isolated_ns: Vec<f64>,
}

/// One rank's side of a case, on its own device. Calls are collective: every rank gets the same ones in the same order.
pub trait Worker {
    /// Buffers laid out and filled, one run on poisoned outputs; wrong elements of this rank's output.
    fn prepare(&mut self, task: &Task) -> Result<u64>;

    /// `pipelined` operations back to back, then `isolated` ones on their own. The case was prepared before.
    fn time(&mut self, pipelined: u64, isolated: u64) -> Result<RankTiming>;

    /// Frees the case's buffers.
    fn release(&mut self) -> Result<()>;

    /// What stands in the record of the prepared case (`algorithm`, `protocol`, `channels`, …); rank 0's is used.
    fn facts(&self) -> Map<String, Value> {
        Map::new()
    }
}

/// Where a rank sits, once everybody has met.
#[derive(Debug, Clone, PartialEq)]
pub struct RankConfig {
    pub rank: usize,
    pub ranks: usize,
    /// Its CUDA device, as this process counts them.
    pub device: u32,
    /// Hosts that the ranks are on.
    pub nodes: usize,
    /// Most ranks that share one GPU; 1 where everyone has their own.
    pub ranks_per_gpu: usize,
    /// The bound of every wait on another rank.
    pub deadline: Duration,
}

/// A way of moving data between ranks.
pub trait Transport: Send + Sync {
    /// As records name it: `nccl`.
    fn name(&self) -> &'static str;

    /// Which GPU that is, whoever counts: its UUID or bus address. Two ranks of one host with equal names share it.
    fn gpu(&self, device: u32) -> Result<String>;

    /// Rank 0: the bytes by which the ranks' communicators will find each other.
    fn meeting_id(&self) -> Result<MeetingId>;

    /// Joins the others, on the thread where the worker will live. Collective: returns when all have joined, and with an
    /// error when that takes longer than the configuration's deadline or `abort` is asked for.
    fn join(&self, rank_config: &RankConfig, id: &MeetingId, abort: &Abort) -> Result<Box<dyn Worker>>;
}

type Last = Box<dyn FnOnce() + Send>;

/// How another thread ends a worker at once, from wherever it hangs. A worker that polls looks at [`Abort::requested`];
/// one that may be stuck in a native call leaves a function with [`Abort::on_request`].
#[derive(Clone, Default)]
pub struct Abort(Arc<(AtomicBool, Mutex<Option<Last>>)>);

impl Abort {
    pub fn requested(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// Runs once, on the thread that asks, even while the worker's own thread is inside a native call; at once where it
    /// has been asked for already. A later function takes an earlier one's place.
    pub fn on_request(&self, last: impl FnOnce() + Send + 'static) {
        *self.place() = Some(Box::new(last));
        if self.requested() {
            self.run();
        }
    }

    /// The communicator is gone in good order: there is nothing to end any more.
    pub fn forget(&self) {
        *self.place() = None;
    }

    pub fn request(&self) {
        self.0.0.store(true, Ordering::Release);
        self.run();
    }

    fn run(&self) {
        // Taken out first: it may take long, and must not hold the place meanwhile.
        let last = self.place().take();
        if let Some(last) = last {
            last();
        }
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<Last>> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn an_abort_runs_once_whichever_comes_first() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = || {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let before = Abort::default();
        before.on_request(counted());
        before.request();
        before.request();
        assert_eq!((count.load(Ordering::Relaxed), before.requested()), (1, true));
        let after = Abort::default();
        after.request();
        after.on_request(counted());
        assert_eq!(count.load(Ordering::Relaxed), 2);
        let forgotten = Abort::default();
        forgotten.on_request(counted());
        forgotten.forget();
        forgotten.request();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
