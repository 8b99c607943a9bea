//! Group normalisation (Wu & He, arXiv 1803.08494) over N×positions×C, affine per channel, and its gradients.
//!
//! Channels last and groups may be narrow, so sums run down the positions channel by channel (that vectorises whatever
//! the group's width) and are joined per group at the end. Threads split the images, for the parameters' gradients the
//! channels.

use super::columns;
use super::simd::vectorized;
use super::team::Team;
use crate::ops::{GROUPNORM_EPSILON, GroupNorm};
use rayon::prelude::*;

/// y = (x − mean)·rstd·gamma + beta, mean and rstd per (image, group)
pub fn forward(
    team: Team,
    s: GroupNorm,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
) {
    let image = s.positions * s.channels;
    let images = team.rows_per_piece(s.batch, 2 * image);
    let pieces = (
        y.par_chunks_mut(images * image),
        x.par_chunks(images * image),
        mean.par_chunks_mut(images * s.groups),
        rstd.par_chunks_mut(images * s.groups),
    );
    pieces.into_par_iter().for_each(|(y, x, mean, rstd)| {
        let (mut centre, mut scale) = (vec![0.0f32; s.channels], vec![0.0f32; s.channels]);
        let images = y.chunks_exact_mut(image).zip(x.chunks_exact(image));
        let stats = mean.chunks_exact_mut(s.groups).zip(rstd.chunks_exact_mut(s.groups));
        for ((y, x), (mean, rstd)) in images.zip(stats) {
            vectorized!(|| {
                statistics(s, x, mean, rstd, &mut centre, &mut scale);
                scale.iter_mut().zip(gamma).for_each(|(a, g)| *a *= g);
                for (y, x) in y.chunks_exact_mut(s.channels).zip(x.chunks_exact(s.channels)) {
                    for ((((y, x), m), a), b) in y.iter_mut().zip(x).zip(&centre).zip(&scale).zip(beta) {
                        *y = (x - m).mul_add(*a, *b);
                    }
                }
            });
        }
    });
}

/// Mean and reciprocal deviation of each group of one image, and the same spread over the channels.
#[inline(always)]
fn statistics(s: GroupNorm, x: &[f32], mean: &mut [f32], rstd: &mut [f32], centre: &mut [f32], scale: &mut [f32]) {
    let width = s.channels / s.groups;
    let share = 1.0 / (s.positions * width) as f32;
    scale.fill(0.0);
    for x in x.chunks_exact(s.channels) {
        scale.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
    }
    for ((mean, sums), centre) in mean.iter_mut().zip(scale.chunks(width)).zip(centre.chunks_mut(width)) {
        *mean = sums.iter().sum::<f32>() * share;
        centre.fill(*mean);
    }
    scale.fill(0.0);
    for x in x.chunks_exact(s.channels) {
        for ((sum, x), m) in scale.iter_mut().zip(x).zip(&*centre) {
            *sum += (x - m) * (x - m);
        }
    }
    for (rstd, scale) in rstd.iter_mut().zip(scale.chunks_mut(width)) {
        *rstd = 1.0 / (scale.iter().sum::<f32>() * share + GROUPNORM_EPSILON as f32).sqrt();
        scale.fill(*rstd);
    }
}

/// dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) per (image, group), g = dy·gamma, x̂ = (x − mean)·rstd.
pub fn to_inputs(
    team: Team,
    s: GroupNorm,
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let image = s.positions * s.channels;
    let images = team.rows_per_piece(s.batch, 3 * image);
    let pieces = (
        dx.par_chunks_mut(images * image),
        dy.par_chunks(images * image),
        x.par_chunks(images * image),
        mean.par_chunks(images * s.groups),
        rstd.par_chunks(images * s.groups),
    );
    pieces.into_par_iter().for_each(|(dx, dy, x, mean, rstd)| {
        let mut channels = vec![0.0f32; 4 * s.channels];
        let gradients = dx.chunks_exact_mut(image).zip(dy.chunks_exact(image)).zip(x.chunks_exact(image));
        let stats = mean.chunks_exact(s.groups).zip(rstd.chunks_exact(s.groups));
        for (((dx, dy), x), (mean, rstd)) in gradients.zip(stats) {
            vectorized!(|| image_to_inputs(s, dx, dy, x, gamma, mean, rstd, &mut channels));
        }
    });
}

