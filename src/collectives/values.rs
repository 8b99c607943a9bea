//! The inputs: small integers that anyone can compute from the operation, the rank and the index.
//!
//! Integers this small are held exactly by the element type, and so are their sums in every order. Operations that only
//! move data use integers from 0 to below the first one that the type cannot hold beside its neighbours (256 for bf16,
//! 16 and 8 for the two 8-bit floats), at most 255. Where ranks add up, each gives 0 to 7, or less where that many
//! ranks could add up to more than the type holds; where even ones would be too many, a rank gives one at some places
//! only, other places than its neighbours.

use super::{CollectiveOperation, Exchange};

/// How one exchange's inputs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    operation: CollectiveOperation,
    /// Values are a hash of the place, cut down with this.
    mask: u32,
    /// Of so many ranks one gives something at a place; the others give 0.
    stride: u32,
}

impl Recipe {
    pub const fn of(exchange: &Exchange) -> Self {
        let (operation, exact) = (exchange.operation, exchange.exact);
        let ranks = exchange.ranks as u32;
        let (mask, stride) = match operation {
            CollectiveOperation::AllReduce | CollectiveOperation::ReduceScatter | CollectiveOperation::Reduce => {
                if 7 * ranks <= exact {
                    (7, 1)
                } else if 3 * ranks <= exact {
                    (3, 1)
                } else {
                    (1, ranks.div_ceil(exact))
                }
            }
            _ => (if exact < 256 { exact - 1 } else { 255 }, 1),
        };
        Recipe { operation, mask, stride }
    }

    /// What `rank` gives at `index`.
    fn value(&self, seed: u32, rank: usize, index: u32) -> u32 {
        let gives = self.stride == 1 || (index % self.stride) == rank as u32 % self.stride;
        if gives { mix(seed, index) & self.mask } else { 0 }
    }
}

/// Well mixed, so that an element taken from a wrong place or a wrong rank differs.
fn mix(seed: u32, index: u32) -> u32 {
    let mut x = index.wrapping_mul(0x9e37_79b1) ^ seed;
    x ^= x >> 15;
    x = x.wrapping_mul(0x2c1b_3c6d);
    x ^ (x >> 13)
}

fn seed(operation: CollectiveOperation, rank: usize) -> u32 {
    (rank as u32 + 1).wrapping_mul(0x85eb_ca6b) ^ (operation.number() + 1).wrapping_mul(0xc2b2_ae35)
}

/// Elements `first ..` of `rank`'s input.
pub fn fill(recipe: Recipe, rank: usize, first: usize, out: &mut [f32]) {
    let seed = seed(recipe.operation, rank);
    for (offset, value) in out.iter_mut().enumerate() {
        *value = recipe.value(seed, rank, (first + offset) as u32) as f32;
    }
}

/// Elements `first ..` of the sum of all ranks' inputs.
pub fn fill_sum(recipe: Recipe, ranks: usize, first: usize, out: &mut [f32]) {
    out.fill(0.0);
    for rank in 0..ranks {
        let seed = seed(recipe.operation, rank);
        for (offset, value) in out.iter_mut().enumerate() {
            *value += recipe.value(seed, rank, (first + offset) as u32) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(operation: CollectiveOperation) -> Recipe {
        Recipe::of(&Exchange::new(operation, 64, 4))
    }

    #[test]
    fn values_are_small_integers_that_differ_by_rank_place_and_operation() {
        let take = |operation, rank, first| {
            let mut out = [0.0f32; 64];
            fill(recipe(operation), rank, first, &mut out);
            assert!(out.iter().all(|v| v.fract() == 0.0 && (0.0..=255.0).contains(v)));
            out
        };
        let base = take(CollectiveOperation::AllReduce, 0, 0);
        assert!(base.iter().all(|v| *v <= 7.0));
        assert_eq!(base[8..], take(CollectiveOperation::AllReduce, 0, 8)[..56]);
        for other in [
            take(CollectiveOperation::AllReduce, 1, 0),
            take(CollectiveOperation::AllReduce, 0, 1),
            take(CollectiveOperation::Reduce, 0, 0),
        ] {
            assert!(base.iter().zip(&other).filter(|(a, b)| a != b).count() > 40);
        }
    }

    /// For every type and number of ranks: no sum is larger than the integers the type holds without gaps, and every
    /// rank gives something.
    #[test]
    fn sums_stay_exact_in_every_type() {
        for exact in [8, 16, 256, 2048] {
            for ranks in [1, 2, 3, 8, 16, 37, 300] {
                let exchange = Exchange { exact, ..Exchange::new(CollectiveOperation::AllReduce, 512, ranks) };
                let (recipe, mut sum, mut own) = (Recipe::of(&exchange), [0.0; 512], [0.0; 512]);
                fill_sum(recipe, ranks, 0, &mut sum);
                assert!(sum.iter().all(|v| *v <= exact as f32), "{exact} {ranks}");
                for rank in 0..ranks {
                    fill(recipe, rank, 0, &mut own);
                    assert!(own.iter().any(|v| *v > 0.0), "{exact} {ranks}: rank {rank} gives nothing");
                }
                let moved = Exchange { exact, ..Exchange::new(CollectiveOperation::AllGather, 512, ranks) };
                fill(Recipe::of(&moved), 0, 0, &mut own);
                assert!(own.iter().all(|v| *v < exact as f32));
            }
        }
    }
}
