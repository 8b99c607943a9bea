//! One GPU: its context, a stream, buffers, and the embedded kernels by name.

use super::buffer::{Buffer, from_bytes, to_bytes};
use crate::machine::driver_error;
use crate::machine::{built, gpus};
use crate::ops::DType;
use crate::{Error, Result};
use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::sync::Arc;

/// A GPU that runs the embedded kernels on one stream.
pub struct Cuda {
    pub(super) stream: Arc<CudaStream>,
    pub(super) sms: u32,
    /// For kernels that reduce in two stages; made once, so that no operation allocates.
    pub(super) workspace: Buffer,
    context: Arc<CudaContext>,
    dtype: DType,
    modules: Vec<Arc<CudaModule>>,
    functions: HashMap<String, CudaFunction>,
    pending: Option<Error>,
}

impl Cuda {
    /// Opens device `ordinal` with activations of `dtype`; without driver, device or kernels an error says what is missing.
    pub fn open(ordinal: u32, dtype: DType) -> Result<Self> {
        gpus::require_driver()?;
        if !matches!(dtype, DType::Bf16 | DType::F16 | DType::F32) {
            return Err(Error::input(
                format!("the CUDA kernels have no type {}", dtype.name()),
                "choose bf16, f16 or f32",
            ));
        }
        require_kernels()?;
        let wrap = |e| driver_error(format!("cannot open GPU {ordinal}"), e);
        let context = CudaContext::new(ordinal as usize).map_err(wrap)?;
        // SAFETY: one stream only; every buffer is used on the stream it was made on, so cudarc's events (which would add
        // hidden waits to each launch) have nothing to order.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(wrap)?;
        let sms = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(wrap)?;
        let sms = u32::try_from(sms).unwrap_or(0).max(1);
        let modules = load_modules(&context)?;
        let workspace = allocate(&stream, super::layernorm::workspace_len(sms), DType::F32)?;
        Ok(Cuda { stream, sms, workspace, context, dtype, modules, functions: HashMap::new(), pending: None })
    }

    /// The device's name as the driver tells it.
    pub fn name(&self) -> Result<String> {
        self.context.name().map_err(|e| driver_error("cannot read the GPU's name", e))
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// A buffer of `len` elements, all ones (NaN for floats).
    pub fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        allocate(&self.stream, len, dtype)
    }

    /// Copies from the host, rounding to the buffer's type.
    pub fn write(&mut self, dst: &mut Buffer, values: &[f64]) -> Result<()> {
        let bytes = to_bytes(values, dst.dtype).filter(|_| values.len() == dst.len).ok_or_else(|| {
            let (given, held, dtype) = (values.len(), dst.len, dst.dtype.name());
            Error::input(format!("{given} numbers for a buffer of {held} {dtype}"), "give as many, of a float type")
        })?;
        if bytes.is_empty() {
            return Ok(());
        }
        let copied = self.stream.memcpy_htod(&bytes, &mut dst.bytes).and_then(|()| self.stream.synchronize());
        copied.map_err(|e| driver_error("cannot copy to the GPU", e))
    }

    /// Copies back to the host (waits for the device).
    pub fn read(&mut self, src: &Buffer) -> Result<Vec<f64>> {
        self.synchronize()?;
        let bytes = self.stream.clone_dtoh(&src.bytes).map_err(|e| driver_error("cannot copy from the GPU", e))?;
        self.synchronize()?;
        Ok(from_bytes(&bytes[..src.len * src.dtype.bytes()], src.dtype))
    }

    /// Waits until everything asked for is done; the first error since the last call surfaces here.
    pub fn synchronize(&mut self) -> Result<()> {
        let done = self.stream.synchronize().map_err(|e| driver_error("the GPU failed", e));
        match self.pending.take() {
            Some(error) => Err(error),
            None => done,
        }
    }

    /// Sets every element to zero.
    pub fn zero(&mut self, dst: &mut Buffer) {
        let done = self.stream.memset_zeros(&mut dst.bytes);
        self.keep(done.map_err(|e| driver_error("cannot clear a buffer", e)));
    }

    /// Keeps the first error until the next [`Cuda::synchronize`].
    pub(super) fn keep(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.pending.get_or_insert(error);
        }
    }

    /// The kernel of that name, looked up once.
    pub(super) fn function(&mut self, name: &str) -> Result<CudaFunction> {
        if let Some(function) = self.functions.get(name) {
            return Ok(function.clone());
        }
        let found = self.modules.iter().find_map(|module| module.load_function(name).ok()).ok_or_else(|| {
            Error::machine(
                format!("this program holds no kernel {name}"),
                "run `bubblebench doctor --kernels` to see which it was built with",
            )
        })?;
        self.functions.insert(name.to_string(), found.clone());
        Ok(found)
    }
}

fn require_kernels() -> Result<()> {
    if built::MODULES.is_empty() {
        let why = built::MISSING.iter().find(|m| m.what == built::KERNELS);
        return Err(Error::machine(
            format!(
                "this program was built without CUDA kernels{}",
                why.map_or(String::new(), |m| format!(" ({})", m.reason))
            ),
            format!("{}, then build again", why.map_or("install the CUDA toolkit", |m| m.install)),
        ));
    }
    Ok(())
}

fn load_modules(context: &Arc<CudaContext>) -> Result<Vec<Arc<CudaModule>>> {
    let load = |module: &built::Module| {
        context
            .load_module(Ptx::from_binary(module.image.to_vec()))
            .map_err(|e| driver_error(format!("cannot load the kernels of {}", module.file), e))
    };
    built::MODULES.iter().map(load).collect()
}

fn allocate(stream: &Arc<CudaStream>, len: usize, dtype: DType) -> Result<Buffer> {
    let size = len.checked_mul(dtype.bytes()).ok_or_else(|| {
        Error::input(format!("a buffer of {len} {} is larger than any memory", dtype.name()), "choose a smaller shape")
    })?;
    let poison = || -> std::result::Result<_, DriverError> {
        // An allocation of nothing is an error to the driver.
        // SAFETY: not read before the next line has filled it.
        let mut bytes = unsafe { stream.alloc::<u8>(size.max(1)) }?;
        {
            use cudarc::driver::DevicePtrMut;
            let (pointer, _guard) = bytes.device_ptr_mut(stream);
            // SAFETY: the allocation above is that long and lives on this stream.
            unsafe { result::memset_d8_async(pointer, 0xff, size.max(1), stream.cu_stream()) }?;
        }
        Ok(bytes)
    };
    let bytes = poison().map_err(|e| driver_error(format!("cannot allocate {size} bytes on the GPU"), e))?;
    Ok(Buffer { bytes, len, dtype })
}
