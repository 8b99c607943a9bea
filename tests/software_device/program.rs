//! The program on the software device: its own faults and the device's end in a sentence with a cure, exit code 2 or a
//! case that is left out with its reason; never in a panic.

use crate::harness::{bubblebench, text};
use bubblebench::machine::symbols::REQUIRED;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    bubblebench(softgpu::device::libraries(), environment, arguments)
}

/// Exit code 2 and one line that holds all of `words`.
fn refused(output: &Output, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let line = stderr.lines().find(|line| line.starts_with("bubblebench: ")).unwrap_or_default();
    assert!(words.iter().all(|word| line.contains(word)), "{words:?} are not in: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn measure<'a>(folder: &'a Path, filter: &'a str) -> Vec<&'a str> {
    let folder = folder.to_str().unwrap();
    vec!["measure", "gpt-layer", filter, "--device", "cuda", "--preset", "quick", "--results", folder]
}

/// A layer's first layernorm: forward, to inputs and to weights, warm and cold.
const LAYERNORM: &str = "/op/ln1/";

fn records(folder: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(folder.join("measurements.jsonl")).unwrap();
    let records = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    records.filter(|record: &Value| record["kind"] != "end").collect()
}

fn has_flag(record: &Value, flag: &str) -> bool {
    record["flags"].as_array().unwrap().iter().any(|f| f == flag)
}

#[test]
fn doctor_shows_every_device() {
    let output = run(&[("SOFTGPU_DEVICES", "4")], &["doctor", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let devices = report["devices"].as_array().unwrap();
    let cuda: Vec<_> = devices.iter().filter(|device| device["backend"] == "cuda").collect();
    assert_eq!(cuda.len(), 4);
    assert!(cuda.iter().all(|device| device["name"] == "softgpu" && device["compute_capability"] == "9.0"));
}

#[test]
fn doctor_outlives_every_fault() {
    let driver = |fault| run(&[("SOFTGPU_FAULT", fault)], &["doctor"]);
    let broken = |symbol| bubblebench(&softgpu::device::without(symbol).unwrap(), &[], &["doctor"]);
    for (output, word) in [
        (driver("no-device"), "shows no GPU"),
        (driver("driver-version:12020"), "CUDA 12.2"),
        (broken("cuInit"), "cuInit"),
        (broken("cuDriverGetVersion"), "cuDriverGetVersion"),
        (broken("cuGraphLaunch"), "cuGraphLaunch"),
    ] {
        let stdout = text(&output.stdout);
        assert!(output.status.success() && stdout.contains(word), "{word}: {stdout} {}", text(&output.stderr));
    }
}

#[test]
fn the_software_devices_times_are_not_written_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    refused(&run(&[], &measure(&results, LAYERNORM)), &["software", "--allow-software"]);
    assert!(!results.exists());
}

/// Faults of the driver itself: refused before anything is measured.
#[test]
fn a_driver_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let arguments = [measure(&results, LAYERNORM), vec!["--allow-software"]].concat();
    let fault = |fault| run(&[("SOFTGPU_FAULT", fault)], &arguments);
    refused(&fault("no-device"), &["shows no GPU", "--device host"]);
    refused(&fault("driver-version:12020"), &["older than the CUDA toolkit", "update the NVIDIA driver"]);
    refused(&fault("no-image"), &["no image for softgpu", "compute capability 8.0 or newer"]);
    for symbol in ["cuInit", "cuMemAlloc_v2", "cuLaunchKernel", "cuEventElapsedTime_v2"] {
        let folder = softgpu::device::without(symbol).unwrap();
        refused(&bubblebench(&folder, &[], &arguments), &[symbol, "update the NVIDIA driver"]);
    }
    assert!(!results.exists(), "a refused run leaves no folder");
}

/// A switch that this GPU cannot have, or that is none, costs a sentence, not every case of the run.
#[test]
fn a_wrong_switch_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let arguments = [measure(&results, LAYERNORM), vec!["--allow-software"]].concat();
    refused(&run(&[("BUBBLEBENCH_WGMMA", "2")], &arguments), &["BUBBLEBENCH_WGMMA=2", "choose 0 or 1"]);
    let ampere = [("BUBBLEBENCH_WGMMA", "1"), ("SOFTGPU_ARCH", "80")];
    refused(&run(&ampere, &arguments), &["BUBBLEBENCH_WGMMA=1", "compute capability 9.0"]);
    assert!(!results.exists());
}

