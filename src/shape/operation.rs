//! Operations as values: each with its name, its floating-point operations and the bytes it cannot avoid moving.
//!
//! Cases time them one by one, the cost model fits them, and [`super::layer`] strings them into a layer.

use super::sizes::{Attention, DType, Linear, Rows};

/// Which of a linear layer's three products; shapes as in [`Linear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// Y = X·Wᵀ (TN in column-major BLAS terms).
    Forward,
    /// dX = dY·W (NN).
    ToInputs,
    /// dW += dYᵀ·X (NT).
    ToWeights,
}

impl Product {
    /// The name that case names and cost models spell: `forward`, `backward_input` or `backward_weight`.
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
    /// The product does nothing else.
    None,
    /// The bias is added to the output.
    Bias,
    /// The bias is added, the sum kept, and its GELU is the output.
    BiasGelu,
    /// The product to inputs multiplies its result by GELU's derivative.
    GeluBackward,
    /// The product to weights also sums dY over its rows into the bias's gradient.
    BiasGradient,
}

/// One operation with its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// One product of a linear layer.
    Linear {
        /// Which of the layer's three products it is.
        product: Product,
        /// Dimensions of the linear layer.
        shape: Linear,
        /// What is fused into the product.
        epilogue: Epilogue,
    },
    /// Causal self-attention, which keeps its log-sum-exp for the backward pass.
    AttentionForward(Attention),
    /// Gradients of causal self-attention to Q, K and V.
    AttentionBackward(Attention),
    /// Layer normalisation, which keeps mean and reciprocal deviation of each row.
    LayernormForward(Rows),
    /// Gradient of layer normalisation to its inputs, with the skip path's gradient added.
    LayernormToInputs(Rows),
    /// Gradients of layer normalisation to gain and bias, summed over the rows.
    LayernormToWeights(Rows),
    /// RMS normalisation, which keeps the reciprocal root mean square of each row (Zhang & Sennrich, arXiv 1910.07467).
    RmsnormForward(Rows),
    /// Gradient of RMS normalisation to its inputs; the skip path's gradient is added by a [`Operation::Residual`].
    RmsnormToInputs(Rows),
    /// Gradient of RMS normalisation to its gain, summed over the rows.
    RmsnormToWeights(Rows),
    /// Rotary positions: pairs of elements of queries and keys are rotated by angles that depend on the position (Su et
    /// al., arXiv 2104.09864).
    RotaryForward {
        /// Number of elements of queries and keys together.
        len: usize,
    },
    /// Gradient of rotary positions: the rotation backwards.
    RotaryBackward {
        /// Number of elements of queries and keys together.
        len: usize,
    },
    /// The gate of a gated MLP: SiLU of one half of a product's output times the other half (Shazeer, arXiv 2002.05202).
    SwigluForward {
        /// Number of elements of the result.
        len: usize,
    },
    /// Gradients of the gate to both halves.
    SwigluBackward {
        /// Number of elements of the result.
        len: usize,
    },
    /// Scale, mask and softmax of attention scores that lie in memory, where attention is not fused.
    SoftmaxForward {
        /// Number of scores.
        len: usize,
    },
    /// Gradient of the softmax to the scores.
    SoftmaxBackward {
        /// Number of scores.
        len: usize,
    },
    /// A product of every head by itself, where attention is not fused: `batch` times m×k · k×n.
    BatchedProduct {
        /// Number of products.
        batch: usize,
        /// Rows of the left input and of the output.
        m: usize,
        /// Columns of the right input and of the output.
        n: usize,
        /// Columns of the left input, rows of the right one.
        k: usize,
    },
    /// Dropout with a mask of a byte an element that the backward pass reads again.
    MaskedDropout {
        /// Number of elements.
        len: usize,
    },
    /// Bias, masked dropout and the sum with the skip path in one pass.
    BiasDropoutResidual {
        /// Number of elements.
        len: usize,
    },
    /// Gradient of a bias: the output's gradient summed over its rows.
    BiasGradient {
        /// Number of elements of the output's gradient.
        len: usize,
    },
    /// One pass that reads and writes every element: a copy into another layout, or a bias added.
    Copy {
        /// Number of elements.
        len: usize,
    },
    /// GELU by itself, where no product could take it along.
    GeluForward {
        /// Number of elements.
        len: usize,
    },
    /// Gradient of GELU by itself.
    GeluBackward {
        /// Number of elements.
        len: usize,
    },
    /// The sum of the skip path and a block's output.
    Residual {
        /// Number of elements.
        len: usize,
    },
    /// The sum of the skip path and a block's output, and its layer normalisation, in one pass.
    ResidualLayernorm(Rows),
    /// Dropout whose mask is worked out from a seed; its gradient is the same operation on dY.
    Dropout {
        /// Number of elements.
        len: usize,
    },
    /// Cross-entropy over rows × vocabulary, loss and gradient in one pass.
    CrossEntropy(Rows),
    /// Embedding lookup: for each token, a row of the table plus one of the positions.
    EmbeddingForward(Rows),
    /// Gradients of the embedding, added to the rows that were looked up.
    EmbeddingToWeights(Rows),
    /// One AdamW step, which updates every parameter.
    Adamw {
        /// Number of parameters.
        len: usize,
    },
}

