//! What is built beside the Rust code: the CUDA kernels (nvcc → one embedded fat binary per `cuda/*.cu`) and the NCCL
//! bindings (bindgen, loaded at run time). Each is found or skipped: a skip is no error, and `bubblebench doctor` repeats
//! its reason with the line that installs what was missing. What is there or was asked for, and does not serve, is a
//! warning of cargo's as well. Nothing here needs a GPU. The commit is noted for the records.

#[path = "build/commit.rs"]
mod commit;
#[path = "build/kernels.rs"]
mod kernels;
#[path = "build/nccl.rs"]
mod nccl;
#[path = "build/outcome.rs"]
mod outcome;
#[path = "build/search.rs"]
mod search;
#[path = "build/target.rs"]
mod target;

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    if let Some(request) = nccl::child_request() {
        return nccl::generate(&request);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR, and did not"))?);
    let search = search::Search::new();
    let kernels = kernels::build(&search, &out)?;
    let nccl = nccl::build(&search, &out);

    println!("cargo:rustc-check-cfg=cfg(bubblebench_nccl)");
    if nccl.is_ok() {
        println!("cargo:rustc-cfg=bubblebench_nccl");
    }
    fs::write(out.join("built.rs"), outcome::rust_source(&kernels, nccl.as_ref().err()))?;
    // Without a compiler a changed kernel changes nothing here.
    let device = kernels.toolkit.is_some().then_some("cuda");
    for path in ["build.rs", "build"].into_iter().chain(device) {
        println!("cargo:rerun-if-changed={path}");
    }
    search.tell_cargo();
    commit::tell_cargo();
    Ok(())
}
