//! Sections become records: a line for each operation, size and place, with the names of our own collectives.
//!
//! nccl-tests prints the mean over its iterations of back-to-back operations (averaged over the ranks): that is
//! `median_ns` here, one sample, `statistic: mean` in the parameters. Rows that come again (`-N`, several runs in one
//! file) are the samples of one line.

use super::names::{OPERATIONS, TYPES};
use super::{Figures, ListedDevice, ProgramRun, Row, text};
use crate::import::{self, Imported, Origin};
use crate::records::Measurement;
use crate::records::flags::{IMPORTED, WRONG};
use crate::records::machine::Gpu;
use crate::records::measurement::{Backend, Cache, Kind, Launch, Verified};
use crate::shape::collective::bus_factor;
use crate::units::{counted, format_bytes};
use crate::{Error, Result, nearest, stats};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn imported(
    sections: Vec<ProgramRun>,
    place: &str,
    operation: Option<&str>,
    mut notes: Vec<String>,
) -> Result<Imported> {
    let sections: Vec<ProgramRun> = sections.into_iter().filter(|s| !s.rows.is_empty()).collect();
    let Some(first) = sections.first() else {
        return Err(Error::input(
            format!("{place} holds no row of nccl-tests' results"),
            "give what one of its programs printed (2>&1), or wrote with -J, from the first line on",
        ));
    };
    let origin = origin(first, &sections)?;
    let mut lines = Lines::default();
    for section in &sections {
        let who = participants(section)?;
        if who.ranks < 2 {
            notes.push(format!("{}: one rank only, which is no collective; left out", section.place));
            continue;
        }
        let operation = operation_of(section, operation, who.ranks)?;
        refuse_unusable(section)?;
        section.rows.iter().for_each(|row| lines.add(section, row, operation, who));
        if !section.closed {
            notes.push(format!(
                "{}: the output has no closing lines (the run was cut); its rows are used",
                section.place
            ));
        }
    }
    notes.extend(lines.notes());
    let records = lines.records(&origin);
    if records.iter().all(|r| r.median_ns.is_none()) {
        return Err(Error::input(
            format!(
                "{place} holds no row with a time that can be used{}",
                if lines.wrong > 0 { ": all were wrong" } else { "" }
            ),
            "run nccl-tests again over at least 2 ranks and sizes above 0",
        ));
    }
    Ok(Imported { origin, records, notes })
}

/// Ranks and nodes of one operation (with NCCL_TESTS_SPLIT: of one group).
#[derive(Debug, Clone, Copy)]
struct Participants {
    ranks: u64,
    nodes: u64,
}

fn participants(section: &ProgramRun) -> Result<Participants> {
    if let Some(rank) = text::repeated_rank(section) {
        return Err(Error::input(
            format!("{} lists rank {rank} more than once: its processes did not know of each other", section.place),
            "build nccl-tests with MPI=1 to run it under mpirun or srun, and import that output",
        ));
    }
    let group = section.devices.iter().map(|d| d.group).min().unwrap_or(0);
    let members: Vec<&ListedDevice> = section.devices.iter().filter(|d| d.group == group).collect();
    let hosts: BTreeSet<&str> = members.iter().map(|d| d.host.as_str()).collect();
    match members.len() as u64 {
        0 => Err(Error::input(
            format!("{} does not list its ranks (`Using devices`), so nobody knows how many there were", section.place),
            "import the whole output, from its first line on",
        )),
        ranks => Ok(Participants { ranks, nodes: hosts.len() as u64 }),
    }
}

fn operation_of(section: &ProgramRun, given: Option<&str>, ranks: u64) -> Result<(&'static str, Option<&'static str>)> {
    let known = |name: &str| {
        let found = OPERATIONS.iter().find(|(program, operation, _)| *program == name || *operation == name);
        found.map(|(_, operation, pattern)| (*operation, *pattern))
    };
    let program = section.program.as_deref().and_then(known);
    let asked = match given {
        Some(name) => Some(known(name).ok_or_else(|| {
            let names: Vec<&str> = OPERATIONS.iter().map(|(_, operation, _)| *operation).collect();
            Error::input(format!("--operation {name} is unknown"), nearest::cure(name, names))
        })?),
        None => None,
    };
    program.or(asked).or_else(|| all_reduce_by_its_bandwidths(section, ranks)).ok_or_else(|| {
        Error::input(
            format!("{} does not say which program printed it", section.place),
            "name its operation, e.g. --operation all_gather",
        )
    })
}

/// Only an all-reduce of three or more ranks has busbw ÷ algbw = 2(n−1)/n.
fn all_reduce_by_its_bandwidths(section: &ProgramRun, ranks: u64) -> Option<(&'static str, Option<&'static str>)> {
    let row = section.rows.last()?;
    let figures = row.out_of_place.or(row.in_place)?;
    let expected = 2.0 * (ranks as f64 - 1.0) / ranks as f64;
    let fits = ranks >= 3 && figures.algbw >= 1.0 && (figures.busbw / figures.algbw / expected - 1.0).abs() < 0.01;
    fits.then_some(("all_reduce", None))
}

