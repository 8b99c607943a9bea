//! Collectives and send/recv: one curve per operation, ranks, nodes, element type and kind of latency.
//!
//! `pipelined` is the time of one operation in a back-to-back run (nccl-tests' way), `isolated` that of one operation
//! synchronised on its own. The curve is [`super::piecewise`]'s.

use super::borrowed;
use super::heldout::{self, HeldOutCase, HeldOutPart};
use super::piecewise::{self, Point};
use super::regress::Spread;
use crate::records::Measurement;
use crate::records::cost_model::{Accuracy, AlgorithmFrom, CollectiveFit};
use crate::records::flags::OVERSUBSCRIBED;
use crate::records::measurement::{Interval, Kind, Launch};
use crate::units::counted;
use std::collections::{BTreeMap, BTreeSet};

/// Relative standard error below which no time is believed: what two runs of one size differ by anyway.
const NOISE_FLOOR: f64 = 0.015;
/// The part of `accuracy` for sizes that no operation between these ranks was measured at.
const NEW_SIZE: &str = "collective/new size";
/// Sizes of one curve that are fitted.
const MOST_POINTS: usize = 256;
/// Interior sizes are held out in this many rounds.
const ROUNDS: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    operation: String,
    ranks: u64,
    nodes: u64,
    dtype: String,
    latency: &'static str,
}

#[derive(Debug, Default)]
struct Curve {
    /// By bytes. Out of place is what nccl-tests names first and what is kept.
    points: BTreeMap<u64, Measured>,
    /// Every point is of a variant: from CUDA graphs, in registered buffers, with capped CTAs.
    variants: bool,
    oversubscribed: bool,
    ctas: Option<u64>,
}

#[derive(Debug)]
struct Measured {
    in_place: bool,
    point: Point,
    /// Algorithm, or algorithm and protocol, where the record names them.
    algorithm: Option<String>,
}

/// The curves fitted to the collectives of one machine, and how well they predict.
#[derive(Debug, Default)]
pub struct CollectiveFits {
    /// One curve per operation, ranks, nodes, element type and kind of latency.
    pub fits: Vec<CollectiveFit>,
    /// Errors on held-out sizes: `collective`, `collective/new size`, and `collective/` with the name of each
    /// operation.
    pub accuracy: Vec<Accuracy>,
    /// The held-out sizes behind the last of these, a part an operation: `collective/all_reduce`, …
    pub held_out: Vec<HeldOutPart>,
    /// Sentences on the curves that were left out, because only one size was measured.
    pub notes: Vec<String>,
}

/// Fits a curve to every operation, number of ranks and nodes, element type and kind of latency among the records.
/// Curves with fewer than two sizes are left out with a note.
pub fn fit(records: &[&Measurement]) -> CollectiveFits {
    let mut found = CollectiveFits::default();
    let curves = curves(records);
    let curves_to_borrow = curves_to_borrow(&curves);
    let mut judged: Vec<Judged> = Vec::new();
    for (key, curve) in curves {
        if curve.points.len() < 2 {
            found.notes.push(format!(
                "{} over {} ({}): one size only, no curve; measure at least two",
                key.operation,
                counted(key.ranks, "rank"),
                key.latency
            ));
            continue;
        }
        let (points, others) = (points(&curve), others_of(&key, &curves_to_borrow));
        let others_know = held_out(&points, &others, BorrowedSizes::Kept);
        let nobody_knows = held_out(&points, &others, BorrowedSizes::Withheld);
        judged.push(Judged { key, curve, others_know, nobody_knows });
    }
    let trusted: Vec<&Judged> = judged.iter().filter(|j| !j.curve.oversubscribed).collect();
    let pooled = |outcomes: fn(&Judged) -> &Vec<HeldOutCase>| -> Vec<HeldOutCase> {
        trusted.iter().flat_map(|j| outcomes(j)).copied().collect()
    };
    found.accuracy.extend(heldout::accuracy("collective", &pooled(|j| &j.others_know)));
    found.accuracy.extend(heldout::accuracy(NEW_SIZE, &pooled(|j| &j.nobody_knows)));
    let mut by_operation: BTreeMap<&str, Vec<HeldOutCase>> = BTreeMap::new();
    for Judged { key, others_know, .. } in &trusted {
        let operation = key.operation.split('/').next().unwrap_or(&key.operation);
        by_operation.entry(operation).or_default().extend(others_know);
    }
    let part = |(operation, cases)| HeldOutPart { what: format!("collective/{operation}"), cases };
    found.held_out = by_operation.into_iter().map(part).collect();
    found.accuracy.extend(found.held_out.iter().filter_map(HeldOutPart::accuracy));
    let mut everything: Vec<f64> = pooled(|j| &j.nobody_knows).iter().map(HeldOutCase::residual).collect();
    if everything.is_empty() {
        everything = judged.iter().flat_map(|j| &j.nobody_knows).map(HeldOutCase::residual).collect();
    }
    found.fits = judged.into_iter().map(|j| written(j, &everything, &curves_to_borrow)).collect();
    found
}

