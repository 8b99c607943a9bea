//! When a case has been measured well enough: a rule over the samples so far, numbers in and a decision out.

use crate::stats;

/// When a case has been measured well enough: bounds on the number of samples, the interval and the time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRule {
    /// No interval is looked at before this many samples are there.
    pub min_samples: usize,
    /// Sampling stops once this many samples are there, however wide the interval is.
    pub max_samples: usize,
    /// Sampling stops once the 95 % interval of the median is no wider than this share of the median.
    pub relative_width: f64,
    /// Sampling stops once this many nanoseconds are spent on it, warm-up included.
    pub cap_ns: u64,
    /// With fewer samples it does not stop even then.
    pub capped_samples: usize,
}

/// Why sampling of a case stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The interval of the median is as narrow as asked.
    Steady,
    /// The most samples allowed were taken.
    Enough,
    /// The time for the case was up, or its trials were all thrown away.
    Capped,
}

impl StopRule {
    /// The rule of a case that is measured at one go: past the cap three samples must do.
    pub const fn new(min_samples: usize, max_samples: usize, relative_width: f64, cap_ns: u64) -> Self {
        StopRule { min_samples, max_samples, relative_width, cap_ns, capped_samples: 3 }
    }

    /// The rule of one of several visits: its share of the samples and of the time. All visits together make the
    /// interval √visits narrower than one of them does.
    pub fn of_one_visit(&self, visits: usize) -> Self {
        let visits = visits.max(1);
        StopRule {
            // Fewer than four say nothing of a visit.
            min_samples: self.min_samples.div_ceil(visits).max(self.min_samples.min(4)),
            max_samples: self.max_samples.div_ceil(visits),
            relative_width: self.relative_width * (visits as f64).sqrt(),
            cap_ns: self.cap_ns / visits as u64,
            capped_samples: self.capped_samples.div_ceil(visits),
        }
    }

    /// Why sampling stops now, or `None` to take another sample. `times_ns` are the per-operation times so far,
    /// `spent_ns` all time since sampling began.
    pub fn decide(&self, times_ns: &[f64], spent_ns: u64) -> Option<StopReason> {
        let count = times_ns.len();
        if count >= self.max_samples {
            return Some(StopReason::Enough);
        }
        // Without any sample the case would have no number at all.
        if spent_ns >= self.cap_ns && count >= self.min_samples.min(self.capped_samples) {
            return Some(StopReason::Capped);
        }
        // The bootstrap is not free: look at every fourth sample.
        if count >= self.min_samples && count.is_multiple_of(4) {
            let (middle, low, high) = stats::median_interval(times_ns)?;
            return (high - low <= self.relative_width * middle).then_some(StopReason::Steady);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: StopRule = StopRule::new(8, 100, 0.02, 1_000_000_000);

    #[test]
    fn the_rule_stops_when_steady_when_full_and_when_time_is_up() {
        assert_eq!(RULE.decide(&[100.0; 4], 0), None, "too few samples");
        assert_eq!(RULE.decide(&[100.0; 8], 0), Some(StopReason::Steady));
        let wild: Vec<f64> = (0..12).map(|i| if i % 2 == 0 { 50.0 } else { 150.0 }).collect();
        assert_eq!(RULE.decide(&wild, 0), None);
        assert_eq!(RULE.decide(&wild, RULE.cap_ns), Some(StopReason::Capped));
        assert_eq!(RULE.decide(&[100.0, 150.0], RULE.cap_ns), None, "three samples at the least");
        assert_eq!(RULE.decide(&vec![1.0; 100], 0), Some(StopReason::Enough));
    }

    #[test]
    fn visits_share_samples_and_time() {
        assert_eq!(RULE.of_one_visit(1), RULE);
        let share = RULE.of_one_visit(4);
        assert_eq!((share.min_samples, share.max_samples, share.cap_ns), (4, 25, RULE.cap_ns / 4));
        assert_eq!((share.relative_width, share.capped_samples), (0.04, 1));
        assert_eq!(share.decide(&[100.0], share.cap_ns), Some(StopReason::Capped));
        assert_eq!(StopRule::new(2, 9, 0.1, 1).of_one_visit(5).min_samples, 2, "no more than the whole case");
    }
}