fn refuse_unusable(section: &ProgramRun) -> Result<()> {
    let place = &section.place;
    if section.cpu_time {
        return Err(Error::input(
            format!("{place} was run with -C 1: its columns hold the time of the CPU's calls, not of the operations"),
            "run it again without -C",
        ));
    }
    if section.blocking {
        return Err(Error::input(
            format!(
                "{place} was run with -z: it waits after every operation, so its times are not those of a back-to-back run"
            ),
            "run it again without -z",
        ));
    }
    let said_by_row =
        section.rows.iter().flat_map(|r| [r.out_of_place, r.in_place]).flatten().any(|f| f.wrong > Some(0));
    if let Some(count) = section.out_of_bounds.filter(|&n| n > 0 && !said_by_row) {
        return Err(Error::input(
            format!("{place} counts {count} values out of bounds and does not say in which rows"),
            "a wrong result has no time: find out why with a newer nccl-tests, which counts them row by row",
        ));
    }
    Ok(())
}

fn origin(first: &ProgramRun, sections: &[ProgramRun]) -> Result<Origin> {
    let devices: Vec<&ListedDevice> = sections.iter().flat_map(|s| &s.devices).collect();
    let names: BTreeSet<&str> = devices.iter().map(|d| d.name.as_str()).collect();
    if names.len() > 1 {
        let names: Vec<&str> = names.into_iter().collect();
        return Err(Error::input(
            format!("{} mixes the outputs of different machines ({})", first.place, names.join(", ")),
            "import each machine's output into its own folder",
        ));
    }
    let name = names.first().map(|n| (*n).to_string()).filter(|n| !n.is_empty());
    // GPUs of one node: the most that any host lists.
    let mut hosts: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    devices.iter().for_each(|d| {
        hosts.entry(&d.host).or_default().insert(d.device);
    });
    let indices = hosts.into_values().max_by_key(BTreeSet::len).unwrap_or_default();
    let host = first.backend.as_deref() == Some(Backend::Host.name());
    let gpu = |index| Gpu { index, name: name.clone().unwrap_or_else(|| "unknown GPU".into()), ..Gpu::default() };
    let one = |f: fn(&ProgramRun) -> Option<&String>| sections.iter().find_map(f).cloned();
    let versions = [("nccl", one(|s| s.nccl.as_ref())), ("nccl_tests", one(|s| s.nccl_tests.as_ref()))];
    Ok(Origin {
        gpus: if host { Vec::new() } else { indices.into_iter().map(gpu).collect() },
        cpu: if host { name.clone() } else { None },
        hostname: first.devices.first().map(|d| d.host.clone()),
        versions: versions.into_iter().map(|(name, version)| (name.to_string(), version)).collect(),
        environment: import::environment(first.environment.iter().map(String::as_str)),
    })
}

/// The lines under way, by id; in the order of the file.
#[derive(Debug, Default)]
struct Lines {
    order: Vec<String>,
    lines: BTreeMap<String, Measurement>,
    wrong: u64,
    empty: u64,
}

