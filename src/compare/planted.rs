//! Planted data: runs of which the truth is known, so that verdicts can be counted right or wrong.

use crate::compare::resample::{DrawSide, MedianResamples};
use crate::compare::verdict::{RowVerdict, VerdictReason, VerdictRule};
use crate::compare::{ComparedRow, compare_sides};
use crate::records::Measurement;
use crate::records::measurement::{Backend, Kind, Visit};
use crate::stats::{self, SplitMix};

/// How a sample's error is distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ErrorShape {
    /// Normal.
    Normal,
    /// Exponential from a floor, as times on a quiet machine.
    Skewed,
}

/// What is planted. Shares are relative to the true time, as standard deviations.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// Noise of samples: every row has its own, uniform between the two.
    pub noise: (f64, f64),
    /// Samples of a run, uniform between the two.
    pub samples: (usize, usize),
    pub shape: ErrorShape,
    /// Visits of a run, and how far they drift apart.
    pub visits: usize,
    pub visit_drift: f64,
    /// Runs a side, and how far they drift apart, row by row; every row has its own drift, uniform between the two.
    pub runs: usize,
    pub run_drift: (f64, f64),
    /// How far runs drift apart with all their rows alike.
    pub shared_drift: f64,
    /// Share of the rows in which the other side takes longer, and by how much.
    pub moved: f64,
    pub effect: f64,
}

impl Planted {
    /// Two identical runs of rows with 0.1 to 1 % noise and 40 to 100 samples.
    pub const QUIET: Planted = Planted {
        noise: (0.001, 0.01),
        samples: (40, 100),
        shape: ErrorShape::Normal,
        visits: 1,
        visit_drift: 0.0,
        runs: 1,
        run_drift: (0.0, 0.0),
        shared_drift: 0.0,
        moved: 0.0,
        effect: 0.0,
    };
}

/// Verdicts of rows with the same truth.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub rows: usize,
    pub same: usize,
    pub slower: usize,
    pub faster: usize,
    pub unsure: usize,
    /// Rows whose interval lies beyond the tolerance, and that did not stand among all.
    pub chance: usize,
    /// Rows whose interval holds the truth.
    pub covered: usize,
    /// Rows that would be the same if a tolerance that noise has widened counted for that too.
    pub same_within_tolerance: usize,
    /// Sum of the rows' half-widths, relative.
    pub half_widths: f64,
}

impl Tally {
    fn add(&mut self, row: &ComparedRow, truth: f64) {
        let (Some(judged), Some(ratio)) = (row.judged, row.ratio) else { return };
        self.rows += 1;
        match judged.verdict {
            RowVerdict::Same => self.same += 1,
            RowVerdict::Slower => self.slower += 1,
            RowVerdict::Faster => self.faster += 1,
            RowVerdict::Unsure => self.unsure += 1,
        }
        self.chance += usize::from(matches!(judged.reason, Some(VerdictReason::Chance { .. })));
        let within = ratio.low >= 1.0 - judged.tolerance && ratio.high <= 1.0 + judged.tolerance;
        self.same_within_tolerance += usize::from(within);
        self.covered += usize::from(ratio.low <= truth && truth <= ratio.high);
        self.half_widths += (ratio.high - ratio.low) / 2.0 / ratio.ratio;
    }

    /// A count as a percentage of the rows.
    pub fn percent(&self, count: usize) -> f64 {
        100.0 * count as f64 / self.rows.max(1) as f64
    }
}

/// Makes both sides and compares them: tallies of the rows that were left alone, and of those that were moved.
pub fn tally(planted: &Planted, rows: usize, seeds: std::ops::Range<u64>, rule: &VerdictRule) -> (Tally, Tally) {
    let (mut left, mut moved) = (Tally::default(), Tally::default());
    for seed in seeds {
        let (reference, other) = sides(planted, rows, seed);
        let a: Vec<&[Measurement]> = reference.iter().map(Vec::as_slice).collect();
        let b: Vec<&[Measurement]> = other.iter().map(Vec::as_slice).collect();
        for row in compare_sides(&a, &b, Some(rule)).rows {
            if row.id.ends_with("moved") {
                moved.add(&row, 1.0 + planted.effect);
            } else {
                left.add(&row, 1.0);
            }
        }
    }
    (left, moved)
}

