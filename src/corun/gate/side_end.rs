//! The small model's end of a gate.

use super::fork::{OwnFile, forks};
use super::lock::{self, Lock};
use super::page::{Page, PageLayout, is_at};
use super::process::{Life, ProcessId, main_life, time_namespace};
use super::protocol::{self, Look, SideProtocol};
use super::{HAND_OVER, Pass};
use crate::corun::time::{now_ns, sleep_until, wait_on};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// A side's lease lasts so long from each renewal: the longest that a side killed in another container keeps its place.
pub const LEASE_NS: u64 = 1_500_000_000;
/// A thread of the side's renews it so often.
const RENEW: Duration = Duration::from_millis(250);
/// A waiting side spins this long, yields a few times, then sleeps.
const SPIN_NS: u64 = 2_000;
const YIELDS: u32 = 3;
/// A sleeping side looks this often whether the main is still there.
const LOOK_NS: u64 = 5_000_000;
/// Nobody wakes a side when a device opens the gate: it looks this often.
const DEVICE_LOOK_NS: u64 = 20_000;
/// After so many openings in a row, each too short for the operation from its first moment on, the side is told.
const TOO_SHORT: u32 = 64;
/// After so many openings in a row in which nothing started, too: what wakes a side takes more of them than is over.
const NOT_STARTED: u32 = 1024;

/// The small model's end of a gate; dropping it leaves the place to another side. In a child of `fork` it answers
/// [`Pass::LeaseLost`] and touches nothing: the place is the parent's.
pub struct SideEnd {
    page: Arc<Page>,
    file: Option<(PathBuf, OwnFile)>,
    protocol: SideProtocol,
    main: ProcessId,
    forks: u64,
    ready: bool,
    ended: Option<Pass>,
    main_timeout_ns: u64,
    /// When it last looked whether the main is there; who asks with short time limits would never come to it otherwise.
    looked: u64,
    /// Openings in a row that were too short, and the longest of them.
    too_short: (u32, u64),
    /// Openings in a row in which nothing started, and the most that was left when the side came to one.
    not_started: (u32, u64),
    renewal: Option<Renewal>,
}

impl SideEnd {
    pub(super) fn attach(path: &Path) -> Result<Self> {
        let (page, file) = Page::open(path)?;
        let file = OwnFile::new(file);
        let absolute = std::path::absolute(path).map_err(|e| Error::io("open the gate", path, e))?;
        Self::enter(Arc::new(page), Some((absolute, file)), &path.display().to_string())
    }

    /// `name` is for errors.
    pub(super) fn enter(page: Arc<Page>, file: Option<(PathBuf, OwnFile)>, name: &str) -> Result<Self> {
        let header = &page.layout().header;
        let Some(main) = header.main.load() else {
            return Err(Error::input(format!("{name} names no main program"), "create the gate again"));
        };
        if header.time_namespace.load(Relaxed) != time_namespace() {
            return Err(super::other_clock(name, "run both programs in one time namespace (unshare without --time)"));
        }
        let (protocol, until) = take_place(&page, file.as_ref().map(|(_, file)| file), name)?;
        let renewal = match file {
            Some(_) => Some(Renewal::start(Arc::clone(&page), until)?),
            None => None,
        };
        Ok(SideEnd {
            page,
            file,
            protocol,
            main,
            forks: forks(),
            ready: false,
            ended: None,
            main_timeout_ns: u64::MAX,
            looked: now_ns(),
            too_short: (0, 0),
            not_started: (0, 0),
            renewal,
        })
    }

    fn layout(&self) -> &PageLayout {
        self.page.layout()
    }

    fn own_file(&self) -> Option<&OwnFile> {
        self.file.as_ref().map(|(_, file)| file)
    }

    /// Ends this side too where the main has given no sign for so long, in nanoseconds. Without it a silent main is
    /// waited for as long as it lives: it may be writing a checkpoint.
    pub fn set_main_timeout(&mut self, timeout_ns: u64) {
        self.main_timeout_ns = timeout_ns;
    }

