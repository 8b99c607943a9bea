//! One collective or send/recv. Sizes outside the curve follow its first or last segment; ranks nobody measured are
//! carried from the nearest ones by an algorithm's steps and bytes ([`super::super::ranks`]). Both are out of range.

use super::Prediction;
use crate::cost::piecewise;
use crate::cost::ranks::{Algorithm, Scaling};
use crate::cost::valid::Outside;
use crate::records::CostModel;
use crate::records::cost_model::CollectiveFit;
use crate::units::counted;
use crate::{Error, Result, nearest};
use std::collections::BTreeSet;

/// A collective or send/recv whose time is to be predicted.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectiveQuery {
    /// Name of the operation: `all_reduce`, …, `send_recv` (its ping-pong) or `send_recv/one_way`.
    pub operation: String,
    /// Number of ranks, at least 2.
    pub ranks: u64,
    /// Number of nodes that the ranks are spread over, at least 1.
    pub nodes: u64,
    /// Size of the message in bytes, as nccl-tests counts it.
    pub bytes: u64,
    /// Whether the operation is synchronised on its own instead of one of a back-to-back run.
    pub isolated: bool,
    /// Name of the element type; `None` for any that was measured, since the bytes decide.
    pub dtype: Option<String>,
}

/// Predicts the time of a collective or send/recv. Returns an error if the query has fewer than 2 ranks, 0 nodes, more
/// nodes than ranks or 0 bytes, or if no curve was measured that can be carried to it.
pub fn collective(model: &CostModel, query: &CollectiveQuery) -> Result<Prediction> {
    if query.ranks < 2 || query.nodes == 0 || query.nodes > query.ranks || query.bytes == 0 {
        return Err(Error::input(
            format!(
                "{} on {} with {} make no collective",
                counted(query.ranks, "rank"),
                counted(query.nodes, "node"),
                counted(query.bytes, "byte")
            ),
            "give at least 2 ranks, 1 to that many nodes, and 1 byte or more",
        ));
    }
    let nearest = nearest_curve(model, query)?;
    if nearest.nodes == query.nodes && (nearest.ranks == query.ranks || point_to_point(&nearest.operation)) {
        let Some((ns, distance)) = piecewise::predict(&nearest.segments, query.bytes) else {
            return Err(unknown(model, query));
        };
        let outside = Outside { distance, unknown: 0 };
        return Ok(Prediction::with_spread(ns, nearest.relative_low, nearest.relative_high, outside));
    }
    other_ranks(model, query, nearest).ok_or_else(|| unknown(model, query))
}

/// A sentence on what a prediction for a number of ranks or nodes that was not measured rests on; `None` where it was
/// measured, or where nothing can be predicted.
pub fn extrapolation(model: &CostModel, query: &CollectiveQuery) -> Option<String> {
    let from = nearest_curve(model, query).ok()?;
    if from.nodes == query.nodes && (from.ranks == query.ranks || point_to_point(&from.operation)) {
        return None;
    }
    let over = |ranks: u64, nodes: u64| match nodes {
        1 => counted(ranks, "rank"),
        _ => format!("{} on {}", counted(ranks, "rank"), counted(nodes, "node")),
    };
    let how = match point_to_point(&from.operation) {
        true => "as they are",
        false => scaling(model, query, from).algorithm.phrase(),
    };
    Some(format!(
        "Extrapolated: {} were not measured; carried over from {} {how}.",
        over(query.ranks, query.nodes),
        over(from.ranks, from.nodes)
    ))
}

/// Send and receive between two ranks do not ask how many others there are; a ring of them moves in step.
fn point_to_point(operation: &str) -> bool {
    operation.starts_with("send_recv")
}

/// The curves that may answer, the nearest first: of this operation, its type and its kind of latency. A curve within one
/// node says nothing about a network; between two numbers of nodes there is the same network.
fn candidates<'a>(model: &'a CostModel, query: &CollectiveQuery) -> Vec<&'a CollectiveFit> {
    let latency = if query.isolated { "isolated" } else { "pipelined" };
    let names = match query.operation.as_str() {
        "send_recv" => ["", "/ping_pong", "/one_way", "/both_ways", "/ring"].map(|p| format!("send_recv{p}")).to_vec(),
        name => vec![name.to_string()],
    };
    let network = |f: &CollectiveFit| (f.nodes > 1) == (query.nodes > 1);
    let of = |name: &String| {
        let fits = model.collectives.iter().filter(|f| f.operation == *name && f.latency == latency);
        let fits = fits.filter(|f| network(f) && query.dtype.as_ref().is_none_or(|d| *d == f.dtype));
        let mut found: Vec<&CollectiveFit> = fits.filter(|f| !f.segments.is_empty()).collect();
        // Of two types at one distance the one with more of a curve.
        found.sort_by(|a, b| {
            distance(a, query).total_cmp(&distance(b, query)).then(b.segments.len().cmp(&a.segments.len()))
        });
        found
    };
    names.iter().map(of).find(|found| !found.is_empty()).unwrap_or_default()
}

