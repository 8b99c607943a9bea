//! The features a time is a sum of: their names in `cost_model.json`, and their values for an operation or a layer.
//!
//! A fit is t = Σ coefficient_ns · feature, corrected near measured cases ([`super::anchors`]); a reader of the file needs
//! nothing but this table and the one of sizes (docs/cost-model.md):
//!
//! | feature | value |
//! |---|---|
//! | `1` | 1: the fixed cost of asking |
//! | `flop` | floating-point operations, a multiply-add counts two |
//! | `bytes` | bytes read and written at least once |
//! | `bytes_over_N` | bytes beyond the first N: what no cache of N bytes holds |
//! | `m*k`, `n*k`, `m*n` | elements of the product's two inputs and its output (m×k · k×n) |
//! | `weights` | elements of the linear layer's weights, inputs · outputs: the largest of the three where rows are few |
//! | `gelu_elements` | elements a GELU, or its derivative, is applied to in the product's epilogue |
//! | `padded_flop_N` | flop of the product with m and n rounded up to whole tiles of N |
//! | `wave_flop_N_sS` | ⌈tiles of N×N ÷ S⌉ · S tiles' flop: a last wave over S SMs costs as much as a full one |
//! | `pairs` | query–key pairs of attention: B·A·S·(S+1)/2, or B·A·S² where it is not causal; of a layer phase its attention's FLOPs ÷ (4 · head size), pairs of a forward |
//! | `product_flop` | a layer phase: `flop` of its linear layers' products |
//! | `operations_ns` | a layer phase: Σ of its operations' predicted times |
//! | `phases_ns` | forward + backward_input + backward_weight of the same layer |

use crate::records::Measurement;
use crate::records::measurement::{Backend, Cache};
use crate::shape::operation::{Epilogue, Family, Operation, Product};
use crate::shape::{Attention, DType, Linear};
use crate::{Error, Result};

/// A quantity that a time is a sum of: t = Σ coefficient_ns · feature. Its name in `cost_model.json` is given with
/// each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// `1`: the constant 1, for the fixed cost of an operation.
    One,
    /// `flop`: floating-point operations, where a multiply-add counts two.
    Flop,
    /// `bytes`: bytes read and written at least once.
    Bytes,
    /// `bytes_over_N`: bytes beyond the first N, which no cache of N bytes holds.
    BytesOver(u64),
    /// `m*k`: elements of the left input of the product m×k · k×n.
    LeftElements,
    /// `n*k`: elements of the right input of the product m×k · k×n.
    RightElements,
    /// `m*n`: elements of the output of the product m×k · k×n.
    OutputElements,
    /// `weights`: elements of the linear layer's weights, whichever of the three products they are in.
    Weights,
    /// `gelu_elements`: elements that a GELU or its derivative is applied to in the product's epilogue.
    GeluElements,
    /// `padded_flop_N`: FLOPs of the product with m and n rounded up to whole tiles of N.
    PaddedFlop(u64),
    /// `wave_flop_N_sS`: FLOPs of the product with its tiles rounded up to whole waves over all SMs: a last wave costs
    /// as much as a full one.
    WaveFlop {
        /// Width and height N of a tile of the output, in elements.
        tile: u64,
        /// Number S of SMs that a wave is spread over.
        sms: u64,
    },
    /// `pairs`: query–key pairs of attention, B·A·S·(S+1)/2, or B·A·S² where it is not causal; of a layer phase those
    /// of as many forward passes as its attention costs FLOPs.
    Pairs,
    /// `product_flop`: FLOPs of the products of a layer phase's linear layers.
    ProductFlop,
    /// `operations_ns`: sum of the predicted times of a layer phase's operations, in ns.
    OperationsNs,
    /// `phases_ns`: forward, backward to inputs and backward to weights of the same layer together, in ns.
    PhasesNs,
}

