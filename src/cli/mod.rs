//! The command line: what was typed becomes what is meant, the library is called, the answer printed.
//!
//! stdout carries the result only; progress and notes go to stderr. One file a command; nothing below sees the raw
//! arguments. Exit codes: 0 done, 1 the answer is "no", 2 the input or the machine is at fault (one line), 101 a bug.

// The arguments' comments are the text of `--help`, where `results/<machine>` is no HTML and backquotes would be printed.
#![allow(rustdoc::invalid_html_tags)]

pub mod bubbles;
mod collectives;
pub mod compare;
pub mod doctor;
pub mod export;
pub mod fit;
mod gate;
mod gpu_state;
pub mod import;
mod known;
pub mod man;
pub mod measure;
mod monitoring;
pub mod plan;
pub mod predict;
pub mod publish;
mod ranks;
pub mod report;
pub mod results;
mod schedule;
pub mod schema;
pub mod session;
mod side;
pub mod simulate;
mod sweep;
mod terminal;

use crate::Result;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde::Serialize;
use std::io::{BufWriter, Write};

/// The program and what it is asked to do.
#[derive(Debug, Parser)]
#[command(name = "bubblebench", version, about, propagate_version = true)]
#[command(after_help = "`cargo bench` does the whole job: measure, fit, fill, print the tables.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show devices, libraries and versions; for each thing missing, its cost and the line that installs it
    Doctor(doctor::DoctorArgs),
    /// Measure this machine: the cases of `cargo bench`, without cargo
    Measure(measure::MeasureArgs),
    /// Fit the cost model to a machine's measurements
    Fit(fit::FitArgs),
    /// Take other people's measurements (nccl-tests, nvbench, tables of timings) into a results folder
    Import(import::ImportArgs),
    /// Write measurements, the cost model or a plan in another tool's own format
    Export(export::ExportArgs),
    /// Ask the cost model: one layer, one collective, one pair
    Predict(predict::PredictArgs),
    /// Show where a pipeline schedule leaves its stages idle, from times given by hand
    Simulate(simulate::SimulateArgs),
    /// Show a training job's bubbles, what to fill them with, and the expected gain
    Plan(plan::PlanArgs),
    /// Show the bubbles of a real run, from its nsys or Kineto profiles
    Bubbles(bubbles::BubblesArgs),
    /// Say what is slower, faster or the same in two or more results folders, cost models or plans
    Compare(compare::CompareArgs),
    /// Draw results folders: one page for people, and figures and tables for a paper
    Report(report::ReportArgs),
    /// Write a run's results as a folder that can be given to anybody: no secrets, checksums, a line to cite
    Publish(publish::PublishArgs),
    /// Show a live gate: its state, who is there, how it is used
    Gate(gate::GateArgs),
    /// Train a small model behind a live gate, in the bubbles of its main
    Side(side::SideArgs),
    /// Print the JSON Schema of one kind of file
    Schema(schema::SchemaArgs),
    /// Print shell completions: commands, options, and the values that are names
    #[command(after_help = "Example: bubblebench completions bash > /etc/bash_completion.d/bubblebench")]
    Completions {
        /// The shell that is to complete
        shell: Shell,
    },
    /// Print the manual page (roff) of the program or of one of its commands
    Man(man::ManArgs),
}

/// What a command that did what it was asked for answers with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Done,
    /// What was asked to be so is not (`--fail-on`): exit code 1.
    No,
}

/// Runs one command; what it answers is on stdout when this returns.
pub fn run(cli: Cli) -> Result<Outcome> {
    match cli.command {
        Command::Doctor(args) => doctor::run(&args),
        Command::Measure(args) => measure::run(&args),
        Command::Fit(args) => fit::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Bubbles(args) => bubbles::run(&args),
        Command::Compare(args) => return compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Gate(args) => gate::run(&args),
        Command::Side(args) => side::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bubblebench", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Command::Man(args) => man::run(&args, Cli::command()),
    }?;
    Ok(Outcome::Done)
}

/// Writes a result to stdout; a reader that closed the pipe early (`| head`) has what it wanted. Any other failure is an
/// error.
pub fn print(text: &str) -> Result<()> {
    print_while_read(text).map(|_| ())
}

/// As [`print()`]; false where nobody reads any more, for what goes on and on.
pub fn print_while_read(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let read = !matches!(&written, Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe);
    told(written).map(|()| read)
}

/// Writes a record to stdout as one line of JSON, as [`print()`] writes a result. It is written as it is made: a timeline
/// may hold millions of operations.
pub fn print_json(record: &impl Serialize) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    match serde_json::to_writer(&mut out, record) {
        Err(e) if !e.is_io() => Err(crate::Error::bug(format!("the answer cannot be written as JSON: {e}"))),
        Err(e) => told(Err(e.into())),
        Ok(()) => told(out.write_all(b"\n").and_then(|()| out.flush())),
    }
}

/// Writes the help or the version that somebody asked for to stdout, as [`print()`] writes a result.
pub fn print_help(asked: &clap::Error) -> Result<()> {
    told(asked.print().and_then(|()| std::io::stdout().flush()))
}

/// Says on stderr, in one line, why the program ends.
pub fn say_error(error: &crate::Error) {
    terminal::tell(&format!("bubblebench: {}", terminal::error_screen().text(&error.to_string())));
}

fn told(written: std::io::Result<()>) -> Result<()> {
    match written {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(crate::Error::io("write to", "stdout", source))
        }
        _ => Ok(()),
    }
}
