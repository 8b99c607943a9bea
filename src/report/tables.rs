//! All tables of one machine, for the terminal and for `tables.md`.

use super::{Screen, Table, accuracy, collectives, corun, fill, layers, provenance};
use crate::records::{CostModel, MachineRecord, Measurement};

/// Tables whose rows no figure shows.
pub fn without_figures(records: &[Measurement], model: Option<&CostModel>) -> Vec<Table> {
    let mut tables = vec![layers::side_models(records), fill::gate(records)];
    tables.extend(model.map(accuracy::accuracy));
    tables.retain(|table| !table.is_empty());
    tables
}

/// Every table that has rows, in the order in which they are printed.
pub fn all(records: &[Measurement], model: Option<&CostModel>) -> Vec<Table> {
    let mut tables = vec![
        layers::layers(records),
        layers::side_models(records),
        layers::operations(records),
        collectives::collectives(records),
        corun::matrix(records),
        fill::gate(records),
        fill::filled(records),
    ];
    tables.extend(model.map(accuracy::accuracy));
    tables.retain(|table| !table.is_empty());
    tables
}

/// All tables as they are printed on a screen, an empty line between two.
pub fn terminal(records: &[Measurement], model: Option<&CostModel>, screen: Screen) -> String {
    all(records, model).iter().map(|table| table.terminal(screen)).collect::<Vec<_>>().join("\n")
}

/// `results/<machine>/tables.md`: what ran where, then the tables, then what could not run.
pub fn markdown(machine: &MachineRecord, records: &[Measurement], model: Option<&CostModel>) -> String {
    let mut text = format!("# {}\n\n{}\n", machine.name, provenance::sentence(machine));
    for table in all(records, model) {
        text.push('\n');
        text.push_str(&table.markdown());
    }
    text.push_str(&left_out(records));
    text
}

/// Cases without a time, each with its reason.
fn left_out(records: &[Measurement]) -> String {
    let lines: Vec<String> = records
        .iter()
        .filter(|r| r.median_ns.is_none())
        .map(|r| format!("- `{}`: {} {}", r.id, r.flags.join(" "), r.param_str("reason").unwrap_or_default()))
        .collect();
    if lines.is_empty() { String::new() } else { format!("\n## Without a time\n\n{}\n", lines.join("\n")) }
}
