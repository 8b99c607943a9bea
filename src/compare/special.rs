//! Special functions that distributions are made of: gamma and the incomplete beta function.

/// Terms of a continued fraction after which a value stands as it is.
const STEPS: usize = 300;

/// The regularised incomplete beta function I_x(a, b) for `x` in 0…1 and its complement `rest` = 1 − x, by the continued
/// fraction 8.17.22 of the NIST Digital Library, evaluated by Lentz's method (Press et al., *Numerical Recipes*, 2007,
/// §6.4). Both `x` and `rest` are asked for, because 1 − x loses the digits of a small one.
pub fn incomplete_beta(x: f64, rest: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if rest <= 0.0 {
        return 1.0;
    }
    // The fraction converges fast below the distribution's mean; above it the other tail's does.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - tail(rest, x, b, a);
    }
    tail(x, rest, a, b)
}

fn tail(x: f64, rest: f64, a: f64, b: f64) -> f64 {
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * rest.ln()).exp() / a;
    front * fraction(x, a, b)
}

fn fraction(x: f64, a: f64, b: f64) -> f64 {
    // Lentz: a denominator of 0 is replaced by a tiny number.
    let apart = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / apart(1.0 - (a + b) * x / (a + 1.0)));
    let mut value = d;
    for step in 1..=STEPS {
        let m = step as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / apart(1.0 + term * d);
            c = apart(1.0 + term / c);
            change = c * d;
            value *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

/// The logarithm of the gamma function for positive `x`: Stirling's series (NIST Digital Library, 5.11.1), reached from
/// below by Γ(x) = Γ(x + 1) ÷ x.
pub fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 12.0 {
        product *= x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series =
        (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0)))) / x;
    (x - 0.5) * x.ln() - x + (2.0 * std::f64::consts::PI).ln() / 2.0 + series - f64::ln(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, known: f64, relative: f64) {
        assert!((value / known - 1.0).abs() < relative, "{value:e} and {known:e}");
    }

    /// Known answers: ln Γ(1/2) = ln π / 2, and factorials.
    #[test]
    fn the_gamma_function_knows_factorials() {
        close(ln_gamma(0.5), std::f64::consts::PI.ln() / 2.0, 1e-13);
        close(ln_gamma(11.0), f64::ln(3_628_800.0), 1e-14);
        assert!(ln_gamma(1.0).abs() < 1e-14 && ln_gamma(2.0).abs() < 1e-14);
    }

    /// Known answers: I_x(1, b) = 1 − (1 − x)^b, I_x(a, a) = 1/2 at 1/2, and a binomial tail written out.
    #[test]
    fn the_incomplete_beta_function_has_closed_forms() {
        for (x, b) in [(0.01, 3.0), (0.4, 0.5), (0.9, 7.5)] {
            close(incomplete_beta(x, 1.0 - x, 1.0, b), 1.0 - (1.0 - x).powf(b), 1e-12);
        }
        close(incomplete_beta(0.5, 0.5, 20.5, 20.5), 0.5, 1e-12);
        // P(Bin(5, 0.3) ≥ 3) = I_0.3(3, 3)
        close(incomplete_beta(0.3, 0.7, 3.0, 3.0), 0.16308, 1e-12);
        assert_eq!((incomplete_beta(0.0, 1.0, 2.0, 3.0), incomplete_beta(1.0, 0.0, 2.0, 3.0)), (0.0, 1.0));
    }
}
