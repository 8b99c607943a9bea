//! The software cuBLASLt: the same compiler, and only its own two files.

use super::{HIDDEN, compiler, objects, shared};
use std::io;
use std::path::Path;

pub fn link(here: &Path, libraries: &shared::Libraries) -> io::Result<()> {
    let files = [here.join("cpp/cublaslt.cpp"), here.join("cpp/multiply.cpp")];
    libraries.link("libcublasLt.so.13", &objects(compiler(here).flag_if_supported(HIDDEN).files(files))?)
}
