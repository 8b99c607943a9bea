//! The bytes of a collective, and the factor between its two bandwidths, by its name.
//!
//! Everywhere here a collective of S bytes is what nccl-tests calls so. An all-reduce, a broadcast and a reduce have one
//! buffer of S bytes on each rank; an all-gather gathers S bytes, S/n of them from each of n ranks; a reduce-scatter and an
//! all-to-all start from S bytes on each rank; of send_recv and pipeline S is one message. S is elements × bytes of an
//! element, which `collectives::Exchange::bytes` multiplies; what crosses a rank's link is S times [`bus_factor`].

/// Bus bandwidth ÷ algorithm bandwidth of an operation among `ranks` ranks, by its name in a record; `None` for a name that
/// has no such factor here.
///
/// The factors are nccl-tests' (doc/PERFORMANCE.md), derived in docs/collectives.md: an all-reduce moves each byte out and
/// back, 2(n−1)/n; operations in which every rank's share goes to all others move (n−1)/n; one that sends a whole buffer
/// along, 1. The names of ours that nccl-tests has no program for (`pipeline`) count as the messages they are made of.
pub fn bus_factor(operation: &str, ranks: u64) -> Option<f64> {
    let share = if ranks == 0 { 0.0 } else { (ranks - 1) as f64 / ranks as f64 };
    match operation {
        "all_reduce" => Some(2.0 * share),
        "all_gather" | "reduce_scatter" | "all_to_all" | "all_to_all_v" | "gather" | "scatter" | "hypercube" => {
            Some(share)
        }
        "broadcast" | "reduce" | "send_recv" | "pipeline" => Some(1.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers: nccl-tests' table for 2, 4 and 8 ranks.
    #[test]
    fn bus_factors_are_nccl_tests_own() {
        let rows = [
            ("all_reduce", [1.0, 1.5, 1.75]),
            ("all_gather", [0.5, 0.75, 0.875]),
            ("reduce_scatter", [0.5, 0.75, 0.875]),
            ("all_to_all", [0.5, 0.75, 0.875]),
            ("gather", [0.5, 0.75, 0.875]),
            ("scatter", [0.5, 0.75, 0.875]),
            ("broadcast", [1.0; 3]),
            ("reduce", [1.0; 3]),
            ("send_recv", [1.0; 3]),
            ("pipeline", [1.0; 3]),
        ];
        for (operation, factors) in rows {
            assert_eq!([2, 4, 8].map(|ranks| bus_factor(operation, ranks).unwrap()), factors, "{operation}");
        }
    }

    #[test]
    fn unknown_names_and_no_ranks_have_answers() {
        assert_eq!(bus_factor("allreduce", 8), None);
        assert_eq!(bus_factor("all_reduce", 0), Some(0.0));
        assert_eq!(bus_factor("all_reduce", 1), Some(0.0));
    }
}
