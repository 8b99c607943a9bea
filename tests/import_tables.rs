//! Tables of layer timings and of single operations, from the file to a prediction, as a user runs it.

use assert_cmd::Command;
use bubblebench::import::{self, Hints, Imported, Source};
use bubblebench::records::{Measurement, flags::IMPORTED};
use bubblebench::shape::{AttentionKind, DType, LayerShape, Normalization, Phase, Positions};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const LAYERS: &str = "model,hidden,heads,sequence,micro_batch,dtype,causal,forward_ms,backward_ms";
const OPERATIONS: &str = "kind,operation,dtype,time_us,time_low_us,time_high_us,batch,rows,inputs,outputs,heads,kv_heads,sequence,head_size,causal,bytes,ranks,nodes,source";

fn run(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    command.env_remove("BUBBLEBENCH_RESULTS").timeout(std::time::Duration::from_secs(60));
    command.args(arguments).current_dir(folder).output().unwrap()
}

fn read(source: Source, text: &str, gpu: Option<&str>) -> bubblebench::Result<Imported> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    fs::write(&path, text).unwrap();
    import::read(source, &[path], &Hints { operation: None, gpu: gpu.map(str::to_string) })
}

fn layers(rows: &str) -> Vec<Measurement> {
    read(Source::Layers, &format!("{LAYERS}\n{rows}\n"), Some("v100")).unwrap().records
}

/// Layers of a GPU that does 8 TFLOP/s and takes 0.2 ms beside, forward; twice that backward.
fn tables_rows() -> String {
    let mut rows = format!("{LAYERS}\n");
    for (hidden, heads) in [(768, 12), (1024, 16), (2048, 32)] {
        for sequence in [128, 512, 1024] {
            for batch in [1, 4, 8] {
                let shape = LayerShape { causal: false, ..LayerShape::new(hidden, heads, sequence, batch, DType::F32) };
                let ms = |phase| 0.2 + shape.flop(phase) / 8e9;
                let backward = ms(Phase::BackwardInput) + ms(Phase::BackwardWeight);
                let _ =
                    writeln!(rows, "m,{hidden},{heads},{sequence},{batch},f32,false,{},{backward}", ms(Phase::Forward));
            }
        }
    }
    rows
}

