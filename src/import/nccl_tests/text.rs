//! The text that nccl-tests' programs print.
//!
//! What is on a line is told by its words, not by its place: `nThread …` has the settings, `Rank …` a device, the header
//! (`size count …`) names the columns, and a row has as many words as the header. So it does not matter which columns a
//! version prints (`type redop root` or some of them, `error` or `#wrong`, timestamps, per-iteration figures), which
//! launcher labelled the lines (`0: `, `[1,0]<stdout>:`, a Kubernetes timestamp), or what NCCL's own log wrote between.

use super::names::OPERATIONS;
use super::{Figures, ListedDevice, ProgramRun, Row, version};
use crate::units::counted;
use crate::{Error, Result};
use std::collections::BTreeSet;

pub(super) fn sections(text: &str, place: &str, notes: &mut Vec<String>) -> Result<Vec<ProgramRun>> {
    let mut reader = Reader { place, ..Reader::default() };
    let lines: Vec<&str> = text.lines().map(unlabelled).collect();
    let last = lines.iter().rposition(|line| !line.trim().is_empty()).unwrap_or(0);
    for (index, line) in lines.iter().enumerate() {
        let ends_the_file = index == last;
        let whole = !ends_the_file || text.ends_with('\n');
        reader.line(line, index + 1, ends_the_file, whole, notes)?;
    }
    reader.close();
    Ok(reader.sections)
}

/// Which columns a row has.
#[derive(Debug, Clone, Default)]
struct Columns {
    leading: Vec<String>,
    groups: Vec<Group>,
    /// Words behind the last group: a timestamp is two.
    trailing: usize,
}

#[derive(Debug, Clone, Default)]
struct Group {
    in_place: bool,
    names: Vec<String>,
}

impl Columns {
    fn words(&self) -> usize {
        self.leading.len() + self.groups.iter().map(|g| g.names.len()).sum::<usize>() + self.trailing
    }
}

