//! One collective or send/recv. Sizes outside the curve follow its first or last segment; ranks nobody measured are
//! carried from the nearest ones by an algorithm's steps and bytes ([`super::super::ranks`]); an operation nobody measured
//! is derived from another one, or from what the cost model states of the network ([`super::super::derived`]). All these
//! are out of range.

use super::{Prediction, Predictor};
use crate::cost::derived::{self, DerivedTime};
use crate::cost::piecewise;
use crate::cost::ranks::{Algorithm, MOST_SPREAD, RankedOperation, Scaling};
use crate::cost::topology::GroupLinks;
use crate::cost::valid::Outside;
use crate::records::CostModel;
use crate::records::cost_model::{CollectiveFit, Topology};
use crate::units::counted;
use crate::{Error, Result, nearest};
use std::collections::BTreeSet;

/// What a curve costs in distance that lies on the other side of where the links end: on published profiles a group that
/// passes the host is 6 to 12 times slower than a linked pair.
const OTHER_LINKS: f64 = 8.0;

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

impl CollectiveQuery {
    fn asked(&self) -> RankedOperation<'_> {
        RankedOperation { operation: &self.operation, ranks: self.ranks, nodes: self.nodes }
    }

    fn latency(&self) -> &'static str {
        if self.isolated { "isolated" } else { "pipelined" }
    }

    /// Curves of this kind of latency and type. A curve within one node says nothing about a network; between two numbers
    /// of nodes there is the same network.
    fn answers(&self, fit: &CollectiveFit) -> bool {
        fit.latency == self.latency()
            && (fit.nodes > 1) == (self.nodes > 1)
            && self.dtype.as_ref().is_none_or(|d| *d == fit.dtype)
            && !fit.segments.is_empty()
    }
}

