//! The list of operations, and what every one of them must say about itself.

use super::threads::Rank;
use super::{Exchange, Placement};
use super::{all_gather, all_reduce, all_to_all, broadcast, pipeline, reduce, reduce_scatter, send_recv};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Who sends to whom in `send_recv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pattern {
    /// Rank 2i sends to 2i+1, which sends back; the time is half the round trip.
    PingPong,
    /// Rank 2i sends to 2i+1.
    OneWay,
    /// Ranks 2i and 2i+1 send to each other at the same time.
    BothWays,
    /// Every rank sends to the next and receives from the one before (what nccl-tests' sendrecv does).
    Ring,
}

impl Pattern {
    pub const ALL: [Pattern; 4] = [Pattern::PingPong, Pattern::OneWay, Pattern::BothWays, Pattern::Ring];

    pub const fn name(self) -> &'static str {
        match self {
            Pattern::PingPong => "ping_pong",
            Pattern::OneWay => "one_way",
            Pattern::BothWays => "both_ways",
            Pattern::Ring => "ring",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    AllReduce,
    AllGather,
    ReduceScatter,
    Broadcast,
    Reduce,
    AllToAll,
    SendRecv(Pattern),
    Pipeline,
}

/// What an operation says about itself, whatever carries it, and how threads carry it.
pub trait Definition: Sync {
    /// As it stands in case names and records: `all_reduce`, …
    fn name(&self) -> &'static str;

    /// Bus bandwidth ÷ algorithm bandwidth among `ranks` (nccl-tests' doc/PERFORMANCE.md; derived in
    /// docs/collectives.md).
    fn bus_factor(&self, ranks: u64) -> f64;

    fn can_be_in_place(&self) -> bool {
        true
    }

    /// Messages that follow one another in one run of it: a ping-pong's time is divided by its two.
    fn passes(&self) -> u32 {
        1
    }

    /// Where `rank`'s input and output lie.
    fn placement(&self, exchange: &Exchange, rank: usize) -> Placement;

    /// The right output of `rank`, from element `first` on.
    fn expect(&self, exchange: &Exchange, rank: usize, first: usize, out: &mut [f32]);

    /// How the threads do it: `ring`, `chain`, `direct`.
    fn algorithm(&self) -> &'static str;

    /// This rank's part of it between threads; returns once its own buffers may be used again.
    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()>;
}

impl Operation {
    pub const ALL: [Operation; 11] = [
        Operation::AllReduce,
        Operation::AllGather,
        Operation::ReduceScatter,
        Operation::Broadcast,
        Operation::Reduce,
        Operation::AllToAll,
        Operation::SendRecv(Pattern::PingPong),
        Operation::SendRecv(Pattern::OneWay),
        Operation::SendRecv(Pattern::BothWays),
        Operation::SendRecv(Pattern::Ring),
        Operation::Pipeline,
    ];

    pub const fn definition(self) -> &'static dyn Definition {
        match self {
            Operation::AllReduce => &all_reduce::AllReduce,
            Operation::AllGather => &all_gather::AllGather,
            Operation::ReduceScatter => &reduce_scatter::ReduceScatter,
            Operation::Broadcast => &broadcast::Broadcast,
            Operation::Reduce => &reduce::Reduce,
            Operation::AllToAll => &all_to_all::AllToAll,
            Operation::SendRecv(Pattern::PingPong) => &send_recv::PING_PONG,
            Operation::SendRecv(Pattern::OneWay) => &send_recv::ONE_WAY,
            Operation::SendRecv(Pattern::BothWays) => &send_recv::BOTH_WAYS,
            Operation::SendRecv(Pattern::Ring) => &send_recv::RING,
            Operation::Pipeline => &pipeline::Pipeline,
        }
    }

    pub const fn pattern(self) -> Option<Pattern> {
        match self {
            Operation::SendRecv(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// `all_reduce`, `send_recv/ping_pong`: the operation's place in a case's name.
    pub fn path(self) -> String {
        match self.pattern() {
            Some(pattern) => format!("{}/{}", self.definition().name(), pattern.name()),
            None => self.definition().name().to_string(),
        }
    }

    /// Its place in [`Operation::ALL`]; different operations get different inputs.
    pub(super) const fn number(self) -> u32 {
        match self {
            Operation::AllReduce => 0,
            Operation::AllGather => 1,
            Operation::ReduceScatter => 2,
            Operation::Broadcast => 3,
            Operation::Reduce => 4,
            Operation::AllToAll => 5,
            Operation::SendRecv(pattern) => 6 + pattern as u32,
            Operation::Pipeline => 10,
        }
    }
}

/// (n − 1) / n: the share of a buffer that is not a rank's own.
pub(super) fn share_of_others(ranks: u64) -> f64 {
    if ranks == 0 { 0.0 } else { (ranks - 1) as f64 / ranks as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::collective::bus_factor;

    /// The table by names, which reads records, says what each operation derives for itself.
    #[test]
    fn the_table_of_bus_factors_agrees_with_every_derivation() {
        for operation in Operation::ALL.map(Operation::definition) {
            for ranks in 1..=64 {
                let table = bus_factor(operation.name(), ranks);
                assert_eq!(table, Some(operation.bus_factor(ranks)), "{} of {ranks} ranks", operation.name());
            }
        }
    }

    #[test]
    fn numbers_and_paths_tell_operations_apart() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation.number() as usize, index);
        }
        assert_eq!(Operation::SendRecv(Pattern::PingPong).path(), "send_recv/ping_pong");
        assert_eq!(Operation::AllReduce.path(), "all_reduce");
    }
}
