//! Two kinds of bars: where a stage's time goes, and what each schedule would win.

use super::svg::{Svg, short, ticks};
use super::timeline::side_class;
use crate::fill::record::{PlanRecord, PlanStage};
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
        let fills = stage.bubbles.iter().flat_map(|b| &b.fills).filter(|f| f.side == side.name);
        list.push((side_class(index), fills.map(|f| f.end_ns - f.start_ns).sum(), side.name.clone()));
    }
    let opened: u64 = stage.bubbles.iter().filter(|b| !b.fills.is_empty()).map(|b| b.end_ns - b.start_ns).sum();
    list.push(("w", opened.saturating_sub(stage.filled_ns), "margins and what no whole kernel filled".to_string()));
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

/// Every schedule's throughput over this one's, empty and filled; this one's own on top.
pub fn schedules(r: &PlanRecord) -> String {
    let (left, right, row) = (190.0, 60.0, 46.0);
    let name = |schedule: &str, chunks: u64| match chunks {
        1 => schedule.to_string(),
        v => format!("{schedule}, {v} chunks"),
    };
    let mut rows = vec![(format!("{} (this plan)", name(&r.schedule, r.chunks)), 1.0, r.outcome.gain, None)];
    rows.extend(r.alternatives.iter().map(|a| (name(&a.schedule, a.chunks), a.gain, a.gain_filled, a.fits_memory)));
    let most = rows.iter().flat_map(|(_, gain, filled, _)| [*gain, *filled]).fold(1.0, f64::max) * 1.02;
    let scale = (WIDTH - left - right) / most;
    let bottom = rows.len() as f64 * row;
    let mut svg = Svg::new(WIDTH, bottom + 22.0);
    for tick in ticks(most, 6.0) {
        let x = left + tick * scale;
        svg.line("grid", [x, 0.0, x, bottom]);
        svg.text("soft", "middle", x, bottom + 16.0, &format!("{}×", short(tick)));
    }
    for (index, (name, gain, filled, fits)) in rows.iter().enumerate() {
        let y = index as f64 * row;
        let class = if index == 0 { "strong" } else { "" };
        svg.text(class, "end", left - 12.0, y + 18.0, name);
        if *fits == Some(false) {
            svg.text("limit", "end", left - 12.0, y + 33.0, "does not fit the memory");
        }
        svg.told("gain", [left, y + 4.0, gain * scale, 15.0], &format!("empty: {gain:.3}"));
        svg.text("soft", "start", left + gain * scale + 6.0, y + 16.0, &format!("{gain:.2}"));
        svg.told("gainf", [left, y + 21.0, filled * scale, 15.0], &format!("filled: {filled:.3}"));
        svg.text("soft", "start", left + filled * scale + 6.0, y + 33.0, &format!("{filled:.2}"));
    }
    svg.finish("Throughput of each schedule over this one's, empty and with its bubbles filled")
}
