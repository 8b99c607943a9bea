//! Calculon's system file (Isaev et al., SC 2023).
//!
//! Products are TFLOP/s with a share of them by the operation's GFLOP, memory is GB/s (10⁹) with a share by MB (10⁶), a network is
//! GB/s and s. Calculon takes the entry at or below an operation's size, and no share above 1: entries stand a factor of √2
//! apart, each with the rate in its middle, so that a start that dominates small operations is not carried up.

use super::Exported;
use super::questions::{self, collective_line, product_ns, streaming_ns};
use super::workload::gpus_per_node;
use crate::cost::predict;
use crate::records::CostModel;
use crate::shape::operation::Product;
use crate::shape::{DType, Linear};
use crate::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// FLOPs of the products whose rates are written, and bytes of the memory traffic.
const FLOP: (f64, f64) = (1e6, 1e14);
const BYTES: (f64, f64) = (1e4, 1e10);
/// Ranks of the outermost network, which is to hold any job.
const ALL_RANKS: u64 = 65_536;
/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// A rate with a share of it by size; the last entry is of size 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Engine {
    tflops: f64,
    gflops_efficiency: Vec<[f64; 2]>,
}

#[derive(Serialize)]
struct Memory {
    #[serde(rename = "GiB")]
    gib: f64,
    #[serde(rename = "GBps")]
    gb_per_s: f64,
    #[serde(rename = "MB_efficiency")]
    mb_efficiency: Vec<[f64; 2]>,
}

/// A tier of the network; Calculon wants exactly these fields, and exactly these four operations.
#[derive(Serialize)]
struct Network {
    /// GB/s of a rank's link.
    bandwidth: f64,
    efficiency: f64,
    /// Ranks that it joins.
    size: u64,
    /// Start of a message, in s.
    latency: f64,
    /// How often a byte of a message crosses a rank's link, and the offset of the ranks in (n + offset) / n.
    ops: Operations,
    must_be_filled: bool,
    processor_usage: f64,
}

#[derive(Serialize)]
struct Operations {
    p2p: (f64, Option<i64>),
    reduce_scatter: (f64, Option<i64>),
    all_gather: (f64, Option<i64>),
    all_reduce: (f64, Option<i64>),
}

#[derive(Serialize)]
struct System {
    matrix: Map<String, Value>,
    vector: Map<String, Value>,
    mem1: Memory,
    mem2: Memory,
    processing_mode: &'static str,
    networks: Vec<Network>,
}

/// The system of the model's device, its node and the network between nodes where it is known. Fails where the model has no
/// products, no streaming operations, no memory size, or no all-reduce.
pub fn file(model: &CostModel) -> Result<Exported> {
    let dtype = predict::usual_dtype(model);
    let mut notes = Vec::new();
    let rates = product_rates(model, dtype)?;
    let best = most(&rates);
    let sheet = questions::data_sheet(model);
    let tensor = sheet.map(|s| if dtype.bytes() == 2 { s.tensor_tflops } else { s.f32_tflops });
    if tensor.is_none() {
        notes.push("no data sheet is known of the device: peaks are the best rates seen".to_string());
    }
    let peak = tensor.unwrap_or(best).max(best);
    let matrix = Engine { tflops: peak, gflops_efficiency: shares(&rates, peak, 1e9) };
    // What a streaming operation computes hides behind its bytes: the roofline takes the longer of the two.
    let vector = Engine { tflops: sheet.map_or(best, |s| s.f32_tflops), gflops_efficiency: vec![[0.0, 1.0]] };
    let traffic = memory_rates(model, dtype)?;
    let memory = sheet.map_or(0.0, |s| s.memory_gb_per_s).max(most(&traffic));
    let names: &[&str] = if dtype.bytes() == 2 { &["float16", "bfloat16"] } else { &["float32"] };
    let each = |engine: &Engine| names.iter().map(|name| ((*name).to_string(), json!(engine))).collect();
    let system = System {
        matrix: each(&matrix),
        vector: each(&vector),
        mem1: Memory {
            gib: questions::memory_bytes(model)? as f64 / GIB,
            gb_per_s: memory,
            mb_efficiency: shares(&traffic, memory, 1e6),
        },
        // Nothing is known of copies to the host's memory: without room there Calculon refuses to offload.
        mem2: Memory { gib: 0.0, gb_per_s: 1.0, mb_efficiency: vec![[0.0, 1.0]] },
        processing_mode: "roofline",
        networks: networks(model, &mut notes)?,
    };
    notes.push(format!(
        "products are one curve of {} cubes, forward, for all phases and shapes; lost: attention's own times, intervals, a start for \
         each collective and number of ranks, copies to the host (mem2 has no room), what a collective takes from the processors",
        dtype.name()
    ));
    Exported::json(&system, notes)
}

