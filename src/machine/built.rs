//! What build.rs found and made: the embedded kernels, what the compiler says of them, and what it had to leave out.

/// A fat binary: one file of `cuda/` for every architecture it was compiled for, and PTX for later ones.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    pub name: &'static str,
    pub file: &'static str,
    pub image: &'static [u8],
}

/// A kernel in one architecture, as ptxas reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelFacts {
    pub name: &'static str,
    pub file: &'static str,
    /// `sm_90a`
    pub arch: &'static str,
    pub registers: u32,
    /// Static shared memory.
    pub shared_bytes: u32,
    /// Bytes stored to and loaded from local memory because registers ran out.
    pub spill_bytes: u32,
}

/// Something build.rs skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedPart {
    pub what: &'static str,
    pub reason: &'static str,
    /// The command that installs it; the program must be built again after it.
    pub install: &'static str,
}

pub const KERNELS: &str = "CUDA kernels";
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
