//! What a small model has learned: parameters, the optimizer's state and the number of steps, taken off the device and put
//! back, so that training goes on elsewhere as if it had never stopped.

use super::SideModel;
use crate::ops::Ops;
use crate::shape::NamedTensor;
use crate::{Error, Result};

/// One tensor of a model, on its device.
pub struct StateTensor<'a, B> {
    /// Its name: `fc1.weight` of a parameter, `fc1.weight.exp_avg` of what the optimizer keeps of it.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Where it lies.
    pub buffer: &'a mut B,
}

/// All that a model's later steps depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelState {
    /// Steps done.
    pub steps: u64,
    /// Parameters, then the optimizer's state; exact for every device whose types are fp32 or narrower.
    pub tensors: Vec<NamedTensor>,
}

impl ModelState {
    /// Takes the state of a model between two steps; an error where the device cannot be read.
    pub fn of<O: Ops>(model: &mut dyn SideModel<O>, ops: &mut O) -> Result<Self> {
        let steps = model.steps();
        let read = |tensor: StateTensor<'_, O::Buffer>| {
            let values = ops.read(tensor.buffer)?.into_iter().map(|value| value as f32).collect();
            Ok(NamedTensor { name: tensor.name, shape: tensor.shape, values })
        };
        Ok(ModelState { steps, tensors: model.tensors().into_iter().map(read).collect::<Result<_>>()? })
    }

    /// Gives the model this state, which was read at `place`; an error where it is another model's, and the model stays as
    /// it was.
    pub fn restore<O: Ops>(&self, model: &mut dyn SideModel<O>, ops: &mut O, place: &str) -> Result<()> {
        let other = |what: String| Error::input(format!("{place} {what}"), "give a checkpoint of this model");
        let mut tensors = model.tensors();
        let own = || tensors.iter().map(|tensor| tensor.name.as_str());
        if let Some(missing) = own().find(|name| self.tensors.iter().all(|held| held.name != *name)) {
            return Err(other(format!("has no tensor `{missing}`")));
        }
        if let Some(more) = self.tensors.iter().find(|held| own().all(|name| held.name != name)) {
            return Err(other(format!("has a tensor `{:.60}`, which the model has not", more.name)));
        }
        let mut pairs = Vec::with_capacity(tensors.len());
        for tensor in &mut tensors {
            let held = self.tensors.iter().find(|held| held.name == tensor.name);
            let held = held.ok_or_else(|| other(format!("has no tensor `{}`", tensor.name)))?;
            if held.shape != tensor.shape {
                let (name, is, wanted) = (&held.name, &held.shape, &tensor.shape);
                return Err(other(format!("has `{name}` of shape {is:?}, the model has {wanted:?}")));
            }
            pairs.push((held, tensor));
        }
        for (held, tensor) in pairs {
            let values: Vec<f64> = held.values.iter().map(|&value| value.into()).collect();
            ops.write(tensor.buffer, &values)?;
        }
        model.set_steps(self.steps);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{SideKind, SideSpec, seeded_side_model};
    use crate::ops::host::{Host, HostConfig};

    fn host() -> Host {
        Host::new(HostConfig { threads: 1, cores: None, nice: None }).unwrap()
    }

    /// 2 · 3 steps, and 3 steps, put into a model of another seed, and 3 more: the same bits.
    #[test]
    fn training_goes_on_from_a_state_bit_by_bit() {
        let mut ops = host();
        for kind in SideKind::ALL {
            let spec = SideSpec { kind, batch: 2 };
            let mut straight = seeded_side_model(&mut ops, spec, 1).unwrap();
            (0..3).for_each(|_| straight.step(&mut ops));
            let middle = ModelState::of(straight.as_mut(), &mut ops).unwrap();
            (0..3).for_each(|_| straight.step(&mut ops));
            let mut resumed = seeded_side_model(&mut ops, spec, 2).unwrap();
            middle.restore(resumed.as_mut(), &mut ops, "a").unwrap();
            (0..3).for_each(|_| resumed.step(&mut ops));
            let (straight, resumed) =
                (ModelState::of(straight.as_mut(), &mut ops), ModelState::of(resumed.as_mut(), &mut ops));
            let (straight, resumed) = (straight.unwrap(), resumed.unwrap());
            assert!(straight == resumed && straight.steps == 6, "{spec}");
            assert_ne!(straight, middle, "{spec}");
        }
    }

    /// A step that is given up before its update leaves no trace.
    #[test]
    fn gradients_alone_change_no_state() {
        let mut ops = host();
        for kind in SideKind::ALL {
            let mut model = seeded_side_model(&mut ops, SideSpec { kind, batch: 2 }, 1).unwrap();
            model.step(&mut ops);
            let before = ModelState::of(model.as_mut(), &mut ops).unwrap();
            model.gradients(&mut ops);
            assert_eq!(ModelState::of(model.as_mut(), &mut ops).unwrap(), before);
        }
    }

    #[test]
    fn a_state_of_another_model_is_refused_and_changes_nothing() {
        let mut ops = host();
        let mut mlp = seeded_side_model(&mut ops, SideSpec { kind: SideKind::Mlp, batch: 2 }, 1).unwrap();
        let mut lstm = seeded_side_model(&mut ops, SideSpec { kind: SideKind::Lstm, batch: 2 }, 1).unwrap();
        let own = ModelState::of(mlp.as_mut(), &mut ops).unwrap();
        let error = own.restore(lstm.as_mut(), &mut ops, "a").unwrap_err().to_string();
        assert!(error.starts_with("a has no tensor `input.weight`"), "{error}");
        let mut more = own.clone();
        more.tensors.push(NamedTensor { name: "fc9.weight".into(), shape: vec![1], values: vec![0.0] });
        assert!(more.restore(mlp.as_mut(), &mut ops, "a").unwrap_err().to_string().contains("`fc9.weight`"));
        let mut other = own.clone();
        other.tensors[0].shape.reverse();
        assert!(other.restore(mlp.as_mut(), &mut ops, "a").unwrap_err().to_string().contains("of shape"));
        assert_eq!(ModelState::of(mlp.as_mut(), &mut ops).unwrap(), own);
    }
}
