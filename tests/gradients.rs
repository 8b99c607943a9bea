//! Gradients: on the f64 reference against central finite differences, and on the host against the reference, for the
//! GPT layer and every small model.

use bubblebench::models::builder::Builder;
use bubblebench::models::gpt::{Layer, network};
use bubblebench::models::network::Network;
use bubblebench::models::{convnet, lstm, mlp};
use bubblebench::ops::host::Host;
use bubblebench::ops::reference::{Reference, ReferenceBuffer};
use bubblebench::ops::{DType, Ops};
use bubblebench::shape::{LayerShape, Phase, Recompute};
use bubblebench::stats::SplitMix;

const STEP: f64 = 1e-4;
/// Of the tensor's largest gradient. Central differences are wrong by about step² and rounding ÷ step.
const TOLERANCE: f64 = 1e-5;

fn floats(buffer: &ReferenceBuffer) -> &[f64] {
    match buffer {
        ReferenceBuffer::Floats(values) => values,
        ReferenceBuffer::Ids(_) => panic!("floats expected"),
    }
}

fn nudge(buffer: &mut ReferenceBuffer, index: usize, by: f64) {
    match buffer {
        ReferenceBuffer::Floats(values) => values[index] += by,
        ReferenceBuffer::Ids(_) => panic!("floats expected"),
    }
}

/// `loss(index, offset)` is the loss with one element moved; `gradient` must be its slope at sampled elements.
fn check(what: &str, gradient: &[f64], random: &mut SplitMix, mut loss: impl FnMut(usize, f64) -> f64) {
    let largest = gradient.iter().fold(1e-3f64, |most, g| most.max(g.abs()));
    for _ in 0..4 {
        let i = random.below(gradient.len());
        let slope = (loss(i, STEP) - loss(i, -STEP)) / (2.0 * STEP);
        let error = (slope - gradient[i]).abs() / largest;
        assert!(error <= TOLERANCE, "{what}[{i}]: {} but the slope is {slope}", gradient[i]);
    }
}

fn layer_loss(ops: &mut Reference, layer: &mut Layer<Reference>) -> f64 {
    layer.forward(ops);
    floats(layer.output()).iter().zip(floats(layer.output_gradient())).map(|(y, dy)| y * dy).sum()
}

#[test]
fn the_layer_on_random_shapes() {
    let mut random = SplitMix(201);
    for round in 0..12 {
        let tensor = 1 + random.below(2) as u64;
        let heads = tensor * (1 + random.below(3) as u64);
        let (hidden, sequence) = (heads * (1 + random.below(6) as u64), 1 + random.below(7) as u64);
        let recompute = [Recompute::None, Recompute::Selective, Recompute::Full][round % 3];
        let shape = LayerShape::new(hidden, heads, sequence, 1 + random.below(2) as u64, DType::F64);
        let shape = shape.tensor(tensor).recompute(recompute);
        let mut ops = Reference::new();
        let mut layer = Layer::new(&mut ops, shape, 300 + round as u64).unwrap();
        layer.run(&mut ops, Phase::ForwardBackward);
        let dx = floats(layer.input_gradient()).to_vec();
        check(&format!("{} dx", shape.slug()), &dx, &mut random, |i, offset| {
            nudge(layer.input_mut(), i, offset);
            let loss = layer_loss(&mut ops, &mut layer);
            nudge(layer.input_mut(), i, -offset);
            loss
        });
        for p in 0..layer.parameters().len() {
            let gradient = floats(&layer.parameters()[p].gradient).to_vec();
            let what = format!("{} {}", shape.slug(), layer.parameters()[p].name);
            check(&what, &gradient, &mut random, |i, offset| {
                nudge(&mut layer.parameters_mut()[p].value, i, offset);
                let loss = layer_loss(&mut ops, &mut layer);
                nudge(&mut layer.parameters_mut()[p].value, i, -offset);
                loss
            });
        }
    }
}

