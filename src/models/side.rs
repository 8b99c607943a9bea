//! Small models by name, and the training step they share: gradients to zero, forward, backward, update.
//!
//! `suite`, `corun` and `fill` ask [`side_model`] for one and call [`SideModel::step`]; each network says only what its
//! forward and backward passes are.

use super::builder::Builder;
use super::gpt::network::{self, Gpt};
use super::network::Network;
use super::optimizer::{Optimizer, Rule};
use super::state::StateTensor;
use super::{SideModel, convnet, lstm, mlp};
use crate::ops::{AdamW, DType, Ops, Sgd};
use crate::shape::LayerShape;
use crate::{Error, Result, nearest};
use std::fmt;
use std::str::FromStr;

/// The kinds of small model that can run beside the big one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SideKind {
    /// Three linear layers with GELU between them, trained with AdamW.
    Mlp,
    /// A small residual network with group normalisation, trained by SGD with momentum.
    Convnet,
    /// One recurrent layer over a sequence of 32 steps, trained with AdamW.
    Lstm,
    /// A GPT of two small layers, trained with AdamW.
    Gpt,
}

impl SideKind {
    /// All four kinds, in the order in which cases are listed.
    pub const ALL: [SideKind; 4] = [SideKind::Mlp, SideKind::Convnet, SideKind::Lstm, SideKind::Gpt];

    /// The kind as it stands in case names: `mlp`, `convnet`, `lstm` or `gpt`.
    pub const fn name(self) -> &'static str {
        match self {
            SideKind::Mlp => "mlp",
            SideKind::Convnet => "convnet",
            SideKind::Lstm => "lstm",
            SideKind::Gpt => "gpt",
        }
    }

    /// The batch that its case names usually carry.
    pub const fn usual_batch(self) -> usize {
        match self {
            SideKind::Mlp => 32,
            SideKind::Convnet | SideKind::Lstm => 16,
            SideKind::Gpt => 2,
        }
    }

    const fn rule(self) -> Rule {
        match self {
            SideKind::Convnet => Rule::Sgd(Sgd { learning_rate: 0.05, momentum: 0.9 }),
            _ => Rule::AdamW(AdamW {
                learning_rate: 1e-3,
                beta1: 0.9,
                beta2: 0.95,
                epsilon: 1e-8,
                weight_decay: 0.1,
                step: 1,
            }),
        }
    }
}

impl FromStr for SideKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        SideKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let cure = nearest::cure(text, SideKind::ALL.map(SideKind::name));
            Error::input(format!("`{text}` is not a small model"), cure)
        })
    }
}

/// A small model and its batch, written `mlp-b32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SideSpec {
    /// Which small model it is.
    pub kind: SideKind,
    /// Rows, images or sequences of a batch: 1 to 4096.
    pub batch: usize,
}

impl SideSpec {
    /// The four small models, each with its usual batch.
    pub fn usual() -> [SideSpec; 4] {
        SideKind::ALL.map(|kind| SideSpec { kind, batch: kind.usual_batch() })
    }
}

impl fmt::Display for SideSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-b{}", self.kind.name(), self.batch)
    }
}

impl FromStr for SideSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let known = SideSpec::usual().map(|s| s.to_string());
            let cure = nearest::cure(text, known.iter().map(String::as_str));
            let cure = format!("{cure} (any batch from 1 to {MOST_ROWS})");
            Error::input(format!("`{text}` is not a small model"), cure)
        };
        let (name, batch) = text.rsplit_once("-b").ok_or_else(wrong)?;
        let kind = name.parse().map_err(|_| wrong())?;
        let batch = batch.parse().ok().filter(|b| (1..=MOST_ROWS).contains(b)).ok_or_else(wrong)?;
        Ok(SideSpec { kind, batch })
    }
}

/// The largest batch.
pub const MOST_ROWS: usize = 4096;
/// The seed of [`side_model`].
pub const SEED: u64 = 0x51de;

/// A network in training, with its optimizer and its place in the data.
pub struct Trainer<O: Ops, N> {
    name: String,
    network: N,
    optimizer: Optimizer<O::Buffer>,
    step: usize,
    memory_bytes: u64,
}

