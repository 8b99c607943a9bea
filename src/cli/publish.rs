//! `bubblebench publish`: a run's results as a folder that can be given to anybody.

use super::report::{figure_files, side};
use super::results::read_measured;
use super::terminal::note;
use crate::figures;
use crate::nearest::some_of;
use crate::records::flags::SOFTWARE;
use crate::records::machine::slug;
use crate::records::public::{clean, without_secrets};
use crate::records::store::{COST_MODEL, Journal, MACHINE, MEASUREMENTS, TABLES};
use crate::records::{MachineRecord, Measurement, files, sha256};
use crate::report::{html, publication, tables};
use crate::units::counted;
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

const README: &str = "README.md";
const REPORT: &str = "report.html";
const FIGURES: &str = "figures";
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
    let measurements = clean_records(&mut journal, &text, machine.hostname.as_deref())?;
    let ids: Vec<&str> = journal.measurements.iter().map(|record| record.id.as_str()).collect();
    let (machine, withheld) = without_secrets(&machine, &ids);
    // A name is a folder's name and never a path, whoever wrote it.
    let out = args.out.clone().unwrap_or_else(|| Path::new("results/published").join(slug(&machine.name)));
    refuse_what_is_no_publication(&out, &machine)?;
    let made = publication_files(&args.folder, &machine, &withheld, &journal, measurements)?;
    write(&out, &made)?;
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

/// The folder must be new or empty, or hold what an earlier publication of this machine wrote and nothing else.
fn refuse_what_is_no_publication(out: &Path, machine: &MachineRecord) -> Result<()> {
    let refused = |what: String| Err(Error::input(what, "give a new or an empty folder with --out"));
    files::sweep_temporaries(out);
    files::sweep_temporaries(&out.join(FIGURES));
    let Ok(entries) = fs::read_dir(out) else { return Ok(()) };
    let held: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if held.is_empty() {
        return Ok(());
    }
    let ours = files::read_text(&out.join(README)).is_ok_and(|text| text.starts_with(publication::MARK));
    if !ours {
        return refused(format!("{} holds {} and was not written by publish", out.display(), some_of(&held, 4)));
    }
    let own = [MEASUREMENTS, MACHINE, COST_MODEL, TABLES, README, REPORT, SUMS, FIGURES];
    let mut other: Vec<String> = held.into_iter().filter(|name| !own.contains(&name.as_str())).collect();
    let figures = out.join(FIGURES);
    if figures.is_symlink() {
        other.push(format!("{FIGURES}, a link"));
    } else if let Ok(entries) = fs::read_dir(&figures) {
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        other.extend(names.filter(|name| !is_figure_file(name)).map(|name| format!("{FIGURES}/{name}")));
    }
    if !other.is_empty() {
        return refused(format!("{} holds other files: {}", out.display(), some_of(&other, 4)));
    }
    let there: Option<MachineRecord> = files::read_json(&out.join(MACHINE), "machine").ok();
    match there {
        Some(there) if there.name == machine.name && there.run.id != machine.run.id => {
            note(format_args!(
                "run {}, which was published there, is replaced by run {}",
                there.run.id, machine.run.id
            ));
            Ok(())
        }
        Some(there) if there.name != machine.name => {
            refused(format!("{} holds measurements of {}, not of {}", out.display(), there.name, machine.name))
        }
        _ => Ok(()),
    }
}

/// Whether `report` writes figures by such names.
fn is_figure_file(name: &str) -> bool {
    let stem = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    name.chars().all(stem) && [".svg", ".csv", ".tex", ".md"].iter().any(|ending| name.ends_with(ending))
}

/// Withholds from the records what they may name, and gives the lines of the journal without it; they are those that were read
/// where there was nothing to withhold. The SHA-256 is of the lines that are given.
fn clean_records(journal: &mut Journal, text: &str, hostname: Option<&str>) -> Result<String> {
    for record in &mut journal.measurements {
        clean(record, hostname);
    }
    let mut lines = String::with_capacity(text.len());
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        // What no record can be read from is not given away.
        let Ok(mut record) = serde_json::from_str::<Measurement>(line) else { continue };
        match clean(&mut record, hostname) {
            true => lines.push_str(&format!("{}\n", files::to_line(&record)?)),
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
    // What was imported is no run of this program.
    if machine.run.preset != "imported" {
        for doubt in [unfinished(machine, journal), commit_doubt(machine)].into_iter().flatten() {
            note(&doubt);
            notes.push(doubt);
        }
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
    made.extend(figures.into_iter().map(|(name, text)| (format!("{FIGURES}/{name}"), text)));
    let layer = model.and_then(|model| model.layer.first()).map(|anchor| &anchor.shape);
    let names: Vec<String> = made.iter().map(|(name, _)| name.clone()).collect();
    if !withheld.is_empty() {
        notes.push(format!("withheld: {}", withheld.join(", ")));
    }
    made.push((README.to_string(), publication::readme(machine, side.records.len(), layer, &notes, &names)));
    Ok(made)
}

fn unfinished(machine: &MachineRecord, journal: &Journal) -> Option<String> {
    let id = &machine.run.id;
    (!journal.finished(id)).then(|| format!("run {id} was not finished, cases of its list are missing"))
}

/// Why the commit that is cited does not name the program that measured.
fn commit_doubt(machine: &MachineRecord) -> Option<String> {
    let Some(commit) = machine.run.commit.as_deref() else {
        return Some("the program that measured names no commit: it was built outside a git repository".into());
    };
    let commit = commit.strip_suffix("-dirty")?;
    Some(format!("the program that measured was built from commit {commit} with changes that are in no commit"))
}

/// Writes all files, the checksums last: a folder whose checksums hold is whole. Figures of an earlier publication that this one
/// has not are removed.
fn write(out: &Path, made: &[(String, String)]) -> Result<()> {
    let prefix = format!("{FIGURES}/");
    let (figures, own): (Vec<_>, Vec<_>) = made.iter().cloned().partition(|(name, _)| name.starts_with(&prefix));
    let figures: Vec<_> = figures.into_iter().map(|(name, text)| (name[prefix.len()..].to_string(), text)).collect();
    files::write_into(out, &own)?;
    files::write_into(&out.join(FIGURES), &figures)?;
    for entry in fs::read_dir(out.join(FIGURES)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_figure_file(&name) && figures.iter().all(|(own, _)| *own != name) {
            let _ = fs::remove_file(entry.path());
        }
    }
    if made.iter().all(|(name, _)| name != COST_MODEL) {
        let _ = fs::remove_file(out.join(COST_MODEL));
    }
    let sums: String = made.iter().map(|(name, text)| format!("{}  {name}\n", sha256(text.as_bytes()))).collect();
    files::write_atomic(&out.join(SUMS), sums.as_bytes())
}
