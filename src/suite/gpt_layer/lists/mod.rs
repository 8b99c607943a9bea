//! Which cases a preset holds, by platform; and the pieces the lists are put together from.

pub mod gpu;
pub mod host;
pub mod software;

use super::CaseSpec;
use super::bench::LaunchMode;
use crate::models::SideSpec;
use crate::ops::work::Operation;
use crate::ops::{DType, Rows};
use crate::records::measurement::{Cache, Launch};
use crate::shape::{LayerShape, Phase, Recompute};

/// The phases a layer's operations belong to.
const PHASES: [Phase; 3] = [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight];
const PRODUCTS: [&str; 4] = ["qkv", "projection", "fc1", "fc2"];
const STREAMING: [&str; 2] = ["ln1", "residual1"];

pub(super) const CALL: LaunchMode = LaunchMode { cache: Cache::Warm, launch: Launch::Call };
const STREAM: LaunchMode = LaunchMode { cache: Cache::Warm, launch: Launch::Stream };
const COLD: LaunchMode = LaunchMode { cache: Cache::Cold, launch: Launch::Stream };
const GRAPH: LaunchMode = LaunchMode { cache: Cache::Warm, launch: Launch::Graph };

fn phases(shape: LayerShape, how: LaunchMode) -> Vec<CaseSpec> {
    Phase::ALL.map(|phase| CaseSpec::Layer(shape, phase, how)).to_vec()
}

/// A layer's operations by name within the layer; the recomputed ones of a backward phase are those of its forward.
pub(super) fn operations_of(shape: LayerShape, names: &[&str], how: LaunchMode) -> Vec<CaseSpec> {
    let shape = shape.recompute(Recompute::None);
    let of_phase = |phase: Phase| {
        let chosen = shape.operations(phase).into_iter().filter(|(name, _)| names.contains(name));
        chosen.map(move |(name, operation)| CaseSpec::Operation {
            id: format!("gpt/{}/op/{name}/{}", shape.slug(), phase.name()),
            operation,
            dtype: shape.dtype,
            how,
        })
    };
    PHASES.into_iter().flat_map(of_phase).collect()
}

/// Sizes of the operations outside the layer that its shape says nothing of.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndSizes {
    pub vocabulary: usize,
    /// Parameters of one update: beyond this its time per byte no longer changes, and its buffers take gigabytes.
    pub most_updated: usize,
}

/// Operations outside the layer, at the size a model of this shape asks for. `gelu` is the one not fused in a product;
/// `dropout` is what a model may add to the layer, `residual_layernorm` what may take the place of its sum and its
/// normalisation.
pub(super) fn loose(shape: LayerShape, ends: EndSizes, how: LaunchMode) -> Vec<CaseSpec> {
    let rows = shape.rows() as usize;
    let parameters = (shape.parameters() as usize).min(ends.most_updated);
    let hidden = shape.norm_rows();
    let len = rows * shape.local_inner() as usize;
    let list = [
        ("adamw/update", Operation::Adamw { len: parameters }),
        ("cross_entropy/forward_backward", Operation::CrossEntropy(Rows { rows, cols: ends.vocabulary })),
        ("dropout/forward", Operation::Dropout { len: hidden.len() }),
        ("embedding/forward", Operation::EmbeddingForward(hidden)),
        ("embedding/backward_weight", Operation::EmbeddingToWeights(hidden)),
        ("gelu/forward", Operation::GeluForward { len }),
        ("gelu/backward_input", Operation::GeluBackward { len }),
        ("residual_layernorm/forward", Operation::ResidualLayernorm(hidden)),
    ];
    let spec = |(name, operation)| {
        let id = format!("gpt/{}/op/{name}", shape.slug());
        CaseSpec::Operation { id, operation, dtype: shape.dtype, how }
    };
    list.into_iter().map(spec).collect()
}

/// Of those, the ones whose name begins so.
fn loose_named(shape: LayerShape, ends: EndSizes, how: LaunchMode, head: &str) -> Vec<CaseSpec> {
    let named =
        |spec: &CaseSpec| matches!(spec, CaseSpec::Operation { id, .. } if id.contains(&format!("/op/{head}/")));
    loose(shape, ends, how).into_iter().filter(named).collect()
}

fn sides(specs: impl IntoIterator<Item = SideSpec>, dtype: DType, how: LaunchMode) -> Vec<CaseSpec> {
    specs.into_iter().map(|spec| CaseSpec::Side(spec, dtype, how)).collect()
}
