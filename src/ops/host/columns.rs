//! Sums over the rows of a matrix, column by column: the gradients of biases and of normalisations' parameters.
//!
//! Threads split the columns, not the rows, so that no partial sums need memory of their own. Rows are added in groups
//! of [`GROUP`] first: the error then grows with the number of groups, not of rows.

use super::simd::vectorized;
use super::team::Team;
use rayon::prelude::*;

pub const GROUP: usize = 64;
/// Columns handled together: their partial sums stay in the first-level cache.
pub const WIDEST: usize = 512;
/// Two cache lines: below this a thread would fetch mostly what its neighbour needs.
const NARROWEST: usize = 32;

/// Columns per piece for `rows` × `cols` elements of `weight` floats each.
pub fn piece(team: Team, rows: usize, cols: usize, weight: usize) -> usize {
    team.rows_per_piece(cols, rows * weight).next_multiple_of(NARROWEST).min(WIDEST)
}

/// sums\[c\] += Σᵣ a\[r, c\]
pub fn add_sums(team: Team, sums: &mut [f32], a: &[f32]) {
    let cols = sums.len().max(1);
    let width = piece(team, a.len() / cols, cols, 1);
    sums.par_chunks_mut(width).enumerate().for_each(|(index, sums)| {
        vectorized!(|| {
            let (first, width) = (index * width, sums.len());
            let mut partial = [0.0f32; WIDEST];
            let partial = &mut partial[..width];
            for group in a.chunks(GROUP * cols) {
                partial.fill(0.0);
                for row in group.chunks_exact(cols) {
                    partial.iter_mut().zip(&row[first..first + width]).for_each(|(p, a)| *p += a);
                }
                sums.iter_mut().zip(&*partial).for_each(|(s, p)| *s += p);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    #[test]
    fn column_sums_agree_with_plain_loops_and_accumulate() {
        for mut r in shapes(60) {
            let (rows, cols) = (1 + r.below(400), 1 + r.below(1200));
            let (a, mut sums) = (random(&mut r, rows * cols), random(&mut r, cols));
            let mut exact = wide(&sums);
            a.iter().enumerate().for_each(|(i, &v)| exact[i % cols] += f64::from(v));
            add_sums(TEAM, &mut sums, &a);
            close("sums", &sums, &exact, 1e-5);
        }
    }
}