#[derive(Default)]
struct Reader<'a> {
    place: &'a str,
    sections: Vec<ProgramRun>,
    current: ProgramRun,
    columns: Option<Columns>,
    /// The line above the header names the in-place half first (other tools that print this table do).
    in_place_first: bool,
    /// The program of the last command line seen.
    command: Option<String>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str, number: usize, last: bool, whole: bool, notes: &mut Vec<String>) -> Result<()> {
        let here = format!("{}:{number}", self.place);
        let body = line.trim().trim_start_matches('#').trim();
        let words: Vec<&str> = body.split_whitespace().collect();
        match words.as_slice() {
            [size, count, ..] if is_number(size) && is_number(count) && !line.trim_start().starts_with('#') => {
                self.row(&words, here, last, whole, notes)
            }
            _ => {
                self.sentence(body, &words, here);
                Ok(())
            }
        }
    }

    /// Everything that is no row.
    fn sentence(&mut self, body: &str, words: &[&str], here: String) {
        match words {
            ["nccl-tests", "version", tests, rest @ ..] => {
                self.begin(here);
                self.current.nccl_tests = Some((*tests).to_string());
                let library = rest.iter().find_map(|w| w.strip_prefix("nccl-library=")?.parse().ok());
                self.current.nccl = library.map(version);
            }
            ["bubblebench", _, "backend", backend, "transport", transport, rest @ ..] => {
                self.begin(here);
                if let ["variant", names, ..] = rest {
                    self.current.variant = names.split(',').map(str::to_string).collect();
                }
                self.current.backend = Some((*backend).to_string());
                self.current.transport = Some((*transport).to_string());
            }
            ["Collective", "test", "starting:", program, ..] => {
                self.begin(here);
                self.current.program = program_in(program).or(self.current.program.take());
            }
            ["nThread", ..] => {
                self.begin(here);
                self.settings(words);
            }
            ["Blocking", "Enabled:", ..] => self.current.blocking = true,
            ["Rank", ..] => self.current.devices.extend(device(body)),
            ["Collective", "test", "concluded:", ..] => {}
            ["Out", "of", "bounds", "values", ":", count, ..] => self.current.out_of_bounds = count.parse().ok(),
            ["Avg", "bus", "bandwidth", ..] => {
                self.current.closed = true;
                self.columns = None;
            }
            ["NCCL", "version", found, ..] if self.current.nccl.is_none() => {
                self.current.nccl = found.split('+').next().map(str::to_string);
            }
            _ => {
                if let Some(columns) = header(words, self.in_place_first) {
                    self.current.cpu_time |= words.contains(&"cputime");
                    self.columns = Some(columns);
                } else if let Some(in_place_first) = in_place_first(body) {
                    self.in_place_first = in_place_first;
                } else if self.current.rows.is_empty() || self.current.closed {
                    self.command = program_in(body).or(self.command.take());
                }
            }
        }
    }

    /// A new section, unless the one under way is still at its first lines.
    fn begin(&mut self, here: String) {
        if !self.current.rows.is_empty() || self.current.closed {
            self.close();
        }
        if self.current.place.is_empty() {
            self.current.place = here;
            self.current.program = self.command.take();
        }
    }

    fn close(&mut self) {
        let section = std::mem::take(&mut self.current);
        self.columns = None;
        if !section.rows.is_empty() || !section.devices.is_empty() {
            self.sections.push(section);
        }
    }

    /// `nThread 1 nGpus 8 minBytes … warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0`
    fn settings(&mut self, words: &[&str]) {
        let section = &mut self.current;
        for (index, window) in words.windows(2).enumerate() {
            let Ok(value) = window[1].parse::<u64>() else { continue };
            let before = index.checked_sub(1).map_or("", |i| words[i]);
            match (before, window[0]) {
                (_, "nThread") => section.threads = value,
                (_, "nGpus") => section.gpus_per_thread = value,
                ("warmup", "iters:") => section.warmup_iterations = Some(value),
                ("agg", "iters:") => section.aggregated_iterations = Some(value),
                (_, "iters:") => section.iterations = Some(value),
                (_, "validation:") => section.validated = Some(value > 0),
                (_, "graph:") => section.graph = value > 0,
                _ => {}
            }
        }
    }

    fn row(&mut self, words: &[&str], here: String, last: bool, whole: bool, notes: &mut Vec<String>) -> Result<()> {
        // Between two tables numbers belong to somebody else's log.
        let Some(columns) = self.columns.clone() else { return Ok(()) };
        let cut = !whole && !self.current.closed;
        if words.len() < columns.words() && last || cut && words.len() == columns.words() {
            notes.push(format!("{here} is cut off: the run ended while it was printed; it is left out"));
            return Ok(());
        }
        if words.len() != columns.words() {
            return Err(Error::input(
                format!("{here} has {} where its header has {}", counted(words.len(), "column"), columns.words()),
                "two outputs may be mixed in this file: give one output of nccl-tests, or several one after another",
            ));
        }
        if self.current.place.is_empty() {
            self.current.place.clone_from(&here);
        }
        let row = row(words, &columns, here)?;
        self.current.rows.push(row);
        Ok(())
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

/// Launchers put a label before each line: `[1,0]<stdout>:` (Open MPI), `0: ` (srun --label), a timestamp (Kubernetes).
fn unlabelled(line: &str) -> &str {
    let trimmed = line.trim_start();
    if let Some((label, rest)) = trimmed.split_once(">:")
        && label.starts_with('[')
        && label.contains("]<std")
    {
        return rest;
    }
    let (first, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
    let srun = first.strip_suffix(':').is_some_and(is_number);
    let kubernetes = first.len() >= 20 && first.ends_with('Z') && first.contains('T') && first.starts_with("20");
    if srun || kubernetes { rest } else { line }
}

/// `all_reduce` of `./build/all_reduce_perf -b 8`, `all_reduce_perf_mpi`.
pub(super) fn program_in(text: &str) -> Option<String> {
    let end = text.find("_perf")?;
    let start = text[..end].rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(0, |i| i + 1);
    let name = text.get(start..end)?;
    OPERATIONS.iter().find(|(program, ..)| *program == name).map(|(program, ..)| (*program).to_string())
}

/// `Rank  0 Group  0 Pid   4242 on   node01 device  0 [0000:00:00] NVIDIA H200`; older versions have no group.
fn device(body: &str) -> Option<ListedDevice> {
    let (before, rest) = body.split_once(" on ")?;
    let number = |name: &str| {
        let mut words = before.split_whitespace();
        words.find(|w| *w == name)?;
        words.next()?.parse::<u64>().ok()
    };
    let (host, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let (device, name) = rest.trim_start().strip_prefix("device")?.split_once('[')?;
    Some(ListedDevice {
        rank: number("Rank")?,
        group: number("Group").unwrap_or(0),
        host: host.to_string(),
        device: device.trim().parse().ok()?,
        name: name.split_once(']')?.1.trim().to_string(),
    })
}

/// `out-of-place … in-place`: which half comes first.
fn in_place_first(body: &str) -> Option<bool> {
    let out = body.find("out-of-place")?;
    let within = body.replacen("out-of-place", "            ", 1).find("in-place")?;
    Some(within < out)
}

/// `size count type redop root time algbw busbw #wrong time algbw busbw #wrong`
fn header(words: &[&str], in_place_first: bool) -> Option<Columns> {
    if words.first() != Some(&"size") || words.get(1) != Some(&"count") || !words.contains(&"busbw") {
        return None;
    }
    let mut columns = Columns::default();
    for word in words {
        match (*word, columns.groups.last_mut()) {
            ("timestamp", _) => columns.trailing += 2,
            ("time" | "cputime", _) => {
                let in_place = columns.groups.is_empty() == in_place_first;
                columns.groups.push(Group { in_place, names: vec![(*word).to_string()] });
            }
            (name, Some(group)) => group.names.push(name.trim_start_matches('#').to_string()),
            (name, None) => columns.leading.push(name.to_string()),
        }
    }
    Some(columns)
}

fn row(words: &[&str], columns: &Columns, place: String) -> Result<Row> {
    let bad = |what: &str, word: &str| {
        Error::input(format!("{place} has `{word}` as its {what}"), "give the output as nccl-tests printed it")
    };
    let leading = |name: &str| columns.leading.iter().position(|c| c == name).and_then(|i| words.get(i)).copied();
    let mut row = Row {
        bytes: words[0].parse().map_err(|_| bad("size", words[0]))?,
        dtype: leading("type").map(str::to_string),
        redop: leading("redop").map(str::to_string),
        root: leading("root").and_then(|w| w.parse().ok()),
        ..Row::default()
    };
    let mut at = columns.leading.len();
    for group in &columns.groups {
        let mut figures = Figures::default();
        for (name, word) in group.names.iter().zip(&words[at..]) {
            let number = || word.trim_end_matches('*').parse::<f64>().map_err(|_| bad(name, word));
            match name.as_str() {
                "time" | "cputime" => figures.us = number()?,
                "algbw" => figures.algbw = number()?,
                "busbw" => figures.busbw = number()?,
                "i_min" => figures.min_us = Some(number()?),
                "wrong" if *word != "N/A" => figures.wrong = Some(number()?.max(0.0) as u64),
                "error" if *word != "N/A" => figures.max_error = Some(number()?),
                _ => {}
            }
        }
        at += group.names.len();
        let half = if group.in_place { &mut row.in_place } else { &mut row.out_of_place };
        *half = Some(figures);
    }
    row.place = place;
    Ok(row)
}

/// Ranks that are named twice: several processes printed at once, each of them alone.
pub(super) fn repeated_rank(section: &ProgramRun) -> Option<u64> {
    let mut seen = BTreeSet::new();
    section.devices.iter().find(|d| !seen.insert((d.group, d.rank))).map(|d| d.rank)
}
