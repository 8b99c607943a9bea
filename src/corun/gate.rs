//! The gate: the big model opens it at a bubble's start and closes it before the bubble's end; the small model asks it
//! between operations.
//!
//! ```no_run
//! # use bubblebench::corun::gate::{self, Pass};
//! # fn main() -> bubblebench::Result<()> {
//! // The main program:
//! let mut main = gate::create("/dev/shm/stage-3".as_ref())?;
//! main.open(8_000_000);                    // a bubble of 8 ms begins
//! main.close();                            // 8 ms later, or earlier
//! main.wait_stopped(1_000_000);            // how long did the side take to stand still?
//!
//! // The side program, another process or thread:
//! let mut side = gate::attach("/dev/shm/stage-3".as_ref())?;
//! while side.pass() == Pass::Go {
//!     // one operation
//!     side.done();
//! }
//! # Ok(()) }
//! ```
//!
//! Rules. The main never waits for the side beyond the time it names. The side asks before every operation, so it stops
//! after at most one. Every closing has a generation, and the side acknowledges that generation, with the time: a late
//! acknowledgement of an earlier closing is never taken for one of this closing. A gate that stays open by mistake stops
//! the side by itself once the expected close and a grace have passed. A main that has died leaves the gate closed for good.
//! One side a gate: a stage with two small models makes two.

use super::gate_counts;
use super::page::{Page, PageLayout, Place};
use super::process::{Life, ProcessId};
use super::time::{now_ns, sleep_until, wait_on, wake_all};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const SHUT_DOWN: u64 = 2;

/// The default grace: how long after the expected close a side goes on before it takes the gate for forgotten.
pub const GRACE_NS: u64 = 10_000_000;
/// A waiting side spins this long, yields a few times, then sleeps.
const SPIN_NS: u64 = 2_000;
const YIELDS: u32 = 3;
/// A sleeping side looks this often whether the main is still there.
const LOOK_NS: u64 = 5_000_000;
/// A main in another process-id namespace counts as gone after this long without any sign.
const SILENCE_NS: u64 = 60_000_000_000;

const fn phase(state: u64) -> u64 {
    state & 3
}

const fn generation(state: u64) -> u64 {
    state >> 2
}

/// What the gate answers to a side that asks before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The gate is open: do one operation.
    Go,
    /// The main has ended in good order: stop for good.
    ShutDown,
    /// The main died: stop for good.
    MainGone,
}

/// What came of waiting for the side to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The side stood still after the closing.
    Stopped {
        /// Nanoseconds from the last closing until the side stood still.
        latency_ns: u64,
    },
    /// The side was still at work when the deadline passed.
    Late,
    /// There is no side, or it has died: nothing runs.
    Absent,
}

/// Makes a gate at `path` (a folder in memory such as /dev/shm is best) and becomes its main; an error where the file
/// cannot be made.
pub fn create(path: &Path) -> Result<MainEnd> {
    let page = Page::create(path)?;
    Ok(MainEnd { page: Arc::new(page), path: Some((path.to_path_buf(), inode(path))) }.ready())
}

/// Makes a gate in this process's own memory and returns both of its ends.
pub fn pair() -> Result<(MainEnd, SideEnd)> {
    let page = Arc::new(Page::anonymous()?);
    let main = MainEnd { page: Arc::clone(&page), path: None }.ready();
    Ok((main, SideEnd::enter(page, "the gate")?))
}

/// Becomes the side of the gate at `path`; an error where there is no gate page of this version, or a side that lives
/// is already attached.
pub fn attach(path: &Path) -> Result<SideEnd> {
    SideEnd::enter(Arc::new(Page::open(path)?), &path.display().to_string())
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |m| m.ino())
}

/// The big model's end of a gate; dropping it shuts the gate down and removes its file, if it has one.
pub struct MainEnd {
    page: Arc<Page>,
    path: Option<(PathBuf, u64)>,
}

impl MainEnd {
    fn ready(self) -> Self {
        self.layout().main.grace.store(GRACE_NS, Relaxed);
        self.beat();
        gate_counts::enter(&self.page);
        self
    }

    fn layout(&self) -> &PageLayout {
        self.page.layout()
    }

    /// Sets how many nanoseconds after the expected close the side stops by itself (default [`GRACE_NS`]); it holds
    /// from the next opening on.
    pub fn set_grace(&mut self, grace_ns: u64) {
        self.layout().main.grace.store(grace_ns, Relaxed);
    }

    /// Opens the gate for about `expected_ns` nanoseconds. Opening an open gate names a new expected close.
    pub fn open(&mut self, expected_ns: u64) {
        let main = &self.layout().main;
        let now = now_ns();
        main.opened_at.store(now, Relaxed);
        main.expected_close.store(now.saturating_add(expected_ns), Relaxed);
        main.bubble.fetch_add(1, Relaxed);
        main.openings.fetch_add(1, Relaxed);
        self.advance(OPEN, now);
    }

    /// Closes the gate; does not wait. Closing a closed gate changes nothing.
    pub fn close(&mut self) {
        let main = &self.layout().main;
        if phase(main.state.load(Relaxed)) != OPEN {
            return;
        }
        let now = now_ns();
        main.closed_at.store(now, Relaxed);
        main.closings.fetch_add(1, Relaxed);
        self.advance(CLOSED, now);
    }

