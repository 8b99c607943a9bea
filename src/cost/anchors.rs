//! The correction of a fit by the measured cases nearest to what is asked.
//!
//! A sum of features is smooth and true far from what was measured; near it the measured cases know better: kernels
//! change with the sizes, launches hide behind small work. So a fit's time is multiplied by a smooth ratio, measured ÷
//! fitted at the cases around (simple kriging in the logarithms of the sizes; Matheron, *Economic Geology* 1963):
//!
//! ```text
//! ln ratio(x) = Σᵢ weightᵢ · K(dᵢ ÷ length),   dᵢ = √Σ ln²(x's size ÷ i's size),   K(h) = (1 + √3·h)·e^(−√3·h)
//! ```
//!
//! The weights solve (K + nugget)·weight = ln ratio: the nugget is how much of a ratio is noise. Far from all cases the
//! correction is 1, and nowhere beyond the ratios that were seen; at the very sizes of a case it is that case's ratio.

use crate::records::cost_model::{AnchorPoint, Anchors};
use crate::stats;
use std::collections::BTreeMap;

/// How far a measured case speaks for its surroundings, and how far it is believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Length of the kernel, in units of ln(size).
    pub length: f64,
    /// Variance of the measurements' noise, relative to that of the ratio: 0 believes every case.
    pub nugget: f64,
}

impl Tuning {
    const LENGTHS: [f64; 3] = [0.7, 1.4, 2.8];
    const NUGGETS: [f64; 4] = [0.0, 0.03, 0.1, 0.3];

    /// Everything that cross-validation chooses from.
    pub fn grid() -> impl Iterator<Item = Tuning> {
        let nuggets = |length| Self::NUGGETS.into_iter().map(move |nugget| Tuning { length, nugget });
        Self::LENGTHS.into_iter().flat_map(nuggets)
    }
}

/// Most points that a correction keeps: solving for their weights takes the third power of their number.
const MOST: usize = 256;
/// Keeps the factorisation defined where points nearly coincide.
const RIDGE: f64 = 1e-9;

/// The correction that follows from the ratio measured ÷ fitted at cases of these sizes, which are named `names`.
/// `None` where no ratio can be used.
pub fn fit(tuning: Tuning, names: &[&str], cases: &[(Vec<f64>, f64)]) -> Option<Anchors> {
    let points = merged(cases);
    if points.is_empty() {
        return None;
    }
    let logs: Vec<Vec<f64>> = points.iter().map(|(at, _)| logs(at)).collect();
    let rows: Vec<Vec<f64>> = (0..logs.len())
        .map(|i| {
            (0..=i)
                .map(|j| kernel(distance(&logs[i], &logs[j]) / tuning.length))
                .enumerate()
                .map(|(j, k)| if i == j { k + tuning.nugget + RIDGE } else { k })
                .collect()
        })
        .collect();
    let targets: Vec<f64> = points.iter().map(|(_, log_ratio)| *log_ratio).collect();
    let weights = solve(rows, targets);
    let point = |((at, log_ratio), weight): ((Vec<f64>, f64), f64)| AnchorPoint { at, ratio: log_ratio.exp(), weight };
    Some(Anchors {
        sizes: names.iter().map(ToString::to_string).collect(),
        length: tuning.length,
        nugget: tuning.nugget,
        points: points.into_iter().zip(weights).map(point).collect(),
    })
}

/// What the time of a fit is multiplied by at these sizes. Where a case of just these was measured it is that case's own
/// ratio: what was measured is answered as measured.
pub fn factor(anchors: &Anchors, sizes: &[f64]) -> f64 {
    PreparedAnchors::new(anchors).factor(sizes)
}

/// A correction whose points' logarithms are taken once, for whoever asks often.
#[derive(Debug)]
pub struct PreparedAnchors<'a> {
    anchors: &'a Anchors,
    /// Of one point after the other.
    logs: Vec<f64>,
    least: f64,
    greatest: f64,
}

impl<'a> PreparedAnchors<'a> {
    /// Takes the logarithms.
    pub fn new(anchors: &'a Anchors) -> Self {
        let log_ratios = || anchors.points.iter().map(|point| point.ratio.ln());
        PreparedAnchors {
            anchors,
            logs: anchors.points.iter().flat_map(|point| logs(&point.at)).collect(),
            least: log_ratios().fold(0.0, f64::min),
            greatest: log_ratios().fold(0.0, f64::max),
        }
    }

    /// Names of the sizes that distances are counted in.
    pub fn sizes(&self) -> &'a [String] {
        &self.anchors.sizes
    }

    /// What the time of a fit is multiplied by at these sizes, as [`factor`] says it.
    pub fn factor(&self, sizes: &[f64]) -> f64 {
        self.measured(sizes).map_or_else(|| self.between(sizes), |point| point.ratio)
    }

    /// The factor at sizes of which no case was measured.
    pub fn between(&self, sizes: &[f64]) -> f64 {
        let here = logs(sizes);
        let (mut sum, mut rest) = (0.0, self.logs.as_slice());
        for point in &self.anchors.points {
            let (logs, others) = rest.split_at(point.at.len());
            sum += point.weight * kernel(distance(&here, logs) / self.anchors.length);
            rest = others;
        }
        sum.clamp(self.least, self.greatest).exp()
    }

    /// The case of just these sizes; `None` where none was measured.
    pub fn measured(&self, sizes: &[f64]) -> Option<&'a AnchorPoint> {
        let same = |point: &&AnchorPoint| point.at.iter().zip(sizes).all(|(at, size)| *at == size.max(1.0));
        self.anchors.points.iter().find(same)
    }
}

