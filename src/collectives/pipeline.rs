//! pipeline: what the stages of a pipeline-parallel run do between two of their computations. Rank i is a stage: it
//! sends activations to i + 1 while it receives their gradients from there, and sends gradients to i − 1 while it
//! receives activations. The first stage has nothing before it, the last nothing behind. Bytes are those of one
//! message; each link between two stages carries one in each direction.
//!
//! A rank's buffers hold what goes on first, then what goes back; the ends' hold one of the two.

use super::operation::Definition;
use super::threads::{Combine, Rank};
use super::values::{self, Recipe};
use super::{BufferSpan, Exchange, RankPlacement};
use crate::Result;

/// The definition of [`CollectiveOperation::Pipeline`](super::CollectiveOperation::Pipeline).
pub struct Pipeline;

/// One message of a rank: its other end, and where it lies in the rank's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerMessage {
    /// The other rank: the receiver of a message that is sent, the sender of one that is received.
    pub peer: usize,
    /// Where the message lies in this rank's input (sent) or output (received).
    pub place: BufferSpan,
}

/// The messages that `rank` sends: activations to the next stage, then gradients to the one before; the ends send one
/// of both.
pub fn sends(exchange: &Exchange, rank: usize) -> Vec<PeerMessage> {
    let next = (rank + 1 < exchange.ranks).then_some(rank + 1);
    in_order(exchange.placement(rank).input, exchange.elements, [next, rank.checked_sub(1)])
}

/// The messages that `rank` receives: activations from the stage before, then gradients from the next.
pub fn receives(exchange: &Exchange, rank: usize) -> Vec<PeerMessage> {
    let next = (rank + 1 < exchange.ranks).then_some(rank + 1);
    in_order(exchange.placement(rank).output, exchange.elements, [rank.checked_sub(1), next])
}

fn in_order(buffer: BufferSpan, len: usize, peers: [Option<usize>; 2]) -> Vec<PeerMessage> {
    let peers = peers.into_iter().flatten().enumerate();
    peers.map(|(index, peer)| PeerMessage { peer, place: buffer.slice(index * len, len) }).collect()
}

/// Links that a rank has.
const fn neighbours(exchange: &Exchange, rank: usize) -> usize {
    (rank > 0) as usize + (rank + 1 < exchange.ranks) as usize
}

impl Definition for Pipeline {
    fn name(&self) -> &'static str {
        "pipeline"
    }

    /// 1: a message crosses one link once; the two directions of a link are used at the same time.
    fn bus_factor(&self, _ranks: u64) -> f64 {
        1.0
    }

    fn can_be_in_place(&self) -> bool {
        false
    }

    fn placement(&self, exchange: &Exchange, rank: usize) -> RankPlacement {
        let len = neighbours(exchange, rank) * exchange.elements;
        RankPlacement::apart(len, len)
    }

    fn expect(&self, exchange: &Exchange, rank: usize, first: usize, out: &mut [f32]) {
        for message in receives(exchange, rank) {
            let Some(sent) = sends(exchange, message.peer).into_iter().find(|sent| sent.peer == rank) else { continue };
            let (start, len) = (message.place.start, message.place.len);
            let (low, high) = (first.max(start), (first + out.len()).min(start + len));
            if low < high {
                let place = sent.place.start + low - start;
                values::fill(Recipe::of(exchange), message.peer, place, &mut out[low - first..high - first]);
            }
        }
    }

    fn algorithm(&self) -> &'static str {
        "direct"
    }

    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()> {
        for message in sends(exchange, rank.index()) {
            rank.send(message.peer, message.place)?;
        }
        for message in receives(exchange, rank.index()) {
            rank.receive(message.peer, message.place, Combine::Replace)?;
        }
        rank.settle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectives::{CollectiveOperation, RankBuffer};

    #[test]
    fn a_stage_talks_to_its_neighbours_and_the_ends_to_one() {
        let exchange = Exchange::new(CollectiveOperation::Pipeline, 10, 3);
        let places = |messages: Vec<PeerMessage>| -> Vec<(usize, usize)> {
            messages.iter().map(|m| (m.peer, m.place.start)).collect()
        };
        assert_eq!(places(sends(&exchange, 0)), [(1, 0)]);
        assert_eq!(places(sends(&exchange, 1)), [(2, 0), (0, 10)]);
        assert_eq!(places(receives(&exchange, 1)), [(0, 0), (2, 10)]);
        assert_eq!(places(sends(&exchange, 2)), [(1, 0)]);
        assert_eq!(exchange.placement(1).needs(RankBuffer::Receive), 20);
        assert!(sends(&Exchange::new(CollectiveOperation::Pipeline, 10, 1), 0).is_empty());
    }

    /// Gradients come from the second half of a middle stage's input, from the only half of the last one's.
    #[test]
    fn what_is_expected_is_what_the_neighbour_sends() {
        let exchange = Exchange::new(CollectiveOperation::Pipeline, 4, 4);
        let (mut got, mut sent) = ([0.0f32; 8], [0.0f32; 8]);
        exchange.fill_expected(1, 0, &mut got);
        exchange.fill_input(0, 0, &mut sent[..4]);
        assert_eq!(got[..4], sent[..4]);
        exchange.fill_input(2, 0, &mut sent);
        assert_eq!(got[4..], sent[4..]);
        exchange.fill_expected(2, 0, &mut got);
        exchange.fill_input(3, 0, &mut sent[..4]);
        assert_eq!(got[4..], sent[..4]);
    }
}
