//! Fits of single operations: products, attention, streaming. [`super::prepared`] predicts by them.
//!
//! Every fit is t = Σ coefficient · feature ([`super::features`]), corrected near measured cases ([`super::anchors`]), its
//! form chosen by cross-validation among the candidates below: one form for the three products, one for both passes of
//! attention, one for each streaming operation.

use super::features::{self, Feature, FeatureInput, MeasuredOperation};
use super::heldout::{HeldOutCase, HeldOutPart};
use super::regress::{Candidates, Cases, FitCase, LinearModel, Sizes, Spread};
use crate::records::Measurement;
use crate::records::cost_model::{Fit, OperationFits};
use crate::records::measurement::Kind;
use crate::shape::operation::{Family, Operation};
use crate::shape::{DType, Rows};
use crate::{Error, Result, stats};
use std::collections::{BTreeMap, BTreeSet};

/// Name of the fit to all streaming operations together, which predicts those that were not measured by name.
pub const ANY_STREAMING: &str = "any";

/// A measured operation with its time.
#[derive(Debug, Clone)]
pub struct OperationRow {
    /// The operation, its element type and its sizes.
    pub operation: MeasuredOperation,
    /// Median time of the operation, in ns.
    pub ns: f64,
    /// Name of the layer that the operation belongs to, such as `h512-a8-s256-b1-t1-f32`; `None` where it was measured
    /// outside a layer.
    pub layer: Option<String>,
}

/// Every operation among the records; the second value counts operation records without a time or without sizes.
pub fn rows(records: &[&Measurement]) -> (Vec<OperationRow>, usize) {
    let (mut rows, mut unread) = (Vec::new(), 0);
    for record in records.iter().filter(|r| r.kind == Kind::Operation) {
        match (MeasuredOperation::of(record), record.median_ns) {
            (Some(operation), Some(ns)) if ns > 0.0 => {
                let layer = record.id.strip_prefix("gpt/").and_then(|rest| rest.split('/').next()).map(str::to_string);
                rows.push(OperationRow { operation, ns, layer });
            }
            _ => unread += 1,
        }
    }
    (rows, unread)
}

/// Figures of the machine that decide which features a product or a streaming operation may need.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceFacts {
    /// Number of SMs of the GPU; `None` on a CPU or where it is not known.
    pub sms: Option<u64>,
    /// Size of the GPU's L2 or the CPU's last-level cache, in bytes; `None` where it is not known.
    pub cache_bytes: Option<u64>,
}

/// The element type that most rows have: its fits carry no type in their names. `None` without rows.
pub fn primary_dtype(rows: &[OperationRow]) -> Option<DType> {
    let mut counts: BTreeMap<&str, (usize, DType)> = BTreeMap::new();
    for row in rows {
        counts.entry(row.operation.dtype.name()).or_insert((0, row.operation.dtype)).0 += 1;
    }
    counts.into_values().max_by_key(|(count, _)| *count).map(|(_, dtype)| dtype)
}

/// Operations whose time per byte says nothing of others: dropout's generator and the loss's exponentials cost more than
/// their bytes.
const BOUND_BY_ARITHMETIC: [&str; 2] =
    [Operation::Dropout { len: 0 }.name(), Operation::CrossEntropy(Rows { rows: 0, cols: 0 }).name()];

/// Fits that choose their form together, by name.
type Kin = BTreeMap<String, Vec<FitCase<FeatureInput>>>;

/// The cases of every fit: by family, and by what else sets fits apart that choose together (type and coldness, or the
/// name of a streaming operation).
fn groups(rows: &[&OperationRow], primary: Option<DType>) -> BTreeMap<(&'static str, String), Kin> {
    let mut groups: BTreeMap<(&'static str, String), Kin> = BTreeMap::new();
    for &row in rows {
        let o = &row.operation;
        let dtype = if Some(o.dtype) == primary { String::new() } else { format!("/{}", o.dtype.name()) };
        let ending = format!("{dtype}{}", if o.cold { "/cold" } else { "" });
        let case = FitCase { work: o.work.clone(), ns: row.ns, key: o.key.clone() };
        let mut add = |name: &str| {
            let fit = format!("{name}{ending}");
            let kin = if o.family == Family::Streaming { fit.clone() } else { ending.clone() };
            groups.entry((family_name(o.family), kin)).or_default().entry(fit).or_default().push(case.clone());
        };
        add(&o.name);
        if o.family == Family::Streaming && !BOUND_BY_ARITHMETIC.contains(&o.name.as_str()) {
            add(ANY_STREAMING);
        }
    }
    groups
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::Gemm => "gemm",
        Family::Attention => "attention",
        Family::Streaming => "streaming",
    }
}

