//! `bubblebench export`: what was measured, or what the cost model says, in another tool's own format.

use super::fit::this_machines_folder;
use super::known::known;
use super::terminal::note;
use super::{plan, predict};
use crate::export::workload::Workload;
use crate::export::{
    Content, Exported, calculon, criterion, csv, galvatron, gavel, nccl_tests, nccl_tuner, nvbench, perfetto, simumax,
    zero_bubble,
};
use crate::fill;
use crate::pipeline::job::Job;
use crate::records::store::{Journal, MACHINE, MEASUREMENTS};
use crate::records::{CostModel, MachineRecord, Measurement, files};
use crate::units::counted;
use crate::{Error, Result, nearest};
use std::path::{Path, PathBuf};

/// The tools in whose format something can be written.
const TOOLS: [&str; 11] = [
    "galvatron",
    "simumax",
    "calculon",
    "zero-bubble",
    "gavel",
    "nccl-tuner",
    "nccl-tests",
    "criterion",
    "nvbench",
    "perfetto",
    "csv",
];

const EXAMPLES: &str = "Examples:
  bubblebench export --to galvatron --cost-model cost_model.json --out galvatron
  bubblebench export --to zero-bubble --job job.toml --out graph.json
  bubblebench export --to nccl-tests --results results/node7 --out all.log
  bubblebench export --to criterion --results results/node7 > before.json";

/// For each format what it is for, what it needs, and what is lost. Pages of more: docs/exports.md.
const FORMATS: &str = "Formats, each with what it is for, what it needs (-) and what is lost (x):

galvatron    Searches parallel training: the six files of hetu-galvatron 2.4.0
             in the folder --out, for the job's GPUs, else one node.
             - layers or operations; all_reduce, all_to_all, send_recv
             x a backward that is not twice the forward (a third of both is
               written); intervals; starts; smaller products of tensor
               parallelism
simumax      Simulates training: SimuMax 1.2's system.json.
             - products and attention of bf16; five collectives within a node
             x intervals, additivity of layers, cold caches, co-running
calculon     Models training of language models: Calculon's system file.
             - products, streaming operations, memory size, an all-reduce
             x shapes (one curve of products), attention's own times, a start
               for each collective, copies to the host, intervals
zero-bubble  Schedules a pipeline: keyword arguments of Zero Bubble's
             GraphConfig for the stages of --job.
             - a layer's price; memory for one micro-batch a stage
             x intervals, several chunks a stage, gradients and optimizer
gavel        Schedules a cluster: steps a second of every two jobs on one GPU.
             - pairs that ran beside each other by --sharing, whose side trains
             x intervals, pairs not measured (0), other sharing modes
nccl-tuner   Chooses NCCL's algorithms: the table from which the example
             tuner's optimize_config.py makes the plugin's configuration.
             - GPU records measured with --nccl-choices, one --results for each
               forced NCCL_ALGO and NCCL_PROTO; no cost model has them
             x element types, in-place and isolated times, intervals
nccl-tests   Feeds scripts that read nccl-tests' output: the collectives as it
             prints them, a block an operation.
             - records of collectives
             x intervals, visits, operations it has no columns for
criterion    Compares runs: a baseline that critcmp reads.
             - records with samples; --model-name names the baseline
             x the median (critcmp shows means), flags, checks, isolated times
nvbench      Compares runs: JSON that nvbench-compare reads.
             - records with samples
             x the samples themselves (quartiles are kept), flags, checks
perfetto     Shows a timeline in ui.perfetto.dev: the plan of --job, as
             `plan --trace` writes it.
             - --job
             x intervals, prices, alternatives
csv          A table for a spreadsheet or pandas: the cases a cost model keeps.
             - a cost model
             x the fits, and cases that the model was made from and does not
               keep

Without --job the layer is the model's first measured one, else GPT-3 6.7B's.
Notes on stderr say what was lost, derived or taken for granted in this file.";

