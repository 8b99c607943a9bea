//! The gate's page: what two programs share, byte by byte.
//!
//! One page of 4096 bytes, little-endian, every field an aligned atomic. Each writer has cache lines of its own (128 bytes
//! apart, because processors fetch lines in pairs):
//!
//! | offset | field | written by |
//! |---|---|---|
//! | 0 | magic `BBGATE01` (u64), version (u32), page size (u32) | creator, once, before the page has a name |
//! | 16 | main's process id, its start, its namespace (u64 each) | creator |
//! | 128 | state (u64): generation · 4 + (0 closed, 1 open, 2 shut down) | main |
//! | 136 | bubble id, opened at, expected close, closed at, heartbeat (u64 ns each but the id), grace (u64 ns) | main |
//! | 184 | times opened, times closed | main |
//! | 256 | futex word (u32): low half of the state | main |
//! | 384 | generation the side stands still at, when it stopped (ns) | side |
//! | 400 | generation the side last went to work in, when (ns) | side |
//! | 416 | heartbeat (ns), operations finished, times it stopped by itself, asleep (u64) | side |
//! | 512 | side's process id (0: nobody, 2⁶⁴−1: being taken), start, namespace | side |
//!
//! The generation grows by one with every opening and closing. [`gate`](super::gate) is the only user.

use super::process::ProcessId;
use crate::{Error, Result};
use memmap2::{MmapMut, MmapOptions, MmapRaw};
use std::fs::OpenOptions;
use std::io::Write;
use std::mem::size_of;
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Size of a gate's page, and of the file that holds it, in bytes.
pub const PAGE_BYTES: usize = 4096;
/// Version of the page's layout; [`Page::open`] refuses every other.
pub const VERSION: u32 = 1;
const MAGIC: u64 = u64::from_le_bytes(*b"BBGATE01");
/// Stands in place of a process id while somebody takes the place; no process has it.
const TAKING: u64 = u64::MAX;

/// Who holds a place for a process on the page, as [`ProcessWords::load`] reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nobody holds the place: its process id is 0.
    Nobody,
    /// Somebody is about to write who they are; the holder counts neither as absent nor as gone.
    BeingTaken,
    /// This process has taken the place; it may have died since.
    Taken(ProcessId),
}

/// The first part of the page, at offset 0: magic, version, page size and the main's process, written once by the
/// creator.
#[repr(C, align(128))]
pub struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    bytes: AtomicU32,
    /// The process that created the page, which is its main.
    pub main: ProcessWords,
}

/// Process id, start time and id namespace of a process on the page; an id of 0 means nobody, 2⁶⁴−1 that the place is
/// being taken.
#[repr(C)]
pub struct ProcessWords {
    pid: AtomicU64,
    started: AtomicU64,
    namespace: AtomicU64,
}

/// The cache lines at offset 128, which only the main writes. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[repr(C, align(128))]
pub struct MainLine {
    /// Generation · 4 + (0 closed, 1 open, 2 shut down); the generation grows by one with each opening, closing and
    /// shut-down.
    pub state: AtomicU64,
    /// Number of the bubble that the gate was last opened for, from 1; 0 before the first.
    pub bubble: AtomicU64,
    /// Time of the last opening in nanoseconds; 0 before the first.
    pub opened_at: AtomicU64,
    /// Time in nanoseconds at which the main means to close the gate, as the last opening named it.
    pub expected_close: AtomicU64,
    /// Time of the last closing in nanoseconds; 0 before the first.
    pub closed_at: AtomicU64,
    /// Time of the main's last sign of life in nanoseconds: a change of state, or a beat between two.
    pub heartbeat: AtomicU64,
    /// Nanoseconds behind the expected close after which the side stops by itself; the side reads it once an opening.
    pub grace: AtomicU64,
    /// Number of openings so far.
    pub openings: AtomicU64,
    /// Number of closings so far.
    pub closings: AtomicU64,
}

/// The cache lines at offset 256, which hold the word that a waiting side sleeps on.
#[repr(C, align(128))]
pub struct WaitLine {
    /// The low half of the state, written by the main with each change: the word of the side's futex call.
    pub futex: AtomicU32,
}

