//! `predict --batch`: every line of stdin is a question and gets one line on stdout, in order: the answer that
//! `predict --json` prints, or `{"error": …}`. A line that cannot be answered ends nothing.
//!
//! What stdin has is answered and written before more is waited for, so that a program may write one line and wait for its
//! answer; of many lines at once all cores answer some.

use super::question::{CollectiveQuestion, CorunQuestion, LayerQuestion, Question, Spelling};
use crate::cli::told;
use crate::cost::predict::{Answer, Predictor};
use crate::records::CostModel;
use crate::{Error, Result, nearest};
use rayon::prelude::*;
use schemars::schema_for;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::{ErrorKind, Read, Write};
use std::sync::Mutex;

/// Bytes read at once: what a pipe holds.
const CHUNK: usize = 1 << 16;
/// A question has at most a few hundred bytes; of a longer line than this nothing is kept.
const LONGEST: usize = 4 << 20;
/// Lines that one thread answers at a time.
const SHARE: usize = 64;

/// Answers `questions` line by line until they end, or nobody reads the answers.
pub fn run(model: &CostModel, mut questions: impl Read, mut answers: impl Write) -> Result<()> {
    let batch = Batch { model, predictors: Mutex::default() };
    let (mut read, mut lines) = (vec![0; CHUNK], Lines::default());
    loop {
        let length = match questions.read(&mut read) {
            Ok(length) => length,
            Err(source) if source.kind() == ErrorKind::Interrupted => continue,
            Err(source) => return Err(Error::io("read", "stdin", source)),
        };
        let ended = length == 0;
        lines.add(&read[..length]);
        let texts = batch.answers(&lines.complete(ended));
        lines.forget_complete(ended);
        // Flushed each time: answers do not wait for the next question.
        match texts.iter().try_for_each(|text| answers.write_all(text)).and_then(|()| answers.flush()) {
            Ok(()) if !ended => {}
            written => return told(written),
        }
    }
}

/// What was read, cut into lines.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
    /// The start of the line that `text` begins in was too long and is gone.
    cut: bool,
}

impl Lines {
    fn add(&mut self, read: &[u8]) {
        self.text.extend_from_slice(read);
    }

    /// The lines that are whole, without their ends: all where nothing more comes. `None` for one that is too long.
    fn complete(&self, ended: bool) -> Vec<Option<&[u8]>> {
        let text = &self.text[..self.length(ended)];
        if text.is_empty() {
            return if ended && self.cut { vec![None] } else { Vec::new() };
        }
        let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n');
        let whole = |(index, line): (usize, &'_ [u8])| line.len() <= LONGEST && !(self.cut && index == 0);
        lines.enumerate().map(|(index, line)| Some(line).filter(|line| whole((index, line)))).collect()
    }

    /// Keeps the line that has only begun, unless it is too long already.
    fn forget_complete(&mut self, ended: bool) {
        let length = self.length(ended);
        self.text.drain(..length);
        self.cut &= length == 0;
        if self.cut || self.text.len() > LONGEST {
            self.cut = true;
            self.text.clear();
        }
    }

    fn length(&self, ended: bool) -> usize {
        if ended { self.text.len() } else { memchr::memrchr(b'\n', &self.text).map_or(0, |end| end + 1) }
    }
}

/// A line that could not be answered.
#[derive(Serialize)]
struct Refused {
    error: String,
}

/// One model, and what each thread has worked out of it.
struct Batch<'a> {
    model: &'a CostModel,
    predictors: Mutex<Vec<Predictor<'a>>>,
}

impl Batch<'_> {
    /// The answers to these lines, some lines in each text.
    fn answers(&self, lines: &[Option<&[u8]>]) -> Vec<Vec<u8>> {
        match lines.len() {
            0 => Vec::new(),
            // Other threads are not woken for a few lines.
            1..=SHARE => vec![self.share(lines)],
            _ => lines.par_chunks(SHARE).map(|lines| self.share(lines)).collect(),
        }
    }

    fn share(&self, lines: &[Option<&[u8]>]) -> Vec<u8> {
        let free = self.predictors.lock().ok().and_then(|mut free| free.pop());
        let predictor = free.unwrap_or_else(|| Predictor::new(self.model));
        let mut text = Vec::with_capacity(lines.len() * 1024);
        for line in lines {
            let written = match self.answer(&predictor, *line) {
                Ok(answer) => serde_json::to_writer(&mut text, &answer),
                Err(error) => serde_json::to_writer(&mut text, &Refused { error: error.to_string() }),
            };
            // A vector takes everything, and an answer is numbers and names.
            debug_assert!(written.is_ok());
            text.push(b'\n');
        }
        if let Ok(mut free) = self.predictors.lock() {
            free.push(predictor);
        }
        text
    }

    fn answer(&self, predictor: &Predictor<'_>, line: Option<&[u8]>) -> Result<Answer> {
        let line = line.ok_or_else(|| {
            Error::input(format!("the line is longer than {} MiB", LONGEST >> 20), "write one question a line")
        })?;
        let question: Question = serde_json::from_slice(line).map_err(|error| wrong(line, &error))?;
        question.asked(self.model, Spelling::Keys)?.answer(predictor)
    }
}

