//! Resamples of medians, drawn without drawing the samples.
//!
//! The bootstrap draws n of n samples with replacement and takes the median of what it drew. Which samples that median
//! lies on depends on n alone: the resample's order statistics have the ranks ⌊n·U⌋ of the order statistics U of n
//! uniform numbers, and those follow beta distributions (Efron 1979, §3; David & Nagaraja, *Order Statistics*, 2003, §2.3).
//! So the ranks are drawn once for each n and looked up for every row of n samples: a resampled median costs one step in
//! place of n, and the same samples get the same interval whatever other rows stand beside them.
//!
//! Visits are drawn whole, with the samples they hold: to draw samples within them too would count their noise twice,
//! since it is in the visits' differences already (Davison & Hinkley, *Bootstrap Methods*, 1997, §3.8; Field & Welsh, *JRSS
//! B* 69, 2007). Few visits have few resamples, so all of them are taken, each with its probability, and nothing is left to
//! chance.

use super::special::incomplete_beta;
use crate::stats::{self, SplitMix};
use std::collections::BTreeMap;

/// Medians drawn for a row without visits.
pub const DRAWS: usize = 1000;
/// Up to so many different resamples of the visits are all taken (6 visits have 462); of more, as many are drawn.
const VISIT_DRAWS: usize = 500;
const SEED: u64 = 0xb0b_b1e5;

/// The draws of one comparison: made when a number of samples or of visits is first seen, kept for the next row.
#[derive(Debug)]
pub struct MedianResamples {
    ranks: BTreeMap<usize, Vec<MiddleRanks>>,
    visits: BTreeMap<usize, Vec<VisitDraw>>,
    pairs: Vec<usize>,
    dither: [Vec<f64>; 2],
}

/// Between which two of the sorted samples a resample's median lies half-way; twice the same for an odd number.
#[derive(Debug, Clone, Copy)]
struct MiddleRanks {
    lower: u32,
    upper: u32,
}

/// How often a resample holds each visit, and how likely that resample is.
#[derive(Debug, Clone)]
struct VisitDraw {
    counts: Vec<u32>,
    probability: f64,
}

impl Default for MedianResamples {
    fn default() -> Self {
        let mut random = SplitMix(SEED);
        let mut pairs: Vec<usize> = (0..DRAWS).collect();
        random.shuffle(&mut pairs);
        let mut dither = [stratified(), stratified()];
        dither.iter_mut().for_each(|side| random.shuffle(side));
        MedianResamples { ranks: BTreeMap::new(), visits: BTreeMap::new(), pairs, dither }
    }
}

impl MedianResamples {
    /// [`DRAWS`] medians of resamples of the sorted values, in rising order but for the `tick`: each is moved by a uniform
    /// amount of up to half of it either way, since a clock that moves in ticks tells no more. Empty where there are fewer
    /// than two values.
    pub fn medians(&mut self, sorted: &[f64], tick: f64, side: DrawSide) -> Vec<f64> {
        if sorted.len() < 2 {
            return Vec::new();
        }
        let ranks = self.ranks.entry(sorted.len()).or_insert_with(|| middle_ranks(sorted.len()));
        let middle = |r: &MiddleRanks| (sorted[r.lower as usize] + sorted[r.upper as usize]) / 2.0;
        if tick <= 0.0 {
            return ranks.iter().map(middle).collect();
        }
        let dither = &self.dither[side as usize];
        ranks.iter().zip(dither).map(|(ranks, u)| middle(ranks) + tick * (u - 0.5)).collect()
    }

    /// The variance of [`Self::medians`] without a tick, from every fifth of the draws; they are stratified.
    pub fn variance_of_median(&mut self, sorted: &[f64]) -> Option<f64> {
        if sorted.len() < 2 {
            return None;
        }
        let ranks = self.ranks.entry(sorted.len()).or_insert_with(|| middle_ranks(sorted.len()));
        let middle = |r: &MiddleRanks| (sorted[r.lower as usize] + sorted[r.upper as usize]) / 2.0;
        let drawn: Vec<f64> = ranks.iter().skip(2).step_by(5).map(middle).collect();
        mean_square(&drawn)
    }

