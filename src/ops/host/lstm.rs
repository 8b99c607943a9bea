//! The LSTM cell (Hochreiter & Schmidhuber 1997, with forget gate) behind its gates' product: element-wise, forward and
//! backward. A row of `gates` holds input, forget, cell and output gate, `hidden` each.

use super::simd::{sigmoid, tanh, vectorized};
use super::team::Team;
use crate::ops::LstmCell;
use rayon::prelude::*;

/// gates are activated in place (σ, σ, tanh, σ); c = f·c_prev + i·g; h = o·tanh(c)
pub fn forward(team: Team, s: LstmCell, h: &mut [f32], c: &mut [f32], gates: &mut [f32], c_prev: &[f32]) {
    let hidden = s.hidden.max(1);
    let rows = team.rows_per_piece(s.rows, 16 * hidden);
    let pieces = (
        h.par_chunks_mut(rows * hidden),
        c.par_chunks_mut(rows * hidden),
        gates.par_chunks_mut(rows * 4 * hidden),
        c_prev.par_chunks(rows * hidden),
    );
    pieces.into_par_iter().for_each(|(h, c, gates, c_prev)| {
        vectorized!(|| {
            let states = h.chunks_exact_mut(hidden).zip(c.chunks_exact_mut(hidden)).zip(c_prev.chunks_exact(hidden));
            for (((h, c), c_prev), gates) in states.zip(gates.chunks_exact_mut(4 * hidden)) {
                let [i, f, g, o] = quarters_mut(gates);
                for unit in 0..hidden {
                    i[unit] = sigmoid(i[unit]);
                    f[unit] = sigmoid(f[unit]);
                    g[unit] = tanh(g[unit]);
                    o[unit] = sigmoid(o[unit]);
                    c[unit] = f[unit] * c_prev[unit] + i[unit] * g[unit];
                    h[unit] = o[unit] * tanh(c[unit]);
                }
            }
        });
    });
}

/// From dh and dc (of this step's c, from the next step): dgates of the pre-activations, and dc of c_prev in place.
pub fn backward(
    team: Team,
    s: LstmCell,
    dgates: &mut [f32],
    dc: &mut [f32],
    dh: &[f32],
    gates: &[f32],
    c: &[f32],
    c_prev: &[f32],
) {
    let hidden = s.hidden.max(1);
    let rows = team.rows_per_piece(s.rows, 20 * hidden);
    let (narrow, broad) = (rows * hidden, rows * 4 * hidden);
    let pieces = (
        dgates.par_chunks_mut(broad),
        dc.par_chunks_mut(narrow),
        dh.par_chunks(narrow),
        gates.par_chunks(broad),
        c.par_chunks(narrow),
        c_prev.par_chunks(narrow),
    );
    pieces.into_par_iter().for_each(|(dgates, dc, dh, gates, c, c_prev)| {
        let outputs = dgates.chunks_exact_mut(4 * hidden).zip(dc.chunks_exact_mut(hidden));
        let inputs = dh.chunks_exact(hidden).zip(gates.chunks_exact(4 * hidden));
        let states = c.chunks_exact(hidden).zip(c_prev.chunks_exact(hidden));
        for (((dgates, dc), (dh, gates)), (c, c_prev)) in outputs.zip(inputs).zip(states) {
            vectorized!(|| row_backward(dgates, dc, dh, gates, c, c_prev));
        }
    });
}

#[inline(always)]
fn row_backward(dgates: &mut [f32], dc: &mut [f32], dh: &[f32], gates: &[f32], c: &[f32], c_prev: &[f32]) {
    let hidden = dc.len();
    let [di, df, dg, dout] = quarters_mut(dgates);
    let (i, f) = (&gates[..hidden], &gates[hidden..2 * hidden]);
    let (g, o) = (&gates[2 * hidden..3 * hidden], &gates[3 * hidden..4 * hidden]);
    let (dh, c, c_prev) = (&dh[..hidden], &c[..hidden], &c_prev[..hidden]);
    for u in 0..hidden {
        let t = tanh(c[u]);
        let d = dc[u] + dh[u] * o[u] * (1.0 - t * t);
        di[u] = d * g[u] * i[u] * (1.0 - i[u]);
        df[u] = d * c_prev[u] * f[u] * (1.0 - f[u]);
        dg[u] = d * i[u] * (1.0 - g[u] * g[u]);
        dout[u] = dh[u] * t * o[u] * (1.0 - o[u]);
        dc[u] = d * f[u];
    }
}

#[inline(always)]
fn quarters_mut(row: &mut [f32]) -> [&mut [f32]; 4] {
    let (first, second) = row.split_at_mut(row.len() / 2);
    let (a, b) = first.split_at_mut(first.len() / 2);
    let (c, d) = second.split_at_mut(second.len() / 2);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    #[test]
    fn the_cell_and_its_gradient_agree_with_plain_loops() {
        for mut r in shapes(60) {
            let s = LstmCell { rows: 1 + r.below(40), hidden: 1 + r.below(150) };
            let len = s.rows * s.hidden;
            let pre: Vec<f32> = random(&mut r, 4 * len).iter().map(|v| 4.0 * v).collect();
            let (c_prev, dh, dc_next) = (random(&mut r, len), random(&mut r, len), random(&mut r, len));
            let (mut gates, mut h, mut c) = (pre.clone(), vec![f32::NAN; len], vec![f32::NAN; len]);
            forward(TEAM, s, &mut h, &mut c, &mut gates, &c_prev);
            let (mut dgates, mut dc) = (vec![f32::NAN; 4 * len], dc_next.clone());
            backward(TEAM, s, &mut dgates, &mut dc, &dh, &gates, &c, &c_prev);

            let (pre, c_prev, dh, dc_next) = (wide(&pre), wide(&c_prev), wide(&dh), wide(&dc_next));
            let (mut he, mut ce, mut dce, mut dge) =
                (vec![0.0; len], vec![0.0; len], vec![0.0; len], vec![0.0; 4 * len]);
            let sig = |x: f64| 1.0 / (1.0 + (-x).exp());
            for at in 0..len {
                let gate = |k: usize| (at / s.hidden * 4 + k) * s.hidden + at % s.hidden;
                let [i, f, g, o] = [sig(pre[gate(0)]), sig(pre[gate(1)]), pre[gate(2)].tanh(), sig(pre[gate(3)])];
                ce[at] = f * c_prev[at] + i * g;
                let t = ce[at].tanh();
                he[at] = o * t;
                let d = dc_next[at] + dh[at] * o * (1.0 - t * t);
                dge[gate(0)] = d * g * i * (1.0 - i);
                dge[gate(1)] = d * c_prev[at] * f * (1.0 - f);
                dge[gate(2)] = d * i * (1.0 - g * g);
                dge[gate(3)] = dh[at] * t * o * (1.0 - o);
                dce[at] = d * f;
            }
            close("h", &h, &he, 1e-5);
            close("c", &c, &ce, 1e-5);
            close("dgates", &dgates, &dge, 1e-5);
            close("dc", &dc, &dce, 1e-5);
        }
    }
}
