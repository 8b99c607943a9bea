//! AdamW and SGD.

use crate::harness::{Both, Twin, assert_close, check_operations};
use crate::raw::{Tensor, bits, launch, size};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::optimizer::{adamw_numbers, geometry};
use bubblebench::ops::work::Operation;
use bubblebench::ops::{AdamW, DType, Ops, Sgd};
use bubblebench::stats::SplitMix;
use softgpu::{Arg, Order};

fn length(random: &mut SplitMix) -> usize {
    let edges = [1, 2, 3, 4, 5, 1023, 1024, 1025, 2047, 2048, 2049];
    match random.below(3) {
        0 => edges[random.below(edges.len())],
        1 => 1 + random.below(10_000),
        _ => 1 + random.below(900),
    }
}

fn zeros(twin: &mut Twin, len: usize) -> Both {
    let mut both = twin.poisoned(len, DType::F32);
    twin.cuda.zero(&mut both.cuda);
    twin.reference.zero(&mut both.reference);
    both
}

/// Several steps in a row, with a master where the parameter is narrower (as models have it) and without.
#[test]
fn adamw_agrees_with_the_reference_over_several_steps() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 21);
        for i in 0..shapes_per_dtype() {
            let len = length(&mut twin.random);
            let mut param = twin.random(len);
            let (mut m, mut v) = (zeros(&mut twin, len), zeros(&mut twin, len));
            let mut master = if dtype == DType::F32 { None } else { Some(twin.cuda.alloc(len, DType::F32).unwrap()) };
            if let Some(master) = &mut master {
                let values = twin.cuda.read(&param.cuda).unwrap();
                twin.cuda.write(master, &values).unwrap();
            }
            for step in 1..=3 {
                let weight_decay = if i % 2 == 0 { 0.1 } else { 0.0 };
                let config = AdamW { step, learning_rate: 0.01, weight_decay, ..AdamW::default() };
                let grad = twin.random(len);
                let (cuda, reference) = (&mut twin.cuda, &mut twin.reference);
                cuda.adamw(len, &mut param.cuda, master.as_mut(), &grad.cuda, &mut m.cuda, &mut v.cuda, config);
                let (p, g) = (&mut param.reference, &grad.reference);
                reference.adamw(len, p, None, g, &mut m.reference, &mut v.reference, config);
            }
            twin.check("param", &param);
            twin.check("m", &m);
            twin.check("v", &v);
            if let Some(master) = &master {
                let want = twin.reference.read(&param.reference).unwrap();
                assert_close("master", &twin.cuda.read(master).unwrap(), &want, DType::F32);
            }
        }
    }
}

#[test]
fn a_narrow_parameter_without_a_master_is_updated_in_place() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 22);
        for _ in 0..40 {
            let len = length(&mut twin.random);
            let (mut param, grad) = (twin.random(len), twin.random(len));
            let (mut m, mut v) = (zeros(&mut twin, len), zeros(&mut twin, len));
            let config = AdamW::default();
            twin.cuda.adamw(len, &mut param.cuda, None, &grad.cuda, &mut m.cuda, &mut v.cuda, config);
            let (p, g) = (&mut param.reference, &grad.reference);
            twin.reference.adamw(len, p, None, g, &mut m.reference, &mut v.reference, config);
            twin.check("param", &param);
        }
    }
}

#[test]
fn adamw_as_the_suite_runs_it_agrees_with_the_reference() {
    for dtype in DTYPES {
        check_operations(dtype, 20, |random| Operation::Adamw { len: length(random) });
    }
}

/// Each step from the same rounded parameter on both sides.
#[test]
fn sgd_agrees_with_the_reference_over_several_steps() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 23);
        for _ in 0..shapes_per_dtype() {
            let len = length(&mut twin.random);
            let mut param = twin.random(len);
            let mut velocity = zeros(&mut twin, len);
            for _ in 0..3 {
                let config = Sgd { learning_rate: 0.05, momentum: 0.9 };
                let grad = twin.random(len);
                twin.cuda.sgd(len, &mut param.cuda, &grad.cuda, &mut velocity.cuda, config);
                let (p, v) = (&mut param.reference, &mut velocity.reference);
                twin.reference.sgd(len, p, &grad.reference, v, config);
                twin.check("param", &param);
                twin.check("velocity", &velocity);
                let rounded = twin.cuda.read(&param.cuda).unwrap();
                twin.reference.write(&mut param.reference, &rounded).unwrap();
            }
        }
    }
}

#[test]
fn unaligned_views_give_the_same_bits() {
    let mut random = SplitMix(24);
    for dtype in DTYPES {
        for i in 0..30 {
            let len = length(&mut random).min(4000);
            let values = |random: &mut SplitMix| -> Vec<f64> { (0..len).map(|_| random.symmetric()).collect() };
            let (p, g, m) = (values(&mut random), values(&mut random), values(&mut random));
            let v: Vec<f64> = values(&mut random).iter().map(|v| v * v).collect();
            let adamw = |shift: [usize; 3], with_master: bool| {
                let mut param = Tensor::new(dtype, &p, shift[0]);
                let mut master = Tensor::new(DType::F32, &p, shift[1]);
                let mut grad = Tensor::new(dtype, &g, shift[0]);
                let (mut m, mut v) = (Tensor::new(DType::F32, &m, shift[2]), Tensor::new(DType::F32, &v, 0));
                let pointer = if with_master { master.arg() } else { Arg::NULL };
                let mut arguments = vec![param.arg(), pointer, grad.arg(), m.arg(), v.arg(), size(len)];
                arguments.extend(adamw_numbers(AdamW { step: 3, ..AdamW::default() }).map(Arg::F32));
                launch(&format!("adamw_{}", dtype.name()), geometry(len), Order::InTurn, &arguments);
                drop(grad.values());
                [param, master, m, v].map(|tensor| bits(&tensor.values()))
            };
            let sgd = |shift: [usize; 3]| {
                let mut param = Tensor::new(dtype, &p, shift[0]);
                let mut grad = Tensor::new(dtype, &g, shift[1]);
                let mut velocity = Tensor::new(DType::F32, &m, shift[2]);
                let numbers = [Arg::F32(0.05), Arg::F32(0.9)];
                let tensors = [param.arg(), grad.arg(), velocity.arg(), size(len)];
                let arguments = [&tensors[..], &numbers[..]].concat();
                launch(&format!("sgd_{}", dtype.name()), geometry(len), Order::InTurn, &arguments);
                drop(grad.values());
                [param, velocity].map(|tensor| bits(&tensor.values()))
            };
            let shift = [[1, 0, 0], [0, 1, 0], [0, 0, 3], [2, 2, 2]][i % 4];
            assert_eq!(adamw([0; 3], true), adamw(shift, true), "{dtype:?} {len}");
            assert_eq!(adamw([0; 3], false), adamw(shift, false), "{dtype:?} {len}");
            assert_eq!(sgd([0; 3]), sgd(shift), "{dtype:?} {len}");
        }
    }
}
