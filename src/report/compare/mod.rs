//! A comparison for people: tables for the terminal, Markdown and LaTeX, and its rows as CSV.

pub mod csv;

use super::{Screen, Table, latex};
use crate::compare::record::{
    ALL_ROWS, ComparedFiles, ComparedQuantity, ComparisonRecord, ComparisonRow, EnvironmentRow, FigureRow, GroupRow,
    OnlyIn, SideFigure, SideRatio, SideValue,
};
use crate::units::{counted, format_ns, significant};
use std::collections::BTreeMap;

/// What the tables are told beside the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownRows {
    /// Whether all rows are listed, and the cases that only one side has.
    pub all: bool,
    /// How many rows were left out because they did not move.
    pub left_out: usize,
}

/// A comparison on a screen; as wide as the narrowest screen where the width is not known.
pub fn terminal(record: &ComparisonRecord, shown: ShownRows, screen: Screen) -> String {
    let screen = Screen { columns: screen.columns.or(Some(Screen::NARROWEST)), ..screen };
    let mut parts = vec![screen.prose(&format!("{}\n", headline(record)), 2)];
    parts.extend(tables(record, shown.all).iter().map(|table| table.terminal(screen)));
    let sentences = sentences(record, shown);
    if !sentences.is_empty() {
        parts.push(sentences.iter().map(|sentence| screen.prose(&format!("{sentence}\n"), 2)).collect());
    }
    parts.join("\n")
}

/// A comparison as Markdown that a person can paste.
pub fn markdown(record: &ComparisonRecord, shown: ShownRows) -> String {
    let mut parts = vec![format!("{}\n", headline(record))];
    parts.extend(tables(record, shown.all).iter().map(Table::markdown));
    let sentences = sentences(record, shown);
    if !sentences.is_empty() {
        parts.push(sentences.iter().map(|sentence| format!("- {sentence}\n")).collect());
    }
    parts.join("\n")
}

/// A comparison as LaTeX tables (packages `booktabs`, `longtable` and `pdflscape`), the sentences as comments.
pub fn latex(record: &ComparisonRecord, shown: ShownRows) -> String {
    let mut text = latex::comment(&headline(record));
    sentences(record, shown).iter().for_each(|sentence| text += &latex::comment(sentence));
    for table in tables(record, shown.all) {
        text += "\n";
        text += &latex::table(&table);
    }
    text
}

/// `b against a, measurements: …`.
fn headline(record: &ComparisonRecord) -> String {
    let what = match record.of {
        ComparedFiles::Measurements => "measurements",
        ComparedFiles::CostModels => "predictions of cost models",
        ComparedFiles::Plans => "plans",
    };
    let others = record.others.join(", ");
    match record.across {
        true => {
            format!("{others} beside {}: {what} of sides that differ on purpose, without verdicts", record.reference)
        }
        false => format!(
            "{others} against {}: {what}; a difference counts from {} % on",
            record.reference,
            significant_percent(record.threshold)
        ),
    }
}