    /// The differences other − reference of medians drawn for both sides, in the order of a shuffle that is always the same.
    pub fn differences(&self, reference: &[f64], other: &[f64]) -> Vec<f64> {
        self.pairs.iter().zip(reference).map(|(&pair, reference)| other[pair] - reference).collect()
    }

    /// The variance of the median of all samples over resamples of the visits. `sorted` holds every sample, in rising order,
    /// with the number of its visit, below `visits`. `None` where there are fewer than two visits.
    pub fn variance_over_visits(&mut self, sorted: &[(f64, usize)], visits: usize) -> Option<f64> {
        if visits < 2 || sorted.is_empty() {
            return None;
        }
        let draws = self.visits.entry(visits).or_insert_with(|| visit_draws(visits));
        let before = samples_before(sorted, visits);
        let medians: Vec<(f64, f64)> =
            draws.iter().map(|draw| (weighted_median(sorted, &before, &draw.counts), draw.probability)).collect();
        // Counted from the first draw, so that visits that agree have no variance at all.
        let first = medians[0].0;
        let mean = first + medians.iter().map(|(median, probability)| (median - first) * probability).sum::<f64>();
        Some(medians.iter().map(|(median, probability)| (median - mean).powi(2) * probability).sum())
    }
}

/// The mean squared distance from the mean; `None` of no values.
pub(super) fn mean_square(values: &[f64]) -> Option<f64> {
    let mean = stats::mean(values)?;
    Some(values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64)
}

/// Which of the two sides draws are for: their dithers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawSide {
    /// The side in the denominator.
    Reference = 0,
    /// The side in the numerator.
    Other = 1,
}

/// The middles of [`DRAWS`] equal parts of 0…1: a stratified sample of the uniform distribution.
fn stratified() -> Vec<f64> {
    (0..DRAWS).map(|i| (i as f64 + 0.5) / DRAWS as f64).collect()
}

/// The ranks of resamples of `n` values. With h = ⌊n/2⌋ the upper middle is the order statistic h + 1 of n uniform numbers,
/// V ~ Beta(h + 1, n − h); for even n the lower middle is the largest of the h below it, V · W^(1/h) with W uniform.
fn middle_ranks(n: usize) -> Vec<MiddleRanks> {
    let half = n / 2;
    let rank = |position: f64| (position * n as f64).min(n as f64 - 1.0) as u32;
    let mut lower_draws = stratified();
    SplitMix(SEED ^ n as u64).shuffle(&mut lower_draws);
    let upper_middles = beta_at_grid(n, half as f64 + 1.0, (n - half) as f64);
    upper_middles
        .into_iter()
        .zip(lower_draws)
        .map(|(v, w)| {
            let upper = rank(v);
            let lower = if n % 2 == 1 { upper } else { rank(v * w.powf(1.0 / half as f64)) };
            MiddleRanks { lower, upper }
        })
        .collect()
}

/// Quantiles of Beta(a, b) at the stratified levels, read between its values at 0, 1/n, …, 1: their ranks are exact.
fn beta_at_grid(n: usize, a: f64, b: f64) -> Vec<f64> {
    // Beyond eight standard deviations nothing is drawn.
    let (mean, reach) = (a / (a + b), 8.0 * 0.5 / (n as f64).sqrt());
    let below = |i: usize| match i as f64 / n as f64 {
        x if x < mean - reach => 0.0,
        x if x > mean + reach => 1.0,
        x => incomplete_beta(x, 1.0 - x, a, b),
    };
    let mut quantiles = Vec::with_capacity(DRAWS);
    let (mut cell, mut from, mut to) = (0, 0.0, below(1));
    for level in stratified() {
        while level > to && cell + 1 < n {
            cell += 1;
            (from, to) = (to, below(cell + 1));
        }
        let within = if to > from { ((level - from) / (to - from)).clamp(0.0, 1.0 - 1e-9) } else { 0.0 };
        quantiles.push((cell as f64 + within) / n as f64);
    }
    quantiles
}

