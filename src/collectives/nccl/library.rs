//! A loaded NCCL: its version, and the unique id by which ranks meet.

use super::{UniqueId, sys};
use crate::machine::libraries::{nccl_version_text, open_nccl};
use crate::{Error, Result};
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

/// The oldest NCCL the calls here are known to work with.
const OLDEST: (i32, &str) = (21800, "2.18");

/// NCCL's library with its functions looked up.
pub struct Nccl {
    api: sys::Library,
    /// The same library again, for functions younger than the oldest header this program is built with.
    again: libloading::Library,
    path: PathBuf,
}

impl Nccl {
    /// Loads the library from `NCCL_HOME`, the loader's path, the toolkit or the active Python's packages; an error
    /// where none is found or it is older than 2.18.
    pub fn load() -> Result<Self> {
        let (library, path) = open_nccl().ok_or_else(|| {
            Error::machine(
                "no NCCL: libnccl.so.2 is not in NCCL_HOME, on the loader's path or in the active Python's packages",
                "pip install --no-deps nvidia-nccl-cu13==2.30.7, or set NCCL_HOME",
            )
        })?;
        // SAFETY: it is loaded already: this counts one more user of it.
        let again = unsafe { libloading::Library::new(path.as_os_str()) }.map_err(|e| unfit(&path, &e.to_string()))?;
        // SAFETY: the library is NCCL (it was searched by name); the bindings are of its header.
        let api = unsafe { sys::Library::from_library(library) }.map_err(|e| unfit(&path, &e.to_string()))?;
        let nccl = Nccl { api, again, path };
        if nccl.version_code()? < OLDEST.0 {
            let what = format!("NCCL {} at {} is older than {}", nccl.version()?, nccl.path.display(), OLDEST.1);
            return Err(Error::machine(what, "pip install --no-deps nvidia-nccl-cu13==2.30.7"));
        }
        Ok(nccl)
    }

    /// The file that the library was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version as text, such as `2.30.7`; an error where the library does not tell it.
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

    /// A new id for one communicator. It needs no GPU, but a network interface that NCCL accepts; an error where there
    /// is none.
    pub fn unique_id(&self) -> Result<UniqueId> {
        let function = self.api.ncclGetUniqueId.as_ref().map_err(|e| unfit(&self.path, &e.to_string()))?;
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        // SAFETY: writes the 128 bytes it is given.
        self.check("ncclGetUniqueId", unsafe { function(&mut id) })?;
        Ok(UniqueId(id.internal.map(|byte| byte.to_ne_bytes()[0])))
    }

    pub(super) fn api(&self) -> &sys::Library {
        &self.api
    }

    /// The version as NCCL's own number, 23007 for 2.30.7; 0 where the library does not tell it.
    pub fn code(&self) -> i32 {
        self.version_code().unwrap_or(0)
    }

    /// A function as the loaded library has it; one that it lacks is an error of the call that needs it.
    pub(super) fn function<F: Copy>(
        &self,
        name: &str,
        pick: impl Fn(&sys::Library) -> &std::result::Result<F, libloading::Error>,
    ) -> Result<F> {
        pick(&self.api).as_ref().copied().map_err(|_| self.lacks(name))
    }

    /// A function that NCCL 2.18 has not; `F` is its type in nccl.h.
    pub(super) fn newer<F: Copy>(&self, name: &str) -> Result<F> {
        // SAFETY: the callers give the type that nccl.h declares.
        let symbol = unsafe { self.again.get::<F>(name.as_bytes()) };
        symbol.map(|function| *function).map_err(|_| self.lacks(name))
    }

    fn lacks(&self, name: &str) -> Error {
        Error::machine(
            format!("NCCL {} at {} has no {name}", self.version().unwrap_or_default(), self.path.display()),
            "leave that option out, or install a newer NCCL: pip install --no-deps nvidia-nccl-cu13==2.30.7",
        )
    }

    /// What NCCL says of a call that concerns no communicator, if it failed.
    pub(super) fn check(&self, call: &str, status: sys::ncclResult_t) -> Result<()> {
        self.check_on(null_mut(), call, status)
    }

    /// What NCCL says of a call on `comm`, alive or null, if its status is neither success nor "in progress".
    pub(super) fn check_on(&self, comm: sys::ncclComm_t, call: &str, status: sys::ncclResult_t) -> Result<()> {
        if is_no_error(status) {
            return Ok(());
        }
        let words = self.words(comm, status);
        Err(Error::machine(format!("{call} failed: {words}"), "set NCCL_DEBUG=WARN to see why"))
    }

    /// NCCL's words for the status and, behind a colon, for what it met last: an error that came between two calls is
    /// the next one's status, and only the latter says what it was.
    pub(super) fn words(&self, comm: sys::ncclComm_t, status: sys::ncclResult_t) -> String {
        // SAFETY: returns a static string for any status.
        let name = self.api.ncclGetErrorString.as_ref().ok().map(|function| text(unsafe { function(status) }));
        // SAFETY: the handle is alive or null, which nccl.h allows; the text is copied before another call.
        let met = self.api.ncclGetLastError.as_ref().ok().map(|function| text(unsafe { function(comm) }));
        let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("status {}", status.0));
        match met.filter(|met| !met.is_empty()) {
            Some(met) => format!("{name}: {}", met.trim_end()),
            None => name,
        }
    }
}

/// Done, or begun and not yet done.
pub(super) const fn is_no_error(status: sys::ncclResult_t) -> bool {
    matches!(status, sys::ncclResult_t::ncclSuccess | sys::ncclResult_t::ncclInProgress)
}

/// NCCL's text; empty where there is none.
fn text(place: *const c_char) -> String {
    if place.is_null() {
        return String::new();
    }
    // SAFETY: not null, and NCCL's texts end with a zero.
    unsafe { CStr::from_ptr(place) }.to_string_lossy().into_owned()
}

fn unfit(path: &Path, why: &str) -> Error {
    Error::machine(format!("{} is no NCCL this program knows: {why}", path.display()), "install NCCL 2.18 or later")
}
