//! A table of single operations, published or profiled: products, attention, streaming operations and collectives.
//!
//! | `kind` | `operation` | sizes |
//! |---|---|---|
//! | `product` | `forward`, `backward_input`, `backward_weight` of Y = X·Wᵀ | `rows`×`inputs` is X, `outputs`×`inputs` is W |
//! | `attention` | `forward`, `backward` | `batch heads kv_heads sequence head_size causal` |
//! | `streaming` | a name of [`Operation::streaming_names`] | `bytes` read and written |
//! | `collective` | a name of nccl-tests' table, with a pattern behind it or none (`send_recv/one_way`) | `ranks nodes bytes` |
//!
//! `time_us` is the time of the whole operation in microseconds, `time_low_us` and `time_high_us` its 95 % interval. Bytes
//! of a collective are as nccl-tests counts them.

use super::nccl_tests::names;
use super::rates::Bounds;
use super::table::{self, Columns, Row, Seen, TextFile};
use super::{Imported, Origin, imported_line};
use crate::records::Measurement;
use crate::records::measurement::{Interval, Kind};
use crate::shape::collective::bus_factor;
use crate::shape::operation::{Epilogue, Operation, Product};
use crate::shape::params::operation_params;
use crate::shape::{Attention, DType, Linear};
use crate::units::{counted, format_bytes};
use crate::{Error, Result, nearest};
use serde_json::{Map, Value};

const NS_PER_US: f64 = 1e3;
/// The largest size of an operation, and the most elements of attention.
const MOST: u64 = 1 << 40;

const COLUMNS: Columns = Columns {
    row: "operation",
    known: &[
        "kind",
        "operation",
        "dtype",
        "time_us",
        "time_low_us",
        "time_high_us",
        "batch",
        "rows",
        "inputs",
        "outputs",
        "heads",
        "kv_heads",
        "sequence",
        "head_size",
        "causal",
        "bytes",
        "ranks",
        "nodes",
        "gpu",
        "source",
    ],
    needed: &["kind", "operation", "dtype", "time_us"],
};

/// Reads all rows of one GPU.
pub(super) fn read(files: &[TextFile], gpu: Option<&str>) -> Result<Imported> {
    let (gpu, rows, left_out) = table::of_one_gpu(table::rows(files, &COLUMNS)?, gpu)?;
    let (mut seen, mut records) = (Seen::default(), Vec::new());
    for row in &rows {
        let time = row.time_ns("time", "us", NS_PER_US)?.ok_or_else(|| row.missing("time_us"))?;
        let mut line = match row.one_of("kind", &KINDS, |kind| kind)?.ok_or_else(|| row.missing("kind"))? {
            "product" => computed(row, time, &gpu, product(row)?)?,
            "attention" => computed(row, time, &gpu, attention(row)?)?,
            "streaming" => streaming(row, time, &gpu)?,
            _ => collective(row, time, &gpu)?,
        };
        if seen.first(row, &line.id, &[time])? {
            row.text("source").map(|source| line.params.insert("source".into(), source.into()));
            records.push(line);
        }
    }
    let notes = left_out.into_iter().chain(seen.note()).collect();
    Ok(Imported { origin: Origin::of_gpu(&gpu), records, notes })
}

const KINDS: [&str; 4] = ["product", "attention", "streaming", "collective"];

fn dtype(row: &Row) -> Result<DType> {
    row.one_of("dtype", &DType::FLOATS, DType::name)?.ok_or_else(|| row.missing("dtype"))
}

fn size(row: &Row, name: &str) -> Result<u64> {
    limited(row, name, row.needed_count(name)?)
}

fn limited(row: &Row, name: &str, size: u64) -> Result<u64> {
    match size {
        0..=MOST => Ok(size),
        _ => Err(row.refused(format_args!("{name} is {size}"), format!("give 1 to {MOST}"))),
    }
}

