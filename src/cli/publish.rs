//! `bubblebench publish`: a run's results as a folder that can be given to anybody.

use super::report::{figure_files, side};
use super::results::read_measured;
use super::terminal::note;
use crate::figures;
use crate::records::flags::SOFTWARE;
use crate::records::public::{reason_without_secrets, without_secrets};
use crate::records::store::{COST_MODEL, Journal, MACHINE, MEASUREMENTS, TABLES};
use crate::records::{MachineRecord, files, sha256};
use crate::report::{html, publication, tables};
use crate::units::counted;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const README: &str = "README.md";
const REPORT: &str = "report.html";
/// Checksums of all other files, as `sha256sum` writes them.
const SUMS: &str = "SHA256SUMS";

/// What `bubblebench publish` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bubblebench publish results/nvidia-h200-x8\n  \
    bubblebench publish results/node7 --out paper/artifact\n\n\
    Writes measurements, machine, cost model, tables, the page and figures of\n\
    `report`, a README with the line to cite, and checksums. Host name, UUIDs,\n\
    paths and addresses are withheld (docs/publishing.md). The folder that was\n\
    measured into stays as it is.")]
pub struct PublishArgs {
    /// The results folder to publish
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where to [default: results/published/<machine>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Writes the folder; the answer is the line to cite it by.
pub fn run(args: &PublishArgs) -> Result<()> {
    if !args.folder.is_dir() {
        return Err(Error::input(
            format!("{} is not a folder", args.folder.display()),
            "give the folder that `cargo bench` or `bubblebench measure` wrote",
        ));
    }
    let (machine, mut journal) = read_measured(&args.folder)?;
    let machine = machine.ok_or_else(|| {
        let what = format!("{} holds no {MACHINE}", args.folder.display());
        Error::input(what, "give the whole folder that `cargo bench` or `bubblebench measure` wrote")
    })?;
    refuse_software(&args.folder, &journal)?;
    let text = files::read_text(&args.folder.join(MEASUREMENTS))?;
    let measurements = clean_reasons(&mut journal, &text, machine.hostname.as_deref())?;
    let (machine, withheld) = without_secrets(&machine);
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("results/published").join(&machine.name));
    let before = published_before(&out, &machine)?;
    let made = publication_files(&args.folder, &machine, &withheld, &journal, measurements)?;
    write(&out, &made, &before)?;
    if !withheld.is_empty() {
        note(format_args!("withheld: {}", withheld.join(", ")));
    }
    note(format_args!("{} written to {}", counted(made.len() + 1, "file"), out.display()));
    super::print(&format!("{}\n", crate::report::provenance::citation(&machine)))
}

fn refuse_software(folder: &Path, journal: &Journal) -> Result<()> {
    let software = journal.measurements.iter().filter(|record| record.has_flag(SOFTWARE)).count();
    if software == 0 {
        return Ok(());
    }
    Err(Error::input(
        format!(
            "{} of {} are of the software device, whose times mean nothing",
            counted(software, "case"),
            folder.display()
        ),
        "publish what a GPU or a CPU measured",
    ))
}

/// The names of all files that an earlier publication left there. A folder that holds anything else is refused.
fn published_before(out: &Path, machine: &MachineRecord) -> Result<BTreeSet<String>> {
    let Ok(entries) = fs::read_dir(out) else { return Ok(BTreeSet::new()) };
    let held: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let own = [MEASUREMENTS, MACHINE, COST_MODEL, TABLES, README, REPORT, SUMS, "figures", ".lock", "runs"];
    let other: Vec<&str> = held.iter().map(String::as_str).filter(|name| !own.contains(name)).collect();
    let refused = |what: String| Err(Error::input(what, "give a new or an empty folder with --out"));
    if !other.is_empty() {
        return refused(format!("{} holds other files: {}", out.display(), crate::nearest::some_of(&other, 4)));
    }
    if held.iter().any(|name| name == MACHINE) {
        let there: MachineRecord = files::read_json(&out.join(MACHINE), "machine")?;
        if there.name != machine.name {
            return refused(format!("{} holds measurements of {}, not of {}", out.display(), there.name, machine.name));
        }
    }
    let by_hand = |readme: &str| !readme.starts_with(publication::MARK);
    if held.iter().any(|name| name == README) && files::read_text(&out.join(README)).is_ok_and(|text| by_hand(&text)) {
        return refused(format!("{} was not written by publish", out.join(README).display()));
    }
    let sums = files::read_text(&out.join(SUMS)).unwrap_or_default();
    Ok(sums.lines().filter_map(|line| Some(line.split_once("  ")?.1.to_string())).collect())
}

/// Withholds from the records what reasons may name, and gives the lines of the journal without it; they are those that were
/// read where there was nothing to withhold. The SHA-256 is of the lines that are given.
fn clean_reasons(journal: &mut Journal, text: &str, hostname: Option<&str>) -> Result<String> {
    let clean = |params: &mut Map<String, Value>| -> bool {
        let Some(Value::String(reason)) = params.get_mut("reason") else { return false };
        let open = reason_without_secrets(reason, hostname);
        std::mem::replace(reason, open.clone()) != open
    };
    for record in &mut journal.measurements {
        clean(&mut record.params);
    }
    let mut lines = String::with_capacity(text.len());
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let mut value: Value =
            if line.contains("\"reason\"") { serde_json::from_str(line).unwrap_or_default() } else { Value::Null };
        match value.get_mut("params").and_then(Value::as_object_mut).is_some_and(clean) {
            true => lines.push_str(&format!("{value}\n")),
            false => lines.push_str(line),
        }
    }
    journal.sha256 = sha256(lines.as_bytes());
    Ok(lines)
}

