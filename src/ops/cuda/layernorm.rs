//! Layer normalisation on the GPU: which block and grid a shape gets, and the launches. The kernels and their contract
//! are in `cuda/layernorm.cu`. The geometry is plain arithmetic, shared with the tests that run the kernels on the CPU.

use super::launch::{Arg, check, int};
use super::{Cuda, CudaBuffer, Geometry};
use crate::ops::{DType, LAYERNORM_EPSILON, RowStats, Rows};
use crate::{Error, Result};

const WARP: usize = 32;
/// Vectors of 16 bytes a thread keeps of its row (`kHeld`).
const HELD: usize = 4;
/// Rows of threads in the blocks that sum over rows (`kStrips`).
const STRIPS: usize = 8;
/// Rows a block takes when one warp is enough for a row.
const ROWS_PER_BLOCK: usize = 4;
/// The widest row of a shape that validates.
const MOST_COLS: usize = 1 << 17;

/// The launch of the forward kernel: up to 1024 threads a row, several rows a block where one warp is enough for a row.
pub fn forward_geometry(shape: Rows, dtype: DType) -> Geometry {
    row_geometry(shape, dtype, 1024)
}

/// The launch of the kernel to inputs, which keeps two rows in registers and so takes half the threads at most.
pub fn to_inputs_geometry(shape: Rows, dtype: DType) -> Geometry {
    row_geometry(shape, dtype, 512)
}

/// As few threads a row as can hold it (many loads in flight each), as many as eight elements each need where the row's
/// width rules 16-byte accesses out.
fn row_geometry(shape: Rows, dtype: DType, most: usize) -> Geometry {
    let width = 16 / dtype.bytes();
    let per_thread = if shape.cols.is_multiple_of(width) { HELD * width } else { 8 };
    let threads = shape.cols.div_ceil(per_thread).next_multiple_of(WARP).min(most);
    let rows_per_block = if threads == WARP { ROWS_PER_BLOCK } else { 1 };
    Geometry::new([shape.rows.div_ceil(rows_per_block) as u32, 1, 1], [threads as u32, rows_per_block as u32, 1])
}

/// The two launches to weights, and the number of partial sums a column has between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerNormToWeights {
    /// The launch that writes partial sums over some of the rows.
    pub partial: Geometry,
    /// The launch that adds the partial sums of each column to dgamma and dbeta.
    pub reduce: Geometry,
    /// The number of partial sums that each column has between the two launches.
    pub chunks: u32,
}

impl LayerNormToWeights {
    /// Plans about four blocks an SM, each with enough rows to be worth its start.
    pub fn new(shape: Rows, dtype: DType, sms: u32) -> Self {
        let tile = WARP * 16 / dtype.bytes();
        let tiles = shape.cols.div_ceil(tile).max(1);
        let chunks = (4 * sms as usize / tiles).clamp(1, shape.rows.div_ceil(4 * STRIPS).max(1)) as u32;
        let block = [WARP as u32, STRIPS as u32, 1];
        LayerNormToWeights {
            partial: Geometry::new([tiles as u32, chunks, 1], block),
            reduce: Geometry::new([shape.cols.div_ceil(WARP) as u32, 1, 1], block),
            chunks,
        }
    }

    /// Elements (fp32) of the partial sums of dgamma and dbeta together.
    pub fn partial_len(&self, shape: Rows) -> usize {
        2 * self.chunks as usize * shape.cols
    }
}

/// The name of a kernel of `cuda/layernorm.cu`, such as `layernorm_forward_bf16` for the operation `forward`.
pub fn kernel(operation: &str, dtype: DType) -> String {
    format!("layernorm_{operation}_{}", dtype.name())
}

/// Rows and columns as the kernels take them.
pub(super) fn dimensions(shape: Rows) -> Result<(i32, i32)> {
    if shape.cols > MOST_COLS {
        return Err(Error::input(
            format!("layernorm of {} rows × {} columns", shape.rows, shape.cols),
            format!("at most {MOST_COLS} columns"),
        ));
    }
    Ok((int("layernorm rows", shape.rows)?, int("layernorm columns", shape.cols)?))
}

fn expect(name: &str, buffer: &CudaBuffer, len: usize, dtype: DType) -> Result<()> {
    check("layernorm", name, buffer, len, dtype)
}

