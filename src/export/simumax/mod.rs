//! SimuMax 1.2's system file: each product and each attention by its own share of the peak, each collective by bandwidth and start.
//!
//! `gbps` is GiB/s of memory and of networks alike. A product's key holds its sizes; a linear layer of k inputs and n outputs on
//! m tokens is TN forward, NN to the inputs, NT to the weights. Attention is counted by SimuMax with all pairs of positions, and
//! two and a half times as much backward, so that a causal one has about twice the share that it reaches. Starts stand in
//! `fixed_latency_us`: the plain `latency_us` of a collective is multiplied by its steps.

mod networks;

use super::Exported;
use super::measured::{self, MeasuredCase};
use super::questions::{self, PRODUCTS, product_ns, streaming_ns};
use super::workload::Workload;
use crate::records::CostModel;
use crate::shape::operation::{Family, Operation, Product};
use crate::shape::{Attention, DType, LayerShape, Linear};
use crate::{Error, Result, stats};
use serde_json::{Map, Value, json};

/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;
/// Micro-batches and tensor parallelisms at which the job's products and attention are written.
const BATCHES: [u64; 3] = [1, 2, 4];
const TENSORS: [u64; 4] = [1, 2, 4, 8];
/// Sizes that the line of memory traffic is drawn through, in bytes.
const TRAFFIC: (f64, f64) = (1e4, 1e9);
/// Shares of the peak by SimuMax's keys, in the order in which they were found.
type Shares = Map<String, Value>;

/// The system of the model's device and node, with the products of the job's layers. Fails where the model is of another type
/// than bf16, has no attention, or cannot price one of the five collectives within a node.
pub fn file(model: &CostModel, workload: &Workload) -> Result<Exported> {
    let mut notes = workload.notes.clone();
    check(model, workload)?;
    let peak = peak(model, workload, &mut notes)?;
    let ops = engines(model, workload, peak)?;
    let (rate, start_ns) = traffic(model)?;
    let bandwidth =
        json!({"default": {"gbps": rate / GIB * 1e9, "efficient_factor": 1.0, "latency_us": start_ns / 1e3}});
    let (networks, per_node) = networks::of(model, &mut notes)?;
    let system = json!({
        "sys_name": model.machine.name,
        "num_per_node": per_node,
        "accelerator": {
            "backend": "cuda",
            "mem_gbs": questions::memory_bytes(model)? as f64 / GIB,
            "op": ops,
            "bandwidth": bandwidth,
            "mode": "roofline",
        },
        "networks": networks,
    });
    notes.push(
        "lost: intervals, that a layer is not the sum of its operations, cold caches, co-running, heads of keys and values of the \
         attention measured; the loss counts at the rate of all memory traffic"
            .into(),
    );
    Exported::json(&system, notes)
}

/// The data sheet's peak in TFLOP/s, else the best rate of the job's products.
fn peak(model: &CostModel, workload: &Workload, notes: &mut Vec<String>) -> Result<f64> {
    if let Some(sheet) = questions::data_sheet(model) {
        return Ok(sheet.tensor_tflops);
    }
    notes.push("no data sheet is known of the device: the peak is the best rate of the products written".into());
    best_rate(model, workload)
}

/// What computes: products and attention, each key with its share of the peak.
fn engines(model: &CostModel, workload: &Workload, peak: f64) -> Result<Value> {
    let mut share = |flop: f64, ns: f64| json!(flop / (ns * peak * 1e3));
    let cases = measured::cases(model)?.into_iter().filter(|c| c.dtype == DType::Bf16 && !c.cold);
    let cases: Vec<MeasuredCase> = cases.collect();
    let mut products = measured_products(&cases, &mut share);
    products.extend(job_products(model, workload, &mut share)?);
    let mut attention = measured_attention(&cases, &mut share);
    for (found, job) in attention.iter_mut().zip(job_attention(model, workload, &mut share)?) {
        found.extend(job);
    }
    let [forward, backward] = attention;
    Ok(json!({
        "default": {"tflops": peak, "efficient_factor": median(&products)},
        "matmul": engine(peak, products),
        "sdp_fwd": engine(peak, forward),
        "sdp_bwd": engine(peak, backward),
    }))
}

