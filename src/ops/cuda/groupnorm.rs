//! Group normalisation on the GPU: which blocks a shape gets, and the launches. The kernels and their contract are in
//! `cuda/groupnorm.cu`; the last sums to weights are layer normalisation's.

use super::columns::Columns;
use super::launch::{Arg, check, int};
use super::{Cuda, CudaBuffer, Geometry, layernorm};
use crate::ops::{DType, GROUPNORM_EPSILON, GroupNorm, RowStats};
use crate::{Error, Result};

const WARP: usize = 32;
/// Vectors a thread keeps of its groups (`kHeld`).
const HELD: usize = 4;
/// What DRAM delivers at least.
const SECTOR_BYTES: usize = 32;
/// The largest image, so that a block counts its elements in 32 bits.
const MOST_PER_IMAGE: usize = 1 << 30;
/// The largest grid in y and z.
const MOST_BLOCKS: usize = 65_535;

/// The launch of the forward kernel or of the one to inputs, and how a block sees its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupNormPlan {
    /// Elements of one memory access (16 bytes, 8 bytes or one element), a divisor of a group's channels.
    pub vector: usize,
    /// Neighbouring groups of one image that a block takes.
    pub together: usize,
    /// The launch: a block for each `together` groups of an image.
    pub geometry: Geometry,
}

impl GroupNormPlan {
    /// Plans the forward kernel for a GPU with this number of SMs, up to 1024 threads a block.
    pub fn forward(shape: GroupNorm, dtype: DType, sms: u32) -> Self {
        GroupNormPlan::new(shape, dtype, sms, 1024)
    }

    /// Plans the kernel to inputs for a GPU with this number of SMs. Two tensors are kept in registers, so a block has
    /// at most 384 threads.
    pub fn to_inputs(shape: GroupNorm, dtype: DType, sms: u32) -> Self {
        GroupNormPlan::new(shape, dtype, sms, 384)
    }

    fn new(shape: GroupNorm, dtype: DType, sms: u32, most: usize) -> Self {
        let group = shape.channels / shape.groups;
        let widest = 16 / dtype.bytes();
        let vector = [widest, widest / 2].into_iter().find(|&v| group.is_multiple_of(v)).unwrap_or(1);
        let together = together(shape, group / vector, vector * dtype.bytes(), sms as usize);
        let vectors = shape.positions * together * (group / vector);
        let threads = vectors.div_ceil(HELD).next_multiple_of(WARP).min(most);
        let blocks = shape.batch * (shape.groups / together);
        GroupNormPlan { vector, together, geometry: Geometry::new([blocks as u32, 1, 1], [threads as u32, 1, 1]) }
    }
}

/// Groups a block takes: enough for whole sectors, as long as every SM still gets a block. `vectors` of `bytes` each are
/// one group's at one position; together they must be a power of two, a warp's width at most.
fn together(shape: GroupNorm, vectors: usize, bytes: usize, sms: usize) -> usize {
    if !vectors.is_power_of_two() {
        return 1;
    }
    let doubled = std::iter::successors(Some(1usize), |t| Some(2 * t));
    let fits = |&t: &usize| {
        let full = shape.batch * (shape.groups / t) >= sms;
        shape.groups.is_multiple_of(t) && t * vectors <= WARP && t * vectors * bytes <= SECTOR_BYTES && full
    };
    doubled.take_while(|t| *t == 1 || fits(t)).last().unwrap_or(1)
}

/// The two launches to weights, and the number of partial sums a channel has between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupNormToWeights {
    /// The launch that writes partial sums over some of the images and positions.
    pub partial: Geometry,
    /// The launch (of layer normalisation's kernel) that adds the partial sums to dgamma and dbeta.
    pub reduce: Geometry,
    /// The number of partial sums that each channel has between the two launches.
    pub chunks: usize,
}

impl GroupNormToWeights {
    /// Plans about four blocks an SM: over images first, whose statistics a block then reads once, over positions next.
    pub fn new(shape: GroupNorm, dtype: DType, sms: u32) -> Self {
        let columns = Columns::new(shape.channels, shape.positions, dtype);
        let wanted = (4 * sms as usize / columns.tiles).max(1);
        let images = shape.batch.clamp(1, wanted.min(MOST_BLOCKS));
        let most = shape.positions.div_ceil(4 * columns.strips).clamp(1, MOST_BLOCKS);
        let spans = (wanted / images).clamp(1, most);
        let grid = [columns.tiles as u32, images as u32, spans as u32];
        let reduce = Geometry::new([shape.channels.div_ceil(WARP) as u32, 1, 1], [WARP as u32, 8, 1]);
        GroupNormToWeights { partial: Geometry::new(grid, columns.block()), reduce, chunks: images * spans }
    }

