//! The pressure kernels of cuda/pressure.cu on fibers: what each thread leaves is held against the same sum done here, to
//! the bit, so that a round left out, done twice or optimised away shows. And through the program's own launches.

use crate::harness;
use bubblebench::ops::cuda::pressure::{MOST_TENSOR_ROUNDS, TILE_BYTES};
use bubblebench::ops::cuda::{CudaPressure, PressureKernel, PressureResource};
use bubblebench::ops::{DType, Ops};
use bubblebench::stats::SplitMix;
use softgpu::{Arg, Buffer, Config, Order, launch};

const TILE_WORDS: usize = TILE_BYTES as usize / 4;

/// A launch, and what it is told.
#[derive(Debug, Clone, Copy)]
struct Case {
    resource: PressureResource,
    blocks: u32,
    slices: u32,
    rounds: u32,
    percent: u32,
    /// Slices that every block did in launches before.
    before: u64,
    tiles: usize,
    stop: bool,
}

impl Case {
    fn random(resource: PressureResource, random: &mut SplitMix) -> Self {
        let blocks = 1 + random.below(3) as u32;
        let walks = matches!(resource, PressureResource::Memory | PressureResource::Cache);
        let per_block = if walks { blocks as usize * (1 + random.below(3)) + random.below(2) } else { 0 };
        Case {
            resource,
            blocks,
            slices: 1 + random.below(3) as u32,
            rounds: 1 + random.below(7) as u32,
            percent: [100, 60][random.below(2)],
            before: random.below(100) as u64,
            tiles: per_block,
            stop: random.below(4) == 0,
        }
    }

    /// The stop is looked at after the first slice.
    fn slices_done(&self) -> u32 {
        if self.stop { 1 } else { self.slices }
    }
}

struct Outcome {
    sink: Vec<u32>,
    data: Vec<u32>,
    progress: Vec<u64>,
}

