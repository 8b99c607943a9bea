//! Layer normalisation on the GPU: which block and grid a shape gets, and the launches. The kernels and their contract
//! are in `cuda/layernorm.cu`. The geometry is plain arithmetic, shared with the tests that run the kernels on the CPU.

use super::{Buffer, Cuda};
use crate::machine::driver_error;
use crate::ops::{DType, LAYERNORM_EPSILON, RowStats, Rows};
use crate::{Error, Result};
use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};

const WARP: usize = 32;
/// Vectors of 16 bytes a thread keeps of its row (`kHeld`).
const HELD: usize = 4;
/// Rows of threads in the blocks that sum over rows (`kStrips`).
const STRIPS: usize = 8;
/// Rows a block takes when one warp is enough for a row.
const ROWS_PER_BLOCK: usize = 4;
/// The widest row of a shape that validates.
const MOST_COLS: usize = 1 << 17;

/// Blocks and threads of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub grid: [u32; 3],
    pub block: [u32; 3],
}

/// One launch of the forward kernel.
pub fn forward_geometry(shape: Rows, dtype: DType) -> Geometry {
    row_geometry(shape, dtype, 1024)
}

/// One launch of the kernel to inputs, which keeps two rows in registers and so takes half the threads at most.
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
    Geometry {
        grid: [shape.rows.div_ceil(rows_per_block) as u32, 1, 1],
        block: [threads as u32, rows_per_block as u32, 1],
    }
}

/// The two launches to weights, and the number of partial sums a column has between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToWeights {
    pub partial: Geometry,
    pub reduce: Geometry,
    pub chunks: u32,
}

impl ToWeights {
    /// About four blocks an SM, each with enough rows to be worth its start.
    pub fn new(shape: Rows, dtype: DType, sms: u32) -> Self {
        let tile = WARP * 16 / dtype.bytes();
        let tiles = shape.cols.div_ceil(tile).max(1);
        let chunks = (4 * sms as usize / tiles).clamp(1, shape.rows.div_ceil(4 * STRIPS).max(1)) as u32;
        let block = [WARP as u32, STRIPS as u32, 1];
        ToWeights {
            partial: Geometry { grid: [tiles as u32, chunks, 1], block },
            reduce: Geometry { grid: [shape.cols.div_ceil(WARP) as u32, 1, 1], block },
            chunks,
        }
    }

    /// Elements (fp32) of the partial sums.
    pub fn partial_len(&self, shape: Rows) -> usize {
        2 * self.chunks as usize * shape.cols
    }
}

/// Elements (fp32) that hold the partial sums of every shape on a GPU of that many SMs.
pub fn workspace_len(sms: u32) -> usize {
    let tile = WARP * 16 / DType::Bf16.bytes();
    2 * (4 * sms as usize * tile + MOST_COLS)
}

/// `layernorm_forward_bf16` and so on.
pub fn kernel(operation: &str, dtype: DType) -> String {
    format!("layernorm_{operation}_{}", dtype.name())
}

/// Rows and columns as the kernels take them.
fn dimensions(shape: Rows) -> Result<(i32, i32)> {
    let fits = |n: usize| i32::try_from(n).ok();
    match (fits(shape.rows), fits(shape.cols)) {
        (Some(rows), Some(cols)) if shape.cols <= MOST_COLS => Ok((rows, cols)),
        _ => Err(Error::input(
            format!("layernorm of {} rows × {} columns", shape.rows, shape.cols),
            format!("at most {} rows of {MOST_COLS} columns", i32::MAX),
        )),
    }
}

fn config(geometry: Geometry) -> LaunchConfig {
    let [gx, gy, gz] = geometry.grid;
    let [bx, by, bz] = geometry.block;
    LaunchConfig { grid_dim: (gx, gy, gz), block_dim: (bx, by, bz), shared_mem_bytes: 0 }
}

/// A buffer too short or of another type would be read beyond its end: refused before the launch.
fn check(name: &str, buffer: &Buffer, len: usize, dtype: DType) -> Result<()> {
    if buffer.len() < len || buffer.dtype() != dtype {
        return Err(Error::input(
            format!("layernorm: {name} holds {} {}", buffer.len(), buffer.dtype().name()),
            format!("{len} {} are needed", dtype.name()),
        ));
    }
    Ok(())
}

impl Cuda {
    #[allow(clippy::too_many_arguments)]
    pub fn layernorm_forward(
        &mut self,
        shape: Rows,
        y: &mut Buffer,
        mean: &mut Buffer,
        rstd: &mut Buffer,
        x: &Buffer,
        gamma: &Buffer,
        beta: &Buffer,
    ) {
        let outcome = self.try_forward(shape, y, [mean, rstd], x, [gamma, beta]);
        self.keep(outcome);
    }

    fn try_forward(
        &mut self,
        shape: Rows,
        y: &mut Buffer,
        [mean, rstd]: [&mut Buffer; 2],
        x: &Buffer,
        [gamma, beta]: [&Buffer; 2],
    ) -> Result<()> {
        let dtype = self.dtype();
        let (rows, cols) = dimensions(shape)?;
        for (name, buffer, len) in [("y", &*y, shape.len()), ("x", x, shape.len())] {
            check(name, buffer, len, dtype)?;
        }
        for (name, buffer) in [("gamma", gamma), ("beta", beta)] {
            check(name, buffer, shape.cols, dtype)?;
        }
        for (name, buffer) in [("mean", &*mean), ("rstd", &*rstd)] {
            check(name, buffer, shape.rows, DType::F32)?;
        }
        if shape.is_empty() {
            return Ok(());
        }
        let function = self.function(&kernel("forward", dtype))?;
        let stream = self.stream.clone();
        let epsilon = LAYERNORM_EPSILON as f32;
        let mut launch = stream.launch_builder(&function);
        launch.arg(&mut y.bytes).arg(&mut mean.bytes).arg(&mut rstd.bytes);
        launch.arg(&x.bytes).arg(&gamma.bytes).arg(&beta.bytes).arg(&rows).arg(&cols).arg(&epsilon);
        // SAFETY: the arguments are those of the kernel's contract, their lengths and types checked above.
        unsafe { launch.launch(config(forward_geometry(shape, dtype))) }
            .map(drop)
            .map_err(|e| driver_error("cannot launch layernorm forward", e))
    }

