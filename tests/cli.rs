//! The program as a user runs it: right input, wrong input, and bad luck in the middle of a run.

use assert_cmd::Command;
use clap::CommandFactory;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn program() -> Command {
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    for name in ["BUBBLEBENCH_PRESET", "BUBBLEBENCH_DEVICE", "BUBBLEBENCH_RESULTS"] {
        command.env_remove(name);
    }
    command.timeout(Duration::from_secs(120));
    command
}

/// Exit code 2, one line on stderr that names `place`, nothing of a panic.
fn refused(arguments: &[&str], folder: &Path, place: &str) {
    let output = program().args(arguments).current_dir(folder).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(stderr.contains(place) && !stderr.contains("panicked"), "{arguments:?} does not name {place}: {stderr}");
    // Ours are one line; clap's own answers bring the usage with them.
    let most = if stderr.starts_with("bubblebench: ") { 1 } else { 8 };
    assert!(stderr.lines().count() <= most, "{arguments:?}: {stderr}");
}

const ALL_REDUCE: [&str; 6] = ["measure", "collectives", "all_reduce/r2", "--preset", "quick", "--device"];

/// `measure collectives all_reduce/r2 --preset quick --device host --results DIR`
fn all_reduce(results: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = ALL_REDUCE.iter().map(|a| (*a).to_string()).collect();
    arguments.extend(["host".into(), "--results".into(), results.display().to_string()]);
    arguments
}

fn lines(results: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(results.join("measurements.jsonl")).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn wrong_input_is_answered_with_its_place_and_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir(here.join("ro")).unwrap();
    fs::write(here.join("ro/file"), "x").unwrap();
    fs::write(here.join("later.json"), r#"{"schema":"bubblebench.cost_model/99"}"#).unwrap();
    refused(&["measure", "nonsense"], here, "nonsense");
    refused(&["measure", "all", "no-such-case", "--device", "host", "--results", "x"], here, "no-such-case");
    refused(&["measure", "--preset", "hasty", "--results", "x"], here, "hasty");
    refused(&["measure", "--device", "tpu", "--results", "x"], here, "tpu");
    refused(&["measure", "--device", "cuda:99", "--results", "x"], here, "99");
    refused(&["measure", "--device", "host", "--machine", "My Machine"], here, "My Machine");
    refused(&["measure", "gpt-layer", "--device", "host", "--results", "ro/file/x"], here, "ro/file");
    refused(&["fit", "--results", "nowhere"], here, "nowhere");
    refused(&["fit", "--results", "ro/file"], here, "ro/file");
    refused(&["schema", "nonsense"], here, "nonsense");
    refused(&["predict", "--cost-model", "later.json", "layer"], here, "99");
    refused(&["predict", "--cost-model", "nowhere.json", "layer"], here, "nowhere.json");
    refused(&["plan", "nowhere.toml"], here, "nowhere.toml");
    let simulate = |schedule, forward: &str, place| {
        let times = ["--forward", forward, "--backward-input", "1ms", "--backward-weight", "1ms"];
        let shape = ["simulate", "--schedule", schedule, "--stages", "4", "--micro-batches", "7", "--chunks", "2"];
        refused(&[&shape[..], &times[..]].concat(), here, place);
    };
    simulate("1f1c", "1ms", "1f1b");
    simulate("interleaved", "1ms", "7");
    simulate("gpipe", "-1ms", "--forward");
    simulate("gpipe", "12", "12");
    let even = ["--forward", "1ms", "--backward-input", "1ms", "--backward-weight", "1ms"];
    let sized = |schedule, p, m, more: &[&str], place| {
        let shape = ["simulate", "--schedule", schedule, "--stages", p, "--micro-batches", m];
        refused(&[&shape[..], &even[..], more].concat(), here, place);
    };
    sized("dualpipe", "4", "6", &[], "at least 8");
    sized("dualpipe", "3", "8", &[], "even number of stages");
    sized("chimera", "4", "6", &[], "cannot be divided");
    sized("1f1b", "4", "8", &["--overlapped", "2ms"], "--overlapped");
    sized("dualpipe", "4", "8", &["--overlapped", "1ms"], "--overlapped");
    sized("1f1b", "4", "8", &["--memory-limit", "3"], "memory limit is 3");
    sized("zb-1p", "4", "8", &["--memory-limit", "0.5"], "at least 1");
    sized("zb-v", "4", "8", &["--memory-limit", "0.5"], "at least 1");
    sized("gpipe", "1000000", "1000000", &[], "operations");
    assert!(!here.join("x").exists(), "a refused run leaves no folder");
}

/// The list that docs/pipeline.md shows, with the command and the answer that stand below it.
#[test]
fn the_list_of_operations_in_the_documentation_runs() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pipeline.md")).unwrap();
    let section = page.split_once("\n### Operations in and out\n").unwrap().1;
    let block = |kind: &str| section.split_once(&format!("```{kind}\n")).unwrap().1.split_once("```").unwrap().0;
    let (command, answer) = block("console").split_once('\n').unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("order.json"), block("json")).unwrap();
    let words = command.strip_prefix("$ bubblebench ").unwrap().split(' ');
    let output =
        program().args(words).env("COLUMNS", "80").env("LC_ALL", "C.UTF-8").current_dir(folder.path()).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let shown = answer.lines().take_while(|line| *line != "[…]").collect::<Vec<_>>().join("\n");
    assert!(shown.lines().count() > 4 && text.starts_with(&shown), "{text}\n{shown}");
}

