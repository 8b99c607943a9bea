//! Other people's measurements, from their files to a prediction, as a user runs it.

use assert_cmd::Command;
use bubblebench::export::nccl_tests;
use bubblebench::import::folder::{self, Target};
use bubblebench::import::{self, Hints, Imported, Source};
use bubblebench::records::flags::IMPORTED;
use bubblebench::records::machine::RunInfo;
use bubblebench::records::store::{Journal, JournalRun, MACHINE, RunRequest};
use bubblebench::records::{MachineRecord, Measurement, files};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

fn program() -> Command {
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    command.env_remove("BUBBLEBENCH_RESULTS");
    command.timeout(std::time::Duration::from_secs(60));
    command
}

/// What an all-reduce over `ranks` GPUs of one node prints.
fn log(gpu: &str, ranks: u64, rows: &[(u64, f64)]) -> String {
    let mut text = "# nccl-tests version 2.17.6 nccl-headers=22707 nccl-library=22707\n# Collective test starting: all_reduce_perf\n# nThread 1 nGpus 8 minBytes 8 maxBytes 8 step: 2(factor) warmup iters: 5 iters: 50 agg iters: 1 validation: 1 graph: 0\n#\n# Using devices\n".to_string();
    for rank in 0..ranks {
        let _ = writeln!(
            text,
            "#  Rank {rank:>2} Group  0 Pid   4242 on     node01 device {rank:>2} [0000:0{rank}:00] {gpu}"
        );
    }
    text.push_str("#\n#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n");
    for (bytes, us) in rows {
        let algbw = *bytes as f64 / us / 1e3;
        let half = format!("  {us:>7.2}  {algbw:>6.2}  {:>6.2}      0", algbw * 1.75);
        let _ = writeln!(text, "{bytes:>12}  {:>12}     float     sum      -1{half}{half}", bytes / 4);
    }
    text + "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 111.1 \n#\n"
}

fn ramp(latency_us: f64) -> Vec<(u64, f64)> {
    (12..28).step_by(2).map(|p| (1u64 << p, latency_us + 1e-5 * (1u64 << p) as f64)).collect()
}

fn run_info() -> RunInfo {
    RunInfo {
        id: "20261126T000000Z-1".into(),
        commit: None,
        preset: IMPORTED.into(),
        device: "cuda".into(),
        command: vec!["bubblebench".into(), "import".into()],
        started: "2026-11-26T00:00:00Z".into(),
        case_definitions: None,
    }
}

fn read(text: &str) -> Imported {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    import::read(Source::NcclTests, &[file.path()], &Hints::default()).unwrap()
}

fn into(folder: &Path, text: &str) -> bubblebench::Result<folder::Written> {
    let target = Target { results: Some(folder.into()), machine: None };
    folder::write(read(text), Source::NcclTests, &target, run_info())
}