/// What `bubblebench export` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{FORMATS}"))]
pub struct ExportArgs {
    /// Whose format
    #[arg(long, value_name = "TOOL", value_parser = known(TOOLS))]
    to: String,
    /// The model to export [default: the job's, else cost_model.json of the results]
    #[arg(long, value_name = "FILE")]
    cost_model: Option<PathBuf>,
    /// The folder that holds measurements.jsonl; several for nccl-tuner [default: results/<machine>] [env: BUBBLEBENCH_RESULTS]
    #[arg(long, env = "BUBBLEBENCH_RESULTS", hide_env = true, value_name = "DIR")]
    results: Vec<PathBuf>,
    /// The job whose layers, stages and GPUs are meant (docs/pipeline.md)
    #[arg(long, value_name = "JOB.toml")]
    job: Option<PathBuf>,
    /// gavel: the name by which the device goes there
    #[arg(long, value_name = "NAME", default_value = "v100", value_parser = known(gavel::WORKERS))]
    worker: String,
    /// gavel: how main and side shared the device [default: free, else the first measured]
    #[arg(long, value_name = "MODE")]
    sharing: Option<String>,
    /// What galvatron calls the model [default: hiddenH_headA], critcmp the baseline [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// The file to write, for galvatron the folder [default: stdout]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// Says which collectives nccl-tests has no columns for.
pub(super) fn note_left_out(records: &[Measurement]) {
    left_out(records).iter().for_each(note);
}

fn left_out(records: &[Measurement]) -> Vec<String> {
    let left_out = nccl_tests::left_out(records).into_iter();
    let sentence = |(operation, count)| {
        format!("left out: {} of {operation} that nccl-tests has no columns for", counted(count, "case"))
    };
    left_out.map(sentence).collect()
}

/// Prints or writes the measurements of a folder, or a cost model, as the other tool would.
pub fn run(args: &ExportArgs) -> Result<()> {
    if !TOOLS.contains(&args.to.as_str()) {
        return Err(Error::input(format!("--to {} is unknown", args.to), nearest::cure(&args.to, TOOLS)));
    }
    if args.to == "galvatron" && args.out.is_none() {
        return Err(Error::input("galvatron reads six files of one folder", "give the folder with --out DIR"));
    }
    if let [_, second, ..] = args.results.as_slice()
        && args.to != "nccl-tuner"
    {
        return Err(Error::input(
            format!("--results {} is a second folder", second.display()),
            "only nccl-tuner takes several: give one",
        ));
    }
    let made = exported(args)?;
    made.notes.iter().for_each(note);
    match (made.content, &args.out) {
        (Content::File(text), None) => return super::print(&text),
        (Content::File(text), Some(path)) => files::write_atomic(path, text.as_bytes())?,
        (Content::Folder(all), Some(path)) => files::write_folder(path, &all)?,
        (Content::Folder(_), None) => return Err(Error::bug(format!("{} is a folder and has no place", args.to))),
    }
    if let Some(path) = &args.out {
        note(format_args!("written to {}", path.display()));
    }
    Ok(())
}

fn exported(args: &ExportArgs) -> Result<Exported> {
    match args.to.as_str() {
        "galvatron" => {
            let (model, workload) = workload(args)?;
            galvatron::files(&model, &workload, args.model_name.as_deref())
        }
        "simumax" => workload(args).and_then(|(model, workload)| simumax::file(&model, &workload)),
        "zero-bubble" => workload(args).and_then(|(model, workload)| zero_bubble::file(&model, &workload)),
        "calculon" => calculon::file(&model(args, None)?.0),
        "csv" => csv::file(&model(args, None)?.0),
        "gavel" => gavel(args),
        "perfetto" => planned(args),
        "nccl-tuner" => tuner(args),
        "criterion" => {
            let folder = samples_folder(args)?;
            criterion::file(&baseline(args, &folder), &Journal::read(&folder)?.measurements)
        }
        "nvbench" => {
            let folder = samples_folder(args)?;
            nvbench::file(&machine(&folder)?, &Journal::read(&folder)?.measurements)
        }
        _ => printed(args),
    }
}

/// The model given, else the job's own, else the one of the results folder; and the files it was read from.
fn model(args: &ExportArgs, job: Option<&Job>) -> Result<(CostModel, Vec<PathBuf>)> {
    let names_one = |job: &&Job| !job.hardware.cost_models.is_empty() || job.hardware.gpu.is_some();
    let path = match (&args.cost_model, job.filter(names_one)) {
        (Some(path), _) => path.clone(),
        (None, Some(job)) => return plan::machine(&[], None, job),
        (None, None) => predict::own_model(args.results.first().map(PathBuf::as_path))?,
    };
    Ok((predict::load(&path)?, vec![path]))
}

fn workload(args: &ExportArgs) -> Result<(CostModel, Workload)> {
    let job = args.job.as_deref().map(Job::read).transpose()?;
    let (model, _) = model(args, job.as_ref())?;
    let workload = Workload::of(&model, job)?;
    Ok((model, workload))
}

/// Speeds alone stand in the records that the model was made from: those given, else those beside it.
fn gavel(args: &ExportArgs) -> Result<Exported> {
    let (model, paths) = model(args, None)?;
    let given = args.results.first().cloned();
    let beside = || paths.first().and_then(|path| path.parent()).map(Path::to_path_buf);
    let folder = given.clone().or_else(beside).filter(|folder| folder.join(MEASUREMENTS).exists());
    let journal = folder.as_deref().map(Journal::read).transpose()?.unwrap_or_default();
    let its_own = model.made_from.measurements_sha256.as_ref() == Some(&journal.sha256);
    let records = if its_own { journal.measurements.as_slice() } else { &[] };
    let sharing = args.sharing.as_deref().unwrap_or_else(|| gavel::usual_sharing(&model));
    let mut made = gavel::file(&model, records, &args.worker, sharing)?;
    if let (Some(folder), false) = (given, its_own) {
        made.notes
            .push(format!("the model was not made from the measurements in {}: they are not used", folder.display()));
    }
    Ok(made)
}

fn planned(args: &ExportArgs) -> Result<Exported> {
    let Some(path) = &args.job else {
        return Err(Error::input("perfetto shows the plan of a job", "give --job JOB.toml (examples/ holds nine)"));
    };
    let mut job = Job::read(path)?;
    let (model, paths) = model(args, Some(&job))?;
    plan::settle(None, &mut job, &model)?;
    perfetto::of_plan(&fill::plan(&job, &model, &plan::measurements(&job, &paths)?)?)
}

fn tuner(args: &ExportArgs) -> Result<Exported> {
    if args.cost_model.is_some() && args.results.is_empty() {
        return Err(nccl_tuner::unknown());
    }
    let mut records = Vec::new();
    for folder in folders(args) {
        records.extend(Journal::read(&folder)?.measurements);
    }
    nccl_tuner::file(&records)
}

fn folders(args: &ExportArgs) -> Vec<PathBuf> {
    if args.results.is_empty() { vec![this_machines_folder()] } else { args.results.clone() }
}

fn folder(args: &ExportArgs) -> PathBuf {
    args.results.first().cloned().unwrap_or_else(this_machines_folder)
}

/// The folder whose records hold samples; a cost model alone has none.
fn samples_folder(args: &ExportArgs) -> Result<PathBuf> {
    if args.cost_model.is_some() && args.results.is_empty() {
        return Err(Error::input(
            format!("{} wants samples, and a cost model holds none", args.to),
            "give --results DIR with the folder that holds measurements.jsonl",
        ));
    }
    Ok(folder(args))
}

fn machine(folder: &Path) -> Result<MachineRecord> {
    files::read_json(&folder.join(MACHINE), "machine")
}

/// What critcmp tells two files apart by: the name given, else the folder's.
fn baseline(args: &ExportArgs, folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let own = whole.file_name().map(|name| name.to_string_lossy().into_owned());
    args.model_name.clone().or(own).unwrap_or_else(|| "bubblebench".into())
}

/// The collectives as nccl-tests prints them.
fn printed(args: &ExportArgs) -> Result<Exported> {
    let folder = folder(args);
    let journal = Journal::read(&folder)?;
    let text = nccl_tests::blocks(&machine(&folder)?, &journal.measurements);
    if text.is_empty() {
        return Err(Error::input(
            format!("{} holds no collective with a time", folder.display()),
            "run `bubblebench measure collectives` with the same --results first",
        ));
    }
    Ok(Exported { content: Content::File(text), notes: left_out(&journal.measurements) })
}
