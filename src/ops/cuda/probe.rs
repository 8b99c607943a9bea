//! The probes of `cuda/probe.cu` as a clock uses them: hold a stream and let it go, empty the caches, read the SM clock.
//!
//! Everything a probe needs is allocated by [`Probe::new`], so that nothing is allocated around what is timed.

use super::launch::Arg;
use super::mapped::Mapped;
use super::memory::CudaMemory;
use super::{Cuda, Geometry, Gpu};
use crate::machine::driver_error;
use crate::{Error, Result};
use cudarc::driver::{result, sys};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

/// Launches of work that may wait behind a blocker, with two stamps fewer than 512: the driver's queue has room for about
/// a thousand, and who fills it waits for the blocker, which waits for him.
pub(crate) const MOST_HELD_LAUNCHES: u32 = 509;
/// One-thread blocks of a stamp, so many a multiprocessor that none is left out while the first ones end.
const STAMP_BLOCKS_PER_SM: u32 = 4;
/// Bytes of a stamp: four words.
const STAMP_BYTES: u64 = 32;
/// Behind the two stamps lies a word for each to be claimed by, then the probed ticks.
const CLAIMS_AT: u64 = 2 * STAMP_BYTES;
const TICKS_AT: u64 = CLAIMS_AT + 16;
const TICKS: usize = 64;
/// A timer that does not move for so many cycles stands still.
const MOST_TICK_CYCLES: u64 = 1 << 22;
/// Words of the shared page.
const FLAG: usize = 0;
const WAITED: usize = 1;
/// What the blocker reports where it gave up.
const GAVE_UP: u64 = u64::MAX;

/// One reading of both clocks on one multiprocessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub global_ns: u64,
    pub cycles: u64,
}

/// Which of a trial's two stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After { window_ns: u64 },
}

pub(crate) struct Probe {
    page: Option<Arc<Mapped>>,
    flushed: CudaMemory,
    /// Two stamps, two claims, ticks.
    stamps: CudaMemory,
    /// Of the trial that runs, of the last one between trials.
    ticket: u32,
    sms: u32,
}

/// A held stream: let go when dropped, whatever happened meanwhile.
pub(crate) struct Hold {
    page: Arc<Mapped>,
    ticket: u32,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.page.half(FLAG).store(self.ticket, Release);
    }
}

