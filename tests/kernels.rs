//! The CUDA kernels against an f64 reference computed from the same rounded inputs: on the CPU, where every CUDA thread
//! is a fiber (`softgpu`), and unchanged on a real GPU, where there is one.
//!
//! Bounds: max|x − ref| / max|ref| per tensor ≤ 1e-2 (bf16), 1e-3 (f16), 1e-5 (f32); NaN never passes; every output is
//! poisoned before the launch, so that an element nobody wrote is NaN.

#[path = "kernels/attention.rs"]
mod attention;
#[path = "kernels/attention_sm90.rs"]
mod attention_sm90;
#[path = "kernels/conv.rs"]
mod conv;
#[path = "kernels/cross_entropy.rs"]
mod cross_entropy;
#[path = "kernels/dropout.rs"]
mod dropout;
#[path = "kernels/elementwise.rs"]
mod elementwise;
#[path = "kernels/embedding.rs"]
mod embedding;
#[path = "kernels/emulated.rs"]
mod emulated;
#[path = "kernels/emulation.rs"]
mod emulation;
#[path = "kernels/groupnorm.rs"]
mod groupnorm;
#[path = "kernels/harness.rs"]
mod harness;
#[path = "kernels/layernorm.rs"]
mod layernorm;
#[path = "kernels/lstm.rs"]
mod lstm;
#[path = "kernels/optimizer.rs"]
mod optimizer;
#[path = "kernels/orders.rs"]
mod orders;
#[path = "kernels/pool.rs"]
mod pool;
#[path = "kernels/pressure.rs"]
mod pressure;
#[path = "kernels/probe.rs"]
mod probe;
#[path = "kernels/product.rs"]
mod product;
#[path = "kernels/raw.rs"]
mod raw;
#[path = "kernels/residual_layernorm.rs"]
mod residual_layernorm;
#[path = "kernels/warpgroup.rs"]
mod warpgroup;

use bubblebench::ops::DType;

const DTYPES: [DType; 3] = [DType::Bf16, DType::F16, DType::F32];

/// 200; fewer, for a tool that slows everything down, with `BUBBLEBENCH_TEST_SHAPES`.
fn shapes_per_dtype() -> usize {
    std::env::var("BUBBLEBENCH_TEST_SHAPES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

#[test]
fn layernorm_agrees_with_the_reference_on_fibers() {
    for dtype in DTYPES {
        for case in layernorm::cases(shapes_per_dtype(), dtype) {
            let result = emulated::layernorm(&case);
            case.check(&result);
        }
    }
}

/// The same bits in any order of lanes and warps between barriers: a missing barrier would show.
#[test]
fn layernorm_does_not_depend_on_the_order_of_threads() {
    for case in layernorm::cases(12, DType::Bf16) {
        let in_turn = emulated::layernorm(&case);
        for seed in 0..4 {
            assert_eq!(in_turn, emulated::layernorm_in_order(&case, softgpu::Order::Shuffled(seed)), "{case:?}");
        }
    }
}

/// Views that start off a 16-byte boundary take the element path and give the right result as well.
#[test]
fn layernorm_takes_unaligned_views() {
    for dtype in DTYPES {
        for case in layernorm::cases(12, dtype) {
            case.check(&emulated::layernorm_shifted(&case, 1));
        }
    }
}

/// Through the program's own backend, on the software device or on a GPU.
#[test]
fn layernorm_agrees_with_the_reference_on_the_device() {
    use bubblebench::ops::Rows;
    use bubblebench::ops::work::Operation;
    for dtype in DTYPES {
        harness::check_operations(dtype, shapes_per_dtype().div_ceil(4), |random| {
            let widest = if random.below(3) == 0 { 3000 } else { 200 };
            let cols = 1 + random.below(widest);
            let rows = Rows { rows: 1 + random.below((20_000 / cols).clamp(1, 60)), cols };
            match random.below(3) {
                0 => Operation::LayernormForward(rows),
                1 => Operation::LayernormToInputs(rows),
                _ => Operation::LayernormToWeights(rows),
            }
        });
    }
}

/// The reference itself, where the answer is known: x = (−1, 1) has mean 0 and deviation 1.
#[test]
fn the_reference_knows_a_case_by_heart() {
    let case = layernorm::Case {
        x: vec![-1.0, 1.0],
        gamma: vec![2.0, 2.0],
        beta: vec![0.5, 0.5],
        ..layernorm::Case::zeros(1, 2, DType::F32)
    };
    let reference = case.reference();
    let r = 1.0 / (1.0 + 1e-5_f64).sqrt();
    assert_eq!((reference.mean[0], reference.rstd[0]), (0.0, r));
    assert_eq!(reference.y, [-2.0 * r + 0.5, 2.0 * r + 0.5]);
}

/// A wrong result must not pass: one element off, one element never written.
#[test]
fn the_check_can_fail() {
    let case = layernorm::cases(1, DType::F32).remove(0);
    let right = emulated::layernorm(&case);
    let fails = |result: layernorm::Outputs| {
        let case = case.clone();
        std::panic::catch_unwind(move || case.check(&result)).is_err()
    };
    assert!(!fails(right.clone()));
    let mut off = right.clone();
    off.y[0] += 0.01;
    assert!(fails(off));
    let mut unwritten = right;
    unwritten.dgamma[0] = f64::NAN;
    assert!(fails(unwritten));
}
