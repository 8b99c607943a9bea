//! Spans of time on lanes: a pipeline stage with its bubbles.

use super::legend::{self, Sample};
use super::palette;
use super::pen::{Anchor, Pen, SMALL, width};
use super::scale::DrawnScale;
use super::{Area, Drawn, failed};
use crate::figures::chart::{Axis, Quantity, Scale};
use crate::figures::figure::{Activity, LaneSpan, TimeLanes};
use crate::units::format_ns;
use plotters::prelude::*;

const LANE: f64 = 260.0;
/// The lane's name stands over it.
const NAME: f64 = 150.0;
const GAP: f64 = 60.0;
const TOP: f64 = 60.0;
const FOOT: f64 = 260.0;
const SIDES: f64 = 100.0;

const LEGEND: [(Activity, &str); 4] = [
    (Activity::Forward, "forward"),
    (Activity::Backward, "backward"),
    (Activity::Bubble, "waits: a bubble"),
    (Activity::Open, "gate open: side work"),
];

fn entries() -> Vec<(String, Sample)> {
    LEGEND.map(|(activity, name)| (name.to_string(), Sample::Field(palette::activity(activity)))).into()
}

/// How high the picture is: as of a column's width, whose legend is the highest.
pub fn height(lanes: &TimeLanes) -> u32 {
    let legend = legend::height(&entries(), 3300.0);
    (TOP + legend + lanes.lanes.len() as f64 * (NAME + LANE + GAP) + FOOT) as u32
}

/// Draws the lanes into the picture.
pub fn draw(root: &Area, lanes: &TimeLanes) -> Drawn {
    let mut pen = Pen::default();
    let (wide, _) = root.dim_in_pixel();
    let plot = f64::from(wide) - 2.0 * SIDES;
    legend::draw(&mut pen, (SIDES, TOP), &entries(), plot);
    let first = TOP + legend::height(&entries(), 3300.0);
    let bottom = first + lanes.lanes.len() as f64 * (NAME + LANE + GAP);
    let axis = Axis::new("", Scale::Linear, Quantity::Nanoseconds).holding(&[0.0, lanes.end_ns]);
    let scale = DrawnScale::new(&axis, std::iter::empty(), if wide > 5000 { 8 } else { 4 });
    let x = |ns: f64| SIDES + plot * scale.share(ns);
    for (index, (name, spans)) in lanes.lanes.iter().enumerate() {
        let top = first + index as f64 * (NAME + LANE + GAP);
        pen.text((SIDES, top + 0.5 * NAME), Anchor::Start, SMALL, palette::INK, name);
        spans.iter().for_each(|span| lane_span(&mut pen, span, &x, top + NAME));
    }
    let line = PathElement::new(
        vec![(SIDES as i32, bottom as i32), ((SIDES + plot) as i32, bottom as i32)],
        palette::rgb(palette::SOFT).stroke_width(7),
    );
    root.draw(&line).map_err(failed)?;
    for (tick, text) in scale.key_ticks() {
        pen.line((x(tick), bottom), (x(tick), bottom + 35.0), palette::SOFT, 7.0, false);
        let half = width(&text, SMALL) / 2.0;
        let place = x(tick).clamp(half, f64::from(wide) - half);
        pen.text((place, bottom + 110.0), Anchor::Middle, SMALL, palette::INK, &text);
    }
    Ok(pen)
}

fn lane_span(pen: &mut Pen, span: &LaneSpan, x: &impl Fn(f64) -> f64, top: f64) {
    let (from, to) = (x(span.start_ns), x(span.end_ns));
    let length = format_ns(span.end_ns - span.start_ns);
    let (what, inset) = match span.activity {
        Activity::Forward => ("forward", 0.0),
        Activity::Backward => ("backward", 0.0),
        Activity::Bubble => ("bubble", 0.0),
        // Lower than the bubble it lies in, which shows in grey print.
        Activity::Open => ("gate open", 0.18),
    };
    let number = span.micro_batch.map_or(String::new(), |m| format!(" of micro-batch {m}"));
    let field = [from, top + inset * LANE, to - from - 8.0, LANE * (1.0 - 2.0 * inset)];
    pen.field(field, palette::activity(span.activity), &format!("{what}{number}: {length}"));
    if let Some(number) = span.micro_batch.filter(|_| to - from > 1.6 * SMALL) {
        let ink = if span.activity == Activity::Forward { palette::ON_DARK } else { palette::ON_LIGHT };
        pen.text(((from + to) / 2.0, top + LANE / 2.0), Anchor::Middle, SMALL, ink, &number.to_string());
    }
}
