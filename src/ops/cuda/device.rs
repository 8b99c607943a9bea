//! One stream on a GPU: buffers, copies, and the errors kept until somebody waits.

use super::buffer::{CudaBuffer, from_bytes, to_bytes};
use super::memory::CudaMemory;
use super::product::StreamState;
use super::{Gpu, GpuFacts};
use crate::machine::driver_error;
use crate::ops::DType;
use crate::{Error, Result};
use cudarc::driver::{CudaStream, DriverError, result};
use std::sync::Arc;

/// The priority of a stream: whose blocks start first where two streams have work for the same SMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// The priority that CUDA gives a stream made without one.
    #[default]
    Plain,
    /// The highest priority the GPU offers.
    Highest,
    /// The lowest priority the GPU offers.
    Lowest,
}

/// A stream that implements [`crate::ops::Ops`]; as many as wanted may be on one [`Gpu`].
pub struct Cuda {
    pub(super) gpu: Arc<Gpu>,
    pub(super) stream: Arc<CudaStream>,
    /// A captured graph keeps the memory it was recorded with.
    pub(super) scratch: Option<Arc<CudaMemory>>,
    pub(super) products: StreamState,
    /// A graph is being captured: nothing may be allocated or waited for.
    pub(super) capturing: bool,
    /// The stream is held behind a blocker: launches it has room for; nothing may be allocated or waited for.
    pub(super) held: Option<u32>,
    dtype: DType,
    pending: Option<Error>,
}

impl Cuda {
    /// Opens GPU `ordinal` and makes a stream on it, with activations of `dtype`; an error where driver, GPU or kernels
    /// are missing, or `dtype` is not bf16, f16 or f32.
    pub fn open(ordinal: u32, dtype: DType) -> Result<Self> {
        Cuda::on(&Gpu::open(ordinal)?, dtype, Priority::Plain)
    }

    /// Makes another stream on a GPU that is open, with activations of `dtype`; an error where that is not bf16, f16 or
    /// f32.
    pub fn on(gpu: &Arc<Gpu>, dtype: DType, priority: Priority) -> Result<Self> {
        if !matches!(dtype, DType::Bf16 | DType::F16 | DType::F32) {
            return Err(Error::input(
                format!("the CUDA kernels have no type {}", dtype.name()),
                "choose bf16, f16 or f32",
            ));
        }
        let wrap = |e| driver_error("cannot make a stream", e);
        gpu.context().bind_to_thread().map_err(wrap)?;
        let stream = match priority {
            Priority::Plain => gpu.context().new_stream(),
            Priority::Highest | Priority::Lowest => {
                // (least, greatest), and the greatest is the lower number.
                let (lowest, highest) = result::stream::get_priority_range().map_err(wrap)?;
                let wanted = if priority == Priority::Highest { highest } else { lowest };
                gpu.context().new_stream_with_priority(wanted)
            }
        };
        let stream = stream.map_err(wrap)?;
        Ok(Cuda {
            gpu: Arc::clone(gpu),
            stream,
            scratch: None,
            products: StreamState::default(),
            capturing: false,
            held: None,
            dtype,
            pending: None,
        })
    }

    /// The GPU that this stream is on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The facts of the GPU that this stream is on.
    pub fn facts(&self) -> &GpuFacts {
        self.gpu.facts()
    }

    /// The CUDA stream itself, for events and for work that others put on it.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Type of activations, parameters and their gradients.
    pub(super) const fn data_type(&self) -> DType {
        self.dtype
    }

    /// Makes the GPU's context current on this thread: models move between threads.
    pub(super) fn bind(&self) -> Result<()> {
        self.gpu.context().bind_to_thread().map_err(|e| driver_error("cannot use the GPU from this thread", e))
    }

