//! A device behind a gate: every operation asks first, so models run through it unchanged.
//!
//! [`Gated`] wraps any [`Ops`]. Before each operation it asks the gate, which answers at once while the bubble lasts and
//! holds the model between two operations otherwise. Reading, writing and allocating are not gated: they are set-up and
//! inspection, not the work of a step. On an asynchronous device an operation that passed is *asked for*, not done: what
//! is queued there drains after the closing.

use super::gate::{Pass, SideEnd};
use super::time::now_ns;
use crate::ops::{
    AdamW, Attention, Conv, DType, Dropout, Embedding, ForwardEpilogue, GroupNorm, InputEpilogue, Linear, LstmCell,
    Ops, Pool, ResidualLayernorm, RowStats, Rows, Sgd, WeightEpilogue,
};
use crate::{Error, Result};

/// A device behind a gate: an operation runs once the gate lets it pass, and is then counted.
pub struct Gated<O> {
    ops: O,
    gate: SideEnd,
    ended: Option<Pass>,
    times: Option<Vec<f64>>,
}

impl<O: Ops> Gated<O> {
    /// Puts `ops` behind the side's end of a gate.
    pub fn new(ops: O, gate: SideEnd) -> Self {
        Gated { ops, gate, ended: None, times: None }
    }

    /// How the gate ended; `None` while it has not. From its end on operations are left out and [`Ops::synchronize`]
    /// says so.
    pub fn ended(&self) -> Option<Pass> {
        self.ended
    }

    /// Operations done behind this gate so far.
    pub fn operations(&self) -> u64 {
        self.gate.operations()
    }

    /// From now on the time of each operation is kept (without the waiting at the gate).
    pub fn time_operations(&mut self) {
        self.times = Some(Vec::new());
    }

    /// Times of the operations since [`Gated::time_operations`], nanoseconds, in order; ends the timing.
    pub fn take_times(&mut self) -> Vec<f64> {
        self.times.take().unwrap_or_default()
    }

    /// The device behind the gate; calls on it do not ask the gate.
    pub fn device(&self) -> &O {
        &self.ops
    }

    #[inline]
    fn run(&mut self, operation: impl FnOnce(&mut O)) {
        match self.gate.pass(0) {
            Pass::Go => match &mut self.times {
                None => operation(&mut self.ops),
                Some(times) => {
                    let start = now_ns();
                    operation(&mut self.ops);
                    times.push((now_ns() - start) as f64);
                }
            },
            end => {
                self.ended = Some(end);
                return;
            }
        }
        if self.gate.done().is_err() {
            self.ended = Some(Pass::LeaseLost);
        }
    }
}

/// Every operation in one line: ask, do, count.
macro_rules! gated {
    ($(fn $name:ident($($arg:ident: $kind:ty),* $(,)?);)*) => {
        $(fn $name(&mut self, $($arg: $kind),*) {
            self.run(|ops| ops.$name($($arg),*));
        })*
    };
}

#[allow(clippy::too_many_arguments)]
impl<O: Ops> Ops for Gated<O> {
    type Buffer = O::Buffer;

