//! dQ, dK and dV. The probabilities are made again from the log-sum-exp: P = e^(scale·q·k − lse).
//!
//! With D = rowsum(dO·O): dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P∘(dP − D), dQ = scale·dS·K, dK = scale·dSᵀ·Q
//! (Dao et al., arXiv 2205.14135, appendix B.2).

use super::forward::hide;
use super::{Head, KEYS, QUERIES, cut_rows, tasks_per_head, transpose, with_scratch};
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

/// One head's gradients, row by row.
struct Rows<'a> {
    dq: Vec<&'a mut [f32]>,
    dk: Vec<&'a mut [f32]>,
    dv: Vec<&'a mut [f32]>,
}

/// Some of a head's blocks of queries: their number and the rows of dq.
type Blocks<'t, 'a> = Vec<(usize, &'t mut [&'a mut [f32]])>;

pub fn backward(team: Team, s: Attention, dqkv: &mut [f32], inputs: Inputs<'_>) {
    let mut cut = cut_rows(s, dqkv, 3).into_iter();
    let mut heads = Vec::with_capacity(s.batch * s.heads);
    for _ in 0..s.batch {
        let mut take = || -> Vec<_> { cut.by_ref().take(s.heads).collect() };
        let (dq, dk, dv) = (take(), take(), take());
        heads.extend(dq.into_iter().zip(dk).zip(dv).map(|((dq, dk), dv)| Rows { dq, dk, dv }));
    }
    let tasks = tasks_per_head(team, s);
    if tasks == 1 {
        heads.into_par_iter().with_max_len(1).enumerate().for_each(|(head, rows)| whole_head(s, head, rows, inputs));
    } else {
        shared_heads(s, tasks, heads, inputs);
    }
}

fn whole_head(s: Attention, head: usize, mut rows: Rows<'_>, inputs: Inputs<'_>) {
    let len = s.sequence * s.head_size;
    with_scratch([len, len], |[dk, dv]| {
        dk.fill(0.0);
        dv.fill(0.0);
        add_blocks(s, head, rows.dq.chunks_mut(QUERIES).enumerate().collect(), dk, dv, inputs);
        rows.dk.iter_mut().zip(dk.chunks_exact(s.head_size)).for_each(|(to, from)| to.copy_from_slice(from));
        rows.dv.iter_mut().zip(dv.chunks_exact(s.head_size)).for_each(|(to, from)| to.copy_from_slice(from));
    });
}

/// Fewer heads than threads like: each head's blocks of queries go to `tasks` tasks in turn (later blocks see more keys),
/// every task sums its own dk and dv, and those are added up at the end, always in the same order.
fn shared_heads(s: Attention, tasks: usize, mut heads: Vec<Rows<'_>>, inputs: Inputs<'_>) {
    let len = s.sequence * s.head_size;
    let mut partial = vec![0.0; heads.len() * tasks * 2 * len];
    let blocks: Vec<Blocks<'_, '_>> = heads
        .iter_mut()
        .flat_map(|rows| {
            let mut blocks: Vec<Blocks<'_, '_>> = (0..tasks).map(|_| Vec::new()).collect();
            rows.dq.chunks_mut(QUERIES).enumerate().for_each(|(at, rows)| blocks[at % tasks].push((at, rows)));
            blocks
        })
        .collect();
    blocks.into_par_iter().zip(partial.par_chunks_mut(2 * len)).with_max_len(1).enumerate().for_each(
        |(task, (blocks, partial))| {
            let (dk, dv) = partial.split_at_mut(len);
            add_blocks(s, task / tasks, blocks, dk, dv, inputs);
        },
    );
    heads.par_iter_mut().zip(partial.par_chunks(tasks * 2 * len)).for_each(|(rows, partial)| {
        for (at, row) in rows.dk.iter_mut().chain(&mut rows.dv).enumerate() {
            row.fill(0.0);
            for partial in partial.chunks_exact(2 * len) {
                row.iter_mut().zip(&partial[at * s.head_size..]).for_each(|(to, v)| *to += v);
            }
        }
    });
}

