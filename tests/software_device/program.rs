//! The program on the software device: its own faults and the device's end in a sentence with a cure, exit code 2 or a
//! case that is left out with its reason; never in a panic.

use crate::harness::{bubblebench, text};
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

/// One small operation.
const ONE: &str = "op/layernorm/forward";

#[test]
fn doctor_shows_every_device() {
    let output = run(&[("SOFTGPU_DEVICES", "4")], &["doctor", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
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
    refused(&run(&[], &measure(&results, ONE)), &["software", "--allow-software"]);
    assert!(!results.exists());
}

/// Faults of the driver itself: refused before anything is measured.
#[test]
fn a_driver_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let arguments = [measure(&results, ONE), vec!["--allow-software"]].concat();
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
