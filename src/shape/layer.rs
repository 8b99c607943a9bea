//! The shape of a GPT layer on one tensor-parallel rank, and what follows from it: its name, its operations phase by
//! phase, its parameters and the activations it keeps.
//!
//! The layer is Megatron-LM's (pre-normalisation, GELU, 4·H inner width; Narayanan et al., arXiv 2104.04473):
//! `x → ln1 → qkv → attention → projection → +x → ln2 → fc1+GELU → fc2 → +`.
//! On rank t of T the qkv and fc1 products hold 1/T of their outputs, projection and fc2 1/T of their inputs.

use super::operation::{Epilogue, Operation, Product};
use super::sizes::{Attention, DType, Linear, Rows};
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Which activations the backward pass computes again instead of keeping them (Korthikanti et al., arXiv 2205.05198).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Every activation is kept.
    None,
    /// Attention runs again in the backward pass; its output and log-sum-exp are not kept.
    Selective,
    /// Only the layer's input is kept; the whole forward runs again.
    Full,
}

impl Recompute {
    /// Every kind of recomputation, in the order of how much is computed again.
    pub const ALL: [Recompute; 3] = [Recompute::None, Recompute::Selective, Recompute::Full];

    /// The recomputation of that name, as [`Recompute::name`] spells it; `None` for any other text.
    pub fn parse(name: &str) -> Option<Recompute> {
        Recompute::ALL.into_iter().find(|recompute| recompute.name() == name)
    }

    /// The name that records, job files and options spell: `none`, `selective` or `full`.
    pub const fn name(self) -> &'static str {
        match self {
            Recompute::None => "none",
            Recompute::Selective => "selective",
            Recompute::Full => "full",
        }
    }
}

/// A part of a layer's work that is timed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The forward pass: F.
    Forward,
    /// The backward pass to the inputs: B. Recomputed activations count here.
    BackwardInput,
    /// The backward pass to the weights: W.
    BackwardWeight,
    /// Forward and both parts of the backward pass, one behind the other.
    ForwardBackward,
}

impl Phase {
    /// Every phase, in the order in which cases are listed.
    pub const ALL: [Phase; 4] = [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight, Phase::ForwardBackward];

    /// The name that case names and cost models spell: `forward`, `backward_input`, …
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Forward => "forward",
            Phase::BackwardInput => "backward_input",
            Phase::BackwardWeight => "backward_weight",
            Phase::ForwardBackward => "forward_backward",
        }
    }
}

/// The shape of one layer on one tensor-parallel rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerShape {
    /// Hidden size of the whole layer: H.
    pub hidden: u64,
    /// Attention heads of the whole layer: A.
    pub heads: u64,
    /// Sequence length in tokens: S.
    pub sequence: u64,
    /// Sequences of a micro-batch: B.
    pub micro_batch: u64,
    /// Tensor-parallel ranks the layer is divided over: T.
    pub tensor: u64,
    /// Type of activations, parameters and gradients.
    pub dtype: DType,
    /// What the backward pass computes again.
    pub recompute: Recompute,
}

impl LayerShape {
    /// A layer on a single rank (T = 1) that keeps every activation.
    pub const fn new(hidden: u64, heads: u64, sequence: u64, micro_batch: u64, dtype: DType) -> Self {
        LayerShape { hidden, heads, sequence, micro_batch, tensor: 1, dtype, recompute: Recompute::None }
    }

    /// The layer divided over `tensor` tensor-parallel ranks, otherwise unchanged.
    pub const fn tensor(self, tensor: u64) -> Self {
        LayerShape { tensor, ..self }
    }

    /// The layer with this much computed again in the backward pass, otherwise unchanged.
    pub const fn recompute(self, recompute: Recompute) -> Self {
        LayerShape { recompute, ..self }
    }

