//! The `bubblebench` program: parse, call the library, print; every failure is one line on stderr.

#![deny(clippy::unwrap_used)]

use bubblebench::{Error, cli, machine};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let answered = match cli::Cli::try_parse() {
        Ok(asked) => cli::run(asked),
        // Help and version are answers: that they could not be written is told as of any other.
        Err(asked) if !asked.use_stderr() => cli::print_help(&asked).map(|()| cli::Outcome::Done),
        // clap answers wrong arguments itself, on stderr, with exit code 2.
        Err(wrong) => wrong.exit(),
    };
    match answered {
        Ok(cli::Outcome::Done) => ExitCode::SUCCESS,
        Ok(cli::Outcome::No) => ExitCode::from(1),
        Err(error) => {
            cli::say_error(&error);
            if let Error::Rank { .. } | Error::Gpu { .. } | Error::Interrupted | Error::Bug { .. } = error {
                // Nothing in an orderly exit may wait for a GPU, or for a thread that waits for another rank.
                machine::leave(error.exit_code().into());
            }
            ExitCode::from(error.exit_code())
        }
    }
}