/// All resamples of the visits, or as many as are drawn where there are too many. Of two visits only one is drawn: two of
/// two would understate the variance of their mean by half.
fn visit_draws(visits: usize) -> Vec<VisitDraw> {
    let drawn = if visits == 2 { 1 } else { visits };
    if visits <= 6 {
        let mut all = Vec::new();
        every_draw(
            &mut vec![0; visits],
            0,
            drawn as u32,
            factorial(drawn) / (visits as f64).powi(drawn as i32),
            &mut all,
        );
        return all;
    }
    let mut random = SplitMix(SEED ^ visits as u64);
    (0..VISIT_DRAWS)
        .map(|_| {
            let mut counts = vec![0; visits];
            (0..drawn).for_each(|_| counts[random.below(visits)] += 1);
            VisitDraw { counts, probability: 1.0 / VISIT_DRAWS as f64 }
        })
        .collect()
}

/// Appends every way to give the visits from `visit` on the `left` places that are still free. `probability` is that of the
/// multinomial distribution, n! ÷ (kⁿ Π countᵢ!), for the visits before.
fn every_draw(counts: &mut Vec<u32>, visit: usize, left: u32, probability: f64, all: &mut Vec<VisitDraw>) {
    if visit + 1 == counts.len() {
        counts[visit] = left;
        all.push(VisitDraw { counts: counts.clone(), probability: probability / factorial(left as usize) });
        return;
    }
    for count in 0..=left {
        counts[visit] = count;
        every_draw(counts, visit + 1, left - count, probability / factorial(count as usize), all);
    }
}

fn factorial(n: usize) -> f64 {
    (1..=n).map(|i| i as f64).product()
}

/// How many samples of each visit stand before each position, position by position; one position more than samples.
fn samples_before(sorted: &[(f64, usize)], visits: usize) -> Vec<u32> {
    let mut before = vec![0; visits * (sorted.len() + 1)];
    for (position, (_, visit)) in sorted.iter().enumerate() {
        let (done, next) = before.split_at_mut(visits * (position + 1));
        next[..visits].copy_from_slice(&done[visits * position..]);
        next[*visit] += 1;
    }
    before
}

