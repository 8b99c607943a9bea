//! JSON read piece by piece: memory does not grow with the file, nor with a string or a nesting in it.
//!
//! Not a parser of values: the caller asks for what it expects and skips the rest. What is skipped is checked for
//! balance only.

use memchr::{memchr2, memchr3};
use std::io::Read;

/// Why reading stopped. `at` is the place in bytes from the start of the text, unpacked where it was gzip.
#[derive(Debug)]
pub enum JsonFault {
    /// The source could not be read, or its gzip data could not be unpacked.
    Read(std::io::Error),
    /// The text ended where something more must come.
    Cut {
        /// Bytes from the start of the text.
        at: u64,
    },
    /// Something stands there that does not belong.
    Wrong {
        /// Bytes from the start of the text.
        at: u64,
        /// What is wrong, as the end of an error message.
        what: &'static str,
    },
    /// A string is longer than the reader accepts.
    Long {
        /// Bytes from the start of the text to the string.
        at: u64,
        /// The most bytes that are accepted.
        most: usize,
    },
}

type Result<T> = std::result::Result<T, JsonFault>;

/// Bytes read at a time.
const CHUNK: usize = 1 << 18;
/// Lists and objects within one another; a trace has four.
const DEEPEST: usize = 512;

/// A reader over JSON text that gives out one token at a time and holds one piece of the text in memory.
pub struct Json<R> {
    source: R,
    buffer: Box<[u8]>,
    filled: usize,
    at: usize,
    /// Bytes of the text before the buffer.
    before: u64,
}

impl<R: Read> Json<R> {
    /// Reads JSON from its start; the source need not be buffered.
    pub fn new(source: R) -> Self {
        Json { source, buffer: vec![0; CHUNK].into(), filled: 0, at: 0, before: 0 }
    }

    /// Bytes of the text used so far.
    pub fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// Returns the error [`JsonFault::Wrong`] at the present place; `what` says what is wrong.
    pub fn wrong<T>(&self, what: &'static str) -> Result<T> {
        Err(JsonFault::Wrong { at: self.offset(), what })
    }

    /// The bytes not yet used; none at the end of the text only.
    fn rest(&mut self) -> Result<&[u8]> {
        if self.at == self.filled {
            self.before += self.filled as u64;
            (self.at, self.filled) = (0, 0);
            self.filled = loop {
                match self.source.read(&mut self.buffer) {
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    other => break other.map_err(JsonFault::Read)?,
                }
            };
        }
        Ok(&self.buffer[self.at..self.filled])
    }

    fn byte(&mut self) -> Result<u8> {
        let at = self.offset();
        match self.rest()?.first() {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => Err(JsonFault::Cut { at }),
        }
    }

