//! What `--schedule` asks for: a schedule by its name, or a file of operations.

use crate::Result;
use crate::pipeline::ScheduleName;
use std::path::PathBuf;

#[derive(Debug, PartialEq)]
pub enum Asked {
    Name(ScheduleName),
    File(PathBuf),
}

/// What ends in `.json` or has a folder in front is a file; anything else is a name, and a wrong one is answered with the
/// nearest.
pub fn asked(text: &str) -> Result<Asked> {
    if text.ends_with(".json") || text.contains(['/', std::path::MAIN_SEPARATOR]) {
        return Ok(Asked::File(text.into()));
    }
    ScheduleName::parse(text).map(Asked::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_files_are_told_apart() {
        assert_eq!(asked("zb-h1").unwrap(), Asked::Name(ScheduleName::ZbH1));
        assert_eq!(asked("zb-h1.json").unwrap(), Asked::File("zb-h1.json".into()));
        assert_eq!(asked("./zb-h1").unwrap(), Asked::File("./zb-h1".into()));
        assert!(asked("zb-h3").unwrap_err().to_string().contains("did you mean `zb-h1`"));
    }
}