/// A list of millions of operations is written as it is made: a reader that has enough ends it, a full disk is told.
#[test]
#[cfg(target_os = "linux")]
fn a_long_list_of_operations_may_be_cut_short() {
    let times = "--forward 1ms --backward-input 1ms --backward-weight 1ms";
    let words = format!("simulate --schedule 1f1b --stages 16 --micro-batches 4096 {times} --json --operations");
    let run = |out: Stdio| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("bubblebench"));
        command.args(words.split(' ')).stdout(out).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut cut = run(Stdio::piped());
    let mut start = [0; 64];
    std::io::Read::read_exact(cut.stdout.as_mut().unwrap(), &mut start).unwrap();
    assert!(start.starts_with(br#"{"schema":"bubblebench.timeline/1""#));
    drop(cut.stdout.take());
    let output = cut.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let full = fs::File::create("/dev/full").unwrap();
    let output = run(full.into()).wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("cannot write to stdout"), "{stderr}");
}

/// Two kernels with a gap of 100 µs between them, in one iteration.
const TRACE: &str = r#"{"traceEvents":[
    {"ph":"X","cat":"kernel","name":"a","pid":0,"tid":7,"ts":10,"dur":40.5,"args":{"stream":7,"correlation":1}},
    {"ph":"X","cat":"kernel","name":"b","pid":0,"tid":7,"ts":150.5,"dur":50,"args":{"stream":7,"correlation":2}},
    {"ph":"X","cat":"user_annotation","name":"ProfilerStep#1","pid":1,"tid":1,"ts":0,"dur":200.5}]}"#;