impl Feature {
    const PLAIN: [(Feature, &'static str); 12] = [
        (Feature::One, "1"),
        (Feature::Flop, "flop"),
        (Feature::Bytes, "bytes"),
        (Feature::LeftElements, "m*k"),
        (Feature::RightElements, "n*k"),
        (Feature::OutputElements, "m*n"),
        (Feature::Weights, "weights"),
        (Feature::GeluElements, "gelu_elements"),
        (Feature::Pairs, "pairs"),
        (Feature::ProductFlop, "product_flop"),
        (Feature::OperationsNs, "operations_ns"),
        (Feature::PhasesNs, "phases_ns"),
    ];

    /// Name of the feature in `cost_model.json`.
    pub fn name(&self) -> String {
        match self {
            Feature::BytesOver(bytes) => format!("bytes_over_{bytes}"),
            Feature::PaddedFlop(tile) => format!("padded_flop_{tile}"),
            Feature::WaveFlop { tile, sms } => format!("wave_flop_{tile}_s{sms}"),
            plain => Self::PLAIN.iter().find(|(f, _)| f == plain).map_or("", |(_, name)| name).to_string(),
        }
    }

    /// The feature with this name in `cost_model.json`. Returns an error if the name is unknown.
    pub fn parse(name: &str) -> Result<Feature> {
        let plain = Self::PLAIN.iter().find(|(_, n)| *n == name).map(|(f, _)| *f);
        let number = |prefix: &str| name.strip_prefix(prefix)?.parse::<u64>().ok().filter(|&n| n > 0);
        let wave = || {
            let (tile, sms) = name.strip_prefix("wave_flop_")?.split_once("_s")?;
            let (tile, sms) = (tile.parse().ok()?, sms.parse().ok()?);
            (tile > 0 && sms > 0).then_some(Feature::WaveFlop { tile, sms })
        };
        plain
            .or_else(|| number("bytes_over_").map(Feature::BytesOver))
            .or_else(|| number("padded_flop_").map(Feature::PaddedFlop))
            .or_else(wave)
            .ok_or_else(|| {
                Error::input(
                    format!("the cost model has a feature `{name}` this version does not know"),
                    "make it again with `bubblebench fit`, or use the version that wrote it",
                )
            })
    }

    /// Value of the feature for one operation or one phase of a layer.
    pub fn value(&self, work: &FeatureInput) -> f64 {
        let [m, n, k] = work.mnk;
        match self {
            Feature::One => 1.0,
            Feature::Flop => work.flop,
            Feature::Bytes => work.bytes,
            Feature::BytesOver(cache) => (work.bytes - *cache as f64).max(0.0),
            Feature::LeftElements => m * k,
            Feature::RightElements => n * k,
            Feature::OutputElements => m * n,
            Feature::Weights => work.weights,
            Feature::GeluElements => work.gelu_elements,
            Feature::PaddedFlop(tile) => {
                let t = *tile as f64;
                2.0 * (m / t).ceil() * t * (n / t).ceil() * t * k
            }
            Feature::WaveFlop { tile, sms } => {
                let (t, s) = (*tile as f64, *sms as f64);
                2.0 * ((m / t).ceil() * (n / t).ceil() / s).ceil() * s * t * t * k
            }
            Feature::Pairs => work.pairs,
            Feature::ProductFlop => work.product_flop,
            Feature::OperationsNs => work.operations_ns,
            Feature::PhasesNs => work.phases_ns,
        }
    }
}

/// The quantities that the features are computed from, of one operation or one phase of a layer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeatureInput {
    /// Floating-point operations, where a multiply-add counts two.
    pub flop: f64,
    /// Bytes read and written at least once.
    pub bytes: f64,
    /// Sizes m, n and k of the product m×k · k×n; 0 where the operation is no product.
    pub mnk: [f64; 3],
    /// Elements that a GELU or its derivative is applied to in the product's epilogue; 0 where there is none.
    pub gelu_elements: f64,
    /// Elements of the linear layer's weights; 0 where the operation is no product.
    pub weights: f64,
    /// Query–key pairs of attention; 0 for other operations. Of a layer phase its attention's FLOPs ÷ (4 · head size).
    pub pairs: f64,
    /// FLOPs of the products of a layer phase's linear layers; 0 for a single operation.
    pub product_flop: f64,
    /// Rows of a layer's activations, B·S; 0 for a single operation.
    pub rows: f64,
    /// Query–key pairs of a layer's attention, whichever phase is asked for; 0 for a single operation.
    pub attention_pairs: f64,
    /// Sequences · heads, sequence length and head size of attention; 0 for other operations.
    pub attention: [f64; 3],
    /// Sum of the predicted times of a layer phase's operations, in ns; 0 for a single operation.
    pub operations_ns: f64,
    /// Times of the three phases of a layer together, in ns; 0 except for `forward_backward`.
    pub phases_ns: f64,
}

impl FeatureInput {
    /// The quantities of a single operation with elements of `dtype`.
    pub fn of(operation: &Operation, dtype: DType) -> FeatureInput {
        let mut work =
            FeatureInput { flop: operation.flop(), bytes: operation.bytes(dtype), ..FeatureInput::default() };
        match operation {
            Operation::Linear { product, shape, epilogue } => {
                let (rows, inputs, outputs) = (shape.rows as f64, shape.inputs as f64, shape.outputs as f64);
                work.mnk = match product {
                    Product::Forward => [rows, outputs, inputs],
                    Product::ToInputs => [rows, inputs, outputs],
                    Product::ToWeights => [outputs, inputs, rows],
                };
                work.weights = inputs * outputs;
                if matches!(epilogue, Epilogue::BiasGelu | Epilogue::GeluBackward) {
                    work.gelu_elements = work.mnk[0] * work.mnk[1];
                }
            }
            Operation::AttentionForward(a) | Operation::AttentionBackward(a) => {
                work.pairs = a.pairs();
                work.attention = [(a.batch * a.heads) as f64, a.sequence as f64, a.head_size as f64];
            }
            _ => {}
        }
        work
    }
}

