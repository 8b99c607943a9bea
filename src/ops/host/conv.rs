//! 2-D convolution as products over the unfolded input (im2col; Chellapilla et al. 2006), channels last.

use super::product;
use super::simd::vectorized;
use super::team::Team;
use crate::ops::{Conv, Linear};
use rayon::prelude::*;

/// As a linear layer: one row per output position, one column per element of its receptive field.
const fn linear(s: Conv) -> Linear {
    Linear::new(s.batch * s.out_height() * s.out_width(), s.patch(), s.out_channels)
}

/// A kernel of one pixel over all pixels: the input is its own unfolding.
const fn is_pointwise(s: Conv) -> bool {
    s.kernel == 1 && s.stride == 1 && s.padding == 0
}

/// y = unfold(x)·Wᵀ
pub fn forward(team: Team, s: Conv, y: &mut [f32], x: &[f32], w: &[f32], workspace: &mut [f32]) {
    if is_pointwise(s) {
        return product::forward(team, linear(s), y, x, w);
    }
    unfold(team, s, workspace, x);
    product::forward(team, linear(s), y, workspace, w);
}

/// dx = fold(dy·W)
pub fn to_inputs(team: Team, s: Conv, dx: &mut [f32], dy: &[f32], w: &[f32], workspace: &mut [f32]) {
    if is_pointwise(s) {
        return product::to_inputs(team, linear(s), dx, dy, w);
    }
    product::to_inputs(team, linear(s), workspace, dy, w);
    fold(team, s, dx, workspace);
}

/// dw += dyᵀ·unfold(x)
pub fn to_weights(team: Team, s: Conv, dw: &mut [f32], dy: &[f32], x: &[f32], workspace: &mut [f32]) {
    let shape = linear(s).accumulating();
    if is_pointwise(s) {
        return product::to_weights(team, shape, dw, dy, x);
    }
    unfold(team, s, workspace, x);
    product::to_weights(team, shape, dw, dy, workspace);
}

/// The input row that kernel row `tap` sees at output row `out`; `None` in the padding. The same holds for columns.
#[inline(always)]
fn source(s: Conv, out: usize, tap: usize, extent: usize) -> Option<usize> {
    (out * s.stride + tap).checked_sub(s.padding).filter(|&at| at < extent)
}

/// patches\[(n, oh, ow), (r, c, channel)\] = x\[n, oh·stride + r − padding, ow·stride + c − padding, channel\], 0 outside.
fn unfold(team: Team, s: Conv, patches: &mut [f32], x: &[f32]) {
    let (channels, width) = (s.in_channels, s.out_width());
    let line = width * s.patch();
    let lines = team.rows_per_piece(s.batch * s.out_height(), 2 * line);
    patches.par_chunks_mut((lines * line).max(1)).enumerate().for_each(|(piece, patches)| {
        for (at, patches) in patches.chunks_exact_mut(line).enumerate() {
            let (image, out_row) = ((piece * lines + at) / s.out_height(), (piece * lines + at) % s.out_height());
            for (place, field) in patches.chunks_exact_mut(channels).enumerate() {
                let (out_col, row, col) =
                    (place / (s.kernel * s.kernel), place / s.kernel % s.kernel, place % s.kernel);
                match (source(s, out_row, row, s.height), source(s, out_col, col, s.width)) {
                    (Some(h), Some(w)) => {
                        field.copy_from_slice(&x[((image * s.height + h) * s.width + w) * channels..][..channels]);
                    }
                    _ => field.fill(0.0),
                }
            }
        }
    });
}

/// The reverse: every element of x is the sum of the patches' elements that came from it. Threads split the images.
fn fold(team: Team, s: Conv, x: &mut [f32], patches: &[f32]) {
    let (channels, image_len) = (s.in_channels, s.height * s.width * s.in_channels);
    let patches_len = s.out_height() * s.out_width() * s.patch();
    let images = team.rows_per_piece(s.batch, 2 * patches_len);
    x.par_chunks_mut((images * image_len).max(1)).zip(patches.par_chunks((images * patches_len).max(1))).for_each(
        |(x, patches)| {
            vectorized!(|| {
                x.fill(0.0);
                for (x, patches) in x.chunks_exact_mut(image_len).zip(patches.chunks_exact(patches_len)) {
                    for (place, field) in patches.chunks_exact(channels).enumerate() {
                        let (tap, position) = (place % (s.kernel * s.kernel), place / (s.kernel * s.kernel));
                        let h = source(s, position / s.out_width(), tap / s.kernel, s.height);
                        let w = source(s, position % s.out_width(), tap % s.kernel, s.width);
                        if let (Some(h), Some(w)) = (h, w) {
                            let x = &mut x[(h * s.width + w) * channels..][..channels];
                            x.iter_mut().zip(field).for_each(|(x, f)| *x += f);
                        }
                    }
                }
            });
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    /// Straight from the definition: every (output, tap, channel) with its input, in f64.
    fn each(s: Conv, mut visit: impl FnMut(usize, usize, usize)) {
        let (oh, ow) = (s.out_height(), s.out_width());
        for at in 0..s.batch * oh * ow * s.patch() {
            let (position, tap) = (at / s.patch(), at % s.patch());
            let (n, h, w) = (position / (oh * ow), position / ow % oh, position % ow);
            let (r, c, channel) =
                (tap / (s.kernel * s.in_channels), tap / s.in_channels % s.kernel, tap % s.in_channels);
            let (y, x) = (h * s.stride + r, w * s.stride + c);
            if (s.padding..s.padding + s.height).contains(&y) && (s.padding..s.padding + s.width).contains(&x) {
                let pixel = (n * s.height + y - s.padding) * s.width + x - s.padding;
                visit(position, tap, pixel * s.in_channels + channel);
            }
        }
    }

    #[test]
    fn the_three_convolutions_agree_with_plain_loops() {
        for mut r in shapes(50) {
            let kernel = [1, 3, 5][r.below(3)];
            let s = Conv {
                batch: 1 + r.below(4),
                height: kernel + r.below(9),
                width: kernel + r.below(9),
                in_channels: 1 + r.below(12),
                out_channels: 1 + r.below(12),
                kernel,
                stride: 1 + r.below(2),
                padding: r.below(1 + kernel / 2),
            };
            let (x, w, dy) = (random(&mut r, s.in_len()), random(&mut r, s.weight_len()), random(&mut r, s.out_len()));
            let mut workspace = vec![f32::NAN; s.workspace_len()];
            let (mut y, mut dx) = (vec![f32::NAN; s.out_len()], vec![f32::NAN; s.in_len()]);
            let mut dw = random(&mut r, s.weight_len());
            let (mut ye, mut dxe, mut dwe) = (vec![0.0; s.out_len()], vec![0.0; s.in_len()], wide(&dw));
            forward(TEAM, s, &mut y, &x, &w, &mut workspace);
            to_inputs(TEAM, s, &mut dx, &dy, &w, &mut workspace);
            to_weights(TEAM, s, &mut dw, &dy, &x, &mut workspace);
            let k = s.out_channels;
            each(s, |position, tap, pixel| {
                for out in 0..k {
                    let (x, w) = (f64::from(x[pixel]), f64::from(w[out * s.patch() + tap]));
                    let dy = f64::from(dy[position * k + out]);
                    ye[position * k + out] += x * w;
                    dxe[pixel] += dy * w;
                    dwe[out * s.patch() + tap] += dy * x;
                }
            });
            close("y", &y, &ye, 1e-5);
            close("dx", &dx, &dxe, 1e-5);
            close("dw", &dw, &dwe, 1e-5);
        }
    }
}