/// One point for each place, with the mean of its cases' ln ratio, in the order of their sizes; of more than [`MOST`]
/// evenly many are left out.
fn merged(cases: &[(Vec<f64>, f64)]) -> Vec<(Vec<f64>, f64)> {
    // Sizes are positive: their bits have their order.
    let mut places: BTreeMap<Vec<u64>, Vec<f64>> = BTreeMap::new();
    for (at, ratio) in cases.iter().filter(|(_, ratio)| ratio.is_finite() && *ratio > 0.0) {
        places.entry(at.iter().map(|size| size.max(1.0).to_bits()).collect()).or_default().push(ratio.ln());
    }
    let point = |(at, ratios): (Vec<u64>, Vec<f64>)| {
        Some((at.into_iter().map(f64::from_bits).collect::<Vec<_>>(), stats::mean(&ratios)?))
    };
    let points: Vec<(Vec<f64>, f64)> = places.into_iter().filter_map(point).collect();
    let kept = points.len().min(MOST);
    (0..kept).map(|i| points[i * points.len() / kept].clone()).collect()
}

/// A size below 1 (of what an operation does not have) counts as 1.
fn logs(sizes: &[f64]) -> Vec<f64> {
    sizes.iter().map(|size| size.max(1.0).ln()).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
}

/// Matérn's covariance with smoothness 3/2 (Rasmussen & Williams, *Gaussian Processes for Machine Learning*, 4.17).
fn kernel(h: f64) -> f64 {
    let h = 3f64.sqrt() * h;
    (1.0 + h) * (-h).exp()
}

/// The solution of a positive definite system, given by the lower triangle of its rows (Cholesky).
fn solve(mut rows: Vec<Vec<f64>>, mut x: Vec<f64>) -> Vec<f64> {
    let n = rows.len();
    for i in 0..n {
        let (above, rest) = rows.split_at_mut(i);
        let row = &mut rest[0];
        for j in 0..i {
            let dot: f64 = row[..j].iter().zip(&above[j][..j]).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - dot) / above[j][j];
        }
        let squares: f64 = row[..i].iter().map(|v| v * v).sum();
        row[i] = (row[i] - squares).max(RIDGE).sqrt();
        let dot: f64 = row[..i].iter().zip(&x).map(|(a, b)| a * b).sum();
        x[i] = (x[i] - dot) / row[i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| rows[k][i] * x[k]).sum();
        x[i] = (x[i] - dot) / rows[i][i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    const EXACT: Tuning = Tuning { length: 1.4, nugget: 0.0 };

    fn cases(n: usize, seed: u64) -> Vec<(Vec<f64>, f64)> {
        let mut random = SplitMix(seed);
        let mut size = || 2f64.powf(4.0 + 10.0 * random.unit());
        let ratio = |a: &[f64]| (0.3 * (a[0].ln() / 2.0).sin()).exp();
        (0..n).map(|_| vec![size(), size()]).map(|at| (at.clone(), ratio(&at))).collect()
    }

    #[test]
    fn without_noise_the_correction_is_exact_at_every_case_and_close_between() {
        let known = cases(60, 1);
        let anchors = fit(EXACT, &["m", "n"], &known).unwrap();
        for (at, ratio) in &known {
            assert!((factor(&anchors, at) / ratio - 1.0).abs() < 1e-6, "{at:?}");
        }
        for (at, ratio) in cases(200, 2) {
            assert!((factor(&anchors, &at) / ratio - 1.0).abs() < 0.3, "{at:?}");
        }
        let off: Vec<f64> = cases(200, 2).iter().map(|(at, r)| (factor(&anchors, at) / r - 1.0).abs()).collect();
        assert!(stats::mean(&off).unwrap() < 0.06, "{:?}", stats::mean(&off));
    }

    #[test]
    fn far_away_nothing_is_corrected_and_nowhere_more_than_was_seen() {
        let anchors = fit(EXACT, &["m"], &[(vec![100.0], 1.5), (vec![200.0], 1.1)]).unwrap();
        assert!((factor(&anchors, &[1e12]) - 1.0).abs() < 1e-3);
        for i in 0..200 {
            let f = factor(&anchors, &[1.1f64.powi(i)]);
            assert!((1.0..=1.5 + 1e-9).contains(&f), "{i}: {f}");
        }
    }

    #[test]
    fn a_nugget_averages_and_cases_at_one_place_are_one() {
        let twice = [(vec![10.0], 2.0), (vec![10.0], 0.5)];
        assert!((factor(&fit(EXACT, &["m"], &twice).unwrap(), &[10.0]) - 1.0).abs() < 1e-9);
        let one = [(vec![10.0], 2.0)];
        let half = fit(Tuning { nugget: 1.0, ..EXACT }, &["m"], &one).unwrap();
        // Beside the case its ratio is half believed; at the case itself it is what was measured.
        assert!((factor(&half, &[10.000_001]) - 2f64.sqrt()).abs() < 1e-6);
        assert_eq!(factor(&half, &[10.0]), 2.0);
        assert_eq!(fit(EXACT, &["m"], &[(vec![10.0], f64::NAN)]), None);
    }

    #[test]
    fn many_cases_are_thinned_out_evenly() {
        let many: Vec<(Vec<f64>, f64)> = (1..=1000).map(|i| (vec![f64::from(i)], 1.1)).collect();
        let anchors = fit(Tuning { length: 0.7, nugget: 0.1 }, &["m"], &many).unwrap();
        assert_eq!(anchors.points.len(), MOST);
        assert!(anchors.points.windows(2).all(|p| (3.0..=4.0).contains(&(p[1].at[0] - p[0].at[0]))));
    }
}
