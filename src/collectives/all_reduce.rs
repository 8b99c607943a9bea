//! all_reduce: every rank ends with the sum of all ranks' buffers.
//! Its bytes S are those of one buffer; 2(n−1)/n · S cross each rank's link.
//!
//! A ring, block by block: a block has one part a rank. First the parts travel round the ring, each rank adding its own
//! (reduce-scatter); after n − 1 steps each rank holds one finished part, and the finished parts travel round once more
//! (all-gather). Blocks keep a partial sum in cache until the neighbour reads it.

use super::operation::Definition;
use super::threads::{Combine, Rank};
use super::values::{self, Recipe};
use super::{BufferSpan, Exchange, RankPlacement};
use crate::Result;

pub struct AllReduce;

impl Definition for AllReduce {
    fn name(&self) -> &'static str {
        "all_reduce"
    }

    /// 2(n − 1)/n: each part crosses 2(n − 1) of the ring's links and there are n parts, n links.
    fn bus_factor(&self, ranks: u64) -> f64 {
        2.0 * super::operation::share_of_others(ranks)
    }

    fn placement(&self, exchange: &Exchange, _rank: usize) -> RankPlacement {
        let apart = RankPlacement::apart(exchange.elements, exchange.elements);
        if exchange.in_place { RankPlacement { input: apart.output, ..apart } } else { apart }
    }

    fn expect(&self, exchange: &Exchange, _rank: usize, first: usize, out: &mut [f32]) {
        values::fill_sum(Recipe::of(exchange), exchange.ranks, first, out);
    }

    fn algorithm(&self) -> &'static str {
        "ring"
    }

    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()> {
        let RankPlacement { input, output } = exchange.placement(rank.index());
        if rank.ranks() == 1 {
            return rank.copy(output, input);
        }
        let block = rank.tuning().chunk * rank.ranks();
        for (input, output) in input.chunks(block).zip(output.chunks(block)) {
            reduce_scatter(rank, input, output)?;
            all_gather(rank, output)?;
        }
        rank.settle()
    }
}

/// Ends with part (rank + 1) of `output` finished; the other parts hold partial sums.
fn reduce_scatter(rank: &mut Rank, input: BufferSpan, output: BufferSpan) -> Result<()> {
    let (n, me) = (rank.ranks(), rank.index());
    for step in 0..n - 1 {
        let (given, taken) = ((me + n - step) % n, (me + n - step - 1) % n);
        let source = if step == 0 { input } else { output };
        rank.send(rank.next(), source.part(n, given))?;
        rank.receive(rank.previous(), output.part(n, taken), Combine::Add(input.part(n, taken)))?;
    }
    Ok(())
}

fn all_gather(rank: &mut Rank, output: BufferSpan) -> Result<()> {
    let (n, me) = (rank.ranks(), rank.index());
    for step in 0..n - 1 {
        let (given, taken) = ((me + 1 + n - step) % n, (me + n - step) % n);
        rank.send(rank.next(), output.part(n, given))?;
        rank.receive(rank.previous(), output.part(n, taken), Combine::Replace)?;
    }
    Ok(())
}
