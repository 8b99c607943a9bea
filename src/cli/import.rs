//! `bubblebench import`: other people's measurements into records, fitted and shown like our own.

use super::known::known;
use super::terminal::note;
use super::{results, session};
use crate::Result;
use crate::import::folder::{self, Target};
use crate::import::nccl_tests::names::OPERATIONS;
use crate::import::{self, Hints, Source};
use crate::nearest::some_of;
use crate::records::flags::IMPORTED;
use crate::records::machine::RunInfo;
use crate::units::counted;
use std::path::PathBuf;

/// What `bubblebench import` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bubblebench import --from nccl-tests all_reduce.log --results results/cluster\n  \
    bubblebench import --from nccl-tests all_gather.json --results results/cluster\n  \
    bubblebench import --from nvbench kernels.json\n  \
    bubblebench import --from layers timings.csv --gpu v100\n  \
    bubblebench import --from operations profile.csv --gpu v100\n\n\
    nccl-tests: what its programs print (any version; several outputs may follow each other in one file), or what -J wrote.\n\
    nvbench: what --json wrote.\n\
    layers, operations: a table as CSV with a header, or as JSON lines. Columns of layers: hidden, heads, sequence, \
    micro_batch, dtype, causal, forward_ms, backward_ms, and where they are known backward_input_ms, backward_weight_ms, \
    tensor, kv_heads, ffn_hidden, gated, activation_mib, gpu and others (docs/cluster.md shows both tables).\n\n\
    A second import of a file replaces its cases; cases measured here stay, and so does a cost model that was not fitted from \
    the folder's own records. Of the environment that -J holds, only NCCL_* and CUDA_* are kept.")]
pub struct ImportArgs {
    /// Whose output it is, or what the table is of
    #[arg(long, value_name = "TOOL", value_parser = known(Source::ALL.map(Source::name)))]
    from: String,
    /// What the tool printed or wrote, or the tables; several are taken as one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The machine's folder [default: results/<machine>, by the file's GPUs] [env: BUBBLEBENCH_RESULTS]
    #[arg(long, env = "BUBBLEBENCH_RESULTS", hide_env = true, value_name = "DIR")]
    results: Option<PathBuf>,
    /// The machine's name [default: by the file's GPUs]
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Which collective it is, where the output does not say (nccl-tests before 2.17)
    #[arg(long, value_name = "NAME", value_parser = known(OPERATIONS.map(|(_, operation, _)| operation)))]
    operation: Option<String>,
    /// Which GPU a table's times are of; of a table with a column gpu, whose rows to take
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
}

/// Reads a tool's output, writes it as records, fits them and prints the tables.
pub fn run(args: &ImportArgs) -> Result<()> {
    let source = Source::parse(&args.from)?;
    let machine = args.machine.as_deref().map(session::checked_name).transpose()?;
    let hints = Hints { operation: args.operation.clone(), gpu: args.gpu.clone() };
    let imported = import::read(source, &args.files, &hints)?;
    let notes = imported.notes.clone();
    let device = if imported.origin.gpus.is_empty() { "host" } else { "cuda" };
    let run = RunInfo {
        preset: IMPORTED.into(),
        device: device.into(),
        commit: None,
        case_definitions: None,
        ..session::run_identity()
    };
    let target = Target { results: args.results.clone(), machine };
    let written = folder::write(imported, source, &target, run)?;
    notes.iter().for_each(note);
    if written.kept > 0 {
        note(format_args!("kept as measured here themselves: {}", counted(written.kept, "case")));
    }
    let files = some_of(args.files.iter().map(|file| file.display().to_string()), 3);
    note(format_args!("{} of {} from {files}", counted(written.cases, "case"), source.name()));
    super::print(&results::conclude(&written.folder)?)
}
