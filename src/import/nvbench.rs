//! nvbench's `--json` output: a record of kind `operation` for each way a state was timed.
//!
//! | id ends with | nvbench's | here |
//! |---|---|---|
//! | `/cold` | isolated runs, caches flushed | `cache: cold` |
//! | `/batch` | back-to-back runs | `cache: warm` |
//! | `/cpu` | a benchmark of the CPU alone | backend `host` |
//!
//! The time is nvbench's median where it prints one (2025 and later), else its mean, as `statistic` says. With
//! `--jsonbin` the samples lie in files beside the JSON; where they are still there, they are read and the interval is ours.

use super::{Imported, Origin, json};
use crate::records::Measurement;
use crate::records::flags::IMPORTED;
use crate::records::machine::Gpu;
use crate::records::measurement::{Backend, Cache, Kind, Launch};
use crate::units::counted;
use crate::{Error, Result, stats};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Samples a line keeps.
const MOST_SAMPLES: usize = 1000;
/// Under so many samples a 99 % quantile is a guess.
const SAMPLES_FOR_P99: usize = 500;

/// Reads nvbench's JSON from `text`; `path` names it in errors and leads to the samples of `--jsonbin`. It is an error
/// where it is no such file, mixes different GPUs, or has no state with a time.
pub fn read(text: &str, path: &Path) -> Result<Imported> {
    let place = path.display().to_string();
    let value = json(text, &place, "nvbench")?;
    if value.get("results").is_some() && value.get("config").is_some() {
        return Err(Error::input(format!("{place} is nccl-tests' output"), "give --from nccl-tests"));
    }
    let (Some(devices), Some(benchmarks)) = (list(&value, "devices"), list(&value, "benchmarks")) else {
        return Err(Error::input(
            format!("{place} has no devices and benchmarks, so it is not nvbench's output"),
            "give the file that a benchmark wrote with --json",
        ));
    };
    let mut untimed = Vec::new();
    let mut used = BTreeSet::new();
    let mut records = Vec::new();
    for benchmark in benchmarks {
        let name = text_of(benchmark, "name").unwrap_or("unnamed");
        for state in list(benchmark, "states").into_iter().flatten() {
            let found = of_state(name, state, path);
            if found.is_empty() {
                let reason = text_of(state, "skip_reason").map(|r| format!(" ({r})")).unwrap_or_default();
                let state = text_of(state, "name").unwrap_or("");
                untimed.push(format!("{name} {state}{reason}"));
            } else {
                used.extend(state.get("device").and_then(Value::as_u64));
            }
            records.extend(found);
        }
    }
    let gpus: Vec<Gpu> = devices.iter().filter_map(gpu).filter(|g| used.contains(&g.index)).collect();
    refuse_mixture(&place, &gpus)?;
    if records.is_empty() {
        return Err(Error::input(
            format!("{place} holds no state with a time"),
            "run the benchmark to its end, without --profile, and import its --json file",
        ));
    }
    let device = gpus.first().map(|g| g.name.clone()).unwrap_or_else(|| "unknown GPU".into());
    for record in &mut records {
        record.device = if record.backend == Backend::Host { "unknown CPU".into() } else { device.clone() };
    }
    let tool = value.pointer("/meta/version/nvbench/string").and_then(Value::as_str).map(str::to_string);
    let versions = BTreeMap::from([("nvbench".to_string(), tool)]);
    let notes = untimed
        .first()
        .map(|first| format!("left out: {} without a time, e.g. {first}", counted(untimed.len(), "state")));
    let origin = Origin { gpus, versions, ..Origin::default() };
    Ok(Imported { origin, records, notes: notes.into_iter().collect() })
}

fn list<'a>(value: &'a Value, name: &str) -> Option<&'a Vec<Value>> {
    value.get(name).and_then(Value::as_array)
}

fn text_of<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

