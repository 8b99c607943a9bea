//! The kernels of `cuda/bias.cu`: which blocks and threads they get, and their launches.

use crate::Result;
use crate::ops::DType;
use crate::ops::cuda::launch::{Arg, int};
use crate::ops::cuda::{Cuda, Geometry};

const WARP: usize = 32;
/// Rows of threads in a block (`kStrips`).
const STRIPS: usize = 8;
/// Threads a block of the element-wise kernels, each with two vectors.
const THREADS: usize = 256;

/// `bias_rows_bf16` and so on.
fn kernel(name: &str, dtype: DType) -> String {
    format!("bias_{name}_{}", dtype.name())
}

/// Columns a block takes: 16 bytes a lane.
const fn tile(dtype: DType) -> usize {
    WARP * 16 / dtype.bytes()
}

/// Tiles of columns × chunks of rows, about `per_sm` blocks an SM, none with fewer than four rows a strip.
fn tiles(rows: usize, cols: usize, dtype: DType, blocks: usize) -> [u32; 2] {
    let tiles = cols.div_ceil(tile(dtype)).max(1);
    let chunks = (blocks / tiles).clamp(1, rows.div_ceil(4 * STRIPS).clamp(1, 65_535));
    [tiles as u32, chunks as u32]
}

/// The launch that writes a bias into every row of a rows × cols matrix, on a GPU with this number of SMs.
pub fn rows_geometry(rows: usize, cols: usize, dtype: DType, sms: u32) -> Geometry {
    let [tiles, chunks] = tiles(rows, cols, dtype, 8 * sms as usize);
    Geometry::new([tiles, chunks, 1], [WARP as u32, STRIPS as u32, 1])
}

/// The launch of a GELU kernel of `cuda/bias.cu` over `len` elements.
pub fn flat_geometry(len: usize, dtype: DType) -> Geometry {
    let per_block = 2 * THREADS * 16 / dtype.bytes();
    Geometry::new([u32::try_from(len.div_ceil(per_block)).unwrap_or(u32::MAX), 1, 1], [THREADS as u32, 1, 1])
}

/// The two launches of a bias gradient, and how many partial sums a column has between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnSums {
    /// The launch that writes partial sums over some of the rows.
    pub partial: Geometry,
    /// The launch that adds the partial sums of each column to the bias gradient.
    pub reduce: Geometry,
    /// The number of partial sums that each column has between the two launches.
    pub chunks: u32,
}

impl ColumnSums {
    /// Plans about four blocks an SM for sums over the rows of a rows × cols matrix.
    pub fn new(rows: usize, cols: usize, dtype: DType, sms: u32) -> Self {
        let [tiles, chunks] = tiles(rows, cols, dtype, 4 * sms as usize);
        ColumnSums {
            partial: Geometry::new([tiles, chunks, 1], [WARP as u32, STRIPS as u32, 1]),
            reduce: reduce_geometry(cols),
            chunks,
        }
    }

    /// Elements (fp32) of the partial sums between the two launches.
    pub const fn partial_len(&self, cols: usize) -> usize {
        self.chunks as usize * cols
    }
}

fn reduce_geometry(cols: usize) -> Geometry {
    Geometry::new([cols.div_ceil(WARP) as u32, 1, 1], [WARP as u32, STRIPS as u32, 1])
}

impl Cuda {
    /// out = base + bias, a row at a time; out = bias where `base` is 0.
    pub(super) fn bias_rows(
        &mut self,
        dtype: DType,
        [rows, cols]: [usize; 2],
        out: u64,
        base: u64,
        bias: u64,
    ) -> Result<()> {
        let geometry = rows_geometry(rows, cols, dtype, self.facts().sms);
        let pointers = [out, base, bias].map(Arg::Pointer);
        let sizes = [Arg::I32(int("rows", rows)?), Arg::I32(int("columns", cols)?)];
        self.launch(&kernel("rows", dtype), geometry, &mut [&pointers[..], &sizes].concat())
    }

