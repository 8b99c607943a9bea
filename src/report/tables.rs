//! All tables of one machine, for the terminal and for `tables.md`.

use super::{Screen, Table, accuracy, collectives, corun, fill, layers};
use crate::records::{CostModel, MachineRecord, Measurement};
use crate::units::counted;

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
    let mut text = format!("# {}\n\n{}\n", machine.name, provenance(machine));
    for table in all(records, model) {
        text.push('\n');
        text.push_str(&table.markdown());
    }
    text.push_str(&left_out(records));
    text
}

fn provenance(machine: &MachineRecord) -> String {
    let gpus = match machine.gpus.as_slice() {
        [] => "no GPU".to_string(),
        [first, ..] => format!("{} × {}", machine.gpus.len(), first.name),
    };
    let cache =
        machine.cpu.last_level_cache_bytes.map_or(String::new(), |b| format!(", {} MiB last-level cache", b >> 20));
    format!(
        "{}, {}{cache}; {gpus}; {}. Run `{}`, preset {}, device {}, commit {}, started {}.\nMade by `{}`.",
        machine.cpu.model,
        counted(machine.cpu.cores, "core"),
        machine.kernel,
        machine.run.id,
        machine.run.preset,
        machine.run.device,
        machine.run.commit.as_deref().unwrap_or("unknown"),
        machine.run.started,
        machine.run.command.join(" "),
    )
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
