//! A small model's whole training step as a case.

use super::check::Comparison;
use super::workshop::Shared;
use crate::clock::{Clock, HostClock};
use crate::models::{SideModel, SideSpec, side, side_model};
use crate::ops::host::Host;
use crate::ops::reference::Reference;
use crate::ops::{DType, Ops};
use crate::records::measurement::{Backend, Kind, Verified};
use crate::suite::{Case, CaseInfo, RawSample};
use crate::{Error, Result};

/// Steps whose losses are compared: the second one sees the first one's update.
const CHECKED_STEPS: usize = 2;

pub struct SideCase {
    info: CaseInfo,
    shared: Shared,
    spec: SideSpec,
    model: Option<Box<dyn SideModel<Host> + Send>>,
}

impl SideCase {
    pub fn new(id: String, shared: Shared, spec: SideSpec) -> Self {
        let mut info = CaseInfo::new(id, Kind::Layer, Backend::Host)
            .param("side", spec.to_string())
            .param("model", spec.kind.name())
            .param("batch", spec.batch)
            .param("dtype", DType::F32.name());
        info.flop = Some(side::step_flop(spec));
        SideCase { info, shared, spec, model: None }
    }
}

impl Case for SideCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        let mut workshop = self.shared.lock();
        workshop.forget_layer();
        let spec = self.spec;
        let (model, verified) = workshop.host()?.run(|host| -> Result<_> {
            let mut model = side_model(host, spec)?;
            let losses = losses(host, model.as_mut())?;
            let mut ops = Reference::new();
            let mut reference = side_model(&mut ops, spec)?;
            let against = format!("f64 reference, losses of {CHECKED_STEPS} steps");
            let mut comparison = Comparison::new(against, DType::F32);
            comparison.tensor(&losses, &self::losses(&mut ops, reference.as_mut())?);
            Ok((model, comparison.finish()))
        })?;
        self.info.params.insert("memory_bytes".into(), model.memory_bytes().into());
        self.model = Some(model);
        Ok(Some(verified))
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let unprepared = || Error::machine("a small model is sampled before it is made", "prepare the case first");
        let model = self.model.as_mut().ok_or_else(unprepared)?;
        let trial = self.shared.lock().host()?.run(|host| {
            HostClock.time(&mut || {
                (0..n).for_each(|_| model.step(host));
                host.synchronize()
            })
        })?;
        Ok(vec![RawSample::new(trial.ns, n)])
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
