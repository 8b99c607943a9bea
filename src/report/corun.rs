//! The co-run matrix: main slowdown and side progress for every main × side, a block a sharing mode.

use super::Table;
use super::layers::why_without_a_time;
use crate::records::Measurement;
use crate::records::measurement::Kind;

/// A row a main and sharing mode, a column a side: the main's slowdown and the side's speed in percent of its own.
pub fn matrix(records: &[Measurement]) -> Table {
    let rows: Vec<&Measurement> = records.iter().filter(|r| r.kind == Kind::Corun).collect();
    let mut sides: Vec<&str> = Vec::new();
    let mut mains: Vec<(&str, &str)> = Vec::new();
    for record in &rows {
        let (sharing, main, side) = parts(record);
        if !sides.contains(&side) {
            sides.push(side);
        }
        if !mains.contains(&(sharing, main)) {
            mains.push((sharing, main));
        }
    }
    let mut header = vec!["sharing", "main"];
    header.extend(&sides);
    let mut table = Table::new(
        "Beside each other",
        "Main's time together ÷ alone (pairs interleaved) / what is left of the side's own speed. `nothing` is the A/A pair: the noise floor.",
        &header,
    )
    .keys(2);
    for (sharing, main) in mains {
        let mut row = vec![sharing.to_string(), main.to_string()];
        row.extend(sides.iter().map(|side| {
            rows.iter().find(|r| parts(r) == (sharing, main, *side)).map_or(String::new(), |record| cell(record))
        }));
        table.row(row);
    }
    table
}

fn parts(record: &Measurement) -> (&str, &str, &str) {
    let sharing = record.sharing.as_deref().unwrap_or("–");
    (sharing, record.param_str("main").unwrap_or("–"), record.param_str("side").unwrap_or("–"))
}

/// `×1.45 / 62%`
fn cell(record: &Measurement) -> String {
    let Some(slowdown) = record.slowdown else {
        return why_without_a_time(record);
    };
    let progress = match (record.side_together_per_s, record.side_alone_per_s) {
        (Some(together), Some(alone)) if alone > 0.0 => format!(" / {:.0}%", 100.0 * together / alone),
        _ => String::new(),
    };
    format!("×{:.2} ±{:.2}{progress}", slowdown.median, (slowdown.high - slowdown.low) / 2.0)
}
