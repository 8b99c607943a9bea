//! Kineto (PyTorch) and Chrome traces: JSON, plain or gzip, read once from start to end.
//!
//! GPU spans and launches go to a sorter and to a temporary file as they come, since the ranges that cut them may stand
//! anywhere. Everything else in the file is skipped unread.

mod event;
pub mod json;
pub mod micros;

use self::event::{Event, EventKind};
use self::json::{Json, JsonFault};
use super::order::{External, SpanStop, Spans};
use super::pending::PendingLaunches;
use super::source::{Catalogue, ProfileSource};
use super::span::{Activity, Span};
use super::windows::{self, IterationRange, Launched};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

/// A kernel's name may be a long template, not this long.
const LONGEST_NAME: usize = 1 << 20;
/// Ranges kept; a run has as many iterations at most.
const MOST_RANGES: usize = 1 << 20;

/// A Kineto or Chrome trace that has been read: its GPU spans, launches and iteration ranges.
pub struct Kineto {
    place: String,
    catalogue: Catalogue,
    spans: External,
    launches: Launches,
    ranges: Vec<IterationRange>,
    /// Ranges as PyTorch projects them onto the device; used where the host's are not recorded.
    device_ranges: Vec<IterationRange>,
    compute_streams: Option<Vec<u64>>,
    epoch_ns: Option<u64>,
    rank: Option<u64>,
}

