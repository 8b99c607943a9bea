//! Which CUDA device a test process runs on: a GPU where there is one, else the software device.
//!
//! The choice falls once a process and before the driver is first used, because the loader keeps the first library of a
//! name: the software driver is loaded by its path, and whoever asks for `libcuda.so.1` afterwards gets it.

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{c_int, c_uint};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the software libraries lie: `LD_LIBRARY_PATH` for programs started from a test.
pub fn libraries() -> &'static Path {
    Path::new(env!("SOFTGPU_LIBRARIES"))
}

/// A folder with a driver that lacks one function, as an older one does: for `LD_LIBRARY_PATH`.
///
/// It is a copy of ours in which the function's name is another, so that the loader does not find it.
pub fn without(symbol: &str) -> std::io::Result<PathBuf> {
    let folder = libraries().join("without").join(symbol);
    std::fs::create_dir_all(&folder)?;
    let mut library = std::fs::read(libraries().join("libcuda.so.1"))?;
    let name = [&[0], symbol.as_bytes(), &[0]].concat();
    let places: Vec<usize> = (0..library.len() - name.len()).filter(|&at| library[at..].starts_with(&name)).collect();
    if places.is_empty() {
        return Err(std::io::Error::other(format!("the software driver has no {symbol} to leave out")));
    }
    for at in places {
        library[at + 1] = b'-';
    }
    // Tests beside each other, in this process and in others, ask for the same one.
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    let copy = COPIES.fetch_add(1, Ordering::Relaxed);
    let part = folder.join(format!("libcuda.so.1.{}-{copy}", std::process::id()));
    std::fs::write(&part, library)?;
    std::fs::rename(part, folder.join("libcuda.so.1"))?;
    Ok(folder)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Gpu,
    Software,
}

/// `BUBBLEBENCH_TEST_DEVICE` = `gpu` or `softgpu` decides; without it a GPU is taken where there is one. `Err` says why
/// the device asked for is not there.
pub fn choose() -> Result<Device, String> {
    static CHOICE: OnceLock<Result<Device, String>> = OnceLock::new();
    CHOICE
        .get_or_init(|| match std::env::var("BUBBLEBENCH_TEST_DEVICE").as_deref() {
            Ok("gpu") => gpu().map(|()| Device::Gpu),
            Ok("softgpu") => software().map(|()| Device::Software),
            Ok(other) if other != "auto" => {
                Err(format!("BUBBLEBENCH_TEST_DEVICE={other}: choose gpu, softgpu or auto"))
            }
            _ => gpu().map(|()| Device::Gpu).or_else(|_| software().map(|()| Device::Software)),
        })
        .clone()
}

/// Asks the system's driver for a device. A driver that shows none stays loaded only if it was asked for.
fn gpu() -> Result<(), String> {
    // SAFETY: the driver's initialisers are its own affair; it is what the program would load as well.
    let driver = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW) }.map_err(|e| e.to_string())?;
    // SAFETY: the signatures are those of the CUDA driver API.
    let (init, count) = unsafe {
        let init = driver.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit");
        (init, driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDeviceGetCount"))
    };
    let (init, count) = (init.map_err(|e| e.to_string())?, count.map_err(|e| e.to_string())?);
    let mut devices = 0;
    // SAFETY: as documented by the driver; `devices` is written.
    let codes = unsafe { (init(0), count(&mut devices)) };
    match (codes, devices) {
        ((0, 0), 1..) => Ok(()),
        ((0, 0), _) => Err("the CUDA driver shows no GPU".into()),
        ((init, count), _) => Err(format!("the CUDA driver answers {init} and {count}")),
    }
}

fn software() -> Result<(), String> {
    for entry in std::fs::read_dir(libraries()).map_err(|e| format!("{}: {e}", libraries().display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // Not the temporary files of a build beside this test.
        if !name.starts_with("lib") || name.rsplit('.').next().is_none_or(|last| last.parse::<u8>().is_err()) {
            continue;
        }
        // SAFETY: our own library.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| e.to_string())?;
        // It stays until the process ends: what asks for it later finds it by its name.
        std::mem::forget(library);
    }
    Ok(())
}
