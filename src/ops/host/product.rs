//! Matrix products through the `gemm` crate, and the linear layer's three products with their epilogues.

use super::simd::{gelu, gelu_slope, vectorized};
use super::team::Team;
use crate::ops::Linear;
use gemm::Parallelism;
use rayon::prelude::*;

/// A strided view: element (i, j) stands at `i·row_stride + j·col_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, `stride` elements from one row to the next.
    pub const fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        Matrix { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    pub const fn transposed(self) -> Self {
        Matrix { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Elements from the first to the last, both included.
    const fn span(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
    }
}

/// C (=|+=) scale·A·B, C row-major with `stride` elements from one row to the next. `threads` = 1 stays on this thread.
pub fn multiply(
    threads: usize,
    c: &mut [f32],
    stride: usize,
    accumulate: bool,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let span = if m == 0 || n == 0 { 0 } else { (m - 1) * stride + n };
    // Callers have checked their buffers against the shape; a view outside its slice is a bug here, never an input.
    assert!(b.rows == k && stride >= n && c.len() >= span, "product of {m}×{k} and {}×{n} into {}", b.rows, c.len());
    assert!(a.data.len() >= a.span() && b.data.len() >= b.span(), "a product's view is longer than its slice");
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    // SAFETY: every address the product touches lies in the three slices, as just asserted: the strides are not
    // negative and the last element is the farthest. C is borrowed mutably, so it overlaps neither A nor B, and
    // `stride >= n` keeps its own elements apart. With `read_dst` unset C is written without being read.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Y (=|+=) X·Wᵀ
pub fn forward(team: Team, s: Linear, y: &mut [f32], x: &[f32], w: &[f32]) {
    let w = Matrix::new(w, s.outputs, s.inputs, s.inputs).transposed();
    multiply(team.threads, y, s.outputs, s.accumulate, 1.0, Matrix::new(x, s.rows, s.inputs, s.inputs), w);
}

/// dX (=|+=) dY·W
pub fn to_inputs(team: Team, s: Linear, dx: &mut [f32], dy: &[f32], w: &[f32]) {
    let dy = Matrix::new(dy, s.rows, s.outputs, s.outputs);
    multiply(team.threads, dx, s.inputs, s.accumulate, 1.0, dy, Matrix::new(w, s.outputs, s.inputs, s.inputs));
}

/// dW (=|+=) dYᵀ·X
pub fn to_weights(team: Team, s: Linear, dw: &mut [f32], dy: &[f32], x: &[f32]) {
    let dy = Matrix::new(dy, s.rows, s.outputs, s.outputs).transposed();
    multiply(team.threads, dw, s.inputs, s.accumulate, 1.0, dy, Matrix::new(x, s.rows, s.inputs, s.inputs));
}

/// y += bias, row by row
pub fn add_bias(team: Team, y: &mut [f32], bias: &[f32]) {
    let cols = bias.len().max(1);
    let piece = cols * team.rows_per_piece(y.len() / cols, 2 * cols);
    y.par_chunks_mut(piece).for_each(|y| {
        vectorized!(|| {
            for row in y.chunks_exact_mut(cols) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        });
    });
}

/// pre += bias; y = gelu(pre)
pub fn add_bias_gelu(team: Team, y: &mut [f32], pre: &mut [f32], bias: &[f32]) {
    let cols = bias.len().max(1);
    let piece = cols * team.rows_per_piece(y.len() / cols, 4 * cols);
    (y.par_chunks_mut(piece), pre.par_chunks_mut(piece)).into_par_iter().for_each(|(y, pre)| {
        vectorized!(|| {
            for (y, pre) in y.chunks_exact_mut(cols).zip(pre.chunks_exact_mut(cols)) {
                for ((y, pre), b) in y.iter_mut().zip(pre).zip(bias) {
                    *pre += b;
                    *y = gelu(*pre);
                }
            }
        });
    });
}

/// dx = dx · gelu'(pre)
pub fn times_gelu_slope(team: Team, dx: &mut [f32], pre: &[f32]) {
    team.map1(dx, pre, |dx, pre| {
        vectorized!(|| dx.iter_mut().zip(pre).for_each(|(dx, &x)| *dx *= gelu_slope(x)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, gelu_exact, gelu_slope_exact, random, shapes};

    /// Σₖ a(i,k)·b(k,j) in f64 beside the product's f32, over all three layouts.
    #[test]
    fn the_three_products_agree_with_plain_loops() {
        for mut r in shapes(60) {
            let (rows, inputs, outputs) = (1 + r.below(90), 1 + r.below(120), 1 + r.below(100));
            let mut s = Linear::new(rows, inputs, outputs);
            s.accumulate = r.below(2) == 1;
            let (x, w, dy) =
                (random(&mut r, rows * inputs), random(&mut r, inputs * outputs), random(&mut r, rows * outputs));
            let start = |r: &mut _, len| if s.accumulate { random(r, len) } else { vec![f32::NAN; len] };
            let base = |v: f32| if s.accumulate { f64::from(v) } else { 0.0 };

            let mut y = start(&mut r, rows * outputs);
            let mut exact: Vec<f64> = y.iter().map(|&v| base(v)).collect();
            let mut dx = start(&mut r, rows * inputs);
            let mut dx_exact: Vec<f64> = dx.iter().map(|&v| base(v)).collect();
            let mut dw = start(&mut r, inputs * outputs);
            let mut dw_exact: Vec<f64> = dw.iter().map(|&v| base(v)).collect();
            for (i, o, c) in (0..rows).flat_map(|i| (0..outputs).flat_map(move |o| (0..inputs).map(move |c| (i, o, c))))
            {
                let (x, w, dy) = (x[i * inputs + c] as f64, w[o * inputs + c] as f64, dy[i * outputs + o] as f64);
                exact[i * outputs + o] += x * w;
                dx_exact[i * inputs + c] += dy * w;
                dw_exact[o * inputs + c] += dy * x;
            }
            forward(TEAM, s, &mut y, &x, &w);
            to_inputs(TEAM, s, &mut dx, &dy, &w);
            to_weights(TEAM, s, &mut dw, &dy, &x);
            close("y", &y, &exact, 1e-5);
            close("dx", &dx, &dx_exact, 1e-5);
            close("dw", &dw, &dw_exact, 1e-5);
        }
    }

    #[test]
    fn products_over_the_threading_threshold_agree_too() {
        let mut r = crate::stats::SplitMix(5);
        let s = Linear::new(150, 170, 130);
        let (x, w) = (random(&mut r, 150 * 170), random(&mut r, 130 * 170));
        let mut y = vec![f32::NAN; 150 * 130];
        forward(TEAM, s, &mut y, &x, &w);
        let exact: Vec<f64> = (0..150 * 130)
            .map(|at| (0..170).map(|c| f64::from(x[at / 130 * 170 + c]) * f64::from(w[at % 130 * 170 + c])).sum())
            .collect();
        close("y", &y, &exact, 1e-5);
    }

    #[test]
    fn the_epilogues_agree_with_plain_loops() {
        for mut r in shapes(50) {
            let (rows, cols) = (1 + r.below(300), 1 + r.below(400));
            let (before, bias) = (random(&mut r, rows * cols), random(&mut r, cols));
            let exact: Vec<f64> =
                before.iter().enumerate().map(|(i, &v)| f64::from(v) + f64::from(bias[i % cols])).collect();
            let mut y = before.clone();
            add_bias(TEAM, &mut y, &bias);
            close("y + bias", &y, &exact, 1e-6);

            let (mut pre, mut y) = (before.clone(), vec![f32::NAN; rows * cols]);
            add_bias_gelu(TEAM, &mut y, &mut pre, &bias);
            close("pre", &pre, &exact, 1e-6);
            close("gelu", &y, &exact.iter().map(|&v| gelu_exact(v)).collect::<Vec<_>>(), 1e-5);

            let mut dx = y.clone();
            times_gelu_slope(TEAM, &mut dx, &before);
            let exact: Vec<f64> =
                y.iter().zip(&before).map(|(&d, &x)| f64::from(d) * gelu_slope_exact(f64::from(x))).collect();
            close("dx", &dx, &exact, 1e-5);
        }
    }

    #[test]
    #[should_panic(expected = "longer than its slice")]
    fn a_view_outside_its_slice_is_stopped() {
        multiply(1, &mut [0.0; 4], 2, false, 1.0, Matrix::new(&[0.0; 4], 2, 2, 3), Matrix::new(&[0.0; 4], 2, 2, 2));
    }
}