fn nearest_curve<'a>(model: &'a CostModel, query: &CollectiveQuery) -> Result<&'a CollectiveFit> {
    candidates(model, query).first().copied().ok_or_else(|| unknown(model, query))
}

/// |ln| of the ratios of ranks and nodes.
fn distance(fit: &CollectiveFit, query: &CollectiveQuery) -> f64 {
    let ratio = |a: u64, b: u64| (a as f64 / b as f64).ln().abs();
    ratio(fit.ranks, query.ranks) + ratio(fit.nodes, query.nodes)
}

fn unknown(model: &CostModel, query: &CollectiveQuery) -> Error {
    let names: BTreeSet<&str> = model.collectives.iter().map(|f| f.operation.as_str()).collect();
    if !names.is_empty() && query.operation != "send_recv" && !names.contains(query.operation.as_str()) {
        return Error::input(
            format!("the cost model knows no operation `{}`", query.operation),
            format!(
                "{}; another is measured by `bubblebench measure collectives` or imported",
                nearest::cure(&query.operation, names)
            ),
        );
    }
    let measured: BTreeSet<String> = model
        .collectives
        .iter()
        .filter(|f| f.operation.split('/').next() == Some(query.operation.as_str()) || f.operation == query.operation)
        .map(|f| format!("{} over {} in {}", counted(f.ranks, "rank"), counted(f.nodes, "node"), f.dtype))
        .collect();
    let known = match measured.is_empty() {
        true => "no collective at all".to_string(),
        false => format!("this operation between {}", nearest::some_of(measured, 8)),
    };
    let dtype = query.dtype.as_deref().map_or(String::new(), |d| format!(" in {d}"));
    Error::input(
        format!("the cost model does not know {} over {}{dtype}", query.operation, counted(query.nodes, "node")),
        format!("it was made from {known}; measure this one with `bubblebench measure collectives` or import it"),
    )
}

fn scaling(model: &CostModel, query: &CollectiveQuery, from: &CollectiveFit) -> Scaling {
    let same = |f: &&CollectiveFit| f.dtype == from.dtype && f.operation == from.operation && f.nodes == from.nodes;
    let curves: Vec<&CollectiveFit> = candidates(model, query).into_iter().filter(same).collect();
    let ran = from.algorithms.iter().rfind(|a| a.from_bytes <= query.bytes).or(from.algorithms.first());
    Scaling::of(&curves, ran.and_then(|a| Algorithm::named(&a.algorithm)))
}

/// From the nearest curve; between two numbers of ranks that were measured on as many nodes, from both.
fn other_ranks(model: &CostModel, query: &CollectiveQuery, nearest: &CollectiveFit) -> Option<Prediction> {
    let scaling = scaling(model, query, nearest);
    let carry = |from: &CollectiveFit| match point_to_point(&from.operation) {
        true => piecewise::predict(&from.segments, query.bytes),
        false => scaling.carry(from, query.ranks, query.bytes),
    };
    let (mut median_ns, outside_bytes) = carry(nearest)?;
    let beyond =
        |f: &&CollectiveFit| nearest.ranks != query.ranks && (f.ranks > query.ranks) != (nearest.ranks > query.ranks);
    let like_nearest = |f: &&CollectiveFit| f.dtype == nearest.dtype && f.nodes == nearest.nodes;
    let other = candidates(model, query).into_iter().filter(like_nearest).find(beyond);
    if let Some((other, (ns, _))) = other.and_then(|o| Some((o, carry(o)?))) {
        let (near, far) = (distance(nearest, query), distance(other, query));
        let share = far / (near + far).max(f64::MIN_POSITIVE);
        median_ns = (share * median_ns.ln() + (1.0 - share) * ns.ln()).exp();
    }
    let outside = Outside { distance: outside_bytes + distance(nearest, query), unknown: 0 };
    let (low, high) = (nearest.relative_low.max(scaling.spread.min(0.9)), nearest.relative_high.max(scaling.spread));
    Some(Prediction::with_spread(median_ns, low, high, outside))
}