    /// y = gelu(pre)
    pub(super) fn bias_gelu_forward(&mut self, dtype: DType, len: usize, y: u64, pre: u64) -> Result<()> {
        let mut arguments = [Arg::Pointer(y), Arg::Pointer(pre), Arg::U64(len as u64)];
        self.launch(&kernel("gelu_forward", dtype), flat_geometry(len, dtype), &mut arguments)
    }

    /// dx = dx·gelu'(pre)
    pub(super) fn bias_gelu_backward(&mut self, dtype: DType, len: usize, dx: u64, pre: u64) -> Result<()> {
        let mut arguments = [Arg::Pointer(dx), Arg::Pointer(pre), Arg::U64(len as u64)];
        self.launch(&kernel("gelu_backward", dtype), flat_geometry(len, dtype), &mut arguments)
    }

    /// dbias (of type `gradient`) += column sums of dy
    pub(super) fn bias_gradient(
        &mut self,
        [dtype, gradient]: [DType; 2],
        [rows, cols]: [usize; 2],
        dbias: u64,
        dy: u64,
    ) -> Result<()> {
        let plan = ColumnSums::new(rows, cols, dtype, self.facts().sms);
        let partial = self.scratch(plan.partial_len(cols) * size_of::<f32>())?;
        let (rows, columns) = (int("rows", rows)?, int("columns", cols)?);
        let mut arguments = [Arg::Pointer(partial), Arg::Pointer(dy), Arg::I32(rows), Arg::I32(columns)];
        self.launch(&kernel("gradient_partial", dtype), plan.partial, &mut arguments)?;
        let chunks = int("chunks", plan.chunks as usize)?;
        let mut arguments = [Arg::Pointer(dbias), Arg::Pointer(partial), Arg::I32(chunks), Arg::I32(columns)];
        self.launch(&kernel("gradient_reduce", gradient), plan.reduce, &mut arguments)
    }

    /// dbias += sums, which are of the same type or of fp32.
    pub(super) fn bias_gradient_add(
        &mut self,
        [sums_type, gradient]: [DType; 2],
        cols: usize,
        dbias: u64,
        sums: u64,
    ) -> Result<()> {
        let columns = Arg::I32(int("columns", cols)?);
        if sums_type == gradient {
            let geometry = Geometry::flat(cols, THREADS as u32);
            let mut arguments = [Arg::Pointer(dbias), Arg::Pointer(sums), columns];
            return self.launch(&kernel("gradient_add", gradient), geometry, &mut arguments);
        }
        let mut arguments = [Arg::Pointer(dbias), Arg::Pointer(sums), Arg::I32(1), columns];
        self.launch(&kernel("gradient_reduce", gradient), reduce_geometry(cols), &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn every_size_gets_a_launch_the_kernels_allow() {
        let mut random = SplitMix(8);
        for _ in 0..2000 {
            let (rows, cols) = (1 + random.below(1 << 22), 1 + random.below(1 << 18));
            let sms = 1 + random.below(200) as u32;
            for dtype in [DType::Bf16, DType::F16, DType::F32] {
                let rows_wise = rows_geometry(rows, cols, dtype, sms);
                let sums = ColumnSums::new(rows, cols, dtype, sms);
                for grid in [rows_wise.grid, sums.partial.grid] {
                    assert!(grid[0] as usize * tile(dtype) >= cols && (1..=65_535).contains(&grid[1]));
                }
                assert!(sums.reduce.grid[0] as usize * WARP >= cols);
                // Scratch memory stays small beside any tensor it serves.
                assert!(sums.partial_len(cols) <= 4 * sms as usize * 256 + (1 << 18) + 256);
                let flat = flat_geometry(rows * cols, dtype);
                assert!(flat.grid[0] as usize * 2 * THREADS * 16 >= rows * cols * dtype.bytes());
            }
        }
    }
}
