//! The forward attention of compute capability 9.0 (`wgmma`, off by default) against the reference, on fibers: the
//! emulation decodes descriptors and swizzle and holds back what no wait has been for (softgpu/wgmma.h).

use crate::attention::{narrow, wide};
use crate::harness::assert_close;
use crate::orders::{self, Fill, Launch, Operand};
use crate::shapes_per_dtype;
use bubblebench::ops::cuda::attention::forward_plan_wgmma;
use bubblebench::ops::reference::Reference;
use bubblebench::ops::{Attention, DType, Ops};
use bubblebench::stats::SplitMix;
use softgpu::{Arg, Buffer, Config, Order};

const HEAD_SIZES: [usize; 2] = [64, 128];
const DTYPES: [DType; 2] = [DType::Bf16, DType::F16];

/// Sequences around the edges of tiles and warps, and ragged ones between.
fn shape(random: &mut SplitMix) -> Attention {
    let edges = [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257];
    let longest = [30, 100, 150, 300][random.below(4)];
    let sequence = if random.below(3) == 0 { edges[random.below(edges.len())] } else { 1 + random.below(longest) };
    let lines = if sequence > 100 { 1 } else { 1 + random.below(3) };
    let head_size = HEAD_SIZES[random.below(2)];
    Attention::new(1 + random.below(lines), 1 + random.below(lines), sequence, head_size)
}

/// out and lse of the kernel.
fn forward(shape: Attention, dtype: DType, qkv: &mut Buffer<u16>, order: Order) -> (Buffer<u16>, Buffer<f32>) {
    let plan = forward_plan_wgmma(shape, dtype).unwrap();
    let (mut out, mut lse) = (Buffer::poisoned(shape.rows() * shape.width()), Buffer::poisoned(shape.lse_len()));
    let shared = plan.geometry.shared_bytes;
    let config = Config::new(plan.geometry.grid, plan.geometry.block).shared(shared).order(order);
    let config = Config { shared_limit_bytes: 227 << 10, ..config };
    let [heads, sequence] = [shape.heads, shape.sequence].map(|n| Arg::I32(n as i32));
    let arguments = [out.arg(), lse.arg(), qkv.arg(), heads, sequence, Arg::F32(shape.scale() as f32)];
    // SAFETY: the buffers have the lengths of the kernel's contract.
    unsafe { softgpu::launch(&plan.kernel, config, &arguments) }.unwrap_or_else(|e| panic!("{plan:?}: {e}"));
    assert!(out.intact() && lse.intact() && qkv.intact(), "{shape:?}: a write out of bounds");
    (out, lse)
}

fn check(shape: Attention, dtype: DType, scale: f64, random: &mut SplitMix) {
    let len = shape.rows() * shape.width();
    let mut qkv = narrow(&(0..3 * len).map(|_| scale * random.symmetric()).collect::<Vec<_>>(), dtype);
    let order = if random.below(2) == 0 { Order::InTurn } else { Order::Shuffled(random.next_u64()) };
    let (out, lse) = forward(shape, dtype, &mut qkv, order);
    let mut ops = Reference::new();
    let [mut qkv_64, mut out_64, mut lse_64] =
        [3 * len, len, shape.lse_len()].map(|n| ops.alloc(n, DType::F64).unwrap());
    ops.write(&mut qkv_64, &wide(&qkv, dtype)).unwrap();
    ops.attention_forward(shape, &mut out_64, &mut lse_64, &qkv_64);
    let lse: Vec<f64> = lse.as_slice().iter().map(|&v| f64::from(v)).collect();
    assert_close(&format!("out of {shape:?}"), &wide(&out, dtype), &ops.read(&out_64).unwrap(), dtype);
    assert_close(&format!("lse of {shape:?}"), &lse, &ops.read(&lse_64).unwrap(), DType::F32);
}

#[test]
fn wgmma_attention_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut random = SplitMix(0x56a90 + dtype as u64);
        for i in 0..shapes_per_dtype() {
            let shape = shape(&mut random);
            check(shape, dtype, [1.0, 2.0, 4.0][i % 3], &mut random);
        }
    }
}

/// Long enough that every stage is filled more than once.
#[test]
fn wgmma_attention_goes_round_its_stages() {
    let mut random = SplitMix(0x21a6);
    for (head_size, dtype) in [(64, DType::Bf16), (128, DType::Bf16), (64, DType::F16), (128, DType::F16)] {
        let sequence = 640 + random.below(160);
        check(Attention::new(1, 1, sequence, head_size), dtype, 2.0, &mut random);
    }
}

#[test]
fn wgmma_attention_does_not_depend_on_the_order_of_threads() {
    for (head_size, sequence) in [(64, 700), (128, 530), (128, 77)] {
        let shape = Attention::new(1, 1, sequence, head_size);
        let plan = forward_plan_wgmma(shape, DType::Bf16).unwrap();
        let len = shape.rows() * shape.width();
        let fills = [Fill::Poison(len), Fill::PoisonWide(shape.lse_len()), Fill::Random(3 * len)];
        let sizes = [shape.heads, shape.sequence].map(|n| Operand::Int(n as i32));
        let tensors = [0, 1, 2].map(Operand::Tensor);
        let operands = [&tensors[..], &sizes, &[Operand::Real(shape.scale() as f32)]].concat();
        orders::check(&fills, &[Launch { kernel: plan.kernel, geometry: plan.geometry, operands }]);
    }
}

/// What comes later changes nothing before it, not even a bit.
#[test]
fn wgmma_attention_does_not_see_later_tokens() {
    for head_size in HEAD_SIZES {
        let shape = Attention::new(1, 2, 150, head_size);
        let row = 3 * shape.width();
        let mut random = SplitMix(9);
        let mut qkv: Vec<f64> = (0..shape.rows() * row).map(|_| random.symmetric()).collect();
        let run = |qkv: &[f64]| {
            forward(shape, DType::Bf16, &mut narrow(qkv, DType::Bf16), Order::InTurn).0.as_slice().to_vec()
        };
        let before = run(&qkv);
        for changed in [149, 128, 100, 64, 1] {
            qkv[changed * row..].iter_mut().for_each(|v| *v = 10.0 * random.symmetric());
            let (after, first) = (run(&qkv), changed * shape.width());
            assert!(before[..first] == after[..first], "token {changed} reached one before it");
            assert!(before[first..] != after[first..], "token {changed} changed nothing");
        }
    }
}