#[test]
fn a_clusters_log_becomes_a_prediction() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("log"), log("NVIDIA H200", 8, &ramp(20.0))).unwrap();
    let run = |arguments: &[&str]| program().args(arguments).current_dir(here.path()).output().unwrap();
    let imported = run(&["import", "--from", "nccl-tests", "log"]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert!(String::from_utf8_lossy(&imported.stdout).contains("all_reduce"));
    let folder = here.path().join("results/nvidia-h200-x8");
    let machine: MachineRecord = files::read_json(&folder.join(MACHINE), "machine").unwrap();
    assert_eq!((machine.name.as_str(), machine.gpus.len()), ("nvidia-h200-x8", 8));
    let model = folder.join("cost_model.json").display().to_string();
    let ask = |ranks: &str, bytes: &str| -> Value {
        let question = [
            "predict",
            "--cost-model",
            &model,
            "collective",
            "--operation",
            "all_reduce",
            "--ranks",
            ranks,
            "--bytes",
            bytes,
            "--json",
        ];
        serde_json::from_slice(&run(&question).stdout).unwrap()
    };
    let between = ask("8", "2MiB");
    let truth = 1e3 * (20.0 + 1e-5 * f64::from(2 << 20));
    assert!(
        (between["median_ns"].as_f64().unwrap() / truth - 1.0).abs() < 0.01 && between["in_range"] == true,
        "{between}"
    );
    let more = ask("16", "2MiB");
    assert!(more["in_range"] == false && more["high_ns"].as_f64() > between["high_ns"].as_f64(), "{more}");
    let text = run(&[
        "predict",
        "--cost-model",
        &model,
        "collective",
        "--operation",
        "all_reduce",
        "--ranks",
        "16",
        "--bytes",
        "2MiB",
    ]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("Extrapolated: 16 ranks were not measured; carried over from 8 ranks"), "{text}");
    // Every line follows the contract: each field is there.
    let lines = fs::read_to_string(folder.join("measurements.jsonl")).unwrap();
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    for field in [
        "samples_total",
        "p99_ns",
        "cache",
        "launch",
        "flop",
        "verified",
        "sm_clock_mhz",
        "power_w",
        "throttled_samples",
        "discarded_samples",
        "flags",
        "at",
        "run",
    ] {
        assert!(line.get(field).is_some(), "{field} is missing: {line}");
    }
}

#[test]
fn a_second_import_replaces_and_another_machine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = into(folder.path(), &log("NVIDIA H200", 2, &ramp(20.0))).unwrap();
    assert_eq!((first.cases, first.kept), (16, 0));
    into(folder.path(), &log("NVIDIA H200", 2, &ramp(30.0))).unwrap();
    into(folder.path(), &log("NVIDIA H200", 8, &ramp(40.0))).unwrap();
    let journal = Journal::read(folder.path()).unwrap();
    assert_eq!(journal.measurements.len(), 32);
    let of = |id: &str| journal.measurements.iter().find(|m| m.id == id).unwrap().median_ns;
    assert_eq!(of("nccl/all_reduce/r2/f32/4KiB"), Some(1e3 * 30.04));
    let machine: MachineRecord = files::read_json(&folder.path().join(MACHINE), "machine").unwrap();
    assert_eq!(machine.gpus.len(), 8, "the largest output tells how many GPUs there are");
    let error = into(folder.path(), &log("NVIDIA A100-SXM4-80GB", 8, &ramp(20.0))).unwrap_err().to_string();
    assert!(error.contains("8x NVIDIA H200") && error.contains("8x NVIDIA A100-SXM4-80GB"), "{error}");
    assert_eq!(Journal::read(folder.path()).unwrap().measurements.len(), 32, "and left as it was");
}

#[test]
fn cases_that_were_measured_here_stay() {
    let folder = tempfile::tempdir().unwrap();
    into(folder.path(), &log("NVIDIA H200", 8, &ramp(20.0))).unwrap();
    // As if this program had measured one of them itself.
    let path = folder.path().join("measurements.jsonl");
    let mut lines: Vec<Value> =
        fs::read_to_string(&path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    lines[0]["flags"] = json!([]);
    lines[0]["median_ns"] = json!(7.0);
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    fs::write(&path, text).unwrap();
    let again = into(folder.path(), &log("NVIDIA H200", 8, &ramp(50.0))).unwrap();
    assert_eq!((again.cases, again.kept), (15, 1));
    let journal = Journal::read(folder.path()).unwrap();
    assert_eq!(journal.measurements[0].median_ns, Some(7.0));
    assert_eq!(journal.measurements[1].median_ns, Some(1e3 * 50.04));
}

/// A run that goes on measures a case although an import has brought a time for it.
#[test]
fn an_imported_time_is_no_measurement_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    into(folder.path(), &log("NVIDIA H200", 8, &ramp(20.0))).unwrap();
    let machine: MachineRecord = files::read_json(&folder.path().join(MACHINE), "machine").unwrap();
    let request = RunRequest { folder: folder.path().into(), machine, fresh: false, selection: None };
    let run = JournalRun::open(request).unwrap();
    assert_eq!((run.resumed_cases(), run.is_done("nccl/all_reduce/r8/f32/4KiB")), (0, false));
}

