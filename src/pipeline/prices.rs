//! What a job's parts cost, asked of a cost model. A trait, so that the pipeline can be tested on made-up machines.

use crate::Result;
use crate::cost::predict::{self, CollectiveQuery};
use crate::records::CostModel;
use crate::shape::operation::Operation;
use crate::shape::{DType, LayerShape};

/// One layer, one micro-batch, one tensor-parallel rank, without communication.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerPrice {
    pub forward_ns: f64,
    pub backward_input_ns: f64,
    pub backward_weight_ns: f64,
    pub activation_bytes: u64,
    /// The shape lies within what was measured.
    pub in_range: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    pub time_ns: f64,
    pub in_range: bool,
}

/// A collective as the cost model knows it; bytes as nccl-tests counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PricedCollective {
    pub operation: &'static str,
    pub ranks: u64,
    pub nodes: u64,
    pub bytes: u64,
}

pub trait Prices {
    fn layer(&self, shape: LayerShape) -> Result<LayerPrice>;
    /// `None` where the model holds nothing to go by.
    fn collective(&self, message: PricedCollective) -> Option<Price>;
    /// A single operation; `None` likewise.
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
