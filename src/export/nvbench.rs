//! NVBench's JSON (version 1.0.0), as `nvbench-compare-legacy` and `nvbench-compare-robust` of PyPI's `cuda-bench` 0.3.0 read it.
//!
//! Times are seconds, and numbers are text, as NVBench writes them. A benchmark for each kind of case and operation; the sizes
//! that tell its cases apart are its axes, the same for all its states, because the scripts look up an axis for each value of a state.
//! The scripts read `nv/cold/time/gpu` only, so that is where every time stands, whatever caches and device it was measured
//! with.

use super::Exported;
use super::criterion::no_samples;
use super::samples::SampleStatistics;
use crate::Result;
use crate::records::measurement::{Cache, Kind, Launch};
use crate::records::{MachineRecord, Measurement};
use crate::units::counted;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Parameters that are results or sizes of memory and tell no case apart.
const NO_AXES: [&str; 7] =
    ["activation_bytes", "parameter_bytes", "memory_bytes", "family", "operation", "main_threads", "side_threads"];
/// Value of an axis that a case does not have.
const NONE: &str = "-";

/// A case with its axes.
struct Case<'a> {
    record: &'a Measurement,
    statistics: SampleStatistics,
    axes: BTreeMap<String, String>,
}

/// All cases with samples. Fails where none has any.
pub fn file(machine: &MachineRecord, records: &[Measurement]) -> Result<Exported> {
    let mut benchmarks: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    let mut without = 0;
    for record in records.iter().filter(|r| r.kind != Kind::End) {
        match SampleStatistics::of(record) {
            Some(statistics) => {
                let case = Case { record, statistics, axes: axes(record) };
                benchmarks.entry(benchmark_name(record)).or_default().push(case);
            }
            None => without += 1,
        }
    }
    if benchmarks.is_empty() {
        return Err(no_samples("nvbench-compare"));
    }
    let mut notes = vec![
        "every time stands under NVBench's cold GPU time, the only one its compare scripts read; lost: the samples (their \
         quartiles stand), flags, checks, visits, isolated times"
            .to_string(),
    ];
    if without > 0 {
        notes.push(format!("left out: {} without samples", counted(without, "case")));
    }
    if !benchmarks.values().flatten().any(|case| case.record.sm_clock_mhz.is_some()) {
        notes.push("no case has an SM clock: nvbench-compare-robust calls nothing slower without one".into());
    }
    let benchmarks: Vec<Value> =
        benchmarks.into_iter().enumerate().map(|(index, (name, cases))| benchmark(index, &name, cases)).collect();
    let version = json!({"major": 1, "minor": 0, "patch": 0, "string": "1.0.0"});
    let root = json!({
        "meta": {"argv": ["bubblebench", "export"], "version": {"json": version}},
        "devices": [device(machine, records)],
        "benchmarks": benchmarks,
    });
    Exported::json(&root, notes)
}

/// The GPU that the cases ran on; of a host its processor, whose capability and multiprocessors are 0.
fn device(machine: &MachineRecord, records: &[Measurement]) -> Value {
    let gpu = machine.gpus.first();
    // 9.0 is 900.
    let capability = gpu.and_then(|g| {
        let (major, minor) = g.compute_capability.split_once('.')?;
        Some(100 * major.parse::<u64>().ok()? + 10 * minor.parse::<u64>().ok()?)
    });
    let named = records.iter().map(|r| r.device.as_str()).find(|device| !device.is_empty());
    let name = gpu.map(|g| g.name.as_str()).or(named).unwrap_or(&machine.cpu.model);
    let capability = capability.unwrap_or(0);
    json!({
        "id": 0,
        "name": name,
        "sm_version": capability,
        "ptx_version": capability,
        "number_of_sms": gpu.map_or(0, |g| g.sms),
        "global_memory_size": gpu.map(|g| g.memory_bytes).or(machine.memory_bytes).unwrap_or(0),
    })
}

