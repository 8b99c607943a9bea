//! The two ends of a GPT: token and position embedding, and the head with its loss.
//!
//! The small `gpt` uses both; the first and last stages of a pipeline hold them.

use crate::Result;
use crate::models::builder::Builder;
use crate::models::pieces::{Norm, Parameter};
use crate::ops::{self, ForwardEpilogue, InputEpilogue, Linear, Ops, Rows, WeightEpilogue};

/// Token and position embedding, `out[r] = table[token[r]] + positions[r mod S]`.
pub struct EmbeddingLayer<B> {
    shape: ops::Embedding,
    table: Parameter<B>,
    positions: Parameter<B>,
    output: B,
}

impl<B> EmbeddingLayer<B> {
    /// Makes a random table of tokens (vocabulary × H) and one of positions (S × H); an error where the device has no
    /// memory for them.
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, shape: ops::Embedding) -> Result<Self> {
        let table = builder.parameter("embedding.table", shape.vocabulary * shape.hidden, 0.0, 1.0)?;
        let positions = builder.parameter("embedding.positions", shape.sequence * shape.hidden, 0.0, 0.1)?;
        Ok(EmbeddingLayer { shape, table, positions, output: builder.floats(shape.rows * shape.hidden)? })
    }

    /// Computes the output from `tokens`, one id a row.
    pub fn forward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, tokens: &B) {
        ops.embedding_forward(self.shape, &mut self.output, tokens, &self.table.value, &self.positions.value);
    }

    /// Adds the rows of `dout`, rows × H, to the gradients of their token's and position's rows.
    pub fn backward_weight<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dout: &B, tokens: &B) {
        let (table, positions) = (&mut self.table.gradient, &mut self.positions.gradient);
        ops.embedding_to_weights(self.shape, table, positions, dout, tokens);
    }

    /// The output of the last forward pass, rows × H.
    pub const fn output(&self) -> &B {
        &self.output
    }

    /// Table of tokens and table of positions, in this order.
    pub fn parameters(&self) -> [&Parameter<B>; 2] {
        [&self.table, &self.positions]
    }

    /// Table of tokens and table of positions to be changed, in this order.
    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 2] {
        [&mut self.table, &mut self.positions]
    }
}

/// The head of a GPT: final layer normalisation, product to the vocabulary, cross-entropy.
pub struct Head<B> {
    product: Linear,
    norm: Norm<B>,
    weight: Parameter<B>,
    normed: B,
    /// Logits, and after the loss their gradient.
    logits: B,
    losses: B,
    dnormed: B,
    dx: B,
}

impl<B> Head<B> {
    /// Makes the head for `rows` rows of `hidden` elements; an error where the device has no memory for it.
    pub fn new<O: Ops<Buffer = B>>(
        builder: &mut Builder<'_, O>,
        rows: usize,
        hidden: usize,
        vocabulary: usize,
    ) -> Result<Self> {
        Ok(Head {
            product: Linear::new(rows, hidden, vocabulary),
            norm: Norm::new(builder, "head.norm", Rows { rows, cols: hidden })?,
            weight: builder.matrix("head.weight", vocabulary, hidden, 0.5)?,
            normed: builder.floats(rows * hidden)?,
            logits: builder.floats(rows * vocabulary)?,
            losses: builder.wide(rows)?,
            dnormed: builder.floats(rows * hidden)?,
            dx: builder.floats(rows * hidden)?,
        })
    }

    /// Computes the loss of each row of `x` against its target, and the gradient of their mean by the logits.
    pub fn forward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B, targets: &B) {
        self.norm.forward(ops, &mut self.normed, x);
        ops.linear_forward(self.product, &mut self.logits, &self.normed, &self.weight.value, ForwardEpilogue::None);
        let shape = Rows { rows: self.product.rows, cols: self.product.outputs };
        ops.cross_entropy(shape, &mut self.losses, &mut self.logits, targets);
    }

    /// Computes the gradient by the head's input `x`; needs a forward before it.
    pub fn backward_input<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B) {
        let epilogue = InputEpilogue::None;
        ops.linear_to_inputs(self.product, &mut self.dnormed, &self.logits, &self.weight.value, epilogue);
        self.norm.backward_input(ops, &mut self.dx, &self.dnormed, x, None);
    }

    /// Adds to the gradients of weight, gain and offset; needs [`Head::backward_input`] before it.
    pub fn backward_weight<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B) {
        let (shape, dw) = (self.product.accumulating(), &mut self.weight.gradient);
        ops.linear_to_weights(shape, dw, &self.logits, &self.normed, WeightEpilogue::None);
        self.norm.backward_weight(ops, &self.dnormed, x);
    }

    /// The losses of the last forward pass, one a row.
    pub const fn losses(&self) -> &B {
        &self.losses
    }

    /// The gradient of the mean loss by the head's input, rows × H.
    pub const fn input_gradient(&self) -> &B {
        &self.dx
    }

    /// The normalisation's gain and offset, then the weight.
    pub fn parameters(&self) -> [&Parameter<B>; 3] {
        [&self.norm.gamma, &self.norm.beta, &self.weight]
    }

    /// The normalisation's gain and offset, then the weight, to be changed.
    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 3] {
        [&mut self.norm.gamma, &mut self.norm.beta, &mut self.weight]
    }
}
