//! `bubblebench report`: results folders as a page for people and as figures for a paper.

use super::compare::sides::short_names;
use super::fit::this_machines_folder;
use super::results::read_measured;
use super::terminal::note;
use crate::cost;
use crate::cost::heldout::HeldOutPart;
use crate::figures::{self, ReportSide};
use crate::records::store::{COST_MODEL, Journal};
use crate::records::{CostModel, MachineRecord, Measurement, files};
use crate::report::figure::{self, Background, FigureWidth};
use crate::report::{html, latex, tables};
use crate::units::counted;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The cost model of more cases than this is read, not fitted, and none is held out: that would take seconds.
const MOST_FITTED: usize = 1_200;

/// What `bubblebench report` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bubblebench report results/node7\n  \
    bubblebench report rtx3090-x4 a100-x8 --out both.html\n  \
    bubblebench report results/node7 --figures paper/figures\n\n\
    The page is one file and asks nothing of any network. --figures writes each\n\
    figure 3.5 in and 7 in wide as SVG, its numbers as CSV, and every table as\n\
    LaTeX (packages booktabs, longtable, pdflscape); docs/publishing.md shows how\n\
    a paper takes them in.")]
pub struct ReportArgs {
    /// Results folders; several are drawn over each other [default: results/<machine>]
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Where the page is written
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// A folder for the figures and tables as files
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

/// What a report is made of.
pub struct ReportContents {
    /// The folders.
    pub sides: Vec<ReportSide>,
    /// Sentences on what of them is not shown.
    pub notes: Vec<String>,
}

/// Writes the page, and the figures where they are asked for.
pub fn run(args: &ReportArgs) -> Result<()> {
    let folders = if args.folders.is_empty() { vec![this_machines_folder()] } else { args.folders.clone() };
    refuse_what_is_no_page(&args.out)?;
    let contents = read(&folders)?;
    contents.notes.iter().for_each(note);
    let all = figures::all(&contents.sides);
    if all.is_empty() {
        return Err(Error::input(
            format!("nothing in {} can be drawn", counted(folders.len(), "folder")),
            "give a folder with a case that has a time",
        ));
    }
    let page = html::report::html(&contents.sides, &all, &contents.notes)?;
    files::write_atomic(&args.out, page.as_bytes())?;
    let size = page.len() as f64 / 1e6;
    note(format_args!("{} written to {} ({size:.1} MB)", counted(all.len(), "figure"), args.out.display()));
    if let Some(folder) = &args.figures {
        let written = figure_files(&contents.sides, &all)?;
        files::write_into(folder, &written)?;
        note(format_args!("{} written to {}", counted(written.len(), "file"), folder.display()));
    }
    Ok(())
}

/// A file that is there already must be a page, or it would be lost.
fn refuse_what_is_no_page(out: &Path) -> Result<()> {
    let mut head = [0; 9];
    let is_file = std::fs::metadata(out).is_ok_and(|there| there.is_file() && there.len() > 0);
    let mut is_page =
        || std::fs::File::open(out).and_then(|mut file| file.read_exact(&mut head)).is_ok() && &head == b"<!doctype";
    if is_file && !is_page() {
        return Err(Error::input(
            format!("{} is there already and is no page", out.display()),
            "give another file with --out",
        ));
    }
    Ok(())
}

/// Reads every folder, and makes its cost model ready.
pub fn read(folders: &[PathBuf]) -> Result<ReportContents> {
    let names = short_names(&folders.iter().map(|folder| vec![folder.clone()]).collect::<Vec<_>>());
    let mut contents = ReportContents { sides: Vec::new(), notes: Vec::new() };
    for (name, path) in names.into_iter().zip(folders) {
        let (machine, journal) = read_measured(path)?;
        let (side, notes) = side(name, path, machine, &journal);
        let told = |note| if folders.len() > 1 { format!("{}: {note}", side.name) } else { note };
        contents.notes.extend(notes.into_iter().map(told));
        contents.sides.push(side);
    }
    Ok(contents)
}

/// What was read from a folder as a report shows it, and sentences on what it does not.
pub fn side(name: String, path: &Path, machine: Option<MachineRecord>, journal: &Journal) -> (ReportSide, Vec<String>) {
    let (records, mut notes) = figures::shown(journal.measurements.clone());
    let (model, held_out, more) = model_of(path, machine.as_ref(), journal, &records);
    notes.extend(more);
    (ReportSide { name, machine, records, model, held_out }, notes)
}

type Modelled = (Option<CostModel>, Vec<HeldOutPart>, Option<String>);

/// The cost model of the records: fitted here with cases held out, of very many read from the folder. A report goes without one
/// where there is none.
fn model_of(path: &Path, machine: Option<&MachineRecord>, journal: &Journal, records: &[Measurement]) -> Modelled {
    let Some(machine) = machine else {
        return (None, Vec::new(), Some("no machine.json beside the measurements, so no cost model is drawn".into()));
    };
    if records.len() <= MOST_FITTED {
        return match cost::fit(records, machine, &journal.sha256) {
            Ok(fitted) => (Some(fitted.model), fitted.held_out, None),
            Err(error) => (None, Vec::new(), Some(format!("no cost model is drawn: {error}"))),
        };
    }
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let model = folder.and_then(|folder| files::read_json::<CostModel>(&folder.join(COST_MODEL), "cost_model").ok());
    let own =
        model.filter(|m| m.made_from.measurements_sha256.as_ref() == Some(&journal.sha256) && cost::check(m).is_ok());
    let told = match own {
        Some(_) => format!("more than {MOST_FITTED} cases: the folder's cost model is drawn, and no case is held out"),
        None => format!("more than {MOST_FITTED} cases and no cost model of them: `bubblebench fit` makes it"),
    };
    (own, Vec::new(), Some(told))
}

/// Names and texts of all files of `--figures`.
pub fn figure_files(sides: &[ReportSide], all: &[figures::figure::Figure]) -> Result<Vec<(String, String)>> {
    let mut written = Vec::new();
    for drawn in all {
        for width in FigureWidth::ALL {
            let svg = figure::svg(drawn, width, Background::White)?;
            written.push((format!("{}-{}.svg", drawn.name, width.name()), svg));
        }
        written.push((format!("{}.csv", drawn.name), figure::csv(drawn)));
    }
    let caption =
        |drawn: &figures::figure::Figure| format!("## {}: {}\n\n{}\n", drawn.name, drawn.title, drawn.caption);
    written.push(("captions.md".into(), all.iter().map(caption).collect::<Vec<_>>().join("\n")));
    let mut seen = BTreeSet::new();
    for side in sides {
        for table in tables::all(&side.records, side.model.as_ref()) {
            let name = if sides.len() > 1 { format!("{} {}", table.title, side.name) } else { table.title.clone() };
            let stem = format!("table-{}", figures::figure::stem(&name));
            written.push((figures::figure::distinct(&mut seen, &stem, ".tex"), latex::table(&table)));
        }
    }
    Ok(written)
}
