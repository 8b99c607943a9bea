//! Imported records into a results folder: a new one, or one of the same machine.
//!
//! A second import of a file replaces its cases. Cases this program measured itself stay: an import never takes their place.

use super::{Imported, Origin, Source, machine_of};
use crate::records::flags::IMPORTED;
use crate::records::machine::{Gpu, MachineRecord, RunInfo};
use crate::records::own_model::refuse_foreign_model;
use crate::records::store::{Journal, JournalRun, MACHINE, MEASUREMENTS, RunRequest};
use crate::records::{Measurement, files};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folder that an import writes to, and the machine's name in it.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The results folder; `results/MACHINE` where it is `None`.
    pub results: Option<PathBuf>,
    /// The machine's name; made of the file's GPUs where it is `None`.
    pub machine: Option<String>,
}

/// What an import wrote, and where.
#[derive(Debug)]
pub struct Written {
    /// The results folder that holds the records now.
    pub folder: PathBuf,
    /// Number of cases written, replaced ones included.
    pub cases: usize,
    /// Number of cases in the file that this program had measured itself; its own lines stay and the imported ones are
    /// dropped.
    pub kept: usize,
}

/// Writes imported records into a results folder, whose machine must have the same GPUs (or processor), and whose cost
/// model, if it has one, must have been fitted from its own records. `run` is the
/// identity of the run that begins here; its start is when the import happened.
pub fn write(imported: Imported, source: Source, target: &Target, run: RunInfo) -> Result<Written> {
    let now = run.started.clone();
    let fresh = imported.origin.machine(target.machine.clone(), run);
    let folder = target.results.clone().unwrap_or_else(|| Path::new("results").join(&fresh.name));
    if folder.exists() && !folder.is_dir() {
        return Err(Error::input(
            format!("{} is a file", folder.display()),
            "give --results DIR with the folder the records are to go to",
        ));
    }
    refuse_foreign_model(&folder)?;
    let machine = match machine_of(&folder)? {
        Some(there) => same_machine(&folder, there, &imported.origin, &fresh)?,
        None => fresh,
    };
    let own = own_cases(&folder)?;
    let (kept, new): (Vec<Measurement>, Vec<Measurement>) =
        imported.records.into_iter().partition(|record| own.contains(&record.id));
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    // The run's own check compares GPU by GPU; what this import adds to them must stand there first.
    if folder.join(MACHINE).exists() {
        files::write_json(&folder.join(MACHINE), &machine)?;
    }
    let selection = Some(format!("import {}", source.name()));
    let mut run = JournalRun::open(RunRequest { folder, machine, fresh: false, selection })?;
    let cases = new.len();
    for mut record in new {
        record.at.clone_from(&now);
        run.append(record)?;
    }
    Ok(Written { folder: run.finish(now)?, cases, kept: kept.len() })
}

/// Cases with a time that no import brought.
fn own_cases(folder: &Path) -> Result<BTreeSet<String>> {
    if !folder.join(MEASUREMENTS).exists() {
        return Ok(BTreeSet::new());
    }
    let journal = Journal::read(folder)?;
    let own = journal.measurements.into_iter().filter(|m| m.median_ns.is_some() && !m.has_flag(IMPORTED));
    Ok(own.map(|m| m.id).collect())
}

/// The folder's own record, with what the file adds; refused where the devices differ.
fn same_machine(folder: &Path, there: MachineRecord, origin: &Origin, fresh: &MachineRecord) -> Result<MachineRecord> {
    let names = |gpus: &[Gpu]| gpus.iter().map(|g| g.name.clone()).collect::<BTreeSet<_>>();
    let processor = there.gpus.is_empty() && origin.gpus.is_empty() && origin.cpu.as_ref() == Some(&there.cpu.model);
    let gpus = !there.gpus.is_empty() && names(&there.gpus) == names(&origin.gpus);
    if !processor && !gpus {
        let what = |gpus: &[Gpu], cpu: &str| match gpus {
            [] => cpu.to_string(),
            [first, ..] => format!("{}x {}", gpus.len(), first.name),
        };
        return Err(Error::input(
            format!(
                "{} holds results of {} ({}), the file is of {}",
                folder.display(),
                there.name,
                what(&there.gpus, &there.cpu.model),
                what(&origin.gpus, &fresh.cpu.model)
            ),
            "two machines never share a folder: choose another with --results",
        ));
    }
    let mut merged = there;
    // An import names the preset of a folder that it begins after its flag.
    if origin.gpus.len() > merged.gpus.len() && merged.run.preset == IMPORTED {
        merged.gpus.clone_from(&origin.gpus);
    }
    for (name, version) in &origin.versions {
        let known = merged.versions.entry(name.clone()).or_default();
        if known.is_none() {
            known.clone_from(version);
        }
    }
    merged.run.command.clone_from(&fresh.run.command);
    Ok(merged)
}
