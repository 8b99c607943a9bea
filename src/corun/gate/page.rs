//! The gate's page: what two programs share, byte by byte. This table is the contract; readers in C and Python follow it.
//!
//! One page of 4096 bytes, little-endian, every field an aligned atomic of 8 bytes (u64) unless it says otherwise. Each
//! writer has cache lines of its own (128 bytes apart, because processors fetch lines in pairs). Times are nanoseconds of
//! `CLOCK_MONOTONIC`. A *generation* grows by one with every opening, closing and shut-down.
//!
//! | offset | field | written by |
//! |---|---|---|
//! | 0 | magic `BBGATE01`, version (u32) = 2, page size (u32) = 4096 | creator, once, before the page has a name |
//! | 16 | main's process id, its start in clock ticks from boot, inode of its process-id namespace | creator |
//! | 40 | inode of the creator's time namespace (0: none), driver: 0 the main's calls, 1 a device (offset 1024) | creator |
//! | 128 | state: generation · 4 + (0 closed, 1 open, 2 shut down) | main |
//! | 136 | bubble id, opened at, expected close, closed at, heartbeat, grace | main |
//! | 184 | openings, closings | main |
//! | 200 | margin, time that the gate stood open in all openings that are over | main |
//! | 256 | futex word (u32): low half of the state | main |
//! | 384 | stopped: low 16 bits of the side's generation · 2⁴⁸ + generation of the gate that the side stands still in; when | side |
//! | 400 | generation the side last went to work in, when | side |
//! | 416 | heartbeat, operations finished, openings it worked in and stopped by the clock, 1 while it sleeps | side |
//! | 448 | time at work: from the first operation of an opening to standing still or the closing, summed up | side |
//! | 512 | side's process id once it is ready to work (0 before, and without a side), its start, its namespace | side |
//! | 536 | end of the side's lease (0: the place is free), the side's generation, process id of who holds the lease | side |
//! | 1024 | device line (u32 each): open 0/1, generation, expected length in µs, free memory in MiB, bubble id | device |
//!
//! Words that are read together are written before, and the last with release ordering: who sees a new state sees the
//! opening that it belongs to. More is asked of some: state and futex word, asleep, and a side's process id and generation
//! are stored in the one order that all programs agree on (sequentially consistent), and so are the loads behind them. On
//! x86 too that takes a barrier between such a store and the load that follows it: a main's of state and then asleep, a side's
//! of asleep or its process id and then the state. The device line is written data first, `open` last. A place (offset 512)
//! changes hands under a lock of the file's byte 1 ([`lock`](super::lock)), its generation first; the main holds one of byte
//! 0 as long as it lives.

use super::memory::{Memory, Order, Word};
use super::process::{ProcessId, time_namespace};
use crate::corun::time::now_ns;
use crate::{Error, Result};
use memmap2::{MmapMut, MmapOptions, MmapRaw};
use std::convert::Infallible;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Write;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Size of a gate's page, and of the file that holds it, in bytes.
pub const PAGE_BYTES: usize = 4096;
/// Version of the page's layout; [`Page::open`] refuses every other.
pub const VERSION: u32 = 2;
/// The first eight bytes of every version.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"BBGATE01");

/// The first part of the page, at offset 0: magic, version, page size and the main's process, written once by the
/// creator.
#[repr(C, align(128))]
pub struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    bytes: AtomicU32,
    /// The process that created the page, which is its main.
    pub main: ProcessWords,
    /// Inode of the main's time namespace: clocks of two namespaces differ. 0 where there is no such thing.
    pub time_namespace: AtomicU64,
    /// 0: the main's calls open and close; 1: a device does, on its line.
    pub driver: AtomicU64,
}

