//! A program that runs beside the main in a thread of its own, started and halted from outside.
//!
//! The thread makes what it needs itself (its device and model never leave it), says that it is ready, and then runs
//! slice after slice whenever it is told to. Each slice's start and end are kept: how much of the main's time the side
//! truly ran is computed from them afterwards. `corun::pair` and `corun::replay` start these; [`super::load`] says what
//! runs in them.

use super::time::now_ns;
use crate::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time from a side's first moment to its last in one slice of its work: on [`now_ns`]'s clock for a side on the host,
/// on the event clock of `corun::cuda` for one on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Start of the slice in nanoseconds.
    pub start_ns: u64,
    /// End of the slice in nanoseconds.
    pub end_ns: u64,
}

/// Nothing a side does takes this long; a side that does is stuck, and the case fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the end of a side is waited for.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    ready: bool,
    run: bool,
    quit: bool,
    /// Slices since the last start; taken by `halt`.
    slices: Vec<Slice>,
    standing: bool,
    failed: Option<Error>,
    over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `holds`; an error if the side failed, ended or got stuck meanwhile.
    fn wait(&self, what: &str, holds: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>> {
        let guard = self.lock();
        let (mut guard, timeout) = self
            .changed
            .wait_timeout_while(guard, PATIENCE, |s| !holds(s) && !s.over)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = guard.failed.take() {
            return Err(error);
        }
        if guard.over || timeout.timed_out() {
            let how = if guard.over { "ended by itself" } else { "does not answer" };
            return Err(Error::machine(
                format!("the side program {how} where it should {what}"),
                "run the case alone to see it; if it happens again, report it",
            ));
        }
        Ok(guard)
    }
}

/// The side thread's end of a [`SideWorker`], which tells it when to run.
#[derive(Clone)]
pub struct Turn(Arc<Shared>);

impl Turn {
    /// Serves until the other end is dropped: `slice` is called over and over while the side is to run. Its error ends
    /// the serving and is returned.
    pub fn serve(&self, mut slice: impl FnMut() -> Result<()>) -> Result<()> {
        self.serve_turns(&mut slice, |slice| slice(), |_| Ok(()))
    }

