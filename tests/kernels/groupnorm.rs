//! Group normalisation against the reference.

use crate::harness::{Both, Twin};
use crate::orders::{self, Fill, Launch, Operand};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::groupnorm::{GroupNormPlan, GroupNormToWeights, kernel};
use bubblebench::ops::cuda::layernorm;
use bubblebench::ops::{DType, GroupNorm, Ops, RowStats};
use bubblebench::stats::SplitMix;

/// Groups of one element to several thousand, of widths that divide a vector, that a vector divides, and neither.
fn shape(random: &mut SplitMix) -> GroupNorm {
    let groups = [1, 2, 3, 4, 8, 32, 1 + random.below(20)][random.below(7)];
    let group = [1, 2, 4, 8, 16, 3, 17, 64, 1 + random.below(100)][random.below(9)];
    let channels = groups * group;
    let most = (16_000 / channels).clamp(1, 300);
    let positions = [1, 4, 16, 49, 1 + random.below(most), most][random.below(6)];
    GroupNorm { batch: 1 + random.below((16_000 / (channels * positions)).clamp(1, 6)), positions, channels, groups }
}

struct Tensors {
    x: Both,
    dy: Both,
    gamma: Both,
    beta: Both,
    mean: Both,
    rstd: Both,
}

fn check(twin: &mut Twin, shape: GroupNorm, dtype: DType) {
    // The elements of a tiny group are all near ±1 once normalised and dx cancels to the epsilon's share: with a
    // deviation near √epsilon it does not, and the bound can be asked for.
    let few = shape.positions * shape.channels / shape.groups <= 8;
    let scale = if few { 3e-3 } else { 0.5 + 2.0 * twin.random.unit() };
    let mut t = Tensors {
        x: twin.tensor(shape.len(), dtype, 0.5 * scale, scale),
        dy: twin.random(shape.len()),
        gamma: twin.tensor(shape.channels, dtype, 1.0, 0.5),
        beta: twin.random(shape.channels),
        mean: twin.poisoned(shape.stats_len(), DType::F32),
        rstd: twin.poisoned(shape.stats_len(), DType::F32),
    };
    let mut y = twin.poisoned(shape.len(), dtype);
    let (m, r) = (&mut t.mean, &mut t.rstd);
    twin.cuda.groupnorm_forward(shape, &mut y.cuda, &mut m.cuda, &mut r.cuda, &t.x.cuda, &t.gamma.cuda, &t.beta.cuda);
    twin.reference.groupnorm_forward(
        shape,
        &mut y.reference,
        &mut m.reference,
        &mut r.reference,
        &t.x.reference,
        &t.gamma.reference,
        &t.beta.reference,
    );
    for (name, tensor) in [("y", &y), ("mean", &t.mean), ("rstd", &t.rstd)] {
        twin.check(&format!("{name} of {shape:?}"), tensor);
    }
    to_inputs(twin, shape, dtype, &t);
    to_weights(twin, shape, dtype, &t);
}

fn to_inputs(twin: &mut Twin, shape: GroupNorm, dtype: DType, t: &Tensors) {
    let mut dx = twin.poisoned(shape.len(), dtype);
    let stats = RowStats { mean: &t.mean.cuda, rstd: &t.rstd.cuda };
    twin.cuda.groupnorm_to_inputs(shape, &mut dx.cuda, &t.dy.cuda, &t.x.cuda, &t.gamma.cuda, stats);
    let stats = RowStats { mean: &t.mean.reference, rstd: &t.rstd.reference };
    let (to, dy, x) = (&mut dx.reference, &t.dy.reference, &t.x.reference);
    twin.reference.groupnorm_to_inputs(shape, to, dy, x, &t.gamma.reference, stats);
    twin.check(&format!("dx of {shape:?}"), &dx);
}

