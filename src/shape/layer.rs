//! The shape of a GPT layer on one tensor-parallel rank, and what follows from it: its name, its operations phase by
//! phase, its parameters and the activations it keeps.
//!
//! The layer is Megatron-LM's (pre-normalisation, GELU, 4·H inner width; Narayanan et al., arXiv 2104.04473):
//! `x → ln1 → qkv → attention → projection → +x → ln2 → fc1+GELU → fc2 → +`, or with some of its parts exchanged
//! Llama's: RMS normalisation, rotary positions between qkv and attention, fewer heads of keys and values, and a gated MLP
//! (`fc1` of twice the inner width → SwiGLU → fc2). The suite measures the first; a cost model prices both.
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

/// How the rows of a layer's activations are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Normalization {
    /// Layer normalisation, with a gain and a bias (Ba et al., arXiv 1607.06450).
    Layernorm,
    /// RMS normalisation, with a gain alone (Zhang & Sennrich, arXiv 1910.07467).
    Rmsnorm,
}

impl Normalization {
    /// Both kinds, GPT-3's first.
    pub const ALL: [Normalization; 2] = [Normalization::Layernorm, Normalization::Rmsnorm];

    /// The name that records, job files and options spell: `layernorm` or `rmsnorm`.
    pub const fn name(self) -> &'static str {
        match self {
            Normalization::Layernorm => "layernorm",
            Normalization::Rmsnorm => "rmsnorm",
        }
    }
}

/// How a model is told the positions of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// A learned vector for each position is added to the embedding.
    Learned,
    /// Queries and keys are rotated in every layer (Su et al., arXiv 2104.09864).
    Rotary,
}

impl Positions {
    /// Both kinds, GPT-3's first.
    pub const ALL: [Positions; 2] = [Positions::Learned, Positions::Rotary];

    /// The name that records, job files and options spell: `learned` or `rotary`.
    pub const fn name(self) -> &'static str {
        match self {
            Positions::Learned => "learned",
            Positions::Rotary => "rotary",
        }
    }
}

/// Whether attention's scores ever lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// One fused kernel each way keeps the scores on the chip (Dao et al., arXiv 2205.14135).
    Flash,
    /// Scores, softmax and dropout are operations of their own, and the backward pass reads them again: Megatron-LM's
    /// layer of 2022 (Korthikanti et al., arXiv 2205.05198, §4), its dropout masks included.
    Materialised,
}

impl AttentionKind {
    /// Both kinds, the one that is measured first.
    pub const ALL: [AttentionKind; 2] = [AttentionKind::Flash, AttentionKind::Materialised];

