//! Causal attention against the reference: through the backend, and each tile by itself on fibers.

use crate::harness::{Twin, assert_close};
use crate::orders::{self, Fill, Launch, Operand};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::attention::{AttentionPlan, HEAD_SIZES, backward_plans, forward_plan, scratch_lens};
use bubblebench::ops::reference::Reference;
use bubblebench::ops::{Attention, DType, Ops};
use bubblebench::stats::SplitMix;
use half::{bf16, f16};
use softgpu::{Arg, Buffer, Config, Order};

/// What a block may have on compute capability 8.6, 8.0 and 9.0: each chooses other tiles.
const LIMITS: [u32; 3] = [99 << 10, 163 << 10, 227 << 10];

/// Every head size, sequences around the tiles' edges and ragged ones between.
fn shape(random: &mut SplitMix, dtype: DType) -> Attention {
    let head_size = match dtype {
        DType::F32 => [1 + random.below(256), HEAD_SIZES[random.below(6)], 1 + random.below(40)][random.below(3)],
        _ => HEAD_SIZES[random.below(6)],
    };
    let longest = [30, 100, 100, 200, if head_size > 128 { 130 } else { 300 }][random.below(5)];
    let longest = if dtype == DType::F32 { longest.min(70) } else { longest };
    let edges = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129];
    let sequence = if random.below(3) == 0 { edges[random.below(edges.len())] } else { 1 + random.below(longest) };
    let lines = if sequence > 100 { 1 } else { 1 + random.below(3) };
    Attention::new(1 + random.below(lines), 1 + random.below(lines), sequence, head_size)
}

/// q, k and v parts of packed rows, one after the other.
fn parts(shape: Attention, qkv: &[f64]) -> [Vec<f64>; 3] {
    let width = shape.width();
    [0, 1, 2].map(|part| qkv.chunks(3 * width).flat_map(|row| row[part * width..][..width].to_vec()).collect())
}

/// Gradients of q, k and v, each by its own scale. A single token has no gradient but v's.
fn check_gradients(shape: Attention, got: &[f64], want: &[f64], dtype: DType) {
    assert_close(&format!("dqkv of {shape:?}"), got, want, dtype);
    for ((name, got), want) in ["dq", "dk", "dv"].iter().zip(parts(shape, got)).zip(parts(shape, want)) {
        if shape.sequence > 1 {
            assert_close(&format!("{name} of {shape:?}"), &got, &want, dtype);
        }
    }
}

#[test]
fn attention_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 0xa77e);
        for i in 0..shapes_per_dtype() {
            let shape = shape(&mut twin.random, dtype);
            let len = shape.rows() * shape.width();
            // From nearly equal weights to one key that takes all (in f32 less: the exponent of a large score has lost
            // the digits the bound asks for).
            let scale = if dtype == DType::F32 { [0.5, 1.0, 2.0][i % 3] } else { [1.0, 2.0, 4.0][i % 3] };
            let qkv = twin.tensor(3 * len, dtype, 0.0, scale);
            let (mut out, mut lse) = (twin.poisoned(len, dtype), twin.poisoned(shape.lse_len(), DType::F32));
            twin.cuda.attention_forward(shape, &mut out.cuda, &mut lse.cuda, &qkv.cuda);
            twin.reference.attention_forward(shape, &mut out.reference, &mut lse.reference, &qkv.reference);
            twin.check(&format!("out of {shape:?}"), &out);
            twin.check(&format!("lse of {shape:?}"), &lse);
            // The backward pass is given the same rounded results on both.
            let (values, sums) = (twin.cuda.read(&out.cuda).unwrap(), twin.cuda.read(&lse.cuda).unwrap());
            twin.reference.write(&mut out.reference, &values).unwrap();
            twin.reference.write(&mut lse.reference, &sums).unwrap();
            let (dout, mut dqkv) = (twin.random(len), twin.poisoned(3 * len, dtype));
            let mut delta = twin.poisoned(shape.lse_len(), DType::F32);
            let (c, d) = (&mut twin.cuda, &mut dqkv.cuda);
            c.attention_backward(shape, d, &dout.cuda, &qkv.cuda, &out.cuda, &lse.cuda, &mut delta.cuda);
            let (r, d, o) = (&mut twin.reference, &mut dqkv.reference, &out.reference);
            r.attention_backward(shape, d, &dout.reference, &qkv.reference, o, &lse.reference, &mut delta.reference);
            let (got, want) = (twin.cuda.read(&dqkv.cuda).unwrap(), twin.reference.read(&dqkv.reference).unwrap());
            check_gradients(shape, &got, &want, dtype);
        }
    }
}

