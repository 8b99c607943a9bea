//! The cases of the big model: a GPT layer phase by phase, its operations one by one, and the small models' steps.
//!
//! The lists are fixed: a shape that is once in a preset keeps its names. [`super::groups`] asks for them; the cases
//! run [`crate::models`] on a `bench::Bench` and check every result against the f64 reference before it is timed.

mod bench;
mod check;
mod cuda;
mod layer;
mod lists;
mod operation;
mod shared_bench;
mod side;
mod spot;

use super::{Case, Context, Platform, Preset, Spec};
use crate::Result;
use crate::models::SideSpec;
use crate::ops::DType;
use crate::ops::work::Operation;
use crate::records::measurement::{Cache, Launch};
use crate::shape::{LayerShape, Phase};
use bench::{Bench, LaunchMode};
use shared_bench::SharedBench;
use std::collections::HashSet;

/// All layer, operation and small-model cases of a preset, in the order they run.
pub fn cases(preset: Preset, platform: Platform) -> Vec<Box<dyn Spec>> {
    match platform {
        Platform::Host => specs::<bench::HostBench>(lists::host::specs(preset)),
        Platform::Gpu(_) => specs::<cuda::CudaBench>(lists::gpu::specs(preset)),
        Platform::Software(_) => specs::<cuda::CudaBench>(lists::software::specs(preset)),
    }
}

fn specs<R: Bench>(specs: Vec<CaseSpec>) -> Vec<Box<dyn Spec>> {
    let shared = SharedBench::<R>::default();
    // The same operation may be asked for under one name by two lists; it runs once.
    let mut seen = HashSet::new();
    specs
        .into_iter()
        .filter(|spec| seen.insert(spec.id()))
        .map(|spec| Box::new(ListedCase { spec, shared: shared.clone() }) as Box<dyn Spec>)
        .collect()
}

/// One case of a list, by what it runs and how it is launched.
#[derive(Debug, Clone, PartialEq)]
enum CaseSpec {
    Layer(LayerShape, Phase, LaunchMode),
    Operation {
        /// `gpt/<slug>/op/<name>/<phase>`
        id: String,
        operation: Operation,
        dtype: DType,
        how: LaunchMode,
    },
    Side(SideSpec, DType, LaunchMode),
}

impl CaseSpec {
    /// Warm and by itself bears the plain name; `/cold` and `/graph` say what else it is.
    fn id(&self) -> String {
        let (name, how) = match self {
            CaseSpec::Layer(shape, phase, how) => (format!("gpt/{}/{}", shape.slug(), phase.name()), how),
            CaseSpec::Operation { id, how, .. } => (id.clone(), how),
            CaseSpec::Side(spec, _, how) => (format!("side/{spec}/step"), how),
        };
        match (how.cache, how.launch) {
            (Cache::Cold, Launch::Graph) => format!("{name}/graph-cold"),
            (Cache::Cold, _) => format!("{name}/cold"),
            (Cache::Warm, Launch::Graph) => format!("{name}/graph"),
            (Cache::Warm, _) => name,
        }
    }
}

struct ListedCase<R: Bench> {
    spec: CaseSpec,
    shared: SharedBench<R>,
}

impl<R: Bench> Spec for ListedCase<R> {
    fn id(&self) -> String {
        self.spec.id()
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Case>> {
        let (id, shared) = (self.spec.id(), self.shared.clone());
        shared.open(context)?;
        Ok(match &self.spec {
            CaseSpec::Layer(shape, phase, how) => Box::new(layer::LayerCase::new(id, shared, *shape, *phase, *how)?),
            CaseSpec::Operation { operation, dtype, how, .. } => {
                let what = operation::OperationSpec { operation: *operation, dtype: *dtype, how: *how };
                Box::new(operation::OperationCase::new(id, shared, what, context.last_level_cache_bytes))
            }
            CaseSpec::Side(spec, dtype, how) => Box::new(side::SideCase::new(id, shared, *spec, *dtype, *how)),
        })
    }

    fn forget(&self) {
        self.shared.lock().forget_layer();
    }
}

#[cfg(test)]
mod tests;