/// Process id, start time and id namespace of a process on the page; an id of 0 means nobody.
#[repr(C)]
pub struct ProcessWords {
    pub(super) pid: AtomicU64,
    pub(super) started: AtomicU64,
    pub(super) namespace: AtomicU64,
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
    /// Nanoseconds behind the expected close that operations may end in all the same; for an opening whose length the
    /// main only guesses.
    pub grace: AtomicU64,
    /// Number of openings so far.
    pub openings: AtomicU64,
    /// Number of closings so far.
    pub closings: AtomicU64,
    /// Nanoseconds before the expected close that operations must have ended by.
    pub margin: AtomicU64,
    /// Nanoseconds that the gate stood open, over all openings but the present one.
    pub open_ns: AtomicU64,
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
    /// The generation of the gate that the side stands still in, and whose word that is: the low 16 bits of the side's
    /// generation stand in the upper 16.
    pub stopped: AtomicU64,
    /// Time of the side's last standing still in nanoseconds.
    pub stopped_at: AtomicU64,
    /// Generation of the opening in which the side last went to work.
    pub started: AtomicU64,
    /// Time in nanoseconds at which the side last went to work behind a new opening.
    pub started_at: AtomicU64,
    /// Time of the side's last sign of life in nanoseconds: a start, a stop, and every 5 ms while it waits.
    pub heartbeat: AtomicU64,
    /// Operations finished since the page was made, by all sides that have been attached to it together.
    pub operations: AtomicU64,
    /// Openings in which a side worked and stopped by the clock: its next operation would not have ended in time.
    pub self_stops: AtomicU64,
    /// 1 while the side sleeps on the futex word and has to be woken, else 0.
    pub asleep: AtomicU64,
    /// Nanoseconds from the first operation of an opening to standing still, or to the closing where that came first, over
    /// all openings.
    pub work_ns: AtomicU64,
}

/// The cache lines at offset 512, with the place that a side takes.
#[repr(C, align(128))]
pub struct SidePlace {
    /// The process that is attached as the side; its id is 0 until it is ready to work.
    pub process: ProcessWords,
    /// Time in nanoseconds up to which the place is taken; 0 where it is free.
    pub lease_until: AtomicU64,
    /// Grows by one with each side that takes the place.
    pub generation: AtomicU64,
    /// The process id of who holds the lease, ready or not.
    pub holder: AtomicU64,
}

impl SidePlace {
    /// Who holds the lease, ready or not; words of two processes may be mixed unless the lock of places is held.
    pub fn holder(&self) -> Option<ProcessId> {
        let pid = u32::try_from(self.holder.load(Acquire)).ok().filter(|&pid| pid != 0)?;
        let (started, namespace) = (self.process.started.load(Acquire), self.process.namespace.load(Acquire));
        Some(ProcessId { pid, started, namespace })
    }
}

/// The cache lines at offset 1024, which a device writes in the order of its stream: data first, `open` last.
#[repr(C, align(128))]
pub struct DeviceLine {
    /// 1 while the gate is open, else 0.
    pub open: AtomicU32,
    /// Grows by one with each opening.
    pub generation: AtomicU32,
    /// How long the opening is expected to last, in microseconds.
    pub expected_us: AtomicU32,
    /// Device memory that the side may use meanwhile, in MiB.
    pub memory_mib: AtomicU32,
    /// Number of the bubble within the iteration.
    pub bubble: AtomicU32,
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
    pub place: SidePlace,
    reserved: [u8; 384],
    /// What a device writes, at offset 1024.
    pub device: DeviceLine,
}

const _: () = {
    assert!(size_of::<PageLayout>() <= PAGE_BYTES);
    assert!(offset_of!(PageLayout, side) == 384 && offset_of!(PageLayout, place) == 512);
    assert!(offset_of!(PageLayout, device) == 1024);
};

impl Header {
    /// A device opens and closes the gate, on its line; the main's calls do not.
    pub fn by_device(&self) -> bool {
        self.driver.load(Acquire) != 0
    }
}