/// The cache lines at offset 384, which only the side writes. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[repr(C, align(128))]
pub struct SideLine {
    /// Generation of the closing, or shut-down, that the side acknowledged last by standing still.
    pub stopped_generation: AtomicU64,
    /// Time of the side's last acknowledgement in nanoseconds.
    pub stopped_at: AtomicU64,
    /// Generation of the opening in which the side last went to work.
    pub started_generation: AtomicU64,
    /// Time in nanoseconds at which the side last went to work behind a new opening.
    pub started_at: AtomicU64,
    /// Time of the side's last sign of life in nanoseconds: a start, an acknowledgement, and every 5 ms while it waits.
    pub heartbeat: AtomicU64,
    /// Operations finished since the page was made, by all sides that have been attached to it together.
    pub operations: AtomicU64,
    /// How often a side took an open gate for forgotten and stopped by itself.
    pub self_stops: AtomicU64,
    /// 1 while the side sleeps on the futex word and has to be woken, else 0.
    pub asleep: AtomicU64,
}

/// The cache lines at offset 512, with the place that a side takes.
#[repr(C, align(128))]
pub struct SideProcess {
    /// The process that is attached as the side.
    pub process: ProcessWords,
}

/// All fields of the page in the order of their bytes, each an atomic that processes may share.
#[repr(C)]
pub struct PageLayout {
    /// Magic, version and the main's process, at offset 0.
    pub header: Header,
    /// What the main writes, at offset 128.
    pub main: MainLine,
    /// The futex word, at offset 256.
    pub wait: WaitLine,
    /// What the side writes, at offset 384.
    pub side: SideLine,
    /// The side's place, at offset 512.
    pub side_process: SideProcess,
}

const _: () = assert!(size_of::<PageLayout>() <= PAGE_BYTES && std::mem::offset_of!(PageLayout, side) == 384);

impl ProcessWords {
    /// Reads who holds the place, and reads again where it changed hands meanwhile: words of two processes are never
    /// mixed.
    pub fn load(&self) -> Place {
        loop {
            let pid = self.pid.load(Acquire);
            let (started, namespace) = (self.started.load(Acquire), self.namespace.load(Acquire));
            // A place that changed hands meanwhile would give the one's number with the other's start.
            if self.pid.load(Acquire) == pid {
                return match u32::try_from(pid) {
                    Ok(0) => Place::Nobody,
                    Ok(pid) => Place::Taken(ProcessId { pid, started, namespace }),
                    Err(_) => Place::BeingTaken,
                };
            }
        }
    }

    /// Writes `id`, the process id last: who sees the new process id sees the rest. Who sees only some of the rest sees
    /// the process id that stood there before.
    pub fn store(&self, id: ProcessId) {
        self.started.store(id.started, Release);
        self.namespace.store(id.namespace, Release);
        self.pid.store(u64::from(id.pid), Release);
    }

    /// Takes the place of `before`, who is nobody or dead; false if somebody else was faster.
    ///
    /// The claim names no process: a number published before its start would look like a dead process whose number is used
    /// again, and a third one would take the place too. Who dies between claim and name leaves the place taken.
    pub fn take(&self, before: Place, id: ProcessId) -> bool {
        let number = match before {
            Place::Nobody => 0,
            Place::BeingTaken => return false,
            Place::Taken(process) => u64::from(process.pid),
        };
        let claimed = self.pid.compare_exchange(number, TAKING, AcqRel, Relaxed).is_ok();
        if claimed {
            self.store(id);
        }
        claimed
    }

    /// Claims the place and names no process, as one does that dies halfway through [`ProcessWords::take`].
    #[cfg(test)]
    pub fn claim_only(&self) {
        self.pid.store(TAKING, Release);
    }

    /// Frees the place: its process id becomes 0.
    pub fn clear(&self) {
        self.pid.store(0, Release);
    }
}

/// A mapped gate page; it stays mapped as long as this value lives.
pub struct Page {
    map: MmapRaw,
}

impl Page {
    /// Maps a page that only the threads of this process share, with this process as its main; an error where no memory
    /// can be mapped.
    pub fn anonymous() -> Result<Self> {
        let map = MmapMut::map_anon(PAGE_BYTES)
            .map_err(|e| Error::machine(format!("cannot map a gate page: {e}"), "free some memory"))?;
        let page = Page { map: map.into() };
        page.initialise();
        Ok(page)
    }

