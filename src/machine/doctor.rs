//! What `bubblebench doctor` tells: devices, libraries, embedded kernels, and for each thing missing what it costs and
//! the line that installs it. Values only; `cli::doctor` turns them into text.

use super::nvml::{self, GpuState};
use super::{built, cpu, gpus, versions};
use crate::records::machine::{Cpu, Gpu};
use schemars::JsonSchema;
use serde::Serialize;

/// The schema's name and version, as the field `schema` of `bubblebench doctor --json` holds it.
pub const SCHEMA: &str = "bubblebench.doctor/1";

/// What `bubblebench doctor` finds: devices, libraries and kernels, and what is missing.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Doctor {
    /// The name and version of this format.
    pub schema: &'static str,
    /// Every device that a run can use: the host, then each GPU that the CUDA driver shows, in its order.
    pub devices: Vec<DoctorDevice>,
    /// Every library found that a run on a GPU loads, the driver first.
    pub libraries: Vec<versions::Library>,
    /// Everything that was looked for and not found; empty where nothing is missing.
    pub missing: Vec<Missing>,
    /// With `--kernels`, every kernel in every architecture built; without it the field is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Vec<Kernel>>,
}

/// A device a run can use.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DoctorDevice {
    /// The processor's model, or the GPU's name.
    pub name: String,
    /// What runs operations on this device: `host` or `cuda`.
    pub backend: &'static str,
    /// The device as `--device` takes it: `host`, or `cuda:N` for GPU number N.
    pub device: String,
    /// Cores of the host that this process may use; streaming multiprocessors (SMs) of a GPU.
    pub cores: u64,
    /// Bytes of the host's main memory, or of the GPU's own; null where the system does not tell.
    pub memory_bytes: Option<u64>,
    /// Bytes of one last-level cache of the host, or of the GPU's L2; null where the system does not tell.
    pub cache_bytes: Option<u64>,
    /// The GPU's compute capability, such as `9.0`; null for the host.
    pub compute_capability: Option<String>,
    /// Instruction sets of the host that matter to matrix products, such as `avx512f`; empty for a GPU.
    pub features: Vec<String>,
    /// How a GPU is doing at this moment; null for the host, and where NVML does not answer.
    pub state: Option<GpuState>,
    /// How this GPU is connected to each GPU after it, one line each: `cuda:1: NVLink x18 through a switch, PCIe NODE`.
    pub links: Vec<String>,
}

/// Something that was looked for and not found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Missing {
    /// The name of what is missing, such as `NCCL` or `CUDA kernels`.
    pub what: String,
    /// What cannot be measured without it.
    pub costs: String,
    /// The command that installs it, or a sentence where no single command does.
    pub install: String,
    /// Why it was not found.
    pub reason: String,
}

/// What the compiler (ptxas) reports of one kernel in one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Kernel {
    /// The kernel's name, such as `layernorm_forward_bf16`.
    pub name: &'static str,
    /// The source file below `cuda/` that holds the kernel, such as `layernorm.cu`.
    pub file: &'static str,
    /// The architecture that the kernel was compiled for, such as `sm_90a`.
    pub arch: &'static str,
    /// Registers of one thread.
    pub registers: u32,
    /// Bytes of static shared memory of one block.
    pub shared_bytes: u32,
    /// Bytes of spill stores and spill loads together, or of the thread's stack frame where that is larger; 0 where
    /// everything is kept in registers.
    pub spill_bytes: u32,
}

/// Looks the machine and this program over, and lists every kernel where `kernels` is set. What cannot be asked is
/// listed as missing, never an error.
pub fn examine(kernels: bool) -> Doctor {
    let gpus = gpus::list();
    let listed = gpus.as_ref().map(Vec::as_slice).unwrap_or_default();
    let examined = nvml::examine(listed.iter().map(|gpu| gpu.uuid.clone()).collect());
    let mut devices = vec![host(cpu::probe())];
    devices.extend(listed.iter().enumerate().map(|(i, gpu)| self::gpu(gpu, i, listed.len(), examined.as_ref().ok())));
    let libraries = versions::found();
    let mut missing = missing(gpus.as_ref().err(), &libraries);
    missing.extend(missing_sensors(gpus.is_ok(), &examined, &libraries));
    let kernels = kernels.then(|| built::FACTS.iter().map(kernel).collect());
    Doctor { schema: SCHEMA, devices, missing, libraries, kernels }
}