    /// Says that the side is ready to work; [`SideEnd::pass`] says it as well. Until then the main takes it for absent.
    pub fn ready(&mut self) {
        if !self.ready && self.forks == forks() {
            self.ready = true;
            // Where nobody gives the lock back, the generation alone tells whose the place is.
            let _place = lock_place(self.own_file());
            let Ok(_) = self.protocol.ready(&*self.page, u64::from(std::process::id()));
        }
    }

    /// Asks whether an operation that takes `need_ns` may start: returns at once while the gate is open and what is left
    /// of the opening is long enough, else says that the side stands still and waits.
    ///
    /// After [`Pass::ShutDown`], [`Pass::MainGone`] and [`Pass::LeaseLost`] every later call answers the same.
    #[inline]
    pub fn pass(&mut self, need_ns: u64) -> Pass {
        loop {
            if let Some(pass) = self.pass_within(need_ns, u64::MAX) {
                return pass;
            }
        }
    }

    /// As [`SideEnd::pass`], for at most `timeout_ns` nanoseconds: `None` once they have passed.
    #[inline]
    pub fn pass_within(&mut self, need_ns: u64, timeout_ns: u64) -> Option<Pass> {
        if self.ready && self.ended.is_none() && self.forks == forks() {
            let Ok(look) = self.protocol.look(&*self.page, need_ns);
            if look == Look::Go {
                (self.too_short, self.not_started) = ((0, 0), (0, 0));
                return Some(Pass::Go);
            }
            return self.wait(Some(look), need_ns, timeout_ns);
        }
        self.wait(None, need_ns, timeout_ns)
    }

    /// Counts one finished operation; an error where another side has taken the place meanwhile.
    #[inline]
    pub fn done(&mut self) -> Result<()> {
        if self.forks == forks() {
            let Ok(counted) = self.protocol.done(&*self.page);
            if counted {
                return Ok(());
            }
        }
        self.ended = Some(Pass::LeaseLost);
        Err(lease_lost())
    }

    /// Operations finished behind this gate, those of sides that were attached before included.
    pub fn operations(&self) -> u64 {
        self.protocol.finished()
    }

    /// Time at which the main means to close the gate, on [`now_ns`]'s clock in nanoseconds; 0 while the gate is
    /// closed.
    pub fn expected_close(&self) -> u64 {
        let main = &self.layout().main;
        let open = protocol::phase(main.state.load(Acquire)) == protocol::OPEN;
        if open { main.expected_close.load(Relaxed) } else { 0 }
    }

    /// Generation of the opening that this side works in, or has last worked in (0 before the first), and when its
    /// operations must have ended in it, in nanoseconds.
    pub(in crate::corun) fn opening(&self) -> (u64, u64) {
        (self.protocol.working_in(), self.protocol.deadline())
    }

    /// As where the process is suspended.
    #[cfg(test)]
    pub(super) fn stop_renewing(&mut self) {
        self.renewal = None;
    }

