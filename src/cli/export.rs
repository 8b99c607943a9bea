//! `bubblebench export`: what was measured, in another tool's own format.

use super::fit::this_machines_folder;
use super::known::known;
use super::terminal::note;
use crate::export::nccl_tests;
use crate::records::store::{Journal, MACHINE};
use crate::records::{MachineRecord, Measurement, files};
use crate::units::counted;
use crate::{Error, Result, nearest};
use std::path::PathBuf;

/// What `bubblebench export` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: bubblebench export --to nccl-tests --results results/node7 --out all.log\n\n\
    nccl-tests: the collectives of a results folder as nccl-tests prints them, a block an operation.")]
pub struct ExportArgs {
    /// Whose format
    #[arg(long, value_name = "TOOL", value_parser = known(TOOLS))]
    to: String,
    /// The folder that holds measurements.jsonl [default: results/<machine>] [env: BUBBLEBENCH_RESULTS]
    #[arg(long, env = "BUBBLEBENCH_RESULTS", hide_env = true, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Where to write it [default: stdout]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// Says which collectives nccl-tests has no columns for.
pub(super) fn note_left_out(records: &[Measurement]) {
    for (operation, count) in nccl_tests::left_out(records) {
        note(format_args!("left out: {} of {operation} that nccl-tests has no columns for", counted(count, "case")));
    }
}

/// The tools in whose format something can be written.
const TOOLS: [&str; 1] = ["nccl-tests"];

/// Prints or writes the measurements of a folder as the other tool would.
pub fn run(args: &ExportArgs) -> Result<()> {
    if !TOOLS.contains(&args.to.as_str()) {
        return Err(Error::input(format!("--to {} is unknown", args.to), nearest::cure(&args.to, TOOLS)));
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
    note_left_out(&journal.measurements);
    match &args.out {
        Some(path) => {
            files::write_atomic(path, text.as_bytes())?;
            note(format_args!("written to {}", path.display()));
            Ok(())
        }
        None => super::print(&text),
    }
}
