//! Criterion in front of the suite's cases: same preparation, same records; Criterion chooses how often to sample,
//! compares with baselines and prints. Where a run visits its cases more than once, the first visit is Criterion's and
//! takes half of the case's time; the later ones are our sampler's.

use crate::arguments::Arguments;
use crate::raw_samples::{Batch, RawSamples};
use bubblebench::cli::results;
use bubblebench::cli::session::RunPlan;
use bubblebench::records::Measurement;
use bubblebench::records::measurement::Kind;
use bubblebench::report::layers::time_cell;
use bubblebench::suite::Spec;
use bubblebench::suite::collectives::SharedCoordinator;
use bubblebench::suite::groups::Group;
use bubblebench::suite::recorder::{PreparedCase, Recorder, Step};
use bubblebench::suite::sampler::Watch;
use bubblebench::suite::watch::ProcessWatch;
use bubblebench::units::counted;
use bubblebench::{Error, Result, cli};
use criterion::{Criterion, SamplingMode, Throughput};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub struct Driver {
    criterion: Criterion<RawSamples>,
    raw: RawSamples,
    recorder: Recorder,
    cases: Vec<Box<dyn Spec>>,
    /// Those that had their first visit.
    visited: Vec<Box<dyn Spec>>,
    watch: ProcessWatch,
    baselines: bool,
    coordinator: Option<SharedCoordinator>,
}

/// `--list`, in the form cargo's own test runner uses.
pub fn list(plan: &RunPlan) -> Result<()> {
    cli::print(&plan.cases.iter().map(|spec| format!("{}: benchmark\n", spec.id())).collect::<String>())
}

