//! Fits by non-negative *relative* least squares, the choice between sets of features, and the interval that goes with
//! a fit.
//!
//! Times span six orders of magnitude, so what is made small is Σ (predicted ÷ measured − 1)². Single wild measurements
//! get Huber weights. Which features a machine's times need is decided by cross-validation on the training cases, never
//! by how well the fit follows the cases it was made from.

use super::heldout::{self, HeldOutCase};
use super::nnls;
use crate::stats;
use std::collections::BTreeSet;

/// A measured case that a fit is made from: its work, its time, and the key under which it is held out.
#[derive(Debug, Clone)]
pub struct FitCase<W> {
    /// What the features are computed from.
    pub work: W,
    /// Measured time in ns.
    pub ns: f64,
    /// Key under which the case is held out: cases with the same key are held out together.
    pub key: String,
}

/// How far the truth lies from a prediction 95 % of the time, relative: truth ∈ `predicted · [1 − low, 1 + high]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Distance below the prediction, as a fraction of it.
    pub low: f64,
    /// Distance above the prediction, as a fraction of it.
    pub high: f64,
}

impl Spread {
    /// The interval of ± 50 % where no case could be held out, so that nothing is known about cases the fit has not
    /// seen.
    pub const UNKNOWN: Spread = Spread { low: 0.5, high: 0.5 };
    /// Least width of either side of an interval: two runs on an idle machine already differ by this much.
    pub const FLOOR: f64 = 0.005;
    const LOW_CAP: f64 = 0.9;
    const HIGH_CAP: f64 = 2.0;

    /// The interval from residuals (measured ÷ predicted − 1) on held-out cases: of 40 or more their 2.5 % and 97.5 %
    /// quantiles, moved out to the next rank as in conformal prediction (Lei et al., JASA 2018); of fewer, normal
    /// around zero with Student's t for their number.
    pub fn of(residuals: &[f64]) -> Spread {
        let finite: Vec<f64> = residuals.iter().copied().filter(|r| r.is_finite()).collect();
        let n = finite.len();
        if n == 0 {
            return Spread::UNKNOWN;
        }
        let (low, high) = if n >= 40 {
            let level = (0.975 * (n as f64 + 1.0) / n as f64).min(1.0);
            let quantile = |q| stats::quantile(&finite, q).unwrap_or(0.0);
            (-quantile(1.0 - level), quantile(level))
        } else {
            let rms = (finite.iter().map(|r| r * r).sum::<f64>() / n as f64).sqrt();
            let half = student(n) * rms * (1.0 + 1.0 / n as f64).sqrt();
            (half, half)
        };
        Spread { low: low.clamp(Self::FLOOR, Self::LOW_CAP), high: high.clamp(Self::FLOOR, Self::HIGH_CAP) }
    }
}

/// 97.5 % quantile of Student's t with `n` degrees of freedom (Abramowitz & Stegun 26.7.5 beyond the small ones).
fn student(n: usize) -> f64 {
    const SMALL: [f64; 5] = [12.706, 4.303, 3.182, 2.776, 2.571];
    let (z, v) = (1.959_964_f64, n as f64);
    match n {
        0 => f64::INFINITY,
        1..=5 => SMALL[n - 1],
        _ => z + (z.powi(3) + z) / (4.0 * v) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v),
    }
}

/// A fitted sum of features: t = Σ coefficient · feature.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearModel<F> {
    /// The features whose weighted sum is the time.
    pub features: Vec<F>,
    /// Cost of one unit of each feature in ns, in the order of `features`; never negative.
    pub coefficients: Vec<f64>,
}

/// Function that gives the value of a feature for one piece of work.
pub type Evaluate<F, W> = fn(&F, &W) -> f64;

/// The sets of features that a fit for one kind of work may choose from.
pub struct Candidates<F, W> {
    /// Sets of features, simplest first.
    pub sets: Vec<Vec<F>>,
    /// Gives the value of a feature for one piece of work.
    pub evaluate: Evaluate<F, W>,
}

impl<F: Clone, W> Candidates<F, W> {
    /// Predicted time of one piece of work in ns: Σ coefficient · feature.
    pub fn predict(&self, fit: &LinearModel<F>, work: &W) -> f64 {
        fit.features.iter().zip(&fit.coefficients).map(|(f, c)| c * (self.evaluate)(f, work)).sum()
    }

    /// The candidate with the smallest cross-validated error, fitted to all of `cases`; `None` without cases. A larger
    /// set must be better by more than two standard errors of the difference, case by case, by 3 % of it and by 0.1 %
    /// of the time, and have two cases a coefficient.
    pub fn fit(&self, cases: &[&FitCase<W>]) -> Option<LinearModel<F>> {
        let (first, rest) = self.sets.split_first()?;
        if cases.is_empty() {
            return None;
        }
        let mut best = (first, self.errors(first, cases));
        for set in rest.iter().filter(|set| cases.len() >= 2 * set.len()) {
            let errors = self.errors(set, cases);
            if clearly_smaller(&errors, &best.1) {
                best = (set, errors);
            }
        }
        Some(self.fit_set(best.0, cases))
    }

