//! A core for each rank, where there are enough.
//!
//! A thread that another one wakes often starts on that one's core, and two ranks that wait for each other by turns look
//! so light that the scheduler may leave them there: an 8 B all-reduce then takes 62 µs instead of 0.15 µs, and which of
//! the two it is changes from run to run. So ranks are pinned. On systems without this call they are not.

/// The caller's thread on one core, until dropped: then it may run where it could before.
pub(super) struct Pinned(#[allow(dead_code, reason = "restored on drop where the system can pin")] Option<CpuSet>);

/// One core for each of `ranks` ranks out of those this thread may use; `None` if there are too few.
pub(super) fn cores(ranks: usize) -> Option<Vec<usize>> {
    let allowed = allowed()?;
    let mut chosen: Vec<usize> = Vec::new();
    let mut taken: Vec<usize> = Vec::new();
    // Hardware threads of one core share its caches and units: whole cores first.
    for cpu in allowed.iter().copied() {
        if !taken.contains(&cpu) {
            chosen.push(cpu);
            taken.extend(siblings(cpu));
        }
    }
    chosen.extend(allowed.iter().copied().filter(|cpu| !chosen.contains(cpu)).collect::<Vec<_>>());
    chosen.truncate(ranks);
    (chosen.len() == ranks).then_some(chosen)
}

/// The hardware threads of a CPU's core, itself among them, as Linux lists them: `0,64` or `0-1`.
fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    std::fs::read_to_string(path).map_or_else(|_| vec![cpu], |text| parse_list(&text))
}

fn parse_list(text: &str) -> Vec<usize> {
    let range = |item: &str| {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        Some(low.parse::<usize>().ok()?..=high.parse::<usize>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(target_os = "linux")]
pub(super) use linux::pin;
#[cfg(target_os = "linux")]
use linux::{CpuSet, allowed};

#[cfg(target_os = "linux")]
mod linux {
    use super::Pinned;

    pub(super) type CpuSet = libc::cpu_set_t;

    fn current() -> Option<CpuSet> {
        // SAFETY: all zero bits are a valid, empty set; the kernel writes at most the size given, into this set.
        unsafe {
            let mut set: CpuSet = std::mem::zeroed();
            (libc::sched_getaffinity(0, size_of::<CpuSet>(), &mut set) == 0).then_some(set)
        }
    }

    fn set(set: &CpuSet) -> bool {
        // SAFETY: reads a set of the size given; thread 0 means the calling one.
        unsafe { libc::sched_setaffinity(0, size_of::<CpuSet>(), set) == 0 }
    }

    pub(super) fn allowed() -> Option<Vec<usize>> {
        let set = current()?;
        // SAFETY: every index is below the set's size.
        Some((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
    }

    /// Where it fails (a core taken away meanwhile), the thread simply runs where it could before.
    pub(in super::super) fn pin(cpu: usize) -> Pinned {
        let before = current();
        if cpu < libc::CPU_SETSIZE as usize {
            // SAFETY: a zeroed set is empty; the index is below the set's size.
            let one = unsafe {
                let mut one: CpuSet = std::mem::zeroed();
                libc::CPU_SET(cpu, &mut one);
                one
            };
            set(&one);
        }
        Pinned(before)
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            if let Some(before) = &self.0 {
                set(before);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
type CpuSet = ();

#[cfg(not(target_os = "linux"))]
fn allowed() -> Option<Vec<usize>> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_cpu: usize) -> Pinned {
    Pinned(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(parse_list("0,64\n"), [0, 64]);
        assert_eq!(parse_list("2-3\n"), [2, 3]);
        assert!(parse_list("").is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_is_on_its_core_and_gets_its_freedom_back() {
        std::thread::spawn(|| {
            let before = allowed().unwrap();
            let chosen = cores(1).unwrap()[0];
            let pinned = pin(chosen);
            assert_eq!(allowed().unwrap(), [chosen]);
            drop(pinned);
            assert_eq!(allowed().unwrap(), before);
            assert!(cores(before.len() + 1).is_none());
        })
        .join()
        .unwrap();
    }
}
