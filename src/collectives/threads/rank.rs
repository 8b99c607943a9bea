//! What an operation's code sees: its place among the ranks, its buffers, and its ways to the others.

use super::memory::Ports;
use super::wait::{Shared, Tuning};
use crate::Result;
use crate::collectives::{BufferSpan, RankBuffer};
use std::sync::Arc;

pub use super::memory::Combine;

/// One rank in its own thread: its number, its buffers, and its ways of sending to and receiving from the others.
pub struct Rank {
    ports: Ports,
    barriers: u64,
}

impl Rank {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Rank { ports: Ports::new(shared, index), barriers: 0 }
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

    /// Makes sure that a buffer has `len` elements, its pages touched; one that grows loses its contents (they become
    /// NaN). An error without memory. Not for timed operations: the first, untimed one grows what is needed.
    pub fn reserve(&mut self, buffer: RankBuffer, len: usize) -> Result<()> {
        self.ports.reserve(buffer, len)
    }

    /// The elements of a span of this rank's own buffers; panics where the buffer is shorter than the span.
    pub fn view(&self, span: BufferSpan) -> &[f32] {
        self.ports.view(span)
    }

    /// The elements of the span, to be written, once nobody reads any more what was sent from it; an error where a
    /// reader does not finish within the deadline.
    pub fn view_mut(&mut self, span: BufferSpan) -> Result<&mut [f32]> {
        self.ports.view_mut(span)
    }

    /// Copies within this rank's own memory; does nothing if both spans are the same. An error where a reader of `to`
    /// does not finish within the deadline.
    pub fn copy(&mut self, to: BufferSpan, from: BufferSpan) -> Result<()> {
        self.ports.copy(to, from)
    }

    /// Shows a span to another rank and goes on; does nothing if it is empty. It waits only while the queue to that
    /// rank is full; an error where that lasts beyond the deadline.
    pub fn send(&mut self, to: usize, span: BufferSpan) -> Result<()> {
        self.ports.send(to, span)
    }

    /// Takes the next message of another rank, which must be as long as `into`; does nothing if that is empty. An error
    /// where the length differs or no message comes within the deadline.
    pub fn receive(&mut self, from: usize, into: BufferSpan, combine: Combine) -> Result<()> {
        self.ports.receive(from, into, combine)
    }

    /// Waits until everything this rank sent has been taken, so that its buffers may be written again; an error where
    /// that does not happen within the deadline.
    pub fn settle(&mut self) -> Result<()> {
        self.ports.settle()
    }

    /// Waits until all ranks have called it and returns the moment the last one came, on the clock of [`Rank::now_ns`]
    /// and the same on all of them; an error where one does not come within the deadline.
    pub fn meet(&mut self) -> Result<u64> {
        self.barriers += 1;
        self.ports.shared.meet(self.index(), self.barriers)
    }

    /// Nanoseconds since the world was made, on the clock that all ranks share.
    pub fn now_ns(&self) -> u64 {
        self.ports.shared.now_ns()
    }

    /// The error with which the world has ended, once one of its ranks has failed.
    pub fn check(&self) -> Result<()> {
        self.ports.shared.check()
    }
}
