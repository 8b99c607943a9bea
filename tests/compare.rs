//! `bubblebench compare` as a user runs it: planted runs whose truth is known, formats, exit codes, and wrong input.

use assert_cmd::Command;
use bubblebench::records::files;
use bubblebench::records::measurement::{Backend, Kind, Measurement};
use bubblebench::stats::{self, SplitMix};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/published/amd-epyc-2c/machine.json");
const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results/published");

/// What is planted in a results folder: a factor on the time of each row.
struct PlantedRun {
    rows: usize,
    samples: usize,
    seed: u64,
    factor: fn(usize) -> f64,
}

const SAME: PlantedRun = PlantedRun { rows: 90, samples: 40, seed: 1, factor: |_| 1.0 };

fn hidden(row: usize) -> usize {
    128 + 8 * row
}

/// A row with 0.6 % noise of a time that depends on its number alone.
fn measurement(row: usize, planted: &PlantedRun, random: &mut SplitMix) -> Measurement {
    let time = 10f64.powi(3 + (row % 5) as i32) * (1.0 + row as f64 / 77.0) * (planted.factor)(row);
    let normal = |random: &mut SplitMix| (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
    let samples: Vec<f64> = (0..planted.samples).map(|_| time * (0.006 * normal(random)).exp()).collect();
    let (median, low, high) = stats::median_interval(&samples).unwrap();
    let id = format!("gpt/h{}-a4-s128-b1-t1-f32/op/ln1/forward", hidden(row));
    let mut record = Measurement::blank(id, Kind::Operation, Backend::Host);
    record.params.insert("hidden".into(), hidden(row).into());
    record.params.insert("third".into(), (row % 3).into());
    record.device = "AMD EPYC".into();
    record.samples_total = samples.len() as u64;
    record.samples_ns = samples;
    (record.median_ns, record.ci95_low_ns, record.ci95_high_ns) = (Some(median), Some(low), Some(high));
    record
}

fn write_lines(folder: &Path, records: &[Measurement]) {
    let line = |record: &Measurement| format!("{}\n", serde_json::to_string(record).unwrap());
    fs::write(folder.join("measurements.jsonl"), records.iter().map(line).collect::<String>()).unwrap();
}

/// A results folder of this name below `root`.
fn plant(root: &Path, name: &str, planted: &PlantedRun) {
    let folder = root.join(name);
    fs::create_dir(&folder).unwrap();
    fs::copy(MACHINE, folder.join("machine.json")).unwrap();
    let mut random = SplitMix(planted.seed);
    let records: Vec<Measurement> = (0..planted.rows).map(|row| measurement(row, planted, &mut random)).collect();
    write_lines(&folder, &records);
}

/// Folders `a` and `b` alike, and `slower` with every third row 5 % slower.
fn planted() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    plant(root.path(), "a", &SAME);
    plant(root.path(), "b", &PlantedRun { seed: 2, ..SAME });
    plant(root.path(), "slower", &PlantedRun { seed: 3, factor: |row| third(row, 1.05), ..SAME });
    root
}

struct Answered {
    code: i32,
    stdout: String,
    stderr: String,
}

