//! Softmax cross-entropy, loss and gradient in one visit of each row.

use super::simd::{exp, max, vectorized};
use super::team::Team;
use crate::ops::Rows;
use rayon::prelude::*;

/// losses\[r\] = ln Σ e^(logit − most) + most − logit\[target\]; the row becomes (softmax − onehot)/rows.
pub fn loss_and_gradient(team: Team, s: Rows, losses: &mut [f32], logits: &mut [f32], targets: &[u32]) {
    let cols = s.cols.max(1);
    let rows = team.rows_per_piece(s.rows, 4 * cols);
    let pieces = (logits.par_chunks_mut(rows * cols), losses.par_chunks_mut(rows), targets.par_chunks(rows));
    let share = 1.0 / s.rows.max(1) as f32;
    pieces.into_par_iter().for_each(|(logits, losses, targets)| {
        for ((row, loss), &target) in logits.chunks_exact_mut(cols).zip(losses).zip(targets) {
            *loss = vectorized!(|| softmax_row(row, target as usize, share));
        }
    });
}

#[inline(always)]
fn softmax_row(row: &mut [f32], target: usize, share: f32) -> f32 {
    let most = max(row);
    let wanted = row[target];
    let mut partial = [0.0f32; super::simd::LANES];
    let (body, tail) = row.as_chunks_mut::<{ super::simd::LANES }>();
    for chunk in body {
        for (p, x) in partial.iter_mut().zip(chunk) {
            *x = exp(*x - most);
            *p += *x;
        }
    }
    for (p, x) in partial.iter_mut().zip(tail) {
        *x = exp(*x - most);
        *p += *x;
    }
    let total = super::simd::tree(partial);
    let scale = share / total;
    row.iter_mut().for_each(|x| *x *= scale);
    row[target] -= share;
    total.ln() + (most - wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    #[test]
    fn loss_and_gradient_agree_with_plain_loops() {
        for mut r in shapes(60) {
            let s = Rows { rows: 1 + r.below(40), cols: 1 + r.below(3000) };
            let logits: Vec<f32> = random(&mut r, s.len()).iter().map(|v| 20.0 * v).collect();
            let targets: Vec<u32> = (0..s.rows).map(|_| r.below(s.cols) as u32).collect();
            let (mut losses, mut gradient) = (vec![f32::NAN; s.rows], logits.clone());
            loss_and_gradient(TEAM, s, &mut losses, &mut gradient, &targets);
            let (mut losses_exact, mut exact) = (Vec::new(), Vec::new());
            for (row, &target) in wide(&logits).chunks(s.cols).zip(&targets) {
                let most = row.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = row.iter().map(|v| (v - most).exp()).sum();
                losses_exact.push(total.ln() + most - row[target as usize]);
                exact.extend(row.iter().enumerate().map(|(c, v)| {
                    ((v - most).exp() / total - f64::from(u8::from(c == target as usize))) / s.rows as f64
                }));
            }
            // A one-word vocabulary has loss 0 and gradient 0, both exactly.
            close("losses", &losses, &losses_exact, 1e-5);
            close("gradient", &gradient, &exact, 1e-5);
        }
    }

    #[test]
    fn a_nan_logit_shows_in_the_loss() {
        for at in 0..3 {
            let (mut losses, mut logits) = ([0.0], [1.0, 2.0, 3.0]);
            logits[at] = f32::NAN;
            loss_and_gradient(TEAM, Rows { rows: 1, cols: 3 }, &mut losses, &mut logits, &[1]);
            assert!(losses[0].is_nan() && logits.iter().all(|v| v.is_nan()));
        }
    }
}
