//! What is put into a picture beside what `plotters` draws: marks that say what they are where a reader points at them,
//! dashes, and text of a size of its own.

use crate::report::html::page::escape;
use std::fmt::Write;

/// 7 pt in thousandths of an inch: the smallest letters of any figure.
pub const SMALL: f64 = 97.3;
/// 7.5 pt: names of axes and of series.
pub const MEDIUM: f64 = 104.2;
/// 8 pt: headings.
pub const LARGE: f64 = 111.2;

/// Width of a letter over its size, as common fonts without serifs have it on average.
const LETTER: f64 = 0.56;

/// Half the size of a mark.
const MARK: f64 = 27.0;

/// How wide a text will be at this size.
pub fn width(text: &str, size: f64) -> f64 {
    LETTER * size * text.chars().count() as f64
}

/// The text, its middle left out where it would be wider than this.
pub fn shortened(text: &str, most: f64, size: f64) -> String {
    let letters: Vec<char> = text.chars().collect();
    let fits = (most / (LETTER * size)).max(5.0) as usize;
    if letters.len() <= fits {
        return text.to_string();
    }
    let (head, tail) = (fits.div_ceil(2) - 1, fits / 2);
    let part = |letters: &[char]| letters.iter().collect::<String>();
    format!("{}…{}", part(&letters[..head]), part(&letters[letters.len() - tail..]))
}

/// Elements of SVG, one after the other.
#[derive(Debug, Default)]
pub struct Pen {
    pub body: String,
}

/// Where a text lies from its place: behind it, before it, or on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    const fn name(self) -> &'static str {
        match self {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        }
    }
}

impl Pen {
    /// Puts down what another pen did.
    pub fn add(&mut self, other: &Pen) {
        self.body.push_str(&other.body);
    }

    /// `y` is the middle of small letters.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, size: f64, colour: &str, text: &str) {
        let _ = write!(
            self.body,
            "<text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"{}\" font-family=\"sans-serif\" font-size=\"{size}\" fill=\"{colour}\">{}</text>",
            y + 0.35 * size,
            anchor.name(),
            escape(text)
        );
    }

    /// As [`Pen::text`], bold.
    pub fn heading(&mut self, (x, y): (f64, f64), text: &str) {
        let _ = write!(
            self.body,
            "<text x=\"{x:.0}\" y=\"{:.0}\" font-family=\"sans-serif\" font-weight=\"bold\" font-size=\"{LARGE}\" fill=\"{}\">{}</text>",
            y + 0.35 * LARGE,
            super::palette::INK,
            escape(text)
        );
    }

    /// Text from the bottom upwards, its foot at the place.
    pub fn upright(&mut self, (x, y): (f64, f64), anchor: Anchor, size: f64, colour: &str, text: &str) {
        let _ = write!(
            self.body,
            "<text x=\"{x:.0}\" y=\"{y:.0}\" transform=\"rotate(-90 {x:.0} {y:.0})\" text-anchor=\"{}\" font-family=\"sans-serif\" font-size=\"{size}\" fill=\"{colour}\">{}</text>",
            anchor.name(),
            escape(text)
        );
    }

    /// A line between two places.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64, dashes: bool) {
        let dashes = if dashes { " stroke-dasharray=\"60 40\"" } else { "" };
        let _ = write!(
            self.body,
            "<line x1=\"{:.0}\" y1=\"{:.0}\" x2=\"{:.0}\" y2=\"{:.0}\" stroke=\"{colour}\" stroke-width=\"{width:.0}\"{dashes}/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A field with square corners that says what it is.
    pub fn field(&mut self, [x, y, width, height]: [f64; 4], colour: &str, what: &str) {
        let _ = write!(
            self.body,
            "<rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"{:.0}\" height=\"{height:.0}\" fill=\"{colour}\">{}</rect>",
            width.max(1.0),
            title(what)
        );
    }

    /// A mark of this shape.
    pub fn mark(&mut self, (x, y): (f64, f64), shape: usize, colour: &str, hollow: bool, what: &str) {
        let r = MARK;
        let path = match shape % 6 {
            0 => format!("M{:.0} {y:.0}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0Z", x - r, d = 2.0 * r),
            1 => closed(&[(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]),
            2 => closed(&[(x, y - 1.25 * r), (x + 1.15 * r, y + 0.85 * r), (x - 1.15 * r, y + 0.85 * r)]),
            3 => closed(&[(x, y - 1.35 * r), (x + 1.35 * r, y), (x, y + 1.35 * r), (x - 1.35 * r, y)]),
            4 => closed(&[(x, y + 1.25 * r), (x + 1.15 * r, y - 0.85 * r), (x - 1.15 * r, y - 0.85 * r)]),
            _ => closed(&[
                (x - 1.3 * r, y - 0.6 * r),
                (x + 1.3 * r, y - 0.6 * r),
                (x + 1.3 * r, y + 0.6 * r),
                (x - 1.3 * r, y + 0.6 * r),
            ]),
        };
        let paint = match hollow {
            true => format!("fill=\"none\" pointer-events=\"all\" stroke=\"{colour}\" stroke-width=\"10\""),
            false => format!("fill=\"{colour}\""),
        };
        let _ = write!(self.body, "<path d=\"{path}\" {paint}>{}</path>", title(what));
    }
}

fn title(what: &str) -> String {
    let what = &shortened(what, 160.0 * LETTER, 1.0);
    if what.is_empty() { String::new() } else { format!("<title>{}</title>", escape(what)) }
}

fn closed(corners: &[(f64, f64)]) -> String {
    let corners: Vec<String> = corners.iter().map(|(x, y)| format!("{x:.0} {y:.0}")).collect();
    format!("M{}Z", corners.join("L"))
}