/// Names of the sizes in which a product is near another.
pub const PRODUCT_SIZES: &[&str] = &["m", "n", "k"];
/// Names of the sizes in which attention is near another.
pub const ATTENTION_SIZES: &[&str] = &["batch*heads", "sequence", "head_size"];
/// Names of the sizes in which a streaming operation is near another of its name.
pub const STREAMING_SIZES: &[&str] = &["bytes"];
/// Names of the sizes in which a layer phase is near another: how many rows there are, what there is to do for one, and how
/// many keys it meets. The last is the layer's, not the phase's: where a whole backward time was divided between the phases,
/// attention has its share in both.
pub const LAYER_SIZES: &[&str] = &["rows", "product_flop/rows", "attention_pairs/rows"];

/// The size of that name, by which near and far are told; `None` if the name is unknown.
pub fn size(name: &str, work: &FeatureInput) -> Option<f64> {
    let ([m, n, k], [heads, sequence, head_size]) = (work.mnk, work.attention);
    let rows = work.rows.max(1.0);
    Some(match name {
        "m" => m,
        "n" => n,
        "k" => k,
        "batch*heads" => heads,
        "sequence" => sequence,
        "head_size" => head_size,
        "bytes" => work.bytes,
        "rows" => work.rows,
        "product_flop/rows" => work.product_flop / rows,
        "attention_pairs/rows" => work.attention_pairs / rows,
        _ => return None,
    })
}

