//! What stands in a record about a layer or an operation: every number a fit needs, by name.
//!
//! The cases and the importers write it, `cost` reads it back from records.

use super::operation::{Epilogue, Family, Operation};
use super::sizes::{Attention, Rows};
use super::{LayerShape, Phase};
use serde_json::{Map, Value};

fn put(map: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    map.insert(name.to_string(), value.into());
}

/// The parameters of a record about a phase of a layer: `hidden heads sequence micro_batch tensor dtype recompute phase
/// activation_bytes parameter_bytes`.
pub fn layer_params(shape: &LayerShape, phase: Phase) -> Map<String, Value> {
    let mut map = shape.params();
    put(&mut map, "phase", phase.name());
    put(&mut map, "activation_bytes", shape.activation_bytes());
    put(&mut map, "parameter_bytes", shape.parameter_bytes());
    map
}

const fn family(family: Family) -> &'static str {
    match family {
        Family::Gemm => "gemm",
        Family::Attention => "attention",
        Family::Streaming => "streaming",
    }
}

const fn epilogue(epilogue: Epilogue) -> &'static str {
    match epilogue {
        Epilogue::None => "none",
        Epilogue::Bias => "bias",
        Epilogue::BiasGelu => "bias_gelu",
        Epilogue::GeluBackward => "gelu_backward",
        Epilogue::BiasGradient => "bias_gradient",
    }
}

/// The parameters of a record about one operation: `operation` and `family` of every one; of products `product rows
/// inputs outputs epilogue`, of attention `batch heads sequence head_size` (`kv_heads` and `causal` where they are not the
/// usual ones), of streaming operations `elements` (and
/// `rows columns` where they have some).
pub fn operation_params(operation: &Operation) -> Map<String, Value> {
    let mut map = Map::new();
    put(&mut map, "operation", operation.name());
    put(&mut map, "family", family(operation.family()));
    match operation {
        Operation::Linear { product, shape, epilogue: fused } => {
            put(&mut map, "product", product.name());
            put(&mut map, "rows", shape.rows);
            put(&mut map, "inputs", shape.inputs);
            put(&mut map, "outputs", shape.outputs);
            put(&mut map, "epilogue", epilogue(*fused));
        }
        Operation::BatchedProduct { batch, m, n, k } => {
            for (name, size) in [("batch", *batch), ("m", *m), ("n", *n), ("k", *k)] {
                put(&mut map, name, size);
            }
        }
        Operation::AttentionForward(a) | Operation::AttentionBackward(a) => attention(&mut map, a),
        Operation::LayernormForward(r)
        | Operation::LayernormToInputs(r)
        | Operation::LayernormToWeights(r)
        | Operation::RmsnormForward(r)
        | Operation::RmsnormToInputs(r)
        | Operation::RmsnormToWeights(r)
        | Operation::CrossEntropy(r)
        | Operation::ResidualLayernorm(r)
        | Operation::EmbeddingForward(r)
        | Operation::EmbeddingToWeights(r) => rows(&mut map, r),
        Operation::RotaryForward { len }
        | Operation::RotaryBackward { len }
        | Operation::SwigluForward { len }
        | Operation::SwigluBackward { len }
        | Operation::SoftmaxForward { len }
        | Operation::SoftmaxBackward { len }
        | Operation::MaskedDropout { len }
        | Operation::BiasDropoutResidual { len }
        | Operation::BiasGradient { len }
        | Operation::Copy { len }
        | Operation::GeluForward { len }
        | Operation::GeluBackward { len }
        | Operation::Residual { len }
        | Operation::Dropout { len }
        | Operation::Adamw { len } => put(&mut map, "elements", *len),
    }
    map
}

fn attention(map: &mut Map<String, Value>, a: &Attention) {
    put(map, "batch", a.batch);
    put(map, "heads", a.heads);
    put(map, "sequence", a.sequence);
    put(map, "head_size", a.head_size);
    if a.kv_heads != a.heads {
        put(map, "kv_heads", a.kv_heads);
    }
    if !a.causal {
        put(map, "causal", false);
    }
}

fn rows(map: &mut Map<String, Value>, r: &Rows) {
    put(map, "elements", r.len());
    put(map, "rows", r.rows);
    put(map, "columns", r.cols);
}
