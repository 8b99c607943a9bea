//! A comparison's rows as CSV: a line for each case and other side, numbers whole.

use crate::compare::record::{ComparedQuantity, ComparisonRecord, SideFigure, SideRatio, SideValue};
use crate::records::csv::line;

const COLUMNS: [&str; 19] = [
    "id",
    "kind",
    "what",
    "unit",
    "reference",
    "side",
    "reference_value",
    "reference_low",
    "reference_high",
    "value",
    "low",
    "high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "verdict",
    "reason",
    "samples",
    "runs",
];

/// The rows, then the figures, with a heading; an empty cell where nothing is known.
pub fn csv(record: &ComparisonRecord) -> String {
    let mut text = line(COLUMNS.iter().map(|name| (*name).to_string()));
    for row in &record.rows {
        let reference = row.value(&record.reference).map(|value| figures(value, row.quantity));
        let (what, unit) = match row.quantity {
            ComparedQuantity::Time => ("time", "ns"),
            ComparedQuantity::Slowdown => ("slowdown", "ratio"),
        };
        for ratio in &row.ratios {
            let value = row.value(&ratio.name);
            let names = [&row.id, &row.kind, what, unit, &record.reference, &ratio.name].map(String::from);
            let counts = [value.and_then(|value| value.samples), value.and_then(|value| value.runs)];
            let cells = names
                .into_iter()
                .chain(reference.unwrap_or_default().map(number))
                .chain(value.map(|value| figures(value, row.quantity)).unwrap_or_default().map(number))
                .chain(ratio_cells(ratio))
                .chain(counts.map(|count| count.map_or(String::new(), |count| count.to_string())));
            text += &line(cells);
        }
    }
    text + &figure_lines(record)
}

/// Median and the ends of its interval.
fn figures(value: &SideValue, quantity: ComparedQuantity) -> [Option<f64>; 3] {
    match quantity {
        ComparedQuantity::Time => [value.median_ns, value.low_ns, value.high_ns],
        ComparedQuantity::Slowdown => value.slowdown.map(|s| [s.median, s.low, s.high].map(Some)).unwrap_or_default(),
    }
}

fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or(String::new(), |value| value.to_string())
}

fn ratio_cells(ratio: &SideRatio) -> [String; 5] {
    [
        number(ratio.ratio),
        number(ratio.low),
        number(ratio.high),
        ratio.verdict.map_or(String::new(), |verdict| verdict.name().into()),
        ratio.reason.clone().unwrap_or_default(),
    ]
}

/// Figures that are no times of a case: a line for each other side, the measured figures without what was predicted.
fn figure_lines(record: &ComparisonRecord) -> String {
    let mut text = String::new();
    for row in &record.figures {
        let of = |name: &str| row.values.iter().find(|value| value.name == name);
        for side in record.others.iter().filter_map(|other| of(other)) {
            let names = [&row.id, "figure", &row.what, &row.unit, &record.reference, &side.name].map(String::from);
            let numbers = |figure: Option<&SideFigure>| match figure {
                Some(SideFigure { text: Some(text), .. }) => [text.clone(), String::new(), String::new()],
                Some(figure) => [figure.value, figure.low, figure.high].map(number),
                None => Default::default(),
            };
            let cells = names.into_iter().chain(numbers(of(&record.reference))).chain(numbers(Some(side)));
            text += &line(cells.chain(std::iter::repeat_n(String::new(), 7)));
        }
    }
    text
}
