//! The commit this program is built from, which every run's record names.

use std::path::PathBuf;
use std::process::Command;

/// Sets BUBBLEBENCH_COMMIT where this is a checkout; in a packaged crate there is none.
pub fn tell_cargo() {
    if !PathBuf::from(".git").exists() {
        return;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    // Written at every commit, checkout and reset.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]).map(PathBuf::from).filter(|path| path.is_file());
    if let (Some(commit), Some(log)) = (git(&["rev-parse", "HEAD"]), log) {
        println!("cargo:rustc-env=BUBBLEBENCH_COMMIT={commit}");
        println!("cargo:rerun-if-changed={}", log.display());
    }
}
