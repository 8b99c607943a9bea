//! What two or more runs say of each other: ratios of medians with intervals, a verdict a row, and what differs between
//! the machines. The command line calls it with records; plain functions of values: no hardware, no clock, no file.
//!
//! | file | part |
//! |---|---|
//! | [`rows`] | records of the same case side by side; rows that get no verdict |
//! | [`sample`] | one side of a row: its runs, visits and samples, and the error of its median |
//! | [`resample`] | the bootstrap of a median, without drawing samples |
//! | [`ratio`] | the ratio of two sides, its interval and its p |
//! | [`record`] | what `compare --format json` prints |
//! | [`measured`], [`models`], [`plans`] | measurements, cost models and plans as such a record |
//! | [`words`] | reasons in words |
//! | [`student`], [`special`] | Student's t distribution, and what it is made of |
//! | [`verdict`] | slower, faster, same or unsure, over all rows at once |
//! | [`summary`] | rows of a group together |
//! | [`environment`] | what differs between two machines or runs, and whether it matters |

pub mod environment;
pub mod measured;
pub mod models;
pub mod plans;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod planted_tests;
pub mod ratio;
pub mod record;
pub mod resample;
pub mod rows;
pub mod sample;
pub mod special;
pub mod student;
pub mod summary;
pub mod verdict;
pub mod words;

use crate::records::Measurement;
use crate::records::measurement::Kind;
use ratio::{MedianRatio, median_ratio};
use resample::{DrawSide, MedianResamples};
use rows::{JoinedRow, RowQuantity, SetApart};
use sample::{ComparedSide, ResampleUnit};
use verdict::{JudgedRow, RowCycles, RowEvidence, VerdictRule};

/// A side's figures of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowValue {
    /// The median in nanoseconds of one operation, or the median slowdown; of repeated runs the geometric mean of their
    /// medians.
    pub median: f64,
    /// The ends of its 95 % interval; `None` where nothing tells them.
    pub interval: Option<(f64, f64)>,
    /// Number of samples kept, of all runs; 0 where only the interval is kept.
    pub samples: usize,
    /// Number of runs.
    pub runs: usize,
}

/// One row of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedRow {
    /// The case's path.
    pub id: String,
    /// What the case measures.
    pub kind: Kind,
    /// What is compared.
    pub quantity: RowQuantity,
    /// The reference's figures; `None` where it has no time.
    pub reference: Option<RowValue>,
    /// The other side's figures; `None` where it has no time.
    pub other: Option<RowValue>,
    /// Ratio other ÷ reference; `None` where a side has no time, or nothing tells the ratio's error.
    pub ratio: Option<MedianRatio>,
    /// Why the row gets no verdict.
    pub set_apart: Option<SetApart>,
    /// The verdict; `None` for rows set apart, and where the sides differ on purpose.
    pub judged: Option<JudgedRow>,
    /// Whether the row drifts in a way that its interval does not tell: a host's time, visited once.
    pub drifts_unseen: bool,
    reference_ln_units: Vec<f64>,
    other_ln_units: Vec<f64>,
}

impl ComparedRow {
    /// Other ÷ reference, whether or not anything tells its error; `None` where a side has no positive figure.
    pub fn plain_ratio(&self) -> Option<f64> {
        let positive = |value: Option<RowValue>| value.map(|value| value.median).filter(|median| *median > 0.0);
        let plain = || Some(positive(self.other)? / positive(self.reference)?);
        self.ratio.map(|ratio| ratio.ratio).or_else(plain)
    }
}

/// One side held against the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct SideComparison {
    /// Rows that both sides have, in the reference's order.
    pub rows: Vec<ComparedRow>,
    /// Cases of the reference alone.
    pub only_reference: Vec<String>,
    /// Cases of the other side alone.
    pub only_other: Vec<String>,
}

/// Compares a side with the reference, row by row. Each side is a list of runs of one machine. `rule` is `None` where the
/// sides differ on purpose: then there are ratios, and no verdicts.
pub fn compare_sides(
    reference: &[&[Measurement]],
    other: &[&[Measurement]],
    rule: Option<&VerdictRule>,
) -> SideComparison {
    let joined = rows::join_rows(reference, other);
    let mut resamples = MedianResamples::default();
    let (mut compared, evidence): (Vec<ComparedRow>, Vec<RowEvidence>) =
        joined.rows.iter().map(|row| compare_row(row, &mut resamples)).unzip();
    if let Some(rule) = rule {
        let told: Vec<usize> = (0..compared.len()).filter(|&i| compared[i].set_apart.is_none()).collect();
        let evidence: Vec<RowEvidence> = told.iter().map(|&i| evidence[i]).collect();
        for (i, judged) in told.into_iter().zip(verdict::judge_rows(&evidence, rule)) {
            compared[i].judged = Some(judged);
        }
    }
    if rule.is_none() {
        // Side by side on purpose, another tool's figures are as good as ours.
        compared
            .iter_mut()
            .for_each(|row| row.set_apart = row.set_apart.take().filter(|why| *why != SetApart::Imported));
    }
    let owned = |ids: Vec<&str>| ids.into_iter().map(String::from).collect();
    SideComparison {
        rows: compared,
        only_reference: owned(joined.only_reference),
        only_other: owned(joined.only_other),
    }
}

