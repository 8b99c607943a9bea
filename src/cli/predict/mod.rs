//! `bubblebench predict`: questions to a cost model, answered with an interval: one by the command line, or many by JSON
//! lines on stdin.
//!
//! `question` is what is asked and how it is checked, `print` the answer as a table, `batch` the lines.

mod batch;
mod print;
pub(super) mod question;

use super::fit::this_machines_folder;
use super::terminal;
use crate::cost;
use crate::cost::predict::Predictor;
use crate::records::store::COST_MODEL;
use crate::records::{CostModel, files};
use crate::{Error, Result};
use question::{Question, Spelling};
use std::io;
use std::path::{Path, PathBuf};

/// What `bubblebench predict` is asked.
#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  \
    bubblebench predict --cost-model cost_model.json layer --hidden 1024 \\\n    \
    --heads 16 --sequence 512 --micro-batch 2\n  \
    bubblebench predict --cost-model cost_model.json layer --hidden 4096 \\\n    \
    --heads 32 --kv-heads 8 --ffn-hidden 14336 --gated --norm rmsnorm \\\n    \
    --positions rotary --no-bias --sequence 8192 --micro-batch 1\n  \
    bubblebench predict --cost-model cost_model.json collective \\\n    \
    --operation all_reduce --ranks 8 --bytes 16MiB --json\n  \
    bubblebench predict --cost-model cost_model.json corun \\\n    \
    --main gpt-h512-a8-s256-b1-t1-f32-forward --side mlp-b32 --sharing free\n  \
    bubblebench predict --cost-model cost_model.json --batch <questions.jsonl")]
pub struct PredictArgs {
    /// The model to ask [default: cost_model.json in BUBBLEBENCH_RESULTS, else in results/<machine>]
    #[arg(long, global = true, value_name = "FILE", display_order = 100)]
    cost_model: Option<PathBuf>,
    /// Answer as JSON (bubblebench.prediction/1)
    #[arg(long, global = true, display_order = 101)]
    json: bool,
    /// Answer every line of stdin, a question as JSON, with a line on stdout (docs/reading.md)
    #[arg(long, required = true, display_order = 102)]
    batch: bool,
    #[command(subcommand)]
    question: Option<Question>,
}

/// Asks the cost model and prints its answer.
pub fn run(args: &PredictArgs) -> Result<()> {
    // clap knows options that exclude each other, but no option that excludes a command.
    if args.batch && args.question.is_some() {
        return Err(Error::input(
            "--batch takes its questions from stdin, and one was given beside it",
            "leave one of both out",
        ));
    }
    let path = match &args.cost_model {
        Some(path) => path.clone(),
        None => own_model(None)?,
    };
    let model = load(&path)?;
    match &args.question {
        Some(question) => answer(&model, question, args.json),
        None => batch::run(&model, io::stdin().lock(), io::stdout().lock()),
    }
}

fn answer(model: &CostModel, question: &Question, json: bool) -> Result<()> {
    let asked = question.asked(model, Spelling::Options)?;
    let answer = asked.answer(&Predictor::new(model))?;
    let table = print::table(model, &asked, &answer);
    super::print(&match table.filter(|_| !json) {
        Some(table) => table.terminal(terminal::screen()),
        None => format!("{}\n", files::to_json(&answer)?),
    })
}

/// The model in the folder given, else the one that this machine's own measurements were fitted to.
pub fn own_model(folder: Option<&Path>) -> Result<PathBuf> {
    let variable = || std::env::var_os("BUBBLEBENCH_RESULTS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let own = || variable().unwrap_or_else(this_machines_folder);
    let path = folder.map_or_else(own, Path::to_path_buf).join(COST_MODEL);
    if path.exists() {
        return Ok(path);
    }
    Err(match folder {
        Some(folder) => Error::input(
            format!("there is no cost model: {} is not there", path.display()),
            format!("make it with `bubblebench fit --results {}`, or give --cost-model FILE", folder.display()),
        ),
        None => Error::input(
            format!("this machine has no cost model: {} is not there", path.display()),
            "measure it first with `cargo bench` or `bubblebench measure all`, or give --cost-model FILE",
        ),
    })
}

/// Reads a cost model and refuses one whose numbers cannot be used; layers that stand alone in it are fitted.
pub fn load(path: &Path) -> Result<CostModel> {
    let model: CostModel = files::read_json(path, "cost_model")?;
    cost::check(&model)
        .map_err(|e| Error::input(format!("{}: {e}", path.display()), "nothing was computed from it"))?;
    cost::with_layer_fits(model)
}
