//! Where the software NVML and DCGM lie.

use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("SOFTGPU_NVML_FOLDER"))
}

/// For LD_LIBRARY_PATH.
pub fn libraries() -> PathBuf {
    folder()
}

/// The current one; a copy of the file, once loaded, has a state of its own.
pub fn library() -> PathBuf {
    folder().join("libnvidia-ml.so.1")
}

/// Without what drivers before 525 do not export.
pub fn old_library() -> PathBuf {
    folder().join("old/libnvidia-ml.so.1")
}

pub fn dcgm_library() -> PathBuf {
    folder().join("dcgm/libdcgm.so.4")
}
