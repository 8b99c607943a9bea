//! The cases of the big model: a GPT layer phase by phase, its operations one by one, and the small models' steps.
//!
//! The lists are fixed: a shape that is once in a preset keeps its names. [`super::presets`] asks for them; the cases
//! run [`crate::models`] on the host and check every result against the f64 reference before it is timed.

mod check;
mod layer;
mod operation;
mod params;
mod side;
mod workshop;

pub use params::{layer_params, operation_params};

use super::{Case, Context, Preset, Spec};
use crate::Result;
use crate::models::SideSpec;
use crate::ops::work::Operation;
use crate::ops::{DType, Rows};
use crate::records::measurement::{Backend, Cache};
use crate::shape::{LayerShape, Phase, Recompute};
use std::collections::HashSet;
use workshop::Shared;

/// All layer, operation and small-model cases of a preset, in the order they run.
pub fn cases(preset: Preset, backend: Backend) -> Vec<Box<dyn Spec>> {
    match backend {
        Backend::Host => host_cases(preset),
        // The CUDA device speaks the vocabulary but has no cases of its own yet.
        Backend::Cuda => Vec::new(),
    }
}

fn host_cases(preset: Preset) -> Vec<Box<dyn Spec>> {
    let shared = Shared::default();
    let plans = layers(preset)
        .into_iter()
        .chain(operations(preset))
        .chain(sides(preset).into_iter().map(Plan::Side))
        .collect::<Vec<_>>();
    // The same operation may be asked for under one name by two lists; it runs once.
    let mut seen = HashSet::new();
    plans
        .into_iter()
        .filter(|plan| seen.insert(plan.id()))
        .map(|plan| Box::new(HostSpec { plan, shared: shared.clone() }) as Box<dyn Spec>)
        .collect()
}

/// One case by what it runs.
#[derive(Debug, Clone, PartialEq)]
enum Plan {
    Layer(LayerShape, Phase),
    Operation {
        /// `gpt/<slug>/op/<name>/<phase>`
        id: String,
        operation: Operation,
        dtype: DType,
        cache: Cache,
    },
    Side(SideSpec),
}

impl Plan {
    fn id(&self) -> String {
        match self {
            Plan::Layer(shape, phase) => format!("gpt/{}/{}", shape.slug(), phase.name()),
            Plan::Operation { id, cache: Cache::Warm, .. } => id.clone(),
            Plan::Operation { id, cache: Cache::Cold, .. } => format!("{id}/cold"),
            Plan::Side(spec) => format!("side/{spec}/step"),
        }
    }
}

struct HostSpec {
    plan: Plan,
    shared: Shared,
}

