//! The software device's pairs: the code of a GPU's, at sizes that fibers compute in seconds.

use super::streams::StreamPair;
use crate::corun::cuda::{StreamMain, StreamSide, Streams};
use crate::models::{SideKind, SideSpec};
use crate::ops::DType;
use crate::ops::cuda::PressureResource;
use crate::shape::LayerShape;
use crate::suite::Preset;

const LAYER: LayerShape = LayerShape::new(128, 2, 48, 1, DType::Bf16);

pub fn rows(preset: Preset) -> Vec<StreamPair> {
    let model = |kind, batch| StreamSide::Model(SideSpec { kind, batch });
    let forward = |streams, side| StreamPair { streams, main: StreamMain::Forward(LAYER), side };
    let mlp = model(SideKind::Mlp, 2);
    let quick = vec![
        forward(Streams::Priority, StreamSide::Nothing),
        forward(Streams::Priority, mlp),
        forward(Streams::Plain, StreamSide::Nothing),
        forward(Streams::Plain, mlp),
    ];
    if preset == Preset::Quick {
        return quick;
    }
    let more = [
        forward(Streams::Priority, model(SideKind::Convnet, 1)),
        forward(Streams::Plain, model(SideKind::Gpt, 1)),
        StreamPair { streams: Streams::Plain, main: StreamMain::Backward(LAYER), side: mlp },
        forward(Streams::Plain, StreamSide::Pressure(PressureResource::Fma)),
        StreamPair { streams: Streams::Plain, main: StreamMain::Probe(PressureResource::Fma), side: mlp },
        StreamPair {
            streams: Streams::Plain,
            main: StreamMain::Probe(PressureResource::Fma),
            side: StreamSide::Pressure(PressureResource::Fma),
        },
    ];
    quick.into_iter().chain(more).collect()
}