/// The median of samples of which each counts as often as its visit.
fn weighted_median(sorted: &[(f64, usize)], before: &[u32], counts: &[u32]) -> f64 {
    let visits = counts.len();
    let weight_before = |position: usize| -> u64 {
        let counted = before[visits * position..visits * (position + 1)].iter().zip(counts);
        counted.map(|(samples, count)| u64::from(samples * count)).sum()
    };
    let total = weight_before(sorted.len());
    // The sample that holds the k-th copy, counted from 0, is the last one with at most k copies before it.
    let holder = |k: u64| {
        let (mut from, mut to) = (0, sorted.len() - 1);
        while from < to {
            let middle = (from + to).div_ceil(2);
            if weight_before(middle) <= k { from = middle } else { to = middle - 1 }
        }
        sorted[from].0
    };
    if total == 0 {
        return sorted[sorted.len() / 2].0; // only visits without samples were drawn
    }
    if total % 2 == 1 { holder(total / 2) } else { (holder(total / 2 - 1) + holder(total / 2)) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moments(values: &[f64]) -> (f64, f64) {
        let mean = stats::mean(values).unwrap();
        (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
    }

    /// The naive bootstrap that the ranks stand for.
    fn naive(values: &[f64], draws: usize) -> Vec<f64> {
        let mut random = SplitMix(3);
        (0..draws)
            .map(|_| {
                let drawn: Vec<f64> = values.iter().map(|_| values[random.below(values.len())]).collect();
                stats::median(&drawn).unwrap()
            })
            .collect()
    }

    /// Held against the bootstrap that draws every sample: the same centre, spread and tails.
    #[test]
    fn drawn_ranks_are_those_of_the_bootstrap() {
        let mut random = SplitMix(1);
        for n in [2, 3, 4, 5, 8, 12, 23, 40, 101] {
            let mut values: Vec<f64> = (0..n).map(|_| random.unit().powi(2)).collect();
            values.sort_by(f64::total_cmp);
            let mut fast = MedianResamples::default().medians(&values, 0.0, DrawSide::Other);
            let mut slow = naive(&values, 40_000);
            let ((mean, spread), (known_mean, known_spread)) = (moments(&fast), moments(&slow));
            assert!((mean - known_mean).abs() < 0.04 * known_spread, "{n}: mean {mean} and {known_mean}");
            assert!((spread / known_spread - 1.0).abs() < 0.05, "{n}: spread {spread} and {known_spread}");
            fast.sort_by(f64::total_cmp);
            slow.sort_by(f64::total_cmp);
            for q in [0.1, 0.25, 0.75, 0.9] {
                // Between two samples the share of resamples below either brackets the level.
                let at = stats::quantile_sorted(&fast, q).unwrap();
                let share =
                    |below: &dyn Fn(f64) -> bool| slow.iter().filter(|v| below(**v)).count() as f64 / slow.len() as f64;
                let (under, upto) = (share(&|v| v < at - 1e-12), share(&|v| v <= at + 1e-12));
                assert!(under < q + 0.03 && upto > q - 0.03, "{n} at {q}: {under}…{upto}");
            }
        }
    }

    /// Known answer: of three values the middle one is the resample's median in 13 of 27 cases.
    #[test]
    fn of_three_the_middle_one_is_drawn_13_times_in_27() {
        let drawn = MedianResamples::default().medians(&[1.0, 2.0, 3.0], 0.0, DrawSide::Other);
        let middle = drawn.iter().filter(|v| **v == 2.0).count();
        assert_eq!(middle, 482, "13/27 of 1,000, to the nearest whole number in either tail");
    }

    /// Known answers: the number of multisets and that their probabilities are whole; 27 resamples of three visits.
    #[test]
    fn every_resample_of_the_visits_is_there_with_its_probability() {
        for (visits, known) in [(2, 2), (3, 10), (4, 35), (5, 126), (6, 462), (7, VISIT_DRAWS)] {
            let draws = visit_draws(visits);
            assert_eq!(draws.len(), known, "{visits} visits");
            let total: f64 = draws.iter().map(|d| d.probability).sum();
            assert!((total - 1.0).abs() < 1e-12, "{visits} visits: {total}");
        }
        let one_each = visit_draws(3).into_iter().find(|d| d.counts == [1, 1, 1]).unwrap();
        assert!((one_each.probability - 6.0 / 27.0).abs() < 1e-12);
    }

    /// Known answer: visits that agree leave no variance; two visits give half of their distance squared, halved.
    #[test]
    fn the_variance_is_that_of_the_visits() {
        let mut resamples = MedianResamples::default();
        let same = [(1.0, 0), (1.0, 1), (1.0, 2), (1.0, 3), (1.0, 4)];
        assert_eq!(resamples.variance_over_visits(&same, 5), Some(0.0));
        let two = [(1.0, 0), (1.0, 0), (3.0, 1), (3.0, 1)];
        assert_eq!(resamples.variance_over_visits(&two, 2), Some(1.0));
        assert_eq!(resamples.variance_over_visits(&two[..2], 1), None);
    }

    #[test]
    fn a_tick_spreads_draws_that_agree() {
        let mut resamples = MedianResamples::default();
        let drawn = resamples.medians(&[5.0; 9], 2.0, DrawSide::Reference);
        let (mean, spread) = moments(&drawn);
        assert!((mean - 5.0).abs() < 1e-9 && (spread - 2.0 / 12f64.sqrt()).abs() < 1e-3, "{mean} {spread}");
        let other = resamples.medians(&[5.0; 9], 2.0, DrawSide::Other);
        assert!(moments(&resamples.differences(&drawn, &other)).1 > 1.3 * spread, "both sides are dithered alike");
    }

    proptest! {
        /// The search over counts finds the median of the samples written out.
        #[test]
        fn weighted_medians_are_those_of_the_samples_written_out(
            visits in prop::collection::vec(prop::collection::vec(0u8..20, 0..5), 1..6),
            mut counts in prop::collection::vec(0u32..4, 6),
        ) {
            counts.truncate(visits.len());
            let mut sorted: Vec<(f64, usize)> = visits
                .iter()
                .enumerate()
                .flat_map(|(visit, samples)| samples.iter().map(move |s| (f64::from(*s), visit)))
                .collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            let written_out: Vec<f64> = sorted
                .iter()
                .flat_map(|(value, visit)| std::iter::repeat_n(*value, counts[*visit] as usize))
                .collect();
            prop_assume!(!written_out.is_empty());
            let before = samples_before(&sorted, visits.len());
            prop_assert_eq!(Some(weighted_median(&sorted, &before, &counts)), stats::median(&written_out));
        }
    }
}