fn gpu(device: &Value) -> Option<Gpu> {
    let number = |name: &str| device.get(name).and_then(Value::as_u64);
    let capability = number("sm_version").map(|v| format!("{}.{}", v / 100, v % 100 / 10));
    Some(Gpu {
        index: number("id")?,
        name: text_of(device, "name")?.to_string(),
        compute_capability: capability.unwrap_or_default(),
        sms: number("number_of_sms").unwrap_or(0),
        memory_bytes: number("global_memory_size").unwrap_or(0),
        l2_bytes: number("l2_cache_size").unwrap_or(0),
        sm_clock_max_mhz: number("sm_default_clock_rate").map(|hz| hz / 1_000_000),
        ecc: device.get("ecc_state").and_then(Value::as_bool),
        ..Gpu::default()
    })
}

fn refuse_mixture(place: &str, gpus: &[Gpu]) -> Result<()> {
    let names: BTreeSet<&str> = gpus.iter().map(|g| g.name.as_str()).collect();
    if names.len() < 2 {
        return Ok(());
    }
    let names: Vec<&str> = names.into_iter().collect();
    Err(Error::input(
        format!("{place} mixes results of different GPUs ({})", names.join(", ")),
        "run the benchmark with --devices for one kind, and import each into its own folder",
    ))
}

/// What is known of one state, by summary tag.
struct Summaries<'a>(BTreeMap<&'a str, &'a Value>);

impl<'a> Summaries<'a> {
    fn of(state: &'a Value) -> Self {
        let summaries = list(state, "summaries").into_iter().flatten();
        Summaries(summaries.filter_map(|s| Some((text_of(s, "tag")?, s))).collect())
    }

    /// A value of a summary's data; nvbench writes numbers as text.
    fn data(&self, tag: &str, name: &str) -> Option<&'a Value> {
        let data = list(self.0.get(tag)?, "data")?;
        data.iter().find(|d| text_of(d, "name") == Some(name))?.get("value")
    }

    fn number(&self, tag: &str) -> Option<f64> {
        let value = self.data(tag, "value")?;
        let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
        Some(number).filter(|n| n.is_finite())
    }

    fn seconds(&self, tag: &str) -> Option<f64> {
        self.number(tag).filter(|s| *s > 0.0).map(|s| 1e9 * s)
    }
}

/// Where nvbench keeps the figures of one way of timing.
struct Way {
    suffix: &'static str,
    sample_size: &'static str,
    times: &'static str,
    backend: Backend,
    cache: Option<Cache>,
    launch: Launch,
}

const WAYS: [Way; 3] = [
    Way {
        suffix: "cold",
        sample_size: "nv/cold/sample_size",
        times: "nv/cold/time/gpu",
        backend: Backend::Cuda,
        cache: Some(Cache::Cold),
        launch: Launch::Stream,
    },
    Way {
        suffix: "batch",
        sample_size: "nv/batch/sample_size",
        times: "nv/batch/time/gpu",
        backend: Backend::Cuda,
        cache: Some(Cache::Warm),
        launch: Launch::Stream,
    },
    Way {
        suffix: "cpu",
        sample_size: "nv/cpu_only/sample_size",
        times: "nv/cpu_only/time/cpu",
        backend: Backend::Host,
        cache: None,
        launch: Launch::Call,
    },
];

fn of_state(benchmark: &str, state: &Value, path: &Path) -> Vec<Measurement> {
    let summaries = Summaries::of(state);
    WAYS.iter().filter_map(|way| record(benchmark, state, &summaries, way, path)).collect()
}

