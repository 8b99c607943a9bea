//! Element types and the sizes of single operations, as plain values: what a device is asked for, without the device.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Element type of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE double precision, in which references are computed.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision: 5 bits of exponent, 10 of mantissa.
    F16,
    /// bfloat16: single precision's 8 bits of exponent, 7 of mantissa.
    Bf16,
    /// Unsigned 32-bit integers, for token identifiers.
    U32,
}

impl DType {
    /// The floating-point types, in which layers and operations are measured; f64 is the reference's alone.
    pub const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::Bf16];
    /// The floating-point types that a model is trained in.
    pub const TRAINED: [DType; 3] = [DType::Bf16, DType::F16, DType::F32];

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// The name that case names spell: `f32`, `bf16`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::U32 => "u32",
        }
    }

    /// The floating-point type of that name, as [`DType::name`] spells it; `None` for any other text.
    pub fn parse(name: &str) -> Option<DType> {
        DType::FLOATS.into_iter().find(|dtype| dtype.name() == name)
    }
}

/// A linear layer Y = X·Wᵀ: X is `rows`×`inputs`, W is `outputs`×`inputs`, Y is `rows`×`outputs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Linear {
    /// Rows of X and Y: micro-batch × sequence in a GPT layer.
    pub rows: usize,
    /// Columns of X.
    pub inputs: usize,
    /// Columns of Y.
    pub outputs: usize,
    /// Whether the result is added to what the output holds instead of replacing it.
    pub accumulate: bool,
}

impl Linear {
    /// A product that overwrites its output.
    pub const fn new(rows: usize, inputs: usize, outputs: usize) -> Self {
        Linear { rows, inputs, outputs, accumulate: false }
    }

    /// The product with its result added to what the output holds, otherwise unchanged.
    pub const fn accumulating(self) -> Self {
        Linear { accumulate: true, ..self }
    }
}

/// Self-attention over packed `qkv` rows `[q(A·D) | k(K·D) | v(K·D)]`, row = b·S + s. The kernels compute the causal form
/// with K = A; a cost model also prices the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Number of sequences.
    pub batch: usize,
    /// Attention heads on this rank, which are those of the queries: A.
    pub heads: usize,
    /// Heads of keys and values on this rank, each shared by A/K heads of queries: K.
    pub kv_heads: usize,
    /// Positions of a sequence: S.
    pub sequence: usize,
    /// Elements of an attention head: D.
    pub head_size: usize,
    /// Whether a position attends to itself and those before it only.
    pub causal: bool,
    /// Ranks that the queries of every sequence are divided over (context parallelism): C. Each attends to the whole
    /// sequence, with an early and a late part of the queries, so that causal ranks have equal shares.
    pub context: usize,
}

impl Attention {
    /// Causal attention in which every head has keys and values of its own.
    pub const fn new(batch: usize, heads: usize, sequence: usize, head_size: usize) -> Self {
        Attention { batch, heads, kv_heads: heads, sequence, head_size, causal: true, context: 1 }
    }

    /// The attention with keys and values shared among the queries' heads (grouped-query attention; Ainslie et al.,
    /// arXiv 2305.13245), otherwise unchanged.
    pub const fn grouped(self, kv_heads: usize) -> Self {
        Attention { kv_heads, ..self }
    }

    /// The attention of every position to every other, as in BERT, otherwise unchanged.
    pub const fn causal(self, causal: bool) -> Self {
        Attention { causal, ..self }
    }

    /// One rank's part of the attention where `context` ranks share every sequence, otherwise unchanged.
    pub const fn shared_by(self, context: usize) -> Self {
        Attention { context, ..self }
    }