impl Kineto {
    /// Reads a trace, plain or gzip, from the start of the file `path`, which may be a pipe. `compute_streams` are the
    /// streams whose kernels count as compute; `None` is all. Fails if it is cut off or no trace.
    pub fn open(content: impl Read, path: &Path, compute_streams: Option<&[u64]>) -> Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 18, content);
        let magic = std::io::BufRead::fill_buf(&mut reader).map_err(|e| Error::io("read", path, e))?;
        let place = path.display().to_string();
        if magic.starts_with(&[0x1f, 0x8b]) {
            Self::read(flate2::bufread::MultiGzDecoder::new(reader), &place, compute_streams)
        } else {
            Self::read(reader, &place, compute_streams)
        }
    }

    /// Reads a trace of plain JSON as [`Kineto::open`] does; `place` names it in errors.
    pub fn read(text: impl Read, place: &str, compute_streams: Option<&[u64]>) -> Result<Self> {
        let mut kineto = Kineto {
            place: place.into(),
            catalogue: Catalogue::default(),
            spans: External::default(),
            launches: Launches::default(),
            ranges: Vec::new(),
            device_ranges: Vec::new(),
            compute_streams: compute_streams.map(<[u64]>::to_vec),
            epoch_ns: None,
            rank: None,
        };
        let mut json = Json::new(text);
        match kineto.document(&mut json) {
            Ok(()) => Ok(kineto),
            Err(Failure::Fault(fault)) => Err(explain(fault, place)),
            Err(Failure::Error(error)) => Err(error),
        }
    }

    fn document<R: Read>(&mut self, json: &mut Json<R>) -> Result<(), Failure> {
        match json.peek()? {
            None => {
                return Err(Error::input(format!("{} is empty", self.place), "record it again").into());
            }
            Some(b'[') => {
                json.expect(b'[', "the list of events is missing")?;
                return self.events(json, true);
            }
            Some(_) => json.expect(b'{', "it is no JSON object or list")?,
        }
        let (mut first, mut key, mut number) = (true, Vec::new(), Vec::new());
        while json.key(&mut first, &mut key)? {
            match key.as_slice() {
                b"traceEvents" => {
                    json.expect(b'[', "`traceEvents` is no list")?;
                    self.events(json, false)?;
                }
                b"baseTimeNanoseconds" if json.number(&mut number)? => {
                    self.epoch_ns = std::str::from_utf8(&number).ok().and_then(|t| t.parse().ok());
                }
                b"distributedInfo" if json.must()? == b'{' => self.distributed(json)?,
                _ => json.skip()?,
            }
        }
        match json.peek()? {
            None => Ok(()),
            Some(_) => Ok(json.wrong("something follows the end of the trace")?),
        }
    }

    fn distributed<R: Read>(&mut self, json: &mut Json<R>) -> Result<(), JsonFault> {
        json.expect(b'{', "`distributedInfo` is no object")?;
        let (mut first, mut key, mut number) = (true, Vec::new(), Vec::new());
        while json.key(&mut first, &mut key)? {
            if key == b"rank" && json.number(&mut number)? {
                self.rank = std::str::from_utf8(&number).ok().and_then(|t| t.parse().ok());
            } else {
                json.skip()?;
            }
        }
        Ok(())
    }

    /// Chrome lets a bare list go without its closing bracket: a program that was killed could not write it.
    fn events<R: Read>(&mut self, json: &mut Json<R>, bare: bool) -> Result<(), Failure> {
        let (mut first, mut event) = (true, Event::default());
        loop {
            if bare && json.peek()?.is_none() {
                return Ok(());
            }
            if !json.element(&mut first)? {
                break;
            }
            if bare && json.peek()?.is_none() {
                return Ok(());
            }
            let at = json.offset();
            event.read(json)?;
            self.event(&event, at)?;
        }
        match json.peek()? {
            Some(_) if bare => Ok(json.wrong("something follows the end of the trace")?),
            _ => Ok(()),
        }
    }

    fn event(&mut self, event: &Event, at: u64) -> Result<()> {
        match event.kind {
            EventKind::Other => Ok(()),
            EventKind::Kernel | EventKind::Copy => self.span(event, at),
            EventKind::Launch => match (event.correlation, event.start()) {
                (Some(correlation), Some(start)) => {
                    let named = |part: &[u8]| event.name.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part));
                    // cudaLaunchHostFunc runs nothing on the device.
                    let kernel = named(b"launch") && !named(b"hostfunc");
                    self.launches.push(correlation, start, kernel)
                }
                _ => Ok(()),
            },
            EventKind::HostRange | EventKind::DeviceRange => self.range(event, at),
        }
    }

    fn span(&mut self, event: &Event, at: u64) -> Result<()> {
        let Some((start_ns, end_ns)) = event.interval(at, &self.place)? else { return Ok(()) };
        let name = String::from_utf8_lossy(&event.name);
        let collective = (!event.collective.is_empty()).then(|| String::from_utf8_lossy(&event.collective));
        let many = |what: &str| {
            Error::input(format!("{} holds more {what} than a training run has", self.place), "record fewer steps")
        };
        let (name, activity) =
            self.catalogue.kernel(&name, collective.as_deref()).ok_or_else(|| many("kernel names"))?;
        self.catalogue.has_kernels |= event.kind == EventKind::Kernel;
        let activity = match activity {
            _ if event.kind == EventKind::Copy => Activity::Copy,
            Activity::Compute if !self.on_compute_stream(event.stream) => Activity::Ignored,
            told => told,
        };
        let device = self.catalogue.device(event.device.unwrap_or(0), 0).ok_or_else(|| many("devices"))?;
        let launch = event.correlation.unwrap_or(u64::MAX);
        self.spans.push(Span { start_ns, end_ns, launch, name, device, activity })
    }

    fn on_compute_stream(&self, stream: Option<u64>) -> bool {
        self.compute_streams.as_ref().is_none_or(|list| stream.is_some_and(|s| list.contains(&s)))
    }

    fn range(&mut self, event: &Event, at: u64) -> Result<()> {
        let name = String::from_utf8_lossy(&event.name);
        // Only a range that may cut is worth refusing the trace for its times.
        let Some(base) = windows::base(&name) else { return Ok(()) };
        let Some((start_ns, end_ns)) = event.interval(at, &self.place)? else { return Ok(()) };
        let list = if event.kind == EventKind::HostRange { &mut self.ranges } else { &mut self.device_ranges };
        if list.len() < MOST_RANGES {
            list.push(IterationRange { start_ns, end_ns, process: 0, base });
        }
        Ok(())
    }
}

