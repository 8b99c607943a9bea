//! The transformer's operations in f64, each formula as it stands on paper, on plain slices.
//!
//! [`super::Reference`] has checked every length; letters as in [`crate::ops`].

use super::product::{MatrixLayout, multiply};
use crate::ops::{AdamW, Attention, Embedding, LAYERNORM_EPSILON, Linear, Rows};
use rayon::prelude::*;

/// The slices of a forward normalisation: what is written and what is read.
pub struct NormForward<'a> {
    pub y: &'a mut [f64],
    pub mean: &'a mut [f64],
    pub rstd: &'a mut [f64],
    pub x: &'a [f64],
    pub gamma: &'a [f64],
    pub beta: &'a [f64],
}

/// What a normalisation's backward passes read.
#[derive(Clone, Copy)]
pub struct NormBackward<'a> {
    pub dy: &'a [f64],
    pub x: &'a [f64],
    pub mean: &'a [f64],
    pub rstd: &'a [f64],
}

pub fn linear_forward(shape: Linear, y: &mut [f64], x: &[f64], w: &[f64]) {
    let Linear { rows, inputs, outputs, accumulate } = shape;
    let wt = MatrixLayout::row_major(outputs, inputs).transposed();
    multiply(
        (y, MatrixLayout::row_major(rows, outputs)),
        accumulate,
        (x, MatrixLayout::row_major(rows, inputs)),
        (w, wt),
    );
}

pub fn linear_to_inputs(shape: Linear, dx: &mut [f64], dy: &[f64], w: &[f64]) {
    let Linear { rows, inputs, outputs, accumulate } = shape;
    let (ldy, lw) = (MatrixLayout::row_major(rows, outputs), MatrixLayout::row_major(outputs, inputs));
    multiply((dx, MatrixLayout::row_major(rows, inputs)), accumulate, (dy, ldy), (w, lw));
}

pub fn linear_to_weights(shape: Linear, dw: &mut [f64], dy: &[f64], x: &[f64]) {
    let Linear { rows, inputs, outputs, accumulate } = shape;
    let dyt = MatrixLayout::row_major(rows, outputs).transposed();
    multiply(
        (dw, MatrixLayout::row_major(outputs, inputs)),
        accumulate,
        (dy, dyt),
        (x, MatrixLayout::row_major(rows, inputs)),
    );
}

