//! Locks of single bytes of the page's file: they end with the process that holds them, however it ends, and in whatever
//! container it ran.
//!
//! They belong to the open file (`F_OFD_SETLK`, fcntl(2)), not to the process: two mains in one process exclude each other
//! too. A child of `fork` would hold them with its parent: it closes its copy at once ([`fork`](super::fork)).

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// The byte that a main holds as long as it lives.
pub const MAIN: i64 = 0;
/// The byte that is held while the side's place changes hands, and while the page of a main that is gone is replaced.
pub const PLACE: i64 = 1;

/// What came of asking for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It is ours, until the file is closed.
    Held,
    /// Somebody else holds it.
    Refused,
    /// This file system, or this system, has no such locks.
    Unknown,
}

/// Takes the lock of a byte if nobody holds it.
pub fn try_lock(file: &File, byte: i64) -> Lock {
    match set(file, byte, true) {
        Ok(()) => Lock::Held,
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN) | Some(libc::EACCES)) => Lock::Refused,
        Err(_) => Lock::Unknown,
    }
}

/// Waits for the lock of a byte, which is held for moments only: refused where its holder stood still for so long.
pub fn lock_within(file: &File, byte: i64, limit: Duration) -> Lock {
    let begun = Instant::now();
    loop {
        match try_lock(file, byte) {
            Lock::Refused if begun.elapsed() < limit => std::thread::sleep(Duration::from_micros(200)),
            answer => return answer,
        }
    }
}

/// Gives the lock of a byte back.
pub fn unlock(file: &File, byte: i64) {
    let _ = set(file, byte, false);
}

/// Whether somebody else holds the lock of a byte; `None` where that cannot be asked.
pub fn is_held(file: &File, byte: i64) -> Option<bool> {
    held(file, byte).ok()
}

#[cfg(target_os = "linux")]
fn range(kind: libc::c_int, byte: i64) -> libc::flock {
    // SAFETY: a C structure of numbers, for which zeros are valid.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    (range.l_start, range.l_len) = (byte, 1);
    range
}

#[cfg(target_os = "linux")]
fn set(file: &File, byte: i64, wanted: bool) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let range = range(if wanted { libc::F_WRLCK } else { libc::F_UNLCK }, byte);
    // SAFETY: the descriptor is open during the call, which reads the structure.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(target_os = "linux")]
fn held(file: &File, byte: i64) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let mut range = range(libc::F_WRLCK, byte);
    // SAFETY: the descriptor is open during the call, which writes the structure.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut range) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(range.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(not(target_os = "linux"))]
fn set(_: &File, _: i64, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn held(_: &File, _: i64) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_open_files_exclude_each_other_even_in_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [0; 8]).unwrap();
        let open = || std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let (one, two) = (open(), open());
        assert_eq!((try_lock(&one, MAIN), try_lock(&two, MAIN)), (Lock::Held, Lock::Refused));
        assert_eq!((is_held(&two, MAIN), is_held(&one, MAIN)), (Some(true), Some(false)));
        assert_eq!(try_lock(&two, PLACE), Lock::Held, "each byte is a lock of its own");
        assert_eq!(lock_within(&one, PLACE, Duration::from_millis(2)), Lock::Refused, "not for ever");
        drop(one);
        assert_eq!(try_lock(&two, MAIN), Lock::Held, "a closed file holds nothing");
        unlock(&two, MAIN);
        assert_eq!(try_lock(&open(), MAIN), Lock::Held);
    }
}
