//! The fits of a machine made ready to be asked: each is looked up, its names parsed and its points' logarithms taken when
//! it is first needed, and what was worked out once is kept. [`super::layers`] and [`super::predict`] ask it.
//!
//! Who asks once pays for the fits it needs; who asks often (`predict --batch`) keeps the value.

use super::anchors::PreparedAnchors;
use super::features::{self, Feature, FeatureInput};
use super::operations::{self, ANY_STREAMING};
use crate::Result;
use crate::records::cost_model::{Fit, OperationFits};
use crate::shape::operation::{Epilogue, Family, Operation, Product};
use crate::shape::{DType, Linear, Phase};
use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

/// Half the interval, relative, of an operation that was measured itself: what two cards of a kind, or a short and a long
/// run of one card, differ by.
pub const AS_MEASURED: f64 = 0.08;
/// Half the interval, relative, of a time that only a roofline gives.
const ROOFLINE: f64 = 0.3;
/// Most answers that are kept of one kind, so many that they stay in a core's own cache; when there are more, all are
/// forgotten.
const MOST_KEPT: usize = 1 << 11;

/// Hashes a few sizes in a few multiplications: the standard one, which withstands keys chosen to collide, takes as long as
/// evaluating a fit. Who chose such keys would slow their own run alone.
#[derive(Debug, Default)]
struct SizesHasher(u64);

impl Hasher for SizesHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        // An odd number near 2⁶⁴ ÷ the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
        self.0 = (self.0.rotate_left(25) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // A multiplication leaves the low bits of its inputs to themselves; the table takes its place from those.
        self.0 ^ (self.0 >> 32)
    }
}

/// What was worked out before, by what was asked.
#[derive(Debug)]
pub(super) struct Kept<K, V>(RefCell<HashMap<K, V, BuildHasherDefault<SizesHasher>>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Kept(RefCell::default())
    }
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    /// The answer to `key` as it was worked out before, else as `make` works it out.
    pub(super) fn or_make(&self, key: K, make: impl FnOnce() -> V) -> V {
        match self.or_try(key, || Ok::<V, Infallible>(make())) {
            Ok(value) => value,
        }
    }

    /// As [`Kept::or_make`], for answers that may fail; an error is not kept.
    pub(super) fn or_try<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        if let Some(value) = self.0.borrow().get(&key) {
            return Ok(value.clone());
        }
        // Not borrowed meanwhile: an answer may rest on others of its kind.
        let value = make()?;
        let mut kept = self.0.borrow_mut();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(key, value.clone());
        Ok(value)
    }
}

/// A fit with its features parsed.
#[derive(Debug)]
pub struct PreparedFit<'a> {
    /// The fit as the cost model holds it.
    pub fit: &'a Fit,
    terms: Vec<(Feature, f64)>,
    anchors: Option<PreparedAnchors<'a>>,
}

impl<'a> PreparedFit<'a> {
    /// Parses a fit. Returns an error if it names an unknown feature or size.
    pub fn new(fit: &'a Fit) -> Result<Self> {
        let terms = fit.features.iter().zip(&fit.coefficients_ns);
        let terms =
            terms.map(|(name, coefficient)| Ok((Feature::parse(name)?, *coefficient))).collect::<Result<_>>()?;
        let nothing = FeatureInput::default();
        for name in fit.anchors.iter().flat_map(|anchors| &anchors.sizes) {
            operations::known_size(name, &nothing)?;
        }
        Ok(PreparedFit { fit, terms, anchors: fit.anchors.as_ref().map(PreparedAnchors::new) })
    }

    /// Whether a layer phase's fit rests on its operations' times.
    pub fn of_operations(&self) -> bool {
        self.terms.iter().any(|(feature, _)| *feature == Feature::OperationsNs)
    }

    /// Time that the fit gives, Σ coefficient · feature and its correction near measured cases, in ns.
    pub fn evaluate(&self, work: &FeatureInput) -> f64 {
        self.evaluate_near(work).0
    }

    /// The time, and whether an operation of just these sizes was measured.
    fn evaluate_near(&self, work: &FeatureInput) -> (f64, bool) {
        let sum: f64 = self.terms.iter().map(|(feature, coefficient)| coefficient * feature.value(work)).sum();
        let Some(near) = &self.anchors else { return (sum, false) };
        let sizes: Vec<f64> = near.sizes().iter().filter_map(|name| features::size(name, work)).collect();
        match near.measured(&sizes) {
            Some(point) => (sum * point.ratio, true),
            None => (sum * near.between(&sizes), false),
        }
    }
}

/// The time of one operation by the fits of a machine, with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperationTime {
    /// Predicted time in ns.
    pub ns: f64,
    /// How far the truth may lie below, as a fraction of the time.
    pub relative_low: f64,
    /// How far the truth may lie above, as a fraction of the time.
    pub relative_high: f64,
}

/// A fit that was looked up; `None` where there is none.
type Found<'a> = Option<Arc<PreparedFit<'a>>>;

/// All fits of a machine, and the times worked out by them so far.
#[derive(Debug)]
pub struct PreparedFits<'a> {
    fits: &'a OperationFits,
    operations: Kept<(Family, &'static str, DType), Found<'a>>,
    phases: Kept<(Phase, DType), Found<'a>>,
    times: Kept<(Operation, DType), Option<OperationTime>>,
}

impl<'a> PreparedFits<'a> {
    /// Nothing is looked up yet.
    pub fn new(fits: &'a OperationFits) -> Self {
        let (operations, phases, times) = Default::default();
        PreparedFits { fits, operations, phases, times }
    }