/// Fits every family and name. Products and attention need two distinct cases, a streaming operation one, which gives
/// its bandwidth. Intervals are found with `spreads` only, at the cost of five more fits each; else they are ± 50 %.
pub fn fit(rows: &[&OperationRow], primary: Option<DType>, hardware: DeviceFacts, spreads: bool) -> OperationFits {
    let mut fits = OperationFits::default();
    let mut fixed_ns = Vec::new();
    for ((family, _), kin) in groups(rows, primary) {
        let (names, cases) = members(&kin, if family == "streaming" { 1 } else { 2 });
        let mut candidates = candidates(family, &cases.concat(), hardware);
        if names.iter().any(|name| name.starts_with(ANY_STREAMING)) {
            // What another operation of as many bytes costs beyond its bytes says nothing of this one.
            candidates.sizes = Sizes::NONE;
        }
        let held_out = match spreads {
            true => candidates.held_out_together(&cases),
            false => vec![Vec::new(); cases.len()],
        };
        let found = candidates.fit_together(&cases);
        for (((name, cases), linear), outcomes) in names.into_iter().zip(cases).zip(found).zip(held_out) {
            let Some(linear) = linear else { continue };
            let residuals: Vec<f64> = outcomes.iter().map(HeldOutCase::residual).collect();
            let mut fit = record(&linear, Spread::of(&residuals), cases.len());
            fit.without_gelu = family == "gemm" && cases.iter().all(|case| case.work.gelu_elements == 0.0);
            if distinct(&cases) > 1 && !name.starts_with(ANY_STREAMING) {
                fixed_ns.push(fixed_cost_ns(&fit));
            }
            family_of(&mut fits, family).insert(name.clone(), fit);
        }
    }
    fits.launch.per_operation_ns = stats::median(&fixed_ns).unwrap_or(0.0);
    fits
}

/// The fits of `kin` that have at least so many distinct cases, by name.
fn members(kin: &Kin, least: usize) -> (Vec<&String>, Vec<Cases<'_, FeatureInput>>) {
    let cases = kin.iter().map(|(name, cases)| (name, cases.iter().collect::<Cases<_>>()));
    cases.filter(|(_, cases)| distinct(cases) >= least).unzip()
}

/// The held-out cases of the three families; a family without an operation of three distinct cases has none.
pub fn held_out(rows: &[&OperationRow], primary: Option<DType>, hardware: DeviceFacts) -> Vec<HeldOutPart> {
    let mut outcomes: BTreeMap<&str, Vec<HeldOutCase>> = BTreeMap::new();
    for ((family, name), kin) in groups(rows, primary) {
        // The pooled fit only answers for names that have none of their own.
        if name.starts_with(ANY_STREAMING) {
            continue;
        }
        let (_, cases) = members(&kin, 3);
        let candidates = candidates(family, &cases.concat(), hardware);
        outcomes.entry(family).or_default().extend(candidates.held_out_together(&cases).into_iter().flatten());
    }
    let part = |family: &str| Some(HeldOutPart { what: family.into(), cases: outcomes.remove(family)? });
    ["gemm", "attention", "streaming"].into_iter().filter_map(part).collect()
}

fn distinct(cases: &[&FitCase<FeatureInput>]) -> usize {
    cases.iter().map(|c| c.key.as_str()).collect::<BTreeSet<_>>().len()
}

fn family_of<'a>(fits: &'a mut OperationFits, family: &str) -> &'a mut BTreeMap<String, Fit> {
    match family {
        "gemm" => &mut fits.gemm,
        "attention" => &mut fits.attention,
        _ => &mut fits.streaming,
    }
}