    /// The name that records, job files and options spell: `flash` or `materialised`.
    pub const fn name(self) -> &'static str {
        match self {
            AttentionKind::Flash => "flash",
            AttentionKind::Materialised => "materialised",
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
#[serde(from = "WrittenShape", into = "WrittenShape")]
pub struct LayerShape {
    /// Hidden size of the whole layer: H.
    pub hidden: u64,
    /// Attention heads of the whole layer: A.
    pub heads: u64,
    /// Heads of keys and values of the whole layer, a divisor of A: K. Every head has its own in GPT-3.
    pub kv_heads: u64,
    /// Inner width of the MLP of the whole layer: F, 4·H in GPT-3.
    pub ffn_hidden: u64,
    /// Whether the MLP is gated: its first product gives twice the inner width, of which one half gates the other.
    pub gated: bool,
    /// How rows are normalised.
    pub norm: Normalization,
    /// How positions come in.
    pub positions: Positions,
    /// Whether the products add biases.
    pub bias: bool,
    /// Whether attention is causal; BERT's is not.
    pub causal: bool,
    /// Whether attention's scores lie in memory.
    pub attention: AttentionKind,
    /// Sequence length in tokens: S.
    pub sequence: u64,
    /// Sequences of a micro-batch: B.
    pub micro_batch: u64,
    /// Tensor-parallel ranks the layer is divided over: T.
    pub tensor: u64,
    /// Whether what tensor parallelism leaves whole, the normalisations and the skip paths, is divided along the sequence
    /// over the same ranks (Korthikanti et al., arXiv 2205.05198, §4.2). False where T is 1.
    pub sequence_parallel: bool,
    /// Context-parallel ranks that every sequence is divided over: C. Each holds S/C positions of every sequence, half of
    /// them early and half late, and attends with them to all of it.
    pub context: u64,
    /// Type of activations, parameters and gradients.
    pub dtype: DType,
    /// What the backward pass computes again.
    pub recompute: Recompute,
}

/// A layer's shape as files hold it: whatever is GPT-3's is left out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LayerShape", description = "The shape of one layer on one tensor-parallel rank.")]
#[serde(deny_unknown_fields)]
struct WrittenShape {
    /// Hidden size of the whole layer.
    hidden: u64,
    /// Attention heads of the whole layer.
    heads: u64,
    /// Heads of keys and values of the whole layer; as many as `heads` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kv_heads: Option<u64>,
    /// Inner width of the MLP of the whole layer; 4 · `hidden` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ffn_hidden: Option<u64>,
    /// Whether the MLP is gated; false where absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gated: bool,
    /// How rows are normalised; `layernorm` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    norm: Option<Normalization>,
    /// How positions come in; `learned` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    positions: Option<Positions>,
    /// Whether the products add biases; true where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bias: Option<bool>,
    /// Whether attention is causal; true where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causal: Option<bool>,
    /// Whether attention's scores lie in memory; `flash` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attention: Option<AttentionKind>,
    /// Sequence length in tokens.
    sequence: u64,
    /// Sequences of a micro-batch.
    micro_batch: u64,
    /// Tensor-parallel ranks the layer is divided over.
    tensor: u64,
    /// Whether normalisations and skip paths are divided along the sequence; false where absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sequence_parallel: bool,
    /// Context-parallel ranks that every sequence is divided over; 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<u64>,
    /// Type of activations, parameters and gradients.
    dtype: DType,
    /// What the backward pass computes again.
    recompute: Recompute,
}

impl From<WrittenShape> for LayerShape {
    fn from(w: WrittenShape) -> Self {
        let plain = LayerShape::new(w.hidden, w.heads, w.sequence, w.micro_batch, w.dtype);
        LayerShape {
            kv_heads: w.kv_heads.unwrap_or(plain.kv_heads),
            ffn_hidden: w.ffn_hidden.unwrap_or(plain.ffn_hidden),
            gated: w.gated,
            norm: w.norm.unwrap_or(plain.norm),
            positions: w.positions.unwrap_or(plain.positions),
            bias: w.bias.unwrap_or(plain.bias),
            causal: w.causal.unwrap_or(plain.causal),
            attention: w.attention.unwrap_or(plain.attention),
            tensor: w.tensor,
            sequence_parallel: w.sequence_parallel && w.tensor > 1,
            context: w.context.unwrap_or(plain.context),
            recompute: w.recompute,
            ..plain
        }
    }
}

impl From<LayerShape> for WrittenShape {
    fn from(s: LayerShape) -> Self {
        let plain = LayerShape::new(s.hidden, s.heads, s.sequence, s.micro_batch, s.dtype);
        WrittenShape {
            hidden: s.hidden,
            heads: s.heads,
            kv_heads: changed(s.kv_heads, plain.kv_heads),
            ffn_hidden: changed(s.ffn_hidden, plain.ffn_hidden),
            gated: s.gated,
            norm: changed(s.norm, plain.norm),
            positions: changed(s.positions, plain.positions),
            bias: changed(s.bias, plain.bias),
            causal: changed(s.causal, plain.causal),
            attention: changed(s.attention, plain.attention),
            sequence: s.sequence,
            micro_batch: s.micro_batch,
            tensor: s.tensor,
            sequence_parallel: s.sequence_parallel,
            context: changed(s.context, plain.context),
            dtype: s.dtype,
            recompute: s.recompute,
        }
    }
}

/// An operation with its name within the layer.
type Named = (&'static str, Operation);

fn changed<T: PartialEq>(value: T, plain: T) -> Option<T> {
    (value != plain).then_some(value)
}

impl LayerShape {
    /// GPT-3's layer on a single rank (T = 1) that keeps every activation.
    pub const fn new(hidden: u64, heads: u64, sequence: u64, micro_batch: u64, dtype: DType) -> Self {
        LayerShape {
            hidden,
            heads,
            kv_heads: heads,
            ffn_hidden: hidden.saturating_mul(4),
            gated: false,
            norm: Normalization::Layernorm,
            positions: Positions::Learned,
            bias: true,
            causal: true,
            attention: AttentionKind::Flash,
            sequence,
            micro_batch,
            tensor: 1,
            sequence_parallel: false,
            context: 1,
            dtype,
            recompute: Recompute::None,
        }
    }

    /// Llama's layer on a single rank: RMS normalisation, rotary positions, a gated MLP of inner width `ffn_hidden`,
    /// `kv_heads` heads of keys and values, no biases.
    pub const fn llama(self, kv_heads: u64, ffn_hidden: u64) -> Self {
        LayerShape {
            kv_heads,
            ffn_hidden,
            gated: true,
            norm: Normalization::Rmsnorm,
            positions: Positions::Rotary,
            bias: false,
            ..self
        }
    }

    /// Whether the suite has this layer's operations, so that it can be run and not priced alone: GPT-3's layer with fused
    /// causal attention.
    pub fn has_implementation(&self) -> bool {
        let plain = LayerShape::new(self.hidden, self.heads, self.sequence, self.micro_batch, self.dtype);
        *self == plain.tensor(self.tensor).recompute(self.recompute)
    }

    /// The layer divided over `tensor` tensor-parallel ranks, otherwise unchanged.
    pub const fn tensor(self, tensor: u64) -> Self {
        LayerShape { tensor, ..self }
    }

    /// The layer with this much computed again in the backward pass, otherwise unchanged.
    pub const fn recompute(self, recompute: Recompute) -> Self {
        LayerShape { recompute, ..self }
    }

    /// Whether the layer has the same parts as another, whatever the sizes of either.
    pub fn like(&self, other: &LayerShape) -> bool {
        let parts = |s: &LayerShape| (s.gated, s.norm, s.positions, s.causal, s.attention, s.kv_heads == s.heads);
        parts(self) == parts(other)
    }

    /// Checks that the shape can be computed; the error says what is wrong with it, and what would be right.
    pub fn validate(&self) -> Result<()> {
        let dims = [
            ("hidden", self.hidden, 1 << 17),
            ("heads", self.heads, 1 << 12),
            ("kv_heads", self.kv_heads, 1 << 12),
            ("ffn_hidden", self.ffn_hidden, 1 << 20),
            ("sequence", self.sequence, 1 << 22),
            ("micro_batch", self.micro_batch, 1 << 16),
            ("tensor", self.tensor, 1 << 12),
            ("context", self.context, 1 << 12),
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
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::input(
                format!("heads {} cannot be divided by kv_heads {}", self.heads, self.kv_heads),
                "every head of keys and values serves equally many heads of queries",
            ));
        }
        if !self.kv_heads.is_multiple_of(self.tensor) && !self.tensor.is_multiple_of(self.kv_heads) {
            return Err(Error::input(
                format!("kv_heads {} and tensor {} do not divide each other", self.kv_heads, self.tensor),
                "every tensor-parallel rank holds whole heads of keys and values, or one that others hold too",
            ));
        }
        if !self.ffn_hidden.is_multiple_of(self.tensor) {
            return Err(Error::input(
                format!("ffn_hidden {} cannot be divided by tensor {}", self.ffn_hidden, self.tensor),
                "every tensor-parallel rank holds an equal part of the MLP's inner width",
            ));
        }
        Ok(())
    }

    /// The shape as case names spell it: `h512-a8-s256-b1-t1-f32`, with what is not GPT-3's behind it
    /// (`-kv8-ffn14336-gated-rms-rope-nobias`), and `-selective` or `-full` where activations are recomputed.
    pub fn slug(&self) -> String {
        let plain = LayerShape::new(self.hidden, self.heads, self.sequence, self.micro_batch, self.dtype);
        let mut slug = format!(
            "h{}-a{}-s{}-b{}-t{}-{}",
            self.hidden,
            self.heads,
            self.sequence,
            self.micro_batch,
            self.tensor,
            self.dtype.name()
        );
        let parts = [
            (self.kv_heads != plain.kv_heads, format!("-kv{}", self.kv_heads)),
            (self.ffn_hidden != plain.ffn_hidden, format!("-ffn{}", self.ffn_hidden)),
            (self.gated, "-gated".into()),
            (self.norm == Normalization::Rmsnorm, "-rms".into()),
            (self.positions == Positions::Rotary, "-rope".into()),
            (!self.bias, "-nobias".into()),
            (!self.causal, "-noncausal".into()),
            (self.attention == AttentionKind::Materialised, "-materialised".into()),
            (self.sequence_parallel, "-sp".into()),
            (self.context > 1, format!("-c{}", self.context)),
            (self.recompute != Recompute::None, format!("-{}", self.recompute.name())),
        ];
        slug.extend(parts.into_iter().filter(|(differs, _)| *differs).map(|(_, part)| part));
        slug
    }

    /// The shape as it stands in the parameters of a record, in this order: what a fit needs to find it again. What is
    /// GPT-3's is left out, but for the sizes that every layer has.
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
        let mut params: Map<String, Value> =
            numbers.into_iter().chain(names.map(|(name, text)| (name.to_string(), Value::from(text)))).collect();
        let written = serde_json::to_value(self).unwrap_or_default();
        for (name, value) in written.as_object().into_iter().flatten() {
            params.entry(name.clone()).or_insert_with(|| value.clone());
        }
        params
    }

    /// The shape in the parameters of a record, as [`LayerShape::params`] writes it; tensor is 1 and nothing is
    /// recomputed where they do not say. `None` where a size is missing, or something is not what it must be.
    pub fn from_params(params: &Map<String, Value>) -> Option<LayerShape> {
        const KEYS: [&str; 17] = [
            "hidden",
            "heads",
            "kv_heads",
            "ffn_hidden",
            "gated",
            "norm",
            "positions",
            "bias",
            "causal",
            "attention",
            "sequence",
            "micro_batch",
            "tensor",
            "sequence_parallel",
            "context",
            "dtype",
            "recompute",
        ];
        let mut own: Map<String, Value> =
            KEYS.into_iter().filter_map(|key| Some((key.to_string(), params.get(key)?.clone()))).collect();
        own.entry("tensor").or_insert(1.into());
        own.entry("recompute").or_insert(Recompute::None.name().into());
        let shape: LayerShape = serde_json::from_value(Value::Object(own)).ok()?;
        shape.validate().is_ok().then_some(shape)
    }

    /// Rows of the layer's activation matrices on this rank, one per token: B·S/C.
    pub const fn rows(&self) -> u64 {
        self.micro_batch * self.sequence.div_ceil(self.context)
    }
    /// Elements of an attention head: H/A.
    pub const fn head_size(&self) -> u64 {
        self.hidden / self.heads
    }
    /// Width of this rank's heads together: H/T.
    pub const fn local_width(&self) -> u64 {
        self.hidden / self.tensor
    }
    /// Heads of keys and values that this rank holds: K/T, or one that other ranks hold too where T is above K.
    pub const fn local_kv_heads(&self) -> u64 {
        let heads = self.kv_heads / self.tensor;
        if heads > 0 { heads } else { 1 }
    }
    /// Width of this rank's queries, keys and values together.
    pub const fn local_qkv(&self) -> u64 {
        self.local_width() + 2 * self.local_kv_heads() * self.head_size()
    }
    /// This rank's share of the inner width: F/T.
    pub const fn local_inner(&self) -> u64 {
        self.ffn_hidden / self.tensor
    }
    /// This rank's share of what the MLP's first product gives: F/T, twice that in a gated MLP.
    pub const fn local_inner_outputs(&self) -> u64 {
        if self.gated { 2 * self.local_inner() } else { self.local_inner() }
    }

    /// Dimensions of this rank's attention, over A/T heads.
    pub const fn attention(&self) -> Attention {
        let heads = (self.heads / self.tensor) as usize;
        Attention::new(self.micro_batch as usize, heads, self.sequence as usize, self.head_size() as usize)
            .grouped(self.local_kv_heads() as usize)
            .causal(self.causal)
            .shared_by(self.context as usize)
    }
    /// Dimensions of each of the two normalisations: B·S × H, which every rank does in full unless the sequence is divided
    /// too.
    pub const fn norm_rows(&self) -> Rows {
        let rows = if self.sequence_parallel { self.rows().div_ceil(self.tensor) } else { self.rows() };
        Rows { rows: rows as usize, cols: self.hidden as usize }
    }
    /// Dimensions of the product to queries, keys and values, of which this rank holds 1/T of the outputs.
    pub const fn qkv(&self) -> Linear {
        Linear::new(self.rows() as usize, self.hidden as usize, self.local_qkv() as usize)
    }
    /// Dimensions of the product behind the attention, of which this rank holds 1/T of the inputs.
    pub const fn projection(&self) -> Linear {
        Linear::new(self.rows() as usize, self.local_width() as usize, self.hidden as usize)
    }
    /// Dimensions of the first product of the MLP, of which this rank holds 1/T of the outputs.
    pub const fn fc1(&self) -> Linear {
        Linear::new(self.rows() as usize, self.hidden as usize, self.local_inner_outputs() as usize)
    }
    /// Dimensions of the second product of the MLP, of which this rank holds 1/T of the inputs.
    pub const fn fc2(&self) -> Linear {
        Linear::new(self.rows() as usize, self.local_inner() as usize, self.hidden as usize)
    }

    /// Number of this rank's parameters, biases and both normalisations included.
    pub const fn parameters(&self) -> u64 {
        let (h, w, f) = (self.hidden, self.local_width(), self.local_inner());
        let (qkv, fc1) = (self.local_qkv(), self.local_inner_outputs());
        let biases = if self.bias { qkv + h + fc1 + h } else { 0 };
        let norms = match self.norm {
            Normalization::Layernorm => 4 * h,
            Normalization::Rmsnorm => 2 * h,
        };
        h * qkv + w * h + h * fc1 + f * h + biases + norms
    }

    /// Bytes of this rank's parameters in the layer's element type, without gradients and optimizer state.
    pub const fn parameter_bytes(&self) -> u64 {
        self.parameters() * self.dtype.bytes() as u64
    }

    /// Bytes of activations that this rank keeps between forward and backward for one micro-batch.
    ///
    /// With fused attention: x, norm 1, qkv, attention, x2, norm 2, the MLP's first product and what GELU or the gate makes
    /// of it, the norms' statistics and attention's log-sum-exp. With scores in memory two dropout masks of the hidden
    /// size come to it, and for each score the softmax, its dropout mask and the dropped-out softmax: Korthikanti et al.'s
    /// s·b·h·(34 + 5·a·s/h) in 16 bits (arXiv 2205.05198, §4.1).
    pub const fn activation_bytes(&self) -> u64 {
        let rows = self.rows();
        let element = self.dtype.bytes() as u64;
        let norm_rows = self.norm_rows().rows as u64;
        if matches!(self.recompute, Recompute::Full) {
            return norm_rows * self.hidden * element;
        }
        let statistics = norm_rows
            * match self.norm {
                Normalization::Layernorm => 16,
                Normalization::Rmsnorm => 8,
            };
        let heads = rows * (self.heads / self.tensor);
        let (scores, lse, masks) = match self.attention {
            AttentionKind::Flash => (0, 4 * heads, 0),
            AttentionKind::Materialised => {
                (heads.saturating_mul(self.sequence).saturating_mul(2 * element + 1), 0, 2 * norm_rows * self.hidden)
            }
        };
        let whole =
            norm_rows * 4 * self.hidden + rows * (self.local_qkv() + self.local_inner_outputs() + self.local_inner());
        let kept = (whole * element).saturating_add(statistics + masks);
        match self.recompute {
            Recompute::None => kept.saturating_add(rows * self.local_width() * element + lse).saturating_add(scores),
            // The fused kernel's output is computed again with it; the unfused one's product is kept and read.
            _ => match self.attention {
                AttentionKind::Flash => kept,
                AttentionKind::Materialised => kept.saturating_add(rows * self.local_width() * element),
            },
        }
    }

    /// Floating-point operations of a phase on this rank, the sum over [`LayerShape::operations`]; a multiply-add
    /// counts two.
    pub fn flop(&self, phase: Phase) -> f64 {
        self.operations(phase).iter().map(|(_, operation)| operation.flop()).sum()
    }

    /// Every operation of a phase in the order it runs, with its name within the layer.
    pub fn operations(&self, phase: Phase) -> Vec<(&'static str, Operation)> {
        match phase {
            Phase::Forward => self.forward_operations(),
            Phase::BackwardInput => {
                let mut list = match self.recompute {
                    Recompute::None => vec![],
                    Recompute::Selective => self.attention_forward(),
                    Recompute::Full => self.forward_operations(),
                };
                list.extend(self.backward_operations());
                list
            }
            Phase::BackwardWeight => self.weight_operations(),
            Phase::ForwardBackward => [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight]
                .iter()
                .flat_map(|&p| self.operations(p))
                .collect(),
        }
    }

    fn forward_operations(&self) -> Vec<Named> {
        let fused = self.attention == AttentionKind::Flash;
        // Unfused layers add their biases in the passes behind the products.
        let bias = if self.bias && fused { Epilogue::Bias } else { Epilogue::None };
        let linear = |shape: Linear, epilogue| Operation::Linear { product: Product::Forward, shape, epilogue };
        let norm = match self.norm {
            Normalization::Layernorm => Operation::LayernormForward(self.norm_rows()),
            Normalization::Rmsnorm => Operation::RmsnormForward(self.norm_rows()),
        };
        let len = self.norm_rows().len();
        let residual = if fused { Operation::Residual { len } } else { Operation::BiasDropoutResidual { len } };
        let mut list = vec![("ln1", norm), ("qkv", linear(self.qkv(), bias))];
        if self.positions == Positions::Rotary {
            let (queries, keys) = (self.query_elements(), self.key_elements());
            list.extend([
                ("copy", Operation::Copy { len: queries }),
                ("copy", Operation::Copy { len: keys }),
                ("rotary", Operation::RotaryForward { len: queries }),
                ("rotary", Operation::RotaryForward { len: keys }),
            ]);
        }
        if !fused {
            list.push(("copy", Operation::Copy { len: self.query_elements() + 2 * self.key_elements() }));
        }
        list.extend(self.attention_forward());
        if !fused {
            list.push(("copy", Operation::Copy { len: self.query_elements() }));
        }
        list.extend([("projection", linear(self.projection(), bias)), ("residual1", residual), ("ln2", norm)]);
        if self.gated {
            list.push(("fc1", linear(self.fc1(), bias)));
            list.push(("swiglu", Operation::SwigluForward { len: self.inner_elements() }));
        } else if fused {
            list.push(("fc1", linear(self.fc1(), Epilogue::BiasGelu)));
        } else {
            list.push(("fc1", linear(self.fc1(), Epilogue::None)));
            list.push(("gelu", Operation::GeluForward { len: self.inner_elements() }));
        }
        list.extend([("fc2", linear(self.fc2(), bias)), ("residual2", residual)]);
        list
    }

    fn backward_operations(&self) -> Vec<Named> {
        let fused = self.attention == AttentionKind::Flash;
        let linear = |shape: Linear, epilogue| Operation::Linear { product: Product::ToInputs, shape, epilogue };
        let len = self.norm_rows().len();
        // Behind each RMS normalisation the skip path's gradient is added by itself.
        let norm = |name: &'static str| match self.norm {
            Normalization::Layernorm => vec![(name, Operation::LayernormToInputs(self.norm_rows()))],
            Normalization::Rmsnorm => {
                vec![(name, Operation::RmsnormToInputs(self.norm_rows())), ("skip", Operation::Residual { len })]
            }
        };
        let dropout = (!fused).then_some(("dropout", Operation::MaskedDropout { len }));
        let mut list: Vec<Named> = dropout.into_iter().collect();
        if self.gated {
            list.push(("fc2", linear(self.fc2(), Epilogue::None)));
            list.push(("swiglu", Operation::SwigluBackward { len: self.inner_elements() }));
        } else if fused {
            list.push(("fc2", linear(self.fc2(), Epilogue::GeluBackward)));
        } else {
            list.push(("fc2", linear(self.fc2(), Epilogue::None)));
            list.push(("gelu", Operation::GeluBackward { len: self.inner_elements() }));
        }
        list.push(("fc1", linear(self.fc1(), Epilogue::None)));
        list.extend(norm("ln2"));
        list.extend(dropout);
        list.push(("projection", linear(self.projection(), Epilogue::None)));
        if !fused {
            list.push(("copy", Operation::Copy { len: self.query_elements() }));
        }
        list.extend(self.attention_backward());
        if self.positions == Positions::Rotary {
            let (queries, keys) = (self.query_elements(), self.key_elements());
            list.extend([
                ("rotary", Operation::RotaryBackward { len: queries }),
                ("rotary", Operation::RotaryBackward { len: keys }),
            ]);
        }
        if self.positions == Positions::Rotary || !fused {
            list.push(("copy", Operation::Copy { len: self.query_elements() + 2 * self.key_elements() }));
        }
        list.push(("qkv", linear(self.qkv(), Epilogue::None)));
        list.extend(norm("ln1"));
        list
    }

