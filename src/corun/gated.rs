//! A device behind a gate: every operation asks first, so models run through it unchanged.
//!
//! [`Gated`] wraps any [`Ops`]. Before each operation it asks the gate, which answers at once while the bubble lasts and
//! holds the model between two operations otherwise. Reading, writing and allocating are not gated: they are set-up and
//! inspection, not the work of a step. On an asynchronous device an operation that passed is *asked for*, not done: what
//! is queued there drains after the closing.
//!
//! A training step runs the same operations in the same order every time: [`Gated::learn`] gives each position its need,
//! with which the gate lets an operation start only where it ends in time. [`Gated::learn_step`] asks once for a whole
//! step instead.

use super::gate::{Pass, SideEnd};
use super::last_operations::LastOperations;
use crate::ops::{
    AdamW, Attention, Conv, DType, Dropout, Embedding, ForwardEpilogue, GroupNorm, InputEpilogue, Linear, LstmCell,
    Ops, Pool, ResidualLayernorm, RowStats, Rows, Sgd, WeightEpilogue,
};
use crate::units::format_ns;
use crate::{Error, Result};
use std::sync::Arc;

/// How often who waits at the gate looks whether it is to end.
const LOOK_NS: u64 = 50_000_000;

/// Why operations pass the gate no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The main has ended in good order.
    ShutDown,
    /// The main died.
    MainGone,
    /// Another side has taken the place at the gate.
    LeaseLost,
    /// Openings are too short, again and again.
    NeverFits {
        /// What the operation needs, in nanoseconds.
        need_ns: u64,
        /// The longest of the last openings in nanoseconds, less the margin.
        longest_ns: u64,
    },
    /// This program is to end ([`Gated::end_when`]).
    Asked,
}

/// How much a side does for one question at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Grain {
    /// One operation.
    #[default]
    Operation,
    /// A whole training step, which nothing stops once it has begun.
    Step,
}

impl Grain {
    /// The grain as it stands in records: `operation` or `step`.
    pub const fn name(self) -> &'static str {
        match self {
            Grain::Operation => "operation",
            Grain::Step => "step",
        }
    }
}

/// A device behind a gate: an operation runs once the gate lets it pass, and is then counted.
pub struct Gated<O> {
    ops: O,
    gate: SideEnd,
    ended: Option<Ended>,
    times: Option<Times>,
    needs: Needs,
    alone: bool,
    finishing: bool,
    asked: fn() -> bool,
    last: Option<Arc<LastOperations>>,
}

/// Operations that are timed, and by which clock.
struct Times {
    clock: fn() -> u64,
    ns: Vec<f64>,
}

/// What each operation of a step needs, by its position.
#[derive(Debug, Default)]
struct Needs {
    by_position: Vec<u64>,
    largest: u64,
    /// Operations of this step so far.
    position: usize,
    /// The step before had other operations than were learned: positions say nothing until one is as learned again.
    differs: bool,
    /// The gate is asked before the first operation of a step only.
    once_a_step: bool,
}

impl Needs {
    fn learn(&mut self, by_position: Vec<u64>) {
        let largest = by_position.iter().copied().max().unwrap_or(0);
        *self = Needs { position: by_position.len(), by_position, largest, ..Needs::default() };
    }

    fn learn_step(&mut self, need_ns: u64) {
        self.learn(vec![need_ns]);
        self.once_a_step = true;
    }

    fn begin_step(&mut self) {
        self.differs = self.position != self.by_position.len();
        self.position = 0;
    }

    /// The need of the next operation, in nanoseconds; `None` where it belongs to what was asked for already.
    #[inline]
    fn next(&mut self) -> Option<u64> {
        let known = self.by_position.get(self.position).filter(|_| !self.differs);
        let asks = self.position == 0 || !self.once_a_step;
        self.position += 1;
        asks.then(|| known.copied().unwrap_or(self.largest))
    }
}

impl<O: Ops> Gated<O> {
    /// Puts `ops` behind the side's end of a gate.
    pub fn new(ops: O, gate: SideEnd) -> Self {
        let needs = Needs::default();
        Gated {
            ops,
            gate,
            ended: None,
            times: None,
            needs,
            alone: false,
            finishing: false,
            asked: || false,
            last: None,
        }
    }

    /// As [`Gated::new`] for a side that gets ready first: until [`Gated::ready`] operations neither ask the gate nor
    /// count, and the main takes the side for absent.
    pub fn getting_ready(ops: O, gate: SideEnd) -> Self {
        Gated { alone: true, ..Gated::new(ops, gate) }
    }

    /// From now on every operation asks the gate, and the main knows of this side.
    pub fn ready(&mut self) {
        self.alone = false;
        self.gate.ready();
    }

