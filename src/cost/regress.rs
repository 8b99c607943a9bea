//! Fits by non-negative *relative* least squares, the choice between sets of features, and the interval that goes with
//! a fit.
//!
//! Fits of one family (the three products, the phases of a layer) choose together: one of them alone often has too few
//! cases to tell a needed feature from chance.
//!
//! Times span six orders of magnitude, so what is made small is Σ (predicted ÷ measured − 1)². Single wild measurements
//! get Huber weights. Which features a machine's times need is decided by cross-validation on the training cases, never
//! by how well the fit follows the cases it was made from.

use super::anchors::{self, Tuning};
use super::heldout::{self, HeldOutCase};
use super::nnls;
use crate::records::cost_model::Anchors;
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

/// A fitted sum of features, t = Σ coefficient · feature, corrected near measured cases.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearModel<F> {
    /// The features whose weighted sum is the time.
    pub features: Vec<F>,
    /// Cost of one unit of each feature in ns, in the order of `features`; never negative.
    pub coefficients: Vec<f64>,
    /// The correction near measured cases; `None` where it is of no use.
    pub anchors: Option<Anchors>,
}

/// Function that gives the value of a feature for one piece of work.
pub type Evaluate<F, W> = fn(&F, &W) -> f64;

/// The sizes of a piece of work in whose logarithms measured cases are near or far.
#[derive(Debug)]
pub struct Sizes<W> {
    /// Their names; without any there is no correction near measured cases.
    pub names: &'static [&'static str],
    /// Gives their values for one piece of work.
    pub values: fn(&[&'static str], &W) -> Vec<f64>,
}

impl<W> Sizes<W> {
    /// No sizes: nothing is corrected.
    pub const NONE: Sizes<W> = Sizes { names: &[], values: |_, _| Vec::new() };

    fn of(&self, work: &W) -> Vec<f64> {
        (self.values)(self.names, work)
    }
}

/// The forms that a fit for one kind of work may choose from.
pub struct Candidates<F, W> {
    /// Sets of features, simplest first.
    pub sets: Vec<Vec<F>>,
    /// Gives the value of a feature for one piece of work.
    pub evaluate: Evaluate<F, W>,
    /// The sizes that tell near from far.
    pub sizes: Sizes<W>,
    /// Standard errors of the difference by which a later set must be better than one before it.
    pub doubt: f64,
}

/// Fewest cases of a fit that a correction near them can be judged on.
const FEWEST_NEAR: usize = 6;

/// Cases of one fit.
pub type Cases<'a, W> = Vec<&'a FitCase<W>>;

/// What cross-validation chooses: the features, and the correction near measured cases.
struct Form<'a, F> {
    set: &'a [F],
    tuning: Option<Tuning>,
}

impl<F: Clone, W> Candidates<F, W> {
    /// Predicted time of one piece of work in ns.
    pub fn predict(&self, fit: &LinearModel<F>, work: &W) -> f64 {
        let factor = fit.anchors.as_ref().map_or(1.0, |anchors| anchors::factor(anchors, &self.sizes.of(work)));
        self.sum(fit, work) * factor
    }

    fn sum(&self, fit: &LinearModel<F>, work: &W) -> f64 {
        fit.features.iter().zip(&fit.coefficients).map(|(f, c)| c * (self.evaluate)(f, work)).sum()
    }

    /// The fit to `cases` as [`Candidates::fit_together`] makes it; `None` without cases.
    pub fn fit(&self, cases: &[&FitCase<W>]) -> Option<LinearModel<F>> {
        self.fit_together(&[cases.to_vec()]).pop()?
    }

    /// One fit for each group of cases, all of the form with the smallest cross-validated error; `None` for a group
    /// without cases.
    ///
    /// A larger set of features must be better by more than `doubt` standard errors of the difference, case by case, by
    /// 3 % of it and by 0.1 % of the time, and leave every group two cases a coefficient. The correction near measured
    /// cases must be better by 3 % and by 0.1 % of the time, and every group must have six cases.
    pub fn fit_together(&self, groups: &[Cases<W>]) -> Vec<Option<LinearModel<F>>> {
        let form = self.choose(groups);
        let fit = |cases: &Cases<W>| {
            let form = form.as_ref().filter(|_| !cases.is_empty())?;
            Some(self.fit_form(form, cases))
        };
        groups.iter().map(fit).collect()
    }

