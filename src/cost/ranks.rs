//! What changes with the number of ranks: how many steps an algorithm takes, and how many bytes pass a rank's link.
//!
//! A curve measured over n ranks is carried to n′ by
//!
//! ```text
//! t′ = latency · ((1 − h) + h · steps(n′) ÷ steps(n)) + bytes' part · moved(n′) ÷ moved(n)
//! ```
//!
//! latency and the bytes' part as its segments split them. h is the part of the latency spent in steps: the rest
//! (launch, entering the kernel) is paid once whatever the number of ranks. Where two or more numbers of ranks were
//! measured, [`Scaling::of`] takes the algorithm and the h that carry them into each other best; else a ring with h = ¼,
//! which did best on published tables (docs/cost-model.md). The algorithms' costs are Thakur, Rabenseifner & Gropp's (IJHPCA
//! 2005).

use super::piecewise;
use crate::records::cost_model::CollectiveFit;

/// The part of the latency spent in steps where one number of ranks says nothing about it.
const DEFAULT_IN_STEPS: f64 = 0.25;
const IN_STEPS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// A simpler explanation stays unless another is better by this (mean |ln| of the error).
const MARGIN: f64 = 0.01;
/// Half the interval, relative, of a time carried to another number of ranks by the default scaling.
const DEFAULT_SPREAD: f64 = 0.6;
/// However badly the measured curves carry into each other.
const MOST_SPREAD: f64 = 2.0;

/// The algorithm of a collective, which says how its time changes with the number of ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Each rank passes a part on to the next: n − 1 steps in each pass.
    Ring,
    /// Ranks form a tree: log₂ n steps in each pass, with the whole message over a link.
    Tree,
    /// The switch adds up (NVLink SHARP, CollNet): neither the steps nor the bytes over a link grow with the ranks.
    Switch,
}

impl Algorithm {
    const ALL: [Algorithm; 3] = [Algorithm::Ring, Algorithm::Tree, Algorithm::Switch];

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
            Algorithm::Ring => "by the steps and bytes of a ring",
            Algorithm::Tree => "by the steps and bytes of a tree",
            Algorithm::Switch => "as a switch that adds up takes it, whatever the number of ranks",
        }
    }

    /// Number of dependent steps of an operation over n ranks, n ≥ 2 (Thakur, Rabenseifner & Gropp, IJHPCA 2005;
    /// through a switch 1 each pass).
    pub fn steps(self, operation: &str, n: u64) -> f64 {
        let passes = if operation == "all_reduce" { 2.0 } else { 1.0 };
        match self {
            Algorithm::Ring => passes * (n as f64 - 1.0),
            Algorithm::Tree => passes * (n as f64).log2(),
            Algorithm::Switch => passes,
        }
    }

    /// Bytes that pass a rank's link in an operation over n ranks ÷ bytes of the message.
    pub fn moved(self, operation: &str, n: u64) -> f64 {
        let share = (n as f64 - 1.0) / n as f64;
        match (self, operation) {
            // A chain's link carries the whole message whatever the number of ranks.
            (Algorithm::Ring, "broadcast" | "reduce") => 1.0,
            (Algorithm::Ring, "all_reduce") => 2.0 * share,
            (Algorithm::Ring, _) => share,
            (Algorithm::Tree, "all_reduce") => 2.0,
            (Algorithm::Tree | Algorithm::Switch, _) => 1.0,
        }
    }
}

/// How a curve is carried to another number of ranks (equation in the module's documentation).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// The algorithm whose steps and bytes are assumed.
    pub algorithm: Algorithm,
    /// The part h of the latency that is spent in steps, from 0 to 1; the rest is paid once whatever the number of
    /// ranks.
    pub in_steps: f64,
    /// Half the 95 % interval of a carried time, as a fraction of it.
    pub spread: f64,
}

impl Scaling {
    /// The scaling that carries the measured curves into each other with the least error, over the sizes both have;
    /// `known` fixes the algorithm. Where no two curves can be compared, a ring (or `known`) with a quarter of the
    /// latency in steps.
    pub fn of(curves: &[&CollectiveFit], known: Option<Algorithm>) -> Scaling {
        let default =
            Scaling { algorithm: known.unwrap_or(Algorithm::Ring), in_steps: DEFAULT_IN_STEPS, spread: DEFAULT_SPREAD };
        let algorithms = known.map_or(Algorithm::ALL.to_vec(), |algorithm| vec![algorithm]);
        let mut best: Option<(f64, Scaling)> = None;
        for algorithm in algorithms {
            for in_steps in IN_STEPS {
                let scaling = Scaling { algorithm, in_steps, spread: DEFAULT_SPREAD };
                let Some(error) = scaling.error_between(curves) else { return default };
                if best.is_none_or(|(least, _)| error < least - MARGIN) {
                    // A mean absolute error covers 95 % of normal errors when multiplied by this (1.96 · √(π/2)).
                    best = Some((error, Scaling { spread: (2.457 * error).min(MOST_SPREAD), ..scaling }));
                }
            }
        }
        best.map_or(default, |(_, scaling)| scaling)
    }