/// A curve and its held-out sizes, each predicted twice.
struct Judged {
    key: Key,
    curve: Curve,
    /// The other operations were measured at the held-out size.
    others_know: Vec<HeldOutCase>,
    /// No operation was, as in a prediction at a size between those measured, so the intervals come from these.
    nobody_knows: Vec<HeldOutCase>,
}

/// What a held-out size leaves the other operations between the same ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BorrowedSizes {
    Kept,
    Withheld,
}

/// All curves that may lend their bends, by key.
type Borrowable = BTreeMap<Key, Vec<Point>>;

fn curves_to_borrow(curves: &BTreeMap<Key, Curve>) -> Borrowable {
    curves.iter().map(|(key, curve)| (key.clone(), points(curve))).collect()
}

/// The curves of other operations between the same ranks, timed the same way.
fn others_of<'a>(key: &Key, curves_to_borrow: &'a Borrowable) -> Vec<&'a [Point]> {
    let same = |k: &Key| {
        k.operation != key.operation
            && (k.ranks, k.nodes, &k.dtype, k.latency) == (key.ranks, key.nodes, &key.dtype, key.latency)
    };
    curves_to_borrow.iter().filter(|(k, _)| same(k)).map(|(_, points)| points.as_slice()).collect()
}

fn written(judged: Judged, everything: &[f64], curves_to_borrow: &Borrowable) -> CollectiveFit {
    let Judged { key, curve, nobody_knows, .. } = judged;
    let segments = piecewise::fit(&borrowed::add_borrowed_points(&points(&curve), &others_of(&key, curves_to_borrow)));
    let own: Vec<f64> = nobody_knows.iter().map(HeldOutCase::residual).collect();
    // Two or three sizes held out say little about one curve: then all curves of the machine speak for it.
    let spread = Spread::of(if own.len() >= 4 { &own } else { everything });
    CollectiveFit {
        operation: key.operation,
        ranks: key.ranks,
        nodes: key.nodes,
        dtype: key.dtype,
        latency: key.latency.into(),
        segments,
        algorithms: algorithms(&curve),
        relative_low: spread.low,
        relative_high: spread.high,
        ctas: curve.ctas,
        flags: if curve.oversubscribed { vec![OVERSUBSCRIBED.into()] } else { Vec::new() },
    }
}

fn points(curve: &Curve) -> Vec<Point> {
    let mut before: Option<&str> = None;
    let mut points = Vec::with_capacity(curve.points.len());
    for measured in curve.points.values() {
        let now = measured.algorithm.as_deref();
        // A switch shows only where both sizes name what ran.
        points.push(Point { switch: before.zip(now).is_some_and(|(a, b)| a != b), ..measured.point });
        before = now;
    }
    thin(points)
}

/// At most about [`MOST_POINTS`] sizes, equal in log(bytes): the first, the last, every switch and the size before it
/// among them. The search for knots takes the cube of their number, and a sweep with a fixed step has thousands.
fn thin(points: Vec<Point>) -> Vec<Point> {
    let log = |point: &Point| (point.bytes.max(1) as f64).ln();
    let (Some(first), Some(last)) = (points.first().map(log), points.last().map(log)) else { return points };
    if points.len() <= MOST_POINTS {
        return points;
    }
    let step = (last - first) / (MOST_POINTS - 1) as f64;
    let mut next = first;
    let mut kept = Vec::with_capacity(MOST_POINTS);
    for (index, point) in points.iter().enumerate() {
        let due = log(point) >= next;
        if due || index + 1 == points.len() || point.switch || points[index + 1].switch {
            kept.push(*point);
        }
        if due {
            next = first + step * (((log(point) - first) / step).floor() + 1.0);
        }
    }
    kept
}

fn algorithms(curve: &Curve) -> Vec<AlgorithmFrom> {
    let mut found: Vec<AlgorithmFrom> = Vec::new();
    for (&from_bytes, measured) in &curve.points {
        let Some(algorithm) = measured.algorithm.clone() else { continue };
        if found.last().is_none_or(|last| last.algorithm != algorithm) {
            found.push(AlgorithmFrom { from_bytes, algorithm });
        }
    }
    found
}

