//! A rank's buffers and the edges between ranks. All `unsafe` of the data's way is in this file.
//!
//! The argument, once: a [`Region`] belongs to one rank; only that rank's thread forms references into it, except for
//! spans it has *lent* by [`Ports::send`]. A lent span is only read, by the receiver, between the message's publication
//! and the receiver's tick of the edge's counter. The owner keeps a ledger of its lent spans, and every call that
//! writes waits until no overlapping span is lent any more. So no element is ever written while someone else reads it,
//! whatever an operation's code does; a mistake there can cost time or a deadline, not memory safety. Regions live as
//! long as the world ([`super::wait::Shared::keep`]), also when ranks stop half way.

use super::wait::Shared;
use crate::collectives::{BufferSpan, RankBuffer};
use crate::{Error, Result};
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Size in elements (512 B) of the largest message that is copied into its edge; above it, copying costs two ranks more
/// than waiting.
pub const EAGER_CAPACITY: usize = 128;

/// Messages that may be under way on one edge.
const SLOTS: usize = 8;

/// A value on cache lines of its own: two lines, because neighbours are fetched in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(T);

impl<T> Deref for Padded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Elements of a cache line, on which every buffer begins. Where malloc puts a buffer is chance, and not a harmless one: with
/// source and destination 16 bytes apart modulo a page, an AMD EPYC copies 256 KiB in 110 µs instead of 7.
const LINE: usize = 16;

#[repr(C, align(64))]
struct Line([UnsafeCell<f32>; LINE]);

/// Elements of one rank, readable by others where lent.
pub(super) struct Region {
    lines: Box<[Line]>,
    len: usize,
}

// SAFETY: references into the cells are formed only by `Ports`, by the rule at the top of this file.
unsafe impl Sync for Region {}
// SAFETY: a region is plain owned memory.
unsafe impl Send for Region {}

impl Region {
    fn new(len: usize) -> Result<Self> {
        let (mut lines, count) = (Vec::new(), len.div_ceil(LINE));
        lines.try_reserve_exact(count).map_err(|_| {
            let what = format!("no memory for a buffer of {} MiB", (len * size_of::<f32>()) >> 20);
            Error::machine(what, "use fewer ranks or smaller messages")
        })?;
        // Written here, by the rank's own thread, so that its pages exist before anything is timed.
        lines.extend((0..count).map(|_| Line([const { UnsafeCell::new(f32::NAN) }; LINE])));
        Ok(Region { lines: lines.into_boxed_slice(), len })
    }

    fn empty() -> Arc<Self> {
        Arc::new(Region { lines: Box::default(), len: 0 })
    }

    fn at(&self, span: BufferSpan) -> *mut f32 {
        assert!(span.start <= span.end() && span.end() <= self.len, "{span:?} of {} elements", self.len);
        // Lines are arrays of cells without padding between them.
        let cells = self.lines.as_ptr().cast::<UnsafeCell<f32>>();
        UnsafeCell::raw_get(cells.wrapping_add(span.start))
    }
}

/// One message: where it lies, or itself where it is small. Its turn, its length and a small payload share a line.
#[repr(C, align(128))]
struct Slot {
    /// 1 + the number of the message it holds; written last by the sender, looked at by the receiver.
    turn: AtomicUsize,
    len: AtomicUsize,
    address: AtomicPtr<f32>,
    payload: UnsafeCell<[f32; EAGER_CAPACITY]>,
}

/// A one-way queue of messages from one rank to one other.
pub(super) struct Edge {
    slots: Box<[Slot]>,
    /// Messages the receiver is done with.
    consumed: Padded<AtomicUsize>,
}

// SAFETY: a slot's payload is written by the edge's one sender while the slot is free and read by its one receiver
// while it is published; `turn` and `consumed` hand it over.
unsafe impl Sync for Edge {}

impl Edge {
    pub fn new() -> Self {
        let slot = || Slot {
            turn: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            address: AtomicPtr::new(std::ptr::null_mut()),
            payload: UnsafeCell::new([0.0; EAGER_CAPACITY]),
        };
        Edge { slots: (0..SLOTS).map(|_| slot()).collect(), consumed: Padded::default() }
    }

    fn is_consumed(&self, message: usize) -> bool {
        self.consumed.load(Ordering::Acquire) > message
    }
}

/// How a received message is combined with the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// The message overwrites the destination.
    Replace,
    /// The destination gets the sum of this span, which may be the destination itself, and the message.
    Add(BufferSpan),
}

/// A span the receiver may be reading.
struct Lent {
    to: usize,
    message: usize,
    span: BufferSpan,
}

/// A rank's memory and its ends of the edges. Not shared: each rank's thread has its own.
pub(super) struct Ports {
    pub shared: Arc<Shared>,
    pub me: usize,
    regions: [Arc<Region>; 3],
    sent: Vec<usize>,
    received: Vec<usize>,
    lent: Vec<Lent>,
}

impl Ports {
    pub fn new(shared: Arc<Shared>, me: usize) -> Self {
        let ranks = shared.ranks;
        let regions = [Region::empty(), Region::empty(), Region::empty()];
        Ports { shared, me, regions, sent: vec![0; ranks], received: vec![0; ranks], lent: Vec::new() }
    }

    fn region(&self, buffer: RankBuffer) -> &Region {
        &self.regions[buffer as usize]
    }

    /// Makes sure that the buffer has `len` elements; a buffer that grows loses its contents.
    pub fn reserve(&mut self, buffer: RankBuffer, len: usize) -> Result<()> {
        if self.region(buffer).len < len {
            let region = Arc::new(Region::new(len)?);
            self.shared.keep(&region);
            self.regions[buffer as usize] = region;
        }
        Ok(())
    }

