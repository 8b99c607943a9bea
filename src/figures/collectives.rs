//! Time and bus bandwidth of each collective over message size, with the fitted curve, its bends, and where NCCL changed
//! its algorithm.

use super::chart::{Axis, Chart, Point, Quantity, Rule, Scale, Series, Style};
use super::figure::{Figure, FigureData, Picture, stem};
use super::{ReportSide, evenly, has_time, with_side};
use crate::records::Measurement;
use crate::records::cost_model::{AlgorithmFrom, CollectiveFit};
use crate::records::measurement::{Kind, Launch};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Curves that a picture can tell apart; the numbers have all.
const CURVES: usize = 6;

/// Bends of a curve that are marked: the sharpest.
const BENDS: usize = 5;

/// Sizes of one curve at most; the numbers have all.
const MARKS: usize = 80;

/// What tells the curves of one operation apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct CurveKey {
    side: usize,
    nodes: u64,
    ranks: u64,
    dtype: String,
    variant: String,
}

impl CurveKey {
    fn of(record: &Measurement, side: usize) -> Self {
        let is_set = |name: &str| record.params.get(name).is_some_and(|value| value == true);
        let words = [
            is_set("in_place").then_some("in place"),
            (record.launch == Some(Launch::Graph)).then_some("graph"),
            is_set("registered").then_some("registered"),
        ];
        CurveKey {
            side,
            nodes: record.param_u64("nodes").unwrap_or(1),
            ranks: record.param_u64("ranks").unwrap_or(0),
            dtype: record.param_str("dtype").unwrap_or_default().into(),
            variant: words.into_iter().flatten().collect::<Vec<_>>().join(" "),
        }
    }

    /// `8 ranks, 2 nodes, bf16 in place`: what differs among these curves, and the ranks.
    fn name(&self, all: &[&CurveKey], sides: &[ReportSide]) -> String {
        let differ = |of: fn(&CurveKey) -> String| all.iter().any(|key| of(key) != of(self));
        let mut words = vec![format!("{} ranks", self.ranks)];
        words.extend(differ(|key| key.nodes.to_string()).then(|| format!("{} nodes", self.nodes)));
        words.extend(differ(|key| key.dtype.clone()).then(|| self.dtype.clone()));
        words.extend((!self.variant.is_empty()).then(|| self.variant.clone()));
        with_side(words.join(", "), &sides[self.side], sides)
    }
}

type Curves<'a> = BTreeMap<CurveKey, Vec<&'a Measurement>>;

/// A figure an operation (and pattern of send/recv): its time over message size, and its bus bandwidth where it has one.
pub fn figures(sides: &[ReportSide]) -> Vec<Figure> {
    let mut operations: BTreeMap<String, Curves> = BTreeMap::new();
    for (index, side) in sides.iter().enumerate() {
        for record in side.records.iter().filter(|r| r.kind == Kind::Collective && has_time(r)) {
            let Some(name) = operation(record).filter(|_| record.bytes.is_some_and(|b| b > 0.0)) else { continue };
            operations.entry(name).or_default().entry(CurveKey::of(record, index)).or_default().push(record);
        }
    }
    let mut operations: Vec<(String, Curves)> = operations.into_iter().collect();
    // What pipelines and data parallelism wait for comes first.
    let rank = |name: &str| ["all_reduce", "send_recv"].iter().position(|first| name.starts_with(first)).unwrap_or(2);
    operations.sort_by_key(|(name, _)| rank(name));
    operations.iter().map(|(name, curves)| figure(name, curves, sides)).collect()
}

/// As many curves as a picture can tell apart, of each side in turn: plain ones before variants, those of most ranks first.
fn most_telling<'a>(keys: &[&'a CurveKey]) -> Vec<&'a CurveKey> {
    let mut sorted: Vec<&CurveKey> = keys.to_vec();
    sorted.sort_by_key(|key| (!key.variant.is_empty(), Reverse((key.ranks, key.nodes)), key.dtype.clone()));
    let mut turn: BTreeMap<usize, usize> = BTreeMap::new();
    let mut ordered: Vec<(usize, &CurveKey)> = Vec::new();
    for key in sorted {
        let before = turn.entry(key.side).or_default();
        ordered.push((*before, key));
        *before += 1;
    }
    ordered.sort_by_key(|(turn, key)| (*turn, key.side));
    let mut drawn: Vec<&CurveKey> = ordered.into_iter().take(CURVES).map(|(_, key)| key).collect();
    drawn.sort();
    drawn
}