#[test]
fn wrong_input_is_answered_in_one_line() {
    let here = tempfile::tempdir().unwrap();
    let good = log("NVIDIA H200", 8, &ramp(20.0));
    for (name, content) in [
        ("good.log", good.clone()),
        ("a100.log", good.replace("NVIDIA H200", "NVIDIA A100")),
        ("empty", String::new()),
        ("rowless", good.lines().filter(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect()),
        ("mixed", good.clone() + &good.replace("NVIDIA H200", "NVIDIA A100")),
        ("cut.json", "{\"config\":{".into()),
        ("nvbench.json", json!({"devices": [], "benchmarks": []}).to_string()),
        ("file", "x".into()),
    ] {
        fs::write(here.path().join(name), content).unwrap();
    }
    let run = |arguments: &[&str]| program().args(arguments).current_dir(here.path()).output().unwrap();
    assert!(run(&["import", "--from", "nccl-tests", "good.log", "--results", "r"]).status.success());
    for (arguments, says) in [
        (vec!["--from", "nonsense", "good.log"], "--from nonsense"),
        (vec!["--from", "nccl-tests", "nowhere"], "nowhere"),
        (vec!["--from", "nccl-tests", "empty"], "empty holds no row"),
        (vec!["--from", "nccl-tests", "rowless"], "rowless holds no row"),
        (vec!["--from", "nccl-tests", "mixed"], "different machines"),
        (vec!["--from", "nccl-tests", "cut.json"], "cut.json is cut off"),
        (vec!["--from", "nccl-tests", "nvbench.json"], "--from nvbench"),
        (vec!["--from", "nvbench", "good.log"], "good.log is not JSON"),
        (vec!["--from", "nvbench", "nvbench.json"], "no state with a time"),
        (vec!["--from", "nccl-tests", "a100.log", "--results", "r"], "holds results of nvidia-h200-x8"),
        (vec!["--from", "nccl-tests", "good.log", "--results", "file"], "file is a file"),
        (vec!["--from", "nccl-tests", "good.log", "--machine", "My Machine"], "My Machine"),
        (vec!["--from", "nccl-tests", "."], "cannot read ."),
    ] {
        let output = run(&[&["import"], arguments.as_slice()].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says) && stderr.lines().count() == 1, "{arguments:?} does not say {says}: {stderr}");
    }
    for arguments in [vec!["export", "--to", "nonsense"], vec!["export", "--to", "nccl-tests", "--results", "nowhere"]]
    {
        let output = run(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && stderr.contains(arguments[arguments.len() - 1]), "{stderr}");
    }
}

