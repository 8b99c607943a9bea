//! Values that an option knows by name: `--help` and the shell's completions list them, and a wrong one is answered by the
//! code that uses it, in one line with the nearest name.

use crate::nearest;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use std::ffi::OsStr;

/// Takes any text and says which there are.
#[derive(Debug, Clone)]
pub struct Known(Vec<&'static str>);

/// The names of a list in the code, each once.
pub fn known(names: impl IntoIterator<Item = &'static str>) -> Known {
    Known(nearest::once(names))
}

impl TypedValueParser for Known {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(|name| PossibleValue::new(*name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_once_and_others_are_left_to_who_uses_them() {
        let parser = known(["ring", "chain", "ring"]);
        let names: Vec<String> =
            parser.possible_values().into_iter().flatten().map(|v| v.get_name().to_string()).collect();
        assert_eq!(names, ["ring", "chain"]);
        let command = clap::Command::new("x");
        assert_eq!(parser.parse_ref(&command, None, OsStr::new("rign")).unwrap(), "rign");
    }
}
