//! nccl-tests' output. Both forms become `ProgramRun`s, one for each program that ran; `records` makes lines of them.
//!
//! The formats are those of nccl-tests 2.0 to 2.20 (and of rccl-tests, which prints the same): see `text` and `json`.

mod json;
pub mod names;
mod records;
mod text;

use super::Imported;
use crate::Result;

/// One program's run: who took part, how, and its rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProgramRun {
    /// `all_reduce_perf`; old versions do not print it.
    pub program: Option<String>,
    pub devices: Vec<ListedDevice>,
    pub threads: u64,
    pub gpus_per_thread: u64,
    pub iterations: Option<u64>,
    pub warmup_iterations: Option<u64>,
    pub aggregated_iterations: Option<u64>,
    pub validated: Option<bool>,
    pub graph: bool,
    /// `-z`: every operation waits, so the time is not the pipelined one.
    pub blocking: bool,
    /// `-C`: the columns hold the time of the CPU's calls.
    pub cpu_time: bool,
    pub nccl: Option<String>,
    pub nccl_tests: Option<String>,
    /// `host` where this program printed it itself (`--format nccl-tests`) and threads were the ranks.
    pub backend: Option<String>,
    pub transport: Option<String>,
    /// `registered`, `ctas4`: what this program's own output says beyond nccl-tests' words.
    pub variant: Vec<String>,
    pub environment: Vec<String>,
    pub rows: Vec<Row>,
    /// The count below the table.
    pub out_of_bounds: Option<u64>,
    pub closed: bool,
    /// `file:line` where it begins.
    pub place: String,
}

/// A rank's line of "Using devices".
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ListedDevice {
    pub rank: u64,
    pub group: u64,
    pub host: String,
    pub device: u64,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Row {
    pub bytes: u64,
    pub dtype: Option<String>,
    pub redop: Option<String>,
    pub root: Option<i64>,
    pub out_of_place: Option<Figures>,
    pub in_place: Option<Figures>,
    pub place: String,
}

/// One half of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Figures {
    pub us: f64,
    pub algbw: f64,
    pub busbw: f64,
    /// None: not checked (`N/A`), or an old version that prints an error instead.
    pub wrong: Option<u64>,
    pub max_error: Option<f64>,
    /// The fastest iteration (`-I 1`).
    pub min_us: Option<f64>,
}

/// Reads nccl-tests' output from `text`, text or JSON told apart by the first character. `place` names it in errors,
/// `operation` names the collective where the output does not.
pub fn read(text: &str, place: &str, operation: Option<&str>) -> Result<Imported> {
    let mut notes = Vec::new();
    let sections = match text.trim_start().starts_with('{') {
        true => json::sections(text, place)?,
        false => text::sections(text, place, &mut notes)?,
    };
    records::imported(sections, place, operation, notes)
}

/// `2.27.7` of 22707; versions before 2.9 count 1000 a major.
fn version(code: u64) -> String {
    let (major, rest) = if code >= 10_000 { (code / 10_000, code % 10_000) } else { (code / 1000, code % 1000) };
    format!("{major}.{}.{}", rest / 100, rest % 100)
}

#[cfg(test)]
mod tests;
