//! What a group of ranks needs of a transport: a [`Worker`] is one rank's side of the cases, on its own device. NCCL is
//! one transport; the coordinator drives the workers, in this process or in others, and knows nothing of how data
//! moves.

use crate::Result;
use crate::collectives::{Element, Exchange};
use crate::units::{counted, format_bytes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Size in bytes of a [`MeetingId`], which is that of an `ncclUniqueId`.
pub const ID_BYTES: usize = 128;
/// The bytes by which the ranks' communicators find each other (with NCCL an `ncclUniqueId`): rank 0 makes them, every
/// rank is given them.
pub type MeetingId = [u8; ID_BYTES];

/// One exchange and the way in which every rank runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The operation, its size, its ranks and whether it runs in place.
    pub exchange: Exchange,
    /// Type of the buffers' elements.
    pub dtype: Element,
    /// Whether operations are captured in CUDA graphs and replayed.
    pub graph: bool,
    /// Whether the buffers are registered with the communicator.
    pub registered: bool,
    /// Thread blocks (channels) that the operation runs in, exactly, on a communicator of its own; `None` leaves their
    /// number to the transport.
    pub max_ctas: Option<u32>,
}

impl Task {
    /// Message size of the exchange in bytes ([`Exchange::bytes`]).
    pub fn bytes(&self) -> u64 {
        self.exchange.bytes(self.dtype.bytes() as u64)
    }
}

/// Written as `all_reduce of 64MiB bf16 between 8 ranks`.
impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exchange { operation, ranks, .. } = self.exchange;
        let (size, dtype) = (format_bytes(self.bytes()), self.dtype.name());
        write!(f, "{} of {size} {dtype} between {}", operation.path(), counted(ranks, "rank"))
    }
}

/// One rank's times of one sample, already divided by the operation's passes (2 for a ping-pong).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankTiming {
    /// Nanoseconds of the whole pipelined batch on this rank.
    pub pipelined_ns: f64,
    /// Nanoseconds of each isolated operation on this rank, in the order they ran.
    pub isolated_ns: Vec<f64>,
}

/// One rank's side of a case, on its own device. Calls are collective: every rank gets the same ones in the same order.
pub trait Worker {
    /// Lays out and fills the buffers, runs the task once on poisoned outputs and returns the number of wrong elements
    /// on this rank; an error where the task cannot run, the device fails or another rank does not come within the
    /// deadline.
    fn prepare(&mut self, task: &Task) -> Result<u64>;

    /// Times `pipelined` operations of the prepared task back to back, then `isolated` ones on their own; an error
    /// where none was prepared, or as for [`Worker::prepare`].
    fn time(&mut self, pipelined: u64, isolated: u64) -> Result<RankTiming>;

    /// Frees the buffers of the prepared task; an error where the device fails.
    fn release(&mut self) -> Result<()>;

    /// Fields for the record of the prepared task (`algorithm`, `protocol`, `channels`, …); only rank 0's are used.
    fn facts(&self) -> Map<String, Value> {
        Map::new()
    }
}

/// A rank's place in a communicator: its number, its device, and how the ranks are spread over hosts and GPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct RankConfig {
    /// This rank's number in the communicator, counted from 0.
    pub rank: usize,
    /// Number of ranks in the communicator.
    pub ranks: usize,
    /// The rank's CUDA device, by the number that its own process gives it.
    pub device: u32,
    /// Number of hosts that the communicator's ranks are on.
    pub nodes: usize,
    /// Largest number of ranks that share one GPU; 1 where each has its own.
    pub ranks_per_gpu: usize,
    /// Longest wait for another rank; beyond it the worker gives up with an error.
    pub deadline: Duration,
}

/// A way of moving data between ranks.
pub trait Transport: Send + Sync {
    /// The transport's name in records and case names, such as `nccl`.
    fn name(&self) -> &'static str;

    /// The UUID or bus address of a CUDA device, by which two ranks of one host are known to share a GPU; an error
    /// where the driver does not tell it.
    fn gpu(&self, device: u32) -> Result<String>;

    /// Makes, on rank 0, the bytes by which the ranks' communicators will find each other; an error where the transport
    /// cannot.
    fn meeting_id(&self) -> Result<MeetingId>;

    /// Joins the other ranks, on the thread where the worker will live. The call is collective: it returns when all
    /// have joined, and with an error when that takes longer than the configuration's deadline or `abort` is requested.
    fn join(&self, rank_config: &RankConfig, id: &MeetingId, abort: &Abort) -> Result<Box<dyn Worker>>;
}

type Last = Box<dyn FnOnce() + Send>;

/// A request to a worker, from another thread, to stop at once wherever it hangs. A worker that polls looks at
/// [`Abort::requested`]; one that may be stuck in a native call leaves a function with [`Abort::on_request`].
#[derive(Clone, Default)]
pub struct Abort(Arc<(AtomicBool, Mutex<Option<Last>>)>);

impl Abort {
    /// Whether an abort has been requested; a worker that polls gives up its work then.
    pub fn requested(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    /// Leaves a function that the request runs once, on the requesting thread, even while the worker's own thread is
    /// inside a native call; it runs at once where the request has been made already. A later function replaces an
    /// earlier one.
    pub fn on_request(&self, last: impl FnOnce() + Send + 'static) {
        *self.place() = Some(Box::new(last));
        if self.requested() {
            self.run();
        }
    }

    /// Drops the function left by [`Abort::on_request`], because the communicator has ended in order and nothing is
    /// left to abort.
    pub fn forget(&self) {
        *self.place() = None;
    }

    /// Asks the worker to stop, and runs the function left by [`Abort::on_request`] on the calling thread, which may
    /// block.
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
