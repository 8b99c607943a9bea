//! Several cost models as one: layers from one, collectives from another. The first that knows a part answers for it.
//!
//! Parts are layers with the fits of their phases, products, attention, what moves bytes, each collective within a node and
//! between nodes, the gate, and interference.

use super::valid;
use crate::records::CostModel;
use crate::records::cost_model::{CollectiveFit, Origin};
use crate::shape::DType;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// Joins cost models, each part from the first that has it. [`CostModel::origins`] says which answered for what. One model is
/// returned as it is. Fails without a model, or if two that have layers know no number format in common.
pub fn join(models: Vec<CostModel>) -> Result<CostModel> {
    let mut models = models.into_iter();
    let Some(mut joined) = models.next() else {
        return Err(Error::input("no cost model is named", "give one with --cost-model, or a data sheet with --gpu"));
    };
    let rest: Vec<CostModel> = models.collect();
    if rest.is_empty() {
        return Ok(joined);
    }
    let parts = parts_of(&joined);
    for part in parts {
        let origin = origin(&joined, &part);
        joined.origins.entry(part).or_insert(origin);
    }
    for model in rest {
        refuse_other_dtype(&joined, &model)?;
        let known: BTreeSet<String> = joined.origins.keys().cloned().collect();
        for part in parts_of(&model).into_iter().filter(|part| !known.contains(part)) {
            take(&mut joined, &model, &part);
            joined.origins.insert(part.clone(), origin(&model, &part));
        }
        joined.machine.memory_bytes = joined.machine.memory_bytes.or(model.machine.memory_bytes);
    }
    let mut names: Vec<&str> = Vec::new();
    for origin in joined.origins.values() {
        if !names.contains(&origin.machine.as_str()) {
            names.push(&origin.machine);
        }
    }
    joined.machine.name = names.join(" + ");
    Ok(joined)
}

const LAYERS: &str = "layers";
const PRODUCTS: &str = "operations/gemm";
const ATTENTION: &str = "operations/attention";
const STREAMING: &str = "operations/streaming";
const GATE: &str = "gate";
const INTERFERENCE: &str = "interference";

fn has_layers(model: &CostModel) -> bool {
    !model.layer.is_empty() || !model.operations.launch.additivity.is_empty() || !model.operations.gemm.is_empty()
}

/// `send_recv/ping_pong` is a way to measure `send_recv`; a network is another thing than a node's links.
fn collective_part(fit: &CollectiveFit) -> String {
    CostModel::collective_part(&fit.operation, fit.nodes)
}

fn parts_of(model: &CostModel) -> BTreeSet<String> {
    let mut parts: BTreeSet<String> = model.collectives.iter().map(collective_part).collect();
    let fits = &model.operations;
    let own = [
        (LAYERS, !model.layer.is_empty() || !fits.launch.additivity.is_empty()),
        (PRODUCTS, !fits.gemm.is_empty()),
        (ATTENTION, !fits.attention.is_empty()),
        (STREAMING, !fits.streaming.is_empty()),
    ];
    parts.extend(own.into_iter().filter(|(_, has)| *has).map(|(part, _)| part.to_string()));
    parts.extend(model.gate.is_some().then(|| GATE.to_string()));
    parts.extend((!model.interference.pairs.is_empty()).then(|| INTERFERENCE.to_string()));
    parts
}

fn origin(model: &CostModel, part: &str) -> Origin {
    let own = || Origin { machine: model.machine.name.clone(), source: model.source_of(part) };
    model.origins.get(part).cloned().unwrap_or_else(own)
}

fn refuse_other_dtype(joined: &CostModel, model: &CostModel) -> Result<()> {
    if !has_layers(joined) || !has_layers(model) {
        return Ok(());
    }
    let (ours, theirs) = (valid::dtypes(&joined.valid), valid::dtypes(&model.valid));
    // f16 and bf16 take as long as each other.
    let width = |name: &str| DType::parse(name).map(DType::bytes);
    let known = |name: &&str| theirs.iter().any(|other| width(other) == width(name));
    if ours.is_empty() || theirs.is_empty() || ours.iter().any(known) {
        return Ok(());
    }
    Err(Error::input(
        format!(
            "the cost models of {} ({}) and {} ({}) know no number format in common",
            joined.machine.name,
            ours.join(", "),
            model.machine.name,
            theirs.join(", ")
        ),
        "join models of one number format, or give the second for its collectives only by leaving its layers out",
    ))
}