fn network_loss<N: Network<Reference>>(ops: &mut Reference, network: &mut N, batch: usize) -> f64 {
    network.forward(ops, batch);
    let losses = floats(network.losses());
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn check_network<N: Network<Reference>>(
    name: &str,
    seed: u64,
    make: impl FnOnce(&mut Builder<'_, Reference>) -> bubblebench::Result<N>,
) {
    let (mut ops, mut random) = (Reference::new(), SplitMix(seed));
    let mut network = make(&mut Builder::new(&mut ops, DType::F64, seed)).unwrap();
    let batch = random.below(4);
    network.forward(&mut ops, batch);
    network.backward(&mut ops, batch);
    ops.synchronize().unwrap();
    for p in 0..network.parameters().len() {
        let gradient = floats(&network.parameters()[p].gradient).to_vec();
        let what = format!("{name} {}", network.parameters()[p].name);
        assert!(gradient.iter().any(|g| *g != 0.0), "{what} has no gradient at all");
        check(&what, &gradient, &mut random, |i, offset| {
            nudge(&mut network.parameters_mut()[p].value, i, offset);
            let loss = network_loss(&mut ops, &mut network, batch);
            nudge(&mut network.parameters_mut()[p].value, i, -offset);
            loss
        });
    }
}

#[test]
fn the_small_models() {
    let mut random = SplitMix(202);
    for seed in 0..3 {
        let batch = 2 + random.below(3);
        let config = mlp::MlpConfig { batch, inputs: 3 + random.below(5), hidden: 4 + random.below(6), classes: 3 };
        check_network("mlp", seed, |b| mlp::Mlp::new(b, config));
        let (steps, hidden) = (1 + random.below(5), 2 + random.below(5));
        let config = lstm::LstmConfig { batch, steps, inputs: 3, hidden, classes: 4 };
        check_network("lstm", seed, |b| lstm::Lstm::new(b, config));
        let layer = LayerShape::new(8, 2, 2 + random.below(4) as u64, batch as u64, DType::F64);
        let config = network::GptConfig { layers: 1 + random.below(2), vocabulary: 11, layer };
        check_network("gpt", seed, |b| network::Gpt::new(b, config));
    }
}

/// ReLU has a corner, so a difference across it is no slope: the seeds are ones whose samples stay clear of it.
#[test]
fn the_convnet() {
    for (seed, side, stages) in [(1, 8, 3), (2, 9, 2), (3, 7, 1)] {
        let config = convnet::ConvnetConfig { batch: 2, side, width: 4, stages, groups: 2, classes: 3 };
        check_network("convnet", seed, |b| convnet::Convnet::new(b, config));
    }
}

/// max|x − ref| / max|ref|; NaN is never within.
fn relative_error(is: &[f64], want: &[f64]) -> f64 {
    assert_eq!(is.len(), want.len());
    let largest = want.iter().fold(f64::MIN_POSITIVE, |most, w| most.max(w.abs()));
    let worse = |most: f64, error: f64| if error.is_nan() { f64::INFINITY } else { most.max(error) };
    is.iter().zip(want).map(|(is, want)| (is - want).abs() / largest).fold(0.0, worse)
}

/// The whole layer in f32 on the CPU's cores against the reference from the same inputs: output, dx, every gradient.
#[test]
fn the_host_agrees_with_the_reference_on_random_layers() {
    let (mut host, mut reference) = (Host::all_cores().unwrap(), Reference::new());
    let mut random = SplitMix(203);
    for round in 0..36 {
        let tensor = [1, 1, 2, 3][random.below(4)];
        let heads = tensor * (1 + random.below(3) as u64);
        let head_size = [3, 8, 13, 16, 32, 64, 80, 128][random.below(8)];
        let (sequence, batch) = (1 + random.below(150) as u64, 1 + random.below(3) as u64);
        let recompute = [Recompute::None, Recompute::Selective, Recompute::Full][round % 3];
        let shape = LayerShape::new(heads * head_size, heads, sequence, batch, DType::F32);
        let shape = shape.tensor(tensor).recompute(recompute);
        let mut layer = Layer::new(&mut host, shape, round as u64).unwrap();
        let mut truth = Layer::new(&mut reference, shape, round as u64).unwrap();
        layer.run(&mut host, Phase::ForwardBackward);
        truth.run(&mut reference, Phase::ForwardBackward);
        for ((name, is), (_, want)) in layer.results().into_iter().zip(truth.results()) {
            let error = relative_error(&host.read(is).unwrap(), &reference.read(want).unwrap());
            assert!(error <= 1e-4, "{} {name}: {error:.1e}", shape.slug());
        }
    }
}

fn compare_networks<H: Network<Host>, R: Network<Reference>>(
    name: &str,
    seed: u64,
    make_host: impl FnOnce(&mut Builder<'_, Host>) -> bubblebench::Result<H>,
    make_reference: impl FnOnce(&mut Builder<'_, Reference>) -> bubblebench::Result<R>,
) {
    let (mut host, mut reference) = (Host::all_cores().unwrap(), Reference::new());
    let mut network = make_host(&mut Builder::new(&mut host, DType::F32, seed)).unwrap();
    let mut truth = make_reference(&mut Builder::new(&mut reference, DType::F32, seed)).unwrap();
    network.forward(&mut host, 1);
    network.backward(&mut host, 1);
    truth.forward(&mut reference, 1);
    truth.backward(&mut reference, 1);
    let losses = (host.read(network.losses()).unwrap(), reference.read(truth.losses()).unwrap());
    assert!(relative_error(&losses.0, &losses.1) <= 1e-4, "{name} losses");
    for (is, want) in network.parameters().into_iter().zip(truth.parameters()) {
        let error = relative_error(&host.read(&is.gradient).unwrap(), &reference.read(&want.gradient).unwrap());
        assert!(error <= 1e-4, "{name} {}: {error:.1e}", want.name);
    }
}

#[test]
fn the_host_agrees_with_the_reference_on_the_small_models() {
    let mut random = SplitMix(204);
    for seed in 0..6 {
        let batch = 1 + random.below(9);
        let config =
            mlp::MlpConfig { batch, inputs: 5 + random.below(90), hidden: 5 + random.below(90), classes: 2 + batch };
        compare_networks("mlp", seed, |b| mlp::Mlp::new(b, config), |b| mlp::Mlp::new(b, config));
        let (steps, hidden) = (1 + random.below(9), 3 + random.below(60));
        let config = lstm::LstmConfig { batch, steps, inputs: 7, hidden, classes: 4 };
        compare_networks("lstm", seed, |b| lstm::Lstm::new(b, config), |b| lstm::Lstm::new(b, config));
        let layer = LayerShape::new(24, 3, 2 + random.below(40) as u64, batch as u64, DType::F32);
        let config = network::GptConfig { layers: 1 + random.below(3), vocabulary: 30 + random.below(99), layer };
        compare_networks("gpt", seed, |b| network::Gpt::new(b, config), |b| network::Gpt::new(b, config));
        let (side, stages) = (6 + random.below(12), 1 + random.below(3));
        let config = convnet::ConvnetConfig { batch, side, width: 8, stages, groups: 4, classes: 5 };
        compare_networks("convnet", seed, |b| convnet::Convnet::new(b, config), |b| convnet::Convnet::new(b, config));
    }
}