    /// The fit of a layer phase: that of its element type where types have their own. Returns an error if it names an
    /// unknown feature.
    pub fn phase(&self, phase: Phase, dtype: DType) -> Result<Found<'a>> {
        self.phases.or_try((phase, dtype), || {
            let fits = &self.fits.launch.additivity;
            let typed = format!("{}/{}", phase.name(), dtype.name());
            prepared(fits.get(&typed).or_else(|| fits.get(phase.name())))
        })
    }

    /// The time of one operation by the fit that predicts it. A product whose fit saw no GELU in any epilogue gets one as a
    /// pass of its own behind it. Products of single heads, which have a fit of their own only where they were measured,
    /// take as long as a square product of as many FLOPs or as their bytes, whichever is longer (the roofline; Williams et
    /// al., CACM 2009). `None` where nothing is there to go by. Returns an error if a fit names an unknown feature.
    pub fn time(&self, operation: &Operation, dtype: DType) -> Result<Option<OperationTime>> {
        self.times.or_try((*operation, dtype), || match self.find(operation, dtype)? {
            Some(found) => self.by_fit(&found, operation, dtype).map(Some),
            None => self.by_roofline(operation, dtype),
        })
    }

    /// Sum of the operations' predicted times in ns; `None` if one of them has nothing to go by. Returns an error if a fit
    /// names an unknown feature.
    pub fn sum_ns(&self, operations: &[(&'static str, Operation)], dtype: DType) -> Result<Option<f64>> {
        let mut sum = 0.0;
        for (_, operation) in operations {
            match self.time(operation, dtype)? {
                Some(found) => sum += found.ns,
                None => return Ok(None),
            }
        }
        Ok(Some(sum))
    }

    /// The fit that predicts an operation: of its own element type, else of the primary one, and only then the cold ones. A
    /// streaming operation without a fit has that of all streaming operations; `None` where there is no fit at all.
    fn find(&self, operation: &Operation, dtype: DType) -> Result<Found<'a>> {
        let family = operation.family();
        self.operations.or_try((family, operation.name(), dtype), || {
            let table = match family {
                Family::Gemm => &self.fits.gemm,
                Family::Attention => &self.fits.attention,
                Family::Streaming => &self.fits.streaming,
            };
            let typed = format!("/{}", dtype.name());
            let named = |name: &str| {
                let endings = [typed.clone(), String::new(), format!("{typed}/cold"), "/cold".to_string()];
                endings.iter().find_map(|ending| table.get(&format!("{name}{ending}")))
            };
            prepared(named(operation.name()).or_else(|| match family {
                Family::Streaming => named(ANY_STREAMING),
                _ => None,
            }))
        })
    }

    fn by_fit(&self, found: &PreparedFit<'_>, operation: &Operation, dtype: DType) -> Result<OperationTime> {
        let work = FeatureInput::of(operation, dtype);
        let (ns, measured) = found.evaluate_near(&work);
        let most = if measured { AS_MEASURED } else { f64::INFINITY };
        let time = OperationTime {
            ns,
            relative_low: found.fit.relative_low.min(most),
            relative_high: found.fit.relative_high.min(most),
        };
        let beside = if found.fit.without_gelu { gelu_behind(operation) } else { None };
        Ok(match beside.map(|gelu| self.time(&gelu, dtype)).transpose()?.flatten() {
            Some(gelu) => OperationTime { ns: time.ns + gelu.ns, ..time },
            None => time,
        })
    }

    fn by_roofline(&self, operation: &Operation, dtype: DType) -> Result<Option<OperationTime>> {
        let Operation::BatchedProduct { .. } = operation else { return Ok(None) };
        let side = (operation.flop() / 2.0).cbrt().round().max(1.0) as usize;
        let shape = Linear::new(side, side, side);
        let square = Operation::Linear { product: Product::Forward, shape, epilogue: Epilogue::None };
        let pass = Operation::Copy { len: (operation.bytes(dtype) / (2.0 * dtype.bytes() as f64)) as usize };
        let (Some(product), Some(bytes)) = (self.time(&square, dtype)?, self.time(&pass, dtype)?) else {
            return Ok(None);
        };
        let longer = if product.ns > bytes.ns { product } else { bytes };
        Ok(Some(OperationTime {
            relative_low: longer.relative_low.max(ROOFLINE),
            relative_high: longer.relative_high.max(ROOFLINE),
            ..longer
        }))
    }
}

fn prepared(fit: Option<&Fit>) -> Result<Found<'_>> {
    fit.map(|fit| PreparedFit::new(fit).map(Arc::new)).transpose()
}

fn gelu_behind(operation: &Operation) -> Option<Operation> {
    let Operation::Linear { shape, epilogue, .. } = operation else { return None };
    match epilogue {
        Epilogue::BiasGelu => Some(Operation::GeluForward { len: shape.rows * shape.outputs }),
        Epilogue::GeluBackward => Some(Operation::GeluBackward { len: shape.rows * shape.inputs }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept is what was worked out, no error is, and there is no more of it than there is room for.
    #[test]
    fn answers_are_kept_and_their_number_is_bounded() {
        let kept: Kept<usize, usize> = Kept::default();
        assert_eq!((kept.or_make(1, || 10), kept.or_make(1, || 11)), (10, 10));
        assert_eq!(kept.or_try(2, || Err("no")), Err("no"));
        assert_eq!(kept.or_try(2, || Ok::<_, &str>(20)), Ok(20));
        for key in 0..2 * MOST_KEPT {
            kept.or_make(key, || key);
        }
        assert!(kept.0.borrow().len() <= MOST_KEPT);
    }
}