#[test]
fn a_table_of_layers_becomes_a_prediction() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("timings.csv"), tables_rows()).unwrap();
    let import = ["import", "--from", "layers", "timings.csv", "--gpu", "Tesla V100", "--results", "r"];
    let output = run(here.path(), &import);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && stderr.contains("27 layers with one backward time"), "{stderr}");
    let machine: Value = serde_json::from_slice(&fs::read(here.path().join("r/machine.json")).unwrap()).unwrap();
    assert_eq!((&machine["name"], &machine["gpus"][0]["name"]), (&json!("tesla-v100"), &json!("Tesla V100")));
    let ask = |more: &[&str]| -> Value {
        let sizes = ["--hidden", "1024", "--heads", "16", "--sequence", "512", "--micro-batch"];
        let question = [&["predict", "--cost-model", "r/cost_model.json", "layer"], &sizes[..], more, &["--json"]];
        let output = run(here.path(), &question.concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let shape = LayerShape { causal: false, ..LayerShape::new(1024, 16, 512, 6, DType::F32) };
    let between = ask(&["6", "--non-causal"]);
    let truth = 1e6 * (0.2 + shape.flop(Phase::Forward) / 8e9);
    let found = between["forward"]["median_ns"].as_f64().unwrap();
    assert!((found / truth - 1.0).abs() < 0.05 && between["forward"]["in_range"] == true, "{found} is not {truth}");
    // What was measured is answered as it was; causal attention is another layer.
    let measured = ask(&["4", "--non-causal"]);
    let ns = |answer: &Value, phase: &str| answer[phase]["median_ns"].as_f64().unwrap();
    let four = LayerShape { micro_batch: 4, ..shape };
    let truth = 1e6 * (0.4 + (four.flop(Phase::BackwardInput) + four.flop(Phase::BackwardWeight)) / 8e9);
    let sum = ns(&measured, "backward_input") + ns(&measured, "backward_weight");
    assert!((sum / truth - 1.0).abs() < 1e-9, "{sum} is not {truth}");
    assert!(ns(&ask(&["4"]), "forward") < ns(&measured, "forward"));
}

/// A plan answers from such a model too, with the collectives of another one or none.
#[test]
fn a_plan_answers_from_a_table_of_layers() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("timings.csv"), tables_rows().replace(",false,", ",true,")).unwrap();
    let import = ["import", "--from", "layers", "timings.csv", "--gpu", "v100"];
    assert!(run(here.path(), &import).status.success());
    assert!(here.path().join("results/v100/cost_model.json").exists(), "named by the GPU");
    let job = "[model]\nlayers = 8\nhidden = 1024\nheads = 16\nsequence = 512\nvocabulary = 32000\n[parallel]\npipeline = 4\nmicro_batch = 4\nglobal_batch = 64\nschedule = \"1f1b\"\n[hardware]\ncost_model = \"results/v100/cost_model.json\"\ngpus_per_node = 8\nmemory_gib = 32\n";
    fs::write(here.path().join("job.toml"), job).unwrap();
    let output = run(here.path(), &["plan", "job.toml", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(plan["iteration_ns"].as_f64().unwrap() > 1e6, "{plan}");
}

/// By hand: of a layer of 8 sequences of 4, hidden 64, causal with 2 heads, a product's half of the backward pass is
/// 2·32·12·64², attention's 5·2·D pairs, pairs = 8·2·4·5/2.
#[test]
fn one_backward_time_is_divided_by_flops_and_adds_up() {
    let records = layers("m,64,2,4,8,bf16,true,0.5,1.7");
    let ids: Vec<&str> = records.iter().map(|r| r.id.as_str()).collect();
    let slug = "gpt/h64-a2-s4-b8-t1-bf16";
    assert_eq!(ids, ["forward", "backward_input", "backward_weight"].map(|phase| format!("{slug}/{phase}")));
    let ns: Vec<f64> = records.iter().map(|r| r.median_ns.unwrap()).collect();
    let (half, attention) = (2.0 * 32.0 * 12.0 * 64.0 * 64.0, 5.0 * 2.0 * 32.0 * (8.0 * 2.0 * 10.0));
    assert!((ns[1] / (1.7e6 * (half + attention) / (2.0 * half + attention)) - 1.0).abs() < 1e-12, "{ns:?}");
    assert!((ns[1] + ns[2] - 1.7e6).abs() < 1e-6 && ns[0] == 0.5e6, "{ns:?}");
    for line in &records[1..] {
        assert_eq!((line.param_str("divided_by"), line.params["backward_ns"].as_f64()), (Some("flop"), Some(1.7e6)));
    }
    assert!(records.iter().all(|r| r.has_flag(IMPORTED) && r.device == "v100" && r.backend.name() == "cuda"));
    assert_eq!(records[0].param_str("model"), Some("m"));
}

#[test]
fn everything_that_a_table_can_say_of_a_layer_is_kept() {
    let header = "hidden,heads,sequence,micro_batch,dtype,causal,forward_ms,forward_low_ms,forward_high_ms,backward_ms,backward_input_ms,backward_weight_ms,tensor,kv_heads,ffn_hidden,gated,norm,positions,bias,attention,sequence_parallel,activation_mib,nodes,gpu,source";
    let row = "4096,32,2048,1,bf16,,10,9,12,,20,,2,8,14336,True,rmsnorm,rotary,false,materialised,1,100.5,1,NVIDIA H100,\"a paper, table 3\"";
    let imported =
        read(Source::Layers, &format!("# ours\n{header}\n{}\n", row.replace(",,20,", ",31,20,")), None).unwrap();
    let shape = LayerShape {
        attention: AttentionKind::Materialised,
        sequence_parallel: true,
        ..LayerShape::new(4096, 32, 2048, 1, DType::Bf16).llama(8, 14_336).tensor(2)
    };
    assert_eq!((shape.norm, shape.positions), (Normalization::Rmsnorm, Positions::Rotary));
    let line = &imported.records[0];
    assert_eq!(LayerShape::from_params(&line.params), Some(shape));
    assert_eq!((line.ci95_low_ns, line.median_ns, line.ci95_high_ns), (Some(9e6), Some(10e6), Some(12e6)));
    assert_eq!(line.param_u64("activation_bytes"), Some(105_381_888));
    assert_eq!((line.param_str("source"), line.device.as_str()), (Some("a paper, table 3"), "NVIDIA H100"));
    // The part that is not given is the rest of the whole.
    let ns: Vec<Option<f64>> = imported.records.iter().map(|r| r.median_ns).collect();
    assert_eq!(ns, [Some(10e6), Some(20e6), Some(11e6)]);
    assert_eq!(imported.origin.gpus[0].name, "NVIDIA H100");
    // The same as JSON lines.
    let json = json!({"hidden": 64, "heads": 2, "sequence": 4, "micro_batch": 8, "dtype": "bf16", "causal": true,
        "forward_ms": 0.5, "backward_ms": 1.7, "model": "m"});
    let of_json = read(Source::Layers, &json.to_string(), Some("v100")).unwrap().records;
    assert_eq!(of_json, layers("m,64,2,4,8,bf16,true,0.5,1.7"));
}

#[test]
fn a_wrong_table_of_layers_is_answered_with_its_place_and_a_cure() {
    let good = "bert,768,12,128,1,f32,false,0.87,0.98";
    let table = |rows: &str| format!("{LAYERS}\n{rows}\n");
    let cell =
        |from: &str, to: &str| table(&format!("{good}\n{}", good.replacen("768", "1536", 1).replacen(from, to, 1)));
    for (text, says) in [
        (String::new(), "is empty; give a header"),
        (LAYERS.into(), "has no row"),
        (table(good).replacen("hidden", "hiden", 1), ":1 has a column `hiden` that is unknown; did you mean `hidden`?"),
        (table(good).replacen(",heads", "", 1), ":1 has no column heads"),
        (table(good).replacen(",forward_ms", "", 1), ":1 has no column forward_ms"),
        (table(&format!("{good}\nbert,768,12,1")), ":3 has 4 cells, the header 9: it is cut off"),
        (cell("0.87", "fast"), ":3: forward_ms is `fast`, not a number"),
        (cell("0.87", "-0.87"), ":3: forward_ms is -0.87"),
        (cell("0.98", "0"), ":3: backward_ms is 0;"),
        (cell("0.98", "nan"), ":3: backward_ms is `nan`"),
        (cell("0.98", ""), ":3: no backward time; give backward_ms"),
        (cell("0.87", ""), ":3: forward_ms is not given"),
        (cell("12", "7"), ":3: hidden 1536 cannot be divided by heads 7"),
        (cell("128", "1.5"), ":3: sequence is `1.5`, no whole number above 0"),
        (cell("f32", "f23"), ":3: dtype is `f23`, which is unknown; did you mean `f32`?"),
        (cell("false", "maybe"), ":3: causal is `maybe`; give true or false"),
        // Seconds and microseconds for milliseconds, and a time that is a thousandfold off in a large layer.
        (cell("0.87", "0.00087"), ":3: forward_ms 0.00087 would be"),
        (cell("0.87", "870"), "is forward_ms in milliseconds"),
        (cell("0.98", "980"), ":3: backward_ms 980 would be"),
        (
            table(&format!("{good}\n{}", good.replace("0.87", "0.88"))),
            ":3: h768-a12-s128-b1-t1-f32-noncausal stands in",
        ),
    ] {
        let error = read(Source::Layers, &text, Some("v100")).map(|_| text.clone()).unwrap_err().to_string();
        assert!(error.contains(says) && error.lines().count() == 1 && error.contains("; "), "not {says}: {error}");
    }
    assert!(read(Source::Layers, &table(good), None).unwrap_err().to_string().contains("does not say which GPU"));
    let two = format!("{LAYERS},gpu\n{good},v100\n{},p100\n", good.replace("768", "1536"));
    assert!(read(Source::Layers, &two, None).unwrap_err().to_string().contains("different GPUs (p100, v100)"));
    assert_eq!(read(Source::Layers, &two, Some("p100")).unwrap().records.len(), 3);
    let whole = format!("{LAYERS},backward_input_ms,backward_weight_ms\n{good}");
    for (parts, says) in [
        (",0.5,0.9", "backward_ms 0.98 is not the sum of its parts, 1.4"),
        (",0.98,", "backward_ms 0.98 is no more than a part of it"),
    ] {
        let error = read(Source::Layers, &format!("{whole}{parts}"), Some("v100")).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // The same row twice says nothing new; two element types may stand in one table.
    let twice = read(Source::Layers, &table(&format!("{good}\n{good}\n{}", good.replace("f32", "bf16"))), Some("v100"));
    let twice = twice.unwrap();
    assert_eq!((twice.records.len(), twice.notes.iter().any(|n| n.contains("repeated: 1 row"))), (6, true));
}

/// The row of an operation with these cells, in the order of the header.
/// A thousand times too long or too short is beyond what the GPU's data sheet allows, both ways and in either format.
#[test]
fn times_in_the_wrong_unit_are_held_against_the_gpus_data_sheet() {
    let layers = |gpu: &str, dtype: &str, ms: f64| {
        let row = format!("m,4096,32,2048,1,{dtype},true,{ms},{}", 2.0 * ms);
        read(Source::Layers, &format!("{LAYERS}\n{row}\n"), Some(gpu))
    };
    for (gpu, dtype, ms) in [("a100-sxm-80", "bf16", 4.0), ("h100-sxm", "bf16", 1.8), ("v100", "f32", 75.0)] {
        assert!(layers(gpu, dtype, ms).is_ok(), "{gpu}");
        for (factor, word) in [(1000.0, "less than the NVIDIA"), (0.001, "more than the NVIDIA")] {
            let error = layers(gpu, dtype, factor * ms).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("milliseconds") && error.contains("table:2"), "{error}");
        }
    }
    assert!(layers("Somebody's TPU", "bf16", 4000.0).is_ok(), "nothing is known of it");
    let product = |us: f64| {
        let text = format!("{OPERATIONS}\n{}\n", product("forward", ["8192", "4096", "4096"], &us.to_string()));
        read(Source::Operations, &text, Some("a100-sxm-80"))
    };
    assert!(product(1200.0).is_ok());
    assert!(product(1.2e6).unwrap_err().to_string().contains("less than the NVIDIA A100"));
}

fn row(cells: &[(&str, &str)]) -> String {
    let cell = |name: &str| cells.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| *value);
    OPERATIONS.split(',').map(cell).collect::<Vec<_>>().join(",")
}