    /// Makes a fresh page at `path`, complete before it has that name; a page that stood there keeps its users but
    /// loses its name. An error where the file cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |e| Error::io("create the gate", path, e);
        let mut file = tempfile::Builder::new().prefix(".gate-").tempfile_in(folder).map_err(failed)?;
        file.write_all(&[0; PAGE_BYTES]).map_err(failed)?;
        let map = MmapOptions::new().len(PAGE_BYTES).map_raw(file.as_file()).map_err(failed)?;
        let page = Page { map };
        page.initialise();
        file.persist(path).map_err(|e| failed(e.error))?;
        Ok(page)
    }

    /// Maps the page at `path`; an error where there is no such file, or it is no gate page of this version.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::io("open the gate", path, e);
        let wrong = |why: String| {
            Error::input(
                format!("{} is not a gate page of this version: {why}", path.display()),
                "give the path that the main program created its gate at, with the same bubblebench on both sides",
            )
        };
        // Looked at before it is opened: opening a pipe that nobody writes to would wait for ever.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() || metadata.len() != PAGE_BYTES as u64 {
            return Err(wrong(format!("a file of {PAGE_BYTES} bytes was expected")));
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let page = Page { map: MmapOptions::new().len(PAGE_BYTES).map_raw(&file).map_err(failed)? };
        let header = &page.layout().header;
        if header.magic.load(Acquire) != MAGIC {
            return Err(wrong("its first eight bytes are not BBGATE01".into()));
        }
        let (version, bytes) = (header.version.load(Acquire), header.bytes.load(Acquire));
        if version != VERSION || bytes as usize != PAGE_BYTES {
            return Err(wrong(format!("it is version {version} with {bytes} bytes, not version {VERSION}")));
        }
        Ok(page)
    }

    /// The page's fields, shared with every other program that has the page mapped.
    pub fn layout(&self) -> &PageLayout {
        // SAFETY: the mapping is PAGE_BYTES long, page-aligned, readable and writable, and outlives the borrow; `PageLayout` is all
        // atomics, for which every bit pattern is valid and concurrent access, by other processes too, is defined.
        unsafe { &*self.map.as_ptr().cast::<PageLayout>() }
    }

    fn initialise(&self) {
        let header = &self.layout().header;
        header.version.store(VERSION, Relaxed);
        header.bytes.store(PAGE_BYTES as u32, Relaxed);
        header.main.store(ProcessId::own());
        header.magic.store(MAGIC, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(content: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        std::fs::write(&path, content).unwrap();
        Page::open(&path).err().unwrap().to_string()
    }

    #[test]
    fn files_that_are_no_gate_are_refused() {
        assert!(refused(b"hello").contains("4096 bytes was expected"));
        assert!(refused(&[0; PAGE_BYTES]).contains("not BBGATE01"));
        assert!(refused(&[0; PAGE_BYTES + 1]).contains("is not a gate page"));
        let mut later = [0u8; PAGE_BYTES];
        later[..8].copy_from_slice(b"BBGATE01");
        later[8..12].copy_from_slice(&9u32.to_le_bytes());
        assert!(refused(&later).contains("version 9"));
        let folder = tempfile::tempdir().unwrap();
        assert!(Page::open(folder.path()).err().unwrap().to_string().contains("is not a gate page"));
        assert!(Page::open(&folder.path().join("none")).err().unwrap().to_string().contains("check the path"));
        assert!(
            Page::create(&folder.path().join("no/such/folder")).err().unwrap().to_string().contains("create the gate")
        );
    }

    #[test]
    fn the_layout_on_disk_is_the_documented_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        let page = Page::create(&path).unwrap();
        page.layout().main.state.store(0x1234, Release);
        page.layout().wait.futex.store(0x55, Release);
        page.layout().side.operations.store(77, Release);
        page.layout().side_process.process.store(ProcessId { pid: 9, started: 8, namespace: 7 });
        let bytes = std::fs::read(&path).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(&bytes[..8], b"BBGATE01");
        assert_eq!(word(16), u64::from(std::process::id()));
        assert_eq!((word(128), word(256), word(424), word(512)), (0x1234, 0x55, 77, 9));
        assert_eq!(Page::open(&path).unwrap().layout().side.operations.load(Acquire), 77);
    }
}
