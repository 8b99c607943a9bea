//! Whole layers: the ones measured (anchors), and how a layer's time follows from its operations' (additivity).
//!
//! A phase's time is a₁·Σ operations, with a fixed cost a₀ or a cost a₂·bytes beside it where cross-validation takes
//! one, fitted per phase on measured layers: what the sum misses — gaps between launches, data still in a cache,
//! threads already awake — is in the coefficients. Without single operations a₁·products + a₂·attention serves. Near
//! measured layers either is corrected by them. forward_backward is fitted on the sum of the three phases.

use super::anchors;
use super::features::{self, Feature, FeatureInput};
use super::heldout::{self, HeldOutCase, HeldOutPart};
use super::operations::{self, DeviceFacts, OperationRow};
use super::prepared::PreparedFits;
use super::regress::{Candidates, Cases, FitCase, LinearModel, Sizes, Spread};
use crate::Result;
use crate::records::Measurement;
use crate::records::cost_model::{Accuracy, Fit, LayerAnchor, OperationFits};
use crate::records::measurement::{Interval, Kind};
use crate::shape::operation::{Family, Operation};
use crate::shape::{DType, LayerShape, Phase, Recompute};
use std::collections::{BTreeMap, BTreeSet};

/// The three phases that a layer's time is put together from.
pub const PARTS: [Phase; 3] = [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight];

/// One measured phase of one layer.
#[derive(Debug, Clone)]
pub struct LayerRow {
    /// Sizes and element type of the layer.
    pub shape: LayerShape,
    /// The phase that was timed.
    pub phase: Phase,
    /// Median time of the phase for one micro-batch and its 95 % confidence interval, in ns.
    pub time: Interval,
    activation_bytes: u64,
    parameter_bytes: u64,
}

/// Every layer phase among the records (`gpt/<shape>/<phase>`; small models and single operations have other ids).
pub fn rows(records: &[&Measurement]) -> Vec<LayerRow> {
    records.iter().filter(|r| r.kind == Kind::Layer).filter_map(|r| row(r)).collect()
}

fn row(record: &Measurement) -> Option<LayerRow> {
    let mut parts = record.id.split('/');
    let (root, _, phase, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
    if root != "gpt" || rest.is_some() {
        return None;
    }
    let phase = Phase::ALL.into_iter().find(|p| p.name() == record.param_str("phase").unwrap_or(phase))?;
    let size = |name| record.param_u64(name);
    let shape = LayerShape::from_params(&record.params)?;
    let median = record.median_ns.filter(|ns| *ns > 0.0 && ns.is_finite())?;
    let time = Interval {
        median,
        low: record.ci95_low_ns.map_or(median, |low| low.min(median)),
        high: record.ci95_high_ns.map_or(median, |high| high.max(median)),
    };
    let activation_bytes = size("activation_bytes").unwrap_or(shape.activation_bytes());
    let parameter_bytes = size("parameter_bytes").unwrap_or(shape.parameter_bytes());
    Some(LayerRow { shape, phase, time, activation_bytes, parameter_bytes })
}

/// The layers that were measured in all three phases, as the cost model holds them.
pub fn anchors(rows: &[LayerRow]) -> Vec<LayerAnchor> {
    by_shape(rows)
        .into_values()
        .filter_map(|phases| {
            let any = phases.values().next()?;
            let time = |phase: Phase| phases.get(phase.name()).map(|r| r.time);
            Some(LayerAnchor {
                shape: any.shape,
                forward_ns: time(Phase::Forward)?,
                backward_input_ns: time(Phase::BackwardInput)?,
                backward_weight_ns: time(Phase::BackwardWeight)?,
                activation_bytes: any.activation_bytes,
                parameter_bytes: any.parameter_bytes,
            })
        })
        .collect()
}

fn by_shape(rows: &[LayerRow]) -> BTreeMap<String, BTreeMap<&'static str, &LayerRow>> {
    let mut shapes: BTreeMap<String, BTreeMap<&'static str, &LayerRow>> = BTreeMap::new();
    for row in rows {
        shapes.entry(row.shape.slug()).or_default().insert(row.phase.name(), row);
    }
    shapes
}

