//! `bubblebench compare`: two or more results folders, cost models or plans held against the first of them.

pub(super) mod sides;

use super::known::known;
use super::terminal::{self, note};
use super::{Outcome, print, print_json};
use crate::compare::measured::{self, BY_KIND};
use crate::compare::record::{CompareOptions, ComparisonRecord};
use crate::compare::{models, plans};
use crate::report;
use crate::report::compare::ShownRows;
use crate::units::counted;
use crate::{Error, Result, nearest};
use sides::Sides;

/// What `bubblebench compare` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bubblebench compare results/before results/after\n  \
    bubblebench compare a1,a2,a3 b1,b2,b3 --fail-on slower:3%\n  \
    bubblebench compare rtx3090-x4 a100-x8 a100-x32 --across \\\n    \
    --format markdown\n  \
    bubblebench compare old/cost_model.json new/cost_model.json\n  \
    bubblebench compare plan-1f1b.json plan-zb-h1.json")]
pub struct CompareArgs {
    /// The reference, then one or more others, all of a kind: results folders, measurements.jsonl, cost models, or plans
    /// (`plan --json`). Repeated runs of one machine are one side, joined by commas: a1,a2,a3
    #[arg(required = true, num_args = 1.., value_name = "SIDE")]
    sides: Vec<String>,
    /// Only cases whose name contains this text
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// The least difference that counts
    #[arg(long, value_name = "PERCENT", default_value = "2%")]
    threshold: String,
    /// The sides differ on purpose (other GPUs, counts, devices): values side by side, ratios without verdicts
    #[arg(long, conflicts_with = "fail_on")]
    across: bool,
    /// List every row, not only those that moved, and the cases that only one side has
    #[arg(long)]
    all: bool,
    /// Sum rows up by their kind, or by a parameter of the cases: hidden, operation, bytes, phase and so on
    #[arg(long, value_name = "KEY", default_value = BY_KIND)]
    group_by: String,
    /// What the answer is written as
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = known(FORMATS))]
    format: String,
    /// Exit with code 1 if a row is slower; with a percentage only if its whole interval lies beyond it
    #[arg(long, value_name = "slower[:PERCENT]")]
    fail_on: Option<String>,
}

const FORMATS: [&str; 5] = ["table", "markdown", "csv", "latex", "json"];

/// Compares, prints, and says with the exit code whether something is slower that must not be.
pub fn run(args: &CompareArgs) -> Result<Outcome> {
    let threshold = percent(&args.threshold, "--threshold")?;
    let limit = args.fail_on.as_deref().map(slower_beyond).transpose()?;
    if !FORMATS.contains(&args.format.as_str()) {
        return Err(Error::input(format!("--format {} is unknown", args.format), nearest::cure(&args.format, FORMATS)));
    }
    let filter = args.filter.as_deref();
    let options = CompareOptions { threshold, across: args.across, group_by: &args.group_by, filter };
    let mut record = compare(&args.sides, &options)?;
    let failed = limit.map_or(0, |beyond| {
        record.rows.iter().filter(|row| row.ratios.iter().any(|ratio| ratio.slower_beyond(beyond))).count()
    });
    if let (Some(_), true) = (limit, record.rows.is_empty()) {
        return Err(Error::input(
            "the sides have no case in common, so --fail-on asks nothing",
            "compare runs of the same cases",
        ));
    }
    let apart = record.rows.iter().filter(|row| row.ratios.iter().any(|ratio| ratio.set_apart)).count();
    if limit.is_some() && apart > 0 {
        note(format_args!("{} set apart, of which --fail-on knows nothing; --all says why", counted(apart, "row")));
    }
    let left_out = if args.all { 0 } else { record.leave_moved() };
    answer(&record, ShownRows { all: args.all, left_out }, &args.format)?;
    if failed == 0 {
        return Ok(Outcome::Done);
    }
    note(format_args!("{} slower: exit code 1, as --fail-on asks", counted(failed, "row")));
    Ok(Outcome::No)
}

fn compare(named: &[String], options: &CompareOptions) -> Result<ComparisonRecord> {
    if named.len() < 2 {
        return Err(Error::input(
            format!("{} alone is compared with nothing", named[0]),
            "name the reference first, then one or more others",
        ));
    }
    match sides::read(named)? {
        Sides::Measured(sides) => measured::compare(sides, options),
        Sides::Models(sides) => by_kind(options).and_then(|()| models::compare(&sides, options)),
        Sides::Plans(sides) => by_kind(options).and_then(|()| plans::compare(&sides, options)),
    }
}

/// Predictions and plans have no parameters to be grouped by.
fn by_kind(options: &CompareOptions) -> Result<()> {
    match options.group_by {
        BY_KIND => Ok(()),
        other => Err(Error::input(
            format!("--group-by {other} is of measurements"),
            "leave it out for cost models and plans, whose rows are grouped by kind",
        )),
    }
}

fn answer(record: &ComparisonRecord, rows: ShownRows, format: &str) -> Result<()> {
    match format {
        "json" => print_json(record),
        "csv" => print(&report::compare::csv::csv(record)),
        "latex" => print(&report::compare::latex(record, rows)),
        "markdown" => print(&report::compare::markdown(record, rows)),
        _ => print(&report::compare::terminal(record, rows, terminal::screen())),
    }
}

/// Reads `2%` as 0.02.
fn percent(text: &str, option: &str) -> Result<f64> {
    let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(Error::input(format!("{option} {text} is no percentage"), "write it like 2% or 0.5%, below 100%")),
    }
}

/// Reads `slower` and `slower:3%` as how far a slower row has to lie beyond 1.
fn slower_beyond(text: &str) -> Result<f64> {
    match text.split_once(':') {
        None if text == "slower" => Ok(0.0),
        Some(("slower", beyond)) => percent(beyond, "--fail-on slower:"),
        _ => Err(Error::input(format!("--fail-on {text} is unknown"), "write slower, or slower:3%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_conditions_are_read_or_refused() {
        assert_eq!((percent("2%", "").unwrap(), percent(" 0.5 %", "").unwrap()), (0.02, 0.005));
        assert_eq!((slower_beyond("slower").unwrap(), slower_beyond("slower:3%").unwrap()), (0.0, 0.03));
        for wrong in ["2", "-1%", "100%", "NaN%", "%", ""] {
            let error = percent(wrong, "--threshold").unwrap_err().to_string();
            assert!(error.contains("--threshold") && error.contains("2%"), "{error}");
        }
        for wrong in ["faster", "slower:3", "slower:", "slow:3%"] {
            assert!(slower_beyond(wrong).is_err(), "{wrong}");
        }
    }
}
