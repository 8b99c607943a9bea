//! What differs between the machines and runs that are compared, and whether it matters.

use crate::records::MachineRecord;
use crate::records::machine::Gpu;
use std::collections::BTreeSet;

/// How much a difference weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DifferenceWeight {
    /// Good to know; times do not depend on it, or it is what is being compared.
    Incidental,
    /// Times depend on it: it may be the cause of what is found.
    Matters,
    /// The runs are of different things: a verdict on them means nothing.
    Unlike,
}

/// One thing that is not the same for all sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentDifference {
    /// What differs, as `driver` or `NCCL_ALGO`.
    pub what: String,
    /// Its value for each side, in the order given; `None` where it is absent or not known.
    pub values: Vec<Option<String>>,
    /// How much that weighs.
    pub weight: DifferenceWeight,
}

impl EnvironmentDifference {
    /// Whether the reader must know of it before believing a ratio.
    pub fn matters(&self) -> bool {
        self.weight >= DifferenceWeight::Matters
    }
}

/// Name of the fact that says which version of the cases was measured.
const CASE_DEFINITIONS: &str = "case definitions";

/// A fact of one side: what, its value, its weight where it differs.
pub(super) type Fact = (String, Option<String>, DifferenceWeight);

/// What differs between the sides, the weightiest first.
pub fn differences(sides: &[&MachineRecord]) -> Vec<EnvironmentDifference> {
    differences_of(&sides.iter().map(|machine| facts(machine)).collect::<Vec<_>>())
}

/// What differs between sides of which these facts are known, the weightiest first.
pub(super) fn differences_of(facts: &[Vec<Fact>]) -> Vec<EnvironmentDifference> {
    let mut found: Vec<EnvironmentDifference> = Vec::new();
    for (what, ..) in facts.iter().flatten() {
        if found.iter().any(|known| known.what == *what) {
            continue;
        }
        let of_side = |side: &Vec<Fact>| side.iter().find(|fact| fact.0 == *what).cloned();
        let told: Vec<Option<Fact>> = facts.iter().map(of_side).collect();
        let weight = told.iter().flatten().map(|fact| fact.2).max().unwrap_or(DifferenceWeight::Incidental);
        // Records that do not say what their cases are may be of the same ones.
        let untold = told.iter().any(|fact| fact.as_ref().is_none_or(|fact| fact.1.is_none()));
        let weight = if what == CASE_DEFINITIONS && untold { DifferenceWeight::Incidental } else { weight };
        let values = told.into_iter().map(|fact| fact.and_then(|(_, value, _)| value)).collect();
        found.push(EnvironmentDifference { what: what.clone(), values, weight });
    }
    found.retain(|difference| difference.values.iter().any(|value| *value != difference.values[0]));
    found.sort_by_key(|difference| std::cmp::Reverse(difference.weight));
    found
}

/// Whether the sides may not be compared unless they differ on purpose: runs of different things.
pub fn unlike(differences: &[EnvironmentDifference]) -> bool {
    differences.iter().any(|difference| difference.weight == DifferenceWeight::Unlike)
}

/// Whether these are no repeated runs of one side: then nothing that matters may differ.
pub fn not_repeated(differences: &[EnvironmentDifference]) -> bool {
    differences.iter().any(EnvironmentDifference::matters)
}

fn facts(machine: &MachineRecord) -> Vec<Fact> {
    use DifferenceWeight::{Incidental, Matters, Unlike};
    let on_host = machine.run.device == "host";
    // What the host is like decides the times of the host alone.
    let (host_is, host_runs) = if on_host { (Unlike, Matters) } else { (Incidental, Incidental) };
    let cpu = &machine.cpu;
    let mut facts = vec![
        fact("device", Some(if on_host { "host" } else { "gpu" }.to_string()), Unlike),
        fact(CASE_DEFINITIONS, machine.run.case_definitions.map(|version| version.to_string()), Unlike),
        fact("cpu", Some(cpu.model.clone()), host_is),
        fact("cpu cores", Some(cpu.cores.to_string()), host_is),
        fact("cpu features", Some(cpu.features.join(" ")), host_runs),
        fact("last-level cache", cpu.last_level_cache_bytes.map(|bytes| format!("{bytes} bytes")), host_runs),
        fact("governor", cpu.governor.clone(), host_runs),
        fact("kernel", Some(machine.kernel.clone()), host_runs),
    ];
    if !on_host {
        facts.extend(gpu_facts(&machine.gpus));
        facts.push(fact("topology", Some(machine.topology.join("; ")), Matters));
        facts.extend(machine.versions.iter().map(|(name, version)| fact(name, version.clone(), Matters)));
    }
    facts.extend(machine.environment.iter().map(|(name, value)| {
        let of_gpu = name.starts_with("NCCL_") || name.starts_with("CUDA_") || name.starts_with("BUBBLEBENCH_");
        fact(name, Some(value.clone()), if of_gpu == on_host { Incidental } else { Matters })
    }));
    facts.extend([
        fact("preset", Some(machine.run.preset.clone()), Matters),
        fact("commit", machine.run.commit.clone(), Incidental),
        fact("host name", machine.hostname.clone(), Incidental),
    ]);
    facts
}

