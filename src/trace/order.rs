//! Spans in the order of their starts, in bounded memory.
//!
//! Profiles are nearly in order. [`Nearly`] sorts within a window that moves along and says when a span came later than
//! that; [`External`] takes any order: it sorts runs in memory, keeps those that do not fit in a temporary file that has
//! no name, and merges them.

use super::span::{Activity, Span, SpanKey};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

/// A source that gives out spans one by one.
pub trait Spans {
    /// The next span; `None` once there are no more. Fails as [`SpanStop`] says.
    fn next(&mut self) -> Result<Option<Span>, SpanStop>;
}

/// Why a source stopped giving out spans before its end.
#[derive(Debug)]
pub enum SpanStop {
    /// A span came too late for a [`Nearly`]: begin again with [`External`].
    Late,
    /// The profile cannot be read, or a temporary file cannot be written.
    Error(Error),
}

impl From<Error> for SpanStop {
    fn from(error: Error) -> Self {
        SpanStop::Error(error)
    }
}

/// Spans a [`Nearly`] holds: one may come this half too late.
const WINDOW: usize = 1 << 15;

/// Spans in the order of their keys from a source that is nearly in that order, sorted within a window of 32,768 spans.
pub struct Nearly<S> {
    source: S,
    buffer: Vec<Span>,
    at: usize,
    /// Spans of the buffer that nothing to come can precede.
    ready: usize,
    /// The last of those that were.
    given: SpanKey,
    done: bool,
}

impl<S: Spans> Nearly<S> {
    /// Sorts this source; nothing is read from it yet.
    pub fn new(source: S) -> Self {
        Nearly { source, buffer: Vec::new(), at: 0, ready: 0, given: (0, Activity::Compute, 0), done: false }
    }

    fn refill(&mut self) -> Result<(), SpanStop> {
        self.buffer.drain(..self.at);
        self.at = 0;
        while !self.done && self.buffer.len() < WINDOW {
            match self.source.next()? {
                Some(span) if span.key() < self.given => return Err(SpanStop::Late),
                Some(span) => self.buffer.push(span),
                None => self.done = true,
            }
        }
        if !self.buffer.is_sorted_by_key(Span::key) {
            self.buffer.sort_by_key(Span::key);
        }
        self.ready = if self.done { self.buffer.len() } else { WINDOW / 2 };
        if let Some(last) = self.ready.checked_sub(1) {
            self.given = self.buffer[last].key();
        }
        Ok(())
    }
}

impl<S: Spans> Spans for Nearly<S> {
    fn next(&mut self) -> Result<Option<Span>, SpanStop> {
        if self.at == self.ready {
            if self.done && self.at == self.buffer.len() {
                return Ok(None);
            }
            self.refill()?;
        }
        let span = self.buffer.get(self.at).copied();
        self.at += usize::from(span.is_some());
        Ok(span)
    }
}

/// Spans a run holds: 20 MB.
const RUN: usize = 1 << 19;
const BYTES: usize = 33;

/// Collects spans in any order and gives them out sorted, as often as asked.
pub struct External {
    run: usize,
    memory: Vec<Span>,
    /// Sorted runs, one behind another, and where each begins.
    file: Option<BufWriter<File>>,
    runs: Vec<u64>,
}

impl Default for External {
    fn default() -> Self {
        Self::with_run(RUN)
    }
}

impl External {
    /// A collector that holds at most `run` spans in memory, and the others in a temporary file.
    pub fn with_run(run: usize) -> Self {
        External { run: run.max(1), memory: Vec::new(), file: None, runs: Vec::new() }
    }

    /// Adds a span. Fails if the temporary file cannot be written.
    pub fn push(&mut self, span: Span) -> Result<()> {
        if self.memory.len() >= self.run {
            self.spill().map_err(spill_failed)?;
        }
        self.memory.push(span);
        Ok(())
    }