fn operation(record: &Measurement) -> Option<String> {
    let name = record.param_str("operation")?;
    Some(record.param_str("pattern").map_or(name.to_string(), |pattern| format!("{name} {pattern}")))
}

fn figure(operation: &str, curves: &Curves, sides: &[ReportSide]) -> Figure {
    let keys: Vec<&CurveKey> = curves.keys().collect();
    let drawn = most_telling(&keys);
    let bytes = || Axis::new("message size", Scale::Log2, Quantity::Bytes);
    let mut time = Chart::new(bytes(), Axis::new("time", Scale::Log, Quantity::Nanoseconds)).headed("Time");
    let mut bandwidth = Chart::new(bytes(), Axis::new("bus bandwidth", Scale::Log, Quantity::GigabytePerSecond))
        .headed("Bus bandwidth");
    for (colour, key) in drawn.iter().enumerate() {
        let mut records = curves[*key].clone();
        records.sort_by(|a, b| a.bytes.unwrap_or(0.0).total_cmp(&b.bytes.unwrap_or(0.0)));
        let records = evenly(&records, MARKS);
        let name = key.name(&keys, sides);
        time = time.with(times(&records, &name, colour));
        if let Some(fit) = fit_of(operation, key, sides) {
            time = time.with(fitted(fit, &records, colour));
            time.rules.extend(changes(fit, colour, &name));
        }
        let points: Vec<Point> = records.iter().filter_map(|r| Some(told(r, r.busbw_gb_per_s?))).collect();
        let series = Series { name, colour, shape: colour, style: Style::MarkedLine, points };
        bandwidth = bandwidth.with((!series.points.is_empty()).then_some(series));
    }
    let mut charts = vec![time, bandwidth];
    charts.retain(|chart| !chart.series.is_empty());
    let missing: Vec<String> =
        keys.iter().filter(|key| !drawn.contains(key)).map(|key| key.name(&keys, sides)).collect();
    let left_out = match missing.as_slice() {
        [] => String::new(),
        few if few.len() < 5 => format!(" In the numbers only: {}.", few.join("; ")),
        many => format!(" In the numbers only: {}; {}; and {} more curves.", many[0], many[1], many.len() - 2),
    };
    Figure {
        name: format!("collective-{}", stem(operation)),
        title: spoken(operation),
        caption: format!(
            "Filled marks are back to back (pipelined, as nccl-tests times), hollow ones each on its own (isolated, the slowest \
             rank); bars are 95 % intervals. The line without marks is the fitted curve of the cost model, its diamonds where \
             it bends most. Bus bandwidth is nccl-tests' figure.{left_out}"
        ),
        picture: Picture::Charts(charts),
        data: data(operation, curves, sides),
    }
}

/// `All-reduce` of `all_reduce`, `Send/recv, ping-pong` of `send_recv ping_pong`.
fn spoken(operation: &str) -> String {
    let (name, pattern) = operation.split_once(' ').unwrap_or((operation, ""));
    let name = if name == "send_recv" { "send/recv".to_string() } else { name.replace('_', "-") };
    let first: String = name.chars().take(1).flat_map(char::to_uppercase).collect();
    let pattern = if pattern.is_empty() {
        String::new()
    } else {
        format!(", {}", pattern.replace("ping_pong", "ping-pong").replace('_', " "))
    };
    format!("{first}{}{pattern}", name.chars().skip(1).collect::<String>())
}

fn told(record: &Measurement, y: f64) -> Point {
    Point { what: record.id.clone(), ..Point::at(record.bytes.unwrap_or(0.0), y) }
}

/// Pipelined and isolated times of a curve.
fn times(records: &[&Measurement], name: &str, colour: usize) -> Vec<Series> {
    let pipelined = records
        .iter()
        .filter_map(|r| Some(Point { reach: r.ci95_low_ns.zip(r.ci95_high_ns), ..told(r, r.median_ns?) }));
    let isolated = records.iter().filter_map(|r| {
        let time = r.isolated_ns.filter(|time| time.median > 0.0 && time.median.is_finite())?;
        Some(Point { reach: Some((time.low, time.high)), ..told(r, time.median) })
    });
    let all = [
        (name.to_string(), Style::Marks, pipelined.collect::<Vec<_>>()),
        (format!("{name}, isolated"), Style::Hollow, isolated.collect()),
    ];
    let series = all.into_iter().map(|(name, style, points)| Series { name, colour, shape: colour, style, points });
    series.filter(|series| !series.points.is_empty()).collect()
}