fn gpu_facts(gpus: &[Gpu]) -> Vec<Fact> {
    use DifferenceWeight::{Incidental, Matters, Unlike};
    let mhz = |clock: Option<u64>| clock.map(|clock| format!("{clock} MHz"));
    let switch = |on: Option<bool>| on.map(|on| if on { "on" } else { "off" }.to_string());
    let all = |what: &str, weight, value: &dyn Fn(&Gpu) -> Option<String>| fact(what, values_of(gpus, value), weight);
    vec![
        all("gpu", Unlike, &|gpu| Some(gpu.name.clone())),
        fact("gpus", Some(gpus.len().to_string()), Unlike),
        all("MIG", Unlike, &|gpu| switch(gpu.mig)),
        all("ECC", Matters, &|gpu| switch(gpu.ecc)),
        all("power limit", Matters, &|gpu| gpu.power_limit_w.map(|watts| format!("{watts} W"))),
        all("SM clock for applications", Matters, &|gpu| mhz(gpu.sm_clock_application_mhz)),
        all("memory clock for applications", Matters, &|gpu| mhz(gpu.memory_clock_application_mhz)),
        all("highest SM clock", Matters, &|gpu| mhz(gpu.sm_clock_max_mhz)),
        all("highest memory clock", Matters, &|gpu| mhz(gpu.memory_clock_max_mhz)),
        all("compute mode", Incidental, &|gpu| gpu.compute_mode.clone()),
        all("persistence mode", Incidental, &|gpu| switch(gpu.persistence)),
        all("gpu uuids", Incidental, &|gpu| gpu.uuid.clone()),
    ]
}

/// The different values of all GPUs, in one text; `None` where no GPU tells one.
fn values_of(gpus: &[Gpu], value: &dyn Fn(&Gpu) -> Option<String>) -> Option<String> {
    let told: BTreeSet<String> = gpus.iter().filter_map(value).collect();
    (!told.is_empty()).then(|| told.into_iter().collect::<Vec<_>>().join(", "))
}