    /// A buffer of `len` elements, all ones (NaN for floats).
    pub(super) fn allocate(&mut self, len: usize, dtype: DType) -> Result<CudaBuffer> {
        let bytes = len.checked_mul(dtype.bytes()).ok_or_else(|| {
            Error::input(
                format!("a buffer of {len} {} is larger than any memory", dtype.name()),
                "choose a smaller shape",
            )
        })?;
        self.require_free("a buffer cannot be allocated")?;
        let memory = CudaMemory::new(&self.gpu, bytes)?;
        self.fill(&memory, 0xff).map_err(|e| driver_error("cannot fill a buffer", e))?;
        Ok(CudaBuffer { memory, len, dtype })
    }

    fn fill(&self, memory: &CudaMemory, byte: u8) -> std::result::Result<(), DriverError> {
        // SAFETY: the allocation is that long; the stream belongs to its context.
        unsafe { result::memset_d8_async(memory.pointer(), byte, memory.bytes().max(1), self.stream.cu_stream()) }
    }

    pub(super) fn write_floats(&mut self, dst: &mut CudaBuffer, values: &[f64]) -> Result<()> {
        let bytes = to_bytes(values, dst.dtype).filter(|_| values.len() == dst.len).ok_or_else(|| {
            let (given, held, dtype) = (values.len(), dst.len, dst.dtype.name());
            Error::input(format!("{given} numbers for a buffer of {held} {dtype}"), "give as many, of a float type")
        })?;
        self.copy_in(dst, &bytes)
    }

    pub(super) fn write_identifiers(&mut self, dst: &mut CudaBuffer, ids: &[u32]) -> Result<()> {
        if dst.dtype != DType::U32 || ids.len() != dst.len {
            let (held, dtype) = (dst.len, dst.dtype.name());
            return Err(Error::input(
                format!("{} identifiers for a buffer of {held} {dtype}", ids.len()),
                "give as many, to a buffer of u32",
            ));
        }
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
        self.copy_in(dst, &bytes)
    }

    fn copy_in(&mut self, dst: &mut CudaBuffer, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.require_free("nothing can be copied to the GPU")?;
        self.bind()?;
        // SAFETY: the buffer holds exactly these bytes (checked by the callers), and the host's outlive the copy, which
        // is waited for.
        let copied = unsafe { result::memcpy_htod_async(dst.memory.pointer(), bytes, self.stream.cu_stream()) };
        copied.and_then(|()| self.stream.synchronize()).map_err(|e| driver_error("cannot copy to the GPU", e))
    }

    pub(super) fn copy_out(&mut self, src: &CudaBuffer) -> Result<Vec<f64>> {
        self.wait()?;
        let mut bytes = vec![0u8; src.len * src.dtype.bytes()];
        if !bytes.is_empty() {
            // SAFETY: the buffer holds that many bytes, and the host's outlive the copy, which is waited for.
            let copied =
                unsafe { result::memcpy_dtoh_async(&mut bytes, src.memory.pointer(), self.stream.cu_stream()) };
            copied.and_then(|()| self.stream.synchronize()).map_err(|e| driver_error("cannot copy from the GPU", e))?;
        }
        Ok(from_bytes(&bytes, src.dtype))
    }

    /// Waits until everything asked for is done; the first error since the last call surfaces here.
    pub(super) fn wait(&mut self) -> Result<()> {
        self.require_free("nothing can be waited for")?;
        self.bind()?;
        let done = self.stream.synchronize().map_err(|e| driver_error("the GPU failed", e));
        match self.pending.take() {
            Some(error) => Err(error),
            None => done,
        }
    }

    pub(super) fn clear(&mut self, dst: &mut CudaBuffer) -> Result<()> {
        self.count_launch()?;
        self.bind()?;
        self.fill(&dst.memory, 0).map_err(|e| driver_error("cannot clear a buffer", e))
    }

    /// The first error since the last wait, without waiting.
    pub(super) fn take_pending(&mut self) -> Option<Error> {
        self.pending.take()
    }

    /// Keeps the first error until somebody waits.
    pub(super) fn keep(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.pending.get_or_insert(error);
        }
    }
}
