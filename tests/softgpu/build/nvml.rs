//! The software libnvidia-ml.so.1 (and libdcgm.so.4) as shared libraries below `<target dir>/softgpu`, where a program
//! started with LD_LIBRARY_PATH finds them: `libnvidia-ml.so.1` itself, `old/` with what drivers before 525 export, and
//! `dcgm/` apart from it, because most machines have none. `softgpu::nvml` tells tests the paths.

use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

/// Linux only: elsewhere there is no such library to stand in for. `folder` is on the loader's path in tests.
pub fn build(here: &Path, folder: &Path) -> io::Result<()> {
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return Ok(());
    }
    let nvml = here.join("cpp/nvml.cpp");
    library(&nvml, folder, "libnvidia-ml.so.1", &[])?;
    library(&nvml, &folder.join("old"), "libnvidia-ml.so.1", &["-DSOFTGPU_NVML_OLD"])?;
    library(&here.join("cpp/dcgm.cpp"), &folder.join("dcgm"), "libdcgm.so.4", &[])
}

/// Put in its place by a rename: a test that has the old file open keeps it.
fn library(source: &Path, folder: &Path, name: &str, flags: &[&str]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let fresh = folder.join(format!(".{name}.{}", std::process::id()));
    let mut compiler = compiler();
    compiler.args(["-std=c++17", "-O2", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra"]);
    compiler.args(flags).arg(source).arg("-o").arg(&fresh).arg(format!("-Wl,-soname,{name}"));
    let status = compiler.status()?;
    if !status.success() {
        return Err(io::Error::other(format!("{} could not be linked: {status}", source.display())));
    }
    // Without this a deleted library would stay deleted.
    println!("cargo:rerun-if-changed={}", folder.join(name).display());
    crate::shared::place(&fresh, &folder.join(name))
}

fn compiler() -> Command {
    cc::Build::new().cpp(true).debug(false).get_compiler().to_command()
}
