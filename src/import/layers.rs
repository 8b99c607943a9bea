//! A table of layer timings, from whatever timed them: a record for each phase of each layer, named as our own are.
//!
//! A row is one layer on one tensor-parallel rank, for one micro-batch. Where only the whole backward pass was timed it is
//! divided into its two parts by FLOPs: each of a linear layer's two backward products costs one half of them, attention's
//! backward belongs to the inputs, and what is computed again does too. The parts add up to the time that was given.

use super::rates::Bounds;
use super::table::{self, Columns, Row, Seen, TextFile};
use super::{Imported, Origin, imported_line};
use crate::records::Measurement;
use crate::records::measurement::{Interval, Kind};
use crate::shape::operation::Family;
use crate::shape::params::layer_params;
use crate::shape::{AttentionKind, DType, LayerShape, Normalization, Phase, Positions, Recompute};
use crate::units::counted;
use crate::{Error, Result};

const NS_PER_MS: f64 = 1e6;
const MIB: f64 = 1_048_576.0;
/// How far two parts of the backward pass may be from the whole, all three given.
const ROUNDING: f64 = 0.02;

const COLUMNS: Columns = Columns {
    row: "layer",
    known: &[
        "model",
        "hidden",
        "heads",
        "sequence",
        "micro_batch",
        "dtype",
        "causal",
        "forward_ms",
        "backward_ms",
        "backward_input_ms",
        "backward_weight_ms",
        "tensor",
        "sequence_parallel",
        "kv_heads",
        "ffn_hidden",
        "gated",
        "norm",
        "positions",
        "bias",
        "attention",
        "recompute",
        "activation_mib",
        "nodes",
        "gpu",
        "source",
        "forward_low_ms",
        "forward_high_ms",
        "backward_low_ms",
        "backward_high_ms",
        "backward_input_low_ms",
        "backward_input_high_ms",
        "backward_weight_low_ms",
        "backward_weight_high_ms",
    ],
    needed: &["hidden", "heads", "sequence", "micro_batch", "dtype", "causal", "forward_ms"],
};

/// Reads all rows of one GPU.
pub(super) fn read(files: &[TextFile], gpu: Option<&str>) -> Result<Imported> {
    let (gpu, rows, left_out) = table::of_one_gpu(table::rows(files, &COLUMNS)?, gpu)?;
    let (mut seen, mut divided, mut records) = (Seen::default(), 0, Vec::new());
    for row in &rows {
        let shape = shape(row)?;
        let times = times(row, &shape, &gpu)?;
        if seen.first(row, &shape.slug(), &times.of_phases())? {
            divided += usize::from(times.divided.is_some());
            for (phase, time) in PHASES.into_iter().zip(times.of_phases()) {
                records.push(record(row, &shape, phase, time, &times, &gpu)?);
            }
        }
    }
    let divided = (divided > 0).then(|| {
        format!("{} with one backward time: divided between inputs and weights by FLOPs", counted(divided, "layer"))
    });
    let notes = left_out.into_iter().chain(seen.note()).chain(divided).collect();
    Ok(Imported { origin: Origin::of_gpu(&gpu), records, notes })
}

const PHASES: [Phase; 3] = [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight];

fn shape(row: &Row) -> Result<LayerShape> {
    let size = |name| row.needed_count(name);
    let dtype = row.one_of("dtype", &DType::TRAINED, DType::name)?.ok_or_else(|| row.missing("dtype"))?;
    let plain = LayerShape::new(size("hidden")?, size("heads")?, size("sequence")?, size("micro_batch")?, dtype);
    let tensor = row.count("tensor")?.unwrap_or(plain.tensor);
    let shape = LayerShape {
        kv_heads: row.count("kv_heads")?.unwrap_or(plain.kv_heads),
        ffn_hidden: row.count("ffn_hidden")?.unwrap_or(plain.ffn_hidden),
        gated: row.truth("gated")?.unwrap_or(plain.gated),
        norm: row.one_of("norm", &Normalization::ALL, Normalization::name)?.unwrap_or(plain.norm),
        positions: row.one_of("positions", &Positions::ALL, Positions::name)?.unwrap_or(plain.positions),
        bias: row.truth("bias")?.unwrap_or(plain.bias),
        causal: row.truth("causal")?.unwrap_or(plain.causal),
        attention: row.one_of("attention", &AttentionKind::ALL, AttentionKind::name)?.unwrap_or(plain.attention),
        tensor,
        sequence_parallel: row.truth("sequence_parallel")?.unwrap_or(false) && tensor > 1,
        recompute: row.one_of("recompute", &Recompute::ALL, Recompute::name)?.unwrap_or(plain.recompute),
        ..plain
    };
    shape.validate().map_err(|error| match error {
        Error::Input { what, cure } => row.refused(what, cure),
        other => other,
    })?;
    Ok(shape)
}

/// The times of a row.
struct Times {
    forward: Interval,
    backward_input: Interval,
    backward_weight: Interval,
    /// The backward pass as it was given, where the two parts are a division of it.
    divided: Option<f64>,
}

