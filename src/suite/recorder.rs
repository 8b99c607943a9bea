//! From a list of cases to lines in the journal, whichever driver times them.
//!
//! Both drivers go the same way: [`Recorder::prepare`] builds and checks a case, the driver samples it (our sampler in
//! [`Recorder::measure`], Criterion in `benches/`), [`Recorder::record`] writes the line. A case that cannot run here
//! leaves a line that says why, and the rest goes on. On the host [`Recorder::visit_again`] then comes back to the cases,
//! with our own sampler whichever driver made the first visit.

use super::Platform;
use super::case::{Case, CaseInfo, Context, RawSample, Spec};
use super::collectives::{Choices, SharedCoordinator};
use super::groups::{self, Group};
use super::observer::{ObservedWatch, Observer};
use super::presets::Preset;
use super::sampler::{self, Part, Watch};
use super::stop_rule::{StopReason, StopRule};
use super::summary::{self, CaseOutcome};
use super::visits;
use super::watchdog::{self, Stuck, Watchdog};
use crate::machine::telemetry::{NewestReading, Sampler};
use crate::records::Measurement;
use crate::records::flags::{BUG, GPU_FAULT, SOFTWARE, WRONG};
use crate::records::measurement::{Backend, Verified};
use crate::records::store::JournalRun;
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
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
    /// The record of the run's earlier visits to it; `None` at the first.
    earlier: Option<Measurement>,
    /// When that was, on the sensors' clock.
    ready_ns: u64,
}

impl PreparedCase {
    /// Whether its result was wrong, so that it must not be timed.
    pub fn is_wrong(&self) -> bool {
        self.verified.as_ref().is_some_and(|v| v.wrong > 0)
    }
}

/// What [`Recorder::visit_again`] tells its driver.
#[derive(Debug)]
pub enum Step<'a> {
    /// A round begins.
    Round {
        /// Which visit its cases get; 2 is the first that is told.
        visit: usize,
        /// How many visits a case has in the end.
        of: usize,
        /// Number of cases that are visited.
        cases: usize,
    },
    /// The case of this name is next.
    Case(&'a str),
    /// The case of this name could not be visited again, for this reason; the line of its earlier visits stands.
    Failed(&'a str, &'a Error),
}

/// Turns the cases of one run into lines of its journal.
pub struct Recorder {
    /// The journal that lines are appended to.
    pub run: JournalRun,
    /// What the machine offers the cases.
    pub context: Context,
    /// When our own sampler stops, all visits to a case together; the preset's rule unless it is changed.
    pub rule: StopRule,
    /// How often the run comes to a case that can be visited more than once; the preset's number unless it is changed.
    pub visits: usize,
    device: String,
    telemetry: Option<Sampler>,
    watchdog: Option<Watchdog>,
    observer: Option<Arc<dyn Observer>>,
    /// The case that an earlier part of this run was stuck in.
    stuck: Option<Stuck>,
}

impl Recorder {
    /// A recorder for a run on the device of this name, without sensors or a limit on a case's time.
    pub fn new(run: JournalRun, context: Context, device: String) -> Self {
        Recorder {
            run,
            rule: context.preset.stop_rule(),
            visits: context.preset.visits(context.platform),
            context,
            device,
            telemetry: None,
            watchdog: None,
            observer: None,
            stuck: None,
        }
    }

    /// The recorder with the sensors of its GPU, which are read beside every case; `None` where there are none.
    pub fn with_telemetry(self, telemetry: Option<Sampler>) -> Self {
        Recorder { telemetry, ..self }
    }

    /// The recorder with somebody who is told of cases, samples and lines; of the lines that an earlier part of the run
    /// has written at once.
    pub fn with_observer(self, observer: Arc<dyn Observer>, specs: &[Box<dyn Spec>]) -> Self {
        specs.iter().filter_map(|spec| self.run.line(&spec.id())).for_each(|line| observer.written(line));
        Recorder { observer: Some(observer), ..self }
    }

    /// The newest reading of the sensors, for who does not measure; `None` where there are no sensors.
    pub fn newest_reading(&self) -> Option<NewestReading> {
        self.telemetry.as_ref().map(Sampler::newest)
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
        self.tell(&id);
        let mut case = match spec.build(&self.context) {
            Ok(case) => case,
            Err(error) => return self.skip(&unbuilt(spec, self.context.platform), error).map(Err),
        };
        match case.prepare() {
            Ok(verified) => {
                let ready_ns = self.telemetry.as_ref().map_or(0, Sampler::now_ns);
                Ok(Ok(PreparedCase { case, verified, earlier: None, ready_ns }))
            }
            Err(error) => self.skip(case.info(), error).map(Err),
        }
    }

    /// Times a prepared case with our own sampler and writes its line; an error ends the run: an interrupt, a failed
    /// GPU, a lost rank, a bug, or a journal that cannot be written.
    pub fn measure(&mut self, mut prepared: PreparedCase, watch: &dyn Watch) -> Result<Measurement> {
        match self.sample(&mut prepared, watch) {
            Ok((samples, stop)) => self.record(prepared, samples, stop),
            Err(error) => self.skip(prepared.case.info(), error),
        }
    }

