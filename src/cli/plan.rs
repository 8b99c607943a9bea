//! `bubblebench plan`: where a training job has bubbles, what fits into them, and what that wins.

use super::print;
use super::simulate::{json_line, terminal_width};
use crate::fill::{self, plan::Plan};
use crate::pipeline::activations::Live;
use crate::pipeline::job::Job;
use crate::pipeline::memory::GIB;
use crate::records::Measurement;
use crate::records::store::{Journal, MEASUREMENTS};
use crate::trace::perfetto::{self, Counter, SideSpan};
use crate::{Error, Result, report};
use std::path::{Path, PathBuf};

/// Show a training job's bubbles, what to fill them with, and the expected gain.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bubblebench plan examples/gpt-a100-4x8.toml")]
pub struct PlanArgs {
    /// The job (TOML)
    #[arg(value_name = "JOB.toml")]
    job: PathBuf,
    /// Cost model to use instead of the job's own
    #[arg(long, value_name = "FILE")]
    cost_model: Option<PathBuf>,
    /// Print the plan as JSON (bubblebench.plan/1)
    #[arg(long)]
    json: bool,
    /// Write a trace for ui.perfetto.dev, side work and free memory included
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

pub fn run(args: &PlanArgs) -> Result<()> {
    let job = Job::read(&args.job)?;
    let path = args.cost_model.clone().or_else(|| job.hardware.cost_model.clone()).ok_or_else(|| {
        Error::input(
            format!("{} names no cost model", args.job.display()),
            "add `cost_model = \"…/cost_model.json\"` to [hardware], or give --cost-model FILE",
        )
    })?;
    let model = super::predict::load(&path)?;
    let plan = fill::plan(&job, &model, &measurements(&job, &path)?)?;
    if let Some(trace) = &args.trace {
        write_trace(trace, &plan)?;
    }
    if args.json { print(&json_line(&plan.record)?) } else { print(&report::plan::render(&plan, terminal_width())) }
}

/// The measurements beside the cost model, if a side needs figures from them.
fn measurements(job: &Job, cost_model: &Path) -> Result<Vec<Measurement>> {
    let folder = cost_model.parent().unwrap_or(Path::new(""));
    let asked = job.side.iter().any(|s| s.measured.is_some() && (s.step_ns.is_none() || s.memory_gib.is_none()));
    if !asked || !folder.join(MEASUREMENTS).exists() {
        return Ok(Vec::new());
    }
    Ok(Journal::read(folder)?.measurements)
}

fn write_trace(path: &Path, plan: &Plan) -> Result<()> {
    let share = plan.timeline.schedule.chunk_share();
    let live = |live: Live| live.micro_batches(share, plan.weight_share);
    let free = |stage: usize, at: Live| plan.memory.free_bytes(stage, live(at)).unwrap_or(0.0) / GIB;
    let held = |_: usize, at: Live| live(at);
    let counter = match plan.memory.total_bytes {
        Some(_) => Counter { name: "free memory (GiB)", value: &free },
        None => Counter { name: "activations (micro-batches)", value: &held },
    };
    let spans = |stage: &fill::record::PlanStage| {
        let stage_index = stage.stage as usize;
        let fills: Vec<_> = stage.bubbles.iter().flat_map(|b| &b.fills).collect();
        fills
            .into_iter()
            .map(move |f| SideSpan { stage: stage_index, start_ns: f.start_ns, end_ns: f.end_ns, name: f.side.clone() })
            .collect::<Vec<_>>()
    };
    let side: Vec<SideSpan> = plan.record.stage.iter().flat_map(spans).collect();
    perfetto::write_file(path, &plan.timeline, &counter, &side)
}
