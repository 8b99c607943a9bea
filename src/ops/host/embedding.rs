//! Token and position embedding, and their gradient.

use super::simd::vectorized;
use super::team::Team;
use crate::ops::Embedding;
use rayon::prelude::*;

/// out\[r\] = table\[token\[r\]\] + positions\[r mod sequence\]
pub fn forward(team: Team, s: Embedding, out: &mut [f32], tokens: &[u32], table: &[f32], positions: &[f32]) {
    let hidden = s.hidden.max(1);
    let rows = team.rows_per_piece(s.rows, 3 * hidden);
    out.par_chunks_mut(rows * hidden).enumerate().for_each(|(piece, out)| {
        vectorized!(|| {
            for (at, out) in out.chunks_exact_mut(hidden).enumerate() {
                let row = piece * rows + at;
                let word = &table[tokens[row] as usize * hidden..][..hidden];
                let place = &positions[row % s.sequence * hidden..][..hidden];
                out.iter_mut().zip(word).zip(place).for_each(|((out, w), p)| *out = w + p);
            }
        });
    });
}

/// dtable\[token\[r\]\] += dout\[r\], dpositions\[r mod sequence\] += dout\[r\].
pub fn to_weights(team: Team, s: Embedding, dtable: &mut [f32], dpositions: &mut [f32], dout: &[f32], tokens: &[u32]) {
    scatter(team, s, dtable, dout, |row| tokens[row] as usize);
    scatter(team, s, dpositions, dout, |row| row % s.sequence);
}

/// sums\[target(r)\] += dout\[r\]. Threads split the targets and each looks at every row: a token that occurs twice is
/// added by one thread in row order, so the sum is the same every time.
fn scatter(team: Team, s: Embedding, sums: &mut [f32], dout: &[f32], target: impl Fn(usize) -> usize + Sync) {
    let hidden = s.hidden.max(1);
    let targets = sums.len() / hidden;
    let small = team.rows_per_piece(s.rows, 3 * hidden) >= s.rows;
    let share = if small { targets } else { targets.div_ceil(team.threads) }.max(1);
    sums.par_chunks_mut(share * hidden).enumerate().for_each(|(piece, sums)| {
        let (first, held) = (piece * share, sums.len() / hidden);
        vectorized!(|| {
            for (row, dout) in dout.chunks_exact(hidden).enumerate() {
                let at = target(row).wrapping_sub(first);
                if at < held {
                    sums[at * hidden..][..hidden].iter_mut().zip(dout).for_each(|(sum, v)| *sum += v);
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    #[test]
    fn lookup_and_gradient_agree_with_plain_loops() {
        for mut r in shapes(50) {
            let (sequence, hidden, vocabulary) = (1 + r.below(40), 1 + r.below(200), 1 + r.below(60));
            let s = Embedding { rows: sequence * (1 + r.below(4)), sequence, vocabulary, hidden };
            let tokens: Vec<u32> = (0..s.rows).map(|_| r.below(vocabulary) as u32).collect();
            let (table, positions) = (random(&mut r, vocabulary * hidden), random(&mut r, sequence * hidden));
            let mut out = vec![f32::NAN; s.rows * hidden];
            forward(TEAM, s, &mut out, &tokens, &table, &positions);
            let dout = random(&mut r, s.rows * hidden);
            let (mut dtable, mut dpositions) = (table.clone(), positions.clone());
            let (mut dtable_exact, mut dpositions_exact) = (wide(&table), wide(&positions));
            to_weights(TEAM, s, &mut dtable, &mut dpositions, &dout, &tokens);

            let mut exact = Vec::new();
            for (at, &d) in dout.iter().enumerate() {
                let (row, c) = (at / hidden, at % hidden);
                let (word, place) = (tokens[row] as usize * hidden + c, row % sequence * hidden + c);
                exact.push(f64::from(table[word]) + f64::from(positions[place]));
                dtable_exact[word] += f64::from(d);
                dpositions_exact[place] += f64::from(d);
            }
            close("out", &out, &exact, 1e-6);
            close("dtable", &dtable, &dtable_exact, 1e-5);
            close("dpositions", &dpositions, &dpositions_exact, 1e-5);
        }
    }
}