/// The records of both sides, a list a run.
pub fn sides(planted: &Planted, rows: usize, seed: u64) -> (Vec<Vec<Measurement>>, Vec<Vec<Measurement>>) {
    let mut random = SplitMix(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x1234_5678);
    let mut resamples = MedianResamples::default();
    let mut sides = [vec![Vec::new(); planted.runs], vec![Vec::new(); planted.runs]];
    let shared: Vec<f64> = (0..2 * planted.runs).map(|_| planted.shared_drift * normal(&mut random)).collect();
    for row in 0..rows {
        let is_moved = random.unit() < planted.moved;
        let id = format!("{row}/{}", if is_moved { "moved" } else { "left" });
        let noise = between(&mut random, planted.noise);
        let drift = between(&mut random, planted.run_drift);
        let count = planted.samples.0 + random.below(planted.samples.1 - planted.samples.0 + 1);
        for (which, side) in sides.iter_mut().enumerate() {
            let true_ns = if is_moved && which == 1 { 1e6 * (1.0 + planted.effect) } else { 1e6 };
            for (run, records) in side.iter_mut().enumerate() {
                let shift = shared[which * planted.runs + run] + drift * normal(&mut random);
                records.push(record(&id, true_ns, shift, noise, count, planted, &mut random, &mut resamples));
            }
        }
    }
    let [reference, other] = sides;
    (reference, other)
}

#[allow(clippy::too_many_arguments)]
fn record(
    id: &str,
    true_ns: f64,
    shift: f64,
    noise: f64,
    count: usize,
    planted: &Planted,
    random: &mut SplitMix,
    resamples: &mut MedianResamples,
) -> Measurement {
    // On the host a case visited once gets no verdict; a GPU's clock is watched.
    let backend = if planted.visits > 1 { Backend::Host } else { Backend::Cuda };
    let mut record = Measurement::blank(id, Kind::Operation, backend);
    record.sm_clock_mhz = (backend == Backend::Cuda).then_some(1500.0);
    let mut visits = Vec::new();
    for _ in 0..planted.visits {
        let visit_shift = shift + planted.visit_drift * normal(random);
        let each = count / planted.visits;
        let times: Vec<f64> =
            (0..each).map(|_| true_ns * (visit_shift + noise * error(random, planted.shape)).exp()).collect();
        let median_ns = stats::median(&times).unwrap_or(true_ns);
        visits.push(Visit { at: String::new(), samples: each as u64, median_ns, isolated_ns: None });
        record.samples_ns.extend(times);
    }
    let mut sorted = record.samples_ns.clone();
    sorted.sort_by(f64::total_cmp);
    let mut drawn = resamples.medians(&sorted, 0.0, DrawSide::Reference);
    drawn.sort_by(f64::total_cmp);
    let medians = || visits.iter().map(|visit| visit.median_ns).filter(|_| planted.visits > 1);
    record.ci95_low_ns = stats::quantile_sorted(&drawn, 0.025).map(|low| medians().fold(low, f64::min));
    record.ci95_high_ns = stats::quantile_sorted(&drawn, 0.975).map(|high| medians().fold(high, f64::max));
    record.median_ns = stats::quantile_sorted(&sorted, 0.5);
    record.visits = (planted.visits > 1).then_some(visits);
    record
}

/// A standard normal number (Box & Muller 1958).
fn normal(random: &mut SplitMix) -> f64 {
    (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
}

fn between(random: &mut SplitMix, (low, high): (f64, f64)) -> f64 {
    low + (high - low) * random.unit()
}

/// A sample's error, with standard deviation 1 and median 0.
fn error(random: &mut SplitMix, shape: ErrorShape) -> f64 {
    match shape {
        ErrorShape::Normal => normal(random),
        ErrorShape::Skewed => -(1.0 - random.unit()).ln() - std::f64::consts::LN_2,
    }
}
