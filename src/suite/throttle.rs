//! Which samples were taken while the GPU ran slower than it does otherwise? Pure rules on SM clocks (docs/method.md,
//! "The GPU's clock"); [`super::summary`] applies them when samples become a record, [`super::sampler`] while it warms
//! up.
//!
//! A sample below 96 % of its case's median clock is discarded and counted. Where the clocks cannot be told to 1 %
//! nobody knows which those are: none is discarded, and the record says so. A sample that its clock itself calls
//! throttled is always discarded (no clock of ours does so far: NVML's reasons are flags of the whole case).

use super::case::RawSample;
use crate::stats;

/// Share of the case's median SM clock below which a sample is discarded.
pub const THROTTLE_SHARE: f64 = 0.96;
/// Clocks within this share of the highest are the same clock, for a warm-up.
const SETTLED_SHARE: f64 = 0.98;

/// What is known of the SM clock during one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleClock {
    /// No clock was read, as on the host.
    None,
    /// The clock was read, but is not known to 1 %.
    Unresolved,
    /// The SM clock in MHz, known to 1 %.
    Mhz(f64),
}

impl SampleClock {
    /// What a sample says of its clock; one that is not a positive, finite number counts as unresolved.
    pub fn of(sample: &RawSample) -> Self {
        match sample.sm_clock_mhz {
            Some(mhz) if !sample.clock_unresolved && mhz.is_finite() && mhz > 0.0 => SampleClock::Mhz(mhz),
            None if !sample.clock_unresolved => SampleClock::None,
            _ => SampleClock::Unresolved,
        }
    }

    fn mhz(self) -> Option<f64> {
        if let SampleClock::Mhz(mhz) = self { Some(mhz) } else { None }
    }
}

/// Which of a case's samples stand, and whether their clocks could be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleVerdicts {
    /// Whether each sample stands (true) or is discarded, in the order of the samples.
    pub keep: Vec<bool>,
    /// Whether no sample was judged by its clock, because it is not known to 1 % for at least half of those with a
    /// clock.
    pub unresolved: bool,
}

impl SampleVerdicts {
    /// Number of samples that do not stand.
    pub fn thrown_away(&self) -> u64 {
        self.keep.iter().filter(|keep| !**keep).count() as u64
    }
}

/// Decides which samples of a case stand, as [`judge`] does.
pub fn judge_samples(samples: &[RawSample]) -> SampleVerdicts {
    judge(&samples.iter().map(|s| (SampleClock::of(s), s.throttled)).collect::<Vec<_>>())
}

/// Decides which samples stand: those that the device did not call throttled and whose clock is not below
/// [`THROTTLE_SHARE`] of the median. `samples` holds the clock of each, and whether the device called it throttled.
pub fn judge(samples: &[(SampleClock, bool)]) -> SampleVerdicts {
    let clocks: Vec<f64> = samples.iter().filter_map(|(clock, _)| clock.mhz()).collect();
    let blind = samples.iter().filter(|(clock, _)| *clock == SampleClock::Unresolved).count();
    // A stamp that found no multiprocessor now and then is one sample's matter; a coarse timer is the whole case's.
    let unresolved = blind > 0 && blind >= clocks.len();
    let limit = if unresolved { 0.0 } else { stats::median(&clocks).unwrap_or(0.0) * THROTTLE_SHARE };
    let keep = samples.iter().map(|(clock, throttled)| !throttled && clock.mhz().is_none_or(|mhz| mhz >= limit));
    SampleVerdicts { keep: keep.collect(), unresolved }
}

