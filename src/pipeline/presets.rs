//! Models by the names their papers gave them.
//!
//! GPT-3 sizes: Brown et al. (arXiv 2005.14165, table 2.1; head counts as released where the table's do not divide the
//! hidden size). Megatron sizes: Narayanan et al. (arXiv 2104.04473, table 1). 22B, 530B and 1T: Korthikanti et al.
//! (arXiv 2205.05198, table 3). Zero Bubble's: Qi et al. (arXiv 2401.10241, table 3). BLOOM: Le Scao et al. (arXiv
//! 2211.05100, table 3), with its 250,680 tokens padded to 250,880. Llama 2: Touvron et al. (arXiv 2307.09288) and the
//! released configurations. Llama 3: Dubey et al. (arXiv 2407.21783, table 3).
//! GPT vocabularies are padded as Megatron-LM does, to a multiple of 1,024.

use crate::shape::{Normalization, Positions};
use crate::{Error, Result, nearest};

/// The shape of a published model; its table of origin is named at the top of this module.
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
    /// Heads of keys and values of a layer.
    pub kv_heads: u64,
    /// Inner width of the MLP.
    pub ffn_hidden: u64,
    /// Whether the MLP is gated.
    pub gated: bool,
    /// How rows are normalised.
    pub norm: Normalization,
    /// How positions come in; ALiBi, which costs next to nothing, counts as `learned`.
    pub positions: Positions,
    /// Whether the products add biases.
    pub bias: bool,
    /// Whether embedding and head are one matrix.
    pub tied: bool,
    /// Tokens of one sequence.
    pub sequence: u64,
    /// Rows of the embedding's matrix, padding included.
    pub vocabulary: u64,
}

const fn gpt(name: &'static str, layers: u64, hidden: u64, heads: u64, sequence: u64) -> ModelPreset {
    ModelPreset {
        name,
        layers,
        hidden,
        heads,
        kv_heads: heads,
        ffn_hidden: 4 * hidden,
        gated: false,
        norm: Normalization::Layernorm,
        positions: Positions::Learned,
        bias: true,
        tied: true,
        sequence,
        vocabulary: 51_200,
    }
}

const fn llama(like: ModelPreset, kv_heads: u64, ffn_hidden: u64, vocabulary: u64) -> ModelPreset {
    ModelPreset {
        kv_heads,
        ffn_hidden,
        gated: true,
        norm: Normalization::Rmsnorm,
        positions: Positions::Rotary,
        bias: false,
        tied: false,
        vocabulary,
        ..like
    }
}

/// Every preset: GPTs, the smallest first, then the other families.
pub const ALL: [ModelPreset; 28] = [
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
    ModelPreset { vocabulary: 250_880, ..gpt("bloom-176b", 70, 14_336, 112, 2048) },
    llama(gpt("llama2-7b", 32, 4096, 32, 4096), 32, 11_008, 32_000),
    llama(gpt("llama2-13b", 40, 5120, 40, 4096), 40, 13_824, 32_000),
    llama(gpt("llama2-70b", 80, 8192, 64, 4096), 8, 28_672, 32_000),
    llama(gpt("llama3-8b", 32, 4096, 32, 8192), 8, 14_336, 128_256),
    llama(gpt("llama3-70b", 80, 8192, 64, 8192), 8, 28_672, 128_256),
    llama(gpt("llama3-405b", 126, 16_384, 128, 8192), 8, 53_248, 128_256),
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
    use crate::shape::{DType, LayerShape};

    /// Layers, embedding, and head where it is a matrix of its own. For a GPT that is Narayanan et al.'s equation 2.
    #[test]
    fn a_preset_has_about_as_many_parameters_as_its_name_says() {
        for p in ALL {
            let plain = LayerShape::new(p.hidden, p.heads, p.sequence, 1, DType::Bf16);
            let shape = if p.gated { plain.llama(p.kv_heads, p.ffn_hidden) } else { plain };
            let matrices = if p.tied { 1 } else { 2 };
            let positions = if p.positions == Positions::Learned { p.sequence } else { 0 };
            let parameters = (p.layers * shape.parameters() + (matrices * p.vocabulary + positions) * p.hidden) as f64;
            let size = p.name.split('-').nth(1).unwrap();
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

    /// Llama-3 8B has 8,030,261,248 parameters, as its released weights count.
    #[test]
    fn a_llama_has_exactly_its_parameters() {
        let p = find("llama3-8b").unwrap();
        let layer = LayerShape::new(p.hidden, p.heads, 1, 1, DType::Bf16).llama(p.kv_heads, p.ffn_hidden).parameters();
        assert_eq!(p.layers * layer + 2 * p.vocabulary * p.hidden + p.hidden, 8_030_261_248);
    }
}
