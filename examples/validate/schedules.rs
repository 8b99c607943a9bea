//! Bubble ratios, cell by cell: ours beside what the Zero Bubble paper prints.

use crate::{number, published_schedules, rows, schedule, timeline};
use bubblebench::Result;
use bubblebench::report::Table;

const COLUMNS: [&str; 7] = ["1f1b", "1f1b_i", "zb_h1", "zb_h2", "zb_1p", "zb_2p", "zb_v"];

pub fn table() -> Result<String> {
    let file = published_schedules()?;
    let mut header = vec!["model", "p", "m"];
    header.extend(COLUMNS.iter().filter_map(|c| schedule(c)).map(|name| name.text()));
    let mut table =
        Table::new("Bubble ratios", "Ours / published (Qi et al., arXiv 2401.10241, tables 4, 5 and 9).", &header);
    let mut worst = [f64::NEG_INFINITY; COLUMNS.len()];
    for row in rows(&file, "rows").iter().chain(rows(&file, "zb_v_rows")) {
        let mut cells = vec![row["model"].as_str().unwrap_or("").to_string()];
        cells.extend(["p", "m"].map(|key| number(row, key).to_string()));
        for (column, worst) in COLUMNS.iter().zip(&mut worst) {
            let cell = match (schedule(column), row["bubble"][column].as_f64()) {
                (Some(name), Some(published)) => {
                    let ours = timeline(name, row)?.bubble_ratio();
                    *worst = worst.max(ours - published);
                    format!("{ours:.4} / {published:.4}")
                }
                _ => String::new(),
            };
            cells.push(cell);
        }
        table.row(cells);
    }
    let mut cells = vec!["largest excess".to_string(), String::new(), String::new()];
    cells.extend(worst.map(|w| format!("{w:+.4}")));
    table.row(cells);
    Ok(table.markdown())
}
