//! all_gather: rank r gives part r of the buffer, every rank ends with the whole.
//! Its bytes S are those of the whole: a rank gives S/n and receives the other (n−1)/n · S.
//!
//! Direct: each rank shows its part to every other and copies theirs, nearest before it first, so that no two ranks
//! read the same one at the same moment. In one memory this moves what a ring moves without its n − 1 dependent steps.

use super::operation::Definition;
use super::threads::{Combine, Rank};
use super::values::{self, Recipe};
use super::{Exchange, RankPlacement};
use crate::Result;

pub struct AllGather;

impl Definition for AllGather {
    fn name(&self) -> &'static str {
        "all_gather"
    }

    /// (n − 1)/n: of the whole buffer, everything but its own part must reach a rank.
    fn bus_factor(&self, ranks: u64) -> f64 {
        super::operation::share_of_others(ranks)
    }

    fn placement(&self, exchange: &Exchange, rank: usize) -> RankPlacement {
        let (_, own) = super::part(exchange.elements, exchange.ranks, rank);
        let apart = RankPlacement::apart(own, exchange.elements);
        if exchange.in_place {
            RankPlacement { input: apart.output.part(exchange.ranks, rank), ..apart }
        } else {
            apart
        }
    }

    fn expect(&self, exchange: &Exchange, _rank: usize, first: usize, out: &mut [f32]) {
        for from in 0..exchange.ranks {
            let (start, len) = super::part(exchange.elements, exchange.ranks, from);
            let (low, high) = (first.max(start), (first + out.len()).min(start + len));
            if low < high {
                values::fill(Recipe::of(exchange), from, low - start, &mut out[low - first..high - first]);
            }
        }
    }

    fn algorithm(&self) -> &'static str {
        "direct"
    }

    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()> {
        let RankPlacement { input, output } = exchange.placement(rank.index());
        let (n, me) = (rank.ranks(), rank.index());
        for distance in 1..n {
            rank.send((me + distance) % n, input)?;
        }
        rank.copy(output.part(n, me), input)?;
        for distance in 1..n {
            let from = (me + n - distance) % n;
            rank.receive(from, output.part(n, from), Combine::Replace)?;
        }
        rank.settle()
    }
}
