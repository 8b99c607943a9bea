//! Global average pooling over the positions of an image, channels last.

use super::simd::vectorized;
use super::team::Team;
use crate::ops::Pool;
use rayon::prelude::*;

/// y\[n, c\] = mean over positions of x\[n, p, c\]
pub fn forward(team: Team, s: Pool, y: &mut [f32], x: &[f32]) {
    let (channels, image) = (s.channels.max(1), (s.positions * s.channels).max(1));
    let images = team.rows_per_piece(s.batch, image);
    let scale = 1.0 / s.positions as f32;
    (y.par_chunks_mut(images * channels), x.par_chunks(images * image)).into_par_iter().for_each(|(y, x)| {
        vectorized!(|| {
            for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(image)) {
                y.fill(0.0);
                for x in x.chunks_exact(channels) {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
                }
                y.iter_mut().for_each(|y| *y *= scale);
            }
        });
    });
}

/// dx\[n, p, c\] = dy\[n, c\] / positions
pub fn backward(team: Team, s: Pool, dx: &mut [f32], dy: &[f32]) {
    let (channels, image) = (s.channels.max(1), (s.positions * s.channels).max(1));
    let images = team.rows_per_piece(s.batch, image);
    let scale = 1.0 / s.positions as f32;
    (dx.par_chunks_mut(images * image), dy.par_chunks(images * channels)).into_par_iter().for_each(|(dx, dy)| {
        vectorized!(|| {
            for (dx, dy) in dx.chunks_exact_mut(image).zip(dy.chunks_exact(channels)) {
                for dx in dx.chunks_exact_mut(channels) {
                    dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = dy * scale);
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes};

    #[test]
    fn pooling_and_its_gradient_agree_with_plain_loops() {
        for mut r in shapes(50) {
            let s = Pool { batch: 1 + r.below(20), positions: 1 + r.below(70), channels: 1 + r.below(100) };
            let x = random(&mut r, s.batch * s.positions * s.channels);
            let dy = random(&mut r, s.batch * s.channels);
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            forward(TEAM, s, &mut y, &x);
            backward(TEAM, s, &mut dx, &dy);
            let place = |at: usize| at / (s.positions * s.channels) * s.channels + at % s.channels;
            let mut exact = vec![0.0; y.len()];
            x.iter().enumerate().for_each(|(at, &v)| exact[place(at)] += f64::from(v) / s.positions as f64);
            let gradient: Vec<f64> = (0..x.len()).map(|at| f64::from(dy[place(at)]) / s.positions as f64).collect();
            close("y", &y, &exact, 1e-5);
            close("dx", &dx, &gradient, 1e-6);
        }
    }
}
