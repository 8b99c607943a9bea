//! Predictions from the cost model: of one layer, one collective, one pair. Each has an interval and says whether its
//! inputs lie within what was measured.

mod collective;
mod corun;
mod layer;

pub use collective::{CollectiveQuery, extrapolation};
pub use corun::{CorunPrediction, corun};
pub use layer::LayerPrediction;

use super::prepared::{Kept, PreparedFits};
use super::ranks::{Algorithm, Scaling};
use super::regress::Spread;
use super::topology::GroupLinks;
use super::valid::{self, Outside};
use crate::Result;
use crate::records::CostModel;
use crate::records::cost_model::Range;
use crate::shape::operation::Operation;
use crate::shape::{AttentionKind, DType, LayerShape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;

/// Name and version of the format of `predict --json`, the value of `schema` in every prediction.
pub const SCHEMA: &str = "bubblebench.prediction/1";

/// The number format to take where none is named: the one most layers were measured in, else the one the fits are for,
/// else bf16.
pub fn usual_dtype(model: &CostModel) -> DType {
    let count = |dtype| model.layer.iter().filter(|a| a.shape.dtype == dtype).count();
    let most = DType::TRAINED.into_iter().rev().max_by_key(|&d| count(d));
    let of_layers = most.filter(|&d| count(d) > 0);
    let of_fits = || valid::dtypes(&model.valid).into_iter().find_map(DType::parse);
    of_layers.or_else(of_fits).unwrap_or(DType::Bf16)
}

/// How the layers that a model knows attend, for a job that does not say: as most of them do, fused where none is known.
pub fn usual_attention(model: &CostModel) -> AttentionKind {
    let unfused = model.layer.iter().filter(|a| a.shape.attention == AttentionKind::Materialised).count();
    if 2 * unfused > model.layer.len() { AttentionKind::Materialised } else { AttentionKind::Flash }
}

/// A cost model made ready to be asked: what its answers rest on is worked out when it is first needed, and kept. Each
/// thread that asks has its own.
#[derive(Debug)]
pub struct Predictor<'a> {
    model: &'a CostModel,
    fits: PreparedFits<'a>,
    layers: Kept<LayerShape, LayerPrediction>,
    operations: Kept<(Operation, DType), Option<Prediction>>,
    streaming: Kept<&'static str, Option<Range>>,
    links: OnceCell<GroupLinks>,
    scalings: Kept<(usize, Option<Algorithm>), Scaling>,
}

impl<'a> Predictor<'a> {
    /// Of a model that was checked; nothing is worked out yet.
    pub fn new(model: &'a CostModel) -> Self {
        let (layers, operations, streaming, links, scalings) = Default::default();
        Predictor { model, fits: PreparedFits::new(&model.operations), layers, operations, streaming, links, scalings }
    }

    /// Predicts the time of a collective or send/recv. Returns an error if the query has fewer than 2 ranks, 0 nodes, more
    /// nodes than ranks or 0 bytes, or if nothing is known about its network: neither a curve of any operation that can be
    /// carried to it nor a stated bandwidth.
    pub fn collective(&self, query: &CollectiveQuery) -> Result<Prediction> {
        collective::collective(self, query)
    }

    /// Predicts a main beside a side, as [`corun()`] does.
    pub fn corun(&self, main: &str, side: &str, sharing: &str) -> Result<CorunPrediction> {
        corun(self.model, main, side, sharing)
    }

    fn links(&self) -> GroupLinks {
        *self.links.get_or_init(|| GroupLinks::of(self.model.topology.as_ref(), &self.model.collectives))
    }
}

/// Predicts one layer, as [`Predictor::layer`] does for whoever asks often.
pub fn layer(model: &CostModel, shape: LayerShape) -> Result<LayerPrediction> {
    Predictor::new(model).layer(shape)
}

/// Predicts one collective or send/recv, as [`Predictor::collective`] does for whoever asks often.
pub fn collective(model: &CostModel, query: &CollectiveQuery) -> Result<Prediction> {
    Predictor::new(model).collective(query)
}

/// Predicts one operation, as [`Predictor::operation`] does for whoever asks often.
pub fn operation(model: &CostModel, operation: &Operation, dtype: DType) -> Result<Option<Prediction>> {
    Predictor::new(model).operation(operation, dtype)
}

