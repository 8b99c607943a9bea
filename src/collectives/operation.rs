//! The list of operations, and what every one of them must say about itself.

use super::threads::Rank;
use super::{Exchange, RankPlacement};
use super::{all_gather, all_reduce, all_to_all, broadcast, pipeline, reduce, reduce_scatter, send_recv};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Which ranks send to which in send_recv.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pattern {
    /// Rank 2i sends to 2i + 1, which sends back; the time is half the round trip.
    PingPong,
    /// Rank 2i sends to 2i + 1, which only receives.
    OneWay,
    /// Ranks 2i and 2i + 1 send to each other at the same time.
    BothWays,
    /// Every rank sends to the next and receives from the one before (what nccl-tests' sendrecv does).
    Ring,
}

impl Pattern {
    /// Every pattern, each once.
    pub const ALL: [Pattern; 4] = [Pattern::PingPong, Pattern::OneWay, Pattern::BothWays, Pattern::Ring];

    /// The pattern's name in records and case names: `ping_pong`, `one_way`, `both_ways` or `ring`.
    pub const fn name(self) -> &'static str {
        match self {
            Pattern::PingPong => "ping_pong",
            Pattern::OneWay => "one_way",
            Pattern::BothWays => "both_ways",
            Pattern::Ring => "ring",
        }
    }
}

/// A collective operation, or one of the point-to-point exchanges that are measured beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CollectiveOperation {
    /// Every rank ends with the sum of all ranks' buffers.
    AllReduce,
    /// Every rank ends with all ranks' parts, in the order of ranks.
    AllGather,
    /// Rank r ends with part r of the sum of all ranks' buffers.
    ReduceScatter,
    /// Every rank ends with the root's buffer.
    Broadcast,
    /// The root ends with the sum of all ranks' buffers; no other rank's output is written.
    Reduce,
    /// Rank p ends with part p of every rank's buffer, in the order of ranks.
    AllToAll,
    /// One rank's buffer goes to another; the pattern says which ranks send and receive.
    SendRecv(Pattern),
    /// Stages of a pipeline exchange activations and gradients with both neighbours at once (see [`super::pipeline`]).
    Pipeline,
}

/// What an operation says about itself, whichever transport carries it, and how threads run it.
pub trait Definition: Sync {
    /// The operation's name in case names and records: `all_reduce`, …
    fn name(&self) -> &'static str;

    /// Bus bandwidth ÷ algorithm bandwidth among `ranks` (nccl-tests' doc/PERFORMANCE.md; derived in
    /// docs/collectives.md).
    fn bus_factor(&self, ranks: u64) -> f64;

    /// Whether the operation has an in-place form; all_to_all, send_recv and pipeline have none.
    fn can_be_in_place(&self) -> bool {
        true
    }

    /// Number of messages that follow one another in one run, by which times are divided: 2 for a ping-pong, else 1.
    fn passes(&self) -> u32 {
        1
    }

    /// Where `rank`'s input and output lie.
    fn placement(&self, exchange: &Exchange, rank: usize) -> RankPlacement;

    /// Writes the right output of `rank` from element `first` on.
    fn expect(&self, exchange: &Exchange, rank: usize, first: usize, out: &mut [f32]);

    /// Name of the algorithm between threads: `ring`, `chain` or `direct`.
    fn algorithm(&self) -> &'static str;

    /// Runs this rank's part of the operation between threads, and returns once its own buffers may be used again; an
    /// error where another rank failed or did not come within the deadline.
    fn run(&self, exchange: &Exchange, rank: &mut Rank) -> Result<()>;
}

impl CollectiveOperation {
    /// Every operation, each pattern of send_recv being one, in the order in which the lists of cases take them.
    pub const ALL: [CollectiveOperation; 11] = [
        CollectiveOperation::AllReduce,
        CollectiveOperation::AllGather,
        CollectiveOperation::ReduceScatter,
        CollectiveOperation::Broadcast,
        CollectiveOperation::Reduce,
        CollectiveOperation::AllToAll,
        CollectiveOperation::SendRecv(Pattern::PingPong),
        CollectiveOperation::SendRecv(Pattern::OneWay),
        CollectiveOperation::SendRecv(Pattern::BothWays),
        CollectiveOperation::SendRecv(Pattern::Ring),
        CollectiveOperation::Pipeline,
    ];

    /// What the operation says about itself: name, bus factor, placement, expected result, and how threads run it.
    pub const fn definition(self) -> &'static dyn Definition {
        match self {
            CollectiveOperation::AllReduce => &all_reduce::AllReduce,
            CollectiveOperation::AllGather => &all_gather::AllGather,
            CollectiveOperation::ReduceScatter => &reduce_scatter::ReduceScatter,
            CollectiveOperation::Broadcast => &broadcast::Broadcast,
            CollectiveOperation::Reduce => &reduce::Reduce,
            CollectiveOperation::AllToAll => &all_to_all::AllToAll,
            CollectiveOperation::SendRecv(Pattern::PingPong) => &send_recv::PING_PONG,
            CollectiveOperation::SendRecv(Pattern::OneWay) => &send_recv::ONE_WAY,
            CollectiveOperation::SendRecv(Pattern::BothWays) => &send_recv::BOTH_WAYS,
            CollectiveOperation::SendRecv(Pattern::Ring) => &send_recv::RING,
            CollectiveOperation::Pipeline => &pipeline::Pipeline,
        }
    }

    /// The pattern of a send_recv; `None` for every other operation.
    pub const fn pattern(self) -> Option<Pattern> {
        match self {
            CollectiveOperation::SendRecv(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// The operation's part of a case's name: `all_reduce`, `send_recv/ping_pong`, …
    pub fn path(self) -> String {
        match self.pattern() {
            Some(pattern) => format!("{}/{}", self.definition().name(), pattern.name()),
            None => self.definition().name().to_string(),
        }
    }

    /// Its place in [`CollectiveOperation::ALL`]; different operations get different inputs.
    pub(super) const fn number(self) -> u32 {
        match self {
            CollectiveOperation::AllReduce => 0,
            CollectiveOperation::AllGather => 1,
            CollectiveOperation::ReduceScatter => 2,
            CollectiveOperation::Broadcast => 3,
            CollectiveOperation::Reduce => 4,
            CollectiveOperation::AllToAll => 5,
            CollectiveOperation::SendRecv(pattern) => 6 + pattern as u32,
            CollectiveOperation::Pipeline => 10,
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
        for operation in CollectiveOperation::ALL.map(CollectiveOperation::definition) {
            for ranks in 1..=64 {
                let table = bus_factor(operation.name(), ranks);
                assert_eq!(table, Some(operation.bus_factor(ranks)), "{} of {ranks} ranks", operation.name());
            }
        }
    }

    #[test]
    fn numbers_and_paths_tell_operations_apart() {
        for (index, operation) in CollectiveOperation::ALL.into_iter().enumerate() {
            assert_eq!(operation.number() as usize, index);
        }
        assert_eq!(CollectiveOperation::SendRecv(Pattern::PingPong).path(), "send_recv/ping_pong");
        assert_eq!(CollectiveOperation::AllReduce.path(), "all_reduce");
    }
}