pub(super) fn fact(what: &str, value: Option<String>, weight: DifferenceWeight) -> Fact {
    (what.to_string(), value, weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::machine::{Cpu, RunInfo, SCHEMA};

    fn machine(device: &str) -> MachineRecord {
        MachineRecord {
            schema: SCHEMA.into(),
            name: "box".into(),
            cpu: Cpu {
                model: "AMD EPYC".into(),
                cores: 2,
                last_level_cache_bytes: None,
                features: vec!["avx2".into()],
                governor: None,
            },
            memory_bytes: None,
            gpus: vec![Gpu { name: "NVIDIA H200".into(), power_limit_w: Some(700.0), ..Gpu::default() }],
            versions: [("driver".to_string(), Some("570".to_string())), ("nccl".to_string(), None)].into(),
            topology: Vec::new(),
            kernel: "Linux 6.1.0".into(),
            hostname: Some("a".into()),
            environment: [("NCCL_ALGO".to_string(), "Ring".to_string())].into(),
            run: RunInfo {
                id: "1".into(),
                commit: Some("abc".into()),
                preset: "quick".into(),
                device: device.into(),
                command: Vec::new(),
                started: String::new(),
                case_definitions: Some(1),
            },
        }
    }

    fn found(a: &MachineRecord, b: &MachineRecord) -> Vec<(String, DifferenceWeight)> {
        differences(&[a, b]).into_iter().map(|difference| (difference.what, difference.weight)).collect()
    }

    fn changed(device: &str, change: impl Fn(&mut MachineRecord)) -> Vec<(String, DifferenceWeight)> {
        let (before, mut after) = (machine(device), machine(device));
        change(&mut after);
        found(&before, &after)
    }

    #[test]
    fn the_same_machine_differs_in_nothing() {
        // Another run of it has another name, start and command.
        let another = |machine: &mut MachineRecord| machine.run = RunInfo { id: "2".into(), ..machine.run.clone() };
        assert!(changed("cuda:0", another).is_empty());
    }

    #[test]
    fn what_differs_weighs_as_it_should() {
        use DifferenceWeight::{Incidental, Matters, Unlike};
        type Change = fn(&mut MachineRecord);
        let cases: [(&str, &str, Change, DifferenceWeight); 13] = [
            ("cuda:0", "gpu", |m| m.gpus[0].name = "NVIDIA A100".into(), Unlike),
            ("cuda:0", "gpus", |m| m.gpus.push(m.gpus[0].clone()), Unlike),
            ("cuda:0", "power limit", |m| m.gpus[0].power_limit_w = Some(400.0), Matters),
            ("cuda:0", "SM clock for applications", |m| m.gpus[0].sm_clock_application_mhz = Some(1200), Matters),
            ("cuda:0", "driver", |m| *m.versions.get_mut("driver").unwrap() = Some("580".into()), Matters),
            ("cuda:0", "nccl", |m| *m.versions.get_mut("nccl").unwrap() = Some("2.27".into()), Matters),
            ("cuda:0", "NCCL_ALGO", |m| m.environment.clear(), Matters),
            (
                "cuda:0",
                "CUDA_DEVICE_MAX_CONNECTIONS",
                |m| drop(m.environment.insert("CUDA_DEVICE_MAX_CONNECTIONS".into(), "1".into())),
                Matters,
            ),
            ("cuda:0", "cpu", |m| m.cpu.model = "Xeon".into(), Incidental),
            ("host", "cpu", |m| m.cpu.model = "Xeon".into(), Unlike),
            ("host", "NCCL_ALGO", |m| m.environment.clear(), Incidental),
            (
                "host",
                "RAYON_NUM_THREADS",
                |m| drop(m.environment.insert("RAYON_NUM_THREADS".into(), "1".into())),
                Matters,
            ),
            ("cuda:0", "commit", |m| m.run.commit = None, Incidental),
        ];
        for (device, what, change, weight) in cases {
            assert_eq!(changed(device, change), [(what.to_string(), weight)], "{what} on {device}");
        }
    }

    #[test]
    fn a_driver_is_nothing_to_the_host() {
        assert!(changed("host", |m| m.versions.clear()).is_empty());
        assert!(changed("host", |m| m.gpus.clear()).is_empty());
    }

    #[test]
    fn the_weightiest_stand_first_with_a_value_a_side() {
        let (host, gpu) = (machine("host"), machine("cuda:1"));
        let other = MachineRecord { hostname: None, ..machine("host") };
        let found = differences(&[&host, &gpu, &other]);
        assert_eq!((found[0].what.as_str(), found[0].weight), ("device", DifferenceWeight::Unlike));
        assert_eq!(found[0].values, ["host", "gpu", "host"].map(|value| Some(value.to_string())));
        let last = found.last().unwrap();
        assert_eq!((last.what.as_str(), last.matters()), ("host name", false));
        assert_eq!(last.values, [Some("a".to_string()), Some("a".to_string()), None]);
        assert!(found.is_sorted_by(|a, b| a.weight >= b.weight));
        assert!(unlike(&found));
    }

    #[test]
    fn other_definitions_are_unlike_and_another_preset_is_no_repeated_run() {
        let (first, mut second) = (machine("cuda:0"), machine("cuda:0"));
        second.run.case_definitions = Some(2);
        assert!(unlike(&differences(&[&first, &second])));
        second.run.case_definitions = None;
        assert!(!unlike(&differences(&[&first, &second])), "a record that does not say it");
        second.run.preset = "full".into();
        let found = differences(&[&first, &second]);
        assert!(!unlike(&found) && not_repeated(&found));
        assert!(!not_repeated(&differences(&[&first, &first])));
    }
}
