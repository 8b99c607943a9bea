//! `bubblebench.comparison/1`: what `compare --format json` prints, and what its tables are made from.

use crate::records::measurement::Interval;
use schemars::JsonSchema;
use serde::Serialize;

/// Value of `schema` in every comparison: name and version of the format.
pub const SCHEMA: &str = "bubblebench.comparison/1";

/// The group of all rows, which stands behind the others where there are several.
pub const ALL_ROWS: &str = "all";

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparedFiles {
    /// Measurements, case by case.
    Measurements,
    /// Cost models, by what they predict over the range that both were measured on.
    CostModels,
    /// Plans of training jobs.
    Plans,
}

/// Two or more sides held against the first of them, the reference.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ComparisonRecord {
    /// Name and version of this format: `bubblebench.comparison/1`.
    pub schema: String,
    /// What the sides are.
    pub of: ComparedFiles,
    /// Name of the first side.
    pub reference: String,
    /// Names of the other sides, in the order given.
    pub others: Vec<String>,
    /// The least difference that counts, relative: 0.02 for 2 %.
    pub threshold: f64,
    /// Whether the sides differ on purpose: then there are ratios and no verdicts.
    pub across: bool,
    /// What differs between the sides beside the figures, the weightiest first.
    pub environment: Vec<EnvironmentRow>,
    /// Cases that the reference and at least one other side have, the largest difference first; of plans the iteration's parts
    /// and then the prices, in the order of the plan.
    pub rows: Vec<ComparisonRow>,
    /// Figures that are no times of a case: what filled stages were predicted to do and did, and what plans promise.
    pub figures: Vec<FigureRow>,
    /// Cases that only some of the sides have.
    pub only: Vec<OnlyIn>,
    /// Counts and mean ratios, a row for each group and other side, of all rows: those that are not listed too.
    pub summary: Vec<GroupRow>,
    /// Sentences on what the figures do not say.
    pub notes: Vec<String>,
}

/// One thing in which the sides' machines, runs or settings differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EnvironmentRow {
    /// What differs, as `driver` or `NCCL_ALGO`.
    pub what: String,
    /// Its value for each side, the reference first; null where it is absent or not known.
    pub values: Vec<Option<String>>,
    /// Whether times depend on it.
    pub matters: bool,
}

/// What a row's ratios are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparedQuantity {
    /// The time of one operation.
    Time,
    /// The slowdown of a main by its side: what drifts is in both halves of a pair, and cancels.
    Slowdown,
}

/// One case on all sides that have it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ComparisonRow {
    /// The case's path, or the name of what is predicted.
    pub id: String,
    /// The kind of case: `operation`, `layer`, `collective`, `corun` or `fill`; of plans `plan` or `price`.
    pub kind: String,
    /// What the ratios are of.
    pub quantity: ComparedQuantity,
    /// The figures of each side that has the case, the reference first.
    pub values: Vec<SideValue>,
    /// The other sides against the reference.
    pub ratios: Vec<SideRatio>,
}

/// A side's figures of one case.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SideValue {
    /// The side's name.
    pub name: String,
    /// Median time in ns of one operation, of repeated runs the geometric mean of their medians; null where there is none.
    pub median_ns: Option<f64>,
    /// Lower end of its 95 % interval in ns; null where nothing tells it.
    pub low_ns: Option<f64>,
    /// Upper end of its 95 % interval in ns; null where nothing tells it.
    pub high_ns: Option<f64>,
    /// The main's slowdown with its 95 % interval, where the ratios are of it; else null.
    pub slowdown: Option<Interval>,
    /// Number of samples of all runs; null for predictions.
    pub samples: Option<u64>,
    /// Number of runs; null for predictions.
    pub runs: Option<u64>,
}

/// What is said of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowVerdict {
    /// The other side takes longer.
    Slower,
    /// The other side takes less time.
    Faster,
    /// If there is a difference, it is less than the threshold.
    Same,
    /// The interval holds both a difference that matters and one that does not, or chance is not ruled out.
    Unsure,
}

impl RowVerdict {
    /// The word that tables and records spell.
    pub const fn name(self) -> &'static str {
        match self {
            RowVerdict::Slower => "slower",
            RowVerdict::Faster => "faster",
            RowVerdict::Same => "same",
            RowVerdict::Unsure => "unsure",
        }
    }
}

/// A side against the reference.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SideRatio {
    /// The side's name.
    pub name: String,
    /// Its figure ÷ the reference's; null where one of them has none.
    pub ratio: Option<f64>,
    /// Lower end of the ratio's 95 % interval; null where nothing tells it.
    pub low: Option<f64>,
    /// Upper end of the ratio's 95 % interval; null where nothing tells it.
    pub high: Option<f64>,
    /// `slower`, `faster`, `same` or `unsure`; null where the row is set apart or the sides differ on purpose.
    pub verdict: Option<RowVerdict>,
    /// Why there is no verdict, why it is not what the times alone would say, or what would settle it; null where there is
    /// nothing to say.
    pub reason: Option<String>,
    /// Whether the row is set apart: wrong, throttled, imported, measured on the software device, or not of the same thing.
    pub set_apart: bool,
}

