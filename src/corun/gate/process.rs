//! Is the process at the other end of a gate still there?
//!
//! A process is named by its id, the time it started (ids are used again) and its id namespace (in another container the
//! same number is another process; there no answer is given). Killed processes that nobody has waited for count as gone.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// The process lives in another id namespace: this one's table of processes says nothing of it.
    Unknown,
}

impl ProcessId {
    /// The id of the calling process.
    pub fn own() -> Self {
        let pid = std::process::id();
        ProcessId { pid, started: start_and_state(pid).map_or(0, |(started, _)| started), namespace: namespace() }
    }

    /// Looks whether the process is still there.
    pub fn life(&self) -> Life {
        if self.namespace != namespace() {
            return Life::Unknown;
        }
        if self.pid == std::process::id() {
            return Life::Running;
        }
        self.life_by_table()
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
        match start_and_state(self.pid) {
            Some((started, state)) if started == self.started && !matches!(state, 'Z' | 'X') => Life::Running,
            _ => Life::Gone,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn life_by_table(&self) -> Life {
        let Ok(pid) = libc::pid_t::try_from(self.pid) else { return Life::Gone };
        // SAFETY: signal 0 only asks whether the process exists.
        let there =
            unsafe { libc::kill(pid, 0) } == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH);
        if there { Life::Running } else { Life::Gone }
    }
}

/// Field 22 and field 3 of `/proc/<pid>/stat` (proc_pid_stat(5)); the name before them may hold anything but ends at the last `)`.
fn start_and_state(pid: u32) -> Option<(u64, char)> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &str) -> Option<(u64, char)> {
    let mut fields = line[line.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
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

static FORKS: AtomicU64 = AtomicU64::new(0);

/// How many forks lie between the first call and this process: an end that was made under another number belongs to a
/// parent, and its copy here must touch nothing.
pub fn forks() -> u64 {
    static WATCH: Once = Once::new();
    extern "C" fn forked() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    WATCH.call_once(|| {
        // SAFETY: the handler adds to an atomic, which is allowed in a child of a program with threads.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
    FORKS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_confuse_the_reader() {
        let line = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2";
        assert_eq!(parse_stat(line), Some((98765, 'S')));
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn a_child_lives_until_it_is_killed_even_before_anyone_waits_for_it() {
        assert_eq!(ProcessId::own().life(), Life::Running);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (started, _) = start_and_state(child.id()).unwrap();
        let id = ProcessId { pid: child.id(), started, namespace: namespace() };
        assert_eq!(id.life(), Life::Running);
        assert_eq!(ProcessId { started: started + 1, ..id }.life(), Life::Gone, "the id was used again");
        assert_eq!(ProcessId { namespace: 1, ..id }.life(), Life::Unknown);
        child.kill().unwrap();
        let begun = std::time::Instant::now();
        while id.life() == Life::Running && begun.elapsed().as_secs() < 5 {
            std::thread::yield_now();
        }
        assert_eq!(id.life(), Life::Gone);
        child.wait().unwrap();
    }
}
