//! The cost model against machines whose truth is known: made-up ones, and two published all-reduce tables.

use bubblebench::cost::predict::{self, CollectiveQuery};
use bubblebench::cost::{self, Fitted, operations};
use bubblebench::ops::DType;
use bubblebench::ops::work::{Epilogue, Operation, Product};
use bubblebench::records::cost_model::{Anchors, CorunPair, GateCost, OperationFits, Topology, TopologyKind};
use bubblebench::records::machine::{Cpu, RunInfo};
use bubblebench::records::measurement::{Backend, Interval, Kind};
use bubblebench::records::{CostModel, MachineRecord, Measurement};
use bubblebench::shape::{LayerShape, Phase, Recompute};
use bubblebench::stats::SplitMix;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

fn machine() -> MachineRecord {
    let text = r#"{"schema":"bubblebench.machine/1","name":"made-up","memory_bytes":1000000,"gpus":[],"versions":{},
        "topology":[],"kernel":"k","hostname":null,"environment":{}}"#;
    let mut value: Value = serde_json::from_str(text).unwrap();
    let cpu = Cpu {
        model: "made up".into(),
        cores: 2,
        last_level_cache_bytes: Some(32 << 20),
        features: vec![],
        governor: None,
    };
    let run = RunInfo {
        id: "r".into(),
        commit: Some("c0ffee".into()),
        preset: "standard".into(),
        device: "host".into(),
        command: vec![],
        started: "2026-01-01T00:00:00Z".into(),
        case_definitions: None,
    };
    value["cpu"] = serde_json::to_value(cpu).unwrap();
    value["run"] = serde_json::to_value(run).unwrap();
    serde_json::from_value(value).unwrap()
}

fn fit(rows: &[Measurement]) -> Fitted {
    cost::fit(rows, &machine(), "00").unwrap()
}

/// A machine that takes exactly this long for an operation, up to noise.
fn truth_ns(operation: &Operation) -> f64 {
    let bytes = operation.bytes(DType::F32);
    match operation {
        Operation::Linear { epilogue, .. } => {
            let gelu = matches!(epilogue, Epilogue::BiasGelu | Epilogue::GeluBackward);
            let extra = if gelu { 0.4 * operation.output_elements() } else { 0.0 };
            3_000.0 + 0.011 * operation.flop() + extra
        }
        Operation::AttentionForward(_) | Operation::AttentionBackward(_) => 5_000.0 + 0.03 * operation.flop(),
        _ => 1_000.0 + 0.12 * bytes + 0.05 * (bytes - 8e6).max(0.0),
    }
}

fn layer_truth_ns(shape: &LayerShape, phase: Phase) -> f64 {
    let sum: f64 = shape.operations(phase).iter().map(|(_, o)| truth_ns(o)).sum();
    20_000.0 + 1.06 * sum
}

fn normal(random: &mut SplitMix) -> f64 {
    (0..12).map(|_| random.unit()).sum::<f64>() - 6.0
}

fn timed(mut m: Measurement, ns: f64) -> Measurement {
    (m.median_ns, m.ci95_low_ns, m.ci95_high_ns) = (Some(ns), Some(0.99 * ns), Some(1.01 * ns));
    (m.device, m.at) = ("made up".into(), "2026-01-01T00:00:00Z".into());
    m
}

fn with<V: Into<Value>>(m: &mut Measurement, name: &str, value: V) {
    m.params.insert(name.into(), value.into());
}

fn operation_row(slug: &str, name: &str, operation: &Operation, ns: f64) -> Measurement {
    let id = format!("gpt/{slug}/op/{name}/{}", operation.name());
    let mut m = timed(Measurement::blank(id, Kind::Operation, Backend::Host), ns);
    with(&mut m, "operation", operation.name());
    (m.flop, m.bytes) = (Some(operation.flop()), Some(operation.bytes(DType::F32)));
    match operation {
        Operation::Linear { product, shape, epilogue } => {
            with(&mut m, "family", "gemm");
            with(&mut m, "product", product.name());
            let sizes = [("rows", shape.rows), ("inputs", shape.inputs), ("outputs", shape.outputs)];
            sizes.iter().for_each(|(k, v)| with(&mut m, k, *v as u64));
            let names = [
                (Epilogue::None, "none"),
                (Epilogue::Bias, "bias"),
                (Epilogue::BiasGelu, "bias_gelu"),
                (Epilogue::GeluBackward, "gelu_backward"),
                (Epilogue::BiasGradient, "bias_gradient"),
            ];
            with(&mut m, "epilogue", names.iter().find(|(e, _)| e == epilogue).unwrap().1);
        }
        Operation::AttentionForward(a) | Operation::AttentionBackward(a) => {
            with(&mut m, "family", "attention");
            let sizes = [("batch", a.batch), ("heads", a.heads), ("sequence", a.sequence), ("head_size", a.head_size)];
            sizes.iter().for_each(|(k, v)| with(&mut m, k, *v as u64));
        }
        _ => {
            with(&mut m, "family", "streaming");
            with(&mut m, "elements", operation.output_elements() as u64);
        }
    }
    m
}

fn layer_row(shape: &LayerShape, phase: Phase, ns: f64) -> Measurement {
    let id = format!("gpt/{}/{}", shape.slug(), phase.name());
    let mut m = timed(Measurement::blank(id, Kind::Layer, Backend::Host), ns);
    for (name, value) in [
        ("hidden", shape.hidden),
        ("heads", shape.heads),
        ("sequence", shape.sequence),
        ("micro_batch", shape.micro_batch),
        ("tensor", shape.tensor),
        ("activation_bytes", shape.activation_bytes()),
        ("parameter_bytes", shape.parameter_bytes()),
    ] {
        with(&mut m, name, value);
    }
    with(&mut m, "dtype", shape.dtype.name());
    with(&mut m, "recompute", shape.recompute.name());
    with(&mut m, "phase", phase.name());
    m
}

fn shapes() -> Vec<LayerShape> {
    let new = |h, a, s, b| LayerShape::new(h, a, s, b, DType::F32);
    vec![
        new(256, 4, 128, 1),
        new(256, 4, 256, 4),
        new(384, 6, 256, 2),
        new(512, 8, 128, 4),
        new(512, 8, 256, 1),
        new(512, 8, 512, 1),
        new(768, 12, 256, 1).tensor(2),
        new(768, 12, 512, 2),
        new(1024, 16, 128, 2),
        new(1024, 16, 256, 1).tensor(2),
        new(512, 8, 256, 2).recompute(Recompute::Selective),
        new(512, 8, 256, 2).recompute(Recompute::Full),
    ]
}

fn standard_rows(noise: f64, seed: u64) -> Vec<Measurement> {
    let mut random = SplitMix(seed);
    let mut rows = Vec::new();
    for shape in shapes() {
        let mut seen = Vec::new();
        for (name, operation) in shape.operations(Phase::ForwardBackward) {
            // Recomputed operations are in the list twice, in the records once.
            if seen.contains(&(name, operation)) {
                continue;
            }
            seen.push((name, operation));
            let ns = truth_ns(&operation) * (1.0 + noise * normal(&mut random));
            rows.push(operation_row(&shape.slug(), name, &operation, ns));
        }
        for phase in Phase::ALL {
            let ns = match phase {
                Phase::ForwardBackward => [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight]
                    .iter()
                    .map(|p| layer_truth_ns(&shape, *p))
                    .sum(),
                phase => layer_truth_ns(&shape, phase),
            };
            rows.push(layer_row(&shape, phase, ns * (1.0 + noise * normal(&mut random))));
        }
    }
    rows
}

fn error_of<'a>(model: &'a CostModel, what: &str) -> &'a bubblebench::records::cost_model::Accuracy {
    model.accuracy.iter().find(|a| a.what == what).unwrap_or_else(|| panic!("no accuracy of {what}"))
}

#[test]
fn the_truth_of_a_quiet_machine_is_found() {
    let Fitted { model, .. } = fit(&standard_rows(0.0, 1));
    for what in ["gemm", "attention", "streaming", "layer", "layer/forward", "layer/forward_backward"] {
        assert!(error_of(&model, what).mape_percent < 2.0, "{:?}", error_of(&model, what));
    }
    let forward = &model.operations.gemm["forward"];
    let flop = forward.features.iter().position(|f| f == "flop").expect("the flop feature");
    assert!((forward.coefficients_ns[flop] / 0.011 - 1.0).abs() < 0.02, "{forward:?}");
    let unseen = LayerShape::new(640, 10, 192, 2, DType::F32);
    let layer = predict::layer(&model, unseen).unwrap();
    let parts = [layer.forward, layer.backward_input, layer.backward_weight];
    for (phase, p) in [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight].into_iter().zip(parts) {
        let truth = layer_truth_ns(&unseen, phase);
        assert!((p.median_ns / truth - 1.0).abs() < 0.02 && p.in_range, "{phase:?}: {p:?} is not {truth}");
    }
    assert_eq!(layer.parameter_bytes, unseen.parameter_bytes());
}

