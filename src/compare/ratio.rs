//! The ratio of two medians with its interval, and how likely chance alone makes one as far from 1.

use super::resample::MedianResamples;
use super::sample::{ComparedSide, ResampleUnit, RunMedian, variance};
use super::student;

/// Intervals hold the truth with probability 1 − `OUTSIDE`.
pub(super) const OUTSIDE: f64 = 0.05;

/// A ratio other ÷ reference of two medians.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MedianRatio {
    /// The ratio.
    pub ratio: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// Standard error of the ratio's natural logarithm.
    pub standard_error: f64,
    /// Degrees of freedom of that standard error.
    pub freedom: f64,
    /// Probability of a ratio at least as far from 1, on either side, if the true one were 1.
    pub p: f64,
    /// What the standard error was told from.
    pub unit: ResampleUnit,
    /// How many of those units the side has that has fewer; 1 where its error is taken to be the other side's.
    pub units: usize,
    /// How many samples the side has that has fewer.
    pub samples: usize,
}

/// The variance of one side's logarithm.
#[derive(Debug, Clone, Copy)]
struct LogVariance {
    variance: f64,
    freedom: f64,
    /// Told from the other side's runs or visits, because this side has only one.
    borrowed: bool,
}

/// The ratio of two sides. `None` where nothing tells its error: one sample on a side, or none kept.
pub fn median_ratio(
    reference: &ComparedSide,
    other: &ComparedSide,
    resamples: &MedianResamples,
) -> Option<MedianRatio> {
    let unit = reference.unit().max(other.unit());
    let (a, b) = (side_variance(reference, other, unit)?, side_variance(other, reference, unit)?);
    let ln_ratio = other.ln_median() - reference.ln_median();
    let freedom = freedom(a, b);
    let standard_error = (a.variance + b.variance).sqrt();
    let (low, high) = match (unit, reference.runs.as_slice(), other.runs.as_slice()) {
        (ResampleUnit::Sample, [reference], [other]) => percentiles(reference, other, resamples)?,
        _ => {
            let reach = student::critical(OUTSIDE, freedom) * standard_error;
            (-reach, reach)
        }
    };
    let t = if ln_ratio == 0.0 { 0.0 } else { ln_ratio.abs() / standard_error };
    Some(MedianRatio {
        ratio: ln_ratio.exp(),
        low: (ln_ratio + low).exp(),
        high: (ln_ratio + high).exp(),
        standard_error,
        freedom,
        p: student::two_sided(t, freedom),
        unit,
        units: units(reference, unit).min(units(other, unit)),
        samples: reference.samples().min(other.samples()),
    })
}

fn units(side: &ComparedSide, unit: ResampleUnit) -> usize {
    match unit {
        ResampleUnit::Sample => side.samples(),
        ResampleUnit::Visit => side.runs.iter().map(|run| run.ln_visits.len()).sum(),
        ResampleUnit::Run => side.runs(),
    }
}

/// The variance of a side, told from its units. A side with only one of them is taken to vary as the other side does: on
/// the same machine what makes runs or visits differ is the same.
fn side_variance(side: &ComparedSide, opposite: &ComparedSide, unit: ResampleUnit) -> Option<LogVariance> {
    let own = match (unit, side.runs.as_slice()) {
        (ResampleUnit::Run, _) => side.over_runs(),
        (ResampleUnit::Visit, [run]) if run.ln_visits.len() < 2 => None,
        (_, [run]) => run.within(),
        _ => None,
    };
    if let Some((variance, freedom)) = own {
        return Some(LogVariance { variance, freedom, borrowed: false });
    }
    if unit == ResampleUnit::Sample {
        return None;
    }
    let theirs = opposite.ln_units();
    let within = side.runs.first().and_then(RunMedian::within).map_or(0.0, |(variance, _)| variance);
    variance(&theirs).map(|of_one| LogVariance {
        variance: of_one.max(within),
        freedom: theirs.len() as f64 - 1.0,
        borrowed: true,
    })
}

