//! One GPT layer: as measured where the shape is an anchor; else from its operations, or where none was measured from its
//! products and attention; else scaled from the nearest anchor by FLOPs, which is always out of range.

use super::{Prediction, Predictor, SCHEMA};
use crate::cost::valid::{self, Outside};
use crate::cost::{layers, prepared};
use crate::records::CostModel;
use crate::records::cost_model::{LayerAnchor, Range};
use crate::records::measurement::Interval;
use crate::shape::operation::Operation;
use crate::shape::{DType, LayerShape, Phase};
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Half the interval, as a fraction of the time, of a layer scaled by FLOPs alone.
const SCALED_SPREAD: f64 = 0.5;

/// Predicted times and sizes of a GPT layer for one micro-batch on one tensor-parallel rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerPrediction {
    /// Name and version of this format: `bubblebench.prediction/1`.
    pub schema: String,
    /// Time of the forward.
    pub forward: Prediction,
    /// Time of the backward to the inputs, with the recomputation that the shape asks for.
    pub backward_input: Prediction,
    /// Time of the backward to the weights.
    pub backward_weight: Prediction,
    /// Time of the three phases one after another, as they run together.
    pub forward_backward: Prediction,
    /// Activations kept for one micro-batch between its forward and its backward, in bytes on one tensor-parallel rank.
    pub activation_bytes: u64,
    /// Parameters of the layer in its element type, in bytes on one tensor-parallel rank.
    pub parameter_bytes: u64,
}

impl Predictor<'_> {
    /// Predicts a layer: as measured where its shape was, else from its operations, else from the nearest layer by FLOPs.
    /// Returns an error if the shape is invalid, or if nothing that was measured in its element type can predict it.
    pub fn layer(&self, shape: LayerShape) -> Result<LayerPrediction> {
        shape.validate()?;
        self.layers.or_try(shape, || self.new_layer(shape))
    }

    fn new_layer(&self, shape: LayerShape) -> Result<LayerPrediction> {
        if let Some(anchor) = self.model.layer.iter().find(|a| a.shape == shape) {
            return Ok(measured(self, anchor));
        }
        refuse_dtype(self.model, shape.dtype)?;
        let mut outside = Outside::of(&self.model.valid, &valid::inputs(&shape));
        // A Llama's layer is none of those measured, however near its sizes.
        outside.unknown += usize::from(!self.model.layer.iter().any(|a| a.shape.like(&shape)));
        let mut parts = Vec::with_capacity(3);
        for phase in layers::PARTS {
            parts.push(fitted(self, &shape, phase, 0.0, outside)?);
        }
        let parts: Vec<Prediction> = match parts.into_iter().collect::<Option<Vec<_>>>() {
            Some(parts) => parts,
            None => {
                outside.unknown += 1;
                scaled(self.model, &shape, outside)?
            }
        };
        let sum = Prediction::sum(&parts);
        let whole = fitted(self, &shape, Phase::ForwardBackward, sum.median_ns, outside)?.unwrap_or(sum);
        Ok(put_together(&parts, whole, shape.activation_bytes(), shape.parameter_bytes()))
    }

    /// Predicts one operation on its own (embedding, head, optimizer step, …); `None` where nothing like it was measured.
    /// Returns an error if nothing of its element type was measured.
    pub fn operation(&self, operation: &Operation, dtype: DType) -> Result<Option<Prediction>> {
        refuse_dtype(self.model, dtype)?;
        timed(self, operation, dtype)
    }
}

fn put_together(
    parts: &[Prediction],
    whole: Prediction,
    activation_bytes: u64,
    parameter_bytes: u64,
) -> LayerPrediction {
    LayerPrediction {
        schema: SCHEMA.into(),
        forward: parts[0],
        backward_input: parts[1],
        backward_weight: parts[2],
        forward_backward: whole,
        activation_bytes,
        parameter_bytes,
    }
}

fn measured(by: &Predictor<'_>, anchor: &LayerAnchor) -> LayerPrediction {
    let as_measured = |t: &Interval| match t.low < t.high {
        true => Prediction { median_ns: t.median, low_ns: t.low, high_ns: t.high, in_range: true },
        // A figure without a spread was measured once, or is somebody's mean.
        false => Prediction::with_spread(t.median, prepared::AS_MEASURED, prepared::AS_MEASURED, Outside::default()),
    };
    let times = [&anchor.forward_ns, &anchor.backward_input_ns, &anchor.backward_weight_ns];
    let parts = times.map(as_measured);
    let sum = Prediction::sum(&parts);
    // The phases one after another cost a little more or less than timed alone: by the fit's factor, if it has one.
    let joined = layers::evaluate(&by.fits, &anchor.shape, Phase::ForwardBackward, sum.median_ns);
    let factor = match joined {
        Ok(Some(ns)) if sum.median_ns > 0.0 => ns / sum.median_ns,
        _ => 1.0,
    };
    let whole = Prediction {
        median_ns: factor * sum.median_ns,
        low_ns: factor.min(1.0) * sum.low_ns,
        high_ns: factor.max(1.0) * sum.high_ns,
        in_range: true,
    };
    put_together(&parts, whole, anchor.activation_bytes, anchor.parameter_bytes)
}

fn refuse_dtype(model: &CostModel, dtype: DType) -> Result<()> {
    let known = valid::dtypes(&model.valid);
    if known.is_empty() || known.contains(&dtype.name()) {
        return Ok(());
    }
    Err(Error::input(
        format!("nothing of type {} was measured on {}", dtype.name(), model.machine.name),
        format!("give --dtype {}, or measure layers of that type", known.join(" or ")),
    ))
}

