//! Convolution on the GPU: which grid a shape gets, and the launches. The kernels and their contract are in
//! `cuda/conv.cu`; they address the unfolded input where it lies, so the workspace of the vocabulary stays unused.

use super::launch::{Arg, check, int};
use super::{Cuda, CudaBuffer, Geometry};
use crate::ops::{Conv, DType};
use crate::{Error, Result};

/// Side of the tile of the result a block computes (`kTile`).
const TILE: usize = 64;
const THREADS: u32 = 128;
/// Below it every index of the kernels fits 32 bits with room to spare (`kFar`).
const MOST: usize = 1 << 29;
/// The largest grid in y and z.
const MOST_BLOCKS: usize = 65_535;
/// Steps a split of the positions is worth its own block.
const LEAST_STEPS: usize = 4;

/// The launch of the forward kernel: a block for each 64 × 64 tile of output positions × output channels.
pub fn forward_geometry(shape: Conv) -> Geometry {
    tiles(positions(shape), shape.out_channels, 1)
}

/// The launch of the kernel to inputs: a block for each 64 × 64 tile of pixels × input channels, in one plane of the
/// grid for each pair of remainders by the stride.
pub fn to_inputs_geometry(shape: Conv) -> Geometry {
    let pixels = shape.batch * shape.height.div_ceil(shape.stride) * shape.width.div_ceil(shape.stride);
    tiles(pixels, shape.in_channels, shape.stride * shape.stride)
}

fn tiles(rows: usize, cols: usize, planes: usize) -> Geometry {
    let grid = [rows.div_ceil(TILE) as u32, cols.div_ceil(TILE) as u32, planes as u32];
    Geometry::new(grid, [THREADS, 1, 1])
}

fn positions(shape: Conv) -> usize {
    shape.batch * shape.out_height() * shape.out_width()
}

/// The two launches to weights: partial sums over spans of positions, and the sum of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvToWeights {
    /// The launch that writes partial sums of dW, one plane of the grid for each split.
    pub partial: Geometry,
    /// The launch that adds the partial sums of all splits to dW.
    pub reduce: Geometry,
    /// Parts that the output positions are split into, each with a partial sum of its own.
    pub splits: usize,
    /// Steps of the reduction that a split takes, each over 32 positions (16 in f32).
    pub steps: usize,
}

impl ConvToWeights {
    /// Plans the launches for a GPU with this number of SMs: about two blocks an SM, each with enough steps to be worth
    /// its start and its partial sums.
    pub fn new(shape: Conv, dtype: DType, sms: u32) -> Self {
        let depth = 4 * (16 / dtype.bytes());
        let all = positions(shape).div_ceil(depth).max(1);
        let tile = tiles(shape.patch(), shape.out_channels, 1);
        let wanted = (2 * sms as usize / (tile.grid[0] as usize * tile.grid[1] as usize)).max(1);
        let steps = all.div_ceil(wanted.min(MOST_BLOCKS)).max(LEAST_STEPS);
        let splits = all.div_ceil(steps);
        let partial = tiles(shape.patch(), shape.out_channels, splits);
        ConvToWeights { partial, reduce: Geometry::flat(shape.weight_len(), 256), splits, steps }
    }

    /// Elements (fp32) of the partial sums between the two launches.
    pub const fn partial_len(&self, shape: Conv) -> usize {
        self.splits * shape.weight_len()
    }
}

/// The name of a kernel of `cuda/conv.cu`, such as `conv_forward_bf16` for the operation `forward`.
pub fn kernel(operation: &str, dtype: DType) -> String {
    format!("conv_{operation}_{}", dtype.name())
}

/// The shape's ten numbers, in the order of the kernels' arguments.
pub fn numbers(shape: Conv) -> [i32; 10] {
    let Conv { batch, height, width, in_channels, out_channels, kernel, stride, padding } = shape;
    let (out_height, out_width) = (shape.out_height(), shape.out_width());
    [batch, height, width, in_channels, out_channels, kernel, stride, padding, out_height, out_width]
        .map(|number| number as i32)
}

/// Refuses what the kernels cannot index, before anything is computed from it.
fn validate(shape: Conv) -> Result<()> {
    let Conv { batch, height, width, in_channels, out_channels, kernel, stride, padding } = shape;
    let name = || format!("a convolution of {height}×{width} by {kernel}×{kernel}, stride {stride}, padding {padding}");
    let all = [batch, height, width, in_channels, out_channels, kernel, stride, padding];
    if all.iter().any(|&number| number >= MOST) {
        return Err(Error::input(name(), format!("every size must be below {MOST}")));
    }
    if kernel == 0 || stride == 0 || height.min(width) + 2 * padding < kernel {
        return Err(Error::input(name(), "the kernel must fit the padded image, and the stride be at least 1"));
    }
    let product = |numbers: &[usize]| numbers.iter().fold(1, |product: usize, &n| product.saturating_mul(n));
    let sizes = [
        product(&[height, width, in_channels]),
        product(&[shape.out_height(), shape.out_width(), out_channels]),
        product(&[kernel, kernel, in_channels.max(out_channels)]),
        product(&[batch, height, width]),
        product(&[batch, shape.out_height(), shape.out_width()]),
        product(&[out_channels, kernel, kernel, in_channels]),
    ];
    let blocks = [stride.saturating_mul(stride), in_channels.max(out_channels).div_ceil(TILE)];
    if sizes.iter().any(|&size| size >= MOST) || blocks.iter().any(|&blocks| blocks > MOST_BLOCKS) {
        let cure = format!("images, weights and positions must stay below {MOST} elements: choose a smaller batch");
        return Err(Error::input(format!("{} with {in_channels} to {out_channels} channels", name()), cure));
    }
    Ok(())
}