fn run(case: &Case, data: &[u32], order: Order) -> Outcome {
    let threads = case.resource.threads();
    let mut sink = Buffer::<u32>::poisoned((case.blocks * threads) as usize);
    let start = [case.before as u32, (case.before >> 32) as u32];
    let mut progress = Buffer::from_slice(&start.repeat(case.blocks as usize));
    let mut stop = Buffer::from_slice(&[u32::from(case.stop)]);
    let mut memory = Buffer::from_slice(data);
    let int = |value: u32| Arg::I32(value as i32);
    let mut arguments = vec![progress.arg(), stop.arg(), int(case.slices), int(case.rounds), int(case.percent)];
    arguments.push(sink.arg());
    if case.tiles > 0 {
        arguments.extend([memory.arg(), Arg::Pointer((case.tiles * TILE_WORDS / 4) as *mut _)]);
    }
    let config = Config::new([case.blocks, 1, 1], [threads, 1, 1]).order(order);
    // SAFETY: a word of progress a block, a word of the sink a thread, as many vectors as are told.
    unsafe { launch(&format!("pressure_{}", case.resource.name()), config, &arguments) }.unwrap();
    assert!(sink.intact() && progress.intact() && stop.intact() && memory.intact(), "{case:?}");
    let progress = progress.as_slice().chunks(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
    Outcome { sink: sink.as_slice().to_vec(), data: memory.as_slice().to_vec(), progress }
}

fn mixed(x: u32) -> u32 {
    let x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

fn next(x: u32) -> u32 {
    x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}

fn fraction(x: u32) -> f32 {
    (x >> 8) as f32 / (1 << 24) as f32
}

fn sum(values: impl Iterator<Item = u32>) -> u32 {
    values.fold(0, u32::wrapping_add)
}

/// What each thread's sum over one slice should be, where slices are all the same.
fn compute_slice(case: &Case) -> Vec<u32> {
    let rounds = case.rounds;
    let swing = |mut z: f32| {
        (0..rounds).for_each(|_| z = z.mul_add(-0.99999, 1.0));
        z.to_bits()
    };
    let threads = 0..case.resource.threads();
    match case.resource {
        PressureResource::Tensor => threads.map(|thread| rounds.wrapping_mul(product_sum(thread % 32))).collect(),
        PressureResource::Fma => {
            threads.map(|thread| sum((0..8).map(|chain| swing(fraction(mixed(thread * 8 + chain)))))).collect()
        }
        PressureResource::Issue => {
            let chain = |seed: u32| {
                let (mut x, mut y) = (seed, !seed);
                for _ in 0..rounds {
                    x = next(x);
                    y = (y ^ 1_664_525).wrapping_add(1_013_904_223);
                }
                x.wrapping_add(y).wrapping_add(swing(fraction(seed)))
            };
            threads.map(|thread| sum((0..4).map(|c| chain(mixed(thread * 4 + c))))).collect()
        }
        _ => threads
            .map(|thread| {
                let vector = |at: u32| sum((0..4).map(|word| mixed(4 * at + word)));
                let loads = (0..rounds).flat_map(|round| (0..8).map(move |k| thread + ((round * 32) & 255) + k * 256));
                sum(loads.map(vector))
            })
            .collect(),
    }
}

/// Sum over the eight chains of this lane's four elements of A·B, computed element by element.
fn product_sum(lane: u32) -> u32 {
    let small = |seed: u32, half: u32| (mixed(seed) >> (8 * half) & 15) as i32 - 8;
    // Element (row, k) of the left operand `which` lies in lane 4·(row mod 8) + (k mod 8) / 2.
    let a = |which: u32, row: u32, k: u32| {
        let register = row / 8 + 2 * (k / 8);
        small((row % 8 * 4 + k % 8 / 2) * 64 + which * 4 + register, k % 2)
    };
    let b = |which: u32, k: u32, column: u32| small((column * 4 + k % 8 / 2) * 64 + 32 + which * 2 + k / 8, k % 2);
    let (group, pair) = (lane / 4, lane % 4);
    let elements = (0..8u32).flat_map(|chain| (0..4u32).map(move |i| (chain, i)));
    let element = |(chain, i): (u32, u32)| -> i32 {
        let (row, column) = (group + i / 2 * 8, 2 * pair + i % 2);
        (0..16).map(|k| a(chain % 2, row, k) * b(chain / 2, k, column)).sum()
    };
    elements.map(element).sum::<i32>() as u32
}

/// What a block that walks through memory leaves: its threads' sums; `data` changes as the kernel changes it.
fn walk(case: &Case, block: usize, data: &mut [u32]) -> Vec<u32> {
    let (blocks, rounds) = (case.blocks as usize, case.rounds as usize);
    let memory = case.resource == PressureResource::Memory;
    let own = if memory { case.tiles / blocks } else { case.tiles };
    let mut sums = vec![0u32; 512];
    for slice in 0..case.slices_done() as usize {
        for round in 0..rounds {
            let visit = (case.before as usize + slice) * rounds + round;
            let tile = if memory { visit % own * blocks + block } else { (visit + block * own / blocks) % own };
            for (at, word) in data[tile * TILE_WORDS..][..TILE_WORDS].iter_mut().enumerate() {
                if memory {
                    *word = next(*word);
                }
                let of_thread = &mut sums[at / 4 % 512];
                *of_thread = of_thread.wrapping_add(*word);
            }
        }
    }
    sums
}

fn check(case: &Case, seed: u64, order: Order) {
    check_against(case, case, seed, order);
}

/// What `launched` leaves is what `case` should.
fn check_against(case: &Case, launched: &Case, seed: u64, order: Order) {
    let mut random = SplitMix(seed);
    let mut data: Vec<u32> = (0..case.tiles * TILE_WORDS).map(|_| random.next_u64() as u32).collect();
    let got = run(launched, &data, order);
    let done = case.slices_done();
    let sink: Vec<u32> = if case.tiles > 0 {
        (0..case.blocks as usize).flat_map(|block| walk(case, block, &mut data)).collect()
    } else {
        let slice: Vec<u32> = compute_slice(case).iter().map(|sum| sum.wrapping_mul(done)).collect();
        slice.repeat(case.blocks as usize)
    };
    assert_eq!(got.progress, vec![case.before + u64::from(done); case.blocks as usize], "{case:?}");
    assert!(got.data == data, "the memory differs: {case:?}");
    assert!(got.sink == sink, "a checksum differs: {case:?}");
}

#[test]
fn every_kernel_does_what_it_says_to_the_bit() {
    for resource in PressureResource::ALL {
        let mut random = SplitMix(resource.name().len() as u64);
        for seed in 0..200 {
            check(&Case::random(resource, &mut random), seed, Order::InTurn);
        }
    }
}

/// One round too few or too many is not forgiven, on no kernel.
#[test]
fn the_check_can_fail() {
    for resource in PressureResource::ALL {
        let mut random = SplitMix(8);
        let case = Case { before: 0, stop: false, ..Case::random(resource, &mut random) };
        for rounds in [case.rounds - 1, case.rounds + 1] {
            let other = Case { rounds, ..case };
            let outcome = std::panic::catch_unwind(|| check_against(&case, &other, 1, Order::InTurn));
            assert!(outcome.is_err(), "{resource:?}");
        }
    }
}

#[test]
fn the_order_of_threads_does_not_matter() {
    for resource in PressureResource::ALL {
        let mut random = SplitMix(3);
        for seed in 0..4 {
            check(&Case::random(resource, &mut random), seed, Order::Shuffled(seed));
        }
    }
}

/// The longest slice of products the program may ask for is still exact in fp32.
#[test]
fn sums_of_products_stay_exact() {
    let largest = (0..32).map(|lane| (product_sum(lane) as i32).unsigned_abs()).max().unwrap();
    assert!(largest > 0);
    // Any single element is at most 16 · 8 · 8.
    assert!(u64::from(MOST_TENSOR_ROUNDS) * 16 * 64 <= 1 << 24);
}

/// Through the program: progress counts on over launches, a stop ends what runs and what waits behind it.
#[test]
fn pressure_runs_on_the_device_and_stops() {
    let mut ops = harness::device(DType::F32);
    let (gpu, facts) = (ops.gpu().clone(), ops.facts().clone());
    for resource in PressureResource::ALL {
        let spec =
            PressureKernel { blocks: 2, ..PressureKernel::full(resource, facts.sms, facts.l2_bytes.min(1 << 20)) };
        let mut pressure = CudaPressure::new(&gpu, spec).unwrap();
        let control = pressure.control();
        assert_eq!(control.progress(), 0);
        pressure.launch(&mut ops, 2).unwrap();
        ops.synchronize().unwrap();
        let once = control.progress();
        assert!(once > 0 && once.is_multiple_of(2 * 2 * resource.units_per_round()), "{resource:?}");
        control.stop();
        pressure.launch(&mut ops, 1000).unwrap();
        ops.synchronize().unwrap();
        assert_eq!(control.progress(), once + once / 2, "one slice, then the stop is seen");
        control.rearm();
        pressure.launch(&mut ops, 2).unwrap();
        ops.synchronize().unwrap();
        assert_eq!(control.progress(), 2 * once + once / 2);
    }
}