/// Whether a range is of single operations.
fn of_operations(key: &str) -> bool {
    ["gemm/", "attention/", "streaming/"].iter().any(|family| key.starts_with(family))
}

fn take(joined: &mut CostModel, model: &CostModel, part: &str) {
    let mut ranges = |belongs: &dyn Fn(&str) -> bool| {
        for (key, range) in model.valid.iter().filter(|(key, _)| belongs(key)) {
            joined.valid.entry(key.clone()).or_insert(*range);
        }
    };
    match part {
        LAYERS => {
            ranges(&|key| !key.starts_with("collective/") && !of_operations(key));
            joined.layer = model.layer.clone();
            joined.operations.launch = model.operations.launch.clone();
            joined.machine.device = model.machine.device.clone();
            joined.machine.memory_bytes = model.machine.memory_bytes.or(joined.machine.memory_bytes);
        }
        PRODUCTS => {
            ranges(&|key| key.starts_with("gemm/") || key.starts_with("dtype/"));
            joined.operations.gemm = model.operations.gemm.clone();
            if joined.layer.is_empty() {
                joined.machine.device = model.machine.device.clone();
            }
        }
        ATTENTION => {
            ranges(&|key| key.starts_with("attention/"));
            joined.operations.attention = model.operations.attention.clone();
        }
        STREAMING => {
            ranges(&|key| key.starts_with("streaming/"));
            joined.operations.streaming = model.operations.streaming.clone();
        }
        GATE => joined.gate = model.gate.clone(),
        INTERFERENCE => joined.interference = model.interference.clone(),
        collective => {
            ranges(&|key| {
                let operation = key.strip_prefix("collective/").unwrap_or("");
                operation.split('/').next().is_some_and(|name| collective.starts_with(&format!("collectives/{name}")))
            });
            let like = model.collectives.iter().filter(|c| collective_part(c) == collective);
            // How one machine's GPUs are joined says nothing about another's curves.
            if joined.collectives.is_empty() && joined.topology.is_none() {
                joined.topology.clone_from(&model.topology);
            }
            joined.collectives.extend(like.cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::cost_model::OperationFits;
    use crate::records::files;
    use std::path::Path;

    fn published(name: &str) -> CostModel {
        files::read_json(Path::new(&format!("results/published/{name}/cost_model.json")), "cost_model").unwrap()
    }

    fn without_layers(mut model: CostModel) -> CostModel {
        model.layer.clear();
        model.operations = OperationFits::default();
        model.valid.retain(|key, _| key.starts_with("collective/"));
        model
    }

    #[test]
    fn the_first_that_knows_a_part_answers_for_it() {
        let (host, a100) = (published("amd-epyc-2c"), published("a100-80gb"));
        let mut network = without_layers(a100.clone());
        network.machine.name = "cluster".into();
        let joined = join(vec![network, host.clone()]).unwrap();
        assert_eq!(joined.layer, host.layer);
        assert_eq!(joined.operations, host.operations);
        assert_eq!(joined.gate, host.gate);
        let all_reduces = |model: &CostModel| model.collectives.iter().filter(|c| c.operation == "all_reduce").count();
        assert_eq!(all_reduces(&joined), all_reduces(&a100));
        assert_eq!(joined.origins["layers"].machine, host.machine.name);
        assert_eq!(joined.origins["collectives/all_reduce"].machine, "cluster");
        assert_eq!(joined.source_of("layers").name(), "measured");
        assert_eq!(joined.source_of("collectives/all_reduce").name(), "published");
        assert!(joined.machine.name.contains("cluster") && joined.machine.name.contains(&host.machine.name));
        assert_eq!(joined.valid["hidden"], host.valid["hidden"]);
        // The all-reduces within a node hide none between nodes, and no layers stand in the way of others' operations.
        let mut node = a100.clone();
        node.collectives.retain(|c| c.nodes == 1);
        node.operations = OperationFits::default();
        let joined = join(vec![node, a100.clone()]).unwrap();
        assert_eq!(joined.collectives.len(), a100.collectives.len());
        assert_eq!((&joined.operations.gemm, &joined.layer), (&a100.operations.gemm, &a100.layer));
        assert_eq!(join(vec![host.clone()]).unwrap(), host);
    }

    #[test]
    fn models_of_different_number_formats_are_refused() {
        let error = join(vec![published("amd-epyc-2c"), published("a100-80gb")]).unwrap_err().to_string();
        assert!(error.contains("(f32)") && error.contains("(bf16)"), "{error}");
        assert!(join(Vec::new()).is_err());
    }
}