impl<O: Ops, N: Network<O>> Trainer<O, N> {
    /// Makes the network by `make` with random numbers from `seed`, and the optimizer's state for its parameters; an
    /// error where the device has no memory for them.
    pub fn new(
        ops: &mut O,
        name: String,
        rule: Rule,
        seed: u64,
        make: impl FnOnce(&mut Builder<'_, O>) -> Result<N>,
    ) -> Result<Self> {
        let rounding = if ops.dtype() == DType::F64 { DType::F32 } else { ops.dtype() };
        let mut builder = Builder::new(ops, rounding, seed);
        let network = make(&mut builder)?;
        let optimizer = Optimizer::new(&mut builder, rule, &network.parameters())?;
        Ok(Trainer { name, network, optimizer, step: 0, memory_bytes: builder.bytes() })
    }

    /// The network that is trained.
    pub const fn network(&self) -> &N {
        &self.network
    }

    /// The network that is trained, to be changed between steps.
    pub const fn network_mut(&mut self) -> &mut N {
        &mut self.network
    }
}

impl<O: Ops, N: Network<O>> SideModel<O> for Trainer<O, N> {
    fn name(&self) -> &str {
        &self.name
    }

    fn gradients(&mut self, ops: &mut O) {
        let mut parameters = self.network.parameters_mut();
        parameters.iter_mut().for_each(|p| ops.zero(&mut p.gradient));
        drop(parameters);
        self.network.forward(ops, self.step);
        self.network.backward(ops, self.step);
    }

    fn update(&mut self, ops: &mut O) {
        self.optimizer.step(ops, &mut self.network.parameters_mut());
        self.step += 1;
    }

    fn loss(&mut self, ops: &mut O) -> Result<f64> {
        let losses = ops.read(self.network.losses())?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    }

    fn steps(&self) -> u64 {
        self.step as u64
    }

    fn set_steps(&mut self, steps: u64) {
        self.step = steps as usize;
        self.optimizer.set_steps(steps);
    }