    /// Whether no span was added.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.runs.is_empty()
    }

    fn spill(&mut self) -> std::io::Result<()> {
        self.memory.sort_by_key(Span::key);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::with_capacity(1 << 18, tempfile::tempfile()?)),
        };
        let begin = self.runs.len() as u64 * (self.run * BYTES) as u64;
        file.seek(SeekFrom::Start(begin))?;
        self.runs.push(begin);
        for span in self.memory.drain(..) {
            file.write_all(&encode(&span))?;
        }
        Ok(())
    }

    /// Passes over every span in no order, to look a few of them up. Fails if the temporary file cannot be read.
    pub fn each(&mut self, mut take: impl FnMut(&Span)) -> Result<()> {
        self.memory.iter().for_each(&mut take);
        let length = (self.run * BYTES) as u64 * self.runs.len() as u64;
        if length > 0 {
            let file = self.finish().map_err(spill_failed)?;
            let mut part = Part::new(file, 0, length);
            while let Some(span) = part.next().map_err(spill_failed)? {
                take(&span);
            }
        }
        Ok(())
    }

    /// The file, everything written; shared by the parts, since open files are few and runs may be many.
    fn finish(&mut self) -> std::io::Result<Rc<File>> {
        match &mut self.file {
            Some(file) => {
                file.flush()?;
                Ok(Rc::new(file.get_ref().try_clone()?))
            }
            None => Err(std::io::Error::other("no run was written")),
        }
    }

    /// All spans in the order of their keys. Fails if the temporary file cannot be read.
    pub fn sorted(&mut self) -> Result<Sorted<'_>> {
        self.memory.sort_by_key(Span::key);
        let mut parts = Vec::new();
        let length = (self.run * BYTES) as u64;
        if !self.runs.is_empty() {
            let file = self.finish().map_err(spill_failed)?;
            parts.extend(self.runs.iter().map(|&begin| Part::new(Rc::clone(&file), begin, begin + length)));
        }
        let mut sorted = Sorted { memory: &self.memory, parts, heap: Default::default() };
        sorted.start().map_err(spill_failed)?;
        Ok(sorted)
    }
}

fn spill_failed(source: std::io::Error) -> Error {
    Error::io("keep a profile's events in a temporary file in", std::env::temp_dir(), source)
}

/// A run in the file. Every part has its own place in it: reads are preceded by a seek.
struct Part {
    file: Rc<File>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Part {
    fn new(file: Rc<File>, begin: u64, end: u64) -> Self {
        Part { file, at: begin, end, buffer: Vec::new(), used: 0 }
    }

    fn next(&mut self) -> std::io::Result<Option<Span>> {
        if self.used == self.buffer.len() {
            let size = (1024 * BYTES as u64).min(self.end - self.at);
            if size == 0 {
                return Ok(None);
            }
            self.buffer.resize(size as usize, 0);
            self.file.as_ref().seek(SeekFrom::Start(self.at))?;
            self.file.as_ref().read_exact(&mut self.buffer)?;
            self.at += size;
            self.used = 0;
        }
        let bytes = &self.buffer[self.used..self.used + BYTES];
        self.used += BYTES;
        Ok(Some(decode(bytes)))
    }
}

/// The spans of an [`External`] in order: the merge of its sorted runs in the file and of what stayed in memory.
pub struct Sorted<'a> {
    memory: &'a [Span],
    parts: Vec<Part>,
    /// The next span of every part, the earliest first.
    heap: std::collections::BinaryHeap<std::cmp::Reverse<Head>>,
}

struct Head {
    span: Span,
    part: usize,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.span.key(), self.part).cmp(&(other.span.key(), other.part))
    }
}

impl Sorted<'_> {
    fn start(&mut self) -> std::io::Result<()> {
        for part in 0..self.parts.len() {
            self.advance(part)?;
        }
        Ok(())
    }

    fn advance(&mut self, part: usize) -> std::io::Result<()> {
        if let Some(span) = self.parts[part].next()? {
            self.heap.push(std::cmp::Reverse(Head { span, part }));
        }
        Ok(())
    }
}

impl Spans for Sorted<'_> {
    fn next(&mut self) -> Result<Option<Span>, SpanStop> {
        let spilled = self.heap.peek().map(|h| h.0.span.key());
        match (self.memory.split_first(), spilled) {
            (Some((first, rest)), key) if key.is_none_or(|key| first.key() < key) => {
                self.memory = rest;
                Ok(Some(*first))
            }
            (_, None) => Ok(None),
            (_, Some(_)) => {
                let head = self.heap.pop();
                if let Some(head) = &head {
                    self.advance(head.0.part).map_err(spill_failed)?;
                }
                Ok(head.map(|h| h.0.span))
            }
        }
    }
}

/// The spans of several sources, each of them in order, merged into one order.
pub struct Merged<'a> {
    sources: Vec<Box<dyn Spans + 'a>>,
    heads: Vec<Option<Span>>,
}

impl<'a> Merged<'a> {
    /// Merges these sources, and reads the first span of each. Fails if one of them does.
    pub fn new(sources: Vec<Box<dyn Spans + 'a>>) -> Result<Self, SpanStop> {
        let mut merged = Merged { sources, heads: Vec::new() };
        for source in &mut merged.sources {
            merged.heads.push(source.next()?);
        }
        Ok(merged)
    }
}

