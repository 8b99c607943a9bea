//! What the cases of this group share: one host, and the layer of the shape that ran last with its check.
//!
//! The phases of a shape follow each other in the list, so that one layer is made and checked for all of them.

use super::check::Comparison;
use crate::models::gpt::Layer;
use crate::ops::Ops;
use crate::ops::host::{Host, HostConfig};
use crate::ops::reference::Reference;
use crate::records::measurement::Verified;
use crate::shape::{LayerShape, Phase};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const SEED: u64 = 0xb0bb1e;

/// Above this many FLOPs the reference would take longer than the case itself: a twin with fewer rows is checked.
const MOST_CHECKED_FLOP: f64 = 3e9;

#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Workshop>>);

#[derive(Default)]
pub struct Workshop {
    host: Option<Host>,
    layer: Option<Layer<Host>>,
    verified: HashMap<LayerShape, Verified>,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Workshop> {
        // A case that panicked left no half-made state worth refusing: everything is remade on demand.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the host, or makes it anew for another number of threads.
    pub fn use_cores(&self, cores: usize) -> Result<()> {
        let mut workshop = self.lock();
        if workshop.host.as_ref().is_none_or(|host| host.threads() != cores) {
            workshop.host = Some(Host::new(HostConfig { threads: cores, cores: None, nice: None })?);
        }
        Ok(())
    }
}

impl Workshop {
    /// The host; `Spec::build` has made it.
    pub fn host(&mut self) -> Result<&mut Host> {
        self.host.as_mut().ok_or_else(no_host)
    }

    /// Frees the layer before something else is allocated.
    pub fn forget_layer(&mut self) {
        self.layer = None;
    }

    /// The host and the layer of this shape, made and run once if it is not the one at hand.
    pub fn layer(&mut self, shape: LayerShape) -> Result<(&mut Host, &mut Layer<Host>)> {
        let host = self.host.as_mut().ok_or_else(no_host)?;
        if self.layer.as_ref().is_none_or(|layer| *layer.shape() != shape) {
            // The old one goes first: two big layers need not fit.
            self.layer = None;
            self.layer = Some(run_once(host, shape)?);
        }
        let layer = self.layer.as_mut().ok_or_else(no_host)?;
        Ok((host, layer))
    }

    /// The check of a shape, done at its first phase.
    pub fn verify(&mut self, shape: LayerShape) -> Result<Verified> {
        if let Some(verified) = self.verified.get(&shape) {
            return Ok(verified.clone());
        }
        let twin = checked_twin(shape);
        let verified = if twin == shape {
            let (host, layer) = self.layer(shape)?;
            host.run(|host| compare(host, layer, "f64 reference".into()))?
        } else {
            let host = self.host()?;
            let layer = run_once(host, twin)?;
            host.run(|host| compare(host, &layer, format!("f64 reference at {}", twin.slug())))?
        };
        self.verified.insert(shape, verified.clone());
        Ok(verified)
    }
}

fn no_host() -> Error {
    Error::machine("the cases have no host to run on", "build a case before preparing it")
}

/// A fresh layer after one forward and backward pass.
fn run_once(host: &mut Host, shape: LayerShape) -> Result<Layer<Host>> {
    host.run(|host| {
        let mut layer = Layer::new(host, shape, SEED)?;
        layer.run(host, Phase::ForwardBackward);
        host.synchronize()?;
        Ok(layer)
    })
}

/// The shape itself, or one with as many fewer rows as make its check affordable.
fn checked_twin(shape: LayerShape) -> LayerShape {
    let mut twin = shape;
    while twin.flop(Phase::ForwardBackward) > MOST_CHECKED_FLOP && twin.rows() > 16 {
        if twin.micro_batch > 1 {
            twin.micro_batch /= 2;
        } else {
            twin.sequence /= 2;
        }
    }
    twin
}

/// Output, dx and every parameter's gradient of a layer that has run once.
fn compare(host: &mut Host, layer: &Layer<Host>, against: String) -> Result<Verified> {
    let mut ops = Reference::new();
    let mut reference = Layer::new(&mut ops, *layer.shape(), SEED)?;
    reference.run(&mut ops, Phase::ForwardBackward);
    let mut comparison = Comparison::new(against, layer.shape().dtype);
    for ((_, is), (_, want)) in layer.results().into_iter().zip(reference.results()) {
        comparison.tensor(&host.read(is)?, &ops.read(want)?);
    }
    Ok(comparison.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DType;

    #[test]
    fn twins_are_affordable_and_keep_their_width() {
        let small = LayerShape::new(256, 4, 128, 1, DType::F32);
        assert_eq!(checked_twin(small), small);
        let big = LayerShape::new(1024, 16, 512, 4, DType::F32);
        let twin = checked_twin(big);
        assert_eq!((twin.hidden, twin.heads, twin.micro_batch), (1024, 16, 1));
        assert!(twin.flop(Phase::ForwardBackward) <= MOST_CHECKED_FLOP && twin.sequence >= 16);
    }
}
