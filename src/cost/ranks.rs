//! What changes with the number of ranks, and from one operation to another: how many steps an algorithm takes, and how
//! many bytes pass a rank's link.
//!
//! A curve measured over n ranks is carried to n′ (or, in `derived`, to another operation) by
//!
//! ```text
//! t′ = latency · ((1 − h) + h · steps′ ÷ steps) + bytes' part · (moved′ ÷ moved) · (links ÷ links′)
//! ```
//!
//! latency is that of the segment, but never more than the smallest message measured takes: what a ramp starts with above
//! that is bandwidth not yet reached. h is the part of the latency spent in steps: the rest (launch, entering the kernel)
//! is paid once whatever the number of ranks. Where two or more numbers of ranks were measured, [`Scaling::of`] takes the
//! algorithm and the h that carry them into each other best; else [`Algorithm::Tuned`], with h = ¼ within a node and 1
//! between nodes, which did best on published tables (docs/cost-model.md). The algorithms' costs are Thakur, Rabenseifner
//! & Gropp's (IJHPCA 2005); links are [`super::topology`]'s.

use super::piecewise;
use super::topology::GroupLinks;
use crate::records::cost_model::CollectiveFit;
use crate::shape::collective::bus_factor;

/// The part of the latency spent in steps, within a node and between nodes, where one number of ranks says nothing about
/// it. Within a node a step takes well under a microsecond and the start several (NCCL's tuning tables: 0.6 and 6.6 µs);
/// between nodes a step costs as much as a start.
const DEFAULT_IN_STEPS: [f64; 2] = [0.25, 1.0];
const IN_STEPS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// The default stays unless another explanation leaves less than this part of its error: among twenty forms one always
/// fits the noise of a few curves better, and carries the next one worse.
const CONVINCING: f64 = 0.5;
/// Of two explanations the simpler stays unless the other is better by this (mean |ln| of the error).
const MARGIN: f64 = 0.01;
/// Half the interval, relative, of a time carried to another number of ranks by the default scaling.
const DEFAULT_SPREAD: f64 = 0.6;
/// However badly the measured curves carry into each other.
pub(crate) const MOST_SPREAD: f64 = 2.0;

/// The algorithm of a collective, which says how its time changes with the number of ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The library chooses by size, as NCCL does: large messages move the bytes of a ring, small ones take the steps of
    /// a tree where the operation has one (between nodes only the all-reduce, whose tree joins nodes, not ranks).
    Tuned,
    /// Each rank passes a part on to the next: n − 1 steps in each pass.
    Ring,
    /// Ranks form a tree: log₂ n steps in each pass, with the whole message over a link; between nodes it joins nodes.
    Tree,
    /// The switch adds up (NVLink SHARP, CollNet): neither the steps nor the bytes over a link grow with the ranks.
    Switch,
}

impl Algorithm {
    const ALL: [Algorithm; 4] = [Algorithm::Tuned, Algorithm::Ring, Algorithm::Tree, Algorithm::Switch];

    /// The algorithm by its name in the records (NCCL's, or the host transport's); `None` for an unknown name.
    pub fn named(name: &str) -> Option<Algorithm> {
        let name = name.to_ascii_lowercase();
        // An NVLS tree joins switches by a tree between the nodes.
        let known = [("tree", Algorithm::Tree), ("nvls", Algorithm::Switch), ("collnet", Algorithm::Switch)];
        let ring = ["ring", "chain", "direct", "pat"].iter().any(|n| name.starts_with(n)).then_some(Algorithm::Ring);
        known.iter().find(|(part, _)| name.contains(part)).map(|(_, algorithm)| *algorithm).or(ring)
    }

