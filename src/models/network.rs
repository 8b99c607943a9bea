//! What a network is to the training step that all small models share.

use super::pieces::Parameter;
use crate::ops::Ops;

/// The forward and backward passes of a network over its own data.
pub trait Network<O: Ops> {
    /// Losses of batch number `batch` (taken modulo the data).
    fn forward(&mut self, ops: &mut O, batch: usize);
    /// Adds the gradients of the mean loss of the batch that went forward last to the parameters' gradients.
    fn backward(&mut self, ops: &mut O, batch: usize);
    /// One loss a row, of the last forward pass.
    fn losses(&self) -> &O::Buffer;
    fn parameters(&self) -> Vec<&Parameter<O::Buffer>>;
    /// In the order of [`Network::parameters`].
    fn parameters_mut(&mut self) -> Vec<&mut Parameter<O::Buffer>>;
    /// FLOPs of one forward and backward pass, products only.
    fn flop(&self) -> f64;
}
