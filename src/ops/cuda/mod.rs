//! The vocabulary on an NVIDIA GPU: the kernels of `cuda/`, embedded in this program by build.rs, and cuBLASLt's products.
//!
//! [`Gpu`] is the device with its kernels, [`Cuda`] a stream on it that implements [`crate::ops::Ops`]. A file an
//! operation: it checks shapes and buffers, chooses blocks and threads (plain arithmetic, tested without a GPU), and
//! launches; the kernel and its contract are in the file of the same name in `cuda/`. Errors are kept until
//! [`crate::ops::Ops::synchronize`].

pub mod attention;
mod buffer;
mod columns;
pub mod conv;
pub mod cross_entropy;
mod cublaslt;
mod device;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
mod gpu;
mod graph;
pub mod groupnorm;
mod impl_ops;
mod launch;
pub mod layernorm;
pub mod lstm;
mod mapped;
mod memory;
pub mod optimizer;
pub mod pool;
pub mod pressure;
pub(crate) mod probe;
pub mod product;
pub mod residual_layernorm;

pub use buffer::CudaBuffer;
pub use device::{Cuda, Priority};
pub use gpu::{Gpu, GpuFacts};
pub use graph::Graph;
pub use launch::Geometry;
pub use pressure::{CudaPressure, PressureControl, PressureKernel, PressureResource};
