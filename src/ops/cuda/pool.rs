//! Average pooling on the GPU: which blocks a shape gets, and the launches. The kernels are in `cuda/pool.cu`.

use super::columns::Columns;
use super::launch::{Arg, check, int};
use super::{Cuda, CudaBuffer, Geometry};
use crate::Result;
use crate::ops::{DType, Pool};

/// The largest grid in y and z.
const MOST_BLOCKS: usize = 65_535;

/// The launch of the forward kernel: a block for each image and tile of channels.
pub fn forward_geometry(shape: Pool, dtype: DType) -> Geometry {
    let columns = Columns::new(shape.channels, shape.positions, dtype);
    Geometry::new([shape.batch as u32, columns.tiles as u32, 1], columns.block())
}

/// The launch of the backward kernel: positions are spread over several blocks, about four blocks an SM in all.
pub fn backward_geometry(shape: Pool, dtype: DType, sms: u32) -> Geometry {
    let columns = Columns::new(shape.channels, shape.positions, dtype);
    let most = shape.positions.div_ceil(4 * columns.strips).clamp(1, MOST_BLOCKS);
    let wanted = 4 * sms as usize / (shape.batch * columns.tiles).max(1);
    Geometry::new([shape.batch as u32, columns.tiles as u32, wanted.clamp(1, most) as u32], columns.block())
}

/// The name of a kernel of `cuda/pool.cu`, such as `average_pool_forward_bf16` for the operation `forward`.
pub fn kernel(operation: &str, dtype: DType) -> String {
    format!("average_pool_{operation}_{}", dtype.name())
}

/// Positions and channels as the kernels take them; `None` where there is nothing to do.
fn dimensions(shape: Pool, wide: &CudaBuffer, narrow: &CudaBuffer, dtype: DType) -> Result<Option<[Arg; 2]>> {
    let Pool { batch, positions, channels } = shape;
    check("average_pool", "x", wide, batch * positions * channels, dtype)?;
    check("average_pool", "y", narrow, batch * channels, dtype)?;
    int("average_pool batch", batch)?;
    let sizes = [int("average_pool positions", positions)?, int("average_pool channels", channels)?];
    Ok((batch * positions * channels > 0).then_some(sizes.map(Arg::I32)))
}

impl Cuda {
    /// y = mean of x over positions.
    pub(super) fn try_average_pool_forward(&mut self, shape: Pool, y: &mut CudaBuffer, x: &CudaBuffer) -> Result<()> {
        let dtype = self.data_type();
        let Some([positions, channels]) = dimensions(shape, x, y, dtype)? else { return Ok(()) };
        let mut arguments = [y.arg_mut(), x.arg(), positions, channels];
        self.launch(&kernel("forward", dtype), forward_geometry(shape, dtype), &mut arguments)
    }

    /// dx = dy / positions at every position.
    pub(super) fn try_average_pool_backward(
        &mut self,
        shape: Pool,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        let Some([positions, channels]) = dimensions(shape, dx, dy, dtype)? else { return Ok(()) };
        let mut arguments = [dx.arg_mut(), dy.arg(), positions, channels];
        let geometry = backward_geometry(shape, dtype, self.facts().sms);
        self.launch(&kernel("backward", dtype), geometry, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn every_shape_gets_a_launch_the_kernels_allow() {
        let mut random = SplitMix(7);
        for _ in 0..1000 {
            let shape = Pool {
                batch: 1 + random.below(3000),
                positions: 1 + random.below(100_000),
                channels: 1 + random.below(3000),
            };
            for dtype in [DType::Bf16, DType::F32] {
                let [forward, backward] = [forward_geometry(shape, dtype), backward_geometry(shape, dtype, 132)];
                assert_eq!(forward.grid[0] as usize, shape.batch);
                assert!(forward.grid[1] <= 65_535 && (1..=65_535).contains(&backward.grid[2]));
                assert!(forward.block[0] * forward.block[1] <= 256);
            }
        }
    }
}
