//! `bubblebench export`: what was measured, in another tool's own format.

use super::fit::this_machines_folder;
use crate::export::nccl_tests;
use crate::records::store::{Journal, MACHINE};
use crate::records::{MachineRecord, files};
use crate::{Error, Result};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: bubblebench export --to nccl-tests --results results/node7 | ./my-nccl-parser\n\n\
    nccl-tests: the collectives of a results folder as nccl-tests prints them, a block an operation.")]
pub struct ExportArgs {
    /// Whose format: nccl-tests
    #[arg(long, value_name = "TOOL")]
    to: String,
    /// The folder that holds measurements.jsonl [default: results/<machine>] [env: BUBBLEBENCH_RESULTS]
    #[arg(long, env = "BUBBLEBENCH_RESULTS", hide_env = true, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Where to write it [default: stdout]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

pub fn run(args: &ExportArgs) -> Result<()> {
    if args.to != "nccl-tests" {
        return Err(Error::input(format!("--to {} is unknown", args.to), "choose nccl-tests"));
    }
    let folder = args.results.clone().unwrap_or_else(this_machines_folder);
    let journal = Journal::read(&folder)?;
    let machine: MachineRecord = files::read_json(&folder.join(MACHINE), "machine")?;
    let text = nccl_tests::blocks(&machine, &journal.measurements);
    if text.is_empty() {
        return Err(Error::input(
            format!("{} holds no collective with a time", folder.display()),
            "run `bubblebench measure collectives` with the same --results first",
        ));
    }
    match &args.out {
        Some(path) => files::write_atomic(path, text.as_bytes()),
        None => super::print(&text),
    }
}
