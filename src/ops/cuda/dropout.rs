//! Dropout on the GPU, with a mask that is worked out again instead of kept. No model uses it by default, so it is not in
//! [`crate::ops::Ops`]. The kernel and its contract are in `cuda/dropout.cu`.

use super::launch::{Arg, check};
use super::{Cuda, CudaBuffer, Geometry};
use crate::ops::DType;
use crate::{Error, Result};

/// Threads of a block (`kDropoutThreads`), and bytes each takes (`kDropoutVectors` of 16).
const THREADS: usize = 256;
const BYTES_PER_THREAD: usize = 64;

/// Which elements are dropped: the same values drop the same elements, whatever the type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// The probability of an element to be dropped, at least 0 and below 1.
    pub probability: f64,
    /// The key of the Philox generator whose words decide which elements are kept.
    pub seed: u64,
    /// Where in the seed's sequence the mask starts; the next mask may start at [`Dropout::after`].
    pub offset: u64,
}

impl Dropout {
    /// The first offset that a mask of `len` elements leaves free: a counter serves four elements.
    pub const fn after(&self, len: usize) -> u64 {
        self.offset.wrapping_add(len.div_ceil(4) as u64)
    }

    /// The threshold below which a word of the generator drops its element, and the factor 1 / (1 − probability) of
    /// those kept; an error where the probability is out of range.
    pub fn numbers(&self) -> Result<(u32, f32)> {
        if !(0.0..1.0).contains(&self.probability) {
            return Err(Error::input(
                format!("dropout: a probability of {}", self.probability),
                "choose at least 0 and less than 1",
            ));
        }
        // `as` saturates: a probability this close to 1 keeps one word in 2³².
        let threshold = (self.probability * 2f64.powi(32)).round() as u32;
        Ok((threshold, (1.0 / (1.0 - self.probability)) as f32))
    }
}

/// The launch over `len` elements: a block of 256 threads for each tile of 16 KiB.
pub fn geometry(len: usize, dtype: DType) -> Geometry {
    let tile = THREADS * BYTES_PER_THREAD / dtype.bytes();
    Geometry::flat(len.div_ceil(tile) * THREADS, THREADS as u32)
}

impl Cuda {
    /// y = x / (1 − probability) where the element is kept, else 0; y is overwritten.
    pub fn dropout_forward(&mut self, len: usize, y: &mut CudaBuffer, x: &CudaBuffer, dropout: Dropout) {
        let outcome = self.try_dropout("dropout_forward", len, ("y", y), ("x", x), dropout);
        self.keep(outcome);
    }

    /// dx = dy / (1 − probability) where the forward pass of the same `dropout` kept the element, else 0.
    pub fn dropout_backward(&mut self, len: usize, dx: &mut CudaBuffer, dy: &CudaBuffer, dropout: Dropout) {
        let outcome = self.try_dropout("dropout_backward", len, ("dx", dx), ("dy", dy), dropout);
        self.keep(outcome);
    }

    fn try_dropout(
        &mut self,
        operation: &str,
        len: usize,
        (to_name, to): (&str, &mut CudaBuffer),
        (from_name, from): (&str, &CudaBuffer),
        dropout: Dropout,
    ) -> Result<()> {
        let dtype = self.data_type();
        check(operation, to_name, to, len, dtype)?;
        check(operation, from_name, from, len, dtype)?;
        let (threshold, scale) = dropout.numbers()?;
        if len == 0 {
            return Ok(());
        }
        let tensors = [to.arg_mut(), from.arg(), Arg::U64(len as u64)];
        let numbers = [Arg::U32(threshold), Arg::F32(scale), Arg::U64(dropout.seed), Arg::U64(dropout.offset)];
        let mut arguments = [&tensors[..], &numbers].concat();
        self.launch(&format!("dropout_{}", dtype.name()), geometry(len, dtype), &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Dropout = Dropout { probability: 0.0, seed: 1, offset: 0 };

    #[test]
    fn numbers_of_usual_probabilities() {
        let of = |probability| Dropout { probability, ..NONE }.numbers().unwrap();
        assert_eq!(of(0.0), (0, 1.0));
        assert_eq!(of(0.5), (1 << 31, 2.0));
        assert_eq!(of(0.1).0, 429_496_730);
        for wrong in [-0.1, 1.0, f64::NAN] {
            assert!(Dropout { probability: wrong, ..NONE }.numbers().is_err());
        }
    }

    #[test]
    fn masks_in_a_row_do_not_overlap() {
        assert_eq!((NONE.after(0), NONE.after(1), NONE.after(4), NONE.after(5)), (0, 1, 1, 2));
    }

    #[test]
    fn tiles_cover_every_length() {
        for len in [1, 8191, 8192, 8193, 1 << 33] {
            let blocks = geometry(len, DType::Bf16).grid[0] as usize;
            assert!(blocks * 8192 >= len && (blocks - 1) * 8192 < len);
        }
    }
}
