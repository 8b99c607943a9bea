//! What models are put together from: a learned tensor, a linear layer, a layer normalisation.
//!
//! Used by every model here; each method is one call of [`Ops`].

use super::builder::Builder;
use crate::Result;
use crate::ops::{ForwardEpilogue, InputEpilogue, Linear, Ops, RowStats, Rows, WeightEpilogue};

/// A learned tensor and the gradient of the loss by it.
pub struct Parameter<B> {
    /// Name within its model: `fc1.weight`, `layer0.ln1.gamma`.
    pub name: String,
    /// Number of elements.
    pub len: usize,
    /// Columns of a weight matrix, which decays in AdamW; `None` for biases, gains and tables, which do not.
    pub columns: Option<usize>,
    /// The tensor itself, in the device's type.
    pub value: B,
    /// Gradient of the loss by the tensor; each backward pass adds to it.
    pub gradient: B,
}

impl<B> Parameter<B> {
    /// Its dimensions: rows and columns of a matrix, else its length.
    pub fn shape(&self) -> Vec<usize> {
        match self.columns {
            Some(columns) if columns > 0 => vec![self.len / columns, columns],
            _ => vec![self.len],
        }
    }
}

/// A linear layer, Y = X·Wᵀ + bias.
pub struct Dense<B> {
    /// Dimensions of the product: rows, inputs, outputs.
    pub shape: Linear,
    /// The weight W, outputs × inputs.
    pub weight: Parameter<B>,
    /// The bias, one element an output.
    pub bias: Parameter<B>,
}

impl<B> Dense<B> {
    /// Makes the parameters `<name>.weight` with deviation `gain`/√inputs and `<name>.bias` with deviation 0.02; an
    /// error where the device has no memory for them.
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, name: &str, shape: Linear, gain: f64) -> Result<Self> {
        Ok(Dense {
            shape,
            weight: builder.matrix(format!("{name}.weight"), shape.outputs, shape.inputs, gain)?,
            bias: builder.parameter(format!("{name}.bias"), shape.outputs, 0.0, 0.02)?,
        })
    }

    /// Writes Y = X·Wᵀ + bias to `y`.
    pub fn forward<O: Ops<Buffer = B>>(&self, ops: &mut O, y: &mut B, x: &B) {
        ops.linear_forward(self.shape, y, x, &self.weight.value, ForwardEpilogue::Bias(&self.bias.value));
    }

    /// Writes pre = X·Wᵀ + bias to `pre`, and gelu(pre) to `y`.
    pub fn forward_gelu<O: Ops<Buffer = B>>(&self, ops: &mut O, y: &mut B, pre: &mut B, x: &B) {
        let epilogue = ForwardEpilogue::BiasGelu { bias: &self.bias.value, pre };
        ops.linear_forward(self.shape, y, x, &self.weight.value, epilogue);
    }

    /// Writes the gradient by X, dY·W, to `dx`.
    pub fn backward_input<O: Ops<Buffer = B>>(&self, ops: &mut O, dx: &mut B, dy: &B) {
        ops.linear_to_inputs(self.shape, dx, dy, &self.weight.value, InputEpilogue::None);
    }

    /// Writes to `dx` the gradient through this layer and the GELU in front of it, whose input was `pre`.
    pub fn backward_input_gelu<O: Ops<Buffer = B>>(&self, ops: &mut O, dx: &mut B, dy: &B, pre: &B) {
        ops.linear_to_inputs(self.shape, dx, dy, &self.weight.value, InputEpilogue::Gelu { pre });
    }

    /// Adds dYᵀ·X to the weight's gradient, and the column sums of dY to the bias's.
    pub fn backward_weight<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dy: &B, x: &B) {
        let epilogue = WeightEpilogue::Bias { dbias: &mut self.bias.gradient };
        ops.linear_to_weights(self.shape.accumulating(), &mut self.weight.gradient, dy, x, epilogue);
    }

    /// Weight and bias, in this order.
    pub fn parameters(&self) -> [&Parameter<B>; 2] {
        [&self.weight, &self.bias]
    }

    /// Weight and bias to be changed, in this order.
    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 2] {
        [&mut self.weight, &mut self.bias]
    }

    /// FLOPs of one product of this layer; forward, to inputs and to weights cost the same.
    pub const fn flop(&self) -> f64 {
        2.0 * self.shape.rows as f64 * self.shape.inputs as f64 * self.shape.outputs as f64
    }
}

/// Layer normalisation (Ba et al., arXiv 1607.06450) with its gain, offset, and the statistics its backward pass needs.
pub struct Norm<B> {
    /// Rows that are normalised, and elements of each.
    pub shape: Rows,
    /// The gain γ, one element a column.
    pub gamma: Parameter<B>,
    /// The offset β, one element a column.
    pub beta: Parameter<B>,
    /// Mean of each row in the last forward, fp32.
    pub mean: B,
    /// Reciprocal deviation of each row in the last forward, 1/√(variance + ε), fp32.
    pub rstd: B,
}

impl<B> Norm<B> {
    /// Makes `<name>.gamma` about 1 and `<name>.beta` about 0, both with deviation 0.02; an error where the device has
    /// no memory for them.
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, name: &str, shape: Rows) -> Result<Self> {
        Ok(Norm {
            shape,
            gamma: builder.parameter(format!("{name}.gamma"), shape.cols, 1.0, 0.02)?,
            beta: builder.parameter(format!("{name}.beta"), shape.cols, 0.0, 0.02)?,
            mean: builder.wide(shape.rows)?,
            rstd: builder.wide(shape.rows)?,
        })
    }

    /// Writes γ·(x − mean)·rstd + β to `y`, and keeps mean and rstd of each row.
    pub fn forward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, y: &mut B, x: &B) {
        let (gamma, beta) = (&self.gamma.value, &self.beta.value);
        ops.layernorm_forward(self.shape, y, &mut self.mean, &mut self.rstd, x, gamma, beta);
    }

    /// Writes the gradient by x to `dx`, with `residual` (the gradient along a skip path) added where there is one;
    /// needs the statistics of a forward with the same `x`.
    pub fn backward_input<O: Ops<Buffer = B>>(&self, ops: &mut O, dx: &mut B, dy: &B, x: &B, residual: Option<&B>) {
        let stats = RowStats { mean: &self.mean, rstd: &self.rstd };
        ops.layernorm_to_inputs(self.shape, dx, dy, x, &self.gamma.value, stats, residual);
    }

    /// Adds the gradients by γ and β, summed over the rows, to theirs; needs the statistics of a forward with the same
    /// `x`.
    pub fn backward_weight<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dy: &B, x: &B) {
        let stats = RowStats { mean: &self.mean, rstd: &self.rstd };
        ops.layernorm_to_weights(self.shape, &mut self.gamma.gradient, &mut self.beta.gradient, dy, x, stats);
    }

    /// Gain and offset, in this order.
    pub fn parameters(&self) -> [&Parameter<B>; 2] {
        [&self.gamma, &self.beta]
    }

    /// Gain and offset to be changed, in this order.
    pub fn parameters_mut(&mut self) -> [&mut Parameter<B>; 2] {
        [&mut self.gamma, &mut self.beta]
    }
}
