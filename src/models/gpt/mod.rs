//! The GPT layer on one tensor-parallel rank, its phases callable one by one; and what makes a whole model of layers.
//!
//! [`Layer`] is what is measured: a [`Block`] with an input and an output gradient of its own. [`EmbeddingLayer`],
//! [`Head`] and blocks together are the small `gpt` ([`network`]).

mod block;
mod ends;
pub mod network;
#[cfg(test)]
mod tests;

pub use block::Block;
pub use ends::{EmbeddingLayer, Head};

use super::builder::Builder;
use super::pieces::Parameter;
use crate::Result;
use crate::ops::Ops;
use crate::shape::{LayerShape, Phase};

/// A whole layer, ready to run: parameters, input x and output gradient dy seeded and random, everything else allocated.
///
/// The phases are separate: backward_input needs a forward before it, backward_weight a backward_input, and each may be
/// repeated or run much later. Parameter gradients accumulate over calls of backward_weight.
pub struct Layer<O: Ops> {
    block: Block<O::Buffer>,
    x: O::Buffer,
    dy: O::Buffer,
    memory_bytes: u64,
}

impl<O: Ops> Layer<O> {
    /// Makes the layer, inputs and parameters rounded to `shape.dtype`: another device given the same shape and seed
    /// holds the same. An error where the shape is not valid or the device has no memory for it.
    pub fn new(ops: &mut O, shape: LayerShape, seed: u64) -> Result<Self> {
        shape.validate()?;
        let mut builder = Builder::new(ops, shape.dtype, seed);
        let len = shape.norm_rows().len();
        let x = builder.normal(len, 0.0, 1.0)?;
        let dy = builder.normal(len, 0.0, 1.0)?;
        let block = Block::new(&mut builder, "", shape)?;
        Ok(Layer { block, x, dy, memory_bytes: builder.bytes() })
    }

    /// The shape that the layer was made for.
    pub const fn shape(&self) -> &LayerShape {
        self.block.shape()
    }

    /// Computes the output from x.
    pub fn forward(&mut self, ops: &mut O) {
        self.block.forward(ops, &self.x);
    }

    /// Computes dx from dy; starts with what the shape recomputes.
    pub fn backward_input(&mut self, ops: &mut O) {
        self.block.backward_input(ops, &self.x, &self.dy);
    }

    /// Adds to the gradients of the parameters what the last forward and backward to inputs give.
    pub fn backward_weight(&mut self, ops: &mut O) {
        self.block.backward_weight(ops, &self.x, &self.dy);
    }

    /// Asks the device for one phase; [`Phase::ForwardBackward`] is the other three in order.
    pub fn run(&mut self, ops: &mut O, phase: Phase) {
        match phase {
            Phase::Forward => self.forward(ops),
            Phase::BackwardInput => self.backward_input(ops),
            Phase::BackwardWeight => self.backward_weight(ops),
            Phase::ForwardBackward => {
                self.forward(ops);
                self.backward_input(ops);
                self.backward_weight(ops);
            }
        }
    }

    /// Sets the parameters' gradients to zero, as a training step does once.
    pub fn zero_gradients(&mut self, ops: &mut O) {
        self.block.parameters_mut().into_iter().for_each(|p| ops.zero(&mut p.gradient));
    }

    /// The input x, rows × H.
    pub const fn input(&self) -> &O::Buffer {
        &self.x
    }

    /// The input x, rows × H, to be overwritten.
    pub const fn input_mut(&mut self) -> &mut O::Buffer {
        &mut self.x
    }

    /// The gradient of the loss by the output, rows × H.
    pub const fn output_gradient(&self) -> &O::Buffer {
        &self.dy
    }

    /// The output, rows × H.
    pub const fn output(&self) -> &O::Buffer {
        self.block.output()
    }

    /// The gradient of the loss by the input, dx, rows × H.
    pub const fn input_gradient(&self) -> &O::Buffer {
        self.block.input_gradient()
    }

    /// Every learned tensor with its gradient, by name: `ln1.gamma`, `qkv.weight`, `fc2.bias`, …
    pub fn parameters(&self) -> Vec<&Parameter<O::Buffer>> {
        self.block.parameters()
    }

    /// Every learned tensor to be changed, in the order of [`Layer::parameters`].
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter<O::Buffer>> {
        self.block.parameters_mut()
    }

    /// All that a forward and backward pass leaves, by name: `output`, `dx`, and each parameter's gradient.
    pub fn results(&self) -> Vec<(&str, &O::Buffer)> {
        let ends = [("output", self.output()), ("dx", self.input_gradient())];
        ends.into_iter().chain(self.parameters().into_iter().map(|p| (p.name.as_str(), &p.gradient))).collect()
    }

    /// Bytes of everything this layer holds.
    pub const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}