/// What [`fit`] finds in the measured layers.
#[derive(Debug, Default)]
pub struct LayerFits {
    /// One fit for each phase, by the phase's name, with its interval; where layers of several element types have no
    /// operations to tell them apart, one for each type, as `forward/bf16`.
    pub additivity: BTreeMap<String, Fit>,
    /// Errors on held-out shapes: `layer`, and `layer/` with the name of each phase.
    pub accuracy: Vec<Accuracy>,
    /// The held-out layers behind these errors, a part a phase: `layer/forward`, …
    pub held_out: Vec<HeldOutPart>,
    /// Sentences on how the errors were found that a reader should know.
    pub notes: Vec<String>,
}

/// Fits every phase on all rows, and judges it in rounds that hold whole shapes out: all phases of a shape, and the
/// single operations measured at it. Returns an error if a fit in `fits` names an unknown feature.
pub fn fit(
    rows: &[LayerRow],
    operation_rows: &[OperationRow],
    fits: &OperationFits,
    primary: Option<DType>,
    hardware: DeviceFacts,
) -> Result<LayerFits> {
    let mut found = LayerFits::default();
    let mut outcomes: BTreeMap<&'static str, Vec<HeldOutCase>> = BTreeMap::new();
    let slugs: Vec<String> = rows.iter().map(|r| r.shape.slug()).collect();
    let mut kept_operations = false;
    for held in heldout::rounds(slugs.iter().map(String::as_str)) {
        let (out, training): (Vec<LayerRow>, Vec<LayerRow>) =
            rows.iter().cloned().partition(|r| held.contains(&r.shape.slug()));
        let unseen = unseen_operations(operation_rows, &out);
        let mut round_fits = operations::fit(&unseen, primary, hardware, false);
        if !answers(&round_fits, &out)? && answers(fits, &out)? {
            round_fits = fits.clone();
            kept_operations = true;
        }
        round_fits.launch.additivity = train(&training, &round_fits)?;
        judge(&out, &round_fits, &mut outcomes)?;
    }
    if kept_operations {
        found.notes.push(
            "too few single operations to leave out those of a held-out layer: its error is judged with them in the fit"
                .into(),
        );
    }
    found.additivity = train(rows, fits)?;
    for (name, fit) in &mut found.additivity {
        let phase = name.split('/').next().unwrap_or_default();
        let residuals: Vec<f64> = outcomes.get(phase).into_iter().flatten().map(HeldOutCase::residual).collect();
        let spread = Spread::of(&residuals);
        (fit.relative_low, fit.relative_high) = (spread.low, spread.high);
    }
    let pooled: Vec<HeldOutCase> = outcomes.values().flatten().copied().collect();
    found.accuracy.extend(heldout::accuracy("layer", &pooled));
    for phase in Phase::ALL {
        let cases = outcomes.remove(phase.name()).unwrap_or_default();
        found.held_out.push(HeldOutPart { what: format!("layer/{}", phase.name()), cases });
    }
    found.accuracy.extend(found.held_out.iter().filter_map(HeldOutPart::accuracy));
    Ok(found)
}

/// The operations measured at none of these layers. Recomputation changes which operations a layer runs, not their
/// sizes: those of `…-full` were measured under the name of the shape without it.
fn unseen_operations<'a>(rows: &'a [OperationRow], out: &[LayerRow]) -> Vec<&'a OperationRow> {
    let held: BTreeSet<String> =
        out.iter().flat_map(|r| [r.shape.slug(), r.shape.recompute(Recompute::None).slug()]).collect();
    rows.iter().filter(|r| r.layer.as_ref().is_none_or(|layer| !held.contains(layer))).collect()
}

