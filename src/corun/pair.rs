//! A pair: the main alone and beside the side, minutes never apart, in random order; and what of it is worth keeping.
//!
//! One pair is three runs in random order: the main alone, the side alone, both together. In the last the side has been
//! running before the main starts and goes on after it ends; how much of the main's time that was truly so is computed
//! from both sides' times and kept with the sample. Before each timed run the main runs once untimed, alone or beside the
//! side as the timed run will be: both then start from the caches they have in steady state.
//!
//! The two programs are a [`Duo`], which owns their clock: [`OnHost`] times both by the host's, [`super::cuda`] by events
//! on the GPU; scripted in the tests. `suite::corun` runs these.

use super::time::{now_ns, sleep_until};
use super::worker::Slice;
use crate::Result;
use crate::stats::SplitMix;

/// Samples in which the side was at work in less than this percentage of the main's time are thrown away.
pub const LEAST_OVERLAP_PERCENT: f64 = 95.0;

/// A main and a side on one clock, which each of the three parts may start anew.
pub trait Duo {
    /// The main runs untimed, then timed, and nothing runs beside it.
    fn main_alone(&mut self) -> Result<ProgressWindow>;
    /// The side runs by itself for about `ns` nanoseconds; the window holds its progress.
    fn side_alone(&mut self, ns: u64) -> Result<ProgressWindow>;
    /// The side starts, the main runs untimed and then timed, the side is halted: the main's window, with the side's
    /// progress in it, and the times at which the side was at work.
    fn together(&mut self) -> Result<(ProgressWindow, Vec<Slice>)>;
}

/// A stretch of time, and the side's progress within it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProgressWindow {
    /// Start of the stretch in nanoseconds, on the clock of the pair.
    pub start_ns: u64,
    /// End of the stretch in nanoseconds, on the clock of the pair.
    pub end_ns: u64,
    /// What the side did in the stretch, in its own unit: training steps, operations, FLOP or bytes.
    pub progress: f64,
}

impl ProgressWindow {
    /// Length of the stretch in nanoseconds.
    pub fn ns(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns) as f64
    }

    /// The side's progress per second; 0 where the stretch has no length.
    pub fn per_s(&self) -> f64 {
        if self.ns() > 0.0 { self.progress * 1e9 / self.ns() } else { 0.0 }
    }
}

/// One sample: the main and the side, each alone and beside the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Time of the main's run alone, in nanoseconds.
    pub alone_ns: f64,
    /// Time of the main's run beside the side, in nanoseconds.
    pub together_ns: f64,
    /// The side's progress per second alone, in its own unit.
    pub side_alone_per_s: f64,
    /// The side's progress per second within the main's run beside it, in its own unit.
    pub side_together_per_s: f64,
    /// Share of the main's run beside the side in which the side was at work, in percent.
    pub overlap_percent: f64,
}

impl Pair {
    /// Whether there was somebody beside the main: the side overlapped at least [`LEAST_OVERLAP_PERCENT`] of its run
    /// and made some progress. Where the side may starve, being kept from all work is a result and counts.
    pub fn counts(&self, may_starve: bool) -> bool {
        self.overlap_percent >= LEAST_OVERLAP_PERCENT && (may_starve || self.side_together_per_s > 0.0)
    }
}

/// Share of `start_ns` to `end_ns` covered by at least one slice, in percent. Slices may overlap and come in any order.
pub fn overlap_percent(start_ns: u64, end_ns: u64, slices: &[Slice]) -> f64 {
    if end_ns <= start_ns {
        return 0.0;
    }
    let mut sorted: Vec<_> = slices.iter().map(|s| (s.start_ns.max(start_ns), s.end_ns.min(end_ns))).collect();
    sorted.sort_unstable();
    let (mut covered, mut up_to) = (0, start_ns);
    for (from, to) in sorted {
        covered += to.saturating_sub(from.max(up_to));
        up_to = up_to.max(to);
    }
    100.0 * covered as f64 / (end_ns - start_ns) as f64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    MainAlone,
    SideAlone,
    Together,
}

/// Measures one pair, its three parts in random order; the first error of a part is returned.
pub fn measure(duo: &mut dyn Duo, random: &mut SplitMix) -> Result<Pair> {
    let mut parts = [Part::MainAlone, Part::SideAlone, Part::Together];
    random.shuffle(&mut parts);
    let (mut alone, mut side_alone, mut together) =
        (ProgressWindow::default(), ProgressWindow::default(), ProgressWindow::default());
    let mut overlap = 0.0;
    for part in parts {
        match part {
            Part::MainAlone => alone = duo.main_alone()?,
            Part::SideAlone => {
                // As long as the main takes, and never so short that a few operations decide.
                let ns = (alone.ns().max(together.ns()) as u64).clamp(10_000_000, 100_000_000);
                side_alone = duo.side_alone(ns)?;
            }
            Part::Together => {
                let (window, slices) = duo.together()?;
                overlap = overlap_percent(window.start_ns, window.end_ns, &slices);
                together = window;
            }
        }
    }
    Ok(Pair {
        alone_ns: alone.ns(),
        together_ns: together.ns(),
        side_alone_per_s: side_alone.per_s(),
        side_together_per_s: together.per_s(),
        overlap_percent: overlap,
    })
}