/// Kind and operation, as `collective/all_reduce`; of a layer its phase, of a pair its sharing mode, of the rest its name.
fn benchmark_name(record: &Measurement) -> String {
    let of = |name| record.param_str(name).map(str::to_string);
    let last = || record.id.rsplit('/').next().unwrap_or_default().to_string();
    match record.kind {
        Kind::Operation => {
            format!("operation/{}/{}", of("family").unwrap_or_default(), of("operation").unwrap_or_else(last))
        }
        Kind::Layer if record.params.contains_key("phase") => format!("layer/{}", of("phase").unwrap_or_default()),
        Kind::Layer => "training_step".into(),
        Kind::Collective => format!("collective/{}", of("operation").unwrap_or_else(last)),
        Kind::Corun => "corun".into(),
        Kind::Fill | Kind::End => record.id.split('/').take(2).collect::<Vec<_>>().join("/"),
    }
}

/// The parameters that are words, whole numbers or truths, but for measured times; and how caches and launch were.
fn axes(record: &Measurement) -> BTreeMap<String, String> {
    let mut axes = BTreeMap::new();
    for (name, value) in &record.params {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(truth) => truth.to_string(),
            Value::Number(number) if number.is_u64() => number.to_string(),
            _ => continue,
        };
        if !NO_AXES.contains(&name.as_str()) && !name.ends_with("_ns") {
            axes.insert(name.clone(), text);
        }
    }
    axes.extend(record.cache.map(|cache| {
        let cache = if cache == Cache::Cold { "cold" } else { "warm" };
        ("cache".to_string(), cache.to_string())
    }));
    axes.extend(record.launch.map(|launch| {
        let launch = match launch {
            Launch::Stream => "stream",
            Launch::Graph => "graph",
            Launch::Call => "call",
        };
        ("launch".to_string(), launch.to_string())
    }));
    axes
}

