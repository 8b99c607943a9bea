//! The threads an operation may use, and how it is cut into pieces for them.

use rayon::prelude::*;

/// Pieces smaller than this many floats moved (about 4 µs of copying) cost more to hand over than they save.
const SMALLEST_PIECE: usize = 16 * 1024;
/// Pieces per thread: enough that a thread delayed by the system holds the others up by a quarter of its share only.
const PIECES_PER_THREAD: usize = 4;

/// Passed to every kernel; inside [`super::Host::run`] rayon's current pool is the host's own.
#[derive(Debug, Clone, Copy)]
pub struct Team {
    pub threads: usize,
}

impl Team {
    /// Rows per piece of a row-wise pass whose rows cost as much as moving `weight` floats. One piece (and so no
    /// forking at all) when the whole is small.
    pub fn rows_per_piece(self, rows: usize, weight: usize) -> usize {
        let smallest = SMALLEST_PIECE.div_ceil(weight.max(1));
        if self.threads == 1 || rows <= 2 * smallest {
            return rows.max(1);
        }
        rows.div_ceil(self.threads * PIECES_PER_THREAD).max(smallest)
    }

    /// Elements per piece of an element-wise pass that moves `weight` floats an element; whole cache lines.
    pub fn elements_per_piece(self, len: usize, weight: usize) -> usize {
        self.rows_per_piece(len, weight).next_multiple_of(64)
    }

    /// y = value
    pub fn fill(self, y: &mut [f32], value: f32) {
        y.par_chunks_mut(self.elements_per_piece(y.len(), 1)).for_each(|y| y.fill(value));
    }

    /// `body(piece of y, piece of a)` over all of both.
    pub fn map1(self, y: &mut [f32], a: &[f32], body: impl Fn(&mut [f32], &[f32]) + Sync) {
        let piece = self.elements_per_piece(y.len(), 2);
        (y.par_chunks_mut(piece), a.par_chunks(piece)).into_par_iter().for_each(|(y, a)| body(y, a));
    }

    /// `body(piece of y, piece of a, piece of b)` over all of them.
    pub fn map2(self, y: &mut [f32], a: &[f32], b: &[f32], body: impl Fn(&mut [f32], &[f32], &[f32]) + Sync) {
        let piece = self.elements_per_piece(y.len(), 3);
        (y.par_chunks_mut(piece), a.par_chunks(piece), b.par_chunks(piece))
            .into_par_iter()
            .for_each(|(y, a, b)| body(y, a, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_work_stays_in_one_piece_and_large_work_is_cut_evenly() {
        let team = Team { threads: 4 };
        assert_eq!(team.rows_per_piece(8, 1024), 8);
        assert_eq!(team.rows_per_piece(0, 0), 1);
        assert_eq!(team.rows_per_piece(4096, 4096), 256);
        assert_eq!(Team { threads: 1 }.rows_per_piece(1 << 20, 4096), 1 << 20);
        assert_eq!(team.elements_per_piece(1 << 20, 3) % 64, 0);
    }

    #[test]
    fn every_element_is_visited_once() {
        for len in [0, 1, 63, 70_000, 300_001] {
            let a: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let mut y = vec![0.0; len];
            Team { threads: 3 }.map2(&mut y, &a, &a, |y, a, b| {
                y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y += a + b);
            });
            assert!(y.iter().zip(&a).all(|(y, a)| *y == 2.0 * a));
        }
    }
}
