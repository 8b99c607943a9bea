//! all_to_all: part p of rank r's buffer ends as part r of rank p's.
//! Its bytes S are those of one rank's buffer; a rank sends the other ranks' (n−1)/n · S.
//!
//! Direct: each rank shows every other its part and copies what is its own, nearest before it first. Where ranks do not
//! divide the buffer, rank p gets its own part's length from everyone. There is no in-place form (nor in NCCL).

use super::operation::Definition;
use super::threads::{Combine, Rank};
use super::values::{self, Recipe};
use super::{Exchange, RankPlacement};
use crate::Result;

pub struct AllToAll;

impl Definition for AllToAll {
    fn name(&self) -> &'static str {
        "all_to_all"
    }

    /// (n − 1)/n: every part of a rank's buffer but its own must leave it.
    fn bus_factor(&self, ranks: u64) -> f64 {
        super::operation::share_of_others(ranks)
    }

    fn can_be_in_place(&self) -> bool {
        false
    }

    fn placement(&self, exchange: &Exchange, rank: usize) -> RankPlacement {
        let (_, own) = super::part(exchange.elements, exchange.ranks, rank);
        RankPlacement::apart(exchange.elements, own * exchange.ranks)
    }

    fn expect(&self, exchange: &Exchange, rank: usize, first: usize, out: &mut [f32]) {
        let (start, len) = super::part(exchange.elements, exchange.ranks, rank);
        for from in 0..exchange.ranks {
            let (low, high) = (first.max(from * len), (first + out.len()).min((from + 1) * len));
            if low < high {
                let place = start + low - from * len;
                values::fill(Recipe::of(exchange), from, place, &mut out[low - first..high - first]);
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
            let to = (me + distance) % n;
            rank.send(to, input.part(n, to))?;
        }
        rank.copy(output.part(n, me), input.part(n, me))?;
        for distance in 1..n {
            let from = (me + n - distance) % n;
            rank.receive(from, output.part(n, from), Combine::Replace)?;
        }
        rank.settle()
    }
}
