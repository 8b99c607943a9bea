//! Errors a person can act on: one line that says what went wrong, where, and what to do.
//!
//! Exit code 2 says that the input or the machine is at fault, 101 that this program is: [`Error::Bug`], or a panic.

use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What stands behind a bug's own sentence, and who found it cannot mend it.
pub const REPORT: &str = "this is a bug in bubblebench: report it with this line, the command line and what `bubblebench doctor --json` says";

/// Why something could not be done. Its text is one line: what went wrong, then what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user gave something that cannot be used: a flag, a shape, a file's content.
    #[error("{what}; {cure}")]
    Input { what: String, cure: String },
    /// The machine lacks something: a device, a library, memory.
    #[error("{what}; {cure}")]
    Machine { what: String, cure: String },
    /// A kernel failed on the GPU, which answers this process no more.
    #[error("{what}; {cure}")]
    Gpu { what: String, cure: String },
    /// A rank died, hung or left: the run is over on all of them.
    #[error("{what}; {cure}")]
    Rank { what: String, cure: String },
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}; {}", path.display(), io_cure(source))]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// Ctrl-C or SIGTERM: what was measured is on disk.
    #[error("interrupted; what was measured is kept, run the same command again to go on")]
    Interrupted,
    /// This program is at fault: what cannot happen did.
    #[error("{what}; {REPORT}")]
    Bug { what: String },
}

impl Error {
    /// The program's exit code where this error ends it.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Error::Bug { .. } => 101,
            _ => 2,
        }
    }

    pub fn input(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Error::Input { what: one_line(what.into()), cure: one_line(cure.into()) }
    }

    pub fn machine(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Error::Machine { what: one_line(what.into()), cure: one_line(cure.into()) }
    }

    pub fn gpu(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Error::Gpu { what: one_line(what.into()), cure: one_line(cure.into()) }
    }

    pub fn rank(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Error::Rank { what: one_line(what.into()), cure: one_line(cure.into()) }
    }

    pub fn bug(what: impl Into<String>) -> Self {
        Error::Bug { what: one_line(what.into()) }
    }

    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { action, path: path.as_ref().to_path_buf(), source }
    }
}

/// Causes from parsers may span lines; a user's script reads one.
fn one_line(text: String) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn io_cure(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match source.kind() {
        NotFound => "check the path",
        PermissionDenied | ReadOnlyFilesystem => "choose a folder you may write to, or fix its permissions",
        StorageFull | QuotaExceeded => "free some space and run the same command again; what was measured is kept",
        NotADirectory => "a file stands where a folder is needed: remove it or choose another path",
        IsADirectory => "a folder stands where a file is needed: choose another path",
        AlreadyExists => "remove it or choose another path",
        _ => "the cause is named before this",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_a_cure() {
        let e = Error::input("bad\n  thing", "do\nthis");
        assert_eq!(e.to_string(), "bad thing; do this");
        let e = Error::io("read", "x/y", std::io::Error::from(std::io::ErrorKind::NotFound));
        assert!(e.to_string().starts_with("cannot read x/y: "));
        assert!(!e.to_string().contains('\n'));
        assert_eq!(e.exit_code(), 2);
    }

    #[test]
    fn a_bug_says_what_to_report_and_is_told_apart_by_its_exit_code() {
        let bug = Error::bug("a rank gave\nno answer");
        assert_eq!(bug.exit_code(), 101);
        let text = bug.to_string();
        assert!(text.starts_with("a rank gave no answer; this is a bug") && text.contains("doctor --json"), "{text}");
    }
}
