//! The cost model: fitted to one machine's measurements, it predicts layers, collectives and pairs nobody measured.
//!
//! [`fit`] turns records into a [`CostModel`]; [`predict`] turns a [`CostModel`] into times with intervals. Both are
//! plain functions of values: no hardware, no clock, no file. Equations: docs/cost-model.md.
//!
//! | file | part |
//! |---|---|
//! | [`nnls`], [`regress`] | non-negative relative least squares, choice of features, intervals |
//! | [`anchors`] | the correction of a fit near measured cases |
//! | [`heldout`] | which cases are held out, and the error on them |
//! | [`features`], [`operations`], [`layers`] | single operations, and layers as sums of them |
//! | [`prepared`] | fits looked up and parsed once, for whoever asks often |
//! | [`piecewise`], [`collectives`], `borrowed` | latency–bandwidth segments over message size; points taken over from other operations |
//! | [`ranks`], [`topology`] | bytes and steps of a collective, and links of a group: from measured rank counts to others |
//! | `derived` | a collective from another one, or from what is stated of the network |
//! | [`interference`], [`gate`] | what a small model costs the big one; what the gate costs |
//! | [`valid`] | the range of every input measured |
//! | [`join`], [`datasheet`] | several models as one; a model of a GPU nobody measured |

pub mod anchors;
mod borrowed;
pub mod collectives;
pub mod datasheet;
mod derived;
pub mod features;
pub mod gate;
pub mod heldout;
pub mod interference;
pub mod join;
pub mod layers;
pub mod nnls;
pub mod operations;
pub mod piecewise;
pub mod predict;
pub mod prepared;
pub mod ranks;
pub mod regress;
pub mod topology;
pub mod valid;

use crate::records::cost_model::{
    self, AnchorPoint, CostModel, Fit, GateCost, Interval, LaunchFit, MadeFrom, ModelMachine, OperationFits,
};
use crate::records::measurement::Kind;
use crate::records::{MachineRecord, Measurement};
use crate::units::counted;
use crate::{Error, Result};
use heldout::HeldOutPart;
use operations::DeviceFacts;
use std::collections::BTreeMap;

/// A fitted cost model, and sentences on what was left out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The cost model as `cost_model.json` holds it.
    pub model: CostModel,
    /// The cases behind `accuracy`: each was predicted once by a fit that had not seen it.
    pub held_out: Vec<HeldOutPart>,
    /// Sentences on what was left out of the model and why.
    pub notes: Vec<String>,
}

/// Fits every part that has enough rows; the others are left out with a note. The same measurements give the same
/// model, byte for byte. `sha256` is that of `measurements.jsonl`, hexadecimal.
/// Returns an error if nothing can be fitted, or if a fitted number cannot be used.
pub fn fit(measurements: &[Measurement], machine: &MachineRecord, sha256: &str) -> Result<Fitted> {
    let records = usable(measurements);
    let mut notes = Vec::new();
    let hardware = hardware(machine);
    let (operation_rows, unread) = operations::rows(&records);
    if unread > 0 {
        notes.push(format!("{unread} operation rows have no time or no sizes and were left out"));
    }
    let layer_rows = layers::rows(&records);
    let primary = operations::primary_dtype(&operation_rows);
    let all_rows: Vec<_> = operation_rows.iter().collect();
    let mut fits = operations::fit(&all_rows, primary, hardware, true);
    let mut held_out = operations::held_out(&all_rows, primary, hardware);
    let mut accuracy: Vec<_> = held_out.iter().filter_map(HeldOutPart::accuracy).collect();
    let layer = layers::fit(&layer_rows, &operation_rows, &fits, primary, hardware)?;
    accuracy.extend(layer.accuracy);
    notes.extend(layer.notes);
    fits.launch.additivity = layer.additivity;
    let collective = collectives::fit(&records);
    let (interference, corun, corun_notes) = interference::fit(&records);
    let (gate, gate_notes) = gate::fit(&records);
    accuracy.extend(collective.accuracy.into_iter().chain(corun.accuracy()));
    held_out.extend(layer.held_out.into_iter().chain(collective.held_out).chain([corun]));
    notes.extend(collective.notes.into_iter().chain(corun_notes).chain(gate_notes));
    let model = CostModel {
        schema: cost_model::SCHEMA.into(),
        machine: described(machine, &records),
        made_from: made_from(machine, sha256, measurements),
        layer: layers::anchors(&layer_rows),
        valid: valid::ranges(&operation_rows, &layer_rows, &collective.fits),
        operations: fits,
        collectives: collective.fits,
        topology: topology::of_machine(&machine.topology),
        interference,
        gate,
        accuracy,
        origins: BTreeMap::new(),
    };
    notes.extend(missing(&model));
    refuse_empty(&model)?;
    check(&model)?;
    Ok(Fitted { model, held_out, notes })
}