    /// The samples of this visit: none where the result is wrong.
    fn sample(&self, prepared: &mut PreparedCase, watch: &dyn Watch) -> Result<(Vec<RawSample>, Option<StopReason>)> {
        if prepared.is_wrong() {
            return Ok((Vec::new(), None));
        }
        let iterations = prepared.earlier.as_ref().map(|earlier| earlier.iterations_per_sample);
        let part = Part { visits: self.visits_of(prepared.case.as_ref()), iterations };
        let kind = prepared.case.info().kind;
        let observed = self.observer.as_deref().map(|observer| ObservedWatch { watch, observer, kind });
        let watch = observed.as_ref().map_or(watch, |observed| observed as &dyn Watch);
        let (samples, stop) = sampler::measure(prepared.case.as_mut(), &self.rule, part, watch)?;
        Ok((samples, Some(stop)))
    }

    /// Writes the line of a case from its samples, whichever driver took them; an error where the journal cannot be
    /// written.
    pub fn record(
        &mut self,
        prepared: PreparedCase,
        samples: Vec<RawSample>,
        stop: Option<StopReason>,
    ) -> Result<Measurement> {
        let visits = self.visits_of(prepared.case.as_ref());
        let PreparedCase { case, verified, earlier, ready_ns } = prepared;
        let on_gpu = self.telemetry.as_ref().filter(|_| case.info().backend == Backend::Cuda);
        let telemetry = on_gpu.and_then(|sampler| sampler.since(ready_ns));
        let fill = case.outcome(&samples);
        let (discarded, device, at) = (case.discarded(), self.device.clone(), now());
        let outcome = CaseOutcome { samples, verified, stop, discarded, fill, telemetry, device, at };
        let record = self.flagged(summary::summarise(case.info(), outcome));
        let wrong = record.has_flag(WRONG);
        self.append(match earlier {
            // A result that is wrong now makes the times before doubtful: the case has none.
            Some(earlier) if !wrong => visits::join(earlier, record),
            None if visits > 1 => visits::first(record),
            _ => record,
        })
    }

    /// How many visits the samples and the time of a case are shared among.
    pub fn visits_of(&self, case: &dyn Case) -> usize {
        if case.sampling().revisited { self.visits } else { 1 }
    }

    /// Comes back to the cases whose first visit this run or an earlier part of it has made, until each has all its
    /// visits: the list in its order, then again. A visit that fails leaves the line of the earlier ones as it is. An
    /// error ends the run, as in [`Recorder::measure`].
    pub fn visit_again(
        &mut self,
        specs: &[Box<dyn Spec>],
        watch: &dyn Watch,
        tell: &mut dyn FnMut(Step<'_>),
    ) -> Result<()> {
        for visit in 2..=self.visits {
            let due = |spec: &&dyn Spec| self.visits_made(&spec.id()).is_some_and(|made| made < visit);
            let due: Vec<&dyn Spec> = specs.iter().map(Box::as_ref).filter(due).collect();
            if due.is_empty() {
                continue;
            }
            tell(Step::Round { visit, of: self.visits, cases: due.len() });
            due.iter().for_each(|spec| spec.forget());
            for spec in due {
                if watch.interrupted() {
                    return Err(Error::Interrupted);
                }
                let id = spec.id();
                tell(Step::Case(&id));
                match self.one_more_visit(spec, watch) {
                    Err(error @ (Error::Machine { .. } | Error::Input { .. })) => tell(Step::Failed(&id, &error)),
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Number of visits the run has made to this case; `None` where it has no time, or is visited once only.
    fn visits_made(&self, id: &str) -> Option<usize> {
        self.run.line(id)?.visits.as_ref().map(Vec::len)
    }

    fn one_more_visit(&mut self, spec: &dyn Spec, watch: &dyn Watch) -> Result<()> {
        let earlier = self.run.line(&spec.id()).cloned();
        self.tell(&spec.id());
        let mut case = spec.build(&self.context)?;
        let mut prepared = match case.prepare_again() {
            Ok(verified) => PreparedCase { case, verified, earlier, ready_ns: 0 },
            Err(error) => return self.keep(case.info(), error),
        };
        match self.sample(&mut prepared, watch) {
            Ok((samples, stop)) => self.record(prepared, samples, stop).map(drop),
            Err(error) => self.keep(prepared.case.info(), error),
        }
    }

    /// An error that the run can go on from leaves the line of the earlier visits; a bug is seen in the case's line.
    fn keep(&mut self, info: &CaseInfo, error: Error) -> Result<()> {
        match error {
            Error::Gpu { .. } | Error::Bug { .. } => self.skip(info, error).map(drop),
            other => Err(other),
        }
    }

    fn tell(&self, id: &str) {
        if let Some(observer) = &self.observer {
            observer.case_begins(id);
        }
    }

    fn append(&mut self, record: Measurement) -> Result<Measurement> {
        if let Some(watchdog) = &self.watchdog {
            watchdog.end();
        }
        self.run.append(record.clone())?;
        if let Some(observer) = &self.observer {
            observer.written(&record);
        }
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

#[cfg(test)]
mod tests;
