//! A loaded NCCL: its version, and the token by which ranks meet.

use super::{UniqueId, sys};
use crate::machine::libraries::{nccl_version_text, open_nccl};
use crate::{Error, Result};
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// The oldest NCCL the calls here are known to work with.
const OLDEST: (i32, &str) = (21800, "2.18");

/// NCCL's library with its functions looked up.
pub struct Nccl {
    api: sys::Library,
    path: PathBuf,
}

impl Nccl {
    /// Loads the library from NCCL_HOME, the loader's path, the toolkit or the active Python's packages.
    pub fn load() -> Result<Self> {
        let (library, path) = open_nccl().ok_or_else(|| {
            Error::machine(
                "no NCCL: libnccl.so.2 is not in NCCL_HOME, on the loader's path or in the active Python's packages",
                "pip install --no-deps nvidia-nccl-cu13==2.30.7, or set NCCL_HOME",
            )
        })?;
        // SAFETY: the library is NCCL (it was searched by name); the bindings are of its header.
        let api = unsafe { sys::Library::from_library(library) }.map_err(|e| unfit(&path, &e.to_string()))?;
        let nccl = Nccl { api, path };
        if nccl.version_code()? < OLDEST.0 {
            let what = format!("NCCL {} at {} is older than {}", nccl.version()?, nccl.path.display(), OLDEST.1);
            return Err(Error::machine(what, "pip install --no-deps nvidia-nccl-cu13==2.30.7"));
        }
        Ok(nccl)
    }

    /// Where it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `2.30.7`
    pub fn version(&self) -> Result<String> {
        self.version_code().map(nccl_version_text)
    }

    fn version_code(&self) -> Result<i32> {
        let function = self.api.ncclGetVersion.as_ref().map_err(|e| unfit(&self.path, &e.to_string()))?;
        let mut code = 0;
        // SAFETY: writes one int.
        self.check("ncclGetVersion", unsafe { function(&mut code) })?;
        Ok(code)
    }

    /// A new token for one communicator; needs no GPU, but a network interface that NCCL accepts.
    pub fn unique_id(&self) -> Result<UniqueId> {
        let function = self.api.ncclGetUniqueId.as_ref().map_err(|e| unfit(&self.path, &e.to_string()))?;
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        // SAFETY: writes the 128 bytes it is given.
        self.check("ncclGetUniqueId", unsafe { function(&mut id) })?;
        Ok(UniqueId(id.internal.map(|byte| byte.to_ne_bytes()[0])))
    }

    /// NCCL's own words for a status that is not success.
    fn check(&self, call: &str, status: sys::ncclResult_t) -> Result<()> {
        if status.0 == 0 {
            return Ok(());
        }
        let words = self.api.ncclGetErrorString.as_ref().ok().map(|function| {
            // SAFETY: returns a static string for any status.
            unsafe { CStr::from_ptr(function(status)) }.to_string_lossy().into_owned()
        });
        let words = words.unwrap_or_else(|| format!("status {}", status.0));
        Err(Error::machine(format!("{call} failed: {words}"), "set NCCL_DEBUG=WARN to see why"))
    }
}

fn unfit(path: &Path, why: &str) -> Error {
    Error::machine(format!("{} is no NCCL this program knows: {why}", path.display()), "install NCCL 2.18 or later")
}