    fn weight_operations(&self) -> Vec<Named> {
        let fused = self.attention == AttentionKind::Flash;
        let epilogue = if self.bias && fused { Epilogue::BiasGradient } else { Epilogue::None };
        let weight =
            |shape: Linear| Operation::Linear { product: Product::ToWeights, shape: shape.accumulating(), epilogue };
        let norm = match self.norm {
            Normalization::Layernorm => Operation::LayernormToWeights(self.norm_rows()),
            Normalization::Rmsnorm => Operation::RmsnormToWeights(self.norm_rows()),
        };
        let mut list = vec![
            ("fc2", weight(self.fc2())),
            ("fc1", weight(self.fc1())),
            ("ln2", norm),
            ("projection", weight(self.projection())),
            ("qkv", weight(self.qkv())),
            ("ln1", norm),
        ];
        if self.bias && !fused {
            let outputs = [self.projection(), self.fc2(), self.fc1(), self.qkv()];
            list.extend(outputs.map(|l| ("bias", Operation::BiasGradient { len: l.rows * l.outputs })));
        }
        list
    }

    /// Elements of this rank's queries.
    const fn query_elements(&self) -> usize {
        (self.rows() * self.local_width()) as usize
    }

    /// Elements of this rank's keys, and as many of its values.
    const fn key_elements(&self) -> usize {
        (self.rows() * self.local_kv_heads() * self.head_size()) as usize
    }

