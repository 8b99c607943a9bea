//! The few SVG shapes the pictures are made of, and axes with round numbers. Colours are CSS classes of the page.

use super::page::escape;
use crate::units::significant;
use std::fmt::Write;

/// A picture under construction; lengths in its own units, scaled to the page's width.
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    /// An empty picture of this size.
    pub fn new(width: f64, height: f64) -> Self {
        Svg { width, height, body: String::new() }
    }

    /// A rectangle from its upper left corner.
    pub fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let (w, h) = (width.max(0.0), height.max(0.0));
        let _ = write!(self.body, r#"<rect class="{class}" x="{x:.2}" y="{y:.2}" width="{w:.2}" height="{h:.2}"/>"#);
    }

    /// A rectangle with rounded corners that says what it is when pointed at.
    pub fn told(&mut self, class: &str, [x, y, width, height]: [f64; 4], what: &str) {
        let (w, h) = (width.max(0.4), height.max(0.0));
        let r = (w / 4.0).min(2.0);
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{x:.2}" y="{y:.2}" width="{w:.2}" height="{h:.2}" rx="{r:.1}"><title>{}</title></rect>"#,
            escape(what)
        );
    }

    /// A straight line from (x1, y1) to (x2, y2).
    pub fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        let _ = write!(self.body, r#"<line class="{class}" x1="{x1:.2}" y1="{y1:.2}" x2="{x2:.2}" y2="{y2:.2}"/>"#);
    }

    /// A line through the points, closed to an area where asked for.
    pub fn path(&mut self, class: &str, points: &[(f64, f64)], closed: bool) {
        let mut d = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let _ = write!(d, "{}{x:.2} {y:.2}", if index == 0 { "M" } else { "L" });
        }
        let _ = write!(self.body, r#"<path class="{class}" d="{d}{}"/>"#, if closed { "Z" } else { "" });
    }

    /// `anchor` is start, middle or end.
    pub fn text(&mut self, class: &str, anchor: &str, x: f64, y: f64, text: &str) {
        let _ = write!(
            self.body,
            r#"<text class="{class}" text-anchor="{anchor}" x="{x:.2}" y="{y:.2}">{}</text>"#,
            escape(text)
        );
    }

    /// `label` is read out in place of the picture.
    pub fn finish(self, label: &str) -> String {
        format!(
            r#"<svg viewBox="0 0 {:.0} {:.0}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">{}</svg>"#,
            self.width,
            self.height,
            escape(label),
            self.body
        )
    }
}

/// The round step that is at least this long: 1, 2, 2.5 or 5 times a power of ten.
pub fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= least * 0.999).unwrap_or(least)
}

/// About `count` round values from 0 to `end`.
pub fn ticks(end: f64, count: f64) -> Vec<f64> {
    if !(end > 0.0 && end.is_finite()) {
        return vec![0.0];
    }
    let raw = end / count.max(1.0);
    let step = round_step(raw);
    (0..=(end / step + 1e-9) as usize).map(|k| k as f64 * step).collect()
}

/// A scale of time: nanoseconds per unit, and the unit.
pub fn time_unit(end_ns: f64) -> (f64, &'static str) {
    match end_ns {
        ns if ns >= 2e9 => (1e9, "s"),
        ns if ns >= 2e6 => (1e6, "ms"),
        ns if ns >= 2e3 => (1e3, "µs"),
        _ => (1.0, "ns"),
    }
}

/// A tick's value without trailing zeros.
pub fn short(value: f64) -> String {
    let text = significant(value);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_nearly_the_end() {
        assert_eq!(ticks(10.0, 5.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(2.073e9, 8.0).len(), 5);
        assert_eq!(ticks(0.0, 5.0), [0.0]);
        assert_eq!(ticks(f64::NAN, 5.0), [0.0]);
        assert_eq!((short(2.5), short(200.0), short(0.0)), ("2.5".into(), "200".into(), "0".into()));
    }

    #[test]
    fn what_is_told_cannot_break_out_of_the_picture() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.told("f", [0.0, 0.0, 5.0, 5.0], "</title><script>");
        let text = svg.finish("a \"b\"");
        assert!(!text.contains("<script>") && text.contains("&lt;script&gt;") && text.contains("a &quot;b&quot;"));
    }
}
