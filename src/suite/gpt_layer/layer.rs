//! A phase of a whole layer as a case.

use super::params::layer_params;
use super::rig::{How, Rig, sampling};
use super::workshop::Shared;
use crate::Result;
use crate::records::measurement::{Kind, Verified};
use crate::shape::{LayerShape, Phase};
use crate::suite::case::Sampling;
use crate::suite::{Case, CaseInfo, RawSample};

pub struct LayerCase<R: Rig> {
    info: CaseInfo,
    shared: Shared<R>,
    shape: LayerShape,
    phase: Phase,
    how: How,
}

impl<R: Rig> LayerCase<R> {
    pub fn new(id: String, shared: Shared<R>, shape: LayerShape, phase: Phase, how: How) -> Result<Self> {
        shape.validate()?;
        let mut info = CaseInfo::new(id, Kind::Layer, R::BACKEND);
        info.params = layer_params(&shape, phase);
        info.cache = Some(how.cache);
        info.launch = Some(how.launch);
        info.flop = Some(shape.flop(phase));
        info.bytes = Some(shape.operations(phase).iter().map(|(_, o)| o.bytes(shape.dtype)).sum());
        Ok(LayerCase { info, shared, shape, phase, how })
    }
}

impl<R: Rig> Case for LayerCase<R> {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        sampling::<R>(self.how)
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        let mut workshop = self.shared.lock();
        let verified = workshop.verify(self.shape)?;
        // Every phase has run once when the layer was made: what the timed one reads is there.
        let (rig, layer) = workshop.layer(self.shape)?;
        let phase = self.phase;
        rig.settle(self.how, &mut |ops| layer.run(ops, phase))?;
        Ok(Some(verified))
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let mut workshop = self.shared.lock();
        let (rig, layer) = workshop.layer(self.shape)?;
        let phase = self.phase;
        rig.time(self.how, n, &mut |ops| layer.run(ops, phase))
    }
}
