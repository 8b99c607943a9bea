//! What the cases of this group share: one bench, and the layer of the shape that ran last with its check.
//!
//! The phases of a shape follow each other in the list, so that one layer is made and checked for all of them.

use super::bench::Bench;
use super::check::Comparison;
use crate::models::gpt::Layer;
use crate::ops::Ops;
use crate::ops::reference::Reference;
use crate::records::measurement::Verified;
use crate::shape::{LayerShape, Phase};
use crate::suite::Context;
use crate::suite::layer_cache::{LayerCache, run_once};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const SEED: u64 = 0xb0bb1e;

/// Above this many FLOPs the reference would take longer than the case itself: a smaller twin is checked.
const MOST_CHECKED_FLOP: f64 = 3e9;
/// Above this many parameters the reference's f64 copies would take gigabytes.
const MOST_CHECKED_PARAMETERS: f64 = 3e7;

pub struct SharedBench<R: Bench>(Arc<Mutex<BenchState<R>>>);

impl<R: Bench> Clone for SharedBench<R> {
    fn clone(&self) -> Self {
        SharedBench(Arc::clone(&self.0))
    }
}

impl<R: Bench> Default for SharedBench<R> {
    fn default() -> Self {
        SharedBench(Arc::new(Mutex::new(BenchState {
            bench: None,
            layer: LayerCache::default(),
            verified: HashMap::new(),
        })))
    }
}

pub struct BenchState<R: Bench> {
    bench: Option<R>,
    layer: LayerCache<R::Ops>,
    verified: HashMap<LayerShape, Verified>,
}

impl<R: Bench> SharedBench<R> {
    pub fn lock(&self) -> MutexGuard<'_, BenchState<R>> {
        // A case that panicked left no half-made state worth refusing: everything is remade on demand.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the bench, or anew where it no longer serves.
    pub fn open(&self, context: &Context) -> Result<()> {
        let mut state = self.lock();
        if state.bench.as_ref().is_none_or(|bench| !bench.serves(context)) {
            state.layer.forget();
            state.bench = None;
            state.bench = Some(R::open(context)?);
        }
        Ok(())
    }
}

impl<R: Bench> BenchState<R> {
    /// `Spec::build` has opened it.
    pub fn bench(&mut self) -> Result<&mut R> {
        self.bench.as_mut().ok_or_else(no_bench)
    }

    /// Frees the layer before something else is allocated.
    pub fn forget_layer(&mut self) {
        self.layer.forget();
    }

    /// The bench and the layer of this shape, made and run once if it is not the one at hand.
    pub fn layer(&mut self, shape: LayerShape) -> Result<(&mut R, &mut Layer<R::Ops>)> {
        let bench = self.bench.as_mut().ok_or_else(no_bench)?;
        let layer = self.layer.get(shape, || bench.within(|ops| run_once(ops, shape, SEED)))?;
        Ok((bench, layer))
    }

    /// The check of a shape, done at its first phase.
    pub fn verify(&mut self, shape: LayerShape) -> Result<Verified> {
        if let Some(verified) = self.verified.get(&shape) {
            return Ok(verified.clone());
        }
        let twin = checked_twin(shape);
        let verified = if twin == shape {
            let (bench, layer) = self.layer(shape)?;
            bench.within(|ops| compare(ops, layer, "f64 reference".into()))?
        } else if let Some(verified) = self.verified.get(&twin) {
            // Several big shapes have the same small twin.
            verified.clone()
        } else {
            let bench = self.bench()?;
            let verified = bench.within(|ops| {
                let layer = run_once(ops, twin, SEED)?;
                compare(ops, &layer, format!("f64 reference at {}", twin.slug()))
            })?;
            self.verified.insert(twin, verified.clone());
            verified
        };
        self.verified.insert(shape, verified.clone());
        Ok(verified)
    }
}

fn no_bench() -> Error {
    Error::machine("the cases have no device to run on", "build a case before preparing it")
}

/// The shape itself, or one with fewer rows, and then fewer heads of the same size, as make its check affordable.
fn checked_twin(shape: LayerShape) -> LayerShape {
    let mut twin = shape;
    let (kv, inner) = (shape.heads / shape.kv_heads, shape.ffn_hidden as f64 / shape.hidden as f64);
    let dear = |twin: &LayerShape| {
        twin.flop(Phase::ForwardBackward) > MOST_CHECKED_FLOP || twin.parameters() as f64 > MOST_CHECKED_PARAMETERS
    };
    while dear(&twin) {
        if twin.rows() > 32 && twin.micro_batch > 1 {
            twin.micro_batch /= 2;
        } else if twin.rows() > 32 {
            twin.sequence /= 2;
        } else if twin.heads.is_multiple_of(2) && (twin.heads / 2).is_multiple_of(twin.tensor) {
            twin.heads /= 2;
            twin.hidden /= 2;
            twin.kv_heads = (twin.heads / kv).max(1);
            twin.ffn_hidden = (inner * twin.hidden as f64).round() as u64;
        } else if twin.rows() > 16 {
            twin.sequence = (twin.sequence / 2).max(1);
        } else {
            return twin;
        }
    }
    twin
}

/// Output, dx and every parameter's gradient of a layer that has run once.
fn compare<O: Ops>(ops: &mut O, layer: &Layer<O>, against: String) -> Result<Verified> {
    let mut exact = Reference::new();
    let mut reference = Layer::new(&mut exact, *layer.shape(), SEED)?;
    reference.run(&mut exact, Phase::ForwardBackward);
    let mut comparison = Comparison::new(against, layer.shape().dtype);
    for ((_, is), (_, want)) in layer.results().into_iter().zip(reference.results()) {
        comparison.tensor(&ops.read(is)?, &exact.read(want)?);
    }
    Ok(comparison.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DType;

    #[test]
    fn twins_are_affordable_and_keep_their_heads_size() {
        let small = LayerShape::new(256, 4, 128, 1, DType::F32);
        assert_eq!(checked_twin(small), small);
        let big = LayerShape::new(1024, 16, 512, 4, DType::F32);
        let twin = checked_twin(big);
        assert_eq!((twin.hidden, twin.heads, twin.micro_batch), (1024, 16, 1));
        assert!(twin.flop(Phase::ForwardBackward) <= MOST_CHECKED_FLOP && twin.sequence >= 16);
        for (hidden, heads, sequence, batch, tensor) in
            [(12288, 96, 2048, 1, 1), (8192, 64, 2048, 1, 8), (2304, 24, 1024, 6, 1), (6144, 48, 2048, 2, 4)]
        {
            let huge = LayerShape::new(hidden, heads, sequence, batch, DType::Bf16).tensor(tensor);
            let twin = checked_twin(huge);
            twin.validate().unwrap();
            assert_eq!((twin.hidden / twin.heads, twin.tensor), (hidden / heads, tensor), "{}", twin.slug());
            assert!(twin.rows() >= 16 && twin.flop(Phase::ForwardBackward) <= MOST_CHECKED_FLOP, "{}", twin.slug());
            assert!(twin.parameters() as f64 <= MOST_CHECKED_PARAMETERS);
        }
    }
}