    /// dx = gradient through the normalisation, plus `residual` where given.
    #[allow(clippy::too_many_arguments)]
    pub fn layernorm_to_inputs(
        &mut self,
        shape: Rows,
        dx: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        gamma: &Buffer,
        stats: RowStats<'_, Buffer>,
        residual: Option<&Buffer>,
    ) {
        let outcome = self.try_to_inputs(shape, dx, [dy, x], gamma, &stats, residual);
        self.keep(outcome);
    }

    fn try_to_inputs(
        &mut self,
        shape: Rows,
        dx: &mut Buffer,
        [dy, x]: [&Buffer; 2],
        gamma: &Buffer,
        stats: &RowStats<'_, Buffer>,
        residual: Option<&Buffer>,
    ) -> Result<()> {
        let dtype = self.dtype();
        let (rows, cols) = dimensions(shape)?;
        let data = [("dx", Some(&*dx)), ("dy", Some(dy)), ("x", Some(x)), ("residual", residual)];
        for (name, buffer) in data.into_iter().filter_map(|(name, b)| Some((name, b?))) {
            check(name, buffer, shape.len(), dtype)?;
        }
        check("gamma", gamma, shape.cols, dtype)?;
        check_stats(stats, shape)?;
        if shape.is_empty() {
            return Ok(());
        }
        let function = self.function(&kernel("to_inputs", dtype))?;
        let stream = self.stream.clone();
        let mut launch = stream.launch_builder(&function);
        launch.arg(&mut dx.bytes).arg(&dy.bytes).arg(&x.bytes).arg(&gamma.bytes);
        launch.arg(&stats.mean.bytes).arg(&stats.rstd.bytes);
        let null = 0u64;
        match residual {
            Some(residual) => launch.arg(&residual.bytes),
            None => launch.arg(&null),
        };
        launch.arg(&rows).arg(&cols);
        // SAFETY: the arguments are those of the kernel's contract, their lengths and types checked above.
        unsafe { launch.launch(config(to_inputs_geometry(shape, dtype))) }
            .map(drop)
            .map_err(|e| driver_error("cannot launch layernorm to inputs", e))
    }

    /// dgamma += Σ dy·x̂, dbeta += Σ dy.
    pub fn layernorm_to_weights(
        &mut self,
        shape: Rows,
        dgamma: &mut Buffer,
        dbeta: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        stats: RowStats<'_, Buffer>,
    ) {
        let outcome = self.try_to_weights(shape, [dgamma, dbeta], [dy, x], &stats);
        self.keep(outcome);
    }

    fn try_to_weights(
        &mut self,
        shape: Rows,
        [dgamma, dbeta]: [&mut Buffer; 2],
        [dy, x]: [&Buffer; 2],
        stats: &RowStats<'_, Buffer>,
    ) -> Result<()> {
        let dtype = self.dtype();
        let (rows, cols) = dimensions(shape)?;
        check("dgamma", dgamma, shape.cols, dtype)?;
        check("dbeta", dbeta, shape.cols, dtype)?;
        check("dy", dy, shape.len(), dtype)?;
        check("x", x, shape.len(), dtype)?;
        check_stats(stats, shape)?;
        if shape.is_empty() {
            return Ok(());
        }
        let plan = ToWeights::new(shape, dtype, self.sms);
        check("the workspace", &self.workspace, plan.partial_len(shape), DType::F32)?;
        let partial = self.function(&kernel("to_weights_partial", dtype))?;
        let reduce = self.function(&kernel("to_weights_reduce", dtype))?;
        let stream = self.stream.clone();
        let workspace: &mut CudaSlice<u8> = &mut self.workspace.bytes;
        let chunks = plan.chunks as i32;
        let mut first = stream.launch_builder(&partial);
        first.arg(&mut *workspace).arg(&dy.bytes).arg(&x.bytes).arg(&stats.mean.bytes).arg(&stats.rstd.bytes);
        first.arg(&rows).arg(&cols);
        let mut second = stream.launch_builder(&reduce);
        // SAFETY: the arguments are those of the kernels' contract, their lengths and types checked above; the second
        // launch follows the first on the same stream.
        unsafe { first.launch(config(plan.partial)) }
            .and_then(|_| {
                second.arg(&mut dgamma.bytes).arg(&mut dbeta.bytes).arg(&*workspace).arg(&chunks).arg(&cols);
                // SAFETY: as above.
                unsafe { second.launch(config(plan.reduce)) }
            })
            .map(drop)
            .map_err(|e| driver_error("cannot launch layernorm to weights", e))
    }
}

fn check_stats(stats: &RowStats<'_, Buffer>, shape: Rows) -> Result<()> {
    check("mean", stats.mean, shape.rows, DType::F32)?;
    check("rstd", stats.rstd, shape.rows, DType::F32)
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
                let plan = ToWeights::new(shape, dtype, sms);
                assert!(plan.partial_len(shape) <= workspace_len(sms), "{shape:?} {sms}");
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
