//! Rows of one group together: how many of each verdict, and the geometric mean of their ratios.

use super::ComparedRow;
use super::ratio::OUTSIDE;
use super::sample::variance;
use super::student;
use super::verdict::RowVerdict;
use crate::stats;
use std::collections::BTreeMap;

/// What the rows of one group say together.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSummary {
    /// The group's name, which its rows have in common.
    pub group: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of rows that are the same.
    pub same: usize,
    /// Number of rows in which the other side is faster.
    pub faster: usize,
    /// Number of rows in which the other side is slower.
    pub slower: usize,
    /// Number of rows that cannot be told.
    pub unsure: usize,
    /// Number of rows that were set apart, and are in nothing else here.
    pub set_apart: usize,
    /// Geometric mean of the ratios, with its interval; `None` where no row has a ratio.
    pub mean: Option<GeometricMean>,
}

/// The geometric mean of ratios with its 95 % interval: of these rows, not of others like them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeometricMean {
    /// The mean.
    pub ratio: f64,
    /// The ends of its interval; `None` where a row drifts in a way that its own interval does not tell.
    pub interval: Option<(f64, f64)>,
}

/// Summaries of the groups that `key` puts rows into, in the order of their names.
pub fn summarise_groups(rows: &[ComparedRow], key: impl Fn(&ComparedRow) -> String) -> Vec<GroupSummary> {
    let mut groups: BTreeMap<String, Vec<&ComparedRow>> = BTreeMap::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups.into_iter().map(|(group, rows)| summarise(group, &rows)).collect()
}

fn summarise(group: String, rows: &[&ComparedRow]) -> GroupSummary {
    let count = |verdict| rows.iter().filter(|row| row.judged.is_some_and(|j| j.verdict == verdict)).count();
    GroupSummary {
        group,
        rows: rows.len(),
        same: count(RowVerdict::Same),
        faster: count(RowVerdict::Faster),
        slower: count(RowVerdict::Slower),
        unsure: count(RowVerdict::Unsure),
        set_apart: rows.iter().filter(|row| row.set_apart.is_some()).count(),
        mean: geometric_mean(rows),
    }
}

/// The mean over rows of the logarithms of their ratios, of rows whose error is known if there are any. Its variance is that of the rows, Σ vᵢ ÷ m², as though their
/// errors were independent, or that of the mean over rows in each run or visit, whichever is larger: what slows all
/// rows of a run alike does not average out over rows.
fn geometric_mean(rows: &[&ComparedRow]) -> Option<GeometricMean> {
    let counted: Vec<&ComparedRow> = rows.iter().copied().filter(|row| row.set_apart.is_none()).collect();
    let ratios: Vec<_> = counted.iter().filter_map(|row| row.ratio).collect();
    if ratios.is_empty() {
        let plain: Vec<f64> = counted.iter().filter_map(|row| row.plain_ratio()).map(f64::ln).collect();
        return stats::mean(&plain).map(|mean| GeometricMean { ratio: mean.exp(), interval: None });
    }
    let count = ratios.len() as f64;
    let mean = ratios.iter().map(|ratio| ratio.ratio.ln()).sum::<f64>() / count;
    let (variance, freedom) = variance_of_mean(&counted);
    let reach = student::critical(OUTSIDE, freedom) * variance.sqrt();
    let told = counted.iter().all(|row| !row.drifts_unseen);
    let interval = told.then(|| ((mean - reach).exp(), (mean + reach).exp()));
    Some(GeometricMean { ratio: mean.exp(), interval })
}

/// The variance of the mean over rows, and its degrees of freedom. Rows of equally many runs (or visits) on both sides make a
/// class of their own, of which what they share is told; classes are taken to be off alike, since they are of the same runs.
fn variance_of_mean(rows: &[&ComparedRow]) -> (f64, f64) {
    let mut classes: BTreeMap<(usize, usize), Vec<&ComparedRow>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.ratio.is_some()) {
        classes.entry((row.reference_ln_units.len(), row.other_ln_units.len())).or_default().push(row);
    }
    let all: usize = classes.values().map(Vec::len).sum();
    let (mut error, mut freedom) = (0.0, f64::INFINITY);
    for class in classes.values() {
        let count = class.len() as f64;
        let squares: Vec<(f64, f64)> = class
            .iter()
            .filter_map(|row| row.ratio)
            .map(|ratio| ((ratio.standard_error / count).powi(2), ratio.freedom))
            .collect();
        let independent = together(&squares);
        let shared = shared_error(class).filter(|shared| shared.0 > independent.0);
        let (variance, of_class) = shared.unwrap_or(independent);
        error += count / all as f64 * variance.sqrt();
        freedom = freedom.min(of_class);
    }
    (error * error, freedom)
}

/// The variance of a sum and its degrees of freedom (Satterthwaite 1946), from those of its parts.
fn together(parts: &[(f64, f64)]) -> (f64, f64) {
    let sum: f64 = parts.iter().map(|(variance, _)| variance).sum();
    let spread: f64 = parts.iter().map(|(variance, freedom)| variance.powi(2) / freedom).sum();
    let least = parts.iter().map(|(_, freedom)| *freedom).fold(f64::INFINITY, f64::min);
    (sum, if spread > 0.0 { sum * sum / spread } else { least })
}