    /// The next byte that is not white space, without using it; `None` at the end of the text.
    pub fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            match self.rest()?.first() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return Ok(other.copied()),
            }
        }
    }

    /// The next byte that is not white space, without using it. Fails at the end of the text.
    pub fn must(&mut self) -> Result<u8> {
        let at = self.offset();
        self.peek()?.ok_or(JsonFault::Cut { at })
    }

    /// Uses the next byte that is not white space if it is this one, and says whether it was. Fails at the end of the
    /// text.
    pub fn take(&mut self, byte: u8) -> Result<bool> {
        let found = self.must()? == byte;
        self.at += usize::from(found);
        Ok(found)
    }

    /// Uses the next byte that is not white space. Fails with `what` if it is not this one.
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<()> {
        if self.take(byte)? { Ok(()) } else { self.wrong(what) }
    }

    /// Reads the next key of an object, its first 64 bytes into `key`, and the colon; false at the object's end.
    /// `first` is true before the first key.
    pub fn key(&mut self, first: &mut bool, key: &mut Vec<u8>) -> Result<bool> {
        if self.take(b'}')? {
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.expect(b',', "a comma or `}` is missing")?;
        }
        self.start_of_string(key, 64)?;
        self.expect(b':', "a colon is missing")?;
        Ok(true)
    }

    /// Moves to the next element of a list; false at its end. `first` is true before the first element.
    pub fn element(&mut self, first: &mut bool) -> Result<bool> {
        if self.take(b']')? {
            return Ok(false);
        }
        if !std::mem::take(first) {
            self.expect(b',', "a comma or `]` is missing")?;
        }
        Ok(true)
    }

    /// Reads a whole string into `text`. Fails if it is longer than `most` bytes.
    pub fn string(&mut self, text: &mut Vec<u8>, most: usize) -> Result<()> {
        let at = self.offset();
        if self.read_string(text, most)? { Ok(()) } else { Err(JsonFault::Long { at, most }) }
    }

    /// Reads the first bytes of a string into `text`, at most `most`, and skips the rest of it.
    pub fn start_of_string(&mut self, text: &mut Vec<u8>, most: usize) -> Result<()> {
        if !self.read_string(text, most)? {
            self.skip_string_rest()?;
        }
        Ok(())
    }

    /// True at the end of the string, false where `most` was reached before it.
    fn read_string(&mut self, text: &mut Vec<u8>, most: usize) -> Result<bool> {
        text.clear();
        self.expect(b'"', "a string is missing")?;
        loop {
            let start = self.offset();
            let rest = self.rest()?;
            if rest.is_empty() {
                return Err(JsonFault::Cut { at: start });
            }
            let plain = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            let room = most - text.len();
            if plain > room {
                text.extend_from_slice(&rest[..room]);
                self.at += room;
                return Ok(false);
            }
            text.extend_from_slice(&rest[..plain]);
            let stop = rest.get(plain).copied();
            self.at += plain;
            match stop {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(true);
                }
                Some(_) if text.len() + 8 > most => return Ok(false),
                Some(_) => {
                    self.at += 1;
                    self.escape(text)?;
                }
                None => {}
            }
        }
    }

    /// To the end of a string that was begun. The place is between characters or escapes, never within an escape.
    fn skip_string_rest(&mut self) -> Result<()> {
        loop {
            let start = self.offset();
            let rest = self.rest()?;
            if rest.is_empty() {
                return Err(JsonFault::Cut { at: start });
            }
            let plain = memchr2(b'"', b'\\', rest);
            let stop = plain.map(|p| rest[p]);
            self.at += plain.map_or(rest.len(), |p| p + 1);
            match stop {
                Some(b'"') => return Ok(()),
                Some(_) => {
                    self.byte()?;
                }
                None => {}
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<()> {
        let simple = match self.byte()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'u' => return self.unicode(text),
            other @ (b'"' | b'\\' | b'/') => other,
            _ => return self.wrong("an escape in a string is unknown"),
        };
        text.push(simple);
        Ok(())
    }

    /// `\uXXXX`; two of them where a character is outside the first plane. Half a pair becomes the replacement character.
    fn unicode(&mut self, text: &mut Vec<u8>) -> Result<()> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) || self.rest()?.first() != Some(&b'\\') {
            push(text, first);
            return Ok(());
        }
        self.at += 1;
        if self.rest()?.first() != Some(&b'u') {
            push(text, first);
            return self.escape(text);
        }
        self.at += 1;
        let second = self.hex()?;
        if (0xdc00..0xe000).contains(&second) {
            push(text, 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
        } else {
            push(text, first);
            push(text, second);
        }
        Ok(())
    }

    fn hex(&mut self) -> Result<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.byte()?).to_digit(16) else {
                return self.wrong("an escape in a string lacks its four digits");
            };
            code = code * 16 + digit;
        }
        Ok(code)
    }

    /// Reads the characters of a number into `text`; false where none stands here. Fails if they are more than 64.
    pub fn number(&mut self, text: &mut Vec<u8>) -> Result<bool> {
        text.clear();
        self.must()?;
        while let Some(&byte) = self.rest()?.first() {
            if !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') {
                break;
            }
            if text.len() == 64 {
                return self.wrong("a number has more than 64 characters");
            }
            text.push(byte);
            self.at += 1;
        }
        Ok(!text.is_empty())
    }

    /// Skips one value of any kind, checked for balance only. Fails if lists and objects nest deeper than 512.
    pub fn skip(&mut self) -> Result<()> {
        match self.must()? {
            b'{' | b'[' => {
                self.at += 1;
                self.skip_open(1)
            }
            b'"' => {
                self.at += 1;
                self.skip_string_rest()
            }
            b'-' | b'0'..=b'9' => self.number(&mut Vec::new()).map(|_| ()),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            // PyTorch has written these.
            b'N' => self.word(b"NaN"),
            b'I' => self.word(b"Infinity"),
            _ => self.wrong("a value is missing"),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<()> {
        for &wanted in word {
            if self.byte()? != wanted {
                return self.wrong("a word is neither true, false nor null");
            }
        }
        Ok(())
    }

    /// To the end of the lists and objects that are open.
    fn skip_open(&mut self, mut depth: usize) -> Result<()> {
        while depth > 0 {
            let byte = self.byte()?;
            match byte {
                b'"' => self.skip_string_rest()?,
                b'{' | b'[' if depth == DEEPEST => return self.wrong("lists within lists are too many"),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Skips to the end of the object that is open, where braces and strings are all that counts.
    pub fn skip_object_rest(&mut self) -> Result<()> {
        let mut depth = 1usize;
        while depth > 0 {
            let start = self.offset();
            let rest = self.rest()?;
            if rest.is_empty() {
                return Err(JsonFault::Cut { at: start });
            }
            let Some(stop) = memchr3(b'"', b'{', b'}', rest) else {
                self.at += rest.len();
                continue;
            };
            let byte = rest[stop];
            self.at += stop + 1;
            match byte {
                b'"' => self.skip_string_rest()?,
                b'{' if depth == DEEPEST => return self.wrong("objects within objects are too many"),
                b'{' => depth += 1,
                _ => depth -= 1,
            }
        }
        Ok(())
    }
}

fn push(text: &mut Vec<u8>, code: u32) {
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;
    use serde_json::Value;

    /// Gives a byte or a few at a time, so that everything lies across a border.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let size = self.1.min(self.0.len()).min(buffer.len());
            buffer[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    fn string(text: &str, step: usize) -> Vec<u8> {
        let mut into = Vec::new();
        Json::new(Drip(text.as_bytes(), step)).string(&mut into, 1000).unwrap();
        into
    }

    #[test]
    fn strings_are_those_of_serde() {
        for text in [r#""a\"b\\c\/d\n""#, r#""\u00e9\u4e2d\ud83d\ude00 é""#, r#""""#, r#""\u0041\b\f\r\t""#] {
            for step in [1, 2, 3, 100] {
                let wanted: String = serde_json::from_str(text).unwrap();
                assert_eq!(string(text, step), wanted.as_bytes(), "{text}");
            }
        }
        assert_eq!(string(r#""\ud83dx""#, 1), "\u{fffd}x".as_bytes());
        assert_eq!(string(r#""\ud83d\n\ud83d\u0041""#, 1), "\u{fffd}\n\u{fffd}A".as_bytes());
    }

    #[test]
    fn a_long_string_is_refused_or_cut_and_the_reader_goes_on_behind_it() {
        let text = format!("\"{}\\\"end\" 7", "x".repeat(100_000));
        let mut into = Vec::new();
        assert!(matches!(Json::new(text.as_bytes()).string(&mut into, 50_000), Err(JsonFault::Long { at: 0, .. })));
        for most in [0, 1, 10, 99_999, 100_000, 100_001, 100_002] {
            let mut json = Json::new(text.as_bytes());
            json.start_of_string(&mut into, most).unwrap();
            assert!(into.len() <= most && into.iter().all(|b| *b == b'x' || *b == b'"'));
            assert!(json.number(&mut into).unwrap() && into == b"7");
        }
    }

    #[test]
    fn whatever_serde_writes_is_skipped_whole() {
        let mut random = SplitMix(5);
        fn value(random: &mut SplitMix, depth: usize) -> Value {
            match random.below(if depth == 0 { 4 } else { 6 }) {
                0 => Value::Null,
                1 => (random.symmetric() * 1e9).into(),
                2 => "a\"{}[]\\ é\n"[..random.below(8)].into(),
                3 => true.into(),
                4 => (0..random.below(4)).map(|_| value(random, depth - 1)).collect(),
                _ => {
                    Value::Object((0..random.below(4)).map(|i| (format!("}}{i}"), value(random, depth - 1))).collect())
                }
            }
        }
        for step in 0..500 {
            let text = format!(" {} 1", value(&mut random, 4));
            let mut json = Json::new(Drip(text.as_bytes(), 1 + step % 7));
            json.skip().unwrap();
            let mut number = Vec::new();
            assert!(json.number(&mut number).unwrap() && number == b"1" && json.peek().unwrap().is_none());
            let object = format!("\"k\":{text}}}2");
            let mut json = Json::new(Drip(object.as_bytes(), 1 + step % 5));
            json.skip_object_rest().unwrap();
            assert!(json.number(&mut number).unwrap() && number == b"2");
        }
    }

    #[test]
    fn what_ends_too_early_or_nests_too_deep_is_said() {
        for text in ["{\"a\":[1,2", "\"abc", "\"ab\\", "[", "tru", "{\"a\"", ""] {
            assert!(matches!(Json::new(text.as_bytes()).skip(), Err(JsonFault::Cut { .. })), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(Json::new(deep.as_bytes()).skip(), Err(JsonFault::Wrong { .. })));
        assert!(matches!(Json::new("nul!".as_bytes()).skip(), Err(JsonFault::Wrong { .. })));
    }
}
