//! `bubblebench export` as a user runs it: every format from the published models, of the form that its tool reads, and every
//! refusal in one line. What the numbers mean is tested beside each format; what the tools answer, in `.ci/exports`.

use assert_cmd::Command;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// The formats that are made from a cost model alone.
const OF_MODELS: [&str; 6] = ["galvatron", "simumax", "calculon", "zero-bubble", "gavel", "csv"];
/// The formats that are made from records.
const OF_RECORDS: [&str; 4] = ["nccl-tests", "nccl-tuner", "criterion", "nvbench"];

fn published() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results/published")
}

fn model(name: &str) -> String {
    published().join(name).join("cost_model.json").to_str().unwrap().to_string()
}

fn export(words: &[&str]) -> Output {
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    command.env_remove("BUBBLEBENCH_RESULTS").timeout(std::time::Duration::from_secs(60));
    command.arg("export").args(words).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a format writes to stdout, as JSON; and its notes.
fn written(words: &[&str]) -> (Value, String) {
    let output = export(words);
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    (serde_json::from_slice(&output.stdout).unwrap(), stderr(&output))
}

/// One line that holds the words, and exit code 2.
fn refused(words: &[&str], says: &[&str]) {
    let output = export(words);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{words:?}: {text}");
    assert!(output.stdout.is_empty(), "{words:?}");
    let errors: Vec<&str> = text.lines().filter(|line| !line.starts_with("note: ")).collect();
    assert_eq!(errors.len(), 1, "{words:?}: {text}");
    assert!(says.iter().all(|word| errors[0].contains(word)), "{words:?}: {text}");
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Every published model in every format: a file, or one line that says what is missing; never a panic.
#[test]
fn every_published_model_is_exported_or_refused_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let mut made = BTreeSet::new();
    for name in fs::read_dir(published()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        for format in OF_MODELS.into_iter().chain(OF_RECORDS) {
            let out = place.path().join(format!("{format}-{name}"));
            let mut words = vec!["--to", format, "--out", out.to_str().unwrap()];
            let (model, folder) = (model(&name), published().join(&name));
            if OF_MODELS.contains(&format) {
                words.extend(["--cost-model", &model]);
            } else {
                words.extend(["--results", folder.to_str().unwrap()]);
            }
            let output = export(&words);
            let text = stderr(&output);
            assert!(text.lines().all(|line| line.starts_with("note: ") || line.starts_with("bubblebench: ")), "{text}");
            if output.status.success() {
                assert!(out.exists() && text.contains("written to"), "{words:?}: {text}");
                made.insert(format!("{format} {name}"));
            } else {
                assert_eq!(output.status.code(), Some(2), "{words:?}: {text}");
                assert!(!out.exists() && text.lines().last().unwrap().contains("; "), "{words:?}: {text}");
            }
        }
    }
    let models = |format: &str| {
        let names = made.iter().filter_map(|made| made.strip_prefix(&format!("{format} ")));
        names.map(String::from).collect::<Vec<_>>()
    };
    let six = ["a100-80gb", "a100-pcie", "b200", "h100-sxm", "h200", "l40s"];
    assert_eq!(models("simumax"), six);
    assert_eq!(models("calculon").len(), 9, "{made:?}");
    assert!(six.iter().all(|name| models("galvatron").contains(&name.to_string())), "{made:?}");
    assert!(six.iter().all(|name| models("zero-bubble").contains(&name.to_string())), "{made:?}");
    assert!(!models("galvatron").contains(&"v100".to_string()), "no attention was measured there");
    assert_eq!(models("csv").len(), 9, "{made:?}");
    for format in ["gavel", "criterion", "nvbench", "nccl-tests"] {
        assert_eq!(models(format), ["amd-epyc-2c"], "{format}");
    }
    assert!(models("nccl-tuner").is_empty());
}

/// Four stages of eight of the layers that Zero Bubble's paper measured, from the model alone.
#[test]
fn zero_bubble_takes_the_models_first_layer() {
    let (value, notes) = written(&["--to", "zero-bubble", "--cost-model", &model("a100-80gb")]);
    assert_eq!(
        keys(&value),
        [
            "n_stages",
            "n_micro",
            "max_chunks",
            "cost_f",
            "cost_b",
            "cost_w",
            "cost_comm",
            "mem_f",
            "mem_b",
            "mem_w",
            "max_mem",
            "print_scaling"
        ]
    );
    assert_eq!((&value["n_stages"], &value["n_micro"]), (&json!(4), &json!(12)));
    // That paper's stages of 3 layers take 18.522 ms forward: 8 layers 49,392 µs.
    let forward = value["cost_f"][1].as_f64().unwrap();
    assert!((forward - 8.0 * 18_522.0 / 3.0).abs() < 0.001, "{forward}");
    for stage in 0..4 {
        let sum: f64 = ["mem_f", "mem_b", "mem_w"].iter().map(|key| value[key][stage].as_f64().unwrap()).sum();
        assert_eq!(sum, 0.0);
    }
    assert!(notes.contains("h2304-a24-s1024-b6") && notes.contains("--job JOB.toml gives others"), "{notes}");
}

/// A job's own stages, from the cost model that it names.
#[test]
fn a_job_brings_its_own_cost_model_and_its_own_stages() {
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gpt-a100-8.toml");
    let (value, notes) = written(&["--to", "zero-bubble", "--job", job.to_str().unwrap()]);
    assert_eq!((&value["n_stages"], &value["n_micro"]), (&json!(8), &json!(24)));
    assert!(!notes.contains("first layer"), "{notes}");
    let (trace, _) = written(&["--to", "perfetto", "--job", job.to_str().unwrap()]);
    let events = trace["traceEvents"].as_array().unwrap();
    assert!(events.iter().filter(|e| e["ph"] == "X").count() > 8 * 24 * 2);
}

/// `export --to perfetto` and `plan --trace` are one file.
#[test]
fn perfetto_is_the_trace_of_the_plan() {
    let place = tempfile::tempdir().unwrap();
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gpt-a100-8.toml");
    let [ours, theirs] = ["ours.json", "theirs.json"].map(|name| place.path().join(name));
    let output = export(&["--to", "perfetto", "--job", job.to_str().unwrap(), "--out", ours.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    let planned = command.arg("plan").arg(&job).arg("--trace").arg(&theirs).output().unwrap();
    assert!(planned.status.success());
    assert_eq!(fs::read(ours).unwrap(), fs::read(theirs).unwrap());
}

#[test]
fn galvatron_writes_a_folder_and_spares_other_files() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("galvatron");
    let out = folder.to_str().unwrap();
    let model = model("h100-sxm");
    let words = ["--to", "galvatron", "--cost-model", &model, "--model-name", "llama-7b", "--out", out];
    for _ in 0..2 {
        let output = export(&words);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stderr(&output).contains("GPT-3 6.7B") && stderr(&output).contains("overlap taken as 1"));
    }
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 6);
    assert!(names.contains(&"computation_profiling_bf16_llama-7b.json".to_string()), "{names:?}");
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    refused(&words, &["holds other files: notes.txt", "give a new or an empty folder"]);
    refused(&words[..6], &["six files", "--out DIR"]);
}

