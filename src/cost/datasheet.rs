//! A cost model from a GPU's data sheet alone: peak rates, bandwidths and links, times the share of them that GPUs of its
//! kind were measured to reach. For whoever has no measurements at all; every price is marked and its interval wide.
//!
//! | part | time |
//! |---|---|
//! | products | 5 µs + FLOPs ÷ (share · peak rate of the tensor cores, in f32 of the plain ones) |
//! | attention | 5 µs + FLOPs ÷ (0.5 · share · peak) forward, ÷ (0.4 · share · peak) backward |
//! | streaming | 4 µs + bytes ÷ (0.85 · memory bandwidth); the loss at 0.4 of it |
//! | collectives over n GPUs of a node | 15 µs + 2 µs · n + bytes · moved(n) ÷ (0.75 · link), moved as in [`super::ranks`] |
//! | between nodes | by the network of the usual node with such GPUs, as [`super::topology`] states it |
//!
//! The shares are medians of measured bf16 products with 4,096 rows or more (ai-dynamo/aiconfigurator at 095f58a; where that has
//! none, stas00/ml-engineering's largest rates, less a tenth), against the vendor's dense peak.

use super::ranks::{Algorithm, RankedOperation};
use crate::records::CostModel;
use crate::records::cost_model::{
    self, CollectiveFit, Fit, Interference, LaunchFit, MadeFrom, ModelMachine, OperationFits, Range, Segment, Source,
    Topology, TopologyKind,
};
use crate::{Error, Result, nearest};
use std::collections::BTreeMap;

/// What a vendor prints about a GPU, and how much of its peak large products reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataSheet {
    /// The name by which `--gpu` and job files ask for it.
    pub name: &'static str,
    /// The vendor's name.
    pub device: &'static str,
    /// Dense peak of 16-bit products that accumulate in 32 bits, in TFLOP/s.
    pub tensor_tflops: f64,
    /// Whether the tensor cores know bf16, and not f16 alone.
    pub bf16: bool,
    /// Peak of 32-bit arithmetic outside the tensor cores, in TFLOP/s.
    pub f32_tflops: f64,
    /// Share of the peak that large products reach.
    pub reached: f64,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// Bandwidth of the memory in GB/s.
    pub memory_gb_per_s: f64,
    /// Bandwidth to the other GPUs of a node, each way, in GB/s: NVLink, else PCI Express.
    pub link_gb_per_s: f64,
    /// Whether the link is PCI Express, over which messages pass through the host's memory.
    pub through_host: bool,
    /// Streaming multiprocessors.
    pub sms: u64,
    /// NVLinks; 0 where the link is PCI Express.
    pub nvlinks: u64,
    /// Bandwidth of the network that nodes with such GPUs usually have, each way and GPU, in GB/s; `None` where there is no
    /// usual one.
    pub network_gb_per_s: Option<f64>,
}

#[allow(clippy::too_many_arguments)] // a row of the table below
const fn sheet(
    name: &'static str,
    device: &'static str,
    (sms, nvlinks): (u64, u64),
    tensor_tflops: f64,
    f32_tflops: f64,
    reached: f64,
    memory: (f64, f64),
    link_gb_per_s: f64,
    network_gb_per_s: Option<f64>,
) -> DataSheet {
    DataSheet {
        name,
        device,
        tensor_tflops,
        bf16: true,
        f32_tflops,
        reached,
        memory_gib: memory.0,
        memory_gb_per_s: memory.1,
        link_gb_per_s,
        through_host: false,
        sms,
        nvlinks,
        network_gb_per_s,
    }
}