fn host(cpu: Cpu) -> DoctorDevice {
    DoctorDevice {
        name: cpu.model,
        backend: "host",
        device: "host".to_string(),
        cores: cpu.cores,
        memory_bytes: super::system::memory_bytes(),
        cache_bytes: cpu.last_level_cache_bytes,
        compute_capability: None,
        features: cpu.features,
        state: None,
        links: Vec::new(),
    }
}

/// GPU `number` of `count`.
fn gpu(gpu: &Gpu, number: usize, count: usize, examined: Option<&nvml::Examined>) -> DoctorDevice {
    let pairs = (0..count).flat_map(|i| (i + 1..count).map(move |j| (i, j)));
    let links = pairs.zip(examined.iter().flat_map(|all| &all.links)).filter(|((from, _), _)| *from == number);
    DoctorDevice {
        links: links.map(|((_, to), link)| format!("cuda:{to}: {link}")).filter(|line| !line.ends_with(": ")).collect(),
        state: examined.and_then(|all| all.gpus.get(number)?.clone()),
        name: gpu.name.clone(),
        backend: "cuda",
        device: format!("cuda:{}", gpu.index),
        cores: gpu.sms,
        memory_bytes: Some(gpu.memory_bytes),
        cache_bytes: Some(gpu.l2_bytes),
        compute_capability: Some(gpu.compute_capability.clone()),
        features: Vec::new(),
    }
}

fn kernel(fact: &built::KernelFacts) -> Kernel {
    let built::KernelFacts { name, file, arch, registers, shared_bytes, spill_bytes } = *fact;
    Kernel { name, file, arch, registers, shared_bytes, spill_bytes }
}

fn missing(no_gpu: Option<&crate::Error>, libraries: &[versions::Library]) -> Vec<Missing> {
    let mut list = Vec::new();
    let mut add = |what: &str, costs: &str, install: &str, reason: &str| {
        let [what, costs, install, reason] = [what, costs, install, reason].map(String::from);
        list.push(Missing { what, costs, install, reason });
    };
    if let Some(error) = no_gpu {
        let install = "install the NVIDIA driver (580 or later): https://docs.nvidia.com/datacenter/tesla/driver-installation-guide";
        add("GPU", "measurements are of this machine's CPU", install, &cause(error));
    }
    let has = |name: &str| libraries.iter().any(|library| library.name == name);
    if !has("cublaslt") {
        let reason = "libcublasLt.so is not on the loader's path, in CUDA_HOME or the active Python's packages";
        add("cuBLASLt", "no matrix products on a GPU", "pip install nvidia-cublas==13.0.2.14", reason);
    }
    if !has("nccl") {
        let reason = "libnccl.so.2 is not on the loader's path, in NCCL_HOME or the active Python's packages";
        add("NCCL", "no collectives between GPUs", "pip install --no-deps nvidia-nccl-cu13==2.30.7", reason);
    }
    for skipped in built::MISSING {
        let costs = match skipped.what {
            built::NCCL_BINDINGS => {
                "this program cannot call NCCL: no collectives between GPUs; build again after installing"
            }
            _ => "this program holds no kernels: nothing runs on a GPU; build again after installing",
        };
        add(skipped.what, costs, skipped.install, skipped.reason);
    }
    list
}