/// Steps a second of the records beside the model, both ways, and no holes.
#[test]
fn gavel_has_every_two_jobs_and_the_speeds_of_the_records() {
    let (value, notes) = written(&["--to", "gavel", "--cost-model", &model("amd-epyc-2c")]);
    let table = &value["v100"];
    let jobs = keys(table);
    assert!(jobs.len() == 6 && jobs.contains(&"('convnet-b16', 1)"), "{jobs:?}");
    for job in &jobs {
        let row = &table[job];
        let alone = row["null"].as_f64().unwrap();
        assert_eq!(keys(row).len(), 1 + jobs.len());
        for other in &jobs {
            let together = [0, 1].map(|at| row[other][at].as_f64().unwrap());
            assert!((0.0..=alone).contains(&together[0]), "{job} {other}: {row}");
            assert_eq!(table[other][job], json!([together[1], together[0]]));
        }
    }
    // A main's step is one run of it, as long as one of its records says.
    let main = table["('gpt-h512-a8-s128-b1-t1-f32-forward', 1)"]["null"].as_f64().unwrap();
    let records = fs::read_to_string(published().join("amd-epyc-2c/measurements.jsonl")).unwrap();
    let alone = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|record| {
        let param = |name: &str| &record["params"][name];
        record["kind"] == "corun" && param("main") == "gpt-h512-a8-s128-b1-t1-f32-forward" && param("sharing") == "free"
    });
    let alone: Vec<f64> = alone.map(|record| 1e9 / record["alone_ns"]["median"].as_f64().unwrap()).collect();
    assert!(alone.iter().any(|per_s| (main / per_s - 1.0).abs() < 1e-9), "{main} {alone:?}");
    assert!(!notes.contains("relative") && notes.contains("whose side is no training"), "{notes}");
    let (value, _) =
        written(&["--to", "gavel", "--worker", "k80", "--sharing", "split", "--cost-model", &model("amd-epyc-2c")]);
    assert_eq!(keys(&value), ["k80"]);
}

/// A model without its records, as an older version made it: sides are relative, and it is said.
#[test]
fn a_model_by_itself_gives_relative_speeds() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("cost_model.json");
    let mut earlier: Value = serde_json::from_str(&fs::read_to_string(model("amd-epyc-2c")).unwrap()).unwrap();
    for pair in earlier["interference"]["pairs"].as_array_mut().unwrap() {
        pair.as_object_mut().unwrap().remove("side_alone_per_s");
    }
    fs::write(&path, earlier.to_string()).unwrap();
    let (value, notes) = written(&["--to", "gavel", "--cost-model", path.to_str().unwrap()]);
    assert_eq!(value["v100"]["('convnet-b16', 1)"]["null"], 1.0);
    assert!(notes.contains("convnet-b16") && notes.contains("are relative"), "{notes}");
    let other = published().join("amd-epyc-2c");
    let mut changed: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    changed["made_from"]["measurements_sha256"] = json!("0000");
    fs::write(&path, changed.to_string()).unwrap();
    let words = ["--to", "gavel", "--cost-model", path.to_str().unwrap(), "--results", other.to_str().unwrap()];
    assert!(written(&words).1.contains("was not made from the measurements"));
}

