//! Figures as files for a paper and pictures for a page: SVG drawn by `plotters`, the numbers behind it as a table and as CSV.
//!
//! A figure is drawn at the width of a column (3.5 in) or of a page (7 in); no letter in it is smaller than 7 pt at that size.
//! Colours are those of Okabe and Ito, which colour-blind readers can tell apart, and every series has a shape of its own, so
//! that it survives grey print. `chart` draws axes and series on a `scale`, `heat` maps of numbers, `lanes` spans of
//! time; `pen` puts down marks that say what they are, `legend` the names above them.

mod chart;
mod heat;
mod lanes;
mod legend;
pub mod palette;
mod pen;
mod scale;
mod text;

use super::Table;
use crate::figures::figure::{Cell, Figure, Picture};
use crate::records::csv;
use crate::{Error, Result};
use pen::Pen;
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea, SVGBackend};
use std::fmt::{Display, Write};

pub use text::in_unit;

/// Lengths in a picture are thousandths of an inch.
const INCH: u32 = 1000;

/// The widths at which figures are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureWidth {
    /// A column of a two-column paper: 3.5 in.
    Column,
    /// The whole width of a page: 7 in.
    Page,
}

impl FigureWidth {
    /// Both, the narrow one first.
    pub const ALL: [FigureWidth; 2] = [FigureWidth::Column, FigureWidth::Page];

    const fn units(self) -> u32 {
        match self {
            FigureWidth::Column => 7 * INCH / 2,
            FigureWidth::Page => 7 * INCH,
        }
    }

    /// How file names end: `3.5in` or `7in`.
    pub const fn name(self) -> &'static str {
        match self {
            FigureWidth::Column => "3.5in",
            FigureWidth::Page => "7in",
        }
    }

    const fn is_narrow(self) -> bool {
        matches!(self, FigureWidth::Column)
    }
}

/// What lies behind a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// White: a file of its own, which a viewer may show on any ground.
    White,
    /// Nothing: the page's own.
    None,
}

/// What `plotters` draws on.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What the parts of a picture have drawn, each in its own way: `plotters` into the backend, the rest into the pen.
type Drawn = Result<Pen>;

/// The figure as SVG of this width. It is an error of this program if it cannot be drawn.
pub fn svg(figure: &Figure, width: FigureWidth, background: Background) -> Result<String> {
    let units = width.units();
    let height = match &figure.picture {
        Picture::Charts(charts) => chart::height(charts, width),
        Picture::Heat(map) => heat::height(map, width),
        Picture::Lanes(lanes) => lanes::height(lanes),
    };
    let mut text = String::new();
    let pen = {
        let root = SVGBackend::with_string(&mut text, (units, height)).into_drawing_area();
        let pen = match &figure.picture {
            Picture::Charts(charts) => chart::draw(&root, charts, width),
            Picture::Heat(map) => heat::draw(&root, map, width),
            Picture::Lanes(lanes) => lanes::draw(&root, lanes),
        }?;
        root.present().map_err(failed)?;
        pen
    };
    framed(&text, &pen, figure, (units, height), background)
}

/// The picture's head says its size in inches and what it is; its end holds what the pen put down.
fn framed(
    text: &str,
    pen: &Pen,
    figure: &Figure,
    (width, height): (u32, u32),
    background: Background,
) -> Result<String> {
    let (_, body) = text.split_once('>').ok_or_else(|| Error::bug("a picture has no head"))?;
    let body = body.trim_end().strip_suffix("</svg>").ok_or_else(|| Error::bug("a picture has no end"))?;
    let inches = |units: u32| f64::from(units) / f64::from(INCH);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}in\" height=\"{}in\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{}\">",
        inches(width),
        inches(height),
        super::html::page::escape(&figure.title)
    );
    if background == Background::White {
        let _ = write!(svg, "<rect width=\"{width}\" height=\"{height}\" fill=\"{}\"/>", palette::PAPER);
    }
    svg.extend(body.lines());
    svg.push_str(&pen.body);
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn failed(error: impl Display) -> Error {
    Error::bug(format!("a picture cannot be drawn: {error}"))
}

/// Columns that a reader of the figure knows where all rows are alike: its heading names them.
const KNOWN: [&str; 3] = ["machine", "operation", "sharing"];

/// The numbers of a figure for people, at most so many rows. Columns that hold nothing are left out, and those that say the same
/// in all rows what the figure's heading says.
pub fn table(figure: &Figure, most: usize) -> Table {
    let columns: Vec<usize> = (0..figure.data.columns.len()).filter(|&column| says_something(figure, column)).collect();
    let header: Vec<String> = columns.iter().map(|&column| text::heading(figure.data.columns[column])).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = Table::new(&figure.title, &figure.caption, &header);
    for row in figure.data.rows.iter().take(most) {
        table.row(columns.iter().map(|&column| text::cell(&row[column], figure.data.columns[column])).collect());
    }
    table
}

fn says_something(figure: &Figure, column: usize) -> bool {
    let mut cells = figure.data.rows.iter().map(|row| &row[column]);
    let first = cells.next();
    if KNOWN.contains(&figure.data.columns[column].name) && cells.all(|cell| Some(cell) == first) {
        return false;
    }
    figure.data.rows.iter().any(|row| match &row[column] {
        Cell::Text(text) => !text.is_empty(),
        Cell::Number(_) => true,
        Cell::Empty => false,
    })
}

/// All numbers of a figure as CSV, in the units that the headings name.
pub fn csv(figure: &Figure) -> String {
    let mut text = csv::line(figure.data.columns.iter().map(|column| column.name.to_string()));
    for row in &figure.data.rows {
        text += &csv::line(row.iter().map(|cell| match cell {
            Cell::Text(text) => text.clone(),
            Cell::Number(number) => number.to_string(),
            Cell::Empty => String::new(),
        }));
    }
    text
}

#[cfg(test)]
mod tests;
