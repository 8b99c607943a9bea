//! What `bubblebench measure` and `cargo bench` share: which machine, which folder, which run, which cases.

use super::collectives::CollectiveOptions;
use super::known::known;
use super::ranks::RankOptions;
use super::terminal::note;
use crate::machine::gpus::SOFTWARE_DEVICE;
use crate::machine::telemetry::Sampler;
use crate::machine::{self, Device, DeviceChoice};
use crate::ops::cuda::Gpu;
use crate::records::machine::{MachineRecord, RunInfo};
use crate::records::measurement::Backend;
use crate::records::store::{JournalRun, RunRequest};
use crate::suite::collectives::SharedCoordinator;
use crate::suite::groups::Group;
use crate::suite::presets::Preset;
use crate::suite::recorder::{self, Recorder};
use crate::suite::{self, Context, Platform, Spec};
use crate::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;

/// Options both programs take.
#[derive(Debug, Clone, clap::Args)]
pub struct RunOptions {
    /// How much to measure: 61 cases in a minute, 256 in 4 to 6 minutes, or everything [env: BUBBLEBENCH_PRESET]
    #[arg(long, env = "BUBBLEBENCH_PRESET", hide_env = true, value_name = "PRESET", value_parser = known(Preset::ALL.map(Preset::name)))]
    pub preset: Option<String>,
    /// What to measure on: the GPU where there is one (auto), the CPU (host), a GPU (cuda, cuda:N) [env: BUBBLEBENCH_DEVICE]
    #[arg(long, env = "BUBBLEBENCH_DEVICE", hide_env = true, value_name = "DEVICE", default_value = "auto", value_parser = known(DeviceChoice::FORMS.into_iter().filter(|form| !form.contains(':'))))]
    pub device: String,
    /// This machine's own folder [default: results/<machine>] [env: BUBBLEBENCH_RESULTS]
    #[arg(long, env = "BUBBLEBENCH_RESULTS", hide_env = true, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// Name of this machine, instead of the one made from its GPU or CPU
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Start a new run even where an unfinished one could go on
    #[arg(long)]
    pub fresh: bool,
    /// Write what the software CUDA device of the tests measures, flagged `software`
    #[arg(long)]
    pub allow_software: bool,
    /// Longest time one case may take on a GPU: a kernel that hangs ends the program, and the same command goes on behind it
    #[arg(long, value_name = "TIME", default_value = "3min")]
    pub case_limit: humantime::Duration,
    /// How ranks are started and waited for.
    #[command(flatten)]
    pub ranks: RankOptions,
    /// What is asked of the collectives beyond the preset.
    #[command(flatten)]
    pub collectives: CollectiveOptions,
}

/// The validated form: everything is known, nothing is started.
pub struct RunPlan {
    /// How much is measured.
    pub preset: Preset,
    /// On what: a device that is there.
    pub device: Device,
    /// The cases that run, in their order.
    pub cases: Vec<Box<dyn Spec>>,
    request: RunRequest,
    context: Context,
    case_limit: Duration,
    coordinator: Option<SharedCoordinator>,
}

impl RunOptions {
    /// The plan of a run of this process alone; an error where the device is not there or no case is chosen.
    pub fn plan(&self, groups: &[Group], filter: Option<&str>, default: Preset) -> Result<RunPlan> {
        let chosen = self.device.parse::<DeviceChoice>()?;
        let device = chosen.resolve()?;
        self.plan_with(device, groups, filter, default, || self.ranks.threads(device, chosen, groups))
    }

    /// The plan of a run with the ranks of `coordinator`, which is called once it is known that the cases may be
    /// measured here.
    pub fn plan_with(
        &self,
        device: Device,
        groups: &[Group],
        filter: Option<&str>,
        default: Preset,
        coordinator: impl FnOnce() -> Result<Option<SharedCoordinator>>,
    ) -> Result<RunPlan> {
        let preset = self.preset.as_deref().map_or(Ok(default), Preset::parse)?;
        let mut machine = machine::record(&device)?;
        if let Some(name) = &self.machine {
            machine.name = checked_name(name)?;
        }
        machine.run = run_info(preset, device);
        let platform = self.platform(device, &machine)?;
        let coordinator = coordinator()?;
        let choices = self.collectives.choices()?;
        if device == Device::Host {
            choices.refuse_on_host()?;
        }
        let cases = recorder::select(groups, preset, platform, filter, coordinator.as_ref(), &choices)?;
        if cases.is_empty() {
            let names: Vec<&str> = groups.iter().map(|g| g.name()).collect();
            return Err(Error::machine(
                format!("there are no {} cases for {device} yet", names.join(" ")),
                "measure the host with --device host",
            ));
        }
        usable(device, groups)?;
        let folder = self.results.clone().unwrap_or_else(|| PathBuf::from("results").join(&machine.name));
        let context = Context {
            preset,
            platform,
            cores: machine.cpu.cores as usize,
            last_level_cache_bytes: match machine.gpus.first().filter(|_| device != Device::Host) {
                Some(gpu) => gpu.l2_bytes,
                None => machine::last_level_caches_bytes().unwrap_or(32 << 20),
            },
        };
        let request = RunRequest { folder, machine, fresh: self.fresh, selection: selection(groups, filter) };
        Ok(RunPlan { preset, device, cases, request, context, case_limit: *self.case_limit, coordinator })
    }
}

