//! What a network is to the training step that all small models share.

use super::pieces::Parameter;
use crate::ops::Ops;

/// The forward and backward passes of a network over its own data.
pub trait Network<O: Ops> {
    /// Computes the losses of batch number `batch` (taken modulo the number of batches).
    fn forward(&mut self, ops: &mut O, batch: usize);
    /// Adds the gradients of the mean loss of the batch that went forward last to the parameters' gradients.
    fn backward(&mut self, ops: &mut O, batch: usize);
    /// The losses of the last forward pass, one a row.
    fn losses(&self) -> &O::Buffer;
    /// Every learned tensor, in an order that is always the same.
    fn parameters(&self) -> Vec<&Parameter<O::Buffer>>;
    /// Every learned tensor to be changed, in the order of [`Network::parameters`].
    fn parameters_mut(&mut self) -> Vec<&mut Parameter<O::Buffer>>;
    /// FLOPs of one forward and backward pass, of which only products count.
    fn flop(&self) -> f64;
}
