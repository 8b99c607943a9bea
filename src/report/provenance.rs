//! Where measurements are from: the facts of a machine and its run, and the line to cite them by.

use crate::records::MachineRecord;
use crate::units::counted;

/// What was measured where, as one sentence for the head of `tables.md`.
pub fn sentence(machine: &MachineRecord) -> String {
    let cache =
        machine.cpu.last_level_cache_bytes.map_or(String::new(), |b| format!(", {} MiB last-level cache", b >> 20));
    format!(
        "{}, {}{cache}; {}; {}. Run `{}`, preset {}, device {}, commit {}, started {}.\nMade by `{}`.",
        machine.cpu.model,
        counted(machine.cpu.cores, "core"),
        gpus(machine).unwrap_or_else(|| "no GPU".into()),
        machine.kernel,
        machine.run.id,
        machine.run.preset,
        machine.run.device,
        machine.run.commit.as_deref().unwrap_or("unknown"),
        machine.run.started,
        machine.run.command.join(" "),
    )
}

/// `8 × NVIDIA A100-SXM4-80GB`.
fn gpus(machine: &MachineRecord) -> Option<String> {
    machine.gpus.first().map(|first| format!("{} × {}", machine.gpus.len(), first.name))
}

/// The device that was measured: its GPUs, or the processor.
pub fn device(machine: &MachineRecord) -> String {
    match gpus(machine).filter(|_| machine.run.device != "host") {
        Some(gpus) => gpus,
        None => format!("{}, {}", machine.cpu.model, counted(machine.cpu.cores, "core")),
    }
}

/// One line to cite the measurements by: device, run and program, no host's name.
pub fn citation(machine: &MachineRecord) -> String {
    let commit = machine.run.commit.as_ref().map_or(String::new(), |commit| format!(" at commit {commit}"));
    format!(
        "{} ({}). Measured with bubblebench{commit}, {} preset, run {}, {}.",
        device(machine),
        machine.name,
        machine.run.preset,
        machine.run.id,
        machine.run.started.split('T').next().unwrap_or_default()
    )
}

/// Facts that times may depend on, a name and a value each; what is not known is left out.
pub fn facts(machine: &MachineRecord) -> Vec<(&'static str, String)> {
    let gib = |bytes: u64| format!("{} GiB", bytes >> 30);
    let version = |name: &str| machine.versions.get(name).cloned().flatten();
    let first = machine.gpus.first();
    let clocks = first.and_then(|gpu| gpu.sm_clock_max_mhz).map(|most| {
        let locked = first.and_then(|gpu| gpu.sm_clock_application_mhz);
        locked.map_or(format!("up to {most} MHz"), |set| format!("{set} MHz set, {most} MHz at most"))
    });
    let environment: Vec<String> = machine.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let all = [
        ("machine", Some(machine.name.clone())),
        ("processor", Some(format!("{}, {}", machine.cpu.model, counted(machine.cpu.cores, "core")))),
        ("memory", machine.memory_bytes.map(gib)),
        ("GPUs", gpus(machine)),
        ("GPU memory", first.map(|gpu| gib(gpu.memory_bytes))),
        ("SM clock", clocks),
        ("power limit", first.and_then(|gpu| gpu.power_limit_w).map(|watts| format!("{watts:.0} W"))),
        ("driver", version("driver")),
        ("CUDA", version("cuda")),
        ("cuBLASLt", version("cublaslt")),
        ("NCCL", version("nccl")),
        ("kernel", Some(machine.kernel.clone())),
        ("environment", (!environment.is_empty()).then(|| environment.join(" "))),
        ("device measured", Some(machine.run.device.clone())),
        ("preset", Some(machine.run.preset.clone())),
        ("run", Some(machine.run.id.clone())),
        ("started", Some(machine.run.started.clone())),
        ("commit", machine.run.commit.clone()),
    ];
    all.into_iter().filter_map(|(what, value)| Some((what, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::files;

    fn machine() -> MachineRecord {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/results/published/amd-epyc-2c/machine.json");
        files::read_json(std::path::Path::new(file), "machine").unwrap()
    }

    #[test]
    fn measurements_are_cited_by_device_run_and_commit() {
        let mut machine = machine();
        machine.hostname = Some("secret-host".into());
        let line = citation(&machine);
        assert!(line.starts_with("AMD EPYC, 2 cores (amd-epyc-2c). Measured with bubblebench at commit "), "{line}");
        let day = format!("{}.", machine.run.started.split('T').next().unwrap());
        assert!(line.contains(&machine.run.id) && line.ends_with(&day) && !line.contains("secret"), "{line}");
    }

    #[test]
    fn facts_leave_out_what_is_not_known() {
        let facts = facts(&machine());
        let names: Vec<&str> = facts.iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&"processor") && !names.contains(&"NCCL") && !names.contains(&"GPUs"), "{names:?}");
    }
}