    /// The end of a sentence on how a time was carried to another number of ranks.
    pub fn phrase(self) -> &'static str {
        match self {
            Algorithm::Tuned => "by the bytes of a ring and the steps of a ring or a tree",
            Algorithm::Ring => "by the steps and bytes of a ring",
            Algorithm::Tree => "by the steps and bytes of a tree",
            Algorithm::Switch => "as a switch that adds up takes it, whatever the number of ranks",
        }
    }

    /// Number of dependent steps (Thakur, Rabenseifner & Gropp, IJHPCA 2005; through a switch 1 each pass), in units of a
    /// message between two ranks. Between nodes these counts overrate a message's own start, so they are halved, and a
    /// ring's step within a node counts half of one between nodes: what published sweeps over 2 to 540 nodes show within a
    /// factor of about two.
    pub fn steps(self, what: RankedOperation<'_>) -> f64 {
        let operation = what.base();
        if what.point_to_point() {
            return 1.0;
        }
        let passes = if operation == "all_reduce" { 2.0 } else { 1.0 };
        let (ranks, nodes) = (what.ranks as f64, what.nodes as f64);
        let (ring, tree) = match what.nodes > 1 {
            false => (ranks - 1.0, ranks.log2()),
            true => (0.5 * nodes + 0.25 * (ranks - nodes), 0.5 + 0.5 * nodes.log2()),
        };
        match self {
            Algorithm::Tuned if what.nodes > 1 && operation != "all_reduce" => passes * ring,
            Algorithm::Tuned | Algorithm::Tree => passes * tree,
            Algorithm::Ring => passes * ring,
            Algorithm::Switch => passes,
        }
    }

    /// Bytes that pass a rank's link ÷ bytes of the message: a ring moves what nccl-tests' bus bandwidth
    /// counts ([`bus_factor`]). In an all-to-all between nodes every rank's own way into the network carries it, where a
    /// ring crosses between two nodes once on each of them.
    pub fn moved(self, what: RankedOperation<'_>) -> f64 {
        let operation = what.base();
        match (self, operation) {
            (Algorithm::Tuned | Algorithm::Ring, "all_to_all") => {
                let ranks_per_node = what.ranks as f64 / what.nodes.max(1) as f64;
                let crossing = if what.nodes > 1 { ranks_per_node } else { 1.0 };
                crossing * bus_factor(operation, what.ranks).unwrap_or(1.0)
            }
            (Algorithm::Tuned | Algorithm::Ring, _) => bus_factor(operation, what.ranks).unwrap_or(1.0),
            (Algorithm::Tree, "all_reduce") => 2.0,
            (Algorithm::Tree | Algorithm::Switch, _) => 1.0,
        }
    }
}

/// An operation, and the ranks and nodes it runs between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankedOperation<'a> {
    /// The operation by its name in the cost model, with its pattern or reduction behind it: `send_recv/ping_pong`.
    pub operation: &'a str,
    /// Number of ranks that take part.
    pub ranks: u64,
    /// Number of nodes that the ranks are on.
    pub nodes: u64,
}

impl<'a> RankedOperation<'a> {
    /// What a curve was measured of.
    pub fn of(fit: &'a CollectiveFit) -> RankedOperation<'a> {
        RankedOperation { operation: &fit.operation, ranks: fit.ranks, nodes: fit.nodes }
    }

    /// The operation's name without its pattern or reduction.
    pub fn base(self) -> &'a str {
        self.operation.split('/').next().unwrap_or(self.operation)
    }

    /// Whether messages go between two ranks each, which do not ask how many others there are; a ring of them moves in
    /// step.
    pub fn point_to_point(self) -> bool {
        self.base() == "send_recv"
    }

    /// How many ranks one message of the operation involves.
    pub fn group(self) -> u64 {
        if self.point_to_point() { 2 } else { self.ranks }
    }

    /// The ways out of a node that a collective has and a single message has not: between one, where all ranks of a node
    /// share an adapter, and one for each rank; their geometric mean. 1 where both are of one kind.
    fn ways_beside(self, other: RankedOperation<'_>) -> f64 {
        let many = self.nodes > 1 && !self.point_to_point() && other.point_to_point();
        if many { (self.ranks as f64 / self.nodes as f64).max(1.0).sqrt() } else { 1.0 }
    }

    /// Ranks of a node, each of which may have its own way into the network; 1 within a node.
    fn ways(self) -> f64 {
        if self.nodes > 1 && !self.point_to_point() { (self.ranks as f64 / self.nodes as f64).max(1.0) } else { 1.0 }
    }
}