impl Spans for Merged<'_> {
    fn next(&mut self) -> Result<Option<Span>, SpanStop> {
        let first = (0..self.heads.len()).filter_map(|i| self.heads[i].map(|span| (span.key(), i))).min();
        let Some((_, index)) = first else { return Ok(None) };
        let next = self.sources[index].next()?;
        Ok(std::mem::replace(&mut self.heads[index], next))
    }
}

fn encode(span: &Span) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[0..8].copy_from_slice(&span.start_ns.to_le_bytes());
    bytes[8..16].copy_from_slice(&span.end_ns.to_le_bytes());
    bytes[16..24].copy_from_slice(&span.launch.to_le_bytes());
    bytes[24..28].copy_from_slice(&span.name.to_le_bytes());
    bytes[28..32].copy_from_slice(&span.device.to_le_bytes());
    bytes[32] = span.activity as u8;
    bytes
}

fn decode(bytes: &[u8]) -> Span {
    let long = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(eight)
    };
    let names = long(24);
    Span {
        start_ns: long(0),
        end_ns: long(8),
        launch: long(16),
        name: names as u32,
        device: (names >> 32) as u32,
        activity: Activity::ALL[usize::from(bytes[32]).min(Activity::ALL.len() - 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    struct List(std::vec::IntoIter<Span>);

    impl Spans for List {
        fn next(&mut self) -> Result<Option<Span>, SpanStop> {
            Ok(self.0.next())
        }
    }

    fn span(start_ns: u64, random: &mut SplitMix) -> Span {
        let activity = Activity::ALL[random.below(5)];
        let end_ns = start_ns + random.next_u64() % 1000;
        Span { start_ns, end_ns, launch: random.next_u64(), name: random.below(9) as u32, device: 3, activity }
    }

    fn all(spans: &mut impl Spans) -> Result<Vec<Span>, SpanStop> {
        let mut list = Vec::new();
        while let Some(span) = spans.next()? {
            list.push(span);
        }
        Ok(list)
    }

    #[test]
    fn a_window_sorts_what_is_nearly_in_order_and_says_when_it_is_not() {
        let mut random = SplitMix(1);
        let mut spans: Vec<Span> = (0..100_000).map(|i| span(i * 10 + random.next_u64() % 5000, &mut random)).collect();
        let mut wanted = spans.clone();
        wanted.sort_by_key(Span::key);
        assert_eq!(all(&mut Nearly::new(List(spans.clone().into_iter()))).unwrap(), wanted);
        spans[99_000].start_ns = 0;
        assert!(matches!(all(&mut Nearly::new(List(spans.into_iter()))), Err(SpanStop::Late)));
        assert!(all(&mut Nearly::new(List(Vec::new().into_iter()))).unwrap().is_empty());
    }

    #[test]
    fn any_order_is_sorted_with_runs_in_a_file() {
        let mut random = SplitMix(2);
        for (count, run) in [(0, 4), (3, 4), (4, 4), (5, 4), (5000, 7), (5000, 1024), (1024, 1)] {
            let spans: Vec<Span> = (0..count).map(|_| span(random.next_u64() % 10_000, &mut random)).collect();
            let mut external = External::with_run(run);
            spans.iter().for_each(|s| external.push(*s).unwrap());
            assert_eq!(external.is_empty(), count == 0);
            for _ in 0..2 {
                let sorted = all(&mut external.sorted().unwrap()).unwrap();
                assert!(sorted.is_sorted_by_key(Span::key));
                let identity = |s: &Span| (s.start_ns, s.launch);
                let (mut got, mut want): (Vec<_>, Vec<_>) = (sorted.clone(), spans.clone());
                got.sort_by_key(identity);
                want.sort_by_key(identity);
                assert_eq!(got, want);
            }
            let mut seen = 0;
            external.each(|_| seen += 1).unwrap();
            assert_eq!(seen, count);
        }
    }

    #[test]
    fn sources_are_merged() {
        let mut random = SplitMix(3);
        let mut list = |from: u64| -> Vec<Span> { (0..100).map(|i| span(from + i * 7, &mut random)).collect() };
        let (a, b) = (list(0), list(300));
        let sources: Vec<Box<dyn Spans>> =
            vec![Box::new(List(a.into_iter())), Box::new(List(b.into_iter())), Box::new(List(Vec::new().into_iter()))];
        let merged = all(&mut Merged::new(sources).ok().unwrap()).unwrap();
        assert!(merged.len() == 200 && merged.is_sorted_by_key(|s| s.start_ns));
    }
}
