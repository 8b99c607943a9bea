//! The emulation itself, on kernels that are right and on kernels that are wrong on purpose (tests/softgpu/cpp/selftest.cu).

use half::{bf16, f16};
use softgpu::{Arg, Buffer, Config, Failure, Order, launch};

const ONE: [u32; 3] = [1, 1, 1];

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn over_shared(kernel: &str, n: usize, order: Order) -> Result<(Vec<f32>, Vec<f32>), Failure> {
    let values = numbers(n, n as u64);
    let (mut out, mut input) = (Buffer::poisoned(n), Buffer::from_slice(&values));
    let config = Config::new(ONE, [n as u32, 1, 1]).shared(4 * n as u32).order(order);
    // SAFETY: both buffers hold one element a thread.
    unsafe { launch(kernel, config, &[out.arg(), input.arg()]) }?;
    assert!(out.intact() && input.intact());
    Ok((values, out.as_slice().to_vec()))
}

#[test]
fn barriers_order_what_they_should_in_any_order() {
    for order in (0..20).map(Order::Shuffled).chain([Order::InTurn]) {
        for n in [32, 100, 256, 1024] {
            let (values, out) = over_shared("selftest_reverse", n, order).unwrap();
            assert!(values.iter().rev().eq(out.iter()), "{n} threads, {order:?}");
        }
    }
}

#[test]
fn a_missing_barrier_shows() {
    let seen = |kernel: &str, right: &dyn Fn(&[f32]) -> Vec<f32>| {
        (0..10)
            .filter(|&seed| {
                let (values, out) = over_shared(kernel, 256, Order::Shuffled(seed)).unwrap();
                out != right(&values)
            })
            .count()
    };
    assert!(seen("selftest_race_read", &|v| v.iter().rev().copied().collect()) >= 9);
    let rotated = |v: &[f32]| {
        let first = |i: usize| v[(i + 32) % v.len()];
        (0..v.len()).map(|i| first(i) - first(i) - first((i + 32) % v.len())).collect()
    };
    assert!(seen("selftest_race_write", &rotated) >= 5);
}

#[test]
fn threads_at_different_barriers_are_a_deadlock() {
    for kernel in ["selftest_deadlock_branch", "selftest_deadlock_sites"] {
        for order in [Order::InTurn, Order::Shuffled(3)] {
            let mut out = Buffer::<f32>::poisoned(64);
            let config = Config::new(ONE, [64, 1, 1]).order(order);
            // SAFETY: one element a thread.
            let failure = unsafe { launch(kernel, config, &[out.arg()]) }.unwrap_err();
            assert!(failure.0.contains("deadlock") && failure.0.contains("selftest.cu:"), "{failure}");
        }
    }
}

#[test]
fn a_warp_sums_and_shuffles() {
    let (values, out) = over_shared("selftest_warp_sum", 96, Order::Shuffled(1)).unwrap();
    for (i, &sum) in out.iter().enumerate() {
        let exact: f64 = values[i / 32 * 32..][..32].iter().map(|&v| f64::from(v)).sum();
        assert!((f64::from(sum) - exact).abs() < 1e-5);
    }
    let values = numbers(64, 9);
    let (mut out, mut votes) = (Buffer::<f32>::poisoned(256), Buffer::<u32>::poisoned(64));
    let mut input = Buffer::from_slice(&values);
    let config = Config::new(ONE, [64, 1, 1]).order(Order::Shuffled(2));
    // SAFETY: four outputs, one vote and one input a thread.
    unsafe { launch("selftest_shuffles", config, &[out.arg(), votes.arg(), input.arg()]) }.unwrap();
    let positive = values.iter().filter(|&&v| v > 0.0).count() as u32;
    for i in 0..64 {
        let (warp, sub) = (i / 32 * 32, i % 16);
        let expected = [
            if sub + 3 < 16 { values[i + 3] } else { values[i] },
            if sub >= 2 { values[i - 2] } else { values[i] },
            values[i ^ 5],
            values[warp + 31],
        ];
        assert_eq!(&out.as_slice()[4 * i..4 * i + 4], &expected);
        let ballot = (0..32).fold(0, |bits, lane| bits | u32::from(values[warp + lane] > 0.0) << lane);
        assert_eq!(votes.as_slice()[i], ballot ^ positive << 24);
    }
}

