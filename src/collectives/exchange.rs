//! One operation at one size, seen from every rank: what it gives, what it gets, where that lies in memory.
//!
//! Sizes are counted as nccl-tests counts them: `elements` is the *whole* buffer, so an all-gather's rank gives
//! elements / ranks of it. Where ranks do not divide the buffer the first ranks hold one element more (transports that
//! need equal parts pick sizes that divide).

use super::values::Recipe;
use super::{CollectiveOperation, values};
use crate::units::counted;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which of a rank's buffers a span lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RankBuffer {
    /// Holds the rank's input where the exchange runs out of place.
    Send,
    /// Holds the rank's output, and in place its input as well.
    Receive,
    /// The transport's own buffer, for partial sums that belong to no rank's output.
    Scratch,
}

/// The elements `start .. start + len` of one of a rank's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferSpan {
    /// The buffer that the span lies in.
    pub buffer: RankBuffer,
    /// Index of the span's first element in the buffer.
    pub start: usize,
    /// Number of elements; 0 where there is nothing to send or receive.
    pub len: usize,
}

impl BufferSpan {
    /// The span of elements `start .. start + len` of `buffer`; it is not checked that the buffer is that long.
    pub const fn new(buffer: RankBuffer, start: usize, len: usize) -> Self {
        BufferSpan { buffer, start, len }
    }

    /// The part of `len` elements from the span's own element `start` on; panics where it reaches beyond the span.
    pub fn slice(self, start: usize, len: usize) -> BufferSpan {
        assert!(start + len <= self.len, "elements {start}..{} of a span of {}", start + len, self.len);
        BufferSpan { start: self.start + start, len, ..self }
    }

    /// The `rank`-th of the `ranks` parts of this span, cut as [`part`] cuts.
    pub fn part(self, ranks: usize, rank: usize) -> BufferSpan {
        let (start, len) = part(self.len, ranks, rank);
        self.slice(start, len)
    }

    /// Index of the first element behind the span, counted from the start of the buffer.
    pub const fn end(&self) -> usize {
        self.start + self.len
    }

    /// Whether both spans lie in the same buffer and share at least one element.
    pub fn overlaps(&self, other: &BufferSpan) -> bool {
        self.buffer == other.buffer && self.start < other.end() && other.start < self.end()
    }

    /// The span cut into pieces of at most `chunk` elements, in their order in the buffer.
    pub fn chunks(self, chunk: usize) -> impl Iterator<Item = BufferSpan> {
        (0..self.len).step_by(chunk.max(1)).map(move |start| self.slice(start, chunk.max(1).min(self.len - start)))
    }
}

/// Start and length of the `index`-th of `parts` parts of `len` elements; the first `len % parts` hold one more.
pub const fn part(len: usize, parts: usize, index: usize) -> (usize, usize) {
    let (each, extra) = (len / parts, len % parts);
    let before = if index < extra { index } else { extra };
    (each * index + before, each + (index < extra) as usize)
}

/// Where a rank's input and output lie. A span is empty where the rank contributes or receives nothing, as a reduce's
/// output on every rank but the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankPlacement {
    /// What the rank contributes; in place it lies in [`RankBuffer::Receive`].
    pub input: BufferSpan,
    /// Where the rank's result is written.
    pub output: BufferSpan,
}

impl RankPlacement {
    /// The placement out of place: input and output in separate buffers, each from element 0 on.
    pub const fn apart(input_len: usize, output_len: usize) -> Self {
        RankPlacement {
            input: BufferSpan::new(RankBuffer::Send, 0, input_len),
            output: BufferSpan::new(RankBuffer::Receive, 0, output_len),
        }
    }

    /// Number of elements that this buffer of the rank must hold.
    pub fn needs(&self, buffer: RankBuffer) -> usize {
        [self.input, self.output].iter().filter(|s| s.buffer == buffer).map(BufferSpan::end).max().unwrap_or(0)
    }
}

/// One operation at one size, between a number of ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Which collective, or which pattern of send_recv, is run.
    pub operation: CollectiveOperation,
    /// Elements of the whole buffer as nccl-tests counts it (bytes ÷ element size), of one message for send_recv and
    /// pipeline.
    pub elements: usize,
    /// Number of ranks that take part.
    pub ranks: usize,
    /// The root rank of broadcast and reduce; the other operations ignore it.
    pub root: usize,
    /// Whether input and output share one buffer, as NCCL defines in-place operation for each collective.
    pub in_place: bool,
    /// The largest integer up to which the element type is exact ([`Element::exact`](super::Element::exact)): inputs
    /// and sums do not exceed it.
    pub exact: u32,
}

