//! The program on four virtual GPUs, in one process: its records, their names, what it refuses.

use super::harness::{bubblebench, text};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

const FOUR: (&str, &str) = ("SOFTGPU_DEVICES", "4");

fn run(environment: &[(&str, &str)], what: &[&str], results: &Path) -> Output {
    let results = results.to_str().unwrap();
    let rest = ["--device", "cuda", "--allow-software", "--preset", "quick", "--results", results];
    bubblebench(softgpu::device::libraries(), environment, &[&["measure"], what, &rest].concat())
}

fn records(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("measurements.jsonl")).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|record| record["kind"] != "end").collect()
}

fn measured(environment: &[(&str, &str)], what: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let output = run(environment, what, folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    records(folder.path())
}

#[test]
fn collectives_between_four_gpus_in_one_process() {
    let records = measured(&[FOUR], &["collectives", "4KiB"]);
    for name in ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all", "pipeline"] {
        assert!(records.iter().any(|r| r["id"] == format!("nccl/{name}/r4/bf16/4KiB")), "{name}");
    }
    for record in &records {
        let params = &record["params"];
        assert!(record["median_ns"].as_f64().unwrap() > 0.0 && record["verified"]["wrong"] == 0, "{record}");
        assert!(record["isolated_ns"]["median"].as_f64().unwrap() > 0.0, "{record}");
        assert_eq!((&record["kind"], &params["transport"]), (&"collective".into(), &"nccl".into()));
        assert_eq!(params["nodes"], 1);
        // Unknown unless NCCL's log is asked for; said so, not left out.
        assert!(params.get("algorithm").is_some_and(Value::is_null), "{record}");
        assert!(record["flags"].as_array().unwrap().contains(&"software".into()));
    }
    assert!(records.iter().any(|r| r["launch"] == "graph"));
    let types: std::collections::BTreeSet<_> = records.iter().filter_map(|r| r["params"]["dtype"].as_str()).collect();
    assert_eq!(types.len(), 5, "{types:?}");
}

/// Between fewer ranks than there are GPUs the others stand aside.
#[test]
fn some_cases_are_between_fewer_ranks() {
    let records = measured(&[FOUR], &["collectives", "/r2/"]);
    assert!(records.len() >= 3 && records.iter().all(|r| r["params"]["ranks"] == 2 && r["verified"]["wrong"] == 0));
}

#[test]
fn sizes_types_and_ways_can_be_chosen() {
    let chosen =
        ["collectives", "all_reduce/r4", "--sizes", "64,1KiB", "--dtype", "f16", "--registered", "--max-ctas", "3"];
    let records = measured(&[FOUR], &chosen);
    let ids: Vec<&str> = records.iter().filter_map(|r| r["id"].as_str()).collect();
    assert!(ids.contains(&"nccl/all_reduce/r4/f16/64B/registered/ctas3"), "{ids:?}");
    assert!(ids.iter().all(|id| id.contains("/f16/64B") || id.contains("/f16/1KiB")), "{ids:?}");
}

#[test]
fn the_choice_is_noted_where_it_is_asked_for() {
    let records = measured(&[FOUR], &["collectives", "nccl/all_reduce/r4/bf16/4KiB", "--nccl-choices"]);
    assert!(records.len() > 2);
    for record in records {
        assert_eq!(
            (&record["params"]["algorithm"], &record["params"]["protocol"].is_string()),
            (&"ring".into(), &true)
        );
        assert!(record["params"]["channels"].as_u64().unwrap() > 0);
    }
}

/// More ranks than GPUs share them, where NCCL is told that they may.
#[test]
fn ranks_that_share_a_gpu_say_so() {
    let allowed = [("SOFTGPU_DEVICES", "2"), ("NCCL_MULTI_RANK_GPU_ENABLE", "1")];
    let records = measured(&allowed, &["collectives", "reduce_scatter/r4", "--ranks", "4"]);
    assert!(!records.is_empty());
    for record in records {
        assert!(record["flags"].as_array().unwrap().contains(&"shared-gpu".into()), "{record}");
        assert_eq!(record["params"]["ranks_per_gpu"], 2);
    }
}

/// A product beside an all-reduce: how much of the GPU it takes, both slowdowns, and the noise floor.
#[test]
fn a_product_beside_an_all_reduce() {
    let records = measured(&[("SOFTGPU_DEVICES", "3")], &["corun", "product"]);
    let ends = |end: &str| records.iter().filter(|r| r["id"].as_str().unwrap().ends_with(end)).count();
    assert_eq!((records.len(), ends("+nothing"), ends("+all_reduce-r3-bf16-64KiB-c2")), (3, 1, 1));
    for record in &records {
        assert!(record["alone_ns"]["median"].as_f64().unwrap() > 0.0, "{record}");
        assert!(record["together_ns"]["median"].as_f64().unwrap() > 0.0, "{record}");
        if record["params"]["side"] == "nothing" {
            continue;
        }
        assert!(record["side_alone_per_s"].as_f64().unwrap() > 0.0, "{record}");
        assert_eq!((&record["params"]["side_ranks"], &record["params"]["side_bytes"]), (&3.into(), &65536.into()));
    }
    let capped = records.iter().find(|r| r["params"]["side_ctas"] == 2).unwrap();
    assert_eq!(capped["params"]["side_sm_percent"], 50.0, "two of the software device's four multiprocessors");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |environment: &[(&str, &str)], what: &[&str], words: &[&str]| {
        let output = run(environment, what, &folder.path().join("results"));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{what:?} {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{words:?} {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    };
    refused(&[FOUR], &["collectives", "--dtype", "int8"], &["`int8` is no element type", "f8e5m2"]);
    refused(&[FOUR], &["collectives", "--sizes", "8,banana"], &["banana"]);
    refused(&[FOUR], &["collectives", "--max-ctas", "0"], &["--max-ctas 0"]);
    refused(&[FOUR, ("NCCL_DEBUG", "WARN")], &["collectives", "--nccl-choices"], &["NCCL_DEBUG is set"]);
    refused(&[FOUR, ("SOFTGPU_NCCL", "version:21700")], &["collectives"], &["older than 2.18", "pip install"]);
}