    /// Elements of this rank's part of the MLP between its two products.
    const fn inner_elements(&self) -> usize {
        (self.rows() * self.local_inner()) as usize
    }

    /// Attention as one operation, or where the scores lie in memory as two products of every head with softmax and
    /// dropout between them. Those multiply all pairs of positions, masked ones too.
    fn attention_forward(&self) -> Vec<Named> {
        if self.attention == AttentionKind::Flash {
            return vec![("attention", Operation::AttentionForward(self.attention()))];
        }
        let (to_scores, from_scores) = self.score_products();
        vec![
            ("scores", to_scores),
            ("softmax", Operation::SoftmaxForward { len: self.scores() }),
            ("dropout", Operation::MaskedDropout { len: self.scores() }),
            ("context", from_scores),
        ]
    }

    fn attention_backward(&self) -> Vec<Named> {
        if self.attention == AttentionKind::Flash {
            return vec![("attention", Operation::AttentionBackward(self.attention()))];
        }
        let (to_scores, from_scores) = self.score_products();
        // Each product has two inputs that are activations, and so two gradients: one of the other form, one of its own.
        vec![
            ("context", from_scores),
            ("context", to_scores),
            ("dropout", Operation::MaskedDropout { len: self.scores() }),
            ("softmax", Operation::SoftmaxBackward { len: self.scores() }),
            ("scores", from_scores),
            ("scores", from_scores),
        ]
    }

