//! `bubblebench bubbles`: where the GPUs of a real run computed nothing, from its profiles.

use super::terminal;
use crate::trace::profile::Options;
use crate::trace::run::{self, Analysis};
use crate::{Error, Result, report, units};
use std::io::Write;
use std::path::PathBuf;

/// Show the bubbles of a real run, from nsys exports (.sqlite) or Kineto / Chrome traces (.json, .json.gz).
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  nsys profile --trace=cuda,nvtx -o run python train.py\n  nsys export --type sqlite --output run.sqlite run.nsys-rep\n  bubblebench bubbles run.sqlite\n  bubblebench bubbles rank0.json.gz rank1.json.gz --iteration 2 \\\n    --json > out.json"
)]
pub struct BubblesArgs {
    /// Profiles of one run: one file, or one a rank in the order of ranks
    #[arg(value_name = "PROFILE", required = true)]
    profiles: Vec<PathBuf>,
    /// Print the bubbles as JSON (bubblebench.bubbles/1)
    #[arg(long)]
    json: bool,
    /// Iterations to look at: all, or one of them counted from 0
    #[arg(long, value_name = "all|K", default_value = "all", allow_hyphen_values = true)]
    iteration: String,
    /// List bubbles of at least this length; shorter ones are in the totals only
    #[arg(long, value_name = "TIME", default_value = "10us", allow_hyphen_values = true)]
    min_gap: String,
    /// Count only kernels of these streams as compute, e.g. 7,23
    #[arg(long, value_name = "STREAMS", value_delimiter = ',')]
    compute_streams: Option<Vec<u64>>,
}

/// Reads the profiles and prints their bubbles.
pub fn run(args: &BubblesArgs) -> Result<()> {
    let options = options(args)?;
    let run = run::read(&args.profiles, &options)?;
    for note in &run.notes {
        terminal::note(note);
    }
    if run.record.devices.iter().all(|d| d.bubbles.is_empty())
        && run.record.devices.iter().any(|d| d.bubble_ratio > 0.0)
    {
        terminal::note(format_args!(
            "no bubble lasts --min-gap {} or longer: the idle time is all in shorter ones",
            args.min_gap
        ));
    }
    if args.json {
        print_json(&run)
    } else {
        super::print(&report::bubbles::render(&run, options.min_gap_ns, terminal::screen()))
    }
}

fn options(args: &BubblesArgs) -> Result<Options> {
    let min_gap_ns = units::parse_ns(&args.min_gap).map_err(|e| match e {
        Error::Input { what, cure } => Error::input(format!("--min-gap {what}"), cure),
        other => other,
    })?;
    let iteration = match args.iteration.as_str() {
        "all" => None,
        number => Some(number.parse().map_err(|_| {
            Error::input(
                format!("--iteration `{number}` is no iteration"),
                "give all, or its number counted from 0, e.g. --iteration 2",
            )
        })?),
    };
    Ok(Options { min_gap_ns, iteration, compute_streams: args.compute_streams.clone() })
}

/// Straight to stdout: a run may have a million bubbles.
fn print_json(run: &Analysis) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let written = serde_json::to_writer(&mut out, &run.record)
        .map_err(std::io::Error::from)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        // A reader that closed the pipe early has what it wanted.
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("write to", "stdout", source)),
        _ => Ok(()),
    }
}
