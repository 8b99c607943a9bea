//! When is a GPU warm? Its clock swings for about three seconds after load starts, so a fixed count of runs says nothing:
//! the readings themselves do. A pure rule; [`super::cuda::CudaClock::warm_up`] drives it.

/// One reading of the SM clock, `at_ns` after the warm-up began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClockReading {
    /// When the reading was taken, in nanoseconds since the warm-up began.
    pub at_ns: u64,
    /// The SM clock in MHz; `None` where it could not be told.
    pub mhz: Option<f64>,
}

/// When a warm-up ends: once the SM clock has kept still, or its time is up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SteadyRule {
    /// How long the clock must have kept still, in nanoseconds.
    pub window_ns: u64,
    /// Smallest number of readings that must lie within the window.
    pub least_readings: usize,
    /// Largest difference between the window's highest and lowest clock, as a share of the highest, that counts as
    /// still.
    pub spread: f64,
    /// The warm-up ends after this many nanoseconds whatever the clock does.
    pub cap_ns: u64,
}

/// Why a warm-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarmUp {
    /// The SM clock kept still for the whole window.
    Steady,
    /// Time was up while the clock still moved, or could not be read.
    Capped,
}

impl SteadyRule {
    /// The rule for a cold GPU: half a second within 1 % in at least five readings, and an end after `cap_ns`
    /// nanoseconds.
    pub const fn capped_at(cap_ns: u64) -> Self {
        SteadyRule { window_ns: 500_000_000, least_readings: 5, spread: 0.01, cap_ns }
    }

    /// Why the warm-up ends now, or `None` where it goes on. Readings are in order of time; `spent_ns` is the time
    /// since the warm-up began.
    pub fn decide(&self, readings: &[ClockReading], spent_ns: u64) -> Option<WarmUp> {
        if self.is_steady(readings, spent_ns) {
            return Some(WarmUp::Steady);
        }
        (spent_ns >= self.cap_ns).then_some(WarmUp::Capped)
    }

    fn is_steady(&self, readings: &[ClockReading], spent_ns: u64) -> bool {
        let Some(begin) = spent_ns.checked_sub(self.window_ns) else { return false };
        let first = readings.partition_point(|reading| reading.at_ns < begin);
        let recent = &readings[first..];
        let clocks = recent.iter().map(|reading| reading.mhz.filter(|mhz| mhz.is_finite() && *mhz > 0.0));
        let Some(clocks) = clocks.collect::<Option<Vec<f64>>>() else { return false };
        let high = clocks.iter().copied().fold(0.0, f64::max);
        let low = clocks.iter().copied().fold(f64::INFINITY, f64::min);
        clocks.len() >= self.least_readings.max(1) && high - low <= self.spread * high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: SteadyRule = SteadyRule { window_ns: 100, least_readings: 3, spread: 0.01, cap_ns: 1000 };

    fn readings(clocks: &[f64]) -> Vec<ClockReading> {
        clocks.iter().enumerate().map(|(i, &mhz)| ClockReading { at_ns: 20 * i as u64, mhz: Some(mhz) }).collect()
    }

    #[test]
    fn a_clock_that_rises_and_settles_ends_the_warm_up_once_it_kept_still_for_the_window() {
        let rising: Vec<f64> = (0..10).map(|i| 1000.0 + 100.0 * f64::from(i)).chain([1980.0; 10]).collect();
        let decided: Vec<usize> = (1..=20)
            .filter(|&n| RULE.decide(&readings(&rising[..n]), 20 * (n as u64 - 1)) == Some(WarmUp::Steady))
            .collect();
        // 1980 from the eleventh reading on (at 200); from 300 on the window of 100 holds nothing else.
        assert_eq!(decided.first(), Some(&16), "{decided:?}");
    }

    #[test]
    fn a_clock_that_never_settles_or_cannot_be_read_is_capped() {
        let swinging: Vec<f64> = (0..60).map(|i| if i % 2 == 0 { 1500.0 } else { 1900.0 }).collect();
        assert_eq!(RULE.decide(&readings(&swinging[..40]), 800), None);
        assert_eq!(RULE.decide(&readings(&swinging), 1180), Some(WarmUp::Capped));
        let blind: Vec<ClockReading> = (0..60).map(|i| ClockReading { at_ns: 20 * i, mhz: None }).collect();
        assert_eq!(RULE.decide(&blind, 999), None);
        assert_eq!(RULE.decide(&blind, 1000), Some(WarmUp::Capped));
        assert_eq!(RULE.decide(&[], 5000), Some(WarmUp::Capped));
    }

    #[test]
    fn a_few_readings_are_not_enough() {
        let sparse = [ClockReading { at_ns: 150, mhz: Some(1980.0) }, ClockReading { at_ns: 190, mhz: Some(1980.0) }];
        assert_eq!(RULE.decide(&sparse, 200), None);
    }

    proptest! {
        /// Steady means what it says: every reading of the window is within the spread.
        #[test]
        fn what_is_called_steady_is(clocks in prop::collection::vec(1000.0..2000.0f64, 0..30), spent in 0u64..700) {
            let all = readings(&clocks);
            if RULE.decide(&all, spent) == Some(WarmUp::Steady) {
                let recent: Vec<f64> = all.iter().filter(|r| r.at_ns + 100 >= spent).filter_map(|r| r.mhz).collect();
                prop_assert!(recent.len() >= 3);
                let (low, high) = (recent.iter().copied().fold(f64::MAX, f64::min), recent.iter().copied().fold(0.0, f64::max));
                prop_assert!(high - low <= 0.01 * high);
            }
        }

        /// No warm-up outlasts its cap, and none ends before its window has passed.
        #[test]
        fn it_always_ends(clocks in prop::collection::vec(0.0..3000.0f64, 0..30), spent in 0u64..2000) {
            let decided = RULE.decide(&readings(&clocks), spent);
            prop_assert!(spent < RULE.cap_ns || decided.is_some());
            prop_assert!(spent >= RULE.window_ns || decided.is_none());
        }
    }
}
