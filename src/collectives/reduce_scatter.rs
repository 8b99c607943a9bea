//! reduce_scatter: the sum of all ranks' buffers; rank r ends with part r of it.
//! Its bytes S are those of one whole buffer; a rank sends the other ranks' (n−1)/n · S.
//!
//! Direct and chunked: each rank shows the others their parts and adds up its own from theirs, a chunk at a time so
//! that the running sum stays in cache.

use super::operation::Definition;
use super::threads::{Combine, Rank};
use super::values::{self, Recipe};
use super::{BufferSpan, Exchange, RankPlacement};
use crate::Result;

pub struct ReduceScatter;

impl Definition for ReduceScatter {
    fn name(&self) -> &'static str {
        "reduce_scatter"
    }

    /// (n − 1)/n: every part of a rank's buffer but its own must leave it.
    fn bus_factor(&self, ranks: u64) -> f64 {
        super::operation::share_of_others(ranks)
    }

    fn placement(&self, exchange: &Exchange, rank: usize) -> RankPlacement {
        let (_, own) = super::part(exchange.elements, exchange.ranks, rank);
        if !exchange.in_place {
            return RankPlacement::apart(exchange.elements, own);
        }
        let input = BufferSpan::new(super::RankBuffer::Receive, 0, exchange.elements);
        RankPlacement { input, output: input.part(exchange.ranks, rank) }
    }

    fn expect(&self, exchange: &Exchange, rank: usize, first: usize, out: &mut [f32]) {
        let (start, _) = super::part(exchange.elements, exchange.ranks, rank);
        values::fill_sum(Recipe::of(exchange), exchange.ranks, start + first, out);
    }

    fn algorithm(&self) -> &'static str {
        "direct"
    }

    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()> {
        let RankPlacement { input, output } = exchange.placement(rank.index());
        let (n, me) = (rank.ranks(), rank.index());
        if n == 1 {
            return rank.copy(output, input);
        }
        // Parts differ by one element at most; part 0 is the longest.
        let chunk = rank.tuning().chunk.max(1);
        let rounds = input.part(n, 0).len.div_ceil(chunk);
        for round in 0..rounds {
            for distance in 1..n {
                let to = (me + distance) % n;
                rank.send(to, piece(input.part(n, to), round, chunk))?;
            }
            let (own, sum) = (piece(input.part(n, me), round, chunk), piece(output, round, chunk));
            for distance in 1..n {
                let addend = if distance == 1 { own } else { sum };
                rank.receive((me + n - distance) % n, sum, Combine::Add(addend))?;
            }
        }
        rank.settle()
    }
}

/// The `round`-th chunk of a span; empty behind its end.
fn piece(span: BufferSpan, round: usize, chunk: usize) -> BufferSpan {
    let start = (round * chunk).min(span.len);
    span.slice(start, chunk.min(span.len - start))
}
