//! How much every main slows down beside every side, a heat map a side of the report and sharing mode.

use super::chart::Quantity;
use super::figure::{Figure, FigureData, HeatMap, Picture, stem};
use super::{ReportSide, with_side};
use crate::records::Measurement;
use crate::records::measurement::Kind;
use std::collections::{HashMap, HashSet};

/// Rows and columns of a map at most; the numbers have all.
const NAMES: usize = 24;

/// A figure for each side and sharing mode with pairs.
pub fn figures(sides: &[ReportSide]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for side in sides {
        let pairs: Vec<&Measurement> =
            side.records.iter().filter(|r| r.kind == Kind::Corun && slowdown(r).is_some()).collect();
        let modes = distinct(pairs.iter().map(|r| sharing(r)));
        for mode in modes {
            let pairs: Vec<&Measurement> = pairs.iter().copied().filter(|r| sharing(r) == mode).collect();
            figures.push(figure(side, sides, &mode, &pairs));
        }
    }
    figures
}

fn slowdown(record: &Measurement) -> Option<f64> {
    record.slowdown.map(|slowdown| slowdown.median).filter(|median| median.is_finite() && *median > 0.0)
}

fn sharing(record: &Measurement) -> String {
    record.sharing.clone().unwrap_or_else(|| "unknown".into())
}

fn main_of(record: &Measurement) -> String {
    record.param_str("main").unwrap_or("unknown").to_string()
}

fn side_of(record: &Measurement) -> String {
    record.param_str("side").unwrap_or("unknown").to_string()
}

/// Each once, in the order in which they come.
fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    names.filter(|name| seen.insert(name.clone())).collect()
}

fn figure(side: &ReportSide, sides: &[ReportSide], mode: &str, pairs: &[&Measurement]) -> Figure {
    let (mut rows, mut columns) =
        (distinct(pairs.iter().map(|r| main_of(r))), distinct(pairs.iter().map(|r| side_of(r))));
    let left_out = rows.len().saturating_sub(NAMES) + columns.len().saturating_sub(NAMES);
    rows.truncate(NAMES);
    columns.truncate(NAMES);
    let measured: HashMap<(String, String), f64> =
        pairs.iter().filter_map(|r| Some(((main_of(r), side_of(r)), slowdown(r)?))).collect();
    let value = |main: &String, other: &String| measured.get(&(main.clone(), other.clone())).copied();
    let cells = rows.iter().map(|main| columns.iter().map(|other| value(main, other)).collect()).collect();
    let rest =
        if left_out > 0 { format!(" {left_out} rows and columns are in the numbers only.") } else { String::new() };
    let name = if sides.len() > 1 { format!("corun-{mode}-{}", side.name) } else { format!("corun-{mode}") };
    Figure {
        name: stem(&name),
        title: format!("Slowdown beside another program, {}", with_side(format!("sharing {mode}"), side, sides)),
        caption: format!(
            "Time of the main beside the side over its time alone, medians of interleaved pairs. Beside “nothing” it is the \
             noise of the measurement. An empty cell was not measured.{rest}"
        ),
        picture: Picture::Heat(HeatMap { row_label: "main", rows, column_label: "side", columns, cells }),
        data: data(side, pairs),
    }
}

fn data(side: &ReportSide, pairs: &[&Measurement]) -> FigureData {
    let (ratio, rate) = (Some(Quantity::Ratio), Some(Quantity::PerSecond));
    let mut data = FigureData::new(&[
        ("machine", None),
        ("sharing", None),
        ("main", None),
        ("side", None),
        ("slowdown", ratio),
        ("ci95_low", ratio),
        ("ci95_high", ratio),
        ("side_alone_per_s", rate),
        ("side_together_per_s", rate),
        ("flags", None),
    ]);
    for r in pairs {
        data.row([
            side.name.as_str().into(),
            sharing(r).into(),
            main_of(r).into(),
            side_of(r).into(),
            slowdown(r).into(),
            r.slowdown.map(|s| s.low).into(),
            r.slowdown.map(|s| s.high).into(),
            r.side_alone_per_s.into(),
            r.side_together_per_s.into(),
            r.flags.join(" ").into(),
        ]);
    }
    data
}
