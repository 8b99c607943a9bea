//! (room collectives)

/// Bus bandwidth ÷ algorithm bandwidth, as nccl-tests defines it.
pub fn bus_factor(operation: &str, ranks: u64) -> f64 {
    let n = ranks as f64;
    match operation {
        "all_reduce" => 2.0 * (n - 1.0) / n,
        "all_gather" | "reduce_scatter" | "all_to_all" => (n - 1.0) / n,
        _ => 1.0,
    }
}