/// Can these fits predict every operation of these layers?
fn answers(fits: &OperationFits, rows: &[LayerRow]) -> Result<bool> {
    let fits = PreparedFits::new(fits);
    for row in rows {
        if work(&fits, &row.shape, row.phase)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn judge(
    out: &[LayerRow],
    fits: &OperationFits,
    outcomes: &mut BTreeMap<&'static str, Vec<HeldOutCase>>,
) -> Result<()> {
    let fits = PreparedFits::new(fits);
    for row in out {
        if let Some(predicted) = predict(&fits, &row.shape, row.phase)? {
            outcomes.entry(row.phase.name()).or_default().push(HeldOutCase::new(predicted, row.time.median));
        }
    }
    Ok(())
}

/// One fit a phase, without its interval; a phase with fewer than two shapes has none.
fn train(rows: &[LayerRow], fits: &OperationFits) -> Result<BTreeMap<String, Fit>> {
    let mut found = BTreeMap::new();
    let complete = answers(fits, &rows.iter().filter(|r| PARTS.contains(&r.phase)).cloned().collect::<Vec<_>>())?;
    let types: BTreeSet<&str> = rows.iter().map(|r| r.shape.dtype.name()).collect();
    if complete || types.len() < 2 {
        // Sums of operations tell the types apart; what a layer is counted in does not.
        let sets = candidate_sets(complete, types.len() < 2);
        train_phases(&mut found, rows, fits, sets, "")?;
    } else {
        for dtype in types {
            let rows: Vec<LayerRow> = rows.iter().filter(|r| r.shape.dtype.name() == dtype).cloned().collect();
            train_phases(&mut found, &rows, fits, candidate_sets(false, true), &format!("/{dtype}"))?;
        }
    }
    let whole = whole_cases(rows);
    let sets = vec![vec![Feature::PhasesNs]];
    let of_phases = Candidates { sets, evaluate: Feature::value, sizes: Sizes::NONE, doubt: 1.0 };
    if whole.len() >= 2
        && let Some(linear) = of_phases.fit(&whole.iter().collect::<Cases<_>>())
    {
        let fit = operations::record(&linear, Spread::UNKNOWN, whole.len());
        found.insert(Phase::ForwardBackward.name().into(), fit);
    }
    Ok(found)
}

/// The sets of features a layer phase may need, simplest first: of its operations' times, and of its own FLOPs and bytes,
/// which serve without single operations or where they were measured badly.
fn candidate_sets(operations: bool, own: bool) -> Vec<Vec<Feature>> {
    use Feature::{Bytes, Flop, One, OperationsNs, Pairs, ProductFlop};
    let of_operations = [vec![OperationsNs], vec![One, OperationsNs], vec![OperationsNs, Bytes]];
    let of_layer =
        [vec![Flop], vec![One, Flop], vec![Flop, Bytes], vec![ProductFlop, Pairs], vec![One, ProductFlop, Pairs]];
    let of_operations = of_operations.into_iter().filter(|_| operations);
    of_operations.chain(of_layer.into_iter().filter(|_| own)).collect()
}

/// Fits the three phases together, under their names with `ending` behind them.
fn train_phases(
    found: &mut BTreeMap<String, Fit>,
    rows: &[LayerRow],
    fits: &OperationFits,
    sets: Vec<Vec<Feature>>,
    ending: &str,
) -> Result<()> {
    let mut cases: Vec<(Phase, Vec<FitCase<FeatureInput>>)> = PARTS.map(|phase| (phase, Vec::new())).to_vec();
    let prepared = PreparedFits::new(fits);
    for row in rows {
        let Some((phase, cases)) = cases.iter_mut().find(|(phase, _)| *phase == row.phase) else { continue };
        let work = work(&prepared, &row.shape, *phase)?
            .unwrap_or_else(|| plain_work(&row.shape, &row.shape.operations(*phase)));
        cases.push(FitCase { work, ns: row.time.median, key: row.shape.slug() });
    }
    cases.retain(|(_, cases)| cases.len() >= 2);
    let sizes = Sizes { names: features::LAYER_SIZES, values: features::sizes };
    // Operations carry over to other shapes: a layer's own sizes must be surely better.
    let candidates = Candidates { sets, evaluate: Feature::value, sizes, doubt: 2.0 };
    let groups: Vec<Cases<FeatureInput>> = cases.iter().map(|(_, cases)| cases.iter().collect()).collect();
    let few = groups.iter().any(|cases| cases.len() < FEWEST);
    let of_operations = candidates.sets.first().is_some_and(|set| set.as_slice() == [Feature::OperationsNs]);
    let linear = match few && of_operations {
        true => groups.iter().map(|cases| Some(plain_sum(cases))).collect(),
        false => candidates.fit_together(&groups),
    };
    for ((phase, cases), linear) in cases.iter().zip(linear) {
        if let Some(linear) = linear {
            let fit = operations::record(&linear, Spread::UNKNOWN, cases.len());
            found.insert(format!("{}{ending}", phase.name()), fit);
        }
    }
    Ok(())
}

/// Two or three layers, perhaps of another machine of its kind, cannot say what a sum of operations lacks everywhere: the
/// sum stands as it is, and is corrected near them alone.
fn plain_sum(cases: &Cases<FeatureInput>) -> LinearModel<Feature> {
    let ratio = |case: &&FitCase<FeatureInput>| {
        (features::sizes(features::LAYER_SIZES, &case.work), case.ns / case.work.operations_ns)
    };
    let ratios: Vec<(Vec<f64>, f64)> = cases.iter().map(ratio).collect();
    let near = anchors::fit(NEAR_FEW, features::LAYER_SIZES, &ratios);
    LinearModel { features: vec![Feature::OperationsNs], coefficients: vec![1.0], anchors: near }
}

/// How near is near, in ln(size): a size half or double is a close neighbour. A tenth of what a ratio varies is noise.
const NEAR_FEW: anchors::Tuning = anchors::Tuning { length: 1.4, nugget: 0.1 };

/// forward_backward of the layers whose three phases were measured too.
fn whole_cases(rows: &[LayerRow]) -> Vec<FitCase<FeatureInput>> {
    by_shape(rows)
        .into_iter()
        .filter_map(|(key, phases)| {
            let sum: Option<f64> = PARTS.iter().map(|p| phases.get(p.name()).map(|r| r.time.median)).sum();
            let ns = phases.get(Phase::ForwardBackward.name())?.time.median;
            Some(FitCase { work: FeatureInput { phases_ns: sum?, ..FeatureInput::default() }, ns, key })
        })
        .collect()
}

/// Names of the operations of a layer that are linear layers; other products are attention's.
const LINEAR_LAYERS: [&str; 4] = ["qkv", "projection", "fc1", "fc2"];

fn plain_work(shape: &LayerShape, operations: &[(&'static str, Operation)]) -> FeatureInput {
    let (rows, attention_pairs) = (shape.rows() as f64, shape.attention().pairs());
    let mut work = FeatureInput { rows, attention_pairs, ..FeatureInput::default() };
    let mut attention_flop = 0.0;
    for (name, operation) in operations {
        work.flop += operation.flop();
        work.bytes += operation.bytes(shape.dtype);
        match operation.family() {
            Family::Gemm if LINEAR_LAYERS.contains(name) => work.product_flop += operation.flop(),
            Family::Gemm | Family::Attention => attention_flop += operation.flop(),
            Family::Streaming => {}
        }
    }
    work.pairs = attention_flop / (4.0 * shape.head_size() as f64);
    work
}

/// Quantities of a layer phase that its features are computed from; `None` where one of its operations has no fit.
/// Returns an error if a fit names an unknown feature.
fn work(fits: &PreparedFits<'_>, shape: &LayerShape, phase: Phase) -> Result<Option<FeatureInput>> {
    let operations = shape.operations(phase);
    let sum = fits.sum_ns(&operations, shape.dtype)?;
    Ok(sum.map(|operations_ns| FeatureInput { operations_ns, ..plain_work(shape, &operations) }))
}

/// Predicted time of a phase, `forward_backward` from the predicted times of the others.
fn predict(fits: &PreparedFits<'_>, shape: &LayerShape, phase: Phase) -> Result<Option<f64>> {
    let mut phases_ns = 0.0;
    if phase == Phase::ForwardBackward {
        for part in PARTS {
            match evaluate(fits, shape, part, 0.0)? {
                Some(ns) => phases_ns += ns,
                None => return Ok(None),
            }
        }
    }
    evaluate(fits, shape, phase, phases_ns)
}

/// Predicted time of a phase in ns, Σ coefficient · feature and its correction near measured layers; `phases_ns` is the
/// sum of the phases, for `forward_backward`. `None` if the phase or one of its operations has no fit. Returns an error
/// if a fit names an unknown feature.
pub fn evaluate(fits: &PreparedFits<'_>, shape: &LayerShape, phase: Phase, phases_ns: f64) -> Result<Option<f64>> {
    let Some(fit) = fits.phase(phase, shape.dtype)? else { return Ok(None) };
    let work = match fit.of_operations() {
        true => work(fits, shape, phase)?,
        false => Some(FeatureInput { phases_ns, ..plain_work(shape, &shape.operations(phase)) }),
    };
    Ok(work.map(|work| fit.evaluate(&work)))
}

/// Fewest layers of a type that products and attention can be told apart from: two a coefficient.
const FEWEST: usize = 4;

/// Fits of the phases of layers that are all a model holds, as of published figures: from each other, with an attention
/// term and the correction near them. Element types with fewer than four layers have none. Returns an error if none can
/// be made.
pub fn fit_anchors(anchors: &[LayerAnchor]) -> Result<BTreeMap<String, Fit>> {
    let of_type = |dtype| anchors.iter().filter(|a| a.shape.dtype == dtype).count();
    let row = |a: &LayerAnchor, phase, time| LayerRow {
        shape: a.shape,
        phase,
        time,
        activation_bytes: a.activation_bytes,
        parameter_bytes: a.parameter_bytes,
    };
    let rows: Vec<LayerRow> = anchors
        .iter()
        .filter(|a| of_type(a.shape.dtype) >= FEWEST)
        .flat_map(|a| {
            let times = [a.forward_ns, a.backward_input_ns, a.backward_weight_ns];
            PARTS.into_iter().zip(times).map(|(phase, time)| row(a, phase, time))
        })
        .filter(|row| row.time.median > 0.0)
        .collect();
    Ok(fit(&rows, &[], &OperationFits::default(), None, DeviceFacts::default())?.additivity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_phase_are_those_its_attention_costs() {
        let shape = LayerShape::new(512, 8, 128, 2, DType::F32);
        let all = 2.0 * 8.0 * 128.0 * 128.0;
        let lower = 2.0 * 8.0 * 128.0 * 129.0 / 2.0;
        let pairs = |shape: LayerShape, phase| plain_work(&shape, &shape.operations(phase)).pairs;
        assert_eq!(pairs(shape, Phase::Forward), lower);
        assert_eq!(pairs(shape, Phase::BackwardInput), 2.5 * lower);
        assert_eq!(pairs(shape.recompute(Recompute::Selective), Phase::BackwardInput), 3.5 * lower);
        assert_eq!(pairs(shape, Phase::BackwardWeight), 0.0);
        assert_eq!(pairs(LayerShape { causal: false, ..shape }, Phase::Forward), all);
        // Unfused, masked pairs are multiplied too; nothing of that is a linear layer's.
        let unfused = LayerShape { attention: crate::shape::AttentionKind::Materialised, ..shape };
        assert_eq!(pairs(unfused, Phase::Forward), all);
        assert_eq!(pairs(unfused, Phase::BackwardInput), 2.0 * all);
        for shape in [shape, unfused] {
            assert_eq!(
                plain_work(&shape, &shape.operations(Phase::Forward)).product_flop,
                24.0 * 256.0 * 512.0 * 512.0
            );
        }
    }
}