/// A figure that is no time of a case, on the sides that have it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FigureRow {
    /// What it is of: a case's path, or `plan`.
    pub id: String,
    /// What it is, as `main_slowdown` or `bubble_ratio`.
    pub what: String,
    /// Its unit: `ratio`, `percent`, `ns`, `bytes`, `per_s`, `tflops` or `text`.
    pub unit: String,
    /// The sides' figures, the reference first.
    pub values: Vec<SideFigure>,
}

/// A side's figure.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SideFigure {
    /// The side's name.
    pub name: String,
    /// The figure; null where it is a text, or not known.
    pub value: Option<f64>,
    /// Lower end of its 95 % interval; null where there is none.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval; null where there is none.
    pub high: Option<f64>,
    /// What had been predicted; null where nothing was.
    pub predicted: Option<f64>,
    /// The figure where it is a text; else null.
    pub text: Option<String>,
}

/// Cases of one side that others lack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OnlyIn {
    /// The side's name.
    pub name: String,
    /// Names of the cases: of the reference those that no other side has, of another side those that the reference lacks.
    pub ids: Vec<String>,
}

/// What the rows of a group say together.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct GroupRow {
    /// The other side's name.
    pub name: String,
    /// The group: the value of the key that rows were grouped by, or `all`.
    pub group: String,
    /// All rows of the group.
    pub rows: u64,
    /// Rows that are the same.
    pub same: u64,
    /// Rows in which the other side is faster.
    pub faster: u64,
    /// Rows in which the other side is slower.
    pub slower: u64,
    /// Rows that cannot be told.
    pub unsure: u64,
    /// Rows that were set apart, and count for nothing else here.
    pub set_apart: u64,
    /// Geometric mean of the ratios of rows that were not set apart and whose error is known, or of all where none's is; null
    /// where there is none.
    pub geometric_mean_ratio: Option<f64>,
    /// Lower end of its 95 % interval; null where a row drifts in a way that its own interval does not tell.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval; null where a row drifts in a way that its own interval does not tell.
    pub high: Option<f64>,
}

/// How a comparison is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompareOptions<'a> {
    /// The least difference that counts, relative.
    pub threshold: f64,
    /// Whether the sides differ on purpose.
    pub across: bool,
    /// What rows are grouped by: `kind`, or a parameter of the cases.
    pub group_by: &'a str,
    /// Part of the names of the cases that are compared; `None` for all.
    pub filter: Option<&'a str>,
}

impl ComparisonRecord {
    /// A comparison of these sides without rows. The first name is the reference's.
    pub fn of(files: ComparedFiles, names: &[String], options: &CompareOptions) -> ComparisonRecord {
        ComparisonRecord {
            schema: SCHEMA.into(),
            of: files,
            reference: names[0].clone(),
            others: names[1..].to_vec(),
            threshold: options.threshold,
            across: options.across,
            environment: Vec::new(),
            rows: Vec::new(),
            figures: Vec::new(),
            only: Vec::new(),
            summary: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The names of all sides, the reference's first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.reference).chain(&self.others).map(String::as_str)
    }

    /// Puts the rows in order: the largest difference first, and rows without a ratio last.
    pub fn sort_rows(&mut self) {
        self.rows.sort_by(|a, b| b.effect().total_cmp(&a.effect()));
    }

    /// Leaves the rows that moved, and every row where the sides differ on purpose. Returns how many were left out.
    pub fn leave_moved(&mut self) -> usize {
        let before = self.rows.len();
        if !self.across {
            self.rows.retain(|row| row.ratios.iter().any(SideRatio::moved));
        }
        before - self.rows.len()
    }
}

impl ComparisonRow {
    /// How far the row's ratios are from 1, as a logarithm; 0 where it has none.
    fn effect(&self) -> f64 {
        let ratios = self.ratios.iter().filter(|ratio| !ratio.set_apart).filter_map(|ratio| ratio.ratio);
        ratios.map(|ratio| ratio.ln().abs()).fold(0.0, f64::max)
    }

    /// The figures of the side of this name.
    pub fn value(&self, name: &str) -> Option<&SideValue> {
        self.values.iter().find(|value| value.name == name)
    }

    /// The ratio of the side of this name.
    pub fn ratio(&self, name: &str) -> Option<&SideRatio> {
        self.ratios.iter().find(|ratio| ratio.name == name)
    }
}

impl SideRatio {
    /// Whether the side is told slower or faster.
    pub fn moved(&self) -> bool {
        matches!(self.verdict, Some(RowVerdict::Slower | RowVerdict::Faster))
    }

    /// Whether the side is told slower, with the whole interval beyond 1 + `beyond`.
    pub fn slower_beyond(&self, beyond: f64) -> bool {
        self.verdict == Some(RowVerdict::Slower) && self.low.is_some_and(|low| low > 1.0 + beyond)
    }
}
