//! reduce: the root ends with the sum of all ranks' buffers; nobody else's output is touched.
//! Its bytes S are those of one buffer, all of which cross each link.
//!
//! A chain that ends at the root, chunk by chunk: a rank adds its own chunk to what came and passes the partial sum on
//! from scratch memory of a few chunks, used in turn.

use super::operation::Definition;
use super::threads::{Combine, Rank};
use super::values::{self, Recipe};
use super::{BufferSpan, Exchange, RankBuffer, RankPlacement};
use crate::Result;

/// Partial sums in flight per rank: one being made, the others on their way.
const SCRATCH_CHUNKS: usize = 4;

pub struct Reduce;

impl Definition for Reduce {
    fn name(&self) -> &'static str {
        "reduce"
    }

    /// 1: the whole buffer must leave every rank but the root, and the root must take in as much.
    fn bus_factor(&self, _ranks: u64) -> f64 {
        1.0
    }

    fn placement(&self, exchange: &Exchange, rank: usize) -> RankPlacement {
        let gets = if rank == exchange.root { exchange.elements } else { 0 };
        let apart = RankPlacement::apart(exchange.elements, gets);
        let shared = BufferSpan::new(RankBuffer::Receive, 0, exchange.elements);
        if exchange.in_place { RankPlacement { input: shared, ..apart } } else { apart }
    }

    fn expect(&self, exchange: &Exchange, _rank: usize, first: usize, out: &mut [f32]) {
        values::fill_sum(Recipe::of(exchange), exchange.ranks, first, out);
    }

    fn algorithm(&self) -> &'static str {
        "chain"
    }

    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()> {
        let RankPlacement { input, output } = exchange.placement(rank.index());
        if rank.ranks() == 1 {
            return rank.copy(output, input);
        }
        let chunk = rank.tuning().chunk;
        let is_root = rank.index() == exchange.root;
        let is_first = rank.previous() == exchange.root;
        let scratch = BufferSpan::new(RankBuffer::Scratch, 0, SCRATCH_CHUNKS * chunk);
        if !is_root && !is_first {
            rank.reserve(RankBuffer::Scratch, scratch.len)?;
        }
        for (number, piece) in input.chunks(chunk).enumerate() {
            if is_first {
                rank.send(rank.next(), piece)?;
            } else if is_root {
                let sum = output.slice(piece.start - input.start, piece.len);
                rank.receive(rank.previous(), sum, Combine::Add(piece))?;
            } else {
                let partial = scratch.slice(number % SCRATCH_CHUNKS * chunk, piece.len);
                rank.receive(rank.previous(), partial, Combine::Add(piece))?;
                rank.send(rank.next(), partial)?;
            }
        }
        rank.settle()
    }
}
