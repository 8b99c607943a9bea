//! Average pooling against the reference.

use crate::harness::Twin;
use crate::orders::{self, Fill, Launch, Operand};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::pool::{backward_geometry, forward_geometry, kernel};
use bubblebench::ops::{DType, Ops, Pool};
use bubblebench::stats::SplitMix;

fn shape(random: &mut SplitMix) -> Pool {
    let channels = [1, 3, 8, 17, 64, 8 * (1 + random.below(40)), 1 + random.below(600)][random.below(7)];
    let positions = [1, 4, 49, 1 + random.below(300)][random.below(4)];
    Pool { batch: 1 + random.below((20_000 / (channels * positions)).clamp(1, 5)), positions, channels }
}

#[test]
fn average_pool_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 0x9001);
        for _ in 0..shapes_per_dtype() {
            let shape = shape(&mut twin.random);
            let (wide, narrow) = (shape.batch * shape.positions * shape.channels, shape.batch * shape.channels);
            // Off zero, so that the means do not cancel.
            let (x, dy) = (twin.tensor(wide, dtype, 0.5, 1.0), twin.random(narrow));
            let (mut y, mut dx) = (twin.poisoned(narrow, dtype), twin.poisoned(wide, dtype));
            twin.cuda.average_pool_forward(shape, &mut y.cuda, &x.cuda);
            twin.cuda.average_pool_backward(shape, &mut dx.cuda, &dy.cuda);
            twin.reference.average_pool_forward(shape, &mut y.reference, &x.reference);
            twin.reference.average_pool_backward(shape, &mut dx.reference, &dy.reference);
            twin.check(&format!("y of {shape:?}"), &y);
            twin.check(&format!("dx of {shape:?}"), &dx);
        }
    }
}

#[test]
fn average_pool_does_not_depend_on_the_order_of_threads() {
    let mut random = SplitMix(2);
    for _ in 0..12 {
        let s = shape(&mut random);
        let (wide, narrow) = (s.batch * s.positions * s.channels, s.batch * s.channels);
        let fills = [Fill::Random(wide), Fill::Random(narrow), Fill::Poison(narrow), Fill::Poison(wide)];
        let sizes = [Operand::Int(s.positions as i32), Operand::Int(s.channels as i32)];
        let launch = |operation: &str, to, from, geometry| Launch {
            kernel: kernel(operation, DType::Bf16),
            geometry,
            operands: [&[Operand::Tensor(to), Operand::Tensor(from)][..], &sizes[..]].concat(),
        };
        let forward = launch("forward", 2, 0, forward_geometry(s, DType::Bf16));
        let backward = launch("backward", 3, 1, backward_geometry(s, DType::Bf16, 4));
        orders::check(&fills, &[forward, backward]);
    }
}
