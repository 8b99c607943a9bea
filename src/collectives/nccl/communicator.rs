//! One rank's membership in a communicator, ended whatever happens: finalized and destroyed in good order, or aborted.
//!
//! Ranks meet with blocking off: NCCL's calls return at once, and what they began is asked for, so that the wait for a
//! rank that never comes has a deadline. Operations run on a child of it ([`Communicator::working`]) with blocking on,
//! because a communicator that does not block starts a thread for every operation, which no benchmark of NCCL times.
//! Whoever shares the [`Abort`] can end both from another thread, even while this one is stuck inside a call.

use super::library::is_no_error;
use super::{Nccl, UniqueId, sys};
use crate::collectives::ranks::worker::{Abort, RankConfig};
use crate::{Error, Result};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How long an abort waits for the owner's call to return before it aborts beside it.
const GRACE: Duration = Duration::from_secs(1);
/// A communicator that does not end in good order within this is aborted.
const FAREWELL: Duration = Duration::from_secs(5);

/// `ncclConfig_t` as far as 2.18 has it; every later NCCL takes the shorter form and leaves the rest as it would be.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cluster: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    network: *const c_char,
    split_share: c_int,
}

/// Thread blocks of all ranks that share a GPU: their kernels wait for each other, so all must find room beside each
/// other.
const SHARED_CTAS: u32 = 32;

fn most_ctas(ranks_per_gpu: usize) -> Option<u32> {
    let sharing = u32::try_from(ranks_per_gpu).unwrap_or(u32::MAX);
    (sharing > 1).then(|| (SHARED_CTAS / sharing).max(1))
}

const MAGIC: c_uint = 0xcafe_beef;
const OLDEST: c_uint = 21800;
/// `NCCL_CONFIG_UNDEF_INT`: as NCCL chooses.
const UNSET: c_int = c_int::MIN;

impl Config {
    /// At least and at most so many thread blocks; `None`: as NCCL chooses.
    fn new(blocking: bool, least: Option<u32>, most: Option<u32>) -> Self {
        let ctas = |ctas: Option<u32>| ctas.map_or(UNSET, |ctas| c_int::try_from(ctas).unwrap_or(c_int::MAX));
        Config {
            size: size_of::<Config>(),
            magic: MAGIC,
            version: OLDEST,
            blocking: c_int::from(blocking),
            cluster: UNSET,
            min_ctas: ctas(least),
            max_ctas: ctas(most),
            network: std::ptr::null(),
            split_share: UNSET,
        }
    }
}

/// The handle, as its owner and whoever aborts it see it; null once it is gone.
struct Handle {
    pointer: AtomicPtr<sys::ncclComm>,
    /// Held during a call, so that an abort does not free what the call uses.
    call: Mutex<()>,
}

impl Handle {
    fn enter(&self) -> (MutexGuard<'_, ()>, sys::ncclComm_t) {
        let guard = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        (guard, self.pointer.load(Ordering::Acquire))
    }

    fn abort(&self, nccl: &Nccl) {
        let pointer = self.pointer.swap(null_mut(), Ordering::AcqRel);
        if pointer.is_null() {
            return;
        }
        let begun = Instant::now();
        while self.call.try_lock().is_err() && begun.elapsed() < GRACE {
            thread::sleep(Duration::from_millis(1));
        }
        if let Ok(function) = nccl.api().ncclCommAbort.as_ref() {
            // SAFETY: the handle was taken out, so this is its last use; NCCL allows an abort beside a call.
            unsafe { function(pointer) };
        }
    }
}

/// Every handle of one rank: an abort ends them all.
#[derive(Clone, Default)]
struct CommHandles(Arc<Mutex<Vec<Weak<Handle>>>>);

impl CommHandles {
    fn members(&self) -> MutexGuard<'_, Vec<Weak<Handle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a handle that NCCL may write at any time, even after the call that asked for it has failed.
    fn place(&self) -> Arc<Handle> {
        let handle = Arc::new(Handle { pointer: AtomicPtr::new(null_mut()), call: Mutex::default() });
        self.members().push(Arc::downgrade(&handle));
        handle
    }

    fn abort(&self, nccl: &Nccl) {
        let members: Vec<Arc<Handle>> = self.members().iter().filter_map(Weak::upgrade).collect();
        members.iter().for_each(|handle| handle.abort(nccl));
    }
}

pub struct Communicator {
    nccl: Arc<Nccl>,
    handle: Arc<Handle>,
    handles: CommHandles,
    rank: usize,
    ranks: usize,
    deadline: Duration,
    /// Thread blocks it may take where ranks share a GPU.
    most_ctas: Option<u32>,
    abort: Abort,
}

