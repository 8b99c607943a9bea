//! Colours of figures, as they stand in SVG. The page of a report gives each another one where the reader's system is dark,
//! and finds them by these very texts.

use crate::figures::chart::NEUTRAL;
use crate::figures::figure::Activity;
use plotters::prelude::RGBColor;

/// The ground of a figure that is a file of its own.
pub const PAPER: &str = "#FFFFFF";
/// Text.
pub const INK: &str = "#1D2129";
/// Text of lesser weight, and lines that belong to no series.
pub const SOFT: &str = "#5D6570";
/// Lines of the grid.
pub const GRID: &str = "#E3E1DC";
/// Text on a light field of a heat map, in either theme.
pub const ON_LIGHT: &str = "#111111";
/// Text on a dark field of a heat map, in either theme.
pub const ON_DARK: &str = "#FEFEFE";

/// Colours of series: those of Okabe and Ito (Color Universal Design, 2008), black and yellow left out.
pub const SERIES: [&str; 6] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/// What a stage does: work, work, waiting, and the open gate.
pub const FORWARD: &str = SERIES[0];
/// See [`FORWARD`].
pub const BACKWARD: &str = SERIES[5];
/// See [`FORWARD`].
pub const BUBBLE: &str = "#EFEDE7";
/// See [`FORWARD`].
pub const OPEN: &str = SERIES[4];

/// The colour of a series.
pub const fn series(index: usize) -> &'static str {
    if index == NEUTRAL { SOFT } else { SERIES[index % SERIES.len()] }
}

/// The colour of what a stage does.
pub const fn activity(activity: Activity) -> &'static str {
    match activity {
        Activity::Forward => FORWARD,
        Activity::Backward => BACKWARD,
        Activity::Bubble => BUBBLE,
        Activity::Open => OPEN,
    }
}

/// The colour as `plotters` takes it.
pub fn rgb(hex: &str) -> RGBColor {
    let part = |from: usize| hex.get(from..from + 2).and_then(|two| u8::from_str_radix(two, 16).ok()).unwrap_or(0);
    RGBColor(part(1), part(3), part(5))
}

/// A field of a heat map, from light to dark, and the colour of the text on it.
pub fn field(share: f64) -> (String, &'static str) {
    let (light, dark): ([i32; 3], [i32; 3]) = ([0xF2, 0xF6, 0xFB], [0x0B, 0x3C, 0x73]);
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let mixed = [0, 1, 2].map(|i| (f64::from(light[i]) + share * f64::from(dark[i] - light[i])).round() as u8);
    (format!("#{:02X}{:02X}{:02X}", mixed[0], mixed[1], mixed[2]), if share > 0.5 { ON_DARK } else { ON_LIGHT })
}
