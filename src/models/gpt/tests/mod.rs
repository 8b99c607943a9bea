//! The layer on the f64 device: its operations are the ones the cost model counts, recomputing changes nothing, and
//! tensor-parallel shards add up to the whole. Gradients against finite differences are in `tests/gradients.rs`.

mod recorder;
mod sharding;

use super::*;
use crate::ops::DType;
use crate::ops::reference::{Reference, ReferenceBuffer};
use crate::shape::Recompute;
use crate::stats::SplitMix;
use recorder::OperationLog;

const MODES: [Recompute; 3] = [Recompute::None, Recompute::Selective, Recompute::Full];

fn random_shape(random: &mut SplitMix, tensor: u64) -> LayerShape {
    let heads = tensor * (1 + random.below(2) as u64);
    let hidden = heads * (1 + random.below(5) as u64);
    LayerShape::new(hidden, heads, 1 + random.below(6) as u64, 1 + random.below(3) as u64, DType::F32).tensor(tensor)
}

fn floats(buffer: &ReferenceBuffer) -> &[f64] {
    match buffer {
        ReferenceBuffer::Floats(values) => values,
        ReferenceBuffer::Ids(_) => panic!("floats expected"),
    }
}

fn close(what: &str, is: &[f64], want: &[f64]) {
    assert_eq!(is.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f64, |most, w| most.max(w.abs()));
    for (i, (is, want)) in is.iter().zip(want).enumerate() {
        assert!((is - want).abs() <= 1e-11 * largest.max(1e-9), "{what}[{i}]: {is} instead of {want}");
    }
}

/// Phase by phase, for every recompute mode and t: exactly the operations that the cost model adds up, in their order.
#[test]
fn a_phase_runs_the_operations_its_shape_lists() {
    let mut random = SplitMix(41);
    for recompute in MODES {
        for tensor in [1, 2, 4] {
            let shape = random_shape(&mut random, tensor).recompute(recompute);
            let mut ops = OperationLog::new();
            let mut layer = Layer::new(&mut ops, shape, 1).unwrap();
            assert!(ops.take().is_empty(), "making a layer runs nothing");
            for phase in [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight, Phase::ForwardBackward] {
                layer.run(&mut ops, phase);
                let listed: Vec<_> = shape.operations(phase).into_iter().map(|(_, operation)| operation).collect();
                assert_eq!(ops.take(), listed, "{} {}", shape.slug(), phase.name());
            }
        }
    }
}

/// What a mode says it does not keep is poisoned after the forward pass; the gradients must come out the same.
#[test]
fn recomputing_needs_only_what_it_says_it_keeps() {
    let mut random = SplitMix(42);
    for _ in 0..4 {
        let shape = random_shape(&mut random, 1);
        let whole = run(shape, |_| {});
        let selective = run(shape.recompute(Recompute::Selective), |block| {
            poison(&mut block.kept.attention);
            poison(&mut block.kept.lse);
        });
        let full = run(shape.recompute(Recompute::Full), |block| {
            let k = &mut block.kept;
            let tensors =
                [&mut k.ln1, &mut k.qkv, &mut k.attention, &mut k.lse, &mut k.projection, &mut k.middle, &mut k.ln2];
            tensors.into_iter().chain([&mut k.pre, &mut k.inner, &mut k.fc2, &mut k.output]).for_each(poison);
            [&mut block.ln1, &mut block.ln2].into_iter().for_each(|norm| {
                poison(&mut norm.mean);
                poison(&mut norm.rstd);
            });
        });
        assert_eq!(whole, selective);
        assert_eq!(whole, full);
    }
}

fn poison(buffer: &mut ReferenceBuffer) {
    if let ReferenceBuffer::Floats(values) = buffer {
        values.fill(f64::NAN);
    }
}

/// Output, dx and gradients after one pass, with `forget` between forward and backward.
fn run(shape: LayerShape, forget: impl Fn(&mut Block<ReferenceBuffer>)) -> Vec<(String, ReferenceBuffer)> {
    let mut ops = Reference::new();
    let mut layer = Layer::new(&mut ops, shape, 5).unwrap();
    layer.forward(&mut ops);
    forget(&mut layer.block);
    layer.backward_input(&mut ops);
    layer.backward_weight(&mut ops);
    ops.synchronize().unwrap();
    let results: Vec<_> = layer.results().into_iter().map(|(name, b)| (name.to_string(), b.clone())).collect();
    assert!(results.iter().all(|(_, b)| floats(b).iter().all(|v| v.is_finite())));
    results
}

/// Phases may be repeated: dx stays, the parameters' gradients add up, and go to zero when told.
#[test]
fn phases_can_be_repeated() {
    let shape = random_shape(&mut SplitMix(43), 2);
    let mut ops = Reference::new();
    let mut layer = Layer::new(&mut ops, shape, 6).unwrap();
    layer.run(&mut ops, Phase::ForwardBackward);
    let once: Vec<_> = layer.results().into_iter().map(|(name, b)| (name.to_string(), floats(b).to_vec())).collect();
    layer.backward_input(&mut ops);
    layer.backward_weight(&mut ops);
    for ((name, b), (_, once)) in layer.results().into_iter().zip(&once) {
        let times = if name == "output" || name == "dx" { 1.0 } else { 2.0 };
        close(name, floats(b), &once.iter().map(|v| times * v).collect::<Vec<_>>());
    }
    layer.zero_gradients(&mut ops);
    assert!(layer.parameters().iter().all(|p| floats(&p.gradient).iter().all(|&g| g == 0.0)));
    assert!(layer.memory_bytes() > shape.parameter_bytes());
}

#[test]
fn the_parameters_are_as_many_as_the_shape_says() {
    for tensor in [1, 2] {
        let shape = LayerShape::new(24, 4, 3, 2, DType::F32).tensor(tensor);
        let layer = Layer::new(&mut Reference::new(), shape, 7).unwrap();
        let parameters: usize = layer.parameters().iter().map(|p| p.len).sum();
        assert_eq!(parameters as u64, shape.parameters());
        assert!(Layer::new(&mut Reference::new(), LayerShape { heads: 5, ..shape }, 7).is_err());
    }
}
