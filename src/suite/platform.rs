//! What a run measures on, as the lists of cases see it.

use crate::machine::Device;
use crate::records::measurement::Backend;

/// Host, GPU, or the software GPU of tests, whose lists hold what fibers can compute in seconds.
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
    /// `software`: the device is the software one.
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

    /// Of a CUDA device.
    pub const fn ordinal(self) -> u32 {
        match self {
            Platform::Host => 0,
            Platform::Gpu(ordinal) | Platform::Software(ordinal) => ordinal,
        }
    }
}