/// 2, 0.5, 12.5.
fn significant_percent(share: f64) -> String {
    let text = format!("{:.3}", 100.0 * share);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn tables(record: &ComparisonRecord, all: bool) -> Vec<Table> {
    let (apart, listed): (Vec<&ComparisonRow>, Vec<&ComparisonRow>) =
        record.rows.iter().partition(|row| row.ratios.iter().all(|ratio| ratio.set_apart));
    let title = match (record.across, all) {
        (true, _) => "Side by side",
        (false, true) => "All rows",
        (false, false) => "Rows that moved",
    };
    let mut tables = vec![environment(record), rows(record, title, &listed)];
    if !apart.is_empty() {
        tables.push(rows(record, "Set apart", &apart));
    }
    tables.extend([figures(record), summary(record)]);
    tables.retain(|table| !table.is_empty());
    tables
}

/// What differs and matters, a column a side.
fn environment(record: &ComparisonRecord) -> Table {
    let header: Vec<&str> = std::iter::once("what").chain(record.names()).collect();
    let mut table = Table::new("What differs", "What times may depend on.", &header);
    for EnvironmentRow { what, values, .. } in record.environment.iter().filter(|row| row.matters) {
        let cells = values.iter().map(|value| value.clone().unwrap_or_else(|| "–".into()));
        table.row(std::iter::once(what.clone()).chain(cells).collect());
    }
    table
}

/// A row a case. One other side has its verdict in a column of its own; several have it behind their ratio.
fn rows(record: &ComparisonRecord, title: &str, rows: &[&ComparisonRow]) -> Table {
    match record.others.as_slice() {
        [other] => beside_one(record, title, rows, other),
        _ => beside_several(record, title, rows),
    }
}

fn beside_one(record: &ComparisonRecord, title: &str, rows: &[&ComparisonRow], other: &str) -> Table {
    let reasons = rows.iter().flat_map(|row| &row.ratios).any(|ratio| ratio.reason.is_some());
    let mut header = vec!["case", &record.reference, other, "ratio"];
    header.extend((!record.across).then_some("verdict"));
    header.extend(reasons.then_some("reason"));
    let spare: &[&str] = if reasons { &["reason", other, &record.reference] } else { &[other, &record.reference] };
    let note = format!("Medians, and the ratio {other} ÷ {} with its 95 % interval.", record.reference);
    let mut table = Table::new(title, &note, &header).spare(spare);
    for row in rows {
        let ratio = row.ratio(other);
        let mut cells = vec![
            row.id.clone(),
            value_cell(row.value(&record.reference), row.quantity),
            value_cell(row.value(other), row.quantity),
            ratio.map_or("–".into(), ratio_cell),
        ];
        cells.extend((!record.across).then(|| ratio.map_or("–", verdict_cell).to_string()));
        cells.extend(reasons.then(|| ratio.and_then(|ratio| ratio.reason.clone()).unwrap_or_default()));
        table.row(cells);
    }
    table
}

fn beside_several(record: &ComparisonRecord, title: &str, rows: &[&ComparisonRow]) -> Table {
    let ratios: Vec<String> = record.others.iter().map(|other| format!("{other} ÷ {}", record.reference)).collect();
    let columns = record.others.iter().zip(&ratios).flat_map(|(other, ratio)| [other.as_str(), ratio.as_str()]);
    let header: Vec<&str> = ["case", &record.reference].into_iter().chain(columns).collect();
    let spare: Vec<&str> = record.others.iter().map(String::as_str).collect();
    let note = format!("Medians, and each side ÷ {} with the ratio's 95 % interval.", record.reference);
    let mut table = Table::new(title, &note, &header).spare(&spare);
    for row in rows {
        let mut cells = vec![row.id.clone(), value_cell(row.value(&record.reference), row.quantity)];
        for other in &record.others {
            cells.push(value_cell(row.value(other), row.quantity));
            cells.push(row.ratio(other).map_or("–".into(), |ratio| match ratio.verdict {
                Some(verdict) => format!("{} {}", ratio_cell(ratio), verdict.name()),
                None => ratio_cell(ratio),
            }));
        }
        table.row(cells);
    }
    table
}

fn value_cell(value: Option<&SideValue>, quantity: ComparedQuantity) -> String {
    let cell = value.and_then(|value| match quantity {
        ComparedQuantity::Time => value.median_ns.map(format_ns),
        ComparedQuantity::Slowdown => value.slowdown.map(|slowdown| format!("×{}", significant(slowdown.median))),
    });
    cell.unwrap_or_else(|| "–".into())
}

/// `1.034 [1.022, 1.047]`: the interval of a ratio is not even about it, and a wide one would reach below zero if it were.
fn ratio_cell(ratio: &SideRatio) -> String {
    let interval = ratio.low.zip(ratio.high);
    let interval = interval.map(|(low, high)| format!(" [{}, {}]", significant(low), significant(high)));
    ratio.ratio.map_or("–".into(), |value| format!("{}{}", significant(value), interval.unwrap_or_default()))
}

const fn verdict_cell(ratio: &SideRatio) -> &'static str {
    match ratio.verdict {
        Some(verdict) => verdict.name(),
        None => "–",
    }
}

/// Counts and mean ratios of groups, a row a group and other side.
fn summary(record: &ComparisonRecord) -> Table {
    let several = record.others.len() > 1;
    let mut header = if several { vec!["side", "group"] } else { vec!["group"] };
    let verdicts = ["same", "slower", "faster", "unsure"];
    if record.across {
        header.push("rows");
    } else {
        header.extend(verdicts);
    }
    header.extend(["set apart", "mean ratio", "95 % interval"]);
    let note = "All rows, listed or not; the mean ratio is geometric.";
    let mut table = Table::new("Summary", note, &header).spare(&["set apart", "95 % interval"]);
    for group in &record.summary {
        let mut cells = if several { vec![group.name.clone()] } else { Vec::new() };
        cells.push(group.group.clone());
        let counts = [group.same, group.slower, group.faster, group.unsure];
        match record.across {
            true => cells.push(group.rows.to_string()),
            false => cells.extend(counts.map(|count| count.to_string())),
        }
        cells.push(group.set_apart.to_string());
        cells.push(group.geometric_mean_ratio.map_or("–".into(), significant));
        let interval = group.low.zip(group.high);
        cells.push(interval.map_or("–".into(), |(low, high)| format!("{}–{}", significant(low), significant(high))));
        table.row(cells);
    }
    if several { table.keys(2) } else { table }
}