/// What a report draws is what the figures of accuracy are made of.
#[test]
fn held_out_cases_are_those_behind_the_accuracy() {
    let Fitted { model, held_out, .. } = fit(&standard_rows(0.02, 5));
    for what in ["gemm", "attention", "streaming", "layer/forward", "layer/forward_backward"] {
        let part = held_out.iter().find(|part| part.what == what).unwrap_or_else(|| panic!("no {what}"));
        assert_eq!(part.accuracy().as_ref(), Some(error_of(&model, what)), "{what}");
        assert!(part.cases.iter().all(|case| case.measured > 0.0 && case.predicted > 0.0), "{what}");
    }
}

/// Predictions of shapes nobody measured, over many noisy machines: errors stay small and intervals hold the truth as
/// often as a fresh measurement of it should lie in them.
#[test]
fn intervals_of_unseen_layers_hold_what_is_measured() {
    let mut random = SplitMix(77);
    let (mut inside, mut total, mut errors) = (0, 0, Vec::new());
    for seed in 0..12 {
        let Fitted { model, .. } = fit(&standard_rows(0.05, 100 + seed));
        for _ in 0..8 {
            let (hidden, heads) = [(320, 5), (448, 7), (640, 10), (896, 14)][random.below(4)];
            let shape = LayerShape::new(
                hidden,
                heads,
                128 + 32 * random.below(12) as u64,
                1 + random.below(4) as u64,
                DType::F32,
            );
            let layer = predict::layer(&model, shape).unwrap();
            let parts = [layer.forward, layer.backward_input, layer.backward_weight];
            for (phase, p) in [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight].into_iter().zip(parts) {
                let measured = layer_truth_ns(&shape, phase) * (1.0 + 0.05 * normal(&mut random));
                inside += usize::from((p.low_ns..=p.high_ns).contains(&measured));
                total += 1;
                errors.push((p.median_ns / layer_truth_ns(&shape, phase) - 1.0).abs());
            }
        }
        assert!(error_of(&model, "layer").mape_percent < 12.0);
    }
    let share = inside as f64 / total as f64;
    assert!((0.90..=1.0).contains(&share), "{share} of {total} inside");
    assert!(bubblebench::stats::median(&errors).unwrap() < 0.04);
}

#[test]
fn a_few_wild_rows_do_not_spoil_the_model() {
    let mut rows = standard_rows(0.03, 5);
    let mut random = SplitMix(6);
    for _ in 0..8 {
        let at = random.below(rows.len());
        rows[at].median_ns = rows[at].median_ns.map(|ns| 6.0 * ns);
    }
    let Fitted { model, .. } = fit(&rows);
    let unseen = LayerShape::new(640, 10, 192, 2, DType::F32);
    let p = predict::layer(&model, unseen).unwrap().forward;
    let truth = layer_truth_ns(&unseen, Phase::Forward);
    assert!((p.median_ns / truth - 1.0).abs() < 0.10, "{p:?} is not {truth}");
}

#[test]
fn measured_layers_are_answered_as_measured() {
    let rows = standard_rows(0.05, 8);
    let Fitted { model, .. } = fit(&rows);
    assert_eq!(model.layer.len(), shapes().len());
    for shape in shapes() {
        let id = format!("gpt/{}/backward_input", shape.slug());
        let row = rows.iter().find(|r| r.id == id).unwrap();
        let p = predict::layer(&model, shape).unwrap();
        assert_eq!(Some(p.backward_input.median_ns), row.median_ns);
        assert!(p.backward_input.in_range && p.forward_backward.in_range);
    }
}

#[test]
fn outside_the_range_is_said_and_wider() {
    let Fitted { model, .. } = fit(&standard_rows(0.03, 9));
    let width = |h, a, s, b| {
        let p = predict::layer(&model, LayerShape::new(h, a, s, b, DType::F32)).unwrap().forward;
        assert!(p.low_ns > 0.0 && p.low_ns <= p.median_ns && p.median_ns <= p.high_ns, "{p:?}");
        (p.in_range, p.high_ns / p.low_ns)
    };
    // 1024 is the largest hidden measured, 512 the longest sequence, 4 the largest micro-batch: edges are inside.
    let (inside, narrow) = width(1024, 16, 512, 4);
    let (just_out, wider) = width(1088, 17, 512, 4);
    let (far_out, widest) = width(12288, 96, 2048, 8);
    assert!(inside && !just_out && !far_out);
    assert!(narrow < wider && wider < widest, "{narrow} {wider} {widest}");
    assert!(!width(512, 8, 64, 1).0, "shorter than any sequence measured");
    let error = predict::layer(&model, LayerShape::new(512, 8, 256, 1, DType::Bf16)).unwrap_err().to_string();
    assert!(error.contains("bf16") && error.contains("--dtype f32"), "{error}");
    assert!(predict::layer(&model, LayerShape::new(100, 3, 256, 1, DType::F32)).is_err());
}

#[test]
fn the_model_is_a_function_of_its_measurements() {
    let rows = standard_rows(0.05, 10);
    let text = |rows: &[Measurement]| serde_json::to_string(&fit(rows).model).unwrap();
    assert_eq!(text(&rows), text(&rows));
    let mut shuffled = rows.clone();
    SplitMix(3).shuffle(&mut shuffled);
    let (a, b) = (fit(&rows).model, fit(&shuffled).model);
    assert!(a == b, "the order of the lines must not matter");
    let back: CostModel = serde_json::from_str(&text(&rows)).unwrap();
    assert_eq!((back.layer.len(), back.accuracy.len(), &back.valid), (a.layer.len(), a.accuracy.len(), &a.valid));
    assert!(cost::check(&back).is_ok());
    assert_eq!(a.made_from.commit.as_deref(), Some("c0ffee"));
    assert_eq!(a.valid["hidden"].high, 1024.0);
}

#[test]
fn parts_with_too_few_rows_are_left_out_with_a_note() {
    let rows = standard_rows(0.02, 11);
    let error = cost::fit(&[], &machine(), "00").unwrap_err().to_string();
    assert!(error.contains("measure"), "{error}");
    // Layers alone: predicted from their own FLOPs and bytes.
    let layers: Vec<Measurement> = rows.iter().filter(|r| r.kind == Kind::Layer).cloned().collect();
    let Fitted { model, notes, .. } = fit(&layers);
    assert!(model.operations.gemm.is_empty() && notes.iter().any(|n| n.contains("products")), "{notes:?}");
    let unseen = LayerShape::new(640, 10, 192, 2, DType::F32);
    let p = predict::layer(&model, unseen).unwrap().forward;
    assert!((p.median_ns / layer_truth_ns(&unseen, Phase::Forward) - 1.0).abs() < 0.25, "{p:?}");
    // One layer: an anchor; other shapes are scaled from it and said to be out of range.
    let one: Vec<Measurement> = layers.iter().filter(|r| r.id.contains("h512-a8-s256-b1-")).cloned().collect();
    let Fitted { model, .. } = fit(&one);
    assert_eq!((model.layer.len(), model.accuracy.len()), (1, 0));
    let p = predict::layer(&model, unseen).unwrap();
    assert!(!p.forward.in_range && p.forward.median_ns > 0.0 && p.forward.low_ns > 0.0);
    // Operations alone: their plain sum.
    let only: Vec<Measurement> = rows.iter().filter(|r| r.kind == Kind::Operation).cloned().collect();
    let p = predict::layer(&fit(&only).model, unseen).unwrap().forward;
    assert!((p.median_ns * 1.06 / layer_truth_ns(&unseen, Phase::Forward) - 1.0).abs() < 0.1, "{p:?}");
    // A single phase of a single layer is too little to predict anything else.
    let error = predict::layer(&fit(&collective_rows(&[(8, 5.0), (64, 6.0)])).model, unseen).unwrap_err().to_string();
    assert!(error.contains("measure gpt-layer"), "{error}");
}

