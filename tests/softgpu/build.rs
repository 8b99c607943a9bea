//! Compiles every `cuda/*.cu` as C++ for the emulation (the `cc` crate, always optimised), and makes of the objects both
//! a static library, for tests that launch kernels directly, and the software CUDA driver `libcuda.so.1`.
//!
//! A kernel file becomes an object through a generated wrapper whose `softgpu_link_<file>` function the generated
//! registry calls: that keeps the object, and with it the kernels it registers, in the final link.

#[path = "build/cublaslt.rs"]
mod cublaslt;
#[path = "build/nccl.rs"]
mod nccl;
#[path = "build/nvml.rs"]
mod nvml;
#[path = "build/objects.rs"]
mod objects;
#[path = "build/shared.rs"]
mod shared;
#[path = "../../build/target.rs"]
mod target;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR, and did not"))?);
    let device = here.join("../../cuda").canonicalize()?;
    println!("cargo:rerun-if-changed={}", device.display());
    for watched in ["cpp", "include", "build", "build.rs", "../../build/target.rs"] {
        println!("cargo:rerun-if-changed={}", here.join(watched).display());
    }
    let libraries = shared::Libraries::new(&out)?;
    println!("cargo:rustc-env=SOFTGPU_LIBRARIES={}", libraries.folder().display());
    // Without it a deleted library would stay deleted.
    for library in ["libcuda.so.1", "libcublasLt.so.13", "libnccl.so.2"] {
        println!("cargo:rerun-if-changed={}", libraries.folder().join(library).display());
    }
    let kernels = kernel_objects(&here, &device, &out)?;
    let mut archive = compiler(&here);
    for object in &kernels {
        archive.object(object);
    }
    archive.try_compile("softgpu_kernels").map_err(|e| io::Error::other(e.to_string()))?;
    let driver = objects::compile(&compiler(&here), &out, &files(&here.join("cpp/driver"), "cpp")?)?;
    libraries.link("libcuda.so.1", &[kernels, driver].concat())?;
    cublaslt::link(&here, &out, &libraries)?;
    nccl::link(&here, &out, &libraries)?;
    nvml::build(&here, libraries.folder())
}

/// The flags every file is compiled with. A library's symbols are those it exports on purpose: the copies of the kernels
/// in a test's own program stay apart.
fn compiler(here: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").debug(false).opt_level(2).warnings(true).extra_warnings(true);
    build.define("BUBBLEBENCH_HOST_EMULATION", None).include(here.join("include"));
    // The language's own constructs, not mistakes: `#pragma unroll`, and one definition of a template's static per file.
    build.flag_if_supported("-Wno-unknown-pragmas").flag_if_supported("-Wno-subobject-linkage");
    build.flag_if_supported("-fvisibility=hidden");
    build
}

/// The executor, every kernel file, and the registry that names them.
fn kernel_objects(here: &Path, device: &Path, out: &Path) -> io::Result<Vec<PathBuf>> {
    let mut kernels = files(device, "cu")?;
    kernels.push(here.join("cpp/selftest.cu"));
    let mut sources = vec![here.join("cpp/executor.cpp"), here.join("cpp/signals.cpp")];
    let mut registry = String::new();
    let mut calls = String::new();
    for source in &kernels {
        let stem = source.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_string();
        let wrapper = out.join(format!("{stem}_kernels.cpp"));
        // A namespace for each file: on a GPU they are programs of their own, where one name may mean two things.
        let text = format!(
            "#define bubblebench bubblebench_{stem}\n#include \"{}\"\nextern \"C\" void softgpu_link_{stem}() {{}}\n",
            source.display()
        );
        write_if_new(&wrapper, &text)?;
        sources.push(wrapper);
        let _ = writeln!(registry, "extern \"C\" void softgpu_link_{stem}();");
        let _ = writeln!(calls, "    softgpu_link_{stem}();");
    }
    let file = out.join("registry.cpp");
    write_if_new(&file, &format!("{registry}extern \"C\" void softgpu_link_kernels() {{\n{calls}}}\n"))?;
    sources.push(file);
    objects::compile(&compiler(here), out, &sources)
}

fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn write_if_new(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)
}
