//! Whole layers: the ones measured (anchors), and how a layer's time follows from its operations' (additivity).
//!
//! A phase's time is a₁·Σ operations, with a fixed cost a₀ or a cost a₂·bytes beside it where cross-validation takes
//! one, fitted per phase on measured layers: what the sum misses — gaps between launches, data still in a cache,
//! threads already awake — is in the coefficients. forward_backward is fitted on the sum of the three phases.

use super::features::{Feature, FeatureInput};
use super::heldout::{self, HeldOutCase};
use super::operations::{self, DeviceFacts, OperationRow};
use super::regress::{Candidates, FitCase, LinearModel, Spread};
use crate::Result;
use crate::records::Measurement;
use crate::records::cost_model::{Accuracy, Fit, LayerAnchor, OperationFits};
use crate::records::measurement::{Interval, Kind};
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
    /// One fit for each phase, by the phase's name, with its interval.
    pub additivity: BTreeMap<String, Fit>,
    /// Errors on held-out shapes: `layer`, and `layer/` with the name of each phase.
    pub accuracy: Vec<Accuracy>,
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
        let models = train(&training, &round_fits)?;
        judge(&out, &models, &round_fits, &mut outcomes)?;
    }
    if kept_operations {
        found.notes.push(
            "too few single operations to leave out those of a held-out layer: its error is judged with them in the fit"
                .into(),
        );
    }
    for (phase, (linear, cases)) in train(rows, fits)? {
        let residuals: Vec<f64> = outcomes.get(phase).into_iter().flatten().map(HeldOutCase::residual).collect();
        found.additivity.insert(phase.into(), operations::record(&linear, Spread::of(&residuals), cases));
    }
    let pooled: Vec<HeldOutCase> = outcomes.values().flatten().copied().collect();
    found.accuracy.extend(heldout::accuracy("layer", &pooled));
    for phase in Phase::ALL {
        let of_phase = outcomes.get(phase.name()).map_or(&[][..], Vec::as_slice);
        found.accuracy.extend(heldout::accuracy(&format!("layer/{}", phase.name()), of_phase));
    }
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
    for row in rows {
        if work(fits, &row.shape, row.phase)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn judge(
    out: &[LayerRow],
    models: &Models,
    fits: &OperationFits,
    outcomes: &mut BTreeMap<&'static str, Vec<HeldOutCase>>,
) -> Result<()> {
    for row in out {
        if let Some(predicted) = predict(models, fits, &row.shape, row.phase)? {
            outcomes.entry(row.phase.name()).or_default().push(HeldOutCase::new(predicted, row.time.median));
        }
    }
    Ok(())
}

type Models = BTreeMap<&'static str, (LinearModel<Feature>, usize)>;

/// One fit a phase; a phase with fewer than two shapes has none.
fn train(rows: &[LayerRow], fits: &OperationFits) -> Result<Models> {
    let mut models = Models::new();
    for phase in PARTS {
        let mut complete = true;
        let mut cases = Vec::new();
        for row in rows.iter().filter(|r| r.phase == phase) {
            let known = work(fits, &row.shape, phase)?;
            complete &= known.is_some();
            let work = known.unwrap_or_else(|| plain_work(&row.shape, phase));
            cases.push(FitCase { work, ns: row.time.median, key: row.shape.slug() });
        }
        // Without single operations, or where they were measured badly, a layer's own FLOPs and bytes have to do.
        let own = [vec![Feature::Flop], vec![Feature::One, Feature::Flop], vec![Feature::Flop, Feature::Bytes]];
        let mut sets = vec![
            vec![Feature::OperationsNs],
            vec![Feature::One, Feature::OperationsNs],
            vec![Feature::OperationsNs, Feature::Bytes],
        ];
        if !complete {
            sets.clear();
        }
        sets.extend(own);
        insert(&mut models, phase, sets, &cases);
    }
    let whole = whole_cases(rows);
    insert(&mut models, Phase::ForwardBackward, vec![vec![Feature::PhasesNs]], &whole);
    Ok(models)
}

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

fn insert(models: &mut Models, phase: Phase, sets: Vec<Vec<Feature>>, cases: &[FitCase<FeatureInput>]) {
    let all: Vec<&FitCase<FeatureInput>> = cases.iter().collect();
    let candidates = Candidates { sets, evaluate: Feature::value };
    if all.len() >= 2
        && let Some(fit) = candidates.fit(&all)
    {
        models.insert(phase.name(), (fit, all.len()));
    }
}

fn plain_work(shape: &LayerShape, phase: Phase) -> FeatureInput {
    let operations = shape.operations(phase);
    FeatureInput {
        flop: operations.iter().map(|(_, o)| o.flop()).sum(),
        bytes: operations.iter().map(|(_, o)| o.bytes(shape.dtype)).sum(),
        ..FeatureInput::default()
    }
}

/// Quantities of a layer phase that its features are computed from; `None` where one of its operations has no fit.
/// Returns an error if a fit names an unknown feature.
pub fn work(fits: &OperationFits, shape: &LayerShape, phase: Phase) -> Result<Option<FeatureInput>> {
    let sum = operations::sum_ns(fits, &shape.operations(phase), shape.dtype)?;
    Ok(sum.map(|operations_ns| FeatureInput { operations_ns, ..plain_work(shape, phase) }))
}

fn predict(models: &Models, fits: &OperationFits, shape: &LayerShape, phase: Phase) -> Result<Option<f64>> {
    let Some((model, _)) = models.get(phase.name()) else { return Ok(None) };
    let value = |work: &FeatureInput| {
        model.features.iter().zip(&model.coefficients).map(|(f, c)| c * f.value(work)).sum::<f64>()
    };
    if phase == Phase::ForwardBackward {
        let mut phases_ns = 0.0;
        for part in PARTS {
            match predict(models, fits, shape, part)? {
                Some(ns) => phases_ns += ns,
                None => return Ok(None),
            }
        }
        return Ok(Some(value(&FeatureInput { phases_ns, ..FeatureInput::default() })));
    }
    if !model.features.contains(&Feature::OperationsNs) {
        return Ok(Some(value(&plain_work(shape, phase))));
    }
    Ok(work(fits, shape, phase)?.as_ref().map(value))
}

/// Predicted time of a phase in ns, Σ coefficient · feature; `phases_ns` is the sum of the phases, for
/// `forward_backward`. `None` if the phase or one of its operations has no fit. Returns an error if a fit names an
/// unknown feature.
pub fn evaluate(fits: &OperationFits, shape: &LayerShape, phase: Phase, phases_ns: f64) -> Result<Option<f64>> {
    let Some(fit) = fits.launch.additivity.get(phase.name()) else { return Ok(None) };
    let needs_operations = fit.features.iter().any(|f| *f == Feature::OperationsNs.name());
    let work = match needs_operations {
        true => work(fits, shape, phase)?,
        false => Some(FeatureInput { phases_ns, ..plain_work(shape, phase) }),
    };
    work.map(|work| operations::evaluate(fit, &work)).transpose()
}
