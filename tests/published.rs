//! Published figures: what their tables become, and that the committed cost models are what the committed tables make
//! (`cargo run --example published` makes them again).

use bubblebench::import::published::{OPERATIONS, PUBLISHED, Published, folders};
use bubblebench::records::store::COST_MODEL;
use bubblebench::records::{CostModel, files};
use bubblebench::{Result, cost};
use serde_json::json;
use std::fs;
use std::path::Path;

fn made(published: &Published) -> Result<String> {
    let fitted = cost::fit(&published.records, &published.machine, "")?;
    published.file(fitted.model)
}

#[test]
fn committed_cost_models_are_what_their_tables_make() {
    for folder in folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results/published")).unwrap() {
        let published = Published::read(&folder).unwrap();
        let content = made(&published).unwrap();
        assert!(published.holds(&content).unwrap(), "{}: cargo run --example published", folder.display());
    }
}

fn tables(folder: &Path) {
    let about = json!({"name": "published/tiny", "device": "Tiny GPU", "memory_bytes": 8_589_934_592u64, "sms": 20,
        "at": "2026-11-29T00:00:00Z", "source": "Made up.", "kind": "published", "topology": null});
    fs::write(folder.join(PUBLISHED), about.to_string()).unwrap();
    let header = "kind,operation,dtype,time_us,rows,inputs,outputs,bytes,ranks,source\n";
    let mut operations = format!("# made up\n{header}");
    for rows in [512, 1024, 2048, 4096, 8192] {
        let us = 10.0 + f64::from(rows) * 2.0 * 1024.0 * 4096.0 / 1e8;
        operations += &format!("product,forward,bf16,{us},{rows},1024,4096,,,a\n");
        operations += &format!("streaming,residual,bf16,{},,,,{},,b\n", 2.0 + f64::from(rows) / 100.0, rows * 1024);
        operations += &format!("collective,all_reduce,bf16,{},,,,{},8,c\n", 20.0 + f64::from(rows) / 50.0, rows * 1024);
    }
    fs::write(folder.join(OPERATIONS), operations).unwrap();
    let layers = "hidden,heads,sequence,micro_batch,dtype,causal,forward_ms,backward_ms\n1024,16,512,4,bf16,true,2,4\n";
    fs::write(folder.join("layers.csv"), layers).unwrap();
}

#[test]
fn tables_become_a_cost_model_that_names_its_source() {
    let root = tempfile::tempdir().unwrap();
    let tiny = root.path().join("tiny");
    for name in ["tiny", "by-hand"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    fs::write(root.path().join("by-hand").join(COST_MODEL), "{}").unwrap();
    tables(&tiny);
    assert_eq!(
        folders(root.path()).unwrap(),
        std::slice::from_ref(&tiny),
        "folders without published.json are left alone"
    );
    let published = Published::read(&tiny).unwrap();
    assert_eq!(published.records.len(), 15 + 3);
    let content = made(&published).unwrap();
    assert!(!published.holds(&content).unwrap(), "there is no file yet");
    files::write_atomic(&published.path(), content.as_bytes()).unwrap();
    assert!(published.holds(&content).unwrap());
    assert_eq!(made(&Published::read(&tiny).unwrap()).unwrap(), content, "the same again");
    let model: CostModel = files::read_json(&tiny.join(COST_MODEL), "cost_model").unwrap();
    let (machine, from) = (&model.machine, &model.made_from);
    assert_eq!((machine.name.as_str(), machine.device.as_str()), ("published/tiny", "Tiny GPU"));
    assert_eq!((machine.backend.as_str(), machine.memory_bytes), ("cuda", Some(8_589_934_592)));
    assert_eq!((from.source.as_deref(), from.at.as_str()), (Some("Made up."), "2026-11-29T00:00:00Z"));
    assert_eq!((&from.measurements_sha256, &from.commit), (&None, &None));
    assert!(model.layer.len() == 1 && model.collectives.len() == 1 && model.operations.gemm.contains_key("forward"));
    // A row that changes is noticed.
    let path = tiny.join(OPERATIONS);
    fs::write(
        &path,
        fs::read_to_string(&path).unwrap().replace("streaming,residual,bf16,7.12", "streaming,residual,bf16,9.9"),
    )
    .unwrap();
    let published = Published::read(&tiny).unwrap();
    assert!(!published.holds(&made(&published).unwrap()).unwrap());
}

#[test]
fn a_folder_that_cannot_be_made_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |says: &str| {
        let error = Published::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(says) && error.lines().count() == 1, "not {says}: {error}");
    };
    refused(PUBLISHED);
    tables(folder.path());
    let about = fs::read_to_string(folder.path().join(PUBLISHED)).unwrap();
    fs::write(folder.path().join(PUBLISHED), about.replace("\"published\"", "\"rumour\"")).unwrap();
    refused("published.json cannot be read: unknown variant");
    fs::write(folder.path().join(PUBLISHED), &about).unwrap();
    let table = folder.path().join(OPERATIONS);
    fs::write(&table, fs::read_to_string(&table).unwrap().replace("product,", "produce,")).unwrap();
    refused("operations.csv:3: kind is `produce`");
    fs::remove_file(table).unwrap();
    fs::remove_file(folder.path().join("layers.csv")).unwrap();
    refused("has neither operations.csv nor layers.csv");
}
