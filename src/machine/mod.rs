//! What this machine is: processor, memory, GPUs, driver and libraries, and which device a run is to use.
//!
//! [`probe`] gathers what `machine.json` holds; [`DeviceChoice`] turns `--device` into a [`Device`]; [`doctor`] says
//! what is missing and how to get it. [`telemetry`] says how a GPU was doing while a case ran.

pub mod built;
mod cpu;
pub mod dcgm;
mod device;
pub mod doctor;
mod errors;
pub mod gpus;
pub mod libraries;
pub mod nvml;
pub mod symbols;
mod system;
pub mod telemetry;
pub mod threads;
pub mod versions;

pub use device::{Device, DeviceChoice};
pub use errors::driver_error;
pub use system::{hostname, leave};

use crate::Result;
use crate::records::machine::{Cpu, Gpu, MachineRecord, RunInfo, SCHEMA, recorded_variable, slug};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// What `machine.json` says of the machine, without the run.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineProbe {
    /// The machine's name as a lower-case slug, which is also the name of its results folder.
    pub name: String,
    /// The processor: its model, the cores this process may use, its last-level cache and instruction sets.
    pub cpu: Cpu,
    /// Bytes of main memory; `None` where the system does not tell.
    pub memory_bytes: Option<u64>,
    /// The GPUs that the CUDA driver shows, in its order; empty for a run on the host and where there is no driver.
    pub gpus: Vec<Gpu>,
    /// Versions of `driver`, `cuda`, `cublaslt`, `nccl` and `nvcc` by name; `None` where one is absent.
    pub versions: BTreeMap<String, Option<String>>,
    /// How the GPUs are connected, one line for each pair; empty with fewer than two GPUs.
    pub topology: Vec<String>,
    /// The operating system and its kernel's release, such as `Linux 6.1.0`.
    pub kernel: String,
    /// The name the machine gives itself; `None` where it has none.
    pub hostname: Option<String>,
    /// The environment variables that change what is measured, with their values; never the whole environment.
    pub environment: BTreeMap<String, String>,
}

/// Looks the machine over. What cannot be read is left empty: a probe never fails, and gives NVML up where it hangs.
pub fn probe(device: Device) -> MachineProbe {
    // A host run is told apart from a run on this machine's GPUs: another folder, and no GPU in its record, because what
    // is fitted from it is the processor.
    let (gpus, topology) = match device {
        Device::Host => Default::default(),
        Device::Cuda(_) => gpus::with_state(gpus::list().unwrap_or_default()),
    };
    let cpu = cpu::probe();
    MachineProbe {
        name: machine_name(&cpu, &gpus),
        cpu,
        memory_bytes: system::memory_bytes(),
        topology,
        gpus,
        versions: versions::versions(),
        kernel: system::kernel(),
        hostname: hostname(),
        environment: environment(std::env::vars_os()),
    }
}

/// The machine as `machine.json` holds it for a run on `device`; the run's other fields are empty, for the caller to
/// fill in.
pub fn record(device: &Device) -> Result<MachineRecord> {
    let run = RunInfo {
        id: String::new(),
        commit: None,
        preset: String::new(),
        device: device.to_string(),
        command: Vec::new(),
        started: String::new(),
        case_definitions: None,
    };
    Ok(probe(*device).into_record(run))
}

impl MachineProbe {
    /// Adds the run and the schema's name to what was probed, which makes it a whole `machine.json`.
    pub fn into_record(self, run: RunInfo) -> MachineRecord {
        MachineRecord {
            schema: SCHEMA.to_string(),
            name: self.name,
            cpu: self.cpu,
            memory_bytes: self.memory_bytes,
            gpus: self.gpus,
            versions: self.versions,
            topology: self.topology,
            kernel: self.kernel,
            hostname: self.hostname,
            environment: self.environment,
            run,
        }
    }
}

/// Bytes of all last-level caches together that the cores of this process use; `None` where the machine does not tell.
pub fn last_level_caches_bytes() -> Option<u64> {
    cpu::last_level_caches_bytes(&threads::available_cores())
}

/// The number of cores this process may use; 1 where the system does not tell.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The name of the results folder, a slug: `nvidia-h200` for one GPU, `nvidia-h200-x8` for eight, `amd-epyc-2c`
/// without.
pub fn machine_name(cpu: &Cpu, gpus: &[Gpu]) -> String {
    let text = match gpus {
        [] => format!("{} {}c", cpu::plain_model(&cpu.model), cpu.cores),
        [only] => only.name.clone(),
        [first, ..] => format!("{} x{}", first.name, gpus.len()),
    };
    slug(&text)
}

/// The variables that change what is measured; never the whole environment, which holds secrets.
fn environment(all: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    let kept = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    kept.filter(|(name, _)| recorded_variable(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(model: &str, cores: u64) -> Cpu {
        Cpu { model: model.to_string(), cores, last_level_cache_bytes: None, features: vec![], governor: None }
    }

    fn gpu(name: &str) -> Gpu {
        Gpu {
            index: 0,
            name: name.to_string(),
            uuid: None,
            compute_capability: "9.0".to_string(),
            sms: 132,
            memory_bytes: 1 << 37,
            l2_bytes: 60 << 20,
            ..Gpu::default()
        }
    }

    #[test]
    fn machines_are_named_by_what_they_measure_with() {
        let epyc = cpu("AMD EPYC", 2);
        assert_eq!(machine_name(&epyc, &[]), "amd-epyc-2c");
        assert_eq!(machine_name(&epyc, &[gpu("NVIDIA H200")]), "nvidia-h200");
        assert_eq!(machine_name(&epyc, &vec![gpu("NVIDIA H100 80GB HBM3"); 8]), "nvidia-h100-80gb-hbm3-x8");
        assert_eq!(
            machine_name(&cpu("Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz", 56), &[]),
            "intel-xeon-platinum-8480-56c"
        );
        assert_eq!(machine_name(&cpu("AMD Ryzen 9 7950X 16-Core Processor", 32), &[]), "amd-ryzen-9-7950x-32c");
        assert_eq!(slug("///"), "unknown-machine");
    }

    #[test]
    fn only_listed_variables_are_recorded() {
        let all =
            [("NCCL_DEBUG", "INFO"), ("CUDA_VISIBLE_DEVICES", "0"), ("AWS_SECRET_ACCESS_KEY", "x"), ("PATH", "/bin")];
        let kept = environment(all.iter().map(|(k, v)| (k.into(), v.into())));
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["CUDA_VISIBLE_DEVICES", "NCCL_DEBUG"]);
    }

    #[test]
    fn this_machine_can_be_probed() {
        let probe = probe(Device::Host);
        assert!(probe.cpu.cores >= 1 && !probe.cpu.model.is_empty() && !probe.kernel.is_empty());
        assert!(!probe.name.is_empty() && probe.name == slug(&probe.name));
        if cfg!(target_os = "linux") {
            assert!(probe.memory_bytes.unwrap() > 1 << 28);
        }
        let record = record(&Device::Host).unwrap();
        assert_eq!((record.name, record.gpus.len(), record.run.device.as_str()), (probe.name, 0, "host"));
    }
}
