//! A side GPT nobody ran: its training step kernel by kernel, and its memory, from the cost model.
//!
//! The step is embedding, L layers forward, head and loss, the head's and the layers' backward, the embedding's gradient,
//! AdamW. A layer's phase has the time `predict` gives for it. Where every operation of a phase has a price, the phase is cut into them
//! in proportion; where one has none, the phase counts as a single kernel, which is the careful side: nothing may stop within it.

use super::kernels::Kernels;
use crate::pipeline::job::SideGpt;
use crate::pipeline::prices::{Price, Prices};
use crate::shape::operation::{Epilogue, Operation, Product};
use crate::shape::{DType, LayerShape, Linear, Phase, Rows};
use crate::{Error, Result};

/// One training step of a side GPT as the cost model predicts it.
pub struct GptStep {
    /// Kernels of the step in order, each at its predicted time.
    pub kernels: Kernels,
    /// The ends of the 95 % interval of the step's time, as multiples of it: all its prices are wrong together.
    pub interval: [f64; 2],
    /// Memory while the step runs, in bytes: parameters, gradients, optimizer state, and one batch's activations and
    /// logits.
    pub memory_bytes: f64,
    /// Memory kept between steps, in bytes: parameters, gradients and optimizer state.
    pub resident_bytes: f64,
    /// Whether every part of the step was predicted from inputs within what was measured; false also where one has no
    /// price.
    pub in_range: bool,
}

/// The training step of a side GPT, from the prices of its layers and operations in `dtype`.
/// Returns an error if the layer cannot be priced, or if the prices give the step no time at all.
pub fn step(gpt: SideGpt, prices: &dyn Prices, dtype: DType) -> Result<GptStep> {
    let shape = LayerShape::new(gpt.hidden, gpt.heads, gpt.sequence, gpt.batch, dtype);
    let layer = prices.layer(shape)?;
    let mut list = List { prices, dtype, in_range: layer.in_range(), times: Vec::new(), ends_ns: [0.0; 2] };
    let head = Linear::new(shape.rows() as usize, gpt.hidden as usize, gpt.vocabulary as usize);
    list.small(&Operation::EmbeddingForward(shape.norm_rows()));
    for _ in 0..gpt.layers {
        list.phase(&shape, Phase::Forward, layer.forward);
    }
    list.head(&shape, head, Product::Forward, layer.forward, Phase::Forward);
    list.small(&Operation::CrossEntropy(Rows { rows: head.rows, cols: head.outputs }));
    list.head(&shape, head, Product::ToInputs, layer.backward_input, Phase::BackwardInput);
    list.head(&shape, head, Product::ToWeights, layer.backward_weight, Phase::BackwardWeight);
    for _ in 0..gpt.layers {
        list.phase(&shape, Phase::BackwardInput, layer.backward_input);
        list.phase(&shape, Phase::BackwardWeight, layer.backward_weight);
    }
    list.small(&Operation::EmbeddingToWeights(shape.norm_rows()));
    let parameters = parameters(gpt, &shape);
    list.small(&Operation::Adamw { len: parameters as usize });
    let whole: Vec<u64> = list.times.iter().map(|ns| ns.round() as u64).collect();
    let kernels = Kernels::new(&whole).ok_or_else(|| {
        Error::input("the cost model gives a side's step no time at all", "measure layers again and fit again")
    })?;
    let sum: f64 = list.times.iter().sum();
    let interval = list.ends_ns.map(|ns| ns / sum);
    let state = if dtype.bytes() < 4 { dtype.bytes() as f64 + 16.0 } else { dtype.bytes() as f64 + 12.0 };
    let resident_bytes = parameters as f64 * state;
    let logits = 4.0 * head.rows as f64 * head.outputs as f64;
    let activations = layer.activation_bytes as f64 * gpt.layers as f64 + logits;
    let in_range = list.in_range;
    Ok(GptStep { kernels, interval, memory_bytes: resident_bytes + activations, resident_bytes, in_range })
}

/// Layers, and one matrix shared by embedding and head with the positions.
const fn parameters(gpt: SideGpt, shape: &LayerShape) -> u64 {
    let table = gpt.vocabulary.saturating_add(gpt.sequence).saturating_mul(gpt.hidden);
    shape.parameters().saturating_mul(gpt.layers).saturating_add(table)
}

