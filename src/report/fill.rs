//! The filled stage and the gate: predicted against measured.

use super::Table;
use super::layers::time_cell;
use crate::records::Measurement;
use crate::records::measurement::{FillOutcome, Kind};
use crate::units::{format_ns, significant};

/// A row a filled stage: what was measured, and in brackets what was predicted before.
pub fn filled(records: &[Measurement]) -> Table {
    let mut table = Table::new(
        "Filled pipeline stage",
        "One stage replayed with its real operations and waits; filled against empty iterations, interleaved. Each figure: measured (predicted before the run).",
        &["stage", "main slowdown", "bubble used", "stop latency", "side steps/s", "bubbles opened"],
    )
    .spare(&["side steps/s", "bubbles opened", "stop latency"]);
    for record in records {
        let Some(fill) = &record.fill else { continue };
        table.row(vec![
            record.id.trim_start_matches("fill/").into(),
            format!(
                "{:+.2}% ±{:.2} ({:+.2}%)",
                100.0 * (fill.main_slowdown.median - 1.0),
                50.0 * (fill.main_slowdown.high - fill.main_slowdown.low),
                100.0 * (fill.predicted_main_slowdown - 1.0)
            ),
            format!("{:.0}% ({:.0}%)", fill.bubble_used_percent, fill.predicted_bubble_used_percent),
            format!("{} ({})", stop_latency(fill), format_ns(fill.predicted_stop_latency_ns)),
            significant(fill.side_steps_per_s),
            format!("{} of {}", fill.bubbles_opened, fill.bubbles),
        ]);
    }
    table
}

/// A side that was never let in was never stopped.
fn stop_latency(fill: &FillOutcome) -> String {
    if fill.bubbles_opened == 0 { "–".into() } else { format_ns(fill.stop_latency_ns.median) }
}

/// Times of the gate, and of sides that it stops and lets on.
pub fn gate(records: &[Measurement]) -> Table {
    let mut table = Table::new(
        "Gate",
        "open: opening to the side's first operation; drain: closing to the side standing still, the operation in flight included; restart: time a side loses by going on after a pause.",
        &["what", "time", "p99"],
    );
    for record in records.iter().filter(|r| r.kind == Kind::Fill) {
        let Some(what) = record.id.strip_prefix("fill/gate/") else { continue };
        let p99 = record.p99_ns.map_or("–".into(), format_ns);
        table.row(vec![what.into(), time_cell(record), p99]);
    }
    table
}
