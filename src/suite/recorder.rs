//! From a list of cases to lines in the journal, whichever driver times them.
//!
//! Both drivers go the same way: [`Recorder::prepare`] builds and checks a case, the driver samples it (our sampler in
//! [`Recorder::measure`], Criterion in `benches/`), [`Recorder::record`] writes the line. A case that cannot run here
//! leaves a line that says why, and the rest goes on.

use super::Platform;
use super::case::{Case, CaseInfo, Context, RawSample, Spec};
use super::collectives::{Choices, SharedCoordinator};
use super::groups::{self, Group};
use super::presets::Preset;
use super::sampler::{self, Watch};
use super::stop_rule::{StopReason, StopRule};
use super::summary::{self, CaseOutcome};
use super::watchdog::{self, Stuck, Watchdog};
use crate::machine::telemetry::Sampler;
use crate::records::Measurement;
use crate::records::flags::{BUG, GPU_FAULT, SOFTWARE};
use crate::records::measurement::{Backend, Verified};
use crate::records::store::JournalRun;
use crate::{Error, Result};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The cases of the groups whose names contain the filter (`None`: all), in the order they run; an error where the
/// filter leaves none.
pub fn select(
    groups: &[Group],
    preset: Preset,
    platform: Platform,
    filter: Option<&str>,
    coordinator: Option<&SharedCoordinator>,
    choices: &Choices,
) -> Result<Vec<Box<dyn Spec>>> {
    let all: Vec<Box<dyn Spec>> =
        groups.iter().flat_map(|group| group.cases(preset, platform, coordinator, choices)).collect();
    let Some(filter) = filter else { return Ok(all) };
    let chosen: Vec<Box<dyn Spec>> = all.into_iter().filter(|spec| spec.id().contains(filter)).collect();
    if chosen.is_empty() {
        return Err(Error::input(
            format!("no {} case of preset {} has `{filter}` in its name", platform.backend().name(), preset.name()),
            "see the names with `bubblebench measure --list` or `cargo bench -- --list`, or choose a larger preset with --preset",
        ));
    }
    Ok(chosen)
}

/// The present time as records write it: RFC 3339 in UTC, to the second.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// A case that is built and checked, ready to be timed.
pub struct PreparedCase {
    /// The case itself, for a driver that samples it on its own.
    pub case: Box<dyn Case>,
    verified: Option<Verified>,
    /// When that was, on the sensors' clock.
    ready_ns: u64,
}

impl PreparedCase {
    /// Whether its result was wrong, so that it must not be timed.
    pub fn is_wrong(&self) -> bool {
        self.verified.as_ref().is_some_and(|v| v.wrong > 0)
    }
}

/// Turns the cases of one run into lines of its journal.
pub struct Recorder {
    /// The journal that lines are appended to.
    pub run: JournalRun,
    /// What the machine offers the cases.
    pub context: Context,
    /// When our own sampler stops; the preset's rule unless it is changed.
    pub rule: StopRule,
    device: String,
    telemetry: Option<Sampler>,
    watchdog: Option<Watchdog>,
    /// The case that an earlier part of this run was stuck in.
    stuck: Option<Stuck>,
}

impl Recorder {
    /// A recorder for a run on the device of this name, without sensors or a limit on a case's time.
    pub fn new(run: JournalRun, context: Context, device: String) -> Self {
        Recorder {
            run,
            rule: context.preset.stop_rule(),
            context,
            device,
            telemetry: None,
            watchdog: None,
            stuck: None,
        }
    }

    /// The recorder with the sensors of its GPU, which are read beside every case; `None` where there are none.
    pub fn with_telemetry(self, telemetry: Option<Sampler>) -> Self {
        Recorder { telemetry, ..self }
    }

    /// The recorder with a limit on the time of each case, beyond which the process ends; it also reads which case an
    /// earlier part of the run was stuck in.
    pub fn with_case_limit(self, limit: Duration) -> Self {
        let (folder, run) = (self.run.folder().to_path_buf(), self.run.id().to_string());
        let stuck = watchdog::take(&folder, &run);
        Recorder { watchdog: Some(Watchdog::start(folder, run, limit)), stuck, ..self }
    }

