//! A machine's folder over its life: kills, resumption, selections, other machines, two runs at once, damaged lines.

use bubblebench::records::flags;
use bubblebench::records::machine::{Cpu, MachineRecord, RunInfo};
use bubblebench::records::measurement::{Backend, Kind, Measurement, Visit};
use bubblebench::records::store::{Journal, JournalRun, MEASUREMENTS, RunRequest};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

fn machine(run: &str) -> MachineRecord {
    MachineRecord {
        schema: bubblebench::records::machine::SCHEMA.into(),
        name: "test-2c".into(),
        cpu: Cpu { model: "test".into(), cores: 2, last_level_cache_bytes: None, features: vec![], governor: None },
        memory_bytes: None,
        gpus: vec![],
        versions: BTreeMap::new(),
        topology: vec![],
        kernel: "test".into(),
        hostname: None,
        environment: BTreeMap::new(),
        run: RunInfo {
            id: run.into(),
            commit: Some("abc".into()),
            preset: "quick".into(),
            device: "host".into(),
            command: vec![],
            started: "2026-01-01T00:00:00Z".into(),
            case_definitions: None,
        },
    }
}

fn request(folder: &Path, run: &str) -> RunRequest {
    RunRequest { folder: folder.into(), machine: machine(run), fresh: false, selection: None }
}

fn line(id: &str, ns: f64) -> Measurement {
    let mut record = Measurement::blank(id, Kind::Layer, Backend::Host);
    record.median_ns = Some(ns);
    record
}

fn ids(folder: &Path) -> Vec<String> {
    Journal::read(folder).unwrap().measurements.into_iter().map(|m| m.id).collect()
}

