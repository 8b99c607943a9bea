//! Dropout with a mask that is worked out again instead of kept.

use super::simd::vectorized;
use super::team::Team;
use crate::ops::Dropout;
use rayon::prelude::*;

/// Counters worked on at once: two registers of AVX-512, four of AVX2.
const LANES: usize = 32;
/// Elements they serve.
const BLOCK: usize = 4 * LANES;
/// A word of the generator costs as much as moving this many floats.
const WEIGHT: usize = 8;

/// y = x·scale where the element's word is at least `threshold`, else 0 (not a product: 0·∞ would be NaN).
pub fn forward(team: Team, y: &mut [f32], x: &[f32], dropout: Dropout, (threshold, scale): (u32, f32)) {
    let piece = team.elements_per_piece(y.len(), WEIGHT).next_multiple_of(BLOCK);
    (y.par_chunks_mut(piece), x.par_chunks(piece)).into_par_iter().enumerate().for_each(|(index, (y, x))| {
        let first = (index * piece / 4) as u64;
        vectorized!(|| {
            for (block, (y, x)) in y.chunks_mut(BLOCK).zip(x.chunks(BLOCK)).enumerate() {
                let words = dropout.words::<LANES>(first + (block * LANES) as u64);
                for (at, (y, x)) in y.iter_mut().zip(x).enumerate() {
                    *y = if words[at % 4][at / 4] >= threshold { x * scale } else { 0.0 };
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::TEAM;

    /// Element by element from the generator, whatever the cut into pieces, and an infinite element that is dropped is 0.
    #[test]
    fn every_element_has_the_word_of_its_index() {
        for len in [1, 3, 4, 127, 128, 129, 5000, 300_001] {
            let dropout = Dropout { probability: 0.3, seed: 0x1234_5678_9abc_def0, offset: u64::MAX - 7 };
            let (threshold, scale) = dropout.numbers().unwrap();
            let x: Vec<f32> = (0..len).map(|i| if i % 11 == 0 { f32::INFINITY } else { 1.0 + i as f32 }).collect();
            let mut y = vec![f32::NAN; len];
            forward(TEAM, &mut y, &x, dropout, (threshold, scale));
            for (i, (&y, &x)) in y.iter().zip(&x).enumerate() {
                let word = dropout.words::<1>((i / 4) as u64)[i % 4][0];
                assert_eq!(y, if word >= threshold { x * scale } else { 0.0 }, "element {i} of {len}");
            }
        }
    }
}
