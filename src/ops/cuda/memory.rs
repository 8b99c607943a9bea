//! Device memory: plain allocations, freed when their owner is dropped.

use super::Gpu;
use crate::machine::driver_error;
use crate::{Error, Result};
use cudarc::driver::{result, sys};
use std::sync::Arc;

/// An allocation of its own, at least one byte long.
pub struct CudaMemory {
    pointer: sys::CUdeviceptr,
    bytes: usize,
    gpu: Arc<Gpu>,
}

impl CudaMemory {
    pub fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Self> {
        let refused = |e: cudarc::driver::DriverError| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = result::mem_get_info()
                    .map_or(String::new(), |(free, total)| format!(" ({} of {} are free)", size(free), size(total)));
                Error::machine(
                    format!("the GPU has no room for {} more{free}", size(bytes)),
                    "choose a smaller shape, or free the GPU of other processes",
                )
            }
            _ => driver_error(format!("cannot allocate {bytes} bytes on the GPU"), e),
        };
        gpu.context().bind_to_thread().map_err(refused)?;
        // An allocation of nothing is an error to the driver.
        // SAFETY: the context is current; what is allocated belongs to this value alone.
        let pointer = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(refused)?;
        Ok(CudaMemory { pointer, bytes, gpu: Arc::clone(gpu) })
    }

    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        if self.gpu.context().bind_to_thread().is_ok() {
            // SAFETY: allocated by `new`, freed once; the driver waits for work that still uses it.
            let _ = unsafe { result::free_sync(self.pointer) };
        }
    }
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

fn size(bytes: usize) -> String {
    match bytes {
        0..0x40_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0x40_0000..0x4000_0000 => format!("{:.1} MiB", gib(bytes) * 1024.0),
        _ => format!("{:.1} GiB", gib(bytes)),
    }
}
