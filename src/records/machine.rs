//! `machine.json`: what the machine is, and which run its folder holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Value of `schema` in every `machine.json`: name and version of the format.
pub const SCHEMA: &str = "bubblebench.machine/1";

/// The machine that a results folder is of, and the run whose measurements it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineRecord {
    /// Always `bubblebench.machine/1`: name and version of this format.
    pub schema: String,
    /// The machine's name in lower-case letters, digits and hyphens, which is also its folder's name under `results/`.
    pub name: String,
    /// The host's processor.
    pub cpu: Cpu,
    /// The host's memory in bytes; null where it could not be read, and for imported results.
    pub memory_bytes: Option<u64>,
    /// The GPUs that the CUDA driver shows, or that the imported file names; empty where the host itself was measured.
    pub gpus: Vec<Gpu>,
    /// Versions of `driver`, `cuda`, `cublaslt`, `nccl` and `nvcc`, by name, or of the tool whose output was imported;
    /// null where absent.
    pub versions: BTreeMap<String, Option<String>>,
    /// How each pair of GPUs is connected, one line a pair: peer access, NVLinks, distance on PCIe; empty with fewer
    /// than two GPUs.
    pub topology: Vec<String>,
    /// The operating system's kernel and its release, as `Linux 6.1.0`; `unknown` for imported results.
    pub kernel: String,
    /// The network name of the host; null where it is not known.
    pub hostname: Option<String>,
    /// Environment variables of the run: only names that start with `NCCL_` or `CUDA_`, `RAYON_NUM_THREADS`,
    /// `OMP_NUM_THREADS` and `BUBBLEBENCH_WGMMA`.
    pub environment: BTreeMap<String, String>,
    /// The run whose measurements lie beside this file.
    pub run: RunInfo,
}

/// The host's processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// The processor's model name as the operating system gives it; `unknown`, perhaps with the architecture, where it
    /// does not.
    pub model: String,
    /// Cores that this process may use; 0 for imported results, which do not say it.
    pub cores: u64,
    /// Size in bytes of one instance of the last-level cache, the first core's; null where it could not be read.
    pub last_level_cache_bytes: Option<u64>,
    /// Instruction sets present of those that matter to matrix products: `avx2`, `fma`, `avx512bf16`, `neon`, …
    pub features: Vec<String>,
    /// Linux's frequency governor of the first core, as `performance`; null where there is none to read, as in most
    /// virtual machines.
    pub governor: Option<String>,
}

/// One GPU as the CUDA driver describes it, with its state when the run began where NVML tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// The GPU's number in CUDA's order, which CUDA_VISIBLE_DEVICES changes.
    pub index: u64,
    /// The product's name as the driver gives it, as `NVIDIA H200`.
    pub name: String,
    /// The GPU's UUID as nvidia-smi writes it, `GPU-…`; null where it is not known.
    pub uuid: Option<String>,
    /// CUDA compute capability, as `9.0`; empty where an imported file does not say it.
    pub compute_capability: String,
    /// Number of streaming multiprocessors (SMs); 0 where an imported file does not say it.
    pub sms: u64,
    /// The GPU's memory in bytes; 0 where an imported file does not say it.
    pub memory_bytes: u64,
    /// Size of the L2 cache in bytes; 0 where an imported file does not say it.
    pub l2_bytes: u64,
    /// SM clock when the run began, in MHz; null where NVML gave no answer.
    pub sm_clock_mhz: Option<u64>,
    /// Highest SM clock the GPU can run at, in MHz; null where neither NVML nor the driver tells it.
    pub sm_clock_max_mhz: Option<u64>,
    /// SM clock that an administrator set for applications, in MHz; null where NVML gave no answer.
    #[serde(default)]
    pub sm_clock_application_mhz: Option<u64>,
    /// Memory clock when the run began, in MHz; null where NVML gave no answer.
    pub memory_clock_mhz: Option<u64>,
    /// Highest memory clock the GPU can run at, in MHz; null where neither NVML nor the driver tells it.
    #[serde(default)]
    pub memory_clock_max_mhz: Option<u64>,
    /// Memory clock that an administrator set for applications, in MHz; null where NVML gave no answer.
    #[serde(default)]
    pub memory_clock_application_mhz: Option<u64>,
    /// Power limit of the board in watts; null where NVML gave no answer.
    pub power_limit_w: Option<f64>,
    /// Whether error-correcting memory (ECC) is switched on; null where NVML gave no answer.
    #[serde(default)]
    pub ecc: Option<bool>,
    /// Whether the GPU is divided into instances (MIG mode); null where NVML gave no answer, as for GPUs without MIG.
    #[serde(default)]
    pub mig: Option<bool>,
    /// Whether persistence mode is on, in which the driver keeps an idle GPU awake; null where NVML gave no answer.
    #[serde(default)]
    pub persistence: Option<bool>,
    /// Which processes may compute on the GPU: `default`, `prohibited` or `exclusive-process`; null where NVML gave no
    /// answer.
    #[serde(default)]
    pub compute_mode: Option<String>,
    /// Number of NVLinks that are up; null where no link answers.
    #[serde(default)]
    pub nvlinks: Option<u64>,
}

/// The run that the measurements beside this file belong to: an unfinished one goes on if machine, commit, preset and
/// device are the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    /// The run's identity, made of its start and process id; every line of `measurements.jsonl` repeats it in `run`.
    pub id: String,
    /// Commit that the program was built from; null where the build did not know it, and for imported results.
    pub commit: Option<String>,
    /// The preset, which sets cases and precision: `quick`, `standard` or `full`; `imported` for imported results.
    pub preset: String,
    /// The device measured: `host` or `cuda:N`; `cuda` alone for imported results.
    pub device: String,
    /// The command line of the last start of the run, program and arguments one by one.
    pub command: Vec<String>,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// Version of what the cases measure: under two versions a case of one name may be of two things. Null where it is not
    /// known, as in files of earlier programs, and for imported results.
    #[serde(default)]
    pub case_definitions: Option<u32>,
}

/// Makes a folder's name from a device's: lower-case ASCII letters and digits with single hyphens between words, or
/// `unknown-machine` where the text has none of them.
pub fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    if words.is_empty() { "unknown-machine".to_string() } else { words.join("-") }
}

/// Whether a record may hold the environment variable of this name; never the whole environment, which holds secrets.
pub fn recorded_variable(name: &str) -> bool {
    let whole = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "BUBBLEBENCH_WGMMA"];
    name.starts_with("NCCL_") || name.starts_with("CUDA_") || whole.contains(&name)
}