/// What runs beside a main on the host.
pub trait HostSide {
    /// Starts the side; returns once it runs.
    fn run(&mut self) -> Result<()>;
    /// Halts the side and returns its slices since `run`.
    fn halt(&mut self) -> Result<Vec<Slice>>;
    /// The work that the side has done since it was made, in its own unit.
    fn progress(&self) -> f64;
    /// Lets `ns` nanoseconds pass while the side runs alone.
    fn linger(&mut self, ns: u64);
}

/// A main and a side on the host's cores, both timed by the host's clock.
pub struct OnHost<'a> {
    /// Does one whole run of the main.
    pub main: &'a mut dyn FnMut() -> Result<()>,
    /// The program that runs beside the main.
    pub side: &'a mut dyn HostSide,
}

impl OnHost<'_> {
    fn timed(&mut self) -> Result<ProgressWindow> {
        (self.main)()?;
        let (start_ns, before) = (now_ns(), self.side.progress());
        (self.main)()?;
        let (end_ns, after) = (now_ns(), self.side.progress());
        Ok(ProgressWindow { start_ns, end_ns, progress: after - before })
    }
}

impl Duo for OnHost<'_> {
    fn main_alone(&mut self) -> Result<ProgressWindow> {
        self.timed()
    }

    fn side_alone(&mut self, ns: u64) -> Result<ProgressWindow> {
        self.side.run()?;
        let (start_ns, before) = (now_ns(), self.side.progress());
        self.side.linger(ns);
        let window = ProgressWindow { start_ns, end_ns: now_ns(), progress: self.side.progress() - before };
        self.side.halt()?;
        Ok(window)
    }

    fn together(&mut self) -> Result<(ProgressWindow, Vec<Slice>)> {
        self.side.run()?;
        let window = self.timed()?;
        Ok((window, self.side.halt()?))
    }
}

/// A side that is always there and never at work. The main beside it is measured as in any other pair, the random order and
/// the time between the runs in which a side would be alone included: what two measurements of the same thing differ by
/// (two runs in a row would differ by less).
pub struct Nobody;

impl HostSide for Nobody {
    fn run(&mut self) -> Result<()> {
        Ok(())
    }

    fn halt(&mut self) -> Result<Vec<Slice>> {
        Ok(vec![Slice { start_ns: 0, end_ns: u64::MAX }])
    }

    fn progress(&self) -> f64 {
        0.0
    }

