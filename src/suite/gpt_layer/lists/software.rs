//! The software device's cases: every kernel a GPU's list runs, at sizes that fibers compute in seconds.

use super::{COLD, EndSizes, GRAPH, PRODUCTS, STREAM, STREAMING, loose, operations_of, phases, sides};
use crate::models::{SideKind, SideSpec};
use crate::ops::DType;
use crate::shape::{LayerShape, Phase, Recompute};
use crate::suite::Preset;
use crate::suite::gpt_layer::CaseSpec;

const ENDS: EndSizes = EndSizes { vocabulary: 1000, most_updated: 1 << 14 };

const fn bf16(hidden: u64, heads: u64, sequence: u64, micro_batch: u64) -> LayerShape {
    LayerShape::new(hidden, heads, sequence, micro_batch, DType::Bf16)
}

/// Head sizes 64 and 128, sequences no tile divides.
const LAYERS: [LayerShape; 2] = [bf16(128, 2, 48, 1), bf16(256, 2, 72, 1)];
const VARIANTS: [LayerShape; 4] = [
    bf16(160, 2, 40, 1),
    bf16(192, 2, 33, 2),
    bf16(128, 2, 48, 1).tensor(2),
    bf16(128, 2, 48, 1).recompute(Recompute::Selective),
];

pub fn specs(preset: Preset) -> Vec<CaseSpec> {
    let small = LAYERS[0];
    let quick = [
        LAYERS.iter().flat_map(|shape| phases(*shape, STREAM)).collect(),
        vec![
            CaseSpec::Layer(small, Phase::ForwardBackward, GRAPH),
            CaseSpec::Layer(small, Phase::ForwardBackward, COLD),
        ],
        operations_of(small, &PRODUCTS, STREAM),
        operations_of(small, &["attention"], STREAM),
        operations_of(small, &STREAMING, STREAM),
        operations_of(small, &STREAMING, COLD),
        loose(small, ENDS, STREAM),
        sides([SideSpec { kind: SideKind::Mlp, batch: 2 }], DType::Bf16, STREAM),
    ]
    .concat();
    if preset == Preset::Quick {
        return quick;
    }
    let rest = SideKind::ALL.into_iter().filter(|kind| *kind != SideKind::Mlp);
    let more = VARIANTS.iter().flat_map(|shape| phases(*shape, STREAM));
    quick
        .into_iter()
        .chain(more)
        .chain(sides(rest.map(|kind| SideSpec { kind, batch: 1 }), DType::Bf16, STREAM))
        .collect()
}
