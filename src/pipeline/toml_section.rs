//! A table of a TOML file read key by key, so that whatever is wrong is answered with its line, what was expected and
//! the nearest right name. Knows TOML and nothing of jobs.

use crate::{Error, Result, nearest};
use std::collections::BTreeMap;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The TOML file that is read, for errors that name its path and line.
#[derive(Debug, Clone, Copy)]
pub struct TomlSource<'a> {
    /// The file's path, as error messages show it.
    pub path: &'a Path,
    /// The file's whole text.
    pub text: &'a str,
}

impl<'a> TomlSource<'a> {
    /// Parses the text. Fails, with the line, if it is not TOML.
    pub fn parse(&self) -> Result<DeTable<'a>> {
        DeTable::parse(self.text).map(Spanned::into_inner).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start);
            self.error(at, format!("not TOML: {}", e.message()), "a job is a TOML file like those in examples/")
        })
    }

    /// An error at the line that holds byte `at` of the text: what is wrong, and what to do.
    pub fn error(&self, at: usize, what: impl std::fmt::Display, cure: impl Into<String>) -> Error {
        let line = 1 + self.text.as_bytes().iter().take(at).filter(|&&b| b == b'\n').count();
        Error::input(format!("{}:{line}: {what}", self.path.display()), cure)
    }
}

/// One table `[name]` of the file, all of whose keys are known.
pub struct Section<'a> {
    source: TomlSource<'a>,
    /// The table's name, as error messages show it.
    pub name: &'static str,
    /// The byte of the text at which the section begins.
    pub at: usize,
    entries: DeTable<'a>,
}

impl<'a> Section<'a> {
    /// Takes over a table. Fails if it holds a key that is not among `known`.
    pub fn new(
        source: TomlSource<'a>,
        name: &'static str,
        at: usize,
        entries: DeTable<'a>,
        known: &[&'static str],
    ) -> Result<Self> {
        match entries.keys().find(|k| !known.contains(&k.get_ref().as_ref())) {
            None => Ok(Section { source, name, at, entries }),
            Some(key) => Err(source.error(
                key.span().start,
                format!("[{name}] has no key `{}`", key.get_ref()),
                nearest::cure(key.get_ref(), known.iter().copied()),
            )),
        }
    }

    /// Whether the key is given, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some()
    }

    fn get(&self, key: &str) -> Option<(usize, DeValue<'a>)> {
        self.entries.get(key).map(|v| (v.span().start, v.get_ref().clone()))
    }

    /// Where a key stands, for answers about its value.
    fn place(&self, key: &str) -> usize {
        self.entries.get(key).map_or(self.at, |v| v.span().start)
    }

    /// An error at the line of a key's value, or of the section where the key is not given.
    pub fn error(&self, key: &str, what: impl std::fmt::Display, cure: impl Into<String>) -> Error {
        self.source.error(self.place(key), what, cure)
    }

    fn wrong(&self, key: &str, at: usize, found: &DeValue, expected: &str) -> Error {
        self.source.error(at, format!("`{key}` is {}", describe(found)), format!("give {expected}"))
    }

    /// An error at the line of the section that says it lacks this key.
    pub fn missing(&self, key: &str, cure: impl Into<String>) -> Error {
        self.source.error(self.at, format!("[{}] lacks `{key}`", self.name), cure)
    }

    /// The key's value as a whole number; `None` where the key is not given. Fails unless it is within 1..=most.
    pub fn count(&self, key: &str, most: u64) -> Result<Option<u64>> {
        let Some((at, value)) = self.get(key) else { return Ok(None) };
        let number = match &value {
            DeValue::Integer(i) => u64::from_str_radix(i.as_str(), i.radix()).ok(),
            _ => None,
        };
        match number {
            Some(n) if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(self.wrong(key, at, &value, &format!("a whole number from 1 to {most}"))),
        }
    }