/// The sizes of those names, which are among the constants above.
pub fn sizes(names: &[&'static str], work: &FeatureInput) -> Vec<f64> {
    names.iter().filter_map(|name| size(name, work)).collect()
}

/// A single operation as a measurement describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredOperation {
    /// Whether it is a product, attention or a streaming operation.
    pub family: Family,
    /// Name within the family: `forward`, `layernorm/forward`, …
    pub name: String,
    /// Element type that it was measured in.
    pub dtype: DType,
    /// Whether it was timed with cold caches.
    pub cold: bool,
    /// The quantities that its features are computed from.
    pub work: FeatureInput,
    /// Name, element type and sizes of the operation: records with the same key are the same case.
    pub key: String,
    /// Its sizes by name, for the ranges in `valid`.
    pub sizes: Vec<(&'static str, f64)>,
}

impl MeasuredOperation {
    /// Reads the operation from a record; `None` for a product or an attention that is not a known one with its
    /// sizes, and for a streaming operation (of whatever name) without bytes.
    pub fn of(record: &Measurement) -> Option<Self> {
        let name = record.param_str("operation")?.to_string();
        let dtype = dtype_of(record);
        let (family, work, sizes) = match record.param_str("family")? {
            "gemm" => linear(record, dtype)?,
            "attention" => attention(record, &name, dtype)?,
            "streaming" => streaming(record)?,
            _ => return None,
        };
        let numbers: Vec<String> = sizes.iter().map(|(_, v)| v.to_string()).collect();
        let key = format!("{name}/{}/{}/{}", dtype.name(), numbers.join("x"), work.gelu_elements);
        Some(MeasuredOperation { family, name, dtype, cold: record.cache == Some(Cache::Cold), work, key, sizes })
    }
}

type Parsed = (Family, FeatureInput, Vec<(&'static str, f64)>);

fn linear(record: &Measurement, dtype: DType) -> Option<Parsed> {
    let product = [Product::Forward, Product::ToInputs, Product::ToWeights]
        .into_iter()
        .find(|p| Some(p.name()) == record.param_str("product").or(record.param_str("operation")))?;
    let size = |name| record.param_u64(name).filter(|&v| v > 0);
    let (rows, inputs, outputs) = (size("rows")?, size("inputs")?, size("outputs")?);
    let shape = Linear::new(rows as usize, inputs as usize, outputs as usize);
    let gelu = record.param_str("epilogue").is_some_and(|e| e.to_ascii_lowercase().contains("gelu"));
    let epilogue = match (gelu, product) {
        (true, Product::Forward) => Epilogue::BiasGelu,
        (true, Product::ToInputs) => Epilogue::GeluBackward,
        _ => Epilogue::None,
    };
    let work = FeatureInput::of(&Operation::Linear { product, shape, epilogue }, dtype);
    Some((Family::Gemm, work, vec![("rows", rows as f64), ("inputs", inputs as f64), ("outputs", outputs as f64)]))
}

fn attention(record: &Measurement, name: &str, dtype: DType) -> Option<Parsed> {
    let size = |name| record.param_u64(name).filter(|&v| v > 0);
    let (batch, heads) = (size("batch")?, size("heads")?);
    let (sequence, head_size) = (size("sequence")?, size("head_size")?);
    let kv_heads = size("kv_heads").unwrap_or(heads);
    let causal = record.params.get("causal").and_then(serde_json::Value::as_bool).unwrap_or(true);
    let shape = Attention::new(batch as usize, heads as usize, sequence as usize, head_size as usize)
        .grouped(kv_heads as usize)
        .causal(causal);
    let operation = match name {
        "forward" => Operation::AttentionForward(shape),
        "backward" => Operation::AttentionBackward(shape),
        _ => return None,
    };
    let sizes = [("batch", batch), ("heads", heads), ("sequence", sequence), ("head_size", head_size)];
    let sizes = sizes.map(|(name, value)| (name, value as f64)).to_vec();
    Some((Family::Attention, FeatureInput::of(&operation, dtype), sizes))
}

fn streaming(record: &Measurement) -> Option<Parsed> {
    let bytes = record.bytes.filter(|b| b.is_finite() && *b > 0.0)?;
    let work = FeatureInput { flop: record.flop.unwrap_or(0.0), bytes, ..FeatureInput::default() };
    Some((Family::Streaming, work, vec![("bytes", bytes)]))
}

/// Element type of a record: the parameter where the record has it; else the last part of the layer's name in the id;
/// else f32 on the host and bf16 on CUDA.
pub fn dtype_of(record: &Measurement) -> DType {
    let from_id = || record.id.split('/').nth(1)?.rsplit('-').find_map(DType::parse);
    record.param_str("dtype").and_then(DType::parse).or_else(from_id).unwrap_or(match record.backend {
        Backend::Host => DType::F32,
        Backend::Cuda => DType::Bf16,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::Kind;

    #[test]
    fn names_go_both_ways() {
        let some = [Feature::BytesOver(4096), Feature::PaddedFlop(128), Feature::WaveFlop { tile: 128, sms: 132 }];
        for feature in Feature::PLAIN.iter().map(|(f, _)| *f).chain(some) {
            assert_eq!(Feature::parse(&feature.name()).unwrap(), feature);
        }
        for wrong in ["", "2", "bytes_over_", "bytes_over_0", "wave_flop_0_s1", "wave_flop_1", "padded_flop_x"] {
            assert!(Feature::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tiles_and_waves_round_up() {
        let work = FeatureInput { mnk: [129.0, 128.0, 10.0], ..FeatureInput::default() };
        assert_eq!(Feature::PaddedFlop(128).value(&work), 2.0 * 256.0 * 128.0 * 10.0);
        // two tiles on one SM: two waves; on four SMs: one wave that costs four tiles
        assert_eq!(Feature::WaveFlop { tile: 128, sms: 1 }.value(&work), 2.0 * 2.0 * 128.0 * 128.0 * 10.0);
        assert_eq!(Feature::WaveFlop { tile: 128, sms: 4 }.value(&work), 2.0 * 4.0 * 128.0 * 128.0 * 10.0);
        assert_eq!(Feature::BytesOver(100).value(&FeatureInput { bytes: 60.0, ..FeatureInput::default() }), 0.0);
        assert_eq!(Feature::BytesOver(100).value(&FeatureInput { bytes: 160.0, ..FeatureInput::default() }), 60.0);
    }

    #[test]
    fn a_record_and_its_operation_have_the_same_features() {
        let shape = Linear::new(64, 32, 128);
        let operation = Operation::Linear { product: Product::ToInputs, shape, epilogue: Epilogue::GeluBackward };
        let mut record =
            Measurement::blank("gpt/h32-a4-s64-b1-t1-f32/op/fc2/backward_input", Kind::Operation, Backend::Host);
        let params = [("operation", "backward_input"), ("family", "gemm"), ("epilogue", "gelu_backward")];
        params.iter().for_each(|(k, v)| drop(record.params.insert((*k).into(), (*v).into())));
        for (name, value) in [("rows", 64), ("inputs", 32), ("outputs", 128)] {
            record.params.insert(name.into(), value.into());
        }
        let measured = MeasuredOperation::of(&record).unwrap();
        assert_eq!(measured.work, FeatureInput::of(&operation, DType::F32));
        assert_eq!(measured.work.mnk, [64.0, 32.0, 128.0]);
        assert_eq!(measured.dtype, DType::F32);
        record.params.insert("rows".into(), 0.into());
        assert_eq!(MeasuredOperation::of(&record), None);
    }

    #[test]
    fn attention_pairs_are_the_lower_triangle() {
        let a = Attention::new(2, 3, 4, 8);
        assert_eq!(FeatureInput::of(&Operation::AttentionForward(a), DType::F32).pairs, 6.0 * 10.0);
    }
}
