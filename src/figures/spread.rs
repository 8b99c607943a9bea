//! How samples scatter about their medians, and how a run drifts: whether the numbers of a run can be trusted.

use super::chart::{Axis, Chart, NEUTRAL, Point, Quantity, Scale, Series, Style};
use super::figure::{Figure, FigureData, Picture};
use super::{ReportSide, evenly, has_time, keys, rest, with_side};
use crate::records::Measurement;
use crate::records::measurement::Kind;
use crate::stats;
use std::time::{SystemTime, UNIX_EPOCH};

/// Marks of one series at most; the numbers have all.
const MARKS: usize = 250;

/// Kinds of cases with what the legend calls them.
const KINDS: [(Kind, &str); 4] = [
    (Kind::Operation, "operations"),
    (Kind::Layer, "layers"),
    (Kind::Collective, "collectives"),
    (Kind::Corun, "pairs"),
];

/// Quantiles of the curves, in percent.
const QUANTILES: [f64; 15] = [0.0, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0];

/// The distribution of all samples over the medians of their cases, a curve a kind of case; `None` without samples.
pub fn samples(sides: &[ReportSide]) -> Option<Figure> {
    let mut data = FigureData::new(&[
        ("machine", None),
        ("cases", None),
        ("quantile_percent", Some(Quantity::Percent)),
        ("sample_over_median", Some(Quantity::Ratio)),
    ]);
    let mut chart = Chart::new(
        Axis::new("sample over its case's median", Scale::Log, Quantity::Ratio),
        Axis::new("samples below", Scale::Linear, Quantity::Percent).holding(&[0.0, 100.0]),
    );
    for (index, side) in sides.iter().enumerate() {
        for (at, (kind, name)) in KINDS.iter().enumerate() {
            let mut ratios: Vec<f64> =
                side.records.iter().filter(|r| r.kind == *kind && has_time(r)).flat_map(ratios).collect();
            ratios.sort_by(f64::total_cmp);
            let at_quantile = |q: f64| stats::quantile_sorted(&ratios, q / 100.0);
            let points: Vec<Point> = QUANTILES.iter().filter_map(|&q| Some(Point::at(at_quantile(q)?, q))).collect();
            for point in &points {
                data.row([side.name.as_str().into(), (*name).into(), point.y.into(), point.x.into()]);
            }
            let colour = if sides.len() > 1 { index } else { at };
            let name = with_side(*name, side, sides);
            let series = Series { name, colour, shape: at, style: Style::MarkedLine, points };
            chart = chart.with((!series.points.is_empty()).then_some(series));
        }
    }
    let chart = chart.keyed(keys(sides, &KINDS.map(|(_, name)| name)));
    (!chart.series.is_empty()).then(|| Figure {
        name: "sample-distribution".into(),
        title: "How samples scatter".into(),
        caption: "Share of all samples that are at most so many times the median of their case, by kind of case, from the fastest \
                  to the 99th percentile. The steeper a curve, the quieter the machine."
            .into(),
        picture: Picture::Charts(vec![chart]),
        data,
    })
}

fn ratios(record: &Measurement) -> impl Iterator<Item = f64> + '_ {
    let median = record.median_ns.unwrap_or(f64::NAN);
    record.samples_ns.iter().map(move |sample| sample / median).filter(|ratio| ratio.is_finite() && *ratio >= 0.0)
}

/// Something read at a moment of the run.
struct Reading<'a> {
    what: &'a str,
    minutes: f64,
    value: f64,
}

