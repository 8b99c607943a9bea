//! What models are put together from: a learned tensor, a linear layer, a layer normalisation.
//!
//! Used by every model here; each method is one call of [`Ops`].

use super::builder::Builder;
use crate::Result;
use crate::ops::{ForwardEpilogue, InputEpilogue, Linear, Ops, RowStats, Rows, WeightEpilogue};

/// A learned tensor and the gradient of the loss by it.
pub struct Parameter<B> {
    pub name: String,
    pub len: usize,
    /// Weight matrices decay in AdamW; biases and gains do not.
    pub matrix: bool,
    pub value: B,
    pub gradient: B,
}

/// Y = X·Wᵀ + bias.
pub struct Dense<B> {
    pub shape: Linear,
    pub weight: Parameter<B>,
    pub bias: Parameter<B>,
}

impl<B> Dense<B> {
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, name: &str, shape: Linear, gain: f64) -> Result<Self> {
        Ok(Dense {
            shape,
            weight: builder.matrix(format!("{name}.weight"), shape.outputs, shape.inputs, gain)?,
            bias: builder.parameter(format!("{name}.bias"), shape.outputs, 0.0, 0.02)?,
        })
    }

    pub fn forward<O: Ops<Buffer = B>>(&self, ops: &mut O, y: &mut B, x: &B) {
        ops.linear_forward(self.shape, y, x, &self.weight.value, ForwardEpilogue::Bias(&self.bias.value));
    }

    /// pre = X·Wᵀ + bias, y = gelu(pre).
    pub fn forward_gelu<O: Ops<Buffer = B>>(&self, ops: &mut O, y: &mut B, pre: &mut B, x: &B) {
        let epilogue = ForwardEpilogue::BiasGelu { bias: &self.bias.value, pre };
        ops.linear_forward(self.shape, y, x, &self.weight.value, epilogue);
    }

    pub fn backward_input<O: Ops<Buffer = B>>(&self, ops: &mut O, dx: &mut B, dy: &B) {
        ops.linear_to_inputs(self.shape, dx, dy, &self.weight.value, InputEpilogue::None);
    }

    /// The gradient through this layer and the GELU in front of it, whose input was `pre`.
    pub fn backward_input_gelu<O: Ops<Buffer = B>>(&self, ops: &mut O, dx: &mut B, dy: &B, pre: &B) {
        ops.linear_to_inputs(self.shape, dx, dy, &self.weight.value, InputEpilogue::Gelu { pre });
    }

    pub fn backward_weight<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dy: &B, x: &B) {
        let epilogue = WeightEpilogue::Bias { dbias: &mut self.bias.gradient };
        ops.linear_to_weights(self.shape.accumulating(), &mut self.weight.gradient, dy, x, epilogue);
    }

    pub fn parameters(&self) -> [&Parameter<B>; 2] {
        [&self.weight, &self.bias]
    }

    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 2] {
        [&mut self.weight, &mut self.bias]
    }

    /// FLOPs of one product; forward, to inputs and to weights cost the same.
    pub const fn flop(&self) -> f64 {
        2.0 * self.shape.rows as f64 * self.shape.inputs as f64 * self.shape.outputs as f64
    }
}

/// Layer normalisation with its gain, offset, and the statistics its backward pass needs.
pub struct Norm<B> {
    pub shape: Rows,
    pub gamma: Parameter<B>,
    pub beta: Parameter<B>,
    pub mean: B,
    pub rstd: B,
}

impl<B> Norm<B> {
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, name: &str, shape: Rows) -> Result<Self> {
        Ok(Norm {
            shape,
            gamma: builder.parameter(format!("{name}.gamma"), shape.cols, 1.0, 0.02)?,
            beta: builder.parameter(format!("{name}.beta"), shape.cols, 0.0, 0.02)?,
            mean: builder.wide(shape.rows)?,
            rstd: builder.wide(shape.rows)?,
        })
    }

    pub fn forward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, y: &mut B, x: &B) {
        let (gamma, beta) = (&self.gamma.value, &self.beta.value);
        ops.layernorm_forward(self.shape, y, &mut self.mean, &mut self.rstd, x, gamma, beta);
    }

    pub fn backward_input<O: Ops<Buffer = B>>(&self, ops: &mut O, dx: &mut B, dy: &B, x: &B, residual: Option<&B>) {
        let stats = RowStats { mean: &self.mean, rstd: &self.rstd };
        ops.layernorm_to_inputs(self.shape, dx, dy, x, &self.gamma.value, stats, residual);
    }

    pub fn backward_weight<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dy: &B, x: &B) {
        let stats = RowStats { mean: &self.mean, rstd: &self.rstd };
        ops.layernorm_to_weights(self.shape, &mut self.gamma.gradient, &mut self.beta.gradient, dy, x, stats);
    }

    pub fn parameters(&self) -> [&Parameter<B>; 2] {
        [&self.gamma, &self.beta]
    }

    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 2] {
        [&mut self.gamma, &mut self.beta]
    }
}
