//! Operations as values: each with its name, its floating-point operations and the bytes it cannot avoid moving.
//!
//! Cases time them one by one, the cost model fits them, and [`super::layer`] strings them into a layer.

use super::sizes::{Attention, DType, Linear, Rows};

/// Which of a linear layer's three products; shapes as in [`Linear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// Y = X·Wᵀ (TN in column-major BLAS terms)
    Forward,
    /// dX = dY·W (NN)
    ToInputs,
    /// dW += dYᵀ·X (NT)
    ToWeights,
}

impl Product {
    /// As it stands in case names and cost models.
    pub const fn name(self) -> &'static str {
        match self {
            Product::Forward => "forward",
            Product::ToInputs => "backward_input",
            Product::ToWeights => "backward_weight",
        }
    }
}

/// What a product does beside multiplying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// The bias is added to the output.
    Bias,
    /// The bias is added, the sum kept, and its GELU is the output.
    BiasGelu,
    /// GELU differentiated in the product to inputs.
    GeluBackward,
    /// The product to weights also sums dY over its rows into the bias's gradient.
    BiasGradient,
}

/// One operation with its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// One product of a linear layer.
    Linear {
        /// Which of the three.
        product: Product,
        /// Its dimensions.
        shape: Linear,
        /// What is fused into it.
        epilogue: Epilogue,
    },
    /// Causal self-attention; keeps its log-sum-exp.
    AttentionForward(Attention),
    /// Its gradients to Q, K and V.
    AttentionBackward(Attention),
    /// Layer normalisation; keeps mean and reciprocal deviation of each row.
    LayernormForward(Rows),
    /// Its gradient to the inputs, with the skip path's gradient added.
    LayernormToInputs(Rows),
    /// Its gradients to gain and bias, summed over the rows.
    LayernormToWeights(Rows),
    /// GELU by itself, where no product could take it along.
    GeluForward {
        /// Elements.
        len: usize,
    },
    /// Its gradient.
    GeluBackward {
        /// Elements.
        len: usize,
    },
    /// The sum of the skip path and a block's output.
    Residual {
        /// Elements.
        len: usize,
    },
    /// The sum of the skip path and a block's output, and its layer normalisation, in one pass.
    ResidualLayernorm(Rows),
    /// Dropout whose mask is worked out from a seed; its gradient is the same operation on dY.
    Dropout {
        /// Elements.
        len: usize,
    },
    /// rows × vocabulary, loss and gradient in one pass.
    CrossEntropy(Rows),
    /// A row of the table and one of the positions added, for each token.
    EmbeddingForward(Rows),
    /// Gradients added to those rows.
    EmbeddingToWeights(Rows),
    /// One AdamW step.
    Adamw {
        /// Parameters.
        len: usize,
    },
}

/// Which family of the cost model an operation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Matrix products, limited by arithmetic.
    Gemm,
    /// Attention, both at once.
    Attention,
    /// Everything else: limited by the bytes it moves.
    Streaming,
}

impl Operation {
    /// The family it is fitted in.
    pub const fn family(&self) -> Family {
        match self {
            Operation::Linear { .. } => Family::Gemm,
            Operation::AttentionForward(_) | Operation::AttentionBackward(_) => Family::Attention,
            Operation::LayernormForward(_)
            | Operation::LayernormToInputs(_)
            | Operation::LayernormToWeights(_)
            | Operation::GeluForward { .. }
            | Operation::GeluBackward { .. }
            | Operation::Residual { .. }
            | Operation::ResidualLayernorm(_)
            | Operation::Dropout { .. }
            | Operation::CrossEntropy(_)
            | Operation::EmbeddingForward(_)
            | Operation::EmbeddingToWeights(_)
            | Operation::Adamw { .. } => Family::Streaming,
        }
    }

