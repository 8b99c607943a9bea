//! The layer of the shape that ran last, kept for the cases of that shape that follow it in the lists.

use crate::Result;
use crate::models::gpt::Layer;
use crate::ops::Ops;
use crate::shape::{LayerShape, Phase};

/// At most one layer at a time.
pub struct LayerCache<O: Ops>(Option<Layer<O>>);

impl<O: Ops> Default for LayerCache<O> {
    fn default() -> Self {
        LayerCache(None)
    }
}

impl<O: Ops> LayerCache<O> {
    /// Frees the layer before something else is allocated.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// The layer of this shape, made if it is not the one at hand.
    pub fn get(&mut self, shape: LayerShape, make: impl FnOnce() -> Result<Layer<O>>) -> Result<&mut Layer<O>> {
        // The old one goes first: two big layers need not fit.
        let layer = match self.0.take().filter(|layer| *layer.shape() == shape) {
            Some(layer) => layer,
            None => make()?,
        };
        Ok(self.0.insert(layer))
    }
}

/// A fresh layer after one forward and backward pass: whatever a single phase reads is there.
pub fn run_once<O: Ops>(ops: &mut O, shape: LayerShape, seed: u64) -> Result<Layer<O>> {
    let mut layer = Layer::new(ops, shape, seed)?;
    layer.run(ops, Phase::ForwardBackward);
    ops.synchronize()?;
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DType;
    use crate::ops::reference::Reference;

    #[test]
    fn a_layer_is_made_anew_only_for_another_shape_or_once_forgotten() {
        let (mut ops, mut made) = (Reference::new(), 0);
        let mut cache = LayerCache::default();
        let (one, other) = (LayerShape::new(8, 2, 3, 1, DType::F64), LayerShape::new(8, 2, 2, 1, DType::F64));
        let mut ask = |cache: &mut LayerCache<Reference>, shape| {
            let layer = cache.get(shape, || {
                made += 1;
                run_once(&mut ops, shape, 1)
            });
            assert_eq!(*layer.unwrap().shape(), shape);
            made
        };
        assert_eq!([one, one, other, one].map(|shape| ask(&mut cache, shape)), [1, 1, 2, 3]);
        cache.forget();
        assert_eq!(ask(&mut cache, one), 4);
    }
}