/// The last line of each case that has a time, by name: the order of the lines then changes nothing.
fn usable(measurements: &[Measurement]) -> Vec<&Measurement> {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, m) in measurements.iter().enumerate().filter(|(_, m)| m.kind != Kind::End) {
        let before = last.entry(&m.id).or_insert(index);
        if m.median_ns.is_some() || measurements[*before].median_ns.is_none() {
            *before = index;
        }
    }
    let finite =
        |m: &Measurement| [m.median_ns, m.ci95_low_ns, m.ci95_high_ns].iter().flatten().all(|ns| ns.is_finite());
    last.into_values().map(|index| &measurements[index]).filter(|m| finite(m)).collect()
}

fn hardware(machine: &MachineRecord) -> DeviceFacts {
    match machine.gpus.first() {
        // 0: an imported record that does not say.
        Some(gpu) => {
            DeviceFacts { sms: Some(gpu.sms).filter(|&n| n > 0), cache_bytes: Some(gpu.l2_bytes).filter(|&n| n > 0) }
        }
        None => DeviceFacts { sms: None, cache_bytes: machine.cpu.last_level_cache_bytes },
    }
}

fn described(machine: &MachineRecord, records: &[&Measurement]) -> ModelMachine {
    let first = records.first();
    ModelMachine {
        name: machine.name.clone(),
        device: first.map(|r| r.device.clone()).unwrap_or_default(),
        backend: first.map_or("host", |r| r.backend.name()).into(),
        memory_bytes: machine.gpus.first().map(|g| g.memory_bytes).or(machine.memory_bytes).filter(|&n| n > 0),
        source: cost_model::Source::Measured,
    }
}

/// `at` is when the last case ended, not now: the model is a function of its measurements.
fn made_from(machine: &MachineRecord, sha256: &str, measurements: &[Measurement]) -> MadeFrom {
    MadeFrom {
        measurements_sha256: Some(sha256.to_string()),
        commit: machine.run.commit.clone(),
        at: measurements.iter().map(|m| m.at.as_str()).max().unwrap_or_default().to_string(),
        source: None,
    }
}

fn missing(model: &CostModel) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |empty: bool, what: &str| {
        if empty {
            notes.push(format!("no {what}: too few rows"));
        }
    };
    note(model.operations.gemm.is_empty(), "fit of products");
    note(model.operations.attention.is_empty(), "fit of attention");
    note(model.operations.streaming.is_empty(), "fit of streaming operations");
    note(model.operations.launch.additivity.is_empty(), "layer prediction beyond the shapes measured");
    note(model.collectives.is_empty(), "collective");
    notes
}

fn refuse_empty(model: &CostModel) -> Result<()> {
    let OperationFits { gemm, attention, streaming, launch: LaunchFit { additivity, .. } } = &model.operations;
    let fits = [gemm, attention, streaming, additivity].iter().map(|table| table.len()).sum::<usize>();
    let rest = model.layer.len() + model.collectives.len() + model.interference.pairs.len();
    if fits + rest > 0 || model.gate.is_some() {
        return Ok(());
    }
    Err(Error::input(
        "the measurements hold nothing a cost model can be fitted from",
        "run `bubblebench measure all` (or at least `measure gpt-layer --preset quick`) with the same --results first",
    ))
}

/// The model with fits of its layers' phases where layers are all it holds, as of published figures, and there are enough
/// of a type to fit; any other model as it is. For whoever reads one from a file, once. Returns an error if a layer cannot
/// be used.
pub fn with_layer_fits(mut model: CostModel) -> Result<CostModel> {
    let OperationFits { gemm, attention, streaming, launch } = &model.operations;
    if [gemm, attention, streaming, &launch.additivity].iter().all(|table| table.is_empty()) {
        model.operations.launch.additivity = layers::fit_anchors(&model.layer)?;
    }
    Ok(model)
}

