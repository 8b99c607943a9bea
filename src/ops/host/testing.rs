//! What the kernels' tests share: seeded random inputs, the error every comparison uses, a few f64 formulas.

use super::team::Team;
use crate::stats::SplitMix;

/// More threads than the machine may have: the cuts between pieces are what is tested.
pub const TEAM: Team = Team { threads: 3 };

/// One seeded generator per shape to try.
pub fn shapes(count: u64) -> impl Iterator<Item = SplitMix> {
    (0..count).map(|seed| SplitMix(0x5eed + 977 * seed))
}

/// Uniform in [−1, 1).
pub fn random(r: &mut SplitMix, len: usize) -> Vec<f32> {
    (0..len).map(|_| r.symmetric() as f32).collect()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// max|x − ref| / max|ref| ≤ `limit`; NaN and lengths that differ never pass.
#[track_caller]
pub fn close(what: &str, values: &[f32], exact: &[f64], limit: f64) {
    assert_eq!(values.len(), exact.len(), "{what}: lengths");
    let largest = exact.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    let largest = if largest == 0.0 { 1.0 } else { largest };
    for (at, (&value, &truth)) in values.iter().zip(exact).enumerate() {
        let error = (f64::from(value) - truth).abs() / largest;
        assert!(error <= limit, "{what}[{at}] is {value}, should be {truth}: error {error:.2e} of the largest");
    }
}

pub fn gelu_exact(x: f64) -> f64 {
    let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    0.5 * x * (1.0 + z.tanh())
}

pub fn gelu_slope_exact(x: f64) -> f64 {
    let slope = (2.0 / std::f64::consts::PI).sqrt();
    let t = (slope * (x + 0.044715 * x.powi(3))).tanh();
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope * (1.0 + 3.0 * 0.044715 * x * x)
}