/// One image; `channels` is scratch for four values per channel.
#[inline(always)]
fn image_to_inputs(
    s: GroupNorm,
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    rstd: &[f32],
    channels: &mut [f32],
) {
    let width = s.channels / s.groups;
    let (centre, rest) = channels.split_at_mut(s.channels);
    let (slope, rest) = rest.split_at_mut(s.channels);
    let (shift, tilt) = rest.split_at_mut(s.channels);
    centre.chunks_mut(width).zip(mean).for_each(|(centre, mean)| centre.fill(*mean));
    shift.fill(0.0);
    tilt.fill(0.0);
    for (dy, x) in dy.chunks_exact(s.channels).zip(x.chunks_exact(s.channels)) {
        for ((((shift, tilt), dy), x), m) in shift.iter_mut().zip(&mut *tilt).zip(dy).zip(x).zip(&*centre) {
            *shift += dy;
            *tilt += dy * (x - m);
        }
    }
    let share = 1.0 / (s.positions * width) as f32;
    for (group, &r) in rstd.iter().enumerate() {
        let span = group * width..(group + 1) * width;
        let weigh = |sums: &[f32]| sums.iter().zip(&gamma[span.clone()]).map(|(s, g)| s * g).sum::<f32>() * share;
        let (mean_g, mean_gx) = (weigh(&shift[span.clone()]), weigh(&tilt[span.clone()]));
        slope[span.clone()].iter_mut().zip(&gamma[span.clone()]).for_each(|(slope, g)| *slope = r * g);
        shift[span.clone()].fill(r * mean_g);
        tilt[span].fill(r * r * r * mean_gx);
    }
    for ((dx, dy), x) in
        dx.chunks_exact_mut(s.channels).zip(dy.chunks_exact(s.channels)).zip(x.chunks_exact(s.channels))
    {
        for c in 0..s.channels {
            dx[c] = dy[c] * slope[c] - shift[c] - (x[c] - centre[c]) * tilt[c];
        }
    }
}

/// dgamma += Σ dy·x̂, dbeta += Σ dy over images and positions.
pub fn to_weights(
    team: Team,
    s: GroupNorm,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    dy: &[f32],
    x: &[f32],
    mean: &[f32],
    rstd: &[f32],
) {
    let image = s.positions * s.channels;
    let width = columns::piece(team, s.batch * s.positions, s.channels, 2);
    (dgamma.par_chunks_mut(width), dbeta.par_chunks_mut(width)).into_par_iter().enumerate().for_each(
        |(piece, (dgamma, dbeta))| {
            let columns = piece * width..piece * width + dgamma.len();
            let mut partial = [[0.0f32; columns::WIDEST]; 2];
            for (at, (dy, x)) in dy.chunks_exact(image).zip(x.chunks_exact(image)).enumerate() {
                let group = |c: usize| at * s.groups + c * s.groups / s.channels;
                let [product, sum] = &mut partial;
                let (product, sum) = (&mut product[..dgamma.len()], &mut sum[..dgamma.len()]);
                vectorized!(|| image_sums(s.channels, product, sum, dy, x, columns.start, |c| mean[group(c)]));
                for (c, (product, sum)) in columns.clone().zip(product.iter().zip(&*sum)) {
                    dgamma[c - columns.start] += product * rstd[group(c)];
                    dbeta[c - columns.start] += sum;
                }
            }
        },
    );
}