    /// Elements (fp32) of the partial sums of dgamma and dbeta together.
    pub const fn partial_len(&self, shape: GroupNorm) -> usize {
        2 * self.chunks * shape.channels
    }
}

/// The name of a kernel of `cuda/groupnorm.cu`, such as `groupnorm_forward_bf16` for the operation `forward`.
pub fn kernel(operation: &str, dtype: DType) -> String {
    format!("groupnorm_{operation}_{}", dtype.name())
}

/// Positions, channels and groups as the kernels take them.
fn dimensions(shape: GroupNorm) -> Result<[Arg; 3]> {
    let GroupNorm { positions, channels, groups, .. } = shape;
    if groups == 0 || !channels.is_multiple_of(groups) {
        let what = format!("groupnorm of {channels} channels in {groups} groups");
        return Err(Error::input(what, "choose a number of groups that divides the channels"));
    }
    if positions.saturating_mul(channels) > MOST_PER_IMAGE {
        let what = format!("groupnorm of {positions} positions × {channels} channels");
        return Err(Error::input(what, format!("at most {MOST_PER_IMAGE} elements an image")));
    }
    int("groupnorm statistics", shape.stats_len())?;
    let small = |value| int("groupnorm", value).map(Arg::I32);
    Ok([small(positions)?, small(channels)?, small(groups)?])
}

fn expect(name: &str, buffer: &CudaBuffer, len: usize, dtype: DType) -> Result<()> {
    check("groupnorm", name, buffer, len, dtype)
}

fn expect_stats(stats: &RowStats<'_, CudaBuffer>, shape: GroupNorm) -> Result<()> {
    expect("mean", stats.mean, shape.stats_len(), DType::F32)?;
    expect("rstd", stats.rstd, shape.stats_len(), DType::F32)
}