/// Whether the known ones among the last clocks of a warm-up lie within 2 % of the highest; true where none is known.
pub fn settled(last: &[SampleClock]) -> bool {
    let clocks = last.iter().filter_map(|clock| clock.mhz());
    let (low, high) = clocks.fold((f64::MAX, 0.0), |(low, high), mhz| (mhz.min(low), mhz.max(high)));
    low >= SETTLED_SHARE * high
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolved(clocks: &[f64]) -> Vec<(SampleClock, bool)> {
        clocks.iter().map(|&mhz| (SampleClock::Mhz(mhz), false)).collect()
    }

    #[test]
    fn the_limit_is_96_percent_of_the_median() {
        let verdict = judge(&resolved(&[1000.0, 1000.0, 1000.0, 960.0, 959.9, 1500.0, 1000.0]));
        assert_eq!(verdict.keep, [true, true, true, true, false, true, true]);
        assert_eq!((verdict.thrown_away(), verdict.unresolved), (1, false));
    }

    #[test]
    fn a_host_without_clocks_loses_nothing_and_is_not_unresolved() {
        let verdict = judge(&[(SampleClock::None, false); 5]);
        assert_eq!((verdict.thrown_away(), verdict.unresolved), (0, false));
        assert_eq!(judge(&[]), SampleVerdicts { keep: vec![], unresolved: false });
    }

    #[test]
    fn a_coarse_timer_discards_nothing() {
        let mut samples = resolved(&[1980.0, 300.0]);
        samples.extend([(SampleClock::Unresolved, false); 2]);
        assert_eq!(judge(&samples), SampleVerdicts { keep: vec![true; 4], unresolved: true });
    }

    #[test]
    fn one_missed_stamp_does_not_blind_the_case() {
        let mut samples = resolved(&[1980.0, 1980.0, 1980.0, 900.0]);
        samples.push((SampleClock::Unresolved, false));
        assert_eq!(judge(&samples).keep, [true, true, true, false, true]);
    }

    #[test]
    fn samples_are_read_as_they_are() {
        let sample = RawSample::new(1.0, 1);
        assert_eq!(SampleClock::of(&sample), SampleClock::None);
        assert_eq!(
            SampleClock::of(&RawSample { sm_clock_mhz: Some(1980.0), ..sample.clone() }),
            SampleClock::Mhz(1980.0)
        );
        for mhz in [None, Some(1980.0), Some(f64::NAN)] {
            let unsure = RawSample { sm_clock_mhz: mhz, clock_unresolved: true, ..sample.clone() };
            assert_eq!(SampleClock::of(&unsure), SampleClock::Unresolved);
        }
        assert_eq!(SampleClock::of(&RawSample { sm_clock_mhz: Some(f64::NAN), ..sample }), SampleClock::Unresolved);
    }

    #[test]
    fn a_warm_up_settles_on_one_clock() {
        assert!(
            settled(&[SampleClock::Mhz(1980.0), SampleClock::Mhz(1960.0)])
                && settled(&[])
                && settled(&[SampleClock::Unresolved])
        );
        assert!(!settled(&[SampleClock::Mhz(1980.0), SampleClock::Mhz(1900.0)]));
    }

    fn any_clock() -> impl Strategy<Value = SampleClock> {
        prop_oneof![
            1 => Just(SampleClock::None),
            2 => Just(SampleClock::Unresolved),
            6 => (200.0..2500.0f64).prop_map(SampleClock::Mhz),
        ]
    }

    proptest! {
        #[test]
        fn what_stands_ran_at_the_cases_clock(samples in prop::collection::vec((any_clock(), prop::bool::weighted(0.1)), 0..60)) {
            let verdict = judge(&samples);
            let clocks: Vec<f64> = samples.iter().filter_map(|(c, _)| c.mhz()).collect();
            let median = stats::median(&clocks);
            prop_assert_eq!(verdict.keep.len(), samples.len());
            for (&(clock, throttled), &kept) in samples.iter().zip(&verdict.keep) {
                // The device's own word always counts; a clock only where it is known, and where the case has one.
                let slow = clock.mhz().zip(median).is_some_and(|(mhz, median)| mhz < THROTTLE_SHARE * median);
                prop_assert_eq!(kept, !throttled && (!slow || verdict.unresolved));
            }
        }

        /// The median itself always stands: clocks alone never throw everything away.
        #[test]
        fn clocks_alone_leave_at_least_half(clocks in prop::collection::vec(200.0..2500.0f64, 1..60)) {
            let verdict = judge(&resolved(&clocks));
            prop_assert!(2 * verdict.thrown_away() <= clocks.len() as u64);
        }

        /// Neither the order of samples nor the unit of their clock matters.
        #[test]
        fn order_and_unit_do_not_matter(clocks in prop::collection::vec(200.0..2500.0f64, 1..40), scale in 0.5..2.0f64) {
            let thrown = |clocks: Vec<f64>| judge(&resolved(&clocks)).thrown_away();
            let reversed = clocks.iter().rev().copied().collect();
            prop_assert_eq!(thrown(clocks.clone()), thrown(reversed));
            // Powers of two scale without rounding.
            let unit = if scale > 1.0 { 4.0 } else { 0.25 };
            prop_assert_eq!(thrown(clocks.iter().map(|c| c * unit).collect()), thrown(clocks));
        }
    }
}