#[test]
fn rows_without_a_time_and_repeated_cases_are_understood() {
    let mut rows = standard_rows(0.0, 12);
    let shape = shapes()[0];
    rows.push(layer_row(&shape, Phase::Forward, 123.0));
    let mut wrong = layer_row(&shape, Phase::BackwardInput, 1.0);
    wrong.id = "gpt/other/backward_input".into();
    wrong.median_ns = None;
    rows.push(wrong);
    let p = predict::layer(&fit(&rows).model, shape).unwrap();
    assert_eq!(p.forward.median_ns, 123.0, "the last line of a case counts");
}

#[test]
fn single_operations_can_be_asked_for() {
    let Fitted { model, .. } = fit(&standard_rows(0.0, 13));
    let operation = Operation::Residual { len: 300_000 };
    let p = predict::operation(&model, &operation, DType::F32).unwrap().unwrap();
    assert!((p.median_ns / truth_ns(&operation) - 1.0).abs() < 0.03 && p.in_range, "{p:?}");
    // Never measured by name: all streaming operations answer together, within the sizes of all of them.
    let adamw = |len| predict::operation(&model, &Operation::Adamw { len }, DType::F32).unwrap().unwrap();
    assert!(adamw(100_000).median_ns > 0.0 && adamw(100_000).in_range);
    assert!(!adamw(1_000_000_000).in_range);
    assert!(model.operations.streaming.contains_key(operations::ANY_STREAMING));
}

/// Published blocks: each as sizes and its forward and backward time in ms on one GPU.
fn published_blocks(gpu: &str) -> Vec<(LayerShape, f64, f64)> {
    let file: Value = serde_json::from_str(include_str!("data/blocks.json")).unwrap();
    let columns = file["columns"].as_array().unwrap();
    let column = |name: &str| columns.iter().position(|c| c == name).unwrap();
    let block = |row: &Value| {
        let size = |name: &str| row[column(name)].as_u64().unwrap();
        let ms = |phase: &str| row[column(&format!("{gpu}_{phase}_ms"))].as_f64().unwrap();
        let sizes = (size("hidden"), size("heads"), size("sequence"), size("micro_batch"));
        let shape = LayerShape::new(sizes.0, sizes.1, sizes.2, sizes.3, DType::F32);
        // Unfused, so that all pairs are multiplied.
        (LayerShape { causal: false, ..shape }, ms("forward"), ms("backward"))
    };
    file["rows"].as_array().unwrap().iter().map(block).collect()
}

/// The backward time is published as one: divided by FLOPs.
fn block_times(shape: &LayerShape, forward_ms: f64, backward_ms: f64) -> [(Phase, f64); 3] {
    let [input, weight] = [Phase::BackwardInput, Phase::BackwardWeight].map(|phase| shape.flop(phase));
    let part = |flop: f64| 1e6 * backward_ms * flop / (input + weight);
    [(Phase::Forward, 1e6 * forward_ms), (Phase::BackwardInput, part(input)), (Phase::BackwardWeight, part(weight))]
}

/// Whole layers without single operations, of three models at many batch sizes: every other row is fitted, the others are
/// predicted. One coefficient a FLOP for sequences of 128 and 2048 was wrong by a fifth.
#[test]
fn published_blocks_between_those_fitted() {
    for gpu in ["rtx3090", "v100", "p100"] {
        let blocks = published_blocks(gpu);
        let mut rows = Vec::new();
        for (shape, forward, backward) in blocks.iter().step_by(2) {
            for (phase, ns) in block_times(shape, *forward, *backward) {
                let mut row = layer_row(shape, phase, ns);
                with(&mut row, "causal", false);
                rows.push(row);
            }
        }
        let Fitted { model, .. } = fit(&rows);
        let mut errors = Vec::new();
        for (shape, forward, backward) in blocks.iter().skip(1).step_by(2) {
            let p = predict::layer(&model, *shape).unwrap();
            let predicted = [p.forward.median_ns, p.backward_input.median_ns + p.backward_weight.median_ns];
            errors.extend(predicted.iter().zip([forward, backward]).map(|(p, ms)| (p / (1e6 * ms) - 1.0).abs()));
        }
        let (median, worst) =
            (bubblebench::stats::median(&errors).unwrap(), errors.iter().copied().fold(0.0, f64::max));
        assert!(median < 0.05 && worst < 0.15, "{gpu}: median {median}, worst {worst}");
    }
}

/// A model of published layers alone has no fits in its file; they are made when it is read.
#[test]
fn layers_that_stand_alone_are_fitted_when_read() {
    let text = include_str!("../results/published/rtx3090/cost_model.json");
    let mut bare: CostModel = serde_json::from_str(text).unwrap();
    bare.operations = OperationFits::default();
    let asked = LayerShape::new(768, 12, 512, 24, DType::F32);
    let scaled = predict::layer(&bare, asked).unwrap();
    let model = cost::with_layer_fits(bare.clone()).unwrap();
    let fits = &model.operations.launch.additivity;
    assert!(fits["forward"].features.contains(&"pairs".to_string()), "{fits:?}");
    let fitted = predict::layer(&model, asked).unwrap();
    let width = |p: &predict::Prediction| (p.high_ns - p.low_ns) / p.median_ns;
    assert!(width(&fitted.forward) < 0.5 * width(&scaled.forward), "{fitted:?} {scaled:?}");
    // Measured products are a better ground than layers: such a model stays as it is.
    let measured = fit(&standard_rows(0.0, 1)).model;
    assert_eq!(cost::with_layer_fits(measured.clone()).unwrap(), measured);
    let mut few = bare;
    few.layer.truncate(3);
    assert_eq!(cost::with_layer_fits(few.clone()).unwrap(), few);
}

/// Products whose time per FLOP changes with their sizes in a way no feature has.
fn uneven_rows(noise: f64, seed: u64) -> Vec<Measurement> {
    let mut random = SplitMix(seed);
    let mut rows = Vec::new();
    for (i, hidden) in [512usize, 768, 1024, 1536, 2048, 3072, 4096].into_iter().enumerate() {
        for (j, width) in [1, 2, 3, 4].into_iter().enumerate() {
            let operation = product(Product::Forward, 2048, hidden, width * hidden);
            let ns = uneven_ns(&operation) * (1.0 + noise * normal(&mut random));
            rows.push(operation_row("h64-a1-s64-b1-t1-f32", &format!("p{i}{j}"), &operation, ns));
        }
    }
    rows
}

fn product(product: Product, rows: usize, inputs: usize, outputs: usize) -> Operation {
    let shape = bubblebench::shape::Linear::new(rows, inputs, outputs);
    Operation::Linear { product, shape, epilogue: Epilogue::None }
}

fn uneven_ns(operation: &Operation) -> f64 {
    let Operation::Linear { shape, .. } = operation else { unreachable!() };
    0.01 * operation.flop() * (0.3 * (2.0 * (shape.inputs as f64).ln()).sin()).exp()
}

#[test]
fn fits_follow_the_nearest_measured_cases() {
    let Fitted { model, .. } = fit(&uneven_rows(0.0, 1));
    assert!(error_of(&model, "gemm").mape_percent < 7.0, "{:?}", error_of(&model, "gemm"));
    let forward = &model.operations.gemm["forward"];
    let anchors = forward.anchors.as_ref().expect("anchors");
    assert_eq!(anchors.points.len(), 28);
    let at = |rows, inputs, outputs| {
        let operation = product(Product::Forward, rows, inputs, outputs);
        let p = predict::operation(&model, &operation, DType::F32).unwrap().unwrap();
        (p.median_ns / uneven_ns(&operation), p.median_ns / operation.flop())
    };
    assert!((at(2048, 1536, 3072).0 - 1.0).abs() < 0.01, "exact where it was measured");
    assert!((at(2048, 1280, 2560).0 - 1.0).abs() < 0.15, "close between");
    let far = at(2048, 1 << 38, 1 << 38).1;
    let plain = forward.features.iter().position(|f| f == "flop").map(|i| forward.coefficients_ns[i]).unwrap();
    assert!((far / plain - 1.0).abs() < 0.05, "and the sum of features far away: {far}, {plain}");
}

