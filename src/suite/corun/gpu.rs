//! A GPU's pairs: the layer's forward, and its backward where there is time, beside the small models, beside pressure
//! on one resource, and beside nothing; and a probe of each resource beside the small models.

use super::streams::StreamPair;
use crate::corun::cuda::{StreamMain, StreamSide, Streams};
use crate::models::{SideKind, SideSpec};
use crate::ops::DType;
use crate::ops::cuda::PressureResource;
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

fn models(specs: impl Iterator<Item = SideSpec>) -> Vec<StreamSide> {
    specs.map(StreamSide::Model).collect()
}

/// Each side in both ways of sharing: what is compared with each other is measured close together.
fn both(main: StreamMain, sides: &[StreamSide]) -> Vec<StreamPair> {
    sides.iter().flat_map(|&side| Streams::ALL.map(|streams| StreamPair { streams, main, side })).collect()
}

/// The main beside nothing and beside the three models.
fn beside(main: StreamMain) -> Vec<StreamPair> {
    both(main, &[vec![StreamSide::Nothing], models(least())].concat())
}

/// The main's sensitivity to each resource.
fn pressed(main: StreamMain) -> Vec<StreamPair> {
    both(main, &PressureResource::ALL.map(StreamSide::Pressure))
}

/// The sides' pressure on each resource, and that of the resource's own program, which sets the scale. What a side asks
/// of a resource hardly depends on the priorities.
fn probes(sides: &[StreamSide]) -> Vec<StreamPair> {
    let of = |resource| {
        let main = StreamMain::Probe(resource);
        let scale = std::iter::once(StreamSide::Pressure(resource));
        let row = move |side| StreamPair { streams: Streams::Plain, main, side };
        sides.iter().copied().chain(scale).map(row).collect::<Vec<_>>()
    };
    PressureResource::ALL.into_iter().flat_map(of).collect()
}

pub fn rows(preset: Preset) -> Vec<StreamPair> {
    let quick = beside(StreamMain::Forward(USUAL));
    if preset == Preset::Quick {
        return quick;
    }
    let backward = StreamMain::Backward(USUAL);
    let standard = [
        quick,
        pressed(StreamMain::Forward(USUAL)),
        beside(backward),
        beside(StreamMain::Forward(SMALL)),
        probes(&models(least())),
    ]
    .concat();
    if preset == Preset::Standard {
        return standard;
    }
    let lstm = SideSpec { kind: SideKind::Lstm, batch: SideKind::Lstm.usual_batch() };
    let more = models(std::iter::once(lstm).chain(least().map(|side| SideSpec { batch: 2 * side.batch, ..side })));
    [
        standard,
        both(StreamMain::Forward(USUAL), &more),
        pressed(backward),
        beside(StreamMain::Backward(SMALL)),
        beside(StreamMain::Forward(WIDE)),
        beside(StreamMain::Backward(WIDE)),
        probes(&more).into_iter().filter(|row| matches!(row.side, StreamSide::Model(_))).collect(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::corun::streams;
    use std::collections::HashSet;

    fn ids(preset: Preset) -> Vec<String> {
        streams::specs(rows(preset)).iter().map(|spec| spec.id()).collect()
    }

    #[test]
    fn the_lists_keep_their_sizes_and_names() {
        let (quick, standard, full) = (ids(Preset::Quick), ids(Preset::Standard), ids(Preset::Full));
        assert_eq!((quick.len(), standard.len()), (8, 60));
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
            let mains: Vec<LayerShape> = rows(preset).iter().filter_map(|row| row.main.shape().copied()).collect();
            let changes = mains.windows(2).filter(|w| w[0] != w[1]).count();
            assert_eq!(changes + 1, mains.iter().collect::<HashSet<_>>().len());
        }
    }
}
