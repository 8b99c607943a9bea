//! Predictions against measurements: of fits that had not seen the case, and of the whole cost model.

use super::additivity::diagonal;
use super::chart::{Axis, Chart, NEUTRAL, Point, Quantity, Scale, Series, Style};
use super::figure::{Figure, FigureData, Picture};
use super::{ReportSide, evenly, has_time, keys, marks_of, rest, with_side};
use crate::cost::predict::{CollectiveQuery, Predictor};
use crate::records::measurement::{Kind, Launch};
use crate::records::{CostModel, Measurement};

/// Marks of one series at most; the numbers have all.
const MARKS: usize = 240;

/// Parts of the cost model as `accuracy` names them, in the order of the legend, with what the legend calls them.
const PARTS: [(&str, &str); 5] = [
    ("gemm", "matrix products"),
    ("attention", "attention"),
    ("streaming", "streaming operations"),
    ("layer/", "layers"),
    ("collective/", "collectives"),
];

/// A prediction beside what was measured, in ns or as a slowdown.
struct Pair {
    part: String,
    what: String,
    measured: f64,
    predicted: f64,
    held_out: bool,
}

/// Times, and slowdowns where pairs were held out; empty where no side has a cost model.
pub fn figures(sides: &[ReportSide]) -> Vec<Figure> {
    let all: Vec<Vec<Pair>> = sides.iter().map(pairs).collect();
    let held_out = all.iter().flatten().any(|pair| pair.held_out);
    let judged = if held_out {
        "Coloured marks are cases that were held out: each was predicted by a fit made without it and without the others of its \
         fifth, which is what a reader may expect of a case that was not measured."
    } else {
        "No case was held out here: the errors shown are those of a fit that knows what it predicts, and smaller than a reader may \
         expect of other cases."
    };
    let mut left_out = 0;
    let times = chart(sides, &all, false, &mut left_out);
    let slowdowns = chart(sides, &all, true, &mut left_out);
    let caption = format!(
        "{judged} Hollow grey marks are predictions of the whole cost model for message sizes that it was fitted to. On the line \
         both are equal.{}",
        rest(left_out, "cases")
    );
    let charts: Vec<Chart> = [times, slowdowns].into_iter().flatten().collect();
    if charts.is_empty() {
        return Vec::new();
    }
    vec![Figure {
        name: "predicted-measured".into(),
        title: "Predicted and measured".into(),
        caption,
        picture: Picture::Charts(charts),
        data: data(sides, &all),
    }]
}

fn pairs(side: &ReportSide) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = side.model.iter().flat_map(|model| fitted(model, &side.records)).collect();
    for part in &side.held_out {
        pairs.extend(part.cases.iter().map(|case| Pair {
            part: part.what.clone(),
            what: part.what.clone(),
            measured: case.measured,
            predicted: case.predicted,
            held_out: true,
        }));
    }
    pairs.retain(|pair| [pair.measured, pair.predicted].iter().all(|v| v.is_finite() && *v > 0.0));
    pairs
}

/// Collectives as the model answers them; layers and operations that were measured it answers as measured.
fn fitted(model: &CostModel, records: &[Measurement]) -> Vec<Pair> {
    let predictor = Predictor::new(model);
    let plain = |r: &&Measurement| {
        r.kind == Kind::Collective && has_time(r) && r.launch != Some(Launch::Graph) && r.param_str("pattern").is_none()
    };
    let pair = |r: &Measurement| {
        let query = CollectiveQuery {
            operation: r.param_str("operation")?.into(),
            ranks: r.param_u64("ranks").filter(|&n| n >= 2)?,
            nodes: r.param_u64("nodes").unwrap_or(1).max(1),
            bytes: r.bytes.filter(|b| *b >= 1.0)? as u64,
            isolated: false,
            dtype: r.param_str("dtype").map(String::from),
        };
        let predicted = predictor.collective(&query).ok()?.median_ns;
        let part = format!("collective/{}", query.operation);
        Some(Pair { part, what: r.id.clone(), measured: r.median_ns?, predicted, held_out: false })
    };
    records.iter().filter(plain).filter_map(pair).collect()
}

