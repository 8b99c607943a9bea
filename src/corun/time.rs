//! The clock two processes agree on, and ways to wait that leave the cores to the other program.
//!
//! The gate's page holds times of `CLOCK_MONOTONIC`, which every process of a machine reads the same (processes in
//! different Linux time namespaces do not; the gate is not meant for those). [`gate`](super::gate) and
//! [`replay`](super::replay) wait with this.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// A sleep may end this much late; the last stretch before an instant that matters is spun through.
pub const SPIN_NS: u64 = 60_000;

/// Nanoseconds of the machine's monotonic clock; never 0.
pub fn now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds that the calling thread has run on a core: what another thread took of its cores is not among them.
pub fn thread_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// How often the calling thread has lost its core to another one (involuntary context switches); 0 on systems that do not
/// count them by thread.
pub fn thread_preemptions() -> u64 {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: `rusage` is plain numbers, for which all zeroes are valid; the call fills it for the calling thread, which
        // always exists.
        let usage = unsafe {
            let mut usage = std::mem::zeroed::<libc::rusage>();
            libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
            usage
        };
        usage.ru_nivcsw as u64
    }
    #[cfg(not(target_os = "linux"))]
    0
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the call to fill; both clocks always exist.
    unsafe { libc::clock_gettime(clock, &mut now) };
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

/// Asks the system to wake this thread close to the time it named (Linux rounds by 50 µs otherwise).
pub fn fine_timers() {
    #[cfg(target_os = "linux")]
    // SAFETY: PR_SET_TIMERSLACK takes one number and touches no memory of ours.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong, 0, 0, 0);
    }
}

/// Sleeps to within a few tens of microseconds before `deadline_ns`, then spins. Leaves the cores free meanwhile.
pub fn wait_until(deadline_ns: u64) {
    sleep_until(deadline_ns.saturating_sub(SPIN_NS));
    while now_ns() < deadline_ns {
        std::hint::spin_loop();
    }
}

/// Sleeps until `deadline_ns`, give or take what the system's timers allow.
pub fn sleep_until(deadline_ns: u64) {
    let now = now_ns();
    if now < deadline_ns {
        std::thread::sleep(Duration::from_nanos(deadline_ns - now));
    }
}

/// Sleeps while `word` holds `expected`, at most `timeout_ns`. May return early.
#[cfg(target_os = "linux")]
pub fn wait_on(word: &AtomicU32, expected: u32, timeout_ns: u64) {
    let timeout = libc::timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: FUTEX_WAIT reads the aligned 32-bit word, which lives as long as the borrow, and the timeout; no FUTEX_PRIVATE,
    // because the word may be shared between processes.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &timeout);
    }
}

/// Wakes everyone who waits on `word`.
#[cfg(target_os = "linux")]
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE uses the word's address only; the word lives as long as the borrow.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}

/// Sleeps while `word` holds `expected`, at most `timeout_ns`: it looks every 50 µs, where there is no futex call.
#[cfg(not(target_os = "linux"))]
pub fn wait_on(word: &AtomicU32, expected: u32, timeout_ns: u64) {
    let begun = now_ns();
    while word.load(std::sync::atomic::Ordering::Acquire) == expected && now_ns() - begun < timeout_ns {
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Does nothing where there is no futex call: [`wait_on`] looks by itself.
#[cfg(not(target_os = "linux"))]
pub fn wake_all(_word: &AtomicU32) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn the_clock_goes_forward_and_waits_are_never_short() {
        for ns in [0, 10_000, 300_000, 2_000_000] {
            let start = now_ns();
            wait_until(start + ns);
            assert!(now_ns() >= start + ns);
        }
    }

    #[test]
    fn a_thread_that_sleeps_runs_on_no_core() {
        let (wall, ran) = (now_ns(), thread_ns());
        std::thread::sleep(Duration::from_millis(30));
        let (wall, ran) = (now_ns() - wall, thread_ns() - ran);
        assert!(wall >= 30_000_000 && ran < 15_000_000, "{ran} of {wall} ns");
        let (start, mut spins) = (thread_ns(), 0u64);
        while thread_ns() < start + 1_000_000 {
            spins += 1;
        }
        assert!(spins > 0);
    }

    #[test]
    fn a_waiter_is_woken_or_times_out() {
        let word = AtomicU32::new(1);
        wait_on(&word, 0, u64::from(u32::MAX)); // the value differs: returns at once
        wait_on(&word, 1, 1_000_000);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while word.load(Ordering::Acquire) == 1 {
                    wait_on(&word, 1, 60_000_000_000);
                }
            });
            std::thread::sleep(Duration::from_millis(5));
            word.store(2, Ordering::Release);
            wake_all(&word);
        });
    }
}
