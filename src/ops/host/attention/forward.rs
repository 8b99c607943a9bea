//! out = softmax(scale·Q·Kᵀ, causal)·V, and the log-sum-exp of every row.

use super::{Head, KEYS, QUERIES, cut_rows, tasks_per_head, transpose, with_scratch};
use crate::ops::Attention;
use crate::ops::host::product::{Matrix, multiply};
use crate::ops::host::simd::{exp, vectorized};
use crate::ops::host::team::Team;
use rayon::prelude::*;

/// Consecutive queries of one head.
struct Task<'a> {
    head: usize,
    first: usize,
    out: &'a mut [&'a mut [f32]],
    lse: &'a mut [f32],
}

/// `lse[(b·heads + h)·sequence + s]` = ln Σₖ e^(scale·q·k) over the keys up to s.
pub fn forward(team: Team, s: Attention, out: &mut [f32], lse: &mut [f32], qkv: &[f32]) {
    let mut rows = cut_rows(s, out, 1);
    let length = s.sequence.div_ceil(tasks_per_head(team, s)).next_multiple_of(QUERIES);
    let tasks: Vec<Task<'_>> = rows
        .iter_mut()
        .zip(lse.chunks_exact_mut(s.sequence))
        .enumerate()
        .flat_map(|(head, (rows, lse))| {
            rows.chunks_mut(length).zip(lse.chunks_mut(length)).enumerate().map(move |(cut, (out, lse))| Task {
                head,
                first: cut * length,
                out,
                lse,
            })
        })
        .collect();
    tasks.into_par_iter().with_max_len(1).for_each(|task| run(s, task, qkv));
}

fn run(s: Attention, task: Task<'_>, qkv: &[f32]) {
    let (d, keys) = (s.head_size, task.first + task.out.len());
    let part = |part| Head::new(s, qkv, 3, part, task.head);
    with_scratch(
        [keys * d, keys * d, QUERIES * d, QUERIES * d, QUERIES * d, KEYS.min(keys) * QUERIES],
        |[k, v, block, q, o, scores]| {
            part(1).copy(k, 0, keys, 1.0);
            part(2).copy(v, 0, keys, 1.0);
            let blocks = task.out.chunks_mut(QUERIES).zip(task.lse.chunks_mut(QUERIES)).enumerate();
            for (index, (out, lse)) in blocks {
                let first = task.first + index * QUERIES;
                let last = first + out.len();
                part(0).copy(block, first, last, s.scale() as f32);
                transpose(q, block, d);
                let softmax = attend(d, o, scores, q, &k[..last * d], &v[..last * d], first);
                store(d, out, lse, o, &softmax);
            }
        },
    );
}

/// Running maximum and sum of e^(score − maximum) of each query.
struct Softmax {
    most: [f32; QUERIES],
    sum: [f32; QUERIES],
}

/// o (size × queries) = Σ e^(score − most)·v over all keys; queries start at position `first`.
fn attend(d: usize, o: &mut [f32], scores: &mut [f32], q: &[f32], k: &[f32], v: &[f32], first: usize) -> Softmax {
    let mut softmax = Softmax { most: [f32::NEG_INFINITY; QUERIES], sum: [0.0; QUERIES] };
    let q = Matrix::new(q, d, QUERIES, QUERIES);
    for (chunk, (k, v)) in k.chunks(KEYS * d).zip(v.chunks(KEYS * d)).enumerate() {
        let keys = k.len() / d;
        let scores = &mut scores[..keys * QUERIES];
        multiply(1, scores, QUERIES, false, 1.0, Matrix::new(k, keys, d, d), q);
        let hidden = first as isize - (chunk * KEYS) as isize;
        vectorized!(|| softmax_step(&mut softmax, scores, o, hidden, chunk == 0));
        let p = Matrix::new(scores, keys, QUERIES, QUERIES);
        multiply(1, o, QUERIES, chunk > 0, 1.0, Matrix::new(v, keys, d, d).transposed(), p);
    }
    softmax
}

/// One chunk of keys: scores become e^(score − maximum); what was summed before shrinks to the new maximum. Key `j` is
/// hidden from the first `j − offset` queries.
#[inline(always)]
fn softmax_step(softmax: &mut Softmax, scores: &mut [f32], o: &mut [f32], offset: isize, is_first: bool) {
    let before = softmax.most;
    let rows = scores.as_chunks_mut::<QUERIES>().0;
    hide(rows, offset, f32::NEG_INFINITY);
    let mut most = before;
    for row in &*rows {
        for lane in 0..QUERIES {
            most[lane] = if row[lane] > most[lane] { row[lane] } else { most[lane] };
        }
    }
    let mut sum = [0.0f32; QUERIES];
    for row in &mut *rows {
        for lane in 0..QUERIES {
            row[lane] = exp(row[lane] - most[lane]);
            sum[lane] += row[lane];
        }
    }
    hide(rows, offset, 0.0);
    softmax.most = most;
    if is_first {
        softmax.sum = sum;
        return;
    }
    let mut shrink = [0.0f32; QUERIES];
    for lane in 0..QUERIES {
        shrink[lane] = exp(before[lane] - most[lane]);
        softmax.sum[lane] = softmax.sum[lane].mul_add(shrink[lane], sum[lane]);
    }
    for row in o.as_chunks_mut::<QUERIES>().0 {
        for lane in 0..QUERIES {
            row[lane] *= shrink[lane];
        }
    }
}

/// Writes `value` where a key (row) comes after the query (lane).
#[inline(always)]
pub fn hide(rows: &mut [[f32; QUERIES]], offset: isize, value: f32) {
    let from = (offset + 1).max(0) as usize;
    for (key, row) in rows.iter_mut().enumerate().skip(from) {
        let hidden = (key as isize - offset).min(QUERIES as isize) as usize;
        row[..hidden].fill(value);
    }
}

fn store(d: usize, out: &mut [&mut [f32]], lse: &mut [f32], o: &[f32], softmax: &Softmax) {
    for (lane, (out, lse)) in out.iter_mut().zip(lse).enumerate() {
        let scale = 1.0 / softmax.sum[lane];
        for at in 0..d {
            out[at] = o[at * QUERIES + lane] * scale;
        }
        *lse = softmax.most[lane] + softmax.sum[lane].ln();
    }
}