impl Times {
    /// In the order of [`PHASES`].
    const fn of_phases(&self) -> [Interval; 3] {
        [self.forward, self.backward_input, self.backward_weight]
    }
}

fn times(row: &Row, shape: &LayerShape, gpu: &str) -> Result<Times> {
    let time = |name: &str| row.time_ns(name, "ms", NS_PER_MS);
    let forward = time("forward")?.ok_or_else(|| row.missing("forward_ms"))?;
    let bounds = Bounds::flop(shape.dtype, gpu);
    let product_flop = |phase| product_flop(shape, phase);
    bounds.hold(row, "forward_ms", "milliseconds", forward, product_flop(Phase::Forward))?;
    let [whole, input, weight] = [time("backward")?, time("backward_input")?, time("backward_weight")?];
    let flop = [product_flop(Phase::BackwardInput), product_flop(Phase::BackwardWeight)];
    let given = [
        ("backward_ms", whole, flop[0] + flop[1]),
        ("backward_input_ms", input, flop[0]),
        ("backward_weight_ms", weight, flop[1]),
    ];
    for (column, time, flop) in given {
        time.map_or(Ok(()), |time| bounds.hold(row, column, "milliseconds", time, flop))?;
    }
    let (backward_input, backward_weight, divided) = match (input, weight, whole) {
        (Some(input), Some(weight), whole) => {
            let sum = input.median + weight.median;
            if let Some(whole) = whole.filter(|whole| (whole.median / sum - 1.0).abs() > ROUNDING) {
                return Err(row.refused(
                    format_args!(
                        "backward_ms {} is not the sum of its parts, {}",
                        whole.median / NS_PER_MS,
                        sum / NS_PER_MS
                    ),
                    "leave backward_ms empty where both parts are known",
                ));
            }
            (input, weight, None)
        }
        (Some(input), None, Some(whole)) => (input, rest(row, whole, input)?, None),
        (None, Some(weight), Some(whole)) => (rest(row, whole, weight)?, weight, None),
        (None, None, Some(whole)) => {
            let (input, weight) = divide(whole, flop[0] / (flop[0] + flop[1]));
            (input, weight, Some(whole.median))
        }
        (Some(_), None, None) => return Err(row.missing("backward_weight_ms")),
        (None, Some(_), None) => return Err(row.missing("backward_input_ms")),
        (None, None, None) => {
            return Err(row.refused("no backward time", "give backward_ms, or its two parts if they are known"));
        }
    };
    Ok(Times { forward, backward_input, backward_weight, divided })
}

/// FLOPs of the linear layers' products and of attention; the rest of a layer moves bytes.
fn product_flop(shape: &LayerShape, phase: Phase) -> f64 {
    let operations = shape.operations(phase);
    let counted = operations.iter().filter(|(_, operation)| operation.family() != Family::Streaming);
    counted.map(|(_, operation)| operation.flop()).sum()
}

/// What is left of the backward pass when one of its parts is known.
fn rest(row: &Row, whole: Interval, part: Interval) -> Result<Interval> {
    let ns = whole.median - part.median;
    if ns <= 0.0 {
        return Err(row.refused(
            format_args!(
                "backward_ms {} is no more than a part of it, {}",
                whole.median / NS_PER_MS,
                part.median / NS_PER_MS
            ),
            "backward_ms is the time of the whole backward pass",
        ));
    }
    Ok(Interval { median: ns, low: ns, high: ns })
}

/// The two parts of a backward pass, of which the first has this share. Their sum is the whole.
fn divide(whole: Interval, share: f64) -> (Interval, Interval) {
    let [low, median, high] = [whole.low, whole.median, whole.high].map(|ns| share * ns);
    let input = Interval { median, low, high };
    (input, Interval { median: whole.median - median, low: whole.low - low, high: whole.high - high })
}

fn record(
    row: &Row,
    shape: &LayerShape,
    phase: Phase,
    time: Interval,
    times: &Times,
    gpu: &str,
) -> Result<Measurement> {
    let id = format!("gpt/{}/{}", shape.slug(), phase.name());
    let mut line = imported_line(id, Kind::Layer, gpu, time);
    line.params = layer_params(shape, phase);
    let mut put = |name: &str, value: serde_json::Value| line.params.insert(name.to_string(), value);
    if let Some(mib) = row.number("activation_mib")? {
        put("activation_bytes", ((MIB * mib).round() as u64).into());
    }
    if let Some(whole) = times.divided.filter(|_| phase != Phase::Forward) {
        put("divided_by", "flop".into());
        put("backward_ns", whole.into());
    }
    if let Some(nodes) = row.count("nodes")? {
        put("nodes", nodes.into());
    }
    for name in ["model", "source"] {
        row.text(name).map(|text| put(name, text.into()));
    }
    line.flop = Some(shape.flop(phase));
    line.bytes = Some(shape.operations(phase).iter().map(|(_, operation)| operation.bytes(shape.dtype)).sum());
    Ok(line)
}
