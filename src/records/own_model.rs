//! Whether a cost model was fitted from the records beside it: such a one is made again at will, any other is somebody's only
//! copy and is never replaced or removed.

use super::files;
use super::store::{COST_MODEL, MACHINE, MEASUREMENTS};
use crate::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

/// Refuses a folder whose cost model was not fitted from the folder's own records, so that a new one would destroy it.
/// A folder without a cost model passes.
pub fn refuse_foreign_model(folder: &Path) -> Result<()> {
    refuse_foreign_file(&folder.join(COST_MODEL), folder, "give this one its own folder with --results")
}

/// Refuses a file that is there and is not a cost model fitted from the records of `folder`. `instead` says where else the
/// new model can be written.
pub fn refuse_foreign_file(file: &Path, folder: &Path, instead: &str) -> Result<()> {
    if !file.exists() || fitted_from(file, folder)? {
        return Ok(());
    }
    Err(Error::input(
        format!(
            "{} was not fitted from the measurements of {}, so it is neither replaced nor removed",
            file.display(),
            folder.display()
        ),
        format!("{instead}; `[hardware] cost_model = [\"a.json\", \"b.json\"]` in a job joins the two models"),
    ))
}

/// Whether the model was fitted from what `folder` holds now, or held when its last run began.
fn fitted_from(file: &Path, folder: &Path) -> Result<bool> {
    let Ok(model) = serde_json::from_str::<Value>(&files::read_text(file)?) else { return Ok(false) };
    let text = |pointer: &str| model.pointer(pointer).and_then(Value::as_str);
    let (Some(sha256), true) = (text("/made_from/measurements_sha256"), folder.join(MEASUREMENTS).exists()) else {
        return Ok(false);
    };
    let machine = fs::read_to_string(folder.join(MACHINE)).ok().and_then(|t| serde_json::from_str::<Value>(&t).ok());
    let name = machine.as_ref().and_then(|machine| machine.get("name")).and_then(Value::as_str);
    if name.is_none() || name != text("/machine/name") || text("/made_from/source").is_some() {
        return Ok(false);
    }
    let path = folder.join(MEASUREMENTS);
    let journal = fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
    Ok(grew_from(&journal, sha256) || text("/made_from/at").is_some_and(|at| has_line_of(&journal, at)))
}

/// Whether the journal, or what it was before lines were appended, has this SHA-256.
fn grew_from(journal: &[u8], sha256: &str) -> bool {
    let mut so_far = Sha256::new();
    journal.split_inclusive(|&byte| byte == b'\n').any(|line| {
        so_far.update(line);
        so_far.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>() == sha256
    })
}

/// A run that ended by writing its lines anew, and was killed before its fit, keeps the line that the last fit was dated by.
fn has_line_of(journal: &[u8], at: &str) -> bool {
    let mut lines = journal.split(|&byte| byte == b'\n');
    lines.any(|line| serde_json::from_slice::<Value>(line).is_ok_and(|line| line["at"] == at && line["kind"] != "end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(folder: &Path, name: &str, text: &str) {
        fs::write(folder.join(name), text).unwrap();
    }

    fn model(sha256: Option<&str>, machine: &str, at: &str) -> String {
        json!({"machine": {"name": machine}, "made_from": {"measurements_sha256": sha256, "at": at}}).to_string()
    }

    fn sha256(text: &str) -> String {
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_model_of_the_records_beside_it_is_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        assert!(refuse_foreign_model(here).is_ok(), "there is none");
        let old = "{\"kind\":\"layer\",\"at\":\"1\"}\n";
        let sha = sha256(old);
        write(here, COST_MODEL, &model(Some(&sha), "m", "1"));
        assert!(refuse_foreign_model(here).is_err(), "no measurements");
        write(here, MEASUREMENTS, old);
        write(here, MACHINE, r#"{"name":"m"}"#);
        assert!(refuse_foreign_model(here).is_ok(), "as it was fitted");
        write(here, MEASUREMENTS, &format!("{old}{{\"kind\":\"layer\",\"at\":\"2\"}}\n{{\"ki"));
        assert!(refuse_foreign_model(here).is_ok(), "lines came to it");
        let anew = "{\"at\":\"2\",\"kind\":\"layer\"}\n{\"at\":\"1\",\"kind\":\"layer\"}\n";
        write(here, MEASUREMENTS, anew);
        assert!(refuse_foreign_model(here).is_ok(), "written anew, with the line it was dated by");
        for (text, why) in [
            (model(Some(&sha), "other", "1"), "another machine's"),
            (model(Some(&sha), "m", "3"), "another run's"),
            (model(None, "m", "1"), "published"),
            ("{".into(), "cut off"),
        ] {
            write(here, COST_MODEL, &text);
            let error = refuse_foreign_model(here).unwrap_err().to_string();
            assert!(error.contains(COST_MODEL) && error.contains("--results") && error.contains("[hardware]"), "{why}");
        }
    }
}
