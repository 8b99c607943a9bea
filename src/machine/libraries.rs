//! Opens the libraries a CUDA run loads, wherever they are; [`super::versions`] says which of them there are.
//!
//! The loader's path knows few of them (NCCL and everything that pip installs lie outside it), so they are searched in
//! LD_LIBRARY_PATH, then NCCL_HOME, then where the loader looks, and last in the toolkit and the active Python's packages.

use std::ffi::{OsStr, c_int};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A library as it is asked for: its file names, newest first, and where it may lie beside the loader's path.
pub(super) struct LibraryQuery {
    pub(super) name: &'static str,
    files: &'static [&'static str],
    /// A variable that names a folder with `lib` in it.
    home: &'static str,
    /// Folder below `nvidia/` in Python's packages.
    packages: &'static [&'static str],
    pub(super) version: fn(&libloading::Library) -> Option<String>,
}

pub(super) const CUBLASLT: LibraryQuery = LibraryQuery {
    name: "cublaslt",
    files: &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
    home: "CUDA_HOME",
    packages: &["cu13/lib", "cublas/lib"],
    version: cublaslt_version,
};
pub(super) const NCCL: LibraryQuery = LibraryQuery {
    name: "nccl",
    files: &["libnccl.so.2", "libnccl.so"],
    home: "NCCL_HOME",
    packages: &["nccl/lib"],
    version: nccl_version,
};
/// Versions of these two are not the file's to tell without starting it, and NVML can hang: see `nvml::version`.
pub(super) const NVML: LibraryQuery =
    LibraryQuery { name: "nvml", files: &["libnvidia-ml.so.1"], home: "CUDA_HOME", packages: &[], version: |_| None };
pub(super) const DCGM: LibraryQuery = LibraryQuery {
    name: "dcgm",
    files: &["libdcgm.so.4", "libdcgm.so.3"],
    home: "DCGM_HOME",
    packages: &[],
    version: |_| None,
};

/// Opens NCCL's library wherever it lies, with the path it was loaded from; `None` where it is not found.
pub fn open_nccl() -> Option<(libloading::Library, PathBuf)> {
    open(&NCCL)
}

/// Opens NVML's library, which comes with the driver, with its path; `None` where it is not found.
pub fn open_nvml() -> Option<(libloading::Library, PathBuf)> {
    open(&NVML)
}

/// Opens DCGM's library, with its path; `None` where it is not installed.
pub fn open_dcgm() -> Option<(libloading::Library, PathBuf)> {
    open(&DCGM)
}

/// Loads cuBLASLt from wherever it lies and keeps it, so that a later load by bare name, as cudarc's, finds this one;
/// `None` where there is none.
pub fn keep_cublaslt() -> Option<PathBuf> {
    static KEPT: OnceLock<Option<(libloading::Library, PathBuf)>> = OnceLock::new();
    KEPT.get_or_init(|| open(&CUBLASLT)).as_ref().map(|(_, path)| path.clone())
}

pub(super) fn open(wanted: &LibraryQuery) -> Option<(libloading::Library, PathBuf)> {
    // What was asked for by name comes before what the loader happens to know; a path given for this one run first.
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let given: Vec<PathBuf> = std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty()).collect();
    let home = std::env::var_os(wanted.home).map(PathBuf::from);
    let named = given.into_iter().chain(home.iter().flat_map(|home| ["lib", "lib64"].map(|lib| home.join(lib))));
    let bare = [PathBuf::new()];
    let near = candidates(named.chain(bare), wanted.files);
    if let Some(opened) = near.into_iter().find_map(|path| load(&path)) {
        return Some(opened);
    }
    let usual = [PathBuf::from("/usr/local/cuda/lib64")];
    let packages = wanted
        .packages
        .iter()
        .flat_map(|inside| python_packages().iter().map(move |site| site.join("nvidia").join(inside)));
    candidates(usual.into_iter().chain(packages), wanted.files).into_iter().find_map(|path| load(&path))
}

fn candidates(folders: impl IntoIterator<Item = PathBuf>, files: &[&str]) -> Vec<PathBuf> {
    folders.into_iter().flat_map(|folder| files.iter().map(move |file| folder.join(file)).collect::<Vec<_>>()).collect()
}

fn load(path: &Path) -> Option<(libloading::Library, PathBuf)> {
    // A bare file name is the loader's to find; anything else must be there.
    if path.components().count() > 1 && !path.is_file() {
        return None;
    }
    // SAFETY: NVIDIA's libraries run no code on load that asks anything of us.
    let library = unsafe { libloading::Library::new::<&OsStr>(path.as_os_str()) }.ok()?;
    Some((library, path.to_path_buf()))
}

/// The active Python's package folders, asked once.
fn python_packages() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let python = match std::env::var_os("VIRTUAL_ENV") {
            Some(venv) => PathBuf::from(venv).join("bin/python3"),
            None => PathBuf::from("python3"),
        };
        let script = "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))";
        let Ok(output) = Command::new(python).args(["-c", script]).output() else { return Vec::new() };
        String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
    })
}

fn cublaslt_version(library: &libloading::Library) -> Option<String> {
    // SAFETY: the function takes nothing and returns a size_t (cublasLt.h).
    let version = unsafe { library.get::<unsafe extern "C" fn() -> usize>(b"cublasLtGetVersion\0").ok()?() };
    // 130002 is 13.0.2; before 12 the major was thousands: 11_11_3 as 111103.
    Some(format!("{}.{}.{}", version / 10000, version / 100 % 100, version % 100))
}

/// The text of NCCL's version number: 23007 is `2.30.7` (`NCCL_VERSION` in nccl.h; two digits each since 2.9).
pub fn nccl_version_text(code: c_int) -> String {
    if code < 10_000 {
        return format!("{}.{}.{}", code / 1000, code / 100 % 10, code % 100);
    }
    format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100)
}

fn nccl_version(library: &libloading::Library) -> Option<String> {
    let mut code: c_int = 0;
    // SAFETY: the function writes one int and returns a status (nccl.h).
    let status =
        unsafe { library.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"ncclGetVersion\0").ok()?(&mut code) };
    (status == 0).then(|| nccl_version_text(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(nccl_version_text(23007), "2.30.7");
        assert_eq!(nccl_version_text(21805), "2.18.5");
        assert_eq!(nccl_version_text(2708), "2.7.8");
    }

    #[test]
    fn a_library_that_is_nowhere_is_not_found() {
        let nowhere = LibraryQuery { files: &["libno-such-library.so.7"], ..NCCL };
        assert!(open(&nowhere).is_none());
    }
}
