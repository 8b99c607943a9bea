//! The cases of the big model: a GPT layer phase by phase, its operations one by one, and the small models' steps.
//!
//! The lists are fixed: a shape that is once in a preset keeps its names. [`super::groups`] asks for them; the cases
//! run [`crate::models`] on a `rig::Rig` and check every result against the f64 reference before it is timed.

mod check;
mod cuda;
mod layer;
mod lists;
mod operation;
mod params;
mod rig;
mod side;
mod spot;
mod workshop;

pub use params::{layer_params, operation_params};

use super::{Case, Context, Platform, Preset, Spec};
use crate::Result;
use crate::models::SideSpec;
use crate::ops::DType;
use crate::ops::work::Operation;
use crate::records::measurement::{Cache, Launch};
use crate::shape::{LayerShape, Phase};
use rig::{How, Rig};
use std::collections::HashSet;
use workshop::Shared;

/// All layer, operation and small-model cases of a preset, in the order they run.
pub fn cases(preset: Preset, platform: Platform) -> Vec<Box<dyn Spec>> {
    match platform {
        Platform::Host => specs::<rig::HostRig>(lists::host::plans(preset)),
        Platform::Gpu(_) => specs::<cuda::CudaRig>(lists::gpu::plans(preset)),
        Platform::Software(_) => specs::<cuda::CudaRig>(lists::software::plans(preset)),
    }
}

fn specs<R: Rig>(plans: Vec<Plan>) -> Vec<Box<dyn Spec>> {
    let shared = Shared::<R>::default();
    // The same operation may be asked for under one name by two lists; it runs once.
    let mut seen = HashSet::new();
    plans
        .into_iter()
        .filter(|plan| seen.insert(plan.id()))
        .map(|plan| Box::new(PlanSpec { plan, shared: shared.clone() }) as Box<dyn Spec>)
        .collect()
}

/// One case by what it runs.
#[derive(Debug, Clone, PartialEq)]
enum Plan {
    Layer(LayerShape, Phase, How),
    Operation {
        /// `gpt/<slug>/op/<name>/<phase>`
        id: String,
        operation: Operation,
        dtype: DType,
        how: How,
    },
    Side(SideSpec, DType, How),
}

impl Plan {
    /// Warm and by itself bears the plain name; `/cold` and `/graph` say what else it is.
    fn id(&self) -> String {
        let (name, how) = match self {
            Plan::Layer(shape, phase, how) => (format!("gpt/{}/{}", shape.slug(), phase.name()), how),
            Plan::Operation { id, how, .. } => (id.clone(), how),
            Plan::Side(spec, _, how) => (format!("side/{spec}/step"), how),
        };
        match (how.cache, how.launch) {
            (Cache::Cold, Launch::Graph) => format!("{name}/graph-cold"),
            (Cache::Cold, _) => format!("{name}/cold"),
            (Cache::Warm, Launch::Graph) => format!("{name}/graph"),
            (Cache::Warm, _) => name,
        }
    }
}

struct PlanSpec<R: Rig> {
    plan: Plan,
    shared: Shared<R>,
}

impl<R: Rig> Spec for PlanSpec<R> {
    fn id(&self) -> String {
        self.plan.id()
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Case>> {
        let (id, shared) = (self.plan.id(), self.shared.clone());
        shared.open(context)?;
        Ok(match &self.plan {
            Plan::Layer(shape, phase, how) => Box::new(layer::LayerCase::new(id, shared, *shape, *phase, *how)?),
            Plan::Operation { operation, dtype, how, .. } => {
                let what = operation::What { operation: *operation, dtype: *dtype, how: *how };
                Box::new(operation::OperationCase::new(id, shared, what, context.last_level_cache_bytes))
            }
            Plan::Side(spec, dtype, how) => Box::new(side::SideCase::new(id, shared, *spec, *dtype, *how)),
        })
    }
}

#[cfg(test)]
mod tests;
