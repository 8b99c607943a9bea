//! Dropout on the GPU, with a mask that is worked out again instead of kept. The kernel and its contract are in
//! `cuda/dropout.cu`.

use super::launch::{Arg, check};
use super::{Cuda, CudaBuffer, Geometry};
use crate::Result;
use crate::ops::{DType, Dropout};

/// Threads of a block (`kDropoutThreads`), and bytes each takes (`kDropoutVectors` of 16).
const THREADS: usize = 256;
const BYTES_PER_THREAD: usize = 64;

/// The launch over `len` elements: a block of 256 threads for each tile of 16 KiB.
pub fn geometry(len: usize, dtype: DType) -> Geometry {
    let tile = THREADS * BYTES_PER_THREAD / dtype.bytes();
    Geometry::flat(len.div_ceil(tile) * THREADS, THREADS as u32)
}

impl Cuda {
    pub(super) fn try_dropout(
        &mut self,
        len: usize,
        y: &mut CudaBuffer,
        x: &CudaBuffer,
        dropout: Dropout,
    ) -> Result<()> {
        let dtype = self.data_type();
        check("dropout", "y", y, len, dtype)?;
        check("dropout", "x", x, len, dtype)?;
        let (threshold, scale) = dropout.numbers()?;
        if len == 0 {
            return Ok(());
        }
        let tensors = [y.arg_mut(), x.arg(), Arg::U64(len as u64)];
        let numbers = [Arg::U32(threshold), Arg::F32(scale), Arg::U64(dropout.seed), Arg::U64(dropout.offset)];
        let mut arguments = [&tensors[..], &numbers].concat();
        self.launch(&format!("dropout_{}", dtype.name()), geometry(len, dtype), &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_length() {
        for len in [1, 8191, 8192, 8193, 1 << 33] {
            let blocks = geometry(len, DType::Bf16).grid[0] as usize;
            assert!(blocks * 8192 >= len && (blocks - 1) * 8192 < len);
        }
    }
}
