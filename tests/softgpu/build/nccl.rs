//! The software NCCL: a library of its own, which finds the driver when it runs.

use super::{compiler, files, objects, shared};
use std::io;
use std::path::Path;

pub fn link(here: &Path, out: &Path, libraries: &shared::Libraries) -> io::Result<()> {
    let sources = files(&here.join("cpp/nccl"), "cpp")?;
    libraries.link("libnccl.so.2", &objects::compile(&compiler(here), &out.join("nccl"), &sources)?)
}
