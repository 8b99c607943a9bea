//! The vocabulary on an NVIDIA GPU: the kernels of `cuda/`, embedded in this program by build.rs, on one stream.
//!
//! [`Cuda`] owns a device's context, a stream and the kernels it has used; errors are kept until
//! [`Cuda::synchronize`], as [`crate::ops::Ops`] wants. Called by `suite` through `Ops`; calls the driver through cudarc.
//! Layer normalisation is here so far; the method names and arguments are already those of `Ops`.

mod buffer;
mod device;
pub mod layernorm;

pub use buffer::Buffer;
pub use device::Cuda;
