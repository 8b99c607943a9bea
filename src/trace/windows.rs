//! Iterations from the ranges that a framework wrote into the profile: NVTX, or PyTorch's ProfilerStep.
//!
//! An iteration reaches from its range's start to the next one's, so that what still runs when the host has gone on is
//! counted. Cuts are by when kernels run. Where the host is far ahead of the device, a range's start says nothing about
//! that: there an iteration begins when the first kernel launched in it runs.

/// When a kernel was launched, and when it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// Start of the call that launched it, in ns on the profile's clock.
    pub launch_ns: u64,
    /// Start of the kernel on the device, in ns on the profile's clock.
    pub run_ns: u64,
}

/// One iteration as an interval of a device's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When it begins, in ns on the profile's clock.
    pub start_ns: u64,
    /// When it ends, in ns on the profile's clock, or [`TO_THE_LAST`].
    pub end_ns: u64,
}

impl Window {
    /// How long it lasts, in ns.
    pub const fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// A range of NVTX or PyTorch's profiler that may be an iteration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IterationRange {
    /// When the range begins, in ns on the profile's clock.
    pub start_ns: u64,
    /// When the range ends, in ns on the profile's clock.
    pub end_ns: u64,
    /// The process that wrote the range; 0 for all of a Kineto trace.
    pub process: u64,
    /// The range's name without what numbers it, as [`base`] makes it.
    pub base: String,
}

/// Words in the names of iterations, the surest first.
const WORDS: &[&str] = &["profilerstep", "iteration", "trainstep", "trainingstep", "globalstep", "step", "iter"];

/// Parts of an iteration that have one of those words in their names too.
const PARTS: &[&str] = &[
    "optim",
    "micro",
    "forward",
    "backward",
    "grad",
    "schedul",
    "iterator",
    "eval",
    "valid",
    "stepper",
    "loss",
    "adam",
    "sgd",
    "stage",
    "dataloader",
    "enumerate",
    "criteri",
    "writer",
    "timestep",
];

/// A range's name, lower-case letters only, without what numbers it: `iteration 12` → `iteration`. `None` where it
/// cannot name an iteration.
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

/// The iterations of one process in order; empty if no kind of range stands for them.
pub fn choose(ranges: &[IterationRange], process: u64) -> Vec<Window> {
    let mut bases: Vec<&str> = ranges.iter().filter(|r| r.process == process).map(|r| r.base.as_str()).collect();
    bases.sort_unstable();
    bases.dedup();
    bases.sort_by_key(|b| (rank(b), b.len()));
    bases.into_iter().map(|b| of_base(ranges, process, b)).find(|w| !w.is_empty()).unwrap_or_default()
}

fn of_base(ranges: &[IterationRange], process: u64, base: &str) -> Vec<Window> {
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
    // A longer pause between ranges is something else: an evaluation, a checkpoint.
    let touch = |before: Window, next: Window| next.start_ns < before.end_ns + before.length_ns() / 2;
    let touching = windows.windows(2).filter(|w| touch(w[0], w[1])).count();
    // Ranges that mostly stand alone are parts of iterations, whatever they are called.
    if 2 * touching + 1 < windows.len() && !base.contains(WORDS[0]) {
        return Vec::new();
    }
    for i in 1..windows.len() {
        if touch(windows[i - 1], windows[i]) {
            windows[i - 1].end_ns = windows[i].start_ns;
        }
    }
    windows.retain(|w| w.end_ns > w.start_ns);
    windows
}

/// The end of a window that reaches to the device's last compute kernel.
pub const TO_THE_LAST: u64 = i64::MAX as u64;

