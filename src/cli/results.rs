//! What follows measuring: fit the cost model, write the tables, say where everything is.

use super::terminal::{self, note};
use crate::records::store::{COST_MODEL, Journal, MACHINE, MEASUREMENTS, TABLES};
use crate::records::{CostModel, MachineRecord, files};
use crate::report::tables;
use crate::units::counted;
use crate::{Error, Result, cost};
use std::path::Path;

/// Fits the folder's measurements. Kept apart from [`conclude`] so that `fit` can write elsewhere.
pub fn fit(folder: &Path) -> Result<CostModel> {
    fit_journal(folder, &Journal::read(folder)?)
}

/// Reads a results folder, or a `measurements.jsonl` wherever it lies, and the `machine.json` beside it where there is one. It
/// is an error where it cannot be read or holds no measurement.
pub(super) fn read_measured(path: &Path) -> Result<(Option<MachineRecord>, Journal)> {
    let journal = if path.is_dir() { Journal::read(path)? } else { Journal::read_file(path)? };
    note_set_aside(&journal);
    if journal.measurements.is_empty() {
        return Err(Error::input(
            format!("{} holds no measurement", path.display()),
            "give a folder in which `cargo bench` or `bubblebench measure` measured something",
        ));
    }
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let machine = folder.map(|folder| folder.join(MACHINE)).filter(|file| file.exists());
    let machine = machine.map(|file| files::read_json(&file, "machine")).transpose()?;
    Ok((machine, journal))
}

/// Says what of a journal is not used.
pub(super) fn note_set_aside(journal: &Journal) {
    if let Some(place) = &journal.torn {
        note(format_args!(
            "{place} is half a line (its run was killed while writing it); it is left out, the rest is used"
        ));
    }
    if let [first, rest @ ..] = journal.visits_set_aside.as_slice() {
        let more =
            if rest.is_empty() { String::new() } else { format!(", and so of {}", counted(rest.len(), "more line")) };
        note(format_args!("{first}{more}; its samples are read as those of one visit"));
    }
}

fn fit_journal(folder: &Path, journal: &Journal) -> Result<CostModel> {
    note_set_aside(journal);
    if journal.measurements.is_empty() {
        let place = journal.torn.clone().unwrap_or_else(|| folder.join(MEASUREMENTS).display().to_string());
        return Err(Error::input(
            format!("{place} holds no whole measurement"),
            "run `cargo bench` or `bubblebench measure all` first",
        ));
    }
    let machine: MachineRecord = files::read_json(&folder.join(MACHINE), "machine")?;
    let fitted = cost::fit(&journal.measurements, &machine, &journal.sha256)?;
    fitted.notes.iter().for_each(note);
    Ok(fitted.model)
}

/// Fits, writes `cost_model.json` and `tables.md`, and gives the text for the terminal.
pub fn conclude(folder: &Path) -> Result<String> {
    let journal = Journal::read(folder)?;
    let machine: MachineRecord = files::read_json(&folder.join(MACHINE), "machine")?;
    // A selection may hold nothing to fit; what was measured is still worth its tables.
    let model = match fit_journal(folder, &journal) {
        Ok(model) => Some(model),
        Err(error @ Error::Input { .. }) => {
            note(format_args!("no cost model yet: {error}"));
            // One that was fitted to other measurements must not stand beside these.
            let stale = folder.join(COST_MODEL);
            if stale.exists() {
                std::fs::remove_file(&stale).map_err(|source| Error::io("remove", &stale, source))?;
            }
            None
        }
        Err(error) => return Err(error),
    };
    if let Some(model) = &model {
        files::write_json(&folder.join(COST_MODEL), model)?;
    }
    let markdown = tables::markdown(&machine, &journal.measurements, model.as_ref());
    files::write_atomic(&folder.join(TABLES), markdown.as_bytes())?;
    let screen = terminal::screen();
    let mut text = tables::terminal(&journal.measurements, model.as_ref(), screen);
    let written = format!(
        "\nWritten to {}: {MEASUREMENTS} (the samples), {MACHINE}, {TABLES} (these tables){}.\n",
        folder.display(),
        if model.is_some() { ", cost_model.json (what `plan` and `predict` read)" } else { "" }
    );
    text.push_str(&screen.prose(&written, 2));
    Ok(text)
}
