//! Single prices that several formats ask a cost model for, each refused in one line where the model has none.

use crate::cost::datasheet::{self, DataSheet};
use crate::cost::predict::{self, CollectiveQuery};
use crate::records::CostModel;
use crate::shape::collective::bus_factor;
use crate::shape::operation::{Epilogue, Operation, Product};
use crate::shape::{DType, Linear};
use crate::{Error, Result};

/// The names of a linear layer's three products in the order forward, to inputs, to weights.
pub const PRODUCTS: [Product; 3] = [Product::Forward, Product::ToInputs, Product::ToWeights];

/// Time of a collective between ranks on so many nodes, one of a back-to-back run, in ns. Fails where the model cannot
/// price it.
pub fn collective_ns(model: &CostModel, operation: &str, ranks: u64, nodes: u64, bytes: u64) -> Result<f64> {
    let query = CollectiveQuery { operation: operation.into(), ranks, nodes, bytes, isolated: false, dtype: None };
    Ok(predict::collective(model, &query)?.median_ns)
}

/// A collective as a straight line over the message's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CollectiveLine {
    /// Time that a small message takes whatever its size, in ns.
    pub start_ns: f64,
    /// What each rank's link carries of a large message, in bytes a ns, which is GB/s: nccl-tests' bus bandwidth.
    pub bus_gb_per_s: f64,
}

/// Sizes of the messages that a line is drawn through, in bytes: where the start shows, and two where the slope does.
const SMALL: u64 = 64 << 10;
const MIDDLE: u64 = 16 << 20;
const LARGE: u64 = 256 << 20;

/// The line of a collective: its slope from 16 to 256 MiB, and what a message of 64 KiB takes beyond that slope. Fails where
/// the model cannot price the collective.
pub fn collective_line(model: &CostModel, operation: &str, ranks: u64, nodes: u64) -> Result<CollectiveLine> {
    let ns = |bytes| collective_ns(model, operation, ranks, nodes, bytes);
    let (small, middle, large) = (ns(SMALL)?, ns(MIDDLE)?, ns(LARGE)?);
    let slope = (LARGE - MIDDLE) as f64 / (large - middle);
    // A curve that does not rise has no slope to speak of: what it moves in all stands for it.
    let rate = if slope.is_finite() && slope > 0.0 { slope } else { LARGE as f64 / large.max(1.0) };
    let factor = bus_factor(operation, ranks).unwrap_or(1.0);
    Ok(CollectiveLine { start_ns: (small - SMALL as f64 / rate).max(0.0), bus_gb_per_s: rate * factor })
}

/// Time of one operation in ns. Fails where nothing like it was measured.
pub fn operation_ns(model: &CostModel, operation: &Operation, dtype: DType) -> Result<f64> {
    let found = predict::operation(model, operation, dtype)?.map(|p| p.median_ns).filter(|ns| *ns > 0.0);
    found.ok_or_else(|| {
        Error::input(
            format!("{} has no fit that prices {}", model.machine.name, operation.name()),
            "measure operations with `bubblebench measure gpt-layer` and fit again, or give another cost model",
        )
    })
}

/// Time of a linear layer's product in ns. Fails where no product was measured.
pub fn product_ns(model: &CostModel, product: Product, shape: Linear, dtype: DType) -> Result<f64> {
    let shape = if product == Product::ToWeights { shape.accumulating() } else { shape };
    operation_ns(model, &Operation::Linear { product, shape, epilogue: Epilogue::None }, dtype)
}

/// Time in ns of a sum of two tensors that reads and writes this many bytes in all: the plainest operation that memory
/// bounds. Fails where nothing like it was measured.
pub fn streaming_ns(model: &CostModel, bytes: f64, dtype: DType) -> Result<f64> {
    let len = (bytes / (3.0 * dtype.bytes() as f64)).round().max(1.0) as usize;
    let operation = Operation::Residual { len };
    Ok(operation_ns(model, &operation, dtype)? * bytes / operation.bytes(dtype))
}

/// The data sheet of the model's device; `None` for a host, and for a GPU of which none is known.
pub fn data_sheet(model: &CostModel) -> Option<DataSheet> {
    datasheet::of_device(&model.machine.device)
}

/// Memory of one device in bytes. Fails where the model does not know it.
pub fn memory_bytes(model: &CostModel) -> Result<u64> {
    model.machine.memory_bytes.ok_or_else(|| {
        Error::input(
            format!("{} does not say how much memory the device has", model.machine.name),
            "add `memory_bytes` to `machine` in the cost model",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;

    /// 15 µs + 2 µs · 8, and 2 · 7/8 of each byte over 0.75 · 450 GB/s: the rules of a data sheet's model.
    #[test]
    fn a_line_has_the_start_and_the_bus_bandwidth_of_its_curve() {
        let model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        let line = collective_line(&model, "all_reduce", 8, 1).unwrap();
        assert!((line.start_ns - 31_000.0).abs() < 1.0, "{line:?}");
        assert!((line.bus_gb_per_s - 0.75 * 450.0).abs() < 1e-6, "{line:?}");
        let pair = collective_line(&model, "send_recv", 2, 1).unwrap();
        assert!((pair.bus_gb_per_s - 0.75 * 450.0).abs() < 1e-6, "{pair:?}");
    }

    #[test]
    fn what_has_no_price_is_refused_with_its_name() {
        let mut model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        model.operations.gemm.clear();
        let shape = Linear::new(64, 64, 64);
        let error = product_ns(&model, Product::Forward, shape, DType::Bf16).unwrap_err().to_string();
        assert!(error.contains("no fit that prices forward") && error.contains("measure"), "{error}");
        model.machine.memory_bytes = None;
        assert!(memory_bytes(&model).unwrap_err().to_string().contains("how much memory"));
    }

    /// 4 µs + bytes ÷ (0.85 · 3350 GB/s).
    #[test]
    fn streaming_is_asked_by_its_bytes() {
        let model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        let ns = streaming_ns(&model, 6e9, DType::Bf16).unwrap();
        assert!((ns - (4_000.0 + 6e9 / (0.85 * 3350.0))).abs() < 1.0, "{ns}");
    }
}
