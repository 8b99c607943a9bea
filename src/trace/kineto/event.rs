//! One trace event: what it is, and the few of its fields that matter.

use super::json::{Json, JsonFault};
use super::{LONGEST_NAME, micros};
use crate::{Error, Result};
use std::io::Read;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventKind {
    #[default]
    Other,
    Kernel,
    Copy,
    /// A call of the CUDA runtime or driver.
    Launch,
    HostRange,
    DeviceRange,
}

/// How a number stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Plain,
    Quoted,
    Missing,
}

/// Read again and again into the same memory.
#[derive(Debug, Default)]
pub struct Event {
    pub kind: EventKind,
    complete: bool,
    pub name: Vec<u8>,
    pub device: Option<u64>,
    pub stream: Option<u64>,
    pub correlation: Option<u64>,
    /// What PyTorch calls the collective, if it is one.
    pub collective: Vec<u8>,
    process: Option<u64>,
    thread: Option<u64>,
    start_ns: Option<i64>,
    length_ns: Option<i64>,
    key: Vec<u8>,
    text: Vec<u8>,
}

impl Event {
    /// Reads the object that comes next.
    pub fn read<R: Read>(&mut self, json: &mut Json<R>) -> Result<(), JsonFault> {
        self.clear();
        json.expect(b'{', "an event is no object")?;
        let mut first = true;
        let mut key = std::mem::take(&mut self.key);
        while json.key(&mut first, &mut key)? {
            if !self.field(json, &key)? {
                // Nothing else in it can matter.
                json.skip_object_rest()?;
                self.kind = EventKind::Other;
                break;
            }
        }
        self.key = key;
        if !self.complete {
            self.kind = EventKind::Other;
        }
        self.device = self.device.or(self.process);
        self.stream = self.stream.or(self.thread);
        Ok(())
    }

    fn clear(&mut self) {
        self.kind = EventKind::Other;
        self.complete = false;
        self.name.clear();
        self.collective.clear();
        (self.device, self.stream, self.correlation) = (None, None, None);
        (self.process, self.thread) = (None, None);
        (self.start_ns, self.length_ns) = (None, None);
    }

    /// False where the event is of no interest.
    fn field<R: Read>(&mut self, json: &mut Json<R>, key: &[u8]) -> Result<bool, JsonFault> {
        match key {
            b"ph" => {
                json.start_of_string(&mut self.text, 4)?;
                self.complete = self.text == b"X";
                return Ok(self.complete);
            }
            b"cat" => {
                json.start_of_string(&mut self.text, 64)?;
                self.kind = kind(&self.text);
                return Ok(self.kind != EventKind::Other);
            }
            b"name" if json.must()? == b'"' => json.string(&mut self.name, LONGEST_NAME)?,
            b"ts" => self.start_ns = self.time(json)?,
            b"dur" => self.length_ns = self.time(json)?,
            b"pid" => self.process = self.whole(json)?,
            b"tid" => self.thread = self.whole(json)?,
            b"args" if json.must()? == b'{' => self.arguments(json)?,
            _ => json.skip()?,
        }
        Ok(true)
    }

    fn arguments<R: Read>(&mut self, json: &mut Json<R>) -> Result<(), JsonFault> {
        json.expect(b'{', "`args` is no object")?;
        let (mut first, mut key) = (true, Vec::new());
        while json.key(&mut first, &mut key)? {
            match key.as_slice() {
                b"device" => self.device = self.whole(json)?,
                b"stream" => self.stream = self.whole(json)?,
                b"correlation" => self.correlation = self.whole(json)?,
                b"Collective name" if json.must()? == b'"' => json.start_of_string(&mut self.collective, 64)?,
                _ => json.skip()?,
            }
        }
        Ok(())
    }

    /// The digits of a number, which some writers put into quotes; the value is skipped if it is neither.
    fn digits<R: Read>(&mut self, json: &mut Json<R>) -> Result<Digits, JsonFault> {
        if json.must()? == b'"' {
            json.start_of_string(&mut self.text, 64)?;
            return Ok(Digits::Quoted);
        }
        if json.number(&mut self.text)? {
            return Ok(Digits::Plain);
        }
        json.skip()?;
        Ok(Digits::Missing)
    }

    fn time<R: Read>(&mut self, json: &mut Json<R>) -> Result<Option<i64>, JsonFault> {
        let at = json.offset();
        let digits = self.digits(json)?;
        if digits == Digits::Missing {
            return Ok(None);
        }
        match micros::to_ns(&self.text) {
            Some(ns) => Ok(Some(ns)),
            None if digits == Digits::Quoted => Ok(None),
            None => Err(JsonFault::Wrong { at, what: "a time is no number" }),
        }
    }

    /// A number without sign or point; anything else is as good as none.
    fn whole<R: Read>(&mut self, json: &mut Json<R>) -> Result<Option<u64>, JsonFault> {
        if self.digits(json)? == Digits::Missing {
            return Ok(None);
        }
        Ok(std::str::from_utf8(&self.text).ok().and_then(|t| t.parse().ok()))
    }

    /// Start in ns; none if the event has no time, or one before time zero.
    pub fn start(&self) -> Option<u64> {
        self.start_ns.and_then(|ns| u64::try_from(ns).ok())
    }

    /// Start and end in ns; none if the event has no time. `at` is where the event stands in the file `place`.
    pub fn interval(&self, at: u64, place: &str) -> Result<Option<(u64, u64)>> {
        let (Some(start), Some(length)) = (self.start_ns, self.length_ns) else { return Ok(None) };
        let name = String::from_utf8_lossy(&self.name[..self.name.len().min(80)]).into_owned();
        let refuse = |what: &str| {
            Err(Error::input(
                format!("{place}: the event `{name}` at byte {at} {what}"),
                "record the trace again: its clock went backwards or the file was changed",
            ))
        };
        match (u64::try_from(start), u64::try_from(length)) {
            (Err(_), _) => refuse("starts before time zero"),
            (_, Err(_)) => refuse("has a negative duration"),
            (Ok(start), Ok(length)) if start + length > i64::MAX as u64 => refuse("lasts beyond the end of time"),
            (Ok(start), Ok(length)) => Ok(Some((start, start + length))),
        }
    }
}

/// Names of categories over the years: `kernel`, `Kernel`; `gpu_memcpy`, `Memcpy`; `cuda_runtime`, `Runtime`; ….
fn kind(category: &[u8]) -> EventKind {
    let is = |names: &[&str]| names.iter().any(|n| category.eq_ignore_ascii_case(n.as_bytes()));
    if is(&["kernel", "concurrent_kernel"]) {
        EventKind::Kernel
    } else if is(&["gpu_memcpy", "gpu_memset", "memcpy", "memset"]) {
        EventKind::Copy
    } else if is(&["cuda_runtime", "cuda_driver", "runtime", "driver", "hip_runtime"]) {
        EventKind::Launch
    } else if is(&["user_annotation"]) {
        EventKind::HostRange
    } else if is(&["gpu_user_annotation"]) {
        EventKind::DeviceRange
    } else {
        EventKind::Other
    }
}
