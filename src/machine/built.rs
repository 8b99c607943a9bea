//! What build.rs found and made: the embedded kernels, what the compiler says of them, and what it had to leave out.

/// A fat binary: one file of `cuda/` for every architecture it was compiled for, and PTX for later ones.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    /// The source file's name without its extension, such as `layernorm`.
    pub name: &'static str,
    /// The source file's name below `cuda/`, such as `layernorm.cu`.
    pub file: &'static str,
    /// The fat binary's bytes; the driver loads them only from aligned memory, so they are copied first.
    pub image: &'static [u8],
}

/// What ptxas reports of one kernel in one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelFacts {
    /// The kernel's name, such as `layernorm_forward_bf16`.
    pub name: &'static str,
    /// The source file below `cuda/` that holds the kernel, such as `layernorm.cu`.
    pub file: &'static str,
    /// The architecture that the kernel was compiled for, such as `sm_90a`.
    pub arch: &'static str,
    /// Registers of one thread.
    pub registers: u32,
    /// Bytes of static shared memory of one block; what a launch asks for dynamically comes on top.
    pub shared_bytes: u32,
    /// Bytes of spill stores and spill loads together, or of the thread's stack frame where that is larger; 0 where
    /// everything is kept in registers.
    pub spill_bytes: u32,
}

/// A part of the program that build.rs had to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedPart {
    /// What was left out: [`KERNELS`] or [`NCCL_BINDINGS`].
    pub what: &'static str,
    /// Why it was left out, such as a compiler or header that was not found.
    pub reason: &'static str,
    /// The command that installs what the build lacked; the program must be built again after it.
    pub install: &'static str,
}

/// The name of the CUDA kernels in [`SkippedPart::what`]; without them nothing runs on a GPU.
pub const KERNELS: &str = "CUDA kernels";
/// The name of the NCCL bindings in [`SkippedPart::what`]; without them there are no collectives between GPUs.
pub const NCCL_BINDINGS: &str = "NCCL bindings";

include!(concat!(env!("OUT_DIR"), "/built.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_built_or_their_absence_explained() {
        let skipped = MISSING.iter().any(|m| m.what == KERNELS);
        assert!(skipped || !MODULES.is_empty());
        assert_eq!(MODULES.is_empty(), FACTS.is_empty());
        assert_eq!(cfg!(bubblebench_nccl), !MISSING.iter().any(|m| m.what == NCCL_BINDINGS));
        for missing in MISSING {
            assert!(missing.install.starts_with("pip install ") && !missing.reason.is_empty());
        }
        for fact in FACTS {
            assert!(fact.registers > 0 && fact.arch.starts_with("sm_"), "{fact:?}");
            assert!(MODULES.iter().any(|m| m.file == fact.file));
        }
    }

    /// The kernels keep everything in registers; one that cannot states its budget in its header and is listed here.
    #[test]
    fn no_kernel_spills() {
        let spills: Vec<_> = FACTS.iter().filter(|f| f.spill_bytes > 0).collect();
        assert!(spills.is_empty(), "{spills:?}");
    }
}