/// Times, clock and power over the run; `None` where nothing says when it was read.
pub fn drift(sides: &[ReportSide]) -> Option<Figure> {
    let mut data = FigureData::new(&[
        ("machine", None),
        ("case", None),
        ("minutes", Some(Quantity::Minutes)),
        ("visit_over_median", Some(Quantity::Ratio)),
        ("sm_clock_mhz", Some(Quantity::Megahertz)),
        ("power_w", Some(Quantity::Watts)),
    ]);
    let panel = |heading, label, scale, quantity| {
        Chart::new(
            Axis::new("since the run began", Scale::Linear, Quantity::Minutes).holding(&[0.0]),
            Axis::new(label, scale, quantity),
        )
        .headed(heading)
    };
    let mut charts = [
        panel("Times", "visit over its case's median", Scale::Log, Quantity::Ratio),
        panel("SM clock", "SM clock", Scale::Linear, Quantity::Megahertz),
        panel("Power", "power", Scale::Linear, Quantity::Watts),
    ];
    let mut left_out = 0;
    for (index, side) in sides.iter().enumerate() {
        let Some(start) = side.records.iter().filter_map(first_moment).min_by(f64::total_cmp) else { continue };
        let all =
            [visits(side, start), readings(side, start, |r| r.sm_clock_mhz), readings(side, start, |r| r.power_w)];
        for (panel, (chart, list)) in charts.iter_mut().zip(&all).enumerate() {
            for r in list {
                let only = |at: usize| (at == panel).then_some(r.value);
                let (name, what) = (side.name.as_str(), r.what);
                data.row([name.into(), what.into(), r.minutes.into(), only(0).into(), only(1).into(), only(2).into()]);
            }
            let points: Vec<Point> =
                list.iter().map(|r| Point { what: r.what.into(), ..Point::at(r.minutes, r.value) }).collect();
            let (colour, name) = (index, if sides.len() > 1 { side.name.clone() } else { String::new() });
            let series = Series {
                name,
                colour,
                shape: index,
                style: Style::Marks,
                points: telling(&points, MARKS / sides.len()),
            };
            left_out += points.len() - series.points.len();
            chart.series.extend((!series.points.is_empty()).then_some(series));
        }
    }
    let mut charts: Vec<Chart> = charts.into_iter().filter(|chart| !chart.series.is_empty()).collect();
    if let Some(first) = charts.first_mut().filter(|chart| chart.y.quantity == Quantity::Ratio) {
        let most = first.series.iter().flat_map(|s| s.points.iter().map(|p| p.x)).fold(0.0, f64::max);
        let points = vec![Point::at(0.0, 1.0), Point::at(most, 1.0)];
        let even = Series { name: String::new(), colour: NEUTRAL, shape: 0, style: Style::Line, points };
        first.series.insert(0, even);
    }
    (!charts.is_empty()).then(|| Figure {
        name: "drift".into(),
        title: "Drift over the run".into(),
        caption: format!(
            "Median of each visit to a case over the case's own median, when the visit ended; on a GPU the SM clock and the power \
                  of each case as well. Points that rise or fall together are the machine's doing, not the cases'.{}",
            rest(left_out, "readings, none of them far from the others,")
        ),
        picture: Picture::Charts(charts),
        data,
    })
}

/// Seconds since 1970 of an RFC 3339 time.
fn seconds(at: &str) -> Option<f64> {
    let time: SystemTime = humantime::parse_rfc3339_weak(at).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

fn first_moment(record: &Measurement) -> Option<f64> {
    let first = record.visits.as_ref().and_then(|visits| visits.first()).map(|visit| visit.at.as_str());
    seconds(first.unwrap_or(&record.at))
}

fn visits(side: &ReportSide, start: f64) -> Vec<Reading<'_>> {
    let mut list = Vec::new();
    for record in side.records.iter().filter(|r| has_time(r)) {
        let Some(median) = record.median_ns else { continue };
        for visit in record.visits.iter().flatten() {
            let (Some(at), value) = (seconds(&visit.at), visit.median_ns / median) else { continue };
            if value.is_finite() {
                list.push(Reading { what: &record.id, minutes: (at - start) / 60.0, value });
            }
        }
    }
    in_order(list)
}

fn readings(side: &ReportSide, start: f64, of: fn(&Measurement) -> Option<f64>) -> Vec<Reading<'_>> {
    let reading = |r| -> Option<Reading> {
        let r: &Measurement = r;
        let value = of(r).filter(|value| value.is_finite())?;
        Some(Reading { what: &r.id, minutes: (seconds(&r.at)? - start) / 60.0, value })
    };
    in_order(side.records.iter().filter_map(reading).collect())
}

/// At most so many points in their order: a fifth of them those that lie farthest from the middle, the others evenly spaced.
fn telling(points: &[Point], most: usize) -> Vec<Point> {
    if points.len() <= most {
        return points.to_vec();
    }
    let middle = stats::median(&points.iter().map(|point| point.y).collect::<Vec<_>>()).unwrap_or(1.0);
    let distance = |point: &Point| (point.y - middle).abs();
    let mut far: Vec<usize> = (0..points.len()).collect();
    far.sort_by(|&a, &b| distance(&points[b]).total_cmp(&distance(&points[a])));
    let (far, near) = far.split_at(most / 5);
    let mut near = near.to_vec();
    near.sort_unstable();
    let mut kept: Vec<usize> = far.iter().copied().chain(evenly(&near, most - most / 5)).collect();
    kept.sort_unstable();
    kept.into_iter().map(|at| points[at].clone()).collect()
}

fn in_order(mut list: Vec<Reading>) -> Vec<Reading> {
    list.sort_by(|a, b| a.minutes.total_cmp(&b.minutes));
    list
}
