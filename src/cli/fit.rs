//! `bubblebench fit`: measurements become a cost model, with its error on held-out cases.

use super::{results, terminal};
use crate::machine::{self, Device, DeviceChoice};
use crate::records::files;
use crate::records::own_model::refuse_foreign_file;
use crate::records::store::COST_MODEL;
use crate::report::accuracy::accuracy;
use crate::{Error, Result};
use std::path::PathBuf;

/// What `bubblebench fit` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: bubblebench fit --results results/node7 --out node7.json\n\n\
    Prints the error of every part of the model on cases that its fit had not seen (docs/cost-model.md). A cost model \
    that was not fitted from this folder's measurements is never replaced.")]
pub struct FitArgs {
    /// The folder that holds measurements.jsonl [default: results/<machine>] [env: BUBBLEBENCH_RESULTS]
    #[arg(long, env = "BUBBLEBENCH_RESULTS", hide_env = true, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Where to write the model [default: DIR/cost_model.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Fits a folder's measurements, writes the model and prints its error.
pub fn run(args: &FitArgs) -> Result<()> {
    let folder = match &args.results {
        Some(folder) => folder.clone(),
        None => this_machines_folder(),
    };
    if !folder.is_dir() {
        return Err(Error::input(
            format!("{} is not a folder", folder.display()),
            "give --results DIR with a folder that `cargo bench` or `bubblebench measure` wrote",
        ));
    }
    let out = args.out.clone().unwrap_or_else(|| folder.join(COST_MODEL));
    refuse_foreign_file(&out, &folder, "give another file with --out")?;
    let model = results::fit(&folder)?;
    files::write_json(&out, &model)?;
    let screen = terminal::screen();
    let written = screen.prose(&format!("Written to {}.\n", out.display()), 2);
    let table = accuracy(&model);
    let told = match table.is_empty() {
        true => screen.prose("Too few cases to hold any out: nothing is known of the model's error.\n", 0),
        false => table.terminal(screen),
    };
    super::print(&format!("{told}\n{written}"))
}

/// `results/<machine>` of this machine's GPUs where they were measured, else of its processor.
pub fn this_machines_folder() -> PathBuf {
    let folder = |device| PathBuf::from("results").join(machine::probe(device).name);
    let gpus = DeviceChoice::Auto.resolve().map(folder).ok().filter(|folder| folder.is_dir());
    gpus.unwrap_or_else(|| folder(Device::Host))
}
