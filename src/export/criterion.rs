//! A Criterion baseline as one file, the form that critcmp (0.1.8) takes and exports beside Criterion's own folders.
//!
//! critcmp shows a benchmark's mean and standard deviation, in ns, and what it does a second: bytes (it divides by 2^30 and
//! says GB) or FLOPs as elements. It tells two files apart by their `name` alone.

use super::Exported;
use super::samples::SampleStatistics;
use crate::records::Measurement;
use crate::records::measurement::Kind;
use crate::units::counted;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Half of a normal distribution's 95 % interval in standard deviations.
const NORMAL_95: f64 = 1.96;
/// Standard error of a median ÷ that of a mean, of a normal distribution: √(π/2).
const MEDIAN_ERROR: f64 = 1.2533;
/// From a median distance to a standard deviation, of a normal distribution.
const TO_DEVIATION: f64 = 1.4826;

#[derive(Serialize)]
struct Statistic {
    confidence_interval: Value,
    point_estimate: f64,
    standard_error: f64,
}

#[derive(Serialize)]
struct Estimates {
    mean: Statistic,
    median: Statistic,
    median_abs_dev: Statistic,
    /// Criterion's regression over counts of iterations: nothing of the kind is measured.
    slope: Option<Statistic>,
    std_dev: Statistic,
}

fn statistic(value: f64, standard_error: f64) -> Statistic {
    let half = NORMAL_95 * standard_error;
    Statistic {
        confidence_interval: json!({"confidence_level": 0.95, "lower_bound": value - half, "upper_bound": value + half}),
        point_estimate: value,
        standard_error,
    }
}

impl Estimates {
    fn of(s: &SampleStatistics) -> Estimates {
        let error = s.deviation / (s.count as f64).sqrt();
        Estimates {
            mean: statistic(s.mean, error),
            median: statistic(s.median, MEDIAN_ERROR * error),
            median_abs_dev: statistic(TO_DEVIATION * s.median_distance, 0.0),
            slope: None,
            std_dev: statistic(s.deviation, 0.0),
        }
    }
}

/// The baseline `name` of all cases with samples. Fails where none has any.
pub fn file(name: &str, records: &[Measurement]) -> Result<Exported> {
    let mut benchmarks = Map::new();
    let mut without = 0;
    for record in records.iter().filter(|r| r.kind != Kind::End) {
        match SampleStatistics::of(record) {
            Some(found) => {
                benchmarks.insert(record.id.clone(), benchmark(name, record, &found));
            }
            None => without += 1,
        }
    }
    if benchmarks.is_empty() {
        return Err(no_samples("critcmp"));
    }
    let mut notes = vec![
        "critcmp shows mean and standard deviation where this program gives median and interval; lost: flags, checks, visits, \
         isolated times"
            .to_string(),
    ];
    if without > 0 {
        notes.push(format!("left out: {} without samples", counted(without, "case")));
    }
    Exported::json(&json!({"name": name, "benchmarks": benchmarks}), notes)
}

/// The refusal of records of which none has a sample.
pub(super) fn no_samples(tool: &str) -> Error {
    Error::input(
        format!("{tool} compares samples, and no case has any"),
        "give --results DIR with a folder that `bubblebench measure` wrote",
    )
}

fn benchmark(baseline: &str, record: &Measurement, statistics: &SampleStatistics) -> Value {
    let (group, function) = match record.id.rsplit_once('/') {
        Some((group, function)) => (group, Some(function)),
        None => (record.id.as_str(), None),
    };
    json!({
        "baseline": baseline,
        "fullname": format!("{baseline}/{}", record.id),
        "criterion_benchmark_v1": {
            "group_id": group,
            "function_id": function,
            "value_str": null,
            "throughput": throughput(record),
            "full_id": record.id,
            "directory_name": record.id,
        },
        "criterion_estimates_v1": Estimates::of(statistics),
    })
}

/// What one operation does: FLOPs where they were counted, else bytes; whole numbers.
fn throughput(record: &Measurement) -> Value {
    let whole = |amount: Option<f64>| amount.filter(|a| a.is_finite() && *a >= 1.0).map(|a| a as u64);
    match (whole(record.flop), whole(record.bytes)) {
        (Some(flop), _) => json!({"Elements": flop}),
        (None, Some(bytes)) => json!({"Bytes": bytes}),
        (None, None) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Content;
    use crate::records::measurement::Backend;

    fn record(id: &str, samples: &[f64]) -> Measurement {
        let mut record = Measurement::blank(id, Kind::Layer, Backend::Host);
        record.samples_ns = samples.to_vec();
        record.median_ns = samples.first().copied();
        record
    }

    /// The shape of critcmp's own `--export`, with values by hand: 100, 110, 120 have mean 110 and deviation 10.
    #[test]
    fn a_baseline_has_critcmps_own_fields() {
        let mut with_flop = record("gpt/h256/forward", &[100.0, 120.0, 110.0]);
        with_flop.flop = Some(2e6);
        let mut with_bytes = record("host/all_reduce/64MiB", &[5.0]);
        with_bytes.bytes = Some(67_108_864.0);
        let records = [with_flop, with_bytes, record("wrong", &[])];
        let Exported { content: Content::File(text), notes } = file("before", &records).unwrap() else { panic!() };
        let value: Value = serde_json::from_str(&text).unwrap();
        let layer = &value["benchmarks"]["gpt/h256/forward"];
        assert_eq!(
            (value["name"].as_str(), layer["fullname"].as_str()),
            (Some("before"), Some("before/gpt/h256/forward"))
        );
        let about = &layer["criterion_benchmark_v1"];
        assert_eq!(about["group_id"], "gpt/h256");
        assert_eq!(about["function_id"], "forward");
        assert_eq!(about["throughput"], json!({"Elements": 2_000_000}));
        let estimates = &layer["criterion_estimates_v1"];
        assert_eq!(estimates["mean"]["point_estimate"], 110.0);
        assert_eq!(estimates["std_dev"]["point_estimate"], 10.0);
        assert_eq!(estimates["median"]["point_estimate"], 110.0);
        assert!(estimates["slope"].is_null());
        let error = 10.0 / 3.0f64.sqrt();
        let low = estimates["mean"]["confidence_interval"]["lower_bound"].as_f64().unwrap();
        assert!((low - (110.0 - 1.96 * error)).abs() < 1e-9, "{low}");
        let collective = &value["benchmarks"]["host/all_reduce/64MiB"]["criterion_benchmark_v1"];
        assert_eq!(collective["throughput"], json!({"Bytes": 67_108_864}));
        assert!(notes[1].contains("1 case without samples"), "{notes:?}");
    }

    #[test]
    fn records_without_samples_are_refused() {
        let error = file("x", &[record("a", &[])]).unwrap_err().to_string();
        assert!(error.contains("samples") && error.contains("--results"), "{error}");
    }
}
