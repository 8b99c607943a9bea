//! Causal attention in blocks, without an S×S matrix (FlashAttention; Dao et al., arXiv 2205.14135).
//!
//! Inside a block everything stands transposed: scores are keys × queries with [`QUERIES`] queries side by side. The
//! softmax over the keys then runs down the columns, one vector lane per query, with no sum across lanes; and both
//! products read their left operand in the order the vectors want it, so nothing is packed twice. [`forward()`] and
//! [`backward()`] each take one head at a time from the packed `qkv` rows; heads (and, where there are few, runs of query
//! blocks) go to different threads.

mod backward;
mod forward;

pub use backward::{Inputs, backward};
pub use forward::forward;

use super::team::Team;
use crate::ops::Attention;
use std::cell::RefCell;

/// Queries in a block: four 16-wide vectors.
const QUERIES: usize = 64;
/// Most keys against one block of queries at a time: 256 × 64 scores take 64 KiB, which stay in the second-level cache.
const KEYS: usize = 256;

/// Where one head's q, k or v (part 0, 1, 2) stands in packed rows of `parts` times the width.
#[derive(Clone, Copy)]
struct Head<'a> {
    packed: &'a [f32],
    stride: usize,
    first: usize,
    size: usize,
}

impl<'a> Head<'a> {
    /// Part `part` of head `index` (batch-major) in `packed`.
    fn new(s: Attention, packed: &'a [f32], parts: usize, part: usize, index: usize) -> Self {
        let (batch, head) = (index / s.heads, index % s.heads);
        let stride = parts * s.width();
        let first = batch * s.sequence * stride + part * s.width() + head * s.head_size;
        Head { packed, stride, first, size: s.head_size }
    }

    fn row(self, row: usize) -> &'a [f32] {
        &self.packed[self.first + row * self.stride..][..self.size]
    }

    /// Rows from `first` on, one after the other, times `scale`; rows past `last` are zero.
    fn copy(self, to: &mut [f32], first: usize, last: usize, scale: f32) {
        for (row, to) in (first..).zip(to.chunks_exact_mut(self.size)) {
            if row < last {
                to.iter_mut().zip(self.row(row)).for_each(|(to, v)| *to = v * scale);
            } else {
                to.fill(0.0);
            }
        }
    }
}

/// Into how many tasks a head is cut: whole heads share their packed keys, but too few of them leave threads idle.
fn tasks_per_head(team: Team, s: Attention) -> usize {
    let heads = s.batch * s.heads;
    if heads.is_multiple_of(team.threads) {
        return 1;
    }
    (4 * team.threads).div_ceil(heads).min(s.sequence.div_ceil(QUERIES))
}

/// A block of [`QUERIES`] rows of `size` elements, transposed: element (d, q) at d·QUERIES + q.
fn transpose(to: &mut [f32], block: &[f32], size: usize) {
    // Cache lines of `to` are filled one by one; the block's rows stay in the first-level cache.
    for (lanes, to) in to.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (d, first) = (lanes * 16 / QUERIES, lanes * 16 % QUERIES);
        for (lane, to) in to.iter_mut().enumerate() {
            *to = block[(first + lane) * size + d];
        }
    }
}

/// The rows of every (batch, part, head), in that order, cut out of packed rows of `parts` times the width.
fn cut_rows(s: Attention, packed: &mut [f32], parts: usize) -> Vec<Vec<&mut [f32]>> {
    let pieces = parts * s.heads;
    let mut cut: Vec<Vec<&mut [f32]>> = Vec::new();
    for batch in packed.chunks_exact_mut(s.sequence * pieces * s.head_size) {
        let first = cut.len();
        cut.extend((0..pieces).map(|_| Vec::with_capacity(s.sequence)));
        for (at, row) in batch.chunks_exact_mut(s.head_size).enumerate() {
            cut[first + at % pieces].push(row);
        }
    }
    cut
}

/// Working memory of this thread, kept from call to call: `lengths` slices with whatever they held. Calls may nest.
fn with_scratch<const N: usize, R>(lengths: [usize; N], work: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    thread_local!(static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) });
    const LINE: usize = 16;
    let mut memory = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = lengths.iter().map(|len| len.next_multiple_of(LINE)).sum::<usize>() + LINE;
    if memory.len() < needed {
        memory.resize(needed, 0.0);
    }
    let start = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let mut rest = &mut memory[start..];
    let slices = lengths.map(|len| {
        let (slice, after) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(LINE));
        rest = after;
        &mut slice[..len]
    });
    let result = work(slices);
    FREE.with_borrow_mut(|free| free.push(memory));
    result
}
