//! An exchange as NCCL's calls: which buffers, how many elements, which peers. What is put on the stream is one
//! operation.
//!
//! all_to_all is NCCL's own call from 2.28 on and grouped messages before, as send_recv and pipeline are. A ping-pong
//! is two groups, because the answer must not start before the message has come.

use super::communicator::Communicator;
use super::sys::{self, ncclComm_t, ncclDataType_t, ncclResult_t};
use crate::collectives::{
    BufferSpan, CollectiveOperation, Element, Exchange, Pattern, RankBuffer, pipeline, send_recv,
};
use crate::units::counted;
use crate::{Error, Result};
use std::ffi::{c_int, c_void};

/// Where a rank's buffers lie on its GPU.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    pub send: u64,
    pub receive: u64,
    pub element: Element,
}

impl Places {
    pub fn address(&self, span: BufferSpan) -> u64 {
        let base = if span.buffer == RankBuffer::Send { self.send } else { self.receive };
        base + (span.start * self.element.bytes()) as u64
    }
}

/// By the numbers of nccl.h, which older headers do not all have.
fn data_type(element: Element) -> ncclDataType_t {
    ncclDataType_t(match element {
        Element::F16 => 6,
        Element::F32 => 7,
        Element::Bf16 => 9,
        Element::F8E4m3 => 10,
        Element::F8E5m2 => 11,
    })
}

type AllToAll = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    ncclDataType_t,
    ncclComm_t,
    sys::cudaStream_t,
) -> ncclResult_t;

const SUM: sys::ncclRedOp_t = sys::ncclRedOp_t(0);

/// NCCL counts equal parts: what ranks do not divide is refused before anything runs.
pub fn validate(exchange: &Exchange) -> Result<()> {
    exchange.validate()?;
    let parts = matches!(
        exchange.operation,
        CollectiveOperation::AllGather | CollectiveOperation::ReduceScatter | CollectiveOperation::AllToAll
    );
    if parts && !exchange.elements.is_multiple_of(exchange.ranks) {
        let name = exchange.operation.definition().name();
        return Err(Error::input(
            format!("{name} of {} between {}", counted(exchange.elements, "element"), counted(exchange.ranks, "rank")),
            "NCCL takes equal parts only: give a multiple of the ranks",
        ));
    }
    Ok(())
}

/// One rank's operations on one stream.
pub struct Enqueue<'a> {
    pub communicator: &'a Communicator,
    pub stream: sys::cudaStream_t,
    pub places: Places,
    pub exchange: &'a Exchange,
}

