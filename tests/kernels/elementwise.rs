//! GELU, ReLU and the residual sum.

use crate::harness::{Twin, check_operations, device};
use crate::raw::{Tensor, bits, launch, size};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::elementwise::geometry;
use bubblebench::ops::work::Operation;
use bubblebench::ops::{DType, Ops};
use bubblebench::stats::SplitMix;
use softgpu::Order;

/// One element, the edges of vectors and tiles, and anything up to a few tiles.
fn length(random: &mut SplitMix) -> usize {
    let edges = [1, 2, 3, 7, 8, 9, 255, 256, 257, 4095, 4096, 4097, 8191, 8192, 8193];
    match random.below(4) {
        0 => edges[random.below(edges.len())],
        1 => 1 + random.below(20_000),
        _ => 1 + random.below(1500),
    }
}

#[test]
fn element_wise_operations_agree_with_the_reference() {
    for dtype in DTYPES {
        check_operations(dtype, 4 * shapes_per_dtype(), |random| {
            let len = length(random);
            match random.below(4) {
                0 => Operation::GeluForward { len },
                1 => Operation::GeluBackward { len },
                2 => Operation::Dropout { len },
                _ => Operation::Residual { len },
            }
        });
    }
}

#[test]
fn relu_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 5);
        for _ in 0..shapes_per_dtype() {
            let len = length(&mut twin.random);
            let (x, dy) = (twin.random(len), twin.random(len));
            let (mut y, mut dx) = (twin.poisoned(len, dtype), twin.poisoned(len, dtype));
            twin.cuda.relu_forward(len, &mut y.cuda, &x.cuda);
            twin.reference.relu_forward(len, &mut y.reference, &x.reference);
            twin.check("relu", &y);
            twin.cuda.relu_backward(len, &mut dx.cuda, &dy.cuda, &y.cuda);
            twin.reference.relu_backward(len, &mut dx.reference, &dy.reference, &y.reference);
            twin.check("relu backward", &dx);
        }
    }
}

/// Far from zero, where an exponential over- or underflows, GELU is x or 0 and its slope 1 or 0.
#[test]
fn gelu_holds_far_from_zero() {
    for (dtype, scale) in
        [(DType::Bf16, 1e30), (DType::F16, 6e4), (DType::F32, 1e30), (DType::F32, 15.0), (DType::Bf16, 9.0)]
    {
        let mut twin = Twin::new(dtype, 6);
        for _ in 0..10 {
            let len = 1 + twin.random.below(2000);
            let (x, dy) = (twin.tensor(len, dtype, 0.0, scale), twin.random(len));
            let (mut y, mut dx) = (twin.poisoned(len, dtype), twin.poisoned(len, dtype));
            twin.cuda.gelu_forward(len, &mut y.cuda, &x.cuda);
            twin.reference.gelu_forward(len, &mut y.reference, &x.reference);
            twin.check("gelu", &y);
            twin.cuda.gelu_backward(len, &mut dx.cuda, &dy.cuda, &x.cuda);
            twin.reference.gelu_backward(len, &mut dx.reference, &dy.reference, &x.reference);
            twin.check("gelu backward", &dx);
        }
    }
}

#[test]
fn nan_is_not_lost() {
    for dtype in DTYPES {
        let mut cuda = device(dtype);
        let mut tensor = || cuda.alloc(9, dtype).unwrap();
        // Fresh memory is NaN.
        let (x, mut dy, mut outs) = (tensor(), tensor(), [tensor(), tensor(), tensor(), tensor()]);
        cuda.write(&mut dy, &[1.0; 9]).unwrap();
        outs.iter_mut().for_each(|out| cuda.zero(out));
        let [gelu, slope, relu, sum] = &mut outs;
        cuda.gelu_forward(9, gelu, &x);
        cuda.gelu_backward(9, slope, &dy, &x);
        cuda.relu_forward(9, relu, &x);
        cuda.residual(9, sum, &dy, &x);
        for out in &outs {
            assert!(cuda.read(out).unwrap().iter().all(|v| v.is_nan()));
        }
    }
}

/// Views off a boundary take the element path: the same numbers, nothing beyond the ends.
#[test]
fn unaligned_views_give_the_same_bits() {
    let mut random = SplitMix(8);
    for dtype in DTYPES {
        for i in 0..40 {
            let len = length(&mut random).min(5000);
            let values = |random: &mut SplitMix| -> Vec<f64> { (0..len).map(|_| 3.0 * random.symmetric()).collect() };
            let (a, b) = (values(&mut random), values(&mut random));
            let run = |kernel: &str, inputs: &[&[f64]], shifts: [usize; 3]| {
                let mut out = Tensor::poisoned(dtype, len, shifts[0]);
                let mut inputs: Vec<Tensor> =
                    inputs.iter().zip(&shifts[1..]).map(|(v, &shift)| Tensor::new(dtype, v, shift)).collect();
                let mut arguments = vec![out.arg()];
                arguments.extend(inputs.iter_mut().map(Tensor::arg));
                arguments.push(size(len));
                let geometry = geometry(len, inputs.len(), dtype);
                launch(&format!("{kernel}_{}", dtype.name()), geometry, Order::InTurn, &arguments);
                inputs.iter().for_each(|input| drop(input.values()));
                bits(&out.values())
            };
            let shifts = [[1, 0, 0], [0, 3, 0], [1, 1, 1], [0, 0, 1]][i % 4];
            for (kernel, inputs) in [
                ("gelu_forward", &[&a[..]][..]),
                ("relu_forward", &[&a]),
                ("gelu_backward", &[&a, &b]),
                ("relu_backward", &[&a, &b]),
                ("residual", &[&a, &b]),
            ] {
                assert_eq!(run(kernel, inputs, [0; 3]), run(kernel, inputs, shifts), "{kernel} {dtype:?} {len}");
            }
        }
    }
}
