//! A machine's folder: the journal of measurements, which run it belongs to, and what becomes of older runs.
//!
//! Measurements are appended one line at a time and fsynced, so a kill at any moment loses at most the case in flight.
//! A case that is visited again gets a line with all its visits, which stands for the one before; of both only the last
//! is left when the run is closed.
//! An unfinished run of the same machine, commit, preset and device goes on where it stopped; any other run moves the
//! old files to `runs/<run>/`. A run limited to some cases replaces only those.

use super::files;
use super::flags::IMPORTED;
use super::machine::RunInfo;
use super::measurement::{self, Backend, Kind, Measurement};
use super::own_model::refuse_foreign_model;
use super::{MachineRecord, schema};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Name of the journal in a machine's folder, one line a case.
pub const MEASUREMENTS: &str = "measurements.jsonl";
/// Name of the file in a machine's folder that holds the machine and its run.
pub const MACHINE: &str = "machine.json";
/// Name of the cost model in a machine's folder.
pub const COST_MODEL: &str = "cost_model.json";
/// Name of the file in a machine's folder with its tables for people, in Markdown.
pub const TABLES: &str = "tables.md";
const LOCK: &str = ".lock";

/// What a `measurements.jsonl` holds: a line of every case, in the order of their first lines.
#[derive(Debug, Default)]
pub struct Journal {
    /// The last line written of every case, in the order of the cases' first lines. Where a closed run has made more visits to a
    /// case than one that was not closed, the closed run's.
    pub measurements: Vec<Measurement>,
    /// Closing lines of runs and selections ([`Kind::End`]), in the order of the file.
    pub ends: Vec<Measurement>,
    /// The last lines of settled cases that were written since the last closing line: by a run that was not closed.
    unclosed: HashMap<String, Measurement>,
    /// Bytes of whole lines; a half-written last line lies behind them.
    whole_bytes: u64,
    /// SHA-256 of the file as it was read, in hexadecimal.
    pub sha256: String,
    /// Place of a half-written last line as `file:line`; that line is not among the measurements. `None` where the file
    /// ends whole.
    pub torn: Option<String>,
    /// Lines whose visits cannot be theirs, as `file:line: what is wrong`. Their samples are read as those of one visit.
    pub visits_set_aside: Vec<String>,
}

impl Journal {
    /// Reads `measurements.jsonl` of a machine's folder. It is an error where the file cannot be read or a whole line
    /// is no measurement; a half-written last line is left out.
    pub fn read(folder: &Path) -> Result<Self> {
        Self::read_file(&folder.join(MEASUREMENTS))
    }