fn product(operation: &str, [rows, inputs, outputs]: [&str; 3], us: &str) -> String {
    let sizes = [("rows", rows), ("inputs", inputs), ("outputs", outputs)];
    row(&[&[("kind", "product"), ("operation", operation), ("dtype", "bf16"), ("time_us", us)], &sizes[..]].concat())
}

#[test]
fn operations_are_the_records_that_a_fit_reads() {
    let attention = [("kind", "attention"), ("operation", "backward"), ("dtype", "bf16"), ("time_us", "900")];
    let sizes = [("batch", "1"), ("heads", "32"), ("kv_heads", "8"), ("sequence", "4096"), ("head_size", "128")];
    let streaming =
        [("kind", "streaming"), ("operation", "adamw"), ("dtype", "f32"), ("time_us", "50"), ("bytes", "67108864")];
    let collective = |name, nodes| {
        let cells =
            [("kind", "collective"), ("operation", name), ("dtype", "bf16"), ("time_us", "100"), ("time_low_us", "90")];
        row(&[&cells[..], &[("time_high_us", "120"), ("bytes", "1048576"), ("ranks", "8"), ("nodes", nodes)]].concat())
    };
    let text = [
        OPERATIONS.to_string(),
        product("backward_weight", ["4096", "8192", "1024"], "400"),
        row(&[&attention[..], &sizes].concat()),
        row(&[&attention[..], &sizes, &[("causal", "false"), ("source", "t3")]].concat()),
        row(&streaming),
        collective("all_gather", ""),
        collective("send_recv/one_way", "2"),
    ];
    let imported = read(Source::Operations, &text.join("\n"), Some("NVIDIA B200")).unwrap();
    let ids: Vec<&str> = imported.records.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "op/product/backward_weight/r4096-i8192-o1024-bf16",
            "op/attention/backward/b1-a32-s4096-d128-kv8-bf16",
            "op/attention/backward/b1-a32-s4096-d128-kv8-noncausal-bf16",
            "op/adamw/64MiB-f32",
            "nccl/all_gather/r8/bf16/1MiB",
            "nccl/send_recv/one_way/r8/n2/bf16/1MiB",
        ]
    );
    let params = |index: usize| Value::Object(imported.records[index].params.clone());
    assert_eq!(
        params(0),
        json!({"operation": "backward_weight", "family": "gemm", "product": "backward_weight", "rows": 4096, "inputs": 8192,
            "outputs": 1024, "epilogue": "none", "dtype": "bf16"})
    );
    assert_eq!(
        params(2),
        json!({"operation": "backward", "family": "attention", "batch": 1, "heads": 32, "sequence": 4096, "head_size": 128,
            "kv_heads": 8, "causal": false, "dtype": "bf16", "source": "t3"})
    );
    assert_eq!(params(3), json!({"operation": "adamw", "family": "streaming", "dtype": "f32"}));
    assert_eq!(imported.records[3].bytes, Some(67_108_864.0));
    assert_eq!(
        params(5),
        json!({"operation": "send_recv", "pattern": "one_way", "ranks": 8, "nodes": 2, "dtype": "bf16", "bytes": 1_048_576,
            "in_place": false, "transport": "nccl"})
    );
    let gather = &imported.records[4];
    assert_eq!((gather.median_ns, gather.ci95_low_ns, gather.ci95_high_ns), (Some(1e5), Some(9e4), Some(1.2e5)));
    assert!((gather.busbw_gb_per_s.unwrap() / (10.48576 * 0.875) - 1.0).abs() < 1e-12);
    assert!(imported.records.iter().all(|r| r.has_flag(IMPORTED) && r.device == "NVIDIA B200"));
    let (_, unread) = bubblebench::cost::operations::rows(&imported.records.iter().collect::<Vec<_>>());
    assert_eq!(unread, 0);
}

