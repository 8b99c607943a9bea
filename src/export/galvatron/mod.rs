//! The six files of Galvatron's search engine (`hetu-galvatron` 2.4.0; Wang et al., arXiv 2211.13878).
//!
//! Times are ms a sample, memory is MiB, bandwidths are MiB/ms of nccl-tests' bus bandwidth (GB/s × 0.953674). The engine takes a
//! backward for twice the forward, so that three times what stands here is an iteration's work: what is written is a third of
//! forward, backward to inputs and backward to weights together. Keys are the engine's; it looks up every power of two up
//! to the GPUs.

mod memory;

use super::questions::{collective_line, collective_ns};
use super::workload::Workload;
use super::{Content, Exported, MIB, json_text};
use crate::pipeline::costs::{self, Costs};
use crate::pipeline::job::{Job, Parallel};
use crate::records::CostModel;
use crate::shape::{DType, Recompute};
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// Batch sizes whose times are written: the engine fits a line through eight or more.
const BATCHES: std::ops::RangeInclusive<u64> = 1..=8;
/// Sizes of the messages whose times are written, as powers of two of a MiB: 1 to 256 MiB; the engine fits a line through
/// eight or more.
const MESSAGES: std::ops::RangeInclusive<u32> = 0..=8;
/// From GB/s to MiB/ms.
const MIB_PER_MS: f64 = 1e6 / MIB;

/// What a file of an ordered list of numbers holds.
type Numbers = Map<String, Value>;

/// The GPUs that the search is over.
struct Cluster {
    nodes: u64,
    gpus_per_node: u64,
    /// 2, 4, … up to all GPUs.
    degrees: Vec<u64>,
}

/// The six files for the job's layers on its GPUs. `name` is what Galvatron calls the model when it searches:
/// `hidden4096_head32` for its `gpt_hf` where `None`. Fails where the GPUs are no power of two or the model lacks a layer, or
/// the collectives between so many ranks.
pub fn files(model: &CostModel, workload: &Workload, name: Option<&str>) -> Result<Exported> {
    let cluster = Cluster::of(workload)?;
    let mut notes = workload.notes.clone();
    let m = &workload.job.model;
    let name = name.map_or_else(|| format!("hidden{}_head{}", m.hidden, m.heads), str::to_string);
    let dtype = match workload.dtype {
        DType::F16 => "fp16",
        DType::Bf16 => "bf16",
        _ => "fp32",
    };
    let machine = format!("{}nodes_{}gpus_per_node", cluster.nodes, cluster.gpus_per_node);
    let times = times(model, workload, &mut notes)?;
    let memory = memory::parts(workload, &cluster.degrees, &mut notes);
    let overlap = overlap(model, &cluster, &mut notes);
    let files: [(String, Value); 6] = [
        (format!("computation_profiling_{dtype}_{name}"), times.into()),
        (format!("memory_profiling_{dtype}_{name}"), memory.into()),
        (format!("allreduce_bandwidth_{machine}"), all_reduces(model, &cluster)?.into()),
        (format!("p2p_bandwidth_{machine}"), messages(model, &cluster)?.into()),
        (format!("sp_time_{machine}"), tensor_parallel(model, &cluster)?.into()),
        ("overlap_coefficient".into(), json!({ "overlap_coe": overlap })),
    ];
    let text = |(name, value): &(String, Value)| Ok((format!("{name}.json"), json_text(value)?));
    let files = files.iter().map(text).collect::<Result<Vec<_>>>()?;
    notes.push(
        "lost: intervals, the start of messages outside sp_time, and that products shrink under tensor parallelism (Galvatron \
         divides by its degree)"
            .into(),
    );
    Ok(Exported { content: Content::Folder(files), notes })
}

impl Cluster {
    fn of(workload: &Workload) -> Result<Cluster> {
        let (gpus, gpus_per_node) = (workload.gpus, workload.gpus_per_node());
        if !gpus.is_power_of_two() || !gpus_per_node.is_power_of_two() {
            return Err(Error::input(
                format!("{gpus} GPUs, {gpus_per_node} a node: Galvatron divides over powers of two"),
                "give a job whose GPUs and gpus_per_node are powers of two",
            ));
        }
        let degrees = (1..=gpus.ilog2()).map(|power| 1 << power).collect();
        Ok(Cluster { nodes: gpus / gpus_per_node, gpus_per_node, degrees })
    }

    fn gpus(&self) -> u64 {
        self.nodes * self.gpus_per_node
    }

    /// Nodes that so many neighbours are on; the same number of ranks a stride apart is on as many as there are.
    fn nodes_of(&self, ranks: u64, neighbours: bool) -> u64 {
        if neighbours { ranks.div_ceil(self.gpus_per_node) } else { self.nodes.min(ranks) }
    }
}