fn compare_row(row: &JoinedRow, resamples: &mut MedianResamples) -> (ComparedRow, RowEvidence) {
    let quantity = row.quantity();
    let reference = ComparedSide::of(&rows::run_times(&row.reference, quantity), DrawSide::Reference, resamples);
    let other = ComparedSide::of(&rows::run_times(&row.other, quantity), DrawSide::Other, resamples);
    let both = reference.as_ref().zip(other.as_ref());
    let ratio = both.and_then(|(reference, other)| median_ratio(reference, other, resamples));
    let cycles = match both {
        Some((reference, other)) if row.on_gpu() && quantity == RowQuantity::Time => {
            cycles(reference, other, resamples)
        }
        _ => RowCycles::NotAsked,
    };
    let half_width = both.map_or(0.0, |(reference, other)| reference.half_width().max(other.half_width()));
    let units = |side: &Option<ComparedSide>| side.as_ref().map(ComparedSide::ln_units).unwrap_or_default();
    let visited_once = ratio.is_some_and(|ratio| ratio.unit == ResampleUnit::Sample);
    let drifts_unseen = visited_once && quantity == RowQuantity::Time && !row.on_gpu();
    let compared = ComparedRow {
        id: row.id.to_string(),
        kind: row.kind,
        quantity,
        reference: reference.as_ref().map(value),
        other: other.as_ref().map(value),
        ratio,
        set_apart: row.set_apart(),
        judged: None,
        drifts_unseen,
        reference_ln_units: units(&reference),
        other_ln_units: units(&other),
    };
    (compared, RowEvidence { ratio, cycles, half_width, drifts_unseen })
}

fn cycles(reference: &ComparedSide, other: &ComparedSide, resamples: &MedianResamples) -> RowCycles {
    let known = reference.in_cycles().zip(other.in_cycles());
    let ratio = known.and_then(|(reference, other)| median_ratio(&reference, &other, resamples));
    ratio.map_or(RowCycles::Unknown, RowCycles::Known)
}

fn value(side: &ComparedSide) -> RowValue {
    RowValue { median: side.median_ns(), interval: side.interval_ns(), samples: side.samples(), runs: side.runs() }
}

#[cfg(test)]
mod tests {
    use super::verdict::{RowVerdict, VerdictReason};
    use super::*;
    use crate::records::flags;
    use planted::Planted;

    #[test]
    fn the_same_records_give_the_same_rows_whatever_stands_beside_them() {
        let (reference, other) = planted::sides(&Planted { moved: 0.5, effect: 0.1, ..Planted::QUIET }, 30, 5);
        let all = compare_sides(&[&reference[0]], &[&other[0]], None);
        let few = compare_sides(&[&reference[0][20..]], &[&other[0]], None);
        assert_eq!(all.rows[20..], few.rows[..]);
        assert!(all.rows.iter().all(|row| row.judged.is_none() && row.ratio.is_some()));
        assert_eq!((few.only_reference.len(), few.only_other.len()), (0, 20));
    }

    #[test]
    fn rows_set_apart_have_a_ratio_and_no_verdict() {
        let (reference, mut other) = planted::sides(&Planted::QUIET, 3, 1);
        other[0][1].flags.push(flags::SOFTWARE.into());
        let rows = compare_sides(&[&reference[0]], &[&other[0]], Some(&VerdictRule::default())).rows;
        assert_eq!((rows[1].set_apart.clone(), rows[1].judged), (Some(SetApart::Software), None));
        assert!(rows[1].ratio.is_some());
        assert_eq!(rows[0].judged.unwrap().verdict, RowVerdict::Same);
    }

    /// The clock of one side is 10 % lower, and its times 10 % longer: in cycles nothing has changed.
    #[test]
    fn a_lower_clock_is_told_from_a_slower_kernel() {
        let (reference, mut other) = planted::sides(&Planted { moved: 1.0, effect: 0.10, ..Planted::QUIET }, 4, 1);
        other[0].iter_mut().take(2).for_each(|record| record.sm_clock_mhz = Some(1500.0 / 1.10));
        let rows = compare_sides(&[&reference[0]], &[&other[0]], Some(&VerdictRule::default())).rows;
        let told: Vec<RowVerdict> = rows.iter().map(|row| row.judged.unwrap().verdict).collect();
        assert_eq!(told, [RowVerdict::Unsure, RowVerdict::Unsure, RowVerdict::Slower, RowVerdict::Slower]);
        assert!(matches!(rows[0].judged.unwrap().reason, Some(VerdictReason::Clock { .. })));
    }
}