fn compare(folder: &Path, arguments: &[&str]) -> Answered {
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    let output = command
        .arg("compare")
        .args(arguments)
        .current_dir(folder)
        .env_remove("COLUMNS")
        .timeout(Duration::from_secs(120))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Answered { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let answered = compare(folder, &[arguments, &["--format", "json"]].concat());
    assert_eq!(answered.code, 0, "{}", answered.stderr);
    serde_json::from_str(&answered.stdout).unwrap()
}

/// Exit code 2 and one line that holds the words.
fn refused(folder: &Path, arguments: &[&str], words: &[&str]) {
    let answered = compare(folder, arguments);
    assert_eq!((answered.code, answered.stdout.as_str()), (2, ""), "{arguments:?}: {}", answered.stderr);
    assert!(words.iter().all(|word| answered.stderr.contains(word)), "{arguments:?}: {}", answered.stderr);
    assert_eq!(answered.stderr.lines().count(), 1, "{arguments:?}: {}", answered.stderr);
}

fn verdicts(record: &Value) -> Vec<(String, String)> {
    let rows = record["rows"].as_array().unwrap();
    let verdict = |row: &Value| row["ratios"][0]["verdict"].as_str().unwrap_or("none").to_string();
    rows.iter().map(|row| (row["id"].as_str().unwrap().to_string(), verdict(row))).collect()
}

fn is_third(id: &str) -> bool {
    let hidden: usize = id.split("/h").nth(1).unwrap().split('-').next().unwrap().parse().unwrap();
    ((hidden - 128) / 8).is_multiple_of(3)
}

#[test]
fn what_is_planted_is_told() {
    let root = planted();
    let same = verdicts(&json(root.path(), &["a", "b", "--all"]));
    assert_eq!(same.len(), 90);
    assert!(same.iter().all(|(_, verdict)| verdict == "same"), "{same:?}");
    let moved = json(root.path(), &["a", "slower", "--all"]);
    for (id, verdict) in verdicts(&moved) {
        assert_eq!(verdict, if is_third(&id) { "slower" } else { "same" }, "{id}");
    }
    let row = &moved["rows"][0];
    let ratio = row["ratios"][0]["ratio"].as_f64().unwrap();
    let median = |side: usize| row["values"][side]["median_ns"].as_f64().unwrap();
    assert!((ratio - median(1) / median(0)).abs() < 1e-12 && (ratio - 1.05).abs() < 0.01, "{row}");
    // The table's interval is that of the JSON: a ratio's is not even about it.
    let ends = ["ratio", "low", "high"].map(|name| row["ratios"][0][name].as_f64().unwrap());
    let cell = format!("{:.3} [{:.3}, {:.3}]", ends[0], ends[1], ends[2]);
    let table = compare(root.path(), &["a", "slower", "--format", "markdown"]).stdout;
    let line = table.lines().find(|line| line.contains(row["id"].as_str().unwrap())).unwrap();
    assert!(line.contains(&cell), "{cell}: {line}");
    let faster = verdicts(&json(root.path(), &["slower", "a"]));
    assert_eq!(faster.len(), 30);
    assert!(faster.iter().all(|(_, verdict)| verdict == "faster"));
    // The largest difference stands first.
    let effects: Vec<f64> = moved["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["ratios"][0]["ratio"].as_f64().unwrap().ln().abs())
        .collect();
    assert!(effects.is_sorted_by(|a, b| a >= b));
}

#[test]
fn rows_are_summed_up_by_kind_or_by_a_parameter() {
    let root = planted();
    let by_third = json(root.path(), &["a", "slower", "--group-by", "third"]);
    let groups = by_third["summary"].as_array().unwrap();
    let names: Vec<&str> = groups.iter().map(|group| group["group"].as_str().unwrap()).collect();
    assert_eq!(names, ["third 0", "third 1", "third 2", "all"]);
    assert_eq!((&groups[0]["slower"], &groups[1]["same"], &groups[3]["rows"]), (&30.into(), &30.into(), &90.into()));
    assert!((groups[0]["geometric_mean_ratio"].as_f64().unwrap() - 1.05).abs() < 0.003);
    let numbers = json(root.path(), &["a", "slower", "--group-by", "hidden", "--filter", "/h1"]);
    let first: Vec<&str> =
        numbers["summary"].as_array().unwrap().iter().map(|g| g["group"].as_str().unwrap()).collect();
    assert_eq!(first[..2], ["hidden 128", "hidden 136"], "numbers are in the order of numbers");
    refused(root.path(), &["a", "b", "--group-by", "hiden"], &["hiden", "did you mean `hidden`"]);
}

#[test]
fn a_script_learns_from_the_exit_code_what_is_slower() {
    let root = planted();
    let here = root.path();
    assert_eq!(compare(here, &["a", "slower", "--fail-on", "slower"]).code, 1);
    let failed = compare(here, &["a", "slower", "--fail-on", "slower:3%"]);
    assert!(
        failed.code == 1 && failed.stderr.contains("30 rows slower") && !failed.stdout.is_empty(),
        "{}",
        failed.stderr
    );
    assert_eq!(compare(here, &["a", "slower", "--fail-on", "slower:6%"]).code, 0);
    assert_eq!(compare(here, &["a", "b", "--fail-on", "slower"]).code, 0);
    assert_eq!(compare(here, &["slower", "a", "--fail-on", "slower"]).code, 0, "faster is not slower");
    refused(here, &["a", "b", "--fail-on", "faster"], &["faster", "slower:3%"]);
    refused(here, &["a", "b", "--threshold", "3"], &["--threshold", "2%"]);
}

/// A factor between 0.98 and 1.02, another for each row of each run.
fn drift(run: u64, row: usize) -> f64 {
    0.98 + 0.04 * SplitMix(run + row as u64).unit()
}

fn third(row: usize, factor: f64) -> f64 {
    if row.is_multiple_of(3) { factor } else { 1.0 }
}

#[test]
fn repeated_runs_hold_their_drift_against_a_difference() {
    let root = tempfile::tempdir().unwrap();
    // Up to 2 % either way between runs, each row by itself.
    let factors: [fn(usize) -> f64; 6] = [
        |row| drift(0, row),
        |row| drift(1000, row),
        |row| drift(2000, row),
        |row| drift(3000, row) * third(row, 1.15),
        |row| drift(4000, row) * third(row, 1.15),
        |row| drift(5000, row) * third(row, 1.15),
    ];
    for (run, factor) in factors.into_iter().enumerate() {
        plant(root.path(), &format!("r{run}"), &PlantedRun { seed: 10 + run as u64, factor, ..SAME });
    }
    let together = json(root.path(), &["r0,r1,r2", "r3,r4,r5", "--all"]);
    assert_eq!(together["rows"][0]["values"][0]["runs"], 3);
    let told = verdicts(&together);
    let found = told.iter().filter(|(id, verdict)| is_third(id) && verdict == "slower").count();
    let wrong =
        told.iter().filter(|(id, verdict)| !is_third(id) && (verdict == "slower" || verdict == "faster")).count();
    assert!(found >= 27 && wrong == 0, "{found} of 30 found, {wrong} wrong");
    // One run a side says so, and is wrong where runs drift.
    let alone = json(root.path(), &["r0", "r1", "--all"]);
    let notes = alone["notes"].to_string();
    assert!(notes.contains("One run of each side") && !together["notes"].to_string().contains("One run of"), "{notes}");
}

#[test]
fn sides_that_are_unlike_are_refused_or_stand_side_by_side() {
    let root = planted();
    let here = root.path();
    plant(here, "other", &PlantedRun { seed: 9, ..SAME });
    let machine = fs::read_to_string(MACHINE).unwrap();
    let cpu = files::read_json::<Value>(Path::new(MACHINE), "machine").unwrap()["cpu"]["model"].clone();
    fs::write(here.join("other/machine.json"), machine.replace(cpu.as_str().unwrap(), "Other CPU")).unwrap();
    refused(here, &["a", "other"], &["Other CPU", "--across"]);
    refused(here, &["a,other", "b"], &["Other CPU", "no repeated runs"]);
    let across = json(here, &["a", "other", "b", "--across"]);
    assert_eq!(across["rows"].as_array().unwrap().len(), 90, "every row, without --all");
    assert_eq!(across["rows"][0]["ratios"].as_array().unwrap().len(), 2);
    assert!(across["rows"].as_array().unwrap().iter().all(|row| row["ratios"][0]["verdict"].is_null()));
    assert!(across["environment"].as_array().unwrap().iter().any(|row| row["what"] == "cpu" && row["matters"] == true));
    let both = compare(here, &["a", "other", "--across", "--fail-on", "slower"]);
    assert!(both.code == 2 && both.stderr.contains("--fail-on"), "{}", both.stderr);
}

/// Without `machine.json` the lines say what was measured; rows that are wrong make no comparison that `--fail-on` can judge.
#[test]
fn what_the_lines_say_counts_where_no_machine_is_known() {
    let root = planted();
    let here = root.path();
    fs::remove_file(here.join("b/machine.json")).unwrap();
    let alike = compare(here, &["a", "b"]);
    assert!(alike.code == 0 && alike.stdout.contains("no machine.json"), "{}{}", alike.stdout, alike.stderr);
    let text = fs::read_to_string(here.join("b/measurements.jsonl")).unwrap();
    fs::write(here.join("b/measurements.jsonl"), text.replace("\"AMD EPYC\"", "\"Other CPU\"")).unwrap();
    refused(here, &["a", "b"], &["measured on", "Other CPU", "--across"]);
    let wrong = fs::read_to_string(here.join("slower/measurements.jsonl")).unwrap();
    fs::write(here.join("slower/measurements.jsonl"), wrong.replace("\"flags\":[]", "\"flags\":[\"wrong\"]")).unwrap();
    let apart = compare(here, &["a", "slower", "--fail-on", "slower"]);
    assert!(apart.code == 0 && apart.stderr.contains("90 rows set apart"), "{}", apart.stderr);
    assert!(apart.stdout.contains("90 rows set apart"), "{}", apart.stdout);
}

/// stderr that cannot be written to is no fault of the comparison.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_stderr_does_not_change_the_answer() {
    let root = planted();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let program = assert_cmd::cargo::cargo_bin!("bubblebench");
    let status = std::process::Command::new(program)
        .args(["compare", "a", "slower", "--fail-on", "slower"])
        .current_dir(root.path())
        .stdout(std::process::Stdio::null())
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn every_format_holds_the_same_rows() {
    let root = planted();
    let of = |format: &str| {
        let answered = compare(root.path(), &["a", "slower", "--format", format]);
        assert_eq!(answered.code, 0, "{format}: {}", answered.stderr);
        answered.stdout
    };
    let table = of("table");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    for text in [&table, &of("markdown")] {
        assert_eq!(text.matches("/op/ln1/forward").count(), 30, "{text}");
    }
    assert_eq!(of("latex").matches("/forward &").count(), 30);
    assert_eq!(of("latex").matches("\\begin{longtable}").count(), of("latex").matches("\\end{longtable}").count());
    let csv = of("csv");
    assert_eq!(csv.lines().count(), 31);
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns), "no cell here holds a comma: {csv}");
    refused(root.path(), &["a", "b", "--format", "html"], &["html", "markdown"]);
}