/// A token that sees only itself: out is v, lse its own score; dv is dout, and nothing reaches q and k.
#[test]
fn attention_of_one_token_is_known() {
    for dtype in DTYPES {
        for head_size in HEAD_SIZES {
            let mut twin = Twin::new(dtype, 7);
            let shape = Attention::new(2, 3, 1, head_size);
            let len = shape.rows() * shape.width();
            let (qkv, dout) = (twin.random(3 * len), twin.random(len));
            let mut out = twin.cuda.alloc(len, dtype).unwrap();
            let [mut lse, mut delta] = [(); 2].map(|()| twin.cuda.alloc(shape.lse_len(), DType::F32).unwrap());
            let mut dqkv = twin.cuda.alloc(3 * len, dtype).unwrap();
            twin.cuda.attention_forward(shape, &mut out, &mut lse, &qkv.cuda);
            twin.cuda.attention_backward(shape, &mut dqkv, &dout.cuda, &qkv.cuda, &out, &lse, &mut delta);
            let [q, k, v] = parts(shape, &twin.cuda.read(&qkv.cuda).unwrap());
            assert_eq!(twin.cuda.read(&out).unwrap(), v);
            for (i, lse) in twin.cuda.read(&lse).unwrap().iter().enumerate() {
                let head = i * head_size..(i + 1) * head_size;
                let score: f64 = q[head.clone()].iter().zip(&k[head]).map(|(q, k)| q * k).sum();
                assert!((lse - score * shape.scale()).abs() < 1e-5, "{lse} {score}");
            }
            let [dq, dk, dv] = parts(shape, &twin.cuda.read(&dqkv).unwrap());
            assert_eq!(dv, twin.cuda.read(&dout.cuda).unwrap());
            assert!(dq.iter().chain(&dk).all(|d| d.abs() < 1e-5));
        }
    }
}

/// What comes later changes nothing before it, not even a bit.
#[test]
fn attention_does_not_see_later_tokens() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 8);
        let shape = Attention::new(1, 2, 150, 64);
        let (len, row) = (shape.rows() * shape.width(), 3 * shape.width());
        let mut forward = |qkv: &[f64]| {
            let mut buffer = twin.cuda.alloc(3 * len, dtype).unwrap();
            twin.cuda.write(&mut buffer, qkv).unwrap();
            let (mut out, mut lse) =
                (twin.cuda.alloc(len, dtype).unwrap(), twin.cuda.alloc(shape.lse_len(), DType::F32).unwrap());
            twin.cuda.attention_forward(shape, &mut out, &mut lse, &buffer);
            twin.cuda.read(&out).unwrap()
        };
        let mut random = SplitMix(9);
        let mut qkv: Vec<f64> = (0..3 * len).map(|_| random.symmetric()).collect();
        let before = forward(&qkv);
        for changed in [149, 128, 100, 64, 1] {
            qkv[changed * row..].iter_mut().for_each(|v| *v = 10.0 * random.symmetric());
            let after = forward(&qkv);
            let first = changed * shape.width();
            assert!(before[..first] == after[..first], "{dtype:?}: token {changed} reached one before it");
            assert!(before[first..] != after[first..], "{dtype:?}: token {changed} changed nothing");
        }
    }
}

#[test]
fn a_head_size_without_a_kernel_is_refused() {
    let mut twin = Twin::new(DType::Bf16, 1);
    let shape = Attention::new(1, 1, 4, 48);
    let qkv = twin.random(3 * 4 * 48);
    let mut out = twin.cuda.alloc(4 * 48, DType::Bf16).unwrap();
    let mut lse = twin.cuda.alloc(4, DType::F32).unwrap();
    twin.cuda.attention_forward(shape, &mut out, &mut lse, &qkv.cuda);
    let error = twin.cuda.synchronize().unwrap_err().to_string();
    assert!(error.contains("head size of 48") && error.contains("32, 64, 80, 96, 128, 256"), "{error}");
}

// --- each tile by itself, on fibers --------------------------------------------------------------------------------

pub fn narrow(values: &[f64], dtype: DType) -> Buffer<u16> {
    let bits = |v: &f64| if dtype == DType::F16 { f16::from_f64(*v).to_bits() } else { bf16::from_f64(*v).to_bits() };
    Buffer::from_slice(&values.iter().map(bits).collect::<Vec<_>>())
}

pub fn wide(buffer: &Buffer<u16>, dtype: DType) -> Vec<f64> {
    let value = |&bits: &u16| {
        if dtype == DType::F16 { f16::from_bits(bits).to_f64() } else { bf16::from_bits(bits).to_f64() }
    };
    buffer.as_slice().iter().map(value).collect()
}

fn run(plan: &AttentionPlan, limit: u32, arguments: &[Arg]) {
    let config = Config { shared_limit_bytes: limit, ..Config::new(plan.geometry.grid, plan.geometry.block) };
    let config = config.shared(plan.geometry.shared_bytes).order(Order::Shuffled(5));
    // SAFETY: the buffers below have the lengths of the kernels' contract.
    unsafe { softgpu::launch(&plan.kernel, config, arguments) }.unwrap_or_else(|e| panic!("{plan:?}: {e}"));
}

