//! dQ, dK and dV. The probabilities are made again from the log-sum-exp: P = e^(scale·q·k − lse).
//!
//! With D = rowsum(dO·O): dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P∘(dP − D), dQ = scale·dS·K, dK = scale·dSᵀ·Q
//! (Dao et al., arXiv 2205.14135, appendix B.2).

use super::forward::hide;
use super::{Head, KEYS, QUERIES, cut_rows, transpose, with_scratch};
use crate::ops::Attention;
use crate::ops::host::product::{Matrix, multiply};
use crate::ops::host::simd::{exp, sum2, vectorized};
use crate::ops::host::team::Team;
use rayon::prelude::*;

/// What is read: all heads.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub dout: &'a [f32],
    pub qkv: &'a [f32],
    pub out: &'a [f32],
    pub lse: &'a [f32],
}

/// `rowsums` (as long as lse) is working memory.
pub fn backward(team: Team, s: Attention, dqkv: &mut [f32], inputs: Inputs<'_>, rowsums: &mut [f32]) {
    let mut rows = cut_rows(s, dqkv, 3).into_iter();
    let mut tasks = Vec::with_capacity(s.batch * s.heads);
    for _ in 0..s.batch {
        let mut take = || -> Vec<_> { rows.by_ref().take(s.heads).collect() };
        let (dq, dk, dv) = (take(), take(), take());
        tasks.extend(dq.into_iter().zip(dk).zip(dv).map(|((dq, dk), dv)| [dq, dk, dv]));
    }
    _ = team;
    tasks
        .into_par_iter()
        .zip(rowsums.par_chunks_mut(s.sequence))
        .with_max_len(1)
        .enumerate()
        .for_each(|(head, (gradients, rowsums))| one_head(s, head, gradients, inputs, rowsums));
}

fn one_head(s: Attention, head: usize, gradients: [Vec<&mut [f32]>; 3], inputs: Inputs<'_>, rowsums: &mut [f32]) {
    let (d, n) = (s.head_size, s.sequence);
    let part = |part| Head::new(s, inputs.qkv, 3, part, head);
    let (dout, out) = (Head::new(s, inputs.dout, 1, 0, head), Head::new(s, inputs.out, 1, 0, head));
    vectorized!(|| {
        for (row, sum) in rowsums.iter_mut().enumerate() {
            *sum = sum2(dout.row(row), out.row(row), |a, b| a * b);
        }
    });
    let [dq_rows, dk_rows, dv_rows] = gradients;
    let scores = KEYS.min(n) * QUERIES;
    with_scratch(
        [n * d, n * d, n * d, n * d, QUERIES * d, QUERIES * d, QUERIES * d, QUERIES * d, QUERIES * d, scores, scores],
        |[k, v, dk, dv, q, q_t, dout_block, dout_t, dq, p, ds]| {
            part(1).copy(k, 0, n, 1.0);
            part(2).copy(v, 0, n, 1.0);
            let lse = &inputs.lse[head * n..][..n];
            let mut dq_rows = dq_rows;
            for (index, dq_rows) in dq_rows.chunks_mut(QUERIES).enumerate() {
                let first = index * QUERIES;
                let last = first + dq_rows.len();
                part(0).copy(q, first, last, s.scale() as f32);
                transpose(q_t, q, d);
                dout.copy(dout_block, first, last, 1.0);
                transpose(dout_t, dout_block, d);
                let block = Block { d, first, last, q, q_t, dout: dout_block, dout_t, lse, rowsums };
                block.add(&k[..last * d], &v[..last * d], dq, dk, dv, p, ds);
                for (lane, row) in dq_rows.iter_mut().enumerate() {
                    row.iter_mut().enumerate().for_each(|(at, to)| *to = s.scale() as f32 * dq[at * QUERIES + lane]);
                }
            }
            dk_rows.into_iter().zip(dk.chunks_exact(d)).for_each(|(to, from)| to.copy_from_slice(from));
            dv_rows.into_iter().zip(dv.chunks_exact(d)).for_each(|(to, from)| to.copy_from_slice(from));
        },
    );
}

