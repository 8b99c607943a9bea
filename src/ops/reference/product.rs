//! Matrix products in f64: strided views over slices and one call that multiplies them.
//!
//! That call is the `gemm` crate's: whole layers are checked at the size they are timed, and plain loops would take longer than
//! the measurement.

use gemm::Parallelism;

/// Where a matrix lies within a slice.
#[derive(Debug, Clone, Copy)]
pub struct MatrixLayout {
    pub offset: usize,
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl MatrixLayout {
    /// A whole row-major matrix.
    pub const fn row_major(rows: usize, cols: usize) -> Self {
        MatrixLayout { offset: 0, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// `cols` columns out of rows that are `row_stride` wide, from `offset` on.
    pub const fn columns(offset: usize, rows: usize, cols: usize, row_stride: usize) -> Self {
        MatrixLayout { offset, rows, cols, row_stride, col_stride: 1 }
    }

    pub const fn transposed(self) -> Self {
        MatrixLayout {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn lies_within(&self, len: usize) -> bool {
        let last =
            self.offset + self.rows.saturating_sub(1) * self.row_stride + self.cols.saturating_sub(1) * self.col_stride;
        self.rows == 0 || self.cols == 0 || last < len
    }
}

/// dst (=|+=) a·b
pub fn multiply(
    dst: (&mut [f64], MatrixLayout),
    accumulate: bool,
    a: (&[f64], MatrixLayout),
    b: (&[f64], MatrixLayout),
) {
    let ((dst, d), (a, la), (b, lb)) = (dst, a, b);
    assert_eq!((d.rows, d.cols, la.cols), (la.rows, lb.cols, lb.rows), "the shapes of a product disagree");
    assert!(d.lies_within(dst.len()) && la.lies_within(a.len()) && lb.lies_within(b.len()), "a view leaves its slice");
    if d.rows == 0 || d.cols == 0 {
        return;
    }
    // SAFETY: every index that the strides reach lies within its slice (asserted above), and `dst` is borrowed
    // mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            d.rows,
            d.cols,
            la.cols,
            dst.as_mut_ptr().add(d.offset),
            d.col_stride as isize,
            d.row_stride as isize,
            accumulate,
            a.as_ptr().add(la.offset),
            la.col_stride as isize,
            la.row_stride as isize,
            b.as_ptr().add(lb.offset),
            lb.col_stride as isize,
            lb.row_stride as isize,
            if accumulate { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    /// Strided and transposed views against three plain loops.
    #[test]
    fn products_of_views_agree_with_plain_loops() {
        let mut random = SplitMix(31);
        for _ in 0..50 {
            let (m, n, k) = (1 + random.below(17), 1 + random.below(17), 1 + random.below(17));
            let (pad, offset) = (random.below(5), random.below(7));
            let a: Vec<f64> = (0..offset + m * (k + pad)).map(|_| random.symmetric()).collect();
            let b: Vec<f64> = (0..n * k).map(|_| random.symmetric()).collect();
            let before: Vec<f64> = (0..m * n).map(|_| random.symmetric()).collect();
            for accumulate in [false, true] {
                let mut dst = if accumulate { before.clone() } else { vec![f64::NAN; m * n] };
                let la = MatrixLayout::columns(offset, m, k, k + pad);
                let lb = MatrixLayout::row_major(n, k).transposed();
                multiply((&mut dst, MatrixLayout::row_major(m, n)), accumulate, (&a, la), (&b, lb));
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|l| a[offset + i * (k + pad) + l] * b[j * k + l]).sum();
                        let want = sum + if accumulate { before[i * n + j] } else { 0.0 };
                        assert!((dst[i * n + j] - want).abs() <= 1e-12, "{m}×{n}×{k}");
                    }
                }
            }
        }
    }
}