    /// Checks that the shape can be computed; the error says what is wrong with it, and what would be right.
    pub fn validate(&self) -> Result<()> {
        let dims = [
            ("hidden", self.hidden, 1 << 17),
            ("heads", self.heads, 1 << 12),
            ("sequence", self.sequence, 1 << 22),
            ("micro_batch", self.micro_batch, 1 << 16),
            ("tensor", self.tensor, 1 << 12),
        ];
        for (name, value, most) in dims {
            if value == 0 || value > most {
                return Err(Error::input(format!("{name} is {value}"), format!("give 1 to {most}")));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(Error::input(
                format!("hidden {} cannot be divided by heads {}", self.hidden, self.heads),
                "choose heads so that hidden / heads is a whole head size (64 and 128 are usual)",
            ));
        }
        if !self.heads.is_multiple_of(self.tensor) {
            return Err(Error::input(
                format!("heads {} cannot be divided by tensor {}", self.heads, self.tensor),
                "every tensor-parallel rank holds whole heads: choose tensor as a divisor of heads",
            ));
        }
        Ok(())
    }

    /// The shape as case names spell it: `h512-a8-s256-b1-t1-f32`, with `-selective` or `-full` behind it where
    /// activations are recomputed.
    pub fn slug(&self) -> String {
        let recompute = match self.recompute {
            Recompute::None => String::new(),
            other => format!("-{}", other.name()),
        };
        format!(
            "h{}-a{}-s{}-b{}-t{}-{}{recompute}",
            self.hidden,
            self.heads,
            self.sequence,
            self.micro_batch,
            self.tensor,
            self.dtype.name()
        )
    }

    /// The shape as it stands in the parameters of a record, in this order: what a fit needs to find it again.
    pub fn params(&self) -> Map<String, Value> {
        let numbers = [
            ("hidden", self.hidden),
            ("heads", self.heads),
            ("sequence", self.sequence),
            ("micro_batch", self.micro_batch),
            ("tensor", self.tensor),
        ];
        let names = [("dtype", self.dtype.name()), ("recompute", self.recompute.name())];
        let numbers = numbers.map(|(name, number)| (name.to_string(), Value::from(number)));
        numbers.into_iter().chain(names.map(|(name, text)| (name.to_string(), Value::from(text)))).collect()
    }

    /// Rows of the layer's activation matrices, one per token: B·S.
    pub const fn rows(&self) -> u64 {
        self.micro_batch * self.sequence
    }
    /// Elements of an attention head: H/A.
    pub const fn head_size(&self) -> u64 {
        self.hidden / self.heads
    }
    /// Width of this rank's heads together: H/T.
    pub const fn local_width(&self) -> u64 {
        self.hidden / self.tensor
    }
    /// This rank's share of the inner width: 4H/T.
    pub const fn local_inner(&self) -> u64 {
        4 * self.hidden / self.tensor
    }

    /// Dimensions of this rank's attention, over A/T heads.
    pub const fn attention(&self) -> Attention {
        Attention {
            batch: self.micro_batch as usize,
            heads: (self.heads / self.tensor) as usize,
            sequence: self.sequence as usize,
            head_size: self.head_size() as usize,
        }
    }
    /// Dimensions of each of the two layer normalisations, which every rank does in full: B·S × H.
    pub const fn norm(&self) -> Rows {
        Rows { rows: self.rows() as usize, cols: self.hidden as usize }
    }
    /// Dimensions of the product to queries, keys and values, of which this rank holds 1/T of the outputs.
    pub const fn qkv(&self) -> Linear {
        Linear::new(self.rows() as usize, self.hidden as usize, 3 * self.local_width() as usize)
    }
    /// Dimensions of the product behind the attention, of which this rank holds 1/T of the inputs.
    pub const fn projection(&self) -> Linear {
        Linear::new(self.rows() as usize, self.local_width() as usize, self.hidden as usize)
    }
    /// Dimensions of the first product of the MLP, of which this rank holds 1/T of the outputs.
    pub const fn fc1(&self) -> Linear {
        Linear::new(self.rows() as usize, self.hidden as usize, self.local_inner() as usize)
    }
    /// Dimensions of the second product of the MLP, of which this rank holds 1/T of the inputs.
    pub const fn fc2(&self) -> Linear {
        Linear::new(self.rows() as usize, self.local_inner() as usize, self.hidden as usize)
    }

    /// Number of this rank's parameters, biases and both normalisations included.
    pub const fn parameters(&self) -> u64 {
        let (h, w, f) = (self.hidden, self.local_width(), self.local_inner());
        h * 3 * w + 3 * w + w * h + h + h * f + f + f * h + h + 4 * h
    }

    /// Bytes of this rank's parameters in the layer's element type, without gradients and optimizer state.
    pub const fn parameter_bytes(&self) -> u64 {
        self.parameters() * self.dtype.bytes() as u64
    }

    /// Bytes of activations that this rank keeps between forward and backward for one micro-batch.
    pub const fn activation_bytes(&self) -> u64 {
        let (h, w, f, rows) = (self.hidden, self.local_width(), self.local_inner(), self.rows());
        let statistics = 4 * rows * 4;
        let lse = 4 * self.micro_batch * (self.heads / self.tensor) * self.sequence;
        let element = self.dtype.bytes() as u64;
        match self.recompute {
            // x, ln1, qkv, attention, x2, ln2, pre-GELU, GELU
            Recompute::None => rows * (4 * h + 4 * w + 2 * f) * element + statistics + lse,
            Recompute::Selective => rows * (4 * h + 3 * w + 2 * f) * element + statistics,
            Recompute::Full => rows * h * element,
        }
    }

    /// Floating-point operations of a phase on this rank, the sum over [`LayerShape::operations`]; a multiply-add
    /// counts two.
    pub fn flop(&self, phase: Phase) -> f64 {
        self.operations(phase).iter().map(|(_, operation)| operation.flop()).sum()
    }

    /// Every operation of a phase in the order it runs, with its name within the layer.
    pub fn operations(&self, phase: Phase) -> Vec<(&'static str, Operation)> {
        let linear = |product, shape: Linear, epilogue| Operation::Linear { product, shape, epilogue };
        let residual = Operation::Residual { len: self.norm().len() };
        let forward = [
            ("ln1", Operation::LayernormForward(self.norm())),
            ("qkv", linear(Product::Forward, self.qkv(), Epilogue::Bias)),
            ("attention", Operation::AttentionForward(self.attention())),
            ("projection", linear(Product::Forward, self.projection(), Epilogue::Bias)),
            ("residual1", residual),
            ("ln2", Operation::LayernormForward(self.norm())),
            ("fc1", linear(Product::Forward, self.fc1(), Epilogue::BiasGelu)),
            ("fc2", linear(Product::Forward, self.fc2(), Epilogue::Bias)),
            ("residual2", residual),
        ];
        match phase {
            Phase::Forward => forward.to_vec(),
            Phase::BackwardInput => {
                let mut list = match self.recompute {
                    Recompute::None => vec![],
                    Recompute::Selective => vec![forward[2]],
                    Recompute::Full => forward.to_vec(),
                };
                list.extend([
                    ("fc2", linear(Product::ToInputs, self.fc2(), Epilogue::GeluBackward)),
                    ("fc1", linear(Product::ToInputs, self.fc1(), Epilogue::None)),
                    ("ln2", Operation::LayernormToInputs(self.norm())),
                    ("projection", linear(Product::ToInputs, self.projection(), Epilogue::None)),
                    ("attention", Operation::AttentionBackward(self.attention())),
                    ("qkv", linear(Product::ToInputs, self.qkv(), Epilogue::None)),
                    ("ln1", Operation::LayernormToInputs(self.norm())),
                ]);
                list
            }
            Phase::BackwardWeight => {
                let weight = |shape: Linear| linear(Product::ToWeights, shape.accumulating(), Epilogue::BiasGradient);
                vec![
                    ("fc2", weight(self.fc2())),
                    ("fc1", weight(self.fc1())),
                    ("ln2", Operation::LayernormToWeights(self.norm())),
                    ("projection", weight(self.projection())),
                    ("qkv", weight(self.qkv())),
                    ("ln1", Operation::LayernormToWeights(self.norm())),
                ]
            }
            Phase::ForwardBackward => [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight]
                .iter()
                .flat_map(|&p| self.operations(p))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slug_is_stable() {
        let shape = LayerShape::new(4096, 32, 2048, 1, DType::Bf16);
        assert_eq!(shape.slug(), "h4096-a32-s2048-b1-t1-bf16");
        assert_eq!(shape.tensor(2).recompute(Recompute::Full).slug(), "h4096-a32-s2048-b1-t2-bf16-full");
    }

    /// Narayanan et al. (arXiv 2104.04473, appendix): a layer's forward products are 24·B·S·H² + 4·B·S²·H FLOPs
    /// (attention not halved by causality).
    #[test]
    fn flops_agree_with_the_published_count() {
        let shape = LayerShape::new(1024, 16, 512, 2, DType::F32);
        let (b, s, h) = (2.0, 512.0, 1024.0);
        let products: f64 = shape
            .operations(Phase::Forward)
            .iter()
            .filter(|(_, o)| matches!(o, Operation::Linear { .. }))
            .map(|(_, o)| o.flop())
            .sum();
        assert_eq!(products, 24.0 * b * s * h * h);
        let attention = Operation::AttentionForward(shape.attention()).flop();
        assert_eq!(attention, 4.0 * b * s * (s + 1.0) / 2.0 * h);
    }

    #[test]
    fn parameters_are_twelve_h_squared_and_change() {
        let shape = LayerShape::new(1024, 16, 512, 1, DType::F32);
        assert_eq!(shape.parameters(), 12 * 1024 * 1024 + 13 * 1024);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let shape = LayerShape::new(100, 3, 16, 1, DType::F32);
        assert!(shape.validate().unwrap_err().to_string().contains("hidden 100 cannot be divided by heads 3"));
        assert!(LayerShape::new(0, 1, 1, 1, DType::F32).validate().is_err());
        assert!(LayerShape::new(64, 4, 16, 1, DType::F32).tensor(3).validate().is_err());
    }
}