/// Names and contents of all files but the checksums.
fn publication_files(
    folder: &Path,
    machine: &MachineRecord,
    withheld: &[String],
    journal: &Journal,
    measurements: String,
) -> Result<Vec<(String, String)>> {
    let (side, mut notes) = side(machine.name.clone(), folder, Some(machine.clone()), journal);
    if machine.run.preset != "imported" && !journal.finished(&machine.run.id) {
        let unfinished = format!("run {} was not finished, cases of its list are missing", machine.run.id);
        note(&unfinished);
        notes.push(unfinished);
    }
    let (sides, model) = (std::slice::from_ref(&side), side.model.as_ref());
    let drawn = figures::all(sides);
    let mut made = vec![
        (MEASUREMENTS.to_string(), measurements),
        (MACHINE.to_string(), files::to_json(machine)? + "\n"),
        (TABLES.to_string(), tables::markdown(machine, &journal.measurements, model)),
        (REPORT.to_string(), html::report::html(sides, &drawn, &notes)?),
    ];
    if let Some(model) = model {
        made.push((COST_MODEL.to_string(), files::to_json(model)? + "\n"));
    }
    let figures = figure_files(sides, &drawn)?;
    made.extend(figures.into_iter().map(|(name, text)| (format!("figures/{name}"), text)));
    let names: Vec<String> = made.iter().map(|(name, _)| name.clone()).collect();
    if !withheld.is_empty() {
        notes.push(format!("withheld: {}", withheld.join(", ")));
    }
    made.push((README.to_string(), publication::readme(machine, side.records.len(), &notes, &names)));
    Ok(made)
}

/// Writes all files, the checksums last: a folder whose checksums hold is whole. Files of an earlier publication that this one
/// has not are removed.
fn write(out: &Path, made: &[(String, String)], before: &BTreeSet<String>) -> Result<()> {
    let (figures, own): (Vec<_>, Vec<_>) = made.iter().cloned().partition(|(name, _)| name.starts_with("figures/"));
    let short = |(name, text): (String, String)| (name.trim_start_matches("figures/").to_string(), text);
    files::write_into(out, &own)?;
    files::write_into(&out.join("figures"), &figures.into_iter().map(short).collect::<Vec<_>>())?;
    for name in before.iter().filter(|name| made.iter().all(|(own, _)| own != *name)) {
        // Only what lies in the folder itself: a line of checksums may say anything.
        if !name.split('/').any(|part| part == "..") && !name.starts_with('/') {
            let _ = fs::remove_file(out.join(name));
        }
    }
    let sums: String = made.iter().map(|(name, text)| format!("{}  {name}\n", sha256(text.as_bytes()))).collect();
    files::write_atomic(&out.join(SUMS), sums.as_bytes())
}