/// The libraries that say how a GPU is doing. Without them everything is measured, but nobody can say at which clock.
fn missing_sensors(
    has_gpu: bool,
    examined: &Result<nvml::Examined, String>,
    libraries: &[versions::Library],
) -> Vec<Missing> {
    let missing = |what: &str, costs: &str, install: &str, reason: &str| {
        let [what, costs, install, reason] = [what, costs, install, reason].map(String::from);
        Missing { what, costs, install, reason }
    };
    let mut list = Vec::new();
    match examined {
        Err(reason) => {
            let costs = "no telemetry of a GPU: clocks, power, temperature, throttling, other processes";
            let install = "it comes with the NVIDIA driver: install libnvidia-compute of the same release, or run the container with --gpus all (NVIDIA_DRIVER_CAPABILITIES=compute,utility)";
            list.push(missing("NVML", costs, install, reason));
        }
        Ok(all) if !has_gpu && all.count.is_some_and(|count| count > 0) => {
            let count = all.count.unwrap_or_default();
            let reason = format!("NVML shows {count} GPU(s), the CUDA driver none");
            let install = "check CUDA_VISIBLE_DEVICES, and that libcuda.so.1 is of the kernel module's release";
            list.push(missing("CUDA's view of the GPU", "nothing runs on a GPU", install, &reason));
        }
        Ok(_) => {}
    }
    let counted = examined.as_ref().is_ok_and(|all| {
        !all.gpus.is_empty() && all.gpus.iter().all(|gpu| gpu.as_ref().is_some_and(|state| state.gpm))
    });
    if !counted && !libraries.iter().any(|library| library.name == "dcgm") {
        let costs = "no SM, tensor and DRAM activity on GPUs before Hopper, nor where GPM is refused";
        let install = "sudo apt-get install --install-recommends datacenter-gpu-manager-4-cuda13 && sudo systemctl start nvidia-dcgm";
        list.push(missing("DCGM", costs, install, "libdcgm.so.4 is not on the loader's path or in DCGM_HOME"));
    }
    list
}

/// The error's first half: the cure stands in `install`.
fn cause(error: &crate::Error) -> String {
    match error {
        crate::Error::Machine { what, .. } | crate::Error::Input { what, .. } => what.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_the_contracts_fields() {
        let report = serde_json::to_value(examine(true)).unwrap();
        assert_eq!(report["schema"], SCHEMA);
        assert_eq!(report["devices"][0]["backend"], "host");
        for (list, fields) in [
            ("devices", &["name", "backend"][..]),
            ("libraries", &["name", "version", "path"]),
            ("missing", &["what", "costs", "install"]),
            ("kernels", &["name", "file", "arch", "registers", "shared_bytes", "spill_bytes"]),
        ] {
            for entry in report[list].as_array().unwrap() {
                assert!(fields.iter().all(|field| entry.get(field).is_some()), "{list}: {entry}");
            }
        }
        assert!(serde_json::to_value(examine(false)).unwrap().get("kernels").is_none());
    }

    #[test]
    fn what_is_missing_comes_with_its_price_and_its_cure() {
        let error = crate::Error::machine("no CUDA driver", "install it");
        for entry in missing(Some(&error), &[]) {
            assert!(!entry.costs.is_empty() && !entry.install.is_empty() && !entry.reason.is_empty(), "{entry:?}");
        }
        assert_eq!(missing(Some(&error), &[])[0].reason, "no CUDA driver");
    }

    #[test]
    fn sensors_are_missed_only_where_they_would_help() {
        let whats = |has_gpu, examined: &Result<nvml::Examined, String>| -> Vec<String> {
            missing_sensors(has_gpu, examined, &[]).into_iter().map(|entry| entry.what).collect()
        };
        let seen = |gpm| {
            let state = GpuState { gpm, ..GpuState::default() };
            Ok(nvml::Examined { gpus: vec![Some(state)], links: vec![], count: Some(1) })
        };
        assert_eq!(whats(true, &Err("no library".into())), ["NVML", "DCGM"]);
        assert_eq!(whats(true, &seen(true)), [""; 0], "GPM does what DCGM would");
        assert_eq!(whats(true, &seen(false)), ["DCGM"]);
        assert_eq!(whats(false, &seen(true)), ["CUDA's view of the GPU"]);
    }
}
