//! What a run measures on, as the lists of cases see it.

use crate::machine::Device;
use crate::records::measurement::Backend;

/// What a run measures on, which decides the lists of cases: the software device's hold what the CPU computes in
/// seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// The CPU.
    Host,
    /// A GPU, by its CUDA ordinal.
    Gpu(u32),
    /// The software device for tests (docs/software-device.md), by its CUDA ordinal; its times mean nothing.
    Software(u32),
}

impl Platform {
    /// The platform of a device; `software` says that the CUDA driver is the software device.
    pub const fn of(device: Device, software: bool) -> Self {
        match device {
            Device::Host => Platform::Host,
            Device::Cuda(ordinal) if software => Platform::Software(ordinal),
            Device::Cuda(ordinal) => Platform::Gpu(ordinal),
        }
    }

    /// The backend that records of this platform carry; the software device's is CUDA.
    pub const fn backend(self) -> Backend {
        match self {
            Platform::Host => Backend::Host,
            Platform::Gpu(_) | Platform::Software(_) => Backend::Cuda,
        }
    }

    /// The CUDA ordinal; 0 on the host, which has none.
    pub const fn ordinal(self) -> u32 {
        match self {
            Platform::Host => 0,
            Platform::Gpu(ordinal) | Platform::Software(ordinal) => ordinal,
        }
    }
}
