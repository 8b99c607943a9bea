//! What the reader's screen can show: how wide a line may be, and which characters. The command line finds it out; all that
//! is printed for people is laid out for one of these values, here and in [`super::table`].

use std::borrow::Cow;

/// Where the text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Screen {
    /// Characters that a line may have; none in a file or a pipe, where a line is as long as it needs to be.
    pub columns: Option<usize>,
    /// Whether nothing but ASCII can be shown.
    pub ascii: bool,
}

/// Characters of our tables, timelines and units, and what stands for each on a screen that shows ASCII only.
const IN_ASCII: [(char, &str); 17] = [
    ('±', "+-"),
    ('µ', "u"),
    ('μ', "u"),
    ('×', "x"),
    ('÷', "/"),
    ('·', "."),
    ('–', "-"),
    ('—', "-"),
    ('−', "-"),
    ('…', "..."),
    ('→', "->"),
    ('≤', "<="),
    ('≥', ">="),
    ('°', ""),
    ('█', "#"),
    ('▇', "#"),
    ('│', "|"),
];

impl Screen {
    /// No screen is taken to be narrower: every number has its place in so many columns.
    pub const NARROWEST: usize = 80;

    /// Characters of a picture where the width is not known.
    pub const PICTURE: usize = 100;

    /// A screen of so many columns that shows every character.
    pub const fn wide(columns: usize) -> Screen {
        Screen { columns: Some(columns), ascii: false }
    }

    /// How many characters wide a picture is drawn.
    pub fn picture_columns(self) -> usize {
        self.columns.unwrap_or(Screen::PICTURE)
    }

    /// Whether so many characters are too many for a line.
    pub fn is_narrower_than(self, characters: usize) -> bool {
        self.columns.is_some_and(|columns| columns < characters)
    }

    /// The text in characters that the screen shows. Names that users gave keep theirs.
    pub fn text(self, text: &str) -> String {
        let text = harmless(text);
        if !self.ascii || text.is_ascii() {
            return text.into_owned();
        }
        let shown = |c: char| IN_ASCII.iter().find(|(known, _)| *known == c).map(|(_, ascii)| *ascii);
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match shown(c) {
                Some(ascii) => out.push_str(ascii),
                None => out.push(c),
            }
        }
        out
    }

    /// Sentences: each line is broken at blanks where it is too long, and goes on `hang` blanks further in than it began.
    /// A word is never broken.
    pub fn prose(self, text: &str, hang: usize) -> String {
        self.broken(text, " ", hang)
    }

    /// A command for a shell, broken so that it can still be pasted: a backslash ends a line that goes on.
    pub fn command(self, text: &str, hang: usize) -> String {
        let narrow = Screen { columns: self.columns.map(|columns| columns.saturating_sub(2)), ..self };
        let ends = |(index, line): (usize, &str)| if index == 0 { line.to_string() } else { format!(" \\\n{line}") };
        narrow.prose(text, hang).lines().enumerate().map(ends).collect::<String>() + "\n"
    }

    /// A line of entries that `between` keeps apart, such as the two blanks in a picture's key: broken between entries only.
    pub fn broken(self, text: &str, between: &str, hang: usize) -> String {
        let text = self.text(text);
        let Some(columns) = self.columns else { return text };
        text.split_inclusive('\n').map(|line| fill(line, between, columns, hang)).collect()
    }
}

/// What a line may be broken between. A number stays with its unit.
/// The text without what a terminal takes for commands: control characters, and those that turn the direction of writing, which
/// names in files may hold. Each is a question mark; a line's end stays.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let commands =
        |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().any(commands) { text.replace(commands, "?").into() } else { text.into() }
}

fn entries(line: &str, between: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for entry in line.split(between) {
        let number =
            |last: &String| last.starts_with(|c: char| "+-0123456789".contains(c)) && last.parse::<f64>().is_ok();
        match entries.last_mut().filter(|last| number(last) && !entry.is_empty()) {
            Some(last) => *last += &format!("{between}{entry}"),
            None => entries.push(entry.to_string()),
        }
    }
    entries
}

fn fill(line: &str, between: &str, columns: usize, hang: usize) -> String {
    if line.trim_end_matches('\n').chars().count() <= columns {
        return line.to_string();
    }
    let begin = line.chars().take_while(|c| *c == ' ').count();
    let (mut out, mut used) = (" ".repeat(begin), begin);
    let mut first = true;
    for word in entries(&line[begin..], between) {
        let length = word.trim_end_matches('\n').chars().count();
        if !first && used + between.len() + length > columns && length > 0 {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(&" ".repeat(begin + hang));
            used = begin + hang;
        } else if !first {
            out.push_str(between);
            used += between.len();
        }
        out.push_str(&word);
        used += length;
        first = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_command_the_terminal() {
        assert_eq!(Screen::default().text("a\u{1b}[2Jb\u{9b}c\u{202e}d\ne\0"), "a?[2Jb?c?d\ne?");
        assert_eq!(Screen { columns: None, ascii: true }.text("\u{7}µ"), "?u");
    }

    #[test]
    fn lines_are_broken_between_words_only() {
        let screen = Screen::wide(20);
        assert_eq!(
            screen.prose("a line that is longer than twenty\nshort\n", 2),
            "a line that is\n  longer than twenty\nshort\n"
        );
        let word = "a-word-of-more-than-twenty-characters";
        assert_eq!(screen.prose(&format!("  see {word} there"), 0), format!("  see\n  {word}\n  there"));
        assert_eq!(screen.prose("net  1.495: zb-h2 alone would", 5), "net  1.495: zb-h2\n     alone would");
        assert_eq!(screen.prose("it takes at most 50.5 µs there", 0), "it takes at most\n50.5 µs there");
        let key = "F forward  B backward to inputs";
        assert_eq!(screen.broken(key, "  ", 1), "F forward\n B backward to inputs");
        assert_eq!(Screen::default().prose(&word.repeat(9), 0), word.repeat(9));
        assert_eq!(Screen::wide(18).command("  pip install a-package", 4), "  pip install \\\n      a-package\n");
    }

    #[test]
    fn every_sign_has_its_ascii() {
        let ascii = Screen { columns: None, ascii: true };
        assert_eq!(ascii.text("56.7 µs ±3.3% ×1.45 – │F·█│"), "56.7 us +-3.3% x1.45 - |F.#|");
        assert_eq!(ascii.text("naïve.toml"), "naïve.toml");
        assert_eq!(Screen::default().text("±"), "±");
    }
}
