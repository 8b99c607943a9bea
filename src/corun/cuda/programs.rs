//! What runs on the two streams, by name: the GPT layer or a probe as the main; a small model, a pressure kernel or nothing
//! as the side. Names and parameters are those of the host's programs, so that records of both read alike.

use super::side::SideProgram;
use crate::Result;
use crate::corun::load::Load;
use crate::corun::mains::MainSpec;
use crate::models::{SideSpec, side_model};
use crate::ops::Ops;
use crate::ops::cuda::{Cuda, Pressure, PressureKernel, PressureResource};
use crate::shape::LayerShape;
use serde_json::{Map, Value};
use std::fmt;

/// Slices of a probe's pass, about a millisecond, and of a pressure's step, about a fifth of one.
const PROBE_SLICES: u32 = 20;
const SIDE_SLICES: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamMain {
    Forward(LayerShape),
    /// To inputs, then to weights.
    Backward(LayerShape),
    /// A fixed amount of a pressure kernel: what it suffers is the side's pressure on that resource.
    Probe(PressureResource),
}

impl StreamMain {
    pub const fn shape(&self) -> Option<&LayerShape> {
        match self {
            StreamMain::Forward(shape) | StreamMain::Backward(shape) => Some(shape),
            StreamMain::Probe(_) => None,
        }
    }

    /// The host's main of the same layer.
    const fn layer(&self) -> Option<MainSpec> {
        match self {
            StreamMain::Forward(shape) => Some(MainSpec::Forward(*shape)),
            StreamMain::Backward(shape) => Some(MainSpec::Backward(*shape)),
            StreamMain::Probe(_) => None,
        }
    }

    /// `gpt-h4096-a32-s2048-b4-t1-bf16-forward`, `probe-memory`.
    pub fn name(&self) -> String {
        match self {
            StreamMain::Probe(resource) => format!("probe-{}", resource.name()),
            _ => self.layer().map_or(String::new(), |layer| layer.name()),
        }
    }

    pub fn params(&self) -> Map<String, Value> {
        if let Some(layer) = self.layer() {
            return layer.params();
        }
        let mut params = Map::new();
        params.insert("main".into(), self.name().into());
        if let StreamMain::Probe(resource) = self {
            params.insert("resource".into(), resource.name().into());
        }
        params
    }

    /// FLOPs of one pass; `None` where it does none worth counting.
    pub fn flop(&self) -> Option<f64> {
        self.layer().and_then(|layer| layer.flop())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamSide {
    Nothing,
    Model(SideSpec),
    /// On all multiprocessors, all the time.
    Pressure(PressureResource),
}

impl StreamSide {
    /// What its progress is counted in.
    pub const fn unit(&self) -> &'static str {
        match self {
            StreamSide::Nothing => Load::Nothing.unit(),
            StreamSide::Model(spec) => Load::Model(*spec).unit(),
            StreamSide::Pressure(resource) => resource.unit(),
        }
    }

    /// Makes it on its own stream; `None` for nothing.
    pub fn program(self, ops: &mut Cuda) -> Result<Option<SideProgram>> {
        match self {
            StreamSide::Nothing => Ok(None),
            StreamSide::Model(spec) => {
                let mut model = side_model(ops, spec)?;
                let step = move |ops: &mut Cuda| {
                    model.step(ops);
                    Ok(())
                };
                Ok(Some(SideProgram { step: Box::new(step), units: 1.0 }))
            }
            StreamSide::Pressure(resource) => {
                let mut pressure = pressure(ops, resource)?;
                pressure.launch(ops, SIDE_SLICES)?;
                ops.synchronize()?;
                let units = pressure.control().progress() as f64;
                Ok(Some(SideProgram { step: Box::new(move |ops| pressure.launch(ops, SIDE_SLICES)), units }))
            }
        }
    }
}

impl fmt::Display for StreamSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamSide::Nothing => Load::Nothing.fmt(f),
            StreamSide::Model(spec) => spec.fmt(f),
            StreamSide::Pressure(resource) => write!(f, "pressure-{}", resource.name()),
        }
    }
}

/// A pressure kernel on all of the GPU.
pub fn pressure(ops: &Cuda, resource: PressureResource) -> Result<Pressure> {
    let facts = ops.facts();
    Pressure::new(ops.gpu(), PressureKernel::full(resource, facts.sms, facts.l2_bytes))
}

/// Puts one pass of a probe on the stream.
pub fn probe(pressure: &mut Pressure, ops: &mut Cuda) -> Result<()> {
    pressure.launch(ops, PROBE_SLICES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corun::pressure::{PressureSpec, Resource};
    use crate::ops::DType;

    /// The cost model reads these names: they must be the host's.
    #[test]
    fn names_are_the_hosts() {
        let shape = LayerShape::new(64, 4, 16, 1, DType::Bf16);
        let forward = StreamMain::Forward(shape);
        assert_eq!(forward.name(), "gpt-h64-a4-s16-b1-t1-bf16-forward");
        assert_eq!((forward.params(), forward.flop().is_some()), (MainSpec::Forward(shape).params(), true));
        for resource in Resource::ALL {
            let same = PressureResource::parse(resource.name()).unwrap();
            assert_eq!(StreamMain::Probe(same).params(), MainSpec::Probe(resource).params());
            let host = Load::Pressure(PressureSpec::full(resource));
            let side = StreamSide::Pressure(same);
            assert_eq!((side.to_string(), side.unit()), (host.to_string(), host.unit()));
        }
        assert_eq!(StreamSide::Nothing.to_string(), "nothing");
    }
}