/// Of times, or of slowdowns.
fn chart(sides: &[ReportSide], all: &[Vec<Pair>], slowdowns: bool, left_out: &mut usize) -> Option<Chart> {
    let of = |pair: &&Pair| (pair.part == "corun") == slowdowns;
    let ends = all.iter().flatten().filter(of).flat_map(|pair| [pair.measured, pair.predicted]);
    let (least, most) = ends.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    if least > most {
        return None;
    }
    let (quantity, scale, heading) = match slowdowns {
        true => (Quantity::Ratio, Scale::Linear, "Slowdown beside a side"),
        false => (Quantity::Nanoseconds, Scale::Log, "Time"),
    };
    let mut chart = Chart::new(Axis::new("measured", scale.clone(), quantity), Axis::new("predicted", scale, quantity))
        .headed(heading)
        .with([diagonal(least, most)]);
    let most = MARKS / sides.len();
    let mut series = |name, colour, shape, style, points: &[Point]| {
        let drawn = evenly(points, most);
        *left_out += points.len() - drawn.len();
        (!drawn.is_empty()).then_some(Series { name, colour, shape, style, points: drawn })
    };
    for (index, pairs) in all.iter().enumerate() {
        let side = &sides[index];
        let known: Vec<Point> = pairs.iter().filter(of).filter(|pair| !pair.held_out).map(point).collect();
        let name = with_side("fitted to it", side, sides);
        chart = chart.with(series(name, NEUTRAL, index, Style::Hollow, &known));
        let parts = PARTS.iter().enumerate().filter(|_| !slowdowns).map(|(at, (prefix, name))| (at, *prefix, *name));
        for (at, prefix, name) in parts.chain(slowdowns.then_some((5, "corun", "pairs"))) {
            let held: Vec<Point> =
                pairs.iter().filter(|pair| pair.held_out && pair.part.starts_with(prefix)).map(point).collect();
            let colour = if sides.len() > 1 { index } else { at };
            chart = chart.with(series(with_side(name, side, sides), colour, at, marks_of(index, sides), &held));
        }
    }
    let parts: Vec<&str> = PARTS.iter().map(|(_, name)| *name).chain(["pairs"]).collect();
    Some(chart.keyed(keys(sides, &parts)))
}

fn point(pair: &Pair) -> Point {
    Point { what: pair.what.clone(), ..Point::at(pair.measured, pair.predicted) }
}

fn data(sides: &[ReportSide], all: &[Vec<Pair>]) -> FigureData {
    let mut data = FigureData::new(&[
        ("machine", None),
        ("part", None),
        ("case", None),
        ("held_out", None),
        ("measured_ns", Some(Quantity::Nanoseconds)),
        ("predicted_ns", Some(Quantity::Nanoseconds)),
        ("measured_slowdown", Some(Quantity::Ratio)),
        ("predicted_slowdown", Some(Quantity::Ratio)),
        ("predicted_over_measured", Some(Quantity::Ratio)),
    ]);
    for (side, pairs) in sides.iter().zip(all) {
        for pair in pairs {
            let slowdown = pair.part == "corun";
            let time = |value: f64| (!slowdown).then_some(value);
            let factor = |value: f64| slowdown.then_some(value);
            data.row([
                side.name.as_str().into(),
                pair.part.as_str().into(),
                Some(pair.what.as_str()).filter(|_| !pair.held_out).into(),
                (if pair.held_out { "yes" } else { "no" }).into(),
                time(pair.measured).into(),
                time(pair.predicted).into(),
                factor(pair.measured).into(),
                factor(pair.predicted).into(),
                (pair.predicted / pair.measured).into(),
            ]);
        }
    }
    data
}