#[test]
fn bubbles_answers_right_profiles_and_refuses_wrong_ones() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("right.json"), TRACE).unwrap();
    let run = |arguments: &[&str]| program().arg("bubbles").args(arguments).current_dir(here).output().unwrap();
    let json = run(&["right.json", "--json"]);
    let record: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let bubbles = record["devices"][0]["bubbles"].as_array().unwrap();
    assert_eq!((record["schema"].as_str(), bubbles.len()), (Some("bubblebench.bubbles/1"), 2));
    assert_eq!((bubbles[1]["start_ns"].as_u64(), bubbles[1]["end_ns"].as_u64()), (Some(50_500), Some(150_500)));
    assert_eq!((bubbles[1]["next_kernel"].as_str(), bubbles[0]["previous_kernel"].as_str()), (Some("b"), None));
    fs::write(here.join("bubbles.json"), &json.stdout).unwrap();
    assert!(bubblebench::records::BubblesRecord::read(&here.join("bubbles.json")).is_ok(), "`plan` reads it back");
    let text = String::from_utf8(run(&["right.json", "--min-gap", "50us", "--iteration", "0"]).stdout).unwrap();
    assert!(text.contains("Where in the schedule") && text.contains("1 × 100.0 µs"), "{text}");

    fs::write(here.join("empty.json"), "").unwrap();
    fs::write(here.join("nogpu.json"), r#"{"traceEvents":[]}"#).unwrap();
    fs::write(here.join("cut.json"), &TRACE[..200]).unwrap();
    fs::write(here.join("short.sqlite"), "SQLite format 3\0garbage").unwrap();
    for name in ["empty.json", "nogpu.json", "cut.json", "short.sqlite", "nowhere.sqlite", "."] {
        refused(&["bubbles", name], here, name);
        refused(&["bubbles", "right.json", name, "--json"], here, name);
    }
    refused(&["bubbles"], here, "PROFILE");
    refused(&["bubbles", "right.json", "--iteration", "1"], here, "--iteration 1");
    refused(&["bubbles", "right.json", "--iteration", "-1"], here, "--iteration `-1`");
    refused(&["bubbles", "right.json", "--min-gap", "12"], here, "--min-gap");
    refused(&["bubbles", "right.json", "--compute-streams", "x"], here, "--compute-streams");
    refused(&["bubbles", "right.json", "--compute-streams", "9"], here, "--compute-streams");
}

#[test]
fn a_folder_of_half_a_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("measurements.jsonl"), r#"{"schema":"bubblebench.mea"#).unwrap();
    refused(&["fit", "--results", "."], folder.path(), "measurements.jsonl:1");
}

#[test]
fn schemas_completions_and_the_manual_are_printed() {
    for kind in
        ["measurement", "machine", "cost_model", "prediction", "question", "timeline", "plan", "sweep", "doctor"]
    {
        let output = program().args(["schema", kind]).output().unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let version = if ["cost_model", "measurement", "plan", "sweep"].contains(&kind) { 2 } else { 1 };
        assert_eq!(schema["title"], format!("bubblebench.{kind}/{version}"), "{kind}");
    }
    let manual = program().arg("man").output().unwrap();
    assert!(String::from_utf8_lossy(&manual.stdout).contains("bubblebench"));
}

