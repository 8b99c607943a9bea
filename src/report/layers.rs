//! Layer times: one row a shape, one column a phase.

use super::Table;
use crate::records::Measurement;
use crate::records::measurement::Kind;
use crate::units::{format_ns, significant};
use std::collections::BTreeSet;

/// `1.234 ms ±0.8%`: the median and half its 95 % interval; `noisy` rows carry a `~`.
pub fn time_cell(record: &Measurement) -> String {
    match (record.median_ns, record.ci95_low_ns, record.ci95_high_ns) {
        // Clamped at zero (a restart that costs nothing): no relative interval.
        (Some(median), ..) if median <= 0.0 => format_ns(0.0),
        (Some(median), Some(low), Some(high)) => {
            let noisy = if record.has_flag("noisy") { " ~" } else { "" };
            format!("{} ±{:.1}%{noisy}", format_ns(median), 50.0 * (high - low) / median)
        }
        // Imported figures come without an interval.
        (Some(median), ..) => format_ns(median),
        _ => record.flags.first().cloned().unwrap_or_else(|| "–".into()),
    }
}

fn rate_cell(record: &Measurement) -> String {
    match (record.flop, record.median_ns) {
        (Some(flop), Some(ns)) => significant(flop / ns), // FLOP per ns are GFLOP/s
        _ => "–".into(),
    }
}

const PHASES: [&str; 4] = ["forward", "backward_input", "backward_weight", "forward_backward"];

pub fn layers(records: &[Measurement]) -> Table {
    let mut table = Table::new(
        "GPT layer",
        "Time of one layer and micro-batch: median ± half the 95 % interval (~ noisy: interval over 2 %); GFLOP/s of forward + backward.",
        &["shape", "forward", "to inputs", "to weights", "forward + backward", "GFLOP/s", "checked"],
    );
    let layers = records.iter().filter(|r| r.kind == Kind::Layer);
    let mut shapes: Vec<&str> = layers.filter_map(|r| r.id.strip_prefix("gpt/")?.split('/').next()).collect();
    // A run that was taken up again may have put a shape's phases apart: each shape once, where it came first.
    let mut seen = BTreeSet::new();
    shapes.retain(|shape| seen.insert(*shape));
    for shape in shapes {
        let find = |phase: &str| records.iter().find(|r| r.id == format!("gpt/{shape}/{phase}"));
        let mut row = vec![shape.to_string()];
        row.extend(PHASES.iter().map(|phase| find(phase).map_or("–".into(), time_cell)));
        let whole = find("forward_backward").or_else(|| find("forward"));
        row.push(whole.map_or("–".into(), rate_cell));
        row.push(whole.and_then(|r| r.verified.as_ref()).map_or("–".into(), |v| format!("{:.0e}", v.max_error)));
        table.row(row);
    }
    table
}

pub fn operations(records: &[Measurement]) -> Table {
    let mut table = Table::new(
        "Operations",
        "Single operations: median ± half the 95 % interval, GFLOP/s, and GB/s of the bytes that must move.",
        &["operation", "time", "GFLOP/s", "GB/s", "cache"],
    );
    for record in records.iter().filter(|r| r.kind == Kind::Operation) {
        let bandwidth = match (record.bytes, record.median_ns) {
            (Some(bytes), Some(ns)) => significant(bytes / ns),
            _ => "–".into(),
        };
        let cache = record.cache.map_or("–", |c| match c {
            crate::records::measurement::Cache::Cold => "cold",
            crate::records::measurement::Cache::Warm => "warm",
        });
        table.row(vec![record.id.clone(), time_cell(record), rate_cell(record), bandwidth, cache.into()]);
    }
    table
}

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