    /// Q·Kᵀ and P·V of every head: S/C × D · D × S and S/C × S · S × D.
    const fn score_products(&self) -> (Operation, Operation) {
        let batch = (self.micro_batch * (self.heads / self.tensor)) as usize;
        let (m, s, d) =
            (self.sequence.div_ceil(self.context) as usize, self.sequence as usize, self.head_size() as usize);
        (Operation::BatchedProduct { batch, m, n: s, k: d }, Operation::BatchedProduct { batch, m, n: d, k: s })
    }

    /// Scores of all of this rank's heads: B·(A/T)·S².
    const fn scores(&self) -> usize {
        (self.rows() * (self.heads / self.tensor)).saturating_mul(self.sequence) as usize
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

    /// Llama-3 8B (Dubey et al., arXiv 2407.21783, table 3): 218,112,000 parameters a layer.
    #[test]
    fn llamas_layer_has_the_published_parameters_and_products() {
        let shape = LayerShape::new(4096, 32, 8192, 1, DType::Bf16).llama(8, 14_336);
        assert_eq!(shape.parameters(), 218_112_000);
        assert_eq!(shape.slug(), "h4096-a32-s8192-b1-t1-bf16-kv8-ffn14336-gated-rms-rope-nobias");
        let products: f64 = shape
            .operations(Phase::Forward)
            .iter()
            .filter(|(_, o)| matches!(o, Operation::Linear { .. }))
            .map(|(_, o)| o.flop())
            .sum();
        assert_eq!(products, 2.0 * 8192.0 * (218_112_000.0 - 2.0 * 4096.0));
        assert!(!shape.has_implementation());
        assert!(LayerShape::new(4096, 32, 8192, 1, DType::Bf16).tensor(4).has_implementation());
    }

    /// Korthikanti et al. (arXiv 2205.05198, equations 1, 2 and 4): 16-bit layers of dropout and unfused attention keep
    /// s·b·h·(34 + 5·a·s/h), over t ranks s·b·h·(10 + 24/t + 5·a·s/(h·t)), all of it ÷ t with sequence parallelism.
    #[test]
    fn unfused_layers_keep_the_published_activations() {
        let unfused =
            LayerShape { attention: AttentionKind::Materialised, ..LayerShape::new(6144, 64, 2048, 4, DType::Bf16) };
        let sbh = 2048.0 * 4.0 * 6144.0;
        let quadratic = 5.0 * 64.0 * 2048.0 / 6144.0;
        for (tensor, sequence_parallel, expected) in [
            (1, false, 34.0 + quadratic),
            (8, false, 10.0 + 24.0 / 8.0 + quadratic / 8.0),
            (8, true, (34.0 + quadratic) / 8.0),
        ] {
            let shape = LayerShape { tensor, sequence_parallel, ..unfused };
            let off = shape.activation_bytes() as f64 / (sbh * expected) - 1.0;
            assert!(off.abs() < 0.001, "{}: {off}", shape.slug());
            let selective = LayerShape { recompute: Recompute::Selective, ..shape };
            let off = selective.activation_bytes() as f64 / (sbh * (expected - quadratic / tensor as f64)) - 1.0;
            assert!(off.abs() < 0.001, "{}: {off}", selective.slug());
        }
    }

    /// What is GPT-3's is left out of files, so that those of before are read, and everything else comes back.
    #[test]
    fn shapes_are_written_and_read() {
        let plain = LayerShape::new(4096, 32, 2048, 1, DType::Bf16);
        let text = serde_json::to_string(&plain).unwrap();
        assert!(!text.contains("kv_heads") && !text.contains("norm") && !text.contains("causal"), "{text}");
        let shapes = [
            plain.tensor(4).recompute(Recompute::Full),
            plain.llama(8, 14_336),
            LayerShape { causal: false, ..plain },
            LayerShape { attention: AttentionKind::Materialised, sequence_parallel: true, ..plain.tensor(2) },
        ];
        for shape in shapes {
            let text = serde_json::to_string(&shape).unwrap();
            assert_eq!(serde_json::from_str::<LayerShape>(&text).unwrap(), shape, "{text}");
            assert_eq!(LayerShape::from_params(&shape.params()), Some(shape));
        }
        assert_eq!(LayerShape::from_params(&Map::new()), None);
    }

    #[test]
    fn wrong_shapes_are_named() {
        let shape = LayerShape::new(100, 3, 16, 1, DType::F32);
        assert!(shape.validate().unwrap_err().to_string().contains("hidden 100 cannot be divided by heads 3"));
        assert!(LayerShape::new(0, 1, 1, 1, DType::F32).validate().is_err());
        assert!(LayerShape::new(64, 4, 16, 1, DType::F32).tensor(3).validate().is_err());
        let modern =
            |kv_heads, ffn_hidden| LayerShape::new(96, 6, 16, 1, DType::F32).llama(kv_heads, ffn_hidden).tensor(3);
        let error = |shape: LayerShape| shape.validate().unwrap_err().to_string();
        assert!(error(modern(4, 96)).contains("heads 6 cannot be divided by kv_heads 4"));
        assert!(error(modern(2, 96)).contains("kv_heads 2 and tensor 3 do not divide each other"));
        assert!(error(modern(3, 100)).contains("ffn_hidden 100 cannot be divided by tensor 3"));
        assert!(modern(1, 96).validate().is_ok());
    }
}
