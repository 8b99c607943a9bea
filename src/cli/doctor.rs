//! `bubblebench doctor`: what is there, what is missing, what that costs and the line that installs it.

use super::{gpu_state, terminal};
use crate::machine::doctor::{Doctor, DoctorDevice, examine};
use crate::report::{Screen, Table};
use crate::units::counted;
use crate::{Error, Result};

/// Shows devices, libraries and versions; for each thing missing, what it costs and the line that installs it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: bubblebench doctor --kernels")]
pub struct DoctorArgs {
    /// Print JSON (bubblebench.doctor/1) instead of text
    #[arg(long)]
    pub json: bool,
    /// List the embedded kernels with their registers, shared memory and spills
    #[arg(long)]
    pub kernels: bool,
}

/// Examines the machine and prints what was found.
pub fn run(args: &DoctorArgs) -> Result<()> {
    let doctor = examine(args.kernels);
    let text = if args.json {
        let json = serde_json::to_string_pretty(&doctor);
        json.map_err(|e| Error::bug(format!("cannot write JSON: {e}")))? + "\n"
    } else {
        text(&doctor, terminal::screen())
    };
    super::print(&text)
}

/// How an `install` begins that is pasted into a shell; others are sentences.
const COMMANDS: [&str; 2] = ["pip ", "sudo "];

fn text(doctor: &Doctor, screen: Screen) -> String {
    let mut out = String::from("Devices\n");
    for device in &doctor.devices {
        out += &screen.prose(&format!("  {:<8} {}\n", device.device, describe(device)), 9);
        for line in device.state.iter().flat_map(gpu_state::lines).chain(device.links.clone()) {
            out += &screen.prose(&format!("           {line}\n"), 2);
        }
    }
    out.push_str("Libraries\n");
    for library in &doctor.libraries {
        let version = library.version.as_deref().unwrap_or("unknown version");
        out += &screen.prose(&format!("  {:<8} {version}  {}\n", library.name, library.path), 9);
    }
    if doctor.libraries.is_empty() {
        out.push_str("  none of the CUDA driver, cuBLASLt and NCCL\n");
    }
    if !doctor.missing.is_empty() {
        out.push_str("Missing\n");
    }
    for missing in &doctor.missing {
        out += &screen.prose(&format!("  {}: {}\n", missing.what, missing.reason), 2);
        out += &screen.prose(&format!("    costs    {}\n", missing.costs), 9);
        let install = format!("    install  {}\n", missing.install);
        let command = COMMANDS.iter().any(|program| missing.install.starts_with(program));
        out += &if command { screen.command(&install, 9) } else { screen.prose(&install, 9) };
    }
    match doctor.kernels.as_deref() {
        Some([]) => out.push_str("Kernels\n  none: see Missing\n"),
        Some(_) => out.push_str(&kernel_table(doctor).terminal(screen)),
        None => {}
    }
    out
}

fn describe(device: &DoctorDevice) -> String {
    let unit = if device.backend == "host" { "core" } else { "SM" };
    let mut parts = vec![device.name.clone(), counted(device.cores, unit)];
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    parts.extend(device.memory_bytes.map(|bytes| format!("{} memory", gib(bytes))));
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let cache = if device.backend == "host" { "last-level cache" } else { "L2" };
    parts.extend(device.cache_bytes.map(|bytes| format!("{} {cache}", mib(bytes))));
    parts.extend(device.compute_capability.as_ref().map(|capability| format!("compute capability {capability}")));
    if !device.features.is_empty() {
        parts.push(device.features.join(" "));
    }
    parts.join(", ")
}

fn kernel_table(doctor: &Doctor) -> Table {
    let header = ["kernel", "file", "arch", "registers", "shared bytes", "spill bytes"];
    let mut table = Table::new(
        "Kernels",
        "Per thread and block, as ptxas reports them; a spill is traffic that registers should have held.",
        &header,
    )
    .keys(3)
    .spare(&["file"]);
    for kernel in doctor.kernels.iter().flatten() {
        let names = [kernel.name, kernel.file, kernel.arch].map(String::from);
        let numbers = [kernel.registers, kernel.shared_bytes, kernel.spill_bytes].map(|n| n.to_string());
        table.row(names.into_iter().chain(numbers).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_everything_once() {
        let doctor = examine(true);
        let text = text(&doctor, Screen::default());
        assert!(text.starts_with("Devices\n  host     "));
        for missing in &doctor.missing {
            assert_eq!(text.matches(&format!("install  {}\n", missing.install)).count().min(1), 1, "{text}");
            assert!(text.contains(&missing.costs));
        }
        for kernel in doctor.kernels.iter().flatten() {
            assert!(text.contains(kernel.name) && text.contains(kernel.arch));
        }
    }
}