/// A time carried from a curve to another what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CarriedTime {
    /// The time in ns.
    pub ns: f64,
    /// The part of the time that does not grow with the message, in ns.
    pub latency_ns: f64,
    /// How far the message's size lies outside the curve, as ln of the ratio; 0 within.
    pub outside: f64,
}

/// How a curve is carried to another number of ranks (equation in the module's documentation).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// The algorithm whose steps and bytes are assumed.
    pub algorithm: Algorithm,
    /// The part h of the latency that is spent in steps, from 0 to 1; the rest is paid once whatever the number of
    /// ranks.
    pub in_steps: f64,
    /// How many links a group of ranks has within a node.
    pub links: GroupLinks,
    /// Half the 95 % interval of a carried time, as a fraction of it.
    pub spread: f64,
}

impl Scaling {
    /// The scaling that carries the measured curves into each other with the least error, over the sizes both have;
    /// `known` fixes the algorithm. Where no two curves can be compared, the library's own choice (or `known`), with a
    /// quarter of the latency in steps within a node and all of it between nodes.
    pub fn of(curves: &[&CollectiveFit], known: Option<Algorithm>, links: GroupLinks) -> Scaling {
        let between_nodes = curves.first().is_some_and(|curve| curve.nodes > 1);
        let default = Scaling {
            algorithm: known.unwrap_or(Algorithm::Tuned),
            in_steps: DEFAULT_IN_STEPS[usize::from(between_nodes)],
            links,
            spread: DEFAULT_SPREAD,
        };
        let Some(usual) = default.error_between(curves) else { return default };
        let algorithms = known.map_or(Algorithm::ALL.to_vec(), |algorithm| vec![algorithm]);
        let mut best = (CONVINCING * usual, None);
        for algorithm in algorithms {
            for in_steps in IN_STEPS {
                let scaling = Scaling { algorithm, in_steps, ..default };
                let error = scaling.error_between(curves).unwrap_or(f64::INFINITY);
                if error < best.0 - MARGIN {
                    best = (error, Some(scaling));
                }
            }
        }
        let (error, scaling) = match best {
            (error, Some(scaling)) => (error, scaling),
            (_, None) => (usual, default),
        };
        // A mean absolute error covers 95 % of normal errors when multiplied by this (1.96 · √(π/2)).
        Scaling { spread: (2.457 * error).min(MOST_SPREAD), ..scaling }
    }

    /// Mean |ln(carried ÷ measured)| over ordered pairs of curves and their sizes; none where no two can be compared.
    fn error_between(&self, curves: &[&CollectiveFit]) -> Option<f64> {
        let mut errors = Vec::new();
        for (i, from) in curves.iter().enumerate() {
            let comparable = |to: &CollectiveFit| to.ranks != from.ranks && !self.links.part(from.ranks, to.ranks);
            for to in curves.iter().enumerate().filter(|(j, to)| *j != i && comparable(to)).map(|(_, to)| to) {
                for bytes in ends(to) {
                    let carried = self.carry(from, RankedOperation::of(to), bytes);
                    let measured = piecewise::predict(&to.segments, bytes).filter(|(_, outside)| *outside == 0.0);
                    if let (Some(CarriedTime { ns, outside: 0.0, .. }), Some((truth, _))) = (carried, measured) {
                        errors.push((ns / truth).ln().abs());
                    }
                }
            }
        }
        crate::stats::mean(&errors)
    }

    /// The time of another operation, or between other ranks, from a curve. `None` if the curve has no segments.
    pub fn carry(&self, from: &CollectiveFit, to: RankedOperation<'_>, bytes: u64) -> Option<CarriedTime> {
        let (ns, outside) = piecewise::predict(&from.segments, bytes)?;
        let measured = RankedOperation::of(from);
        let latency = latency_part(from, bytes, ns);
        // Another operation need not have the algorithm of this one: only a ring is every operation's.
        let algorithm = match (measured.base() == to.base(), self.algorithm) {
            (true, algorithm) | (false, algorithm @ Algorithm::Ring) => algorithm,
            (false, _) => Algorithm::Tuned,
        };
        let steps = algorithm.steps(to) / self.algorithm.steps(measured);
        let moved = algorithm.moved(to) / self.moved_by(measured, to);
        let links = self.links.of_group(measured.group(), from.nodes) / self.links.of_group(to.group(), to.nodes);
        // A ring over several ranks of each node crosses between nodes by all their adapters, one over a single rank of each
        // by one, unless the ranks of a node share one: half-way, in ratio, between the two.
        let both = !measured.point_to_point() && !to.point_to_point();
        let adapters = if both { (measured.ways() / to.ways()).sqrt() } else { 1.0 };
        let ways = adapters * measured.ways_beside(to) / to.ways_beside(measured);
        let latency_ns = latency * ((1.0 - self.in_steps) + self.in_steps * steps);
        Some(CarriedTime { ns: latency_ns + (ns - latency) * moved * links * ways, latency_ns, outside })
    }