    fn wait(&mut self, mut seen: Option<Look>, need_ns: u64, timeout_ns: u64) -> Option<Pass> {
        if let Some(ended) = self.ended {
            return Some(ended);
        }
        if self.forks != forks() {
            return self.end(Pass::LeaseLost);
        }
        self.ready();
        let page = Arc::clone(&self.page);
        let layout = page.layout();
        let begun = now_ns();
        let mut yields = 0;
        loop {
            let look = match seen.take() {
                Some(look) => look,
                None => {
                    let Ok(look) = self.protocol.look(&*page, need_ns);
                    look
                }
            };
            let state = match look {
                Look::Go => {
                    (self.too_short, self.not_started) = ((0, 0), (0, 0));
                    return Some(Pass::Go);
                }
                Look::Again => continue,
                Look::ShutDown => return self.end(Pass::ShutDown),
                Look::LeaseLost => return self.end(Pass::LeaseLost),
                Look::TooShort(whole_ns) => {
                    self.too_short = (self.too_short.0 + 1, self.too_short.1.max(whole_ns));
                    match self.starves(whole_ns) {
                        Some(never_fits) => return Some(never_fits),
                        None => continue,
                    }
                }
                Look::Late(state, left_ns) => {
                    self.too_short = (0, 0);
                    match self.starves(left_ns) {
                        Some(never_fits) => return Some(never_fits),
                        None => state,
                    }
                }
                Look::Wait(state) => state,
            };
            let now = now_ns();
            if now - self.looked >= LOOK_NS {
                self.looked = now;
                layout.side.heartbeat.store(now, Relaxed);
                if let Some(how) = self.gone(now) {
                    return self.end(how);
                }
            }
            let left = timeout_ns.saturating_sub(now - begun);
            if left == 0 {
                return None;
            }
            if now - begun < SPIN_NS {
                std::hint::spin_loop();
            } else if yields < YIELDS {
                yields += 1;
                std::thread::yield_now();
            } else if layout.header.by_device() {
                // Asked each time: a main may learn only in its first iteration that its waits are a device's.
                sleep_until(now + DEVICE_LOOK_NS.min(left));
            } else {
                let Ok(()) = self.protocol.fall_asleep(&*page);
                wait_on(&layout.wait.futex, state as u32, LOOK_NS.min(left));
                let Ok(()) = self.protocol.wake(&*page);
            }
        }
    }

    /// Counts an opening in which nothing started, with so much left; what is answered where they were too many.
    fn starves(&mut self, left_ns: u64) -> Option<Pass> {
        self.not_started = (self.not_started.0 + 1, self.not_started.1.max(left_ns));
        let longest_ns = match (self.too_short, self.not_started) {
            ((TOO_SHORT.., longest_ns), _) => longest_ns,
            (_, (NOT_STARTED.., most_ns)) => most_ns,
            _ => return None,
        };
        (self.too_short, self.not_started) = ((0, 0), (0, 0));
        Some(Pass::NeverFits { longest_ns })
    }

    /// The page, whose totals can be read when the main has taken the file away.
    pub(in crate::corun) fn page(&self) -> Arc<Page> {
        Arc::clone(&self.page)
    }

    /// How the main ended, if it did: it may have shut the gate down between this side's last look and its end.
    pub(super) fn gone(&self, now: u64) -> Option<Pass> {
        let shut_down = || protocol::phase(self.layout().main.state.load(Acquire)) == protocol::SHUT_DOWN;
        self.main_is_gone(now).then(|| if shut_down() { Pass::ShutDown } else { Pass::MainGone })
    }

    fn main_is_gone(&self, now: u64) -> bool {
        let silent = now.saturating_sub(self.layout().main.heartbeat.load(Relaxed)) > self.main_timeout_ns;
        silent
            || match (self.main_life(), &self.file) {
                (Life::Running, _) | (Life::Unknown, None) => false,
                (Life::Gone, _) => true,
                // Nobody can tell but by this: a main that ends in good order takes the page's name away.
                (Life::Unknown, Some((path, file))) => !is_at(file, path),
            }
    }

    fn main_life(&self) -> Life {
        let time_namespace = self.layout().header.time_namespace.load(Relaxed);
        main_life(self.own_file().map(|file| &**file), self.main, time_namespace)
    }

    fn end(&mut self, how: Pass) -> Option<Pass> {
        self.ended = Some(how);
        Some(how)
    }
}

impl Drop for SideEnd {
    fn drop(&mut self) {
        if self.forks != forks() {
            // The thread is not in this process: nobody could wait for it.
            std::mem::forget(self.renewal.take());
            return;
        }
        self.renewal = None;
        // Where nobody gives the lock back, the lease ends by itself.
        if let Some(_place) = lock_place(self.own_file()) {
            let Ok(()) = self.protocol.leave(&*self.page);
        }
    }
}