/// Every data sheet. Figures are NVIDIA's, of its data sheets and architecture papers; the network is that of DGX A100 (HDR),
/// DGX H100, H200 and B200 (NDR).
pub const ALL: [DataSheet; 12] = [
    DataSheet {
        through_host: true,
        ..sheet("rtx3090", "NVIDIA GeForce RTX 3090", (82, 0), 71.0, 35.6, 0.95, (24.0, 936.0), 31.5, None)
    },
    DataSheet {
        through_host: true,
        ..sheet("rtx4090", "NVIDIA GeForce RTX 4090", (128, 0), 165.2, 82.6, 0.95, (24.0, 1008.0), 31.5, None)
    },
    sheet("a100-sxm-80", "NVIDIA A100 SXM4 80GB", (108, 12), 312.0, 19.5, 0.81, (80.0, 2039.0), 300.0, Some(25.0)),
    sheet("a100-sxm-40", "NVIDIA A100 SXM4 40GB", (108, 12), 312.0, 19.5, 0.81, (40.0, 1555.0), 300.0, Some(25.0)),
    sheet("a100-pcie-80", "NVIDIA A100 PCIe 80GB", (108, 0), 312.0, 19.5, 0.75, (80.0, 1935.0), 31.5, Some(25.0)),
    sheet("a100-pcie-40", "NVIDIA A100 PCIe 40GB", (108, 0), 312.0, 19.5, 0.72, (40.0, 1555.0), 31.5, Some(25.0)),
    sheet("h100-sxm", "NVIDIA H100 SXM5 80GB", (132, 18), 989.4, 66.9, 0.78, (80.0, 3350.0), 450.0, Some(50.0)),
    sheet("h100-pcie", "NVIDIA H100 PCIe 80GB", (114, 0), 756.0, 51.0, 0.62, (80.0, 2000.0), 63.0, Some(50.0)),
    sheet("h200", "NVIDIA H200 SXM 141GB", (132, 18), 989.4, 66.9, 0.78, (140.4, 4800.0), 450.0, Some(50.0)),
    sheet("b200", "NVIDIA B200 SXM 180GB", (148, 18), 2250.0, 80.0, 0.6, (178.35, 7670.0), 900.0, Some(50.0)),
    DataSheet {
        through_host: true,
        ..sheet("l40s", "NVIDIA L40S 48GB", (142, 0), 362.0, 91.6, 0.57, (48.0, 864.0), 31.5, None)
    },
    DataSheet {
        bf16: false,
        ..sheet("v100", "NVIDIA V100 SXM2 32GB", (80, 6), 125.0, 15.7, 0.72, (32.0, 900.0), 150.0, None)
    },
];

/// The data sheet of that name. Fails if there is none; the error proposes the nearest name.
pub fn find(name: &str) -> Result<DataSheet> {
    ALL.into_iter().find(|sheet| sheet.name == name).ok_or_else(|| {
        let names = || ALL.iter().map(|sheet| sheet.name);
        let begin: Vec<&str> = names().filter(|known| !name.is_empty() && known.starts_with(name)).collect();
        let cure = match begin.as_slice() {
            [] => nearest::cure(name, names()),
            begin => format!("say which: {}", begin.join(", ")),
        };
        Error::input(format!("no data sheet is known of `{name}`"), cure)
    })
}

/// The data sheet of a device by the name its driver gives it, such as `NVIDIA A100-SXM4-80GB`; `None` for any other device.
pub fn of_device(device: &str) -> Option<DataSheet> {
    let device = device.to_ascii_lowercase();
    // Of `A100-SXM4-80GB` the words a100, sxm4 and 80gb; an A1000 is no A100.
    let words: Vec<&str> = device.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let begins = |word: &str, part: &str| {
        word.strip_prefix(part).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()) || part == "sxm")
    };
    let says = |part: &str| words.iter().any(|word| begins(word, part));
    // Of two sizes or sockets the one that the name says; the first of the chip where it says neither.
    let told = |sheet: &DataSheet| {
        let (chip, rest) = sheet.name.split_once('-').unwrap_or((sheet.name, ""));
        let chip = chip.trim_start_matches("rtx");
        says(chip).then(|| rest.split('-').filter(|part| !part.is_empty() && says(part)).count())
    };
    let ranked = ALL.iter().filter_map(|sheet| Some((told(sheet)?, sheet)));
    ranked.rev().max_by_key(|(parts, _)| *parts).map(|(_, sheet)| *sheet)
}