/// What docs/cost-model.md says of the file is enough to read it.
#[test]
fn the_correction_can_be_read_from_the_file_alone() {
    let Fitted { model, .. } = fit(&uneven_rows(0.02, 2));
    let fit = serde_json::to_value(&model).unwrap()["operations"]["gemm"]["forward"].clone();
    let near = &fit["anchors"];
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let (m, k, n) = (2048.0, 1100.0, 2500.0);
    let sum: f64 = fit["features"]
        .as_array()
        .unwrap()
        .iter()
        .zip(numbers(&fit["coefficients_ns"]))
        .map(|(name, c)| match name.as_str().unwrap() {
            "1" => c,
            "flop" => c * 2.0 * m * n * k,
            "bytes" => c * 4.0 * (m * n + n * k + m * k),
            "weights" => c * n * k,
            other => panic!("{other}"),
        })
        .sum();
    assert_eq!(near["sizes"], serde_json::json!(["m", "n", "k"]));
    let (mut exponent, mut low, mut high) = (0.0, 0.0f64, 0.0f64);
    for point in near["points"].as_array().unwrap() {
        let apart: f64 = numbers(&point["at"]).iter().zip([m, n, k]).map(|(a, b)| (b / a).ln().powi(2)).sum();
        let h = (3.0 * apart).sqrt() / near["length"].as_f64().unwrap();
        exponent += point["weight"].as_f64().unwrap() * (1.0 + h) * (-h).exp();
        let log = point["ratio"].as_f64().unwrap().ln();
        (low, high) = (low.min(log), high.max(log));
    }
    let by_hand = sum * exponent.clamp(low, high).exp();
    let operation = product(Product::Forward, 2048, 1100, 2500);
    let p = predict::operation(&model, &operation, DType::F32).unwrap().unwrap();
    assert!((p.median_ns / by_hand - 1.0).abs() < 1e-9, "{} is not {by_hand}", p.median_ns);
}

/// Where rows are few, the time is the weights': a feature of all three products, whichever side they are on.
#[test]
fn products_of_few_rows_cost_their_weights() {
    let mut rows = Vec::new();
    let mut random = SplitMix(3);
    for (i, (count, hidden)) in [(1024, 256), (256, 512), (128, 1024), (64, 2048)].into_iter().enumerate() {
        for (j, (inputs, outputs)) in [(1, 1), (1, 3), (1, 4), (4, 1)].into_iter().enumerate() {
            for kind in [Product::Forward, Product::ToInputs, Product::ToWeights] {
                let operation = product(kind, count, inputs * hidden, outputs * hidden);
                let weights = (inputs * hidden * outputs * hidden) as f64;
                let ns = (0.006 * operation.flop() + 0.9 * weights) * (1.0 + 0.03 * normal(&mut random));
                rows.push(operation_row("h64-a1-s64-b1-t1-f32", &format!("p{i}{j}"), &operation, ns));
            }
        }
    }
    let Fitted { model, .. } = fit(&rows);
    for name in ["forward", "backward_input", "backward_weight"] {
        let fit = &model.operations.gemm[name];
        assert!(fit.features.contains(&"weights".to_string()), "{name}: {:?}", fit.features);
    }
    assert!(error_of(&model, "gemm").mape_percent < 5.0, "{:?}", error_of(&model, "gemm"));
}

/// Llama's operations, the optimizer's, the embedding's and the loss's have a price though none was measured by name.
#[test]
fn streaming_operations_without_a_name_are_priced() {
    let Fitted { model, .. } = fit(&standard_rows(0.02, 14));
    let rows = bubblebench::shape::Rows { rows: 512, cols: 768 };
    let len = rows.len();
    for operation in [
        Operation::RmsnormForward(rows),
        Operation::RmsnormToInputs(rows),
        Operation::RmsnormToWeights(rows),
        Operation::RotaryForward { len },
        Operation::RotaryBackward { len },
        Operation::SwigluForward { len },
        Operation::SwigluBackward { len },
        Operation::Adamw { len },
        Operation::EmbeddingForward(rows),
        Operation::EmbeddingToWeights(rows),
        Operation::CrossEntropy(rows),
    ] {
        let p = predict::operation(&model, &operation, DType::F32).unwrap();
        assert!(p.is_some_and(|p| p.median_ns > 0.0), "{}: {p:?}", operation.name());
    }
    let llama = LayerShape::new(768, 12, 256, 2, DType::F32).llama(4, 2048);
    let p = predict::layer(&model, llama).unwrap();
    let truth = layer_truth_ns(&llama, Phase::Forward);
    assert!((p.forward.median_ns / truth - 1.0).abs() < 0.1, "{p:?} is not {truth}");
}

fn collective_rows(points: &[(u64, f64)]) -> Vec<Measurement> {
    points
        .iter()
        .map(|&(bytes, us)| {
            let id = format!("nccl/all_reduce/r8/f32/{bytes}");
            let mut m = timed(Measurement::blank(id, Kind::Collective, Backend::Cuda), 1e3 * us);
            with(&mut m, "operation", "all_reduce");
            with(&mut m, "dtype", "f32");
            with(&mut m, "in_place", false);
            [("ranks", 8), ("nodes", 1), ("bytes", bytes)].iter().for_each(|(k, v)| with(&mut m, k, *v));
            m.bytes = Some(bytes as f64);
            m
        })
        .collect()
}

fn ask(ranks: u64, bytes: u64) -> CollectiveQuery {
    CollectiveQuery { operation: "all_reduce".into(), ranks, nodes: 1, bytes, isolated: false, dtype: None }
}

/// Two published tables (their source stands in the file). Every row predicted from every second one: a gap of ×16 in
/// size; and from all others but itself, as `accuracy` does it. Sizes measured are answered as measured.
#[test]
fn published_all_reduce_tables_are_followed() {
    let tables: Value = serde_json::from_str(include_str!("data/nccl_all_reduce.json")).unwrap();
    let mut errors = Vec::new();
    for key in ["a100_8", "h200_8"] {
        let rows: Vec<(u64, f64)> = tables[key]["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| {
                let bytes = r["bytes"].as_u64().unwrap();
                let from_bus = || bytes as f64 * 2.0 * 7.0 / 8.0 / (r["bus_gb_per_s"].as_f64().unwrap() * 1e3);
                (bytes, r["time_us"].as_f64().unwrap_or_else(from_bus))
            })
            .collect();
        let all = fit(&collective_rows(&rows)).model;
        for &(bytes, us) in &rows {
            let p = predict::collective(&all, &ask(8, bytes)).unwrap();
            assert!((p.median_ns / 1e3 / us - 1.0).abs() < 0.035 && p.in_range, "{key} {bytes}: {p:?} is not {us} µs");
        }
        for offset in [0, 1] {
            let last = rows.len() - 1;
            let kept: Vec<(u64, f64)> = rows
                .iter()
                .enumerate()
                .filter(|(i, _)| i % 2 == offset || *i == 0 || *i == last)
                .map(|(_, r)| *r)
                .collect();
            let model = fit(&collective_rows(&kept)).model;
            for &(bytes, us) in rows.iter().filter(|r| !kept.contains(r)) {
                let p = predict::collective(&model, &ask(8, bytes)).unwrap();
                errors.push(100.0 * (p.median_ns / 1e3 / us - 1.0).abs());
            }
        }
        assert!(error_of(&all, "collective/all_reduce").mape_percent < 12.0, "{:?}", all.accuracy);
    }
    let (median, worst) = (bubblebench::stats::median(&errors).unwrap(), errors.iter().copied().fold(0.0, f64::max));
    assert!(median < 10.0 && worst < 30.0, "median {median}, worst {worst}: {errors:?}");
}

/// Least relative squares of one line a + b·bytes: what a model without segments would say.
fn one_line(rows: &[(u64, f64)]) -> impl Fn(u64) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| rows.iter().map(|&(x, t)| f(x as f64, t)).sum::<f64>();
    let [uu, ux, xx] = [sum(&|_, t| 1.0 / (t * t)), sum(&|x, t| x / (t * t)), sum(&|x, t| x * x / (t * t))];
    let [u, x] = [sum(&|_, t| 1.0 / t), sum(&|x, t| x / t)];
    let determinant = uu * xx - ux * ux;
    let (a, b) = ((u * xx - x * ux) / determinant, (uu * x - ux * u) / determinant);
    move |bytes| a + b * bytes as f64
}