/// A GPU that cannot be opened fails every case alike: said once, before anything is written.
fn usable(device: Device, groups: &[Group]) -> Result<()> {
    match device {
        // NCCL needs none of our kernels.
        Device::Cuda(ordinal) if groups.iter().any(|group| *group != Group::Collectives) => {
            Gpu::open(ordinal).map(drop)
        }
        _ => Ok(()),
    }
}

impl RunOptions {
    /// The software device computes right but its times mean nothing: without being told to, they are not written.
    fn platform(&self, device: Device, machine: &MachineRecord) -> Result<Platform> {
        let software = device != Device::Host && machine.gpus.iter().any(|gpu| gpu.name == SOFTWARE_DEVICE);
        if software && !self.allow_software {
            return Err(Error::machine(
                format!("{device} is the software device {SOFTWARE_DEVICE}, whose times mean nothing"),
                "measure on a GPU or with --device host; to try the program out, add --allow-software (every record is flagged `software`)",
            ));
        }
        Ok(Platform::of(device, software))
    }
}

impl RunPlan {
    /// Opens (or goes on with) the run in its folder.
    pub fn start(self) -> Result<(Recorder, Vec<Box<dyn Spec>>)> {
        let device = self.request.machine.gpus.first().filter(|_| self.device.backend() == Backend::Cuda);
        let device = device.map_or_else(|| self.request.machine.cpu.model.clone(), |gpu| gpu.name.clone());
        let run = JournalRun::open(self.request)?;
        // Before the first case makes a context: whoever computes on the GPU by now is another process.
        let telemetry = Sampler::start(self.device);
        note_other_processes(self.device, telemetry.as_ref());
        let mut recorder = Recorder::new(run, self.context, device).with_telemetry(telemetry);
        // The host's own code ends.
        if self.device != Device::Host {
            recorder = recorder.with_case_limit(self.case_limit);
        }
        Ok((recorder, self.cases))
    }

    /// The ranks of its collectives; they go home in good order when told to after the run.
    pub fn coordinator(&self) -> Option<SharedCoordinator> {
        self.coordinator.clone()
    }

    /// The machine and the run as `machine.json` says it; where an unfinished run goes on, its id is that one's.
    pub fn machine(&self) -> &MachineRecord {
        &self.request.machine
    }

    /// What the cases need to know of the machine and the run.
    pub fn context(&self) -> &Context {
        &self.context
    }
}

/// Waking NVML can take seconds; nothing is measured yet.
const FIRST_READING: Duration = Duration::from_secs(10);

fn note_other_processes(device: Device, telemetry: Option<&Sampler>) {
    let reading = telemetry.and_then(|sampler| sampler.first(FIRST_READING));
    let pids = reading.and_then(|reading| reading.other_processes).unwrap_or_default();
    if !pids.is_empty() {
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        note(format_args!(
            "{device} is also used by process {}: times may be longer, rows carry the flag other-processes",
            list.join(", ")
        ));
    }
}

fn selection(groups: &[Group], filter: Option<&str>) -> Option<String> {
    if groups.len() == Group::ALL.len() && filter.is_none() {
        return None;
    }
    let names: Vec<&str> = groups.iter().map(|g| g.name()).collect();
    Some(format!("{}{}", names.join(" "), filter.map(|f| format!(" {f}")).unwrap_or_default()))
}

pub(super) fn checked_name(name: &str) -> Result<String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(fine) {
        return Err(Error::input(
            format!("`{name}` is not a machine name"),
            "use lower-case letters, digits, `-`, `.` and `_`, as in h200-8x",
        ));
    }
    Ok(name.into())
}

fn run_info(preset: Preset, device: Device) -> RunInfo {
    RunInfo { preset: preset.name().into(), device: device.to_string(), ..run_identity() }
}

/// A run that begins now, without its preset and device.
pub(super) fn run_identity() -> RunInfo {
    let started = recorder::now();
    RunInfo {
        id: format!("{}-{}", started.replace([':', '-'], ""), std::process::id()),
        commit: option_env!("BUBBLEBENCH_COMMIT").map(Into::into),
        preset: String::new(),
        device: String::new(),
        command: command_line(),
        started,
        case_definitions: Some(suite::CASE_DEFINITIONS),
    }
}

/// The arguments as typed; of the program's path only its name.
fn command_line() -> Vec<String> {
    as_typed(std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect())
}

/// cargo starts the program of `cargo bench` as `suite-<hash> --bench`, which nobody can repeat.
fn as_typed(mut arguments: Vec<String>) -> Vec<String> {
    if let Some(program) = arguments.first_mut() {
        let name = PathBuf::from(&*program).file_name().map(|n| n.to_string_lossy().into_owned());
        *program = name.unwrap_or_else(|| "bubblebench".into());
        if program.starts_with("suite-") && arguments.iter().any(|a| a == "--bench") {
            let rest = arguments.drain(1..).filter(|a| a != "--bench").collect::<Vec<_>>();
            let dashes = (!rest.is_empty()).then(|| "--".to_string());
            return ["cargo".to_string(), "bench".to_string()].into_iter().chain(dashes).chain(rest).collect();
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_names_the_command_that_repeats_it() {
        let typed = |line: &str| as_typed(line.split(' ').map(str::to_string).collect()).join(" ");
        assert_eq!(typed("/a/target/release/deps/suite-0123abcd --bench"), "cargo bench");
        assert_eq!(typed("/a/deps/suite-0123abcd --quick all_reduce --bench"), "cargo bench -- --quick all_reduce");
        assert_eq!(typed("/a/bubblebench measure all"), "bubblebench measure all");
    }
}
