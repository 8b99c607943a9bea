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

/// Of a normal variable X with this mean and standard deviation: the probability that X ≤ `limit`, and mean and standard deviation of X
/// where it is.
pub fn at_most(mean: f64, deviation: f64, limit: f64) -> (f64, f64, f64) {
    if deviation <= 0.0 {
        return (f64::from(u8::from(mean <= limit)), mean, 0.0);
    }
    let z = (limit - mean) / deviation;
    let share = below(z);
    if share < 1e-9 {
        return (0.0, limit, 0.0);
    }
    let shift = density(z) / share;
    (share, mean - deviation * shift, deviation * (1.0 - z * shift - shift * shift).max(0.0).sqrt())
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

    #[test]
    fn what_is_at_most_a_limit_is_as_sampled() {
        let (mean, deviation, limit) = (3.0, 2.0, 2.5);
        let mut random = SplitMix(8);
        let all: Vec<f64> = (0..200_000).map(|_| mean + deviation * sample(&mut random)).collect();
        let within: Vec<f64> = all.iter().copied().filter(|x| *x <= limit).collect();
        let average = within.iter().sum::<f64>() / within.len() as f64;
        let variance = within.iter().map(|x| (x - average).powi(2)).sum::<f64>() / within.len() as f64;
        let (share, of, spread) = at_most(mean, deviation, limit);
        assert!((share - within.len() as f64 / all.len() as f64).abs() < 0.005, "{share}");
        assert!((of - average).abs() < 0.02 && (spread - variance.sqrt()).abs() < 0.02, "{of} {spread}");
        assert_eq!((at_most(1.0, 0.0, 1.0), at_most(1.0, 0.0, 0.9).0), ((1.0, 1.0, 0.0), 0.0));
        assert_eq!(at_most(1.0, 0.1, -9.0).0, 0.0);
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