/// Twelve published sweeps of nccl-tests with every power of two: every second size is fitted, the others predicted.
#[test]
fn sizes_between_those_of_published_sweeps() {
    let file: Value = serde_json::from_str(include_str!("data/nccl_sweeps.json")).unwrap();
    let (mut ours, mut line) = (Vec::new(), Vec::new());
    for sweep in file["sweeps"].as_array().unwrap() {
        let rows: Vec<(u64, f64)> = serde_json::from_value(sweep["rows"].clone()).unwrap();
        let fitted: Vec<(u64, f64)> = rows.iter().copied().step_by(2).collect();
        let (model, simple) = (fit(&collective_rows(&fitted)).model, one_line(&fitted));
        for &(bytes, us) in rows.iter().skip(1).step_by(2).filter(|r| r.0 < fitted[fitted.len() - 1].0) {
            let p = predict::collective(&model, &ask(8, bytes)).unwrap();
            assert!(p.in_range);
            ours.push(100.0 * (p.median_ns / 1e3 / us - 1.0).abs());
            line.push(100.0 * (simple(bytes) / us - 1.0).abs());
        }
    }
    let median = |errors: &[f64]| bubblebench::stats::median(errors).unwrap();
    assert!(ours.len() > 90 && median(&ours) < 2.5, "{} sizes, median {}", ours.len(), median(&ours));
    assert!(median(&line) > 3.0 * median(&ours), "one line: {}, segments: {}", median(&line), median(&ours));
}

#[test]
fn collectives_beyond_what_was_measured() {
    let points: Vec<(u64, f64)> = (10..27).step_by(2).map(|p| (1u64 << p, 20.0 + 1e-5 * (1u64 << p) as f64)).collect();
    let model = fit(&collective_rows(&points)).model;
    let at = |ranks, bytes| predict::collective(&model, &ask(ranks, bytes)).unwrap();
    assert!(at(8, 1 << 10).in_range && at(8, 1 << 26).in_range);
    assert!(!at(8, (1 << 10) - 1).in_range && !at(8, (1 << 26) + 1).in_range);
    assert!((at(8, 8).median_ns / 20_000.0 - 1.0).abs() < 0.05);
    assert!((at(8, 1 << 30).median_ns / (20_000.0 + 0.01 * f64::from(1 << 30)) - 1.0).abs() < 0.05);
    // A tree of 16 has 4/3 of the steps of one of 8, in which a quarter of the latency is taken to lie; a ring (15/16)/(7/8)
    // of the bytes over each link.
    let more = at(16, 1 << 20);
    let expected = 20_000.0 * (0.75 + 0.25 * 4.0 / 3.0) + 0.01 * f64::from(1 << 20) * (15.0 / 16.0) / (7.0 / 8.0);
    assert!((more.median_ns / expected - 1.0).abs() < 0.05 && !more.in_range, "{more:?} is not {expected}");
    assert!(more.high_ns / more.low_ns > at(8, 1 << 20).high_ns / at(8, 1 << 20).low_ns);
    for wrong in [
        CollectiveQuery { nodes: 2, ..ask(8, 64) },
        CollectiveQuery { operation: "magic".into(), ..ask(8, 64) },
        CollectiveQuery { isolated: true, ..ask(8, 64) },
        CollectiveQuery { dtype: Some("bf16".into()), ..ask(8, 64) },
        ask(1, 64),
        ask(8, 0),
    ] {
        assert!(predict::collective(&model, &wrong).is_err(), "{wrong:?}");
    }
}

/// Where the records name another algorithm from a size on, no segment runs over it, and it is what more ranks scale by.
#[test]
fn a_switch_the_records_name_is_a_breakpoint() {
    let points: Vec<(u64, f64)> = (10..27).map(|p| (1u64 << p, 20.0 + 1e-5 * (1u64 << p) as f64)).collect();
    let mut rows = collective_rows(&points);
    assert_eq!(fit(&rows).model.collectives[0].segments.len(), 1, "one line without the names");
    for row in &mut rows {
        let large = row.param_u64("bytes") >= Some(1 << 20);
        with(row, "algorithm", if large { "nvls" } else { "ring" });
        with(row, "protocol", if large { "simple" } else { "ll128" });
    }
    let model = fit(&rows).model;
    let curve = &model.collectives[0];
    assert!(curve.segments.iter().any(|s| s.from_bytes == 1 << 20), "{:?}", curve.segments);
    let names: Vec<(u64, &str)> = curve.algorithms.iter().map(|a| (a.from_bytes, a.algorithm.as_str())).collect();
    assert_eq!(names, [(1 << 10, "ring/ll128"), (1 << 20, "nvls/simple")]);
    let at = |ranks, bytes| predict::collective(&model, &ask(ranks, bytes)).unwrap().median_ns;
    assert!((at(16, 1 << 25) / at(8, 1 << 25) - 1.0).abs() < 1e-6, "a switch that adds up does not mind more ranks");
    assert!(at(16, 1 << 12) > 1.2 * at(8, 1 << 12), "a ring does");
}

/// Rows from graphs or registered buffers are no points of the plain curve, but make one where there is nothing else.
#[test]
fn variants_do_not_mix_with_the_plain_curve() {
    let points: Vec<(u64, f64)> = (10..27).step_by(2).map(|p| (1u64 << p, 20.0 + 1e-5 * (1u64 << p) as f64)).collect();
    let variants: Vec<Measurement> = collective_rows(&points)
        .into_iter()
        .map(|mut m| {
            m.id.push_str("/registered");
            with(&mut m, "registered", true);
            m.median_ns = m.median_ns.map(|ns| 3.0 * ns);
            m
        })
        .collect();
    let at = |rows: &[Measurement]| predict::collective(&fit(rows).model, &ask(8, 1 << 20)).unwrap().median_ns;
    let plain = at(&collective_rows(&points));
    assert_eq!(at(&[collective_rows(&points), variants.clone()].concat()), plain);
    assert_eq!(at(&[variants.clone(), collective_rows(&points)].concat()), plain);
    assert!((at(&variants) / plain - 3.0).abs() < 0.01);
}

/// Ranks between two that were measured lie between their times; nodes beyond those measured are another distance.
#[test]
fn ranks_and_nodes_between_those_measured() {
    let points: Vec<(u64, f64)> = (10..27).step_by(2).map(|p| (1u64 << p, 20.0 + 1e-5 * (1u64 << p) as f64)).collect();
    let mut rows = Vec::new();
    for (ranks, nodes, slower) in [(2u64, 1u64, 1.0), (8, 1, 1.6), (16, 2, 4.0)] {
        for mut m in collective_rows(&points) {
            m.id.push_str(&format!("/r{ranks}"));
            with(&mut m, "ranks", ranks);
            with(&mut m, "nodes", nodes);
            m.median_ns = m.median_ns.map(|ns| slower * ns);
            (m.ci95_low_ns, m.ci95_high_ns) = (m.median_ns, m.median_ns);
            rows.push(m);
        }
    }
    let model = fit(&rows).model;
    let at = |ranks, nodes| predict::collective(&model, &CollectiveQuery { nodes, ..ask(ranks, 1 << 20) }).unwrap();
    let (two, four, eight) = (at(2, 1), at(4, 1), at(8, 1));
    assert!(two.in_range && eight.in_range && !four.in_range);
    assert!(two.median_ns < four.median_ns && four.median_ns < eight.median_ns, "{two:?} {four:?} {eight:?}");
    let (measured, more) = (at(16, 2), at(64, 8));
    assert!(measured.in_range && !more.in_range && more.median_ns > measured.median_ns);
    assert!(more.high_ns / more.low_ns > measured.high_ns / measured.low_ns);
    let sentence = predict::extrapolation(&model, &CollectiveQuery { nodes: 8, ..ask(64, 1 << 20) }).unwrap();
    assert!(
        sentence.contains("64 ranks on 8 nodes were not measured; carried over from 16 ranks on 2 nodes"),
        "{sentence}"
    );
    assert_eq!(predict::extrapolation(&model, &ask(8, 1 << 20)), None);
}

/// Rows of one operation between `ranks` on `nodes`, from a latency in µs and a cost per byte in µs.
fn operation_rows(operation: &str, ranks: u64, nodes: u64, latency_us: f64, us_per_byte: f64) -> Vec<Measurement> {
    let points: Vec<(u64, f64)> =
        (10..31).step_by(2).map(|p| (1u64 << p, latency_us + us_per_byte * (1u64 << p) as f64)).collect();
    let mut rows = collective_rows(&points);
    for m in &mut rows {
        m.id = format!("nccl/{operation}/r{ranks}/n{nodes}/f32/{}", m.param_u64("bytes").unwrap());
        with(m, "operation", operation);
        with(m, "ranks", ranks);
        with(m, "nodes", nodes);
    }
    rows
}

