//! What a ratio says: slower, faster, the same, or that it cannot be told yet.

pub use super::record::RowVerdict;

use super::ratio::{MedianRatio, OUTSIDE};
use super::sample::ResampleUnit;
use super::student;

/// What counts as a difference, and how many of those told may be chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VerdictRule {
    /// The least difference that matters, relative: 0.02 for 2 %.
    pub threshold: f64,
    /// Share of the rows told slower or faster that may be chance (Benjamini & Hochberg 1995).
    pub false_discovery_rate: f64,
}

impl Default for VerdictRule {
    fn default() -> Self {
        VerdictRule { threshold: 0.02, false_discovery_rate: 0.05 }
    }
}

/// Why the verdict is not the one that the times alone would have, or what it does not hold for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum VerdictReason {
    /// One sample or none on a side, or times that are not all positive: nothing tells the ratio's error.
    NoError,
    /// Fewer samples of one visit than a bootstrap of their median can be trusted with.
    FewSamples {
        /// How many the side has that has fewer.
        samples: usize,
    },
    /// The interval would do, but among so many rows such a ratio comes about by chance.
    Chance {
        /// Probability of such a ratio in one row of no difference.
        p: f64,
        /// Number of rows that were looked at.
        rows: usize,
    },
    /// The times and the clock cycles say different things.
    Clock {
        /// Ratio of the cycles, other ÷ reference.
        cycles_ratio: f64,
    },
    /// A host's row that each side visited once: its interval is of that moment and says nothing of the next, so that the
    /// verdict is of two moments.
    OneVisit,
    /// A GPU's row that the cycles cannot confirm, because a clock is not known.
    ClockUnknown,
}

/// What would settle an unsure row if its ratio stayed as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledBy {
    /// How many of them a side needs in all.
    pub count: u64,
    /// Samples of one visit, or runs; visits are given in runs, because a run makes a fixed number of them.
    pub unit: ResampleUnit,
}

/// A verdict and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedRow {
    /// The verdict.
    pub verdict: RowVerdict,
    /// Why it is not what the times alone would say; `None` where it is.
    pub reason: Option<VerdictReason>,
    /// What would settle an unsure row; `None` for others, and where no number of samples within reason would.
    pub settled_by: Option<SettledBy>,
    /// The relative difference that the row had to exceed to be slower or faster.
    pub tolerance: f64,
}

/// The clock cycles of a row, by which a GPU's times are confirmed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowCycles {
    /// Not a GPU's row.
    NotAsked,
    /// A GPU's row of which a clock is not known.
    Unknown,
    /// Ratio of the cycles.
    Known(MedianRatio),
}

/// What a row's verdict is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowEvidence {
    /// Ratio of the times; `None` where nothing tells its error.
    pub ratio: Option<MedianRatio>,
    /// Ratio of the cycles.
    pub cycles: RowCycles,
    /// The wider one of the two rows' own half-widths, relative.
    pub half_width: f64,
    /// Whether the row drifts in a way that its interval does not tell: a host's time, visited once.
    pub drifts_unseen: bool,
}

/// Intervals of the median of fewer samples hold the truth in 66 % (two) to 94 % (four) of planted cases, not in 95 %.
const LEAST_SAMPLES: usize = 5;

/// Judges all rows of two sides at once, since how likely chance is depends on how many there are.
pub fn judge_rows(rows: &[RowEvidence], rule: &VerdictRule) -> Vec<JudgedRow> {
    let p: Vec<Option<f64>> = rows.iter().map(|row| row.ratio.map(|ratio| ratio.p)).collect();
    let tested: Vec<f64> = p.iter().copied().flatten().collect();
    let limit = chance_limit(&tested, rule.false_discovery_rate);
    rows.iter()
        .map(|row| {
            let tolerance = rule.threshold.max(row.half_width);
            let Some(ratio) = row.ratio else {
                let reason = Some(VerdictReason::NoError);
                return JudgedRow { verdict: RowVerdict::Unsure, reason, settled_by: None, tolerance };
            };
            let (verdict, mut reason) = judge(&ratio, row.cycles, tolerance, rule.threshold, &limit);
            // Beside a side of several visits too: it lends its error, which is that of more samples than these.
            let verdict = if ratio.unit != ResampleUnit::Run && ratio.samples < LEAST_SAMPLES {
                reason = Some(VerdictReason::FewSamples { samples: ratio.samples });
                RowVerdict::Unsure
            } else {
                verdict
            };
            if row.drifts_unseen {
                reason = reason.or(Some(VerdictReason::OneVisit));
            }
            let by_more = matches!(reason, None | Some(VerdictReason::Chance { .. } | VerdictReason::OneVisit));
            let settled_by = (verdict == RowVerdict::Unsure && by_more)
                .then(|| settled_by(&ratio, row.half_width, rule.threshold, limit.to_join))
                .flatten();
            JudgedRow { verdict, reason, settled_by, tolerance }
        })
        .collect()
}