/// What is printed in nccl-tests' columns is read back to the same cases and times, as far as the columns' digits go.
#[test]
fn our_own_columns_are_read_back() {
    let rows = [(8, 0.78), (1024, 13.37), (1 << 20, 244.0), (1 << 28, 16_240.1), (1 << 33, 640_740.0)];
    let folder = tempfile::tempdir().unwrap();
    into(folder.path(), &log("NVIDIA H200", 8, &rows)).unwrap();
    let here = tempfile::tempdir().unwrap();
    let results = folder.path().display().to_string();
    let output = program()
        .args(["export", "--to", "nccl-tests", "--results", &results])
        .current_dir(here.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let size: Vec<&str> =
        text.lines().filter(|l| l.trim_start().starts_with("1048576 ")).flat_map(str::split_whitespace).collect();
    assert_eq!(
        size,
        ["1048576", "262144", "float", "sum", "-1", "244.00", "4.30", "7.52", "0", "244.00", "4.30", "7.52", "0"]
    );
    assert!(text.contains("# Avg bus bandwidth    : ") && text.contains("# Out of bounds values : 0 OK"), "{text}");
    let back = read(&text);
    let times = |records: &[Measurement]| -> Vec<(String, f64)> {
        records.iter().map(|m| (m.id.clone(), m.median_ns.unwrap())).collect()
    };
    assert_eq!(times(&back.records), times(&Journal::read(folder.path()).unwrap().measurements));
    assert_eq!(back.origin.versions["nccl"].as_deref(), Some("2.27.7"));
}

/// Host rows, rows of one half, and send/recv's patterns come back under their own names. A pipeline's exchange is nothing
/// that nccl-tests has: it is left out.
#[test]
fn host_runs_come_back_as_host_runs() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/published/amd-epyc-2c");
    let machine: MachineRecord = files::read_json(&results.join(MACHINE), "machine").unwrap();
    let journal = Journal::read(&results).unwrap();
    let back = read(&nccl_tests::blocks(&machine, &journal.measurements));
    assert_eq!((back.origin.gpus.len(), back.origin.cpu.as_deref()), (0, Some("AMD EPYC")));
    let known = |m: &&Measurement| m.algbw_gb_per_s.is_some() && m.param_str("operation") != Some("pipeline");
    let collectives: Vec<&Measurement> = journal.measurements.iter().filter(known).collect();
    assert_eq!(back.records.len(), collectives.len());
    for measured in collectives {
        let record =
            back.records.iter().find(|r| r.id == measured.id).unwrap_or_else(|| panic!("{} is gone", measured.id));
        let (ns, truth) = (record.median_ns.unwrap(), measured.median_ns.unwrap());
        assert!((ns - truth).abs() <= 5.001f64.max(5e-5 * truth), "{}: {ns} is not {truth}", measured.id);
        assert_eq!(record.backend, measured.backend);
    }
}

