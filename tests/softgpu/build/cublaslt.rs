//! The software cuBLASLt: the same compiler, and only its own two files.

use super::{compiler, objects, shared};
use std::io;
use std::path::Path;

pub fn link(here: &Path, out: &Path, libraries: &shared::Libraries) -> io::Result<()> {
    let files = [here.join("cpp/cublaslt.cpp"), here.join("cpp/multiply.cpp")];
    libraries.link("libcublasLt.so.13", &objects::compile(&compiler(here), out, &files)?)
}
