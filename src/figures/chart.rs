//! Charts as values: two axes and series of points between them.

/// What an axis or a column of numbers counts, by which `report` writes its ticks and cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// A time in nanoseconds.
    Nanoseconds,
    /// A size in bytes.
    Bytes,
    /// FLOP in a nanosecond, which are GFLOP/s.
    GigaflopPerSecond,
    /// Bytes in a nanosecond, which are GB/s.
    GigabytePerSecond,
    /// FLOP for each byte that must move.
    FlopPerByte,
    /// One time over another.
    Ratio,
    /// Hundredths.
    Percent,
    /// A number of things.
    Count,
    /// A clock in MHz.
    Megahertz,
    /// A power in watts.
    Watts,
    /// Minutes since a run began.
    Minutes,
    /// Side work in steps a second.
    PerSecond,
}

/// How values are spread along an axis.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm, with ticks at powers of ten.
    Log,
    /// By their logarithm, with ticks at powers of two: message sizes.
    Log2,
    /// A row for each of these names, the first on top; the values are their places.
    Rows(Vec<String>),
}

/// One axis of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What is shown along it, without the unit.
    pub label: &'static str,
    /// How its values are spread.
    pub scale: Scale,
    /// What its values count.
    pub quantity: Quantity,
    /// The values that it must hold beside those of the points.
    pub holds: Vec<f64>,
}

impl Axis {
    /// An axis as long as its points need.
    pub const fn new(label: &'static str, scale: Scale, quantity: Quantity) -> Self {
        Axis { label, scale, quantity, holds: Vec::new() }
    }

    /// The axis, long enough for these values too.
    pub fn holding(mut self, values: &[f64]) -> Self {
        self.holds.extend(values);
        self
    }
}

/// How the points of a series are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A mark each.
    Marks,
    /// A hollow mark each.
    Hollow,
    /// A line through them.
    Line,
    /// A mark each and a line through them.
    MarkedLine,
}

/// A point of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Where along the first axis.
    pub x: f64,
    /// Where along the second axis.
    pub y: f64,
    /// Ends of its interval, along the axis of values: the first where the second has rows, else the second.
    pub reach: Option<(f64, f64)>,
    /// What it is, said where a reader points at it.
    pub what: String,
}

impl Point {
    /// A point without an interval and without a name.
    pub const fn at(x: f64, y: f64) -> Self {
        Point { x, y, reach: None, what: String::new() }
    }
}

/// The colour of what belongs to no series in particular: a roof, a diagonal.
pub const NEUTRAL: usize = usize::MAX;

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend; one without a name is not in it.
    pub name: String,
    /// Which of the palette's colours, or [`NEUTRAL`].
    pub colour: usize,
    /// Which of the shapes its marks have.
    pub shape: usize,
    /// How its points are shown.
    pub style: Style,
    /// Its points; lines run through them in this order.
    pub points: Vec<Point>,
}

/// An entry of a legend that stands for more than one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// What it says.
    pub name: String,
    /// Which of the palette's colours, or [`NEUTRAL`].
    pub colour: usize,
    /// Which of the shapes.
    pub shape: usize,
    /// How the mark beside it is drawn.
    pub style: Style,
}

/// An upright line with a word beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it stands.
    pub x: f64,
    /// What is said there.
    pub word: String,
    /// Which of the palette's colours, or [`NEUTRAL`].
    pub colour: usize,
}

/// Two axes and what lies between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What this chart shows, over it where a figure has several; else empty.
    pub heading: &'static str,
    /// The axis to the right.
    pub x: Axis,
    /// The axis upwards.
    pub y: Axis,
    /// What is drawn, the first below the others.
    pub series: Vec<Series>,
    /// Upright lines.
    pub rules: Vec<Rule>,
    /// The legend, where it is not the names of the series.
    pub keys: Vec<Key>,
}

impl Chart {
    /// A chart without series.
    pub const fn new(x: Axis, y: Axis) -> Self {
        Chart { heading: "", x, y, series: Vec::new(), rules: Vec::new(), keys: Vec::new() }
    }

    /// The chart with its heading.
    pub const fn headed(mut self, heading: &'static str) -> Self {
        self.heading = heading;
        self
    }

    /// The chart with this legend in place of the names of its series, unless it is empty.
    pub fn keyed(mut self, keys: Vec<Key>) -> Self {
        self.keys = keys;
        self
    }

    /// The chart with these series on top of what it has.
    pub fn with(mut self, series: impl IntoIterator<Item = Series>) -> Self {
        self.series.extend(series);
        self
    }
}
