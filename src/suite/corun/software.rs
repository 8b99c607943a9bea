//! The software device's pairs: the code of a GPU's, at sizes that fibers compute in seconds.

use super::streams::Row;
use crate::corun::cuda::Streams;
use crate::corun::load::Load;
use crate::corun::mains::MainSpec;
use crate::models::{SideKind, SideSpec};
use crate::ops::DType;
use crate::shape::LayerShape;
use crate::suite::Preset;

const LAYER: LayerShape = LayerShape::new(128, 2, 48, 1, DType::Bf16);

pub fn rows(preset: Preset) -> Vec<Row> {
    let model = |kind, batch| Load::Model(SideSpec { kind, batch });
    let forward = |streams, side| Row { streams, main: MainSpec::Forward(LAYER), side };
    let mlp = model(SideKind::Mlp, 2);
    let quick = vec![
        forward(Streams::Priority, Load::Nothing),
        forward(Streams::Priority, mlp),
        forward(Streams::Plain, Load::Nothing),
        forward(Streams::Plain, mlp),
    ];
    if preset == Preset::Quick {
        return quick;
    }
    let more = [
        forward(Streams::Priority, model(SideKind::Convnet, 1)),
        forward(Streams::Plain, model(SideKind::Gpt, 1)),
        Row { streams: Streams::Plain, main: MainSpec::Backward(LAYER), side: mlp },
    ];
    quick.into_iter().chain(more).collect()
}
