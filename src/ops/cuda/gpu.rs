//! One GPU as all streams on it share it: its context, its facts, and the embedded kernels by name.
//!
//! [`super::Cuda`] is a stream on a [`Gpu`]; a main and a side model beside each other are two streams on the same one.

use super::attention;
use super::product::Products;
use crate::machine::{built, driver_error, gpus};
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUfunction, CUmodule};
use cudarc::driver::{CudaContext, CudaEvent, DriverError, result};
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The facts of a GPU that the geometry of launches depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFacts {
    /// The GPU's name as the driver gives it.
    pub name: String,
    /// The number of streaming multiprocessors (SMs).
    pub sms: u32,
    /// Bytes of the L2 cache.
    pub l2_bytes: u64,
    /// Bytes of shared memory that a block may opt in to.
    pub shared_bytes: u32,
    /// The compute capability times ten: 80 for 8.0.
    pub capability: u32,
    /// Whether this is the software device of tests, which gives right results and meaningless times.
    pub software: bool,
}

/// An open GPU as all streams on it share it: its context, its facts, the embedded kernels and the plans of products.
pub struct Gpu {
    /// Somebody has waited for its clock to become steady.
    warmed: AtomicBool,
    // Before the context: its handle is destroyed while that is there.
    pub(super) products: Products,
    context: Arc<CudaContext>,
    facts: GpuFacts,
    /// `BUBBLEBENCH_WGMMA` asks for Hopper's attention, and this is one.
    pub(super) wgmma: bool,
    modules: Vec<Module>,
    functions: Mutex<HashMap<String, Function>>,
}

/// A kernel, and the dynamic shared memory it may have so far.
#[derive(Clone, Copy)]
pub(super) struct Function {
    pub raw: CUfunction,
    pub shared_bytes: u32,
}

// SAFETY: a function handle is a name for immutable code; the driver allows its use from any thread.
unsafe impl Send for Function {}

struct Module(CUmodule);

// SAFETY: as for functions.
unsafe impl Send for Module {}
// SAFETY: as for functions; it is only read.
unsafe impl Sync for Module {}

/// Dynamic shared memory a kernel may have without asking.
const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

impl Gpu {
    /// Opens device `ordinal`; without driver, device or kernels an error says what is missing.
    pub fn open(ordinal: u32) -> Result<Arc<Self>> {
        gpus::require_driver()?;
        let wrap = |e| driver_error(format!("cannot open GPU {ordinal}"), e);
        let context = CudaContext::new(ordinal as usize).map_err(wrap)?;
        // SAFETY: buffers are used on the stream they were made on, or after a synchronisation, so cudarc's events
        // (which would add hidden waits to each launch) have nothing to order.
        unsafe { context.disable_event_tracking() };
        let facts = facts(&context).map_err(wrap)?;
        let wgmma = attention::wgmma_wanted(attention::wgmma_switch(), facts.capability)?;
        let modules = load_modules(&facts)?;
        Ok(Arc::new(Gpu {
            warmed: AtomicBool::new(false),
            products: Products::default(),
            context,
            facts,
            wgmma,
            modules,
            functions: Mutex::default(),
        }))
    }

    /// The facts of this GPU that launches depend on, asked of the driver when it was opened.
    pub fn facts(&self) -> &GpuFacts {
        &self.facts
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// An event with a time in it (cudarc's default has none).
    pub(crate) fn timed_event(&self) -> Result<CudaEvent> {
        let made = self.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
        made.map_err(|e| driver_error("cannot make an event", e))
    }

    /// True the first time somebody asks.
    pub(crate) fn is_cold(&self) -> bool {
        !self.warmed.swap(true, Ordering::Relaxed)
    }

    /// The kernel of that name, allowed at least that much dynamic shared memory.
    pub(super) fn function(&self, name: &str, shared_bytes: u32) -> Result<Function> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = functions.get(name).copied();
        let mut function = match known {
            Some(function) => function,
            None => Function { raw: self.look_up(name)?, shared_bytes: DEFAULT_SHARED_BYTES },
        };
        if shared_bytes > function.shared_bytes {
            allow_shared(function.raw, shared_bytes).map_err(|e| {
                driver_error(format!("kernel {name} cannot have {shared_bytes} bytes of shared memory"), e)
            })?;
            function.shared_bytes = shared_bytes;
        }
        if known.is_none_or(|known| known.shared_bytes < function.shared_bytes) {
            functions.insert(name.to_string(), function);
        }
        Ok(function)
    }

    fn look_up(&self, name: &str) -> Result<CUfunction> {
        let missing = || {
            Error::machine(
                format!("this program holds no kernel {name}"),
                "run `bubblebench doctor --kernels` to see which it was built with",
            )
        };
        let text = CString::new(name).map_err(|_| missing())?;
        // SAFETY: the modules were loaded in this context, which lives as long as `self`.
        let find = |module: &Module| unsafe { result::module::get_function(module.0, text.clone()) }.ok();
        self.modules.iter().find_map(find).ok_or_else(missing)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        for module in &self.modules {
            // SAFETY: loaded by `open`; no stream on this GPU is left, each holds the GPU.
            let _ = unsafe { result::module::unload(module.0) };
        }
    }
}

fn allow_shared(function: CUfunction, bytes: u32) -> std::result::Result<(), DriverError> {
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function came from a module that is loaded.
    unsafe { sys::cuFuncSetAttribute(function, attribute, i32::try_from(bytes).unwrap_or(i32::MAX)) }.result()
}

fn facts(context: &Arc<CudaContext>) -> std::result::Result<GpuFacts, DriverError> {
    let ask = |attribute| context.attribute(attribute).map(|value| u32::try_from(value).unwrap_or(0));
    let name = context.name()?;
    Ok(GpuFacts {
        sms: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1),
        l2_bytes: u64::from(ask(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        shared_bytes: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        capability: 10 * ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?
            + ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        software: name == gpus::SOFTWARE_DEVICE,
        name,
    })
}

/// What a fat binary is on the software device, which brings its own kernels.
const SOFTWARE_IMAGE: &[u8] = b"the kernels of softgpu\0";

fn load_modules(facts: &GpuFacts) -> Result<Vec<Module>> {
    if facts.software {
        return Ok(vec![load("softgpu", SOFTWARE_IMAGE, facts)?]);
    }
    require_kernels()?;
    built::MODULES.iter().map(|module| load(module.file, module.image, facts)).collect()
}

fn load(file: &str, image: &[u8], facts: &GpuFacts) -> Result<Module> {
    // Embedded bytes start anywhere; the driver wants an image aligned as an allocation is.
    let image = image.to_vec();
    // SAFETY: a fat binary knows its own length; the context is current on this thread; the driver copies the image.
    let loaded = unsafe { result::module::load_data(image.as_ptr().cast()) };
    loaded.map(Module).map_err(|e| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => Error::machine(
            format!(
                "the kernels of {file} hold no image for {} (compute capability {}.{})",
                facts.name,
                facts.capability / 10,
                facts.capability % 10
            ),
            "this needs a GPU of compute capability 8.0 or newer; for a newer one than this program knows, build with its CUDA toolkit",
        ),
        sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => Error::machine(
            format!("the driver is older than the CUDA toolkit the kernels of {file} were built with"),
            "update the NVIDIA driver (580 or later)",
        ),
        _ => driver_error(format!("cannot load the kernels of {file}"), e),
    })
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