/// The tables of criterion and NVBench from the published records: each case once.
#[test]
fn records_are_exported_for_tools_that_compare_runs() {
    let folder = published().join("amd-epyc-2c");
    let folder = folder.to_str().unwrap();
    let (criterion, _) = written(&["--to", "criterion", "--results", folder]);
    assert_eq!(criterion["name"], "amd-epyc-2c");
    let layer = &criterion["benchmarks"]["gpt/h256-a4-s128-b1-t1-f32/forward"];
    assert_eq!(layer["baseline"], "amd-epyc-2c");
    assert_eq!(layer["criterion_benchmark_v1"]["throughput"], json!({"Elements": 210_370_560}));
    let (named, _) = written(&["--to", "criterion", "--results", folder, "--model-name", "before"]);
    assert_eq!(named["name"], "before");
    let (nvbench, notes) = written(&["--to", "nvbench", "--results", folder]);
    let states = |v: &Value| {
        v["benchmarks"].as_array().unwrap().iter().map(|b| b["states"].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!(states(&nvbench), criterion["benchmarks"].as_object().unwrap().len());
    assert!(notes.contains("SM clock"), "{notes}");
}

#[test]
fn csv_has_a_row_for_each_case_of_the_model() {
    let output = export(&["--to", "csv", "--cost-model", &model("amd-epyc-2c")]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.split("\r\n").filter(|line| !line.is_empty()).collect();
    let of = |part: &str| lines.iter().filter(|line| line.starts_with(&format!("{part},"))).count();
    assert_eq!((of("layer"), of("corun"), of("operation")), (30, 28, 36));
    assert!(of("collective") >= 48 && lines.iter().all(|line| line.matches(',').count() == 25));
}

/// Each refusal: what is missing, and what to do.
#[test]
fn what_a_format_needs_and_lacks_is_said_in_one_line() {
    let (a100, v100, epyc, rtx) = (model("a100-80gb"), model("v100"), model("amd-epyc-2c"), model("rtx3090"));
    let folder = published().join("amd-epyc-2c");
    let folder = folder.to_str().unwrap();
    refused(&["--to", "nccl-tuner", "--cost-model", &a100], &["which algorithm, protocol", "--nccl-choices"]);
    refused(&["--to", "nccl-tuner", "--results", folder], &["the times are the host's", "--device cuda"]);
    refused(&["--to", "criterion", "--cost-model", &a100], &["criterion wants samples", "give --results DIR"]);
    refused(&["--to", "nvbench", "--cost-model", &a100], &["nvbench wants samples", "give --results DIR"]);
    refused(&["--to", "simumax", "--cost-model", &epyc], &["SimuMax's products are of bf16", "f32"]);
    refused(&["--to", "simumax", "--cost-model", &v100], &["SimuMax's products are of bf16", "f16"]);
    refused(&["--to", "gavel", "--cost-model", &a100], &["no two programs ran on one device", "measure corun"]);
    refused(&["--to", "gavel", "--worker", "a100", "--cost-model", &epyc], &["a100", "v100, p100, k80"]);
    refused(&["--to", "gavel", "--sharing", "nicer", "--cost-model", &epyc], &["--sharing nicer", "`nice`"]);
    refused(&["--to", "perfetto", "--cost-model", &rtx], &["the plan of a job", "--job JOB.toml"]);
    refused(&["--to", "csv", "--results", "nowhere"], &["nowhere/cost_model.json", "--cost-model FILE"]);
    refused(&["--to", "csvv"], &["did you mean `csv`"]);
    refused(&["--to", "criterion", "--results", folder, "--results", folder], &["a second folder", "give one"]);
    refused(&["--to", "zero-bubble", "--job", "nowhere.toml"], &["cannot read nowhere.toml"]);
}

/// The long help has a paragraph for each format, in 80 columns: what it is for, what it needs, what is lost.
#[test]
fn help_says_of_each_format_what_it_is_for_and_what_is_lost() {
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    let output = command.args(["export", "--help"]).env("COLUMNS", "80").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let about = text.split("is lost (x):").nth(1).unwrap();
    for format in OF_MODELS.into_iter().chain(OF_RECORDS).chain(["perfetto"]) {
        let at = about.find(&format!("\n{format} ")).unwrap_or_else(|| panic!("{format} is not explained"));
        let paragraph = &about[at + 1..];
        let end = paragraph.match_indices('\n').find(|(at, _)| paragraph[at + 1..].starts_with(|c: char| c != ' '));
        let paragraph = &paragraph[..end.map_or(paragraph.len(), |(at, _)| at)];
        assert!(paragraph.contains("\n             - ") && paragraph.contains("\n             x "), "{paragraph}");
    }
}
