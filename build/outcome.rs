//! What was built and what was skipped, as the constants that `src/machine/built.rs` includes.

use std::fmt::Write as _;
use std::path::PathBuf;

pub const TOOLKIT_INSTALL: &str = "pip install nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
     nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85";
pub const LIBCLANG_INSTALL: &str = "pip install libclang==18.1.1";
const NCCL_INSTALL: &str = "pip install --no-deps nvidia-nccl-cu13==2.30.7";

/// Why something was not built, and what would cure that.
pub struct Skip {
    reason: String,
    install: Option<&'static str>,
}

impl Skip {
    pub fn new(reason: impl Into<String>) -> Self {
        Skip { reason: reason.into(), install: None }
    }
    pub fn with(reason: impl Into<String>, install: &'static str) -> Self {
        Skip { reason: reason.into(), install: Some(install) }
    }
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A fat binary.
pub struct Module {
    pub name: String,
    pub file: String,
    pub image: PathBuf,
}

/// What ptxas says of a kernel in one architecture.
#[derive(Default)]
pub struct Fact {
    pub name: String,
    pub file: String,
    pub arch: String,
    pub registers: u32,
    pub shared_bytes: u32,
    pub spill_bytes: u32,
}

#[derive(Default)]
pub struct Kernels {
    /// nvcc's version and path.
    pub toolkit: Option<(String, PathBuf)>,
    pub modules: Vec<Module>,
    pub facts: Vec<Fact>,
    pub skip: Option<Skip>,
}

impl Kernels {
    pub fn skipped(skip: Skip) -> Self {
        Kernels { skip: Some(skip), ..Kernels::default() }
    }
}

/// The generated file; its types are those of `src/machine/built.rs`.
pub fn rust_source(kernels: &Kernels, nccl: Option<&Skip>) -> String {
    let mut text = String::from("// Written by build.rs.\n");
    let toolkit = kernels.toolkit.as_ref().map(|(version, path)| (version, path.display().to_string()));
    let _ = writeln!(
        text,
        "/// The version and the folder of the CUDA toolkit this program was built with.\n\
         pub const TOOLKIT: Option<(&str, &str)> = {toolkit:?};"
    );
    text.push_str("/// The kernels' fat binaries.\n");
    text.push_str("pub const MODULES: &[Module] = &[\n");
    for m in &kernels.modules {
        let image = m.image.display().to_string();
        let _ = writeln!(
            text,
            "    Module {{ name: {:?}, file: {:?}, image: include_bytes!({image:?}) }},",
            m.name, m.file
        );
    }
    text.push_str(
        "];\n/// What the compiler says of every kernel in every architecture.\npub const FACTS: &[KernelFacts] = &[\n",
    );
    for f in &kernels.facts {
        let (name, file, arch) = (&f.name, &f.file, &f.arch);
        let (registers, shared, spills) = (f.registers, f.shared_bytes, f.spill_bytes);
        let _ = writeln!(
            text,
            "    KernelFacts {{ name: {name:?}, file: {file:?}, arch: {arch:?}, registers: {registers}, \
             shared_bytes: {shared}, spill_bytes: {spills} }},"
        );
    }
    text.push_str("];\n/// What this program was built without.\npub const MISSING: &[SkippedPart] = &[\n");
    let missing = [("KERNELS", kernels.skip.as_ref(), TOOLKIT_INSTALL), ("NCCL_BINDINGS", nccl, NCCL_INSTALL)];
    for (what, skip, install) in missing.into_iter().filter_map(|(what, skip, install)| Some((what, skip?, install))) {
        let install = skip.install.unwrap_or(install);
        let _ = writeln!(text, "    SkippedPart {{ what: {what}, reason: {:?}, install: {install:?} }},", skip.reason);
    }
    text.push_str("];\n");
    text
}