impl ProcessWords {
    /// Reads who stands there, and reads again where it changed meanwhile: words of two processes are never mixed.
    /// `None` where nobody does.
    pub fn load(&self) -> Option<ProcessId> {
        loop {
            let pid = self.pid.load(SeqCst);
            let (started, namespace) = (self.started.load(Acquire), self.namespace.load(Acquire));
            if self.pid.load(Acquire) == pid {
                return u32::try_from(pid).ok().filter(|&pid| pid != 0).map(|pid| ProcessId {
                    pid,
                    started,
                    namespace,
                });
            }
        }
    }

    /// Writes `id`, the process id last: who sees the new process id sees the rest.
    pub fn store(&self, id: ProcessId) {
        self.started.store(id.started, Release);
        self.namespace.store(id.namespace, Release);
        self.pid.store(u64::from(id.pid), SeqCst);
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

    /// Makes `file`, which is new and empty, a fresh page. `path` is for errors. The mapping keeps the open file in a child of
    /// `fork`, and the locks that it holds: those belong on another one.
    pub(super) fn fresh(mut file: &File, path: &Path) -> Result<Self> {
        let failed = |e| Error::io("create the gate", path, e);
        // Written, not only extended: on a full file system this fails, and not the first access to the mapping.
        file.write_all(&[0; PAGE_BYTES]).map_err(failed)?;
        let page = Page { map: MmapOptions::new().len(PAGE_BYTES).map_raw(file).map_err(failed)? };
        page.initialise();
        Ok(page)
    }

    /// Maps the page at `path` and gives its file, opened once more for locks; an error where there is no such file, or it
    /// is no gate page of this version.
    pub fn open(path: &Path) -> Result<(Self, File)> {
        let failed = |e| Error::io("open the gate", path, e);
        let open = || OpenOptions::new().read(true).write(true).open(path).map_err(failed);
        look_before_opening(path)?;
        loop {
            let (mapped, file) = (open()?, open()?);
            // Another main's page may have taken the name in between.
            if !is_same(&mapped.metadata().map_err(failed)?, &file.metadata().map_err(failed)?) {
                continue;
            }
            let page = Page { map: MmapOptions::new().len(PAGE_BYTES).map_raw(&mapped).map_err(failed)? };
            check(path, page.layout())?;
            return Ok((page, file));
        }
    }

    /// A copy of the page at `path` as it is now and its open file, for who looks on; needs no right to write. Errors as
    /// for [`Page::open`].
    pub fn look_on(path: &Path) -> Result<(Self, File)> {
        let failed = |e| Error::io("look at the gate", path, e);
        look_before_opening(path)?;
        let file = File::open(path).map_err(failed)?;
        let live = MmapOptions::new().len(PAGE_BYTES).map_raw_read_only(&file).map_err(failed)?;
        let copy = MmapMut::map_anon(PAGE_BYTES).map_err(failed)?;
        let copy = Page { map: copy.into() };
        for at in 0..PAGE_BYTES / 8 {
            // SAFETY: both mappings are PAGE_BYTES long and aligned; relaxed loads of a word are defined on memory that may only
            // be read and that others write.
            let word = unsafe { (*live.as_ptr().cast::<AtomicU64>().add(at)).load(Relaxed) };
            // SAFETY: as above; nobody else has the copy.
            unsafe { (*copy.map.as_ptr().cast::<AtomicU64>().add(at)).store(word, Relaxed) };
        }
        check(path, copy.layout())?;
        Ok((copy, file))
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
        header.time_namespace.store(time_namespace(), Relaxed);
        self.layout().main.margin.store(super::MARGIN_NS, Relaxed);
        self.layout().main.heartbeat.store(now_ns(), Relaxed);
        header.magic.store(MAGIC, Release);
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        let PageLayout { main, side, place, .. } = self.layout();
        match word {
            Word::State => &main.state,
            Word::Bubble => &main.bubble,
            Word::OpenedAt => &main.opened_at,
            Word::ExpectedClose => &main.expected_close,
            Word::ClosedAt => &main.closed_at,
            Word::MainHeartbeat => &main.heartbeat,
            Word::Grace => &main.grace,
            Word::Openings => &main.openings,
            Word::Closings => &main.closings,
            Word::Margin => &main.margin,
            Word::OpenNs => &main.open_ns,
            Word::Stopped => &side.stopped,
            Word::StoppedAt => &side.stopped_at,
            Word::Started => &side.started,
            Word::StartedAt => &side.started_at,
            Word::SideHeartbeat => &side.heartbeat,
            Word::Operations => &side.operations,
            Word::SelfStops => &side.self_stops,
            Word::Asleep => &side.asleep,
            Word::WorkNs => &side.work_ns,
            Word::SidePid => &place.process.pid,
            Word::LeaseUntil => &place.lease_until,
            Word::SideGeneration => &place.generation,
            Word::Holder => &place.holder,
            Word::Driver => &self.layout().header.driver,
            Word::Futex | Word::DeviceOpen | Word::DeviceGeneration | Word::DeviceExpectedUs => {
                unreachable!("a word of 32 bits")
            }
        }
    }

    fn half_word(&self, word: Word) -> Option<&AtomicU32> {
        let PageLayout { wait, device, .. } = self.layout();
        match word {
            Word::Futex => Some(&wait.futex),
            Word::DeviceOpen => Some(&device.open),
            Word::DeviceGeneration => Some(&device.generation),
            Word::DeviceExpectedUs => Some(&device.expected_us),
            _ => None,
        }
    }
}

impl Memory for Page {
    type Stop = Infallible;

