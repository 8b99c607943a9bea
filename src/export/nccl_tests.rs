//! Collectives in nccl-tests' own columns, so that scripts that read its output read ours.
//!
//! A block for each operation, number of ranks and element type: the settings, the ranks, the header, a row a size, the two
//! closing lines. Words and widths are nccl-tests' (2.17), numbers keep its two decimals as long as seven columns hold
//! them. Where one half of a row was not measured its figures are `nan` and its `#wrong` is `N/A`.
//! `import --from nccl-tests` reads it back.

use crate::import::nccl_tests::names::{OPERATIONS, TYPES};
use crate::records::measurement::{Backend, Kind, Launch};
use crate::records::{MachineRecord, Measurement};
use crate::shape::collective::bus_factor;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One of nccl-tests' programs, as far as its output tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Operations in the order of [`OPERATIONS`].
    operation: usize,
    ranks: u64,
    nodes: u64,
    dtype: String,
    host: bool,
    transport: String,
    graph: bool,
    /// `registered`, `ctas4`: variants that nccl-tests has no word for.
    variant: Vec<String>,
}

/// Out of place and in place.
type Halves<'a> = [Option<&'a Measurement>; 2];
type Rows<'a> = BTreeMap<u64, Halves<'a>>;

/// The blocks of all measured collectives as text; empty where no collective was measured.
pub fn blocks(machine: &MachineRecord, records: &[Measurement]) -> String {
    let mut found: BTreeMap<Key, Rows> = BTreeMap::new();
    for record in records.iter().filter(|r| r.kind == Kind::Collective) {
        let wrong = record.verified.as_ref().is_some_and(|v| v.wrong > 0);
        let (Some(key), Some(bytes)) = (key(record), record.param_u64("bytes")) else { continue };
        if record.median_ns.is_some() || wrong {
            let in_place = record.params.get("in_place").is_some_and(|v| v == true);
            found.entry(key).or_default().entry(bytes).or_default()[usize::from(in_place)] = Some(record);
        }
    }
    found.iter().map(|(key, rows)| block(machine, key, rows)).collect()
}

/// Operations with a time that nccl-tests has no columns for, and how many cases of each there are.
pub fn left_out(records: &[Measurement]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records.iter().filter(|r| r.kind == Kind::Collective && r.median_ns.is_some()) {
        if key(record).is_none() {
            *counts.entry(record.param_str("operation").unwrap_or("unknown").to_string()).or_default() += 1;
        }
    }
    counts
}

/// None for what nccl-tests has no columns for: another reduction than the sum, another root than 0.
fn key(record: &Measurement) -> Option<Key> {
    let (name, pattern) = (record.param_str("operation")?, record.param_str("pattern"));
    if record.params.contains_key("redop") || record.params.contains_key("root") {
        return None;
    }
    Some(Key {
        operation: OPERATIONS.iter().position(|(_, operation, p)| *operation == name && *p == pattern)?,
        ranks: record.param_u64("ranks").filter(|&n| n >= 2)?,
        nodes: record.param_u64("nodes").unwrap_or(1).max(1),
        dtype: record.param_str("dtype").unwrap_or("f32").to_string(),
        host: record.backend == Backend::Host,
        transport: record.param_str("transport").unwrap_or("nccl").to_string(),
        graph: record.launch == Some(Launch::Graph),
        variant: variant(record),
    })
}

fn variant(record: &Measurement) -> Vec<String> {
    let registered = record.params.get("registered").is_some_and(|v| v == true).then(|| "registered".to_string());
    let capped = record.param_u64("max_ctas").map(|ctas| format!("ctas{ctas}"));
    registered.into_iter().chain(capped).collect()
}

fn block(machine: &MachineRecord, key: &Key, rows: &Rows) -> String {
    let (program, ..) = OPERATIONS[key.operation];
    let mut out = String::new();
    let backend = if key.host { "host" } else { "cuda" };
    let variant = if key.variant.is_empty() { String::new() } else { format!(" variant {}", key.variant.join(",")) };
    let _ = writeln!(
        out,
        "# bubblebench {} backend {backend} transport {}{variant} in nccl-tests' columns",
        env!("CARGO_PKG_VERSION"),
        key.transport
    );
    if let Some(nccl) = machine.versions.get("nccl").cloned().flatten().filter(|_| !key.host) {
        let _ = writeln!(out, "# NCCL version {nccl}");
    }
    let _ = writeln!(out, "# Collective test starting: {program}_perf");
    let _ = writeln!(out, "{}", settings(key, rows));
    out.push_str("#\n# Using devices\n");
    (0..key.ranks).for_each(|rank| out.push_str(&device(machine, key, rank)));
    out.push_str(&header());
    rows.iter().for_each(|(&bytes, halves)| out.push_str(&row(key, bytes, halves)));
    let wrong: u64 = rows.values().flatten().flatten().filter_map(|r| r.verified.as_ref()).map(|v| v.wrong).sum();
    let bandwidths: Vec<f64> =
        rows.values().flatten().flatten().filter_map(|r| figures(key, r)).map(|f| f[2]).collect();
    let average = crate::stats::mean(&bandwidths).unwrap_or(0.0);
    let _ = writeln!(out, "# {:<20} : {wrong} {}", "Out of bounds values", if wrong > 0 { "FAILED" } else { "OK" });
    let _ = writeln!(out, "# {:<20} : {} ", "Avg bus bandwidth", six_digits(average));
    let _ = writeln!(out, "#\n# Collective test concluded: {program}_perf\n#");
    out
}