/// What an operation gets whose side has lost its place.
fn lease_lost() -> Error {
    Error::machine(
        "another side program has taken this one's place at the gate while it stood still",
        "end this one: it was suspended for longer than its lease",
    )
}

/// Places of pages without a file change hands among the threads of this process.
static PLACES: Mutex<()> = Mutex::new(());

/// Holds the lock of places while it lives.
enum PlaceLock<'a> {
    File(&'a OwnFile),
    Threads { _held: MutexGuard<'a, ()> },
}

/// `None` where its holder has stood still for longer than a lease lasts. Where there are no locks, nobody is excluded, and
/// the exchange of the place's generation alone decides.
fn lock_place(file: Option<&OwnFile>) -> Option<PlaceLock<'_>> {
    let Some(file) = file else {
        return Some(PlaceLock::Threads { _held: PLACES.lock().unwrap_or_else(PoisonError::into_inner) });
    };
    (lock::lock_within(file, lock::PLACE, HAND_OVER) != Lock::Refused).then_some(PlaceLock::File(file))
}

impl Drop for PlaceLock<'_> {
    fn drop(&mut self) {
        if let PlaceLock::File(file) = self {
            lock::unlock(file, lock::PLACE);
        }
    }
}

/// Takes the side's place once nobody's lease lasts. The lease of a process whose life cannot be asked about is waited for,
/// and where it is renewed meanwhile that process lives.
///
/// With the side comes the end of its lease.
fn take_place(page: &Arc<Page>, file: Option<&OwnFile>, name: &str) -> Result<(SideProtocol, u64)> {
    let place = &page.layout().place;
    let mut first_seen = None;
    loop {
        let Some(locked) = lock_place(file) else {
            return Err(super::stands_still(name));
        };
        let (now, until) = (now_ns(), place.lease_until.load(Acquire));
        // A lease that lasts longer than any is of another boot of the machine, whose clock began anew.
        let until = if file.is_some() && until > now + LEASE_NS { 0 } else { until };
        let holder = place.holder();
        let life = holder.map_or(Life::Gone, |holder| holder.life());
        if until <= now || life == Life::Gone {
            let own = ProcessId::own();
            // What has no file dies with the process.
            let until = if file.is_some() { now + LEASE_NS } else { u64::MAX };
            let Ok(claimed) = protocol::claim(&**page, u64::from(own.pid), until);
            let Some(protocol) = claimed else { continue };
            // Behind the claim, which takes the number of the one before away: nobody reads that with this start.
            place.process.started.store(own.started, Release);
            place.process.namespace.store(own.namespace, Release);
            return Ok((protocol, until));
        }
        if life == Life::Running || first_seen.is_some_and(|first| until != first) {
            let who = holder.map_or(String::new(), |holder| format!(" (process {})", holder.pid));
            return Err(Error::input(
                format!("{name} already has a side program{who}"),
                "end it first, or give every side a gate of its own",
            ));
        }
        drop(locked);
        first_seen = Some(until);
        sleep_until(until.min(now + RENEW.as_nanos() as u64 / 2) + 1_000_000);
    }
}

/// Renews the lease while the side is in an operation, however long.
struct Renewal {
    /// Dropped to end the thread.
    alive: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewal {
    /// `until`: the end of the lease so far.
    fn start(page: Arc<Page>, mut until: u64) -> Result<Self> {
        let (alive, ended) = mpsc::channel::<()>();
        let renew = move || {
            while ended.recv_timeout(RENEW) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Only this side's own lease is lengthened, however long this thread was suspended: another's ends at another time.
                let lease = &page.layout().place.lease_until;
                let next = now_ns() + LEASE_NS;
                if lease.compare_exchange(until, next, SeqCst, SeqCst).is_err() {
                    return;
                }
                until = next;
            }
        };
        let thread = std::thread::Builder::new().name("gate-lease".into()).spawn(renew);
        let thread = thread.map_err(|e| Error::machine(format!("cannot start a thread: {e}"), "end other programs"))?;
        Ok(Renewal { alive: Some(alive), thread: Some(thread) })
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
