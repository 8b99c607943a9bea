//! The vocabulary: every operation a model is written in, as one trait.
//!
//! [`Ops`] is shaped for an asynchronous device: buffers are opaque, no operation returns data, nothing is allocated
//! inside an operation (callers make workspaces first), and errors surface at [`Ops::synchronize`]. The host obeys it
//! too. [`host`] runs on the CPU's cores in f32; [`mod@reference`] runs the same operations in f64, slowly and plainly, and
//! is what everything else is checked against.
//!
//! Letters: `B` micro-batch, `S` sequence, `A` heads, `D` head size, `H` hidden, `T` tensor-parallel size, rows = B·S.
//! All matrices are row-major. Outputs are overwritten (`=`) except gradients of parameters, which accumulate
//! (`+=`), and products, which do as their shape's `accumulate` says.

pub mod cuda;
mod dropout;
pub mod host;
pub mod reference;

use crate::Result;
/// Operations as values, under the name devices know them by.
pub use crate::shape::operation as work;
pub use crate::shape::{Attention, Conv, DType, Embedding, GroupNorm, Linear, LstmCell, Pool, Rows};
pub use dropout::Dropout;

/// What the forward product does to its result before it is stored.
pub enum ForwardEpilogue<'a, B> {
    /// Y is stored as the product gives it.
    None,
    /// The bias is added to every row: y += bias (`outputs` elements).
    Bias(&'a B),
    /// The bias is added and GELU applied: pre = y + bias; y = gelu(pre); `pre` is kept for the backward pass.
    BiasGelu {
        /// The bias, `outputs` elements.
        bias: &'a B,
        /// The GELU's input, rows × outputs, overwritten (=).
        pre: &'a mut B,
    },
}

/// What the product to inputs does to dX before it is stored.
pub enum InputEpilogue<'a, B> {
    /// dX is stored as the product gives it.
    None,
    /// dx = dx · gelu'(pre): the GELU that produced X is differentiated in the same pass.
    Gelu {
        /// The input of the GELU that produced X, rows × inputs.
        pre: &'a B,
    },
}

/// What the product to weights produces beside dW.
pub enum WeightEpilogue<'a, B> {
    /// Nothing is computed beside dW.
    None,
    /// The gradient of the bias is computed as well: dbias += column sums of dY.
    Bias {
        /// The gradient of the bias, `outputs` elements, accumulated (+=).
        dbias: &'a mut B,
    },
}

/// Statistics that a normalisation keeps for its backward pass, one of each per row (group normalisation: per image and
/// group), in fp32 or wider.
pub struct RowStats<'a, B> {
    /// The mean of each row.
    pub mean: &'a B,
    /// The reciprocal standard deviation of each row: 1/√(variance + ε).
    pub rstd: &'a B,
}

/// What [`Ops::residual_layernorm`] writes: the sum and its normalisation (rows × cols), and a mean and reciprocal standard
/// deviation for each row, which the backward pass of the normalisation needs.
pub struct ResidualLayernorm<'a, B> {
    /// The sum of both inputs, rounded to the device's type; what is normalised is this rounded sum.
    pub sum: &'a mut B,
    /// The normalised sum, scaled by gamma and shifted by beta.
    pub y: &'a mut B,
    /// Mean of each row (fp32 or wider).
    pub mean: &'a mut B,
    /// 1 ÷ √(variance + epsilon) of each row (fp32 or wider).
    pub rstd: &'a mut B,
}

/// The ε that layer normalisation adds to the variance before it takes the square root.
pub const LAYERNORM_EPSILON: f64 = 1e-5;
/// The ε that group normalisation adds to the variance before it takes the square root.
pub const GROUPNORM_EPSILON: f64 = 1e-5;

/// AdamW with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101); `step` counts from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// The step size; the weight decay is multiplied by it as well.
    pub learning_rate: f64,
    /// How much of the gradient's running mean is kept in a step: m = β₁m + (1 − β₁)g.
    pub beta1: f64,
    /// How much of the squared gradient's running mean is kept in a step: v = β₂v + (1 − β₂)g².
    pub beta2: f64,
    /// What is added to the divisor √v̂, so that it is never 0.
    pub epsilon: f64,
    /// The decoupled weight decay: a step takes `learning_rate · weight_decay · p` off the parameter p.
    pub weight_decay: f64,
    /// The number of this step, from 1, by which m and v are corrected for their start at 0.
    pub step: u32,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { learning_rate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1, step: 1 }
    }
}