#[test]
fn a_table_of_operations_becomes_predictions() {
    let here = tempfile::tempdir().unwrap();
    let mut text = format!("{OPERATIONS}\n");
    for rows in [1024u64, 2048, 4096, 8192] {
        for width in [2048u64, 4096, 8192] {
            let us = 8.0 + 2.0 * (rows * width * width) as f64 / 4e8;
            let [rows, width] = [rows.to_string(), width.to_string()];
            for name in ["forward", "backward_input", "backward_weight"] {
                text += &(product(name, [&rows, &width, &width], &us.to_string()) + "\n");
            }
        }
    }
    for size in (16..30).step_by(2).map(|p| 1u64 << p) {
        let bytes = size.to_string();
        let [us, message_us] = [3.0 + size as f64 / 3e6, 20.0 + size as f64 / 2e5].map(|us| us.to_string());
        let streaming =
            [("kind", "streaming"), ("operation", "residual"), ("dtype", "bf16"), ("bytes", &bytes), ("time_us", &us)];
        text += &(row(&streaming) + "\n");
        let message = [
            ("kind", "collective"),
            ("operation", "all_reduce"),
            ("ranks", "8"),
            ("dtype", "bf16"),
            ("bytes", &bytes),
            ("time_us", &message_us),
        ];
        text += &(row(&message) + "\n");
    }
    fs::write(here.path().join("profile.csv"), text).unwrap();
    let output =
        run(here.path(), &["import", "--from", "operations", "profile.csv", "--gpu", "h100", "--results", "r"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let question = ["predict", "--cost-model", "r/cost_model.json", "collective", "--operation", "all_reduce"];
    let output = run(here.path(), &[&question[..], &["--ranks", "8", "--bytes", "2MiB", "--json"]].concat());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let truth = 1e3 * (20.0 + f64::from(2 << 20) / 2e5);
    assert!((answer["median_ns"].as_f64().unwrap() / truth - 1.0).abs() < 0.01, "{answer}");
    let model: Value = serde_json::from_slice(&fs::read(here.path().join("r/cost_model.json")).unwrap()).unwrap();
    for fit in ["/operations/gemm/forward", "/operations/gemm/backward_weight", "/operations/streaming/residual"] {
        assert!(model.pointer(fit).is_some(), "no {fit}");
    }
}

#[test]
fn a_wrong_table_of_operations_is_answered_with_its_place_and_a_cure() {
    let good = || product("forward", ["4096", "8192", "8192"], "700");
    let collective = |name, ranks, us| {
        let cells = [("kind", "collective"), ("operation", name), ("dtype", "bf16"), ("time_us", us)];
        row(&[&cells[..], &[("bytes", "1048576"), ("ranks", ranks)]].concat())
    };
    let attention = |sizes: &[(&str, &str)]| {
        row(&[&[("kind", "attention"), ("operation", "forward"), ("dtype", "bf16"), ("time_us", "900")], sizes]
            .concat())
    };
    let streaming = |name, bytes| {
        row(&[("kind", "streaming"), ("operation", name), ("dtype", "bf16"), ("time_us", "5"), ("bytes", bytes)])
    };
    for (row, says) in [
        (good().replace("product", "gemm"), ":2: kind is `gemm`, which is unknown; known are product, attention"),
        (
            good().replace("forward", "forwards"),
            ":2: operation is `forwards`, which is unknown; did you mean `forward`?",
        ),
        (product("forward", ["4096", "", "8192"], "700"), ":2: inputs is not given"),
        (product("forward", ["4096", "8192", "8192"], "0.7"), ":2: time_us 0.7 would be"),
        (product("forward", ["4096", "8192", "8192"], "700000000"), "is time_us in microseconds"),
        (good().replace("700,,", "700,800,"), ":2: time_us 700 is not within its interval from 800 to 700"),
        (good().replace("700,,,", "700,,,2"), ":2: a product has a batch"),
        (
            attention(&[("batch", "1"), ("heads", "6"), ("kv_heads", "4"), ("sequence", "8"), ("head_size", "8")]),
            "heads 6 cannot be divided by kv_heads 4",
        ),
        (
            attention(&[("batch", "9999999"), ("heads", "999"), ("sequence", "99999"), ("head_size", "99999")]),
            "is too large",
        ),
        (streaming("residul", "1000000"), "did you mean `residual`?"),
        (streaming("residual", "1000000000000"), ":2: time_us 5 would be"),
        (collective("all_recude", "8", "100"), "did you mean `all_reduce`?"),
        (collective("all_reduce", "1", "100"), ":2: 1 rank on 1 node make no collective"),
        (collective("all_reduce", "8", "0.0001"), ":2: time_us 0.0001 would be"),
        (
            format!("{}\n{}", good(), good().replace("700", "701")),
            ":3: op/product/forward/r4096-i8192-o8192-bf16 stands in",
        ),
    ] {
        let error = read(Source::Operations, &format!("{OPERATIONS}\n{row}\n"), Some("b200")).map(|_| row.clone());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says) && error.lines().count() == 1, "not {says}: {error}");
    }
}

#[test]
fn options_that_say_nothing_about_a_source_are_refused() {
    let hints = |operation: Option<&str>, gpu: Option<&str>| Hints {
        operation: operation.map(str::to_string),
        gpu: gpu.map(str::to_string),
    };
    let refused = |source, hints: &Hints| import::read(source, &["nowhere"], hints).unwrap_err().to_string();
    assert!(
        refused(Source::NcclTests, &hints(None, Some("v100"))).contains("--gpu says nothing about --from nccl-tests")
    );
    assert!(refused(Source::Layers, &hints(Some("all_reduce"), None)).contains("--operation says nothing"));
}
