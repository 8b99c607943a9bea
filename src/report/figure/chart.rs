//! Charts: one or several beside each other, a legend over all.

use super::legend;
use super::palette::{self, rgb};
use super::pen::{Anchor, LARGE, MEDIUM, Pen, SMALL, shortened, width};
use super::scale::DrawnScale;
use super::{Area, Drawn, FigureWidth, failed};
use crate::figures::chart::{Axis, Chart, Point, Scale, Series, Style};
use plotters::prelude::*;

/// `plotters` asks for letters this much larger than it draws them.
const ASKED: f64 = 1.24;
/// Room to the right of a chart, for half of its last tick's text.
const RIGHT: u32 = 190;
/// Height of a row where the second axis has rows, of a line of its name, and of the axis below.
const ROW: f64 = 200.0;
const NAME_LINE: f64 = 118.0;
const FOOT: f64 = 350.0;
const HEADING: f64 = 190.0;
const TOP: f64 = 60.0;

/// Charts in a row of the picture.
const fn columns(charts: usize, width: FigureWidth) -> usize {
    if width.is_narrow() || charts < 2 { 1 } else { 2 }
}

fn room(width: FigureWidth) -> f64 {
    f64::from(width.units()) - 200.0
}

/// Height of one chart with its heading and its axes.
fn chart_height(chart: &Chart, charts: usize, width: FigureWidth) -> f64 {
    let heading = if chart.heading.is_empty() { 0.0 } else { HEADING };
    heading
        + match &chart.y.scale {
            Scale::Rows(names) => {
                let lines = names.iter().map(|name| lines_of(name, width).len()).max().unwrap_or(1);
                names.len() as f64 * ROW.max(lines as f64 * NAME_LINE + 40.0) + FOOT
            }
            _ if columns(charts, width) == 2 || width.is_narrow() => 2300.0,
            _ => 3200.0,
        }
}

/// How high the picture of these charts is.
pub fn height(charts: &[Chart], width: FigureWidth) -> u32 {
    let legend = legend::height(&legend::entries(charts), room(width));
    let rows = charts.chunks(columns(charts.len(), width));
    let rows =
        rows.map(|row| row.iter().map(|c| chart_height(c, charts.len(), width)).fold(0.0, f64::max)).sum::<f64>();
    (TOP + legend + rows) as u32
}

/// Draws the charts into the picture.
pub fn draw(root: &Area, charts: &[Chart], width: FigureWidth) -> Drawn {
    let mut pen = Pen::default();
    let entries = legend::entries(charts);
    legend::draw(&mut pen, (110.0, TOP), &entries, room(width));
    let mut top = TOP + legend::height(&entries, room(width));
    let columns = columns(charts.len(), width);
    for row in charts.chunks(columns) {
        let height = row.iter().map(|c| chart_height(c, charts.len(), width)).fold(0.0, f64::max);
        let wide = width.units() / columns as u32;
        for (column, chart) in row.iter().enumerate() {
            let left = column as u32 * wide;
            let area = root.clone().shrink((left as i32, top as i32), (wide, height as u32));
            pen.add(&one(&area, (f64::from(left), top), chart, width)?);
        }
        top += height;
    }
    Ok(pen)
}

/// One chart in its part of the picture, which begins at `corner`.
fn one(area: &Area, corner: (f64, f64), chart: &Chart, width: FigureWidth) -> Drawn {
    let mut pen = Pen::default();
    let heading = if chart.heading.is_empty() { 0.0 } else { HEADING };
    let (wide, _) = area.dim_in_pixel();
    let scales = Scales::of(chart, wide);
    let left = scales.left(chart, width);
    if heading > 0.0 {
        pen.heading((corner.0 + left, corner.1 + 0.5 * LARGE + 20.0), chart.heading);
    }
    let mut built = ChartBuilder::on(area)
        .margin_top(heading as u32)
        .margin_right(RIGHT)
        .margin_left(20)
        .margin_bottom(20)
        .x_label_area_size(FOOT as u32 - 40)
        .y_label_area_size(left as u32 - 20)
        .build_cartesian_2d(scales.x.clone(), scales.y.clone())
        .map_err(failed)?;
    let letters = |size: f64| ("sans-serif", ASKED * size).into_font().color(&rgb(palette::INK));
    let (x, y) = (scales.x.clone(), scales.y.clone());
    let (x_text, y_text) = (move |v: &f64| x.tick(*v), move |v: &f64| y.tick(*v));
    built
        .configure_mesh()
        .x_label_formatter(&x_text)
        .y_label_formatter(&y_text)
        .x_desc(scales.x.label(&chart.x))
        .y_desc(scales.y.label(&chart.y))
        .label_style(letters(SMALL))
        .axis_desc_style(letters(MEDIUM))
        .bold_line_style(rgb(palette::GRID).stroke_width(6))
        .axis_style(rgb(palette::SOFT).stroke_width(7))
        .set_all_tick_mark_size(30)
        .draw()
        .map_err(failed)?;
    let place = |x: f64, y: f64| {
        let (x, y) = built.backend_coord(&(x, y));
        (f64::from(x), f64::from(y))
    };
    rows(&mut pen, chart, &place, corner.0 + left, width);
    rules(&mut pen, chart, &scales, &place);
    for series in &chart.series {
        let places: Vec<(f64, f64)> = series.points.iter().map(|p| place(p.x, p.y)).collect();
        let colour = palette::series(series.colour);
        if matches!(series.style, Style::Line | Style::MarkedLine) {
            let path = places.iter().map(|&(x, y)| (x as i32, y as i32)).collect::<Vec<_>>();
            let stroke = rgb(colour).stroke_width(if series.style == Style::Line { 11 } else { 8 });
            area.strip_coord_spec().draw(&PathElement::new(within(path, corner), stroke)).map_err(failed)?;
        }
        marks(&mut pen, chart, series, &place);
    }
    Ok(pen)
}