fn judge(
    ratio: &MedianRatio,
    cycles: RowCycles,
    tolerance: f64,
    threshold: f64,
    limit: &ChanceLimit,
) -> (RowVerdict, Option<VerdictReason>) {
    let by_time = by_interval((ratio.low, ratio.high), tolerance, threshold);
    let moved = matches!(by_time, RowVerdict::Slower | RowVerdict::Faster);
    if moved && ratio.p > limit.largest {
        return (RowVerdict::Unsure, Some(VerdictReason::Chance { p: ratio.p, rows: limit.rows }));
    }
    match cycles {
        RowCycles::NotAsked => (by_time, None),
        RowCycles::Unknown => (by_time, moved.then_some(VerdictReason::ClockUnknown)),
        RowCycles::Known(cycles) => {
            let by_cycles = by_interval((cycles.low, cycles.high), tolerance, threshold);
            let clock = Some(VerdictReason::Clock { cycles_ratio: cycles.ratio });
            match (by_time, by_cycles) {
                (time, cycles) if time == cycles => (time, None),
                (RowVerdict::Slower | RowVerdict::Faster, _) => (RowVerdict::Unsure, clock),
                (time, RowVerdict::Slower | RowVerdict::Faster) => (time, clock),
                (time, _) => (time, None),
            }
        }
    }
}

/// The verdict of one interval alone. A difference must exceed the row's own noise; that there is none is said only of
/// what the reader asked about, never of a tolerance that noise has widened.
pub(super) fn by_interval((low, high): (f64, f64), tolerance: f64, threshold: f64) -> RowVerdict {
    if low > 1.0 + tolerance {
        RowVerdict::Slower
    } else if high < 1.0 - tolerance {
        RowVerdict::Faster
    } else if low >= 1.0 - threshold && high <= 1.0 + threshold {
        RowVerdict::Same
    } else {
        RowVerdict::Unsure
    }
}

/// The p values that may stand among all that were looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ChanceLimit {
    /// Rows with at most this p stand; below 0 where none does.
    largest: f64,
    /// The p that one more row would need.
    to_join: f64,
    rows: usize,
}

/// Benjamini & Hochberg's limit: the largest p(k) of the sorted ones with p(k) ≤ k · rate ÷ m.
fn chance_limit(p: &[f64], rate: f64) -> ChanceLimit {
    let mut sorted = p.to_vec();
    sorted.sort_by(f64::total_cmp);
    let each = rate / sorted.len().max(1) as f64;
    let standing = (1..=sorted.len()).rev().find(|&k| sorted[k - 1] <= k as f64 * each).unwrap_or(0);
    let largest = if standing > 0 { sorted[standing - 1] } else { -1.0 };
    ChanceLimit { largest, to_join: (standing + 1) as f64 * each, rows: sorted.len() }
}

/// More than so many times the samples there are is no help to anyone.
const WITHIN_REASON: f64 = 1000.0;

