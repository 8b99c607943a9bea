//! Where the answer is read: how wide the terminal is, which characters it shows, and whether it may be drawn upon.

use crate::report::Screen;
use std::io::{IsTerminal, Write};

/// What stdout is, asked of the terminal and the environment once.
pub fn screen() -> Screen {
    let terminal = std::io::stdout().is_terminal();
    // The table's library knows how to ask each system.
    let columns = comfy_table::Table::new().width().map(usize::from);
    screen_of(terminal, columns, variable)
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A terminal is as wide as it says, and shows ASCII only unless the locale says more. A file or a pipe is as wide as
/// COLUMNS says, else as wide as the text, and holds every character unless the locale says less.
fn screen_of(terminal: bool, width: Option<usize>, variable: impl Fn(&str) -> Option<String>) -> Screen {
    let asked = variable("COLUMNS").and_then(|columns| columns.parse().ok());
    let columns = if terminal { width.or(asked).or(Some(Screen::NARROWEST)) } else { asked };
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
    let ascii = match locale.map(|locale| locale.to_lowercase()) {
        Some(locale) => !locale.contains("utf-8") && !locale.contains("utf8"),
        None => terminal,
    };
    Screen { columns: columns.map(|columns: usize| columns.max(Screen::NARROWEST)), ascii }
}

/// Whether stderr may be drawn upon, as a progress bar does: it is a terminal, and nobody set NO_COLOR.
pub fn may_draw() -> bool {
    std::io::stderr().is_terminal() && variable("NO_COLOR").is_none()
}

/// Whether a picture may be drawn over and over on stdout: it is a terminal that holds all of it, and nobody set NO_COLOR.
pub fn fits(picture: &str) -> bool {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() || variable("NO_COLOR").is_some() {
        return false;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok();
    size.is_some_and(|size| is_within(picture, size.ws_col.into(), size.ws_row.into()))
}

/// The line below it, which the cursor stands on, counts too.
fn is_within(picture: &str, columns: usize, rows: usize) -> bool {
    picture.lines().count() < rows && picture.lines().all(|line| line.chars().count() <= columns)
}

/// What stderr is, as [`screen`] is of stdout; its lines are as long as they need to be.
pub fn error_screen() -> Screen {
    Screen { columns: None, ..screen_of(std::io::stderr().is_terminal(), None, variable) }
}

/// A line on stderr that is no error and no result: `note: …`.
pub fn note(text: impl std::fmt::Display) {
    tell(&format!("note: {}", error_screen().text(&text.to_string())));
}

/// Writes a line to stderr. That it cannot be written is no reason to end: the answer is on stdout, and in the exit code.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(terminal: bool, width: Option<usize>, set: &[(&str, &str)]) -> Screen {
        let find = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_string());
        screen_of(terminal, width, find)
    }

    #[test]
    fn a_terminal_is_as_wide_as_it_says_and_never_narrow() {
        assert_eq!(of(true, Some(132), &[("COLUMNS", "90")]).columns, Some(132));
        assert_eq!(of(true, Some(20), &[]).columns, Some(80));
        assert_eq!(of(true, None, &[]).columns, Some(80));
        assert_eq!(of(false, None, &[]).columns, None);
        assert_eq!(of(false, None, &[("COLUMNS", "100")]).columns, Some(100));
        assert_eq!(of(false, None, &[("COLUMNS", "10")]).columns, Some(80));
        assert_eq!(of(false, None, &[("COLUMNS", "wide")]).columns, None);
    }

    #[test]
    fn a_picture_is_drawn_over_where_all_of_it_is_seen() {
        assert!(is_within("0123456789\nµ\n", 10, 3));
        assert!(!is_within("0123456789\nµ\n", 9, 3) && !is_within("0123456789\nµ\n", 10, 2));
    }

    #[test]
    fn the_locale_says_which_characters_are_shown() {
        assert!(of(true, None, &[]).ascii && !of(false, None, &[]).ascii);
        for terminal in [true, false] {
            assert!(of(terminal, None, &[("LANG", "C")]).ascii);
            assert!(!of(terminal, None, &[("LANG", "C.UTF-8")]).ascii);
            assert!(of(terminal, None, &[("LANG", "en_US.UTF-8"), ("LC_ALL", "POSIX")]).ascii);
            assert!(of(terminal, None, &[("LANG", "de_DE.utf8"), ("LC_CTYPE", "de_DE")]).ascii);
            assert!(!of(terminal, None, &[("LANG", "de_DE.utf8")]).ascii);
        }
    }
}
