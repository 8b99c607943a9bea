//! `cargo bench`: measure this machine, fit the cost model, fill a pipeline stage, print the tables.
//!
//! One target, so that everything shares one process, one run and one order: layers, collectives, co-run, fill, then
//! the fit and the tables. Criterion stands in front of the same cases `bubblebench measure` runs.

mod arguments;
mod bubble_fill;
mod collectives;
mod corun;
mod driver;
mod gpt_layer;
mod raw_samples;

use bubblebench::Result;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(arguments::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: arguments::Arguments) -> Result<()> {
    let plan = arguments.plan()?;
    if arguments.list {
        return driver::list(&plan);
    }
    if arguments.is_test() {
        return driver::test(plan);
    }
    let mut driver = driver::Driver::start(plan, &arguments)?;
    gpt_layer::bench(&mut driver)?;
    collectives::bench(&mut driver)?;
    corun::bench(&mut driver)?;
    bubble_fill::bench(&mut driver)?;
    driver.finish()
}
