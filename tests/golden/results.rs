//! The names of the cases, and what is made from their measurements: tables, the cost model, its predictions, and the columns of nccl-tests.

use crate::hold::{Golden, ROOT, json, laid_out, run, text};
use bubblebench::records::store::Journal;
use bubblebench::records::{CostModel, files};
use bubblebench::report::Screen;
use bubblebench::suite::Platform;
use bubblebench::suite::collectives::Choices;
use bubblebench::suite::groups::Group;
use bubblebench::suite::presets::Preset;
use bubblebench::{cli, report};
use std::path::Path;
use tempfile::TempDir;

const PUBLISHED: &str = "results/published/amd-epyc-2c";

/// A copy of the published measurements, without what is made from them.
fn measured() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["measurements.jsonl", "machine.json"] {
        std::fs::copy(Path::new(ROOT).join(PUBLISHED).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

pub fn tables() -> Vec<Golden> {
    vec![
        Golden::new("fit", || text(measured().path(), &["fit", "--results", "."])),
        Golden::new("tables.md", || {
            let folder = measured();
            cli::results::conclude(folder.path()).unwrap();
            std::fs::read_to_string(folder.path().join("tables.md")).unwrap()
        }),
        // What `cargo bench` prints at its end.
        Golden::new("tables-terminal", || {
            let folder = measured();
            let model = cli::results::fit(folder.path()).unwrap();
            report::tables::terminal(
                &Journal::read(folder.path()).unwrap().measurements,
                Some(&model),
                Screen::default(),
            )
        }),
        // On a screen of 80 columns that shows ASCII only.
        Golden::new("tables-narrow-ascii", || {
            let folder = measured();
            let model = cli::results::fit(folder.path()).unwrap();
            let screen = Screen { columns: Some(80), ascii: true };
            report::tables::terminal(&Journal::read(folder.path()).unwrap().measurements, Some(&model), screen)
        }),
        Golden::new("cost_model.json", cost_model),
        Golden::new("export-nccl-tests", || {
            text(Path::new(ROOT), &["export", "--to", "nccl-tests", "--results", PUBLISHED])
        }),
        Golden::new("import-nccl-tests", import),
    ]
}

/// The whole model, to six digits: its fits are long sums, so the last digits differ between processors.
fn cost_model() -> String {
    let folder = measured();
    let mut model: CostModel = cli::results::fit(folder.path()).unwrap();
    // The hour of the fit.
    model.made_from.at = "TIME".into();
    laid_out(&format!("{}\n", files::to_json(&model).unwrap()), 6)
}

/// What export wrote, read back.
fn import() -> String {
    let folder = tempfile::tempdir().unwrap();
    let export = ["export", "--to", "nccl-tests", "--results", PUBLISHED];
    std::fs::write(folder.path().join("ours.log"), run(Path::new(ROOT), &export).stdout).unwrap();
    text(folder.path(), &["import", "--from", "nccl-tests", "ours.log", "--results", "imported", "--machine", "again"])
}

pub fn predictions() -> Vec<Golden> {
    let layer = ["layer", "--hidden", "640", "--heads", "10", "--sequence", "256", "--micro-batch", "2"];
    let far =
        ["layer", "--hidden", "4096", "--heads", "32", "--sequence", "2048", "--micro-batch", "4", "--tensor", "2"];
    let far = [&far[..], &["--recompute", "selective"]].concat();
    let reduce = ["collective", "--operation", "all_reduce", "--ranks", "2", "--bytes", "1MiB"];
    let ranks = ["collective", "--operation", "all_reduce", "--ranks", "8", "--bytes", "1GiB", "--isolated"];
    let message = ["collective", "--operation", "send_recv/one_way", "--ranks", "2", "--bytes", "100KiB"];
    let main = ["corun", "--main", "gpt-h512-a8-s128-b1-t1-f32-forward", "--side"];
    let measured = [&main[..], &["mlp-b32", "--sharing", "free"]].concat();
    let nice = [&main[..], &["pressure-memory", "--sharing", "nice"]].concat();
    let questions: [(&str, &[&str]); 7] = [
        ("layer", &layer),
        ("layer-out-of-range", &far),
        ("collective", &reduce),
        ("collective-more-ranks", &ranks),
        ("collective-message", &message),
        ("corun", &measured),
        ("corun-nice", &nice),
    ];
    let mut goldens = Vec::new();
    for (name, question) in questions {
        let start = ["predict".to_string(), "--cost-model".into(), format!("{PUBLISHED}/cost_model.json")];
        let words: Vec<String> = start.into_iter().chain(question.iter().map(|word| (*word).to_string())).collect();
        let again = words.clone();
        let root = Path::new(ROOT);
        goldens.push(Golden::new(format!("predict-{name}"), move || {
            text(root, &words.iter().map(String::as_str).collect::<Vec<_>>())
        }));
        goldens.push(Golden::new(format!("predict-{name}.json"), move || {
            let words: Vec<&str> = again.iter().map(String::as_str).collect();
            json(root, &[&words[..], &["--json"]].concat())
        }));
    }
    goldens
}

/// What `cargo bench -- --list` shows. A case keeps its name for ever: results of different years are joined on it.
pub fn cases() -> Vec<Golden> {
    let mut goldens = Vec::new();
    for preset in [Preset::Quick, Preset::Standard, Preset::Full] {
        for (device, platform) in [("host", Platform::Host), ("gpu", Platform::Gpu(0))] {
            goldens.push(Golden::new(format!("cases-{device}-{}", preset.name()), move || {
                // Between GPUs there are no cases without ranks, and here are none.
                let cases = |group: Group| group.cases(preset, platform, None, &Choices::default());
                Group::ALL.into_iter().flat_map(cases).map(|case| case.id() + "\n").collect()
            }));
        }
    }
    goldens
}
