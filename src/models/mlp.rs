//! `mlp`: three linear layers with GELU between them, cross-entropy, AdamW; labels from a fixed random direction a class.

use super::builder::Builder;
use super::data::{self, Batch, Labelled};
use super::network::Network;
use super::pieces::{Dense, Parameter};
use crate::Result;
use crate::ops::{Linear, Ops, Rows};

/// Sizes of an `mlp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpConfig {
    /// Rows of a batch.
    pub batch: usize,
    /// Elements of an input vector.
    pub inputs: usize,
    /// Outputs of the first and of the second layer.
    pub hidden: usize,
    /// Classes, which are the outputs of the last layer.
    pub classes: usize,
}

impl MlpConfig {
    const fn layers(&self) -> [Linear; 3] {
        [
            Linear::new(self.batch, self.inputs, self.hidden),
            Linear::new(self.batch, self.hidden, self.hidden),
            Linear::new(self.batch, self.hidden, self.classes),
        ]
    }

    /// FLOPs of the products of one forward and backward pass (inputs need no gradient).
    pub fn flop(&self) -> f64 {
        let [first, second, third] = self.layers().map(|l| 2.0 * (l.rows * l.inputs * l.outputs) as f64);
        2.0 * first + 3.0 * (second + third)
    }
}

/// The three layers with their activations, gradients and data.
pub struct Mlp<B> {
    config: MlpConfig,
    layers: [Dense<B>; 3],
    /// Before and after the GELU of the first two layers.
    pre: [B; 2],
    active: [B; 2],
    /// Logits, and after the loss their gradient.
    logits: B,
    losses: B,
    dpre: [B; 2],
    batches: Vec<Batch<B>>,
}

impl<B> Mlp<B> {
    /// Makes the network and its batches; an error where the device has no memory for them.
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, config: MlpConfig) -> Result<Self> {
        let [first, second, third] = config.layers();
        let inner = config.batch * config.hidden;
        let shape =
            Labelled { rows: config.batch, steps: 1, positions: 1, channels: config.inputs, classes: config.classes };
        Ok(Mlp {
            config,
            layers: [
                Dense::new(builder, "fc1", first, 1.0)?,
                Dense::new(builder, "fc2", second, 1.0)?,
                Dense::new(builder, "fc3", third, 1.0)?,
            ],
            pre: [builder.floats(inner)?, builder.floats(inner)?],
            active: [builder.floats(inner)?, builder.floats(inner)?],
            logits: builder.floats(config.batch * config.classes)?,
            losses: builder.wide(config.batch)?,
            dpre: [builder.floats(inner)?, builder.floats(inner)?],
            batches: data::labelled(builder, shape, 0x31)?,
        })
    }
}

impl<O: Ops> Network<O> for Mlp<O::Buffer> {
    fn forward(&mut self, ops: &mut O, batch: usize) {
        let batch = &self.batches[batch % self.batches.len()];
        let ([pre1, pre2], [active1, active2]) = (&mut self.pre, &mut self.active);
        self.layers[0].forward_gelu(ops, active1, pre1, &batch.inputs[0]);
        self.layers[1].forward_gelu(ops, active2, pre2, active1);
        self.layers[2].forward(ops, &mut self.logits, active2);
        let shape = Rows { rows: self.config.batch, cols: self.config.classes };
        ops.cross_entropy(shape, &mut self.losses, &mut self.logits, &batch.targets);
    }

    fn backward(&mut self, ops: &mut O, batch: usize) {
        let x = &self.batches[batch % self.batches.len()].inputs[0];
        let [dpre1, dpre2] = &mut self.dpre;
        self.layers[2].backward_input_gelu(ops, dpre2, &self.logits, &self.pre[1]);
        self.layers[2].backward_weight(ops, &self.logits, &self.active[1]);
        self.layers[1].backward_input_gelu(ops, dpre1, dpre2, &self.pre[0]);
        self.layers[1].backward_weight(ops, dpre2, &self.active[0]);
        self.layers[0].backward_weight(ops, dpre1, x);
    }

    fn losses(&self) -> &O::Buffer {
        &self.losses
    }

    fn parameters(&self) -> Vec<&Parameter<O::Buffer>> {
        self.layers.iter().flat_map(|l| l.parameters()).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<O::Buffer>> {
        self.layers.iter_mut().flat_map(|l| l.parameters_mut()).collect()
    }

    fn flop(&self) -> f64 {
        self.config.flop()
    }
}