/// Checks that a model, from whatever file, can be used. Returns an error if a fit has an unknown feature, or if a
/// cost, an interval or a slowdown is negative, infinite or otherwise impossible.
pub fn check(model: &CostModel) -> Result<()> {
    let wrong = |what: String| Err(Error::input(what, "make the cost model again with `bubblebench fit`"));
    let OperationFits { gemm, attention, streaming, launch } = &model.operations;
    for (name, fit) in [gemm, attention, streaming, &launch.additivity].into_iter().flatten() {
        check_fit(name, fit)?;
    }
    model.topology.as_ref().map_or(Ok(()), topology::check)?;
    let usable = |ns: f64| ns.is_finite() && ns >= 0.0;
    for c in &model.collectives {
        let asked = c.ranks >= 2 && c.nodes >= 1 && usable(c.relative_low) && usable(c.relative_high);
        let sound = asked
            && c.segments.iter().all(|s| usable(s.latency_ns) && usable(s.ns_per_byte) && s.from_bytes < s.to_bytes);
        let joined = c.segments.windows(2).all(|w| w[0].to_bytes <= w[1].from_bytes);
        if !sound || !joined {
            return wrong(format!(
                "the cost model's segments of {} over {} cannot be used",
                c.operation,
                counted(c.ranks, "rank")
            ));
        }
    }
    for a in &model.layer {
        let times = [a.forward_ns, a.backward_input_ns, a.backward_weight_ns];
        let sound = |t: &Interval| usable(t.low) && usable(t.high) && t.low <= t.median && t.median <= t.high;
        if a.shape.validate().is_err() || !times.iter().all(sound) {
            return wrong(format!("the cost model's layer {} cannot be used", a.shape.slug()));
        }
    }
    for p in &model.interference.pairs {
        let Interval { median, low, high } = p.slowdown;
        if [median, low, high].iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return wrong(format!("the cost model's slowdown of {} beside {} cannot be used", p.main, p.side));
        }
        if p.side_alone_per_s.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return wrong(format!("the cost model's steps a second of {} cannot be used", p.side));
        }
    }
    if let Some(GateCost { open_ns, close_ns, drain_ns, drain_by_side_ns, restart_ns }) = &model.gate
        && ![open_ns, close_ns, drain_ns, restart_ns].into_iter().chain(drain_by_side_ns.values()).all(|ns| usable(*ns))
    {
        return wrong("the cost model's gate has a time that cannot be used".into());
    }
    Ok(())
}

fn check_fit(name: &str, fit: &Fit) -> Result<()> {
    fit.features.iter().try_for_each(|f| features::Feature::parse(f).map(drop))?;
    let numbers = fit.coefficients_ns.iter().chain([&fit.relative_low, &fit.relative_high]);
    // An interval of a thousand times the prediction says nothing.
    let narrow = fit.relative_low <= 1e3 && fit.relative_high <= 1e3;
    let sound = narrow && numbers.into_iter().all(|v| v.is_finite() && *v >= 0.0);
    if fit.features.len() == fit.coefficients_ns.len() && sound && check_anchors(fit)? {
        return Ok(());
    }
    Err(Error::input(
        format!("the cost model's fit `{name}` has a coefficient that cannot be used"),
        "make the cost model again with `bubblebench fit`",
    ))
}

fn check_anchors(fit: &Fit) -> Result<bool> {
    let Some(anchors) = &fit.anchors else { return Ok(true) };
    let nothing = features::FeatureInput::default();
    anchors.sizes.iter().try_for_each(|size| operations::known_size(size, &nothing).map(drop))?;
    let positive = |v: f64| v.is_finite() && v > 0.0;
    let point = |p: &AnchorPoint| {
        let sizes = p.at.len() == anchors.sizes.len() && p.at.iter().all(|v| positive(*v));
        sizes && positive(p.ratio) && p.weight.is_finite()
    };
    Ok(positive(anchors.length) && anchors.points.iter().all(point))
}