    pub fn view(&self, span: BufferSpan) -> &[f32] {
        // SAFETY: in bounds (`at` checks); this rank writes only through `&mut self`, others never write.
        unsafe { std::slice::from_raw_parts(self.region(span.buffer).at(span), span.len) }
    }

    /// The span, to be written: waits until no one reads any of it.
    pub fn view_mut(&mut self, span: BufferSpan) -> Result<&mut [f32]> {
        self.reclaim(span)?;
        // SAFETY: in bounds; `&mut self` excludes this rank's other references, `reclaim` the receivers' ones.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.region(span.buffer).at(span), span.len) })
    }

    pub fn copy(&mut self, to: BufferSpan, from: BufferSpan) -> Result<()> {
        if to == from || to.len == 0 {
            return Ok(());
        }
        assert!(to.len == from.len && !to.overlaps(&from), "copy of {from:?} to {to:?}");
        self.reclaim(to)?;
        // SAFETY: in bounds, disjoint (asserted), `reclaim` excludes readers of `to`, `&mut self` everything else.
        unsafe {
            std::ptr::copy_nonoverlapping(self.region(from.buffer).at(from), self.region(to.buffer).at(to), to.len);
        }
        Ok(())
    }

    pub fn send(&mut self, to: usize, span: BufferSpan) -> Result<()> {
        if span.len == 0 {
            return Ok(());
        }
        let message = self.sent[to];
        let edge = self.shared.edge(self.me, to);
        if message >= SLOTS {
            self.shared.wait(self.me, to, || edge.is_consumed(message - SLOTS))?;
        }
        let slot = &edge.slots[message % SLOTS];
        let data = self.region(span.buffer).at(span);
        let is_eager = span.len <= self.shared.tuning.eager.min(EAGER_CAPACITY);
        if is_eager {
            let payload = slot.payload.get().cast::<f32>();
            // SAFETY: the length fits the payload; the slot's former message is consumed, so nobody reads it; only this
            // rank sends on this edge; `data` is this rank's own and in bounds.
            unsafe { std::ptr::copy_nonoverlapping(data, payload, span.len) };
            slot.address.store(payload, Ordering::Relaxed);
        } else {
            slot.address.store(data, Ordering::Relaxed);
            self.lent.push(Lent { to, message, span });
        }
        slot.len.store(span.len, Ordering::Relaxed);
        slot.turn.store(message + 1, Ordering::Release);
        self.sent[to] = message + 1;
        Ok(())
    }

    pub fn receive(&mut self, from: usize, into: BufferSpan, combine: Combine) -> Result<()> {
        if into.len == 0 {
            return Ok(());
        }
        let message = self.received[from];
        let shared = Arc::clone(&self.shared);
        let edge = shared.edge(from, self.me);
        let slot = &edge.slots[message % SLOTS];
        shared.wait(self.me, from, || slot.turn.load(Ordering::Acquire) == message + 1)?;
        let len = slot.len.load(Ordering::Relaxed);
        if len != into.len {
            let what = format!("rank {} expected {} elements from rank {from} and got {len}", self.me, into.len);
            return Err(Error::bug(format!("ranks run different operations: {what}")));
        }
        self.reclaim(into)?;
        // SAFETY: published and not yet consumed, so the sender neither writes nor frees it; it is another rank's
        // memory or the edge's own, so it never overlaps what this rank writes.
        let incoming = unsafe { std::slice::from_raw_parts(slot.address.load(Ordering::Relaxed), len) };
        self.combine(incoming, into, combine);
        edge.consumed.store(message + 1, Ordering::Release);
        self.received[from] = message + 1;
        Ok(())
    }

    /// Call only after `reclaim(into)`.
    fn combine(&mut self, incoming: &[f32], into: BufferSpan, combine: Combine) {
        // SAFETY: in bounds; `&mut self` and the `reclaim` before make it exclusive. Addends are either the very same
        // span, and then read through this reference, or disjoint from it (asserted).
        let out = unsafe { std::slice::from_raw_parts_mut(self.region(into.buffer).at(into), into.len) };
        match combine {
            Combine::Replace => out.copy_from_slice(incoming),
            Combine::Add(own) if own == into => out.iter_mut().zip(incoming).for_each(|(o, i)| *o += i),
            Combine::Add(own) => {
                assert!(own.len == into.len && !own.overlaps(&into), "{own:?} added into {into:?}");
                let own = self.view(own);
                out.iter_mut().zip(own.iter().zip(incoming)).for_each(|(o, (a, b))| *o = a + b);
            }
        }
    }

    /// Waits until no receiver reads any of `span`, which is about to be written.
    fn reclaim(&mut self, span: BufferSpan) -> Result<()> {
        if self.lent.is_empty() {
            return Ok(());
        }
        let (shared, me) = (&*self.shared, self.me);
        self.lent.retain(|l| !shared.edge(me, l.to).is_consumed(l.message));
        self.lent.iter().filter(|l| l.span.overlaps(&span)).try_for_each(|l| await_return(shared, me, l))
    }

    /// Waits until nothing is lent: the operation is done, its buffers are the caller's again.
    pub fn settle(&mut self) -> Result<()> {
        let (shared, me) = (&*self.shared, self.me);
        self.lent.iter().try_for_each(|l| await_return(shared, me, l))?;
        self.lent.clear();
        Ok(())
    }
}

fn await_return(shared: &Shared, me: usize, lent: &Lent) -> Result<()> {
    let edge = shared.edge(me, lent.to);
    shared.wait(me, lent.to, || edge.is_consumed(lent.message))
}
