//! What the sides of a comparison are: results folders, cost models or plans, read and named.

use crate::cli::results::read_measured;
use crate::cli::terminal::note;
use crate::compare::measured::{MeasuredRun, MeasuredSide};
use crate::compare::models::ModelSide;
use crate::compare::plans::PlanSideFile;
use crate::records::store::{COST_MODEL, MEASUREMENTS};
use crate::records::{CostModel, files};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The sides, all of one kind.
pub enum Sides {
    /// Results folders.
    Measured(Vec<MeasuredSide>),
    /// Cost models.
    Models(Vec<ModelSide>),
    /// Plans.
    Plans(Vec<PlanSideFile>),
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KindOfSide {
    Measurements,
    CostModel,
    Plan,
}

impl KindOfSide {
    const fn name(self) -> &'static str {
        match self {
            KindOfSide::Measurements => "measurements",
            KindOfSide::CostModel => "a cost model",
            KindOfSide::Plan => "a plan",
        }
    }
}

/// Reads the sides as they were named on the command line. It is an error where one cannot be read, where they are of
/// different kinds, and where cost models or plans are joined by commas.
pub fn read(named: &[String]) -> Result<Sides> {
    let paths: Vec<Vec<PathBuf>> = named.iter().map(|side| paths(side)).collect::<Result<_>>()?;
    let first = kind_of(&paths[0][0])?;
    for path in paths.iter().flatten().skip(1) {
        let kind = kind_of(path)?;
        if kind != first {
            return Err(Error::input(
                format!("{} is {}, {} is {}", paths[0][0].display(), first.name(), path.display(), kind.name()),
                "compare sides of one kind; the cost model of a results folder is DIR/cost_model.json",
            ));
        }
    }
    if first != KindOfSide::Measurements
        && let Some(side) = paths.iter().position(|runs| runs.len() > 1)
    {
        return Err(Error::input(
            format!("{} joins files that are no repeated runs", named[side]),
            "commas join results folders only: name cost models and plans one by one",
        ));
    }
    let sides = short_names(&paths).into_iter().zip(&paths);
    let read = match first {
        KindOfSide::Measurements => {
            Sides::Measured(sides.map(|(name, paths)| measured(name, paths)).collect::<Result<_>>()?)
        }
        KindOfSide::CostModel => {
            Sides::Models(sides.map(|(name, paths)| model(name, &paths[0])).collect::<Result<_>>()?)
        }
        KindOfSide::Plan => Sides::Plans(sides.map(|(name, paths)| plan(name, &paths[0])).collect::<Result<_>>()?),
    };
    note_shared_runs(&paths);
    Ok(read)
}

/// A run on both sides pulls their ratio towards 1. A side beside itself is a test of the program.
fn note_shared_runs(sides: &[Vec<PathBuf>]) {
    let reference: BTreeSet<PathBuf> = sides[0].iter().filter_map(|path| file_of(path).ok()).collect();
    for path in sides[1..].iter().flatten() {
        if file_of(path).is_ok_and(|file| reference.contains(&file)) {
            note(format_args!("{} is on both sides", path.display()));
        }
    }
}

/// The paths of a side. A path that exists as it was written is one, whatever commas it has.
fn paths(side: &str) -> Result<Vec<PathBuf>> {
    if Path::new(side).exists() {
        return Ok(vec![side.into()]);
    }
    let paths: Vec<PathBuf> = side.split(',').map(PathBuf::from).collect();
    let mut seen = BTreeSet::new();
    for path in &paths {
        if path.as_os_str().is_empty() {
            return Err(Error::input(
                format!("`{side}` joins a path to nothing"),
                "write repeated runs as a1,a2,a3, without blanks",
            ));
        }
        if !seen.insert(file_of(path)?) {
            return Err(Error::input(
                format!("`{side}` names {} twice", path.display()),
                "a run counts once: the same samples again would pass for certainty",
            ));
        }
    }
    Ok(paths)
}

/// The file that a path means, whatever it is called by: of a folder its measurements.
fn file_of(path: &Path) -> Result<PathBuf> {
    let own = path.canonicalize().map_err(|source| Error::io("read", path, source))?;
    Ok(if own.is_dir() { own.join(MEASUREMENTS) } else { own })
}

