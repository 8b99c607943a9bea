//! Convolution against the reference.

use crate::harness::Twin;
use crate::orders::{self, Fill, Launch, Operand};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::conv::{ConvToWeights, forward_geometry, kernel, numbers, to_inputs_geometry};
use bubblebench::ops::{Conv, DType, Ops};
use bubblebench::stats::SplitMix;

/// Tiny images, all small kernels, strides and paddings; channels that fill vectors and that do not. About a twentieth of
/// the shapes have more than one tile each way.
fn shape(random: &mut SplitMix) -> Conv {
    let channels = |random: &mut SplitMix| [1, 3, 8, 17, 64, 16, 32, 1 + random.below(40)][random.below(8)];
    loop {
        let (in_channels, out_channels) = (channels(random), channels(random));
        let (kernel, stride, padding) = (1 + 2 * random.below(3), 1 + random.below(3), random.below(3));
        let (height, width) = (1 + random.below(9), 1 + random.below(9));
        let batch = 1 + random.below(4);
        let shape = Conv { batch, height, width, in_channels, out_channels, kernel, stride, padding };
        if height.min(width) + 2 * padding >= kernel && shape.out_len() * shape.patch() <= 1_500_000 {
            return shape;
        }
    }
}

fn check(twin: &mut Twin, shape: Conv, dtype: DType) {
    // Off zero, so that sums over whole images do not cancel.
    let (x, w) = (twin.tensor(shape.in_len(), dtype, 0.25, 1.0), twin.random(shape.weight_len()));
    let dy = twin.tensor(shape.out_len(), dtype, 0.25, 1.0);
    let (mut y, mut dx) = (twin.poisoned(shape.out_len(), dtype), twin.poisoned(shape.in_len(), dtype));
    let mut dw = twin.random(shape.weight_len());
    let mut workspace = twin.poisoned(shape.workspace_len(), dtype);
    let space = &mut workspace.cuda;
    twin.cuda.conv_forward(shape, &mut y.cuda, &x.cuda, &w.cuda, space);
    twin.cuda.conv_to_inputs(shape, &mut dx.cuda, &dy.cuda, &w.cuda, space);
    twin.cuda.conv_to_weights(shape, &mut dw.cuda, &dy.cuda, &x.cuda, space);
    let space = &mut workspace.reference;
    twin.reference.conv_forward(shape, &mut y.reference, &x.reference, &w.reference, space);
    twin.reference.conv_to_inputs(shape, &mut dx.reference, &dy.reference, &w.reference, space);
    twin.reference.conv_to_weights(shape, &mut dw.reference, &dy.reference, &x.reference, space);
    for (name, tensor) in [("y", &y), ("dx", &dx), ("dw", &dw)] {
        twin.check(&format!("{name} of {shape:?}"), tensor);
    }
}

#[test]
fn convolution_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 0xc077);
        for _ in 0..shapes_per_dtype() {
            let shape = shape(&mut twin.random);
            check(&mut twin, shape, dtype);
        }
    }
}

/// Several tiles in every direction, more steps than stages, several splits, windows wholly outside the image, strides
/// longer than the kernel.
#[test]
fn convolution_agrees_at_the_edges() {
    let conv = |batch, side: (usize, usize), channels: (usize, usize), kernel, stride, padding| Conv {
        batch,
        height: side.0,
        width: side.1,
        in_channels: channels.0,
        out_channels: channels.1,
        kernel,
        stride,
        padding,
    };
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 0xc078);
        for shape in [
            conv(2, (9, 8), (72, 80), 3, 1, 1),
            conv(3, (7, 5), (8, 130), 3, 2, 1),
            conv(40, (4, 4), (16, 16), 3, 1, 1),
            conv(1, (1, 1), (8, 8), 5, 1, 2),
            conv(2, (3, 2), (3, 5), 1, 1, 2),
            conv(1, (7, 9), (8, 8), 1, 3, 0),
            conv(1, (8, 8), (5, 7), 2, 4, 3),
        ] {
            check(&mut twin, shape, dtype);
        }
    }
}

#[test]
fn convolution_does_not_depend_on_the_order_of_threads() {
    let mut random = SplitMix(8);
    let dtype = DType::Bf16;
    for _ in 0..8 {
        let s = shape(&mut random);
        let weights = ConvToWeights::new(s, dtype, 4);
        let fills = [
            Fill::Random(s.in_len()),
            Fill::Random(s.weight_len()),
            Fill::Random(s.out_len()),
            Fill::Poison(s.out_len()),
            Fill::Poison(s.in_len()),
            Fill::PoisonWide(weights.partial_len(s)),
        ];
        let numbers = numbers(s).map(Operand::Int);
        let launch = |operation: &str, geometry, tensors: [usize; 3], more: &[Operand]| Launch {
            kernel: kernel(operation, dtype),
            geometry,
            operands: [&tensors.map(Operand::Tensor)[..], &numbers, more].concat(),
        };
        let forward = launch("forward", forward_geometry(s), [3, 0, 1], &[]);
        let inputs = launch("to_inputs", to_inputs_geometry(s), [4, 2, 1], &[]);
        let steps = [Operand::Int(weights.steps as i32)];
        let partial = launch("to_weights_partial", weights.partial, [5, 2, 0], &steps);
        let sizes = [weights.splits, s.weight_len()].map(|v| Operand::Int(v as i32));
        let reduce = Launch {
            kernel: kernel("to_weights_reduce", dtype),
            geometry: weights.reduce,
            operands: [&[Operand::Tensor(1), Operand::Tensor(5)][..], &sizes].concat(),
        };
        orders::check(&fills, &[forward, inputs, partial, reduce]);
    }
}
