//! `lstm`: one recurrent layer over a sequence, a linear head on its last state, cross-entropy, AdamW; backpropagation
//! through every time step.

use super::builder::Builder;
use super::data::{self, Batch, Labelled};
use super::network::Network;
use super::pieces::{Dense, Parameter};
use crate::Result;
use crate::ops::{ForwardEpilogue, InputEpilogue, Linear, LstmCell, Ops, Rows, WeightEpilogue};

/// Sizes of an `lstm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LstmConfig {
    /// Sequences of a batch.
    pub batch: usize,
    /// Time steps of a sequence.
    pub steps: usize,
    /// Elements of the input at one time step.
    pub inputs: usize,
    /// Elements of the hidden state, and of the cell state.
    pub hidden: usize,
    /// Classes, which are the outputs of the head.
    pub classes: usize,
}

impl LstmConfig {
    const fn input_product(&self) -> Linear {
        Linear::new(self.batch, self.inputs, 4 * self.hidden)
    }

    const fn recurrent_product(&self) -> Linear {
        Linear::new(self.batch, self.hidden, 4 * self.hidden)
    }

    const fn head(&self) -> Linear {
        Linear::new(self.batch, self.hidden, self.classes)
    }

    /// FLOPs of the products of one forward and backward pass (inputs need no gradient).
    pub fn flop(&self) -> f64 {
        let product = |l: Linear| 2.0 * (l.rows * l.inputs * l.outputs) as f64;
        let step = 2.0 * product(self.input_product()) + 3.0 * product(self.recurrent_product());
        self.steps as f64 * step + 3.0 * product(self.head())
    }
}

/// What one time step keeps for the backward pass.
struct Step<B> {
    /// Activated input, forget, cell and output gates.
    gates: B,
    h: B,
    c: B,
    dgates: B,
}

/// The recurrent layer and its head, with the states of every time step, gradients and data.
pub struct Lstm<B> {
    config: LstmConfig,
    /// Inputs to gates, with the gates' bias.
    input: Dense<B>,
    /// Last state to gates.
    recurrent: Parameter<B>,
    head: Dense<B>,
    /// State before the first step: zero.
    h0: B,
    c0: B,
    steps: Vec<Step<B>>,
    /// Logits, and after the loss their gradient.
    logits: B,
    losses: B,
    dh: B,
    dc: B,
    batches: Vec<Batch<B>>,
}

impl<B> Lstm<B> {
    /// Makes the network and its batches; an error where the device has no memory for them.
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, config: LstmConfig) -> Result<Self> {
        let units = config.batch * config.hidden;
        let shape = Labelled {
            rows: config.batch,
            steps: config.steps,
            positions: 1,
            channels: config.inputs,
            classes: config.classes,
        };
        Ok(Lstm {
            config,
            input: Dense::new(builder, "input", config.input_product(), 1.0)?,
            recurrent: builder.matrix("recurrent.weight", 4 * config.hidden, config.hidden, 1.0)?,
            head: Dense::new(builder, "head", config.head(), 1.0)?,
            h0: builder.zeros(units)?,
            c0: builder.zeros(units)?,
            steps: (0..config.steps).map(|_| Step::new(builder, units)).collect::<Result<_>>()?,
            logits: builder.floats(config.batch * config.classes)?,
            losses: builder.wide(config.batch)?,
            dh: builder.floats(units)?,
            dc: builder.floats(units)?,
            batches: data::labelled(builder, shape, 0x15)?,
        })
    }

    const fn cell(&self) -> LstmCell {
        LstmCell { rows: self.config.batch, hidden: self.config.hidden }
    }
}

impl<B> Step<B> {
    fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, units: usize) -> Result<Self> {
        Ok(Step {
            gates: builder.floats(4 * units)?,
            h: builder.floats(units)?,
            c: builder.floats(units)?,
            dgates: builder.floats(4 * units)?,
        })
    }
}

impl<O: Ops> Network<O> for Lstm<O::Buffer> {
    fn forward(&mut self, ops: &mut O, batch: usize) {
        let (cell, recurrent) = (self.cell(), self.config.recurrent_product().accumulating());
        let batch = &self.batches[batch % self.batches.len()];
        for (t, x) in batch.inputs.iter().enumerate() {
            let (before, rest) = self.steps.split_at_mut(t);
            let (h_prev, c_prev) = before.last().map_or((&self.h0, &self.c0), |s| (&s.h, &s.c));
            let now = &mut rest[0];
            self.input.forward(ops, &mut now.gates, x);
            ops.linear_forward(recurrent, &mut now.gates, h_prev, &self.recurrent.value, ForwardEpilogue::None);
            ops.lstm_cell_forward(cell, &mut now.h, &mut now.c, &mut now.gates, c_prev);
        }
        let last = self.steps.last().map_or(&self.h0, |s| &s.h);
        self.head.forward(ops, &mut self.logits, last);
        let shape = Rows { rows: self.config.batch, cols: self.config.classes };
        ops.cross_entropy(shape, &mut self.losses, &mut self.logits, &batch.targets);
    }

    fn backward(&mut self, ops: &mut O, batch: usize) {
        let (cell, recurrent) = (self.cell(), self.config.recurrent_product());
        let batch = &self.batches[batch % self.batches.len()];
        let last = self.steps.last().map_or(&self.h0, |s| &s.h);
        self.head.backward_input(ops, &mut self.dh, &self.logits);
        self.head.backward_weight(ops, &self.logits, last);
        ops.zero(&mut self.dc);
        for (t, x) in batch.inputs.iter().enumerate().rev() {
            let (before, rest) = self.steps.split_at_mut(t);
            let (h_prev, c_prev) = before.last().map_or((&self.h0, &self.c0), |s| (&s.h, &s.c));
            let now = &mut rest[0];
            ops.lstm_cell_backward(cell, &mut now.dgates, &mut self.dc, &self.dh, &now.gates, &now.c, c_prev);
            self.input.backward_weight(ops, &now.dgates, x);
            let dw = &mut self.recurrent.gradient;
            ops.linear_to_weights(recurrent.accumulating(), dw, &now.dgates, h_prev, WeightEpilogue::None);
            ops.linear_to_inputs(recurrent, &mut self.dh, &now.dgates, &self.recurrent.value, InputEpilogue::None);
        }
    }

    fn losses(&self) -> &O::Buffer {
        &self.losses
    }

    fn parameters(&self) -> Vec<&Parameter<O::Buffer>> {
        let [weight, bias] = self.input.parameters();
        let [head, head_bias] = self.head.parameters();
        vec![weight, bias, &self.recurrent, head, head_bias]
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<O::Buffer>> {
        let [weight, bias] = self.input.parameters_mut();
        let [head, head_bias] = self.head.parameters_mut();
        vec![weight, bias, &mut self.recurrent, head, head_bias]
    }

    fn flop(&self) -> f64 {
        self.config.flop()
    }
}