impl Probe {
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        let facts = gpu.facts();
        let flushed = CudaMemory::new(gpu, flush_bytes(facts.l2_bytes))?;
        let stamps = CudaMemory::new(gpu, TICKS_AT as usize + 8 * TICKS.max(facts.sms as usize))?;
        // Without a page to share there is no blocker; everything else works.
        let page = Mapped::new(gpu, 2).ok().map(Arc::new);
        Ok(Probe { page, flushed, stamps, ticket: 0, sms: facts.sms })
    }

    pub fn can_hold(&self) -> bool {
        self.page.is_some()
    }

    /// A number for the trial that begins, by which its flag and its stamps are known from older ones.
    pub fn begin(&mut self) {
        self.ticket = self.ticket.wrapping_add(1);
    }

    /// Leaves nothing of an earlier operation in the L2: writes more than it holds, and takes back what was marked to stay.
    pub fn flush(&mut self, ops: &mut Cuda) -> Result<()> {
        let vectors = self.flushed.bytes() as u64 / 16;
        let geometry = Geometry::new([self.sms.saturating_mul(8), 1, 1], [256, 1, 1]);
        let mut arguments = [Arg::Pointer(self.flushed.pointer()), Arg::U64(vectors), Arg::U32(self.ticket)];
        ops.launch("probe_flush", geometry, &mut arguments)?;
        // SAFETY: the launch made the context current; the call takes nothing.
        let reset = unsafe { sys::cuCtxResetPersistingL2Cache() };
        match reset {
            // Before 8.0, and on parts of a GPU (MIG), no line can be made to stay.
            sys::CUresult::CUDA_ERROR_NOT_SUPPORTED => Ok(()),
            other => other.result().map_err(|e| driver_error("cannot reset persisting lines of the L2 cache", e)),
        }
    }

    /// Puts a blocker on the stream; `None` where this device can have none.
    pub fn hold(&mut self, ops: &mut Cuda, timeout: Duration) -> Result<Option<Hold>> {
        let Some(page) = &self.page else { return Ok(None) };
        page.word(WAITED).store(0, Release);
        let hold = Hold { page: Arc::clone(page), ticket: self.ticket };
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let (flag, waited) = (Arg::Pointer(page.address(FLAG)), Arg::Pointer(page.address(WAITED)));
        let mut arguments = [flag, Arg::U32(self.ticket), Arg::U64(timeout_ns), waited];
        ops.launch("probe_blocker", Geometry::new([1, 1, 1], [1, 1, 1]), &mut arguments)?;
        Ok(Some(hold))
    }

    /// True where the last blocker gave up before it was let go. Ask after a synchronisation.
    pub fn gave_up(&self) -> bool {
        self.page.as_ref().is_some_and(|page| page.word(WAITED).load(Acquire) == GAVE_UP)
    }

    /// Puts a stamp of multiprocessor `sm` on the stream.
    pub fn stamp(&mut self, ops: &mut Cuda, sm: u32, moment: Moment) -> Result<()> {
        let base = self.stamps.pointer();
        let (index, since, window_ns) = match moment {
            Moment::Before => (0, Arg::NULL, 0),
            Moment::After { window_ns } => (1, Arg::Pointer(base), window_ns),
        };
        let (stamp, claim) = (base + index * STAMP_BYTES, base + CLAIMS_AT + 8 * index);
        let geometry = Geometry::new([self.sms.saturating_mul(STAMP_BLOCKS_PER_SM), 1, 1], [1, 1, 1]);
        let numbers = [Arg::U32(sm), Arg::U32(self.ticket), since, Arg::U64(window_ns)];
        let mut arguments = [&[Arg::Pointer(stamp), Arg::Pointer(claim)], &numbers[..]].concat();
        ops.launch("probe_stamp", geometry, &mut arguments)
    }

    /// Both stamps of this trial; `None` where one found no block on its multiprocessor.
    pub fn stamps(&self, ops: &mut Cuda) -> Result<Option<(Stamp, Stamp)>> {
        let words = self.read(ops, 0, 8)?;
        let of = |at: usize| {
            let [global_ns, cycles, ticket, _] = words.get(at..at + 4)? else { return None };
            (*ticket == u64::from(self.ticket)).then_some(Stamp { global_ns: *global_ns, cycles: *cycles })
        };
        Ok(of(0).zip(of(4)))
    }

    /// The step of the device's nanosecond timer; `None` where it stands still.
    pub fn tick_ns(&mut self, ops: &mut Cuda) -> Result<Option<f64>> {
        let changes = Arg::Pointer(self.stamps.pointer() + TICKS_AT);
        let mut arguments = [changes, Arg::I32(TICKS as i32), Arg::U64(MOST_TICK_CYCLES)];
        ops.launch("probe_tick", Geometry::new([1, 1, 1], [1, 1, 1]), &mut arguments)?;
        let changes = self.read(ops, TICKS_AT, TICKS)?;
        Ok(changes.into_iter().filter(|&change| change > 0).min().map(|tick| tick as f64))
    }

    /// A multiprocessor that this stream's blocks reach: not every one is, where a stream has a part of the GPU only.
    pub fn some_sm(&mut self, ops: &mut Cuda) -> Result<u32> {
        let ids = Arg::Pointer(self.stamps.pointer() + TICKS_AT);
        ops.launch("probe_sm_map", Geometry::new([self.sms, 1, 1], [1, 1, 1]), &mut [ids])?;
        // Two identifiers a word.
        let words = self.read(ops, TICKS_AT, (self.sms as usize).div_ceil(2))?;
        let ids = words.iter().flat_map(|word| [*word as u32, (*word >> 32) as u32]).take(self.sms as usize);
        ids.min().ok_or_else(|| Error::machine("the GPU shows no multiprocessor", "run `bubblebench doctor`"))
    }

    /// Words of the stamps' memory, once the stream is done with it.
    fn read(&self, ops: &mut Cuda, from_bytes: u64, words: usize) -> Result<Vec<u64>> {
        ops.wait()?;
        let mut bytes = vec![0u8; 8 * words];
        // SAFETY: the callers stay within `stamps`; the host's bytes outlive the copy, which is waited for.
        let copied = unsafe {
            result::memcpy_dtoh_async(&mut bytes, self.stamps.pointer() + from_bytes, ops.stream.cu_stream())
        };
        copied.and_then(|()| ops.stream.synchronize()).map_err(|e| driver_error("cannot read the SM clock", e))?;
        Ok(bytes.as_chunks().0.iter().map(|&chunk| u64::from_ne_bytes(chunk)).collect())
    }
}

/// A quarter more than the cache holds: what is written does not fall evenly on its slices.
fn flush_bytes(l2_bytes: u64) -> usize {
    usize::try_from(l2_bytes + l2_bytes / 4).unwrap_or(usize::MAX).next_multiple_of(4096).max(1 << 20)
}

impl Cuda {
    /// From here on launches wait behind a blocker: they are counted, and nobody may wait for them.
    pub(crate) fn begin_held(&mut self) {
        self.held = Some(MOST_HELD_LAUNCHES);
    }

    pub(crate) fn end_held(&mut self) {
        self.held = None;
    }

    /// Every launch asks, whoever makes it: one too many behind a blocker would wait for it forever.
    pub(super) fn count_launch(&mut self) -> Result<()> {
        match &mut self.held {
            None => Ok(()),
            Some(0) => Err(Error::input(
                format!("more than {MOST_HELD_LAUNCHES} launches in one cold trial"),
                "time fewer operations at once, or capture them as a graph, which is one launch",
            )),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    pub(super) fn require_uncaptured(&self, what: &str) -> Result<()> {
        if self.capturing { self.require_free(what) } else { Ok(()) }
    }

    /// Whatever waits for the stream or allocates must not do so while it is held or captured.
    pub(super) fn require_free(&self, what: &str) -> Result<()> {
        let state = match (self.capturing, self.held) {
            (true, _) => "while a graph is captured",
            (_, Some(_)) => "while the stream is held for a cold trial",
            _ => return Ok(()),
        };
        Err(Error::input(format!("{what} {state}"), "do that before; run the work once on its own first"))
    }

    /// Keeps one thread of the GPU busy for at least `ns` nanoseconds: work of a known length, for tests and
    /// calibration.
    pub fn spin(&mut self, ns: u64) -> Result<()> {
        self.launch("probe_spin", Geometry::new([1, 1, 1], [1, 1, 1]), &mut [Arg::NULL, Arg::U64(ns)])
    }
}
