//! Cross-entropy over the vocabulary on the GPU: how many threads a row gets and what of it stays on the SM. The kernel
//! and its contract are in `cuda/cross_entropy.cu`.

use super::launch::{Arg, check, int};
use super::{Cuda, CudaBuffer, Geometry};
use crate::Result;
use crate::ops::{DType, Rows};

const WARP: usize = 32;
const VECTOR_BYTES: usize = 16;
/// Vectors a thread keeps of its row in registers (`kRowKept`).
const IN_REGISTERS: usize = 2;
/// Vectors a thread should have, of which it loads four at a time (`kRowBatch`).
const ENOUGH: usize = IN_REGISTERS + 4;
/// Rows a block takes when one warp is enough for a row.
const ROWS_PER_BLOCK: usize = 4;
/// Threads of a row of which an SM holds two beside each other, and of one that has the SM to itself.
const THREADS_OF_TWO: usize = 512;
const THREADS_OF_ONE: usize = 1024;
/// What the system takes of each block's shared memory, and the most the kernel has beside the vectors it parks.
const RESERVED_BYTES: usize = 1024;
const STATIC_BYTES: usize = 512;

/// The launch of the cross-entropy kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossEntropyLaunch {
    /// The launch: threads a row × rows a block, and dynamic shared memory for the parked vectors.
    pub geometry: Geometry,
    /// Vectors of 16 bytes of its row that each thread keeps in shared memory, beside those in registers.
    pub parked: u32,
}

/// The launch for a GPU whose blocks may have `shared_bytes` of shared memory.
pub fn plan(shape: Rows, dtype: DType, shared_bytes: u32) -> CrossEntropyLaunch {
    let vectors = (shape.cols * dtype.bytes()).div_ceil(VECTOR_BYTES);
    let shared = (shared_bytes as usize).saturating_sub(STATIC_BYTES);
    // Two blocks share what one may have and the system's share of a second.
    let half = (shared_bytes as usize + RESERVED_BYTES) / 2;
    let half = half.saturating_sub(RESERVED_BYTES + STATIC_BYTES);
    let room = |threads: usize, bytes: usize| bytes / (threads * VECTOR_BYTES);
    let two_fit = vectors <= THREADS_OF_TWO * (IN_REGISTERS + room(THREADS_OF_TWO, half));
    let threads = match vectors.div_ceil(ENOUGH).next_multiple_of(WARP).max(WARP) {
        enough if enough <= THREADS_OF_TWO => enough,
        _ if two_fit => THREADS_OF_TWO,
        _ => THREADS_OF_ONE,
    };
    let room = room(threads, if threads == THREADS_OF_ONE { shared } else { half });
    let parked = vectors.div_ceil(threads).saturating_sub(IN_REGISTERS).min(room);
    let rows_per_block = if threads == WARP { ROWS_PER_BLOCK } else { 1 };
    let grid = u32::try_from(shape.rows.div_ceil(rows_per_block)).unwrap_or(u32::MAX);
    let geometry = Geometry::new([grid, 1, 1], [threads as u32, rows_per_block as u32, 1]);
    let parked_bytes = threads * rows_per_block * parked * VECTOR_BYTES;
    CrossEntropyLaunch { geometry: geometry.shared(parked_bytes as u32), parked: parked as u32 }
}

impl Cuda {
    pub(super) fn try_cross_entropy(
        &mut self,
        shape: Rows,
        losses: &mut CudaBuffer,
        logits: &mut CudaBuffer,
        targets: &CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        let name = "cross_entropy";
        check(name, "losses", losses, shape.rows, DType::F32)?;
        check(name, "logits", logits, shape.len(), dtype)?;
        check(name, "targets", targets, shape.rows, DType::U32)?;
        let (rows, cols) = (int("cross_entropy rows", shape.rows)?, int("cross_entropy columns", shape.cols)?);
        if shape.is_empty() {
            return Ok(());
        }
        let plan = plan(shape, dtype, self.facts().shared_bytes);
        let share = (1.0 / shape.rows as f64) as f32;
        let operands = [losses.arg_mut(), logits.arg_mut(), targets.arg()];
        let numbers = [Arg::I32(rows), Arg::I32(cols), Arg::I32(plan.parked as i32), Arg::F32(share)];
        let mut arguments = [&operands[..], &numbers[..]].concat();
        self.launch(&format!("{name}_{}", dtype.name()), plan.geometry, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    /// Shared memory a block may have: compute capability 8.6, 8.0, 9.0.
    const SHARED_BYTES: [u32; 3] = [99 << 10, 163 << 10, 227 << 10];

    #[test]
    fn every_shape_gets_a_launch_the_kernel_allows() {
        let mut random = SplitMix(11);
        for _ in 0..3000 {
            let widest = [300, 20_000, 400_000][random.below(3)];
            let shape = Rows { rows: 1 + random.below(100_000), cols: 1 + random.below(widest) };
            for (dtype, shared) in [(DType::Bf16, 0), (DType::F16, 1), (DType::F32, 2)] {
                let CrossEntropyLaunch { geometry, parked } = plan(shape, dtype, SHARED_BYTES[shared]);
                let [x, y, _] = geometry.block;
                assert!(x % 32 == 0 && x * y <= 1024 && (y == 1 || x == 32), "{shape:?}");
                assert!(geometry.grid[0] as usize * y as usize >= shape.rows);
                assert_eq!(geometry.shared_bytes, x * y * parked * 16);
                assert!(geometry.shared_bytes as usize + STATIC_BYTES <= SHARED_BYTES[shared] as usize);
            }
        }
    }

    /// Vocabularies in use (32,000 to 131,072 in bf16) stay on a Hopper SM, those up to 64,000 two at a time.
    #[test]
    fn usual_vocabularies_are_read_once() {
        for cols in [32_000, 50_257, 50_304, 64_000, 100_352, 128_256, 131_072] {
            let CrossEntropyLaunch { geometry, parked } = plan(Rows { rows: 8192, cols }, DType::Bf16, 227 << 10);
            let threads = geometry.block[0] as usize;
            assert!(threads * (IN_REGISTERS + parked as usize) * 8 >= cols, "{cols}");
            assert_eq!(threads == THREADS_OF_TWO, cols <= 64_000);
            assert!(cols > 64_000 || 2 * (geometry.shared_bytes as usize + 1536) <= 228 << 10);
        }
    }
}