fn fit_of<'a>(operation: &str, key: &CurveKey, sides: &'a [ReportSide]) -> Option<&'a CollectiveFit> {
    let name = operation.replace(' ', "/");
    let fits = &sides[key.side].model.as_ref()?.collectives;
    fits.iter().filter(|_| key.variant.is_empty()).find(|fit| {
        let same = (fit.ranks, fit.nodes, fit.dtype.as_str()) == (key.ranks, key.nodes, key.dtype.as_str());
        fit.operation == name && same && fit.latency == "pipelined"
    })
}

/// The fitted curve over the sizes that were measured, and its bends.
fn fitted(fit: &CollectiveFit, records: &[&Measurement], colour: usize) -> [Series; 2] {
    let sizes = || records.iter().filter_map(|r| r.bytes);
    let (low, high) = sizes().fold((f64::INFINITY, 0.0f64), |(low, high), b| (low.min(b), high.max(b)));
    let mut line = Vec::new();
    let last = fit.segments.len().saturating_sub(1);
    for (index, segment) in fit.segments.iter().enumerate() {
        let from = if index == 0 { low } else { segment.from_bytes as f64 }.clamp(low, high);
        let to = if index == last { high } else { segment.to_bytes as f64 }.clamp(low, high);
        let at = |bytes: f64| Point::at(bytes, segment.latency_ns + segment.ns_per_byte * bytes);
        // A straight piece is bent by the logarithmic axes: some points along it.
        let steps = 12;
        let points = (0..=steps).map(|k| at(from * (to / from).powf(f64::from(k) / f64::from(steps))));
        line.extend(points.filter(|point| point.y > 0.0));
    }
    let series = |name: &str, style, shape, points| Series { name: name.into(), colour, shape, style, points };
    [
        series("fitted curve", Style::Line, 0, line),
        series("its sharpest bends", Style::Hollow, 3, bends(fit, low, high)),
    ]
}

/// The sizes at which the curve bends most.
fn bends(fit: &CollectiveFit, low: f64, high: f64) -> Vec<Point> {
    let slope = |ns_per_byte: f64| ns_per_byte.max(1e-9).ln();
    let mut bends: Vec<(f64, Point)> = Vec::new();
    for pair in fit.segments.windows(2) {
        let bytes = pair[1].from_bytes as f64;
        if bytes > low && bytes < high {
            let change = (slope(pair[1].ns_per_byte) - slope(pair[0].ns_per_byte)).abs();
            bends.push((change, Point::at(bytes, pair[1].latency_ns + pair[1].ns_per_byte * bytes)));
        }
    }
    bends.sort_by(|a, b| b.0.total_cmp(&a.0));
    bends.truncate(BENDS);
    bends.into_iter().map(|(_, point)| point).collect()
}

/// Where one algorithm follows another on a curve.
fn changes(fit: &CollectiveFit, colour: usize, curve: &str) -> Vec<Rule> {
    let rule = |from: &AlgorithmFrom| Rule {
        x: from.from_bytes as f64,
        word: format!("{} ({curve})", from.algorithm),
        colour,
    };
    fit.algorithms.iter().skip(1).map(rule).collect()
}

fn data(operation: &str, curves: &Curves, sides: &[ReportSide]) -> FigureData {
    let (ns, gb) = (Some(Quantity::Nanoseconds), Some(Quantity::GigabytePerSecond));
    let mut data = FigureData::new(&[
        ("machine", None),
        ("operation", None),
        ("ranks", Some(Quantity::Count)),
        ("nodes", Some(Quantity::Count)),
        ("dtype", None),
        ("variant", None),
        ("bytes", Some(Quantity::Bytes)),
        ("pipelined_ns", ns),
        ("ci95_low_ns", ns),
        ("ci95_high_ns", ns),
        ("isolated_ns", ns),
        ("algbw_gb_per_s", gb),
        ("busbw_gb_per_s", gb),
        ("algorithm", None),
        ("flags", None),
    ]);
    for (key, records) in curves {
        for r in records {
            data.row([
                sides[key.side].name.as_str().into(),
                operation.into(),
                (key.ranks as f64).into(),
                (key.nodes as f64).into(),
                key.dtype.as_str().into(),
                key.variant.as_str().into(),
                r.bytes.into(),
                r.median_ns.into(),
                r.ci95_low_ns.into(),
                r.ci95_high_ns.into(),
                r.isolated_ns.map(|time| time.median).into(),
                r.algbw_gb_per_s.into(),
                r.busbw_gb_per_s.into(),
                r.param_str("algorithm").into(),
                r.flags.join(" ").into(),
            ]);
        }
    }
    data
}
