//! The vocabulary: every operation a model is written in, as one trait.
//!
//! [`Ops`] is shaped for an asynchronous device: buffers are opaque, no operation returns data, nothing is allocated
//! inside an operation (callers make workspaces first), and errors surface at [`Ops::synchronize`]. The host obeys it
//! too. [`host`] runs on the CPU's cores in f32; [`mod@reference`] runs the same operations in f64, slowly and plainly, and
//! is what everything else is checked against.
//!
//! Letters: `B` micro-batch, `S` sequence, `A` heads, `D` head size, `H` hidden, `T` tensor-parallel size, rows = B·S.
//! All matrices are row-major. Outputs are overwritten (`=`) except gradients of parameters, which accumulate (`+=`).

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
    None,
    /// y += bias (`outputs` elements)
    Bias(&'a B),
    /// pre = y + bias; y = gelu(pre); `pre` is kept for the backward pass.
    BiasGelu {
        bias: &'a B,
        pre: &'a mut B,
    },
}

/// What the product to inputs does to dX before it is stored.
pub enum InputEpilogue<'a, B> {
    None,
    /// dx = dx · gelu'(pre): the GELU that produced X is differentiated in the same pass.
    Gelu {
        pre: &'a B,
    },
}

/// What the product to weights produces beside dW.
pub enum WeightEpilogue<'a, B> {
    None,
    /// dbias += column sums of dY
    Bias {
        dbias: &'a mut B,
    },
}

/// Per-row statistics kept by a normalisation for its backward pass (fp32 or wider).
pub struct RowStats<'a, B> {
    pub mean: &'a B,
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

pub const LAYERNORM_EPSILON: f64 = 1e-5;
pub const GROUPNORM_EPSILON: f64 = 1e-5;

/// AdamW with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101); `step` counts from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
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
    pub learning_rate: f64,
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

    /// A buffer of `len` elements. Contents are poisoned (NaN for floats), so that a missing write shows.
    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Self::Buffer>;
    /// Copies from the host, rounding to the buffer's type. The lengths must match.
    fn write(&mut self, dst: &mut Self::Buffer, values: &[f64]) -> Result<()>;
    fn write_ids(&mut self, dst: &mut Self::Buffer, ids: &[u32]) -> Result<()>;
    /// Copies back to the host (waits for the device).
    fn read(&mut self, src: &Self::Buffer) -> Result<Vec<f64>>;
    /// Waits until everything asked for is done; the first error since the last call surfaces here.
    fn synchronize(&mut self) -> Result<()>;
    /// Sets every element to zero.
    fn zero(&mut self, dst: &mut Self::Buffer);

    // --- products -------------------------------------------------------------------------------------------------
    /// Y (=|+=) X·Wᵀ, then the epilogue.
    fn linear_forward(
        &mut self,
        shape: Linear,
        y: &mut Self::Buffer,
        x: &Self::Buffer,
        w: &Self::Buffer,
        epilogue: ForwardEpilogue<'_, Self::Buffer>,
    );
    /// dX (=|+=) dY·W, then the epilogue.
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
    fn layernorm_to_weights(
        &mut self,
        shape: Rows,
        dgamma: &mut Self::Buffer,
        dbeta: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        stats: RowStats<'_, Self::Buffer>,
    );
    fn attention_forward(
        &mut self,
        shape: Attention,
        out: &mut Self::Buffer,
        lse: &mut Self::Buffer,
        qkv: &Self::Buffer,
    );
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
    fn gelu_backward(&mut self, len: usize, dx: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer);
    /// out = a + b
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
    fn embedding_forward(
        &mut self,
        shape: Embedding,
        out: &mut Self::Buffer,
        tokens: &Self::Buffer,
        table: &Self::Buffer,
        positions: &Self::Buffer,
    );
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
    /// `master` is the fp32 copy of a narrower parameter; devices whose dtype is fp32 or wider pass `None`.
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
    fn conv_forward(
        &mut self,
        shape: Conv,
        y: &mut Self::Buffer,
        x: &Self::Buffer,
        w: &Self::Buffer,
        workspace: &mut Self::Buffer,
    );
    fn conv_to_inputs(
        &mut self,
        shape: Conv,
        dx: &mut Self::Buffer,
        dy: &Self::Buffer,
        w: &Self::Buffer,
        workspace: &mut Self::Buffer,
    );
    fn conv_to_weights(
        &mut self,
        shape: Conv,
        dw: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        workspace: &mut Self::Buffer,
    );
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
    fn groupnorm_to_inputs(
        &mut self,
        shape: GroupNorm,
        dx: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        gamma: &Self::Buffer,
        stats: RowStats<'_, Self::Buffer>,
    );
    fn groupnorm_to_weights(
        &mut self,
        shape: GroupNorm,
        dgamma: &mut Self::Buffer,
        dbeta: &mut Self::Buffer,
        dy: &Self::Buffer,
        x: &Self::Buffer,
        stats: RowStats<'_, Self::Buffer>,
    );
    fn relu_forward(&mut self, len: usize, y: &mut Self::Buffer, x: &Self::Buffer);
    /// dx = dy where y > 0, else 0 (y is the ReLU's output).
    fn relu_backward(&mut self, len: usize, dx: &mut Self::Buffer, dy: &Self::Buffer, y: &Self::Buffer);
    fn average_pool_forward(&mut self, shape: Pool, y: &mut Self::Buffer, x: &Self::Buffer);
    fn average_pool_backward(&mut self, shape: Pool, dx: &mut Self::Buffer, dy: &Self::Buffer);
    /// From pre-activation `gates` (rows×4·hidden, replaced by the activated gates) and c_prev: c and h.
    fn lstm_cell_forward(
        &mut self,
        shape: LstmCell,
        h: &mut Self::Buffer,
        c: &mut Self::Buffer,
        gates: &mut Self::Buffer,
        c_prev: &Self::Buffer,
    );
    /// dc is both input (from the next step) and output (to the previous step); dgates is of the pre-activations.
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
    fn sgd(
        &mut self,
        len: usize,
        param: &mut Self::Buffer,
        grad: &Self::Buffer,
        velocity: &mut Self::Buffer,
        config: Sgd,
    );
}