/// The degrees of freedom of both sides' variances together. Where each is known as well, that of both together (Student
/// 1908): between equally many runs the test holds its level even if one side varies more (Scheffé 1959, §10.2), and with
/// three runs a side it tells twice as much as Welch's. Else Welch's (Welch 1947; Satterthwaite 1946), or the fewer of both
/// where one side's variance is the other's: then it is known no better for being counted twice.
fn freedom(a: LogVariance, b: LogVariance) -> f64 {
    let least = a.freedom.min(b.freedom);
    if a.borrowed || b.borrowed {
        return least;
    }
    if a.freedom == b.freedom {
        return a.freedom + b.freedom;
    }
    // An infinite freedom adds nothing here, and none at all leaves the least.
    let parts = a.variance.powi(2) / a.freedom + b.variance.powi(2) / b.freedom;
    let welch = (a.variance + b.variance).powi(2) / parts;
    if welch.is_finite() && least.is_finite() { welch.max(least) } else { least }
}

/// The interval of the logarithm of the ratio, counted from the ratio of the medians: by the percentile bootstrap (Efron &
/// Tibshirani 1993, §13.3), or from the sides' own intervals where one of them has no samples (the method of variance
/// estimates recovery: Donner & Zou 2012). `None` where there is neither.
fn percentiles(reference: &RunMedian, other: &RunMedian, resamples: &MedianResamples) -> Option<(f64, f64)> {
    if reference.draws.is_empty() || other.draws.is_empty() {
        let ((below_a, above_a), (below_b, above_b)) = (reference.reaches()?, other.reaches()?);
        return Some((-below_b.hypot(above_a), above_b.hypot(below_a)));
    }
    let mut differences = resamples.differences(&reference.draws, &other.draws);
    // Of 1,000 draws 25 lie beyond either end.
    let outside = (differences.len() as f64 * OUTSIDE / 2.0) as usize;
    let last = differences.len() - 1;
    let (_, low, _) = differences.select_nth_unstable_by(outside, f64::total_cmp);
    let low = *low;
    let (_, high, _) = differences.select_nth_unstable_by(last - outside, f64::total_cmp);
    Some((low.min(0.0), high.max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::super::resample::DrawSide;
    use super::super::sample::RunTimes;
    use super::*;
    use crate::stats::{self, SplitMix};
    use proptest::prelude::*;

    fn run(samples_ns: &[f64], visit_samples: &[usize]) -> RunTimes<'static> {
        let samples_ns: &'static [f64] = samples_ns.to_vec().leak();
        RunTimes {
            samples_ns,
            visit_samples: visit_samples.to_vec(),
            samples_behind: 0,
            median_ns: stats::median(samples_ns).unwrap(),
            interval_ns: None,
            tick_ns: 0.0,
            sm_clock_mhz: None,
        }
    }

    fn ratio_of(reference: &[RunTimes], other: &[RunTimes]) -> Option<MedianRatio> {
        let mut resamples = MedianResamples::default();
        let reference = ComparedSide::of(reference, DrawSide::Reference, &mut resamples)?;
        let other = ComparedSide::of(other, DrawSide::Other, &mut resamples)?;
        median_ratio(&reference, &other, &resamples)
    }

    /// Runs of one time each, given by their logarithms.
    fn runs(ln: &[f64]) -> Vec<RunTimes<'static>> {
        ln.iter().map(|ln| run(&[ln.exp(); 3], &[])).collect()
    }

    fn close(value: f64, known: f64) {
        assert!((value / known - 1.0).abs() < 1e-5, "{value} and {known}");
    }

    /// Known answer: Student's t test of the logarithms with 2 + 2 degrees of freedom, written out.
    #[test]
    fn equally_many_runs_are_held_together_by_students_test() {
        let ratio = ratio_of(&runs(&[0.0, 0.01, -0.02]), &runs(&[0.05, 0.07, 0.03])).unwrap();
        close(ratio.p, 0.0213788868);
        close(ratio.low.ln(), 0.0129925212);
        close(ratio.high.ln(), 0.0936741455);
        assert_eq!(ratio.freedom, 4.0);
    }

    /// Known answer: SciPy 1.17's `ttest_ind(…, equal_var=False)` of the logarithms, with its confidence interval.
    #[test]
    fn repeated_runs_are_held_together_by_welchs_test() {
        let ratio = ratio_of(&runs(&[0.0, 0.01, -0.02]), &runs(&[0.05, 0.07, 0.03, 0.11])).unwrap();
        close(ratio.p, 0.0205970260);
        close(ratio.freedom, 4.3493975904);
        close(ratio.low.ln(), 0.0166163838);
        close(ratio.high.ln(), 0.1200502828);
        close(ratio.ratio.ln(), 0.0683333333);
        assert_eq!((ratio.unit, ratio.units), (ResampleUnit::Run, 3));
    }

    #[test]
    fn one_run_beside_several_is_taken_to_vary_as_they_do() {
        let ratio = ratio_of(&runs(&[-0.01, 0.0, 0.01]), &runs(&[0.05])).unwrap();
        close(ratio.standard_error, (0.01f64.powi(2) * (1.0 + 1.0 / 3.0)).sqrt());
        assert_eq!((ratio.freedom, ratio.units), (2.0, 1));
    }

    #[test]
    fn visits_decide_where_a_side_has_them() {
        let visited = |shift: f64| {
            let samples: Vec<f64> =
                [0.9, 0.95, 1.0, 1.05, 1.1].iter().flat_map(|v| [v * shift, v * shift * 1.001]).collect();
            run(&samples, &[2; 5])
        };
        let both = ratio_of(&[visited(100.0)], &[visited(110.0)]).unwrap();
        assert_eq!((both.unit, both.units), (ResampleUnit::Visit, 5));
        assert!(both.low < 1.0 && both.high > 1.2, "{both:?}");
        let one = ratio_of(&[visited(100.0)], &[run(&[110.0; 10], &[])]).unwrap();
        assert_eq!((one.unit, one.units, one.freedom), (ResampleUnit::Visit, 1, 4.0));
        assert!(one.standard_error > both.standard_error, "one visit is worth less than five");
    }

    #[test]
    fn one_sample_tells_no_error_and_an_interval_does() {
        let several = run(&[99.0, 100.0, 101.0, 102.0], &[]);
        assert_eq!(ratio_of(&[run(&[100.0], &[])], std::slice::from_ref(&several)), None);
        let told = RunTimes {
            samples_ns: &[],
            median_ns: 110.0,
            interval_ns: Some((108.0, 113.0)),
            samples_behind: 9,
            ..several
        };
        let exact = RunTimes { median_ns: 100.0, interval_ns: Some((100.0, 100.0)), ..told.clone() };
        let ratio = ratio_of(&[exact], &[told]).unwrap();
        close(ratio.low, 1.08);
        close(ratio.high, 1.13);
        close(ratio.standard_error, (1.13f64 / 1.08).ln() / 2.0 / 1.959_964);
    }

    /// Known answer: the ratio is low where the other side is low and the reference high.
    #[test]
    fn intervals_reach_from_ones_low_end_to_the_others_high_one() {
        let side =
            |low: f64, high: f64| RunTimes { samples_ns: &[], interval_ns: Some((low, high)), ..run(&[100.0], &[]) };
        let ratio = ratio_of(&[side(99.0, 110.0)], &[side(95.0, 101.0)]).unwrap();
        close(ratio.low.ln(), -(100.0f64 / 95.0).ln().hypot((110.0f64 / 100.0).ln()));
        close(ratio.high.ln(), (101.0f64 / 100.0).ln().hypot((100.0f64 / 99.0).ln()));
    }

    #[test]
    fn samples_that_all_agree_leave_no_doubt() {
        let (same, more) = (run(&[100.0; 5], &[]), run(&[103.0; 5], &[]));
        let equal = ratio_of(std::slice::from_ref(&same), std::slice::from_ref(&same)).unwrap();
        assert_eq!((equal.ratio, equal.low, equal.high, equal.p), (1.0, 1.0, 1.0, 1.0));
        assert_eq!(ratio_of(&[same], &[more]).unwrap().p, 0.0);
    }

    /// Known answer: a 95 % interval holds the truth 95 % of the time, whatever the number of samples and their shape.
    #[test]
    fn intervals_of_samples_cover_as_often_as_they_say() {
        for (count, skewed) in [(8, false), (12, true), (40, false), (40, true), (101, false)] {
            let mut random = SplitMix(count as u64);
            let mut sample = || match skewed {
                true => 1.0 - 0.01 * (1.0 - random.unit()).ln(),
                false => 1.0 + 0.01 * ((0..12).map(|_| random.unit()).sum::<f64>() - 6.0),
            };
            let mut resamples = MedianResamples::default();
            let covered = (0..2000)
                .filter(|_| {
                    let drawn: Vec<Vec<f64>> = (0..2).map(|_| (0..count).map(|_| sample()).collect()).collect();
                    let times: Vec<RunTimes> = drawn
                        .iter()
                        .map(|samples| RunTimes {
                            samples_ns: samples,
                            visit_samples: Vec::new(),
                            samples_behind: 0,
                            median_ns: stats::median(samples).unwrap(),
                            interval_ns: None,
                            tick_ns: 0.0,
                            sm_clock_mhz: None,
                        })
                        .collect();
                    let reference = ComparedSide::of(&times[..1], DrawSide::Reference, &mut resamples).unwrap();
                    let other = ComparedSide::of(&times[1..], DrawSide::Other, &mut resamples).unwrap();
                    let ratio = median_ratio(&reference, &other, &resamples).unwrap();
                    ratio.low <= 1.0 && 1.0 <= ratio.high
                })
                .count();
            // Three standard errors of 2,000 below 95 %; above it the interval of a median may be.
            assert!((1871..=1970).contains(&covered), "{covered} of 2,000 with {count} samples, skewed: {skewed}");
        }
    }

    fn times() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(1.0..1e6f64, 2..30)
    }

    proptest! {
        /// A ratio has no unit, and turned round it is its reciprocal.
        #[test]
        fn ratios_know_neither_units_nor_sides(a in times(), b in times(), scale in 1e-3..1e3f64) {
            let scaled = |samples: &[f64]| samples.iter().map(|ns| ns * scale).collect::<Vec<f64>>();
            let ratio = ratio_of(&[run(&a, &[])], &[run(&b, &[])]).unwrap();
            let same = ratio_of(&[run(&scaled(&a), &[])], &[run(&scaled(&b), &[])]).unwrap();
            let turned = ratio_of(&[run(&b, &[])], &[run(&a, &[])]).unwrap();
            prop_assert!((ratio.ratio / same.ratio - 1.0).abs() < 1e-9);
            prop_assert!((ratio.low / same.low - 1.0).abs() < 1e-9 && (ratio.high / same.high - 1.0).abs() < 1e-9);
            prop_assert!((ratio.ratio * turned.ratio - 1.0).abs() < 1e-9);
            prop_assert!((ratio.standard_error - turned.standard_error).abs() < 1e-9);
            prop_assert!(ratio.low <= ratio.ratio && ratio.ratio <= ratio.high);
            prop_assert!((0.0..=1.0).contains(&ratio.p));
        }

        /// Visits of any sizes, empty ones and more than there are samples for, give a ratio or none, and never a NaN.
        #[test]
        fn visits_of_any_size_are_taken(a in times(), b in times(), cuts in prop::collection::vec(0usize..9, 0..8)) {
            if let Some(ratio) = ratio_of(&[run(&a, &cuts)], &[run(&b, &cuts)]) {
                prop_assert!(ratio.low <= ratio.ratio && ratio.ratio <= ratio.high, "{:?}", ratio);
                prop_assert!((0.0..=1.0).contains(&ratio.p) && ratio.freedom >= 1.0, "{:?}", ratio);
            }
        }
    }
}