/// Sizes from `low` to `high`, a factor of √2 apart.
fn steps((low, high): (f64, f64)) -> impl Iterator<Item = f64> {
    let count = (2.0 * (high / low).log2()).round() as i32;
    (0..=count).map(move |step| low * 2f64.powf(f64::from(step) / 2.0))
}

/// TFLOP/s of forward products of cubes, by the FLOPs from which on they hold.
fn product_rates(model: &CostModel, dtype: DType) -> Result<Vec<(f64, f64)>> {
    steps(FLOP)
        .map(|from| {
            let side = (from * 2f64.powf(0.25) / 2.0).cbrt().round().max(1.0);
            let cube = Linear::new(side as usize, side as usize, side as usize);
            let ns = product_ns(model, Product::Forward, cube, dtype)?;
            Ok((from, 2.0 * side.powi(3) / ns / 1e3))
        })
        .collect()
}

/// GB/s of a sum of two tensors, by the bytes from which on they hold.
fn memory_rates(model: &CostModel, dtype: DType) -> Result<Vec<(f64, f64)>> {
    steps(BYTES)
        .map(|from| {
            let bytes = from * 2f64.powf(0.25);
            Ok((from, bytes / streaming_ns(model, bytes, dtype)?))
        })
        .collect()
}

fn most(rates: &[(f64, f64)]) -> f64 {
    rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
}

/// `[[size ÷ scale, share of the peak], …]`, large sizes first; the smallest size holds from 0 on.
fn shares(rates: &[(f64, f64)], peak: f64, scale: f64) -> Vec<[f64; 2]> {
    let share = |rate: f64| (rate / peak).clamp(f64::MIN_POSITIVE, 1.0);
    let from =
        |(index, (size, rate)): (usize, &(f64, f64))| [if index == 0 { 0.0 } else { size / scale }, share(*rate)];
    rates.iter().enumerate().map(from).rev().collect()
}

fn networks(model: &CostModel, notes: &mut Vec<String>) -> Result<Vec<Network>> {
    let ranks = gpus_per_node(model);
    let inside = network(model, ranks.max(2), 1, ranks.max(2)).map_err(|cause| {
        Error::input(
            format!("no collective within a node of {} can be priced: {cause}", model.machine.name),
            "measure them with `bubblebench measure collectives`, or state the network in the model's topology",
        )
    })?;
    let mut networks = vec![inside];
    match network(model, 2 * ranks, 2, ALL_RANKS) {
        Ok(between) => networks.push(between),
        Err(_) => notes.push("no network between nodes is known: jobs of one node only".into()),
    }
    Ok(networks)
}