/// SGD with momentum: v = momentum·v + g; p −= learning_rate·v.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// The step size, by which the velocity is multiplied.
    pub learning_rate: f64,
    /// How much of the velocity is kept in a step; 0 is plain SGD.
    pub momentum: f64,
}

/// A device that speaks the vocabulary. See the module's first lines for the rules every method obeys.
// One argument per buffer: the shapes are already gathered into structs, and a struct per call would hide which buffer is which.
#[allow(clippy::too_many_arguments)]
pub trait Ops {
    /// Device memory, opaque to models.
    type Buffer;

    /// Type of activations, parameters and their gradients on this device.
    fn dtype(&self) -> DType;

    /// Makes a buffer of `len` elements, poisoned (NaN for floats) so that a missing write shows. An error where the
    /// device has no such type or no memory left.
    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Self::Buffer>;
    /// Copies floats from the host, rounding to the buffer's type. An error where the lengths differ or the buffer
    /// holds identifiers.
    fn write(&mut self, dst: &mut Self::Buffer, values: &[f64]) -> Result<()>;
    /// Copies token identifiers from the host. An error where the lengths differ or the buffer is not of type `u32`.
    fn write_ids(&mut self, dst: &mut Self::Buffer, ids: &[u32]) -> Result<()>;
    /// Waits for the device and copies back to the host. An error where an operation since the last wait failed.
    fn read(&mut self, src: &Self::Buffer) -> Result<Vec<f64>>;
    /// Waits until everything asked for is done; the first error since the last call surfaces here.
    fn synchronize(&mut self) -> Result<()>;
    /// Sets every element to zero.
    fn zero(&mut self, dst: &mut Self::Buffer);

    // --- products -------------------------------------------------------------------------------------------------
    /// Y (=|+=) X·Wᵀ, then the epilogue. += where [`Linear::accumulate`] is set.
    fn linear_forward(
        &mut self,
        shape: Linear,
        y: &mut Self::Buffer,
        x: &Self::Buffer,
        w: &Self::Buffer,
        epilogue: ForwardEpilogue<'_, Self::Buffer>,
    );
    /// dX (=|+=) dY·W, then the epilogue. += where [`Linear::accumulate`] is set.
    fn linear_to_inputs(
        &mut self,
        shape: Linear,
        dx: &mut Self::Buffer,
        dy: &Self::Buffer,
        w: &Self::Buffer,
        epilogue: InputEpilogue<'_, Self::Buffer>,
    );
    /// dW (=|+=) dYᵀ·X. With `accumulate` unset dW is overwritten; dbias always accumulates.
    fn linear_to_weights(
        &mut self,
        shape: Linear,
        dw: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        epilogue: WeightEpilogue<'_, Self::Buffer>,
    );