    /// Each case predicted once by a fit, its form chosen anew, that had not seen it: the outcomes of each group.
    pub fn held_out_together(&self, groups: &[Cases<W>]) -> Vec<Vec<HeldOutCase>> {
        let mut outcomes = vec![Vec::new(); groups.len()];
        for held in heldout::rounds(groups.iter().flatten().map(|c| c.key.as_str())) {
            let (out, training): (Vec<_>, Vec<_>) = groups.iter().map(|cases| split(cases, &held)).unzip();
            for ((outcomes, fit), out) in outcomes.iter_mut().zip(self.fit_together(&training)).zip(out) {
                outcomes.extend(fit.iter().flat_map(|fit| self.judge(fit, &out)));
            }
        }
        outcomes
    }

    fn choose(&self, groups: &[Cases<W>]) -> Option<Form<'_, F>> {
        let (first, rest) = self.sets.split_first()?;
        let form = |set, tuning| Form { set, tuning };
        let mut best = (form(first.as_slice(), None), self.errors(first, groups));
        let smallest = groups.iter().map(Vec::len).filter(|&n| n > 0).min()?;
        for set in rest.iter().filter(|set| smallest >= 2 * set.len()) {
            let errors = self.errors(set, groups);
            if gain(&errors, &best.1).is_some_and(|(gain, standard_error)| gain > self.doubt * standard_error) {
                best = (form(set, None), errors);
            }
        }
        if !self.sizes.names.is_empty() && smallest >= FEWEST_NEAR {
            let mean = |errors: &[f64]| stats::mean(errors).unwrap_or(f64::INFINITY);
            let corrected = Tuning::grid().zip(self.corrected_errors(best.0.set, groups));
            let nearest = corrected.min_by(|a, b| mean(&a.1).total_cmp(&mean(&b.1)));
            if let Some((tuning, _)) = nearest.filter(|(_, errors)| gain(errors, &best.1).is_some()) {
                best.0.tuning = Some(tuning);
            }
        }
        Some(best.0)
    }

    /// Held-out errors of one form, in an order that is the same for all forms.
    fn errors(&self, set: &[F], groups: &[Cases<W>]) -> Vec<f64> {
        let mut outcomes = Vec::new();
        each_round(groups, |out, training| outcomes.extend(self.judge(&self.fit_set(set, training), out)));
        outcomes.iter().map(error).collect()
    }

    /// Held-out errors with each correction of the grid, in the order of [`Candidates::errors`].
    fn corrected_errors(&self, set: &[F], groups: &[Cases<W>]) -> Vec<Vec<f64>> {
        let mut errors = vec![Vec::new(); Tuning::grid().count()];
        each_round(groups, |out, training| {
            let plain = self.fit_set(set, training);
            for (tuning, errors) in Tuning::grid().zip(&mut errors) {
                let fit = LinearModel { anchors: self.near(&plain, tuning, training), ..plain.clone() };
                errors.extend(self.judge(&fit, out).iter().map(error));
            }
        });
        errors
    }

    fn judge(&self, fit: &LinearModel<F>, out: &[&FitCase<W>]) -> Vec<HeldOutCase> {
        out.iter().map(|c| HeldOutCase::new(self.predict(fit, &c.work), c.ns)).collect()
    }

    fn fit_form(&self, form: &Form<F>, cases: &[&FitCase<W>]) -> LinearModel<F> {
        let mut fit = self.fit_set(form.set, cases);
        fit.anchors = form.tuning.and_then(|tuning| self.near(&fit, tuning, cases));
        fit
    }

    fn fit_set(&self, set: &[F], cases: &[&FitCase<W>]) -> LinearModel<F> {
        let rows: Vec<Vec<f64>> =
            cases.iter().map(|c| set.iter().map(|f| (self.evaluate)(f, &c.work)).collect()).collect();
        let times: Vec<f64> = cases.iter().map(|c| c.ns).collect();
        LinearModel { features: set.to_vec(), coefficients: relative(&rows, &times), anchors: None }
    }

    fn near(&self, fit: &LinearModel<F>, tuning: Tuning, cases: &[&FitCase<W>]) -> Option<Anchors> {
        let ratio = |c: &&FitCase<W>| (self.sizes.of(&c.work), c.ns / self.sum(fit, &c.work));
        anchors::fit(tuning, self.sizes.names, &cases.iter().map(ratio).collect::<Vec<_>>())
    }
}