/// What a prediction rests on.
enum Basis<'a> {
    /// This operation's curve, between as many ranks and nodes.
    Measured(&'a CollectiveFit),
    /// Its curve between other numbers of them.
    Carried(&'a CollectiveFit),
    /// Curves of another operation, or of two that make up this one.
    Derived(Vec<&'a CollectiveFit>),
    /// Bandwidths that the cost model states.
    Stated(&'a Topology),
}

/// The time of a collective or send/recv, or an error that says why there is none.
pub(super) fn collective(by: &Predictor<'_>, query: &CollectiveQuery) -> Result<Prediction> {
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
    let answer = match basis(by, query).ok_or_else(|| unknown(by.model, query))? {
        Basis::Measured(fit) => piecewise::predict(&fit.segments, query.bytes).map(|(ns, distance)| {
            Prediction::with_spread(ns, fit.relative_low, fit.relative_high, Outside { distance, ..Outside::default() })
        }),
        Basis::Carried(fit) => other_ranks(by, query, fit).map(|p| no_faster(by.model, query, p)),
        Basis::Derived(fits) => other_operation(by, query, &fits).map(|p| no_faster(by.model, query, p)),
        Basis::Stated(topology) => derived::from_stated(topology, query.asked(), query.bytes)
            .map(|time| wide(time, 0.0, Outside { unknown: 1, ..Outside::default() })),
    };
    answer.ok_or_else(|| unknown(by.model, query))
}

/// What is carried over cannot be faster than the adapters that the cost model states.
fn no_faster(model: &CostModel, query: &CollectiveQuery, found: Prediction) -> Prediction {
    let least = model.topology.as_ref().and_then(|t| derived::least_ns(t, query.asked(), query.bytes));
    match least {
        Some(least) if found.median_ns < least => {
            let slower = least / found.median_ns;
            Prediction { median_ns: least, low_ns: found.low_ns, high_ns: found.high_ns * slower, ..found }
        }
        _ => found,
    }
}

/// A sentence on what a prediction rests on that was not measured between these ranks and nodes; `None` where it was
/// measured, or where nothing can be predicted.
pub fn extrapolation(model: &CostModel, query: &CollectiveQuery) -> Option<String> {
    let by = &Predictor::new(model);
    let asked = over(query.ranks, query.nodes);
    Some(match basis(by, query)? {
        Basis::Measured(_) => return None,
        Basis::Carried(from) => {
            let how = match RankedOperation::of(from).point_to_point() {
                true => "as they are",
                false => scaling(by, query, from).algorithm.phrase(),
            };
            let other = match by.links().part(from.ranks, query.ranks) {
                true => "; the larger group passes other links, which were not measured",
                false => "",
            };
            format!(
                "Extrapolated: {asked} were not measured; carried over from {} {how}{other}.",
                over(from.ranks, from.nodes)
            )
        }
        Basis::Derived(fits) => {
            let names: BTreeSet<&str> = fits.iter().map(|f| f.operation.as_str()).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(" and ");
            let from = fits.first()?;
            let switch = match scaling(by, query, from).adds_up() {
                true => "; the switch adds up for an all_reduce alone, so it may be far off",
                false => "",
            };
            format!(
                "Extrapolated: {} between {asked} was not measured; derived from {names} between {} by the bytes and steps \
                 of each{switch}.",
                query.operation,
                over(from.ranks, from.nodes)
            )
        }
        Basis::Stated(topology) => {
            let source = topology.source.as_deref().unwrap_or("the cost model's topology");
            format!(
                "Extrapolated: {} between {asked} was not measured; estimated from the bandwidth stated by {source}.",
                query.operation
            )
        }
    })
}

fn over(ranks: u64, nodes: u64) -> String {
    match nodes {
        1 => counted(ranks, "rank"),
        _ => format!("{} on {}", counted(ranks, "rank"), counted(nodes, "node")),
    }
}

/// The nearest of what is known: the operation's own curve, another operation's, the stated figures.
fn basis<'a>(by: &Predictor<'a>, query: &CollectiveQuery) -> Option<Basis<'a>> {
    let own = candidates(by, query).first().copied();
    let asked = query.asked();
    if let Some(fit) = own.filter(|f| f.nodes == query.nodes && (f.ranks == query.ranks || asked.point_to_point())) {
        return Some(Basis::Measured(fit));
    }
    let links = by.links();
    let own = own.map(|fit| (remote(fit, query, links), fit));
    let others = by.model.collectives.iter().filter(|f| query.answers(f) && f.operation != query.operation);
    let other = others
        .filter_map(|f| Some((derived::remoteness(RankedOperation::of(f), asked)? + remote(f, query, links), f)))
        .min_by(|(a, _), (b, _)| a.total_cmp(b));
    match (own, other) {
        (Some((near, fit)), other) if other.is_none_or(|(far, _)| near <= far) => Some(Basis::Carried(fit)),
        (_, Some((_, fit))) => Some(Basis::Derived(both_halves(by.model, query, fit))),
        _ => {
            let stated = by.model.topology.as_ref().filter(|_| !query.isolated);
            let stated = stated.filter(|t| derived::from_stated(t, asked, query.bytes).is_some());
            stated.filter(|_| derived::remoteness(asked, asked).is_some()).map(Basis::Stated)
        }
    }
}

/// How far a curve lies from what is asked: the larger of |ln| of the ratios of ranks and nodes, half of that of sizes
/// outside it, and what other links cost.
fn remote(fit: &CollectiveFit, query: &CollectiveQuery, links: GroupLinks) -> f64 {
    let ratio = |a: u64, b: u64| (a as f64 / b as f64).ln().abs();
    let (measured, asked) = (RankedOperation::of(fit), query.asked());
    let pairs = measured.point_to_point() || asked.point_to_point();
    let ranks = if pairs && query.nodes == 1 { 0.0 } else { ratio(measured.group(), asked.group()) };
    let sizes = piecewise::predict(&fit.segments, query.bytes).map_or(0.0, |(_, outside)| outside);
    let other = if links.part(measured.group(), asked.group()) { OTHER_LINKS.ln() } else { 0.0 };
    ranks.max(ratio(fit.nodes, query.nodes)) + 0.5 * sizes + other
}

/// An all-reduce is both of its halves, where both were measured alike.
fn both_halves<'a>(model: &'a CostModel, query: &CollectiveQuery, one: &'a CollectiveFit) -> Vec<&'a CollectiveFit> {
    let half = match (query.operation.as_str(), one.operation.as_str()) {
        ("all_reduce", "all_gather") => "reduce_scatter",
        ("all_reduce", "reduce_scatter") => "all_gather",
        _ => return vec![one],
    };
    let same = |f: &&CollectiveFit| {
        f.operation == half && query.answers(f) && (f.ranks, f.nodes, &f.dtype) == (one.ranks, one.nodes, &one.dtype)
    };
    std::iter::once(one).chain(model.collectives.iter().find(same)).collect()
}

/// The curves of this operation that may answer, the nearest first.
fn candidates<'a>(by: &Predictor<'a>, query: &CollectiveQuery) -> Vec<&'a CollectiveFit> {
    let names = match query.operation.as_str() {
        "send_recv" => ["", "/ping_pong", "/one_way", "/both_ways", "/ring"].map(|p| format!("send_recv{p}")).to_vec(),
        name => vec![name.to_string()],
    };
    let of = |name: &String| {
        let fits = by.model.collectives.iter().filter(|f| f.operation == *name && query.answers(f));
        let mut found: Vec<&CollectiveFit> = fits.collect();
        let links = found.iter().any(|f| f.ranks != query.ranks).then(|| by.links());
        let apart =
            |f: &CollectiveFit| links.is_some_and(|l| l.part(RankedOperation::of(f).group(), query.asked().group()));
        let far = |f: &CollectiveFit| if apart(f) { f64::MAX } else { distance(f, query) };
        // Of two types at one distance the one with more of a curve.
        found.sort_by(|a, b| far(a).total_cmp(&far(b)).then(b.segments.len().cmp(&a.segments.len())));
        found
    };
    names.iter().map(of).find(|found| !found.is_empty()).unwrap_or_default()
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