/// dq of the given blocks of queries; what they give to dk and dv (sequence × head size) is added.
fn add_blocks(s: Attention, head: usize, blocks: Blocks<'_, '_>, dk: &mut [f32], dv: &mut [f32], inputs: Inputs<'_>) {
    let (d, n) = (s.head_size, s.sequence);
    let part = |part| Head::new(s, inputs.qkv, 3, part, head);
    let (dout, out) = (Head::new(s, inputs.dout, 1, 0, head), Head::new(s, inputs.out, 1, 0, head));
    let (block, scores) = (QUERIES * d, KEYS.min(n) * QUERIES);
    with_scratch([n * d, n * d, block, block, block, block, block, scores, scores], |memory| {
        let [k, v, q, q_t, dout_rows, dout_t, dq, p, ds] = memory;
        part(1).copy(k, 0, n, 1.0);
        part(2).copy(v, 0, n, 1.0);
        for (index, dq_rows) in blocks {
            let first = index * QUERIES;
            let last = first + dq_rows.len();
            part(0).copy(q, first, last, s.scale() as f32);
            transpose(q_t, q, d);
            dout.copy(dout_rows, first, last, 1.0);
            transpose(dout_t, dout_rows, d);
            let (mut lse, mut rowsums) = ([0.0; QUERIES], [0.0; QUERIES]);
            lse[..last - first].copy_from_slice(&inputs.lse[head * n..][first..last]);
            vectorized!(|| {
                for (sum, row) in rowsums.iter_mut().zip(first..last) {
                    *sum = sum2(dout.row(row), out.row(row), |a, b| a * b);
                }
            });
            let block = Block { d, first, q, q_t, dout: dout_rows, dout_t, lse, rowsums };
            let visible = last * d;
            block.add([&k[..visible], &v[..visible]], dq, [dk, dv], [p, ds]);
            for (lane, row) in dq_rows.iter_mut().enumerate() {
                row.iter_mut().enumerate().for_each(|(at, to)| *to = s.scale() as f32 * dq[at * QUERIES + lane]);
            }
        }
    });
}

/// One block of queries: q (scaled) and dout as they are and transposed; rows past the last query are zero.
struct Block<'a> {
    d: usize,
    first: usize,
    q: &'a [f32],
    q_t: &'a [f32],
    dout: &'a [f32],
    dout_t: &'a [f32],
    lse: [f32; QUERIES],
    rowsums: [f32; QUERIES],
}

impl Block<'_> {
    /// dq (transposed, without its scale) = this block's; dk and dv are added to. `p` and `ds` are scratch for one
    /// chunk's probabilities and their gradient.
    fn add(&self, [k, v]: [&[f32]; 2], dq: &mut [f32], [dk, dv]: [&mut [f32]; 2], [p, ds]: [&mut [f32]; 2]) {
        let d = self.d;
        for (chunk, (k, v)) in k.chunks(KEYS * d).zip(v.chunks(KEYS * d)).enumerate() {
            let keys = k.len() / d;
            let span = chunk * KEYS * d..(chunk * KEYS + keys) * d;
            let (p, ds) = (&mut p[..keys * QUERIES], &mut ds[..keys * QUERIES]);
            let (k, v) = (Matrix::new(k, keys, d, d), Matrix::new(v, keys, d, d));
            multiply(1, p, QUERIES, false, 1.0, k, Matrix::new(self.q_t, d, QUERIES, QUERIES));
            multiply(1, ds, QUERIES, false, 1.0, v, Matrix::new(self.dout_t, d, QUERIES, QUERIES));
            let offset = self.first as isize - (chunk * KEYS) as isize;
            vectorized!(|| softmax_gradient(p, ds, &self.lse, &self.rowsums, offset));
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
        let mut dqkv = vec![f32::NAN; qkv.len()];
        let inputs = Inputs { dout: &dout, qkv: &qkv, out: &out, lse: &lse };
        backward(TEAM, s, &mut dqkv, inputs);
        let exact = exact(s, &wide(&qkv), &wide(&dout));
        close(&format!("{s:?} out"), &out, &exact.out, 1e-5);
        close(&format!("{s:?} lse"), &lse, &exact.lse, 1e-5);
        close(&format!("{s:?} dqkv"), &dqkv, &exact.dqkv, 1e-5);
    }

    #[test]
    fn forward_and_gradients_agree_with_plain_loops() {
        for mut r in shapes(50) {
            let s = Attention::new(1 + r.below(3), 1 + r.below(4), 1 + r.below(150), 8 * (1 + r.below(16)));
            check(s, &mut r);
        }
    }

    #[test]
    fn several_chunks_of_keys_agree_too() {
        for (mut r, sequence) in shapes(4).zip([KEYS, KEYS + 1, 2 * KEYS - 1, 2 * KEYS + 65]) {
            check(Attention::new(1, 1, sequence, 8), &mut r);
        }
    }

    #[test]
    fn large_scores_neither_overflow_nor_vanish() {
        let s = Attention::new(1, 1, 70, 16);
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
