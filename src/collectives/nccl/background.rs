//! An all-reduce to run beside something else: rank 0 lives on the caller's stream, every other rank follows on its own
//! GPU, one operation for each of rank 0's.
//!
//! Made for `corun`: rank 0 is the side of a pair on one GPU; what the others do is wait for it.

use super::Nccl;
use super::communicator::Communicator;
use super::enqueue::{Enqueue, Places};
use super::gpu::{DeviceAllocation, RankGpu};
use crate::collectives::ranks::worker::{Abort, MeetingId, RankConfig};
use crate::collectives::{CollectiveOperation, Element, Exchange};
use crate::{Error, Result};
use cudarc::driver::sys::CUstream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long another rank may take to finish the operations that it was asked for, and to end once it is aborted.
const FAREWELL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);
/// What is left to a rank that has told rank 0 of its failure.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// What the all-reduce is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackgroundSpec {
    pub bytes: u64,
    /// Thread blocks it takes, exactly; `None`: as many as NCCL chooses.
    pub ctas: Option<u32>,
    pub deadline: Duration,
}

/// One rank: its communicator and its buffer, added up in place again and again. It holds zeros, which stay zeros.
struct Member {
    // Children go before their parent, the GPU last.
    communicator: Communicator,
    _parent: Communicator,
    buffer: DeviceAllocation,
    exchange: Exchange,
    gpu: RankGpu,
}

impl Member {
    fn join(nccl: &Arc<Nccl>, config: &RankConfig, id: MeetingId, abort: &Abort, what: BackgroundSpec) -> Result<Self> {
        let gpu = RankGpu::open(config.device)?;
        gpu.bind()?;
        let parent = Communicator::join(nccl, super::UniqueId(id), config, abort)?;
        let communicator = parent.working(what.ctas)?;
        let elements = (what.bytes as usize / Element::Bf16.bytes()).max(1);
        let buffer = DeviceAllocation::new(&gpu, elements * Element::Bf16.bytes())?;
        gpu.fill(&buffer, 0)?;
        gpu.drain(&communicator, "filling a buffer")?;
        let exchange = Exchange::new(CollectiveOperation::AllReduce, elements, config.ranks).in_place(true);
        Ok(Member { communicator, _parent: parent, buffer, exchange, gpu })
    }

    fn put(&self, stream: CUstream) -> Result<()> {
        let place = self.buffer.pointer();
        let places = Places { send: place, receive: place, element: Element::Bf16 };
        let Member { communicator, exchange, .. } = self;
        Enqueue { communicator, stream: stream.cast(), places, exchange }.run()
    }
}

/// All ranks of the all-reduce; when it is dropped, the threads of the others end after the last operation they were
/// asked for.
pub struct BackgroundAllReduce {
    leader: Member,
    followers: Vec<Follower>,
    abort: Abort,
}

struct Follower {
    /// `None` once it is to go.
    starts: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
    /// Ends what it waits for.
    abort: Abort,
}

impl BackgroundAllReduce {
    /// Rank r on `devices[r]`; returns when all have met. Rank 0 is the caller's.
    pub fn gather(devices: &[u32], what: BackgroundSpec) -> Result<Self> {
        let nccl = Arc::new(Nccl::load()?);
        let (id, abort) = (nccl.unique_id()?.0, Abort::default());
        let config = |rank: usize| RankConfig {
            rank,
            ranks: devices.len(),
            device: devices[rank],
            nodes: 1,
            ranks_per_gpu: 1,
            deadline: what.deadline,
        };
        let mut followers = Vec::new();
        for rank in 1..devices.len() {
            let (nccl, config, leader) = (Arc::clone(&nccl), config(rank), abort.clone());
            let (starts, requests) = channel();
            let own = Abort::default();
            let theirs = own.clone();
            let body = move || {
                let joined = Member::join(&nccl, &config, id, &theirs, what);
                // Rank 0 may be waiting for this one, on its stream or while it joins.
                joined.and_then(|member| follow(&member, &requests)).inspect_err(|_| leader.request())
            };
            let thread = std::thread::Builder::new().name(format!("rank {rank}")).spawn(body);
            let thread = thread.map_err(|e| Error::machine(format!("cannot start a thread: {e}"), "use fewer GPUs"))?;
            followers.push(Follower { starts: Some(starts), thread: Some(thread), abort: own });
        }
        match Member::join(&nccl, &config(0), id, &abort, what) {
            Ok(leader) => Ok(BackgroundAllReduce { leader, followers, abort }),
            // One that has failed knows why; rank 0 only that it was kept waiting.
            Err(error) => {
                let failed = |follower: &mut Follower| follower.ends_within(LAST_WORDS).then(|| follower.failed())?;
                Err(followers.iter_mut().find_map(failed).unwrap_or(error))
            }
        }
    }

    /// One all-reduce: on this stream, and on every other rank's own.
    pub fn put(&mut self, stream: CUstream) -> Result<()> {
        for follower in &mut self.followers {
            let told = follower.starts.as_ref().is_some_and(|starts| starts.send(()).is_ok());
            if !told {
                self.abort.request();
                return Err(follower.why());
            }
        }
        self.leader.put(stream)
    }
}

impl Follower {
    fn why(&mut self) -> Error {
        self.end();
        self.failed()
            .unwrap_or_else(|| Error::machine("a rank of the all-reduce is gone", "set NCCL_DEBUG=WARN to see why"))
    }

    /// Its error, where it has ended with one.
    fn failed(&mut self) -> Option<Error> {
        match self.thread.take_if(|thread| thread.is_finished())?.join() {
            Ok(result) => result.err(),
            Err(_) => None,
        }
    }

    /// Waits until its thread has ended; one that does not is aborted, and left behind where that does not help.
    fn end(&mut self) {
        self.starts = None;
        if !self.ends_within(FAREWELL) {
            self.abort.request();
            self.ends_within(PATIENCE);
        }
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let gone = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while !gone() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        gone()
    }
}

impl Drop for BackgroundAllReduce {
    fn drop(&mut self) {
        for follower in &mut self.followers {
            follower.starts = None;
        }
        // One that failed has left an error that nobody asks for any more.
        self.followers.iter_mut().for_each(Follower::end);
    }
}

/// Operations of a follower on its stream: one that runs and those behind it, so that rank 0 need not wait for it.
const AHEAD: usize = 4;

/// The life of any rank but rank 0.
fn follow(member: &Member, starts: &Receiver<()>) -> Result<()> {
    let mut events = Vec::new();
    for number in 0.. {
        if starts.recv().is_err() {
            break;
        }
        member.put(member.gpu.stream.cu_stream())?;
        // The event of the operation so many before is reused once that is done.
        if events.len() < AHEAD {
            events.push(member.gpu.event()?);
        } else {
            member.gpu.wait_for(&events[number % AHEAD], &member.communicator, "an all-reduce beside other work")?;
        }
        member.gpu.record(&events[number % AHEAD])?;
    }
    member.gpu.drain(&member.communicator, "the last all-reduces")
}