    /// Tells a side in another process-id namespace that the main lives, where neither opening nor closing does for a
    /// minute.
    pub fn beat(&self) {
        self.layout().main.heartbeat.store(now_ns(), Relaxed);
    }

    /// Time in nanoseconds from the last closing until the side stood still; `None` while the gate is open or the side
    /// has not acknowledged that closing.
    pub fn stopped(&self) -> Option<u64> {
        let layout = self.layout();
        let state = layout.main.state.load(Relaxed);
        if phase(state) == OPEN || layout.side.stopped_generation.load(Acquire) != generation(state) {
            return None;
        }
        let closed_at = layout.main.closed_at.load(Relaxed);
        Some(layout.side.stopped_at.load(Relaxed).saturating_sub(closed_at))
    }

    /// Waits until the side stands still, at most `limit_ns` nanoseconds.
    pub fn wait_stopped(&mut self, limit_ns: u64) -> Stop {
        let begun = now_ns();
        let mut looked = 0;
        loop {
            if let Some(latency_ns) = self.stopped() {
                return Stop::Stopped { latency_ns };
            }
            let waited = now_ns() - begun;
            let side = self.layout().side_process.process.load();
            let over = waited >= limit_ns;
            let absent = match side {
                Place::Nobody => true,
                Place::BeingTaken => false,
                Place::Taken(side) => (over || waited >= looked + LOOK_NS) && side.life() == Life::Gone,
            };
            if absent {
                return Stop::Absent;
            }
            if over {
                return Stop::Late;
            }
            if waited >= looked + LOOK_NS {
                looked = waited;
            }
            // Spinning, or looking too often, would take from the side the core it needs to finish.
            sleep_until(begun + (waited + (waited / 2).clamp(20_000, 1_000_000)).min(limit_ns));
        }
    }

    /// Operations finished so far by all sides that have been attached to this gate.
    pub fn side_operations(&self) -> u64 {
        self.layout().side.operations.load(Acquire)
    }

    /// Time at which the side went to work in the present opening, on [`now_ns`]'s clock in nanoseconds; `None` while
    /// it has not, and once the gate is closed.
    pub fn side_started_at(&self) -> Option<u64> {
        let side = &self.layout().side;
        let started = side.started_generation.load(Acquire);
        (started == generation(self.layout().main.state.load(Relaxed))).then(|| side.started_at.load(Relaxed))
    }

    /// Time in nanoseconds from the last opening to the side's first operation in it, told after the closing too;
    /// `None` where there was none.
    pub fn last_start_latency(&self) -> Option<u64> {
        let side = &self.layout().side;
        let state = self.layout().main.state.load(Relaxed);
        let opening = generation(state) - u64::from(phase(state) != OPEN && generation(state) > 0);
        (side.started_generation.load(Acquire) == opening && opening > 0)
            .then(|| side.started_at.load(Relaxed).saturating_sub(self.opened_at()))
    }

    /// Time in nanoseconds from the side's first operation in the last opening to its standing still; `None` until the
    /// side has acknowledged the closing, and where it did no operation.
    pub fn last_work_ns(&self) -> Option<u64> {
        self.stopped()?;
        let started = self.opened_at() + self.last_start_latency()?;
        self.layout().side.stopped_at.load(Relaxed).checked_sub(started)
    }

    /// How often the side took an open gate for forgotten and stopped by itself.
    pub fn self_stops(&self) -> u64 {
        self.layout().side.self_stops.load(Acquire)
    }

    /// Time of the last opening, on [`now_ns`]'s clock in nanoseconds; 0 before the first.
    pub fn opened_at(&self) -> u64 {
        self.layout().main.opened_at.load(Relaxed)
    }

    /// Shuts the gate down: the side's waiting ends for good, with [`Pass::ShutDown`].
    pub fn shut_down(&mut self) {
        let now = now_ns();
        if phase(self.layout().main.state.load(Relaxed)) == OPEN {
            self.layout().main.closed_at.store(now, Relaxed);
        }
        self.advance(SHUT_DOWN, now);
    }

    /// Everything written before is seen by a side that sees the new state.
    fn advance(&self, to: u64, now: u64) {
        let layout = self.layout();
        let state = (generation(layout.main.state.load(Relaxed)) + 1) << 2 | to;
        layout.main.heartbeat.store(now, Relaxed);
        layout.main.state.store(state, Release);
        // The side says that it sleeps before the kernel compares the word: either the word differs, or we see it sleep.
        layout.wait.futex.store(state as u32, SeqCst);
        if layout.side.asleep.load(SeqCst) != 0 {
            wake_all(&layout.wait.futex);
        }
    }
}

