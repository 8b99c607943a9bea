//! Layer times (one row a shape, one column a phase), the small models' steps, and single operations.

use super::Table;
use crate::records::Measurement;
use crate::records::flags::{NOISY, WRONG};
use crate::records::measurement::Kind;
use crate::units::{format_ns, significant};
use std::collections::{BTreeSet, HashMap};

/// `1.234 ms ±0.8%`: the median and half its 95 % interval; `noisy` rows carry a `~`.
pub fn time_cell(record: &Measurement) -> String {
    match (record.median_ns, record.ci95_low_ns, record.ci95_high_ns) {
        // Clamped at zero (a restart that costs nothing): no relative interval.
        (Some(median), ..) if median <= 0.0 => format_ns(0.0),
        // Imported figures come without an interval, and a single sample makes none.
        (Some(median), low, high) => {
            let half = low.zip(high).map(|(low, high)| 50.0 * (high - low) / median);
            let interval = match half {
                Some(half) if half > 100.0 => " ±>100%".to_string(),
                Some(half) => format!(" ±{half:.1}%"),
                None => String::new(),
            };
            format!("{}{interval}{}", format_ns(median), if record.has_flag(NOISY) { " ~" } else { "" })
        }
        _ => why_without_a_time(record),
    }
}

/// The flag that says why a row has no number: a wrong result before all others, else the first.
pub fn why_without_a_time(record: &Measurement) -> String {
    let flags = &record.flags;
    flags.iter().find(|flag| *flag == WRONG).or(flags.first()).cloned().unwrap_or_else(|| "–".into())
}

/// FLOP per ns are GFLOP/s.
fn rate(record: &Measurement) -> Option<f64> {
    Some(record.flop? / record.median_ns?)
}

/// One unit for a table's column, that of its fastest row.
struct RateUnit(f64, &'static str);

impl RateUnit {
    fn of(records: &[Measurement], kind: Kind) -> Self {
        let fastest = records.iter().filter(|r| r.kind == kind).filter_map(rate).fold(0.0, f64::max);
        if fastest < 1e4 { RateUnit(1.0, "GFLOP/s") } else { RateUnit(1e3, "TFLOP/s") }
    }

    fn cell(&self, record: &Measurement) -> String {
        rate(record).map_or("–".into(), |rate| significant(rate / self.0))
    }
}

const PHASES: [&str; 4] = ["forward", "backward_input", "backward_weight", "forward_backward"];
/// How a phase is run, as its case's name ends: warm and launch by launch, as a graph, from cold caches.
const WAYS: [&str; 4] = ["", "/graph", "/cold", "/graph-cold"];

/// A row a shape and way of running it, a column a phase.
pub fn layers(records: &[Measurement]) -> Table {
    let unit = RateUnit::of(records, Kind::Layer);
    let what = format!(
        "Time of one layer and micro-batch: median ± half the 95 % interval (~ noisy: interval over 2 %); {} of forward + backward.",
        unit.1
    );
    let mut table = Table::new(
        "GPT layer",
        &what,
        &["shape", "forward", "to inputs", "to weights", "forward + backward", unit.1, "checked"],
    )
    .spare(&["checked", unit.1]);
    let layers = records.iter().filter(|r| r.kind == Kind::Layer);
    let mut shapes: Vec<&str> = layers.filter_map(|r| r.id.strip_prefix("gpt/")?.split('/').next()).collect();
    // A run that was taken up again may have put a shape's phases apart: each shape once, where it came first.
    let mut seen = BTreeSet::new();
    shapes.retain(|shape| seen.insert(*shape));
    let by_name: HashMap<&str, &Measurement> = records.iter().rev().map(|r| (r.id.as_str(), r)).collect();
    for shape in shapes {
        for way in WAYS {
            let find = |phase: &str| by_name.get(format!("gpt/{shape}/{phase}{way}").as_str()).copied();
            if PHASES.iter().all(|phase| find(phase).is_none()) {
                continue;
            }
            let mut row = vec![format!("{shape}{}", way.replace('/', " "))];
            row.extend(PHASES.iter().map(|phase| find(phase).map_or("–".into(), time_cell)));
            let whole = find("forward_backward").or_else(|| find("forward"));
            row.push(whole.map_or("–".into(), |whole| unit.cell(whole)));
            row.push(whole.and_then(|r| r.verified.as_ref()).map_or("–".into(), |v| format!("{:.0e}", v.max_error)));
            table.row(row);
        }
    }
    table
}

/// A row a single operation: its time, its rate, and the bytes that it moves in a second.
pub fn operations(records: &[Measurement]) -> Table {
    let unit = RateUnit::of(records, Kind::Operation);
    let what = format!(
        "Single operations: median ± half the 95 % interval, {}, and GB/s of the bytes that must move.",
        unit.1
    );
    let header = ["operation", "time", unit.1, "GB/s", "cache"];
    let mut table = Table::new("Operations", &what, &header).spare(&["cache", "GB/s", unit.1]);
    for record in records.iter().filter(|r| r.kind == Kind::Operation) {
        let bandwidth = match (record.bytes, record.median_ns) {
            (Some(bytes), Some(ns)) => significant(bytes / ns),
            _ => "–".into(),
        };
        let cache = record.cache.map_or("–", |c| match c {
            crate::records::measurement::Cache::Cold => "cold",
            crate::records::measurement::Cache::Warm => "warm",
        });
        table.row(vec![record.id.clone(), time_cell(record), unit.cell(record), bandwidth, cache.into()]);
    }
    table
}

/// A row a small model: the time of a training step alone, and steps in a second.
pub fn side_models(records: &[Measurement]) -> Table {
    let mut table = Table::new(
        "Small models",
        "One training step alone: forward, backward, update.",
        &["model", "step", "steps/s"],
    );
    for record in records.iter().filter(|r| r.id.starts_with("side/")) {
        let name = record.id.split('/').nth(1).unwrap_or(&record.id);
        let rate = record.median_ns.map_or("–".into(), |ns| significant(1e9 / ns));
        table.row(vec![name.into(), time_cell(record), rate]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::Backend;

    fn layer(name: &str, ns: f64) -> Measurement {
        let mut record = Measurement::blank(format!("gpt/h64/{name}"), Kind::Layer, Backend::Cuda);
        record.flop = Some(1e6);
        (record.median_ns, record.ci95_low_ns, record.ci95_high_ns) = (Some(ns), Some(ns), Some(ns));
        record
    }

    #[test]
    fn every_way_a_layer_was_run_has_its_row() {
        let table = layers(&[layer("forward", 2e3), layer("forward/graph", 1e3), layer("forward_backward/cold", 4e3)]);
        let text = table.markdown();
        let rows: Vec<&str> = text.lines().filter(|line| line.contains("h64")).collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert!(
            rows[0].contains("2.000 µs") && rows[1].contains("h64 graph") && rows[2].contains("h64 cold"),
            "{text}"
        );
        assert!(text.contains("GFLOP/s") && rows[1].contains("1000"), "{text}");
    }

    #[test]
    fn a_gpus_rates_are_in_tflop_per_second() {
        let text = layers(&[layer("forward", 2.0), layer("backward_input", 1e3)]).markdown();
        assert!(text.contains("TFLOP/s") && !text.contains("GFLOP/s") && text.contains("500"), "{text}");
    }
}
