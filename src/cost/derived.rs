//! A collective nobody measured, from another operation on the same links, or from what is stated of the network.
//!
//! A ring's reduce-scatter followed by its all-gather is its all-reduce (Thakur, Rabenseifner & Gropp, IJHPCA 2005), so each
//! half moves half of the all-reduce's bytes for the same message as nccl-tests counts it: the whole output of an
//! all-gather, the whole input of a reduce-scatter. On published sweeps (8 to 2,160 A100 on 2 to 540 nodes) that holds
//! within 2 % for messages of 64 MiB and more. Half of the latency is not what small messages show: the all-reduce takes a
//! tree there and the halves have only rings, so latencies are carried by steps ([`super::ranks`]) instead.
//!
//! Which curve answers is a matter of distance: 0 for the operation's own, ln 4 between an all-reduce and its halves, since
//! deriving erred as much on those sweeps as carrying an operation's own curve to four times the ranks.

use super::ranks::{RankedOperation, Scaling};
use crate::records::cost_model::{CollectiveFit, Topology};
use crate::shape::collective::bus_factor;

/// Half the interval of a derived time, relative: of the part that grows with the message, and of the latency.
const SPREAD: [f64; 2] = [0.3, 1.5];
/// Operations that only share the links say less about each other.
const REMOTE_SPREAD: f64 = 0.7;
/// A switch that adds up speeds the all-reduce alone.
const SWITCH_SPREAD: f64 = 0.5;
/// Part of a data sheet's bandwidth that large messages reach: 72 % (Slingshot, 2 adapters for 4 A100) and 89 % (8 HDR
/// InfiniBand adapters for 8 A100) on published sweeps over two nodes.
const REACHED: f64 = 0.8;
/// Latency of a step between nodes, in ns, as [`super::ranks::Algorithm::steps`] counts them: on published sweeps 8 to
/// 25 µs, over 2 to 540 nodes.
const NETWORK_STEP_NS: f64 = 16_000.0;
/// Beyond this many ranks rings change their protocols at sizes of their own, and the interval grows with the ln of the
/// ratio.
const MANY_RANKS: f64 = 32.0;
const MANY_RANKS_SPREAD: f64 = 0.35;
/// Start of an operation and a step within a node, in ns: NCCL's tuning tables for its LL protocol over NVLink.
const NODE_LATENCY_NS: [f64; 2] = [6_600.0, 600.0];

/// How far another operation is from this one, as the ln of the ratio of ranks over which carrying errs as much; `None`
/// where neither says anything about the other.
pub fn remoteness(from: RankedOperation<'_>, to: RankedOperation<'_>) -> Option<f64> {
    let known = |name: &str| bus_factor(name, 2).is_some();
    if !known(from.base()) || !known(to.base()) {
        return None;
    }
    let half = |name: &str| name == "all_gather" || name == "reduce_scatter";
    let ratio: f64 = match (from.base(), to.base()) {
        (a, b) if a == b => 1.5,
        (a, b) if half(a) && half(b) => 2.0,
        (a, b) if (half(a) && b == "all_reduce") || (a == "all_reduce" && half(b)) => 4.0,
        ("all_reduce" | "all_gather" | "reduce_scatter" | "broadcast" | "reduce" | "send_recv", _) => 8.0,
        _ => 16.0,
    };
    Some(ratio.ln())
}

/// A time worked out from other operations' curves or stated figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DerivedTime {
    /// The time in ns.
    pub ns: f64,
    /// Half the 95 % interval, as a fraction of the time, the source's own interval left aside.
    pub spread: f64,
    /// How far the message's size lies outside the curves, as ln of the ratio; 0 within.
    pub outside: f64,
}

/// The time of `to` from a curve of another operation on the same network. `None` if the curve has no segments.
pub fn from_curve(from: &CollectiveFit, scaling: &Scaling, to: RankedOperation<'_>, bytes: u64) -> Option<DerivedTime> {
    let carried = scaling.carry(from, to, bytes)?;
    let measured = RankedOperation::of(from);
    let latency = carried.latency_ns / carried.ns.max(f64::MIN_POSITIVE);
    let near = remoteness(measured, to).is_some_and(|distance| distance <= 4f64.ln());
    let mut spread = SPREAD[0] + (SPREAD[1] - SPREAD[0]) * latency;
    spread += if near { 0.0 } else { REMOTE_SPREAD };
    spread += if scaling.adds_up() { SWITCH_SPREAD } else { 0.0 };
    spread += MANY_RANKS_SPREAD * (from.ranks.max(to.ranks) as f64 / MANY_RANKS).ln().max(0.0);
    Some(DerivedTime { ns: carried.ns, spread, outside: carried.outside })
}