/// One block of queries: q (scaled) and dout as they are and transposed; rows past the last query are zero.
struct Block<'a> {
    d: usize,
    first: usize,
    last: usize,
    q: &'a [f32],
    q_t: &'a [f32],
    dout: &'a [f32],
    dout_t: &'a [f32],
    lse: &'a [f32],
    rowsums: &'a [f32],
}

impl Block<'_> {
    /// dq (transposed, without its scale) = this block's; dk and dv of the block's own keys are started, those of
    /// earlier keys added to.
    fn add(&self, k: &[f32], v: &[f32], dq: &mut [f32], dk: &mut [f32], dv: &mut [f32], p: &mut [f32], ds: &mut [f32]) {
        let d = self.d;
        dk[self.first * d..self.last * d].fill(0.0);
        dv[self.first * d..self.last * d].fill(0.0);
        let lanes = |values: &[f32]| {
            let mut lanes = [0.0f32; QUERIES];
            lanes[..self.last - self.first].copy_from_slice(&values[self.first..self.last]);
            lanes
        };
        let (lse, rowsums) = (lanes(self.lse), lanes(self.rowsums));
        for (chunk, (k, v)) in k.chunks(KEYS * d).zip(v.chunks(KEYS * d)).enumerate() {
            let keys = k.len() / d;
            let span = chunk * KEYS * d..(chunk * KEYS + keys) * d;
            let (p, ds) = (&mut p[..keys * QUERIES], &mut ds[..keys * QUERIES]);
            let (k, v) = (Matrix::new(k, keys, d, d), Matrix::new(v, keys, d, d));
            multiply(1, p, QUERIES, false, 1.0, k, Matrix::new(self.q_t, d, QUERIES, QUERIES));
            multiply(1, ds, QUERIES, false, 1.0, v, Matrix::new(self.dout_t, d, QUERIES, QUERIES));
            let offset = self.first as isize - (chunk * KEYS) as isize;
            vectorized!(|| softmax_gradient(p, ds, &lse, &rowsums, offset));
            let (p, ds) = (Matrix::new(p, keys, QUERIES, QUERIES), Matrix::new(ds, keys, QUERIES, QUERIES));
            multiply(1, &mut dv[span.clone()], d, true, 1.0, p, Matrix::new(self.dout, QUERIES, d, d));
            multiply(1, &mut dk[span], d, true, 1.0, ds, Matrix::new(self.q, QUERIES, d, d));
            multiply(1, dq, QUERIES, chunk > 0, 1.0, k.transposed(), ds);
        }
    }
}