    /// Reads one such file, wherever it lies, as [`Journal::read`] does.
    pub fn read_file(path: &Path) -> Result<Self> {
        let text = fs::read(path).map_err(|source| Error::io("read", path, source))?;
        Self::parse(&text, path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self> {
        let sha256 = super::sha256(text);
        let mut journal = Journal { sha256, ..Journal::default() };
        let mut place: HashMap<String, usize> = HashMap::new();
        let mut since_end: Vec<Measurement> = Vec::new();
        for (number, line) in text.split_inclusive(|&b| b == b'\n').enumerate() {
            let here = || format!("{}:{}", path.display(), number + 1);
            if !line.ends_with(b"\n") {
                journal.torn = Some(here());
                break;
            }
            journal.whole_bytes += line.len() as u64;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let mut record = parse_line(line, &here)?;
            if let Err(what) = record.check_visits() {
                journal.visits_set_aside.push(format!("{}: {what}", here()));
                record.visits = None;
            }
            if record.kind == Kind::End {
                journal.ends.push(record);
                since_end.drain(..).for_each(|record| journal.take(record, &mut place));
                continue;
            }
            since_end.push(record);
        }
        for record in since_end {
            if record.is_settled() {
                journal.unclosed.insert(record.id.clone(), record.clone());
            }
            let closed = place.get(&record.id).map(|&at| &journal.measurements[at]);
            if !closed.is_some_and(|closed| closed.has_more_visits(&record)) {
                journal.take(record, &mut place);
            }
        }
        Ok(journal)
    }

    /// Puts a case's line in place of its earlier one, which is at `place`.
    fn take(&mut self, record: Measurement, place: &mut HashMap<String, usize>) {
        match place.get(&record.id) {
            Some(&at) => self.measurements[at] = record,
            None => {
                place.insert(record.id.clone(), self.measurements.len());
                self.measurements.push(record);
            }
        }
    }

    /// Whether a run over all its preset's cases was closed.
    pub fn finished(&self, run: &str) -> bool {
        self.ends.iter().any(|end| end.run == run && end.params.get("selection").is_some_and(Value::is_null))
    }
}

fn parse_line(line: &[u8], here: &dyn Fn() -> String) -> Result<Measurement> {
    let cure = "remove that line (the rest is kept), or move the file away to start again";
    let value: Value = serde_json::from_slice(line)
        .map_err(|e| Error::input(format!("{} cannot be read as a measurement: {e}", here()), cure))?;
    schema::check(&value, "measurement", &here())?;
    let record: Measurement = serde_json::from_value(value)
        .map_err(|e| Error::input(format!("{} is not a measurement: {e}", here()), cure))?;
    // Whoever writes the line again writes it with every field of this version.
    Ok(Measurement { schema: measurement::SCHEMA.into(), ..record })
}

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The machine's folder, which is made where it is not there.
    pub folder: PathBuf,
    /// The machine, with the identity of the run that would start.
    pub machine: MachineRecord,
    /// Whether to start anew even where an unfinished run could go on.
    pub fresh: bool,
    /// What the run is limited to (a filter, a group), `None` for all cases of the preset.
    pub selection: Option<String>,
}

/// A run whose measurements are being written. It holds the folder's lock until it is dropped.
#[derive(Debug)]
pub struct JournalRun {
    folder: PathBuf,
    file: File,
    length: u64,
    id: String,
    selection: Option<String>,
    /// The last line of every case that this run has settled before or written since.
    lines: HashMap<String, Measurement>,
    resumed: usize,
    backend: Backend,
    device: String,
    /// Of the program that writes; a selection may be measured by a later one than its run.
    commit: Option<String>,
    _lock: FolderLock,
}

impl JournalRun {
    /// Locks the folder and goes on with the unfinished run there, or moves an earlier one to `runs/` and starts anew.
    /// It is an error where another process holds the lock, the folder is another machine's, a selection does not fit the
    /// preset and device of the run there, or the folder's cost model was not fitted from its records.
    pub fn open(request: RunRequest) -> Result<JournalRun> {
        let folder = request.folder.clone();
        fs::create_dir_all(&folder).map_err(|source| Error::io("create", &folder, source))?;
        let lock = lock(&folder)?;
        files::sweep_temporaries(&folder);
        refuse_other_machine(&folder, &request.machine)?;
        refuse_foreign_model(&folder)?;
        let mut machine = request.machine.clone();
        let (lines, keep) = match previous(&folder)? {
            Some((old, journal)) => match go_on(&request, &old, &journal)? {
                Some(lines) => {
                    // The run goes on under its own name; the last command is the one that can be repeated.
                    machine.run = RunInfo { command: machine.run.command, ..old.run };
                    (lines, journal.whole_bytes)
                }
                None => {
                    retire(&folder, &old.run.id)?;
                    (HashMap::new(), 0)
                }
            },
            None => (HashMap::new(), 0),
        };
        files::write_json(&folder.join(MACHINE), &machine)?;
        let file = open_journal(&folder, keep)?;
        Ok(JournalRun {
            folder,
            file,
            length: keep,
            id: machine.run.id.clone(),
            selection: request.selection,
            resumed: lines.len(),
            lines,
            backend: if machine.run.device.starts_with("cuda") { Backend::Cuda } else { Backend::Host },
            device: machine.run.device,
            commit: request.machine.run.commit,
            _lock: lock,
        })
    }

    /// The run's identity, which every line repeats; a run that goes on keeps that of its first start.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The machine's folder that the run writes to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether an earlier, unfinished part of this run has settled the case ([`Measurement::is_settled`]), so that it
    /// need not be measured again.
    pub fn is_done(&self, case: &str) -> bool {
        self.line(case).is_some_and(Measurement::is_settled)
    }

