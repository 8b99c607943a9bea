//! A core for each rank, where there are enough.
//!
//! A thread that another one wakes often starts on that one's core, and two ranks that wait for each other by turns
//! look so light that the scheduler may leave them there: an 8 B all-reduce then takes 62 µs instead of 0.15 µs, and
//! which of the two it is changes from run to run. So ranks are pinned. On systems without this call they are not.

use crate::machine::threads;

/// The caller's thread on one core, until dropped: then it may run where it could before.
pub(super) struct Pinned(Vec<usize>);

/// One core for each of `ranks` ranks out of those this thread may use; `None` if there are too few.
pub(super) fn cores(ranks: usize) -> Option<Vec<usize>> {
    let allowed = threads::available_cores();
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

/// Where it fails (no such call on this system, a core taken away meanwhile), the thread runs where it could before.
pub(super) fn pin(cpu: usize) -> Pinned {
    let before = threads::available_cores();
    // A rank that is not pinned is slower, not wrong.
    let _ = threads::pin_current_thread(&[cpu]);
    Pinned(before)
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = threads::pin_current_thread(&self.0);
    }
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
            let before = threads::available_cores();
            let chosen = cores(1).unwrap()[0];
            let pinned = pin(chosen);
            assert_eq!(threads::available_cores(), [chosen]);
            drop(pinned);
            assert_eq!(threads::available_cores(), before);
            assert!(cores(before.len() + 1).is_none());
        })
        .join()
        .unwrap();
    }
}
