//! Measured samples per GPU and second against the simulated iteration: one scalar per schedule, fitted on the 1.5B model,
//! tried on the 6.2B model. What the scalar holds is everything the stage times do not: optimizer step, loss, stalls.

use crate::{number, published_schedules, rows, schedule, timeline};
use bubblebench::Result;
use bubblebench::report::Table;
use bubblebench::stats;
use serde_json::Value;

const COLUMNS: [&str; 5] = ["1f1b", "1f1b_i", "zb_1p", "zb_2p", "zb_v"];

/// One measured cell with what the simulated iteration alone would give.
struct Cell {
    model: String,
    p: f64,
    m: f64,
    measured: f64,
    simulated: f64,
}

pub fn table() -> Result<String> {
    let file = published_schedules()?;
    let all: Vec<&Value> = rows(&file, "rows").iter().chain(rows(&file, "zb_v_rows")).collect();
    let mut table = Table::new(
        "Throughput",
        "Samples per GPU and second. Fitted: median of measured ÷ simulated over the rows marked *; predicted = simulated × that.",
        &["schedule", "scalar", "model", "p", "m", "simulated", "predicted", "measured", "error"],
    );
    let mut errors = Vec::new();
    for column in COLUMNS {
        let cells = cells(column, &all)?;
        let fitted = |cell: &Cell| cell.model == cells[0].model && (column != "zb_v" || cell.m == cells[0].m);
        let ratios: Vec<f64> = cells.iter().filter(|c| fitted(c)).map(|c| c.measured / c.simulated).collect();
        let scalar = stats::median(&ratios).unwrap_or(1.0);
        for cell in &cells {
            let predicted = cell.simulated * scalar;
            let error = predicted / cell.measured - 1.0;
            if !fitted(cell) {
                errors.push(error.abs());
            }
            table.row(vec![
                schedule(column).map_or(column, |name| name.text()).into(),
                format!("{scalar:.3}"),
                format!("{}{}", cell.model, if fitted(cell) { " *" } else { "" }),
                cell.p.to_string(),
                cell.m.to_string(),
                format!("{:.2}", cell.simulated),
                format!("{predicted:.2}"),
                format!("{:.2}", cell.measured),
                format!("{:+.1} %", 100.0 * error),
            ]);
        }
    }
    let (mean, worst) = (stats::mean(&errors).unwrap_or(0.0), errors.iter().copied().fold(0.0, f64::max));
    Ok(format!(
        "{}\n{} cells not fitted: mean error {:.1} %, worst {:.1} %\n",
        table.markdown(),
        errors.len(),
        100.0 * mean,
        100.0 * worst
    ))
}

/// In the order of the file: the 1.5B model first where it has the schedule.
fn cells(column: &str, all: &[&Value]) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for row in all {
        let (Some(name), Some(measured)) = (schedule(column), row["measured_samples_per_gpu_s"][column].as_f64())
        else {
            continue;
        };
        let iteration_s = timeline(name, row)?.iteration_ns as f64 / 1e9;
        let (p, m) = (number(row, "p"), number(row, "m"));
        cells.push(Cell {
            model: row["model"].as_str().unwrap_or("").into(),
            p,
            m,
            measured,
            simulated: m * number(row, "micro_batch") / iteration_s / p,
        });
    }
    Ok(cells)
}
