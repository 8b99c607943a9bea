//! The normal distribution: its density, its probabilities, its quantiles, and what of it lies above a limit.

use super::SplitMix;
use std::f64::consts::{FRAC_1_SQRT_2, TAU};

/// Density of the standard normal distribution at `z`.
pub fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / TAU.sqrt()
}

/// Probability that a standard normal variable lies at or below `z`, to 1.2e-7 of the smaller tail.
pub fn below(z: f64) -> f64 {
    0.5 * erfc(-z * FRAC_1_SQRT_2)
}

/// The value that a standard normal variable stays below with probability `p`; infinite at 0 and 1. By halving, as nobody asks
/// for many of them.
pub fn quantile(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return if p <= 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if below(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// How many times as far from 0 as the normal quantile `z` the quantile of Student's distribution with so many degrees of freedom is
/// (the expansion of Abramowitz and Stegun, 26.7.5; to half a percent for two degrees and |z| up to 1.3, better for more).
pub fn student_over_normal(z: f64, degrees: f64) -> f64 {
    let (z2, z4, z6) = (z * z, z.powi(4), z.powi(6));
    1.0 + (z2 + 1.0) / (4.0 * degrees)
        + (5.0 * z4 + 16.0 * z2 + 3.0) / (96.0 * degrees.powi(2))
        + (3.0 * z6 + 19.0 * z4 + 17.0 * z2 - 15.0) / (384.0 * degrees.powi(3))
}

/// Mean of max(0, X) of a normal variable X with this mean and standard deviation.
pub fn positive_part(mean: f64, deviation: f64) -> f64 {
    if deviation <= 0.0 {
        return mean.max(0.0);
    }
    let z = mean / deviation;
    (deviation * density(z) + mean * below(z)).max(0.0)
}

/// Probability that a normal variable with this mean and standard deviation lies from `low` up to `high`, and the integrals
/// of x and of x² over that range; where an end is infinite the first of the three only.
pub fn moments_between(mean: f64, deviation: f64, low: f64, high: f64) -> [f64; 3] {
    if deviation <= 0.0 {
        let within = f64::from(u8::from(low <= mean && mean < high));
        return [within, within * mean, within * mean * mean];
    }
    let (a, b) = ((low - mean) / deviation, (high - mean) / deviation);
    let (probability, at_a, at_b) = (below(b) - below(a), density(a), density(b));
    let first = mean * probability + deviation * (at_a - at_b);
    let second = mean * mean * probability
        + 2.0 * mean * deviation * (at_a - at_b)
        + deviation * deviation * (probability + a * at_a - b * at_b);
    [probability, first, second.max(0.0)]
}

/// A standard normal deviate (Box and Muller, 1958).
pub fn sample(random: &mut SplitMix) -> f64 {
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    radius * (TAU * random.unit()).cos()
}

/// The complementary error function by a Chebyshev fit with a relative error below 1.2e-7 everywhere (Press et al., Numerical
/// Recipes, 2nd edition, section 6.2).
fn erfc(x: f64) -> f64 {
    const TERMS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let exponent = TERMS.iter().rev().fold(0.0, |sum, term| sum * t + term);
    let tail = t * (exponent - x * x).exp();
    if x >= 0.0 { tail } else { 2.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tabulated to ten digits.
    #[test]
    fn known_values() {
        for (z, p) in [(0.0, 0.5), (1.0, 0.841_344_746_1), (-1.281_551_565_5, 0.1), (-3.0, 0.001_349_898_0)] {
            assert!((below(z) - p).abs() < 2e-7, "{z}: {}", below(z));
            assert!((quantile(p) - z).abs() < 2e-6, "{p}: {}", quantile(p));
        }
        assert!((positive_part(0.0, 1.0) - 0.398_942_280_4).abs() < 1e-7);
        assert_eq!((positive_part(-2.0, 0.0), positive_part(3.0, 0.0)), (0.0, 3.0));
        assert_eq!((quantile(0.0), quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
    }

    /// Tabulated quantiles of Student's distribution over those of the normal one, at 10 % and at 5 %.
    #[test]
    fn student_lies_farther_out() {
        for (z, degrees, quantile) in
            [(-1.281_552, 2.0, -1.885_618), (-1.281_552, 4.0, -1.533_206), (-1.644_854, 9.0, -1.833_113)]
        {
            let ours = z * student_over_normal(z, degrees);
            assert!((ours / quantile - 1.0_f64).abs() < 0.005, "{degrees}: {ours}");
        }
        assert!((student_over_normal(-1.3, 1e6) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn moments_are_those_of_samples() {
        let (mean, deviation, low, high) = (0.4, 0.9, 0.0, 1.5);
        let mut random = SplitMix(7);
        let count = 200_000;
        let mut sums = [0.0; 3];
        for _ in 0..count {
            let x = mean + deviation * sample(&mut random);
            if (low..high).contains(&x) {
                sums = [sums[0] + 1.0, sums[1] + x, sums[2] + x * x];
            }
        }
        for (sum, exact) in sums.iter().zip(moments_between(mean, deviation, low, high)) {
            assert!((sum / f64::from(count) - exact).abs() < 0.005, "{sum} {exact}");
        }
        assert_eq!(moments_between(0.5, 0.0, 0.0, 1.0), [1.0, 0.5, 0.25]);
    }
}
