//! `BUBBLEBENCH_WGMMA`: off by default, answered where the GPU has no wgmma, and taken where it has.

use bubblebench::ops::cuda::Cuda;
use bubblebench::ops::cuda::attention::forward_plan_wgmma;
use bubblebench::ops::{Attention, DType, Ops};
use half::bf16;
use softgpu::{Arg, Buffer, Config};

/// A head of 200 tokens.
fn shape(head_size: usize) -> Attention {
    Attention::new(1, 1, 200, head_size)
}

fn values(shape: Attention) -> Vec<f64> {
    (0..3 * shape.rows() * shape.width()).map(|i| (i * 7919 % 1013) as f64 / 506.0 - 1.0).collect()
}

/// lse through the backend, or why not.
fn forward(head_size: usize) -> bubblebench::Result<Vec<f64>> {
    let shape = shape(head_size);
    let len = shape.rows() * shape.width();
    let mut ops = Cuda::open(0, DType::Bf16)?;
    let mut qkv = ops.alloc(3 * len, DType::Bf16)?;
    ops.write(&mut qkv, &values(shape))?;
    let (mut out, mut lse) = (ops.alloc(len, DType::Bf16)?, ops.alloc(shape.lse_len(), DType::F32)?);
    ops.attention_forward(shape, &mut out, &mut lse, &qkv);
    ops.synchronize()?;
    ops.read(&lse)
}

/// lse of the kernel on wgmma: its sums are added in another order than the other kernel's, and it shows in some bits.
fn by_wgmma(head_size: usize) -> Vec<f64> {
    let shape = shape(head_size);
    let plan = forward_plan_wgmma(shape, DType::Bf16).unwrap();
    let qkv: Vec<bf16> = values(shape).into_iter().map(bf16::from_f64).collect();
    let (mut qkv, mut out) = (Buffer::from_slice(&qkv), Buffer::<bf16>::poisoned(shape.rows() * shape.width()));
    let mut lse = Buffer::<f32>::poisoned(shape.lse_len());
    let config = Config::new(plan.geometry.grid, plan.geometry.block).shared(plan.geometry.shared_bytes);
    let config = Config { shared_limit_bytes: 227 << 10, ..config };
    let sizes = [Arg::I32(1), Arg::I32(200), Arg::F32(shape.scale() as f32)];
    let arguments = [&[out.arg(), lse.arg(), qkv.arg()], &sizes[..]].concat();
    // SAFETY: the buffers have the lengths of the kernel's contract.
    unsafe { softgpu::launch(&plan.kernel, config, &arguments) }.unwrap();
    lse.as_slice().iter().map(|&v| f64::from(v)).collect()
}

alone!(wgmma_is_taken_where_it_is_asked_for, [("BUBBLEBENCH_WGMMA", "1")], {
    let ops = Cuda::open(0, DType::Bf16).unwrap();
    for head_size in [64, 128] {
        assert!(forward(head_size).unwrap() == by_wgmma(head_size));
        let kernel = ops.attention_kernel(shape(head_size)).unwrap();
        assert_eq!(kernel, forward_plan_wgmma(shape(head_size), DType::Bf16).unwrap().kernel);
    }
    // Head sizes it has no kernel for stay where they were.
    assert!(forward(96).unwrap().iter().all(|v| v.is_finite()));
});

alone!(wgmma_is_off_by_default, {
    for head_size in [64, 128] {
        assert!(forward(head_size).unwrap() != by_wgmma(head_size));
    }
});

alone!(wgmma_is_refused_on_an_older_gpu, [("BUBBLEBENCH_WGMMA", "1"), ("SOFTGPU_ARCH", "80")], {
    let error = forward(128).unwrap_err().to_string();
    assert!(error.contains("BUBBLEBENCH_WGMMA=1") && error.contains("has 8.0: unset"), "{error}");
});