    fn tensors(&mut self) -> Vec<StateTensor<'_, O::Buffer>> {
        let Trainer { network, optimizer, .. } = self;
        let mut held = optimizer.tensors(&network.parameters());
        let own = network.parameters_mut().into_iter();
        let mut all: Vec<_> =
            own.map(|p| StateTensor { name: p.name.clone(), shape: p.shape(), buffer: &mut p.value }).collect();
        all.append(&mut held);
        all
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

/// Makes a small model, ready to step; an error where the device has no memory for it. Sizes are chosen so that a step
/// takes a few milliseconds on two CPU cores and no single operation much of it: a model that fills bubbles must stop
/// between two operations.
pub fn side_model<O: Ops + 'static>(ops: &mut O, spec: SideSpec) -> Result<Box<dyn SideModel<O> + Send>>
where
    O::Buffer: Send + 'static,
{
    seeded_side_model(ops, spec, SEED)
}

/// Makes a small model as [`side_model`] does, its first weights from another seed; the data is the same.
pub fn seeded_side_model<O: Ops + 'static>(
    ops: &mut O,
    spec: SideSpec,
    seed: u64,
) -> Result<Box<dyn SideModel<O> + Send>>
where
    O::Buffer: Send + 'static,
{
    let (name, rule) = (spec.to_string(), spec.kind.rule());
    Ok(match spec.kind {
        SideKind::Mlp => Box::new(Trainer::new(ops, name, rule, seed, |b| mlp::Mlp::new(b, mlp_config(spec.batch)))?),
        SideKind::Convnet => {
            Box::new(Trainer::new(ops, name, rule, seed, |b| convnet::Convnet::new(b, convnet_config(spec.batch)))?)
        }
        SideKind::Lstm => {
            Box::new(Trainer::new(ops, name, rule, seed, |b| lstm::Lstm::new(b, lstm_config(spec.batch)))?)
        }
        SideKind::Gpt => Box::new(Trainer::new(ops, name, rule, seed, |b| Gpt::new(b, gpt_config(spec.batch)))?),
    })
}

/// FLOPs of a small model's training step (products only), without making the model.
pub fn step_flop(spec: SideSpec) -> f64 {
    match spec.kind {
        SideKind::Mlp => mlp_config(spec.batch).flop(),
        SideKind::Convnet => convnet_config(spec.batch).flop(),
        SideKind::Lstm => lstm_config(spec.batch).flop(),
        SideKind::Gpt => gpt_config(spec.batch).flop(),
    }
}

const fn mlp_config(batch: usize) -> mlp::MlpConfig {
    mlp::MlpConfig { batch, inputs: 512, hidden: 640, classes: 10 }
}

const fn convnet_config(batch: usize) -> convnet::ConvnetConfig {
    convnet::ConvnetConfig { batch, side: 32, width: 16, stages: 3, groups: 4, classes: 10 }
}

const fn lstm_config(batch: usize) -> lstm::LstmConfig {
    lstm::LstmConfig { batch, steps: 32, inputs: 64, hidden: 128, classes: 10 }
}

const fn gpt_config(batch: usize) -> network::GptConfig {
    let layer = LayerShape::new(128, 4, 64, batch as u64, DType::F32);
    network::GptConfig { layers: 2, vocabulary: 256, layer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::data::BATCHES;
    use crate::ops::host::Host;
    use crate::ops::reference::Reference;

    #[test]
    fn names_are_read_back() {
        for spec in SideSpec::usual() {
            assert_eq!(spec.to_string().parse::<SideSpec>().unwrap(), spec);
        }
        assert_eq!(SideSpec::usual().map(|s| s.to_string()), ["mlp-b32", "convnet-b16", "lstm-b16", "gpt-b2"]);
    }

    #[test]
    fn wrong_names_are_answered_with_the_list() {
        for text in ["mlp", "mlp-b0", "mlp-bx", "resnet-b4", "", "gpt-b99999999", "mlp-b-1"] {
            let error = text.parse::<SideSpec>().unwrap_err().to_string();
            assert!(error.contains("mlp-b32, convnet-b16, lstm-b16, gpt-b2"), "{error}");
        }
    }

    /// Each of the four models at its usual size, one step of training on the f64 device.
    #[test]
    fn every_model_steps_at_its_usual_size() {
        let mut ops = Reference::new();
        for spec in SideSpec::usual() {
            let mut model = side_model(&mut ops, SideSpec { batch: spec.batch.min(4), ..spec }).unwrap();
            model.step(&mut ops);
            let loss = model.loss(&mut ops).unwrap();
            assert!(loss.is_finite() && loss > 0.0, "{spec}: {loss}");
            assert!(model.memory_bytes() > 100_000);
        }
    }

    /// Loss of the first step and of the last `BATCHES` steps together, so that one easy batch proves nothing.
    fn train<O: Ops + 'static>(ops: &mut O, spec: SideSpec, steps: usize) -> (f64, f64)
    where
        O::Buffer: Send + 'static,
    {
        let mut model = side_model(ops, spec).unwrap();
        let mut losses = Vec::with_capacity(steps);
        for _ in 0..steps {
            model.step(ops);
            losses.push(model.loss(ops).unwrap());
        }
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        (mean(&losses[..BATCHES]), mean(&losses[steps - BATCHES..]))
    }

    #[test]
    fn training_makes_the_loss_fall() {
        let mut host = Host::all_cores().unwrap();
        for spec in SideSpec::usual() {
            let (first, last) = train(&mut host, spec, 60);
            eprintln!("{spec}: {first:.3} → {last:.3}");
            assert!(last < first / 4.0, "{spec}: {first} → {last}");
        }
    }

    /// The same data and start on the f64 device: the losses of the first steps agree, so the updates do.
    #[test]
    fn host_and_reference_train_alike() {
        let (mut host, mut reference) = (Host::all_cores().unwrap(), Reference::new());
        for spec in SideSpec::usual() {
            let spec = SideSpec { batch: spec.batch.min(4), ..spec };
            let (on_host, truth) = (train(&mut host, spec, 5), train(&mut reference, spec, 5));
            assert!((on_host.1 - truth.1).abs() <= 1e-3 * truth.1, "{spec}: {on_host:?} {truth:?}");
        }
    }
}
