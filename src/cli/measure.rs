//! `bubblebench measure`: the suite's cases with our own sampler, for compute nodes without cargo.

use super::monitoring::Monitoring;
use super::ranks::{self, LauncherRole};
use super::session::{RunOptions, RunPlan};
use super::{results, terminal};
use crate::collectives::nccl;
use crate::export::nccl_tests;
use crate::records::store::{Journal, MACHINE};
use crate::records::{MachineRecord, Measurement, files};
use crate::report::layers::time_cell;
use crate::suite::Spec;
use crate::suite::groups::Group;
use crate::suite::presets::Preset;
use crate::suite::recorder::{Recorder, Step};
use crate::suite::watch::ProcessWatch;
use crate::units::counted;
use crate::{Error, Result};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::Path;

/// What is measured: a group of cases or all of them.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum MeasureGroup {
    /// One GPT layer, its operations, and the small models alone
    GptLayer,
    /// All-reduce, send/recv and the other collectives
    Collectives,
    /// A layer and a small model, or another side, at the same time
    Corun,
    /// The gate, and a pipeline stage with a small model in its bubbles
    Fill,
    /// All of these; the cost model is fitted too
    All,
}

impl MeasureGroup {
    fn groups(self) -> &'static [Group] {
        match self {
            MeasureGroup::GptLayer => &[Group::GptLayer],
            MeasureGroup::Collectives => &[Group::Collectives],
            MeasureGroup::Corun => &[Group::Corun],
            MeasureGroup::Fill => &[Group::Fill],
            MeasureGroup::All => &Group::ALL,
        }
    }
}

/// The form in which a run is printed at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Our tables
    Table,
    /// Collectives in nccl-tests' own columns, for scripts that read those
    NcclTests,
}

/// What `bubblebench measure` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bubblebench measure gpt-layer --device host --preset quick --results out\n  \
    bubblebench measure all /op/ --device host --list\n  \
    bubblebench measure collectives --format nccl-tests | ./my-nccl-parser\n\n\
    Results go to DIR/measurements.jsonl, a line a case; an unfinished run goes on where it stopped. A run of `all` \
    cases also fits the cost model and writes the tables.")]
pub struct MeasureArgs {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    what: MeasureGroup,
    /// Only the cases with this text in their names
    filter: Option<String>,
    /// Print the names of the cases that would run, one a line, and measure nothing
    #[arg(long)]
    list: bool,
    /// How the run is printed at its end
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Note the algorithm, protocol and channels of each collective, from NCCL's log, which then has a line an operation
    #[arg(long, help_heading = "Collectives")]
    nccl_choices: bool,
    /// Serve progress, results and the GPU's state to Prometheus while the run lasts, at http://ADDR/metrics: a PORT of
    /// 127.0.0.1, or IP:PORT
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    #[command(flatten)]
    options: RunOptions,
}

/// Measures, or says what it would measure.
pub fn run(args: &MeasureArgs) -> Result<()> {
    args.refuse_format()?;
    let monitoring = Monitoring::of(args.metrics.as_deref())?;
    if args.list {
        return args.list();
    }
    if args.nccl_choices {
        // Before the first thread: see there.
        nccl::log_choices()?;
    }
    if args.options.ranks.ranks.is_some() {
        nccl::room_for_ranks();
    }
    let watch = ProcessWatch::start()?;
    let (options, groups, filter) = (&args.options, args.what.groups(), args.filter.as_deref());
    let (coordinator, device) = match ranks::part(&options.ranks, &options.device, groups)? {
        None => return args.measure(options.plan(groups, filter, Preset::Standard)?, &watch, monitoring),
        Some(LauncherRole::Followed) => return Ok(()),
        Some(LauncherRole::Lead(coordinator, device)) => (coordinator, device),
    };
    let plan = options.plan_with(device, groups, filter, Preset::Standard, || Ok(Some(coordinator.clone())));
    let outcome = plan.and_then(|plan| args.measure(plan, &watch, monitoring));
    if let Err(error) = &outcome {
        // The others learn why from us, where they do not know it yet.
        coordinator.lock().end(&error.to_string());
        ranks::last_resort(error);
    }
    outcome
}

impl MeasureArgs {
    fn list(&self) -> Result<()> {
        let plan = self.options.plan(self.what.groups(), self.filter.as_deref(), Preset::Standard)?;
        super::print(&plan.cases.iter().map(|case| case.id() + "\n").collect::<String>())
    }