impl Lines {
    fn add(&mut self, section: &ProgramRun, row: &Row, operation: (&str, Option<&str>), who: Participants) {
        if row.bytes == 0 {
            self.empty += 1;
            return;
        }
        for (in_place, figures) in [(false, row.out_of_place), (true, row.in_place)] {
            // A half that was not run is printed as nan by this program.
            let ran = |f: &Figures| !f.us.is_nan() || f.wrong.is_some();
            let Some(figures) = figures.filter(ran) else { continue };
            let blank = blank(section, row, operation, who, in_place);
            let id = blank.id.clone();
            let line = self.lines.entry(id.clone()).or_insert_with(|| {
                self.order.push(id);
                blank
            });
            self.wrong += u64::from(figures.wrong.is_some_and(|n| n > 0));
            take(line, &figures);
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.wrong > 0 {
            notes.push(format!("{} wrong: such rows have no time", counted(self.wrong, "result")));
        }
        if self.empty > 0 {
            notes.push(format!("left out: {} of 0 bytes", counted(self.empty, "row")));
        }
        notes
    }

    fn records(&self, origin: &Origin) -> Vec<Measurement> {
        let device = origin.gpus.first().map(|g| g.name.clone()).or(origin.cpu.clone()).unwrap_or_default();
        let of = |id: &String| self.lines.get(id).cloned();
        let finish = |mut line: Measurement| {
            line.device.clone_from(&device);
            line.median_ns = stats::median(&line.samples_ns);
            line.samples_total = line.samples_ns.len() as u64;
            if line.verified.as_ref().is_some_and(|v| v.wrong > 0) {
                line.flags.push(WRONG.into());
                (line.median_ns, line.min_ns) = (None, None);
                line.samples_ns.clear();
                line.samples_total = 0;
            }
            let gb_per_s = |ns: f64| line.bytes.unwrap_or(0.0) / ns;
            line.algbw_gb_per_s = line.median_ns.map(gb_per_s);
            let factor = line.params.remove(FACTOR).and_then(|f| f.as_f64());
            line.busbw_gb_per_s = line.algbw_gb_per_s.zip(factor).map(|(algbw, factor)| algbw * factor);
            line
        };
        self.order.iter().filter_map(of).map(finish).collect()
    }
}

/// busbw ÷ algbw, kept with the line until its time is known.
const FACTOR: &str = "busbw_factor";

/// Everything of a line but its times.
fn blank(
    section: &ProgramRun,
    row: &Row,
    operation: (&str, Option<&str>),
    who: Participants,
    in_place: bool,
) -> Measurement {
    let (name, pattern) = operation;
    let known = |theirs: &str| {
        TYPES.iter().find(|(t, ..)| *t == theirs).map_or(theirs.to_string(), |(_, ours, _)| (*ours).into())
    };
    let dtype = row.dtype.as_deref().map_or("unknown".to_string(), known);
    let redop = row.redop.as_deref().filter(|redop| !["none", "sum"].contains(redop) && pattern.is_none());
    let root = row.root.filter(|&root| root > 0);
    let host = section.backend.as_deref() == Some(Backend::Host.name());
    let mut id = format!("{}/{name}", if host { "host" } else { "nccl" });
    pattern.iter().for_each(|p| id.push_str(&format!("/{p}")));
    let nodes = if who.nodes > 1 { format!("/n{}", who.nodes) } else { String::new() };
    id.push_str(&format!("/r{}{nodes}/{dtype}/{}", who.ranks, format_bytes(row.bytes)));
    for (is_so, name) in [(in_place, "/in_place"), (section.graph, "/graph")] {
        id.push_str(if is_so { name } else { "" });
    }
    section.variant.iter().for_each(|v| id.push_str(&format!("/{v}")));
    redop.iter().for_each(|r| id.push_str(&format!("/{r}")));
    root.iter().for_each(|r| id.push_str(&format!("/root{r}")));
    let mut line = Measurement::blank(id, Kind::Collective, if host { Backend::Host } else { Backend::Cuda });
    let mut param = |name: &str, value: Option<Value>| {
        value.map(|value| line.params.insert(name.to_string(), value));
    };
    param("operation", Some(name.into()));
    param("pattern", pattern.map(Into::into));
    param("ranks", Some(who.ranks.into()));
    param("nodes", Some(who.nodes.into()));
    param("dtype", Some(dtype.into()));
    param("bytes", Some(row.bytes.into()));
    param("in_place", Some(in_place.into()));
    param("redop", redop.map(Into::into));
    param("root", root.map(Into::into));
    param("registered", section.variant.iter().any(|v| v == "registered").then(|| true.into()));
    param("max_ctas", section.variant.iter().find_map(|v| v.strip_prefix("ctas")?.parse::<u64>().ok()).map(Into::into));
    param("transport", Some(section.transport.clone().unwrap_or_else(|| "nccl".into()).into()));
    param("statistic", Some("mean".into()));
    param("iterations", section.iterations.map(Into::into));
    param("warmup_iterations", section.warmup_iterations.map(Into::into));
    param("aggregated_iterations", section.aggregated_iterations.map(Into::into));
    param(FACTOR, bus_factor(name, who.ranks).map(Into::into));
    line.bytes = Some(row.bytes as f64);
    line.iterations_per_sample =
        section.iterations.unwrap_or(1).max(1) * section.aggregated_iterations.unwrap_or(1).max(1);
    // The same buffers are sent again and again.
    line.cache = Some(Cache::Warm);
    line.launch = Some(match (host, section.graph) {
        (true, _) => Launch::Call,
        (false, true) => Launch::Graph,
        (false, false) => Launch::Stream,
    });
    line.flags.push(IMPORTED.into());
    line
}

fn take(line: &mut Measurement, figures: &Figures) {
    if figures.us.is_finite() && figures.us > 0.0 && line.samples_ns.len() < 1000 {
        line.samples_ns.push(1e3 * figures.us);
    }
    if let Some(us) = figures.min_us.filter(|us| us.is_finite() && *us > 0.0) {
        line.min_ns = Some(line.min_ns.map_or(1e3 * us, |ns| ns.min(1e3 * us)));
    }
    if figures.wrong.is_none() && figures.max_error.is_none() {
        return;
    }
    let before = line.verified.take();
    let max_error = before.as_ref().map_or(0.0, |v| v.max_error).max(figures.max_error.unwrap_or(0.0));
    line.verified = Some(Verified {
        against: "nccl-tests' own check".into(),
        max_error: if max_error.is_finite() { max_error } else { f64::MAX },
        wrong: before.map_or(0, |v| v.wrong).saturating_add(figures.wrong.unwrap_or(0)),
    });
}
