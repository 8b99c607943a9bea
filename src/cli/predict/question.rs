//! One question to a cost model: what the options of `predict layer`, `predict collective` and `predict corun` say, and what
//! a line of `predict --batch` says under the same names with underscores. Both are checked here, in one place.

use crate::cli::known::known;
use crate::collectives::{CollectiveOperation, Element};
use crate::corun::cuda::Streams;
use crate::corun::sharing::Sharing;
use crate::cost::predict::{Answer, CollectiveQuery, Predictor, usual_dtype};
use crate::records::CostModel;
use crate::shape::{AttentionKind, DType, LayerShape, Normalization, Positions, Recompute};
use crate::{Error, Result, nearest, units};
use schemars::JsonSchema;
use serde::Deserialize;

/// Name and version of the format of a line of `predict --batch`; the lines themselves do not say it.
pub const SCHEMA: &str = "bubblebench.question/1";

/// One question, as it was asked.
#[derive(Debug, clap::Subcommand, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Question {
    /// A GPT layer's phases for one micro-batch on one tensor-parallel rank
    Layer(LayerQuestion),
    /// A collective or send/recv
    Collective(CollectiveQuestion),
    /// A main beside a side
    Corun(CorunQuestion),
}

/// A layer to predict. What must be given is optional here and checked after the cost model: what is wrong with that is said
/// first.
#[derive(Debug, clap::Args, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LayerQuestion {
    /// Hidden size of the whole layer, in elements (h)
    #[arg(long, value_name = "H")]
    hidden: Option<u64>,
    /// Attention heads of the whole layer (a); they divide the hidden size
    #[arg(long, value_name = "A")]
    heads: Option<u64>,
    /// Length of a sequence, in tokens (s)
    #[arg(long, value_name = "S")]
    sequence: Option<u64>,
    /// Sequences of one micro-batch (b)
    #[arg(long, value_name = "B")]
    micro_batch: Option<u64>,
    /// Tensor-parallel ranks that the layer is divided over (t); the answer is one rank's time
    #[arg(long, value_name = "T", default_value_t = 1)]
    tensor: u64,
    /// Type of activations, parameters and gradients [default: the one measured]
    #[arg(long, value_name = "TYPE", value_parser = known(DType::TRAINED.map(DType::name)))]
    dtype: Option<String>,
    /// What the backward pass computes again: nothing, attention, or the whole forward
    #[arg(long, value_name = "WHAT", default_value = "none", value_parser = known(Recompute::ALL.map(Recompute::name)))]
    recompute: String,
    /// Heads of keys and values of the whole layer (grouped-query attention); they divide the heads [default: as many]
    #[arg(long, value_name = "K")]
    kv_heads: Option<u64>,
    /// Inner width of the MLP of the whole layer, in elements [default: 4 h]
    #[arg(long, value_name = "F")]
    ffn_hidden: Option<u64>,
    /// A gated MLP: its first product is twice as wide, and one half gates the other (SwiGLU)
    #[arg(long)]
    gated: bool,
    /// How rows are normalised
    #[arg(long, value_name = "NORM", default_value = "layernorm", value_parser = known(Normalization::ALL.map(Normalization::name)))]
    norm: String,
    /// How positions come in: added to the embedding, or rotated into queries and keys of every layer
    #[arg(long, value_name = "KIND", default_value = "learned", value_parser = known(Positions::ALL.map(Positions::name)))]
    positions: String,
    /// Products without biases
    #[arg(long)]
    no_bias: bool,
    /// Attention of every position to every other, as in BERT
    #[arg(long)]
    non_causal: bool,
    /// Whether attention is one kernel that keeps its scores on the chip, or they lie in memory
    #[arg(long, value_name = "KIND", default_value = "flash", value_parser = known(AttentionKind::ALL.map(AttentionKind::name)))]
    attention: String,
    /// Normalisations and skip paths divided along the sequence, over the tensor-parallel ranks
    #[arg(long)]
    sequence_parallel: bool,
}

