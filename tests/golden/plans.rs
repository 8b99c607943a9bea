//! Plans of the examples, and a small pipeline in every schedule.

use crate::hold::{Golden, ROOT, json, narrow, run, stdout, text, typed, unversioned};
use bubblebench::pipeline::ScheduleName;
use std::path::Path;

const EXAMPLES: [&str; 3] = ["gpt-a100-4x8", "gpt-a100-8", "gpt-rtx3090-4"];

/// Larger jobs, of which the JSON would be hundreds of pages.
const LARGE: [&str; 6] = [
    "bloom-176b-a100-48x8",
    "gpt-1.3b-rtx3090-4",
    "gpt-175b-a100-8x8",
    "gpt-175b-finetune-a100-8x8",
    "llama2-70b-h100-4x8",
    "steps-against-segments",
];

pub fn plans() -> Vec<Golden> {
    let files = std::fs::read_dir(Path::new(ROOT).join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let jobs = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).count();
    assert_eq!(jobs, EXAMPLES.len() + LARGE.len(), "a job below examples/ is not held");
    let mut goldens = Vec::new();
    for example in EXAMPLES {
        let job = format!("examples/{example}.toml");
        let again = job.clone();
        goldens.push(Golden::new(format!("plan-{example}"), move || text(Path::new(ROOT), &["plan", &job])));
        goldens.push(Golden::new(format!("plan-{example}.json"), move || {
            json(Path::new(ROOT), &["plan", &again, "--json"])
        }));
    }
    for example in LARGE {
        let job = format!("examples/{example}.toml");
        goldens.push(Golden::new(format!("plan-{example}"), move || text(Path::new(ROOT), &["plan", &job])));
    }
    goldens.push(Golden::new("plan-segments", || {
        text(Path::new(ROOT), &["plan", "examples/steps-against-segments.toml", "--segments"])
    }));
    let sweep = ["plan", "examples/gpt-a100-4x8.toml", "--sweep"];
    goldens
        .push(Golden::new("plan-gpt-a100-8-narrow", || narrow(Path::new(ROOT), &["plan", "examples/gpt-a100-8.toml"])));
    // Its notes tell how far it is, and when they come depends on the machine's speed.
    goldens.push(Golden::new("sweep-gpt-a100-4x8", move || {
        let output = run(Path::new(ROOT), &sweep);
        typed(&sweep) + &stdout(&output, &sweep)
    }));
    goldens.push(Golden::new("sweep-gpt-a100-4x8.json", move || {
        json(Path::new(ROOT), &[&sweep[..], &["--json"]].concat())
    }));
    goldens.push(Golden::new("plan-gpt-rtx3090-4.html", || {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("plan.html");
        let output = run(Path::new(ROOT), &["plan", "examples/gpt-rtx3090-4.toml", "--html", page.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // A line an element: pages come in few and very long ones.
        unversioned(&std::fs::read_to_string(page).unwrap()).replace("><", ">\n<")
    }));
    goldens
}

/// Times of three phases that differ, and a message: a phase in another's place would show.
const TIMES: [&str; 8] =
    ["--forward", "2ms", "--backward-input", "1.9ms", "--backward-weight", "900us", "--send-recv", "50us"];

pub fn schedules() -> Vec<Golden> {
    let mut goldens = Vec::new();
    for name in ScheduleName::ALL {
        let mut arguments = vec!["simulate", "--schedule", name.text(), "--stages", "4", "--micro-batches", "8"];
        arguments.extend(TIMES);
        if name == ScheduleName::Interleaved {
            arguments.extend(["--chunks", "2"]);
        }
        if name.overlaps() {
            arguments.extend(["--overlapped", "4.2ms"]);
        }
        let again = [&arguments[..], &["--json"]].concat();
        goldens.push(Golden::new(format!("simulate-{}", name.text()), move || text(Path::new(ROOT), &arguments)));
        goldens.push(Golden::new(format!("simulate-{}.json", name.text()), move || json(Path::new(ROOT), &again)));
    }
    let small = ["simulate", "--schedule", "zb-h1", "--stages", "2", "--micro-batches", "2"];
    let listed = [&small[..], &TIMES, &["--json", "--operations"]].concat();
    goldens.push(Golden::new("simulate-operations.json", move || json(Path::new(ROOT), &listed)));
    goldens.push(Golden::new("simulate-per-stage", per_stage));
    goldens.push(Golden::new("simulate-trace.json", perfetto));
    goldens
}

/// Stages of unequal times, from a file.
fn per_stage() -> String {
    let folder = tempfile::tempdir().unwrap();
    let stage =
        |f: u64| format!(r#"{{"forward_ns":{f},"backward_input_ns":{},"backward_weight_ns":{}}}"#, f * 9 / 10, f / 2);
    let stages = [2_000_000, 2_500_000, 2_000_000, 3_100_000].map(stage).join(",");
    std::fs::write(folder.path().join("stages.json"), format!("[{stages}]")).unwrap();
    let shape = ["simulate", "--schedule", "zb-h1", "--stages", "4", "--micro-batches", "8"];
    text(folder.path(), &[&shape[..], &["--send-recv", "50us", "--per-stage", "stages.json"]].concat())
}

/// The trace for Perfetto.
fn perfetto() -> String {
    let folder = tempfile::tempdir().unwrap();
    let shape = ["simulate", "--schedule", "1f1b", "--stages", "2", "--micro-batches", "3"];
    let arguments = [&shape[..], &TIMES, &["--trace", "trace.json"]].concat();
    let output = run(folder.path(), &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    typed(&arguments) + &std::fs::read_to_string(folder.path().join("trace.json")).unwrap()
}