/// The mean of times derived from several curves: of an all-gather and a reduce-scatter, of which each alone gives the
/// all-reduce as twice itself, so that the mean is their sum. `None` of none.
pub fn mean(times: &[DerivedTime]) -> Option<DerivedTime> {
    let count = times.len() as f64;
    let most = |f: fn(&DerivedTime) -> f64| times.iter().map(f).fold(0.0, f64::max);
    let sum = times.iter().map(|t| t.ns).sum::<f64>();
    (!times.is_empty()).then(|| DerivedTime {
        ns: sum / count,
        spread: most(|t| t.spread),
        outside: most(|t| t.outside),
    })
}

/// The time that an operation between nodes takes at least: a ring's bytes over the stated network, each rank of a node by
/// its own way into it. `None` within a node, or where the network is not stated.
pub fn least_ns(topology: &Topology, to: RankedOperation<'_>, bytes: u64) -> Option<f64> {
    if to.nodes < 2 {
        return None;
    }
    let ways = if to.point_to_point() { 1.0 } else { (to.ranks as f64 / to.nodes as f64).max(1.0) };
    Some(bytes as f64 * super::ranks::Algorithm::Tuned.moved(to) / (topology.network_bytes_per_s? * ways) * 1e9)
}

/// The time by the bandwidth stated for the links that `to` uses: of the network if it has more than one node, else within
/// the node. `None` where that is not stated.
///
/// Each rank of a node has its share of the node's network, and a ring crosses the node's edge over all of them, but no
/// faster than a rank's link within the node.
pub fn from_stated(topology: &Topology, to: RankedOperation<'_>, bytes: u64) -> Option<DerivedTime> {
    use super::ranks::Algorithm::Tuned;
    use super::topology::GroupLinks;
    let links = GroupLinks::of(Some(topology), &[]).of_group(to.group(), to.nodes);
    let within = topology.link_bytes_per_s.map(|rate| rate * links);
    let steps = Tuned.steps(to);
    let (rate, latency_ns) = if to.nodes > 1 {
        let ways = if to.point_to_point() { 1.0 } else { (to.ranks as f64 / to.nodes as f64).max(1.0) };
        let network = topology.network_bytes_per_s? * ways;
        let inner = if to.ranks > to.nodes { within.unwrap_or(f64::INFINITY) } else { f64::INFINITY };
        (network.min(inner), NETWORK_STEP_NS * steps)
    } else {
        (within?, NODE_LATENCY_NS[0] + NODE_LATENCY_NS[1] * steps)
    };
    let ns = latency_ns + bytes as f64 * Tuned.moved(to) / (REACHED * rate) * 1e9;
    Some(DerivedTime { ns, spread: SPREAD[1], outside: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::ranks::Algorithm;
    use crate::cost::topology::GroupLinks;
    use crate::records::cost_model::{Segment, TopologyKind};

    fn among(operation: &str, ranks: u64, nodes: u64) -> RankedOperation<'_> {
        RankedOperation { operation, ranks, nodes }
    }

    fn all_reduce(ranks: u64, nodes: u64) -> CollectiveFit {
        CollectiveFit {
            operation: "all_reduce".into(),
            ranks,
            nodes,
            dtype: "bf16".into(),
            latency: "pipelined".into(),
            segments: vec![Segment { from_bytes: 1 << 10, to_bytes: 1 << 32, latency_ns: 20_000.0, ns_per_byte: 0.01 }],
            algorithms: Vec::new(),
            relative_low: 0.1,
            relative_high: 0.1,
            ctas: None,
            flags: Vec::new(),
        }
    }

    fn usual(fit: &CollectiveFit) -> Scaling {
        Scaling::of(&[fit], None, GroupLinks::SWITCH)
    }

    /// Large messages are half of an all-reduce; small ones wait for a start each, and between many nodes for a ring that
    /// the all-reduce's tree is spared (published: 8.1 ms against 0.16 ms over 1,024 ranks on 256 nodes).
    #[test]
    fn halves_of_an_all_reduce() {
        let (node, cluster) = (all_reduce(8, 1), all_reduce(1024, 256));
        for half in ["all_gather", "reduce_scatter"] {
            let large = from_curve(&node, &usual(&node), among(half, 8, 1), 1 << 31).unwrap();
            assert!((large.ns / (0.5 * 0.01 * 2f64.powi(31)) - 1.0).abs() < 0.01 && large.spread < 0.35, "{large:?}");
            let small = from_curve(&node, &usual(&node), among(half, 8, 1), 1 << 10).unwrap();
            assert!((small.ns / 20_000.0 - 0.875).abs() < 0.01 && small.spread > 1.4, "{small:?}");
            let many = from_curve(&cluster, &usual(&cluster), among(half, 1024, 256), 1 << 10).unwrap();
            assert!((20.0..60.0).contains(&(many.ns / 20_000.0)), "{many:?}");
        }
    }

    #[test]
    fn a_ring_that_the_records_name_halves_its_steps_and_a_switch_widens() {
        let fit = all_reduce(8, 1);
        let by = |algorithm| Scaling { in_steps: 1.0, ..Scaling::of(&[&fit], Some(algorithm), GroupLinks::SWITCH) };
        let ring = from_curve(&fit, &by(Algorithm::Ring), among("all_gather", 8, 1), 1 << 24).unwrap();
        let whole = 20_000.0 + 0.01 * f64::from(1 << 24);
        assert!((ring.ns / (0.5 * whole) - 1.0).abs() < 1e-9, "{ring:?}");
        let switch = from_curve(&fit, &by(Algorithm::Switch), among("all_gather", 8, 1), 1 << 30).unwrap();
        let ring = from_curve(&fit, &by(Algorithm::Ring), among("all_gather", 8, 1), 1 << 30).unwrap();
        assert!(switch.spread > ring.spread + 0.4 && switch.ns > 1.2 * ring.ns, "{switch:?} {ring:?}");
    }

    /// 8 HDR adapters (25 GB/s each) for 8 A100 on each of two nodes: published 11.3 ms for a 1 GiB all-reduce. Two
    /// Slingshot adapters (12.5 GB/s a GPU) for four: 52.1 ms over two nodes, 57.7 ms over eight.
    #[test]
    fn stated_networks_give_published_times() {
        let topology = |network| Topology {
            kind: TopologyKind::Switch,
            gpus_per_node: None,
            linked_gpus: None,
            link_bytes_per_s: Some(300e9),
            network_bytes_per_s: Some(network),
            source: None,
        };
        for (network, ranks, nodes, published_ms) in [(25e9, 16, 2, 11.3), (12.5e9, 8, 2, 52.1), (12.5e9, 32, 8, 57.7)]
        {
            let time = from_stated(&topology(network), among("all_reduce", ranks, nodes), 1 << 30).unwrap();
            assert!((time.ns / 1e6 / published_ms - 1.0).abs() < 0.2, "{time:?} is not {published_ms} ms");
        }
        let mut unknown = topology(1.0);
        unknown.network_bytes_per_s = None;
        assert_eq!(from_stated(&unknown, among("all_reduce", 16, 2), 1 << 30), None);
        assert!(from_stated(&unknown, among("all_reduce", 8, 1), 1 << 30).is_some());
    }

    #[test]
    fn nearer_kin_is_nearer() {
        let far = |from: &'static str, to: &'static str| remoteness(among(from, 8, 1), among(to, 8, 1)).unwrap();
        assert!(far("all_reduce/max", "all_reduce") < far("all_gather", "reduce_scatter"));
        assert!(far("all_gather", "reduce_scatter") < far("all_reduce", "all_gather"));
        assert!(far("all_reduce", "all_gather") < far("send_recv/ping_pong", "all_gather"));
        assert!(far("all_reduce", "send_recv") < far("all_to_all", "send_recv"));
        assert_eq!(remoteness(among("magic", 8, 1), among("all_reduce", 8, 1)), None);
    }
}