/// Moves the cuts to where kernels run if the host is far ahead, a quarter of an iteration or more: `first[i]` is the
/// first kernel launched in window i. Windows at either end whose kernels the profile lacks fall away.
pub fn follow_device(windows: &[Window], first: &[Option<Launched>]) -> Vec<Window> {
    let known: Vec<Launched> = first.iter().copied().flatten().collect();
    let (from, last) = (first.iter().position(Option::is_some), first.iter().rposition(Option::is_some));
    let (Some(from), Some(last)) = (from, last) else { return windows.to_vec() };
    let mut behind: Vec<u64> = known.iter().map(|l| l.run_ns.saturating_sub(l.launch_ns)).collect();
    let mut apart: Vec<u64> = known.windows(2).map(|l| l[1].run_ns.saturating_sub(l[0].run_ns)).collect();
    behind.sort_unstable();
    apart.sort_unstable();
    let (Some(&typical), Some(&period)) = (behind.get(behind.len() / 2), apart.get(apart.len() / 2)) else {
        return windows.to_vec();
    };
    let in_order = known.is_sorted_by(|a, b| a.run_ns < b.run_ns);
    if known.len() < last + 1 - from || !in_order || typical <= period / 4 {
        return windows.to_vec();
    }
    let ends = known.iter().skip(1).map(|l| l.run_ns).chain([TO_THE_LAST]);
    known.iter().zip(ends).map(|(l, end_ns)| Window { start_ns: l.run_ns, end_ns }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str, start_ns: u64, end_ns: u64) -> IterationRange {
        IterationRange { start_ns, end_ns, process: 1, base: base(name).unwrap() }
    }

    fn window(start_ns: u64, end_ns: u64) -> Window {
        Window { start_ns, end_ns }
    }

    #[test]
    fn names_of_iterations_are_known_and_those_of_their_parts_are_not() {
        for name in ["iteration 12", "ProfilerStep#3", "train_step", "Iteration: 7", "step=5", "iter0"] {
            assert!(base(name).is_some(), "{name}");
        }
        for name in [
            "Optimizer.step#AdamW.step",
            "optimizer_step",
            "micro-batch step 3",
            "forward",
            "DataLoader",
            "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__",
            "criterion",
            "writer",
            "timestep embedding",
        ] {
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
    fn ranges_that_stand_alone_are_parts_of_iterations() {
        let of = |name: &str| -> Vec<IterationRange> { (0..4).map(|i| range(name, 100 * i, 100 * i + 20)).collect() };
        assert!(choose(&of("training_step"), 1).is_empty());
        assert!(choose(&of("DeepSpeedEngine.step")[..2], 1).is_empty());
        assert_eq!(choose(&of("ProfilerStep#1"), 1).len(), 4);
        let mut both = of("training_step");
        both.extend((0..4).map(|i| range("outer iter", 100 * i, 100 * i + 99)));
        assert_eq!(choose(&both, 1)[..2], [window(0, 100), window(100, 200)]);
    }

    #[test]
    fn cuts_follow_the_device_only_where_the_host_is_far_ahead() {
        let first = |list: &[(u64, u64)]| -> Vec<Option<Launched>> {
            list.iter().map(|&(launch_ns, run_ns)| Some(Launched { launch_ns, run_ns })).collect()
        };
        let close = [window(0, 100), window(100, 200)];
        assert_eq!(follow_device(&close, &first(&[(1, 3), (101, 104)])), close);
        assert_eq!(follow_device(&close, &first(&[(60, 62), (160, 162)])), close, "late in the range, but in time");
        assert_eq!(follow_device(&close, &[first(&[(0, 90)])[0], None]), close);
        let host = [window(0, 10), window(10, 20), window(20, 30)];
        let moved = follow_device(&host, &first(&[(0, 1), (11, 101), (21, 201)]));
        assert_eq!(moved, [window(1, 101), window(101, 201), window(201, TO_THE_LAST)]);
        let five = [window(0, 10), window(10, 20), window(20, 30), window(30, 40), window(40, 50)];
        let mut lacking = vec![None];
        lacking.extend(first(&[(11, 101), (21, 201), (31, 301)]));
        lacking.push(None);
        assert_eq!(follow_device(&five, &lacking), [window(101, 201), window(201, 301), window(301, TO_THE_LAST)]);
        lacking[2] = None;
        assert_eq!(follow_device(&five, &lacking), five, "one in the middle is unknown");
    }
}