/// p: scores → probabilities; ds: dP → dS.
#[inline(always)]
fn softmax_gradient(p: &mut [f32], ds: &mut [f32], lse: &[f32; QUERIES], rowsums: &[f32; QUERIES], offset: isize) {
    let (p, ds) = (p.as_chunks_mut::<QUERIES>().0, ds.as_chunks_mut::<QUERIES>().0);
    for (p, ds) in p.iter_mut().zip(&mut *ds) {
        for lane in 0..QUERIES {
            p[lane] = exp(p[lane] - lse[lane]);
            ds[lane] = p[lane] * (ds[lane] - rowsums[lane]);
        }
    }
    hide(p, offset, 0.0);
    hide(ds, offset, 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    /// Everything by its definition, head by head, with the whole row of probabilities.
    struct Exact {
        out: Vec<f64>,
        lse: Vec<f64>,
        dqkv: Vec<f64>,
    }

    fn exact(s: Attention, qkv: &[f64], dout: &[f64]) -> Exact {
        let (w, d, n) = (s.width(), s.head_size, s.sequence);
        let mut e = Exact { out: vec![0.0; s.rows() * w], lse: vec![0.0; s.lse_len()], dqkv: vec![0.0; qkv.len()] };
        for (b, h) in (0..s.batch).flat_map(|b| (0..s.heads).map(move |h| (b, h))) {
            let at = |part: usize, row: usize| (b * n + row) * 3 * w + part * w + h * d;
            let o = |row: usize| (b * n + row) * w + h * d;
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            for i in 0..n {
                let q = &qkv[at(0, i)..][..d];
                let scores: Vec<f64> = (0..=i).map(|j| s.scale() * dot(q, &qkv[at(1, j)..][..d])).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let lse = most + scores.iter().map(|v| (v - most).exp()).sum::<f64>().ln();
                e.lse[(b * s.heads + h) * n + i] = lse;
                let p: Vec<f64> = scores.iter().map(|v| (v - lse).exp()).collect();
                for j in 0..=i {
                    (0..d).for_each(|c| e.out[o(i) + c] += p[j] * qkv[at(2, j) + c]);
                }
                let g = &dout[o(i)..][..d];
                let dp: Vec<f64> = (0..=i).map(|j| dot(g, &qkv[at(2, j)..][..d])).collect();
                let mean = dot(&p, &dp);
                for j in 0..=i {
                    let ds = s.scale() * p[j] * (dp[j] - mean);
                    for c in 0..d {
                        e.dqkv[at(0, i) + c] += ds * qkv[at(1, j) + c];
                        e.dqkv[at(1, j) + c] += ds * qkv[at(0, i) + c];
                        e.dqkv[at(2, j) + c] += p[j] * g[c];
                    }
                }
            }
        }
        e
    }

    fn check(s: Attention, r: &mut crate::stats::SplitMix) {
        let qkv: Vec<f32> = random(r, 3 * s.rows() * s.width()).iter().map(|v| 2.0 * v).collect();
        let dout = random(r, s.rows() * s.width());
        let (mut out, mut lse) = (vec![f32::NAN; dout.len()], vec![f32::NAN; s.lse_len()]);
        super::super::forward(TEAM, s, &mut out, &mut lse, &qkv);
        let (mut dqkv, mut rowsums) = (vec![f32::NAN; qkv.len()], vec![f32::NAN; s.lse_len()]);
        let inputs = Inputs { dout: &dout, qkv: &qkv, out: &out, lse: &lse };
        backward(TEAM, s, &mut dqkv, inputs, &mut rowsums);
        let exact = exact(s, &wide(&qkv), &wide(&dout));
        close(&format!("{s:?} out"), &out, &exact.out, 1e-5);
        close(&format!("{s:?} lse"), &lse, &exact.lse, 1e-5);
        close(&format!("{s:?} dqkv"), &dqkv, &exact.dqkv, 1e-5);
    }

    #[test]
    fn forward_and_gradients_agree_with_plain_loops() {
        for mut r in shapes(50) {
            let s = Attention {
                batch: 1 + r.below(3),
                heads: 1 + r.below(4),
                sequence: 1 + r.below(150),
                head_size: 8 * (1 + r.below(16)),
            };
            check(s, &mut r);
        }
    }

    #[test]
    fn several_chunks_of_keys_agree_too() {
        for (mut r, sequence) in shapes(4).zip([KEYS, KEYS + 1, 2 * KEYS - 1, 2 * KEYS + 65]) {
            check(Attention { batch: 1, heads: 1, sequence, head_size: 8 }, &mut r);
        }
    }

    #[test]
    fn large_scores_neither_overflow_nor_vanish() {
        let s = Attention { batch: 1, heads: 1, sequence: 70, head_size: 16 };
        let mut r = crate::stats::SplitMix(1);
        let qkv: Vec<f32> = random(&mut r, 3 * 70 * 16).iter().map(|v| 30.0 * v).collect();
        let (mut out, mut lse) = (vec![f32::NAN; 70 * 16], vec![f32::NAN; 70]);
        super::super::forward(TEAM, s, &mut out, &mut lse, &qkv);
        let exact = exact(s, &wide(&qkv), &vec![0.0; 70 * 16]);
        // Scores reach a thousand: rounded to f32 they move probabilities by 1e-4.
        close("out", &out, &exact.out, 1e-3);
        close("lse", &lse, &exact.lse, 1e-5);
    }
}
