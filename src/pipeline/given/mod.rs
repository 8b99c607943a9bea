//! A schedule that somebody else made: a JSON list of operations, read and checked. It may be written by hand, by another
//! planner, or by `simulate` or `plan` with `--json --operations`.
//!
//! ```text
//! read (JSON: entries, and what the file says of them) ─► check (whole, in order, in pairs) ─► place (which chunk follows which)
//! ```
//!
//! What a list must hold: docs/pipeline.md.

mod check;
mod place;
mod read;

use super::schedule::Schedule;
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Reads a schedule from a JSON file of operations. Fails if the file cannot be read, or if what it holds is no schedule
/// that can run to its end; the error names the file and the operation.
pub fn read(path: &Path) -> Result<Schedule> {
    let kind = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
    // A pipe that nobody writes to would be waited for without end.
    if !kind.is_file() && !kind.is_dir() {
        return Err(Error::input(format!("{} is not a file", path.display()), "give a JSON file of operations"));
    }
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    parse(path, BufReader::with_capacity(1 << 16, file))
}

/// Reads a schedule like [`read()`], from anything that holds the JSON; `path` is what errors call it.
pub fn parse(path: &Path, json: impl Read) -> Result<Schedule> {
    let found = read::entries(path, json)?;
    let mistake = |(what, cure): Mistake| Error::input(format!("{}: {what}", path.display()), cure);
    let listed = check::check(&found).map_err(mistake)?;
    place::place(listed, found.says).map_err(|e| match e {
        Error::Input { what, cure } => Error::input(format!("{}: {what}", path.display()), cure),
        other => other,
    })
}

/// What is wrong with a list, and what to do: the two halves of an error message.
type Mistake = (String, String);

impl Schedule {
    /// That the stages wait for each other in a circle, so that the operation with this index never starts on this stage.
    pub(super) fn never_starts(&self, stage: usize, index: usize) -> Error {
        place::never_starts(self, stage, index)
    }
}