    /// Name within its family, as the cost model's fits are keyed: `forward`, `layernorm/forward`, `residual`, …
    pub const fn name(&self) -> &'static str {
        match self {
            Operation::Linear { product, .. } => product.name(),
            Operation::AttentionForward(_) => "forward",
            Operation::AttentionBackward(_) => "backward",
            Operation::LayernormForward(_) => "layernorm/forward",
            Operation::LayernormToInputs(_) => "layernorm/backward_input",
            Operation::LayernormToWeights(_) => "layernorm/backward_weight",
            Operation::GeluForward { .. } => "gelu/forward",
            Operation::GeluBackward { .. } => "gelu/backward",
            Operation::Residual { .. } => "residual",
            Operation::ResidualLayernorm(_) => "residual_layernorm",
            Operation::Dropout { .. } => "dropout",
            Operation::CrossEntropy(_) => "cross_entropy",
            Operation::EmbeddingForward(_) => "embedding/forward",
            Operation::EmbeddingToWeights(_) => "embedding/backward_weight",
            Operation::Adamw { .. } => "adamw",
        }
    }

    /// Floating-point operations; a multiply-add counts two. Causal attention counts the lower triangle only.
    pub fn flop(&self) -> f64 {
        let attention = |a: &Attention, products: f64| {
            let pairs = a.batch as f64 * a.heads as f64 * a.sequence as f64 * (a.sequence as f64 + 1.0) / 2.0;
            pairs * a.head_size as f64 * 2.0 * products
        };
        match self {
            Operation::Linear { shape, .. } => 2.0 * shape.rows as f64 * shape.inputs as f64 * shape.outputs as f64,
            // Q·Kᵀ and P·V
            Operation::AttentionForward(a) => attention(a, 2.0),
            // S recomputed, dP, dV, dQ, dK
            Operation::AttentionBackward(a) => attention(a, 5.0),
            Operation::LayernormForward(r) => 8.0 * r.len() as f64,
            Operation::LayernormToInputs(r) => 12.0 * r.len() as f64,
            Operation::LayernormToWeights(r) => 5.0 * r.len() as f64,
            Operation::GeluForward { len } => 10.0 * *len as f64,
            Operation::GeluBackward { len } => 18.0 * *len as f64,
            Operation::Residual { len } => *len as f64,
            Operation::ResidualLayernorm(r) => 9.0 * r.len() as f64,
            // The multiplication; the generator's are of integers.
            Operation::Dropout { len } => *len as f64,
            Operation::CrossEntropy(r) => 6.0 * r.len() as f64,
            Operation::EmbeddingForward(r) | Operation::EmbeddingToWeights(r) => r.len() as f64,
            Operation::Adamw { len } => 14.0 * *len as f64,
        }
    }

    /// Bytes that must be read and written at least once with data of type `dtype` (statistics and moments are fp32).
    pub fn bytes(&self, dtype: DType) -> f64 {
        let e = dtype.bytes() as f64;
        match self {
            Operation::Linear { shape, epilogue, .. } => {
                let (r, i, o) = (shape.rows as f64, shape.inputs as f64, shape.outputs as f64);
                let extra = match epilogue {
                    Epilogue::BiasGelu => r * o,
                    Epilogue::GeluBackward => r * i,
                    _ => 0.0,
                };
                e * (r * i + r * o + i * o + extra)
            }
            Operation::AttentionForward(a) => e * 4.0 * (a.rows() * a.width()) as f64 + 4.0 * a.lse_len() as f64,
            Operation::AttentionBackward(a) => e * 8.0 * (a.rows() * a.width()) as f64 + 8.0 * a.lse_len() as f64,
            Operation::LayernormForward(r) => e * 2.0 * r.len() as f64 + 8.0 * r.rows as f64,
            Operation::LayernormToInputs(r) => e * 4.0 * r.len() as f64 + 8.0 * r.rows as f64,
            Operation::LayernormToWeights(r) => e * 2.0 * r.len() as f64 + 8.0 * r.rows as f64,
            Operation::ResidualLayernorm(r) => e * 4.0 * r.len() as f64 + 8.0 * r.rows as f64,
            Operation::GeluForward { len } | Operation::Dropout { len } => e * 2.0 * *len as f64,
            Operation::GeluBackward { len } | Operation::Residual { len } => e * 3.0 * *len as f64,
            Operation::CrossEntropy(r) => e * 2.0 * r.len() as f64,
            Operation::EmbeddingForward(r) => e * 3.0 * r.len() as f64,
            Operation::EmbeddingToWeights(r) => e * 5.0 * r.len() as f64,
            // gradient in; m, v in and out; the parameter in and out, or out alone where its fp32 master is in and out
            Operation::Adamw { len } if dtype.bytes() < 4 => (2.0 * e + 24.0) * *len as f64,
            Operation::Adamw { len } => (3.0 * e + 16.0) * *len as f64,
        }
    }

    /// Time asked of the device is split over this many elements of output: small ones cannot fill it.
    pub fn output_elements(&self) -> f64 {
        match self {
            Operation::Linear { product, shape, .. } => match product {
                Product::Forward => (shape.rows * shape.outputs) as f64,
                Product::ToInputs => (shape.rows * shape.inputs) as f64,
                Product::ToWeights => (shape.outputs * shape.inputs) as f64,
            },
            Operation::AttentionForward(a) => (a.rows() * a.width()) as f64,
            Operation::AttentionBackward(a) => (3 * a.rows() * a.width()) as f64,
            Operation::LayernormForward(r)
            | Operation::LayernormToInputs(r)
            | Operation::CrossEntropy(r)
            | Operation::EmbeddingForward(r)
            | Operation::EmbeddingToWeights(r)
            | Operation::ResidualLayernorm(r) => r.len() as f64,
            Operation::LayernormToWeights(r) => 2.0 * r.cols as f64,
            Operation::GeluForward { len }
            | Operation::GeluBackward { len }
            | Operation::Residual { len }
            | Operation::Dropout { len }
            | Operation::Adamw { len } => *len as f64,
        }
    }
}