fn check(model: &CostModel, workload: &Workload) -> Result<()> {
    if workload.dtype != DType::Bf16 {
        return Err(Error::input(
            format!("SimuMax's products are of bf16; those of {} are of {}", model.machine.name, workload.dtype.name()),
            "give a cost model of bf16, or a job with dtype = \"bf16\" that the model can price",
        ));
    }
    let priced = |o: &Operation| questions::operation_ns(model, o, DType::Bf16).is_ok();
    let shape = Attention::new(1, 1, 128, 64);
    if priced(&Operation::AttentionForward(shape)) && priced(&Operation::AttentionBackward(shape)) {
        return Ok(());
    }
    Err(Error::input(
        format!("no attention of bf16 was measured on {}", model.machine.name),
        "measure layers with `bubblebench measure gpt-layer` and fit again, or give another cost model",
    ))
}

/// The layers' four products and the head's, for a micro-batch on one of `tensor` ranks.
fn linears(workload: &Workload, shape: &LayerShape) -> Vec<Linear> {
    let job = &workload.job;
    let vocabulary = (128 * job.model.vocabulary.div_ceil(128 * shape.tensor)) as usize;
    let head = Linear::new(shape.rows() as usize, shape.hidden as usize, vocabulary);
    vec![shape.qkv(), shape.projection(), shape.fc1(), shape.fc2(), head]
}

/// The shapes of the job's layer that are written: those whose heads can be divided.
fn shapes(workload: &Workload) -> Vec<LayerShape> {
    let all = TENSORS.iter().flat_map(|t| BATCHES.map(|b| workload.shape(b, *t)));
    all.filter(|shape| shape.validate().is_ok()).collect()
}

/// TFLOP/s of the fastest product of the job.
fn best_rate(model: &CostModel, workload: &Workload) -> Result<f64> {
    let mut best = 0.0f64;
    for shape in shapes(workload) {
        for linear in linears(workload, &shape) {
            let flop = 2.0 * (linear.rows * linear.inputs) as f64 * linear.outputs as f64;
            best = best.max(flop / product_ns(model, Product::Forward, linear, DType::Bf16)? / 1e3);
        }
    }
    Ok(best)
}

/// The key of a product m×k · k×n of one batch: only the forward and the gradient of the inputs keep sequences apart.
fn product_key(product: Product, [b, m, k, n]: [usize; 4]) -> String {
    let rest = match product {
        Product::Forward => "layout=TN, accumulate=False, out_dtype=bf16",
        Product::ToInputs => "layout=NN, accumulate=False, out_dtype=bf16",
        Product::ToWeights => "layout=NT, accumulate=True, out_dtype=fp32",
    };
    format!("b={b}, m={m}, k={k}, n={n}, {rest}")
}

fn measured_products(cases: &[MeasuredCase], share: &mut impl FnMut(f64, f64) -> Value) -> Shares {
    let mut found = Shares::new();
    for case in cases.iter().filter(|c| c.family == Family::Gemm) {
        let Some(product) = PRODUCTS.into_iter().find(|p| p.name() == case.name) else { continue };
        let [m, k, n] = ["m", "k", "n"].map(|name| case.size(name) as usize);
        found.insert(product_key(product, [1, m, k, n]), share(case.flop, case.ns));
    }
    found
}

fn job_products(model: &CostModel, workload: &Workload, share: &mut impl FnMut(f64, f64) -> Value) -> Result<Shares> {
    let mut found = Shares::new();
    for shape in shapes(workload) {
        for linear in linears(workload, &shape) {
            let (b, rows) = (shape.micro_batch as usize, linear.rows);
            let (i, o, s) = (linear.inputs, linear.outputs, rows / shape.micro_batch as usize);
            for product in PRODUCTS {
                let sizes = match product {
                    Product::Forward => [b, s, i, o],
                    Product::ToInputs => [b, s, o, i],
                    Product::ToWeights => [1, o, rows, i],
                };
                let ns = product_ns(model, product, linear, DType::Bf16)?;
                found.insert(product_key(product, sizes), share(2.0 * (rows * i) as f64 * o as f64, ns));
            }
        }
    }
    Ok(found)
}

fn attention_key(a: &Attention) -> String {
    format!(
        "batch={}, seq_len={}, head_num={}, kv_head_num={}, qk_head_dim={d}, v_head_dim={d}, qkv_contiguous=True",
        a.batch,
        a.sequence,
        a.heads,
        a.kv_heads,
        d = a.head_size
    )
}

