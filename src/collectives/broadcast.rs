//! broadcast: every rank ends with the root's buffer.
//! Its bytes S are those of that buffer, all of which cross each link.
//!
//! A chain from the root through all ranks, chunk by chunk: a rank passes a chunk on while the next one is on its way.

use super::operation::Definition;
use super::threads::{Combine, Rank};
use super::values::{self, Recipe};
use super::{BufferSpan, Exchange, RankBuffer, RankPlacement};
use crate::Result;

pub struct Broadcast;

impl Definition for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    /// 1: the whole buffer must leave the root, and must reach every other rank.
    fn bus_factor(&self, _ranks: u64) -> f64 {
        1.0
    }

    fn placement(&self, exchange: &Exchange, rank: usize) -> RankPlacement {
        let output = BufferSpan::new(RankBuffer::Receive, 0, exchange.elements);
        let buffer = if exchange.in_place { RankBuffer::Receive } else { RankBuffer::Send };
        let given = if rank == exchange.root { exchange.elements } else { 0 };
        RankPlacement { input: BufferSpan::new(buffer, 0, given), output }
    }

    fn expect(&self, exchange: &Exchange, _rank: usize, first: usize, out: &mut [f32]) {
        values::fill(Recipe::of(exchange), exchange.root, first, out);
    }

    fn algorithm(&self) -> &'static str {
        "chain"
    }

    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()> {
        let RankPlacement { input, output } = exchange.placement(rank.index());
        let chunk = rank.tuning().chunk;
        let is_root = rank.index() == exchange.root;
        let is_last = rank.next() == exchange.root;
        for piece in output.chunks(chunk) {
            let source = if is_root { input.slice(piece.start - output.start, piece.len) } else { piece };
            if !is_root {
                rank.receive(rank.previous(), piece, Combine::Replace)?;
            }
            if !is_last {
                rank.send(rank.next(), source)?;
            }
            if is_root {
                rank.copy(piece, source)?;
            }
        }
        rank.settle()
    }
}