pub fn add_bias(y: &mut [f64], bias: &[f64]) {
    for row in y.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

/// dbias += column sums of dY
pub fn column_sums(dbias: &mut [f64], dy: &[f64]) {
    for row in dy.chunks_exact(dbias.len()) {
        dbias.iter_mut().zip(row).for_each(|(b, y)| *b += y);
    }
}

/// y = γ·(x − mean)·rstd + β with rstd = 1/√(variance + ε), per row (Ba et al., arXiv 1607.06450).
pub fn layernorm_forward(shape: Rows, t: NormForward<'_>) {
    let n = shape.cols as f64;
    for r in 0..shape.rows {
        let row = r * shape.cols..(r + 1) * shape.cols;
        let x = &t.x[row.clone()];
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let rstd = 1.0 / (variance + LAYERNORM_EPSILON).sqrt();
        (t.mean[r], t.rstd[r]) = (mean, rstd);
        for (c, y) in t.y[row].iter_mut().enumerate() {
            *y = t.gamma[c] * (x[c] - mean) * rstd + t.beta[c];
        }
    }
}

/// With x̂ = (x − mean)·rstd and g = γ·dy: dx = rstd·(g − mean(g) − x̂·mean(g·x̂)), plus the skip path's gradient.
pub fn layernorm_to_inputs(shape: Rows, dx: &mut [f64], t: NormBackward<'_>, gamma: &[f64], residual: Option<&[f64]>) {
    let n = shape.cols as f64;
    for r in 0..shape.rows {
        let at = |c: usize| r * shape.cols + c;
        let normal = |c: usize| (t.x[at(c)] - t.mean[r]) * t.rstd[r];
        let g = |c: usize| gamma[c] * t.dy[at(c)];
        let mean_g = (0..shape.cols).map(g).sum::<f64>() / n;
        let mean_gx = (0..shape.cols).map(|c| g(c) * normal(c)).sum::<f64>() / n;
        for c in 0..shape.cols {
            let through = t.rstd[r] * (g(c) - mean_g - normal(c) * mean_gx);
            dx[at(c)] = through + residual.map_or(0.0, |d| d[at(c)]);
        }
    }
}

/// dγ += Σ dy·x̂, dβ += Σ dy over the rows.
pub fn layernorm_to_weights(shape: Rows, dgamma: &mut [f64], dbeta: &mut [f64], t: NormBackward<'_>) {
    for r in 0..shape.rows {
        for c in 0..shape.cols {
            let i = r * shape.cols + c;
            dgamma[c] += t.dy[i] * (t.x[i] - t.mean[r]) * t.rstd[r];
            dbeta[c] += t.dy[i];
        }
    }
}

/// Where one head's queries, keys or values (`part` 0, 1, 2) lie in the packed rows.
fn head_of_qkv(a: &Attention, part: usize, batch: usize, head: usize) -> MatrixLayout {
    let width = 3 * a.width();
    MatrixLayout::columns(
        batch * a.sequence * width + part * a.width() + head * a.head_size,
        a.sequence,
        a.head_size,
        width,
    )
}

fn head_of_output(a: &Attention, batch: usize, head: usize) -> MatrixLayout {
    MatrixLayout::columns(batch * a.sequence * a.width() + head * a.head_size, a.sequence, a.head_size, a.width())
}

fn each_head(a: &Attention, mut f: impl FnMut(usize, usize)) {
    (0..a.batch).for_each(|b| (0..a.heads).for_each(|h| f(b, h)));
}

/// The whole S×S score matrix of a head: scale·Q·Kᵀ.
fn scores(a: &Attention, qkv: &[f64], batch: usize, head: usize) -> Vec<f64> {
    let (q, k) = (head_of_qkv(a, 0, batch, head), head_of_qkv(a, 1, batch, head));
    let mut scores = vec![0.0; a.sequence * a.sequence];
    multiply((&mut scores, MatrixLayout::row_major(a.sequence, a.sequence)), false, (qkv, q), (qkv, k.transposed()));
    scores.iter_mut().for_each(|s| *s *= a.scale());
    scores
}

/// out = softmax(mask(scale·Q·Kᵀ))·V per head; row i sees columns 0 to i.
pub fn attention_forward(a: &Attention, out: &mut [f64], lse: &mut [f64], qkv: &[f64]) {
    let s = a.sequence;
    each_head(a, |batch, head| {
        let mut p = scores(a, qkv, batch, head);
        let lse = &mut lse[(batch * a.heads + head) * s..][..s];
        for (i, row) in p.chunks_exact_mut(s).enumerate() {
            let most = row[..=i].iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = row[..=i].iter().map(|x| (x - most).exp()).sum();
            lse[i] = most + sum.ln();
            row[..=i].iter_mut().for_each(|x| *x = (*x - lse[i]).exp());
            row[i + 1..].fill(0.0);
        }
        let v = head_of_qkv(a, 2, batch, head);
        multiply((out, head_of_output(a, batch, head)), false, (&p, MatrixLayout::row_major(s, s)), (qkv, v));
    });
}

/// What the attention's backward pass reads.
pub struct AttentionBackward<'a> {
    pub dout: &'a [f64],
    pub qkv: &'a [f64],
    pub out: &'a [f64],
    pub lse: &'a [f64],
}

/// With P = exp(scores − lse), δ = rowsum(dO·O) and dS = P·(dO·Vᵀ − δ): dV = Pᵀ·dO, dQ = scale·dS·K, dK = scale·dSᵀ·Q.
pub fn attention_backward(a: &Attention, dqkv: &mut [f64], t: AttentionBackward<'_>, delta: &mut [f64]) {
    let s = a.sequence;
    let square = MatrixLayout::row_major(s, s);
    each_head(a, |batch, head| {
        let (o, per_head) = (head_of_output(a, batch, head), (batch * a.heads + head) * s);
        let part = |part| head_of_qkv(a, part, batch, head);
        let mut p = scores(a, t.qkv, batch, head);
        let mut ds = vec![0.0; s * s];
        multiply((&mut ds, square), false, (t.dout, o), (t.qkv, part(2).transposed()));
        for i in 0..s {
            let row = o.offset + i * o.row_stride..o.offset + i * o.row_stride + a.head_size;
            let sum: f64 = t.dout[row.clone()].iter().zip(&t.out[row]).map(|(d, o)| d * o).sum();
            delta[per_head + i] = sum;
            for j in 0..s {
                let seen = if j <= i { (p[i * s + j] - t.lse[per_head + i]).exp() } else { 0.0 };
                p[i * s + j] = seen;
                ds[i * s + j] = seen * (ds[i * s + j] - sum) * a.scale();
            }
        }
        multiply((dqkv, part(2)), false, (&p, square.transposed()), (t.dout, o));
        multiply((dqkv, part(0)), false, (&ds, square), (t.qkv, part(1)));
        multiply((dqkv, part(1)), false, (&ds, square.transposed()), (t.qkv, part(0)));
    });
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

/// GELU in its tanh form: ½x(1 + tanh(√(2/π)(x + 0.044715x³))) (Hendrycks & Gimpel, arXiv 1606.08415).
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044715 * x.powi(3))).tanh())
}