#[test]
fn asked_for_the_software_devices_times_are_written_and_flagged() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&[], &[measure(folder.path(), LAYERNORM), vec!["--allow-software"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let records = records(folder.path());
    assert!(records.len() >= 3);
    for record in &records {
        assert!(record["median_ns"].as_f64().unwrap() > 0.0, "{record}");
        assert_eq!((&record["device"], &record["backend"]), (&"softgpu".into(), &"cuda".into()));
        assert_eq!(record["verified"]["wrong"], 0, "{record}");
        assert!(has_flag(record, "software"), "{record}");
    }
}

/// Out of memory costs the case that wanted it, whichever allocation it was.
#[test]
fn out_of_memory_leaves_one_case_out() {
    for k in [1, 3, 6] {
        let folder = tempfile::tempdir().unwrap();
        let fault = format!("oom:{k}");
        let arguments = [measure(folder.path(), LAYERNORM), vec!["--allow-software"]].concat();
        let output = run(&[("SOFTGPU_FAULT", &fault)], &arguments);
        assert!(output.status.success(), "{fault}: {}", text(&output.stderr));
        let all = records(folder.path()).into_iter();
        let (skipped, measured): (Vec<_>, Vec<_>) = all.partition(|record| has_flag(record, "skipped"));
        assert_eq!(skipped.len(), 1, "{fault}");
        let reason = skipped[0]["params"]["reason"].as_str().unwrap();
        assert!(reason.contains("no room for") && reason.contains("choose a smaller shape"), "{fault}: {reason}");
        assert!(measured.len() >= 2 && measured.iter().all(|r| r["median_ns"].as_f64().unwrap() > 0.0), "{fault}");
    }
}

/// A kernel that fails breaks the GPU for this process: its case is left out with the reason, the run ends, and the same
/// command again goes on with the rest.
#[test]
fn a_failed_kernel_ends_the_run_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [measure(folder.path(), LAYERNORM), vec!["--allow-software"]].concat();
    let output = run(&[("SOFTGPU_FAULT", "launch:layernorm_forward_bf16")], &arguments);
    refused(&output, &["layernorm_forward_bf16", "a kernel went wrong here", "goes on with the next case"]);
    let first = records(folder.path());
    assert_eq!(first.len(), 1);
    let reason = first[0]["params"]["reason"].as_str().unwrap();
    assert!(has_flag(&first[0], "skipped") && reason.contains("layernorm_forward"), "{reason}");
    let output = run(&[], &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let all = records(folder.path());
    assert!(all.len() >= 3 && has_flag(&all[0], "gpu-fault"));
    assert!(all[1..].iter().all(|record| record["median_ns"].as_f64().unwrap() > 0.0));
}

/// What the program calls is what it looks for before it calls anything.
#[test]
fn every_function_that_is_called_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut called = BTreeSet::new();
    for filter in [LAYERNORM, "/forward_backward/graph"] {
        let arguments = [measure(folder.path(), filter), vec!["--allow-software"]].concat();
        let output = run(&[("SOFTGPU_TRACE", "1"), ("SOFTGPU_DEVICES", "2")], &arguments);
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let calls = stderr.lines().filter_map(|line| line.strip_prefix("softgpu: cu")?.split_once(" -> "));
        called.extend(calls.map(|(name, _)| format!("cu{name}")));
    }
    assert!(called.contains("cuLaunchKernel") && called.contains("cuGraphLaunch"), "{called:?}");
    let unknown: Vec<_> = called.iter().filter(|name| !REQUIRED.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "called, and not in src/machine/symbols.rs: {unknown:?}");
}

/// A kernel that does not end in time ends the program; the same command goes on with the next case.
#[test]
fn a_kernel_that_hangs_costs_one_case() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [measure(folder.path(), LAYERNORM), vec!["--allow-software"]].concat();
    let limited = [&arguments[..], &["--case-limit", "2s"]].concat();
    // Waiting for the kernel would take an hour.
    let output = run(&[("SOFTGPU_FAULT", "hang:layernorm_forward_bf16:3600000")], &limited);
    refused(&output, &["did not end within 2 s", "goes on with the next case"]);
    let output = run(&[], &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let all = records(folder.path());
    assert!(has_flag(&all[0], "gpu-fault") && all[0]["params"]["reason"].as_str().unwrap().contains("--case-limit"));
    assert!(all.len() >= 3 && all[1..].iter().all(|record| record["median_ns"].as_f64().unwrap() > 0.0));
}