#[test]
fn cost_models_and_plans_are_compared_too() {
    let here = Path::new(PUBLISHED);
    refused(here, &["a100-80gb", "h100-sxm"], &["A100", "H100", "--across"]);
    let models = json(here, &["a100-80gb", "h100-sxm", "h200", "--across"]);
    assert_eq!((&models["of"], &models["others"][1]), (&"cost_models".into(), &"h200".into()));
    let all_reduce =
        models["rows"].as_array().unwrap().iter().find(|row| row["id"] == "all_reduce/r8n1/bf16/1GiB").unwrap();
    assert!(all_reduce["ratios"][0]["ratio"].as_f64().unwrap() < 0.6, "{all_reduce}");
    let own = json(here, &["h200/cost_model.json", "h200", "--all"]);
    assert!(own["rows"].as_array().unwrap().iter().all(|row| row["ratios"][0]["ratio"] == 1.0));

    let folder = tempfile::tempdir().unwrap();
    let job = format!("{PUBLISHED}/../../examples/gpt-a100-8.toml");
    for (name, schedule) in [("1f1b", "1f1b"), ("zb", "zb-h1")] {
        let text =
            fs::read_to_string(&job).unwrap().replace("schedule = \"1f1b\"", &format!("schedule = \"{schedule}\""));
        let text = text.replace("\"../results", &format!("\"{PUBLISHED}/../../results"));
        fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
        let mut plan = Command::cargo_bin("bubblebench").unwrap();
        let output =
            plan.args(["plan", &format!("{name}.toml"), "--json"]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(folder.path().join(format!("{name}.json")), output.stdout).unwrap();
    }
    let plans = json(folder.path(), &["1f1b.json", "zb.json", "--all"]);
    let settings = plans["environment"].as_array().unwrap();
    assert!(settings.iter().any(|row| row["what"] == "schedule" && row["values"][1] == "zb-h1"), "{settings:?}");
    let iteration = plans["rows"].as_array().unwrap().iter().find(|row| row["id"] == "iteration").unwrap();
    assert!(iteration["ratios"][0]["ratio"].as_f64().unwrap() < 0.95, "zb-h1 is the shorter one: {iteration}");
    let ratio = plans["figures"].as_array().unwrap().iter().find(|row| row["what"] == "bubble_ratio").unwrap();
    assert!(ratio["values"][0]["value"].as_f64() > ratio["values"][1]["value"].as_f64(), "{ratio}");
    refused(folder.path(), &["1f1b.json", &format!("{PUBLISHED}/h200")], &["1f1b.json", "h200", "one kind"]);
    refused(folder.path(), &["1f1b.json", "zb.json", "--group-by", "hidden"], &["--group-by"]);
}

#[test]
fn wrong_sides_are_named() {
    let root = planted();
    let here = root.path();
    fs::write(here.join("bad.json"), "not json").unwrap();
    fs::write(here.join("later.json"), r#"{"schema":"bubblebench.cost_model/99"}"#).unwrap();
    fs::create_dir(here.join("empty")).unwrap();
    refused(here, &["bad.json", "later.json"], &["bad.json"]);
    refused(here, &["later.json", "later.json"], &["later.json", "/99"]);
    refused(here, &["nowhere", "a"], &["nowhere"]);
    refused(here, &["a"], &["alone"]);
    refused(here, &["a", "empty"], &["empty", "measurements.jsonl"]);
    refused(here, &["a,a", "b"], &["twice"]);
    refused(here, &["a,", "b"], &["joins a path to nothing"]);
    let lines = fs::read_to_string(here.join("a/measurements.jsonl")).unwrap();
    let with = |name: &str, text: &str| {
        fs::create_dir(here.join(name)).unwrap();
        fs::copy(MACHINE, here.join(name).join("machine.json")).unwrap();
        fs::write(here.join(name).join("measurements.jsonl"), text).unwrap();
    };
    with("newer", &lines.replacen("measurement/2", "measurement/3", 1));
    with("nan", &lines.replacen("\"median_ns\":", "\"median_ns\":NaN,\"x\":", 1));
    with("nothing", "");
    refused(here, &["a", "newer"], &["newer/measurements.jsonl:1", "measurement/3"]);
    refused(here, &["a", "nan"], &["nan/measurements.jsonl:1"]);
    refused(here, &["a", "nothing"], &["nothing", "no measurement"]);
}

/// Odd records are named and set aside, and the rest is compared.
#[test]
fn odd_records_do_not_keep_the_others_from_being_compared() {
    let root = planted();
    let here = root.path();
    let read = |folder: &str| -> Vec<Measurement> {
        let text = fs::read_to_string(here.join(folder).join("measurements.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut records = read("b");
    records[0].samples_ns[3] = -1.0;
    records[1].flags.push("software".into());
    records[2].median_ns = None;
    records.push(records[3].clone());
    records[4].device = "another CPU".into();
    write_lines(&here.join("b"), &records);
    let record = json(here, &["a", "b", "--all"]);
    assert_eq!(record["rows"].as_array().unwrap().len(), 90, "a case twice counts once");
    let reason = |row: usize| {
        let id = format!("gpt/h{}-", hidden(row));
        let row =
            record["rows"].as_array().unwrap().iter().find(|r| r["id"].as_str().unwrap().starts_with(&id)).unwrap();
        (row["ratios"][0]["verdict"].clone(), row["ratios"][0]["reason"].as_str().unwrap_or_default().to_string())
    };
    assert!(reason(0).0 == "unsure" && reason(0).1.contains("not positive"), "{:?}", reason(0));
    assert!(reason(1).0.is_null() && reason(1).1.contains("software device"), "{:?}", reason(1));
    assert!(reason(2).0.is_null() && reason(2).1.contains("no time"), "{:?}", reason(2));
    assert_eq!(reason(5).0, "same");
    assert!(record["notes"].to_string().contains("several devices"), "{}", record["notes"]);

    // Lines of the first version of the format are read as they were written.
    let text = fs::read_to_string(here.join("a/measurements.jsonl")).unwrap();
    let first = text.replace("measurement/2", "measurement/1").replace("\"visits\":null,", "");
    fs::write(here.join("a/measurements.jsonl"), first).unwrap();
    assert!(verdicts(&json(here, &["a", "b", "--all"])).iter().filter(|(_, verdict)| verdict == "same").count() > 80);
    // One case, and none in common.
    let one = json(here, &["a", "b", "--all", "--filter", "/h208-"]);
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    refused(here, &["a", "b", "--filter", "no-such-case"], &["no-such-case", "no case"]);
    let mut renamed = read("a");
    renamed.iter_mut().for_each(|record| record.id.push_str("/other"));
    write_lines(&here.join("b"), &renamed);
    let none = compare(here, &["a", "b"]);
    assert!(none.code == 0 && none.stdout.contains("no case in common"), "{}{}", none.stdout, none.stderr);
    refused(here, &["a", "b", "--fail-on", "slower"], &["no case in common"]);
}
