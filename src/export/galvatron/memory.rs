//! The memory that Galvatron's engine reads: MiB of a layer, and of what stands beside the layers, at each tensor
//! parallelism, without and with sequence parallelism.

use super::on_one_gpu;
use crate::export::MIB;
use crate::export::workload::Workload;
use crate::shape::{LayerShape, Normalization, Positions};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Bytes of a parameter with its gradient and two moments, all in 32 bits, as the engine counts model states.
const STATE_BYTES: f64 = 16.0;

#[derive(Serialize)]
struct LayerMemory {
    parameter_size: f64,
    tp_activation_per_bsz_dict: BTreeMap<String, f64>,
}

#[derive(Serialize)]
struct OtherMemory {
    model_states: BTreeMap<String, f64>,
    activation: BTreeMap<String, f64>,
}

/// Every part of the memory, without and with sequence parallelism, by the sequence's length.
pub(super) fn parts(workload: &Workload, degrees: &[u64], notes: &mut Vec<String>) -> Map<String, Value> {
    let mut parts = Map::new();
    let job = &workload.job;
    let sequence = job.model.sequence.to_string();
    let shape = workload.shape(1, 1);
    let tensors: Vec<u64> = std::iter::once(1).chain(degrees.iter().copied()).collect();
    notes.extend(undivided_note(workload, &tensors));
    for (ending, sequence_parallel) in [("", false), ("_sp", true)] {
        let activation = |t: u64| {
            let divided = workload.shape(1, t);
            match divided.validate() {
                Ok(()) => {
                    LayerShape { sequence_parallel: sequence_parallel && t > 1, ..divided }.activation_bytes() as f64
                }
                Err(_) => shape.activation_bytes() as f64 / t as f64,
            }
        };
        let mut activations: BTreeMap<String, f64> =
            tensors.iter().map(|&t| (t.to_string(), activation(t) / MIB)).collect();
        let input = (job.model.sequence * job.model.hidden * workload.dtype.bytes() as u64) as f64;
        activations.insert("checkpoint".into(), input / MIB);
        let layer = LayerMemory {
            parameter_size: 4.0 * shape.parameters() as f64 / MIB,
            tp_activation_per_bsz_dict: activations,
        };
        let mut put = |name: &str, value: Value| {
            parts.insert(format!("{name}{ending}"), json!({ sequence.as_str(): value }));
        };
        put("layertype_0", json!(layer));
        for (name, part) in Ends::of(workload).parts() {
            put(&format!("other_memory_pp_{name}"), json!(part.memory(&tensors)));
        }
    }
    parts
}

/// Says from which tensor parallelism on the heads cannot be divided; `None` where they always can.
fn undivided_note(workload: &Workload, tensors: &[u64]) -> Option<String> {
    let least = tensors.iter().find(|t| workload.shape(1, **t).validate().is_err())?;
    let heads = workload.job.model.heads;
    Some(format!(
        "{heads} heads cannot be divided by {least}: activations at that tensor parallelism are a part of one rank's"
    ))
}

/// Parameters as a count of elements, and bytes of activations of one sample, beside the layers.
#[derive(Clone, Copy)]
struct Beside {
    parameters: u64,
    activation_bytes: u64,
}

impl Beside {
    fn memory(self, tensors: &[u64]) -> OtherMemory {
        let of = |bytes: &dyn Fn(u64) -> f64| tensors.iter().map(|&t| (t.to_string(), bytes(t) / MIB)).collect();
        OtherMemory {
            model_states: of(&|t| STATE_BYTES * self.parameters as f64 / t as f64),
            activation: of(&|_| self.activation_bytes as f64),
        }
    }
}

/// What stands before the layers, behind them, and both on one device.
struct Ends {
    first: Beside,
    last: Beside,
    both: Beside,
}

impl Ends {
    fn of(workload: &Workload) -> Ends {
        let (job, m) = (&workload.job, &workload.job.model);
        let matrix = on_one_gpu(job, 1).local_vocabulary() * m.hidden;
        let positions = if m.positions == Positions::Learned { m.sequence * m.hidden } else { 0 };
        let norm = if m.norm == Normalization::Layernorm { 2 * m.hidden } else { m.hidden };
        let element = workload.dtype.bytes() as u64;
        let first = Beside { parameters: matrix + positions, activation_bytes: element * m.sequence * m.hidden };
        // Logits in the training format, and in 32 bits for the loss.
        let last = Beside { parameters: matrix + norm, activation_bytes: (element + 4) * m.sequence * m.vocabulary };
        let both = Beside {
            parameters: first.parameters + last.parameters - if m.tied { matrix } else { 0 },
            activation_bytes: first.activation_bytes + last.activation_bytes,
        };
        Ends { first, last, both }
    }

    fn parts(&self) -> [(&'static str, Beside); 3] {
        [("off", self.both), ("on_first", self.first), ("on_last", self.last)]
    }
}