/// A collective or send/recv to predict.
#[derive(Debug, clap::Args, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CollectiveQuestion {
    /// The operation; of send_recv a pattern may be named too, as in send_recv/one_way
    #[arg(long, value_name = "NAME", value_parser = known(CollectiveOperation::ALL.map(|operation| operation.definition().name())))]
    operation: Option<String>,
    /// Ranks that take part (GPUs, or threads of the host)
    #[arg(long, value_name = "N")]
    ranks: Option<u64>,
    /// Nodes that the ranks are spread over
    #[arg(long, value_name = "K", default_value_t = 1)]
    nodes: u64,
    /// Message size as nccl-tests counts it: 65536, 64KiB, 16MiB
    #[arg(long, value_name = "BYTES")]
    bytes: Option<Size>,
    /// One operation synchronised on its own instead of one of a back-to-back run
    #[arg(long)]
    isolated: bool,
    /// Element type [default: any measured]
    #[arg(long, value_name = "TYPE", value_parser = known(Element::ALL.map(Element::name)))]
    dtype: Option<String>,
}

/// A message size: a number of bytes, or as people write it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number of bytes, or a size such as \"16MiB\"")]
pub enum Size {
    /// A number of bytes.
    Bytes(u64),
    /// As people write it: `64KiB`, `16MiB`.
    Written(String),
}

impl From<String> for Size {
    fn from(text: String) -> Self {
        Size::Written(text)
    }
}

/// A main beside a side whose slowdown is to be predicted.
#[derive(Debug, Default, clap::Args, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CorunQuestion {
    /// The main, as it stands in the measurements, e.g. gpt-h512-a8-s256-b1-t1-f32-forward
    #[arg(long, value_name = "ID")]
    main: Option<String>,
    /// The side, e.g. mlp-b32, convnet-b16, pressure-memory
    #[arg(long, value_name = "NAME")]
    side: Option<String>,
    /// How both share the device: free, split and nice on a CPU, stream and priority on a GPU
    #[arg(long, value_name = "MODE", value_parser = known(Sharing::ALL.map(Sharing::name).into_iter().chain(Streams::ALL.map(Streams::name))))]
    sharing: Option<String>,
}

/// How whoever asked spells the names: in what is wrong with a question, they read their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// Options of the command line, `--kv-heads`.
    Options,
    /// Keys of a line of JSON, `kv_heads`.
    Keys,
}

impl Spelling {
    fn name(self, key: &str) -> String {
        match self {
            Spelling::Options => format!("--{}", key.replace('_', "-")),
            Spelling::Keys => key.to_string(),
        }
    }

    /// The value, or an error that says how to give it; `example` is JSON.
    fn required<'a, T>(self, value: &'a Option<T>, key: &str, example: &str) -> Result<&'a T> {
        value.as_ref().ok_or_else(|| {
            let cure = match self {
                Spelling::Options => format!("give it, e.g. {} {}", self.name(key), example.trim_matches('"')),
                Spelling::Keys => format!("give it, e.g. \"{key}\": {example}"),
            };
            Error::input(format!("{} is missing", self.name(key)), cure)
        })
    }

    /// The value of that name; any other text is answered with the nearest one.
    fn one_of<T: Copy>(self, key: &str, text: &str, all: &[T], spelled: fn(T) -> &'static str) -> Result<T> {
        all.iter().copied().find(|value| spelled(*value) == text).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|value| spelled(*value)).collect();
            Error::input(format!("{} {text} is unknown", self.name(key)), nearest::cure(text, names))
        })
    }
}

/// A question that was checked, as far as that goes without asking.
#[derive(Debug)]
pub enum Asked<'a> {
    /// One layer on one rank.
    Layer(LayerShape),
    /// One collective.
    Collective(CollectiveQuery),
    /// Main, side and sharing mode.
    Corun([&'a str; 3]),
}

impl Question {
    /// What is meant; an error says what is wrong with it, in the names of whoever asked.
    pub fn asked(&self, model: &CostModel, spelling: Spelling) -> Result<Asked<'_>> {
        Ok(match self {
            Question::Layer(layer) => Asked::Layer(layer.shape(model, spelling)?),
            Question::Collective(collective) => Asked::Collective(collective.query(spelling)?),
            Question::Corun(corun) => Asked::Corun(corun.names(spelling)?),
        })
    }
}