    fn dtype(&self) -> DType {
        self.ops.dtype()
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Self::Buffer> {
        self.ops.alloc(len, dtype)
    }

    fn write(&mut self, dst: &mut Self::Buffer, values: &[f64]) -> Result<()> {
        self.ops.write(dst, values)
    }

    fn write_ids(&mut self, dst: &mut Self::Buffer, ids: &[u32]) -> Result<()> {
        self.ops.write_ids(dst, ids)
    }

    fn read(&mut self, src: &Self::Buffer) -> Result<Vec<f64>> {
        self.ops.read(src)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.ops.synchronize()?;
        match self.ended {
            None | Some(Pass::Go) => Ok(()),
            Some(Pass::ShutDown) => Err(Error::machine("the main program has shut the gate down", "start it again")),
            Some(Pass::MainGone) => {
                Err(Error::machine("the main program behind the gate has died", "start it again, then this program"))
            }
            Some(Pass::LeaseLost) => {
                Err(Error::machine("another side has taken the place at the gate", "end this one"))
            }
            Some(Pass::NeverFits { longest_ns }) => Err(Error::machine(
                format!("no bubble is long enough for an operation: the longest had {longest_ns} ns"),
                "take a smaller model",
            )),
        }
    }

    gated! {
        fn zero(dst: &mut Self::Buffer);
        fn linear_forward(shape: Linear, y: &mut Self::Buffer, x: &Self::Buffer, w: &Self::Buffer, epilogue: ForwardEpilogue<'_, Self::Buffer>);
        fn linear_to_inputs(shape: Linear, dx: &mut Self::Buffer, dy: &Self::Buffer, w: &Self::Buffer, epilogue: InputEpilogue<'_, Self::Buffer>);
        fn linear_to_weights(shape: Linear, dw: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer, epilogue: WeightEpilogue<'_, Self::Buffer>);
        fn layernorm_forward(shape: Rows, y: &mut Self::Buffer, mean: &mut Self::Buffer, rstd: &mut Self::Buffer, x: &Self::Buffer, gamma: &Self::Buffer, beta: &Self::Buffer);
        fn layernorm_to_inputs(shape: Rows, dx: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer, gamma: &Self::Buffer, stats: RowStats<'_, Self::Buffer>, residual: Option<&Self::Buffer>);
        fn layernorm_to_weights(shape: Rows, dgamma: &mut Self::Buffer, dbeta: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer, stats: RowStats<'_, Self::Buffer>);
        fn attention_forward(shape: Attention, out: &mut Self::Buffer, lse: &mut Self::Buffer, qkv: &Self::Buffer);
        fn attention_backward(shape: Attention, dqkv: &mut Self::Buffer, dout: &Self::Buffer, qkv: &Self::Buffer, out: &Self::Buffer, lse: &Self::Buffer, workspace: &mut Self::Buffer);
        fn gelu_forward(len: usize, y: &mut Self::Buffer, x: &Self::Buffer);
        fn gelu_backward(len: usize, dx: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer);
        fn residual(len: usize, out: &mut Self::Buffer, a: &Self::Buffer, b: &Self::Buffer);
        fn residual_layernorm(shape: Rows, out: ResidualLayernorm<'_, Self::Buffer>, a: &Self::Buffer, b: &Self::Buffer, gamma: &Self::Buffer, beta: &Self::Buffer);
        fn dropout(len: usize, y: &mut Self::Buffer, x: &Self::Buffer, dropout: Dropout);
        fn embedding_forward(shape: Embedding, out: &mut Self::Buffer, tokens: &Self::Buffer, table: &Self::Buffer, positions: &Self::Buffer);
        fn embedding_to_weights(shape: Embedding, dtable: &mut Self::Buffer, dpositions: &mut Self::Buffer, dout: &Self::Buffer, tokens: &Self::Buffer);
        fn cross_entropy(shape: Rows, losses: &mut Self::Buffer, logits: &mut Self::Buffer, targets: &Self::Buffer);
        fn adamw(len: usize, param: &mut Self::Buffer, master: Option<&mut Self::Buffer>, grad: &Self::Buffer, m: &mut Self::Buffer, v: &mut Self::Buffer, config: AdamW);
        fn conv_forward(shape: Conv, y: &mut Self::Buffer, x: &Self::Buffer, w: &Self::Buffer, workspace: &mut Self::Buffer);
        fn conv_to_inputs(shape: Conv, dx: &mut Self::Buffer, dy: &Self::Buffer, w: &Self::Buffer, workspace: &mut Self::Buffer);
        fn conv_to_weights(shape: Conv, dw: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer, workspace: &mut Self::Buffer);
        fn groupnorm_forward(shape: GroupNorm, y: &mut Self::Buffer, mean: &mut Self::Buffer, rstd: &mut Self::Buffer, x: &Self::Buffer, gamma: &Self::Buffer, beta: &Self::Buffer);
        fn groupnorm_to_inputs(shape: GroupNorm, dx: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer, gamma: &Self::Buffer, stats: RowStats<'_, Self::Buffer>);
        fn groupnorm_to_weights(shape: GroupNorm, dgamma: &mut Self::Buffer, dbeta: &mut Self::Buffer, dy: &Self::Buffer, x: &Self::Buffer, stats: RowStats<'_, Self::Buffer>);
        fn relu_forward(len: usize, y: &mut Self::Buffer, x: &Self::Buffer);
        fn relu_backward(len: usize, dx: &mut Self::Buffer, dy: &Self::Buffer, y: &Self::Buffer);
        fn average_pool_forward(shape: Pool, y: &mut Self::Buffer, x: &Self::Buffer);
        fn average_pool_backward(shape: Pool, dx: &mut Self::Buffer, dy: &Self::Buffer);
        fn lstm_cell_forward(shape: LstmCell, h: &mut Self::Buffer, c: &mut Self::Buffer, gates: &mut Self::Buffer, c_prev: &Self::Buffer);
        fn lstm_cell_backward(shape: LstmCell, dgates: &mut Self::Buffer, dc: &mut Self::Buffer, dh: &Self::Buffer, gates: &Self::Buffer, c: &Self::Buffer, c_prev: &Self::Buffer);
        fn sgd(len: usize, param: &mut Self::Buffer, grad: &Self::Buffer, velocity: &mut Self::Buffer, config: Sgd);
    }
}

#[cfg(test)]
#[path = "gated_tests.rs"]
mod tests;
