//! A phase of a whole layer as a case.

use super::bench::{Bench, LaunchMode, sampling};
use super::shared_bench::SharedBench;
use crate::Result;
use crate::records::measurement::{Kind, Verified};
use crate::shape::params::layer_params;
use crate::shape::{LayerShape, Phase};
use crate::suite::case::Sampling;
use crate::suite::{Case, CaseInfo, RawSample};

pub struct LayerCase<R: Bench> {
    info: CaseInfo,
    shared: SharedBench<R>,
    shape: LayerShape,
    phase: Phase,
    how: LaunchMode,
}

impl<R: Bench> LayerCase<R> {
    pub fn new(id: String, shared: SharedBench<R>, shape: LayerShape, phase: Phase, how: LaunchMode) -> Result<Self> {
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

impl<R: Bench> Case for LayerCase<R> {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        sampling::<R>(self.how)
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        let verified = self.shared.lock().verify(self.shape)?;
        self.prepare_again()?;
        Ok(Some(verified))
    }

    fn prepare_again(&mut self) -> Result<Option<Verified>> {
        let mut state = self.shared.lock();
        // Every phase has run once when the layer was made: what the timed one reads is there.
        let (bench, layer) = state.layer(self.shape)?;
        let phase = self.phase;
        bench.settle(self.how, &mut |ops| layer.run(ops, phase))?;
        Ok(None)
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let mut state = self.shared.lock();
        let (bench, layer) = state.layer(self.shape)?;
        let phase = self.phase;
        bench.time(self.how, n, &mut |ops| layer.run(ops, phase))
    }
}