fn fitted(
    by: &Predictor<'_>,
    shape: &LayerShape,
    phase: Phase,
    phases_ns: f64,
    outside: Outside,
) -> Result<Option<Prediction>> {
    let Some(found) = by.fits.phase(phase, shape.dtype)? else {
        return summed(by, shape, phase);
    };
    let Some(ns) = layers::evaluate(&by.fits, shape, phase, phases_ns)? else { return Ok(None) };
    let fit = found.fit;
    let own = Prediction::with_spread(ns, fit.relative_low, fit.relative_high, outside);
    if own.in_range || !found.of_operations() {
        return Ok(Some(own));
    }
    // Beyond the layers measured the operations carry on: their own intervals and ranges count, and what the sum lacked.
    Ok(summed(by, shape, phase)?.map(|sum| {
        let joined = |end: f64, fit: f64| ((end / sum.median_ns - 1.0).powi(2) + fit.powi(2)).sqrt();
        let (low, high) = (joined(sum.low_ns, fit.relative_low), joined(sum.high_ns, fit.relative_high));
        Prediction {
            median_ns: ns,
            low_ns: ns * (1.0 - low).max(0.05),
            high_ns: ns * (1.0 + high),
            in_range: sum.in_range && outside.unknown == 0,
        }
    }))
}

/// Without a measured layer: the plain sum of the operations, each with its own interval and its own range.
fn summed(by: &Predictor<'_>, shape: &LayerShape, phase: Phase) -> Result<Option<Prediction>> {
    if phase == Phase::ForwardBackward {
        return Ok(None);
    }
    let mut parts = Vec::new();
    for (_, op) in shape.operations(phase) {
        match timed(by, &op, shape.dtype)? {
            Some(part) => parts.push(part),
            None => return Ok(None),
        }
    }
    Ok(Some(Prediction::sum_of_kin(&parts)))
}

/// The nearest anchor's times by the ratio of FLOPs, phase by phase.
fn scaled(model: &CostModel, shape: &LayerShape, outside: Outside) -> Result<Vec<Prediction>> {
    let distance = |a: &LayerAnchor| {
        let pairs = valid::inputs(&a.shape).into_iter().zip(valid::inputs(shape));
        pairs.map(|((_, x), (_, y))| ((1.0 + x) / (1.0 + y)).ln().abs()).sum::<f64>()
    };
    let candidates = model.layer.iter().filter(|a| a.shape.dtype == shape.dtype);
    let Some(anchor) = candidates.min_by(|a, b| distance(a).total_cmp(&distance(b))) else {
        return Err(Error::input(
            format!(
                "the cost model of {} has no layer of type {} and no fits of its operations",
                model.machine.name,
                shape.dtype.name()
            ),
            "measure some with `bubblebench measure gpt-layer` and fit again",
        ));
    };
    let outside = Outside { distance: outside.distance.max(distance(anchor)), ..outside };
    let times = [anchor.forward_ns, anchor.backward_input_ns, anchor.backward_weight_ns];
    let scale = |phase| shape.flop(phase) / anchor.shape.flop(phase);
    Ok(layers::PARTS
        .into_iter()
        .zip(times)
        .map(|(phase, t)| Prediction::with_spread(t.median * scale(phase), SCALED_SPREAD, SCALED_SPREAD, outside))
        .collect())
}

fn timed(by: &Predictor<'_>, operation: &Operation, dtype: DType) -> Result<Option<Prediction>> {
    by.operations.or_try((*operation, dtype), || {
        let Some(found) = by.fits.time(operation, dtype)? else { return Ok(None) };
        let outside = outside(by, operation, dtype);
        Ok(Some(Prediction::with_spread(found.ns, found.relative_low, found.relative_high, outside)))
    })
}

/// How far an operation's sizes lie outside what was measured. What only a roofline prices has its width already.
fn outside(by: &Predictor<'_>, operation: &Operation, dtype: DType) -> Outside {
    let ranges = &by.model.valid;
    match operation {
        Operation::BatchedProduct { .. } => Outside { outside: 1, ..Outside::default() },
        Operation::Linear { shape: s, .. } => {
            let sizes = [("gemm/rows", s.rows), ("gemm/inputs", s.inputs), ("gemm/outputs", s.outputs)];
            Outside::of(ranges, &sizes.map(|(name, size)| (name, size as f64)))
        }
        Operation::AttentionForward(a) | Operation::AttentionBackward(a) => {
            let sizes = [
                ("attention/batch", a.batch),
                ("attention/heads", a.heads),
                ("attention/sequence", a.sequence),
                ("attention/head_size", a.head_size),
            ];
            Outside::of(ranges, &sizes.map(|(name, size)| (name, size as f64)))
        }
        streaming => {
            let range = by.streaming.or_make(streaming.name(), || streaming_range(by.model, streaming.name()));
            Outside::of_one(range.as_ref(), streaming.bytes(dtype))
        }
    }
}

/// The range of a streaming operation's bytes. One that was not measured by name is answered for by all others together, and
/// held against their sizes.
fn streaming_range(model: &CostModel, name: &str) -> Option<Range> {
    model.valid.get(&format!("streaming/{name}/bytes")).copied().or_else(|| {
        let all = model.valid.iter().filter(|(key, _)| key.starts_with("streaming/") && key.ends_with("/bytes"));
        all.map(|(_, range)| *range).reduce(|a, b| Range { low: a.low.min(b.low), high: a.high.max(b.high) })
    })
}
