//! The inputs: small integers that anyone can compute from the operation, the rank and the index.
//!
//! Integers this small add up exactly in every order, and in bf16 too: sums of values 0–7 over up to 36 ranks stay under
//! 256, below which bf16 holds every integer; operations that only move data use 0–255.

use super::Operation;

const fn largest(operation: Operation) -> u32 {
    match operation {
        Operation::AllReduce | Operation::ReduceScatter | Operation::Reduce => 7,
        _ => 255,
    }
}

/// Well mixed, so that an element taken from a wrong place or a wrong rank differs.
fn mix(seed: u32, index: u32) -> u32 {
    let mut x = index.wrapping_mul(0x9e37_79b1) ^ seed;
    x ^= x >> 15;
    x = x.wrapping_mul(0x2c1b_3c6d);
    x ^ (x >> 13)
}

fn seed(operation: Operation, rank: usize) -> u32 {
    (rank as u32 + 1).wrapping_mul(0x85eb_ca6b) ^ (operation.number() + 1).wrapping_mul(0xc2b2_ae35)
}

/// Elements `first ..` of `rank`'s input.
pub fn fill(operation: Operation, rank: usize, first: usize, out: &mut [f32]) {
    let (seed, mask) = (seed(operation, rank), largest(operation));
    for (offset, value) in out.iter_mut().enumerate() {
        *value = (mix(seed, (first + offset) as u32) & mask) as f32;
    }
}

/// Elements `first ..` of the sum of all ranks' inputs.
pub fn fill_sum(operation: Operation, ranks: usize, first: usize, out: &mut [f32]) {
    let mask = largest(operation);
    out.fill(0.0);
    for seed in (0..ranks).map(|rank| seed(operation, rank)) {
        for (offset, value) in out.iter_mut().enumerate() {
            *value += (mix(seed, (first + offset) as u32) & mask) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_small_integers_that_differ_by_rank_place_and_operation() {
        let take = |operation, rank, first| {
            let mut out = [0.0f32; 64];
            fill(operation, rank, first, &mut out);
            assert!(out.iter().all(|v| v.fract() == 0.0 && (0.0..=255.0).contains(v)));
            out
        };
        let base = take(Operation::AllReduce, 0, 0);
        assert!(base.iter().all(|v| *v <= 7.0));
        assert_eq!(base[8..], take(Operation::AllReduce, 0, 8)[..56]);
        for other in [take(Operation::AllReduce, 1, 0), take(Operation::AllReduce, 0, 1), take(Operation::Reduce, 0, 0)]
        {
            assert!(base.iter().zip(&other).filter(|(a, b)| a != b).count() > 40);
        }
    }
}