fn ask_for(operation: &str, ranks: u64, nodes: u64, bytes: u64) -> CollectiveQuery {
    CollectiveQuery { operation: operation.into(), nodes, ..ask(ranks, bytes) }
}

/// Sequence parallelism asks for all-gathers and reduce-scatters where most tables hold all-reduces alone: each is half.
#[test]
fn halves_of_an_all_reduce_are_derived_and_said_to_be() {
    let model = fit(&operation_rows("all_reduce", 8, 1, 20.0, 1e-5)).model;
    let whole = predict::collective(&model, &ask(8, 1 << 28)).unwrap();
    let halves = ["all_gather", "reduce_scatter"].map(|half| {
        let query = ask_for(half, 8, 1, 1 << 28);
        let sentence = predict::extrapolation(&model, &query).unwrap();
        assert!(sentence.contains(&format!("{half} between 8 ranks was not measured; derived from all_reduce")));
        predict::collective(&model, &query).unwrap()
    });
    let sum = halves[0].median_ns + halves[1].median_ns;
    assert!((sum / whole.median_ns - 1.0).abs() < 0.02, "{halves:?} are not {whole:?}");
    for half in halves {
        assert!(!half.in_range && half.high_ns / half.low_ns > 1.3 * whole.high_ns / whole.low_ns, "{half:?}");
    }
    let both = [operation_rows("all_gather", 8, 1, 20.0, 1e-5), operation_rows("reduce_scatter", 8, 1, 20.0, 2e-5)];
    let model = fit(&both.concat()).model;
    let sum = predict::collective(&model, &ask(8, 1 << 28)).unwrap();
    assert!((sum.median_ns / (3e-2 * 2f64.powi(28)) - 1.0).abs() < 0.02 && !sum.in_range, "{sum:?}");
    let sentence = predict::extrapolation(&model, &ask(8, 1 << 28)).unwrap();
    assert!(sentence.contains("derived from all_gather and reduce_scatter between 8 ranks"), "{sentence}");
    let model = fit(&both[0]).model;
    let other = predict::collective(&model, &ask_for("reduce_scatter", 8, 1, 1 << 20)).unwrap().median_ns;
    let own = predict::collective(&model, &ask_for("all_gather", 8, 1, 1 << 20)).unwrap().median_ns;
    assert!((other / own - 1.0).abs() < 1e-9, "one half takes what the other takes");
}

/// Deriving errs as much as carrying to four times the ranks, so the nearer of the two answers.
#[test]
fn the_nearer_of_own_operation_and_own_ranks_answers() {
    let rows = |ranks| {
        let few = operation_rows("all_gather", ranks, 1, 20.0, 1e-5);
        fit(&[few, operation_rows("all_reduce", 16, 1, 40.0, 6e-5)].concat()).model
    };
    let from = |ranks| predict::extrapolation(&rows(ranks), &ask_for("all_gather", 16, 1, 1 << 20)).unwrap();
    assert!(from(8).contains("carried over from 8 ranks"), "{}", from(8));
    assert!(from(2).contains("derived from all_reduce between 16 ranks"), "{}", from(2));
}

/// Messages from collectives and back, whatever of the two was measured; but nothing of a network from within a node.
#[test]
fn messages_and_collectives_answer_for_each_other() {
    let model = fit(&operation_rows("all_reduce", 8, 1, 20.0, 1e-5)).model;
    let message = predict::collective(&model, &ask_for("send_recv", 2, 1, 1 << 28)).unwrap();
    assert!((message.median_ns / (1e-2 * 2f64.powi(28) / 1.75) - 1.0).abs() < 0.05, "{message:?}");
    assert!(!message.in_range && message.high_ns > 1.9 * message.median_ns, "{message:?}");
    assert!(predict::collective(&model, &ask_for("send_recv", 2, 2, 1 << 20)).is_err());
    assert!(predict::collective(&model, &ask_for("all_gather", 16, 2, 1 << 20)).is_err());

    let mut rows = operation_rows("send_recv", 2, 1, 8.0, 4e-6);
    rows.iter_mut().for_each(|m| with(m, "pattern", "ping_pong"));
    let model = fit(&rows).model;
    for (operation, moved) in [("all_reduce", 1.75), ("all_gather", 0.875), ("broadcast", 1.0)] {
        let p = predict::collective(&model, &ask_for(operation, 8, 1, 1 << 28)).unwrap();
        assert!((p.median_ns / (4e-3 * 2f64.powi(28) * moved) - 1.0).abs() < 0.05 && !p.in_range, "{operation}: {p:?}");
    }
}

fn topology(kind: TopologyKind) -> Topology {
    Topology {
        kind,
        gpus_per_node: Some(4),
        linked_gpus: None,
        link_bytes_per_s: None,
        network_bytes_per_s: None,
        source: Some("a data sheet".into()),
    }
}

/// From 2 ranks to 4 a ring moves 1.5 times the bytes; where each pair has links of its own, over 3 times the links.
#[test]
fn what_joins_the_gpus_decides_how_bandwidth_is_carried() {
    let mut model = fit(&operation_rows("all_reduce", 2, 1, 20.0, 1e-5)).model;
    let at = |model: &CostModel, ranks| predict::collective(model, &ask(ranks, 1 << 30)).unwrap();
    let two = at(&model, 2).median_ns;
    let guessed = at(&model, 4);
    model.topology = Some(topology(TopologyKind::Switch));
    assert_eq!(at(&model, 4), guessed, "a switch is what nothing else says");
    assert!((guessed.median_ns / two - 1.5).abs() < 0.01, "{guessed:?}");
    model.topology = Some(topology(TopologyKind::Pairwise));
    assert!((at(&model, 4).median_ns / two - 0.5).abs() < 0.01);
    let bridged = Topology { linked_gpus: Some(2), ..topology(TopologyKind::Pairwise) };
    model.topology = Some(bridged);
    let beyond = at(&model, 4);
    assert!(beyond.high_ns > 8.0 * beyond.median_ns, "a group beyond a bridged pair passes the host: {beyond:?}");
    assert!(predict::extrapolation(&model, &ask(4, 1 << 30)).unwrap().contains("passes other links"));
    // Of two numbers of ranks the one on the same side of the bridges answers, not the nearer one.
    let pair_and_four =
        [operation_rows("all_reduce", 2, 1, 20.0, 5e-6), operation_rows("all_reduce", 4, 1, 20.0, 6e-5)].concat();
    let model = fit(&pair_and_four).model;
    let three = predict::collective(&model, &ask(3, 1 << 30)).unwrap().median_ns;
    let four = at(&model, 4).median_ns;
    assert!(three > 0.8 * four, "{three} is not like {four}");
}

/// A network nobody measured answers by its stated bandwidth, marked and wide; without one it stays unknown.
#[test]
fn a_stated_network_answers_where_none_was_measured() {
    let mut model = fit(&operation_rows("all_reduce", 8, 1, 20.0, 1e-5)).model;
    let query = ask_for("all_reduce", 16, 2, 1 << 30);
    assert!(predict::collective(&model, &query).is_err());
    model.topology = Some(Topology { network_bytes_per_s: Some(25e9), ..topology(TopologyKind::Switch) });
    let p = predict::collective(&model, &query).unwrap();
    // 8 GPUs of a node share out the ring: 8 × 25 GB/s, of which 80 % are reached.
    assert!((p.median_ns / (1.875 * 2f64.powi(30) / 160.0) - 1.0).abs() < 0.02 && !p.in_range, "{p:?}");
    assert!(p.high_ns > 2.0 * p.median_ns && p.low_ns < 0.5 * p.median_ns);
    assert!(predict::extrapolation(&model, &query).unwrap().contains("the bandwidth stated by a data sheet"));
    for network in [0.0, -1.0, f64::NAN] {
        model.topology = Some(Topology { network_bytes_per_s: Some(network), ..topology(TopologyKind::Switch) });
        assert!(cost::check(&model).is_err(), "{network}");
    }
}

