//! A GPU's cases, bf16. The standard preset holds the shapes that people publish for other implementations (the layer
//! at seven sizes, attention at 16,384 tokens a call, streaming kernels at 8,192 rows), so that every row but dropout's and the fused sum's has its peer.

use super::{COLD, EndSizes, GRAPH, PRODUCTS, STREAM, STREAMING, loose, loose_named, operations_of, phases, sides};
use crate::models::SideSpec;
use crate::ops::DType;
use crate::shape::{LayerShape, Phase, Recompute};
use crate::suite::Preset;
use crate::suite::gpt_layer::CaseSpec;

const ENDS: EndSizes = EndSizes { vocabulary: 51_200, most_updated: 1 << 27 };

const fn bf16(hidden: u64, heads: u64, sequence: u64, micro_batch: u64) -> LayerShape {
    LayerShape::new(hidden, heads, sequence, micro_batch, DType::Bf16)
}

/// Small ones first: what a run that is cut short has done is worth most.
const LAYERS: [LayerShape; 7] = [
    bf16(1024, 16, 2048, 4),
    bf16(4096, 32, 2048, 4),
    bf16(2304, 24, 1024, 6),
    bf16(2048, 16, 2048, 4),
    bf16(6144, 48, 2048, 2),
    bf16(8192, 64, 2048, 1),
    bf16(12288, 96, 2048, 1),
];
/// What a tensor-parallel rank holds, and layers that recompute.
const VARIANTS: [LayerShape; 5] = [
    bf16(4096, 32, 2048, 4).tensor(2),
    bf16(4096, 32, 2048, 4).tensor(4),
    bf16(8192, 64, 2048, 1).tensor(8),
    bf16(2048, 16, 2048, 4).recompute(Recompute::Selective),
    bf16(1024, 16, 2048, 4).recompute(Recompute::Full),
];
const MORE: [LayerShape; 10] = [
    bf16(1024, 16, 1024, 1),
    bf16(1024, 16, 512, 16),
    bf16(2048, 32, 1024, 8),
    bf16(2560, 32, 2048, 2),
    bf16(4096, 16, 4096, 1),
    bf16(4096, 32, 8192, 1),
    bf16(5120, 40, 2048, 2),
    bf16(6144, 64, 2048, 1).tensor(8),
    bf16(12288, 96, 2048, 1).tensor(8),
    bf16(8192, 64, 4096, 1).recompute(Recompute::Selective),
];

/// 16,384 tokens a call at hidden 2048: (heads, sequence).
fn attention(heads: u64, sequences: &[u64]) -> Vec<CaseSpec> {
    let of = |&sequence: &u64| {
        let shape = bf16(2048, heads, sequence, (16_384 / sequence).max(1));
        operations_of(shape, &["attention"], STREAM)
    };
    sequences.iter().flat_map(of).collect()
}

/// 8,192 rows of each width, and its heads.
const WIDTHS: [(u64, u64); 3] = [(4096, 32), (1024, 16), (12288, 96)];

fn streaming((width, heads): (u64, u64)) -> Vec<CaseSpec> {
    let shape = bf16(width, heads, 2048, 4);
    // Its inner width is the width asked for.
    let inner = bf16(width / 4, width / 256, 2048, 4);
    let of = |how| {
        let whole = ["dropout", "residual_layernorm"].map(|name| loose_named(shape, ENDS, how, name)).concat();
        [operations_of(shape, &STREAMING, how), loose_named(inner, ENDS, how, "gelu"), whole].concat()
    };
    [STREAM, COLD].into_iter().flat_map(of).collect()
}

/// Cross-entropy over 8,192 × 51,200 logits, the embedding, and an update of 2²⁷ parameters.
fn ends() -> Vec<CaseSpec> {
    let (head, big) = (bf16(1024, 16, 2048, 4), bf16(4096, 32, 2048, 4));
    let of = |shape, name| loose_named(shape, ENDS, STREAM, name);
    [of(head, "cross_entropy"), of(head, "embedding"), of(big, "adamw")].concat()
}

pub fn specs(preset: Preset) -> Vec<CaseSpec> {
    match preset {
        Preset::Quick => quick(),
        Preset::Standard => standard(),
        Preset::Full => full(),
    }
}

fn quick() -> Vec<CaseSpec> {
    let whole = |shape| CaseSpec::Layer(shape, Phase::ForwardBackward, GRAPH);
    [
        phases(LAYERS[0], STREAM),
        vec![whole(LAYERS[0])],
        phases(LAYERS[1], STREAM),
        vec![whole(LAYERS[1])],
        attention(16, &[8192, 2048]),
        operations_of(LAYERS[1], &["fc1", "fc2"], STREAM),
        operations_of(LAYERS[1], &STREAMING, STREAM),
        ends(),
        sides(SideSpec::usual(), DType::Bf16, STREAM),
    ]
    .concat()
}

fn standard() -> Vec<CaseSpec> {
    let whole = |shape: &LayerShape| {
        let of = |how| [Phase::Forward, Phase::ForwardBackward].map(|phase| CaseSpec::Layer(*shape, phase, how));
        [phases(*shape, STREAM), of(GRAPH).to_vec(), of(COLD).to_vec()].concat()
    };
    let products = [0, 1, 2, 4].map(|i| operations_of(LAYERS[i], &PRODUCTS, STREAM)).concat();
    [
        LAYERS.iter().flat_map(whole).collect(),
        attention(16, &[8192, 2048, 1024, 4096, 512, 16384]),
        attention(32, &[8192, 2048, 1024, 4096, 512, 16384]),
        WIDTHS.into_iter().flat_map(streaming).collect(),
        ends(),
        products,
        VARIANTS.iter().flat_map(|shape| phases(*shape, STREAM)).collect(),
        sides(SideSpec::usual(), DType::Bf16, STREAM),
    ]
    .concat()
}

fn full() -> Vec<CaseSpec> {
    let every = || LAYERS.iter().chain(&VARIANTS).chain(&MORE);
    let operations = every().flat_map(|shape| {
        let of = |how| [operations_of(*shape, &STREAMING, how), loose(*shape, ENDS, how)].concat();
        [operations_of(*shape, &PRODUCTS, STREAM), operations_of(*shape, &["attention"], STREAM), of(STREAM), of(COLD)]
            .concat()
    });
    let more = MORE.iter().flat_map(|shape| phases(*shape, STREAM));
    let doubled = SideSpec::usual().map(|s| SideSpec { batch: 2 * s.batch, ..s });
    standard().into_iter().chain(more).chain(operations).chain(sides(doubled, DType::Bf16, STREAM)).collect()
}
