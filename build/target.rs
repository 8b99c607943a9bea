//! Where cargo's target folder is, for what all profiles share. Cargo tells a build script only OUT_DIR. Its CACHEDIR.TAG is
//! no mark to look for: cargo writes one into a target folder that it made itself, and into no other. What tells is
//! where things lie:
//!
//! ```text
//! <target>/<profile>/build/<package>-<hash>/build-script-build    this program: for the host, so never below a triple
//! <target>/[<triple>/]<profile>/build/<package>-<hash>/out        OUT_DIR
//! ```
//!
//! (`build/<package>/<hash>/out/` for both in the layout that cargo is changing to.) With `build.build-dir` both lie in a
//! folder apart from the target folder. A cargo that builds programs names that one too: `<target>/<profile>` is on the
//! loader's path of whatever it starts. One that only checks does not, and then `cargo metadata` says what is configured;
//! it knows nothing of the command line, so `cargo check --config build.build-dir=…` is the one thing that goes unseen.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

/// The target folder of the build this build script runs in, or what could not be told.
pub fn folder(out: &Path) -> Result<PathBuf, String> {
    let script = env::current_exe().map_err(|e| format!("the build script's own path is not known: {e}"))?;
    let loader = match env::consts::OS {
        "windows" => "PATH",
        "macos" => "DYLD_FALLBACK_LIBRARY_PATH",
        _ => "LD_LIBRARY_PATH",
    };
    let loader: Vec<PathBuf> = env::var_os(loader).iter().flat_map(env::split_paths).collect();
    find(out, &script, &loader, || metadata().unwrap_or_default())
}

fn metadata() -> io::Result<String> {
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo).args(["metadata", "--no-deps", "--offline", "--format-version=1"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same from OUT_DIR, the build script's path, the loader's path and, if it is needed, `cargo metadata`'s answer.
pub fn find(
    out: &Path,
    script: &Path,
    loader: &[PathBuf],
    metadata: impl FnOnce() -> String,
) -> Result<PathBuf, String> {
    let unknown = |why: &str| {
        format!(
            "cannot tell cargo's target folder: {why} (OUT_DIR is {}, the build script {}). Build with cargo's own layout: \
             no build.build-dir, or one beside a target folder that cargo made",
            out.display(),
            script.display()
        )
    };
    // The system may tell the program's path with links followed and cargo the others without.
    let (out, script) = (real(out), real(script));
    let Some((folder, profile)) = parts(&script) else {
        return Err(unknown("the build script does not lie in <target>/<profile>/build"));
    };
    if !out.starts_with(folder) || parts(&out).is_none_or(|(_, of_out)| of_out != profile) {
        return Err(unknown("OUT_DIR and the build script do not lie below one folder, in the same profile"));
    }
    // Cargo's entries come first and end with those in this folder; behind them are those of whoever called cargo, which may
    // have been another cargo.
    let loader: Vec<PathBuf> = loader.iter().map(|entry| real(entry)).collect();
    let end = loader.iter().rposition(|entry| entry.starts_with(folder)).map_or(0, |last| last + 1);
    let named: Vec<&PathBuf> = loader[..end].iter().filter(|entry| entry.file_name() == Some(profile)).collect();
    if named.contains(&&folder.join(profile)) {
        return Ok(folder.to_path_buf());
    }
    if named.is_empty() {
        let text = metadata();
        // Of another folder it tells nothing: then this one was chosen on the command line. Before 1.91 there is no other.
        let apart = configured(&text, "build_directory").is_some_and(|build| real(&build) == folder);
        let target = configured(&text, "target_directory").filter(|_| apart);
        return Ok(target.unwrap_or_else(|| folder.to_path_buf()));
    }
    // `folder` is the build folder. Cargo locks what it writes to.
    let target = named.first().filter(|entry| entry.join(".cargo-lock").is_file()).and_then(|entry| entry.parent());
    target.map(Path::to_path_buf).ok_or_else(|| {
        unknown(&format!("{} is on the loader's path, and no folder that cargo has locked", named[0].display()))
    })
}

/// What is above `<profile>/build/…`, and the profile. The nearest `build`: a profile or a folder above may be called that too.
fn parts(path: &Path) -> Option<(&Path, &OsStr)> {
    let build = path.ancestors().skip(1).find(|folder| folder.file_name() == Some(OsStr::new("build")))?;
    let profile = build.parent()?;
    Some((profile.parent()?, profile.file_name()?))
}

/// A path in `cargo metadata`'s answer: JSON on one line, in which these two names stand for nothing else.
fn configured(text: &str, name: &str) -> Option<PathBuf> {
    let value = text.split_once(&format!("\"{name}\":\""))?.1.split('"').next()?;
    Some(PathBuf::from(value.replace("\\\\", "\\")))
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}
