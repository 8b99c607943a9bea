//! The small models' operations in f64: convolution, group normalisation, pooling, the LSTM cell, SGD.
//!
//! [`super::Reference`] has checked every length.

use super::transformer::{NormBackward, NormForward};
use crate::ops::{Conv, GROUPNORM_EPSILON, GroupNorm, LstmCell, Pool, Sgd};

/// Every (output position and channel, weight, input) triple of a convolution, as indices into y, w and x.
fn each_tap(shape: Conv, mut f: impl FnMut(usize, usize, usize)) {
    let (oh, ow, c, r) = (shape.out_height(), shape.out_width(), shape.in_channels, shape.kernel);
    for (n, oy, ox) in (0..shape.batch).flat_map(|n| (0..oh * ow).map(move |p| (n, p / ow, p % ow))) {
        for (ky, kx) in (0..r * r).map(|k| (k / r, k % r)) {
            let (iy, ix) = (oy * shape.stride + ky, ox * shape.stride + kx);
            let inside = |i: usize, size: usize| i >= shape.padding && i - shape.padding < size;
            if !inside(iy, shape.height) || !inside(ix, shape.width) {
                continue;
            }
            let x = ((n * shape.height + iy - shape.padding) * shape.width + ix - shape.padding) * c;
            for k in 0..shape.out_channels {
                let y = ((n * oh + oy) * ow + ox) * shape.out_channels + k;
                let w = k * shape.patch() + (ky * r + kx) * c;
                (0..c).for_each(|i| f(y, w + i, x + i));
            }
        }
    }
}

pub fn conv_forward(shape: Conv, y: &mut [f64], x: &[f64], w: &[f64]) {
    y.fill(0.0);
    each_tap(shape, |iy, iw, ix| y[iy] += x[ix] * w[iw]);
}

pub fn conv_to_inputs(shape: Conv, dx: &mut [f64], dy: &[f64], w: &[f64]) {
    dx.fill(0.0);
    each_tap(shape, |iy, iw, ix| dx[ix] += dy[iy] * w[iw]);
}

pub fn conv_to_weights(shape: Conv, dw: &mut [f64], dy: &[f64], x: &[f64]) {
    each_tap(shape, |iy, iw, ix| dw[iw] += dy[iy] * x[ix]);
}

/// Indices of one (batch, group): (element, channel).
fn group(shape: GroupNorm, batch: usize, group: usize) -> impl Iterator<Item = (usize, usize)> {
    let width = shape.channels / shape.groups;
    let first = group * width;
    (0..shape.positions)
        .flat_map(move |p| (first..first + width).map(move |c| ((batch * shape.positions + p) * shape.channels + c, c)))
}

fn each_group(shape: GroupNorm) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.batch).flat_map(move |b| (0..shape.groups).map(move |g| (b, g)))
}

fn group_size(shape: GroupNorm) -> f64 {
    (shape.positions * shape.channels / shape.groups) as f64
}

/// Layer normalisation over the positions and channels of a group (Wu & He, arXiv 1803.08494).
pub fn groupnorm_forward(shape: GroupNorm, t: NormForward<'_>) {
    for (b, g) in each_group(shape) {
        let mean = group(shape, b, g).map(|(i, _)| t.x[i]).sum::<f64>() / group_size(shape);
        let variance = group(shape, b, g).map(|(i, _)| (t.x[i] - mean).powi(2)).sum::<f64>() / group_size(shape);
        let rstd = 1.0 / (variance + GROUPNORM_EPSILON).sqrt();
        (t.mean[b * shape.groups + g], t.rstd[b * shape.groups + g]) = (mean, rstd);
        for (i, c) in group(shape, b, g) {
            t.y[i] = t.gamma[c] * (t.x[i] - mean) * rstd + t.beta[c];
        }
    }
}