    #[inline(always)]
    fn load(&self, word: Word, order: Order) -> Result<u64, Infallible> {
        let order = match order {
            Order::Relaxed => Relaxed,
            Order::Publish => Acquire,
            Order::Total => SeqCst,
        };
        Ok(match self.half_word(word) {
            Some(half) => u64::from(half.load(order)),
            None => self.word(word).load(order),
        })
    }

    #[inline(always)]
    fn store(&self, word: Word, value: u64, order: Order) -> Result<(), Infallible> {
        let order = match order {
            Order::Relaxed => Relaxed,
            Order::Publish => Release,
            Order::Total => SeqCst,
        };
        match self.half_word(word) {
            Some(half) => half.store(value as u32, order),
            None => self.word(word).store(value, order),
        }
        Ok(())
    }

    fn exchange(&self, word: Word, from: u64, to: u64) -> Result<bool, Infallible> {
        Ok(self.word(word).compare_exchange(from, to, SeqCst, SeqCst).is_ok())
    }

    #[inline(always)]
    fn now(&self) -> Result<u64, Infallible> {
        Ok(now_ns())
    }
}

/// Whether the open file is the one that has this name.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    matches!((file.metadata(), std::fs::metadata(path)), (Ok(open), Ok(named)) if is_same(&open, &named))
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Looks at the file before it is opened: opening a pipe that nobody writes to would wait for ever.
pub(super) fn look_before_opening(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io("open the gate", path, e))?;
    if !metadata.is_file() || metadata.len() != PAGE_BYTES as u64 {
        return Err(wrong(path, &format!("a file of {PAGE_BYTES} bytes was expected")));
    }
    Ok(())
}

