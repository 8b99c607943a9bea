//! One collective or send/recv. Sizes outside the curve follow its first or last segment; ranks nobody measured are
//! scaled from the nearest ones by the steps of a ring, which is always out of range.

use super::Prediction;
use crate::cost::piecewise;
use crate::cost::valid::Outside;
use crate::records::CostModel;
use crate::records::cost_model::CollectiveFit;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// The question.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectiveQuery {
    /// `all_reduce`, …, `send_recv` (its ping-pong) or `send_recv/one_way`.
    pub operation: String,
    pub ranks: u64,
    pub nodes: u64,
    /// As nccl-tests counts them.
    pub bytes: u64,
    /// One operation synchronised on its own instead of one of a back-to-back run.
    pub isolated: bool,
    /// Any type measured where not given: bytes decide.
    pub dtype: Option<String>,
}

pub fn collective(model: &CostModel, query: &CollectiveQuery) -> Result<Prediction> {
    if query.ranks < 2 || query.nodes == 0 || query.nodes > query.ranks || query.bytes == 0 {
        return Err(Error::input(
            format!("{} ranks on {} nodes with {} bytes is no collective", query.ranks, query.nodes, query.bytes),
            "give at least 2 ranks, 1 to that many nodes, and 1 byte or more",
        ));
    }
    let fit = nearest(model, query)?;
    let Some((ns, distance)) = piecewise::predict(&fit.segments, query.bytes) else {
        return Err(unknown(model, query));
    };
    let mut outside = Outside { distance, unknown: 0 };
    let mut median_ns = ns;
    if fit.ranks != query.ranks && !point_to_point(&fit.operation) {
        median_ns = other_ranks(fit, query, ns);
        outside.distance += (query.ranks as f64 / fit.ranks as f64).ln().abs();
    }
    Ok(Prediction::with_spread(median_ns, fit.relative_low, fit.relative_high, outside))
}

/// Send and receive between two ranks do not ask how many others there are; a ring of them moves in step.
fn point_to_point(operation: &str) -> bool {
    operation.starts_with("send_recv")
}

fn nearest<'a>(model: &'a CostModel, query: &CollectiveQuery) -> Result<&'a CollectiveFit> {
    let latency = if query.isolated { "isolated" } else { "pipelined" };
    let names = match query.operation.as_str() {
        "send_recv" => ["", "/ping_pong", "/one_way", "/both_ways", "/ring"].map(|p| format!("send_recv{p}")).to_vec(),
        name => vec![name.to_string()],
    };
    let distance = |f: &CollectiveFit| (f.ranks as f64 / query.ranks as f64).ln().abs();
    names
        .iter()
        .find_map(|name| {
            model
                .collectives
                .iter()
                .filter(|f| f.operation == *name && f.nodes == query.nodes && f.latency == latency)
                .filter(|f| query.dtype.as_ref().is_none_or(|d| *d == f.dtype) && !f.segments.is_empty())
                // Of two types at one distance the one with more of a curve.
                .min_by(|a, b| distance(a).total_cmp(&distance(b)).then(b.segments.len().cmp(&a.segments.len())))
        })
        .ok_or_else(|| unknown(model, query))
}

fn unknown(model: &CostModel, query: &CollectiveQuery) -> Error {
    let measured: BTreeSet<String> = model
        .collectives
        .iter()
        .map(|f| format!("{} r{} n{} {} {}", f.operation, f.ranks, f.nodes, f.dtype, f.latency))
        .collect();
    let known = match measured.is_empty() {
        true => "no collective at all".to_string(),
        false => measured.into_iter().take(8).collect::<Vec<_>>().join(", "),
    };
    let dtype = query.dtype.as_deref().map_or(String::new(), |d| format!(" in {d}"));
    Error::input(
        format!("the cost model does not know {} over {} nodes{dtype}", query.operation, query.nodes),
        format!("it was made from {known}; measure this one with `bubblebench measure collectives` or import it"),
    )
}

/// A ring over n ranks takes steps(n) latencies and moves factor(n) · bytes over each link: the latency and the bytes'
/// part of the time, as the segment splits them, are scaled by those (Thakur et al., IJHPCA 2005).
fn other_ranks(fit: &CollectiveFit, query: &CollectiveQuery, ns: f64) -> f64 {
    let segment = fit.segments.iter().find(|s| query.bytes < s.to_bytes).or(fit.segments.last());
    let latency = segment.map_or(0.0, |s| s.latency_ns.min(ns));
    let (from, to) = (fit.ranks as f64, query.ranks as f64);
    let steps = (to - 1.0) / (from - 1.0).max(1.0);
    let moved = match query.operation.as_str() {
        // A chain's or tree's link carries the whole message whatever the number of ranks.
        "broadcast" | "reduce" => 1.0,
        _ => ((to - 1.0) / to) / ((from - 1.0) / from).max(0.5),
    };
    latency * steps + (ns - latency) * moved
}
