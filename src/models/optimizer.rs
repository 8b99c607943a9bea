//! AdamW and SGD over a model's parameters, with their state.
//!
//! Small models step it after every backward pass; `Ops` does the arithmetic.

use super::builder::Builder;
use super::pieces::Parameter;
use super::state::StateTensor;
use crate::Result;
use crate::ops::{AdamW, DType, Ops, Sgd};

/// The rule by which parameters are updated from their gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// AdamW (Loshchilov & Hutter, arXiv 1711.05101); only weight matrices decay.
    AdamW(AdamW),
    /// SGD with momentum, without decay.
    Sgd(Sgd),
}

/// What the rule keeps of one parameter.
struct State<B> {
    /// AdamW's first moment, or SGD's velocity.
    first: B,
    /// AdamW's second moment.
    second: Option<B>,
    /// The fp32 copy of a narrower parameter.
    master: Option<B>,
}

/// An update rule, with the state that it keeps of each parameter of a model.
pub struct Optimizer<B> {
    rule: Rule,
    states: Vec<State<B>>,
}

impl<B> Optimizer<B> {
    /// Continues behind `steps` steps: AdamW corrects its moments by the number of the step.
    pub fn set_steps(&mut self, steps: u64) {
        if let Rule::AdamW(config) = &mut self.rule {
            config.step = u32::try_from(steps.saturating_add(1)).unwrap_or(u32::MAX);
        }
    }

    /// The tensors that it keeps of the parameters, which must be those that it was made for: `<parameter>.momentum`
    /// of SGD, `<parameter>.exp_avg` and `<parameter>.exp_avg_sq` of AdamW, `<parameter>.master` where a parameter is
    /// narrower than fp32.
    pub fn tensors<'a>(&'a mut self, parameters: &[&Parameter<B>]) -> Vec<StateTensor<'a, B>> {
        let first_name = if matches!(self.rule, Rule::AdamW(_)) { "exp_avg" } else { "momentum" };
        let mut tensors = Vec::new();
        for (state, p) in self.states.iter_mut().zip(parameters) {
            let State { first, second, master } = state;
            let held = [(first_name, Some(first)), ("exp_avg_sq", second.as_mut()), ("master", master.as_mut())];
            for (role, buffer) in held {
                let named = |buffer| StateTensor { name: format!("{}.{role}", p.name), shape: p.shape(), buffer };
                tensors.extend(buffer.map(named));
            }
        }
        tensors
    }

    /// Makes the state for `parameters`; every later step must be given the same ones in the same order. An error where
    /// the device has no memory for it.
    pub fn new<O: Ops<Buffer = B>>(
        builder: &mut Builder<'_, O>,
        rule: Rule,
        parameters: &[&Parameter<B>],
    ) -> Result<Self> {
        let narrow = builder.ops.dtype().bytes() < DType::F32.bytes();
        let mut states = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            let first = zeros(builder, parameter.len)?;
            let adam = matches!(rule, Rule::AdamW(_));
            let second = if adam { Some(zeros(builder, parameter.len)?) } else { None };
            let master = if adam && narrow { Some(fp32_copy(builder, parameter)?) } else { None };
            states.push(State { first, second, master });
        }
        Ok(Optimizer { rule, states })
    }

    /// Updates each parameter from its gradient; with AdamW the step number then grows by one.
    pub fn step<O: Ops<Buffer = B>>(&mut self, ops: &mut O, parameters: &mut [&mut Parameter<B>]) {
        for (state, p) in self.states.iter_mut().zip(parameters.iter_mut()) {
            match (self.rule, &mut state.second) {
                (Rule::AdamW(config), Some(second)) => {
                    let weight_decay = if p.columns.is_some() { config.weight_decay } else { 0.0 };
                    let config = AdamW { weight_decay, ..config };
                    let (value, gradient) = (&mut p.value, &p.gradient);
                    ops.adamw(p.len, value, state.master.as_mut(), gradient, &mut state.first, second, config);
                }
                (Rule::Sgd(config), _) => ops.sgd(p.len, &mut p.value, &p.gradient, &mut state.first, config),
                (Rule::AdamW(_), None) => {}
            }
        }
        if let Rule::AdamW(config) = &mut self.rule {
            config.step += 1;
        }
    }
}

fn zeros<O: Ops>(builder: &mut Builder<'_, O>, len: usize) -> Result<O::Buffer> {
    let mut buffer = builder.wide(len)?;
    builder.ops.zero(&mut buffer);
    Ok(buffer)
}

fn fp32_copy<O: Ops>(builder: &mut Builder<'_, O>, parameter: &Parameter<O::Buffer>) -> Result<O::Buffer> {
    let values = builder.ops.read(&parameter.value)?;
    let mut master = builder.wide(parameter.len)?;
    builder.ops.write(&mut master, &values)?;
    Ok(master)
}