/// Figures that are no times of a case: measured, with what had been predicted in brackets.
fn figures(record: &ComparisonRecord) -> Table {
    let (title, note) = match record.of {
        ComparedFiles::Plans => ("Outcome", "What each plan promises."),
        _ => ("Filled stages", "Each figure: measured (predicted before the run)."),
    };
    let header: Vec<&str> = ["of", "figure"].into_iter().chain(record.names()).collect();
    let mut table = Table::new(title, note, &header).keys(2);
    for row in &record.figures {
        let cell = |name: &str| row.values.iter().find(|value| value.name == name);
        let cells = record.names().map(|name| cell(name).map_or("–".into(), |figure| figure_cell(row, figure)));
        table.row([row.id.clone(), row.what.replace('_', " ")].into_iter().chain(cells).collect());
    }
    table
}

fn figure_cell(row: &FigureRow, figure: &SideFigure) -> String {
    if let Some(text) = &figure.text {
        return text.clone();
    }
    let one = |value: f64| match row.unit.as_str() {
        "ns" => format_ns(value),
        "percent" => format!("{value:.0}%"),
        "bytes" => format!("{} GiB", significant(value / (1u64 << 30) as f64)),
        _ => significant(value),
    };
    let value = figure.value.map_or("–".into(), one);
    let interval = figure.low.zip(figure.high).map(|(low, high)| format!(" [{}, {}]", one(low), one(high)));
    let predicted = figure.predicted.map(|predicted| format!(" ({})", one(predicted)));
    format!("{value}{}{}", interval.unwrap_or_default(), predicted.unwrap_or_default())
}

fn sentences(record: &ComparisonRecord, shown: ShownRows) -> Vec<String> {
    let mut sentences = Vec::new();
    let moved = record.rows.iter().any(|row| row.ratios.iter().any(SideRatio::moved));
    if !moved && !shown.all && !record.across {
        sentences.push("No row moved.".to_string());
    }
    if shown.left_out > 0 {
        sentences.push(format!("{} did not move or cannot be told; --all lists them.", counted(shown.left_out, "row")));
    }
    if shown.all {
        sentences.extend(record.only.iter().map(|OnlyIn { name, ids }| format!("Only in {name}: {}.", ids.join(", "))));
    } else if !record.only.is_empty() {
        let each = |side: &OnlyIn| format!("{} only in {}", counted(side.ids.len(), "case"), side.name);
        let all: Vec<String> = record.only.iter().map(each).collect();
        sentences.push(format!("{}; --all names them.", all.join(", ")));
    }
    sentences.extend(reasons_apart(record, shown));
    sentences.extend(record.notes.iter().cloned());
    sentences
}

/// Why rows that are listed have no verdict, with how many; nothing where `--all` lists each.
fn reasons_apart(record: &ComparisonRecord, shown: ShownRows) -> Option<String> {
    // A single group has no sum of all behind it.
    let several = record.summary.iter().any(|group| group.group == ALL_ROWS);
    let counted_once = |group: &&GroupRow| !several || group.group == ALL_ROWS;
    let apart: u64 = record.summary.iter().filter(counted_once).map(|group| group.set_apart).sum();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for ratio in record.rows.iter().flat_map(|row| &row.ratios).filter(|ratio| ratio.set_apart) {
        *reasons.entry(ratio.reason.as_deref().unwrap_or("no ratio")).or_default() += 1;
    }
    let told: Vec<String> = reasons.iter().map(|(why, count)| format!("{why} ({count})")).collect();
    match (shown.all || record.across, apart) {
        (true, _) if !told.is_empty() => Some(format!("Set apart, without a verdict: {}.", told.join(", "))),
        (false, 1..) => Some(format!("{} set apart, without a verdict; --all says why.", counted(apart, "row"))),
        _ => None,
    }
}
