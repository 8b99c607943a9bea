//! Two kinds of bars: where a stage's time goes, and what other flags would win.

use super::svg::{Svg, short, ticks};
use super::timeline::side_class;
use crate::fill::record::{Alternative, PlanRecord, PlanStage};
use crate::units::format_ns;

const WIDTH: f64 = 1130.0;

/// A stage's iteration cut into its own work, side work, what the margins lose, and bubbles nothing was put into.
pub fn time(r: &PlanRecord, shown: &[usize]) -> String {
    let (left, right, height, gap) = (62.0, 10.0, 18.0, 6.0);
    let mut svg = Svg::new(WIDTH, shown.len() as f64 * (height + gap) + 24.0);
    let most = r.stage.iter().map(|s| s.busy_ns + s.bubble_ns).max().unwrap_or(1).max(1);
    let scale = (WIDTH - left - right) / most as f64;
    for percent in [0, 25, 50, 75, 100] {
        let x = left + (WIDTH - left - right) * f64::from(percent) / 100.0;
        svg.line("grid", [x, 0.0, x, shown.len() as f64 * (height + gap)]);
        let anchor = if percent == 100 { "end" } else { "middle" };
        svg.text("soft", anchor, x, shown.len() as f64 * (height + gap) + 16.0, &format!("{percent} %"));
    }
    for (row, &index) in shown.iter().enumerate() {
        let (stage, y) = (&r.stage[index], row as f64 * (height + gap));
        svg.text("soft", "end", left - 10.0, y + height / 2.0 + 4.0, &format!("stage {index}"));
        let mut x = left;
        for (class, ns, what) in parts(r, stage) {
            let width = ns as f64 * scale;
            if width > 0.0 {
                let percent = 100.0 * ns as f64 / most as f64;
                svg.told(class, [x, y, width, height], &format!("{what}: {} ({percent:.1} %)", format_ns(ns as f64)));
            }
            x += width;
        }
    }
    svg.finish("Where each stage's time goes: own work, side work, margins, bubbles left empty")
}

fn parts(r: &PlanRecord, stage: &PlanStage) -> Vec<(&'static str, u64, String)> {
    let mut list = vec![("f", stage.busy_ns, "the job's own work".to_string())];
    for (index, side) in r.side.iter().enumerate() {
        let fills = stage.bubbles.fills().filter(|f| f.side == side.name);
        list.push((side_class(index), fills.map(|f| f.end_ns - f.start_ns).sum(), side.name.clone()));
    }
    let runs_ns: u64 = stage.bubbles.fills().map(|f| f.end_ns - f.start_ns).sum();
    let opened: u64 = stage.bubbles.iter().filter(|b| !b.fills.is_empty()).map(|b| b.end_ns - b.start_ns).sum();
    list.push(("w", opened.saturating_sub(runs_ns), "margins and what no whole kernel filled".to_string()));
    list.push(("none", stage.bubble_ns.saturating_sub(opened), "bubbles left empty".to_string()));
    list
}

/// What the colours of [`time`] mean, a CSS class and a name each.
pub fn time_legend(r: &PlanRecord) -> Vec<(&'static str, String)> {
    let mut keys = vec![("f", "the job's own work".to_string())];
    let used = r.side.iter().enumerate().filter(|(_, s)| s.bubbles_used > 0);
    keys.extend(used.map(|(index, side)| (side_class(index), format!("side work: {}", side.name))));
    keys.push(("w", "margins, and remainders no whole kernel fits into".to_string()));
    keys.push(("none", "bubbles left empty".to_string()));
    keys
}

/// The throughput of other flags over this job's, empty and filled; the job's own on top. The line across a bar's end is the
/// interval.
pub fn alternatives(r: &PlanRecord, list: &[&Alternative]) -> String {
    let (left, right, row) = (2.0, 150.0, 60.0);
    let o = &r.outcome;
    let own = (format!("{} as it is (this plan)", r.schedule), 1.0, [1.0; 2], Some(o.gain), true);
    let others = list.iter().map(|a| (a.describes.clone(), a.gain, [a.gain_low, a.gain_high], a.gain_filled, a.sure));
    let rows: Vec<_> = std::iter::once(own).chain(others).collect();
    let ends = rows.iter().flat_map(|(_, gain, ends, filled, _)| [*gain, ends[1], filled.unwrap_or(0.0)]);
    let most = ends.fold(1.0, f64::max) * 1.02;
    let scale = (WIDTH - left - right) / most;
    let bottom = rows.len() as f64 * row;
    let mut svg = Svg::new(WIDTH, bottom + 22.0);
    for tick in ticks(most, 6.0) {
        let x = left + tick * scale;
        svg.line("grid", [x, 0.0, x, bottom]);
        svg.text("soft", "middle", x.max(left + 12.0), bottom + 16.0, &format!("{}×", short(tick)));
    }
    for (index, (name, gain, [low, high], filled, sure)) in rows.iter().enumerate() {
        let y = index as f64 * row;
        let class = if index == 0 { "strong" } else { "" };
        let doubt = if *sure { "" } else { " (not sure)" };
        svg.text(class, "start", left, y + 15.0, &format!("{name}{doubt}"));
        svg.told("gain", [left, y + 21.0, gain * scale, 14.0], &format!("empty: {gain:.3} [{low:.3}, {high:.3}]"));
        if high > low {
            let (from, to, middle) = (left + low * scale, left + high * scale, y + 28.0);
            svg.line("ends", [from, middle, to, middle]);
        }
        let figure = if high > low { format!("{gain:.3} [{low:.3}, {high:.3}]") } else { format!("{gain:.3}") };
        svg.text("soft", "start", left + gain.max(*high) * scale + 6.0, y + 32.0, &figure);
        if let Some(filled) = filled {
            svg.told("gainf", [left, y + 37.0, filled * scale, 14.0], &format!("filled: {filled:.3}"));
            svg.text("soft", "start", left + filled * scale + 6.0, y + 48.0, &format!("{filled:.3}"));
        }
    }
    svg.finish("Throughput of other flags over this job's, empty and with their bubbles filled")
}