fn expect_stats(stats: &RowStats<'_, CudaBuffer>, shape: Rows) -> Result<()> {
    expect("mean", stats.mean, shape.rows, DType::F32)?;
    expect("rstd", stats.rstd, shape.rows, DType::F32)
}

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_layernorm_forward(
        &mut self,
        shape: Rows,
        y: &mut CudaBuffer,
        mean: &mut CudaBuffer,
        rstd: &mut CudaBuffer,
        x: &CudaBuffer,
        gamma: &CudaBuffer,
        beta: &CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        let (rows, cols) = dimensions(shape)?;
        for (name, buffer, len) in [("y", &*y, shape.len()), ("x", x, shape.len())] {
            expect(name, buffer, len, dtype)?;
        }
        for (name, buffer) in [("gamma", gamma), ("beta", beta)] {
            expect(name, buffer, shape.cols, dtype)?;
        }
        expect_stats(&RowStats { mean, rstd }, shape)?;
        if shape.is_empty() {
            return Ok(());
        }
        let epsilon = LAYERNORM_EPSILON as f32;
        let written = [y.arg_mut(), mean.arg_mut(), rstd.arg_mut()];
        let read = [x.arg(), gamma.arg(), beta.arg(), Arg::I32(rows), Arg::I32(cols), Arg::F32(epsilon)];
        let mut arguments = [&written[..], &read[..]].concat();
        self.launch(&kernel("forward", dtype), forward_geometry(shape, dtype), &mut arguments)
    }

    /// dx = gradient through the normalisation, plus `residual` where given.
    pub(super) fn try_layernorm_to_inputs(
        &mut self,
        shape: Rows,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        gamma: &CudaBuffer,
        stats: RowStats<'_, CudaBuffer>,
        residual: Option<&CudaBuffer>,
    ) -> Result<()> {
        let dtype = self.data_type();
        let (rows, cols) = dimensions(shape)?;
        let data = [("dx", Some(&*dx)), ("dy", Some(dy)), ("x", Some(x)), ("residual", residual)];
        for (name, buffer) in data.into_iter().filter_map(|(name, b)| Some((name, b?))) {
            expect(name, buffer, shape.len(), dtype)?;
        }
        expect("gamma", gamma, shape.cols, dtype)?;
        expect_stats(&stats, shape)?;
        if shape.is_empty() {
            return Ok(());
        }
        let skip = residual.map_or(Arg::NULL, CudaBuffer::arg);
        let operands = [dx.arg_mut(), dy.arg(), x.arg(), gamma.arg(), stats.mean.arg(), stats.rstd.arg(), skip];
        let mut arguments = [&operands[..], &[Arg::I32(rows), Arg::I32(cols)]].concat();
        self.launch(&kernel("to_inputs", dtype), to_inputs_geometry(shape, dtype), &mut arguments)
    }

    /// dgamma += Σ dy·x̂, dbeta += Σ dy.
    pub(super) fn try_layernorm_to_weights(
        &mut self,
        shape: Rows,
        dgamma: &mut CudaBuffer,
        dbeta: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        stats: RowStats<'_, CudaBuffer>,
    ) -> Result<()> {
        let dtype = self.data_type();
        let (rows, cols) = dimensions(shape)?;
        expect("dgamma", dgamma, shape.cols, dtype)?;
        expect("dbeta", dbeta, shape.cols, dtype)?;
        expect("dy", dy, shape.len(), dtype)?;
        expect("x", x, shape.len(), dtype)?;
        expect_stats(&stats, shape)?;
        if shape.is_empty() {
            return Ok(());
        }
        let plan = LayerNormToWeights::new(shape, dtype, self.facts().sms);
        let partial = Arg::Pointer(self.scratch(plan.partial_len(shape) * size_of::<f32>())?);
        let operands = [partial, dy.arg(), x.arg(), stats.mean.arg(), stats.rstd.arg()];
        let mut arguments = [&operands[..], &[Arg::I32(rows), Arg::I32(cols)]].concat();
        self.launch(&kernel("to_weights_partial", dtype), plan.partial, &mut arguments)?;
        let chunks = Arg::I32(int("layernorm chunks", plan.chunks as usize)?);
        let mut arguments = [dgamma.arg_mut(), dbeta.arg_mut(), partial, chunks, Arg::I32(cols)];
        self.launch(&kernel("to_weights_reduce", dtype), plan.reduce, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn every_shape_gets_a_launch_the_kernels_allow() {
        let mut random = SplitMix(3);
        for _ in 0..2000 {
            let shape = Rows { rows: 1 + random.below(100_000), cols: 1 + random.below(MOST_COLS) };
            for dtype in [DType::Bf16, DType::F16, DType::F32] {
                for (geometry, most) in
                    [(forward_geometry(shape, dtype), 1024), (to_inputs_geometry(shape, dtype), 512)]
                {
                    let [x, y, _] = geometry.block;
                    assert!(x % 32 == 0 && x * y <= most && (y == 1 || x == 32));
                    assert!(geometry.grid[0] as usize * y as usize >= shape.rows);
                }
                let sms = 1 + random.below(200) as u32;
                let plan = LayerNormToWeights::new(shape, dtype, sms);
                // Scratch memory stays small beside any tensor it serves.
                assert!(plan.partial_len(shape) <= 2 * (4 * sms as usize * 256 + MOST_COLS), "{shape:?} {sms}");
                assert!(plan.chunks >= 1 && plan.partial.grid[1] == plan.chunks && plan.chunks <= 65535);
            }
        }
    }

    /// Hidden sizes in use keep their rows in registers.
    #[test]
    fn usual_rows_are_read_once() {
        for hidden in [1024, 2048, 4096, 6144, 8192, 12288] {
            let held = |geometry: Geometry| geometry.block[0] as usize * HELD * 8 >= hidden;
            let shape = Rows { rows: 2048, cols: hidden };
            assert!(held(forward_geometry(shape, DType::Bf16)) && held(to_inputs_geometry(shape, DType::Bf16)));
        }
    }

    #[test]
    fn a_shape_beyond_the_kernels_is_refused() {
        assert!(dimensions(Rows { rows: 1 << 40, cols: 8 }).is_err());
        assert!(dimensions(Rows { rows: 8, cols: MOST_COLS + 1 }).is_err());
    }
}
