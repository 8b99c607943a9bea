//! One rank's side of the cases on its GPU: buffers, the check, both times.
//!
//! *Pipelined*: ranks meet on their streams (an all-reduce of one element), then the operations follow back to back
//! between two events. *Isolated*: all meet, the host starts one operation and sees it end, as a program does that
//! waits for each.

use super::Nccl;
use super::communicator::Communicator;
use super::enqueue::{self, Enqueue, Places};
use super::gpu::{DeviceAllocation, RankGpu};
use super::graphs::NcclGraph;
use super::tuning::{self, Choice};
use super::{sys, values};
use crate::collectives::ranks::worker::{Abort, RankConfig, RankTiming, Task, Worker};
use crate::collectives::{CollectiveOperation, Element, Exchange, RankBuffer};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

/// Operations in one graph; a longer batch launches it again.
const MOST_CAPTURED: u64 = 32;
/// Elements of the first messages between two ranks: one that fits any protocol's smallest step, one that does not.
const WARM_UP_ELEMENTS: [usize; 2] = [1, 1 << 17];

pub struct NcclWorker {
    // In this order: what uses a communicator goes before it, what it uses after.
    case: Option<Prepared>,
    /// To be freed when no rank is at work: a free waits for the whole GPU, and so for ranks that share it, which may
    /// be waiting for this one.
    spare: Vec<DeviceAllocation>,
    meeting: DeviceAllocation,
    capped: HashMap<u32, Communicator>,
    communicator: Communicator,
    /// Where the ranks met; the others are its children.
    parent: Communicator,
    gpu: RankGpu,
    nccl: Arc<Nccl>,
}

/// A case's buffers, filled.
struct Prepared {
    graphs: Vec<NcclGraph>,
    _registrations: Vec<Registration>,
    send: DeviceAllocation,
    receive: DeviceAllocation,
    task: Task,
    choice: Choice,
}

impl Prepared {
    fn places(&self) -> Places {
        Places { send: self.send.pointer(), receive: self.receive.pointer(), element: self.task.dtype }
    }
}

impl NcclWorker {
    pub fn join(nccl: &Arc<Nccl>, config: &RankConfig, id: super::UniqueId, abort: &Abort) -> Result<Self> {
        let gpu = RankGpu::open(config.device)?;
        gpu.bind()?;
        let parent = Communicator::join(nccl, id, config, abort)?;
        let communicator = parent.working(None)?;
        let meeting = DeviceAllocation::new(&gpu, 4)?;
        gpu.fill(&meeting, 0)?;
        let mut worker = NcclWorker {
            case: None,
            spare: Vec::new(),
            meeting,
            capped: HashMap::new(),
            communicator,
            parent,
            gpu,
            nccl: Arc::clone(nccl),
        };
        worker.spare = worker.warm_up(&worker.communicator)?;
        Ok(worker)
    }

    /// Every pair of ranks exchanges messages, and all add up once, before anything is timed: connections are made
    /// then. What it used goes later.
    fn warm_up(&self, communicator: &Communicator) -> Result<Vec<DeviceAllocation>> {
        let ranks = communicator.ranks();
        let bytes = Element::F32.bytes() * ranks * WARM_UP_ELEMENTS[1];
        let blocks = vec![DeviceAllocation::new(&self.gpu, bytes)?, DeviceAllocation::new(&self.gpu, bytes)?];
        let places = Places { send: blocks[0].pointer(), receive: blocks[1].pointer(), element: Element::F32 };
        for elements in WARM_UP_ELEMENTS {
            let exchange = Exchange::new(CollectiveOperation::AllToAll, elements * ranks, ranks);
            Enqueue { communicator, stream: self.stream(), places, exchange: &exchange }.run()?;
            self.meet(communicator)?;
            self.gpu.drain(communicator, "the first messages between the ranks")?;
        }
        Ok(blocks)
    }

    fn stream(&self) -> sys::cudaStream_t {
        self.gpu.stream.cu_stream().cast()
    }

    /// Puts a meeting of all ranks on the stream.
    fn meet(&self, communicator: &Communicator) -> Result<()> {
        let (place, ranks) = (self.meeting.pointer(), communicator.ranks());
        let exchange = Exchange::new(CollectiveOperation::AllReduce, 1, ranks).in_place(true);
        let places = Places { send: place, receive: place, element: Element::F32 };
        Enqueue { communicator, stream: self.stream(), places, exchange: &exchange }.run()
    }

    /// The communicator with the task's cap, made on first use: that is collective, as every call here.
    fn of_task(&mut self, task: &Task) -> Result<()> {
        if let Some(ctas) = task.max_ctas
            && !self.capped.contains_key(&ctas)
        {
            let made = self.parent.working(Some(ctas))?;
            self.spare.extend(self.warm_up(&made)?);
            self.capped.insert(ctas, made);
        }
        Ok(())
    }

    fn communicator(&self, task: &Task) -> &Communicator {
        task.max_ctas.and_then(|ctas| self.capped.get(&ctas)).unwrap_or(&self.communicator)
    }

    fn enqueue(&self, case: &Prepared) -> Result<()> {
        let communicator = self.communicator(&case.task);
        Enqueue { communicator, stream: self.stream(), places: case.places(), exchange: &case.task.exchange }.run()
    }

    fn make(&mut self, task: &Task) -> Result<Prepared> {
        let place = task.exchange.placement(self.communicator.rank());
        let block = |buffer| {
            let bytes = place.needs(buffer) * task.dtype.bytes();
            if task.registered {
                DeviceAllocation::of_nccl(&self.gpu, &self.nccl, bytes)
            } else {
                DeviceAllocation::new(&self.gpu, bytes)
            }
        };
        let (send, receive) = (block(RankBuffer::Send)?, block(RankBuffer::Receive)?);
        let mut registrations = Vec::new();
        if task.registered {
            for block in [&send, &receive] {
                registrations.push(Registration::new(self.communicator(task), block)?);
            }
        }
        let (graphs, choice) = (Vec::new(), Choice::default());
        Ok(Prepared { graphs, _registrations: registrations, send, receive, task: task.clone(), choice })
    }