fn kind_of(path: &Path) -> Result<KindOfSide> {
    if path.is_dir() {
        return match (path.join(MEASUREMENTS).exists(), path.join(COST_MODEL).exists()) {
            (true, _) => Ok(KindOfSide::Measurements),
            (false, true) => Ok(KindOfSide::CostModel),
            (false, false) => Err(Error::input(
                format!("{} holds neither {MEASUREMENTS} nor {COST_MODEL}", path.display()),
                "give a folder that `cargo bench`, `bubblebench measure` or `bubblebench import` wrote",
            )),
        };
    }
    if path.extension().is_some_and(|extension| extension == "jsonl") {
        return Ok(KindOfSide::Measurements);
    }
    let text = files::read_text(path)?;
    let value: Option<Value> = serde_json::from_str(&text).ok();
    let schema = value.as_ref().and_then(|value| value.get("schema")).and_then(Value::as_str).unwrap_or_default();
    match schema.split('/').next().unwrap_or_default() {
        "bubblebench.cost_model" => Ok(KindOfSide::CostModel),
        "bubblebench.plan" => Ok(KindOfSide::Plan),
        "bubblebench.measurement" => Ok(KindOfSide::Measurements),
        _ => Err(Error::input(
            format!("{} is no measurements.jsonl, cost model or plan", path.display()),
            "give results folders, cost models (`bubblebench fit`) or plans (`bubblebench plan --json`)",
        )),
    }
}

fn measured(name: String, paths: &[PathBuf]) -> Result<MeasuredSide> {
    Ok(MeasuredSide { name, runs: paths.iter().map(|path| measured_run(path)).collect::<Result<_>>()? })
}

fn measured_run(path: &Path) -> Result<MeasuredRun> {
    let (machine, journal) = read_measured(path)?;
    Ok(MeasuredRun { machine, measurements: journal.measurements })
}

fn model(name: String, path: &Path) -> Result<ModelSide> {
    let file = if path.is_dir() { path.join(COST_MODEL) } else { path.to_path_buf() };
    let model: CostModel = files::read_json(&file, "cost_model")?;
    Ok(ModelSide { name, model })
}

fn plan(name: String, path: &Path) -> Result<PlanSideFile> {
    Ok(PlanSideFile { name, plan: files::read_json(path, "plan")? })
}

/// What the sides are called: the shortest end of each path that tells it from all others, of repeated runs the first with
/// how many there are.
pub fn short_names(sides: &[Vec<PathBuf>]) -> Vec<String> {
    let first = |runs: &Vec<PathBuf>| -> Vec<String> {
        let parts = runs[0].components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let mut parts: Vec<String> = parts.filter(|part| part != "/").collect();
        if parts.len() > 1 && parts.last().is_some_and(|last| [MEASUREMENTS, COST_MODEL].contains(&last.as_str())) {
            parts.pop();
        }
        parts
    };
    let parts: Vec<Vec<String>> = sides.iter().map(first).collect();
    let ends = |count: usize| -> Vec<String> {
        parts.iter().map(|parts| parts[parts.len().saturating_sub(count)..].join("/")).collect()
    };
    let longest = parts.iter().map(Vec::len).max().unwrap_or(1);
    let distinct = (1..=longest).find(|&count| ends(count).into_iter().collect::<BTreeSet<_>>().len() == parts.len());
    let mut names = ends(distinct.unwrap_or(1));
    for (at, (name, runs)) in names.iter_mut().zip(sides).enumerate() {
        if runs.len() > 1 {
            *name = format!("{name} ×{}", runs.len());
        }
        if distinct.is_none() {
            // One path twice: the place tells them apart.
            *name = format!("{name} ({})", at + 1);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sides: &[&str]) -> Vec<String> {
        let paths = |side: &&str| side.split(',').map(PathBuf::from).collect();
        short_names(&sides.iter().map(paths).collect::<Vec<Vec<PathBuf>>>())
    }

    #[test]
    fn sides_are_called_by_what_tells_them_apart() {
        assert_eq!(names(&["results/before", "results/after/"]), ["before", "after"]);
        assert_eq!(names(&["/a/x/run", "/b/x/run"]), ["a/x/run", "b/x/run"]);
        assert_eq!(names(&["a/cost_model.json", "b/cost_model.json"]), ["a", "b"]);
        assert_eq!(names(&["r/a1,r/a2,r/a3", "r/b"]), ["a1 ×3", "b"]);
        assert_eq!(names(&["same", "same"]), ["same (1)", "same (2)"]);
    }
}