    /// The case's last line of this run; `None` where it has none, or none that an earlier part of the run has settled.
    pub fn line(&self, case: &str) -> Option<&Measurement> {
        self.lines.get(case)
    }

    /// Number of cases that an earlier, unfinished part of this run has settled; 0 for a run that starts anew.
    pub fn resumed_cases(&self) -> usize {
        self.resumed
    }

    /// Appends the record as one line of this run and waits until it is on disk. Where it cannot be written whole, what
    /// was written is taken back and an error returned.
    pub fn append(&mut self, mut record: Measurement) -> Result<()> {
        record.run.clone_from(&self.id);
        let path = self.folder.join(MEASUREMENTS);
        let mut line = serde_json::to_vec(&record)
            .map_err(|e| Error::bug(format!("case {} cannot be written: {e}", record.id)))?;
        line.push(b'\n');
        let write = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(source) = write {
            // A half line would be dropped by the next reader anyway; without it the file stays clean.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::End(0));
            return Err(Error::io("append to", &path, source));
        }
        self.length += line.len() as u64;
        if record.kind != Kind::End {
            self.lines.insert(record.id.clone(), record);
        }
        Ok(())
    }

    /// Closes the run at the time `at`: writes the end line, then the journal anew with one line per case (a selection
    /// replaces its own). Returns the folder.
    pub fn finish(mut self, at: String) -> Result<PathBuf> {
        let mut end = Measurement::blank("end", Kind::End, self.backend);
        end.device.clone_from(&self.device);
        end.at = at;
        end.params.insert("cases".into(), self.lines.len().into());
        end.params.insert("selection".into(), self.selection.clone().map_or(Value::Null, Value::String));
        end.params.insert("commit".into(), self.commit.clone().map_or(Value::Null, Value::String));
        self.append(end)?;
        compact(&self.folder)?;
        Ok(self.folder.clone())
    }
}

/// The lines of the cases that the folder's run has settled, if it goes on; `None` where a new run starts.
fn go_on(request: &RunRequest, old: &MachineRecord, journal: &Journal) -> Result<Option<HashMap<String, Measurement>>> {
    let new = &request.machine;
    let (same_run, same_setting) = (same_identity(old, new), same_setting(old, new));
    if request.fresh || request.selection.is_none() && (!same_run || journal.finished(&old.run.id)) {
        return Ok(None);
    }
    if request.selection.is_some() && !same_setting {
        // A handful of cases must not throw a whole run of another kind out of its folder.
        return Err(Error::input(
            format!(
                "{} holds a run of preset {} on {}, this one is of preset {} on {}",
                request.folder.display(),
                old.run.preset,
                old.run.device,
                new.run.preset,
                new.run.device
            ),
            format!("add --preset {}, or give this run its own folder with --results", old.run.preset),
        ));
    }
    // Another tool's time for a case does not make it measured.
    let own = |m: &&Measurement| m.is_settled() && !m.has_flag(IMPORTED);
    let settled = journal.measurements.iter().filter(own).map(|m| (m.id.clone(), m.clone()));
    Ok(Some(match &request.selection {
        None => settled.collect(),
        // The same command again goes on; any other selection is measured anew.
        Some(_) if same_run && old.run.command == new.run.command => {
            journal.unclosed.values().filter(own).map(|m| (m.id.clone(), m.clone())).collect()
        }
        Some(_) => HashMap::new(),
    }))
}

fn open_journal(folder: &Path, keep: u64) -> Result<File> {
    let path = folder.join(MEASUREMENTS);
    let open = || -> std::io::Result<File> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        file.set_len(keep)?;
        file.seek(SeekFrom::Start(keep))?;
        file.sync_all()?;
        files::sync_folder(&path)?;
        Ok(file)
    };
    open().map_err(|source| Error::io("open", &path, source))
}

