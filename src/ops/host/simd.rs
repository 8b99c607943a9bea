//! Loops for whatever vector unit the processor has, and the few functions that must vectorise with them.
//!
//! [`vectorized!`] compiles its closure once per instruction set (baseline, AVX2+FMA, AVX-512) and picks at run time;
//! a function called inside must be `#[inline(always)]` to be compiled with it. Sums go through [`LANES`] independent partial
//! sums: the compiler may not reorder floating-point additions by itself, and the error of a sum shrinks with it too.
//! Every function here lets NaN through.

/// Independent partial sums of a reduction: four 8-wide or two 16-wide registers.
pub const LANES: usize = 32;

/// `vectorized!(|| body)`: runs `body` compiled for the widest vectors this processor has.
///
/// A macro, because the closure must be inlined into each of the three compiled versions whatever its size. That takes
/// the attribute, and a closure that can be called once only (it consumes the token): any other is called through a
/// shim that has no such attribute and keeps the body on the baseline's instructions.
macro_rules! vectorized {
    (|| $body:expr) => {{
        let token = $crate::ops::host::simd::Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _consumed = token;
                $body
            },
        )
    }};
}
pub(super) use vectorized;

/// See [`vectorized!`].
pub struct Once;

/// Σ term(i, a\[i\], b\[i\]) in [`LANES`] partial sums.
#[inline(always)]
pub fn sum2(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut partial = [0.0f32; LANES];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a_body.iter().zip(b_body) {
        for lane in 0..LANES {
            partial[lane] += term(x[lane], y[lane]);
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(&x, &y)| term(x, y)).sum();
    tree(partial) + tail
}

/// Σ term(a\[i\]) in [`LANES`] partial sums.
#[inline(always)]
pub fn sum(a: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    sum2(a, a, |x, _| term(x))
}

/// The largest element; −∞ for none. A NaN is not looked for: what follows (exp of a NaN) shows it.
#[inline(always)]
pub fn max(a: &[f32]) -> f32 {
    let mut partial = [f32::NEG_INFINITY; LANES];
    let (body, tail) = a.as_chunks::<LANES>();
    for x in body {
        for lane in 0..LANES {
            partial[lane] = if x[lane] > partial[lane] { x[lane] } else { partial[lane] };
        }
    }
    partial.iter().chain(tail).fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most })
}

#[inline(always)]
/// The sum of the partial sums, pairwise.
pub fn tree(mut partial: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            partial[lane] += partial[lane + width];
        }
        width /= 2;
    }
    partial[0]
}

/// eˣ to about 1 ulp for −87.3 ≤ x ≤ 88.3; beyond, the value at that end (1.2e-38, 2.2e38).
///
/// x = n·ln 2 + r, |r| ≤ ½ ln 2; eʳ by a polynomial of degree 6, interpolated at Chebyshev nodes (relative error 1e-8);
/// the factor 2ⁿ goes into the exponent's bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the lowest bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let p = 1.392_625_1e-3f32.mul_add(r, 8.363_233e-3);
    let p = p.mul_add(r, 4.166_655_4e-2).mul_add(r, 1.666_657_7e-1).mul_add(r, 0.5);
    let mantissa = p.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    mantissa * power
}

/// 1 / (1 + e⁻ˣ)
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x to about 2 ulp: an odd polynomial near zero, where 1 − 2/(e²ˣ + 1) would cancel.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let u = x * x;
    let p = (-6.096_714e-3f32).mul_add(u, 2.099_718e-2);
    let p = p.mul_add(u, -5.385_091e-2).mul_add(u, 1.333_277e-1).mul_add(u, -3.333_332_9e-1);
    let near = (p * u).mul_add(x, x);
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    if size < 0.625 { near } else { far }
}

/// 2·√(2/π)
const GELU_SLOPE: f32 = 1.595_769;
const GELU_CUBIC: f32 = 0.044_715;

/// gelu(x) = ½x(1 + tanh z) = x·σ(2z), z = √(2/π)(x + 0.044715 x³) (Hendrycks & Gimpel, arXiv 1606.08415).
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    x * sigmoid(GELU_SLOPE * (GELU_CUBIC * x * x).mul_add(x, x))
}

/// gelu'(x) = s + x·s(1 − s)·(2z)', s = σ(2z)
#[inline(always)]
pub fn gelu_slope(x: f32) -> f32 {
    let square = x * x;
    let s = sigmoid(GELU_SLOPE * (GELU_CUBIC * square).mul_add(x, x));
    let inner = GELU_SLOPE * (3.0 * GELU_CUBIC).mul_add(square, 1.0);
    (x * s * (1.0 - s)).mul_add(inner, s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    /// Largest error of `f` against `exact` over random and hand-picked points, in units of the exact value's last place.
    fn worst_ulp(low: f64, high: f64, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let mut random = SplitMix(3);
        let mut points: Vec<f32> = (0..200_000).map(|_| (low + (high - low) * random.unit()) as f32).collect();
        points.extend([low as f32, high as f32, 0.0, -0.0, 1e-20, -1e-20, 0.625, -0.625]);
        points
            .into_iter()
            .filter(|&x| f64::from(x) >= low && f64::from(x) <= high)
            .map(|x| {
                let truth = exact(f64::from(x));
                let ulp = f64::from((truth.abs() as f32).next_up()) - f64::from(truth.abs() as f32);
                (f64::from(f(x)) - truth).abs() / ulp
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn the_functions_are_within_a_few_ulp() {
        let exp_error = worst_ulp(-87.0, 88.0, |x| vectorized!(|| exp(x)), f64::exp);
        assert!(exp_error < 1.5, "exp: {exp_error} ulp");
        let tanh_error = worst_ulp(-9.0, 9.0, |x| vectorized!(|| tanh(x)), f64::tanh);
        assert!(tanh_error < 2.5, "tanh: {tanh_error} ulp");
        let sigmoid_error = worst_ulp(-30.0, 30.0, |x| vectorized!(|| sigmoid(x)), |x| 1.0 / (1.0 + (-x).exp()));
        assert!(sigmoid_error < 3.0, "sigmoid: {sigmoid_error} ulp");
    }

    #[test]
    fn the_ends_saturate_and_nan_passes_through() {
        for f in [exp, sigmoid, tanh, gelu, gelu_slope] {
            assert!(f(f32::NAN).is_nan());
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(200.0) > 1e38 && exp(200.0).is_finite());
        assert_eq!((tanh(40.0), tanh(-40.0), gelu(50.0)), (1.0, -1.0, 50.0));
        assert!(gelu(-50.0).abs() < 1e-30);
    }

    #[test]
    fn sums_and_maxima_take_every_element_once() {
        for len in [0, 1, 31, 32, 33, 64, 100] {
            let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
            assert_eq!(vectorized!(|| sum(&a, |x| x)), (0..len).sum::<usize>() as f32);
            assert_eq!(vectorized!(|| sum2(&a, &a, |x, y| x * y)), (0..len).map(|i| i * i).sum::<usize>() as f32);
            assert_eq!(vectorized!(|| max(&a)), if len == 0 { f32::NEG_INFINITY } else { len as f32 - 1.0 });
        }
    }
}
