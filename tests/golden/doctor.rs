//! What `doctor` says of the software device. What it says of the machine and of this build is left out: processor and
//! memory, the folder and release of the driver, and whether CUDA's compiler, NCCL's header or DCGM are installed.

use crate::hold::{Golden, ROOT, laid_out, program, typed};
use serde_json::Value;
use std::path::Path;

pub fn doctor() -> Vec<Golden> {
    vec![
        Golden::new("doctor-software-device", || text("")),
        Golden::new("doctor-no-device", || text("no-device")),
        Golden::new("doctor-software-device.json", json),
    ]
}

const OF_THIS_BUILD: [&str; 3] = ["CUDA kernels", "NCCL bindings", "DCGM"];

fn ask(arguments: &[&str], fault: &str) -> String {
    let mut command = program(Path::new(ROOT));
    command.env("LD_LIBRARY_PATH", softgpu::device::libraries()).env("SOFTGPU_DEVICES", "2");
    if !fault.is_empty() {
        command.env("SOFTGPU_FAULT", fault);
    }
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = softgpu::device::libraries().to_str().unwrap();
    String::from_utf8(output.stdout).unwrap().replace(folder, "SOFTGPU")
}

fn text(fault: &str) -> String {
    let (mut text, mut left_out) = (typed(&["doctor"]), false);
    for line in ask(&["doctor"], fault).lines() {
        // An entry is one line and what stands below it, further in.
        if !line.starts_with("    ") {
            left_out = OF_THIS_BUILD.iter().any(|what| line.starts_with(&format!("  {what}:")))
                || line.trim_start().starts_with("dcgm ");
        }
        match line.split_whitespace().next() {
            _ if left_out => {}
            Some("host") => text += "  host     (this machine)\n",
            Some("driver") => text += &format!("  driver   {}\n", without_release(line)),
            _ => text += &format!("{line}\n"),
        }
    }
    // The heading of a list of which nothing is left.
    text.strip_suffix("Missing\n").map(String::from).unwrap_or(text)
}

/// `580.1 (CUDA 13.0)` where the kernel has a driver of its own, else `CUDA 13.0`.
fn without_release(line: &str) -> String {
    line[line.find("CUDA ").unwrap()..].replacen(')', "", 1)
}

fn json() -> String {
    let answer = ask(&["doctor", "--json"], "");
    let mut doctor: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(format!("{}\n", serde_json::to_string_pretty(&doctor).unwrap()), answer);
    for key in ["name", "cores", "memory_bytes", "cache_bytes", "features"] {
        doctor["devices"][0][key] = "(of this machine)".into();
    }
    let libraries = doctor["libraries"].as_array_mut().unwrap();
    libraries.retain(|library| library["name"] != "dcgm");
    for library in libraries.iter_mut().filter(|library| library["name"] == "driver") {
        library["version"] = without_release(library["version"].as_str().unwrap()).into();
    }
    let built = |missing: &Value| OF_THIS_BUILD.iter().any(|what| missing["what"] == *what);
    doctor["missing"].as_array_mut().unwrap().retain(|missing| !built(missing));
    typed(&["doctor", "--json"]) + &laid_out(&format!("{doctor}\n"), 12)
}
