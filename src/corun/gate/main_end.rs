//! The big model's end of a gate.

use super::fork::{OwnFile, forks};
use super::lock::{self, Lock};
use super::page::{self, Page, PageLayout, VERSION, is_at};
use super::process::{Life, ProcessId, main_life};
use super::protocol::{self, OPEN, generation, phase};
use super::{HAND_OVER, Stop, counts};
use crate::corun::time::{now_ns, sleep_until, wake_all};
use crate::{Error, Result};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// A waiting main looks this often whether the side is still there.
const LOOK_NS: u64 = 5_000_000;

/// The big model's end of a gate; dropping it shuts the gate down and removes its file, if it has one. In a child of
/// `fork` it does nothing: the gate is the parent's.
pub struct MainEnd {
    page: Arc<Page>,
    /// The file that the page has a name by, and which is locked as long as this end lives.
    file: Option<(PathBuf, OwnFile)>,
    forks: u64,
}

impl MainEnd {
    pub(super) fn anonymous(page: Arc<Page>) -> Self {
        MainEnd { page, file: None, forks: forks() }.ready()
    }

    /// Makes a fresh page at `path`, complete before it has that name.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let failed = |e| Error::io("create the gate", path, e);
        // What a link leads to is replaced, and not the link.
        let path = &std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).map_err(failed)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fresh = tempfile::Builder::new().prefix(".gate-").tempfile_in(folder).map_err(failed)?;
        let (mapped, mut unnamed) = fresh.into_parts();
        let page = Page::fresh(&mapped, path)?;
        let file = OpenOptions::new().read(true).write(true).open(&unnamed).map_err(failed)?;
        let file = OwnFile::new(file);
        // Before it has a name: nobody sees the page without its main.
        lock::try_lock(&file, lock::MAIN);
        let begun = Instant::now();
        loop {
            match Standing::at(path)? {
                Standing::Nothing => match unnamed.persist_noclobber(path) {
                    Ok(()) => return Ok(Self::of(page, path, file)),
                    // Somebody was faster: what they made is looked at next.
                    Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => unnamed = e.path,
                    Err(e) => return Err(failed(e.error)),
                },
                // Replaced while its lock is ours, so that of two that come at once one wins and the other sees its page.
                Standing::Abandoned(_locked) => {
                    unnamed.persist(path).map_err(|e| failed(e.error))?;
                    return Ok(Self::of(page, path, file));
                }
                Standing::Changing | Standing::Locked if begun.elapsed() < HAND_OVER => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Standing::Locked => return Err(super::stands_still(&path.display().to_string())),
                Standing::Changing => {
                    return Err(Error::machine(
                        format!("cannot create the gate {}: others make and remove it all the time", path.display()),
                        "give every main program a gate of its own",
                    ));
                }
            }
        }
    }

    fn of(page: Page, path: &Path, file: OwnFile) -> Self {
        MainEnd { page: Arc::new(page), file: Some((path.to_path_buf(), file)), forks: forks() }.ready()
    }

    fn ready(self) -> Self {
        counts::enter(&self.page);
        self
    }

    fn layout(&self) -> &PageLayout {
        self.page.layout()
    }

    #[cfg(test)]
    pub(super) fn page(&self) -> &Arc<Page> {
        &self.page
    }

    /// False in a child of `fork`, where this end is a copy of somebody else's.
    fn is_own(&self) -> bool {
        self.forks == forks()
    }

    /// A device opens and closes this gate.
    fn by_device(&self) -> bool {
        self.layout().header.by_device()
    }

    /// Sets how many nanoseconds behind the expected close operations may end all the same (default 0). For openings
    /// whose length is a guess: a side that trusts it would stop too early. It holds for openings that the side has not
    /// looked at yet.
    pub fn set_grace(&mut self, grace_ns: u64) {
        if self.is_own() {
            self.layout().main.grace.store(grace_ns, SeqCst);
        }
    }

    /// Sets how many nanoseconds before the expected close operations must have ended (default
    /// [`MARGIN_NS`](super::MARGIN_NS)). It holds for openings that the side has not looked at yet.
    pub fn set_margin(&mut self, margin_ns: u64) {
        if self.is_own() {
            self.layout().main.margin.store(margin_ns, SeqCst);
        }
    }

    /// Closes the gate; from now on a device opens and closes it, by writes to its line in the order of its stream. The
    /// address of that line (offset 1024 of the page). The calls [`MainEnd::open`] and [`MainEnd::close`] have no effect
    /// then. To be called before a side attaches.
    pub fn hand_to_device(&mut self) -> *mut u32 {
        self.close();
        if self.is_own() {
            self.layout().header.driver.store(1, SeqCst);
        }
        self.layout().device.open.as_ptr()
    }

    /// Opens the gate for about `expected_ns` nanoseconds. Opening an open gate names a new expected close; one that is
    /// shut down stays so.
    pub fn open(&mut self, expected_ns: u64) {
        if self.is_own() && !self.by_device() {
            let Ok(asleep) = protocol::open(&*self.page, expected_ns);
            self.wake(asleep);
        }
    }

    /// Closes the gate; does not wait. Closing a closed gate changes nothing.
    pub fn close(&mut self) {
        if self.is_own() && !self.by_device() {
            let Ok(asleep) = protocol::close(&*self.page);
            self.wake(asleep);
        }
    }

    /// Shuts the gate down: the side's waiting ends for good, with [`Pass::ShutDown`](super::Pass::ShutDown).
    pub fn shut_down(&mut self) {
        if self.is_own() {
            let Ok(asleep) = protocol::shut_down(&*self.page);
            self.wake(asleep);
        }
    }

    fn wake(&self, asleep: bool) {
        if asleep {
            wake_all(&self.layout().wait.futex);
        }
    }

    /// Tells that the main lives, where it neither opens nor closes for long and sides have a main's time limit.
    pub fn beat(&self) {
        if self.is_own() {
            self.layout().main.heartbeat.store(now_ns(), Relaxed);
        }
    }

    /// Time in nanoseconds from the last closing until the side stood still, 0 where it had stopped by the clock before;
    /// `None` while the gate is open or the side has not acknowledged that closing.
    pub fn stopped(&self) -> Option<u64> {
        let Ok(stopped) = protocol::stopped(&*self.page);
        stopped
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
            let over = waited >= limit_ns;
            let look = over || waited >= looked + LOOK_NS;
            if self.side_is_absent(look) {
                return Stop::Absent;
            }
            if over {
                return Stop::Late;
            }
            if look {
                looked = waited;
            }
            // Spinning, or looking too often, would take from the side the core it needs to finish.
            sleep_until(begun + (waited + (waited / 2).clamp(20_000, 1_000_000)).min(limit_ns));
        }
    }

    /// Nobody is there that is ready to work. `look`: ask for its life too, which takes longer.
    fn side_is_absent(&self, look: bool) -> bool {
        let place = &self.layout().place;
        let Some(side) = place.process.load() else { return true };
        look && match side.life() {
            Life::Running => false,
            Life::Gone => true,
            Life::Unknown => place.lease_until.load(Acquire) <= now_ns(),
        }
    }

    /// Operations finished so far by all sides that have been attached to this gate.
    pub fn side_operations(&self) -> u64 {
        self.layout().side.operations.load(Acquire)
    }

    /// Time at which the side went to work in the present opening, on [`now_ns`]'s clock in nanoseconds; `None` while
    /// it has not, once the gate is closed, and where a device opens it.
    pub fn side_started_at(&self) -> Option<u64> {
        let state = self.layout().main.state.load(Relaxed);
        (phase(state) == OPEN).then(|| self.started_at(generation(state)))?
    }

    /// Time in nanoseconds from the last opening to the side's first operation in it, told after the closing too;
    /// `None` where there was none, and where a device opens the gate.
    pub fn last_start_latency(&self) -> Option<u64> {
        Some(self.started_at(self.opening())?.saturating_sub(self.opened_at()))
    }

    /// Generation of the present opening, or of the last one where the gate has been closed since.
    pub(in crate::corun) fn opening(&self) -> u64 {
        let state = self.layout().main.state.load(Relaxed);
        generation(state).saturating_sub(u64::from(phase(state) != OPEN))
    }

    /// When the side went to work in that opening of the main's, if it did.
    fn started_at(&self, opening: u64) -> Option<u64> {
        let side = &self.layout().side;
        let did = !self.by_device() && opening > 0 && side.started.load(Acquire) == opening;
        did.then(|| side.started_at.load(Relaxed))
    }

    /// Time in nanoseconds from the side's first operation in the last opening to its standing still; `None` until the
    /// side has acknowledged the closing, and where it did no operation.
    pub fn last_work_ns(&self) -> Option<u64> {
        self.stopped()?;
        let started = self.opened_at() + self.last_start_latency()?;
        self.layout().side.stopped_at.load(Relaxed).checked_sub(started)
    }

    /// Openings in which the side stopped by the clock, before the closing.
    pub fn self_stops(&self) -> u64 {
        self.layout().side.self_stops.load(Acquire)
    }

    /// Time of the last opening, on [`now_ns`]'s clock in nanoseconds; 0 before the first.
    pub fn opened_at(&self) -> u64 {
        self.layout().main.opened_at.load(Relaxed)
    }
}

