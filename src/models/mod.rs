//! Models: sequences of the operations of [`crate::ops`], written once, generic over the device.
//!
//! [`gpt`] is the big model's layer with its three phases, and the pieces that make whole models of it; [`side_model`]
//! makes the small models that fill bubbles, and [`state`] keeps what they have learned. [`single`] runs one operation by
//! itself. `suite`, `corun` and `fill` run
//! them; they call `ops` and nothing else. Everything is allocated when a model is made: running one allocates nothing
//! on the device.

pub mod builder;
pub mod convnet;
pub mod data;
pub mod gpt;
pub mod lstm;
pub mod mlp;
pub mod network;
pub mod optimizer;
pub mod pieces;
pub mod side;
pub mod single;
pub mod state;

pub use side::{SideKind, SideSpec, seeded_side_model, side_model};
pub use state::{ModelState, StateTensor};

use crate::Result;
use crate::ops::Ops;

/// A small model that trains: what fills bubbles and runs beside the big model.
pub trait SideModel<O: Ops> {
    /// The name as it stands in case names: `mlp-b32`, `convnet-b16`, `lstm-b16`, `gpt-b2`.
    fn name(&self) -> &str;
    /// Asks the device for one whole training step: forward, backward, update.
    fn step(&mut self, ops: &mut O) {
        self.gradients(ops);
        self.update(ops);
    }
    /// The first part of a step: forward and backward. It changes nothing that a later step depends on, so a step may be
    /// given up before its update.
    fn gradients(&mut self, ops: &mut O);
    /// The second part of a step: every parameter is updated from its gradient.
    fn update(&mut self, ops: &mut O);
    /// Mean loss of the last step, once the device has done it; an error of the device's operations is returned.
    fn loss(&mut self, ops: &mut O) -> Result<f64>;
    /// Steps that were updated, those before a [`ModelState`] was restored included.
    fn steps(&self) -> u64;
    /// Continues behind `steps` steps, with the data and the step number that follow.
    fn set_steps(&mut self, steps: u64);
    /// Every tensor that a later step depends on: parameters and the optimizer's state, in an order that is always the
    /// same.
    fn tensors(&mut self) -> Vec<StateTensor<'_, O::Buffer>>;
    /// Bytes of parameters, gradients, optimizer state, activations and workspaces together.
    fn memory_bytes(&self) -> u64;
}