impl Spec for HostSpec {
    fn id(&self) -> String {
        self.plan.id()
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Case>> {
        let (id, shared) = (self.plan.id(), self.shared.clone());
        shared.use_cores(context.cores)?;
        Ok(match &self.plan {
            Plan::Layer(shape, phase) => Box::new(layer::LayerCase::new(id, shared, *shape, *phase)?),
            Plan::Operation { operation, dtype, cache, .. } => {
                let what = operation::What { operation: *operation, dtype: *dtype, cache: *cache };
                let cache_bytes = context.last_level_cache_bytes;
                Box::new(operation::OperationCase::new(id, shared, what, cache_bytes))
            }
            Plan::Side(spec) => Box::new(side::SideCase::new(id, shared, *spec)),
        })
    }
}

const fn f32_layer(hidden: u64, heads: u64, sequence: u64, micro_batch: u64) -> LayerShape {
    LayerShape::new(hidden, heads, sequence, micro_batch, DType::F32)
}

/// Layer shapes of the standard preset, all phases each. On two cores a whole pass takes 10 to 110 ms.
const STANDARD: [LayerShape; 10] = [
    f32_layer(256, 4, 128, 1),
    f32_layer(256, 4, 128, 4),
    f32_layer(256, 4, 512, 2),
    f32_layer(512, 8, 128, 2),
    f32_layer(512, 8, 256, 1),
    f32_layer(512, 8, 256, 2).tensor(2),
    f32_layer(512, 8, 512, 1).recompute(Recompute::Selective),
    f32_layer(768, 12, 128, 1).recompute(Recompute::Full),
    f32_layer(768, 12, 256, 1),
    f32_layer(1024, 16, 128, 1),
];

/// Of those, by their place, what the quick preset runs whole, and what it runs as one whole pass only.
const QUICK: [usize; 3] = [0, 1, 3];
const QUICK_WHOLE_PASS: [usize; 2] = [4, 5];

/// What the full preset adds.
const FULL: [LayerShape; 14] = [
    f32_layer(256, 4, 256, 2),
    f32_layer(384, 6, 128, 2),
    f32_layer(256, 4, 1024, 1),
    f32_layer(384, 6, 256, 2),
    f32_layer(512, 8, 512, 2),
    f32_layer(512, 8, 1024, 1),
    f32_layer(512, 4, 256, 4).tensor(4),
    f32_layer(768, 12, 512, 1).tensor(2),
    f32_layer(768, 12, 512, 1).recompute(Recompute::Selective),
    f32_layer(1024, 16, 256, 2).recompute(Recompute::Full),
    f32_layer(1024, 16, 512, 1),
    f32_layer(1024, 8, 512, 1).tensor(2),
    f32_layer(1536, 12, 256, 1),
    f32_layer(2048, 16, 256, 1),
];

fn layers(preset: Preset) -> Vec<Plan> {
    let all = |shape: &LayerShape| Phase::ALL.map(|phase| Plan::Layer(*shape, phase));
    match preset {
        Preset::Quick => {
            let whole = QUICK_WHOLE_PASS.map(|i| Plan::Layer(STANDARD[i], Phase::ForwardBackward));
            QUICK.iter().flat_map(|&i| all(&STANDARD[i])).chain(whole).collect()
        }
        Preset::Standard => STANDARD.iter().flat_map(all).collect(),
        Preset::Full => STANDARD.iter().chain(&FULL).flat_map(all).collect(),
    }
}

const PHASES: [Phase; 3] = [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight];

/// A layer's operations by name within the layer; the recomputed ones of a backward phase are those of its forward.
fn operations_of(shape: LayerShape, names: &[&str], cache: Cache) -> Vec<Plan> {
    let shape = shape.recompute(Recompute::None);
    let of_phase = |phase: Phase| {
        let chosen = shape.operations(phase).into_iter().filter(|(name, _)| names.contains(name));
        chosen.map(move |(name, operation)| Plan::Operation {
            id: format!("gpt/{}/op/{name}/{}", shape.slug(), phase.name()),
            operation,
            dtype: shape.dtype,
            cache,
        })
    };
    PHASES.into_iter().flat_map(of_phase).collect()
}

const PRODUCTS: [&str; 4] = ["qkv", "projection", "fc1", "fc2"];
const VOCABULARY: usize = 4096;

/// Parameters of one update: beyond this its time per byte no longer changes, and its buffers take gigabytes.
const MOST_UPDATED: usize = 1 << 24;

/// Operations outside the layer, at the size a model of this shape asks for. `gelu` is the one not fused in a product.
fn loose(shape: LayerShape, cache: Cache) -> Vec<Plan> {
    let rows = shape.rows() as usize;
    let parameters = (shape.parameters() as usize).min(MOST_UPDATED);
    let hidden = shape.norm();
    let len = rows * shape.local_inner() as usize;
    let list = [
        ("adamw/update", Operation::Adamw { len: parameters }),
        ("cross_entropy/forward_backward", Operation::CrossEntropy(Rows { rows, cols: VOCABULARY })),
        ("embedding/forward", Operation::EmbeddingForward(hidden)),
        ("embedding/backward_weight", Operation::EmbeddingToWeights(hidden)),
        ("gelu/forward", Operation::GeluForward { len }),
        ("gelu/backward_input", Operation::GeluBackward { len }),
    ];
    let plan = |(name, operation)| {
        let id = format!("gpt/{}/op/{name}", shape.slug());
        Plan::Operation { id, operation, dtype: shape.dtype, cache }
    };
    list.into_iter().map(plan).collect()
}

const STREAMING: [&str; 2] = ["ln1", "residual1"];

fn operations(preset: Preset) -> Vec<Plan> {
    use Cache::{Cold, Warm};
    match preset {
        Preset::Quick => [
            operations_of(STANDARD[2], &["fc1"], Warm),
            operations_of(STANDARD[3], &["qkv"], Warm),
            operations_of(STANDARD[9], &["projection"], Warm),
            operations_of(STANDARD[0], &["attention", "ln1", "residual1"], Warm),
            operations_of(STANDARD[4], &["attention"], Warm),
        ]
        .concat(),
        Preset::Standard => [
            operations_of(STANDARD[0], &["attention", "ln1", "residual1"], Warm),
            operations_of(STANDARD[2], &PRODUCTS, Warm),
            operations_of(STANDARD[2], &["attention", "ln1", "residual1"], Warm),
            operations_of(STANDARD[3], &PRODUCTS, Warm),
            operations_of(STANDARD[4], &["attention"], Warm),
            operations_of(STANDARD[6], &["attention"], Warm),
            operations_of(STANDARD[8], &STREAMING, Warm),
            operations_of(STANDARD[9], &PRODUCTS, Warm),
            loose(STANDARD[0], Warm),
            operations_of(STANDARD[2], &STREAMING, Cold),
        ]
        .concat(),
        Preset::Full => {
            let every = || STANDARD.iter().chain(&FULL);
            let warm = every()
                .flat_map(|s| [operations_of(*s, &PRODUCTS, Warm), operations_of(*s, &["attention"], Warm)].concat());
            let streaming = every().flat_map(|s| {
                let of = |cache| [operations_of(*s, &STREAMING, cache), loose(*s, cache)].concat();
                [of(Warm), of(Cold)].concat()
            });
            warm.chain(streaming).collect()
        }
    }
}

fn sides(preset: Preset) -> Vec<SideSpec> {
    let usual = SideSpec::usual();
    match preset {
        Preset::Quick => usual[..1].to_vec(),
        Preset::Standard => usual.to_vec(),
        Preset::Full => usual.into_iter().chain(usual.map(|s| SideSpec { batch: 2 * s.batch, ..s })).collect(),
    }
}

#[cfg(test)]
mod tests;
