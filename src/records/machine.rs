//! `machine.json`: what the machine is, and which run its folder holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const SCHEMA: &str = "bubblebench.machine/1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineRecord {
    pub schema: String,
    /// Slug: the folder's name.
    pub name: String,
    pub cpu: Cpu,
    pub memory_bytes: Option<u64>,
    pub gpus: Vec<Gpu>,
    /// Driver, CUDA, cuBLASLt, NCCL, … by name; null where absent.
    pub versions: BTreeMap<String, Option<String>>,
    /// GPU-to-GPU links as the driver tells them, one line each; empty without GPUs.
    pub topology: Vec<String>,
    pub kernel: String,
    pub hostname: Option<String>,
    /// Only names that start with `NCCL_` or `CUDA_`, `RAYON_NUM_THREADS`, `OMP_NUM_THREADS` and `BUBBLEBENCH_WGMMA`.
    pub environment: BTreeMap<String, String>,
    pub run: RunInfo,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    pub model: String,
    pub cores: u64,
    pub last_level_cache_bytes: Option<u64>,
    pub features: Vec<String>,
    pub governor: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    pub index: u64,
    pub name: String,
    pub uuid: Option<String>,
    pub compute_capability: String,
    pub sms: u64,
    pub memory_bytes: u64,
    pub l2_bytes: u64,
    /// When the run began.
    pub sm_clock_mhz: Option<u64>,
    pub sm_clock_max_mhz: Option<u64>,
    /// What an administrator set.
    #[serde(default)]
    pub sm_clock_application_mhz: Option<u64>,
    pub memory_clock_mhz: Option<u64>,
    #[serde(default)]
    pub memory_clock_max_mhz: Option<u64>,
    #[serde(default)]
    pub memory_clock_application_mhz: Option<u64>,
    pub power_limit_w: Option<f64>,
    /// Modes, as NVML tells them.
    #[serde(default)]
    pub ecc: Option<bool>,
    #[serde(default)]
    pub mig: Option<bool>,
    #[serde(default)]
    pub persistence: Option<bool>,
    /// `default`, `prohibited` or `exclusive-process`
    #[serde(default)]
    pub compute_mode: Option<String>,
    /// NVLinks that are up.
    #[serde(default)]
    pub nvlinks: Option<u64>,
}

/// Which run the measurements beside this file belong to: a run with the same identity is resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    pub id: String,
    pub commit: Option<String>,
    pub preset: String,
    pub device: String,
    pub command: Vec<String>,
    pub started: String,
}

/// Lower-case letters and digits with single hyphens between them: a folder's name from a device's.
pub fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    if words.is_empty() { "unknown-machine".to_string() } else { words.join("-") }
}

/// The environment variables a record may hold; never the whole environment, which holds secrets.
pub fn recorded_variable(name: &str) -> bool {
    let whole = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "BUBBLEBENCH_WGMMA"];
    name.starts_with("NCCL_") || name.starts_with("CUDA_") || whole.contains(&name)
}