    /// Serves as [`Turn::serve`] does, with a last act whenever the side is halted: what `slice` left running on a
    /// device ends in `rest`.
    pub fn serve_turns<S>(
        &self,
        side: &mut S,
        mut slice: impl FnMut(&mut S) -> Result<()>,
        mut rest: impl FnMut(&mut S) -> Result<()>,
    ) -> Result<()> {
        self.0.change(|s| (s.ready, s.standing) = (true, true));
        loop {
            let mut state = self.0.lock();
            while !state.run && !state.quit {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.quit {
                return Ok(());
            }
            state.standing = false;
            drop(state);
            self.run_slices(&mut || slice(side))?;
            rest(side)?;
            self.0.change(|s| s.standing = true);
        }
    }

    fn run_slices(&self, slice: &mut impl FnMut() -> Result<()>) -> Result<()> {
        // A slice begins where the last one ended: the side never rests between two, however the system schedules it.
        let mut start_ns = now_ns();
        loop {
            slice()?;
            let end_ns = now_ns();
            let mut state = self.0.lock();
            state.slices.push(Slice { start_ns, end_ns });
            start_ns = end_ns;
            let first = state.slices.len() == 1;
            let more = state.run && !state.quit;
            drop(state);
            if first {
                self.0.changed.notify_all();
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// Says on every way out, unwinding included, that the thread is over.
struct SayOver(Arc<Shared>);

impl Drop for SayOver {
    fn drop(&mut self) {
        self.0.change(|s| s.over = true);
    }
}

/// The handle of a side's thread; dropping it ends the thread, or leaves one that does not end in time.
pub struct SideWorker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl SideWorker {
    /// Starts the thread and waits until `body` serves its [`Turn`], with which it must end: by [`Turn::serve`] or
    /// [`Turn::serve_turns`]. An error where the thread cannot start, or `body` fails before that.
    pub fn start(name: &str, body: impl FnOnce(Turn) -> Result<()> + Send + 'static) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let turn = Turn(Arc::clone(&shared));
        let run = move || {
            let over = SayOver(Arc::clone(&turn.0));
            if let Err(error) = body(turn) {
                over.0.lock().failed = Some(error);
            }
        };
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(run).map_err(|e| {
            Error::machine(format!("cannot start a thread: {e}"), "raise the limit of processes (ulimit -u)")
        })?;
        let worker = SideWorker { shared, thread: Some(thread) };
        worker.shared.wait("get ready", |s| s.ready).map(drop)?;
        Ok(worker)
    }

    /// Lets the side run; returns once its first slice is done. An error where the side failed, ended or does not
    /// answer for a minute.
    pub fn run(&mut self) -> Result<()> {
        self.start_running()?;
        self.shared.wait("run", |s| !s.slices.is_empty()).map(drop)
    }

    /// Lets the side run; returns at once (it may have to wait for a gate).
    pub fn start_running(&mut self) -> Result<()> {
        self.shared.wait("stand by", |s| s.standing)?.slices.clear();
        self.shared.change(|s| s.run = true);
        Ok(())
    }

    /// An error where the side has failed or ended; returns at once.
    pub fn check(&self) -> Result<()> {
        self.shared.wait("go on", |_| true).map(drop)
    }

    /// Halts the side after the slice it is in (and the rest that follows it) and returns all slices since it was
    /// started. An error where the side failed, ended or does not answer for a minute.
    pub fn halt(&mut self) -> Result<Vec<Slice>> {
        self.shared.change(|s| s.run = false);
        // It has begun: an early halt must not be overtaken by the start.
        let mut state = self.shared.wait("stand still", |s| s.standing && !s.slices.is_empty())?;
        Ok(std::mem::take(&mut state.slices))
    }
}

impl Drop for SideWorker {
    fn drop(&mut self) {
        self.shared.change(|s| (s.quit, s.run) = (true, false));
        let Some(thread) = self.thread.take() else { return };
        let asked = Instant::now();
        while !thread.is_finished() && asked.elapsed() < FAREWELL {
            std::thread::sleep(Duration::from_micros(200));
        }
        // One that is stuck is left to itself: the case has failed and must not hang after all.
        if thread.is_finished() {
            // A side that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    fn counting(count: &Arc<AtomicU64>) -> SideWorker {
        let count = Arc::clone(count);
        SideWorker::start("side", move |turn| {
            turn.serve(|| {
                count.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_micros(100));
                Ok(())
            })
        })
        .unwrap()
    }

    #[test]
    fn it_runs_between_start_and_halt_only_and_keeps_its_slices() {
        let count = Arc::new(AtomicU64::new(0));
        let mut side = counting(&count);
        assert_eq!(count.load(SeqCst), 0);
        for _ in 0..5 {
            let before = count.load(SeqCst);
            let asked = now_ns();
            side.run().unwrap();
            assert!(count.load(SeqCst) > before, "one slice is done when `run` returns");
            std::thread::sleep(Duration::from_millis(1));
            let slices = side.halt().unwrap();
            let after = count.load(SeqCst);
            assert_eq!(slices.len() as u64, after - before);
            assert!(slices[0].start_ns >= asked && slices.windows(2).all(|w| w[0].end_ns <= w[1].start_ns));
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(count.load(SeqCst), after);
        }
        drop(side);
    }

    #[test]
    fn a_side_rests_once_a_turn_before_it_stands_still() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&log);
        let mut side = SideWorker::start("side", move |turn| {
            let note = |log: &mut Arc<Mutex<Vec<u8>>>, what| {
                log.lock().unwrap().push(what);
                Ok(())
            };
            turn.serve_turns(&mut { theirs }, |log| note(log, b's'), |log| note(log, b'r'))
        })
        .unwrap();
        for turn in 1..4 {
            side.run().unwrap();
            side.halt().unwrap();
            let log = log.lock().unwrap();
            assert_eq!(log.last(), Some(&b'r'));
            assert_eq!(log.iter().filter(|&&what| what == b'r').count(), turn);
        }
        let unrested = SideWorker::start("side", |turn| {
            turn.serve_turns(&mut (), |()| Ok(()), |()| Err(Error::machine("the device failed", "replace it")))
        });
        let mut unrested = unrested.unwrap();
        unrested.run().unwrap();
        assert!(unrested.halt().unwrap_err().to_string().contains("the device failed"));
    }

    #[test]
    fn a_stuck_side_is_left_behind() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let mut side = SideWorker::start("side", move |turn| {
            turn.serve(|| {
                let _ = wait.recv();
                Ok(())
            })
        })
        .unwrap();
        side.start_running().unwrap();
        let asked = Instant::now();
        drop(side);
        assert!(asked.elapsed() < 10 * FAREWELL);
        drop(release);
    }

    #[test]
    fn errors_in_the_side_surface_and_never_hang() {
        let failed = SideWorker::start("side", |_| Err(Error::input("no such model", "choose another")));
        assert!(failed.err().unwrap().to_string().contains("no such model"));
        let mut worker =
            SideWorker::start("side", |turn| turn.serve(|| Err(Error::machine("no memory", "buy some")))).unwrap();
        assert!(worker.run().unwrap_err().to_string().contains("no memory"));
        assert!(worker.halt().unwrap_err().to_string().contains("ended by itself"));
        assert!(worker.check().unwrap_err().to_string().contains("ended by itself"));
        counting(&Arc::new(AtomicU64::new(0))).check().unwrap();
        assert!(SideWorker::start("side", |_| Ok(())).err().unwrap().to_string().contains("get ready"));
    }
}