fn half_a_line(folder: &Path) {
    let mut file = fs::OpenOptions::new().append(true).open(folder.join(MEASUREMENTS)).unwrap();
    file.write_all(br#"{"schema":"bubblebench.measurement/1","id":"tor"#).unwrap();
}

#[test]
fn a_killed_run_goes_on_and_loses_only_the_case_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = JournalRun::open(request(folder.path(), "run-1")).unwrap();
    run.append(line("a", 1.0)).unwrap();
    run.append(line("b", 2.0)).unwrap();
    drop(run);
    half_a_line(folder.path());
    let torn = Journal::read(folder.path()).unwrap();
    assert!(torn.torn.unwrap().ends_with("measurements.jsonl:3"));
    let mut run = JournalRun::open(request(folder.path(), "run-2")).unwrap();
    assert_eq!(run.id(), "run-1", "the unfinished run goes on under its own name");
    assert!(run.is_done("a") && run.is_done("b") && !run.is_done("tor"));
    run.append(line("c", 3.0)).unwrap();
    run.finish("now".into()).unwrap();
    assert_eq!(ids(folder.path()), ["a", "b", "c"]);
    let text = fs::read_to_string(folder.path().join(MEASUREMENTS)).unwrap();
    assert_eq!(text.lines().count(), 4, "no torn line is left:\n{text}");
    assert!(text.lines().last().unwrap().contains(r#""kind":"end""#));
}

/// Else the same command would meet the same end for ever, whether it asks for everything or for some cases.
#[test]
fn a_case_that_ended_the_run_is_not_tried_again_and_one_that_was_skipped_is() {
    for selection in [None, Some("gpt-layer".to_string())] {
        let folder = tempfile::tempdir().unwrap();
        let ask = |run: &str| RunRequest { selection: selection.clone(), ..request(folder.path(), run) };
        let mut run = JournalRun::open(ask("run-1")).unwrap();
        for (id, more) in [("fault", Some(flags::GPU_FAULT)), ("bug", Some(flags::BUG)), ("skipped", None)] {
            let flags = [flags::SKIPPED].into_iter().chain(more).map(String::from).collect();
            run.append(Measurement { median_ns: None, flags, ..line(id, 1.0) }).unwrap();
        }
        drop(run);
        let run = JournalRun::open(ask("run-2")).unwrap();
        let done = ["fault", "bug", "skipped"].map(|id| run.is_done(id));
        assert_eq!(done, [true, true, false], "with selection {selection:?}");
    }
}

#[test]
fn a_finished_run_moves_aside_and_so_does_one_of_another_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = JournalRun::open(request(folder.path(), "run-1")).unwrap();
    run.append(line("a", 1.0)).unwrap();
    run.finish("now".into()).unwrap();
    let mut run = JournalRun::open(request(folder.path(), "run-2")).unwrap();
    assert!(!run.is_done("a"));
    run.append(line("a", 2.0)).unwrap();
    drop(run);
    assert_eq!(ids(&folder.path().join("runs/run-1")), ["a"]);
    let mut other = request(folder.path(), "run-3");
    other.machine.run.commit = Some("def".into());
    assert!(!JournalRun::open(other).unwrap().is_done("a"));
    assert_eq!(ids(&folder.path().join("runs/run-2")), ["a"]);
    let mut fresh = request(folder.path(), "run-4");
    fresh.machine.run.commit = Some("def".into());
    fresh.fresh = true;
    drop(JournalRun::open(fresh).unwrap());
    assert!(folder.path().join("runs/run-3").is_dir());
}

#[test]
fn a_selection_replaces_only_its_own_cases() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = JournalRun::open(request(folder.path(), "run-1")).unwrap();
    run.append(line("a", 1.0)).unwrap();
    run.append(line("b", 1.0)).unwrap();
    run.finish("now".into()).unwrap();
    let selection = RunRequest { selection: Some("gpt-layer b".into()), ..request(folder.path(), "run-2") };
    let mut run = JournalRun::open(selection).unwrap();
    assert!(!run.is_done("b"), "what was asked for is measured again");
    run.append(line("b", 9.0)).unwrap();
    run.finish("now".into()).unwrap();
    let journal = Journal::read(folder.path()).unwrap();
    let times: Vec<_> = journal.measurements.iter().map(|m| (m.id.as_str(), m.median_ns.unwrap())).collect();
    assert_eq!(times, [("a", 1.0), ("b", 9.0)]);
    let text = fs::read_to_string(folder.path().join(MEASUREMENTS)).unwrap();
    assert_eq!(text.matches(r#""id":"b""#).count(), 1, "the old line of b is gone:\n{text}");
    // The whole run stays closed: the next one starts anew.
    assert!(!JournalRun::open(request(folder.path(), "run-3")).unwrap().is_done("a"));
}

#[test]
fn another_machine_and_a_second_run_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = JournalRun::open(request(folder.path(), "run-1")).unwrap();
    let second = JournalRun::open(request(folder.path(), "run-2")).unwrap_err().to_string();
    assert!(second.contains("another run is writing"), "{second}");
    drop(run);
    let mut other = request(folder.path(), "run-3");
    other.machine.cpu.model = "other".into();
    let refused = JournalRun::open(other).unwrap_err().to_string();
    assert!(refused.contains("two machines never share a folder"), "{refused}");
}

#[test]
fn a_damaged_line_is_named_and_nothing_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = JournalRun::open(request(folder.path(), "run-1")).unwrap();
    run.append(line("a", 1.0)).unwrap();
    drop(run);
    let path = folder.path().join(MEASUREMENTS);
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{good}{{\"broken\n{good}")).unwrap();
    let error = JournalRun::open(request(folder.path(), "run-2")).unwrap_err().to_string();
    assert!(error.contains("measurements.jsonl:2") && error.contains("remove that line"), "{error}");
    assert!(fs::read_to_string(&path).unwrap().ends_with(&good), "the file is untouched");
    fs::write(&path, good.replace("measurement/2", "measurement/7")).unwrap();
    let error = Journal::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("measurement/7") && error.contains("update bubblebench"), "{error}");
}

#[test]
fn leftovers_of_a_killed_run_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let leftover = folder.path().join(".tables.md.4000000000.tmp");
    fs::write(&leftover, "x").unwrap();
    drop(JournalRun::open(request(folder.path(), "run-1")).unwrap());
    assert!(!leftover.exists());
}

#[test]
fn measurements_without_their_machine_are_refused_not_erased() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = JournalRun::open(request(folder.path(), "run-1")).unwrap();
    run.append(line("a", 1.0)).unwrap();
    drop(run);
    fs::remove_file(folder.path().join("machine.json")).unwrap();
    let error = JournalRun::open(request(folder.path(), "run-2")).unwrap_err().to_string();
    assert!(error.contains("machine.json"), "{error}");
    assert_eq!(ids(folder.path()), ["a"]);
}