/// How many samples, or runs, a side needs so that the interval, shrinking with their square root, lies on one side of the
/// limit between a difference that matters and one that does not.
fn settled_by(ratio: &MedianRatio, half_width: f64, threshold: f64, p_needed: f64) -> Option<SettledBy> {
    let effect = ratio.ratio.ln().abs();
    // The bounds 1 + threshold and 1 − threshold as far as this ratio goes towards the one it is nearer to.
    let bound = if ratio.ratio >= 1.0 { threshold.ln_1p() } else { -(-threshold).ln_1p() };
    let grown_with = |freedom: f64| {
        let width = student::critical(OUTSIDE, freedom) * ratio.standard_error;
        let shrink = if effect < bound {
            (bound - effect) / width
        } else {
            let by_chance = effect / (student::critical(p_needed, freedom) * ratio.standard_error);
            ((effect - bound) / width).min(effect / (width + half_width)).min(by_chance)
        };
        (1.0 / (shrink * shrink)).max(1.0)
    };
    // Student's quantile falls as samples grow: the rounds lie below and above the answer in turn, the last above it.
    let mut grown = grown_with(f64::INFINITY);
    for _ in 0..3 {
        grown = grown_with(ratio.freedom * grown);
    }
    if grown.is_nan() || grown > WITHIN_REASON {
        return None;
    }
    let count = (ratio.units as f64 * grown).ceil();
    let (count, unit) = match ratio.unit {
        ResampleUnit::Visit => ((count / ratio.units.max(1) as f64).ceil(), ResampleUnit::Run),
        unit => (count, unit),
    };
    // One that is not settled takes more than it has.
    let least = if unit == ResampleUnit::Run { 2 } else { LEAST_SAMPLES.max(ratio.units + 1) };
    Some(SettledBy { count: (count as u64).max(least as u64), unit })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ratio whose interval reaches `reach` either way, of so many samples that it is normal.
    fn ratio(value: f64, reach: f64) -> MedianRatio {
        let standard_error = reach / student::critical(OUTSIDE, f64::INFINITY);
        MedianRatio {
            ratio: value,
            low: value * (-reach).exp(),
            high: value * reach.exp(),
            standard_error,
            freedom: 1e5,
            p: student::two_sided(value.ln().abs() / standard_error, 1e5),
            unit: ResampleUnit::Sample,
            units: 50,
            samples: 50,
        }
    }

    fn row(ratio: MedianRatio) -> RowEvidence {
        RowEvidence { ratio: Some(ratio), cycles: RowCycles::NotAsked, half_width: 0.001, drifts_unseen: false }
    }

    fn judged(row: RowEvidence) -> JudgedRow {
        judge_rows(&[row], &VerdictRule::default())[0]
    }

    #[test]
    fn the_whole_interval_must_lie_on_one_side() {
        for (value, reach, known) in [
            (1.05, 0.01, RowVerdict::Slower),
            (0.95, 0.01, RowVerdict::Faster),
            (1.005, 0.01, RowVerdict::Same),
            (0.995, 0.01, RowVerdict::Same),
            (1.03, 0.02, RowVerdict::Unsure),
            (1.00, 0.05, RowVerdict::Unsure),
            (0.97, 0.02, RowVerdict::Unsure),
        ] {
            let judged = judged(row(ratio(value, reach)));
            assert_eq!((judged.verdict, judged.reason), (known, None), "{value} ± {reach}");
            assert_eq!(judged.settled_by.is_some(), known == RowVerdict::Unsure, "{value} ± {reach}");
        }
    }

    #[test]
    fn a_difference_must_exceed_the_rows_own_noise() {
        let noisy = RowEvidence { half_width: 0.06, ..row(ratio(1.06, 0.01)) };
        assert_eq!((judged(noisy).verdict, judged(noisy).tolerance), (RowVerdict::Unsure, 0.06));
        let quiet = RowEvidence { half_width: 0.03, ..noisy };
        assert_eq!(judged(quiet).verdict, RowVerdict::Slower);
    }

    /// A row of 6 % noise is not the same within 6 %: nobody asked about 6 %.
    #[test]
    fn noise_makes_no_row_the_same() {
        let noisy = RowEvidence { half_width: 0.06, ..row(ratio(1.0, 0.04)) };
        assert_eq!(judged(noisy).verdict, RowVerdict::Unsure);
        let asked = VerdictRule { threshold: 0.05, ..VerdictRule::default() };
        assert_eq!(judge_rows(&[noisy], &asked)[0].verdict, RowVerdict::Same);
    }

    /// Known answer: the example of Benjamini & Hochberg 1995, §3.2, whose first four of fifteen stand.
    #[test]
    fn four_of_the_papers_fifteen_stand() {
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0,
        ];
        let limit = chance_limit(&p, 0.05);
        assert_eq!((limit.largest, limit.rows), (0.0095, 15));
        assert!((limit.to_join - 5.0 * 0.05 / 15.0).abs() < 1e-12);
        assert!(chance_limit(&[0.2, 0.4], 0.05).largest < 0.0 && chance_limit(&[], 0.05).largest < 0.0);
    }

    #[test]
    fn one_row_among_many_needs_more_than_its_interval() {
        // p of about 4 %: it would do alone, and does not among a hundred.
        let alone = row(MedianRatio { low: 1.03, p: 0.04, ..ratio(1.05, 0.01) });
        assert_eq!(judged(alone).verdict, RowVerdict::Slower);
        let mut rows = vec![row(ratio(1.0, 0.01)); 99];
        rows.push(alone);
        let last = judge_rows(&rows, &VerdictRule::default())[99];
        assert_eq!(
            (last.verdict, last.reason),
            (RowVerdict::Unsure, Some(VerdictReason::Chance { p: 0.04, rows: 100 }))
        );
    }

    #[test]
    fn a_gpus_row_is_confirmed_in_cycles() {
        let with = |time: f64, cycles: RowCycles| {
            let judged = judged(RowEvidence { cycles, ..row(ratio(time, 0.005)) });
            (judged.verdict, judged.reason)
        };
        let known = |cycles: f64| RowCycles::Known(ratio(cycles, 0.005));
        let clock = |cycles_ratio| Some(VerdictReason::Clock { cycles_ratio });
        assert_eq!(with(1.1, known(1.1)), (RowVerdict::Slower, None));
        assert_eq!(with(1.1, known(1.0)), (RowVerdict::Unsure, clock(1.0)), "the clock fell");
        assert_eq!(with(1.1, known(0.9)), (RowVerdict::Unsure, clock(0.9)));
        assert_eq!(with(1.0, known(1.1)), (RowVerdict::Same, clock(1.1)), "the clock rose, and the time did not fall");
        assert_eq!(with(1.1, RowCycles::Unknown), (RowVerdict::Slower, Some(VerdictReason::ClockUnknown)));
        assert_eq!(with(1.0, RowCycles::Unknown), (RowVerdict::Same, None));
    }

    #[test]
    fn two_samples_that_agree_tell_nothing() {
        let of = |samples| judged(row(MedianRatio { units: samples, samples, ..ratio(1.05, 0.001) }));
        assert_eq!((of(4).verdict, of(4).reason), (RowVerdict::Unsure, Some(VerdictReason::FewSamples { samples: 4 })));
        assert_eq!((of(5).verdict, of(5).reason), (RowVerdict::Slower, None));
        // One sample beside five visits of a run that was interrupted.
        let visits = MedianRatio { unit: ResampleUnit::Visit, units: 1, samples: 1, ..ratio(4.9, 0.001) };
        assert_eq!(judged(row(visits)).reason, Some(VerdictReason::FewSamples { samples: 1 }));
        let runs = MedianRatio { unit: ResampleUnit::Run, units: 3, samples: 3, ..ratio(4.9, 0.001) };
        assert_eq!(judged(row(runs)).verdict, RowVerdict::Slower);
    }

    #[test]
    fn what_cannot_be_told_says_so() {
        let none = RowEvidence { ratio: None, ..row(ratio(1.0, 0.01)) };
        assert_eq!(judged(none).reason, Some(VerdictReason::NoError));
        let once = judged(RowEvidence { drifts_unseen: true, ..row(ratio(1.3, 0.01)) });
        assert_eq!(
            (once.verdict, once.reason, once.settled_by),
            (RowVerdict::Slower, Some(VerdictReason::OneVisit), None)
        );
    }

    /// The samples that are said to settle a row settle it, and three quarters of them do not.
    #[test]
    fn the_samples_asked_for_settle_the_row() {
        for (value, reach, half_width) in
            [(1.00, 0.05, 0.03), (1.01, 0.02, 0.01), (1.03, 0.02, 0.015), (0.96, 0.05, 0.03), (1.20, 0.3, 0.2)]
        {
            let of = |times: f64| {
                let shrunk = MedianRatio { units: (50.0 * times) as usize, ..ratio(value, reach / times.sqrt()) };
                RowEvidence { half_width: half_width / times.sqrt(), ..row(shrunk) }
            };
            let needed = judged(of(1.0)).settled_by.unwrap();
            assert_eq!(needed.unit, ResampleUnit::Sample);
            let times = needed.count as f64 / 50.0;
            assert_ne!(judged(of(times * 1.02)).verdict, RowVerdict::Unsure, "{value} ± {reach}: {needed:?}");
            assert_eq!(judged(of(times * 0.75)).verdict, RowVerdict::Unsure, "{value} ± {reach}: {needed:?}");
        }
        let hopeless = judged(row(ratio(1.0199, 0.05)));
        assert_eq!((hopeless.verdict, hopeless.settled_by), (RowVerdict::Unsure, None));
    }

    #[test]
    fn visits_are_asked_for_in_runs() {
        let visits = MedianRatio { unit: ResampleUnit::Visit, units: 5, freedom: 8.0, ..ratio(1.0, 0.06) };
        let needed = judged(row(visits)).settled_by.unwrap();
        assert_eq!(needed.unit, ResampleUnit::Run);
        assert!((8..=12).contains(&needed.count), "{needed:?}");
    }
}
