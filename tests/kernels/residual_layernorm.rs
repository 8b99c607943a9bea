//! The skip path's sum and its normalisation in one launch.

use crate::harness::{Twin, assert_close};
use crate::raw::{Tensor, bits, launch};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::residual_layernorm::geometry;
use bubblebench::ops::{DType, LAYERNORM_EPSILON, Ops, ResidualLayernorm, Rows};
use bubblebench::stats::SplitMix;
use softgpu::{Arg, Order};

fn shape(random: &mut SplitMix) -> Rows {
    let edges = [2, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1024, 1025, 2048];
    let cols = match random.below(3) {
        0 => edges[random.below(edges.len())],
        1 => 8 * (1 + random.below(200)),
        _ => 2 + random.below(400),
    };
    Rows { rows: 1 + random.below((8000 / cols).clamp(1, 40)), cols }
}

/// The sum as the reference adds it; the normalisation as the reference has it of the rounded sum.
#[test]
fn residual_layernorm_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 61);
        for _ in 0..shapes_per_dtype() {
            let s = shape(&mut twin.random);
            let (a, b) = (twin.random(s.len()), twin.tensor(s.len(), dtype, 0.3, 2.0));
            let (gamma, beta) = (twin.tensor(s.cols, dtype, 1.0, 0.5), twin.random(s.cols));
            let (mut sum, mut y) = (twin.poisoned(s.len(), dtype), twin.poisoned(s.len(), dtype));
            let (mut mean, mut rstd) = (twin.poisoned(s.rows, DType::F32), twin.poisoned(s.rows, DType::F32));
            let out =
                ResidualLayernorm { sum: &mut sum.cuda, y: &mut y.cuda, mean: &mut mean.cuda, rstd: &mut rstd.cuda };
            twin.cuda.residual_layernorm(s, out, &a.cuda, &b.cuda, &gamma.cuda, &beta.cuda);
            twin.reference.residual(s.len(), &mut sum.reference, &a.reference, &b.reference);
            twin.check(&format!("sum of {s:?}"), &sum);
            let rounded = twin.cuda.read(&sum.cuda).unwrap();
            twin.reference.write(&mut sum.reference, &rounded).unwrap();
            let (m, r) = (&mut mean.reference, &mut rstd.reference);
            let (g, b) = (&gamma.reference, &beta.reference);
            twin.reference.layernorm_forward(s, &mut y.reference, m, r, &sum.reference, g, b);
            twin.check(&format!("y of {s:?}"), &y);
            twin.check(&format!("rstd of {s:?}"), &rstd);
            // Of a mean near zero only the terms it is made of say how well it can be known.
            let (is, want) = (twin.cuda.read(&mean.cuda).unwrap(), twin.reference.read(&mean.reference).unwrap());
            let shifted = |values: &[f64]| values.iter().map(|v| v + 1.0).collect::<Vec<_>>();
            assert_close(&format!("mean of {s:?}"), &shifted(&is), &shifted(&want), DType::F32);
        }
    }
}

/// Off a boundary (elements, the sum read back) and in another order of threads.
#[test]
fn residual_layernorm_takes_unaligned_views_and_any_order() {
    let mut random = SplitMix(62);
    for i in 0..60 {
        let (dtype, s) = (DTYPES[i % 3], shape(&mut random));
        let mut numbers = |len: usize| -> Vec<f64> { (0..len).map(|_| random.symmetric()).collect() };
        let (a, b, gamma, beta) = (numbers(s.len()), numbers(s.len()), numbers(s.cols), numbers(s.cols));
        let run = |shift: usize, order: Order| {
            let (mut sum, mut y) = (Tensor::poisoned(dtype, s.len(), 0), Tensor::poisoned(dtype, s.len(), shift));
            let mut stats = [Tensor::poisoned(DType::F32, s.rows, 0), Tensor::poisoned(DType::F32, s.rows, 0)];
            let (mut a, mut b) = (Tensor::new(dtype, &a, shift), Tensor::new(dtype, &b, 0));
            let (mut gamma, mut beta) = (Tensor::new(dtype, &gamma, 0), Tensor::new(dtype, &beta, shift));
            let written = [sum.arg(), y.arg(), stats[0].arg(), stats[1].arg()];
            let read = [a.arg(), b.arg(), gamma.arg(), beta.arg()];
            let numbers = [Arg::I32(s.rows as i32), Arg::I32(s.cols as i32), Arg::F32(LAYERNORM_EPSILON as f32)];
            let arguments = [&written[..], &read, &numbers].concat();
            launch(&format!("residual_layernorm_{}", dtype.name()), geometry(s, dtype), order, &arguments);
            (sum.values(), y.values(), stats.map(|tensor| bits(&tensor.values())))
        };
        let (once, shuffled, shifted) = (run(0, Order::InTurn), run(0, Order::Shuffled(7)), run(1, Order::InTurn));
        assert_eq!((bits(&once.0), bits(&once.1), &once.2), (bits(&shuffled.0), bits(&shuffled.1), &shuffled.2));
        assert_eq!(bits(&once.0), bits(&shifted.0));
        assert_close(&format!("{s:?}"), &shifted.1, &once.1, dtype);
    }
}
