//! The commit this program is built from, so that records name it on machines that have no repository.

use std::process::Command;

/// Tells cargo the commit (`-dirty` behind it where files differ from it), and to look again when HEAD moves.
pub fn tell_cargo() {
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        println!("cargo:warning=git names no commit here: what this program measures will name none either");
        return;
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", "src", "cuda", "benches", "Cargo.toml"]);
    if changed.is_none() {
        println!(
            "cargo:warning=git status fails: whether files differ from the commit is not known, so they count as changed"
        );
    }
    let dirty = if changed.is_none_or(|files| !files.is_empty()) { "-dirty" } else { "" };
    println!("cargo:rustc-env=BUBBLEBENCH_COMMIT={commit}{dirty}");
    // The mark depends on these files; the crate is compiled again only if it changes.
    for path in ["src", "benches", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={path}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