/// Every interior size predicted once from a curve without it; every fifth is left out in a round.
fn held_out(points: &[Point], others: &[&[Point]], borrowed: BorrowedSizes) -> Vec<HeldOutCase> {
    let interior = points.len().saturating_sub(2);
    let rounds = ROUNDS.min(interior);
    (0..rounds)
        .flat_map(|round| {
            let held = |i: usize| (1..=interior).contains(&i) && (i - 1) % rounds == round;
            let kept: Vec<Point> = (0..points.len()).filter(|&i| !held(i)).map(|i| points[i]).collect();
            let out: BTreeSet<u64> = (0..points.len()).filter(|&i| held(i)).map(|i| points[i].bytes).collect();
            let stays = |p: &Point| borrowed == BorrowedSizes::Kept || !out.contains(&p.bytes);
            let lent: Vec<Vec<Point>> =
                others.iter().map(|other| other.iter().filter(|p| stays(p)).copied().collect()).collect();
            let lent: Vec<&[Point]> = lent.iter().map(Vec::as_slice).collect();
            let segments = piecewise::fit(&borrowed::add_borrowed_points(&kept, &lent));
            (0..points.len())
                .filter(|&i| held(i))
                .filter_map(|i| Some(HeldOutCase::new(piecewise::predict(&segments, points[i].bytes)?.0, points[i].ns)))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn curves(records: &[&Measurement]) -> BTreeMap<Key, Curve> {
    let mut curves: BTreeMap<Key, Curve> = BTreeMap::new();
    for record in records.iter().filter(|r| r.kind == Kind::Collective) {
        let pipelined = record.median_ns.map(|median| Interval {
            median,
            low: record.ci95_low_ns.unwrap_or(median),
            high: record.ci95_high_ns.unwrap_or(median),
        });
        for (latency, time) in [("pipelined", pipelined), ("isolated", record.isolated_ns)] {
            if let (Some(key), Some(time)) = (key(record, latency), time) {
                curves.entry(key).or_default().add(record, time);
            }
        }
    }
    curves.retain(|_, curve| !curve.points.is_empty());
    curves
}

fn key(record: &Measurement, latency: &'static str) -> Option<Key> {
    let name = record.param_str("operation")?;
    // A mean or a maximum is another operation than the sum, and so is each pattern of send/recv.
    let variant = record.param_str("pattern").or(record.param_str("redop").filter(|redop| *redop != "sum"));
    let operation = variant.map_or(name.to_string(), |variant| format!("{name}/{variant}"));
    Some(Key {
        operation,
        ranks: record.param_u64("ranks").filter(|&n| n >= 2)?,
        nodes: record.param_u64("nodes").unwrap_or(1).max(1),
        dtype: record.param_str("dtype").unwrap_or("f32").to_string(),
        latency,
    })
}

/// `ring`, or `ring/LL128` where the protocol is known too.
fn algorithm(record: &Measurement) -> Option<String> {
    let algorithm = record.param_str("algorithm")?;
    Some(match record.param_str("protocol") {
        Some(protocol) => format!("{algorithm}/{protocol}"),
        None => algorithm.to_string(),
    })
}

impl Curve {
    fn add(&mut self, record: &Measurement, time: Interval) {
        let measured = record.bytes.filter(|b| b.is_finite() && *b >= 1.0).map(|b| b as u64);
        let Some(bytes) = record.param_u64("bytes").or(measured).filter(|&b| b > 0) else { return };
        let believable = time.median.is_finite() && time.median > 0.0;
        if !believable || !self.admits(record) {
            return;
        }
        let error = (time.high - time.low) / (2.0 * 1.96 * time.median);
        let noise = if error.is_finite() { error.max(NOISE_FLOOR) } else { NOISE_FLOOR };
        let in_place = record.params.get("in_place").and_then(serde_json::Value::as_bool).unwrap_or(false);
        let point = Point { bytes, ns: time.median, noise, switch: false };
        match self.points.get(&bytes) {
            Some(Measured { in_place: false, .. }) if in_place => {}
            _ => {
                self.points.insert(bytes, Measured { in_place, point, algorithm: algorithm(record) });
            }
        }
        self.oversubscribed |= record.has_flag(OVERSUBSCRIBED);
        self.ctas = self.ctas.max(record.param_u64("ctas").or(record.param_u64("channels")));
    }

    /// A curve is of plain operations; variants make one only where nothing plain was measured.
    fn admits(&mut self, record: &Measurement) -> bool {
        let registered = record.params.get("registered").is_some_and(|v| v == true);
        let capped = record.param_u64("max_ctas").is_some();
        let variant = record.launch == Some(Launch::Graph) || registered || capped;
        if self.points.is_empty() {
            self.variants = variant;
        } else if self.variants && !variant {
            *self = Curve::default();
        }
        self.variants == variant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_with_a_fixed_step_is_thinned_evenly() {
        let all: Vec<Point> =
            (1..=5000u64).map(|i| Point { bytes: i << 20, ns: i as f64, noise: 0.01, switch: i == 3334 }).collect();
        let kept = thin(all.clone());
        assert!((100..=MOST_POINTS + 3).contains(&kept.len()), "{}", kept.len());
        assert_eq!((kept.first(), kept.last()), (all.first(), all.last()));
        assert!(kept.contains(&all[3332]) && kept.contains(&all[3333]));
        assert!(kept.windows(2).all(|w| w[0].bytes < w[1].bytes));
        let upper = kept.iter().filter(|p| p.bytes > 100 << 20).collect::<Vec<_>>();
        assert!(upper.windows(2).all(|w| w[1].bytes as f64 / (w[0].bytes as f64) < 1.1));
        assert_eq!(thin(all[..200].to_vec()), all[..200]);
    }
}
