//! Which schema a file follows: `"schema": "bubblebench.<kind>/<version>"` in every file, checked before anything else is
//! read.

use crate::{Error, Result};
use serde_json::Value;

/// Version of a file format that this program writes, and the highest one it reads.
pub fn version(kind: &str) -> u32 {
    match kind {
        "cost_model" | "measurement" | "plan" | "sweep" => 2,
        _ => 1,
    }
}

/// Lowest version of a file format that this program reads. What it read before and reads no more lacks what cannot be
/// supplied: plans and sweeps of version 1 had no intervals.
pub fn oldest(kind: &str) -> u32 {
    match kind {
        "plan" | "sweep" => 2,
        _ => 1,
    }
}

/// What stands in a file's `schema` field: `bubblebench.KIND/VERSION`.
pub fn name(kind: &str) -> String {
    format!("bubblebench.{kind}/{}", version(kind))
}

/// Refuses a file of another kind or version, naming both and what to do.
pub fn check(value: &Value, kind: &str, place: &str) -> Result<()> {
    let wanted = name(kind);
    let Some(found) = value.get("schema").and_then(Value::as_str) else {
        return Err(Error::input(
            format!("{place} has no \"schema\" field, so it is not a {kind} file"),
            format!("give a file whose schema is {wanted}"),
        ));
    };
    let prefix = format!("bubblebench.{kind}/");
    Err(match found.strip_prefix(&prefix).and_then(|v| v.parse::<u32>().ok()) {
        Some(1..) if found == wanted => return Ok(()),
        Some(earlier) if (oldest(kind)..version(kind)).contains(&earlier) => return Ok(()),
        Some(earlier) if (1..oldest(kind)).contains(&earlier) => Error::input(
            format!("{place} has schema {found}, which lacks what this program reads in {wanted}"),
            "make the file again with this version of bubblebench",
        ),
        Some(newer) if newer > version(kind) => Error::input(
            format!("{place} has schema {found}, this program reads up to {wanted}"),
            "update bubblebench, or make the file again with this version",
        ),
        _ => Error::input(format!("{place} has schema {found}, not {wanted}"), format!("give a {kind} file")),
    })
}