/// A tier by its all-reduce: start and bus bandwidth; the other operations' scales are what they are slower by.
fn network(model: &CostModel, ranks: u64, nodes: u64, size: u64) -> Result<Network> {
    let line = |operation, ranks| collective_line(model, operation, ranks, nodes);
    let reduce = line("all_reduce", ranks)?;
    let scale = |operation, ranks| Ok::<f64, Error>(reduce.bus_gb_per_s / line(operation, ranks)?.bus_gb_per_s);
    Ok(Network {
        bandwidth: reduce.bus_gb_per_s,
        efficiency: 1.0,
        size,
        latency: reduce.start_ns * 1e-9,
        ops: Operations {
            p2p: (scale("send_recv", 2)?, None),
            reduce_scatter: (scale("reduce_scatter", ranks)?, Some(-1)),
            all_gather: (scale("all_gather", ranks)?, Some(-1)),
            all_reduce: (2.0, Some(-1)),
        },
        must_be_filled: false,
        processor_usage: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;
    use crate::export::Content;

    fn written(model: &CostModel) -> Value {
        let Content::File(text) = file(model).unwrap().content else { panic!("a folder") };
        serde_json::from_str(&text).unwrap()
    }

    fn h100() -> CostModel {
        datasheet::model(&datasheet::find("h100-sxm").unwrap())
    }

    /// The keys of Calculon's own `systems/*.json`, and what its reader asserts of the lists.
    #[test]
    fn a_system_has_exactly_calculons_keys() {
        let value = written(&h100());
        let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&value), ["matrix", "vector", "mem1", "mem2", "processing_mode", "networks"]);
        assert_eq!(keys(&value["matrix"]), ["float16", "bfloat16"]);
        let network = ["bandwidth", "efficiency", "size", "latency", "ops", "must_be_filled", "processor_usage"];
        assert_eq!(keys(&value["networks"][0]), network);
        assert_eq!(value["networks"][0]["ops"]["all_reduce"], json!([2.0, -1]));
        assert!(value["networks"][0]["ops"]["p2p"][1].is_null());
        for list in [&value["matrix"]["float16"]["gflops_efficiency"], &value["mem1"]["MB_efficiency"]] {
            let list: Vec<[f64; 2]> = serde_json::from_value(list.clone()).unwrap();
            assert!(list.windows(2).all(|w| w[0][0] > w[1][0]) && list.last().unwrap()[0] == 0.0);
            assert!(list.iter().all(|[_, share]| *share > 0.0 && *share <= 1.0));
        }
    }

    /// By hand: 0.78 of 989.4 TFLOP/s but for 5 µs; 0.85 of 3350 GB/s but for 4 µs; 31 µs and 337.5 GB/s.
    #[test]
    fn rates_are_shares_of_the_data_sheets_peaks() {
        let value = written(&h100());
        let matrix = &value["matrix"]["bfloat16"];
        assert_eq!(matrix["tflops"], 989.4);
        let best = matrix["gflops_efficiency"][0][1].as_f64().unwrap();
        assert!((best / 0.78 - 1.0).abs() < 1e-3, "{best}");
        let memory = value["mem1"]["MB_efficiency"][0][1].as_f64().unwrap();
        assert!((memory / 0.85 - 1.0).abs() < 2e-3, "{memory}");
        assert_eq!((value["mem1"]["GBps"].as_f64(), value["mem1"]["GiB"].as_f64()), (Some(3350.0), Some(80.0)));
        let network = &value["networks"][0];
        assert!((network["bandwidth"].as_f64().unwrap() - 337.5).abs() < 1e-6, "{network}");
        assert!((network["latency"].as_f64().unwrap() - 31e-6).abs() < 1e-9, "{network}");
        assert!((network["ops"]["all_gather"][0].as_f64().unwrap() - 1.0).abs() < 1e-6, "{network}");
        assert_eq!((network["size"].as_u64(), value["networks"][1]["size"].as_u64()), (Some(8), Some(65_536)));
    }

    #[test]
    fn an_entry_has_the_rate_in_its_middle() {
        let sizes: Vec<f64> = steps((1.0, 4.0)).collect();
        assert!(sizes.len() == 5 && (sizes[1] - 2f64.sqrt()).abs() < 1e-12 && (sizes[4] - 4.0).abs() < 1e-12);
        assert_eq!(shares(&[(1e9, 50.0), (2e9, 100.0)], 100.0, 1e9), [[2.0, 1.0], [0.0, 0.5]]);
    }

    #[test]
    fn a_model_without_products_or_collectives_is_refused() {
        let mut model = h100();
        model.operations.gemm.clear();
        assert!(file(&model).unwrap_err().to_string().contains("no fit that prices forward"));
        let mut model = h100();
        (model.collectives, model.topology) = (Vec::new(), None);
        let error = file(&model).unwrap_err().to_string();
        assert!(error.contains("no collective within a node") && !error.contains('\n'), "{error}");
    }
}
