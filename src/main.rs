//! The `bubblebench` program: parse, call the library, print; every failure is one line on stderr.

#![deny(clippy::unwrap_used)]

use bubblebench::{Error, cli, machine};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // clap answers wrong arguments itself, on stderr, with exit code 2.
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bubblebench: {error}");
            if let Error::Rank { .. } | Error::Gpu { .. } | Error::Interrupted | Error::Bug { .. } = error {
                // Nothing in an orderly exit may wait for a GPU, or for a thread that waits for another rank.
                machine::leave(error.exit_code().into());
            }
            ExitCode::from(error.exit_code())
        }
    }
}