    // --- transformer ----------------------------------------------------------------------------------------------
    /// y = (x − mean)·rstd·gamma + beta per row (Ba et al., arXiv 1607.06450). Overwrites y (rows × cols) and `mean`
    /// and `rstd` (one per row, fp32 or wider); gamma and beta hold `cols` elements.
    fn layernorm_forward(
        &mut self,
        shape: Rows,
        y: &mut Self::Buffer,
        mean: &mut Self::Buffer,
        rstd: &mut Self::Buffer,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        beta: &Self::Buffer,
    );
    /// dx = gradient through the normalisation; with `residual`, dx = residual + gradient (the skip path joins here).
    fn layernorm_to_inputs(
        &mut self,
        shape: Rows,
        dx: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        stats: RowStats<'_, Self::Buffer>,
        residual: Option<&Self::Buffer>,
    );
    /// dgamma += Σ dy·x̂ and dbeta += Σ dy over the rows, with x̂ = (x − mean)·rstd; both hold `cols` elements.
    fn layernorm_to_weights(
        &mut self,
        shape: Rows,
        dgamma: &mut Self::Buffer,
        dbeta: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        stats: RowStats<'_, Self::Buffer>,
    );
    /// Causal self-attention, out = softmax(scale·Q·Kᵀ)·V per head over the keys up to the query. Overwrites `out`
    /// (rows of A·D) and `lse`, the log-sum-exp of the scaled scores at `(b·A + a)·S + s`; `qkv` is packed as
    /// [`Attention`] says.
    fn attention_forward(
        &mut self,
        shape: Attention,
        out: &mut Self::Buffer,
        lse: &mut Self::Buffer,
        qkv: &Self::Buffer,
    );
    /// Gradients of Q, K and V: `dqkv`, packed as `qkv`, is overwritten; `out` and `lse` are those of the forward pass.
    /// `workspace` holds [`Attention::lse_len`] elements (the row sums of dO·O).
    fn attention_backward(
        &mut self,
        shape: Attention,
        dqkv: &mut Self::Buffer,
        dout: &Self::Buffer,
        qkv: &Self::Buffer,
        out: &Self::Buffer,
        lse: &Self::Buffer,
        workspace: &mut Self::Buffer,
    );
    /// y = gelu(x), the tanh form: ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
    fn gelu_forward(&mut self, len: usize, y: &mut Self::Buffer, x: &Self::Buffer);
    /// dx = dy·gelu'(x), with x the input of the GELU; dx is overwritten.
    fn gelu_backward(&mut self, len: usize, dx: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer);
    /// out = a + b, the sum of a skip path; `out` is overwritten.
    fn residual(&mut self, len: usize, out: &mut Self::Buffer, a: &Self::Buffer, b: &Self::Buffer);
    /// sum = a + b; y = layernorm(sum), the two of them in one pass over the data.
    fn residual_layernorm(
        &mut self,
        shape: Rows,
        out: ResidualLayernorm<'_, Self::Buffer>,
        a: &Self::Buffer,
        b: &Self::Buffer,
        gamma: &Self::Buffer,
        beta: &Self::Buffer,
    );
    /// y = x ÷ (1 − probability) where `dropout` keeps the element, else 0. The gradient is the same of dy in the place of
    /// x: the mask is worked out again, not stored.
    fn dropout(&mut self, len: usize, y: &mut Self::Buffer, x: &Self::Buffer, dropout: Dropout);
    /// `out[r] = table[token[r]] + positions[r mod sequence]`: overwrites `out` (rows × hidden). `tokens` are of type
    /// `u32` and below the vocabulary's size.
    fn embedding_forward(
        &mut self,
        shape: Embedding,
        out: &mut Self::Buffer,
        tokens: &Self::Buffer,
        table: &Self::Buffer,
        positions: &Self::Buffer,
    );
    /// `dtable[token[r]] += dout[r]` and `dpositions[r mod sequence] += dout[r]`, in the shapes of
    /// [`Ops::embedding_forward`].
    fn embedding_to_weights(
        &mut self,
        shape: Embedding,
        dtable: &mut Self::Buffer,
        dpositions: &mut Self::Buffer,
        dout: &Self::Buffer,
        tokens: &Self::Buffer,
    );
    /// `losses[r] = −log softmax(logits[r])[target[r]]`; logits are replaced by their gradient of the mean loss,
    /// (softmax − onehot)/rows.
    fn cross_entropy(
        &mut self,
        shape: Rows,
        losses: &mut Self::Buffer,
        logits: &mut Self::Buffer,
        targets: &Self::Buffer,
    );
    /// One step of [`AdamW`] over `len` parameters; `param`, `master`, `m` and `v` are updated in place. `master` is
    /// the fp32 copy of a narrower parameter; devices whose dtype is fp32 or wider pass `None`.
    fn adamw(
        &mut self,
        len: usize,
        param: &mut Self::Buffer,
        master: Option<&mut Self::Buffer>,
        grad: &Self::Buffer,
        m: &mut Self::Buffer,
        v: &mut Self::Buffer,
        config: AdamW,
    );

