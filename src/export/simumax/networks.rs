//! SimuMax's networks: bandwidth, and each collective's share of it and start.

use super::GIB;
use crate::export::questions::{CollectiveLine, collective_line};
use crate::export::workload;
use crate::records::CostModel;
use crate::records::cost_model::TopologyKind;
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// Ours and SimuMax's name of a collective, and by what it multiplies bytes: scale · (n + offset) / n.
const COLLECTIVES: [(&str, &str, i64, i64); 5] = [
    ("all_reduce", "all_reduce", 2, -1),
    ("all_gather", "all_gather", 1, -1),
    ("reduce_scatter", "reduce_scatter", 1, -1),
    ("all_to_all", "all2all", 1, -1),
    ("send_recv", "p2p", 1, 0),
];

/// The networks by SimuMax's names, and the GPUs of a node. GPUs joined through the host have a network for each number of
/// them, the others one within and one between nodes.
pub(super) fn of(model: &CostModel, notes: &mut Vec<String>) -> Result<(Map<String, Value>, u64)> {
    let per_node = workload::gpus_per_node(model).max(2);
    let host = model.topology.as_ref().is_some_and(|t| t.kind == TopologyKind::Host);
    let mut networks = Map::from_iter([("intra_with_pcie".to_string(), json!(host))]);
    if host {
        for ranks in [2, 4, 8] {
            let name = format!("intra_node_pcie_{ranks}x");
            networks.insert(name.clone(), within(model, &name, ranks, &[])?);
        }
    } else {
        let fewer: Vec<u64> = [2, 4, 8].into_iter().filter(|ranks| *ranks <= per_node).collect();
        networks.insert("high_intra_node".into(), within(model, "high_intra_node", per_node, &fewer)?);
    }
    match lines(model, 2 * per_node, 2) {
        Ok(lines) => {
            networks.insert("inter_node".into(), network(&lines, per_node, &[]));
        }
        Err(_) => notes.push("without inter_node: no network between nodes is known".into()),
    }
    Ok((networks, per_node))
}

/// A network within a node, with the starts for fewer ranks; refused where one of the five collectives has no price.
fn within(model: &CostModel, name: &str, ranks: u64, fewer: &[u64]) -> Result<Value> {
    let starts = fewer.iter().map(|&n| Ok((n, lines(model, n, 1)?))).collect::<Result<Vec<_>>>();
    let found = lines(model, ranks, 1).and_then(|own| Ok((own, starts?)));
    let (own, starts) = found.map_err(|cause| {
        Error::input(
            format!("{name} lacks a collective that SimuMax wants: {cause}"),
            "measure all five (all_reduce, all_gather, reduce_scatter, all_to_all, send_recv) and fit again",
        )
    })?;
    Ok(network(&own, 1, &starts))
}

/// The five collectives in the order of [`COLLECTIVES`].
fn lines(model: &CostModel, ranks: u64, nodes: u64) -> Result<Vec<CollectiveLine>> {
    COLLECTIVES
        .iter()
        .map(|(operation, ..)| {
            let ranks = if *operation == "send_recv" { 2 } else { ranks };
            collective_line(model, operation, ranks, nodes)
        })
        .collect()
}

/// `divided`: between nodes SimuMax divides messages and all-to-alls by the GPUs of a node, so that these bandwidths are a
/// node's.
fn network(own: &[CollectiveLine], divided: u64, starts: &[(u64, Vec<CollectiveLine>)]) -> Value {
    let rates: Vec<f64> = own
        .iter()
        .zip(COLLECTIVES)
        .map(|(line, (operation, ..))| {
            let parts = if matches!(operation, "all_to_all" | "send_recv") { divided } else { 1 };
            line.bus_gb_per_s * 1e9 / GIB * parts as f64
        })
        .collect();
    let most = rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut ops = Map::new();
    for (index, (_, name, scale, offset)) in COLLECTIVES.into_iter().enumerate() {
        let by_ranks: Map<String, Value> =
            starts.iter().map(|(n, lines)| (n.to_string(), json!(lines[index].start_ns / 1e3))).collect();
        let op = json!({
            "scale": scale,
            "offset": offset,
            "efficient_factor": rates[index] / most,
            "latency_us": 0.0,
            "fixed_latency_us": own[index].start_ns / 1e3,
            "fixed_latency_us_by_comm_num": by_ranks,
        });
        ops.insert(name.to_string(), op);
    }
    json!({
        "processor_usage": 0.0,
        "bandwidth": {"gbps": most, "efficient_factor": 1.0, "latency_us": 0.0},
        "op": ops,
    })
}