/// An error unless the page is one of this version.
pub(super) fn check(path: &Path, layout: &PageLayout) -> Result<()> {
    let header = &layout.header;
    if header.magic.load(Acquire) != MAGIC {
        return Err(wrong(path, "its first eight bytes are not BBGATE01"));
    }
    let (version, bytes) = (header.version.load(Acquire), header.bytes.load(Acquire));
    if version != VERSION || bytes as usize != PAGE_BYTES {
        return Err(wrong(path, &format!("it is version {version} with {bytes} bytes, not version {VERSION}")));
    }
    Ok(())
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::input(
        format!("{} is not a gate page of this version: {why}", path.display()),
        "give the path that the main program created its gate at, with the same bubblebench on both sides",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(content: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        std::fs::write(&path, content).unwrap();
        let looked = Page::look_on(&path).err().unwrap().to_string();
        let opened = Page::open(&path).err().unwrap().to_string();
        assert_eq!(looked, opened);
        opened
    }

    #[test]
    fn files_that_are_no_gate_are_refused() {
        assert!(refused(b"hello").contains("4096 bytes was expected"));
        assert!(refused(&[0; PAGE_BYTES]).contains("not BBGATE01"));
        assert!(refused(&[0; PAGE_BYTES + 1]).contains("is not a gate page"));
        for version in [1u32, 9] {
            let mut other = [0u8; PAGE_BYTES];
            other[..8].copy_from_slice(b"BBGATE01");
            other[8..12].copy_from_slice(&version.to_le_bytes());
            assert!(refused(&other).contains(&format!("it is version {version} with")));
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(Page::open(folder.path()).err().unwrap().to_string().contains("is not a gate page"));
        assert!(Page::open(&folder.path().join("none")).err().unwrap().to_string().contains("check the path"));
    }

    /// Every word at the place that the table above gives it: readers in other languages follow that.
    #[test]
    fn the_layout_on_disk_is_the_documented_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let page = Page::fresh(&file, &path).unwrap();
        let words = [
            (48, Word::Driver),
            (128, Word::State),
            (136, Word::Bubble),
            (144, Word::OpenedAt),
            (152, Word::ExpectedClose),
            (160, Word::ClosedAt),
            (168, Word::MainHeartbeat),
            (176, Word::Grace),
            (184, Word::Openings),
            (192, Word::Closings),
            (200, Word::Margin),
            (208, Word::OpenNs),
            (384, Word::Stopped),
            (392, Word::StoppedAt),
            (400, Word::Started),
            (408, Word::StartedAt),
            (416, Word::SideHeartbeat),
            (424, Word::Operations),
            (432, Word::SelfStops),
            (440, Word::Asleep),
            (448, Word::WorkNs),
            (512, Word::SidePid),
            (536, Word::LeaseUntil),
            (544, Word::SideGeneration),
            (552, Word::Holder),
        ];
        let halves = [
            (256, Word::Futex),
            (1024, Word::DeviceOpen),
            (1028, Word::DeviceGeneration),
            (1032, Word::DeviceExpectedUs),
        ];
        for (at, word) in words {
            page.store(word, 0x0102_0304_0000_0000 + at, Order::Total).unwrap();
        }
        for (at, word) in halves {
            page.store(word, 0x0506_0000 + at, Order::Total).unwrap();
        }
        page.layout().device.memory_mib.store(71, Relaxed);
        page.layout().device.bubble.store(72, Relaxed);
        let bytes = std::fs::read(&path).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((&bytes[..8], half(8), half(12)), (&b"BBGATE01"[..], 2, 4096));
        let own = ProcessId::own();
        assert_eq!((word(16), word(24), word(32)), (u64::from(own.pid), own.started, own.namespace));
        assert_eq!(word(40), time_namespace());
        for (at, _) in words {
            assert_eq!(word(at as usize), 0x0102_0304_0000_0000 + at);
        }
        for (at, _) in halves {
            assert_eq!(u64::from(half(at as usize)), 0x0506_0000 + at);
        }
        assert_eq!((half(1036), half(1040)), (71, 72));
        let seen = Page::look_on(&path).unwrap().0;
        assert_eq!(seen.load(Word::Operations, Order::Relaxed).unwrap(), 0x0102_0304_0000_0000 + 424);
        assert_eq!(Page::open(&path).unwrap().0.layout().wait.futex.load(Acquire), 0x0506_0000 + 256);
    }
}
