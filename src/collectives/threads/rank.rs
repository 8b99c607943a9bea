//! What an operation's code sees: its place among the ranks, its buffers, and its ways to the others.

use super::memory::Ports;
use super::wait::{Shared, Tuning};
use crate::Result;
use crate::collectives::{BufferSpan, RankBuffer};
use std::sync::Arc;

pub use super::memory::Combine;

/// One rank, in its own thread.
pub struct Rank {
    ports: Ports,
    meetings: u64,
}

impl Rank {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Rank { ports: Ports::new(shared, index), meetings: 0 }
    }

    /// This rank's number, counted from 0.
    pub fn index(&self) -> usize {
        self.ports.me
    }

    /// Number of ranks in the world.
    pub fn ranks(&self) -> usize {
        self.ports.shared.ranks
    }

    /// The rank after this one in the ring; 0 follows the last.
    pub fn next(&self) -> usize {
        (self.index() + 1) % self.ranks()
    }

    /// The rank before this one in the ring; the last precedes 0.
    pub fn previous(&self) -> usize {
        (self.index() + self.ranks() - 1) % self.ranks()
    }

    /// The settings that all ranks of the world share.
    pub fn tuning(&self) -> Tuning {
        self.ports.shared.tuning
    }

    /// Makes sure that a buffer has `len` elements, its pages touched. A buffer that grows loses its contents (they
    /// become NaN). Never inside a timed operation: the first, untimed one grows what is needed.
    pub fn reserve(&mut self, buffer: RankBuffer, len: usize) -> Result<()> {
        self.ports.reserve(buffer, len)
    }

    /// The elements of a span of this rank's own buffers; panics where the buffer is shorter than the span.
    pub fn view(&self, span: BufferSpan) -> &[f32] {
        self.ports.view(span)
    }

    /// The span, to be written; waits until nobody reads what was sent from it.
    pub fn view_mut(&mut self, span: BufferSpan) -> Result<&mut [f32]> {
        self.ports.view_mut(span)
    }

    /// Within this rank's own memory; nothing if both are the same.
    pub fn copy(&mut self, to: BufferSpan, from: BufferSpan) -> Result<()> {
        self.ports.copy(to, from)
    }

    /// Shows a span to another rank and goes on; nothing if it is empty. Waits only while the edge is full.
    pub fn send(&mut self, to: usize, span: BufferSpan) -> Result<()> {
        self.ports.send(to, span)
    }

    /// Takes the next message of another rank, which must be as long as `into`; nothing if that is empty.
    pub fn receive(&mut self, from: usize, into: BufferSpan, combine: Combine) -> Result<()> {
        self.ports.receive(from, into, combine)
    }

    /// Waits until everything this rank sent has been taken, so that its buffers may be written again.
    pub fn settle(&mut self) -> Result<()> {
        self.ports.settle()
    }

    /// Waits for all ranks; the moment the last one came, in [`Rank::now_ns`]'s time, the same number for all of them.
    pub fn meet(&mut self) -> Result<u64> {
        self.meetings += 1;
        self.ports.shared.meet(self.index(), self.meetings)
    }

    /// Nanoseconds on the clock that all ranks share.
    pub fn now_ns(&self) -> u64 {
        self.ports.shared.now_ns()
    }

    /// The error of the world, if it has one.
    pub fn check(&self) -> Result<()> {
        self.ports.shared.check()
    }
}