    fn linger(&mut self, ns: u64) {
        sleep_until(now_ns() + ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    fn slices(list: &[(u64, u64)]) -> Vec<Slice> {
        list.iter().map(|&(start_ns, end_ns)| Slice { start_ns, end_ns }).collect()
    }

    #[test]
    fn overlap_is_the_covered_share() {
        assert_eq!(overlap_percent(100, 200, &slices(&[(0, 300)])), 100.0);
        assert_eq!(overlap_percent(100, 200, &slices(&[(0, 150), (150, 175)])), 75.0);
        assert_eq!(overlap_percent(100, 200, &slices(&[(180, 300), (90, 110)])), 30.0);
        assert_eq!(overlap_percent(100, 200, &slices(&[(110, 130), (120, 140), (115, 116)])), 30.0);
        assert_eq!(overlap_percent(100, 200, &slices(&[(0, 99), (201, 300)])), 0.0);
        assert_eq!((overlap_percent(100, 200, &[]), overlap_percent(5, 5, &slices(&[(0, 9)]))), (0.0, 0.0));
    }

    /// Against counting every nanosecond.
    #[test]
    fn overlap_agrees_with_counting() {
        let mut random = SplitMix(5);
        for _ in 0..300 {
            let (start, length) = (random.below(50) as u64, 1 + random.below(100) as u64);
            let list: Vec<_> = (0..random.below(6))
                .map(|_| {
                    let from = random.below(150) as u64;
                    (from, from + random.below(40) as u64)
                })
                .collect();
            let inside = (start..start + length).filter(|t| list.iter().any(|(a, b)| a <= t && t < b)).count();
            let expected = 100.0 * inside as f64 / length as f64;
            assert!((overlap_percent(start, start + length, &slices(&list)) - expected).abs() < 1e-9);
        }
    }

    /// A side that notes what it is told and "works" one unit per main run beside it.
    struct Scripted<'a> {
        running: &'a Cell<bool>,
        log: &'a RefCell<Vec<&'static str>>,
        work: &'a Cell<f64>,
        since: u64,
        /// Ends its slice before the main is timed.
        lazy: bool,
    }

    impl HostSide for Scripted<'_> {
        fn run(&mut self) -> Result<()> {
            self.running.set(true);
            self.log.borrow_mut().push("run");
            self.since = now_ns();
            Ok(())
        }
        fn halt(&mut self) -> Result<Vec<Slice>> {
            self.running.set(false);
            self.log.borrow_mut().push("halt");
            let end_ns = if self.lazy { self.since } else { now_ns() };
            Ok(vec![Slice { start_ns: self.since, end_ns }])
        }
        fn progress(&self) -> f64 {
            self.work.get()
        }
        fn linger(&mut self, ns: u64) {
            assert!((10_000_000..=100_000_000).contains(&ns));
            self.log.borrow_mut().push("alone");
            self.work.set(self.work.get() + 7.0);
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn scripted_pairs(count: usize, lazy: bool) -> (Vec<Pair>, Vec<&'static str>) {
        let (running, log, work) = (Cell::new(false), RefCell::new(Vec::new()), Cell::new(0.0));
        let mut side = Scripted { running: &running, log: &log, work: &work, since: 0, lazy };
        let mut random = SplitMix(8);
        let mut main = || {
            log.borrow_mut().push(if running.get() { "beside" } else { "main" });
            std::thread::sleep(Duration::from_micros(if running.get() { 3000 } else { 500 }));
            if running.get() {
                work.set(work.get() + 1.0);
            }
            Ok(())
        };
        let pairs = (0..count)
            .map(|_| measure(&mut OnHost { main: &mut main, side: &mut side }, &mut random).unwrap())
            .collect();
        (pairs, log.into_inner())
    }

    #[test]
    fn a_pair_runs_every_part_once_in_changing_order_and_never_mixes_them() {
        let (pairs, log) = scripted_pairs(12, false);
        let text = log.join(" ");
        assert_eq!(text.matches("run beside beside halt").count(), 12);
        assert_eq!(text.matches("run alone halt").count(), 12);
        assert_eq!(log.iter().filter(|&&entry| entry == "main").count(), 24);
        let first: std::collections::HashSet<_> = log.chunks(9).map(|pair| pair[..2].to_vec()).collect();
        assert_eq!(first.len(), 3, "each part comes first at times");
        for pair in pairs {
            assert!(pair.counts(false) && pair.overlap_percent > 99.9);
            assert!(pair.alone_ns >= 500_000.0 && pair.together_ns >= 3_000_000.0);
            let expected = 1e9 / pair.together_ns;
            assert!((pair.side_together_per_s - expected).abs() < 1e-6 * expected, "one unit beside the timed run");
            assert!(pair.side_alone_per_s > 0.0 && pair.side_alone_per_s <= 7e9 / 50_000.0);
        }
    }

    #[test]
    fn a_side_that_was_not_there_does_not_count() {
        let (pairs, _) = scripted_pairs(3, true);
        assert!(pairs.iter().all(|p| p.overlap_percent == 0.0 && !p.counts(true)));
    }

    #[test]
    fn a_side_that_did_nothing_counts_only_where_it_may_starve() {
        let starved = Pair {
            alone_ns: 1.0,
            together_ns: 1.0,
            side_alone_per_s: 1.0,
            side_together_per_s: 0.0,
            overlap_percent: 100.0,
        };
        assert!(starved.counts(true) && !starved.counts(false));
    }

    #[test]
    fn nothing_beside_the_main_is_two_runs_of_it() {
        let (mut runs, mut random) = (Vec::new(), SplitMix(2));
        let mut idle_at = std::collections::HashSet::new();
        for _ in 0..12 {
            runs.clear();
            let begun = now_ns();
            let main = &mut || {
                runs.push(now_ns());
                Ok(())
            };
            let pair = measure(&mut OnHost { main, side: &mut Nobody }, &mut random).unwrap();
            assert!(runs.len() == 4 && pair.counts(true) && pair.overlap_percent == 100.0);
            assert_eq!((pair.side_alone_per_s, pair.side_together_per_s), (0.0, 0.0));
            // Before, between or after the two timed runs.
            let idle = [runs[0] - begun, runs[2] - runs[1], now_ns() - runs[3]];
            idle_at.insert(idle.iter().position(|&ns| ns >= 10_000_000).unwrap());
        }
        assert_eq!(idle_at.len(), 3, "the idle time comes at every place at times");
        let main = &mut || Err(crate::Error::input("a", "b"));
        assert!(measure(&mut OnHost { main, side: &mut Nobody }, &mut random).is_err());
    }
}