/// Places of the whole picture in a part of it.
fn within(path: Vec<(i32, i32)>, corner: (f64, f64)) -> Vec<(i32, i32)> {
    path.into_iter().map(|(x, y)| (x - corner.0 as i32, y - corner.1 as i32)).collect()
}

struct Scales {
    x: DrawnScale,
    y: DrawnScale,
}

impl Scales {
    fn of(chart: &Chart, wide: u32) -> Self {
        let by_rows = matches!(chart.y.scale, Scale::Rows(_));
        let points = || chart.series.iter().flat_map(|series| &series.points);
        let ends = |p: &Point| p.reach.map_or([None; 2], |(low, high)| [Some(low), Some(high)]);
        let reach = |on: bool| points().filter(move |_| on).flat_map(ends).flatten();
        let rules = chart.rules.iter().map(|rule| rule.x);
        // A tick's text and some room beside it.
        let ticks = |axis: &Axis| match axis.scale {
            Scale::Log2 => (wide / 620).clamp(3, 9) as usize,
            _ => (wide / 560).clamp(4, 9) as usize,
        };
        let x = DrawnScale::new(&chart.x, points().map(|p| p.x).chain(reach(by_rows)).chain(rules), ticks(&chart.x));
        let y = DrawnScale::new(&chart.y, points().map(|p| p.y).chain(reach(!by_rows)), 6);
        Scales { x, y }
    }

    /// Room for the texts to the left of a chart.
    fn left(&self, chart: &Chart, width_of_figure: FigureWidth) -> f64 {
        if let Scale::Rows(names) = &chart.y.scale {
            let lines = names.iter().flat_map(|name| lines_of(name, width_of_figure));
            return lines.map(|line| width(&line, SMALL)).fold(0.0, f64::max) + 130.0;
        }
        let widest = self.y.key_ticks().map(|(_, text)| width(&text, SMALL)).fold(0.0, f64::max);
        widest + 90.0 + 1.6 * MEDIUM
    }
}

/// The name of a row, over several lines where it would take more than two fifths of the picture.
fn lines_of(name: &str, figure: FigureWidth) -> Vec<String> {
    let most = 0.40 * f64::from(figure.units());
    let name = shortened(name, 3.0 * most, SMALL);
    let mut lines: Vec<String> = Vec::new();
    for word in name.split_inclusive(['-', ' ', '/']) {
        match lines.last_mut() {
            Some(line) if width(&format!("{line}{word}"), SMALL) <= most => line.push_str(word),
            _ => lines.push(shortened(word, most, SMALL)),
        }
    }
    lines
}

/// The names of rows to the left, and a line between two rows.
fn rows(pen: &mut Pen, chart: &Chart, place: &impl Fn(f64, f64) -> (f64, f64), right: f64, figure: FigureWidth) {
    let Scale::Rows(names) = &chart.y.scale else { return };
    let (first, last) = (place(0.0, 0.0).0.min(right), place(f64::MAX, 0.0).0);
    for (index, name) in names.iter().enumerate() {
        let (_, middle) = place(0.0, index as f64);
        let lines = lines_of(name, figure);
        for (line, text) in lines.iter().enumerate() {
            let y = middle + NAME_LINE * (line as f64 - (lines.len() - 1) as f64 / 2.0);
            pen.text((right - 60.0, y), Anchor::End, SMALL, palette::INK, text.trim_end());
        }
        if index > 0 {
            let (_, between) = place(0.0, index as f64 - 0.5);
            pen.line((first.max(right), between), (last, between), palette::GRID, 5.0, false);
        }
    }
}

/// Upright lines with their words at the top.
fn rules(pen: &mut Pen, chart: &Chart, scales: &Scales, place: &impl Fn(f64, f64) -> (f64, f64)) {
    use plotters::coord::ranged1d::Ranged;
    let range = scales.y.range();
    for rule in &chart.rules {
        let (from, to) = (place(rule.x, range.start), place(rule.x, range.end));
        let colour = palette::series(rule.colour);
        pen.line(from, to, colour, 6.0, true);
        pen.upright((to.0 - 25.0, to.1 + 40.0), Anchor::End, SMALL, colour, &rule.word);
    }
}

/// The intervals of a series, then its marks.
fn marks(pen: &mut Pen, chart: &Chart, series: &Series, place: &impl Fn(f64, f64) -> (f64, f64)) {
    if series.style == Style::Line {
        return;
    }
    let colour = palette::series(series.colour);
    let by_rows = matches!(chart.y.scale, Scale::Rows(_));
    for Point { x, y, reach, .. } in &series.points {
        let Some((low, high)) = reach else { continue };
        let (from, to) =
            if by_rows { (place(*low, *y), place(*high, *y)) } else { (place(*x, *low), place(*x, *high)) };
        pen.line(from, to, colour, 9.0, false);
    }
    let hollow = series.style == Style::Hollow;
    for point in &series.points {
        let value = if by_rows { (point.x, &chart.x) } else { (point.y, &chart.y) };
        let what = match point.what.as_str() {
            "" => String::new(),
            what => format!("{what}: {}", super::in_unit(value.0, value.1.quantity)),
        };
        pen.mark(place(point.x, point.y), series.shape, colour, hollow, &what);
    }
}