/// The derivative of [`gelu`]: ½(1 + t) + ½x(1 − t²)·√(2/π)(1 + 3·0.044715x²) with t = tanh(√(2/π)(x + 0.044715x³)).
pub fn gelu_derivative(x: f64) -> f64 {
    let t = (SQRT_2_OVER_PI * (x + 0.044715 * x.powi(3))).tanh();
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x * x)
}

/// `y[i] = f(x[i])` on all cores: the only costly element-wise formulas are those with a tanh.
pub fn map(y: &mut [f64], x: &[f64], f: impl Fn(f64) -> f64 + Sync) {
    y.par_iter_mut().with_min_len(4096).zip(x).for_each(|(y, x)| *y = f(*x));
}

/// dx = dy·gelu'(x); `dx` holds dy before the call.
pub fn gelu_backward_in_place(dx: &mut [f64], x: &[f64]) {
    dx.par_iter_mut().with_min_len(4096).zip(x).for_each(|(d, x)| *d *= gelu_derivative(*x));
}

pub fn embedding_forward(shape: Embedding, out: &mut [f64], tokens: &[u32], table: &[f64], positions: &[f64]) {
    let h = shape.hidden;
    for (r, out) in out.chunks_exact_mut(h).enumerate() {
        let (token, position) = (tokens[r] as usize, r % shape.sequence);
        for (c, out) in out.iter_mut().enumerate() {
            *out = table[token * h + c] + positions[position * h + c];
        }
    }
}

pub fn embedding_to_weights(shape: Embedding, dtable: &mut [f64], dpositions: &mut [f64], dout: &[f64], ids: &[u32]) {
    let h = shape.hidden;
    for (r, dout) in dout.chunks_exact(h).enumerate() {
        let (token, position) = (ids[r] as usize, r % shape.sequence);
        for (c, d) in dout.iter().enumerate() {
            dtable[token * h + c] += d;
            dpositions[position * h + c] += d;
        }
    }
}

/// `loss = log Σexp(z) − z[target]`; z becomes `(softmax(z) − onehot(target)) / rows`.
pub fn cross_entropy(shape: Rows, losses: &mut [f64], logits: &mut [f64], targets: &[u32]) {
    for (r, row) in logits.chunks_exact_mut(shape.cols).enumerate() {
        let target = targets[r] as usize;
        let most = row.iter().copied().fold(f64::MIN, f64::max);
        let lse = most + row.iter().map(|z| (z - most).exp()).sum::<f64>().ln();
        losses[r] = lse - row[target];
        row.iter_mut().for_each(|z| *z = (*z - lse).exp() / shape.rows as f64);
        row[target] -= 1.0 / shape.rows as f64;
    }
}

/// m = β₁m + (1−β₁)g, v = β₂v + (1−β₂)g²; p −= rate·(m̂/(√v̂ + ε) + decay·p) with m̂, v̂ bias-corrected.
pub fn adamw(param: &mut [f64], grad: &[f64], m: &mut [f64], v: &mut [f64], config: AdamW) {
    let (b1, b2, step) = (config.beta1, config.beta2, config.step as i32);
    for i in 0..param.len() {
        m[i] = b1 * m[i] + (1.0 - b1) * grad[i];
        v[i] = b2 * v[i] + (1.0 - b2) * grad[i] * grad[i];
        let (m_hat, v_hat) = (m[i] / (1.0 - b1.powi(step)), v[i] / (1.0 - b2.powi(step)));
        param[i] -= config.learning_rate * (m_hat / (v_hat.sqrt() + config.epsilon) + config.weight_decay * param[i]);
    }
}