    /// Takes what each operation of a step needs, in nanoseconds and in order. An operation then starts only where so
    /// much of the opening is left; without it any operation starts while the gate is open. The positions count from
    /// [`Gated::begin_step`]. Where a step had more or fewer operations than were learned, those of the next step ask
    /// with the largest need.
    pub fn learn(&mut self, needs_ns: Vec<u64>) {
        self.needs.learn(needs_ns);
    }

    /// Asks once for a whole step, which needs so many nanoseconds: its first operation starts where so much of the opening
    /// is left, and the others follow without asking. Steps begin with [`Gated::begin_step`].
    pub fn learn_step(&mut self, need_ns: u64) {
        self.needs.learn_step(need_ns);
    }

    /// From now on keeps when the last operation of each opening ended, for the main to read.
    pub fn keep_last(&mut self, last: Arc<LastOperations>) {
        self.last = Some(last);
    }

    /// The operations that follow are those of a new step.
    pub fn begin_step(&mut self) {
        self.needs.begin_step();
    }

    /// Ends as [`Ended::Asked`] within 50 ms of waiting at the gate once `asked` says so; an operation that may start is
    /// not held up by it.
    pub fn end_when(&mut self, asked: fn() -> bool) {
        self.asked = asked;
    }

    /// While `finishing`, what the gate's end catches runs all the same, uncounted: an update that is half done would
    /// leave a model that is good for nothing.
    pub fn set_finishing(&mut self, finishing: bool) {
        self.finishing = finishing;
    }

    /// How the gate ended; `None` while it has not. From its end on operations are left out and [`Ops::synchronize`]
    /// says so.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Operations done behind this gate so far.
    pub fn operations(&self) -> u64 {
        self.gate.operations()
    }

    /// From now on the time of each operation is kept (without the waiting at the gate), by a clock of nanoseconds.
    pub fn time_operations(&mut self, clock: fn() -> u64) {
        self.times = Some(Times { clock, ns: Vec::new() });
    }

    /// Times of the operations since [`Gated::time_operations`], nanoseconds, in order; ends the timing.
    pub fn take_times(&mut self) -> Vec<f64> {
        self.times.take().map_or_else(Vec::new, |times| times.ns)
    }

    /// The device behind the gate; calls on it do not ask the gate.
    pub fn device(&self) -> &O {
        &self.ops
    }

    #[inline]
    fn run(&mut self, operation: impl FnOnce(&mut O)) {
        if self.alone {
            return self.timed(operation);
        }
        let need_ns = self.needs.next();
        if let (None, Some(need_ns)) = (self.ended, need_ns) {
            self.ended = self.held(need_ns);
        }
        if self.ended.is_some() {
            if self.finishing {
                operation(&mut self.ops);
            }
            return;
        }
        if let Some(last) = &self.last {
            let (opening, deadline_ns) = self.gate.opening();
            last.begins(opening, deadline_ns);
        }
        self.timed(operation);
        if let Some(last) = &self.last {
            last.ended();
        }
        if self.gate.done().is_err() {
            self.ended = Some(Ended::LeaseLost);
        }
    }

    #[inline]
    fn timed(&mut self, operation: impl FnOnce(&mut O)) {
        match &mut self.times {
            None => operation(&mut self.ops),
            Some(Times { clock, ns }) => {
                let start = clock();
                operation(&mut self.ops);
                ns.push((clock() - start) as f64);
            }
        }
    }

    /// Returns once an operation of this need may start; how the gate ended, where none may any more.
    #[inline]
    fn held(&mut self, need_ns: u64) -> Option<Ended> {
        loop {
            return match self.gate.pass_within(need_ns, LOOK_NS) {
                Some(Pass::Go) => None,
                Some(Pass::ShutDown) => Some(Ended::ShutDown),
                Some(Pass::MainGone) => Some(Ended::MainGone),
                Some(Pass::LeaseLost) => Some(Ended::LeaseLost),
                Some(Pass::NeverFits { longest_ns }) => Some(Ended::NeverFits { need_ns, longest_ns }),
                None if (self.asked)() => Some(Ended::Asked),
                None => continue,
            };
        }
    }
}

impl Ended {
    /// As a failure: what a side says that cannot go on.
    pub fn error(self) -> Error {
        match self {
            Ended::ShutDown => Error::machine("the main program has shut the gate down", "start it again"),
            Ended::MainGone => {
                Error::machine("the main program behind the gate has died", "start it again, then this program")
            }
            Ended::LeaseLost => Error::machine(
                "another side has taken the place at the gate: this one stood still for longer than its lease",
                "end the other one, then start this one again",
            ),
            Ended::NeverFits { need_ns, longest_ns } => Error::machine(
                format!(
                    "an operation takes {}, and none of the last openings had more than {}",
                    format_ns(need_ns as f64),
                    format_ns(longest_ns as f64)
                ),
                "take a model of shorter operations; a smaller batch shortens all but the updates of its weights",
            ),
            Ended::Asked => Error::Interrupted,
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
        self.ended.map_or(Ok(()), |ended| Err(ended.error()))
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