const GB: f64 = 1e9;
/// Half the intervals, relative: of products, of attention, of streaming operations, of collectives.
const SPREADS: [(f64, f64); 4] = [(0.25, 0.35), (0.4, 0.8), (0.25, 0.5), (0.4, 0.8)];

/// The cost model that follows from a data sheet, by the rules at the top of this module.
pub fn model(sheet: &DataSheet) -> CostModel {
    let mut valid = BTreeMap::new();
    for (name, bytes) in
        [("bf16", 2.0), ("f16", 2.0), ("f32", 4.0)].into_iter().filter(|(name, _)| sheet.bf16 || *name != "bf16")
    {
        valid.insert(format!("dtype/{name}"), Range { low: bytes, high: bytes });
    }
    // A sheet holds for all sizes alike: what is uncertain is in the fits' own intervals.
    let sizes = ["gemm/rows", "gemm/inputs", "gemm/outputs", "streaming/any/bytes"];
    let of_attention = ["attention/batch", "attention/heads", "attention/sequence", "attention/head_size"];
    for name in sizes.into_iter().chain(of_attention) {
        valid.insert(name.to_string(), Range { low: 1.0, high: 1e15 });
    }
    CostModel {
        schema: cost_model::SCHEMA.into(),
        machine: ModelMachine {
            name: format!("datasheet/{}", sheet.name),
            device: sheet.device.into(),
            backend: "cuda".into(),
            memory_bytes: Some((sheet.memory_gib * f64::from(1 << 30)) as u64),
            source: Source::Datasheet,
        },
        made_from: MadeFrom {
            measurements_sha256: None,
            commit: None,
            at: "2026-11-29T00:00:00Z".into(),
            source: Some(format!("data sheet of {}, and the share of it that like GPUs reach", sheet.device)),
        },
        layer: Vec::new(),
        operations: operations(sheet),
        collectives: collectives(sheet),
        interference: Interference::default(),
        gate: None,
        accuracy: Vec::new(),
        valid,
        topology: Some(Topology {
            kind: if sheet.through_host { TopologyKind::Host } else { TopologyKind::Switch },
            gpus_per_node: Some(8),
            linked_gpus: None,
            link_bytes_per_s: Some(sheet.link_gb_per_s * GB),
            network_bytes_per_s: sheet.network_gb_per_s.map(|rate| rate * GB),
            source: Some(format!("data sheet of {}", sheet.device)),
        }),
        origins: BTreeMap::new(),
    }
}

fn fit(features: &[&str], coefficients_ns: &[f64], spread: usize) -> Fit {
    Fit {
        features: features.iter().map(|f| (*f).to_string()).collect(),
        coefficients_ns: coefficients_ns.to_vec(),
        relative_low: SPREADS[spread].0,
        relative_high: SPREADS[spread].1,
        cases: 0,
        anchors: None,
        without_gelu: spread == 0,
    }
}

fn operations(sheet: &DataSheet) -> OperationFits {
    let rates = [("", sheet.tensor_tflops * sheet.reached), ("/f32", sheet.f32_tflops * 0.9)];
    let per_flop = |tflops: f64| 1e9 / (tflops * 1e12);
    let mut gemm = BTreeMap::new();
    let mut attention = BTreeMap::new();
    for (dtype, tflops) in rates {
        for phase in ["forward", "backward_input", "backward_weight"] {
            gemm.insert(format!("{phase}{dtype}"), fit(&["1", "flop"], &[5_000.0, per_flop(tflops)], 0));
        }
        for (phase, share) in [("forward", 0.5), ("backward", 0.4)] {
            attention.insert(format!("{phase}{dtype}"), fit(&["1", "flop"], &[5_000.0, per_flop(share * tflops)], 1));
        }
    }
    let stream = |share: f64| fit(&["1", "bytes"], &[4_000.0, 1e9 / (share * sheet.memory_gb_per_s * GB)], 2);
    let streaming = [("any", stream(0.85)), ("cross_entropy", stream(0.4))].map(|(name, fit)| (name.to_string(), fit));
    OperationFits {
        gemm,
        attention,
        streaming: streaming.into_iter().collect(),
        launch: LaunchFit { per_operation_ns: 5_000.0, additivity: BTreeMap::new() },
    }
}

