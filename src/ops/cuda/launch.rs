//! Launching a kernel: its blocks and threads, its arguments, its shared memory; and the scratch memory kernels share.

use super::memory::CudaMemory;
use super::{Cuda, CudaBuffer};
use crate::machine::driver_error;
use crate::ops::DType;
use crate::{Error, Result};
use cudarc::driver::result;
use std::ffi::c_void;
use std::sync::Arc;

/// Blocks, threads and dynamic shared memory of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks of the grid in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl Geometry {
    /// A launch without dynamic shared memory.
    pub const fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Geometry { grid, block, shared_bytes: 0 }
    }

    /// A launch in one dimension with a thread for each item, in blocks of `threads`.
    pub fn flat(items: usize, threads: u32) -> Self {
        let blocks = u32::try_from(items.div_ceil(threads as usize)).unwrap_or(u32::MAX);
        Geometry::new([blocks, 1, 1], [threads, 1, 1])
    }

    /// The same launch with this number of bytes of dynamic shared memory a block.
    pub const fn shared(self, shared_bytes: u32) -> Self {
        Geometry { shared_bytes, ..self }
    }
}

/// One argument of a kernel, of the size its signature has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg {
    /// A device address; 0 where an optional operand is absent.
    Pointer(u64),
    I32(i32),
    U32(u32),
    U64(u64),
    F32(f32),
}

impl Arg {
    pub const NULL: Arg = Arg::Pointer(0);

    fn address(&mut self) -> *mut c_void {
        match self {
            Arg::Pointer(value) | Arg::U64(value) => std::ptr::from_mut(value).cast(),
            Arg::I32(value) => std::ptr::from_mut(value).cast(),
            Arg::U32(value) => std::ptr::from_mut(value).cast(),
            Arg::F32(value) => std::ptr::from_mut(value).cast(),
        }
    }
}

impl CudaBuffer {
    /// Read by the kernel.
    pub(super) fn arg(&self) -> Arg {
        Arg::Pointer(self.memory.pointer())
    }

    /// Written by the kernel; asks for exclusive access so that no operand can be given twice by mistake.
    pub(super) fn arg_mut(&mut self) -> Arg {
        Arg::Pointer(self.memory.pointer())
    }
}

impl Cuda {
    /// Puts a kernel on the stream. Every pointer among the arguments must have been checked by the caller: a kernel
    /// reads and writes as far as its contract (the head of its `cuda/*.cu`) says.
    pub(super) fn launch(&mut self, kernel: &str, geometry: Geometry, arguments: &mut [Arg]) -> Result<()> {
        self.count_launch()?;
        let function = self.gpu.function(kernel, geometry.shared_bytes)?;
        let mut addresses: Vec<*mut c_void> = arguments.iter_mut().map(Arg::address).collect();
        let tuple = |[x, y, z]: [u32; 3]| (x, y, z);
        self.bind()?;
        // SAFETY: the caller checked lengths and types against the kernel's contract; the addresses point into
        // `arguments`, which the driver copies before it returns.
        let done = unsafe {
            result::launch_kernel(
                function.raw,
                tuple(geometry.grid),
                tuple(geometry.block),
                geometry.shared_bytes,
                self.stream.cu_stream(),
                &mut addresses,
            )
        };
        done.map_err(|e| driver_error(format!("cannot launch {kernel}"), e))
    }

    /// At least that many bytes that no operation owns, aligned to 256: overwritten by the next operation that asks.
    /// Grows on an operation's first run (never later, so never between two stamps or inside a graph's capture).
    pub(super) fn scratch(&mut self, bytes: usize) -> Result<u64> {
        if self.scratch.as_ref().is_none_or(|scratch| scratch.bytes() < bytes) {
            self.require_free(&format!("an operation cannot have {bytes} bytes of scratch memory"))?;
            // What runs still uses the old one; it is freed only when that is done.
            self.stream.synchronize().map_err(|e| driver_error("the GPU failed", e))?;
            self.scratch = None;
            self.scratch = Some(Arc::new(CudaMemory::new(&self.gpu, bytes)?));
        }
        Ok(self.scratch.as_ref().map_or(0, |scratch| scratch.pointer()))
    }
}

/// A number of rows, columns or elements as kernels take it.
pub(super) fn int(what: &str, value: usize) -> Result<i32> {
    i32::try_from(value)
        .map_err(|_| Error::input(format!("{what} of {value}"), format!("the kernels take at most {}", i32::MAX)))
}

/// A buffer too short or of another type would be read beyond its end: refused before the launch.
pub(super) fn check(operation: &str, name: &str, buffer: &CudaBuffer, len: usize, dtype: DType) -> Result<()> {
    if buffer.len() < len || buffer.dtype() != dtype {
        return Err(Error::input(
            format!("{operation}: {name} holds {} {}", buffer.len(), buffer.dtype().name()),
            format!("{len} {} are needed", dtype.name()),
        ));
    }
    Ok(())
}