/// Which family of the cost model an operation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Matrix products, limited by arithmetic.
    Gemm,
    /// Attention, limited by arithmetic and memory at once.
    Attention,
    /// Every other operation, limited by the bytes it moves.
    Streaming,
}

impl Operation {
    /// The family whose fits answer for this operation.
    pub const fn family(&self) -> Family {
        match self {
            Operation::Linear { .. } | Operation::BatchedProduct { .. } => Family::Gemm,
            Operation::AttentionForward(_) | Operation::AttentionBackward(_) => Family::Attention,
            Operation::LayernormForward(_)
            | Operation::LayernormToInputs(_)
            | Operation::LayernormToWeights(_)
            | Operation::RmsnormForward(_)
            | Operation::RmsnormToInputs(_)
            | Operation::RmsnormToWeights(_)
            | Operation::RotaryForward { .. }
            | Operation::RotaryBackward { .. }
            | Operation::SwigluForward { .. }
            | Operation::SwigluBackward { .. }
            | Operation::SoftmaxForward { .. }
            | Operation::SoftmaxBackward { .. }
            | Operation::MaskedDropout { .. }
            | Operation::BiasDropoutResidual { .. }
            | Operation::BiasGradient { .. }
            | Operation::Copy { .. }
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

    /// The operation's name within its family, by which the cost model's fits are keyed: `forward`,
    /// `layernorm/forward`, `residual`, …
    pub const fn name(&self) -> &'static str {
        match self {
            Operation::Linear { product, .. } => product.name(),
            Operation::AttentionForward(_) => "forward",
            Operation::AttentionBackward(_) => "backward",
            Operation::LayernormForward(_) => "layernorm/forward",
            Operation::LayernormToInputs(_) => "layernorm/backward_input",
            Operation::LayernormToWeights(_) => "layernorm/backward_weight",
            Operation::RmsnormForward(_) => "rmsnorm/forward",
            Operation::RmsnormToInputs(_) => "rmsnorm/backward_input",
            Operation::RmsnormToWeights(_) => "rmsnorm/backward_weight",
            Operation::RotaryForward { .. } => "rotary/forward",
            Operation::RotaryBackward { .. } => "rotary/backward",
            Operation::SwigluForward { .. } => "swiglu/forward",
            Operation::SwigluBackward { .. } => "swiglu/backward",
            Operation::SoftmaxForward { .. } => "softmax/forward",
            Operation::SoftmaxBackward { .. } => "softmax/backward",
            Operation::BatchedProduct { .. } => "batched",
            Operation::MaskedDropout { .. } => "dropout/masked",
            Operation::BiasDropoutResidual { .. } => "bias_dropout_residual",
            Operation::BiasGradient { .. } => "bias_gradient",
            Operation::Copy { .. } => "copy",
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

    /// The names of all streaming operations, as tables of other machines' timings spell them.
    pub fn streaming_names() -> Vec<&'static str> {
        let rows = Rows { rows: 1, cols: 1 };
        let all = [
            Operation::LayernormForward(rows),
            Operation::LayernormToInputs(rows),
            Operation::LayernormToWeights(rows),
            Operation::RmsnormForward(rows),
            Operation::RmsnormToInputs(rows),
            Operation::RmsnormToWeights(rows),
            Operation::RotaryForward { len: 1 },
            Operation::RotaryBackward { len: 1 },
            Operation::SwigluForward { len: 1 },
            Operation::SwigluBackward { len: 1 },
            Operation::SoftmaxForward { len: 1 },
            Operation::SoftmaxBackward { len: 1 },
            Operation::MaskedDropout { len: 1 },
            Operation::BiasDropoutResidual { len: 1 },
            Operation::BiasGradient { len: 1 },
            Operation::Copy { len: 1 },
            Operation::GeluForward { len: 1 },
            Operation::GeluBackward { len: 1 },
            Operation::Residual { len: 1 },
            Operation::ResidualLayernorm(rows),
            Operation::Dropout { len: 1 },
            Operation::CrossEntropy(rows),
            Operation::EmbeddingForward(rows),
            Operation::EmbeddingToWeights(rows),
            Operation::Adamw { len: 1 },
        ];
        all.iter().map(Operation::name).collect()
    }

    /// Number of floating-point operations; a multiply-add counts two. Causal attention counts the lower triangle only.
    pub fn flop(&self) -> f64 {
        let attention = |a: &Attention, products: f64| a.pairs() * a.head_size as f64 * 2.0 * products;
        match self {
            Operation::Linear { shape, .. } => 2.0 * shape.rows as f64 * shape.inputs as f64 * shape.outputs as f64,
            // Q·Kᵀ and P·V
            Operation::AttentionForward(a) => attention(a, 2.0),
            // S recomputed, dP, dV, dQ, dK
            Operation::AttentionBackward(a) => attention(a, 5.0),
            Operation::LayernormForward(r) => 8.0 * r.len() as f64,
            Operation::LayernormToInputs(r) => 12.0 * r.len() as f64,
            Operation::LayernormToWeights(r) => 5.0 * r.len() as f64,
            Operation::RmsnormForward(r) => 4.0 * r.len() as f64,
            Operation::RmsnormToInputs(r) => 8.0 * r.len() as f64,
            Operation::RmsnormToWeights(r) => 3.0 * r.len() as f64,
            Operation::RotaryForward { len } | Operation::RotaryBackward { len } => 3.0 * *len as f64,
            Operation::SwigluForward { len } => 5.0 * *len as f64,
            Operation::SwigluBackward { len } => 9.0 * *len as f64,
            Operation::SoftmaxForward { len } => 5.0 * *len as f64,
            Operation::SoftmaxBackward { len } => 4.0 * *len as f64,
            Operation::BatchedProduct { batch, m, n, k } => 2.0 * *batch as f64 * *m as f64 * *n as f64 * *k as f64,
            Operation::MaskedDropout { len } | Operation::BiasGradient { len } | Operation::Copy { len } => *len as f64,
            Operation::BiasDropoutResidual { len } => 3.0 * *len as f64,
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
            // Q, K, V and the output
            Operation::AttentionForward(a) => {
                e * 2.0 * (a.rows() * (a.width() + a.kv_width())) as f64 + 4.0 * a.lse_len() as f64
            }
            // Q, K, V, the output and its gradient; the gradients of Q, K and V
            Operation::AttentionBackward(a) => {
                e * 4.0 * (a.rows() * (a.width() + a.kv_width())) as f64 + 8.0 * a.lse_len() as f64
            }
            Operation::RmsnormForward(r) | Operation::RmsnormToWeights(r) => {
                e * 2.0 * r.len() as f64 + 4.0 * r.rows as f64
            }
            Operation::RmsnormToInputs(r) => e * 3.0 * r.len() as f64 + 4.0 * r.rows as f64,
            Operation::BatchedProduct { batch, m, n, k } => {
                let (m, n, k) = (*m as f64, *n as f64, *k as f64);
                e * *batch as f64 * (m * k + k * n + m * n)
            }
            Operation::MaskedDropout { len } => (2.0 * e + 1.0) * *len as f64,
            Operation::BiasDropoutResidual { len } => (3.0 * e + 1.0) * *len as f64,
            Operation::BiasGradient { len } => e * *len as f64,
            Operation::RotaryForward { len }
            | Operation::RotaryBackward { len }
            | Operation::Copy { len }
            | Operation::SoftmaxForward { len } => e * 2.0 * *len as f64,
            // both halves in, the result out; the gradient too, and two halves out
            Operation::SwigluForward { len } | Operation::SoftmaxBackward { len } => e * 3.0 * *len as f64,
            Operation::SwigluBackward { len } => e * 5.0 * *len as f64,
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

    /// Elements of output that the work is spread over: an operation with few of them cannot fill the device.
    pub fn output_elements(&self) -> f64 {
        match self {
            Operation::Linear { product, shape, .. } => match product {
                Product::Forward => (shape.rows * shape.outputs) as f64,
                Product::ToInputs => (shape.rows * shape.inputs) as f64,
                Product::ToWeights => (shape.outputs * shape.inputs) as f64,
            },
            Operation::AttentionForward(a) => (a.rows() * a.width()) as f64,
            Operation::AttentionBackward(a) => (a.rows() * (a.width() + 2 * a.kv_width())) as f64,
            Operation::LayernormForward(r)
            | Operation::LayernormToInputs(r)
            | Operation::RmsnormForward(r)
            | Operation::RmsnormToInputs(r)
            | Operation::CrossEntropy(r)
            | Operation::EmbeddingForward(r)
            | Operation::EmbeddingToWeights(r)
            | Operation::ResidualLayernorm(r) => r.len() as f64,
            Operation::LayernormToWeights(r) => 2.0 * r.cols as f64,
            Operation::RmsnormToWeights(r) => r.cols as f64,
            Operation::BatchedProduct { batch, m, n, .. } => (batch * m * n) as f64,
            Operation::SwigluBackward { len } => 2.0 * *len as f64,
            Operation::RotaryForward { len }
            | Operation::RotaryBackward { len }
            | Operation::SwigluForward { len }
            | Operation::SoftmaxForward { len }
            | Operation::SoftmaxBackward { len }
            | Operation::MaskedDropout { len }
            | Operation::BiasDropoutResidual { len }
            | Operation::BiasGradient { len }
            | Operation::Copy { len }
            | Operation::GeluForward { len }
            | Operation::GeluBackward { len }
            | Operation::Residual { len }
            | Operation::Dropout { len }
            | Operation::Adamw { len } => *len as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The names are read from this file, so that an operation which is added is not forgotten in the list.
    #[test]
    fn every_streaming_operation_is_in_the_list_of_names() {
        let body = include_str!("operation.rs").split("pub const fn name(&self)").nth(1).unwrap();
        let body = body.split("\n    }\n").next().unwrap();
        let quoted = body.lines().filter_map(|line| line.split('"').nth(1));
        let named: BTreeSet<&str> = quoted.filter(|name| !["forward", "backward", "batched"].contains(name)).collect();
        let listed: BTreeSet<&str> = Operation::streaming_names().into_iter().collect();
        assert_eq!(named, listed);
        assert_eq!(listed.len(), Operation::streaming_names().len());
    }
}
