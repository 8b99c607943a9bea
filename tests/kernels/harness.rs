//! An operation on the CUDA device (a GPU or the software one) against the f64 reference, from the same rounded inputs.

use bubblebench::models::single::Single;
use bubblebench::ops::cuda::{Cuda, Gpu, Priority};
use bubblebench::ops::reference::{self, Reference};
use bubblebench::ops::work::Operation;
use bubblebench::ops::{DType, Ops, cuda};
use bubblebench::stats::SplitMix;
use std::sync::{Arc, OnceLock};

/// A stream on the device the tests run on, which all tests of the process share.
pub fn device(dtype: DType) -> Cuda {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    let gpu = GPU.get_or_init(|| {
        softgpu::device::choose().unwrap_or_else(|why| panic!("no device to test on: {why}"));
        Gpu::open(0).unwrap()
    });
    Cuda::on(gpu, dtype, Priority::Plain).unwrap()
}

/// `count` random operations, each on both.
pub fn check_operations(dtype: DType, count: usize, mut pick: impl FnMut(&mut SplitMix) -> Operation) {
    let mut random = SplitMix(0xde51 + dtype.bytes() as u64 + u64::from(dtype == DType::F16));
    let mut cuda = device(dtype);
    for _ in 0..count {
        check_operation(&mut cuda, pick(&mut random), dtype, random.next_u64());
    }
}

pub fn check_operation(cuda: &mut Cuda, operation: Operation, dtype: DType, seed: u64) {
    let mut on_device = Single::new(cuda, operation, dtype, seed).unwrap();
    on_device.run(cuda);
    cuda.synchronize().unwrap_or_else(|e| panic!("{operation:?}: {e}"));
    let mut ops = Reference::new();
    let mut reference = Single::new(&mut ops, operation, dtype, seed).unwrap();
    reference.run(&mut ops);
    for (i, (is, want)) in on_device.results().iter().zip(reference.results()).enumerate() {
        assert_close(
            &format!("result {i} of {operation:?}"),
            &cuda.read(is).unwrap(),
            &ops.read(want).unwrap(),
            is.dtype(),
        );
    }
}

/// max|x − ref| / max|ref|.
pub const fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 1e-2,
        DType::F16 => 1e-3,
        _ => 1e-5,
    }
}

/// Four units in the last place of that value.
fn four_ulp(value: f64, dtype: DType) -> f64 {
    let (digits, least) = match dtype {
        DType::Bf16 => (8, -126),
        DType::F16 => (11, -14),
        _ => (24, -126),
    };
    let exponent = if value == 0.0 { least } else { (value.abs().log2().floor() as i32).max(least) };
    4.0 * 2f64.powi(exponent + 1 - digits)
}

/// Within the bound of the tensor's largest element, and no element further off than four units in its own last place
/// plus that bound. NaN never passes.
pub fn assert_close(what: &str, got: &[f64], want: &[f64], dtype: DType) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0f64, |most, v| v.abs().max(most));
    let allowed = bound(dtype) * if scale > 0.0 { scale } else { 1.0 };
    for (i, (is, want)) in got.iter().zip(want).enumerate() {
        let error = (is - want).abs();
        let ok = error <= allowed && error <= four_ulp(*want, dtype) + allowed;
        assert!(ok, "{what}, {dtype:?}: element {i} is {is}, not {want}: off by {error:e} at a scale of {scale:e}");
    }
}

/// The device and the reference side by side, for calls that no [`Operation`] names.
pub struct Twin {
    pub cuda: Cuda,
    pub reference: Reference,
    pub random: SplitMix,
    dtype: DType,
}

/// A tensor on both.
pub struct Both {
    pub cuda: cuda::CudaBuffer,
    pub reference: reference::ReferenceBuffer,
}

#[allow(dead_code)]
impl Twin {
    pub fn new(dtype: DType, seed: u64) -> Self {
        Twin { cuda: device(dtype), reference: Reference::new(), random: SplitMix(seed), dtype }
    }

    /// offset + scale·[−1, 1], rounded to `dtype` before either sees it.
    pub fn tensor(&mut self, len: usize, dtype: DType, offset: f64, scale: f64) -> Both {
        let values: Vec<f64> = (0..len)
            .map(|_| bubblebench::models::builder::round_to(dtype, offset + scale * self.random.symmetric()))
            .collect();
        let mut both = self.poisoned(len, dtype);
        self.cuda.write(&mut both.cuda, &values).unwrap();
        self.reference.write(&mut both.reference, &values).unwrap();
        both
    }

    /// Of the device's own type.
    pub fn random(&mut self, len: usize) -> Both {
        self.tensor(len, self.dtype, 0.0, 1.0)
    }

    pub fn poisoned(&mut self, len: usize, dtype: DType) -> Both {
        Both { cuda: self.cuda.alloc(len, dtype).unwrap(), reference: self.reference.alloc(len, dtype).unwrap() }
    }

    pub fn ids(&mut self, len: usize, bound: usize) -> Both {
        let ids: Vec<u32> = (0..len).map(|_| self.random.below(bound) as u32).collect();
        let mut both = self.poisoned(len, DType::U32);
        self.cuda.write_ids(&mut both.cuda, &ids).unwrap();
        self.reference.write_ids(&mut both.reference, &ids).unwrap();
        both
    }

    pub fn check(&mut self, what: &str, both: &Both) {
        let (is, want) = (self.cuda.read(&both.cuda).unwrap(), self.reference.read(&both.reference).unwrap());
        assert_close(what, &is, &want, both.cuda.dtype());
    }
}