fn collectives(sheet: &DataSheet) -> Vec<CollectiveFit> {
    // Through the host's memory every byte crosses the bus twice.
    let link = 0.75 * sheet.link_gb_per_s * if sheet.through_host { 0.5 } else { 1.0 };
    let mut curves = Vec::new();
    let mut add = |operation: &str, ranks: u64, latency_ns: f64, gb_per_s: f64| {
        let moved = if operation == "send_recv" {
            1.0
        } else {
            Algorithm::Ring.moved(RankedOperation { operation, ranks, nodes: 1 })
        };
        curves.push(CollectiveFit {
            operation: operation.into(),
            ranks,
            nodes: 1,
            dtype: if sheet.bf16 { "bf16" } else { "f16" }.into(),
            latency: "pipelined".into(),
            segments: vec![Segment { from_bytes: 1, to_bytes: 1 << 40, latency_ns, ns_per_byte: moved / gb_per_s }],
            algorithms: Vec::new(),
            relative_low: SPREADS[3].0,
            relative_high: SPREADS[3].1,
            ctas: None,
            flags: Vec::new(),
        });
    };
    for operation in ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"] {
        for ranks in [2, 4, 8] {
            add(operation, ranks, 15_000.0 + 2_000.0 * ranks as f64, link);
        }
    }
    add("send_recv", 2, 15_000.0, link);
    curves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{self, predict};
    use crate::shape::{DType, LayerShape};

    #[test]
    fn every_sheet_gives_a_model_that_prices_a_layer() {
        for sheet in ALL {
            let model = model(&sheet);
            cost::check(&model).unwrap();
            let dtype = if sheet.bf16 { DType::Bf16 } else { DType::F16 };
            let shape = LayerShape::new(4096, 32, 4096, 1, dtype).llama(8, 14_336);
            let layer = predict::layer(&model, shape).unwrap();
            let tflops = shape.flop(crate::shape::Phase::Forward) / layer.forward.median_ns / 1e3;
            assert!((0.4..1.0).contains(&(tflops / sheet.tensor_tflops)), "{}: {tflops} TFLOP/s", sheet.name);
            assert!(!layer.forward.in_range || layer.forward.high_ns > 1.2 * layer.forward.median_ns);
        }
    }

    #[test]
    fn a_driver_names_its_sheet() {
        for (device, name) in [
            ("NVIDIA A100-SXM4-80GB", "a100-sxm-80"),
            ("NVIDIA A100-SXM4-40GB", "a100-sxm-40"),
            ("NVIDIA A100 80GB PCIe", "a100-pcie-80"),
            ("NVIDIA H100 80GB HBM3", "h100-sxm"),
            ("NVIDIA H100 PCIe", "h100-pcie"),
            ("NVIDIA H200", "h200"),
            ("NVIDIA GeForce RTX 3090", "rtx3090"),
            ("NVIDIA B200", "b200"),
            ("Tesla V100-SXM2-32GB", "v100"),
        ] {
            assert_eq!(of_device(device).unwrap().name, name, "{device}");
        }
        assert_eq!(of_device("AMD EPYC"), None);
        assert_eq!(of_device("NVIDIA RTX A1000"), None);
    }

    #[test]
    fn a_misspelt_sheet_is_answered_with_the_nearest() {
        assert!(find("a100").unwrap_err().to_string().contains("say which: a100-sxm-80, a100-sxm-40, a100-pcie-80"));
        assert_eq!(find("h100-sxm").unwrap().memory_gib, 80.0);
        let error = find("h100-smx").unwrap_err().to_string();
        assert!(error.contains("`h100-smx`") && error.contains("did you mean `h100-sxm`"), "{error}");
    }
}