fn named(row: &Row, all: &[&'static str]) -> Result<&'static str> {
    row.one_of("operation", all, |name| name)?.ok_or_else(|| row.missing("operation"))
}

/// An operation whose FLOPs say how long it may have taken, with its sizes as they stand in its name.
fn product(row: &Row) -> Result<(Operation, String)> {
    let all = [Product::Forward, Product::ToInputs, Product::ToWeights];
    let product = row.one_of("operation", &all, Product::name)?.ok_or_else(|| row.missing("operation"))?;
    if row.count("batch")?.is_some_and(|batch| batch > 1) {
        return Err(row.refused("a product has a batch", "give its rows for the whole batch, or leave the row out"));
    }
    let [rows, inputs, outputs] = [size(row, "rows")?, size(row, "inputs")?, size(row, "outputs")?];
    let shape = Linear::new(rows as usize, inputs as usize, outputs as usize);
    let operation = Operation::Linear { product, shape, epilogue: Epilogue::None };
    Ok((operation, format!("op/product/{}/r{rows}-i{inputs}-o{outputs}", product.name())))
}

fn attention(row: &Row) -> Result<(Operation, String)> {
    let name = named(row, &["forward", "backward"])?;
    let [batch, heads] = [size(row, "batch")?, size(row, "heads")?];
    let [sequence, head_size] = [size(row, "sequence")?, size(row, "head_size")?];
    let kv_heads = limited(row, "kv_heads", row.count("kv_heads")?.unwrap_or(heads))?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(row.refused(
            format_args!("heads {heads} cannot be divided by kv_heads {kv_heads}"),
            "every head of keys and values serves equally many heads of queries",
        ));
    }
    let elements = [batch, heads, sequence, head_size].into_iter().try_fold(1u64, u64::checked_mul);
    if elements.is_none_or(|elements| elements > MOST) {
        return Err(row.refused(
            format_args!("batch {batch} x heads {heads} x sequence {sequence} x head_size {head_size} is too large"),
            format!("give sizes of at most {MOST} elements together"),
        ));
    }
    let causal = row.truth("causal")?.unwrap_or(true);
    let shape = Attention::new(batch as usize, heads as usize, sequence as usize, head_size as usize)
        .grouped(kv_heads as usize)
        .causal(causal);
    let operation = match name {
        "forward" => Operation::AttentionForward(shape),
        _ => Operation::AttentionBackward(shape),
    };
    let mut id = format!("op/attention/{name}/b{batch}-a{heads}-s{sequence}-d{head_size}");
    id.push_str(&if kv_heads == heads { String::new() } else { format!("-kv{kv_heads}") });
    id.push_str(if causal { "" } else { "-noncausal" });
    Ok((operation, id))
}

fn computed(row: &Row, time: Interval, gpu: &str, (operation, id): (Operation, String)) -> Result<Measurement> {
    let dtype = dtype(row)?;
    Bounds::flop(dtype, gpu).hold(row, "time_us", "microseconds", time, operation.flop())?;
    let mut line = imported_line(format!("{id}-{}", dtype.name()), Kind::Operation, gpu, time);
    line.params = operation_params(&operation);
    line.params.insert("dtype".into(), dtype.name().into());
    line.flop = Some(operation.flop());
    line.bytes = Some(operation.bytes(dtype));
    Ok(line)
}

fn streaming(row: &Row, time: Interval, gpu: &str) -> Result<Measurement> {
    let (name, dtype, bytes) = (named(row, &Operation::streaming_names())?, dtype(row)?, size(row, "bytes")?);
    Bounds::memory(gpu).hold(row, "time_us", "microseconds", time, bytes as f64)?;
    let id = format!("op/{name}/{}-{}", format_bytes(bytes), dtype.name());
    let mut line = imported_line(id, Kind::Operation, gpu, time);
    for (key, value) in [("operation", name), ("family", "streaming"), ("dtype", dtype.name())] {
        line.params.insert(key.into(), value.into());
    }
    line.bytes = Some(bytes as f64);
    Ok(line)
}

/// A collective's record as nccl-tests' would be; its name is the same too.
fn collective(row: &Row, time: Interval, gpu: &str) -> Result<Measurement> {
    let (operation, pattern) = collective_name(row)?;
    let dtypes: Vec<&str> = nearest::once(names::TYPES.map(|(_, ours, _)| ours));
    let dtype = row.one_of("dtype", &dtypes, |name| name)?.ok_or_else(|| row.missing("dtype"))?;
    let (ranks, nodes, bytes) = (size(row, "ranks")?, row.count("nodes")?.unwrap_or(1), size(row, "bytes")?);
    if ranks < 2 || nodes > ranks {
        return Err(row.refused(
            format_args!("{} on {} make no collective", counted(ranks, "rank"), counted(nodes, "node")),
            "give at least 2 ranks, and 1 to that many nodes",
        ));
    }
    Bounds::message().hold(row, "time_us", "microseconds", time, bytes as f64)?;
    let path = pattern.map_or(operation.to_string(), |pattern| format!("{operation}/{pattern}"));
    let on_nodes = if nodes > 1 { format!("/n{nodes}") } else { String::new() };
    let id = format!("nccl/{path}/r{ranks}{on_nodes}/{dtype}/{}", format_bytes(bytes));
    let mut line = imported_line(id, Kind::Collective, gpu, time);
    let text = |name: &str| Value::from(name);
    let params = [
        ("operation", Some(text(operation))),
        ("pattern", pattern.map(text)),
        ("ranks", Some(ranks.into())),
        ("nodes", Some(nodes.into())),
        ("dtype", Some(text(dtype))),
        ("bytes", Some(bytes.into())),
        ("in_place", Some(false.into())),
        ("transport", Some(text("nccl"))),
    ];
    let given = params.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
    line.params = given.collect::<Map<String, Value>>();
    line.bytes = Some(bytes as f64);
    line.algbw_gb_per_s = Some(bytes as f64 / time.median);
    line.busbw_gb_per_s = line.algbw_gb_per_s.zip(bus_factor(operation, ranks)).map(|(algbw, factor)| algbw * factor);
    Ok(line)
}

/// `all_reduce`, or `send_recv/one_way`; send_recv alone is what a cost model answers for any pattern.
fn collective_name(row: &Row) -> Result<(&'static str, Option<&'static str>)> {
    let paths: Vec<(String, &'static str, Option<&'static str>)> = names::OPERATIONS
        .into_iter()
        .flat_map(|(_, operation, pattern)| {
            let of_pattern = pattern.map(|pattern| (format!("{operation}/{pattern}"), operation, Some(pattern)));
            [Some((operation.to_string(), operation, None)), of_pattern]
        })
        .flatten()
        .collect();
    let text = row.text("operation").ok_or_else(|| row.missing("operation"))?;
    let found = paths.iter().find(|(path, ..)| path == text);
    found.map(|(_, operation, pattern)| (*operation, *pattern)).ok_or_else(|| -> Error {
        let cure = nearest::cure(text, paths.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>());
        row.refused(format_args!("operation is `{text}`, which is unknown"), cure)
    })
}
