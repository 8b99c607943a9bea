//! A GPU's pairs: the layer's forward, and its backward where there is time, beside the small models and beside nothing.

use super::streams::Row;
use crate::corun::cuda::Streams;
use crate::corun::load::Load;
use crate::corun::mains::MainSpec;
use crate::models::{SideKind, SideSpec};
use crate::ops::DType;
use crate::shape::LayerShape;
use crate::suite::Preset;

const fn bf16(hidden: u64, heads: u64, sequence: u64, micro_batch: u64) -> LayerShape {
    LayerShape::new(hidden, heads, sequence, micro_batch, DType::Bf16)
}

/// The layer of every preset: some 5 ms forward on an H200, each of its products many waves of blocks.
const USUAL: LayerShape = bf16(4096, 32, 2048, 4);
/// A small one, whose products leave multiprocessors free at their ends.
const SMALL: LayerShape = bf16(1024, 16, 2048, 4);
const WIDE: LayerShape = bf16(8192, 64, 2048, 1);

fn least() -> impl Iterator<Item = SideSpec> + Clone {
    [SideKind::Mlp, SideKind::Convnet, SideKind::Gpt]
        .into_iter()
        .map(|kind| SideSpec { kind, batch: kind.usual_batch() })
}

/// The main beside nothing and beside each, both ways of sharing: what is compared with each other is measured close together.
fn beside(main: MainSpec, sides: impl Iterator<Item = SideSpec> + Clone) -> Vec<Row> {
    let all = std::iter::once(Load::Nothing).chain(sides.map(Load::Model));
    all.flat_map(|side| Streams::ALL.map(|streams| Row { streams, main, side })).collect()
}

pub fn rows(preset: Preset) -> Vec<Row> {
    let quick = beside(MainSpec::Forward(USUAL), least());
    let more = || [beside(MainSpec::Backward(USUAL), least()), beside(MainSpec::Forward(SMALL), least())].concat();
    match preset {
        Preset::Quick => quick,
        Preset::Standard => [quick, more()].concat(),
        Preset::Full => {
            let other = |side: &SideSpec| side.kind == SideKind::Lstm;
            let lstm = SideSpec::usual().into_iter().filter(other);
            let doubled = least().map(|side| SideSpec { batch: 2 * side.batch, ..side });
            let rest: Vec<Row> = beside(MainSpec::Forward(USUAL), lstm.chain(doubled))
                .into_iter()
                .filter(|row| row.side != Load::Nothing)
                .collect();
            let layers = [
                beside(MainSpec::Backward(SMALL), least()),
                beside(MainSpec::Forward(WIDE), least()),
                beside(MainSpec::Backward(WIDE), least()),
            ];
            [quick, rest, more(), layers.concat()].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Platform, corun};
    use std::collections::HashSet;

    fn ids(preset: Preset) -> Vec<String> {
        corun::cases(preset, Platform::Gpu(0)).iter().map(|spec| spec.id()).collect()
    }

    #[test]
    fn the_lists_keep_their_sizes_and_names() {
        let (quick, standard, full) = (ids(Preset::Quick), ids(Preset::Standard), ids(Preset::Full));
        assert_eq!((quick.len(), standard.len()), (8, 24));
        assert!(standard.iter().all(|id| full.contains(id)) && quick.iter().all(|id| standard.contains(id)));
        assert_eq!(full.iter().collect::<HashSet<_>>().len(), full.len(), "no name twice");
        for id in [
            "corun/priority/gpt-h4096-a32-s2048-b4-t1-bf16-forward+convnet-b16",
            "corun/stream/gpt-h4096-a32-s2048-b4-t1-bf16-forward+mlp-b32",
            "corun/stream/gpt-h4096-a32-s2048-b4-t1-bf16-forward+gpt-b2",
            "corun/priority/gpt-h4096-a32-s2048-b4-t1-bf16-forward+nothing",
            "corun/stream/gpt-h4096-a32-s2048-b4-t1-bf16-forward+nothing",
        ] {
            assert!(quick.iter().any(|q| q == id), "{id}");
        }
    }

    /// Mains follow each other by shape, so that each layer is made once (in quick and standard).
    #[test]
    fn a_layer_is_made_once() {
        for preset in [Preset::Quick, Preset::Standard] {
            let mains: Vec<LayerShape> = rows(preset).iter().map(|row| shape(row.main)).collect();
            let changes = mains.windows(2).filter(|w| w[0] != w[1]).count();
            assert_eq!(changes + 1, mains.iter().collect::<HashSet<_>>().len());
        }
    }

    fn shape(main: MainSpec) -> LayerShape {
        match main {
            MainSpec::Forward(shape) | MainSpec::Backward(shape) => shape,
            MainSpec::Probe(_) => panic!("no probes here"),
        }
    }
}
