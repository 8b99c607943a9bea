//! Models by the names their papers gave them.
//!
//! GPT-3 sizes: Brown et al. (arXiv 2005.14165, table 2.1; head counts as released where the table's do not divide the
//! hidden size). Megatron sizes: Narayanan et al. (arXiv 2104.04473, table 1). 22B, 530B and 1T: Korthikanti et al.
//! (arXiv 2205.05198, table 3). Zero Bubble's: Qi et al. (arXiv 2401.10241, table 3).
//! Vocabularies are padded as Megatron-LM does, to a multiple of 1,024.

use crate::{Error, Result, nearest};

/// The shape of a published GPT; its table of origin is named at the top of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPreset {
    /// The name by which a job file asks for the model, e.g. `gpt-22b`.
    pub name: &'static str,
    /// Transformer layers.
    pub layers: u64,
    /// Hidden size: elements of one token's activations between layers.
    pub hidden: u64,
    /// Attention heads of a layer.
    pub heads: u64,
    /// Tokens of one sequence.
    pub sequence: u64,
    /// Rows of the embedding's matrix, padded to a multiple of 1,024.
    pub vocabulary: u64,
}

const fn gpt(name: &'static str, layers: u64, hidden: u64, heads: u64, sequence: u64) -> ModelPreset {
    ModelPreset { name, layers, hidden, heads, sequence, vocabulary: 51_200 }
}

/// Every preset, the smallest model first.
pub const ALL: [ModelPreset; 21] = [
    gpt("gpt-125m", 12, 768, 12, 2048),
    gpt("gpt-350m", 24, 1024, 16, 2048),
    gpt("gpt-760m", 24, 1536, 16, 2048),
    gpt("gpt-1.3b", 24, 2048, 16, 2048),
    gpt("gpt-1.5b-zb", 22, 2304, 24, 1024),
    gpt("gpt-1.7b", 24, 2304, 24, 2048),
    gpt("gpt-2.7b", 32, 2560, 32, 2048),
    gpt("gpt-3.6b", 30, 3072, 32, 2048),
    gpt("gpt-6.2b-zb", 30, 4096, 32, 1024),
    gpt("gpt-6.7b", 32, 4096, 32, 2048),
    gpt("gpt-7.5b", 36, 4096, 32, 2048),
    gpt("gpt-13b", 40, 5120, 40, 2048),
    gpt("gpt-18b", 40, 6144, 48, 2048),
    gpt("gpt-22b", 48, 6144, 64, 2048),
    gpt("gpt-39b", 48, 8192, 64, 2048),
    gpt("gpt-76b", 60, 10_240, 80, 2048),
    gpt("gpt-145b", 80, 12_288, 96, 2048),
    gpt("gpt-175b", 96, 12_288, 96, 2048),
    gpt("gpt-310b", 96, 16_384, 128, 2048),
    gpt("gpt-530b", 105, 20_480, 128, 2048),
    gpt("gpt-1t", 128, 25_600, 160, 2048),
];

/// The preset of this name. Fails if there is none; the error proposes the nearest name.
pub fn find(name: &str) -> Result<ModelPreset> {
    ALL.into_iter().find(|p| p.name == name).ok_or_else(|| {
        Error::input(format!("`{name}` is not a preset"), nearest::cure(name, ALL.iter().map(|p| p.name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Narayanan et al., equation 2: P = 12·l·h²·(1 + 13/(12h) + (V+s)/(12·l·h)).
    #[test]
    fn a_preset_has_about_as_many_parameters_as_its_name_says() {
        for p in ALL {
            let (l, h) = (p.layers as f64, p.hidden as f64);
            let parameters =
                12.0 * l * h * h * (1.0 + 13.0 / (12.0 * h) + (p.vocabulary + p.sequence) as f64 / (12.0 * l * h));
            let size = p.name.trim_start_matches("gpt-").trim_end_matches("-zb");
            let (digits, unit) = size.split_at(size.len() - 1);
            let named = digits.parse::<f64>().unwrap()
                * match unit {
                    "m" => 1e6,
                    "b" => 1e9,
                    _ => 1e12,
                };
            // Padding of the vocabulary weighs most in the smallest.
            let allowed = if named < 2e9 { 0.13 } else { 0.05 };
            assert!((parameters / named - 1.0).abs() < allowed, "{}: {parameters:.3e}", p.name);
            assert_eq!(p.hidden % p.heads, 0, "{}", p.name);
        }
    }
}
