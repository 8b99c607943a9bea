//! Several cost models as one: layers from one, collectives from another. The first that knows a part answers for it.
//!
//! Parts are layers (with the fits of their phases), single operations, each collective, the gate, and interference. A
//! layer's fit that rests on operations rests on those of its own machine.

use super::valid;
use crate::records::CostModel;
use crate::records::cost_model::Origin;
use crate::shape::DType;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// Joins cost models, each part from the first that has it: layers, with the operations beneath them where the same model has
/// some; single operations; each collective by its name; gate; interference. [`CostModel::origins`] says which answered for what.
/// One model is returned as it is. Fails without a model, or if two that have layers know no number format in common.
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
        joined.topology = joined.topology.or(model.topology);
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
const OPERATIONS: &str = "operations";
const GATE: &str = "gate";
const INTERFERENCE: &str = "interference";

fn has_layers(model: &CostModel) -> bool {
    has_operations(model) || !model.layer.is_empty()
}

fn has_operations(model: &CostModel) -> bool {
    let fits = &model.operations;
    [&fits.gemm, &fits.attention, &fits.streaming].iter().any(|table| !table.is_empty())
}

/// `send_recv/ping_pong` is a way to measure `send_recv`.
fn collective_part(operation: &str) -> String {
    format!("collectives/{}", operation.split('/').next().unwrap_or(operation))
}

fn parts_of(model: &CostModel) -> BTreeSet<String> {
    let mut parts: BTreeSet<String> = model.collectives.iter().map(|c| collective_part(&c.operation)).collect();
    parts.extend(has_layers(model).then(|| LAYERS.to_string()));
    parts.extend(has_operations(model).then(|| OPERATIONS.to_string()));
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
        OPERATIONS => {
            ranges(&of_operations);
            let (fits, theirs) = (&mut joined.operations, &model.operations);
            fits.gemm = theirs.gemm.clone();
            fits.attention = theirs.attention.clone();
            fits.streaming = theirs.streaming.clone();
        }
        GATE => joined.gate = model.gate.clone(),
        INTERFERENCE => joined.interference = model.interference.clone(),
        collective => {
            ranges(&|key| {
                let operation = key.strip_prefix("collective/").unwrap_or("");
                operation.split('/').next().is_some_and(|name| collective == format!("collectives/{name}"))
            });
            let like = model.collectives.iter().filter(|c| collective_part(&c.operation) == collective);
            joined.collectives.extend(like.cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::files;
    use std::path::Path;

    fn published(name: &str) -> CostModel {
        files::read_json(Path::new(&format!("results/published/{name}/cost_model.json")), "cost_model").unwrap()
    }

    fn without_layers(mut model: CostModel) -> CostModel {
        model.layer.clear();
        model.operations.gemm.clear();
        model.operations.attention.clear();
        model.operations.streaming.clear();
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
        assert_eq!(join(vec![host.clone()]).unwrap(), host);
    }

    #[test]
    fn models_of_different_number_formats_are_refused() {
        let error = join(vec![published("amd-epyc-2c"), published("a100-80gb")]).unwrap_err().to_string();
        assert!(error.contains("(f32)") && error.contains("(bf16)"), "{error}");
        assert!(join(Vec::new()).is_err());
    }
}
