//! A small model's whole training step as a case.

use super::bench::{Bench, LaunchMode, sampling};
use super::check::Comparison;
use super::shared_bench::{BenchState, SharedBench};
use crate::models::{SideModel, SideSpec, side, side_model};
use crate::ops::reference::Reference;
use crate::ops::{DType, Ops};
use crate::records::measurement::{Kind, Verified};
use crate::suite::case::Sampling;
use crate::suite::{Case, CaseInfo, RawSample};
use crate::{Error, Result};

/// Steps whose losses are compared: the second one sees the first one's update.
const CHECKED_STEPS: usize = 2;

pub struct SideCase<R: Bench> {
    info: CaseInfo,
    shared: SharedBench<R>,
    spec: SideSpec,
    how: LaunchMode,
    model: Option<Box<dyn SideModel<R::Ops> + Send>>,
}

impl<R: Bench> SideCase<R> {
    pub fn new(id: String, shared: SharedBench<R>, spec: SideSpec, dtype: DType, how: LaunchMode) -> Self {
        let mut info = CaseInfo::new(id, Kind::Layer, R::BACKEND)
            .param("side", spec.to_string())
            .param("model", spec.kind.name())
            .param("batch", spec.batch)
            .param("dtype", dtype.name());
        info.cache = Some(how.cache);
        info.launch = Some(how.launch);
        info.flop = Some(side::step_flop(spec));
        SideCase { info, shared, spec, how, model: None }
    }

    /// Keeps a model that has run.
    fn ready(&mut self, state: &mut BenchState<R>, model: Box<dyn SideModel<R::Ops> + Send>) -> Result<()> {
        self.info.params.insert("memory_bytes".into(), model.memory_bytes().into());
        let model = self.model.insert(model);
        state.bench()?.settle(self.how, &mut |ops| model.step(ops))
    }
}

impl<R: Bench> Case for SideCase<R> {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        sampling::<R>(self.how)
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        state.forget_layer();
        let spec = self.spec;
        let (model, verified) = state.bench()?.within(|ops| -> Result<_> {
            let dtype = ops.dtype();
            let mut model = side_model(ops, spec)?;
            let losses = losses(ops, model.as_mut())?;
            let mut exact = Reference::new();
            let mut reference = side_model(&mut exact, spec)?;
            let against = format!("f64 reference, losses of {CHECKED_STEPS} steps");
            let mut comparison = Comparison::new(against, dtype);
            comparison.tensor(&losses, &self::losses(&mut exact, reference.as_mut())?);
            Ok((model, comparison.finish()))
        })?;
        self.ready(&mut state, model)?;
        Ok(Some(verified))
    }

    fn prepare_again(&mut self) -> Result<Option<Verified>> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        state.forget_layer();
        let spec = self.spec;
        let model = state.bench()?.within(|ops| -> Result<_> {
            let mut model = side_model(ops, spec)?;
            model.step(ops);
            ops.synchronize()?;
            Ok(model)
        })?;
        self.ready(&mut state, model)?;
        Ok(None)
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let unprepared = || Error::machine("a small model is sampled before it is made", "prepare the case first");
        let model = self.model.as_mut().ok_or_else(unprepared)?;
        self.shared.lock().bench()?.time(self.how, n, &mut |ops| model.step(ops))
    }
}

fn losses<O: Ops>(ops: &mut O, model: &mut (dyn SideModel<O> + Send)) -> Result<Vec<f64>> {
    (0..CHECKED_STEPS)
        .map(|_| {
            model.step(ops);
            model.loss(ops)
        })
        .collect()
}