/// The all-reduces of published A100 nodes: each number of ranks predicted from the others, at the sizes of its own curve.
#[test]
fn published_numbers_of_ranks_are_predicted_from_others() {
    // A file of version 1, of which the all-reduces are microsoft/vidur's profiles and nccl-tests'.
    let text = include_str!("data/cost_model_1.json");
    let whole: CostModel = serde_json::from_str(text).unwrap();
    let (mut errors, mut held) = (Vec::new(), 0);
    for out in whole.collectives.iter().filter(|c| c.operation == "all_reduce") {
        let mut model = whole.clone();
        model.collectives.retain(|c| c.operation == "all_reduce" && (c.ranks, c.nodes) != (out.ranks, out.nodes));
        for segment in &out.segments {
            let query = ask_for("all_reduce", out.ranks, out.nodes, segment.from_bytes);
            let truth = predict::collective(&whole, &query).unwrap().median_ns;
            let p = predict::collective(&model, &query).unwrap();
            assert!(!p.in_range);
            errors.push((p.median_ns / truth - 1.0).abs());
            held += usize::from(p.low_ns <= truth && truth <= p.high_ns);
        }
    }
    let median = bubblebench::stats::median(&errors).unwrap();
    let share = held as f64 / errors.len() as f64;
    assert!(errors.len() > 45 && median < 0.25 && share >= 0.9, "{median} of {}, {share} held", errors.len());
}

#[test]
fn oversubscribed_rows_and_in_place_rows_keep_their_place() {
    let points: Vec<(u64, f64)> = (6..26).step_by(3).map(|p| (1u64 << p, 20.0 + 1e-3 * (1u64 << p) as f64)).collect();
    let mut rows = collective_rows(&points);
    let mut random = SplitMix(4);
    for mut m in collective_rows(&points) {
        m.id.push_str("/r16");
        with(&mut m, "ranks", 16);
        m.flags.push("oversubscribed".into());
        m.median_ns = m.median_ns.map(|ns| ns * (1.0 + 20.0 * random.unit()));
        rows.push(m);
    }
    for mut m in collective_rows(&points) {
        m.id.push_str("/in_place");
        with(&mut m, "in_place", true);
        m.median_ns = m.median_ns.map(|ns| 3.0 * ns);
        rows.push(m);
    }
    let model = fit(&rows).model;
    assert!(error_of(&model, "collective").mape_percent < 2.0, "{:?}", model.accuracy);
    let new_size = error_of(&model, "collective/new size");
    assert!(new_size.mape_percent < 2.0 && new_size.held_out == error_of(&model, "collective").held_out);
    let fit16 = model.collectives.iter().find(|c| c.ranks == 16).unwrap();
    assert_eq!(fit16.flags, ["oversubscribed"]);
    let p = predict::collective(&model, &ask(8, points[2].0)).unwrap();
    assert!((p.median_ns / 1e3 / points[2].1 - 1.0).abs() < 0.02, "out of place is what is answered: {p:?}");
}

fn corun_row(main: &str, side: &str, sharing: &str, slowdown: f64) -> Measurement {
    let id = format!("corun/{sharing}/{main}+{side}");
    let mut m = timed(Measurement::blank(id, Kind::Corun, Backend::Host), 1e6);
    [("main", main), ("side", side), ("sharing", sharing)].iter().for_each(|(k, v)| with(&mut m, k, *v));
    m.slowdown = Some(Interval { median: slowdown, low: 0.99 * slowdown, high: 1.01 * slowdown });
    (m.side_alone_per_s, m.side_together_per_s) = (Some(100.0), Some(60.0));
    m
}

const RESOURCES: [&str; 3] = ["fma", "memory", "cache"];

/// pressure of side s on resource r, sensitivity of main m to r: plain numbers, and what they add up to.
fn corun_rows(noise: f64, seed: u64) -> Vec<Measurement> {
    let mut random = SplitMix(seed);
    let sides = [
        ("mlp-b32", [0.5, 0.1, 0.2]),
        ("convnet-b16", [0.8, 0.3, 0.1]),
        ("lstm-b16", [0.2, 0.6, 0.4]),
        ("gpt-b2", [0.6, 0.5, 0.5]),
    ];
    let mains =
        [("gpt-a-forward", [0.6, 0.4, 0.3]), ("gpt-a-backward", [0.9, 0.2, 0.5]), ("gpt-b-forward", [0.3, 0.8, 0.2])];
    let mut rows = Vec::new();
    let mut row = |main: &str, side: &str, slowdown: f64| {
        rows.push(corun_row(main, side, "free", slowdown * (1.0 + noise * normal(&mut random))));
    };
    for (r, resource) in RESOURCES.iter().enumerate() {
        sides.iter().for_each(|(side, p)| row(&format!("probe-{resource}"), side, 1.0 + p[r]));
        row(&format!("probe-{resource}"), &format!("pressure-{resource}"), 1.8);
        mains.iter().for_each(|(main, s)| row(main, &format!("pressure-{resource}"), 1.0 + 0.8 * s[r]));
    }
    for (main, s) in &mains {
        row(main, "nothing", 1.0);
        for (side, p) in &sides {
            row(main, side, 1.0 + s.iter().zip(p).map(|(s, p)| s * p).sum::<f64>());
        }
    }
    rows
}

#[test]
fn interference_of_unmeasured_pairs_follows_pressure_and_sensitivity() {
    let all = corun_rows(0.005, 21);
    let (left_out, rows): (Vec<_>, Vec<_>) = all.into_iter().partition(|r| r.id == "corun/free/gpt-b-forward+lstm-b16");
    let Fitted { model, .. } = fit(&rows);
    let truth = left_out[0].slowdown.unwrap().median;
    let p = predict::corun(&model, "gpt-b-forward", "lstm-b16", "free").unwrap();
    assert!((p.slowdown.median / truth - 1.0).abs() < 0.05, "{p:?} is not {truth}");
    assert!(!p.measured && p.in_range && p.slowdown.low <= truth && truth <= p.slowdown.high, "{p:?}");
    assert!((p.side_rate.unwrap() - 0.6).abs() < 1e-9);
    assert!(error_of(&model, "corun").mape_percent < 5.0, "{:?}", model.accuracy);
    let floor = model.interference.noise_floor.unwrap();
    assert!((floor.median - 1.0).abs() < 0.02);
    let measured = predict::corun(&model, "gpt-a-forward", "mlp-b32", "free").unwrap();
    assert!(measured.measured && measured.in_range);
    assert!(predict::corun(&model, "gpt-a-forward", "nothing", "free").unwrap().measured);
    for (main, sharing) in [("gpt-c", "free"), ("gpt-a-forward", "split")] {
        assert!(predict::corun(&model, main, "nothing", sharing).is_err(), "{main} {sharing}");
    }
    assert!((model.interference.pressure["lstm-b16"]["free/memory"] - 0.6).abs() < 0.05);
    for (main, side, sharing) in
        [("gpt-c", "mlp-b32", "free"), ("gpt-a-forward", "mlp-b99", "free"), ("gpt-a-forward", "mlp-b32", "split")]
    {
        assert!(predict::corun(&model, main, side, sharing).is_err(), "{main} {side} {sharing}");
    }
}

/// Two programs on the same cores slow each other down by a factor that has nothing to do with memory or caches: every
/// probe is twice as slow beside any side. Added up that would be 1 + 3; measured it is 2.
#[test]
fn a_shared_core_is_not_counted_once_per_resource() {
    let mut rows = Vec::new();
    let sides = ["mlp-b32", "convnet-b16", "lstm-b16", "gpt-b2"];
    let mut random = SplitMix(22);
    let mut two = || 2.0 + 0.04 * random.symmetric();
    for resource in RESOURCES {
        sides.iter().for_each(|side| rows.push(corun_row(&format!("probe-{resource}"), side, "free", two())));
        rows.push(corun_row(&format!("probe-{resource}"), &format!("pressure-{resource}"), "free", two()));
        rows.push(corun_row("gpt-a-forward", &format!("pressure-{resource}"), "free", two()));
        rows.push(corun_row("gpt-a-backward", &format!("pressure-{resource}"), "free", two()));
    }
    for main in ["gpt-a-forward", "gpt-a-backward"] {
        sides.iter().for_each(|side| rows.push(corun_row(main, side, "free", two())));
    }
    let gone = rows.pop().unwrap();
    let model = fit(&rows).model;
    let p = predict::corun(&model, "gpt-a-backward", "gpt-b2", "free").unwrap();
    assert!((p.slowdown.median / gone.slowdown.unwrap().median - 1.0).abs() < 0.06, "{p:?}");
}