impl Drop for MainEnd {
    fn drop(&mut self) {
        if !self.is_own() {
            return;
        }
        self.shut_down();
        counts::leave(&self.page);
        if let Some((path, file)) = &self.file {
            if is_at(file, path) {
                let _ = std::fs::remove_file(path);
            }
            // A program that another thread is just starting has a copy of the open file for a moment.
            lock::unlock(file, lock::MAIN);
        }
    }
}

/// What stands at the path of a gate that is to be made.
enum Standing {
    Nothing,
    /// A page whose main is gone; its file, of which nobody else holds the place's lock.
    Abandoned(Locked),
    /// It changed while it was looked at.
    Changing,
    /// So far somebody else holds the lock of its places.
    Locked,
}

impl Standing {
    /// An error where a main lives there, or what stands there is no gate.
    fn at(path: &Path) -> Result<Self> {
        let failed = |e| Error::io("create the gate", path, e);
        match std::fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Standing::Nothing),
            Err(e) => return Err(failed(e)),
        }
        let no_gate = || {
            Error::input(
                format!("{} is there and is no gate: it is not written over", path.display()),
                "give the gate a path of its own, such as /dev/shm/gate-0",
            )
        };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.len() == page::PAGE_BYTES as u64 => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => return Ok(Standing::Changing),
            _ => return Err(no_gate()),
        }
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => OwnFile::new(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Standing::Changing),
            Err(e) => return Err(failed(e)),
        };
        // Read, and not mapped: a mapping would keep the file's locks in a child of `fork`.
        let mut header = [0u8; 48];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        // These places are the same in every version.
        let pid = u32::try_from(word(16)).ok().filter(|&pid| pid != 0);
        let Some(pid) = pid.filter(|_| word(0) == page::MAGIC) else { return Err(no_gate()) };
        let main = ProcessId { pid, started: word(24), namespace: word(32) };
        let (version, time_namespace) = (word(8) as u32, word(40));
        // Mains of version 1 held no lock.
        let lives = match version {
            VERSION => main_life(Some(&file), main, time_namespace) != Life::Gone,
            _ => main.life() == Life::Running,
        };
        if lives {
            let since = main.age().map_or(String::new(), |age| format!(", started {} s ago", age.as_secs()));
            return Err(Error::input(
                format!("{} already has a main program (process {}{since})", path.display(), main.pid),
                "end it first, or give every main program a gate of its own",
            ));
        }
        // Of two that come at once one gets it, and the other sees another page next time: it looks behind the lock.
        if lock::try_lock(&file, lock::PLACE) == Lock::Refused {
            return Ok(Standing::Locked);
        }
        let file = Locked(file);
        Ok(if is_at(&file.0, path) { Standing::Abandoned(file) } else { Standing::Changing })
    }
}

/// A file whose lock of places is given back when this is dropped.
struct Locked(OwnFile);

impl Drop for Locked {
    fn drop(&mut self) {
        lock::unlock(&self.0, lock::PLACE);
    }
}
