//! Whether a layer takes as long as its operations together: what a cost model made of single operations rests on.

use super::chart::{Axis, Chart, NEUTRAL, Point, Quantity, Scale, Series, Style};
use super::figure::{Figure, FigureData, Picture};
use super::layers::phase_name;
use super::{ReportSide, evenly, has_time, keys, marks_of, rest, with_side};
use crate::cost::features::dtype_of;
use crate::records::Measurement;
use crate::records::measurement::Kind;
use crate::shape::operation::Operation;
use crate::shape::{DType, LayerShape, Phase};
use std::collections::HashMap;

/// Marks of one series at most; the numbers have all.
const MARKS: usize = 300;

struct Sum<'a> {
    layer: &'a Measurement,
    phase: Phase,
    sum_ns: f64,
    layer_ns: f64,
}

/// The layers whose every operation was measured at the same shape; `None` where there are none.
pub fn figure(sides: &[ReportSide]) -> Option<Figure> {
    let sums: Vec<(usize, Vec<Sum>)> = sides
        .iter()
        .enumerate()
        .map(|(index, side)| (index, sums(side)))
        .filter(|(_, sums)| !sums.is_empty())
        .collect();
    if sums.is_empty() {
        return None;
    }
    let ends = sums.iter().flat_map(|(_, list)| list.iter().flat_map(|s| [s.sum_ns, s.layer_ns]));
    let (least, most) = ends.fold((f64::INFINITY, 0.0f64), |(low, high), ns| (low.min(ns), high.max(ns)));
    let mut chart = Chart::new(
        Axis::new("sum of its operations", Scale::Log, Quantity::Nanoseconds),
        Axis::new("layer", Scale::Log, Quantity::Nanoseconds),
    )
    .with([diagonal(least, most)]);
    let mut left_out = 0;
    for (index, list) in &sums {
        for (at, phase) in Phase::ALL.into_iter().enumerate() {
            let points: Vec<Point> = list.iter().filter(|sum| sum.phase == phase).map(point).collect();
            let colour = if sides.len() > 1 { *index } else { at };
            let name = with_side(phase_name(phase), &sides[*index], sides);
            let drawn = evenly(&points, MARKS / sides.len());
            left_out += points.len() - drawn.len();
            let series = Series { name, colour, shape: at, style: marks_of(*index, sides), points: drawn };
            chart = chart.with((!series.points.is_empty()).then_some(series));
        }
    }
    let chart = chart.keyed(keys(sides, &Phase::ALL.map(phase_name)));
    Some(Figure {
        name: "additivity".into(),
        title: "A layer and the sum of its operations".into(),
        caption: format!(
            "Time of a phase of a whole layer over the sum of the times of its operations, each measured alone at the same \
                  sizes. On the line both are the same; below it operations gain from each other, above it they lose.{}",
            rest(left_out, "layers")
        ),
        picture: Picture::Charts(vec![chart]),
        data: data(sides, &sums),
    })
}

/// Where both axes have the same value.
pub(super) fn diagonal(least: f64, most: f64) -> Series {
    let points = [least, most].map(|ns| Point::at(ns, ns)).to_vec();
    Series { name: "equal".into(), colour: NEUTRAL, shape: 0, style: Style::Line, points }
}

fn point(sum: &Sum) -> Point {
    Point { what: sum.layer.id.clone(), ..Point::at(sum.sum_ns, sum.layer_ns) }
}

/// What an operation is recognised by: its name, FLOP and bytes, the last two in whole numbers.
type OperationKey = (String, DType, u64, u64);

fn key(operation: &Operation, dtype: DType) -> OperationKey {
    (operation.name().into(), dtype, operation.flop() as u64, operation.bytes(dtype) as u64)
}

fn sums(side: &ReportSide) -> Vec<Sum<'_>> {
    let mut measured: HashMap<OperationKey, f64> = HashMap::new();
    for record in side.records.iter().filter(|r| r.kind == Kind::Operation && has_time(r) && r.id.starts_with("gpt/")) {
        let Some(name) = record.param_str("operation") else { continue };
        let (flop, bytes) = (record.flop.unwrap_or(0.0) as u64, record.bytes.unwrap_or(0.0) as u64);
        if record.cache != Some(crate::records::measurement::Cache::Cold)
            && let Some(ns) = record.median_ns
        {
            measured.entry((name.into(), dtype_of(record), flop, bytes)).or_insert(ns);
        }
    }
    side.records.iter().filter(|r| r.kind == Kind::Layer && has_time(r)).filter_map(|r| sum(r, &measured)).collect()
}

fn sum<'a>(layer: &'a Measurement, measured: &HashMap<OperationKey, f64>) -> Option<Sum<'a>> {
    let mut parts = layer.id.split('/');
    let (Some("gpt"), Some(_), Some(phase), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let phase = Phase::ALL.into_iter().find(|known| known.name() == phase)?;
    let shape = LayerShape::from_params(&layer.params)?;
    let operations = shape.operations(phase);
    let sum_ns = operations
        .iter()
        .map(|(_, o)| measured.get(&key(o, shape.dtype)).copied())
        .sum::<Option<f64>>()
        .filter(|_| !operations.is_empty())?;
    Some(Sum { layer, phase, sum_ns, layer_ns: layer.median_ns? })
}

fn data(sides: &[ReportSide], sums: &[(usize, Vec<Sum>)]) -> FigureData {
    let ns = Some(Quantity::Nanoseconds);
    let mut data = FigureData::new(&[
        ("machine", None),
        ("layer", None),
        ("phase", None),
        ("operations_ns", ns),
        ("layer_ns", ns),
        ("layer_over_operations", Some(Quantity::Ratio)),
    ]);
    for (index, list) in sums {
        for s in list {
            data.row([
                sides[*index].name.as_str().into(),
                s.layer.id.as_str().into(),
                s.phase.name().into(),
                s.sum_ns.into(),
                s.layer_ns.into(),
                (s.layer_ns / s.sum_ns).into(),
            ]);
        }
    }
    data
}
