//! The same bits whatever the order in which lanes and warps run between their meeting points: a missing barrier, or a
//! sum whose order is left to chance, would show. Launches kernels on fibers directly, in bf16.

use bubblebench::ops::cuda::Geometry;
use bubblebench::stats::SplitMix;
use half::bf16;
use softgpu::{Arg, Buffer, Config, Order};

/// What a tensor holds before the launches.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// Random bf16.
    Random(usize),
    /// Poisoned bf16.
    Poison(usize),
    /// Poisoned fp32.
    PoisonWide(usize),
}

#[derive(Debug, Clone, Copy)]
pub enum Operand {
    /// Index of a tensor.
    Tensor(usize),
    Int(i32),
    Real(f32),
}

pub struct Launch {
    pub kernel: String,
    pub geometry: Geometry,
    pub operands: Vec<Operand>,
}

enum Tensor {
    Narrow(Buffer<bf16>),
    Wide(Buffer<f32>),
}

impl Tensor {
    fn new(fill: Fill, random: &mut SplitMix) -> Self {
        match fill {
            Fill::Random(len) => {
                let values: Vec<bf16> = (0..len).map(|_| bf16::from_f64(random.symmetric())).collect();
                Tensor::Narrow(Buffer::from_slice(&values))
            }
            Fill::Poison(len) => Tensor::Narrow(Buffer::poisoned(len)),
            Fill::PoisonWide(len) => Tensor::Wide(Buffer::poisoned(len)),
        }
    }

    fn arg(&mut self) -> Arg {
        match self {
            Tensor::Narrow(buffer) => buffer.arg(),
            Tensor::Wide(buffer) => buffer.arg(),
        }
    }

    fn bits(&self) -> Vec<u32> {
        match self {
            Tensor::Narrow(buffer) => buffer.as_slice().iter().map(|v| u32::from(v.to_bits())).collect(),
            Tensor::Wide(buffer) => buffer.as_slice().iter().map(|v| v.to_bits()).collect(),
        }
    }

    fn intact(&self) -> bool {
        match self {
            Tensor::Narrow(buffer) => buffer.intact(),
            Tensor::Wide(buffer) => buffer.intact(),
        }
    }
}

fn run(fills: &[Fill], launches: &[Launch], order: Order) -> Vec<Vec<u32>> {
    let mut random = SplitMix(0x0dde);
    let mut tensors: Vec<Tensor> = fills.iter().map(|&fill| Tensor::new(fill, &mut random)).collect();
    for launch in launches {
        let arguments: Vec<Arg> = launch
            .operands
            .iter()
            .map(|operand| match *operand {
                Operand::Tensor(i) => tensors[i].arg(),
                Operand::Int(value) => Arg::I32(value),
                Operand::Real(value) => Arg::F32(value),
            })
            .collect();
        let Geometry { grid, block, shared_bytes } = launch.geometry;
        let config = Config {
            // As the program asks the driver for it before the launch.
            shared_limit_bytes: shared_bytes.max(softgpu::DEFAULT_SHARED_BYTES),
            ..Config::new(grid, block).shared(shared_bytes).order(order)
        };
        // SAFETY: the caller made tensors of the lengths the kernel's contract asks for; overruns are checked below.
        let outcome = unsafe { softgpu::launch(&launch.kernel, config, &arguments) };
        outcome.unwrap_or_else(|failure| panic!("{} {:?}: {failure}", launch.kernel, launch.geometry));
    }
    assert!(tensors.iter().all(Tensor::intact), "{}: a write out of bounds", launches[0].kernel);
    tensors.iter().map(Tensor::bits).collect()
}

/// Runs the launches in turn and in three random orders, and compares every bit of every tensor.
pub fn check(fills: &[Fill], launches: &[Launch]) {
    let in_turn = run(fills, launches, Order::InTurn);
    for seed in 0..3 {
        assert!(in_turn == run(fills, launches, Order::Shuffled(seed)), "{}, order {seed}", launches[0].kernel);
    }
}
