//! Matrix products through the `gemm` crate, and the linear layer's three products with their epilogues.

use super::simd::{gelu, gelu_slope, vectorized};
use super::team::Team;
use crate::ops::Linear;
use gemm::Parallelism;
use rayon::prelude::*;
use std::cell::Cell;

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
///
/// The `gemm` crate packs a transposed operand slowly (a fifth to a half of the rate is lost where the rows are few), so
/// W is transposed here first, a panel of [`PANEL`] inputs at a time, which stays in the cache until it is multiplied.
pub fn forward(team: Team, s: Linear, y: &mut [f32], x: &[f32], w: &[f32]) {
    if s.inputs * s.outputs < WORTH_TRANSPOSING {
        let w = Matrix::new(w, s.outputs, s.inputs, s.inputs).transposed();
        return multiply(team.threads, y, s.outputs, s.accumulate, 1.0, Matrix::new(x, s.rows, s.inputs, s.inputs), w);
    }
    let mut panel = SCRATCH.take();
    let most = PANEL.min(s.inputs) * s.outputs;
    panel.resize(most.max(panel.len()), 0.0);
    for first in (0..s.inputs).step_by(PANEL) {
        let depth = PANEL.min(s.inputs - first);
        let panel = &mut panel[..depth * s.outputs];
        transpose(panel, w, s.inputs, first, s.outputs);
        let x = Matrix::new(&x[first..], s.rows, depth, s.inputs);
        let panel = Matrix::new(panel, depth, s.outputs, s.outputs);
        multiply(team.threads, y, s.outputs, s.accumulate || first > 0, 1.0, x, panel);
    }
    SCRATCH.set(panel);
}

/// Inputs transposed at a time: as deep as the `gemm` crate's own blocks.
const PANEL: usize = 512;
/// Elements of W from which the pass pays.
const WORTH_TRANSPOSING: usize = 1 << 16;
/// Side of a tile: 16 floats are a cache line, so each line of W is read once.
const TILE: usize = 16;

thread_local! {
    /// The panel, kept between calls: it grows to its size in the first one, before anything is timed.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// panel[i][o] = w[o][first + i], W row-major with `inputs` columns, the panel with `outputs`.
fn transpose(panel: &mut [f32], w: &[f32], inputs: usize, first: usize, outputs: usize) {
    panel.par_chunks_mut(TILE * outputs).enumerate().for_each(|(block, rows)| {
        let (from, depth) = (first + block * TILE, rows.len() / outputs);
        for left in (0..outputs).step_by(TILE) {
            let width = TILE.min(outputs - left);
            for o in left..left + width {
                let line = &w[o * inputs + from..][..depth];
                line.iter().enumerate().for_each(|(i, &value)| rows[i * outputs + o] = value);
            }
        }
    });
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
    use crate::stats::SplitMix;

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

    /// Shapes on both sides of a panel's and a tile's edge, beyond the size from which W is transposed first.
    #[test]
    fn a_transposed_panel_changes_nothing() {
        for (rows, inputs, outputs) in [(3, 512, 128), (5, 513, 130), (1, 1025, 77), (17, 1500, 64), (2, 70, 1000)] {
            assert!(inputs * outputs >= WORTH_TRANSPOSING);
            let r = &mut SplitMix(inputs as u64);
            let (x, w) = (random(r, rows * inputs), random(r, outputs * inputs));
            let before = random(r, rows * outputs);
            for accumulate in [false, true] {
                let mut y = before.clone();
                forward(TEAM, Linear { accumulate, ..Linear::new(rows, inputs, outputs) }, &mut y, &x, &w);
                let exact: Vec<f64> = (0..rows * outputs)
                    .map(|at| {
                        let (r, o) = (at / outputs, at % outputs);
                        let sum: f64 =
                            (0..inputs).map(|i| f64::from(x[r * inputs + i]) * f64::from(w[o * inputs + i])).sum();
                        sum + if accumulate { f64::from(before[at]) } else { 0.0 }
                    })
                    .collect();
                close("forward", &y, &exact, 1e-5);
            }
        }
    }
}
