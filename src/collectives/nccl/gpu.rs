//! The rank's GPU: a stream, events, memory. Only the driver is needed, none of our kernels.

use super::communicator::Communicator;
use super::{Nccl, sys};
use crate::machine::{driver_error, gpus};
use crate::{Error, Result};
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

pub struct RankGpu {
    context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    begin: CudaEvent,
    end: CudaEvent,
}

impl RankGpu {
    pub fn open(ordinal: u32) -> Result<Self> {
        gpus::require_driver()?;
        let wrap = |e| driver_error(format!("cannot open GPU {ordinal}"), e);
        let context = CudaContext::new(ordinal as usize).map_err(wrap)?;
        // SAFETY: everything here is used on one stream, or after it was waited for.
        unsafe { context.disable_event_tracking() };
        let event = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(wrap);
        let (begin, end) = (event()?, event()?);
        let stream = context.new_stream().map_err(wrap)?;
        Ok(RankGpu { context, stream, begin, end })
    }

    /// Makes the context current on this thread; NCCL takes the device from it.
    pub fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| driver_error("cannot use the GPU from this thread", e))
    }

    pub fn mark_begin(&self) -> Result<()> {
        self.begin.record(&self.stream).map_err(failed)
    }

    pub fn mark_end(&self) -> Result<()> {
        self.end.record(&self.stream).map_err(failed)
    }

    pub fn event(&self) -> Result<CudaEvent> {
        self.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed)
    }

    pub fn record(&self, event: &CudaEvent) -> Result<()> {
        event.record(&self.stream).map_err(failed)
    }

    /// Waits until the stream has come to [`RankGpu::mark_end`]; other ranks may never let it.
    pub fn wait_end(&self, communicator: &Communicator, doing: &str) -> Result<()> {
        self.wait_for(&self.end, communicator, doing)
    }

    pub fn wait_for(&self, event: &CudaEvent, communicator: &Communicator, doing: &str) -> Result<()> {
        let mut wait = communicator.wait(doing);
        while !event.try_is_complete().map_err(failed)? {
            wait.pause()?;
        }
        // What ended early because NCCL broke off has ended as well.
        communicator.check()
    }

    pub fn drain(&self, communicator: &Communicator, doing: &str) -> Result<()> {
        self.mark_end()?;
        self.wait_end(communicator, doing)
    }

    /// Between the two marks, both passed.
    pub fn between_ns(&self) -> Result<f64> {
        self.begin.elapsed_ms(&self.end).map(|ms| f64::from(ms) * 1e6).map_err(failed)
    }

    /// Copies in, and waits for that.
    pub fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: the callers stay within an allocation of this GPU; the bytes outlive the copy, which is waited for.
        let copied = unsafe { result::memcpy_htod_async(to, bytes, self.stream.cu_stream()) };
        copied.and_then(|()| self.stream.synchronize()).map_err(failed)
    }

    pub fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: as for `write`.
        let copied = unsafe { result::memcpy_dtoh_async(bytes, from, self.stream.cu_stream()) };
        copied.and_then(|()| self.stream.synchronize()).map_err(failed)
    }

    pub fn fill(&self, block: &DeviceAllocation, byte: u8) -> Result<()> {
        self.bind()?;
        // SAFETY: the allocation is that long and belongs to this GPU.
        let set = unsafe { result::memset_d8_async(block.pointer, byte, block.bytes, self.stream.cu_stream()) };
        set.map_err(failed)
    }
}

fn failed(error: DriverError) -> Error {
    driver_error("the GPU failed", error)
}

/// Device memory, the driver's or NCCL's own.
pub struct DeviceAllocation {
    pointer: u64,
    bytes: usize,
    context: Arc<CudaContext>,
    /// From `ncclMemAlloc`: other ranks may reach it directly.
    nccl: Option<Arc<Nccl>>,
}

impl DeviceAllocation {
    /// At least one byte, and a multiple of 256.
    pub fn new(gpu: &RankGpu, bytes: usize) -> Result<Self> {
        let bytes = rounded(bytes);
        gpu.bind()?;
        // SAFETY: the context is current; what is allocated belongs to this value alone.
        let pointer = unsafe { result::malloc_sync(bytes) }.map_err(|e| no_room(bytes, e))?;
        Ok(DeviceAllocation { pointer, bytes, context: Arc::clone(&gpu.context), nccl: None })
    }

    /// Memory that NCCL hands out for registered buffers (2.19).
    pub fn of_nccl(gpu: &RankGpu, nccl: &Arc<Nccl>, bytes: usize) -> Result<Self> {
        type Allocate = unsafe extern "C" fn(*mut *mut c_void, usize) -> sys::ncclResult_t;
        let bytes = rounded(bytes);
        let allocate: Allocate = nccl.newer("ncclMemAlloc")?;
        gpu.bind()?;
        let mut pointer = null_mut();
        // SAFETY: the signature is nccl.h's; one pointer is written.
        nccl.check(&format!("ncclMemAlloc of {bytes} bytes"), unsafe { allocate(&mut pointer, bytes) })?;
        Ok(DeviceAllocation {
            pointer: pointer as u64,
            bytes,
            context: Arc::clone(&gpu.context),
            nccl: Some(Arc::clone(nccl)),
        })
    }

    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceAllocation {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        let Some(nccl) = &self.nccl else {
            // SAFETY: allocated by `new`, freed once; the driver waits for work that still uses it.
            let _ = unsafe { result::free_sync(self.pointer) };
            return;
        };
        type Free = unsafe extern "C" fn(*mut c_void) -> sys::ncclResult_t;
        if let Ok(free) = nccl.newer::<Free>("ncclMemFree") {
            // SAFETY: allocated by `of_nccl`, freed once.
            unsafe { free(self.pointer as *mut c_void) };
        }
    }
}

fn rounded(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(256)
}

fn no_room(bytes: usize, error: DriverError) -> Error {
    match error.0 {
        cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Error::machine(
            format!("the GPU has no room for a buffer of {bytes} bytes"),
            "choose smaller sizes with --sizes, or free the GPU of other processes",
        ),
        _ => driver_error(format!("cannot allocate {bytes} bytes on the GPU"), error),
    }
}
