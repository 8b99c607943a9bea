//! Kernels launched straight on fibers, past the program's backend: with views that start off a boundary, with geometries
//! no shape is given, in any order of threads.

use bubblebench::ops::DType;
use bubblebench::ops::cuda::Geometry;
use half::{bf16, f16};
use softgpu::{Arg, Buffer, Config, Order};

/// A tensor in fiber memory, of any type the kernels have.
pub enum Tensor {
    Narrow(DType, Buffer<u16>),
    Wide(Buffer<f32>),
}

impl Tensor {
    /// Rounded to `dtype`, starting `shift` elements behind a 256-byte boundary.
    pub fn new(dtype: DType, values: &[f64], shift: usize) -> Self {
        let narrow = |bits: fn(f64) -> u16| {
            let bits: Vec<u16> = values.iter().map(|&v| bits(v)).collect();
            Tensor::Narrow(dtype, Buffer::from_slice_shifted(&bits, shift))
        };
        match dtype {
            DType::Bf16 => narrow(|v| bf16::from_f64(v).to_bits()),
            DType::F16 => narrow(|v| f16::from_f64(v).to_bits()),
            _ => {
                let wide: Vec<f32> = values.iter().map(|&v| v as f32).collect();
                Tensor::Wide(Buffer::from_slice_shifted(&wide, shift))
            }
        }
    }

    pub fn poisoned(dtype: DType, len: usize, shift: usize) -> Self {
        Self::new(dtype, &vec![f64::NAN; len], shift)
    }

    pub fn arg(&mut self) -> Arg {
        match self {
            Tensor::Narrow(_, buffer) => buffer.arg(),
            Tensor::Wide(buffer) => buffer.arg(),
        }
    }

    /// What it holds; panics where a kernel wrote beyond its ends.
    pub fn values(&self) -> Vec<f64> {
        match self {
            Tensor::Narrow(dtype, buffer) => {
                assert!(buffer.intact(), "a write out of bounds");
                let wide = |bits: u16| match dtype {
                    DType::Bf16 => bf16::from_bits(bits).to_f64(),
                    _ => f16::from_bits(bits).to_f64(),
                };
                buffer.as_slice().iter().map(|&bits| wide(bits)).collect()
            }
            Tensor::Wide(buffer) => {
                assert!(buffer.intact(), "a write out of bounds");
                buffer.as_slice().iter().map(|&v| f64::from(v)).collect()
            }
        }
    }
}

/// Bits to compare results by: NaN equals itself.
pub fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// An argument of eight bytes, as pointers are.
pub fn size(value: usize) -> Arg {
    Arg::Pointer(value as *mut std::ffi::c_void)
}

/// Tensors among the arguments must be as long as the kernel's contract asks; small overruns are found afterwards.
pub fn launch(kernel: &str, geometry: Geometry, order: Order, arguments: &[Arg]) {
    let config = Config {
        shared_limit_bytes: geometry.shared_bytes.max(softgpu::DEFAULT_SHARED_BYTES),
        ..Config::new(geometry.grid, geometry.block).shared(geometry.shared_bytes).order(order)
    };
    // SAFETY: every caller gives tensors of the lengths the kernel's contract asks for.
    let outcome = unsafe { softgpu::launch(kernel, config, arguments) };
    outcome.unwrap_or_else(|failure| panic!("{kernel}: {failure}"));
}