#[test]
fn what_a_driver_refuses_is_refused() {
    let mut out = Buffer::<f32>::poisoned(64);
    let mut input = Buffer::from_slice(&numbers(64, 1));
    let refused = |kernel: &str, config: Config, arguments: &[Arg], why: &str| {
        // SAFETY: none of these launches gets as far as an access.
        let failure = unsafe { launch(kernel, config, arguments) }.unwrap_err();
        assert!(failure.0.contains(why), "{failure}");
    };
    let (to, from) = (out.arg(), input.arg());
    let block = |n| Config::new(ONE, [n, 1, 1]);
    refused("selftest_reverse", block(1025), &[to, from], "threads a block");
    refused("selftest_reverse", block(0), &[to, from], "empty");
    refused("selftest_reverse", block(32).shared(48 * 1024 + 1), &[to, from], "shared memory");
    refused("selftest_reverse", block(32), &[to], "takes 2 arguments");
    refused("selftest_reverse", block(32), &[to, Arg::I32(1)], "argument 1 has 8 bytes");
    refused("selftest_nothing", block(32), &[], "no kernel named");
    refused("selftest_misaligned", block(1), &[to, from], "misaligned");
    assert!(out.intact());
}

#[test]
fn a_write_beyond_the_end_is_found() {
    let mut out = Buffer::<f32>::poisoned(10);
    // SAFETY: the kernel writes one element behind the end, which the margin holds.
    unsafe { launch("selftest_out_of_bounds", Config::new(ONE, [32, 1, 1]), &[out.arg(), Arg::I32(10)]) }.unwrap();
    assert!(!out.intact());
}

#[test]
fn narrow_types_round_as_the_half_crate_does() {
    // Every f16 and bf16 with its neighbourhood, and bits at random: ties, subnormals, overflow and infinities included.
    let mut values: Vec<f32> = (0..=u16::MAX)
        .flat_map(|bits| {
            let (b, h) = (bf16::from_bits(bits).to_f32(), f16::from_bits(bits).to_f32());
            let halfway = |a: f32, b: f32| f32::midpoint(a, b);
            let (up_b, up_h) = (bf16::from_bits(bits ^ 1).to_f32(), f16::from_bits(bits ^ 1).to_f32());
            [b, h, halfway(b, up_b), halfway(h, up_h)]
        })
        .collect();
    let mut state = 77u64;
    values.extend((0..100_000).map(|_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        f32::from_bits((state >> 32) as u32)
    }));
    let n = values.len();
    let (mut b, mut h, mut input) =
        (Buffer::<u16>::poisoned(n), Buffer::<u16>::poisoned(n), Buffer::from_slice(&values));
    let config = Config::new([n.div_ceil(256) as u32, 1, 1], [256, 1, 1]);
    // SAFETY: all three hold n elements.
    unsafe { launch("selftest_round", config, &[b.arg(), h.arg(), input.arg(), Arg::I32(n as i32)]) }.unwrap();
    for (i, &v) in values.iter().enumerate() {
        let (to_b, to_h) = (bf16::from_bits(b.as_slice()[i]), f16::from_bits(h.as_slice()[i]));
        if v.is_nan() {
            assert!(to_b.is_nan() && to_h.is_nan());
        } else {
            assert_eq!((to_b, to_h), (bf16::from_f32(v), f16::from_f32(v)), "{v:e}");
        }
    }
}