impl Communicator {
    /// Joins the others of this id on the current context's GPU; returns when all are there.
    pub fn join(nccl: &Arc<Nccl>, id: UniqueId, rank_config: &RankConfig, abort: &Abort) -> Result<Self> {
        let function = nccl.function("ncclCommInitRankConfig", |api| &api.ncclCommInitRankConfig)?;
        let (rank, ranks) = (int(rank_config.rank)?, int(rank_config.ranks)?);
        let id = sys::ncclUniqueId { internal: id.0.map(|byte| c_char::from_ne_bytes([byte])) };
        let handles = CommHandles::default();
        let communicator = Communicator {
            nccl: Arc::clone(nccl),
            handle: handles.place(),
            handles: handles.clone(),
            rank: rank_config.rank,
            ranks: rank_config.ranks,
            deadline: rank_config.deadline,
            most_ctas: most_ctas(rank_config.ranks_per_gpu),
            abort: abort.clone(),
        };
        let ender = Arc::clone(nccl);
        abort.on_request(move || handles.abort(&ender));
        let mut config = Config::new(false, None, communicator.most_ctas);
        let place = communicator.handle.pointer.as_ptr();
        // SAFETY: the config outlives the call and has the layout it claims; the place outlives the communicator (see
        // `arrive`).
        let status = unsafe { function(place, ranks, id, rank, (&raw mut config).cast()) };
        communicator.checked("ncclCommInitRankConfig", status)?;
        communicator.arrive("joining the other ranks")?;
        Ok(communicator)
    }

    /// One of the same ranks to run operations on, in exactly so many thread blocks, or in as many as NCCL chooses.
    pub fn working(&self, ctas: Option<u32>) -> Result<Self> {
        let function = self.nccl.function("ncclCommSplit", |api| &api.ncclCommSplit)?;
        let mut config = Config::new(true, ctas, ctas.or(self.most_ctas));
        let key = int(self.rank)?;
        let child = Communicator {
            nccl: Arc::clone(&self.nccl),
            handle: self.handles.place(),
            handles: self.handles.clone(),
            rank: self.rank,
            ranks: self.ranks,
            deadline: self.deadline,
            most_ctas: self.most_ctas,
            abort: self.abort.clone(),
        };
        let place = child.handle.pointer.as_ptr();
        // SAFETY: as for `join`.
        let status = self.call(|comm| unsafe { function(comm, 0, key, place, (&raw mut config).cast()) })?;
        self.checked("ncclCommSplit", status)?;
        self.settle("splitting the communicator").inspect_err(|_| std::mem::forget(Arc::clone(&child.handle)))?;
        child.arrive("splitting the communicator")?;
        Ok(child)
    }