    fn measure(&self, plan: RunPlan, watch: &ProcessWatch, monitoring: Option<Monitoring>) -> Result<()> {
        let coordinator = plan.coordinator();
        let monitoring = monitoring.map(|monitoring| monitoring.listen(&plan)).transpose()?;
        let (mut recorder, cases) = plan.start()?;
        let bar = progress((recorder.visits.max(1) * cases.len()) as u64);
        let monitor = monitoring.map(|monitoring| monitoring.serve(&recorder, cases.len(), &bar)).transpose()?;
        if let Some(monitor) = &monitor {
            recorder = recorder.with_observer(monitor.values().clone(), &cases);
        }
        notes(&bar, &recorder, cases.len());
        first_visit(&mut recorder, &cases, watch, &bar)?;
        let mut due = 0;
        recorder.visit_again(&cases, watch, &mut |step| {
            visited(&bar, &step, due);
            if let (Step::Round { visit, .. }, Some(monitor)) = (&step, &monitor) {
                monitor.values().visit_begins(*visit);
            }
            due = if let Step::Case(_) = step { 1 } else { due };
        })?;
        bar.finish_and_clear();
        let folder = recorder.finish()?;
        let tables = results::conclude(&folder)?;
        super::print(&match self.format {
            Format::Table => tables,
            Format::NcclTests => self.in_nccl_tests_columns(&folder)?,
        })?;
        // Last of all: until then whatever happens to this rank is every rank's failure.
        coordinator.map_or(Ok(()), |coordinator| coordinator.lock().finish())
    }

    /// Said before anything is measured.
    fn refuse_format(&self) -> Result<()> {
        match (self.format, self.what) {
            (Format::NcclTests, MeasureGroup::GptLayer | MeasureGroup::Corun | MeasureGroup::Fill) => {
                Err(Error::input(
                    "--format nccl-tests prints collectives only",
                    "measure collectives (or all), or leave --format out",
                ))
            }
            _ => Ok(()),
        }
    }

    fn in_nccl_tests_columns(&self, folder: &Path) -> Result<String> {
        let machine: MachineRecord = files::read_json(&folder.join(MACHINE), "machine")?;
        let mut records = Journal::read(folder)?.measurements;
        records.retain(|record| self.filter.as_ref().is_none_or(|filter| record.id.contains(filter)));
        super::export::note_left_out(&records);
        Ok(nccl_tests::blocks(&machine, &records))
    }
}

fn progress(cases: u64) -> ProgressBar {
    // What is drawn is drawn again and again, with escape sequences.
    let target = if terminal::may_draw() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(cases), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} gone, {eta} left  {wide_msg}") {
        bar.set_style(if terminal::error_screen().ascii { style.progress_chars("#>-") } else { style });
    }
    bar
}

/// Above the bar in a terminal, as a plain line in a log.
fn say(bar: &ProgressBar, text: &str) {
    let text = terminal::error_screen().text(text);
    if bar.is_hidden() { terminal::tell(&text.to_string()) } else { bar.println(text) }
}

/// What is said before the first case.
fn notes(bar: &ProgressBar, recorder: &Recorder, cases: usize) {
    let (resumed, visits) = (recorder.run.resumed_cases(), recorder.visits.max(1));
    if resumed > 0 {
        say(
            bar,
            &format!("note: going on with run {}, which has {} already", recorder.run.id(), counted(resumed, "case")),
        );
    }
    if visits > 1 {
        say(bar, &format!("note: visit 1 of {visits} to {}", counted(cases as u64, "case")));
    }
}

fn first_visit(
    recorder: &mut Recorder,
    cases: &[Box<dyn Spec>],
    watch: &ProcessWatch,
    bar: &ProgressBar,
) -> Result<()> {
    for spec in cases {
        let id = spec.id();
        bar.set_message(id.clone());
        if !recorder.run.is_done(&id) {
            let record = match recorder.prepare(spec.as_ref())? {
                Ok(prepared) => recorder.measure(prepared, watch)?,
                Err(skipped) => skipped,
            };
            say(bar, &line(&record, bar.position() + 1, cases.len()));
        }
        bar.inc(1);
    }
    Ok(())
}

/// `before` counts the case that was told last, and is done now.
fn visited(bar: &ProgressBar, step: &Step<'_>, before: u64) {
    match step {
        Step::Round { visit, of, cases } => {
            // Not all are visited again.
            bar.set_length(bar.position() + before + ((of + 1 - visit) * cases) as u64);
            say(bar, &format!("note: visit {visit} of {of} to {}", counted(*cases as u64, "case")));
        }
        Step::Case(id) => {
            bar.set_message(id.to_string());
            bar.inc(before);
        }
        Step::Failed(id, error) => say(bar, &format!("note: {id} was not visited again: {error}")),
    }
}

fn line(record: &Measurement, number: u64, of: usize) -> String {
    let reason = record.param_str("reason").map(|r| format!(" ({r})")).unwrap_or_default();
    format!("[{number:>3}/{of}] {:<52} {}{reason}", record.id, time_cell(record))
}
