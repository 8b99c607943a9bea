//! Holding a device's results against the f64 reference: max|x − ref| / max|ref| per tensor, and NaN never passes.

use crate::ops::DType;
use crate::records::measurement::Verified;

/// What an element of a whole pass may be wrong by, relative to the largest of its tensor. One operation alone is
/// within half of it (tests/kernels.rs holds each to a bound of its own); a pass rounds a dozen times in a row.
pub const fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-10,
        DType::F32 | DType::U32 => 1e-4,
        DType::F16 => 4e-3,
        DType::Bf16 => 2e-2,
    }
}

/// Gathers the worst over several tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    against: String,
    tolerance: f64,
    max_error: f64,
    wrong: u64,
}

impl Comparison {
    pub fn new(against: impl Into<String>, dtype: DType) -> Self {
        Comparison { against: against.into(), tolerance: tolerance(dtype), max_error: 0.0, wrong: 0 }
    }

    /// Adds a tensor. One of other length is wrong in every element.
    pub fn tensor(&mut self, is: &[f64], want: &[f64]) {
        if is.len() != want.len() {
            self.wrong += want.len().max(1) as u64;
            self.max_error = f64::INFINITY;
            return;
        }
        let largest = want.iter().fold(0.0f64, |most, w| most.max(w.abs()));
        // A tensor of zeros is held to the tolerance itself.
        let scale = if largest > 0.0 { largest } else { 1.0 };
        for (is, want) in is.iter().zip(want) {
            let error = (is - want).abs() / scale;
            // A NaN compares false both ways.
            if error.is_nan() || error > self.tolerance {
                self.wrong += 1;
            }
            self.max_error = if error.is_nan() { f64::INFINITY } else { self.max_error.max(error) };
        }
    }

    pub fn finish(self) -> Verified {
        // JSON has no infinity.
        Verified { against: self.against, max_error: self.max_error.min(f64::MAX), wrong: self.wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(is: &[f64], want: &[f64]) -> Verified {
        let mut comparison = Comparison::new("f64 reference", DType::F32);
        comparison.tensor(is, want);
        comparison.finish()
    }

    #[test]
    fn errors_are_relative_to_the_largest_element() {
        let verified = compare(&[10.0, 0.0005, -4.0], &[10.0, 0.0, -4.0]);
        assert_eq!((verified.wrong, verified.max_error), (0, 0.00005));
        assert_eq!(compare(&[10.0, 0.01], &[10.0, 0.0]).wrong, 1);
    }

    #[test]
    fn nan_infinity_and_wrong_lengths_never_pass() {
        assert_eq!(compare(&[f64::NAN, 1.0], &[1.0, 1.0]).wrong, 1);
        assert_eq!(compare(&[1.0, 1.0], &[f64::NAN, 1.0]).wrong, 1);
        assert_eq!(compare(&[f64::INFINITY], &[1.0]).wrong, 1);
        assert_eq!(compare(&[1.0], &[1.0, 2.0]).wrong, 2);
        assert!(compare(&[f64::NAN, 1.0], &[1.0, 1.0]).max_error.is_finite());
        assert_eq!(compare(&[0.1], &[0.0]).wrong, 1);
    }

    #[test]
    fn a_nan_is_not_forgotten_by_later_elements() {
        assert_eq!(compare(&[f64::NAN, 1.0], &[1.0, 1.0]).max_error, f64::MAX);
    }
}
