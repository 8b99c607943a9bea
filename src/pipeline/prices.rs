//! What a job's parts cost, asked of a cost model. A trait, so that the pipeline can be tested on made-up machines.

use crate::Result;
use crate::cost::predict::{self, CollectiveQuery};
use crate::records::CostModel;
use crate::records::cost_model::Source;
use crate::shape::operation::{Family, Operation};
use crate::shape::{DType, LayerShape};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

/// The predicted time of one operation, collective or layer phase, with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// The predicted median time, in ns.
    pub time_ns: f64,
    /// Lower end of the interval, in ns.
    pub low_ns: f64,
    /// Upper end of the interval, in ns.
    pub high_ns: f64,
    /// Whether what was priced lies within what the cost model was measured on; the time is extrapolated if not.
    pub in_range: bool,
    /// Where the figures come from that answered.
    pub source: Source,
}

impl Price {
    /// A measured price without an interval.
    pub const fn exact(time_ns: f64, in_range: bool) -> Price {
        Price { time_ns, low_ns: time_ns, high_ns: time_ns, in_range, source: Source::Measured }
    }

    /// The price of `factor` times as much.
    pub fn times(self, factor: f64) -> Price {
        let Price { time_ns, low_ns, high_ns, .. } = self;
        Price { time_ns: factor * time_ns, low_ns: factor * low_ns, high_ns: factor * high_ns, ..self }
    }
}

/// What one layer costs for one micro-batch on one tensor-parallel rank, without communication.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerPrice {
    /// Time of the forward (F).
    pub forward: Price,
    /// Time of the backward to the inputs (B); recomputed activations are part of it.
    pub backward_input: Price,
    /// Time of the backward to the weights (W).
    pub backward_weight: Price,
    /// Bytes of activations kept between forward and backward.
    pub activation_bytes: u64,
}

impl LayerPrice {
    /// Measured times of F, B and W in ns, without intervals, within range.
    pub const fn exact(
        forward_ns: f64,
        backward_input_ns: f64,
        backward_weight_ns: f64,
        activation_bytes: u64,
    ) -> Self {
        LayerPrice {
            forward: Price::exact(forward_ns, true),
            backward_input: Price::exact(backward_input_ns, true),
            backward_weight: Price::exact(backward_weight_ns, true),
            activation_bytes,
        }
    }

    /// The prices of F, B and W.
    pub const fn phases(&self) -> [Price; 3] {
        [self.forward, self.backward_input, self.backward_weight]
    }

    /// Whether the layer's shape lies within what the cost model was measured on; its times are extrapolated if not.
    pub fn in_range(&self) -> bool {
        self.phases().iter().all(|p| p.in_range)
    }
}

/// A collective as the cost model is asked for it; bytes are counted as nccl-tests counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PricedCollective {
    /// The collective's name in the cost model, e.g. `all_reduce` or `send_recv`.
    pub operation: &'static str,
    /// Ranks that take part.
    pub ranks: u64,
    /// Nodes over which the ranks are spread.
    pub nodes: u64,
    /// Size of the message in bytes.
    pub bytes: u64,
}

impl PricedCollective {
    /// The prices it is wrong together with.
    pub fn group(&self) -> PriceGroup {
        if self.operation == "send_recv" { PriceGroup::Messages } else { PriceGroup::Collectives }
    }
}

/// What answers for the cost of a job's parts; the cost model is one, and tests make up others.
pub trait Prices {
    /// The price of one layer on one tensor-parallel rank. Fails if the shape is invalid, or if the model
    /// holds nothing to go by.
    fn layer(&self, shape: LayerShape) -> Result<LayerPrice>;
    /// The price of a collective; `None` where the model holds nothing to go by.
    fn collective(&self, message: PricedCollective) -> Option<Price>;
    /// The price of a single operation; `None` where the model holds nothing to go by.
    fn operation(&self, operation: &Operation, dtype: DType) -> Option<Price>;
}

impl Prices for CostModel {
    fn layer(&self, shape: LayerShape) -> Result<LayerPrice> {
        let p = predict::layer(self, shape)?;
        let part = if self.layer.is_empty() { "operations/gemm" } else { "layers" };
        let price = |p| priced(p, self.source_of(part));
        Ok(LayerPrice {
            forward: price(p.forward),
            backward_input: price(p.backward_input),
            backward_weight: price(p.backward_weight),
            activation_bytes: p.activation_bytes,
        })
    }

    fn collective(&self, message: PricedCollective) -> Option<Price> {
        let PricedCollective { operation, ranks, nodes, bytes } = message;
        let query = CollectiveQuery { operation: operation.into(), ranks, nodes, bytes, isolated: false, dtype: None };
        predict::collective(self, &query)
            .ok()
            .map(|p| priced(p, self.source_of(&CostModel::collective_part(operation, nodes))))
    }

