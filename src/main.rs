//! The `bubblebench` program: parse, call the library, print; every failure is one line on stderr.

use bubblebench::cli;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // clap answers wrong arguments itself, on stderr, with exit code 2.
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bubblebench: {error}");
            ExitCode::from(2)
        }
    }
}