    /// Each case predicted once by a fit, its features chosen anew, that had not seen it.
    pub fn held_out(&self, cases: &[&FitCase<W>]) -> Vec<HeldOutCase> {
        self.in_rounds(cases, |training| self.fit(training))
    }

    /// Held-out errors of one set, in an order that is the same for all sets.
    fn errors(&self, set: &[F], cases: &[&FitCase<W>]) -> Vec<f64> {
        let outcomes = self.in_rounds(cases, |training| Some(self.fit_set(set, training)));
        // |ln| so that predicting half and predicting double count the same; capped so that one case cannot decide.
        outcomes.iter().map(|o| (o.predicted / o.measured).max(1e-9).ln().abs().min(1.0)).collect()
    }

    fn in_rounds(
        &self,
        cases: &[&FitCase<W>],
        fit: impl Fn(&[&FitCase<W>]) -> Option<LinearModel<F>>,
    ) -> Vec<HeldOutCase> {
        let mut outcomes = Vec::new();
        for held in heldout::rounds(cases.iter().map(|c| c.key.as_str())) {
            let (out, training) = split(cases, &held);
            let Some(fitted) = fit(&training) else { continue };
            outcomes.extend(out.iter().map(|c| HeldOutCase::new(self.predict(&fitted, &c.work), c.ns)));
        }
        outcomes
    }

    fn fit_set(&self, set: &[F], cases: &[&FitCase<W>]) -> LinearModel<F> {
        let rows: Vec<Vec<f64>> =
            cases.iter().map(|c| set.iter().map(|f| (self.evaluate)(f, &c.work)).collect()).collect();
        let times: Vec<f64> = cases.iter().map(|c| c.ns).collect();
        LinearModel { features: set.to_vec(), coefficients: relative(&rows, &times) }
    }
}

fn clearly_smaller(new: &[f64], old: &[f64]) -> bool {
    let gains: Vec<f64> = old.iter().zip(new).map(|(o, n)| o - n).collect();
    let (Some(gain), Some(before)) = (stats::mean(&gains), stats::mean(old)) else { return false };
    let variance = gains.iter().map(|g| (g - gain).powi(2)).sum::<f64>() / (gains.len() as f64 - 1.0).max(1.0);
    // A tenth of a percent of the time is not worth a feature, however sure it is.
    gain > (0.03 * before).max(0.001) && gain > 2.0 * (variance / gains.len() as f64).sqrt()
}

fn split<'a, W>(cases: &[&'a FitCase<W>], held: &BTreeSet<String>) -> (Vec<&'a FitCase<W>>, Vec<&'a FitCase<W>>) {
    cases.iter().copied().partition(|c| held.contains(&c.key))
}