/// FLOPs as SimuMax counts them, forward and backward: every position with every other.
fn attention_flop(a: &Attention) -> [f64; 2] {
    let forward = 4.0 * (a.batch * a.heads) as f64 * (a.sequence as f64).powi(2) * a.head_size as f64;
    [forward, 2.5 * forward]
}

/// Forward and backward. Of a measured attention only heads · sequences are known: they stand as heads of one sequence.
fn measured_attention(cases: &[MeasuredCase], share: &mut impl FnMut(f64, f64) -> Value) -> [Shares; 2] {
    let mut found = [Shares::new(), Shares::new()];
    for case in cases.iter().filter(|c| c.family == Family::Attention) {
        let index = usize::from(case.name != "forward");
        let [heads, sequence, size] = ["batch*heads", "sequence", "head_size"].map(|name| case.size(name) as usize);
        let shape = Attention::new(1, heads, sequence, size);
        found[index].insert(attention_key(&shape), share(attention_flop(&shape)[index], case.ns));
    }
    found
}

fn job_attention(
    model: &CostModel,
    workload: &Workload,
    share: &mut impl FnMut(f64, f64) -> Value,
) -> Result<[Shares; 2]> {
    let mut found = [Shares::new(), Shares::new()];
    for shape in shapes(workload) {
        let attention = shape.attention();
        let operations = [Operation::AttentionForward(attention), Operation::AttentionBackward(attention)];
        for (index, operation) in operations.iter().enumerate() {
            let ns = questions::operation_ns(model, operation, DType::Bf16)?;
            found[index].insert(attention_key(&attention), share(attention_flop(&attention)[index], ns));
        }
    }
    Ok(found)
}

/// The peak with the shares; what is in none of the keys has their median.
fn engine(peak: f64, shares: Shares) -> Value {
    json!({"tflops": peak, "efficient_factor": median(&shares), "accurate_efficient_factor": shares})
}

fn median(shares: &Shares) -> f64 {
    let values: Vec<f64> = shares.values().filter_map(Value::as_f64).collect();
    stats::median(&values).unwrap_or(1.0)
}

