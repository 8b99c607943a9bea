//! Where a thread may run and how much it yields: core affinity and niceness, per thread.
//!
//! `ops::host` pins its workers with this, `corun` makes its sharing modes of it (core split, niceness), and
//! `collectives` pins its ranks. Linux only: elsewhere every call is an error that says so, and nothing is silently left
//! out.

use crate::{Error, Result};

/// Lets the calling thread run on `cores` only (numbers as in `/proc/cpuinfo`).
pub fn pin_current_thread(cores: &[usize]) -> Result<()> {
    if cores.is_empty() {
        return Err(Error::input("the set of cores is empty", "give at least one core"));
    }
    linux::pin(cores)
}

/// Sets the calling thread's niceness, −20 (greedy) to 19 (yields). Going down needs privileges.
pub fn set_current_nice(nice: i32) -> Result<()> {
    if !(-20..=19).contains(&nice) {
        return Err(Error::input(format!("niceness {nice} does not exist"), "give −20 to 19"));
    }
    linux::set_nice(nice)
}

/// The cores this process may use, ascending; where the system does not say, as many as it reports threads.
pub fn available_cores() -> Vec<usize> {
    linux::cores().unwrap_or_else(|| {
        let count = std::thread::available_parallelism().map_or(1, |n| n.get());
        (0..count).collect()
    })
}

/// The cores this process may use but the one the calling thread is on: where a thread goes that is not to disturb it.
/// Empty on a single core, and where the system does not say.
pub fn other_cores() -> Vec<usize> {
    match current_core() {
        Some(own) => available_cores().into_iter().filter(|&core| core != own).collect(),
        None => Vec::new(),
    }
}

/// The core the calling thread is on at this moment, where the system tells.
pub fn current_core() -> Option<usize> {
    linux::current()
}

#[cfg(target_os = "linux")]
mod linux {
    use crate::{Error, Result};

    const BITS: usize = u64::BITS as usize;
    /// Linux knows at most 8192 cores (`CONFIG_NR_CPUS`); libc's own set ends at 1024.
    const MOST: usize = 8192;
    type Mask = [u64; MOST / BITS];

    pub fn pin(cores: &[usize]) -> Result<()> {
        let mut mask: Mask = [0; MOST / BITS];
        for &core in cores {
            let word = mask.get_mut(core / BITS).ok_or_else(|| no_such_core(cores))?;
            *word |= 1 << (core % BITS);
        }
        // SAFETY: the pointer and the size describe `mask`, which outlives the call; 0 is the calling thread.
        let code = unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), mask.as_ptr().cast()) };
        if code == 0 { Ok(()) } else { Err(no_such_core(cores)) }
    }

    fn no_such_core(cores: &[usize]) -> Error {
        let allowed = super::available_cores();
        Error::machine(
            format!("cannot run on cores {cores:?}"),
            format!("this process may use cores {allowed:?}: choose among them"),
        )
    }

    pub fn set_nice(nice: i32) -> Result<()> {
        // SAFETY: gettid has no preconditions. By its number: glibc before 2.30 has no function of that name.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) };
        // SAFETY: plain numbers; on Linux PRIO_PROCESS with a thread id means that thread alone.
        let code = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread as libc::id_t, nice) };
        if code == 0 {
            return Ok(());
        }
        let cause = std::io::Error::last_os_error();
        Err(Error::machine(
            format!("cannot set niceness {nice}: {cause}"),
            "lowering it needs CAP_SYS_NICE (or `ulimit -e`): run with it, or ask for a niceness of 0 or more",
        ))
    }

    pub fn current() -> Option<usize> {
        // SAFETY: takes nothing, answers −1 where it cannot.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    pub fn cores() -> Option<Vec<usize>> {
        let mut mask: Mask = [0; MOST / BITS];
        // SAFETY: the pointer and the size describe `mask`, which the kernel fills at most to its end.
        let code = unsafe { libc::sched_getaffinity(0, size_of::<Mask>(), mask.as_mut_ptr().cast()) };
        let cores: Vec<usize> = (0..MOST).filter(|core| mask[core / BITS] >> (core % BITS) & 1 == 1).collect();
        (code == 0 && !cores.is_empty()).then_some(cores)
    }
}

#[cfg(not(target_os = "linux"))]
mod linux {
    use crate::{Error, Result};

    pub fn pin(_cores: &[usize]) -> Result<()> {
        Err(Error::machine("threads cannot be pinned to cores on this system", "run it on Linux, or leave cores unset"))
    }

    pub fn set_nice(_nice: i32) -> Result<()> {
        Err(Error::machine("a thread has no niceness of its own on this system", "run it on Linux, or leave it unset"))
    }

    pub fn current() -> Option<usize> {
        None
    }

    pub fn cores() -> Option<Vec<usize>> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// On a thread of its own, so that the test runner's threads keep their cores.
    fn aside<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
        std::thread::spawn(f).join().unwrap()
    }

    #[test]
    fn a_pinned_thread_sees_its_cores_only() {
        let all = available_cores();
        assert!(!all.is_empty());
        for core in all.clone() {
            assert_eq!(aside(move || pin_current_thread(&[core]).map(|()| available_cores())).unwrap(), vec![core]);
        }
        assert_eq!(available_cores(), all, "the other threads are left alone");
    }

    #[test]
    fn a_thread_is_on_a_core_it_may_use() {
        let all = available_cores();
        let first = all[0];
        let core = aside(move || pin_current_thread(&[first]).map(|()| current_core()));
        assert_eq!(core.unwrap(), Some(first));
    }

    #[test]
    fn cores_that_do_not_exist_are_refused_with_those_that_do() {
        for cores in [vec![], vec![8191], vec![usize::MAX]] {
            let error = aside(move || pin_current_thread(&cores)).unwrap_err().to_string();
            assert!(error.contains("core") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn niceness_is_of_one_thread() {
        // SAFETY: plain numbers, 0 is the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, libc::syscall(libc::SYS_gettid) as libc::id_t) };
        let before = nice();
        let target = (before + 3).min(19);
        assert_eq!(aside(move || set_current_nice(target).map(|()| nice())).unwrap(), target);
        assert_eq!(nice(), before);
        assert!(set_current_nice(20).is_err() && set_current_nice(-21).is_err());
    }
}
