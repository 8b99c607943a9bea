//! What may stand behind `cargo bench --`. Parsed here, not by Criterion: it aborts on flags it does not know, and its
//! `--quick` takes two samples where ours is a preset.

use bubblebench::cli::session::{RunOptions, RunPlan};
use bubblebench::suite::Preset;
use bubblebench::suite::groups::Group;
use bubblebench::{Error, Result};
use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "cargo bench --", about = "Measure this machine, fit the cost model, print the tables")]
pub struct Arguments {
    /// Only the cases with this text in their names
    pub filter: Option<String>,
    /// The quick preset: at most 65 cases, 90 seconds
    #[arg(long)]
    pub quick: bool,
    /// Print the names of the cases and measure nothing
    #[arg(long)]
    pub list: bool,
    /// Run every case once, checked, without timing it; record nothing
    #[arg(long)]
    pub test: bool,
    /// Keep Criterion's samples under this name, to compare with later
    #[arg(long, value_name = "NAME", conflicts_with = "baseline")]
    pub save_baseline: Option<String>,
    /// Compare with the samples kept under this name
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    #[command(flatten)]
    pub options: RunOptions,
    /// Given by `cargo bench`; without it (`cargo test --benches`) every case runs once
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Arguments {
    pub fn plan(&self) -> Result<RunPlan> {
        let mut options = self.options.clone();
        if self.quick {
            if options.preset.as_deref().is_some_and(|preset| preset != "quick") {
                return Err(Error::input(
                    "--quick and another preset are asked for at once",
                    "leave out --quick, or unset --preset and BUBBLEBENCH_PRESET",
                ));
            }
            options.preset = Some("quick".into());
        }
        // A baseline of the rest of a run would pass for one of the whole.
        options.fresh |= self.filter.is_none() && (self.save_baseline.is_some() || self.baseline.is_some());
        let default = if self.is_test() { Preset::Quick } else { Preset::Standard };
        options.plan(&Group::ALL, self.filter.as_deref(), default)
    }

    pub fn is_test(&self) -> bool {
        self.test || !(self.bench || self.list)
    }
}
