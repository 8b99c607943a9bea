//! Memory a kernel works on, with a margin on both sides that is NaN for every float type: what is read beyond an end
//! shows in the result, what is written there is found by [`Buffer::intact`].

use crate::Arg;
use half::{bf16, f16};

/// Plain elements for which all ones is a NaN or an impossible value.
pub trait Element: Copy + PartialEq + std::fmt::Debug {
    const ONES: Self;
}

impl Element for f32 {
    const ONES: f32 = f32::from_bits(u32::MAX);
}
impl Element for bf16 {
    const ONES: bf16 = bf16::from_bits(u16::MAX);
}
impl Element for f16 {
    const ONES: f16 = f16::from_bits(u16::MAX);
}
impl Element for u32 {
    const ONES: u32 = u32::MAX;
}
impl Element for u16 {
    const ONES: u16 = u16::MAX;
}

const MARGIN_BYTES: usize = 256;

/// Elements start at an address divisible by 256, as a device allocation does, or `shift` elements after it.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Element> Buffer<T> {
    /// All ones: a missing write shows.
    pub fn poisoned(len: usize) -> Self {
        Self::shifted(len, 0)
    }

    /// Starts `shift` elements behind a 256-byte boundary: what a view into a larger allocation looks like.
    pub fn shifted(len: usize, shift: usize) -> Self {
        let margin = MARGIN_BYTES / size_of::<T>();
        let memory = vec![T::ONES; len + 3 * margin + shift];
        let to_boundary = memory.as_ptr().align_offset(MARGIN_BYTES);
        Buffer { start: to_boundary + margin + shift, len, memory }
    }

    pub fn from_slice(values: &[T]) -> Self {
        Self::from_slice_shifted(values, 0)
    }

    pub fn from_slice_shifted(values: &[T], shift: usize) -> Self {
        let mut buffer = Self::shifted(values.len(), shift);
        buffer.memory[buffer.start..buffer.start + values.len()].copy_from_slice(values);
        buffer
    }

    pub fn as_slice(&self) -> &[T] {
        &self.memory[self.start..self.start + self.len]
    }

    /// The pointer a kernel gets; it may write through it.
    pub fn arg(&mut self) -> Arg {
        Arg::Pointer(self.memory[self.start..].as_mut_ptr().cast())
    }

    /// False where a kernel wrote beyond either end.
    pub fn intact(&self) -> bool {
        let bytes = |values: &[T]| {
            // SAFETY: any initialised memory may be read as bytes; the length is that of the slice.
            unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) }.to_vec()
        };
        let (before, after) = (&self.memory[..self.start], &self.memory[self.start + self.len..]);
        bytes(before).iter().chain(bytes(after).iter()).all(|&b| b == 0xff)
    }
}
