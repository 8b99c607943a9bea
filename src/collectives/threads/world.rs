//! The ranks' threads: made once, given one job after another, joined when dropped. Rank 0 is the caller's own thread,
//! so two ranks on two cores have no third thread to disturb them.

use super::pin;
use super::rank::Rank;
use super::wait::{Shared, Tuning, lock};
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle rank keeps looking for the next job before it sleeps: samples follow each other within this.
const LINGER: Duration = Duration::from_millis(2);

type Job = Arc<dyn Fn(&mut Rank) + Send + Sync>;

/// Where jobs are handed out; `None` as a job means that the thread ends.
#[derive(Default)]
struct Desk {
    number: AtomicU64,
    job: Mutex<Option<Job>>,
    bell: Condvar,
    /// The last job each rank has finished.
    finished: Vec<AtomicU64>,
}

/// A fixed number of ranks as threads of this process, which run one job after another; rank 0 runs on the caller's
/// thread.
pub struct World {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    first: Rank,
    /// One for each rank, where there are enough.
    cores: Option<Vec<usize>>,
    others: Vec<JoinHandle<()>>,
}

impl World {
    /// Starts the threads of ranks 1 and up; an error for 0 ranks, or where the system starts no more threads.
    pub fn new(ranks: usize, tuning: Tuning) -> Result<Self> {
        if ranks == 0 {
            return Err(Error::input("a world of 0 ranks", "give at least one"));
        }
        let shared = Arc::new(Shared::new(ranks, tuning));
        let finished = (0..ranks).map(|_| AtomicU64::new(0)).collect();
        let desk = Arc::new(Desk { finished, ..Desk::default() });
        let first = Rank::new(Arc::clone(&shared), 0);
        let cores = if tuning.pinned { pin::cores(ranks) } else { None };
        let mut world = World { shared, desk, first, cores, others: Vec::new() };
        for index in 1..ranks {
            let core = world.core(index);
            let (shared, desk) = (Arc::clone(&world.shared), Arc::clone(&world.desk));
            let thread = std::thread::Builder::new()
                .name(format!("rank {index}"))
                .spawn(move || {
                    let _pinned = core.map(pin::pin);
                    work(&desk, Rank::new(Arc::clone(&shared), index), &shared)
                })
                .map_err(|e| Error::machine(format!("cannot start rank {index}'s thread: {e}"), "use fewer ranks"))?;
            world.others.push(thread);
        }
        Ok(world)
    }

    /// Number of ranks, the caller's thread included.
    pub fn ranks(&self) -> usize {
        self.shared.ranks
    }

    fn core(&self, rank: usize) -> Option<usize> {
        self.cores.as_ref().map(|cores| cores[rank])
    }

    /// Runs the job on every rank and returns their results by rank. If one rank fails, panics or does not finish
    /// within the deadline, that is the error of the whole call, and the world is of no further use.
    pub fn run<T: Send + 'static>(
        &mut self,
        job: impl Fn(&mut Rank) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Vec<T>> {
        self.shared.check()?;
        let answers: Arc<Vec<Mutex<Option<T>>>> = Arc::new((0..self.ranks()).map(|_| Mutex::new(None)).collect());
        let (sheets, shared) = (Arc::clone(&answers), Arc::clone(&self.shared));
        let job: Job = Arc::new(move |rank| match job(rank) {
            Ok(answer) => *lock(&sheets[rank.index()]) = Some(answer),
            Err(error) => shared.fail(error),
        });
        let number = self.desk.hand_out(Some(Arc::clone(&job)));
        // The caller's thread is its own again afterwards.
        let _pinned = self.core(0).map(pin::pin);
        guarded(&self.shared, &mut self.first, &job);
        for (index, finished) in self.desk.finished.iter().enumerate().skip(1) {
            self.shared.wait(0, index, || finished.load(Ordering::Acquire) >= number)?;
        }
        self.shared.check()?;
        let missing = || Error::bug("a rank gave no answer");
        answers.iter().map(|sheet| lock(sheet).take().ok_or_else(missing)).collect()
    }
}

impl Drop for World {
    /// Ends the threads; one that is stuck in something other than a wait of ours is left behind rather than waited
    /// for. What it may still touch belongs to it too.
    fn drop(&mut self) {
        self.desk.hand_out(None);
        let patience = Instant::now() + Duration::from_secs(1);
        for thread in self.others.drain(..) {
            while !thread.is_finished() && (self.shared.check().is_ok() || Instant::now() < patience) {
                std::thread::yield_now();
            }
            if thread.is_finished() {
                // A panic of the rank has become the world's error already.
                let _ = thread.join();
            }
        }
    }
}

impl Desk {
    fn hand_out(&self, job: Option<Job>) -> u64 {
        let mut place = lock(&self.job);
        *place = job;
        let number = self.number.fetch_add(1, Ordering::Release) + 1;
        drop(place);
        self.bell.notify_all();
        number
    }

    /// The job after the `seen`-th.
    fn next(&self, seen: u64, linger: Duration) -> (u64, Option<Job>) {
        let begun = Instant::now();
        while self.number.load(Ordering::Acquire) == seen && begun.elapsed() < linger {
            std::thread::yield_now();
        }
        let mut place = lock(&self.job);
        while self.number.load(Ordering::Acquire) == seen {
            place = self.bell.wait(place).unwrap_or_else(PoisonError::into_inner);
        }
        (self.number.load(Ordering::Acquire), place.clone())
    }
}

/// The life of a rank's thread.
fn work(desk: &Desk, mut rank: Rank, shared: &Shared) {
    let linger = if shared.tuning.spins > 0 { LINGER } else { Duration::ZERO };
    let mut seen = 0;
    while let (number, Some(job)) = desk.next(seen, linger) {
        seen = number;
        guarded(shared, &mut rank, &job);
        drop(job);
        desk.finished[rank.index()].store(number, Ordering::Release);
    }
}

/// A panic in a job is the world's failure, so that nobody waits for a rank that is gone.
fn guarded(shared: &Shared, rank: &mut Rank, job: &Job) {
    let index = rank.index();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(rank))) {
        let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        shared.fail(Error::bug(format!("rank {index} panicked: {text}")));
    }
}
