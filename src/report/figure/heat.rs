//! Heat maps: a field a pair, its number in it.

use super::palette;
use super::pen::{Anchor, MEDIUM, Pen, SMALL, shortened, width};
use super::{Area, Drawn, FigureWidth, failed};
use crate::figures::figure::HeatMap;
use crate::units::significant;
use plotters::prelude::*;

const ROW: f64 = 210.0;
const TOP: f64 = 80.0;
const RIGHT: f64 = 60.0;
/// The slowdown from which on a field is as dark as it gets: two maps can be held beside each other.
const DARKEST: f64 = 2.0;
/// Names longer than this lose their middle.
const LONGEST: f64 = 2800.0;
/// The narrowest field with a number in it.
const FIELD: f64 = 190.0;

/// Where the fields begin, and how wide one is.
struct Grid {
    left: f64,
    top: f64,
    field: f64,
}

impl Grid {
    fn of(map: &HeatMap, figure: FigureWidth) -> Self {
        let longest = |names: &[String]| names.iter().map(|name| width(name, SMALL)).fold(0.0, f64::max).min(LONGEST);
        let whole = f64::from(figure.units());
        let count = map.columns.len().max(1) as f64;
        let beside = longest(&map.rows) + 110.0;
        // Where names would leave no room for the fields, they go over the rows.
        let left = if beside + count * FIELD <= whole - RIGHT { beside } else { 100.0 };
        Grid { left, top: TOP + longest(&map.columns) + 60.0, field: ((whole - RIGHT - left) / count).min(900.0) }
    }

    /// Whether names of rows fit beside them.
    fn beside(&self, map: &HeatMap) -> bool {
        map.rows.iter().all(|name| width(name, SMALL).min(LONGEST) + 100.0 <= self.left)
    }

    fn row(&self, map: &HeatMap) -> f64 {
        if self.beside(map) { ROW } else { ROW + 140.0 }
    }
}

/// How high the picture is.
pub fn height(map: &HeatMap, figure: FigureWidth) -> u32 {
    let grid = Grid::of(map, figure);
    (grid.top + map.rows.len() as f64 * grid.row(map) + 190.0) as u32
}

/// Draws the map into the picture.
pub fn draw(root: &Area, map: &HeatMap, figure: FigureWidth) -> Drawn {
    let mut pen = Pen::default();
    let grid = Grid::of(map, figure);
    for (column, name) in map.columns.iter().enumerate() {
        let name = &shortened(name, LONGEST, SMALL);
        let x = grid.left + (column as f64 + 0.5) * grid.field + 0.35 * SMALL;
        pen.upright((x, grid.top - 40.0), Anchor::Start, SMALL, palette::INK, name);
    }
    let beside = grid.beside(map);
    for (row, name) in map.rows.iter().enumerate() {
        let top = grid.top + row as f64 * grid.row(map) + if beside { 0.0 } else { 140.0 };
        let place = if beside { (grid.left - 50.0, top + ROW / 2.0) } else { (grid.left, top - 65.0) };
        let shown = shortened(name, LONGEST, SMALL);
        pen.text(place, if beside { Anchor::End } else { Anchor::Start }, SMALL, palette::INK, &shown);
        for (column, value) in map.cells[row].iter().enumerate() {
            let left = grid.left + column as f64 * grid.field;
            field(
                root,
                &mut pen,
                [left, top, grid.field, ROW],
                *value,
                &format!("{name} beside {}", map.columns[column]),
            )?;
        }
    }
    let bottom = grid.top + map.rows.len() as f64 * grid.row(map) + 100.0;
    pen.text(
        (grid.left, bottom),
        Anchor::Start,
        MEDIUM,
        palette::SOFT,
        &format!("columns: {}, rows: {}", map.column_label, map.row_label),
    );
    Ok(pen)
}

/// One field: the darker the farther above 1, by its logarithm.
fn field(
    root: &Area,
    pen: &mut Pen,
    [left, top, wide, high]: [f64; 4],
    value: Option<f64>,
    what: &str,
) -> crate::Result<()> {
    let corners = [(left as i32 + 6, top as i32 + 6), ((left + wide) as i32 - 6, (top + high) as i32 - 6)];
    let middle = (left + wide / 2.0, top + high / 2.0);
    let Some(value) = value else {
        root.draw(&Rectangle::new(corners, palette::rgb(palette::GRID).stroke_width(6))).map_err(failed)?;
        return Ok(());
    };
    let share = value.max(1.0).ln() / DARKEST.ln();
    let (colour, ink) = palette::field(share);
    pen.field([left + 6.0, top + 6.0, wide - 12.0, high - 12.0], &colour, &format!("{what}: ×{}", significant(value)));
    let text = if value < 10.0 { format!("{value:.2}") } else { significant(value) };
    // A number that its field is too narrow for is in the table.
    if width(&text, SMALL) + 20.0 <= wide {
        pen.text(middle, Anchor::Middle, SMALL, ink, &text);
    }
    Ok(())
}