impl ProfileSource for Kineto {
    fn take_catalogue(&mut self) -> Catalogue {
        std::mem::take(&mut self.catalogue)
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn ranges(&mut self) -> Result<Vec<IterationRange>> {
        let host = std::mem::take(&mut self.ranges);
        let device = std::mem::take(&mut self.device_ranges);
        Ok(if host.is_empty() { device } else { host })
    }

    fn launches_after(&mut self, _: u64, times: &[u64]) -> Result<Vec<Option<Launched>>> {
        // The first kernel launch in [times[i], times[i + 1]).
        let mut first: Vec<Option<(u64, u64)>> = vec![None; times.len()];
        self.launches.each(|correlation, start, kernel| {
            let slot = times.partition_point(|t| *t <= start);
            if kernel && slot > 0 {
                let best = &mut first[slot - 1];
                *best = Some(best.map_or((start, correlation), |b| b.min((start, correlation))));
            }
        })?;
        let mut runs: HashMap<u64, Option<u64>> = first.iter().flatten().map(|f| (f.1, None)).collect();
        if !runs.is_empty() {
            self.spans.each(|span| {
                if let Some(run) = runs.get_mut(&span.launch) {
                    *run = Some(run.map_or(span.start_ns, |r| r.min(span.start_ns)));
                }
            })?;
        }
        let launched = |(launch_ns, correlation)| Some(Launched { launch_ns, run_ns: runs[&correlation]? });
        Ok(first.into_iter().map(|f| f.and_then(launched)).collect())
    }

    fn spans(&mut self, _: bool, take: &mut dyn FnMut(&Span, &Catalogue)) -> Result<(), SpanStop> {
        let mut sorted = self.spans.sorted()?;
        while let Some(span) = sorted.next()? {
            take(&span, &self.catalogue);
        }
        Ok(())
    }

    fn launches(&mut self, pending: &mut PendingLaunches) -> Result<bool> {
        self.launches.each(|correlation, start, _| {
            if pending.may_ask(correlation) {
                pending.note(correlation, start);
            }
        })?;
        Ok(!self.launches.is_empty())
    }

    fn epoch_ns(&self) -> Option<u64> {
        self.epoch_ns
    }

    fn rank(&self) -> Option<u64> {
        self.rank
    }
}

/// Launches by their correlation, in a temporary file once they are many.
#[derive(Default)]
struct Launches {
    memory: Vec<(u64, u64, bool)>,
    file: Option<BufWriter<File>>,
    spilled: u64,
}

const LAUNCHES_IN_MEMORY: usize = 1 << 19;

impl Launches {
    fn push(&mut self, correlation: u64, start_ns: u64, kernel: bool) -> Result<()> {
        if self.memory.len() == LAUNCHES_IN_MEMORY {
            self.spill().map_err(failed)?;
        }
        self.memory.push((correlation, start_ns, kernel));
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.spilled == 0
    }

    fn spill(&mut self) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::with_capacity(1 << 18, tempfile::tempfile()?)),
        };
        self.spilled += self.memory.len() as u64;
        for (correlation, start_ns, kernel) in self.memory.drain(..) {
            file.write_all(&correlation.to_le_bytes())?;
            file.write_all(&start_ns.to_le_bytes())?;
            file.write_all(&[u8::from(kernel)])?;
        }
        Ok(())
    }

    fn each(&mut self, mut take: impl FnMut(u64, u64, bool)) -> Result<()> {
        self.memory.iter().for_each(|l| take(l.0, l.1, l.2));
        if let Some(file) = &mut self.file {
            file.flush().map_err(failed)?;
            let mut file = file.get_ref();
            file.rewind().map_err(failed)?;
            let mut reader = BufReader::with_capacity(1 << 18, file);
            let mut record = [0u8; 17];
            for _ in 0..self.spilled {
                reader.read_exact(&mut record).map_err(failed)?;
                let long = |at: usize| record[at..at + 8].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
                take(long(0), long(8), record[16] != 0);
            }
        }
        Ok(())
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::io("keep a trace's launches in a temporary file in", std::env::temp_dir(), source)
}

/// What ends the reading of a document.
enum Failure {
    Fault(JsonFault),
    Error(Error),
}

impl From<JsonFault> for Failure {
    fn from(fault: JsonFault) -> Self {
        Failure::Fault(fault)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

fn explain(fault: JsonFault, place: &str) -> Error {
    let again = "record the trace again, and let the program end before copying it";
    match fault {
        JsonFault::Cut { at } => Error::input(format!("{place} is cut off after {at} bytes of JSON"), again),
        JsonFault::Wrong { at, what } => Error::input(
            format!("{place} is not a Kineto or Chrome trace: byte {at}: {what}"),
            "give a .json or .json.gz trace, or an nsys .sqlite export",
        ),
        JsonFault::Long { at, most } => Error::input(
            format!("{place} holds a name of over {most} bytes at byte {at}"),
            "record it without that annotation",
        ),
        JsonFault::Read(e) => {
            use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
            match e.kind() {
                UnexpectedEof => Error::input(format!("{place} is cut off within its gzip data"), again),
                InvalidData | InvalidInput => Error::input(format!("{place} holds broken gzip data: {e}"), again),
                _ => Error::io("read", place, e),
            }
        }
    }
}
