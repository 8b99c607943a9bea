//! Figures that others published, as tables with their sources: from `operations.csv`, `layers.csv` and `published.json`
//! of a folder below `results/published/` to the records that its cost model is fitted from.
//!
//! Nothing is fitted here: whoever can fit hands the model to [`Published::file`], which writes down where its figures come
//! from. `examples/published` makes the files, and a test holds those that are committed against it.

use super::{Hints, Origin, Source, read};
use crate::records::cost_model::{self, MadeFrom, ModelMachine, Topology};
use crate::records::machine::RunInfo;
use crate::records::store::COST_MODEL;
use crate::records::{CostModel, MachineRecord, Measurement, files, flags};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Name of the file that says whose figures a folder holds.
pub const PUBLISHED: &str = "published.json";
/// Name of the table of single operations in such a folder.
pub const OPERATIONS: &str = "operations.csv";
/// Name of the table of layer timings in such a folder.
pub const LAYERS: &str = "layers.csv";

/// The tables of one folder, read.
#[derive(Debug, Clone)]
pub struct Published {
    /// The machine as far as it is described.
    pub machine: MachineRecord,
    /// A record for each row of the tables, and for each phase of a layer.
    pub records: Vec<Measurement>,
    /// Sentences on what was left out of the records, and why.
    pub notes: Vec<String>,
    folder: PathBuf,
    about: About,
}

/// What `published.json` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    name: String,
    device: String,
    memory_bytes: Option<u64>,
    at: String,
    source: String,
    kind: Kind,
    /// How the GPUs are joined, where that is stated.
    #[serde(default)]
    topology: Option<Topology>,
    /// SMs of the GPU, which say how many tiles of a product run at once.
    #[serde(default)]
    sms: Option<u64>,
    #[serde(default)]
    l2_bytes: Option<u64>,
}

/// Where the figures come from.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Somebody measured them and published the times.
    Published,
    /// They follow from a data sheet.
    Datasheet,
}

/// The folders right below `root` that hold a `published.json`, by name. Others are somebody's runs, or made by hand.
pub fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(root).map_err(|e| Error::io("read", root, e))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join(PUBLISHED).is_file()).collect();
    found.sort();
    Ok(found)
}

impl Published {
    /// Reads the tables of a folder. It is an error where `published.json` is not what it must be, where neither table is
    /// there, or where a row cannot be read.
    pub fn read(folder: &Path) -> Result<Published> {
        let path = folder.join(PUBLISHED);
        let about: About = serde_json::from_str(&files::read_text(&path)?).map_err(|e| {
            Error::input(
                format!("{} cannot be read: {e}", path.display()),
                "give name, device, memory_bytes, at, source, kind (published or datasheet) and topology",
            )
        })?;
        let tables = [(Source::Operations, folder.join(OPERATIONS)), (Source::Layers, folder.join(LAYERS))];
        let hints = Hints { operation: None, gpu: Some(about.device.clone()) };
        let (mut records, mut notes) = (Vec::new(), Vec::new());
        for (source, table) in tables.into_iter().filter(|(_, table)| table.exists()) {
            let imported = read(source, &[table], &hints)?;
            records.extend(imported.records);
            notes.extend(imported.notes);
        }
        if records.is_empty() {
            return Err(Error::input(
                format!("{} has neither {OPERATIONS} nor {LAYERS}", folder.display()),
                format!("put one of them beside {PUBLISHED}, or take that away"),
            ));
        }
        records.iter_mut().for_each(|record| record.at.clone_from(&about.at));
        let machine = machine(&about);
        Ok(Published { machine, records, notes, folder: folder.to_path_buf(), about })
    }

    /// The path of the folder's cost model.
    pub fn path(&self) -> PathBuf {
        self.folder.join(COST_MODEL)
    }

    /// The content of the folder's `cost_model.json`: the model fitted from [`Published::records`], with the source of its
    /// figures in place of the measurements that it has none of.
    pub fn file(&self, fitted: CostModel) -> Result<String> {
        let about = &self.about;
        let made_from = MadeFrom {
            measurements_sha256: None,
            commit: None,
            at: about.at.clone(),
            source: Some(about.source.clone()),
        };
        let kind = match about.kind {
            Kind::Published => cost_model::Source::Published,
            Kind::Datasheet => cost_model::Source::Datasheet,
        };
        let machine = ModelMachine { source: kind, ..fitted.machine };
        let topology = about.topology.clone().or(fitted.topology);
        files::to_json(&CostModel { machine, made_from, topology, ..fitted }).map(|text| text + "\n")
    }

    /// Whether the folder's cost model is `content`, byte for byte; false where there is none.
    pub fn holds(&self, content: &str) -> Result<bool> {
        let path = self.path();
        if !path.exists() {
            return Ok(false);
        }
        files::read_text(&path).map(|there| there == content)
    }
}

fn machine(about: &About) -> MachineRecord {
    let run = RunInfo {
        id: about.name.clone(),
        commit: None,
        preset: flags::IMPORTED.into(),
        device: "cuda".into(),
        command: Vec::new(),
        started: about.at.clone(),
        case_definitions: None,
    };
    let mut origin = Origin::of_gpu(&about.device);
    for gpu in &mut origin.gpus {
        gpu.memory_bytes = about.memory_bytes.unwrap_or(0);
        gpu.sms = about.sms.unwrap_or(0);
        gpu.l2_bytes = about.l2_bytes.unwrap_or(0);
    }
    origin.machine(Some(about.name.clone()), run)
}
