//! The emulation of `wgmma` itself (softgpu/wgmma.h), on products that are right and on products that are wrong in one way
//! each (tests/softgpu/cpp/selftest.cu).

use bubblebench::stats::SplitMix;
use half::bf16;
use softgpu::{Buffer, Config, Failure, Order, launch};

/// a (64×64), b (64 rows of 64 or 128) and the kernel's out, and by how much it is off at most.
fn product(kernel: &str, columns: usize, seed: u64) -> Result<f64, Failure> {
    let mut random = SplitMix(seed);
    let [a, b] = [64 * 64, 64 * columns].map(|n| {
        let values = (0..n).map(|_| bf16::from_f64(random.symmetric()));
        values.collect::<Vec<_>>()
    });
    let mut out = Buffer::<f32>::poisoned(64 * columns);
    let (mut left, mut right) = (Buffer::from_slice(&a), Buffer::from_slice(&b));
    let config = Config::new([1, 1, 1], [128, 1, 1]).shared(1024 + 128 * columns as u32).order(Order::Shuffled(seed));
    // SAFETY: as many elements as the kernel reads and writes.
    unsafe { launch(&format!("selftest_wgmma_{kernel}"), config, &[out.arg(), left.arg(), right.arg()]) }?;
    // 64 columns: b has a row for each column; 128: a row for each k.
    let factor = |k: usize, n: usize| if columns == 64 { b[n * 64 + k] } else { b[k * 128 + n] }.to_f64();
    let mut worst = 0.0f64;
    for (i, &is) in out.as_slice().iter().enumerate() {
        let (row, n) = (i / columns, i % columns);
        let want: f64 = (0..64).map(|k| a[row * 64 + k].to_f64() * factor(k, n)).sum();
        let off = (f64::from(is) - want).abs();
        worst = if off.is_nan() { f64::INFINITY } else { worst.max(off) };
    }
    Ok(worst)
}

#[test]
fn warpgroup_products_follow_their_descriptors() {
    for seed in 0..5 {
        for (kernel, columns) in [("by_k", 64), ("by_n", 128)] {
            assert!(product(kernel, columns, seed).unwrap() < 1e-4, "{kernel}");
        }
    }
}

/// Wrong offsets, a wrong swizzle or order of the operand, and registers or shared memory touched too early.
#[test]
fn wrong_warpgroup_products_show() {
    for seed in 0..5 {
        for (kernel, columns) in
            [("swizzle", 64), ("leading", 128), ("stride", 64), ("transposed", 128), ("no_wait", 64), ("early", 128)]
        {
            match product(kernel, columns, seed) {
                Ok(off) => assert!(off > 0.1, "{kernel} was not seen"),
                Err(failure) => assert!(failure.0.contains("reads beyond shared memory"), "{kernel}: {failure}"),
            }
        }
        for (kernel, columns, words) in [
            ("no_fence", 64, "no wgmma.fence"),
            ("no_proxy_fence", 128, "no fence.proxy.async"),
            ("disagree", 64, "do not agree"),
        ] {
            let failure = product(kernel, columns, seed).unwrap_err();
            assert!(failure.0.contains(words), "{kernel}: {failure}");
        }
    }
}
