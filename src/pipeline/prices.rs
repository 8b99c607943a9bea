//! What a job's parts cost, asked of a cost model. A trait, so that the pipeline can be tested on made-up machines.

use crate::Result;
use crate::cost::predict::{self, CollectiveQuery};
use crate::records::CostModel;
use crate::shape::operation::Operation;
use crate::shape::{DType, LayerShape};

/// What one layer costs for one micro-batch on one tensor-parallel rank, without communication.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerPrice {
    /// Time of the forward (F), in ns.
    pub forward_ns: f64,
    /// Time of the backward to the inputs (B), in ns; recomputed activations are part of it.
    pub backward_input_ns: f64,
    /// Time of the backward to the weights (W), in ns.
    pub backward_weight_ns: f64,
    /// Bytes of activations kept between forward and backward.
    pub activation_bytes: u64,
    /// Whether the layer's shape lies within what the cost model was measured on; its times are extrapolated if not.
    pub in_range: bool,
}

/// The predicted time of one operation or collective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// The predicted median time, in ns.
    pub time_ns: f64,
    /// Whether what was priced lies within what the cost model was measured on; the time is extrapolated if not.
    pub in_range: bool,
}

/// A collective as the cost model is asked for it; bytes are counted as nccl-tests counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        Ok(LayerPrice {
            forward_ns: p.forward.median_ns,
            backward_input_ns: p.backward_input.median_ns,
            backward_weight_ns: p.backward_weight.median_ns,
            activation_bytes: p.activation_bytes,
            in_range: [p.forward, p.backward_input, p.backward_weight].iter().all(|x| x.in_range),
        })
    }

    fn collective(&self, message: PricedCollective) -> Option<Price> {
        let PricedCollective { operation, ranks, nodes, bytes } = message;
        let query = CollectiveQuery { operation: operation.into(), ranks, nodes, bytes, isolated: false, dtype: None };
        predict::collective(self, &query).ok().map(Price::from)
    }

    fn operation(&self, operation: &Operation, dtype: DType) -> Option<Price> {
        predict::operation(self, operation, dtype).ok().flatten().map(Price::from)
    }
}

impl From<predict::Prediction> for Price {
    fn from(p: predict::Prediction) -> Self {
        Price { time_ns: p.median_ns, in_range: p.in_range }
    }
}
