//! What a child of `fork` must not keep: its parent's ends of gates, and the open files that hold their locks.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);
/// Files that a child closes: a table of fixed size, because the child of a program with threads may neither allocate nor
/// take a lock.
static FILES: [AtomicI32; 256] = [const { AtomicI32::new(NONE) }; 256];
const NONE: RawFd = -1;

/// How many forks lie between the first call and this process: an end that was made under another number belongs to a
/// parent, and its copy here must touch nothing.
pub fn forks() -> u64 {
    static WATCH: Once = Once::new();
    extern "C" fn forked() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        for slot in &FILES {
            let file = slot.swap(NONE, Ordering::Relaxed);
            if file != NONE {
                // SAFETY: the descriptor is this process's copy of one that its owner here forgets (`OwnFile`); close is allowed
                // in a child of a program with threads.
                unsafe { libc::close(file) };
            }
        }
    }
    WATCH.call_once(|| {
        // SAFETY: the handler touches atomics and closes files, which is allowed in a child of a program with threads.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// An open file that a child of `fork` closes at once, so that its locks end with the process that took them.
pub struct OwnFile {
    file: ManuallyDrop<File>,
    forks: u64,
    /// `None` where the table is full: a child keeps that file until it drops it.
    slot: Option<usize>,
}

impl OwnFile {
    /// Takes the file over, before it is locked.
    pub fn new(file: File) -> Self {
        let forks = forks();
        let free = |slot: &AtomicI32| {
            slot.compare_exchange(NONE, file.as_raw_fd(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let slot = FILES.iter().position(free);
        OwnFile { file: ManuallyDrop::new(file), forks, slot }
    }
}

impl Deref for OwnFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        match self.slot {
            // Closed when this process was made.
            Some(_) if self.forks != forks() => return,
            Some(slot) => FILES[slot].store(NONE, Ordering::Relaxed),
            None => {}
        }
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::lock::{self, Lock};
    use super::*;

    /// Locks end with the process that took them, though a child of it lives on.
    #[test]
    fn a_child_keeps_no_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let own = OwnFile::new(open());
        assert_eq!(lock::try_lock(&own, lock::MAIN), Lock::Held);
        // SAFETY: the child only waits for its end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
        let other = open();
        assert_eq!(lock::is_held(&other, lock::MAIN), Some(true));
        drop(own);
        let begun = std::time::Instant::now();
        // The child closes its copy once it runs.
        while lock::is_held(&other, lock::MAIN) == Some(true) && begun.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        assert_eq!(lock::try_lock(&other, lock::MAIN), Lock::Held);
        // SAFETY: ends the child just made, and waits for it.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }

    #[test]
    fn a_place_in_the_table_is_used_again() {
        let open = || OwnFile::new(File::open("/dev/null").unwrap());
        let first = open();
        let slot = first.slot.unwrap();
        assert_eq!(FILES[slot].load(Ordering::Relaxed), first.as_raw_fd());
        drop(first);
        for _ in 0..2 * FILES.len() {
            assert!(open().slot.is_some());
        }
    }
}
