//! One exchange, its ranks alive: checked once, then timed as often as asked.
//!
//! Two times, because people mean both. *Pipelined*: k operations one after another with nothing between them, from the
//! moment the last rank was ready until the last rank was done, ÷ k: what nccl-tests prints. *Isolated*: all ranks
//! meet, run one operation, and the slowest rank's end counts.

use super::threads::{Combine, Rank, Tuning, World};
use super::{BufferSpan, Exchange, RankBuffer, check};
use crate::Result;

/// The ranks of one exchange as threads of this process, alive until dropped; they run the exchange to check or time
/// it.
pub struct Session {
    world: World,
    exchange: Exchange,
}

/// The pipelined and the isolated times of one sample, of the slowest rank each.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// Nanoseconds of the whole back-to-back batch; half of that for a ping-pong.
    pub pipelined_ns: f64,
    /// Nanoseconds of each operation on its own, in the order they ran; half of the round trip for a ping-pong.
    pub isolated_ns: Vec<f64>,
}

impl Session {
    /// Starts the ranks and lets every pair of them exchange messages once; an error where the exchange is invalid, or
    /// threads or memory are short.
    pub fn new(exchange: Exchange, tuning: Tuning) -> Result<Self> {
        exchange.validate()?;
        let mut world = World::new(exchange.ranks, tuning)?;
        world.run(warm_up)?;
        Ok(Session { world, exchange })
    }

    /// Runs the exchange once on fresh inputs and poisoned outputs and returns the number of wrong elements over all
    /// ranks; an error where a rank failed or did not come within the deadline.
    pub fn verify(&mut self) -> Result<u64> {
        let exchange = self.exchange;
        let wrong = self.world.run(move |rank| {
            check::load(&exchange, rank)?;
            rank.meet()?;
            exchange.operation.definition().run(&exchange, rank)?;
            rank.meet()?;
            Ok(check::count_wrong(&exchange, rank))
        })?;
        Ok(wrong.iter().sum())
    }

    /// Times `pipelined` operations back to back, then `isolated` ones each on its own; an error as for
    /// [`Session::verify`], which must have been called before, because it lays the buffers out.
    pub fn time(&mut self, pipelined: u64, isolated: u64) -> Result<Timing> {
        let exchange = self.exchange;
        let by_rank = self.world.run(move |rank| {
            let mut times = vec![timed(&exchange, rank, pipelined)?];
            for _ in 0..isolated {
                times.push(timed(&exchange, rank, 1)?);
            }
            Ok(times)
        })?;
        let passes = f64::from(exchange.operation.definition().passes());
        let slowest = |trial: usize| by_rank.iter().map(|times| times[trial]).max().unwrap_or(0) as f64 / passes;
        Ok(Timing { pipelined_ns: slowest(0), isolated_ns: (1..=isolated as usize).map(slowest).collect() })
    }
}

/// Nanoseconds from the common start until this rank has done its `operations`.
fn timed(exchange: &Exchange, rank: &mut Rank, operations: u64) -> Result<u64> {
    let definition = exchange.operation.definition();
    let start = rank.meet()?;
    for _ in 0..operations {
        definition.run(exchange, rank)?;
    }
    Ok(rank.now_ns().saturating_sub(start))
}

/// Every pair's edges and both ways of sending are used once before anything is timed.
fn warm_up(rank: &mut Rank) -> Result<()> {
    let (n, me) = (rank.ranks(), rank.index());
    for len in [1, 2 * super::threads::EAGER_CAPACITY] {
        rank.reserve(RankBuffer::Send, len)?;
        rank.reserve(RankBuffer::Scratch, len)?;
        for distance in 1..n {
            rank.send((me + distance) % n, BufferSpan::new(RankBuffer::Send, 0, len))?;
            rank.receive((me + n - distance) % n, BufferSpan::new(RankBuffer::Scratch, 0, len), Combine::Replace)?;
        }
        rank.settle()?;
    }
    rank.meet().map(|_| ())
}