fn to_weights(twin: &mut Twin, shape: GroupNorm, dtype: DType, t: &Tensors) {
    // What is there already is added to, and keeps the sums off zero.
    let mut dgamma = twin.tensor(shape.channels, dtype, 2.0, 1.0);
    let mut dbeta = twin.tensor(shape.channels, dtype, 2.0, 1.0);
    let stats = RowStats { mean: &t.mean.cuda, rstd: &t.rstd.cuda };
    twin.cuda.groupnorm_to_weights(shape, &mut dgamma.cuda, &mut dbeta.cuda, &t.dy.cuda, &t.x.cuda, stats);
    let stats = RowStats { mean: &t.mean.reference, rstd: &t.rstd.reference };
    let (to, and) = (&mut dgamma.reference, &mut dbeta.reference);
    twin.reference.groupnorm_to_weights(shape, to, and, &t.dy.reference, &t.x.reference, stats);
    twin.check(&format!("dgamma of {shape:?}"), &dgamma);
    twin.check(&format!("dbeta of {shape:?}"), &dbeta);
}

#[test]
fn groupnorm_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 0x6702);
        for _ in 0..shapes_per_dtype() {
            let shape = shape(&mut twin.random);
            check(&mut twin, shape, dtype);
        }
    }
}

/// Groups that share a block, and a group larger than its block's registers.
#[test]
fn groupnorm_agrees_where_groups_share_a_block_or_overflow_it() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 0x6703);
        for (batch, positions, channels, groups) in
            [(150, 7, 16, 4), (90, 3, 12, 12), (300, 2, 8, 4), (1, 1100, 34, 2), (1, 300, 136, 1), (1, 601, 8, 1)]
        {
            check(&mut twin, GroupNorm { batch, positions, channels, groups }, dtype);
        }
    }
}

#[test]
fn groupnorm_does_not_depend_on_the_order_of_threads() {
    const SMS: u32 = 2;
    let mut random = SplitMix(6);
    for _ in 0..10 {
        let s = shape(&mut random);
        let dtype = DType::Bf16;
        let weights = GroupNormToWeights::new(s, dtype, SMS);
        let fills = [
            Fill::Random(s.len()),
            Fill::Random(s.channels),
            Fill::Random(s.channels),
            Fill::Poison(s.len()),
            Fill::PoisonWide(s.stats_len()),
            Fill::PoisonWide(s.stats_len()),
            Fill::Random(s.len()),
            Fill::Poison(s.len()),
            Fill::PoisonWide(weights.partial_len(s)),
        ];
        let sizes = [s.positions, s.channels, s.groups].map(|v| Operand::Int(v as i32));
        let view = |plan: &GroupNormPlan| [Operand::Int(plan.together as i32), Operand::Int(plan.vector as i32)];
        let tensors = |indices: &[usize]| indices.iter().map(|&i| Operand::Tensor(i)).collect::<Vec<_>>();
        let launch = |kernel: String, geometry, operands: &[&[Operand]]| Launch {
            kernel,
            geometry,
            operands: operands.concat(),
        };
        let (forward, inputs) = (GroupNormPlan::forward(s, dtype, SMS), GroupNormPlan::to_inputs(s, dtype, SMS));
        let all = [&tensors(&[3, 4, 5, 0, 1, 2])[..], &sizes, &view(&forward), &[Operand::Real(1e-5)]];
        let forward = launch(kernel("forward", dtype), forward.geometry, &all);
        let all = [&tensors(&[7, 6, 0, 1, 4, 5])[..], &sizes, &view(&inputs)];
        let inputs = launch(kernel("to_inputs", dtype), inputs.geometry, &all);
        let all = [&tensors(&[8, 6, 0, 4, 5])[..], &[Operand::Int(s.batch as i32)], &sizes];
        let partial = launch(kernel("to_weights_partial", dtype), weights.partial, &all);
        let all = [&tensors(&[1, 2, 8])[..], &[Operand::Int(weights.chunks as i32), sizes[1]]];
        let reduce = launch(layernorm::kernel("to_weights_reduce", dtype), weights.reduce, &all);
        orders::check(&fills, &[forward, inputs, partial, reduce]);
    }
}
