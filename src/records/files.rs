//! Files that are whole or not there: temporary file, fsync, rename. JSON files say which schema they follow.

use super::schema;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `content` so that a reader, or a kill at any moment, sees the old file or the new one.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    write_atomic_with(path, |out| out.write_all(content))
}

/// Writes a file like [`write_atomic`], for content that is made as it is written: `content` gets the buffered
/// temporary file.
pub fn write_atomic_with(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    // What a link points to is replaced, not the link.
    let target = if path.is_symlink() { path.canonicalize().unwrap_or_else(|_| path.into()) } else { path.into() };
    let kind = fs::metadata(&target).ok().map(|there| there.file_type());
    if kind.is_some_and(|kind| !kind.is_file() && !kind.is_dir()) {
        return write_through(&target, content).map_err(|source| Error::io("write", path, source));
    }
    let path = target.as_path();
    let temporary = temporary_name(path)?;
    let write = || -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, File::create(&temporary)?);
        content(&mut out)?;
        out.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    write().map_err(|source| {
        // The cause is what the user needs; a leftover that cannot be removed is swept by the next run.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path, source)
    })
}

/// Writes into a device or a pipe, such as `/dev/stdout`, which no file can stand in for.
fn write_through(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, fs::OpenOptions::new().write(true).open(path)?);
    content(&mut out)?;
    out.flush()
}

/// Writes the files of a folder, names and texts. A new or empty folder is there whole or not at all; in one that holds these
/// files already each is replaced by itself. A folder that holds any other file is refused.
pub fn write_folder(folder: &Path, files: &[(String, String)]) -> Result<()> {
    let held = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(Error::io("write to", folder, source)),
    };
    let other: Vec<&str> =
        held.iter().map(String::as_str).filter(|name| !files.iter().any(|(own, _)| own == name)).collect();
    if !other.is_empty() {
        return Err(Error::input(
            format!("{} holds other files: {}", folder.display(), crate::nearest::some_of(other, 4)),
            "give a new or an empty folder",
        ));
    }
    if !held.is_empty() {
        return files.iter().try_for_each(|(name, text)| write_atomic(&folder.join(name), text.as_bytes()));
    }
    let temporary = temporary_name(folder)?;
    let write = || {
        fs::create_dir(&temporary).map_err(|source| Error::io("create", folder, source))?;
        files.iter().try_for_each(|(name, text)| write_atomic(&temporary.join(name), text.as_bytes()))?;
        fs::rename(&temporary, folder).and_then(|()| sync_folder(folder)).map_err(|e| Error::io("create", folder, e))
    };
    write().inspect_err(|_| {
        let _ = fs::remove_dir_all(&temporary);
    })
}

/// Writes the files, names and texts, into a folder that may hold others, each by [`write_atomic`]. The folder is made where it
/// is missing.
pub fn write_into(folder: &Path, files: &[(String, String)]) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
    files.iter().try_for_each(|(name, text)| write_atomic(&folder.join(name), text.as_bytes()))
}

/// Writes `value` as indented JSON with a newline behind it, by [`write_atomic`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = to_json(value)?;
    text.push('\n');
    write_atomic(path, text.as_bytes())
}

/// The value as one line of JSON, as [`to_json`] makes several.
pub fn to_line<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::bug(format!("a value cannot be written as JSON: {e}")))
}

/// The value as indented JSON. An error is this program's own fault: a value that JSON cannot hold.
pub fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::bug(format!("a value cannot be written as JSON: {e}")))
}

/// Reads a whole UTF-8 file; the error names its path.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::io("read", path, source))
}

/// Reads a JSON file of one kind (`cost_model`, `machine`, …); another kind or version is refused with the way out.
pub fn read_json<T: DeserializeOwned>(path: &Path, kind: &str) -> Result<T> {
    let text = read_text(path)?;
    if let Some(record) = read_at_once(&text, kind) {
        return Ok(record);
    }
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| {
        Error::input(
            format!("{} is not JSON: {e}", path.display()),
            format!("give a {kind} file written by bubblebench"),
        )
    })?;
    schema::check(&value, kind, &path.display().to_string())?;
    serde_json::from_value(value).map_err(|e| {
        Error::input(
            format!("{} does not follow {}: {e}", path.display(), schema::name(kind)),
            format!("compare it with `bubblebench schema {kind}`"),
        )
    })
}

/// The record of a file that is as it should be, without a tree of values in between, which would be half of what `predict`
/// does. What is wrong with any other file is found in the tree.
fn read_at_once<T: DeserializeOwned>(text: &str, kind: &str) -> Option<T> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: String,
    }
    let Head { schema } = serde_json::from_str(text).ok()?;
    schema::check(&serde_json::json!({ "schema": schema }), kind, "").ok()?;
    serde_json::from_str(text).ok()
}

/// Flushes the folder that holds `path` to disk, so that a file just created or renamed there survives a power cut.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn temporary_name(path: &Path) -> Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::input(format!("{} names no file", path.display()), "give the path of a file"))?;
    Ok(path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id())))
}

/// Removes temporary files that processes which are gone left in the folder; returns how many.
pub fn sweep_temporaries(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner =
                name.strip_suffix(".tmp").and_then(|n| n.rsplit('.').next()).and_then(|pid| pid.parse::<u32>().ok());
            name.starts_with('.')
                && owner.is_some_and(|pid| !process_lives(pid))
                && fs::remove_file(entry.path()).is_ok()
        })
        .count()
}

/// Only Linux tells without unsafe code; elsewhere a temporary file is taken to be left over, as runs hold a lock.
fn process_lives(pid: u32) -> bool {
    cfg!(target_os = "linux") && pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_written_whole_and_never_over_other_files() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("made");
        let files = |text: &str| [("a.json", text), ("b.json", text)].map(|(n, t)| (n.to_string(), t.to_string()));
        write_folder(&folder, &files("one")).unwrap();
        write_folder(&folder, &files("two")).unwrap();
        assert_eq!(fs::read_to_string(folder.join("b.json")).unwrap(), "two");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        fs::write(folder.join("mine.txt"), "x").unwrap();
        let error = write_folder(&folder, &files("three")).unwrap_err().to_string();
        assert!(error.contains("holds other files: mine.txt"), "{error}");
        assert_eq!(fs::read_to_string(folder.join("a.json")).unwrap(), "two");
        assert!(write_folder(&folder.join("a.json"), &files("x")).is_err());
    }

    #[test]
    fn leftovers_of_dead_processes_are_swept_and_others_kept() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".a.json.4000000000.tmp", "mine.tmp", "b.json"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(sweep_temporaries(folder.path()), 1);
        assert!(folder.path().join("mine.tmp").exists() && folder.path().join("b.json").exists());
    }

    #[test]
    fn later_versions_and_other_kinds_are_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later.json");
        fs::write(&path, r#"{"schema":"bubblebench.cost_model/99"}"#).unwrap();
        let error = read_json::<serde_json::Value>(&path, "cost_model").unwrap_err().to_string();
        assert!(error.contains("later.json") && error.contains("/99"), "{error}");
        fs::write(&path, "not json").unwrap();
        assert!(read_json::<serde_json::Value>(&path, "cost_model").unwrap_err().to_string().contains("is not JSON"));
    }
}
