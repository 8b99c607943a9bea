//! Student's t distribution with any positive number of degrees of freedom, by the regularised incomplete beta function.

use super::special::{incomplete_beta, ln_gamma};

/// Steps of Newton's method after which a value stands as it is.
const STEPS: usize = 300;

/// The chance that a variable with Student's t distribution lies at least as far from 0 as `t`, on either side:
/// P(|T| ≥ |t|) = I_x(ν/2, 1/2) with x = ν ÷ (ν + t²) (NIST Digital Library of Mathematical Functions, 8.17.i). With an
/// infinite `freedom` the distribution is the normal one.
pub fn two_sided(t: f64, freedom: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    // From a million degrees of freedom on, the two distributions agree to six digits as far out as p = 10⁻³⁰.
    let freedom = freedom.min(1e6);
    // ν ÷ (ν + t²) is 1 to the last digit for small t, where its complement still tells t from 0.
    let (beside, beyond) = (freedom / (freedom + t * t), t * t / (freedom + t * t));
    incomplete_beta(beside, beyond, freedom / 2.0, 0.5)
}

/// The positive t that |T| exceeds with probability `chance`: P(|T| ≥ t) = `chance`. Infinite where `chance` is 0 or
/// below, 0 where it is 1 or above.
pub fn critical(chance: f64, freedom: f64) -> f64 {
    if chance <= 0.0 {
        return f64::INFINITY;
    }
    let freedom = freedom.min(1e6);
    let mut t = 0.0;
    // The tail is convex in t > 0, so that Newton's steps from the left never pass the root.
    for _ in 0..STEPS {
        let step = (two_sided(t, freedom) - chance) / (2.0 * density(t, freedom));
        if step <= 1e-12 * t {
            break;
        }
        t += step;
    }
    t
}

/// The density of Student's t distribution.
fn density(t: f64, freedom: f64) -> f64 {
    let constant =
        ln_gamma((freedom + 1.0) / 2.0) - ln_gamma(freedom / 2.0) - (freedom * std::f64::consts::PI).ln() / 2.0;
    (constant - (freedom + 1.0) / 2.0 * (t * t / freedom).ln_1p()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, known: f64, relative: f64) {
        assert!((value / known - 1.0).abs() < relative, "{value:e} and {known:e}");
    }

    /// Known answers in closed form: one degree of freedom is the Cauchy distribution; for two P = 1 − t ÷ √(2 + t²).
    #[test]
    fn one_and_two_degrees_of_freedom_have_closed_forms() {
        for t in [1e-4, 0.3, 1.0, 2.5, 40.0] {
            close(two_sided(t, 1.0), 1.0 - 2.0 / std::f64::consts::PI * f64::atan(t), 1e-11);
            close(two_sided(t, 2.0), 1.0 - t / (2.0 + t * t).sqrt(), 1e-11);
        }
    }

    /// Known answers: quantiles as every table prints them (two-sided 5 %, 1 %), and the normal distribution's.
    #[test]
    fn critical_values_are_those_of_the_tables() {
        let tables = [
            (0.05, 1.0, 12.706_204_736),
            (0.05, 2.0, 4.302_652_730),
            (0.05, 4.0, 2.776_445_105),
            (0.05, 10.0, 2.228_138_852),
            (0.05, 30.0, 2.042_272_456),
            (0.01, 5.0, 4.032_142_984),
            (0.05, f64::INFINITY, 1.959_963_985),
        ];
        for (chance, freedom, known) in tables {
            let tolerance = if freedom.is_infinite() { 3e-6 } else { 1e-9 };
            close(critical(chance, freedom), known, tolerance);
        }
        assert_eq!((critical(0.0, 3.0), critical(1.0, 3.0)), (f64::INFINITY, 0.0));
    }

    /// Known answers from SciPy 1.17's `2 * t.sf`: far tails and broken degrees of freedom, which Welch's formula gives.
    #[test]
    fn far_tails_keep_their_digits() {
        let known = [
            (10.0, 2.31, 5.964030064531e-03),
            (35.0, 3.99, 4.076344437827e-06),
            (12.0, 8.0, 2.143866747689e-06),
            (6.5, 57.7, 2.056828908200e-08),
            (0.001, 6.4, 9.992325634322e-01),
            (20.0, 198.0, 2.068940257468e-49),
            (9.0, 1000000.0, 2.260973033493e-19),
        ];
        for (t, freedom, known) in known {
            close(two_sided(t, freedom), known, 1e-8);
        }
        assert_eq!((two_sided(0.0, 3.7), two_sided(f64::INFINITY, 3.7)), (1.0, 0.0));
    }

    #[test]
    fn the_tail_falls_as_t_grows_and_critical_turns_it_round() {
        for freedom in [1.0, 1.3, 2.0, 3.9, 8.0, 77.5, 998.0] {
            let mut before = 1.0;
            for i in 1..60 {
                let p = two_sided(f64::from(i) * 0.25, freedom);
                assert!(p < before && p > 0.0, "t {} freedom {freedom}", f64::from(i) * 0.25);
                before = p;
                close(two_sided(critical(p, freedom), freedom), p, 1e-8);
            }
        }
    }
}
