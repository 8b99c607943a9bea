//! Is the process at the other end of a gate still there?
//!
//! A process is named by its id, the time it started (ids are used again) and its id namespace (in another container the
//! same number is another process; there no answer is given). Killed processes that nobody has waited for count as gone.

use super::lock;
use std::fs::File;
use std::time::Duration;

/// A process as it stands in a gate's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    /// The process id, as the process's own id namespace numbers it.
    pub pid: u32,
    /// Clock ticks from boot to the process's start; 0 where the system does not tell.
    pub started: u64,
    /// Inode of the process-id namespace; 0 where there is no such thing.
    pub namespace: u64,
}

/// Whether a process is still there, as far as this one can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The process is there.
    Running,
    /// The process has ended, or was killed and not yet waited for, or its id names another process by now.
    Gone,
    /// This process's table of processes says nothing of it: it lives in another id namespace, or the table is another
    /// namespace's, or hides it.
    Unknown,
}

impl ProcessId {
    /// The id of the calling process.
    pub fn own() -> Self {
        let pid = std::process::id();
        ProcessId { pid, started: table_entry(pid).map_or(0, |entry| entry.started), namespace: namespace() }
    }

    /// Looks whether the process is still there.
    pub fn life(&self) -> Life {
        if self.namespace != namespace() { Life::Unknown } else { self.life_by_table() }
    }

    /// How long ago it started; `None` where this process's table does not know it.
    pub fn age(&self) -> Option<Duration> {
        if self.namespace != namespace() || self.started == 0 {
            return None;
        }
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        // SAFETY: asks for a constant of the system.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Duration::try_from_secs_f64((uptime - self.started as f64 / ticks as f64).max(0.0)).ok()
    }

    #[cfg(target_os = "linux")]
    fn life_by_table(&self) -> Life {
        // A container may be given another namespace's /proc.
        let own_table =
            std::fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == &*std::process::id().to_string());
        if self.started == 0 || self.namespace == 0 || !own_table {
            return Life::Unknown;
        }
        match table_entry(self.pid) {
            Some(entry) if entry.started == self.started && entry.runs => Life::Running,
            Some(_) => Life::Gone,
            // Gone, or hidden from this user (hidepid).
            None if is_signalled(self.pid) => Life::Unknown,
            None => Life::Gone,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn life_by_table(&self) -> Life {
        if is_signalled(self.pid) { Life::Running } else { Life::Gone }
    }
}

/// Whether a process of that id could be sent a signal, by somebody who may.
fn is_signalled(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: signal 0 only asks whether the process exists.
    unsafe { libc::kill(pid, 0) == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH) }
}

/// Whether the main of a page lives. Its lock tells, wherever it runs; the table of processes where there are no locks, and
/// where a child that was made past [`fork`](super::fork) holds the lock for it. That table tells starts by the clock of
/// the reader: it says nothing of a main whose `page_time_namespace` is another.
pub fn main_life(file: Option<&File>, main: ProcessId, page_time_namespace: u64) -> Life {
    let held = file.and_then(|file| lock::is_held(file, lock::MAIN));
    if held == Some(false) {
        return Life::Gone;
    }
    let by_table = if page_time_namespace == time_namespace() { main.life() } else { Life::Unknown };
    if held == Some(true) && by_table == Life::Unknown { Life::Running } else { by_table }
}

/// What the table of processes says of one.
#[derive(Debug, PartialEq)]
struct TableEntry {
    started: u64,
    /// One of its threads at least does.
    runs: bool,
}

fn table_entry(pid: u32) -> Option<TableEntry> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3 (state), 20 (threads) and 22 (start) of `/proc/<pid>/stat` (proc_pid_stat(5)); the name before them may hold
/// anything but ends at the last `)`.
fn parse_stat(line: &str) -> Option<TableEntry> {
    let mut fields = line[line.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let threads: u64 = fields.nth(16)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    // A first thread that has ended before others shows the state of a process that was killed.
    Some(TableEntry { started, runs: !matches!(state, 'Z' | 'X') || threads > 1 })
}

fn namespace() -> u64 {
    inode_of("/proc/self/ns/pid")
}

/// Inode of this process's time namespace, whose clock it reads; 0 where there is no such thing.
pub fn time_namespace() -> u64 {
    inode_of("/proc/self/ns/time")
}

fn inode_of(path: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |m| m.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_confuse_the_reader() {
        let line = |state, threads| {
            format!("42 (a) b (c)) {state} 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 98765 1000 2")
        };
        assert_eq!(parse_stat(&line('S', 1)), Some(TableEntry { started: 98765, runs: true }));
        assert_eq!(parse_stat(&line('Z', 1)), Some(TableEntry { started: 98765, runs: false }));
        assert_eq!(parse_stat(&line('Z', 3)), Some(TableEntry { started: 98765, runs: true }));
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn a_child_lives_until_it_is_killed_even_before_anyone_waits_for_it() {
        assert_eq!(ProcessId::own().life(), Life::Running);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = table_entry(child.id()).unwrap().started;
        let id = ProcessId { pid: child.id(), started, namespace: namespace() };
        assert_eq!(id.life(), Life::Running);
        assert_eq!(ProcessId { started: started + 1, ..id }.life(), Life::Gone, "the id was used again");
        assert_eq!(ProcessId { namespace: 1, ..id }.life(), Life::Unknown);
        assert_eq!(ProcessId { started: 0, ..id }.life(), Life::Unknown);
        assert_eq!(
            ProcessId { started: 1, ..ProcessId::own() }.life(),
            Life::Gone,
            "an id that is ours now was used before"
        );
        child.kill().unwrap();
        let begun = std::time::Instant::now();
        while id.life() == Life::Running && begun.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        assert_eq!(id.life(), Life::Gone);
        child.wait().unwrap();
    }
}