/// Checks the shape and the three tensors of any of the products; false where there is nothing to compute.
fn admit(shape: Conv, x: &CudaBuffer, w: &CudaBuffer, y: &CudaBuffer, dtype: DType) -> Result<bool> {
    validate(shape)?;
    check("conv", "x", x, shape.in_len(), dtype)?;
    check("conv", "w", w, shape.weight_len(), dtype)?;
    check("conv", "y", y, shape.out_len(), dtype)?;
    Ok(shape.in_len() > 0 && shape.out_len() > 0)
}

fn arguments(operands: [Arg; 3], shape: Conv) -> Vec<Arg> {
    [&operands[..], &numbers(shape).map(Arg::I32)[..]].concat()
}

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_conv_forward(
        &mut self,
        shape: Conv,
        y: &mut CudaBuffer,
        x: &CudaBuffer,
        w: &CudaBuffer,
        _workspace: &mut CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        if !admit(shape, x, w, y, dtype)? {
            return Ok(());
        }
        let mut arguments = arguments([y.arg_mut(), x.arg(), w.arg()], shape);
        self.launch(&kernel("forward", dtype), forward_geometry(shape), &mut arguments)
    }

    pub(super) fn try_conv_to_inputs(
        &mut self,
        shape: Conv,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        w: &CudaBuffer,
        _workspace: &mut CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        if !admit(shape, dx, w, dy, dtype)? {
            return Ok(());
        }
        let mut arguments = arguments([dx.arg_mut(), dy.arg(), w.arg()], shape);
        self.launch(&kernel("to_inputs", dtype), to_inputs_geometry(shape), &mut arguments)
    }

    /// dw += Σ dy·x.
    pub(super) fn try_conv_to_weights(
        &mut self,
        shape: Conv,
        dw: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        _workspace: &mut CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        if !admit(shape, x, dw, dy, dtype)? {
            return Ok(());
        }
        let plan = ConvToWeights::new(shape, dtype, self.facts().sms);
        let partial = Arg::Pointer(self.scratch(plan.partial_len(shape) * size_of::<f32>())?);
        let mut arguments = arguments([partial, dy.arg(), x.arg()], shape);
        arguments.push(Arg::I32(int("conv steps", plan.steps)?));
        self.launch(&kernel("to_weights_partial", dtype), plan.partial, &mut arguments)?;
        let sizes = [int("conv splits", plan.splits)?, int("conv weights", shape.weight_len())?];
        let mut arguments = [dw.arg_mut(), partial, Arg::I32(sizes[0]), Arg::I32(sizes[1])];
        self.launch(&kernel("to_weights_reduce", dtype), plan.reduce, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    fn conv(side: usize, channels: (usize, usize), kernel: usize, stride: usize) -> Conv {
        let (in_channels, out_channels) = channels;
        let padding = kernel / 2;
        Conv { batch: 16, height: side, width: side, in_channels, out_channels, kernel, stride, padding }
    }

    #[test]
    fn every_shape_gets_a_launch_the_kernels_allow() {
        let mut random = SplitMix(9);
        for _ in 0..2000 {
            let channels = (1 + random.below(600), 1 + random.below(600));
            let shape = conv(1 + random.below(100), channels, 1 + 2 * random.below(3), 1 + random.below(3));
            assert!(validate(shape).is_ok(), "{shape:?}");
            let forward = forward_geometry(shape);
            assert!(forward.grid[0] as usize * TILE >= positions(shape));
            for dtype in [DType::Bf16, DType::F32] {
                let (sms, depth) = (1 + random.below(200), if dtype == DType::F32 { 16 } else { 32 });
                let plan = ConvToWeights::new(shape, dtype, sms as u32);
                // Every position is in exactly one split, no split is empty, and scratch memory stays small.
                let all = positions(shape).div_ceil(depth);
                assert!(plan.splits * plan.steps >= all && (plan.splits - 1) * plan.steps < all, "{shape:?} {plan:?}");
                assert!(plan.partial_len(shape) <= shape.weight_len() + 2 * sms * TILE * TILE, "{shape:?} {plan:?}");
            }
        }
    }

    #[test]
    fn a_shape_beyond_the_kernels_is_refused() {
        let shape = conv(32, (16, 16), 3, 1);
        assert!(validate(shape).is_ok());
        for wrong in [
            Conv { kernel: 0, ..shape },
            Conv { stride: 0, ..shape },
            Conv { kernel: 40, ..shape },
            Conv { batch: 1 << 24, ..shape },
            Conv { height: usize::MAX, ..shape },
            Conv { stride: 300, ..shape },
        ] {
            assert!(validate(wrong).is_err(), "{wrong:?}");
        }
    }
}