    fn operation(&self, operation: &Operation, dtype: DType) -> Option<Price> {
        predict::operation(self, operation, dtype)
            .ok()
            .flatten()
            .map(|p| priced(p, self.source_of(family_part(operation))))
    }
}

const fn family_part(operation: &Operation) -> &'static str {
    match operation.family() {
        Family::Gemm => "operations/gemm",
        Family::Attention => "operations/attention",
        Family::Streaming => "operations/streaming",
    }
}

fn priced(p: predict::Prediction, source: Source) -> Price {
    // Nothing about this machine was measured where a data sheet answers.
    let in_range = p.in_range && source != Source::Datasheet;
    Price { time_ns: p.median_ns, low_ns: p.low_ns, high_ns: p.high_ns, in_range, source }
}

/// The prices that move together when one of them is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriceGroup {
    /// The layers' own operations.
    Layers,
    /// Operations outside the layers: embedding, head, loss, optimizer.
    Operations,
    /// Collectives.
    Collectives,
    /// Messages between stages.
    Messages,
}

impl PriceGroup {
    /// Every group.
    pub const ALL: [PriceGroup; 4] =
        [PriceGroup::Layers, PriceGroup::Operations, PriceGroup::Collectives, PriceGroup::Messages];
}

/// Prices with all of one group at the lower or the upper ends of their intervals.
pub struct ShiftedPrices<'a> {
    /// The prices that are shifted.
    pub prices: &'a dyn Prices,
    /// The group that is shifted; the others stay at their medians.
    pub group: PriceGroup,
    /// Whether to the upper ends.
    pub up: bool,
}

impl ShiftedPrices<'_> {
    fn shifted(&self, price: Price, group: PriceGroup) -> Price {
        if group != self.group {
            return price;
        }
        Price { time_ns: if self.up { price.high_ns } else { price.low_ns }, ..price }
    }
}

impl Prices for ShiftedPrices<'_> {
    fn layer(&self, shape: LayerShape) -> Result<LayerPrice> {
        let found = self.prices.layer(shape)?;
        let shift = |price| self.shifted(price, PriceGroup::Layers);
        Ok(LayerPrice {
            forward: shift(found.forward),
            backward_input: shift(found.backward_input),
            backward_weight: shift(found.backward_weight),
            ..found
        })
    }

    fn collective(&self, message: PricedCollective) -> Option<Price> {
        self.prices.collective(message).map(|price| self.shifted(price, message.group()))
    }

    fn operation(&self, operation: &Operation, dtype: DType) -> Option<Price> {
        self.prices.operation(operation, dtype).map(|price| self.shifted(price, PriceGroup::Operations))
    }
}

/// Prices that remember what they were asked before: the many ways to divide a job share most of their layers, messages
/// and operations.
pub struct RememberedPrices<'a> {
    prices: &'a (dyn Prices + Sync),
    layers: Mutex<HashMap<LayerShape, LayerPrice>>,
    collectives: Mutex<HashMap<PricedCollective, Option<Price>>>,
    operations: Mutex<HashMap<(Operation, DType), Option<Price>>>,
}

impl<'a> RememberedPrices<'a> {
    /// The same prices, nothing remembered yet.
    pub fn new(prices: &'a (dyn Prices + Sync)) -> Self {
        RememberedPrices {
            prices,
            layers: Mutex::default(),
            collectives: Mutex::default(),
            operations: Mutex::default(),
        }
    }
}

/// The answer to a question asked before, or `ask`'s. Asking is outside the lock: two threads may both ask, and agree.
fn remembered<K: Eq + Hash, V: Copy, E>(
    answers: &Mutex<HashMap<K, V>>,
    question: K,
    ask: impl FnOnce() -> Result<V, E>,
) -> Result<V, E> {
    let known = |answers: &HashMap<K, V>| answers.get(&question).copied();
    // Nobody panics while holding the lock; were it so, the answers would still be whole.
    if let Some(answer) = known(&answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())) {
        return Ok(answer);
    }
    let answer = ask()?;
    answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(question, answer);
    Ok(answer)
}

/// An answer that is never an error.
fn always<V>(answer: Result<V, std::convert::Infallible>) -> V {
    match answer {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

impl Prices for RememberedPrices<'_> {
    fn layer(&self, shape: LayerShape) -> Result<LayerPrice> {
        remembered(&self.layers, shape, || self.prices.layer(shape))
    }

    fn collective(&self, message: PricedCollective) -> Option<Price> {
        always(remembered(&self.collectives, message, || Ok(self.prices.collective(message))))
    }

    fn operation(&self, operation: &Operation, dtype: DType) -> Option<Price> {
        always(remembered(&self.operations, (*operation, dtype), || Ok(self.prices.operation(operation, dtype))))
    }
}