/// Several outputs of one machine are one import; of two machines they are none.
#[test]
fn several_files_are_taken_as_one() {
    let here = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(here.path().join(name), text).unwrap();
    write("two", &log("NVIDIA H200", 2, &ramp(20.0)));
    write("eight", &log("NVIDIA H200", 8, &ramp(30.0)));
    write("again", &log("NVIDIA H200", 2, &ramp(40.0)));
    write("other", &log("NVIDIA A100", 2, &ramp(20.0)));
    let run = |arguments: &[&str]| program().args(arguments).current_dir(here.path()).output().unwrap();
    let output = run(&["import", "--from", "nccl-tests", "two", "eight", "again", "--results", "r"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let journal = Journal::read(&here.path().join("r")).unwrap();
    assert_eq!(journal.measurements.len(), 32);
    let of = |id: &str| journal.measurements.iter().find(|m| m.id == id).unwrap().median_ns;
    assert_eq!(of("nccl/all_reduce/r2/f32/4KiB"), Some(1e3 * 40.04), "the last one counts");
    let output = run(&["import", "--from", "nccl-tests", "two", "other", "--results", "x"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains("two is of NVIDIA H200, other of NVIDIA A100") && !here.path().join("x").exists(),
        "{stderr}"
    );
}

/// A cost model that nobody can make again from the folder is left as it is by every source, by `fit` and by a run.
#[test]
fn a_cost_model_from_elsewhere_is_never_replaced() {
    let here = tempfile::tempdir().unwrap();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/published/rtx3090/cost_model.json");
    let theirs = fs::read(published).unwrap();
    let write = |name: &str, text: &str| fs::write(here.path().join(name), text).unwrap();
    write("log", &log("NVIDIA H200", 8, &ramp(20.0)));
    write("bench.json", &nvbench(json!([state(vec![summary("nv/cold/time/gpu/mean", "0.001")])])).to_string());
    write(
        "layers.csv",
        "hidden,heads,sequence,micro_batch,dtype,causal,forward_ms,backward_ms\n768,12,512,4,f32,true,3,6\n",
    );
    write("operations.csv", "kind,operation,dtype,time_us,bytes\nstreaming,residual,bf16,100,1048576\n");
    let run = |arguments: &[&str]| program().args(arguments).current_dir(here.path()).output().unwrap();
    let untouched = |arguments: &[&str], folder: &str, files: usize| {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        let says = ["cost_model.json was not fitted from the measurements of", "[hardware] cost_model = ["];
        assert!(says.iter().all(|s| stderr.contains(s)) && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
        let folder = here.path().join(folder);
        assert_eq!(fs::read(folder.join("cost_model.json")).unwrap(), theirs, "{arguments:?}");
        let kept =
            fs::read_dir(&folder).unwrap().filter(|e| !e.as_ref().unwrap().file_name().eq_ignore_ascii_case(".lock"));
        assert_eq!(kept.count(), files, "{arguments:?} left something in the folder");
    };
    fs::create_dir(here.path().join("theirs")).unwrap();
    fs::write(here.path().join("theirs/cost_model.json"), &theirs).unwrap();
    let tables = |from, file| ["import", "--from", from, file, "--gpu", "v100", "--results", "theirs"];
    untouched(&["import", "--from", "nccl-tests", "log", "--results", "theirs"], "theirs", 1);
    untouched(&["import", "--from", "nvbench", "bench.json", "--results", "theirs"], "theirs", 1);
    untouched(&tables("layers", "layers.csv"), "theirs", 1);
    untouched(&tables("operations", "operations.csv"), "theirs", 1);
    let measure =
        ["measure", "collectives", "all_reduce/r2", "--device", "host", "--preset", "quick", "--results", "theirs"];
    untouched(&measure, "theirs", 1);
    // In a folder with records of its own too: beside them, and as the file that `fit --out` would write to.
    assert!(run(&["import", "--from", "nccl-tests", "log", "--results", "ours"]).status.success());
    let own = fs::read(here.path().join("ours/cost_model.json")).unwrap();
    assert!(run(&["fit", "--results", "ours"]).status.success(), "its own model is made again");
    assert_eq!(fs::read(here.path().join("ours/cost_model.json")).unwrap(), own);
    untouched(&["fit", "--results", "ours", "--out", "theirs/cost_model.json"], "theirs", 1);
    assert!(run(&["fit", "--results", "ours", "--out", "new.json"]).status.success());
    assert!(run(&["fit", "--results", "ours", "--out", "new.json"]).status.success(), "of the same records");
    fs::write(here.path().join("ours/cost_model.json"), &theirs).unwrap();
    untouched(&["fit", "--results", "ours"], "ours", 4);
    untouched(&["import", "--from", "nccl-tests", "log", "--results", "ours"], "ours", 4);
    untouched(&["import", "--from", "nvbench", "bench.json", "--results", "ours"], "ours", 4);
}

fn nvbench(states: Value) -> Value {
    json!({
        "meta": {"argv": ["bench", "--json", "out.json"], "version": {"nvbench": {"string": "0.1.0"}}},
        "devices": [{"id": 0, "name": "NVIDIA H200", "sm_version": 900, "number_of_sms": 132,
            "global_memory_size": 150_000_000_000u64, "l2_cache_size": 62_914_560, "sm_default_clock_rate": 1_980_000_000u64}],
        "benchmarks": [{"name": "copy", "index": 0, "states": states}]
    })
}

fn summary(tag: &str, value: &str) -> Value {
    json!({"tag": tag, "data": [{"name": "value", "type": "float64", "value": value}]})
}

fn state(summaries: Vec<Value>) -> Value {
    json!({"name": "Device=0 Elements=2^20", "device": 0, "is_skipped": false, "summaries": summaries,
        "axis_values": [{"name": "Elements", "type": "int64", "value": "1048576"}]})
}

#[test]
fn nvbenchs_states_become_operations() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("out.json");
    let means = vec![
        summary("nv/cold/sample_size", "499"),
        summary("nv/cold/time/gpu/mean", "0.001"),
        summary("nv/cold/time/gpu/min", "0.0009"),
        summary("nv/cold/sm_clock_rate/mean", "1755000000"),
        summary("nv/cold/bw/global/bytes_per_second", "2000000000"),
        summary("nv/batch/sample_size", "524"),
        summary("nv/batch/time/gpu/mean", "0.0008"),
    ];
    let skipped = json!({"name": "Device=0 Elements=2^40", "device": 0, "is_skipped": true, "skip_reason": "too large", "summaries": []});
    fs::write(&path, nvbench(json!([state(means.clone()), skipped])).to_string()).unwrap();
    let imported = import::read(Source::Nvbench, &[&path], &Hints::default()).unwrap();
    assert_eq!(imported.notes.len(), 1);
    let ids: Vec<&str> = imported.records.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["nvbench/copy/Elements=2^20/cold", "nvbench/copy/Elements=2^20/batch"]);
    let cold = &imported.records[0];
    assert_eq!((cold.median_ns, cold.min_ns, cold.samples_total), (Some(1e6), Some(9e5), 499));
    assert_eq!((cold.sm_clock_mhz, cold.bytes), (Some(1755.0), Some(2e6)));
    assert_eq!((cold.param_u64("axis/Elements"), cold.param_str("statistic")), (Some(1_048_576), Some("mean")));
    let gpu = &imported.origin.gpus[0];
    assert_eq!((gpu.compute_capability.as_str(), gpu.sms, gpu.sm_clock_max_mhz), ("9.0", 132, Some(1980)));

    // Newer versions print a median; with --jsonbin the samples lie beside the file.
    let mut newer = means;
    newer.push(summary("nv/cold/time/gpu/median", "0.00095"));
    let mut file = summary("nv/json/bin:nv/cold/sample_times", "");
    file["data"] = json!([{"name": "filename", "type": "string", "value": "/elsewhere/out.json-bin/0.bin"}]);
    fs::write(&path, nvbench(json!([state(newer.clone())])).to_string()).unwrap();
    assert_eq!(import::read(Source::Nvbench, &[&path], &Hints::default()).unwrap().records[0].median_ns, Some(9.5e5));
    newer.push(file);
    fs::create_dir(here.path().join("out.json-bin")).unwrap();
    let samples: Vec<u8> = [0.0009f32, 0.001, 0.0012].iter().flat_map(|s| s.to_le_bytes()).collect();
    fs::write(here.path().join("out.json-bin/0.bin"), samples).unwrap();
    fs::write(&path, nvbench(json!([state(newer)])).to_string()).unwrap();
    let sampled = &import::read(Source::Nvbench, &[&path], &Hints::default()).unwrap().records[0];
    assert!((sampled.median_ns.unwrap() / 1e6 - 1.0).abs() < 1e-6 && sampled.samples_ns.len() == 3, "{sampled:?}");
    assert!(sampled.ci95_low_ns < sampled.median_ns);
}

#[test]
fn nvbench_of_two_kinds_of_gpu_is_no_machine() {
    let mut value = nvbench(json!([]));
    let time = || vec![summary("nv/cold/time/gpu/mean", "0.001")];
    let mut other = state(time());
    other["device"] = json!(1);
    value["devices"].as_array_mut().unwrap().push(json!({"id": 1, "name": "NVIDIA A100"}));
    value["benchmarks"][0]["states"] = json!([state(time()), other]);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), value.to_string()).unwrap();
    let error = import::read(Source::Nvbench, &[file.path()], &Hints::default()).unwrap_err().to_string();
    assert!(error.contains("NVIDIA A100, NVIDIA H200"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a file holds: an answer or one line, never a panic.
    #[test]
    fn no_file_brings_the_readers_down(bytes in prop::collection::vec(any::<u8>(), 0..600), start in 0..4usize) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let starts = ["", "{\"benchmarks\":[{\"states\":[{\"summaries\":", "hidden,heads\n", "{\"hidden\":"];
        fs::write(file.path(), [starts[start].as_bytes(), &bytes].concat()).unwrap();
        for source in Source::ALL {
            if let Err(error) = import::read(source, &[file.path()], &Hints::default()) {
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