/// product\[c\] = Σ dy·(x − mean), sum\[c\] = Σ dy over one image's positions, for channels from `first` on.
#[inline(always)]
fn image_sums(
    channels: usize,
    product: &mut [f32],
    sum: &mut [f32],
    dy: &[f32],
    x: &[f32],
    first: usize,
    mean: impl Fn(usize) -> f32,
) {
    let mut centre = [0.0f32; columns::WIDEST];
    let centre = &mut centre[..sum.len()];
    centre.iter_mut().enumerate().for_each(|(c, m)| *m = mean(first + c));
    product.fill(0.0);
    sum.fill(0.0);
    let span = first..first + sum.len();
    for (dy, x) in dy.chunks_exact(channels).zip(x.chunks_exact(channels)) {
        let pairs = dy[span.clone()].iter().zip(&x[span.clone()]);
        for (((product, sum), (dy, x)), m) in product.iter_mut().zip(&mut *sum).zip(pairs).zip(&*centre) {
            *product += dy * (x - m);
            *sum += dy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    #[test]
    fn forward_and_gradients_agree_with_plain_loops() {
        for mut r in shapes(60) {
            let (groups, width) = (1 + r.below(8), 1 + r.below(9));
            let s = GroupNorm { batch: 1 + r.below(6), positions: 2 + r.below(90), channels: groups * width, groups };
            let x: Vec<f32> = random(&mut r, s.len()).iter().map(|v| v + 3.0).collect();
            let (gamma, beta, dy) = (random(&mut r, s.channels), random(&mut r, s.channels), random(&mut r, s.len()));
            let (mut mean, mut rstd) = (vec![f32::NAN; s.stats_len()], vec![f32::NAN; s.stats_len()]);
            let (mut y, mut dx) = (vec![f32::NAN; s.len()], vec![f32::NAN; s.len()]);
            forward(TEAM, s, &mut y, &mut mean, &mut rstd, &x, &gamma, &beta);
            to_inputs(TEAM, s, &mut dx, &dy, &x, &gamma, &mean, &rstd);
            let (mut dgamma, mut dbeta) = (random(&mut r, s.channels), random(&mut r, s.channels));
            let (mut dgamma_exact, mut dbeta_exact) = (wide(&dgamma), wide(&dbeta));
            to_weights(TEAM, s, &mut dgamma, &mut dbeta, &dy, &x, &mean, &rstd);

            let (mut ye, mut dxe) = (vec![0.0; s.len()], vec![0.0; s.len()]);
            let (mut means, mut rstds) = (Vec::new(), Vec::new());
            for (image, group) in (0..s.batch).flat_map(|i| (0..groups).map(move |g| (i, g))) {
                let members: Vec<(usize, usize)> = (0..s.positions * width)
                    .map(|k| (k / width, group * width + k % width))
                    .map(|(p, c)| ((image * s.positions + p) * s.channels + c, c))
                    .collect();
                let count = members.len() as f64;
                let m = members.iter().map(|&(at, _)| f64::from(x[at])).sum::<f64>() / count;
                let v = members.iter().map(|&(at, _)| (f64::from(x[at]) - m).powi(2)).sum::<f64>() / count;
                let rs = 1.0 / (v + 1e-5).sqrt();
                let g = |at: usize, c: usize| f64::from(dy[at]) * f64::from(gamma[c]);
                let n = |at: usize| (f64::from(x[at]) - m) * rs;
                let mean_g = members.iter().map(|&(at, c)| g(at, c)).sum::<f64>() / count;
                let mean_gn = members.iter().map(|&(at, c)| g(at, c) * n(at)).sum::<f64>() / count;
                for (at, c) in members {
                    ye[at] = n(at) * f64::from(gamma[c]) + f64::from(beta[c]);
                    dxe[at] = rs * (g(at, c) - mean_g - n(at) * mean_gn);
                    dgamma_exact[c] += f64::from(dy[at]) * n(at);
                    dbeta_exact[c] += f64::from(dy[at]);
                }
                means.push(m);
                rstds.push(rs);
            }
            close("y", &y, &ye, 1e-5);
            close("mean", &mean, &means, 1e-6);
            close("rstd", &rstd, &rstds, 1e-5);
            close("dx", &dx, &dxe, 1e-5);
            close("dgamma", &dgamma, &dgamma_exact, 1e-5);
            close("dbeta", &dbeta, &dbeta_exact, 1e-5);
        }
    }
}
