//! GELU, ReLU and the residual sum on the GPU: their tiles and launches. The kernels and their contracts are in
//! `cuda/gelu.cu`, `cuda/relu.cu` and `cuda/residual.cu`, what they share in `cuda/elementwise.cuh`.

use super::launch::{Arg, check};
use super::{Cuda, CudaBuffer, Geometry};
use crate::Result;
use crate::ops::DType;

/// Threads of a block (`kMapThreads`).
const THREADS: usize = 256;
/// Bytes of all inputs together that a thread takes: four vectors of one input, two of each of two (`kMapVectors`).
const BYTES_PER_THREAD: usize = 64;

/// The launch of an element-wise kernel over `len` elements with that many input tensors: a block for each tile.
pub fn geometry(len: usize, inputs: usize, dtype: DType) -> Geometry {
    let tile = THREADS * BYTES_PER_THREAD / inputs / dtype.bytes();
    Geometry::flat(len.div_ceil(tile) * THREADS, THREADS as u32)
}

impl Cuda {
    pub(super) fn try_gelu_forward(&mut self, len: usize, y: &mut CudaBuffer, x: &CudaBuffer) -> Result<()> {
        self.map("gelu_forward", len, ("y", y), &[("x", x)])
    }

    pub(super) fn try_gelu_backward(
        &mut self,
        len: usize,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
    ) -> Result<()> {
        self.map("gelu_backward", len, ("dx", dx), &[("dy", dy), ("x", x)])
    }

    pub(super) fn try_residual(
        &mut self,
        len: usize,
        out: &mut CudaBuffer,
        a: &CudaBuffer,
        b: &CudaBuffer,
    ) -> Result<()> {
        self.map("residual", len, ("out", out), &[("a", a), ("b", b)])
    }

    pub(super) fn try_relu_forward(&mut self, len: usize, y: &mut CudaBuffer, x: &CudaBuffer) -> Result<()> {
        self.map("relu_forward", len, ("y", y), &[("x", x)])
    }

    pub(super) fn try_relu_backward(
        &mut self,
        len: usize,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        y: &CudaBuffer,
    ) -> Result<()> {
        self.map("relu_backward", len, ("dx", dx), &[("dy", dy), ("y", y)])
    }

    /// One element-wise kernel: its output, its inputs, its length.
    fn map(
        &mut self,
        operation: &str,
        len: usize,
        (name, out): (&str, &mut CudaBuffer),
        inputs: &[(&str, &CudaBuffer)],
    ) -> Result<()> {
        let dtype = self.data_type();
        check(operation, name, out, len, dtype)?;
        for (name, input) in inputs {
            check(operation, name, input, len, dtype)?;
        }
        if len == 0 {
            return Ok(());
        }
        let mut arguments = vec![out.arg_mut()];
        arguments.extend(inputs.iter().map(|(_, input)| input.arg()));
        arguments.push(Arg::U64(len as u64));
        let kernel = format!("{operation}_{}", dtype.name());
        self.launch(&kernel, geometry(len, inputs.len(), dtype), &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    /// Every element lies in a tile, and no tile is empty.
    #[test]
    fn tiles_cover_every_length() {
        let mut random = SplitMix(7);
        for i in 0..2000 {
            let len = if i < 10 { i + 1 } else { 1 + random.below(1 << 33) };
            for (dtype, inputs, tile) in [(DType::Bf16, 1, 8192), (DType::F16, 2, 4096), (DType::F32, 1, 4096)] {
                let geometry = geometry(len, inputs, dtype);
                let blocks = geometry.grid[0] as usize;
                assert!(blocks * tile >= len && (blocks - 1) * tile < len && geometry.block == [256, 1, 1]);
            }
        }
    }
}
