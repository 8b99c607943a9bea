//! Errors a person can act on: one line that says what went wrong, where, and what to do.
//!
//! Exit code 2 says that the input or the machine is at fault, 101 that this program is: [`Error::Bug`], or a panic.

use std::path::{Path, PathBuf};

/// A result whose error is [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the text of [`Error::Bug`] ends with: the user cannot mend it, but can report it.
pub const REPORT: &str = "this is a bug in bubblebench: report it with this line, the command line and what `bubblebench doctor --json` says";

/// Why something could not be done. Its text is one line: what went wrong, then what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user gave something that cannot be used: a flag, a shape, a file's content.
    #[error("{what}; {cure}")]
    Input {
        /// What was given, and why it cannot be used.
        what: String,
        /// What the user can give instead.
        cure: String,
    },
    /// The machine lacks something: a device, a library, memory.
    #[error("{what}; {cure}")]
    Machine {
        /// What the machine lacks.
        what: String,
        /// What to install, set or choose instead.
        cure: String,
    },
    /// A kernel failed on the GPU, which answers this process no more.
    #[error("{what}; {cure}")]
    Gpu {
        /// What failed on the GPU.
        what: String,
        /// What to do before the next run.
        cure: String,
    },
    /// A rank died, hung or left: the run is over on all of them.
    #[error("{what}; {cure}")]
    Rank {
        /// Which rank was lost, and doing what.
        what: String,
        /// How to start the ranks again.
        cure: String,
    },
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}; {}", path.display(), io_cure(source))]
    Io {
        /// What was tried, as a verb: `read`, `write`, `create`, …
        action: &'static str,
        /// The file or folder that it was tried on.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Ctrl-C or SIGTERM: what was measured is on disk.
    #[error("interrupted; what was measured is kept, run the same command again to go on")]
    Interrupted,
    /// This program is at fault: what cannot happen did.
    #[error("{what}; {REPORT}")]
    Bug {
        /// What happened that cannot happen.
        what: String,
    },
}

impl Error {
    /// The program's exit code where this error ends it: 101 for a bug, else 2.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Error::Bug { .. } => 101,
            _ => 2,
        }
    }

    /// Makes an [`Error::Input`] of both texts, each put on one line.
    pub fn input(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Error::Input { what: one_line(what.into()), cure: one_line(cure.into()) }
    }

    /// Makes an [`Error::Machine`] of both texts, each put on one line.
    pub fn machine(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Error::Machine { what: one_line(what.into()), cure: one_line(cure.into()) }
    }

    /// Makes an [`Error::Gpu`] of both texts, each put on one line.
    pub fn gpu(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Error::Gpu { what: one_line(what.into()), cure: one_line(cure.into()) }
    }

    /// Makes an [`Error::Rank`] of both texts, each put on one line.
    pub fn rank(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Error::Rank { what: one_line(what.into()), cure: one_line(cure.into()) }
    }

    /// Makes an [`Error::Bug`] of the text, put on one line.
    pub fn bug(what: impl Into<String>) -> Self {
        Error::Bug { what: one_line(what.into()) }
    }

    /// Makes an [`Error::Io`]: `action` is a verb that makes sense between "cannot" and the path.
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
        StorageFull | QuotaExceeded => "free some space and run the same command again",
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