/// The sets of features a family may need, simplest first.
fn candidates(
    family: &str,
    cases: &[&FitCase<FeatureInput>],
    hardware: DeviceFacts,
) -> Candidates<Feature, FeatureInput> {
    use Feature::{Bytes, BytesOver, Flop, One, Pairs};
    let sets = match family {
        "gemm" => product_sets(cases, hardware),
        "attention" => vec![
            vec![Flop],
            vec![One, Flop],
            vec![One, Flop, Bytes],
            vec![One, Flop, Pairs],
            vec![One, Flop, Pairs, Bytes],
        ],
        _ => {
            let mut sets = vec![vec![Bytes], vec![One, Bytes]];
            sets.extend(knees(cases, hardware).into_iter().map(|n| vec![One, Bytes, BytesOver(n)]));
            sets
        }
    };
    let names = match family {
        "gemm" => features::PRODUCT_SIZES,
        "attention" => features::ATTENTION_SIZES,
        _ => features::STREAMING_SIZES,
    };
    Candidates { sets, evaluate: Feature::value, sizes: Sizes { names, values: features::sizes }, doubt: 1.0 }
}

fn product_sets(cases: &[&FitCase<FeatureInput>], hardware: DeviceFacts) -> Vec<Vec<Feature>> {
    use Feature::{Bytes, Flop, GeluElements, LeftElements, One, OutputElements, PaddedFlop};
    use Feature::{RightElements, WaveFlop, Weights};
    let mut sets = vec![
        vec![Flop],
        vec![One, Flop],
        vec![Flop, Bytes],
        vec![Flop, Weights],
        vec![One, Flop, Bytes],
        vec![One, Flop, Weights],
        vec![One, Flop, LeftElements, RightElements, OutputElements],
    ];
    match hardware.sms {
        // Tiles of 128 and waves over the SMs are a GPU's; of 32 stands for the register tiles of a CPU's kernels.
        Some(sms) => sets.extend([
            vec![One, PaddedFlop(128), Bytes],
            vec![One, WaveFlop { tile: 128, sms }, Bytes],
            vec![One, WaveFlop { tile: 256, sms }, Bytes],
        ]),
        None => sets.push(vec![One, PaddedFlop(32), Bytes]),
    }
    if cases.iter().any(|c| c.work.gelu_elements > 0.0) {
        let with_gelu: Vec<Vec<Feature>> = sets.iter().map(|s| [s.as_slice(), &[GeluElements]].concat()).collect();
        sets.extend(with_gelu);
        sets.sort_by_key(Vec::len);
    }
    sets
}

/// Where memory may begin to be slower: the cache where its size is known, and the powers of two between the sizes measured.
fn knees(cases: &[&FitCase<FeatureInput>], hardware: DeviceFacts) -> Vec<u64> {
    let mut bytes: Vec<f64> = cases.iter().map(|c| c.work.bytes).collect();
    bytes.sort_by(f64::total_cmp);
    bytes.dedup();
    // At least two sizes on each side, or the knee is free to sit on one measurement's noise.
    let (Some(&low), Some(&high)) = (bytes.get(1), bytes.len().checked_sub(2).and_then(|i| bytes.get(i))) else {
        return Vec::new();
    };
    let powers = (10..40).map(|p| 1u64 << p);
    let mut knees: Vec<u64> =
        hardware.cache_bytes.into_iter().chain(powers).filter(|&n| low <= n as f64 && (n as f64) < high).collect();
    knees.dedup();
    knees
}

/// A fit as `cost_model.json` holds it, with its interval and the number of cases it was made from.
pub fn record(linear: &LinearModel<Feature>, spread: Spread, cases: usize) -> Fit {
    Fit {
        features: linear.features.iter().map(Feature::name).collect(),
        coefficients_ns: linear.coefficients.clone(),
        relative_low: spread.low,
        relative_high: spread.high,
        cases: cases as u64,
        anchors: linear.anchors.clone(),
        without_gelu: false,
    }
}

/// The time of an operation of no size. A fit of several sizes without one says it is too small to see: 0; a fit of a
/// single size cannot find one, and is not asked.
fn fixed_cost_ns(fit: &Fit) -> f64 {
    fit.features.iter().position(|f| f == "1").map_or(0.0, |i| fit.coefficients_ns[i])
}

/// The size of that name. Returns an error if the name is unknown.
pub fn known_size(name: &str, work: &FeatureInput) -> Result<f64> {
    features::size(name, work).ok_or_else(|| {
        Error::input(
            format!("the cost model has a size `{name}` this version does not know"),
            "make it again with `bubblebench fit`, or use the version that wrote it",
        )
    })
}
