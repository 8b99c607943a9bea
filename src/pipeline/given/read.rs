//! The JSON of a list: its entries one by one as they come, so that a file of any size takes the memory of its operations
//! and no more, and what is said beside them.

use super::Mistake;
use crate::pipeline::operations::OperationKind;
use crate::pipeline::schedule::{MAX_OPERATIONS, ScheduleName};
use crate::records::schema;
use crate::{Error, Result, nearest};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::io::Read;
use std::path::Path;

/// The form that every answer to a wrong file ends with.
const FORM: &str =
    r#"write [{"stage":0,"kind":"F","micro_batch":0,"chunk":0}, …], or an object with that list as `operations`"#;

/// Numbers from which on no list could hold an operation of each: stages, micro-batches, chunks.
const MOST: [(&str, u64); 3] = [("stage", 1 << 20), ("micro_batch", MAX_OPERATIONS as u64 / 2), ("chunk", 4096)];

/// One operation as the file gives it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    stage: u64,
    kind: OperationKind,
    micro_batch: u64,
    #[serde(default)]
    chunk: u64,
    #[serde(default)]
    start_ns: Option<u64>,
    /// Read and not used: durations are the simulator's.
    #[serde(default, rename = "end_ns")]
    _end_ns: Option<u64>,
    #[serde(default)]
    paired: bool,
}

/// One operation of the list, its numbers within bounds.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    pub stage: u32,
    pub micro_batch: u32,
    pub chunk: u16,
    pub kind: OperationKind,
    pub paired: bool,
    pub start_ns: Option<u64>,
}

/// What a file holds.
#[derive(Default)]
pub struct Found {
    /// The operations in the file's order.
    pub listed: Vec<Listed>,
    /// The schedule that the file says it is.
    pub says: Option<ScheduleName>,
    /// Sizes that the file says beside its list: stages, micro-batches, chunks.
    pub sizes: [Option<u64>; 3],
    schema: Option<String>,
    schedule: Option<String>,
    /// The first field that no list has.
    unknown: Option<String>,
    /// Whether the list has begun, and whether it has ended.
    began: bool,
    ended: bool,
    /// What was wrong, where serde's own words would not say it.
    mistake: Option<Mistake>,
}

/// Reads the whole file.
pub fn entries(path: &Path, json: impl Read) -> Result<Found> {
    let mut found = Found::default();
    let mut from = serde_json::Deserializer::from_reader(json);
    let read = from.deserialize_any(&mut found).and_then(|()| from.end());
    let place = path.display();
    if let Err(e) = read {
        if e.is_io() {
            return Err(Error::io("read", path, e.into()));
        }
        found.check_schema(&place.to_string())?;
        let (what, cure) = found.mistake.unwrap_or_else(|| {
            let entry =
                if found.began && !found.ended { format!("entry {}: ", found.listed.len() + 1) } else { String::new() };
            let said: String = e.to_string().chars().take(400).collect();
            (format!("{entry}{said}"), FORM.to_string())
        });
        return Err(Error::input(format!("{place}: {what}"), cure));
    }
    found.settle(&place.to_string())?;
    Ok(found)
}

impl Found {
    /// What is said beside the list: a record of ours may hold more than a list needs, anything else may not.
    fn settle(&mut self, place: &str) -> Result<()> {
        self.check_schema(place)?;
        if let (None, Some(field)) = (&self.schema, &self.unknown) {
            let known = ["operations", "schedule", "stages", "micro_batches", "chunks"];
            let shown: String = field.chars().take(40).collect();
            return Err(Error::input(
                format!("{place}: `{shown}` is not a field of a list of operations"),
                nearest::cure(field, known),
            ));
        }
        if !self.began {
            return Err(Error::input(
                format!("{place} holds no `operations`"),
                "make it with `simulate` or `plan`, `--json --operations`, or write the list by hand",
            ));
        }
        if self.listed.is_empty() {
            return Err(Error::input(format!("{place}: the list holds no operation"), FORM));
        }
        // `list` is what a record says of a list that named no schedule.
        self.says = match self.schedule.as_deref() {
            None | Some("list") => None,
            Some(name) => Some(ScheduleName::parse(name).map_err(|e| match e {
                Error::Input { what, cure } => {
                    Error::input(format!("{place}: {what}"), format!("{cure}; or leave `schedule` out"))
                }
                other => other,
            })?),
        };
        Ok(())
    }

    /// Of the program's own records a timeline and a plan hold operations.
    fn check_schema(&self, place: &str) -> Result<()> {
        let Some(name) = &self.schema else { return Ok(()) };
        let kind = if name.starts_with("bubblebench.plan/") { "plan" } else { "timeline" };
        schema::check(&serde_json::json!({ "schema": name }), kind, place)
    }

    /// Takes an entry into the list, if its numbers can be.
    fn take(&mut self, entry: Entry) -> std::result::Result<(), Mistake> {
        let number = self.listed.len() + 1;
        if number as u128 > MAX_OPERATIONS {
            return Err((
                format!("the list holds more than {MAX_OPERATIONS} operations"),
                "the pattern repeats: fewer micro-batches show the same bubbles".into(),
            ));
        }
        for ((name, most), value) in MOST.into_iter().zip([entry.stage, entry.micro_batch, entry.chunk]) {
            if value >= most {
                return Err((
                    format!("entry {number}: {name} is {value}"),
                    format!("they are counted from 0, to at most {}", most - 1),
                ));
            }
        }
        self.listed.push(Listed {
            stage: entry.stage as u32,
            micro_batch: entry.micro_batch as u32,
            chunk: entry.chunk as u16,
            kind: entry.kind,
            paired: entry.paired,
            start_ns: entry.start_ns,
        });
        Ok(())
    }
}

/// The file: the list itself, or an object that holds it.
impl<'de> Visitor<'de> for &mut Found {
    type Value = ();

    fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        to.write_str("a list of operations, or an object that holds one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        self.began = true;
        while let Some(entry) = list.next_element::<Entry>()? {
            if let Err(mistake) = self.take(entry) {
                self.mistake = Some(mistake);
                return Err(A::Error::custom("told in the mistake"));
            }
        }
        self.ended = true;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "operations" if self.began => return Err(A::Error::duplicate_field("operations")),
                "operations" => map.next_value_seed(&mut *self)?,
                "schema" => self.schema = Some(map.next_value()?),
                "schedule" => self.schedule = Some(map.next_value()?),
                "stages" => self.sizes[0] = Some(map.next_value()?),
                "micro_batches" => self.sizes[1] = Some(map.next_value()?),
                "chunks" => self.sizes[2] = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    self.unknown.get_or_insert(key);
                }
            }
        }
        Ok(())
    }
}

/// The list within an object.
impl<'de> DeserializeSeed<'de> for &mut Found {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}
