//! How ranks wait for each other, and how they all stop when one is lost.

use super::memory::{Edge, Padded, Region};
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Settings of the transport between threads; none of them changes a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Elements moved at a time by algorithms that work chunk by chunk (ring, chain, reduce_scatter).
    pub chunk: usize,
    /// Messages of up to this many elements (at most [`EAGER_CAPACITY`](super::EAGER_CAPACITY)) are copied into the
    /// queue between two ranks; larger ones are read where they lie.
    pub eager: usize,
    /// Number of times a waiting rank polls before it yields its core; 0 where ranks outnumber cores.
    pub spins: u32,
    /// Whether each rank is pinned to a core of its own; false where ranks outnumber cores.
    pub pinned: bool,
    /// Longest wait for another rank; one that takes longer means that a rank is lost, and ends all of them with an
    /// error.
    pub deadline: Duration,
}

impl Tuning {
    /// The usual settings for `ranks` threads on `cores` cores: chunks of 256 KiB and a deadline of 30 s.
    pub fn new(ranks: usize, cores: usize) -> Self {
        let spins = if ranks > cores { 0 } else { 1000 };
        Tuning {
            chunk: 32 * 1024,
            eager: super::EAGER_CAPACITY,
            spins,
            pinned: ranks <= cores,
            deadline: Duration::from_secs(30),
        }
    }
}

/// What all ranks of a world see.
pub(super) struct Shared {
    pub ranks: usize,
    pub tuning: Tuning,
    pub epoch: Instant,
    /// One for each ordered pair, `from · ranks + to`.
    edges: Vec<Edge>,
    /// Whom each rank waits for: 0 nobody, r + 1 rank r, [`MEETING`] the meeting.
    waits_for: Vec<Padded<AtomicUsize>>,
    /// The meeting each rank has come to last.
    arrived: Vec<Padded<AtomicU64>>,
    present: Padded<AtomicUsize>,
    meeting: Padded<AtomicU64>,
    started_ns: AtomicU64,
    failed: AtomicBool,
    /// What failed first and what to do about it; nothing can be done about a bug.
    cause: Mutex<Option<(String, Option<String>)>>,
    /// Every region that a peer may still be reading lives as long as the world.
    kept: Mutex<Vec<Arc<Region>>>,
}

const MEETING: usize = usize::MAX;

/// A lock whose holder panicked still guards whole data here: every critical section is one assignment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(ranks: usize, tuning: Tuning) -> Self {
        Shared {
            ranks,
            tuning,
            epoch: Instant::now(),
            edges: (0..ranks * ranks).map(|_| Edge::new()).collect(),
            waits_for: (0..ranks).map(|_| Padded::default()).collect(),
            arrived: (0..ranks).map(|_| Padded::default()).collect(),
            present: Padded::default(),
            meeting: Padded::default(),
            started_ns: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            cause: Mutex::new(None),
            kept: Mutex::new(Vec::new()),
        }
    }

    pub fn edge(&self, from: usize, to: usize) -> &Edge {
        &self.edges[from * self.ranks + to]
    }

    pub fn keep(&self, region: &Arc<Region>) {
        lock(&self.kept).push(Arc::clone(region));
    }

    /// Nanoseconds since the world began, on the clock all ranks share.
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The first cause stands; everybody who waits from now on is told.
    pub fn fail(&self, error: Error) {
        let cause = match error {
            Error::Machine { what, cure } => (what, Some(cure)),
            Error::Bug { what } => (what, None),
            other => (other.to_string(), Some("the cause is named before this".to_string())),
        };
        lock(&self.cause).get_or_insert(cause);
        self.failed.store(true, Ordering::Release);
    }

    /// The error all ranks end with once one has failed.
    pub fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(match lock(&self.cause).clone() {
            Some((what, Some(cure))) => Error::machine(what, cure),
            Some((what, None)) => Error::bug(what),
            None => Error::bug("a rank failed and left no cause"),
        })
    }

    /// Returns once `ready`; `me` waits for rank `on` until the deadline.
    #[inline]
    pub fn wait(&self, me: usize, on: usize, ready: impl Fn() -> bool) -> Result<()> {
        for _ in 0..=self.tuning.spins {
            if ready() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        self.wait_yielding(me, on + 1, &ready)
    }

    #[cold]
    fn wait_yielding(&self, me: usize, mark: usize, ready: &dyn Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        self.waits_for[me].store(mark, Ordering::Relaxed);
        loop {
            std::thread::yield_now();
            if ready() {
                self.waits_for[me].store(0, Ordering::Relaxed);
                return Ok(());
            }
            self.check()?;
            if begun.elapsed() > self.tuning.deadline {
                let lost = self.culprit(me, mark);
                let what = format!("rank {me} waited {:?} for rank {lost}, which never came", self.tuning.deadline);
                let cure = "see what stopped that rank, or give a longer --deadline on a busy machine";
                self.fail(Error::machine(what, cure));
            }
        }
    }

    /// Whom everybody waits for in the end: a rank that waits itself is not to blame.
    fn culprit(&self, me: usize, mark: usize) -> usize {
        let mut mark = mark;
        let mut last = me;
        for _ in 0..self.ranks {
            let blamed = match mark {
                0 => break,
                MEETING => self.absent().unwrap_or(last),
                rank => rank - 1,
            };
            if blamed == last {
                break;
            }
            last = blamed;
            mark = self.waits_for[last].load(Ordering::Relaxed);
        }
        last
    }

    fn absent(&self) -> Option<usize> {
        let next = self.meeting.load(Ordering::Relaxed) + 1;
        (0..self.ranks).find(|rank| self.arrived[*rank].load(Ordering::Relaxed) < next)
    }

    /// Returns once all ranks have called it for the `number`-th time (from 1): the moment the last one came, the same
    /// for all.
    pub fn meet(&self, me: usize, number: u64) -> Result<u64> {
        self.arrived[me].store(number, Ordering::Relaxed);
        if self.present.fetch_add(1, Ordering::AcqRel) + 1 == self.ranks {
            self.present.store(0, Ordering::Relaxed);
            self.started_ns.store(self.now_ns(), Ordering::Relaxed);
            self.meeting.store(number, Ordering::Release);
        } else {
            let ready = || self.meeting.load(Ordering::Acquire) >= number;
            if !(0..=self.tuning.spins).any(|_| {
                std::hint::spin_loop();
                ready()
            }) {
                self.wait_yielding(me, MEETING, &ready)?;
            }
        }
        // The next meeting cannot overwrite it before this rank has come there.
        Ok(self.started_ns.load(Ordering::Relaxed))
    }
}
