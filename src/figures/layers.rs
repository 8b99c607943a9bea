//! The time of a layer by shape and phase.

use super::chart::{Axis, Chart, Point, Quantity, Scale, Series, Style};
use super::figure::{Figure, FigureData, Picture};
use super::{ReportSide, evenly, has_time, with_side};
use crate::records::Measurement;
use crate::records::measurement::Kind;
use crate::shape::Phase;
use std::collections::HashMap;

/// Rows of the picture at most.
const ROWS: usize = 40;

/// Phases with what the legend calls them.
const PHASES: [(&str, &str); 4] = [
    ("forward", "forward"),
    ("backward_input", "backward to inputs"),
    ("backward_weight", "backward to weights"),
    ("forward_backward", "forward + backward"),
];

/// What the legend calls a phase.
pub(super) fn phase_name(phase: Phase) -> &'static str {
    PHASES.iter().find(|(name, _)| *name == phase.name()).map_or(phase.name(), |(_, name)| name)
}

/// A shape on a side, run in one way (launch by launch, as a graph, from cold caches), and its phases' records.
#[derive(Clone)]
struct Row<'a> {
    name: String,
    side: &'a str,
    shape: String,
    phases: [Option<&'a Measurement>; 4],
}

impl Row<'_> {
    /// What rows are sorted by: the whole layer, else what there is of it.
    fn longest_ns(&self) -> f64 {
        self.phases.iter().flatten().filter_map(|record| record.median_ns).fold(0.0, f64::max)
    }
}

/// Median and interval of each phase, a row a shape, the slowest at the bottom; `None` without a layer.
pub fn figure(sides: &[ReportSide]) -> Option<Figure> {
    let mut rows: Vec<Row> = sides.iter().flat_map(|side| rows(side, sides)).collect();
    if rows.is_empty() {
        return None;
    }
    // Sides of a shape stand together.
    let mut longest: HashMap<String, f64> = HashMap::new();
    for row in &rows {
        let before = longest.entry(row.shape.clone()).or_default();
        *before = before.max(row.longest_ns());
    }
    rows.sort_by(|a, b| longest[&a.shape].total_cmp(&longest[&b.shape]).then_with(|| a.shape.cmp(&b.shape)));
    // Whole shapes are left out, never one side of a shape.
    let shapes: Vec<&str> = rows.chunk_by(|a, b| a.shape == b.shape).map(|rows| rows[0].shape.as_str()).collect();
    let kept = evenly(&shapes, (ROWS / sides.len().max(1)).max(2));
    let drawn: Vec<Row> = rows.iter().filter(|row| kept.contains(&row.shape.as_str())).cloned().collect();
    let left_out = match rows.len() - drawn.len() {
        0 => String::new(),
        more => format!(" {more} rows of shapes in between are in the numbers only."),
    };
    Some(Figure {
        name: "layer-time".into(),
        title: "Time of one GPT layer".into(),
        caption: format!(
            "Median time of a phase of one layer for one micro-batch, its 95 % interval as a bar; a shape is hidden size, \
             attention heads, sequence length, micro-batch, tensor-parallel ways and element type.{left_out}"
        ),
        picture: Picture::Charts(vec![chart(&drawn)]),
        data: data(&rows),
    })
}

fn rows<'a>(side: &'a ReportSide, sides: &[ReportSide]) -> Vec<Row<'a>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    for record in side.records.iter().filter(|r| r.kind == Kind::Layer && has_time(r)) {
        let mut parts = record.id.splitn(4, '/');
        let (Some("gpt"), Some(shape), Some(phase)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let Some(index) = PHASES.iter().position(|(name, _)| *name == phase) else { continue };
        let shape = parts.next().map_or(shape.to_string(), |way| format!("{shape} {}", way.replace('/', " ")));
        let at = *place.entry(shape.clone()).or_insert_with(|| {
            let name = with_side(shape.clone(), side, sides);
            rows.push(Row { name, side: &side.name, shape, phases: [None; 4] });
            rows.len() - 1
        });
        rows[at].phases[index] = Some(record);
    }
    rows
}

fn chart(rows: &[Row]) -> Chart {
    let names = rows.iter().map(|row| row.name.clone()).collect();
    let x = Axis::new("time", Scale::Log, Quantity::Nanoseconds);
    let y = Axis::new("", Scale::Rows(names), Quantity::Count);
    let series = PHASES.iter().enumerate().map(|(index, (_, name))| Series {
        name: (*name).into(),
        colour: index,
        shape: index,
        style: Style::Marks,
        points: rows.iter().enumerate().filter_map(|(at, row)| point(row, at, index)).collect(),
    });
    let series: Vec<Series> = series.filter(|series| !series.points.is_empty()).collect();
    Chart::new(x, y).with(series)
}

fn point(row: &Row, at: usize, phase: usize) -> Option<Point> {
    let record = row.phases[phase]?;
    // Phases of a row stand a little under each other, so that one does not hide another.
    let y = at as f64 + 0.17 * (phase as f64 - 1.5);
    let reach = record.ci95_low_ns.zip(record.ci95_high_ns);
    Some(Point { x: record.median_ns?, y, reach, what: format!("{}: {}", row.name, PHASES[phase].1) })
}

fn data(rows: &[Row]) -> FigureData {
    let ns = Some(Quantity::Nanoseconds);
    let mut data = FigureData::new(&[
        ("machine", None),
        ("shape", None),
        ("phase", None),
        ("median_ns", ns),
        ("ci95_low_ns", ns),
        ("ci95_high_ns", ns),
        ("gflop_per_s", Some(Quantity::GigaflopPerSecond)),
        ("flags", None),
    ]);
    for row in rows {
        for (record, (phase, _)) in
            row.phases.iter().zip(PHASES).filter_map(|(record, phase)| Some(((*record)?, phase)))
        {
            data.row([
                row.side.into(),
                row.shape.clone().into(),
                phase.into(),
                record.median_ns.into(),
                record.ci95_low_ns.into(),
                record.ci95_high_ns.into(),
                record.flop.zip(record.median_ns).map(|(flop, ns)| flop / ns).into(),
                record.flags.join(" ").into(),
            ]);
        }
    }
    data
}
