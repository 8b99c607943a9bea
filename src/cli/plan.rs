//! `bubblebench plan`: where a training job has bubbles, what fits into them, and what that wins.

use super::known::known;
use super::schedule::{self, Asked};
use super::{print, print_json, terminal};
use crate::cost::{datasheet, join, predict};
use crate::export::perfetto;
use crate::fill;
use crate::fill::measured::{self, IterationChoice};
use crate::pipeline::job::{Job, Limits};
use crate::pipeline::{ScheduleName, given, operations};
use crate::records::store::{Journal, MEASUREMENTS};
use crate::records::{CostModel, Measurement, files};
use crate::shape::DType;
use crate::{Error, Result, nearest, report};
use std::path::{Path, PathBuf};

/// Show a training job's bubbles, what to fill them with, and the expected gain.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bubblebench plan examples/gpt-a100-4x8.toml --html plan.html\n  \
    bubblebench plan examples/gpt-a100-4x8.toml --sweep\n  \
    bubblebench bubbles rank*.sqlite --json > bubbles.json\n  \
    bubblebench plan job.toml --bubbles bubbles.json\n  \
    bubblebench plan examples/steps-against-segments.toml --segments\n\n\
    Jobs are described in docs/planning.md and docs/pipeline.md; examples/ holds nine.")]
pub struct PlanArgs {
    /// The job: model, parallelism, hardware, and the small models to fill bubbles with
    #[arg(value_name = "JOB.toml")]
    job: PathBuf,
    /// Cost model to use instead of the job's own; of several the first that knows a part answers for it
    #[arg(long, value_name = "FILE")]
    cost_model: Vec<PathBuf>,
    /// GPU whose data sheet answers for what no cost model knows, like h100-sxm
    #[arg(long, value_name = "NAME", value_parser = known(datasheet::ALL.map(|sheet| sheet.name)))]
    gpu: Option<String>,
    /// Number format to train in, instead of the job's own
    #[arg(long, value_name = "DTYPE", value_parser = known(DType::TRAINED.map(DType::name)))]
    dtype: Option<String>,
    /// Schedule instead of the job's own: a name, or a JSON file of operations (docs/pipeline.md)
    #[arg(long, value_name = "NAME|FILE", value_parser = known(ScheduleName::ALL.map(ScheduleName::text)))]
    schedule: Option<String>,
    /// Bubbles of a real run (bubblebench.bubbles/1) in place of simulated ones, one device a stage
    #[arg(long, value_name = "FILE")]
    bubbles: Option<PathBuf>,
    /// Iteration of the run: `learned` from all of them (where five or more line up, unless told otherwise), the one with the
    /// `median` idle time, or a number
    #[arg(long, value_name = "WHICH", requires = "bubbles")]
    iteration: Option<IterationChoice>,
    /// Quantile of a bubble's lengths that the gate opens for, instead of the job's own (10 %)
    #[arg(long, value_name = "Q", value_parser = quantile)]
    bubbles_quantile: Option<f64>,
    /// Compare every way to divide the GPUs: pipeline x tensor x data x micro-batch
    // Where a flag that another one requires is refused, clap drops the requirement: so that one is refused by name too.
    #[arg(long, conflicts_with_all = ["bubbles", "iteration", "bubbles_quantile", "trace", "html"])]
    sweep: bool,
    /// Compare each side alone: stopping between whole steps only, or between any two of its kernels
    #[arg(long, conflicts_with_all = ["bubbles", "iteration", "trace", "html", "json", "operations", "brief", "sweep"])]
    segments: bool,
    /// Print the answer only: whether filling pays, by how much, and with what
    #[arg(long, conflicts_with_all = ["json", "sweep"])]
    brief: bool,
    /// Print the plan as JSON (bubblebench.plan/2, with --sweep bubblebench.sweep/2)
    #[arg(long)]
    json: bool,
    /// Put every operation of the iteration without side work into the JSON
    #[arg(long, requires = "json", conflicts_with_all = ["bubbles", "sweep", "brief"])]
    operations: bool,
    /// Write a trace for ui.perfetto.dev, side work and free memory included
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bubbles", "iteration"])]
    trace: Option<PathBuf>,
    /// Write the plan as one self-contained page with pictures
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Plans the job, writes what was asked for and prints the plan.
pub fn run(args: &PlanArgs) -> Result<()> {
    let mut job = under_schedule(args, Job::read(&args.job)?)?;
    let (model, paths) = machine(&args.cost_model, args.gpu.as_deref(), &job)?;
    settle(args.dtype.as_deref(), &mut job, &model)?;
    set_quantile(args, &mut job)?;
    if args.sweep {
        return super::sweep::run(&job, &model, args.json);
    }
    let measurements = measurements(&job, &paths)?;
    if args.segments {
        let (sides, notes) = fill::segments::compare(&job, &model, &measurements)?;
        return print(&report::plan::segments::render(&sides, &notes, terminal::screen()));
    }
    let mut plan = match &args.bubbles {
        None => fill::plan(&job, &model, &measurements)?,
        Some(file) => {
            let wanted = args.iteration.unwrap_or(IterationChoice::Usual);
            measured::plan(&job, &model, &measurements, file, wanted)?
        }
    };
    if let Some(trace) = &args.trace {
        perfetto::write_plan(trace, &plan)?;
    }
    if let Some(html) = &args.html {
        let page = report::html::plan::html(&plan, model.made_from.source.as_deref());
        files::write_atomic(html, page.as_bytes())?;
    }
    if args.operations {
        plan.record.operations = Some(operations::of_timeline(&plan.timeline));
    }
    match (args.json, args.brief) {
        (true, _) => print_json(&plan.record),
        (_, true) => print(&report::plan::brief(&plan.record, terminal::screen())),
        _ => print(&report::plan::render(&plan, terminal::screen())),
    }
}

/// A share of a bubble's lengths: `0.1` or `10%`.
fn quantile(text: &str) -> Result<f64, String> {
    let value = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.trim().parse(),
    };
    let within = |value: &f64| Limits::QUANTILES.contains(value);
    value.ok().filter(within).ok_or_else(|| "give a share from 0.001 to 0.5, like 0.1 or 10%".to_string())
}

