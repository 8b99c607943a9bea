//! Other people's measurements into records: nccl-tests' output (text and `-J` JSON), nvbench's JSON, and tables of layer
//! timings or of single operations.
//!
//! A reader turns files into [`Imported`]: the machine as far as they tell, a record a row, and notes on what was left out
//! and why. [`folder`] writes that into a results folder; [`published`] makes the tables below `results/published/` into what
//! a cost model is fitted from. Right of `records`: nothing here touches hardware.

pub mod folder;
mod layers;
pub mod nccl_tests;
pub mod nvbench;
mod operations;
pub mod published;
mod rates;
mod table;

use crate::records::flags::IMPORTED;
use crate::records::machine::{Cpu, Gpu, MachineRecord, RunInfo, SCHEMA, slug};
use crate::records::measurement::{Backend, Interval, Kind};
use crate::records::{Measurement, files};
use crate::{Error, Result, nearest};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use table::TextFile;

/// The tool whose output is imported, or the kind of table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Output of nccl-tests or rccl-tests, as text or as the JSON that `-J` writes.
    NcclTests,
    /// The JSON that an nvbench benchmark writes with `--json`.
    Nvbench,
    /// A table of layer timings: CSV, or JSON lines with the same names.
    Layers,
    /// A table of single operations: CSV, or JSON lines with the same names.
    Operations,
}

impl Source {
    /// Every tool whose output is read, and every kind of table.
    pub const ALL: [Source; 4] = [Source::NcclTests, Source::Nvbench, Source::Layers, Source::Operations];

    /// The source of that name, as `--from` takes it; any other name is an error that lists all.
    pub fn parse(name: &str) -> Result<Source> {
        Source::ALL.into_iter().find(|source| source.name() == name).ok_or_else(|| {
            Error::input(format!("--from {name} is unknown"), nearest::cure(name, Source::ALL.map(Source::name)))
        })
    }

    /// The name as `--from` takes it: `nccl-tests`, `nvbench`, `layers` or `operations`.
    pub fn name(self) -> &'static str {
        match self {
            Source::NcclTests => "nccl-tests",
            Source::Nvbench => "nvbench",
            Source::Layers => "layers",
            Source::Operations => "operations",
        }
    }

    /// Whether its files are tables, which name no machine by themselves.
    const fn is_table(self) -> bool {
        matches!(self, Source::Layers | Source::Operations)
    }
}

/// What the user says of files that do not say it themselves.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// The collective whose times nccl-tests printed, where the output does not name it.
    pub operation: Option<String>,
    /// The GPU that a table's times are of; of a table with a column `gpu`, the one whose rows are taken.
    pub gpu: Option<String>,
}

impl Hints {
    /// Refuses what would be left unheard.
    fn fit(&self, source: Source) -> Result<()> {
        let unheard = match source.is_table() {
            true => self.operation.as_ref().map(|_| ("--operation", "nccl-tests' output")),
            false => self.gpu.as_ref().map(|_| ("--gpu", "tables of layers and operations")),
        };
        match unheard {
            None => Ok(()),
            Some((option, of)) => Err(Error::input(
                format!("{option} says nothing about --from {}", source.name()),
                format!("leave it out: it is for {of}"),
            )),
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

/// Reads the files as output of `source`, all of one machine. It is an error where a file cannot be read, is another
/// tool's, is cut off, holds no time that can be used, or is of another machine than the first. Of a case in several
/// outputs of a tool the last one counts; of one in several rows of tables, an error says where if their times differ.
pub fn read<P: AsRef<Path>>(source: Source, paths: &[P], hints: &Hints) -> Result<Imported> {
    hints.fit(source)?;
    let mut files = Vec::with_capacity(paths.len());
    for path in paths.iter().map(AsRef::as_ref) {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        // Logs of launchers hold stray bytes; they cannot stand in a row.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        files.push(TextFile { place: path.display().to_string(), text });
    }
    let outputs = match source {
        Source::Layers => return layers::read(&files, hints.gpu.as_deref()),
        Source::Operations => return operations::read(&files, hints.gpu.as_deref()),
        Source::NcclTests => files
            .iter()
            .map(|file| nccl_tests::read(&file.text, &file.place, hints.operation.as_deref()))
            .collect::<Result<Vec<_>>>()?,
        Source::Nvbench => {
            files.iter().map(|file| nvbench::read(&file.text, Path::new(&file.place))).collect::<Result<Vec<_>>>()?
        }
    };
    joined(&files, outputs)
}

/// Outputs of one machine as one.
fn joined(files: &[TextFile], outputs: Vec<Imported>) -> Result<Imported> {
    let mut outputs = outputs.into_iter().zip(files);
    let Some((mut all, first)) = outputs.next() else {
        return Err(Error::input("no file is given", "name the files to import"));
    };
    for (output, file) in outputs {
        let (own, other) = (all.origin.device_names(), output.origin.device_names());
        if own != other {
            return Err(Error::input(
                format!("{} is of {own}, {} of {other}", first.place, file.place),
                "import each machine's output into its own folder",
            ));
        }
        if output.origin.gpus.len() > all.origin.gpus.len() {
            all.origin.gpus = output.origin.gpus;
        }
        all.origin.versions.extend(output.origin.versions);
        all.origin.environment.extend(output.origin.environment);
        let again: BTreeSet<&str> = output.records.iter().map(|record| record.id.as_str()).collect();
        all.records.retain(|record| !again.contains(record.id.as_str()));
        all.records.extend(output.records);
        all.notes.extend(output.notes);
    }
    Ok(all)
}

/// A line of a table's row, with its time and its device.
fn imported_line(id: String, kind: Kind, gpu: &str, time: Interval) -> Measurement {
    let mut line = Measurement::blank(id, kind, Backend::Cuda);
    line.device = gpu.to_string();
    line.samples_ns = vec![time.median];
    line.samples_total = 1;
    line.median_ns = Some(time.median);
    if time.low < time.high {
        (line.ci95_low_ns, line.ci95_high_ns) = (Some(time.low), Some(time.high));
    }
    line.flags.push(IMPORTED.into());
    line
}

impl Origin {
    /// One GPU of which nothing but its name is known.
    fn of_gpu(name: &str) -> Origin {
        Origin { gpus: vec![Gpu { name: name.to_string(), ..Gpu::default() }], ..Origin::default() }
    }

    /// The GPUs' names, each once, or the processor's.
    fn device_names(&self) -> String {
        match nearest::once(self.gpus.iter().map(|gpu| gpu.name.as_str())).join(", ") {
            none if none.is_empty() => self.cpu.clone().unwrap_or_else(|| "an unknown device".into()),
            names => names,
        }
    }

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
