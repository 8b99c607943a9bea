//! Collectives: both latencies and both bandwidths, a row a message size.

use super::Table;
use super::layers::time_cell;
use crate::records::Measurement;
use crate::records::flags::{CAPPED, NOISY};
use crate::records::measurement::{Backend, Kind, Launch};
use crate::units::{counted, format_bytes, format_ns, significant};

/// A row a collective: both times, both bandwidths in GB/s, wrong elements, flags.
pub fn collectives(records: &[Measurement]) -> Table {
    let mut table = Table::new(
        "Collectives",
        "Pipelined: back-to-back, as nccl-tests times. Isolated: each on its own, max over ranks. algbw = bytes ÷ pipelined time; busbw as nccl-tests defines it.",
        &["operation", "ranks", "size", "pipelined", "isolated", "algbw GB/s", "busbw GB/s", "wrong", "flags"],
    )
    .keys(3)
    .spare(&["algbw GB/s", "isolated", "flags", "wrong"]);
    for record in records.iter().filter(|r| r.kind == Kind::Collective) {
        let number = |value: Option<f64>| value.map_or("–".into(), significant);
        table.row(vec![
            name(record),
            record.param_u64("ranks").map_or("–".into(), |r| r.to_string()),
            record.bytes.map_or("–".into(), |b| format_bytes(b as u64)),
            time_cell(record),
            record.isolated_ns.map_or("–".into(), |i| format_ns(i.median)),
            number(record.algbw_gb_per_s),
            number(record.busbw_gb_per_s),
            record.verified.as_ref().map_or("–".into(), |v| v.wrong.to_string()),
            record.flags.iter().filter(|f| *f != NOISY && *f != CAPPED).cloned().collect::<Vec<_>>().join(" "),
        ]);
    }
    table
}

fn name(record: &Measurement) -> String {
    let operation = record.param_str("operation").unwrap_or(&record.id);
    let pattern = record.param_str("pattern").map(|p| format!(" {p}")).unwrap_or_default();
    let variant = variant(record);
    let variant = if variant.is_empty() { variant } else { format!(" ({variant})") };
    format!("{operation}{pattern}{variant}")
}

/// `bf16, in place, graph`: what tells rows of one operation and size apart. Between threads everything is f32.
fn variant(record: &Measurement) -> String {
    let is_set = |name: &str| record.params.get(name).is_some_and(|value| value == true);
    let dtype = record.param_str("dtype").filter(|_| record.backend == Backend::Cuda);
    let ctas = record.param_u64("max_ctas").map(|ctas| counted(ctas, "CTA"));
    let words = [
        dtype.map(String::from),
        is_set("in_place").then(|| "in place".to_string()),
        (record.launch == Some(Launch::Graph)).then(|| "graph".to_string()),
        is_set("registered").then(|| "registered".to_string()),
        ctas,
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
