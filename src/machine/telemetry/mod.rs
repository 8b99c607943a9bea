//! How the GPU was doing while a case ran: a thread reads its sensors ten times a second, and [`Sampler::window`] sums up
//! the readings of a stretch of time. `suite::recorder` starts one for a run on a CUDA device; `nvml` and `dcgm` answer.
//!
//! The measuring thread never asks a sensor, never waits for one while it measures, and takes the lock only between cases.
//! A query that hangs therefore costs telemetry, not the run: the thread is left behind. It sleeps between readings and
//! keeps off the core that the thread which started it is on.

mod sensors;
mod summary;

pub use sensors::{GpuSensors, Sensors};
pub use summary::{SensorReading, summarise};

use super::nvml::{self, Nvml};
use super::{Device, gpus, threads};
use crate::records::telemetry::Telemetry;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(100);
/// Every so many readings a thorough one.
const THOROUGH: u64 = 5;
/// Readings kept: ten minutes, longer than any case.
const KEPT: usize = 6_000;
/// What the end of a case waits for a reading, where its time held none; and the end of a run for the thread. Sensors that
/// did not answer within it are not waited for again until they do.
const LAST_WAIT: Duration = Duration::from_secs(1);
const END_WAIT: Duration = Duration::from_millis(200);

/// A thread that reads a GPU's sensors ten times a second until this is dropped.
pub struct Sampler {
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    readings: VecDeque<SensorReading>,
    life: Life,
    stop: bool,
    /// A reading is wanted now.
    asked: bool,
    /// It did not come: the thread hangs in a query.
    silent: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Opening,
    Reading,
    /// Stopped, or there never were sensors.
    Over,
}

impl Sampler {
    /// Starts sampling a run's device, before the process's first CUDA context: whoever computes on the GPU by then
    /// counts as another process. `None` on the host, where the driver does not tell the GPU's UUID, and where NVML has
    /// hung.
    pub fn start(device: Device) -> Option<Sampler> {
        let Device::Cuda(ordinal) = device else { return None };
        let uuid = gpus::uuid(ordinal).filter(|_| !nvml::is_silent())?;
        Sampler::with(move || Some(Box::new(GpuSensors::open(Nvml::shared().ok()?, &uuid)?) as Box<dyn Sensors>))
    }

    /// Starts sampling any sensors; `open` runs on the sampler's own thread, because it may hang like any query. `None`
    /// where no thread can be started.
    pub fn with(open: impl FnOnce() -> Option<Box<dyn Sensors>> + Send + 'static) -> Option<Sampler> {
        let shared = Arc::new(Shared { began: Instant::now(), state: Mutex::default(), changed: Condvar::new() });
        let others = threads::other_cores();
        let of_thread = shared.clone();
        let body = move || {
            // On a single core, or where threads cannot be pinned, it shares one.
            let _ = threads::pin_current_thread(&others);
            match open() {
                Some(sensors) => of_thread.run(sensors),
                None => of_thread.end(),
            }
        };
        thread::Builder::new().name("telemetry".into()).spawn(body).ok()?;
        Some(Sampler { shared })
    }

    /// A look at the newest reading, for threads that do not measure.
    pub fn newest(&self) -> NewestReading {
        NewestReading { shared: self.shared.clone() }
    }

    /// This moment on the sampler's clock in ns, for [`Sampler::window`].
    pub fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Sums up the readings between two moments of [`Sampler::now_ns`]; `None` where no sensor ever answered. Never
    /// waits for a sensor.
    pub fn window(&self, from_ns: u64, to_ns: u64) -> Option<Telemetry> {
        let state = self.shared.lock();
        if state.readings.is_empty() {
            return None;
        }
        let within: Vec<&SensorReading> =
            state.readings.iter().filter(|r| (from_ns..=to_ns).contains(&r.at_ns)).collect();
        let earlier = state.readings.iter().rev().find(|r| r.at_ns < from_ns);
        Some(summarise(earlier, &within))
    }

    /// Sums up the readings from that moment to now. Where there is none yet one is taken, waited for at most a second:
    /// call it once the measuring is over.
    pub fn since(&self, from_ns: u64) -> Option<Telemetry> {
        let mut state = self.shared.lock();
        let empty = |state: &State| state.readings.back().is_none_or(|r| r.at_ns < from_ns);
        let wanted = |state: &State| state.life == Life::Reading && empty(state);
        if wanted(&state) && !state.silent {
            state.asked = true;
            self.shared.changed.notify_all();
            state = self.shared.wait(state, LAST_WAIT, wanted);
            state.silent = wanted(&state);
        }
        drop(state);
        self.window(from_ns, self.now_ns())
    }

    /// Waits at most `limit` for the first reading, before anything is measured; `None` where none came.
    pub fn first(&self, limit: Duration) -> Option<SensorReading> {
        let waiting = |state: &State| state.readings.is_empty() && state.life != Life::Over;
        self.shared.wait(self.shared.lock(), limit, waiting).readings.front().cloned()
    }
}

/// Looks at the newest reading of a [`Sampler`] from any thread, and never asks a sensor; outlives the sampler.
#[derive(Clone)]
pub struct NewestReading {
    shared: Arc<Shared>,
}

impl NewestReading {
    /// The newest reading; `None` where there is none yet, where it is older than `limit` because the sensors hang, and
    /// once the sampler is dropped.
    pub fn get(&self, limit: Duration) -> Option<SensorReading> {
        let state = self.shared.lock();
        let newest = state.readings.back().filter(|_| state.life == Life::Reading && !state.stop)?;
        let age_ns = self.shared.now_ns().saturating_sub(newest.at_ns);
        (u128::from(age_ns) <= limit.as_nanos()).then(|| newest.clone())
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stop = true;
        self.shared.changed.notify_all();
        // A thread that hangs in a query is left behind.
        drop(self.shared.wait(state, END_WAIT, |state| state.life != Life::Over));
    }
}

impl Shared {
    /// A lock that a panicking thread left is as good as any: every change to the state is a single push or store.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while `condition` holds.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        limit: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout_while(state, limit, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn run(&self, mut sensors: Box<dyn Sensors>) {
        let mut due = Instant::now();
        for number in 0.. {
            let from_ns = self.now_ns();
            let mut reading = sensors.read(number % THOROUGH == 0);
            reading.at_ns = self.now_ns();
            reading.took_ns = reading.at_ns - from_ns;
            // Late readings are not made up for.
            due = (due + PERIOD).max(Instant::now());
            if !self.keep(reading, due) {
                break;
            }
        }
        drop(sensors);
        self.end();
    }

    /// Stores a reading and sleeps until the next is due, or wanted; false: the sampler is dropped.
    fn keep(&self, reading: SensorReading, due: Instant) -> bool {
        let mut state = self.lock();
        if state.readings.len() == KEPT {
            state.readings.pop_front();
        }
        state.readings.push_back(reading);
        state.silent = false;
        if state.life == Life::Opening {
            state.life = Life::Reading;
        }
        self.changed.notify_all();
        let rest = due.saturating_duration_since(Instant::now());
        let mut state = self.wait(state, rest, |state| !state.stop && !state.asked);
        state.asked = false;
        !state.stop
    }

    fn end(&self) {
        self.lock().life = Life::Over;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