pub fn groupnorm_to_inputs(shape: GroupNorm, dx: &mut [f64], t: NormBackward<'_>, gamma: &[f64]) {
    for (b, g) in each_group(shape) {
        let (mean, rstd) = (t.mean[b * shape.groups + g], t.rstd[b * shape.groups + g]);
        let normal = |i: usize| (t.x[i] - mean) * rstd;
        let mean_g = group(shape, b, g).map(|(i, c)| gamma[c] * t.dy[i]).sum::<f64>() / group_size(shape);
        let mean_gx = group(shape, b, g).map(|(i, c)| gamma[c] * t.dy[i] * normal(i)).sum::<f64>() / group_size(shape);
        for (i, c) in group(shape, b, g) {
            dx[i] = rstd * (gamma[c] * t.dy[i] - mean_g - normal(i) * mean_gx);
        }
    }
}

pub fn groupnorm_to_weights(shape: GroupNorm, dgamma: &mut [f64], dbeta: &mut [f64], t: NormBackward<'_>) {
    for (b, g) in each_group(shape) {
        let (mean, rstd) = (t.mean[b * shape.groups + g], t.rstd[b * shape.groups + g]);
        for (i, c) in group(shape, b, g) {
            dgamma[c] += t.dy[i] * (t.x[i] - mean) * rstd;
            dbeta[c] += t.dy[i];
        }
    }
}

pub fn average_pool_forward(shape: Pool, y: &mut [f64], x: &[f64]) {
    y.fill(0.0);
    for (i, x) in x.iter().enumerate() {
        let (n, c) = (i / (shape.positions * shape.channels), i % shape.channels);
        y[n * shape.channels + c] += x / shape.positions as f64;
    }
}

pub fn average_pool_backward(shape: Pool, dx: &mut [f64], dy: &[f64]) {
    for (i, dx) in dx.iter_mut().enumerate() {
        let (n, c) = (i / (shape.positions * shape.channels), i % shape.channels);
        *dx = dy[n * shape.channels + c] / shape.positions as f64;
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Where the input, forget, cell and output gates of unit `u` of row `r` lie.
fn gate_indices(shape: LstmCell, r: usize, u: usize) -> [usize; 4] {
    std::array::from_fn(|g| r * 4 * shape.hidden + g * shape.hidden + u)
}

/// i, f, o = σ(·), g = tanh(·); c = f·c₋₁ + i·g; h = o·tanh(c) (Hochreiter & Schmidhuber 1997 with forget gates).
pub fn lstm_cell_forward(shape: LstmCell, h: &mut [f64], c: &mut [f64], gates: &mut [f64], c_prev: &[f64]) {
    for (r, u) in (0..shape.rows).flat_map(|r| (0..shape.hidden).map(move |u| (r, u))) {
        let at = r * shape.hidden + u;
        let [i, f, g, o] = gate_indices(shape, r, u);
        for k in [i, f, o] {
            gates[k] = sigmoid(gates[k]);
        }
        gates[g] = gates[g].tanh();
        c[at] = gates[f] * c_prev[at] + gates[i] * gates[g];
        h[at] = gates[o] * c[at].tanh();
    }
}

/// What the cell's backward pass reads.
pub struct CellBackward<'a> {
    pub dh: &'a [f64],
    pub gates: &'a [f64],
    pub c: &'a [f64],
    pub c_prev: &'a [f64],
}

pub fn lstm_cell_backward(shape: LstmCell, dgates: &mut [f64], dc: &mut [f64], t: CellBackward<'_>) {
    for (r, u) in (0..shape.rows).flat_map(|r| (0..shape.hidden).map(move |u| (r, u))) {
        let at = r * shape.hidden + u;
        let index = gate_indices(shape, r, u);
        let [i, f, g, o] = index.map(|k| t.gates[k]);
        let tanh_c = t.c[at].tanh();
        let through = dc[at] + t.dh[at] * o * (1.0 - tanh_c * tanh_c);
        dgates[index[0]] = through * g * i * (1.0 - i);
        dgates[index[1]] = through * t.c_prev[at] * f * (1.0 - f);
        dgates[index[2]] = through * i * (1.0 - g * g);
        dgates[index[3]] = t.dh[at] * tanh_c * o * (1.0 - o);
        dc[at] = through * f;
    }
}

pub fn sgd(param: &mut [f64], grad: &[f64], velocity: &mut [f64], config: Sgd) {
    for i in 0..param.len() {
        velocity[i] = config.momentum * velocity[i] + grad[i];
        param[i] -= config.learning_rate * velocity[i];
    }
}