    /// So many operations on the stream, as graphs where the case wants them.
    fn batch(&self, case: &Prepared, operations: u64) -> Result<()> {
        let mut left = operations;
        while left > 0 {
            match case.graphs.iter().filter(|graph| graph.operations <= left).max_by_key(|graph| graph.operations) {
                Some(graph) => {
                    graph.launch()?;
                    left -= graph.operations;
                }
                None => {
                    self.enqueue(case)?;
                    left -= 1;
                }
            }
        }
        Ok(())
    }

    /// Graphs for a batch of that length: one of one operation, and one of as many as are captured together.
    fn capture(&self, case: &mut Prepared, operations: u64) -> Result<()> {
        for count in [1, operations.min(MOST_CAPTURED)] {
            if case.graphs.iter().any(|graph| graph.operations == count) {
                continue;
            }
            let record = || (0..count).try_for_each(|_| self.enqueue(case));
            let graph = NcclGraph::capture(&self.gpu, count, record)?;
            // The first launch of a graph does what later ones need not.
            graph.launch()?;
            self.gpu.drain(self.communicator(&case.task), "the first launch of a graph")?;
            case.graphs.push(graph);
        }
        Ok(())
    }

    fn timed(&self, case: &Prepared, pipelined: u64, isolated: u64) -> Result<RankTiming> {
        let (communicator, exchange) = (self.communicator(&case.task), &case.task.exchange);
        let doing = exchange.operation.path();
        let passes = f64::from(exchange.operation.definition().passes());
        self.meet(communicator)?;
        self.gpu.mark_begin()?;
        self.batch(case, pipelined)?;
        self.gpu.drain(communicator, &doing)?;
        let pipelined_ns = self.gpu.between_ns()? / passes;
        let mut isolated_ns = Vec::new();
        for _ in 0..isolated {
            self.meet(communicator)?;
            self.gpu.drain(communicator, &doing)?;
            let begun = Instant::now();
            self.batch(case, 1)?;
            self.gpu.drain(communicator, &doing)?;
            isolated_ns.push(begun.elapsed().as_nanos() as f64 / passes);
        }
        Ok(RankTiming { pipelined_ns, isolated_ns })
    }
}

impl Worker for NcclWorker {
    fn prepare(&mut self, task: &Task) -> Result<u64> {
        self.case = None;
        let task = &Task { exchange: Exchange { exact: task.dtype.exact(), ..task.exchange }, ..task.clone() };
        enqueue::validate(&task.exchange)?;
        self.gpu.bind()?;
        self.of_task(task)?;
        let mut case = self.make(task)?;
        let (rank, places) = (self.communicator.rank(), case.places());
        values::load(&self.gpu, &task.exchange, rank, places, [&case.send, &case.receive])?;
        let communicator = self.communicator(task);
        // A rank that could not prepare shows here, not in the middle of the operation.
        self.meet(communicator)?;
        self.gpu.drain(communicator, "preparing the case")?;
        tuning::listen();
        self.enqueue(&case)?;
        self.gpu.drain(communicator, &task.exchange.operation.path())?;
        case.choice = tuning::heard(&task.exchange, task.dtype);
        let wrong = values::count_wrong(&self.gpu, &task.exchange, rank, places)?;
        self.case = Some(case);
        Ok(wrong)
    }

    fn time(&mut self, pipelined: u64, isolated: u64) -> Result<RankTiming> {
        self.gpu.bind()?;
        let unprepared = || Error::input("a collective was timed unprepared", "prepare it first");
        let mut case = self.case.take().ok_or_else(unprepared)?;
        if case.task.graph {
            self.capture(&mut case, pipelined)?;
        }
        let timing = self.timed(&case, pipelined, isolated);
        self.case = Some(case);
        timing
    }

    fn release(&mut self) -> Result<()> {
        self.case = None;
        self.spare.clear();
        Ok(())
    }

    fn facts(&self) -> Map<String, Value> {
        let mut facts = self.case.as_ref().map(|case| case.choice.facts()).unwrap_or_default();
        facts.insert("nccl".into(), self.nccl.version().ok().into());
        facts
    }
}

/// A buffer known to the communicator (2.19), until it is dropped.
struct Registration {
    handle: *mut c_void,
    /// Of the communicator that has it, which may have ended first.
    deregister: Box<dyn FnMut(*mut c_void) + Send>,
}

// SAFETY: the handle is a name that NCCL gave; it is used on the worker's thread only.
unsafe impl Send for Registration {}

impl Registration {
    fn new(communicator: &Communicator, block: &DeviceAllocation) -> Result<Self> {
        type Register =
            unsafe extern "C" fn(sys::ncclComm_t, *mut c_void, usize, *mut *mut c_void) -> sys::ncclResult_t;
        let nccl = communicator.nccl();
        let register: Register = nccl.newer("ncclCommRegister")?;
        let (mut handle, place) = (std::ptr::null_mut(), block.pointer() as *mut c_void);
        // SAFETY: the signature is nccl.h's; the block is that long, and outlives the registration (`Prepared`).
        let status = communicator.call(|comm| unsafe { register(comm, place, block.bytes(), &mut handle) })?;
        communicator.checked("ncclCommRegister", status)?;
        communicator.settle("registering a buffer")?;
        Ok(Registration { handle, deregister: communicator.deregister() })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        (self.deregister)(self.handle);
    }
}