/// The job on one GPU with micro-batches of that many sequences.
fn on_one_gpu(job: &Job, micro_batch: u64) -> Job {
    let parallel = Parallel {
        pipeline: 1,
        tensor: 1,
        data: 1,
        context: 1,
        micro_batch,
        global_batch: micro_batch,
        sequence_parallel: false,
        recompute: Recompute::None,
        recompute_layers: None,
        layout: None,
        chunks: None,
        zero: 0,
        schedule: crate::pipeline::ScheduleName::OneFOneB,
        ..job.parallel.clone()
    };
    Job { parallel, order: None, ..job.clone() }
}

/// `layertype_0_bszB_seqS` and `layertype_other_bszB_seqS` in ms a sample, small batches first: one mode of the engine reads
/// the first alone.
fn times(model: &CostModel, workload: &Workload, notes: &mut Vec<String>) -> Result<Numbers> {
    let priced = |batch| costs::of_job(&on_one_gpu(&workload.job, batch), model, workload.dtype);
    let all: Vec<(u64, Costs)> = BATCHES.map(|batch| Ok((batch, priced(batch)?))).collect::<Result<_>>()?;
    let sequence = workload.job.model.sequence;
    let entry = |kind: &str, batch: u64, ns: f64| {
        (format!("{kind}_bsz{batch}_seq{sequence}"), Value::from(ns / 3.0 / 1e6 / batch as f64))
    };
    let layers = all.iter().map(|(batch, costs)| entry("layertype_0", *batch, costs.layer_ns()));
    let ends = |costs: &Costs| costs.ends_ns().iter().sum::<u64>() as f64;
    let others = all.iter().map(|(batch, costs)| entry("layertype_other", *batch, ends(costs)));
    notes.extend(all.first().map(|(_, costs)| times_notes(costs)).unwrap_or_default());
    Ok(layers.chain(others).collect())
}

/// How a third of forward and backward stands to the forward, and what has no price or an extrapolated one.
fn times_notes(costs: &Costs) -> Vec<String> {
    let mut notes = vec![format!(
        "times are a third of forward and backward together, {:.3} of the forward at batch 1: Galvatron takes a backward for \
         twice the forward",
        costs.layer_ns() / 3.0 / costs.layer.forward.time_ns
    )];
    let unpriced = costs.prices.iter().filter(|p| p.price.is_none()).map(|p| p.what.as_str());
    // What follows the pipeline is no part of these files.
    let unpriced: Vec<&str> = unpriced.filter(|what| !what.contains("optimizer") && !what.contains("passes")).collect();
    if !unpriced.is_empty() {
        notes.push(format!("no price, counted as 0: {}", unpriced.join(", ")));
    }
    if !costs.layer.in_range() {
        notes.push("the layer lies outside what was measured: its times are extrapolated".into());
    }
    notes
}

/// `allreduce_size_N_consec_C` in MiB/ms: C is 1 for neighbours and 0 for ranks a stride apart; all GPUs are neighbours.
fn all_reduces(model: &CostModel, cluster: &Cluster) -> Result<Numbers> {
    let mut numbers = Numbers::new();
    for &ranks in cluster.degrees.iter().rev() {
        for neighbours in [true, false].into_iter().filter(|neighbours| *neighbours || ranks < cluster.gpus()) {
            let line = collective_line(model, "all_reduce", ranks, cluster.nodes_of(ranks, neighbours))?;
            let key = format!("allreduce_size_{ranks}_consec_{}", u8::from(neighbours));
            numbers.insert(key, (line.bus_gb_per_s * MIB_PER_MS).into());
        }
    }
    Ok(numbers)
}

/// `pp_size_N` in MiB/ms: a message between two stages, over the network where there are several nodes.
fn messages(model: &CostModel, cluster: &Cluster) -> Result<Numbers> {
    if cluster.degrees.is_empty() {
        return Ok(Numbers::new());
    }
    let line = collective_line(model, "send_recv", 2, cluster.nodes.min(2))?;
    let rate = line.bus_gb_per_s * MIB_PER_MS;
    Ok(cluster.degrees.iter().map(|stages| (format!("pp_size_{stages}"), rate.into())).collect())
}

/// Times of all-reduces and all-to-alls between neighbours in ms, `allreduce_size_N_MMB_time`; empty for one GPU.
fn tensor_parallel(model: &CostModel, cluster: &Cluster) -> Result<Numbers> {
    let mut numbers = Numbers::new();
    for (name, operation) in [("allreduce", "all_reduce"), ("all2all", "all_to_all")] {
        for &ranks in &cluster.degrees {
            for mib in MESSAGES.map(|power| 1u64 << power) {
                let ns = collective_ns(model, operation, ranks, cluster.nodes_of(ranks, true), mib << 20)?;
                numbers.insert(format!("{name}_size_{ranks}_{mib}MB_time"), (ns / 1e6).into());
            }
        }
    }
    Ok(numbers)
}

