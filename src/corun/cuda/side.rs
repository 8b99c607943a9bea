//! The side: steps of a small program on a stream of its own, put there by a thread of its own.
//!
//! The thread keeps a bounded number of steps on the stream: enough that the stream does not run dry between two, few
//! enough that the side stands still soon after it is halted. Each step lies between two events.
//! A step is a closure, so that a model, a pressure kernel or a test's work run alike.

use super::events::{self, EventClock, TimedStep};
use super::streams;
use crate::corun::worker::{SideWorker, Slice, Turn};
use crate::machine::driver_error;
use crate::ops::cuda::{Cuda, Gpu, Priority};
use crate::ops::{DType, Ops};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Steps kept on the side's stream: one that runs and one behind it.
pub const IN_FLIGHT: usize = 2;
/// Steps run before one is timed: the first loads kernels, makes plans and scratch memory.
const WARM_STEPS: usize = 2;
/// Steps timed to know how long one takes: at least, at most, and for that long in between.
const LEAST_STEPS: usize = 2;
const MOST_STEPS: usize = 64;
const PROFILE: Duration = Duration::from_millis(20);

/// A function that puts one step on the stream.
pub type PutStep = Box<dyn FnMut(&mut Cuda) -> Result<()>>;

/// The program of a side: what a step is, and what it counts for.
pub struct SideProgram {
    /// Puts one step on the side's stream.
    pub step: PutStep,
    /// Progress of one step, in the program's own unit.
    pub units: f64,
}

#[derive(Default)]
struct Log {
    /// Of the last turn, done.
    done: Vec<TimedStep>,
    /// To be recorded again.
    spare: Vec<TimedStep>,
}

type Shared = Arc<Mutex<Log>>;

fn lock(log: &Shared) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the side's thread finds out before its first turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SideFacts {
    /// Time of one step by itself in nanoseconds, the stream never dry.
    pub step_ns: f64,
    /// Progress of one step, in the program's own unit.
    pub units: f64,
    /// Priority of the side's stream as the driver has it; the lower number goes first.
    pub priority: i32,
}

/// What a side did from its start to its halt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SideTurn {
    /// The steps in order, in nanoseconds from the clock's origin.
    pub slices: Vec<Slice>,
    /// Steps that were not yet all on the stream when the one before ended: the thread, not the GPU, set the pace.
    pub late: usize,
}

/// A side on a stream of its own, started and halted from outside.
pub struct SideStream {
    /// What was found out of the side at its start.
    pub facts: SideFacts,
    worker: SideWorker,
    log: Shared,
}

impl SideStream {
    /// Starts the thread; `make` runs in it and says what a step is. Returns once it is warm and stands still. An error
    /// where the thread cannot start, or `make` or a step fails.
    pub fn start<M>(gpu: &Arc<Gpu>, dtype: DType, priority: Priority, make: M) -> Result<Self>
    where
        M: FnOnce(&mut Cuda) -> Result<SideProgram> + Send + 'static,
    {
        let (log, gpu) = (Shared::default(), Arc::clone(gpu));
        let (tell, told) = mpsc::channel();
        let theirs = Arc::clone(&log);
        let body = move |turn: Turn| {
            let mut ops = Cuda::on(&gpu, dtype, priority)?;
            let program = make(&mut ops)?;
            let mut runner = Runner { ops, program, queued: Vec::new(), log: theirs };
            let facts = runner.warm_up()?;
            if tell.send(facts).is_err() {
                return Ok(());
            }
            turn.serve_turns(&mut runner, Runner::step, Runner::rest)
        };
        let worker = SideWorker::start("side", body)?;
        let facts = told.recv().map_err(|_| Error::machine("the side program ended early", "run the case alone"))?;
        Ok(SideStream { facts, worker, log })
    }

    /// Lets the side run; returns once its first step is done on the GPU.
    pub fn run(&mut self) -> Result<()> {
        self.worker.run()
    }

    /// Halts the side; returns once its stream is empty, with the steps since it was started.
    pub fn halt(&mut self, clock: &EventClock) -> Result<SideTurn> {
        self.worker.halt()?;
        let done = std::mem::take(&mut lock(&self.log).done);
        let slices = clock.slices(&done)?;
        // The first one of a turn finds nothing before it.
        let late = done.iter().skip(1).filter(|step| step.dry).count();
        lock(&self.log).spare.extend(done);
        Ok(SideTurn { slices, late })
    }
}

/// The thread's side of it.
struct Runner {
    ops: Cuda,
    program: SideProgram,
    /// Steps of this turn, done or on the stream.
    queued: Vec<TimedStep>,
    log: Shared,
}

impl Runner {
    fn events(&self) -> Result<TimedStep> {
        if let Some(spare) = lock(&self.log).spare.pop() {
            return Ok(spare);
        }
        let gpu = self.ops.gpu();
        Ok(TimedStep { begin: gpu.timed_event()?, end: gpu.timed_event()?, dry: true })
    }

    fn put(&mut self) -> Result<TimedStep> {
        let mut step = self.events()?;
        events::record(&step.begin, &self.ops)?;
        (self.program.step)(&mut self.ops)?;
        // Asked once all of it is on the stream: where the step before has ended by now, the GPU waited for this thread,
        // before the step or between its launches.
        let before = self.queued.last().map(|before| before.end.try_is_complete());
        step.dry = before.transpose().map_err(|e| driver_error("the side's stream failed", e))?.unwrap_or(true);
        events::record(&step.end, &self.ops)?;
        Ok(step)
    }

    /// Puts a step on the stream and waits until the one before it is done. A turn begins with two, so that the stream does
    /// not run dry behind the first; who started the side then knows that it runs.
    fn step(&mut self) -> Result<()> {
        let missing = if self.queued.is_empty() { IN_FLIGHT } else { 1 };
        for _ in 0..missing {
            let step = self.put()?;
            self.queued.push(step);
        }
        let before = self.queued.len().saturating_sub(IN_FLIGHT);
        match self.queued.get(before) {
            Some(step) => step.end.synchronize().map_err(|e| driver_error("the side's stream failed", e)),
            None => Ok(()),
        }
    }

    /// Waits for what is on the stream; errors of the operations surface here.
    fn rest(&mut self) -> Result<()> {
        self.ops.synchronize()?;
        lock(&self.log).done.append(&mut self.queued);
        Ok(())
    }

    fn warm_up(&mut self) -> Result<SideFacts> {
        for _ in 0..WARM_STEPS {
            (self.program.step)(&mut self.ops)?;
            self.ops.synchronize()?;
        }
        let (first, begun, mut steps) = (self.put()?, Instant::now(), 1);
        let mut last = None;
        while steps < LEAST_STEPS || (steps < MOST_STEPS && begun.elapsed() < PROFILE) {
            last = Some(self.put()?);
            steps += 1;
        }
        self.ops.synchronize()?;
        let end = last.as_ref().map_or(&first.end, |last| &last.end);
        let ms = first.begin.elapsed_ms(end).map_err(|e| driver_error("cannot read the GPU's events", e))?;
        let step_ns = f64::from(ms) * 1e6 / steps as f64;
        Ok(SideFacts { step_ns, units: self.program.units, priority: streams::priority_of(&self.ops)? })
    }
}
