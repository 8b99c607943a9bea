//! The names of series above a picture, beside what they look like.

use super::palette;
use super::pen::{Anchor, MEDIUM, Pen, shortened, width};
use crate::figures::chart::{Chart, Series, Style};

/// Height of a line of names.
pub const LINE: f64 = 155.0;
const SAMPLE: f64 = 190.0;
const GAP: f64 = 130.0;

/// What a name stands beside.
pub enum Sample {
    /// A mark of a series, or its line.
    Series { colour: &'static str, shape: usize, style: Style },
    /// A field of a colour.
    Field(&'static str),
}

/// The series of all charts that have a name, each name once.
pub fn entries(charts: &[Chart]) -> Vec<(String, Sample)> {
    let mut entries: Vec<(String, Sample)> = Vec::new();
    let mut add = |name: &String, colour: usize, shape: usize, style: Style| {
        if !name.is_empty() && entries.iter().all(|(known, _)| known != name) {
            entries.push((name.clone(), Sample::Series { colour: palette::series(colour), shape, style }));
        }
    };
    for chart in charts {
        match chart.keys.as_slice() {
            [] => chart
                .series
                .iter()
                .for_each(|Series { name, colour, shape, style, .. }| add(name, *colour, *shape, *style)),
            keys => keys.iter().for_each(|key| add(&key.name, key.colour, key.shape, key.style)),
        }
    }
    // One name says nothing that the heading does not.
    if entries.len() == 1 { Vec::new() } else { entries }
}

/// The name, its middle left out where it is longer than a line.
fn fitted(name: &str, room: f64) -> String {
    shortened(name, room - SAMPLE - 20.0, MEDIUM)
}

/// In which line each entry stands, and where it begins there.
fn places(entries: &[(String, Sample)], room: f64) -> Vec<(usize, f64)> {
    let (mut line, mut x) = (0, 0.0);
    let mut places = Vec::new();
    for (name, _) in entries {
        let wide = SAMPLE + width(&fitted(name, room), MEDIUM) + GAP;
        if x > 0.0 && x + wide > room {
            (line, x) = (line + 1, 0.0);
        }
        places.push((line, x));
        x += wide;
    }
    places
}

/// How high the legend is.
pub fn height(entries: &[(String, Sample)], room: f64) -> f64 {
    places(entries, room).last().map_or(0.0, |(line, _)| (line + 1) as f64 * LINE + 40.0)
}

/// Puts it down, its upper left corner at the place.
pub fn draw(pen: &mut Pen, (left, top): (f64, f64), entries: &[(String, Sample)], room: f64) {
    for ((name, sample), (line, x)) in entries.iter().zip(places(entries, room)) {
        let (x, y) = (left + x, top + (line as f64 + 0.5) * LINE);
        match sample {
            Sample::Field(colour) => pen.field([x, y - 45.0, 140.0, 90.0], colour, ""),
            Sample::Series { colour, shape, style } => {
                if matches!(style, Style::Line | Style::MarkedLine) {
                    pen.line((x, y), (x + 140.0, y), colour, 12.0, false);
                }
                if *style != Style::Line {
                    pen.mark((x + 70.0, y), *shape, colour, *style == Style::Hollow, "");
                }
            }
        }
        pen.text((x + SAMPLE, y), Anchor::Start, MEDIUM, palette::INK, &fitted(name, room));
    }
}