/// The variance of the group's mean as its runs (or visits) differ when all rows of each are taken together. `None` where
/// rows differ in how many there are, or a side has only one.
fn shared_error(rows: &[&ComparedRow]) -> Option<(f64, f64)> {
    let reference = unit_means(rows.iter().map(|row| row.reference_ln_units.as_slice()))?;
    let other = unit_means(rows.iter().map(|row| row.other_ln_units.as_slice()))?;
    let part = |means: &[f64]| variance(means).map(|v| (v / means.len() as f64, means.len() as f64 - 1.0));
    Some(together(&[part(&reference)?, part(&other)?]))
}

/// The mean over rows of each unit's logarithm.
fn unit_means<'a>(mut rows: impl Iterator<Item = &'a [f64]>) -> Option<Vec<f64>> {
    let mut sums = rows.next()?.to_vec();
    let mut count = 1.0;
    for row in rows {
        if row.len() != sums.len() {
            return None;
        }
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        count += 1.0;
    }
    sums.iter_mut().for_each(|sum| *sum /= count);
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::super::verdict::VerdictRule;
    use super::super::{compare_sides, planted};
    use super::*;
    use crate::compare::planted::Planted;
    use crate::records::Measurement;

    fn compared(planted: &Planted, rows: usize, seed: u64) -> Vec<ComparedRow> {
        let (reference, other) = planted::sides(planted, rows, seed);
        let runs = |side: &'static [Vec<Measurement>]| side.iter().map(Vec::as_slice).collect::<Vec<_>>();
        compare_sides(&runs(reference.leak()), &runs(other.leak()), Some(&VerdictRule::default())).rows
    }

    fn mean_of(rows: &[ComparedRow]) -> (f64, f64, f64) {
        let mean = summarise_groups(rows, |_| "all".into())[0].mean.unwrap();
        let (low, high) = mean.interval.unwrap();
        (mean.ratio, low, high)
    }

    #[test]
    fn groups_count_their_verdicts() {
        let rows = compared(&Planted { moved: 0.5, effect: 0.10, ..Planted::QUIET }, 40, 1);
        let groups = summarise_groups(&rows, |row| row.id.split('/').nth(1).unwrap_or("").to_string());
        let names: Vec<&str> = groups.iter().map(|group| group.group.as_str()).collect();
        assert_eq!(names, ["left", "moved"]);
        assert_eq!((groups[0].same + groups[1].slower, groups[0].slower + groups[1].same), (40, 0));
        assert!((groups[1].mean.unwrap().ratio - 1.10).abs() < 0.003, "{:?}", groups[1].mean);
    }

    /// Known answer: the mean of many rows is surer than each of them, and its interval holds the truth as often as it says.
    #[test]
    fn the_mean_of_a_group_covers_as_often_as_it_says() {
        let covered = (0..200)
            .filter(|seed| {
                let (_, low, high) = mean_of(&compared(&Planted::QUIET, 20, *seed));
                low <= 1.0 && 1.0 <= high
            })
            .count();
        assert!((180..=199).contains(&covered), "{covered} of 200");
    }

    /// What slows every row of a run alike does not average out over rows: the mean must not be surer than the runs allow.
    #[test]
    fn a_run_that_is_slow_as_a_whole_widens_the_means_interval() {
        let alike = Planted { runs: 3, shared_drift: 0.02, ..Planted::QUIET };
        let covered = (0..200)
            .filter(|seed| {
                let (_, low, high) = mean_of(&compared(&alike, 20, *seed));
                low <= 1.0 && 1.0 <= high
            })
            .count();
        assert!((180..=199).contains(&covered), "{covered} of 200");
    }

    /// A row that one run lacks leaves the others as unsure of their runs as they were.
    #[test]
    fn a_row_with_fewer_runs_does_not_make_the_mean_surer() {
        let alike = Planted { runs: 3, shared_drift: 0.02, ..Planted::QUIET };
        let covered = (0..100)
            .filter(|seed| {
                let (mut reference, other) = planted::sides(&alike, 20, *seed);
                reference[0].pop();
                let runs = |side: Vec<Vec<Measurement>>| -> Vec<&'static [Measurement]> {
                    side.leak().iter().map(Vec::as_slice).collect()
                };
                let rows = compare_sides(&runs(reference), &runs(other), Some(&VerdictRule::default())).rows;
                let (_, low, high) = mean_of(&rows);
                low <= 1.0 && 1.0 <= high
            })
            .count();
        assert!(covered >= 90, "{covered} of 100");
    }

    #[test]
    fn rows_of_one_visit_on_a_host_have_a_mean_and_no_interval() {
        let (mut reference, mut other) = planted::sides(&Planted::QUIET, 5, 1);
        for record in reference[0].iter_mut().chain(&mut other[0]) {
            record.backend = crate::records::measurement::Backend::Host;
        }
        let rows = compare_sides(&[&reference[0]], &[&other[0]], Some(&VerdictRule::default())).rows;
        let summary = &summarise_groups(&rows, |_| "all".into())[0];
        assert_eq!((summary.same, summary.mean.unwrap().interval), (5, None));
        assert!(summarise_groups(&[], |_| "all".into()).is_empty());
    }
}
