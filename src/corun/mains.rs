//! The main of a pair: a phase of the GPT layer, or a probe (a fixed piece of a pressure program) that says how hard a side
//! presses on one resource.

use super::pressure::{HostPressure, PIECES, PressureSpec, Resource};
use crate::Result;
use crate::models::gpt::Layer;
use crate::ops::Ops;
use crate::ops::host::{Host, HostConfig};
use crate::shape::{LayerShape, Phase};
use serde_json::{Map, Value};

/// Pieces of a probe, a thread: some 5 ms of work, longer than the system lets one thread run at a stretch.
const fn probe_pieces(resource: Resource) -> usize {
    match resource {
        Resource::Fma | Resource::Cache => 5 * PIECES,
        Resource::Memory => 16 * PIECES,
    }
}

const SEED: u64 = 0x3a1;

/// What runs as the main of a pair on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MainSpec {
    /// The forward pass of one GPT layer.
    Forward(LayerShape),
    /// The backward pass of one GPT layer, to inputs and then to weights.
    Backward(LayerShape),
    /// A fixed amount of a pressure program, some 5 ms: what it suffers is the side's pressure on that resource.
    Probe(Resource),
}

impl MainSpec {
    /// The name as it stands in case names: `gpt-h512-a8-s128-b1-t1-f32-forward`, `probe-memory`.
    pub fn name(&self) -> String {
        match self {
            MainSpec::Forward(shape) => format!("gpt-{}-forward", shape.slug()),
            MainSpec::Backward(shape) => format!("gpt-{}-backward", shape.slug()),
            MainSpec::Probe(resource) => format!("probe-{}", resource.name()),
        }
    }

    /// The main's own parameters as they stand in the record: name, then the layer's shape and phase, or the resource.
    pub fn params(&self) -> Map<String, Value> {
        let (mut of_kind, phase) = match self {
            MainSpec::Probe(resource) => (Map::new(), ("resource", resource.name())),
            MainSpec::Forward(shape) => (shape.params(), ("phase", "forward")),
            MainSpec::Backward(shape) => (shape.params(), ("phase", "backward")),
        };
        of_kind.insert(phase.0.to_string(), phase.1.into());
        let name = [("main".to_string(), Value::from(self.name()))];
        name.into_iter().chain(of_kind).collect()
    }

    /// FLOPs of one run; `None` for a probe, which does none worth counting.
    pub fn flop(&self) -> Option<f64> {
        match self {
            MainSpec::Forward(shape) => Some(shape.flop(Phase::Forward)),
            MainSpec::Backward(shape) => Some(shape.flop(Phase::BackwardInput) + shape.flop(Phase::BackwardWeight)),
            MainSpec::Probe(_) => None,
        }
    }
}

enum Work {
    Forward(Box<Layer<Host>>),
    Backward(Box<Layer<Host>>),
    Probe(HostPressure, usize),
}

impl Work {
    fn run(&mut self, ops: &mut Host) -> Result<()> {
        match self {
            Work::Forward(layer) => layer.forward(ops),
            Work::Backward(layer) => {
                layer.backward_input(ops);
                layer.backward_weight(ops);
            }
            Work::Probe(pressure, pieces) => pressure.work(*pieces),
        }
        ops.synchronize()
    }
}

/// A main that is ready to run on its own threads.
pub struct Main {
    host: Host,
    work: Work,
}

impl Main {
    /// Makes the main and runs it once; an error where the shape is not valid, or threads or memory cannot be had. The
    /// cache size, in bytes, sets a probe's working set.
    pub fn new(spec: MainSpec, config: HostConfig, last_level_cache_bytes: u64) -> Result<Self> {
        let threads = config.threads;
        let mut host = Host::new(config)?;
        let work = match spec {
            MainSpec::Forward(shape) => Work::Forward(Box::new(Layer::new(&mut host, shape, SEED)?)),
            MainSpec::Backward(shape) => {
                let mut layer = Layer::new(&mut host, shape, SEED)?;
                layer.zero_gradients(&mut host);
                layer.forward(&mut host);
                Work::Backward(Box::new(layer))
            }
            MainSpec::Probe(resource) => {
                let pressure = HostPressure::new(PressureSpec::full(resource), threads, last_level_cache_bytes)?;
                Work::Probe(pressure, probe_pieces(resource))
            }
        };
        let mut main = Main { host, work };
        main.within(|run| run())?;
        Ok(main)
    }

    /// Hands `body` a function that does one whole run; both run on the main's own threads, so that a run starts without
    /// a hop.
    pub fn within<R: Send>(&mut self, body: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> R + Send) -> R {
        let Main { host, work } = self;
        host.run(|ops| body(&mut || work.run(ops)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DType;

    #[test]
    fn names_say_what_runs() {
        let shape = LayerShape::new(64, 4, 16, 1, DType::F32);
        assert_eq!(MainSpec::Forward(shape).name(), "gpt-h64-a4-s16-b1-t1-f32-forward");
        assert_eq!(MainSpec::Backward(shape).params()["phase"], "backward");
        assert_eq!(MainSpec::Probe(Resource::Fma).params()["resource"], "fma");
        let (forward, backward) = (MainSpec::Forward(shape).flop().unwrap(), MainSpec::Backward(shape).flop().unwrap());
        assert!(backward > 1.9 * forward && backward < 2.6 * forward);
    }

    #[test]
    fn every_main_runs_on_its_own_threads() {
        let shape = LayerShape::new(64, 4, 16, 1, DType::F32);
        for spec in [MainSpec::Forward(shape), MainSpec::Backward(shape), MainSpec::Probe(Resource::Cache)] {
            let mut main = Main::new(spec, HostConfig { threads: 2, cores: None, nice: None }, 1 << 20).unwrap();
            main.within(|run| run().and_then(|()| run())).unwrap();
        }
    }
}