/// How a curve that answers the query is carried: the same for every query of its kind that the same algorithm answers.
fn scaling(by: &Predictor<'_>, query: &CollectiveQuery, from: &CollectiveFit) -> Scaling {
    let ran = from.algorithms.iter().rfind(|a| a.from_bytes <= query.bytes).or(from.algorithms.first());
    let algorithm = ran.and_then(|a| Algorithm::named(&a.algorithm));
    let key = (std::ptr::from_ref(from).addr(), algorithm);
    by.scalings.or_make(key, || {
        let same = |f: &&CollectiveFit| {
            query.answers(f) && f.dtype == from.dtype && f.operation == from.operation && f.nodes == from.nodes
        };
        let curves: Vec<&CollectiveFit> = by.model.collectives.iter().filter(same).collect();
        Scaling::of(&curves, algorithm, by.links())
    })
}

/// From the nearest curve; between two numbers of ranks that were measured on as many nodes, from both, if the same links
/// join them.
fn other_ranks(by: &Predictor<'_>, query: &CollectiveQuery, nearest: &CollectiveFit) -> Option<Prediction> {
    let scaling = scaling(by, query, nearest);
    let carry = |from: &CollectiveFit| match RankedOperation::of(from).point_to_point() {
        true => piecewise::predict(&from.segments, query.bytes),
        false => scaling.carry(from, query.asked(), query.bytes).map(|carried| (carried.ns, carried.outside)),
    };
    let (mut median_ns, outside_bytes) = carry(nearest)?;
    let beyond =
        |f: &&CollectiveFit| nearest.ranks != query.ranks && (f.ranks > query.ranks) != (nearest.ranks > query.ranks);
    let like_nearest = |f: &&CollectiveFit| {
        f.dtype == nearest.dtype && f.nodes == nearest.nodes && !scaling.links.part(f.ranks, query.ranks)
    };
    let other = candidates(by, query).into_iter().filter(like_nearest).find(beyond);
    if let Some((other, (ns, _))) = other.and_then(|o| Some((o, carry(o)?))) {
        let (near, far) = (distance(nearest, query), distance(other, query));
        let share = far / (near + far).max(f64::MIN_POSITIVE);
        median_ns = (share * median_ns.ln() + (1.0 - share) * ns.ln()).exp();
    }
    let other_links = scaling.links.part(nearest.ranks, query.ranks);
    let spread = if other_links { OTHER_LINKS } else { scaling.spread };
    let unknown = usize::from(other_links);
    let outside = Outside { distance: outside_bytes + distance(nearest, query), unknown, outside: 0 };
    // Both ends as far from the time, in ratio.
    let (low, high) = (nearest.relative_low.max(spread / (1.0 + spread)), nearest.relative_high.max(spread));
    Some(Prediction::with_spread(median_ns, low, high, outside))
}

/// From another operation's curve, or from both halves of an all-reduce.
fn other_operation(by: &Predictor<'_>, query: &CollectiveQuery, fits: &[&CollectiveFit]) -> Option<Prediction> {
    let derive =
        |from: &&CollectiveFit| derived::from_curve(from, &scaling(by, query, from), query.asked(), query.bytes);
    let time = derived::mean(&fits.iter().map(derive).collect::<Option<Vec<DerivedTime>>>()?)?;
    let from = fits.first()?;
    let own = fits.iter().map(|f| f.relative_high).fold(0.0, f64::max);
    let other = by.links().part(RankedOperation::of(from).group(), query.asked().group());
    let spread = if other { OTHER_LINKS } else { 0.0 };
    let pairs = RankedOperation::of(from).point_to_point() || query.asked().point_to_point();
    let ranks = if pairs { 0.0 } else { distance(from, query) };
    Some(wide(time, own + spread, Outside { distance: time.outside + ranks, unknown: 1, outside: 0 }))
}

/// Both ends as far from the time, in ratio.
fn wide(time: DerivedTime, own: f64, outside: Outside) -> Prediction {
    let high = (time.spread + own).min(MOST_SPREAD.max(own));
    Prediction::with_spread(time.ns, high / (1.0 + high), high, outside)
}
