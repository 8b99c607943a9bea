//! Runs the CUDA kernels in `cuda/` on the CPU: every CUDA thread is a fiber, blocks run in sequence, fibers change at
//! barriers and warp-wide operations only. For tests: `tests/kernels.rs` compares what comes out with an f64 reference,
//! and tests this emulation itself on kernels that are wrong on purpose (cpp/selftest.cu).
//!
//! [`launch`] takes a kernel by name with its arguments, as the driver does, and is as strict: a wrong argument list, too
//! many threads, too much shared memory, a misaligned 16-byte access or threads that wait at different barriers are
//! errors, never results. [`Order::Shuffled`] lets lanes and warps take turns at random between their meeting points, so
//! that a missing barrier shows. Buffers have NaN on both sides and notice writes beyond their ends.

//!
//! The same emulation stands behind a software CUDA driver (`libcuda.so.1` in [`device::libraries`]): the program itself,
//! or a test in its own process ([`device::choose`]), runs on it as on a GPU.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;

mod buffer;
pub mod device;
pub mod nvml;
pub use buffer::{Buffer, Element};

/// Dynamic shared memory a block may have without asking for more.
pub const DEFAULT_SHARED_BYTES: u32 = 48 << 10;

/// In which order fibers run between their meeting points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    InTurn,
    /// At random, the same way for the same seed.
    Shuffled(u64),
}

/// Grid, block and shared memory of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    /// What `cuFuncSetAttribute` would have allowed; [`DEFAULT_SHARED_BYTES`] where it was not called.
    pub shared_limit_bytes: u32,
    pub order: Order,
}

impl Config {
    pub const fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Config { grid, block, shared_bytes: 0, shared_limit_bytes: DEFAULT_SHARED_BYTES, order: Order::InTurn }
    }
    pub const fn shared(self, shared_bytes: u32) -> Self {
        Config { shared_bytes, ..self }
    }
    pub const fn order(self, order: Order) -> Self {
        Config { order, ..self }
    }
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum Arg {
    Pointer(*mut c_void),
    I32(i32),
    F32(f32),
}

impl Arg {
    pub const NULL: Arg = Arg::Pointer(std::ptr::null_mut());

    fn bytes(&self) -> usize {
        match self {
            Arg::Pointer(_) => size_of::<*mut c_void>(),
            Arg::I32(_) | Arg::F32(_) => 4,
        }
    }

    fn address(&self) -> *mut c_void {
        match self {
            Arg::Pointer(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Arg::I32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Arg::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
        }
    }
}

/// Why a launch did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// The same layout stands in cpp/launch.h.
#[repr(C)]
struct RawLaunch {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    shared_limit_bytes: u32,
    seed: u64,
    shuffled: c_int,
}

#[repr(C)]
struct RawArguments {
    values: *const *mut c_void,
    bytes: *const usize,
    count: usize,
}

unsafe extern "C" {
    fn softgpu_link_kernels();
    fn softgpu_launch(
        name: *const c_char,
        launch: *const RawLaunch,
        arguments: *const RawArguments,
        message: *mut c_char,
        message_bytes: usize,
    ) -> c_int;
    fn softgpu_kernel_name(index: usize) -> *const c_char;
}

/// Runs a kernel to its end.
///
/// # Safety
/// Pointers among the arguments must reach as far as the kernel accesses them for the given shape; [`Buffer`]s notice
/// small overruns, no more. Sizes and number of arguments are checked.
pub unsafe fn launch(kernel: &str, config: Config, arguments: &[Arg]) -> Result<(), Failure> {
    let name = CString::new(kernel).map_err(|_| Failure("a kernel's name holds a NUL".to_string()))?;
    let (seed, shuffled) = match config.order {
        Order::InTurn => (0, 0),
        Order::Shuffled(seed) => (seed, 1),
    };
    let raw = RawLaunch {
        grid: config.grid,
        block: config.block,
        shared_bytes: config.shared_bytes,
        shared_limit_bytes: config.shared_limit_bytes,
        seed,
        shuffled,
    };
    let values: Vec<*mut c_void> = arguments.iter().map(Arg::address).collect();
    let bytes: Vec<usize> = arguments.iter().map(Arg::bytes).collect();
    let packed = RawArguments { values: values.as_ptr(), bytes: bytes.as_ptr(), count: arguments.len() };
    let mut message = [0 as c_char; 1024];
    // SAFETY: every pointer lives until the call returns; `message` is that long and comes back NUL-terminated; what the
    // kernel does with its own pointers is the caller's promise.
    let failed = unsafe {
        softgpu_link_kernels();
        softgpu_launch(name.as_ptr(), &raw, &packed, message.as_mut_ptr(), message.len())
    };
    if failed == 0 {
        return Ok(());
    }
    // SAFETY: NUL-terminated by the call above.
    let text = unsafe { CStr::from_ptr(message.as_ptr()) };
    Err(Failure(text.to_string_lossy().into_owned()))
}

/// The names of all kernels, those of the emulation's own tests included.
pub fn kernels() -> Vec<String> {
    // SAFETY: an empty function.
    unsafe { softgpu_link_kernels() };
    let mut names = Vec::new();
    loop {
        // SAFETY: returns a static string, or null past the last.
        let name = unsafe { softgpu_kernel_name(names.len()) };
        if name.is_null() {
            names.sort();
            return names;
        }
        // SAFETY: not null, so a static NUL-terminated string.
        names.push(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
    }
}