/// Values that the code knows by name are offered by the shell: one of each option's list stands for it.
#[test]
fn completions_hold_the_values_of_options() {
    for shell in ["bash", "zsh", "fish"] {
        let output = program().args(["completions", shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let values = [
            "zb-h1",
            "reduce_scatter",
            "cost_model",
            "nccl-tests",
            "standard",
            "bf16",
            "f8e5m2",
            "priority",
            "nvbench",
            "selective",
            "collectives",
        ];
        for value in values {
            assert!(text.contains(value), "{shell} is not told of {value}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let output = program().args(["man", "--all", "pages"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut names: Vec<String> = fs::read_dir(folder.path().join("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("Written to pages: {} pages.\n", names.len()));
    fn pages(command: &clap::Command, above: &str) -> Vec<String> {
        let name = if above.is_empty() { "bubblebench".to_string() } else { format!("{above}-{}", command.get_name()) };
        let below = command.get_subcommands().filter(|c| c.get_name() != "help").flat_map(|c| pages(c, &name));
        std::iter::once(format!("{name}.1")).chain(below).collect()
    }
    let mut wanted = pages(&bubblebench::cli::Cli::command(), "");
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    for page in &names {
        let text = fs::read_to_string(folder.path().join("pages").join(page)).unwrap();
        assert!(!text.contains("help(1)") && !text.contains("EXTRA"), "{page}");
    }
    let refused = program().args(["man", "help"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let page = program().args(["man", "predict", "layer"]).output().unwrap();
    let file = fs::read(folder.path().join("pages/bubblebench-predict-layer.1")).unwrap();
    assert_eq!(page.stdout, file);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains(".TH bubblebench-predict-layer 1") && page.contains("\\-\\-hidden"), "{page}");
}

/// What another tool has no columns for is not left out in silence.
#[test]
fn export_says_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/published/amd-epyc-2c");
    fs::copy(published.join("machine.json"), folder.path().join("machine.json")).unwrap();
    let lines = fs::read_to_string(published.join("measurements.jsonl")).unwrap();
    let line = lines.lines().find(|line| line.contains("\"host/all_reduce/r2/f32/")).unwrap();
    let pipeline = line.replace("all_reduce", "pipeline");
    fs::write(folder.path().join("measurements.jsonl"), format!("{line}\n{pipeline}\n")).unwrap();
    let output = program().args(["export", "--to", "nccl-tests", "--results"]).arg(folder.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "note: left out: 1 case of pipeline that nccl-tests has no columns for\n");
}

/// The names that a run would measure, from the same options.
#[test]
fn measure_lists_its_cases_and_measures_none() {
    let folder = tempfile::tempdir().unwrap();
    let list = |arguments: &[&str]| -> Vec<String> {
        let words = [&["measure"], arguments, &["--device", "host", "--list"]].concat();
        let output = program().args(&words).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
    };
    let all = list(&["all", "--preset", "quick"]);
    let reduces = list(&["collectives", "all_reduce/r2", "--preset", "quick"]);
    assert!(!reduces.is_empty() && reduces.len() < all.len() && reduces.iter().all(|id| all.contains(id)));
    assert!(reduces.iter().all(|id| id.contains("all_reduce/r2")), "{reduces:?}");
    assert!(list(&["all", "--preset", "full"]).len() > all.len());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a list leaves no results");
}

/// Every example plans from published figures, with no GPU near.
#[test]
fn the_examples_plan() {
    let jobs = [
        "gpt-a100-8",
        "gpt-a100-4x8",
        "gpt-rtx3090-4",
        "gpt-1.3b-rtx3090-4",
        "gpt-175b-a100-8x8",
        "gpt-175b-finetune-a100-8x8",
        "llama2-70b-h100-4x8",
        "bloom-176b-a100-48x8",
    ];
    for job in jobs.map(|name| format!("examples/{name}.toml")) {
        let job = job.as_str();
        let output = program().args(["plan", job, "--json"]).output().unwrap();
        assert!(output.status.success(), "{job}: {}", String::from_utf8_lossy(&output.stderr));
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(plan["schema"], "bubblebench.plan/2");
        let ns = |name: &str| plan[name].as_u64().unwrap();
        assert!(ns("iteration_low_ns") < ns("iteration_ns") && ns("iteration_ns") < ns("iteration_high_ns"), "{job}");
        let outcome = |name: &str| plan["outcome"][name].as_f64().unwrap();
        let (gain, bound) = (outcome("gain"), outcome("gain_bound"));
        assert!(1.0 < gain && gain <= bound, "{job}: gain {gain} of at most {bound}");
        the_sweep_knows(job, &plan);
    }
}

/// Every way to divide the GPUs, the plan's own among them with the plan's own figures.
fn the_sweep_knows(job: &str, plan: &serde_json::Value) {
    let output = program().args(["plan", job, "--sweep", "--json"]).output().unwrap();
    assert!(output.status.success(), "{job}: {}", String::from_utf8_lossy(&output.stderr));
    let sweep: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sweep["schema"], "bubblebench.sweep/2");
    let rows = sweep["rows"].as_array().unwrap();
    let own: Vec<_> = rows.iter().filter(|r| r["own"] == true).collect();
    assert_eq!(own.len(), 1, "{job}");
    for key in ["iteration_ns", "bubble_ratio", "micro_batches"] {
        assert_eq!(own[0][key], plan[key], "{job}: {key}");
    }
    let others = rows.iter().filter(|r| r["pipeline"] != own[0]["pipeline"]).count();
    assert!(rows.len() >= 4 && others > 0, "{job}: {} rows", rows.len());
    let table = program().args(["plan", job, "--sweep"]).output().unwrap();
    assert!(String::from_utf8_lossy(&table.stdout).contains("bubble ratio"), "{job}");
}

#[test]
fn collectives_are_measured_recorded_and_tabled() {
    let folder = tempfile::tempdir().unwrap();
    let output = program().args(all_reduce(folder.path())).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("busbw") && stdout.contains("all_reduce"), "{stdout}");
    let records = lines(folder.path());
    assert!(records.len() >= 2 && records.last().unwrap()["kind"] == "end");
    for record in &records[..records.len() - 1] {
        assert_eq!(record["verified"]["wrong"], 0, "{record}");
        assert!(record["median_ns"].as_f64().unwrap() > 0.0 && record["isolated_ns"]["median"].as_f64().unwrap() > 0.0);
    }
    assert!(fs::read_to_string(folder.path().join("tables.md")).unwrap().contains("| all_reduce"));
}

#[cfg(target_os = "linux")]
fn start(results: &Path) -> Child {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("bubblebench"));
    command.args(["measure", "collectives", "--preset", "quick", "--device", "host", "--results"]);
    command.arg(results).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a run has written at least this many lines.
#[cfg(target_os = "linux")]
fn wait_for_lines(results: &Path, count: usize) {
    let start = Instant::now();
    while fs::read_to_string(results.join("measurements.jsonl")).map_or(0, |t| t.lines().count()) < count {
        assert!(start.elapsed() < Duration::from_secs(60), "no {count} lines within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(target_os = "linux")]
fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
#[cfg(target_os = "linux")]
fn kill_9_loses_at_most_the_case_in_flight_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path());
    wait_for_lines(folder.path(), 3);
    signal(&child, "-9");
    child.wait().unwrap();
    let before: Vec<String> = lines(folder.path()).iter().map(|r| r["id"].as_str().unwrap().to_string()).collect();
    assert!(before.len() >= 3);
    let output = start(folder.path()).wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("cases already"), "{stderr}");
    let after: Vec<String> = lines(folder.path()).iter().map(|r| r["id"].as_str().unwrap().to_string()).collect();
    assert!(before.iter().all(|id| after.contains(id)), "{before:?} {after:?}");
    let hidden: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!hidden.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{hidden:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_ends_with_a_sentence_and_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(folder.path());
    wait_for_lines(folder.path(), 2);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("interrupted; what was measured is kept"), "{stderr}");
    assert!(lines(folder.path()).len() >= 2);
}

/// A limit on file size stands in for a full disk: the write fails in the middle of a line.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named_and_what_was_measured_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f 4; exec '{}' {}",
        assert_cmd::cargo::cargo_bin("bubblebench").display(),
        all_reduce(folder.path()).join(" ")
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot append to") && stderr.contains("measurements.jsonl"), "{stderr}");
    let text = fs::read_to_string(folder.path().join("measurements.jsonl")).unwrap();
    assert!(!text.is_empty() && text.ends_with('\n'), "whole lines only");
    let records = lines(folder.path());
    assert_eq!(records.len(), text.lines().count());
    // With room again the same command measures the rest.
    program().args(all_reduce(folder.path())).assert().success();
}

#[test]
#[cfg(target_os = "linux")]
fn two_runs_at_once_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path());
    wait_for_lines(folder.path(), 1);
    let second = program().args(all_reduce(folder.path())).output().unwrap();
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2));
    assert!(stderr.contains("another run is writing"), "{stderr}");
    signal(&first, "-9");
    first.wait().unwrap();
}
