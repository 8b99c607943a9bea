//! Every operation under the roof of its machine (Williams, Waterman and Patterson, CACM 2009): its rate over its
//! arithmetic intensity. The roof is what any operation here reached, not a data sheet's.

use super::chart::{Axis, Chart, NEUTRAL, Point, Quantity, Scale, Series, Style};
use super::figure::{Figure, FigureData, Picture};
use super::{ReportSide, evenly, has_time, keys, marks_of, rest, with_side};
use crate::records::Measurement;
use crate::records::measurement::Kind;

/// Marks of one series at most; the numbers have all.
const MARKS: usize = 300;

/// Families as records name them, with what the legend calls them.
const FAMILIES: [(&str, &str); 3] =
    [("gemm", "matrix products"), ("attention", "attention"), ("streaming", "streaming operations")];

struct Operation<'a> {
    record: &'a Measurement,
    family: usize,
    /// FLOP for each byte.
    intensity: f64,
    /// GFLOP/s.
    rate: f64,
}

/// The roofline of every side with operations whose FLOP and bytes were counted; `None` where there are none.
pub fn figure(sides: &[ReportSide]) -> Option<Figure> {
    let operations: Vec<(usize, Vec<Operation>)> = sides
        .iter()
        .enumerate()
        .map(|(index, side)| (index, operations(side)))
        .filter(|(_, o)| !o.is_empty())
        .collect();
    if operations.is_empty() {
        return None;
    }
    let intensities = operations.iter().flat_map(|(_, list)| list.iter().map(|o| o.intensity));
    let (least, most) = intensities.fold((f64::INFINITY, 0.0f64), |(low, high), i| (low.min(i), high.max(i)));
    let mut chart = Chart::new(
        Axis::new("arithmetic intensity", Scale::Log, Quantity::FlopPerByte),
        Axis::new("rate", Scale::Log, Quantity::GigaflopPerSecond),
    );
    let mut left_out = 0;
    for (index, list) in &operations {
        let side = &sides[*index];
        let roof_colour = if sides.len() > 1 { *index } else { NEUTRAL };
        chart = chart.with(roof(list, (least, most), roof_colour, with_side("highest reached", side, sides)));
        for (family, (_, name)) in FAMILIES.iter().enumerate() {
            let points: Vec<Point> = list.iter().filter(|o| o.family == family).map(|o| point(o)).collect();
            let drawn = evenly(&points, MARKS / sides.len());
            left_out += points.len() - drawn.len();
            let colour = if sides.len() > 1 { *index } else { family };
            let name = with_side(*name, side, sides);
            let series = Series { name, colour, shape: family, style: marks_of(*index, sides), points: drawn };
            chart = chart.with((!series.points.is_empty()).then_some(series));
        }
    }
    let rest = rest(left_out, "operations");
    let families: Vec<&str> = FAMILIES.iter().map(|(_, name)| *name).collect();
    let chart = chart.keyed(keys(sides, &families));
    Some(Figure {
        name: "roofline".into(),
        title: "Roofline of the operations".into(),
        caption: format!(
            "Rate of each operation over its arithmetic intensity, the FLOP done for each byte that must be read or written. \
             The roof is the highest bandwidth and the highest rate that any operation here reached, not a data sheet's figure; \
             warm caches raise it.{rest}"
        ),
        picture: Picture::Charts(vec![chart]),
        data: data(sides, &operations),
    })
}

fn operations(side: &ReportSide) -> Vec<Operation<'_>> {
    let counted = |record: &&Measurement| record.kind == Kind::Operation && has_time(record);
    let operation = |record| -> Option<Operation> {
        let record: &Measurement = record;
        let (flop, bytes) = (record.flop.filter(|f| *f > 0.0)?, record.bytes.filter(|b| *b > 0.0)?);
        let family = record.param_str("family").unwrap_or("streaming");
        let family = FAMILIES.iter().position(|(name, _)| *name == family).unwrap_or(FAMILIES.len() - 1);
        Some(Operation { record, family, intensity: flop / bytes, rate: flop / record.median_ns? })
    };
    side.records.iter().filter(counted).filter_map(operation).filter(|o| o.rate.is_finite()).collect()
}

fn point(operation: &Operation) -> Point {
    Point { what: operation.record.id.clone(), ..Point::at(operation.intensity, operation.rate) }
}

/// Slanted as far as the bandwidth reaches, then flat.
fn roof(list: &[Operation], (least, most): (f64, f64), colour: usize, name: String) -> [Series; 1] {
    let rate = list.iter().map(|o| o.rate).fold(0.0, f64::max);
    let bandwidth = list.iter().map(|o| o.rate / o.intensity).fold(0.0, f64::max);
    let ridge = (rate / bandwidth).clamp(least, most);
    let points = [least, ridge, most].map(|x| Point::at(x, rate.min(bandwidth * x)));
    [Series { name, colour, shape: 0, style: Style::Line, points: points.to_vec() }]
}

fn data(sides: &[ReportSide], operations: &[(usize, Vec<Operation>)]) -> FigureData {
    let mut data = FigureData::new(&[
        ("machine", None),
        ("operation", None),
        ("family", None),
        ("flop_per_byte", Some(Quantity::FlopPerByte)),
        ("gflop_per_s", Some(Quantity::GigaflopPerSecond)),
        ("gb_per_s", Some(Quantity::GigabytePerSecond)),
        ("median_ns", Some(Quantity::Nanoseconds)),
        ("flags", None),
    ]);
    for (index, list) in operations {
        for o in list {
            data.row([
                sides[*index].name.as_str().into(),
                o.record.id.as_str().into(),
                FAMILIES[o.family].0.into(),
                o.intensity.into(),
                o.rate.into(),
                (o.rate / o.intensity).into(),
                o.record.median_ns.into(),
                o.record.flags.join(" ").into(),
            ]);
        }
    }
    data
}