    /// Mean |ln(carried ÷ measured)| over ordered pairs of curves and their sizes; none where no two can be compared.
    fn error_between(&self, curves: &[&CollectiveFit]) -> Option<f64> {
        let mut errors = Vec::new();
        for (i, from) in curves.iter().enumerate() {
            for to in curves.iter().enumerate().filter(|(j, to)| *j != i && to.ranks != from.ranks).map(|(_, to)| to) {
                for bytes in ends(to) {
                    let carried = self.carry(from, to.ranks, bytes);
                    let measured = piecewise::predict(&to.segments, bytes).filter(|(_, outside)| *outside == 0.0);
                    if let (Some((ns, 0.0)), Some((truth, _))) = (carried, measured) {
                        errors.push((ns / truth).ln().abs());
                    }
                }
            }
        }
        crate::stats::mean(&errors)
    }

    /// The time over `ranks` ranks in ns, from a curve over another number of ranks, and how far the size lies outside
    /// that curve, as ln of the ratio. `None` if the curve has no segments.
    pub fn carry(&self, from: &CollectiveFit, ranks: u64, bytes: u64) -> Option<(f64, f64)> {
        let (ns, outside) = piecewise::predict(&from.segments, bytes)?;
        let segment = from.segments.iter().find(|s| bytes < s.to_bytes).or(from.segments.last());
        let latency = segment.map_or(0.0, |s| s.latency_ns.min(ns));
        let ratio = |f: fn(Algorithm, &str, u64) -> f64| {
            f(self.algorithm, &from.operation, ranks) / f(self.algorithm, &from.operation, from.ranks)
        };
        let steps = (1.0 - self.in_steps) + self.in_steps * ratio(Algorithm::steps);
        Some((latency * steps + (ns - latency) * ratio(Algorithm::moved), outside))
    }
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

    #[test]
    fn steps_and_bytes_are_the_algorithms_own() {
        assert_eq!(Algorithm::Ring.steps("all_reduce", 8), 14.0);
        assert_eq!(Algorithm::Tree.steps("all_reduce", 8), 6.0);
        assert_eq!(Algorithm::Switch.steps("all_reduce", 8), Algorithm::Switch.steps("all_reduce", 64));
        assert_eq!(Algorithm::Ring.moved("all_gather", 8), 0.875);
        assert_eq!(Algorithm::Ring.moved("broadcast", 8), 1.0);
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
        for truth in [
            Scaling { algorithm: Algorithm::Ring, in_steps: 0.5, spread: 0.0 },
            Scaling { algorithm: Algorithm::Tree, in_steps: 1.0, spread: 0.0 },
            Scaling { algorithm: Algorithm::Switch, in_steps: 0.0, spread: 0.0 },
        ] {
            let first = curve(2, 20_000.0, 0.01);
            let at = |n: u64| {
                let ratio = |f: fn(Algorithm, &str, u64) -> f64| {
                    f(truth.algorithm, "all_reduce", n) / f(truth.algorithm, "all_reduce", 2)
                };
                let steps = (1.0 - truth.in_steps) + truth.in_steps * ratio(Algorithm::steps);
                curve(n, 20_000.0 * steps, 0.01 * ratio(Algorithm::moved))
            };
            let (four, eight, sixteen) = (at(4), at(8), at(16));
            let found = Scaling::of(&[&first, &four, &eight], None);
            for bytes in [1u64 << 10, 1 << 20, 1 << 29] {
                let (carried, _) = found.carry(&eight, 16, bytes).unwrap();
                let (measured, _) = piecewise::predict(&sixteen.segments, bytes).unwrap();
                assert!((carried / measured - 1.0).abs() < 0.15, "{truth:?} as {found:?} at {bytes}");
            }
        }
    }

    #[test]
    fn one_number_of_ranks_says_nothing_about_others() {
        let only = curve(8, 20_000.0, 0.01);
        let scaling = Scaling::of(&[&only], None);
        assert_eq!((scaling.algorithm, scaling.in_steps), (Algorithm::Ring, DEFAULT_IN_STEPS));
        assert_eq!(Scaling::of(&[&only], Some(Algorithm::Tree)).algorithm, Algorithm::Tree);
        let (ns, _) = scaling.carry(&only, 16, 1 << 20).unwrap();
        let expected = 20_000.0 * (0.75 + 0.25 * 15.0 / 7.0) + 0.01 * f64::from(1 << 20) * (15.0 / 16.0) / (7.0 / 8.0);
        assert!((ns / expected - 1.0).abs() < 1e-9);
    }
}