fn settings(key: &Key, rows: &Rows) -> String {
    let sizes: Vec<u64> = rows.keys().copied().collect();
    let (least, most) = (sizes.first().copied().unwrap_or(0), sizes.last().copied().unwrap_or(0));
    let factor = sizes.get(1).map_or(2, |second| second / least.max(1));
    // The rows' own iterations differ (a sampler chose them): the largest size's stand for all.
    let largest = rows.values().next_back().and_then(|halves| halves.iter().flatten().next());
    let iterations = largest.map_or(1, |r| r.iterations_per_sample.saturating_mul(r.samples_total.max(1)));
    let (threads, gpus) = if key.host { (key.ranks, 1) } else { (1, key.ranks / key.nodes) };
    format!(
        "# nThread {threads} nGpus {gpus} minBytes {least} maxBytes {most} step: {factor}(factor) warmup iters: 1 iters: {iterations} agg iters: 1 validation: 1 graph: {}",
        u8::from(key.graph)
    )
}

fn device(machine: &MachineRecord, key: &Key, rank: u64) -> String {
    let a_node = (key.ranks / key.nodes).max(1);
    let (node, local) = (rank / a_node, rank % a_node);
    let host = machine.hostname.as_deref().unwrap_or("host");
    let host = if node == 0 { host.to_string() } else { format!("{host}+{node}") };
    let (index, name) = match (key.host, machine.gpus.as_slice()) {
        (true, _) | (false, []) => (local, machine.cpu.model.as_str()),
        (false, gpus) => {
            let gpu = &gpus[local as usize % gpus.len()];
            (gpu.index, gpu.name.as_str())
        }
    };
    format!("#  Rank {rank:>2} Group  0 Pid {:>6} on {host:>10} device {index:>2} [0000:00:00] {name}\n", 0)
}

fn header() -> String {
    let leading = |names: [&str; 5]| {
        let [size, count, dtype, redop, root] = names;
        format!("# {size:>10}  {count:>12}  {dtype:>8}  {redop:>6}  {root:>6}")
    };
    let half = |names: [&str; 4]| {
        let [time, algbw, busbw, wrong] = names;
        format!("  {time:>7}  {algbw:>6}  {busbw:>6}  {wrong:>6}")
    };
    let line = |names, units| format!("{}{}{} \n", leading(names), half(units), half(units));
    format!(
        "#\n{}           out-of-place                       in-place          \n{}{}",
        leading([""; 5]),
        line(["size", "count", "type", "redop", "root"], ["time", "algbw", "busbw", "#wrong"]),
        line(["(B)", "(elements)", "", "", ""], ["(us)", "(GB/s)", "(GB/s)", ""])
    )
}

fn row(key: &Key, bytes: u64, halves: &Halves) -> String {
    let (program, operation, _) = OPERATIONS[key.operation];
    let (dtype, width) =
        TYPES.iter().find(|(_, ours, _)| *ours == key.dtype).map_or((key.dtype.as_str(), 1), |(t, _, w)| (*t, *w));
    let parts = match operation {
        // Counted as what one rank gives, gets, or sends to one peer.
        "all_gather" | "reduce_scatter" | "all_to_all" | "all_to_all_v" | "gather" | "scatter" => key.ranks,
        _ => 1,
    };
    let redop = if ["all_reduce", "reduce", "reduce_scatter"].contains(&program) { "sum" } else { "none" };
    let root = if ["broadcast", "reduce"].contains(&program) { 0 } else { -1 };
    let mut out = format!("{bytes:>12}  {:>12}  {dtype:>8}  {redop:>6}  {root:>6}", bytes / width / parts);
    for half in halves {
        let [us, algbw, busbw] = half.and_then(|r| figures(key, r)).unwrap_or([f64::NAN; 3]);
        let wrong = half.and_then(|r| r.verified.as_ref()).map_or("N/A".into(), |v| v.wrong.to_string());
        let _ = write!(out, "  {}  {}  {}  {wrong:>6}", fitted(us, 7), fitted(algbw, 6), fitted(busbw, 6));
    }
    out.push('\n');
    out
}

/// µs, algbw and busbw; none without a time.
fn figures(key: &Key, record: &Measurement) -> Option<[f64; 3]> {
    let ns = record.median_ns?;
    let algbw = record.bytes.unwrap_or(0.0) / ns;
    let factor = bus_factor(OPERATIONS[key.operation].1, key.ranks).unwrap_or(1.0);
    Some([ns / 1e3, algbw, algbw * factor])
}

/// Two decimals, or as many as the width holds; beyond that one digit and an exponent.
fn fitted(value: f64, width: usize) -> String {
    if value.is_nan() {
        return format!("{:>width$}", "nan");
    }
    let plain = (0..=2).rev().map(|decimals| format!("{value:>width$.decimals$}")).find(|text| text.len() <= width);
    plain.unwrap_or_else(|| {
        let exponent = value.abs().log10().floor();
        format!("{:>width$}", format!("{:.0}e+{exponent:02}", value / 10f64.powf(exponent)))
    })
}

/// Six significant digits without trailing zeros, as C's `%g` has them.
fn six_digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let decimals = (5 - value.abs().log10().floor() as i64).clamp(0, 12) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_the_decimals_their_width_allows() {
        for (value, text) in [
            (0.779, "   0.78"),
            (43.8, "  43.80"),
            (4218.0, "4218.00"),
            (16240.04, "16240.0"),
            (640740.4, " 640740"),
            (12345678.0, "  1e+07"),
            (f64::NAN, "    nan"),
        ] {
            assert_eq!(fitted(value, 7), text);
        }
        assert_eq!(fitted(1234567.0, 6), " 1e+06");
        assert_eq!([66.48341, 0.0, 125.0, 1234567.0].map(six_digits), ["66.4834", "0", "125", "1234567"]);
    }
}
