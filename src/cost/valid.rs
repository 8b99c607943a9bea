//! The range of every input that was measured: `valid` of the cost model, and whether inputs lie within it.
//!
//! | name | input |
//! |---|---|
//! | `hidden`, `heads`, `sequence`, `micro_batch`, `tensor`, `head_size` | of the layers measured |
//! | `recompute` | of the layers: 0 none, 1 selective, 2 full |
//! | `dtype/f32` | bytes of an element; there if anything of this type was measured |
//! | `gemm/rows`, `attention/sequence`, `streaming/residual/bytes`, … | of single operations |
//! | `collective/<operation>/bytes`, `…/ranks` | of collectives |

use super::layers::LayerRow;
use super::operations::OperationRow;
use crate::records::cost_model::{CollectiveFit, Range};
use crate::shape::operation::Family;
use crate::shape::{DType, LayerShape, Recompute};
use std::collections::BTreeMap;

/// Smallest and largest measured value of every input, by the input's name.
pub type Ranges = BTreeMap<String, Range>;

/// The ranges of all inputs that were measured, over operations, layers and collectives; the module's documentation
/// lists their names.
pub fn ranges(operations: &[OperationRow], layers: &[LayerRow], collectives: &[CollectiveFit]) -> Ranges {
    let mut ranges = Ranges::new();
    for row in operations {
        let o = &row.operation;
        include(&mut ranges, &dtype_key(o.dtype), o.dtype.bytes() as f64);
        for (name, value) in &o.sizes {
            let key = match o.family {
                Family::Gemm => format!("gemm/{name}"),
                Family::Attention => format!("attention/{name}"),
                Family::Streaming => format!("streaming/{}/{name}", o.name),
            };
            include(&mut ranges, &key, *value);
        }
    }
    for row in layers {
        include(&mut ranges, &dtype_key(row.shape.dtype), row.shape.dtype.bytes() as f64);
        inputs(&row.shape).iter().for_each(|(name, value)| include(&mut ranges, name, *value));
    }
    for fit in collectives {
        let ends = fit.segments.first().zip(fit.segments.last());
        if let Some((first, last)) = ends {
            let name = format!("collective/{}", fit.operation);
            include(&mut ranges, &format!("{name}/bytes"), first.from_bytes as f64);
            include(&mut ranges, &format!("{name}/bytes"), (last.to_bytes - 1) as f64);
            include(&mut ranges, &format!("{name}/ranks"), fit.ranks as f64);
        }
    }
    ranges
}

/// Name under which the ranges hold an element type, such as `dtype/bf16`.
pub fn dtype_key(dtype: DType) -> String {
    format!("dtype/{}", dtype.name())
}

/// Names of the element types measured; empty for a model that does not say.
pub fn dtypes(ranges: &Ranges) -> Vec<&str> {
    ranges.keys().filter_map(|key| key.strip_prefix("dtype/")).collect()
}

/// The inputs of a layer, by the names that the ranges hold them under.
pub fn inputs(shape: &LayerShape) -> [(&'static str, f64); 7] {
    let recompute = match shape.recompute {
        Recompute::None => 0.0,
        Recompute::Selective => 1.0,
        Recompute::Full => 2.0,
    };
    [
        ("hidden", shape.hidden as f64),
        ("heads", shape.heads as f64),
        ("sequence", shape.sequence as f64),
        ("micro_batch", shape.micro_batch as f64),
        ("tensor", shape.tensor as f64),
        ("head_size", shape.head_size() as f64),
        ("recompute", recompute),
    ]
}

fn include(ranges: &mut Ranges, name: &str, value: f64) {
    let range = ranges.entry(name.to_string()).or_insert(Range { low: value, high: value });
    range.low = range.low.min(value);
    range.high = range.high.max(value);
}

/// How far outside its range an input is still near, as ln of the ratio: half or double. On published tables of products
/// the times at other numbers of rows, a factor of two away, are predicted as well as those in between.
pub const NEAR: f64 = std::f64::consts::LN_2;

/// How far the inputs of a prediction lie outside the ranges that were measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outside {
    /// Σ |ln(value ÷ nearest bound)| over the inputs outside their range, less [`NEAR`] each; 0 if all lie within or near.
    pub distance: f64,
    /// Number of inputs outside their range, however near.
    pub outside: usize,
    /// Number of inputs that have no range at all.
    pub unknown: usize,
}

impl Outside {
    /// Compares inputs, given by name and value, with the ranges measured.
    pub fn of(ranges: &Ranges, inputs: &[(impl AsRef<str>, f64)]) -> Outside {
        let mut outside = Outside::default();
        for (name, value) in inputs {
            outside.count(ranges.get(name.as_ref()), *value);
        }
        outside
    }

    /// Compares one input with its range, `None` for one that has none.
    pub fn of_one(range: Option<&Range>, value: f64) -> Outside {
        let mut outside = Outside::default();
        outside.count(range, value);
        outside
    }

    fn count(&mut self, range: Option<&Range>, value: f64) {
        match range {
            None => self.unknown += 1,
            Some(r) if value < r.low => self.add(log_ratio(r.low, value)),
            Some(r) if value > r.high => self.add(log_ratio(value, r.high)),
            Some(_) => {}
        }
    }

    fn add(&mut self, distance: f64) {
        self.outside += 1;
        self.distance += (distance - NEAR).max(0.0);
    }

    /// Whether every input has a range and lies within it.
    pub fn in_range(&self) -> bool {
        self.distance == 0.0 && self.unknown == 0 && self.outside == 0
    }
}

/// ln(larger ÷ smaller); one whole unit where the smaller is no positive number (recompute 0).
fn log_ratio(larger: f64, smaller: f64) -> f64 {
    if smaller > 0.0 { (larger / smaller).ln() } else { 1.0 }
}
