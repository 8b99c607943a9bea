//! Where the software NVML and DCGM lie.

use crate::device::libraries;
use std::path::PathBuf;

/// The current one; a copy of the file, once loaded, has a state of its own.
pub fn library() -> PathBuf {
    libraries().join("libnvidia-ml.so.1")
}

/// Without what drivers before 525 do not export.
pub fn old_library() -> PathBuf {
    libraries().join("old/libnvidia-ml.so.1")
}

pub fn dcgm_library() -> PathBuf {
    libraries().join("dcgm/libdcgm.so.4")
}
