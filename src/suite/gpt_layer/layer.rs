//! A phase of a whole layer as a case.

use super::params::layer_params;
use super::workshop::Shared;
use crate::Result;
use crate::clock::{Clock, HostClock};
use crate::ops::Ops;
use crate::records::measurement::{Backend, Kind, Verified};
use crate::shape::{LayerShape, Phase};
use crate::suite::{Case, CaseInfo, RawSample};

pub struct LayerCase {
    info: CaseInfo,
    shared: Shared,
    shape: LayerShape,
    phase: Phase,
}

impl LayerCase {
    pub fn new(id: String, shared: Shared, shape: LayerShape, phase: Phase) -> Result<Self> {
        shape.validate()?;
        let mut info = CaseInfo::new(id, Kind::Layer, Backend::Host);
        info.params = layer_params(&shape, phase);
        info.flop = Some(shape.flop(phase));
        info.bytes = Some(shape.operations(phase).iter().map(|(_, o)| o.bytes(shape.dtype)).sum());
        Ok(LayerCase { info, shared, shape, phase })
    }
}

impl Case for LayerCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        self.shared.lock().verify(self.shape).map(Some)
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let mut workshop = self.shared.lock();
        // Every phase has run once when the layer was made: what the timed one reads is there.
        let (host, layer) = workshop.layer(self.shape)?;
        let phase = self.phase;
        let trial = host.run(|host| {
            HostClock.time(&mut || {
                (0..n).for_each(|_| layer.run(host, phase));
                host.synchronize()
            })
        })?;
        Ok(vec![RawSample::new(trial.ns, n)])
    }
}