impl Drop for MainEnd {
    fn drop(&mut self) {
        self.shut_down();
        gate_counts::leave(&self.page);
        if let Some((path, made)) = &self.path
            && inode(path) == *made
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The small model's end of a gate; dropping it leaves the place to another side.
pub struct SideEnd {
    page: Arc<Page>,
    /// Generation of the opening the side works in, and the time it goes on to without asking the main.
    working_in: u64,
    expires: u64,
    finished: u64,
    main: ProcessId,
    ended: Option<Pass>,
}

impl SideEnd {
    fn enter(page: Arc<Page>, name: &str) -> Result<Self> {
        let layout = page.layout();
        let Place::Taken(main) = layout.header.main.load() else {
            return Err(Error::input(format!("{name} names no main program"), "create the gate again"));
        };
        let place = &layout.side_process.process;
        let before = place.load();
        let lives = matches!(before, Place::Taken(side) if side.life() != Life::Gone);
        if lives || !place.take(before, ProcessId::own()) {
            let who = match place.load() {
                Place::Taken(side) => format!("process {}", side.pid),
                Place::Nobody | Place::BeingTaken => "one that attached at the same time".into(),
            };
            return Err(Error::input(
                format!("{name} already has a side program ({who})"),
                "end it first, or give every side a gate of its own",
            ));
        }
        let finished = layout.side.operations.load(Relaxed);
        layout.side.asleep.store(0, Relaxed);
        Ok(SideEnd { working_in: 0, expires: 0, finished, main, ended: None, page })
    }

    /// Asks the gate: returns at once while it is open, else says that the side stands still and waits.
    ///
    /// After [`Pass::ShutDown`] or [`Pass::MainGone`] every later call answers the same.
    #[inline]
    pub fn pass(&mut self) -> Pass {
        let state = self.page.layout().main.state.load(Acquire);
        if phase(state) == OPEN && generation(state) == self.working_in && now_ns() < self.expires {
            return Pass::Go;
        }
        self.enter_or_wait(state)
    }

    /// Counts one finished operation.
    #[inline]
    pub fn done(&mut self) {
        self.finished += 1;
        self.page.layout().side.operations.store(self.finished, Release);
    }

    /// Operations finished behind this gate, those of sides that were attached before included.
    pub fn operations(&self) -> u64 {
        self.finished
    }

    /// Time at which the main means to close the gate, on [`now_ns`]'s clock in nanoseconds; 0 while the gate is
    /// closed.
    pub fn expected_close(&self) -> u64 {
        let main = &self.page.layout().main;
        if phase(main.state.load(Acquire)) == OPEN { main.expected_close.load(Relaxed) } else { 0 }
    }

    fn enter_or_wait(&mut self, mut state: u64) -> Pass {
        if let Some(ended) = self.ended {
            return ended;
        }
        let page = Arc::clone(&self.page);
        let layout = page.layout();
        let begun = now_ns();
        let (mut acknowledged, mut yields, mut looked) = (None, 0, begun);
        loop {
            let now = now_ns();
            match phase(state) {
                OPEN if self.goes_on(layout, state, now) => return Pass::Go,
                OPEN => {}
                other => {
                    if acknowledged != Some(state) {
                        acknowledged = Some(state);
                        layout.side.stopped_at.store(now, Relaxed);
                        layout.side.heartbeat.store(now, Relaxed);
                        layout.side.stopped_generation.store(generation(state), Release);
                    }
                    if other == SHUT_DOWN {
                        return self.end(Pass::ShutDown);
                    }
                }
            }
            if now - looked >= LOOK_NS {
                looked = now;
                layout.side.heartbeat.store(now, Relaxed);
                if self.main_is_gone(layout, now) {
                    return self.end(Pass::MainGone);
                }
            }
            if now - begun < SPIN_NS {
                std::hint::spin_loop();
            } else if yields < YIELDS {
                yields += 1;
                std::thread::yield_now();
            } else {
                layout.side.asleep.store(1, SeqCst);
                wait_on(&layout.wait.futex, state as u32, LOOK_NS);
                layout.side.asleep.store(0, Relaxed);
            }
            state = layout.main.state.load(Acquire);
        }
    }

    /// An open gate lets the side on until expected close and grace have passed.
    fn goes_on(&mut self, layout: &PageLayout, state: u64, now: u64) -> bool {
        if generation(state) != self.working_in {
            self.working_in = generation(state);
            let (close, grace) = (layout.main.expected_close.load(Relaxed), layout.main.grace.load(Relaxed));
            self.expires = close.saturating_add(grace);
            if now < self.expires {
                layout.side.started_at.store(now, Relaxed);
                layout.side.heartbeat.store(now, Relaxed);
                layout.side.started_generation.store(self.working_in, Release);
                return true;
            }
        }
        if now >= self.expires && self.expires != 0 {
            self.expires = 0;
            layout.side.self_stops.fetch_add(1, Release);
        }
        now < self.expires
    }

    fn main_is_gone(&self, layout: &PageLayout, now: u64) -> bool {
        match self.main.life() {
            Life::Running => false,
            Life::Gone => true,
            Life::Unknown => now.saturating_sub(layout.main.heartbeat.load(Relaxed)) > SILENCE_NS,
        }
    }

    fn end(&mut self, how: Pass) -> Pass {
        self.ended = Some(how);
        how
    }
}

impl Drop for SideEnd {
    fn drop(&mut self) {
        self.page.layout().side_process.process.clear();
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