struct List<'a> {
    prices: &'a dyn Prices,
    dtype: DType,
    in_range: bool,
    times: Vec<f64>,
    /// What all of `times` would be at the lower and the upper ends of their intervals.
    ends_ns: [f64; 2],
}

impl List<'_> {
    /// An operation small beside the layers: left out where it has no price.
    fn small(&mut self, operation: &Operation) {
        match self.prices.operation(operation, self.dtype) {
            Some(price) => {
                self.in_range &= price.in_range;
                self.times.push(price.time_ns);
                self.widen(price);
            }
            None => self.in_range = false,
        }
    }

    fn widen(&mut self, price: Price) {
        self.ends_ns[0] += price.low_ns;
        self.ends_ns[1] += price.high_ns;
    }

    fn phase(&mut self, shape: &LayerShape, phase: Phase, price: Price) {
        self.widen(price);
        let time_ns = price.time_ns;
        let operations = shape.operations(phase);
        let prices: Option<Vec<f64>> =
            operations.iter().map(|(_, o)| self.prices.operation(o, self.dtype).map(|p| p.time_ns)).collect();
        let sum = prices.iter().flatten().sum::<f64>();
        match prices {
            Some(each) if sum > 0.0 => self.times.extend(each.into_iter().map(|ns| ns * time_ns / sum)),
            _ => self.times.push(time_ns),
        }
    }

    /// A product of the head: as priced where that is within range, else at the rate a whole layer reaches in that phase.
    fn head(&mut self, shape: &LayerShape, head: Linear, product: Product, layer: Price, phase: Phase) {
        let operation = Operation::Linear { product, shape: head, epilogue: Epilogue::None };
        let price = self.prices.operation(&operation, self.dtype).filter(|p| p.in_range);
        self.in_range &= price.is_some();
        let by_rate = || layer.times(operation.flop() / shape.flop(phase).max(1.0));
        let price = price.unwrap_or_else(by_rate);
        self.widen(price);
        self.times.push(price.time_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::prices::{LayerPrice, Price, PricedCollective};

    /// Every operation but the head's products costs 10; a layer's phases what they are told to.
    struct Made {
        priced: bool,
    }

    impl Prices for Made {
        fn layer(&self, _: LayerShape) -> Result<LayerPrice> {
            Ok(LayerPrice::exact(900.0, 700.0, 600.0, 50))
        }
        fn collective(&self, _: PricedCollective) -> Option<Price> {
            None
        }
        fn operation(&self, operation: &Operation, _: DType) -> Option<Price> {
            let table = matches!(operation, Operation::Linear { shape, .. } if shape.outputs == 1000);
            (self.priced && !table).then_some(Price::exact(10.0, true))
        }
    }

    const GPT: SideGpt = SideGpt { layers: 2, hidden: 64, heads: 4, sequence: 16, vocabulary: 1000, batch: 2 };

    #[test]
    fn a_step_is_cut_into_the_operations_that_have_prices() {
        let step = step(GPT, &Made { priced: true }, DType::Bf16).unwrap();
        let shape = LayerShape::new(64, 4, 16, 2, DType::Bf16);
        let head = |ns: f64, phase| ns * 2.0 * 32.0 * 64.0 * 1000.0 / shape.flop(phase);
        let products =
            head(900.0, Phase::Forward) + head(700.0, Phase::BackwardInput) + head(600.0, Phase::BackwardWeight);
        // Embedding and its gradient, loss, AdamW; two layers; three products.
        let expected = 40.0 + 2.0 * 2200.0 + products;
        assert!((step.kernels.step_ns() as f64 - expected).abs() < 4.0, "{}", step.kernels.step_ns());
        assert_eq!(step.kernels.per_step(), 4 + 2 * (9 + 7 + 6) + 3);
        assert!(!step.in_range, "the head has no price");
        let parameters = 2.0 * shape.parameters() as f64 + (1000.0 + 16.0) * 64.0;
        assert_eq!(step.resident_bytes, 18.0 * parameters);
        assert_eq!(step.memory_bytes - step.resident_bytes, 2.0 * 50.0 + 4.0 * 32.0 * 1000.0);
    }

    #[test]
    fn without_prices_a_phase_is_one_kernel() {
        let step = step(GPT, &Made { priced: false }, DType::Bf16).unwrap();
        assert_eq!(step.kernels.per_step(), 2 * 3 + 3);
        assert!(step.kernels.longest_ns() >= 900);
    }
}
