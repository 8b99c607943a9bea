//! The CPU's cases.

use super::{CALL, EndSizes, PRODUCTS, STREAMING, loose, operations_of, phases, sides};
use crate::models::SideSpec;
use crate::ops::DType;
use crate::records::measurement::{Cache, Launch};
use crate::shape::{LayerShape, Phase, Recompute};
use crate::suite::Preset;
use crate::suite::gpt_layer::CaseSpec;
use crate::suite::gpt_layer::bench::LaunchMode;

pub(in super::super) const COLD: LaunchMode = LaunchMode { cache: Cache::Cold, launch: Launch::Call };
pub(in super::super) const ENDS: EndSizes = EndSizes { vocabulary: 4096, most_updated: 1 << 24 };

pub(in super::super) const fn f32_layer(hidden: u64, heads: u64, sequence: u64, micro_batch: u64) -> LayerShape {
    LayerShape::new(hidden, heads, sequence, micro_batch, DType::F32)
}

/// Layer shapes of the standard preset, all phases each. On two cores a whole pass takes 10 to 110 ms.
const STANDARD: [LayerShape; 10] = [
    f32_layer(256, 4, 128, 1),
    f32_layer(256, 4, 128, 4),
    f32_layer(256, 4, 512, 2),
    f32_layer(512, 8, 128, 2),
    f32_layer(512, 8, 256, 1),
    f32_layer(512, 8, 256, 2).tensor(2),
    f32_layer(512, 8, 512, 1).recompute(Recompute::Selective),
    f32_layer(768, 12, 128, 1).recompute(Recompute::Full),
    f32_layer(768, 12, 256, 1),
    f32_layer(1024, 16, 128, 1),
];

/// Of those, by their place, what the quick preset runs whole, and what it runs as one whole pass only.
const QUICK: [usize; 3] = [0, 1, 3];
const QUICK_WHOLE_PASS: [usize; 2] = [4, 5];

/// What the full preset adds.
const FULL: [LayerShape; 14] = [
    f32_layer(256, 4, 256, 2),
    f32_layer(384, 6, 128, 2),
    f32_layer(256, 4, 1024, 1),
    f32_layer(384, 6, 256, 2),
    f32_layer(512, 8, 512, 2),
    f32_layer(512, 8, 1024, 1),
    f32_layer(512, 4, 256, 4).tensor(4),
    f32_layer(768, 12, 512, 1).tensor(2),
    f32_layer(768, 12, 512, 1).recompute(Recompute::Selective),
    f32_layer(1024, 16, 256, 2).recompute(Recompute::Full),
    f32_layer(1024, 16, 512, 1),
    f32_layer(1024, 8, 512, 1).tensor(2),
    f32_layer(1536, 12, 256, 1),
    f32_layer(2048, 16, 256, 1),
];

pub fn specs(preset: Preset) -> Vec<CaseSpec> {
    [layers(preset), operations(preset), small_models(preset)].concat()
}

fn layers(preset: Preset) -> Vec<CaseSpec> {
    let all = |shape: &LayerShape| phases(*shape, CALL);
    match preset {
        Preset::Quick => {
            let whole = QUICK_WHOLE_PASS.map(|i| CaseSpec::Layer(STANDARD[i], Phase::ForwardBackward, CALL));
            QUICK.iter().flat_map(|&i| all(&STANDARD[i])).chain(whole).collect()
        }
        Preset::Standard => STANDARD.iter().flat_map(all).collect(),
        Preset::Full => STANDARD.iter().chain(&FULL).flat_map(all).collect(),
    }
}

fn operations(preset: Preset) -> Vec<CaseSpec> {
    match preset {
        Preset::Quick => [
            operations_of(STANDARD[2], &["fc1"], CALL),
            operations_of(STANDARD[3], &["qkv"], CALL),
            operations_of(STANDARD[9], &["projection"], CALL),
            operations_of(STANDARD[0], &["attention", "ln1", "residual1"], CALL),
            operations_of(STANDARD[4], &["attention"], CALL),
        ]
        .concat(),
        Preset::Standard => [
            operations_of(STANDARD[0], &["attention", "ln1", "residual1"], CALL),
            operations_of(STANDARD[2], &PRODUCTS, CALL),
            operations_of(STANDARD[2], &["attention", "ln1", "residual1"], CALL),
            operations_of(STANDARD[3], &PRODUCTS, CALL),
            operations_of(STANDARD[4], &["attention"], CALL),
            operations_of(STANDARD[6], &["attention"], CALL),
            operations_of(STANDARD[8], &STREAMING, CALL),
            operations_of(STANDARD[9], &PRODUCTS, CALL),
            loose(STANDARD[0], ENDS, CALL),
            operations_of(STANDARD[2], &STREAMING, COLD),
        ]
        .concat(),
        Preset::Full => {
            let every = || STANDARD.iter().chain(&FULL);
            let warm = every()
                .flat_map(|s| [operations_of(*s, &PRODUCTS, CALL), operations_of(*s, &["attention"], CALL)].concat());
            let streaming = every().flat_map(|s| {
                let of = |how| [operations_of(*s, &STREAMING, how), loose(*s, ENDS, how)].concat();
                [of(CALL), of(COLD)].concat()
            });
            warm.chain(streaming).collect()
        }
    }
}

fn small_models(preset: Preset) -> Vec<CaseSpec> {
    let usual = SideSpec::usual();
    let doubled = usual.map(|s| SideSpec { batch: 2 * s.batch, ..s });
    match preset {
        Preset::Quick => sides(usual.into_iter().take(1), DType::F32, CALL),
        Preset::Standard => sides(usual, DType::F32, CALL),
        Preset::Full => sides(usual.into_iter().chain(doubled), DType::F32, CALL),
    }
}