/// Forward and backward with the tiles of a GPU with that much shared memory.
fn check_tiles(shape: Attention, dtype: DType, limit: u32, random: &mut SplitMix) {
    let (len, lines) = (shape.rows() * shape.width(), shape.lse_len());
    let [qkv, dout] = [3 * len, len].map(|n| (0..n).map(|_| random.symmetric()).collect::<Vec<_>>());
    let (mut qkv, mut dout) = (narrow(&qkv, dtype), narrow(&dout, dtype));
    let (mut out, mut dqkv) = (Buffer::<u16>::poisoned(len), Buffer::<u16>::poisoned(3 * len));
    let [mut lse, mut statistics, mut sums] =
        [lines, scratch_lens(shape)[0], scratch_lens(shape)[1]].map(Buffer::<f32>::poisoned);
    let [heads, sequence, head] = [shape.heads, shape.sequence, shape.head_size].map(|n| Arg::I32(n as i32));
    let scale = Arg::F32(shape.scale() as f32);
    let forward = forward_plan(shape, dtype, limit).unwrap();
    run(&forward, limit, &[out.arg(), lse.arg(), qkv.arg(), heads, sequence, scale]);
    let plans = backward_plans(shape, dtype, limit).unwrap();
    run(&plans[0], limit, &[statistics.arg(), sums.arg(), dout.arg(), out.arg(), lse.arg(), heads, sequence, head]);
    let operands = [dqkv.arg(), sums.arg(), statistics.arg(), dout.arg(), qkv.arg(), heads, sequence, scale];
    run(&plans[1], limit, &operands);
    run(&plans[2], limit, &[dqkv.arg(), sums.arg(), heads, sequence, head, scale]);
    assert!(
        [&out, &dqkv, &qkv, &dout].iter().all(|b| b.intact()) && [&lse, &statistics, &sums].iter().all(|b| b.intact())
    );

    let mut ops = Reference::new();
    let mut tensor = |values: &[f64]| {
        let mut buffer = ops.alloc(values.len(), DType::F64).unwrap();
        ops.write(&mut buffer, values).unwrap();
        buffer
    };
    let (q, d, o) = (tensor(&wide(&qkv, dtype)), tensor(&wide(&dout, dtype)), tensor(&wide(&out, dtype)));
    let l = tensor(&lse.as_slice().iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    let (mut ro, mut rl, mut rd, mut delta) =
        (tensor(&vec![0.0; len]), tensor(&vec![0.0; lines]), tensor(&vec![0.0; 3 * len]), tensor(&vec![0.0; lines]));
    ops.attention_forward(shape, &mut ro, &mut rl, &q);
    ops.attention_backward(shape, &mut rd, &d, &q, &o, &l, &mut delta);
    let (got_lse, want_lse) = (ops.read(&l).unwrap(), ops.read(&rl).unwrap());
    assert_close(&format!("out of {shape:?}"), &wide(&out, dtype), &ops.read(&ro).unwrap(), dtype);
    assert_close(&format!("lse of {shape:?}"), &got_lse, &want_lse, DType::F32);
    check_gradients(shape, &wide(&dqkv, dtype), &ops.read(&rd).unwrap(), dtype);
}

#[test]
fn every_attention_tile_agrees_with_the_reference() {
    let mut random = SplitMix(0x711e);
    for limit in LIMITS {
        for head_size in HEAD_SIZES {
            for dtype in [DType::Bf16, DType::F16] {
                for sequence in [1 + random.below(20), 64 + random.below(100)] {
                    let shape = Attention::new(1, 1 + random.below(2), sequence, head_size);
                    check_tiles(shape, dtype, limit, &mut random);
                }
            }
        }
    }
}

/// On the GPU the sums of dq are added up in whatever order blocks come; here blocks run one after the other.
#[test]
fn attention_does_not_depend_on_the_order_of_threads() {
    for limit in LIMITS {
        for head_size in HEAD_SIZES {
            let shape = Attention::new(1, 1, 150 - head_size / 4, head_size);
            check_orders(shape, limit);
        }
    }
}

fn check_orders(shape: Attention, limit: u32) {
    let (len, [statistics, sums]) = (shape.rows() * shape.width(), scratch_lens(shape));
    let fills = [
        Fill::Random(3 * len),
        Fill::Random(len),
        Fill::Poison(len),
        Fill::PoisonWide(shape.lse_len()),
        Fill::Poison(3 * len),
        Fill::PoisonWide(statistics),
        Fill::PoisonWide(sums),
    ];
    let [heads, sequence, head] = [shape.heads, shape.sequence, shape.head_size].map(|n| Operand::Int(n as i32));
    let scale = Operand::Real(shape.scale() as f32);
    let launch = |plan: AttentionPlan, tensors: &[usize], rest: &[Operand]| Launch {
        kernel: plan.kernel,
        geometry: plan.geometry,
        operands: tensors.iter().map(|&i| Operand::Tensor(i)).chain(rest.iter().copied()).collect(),
    };
    let mut plans = backward_plans(shape, DType::Bf16, limit).unwrap().into_iter();
    let mut next = || plans.next().unwrap();
    let launches = [
        launch(forward_plan(shape, DType::Bf16, limit).unwrap(), &[2, 3, 0], &[heads, sequence, scale]),
        launch(next(), &[5, 6, 1, 2, 3], &[heads, sequence, head]),
        launch(next(), &[4, 6, 5, 1, 0], &[heads, sequence, scale]),
        launch(next(), &[4, 6], &[heads, sequence, head, scale]),
    ];
    orders::check(&fills, &launches);
}
