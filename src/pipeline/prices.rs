//! What a job's parts cost, asked of a cost model. A trait, so that the pipeline can be tested on made-up machines.

use crate::Result;
use crate::ops::DType;
use crate::records::CostModel;
use crate::shape::LayerShape;

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
pub struct CollectivePrice {
    pub time_ns: f64,
    pub in_range: bool,
}

/// A collective as the cost model knows it; bytes as nccl-tests counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub operation: &'static str,
    pub ranks: u64,
    pub nodes: u64,
    pub dtype: DType,
    pub bytes: u64,
}

pub trait Prices {
    fn layer(&self, shape: LayerShape) -> Result<LayerPrice>;
    /// `None` where the model holds nothing to go by.
    fn collective(&self, message: Message) -> Option<CollectivePrice>;
}