impl Asked<'_> {
    /// The cost model's answer.
    pub fn answer(&self, by: &Predictor<'_>) -> Result<Answer> {
        Ok(match self {
            Asked::Layer(shape) => Answer::Layer(by.layer(*shape)?),
            Asked::Collective(query) => by.collective(query)?.into(),
            Asked::Corun([main, side, sharing]) => Answer::Corun(by.corun(main, side, sharing)?),
        })
    }
}

impl Default for LayerQuestion {
    /// GPT-3's layer on a single rank, its sizes still to be given.
    fn default() -> Self {
        let [hidden, heads, sequence, micro_batch, kv_heads, ffn_hidden] = [None; 6];
        let [gated, no_bias, non_causal, sequence_parallel] = [false; 4];
        LayerQuestion {
            hidden,
            heads,
            sequence,
            micro_batch,
            tensor: 1,
            dtype: None,
            recompute: Recompute::None.name().into(),
            kv_heads,
            ffn_hidden,
            gated,
            norm: Normalization::Layernorm.name().into(),
            positions: Positions::Learned.name().into(),
            no_bias,
            non_causal,
            attention: AttentionKind::Flash.name().into(),
            sequence_parallel,
        }
    }
}

impl LayerQuestion {
    fn shape(&self, model: &CostModel, spelling: Spelling) -> Result<LayerShape> {
        let plain = LayerShape::new(
            *spelling.required(&self.hidden, "hidden", "1024")?,
            *spelling.required(&self.heads, "heads", "16")?,
            *spelling.required(&self.sequence, "sequence", "512")?,
            *spelling.required(&self.micro_batch, "micro_batch", "1")?,
            self.dtype(model, spelling)?,
        );
        let shape = LayerShape {
            tensor: self.tensor,
            recompute: spelling.one_of("recompute", &self.recompute, &Recompute::ALL, Recompute::name)?,
            kv_heads: self.kv_heads.unwrap_or(plain.kv_heads),
            ffn_hidden: self.ffn_hidden.unwrap_or(plain.ffn_hidden),
            gated: self.gated,
            norm: spelling.one_of("norm", &self.norm, &Normalization::ALL, Normalization::name)?,
            positions: spelling.one_of("positions", &self.positions, &Positions::ALL, Positions::name)?,
            bias: !self.no_bias,
            causal: !self.non_causal,
            attention: spelling.one_of("attention", &self.attention, &AttentionKind::ALL, AttentionKind::name)?,
            sequence_parallel: self.sequence_parallel && self.tensor > 1,
            ..plain
        };
        shape.validate()?;
        Ok(shape)
    }

    /// As given; else the cost model's own.
    fn dtype(&self, model: &CostModel, spelling: Spelling) -> Result<DType> {
        match &self.dtype {
            Some(name) => spelling.one_of("dtype", name, &DType::FLOATS, DType::name),
            None => Ok(usual_dtype(model)),
        }
    }
}

impl Default for CollectiveQuestion {
    /// Within one node, the rest still to be given.
    fn default() -> Self {
        CollectiveQuestion { operation: None, ranks: None, nodes: 1, bytes: None, isolated: false, dtype: None }
    }
}

impl CollectiveQuestion {
    fn query(&self, spelling: Spelling) -> Result<CollectiveQuery> {
        Ok(CollectiveQuery {
            operation: spelling.required(&self.operation, "operation", "\"all_reduce\"")?.clone(),
            ranks: *spelling.required(&self.ranks, "ranks", "8")?,
            nodes: self.nodes,
            bytes: match spelling.required(&self.bytes, "bytes", "\"16MiB\"")? {
                Size::Bytes(bytes) => *bytes,
                Size::Written(text) => units::parse_bytes(text)?,
            },
            isolated: self.isolated,
            dtype: self.dtype.clone(),
        })
    }
}

impl CorunQuestion {
    fn names(&self, spelling: Spelling) -> Result<[&str; 3]> {
        Ok([
            spelling.required(&self.main, "main", "\"gpt-h512-a8-s256-b1-t1-f32-forward\"")?,
            spelling.required(&self.side, "side", "\"mlp-b32\"")?,
            spelling.required(&self.sharing, "sharing", "\"free\"")?,
        ])
    }
}