    /// Builds and checks a case. The inner `Err` is the line of a case that this machine cannot run; an outer error
    /// ends the run.
    pub fn prepare(&mut self, spec: &dyn Spec) -> Result<Result<PreparedCase, Measurement>> {
        let id = spec.id();
        if let Some(stuck) = self.stuck.take_if(|stuck| stuck.case == id) {
            return self.was_stuck(&unbuilt(spec, self.context.platform), &stuck).map(Err);
        }
        if let Some(watchdog) = &self.watchdog {
            watchdog.begin(&id);
        }
        let mut case = match spec.build(&self.context) {
            Ok(case) => case,
            Err(error) => return self.skip(&unbuilt(spec, self.context.platform), error).map(Err),
        };
        match case.prepare() {
            Ok(verified) => {
                let ready_ns = self.telemetry.as_ref().map_or(0, Sampler::now_ns);
                Ok(Ok(PreparedCase { case, verified, ready_ns }))
            }
            Err(error) => self.skip(case.info(), error).map(Err),
        }
    }

    /// Times a prepared case with our own sampler and writes its line; an error ends the run: an interrupt, a failed
    /// GPU, a lost rank, a bug, or a journal that cannot be written.
    pub fn measure(&mut self, mut prepared: PreparedCase, watch: &dyn Watch) -> Result<Measurement> {
        if prepared.is_wrong() {
            return self.record(prepared, Vec::new(), None);
        }
        match sampler::measure(prepared.case.as_mut(), &self.rule, watch) {
            Ok((samples, stop)) => self.record(prepared, samples, Some(stop)),
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error) => self.skip(prepared.case.info(), error),
        }
    }

    /// Writes the line of a case from its samples, whichever driver took them; an error where the journal cannot be
    /// written.
    pub fn record(
        &mut self,
        prepared: PreparedCase,
        samples: Vec<RawSample>,
        stop: Option<StopReason>,
    ) -> Result<Measurement> {
        let PreparedCase { case, verified, ready_ns } = prepared;
        let on_gpu = self.telemetry.as_ref().filter(|_| case.info().backend == Backend::Cuda);
        let telemetry = on_gpu.and_then(|sampler| sampler.since(ready_ns));
        let fill = case.outcome(&samples);
        let (discarded, device, at) = (case.discarded(), self.device.clone(), now());
        let outcome = CaseOutcome { samples, verified, stop, discarded, fill, telemetry, device, at };
        let record = self.flagged(summary::summarise(case.info(), outcome));
        self.append(record)
    }

    fn append(&mut self, record: Measurement) -> Result<Measurement> {
        if let Some(watchdog) = &self.watchdog {
            watchdog.end();
        }
        self.run.append(record.clone())?;
        Ok(record)
    }

    /// As a case that broke the GPU: it is not tried again by this run.
    fn was_stuck(&mut self, info: &CaseInfo, stuck: &Stuck) -> Result<Measurement> {
        let reason =
            format!("it did not end within {} s; measured by its name, --case-limit gives it longer", stuck.limit_s);
        let mut record = self.flagged(summary::skipped(info, &reason, self.device.clone(), now()));
        record.flags.push(GPU_FAULT.into());
        self.append(record)
    }

    /// Writes the line of a case that failed on this machine. An error that the run cannot go on from (a failed GPU, a
    /// lost rank, a bug, an interrupt, a file) is returned.
    pub fn skip(&mut self, info: &CaseInfo, error: Error) -> Result<Measurement> {
        match error {
            // An input at fault here is the case's own shape, which this device cannot compute.
            Error::Machine { .. } | Error::Gpu { .. } | Error::Input { .. } | Error::Bug { .. } => {
                // A broken GPU would fail every case that follows, for no fault of theirs; a bug is to be seen.
                let ends_the_run = match error {
                    Error::Gpu { .. } => Some(GPU_FAULT),
                    Error::Bug { .. } => Some(BUG),
                    _ => None,
                };
                let mut record = self.flagged(summary::skipped(info, &error.to_string(), self.device.clone(), now()));
                record.flags.extend(ends_the_run.map(String::from));
                let record = self.append(record)?;
                if ends_the_run.is_some() { Err(error) } else { Ok(record) }
            }
            other => Err(other),
        }
    }

    /// The software device's times mean nothing, and every line says so.
    fn flagged(&self, mut record: Measurement) -> Measurement {
        if matches!(self.context.platform, Platform::Software(_)) {
            record.flags.push(SOFTWARE.into());
        }
        record
    }

    /// Writes the run's closing line, so that the folder holds a whole run, and returns its path; an error where that
    /// fails.
    pub fn finish(self) -> Result<PathBuf> {
        self.run.finish(now())
    }
}

fn unbuilt(spec: &dyn Spec, platform: Platform) -> CaseInfo {
    let id = spec.id();
    let kind = groups::kind_of(&id);
    CaseInfo::new(id, kind, platform.backend())
}