/// `--test`: every case is built, checked and run once; nothing is recorded. What this machine cannot run is said.
pub fn test(plan: RunPlan) -> Result<()> {
    for spec in &plan.cases {
        let once = || -> Result<bool> {
            let mut case = spec.build(plan.context())?;
            let verified = case.prepare()?;
            case.sample(1)?;
            Ok(verified.is_none_or(|v| v.wrong == 0))
        };
        match once() {
            Ok(true) => cli::print(&format!("Testing {}\nSuccess\n", spec.id()))?,
            Ok(false) => {
                return Err(Error::machine(format!("{} gives a wrong result", spec.id()), "please report this"));
            }
            Err(error @ Error::Machine { .. }) => cli::print(&format!("Testing {}\nSkipped: {error}\n", spec.id()))?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Driver {
    pub fn start(plan: RunPlan, arguments: &Arguments) -> Result<Self> {
        let raw = RawSamples::default();
        let home = criterion_home();
        if let Some(name) = &arguments.baseline {
            require_baseline(&home, name)?;
        }
        let mut criterion = Criterion::default()
            .with_measurement(raw.clone())
            .without_plots()
            .nresamples(10_000)
            .output_directory(&home);
        if let Some(name) = &arguments.save_baseline {
            criterion = criterion.save_baseline(name.clone());
        }
        if let Some(name) = &arguments.baseline {
            criterion = criterion.retain_baseline(name.clone(), false);
        }
        let coordinator = plan.coordinator();
        let (recorder, cases) = plan.start()?;
        if recorder.run.resumed_cases() > 0 {
            let (run, cases) = (recorder.run.id(), counted(recorder.run.resumed_cases(), "case"));
            cli::print(&format!("Going on with run {run}, which has {cases} already.\n\n"))?;
        }
        let baselines = arguments.save_baseline.is_some() || arguments.baseline.is_some();
        let (watch, visited) = (ProcessWatch::start()?, Vec::new());
        Ok(Driver { criterion, raw, recorder, cases, visited, watch, baselines, coordinator })
    }

    /// Measures the cases of one group, in their order.
    pub fn group(&mut self, group: Group) -> Result<()> {
        let cases = std::mem::take(&mut self.cases);
        let (chosen, rest): (Vec<_>, Vec<_>) = cases.into_iter().partition(|spec| group.holds(&spec.id()));
        self.cases = rest;
        for spec in &chosen {
            if self.watch.interrupted() {
                return Err(Error::Interrupted);
            }
            if !self.recorder.run.is_done(&spec.id()) {
                self.case(spec.as_ref())?;
            }
        }
        self.visited.extend(chosen);
        Ok(())
    }

    fn case(&mut self, spec: &dyn Spec) -> Result<()> {
        let mut prepared = match self.recorder.prepare(spec)? {
            Ok(prepared) => prepared,
            Err(skipped) => return note(&skipped, "skipped"),
        };
        if prepared.is_wrong() {
            return note(&self.recorder.record(prepared, Vec::new(), None)?, "its result is wrong, so it has no time");
        }
        let first = prepared.case.sample(1).map(|samples| samples.iter().map(|s| s.ns).sum::<f64>());
        let own_rule = prepared.case.sampling().rule.is_some();
        match first {
            // Criterion takes at least ten samples after a warm-up, too many for a case this long, and stops by the clock
            // alone.
            Ok(ns) if own_rule || ns * 11.0 > self.cap(&prepared).as_nanos() as f64 => {
                let record = self.recorder.measure(prepared, &self.watch)?;
                let kept = if self.baselines { ", not in Criterion's baselines" } else { "" };
                note(
                    &record,
                    &format!("{} by our own sampler (one takes long){kept}", counted(record.samples_total, "sample")),
                )
            }
            Ok(_) => self.criterion_case(prepared),
            Err(error) => note(&self.recorder.skip(prepared.case.info(), error)?, "skipped"),
        }
    }

    /// The time that Criterion may take for a case.
    fn cap(&self, prepared: &PreparedCase) -> Duration {
        let later_visits = self.recorder.visits_of(prepared.case.as_ref()) > 1;
        Duration::from_nanos(self.recorder.rule.cap_ns) / if later_visits { 2 } else { 1 }
    }

    fn criterion_case(&mut self, mut prepared: PreparedCase) -> Result<()> {
        let info = prepared.case.info().clone();
        let (group, function) = info.id.rsplit_once('/').unwrap_or(("", &info.id));
        let cap = self.cap(&prepared);
        let mut failure = None;
        self.raw.take();
        let mut bench = self.criterion.benchmark_group(group);
        bench.sampling_mode(SamplingMode::Flat).warm_up_time(cap / 6).measurement_time(cap / 2);
        bench.sample_size(self.recorder.rule.min_samples.max(prepared.case.sampling().min_samples).max(10));
        match (info.kind, info.flop, info.bytes) {
            (Kind::Layer | Kind::Operation, Some(flop), _) => drop(bench.throughput(Throughput::Elements(flop as u64))),
            (_, _, Some(bytes)) => drop(bench.throughput(Throughput::Bytes(bytes as u64))),
            _ => {}
        }
        bench.bench_function(function, |bencher| {
            bencher.iter_custom(|iterations| match prepared.case.sample(iterations) {
                Ok(samples) => Batch { samples, iterations },
                Err(error) => {
                    failure.get_or_insert(error);
                    Batch { samples: Vec::new(), iterations }
                }
            });
        });
        bench.finish();
        match failure {
            Some(error) => note(&self.recorder.skip(&info, error)?, "skipped"),
            None => self.recorder.record(prepared, self.raw.take(), None).map(drop),
        }
    }

    /// Makes the later visits, closes the run, fits, prints the tables.
    pub fn finish(mut self) -> Result<()> {
        let mut told = Ok(());
        self.recorder.visit_again(&self.visited, &self.watch, &mut |step| {
            let line = match step {
                Step::Round { visit, of, cases } => format!("\nVisit {visit} of {of}: {}\n", counted(cases, "case")),
                Step::Case(_) => return,
                Step::Failed(id, error) => format!("{id}: not visited again: {error}\n"),
            };
            told = std::mem::replace(&mut told, Ok(())).and_then(|()| cli::print(&line));
        })?;
        told?;
        let folder = self.recorder.finish()?;
        cli::print(&format!("\n{}", results::conclude(&folder)?))?;
        self.coordinator.map_or(Ok(()), |coordinator| coordinator.lock().finish())
    }
}

fn note(record: &Measurement, what: &str) -> Result<()> {
    let reason = record.param_str("reason").map(|r| format!(": {r}")).unwrap_or_default();
    cli::print(&format!("{:<50}  time: {}\n{:24}{what}{reason}\n", record.id, time_cell(record), ""))
}

/// Where Criterion keeps its baselines: beside the other build products.
fn criterion_home() -> PathBuf {
    if let Some(home) = std::env::var_os("CRITERION_HOME") {
        return home.into();
    }
    let target = std::env::current_exe().ok().and_then(|exe| Some(exe.ancestors().nth(3)?.to_path_buf()));
    target
        .filter(|t| t.ends_with("target") || t.join("release").is_dir())
        .unwrap_or_else(|| "target".into())
        .join("criterion")
}

fn require_baseline(home: &Path, name: &str) -> Result<()> {
    fn holds(folder: &Path, name: &str, depth: usize) -> bool {
        let Ok(entries) = std::fs::read_dir(folder) else { return false };
        entries.flatten().any(|entry| {
            let path = entry.path();
            path.is_dir()
                && ((entry.file_name() == name && path.join("estimates.json").exists())
                    || (depth > 0 && holds(&path, name, depth - 1)))
        })
    }
    if holds(home, name, 3) {
        return Ok(());
    }
    Err(Error::input(
        format!("there is no baseline `{name}` in {}", home.display()),
        format!("make it first with `cargo bench -- --save-baseline {name}`"),
    ))
}
