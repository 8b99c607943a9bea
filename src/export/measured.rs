//! The single operations that a cost model keeps as measured: the anchors of its fits. Other cases of its measurements are
//! not in the model.

use crate::Result;
use crate::cost::features::FeatureInput;
use crate::cost::prepared::PreparedFit;
use crate::cost::{predict, valid};
use crate::records::CostModel;
use crate::records::cost_model::{Anchors, Fit};
use crate::shape::operation::{Epilogue, Family, Operation, Product};
use crate::shape::{Attention, DType, Linear};
use std::collections::BTreeMap;

/// A measured operation: its fit's name, its sizes and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredCase {
    /// Which family's fits it corrects.
    pub family: Family,
    /// Name of its fit without type and coldness: `forward`, `backward_input`, `residual`, …
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Whether it was timed with cold caches.
    pub cold: bool,
    /// Its sizes by their names: `m`, `n`, `k`; `batch*heads`, `sequence`, `head_size`; `bytes`.
    pub sizes: Vec<(String, f64)>,
    /// Floating-point operations; 0 of an operation that is known by its bytes alone.
    pub flop: f64,
    /// Bytes read and written at least once.
    pub bytes: f64,
    /// Its measured time, in ns. A product that was measured with a GELU behind it stands without the GELU.
    pub ns: f64,
}

impl MeasuredCase {
    /// The size of that name, rounded to a whole number; 0 where there is none.
    pub fn size(&self, name: &str) -> u64 {
        self.sizes.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| value.round() as u64)
    }
}

/// Every anchor of the model's fits of single operations. Fails if a fit names a feature that is not known.
pub fn cases(model: &CostModel) -> Result<Vec<MeasuredCase>> {
    let fits = &model.operations;
    let tables: [(Family, &BTreeMap<String, Fit>); 3] =
        [(Family::Gemm, &fits.gemm), (Family::Attention, &fits.attention), (Family::Streaming, &fits.streaming)];
    let primary = primary_dtype(model);
    let mut found = Vec::new();
    for (family, table) in tables {
        for (key, fit) in table {
            let Some(anchors) = &fit.anchors else { continue };
            let (name, dtype, cold) = parts(key, primary);
            for point in &anchors.points {
                let Some(work) = work(family, name, dtype, anchors, &point.at) else { continue };
                let plain = Fit { anchors: None, ..fit.clone() };
                found.push(MeasuredCase {
                    family,
                    name: name.to_string(),
                    dtype,
                    cold,
                    sizes: anchors.sizes.iter().cloned().zip(point.at.iter().copied()).collect(),
                    flop: work.flop,
                    bytes: work.bytes,
                    ns: PreparedFit::new(&plain)?.evaluate(&work) * point.ratio,
                });
            }
        }
    }
    Ok(found)
}

/// The type of the fits whose names carry none: one that the model measured and that no fit names; the usual one of several.
pub fn primary_dtype(model: &CostModel) -> DType {
    let fits = &model.operations;
    let named = |dtype: &str| {
        let mut keys = fits.gemm.keys().chain(fits.attention.keys()).chain(fits.streaming.keys());
        keys.any(|key| key.split('/').any(|part| part == dtype))
    };
    let usual = predict::usual_dtype(model);
    let unnamed: Vec<DType> =
        valid::dtypes(&model.valid).into_iter().filter(|name| !named(name)).filter_map(DType::parse).collect();
    if unnamed.contains(&usual) { usual } else { unnamed.first().copied().unwrap_or(usual) }
}

/// Of `layernorm/forward/f32/cold` the name `layernorm/forward`, f32 and true.
fn parts(key: &str, primary: DType) -> (&str, DType, bool) {
    let (key, cold) = key.strip_suffix("/cold").map_or((key, false), |name| (name, true));
    let typed = key.rsplit_once('/').and_then(|(name, dtype)| Some((name, DType::parse(dtype)?)));
    let (name, dtype) = typed.unwrap_or((key, primary));
    (name, dtype, cold)
}

/// What the features of an anchor's operation are computed from; `None` for sizes that are no operation's.
fn work(family: Family, name: &str, dtype: DType, anchors: &Anchors, at: &[f64]) -> Option<FeatureInput> {
    let size = |wanted: &str| {
        let index = anchors.sizes.iter().position(|name| name == wanted)?;
        at.get(index).map(|value| value.round() as usize)
    };
    match family {
        Family::Gemm => {
            let (m, n, k) = (size("m")?, size("n")?, size("k")?);
            let (product, shape) = match name {
                "forward" => (Product::Forward, Linear::new(m, k, n)),
                "backward_input" => (Product::ToInputs, Linear::new(m, n, k)),
                "backward_weight" => (Product::ToWeights, Linear::new(k, n, m)),
                _ => return None,
            };
            Some(FeatureInput::of(&Operation::Linear { product, shape, epilogue: Epilogue::None }, dtype))
        }
        Family::Attention => {
            let shape = Attention::new(1, size("batch*heads")?, size("sequence")?, size("head_size")?);
            let operation = match name {
                "forward" => Operation::AttentionForward(shape),
                "backward" => Operation::AttentionBackward(shape),
                _ => return None,
            };
            Some(FeatureInput::of(&operation, dtype))
        }
        Family::Streaming => Some(FeatureInput { bytes: size("bytes")? as f64, ..FeatureInput::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;
    use crate::records::cost_model::AnchorPoint;

    #[test]
    fn names_come_apart_into_operation_type_and_coldness() {
        assert_eq!(parts("forward", DType::Bf16), ("forward", DType::Bf16, false));
        assert_eq!(parts("layernorm/forward/f32/cold", DType::Bf16), ("layernorm/forward", DType::F32, true));
        assert_eq!(parts("residual/cold", DType::F16), ("residual", DType::F16, true));
    }

    /// 5 µs + FLOPs ÷ (0.78 · 989.4 TFLOP/s), times the anchor's ratio.
    #[test]
    fn an_anchor_is_its_sum_of_features_times_its_ratio() {
        let mut model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        let point = AnchorPoint { at: vec![2048.0, 12_288.0, 4096.0], ratio: 1.25, weight: 0.1 };
        let sizes = ["m", "n", "k"].map(String::from).to_vec();
        let anchors = Anchors { sizes, length: 1.0, nugget: 0.1, points: vec![point] };
        model.operations.gemm.get_mut("forward").unwrap().anchors = Some(anchors);
        let found = cases(&model).unwrap();
        let flop = 2.0 * 2048.0 * 12_288.0 * 4096.0;
        let ns = 1.25 * (5_000.0 + flop / (0.78 * 989.4e3));
        assert!(found.len() == 1 && (found[0].ns / ns - 1.0).abs() < 1e-12, "{found:?} {ns}");
        assert_eq!((found[0].flop, found[0].size("n"), found[0].size("bytes")), (flop, 12_288, 0));
        assert_eq!(found[0].dtype, DType::Bf16);
    }
}
