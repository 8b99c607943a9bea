//! A small model's step as a list of operation times, measured alone: turns a count of finished operations into work.
//!
//! The gate's page counts operations; they are not alike, so a count alone says little. A training step runs the same
//! operations in the same order every time, so the count says exactly where in a step the model stands.

use crate::stats;

/// The need of an operation, or of a step, is this quantile of its times: of ten starts about one takes longer.
const NEED_QUANTILE: f64 = 0.9;
/// But at most so many times its median: beside a busy main more than one of ten may have lost its core on the way, and no
/// opening would ever be long enough for that.
const MOST_MEDIANS: f64 = 4.0;

/// Time alone of each operation of a small model's training step, by which a count of finished operations becomes work.
#[derive(Debug, Clone, PartialEq)]
pub struct StepProfile {
    /// Operations finished when the first whole step began.
    base: u64,
    /// Time alone of the step's operations, nanoseconds, in order.
    times_ns: Vec<f64>,
    /// `sums[k]`: the first k of them together.
    sums_ns: Vec<f64>,
    /// What each of them needs of an opening.
    needs_ns: Vec<u64>,
    /// What a whole step needs of an opening.
    step_need_ns: u64,
}

impl StepProfile {
    /// Takes the median and the need of each operation from the times (nanoseconds) of `steps` whole steps in a row, before which
    /// `base` operations were finished. `None` where the times are no whole number of steps.
    pub fn from_steps(base: u64, times_ns: &[f64], steps: usize) -> Option<Self> {
        let length = times_ns.len().checked_div(steps)?;
        if length == 0 || length * steps != times_ns.len() {
            return None;
        }
        let of = |k: usize| {
            let column: Vec<f64> = times_ns.iter().skip(k).step_by(length).copied().collect();
            (stats::median(&column).unwrap_or(0.0), need_of(&column))
        };
        // Of ten steps one takes longer; than its operations' needs together hardly any does.
        let steps_ns: Vec<f64> = times_ns.chunks(length).map(|step| step.iter().sum()).collect();
        let step_need_ns = need_of(&steps_ns);
        let (times_ns, needs_ns): (Vec<f64>, Vec<u64>) = (0..length).map(of).unzip();
        let mut sums_ns = vec![0.0];
        times_ns.iter().for_each(|t| sums_ns.push(sums_ns[sums_ns.len() - 1] + t));
        Some(StepProfile { base, times_ns, sums_ns, needs_ns, step_need_ns })
    }

    /// Time of one whole step alone, in nanoseconds.
    pub fn step_ns(&self) -> f64 {
        self.sums_ns[self.times_ns.len()]
    }

    /// Number of operations in one step.
    pub fn operations(&self) -> usize {
        self.times_ns.len()
    }

    /// Time alone of the step's longest operation, in nanoseconds.
    pub fn longest_ns(&self) -> f64 {
        self.times_ns.iter().copied().fold(0.0, f64::max)
    }

    /// What each operation of the step needs of an opening, in nanoseconds and in order: a high quantile of its times.
    pub fn needs_ns(&self) -> &[u64] {
        &self.needs_ns
    }

    /// What a whole step needs of an opening, in nanoseconds: a high quantile of its times.
    pub fn step_need_ns(&self) -> u64 {
        self.step_need_ns
    }

    /// Time alone, in nanoseconds, of all that is done since the first profiled step once `count` operations are
    /// finished.
    pub fn work_ns(&self, count: u64) -> f64 {
        let done = count.saturating_sub(self.base);
        let length = self.times_ns.len() as u64;
        (done / length) as f64 * self.step_ns() + self.sums_ns[(done % length) as usize]
    }

    /// The count of operations at which the step ends that is under way once `count` operations are finished; `count` itself
    /// where none is.
    pub fn step_end(&self, count: u64) -> u64 {
        let length = self.times_ns.len() as u64;
        self.base + count.saturating_sub(self.base).div_ceil(length) * length
    }

    /// Training steps done since the first profiled step once `count` operations are finished; a step begun counts by
    /// its share of the step's time. 0 where a step takes no time.
    pub fn steps(&self, count: u64) -> f64 {
        if self.step_ns() > 0.0 { self.work_ns(count) / self.step_ns() } else { 0.0 }
    }
}

/// What something that took these times (nanoseconds) needs of an opening.
fn need_of(times_ns: &[f64]) -> u64 {
    let quantile = |q| stats::quantile(times_ns, q).unwrap_or(0.0);
    quantile(NEED_QUANTILE).min(MOST_MEDIANS * quantile(0.5)).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn work_is_the_sum_of_the_operations_done() {
        let mut random = SplitMix(2);
        let one: Vec<f64> = (0..7).map(|_| 10.0 * random.unit()).collect();
        let times: Vec<f64> = (0..5).flat_map(|_| one.clone()).collect();
        let profile = StepProfile::from_steps(100, &times, 5).unwrap();
        assert_eq!((profile.operations(), profile.work_ns(100), profile.work_ns(3)), (7, 0.0, 0.0));
        let mut sum = 0.0;
        for done in 0..40u64 {
            assert!((profile.work_ns(100 + done) - sum).abs() < 1e-9);
            assert!((profile.steps(100 + done) - sum / profile.step_ns()).abs() < 1e-9);
            sum += one[done as usize % 7];
        }
        assert_eq!(profile.longest_ns(), one.iter().copied().fold(0.0, f64::max));
    }

    #[test]
    fn a_step_under_way_ends_with_its_last_operation() {
        let profile = StepProfile::from_steps(100, &[1.0; 14], 2).unwrap();
        for (count, end) in [(3, 100), (100, 100), (101, 107), (106, 107), (107, 107), (108, 114)] {
            assert_eq!(profile.step_end(count), end, "{count}");
        }
    }

    #[test]
    fn a_need_is_a_high_quantile_and_no_lost_core() {
        let times: Vec<f64> = (0..11).flat_map(|i| [100.0 + f64::from(i), 10.0]).collect();
        let profile = StepProfile::from_steps(0, &times, 11).unwrap();
        assert_eq!((profile.needs_ns(), profile.step_need_ns()), (&[109, 10][..], 119));
        // Three of eleven were suspended for long.
        let times: Vec<f64> = (0..11).map(|i| if i < 3 { 1e7 } else { 100.0 }).collect();
        assert_eq!(StepProfile::from_steps(0, &times, 11).unwrap().needs_ns(), [400]);
    }

    #[test]
    fn one_slow_step_changes_nothing_and_ragged_times_are_refused() {
        let times = [1.0, 2.0, 1.0, 2.0, 50.0, 90.0];
        assert_eq!(StepProfile::from_steps(0, &times, 3).unwrap().step_ns(), 3.0);
        assert_eq!(StepProfile::from_steps(0, &times, 4), None);
        assert_eq!(StepProfile::from_steps(0, &[], 3), None);
        assert_eq!(StepProfile::from_steps(0, &times, 0), None);
    }
}
