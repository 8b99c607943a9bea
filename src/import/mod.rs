//! Other people's measurements into records: nccl-tests' output (text and `-J` JSON) and nvbench's JSON.
//!
//! A reader turns a file into [`Imported`]: the machine as far as the file tells, a record a row, and notes on what was
//! left out and why. [`folder`] writes that into a results folder. Right of `records`: nothing here touches hardware.

pub mod folder;
pub mod nccl_tests;
pub mod nvbench;

use crate::records::machine::{Cpu, Gpu, MachineRecord, RunInfo, SCHEMA, slug};
use crate::records::{Measurement, files};
use crate::{Error, Result, nearest};
use std::collections::BTreeMap;
use std::path::Path;

/// The tool whose output is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Output of nccl-tests or rccl-tests, as text or as the JSON that `-J` writes.
    NcclTests,
    /// The JSON that an nvbench benchmark writes with `--json`.
    Nvbench,
}

impl Source {
    /// Every tool whose output is read.
    pub const ALL: [Source; 2] = [Source::NcclTests, Source::Nvbench];

    /// The source named `nccl-tests` or `nvbench`, as `--from` takes it; any other name is an error that lists both.
    pub fn parse(name: &str) -> Result<Source> {
        Source::ALL.into_iter().find(|source| source.name() == name).ok_or_else(|| {
            Error::input(format!("--from {name} is unknown"), nearest::cure(name, Source::ALL.map(Source::name)))
        })
    }

    /// The tool's name as `--from` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Source::NcclTests => "nccl-tests",
            Source::Nvbench => "nvbench",
        }
    }
}

/// What a file of another tool said.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The machine that the file's measurements are of.
    pub origin: Origin,
    /// One measurement for each case, flagged `imported`, without a run and without the time at which it was taken.
    pub records: Vec<Measurement>,
    /// Sentences on what was left out of the records, and why.
    pub notes: Vec<String>,
}

/// The machine as far as the file tells.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The GPUs of one node; empty where the file names none.
    pub gpus: Vec<Gpu>,
    /// The processor's name, where it was measured itself (this program's own host runs, printed in nccl-tests'
    /// columns); else `None`.
    pub cpu: Option<String>,
    /// The network name of the host; `None` where the file does not give one.
    pub hostname: Option<String>,
    /// Versions of the tool and its libraries, by name; `None` for one that the file does not give.
    pub versions: BTreeMap<String, Option<String>>,
    /// Environment variables of the run that start with `NCCL_` or `CUDA_`, by name; nothing else of it is kept.
    pub environment: BTreeMap<String, String>,
}

/// Reads the file as the output of `source`; `operation` names the collective where the file does not. It is an error
/// where the file cannot be read, is another tool's, is cut off, or holds no time that can be used.
pub fn read(source: Source, path: &Path, operation: Option<&str>) -> Result<Imported> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    // Logs of launchers hold stray bytes; they cannot stand in a row.
    let text = String::from_utf8_lossy(&bytes);
    let place = path.display().to_string();
    match source {
        Source::NcclTests => nccl_tests::read(&text, &place, operation),
        Source::Nvbench => nvbench::read(&text, path),
    }
}

impl Origin {
    /// The `machine.json` of a folder that this import begins: the name is made of the GPUs where none is given, and
    /// what the file does not tell is `unknown`, 0 or `None`.
    pub fn machine(&self, name: Option<String>, run: RunInfo) -> MachineRecord {
        let unknown = || "unknown".to_string();
        let own = match (self.gpus.as_slice(), &self.cpu) {
            ([], cpu) => cpu.clone().unwrap_or_default(),
            ([only], _) => only.name.clone(),
            ([first, ..], _) => format!("{} x{}", first.name, self.gpus.len()),
        };
        MachineRecord {
            schema: SCHEMA.into(),
            name: name.unwrap_or_else(|| slug(&own)),
            cpu: Cpu {
                model: self.cpu.clone().unwrap_or_else(unknown),
                cores: 0,
                last_level_cache_bytes: None,
                features: Vec::new(),
                governor: None,
            },
            memory_bytes: None,
            gpus: self.gpus.clone(),
            versions: self.versions.clone(),
            topology: Vec::new(),
            kernel: unknown(),
            hostname: self.hostname.clone(),
            environment: self.environment.clone(),
            run,
        }
    }
}

/// JSON of another tool, or a sentence on why it is none: cut off, no JSON, or one of our own files.
fn json(text: &str, place: &str, tool: &str) -> Result<serde_json::Value> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| match e.is_eof() {
        true => Error::input(
            format!("{place} is cut off: {tool} did not close its JSON"),
            format!("let {tool} run to its end, or import its text output"),
        ),
        false => Error::input(format!("{place} is not JSON: {e}"), format!("give the file that {tool} wrote")),
    })?;
    if let Some(schema) = value.get("schema").and_then(serde_json::Value::as_str) {
        return Err(Error::input(
            format!("{place} is a file of schema {schema}, not {tool}'s output"),
            format!("give a file that {tool} wrote"),
        ));
    }
    Ok(value)
}

/// The value of an allowed environment variable is kept, everything else is not even looked at.
fn environment<'a>(entries: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let pairs = entries.filter_map(|entry| entry.split_once('='));
    let kept = pairs.filter(|(name, _)| name.starts_with("NCCL_") || name.starts_with("CUDA_"));
    kept.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// `machine.json` of a results folder, if it has one.
fn machine_of(folder: &Path) -> Result<Option<MachineRecord>> {
    let path = folder.join(crate::records::store::MACHINE);
    if path.exists() { files::read_json(&path, "machine").map(Some) } else { Ok(None) }
}