    // --- small models ---------------------------------------------------------------------------------------------
    /// y = x convolved with w, zero outside the image, in the shapes and layout of [`Conv`]; y is overwritten.
    /// `workspace` holds [`Conv::workspace_len`] elements, which may be overwritten.
    fn conv_forward(
        &mut self,
        shape: Conv,
        y: &mut Self::Buffer,
        x: &Self::Buffer,
        w: &Self::Buffer,
        workspace: &mut Self::Buffer,
    );
    /// dx = gradient of the convolution's input from dy and w; dx is overwritten. `workspace` is that of
    /// [`Ops::conv_forward`].
    fn conv_to_inputs(
        &mut self,
        shape: Conv,
        dx: &mut Self::Buffer,
        dy: &Self::Buffer,
        w: &Self::Buffer,
        workspace: &mut Self::Buffer,
    );
    /// dw += gradient of the convolution's kernels from dy and x, summed over images and output positions. `workspace`
    /// is that of [`Ops::conv_forward`].
    fn conv_to_weights(
        &mut self,
        shape: Conv,
        dw: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        workspace: &mut Self::Buffer,
    );
    /// y = (x − mean)·rstd·gamma + beta, with mean and rstd per image and group (Wu & He, arXiv 1803.08494). Overwrites
    /// y, and [`GroupNorm::stats_len`] elements of `mean` and `rstd`; gamma and beta hold an element per channel.
    fn groupnorm_forward(
        &mut self,
        shape: GroupNorm,
        y: &mut Self::Buffer,
        mean: &mut Self::Buffer,
        rstd: &mut Self::Buffer,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        beta: &Self::Buffer,
    );
    /// dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·gamma, x̂ = (x − mean)·rstd and means over image and group;
    /// dx is overwritten.
    fn groupnorm_to_inputs(
        &mut self,
        shape: GroupNorm,
        dx: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        stats: RowStats<'_, Self::Buffer>,
    );
    /// dgamma += Σ dy·x̂ and dbeta += Σ dy per channel, over images and positions, with x̂ = (x − mean)·rstd.
    fn groupnorm_to_weights(
        &mut self,
        shape: GroupNorm,
        dgamma: &mut Self::Buffer,
        dbeta: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        stats: RowStats<'_, Self::Buffer>,
    );
    /// y = max(x, 0), element by element; y is overwritten.
    fn relu_forward(&mut self, len: usize, y: &mut Self::Buffer, x: &Self::Buffer);
    /// dx = dy where y > 0, else 0 (y is the ReLU's output).
    fn relu_backward(&mut self, len: usize, dx: &mut Self::Buffer, dy: &Self::Buffer, y: &Self::Buffer);
    /// y = mean of x over the positions: x is batch × positions × channels, y batch × channels; y is overwritten.
    fn average_pool_forward(&mut self, shape: Pool, y: &mut Self::Buffer, x: &Self::Buffer);
    /// dx = dy / positions at every position, in the shapes of [`Ops::average_pool_forward`]; dx is overwritten.
    fn average_pool_backward(&mut self, shape: Pool, dx: &mut Self::Buffer, dy: &Self::Buffer);
    /// c = f·c_prev + i·g and h = o·tanh(c): overwrites c and h (rows × hidden). `gates` (rows × 4·hidden: i, f, g, o
    /// in each row) holds pre-activations and is replaced by the activated gates.
    fn lstm_cell_forward(
        &mut self,
        shape: LstmCell,
        h: &mut Self::Buffer,
        c: &mut Self::Buffer,
        gates: &mut Self::Buffer,
        c_prev: &Self::Buffer,
    );
    /// `dgates`, the gradient of the pre-activations, is overwritten from dh and the activated `gates`. `dc` is both
    /// input (from the next step) and output (to the previous step).
    fn lstm_cell_backward(
        &mut self,
        shape: LstmCell,
        dgates: &mut Self::Buffer,
        dc: &mut Self::Buffer,
        dh: &Self::Buffer,
        gates: &Self::Buffer,
        c: &Self::Buffer,
        c_prev: &Self::Buffer,
    );
    /// One step of [`Sgd`] over `len` parameters; `param` and `velocity` (fp32 or wider) are updated in place.
    fn sgd(
        &mut self,
        len: usize,
        param: &mut Self::Buffer,
        grad: &Self::Buffer,
        velocity: &mut Self::Buffer,
        config: Sgd,
    );
}