/// The cases held out and those to fit, in every round of every group.
fn each_round<'a, W>(groups: &[Cases<'a, W>], mut round: impl FnMut(&[&'a FitCase<W>], &[&'a FitCase<W>])) {
    for cases in groups {
        for held in heldout::rounds(cases.iter().map(|c| c.key.as_str())) {
            let (out, training) = split(cases, &held);
            round(&out, &training);
        }
    }
}

/// |ln| so that predicting half and predicting double count the same; capped so that one case cannot decide.
fn error(outcome: &HeldOutCase) -> f64 {
    (outcome.predicted / outcome.measured).max(1e-9).ln().abs().min(1.0)
}

/// By how much the mean of `new` errors is smaller than that of the `old`, and the standard error of that, where it is
/// by 3 % of it and by a tenth of a percent of the time: less is not worth a feature, however sure it is.
fn gain(new: &[f64], old: &[f64]) -> Option<(f64, f64)> {
    let gains: Vec<f64> = old.iter().zip(new).map(|(o, n)| o - n).collect();
    let (gain, before) = (stats::mean(&gains)?, stats::mean(old)?);
    let variance = gains.iter().map(|g| (g - gain).powi(2)).sum::<f64>() / (gains.len() as f64 - 1.0).max(1.0);
    (gain > (0.03 * before).max(0.001)).then(|| (gain, (variance / gains.len() as f64).sqrt()))
}

fn split<'a, W>(cases: &[&'a FitCase<W>], held: &BTreeSet<String>) -> (Cases<'a, W>, Cases<'a, W>) {
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
        let candidates = Candidates { sets: vec![vec![0, 1]], evaluate: power, sizes: Sizes::NONE, doubt: 1.0 };
        let fit = candidates.fit(&data.iter().collect::<Vec<_>>()).unwrap();
        assert!((fit.coefficients[0] / 500.0 - 1.0).abs() < 0.04, "{fit:?}");
        assert!((fit.coefficients[1] / 3.0 - 1.0).abs() < 0.04, "{fit:?}");
    }

    /// Chance may favour a needless feature now and then, noise may hide a needed one; mostly neither may happen.
    #[test]
    fn the_features_that_made_the_data_are_chosen() {
        let mut random = SplitMix(4);
        let candidates = Candidates {
            sets: vec![vec![1], vec![0, 1], vec![0, 1, 2]],
            evaluate: power,
            sizes: Sizes::NONE,
            doubt: 1.0,
        };
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
            let candidates = Candidates { sets: vec![vec![0, 1]], evaluate: power, sizes: Sizes::NONE, doubt: 1.0 };
            let (mut inside, mut total) = (0, 0);
            for _ in 0..60 {
                let data = cases(n, 0.05, |x| 500.0 + 3.0 * x, &mut random);
                let all: Vec<_> = data.iter().collect();
                let fit = candidates.fit(&all).unwrap();
                let residuals: Vec<f64> = candidates
                    .held_out_together(std::slice::from_ref(&all))
                    .concat()
                    .iter()
                    .map(HeldOutCase::residual)
                    .collect();
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
        let candidates: Candidates<i32, f64> =
            Candidates { sets: vec![vec![1]], evaluate: power, sizes: Sizes::NONE, doubt: 1.0 };
        assert!(candidates.fit(&[]).is_none());
        let one = FitCase { work: 2.0, ns: 10.0, key: "a".into() };
        assert!((candidates.fit(&[&one]).unwrap().coefficients[0] - 5.0).abs() < 1e-6);
        assert!(candidates.held_out_together(&[vec![&one]]).concat().is_empty());
        assert_eq!(Spread::of(&[]), Spread::UNKNOWN);
    }
}