/// Non-negative coefficients with the smallest Σ w·(rows·c ÷ times − 1)²; the weights w are Huber's, found by iterating.
pub fn relative(rows: &[Vec<f64>], times: &[f64]) -> Vec<f64> {
    // Huber's constant: 95 % efficiency where the noise is normal after all.
    const HUBER: f64 = 1.345;
    let columns = rows.first().map_or(0, Vec::len);
    let scaled: Vec<Vec<f64>> = rows.iter().zip(times).map(|(r, t)| r.iter().map(|v| v / t).collect()).collect();
    let mut weights = vec![1.0; rows.len()];
    let mut found = vec![0.0; columns];
    for _ in 0..12 {
        let weighted: Vec<Vec<f64>> =
            scaled.iter().zip(&weights).map(|(r, w): (_, &f64)| r.iter().map(|v| v * w.sqrt()).collect()).collect();
        let target: Vec<f64> = weights.iter().map(|w: &f64| w.sqrt()).collect();
        let next = nnls::solve(&weighted, &target);
        let moved = next.iter().zip(&found).any(|(a, b)| (a - b).abs() > 1e-9 * a.abs());
        found = next;
        // As many unknowns as cases: every residual is zero or unavoidable, there is nothing to weigh.
        if !moved || rows.len() < columns + 3 {
            break;
        }
        let residuals: Vec<f64> =
            scaled.iter().map(|r| (r.iter().zip(&found).map(|(a, b)| a * b).sum::<f64>() - 1.0).abs()).collect();
        let limit = HUBER * (1.4826 * stats::median(&residuals).unwrap_or(0.0)).max(1e-6);
        weights = residuals.iter().map(|r| if *r > limit { limit / r } else { 1.0 }).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    fn normal(random: &mut SplitMix) -> f64 {
        (0..12).map(|_| random.unit()).sum::<f64>() - 6.0
    }

    fn power(f: &i32, x: &f64) -> f64 {
        x.powi(*f)
    }

    fn cases(n: usize, noise: f64, truth: impl Fn(f64) -> f64, random: &mut SplitMix) -> Vec<FitCase<f64>> {
        (0..n)
            .map(|i| {
                let x = 10f64.powf(4.0 * random.unit());
                FitCase { work: x, ns: truth(x) * (1.0 + noise * normal(random)), key: format!("case-{i}") }
            })
            .collect()
    }

    #[test]
    fn small_and_large_cases_count_the_same() {
        let mut random = SplitMix(1);
        let data = cases(60, 0.0, |x| 500.0 + 3.0 * x, &mut random);
        let rows: Vec<Vec<f64>> = data.iter().map(|c| vec![1.0, c.work]).collect();
        let times: Vec<f64> = data.iter().map(|c| c.ns).collect();
        let c = relative(&rows, &times);
        assert!((c[0] - 500.0).abs() < 1e-3 && (c[1] - 3.0).abs() < 1e-6, "{c:?}");
    }

    #[test]
    fn wild_measurements_hardly_move_the_fit() {
        let mut random = SplitMix(2);
        let mut data = cases(60, 0.02, |x| 500.0 + 3.0 * x, &mut random);
        for i in [3, 17, 40] {
            data[i].ns *= 8.0;
        }
        let candidates = Candidates { sets: vec![vec![0, 1]], evaluate: power };
        let fit = candidates.fit(&data.iter().collect::<Vec<_>>()).unwrap();
        assert!((fit.coefficients[0] / 500.0 - 1.0).abs() < 0.04, "{fit:?}");
        assert!((fit.coefficients[1] / 3.0 - 1.0).abs() < 0.04, "{fit:?}");
    }

    /// Chance may favour a needless feature now and then, noise may hide a needed one; mostly neither may happen.
    #[test]
    fn the_features_that_made_the_data_are_chosen() {
        let mut random = SplitMix(4);
        let candidates = Candidates { sets: vec![vec![1], vec![0, 1], vec![0, 1, 2]], evaluate: power };
        let mut chosen = |truth: fn(f64) -> f64, right: &[i32]| {
            (0..20)
                .filter(|_| {
                    let data = cases(40, 0.05, truth, &mut random);
                    candidates.fit(&data.iter().collect::<Vec<_>>()).unwrap().features == right
                })
                .count()
        };
        let counts = [
            chosen(|x| 3.0 * x, &[1]),
            chosen(|x| 900.0 + 3.0 * x, &[0, 1]),
            chosen(|x| 900.0 + 3.0 * x + 0.01 * x * x, &[0, 1, 2]),
        ];
        assert!(counts.iter().all(|&c| c >= 15), "{counts:?} of 20");
    }

    /// The interval promises 95 %: count fresh cases inside it, over many fits, for few and for many held-out residuals.
    #[test]
    fn intervals_cover_about_ninety_five_percent() {
        for (n, seed) in [(12usize, 10u64), (80, 11)] {
            let mut random = SplitMix(seed);
            let candidates = Candidates { sets: vec![vec![0, 1]], evaluate: power };
            let (mut inside, mut total) = (0, 0);
            for _ in 0..60 {
                let data = cases(n, 0.05, |x| 500.0 + 3.0 * x, &mut random);
                let all: Vec<_> = data.iter().collect();
                let fit = candidates.fit(&all).unwrap();
                let residuals: Vec<f64> = candidates.held_out(&all).iter().map(HeldOutCase::residual).collect();
                let spread = Spread::of(&residuals);
                for fresh in cases(20, 0.05, |x| 500.0 + 3.0 * x, &mut random) {
                    let predicted = candidates.predict(&fit, &fresh.work);
                    let covered = predicted * (1.0 - spread.low)..=predicted * (1.0 + spread.high);
                    inside += usize::from(covered.contains(&fresh.ns));
                    total += 1;
                }
            }
            let share = inside as f64 / total as f64;
            assert!((0.92..0.985).contains(&share), "{n} cases: {share}");
        }
    }

    #[test]
    fn nothing_to_fit_is_no_fit() {
        let candidates: Candidates<i32, f64> = Candidates { sets: vec![vec![1]], evaluate: power };
        assert!(candidates.fit(&[]).is_none());
        let one = FitCase { work: 2.0, ns: 10.0, key: "a".into() };
        assert!((candidates.fit(&[&one]).unwrap().coefficients[0] - 5.0).abs() < 1e-6);
        assert!(candidates.held_out(&[&one]).is_empty());
        assert_eq!(Spread::of(&[]), Spread::UNKNOWN);
    }
}
