//! What runs on the two streams, by name: the GPT layer, one product or a probe as the main; a small model, an all-reduce, a
//! pressure kernel or nothing as the side. Names and parameters are those of the host's programs, so that records of both read alike.

use super::side::SideProgram;
use crate::Result;
use crate::collectives::nccl;
use crate::corun::load::Load;
use crate::corun::mains::MainSpec;
use crate::models::{SideSpec, side_model};
use crate::ops::cuda::{Cuda, CudaPressure, PressureKernel, PressureResource};
use crate::ops::work::{Epilogue, Operation, Product};
use crate::ops::{Linear, Ops};
use crate::shape::LayerShape;
use crate::units::format_bytes;
use serde_json::{Map, Value};
use std::fmt;
use std::time::Duration;

/// Slices of a probe's pass, about a millisecond, and of a pressure's step, about a fifth of one.
const PROBE_SLICES: u32 = 20;
const SIDE_SLICES: u32 = 4;

/// What runs as the main on its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamMain {
    /// The forward pass of one GPT layer.
    Forward(LayerShape),
    /// The backward pass of one GPT layer, to inputs and then to weights.
    Backward(LayerShape),
    /// A fixed amount of a pressure kernel: what it suffers is the side's pressure on that resource.
    Probe(PressureResource),
    /// One matrix product in bf16: what an all-reduce beside it takes of the multiprocessors shows cleanest there.
    Product(Linear),
}

impl StreamMain {
    /// The shape of the layer; `None` where the main is no layer.
    pub const fn shape(&self) -> Option<&LayerShape> {
        match self {
            StreamMain::Forward(shape) | StreamMain::Backward(shape) => Some(shape),
            StreamMain::Probe(_) | StreamMain::Product(_) => None,
        }
    }

    /// The product as a single operation; `None` for every other main.
    pub const fn product(&self) -> Option<Operation> {
        match *self {
            StreamMain::Product(shape) => {
                Some(Operation::Linear { product: Product::Forward, shape, epilogue: Epilogue::None })
            }
            _ => None,
        }
    }

    /// The host's main of the same layer.
    const fn layer(&self) -> Option<MainSpec> {
        match self {
            StreamMain::Forward(shape) => Some(MainSpec::Forward(*shape)),
            StreamMain::Backward(shape) => Some(MainSpec::Backward(*shape)),
            StreamMain::Probe(_) | StreamMain::Product(_) => None,
        }
    }

    /// The name as it stands in case names: `gpt-h4096-a32-s2048-b4-t1-bf16-forward`, `probe-memory`,
    /// `product-r8192-i8192-o8192-bf16`.
    pub fn name(&self) -> String {
        match self {
            StreamMain::Probe(resource) => format!("probe-{}", resource.name()),
            StreamMain::Product(p) => format!("product-r{}-i{}-o{}-bf16", p.rows, p.inputs, p.outputs),
            _ => self.layer().map_or(String::new(), |layer| layer.name()),
        }
    }

    /// The main's own parameters as they stand in the record: name, then the layer's shape and phase, the resource, or
    /// the product's sizes and type.
    pub fn params(&self) -> Map<String, Value> {
        if let Some(layer) = self.layer() {
            return layer.params();
        }
        let mut params = Map::new();
        params.insert("main".into(), self.name().into());
        if let StreamMain::Probe(resource) = self {
            params.insert("resource".into(), resource.name().into());
        }
        if let StreamMain::Product(shape) = self {
            for (name, value) in [("rows", shape.rows), ("inputs", shape.inputs), ("outputs", shape.outputs)] {
                params.insert(name.into(), value.into());
            }
            params.insert("dtype".into(), "bf16".into());
        }
        params
    }

    /// FLOPs of one pass; `None` for a probe, which does none worth counting.
    pub fn flop(&self) -> Option<f64> {
        let product = self.product().map(|operation| operation.flop());
        product.or_else(|| self.layer().and_then(|layer| layer.flop()))
    }
}

/// What runs as the side on its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamSide {
    /// No side: the main beside nothing, which is the noise floor.
    Nothing,
    /// A small model that trains, counted in training steps.
    Model(SideSpec),
    /// A pressure kernel on all multiprocessors, at work all the time.
    Pressure(PressureResource),
    /// NCCL's all-reduce with other GPUs, counted in operations.
    AllReduce(AllReduceSide),
}

/// An all-reduce in bf16 between this GPU and the next ones, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AllReduceSide {
    /// Ranks, each on a GPU of its own; rank 0 is on the GPU of the pair.
    pub ranks: u32,
    /// Size of each rank's buffer in bytes.
    pub bytes: u64,
    /// Thread blocks, and so multiprocessors, that it takes on each GPU; `None` leaves the number to NCCL.
    pub ctas: Option<u32>,
}

/// Longest wait of a rank for the others.
const DEADLINE: Duration = Duration::from_secs(30);

impl AllReduceSide {
    fn program(self, ops: &Cuda) -> Result<SideProgram> {
        let first = u32::try_from(ops.stream().context().ordinal()).unwrap_or(0);
        let devices: Vec<u32> = (0..self.ranks).map(|rank| (first + rank) % self.ranks.max(1)).collect();
        let mut put = nccl::all_reduce_beside(&devices, self.bytes, self.ctas, DEADLINE)?;
        let step = move |ops: &mut Cuda| put(ops.stream().cu_stream());
        Ok(SideProgram { step: Box::new(step), units: 1.0 })
    }
}

impl StreamSide {
    /// The unit that its progress is counted in: `nothing`, `steps`, `operations`, or what the pressure kernel counts.
    pub const fn unit(&self) -> &'static str {
        match self {
            StreamSide::Nothing => Load::Nothing.unit(),
            StreamSide::Model(spec) => Load::Model(*spec).unit(),
            StreamSide::Pressure(resource) => resource.unit(),
            StreamSide::AllReduce(_) => "operations",
        }
    }

    /// Makes the program on the side's own stream; `None` for [`StreamSide::Nothing`]. An error where memory, a kernel
    /// or NCCL is lacking.
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
            StreamSide::AllReduce(all_reduce) => all_reduce.program(ops).map(Some),
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
            StreamSide::AllReduce(AllReduceSide { ranks, bytes, ctas }) => {
                write!(f, "all_reduce-r{ranks}-bf16-{}", format_bytes(*bytes))?;
                ctas.map_or(Ok(()), |ctas| write!(f, "-c{ctas}"))
            }
        }
    }
}

/// Makes a pressure kernel on all of the GPU; an error where its memory cannot be had.
pub fn pressure(ops: &Cuda, resource: PressureResource) -> Result<CudaPressure> {
    let facts = ops.facts();
    CudaPressure::new(ops.gpu(), PressureKernel::full(resource, facts.sms, facts.l2_bytes))
}

/// Puts one pass of a probe on the main's stream, about a millisecond.
pub fn probe(pressure: &mut CudaPressure, ops: &mut Cuda) -> Result<()> {
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