    /// Waits for the handle, and until it can be used. NCCL writes it from a thread of its own, so where that did not
    /// end well its place is never given back.
    fn arrive(&self, doing: &str) -> Result<()> {
        let arrived = || {
            let begun = Instant::now();
            while self.handle.pointer.load(Ordering::Acquire).is_null() {
                if self.abort.requested() || begun.elapsed() > self.deadline {
                    return Err(self.aborted());
                }
                thread::sleep(Duration::from_micros(100));
            }
            self.settle(doing)
        };
        arrived().inspect_err(|_| std::mem::forget(Arc::clone(&self.handle)))
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn ranks(&self) -> usize {
        self.ranks
    }

    pub fn nccl(&self) -> &Arc<Nccl> {
        &self.nccl
    }

    /// A call with the handle, which nobody frees meanwhile.
    pub(super) fn call<T>(&self, body: impl FnOnce(sys::ncclComm_t) -> T) -> Result<T> {
        let (_guard, comm) = self.handle.enter();
        if comm.is_null() {
            return Err(self.aborted());
        }
        Ok(body(comm))
    }

    /// What NCCL says of a call with the handle that failed.
    pub(super) fn checked(&self, call: &str, status: sys::ncclResult_t) -> Result<()> {
        // Every operation comes by here: the handle is asked for only where there is something to say.
        if is_no_error(status) {
            return Ok(());
        }
        let (_guard, comm) = self.handle.enter();
        self.nccl.check_on(comm, call, status)
    }

    /// Takes a registered buffer back, as long as the communicator is there.
    pub(super) fn deregister(&self) -> Box<dyn FnMut(*mut c_void) + Send> {
        type Deregister = unsafe extern "C" fn(sys::ncclComm_t, *mut c_void) -> sys::ncclResult_t;
        let (nccl, handle) = (Arc::clone(&self.nccl), Arc::downgrade(&self.handle));
        Box::new(move |registered| {
            let Some(handle) = handle.upgrade() else { return };
            let (_guard, comm) = handle.enter();
            if let Ok(function) = nccl.newer::<Deregister>("ncclCommDeregister")
                && !comm.is_null()
            {
                // SAFETY: the signature is nccl.h's; the buffer was registered with this communicator.
                unsafe { function(comm, registered) };
            }
        })
    }

    /// The state of what was begun last; its error, said once, ends the communicator.
    fn state(&self) -> Result<sys::ncclResult_t> {
        let function = self.nccl.function("ncclCommGetAsyncError", |api| &api.ncclCommGetAsyncError)?;
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the handle is alive during the call; one status is written.
        let status = self.call(|comm| unsafe { function(comm, &mut state) })?;
        self.checked("ncclCommGetAsyncError", status)?;
        Ok(state)
    }

    /// Fails where NCCL has met an error since; cheap enough to be asked while waiting.
    pub fn check(&self) -> Result<()> {
        let state = self.state()?;
        if is_no_error(state) {
            return Ok(());
        }
        let words = {
            let (_guard, comm) = self.handle.enter();
            self.nccl.words(comm, state)
        };
        self.abort();
        Err(Error::machine(
            format!("rank {} of {}: NCCL says: {words}", self.rank, self.ranks),
            "set NCCL_DEBUG=WARN on all ranks to see which one failed first",
        ))
    }

    /// Waits until NCCL has done what was begun.
    pub(super) fn settle(&self, doing: &str) -> Result<()> {
        let mut wait = self.wait(doing);
        while self.state()? == sys::ncclResult_t::ncclInProgress {
            wait.pause()?;
        }
        self.check()
    }

    pub(super) fn wait<'a>(&'a self, doing: &'a str) -> Wait<'a> {
        Wait { communicator: self, doing, begun: Instant::now(), turns: 0 }
    }

    fn aborted(&self) -> Error {
        Error::machine(
            format!("rank {} of {}: its communicator was ended", self.rank, self.ranks),
            "the cause is what another rank says",
        )
    }

    /// Ends it at once: kernels that wait for other ranks stop.
    pub fn abort(&self) {
        self.handle.abort(&self.nccl);
    }

    fn end(&self) -> Result<()> {
        if self.state()? != sys::ncclResult_t::ncclSuccess {
            return Err(self.aborted());
        }
        let finalize = self.nccl.function("ncclCommFinalize", |api| &api.ncclCommFinalize)?;
        // SAFETY: alive during the call; nothing is asked of it afterwards but its state.
        let status = self.call(|comm| unsafe { finalize(comm) })?;
        self.checked("ncclCommFinalize", status)?;
        let begun = Instant::now();
        while self.state()? == sys::ncclResult_t::ncclInProgress {
            if begun.elapsed() > FAREWELL.min(self.deadline) {
                return Err(self.aborted());
            }
            thread::sleep(Duration::from_micros(100));
        }
        let destroy = self.nccl.function("ncclCommDestroy", |api| &api.ncclCommDestroy)?;
        let (_guard, _) = self.handle.enter();
        let comm = self.handle.pointer.swap(null_mut(), Ordering::AcqRel);
        if comm.is_null() {
            return Err(self.aborted());
        }
        // SAFETY: taken out, so nobody uses it any more.
        self.nccl.check("ncclCommDestroy", unsafe { destroy(comm) })
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if self.end().is_err() {
            self.abort();
        }
    }
}

/// A wait for other ranks: yields first, then naps; ends with an error at the deadline, when the communicator breaks,
/// or when somebody asks for the abort.
pub(super) struct Wait<'a> {
    communicator: &'a Communicator,
    doing: &'a str,
    begun: Instant,
    turns: u32,
}

/// Waits this long without a nap: one that is timed must not end late by one.
const AWAKE: Duration = Duration::from_millis(20);
const NAP: Duration = Duration::from_micros(100);
/// Turns between two questions to NCCL, which cost more than one to the driver.
const ASK_EVERY: u32 = 64;

impl Wait<'_> {
    pub fn pause(&mut self) -> Result<()> {
        let Communicator { rank, ranks, deadline, abort, .. } = self.communicator;
        self.turns = self.turns.wrapping_add(1);
        let waited = self.begun.elapsed();
        if waited < AWAKE {
            thread::yield_now()
        } else {
            thread::sleep(NAP)
        }
        if self.turns.is_multiple_of(ASK_EVERY) || waited >= AWAKE {
            if abort.requested() {
                self.communicator.abort();
                return Err(self.communicator.aborted());
            }
            self.communicator.check()?;
        }
        if waited > *deadline {
            self.communicator.abort();
            return Err(Error::machine(
                format!("rank {rank} of {ranks} waited {} s for the others ({})", deadline.as_secs_f64(), self.doing),
                "see which rank died or never started; --deadline gives slow ones longer",
            ));
        }
        Ok(())
    }
}

fn int(value: usize) -> Result<c_int> {
    c_int::try_from(value).map_err(|_| Error::input(format!("{value} ranks"), "give fewer"))
}