/// What a question looks like.
const EXAMPLE: &str =
    r#"write one question a line, e.g. {"kind":"collective","operation":"all_reduce","ranks":8,"bytes":65536}"#;

/// What is wrong with a line that is no question, in the words of whoever wrote it.
fn wrong(line: &[u8], error: &serde_json::Error) -> Error {
    let text = match std::str::from_utf8(line) {
        Ok(text) if text.trim().is_empty() => return Error::input("the line is empty", EXAMPLE),
        Ok(text) => text,
        Err(error) => {
            let place = error.valid_up_to() + 1;
            return Error::input(format!("the line is no UTF-8 from its byte {place} on"), EXAMPLE);
        }
    };
    let object = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Error::input("the line is JSON, but no object", EXAMPLE),
        Err(error) => return Error::input(format!("the line is not JSON: {error}"), EXAMPLE),
    };
    let kinds = ["layer", "collective", "corun"];
    let Some(kind) = object.get("kind") else {
        return Error::input("the line has no \"kind\"", format!("give one of {}", kinds.join(", ")));
    };
    let keys = match kind.as_str() {
        Some("layer") => keys_of(schema_for!(LayerQuestion).get("properties")),
        Some("collective") => keys_of(schema_for!(CollectiveQuestion).get("properties")),
        Some("corun") => keys_of(schema_for!(CorunQuestion).get("properties")),
        Some(other) => return Error::input(format!("kind {other} is unknown"), nearest::cure(other, kinds)),
        None => return Error::input("kind is no text", format!("give one of {}", kinds.join(", "))),
    };
    wrong_key(kind, &object, &keys)
        .unwrap_or_else(|| Error::input(format!("the line is no question: {error}"), EXAMPLE))
}

fn keys_of(properties: Option<&Value>) -> Vec<String> {
    properties.and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

/// The first key that there is not, or whose value is not of its type.
fn wrong_key(kind: &Value, object: &Map<String, Value>, keys: &[String]) -> Option<Error> {
    object.iter().filter(|(key, _)| *key != "kind").find_map(|(key, value)| {
        if !keys.contains(key) {
            let cure = nearest::cure(key, keys.iter().map(String::as_str));
            return Some(Error::input(format!("key {key} is unknown"), cure));
        }
        let alone = serde_json::from_value::<Question>(json!({ "kind": kind, key: value }));
        let error = alone.err()?;
        Some(Error::input(
            format!("{key} cannot be read: {error}"),
            "`bubblebench schema question` says what each key holds",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines that come of these pieces, `-` for one that is too long.
    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for (index, piece) in pieces.iter().chain([&&b""[..]]).enumerate() {
            let ended = index == pieces.len();
            lines.add(piece);
            let found = lines.complete(ended);
            all.extend(found.iter().map(|l| l.map_or("-".into(), |l| String::from_utf8_lossy(l).into_owned())));
            lines.forget_complete(ended);
            assert!(lines.text.len() <= LONGEST);
        }
        all
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(lines(&[b"a\nb", b"c\n\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(lines(&[b"a\n"]), ["a"]);
        assert_eq!(lines(&[b"\n"]), [""]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn of_a_line_that_is_too_long_nothing_is_kept() {
        let much = vec![b'x'; LONGEST / 2 + 1];
        assert_eq!(lines(&[b"a\n", &much, &much, &much, &much, b"x\nb\n"]), ["a", "-", "b"]);
        assert_eq!(lines(&[&much, &much, &much]), ["-"]);
        assert_eq!(lines(&[&[&much[..], &much, b"\nb\n"].concat()]), ["-", "b"]);
    }
}
