//! send_recv: one rank's buffer to another, in four patterns (see [`Pattern`]). Pairs are ranks 2i and 2i + 1; the last
//! of an odd number of ranks stands aside. Bytes are those of one message.
//!
//! Direct: the receiver copies straight from the sender's memory.

use super::operation::{Definition, Pattern};
use super::threads::{Combine, Rank};
use super::values::{self, Recipe};
use super::{Exchange, RankPlacement};
use crate::Result;

/// The definition of send_recv in one pattern; the constants of this module are its only values.
pub struct SendRecv(Pattern);

/// The ranks that one rank sends to and receives from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// Rank that is sent to; `None` where this rank sends nothing.
    pub to: Option<usize>,
    /// Rank that is received from; `None` where this rank receives nothing.
    pub from: Option<usize>,
}

/// The ranks that `rank` sends to and receives from in this exchange; none where its operation is not send_recv.
pub fn ends(exchange: &Exchange, rank: usize) -> Peers {
    let pattern = exchange.operation.pattern().map(SendRecv);
    let of =
        |ask: fn(&SendRecv, usize, usize) -> Option<usize>| pattern.as_ref().and_then(|p| ask(p, exchange.ranks, rank));
    Peers { to: of(SendRecv::receiver), from: of(SendRecv::sender) }
}

/// The definition of send_recv in [`Pattern::PingPong`].
pub const PING_PONG: SendRecv = SendRecv(Pattern::PingPong);
/// The definition of send_recv in [`Pattern::OneWay`].
pub const ONE_WAY: SendRecv = SendRecv(Pattern::OneWay);
/// The definition of send_recv in [`Pattern::BothWays`].
pub const BOTH_WAYS: SendRecv = SendRecv(Pattern::BothWays);
/// The definition of send_recv in [`Pattern::Ring`].
pub const RING: SendRecv = SendRecv(Pattern::Ring);

impl SendRecv {
    /// Whom this rank sends to.
    fn receiver(&self, ranks: usize, rank: usize) -> Option<usize> {
        let partner = Some(rank ^ 1).filter(|p| *p < ranks);
        match self.0 {
            Pattern::PingPong | Pattern::BothWays => partner,
            Pattern::OneWay => partner.filter(|_| rank.is_multiple_of(2)),
            Pattern::Ring => Some((rank + 1) % ranks).filter(|_| ranks > 1),
        }
    }

    /// Whom this rank receives from.
    fn sender(&self, ranks: usize, rank: usize) -> Option<usize> {
        (0..ranks).find(|from| self.receiver(ranks, *from) == Some(rank))
    }
}

impl Definition for SendRecv {
    fn name(&self) -> &'static str {
        "send_recv"
    }

    /// 1: the message crosses one link once.
    fn bus_factor(&self, _ranks: u64) -> f64 {
        1.0
    }

    fn can_be_in_place(&self) -> bool {
        false
    }

    fn passes(&self) -> u32 {
        if self.0 == Pattern::PingPong { 2 } else { 1 }
    }

    fn placement(&self, exchange: &Exchange, rank: usize) -> RankPlacement {
        let gives = self.receiver(exchange.ranks, rank).map_or(0, |_| exchange.elements);
        let gets = self.sender(exchange.ranks, rank).map_or(0, |_| exchange.elements);
        RankPlacement::apart(gives, gets)
    }

    fn expect(&self, exchange: &Exchange, rank: usize, first: usize, out: &mut [f32]) {
        if let Some(from) = self.sender(exchange.ranks, rank) {
            values::fill(Recipe::of(exchange), from, first, out);
        }
    }

    fn algorithm(&self) -> &'static str {
        "direct"
    }

    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()> {
        let RankPlacement { input, output } = exchange.placement(rank.index());
        let (n, me) = (rank.ranks(), rank.index());
        let (to, from) = (self.receiver(n, me), self.sender(n, me));
        // The odd rank of a ping-pong answers only once it has the message.
        let answers = self.0 == Pattern::PingPong && !me.is_multiple_of(2);
        if let Some(to) = to.filter(|_| !answers) {
            rank.send(to, input)?;
        }
        if let Some(from) = from {
            rank.receive(from, output, Combine::Replace)?;
        }
        if let Some(to) = to.filter(|_| answers) {
            rank.send(to, input)?;
        }
        rank.settle()
    }
}