#[test]
fn tensor_core_products_have_the_documented_layout() {
    let (a, b, d) = (numbers(256, 3), numbers(128, 4), numbers(128, 5));
    let narrow = |v: &[f32]| v.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
    let (a, b) = (narrow(&a), narrow(&b));
    let (mut da, mut db, mut dd) = (Buffer::from_slice(&a), Buffer::from_slice(&b), Buffer::from_slice(&d));
    // SAFETY: 16×16, 8×16 and 16×8 elements.
    unsafe { launch("selftest_mma_bf16", Config::new(ONE, [32, 1, 1]), &[dd.arg(), da.arg(), db.arg()]) }.unwrap();
    for row in 0..16 {
        for col in 0..8 {
            let exact: f64 = f64::from(d[row * 8 + col])
                + (0..16).map(|k| a[row * 16 + k].to_f64() * b[col * 16 + k].to_f64()).sum::<f64>();
            assert!((f64::from(dd.as_slice()[row * 8 + col]) - exact).abs() < 1e-5, "{row},{col}");
        }
    }
    // Half a warp cannot multiply.
    let half = Config::new(ONE, [16, 1, 1]);
    // SAFETY: as above; the launch fails before an access.
    let half_warp = unsafe { launch("selftest_mma_bf16", half, &[dd.arg(), da.arg(), db.arg()]) };
    assert!(half_warp.is_err());
}

/// An asynchronous copy is there after the wait and a barrier, and not before: each of the two left out is seen, and so
/// is a copy that begins over what others still read.
#[test]
fn asynchronous_copies_arrive_at_the_wait() {
    let values = numbers(1024, 11);
    let run = |kernel: &str, seed| {
        let (mut out, mut input) = (Buffer::<f32>::poisoned(1024), Buffer::from_slice(&values));
        let config = Config::new(ONE, [256, 1, 1]).shared(4096).order(Order::Shuffled(seed));
        // SAFETY: both hold four elements a thread.
        unsafe { launch(kernel, config, &[out.arg(), input.arg()]) }.unwrap();
        out.as_slice().iter().eq(values.iter().rev())
    };
    for seed in 0..10 {
        assert!(run("selftest_copy", seed));
        for wrong in ["selftest_copy_no_wait", "selftest_copy_no_barrier", "selftest_copy_too_early"] {
            assert!(!run(wrong, seed), "{wrong} was not seen");
        }
    }
    let (mut out, mut input) = (Buffer::<f32>::poisoned(12), Buffer::from_slice(&values[..12]));
    // SAFETY: three groups of four elements.
    unsafe { launch("selftest_copy_groups", Config::new(ONE, ONE).shared(48), &[out.arg(), input.arg()]) }.unwrap();
    assert_eq!(&out.as_slice()[..4], &values[..4]);
    assert_eq!(&out.as_slice()[4..8], &[0.0; 4]);
    assert!(out.as_slice()[8..].iter().all(|v| v.is_nan()));
}

#[test]
fn matrices_are_loaded_as_documented() {
    let values: Vec<u16> = (0..256).collect();
    for (kernel, count, trans) in [
        ("selftest_ldmatrix", 4, false),
        ("selftest_ldmatrix_trans", 4, true),
        ("selftest_ldmatrix_x2", 2, false),
        ("selftest_ldmatrix_x2_trans", 2, true),
    ] {
        let (mut out, mut input) = (Buffer::<u16>::poisoned(64 * count), Buffer::from_slice(&values));
        // SAFETY: four matrices in, as many out as the kernel loads.
        unsafe { launch(kernel, Config::new(ONE, [32, 1, 1]).shared(512), &[out.arg(), input.arg()]) }.unwrap();
        for (i, &value) in out.as_slice().iter().enumerate() {
            let (matrix, row, column) = (i / 64, i % 64 / 8, i % 8);
            let at = if trans { column * 8 + row } else { row * 8 + column };
            assert_eq!(usize::from(value), matrix * 64 + at, "{kernel}, element {i}");
        }
    }
}