/// The folder's lock, given back when this is dropped: by that call, because a program that another thread is just starting
/// has a copy of the open file for a moment, which would keep the lock.
#[derive(Debug)]
struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn lock(folder: &Path) -> Result<FolderLock> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| Error::io("create", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(FolderLock(file)),
        Err(TryLockError::WouldBlock) => Err(Error::input(
            format!("another run is writing to {}", folder.display()),
            "wait for it to end, or give this one its own folder with --results",
        )),
        // Some network file systems have no locks; a run there is as safe as its user is careful.
        Err(TryLockError::Error(_)) => Ok(FolderLock(file)),
    }
}

fn previous(folder: &Path) -> Result<Option<(MachineRecord, Journal)>> {
    if !folder.join(MEASUREMENTS).exists() {
        return Ok(None);
    }
    if !folder.join(MACHINE).exists() {
        return Err(Error::input(
            format!("{} holds measurements but no {MACHINE} that says whose they are", folder.display()),
            format!("put its {MACHINE} back, or move {MEASUREMENTS} away"),
        ));
    }
    let machine: MachineRecord = files::read_json(&folder.join(MACHINE), "machine")?;
    Ok(Some((machine, Journal::read(folder)?)))
}

fn refuse_other_machine(folder: &Path, machine: &MachineRecord) -> Result<()> {
    let path = folder.join(MACHINE);
    if !path.exists() {
        return Ok(());
    }
    let old: MachineRecord = files::read_json(&path, "machine")?;
    let hardware = |m: &MachineRecord| {
        let gpus: Vec<_> = m.gpus.iter().map(|g| (g.name.clone(), g.memory_bytes)).collect();
        (m.cpu.model.clone(), m.cpu.cores, gpus)
    };
    if old.name == machine.name && hardware(&old) == hardware(machine) {
        return Ok(());
    }
    Err(Error::input(
        format!(
            "{} holds results of {} ({}), this machine is {} ({})",
            folder.display(),
            old.name,
            old.cpu.model,
            machine.name,
            machine.cpu.model
        ),
        "two machines never share a folder: choose another with --results or --machine",
    ))
}

fn same_identity(old: &MachineRecord, new: &MachineRecord) -> bool {
    old.name == new.name
        && old.run.commit == new.run.commit
        && old.run.preset == new.run.preset
        && old.run.device == new.run.device
}

/// What a selection must share with the run whose cases it replaces; the commit stands in the cost model's figures
/// only.
fn same_setting(old: &MachineRecord, new: &MachineRecord) -> bool {
    old.name == new.name && old.run.preset == new.run.preset && old.run.device == new.run.device
}

/// Moves a run's files to `runs/<run>/`.
fn retire(folder: &Path, run: &str) -> Result<()> {
    let target = folder.join("runs").join(run);
    fs::create_dir_all(&target).map_err(|source| Error::io("create", &target, source))?;
    // The measurements last: as long as they are here, a start after a kill does the rest.
    for name in [COST_MODEL, TABLES] {
        let from = folder.join(name);
        if from.exists() {
            fs::rename(&from, target.join(name)).map_err(|source| Error::io("move", &from, source))?;
        }
    }
    // A copy, because the folder is never without a machine.json while measurements stand in it.
    let machine = folder.join(MACHINE);
    fs::copy(&machine, target.join(MACHINE)).map_err(|source| Error::io("copy", &machine, source))?;
    let measurements = folder.join(MEASUREMENTS);
    fs::rename(&measurements, target.join(MEASUREMENTS)).map_err(|source| Error::io("move", &measurements, source))
}

/// Rewrites the journal with one line per case and the end lines last.
fn compact(folder: &Path) -> Result<()> {
    let journal = Journal::read(folder)?;
    // A closed full run stays closed; of the selections' end lines only the last one is of interest.
    let full = journal.ends.iter().rfind(|e| e.params.get("selection").is_some_and(Value::is_null));
    let ends = full.into_iter().chain(journal.ends.last().filter(|e| full.is_none_or(|f| f != *e)));
    let mut text = Vec::new();
    for record in journal.measurements.iter().chain(ends) {
        serde_json::to_writer(&mut text, record)
            .map_err(|e| Error::bug(format!("case {} cannot be written: {e}", record.id)))?;
        text.push(b'\n');
    }
    files::write_atomic(&folder.join(MEASUREMENTS), &text)
}
