//! Device memory of one element type, and how host numbers become its bytes and come back.

use super::memory::CudaMemory;
use crate::ops::DType;
use half::{bf16, f16};
use rayon::prelude::*;

/// Device memory that holds a number of elements of one type.
pub struct CudaBuffer {
    pub(super) memory: CudaMemory,
    pub(super) len: usize,
    pub(super) dtype: DType,
}

impl CudaBuffer {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}

/// Rounds to the element type; `None` for identifiers, which are not numbers to round.
pub(super) fn to_bytes(values: &[f64], dtype: DType) -> Option<Vec<u8>> {
    // In parallel: a wide layer has a billion parameters.
    fn all<const N: usize>(values: &[f64], one: impl Fn(f64) -> [u8; N] + Sync) -> Vec<u8> {
        let mut bytes = vec![0; values.len() * N];
        let chunks = bytes.as_chunks_mut::<N>().0;
        chunks.par_iter_mut().with_min_len(1 << 14).zip(values).for_each(|(to, &v)| *to = one(v));
        bytes
    }
    match dtype {
        DType::F64 => Some(all(values, f64::to_ne_bytes)),
        DType::F32 => Some(all(values, |v| (v as f32).to_ne_bytes())),
        DType::F16 => Some(all(values, |v| f16::from_f64(v).to_ne_bytes())),
        DType::Bf16 => Some(all(values, |v| bf16::from_f64(v).to_ne_bytes())),
        DType::U32 => None,
    }
}

pub(super) fn from_bytes(bytes: &[u8], dtype: DType) -> Vec<f64> {
    fn all<const N: usize>(bytes: &[u8], one: impl Fn([u8; N]) -> f64 + Sync) -> Vec<f64> {
        bytes.as_chunks().0.par_iter().with_min_len(1 << 14).map(|&chunk| one(chunk)).collect()
    }
    match dtype {
        DType::F64 => all(bytes, f64::from_ne_bytes),
        DType::F32 => all(bytes, |b| f64::from(f32::from_ne_bytes(b))),
        DType::F16 => all(bytes, |b| f16::from_ne_bytes(b).to_f64()),
        DType::Bf16 => all(bytes, |b| bf16::from_ne_bytes(b).to_f64()),
        DType::U32 => all(bytes, |b| f64::from(u32::from_ne_bytes(b))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn numbers_come_back_rounded_to_their_type() {
        let mut random = SplitMix(5);
        let values: Vec<f64> = (0..100).map(|_| random.symmetric()).collect();
        for (dtype, bound) in [(DType::F64, 0.0), (DType::F32, 6e-8), (DType::F16, 4.9e-4), (DType::Bf16, 3.91e-3)] {
            let bytes = to_bytes(&values, dtype).unwrap();
            assert_eq!(bytes.len(), values.len() * dtype.bytes());
            for (back, value) in from_bytes(&bytes, dtype).iter().zip(&values) {
                assert!((back - value).abs() <= bound * value.abs().max(1e-4), "{dtype:?} {value} {back}");
            }
        }
        assert!(to_bytes(&values, DType::U32).is_none());
        assert_eq!(from_bytes(&7u32.to_ne_bytes(), DType::U32), [7.0]);
    }
}