#[test]
fn an_unfinished_selection_goes_on_and_one_of_another_preset_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let selection = |run: &str| RunRequest { selection: Some("gpt-layer".into()), ..request(folder.path(), run) };
    let mut run = JournalRun::open(selection("run-1")).unwrap();
    run.append(line("a", 1.0)).unwrap();
    drop(run);
    let run = JournalRun::open(selection("run-2")).unwrap();
    assert!(run.is_done("a"), "the same command goes on");
    run.finish("now".into()).unwrap();
    assert!(!JournalRun::open(selection("run-3")).unwrap().is_done("a"), "once closed, it measures again");
    let mut other = selection("run-4");
    other.machine.run.preset = "standard".into();
    let error = JournalRun::open(other).unwrap_err().to_string();
    assert!(error.contains("--preset quick"), "{error}");
    assert_eq!(ids(folder.path()), ["a"]);
    // A selection by a later program replaces its cases and leaves the run where it is.
    let mut later = selection("run-5");
    later.machine.run.commit = Some("def".into());
    drop(JournalRun::open(later).unwrap());
    assert_eq!(ids(folder.path()), ["a"]);
}

fn visited(id: &str, medians: &[f64]) -> Measurement {
    let visit = |&median_ns: &f64| Visit { at: "then".into(), samples: 4, median_ns, isolated_ns: None };
    let visits: Vec<Visit> = medians.iter().map(visit).collect();
    Measurement { samples_total: 4 * visits.len() as u64, visits: Some(visits), ..line(id, medians[0]) }
}

/// A selection that is stopped before it has made all visits must not put a fifth of a measurement in place of a whole one.
#[test]
fn what_a_closed_run_visited_more_often_stands_until_the_next_one_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = JournalRun::open(request(folder.path(), "run-1")).unwrap();
    run.append(visited("a", &[1.0, 2.0])).unwrap();
    run.append(visited("b", &[5.0, 6.0])).unwrap();
    run.finish("now".into()).unwrap();
    let selection = || RunRequest { selection: Some("a".into()), ..request(folder.path(), "run-1") };
    let mut run = JournalRun::open(selection()).unwrap();
    run.append(visited("a", &[3.0])).unwrap();
    drop(run);
    let medians = || -> Vec<f64> {
        Journal::read(folder.path()).unwrap().measurements.iter().filter_map(|m| m.median_ns).collect()
    };
    assert_eq!(medians(), [1.0, 5.0], "the closed run's");
    let mut run = JournalRun::open(selection()).unwrap();
    assert_eq!(run.line("a").and_then(|line| line.median_ns), Some(3.0), "the same selection goes on with its own");
    run.append(visited("a", &[3.0, 4.0])).unwrap();
    assert_eq!(medians(), [3.0, 5.0], "as many visits");
    run.append(line("b", 7.0)).unwrap();
    assert_eq!(medians(), [3.0, 7.0], "a line of no visits replaces any");
    run.finish("now".into()).unwrap();
    assert_eq!(medians(), [3.0, 7.0]);
}

/// The line is read as one of a single visit, and named: its samples still say what was measured.
#[test]
fn visits_that_cannot_be_those_of_their_line_are_set_aside() {
    let good = serde_json::to_value(visited("a", &[1.0, 2.0])).unwrap();
    let set_aside = |change: &dyn Fn(&mut serde_json::Value), word: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut line = good.clone();
        change(&mut line);
        fs::write(folder.path().join(MEASUREMENTS), format!("{line}\n")).unwrap();
        let journal = Journal::read(folder.path()).unwrap();
        assert_eq!((journal.measurements.len(), &journal.measurements[0].visits), (1, &None));
        let said = &journal.visits_set_aside[..];
        assert!(said.len() == 1 && said[0].contains(word) && said[0].contains("measurements.jsonl:1"), "{said:?}");
    };
    set_aside(&|line| line["visits"] = serde_json::json!([]), "no samples");
    set_aside(&|line| line["visits"][0]["samples"] = 0.into(), "no samples");
    set_aside(&|line| line["visits"][1]["median_ns"] = (-5.0).into(), "-5 ns");
    set_aside(&|line| line["samples_total"] = 9.into(), "8 samples, samples_total says 9");
}