    /// Whether the algorithm is one of which other operations on the same links have nothing.
    pub fn adds_up(&self) -> bool {
        self.algorithm == Algorithm::Switch
    }

    /// Bytes over a link behind the measured time. A switch that adds up says little of how fast another operation is on
    /// the same links: half-way, in ratio, between what it moved and what a ring would have.
    fn moved_by(&self, measured: RankedOperation<'_>, to: RankedOperation<'_>) -> f64 {
        let moved = self.algorithm.moved(measured);
        match self.algorithm == Algorithm::Switch && measured.base() != to.base() {
            true => (moved * Algorithm::Ring.moved(measured)).sqrt(),
            false => moved,
        }
    }
}

/// The part of a time that does not grow with the message: its segment's latency, but no more than the smallest message
/// takes.
fn latency_part(fit: &CollectiveFit, bytes: u64, ns: f64) -> f64 {
    let segment = fit.segments.iter().find(|s| bytes < s.to_bytes).or(fit.segments.last());
    let smallest = fit.segments.first().and_then(|first| piecewise::predict(&fit.segments, first.from_bytes));
    let least = smallest.map_or(f64::INFINITY, |(ns, _)| ns);
    segment.map_or(0.0, |s| s.latency_ns.min(ns).min(least))
}

/// Sizes at which a curve is compared: where its segments begin, and its end.
fn ends(fit: &CollectiveFit) -> Vec<u64> {
    let last = fit.segments.last().map(|s| s.to_bytes.saturating_sub(1));
    fit.segments.iter().map(|s| s.from_bytes).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::cost_model::Segment;

    fn curve(ranks: u64, latency_ns: f64, ns_per_byte: f64) -> CollectiveFit {
        let piece = |from_bytes, to_bytes| Segment { from_bytes, to_bytes, latency_ns, ns_per_byte };
        CollectiveFit {
            operation: "all_reduce".into(),
            ranks,
            nodes: 1,
            dtype: "f32".into(),
            latency: "pipelined".into(),
            segments: vec![piece(1 << 10, 1 << 16), piece(1 << 16, 1 << 30)],
            algorithms: Vec::new(),
            relative_low: 0.1,
            relative_high: 0.1,
            ctas: None,
            flags: Vec::new(),
        }
    }

    fn among(operation: &str, ranks: u64, nodes: u64) -> RankedOperation<'_> {
        RankedOperation { operation, ranks, nodes }
    }

    #[test]
    fn steps_and_bytes_are_the_algorithms_own() {
        let (eight, more) = (among("all_reduce", 8, 1), among("all_reduce", 64, 8));
        assert_eq!(Algorithm::Ring.steps(eight), 14.0);
        assert_eq!((Algorithm::Tree.steps(eight), Algorithm::Tree.steps(more)), (6.0, 4.0));
        assert_eq!(Algorithm::Switch.steps(eight), Algorithm::Switch.steps(more));
        assert_eq!(Algorithm::Tuned.steps(more), Algorithm::Tree.steps(more));
        assert_eq!(Algorithm::Tuned.steps(among("all_gather", 64, 8)), 18.0);
        assert_eq!(Algorithm::Ring.moved(among("all_gather", 8, 1)), 0.875);
        assert_eq!(Algorithm::Ring.moved(among("broadcast", 8, 1)), 1.0);
        assert_eq!(Algorithm::Tuned.moved(among("send_recv/ping_pong", 8, 1)), 1.0);
        for (name, algorithm) in [
            ("NVLS", Algorithm::Switch),
            ("NVLSTree", Algorithm::Tree),
            ("tree", Algorithm::Tree),
            ("Ring", Algorithm::Ring),
            ("ring/LL128", Algorithm::Ring),
            ("chain", Algorithm::Ring),
        ] {
            assert_eq!(Algorithm::named(name), Some(algorithm), "{name}");
        }
        assert_eq!(Algorithm::named("magic"), None);
    }

    /// Curves made by each law over 2, 4 and 8 ranks: the law is found again and carries 8 to 16.
    #[test]
    fn the_law_behind_measured_ranks_is_found() {
        let links = GroupLinks::SWITCH;
        for truth in [
            Scaling { algorithm: Algorithm::Ring, in_steps: 0.5, links, spread: 0.0 },
            Scaling { algorithm: Algorithm::Tree, in_steps: 1.0, links, spread: 0.0 },
            Scaling { algorithm: Algorithm::Switch, in_steps: 0.0, links, spread: 0.0 },
        ] {
            let first = curve(2, 20_000.0, 0.01);
            let at = |n: u64| {
                let ratio = |f: fn(Algorithm, RankedOperation<'static>) -> f64| {
                    f(truth.algorithm, among("all_reduce", n, 1)) / f(truth.algorithm, among("all_reduce", 2, 1))
                };
                let steps = (1.0 - truth.in_steps) + truth.in_steps * ratio(Algorithm::steps);
                curve(n, 20_000.0 * steps, 0.01 * ratio(Algorithm::moved))
            };
            let (four, eight, sixteen) = (at(4), at(8), at(16));
            let found = Scaling::of(&[&first, &four, &eight], None, links);
            for bytes in [1u64 << 10, 1 << 20, 1 << 29] {
                let carried = found.carry(&eight, among("all_reduce", 16, 1), bytes).unwrap();
                let (measured, _) = piecewise::predict(&sixteen.segments, bytes).unwrap();
                assert!((carried.ns / measured - 1.0).abs() < 0.15, "{truth:?} as {found:?} at {bytes}");
            }
        }
    }

    #[test]
    fn one_number_of_ranks_says_nothing_about_others() {
        let only = curve(8, 20_000.0, 0.01);
        let scaling = Scaling::of(&[&only], None, GroupLinks::SWITCH);
        assert_eq!((scaling.algorithm, scaling.in_steps), (Algorithm::Tuned, 0.25));
        assert_eq!(Scaling::of(&[&only], Some(Algorithm::Tree), GroupLinks::SWITCH).algorithm, Algorithm::Tree);
        let carried = scaling.carry(&only, among("all_reduce", 16, 1), 1 << 20).unwrap();
        let expected = 20_000.0 * (0.75 + 0.25 * 4.0 / 3.0) + 0.01 * f64::from(1 << 20) * (15.0 / 16.0) / (7.0 / 8.0);
        assert!((carried.ns / expected - 1.0).abs() < 1e-9);
    }

    /// From 2 ranks to 8 a ring takes 7 times the steps; no library waits for them when a tree takes 3 times.
    #[test]
    fn latency_grows_no_faster_than_a_tree() {
        let pair = curve(2, 20_000.0, 0.01);
        let scaling = Scaling::of(&[&pair], None, GroupLinks::SWITCH);
        let carried = scaling.carry(&pair, among("all_reduce", 8, 1), 1 << 10).unwrap();
        assert!((carried.latency_ns / 20_000.0 - 1.5).abs() < 0.01, "{carried:?}");
    }

    /// A ramp's line starts high above what the smallest message takes: that is bandwidth, which steps do not multiply.
    #[test]
    fn a_ramps_intercept_is_no_latency() {
        let mut ramp = curve(2, 20_000.0, 0.01);
        ramp.segments[1].latency_ns = 500_000.0;
        let carried =
            Scaling::of(&[&ramp], None, GroupLinks::SWITCH).carry(&ramp, among("all_reduce", 8, 1), 1 << 20).unwrap();
        assert!(carried.latency_ns < 31_000.0, "{carried:?}");
    }
}