fn benchmark(index: usize, name: &str, mut cases: Vec<Case>) -> Value {
    let names: BTreeSet<String> = cases.iter().flat_map(|case| case.axes.keys().cloned()).collect();
    for case in &mut cases {
        for name in &names {
            case.axes.entry(name.clone()).or_insert_with(|| NONE.into());
        }
    }
    let apart: BTreeSet<&BTreeMap<String, String>> = cases.iter().map(|case| &case.axes).collect();
    if apart.len() < cases.len() {
        // Cases whose parameters are the same are told apart by their names.
        for case in &mut cases {
            case.axes.insert("case".into(), case.record.id.clone());
        }
    }
    let axes = axes_of(&cases);
    let types: BTreeMap<String, String> = axes.iter().map(|axis| (text(&axis["name"]), text(&axis["type"]))).collect();
    let states: Vec<Value> = cases.iter().map(|case| state(case, &types)).collect();
    json!({
        "name": name,
        "index": index,
        "min_samples": 1,
        "skip_time": -1.0,
        "timeout": -1.0,
        "devices": [0],
        "axes": if axes.is_empty() { Value::Null } else { Value::from(axes) },
        "states": states,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// Every axis with its values in the order in which the cases have them; whole numbers where all are.
fn axes_of(cases: &[Case]) -> Vec<Value> {
    let names = cases.first().map(|case| case.axes.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    names
        .iter()
        .map(|name| {
            let values = crate::nearest::once(cases.iter().map(|case| case.axes[name].as_str()));
            let numbers: Option<Vec<i64>> = values.iter().map(|v| v.parse().ok()).collect();
            let inputs: Vec<Value> = match &numbers {
                Some(numbers) => values.iter().zip(numbers).map(|(text, n)| input(text, json!(n))).collect(),
                None => values.iter().map(|text| input(text, json!(text))).collect(),
            };
            let kind = if numbers.is_some() { "int64" } else { "string" };
            json!({"name": name, "type": kind, "flags": "", "values": inputs})
        })
        .collect()
}

fn input(text: &str, value: Value) -> Value {
    json!({"input_string": text, "description": "", "value": value})
}

fn state(case: &Case, types: &BTreeMap<String, String>) -> Value {
    let words = case.axes.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
    let values: Vec<Value> =
        case.axes.iter().map(|(name, value)| json!({"name": name, "type": types[name], "value": value})).collect();
    json!({
        "name": format!("Device=0{words}"),
        "min_samples": 1,
        "skip_time": -1.0,
        "timeout": -1.0,
        "device": 0,
        "type_config_index": 0,
        "axis_values": if values.is_empty() { Value::Null } else { Value::from(values) },
        "summaries": summaries(case.record, &case.statistics),
        "is_skipped": false,
    })
}

/// The figures that the scripts read, and rates beside them.
fn summaries(record: &Measurement, s: &SampleStatistics) -> Vec<Value> {
    let seconds =
        |tag: &str, name: &str, ns: f64| float(&format!("nv/cold/time/gpu/{tag}"), name, "duration", ns * 1e-9);
    let share = |tag: &str, value: f64| float(&format!("nv/cold/time/gpu/{tag}"), "Noise", "percentage", value);
    let between = s.third_quartile - s.first_quartile;
    let mut all = vec![
        summary("nv/cold/sample_size", "Samples", "sample_size", "int64", s.count.to_string()),
        seconds("mean", "GPU Time", s.mean),
        seconds("min", "Min", s.least),
        seconds("max", "Max", s.most),
        seconds("stdev/absolute", "Std", s.deviation),
        seconds("q1", "Q1", s.first_quartile),
        seconds("median", "Median", s.median),
        seconds("q3", "Q3", s.third_quartile),
        seconds("iqr/absolute", "IQR", between),
        share("stdev/relative", s.deviation / s.mean),
        share("iqr/relative", between / s.median),
    ];
    let mut add = |value: Option<f64>, tag: &str, name: &str, hint: &str, scale: f64| {
        all.extend(value.filter(|v| v.is_finite() && *v > 0.0).map(|v| float(tag, name, hint, v * scale)));
    };
    add(record.sm_clock_mhz, "nv/cold/sm_clock_rate/mean", "SM Clock Rate", "frequency", 1e6);
    let per_second = 1e9 / s.mean;
    add(record.bytes, "nv/cold/bw/global/bytes_per_second", "GlobalMem BW", "byte_rate", per_second);
    add(record.flop, "nv/cold/bw/item_rate", "Elem/s", "item_rate", per_second);
    all
}

fn float(tag: &str, name: &str, hint: &str, value: f64) -> Value {
    summary(tag, name, hint, "float64", format!("{value:?}"))
}

fn summary(tag: &str, name: &str, hint: &str, kind: &str, value: String) -> Value {
    json!({
        "tag": tag,
        "name": name,
        "description": tag,
        "data": [{"name": "value", "type": kind, "value": value}],
        "hint": hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Content;
    use crate::records::files;
    use crate::records::measurement::Backend;
    use std::path::Path;

    fn machine() -> MachineRecord {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/published/amd-epyc-2c/machine.json");
        files::read_json(&path, "machine").unwrap()
    }

    fn record(id: &str, params: Value, samples: &[f64]) -> Measurement {
        let mut record = Measurement::blank(id, Kind::Collective, Backend::Host);
        record.params = params.as_object().unwrap().clone();
        record.samples_ns = samples.to_vec();
        record.median_ns = Some(samples[0]);
        record.device = "AMD EPYC".into();
        record
    }

    fn value(records: &[Measurement]) -> Value {
        let Exported { content: Content::File(text), .. } = file(&machine(), records).unwrap() else { panic!() };
        serde_json::from_str(&text).unwrap()
    }

    fn figure(state: &Value, tag: &str) -> f64 {
        let all = state["summaries"].as_array().unwrap();
        let found = all.iter().find(|s| s["tag"] == tag).unwrap_or_else(|| panic!("{tag} in {state}"));
        found["data"][0]["value"].as_str().unwrap().parse().unwrap()
    }

    /// Seconds as text; the shape of NVBench's own file.
    #[test]
    fn a_case_is_a_state_in_seconds_whose_axes_the_benchmark_has() {
        let mut small = record(
            "a/1",
            json!({"operation": "all_reduce", "ranks": 2, "bytes": 8, "in_place": false}),
            &[1000.0, 3000.0],
        );
        small.bytes = Some(8.0);
        small.sm_clock_mhz = Some(1980.0);
        let large =
            record("a/2", json!({"operation": "all_reduce", "ranks": 2, "bytes": 64, "in_place": false}), &[5000.0]);
        let value = value(&[small, large]);
        let bench = &value["benchmarks"][0];
        assert_eq!(bench["name"], "collective/all_reduce");
        let axes: Vec<&str> = bench["axes"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
        assert_eq!(axes, ["bytes", "in_place", "ranks"]);
        assert_eq!(bench["axes"][0]["type"], "int64");
        assert_eq!(bench["axes"][0]["values"][1], json!({"input_string": "64", "description": "", "value": 64}));
        let state = &bench["states"][0];
        assert_eq!(state["name"], "Device=0 bytes=8 in_place=false ranks=2");
        assert_eq!(state["axis_values"][0], json!({"name": "bytes", "type": "int64", "value": "8"}));
        assert!((figure(state, "nv/cold/time/gpu/mean") - 2e-6).abs() < 1e-18);
        assert!((figure(state, "nv/cold/time/gpu/q1") - 1.5e-6).abs() < 1e-18);
        assert!((figure(state, "nv/cold/time/gpu/stdev/relative") - 2f64.sqrt() / 2.0).abs() < 1e-12);
        assert_eq!(figure(state, "nv/cold/sm_clock_rate/mean"), 1.98e9);
        assert!((figure(state, "nv/cold/bw/global/bytes_per_second") - 4e6).abs() < 1e-6);
        assert_eq!(figure(&bench["states"][1], "nv/cold/sample_size"), 1.0);
        assert_eq!(value["devices"][0]["name"], "AMD EPYC");
        assert_eq!(value["devices"][0]["sm_version"], 0);
    }

    #[test]
    fn cases_with_the_same_parameters_are_told_apart_and_lacking_ones_filled() {
        let one = json!({"operation": "all_reduce", "bytes": 8});
        let more = json!({"operation": "all_reduce", "bytes": 8, "pattern": "ring"});
        let value = value(&[record("x", one.clone(), &[1.0]), record("y", one, &[1.0]), record("z", more, &[2.0])]);
        let states = value["benchmarks"][0]["states"].as_array().unwrap();
        let names: BTreeSet<&str> = states.iter().map(|s| s["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 3);
        assert!(names.contains("Device=0 bytes=8 case=x pattern=-"), "{names:?}");
    }

    /// All published cases: each state has every axis of its benchmark, once, and no two states are the same.
    #[test]
    fn the_published_records_have_a_state_each() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/published/amd-epyc-2c");
        let journal = crate::records::store::Journal::read(&folder).unwrap();
        let value = value(&journal.measurements);
        let mut count = 0;
        for bench in value["benchmarks"].as_array().unwrap() {
            let states = bench["states"].as_array().unwrap();
            let names: BTreeSet<&str> = states.iter().map(|s| s["name"].as_str().unwrap()).collect();
            assert_eq!(names.len(), states.len(), "{}", bench["name"]);
            let axes = bench["axes"].as_array().map_or(0, Vec::len);
            assert!(states.iter().all(|s| s["axis_values"].as_array().map_or(0, Vec::len) == axes));
            count += states.len();
        }
        let timed = journal.measurements.iter().filter(|m| SampleStatistics::of(m).is_some()).count();
        assert!(count == timed && count > 200, "{count} of {timed}");
    }
}
