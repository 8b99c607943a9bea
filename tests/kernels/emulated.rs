//! A case through the kernels on the CPU, launched with the geometry the program uses on a GPU.

use crate::layernorm::{Case, Outputs};
use bubblebench::ops::cuda::Geometry;
use bubblebench::ops::cuda::layernorm::{LayerNormToWeights, forward_geometry, kernel, to_inputs_geometry};
use bubblebench::ops::{DType, LAYERNORM_EPSILON};
use half::{bf16, f16};
use softgpu::{Arg, Buffer, Config, Element, Order};

/// SMs of the GPU that is imitated: decides how many partial sums a column has.
const SMS: u32 = 4;

/// A type the kernels exist for.
trait Real: Element {
    fn of(value: f64) -> Self;
    fn to(self) -> f64;
}

impl Real for f32 {
    fn of(value: f64) -> f32 {
        value as f32
    }
    fn to(self) -> f64 {
        f64::from(self)
    }
}
impl Real for bf16 {
    fn of(value: f64) -> bf16 {
        bf16::from_f64(value)
    }
    fn to(self) -> f64 {
        self.to_f64()
    }
}
impl Real for f16 {
    fn of(value: f64) -> f16 {
        f16::from_f64(value)
    }
    fn to(self) -> f64 {
        self.to_f64()
    }
}

pub fn layernorm(case: &Case) -> Outputs {
    run(case, Order::InTurn, 0)
}

pub fn layernorm_in_order(case: &Case, order: Order) -> Outputs {
    run(case, order, 0)
}

/// Every tensor starts `shift` elements off its boundary.
pub fn layernorm_shifted(case: &Case, shift: usize) -> Outputs {
    run(case, Order::InTurn, shift)
}

fn run(case: &Case, order: Order, shift: usize) -> Outputs {
    match case.dtype {
        DType::Bf16 => run_as::<bf16>(case, order, shift),
        DType::F16 => run_as::<f16>(case, order, shift),
        _ => run_as::<f32>(case, order, shift),
    }
}

fn launch(name: &str, case: &Case, geometry: Geometry, order: Order, arguments: &[Arg]) {
    let config = Config::new(geometry.grid, geometry.block).order(order);
    // SAFETY: every buffer has the length the kernel's contract asks for; overruns into the margins are checked after.
    let outcome = unsafe { softgpu::launch(&kernel(name, case.dtype), config, arguments) };
    outcome.unwrap_or_else(|failure| panic!("{name} on {:?}: {failure}", case.shape));
}

fn run_as<T: Real>(case: &Case, order: Order, shift: usize) -> Outputs {
    let (shape, dtype) = (case.shape, case.dtype);
    let (rows, cols) = (Arg::I32(shape.rows as i32), Arg::I32(shape.cols as i32));
    let tensor = |values: &[f64]| {
        let narrow: Vec<T> = values.iter().map(|&v| T::of(v)).collect();
        Buffer::from_slice_shifted(&narrow, shift)
    };
    let (mut x, mut dy) = (tensor(&case.x), tensor(&case.dy));
    let (mut gamma, mut beta) = (tensor(&case.gamma), tensor(&case.beta));
    let (mut dgamma, mut dbeta) = (tensor(&case.dgamma), tensor(&case.dbeta));
    let mut residual = case.residual.as_deref().map(tensor);
    let (mut y, mut dx) = (Buffer::<T>::shifted(shape.len(), shift), Buffer::<T>::shifted(shape.len(), shift));
    let (mut mean, mut rstd) = (Buffer::<f32>::poisoned(shape.rows), Buffer::<f32>::poisoned(shape.rows));

    let epsilon = Arg::F32(LAYERNORM_EPSILON as f32);
    let arguments = [y.arg(), mean.arg(), rstd.arg(), x.arg(), gamma.arg(), beta.arg(), rows, cols, epsilon];
    launch("forward", case, forward_geometry(shape, dtype), order, &arguments);

    let skip = residual.as_mut().map_or(Arg::NULL, Buffer::arg);
    let arguments = [dx.arg(), dy.arg(), x.arg(), gamma.arg(), mean.arg(), rstd.arg(), skip, rows, cols];
    launch("to_inputs", case, to_inputs_geometry(shape, dtype), order, &arguments);

    let plan = LayerNormToWeights::new(shape, dtype, SMS);
    let mut partial = Buffer::<f32>::poisoned(plan.partial_len(shape));
    let arguments = [partial.arg(), dy.arg(), x.arg(), mean.arg(), rstd.arg(), rows, cols];
    launch("to_weights_partial", case, plan.partial, order, &arguments);
    let arguments = [dgamma.arg(), dbeta.arg(), partial.arg(), Arg::I32(plan.chunks as i32), cols];
    launch("to_weights_reduce", case, plan.reduce, order, &arguments);

    let whole = [&x, &dy, &gamma, &beta, &dgamma, &dbeta, &y, &dx].iter().all(|buffer| buffer.intact());
    assert!(whole && mean.intact() && rstd.intact() && partial.intact(), "a write out of bounds: {:?}", case.shape);
    let back = |buffer: &Buffer<T>| buffer.as_slice().iter().map(|&v| v.to()).collect();
    let wide = |buffer: &Buffer<f32>| buffer.as_slice().iter().map(|&v| f64::from(v)).collect();
    Outputs {
        y: back(&y),
        mean: wide(&mean),
        rstd: wide(&rstd),
        dx: back(&dx),
        dgamma: back(&dgamma),
        dbeta: back(&dbeta),
    }
}
