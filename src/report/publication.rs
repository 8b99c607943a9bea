//! The page that lies beside published measurements: what they are, how to cite them, and how to use and check them.

use super::provenance;
use crate::records::MachineRecord;
use crate::records::cost_model::LayerShape;
use crate::units::counted;

/// The first line of a page that this program wrote and may write again.
pub const MARK: &str = "<!-- written by `bubblebench publish` -->";

/// `README.md` of a published folder. `machine` is without secrets; `cases` have been measured; `files` are all others.
/// `layer` is one that the cost model was fitted to.
pub fn readme(
    machine: &MachineRecord,
    cases: usize,
    layer: Option<&LayerShape>,
    notes: &[String],
    files: &[String],
) -> String {
    let mut text = format!(
        "{MARK}\n# {}\n\n{} of one run. Host names, paths and addresses are withheld.\n\n## Cite\n\n> {}\n\n## Facts\n\n| what | value |\n|---|---|\n",
        machine.name,
        counted(cases, "case"),
        provenance::citation(machine)
    );
    for (what, value) in provenance::facts(machine) {
        text += &format!("| {what} | {} |\n", value.replace('|', "\\|"));
    }
    if !notes.is_empty() {
        text += "\n## To know\n\n";
        notes.iter().for_each(|note| text += &format!("- {note}.\n"));
    }
    text += "\n## Files\n\n| file | holds |\n|---|---|\n";
    let figures = files.iter().filter(|file| file.starts_with("figures/")).count();
    for (file, holds) in FILES {
        if files.iter().any(|known| known == file) {
            text += &format!("| `{file}` | {holds} |\n");
        }
    }
    if figures > 0 {
        text += &format!(
            "| `figures/` | {}: each figure 3.5 in and 7 in wide as SVG, its numbers as CSV; the tables as LaTeX |\n",
            counted(figures, "file")
        );
    }
    text += "\n```sh\nsha256sum --check SHA256SUMS                 # nothing was changed since\n";
    if let Some(shape) = layer {
        text += &format!(
            "bubblebench predict --cost-model cost_model.json layer --hidden {} --heads {} --sequence {} --micro-batch {} --dtype {}\n",
            shape.hidden,
            shape.heads,
            shape.sequence,
            shape.micro_batch,
            shape.dtype.name()
        );
    }
    text + "bubblebench compare . ../another-machine --across\n```\n"
}

const FILES: [(&str, &str); 5] = [
    ("measurements.jsonl", "a line a case: every sample, median, 95 % interval, check and flags"),
    ("machine.json", "the machine and the run, without secrets"),
    ("cost_model.json", "what `predict`, `plan` and `export` read"),
    ("tables.md", "every table"),
    ("report.html", "every figure with its numbers, on one page that asks nothing of any network"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::files;
    use std::path::Path;

    #[test]
    fn the_page_names_what_is_there_and_no_more() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/results/published/amd-epyc-2c/machine.json");
        let machine: MachineRecord = files::read_json(Path::new(file), "machine").unwrap();
        let names = ["measurements.jsonl", "machine.json", "figures/a.svg"].map(String::from);
        let text = readme(&machine, 3, None, &["a | b".into()], &names);
        assert!(
            text.starts_with(MARK) && text.contains("3 cases of one run") && text.contains("> AMD EPYC, 2 cores"),
            "{text}"
        );
        assert!(text.contains("- a | b.") && text.contains("1 file:") && !text.contains("cost_model.json"), "{text}");
    }
}
