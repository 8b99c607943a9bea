//! Layer normalisation over the last dimension (Ba et al., arXiv 1607.06450), and its gradients.

use super::columns;
use super::simd::{sum, sum2, vectorized};
use super::team::Team;
use crate::ops::LAYERNORM_EPSILON;
use rayon::prelude::*;

/// y = (x − mean)·rstd·gamma + beta per row of `gamma.len()`; mean and rstd are kept. The variance is taken about the
/// mean in a second pass over the row, which is in cache by then: no cancellation.
pub fn forward(team: Team, y: &mut [f32], mean: &mut [f32], rstd: &mut [f32], x: &[f32], gamma: &[f32], beta: &[f32]) {
    let cols = gamma.len().max(1);
    let rows = team.rows_per_piece(mean.len(), 2 * cols);
    let pieces = (
        y.par_chunks_mut(rows * cols),
        x.par_chunks(rows * cols),
        mean.par_chunks_mut(rows),
        rstd.par_chunks_mut(rows),
    );
    pieces.into_par_iter().for_each(|(y, x, mean, rstd)| {
        vectorized!(|| {
            let rows = y.chunks_exact_mut(cols).zip(x.chunks_exact(cols)).zip(mean.iter_mut().zip(rstd));
            for ((y, x), (mean, rstd)) in rows {
                (*mean, *rstd) = normalize_row(y, x, gamma, beta);
            }
        });
    });
}

/// Mean and reciprocal deviation of `x`, and what they make of it in `y`.
#[inline(always)]
fn normalize_row(y: &mut [f32], x: &[f32], gamma: &[f32], beta: &[f32]) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = sum(x, |x| x) / count;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / count;
    let rstd = 1.0 / (variance + LAYERNORM_EPSILON as f32).sqrt();
    for (((y, x), g), b) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
        *y = ((x - mean) * rstd).mul_add(*g, *b);
    }
    (mean, rstd)
}

/// sum = a + b, before it is normalised.
pub struct ResidualSum<'a> {
    pub sum: &'a mut [f32],
    pub a: &'a [f32],
    pub b: &'a [f32],
}

/// [`forward`] of the sum of two tensors, each row while it is in cache.
pub fn residual_forward(
    team: Team,
    ResidualSum { sum, a, b }: ResidualSum,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    gamma: &[f32],
    beta: &[f32],
) {
    let cols = gamma.len().max(1);
    let rows = team.rows_per_piece(mean.len(), 4 * cols);
    let piece = rows * cols;
    let tensors = (sum.par_chunks_mut(piece), y.par_chunks_mut(piece), a.par_chunks(piece), b.par_chunks(piece));
    let stats = (mean.par_chunks_mut(rows), rstd.par_chunks_mut(rows));
    tensors.into_par_iter().zip(stats.into_par_iter()).for_each(|((sum, y, a, b), (mean, rstd))| {
        vectorized!(|| {
            let inputs = a.chunks_exact(cols).zip(b.chunks_exact(cols));
            let outputs = sum.chunks_exact_mut(cols).zip(y.chunks_exact_mut(cols));
            for (((a, b), (sum, y)), (mean, rstd)) in inputs.zip(outputs).zip(mean.iter_mut().zip(rstd)) {
                sum.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum = a + b);
                (*mean, *rstd) = normalize_row(y, sum, gamma, beta);
            }
        });
    });
}

/// dx = (residual +) rstd·(g − mean(g) − x̂·mean(g·x̂)), g = dy·gamma, x̂ = (x − mean)·rstd.
pub fn to_inputs(
    team: Team,
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    rstd: &[f32],
    residual: Option<&[f32]>,
) {
    let cols = gamma.len().max(1);
    let rows = team.rows_per_piece(mean.len(), 4 * cols);
    dx.par_chunks_mut(rows * cols).enumerate().for_each(|(piece, dx)| {
        vectorized!(|| {
            for (at, dx) in dx.chunks_exact_mut(cols).enumerate() {
                let row = piece * rows + at;
                let span = row * cols..(row + 1) * cols;
                let (dy, x) = (&dy[span.clone()], &x[span.clone()]);
                row_to_inputs(dx, dy, x, gamma, mean[row], rstd[row]);
                if let Some(residual) = residual {
                    dx.iter_mut().zip(&residual[span]).for_each(|(dx, r)| *dx += r);
                }
            }
        });
    });
}

#[inline(always)]
fn row_to_inputs(dx: &mut [f32], dy: &[f32], x: &[f32], gamma: &[f32], mean: f32, rstd: f32) {
    // dx holds g = dy·gamma between the passes.
    for ((dx, dy), gamma) in dx.iter_mut().zip(dy).zip(gamma) {
        *dx = dy * gamma;
    }
    let scale = 1.0 / dx.len() as f32;
    let mean_g = sum(dx, |g| g) * scale;
    let mean_gx = sum2(dx, x, |g, x| g * (x - mean)) * rstd * scale;
    for (dx, x) in dx.iter_mut().zip(x) {
        let normalised = (x - mean) * rstd;
        *dx = rstd * (*dx - mean_g - normalised * mean_gx);
    }
}