/// How much longer computing or communicating takes while both run, at least 1: the most that a pair with an all-reduce
/// showed on either side.
fn overlap(model: &CostModel, cluster: &Cluster, notes: &mut Vec<String>) -> f64 {
    let pairs = model.interference.pairs.iter().filter(|p| p.side.contains("all_reduce"));
    let slower = pairs.flat_map(|p| [Some(p.slowdown.median), p.side_rate.filter(|r| *r > 0.0).map(|r| 1.0 / r)]);
    match slower.flatten().reduce(f64::max) {
        Some(most) => most.max(1.0),
        None => {
            if !cluster.degrees.is_empty() {
                notes.push("overlap taken as 1: no layer was measured beside an all-reduce".into());
            }
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;
    use crate::records::cost_model::{CorunPair, Interval};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn h100() -> CostModel {
        datasheet::model(&datasheet::find("h100-sxm").unwrap())
    }

    fn written(model: &CostModel, job: Option<&str>) -> (BTreeMap<String, Value>, Vec<String>) {
        let job = job.map(|text| Job::parse(Path::new("job.toml"), text).unwrap());
        let Exported { content, notes } = files(model, &Workload::of(model, job).unwrap(), None).unwrap();
        let Content::Folder(files) = content else { panic!("no folder") };
        (files.into_iter().map(|(name, text)| (name, serde_json::from_str(&text).unwrap())).collect(), notes)
    }

    /// The names and keys that the engine looks up, for eight GPUs of one node.
    #[test]
    fn the_six_files_hold_every_key_that_is_looked_up() {
        let (files, _) = written(&h100(), None);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "allreduce_bandwidth_1nodes_8gpus_per_node.json",
                "computation_profiling_bf16_hidden4096_head32.json",
                "memory_profiling_bf16_hidden4096_head32.json",
                "overlap_coefficient.json",
                "p2p_bandwidth_1nodes_8gpus_per_node.json",
                "sp_time_1nodes_8gpus_per_node.json",
            ]
        );
        let keys = |name: &str| files[name].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            keys("allreduce_bandwidth_1nodes_8gpus_per_node.json"),
            ["8_consec_1", "4_consec_1", "4_consec_0", "2_consec_1", "2_consec_0"]
                .map(|k| format!("allreduce_size_{k}"))
        );
        assert_eq!(keys("p2p_bandwidth_1nodes_8gpus_per_node.json"), ["pp_size_2", "pp_size_4", "pp_size_8"]);
        assert_eq!(keys("sp_time_1nodes_8gpus_per_node.json").len(), 2 * 3 * 9);
        let times = keys("computation_profiling_bf16_hidden4096_head32.json");
        assert_eq!((times[0].as_str(), times.len()), ("layertype_0_bsz1_seq2048", 16));
        let memory = &files["memory_profiling_bf16_hidden4096_head32.json"];
        for end in ["", "_sp"] {
            let layer = &memory[format!("layertype_0{end}")]["2048"];
            assert!(["1", "2", "4", "8", "checkpoint"].iter().all(|t| layer["tp_activation_per_bsz_dict"][t].is_f64()));
            for part in ["off", "on_first", "on_last"] {
                let part = &memory[format!("other_memory_pp_{part}{end}")]["2048"];
                assert!(part["model_states"]["8"].is_f64() && part["activation"]["1"].is_f64());
            }
        }
    }

    /// By hand: 0.75 · 450 GB/s on the bus are 337.5e9 / 2^20 / 1e3 MiB/ms; 64 MiB over 8 ranks take 31 µs and
    /// 2 · 7/8 · 2^26 bytes at that rate.
    #[test]
    fn bandwidths_are_mib_a_ms_and_times_are_ms() {
        let (files, notes) = written(&h100(), None);
        let near = |value: &Value, expected: f64| (value.as_f64().unwrap() / expected - 1.0).abs() < 1e-9;
        let rate = 337.5e9 / 1_048_576.0 / 1e3;
        let bandwidths = &files["allreduce_bandwidth_1nodes_8gpus_per_node.json"];
        assert!(near(&bandwidths["allreduce_size_8_consec_1"], rate), "{bandwidths}");
        assert!(near(&files["p2p_bandwidth_1nodes_8gpus_per_node.json"]["pp_size_4"], rate));
        let ms = 0.031 + 1.75 * f64::from(1 << 26) / 337.5e6;
        assert!(near(&files["sp_time_1nodes_8gpus_per_node.json"]["allreduce_size_8_64MB_time"], ms));
        assert_eq!(files["overlap_coefficient.json"]["overlap_coe"], 1.0);
        assert!(notes.iter().any(|n| n.starts_with("overlap taken as 1")), "{notes:?}");
        // 12 h² + 13 h parameters in 32 bits, 34 · s · b · h bytes of activations less attention's.
        let memory = &files["memory_profiling_bf16_hidden4096_head32.json"];
        let parameters = 4.0 * (12.0 * 4096.0 * 4096.0 + 13.0 * 4096.0) / 1_048_576.0;
        assert!(near(&memory["layertype_0"]["2048"]["parameter_size"], parameters));
        assert!(near(&memory["layertype_0"]["2048"]["tp_activation_per_bsz_dict"]["checkpoint"], 16.0));
        // The embedding's and the positions' matrices, the last norm: 16 bytes each, tied.
        let states = 16.0 * 4096.0 * (51_200.0 + 2048.0 + 2.0) / 1_048_576.0;
        assert!(near(&memory["other_memory_pp_off"]["2048"]["model_states"]["1"], states));
        assert!(near(&memory["other_memory_pp_off"]["2048"]["model_states"]["4"], states / 4.0));
    }

    /// A third of the layer's phases, by the sample.
    #[test]
    fn three_times_what_is_written_is_forward_and_backward() {
        let model = h100();
        let (files, notes) = written(&model, None);
        let shape = crate::shape::LayerShape::new(4096, 32, 2048, 4, DType::Bf16);
        let p = crate::cost::predict::layer(&model, shape).unwrap();
        let ns: f64 = [p.forward, p.backward_input, p.backward_weight].iter().map(|p| p.median_ns).sum();
        let times = &files["computation_profiling_bf16_hidden4096_head32.json"];
        let ms = times["layertype_0_bsz4_seq2048"].as_f64().unwrap();
        assert!((3.0 * ms * 4.0 / (ns / 1e6) - 1.0).abs() < 1e-9, "{ms}");
        // The head's three products, 5 µs and their FLOPs at 0.78 of the peak, are most of the rest.
        let head = 5_000.0 + 2.0 * 4.0 * 2048.0 * 4096.0 * 51_200.0 / (0.78 * 989.4e3);
        let other = times["layertype_other_bsz4_seq2048"].as_f64().unwrap();
        assert!((1.0..1.5).contains(&(other * 4.0 * 1e6 / head)), "{other} ms, the head {head} ns");
        assert!(notes.iter().any(|n| n.contains("of the forward at batch 1")), "{notes:?}");
    }

    #[test]
    fn one_gpu_has_no_messages_and_three_have_no_files() {
        let model = h100();
        let sizes = "[model]\npreset = \"gpt-1.3b\"\n[parallel]\nmicro_batch = 1\n";
        let (files, notes) = written(&model, Some(&format!("{sizes}pipeline = 1\nglobal_batch = 8")));
        assert_eq!(files["sp_time_1nodes_1gpus_per_node.json"], json!({}));
        assert_eq!(files["allreduce_bandwidth_1nodes_1gpus_per_node.json"], json!({}));
        assert!(!notes.iter().any(|n| n.contains("overlap")), "{notes:?}");
        let job = Job::parse(Path::new("j"), &format!("{sizes}pipeline = 3\nglobal_batch = 9")).unwrap();
        let error = super::files(&model, &Workload::of(&model, Some(job)).unwrap(), None).unwrap_err();
        assert!(error.to_string().contains("3 GPUs, 3 a node: Galvatron divides over powers of two"), "{error}");
    }

    /// Two nodes: the groups that lie across them use the network, at its bandwidth.
    #[test]
    fn strided_groups_of_two_nodes_cross_the_network() {
        let job =
            "[model]\npreset = \"gpt-1.3b\"\n[parallel]\npipeline = 2\ndata = 8\nmicro_batch = 1\nglobal_batch = 16";
        let (files, _) = written(&h100(), Some(job));
        let bandwidths = &files["allreduce_bandwidth_2nodes_8gpus_per_node.json"];
        let [near, far] =
            ["allreduce_size_2_consec_1", "allreduce_size_2_consec_0"].map(|k| bandwidths[k].as_f64().unwrap());
        assert!(near > 5.0 * far, "{bandwidths}");
        assert!(files.contains_key("p2p_bandwidth_2nodes_8gpus_per_node.json"));
    }

    #[test]
    fn overlap_is_the_worst_of_both_sides() {
        let mut model = h100();
        let slowdown = Interval { median: 1.1, low: 1.0, high: 1.2 };
        model.interference.pairs.push(CorunPair {
            main: "gpt-h4096-a32-s2048-b1-t1-bf16-forward".into(),
            side: "all_reduce-r8".into(),
            sharing: "stream".into(),
            slowdown,
            side_rate: Some(0.8),
            side_alone_per_s: None,
        });
        let (files, _) = written(&model, None);
        assert_eq!(files["overlap_coefficient.json"]["overlap_coe"], 1.25);
    }
}