/// The largest integer up to which bf16 is exact, which suits every type that holds more as well.
pub const EXACT: u32 = 256;

impl Exchange {
    /// Such an exchange out of place, with root 0 and [`EXACT`] as the largest exact integer.
    pub const fn new(operation: CollectiveOperation, elements: usize, ranks: usize) -> Self {
        Exchange { operation, elements, ranks, root: 0, in_place: false, exact: EXACT }
    }

    /// Message size S in bytes as nccl-tests counts it, for elements of `element_bytes` each: of the whole buffer (the
    /// gathered one of an all-gather, the one that is reduced of a reduce-scatter), of one message for send_recv and
    /// pipeline. What crosses a rank's link is S times the operation's bus factor.
    pub const fn bytes(&self, element_bytes: u64) -> u64 {
        self.elements as u64 * element_bytes
    }

    /// The same exchange with another root rank.
    pub const fn root(self, root: usize) -> Self {
        Exchange { root, ..self }
    }

    /// The same exchange in place (true) or out of place (false).
    pub const fn in_place(self, in_place: bool) -> Self {
        Exchange { in_place, ..self }
    }

    /// Refuses what cannot be run, with an error that says what can be instead: 0 or more than 1024 ranks, a root that is no rank, 2³²
    /// elements or more, or an in-place form that the operation does not have.
    pub fn validate(&self) -> Result<()> {
        let name = self.operation.definition().name();
        if self.ranks == 0 || self.ranks > 1024 {
            return Err(Error::input(
                format!("{name} between {}", counted(self.ranks, "rank")),
                "give 1 to 1024 ranks",
            ));
        }
        if self.root >= self.ranks {
            return Err(Error::input(
                format!("root {} of {}", self.root, counted(self.ranks, "rank")),
                "ranks count from 0: give a root below their number",
            ));
        }
        if self.elements > u32::MAX as usize {
            return Err(Error::input(
                format!("{name} of {}", counted(self.elements, "element")),
                "the check can tell 4294967295 elements apart: give fewer",
            ));
        }
        if self.in_place && !self.operation.definition().can_be_in_place() {
            return Err(Error::input(format!("{name} in place"), "it has no in-place form: run it out of place"));
        }
        Ok(())
    }

    /// Where the input and output of `rank` lie, as the operation's definition has it.
    pub fn placement(&self, rank: usize) -> RankPlacement {
        self.operation.definition().placement(self, rank)
    }

    /// Writes the input of `rank` from element `first` on: small integers that follow from operation, rank and index
    /// alone.
    pub fn fill_input(&self, rank: usize, first: usize, out: &mut [f32]) {
        values::fill(Recipe::of(self), rank, first, out);
    }

    /// Writes what the output of `rank` must be, from element `first` on.
    pub fn fill_expected(&self, rank: usize, first: usize, out: &mut [f32]) {
        self.operation.definition().expect(self, rank, first, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_ragged_complete_and_in_order() {
        assert_eq!((0..4).map(|i| part(10, 4, i)).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 2), (8, 2)]);
        assert_eq!((0..4).map(|i| part(2, 4, i)).collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 0), (2, 0)]);
        for (len, parts) in [(0, 3), (1, 8), (97, 8), (1 << 20, 7)] {
            let mut next = 0;
            for index in 0..parts {
                let (start, size) = part(len, parts, index);
                assert_eq!(start, next);
                next += size;
            }
            assert_eq!(next, len);
        }
    }

    #[test]
    fn what_cannot_run_is_refused_in_one_line() {
        let good = Exchange::new(CollectiveOperation::AllReduce, 10, 4);
        assert!(good.validate().is_ok());
        assert!(good.root(4).validate().unwrap_err().to_string().contains("root 4 of 4 ranks"));
        assert!(Exchange::new(CollectiveOperation::AllReduce, 10, 0).validate().is_err());
        let all_to_all = Exchange::new(CollectiveOperation::AllToAll, 10, 4).in_place(true);
        assert!(all_to_all.validate().unwrap_err().to_string().contains("out of place"));
    }

    /// In place, the input lies inside the output or the output inside the input, and one buffer holds both.
    #[test]
    fn in_place_shares_the_memory() {
        for operation in CollectiveOperation::ALL.into_iter().filter(|o| o.definition().can_be_in_place()) {
            for rank in 0..3 {
                let p = Exchange::new(operation, 100, 3).root(1).in_place(true).placement(rank);
                assert_eq!(p.needs(RankBuffer::Send), 0, "{operation:?}");
                let both = p.input.len > 0 && p.output.len > 0;
                assert!(!both || p.input.overlaps(&p.output), "{operation:?} {p:?}");
            }
        }
    }
}
