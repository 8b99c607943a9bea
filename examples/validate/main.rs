//! Holds the schedules, the simulator and the cost model against published figures, and prints the tables of
//! docs/method.md as Markdown:
//!
//!     cargo run --release --example validate
//!
//! The figures stand in tests/data with their sources. A part alone: `… validate schedules`, `throughput`, `iterations`,
//! `fills`, `speed`.

mod fills;
mod iterations;
mod schedules;
mod speed;
mod throughput;

use bubblebench::pipeline::activations::DEFAULT_WEIGHT_SHARE;
use bubblebench::pipeline::{Schedule, ScheduleName, ScheduleSpec, StageTimes, Timeline, Times, simulate};
use bubblebench::{Error, Result};
use serde_json::Value;

type Part = fn() -> Result<String>;

const PARTS: [(&str, Part); 5] = [
    ("schedules", schedules::table),
    ("throughput", throughput::table),
    ("iterations", iterations::tables),
    ("fills", fills::table),
    ("speed", speed::table),
];

fn main() -> std::process::ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for (name, part) in PARTS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        match part() {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("validate {name}: {error}");
                return std::process::ExitCode::from(2);
            }
        }
    }
    std::process::ExitCode::SUCCESS
}

/// One of the published files, as it stands in tests/data.
fn published(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::input(format!("a published file is not JSON: {e}"), "restore it"))
}

fn published_schedules() -> Result<Value> {
    published(include_str!("../../tests/data/schedules.json"))
}

fn rows<'a>(file: &'a Value, key: &str) -> &'a [Value] {
    file[key].as_array().map_or(&[], Vec::as_slice)
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(f64::NAN)
}

/// A row's stage times; those of the V rows are printed for half a stage.
fn times(row: &Value) -> Times {
    let (suffix, halves) = if row.get("t_f").is_some() { ("", 1.0) } else { ("_chunk", 2.0) };
    let ns = |name: &str| (1000.0 * halves * number(row, &format!("{name}{suffix}"))) as u64;
    let stage = StageTimes::new(ns("t_f"), ns("t_b"), ns("t_w"));
    Times::even(number(row, "p") as usize, stage, (1000.0 * number(row, "t_comm")) as u64)
}

fn timeline(name: ScheduleName, row: &Value) -> Result<Timeline> {
    let times = times(row);
    let chunks = row["interleave_chunks"].as_u64().unwrap_or(2) as usize;
    let schedule = Schedule::build(&ScheduleSpec {
        name,
        stages: times.stage.len(),
        micro_batches: number(row, "m") as usize,
        chunks: (name == ScheduleName::Interleaved).then_some(chunks),
        memory_limit: None,
        weight_share: DEFAULT_WEIGHT_SHARE,
        times: &times,
    })?;
    simulate(schedule, times)
}

/// The papers' column names.
fn schedule(column: &str) -> Option<ScheduleName> {
    Some(match column {
        "1f1b" => ScheduleName::OneFOneB,
        "1f1b_i" => ScheduleName::Interleaved,
        "zb_h1" => ScheduleName::ZbH1,
        "zb_h2" => ScheduleName::ZbH2,
        "zb_1p" => ScheduleName::Zb1p,
        "zb_2p" => ScheduleName::Zb2p,
        "zb_v" => ScheduleName::ZbV,
        _ => return None,
    })
}
