//! Host memory that a running kernel reads and writes: flags that release or stop it, and what it reports meanwhile.
//!
//! A few words for the probes and the pressure kernels; never data.

use super::Gpu;
use crate::Result;
use crate::machine::driver_error;
use cudarc::driver::{result, sys};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Words of 64 bits, all zero at first, at one place for the host and another for the device.
pub(super) struct Mapped {
    host: *mut AtomicU64,
    device: u64,
    words: usize,
    gpu: Arc<Gpu>,
}

// SAFETY: the memory belongs to the value and is reached through atomics only.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    pub fn new(gpu: &Arc<Gpu>, words: usize) -> Result<Self> {
        let wrap = |e| driver_error("cannot share a page of memory with the GPU", e);
        let words = words.max(1);
        gpu.context().bind_to_thread().map_err(wrap)?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: the context is current; the allocation belongs to this value alone.
        let host = unsafe { result::malloc_host(8 * words, flags) }.map_err(wrap)?.cast::<AtomicU64>();
        let mut mapped = Mapped { host, device: 0, words, gpu: Arc::clone(gpu) };
        // SAFETY: that many bytes were just allocated, aligned to a page, and nobody else knows of them.
        unsafe { mapped.host.write_bytes(0, words) };
        // SAFETY: the memory was allocated to be mapped; one address is written.
        unsafe { sys::cuMemHostGetDevicePointer_v2(&mut mapped.device, mapped.host.cast(), 0) }
            .result()
            .map_err(wrap)?;
        Ok(mapped)
    }

    /// What kernels are given for the word.
    pub fn address(&self, word: usize) -> u64 {
        self.device + 8 * word.min(self.words - 1) as u64
    }

    pub fn word(&self, word: usize) -> &AtomicU64 {
        // SAFETY: within the allocation, initialised by `new`, alive as long as `self`; kernels store whole words.
        unsafe { &*self.host.add(word.min(self.words - 1)) }
    }

    /// The low half of the word (GPUs and the hosts they are found in are little-endian).
    pub fn half(&self, word: usize) -> &AtomicU32 {
        // SAFETY: as above; every word is used either whole or by its half, never both.
        unsafe { &*self.host.add(word.min(self.words - 1)).cast::<AtomicU32>() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.gpu.context().bind_to_thread().is_ok() {
            // SAFETY: allocated by `new`, freed once; who shares it with a kernel waits for that kernel first.
            let _ = unsafe { result::free_host(self.host.cast()) };
        }
    }
}