impl Enqueue<'_> {
    /// Puts one operation on the stream.
    pub fn run(&self) -> Result<()> {
        let rank = self.communicator.rank();
        match self.exchange.operation {
            CollectiveOperation::SendRecv(Pattern::PingPong) => self.ping_pong(rank),
            CollectiveOperation::SendRecv(_) => {
                let (ends, place) = (send_recv::ends(self.exchange, rank), self.exchange.placement(rank));
                let sends = ends.to.map(|peer| (peer, place.input));
                let receives = ends.from.map(|peer| (peer, place.output));
                self.messages(sends.into_iter(), receives.into_iter())
            }
            CollectiveOperation::Pipeline => {
                let of = |messages: Vec<pipeline::PeerMessage>| messages.into_iter().map(|m| (m.peer, m.place));
                let (sends, receives) = (pipeline::sends(self.exchange, rank), pipeline::receives(self.exchange, rank));
                self.messages(of(sends), of(receives))
            }
            CollectiveOperation::AllToAll => self.all_to_all(rank),
            _ => self.collective(rank),
        }
    }

    fn ping_pong(&self, rank: usize) -> Result<()> {
        let (ends, place) = (send_recv::ends(self.exchange, rank), self.exchange.placement(rank));
        let Some((to, from)) = ends.to.zip(ends.from) else { return Ok(()) };
        let (send, receive) = ([(to, place.input)], [(from, place.output)]);
        if rank.is_multiple_of(2) {
            self.messages(send.into_iter(), std::iter::empty())?;
            self.messages(std::iter::empty(), receive.into_iter())
        } else {
            self.messages(std::iter::empty(), receive.into_iter())?;
            self.messages(send.into_iter(), std::iter::empty())
        }
    }

    /// Grouped, so that none waits for another.
    fn messages(
        &self,
        sends: impl Iterator<Item = (usize, BufferSpan)>,
        receives: impl Iterator<Item = (usize, BufferSpan)>,
    ) -> Result<()> {
        let nccl = self.communicator.nccl();
        let send = nccl.function("ncclSend", |api| &api.ncclSend)?;
        let receive = nccl.function("ncclRecv", |api| &api.ncclRecv)?;
        let (dtype, stream) = (data_type(self.places.element), self.stream);
        self.grouped(|comm| {
            for (peer, span) in sends {
                let (from, peer) = (self.places.address(span) as *const c_void, peer as c_int);
                // SAFETY: the span lies in a buffer of this rank (`Places`), alive until the stream is waited for.
                nccl.check_on(comm, "ncclSend", unsafe { send(from, span.len, dtype, peer, comm, stream) })?;
            }
            for (peer, span) in receives {
                let (to, peer) = (self.places.address(span) as *mut c_void, peer as c_int);
                // SAFETY: as above.
                nccl.check_on(comm, "ncclRecv", unsafe { receive(to, span.len, dtype, peer, comm, stream) })?;
            }
            Ok(())
        })
    }

    /// A group ends whatever happened in it, or this thread's later calls would all be put into it.
    fn grouped(&self, body: impl FnOnce(ncclComm_t) -> Result<()>) -> Result<()> {
        let nccl = self.communicator.nccl();
        let start = nccl.function("ncclGroupStart", |api| &api.ncclGroupStart)?;
        let end = nccl.function("ncclGroupEnd", |api| &api.ncclGroupEnd)?;
        let status = self.communicator.call(|comm| {
            // SAFETY: both take nothing and concern this thread only.
            nccl.check_on(comm, "ncclGroupStart", unsafe { start() })?;
            let outcome = body(comm);
            // SAFETY: as above.
            let status = unsafe { end() };
            outcome.map(|()| status)
        })??;
        self.begun("ncclGroupEnd", status)
    }

    /// What NCCL does beside us has to be on the stream before anything is put behind it.
    fn begun(&self, call: &str, status: ncclResult_t) -> Result<()> {
        self.communicator.checked(call, status)?;
        if status == ncclResult_t::ncclInProgress {
            self.communicator.settle("the first operation of its kind")
        } else {
            Ok(())
        }
    }

    fn all_to_all(&self, rank: usize) -> Result<()> {
        let place = self.exchange.placement(rank);
        let (nccl, ranks) = (self.communicator.nccl(), self.exchange.ranks);
        let Ok(native) = nccl.newer::<AllToAll>("ncclAlltoAll") else {
            let part = |span: BufferSpan| (0..ranks).map(move |peer| (peer, span.part(ranks, peer)));
            return self.messages(part(place.input), part(place.output));
        };
        let (from, to) =
            (self.places.address(place.input) as *const c_void, self.places.address(place.output) as *mut c_void);
        let (count, dtype) = (self.exchange.elements / ranks, data_type(self.places.element));
        // SAFETY: both buffers hold `ranks` parts of `count` elements (`placement`), alive until the stream is waited for.
        let status = self.communicator.call(|comm| unsafe { native(from, to, count, dtype, comm, self.stream) })?;
        self.begun("ncclAlltoAll", status)
    }

    fn collective(&self, rank: usize) -> Result<()> {
        let Exchange { operation, elements, ranks, root, .. } = *self.exchange;
        let place = self.exchange.placement(rank);
        let input = self.places.address(place.input) as *const c_void;
        let output = self.places.address(place.output) as *mut c_void;
        let (dtype, stream, root) = (data_type(self.places.element), self.stream, root as c_int);
        let nccl = self.communicator.nccl();
        let (part, name) = (elements / ranks, operation.definition().name());
        let status = match operation {
            CollectiveOperation::AllReduce => {
                let call = nccl.function("ncclAllReduce", |api| &api.ncclAllReduce)?;
                // SAFETY: input and output are this rank's, hold what the operation reads and writes (`placement`), and are
                // alive until the stream is waited for.
                self.communicator.call(|comm| unsafe { call(input, output, elements, dtype, SUM, comm, stream) })
            }
            CollectiveOperation::AllGather => {
                let call = nccl.function("ncclAllGather", |api| &api.ncclAllGather)?;
                // SAFETY: input and output are this rank's, hold what the operation reads and writes (`placement`), and are
                // alive until the stream is waited for.
                self.communicator.call(|comm| unsafe { call(input, output, part, dtype, comm, stream) })
            }
            CollectiveOperation::ReduceScatter => {
                let call = nccl.function("ncclReduceScatter", |api| &api.ncclReduceScatter)?;
                // SAFETY: input and output are this rank's, hold what the operation reads and writes (`placement`), and are
                // alive until the stream is waited for.
                self.communicator.call(|comm| unsafe { call(input, output, part, dtype, SUM, comm, stream) })
            }
            CollectiveOperation::Broadcast => {
                let call = nccl.function("ncclBroadcast", |api| &api.ncclBroadcast)?;
                // SAFETY: input and output are this rank's, hold what the operation reads and writes (`placement`), and are
                // alive until the stream is waited for.
                self.communicator.call(|comm| unsafe { call(input, output, elements, dtype, root, comm, stream) })
            }
            CollectiveOperation::Reduce => {
                let call = nccl.function("ncclReduce", |api| &api.ncclReduce)?;
                // SAFETY: input and output are this rank's, hold what the operation reads and writes (`placement`), and are
                // alive until the stream is waited for.
                self.communicator.call(|comm| unsafe { call(input, output, elements, dtype, SUM, root, comm, stream) })
            }
            CollectiveOperation::AllToAll | CollectiveOperation::SendRecv(_) | CollectiveOperation::Pipeline => {
                return Err(Error::input(format!("{name} as one collective"), "it is made of messages"));
            }
        }?;
        self.begun(name, status)
    }
}