fn record(benchmark: &str, state: &Value, summaries: &Summaries, way: &Way, path: &Path) -> Option<Measurement> {
    let figure = |name: &str| summaries.seconds(&format!("{}/{name}", way.times));
    let (median, mean) = (figure("median"), figure("mean"));
    let ns = median.or(mean)?;
    let (params, name) = parameters(benchmark, state);
    let mut line = Measurement::blank(format!("{name}/{}", way.suffix), Kind::Operation, way.backend);
    line.params = params;
    line.params.insert("statistic".into(), if median.is_some() { "median" } else { "mean" }.into());
    line.median_ns = Some(ns);
    line.min_ns = figure("min");
    line.samples_total = summaries.number(way.sample_size).map_or(1, |n| n.max(1.0) as u64);
    line.samples_ns = vec![ns];
    (line.cache, line.launch) = (way.cache, Some(way.launch));
    if way.suffix == "batch" {
        line.iterations_per_sample = line.samples_total;
        line.samples_total = 1;
    }
    if way.suffix == "cold" {
        line.sm_clock_mhz = summaries.number("nv/cold/sm_clock_rate/mean").map(|hz| hz / 1e6);
        if let Some(samples) = samples(summaries, path) {
            take(&mut line, &samples);
        }
    }
    // nvbench counts bytes a second of the mean time.
    let rate = summaries.number("nv/cold/bw/global/bytes_per_second");
    let of_rate = summaries.seconds("nv/cold/time/gpu/mean");
    line.bytes = rate.zip(of_rate).map(|(rate, ns)| (rate * ns / 1e9).round());
    line.flags.push(IMPORTED.into());
    Some(line)
}

/// Parameters by axis, and `nvbench/<benchmark>/<axis>=<value>,…`: the state's name; its device only beyond the first.
fn parameters(benchmark: &str, state: &Value) -> (Map<String, Value>, String) {
    let mut params = Map::new();
    params.insert("benchmark".into(), benchmark.into());
    for axis in list(state, "axis_values").into_iter().flatten() {
        let (Some(name), Some(value)) = (text_of(axis, "name"), axis.get("value")) else { continue };
        let number = value.as_str().and_then(|text| match text_of(axis, "type") {
            Some("int64") => text.parse::<i64>().ok().map(Value::from),
            Some("float64") => text.parse::<f64>().ok().map(Value::from),
            _ => None,
        });
        params.insert(format!("axis/{name}"), number.unwrap_or_else(|| value.clone()));
    }
    let device = state.get("device").and_then(Value::as_u64).unwrap_or(0);
    if device > 0 {
        params.insert("device".into(), device.into());
    }
    let words = text_of(state, "name").unwrap_or_default().split_whitespace().filter(|w| *w != "Device=0");
    let name = words.map(|w| w.replace('/', "_")).collect::<Vec<_>>().join(",");
    (params, if name.is_empty() { format!("nvbench/{benchmark}") } else { format!("nvbench/{benchmark}/{name}") })
}

/// `--jsonbin`: seconds as little-endian f32, in a folder beside the JSON.
fn samples(summaries: &Summaries, path: &Path) -> Option<Vec<f64>> {
    const TAG: &str = "nv/json/bin:nv/cold/sample_times";
    let named = Path::new(summaries.data(TAG, "filename")?.as_str()?);
    // The name is relative to where nvbench ran; the folder has come along with the JSON.
    let (folder, file) = (named.parent()?.file_name()?, named.file_name()?);
    let bytes = std::fs::read(path.parent()?.join(folder).join(file)).ok()?;
    let seconds = bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    let samples: Vec<f64> = seconds.map(|s| 1e9 * s).collect();
    (!samples.is_empty() && samples.iter().all(|ns| ns.is_finite() && *ns > 0.0)).then_some(samples)
}

fn take(line: &mut Measurement, samples: &[f64]) {
    if let Some((median, low, high)) = stats::median_interval(samples) {
        (line.median_ns, line.ci95_low_ns, line.ci95_high_ns) = (Some(median), Some(low), Some(high));
        line.params.insert("statistic".into(), "median".into());
    }
    line.min_ns = samples.iter().copied().reduce(f64::min);
    line.p99_ns = (samples.len() >= SAMPLES_FOR_P99).then(|| stats::quantile(samples, 0.99)).flatten();
    line.samples_total = samples.len() as u64;
    line.samples_ns = samples.iter().copied().take(MOST_SAMPLES).collect();
}