/// Bytes a ns, and ns that any memory traffic takes whatever its bytes.
fn traffic(model: &CostModel) -> Result<(f64, f64)> {
    let [small, large] = [TRAFFIC.0, TRAFFIC.1].map(|bytes| streaming_ns(model, bytes, DType::Bf16));
    let (small, large) = (small?, large?);
    let slope = (TRAFFIC.1 - TRAFFIC.0) / (large - small);
    let rate = if slope.is_finite() && slope > 0.0 { slope } else { TRAFFIC.1 / large };
    Ok((rate, (small - TRAFFIC.0 / rate).max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;
    use crate::export::Content;

    fn h100() -> CostModel {
        datasheet::model(&datasheet::find("h100-sxm").unwrap())
    }

    fn written(model: &CostModel) -> Result<(Value, Vec<String>)> {
        let Exported { content, notes } = file(model, &Workload::of(model, None)?)?;
        let Content::File(text) = content else { panic!("a folder") };
        Ok((serde_json::from_str(&text).unwrap(), notes))
    }

    fn near(value: &Value, expected: f64) -> bool {
        (value.as_f64().unwrap_or(f64::NAN) / expected - 1.0).abs() < 1e-6
    }

    /// QKV of GPT-3 6.7B on two sequences, by hand: 2 · 4096 · 4096 · 12288 FLOPs at 0.78 of the peak, and 5 µs.
    #[test]
    fn products_have_simumaxs_keys_and_their_own_share() {
        let (value, _) = written(&h100()).unwrap();
        let matmul = &value["accelerator"]["op"]["matmul"];
        let shares = &matmul["accurate_efficient_factor"];
        let flop = 2.0 * 4096.0 * 4096.0 * 12_288.0;
        let ns = 5_000.0 + flop / (0.78 * 989.4e3);
        let share = flop / (ns * 989.4e3);
        for key in [
            "b=2, m=2048, k=4096, n=12288, layout=TN, accumulate=False, out_dtype=bf16",
            "b=2, m=2048, k=12288, n=4096, layout=NN, accumulate=False, out_dtype=bf16",
            "b=1, m=12288, k=4096, n=4096, layout=NT, accumulate=True, out_dtype=fp32",
        ] {
            assert!(near(&shares[key], share), "{key} {} {share}", shares[key]);
        }
        assert_eq!(matmul["tflops"], 989.4);
        assert!(
            shares
                .as_object()
                .unwrap()
                .contains_key("b=1, m=2048, k=4096, n=51200, layout=TN, accumulate=False, out_dtype=bf16")
        );
    }

    /// All pairs counted: a causal attention at half the peak of its own pairs has nearly 0.78 · 0.5 · 2.
    #[test]
    fn attention_counts_every_pair() {
        let (value, _) = written(&h100()).unwrap();
        let key =
            "batch=1, seq_len=2048, head_num=32, kv_head_num=32, qk_head_dim=128, v_head_dim=128, qkv_contiguous=True";
        let flop = 4.0 * 32.0 * 2048.0 * 2048.0 * 128.0;
        let pairs = 32.0 * 2048.0 * 2049.0 / 2.0;
        let ns = 5_000.0 + 4.0 * pairs * 128.0 / (0.5 * 0.78 * 989.4e3);
        let found = &value["accelerator"]["op"]["sdp_fwd"]["accurate_efficient_factor"][key];
        assert!(near(found, flop / (ns * 989.4e3)), "{found}");
        let ns = 5_000.0 + 10.0 * pairs * 128.0 / (0.4 * 0.78 * 989.4e3);
        let found = &value["accelerator"]["op"]["sdp_bwd"]["accurate_efficient_factor"][key];
        assert!(near(found, 2.5 * flop / (ns * 989.4e3)), "{found}");
    }

    /// GiB/s: 0.85 · 3350e9 / 2^30 of memory, 337.5e9 / 2^30 of the network, 8 times that for messages between nodes' GPUs.
    #[test]
    fn bandwidths_are_gib_a_second_and_starts_microseconds() {
        let (value, _) = written(&h100()).unwrap();
        let memory = &value["accelerator"]["bandwidth"]["default"];
        // The line is drawn through whole elements.
        let rate = 0.85 * 3350e9 / 1_073_741_824.0;
        assert!((memory["gbps"].as_f64().unwrap() / rate - 1.0).abs() < 1e-5, "{memory}");
        assert!((memory["latency_us"].as_f64().unwrap() - 4.0).abs() < 0.01, "{memory}");
        let high = &value["networks"]["high_intra_node"];
        assert!(near(&high["bandwidth"]["gbps"], 337.5e9 / 1_073_741_824.0), "{high}");
        let reduce = &high["op"]["all_reduce"];
        assert!(near(&reduce["fixed_latency_us"], 31.0), "{reduce}");
        assert!(near(&reduce["fixed_latency_us_by_comm_num"]["2"], 19.0), "{reduce}");
        assert_eq!((&reduce["scale"], &reduce["offset"], &reduce["latency_us"]), (&json!(2), &json!(-1), &json!(0.0)));
        assert_eq!(high["op"].as_object().unwrap().len(), 5);
        assert_eq!(value["accelerator"]["mem_gbs"], 80.0);
        assert_eq!(value["networks"]["intra_with_pcie"], false);
    }

    #[test]
    fn gpus_through_the_host_have_a_network_for_each_number() {
        let (value, _) = written(&datasheet::model(&datasheet::find("l40s").unwrap())).unwrap();
        assert_eq!(value["networks"]["intra_with_pcie"], true);
        let names = ["intra_node_pcie_2x", "intra_node_pcie_4x", "intra_node_pcie_8x"];
        assert!(names.iter().all(|name| value["networks"][name].is_object()), "{}", value["networks"]);
        assert!(value["networks"].get("high_intra_node").is_none());
    }

    #[test]
    fn other_types_and_missing_attention_are_refused() {
        let error = written(&datasheet::model(&datasheet::find("v100").unwrap())).unwrap_err().to_string();
        assert!(error.contains("SimuMax's products are of bf16; those of datasheet/v100 are of f16"), "{error}");
        let mut model = h100();
        model.operations.attention.clear();
        assert!(written(&model).unwrap_err().to_string().contains("no attention of bf16 was measured"));
        let mut model = h100();
        (model.collectives, model.topology) = (Vec::new(), None);
        let error = written(&model).unwrap_err().to_string();
        assert!(error.contains("high_intra_node lacks") && !error.contains('\n'), "{error}");
    }
}