/// The arguments that say how the block sees its groups.
const fn view(plan: &GroupNormPlan) -> [Arg; 2] {
    [Arg::I32(plan.together as i32), Arg::I32(plan.vector as i32)]
}

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_groupnorm_forward(
        &mut self,
        shape: GroupNorm,
        y: &mut CudaBuffer,
        mean: &mut CudaBuffer,
        rstd: &mut CudaBuffer,
        x: &CudaBuffer,
        gamma: &CudaBuffer,
        beta: &CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        let sizes = dimensions(shape)?;
        for (name, buffer) in [("y", &*y), ("x", x)] {
            expect(name, buffer, shape.len(), dtype)?;
        }
        for (name, buffer) in [("gamma", gamma), ("beta", beta)] {
            expect(name, buffer, shape.channels, dtype)?;
        }
        expect_stats(&RowStats { mean, rstd }, shape)?;
        if shape.is_empty() {
            return Ok(());
        }
        let plan = GroupNormPlan::forward(shape, dtype, self.facts().sms);
        let written = [y.arg_mut(), mean.arg_mut(), rstd.arg_mut()];
        let read = [x.arg(), gamma.arg(), beta.arg()];
        let epsilon = [Arg::F32(GROUPNORM_EPSILON as f32)];
        let mut arguments = [&written[..], &read[..], &sizes[..], &view(&plan)[..], &epsilon[..]].concat();
        self.launch(&kernel("forward", dtype), plan.geometry, &mut arguments)
    }

    /// dx = gradient through the normalisation.
    pub(super) fn try_groupnorm_to_inputs(
        &mut self,
        shape: GroupNorm,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        gamma: &CudaBuffer,
        stats: RowStats<'_, CudaBuffer>,
    ) -> Result<()> {
        let dtype = self.data_type();
        let sizes = dimensions(shape)?;
        for (name, buffer) in [("dx", &*dx), ("dy", dy), ("x", x)] {
            expect(name, buffer, shape.len(), dtype)?;
        }
        expect("gamma", gamma, shape.channels, dtype)?;
        expect_stats(&stats, shape)?;
        if shape.is_empty() {
            return Ok(());
        }
        let plan = GroupNormPlan::to_inputs(shape, dtype, self.facts().sms);
        let operands = [dx.arg_mut(), dy.arg(), x.arg(), gamma.arg(), stats.mean.arg(), stats.rstd.arg()];
        let mut arguments = [&operands[..], &sizes[..], &view(&plan)[..]].concat();
        self.launch(&kernel("to_inputs", dtype), plan.geometry, &mut arguments)
    }

    /// dgamma += Σ dy·x̂, dbeta += Σ dy.
    pub(super) fn try_groupnorm_to_weights(
        &mut self,
        shape: GroupNorm,
        dgamma: &mut CudaBuffer,
        dbeta: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        stats: RowStats<'_, CudaBuffer>,
    ) -> Result<()> {
        let dtype = self.data_type();
        let sizes = dimensions(shape)?;
        for (name, buffer) in [("dy", dy), ("x", x)] {
            expect(name, buffer, shape.len(), dtype)?;
        }
        for (name, buffer) in [("dgamma", &*dgamma), ("dbeta", &*dbeta)] {
            expect(name, buffer, shape.channels, dtype)?;
        }
        expect_stats(&stats, shape)?;
        if shape.is_empty() {
            return Ok(());
        }
        let plan = GroupNormToWeights::new(shape, dtype, self.facts().sms);
        let partial = Arg::Pointer(self.scratch(plan.partial_len(shape) * size_of::<f32>())?);
        let batch = [Arg::I32(int("groupnorm batch", shape.batch)?)];
        let operands = [partial, dy.arg(), x.arg(), stats.mean.arg(), stats.rstd.arg()];
        let mut arguments = [&operands[..], &batch[..], &sizes[..]].concat();
        self.launch(&kernel("to_weights_partial", dtype), plan.partial, &mut arguments)?;
        let chunks = Arg::I32(int("groupnorm chunks", plan.chunks)?);
        let mut arguments = [dgamma.arg_mut(), dbeta.arg_mut(), partial, chunks, sizes[1]];
        self.launch(&layernorm::kernel("to_weights_reduce", dtype), plan.reduce, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn every_shape_gets_a_launch_the_kernels_allow() {
        let mut random = SplitMix(5);
        for _ in 0..3000 {
            let (groups, group) = (1 + random.below(40), 1 + random.below(70));
            let (batch, positions) = (1 + random.below(300), 1 + random.below(4000));
            let shape = GroupNorm { batch, positions, channels: groups * group, groups };
            for dtype in [DType::Bf16, DType::F16, DType::F32] {
                let sms = 1 + random.below(200) as u32;
                for (plan, most) in [
                    (GroupNormPlan::forward(shape, dtype, sms), 1024),
                    (GroupNormPlan::to_inputs(shape, dtype, sms), 384),
                ] {
                    let threads = plan.geometry.block[0] as usize;
                    assert!(threads.is_multiple_of(32) && threads <= most, "{shape:?} {plan:?}");
                    assert!(group.is_multiple_of(plan.vector) && groups.is_multiple_of(plan.together));
                    let vectors = plan.together * group / plan.vector;
                    assert!(plan.together == 1 || (vectors.is_power_of_two() && vectors <= 32), "{shape:?} {plan:?}");
                }
                let plan = GroupNormToWeights::new(shape, dtype, sms);
                let [_, images, spans] = plan.partial.grid;
                assert!(images >= 1 && spans >= 1 && images <= 65_535 && spans <= 65_535);
                assert!(plan.chunks <= 4 * sms as usize, "{shape:?} {plan:?}");
            }
        }
    }

    /// Narrow groups share a block only where there are more blocks than SMs.
    #[test]
    fn narrow_groups_are_put_together_on_a_full_gpu() {
        let shape = GroupNorm { batch: 16, positions: 256, channels: 16, groups: 4 };
        assert_eq!(GroupNormPlan::forward(shape, DType::Bf16, 132).together, 1);
        assert_eq!(GroupNormPlan::forward(GroupNorm { batch: 512, ..shape }, DType::Bf16, 132).together, 4);
    }

    #[test]
    fn groups_that_do_not_divide_the_channels_are_refused() {
        assert!(dimensions(GroupNorm { batch: 1, positions: 4, channels: 6, groups: 4 }).is_err());
        assert!(dimensions(GroupNorm { batch: 1, positions: 4, channels: 6, groups: 0 }).is_err());
    }
}