    /// The key's value as a number; `None` where the key is not given. Fails unless it is within 0 and 1e18.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some((at, value)) = self.get(key) else { return Ok(None) };
        match as_number(&value) {
            Some(n) if (0.0..=1e18).contains(&n) => Ok(Some(n)),
            _ => Err(self.wrong(key, at, &value, "a number of zero or more")),
        }
    }

    /// The key's value as true or false; `None` where the key is not given. Fails if it is anything else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some((_, DeValue::Boolean(value))) => Ok(Some(value)),
            Some((at, value)) => Err(self.wrong(key, at, &value, "true or false")),
        }
    }

    /// The key's value as a string; `None` where the key is not given. Fails if it is anything else; `expected` says
    /// what belongs there.
    pub fn string(&self, key: &str, expected: &str) -> Result<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some((_, DeValue::String(value))) => Ok(Some(value.into_owned())),
            Some((at, value)) => Err(self.wrong(key, at, &value, expected)),
        }
    }

    /// The key's string or list of strings; empty where the key is not given. Fails if it is anything else; `expected`
    /// says what belongs there.
    pub fn strings(&self, key: &str, expected: &str) -> Result<Vec<String>> {
        match self.get(key) {
            Some((at, DeValue::Array(entries))) => entries
                .iter()
                .map(|entry| match entry.get_ref() {
                    DeValue::String(text) => Ok(text.to_string()),
                    other => Err(self.wrong(key, at, other, expected)),
                })
                .collect(),
            _ => Ok(self.string(key, expected)?.into_iter().collect()),
        }
    }

    /// The key's string as `parse` reads it out of a fixed list, whose error says what is known; `None` where the key
    /// is not given.
    pub fn choice<T>(&self, key: &str, expected: &str, parse: impl Fn(&str) -> Result<T>) -> Result<Option<T>> {
        let Some(text) = self.string(key, expected)? else { return Ok(None) };
        parse(&text).map(Some).map_err(|e| match e {
            Error::Input { what, cure } => self.error(key, format!("`{key}`: {what}"), cure),
            other => other,
        })
    }

    /// The key's percentage in quotes, e.g. `"1%"`, as a fraction; `None` where the key is not given. Fails unless it
    /// is within 0 and 1000 %.
    pub fn percent(&self, key: &str) -> Result<Option<f64>> {
        let Some((at, value)) = self.get(key) else { return Ok(None) };
        let number = match &value {
            DeValue::String(text) => text.trim().strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok()),
            _ => None,
        };
        match number {
            Some(n) if (0.0..=1000.0).contains(&n) => Ok(Some(n / 100.0)),
            _ => Err(self.wrong(key, at, &value, "a percentage in quotes, like \"1%\"")),
        }
    }

    /// The key's list of numbers, e.g. `[120e3, 80e3]`; `None` where the key is not given. Fails unless all are within
    /// 0 and 1e18.
    pub fn list(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let Some((at, value)) = self.get(key) else { return Ok(None) };
        let DeValue::Array(entries) = &value else {
            return Err(self.wrong(key, at, &value, "a list of numbers, like [120e3, 80e3]"));
        };
        let number = |entry: &Spanned<DeValue>| match as_number(entry.get_ref()) {
            Some(n) if (0.0..=1e18).contains(&n) => Ok(n),
            _ => Err(self.wrong(key, entry.span().start, entry.get_ref(), "a number of zero or more")),
        };
        entries.iter().map(number).collect::<Result<Vec<f64>>>().map(Some)
    }

    /// The key's inline table of numbers, e.g. `{ memory = 0.3 }`; `None` where the key is not given. Fails unless all
    /// are within 0 and 1e6.
    pub fn numbers(&self, key: &str) -> Result<Option<BTreeMap<String, f64>>> {
        let Some((at, value)) = self.get(key) else { return Ok(None) };
        let DeValue::Table(table) = &value else {
            return Err(self.wrong(key, at, &value, "an inline table of numbers, like { memory = 0.3 }"));
        };
        let mut numbers = BTreeMap::new();
        for (name, entry) in table {
            match as_number(entry.get_ref()) {
                Some(n) if (0.0..=1e6).contains(&n) => numbers.insert(name.get_ref().to_string(), n),
                _ => {
                    return Err(self.wrong(
                        name.get_ref(),
                        entry.span().start,
                        entry.get_ref(),
                        "a number of zero or more",
                    ));
                }
            };
        }
        Ok(Some(numbers))
    }
}

fn as_number(value: &DeValue) -> Option<f64> {
    match value {
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(|n| n as f64),
        DeValue::Float(f) => f.as_str().parse().ok().filter(|n: &f64| n.is_finite()),
        _ => None,
    }
}

/// What was found, short enough for one line.
fn describe(value: &DeValue) -> String {
    match value {
        DeValue::String(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
        DeValue::Integer(i) => i.as_str().chars().take(40).collect(),
        DeValue::Float(f) => f.as_str().chars().take(40).collect(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