/// A planner's layer is rarely the very one that was measured beside others: the nearest of its phase answers, and says so.
#[test]
fn a_layer_of_another_shape_borrows_from_the_nearest() {
    let small = "gpt-h256-a4-s128-b1-t1-f32-forward";
    let large = "gpt-h1024-a16-s512-b1-t1-f32-forward";
    let model = fit(&[corun_row(small, "mlp-b32", "nice", 1.1), corun_row(large, "mlp-b32", "nice", 1.5)]).model;
    let near = |main: &str| predict::corun(&model, main, "mlp-b32", "nice");
    let p = near("gpt-h768-a12-s512-b1-t1-f32-forward").unwrap();
    assert!(p.slowdown.median == 1.5 && !p.in_range && !p.measured && p.slowdown.high > 1.5 * 1.2, "{p:?}");
    assert_eq!(near("gpt-h256-a4-s64-b1-t1-f32-forward").unwrap().slowdown.median, 1.1);
    assert!(near("gpt-h256-a4-s64-b1-t1-f32-backward").is_err() && near("other").is_err());
}

/// The nearest layer counts only if it was measured under the mode that is asked for; a progress nobody counted is not 0.
#[test]
fn the_nearest_layer_is_one_of_the_same_sharing_mode() {
    let (near, far) = ("gpt-h512-a8-s128-b1-t1-f32-forward", "gpt-h2048-a32-s512-b1-t1-f32-forward");
    let mut uncounted = corun_row(far, "mlp-b32", "split", 1.3);
    uncounted.side_together_per_s = None;
    let model = fit(&[corun_row(near, "mlp-b32", "nice", 1.1), uncounted]).model;
    let p = predict::corun(&model, "gpt-h512-a8-s256-b1-t1-f32-forward", "mlp-b32", "split").unwrap();
    assert_eq!((p.slowdown.median, p.side_rate), (1.3, None));
    assert_eq!(model.interference.pairs.iter().filter(|p| p.side_rate.is_none()).count(), 1);
}

/// Pressure at half strength is a side like any other, not a second scale of its resource.
#[test]
fn only_full_pressure_sets_the_scale() {
    let mut rows = corun_rows(0.0, 24);
    rows.push(corun_row("probe-memory", "pressure-memory-50", "free", 1.4));
    rows.push(corun_row("gpt-a-forward", "pressure-memory-50", "free", 1.2));
    let model = fit(&rows).model;
    let keys: Vec<&String> = model.interference.sensitivity["gpt-a-forward"].keys().collect();
    assert_eq!(keys, ["free/cache", "free/fma", "free/memory", "free/presence"]);
}

/// What a co-run of one main beside one resource alone leaves: the additive model without weights.
#[test]
fn few_corun_rows_do_not_fail() {
    let few: Vec<Measurement> = corun_rows(0.0, 23).into_iter().step_by(5).collect();
    let Fitted { model, .. } = fit(&few);
    assert!(!model.interference.pairs.is_empty());
    let one = fit(&[corun_row("gpt-a-forward", "mlp-b32", "nice", 1.2)]);
    assert!(one.notes.iter().any(|n| n.contains("under nice")), "{:?}", one.notes);
    assert_eq!(predict::corun(&one.model, "gpt-a-forward", "mlp-b32", "nice").unwrap().slowdown.median, 1.2);
}

#[test]
fn models_with_unusable_numbers_are_refused() {
    let good = fit(&standard_rows(0.02, 30)).model;
    assert!(cost::check(&good).is_ok());
    let broken = |change: fn(&mut CostModel)| {
        let mut model = good.clone();
        change(&mut model);
        cost::check(&model).is_err()
    };
    assert!(broken(|m| m.operations.gemm.get_mut("forward").unwrap().coefficients_ns[0] = -1.0));
    assert!(broken(|m| m.operations.gemm.get_mut("forward").unwrap().coefficients_ns.clear()));
    assert!(broken(|m| m.operations.gemm.get_mut("forward").unwrap().features[0] = "flops".into()));
    let near = fit(&uneven_rows(0.02, 2)).model;
    let misplaced = |change: fn(&mut Anchors)| {
        let mut model = near.clone();
        change(model.operations.gemm.get_mut("forward").unwrap().anchors.as_mut().unwrap());
        cost::check(&model).is_err()
    };
    assert!(!misplaced(|_| ()));
    assert!(misplaced(|a| a.sizes[0] = "rows of the product".into()));
    assert!(misplaced(|a| a.length = 0.0));
    assert!(misplaced(|a| a.points[0].ratio = -1.0));
    assert!(misplaced(|a| a.points[0].weight = f64::NAN));
    assert!(misplaced(|a| a.points[0].at.truncate(2)));
    assert!(broken(|m| m.layer[0].forward_ns.median = f64::NAN));
    assert!(broken(|m| m.layer[0].shape.heads = 7));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever rows are there, whatever their times: no panic, no NaN, nothing negative, and low ≤ median ≤ high.
    #[test]
    fn any_rows_give_a_sound_model_or_an_error(seed in 0u64..1000, keep in 0.02f64..0.5, h in 1u64..40, s in 1u64..2000, b in 1u64..9) {
        let mut random = SplitMix(seed);
        let mut rows: Vec<Measurement> = standard_rows(0.1, seed);
        rows.extend(corun_rows(0.2, seed));
        let curve: Vec<(u64, f64)> = (3..20).map(|p| (1 << p, 10f64.powf(3.0 * random.unit()))).collect();
        rows.extend(collective_rows(&curve));
        rows.retain(|_| random.unit() < keep);
        for row in &mut rows {
            let factor = 10f64.powf(2.0 * random.symmetric());
            row.median_ns = row.median_ns.map(|ns| ns * factor);
            row.ci95_high_ns = row.ci95_high_ns.map(|ns| ns * factor * (1.0 + random.unit()));
        }
        let Ok(Fitted { model, .. }) = cost::fit(&rows, &machine(), "00") else { return Ok(()) };
        let shape = LayerShape::new(64 * h, h, s, b, DType::F32);
        if let Ok(p) = predict::layer(&model, shape) {
            for p in [p.forward, p.backward_input, p.backward_weight, p.forward_backward] {
                prop_assert!(p.median_ns.is_finite() && p.high_ns.is_finite());
                prop_assert!(0.0 <= p.low_ns && p.low_ns <= p.median_ns && p.median_ns <= p.high_ns, "{:?}", p);
            }
        }
        for ranks in [2, 8, 64] {
            if let Ok(p) = predict::collective(&model, &ask(ranks, s * b)) {
                prop_assert!(0.0 < p.low_ns && p.low_ns <= p.median_ns && p.median_ns <= p.high_ns, "{:?}", p);
            }
        }
        for side in ["mlp-b32", "gpt-b2"] {
            if let Ok(p) = predict::corun(&model, "gpt-a-forward", side, "free") {
                prop_assert!(p.slowdown.median.is_finite() && p.slowdown.median > 0.0, "{:?}", p);
            }
        }
    }
}

/// Files are checked before they are believed: each of these numbers would give a time without meaning.
#[test]
fn numbers_that_cannot_be_used_are_refused() {
    let text = include_str!("../results/published/a100-80gb/cost_model.json");
    let sound: CostModel = serde_json::from_str(text).unwrap();
    cost::check(&sound).unwrap();
    assert!(sound.collectives.iter().all(|c| c.relative_low > 0.0 && c.relative_high > 0.0));
    let gate = |open_ns| GateCost {
        open_ns,
        close_ns: 1.0,
        drain_ns: 1.0,
        drain_by_side_ns: BTreeMap::new(),
        restart_ns: 1.0,
    };
    let pair = |slowdown| CorunPair {
        main: "m".into(),
        side: "s".into(),
        sharing: "free".into(),
        slowdown: Interval { median: slowdown, low: slowdown, high: slowdown },
        side_rate: Some(0.5),
        side_alone_per_s: None,
    };
    let spoil: [&dyn Fn(&mut CostModel); 7] = [
        &|m| m.collectives[0].ranks = 1,
        &|m| m.collectives[0].nodes = 0,
        &|m| m.collectives[0].relative_high = -0.1,
        &|m| m.layer[0].forward_ns.low = 2.0 * m.layer[0].forward_ns.median,
        &|m| m.layer[0].shape.heads = 0,
        &|m| m.gate = Some(gate(f64::NAN)),
        &|m| m.interference.pairs.push(pair(0.0)),
    ];
    for (index, spoil) in spoil.iter().enumerate() {
        let mut model = sound.clone();
        spoil(&mut model);
        assert!(cost::check(&model).is_err(), "{index}");
    }
    let mut fine = sound;
    fine.gate = Some(gate(0.0));
    fine.interference.pairs.push(pair(1.2));
    cost::check(&fine).unwrap();
}