/// A predicted time with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// Predicted time in ns.
    pub median_ns: f64,
    /// Lower end of the 95 % interval, in ns.
    pub low_ns: f64,
    /// Upper end of the 95 % interval, in ns.
    pub high_ns: f64,
    /// Whether every input lies within the range that was measured.
    pub in_range: bool,
}

/// What `predict --json` prints: the time of a collective, the times of a layer, or a slowdown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Answer {
    /// The time of one collective or send/recv.
    Time(TimeAnswer),
    /// The times of a GPT layer.
    Layer(LayerPrediction),
    /// The slowdown of a main beside a side.
    Corun(CorunPrediction),
}

/// The predicted time of one collective or send/recv, with its 95 % interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeAnswer {
    /// Name and version of this format: `bubblebench.prediction/1`.
    pub schema: String,
    /// Predicted time in ns.
    pub median_ns: f64,
    /// Lower end of the 95 % interval, in ns.
    pub low_ns: f64,
    /// Upper end of the 95 % interval, in ns.
    pub high_ns: f64,
    /// Whether every input lies within the range that was measured.
    pub in_range: bool,
}

impl From<Prediction> for Answer {
    fn from(p: Prediction) -> Self {
        let Prediction { median_ns, low_ns, high_ns, in_range } = p;
        Answer::Time(TimeAnswer { schema: SCHEMA.into(), median_ns, low_ns, high_ns, in_range })
    }
}

impl Prediction {
    /// The interval of the fit, and wider outside its range: 5 % for each input outside; beyond half or double its bound e
    /// times more (distance 1) doubles it and adds 25 %.
    fn with_spread(median_ns: f64, low: f64, high: f64, outside: Outside) -> Prediction {
        let (low, high) = (low.max(Spread::FLOOR), high.max(Spread::FLOOR));
        let (d, add) =
            (outside.distance, 0.25 * (outside.distance + outside.unknown as f64) + 0.05 * outside.outside as f64);
        let below = 1.0 + low * (1.0 + d) / (1.0 - low).max(0.05) + add;
        let above = 1.0 + high * (1.0 + d) + add;
        let within = outside.in_range();
        let low_ns = if within { median_ns * (1.0 - low).max(0.0) } else { median_ns / below };
        Prediction { median_ns, low_ns, high_ns: median_ns * above, in_range: within }
    }

    /// The sum of operations whose errors are half of a kind: the same clocks, the same library, but other kernels. Between
    /// the plain sum of what each may be off and the root of its squares, ρ = ½ of the variance each.
    fn sum_of_kin(parts: &[Prediction]) -> Prediction {
        let sum = Prediction::sum(parts);
        let off = |ends: fn(&Prediction) -> f64| {
            let all = parts.iter().map(|p| (ends(p) - p.median_ns).abs());
            let squares: f64 = all.clone().map(|d| d * d).sum();
            (0.5 * all.sum::<f64>().powi(2) + 0.5 * squares).sqrt()
        };
        let (below, above) = (off(|p| p.low_ns), off(|p| p.high_ns));
        Prediction { low_ns: (sum.median_ns - below).max(0.0), high_ns: sum.median_ns + above, ..sum }
    }

    fn sum(parts: &[Prediction]) -> Prediction {
        let add = |f: fn(&Prediction) -> f64| parts.iter().map(f).sum();
        Prediction {
            median_ns: add(|p| p.median_ns),
            low_ns: add(|p| p.low_ns),
            high_ns: add(|p| p.high_ns),
            in_range: parts.iter().all(|p| p.in_range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_the_median_and_widen_outside() {
        let inside = Prediction::with_spread(100.0, 0.1, 0.2, Outside::default());
        assert_eq!((inside.low_ns, inside.high_ns, inside.in_range), (90.0, 120.0, true));
        let mut last = inside;
        for distance in [0.1, 1.0, 3.0, 30.0] {
            let p = Prediction::with_spread(100.0, 0.1, 0.2, Outside { distance, ..Outside::default() });
            assert!(!p.in_range && 0.0 < p.low_ns && p.low_ns < last.low_ns && p.high_ns > last.high_ns, "{p:?}");
            last = p;
        }
    }
}
