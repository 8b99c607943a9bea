//! Iterations from the ranges that a framework wrote into the profile: NVTX, or PyTorch's ProfilerStep.
//!
//! An iteration reaches from its range's start to the next one's, so that what still runs when the host has gone on is
//! counted. Cuts are by when kernels run. Where the host is far ahead of the device, a range's start says nothing about
//! that: there an iteration begins when the first kernel launched in it runs.

/// Part of a device's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    pub const fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// A range that may be an iteration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub start_ns: u64,
    pub end_ns: u64,
    /// The process that wrote it.
    pub process: u64,
    /// Its name without numbers.
    pub base: String,
}

/// Words in the names of iterations, the surest first.
const WORDS: &[&str] = &["profilerstep", "iteration", "trainstep", "trainingstep", "globalstep", "step", "iter"];

/// Parts of an iteration that have one of those words in their names too.
const PARTS: &[&str] = &[
    "optim", "micro", "forward", "backward", "grad", "schedul", "iterator", "eval", "valid", "stepper", "loss", "adam",
    "sgd", "stage",
];

/// A range's name without what numbers it, if it may name an iteration: `iteration 12` → `iteration`.
pub fn base(name: &str) -> Option<String> {
    if name.len() > 200 {
        return None;
    }
    let plain: String = name.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect();
    (rank(&plain).is_some() && !PARTS.iter().any(|part| plain.contains(part))).then_some(plain)
}

fn rank(base: &str) -> Option<usize> {
    WORDS.iter().position(|word| base.contains(word))
}

/// The iterations of one process; none if no kind of range stands for them.
pub fn choose(ranges: &[Range], process: u64) -> Vec<Window> {
    let mut bases: Vec<&str> = ranges.iter().filter(|r| r.process == process).map(|r| r.base.as_str()).collect();
    bases.sort_unstable();
    bases.dedup();
    bases.sort_by_key(|b| (rank(b), b.len()));
    bases.into_iter().map(|b| of_base(ranges, process, b)).find(|w| !w.is_empty()).unwrap_or_default()
}

fn of_base(ranges: &[Range], process: u64, base: &str) -> Vec<Window> {
    let mut windows: Vec<Window> = ranges
        .iter()
        .filter(|r| r.process == process && r.base == base && r.end_ns > r.start_ns)
        .map(|r| Window { start_ns: r.start_ns, end_ns: r.end_ns })
        .collect();
    windows.sort_by_key(|w| (w.start_ns, w.end_ns));
    windows.dedup();
    // Ranges within one another are no iterations; a few nanoseconds of overlap are a matter of rounding.
    if windows.windows(2).any(|w| w[1].start_ns + w[0].length_ns() / 100 < w[0].end_ns) {
        return Vec::new();
    }
    for i in 1..windows.len() {
        let (before, next) = (windows[i - 1], windows[i].start_ns);
        // A longer pause between ranges is something else: an evaluation, a checkpoint.
        if next < before.end_ns + before.length_ns() / 2 {
            windows[i - 1].end_ns = next;
        }
    }
    windows.retain(|w| w.end_ns > w.start_ns);
    windows
}

/// Moves the cuts to where kernels run, if the host is far ahead: `run[i]` is when the first kernel launched at or after
/// the start of window i runs, and `end` when the last kernel ends. A quarter of an iteration is far.
pub fn follow_device(windows: &[Window], run: &[Option<u64>], end: u64) -> Vec<Window> {
    let mut ahead: Vec<u64> =
        windows.iter().zip(run).filter_map(|(w, r)| Some((*r)?.saturating_sub(w.start_ns))).collect();
    let mut apart: Vec<u64> = run.windows(2).filter_map(|r| r[1]?.checked_sub(r[0]?)).collect();
    ahead.sort_unstable();
    apart.sort_unstable();
    let (Some(&typical), Some(&period)) = (ahead.get(ahead.len() / 2), apart.get(apart.len() / 2)) else {
        return windows.to_vec();
    };
    let in_order = run.iter().flatten().is_sorted_by(|a, b| a < b);
    if ahead.len() < windows.len() || !in_order || typical <= period / 4 {
        return windows.to_vec();
    }
    let starts: Vec<u64> = run.iter().flatten().copied().collect();
    let mut moved: Vec<Window> = Vec::with_capacity(windows.len());
    for (i, window) in windows.iter().enumerate() {
        let next = starts.get(i + 1).copied().unwrap_or_else(|| end.max(window.end_ns));
        if next > starts[i] {
            moved.push(Window { start_ns: starts[i], end_ns: next });
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str, start_ns: u64, end_ns: u64) -> Range {
        Range { start_ns, end_ns, process: 1, base: base(name).unwrap() }
    }

    fn window(start_ns: u64, end_ns: u64) -> Window {
        Window { start_ns, end_ns }
    }

    #[test]
    fn names_of_iterations_are_known_and_those_of_their_parts_are_not() {
        for name in ["iteration 12", "ProfilerStep#3", "train_step", "Iteration: 7", "step=5", "iter0"] {
            assert!(base(name).is_some(), "{name}");
        }
        for name in ["Optimizer.step#AdamW.step", "optimizer_step", "micro-batch step 3", "forward", "DataLoader"] {
            assert!(base(name).is_none(), "{name}");
        }
        assert_eq!(base("iteration 1"), base("iteration 22"));
    }

    #[test]
    fn an_iteration_reaches_to_the_next_one_but_not_over_a_pause() {
        let ranges = [
            range("step 0", 0, 95),
            range("step 1", 100, 195),
            range("step 2", 400, 500),
            range("iteration 0", 0, 195),
            range("iteration 1", 200, 500),
        ];
        assert_eq!(choose(&ranges, 1), [window(0, 200), window(200, 500)]);
        assert_eq!(choose(&ranges[..3], 1), [window(0, 100), window(100, 195), window(400, 500)]);
        assert!(choose(&ranges, 2).is_empty());
        let nested = [range("step a", 0, 100), range("step a", 10, 20)];
        assert!(choose(&nested, 1).is_empty());
    }

    #[test]
    fn cuts_follow_the_device_only_where_the_host_is_far_ahead() {
        let close = [window(0, 100), window(100, 200)];
        assert_eq!(follow_device(&close, &[Some(3), Some(104)], 210), close);
        assert_eq!(follow_device(&close, &[Some(3), None], 210), close);
        let host = [window(0, 10), window(10, 20), window(20, 30)];
        let moved = follow_device(&host, &[Some(1), Some(101), Some(201)], 300);
        assert_eq!(moved, [window(1, 101), window(101, 201), window(201, 300)]);
    }
}