/// dgamma += Σ dy·x̂, dbeta += Σ dy over the rows.
pub fn to_weights(
    team: Team,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    dy: &[f32],
    x: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let cols = dbeta.len().max(1);
    let width = columns::piece(team, mean.len(), cols, 2);
    (dgamma.par_chunks_mut(width), dbeta.par_chunks_mut(width)).into_par_iter().enumerate().for_each(
        |(piece, (dgamma, dbeta))| {
            let span = piece * width..piece * width + dgamma.len();
            let mut partial = [[0.0f32; columns::WIDEST]; 2];
            let [product, sum] = &mut partial;
            let (product, sum) = (&mut product[..dgamma.len()], &mut sum[..dgamma.len()]);
            let groups = dy.chunks(columns::GROUP * cols).zip(x.chunks(columns::GROUP * cols));
            let stats = mean.chunks(columns::GROUP).zip(rstd.chunks(columns::GROUP));
            for ((dy, x), (mean, rstd)) in groups.zip(stats) {
                product.fill(0.0);
                sum.fill(0.0);
                let rows = dy.chunks_exact(cols).zip(x.chunks_exact(cols)).zip(mean.iter().zip(rstd));
                vectorized!(|| {
                    for ((dy, x), (mean, rstd)) in rows {
                        add_row(product, sum, &dy[span.clone()], &x[span.clone()], *mean, *rstd);
                    }
                });
                dgamma.iter_mut().zip(&*product).for_each(|(d, p)| *d += p);
                dbeta.iter_mut().zip(&*sum).for_each(|(d, s)| *d += s);
            }
        },
    );
}

#[inline(always)]
fn add_row(product: &mut [f32], sum: &mut [f32], dy: &[f32], x: &[f32], mean: f32, rstd: f32) {
    for (((product, sum), dy), x) in product.iter_mut().zip(sum).zip(dy).zip(x) {
        *product += dy * ((x - mean) * rstd);
        *sum += dy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    /// The same bits as the two operations one after the other.
    #[test]
    fn the_sum_normalised_in_one_pass_is_the_sum_then_its_normalisation() {
        for mut r in shapes(40) {
            let (rows, cols) = (1 + r.below(130), 2 + r.below(700));
            let len = rows * cols;
            let (a, b) = (random(&mut r, len), random(&mut r, len));
            let (gamma, beta) = (random(&mut r, cols), random(&mut r, cols));
            let nothing = |len: usize| vec![f32::NAN; len];
            let (mut total, mut y, mut mean, mut rstd) = (nothing(len), nothing(len), nothing(rows), nothing(rows));
            let inputs = ResidualSum { sum: &mut total, a: &a, b: &b };
            residual_forward(TEAM, inputs, &mut y, &mut mean, &mut rstd, &gamma, &beta);
            let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            let (mut y_two, mut mean_two, mut rstd_two) = (nothing(len), nothing(rows), nothing(rows));
            forward(TEAM, &mut y_two, &mut mean_two, &mut rstd_two, &sum, &gamma, &beta);
            assert_eq!((total, y, mean, rstd), (sum, y_two, mean_two, rstd_two));
        }
    }

    #[test]
    fn forward_and_gradients_agree_with_plain_loops() {
        for mut r in shapes(60) {
            let (rows, cols) = (1 + r.below(130), 2 + r.below(700));
            // A mean far from zero: a one-pass variance would lose it.
            let offset = 10.0 * r.symmetric() as f32;
            let x: Vec<f32> = random(&mut r, rows * cols).iter().map(|v| v + offset).collect();
            let (gamma, beta, dy) = (random(&mut r, cols), random(&mut r, cols), random(&mut r, rows * cols));
            let (mut y, mut mean, mut rstd) = (vec![f32::NAN; rows * cols], vec![f32::NAN; rows], vec![f32::NAN; rows]);
            forward(TEAM, &mut y, &mut mean, &mut rstd, &x, &gamma, &beta);

            let skip = random(&mut r, rows * cols);
            let residual = (r.below(2) == 1).then_some(&skip[..]);
            let mut dx = vec![f32::NAN; rows * cols];
            to_inputs(TEAM, &mut dx, &dy, &x, &gamma, &mean, &rstd, residual);
            let (mut dgamma, mut dbeta) = (random(&mut r, cols), random(&mut r, cols));
            let (mut dgamma_exact, mut dbeta_exact) = (wide(&dgamma), wide(&dbeta));
            to_weights(TEAM, &mut dgamma, &mut dbeta, &dy, &x, &mean, &rstd);

            let (mut y_exact, mut dx_exact) = (Vec::new(), Vec::new());
            let (mut means, mut rstds) = (Vec::new(), Vec::new());
            for row in 0..rows {
                let x = wide(&x[row * cols..][..cols]);
                let m = x.iter().sum::<f64>() / cols as f64;
                let s = 1.0 / (x.iter().map(|v| (v - m).powi(2)).sum::<f64>() / cols as f64 + 1e-5).sqrt();
                let n: Vec<f64> = x.iter().map(|v| (v - m) * s).collect();
                let d = wide(&dy[row * cols..][..cols]);
                let g: Vec<f64> = d.iter().zip(&gamma).map(|(d, &g)| d * f64::from(g)).collect();
                let mean_g = g.iter().sum::<f64>() / cols as f64;
                let mean_gn = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / cols as f64;
                for c in 0..cols {
                    y_exact.push(n[c] * f64::from(gamma[c]) + f64::from(beta[c]));
                    let skip = residual.map_or(0.0, |skip| f64::from(skip[row * cols + c]));
                    dx_exact.push(skip + s * (g[c] - mean_g - n[c] * mean_gn));
                    dgamma_exact[c] += d[c] * n[c];
                    dbeta_exact[c] += d[c];
                }
                means.push(m);
                rstds.push(s);
            }
            // x is exact to 1 part in 2²⁴ of the offset, so x − mean to 1e-6 of the row's spread.
            close("y", &y, &y_exact, 1e-5);
            close("mean", &mean, &means, 1e-6);
            close("rstd", &rstd, &rstds, 1e-5);
            close("dx", &dx, &dx_exact, 1e-5);
            close("dgamma", &dgamma, &dgamma_exact, 1e-5);
            close("dbeta", &dbeta, &dbeta_exact, 1e-5);
        }
    }
}