/// Sets the quantile that was asked for, if there are lengths of which it can be one.
fn set_quantile(args: &PlanArgs, job: &mut Job) -> Result<()> {
    let Some(quantile) = args.bubbles_quantile else { return Ok(()) };
    if matches!(args.iteration, Some(IterationChoice::Median | IterationChoice::Number(_))) {
        return Err(Error::input(
            "--bubbles-quantile with a single iteration, which has one length a bubble",
            "leave one of the two out, or give `--iteration learned`",
        ));
    }
    if args.bubbles.is_none() && job.limits.bubble_jitter.is_none_or(|jitter| jitter == 0.0) {
        let still = job.limits.bubble_jitter.is_some();
        return Err(Error::input(
            if still {
                "--bubbles-quantile of bubbles that do not vary: `bubble_jitter` is 0 %"
            } else {
                "--bubbles-quantile without lengths that vary"
            },
            "give --bubbles FILE of several iterations, or set `bubble_jitter` in [limits] of the job",
        ));
    }
    job.limits.bubble_quantile = Some(quantile);
    Ok(())
}

/// The job under the schedule that was asked for in place of its own.
fn under_schedule(args: &PlanArgs, job: Job) -> Result<Job> {
    match args.schedule.as_deref().map(schedule::asked).transpose()? {
        None => Ok(job),
        Some(Asked::Name(name)) => job.with_schedule(name),
        Some(Asked::File(file)) if args.sweep => Err(Error::input(
            format!("--sweep with the operations of {}", file.display()),
            "they are of one number of stages and micro-batches: leave one of the two out, or give --schedule a name",
        )),
        Some(Asked::File(file)) => job.with_order(given::read(&file)?),
    }
}

/// The cost models given in place of the job's, else the job's own, as one, the data sheet behind them; and the models' paths.
pub(super) fn machine(given: &[PathBuf], gpu: Option<&str>, job: &Job) -> Result<(CostModel, Vec<PathBuf>)> {
    // Either flag stands for another machine: both keys of the job step back.
    let own = given.is_empty() && gpu.is_none();
    let paths = if own { job.hardware.cost_models.clone() } else { given.to_vec() };
    let gpu = if own { job.hardware.gpu.as_deref() } else { gpu };
    if paths.is_empty() && gpu.is_none() {
        return Err(Error::input(
            format!("{} names no cost model", job.path.display()),
            "add `cost_model = \"…/cost_model.json\"` or `gpu = \"h100-sxm\"` to [hardware], or give --cost-model FILE or --gpu NAME",
        ));
    }
    let mut models = paths.iter().map(|path| super::predict::load(path)).collect::<Result<Vec<_>>>()?;
    if let Some(name) = gpu {
        let sheet = datasheet::find(name).map_err(|e| match (e, own) {
            (Error::Input { what, cure }, true) => Error::input(format!("{}: {what}", job.path.display()), cure),
            (other, _) => other,
        })?;
        models.push(datasheet::model(&sheet));
    }
    Ok((join::join(models)?, paths))
}

/// What the job leaves to the machine: the number format, and whether attention is fused.
pub(super) fn settle(dtype: Option<&str>, job: &mut Job, model: &CostModel) -> Result<()> {
    if let Some(name) = dtype {
        job.model.dtype = Some(DType::parse(name).filter(|d| DType::TRAINED.contains(d)).ok_or_else(|| {
            Error::input(format!("--dtype {name} is unknown"), nearest::cure(name, DType::TRAINED.map(DType::name)))
        })?);
    }
    job.model.attention = job.model.attention.or_else(|| Some(predict::usual_attention(model)));
    Ok(())
}

/// The measurements beside the first cost model that has some, if a side needs figures from them.
pub(super) fn measurements(job: &Job, cost_models: &[PathBuf]) -> Result<Vec<Measurement>> {
    let folders = cost_models.iter().map(|path| path.parent().unwrap_or(Path::new("")));
    let asked = job.side.iter().any(|s| s.measured.is_some());
    match folders.into_iter().find(|folder| asked && folder.join(MEASUREMENTS).exists()) {
        Some(folder) => Ok(Journal::read(folder)?.measurements),
        None => Ok(Vec::new()),
    }
}