    /// Elements of this rank's keys in a row, as many as of its values: K·D.
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_size
    }
    /// Pairs of a query and a key that this rank multiplies: B·A·S·(S+1)/2, or B·A·S² where attention is not causal; ÷ C.
    pub const fn pairs(&self) -> f64 {
        let (queries, s) = (self.lse_len() as f64, self.sequence as f64);
        if self.causal { queries * (s + 1.0) / 2.0 } else { queries * s }
    }
    /// Rows of the packed input: batch × sequence ÷ context-parallel ranks.
    pub const fn rows(&self) -> usize {
        self.batch * self.sequence.div_ceil(self.context)
    }
    /// Elements of all this rank's heads in a row: A·D.
    pub const fn width(&self) -> usize {
        self.heads * self.head_size
    }
    /// Elements of the log-sum-exp kept for the backward pass, one per (batch, head, position), always fp32 or wider.
    pub const fn lse_len(&self) -> usize {
        self.rows() * self.heads
    }
    /// What the scores are multiplied by before the softmax: 1/√D.
    pub fn scale(&self) -> f64 {
        1.0 / (self.head_size as f64).sqrt()
    }
}

/// Rows × columns of a row-wise operation (layer normalisation, softmax, …).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rows {
    /// Number of rows, each handled by itself.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

impl Rows {
    /// Elements of all rows together.
    pub const fn len(&self) -> usize {
        self.rows * self.cols
    }
    /// Whether there is no element at all.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// 2-D convolution, channels last (NHWC): x is N×H×W×C, w is K×(R·R·C) with R the square kernel's side, y is N×H'×W'×K.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Images: N.
    pub batch: usize,
    /// Rows of the input image: H.
    pub height: usize,
    /// Columns of the input image: W.
    pub width: usize,
    /// Channels of the input: C.
    pub in_channels: usize,
    /// Channels of the output: K.
    pub out_channels: usize,
    /// Side of the square kernel: R.
    pub kernel: usize,
    /// Input positions between two output positions, both ways.
    pub stride: usize,
    /// Zeros around the image, on every side.
    pub padding: usize,
}

impl Conv {
    /// Rows of the output image: H'.
    pub const fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel) / self.stride + 1
    }
    /// Columns of the output image: W'.
    pub const fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel) / self.stride + 1
    }
    /// Elements of the input.
    pub const fn in_len(&self) -> usize {
        self.batch * self.height * self.width * self.in_channels
    }
    /// Elements of the output.
    pub const fn out_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }
    /// Elements of the kernels: K·R·R·C.
    pub const fn weight_len(&self) -> usize {
        self.out_channels * self.patch()
    }
    /// Elements of one receptive field: R·R·C.
    pub const fn patch(&self) -> usize {
        self.kernel * self.kernel * self.in_channels
    }
    /// Elements of the workspace every convolution call needs (the unfolded input).
    pub const fn workspace_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.patch()
    }
}

/// Group normalisation over N×(H·W)×C with `groups` groups of channels, affine per channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupNorm {
    /// Images: N.
    pub batch: usize,
    /// Positions of an image: H·W.
    pub positions: usize,
    /// Channels: C.
    pub channels: usize,
    /// Groups the channels are divided into.
    pub groups: usize,
}

impl GroupNorm {
    /// Elements of all images together: N·H·W·C.
    pub const fn len(&self) -> usize {
        self.batch * self.positions * self.channels
    }
    /// Whether there is no element at all.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Number of means, and as many reciprocal deviations, that are kept: one per (image, group).
    pub const fn stats_len(&self) -> usize {
        self.batch * self.groups
    }
}

/// Global average pooling: x is N×positions×C, y is N×C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Images: N.
    pub batch: usize,
    /// Positions that become one: H·W.
    pub positions: usize,
    /// Channels: C.
    pub channels: usize,
}

/// One LSTM cell step for `rows` sequences of `hidden` units; gates stand in the order input, forget, cell, output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LstmCell {
    /// Number of sequences.
    pub rows: usize,
    /// Units of the cell.
    pub hidden: usize,
}

/// Embedding lookup: `out[r] = table[token[r]] + positions[r mod sequence]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Embedding {
    /// Tokens looked up: batch × sequence.
    pub rows: usize,
    /// Positions of a sequence.
    pub sequence: usize,
    /// Rows of the table.
    pub vocabulary: usize,
    /// Elements of a row.
    pub hidden: usize,
}
