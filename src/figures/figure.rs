//! A figure: a picture, what it shows in words, and the numbers that it was made of.

use super::chart::{Chart, Quantity};
use std::collections::BTreeSet;

/// A picture with its caption and its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The stem of its files' names, unique in a report: lower-case letters, digits and hyphens.
    pub name: String,
    /// What it shows, as a heading.
    pub title: String,
    /// How to read it, in whole sentences.
    pub caption: String,
    /// The picture.
    pub picture: Picture,
    /// All of its numbers, those that the picture leaves out too.
    pub data: FigureData,
}

/// What a figure draws.
#[derive(Debug, Clone, PartialEq)]
pub enum Picture {
    /// Charts beside each other, under each other where there is no room.
    Charts(Vec<Chart>),
    /// A heat map.
    Heat(HeatMap),
    /// Spans of time on lanes.
    Lanes(TimeLanes),
}

/// A number for each pair of names, shown as a colour.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// What the rows are.
    pub row_label: &'static str,
    /// Names of the rows, from the top.
    pub rows: Vec<String>,
    /// What the columns are.
    pub column_label: &'static str,
    /// Names of the columns, from the left.
    pub columns: Vec<String>,
    /// The values, row by row; `None` where a pair was not measured.
    pub cells: Vec<Vec<Option<f64>>>,
}

/// What a stage does in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Forward of a micro-batch.
    Forward,
    /// Backward of a micro-batch, to inputs and weights.
    Backward,
    /// It waits.
    Bubble,
    /// It waits and the gate is open: side work runs.
    Open,
}

/// A span of time on a lane.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneSpan {
    /// What goes on.
    pub activity: Activity,
    /// When it starts, in ns.
    pub start_ns: f64,
    /// When it ends, in ns.
    pub end_ns: f64,
    /// The micro-batch that it works on.
    pub micro_batch: Option<u64>,
}

/// Lanes of spans over one axis of time.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeLanes {
    /// Name and spans of each lane, from the top; spans of one lane may lie on each other, later ones on top.
    pub lanes: Vec<(String, Vec<LaneSpan>)>,
    /// Where the axis ends, in ns.
    pub end_ns: f64,
}

/// A column of a figure's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its heading, with the unit as records write it: `median_ns`.
    pub name: &'static str,
    /// What its numbers count; `None` for text.
    pub quantity: Option<Quantity>,
}

/// One value of a figure's numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A name.
    Text(String),
    /// A number in the unit of its column.
    Number(f64),
    /// Not known.
    Empty,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Cell::Number(number)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Empty, Into::into)
    }
}

/// The numbers of a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct FigureData {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, each with a cell a column.
    pub rows: Vec<Vec<Cell>>,
}

impl FigureData {
    /// No rows yet; a column without a quantity is text.
    pub fn new(columns: &[(&'static str, Option<Quantity>)]) -> Self {
        let columns = columns.iter().map(|&(name, quantity)| Column { name, quantity }).collect();
        FigureData { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }
}

/// The stem of a file's name: what is neither a lower-case letter nor a digit becomes a hyphen.
pub fn stem(text: &str) -> String {
    crate::records::machine::slug(text)
}

/// The name, with a number behind its stem where it was seen before; it is seen from now on.
pub fn distinct(seen: &mut BTreeSet<String>, stem: &str, ending: &str) -> String {
    let mut name = format!("{stem}{ending}");
    let mut count = 1;
    while !seen.insert(name.clone()) {
        count += 1;
        name = format!("{stem}-{count}{ending}");
    }
    name
}
