//! Element-wise operations: GELU, ReLU, and the sum of the skip path.

use super::simd::{gelu, gelu_slope, vectorized};
use super::team::Team;

/// y = gelu(x)
pub fn gelu_forward(team: Team, y: &mut [f32], x: &[f32]) {
    team.map1(y, x, |y, x| vectorized!(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y = gelu(x))));
}

/// dx = dy·gelu'(x)
pub fn gelu_backward(team: Team, dx: &mut [f32], dy: &[f32], x: &[f32]) {
    team.map2(dx, dy, x, |dx, dy, x| {
        vectorized!(|| dx.iter_mut().zip(dy).zip(x).for_each(|((dx, dy), &x)| *dx = dy * gelu_slope(x)));
    });
}

/// y = max(x, 0)
pub fn relu_forward(team: Team, y: &mut [f32], x: &[f32]) {
    // Not f32::max: that would turn a NaN into 0.
    team.map1(y, x, |y, x| {
        vectorized!(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y = if x < 0.0 { 0.0 } else { x }));
    });
}

/// dx = dy where y > 0, else 0
pub fn relu_backward(team: Team, dx: &mut [f32], dy: &[f32], y: &[f32]) {
    team.map2(dx, dy, y, |dx, dy, y| {
        vectorized!(|| dx.iter_mut().zip(dy).zip(y).for_each(|((dx, &dy), &y)| *dx = if y > 0.0 { dy } else { 0.0 }));
    });
}

/// out = a + b
pub fn residual(team: Team, out: &mut [f32], a: &[f32], b: &[f32]) {
    team.map2(out, a, b, |out, a, b| {
        vectorized!(|| out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = a + b));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, gelu_exact, gelu_slope_exact, random, shapes, wide};

    #[test]
    fn element_wise_operations_agree_with_plain_loops() {
        for mut r in shapes(50) {
            let most = if r.below(5) == 0 { 200_000 } else { 3000 };
            let len = 1 + r.below(most);
            let a: Vec<f32> = random(&mut r, len).iter().map(|v| 6.0 * v).collect();
            let b = random(&mut r, len);
            let mut out = vec![f32::NAN; len];
            let both = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
                wide(&a).into_iter().zip(wide(&b)).map(|(a, b)| f(a, b)).collect()
            };
            gelu_forward(TEAM, &mut out, &a);
            close("gelu", &out, &both(&|a, _| gelu_exact(a)), 1e-6);
            gelu_backward(TEAM, &mut out, &b, &a);
            close("gelu'", &out, &both(&|a, b| b * gelu_slope_exact(a)), 1e-5);
            relu_forward(TEAM, &mut out, &a);
            close("relu", &out, &both(&|a, _| a.max(0.0)), 0.0);
            relu_backward(TEAM, &mut out, &b, &a);
            close("relu'", &out, &both(&|a, b| if a > 0.0 { b } else { 0.0 }), 0.0);
            residual(TEAM, &mut out, &a, &b);
            close("residual", &out, &both(&|a, b| a + b), 1e-7);
        }
    }

    #[test]
    fn nan_is_not_lost() {
        let mut y = [0.0];
        relu_forward(TEAM, &mut y, &[f32::NAN]);
        assert!(y[0].is_nan());
    }
}
