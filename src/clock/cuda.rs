//! A GPU's clock: events around the work, the SM clock beside them. The method is in docs/method.md ("The GPU's clock").
//!
//! * [`CudaClock::cold`]: the L2 emptied, the stream held while the work is put on it, so that no launch latency is timed.
//! * [`CudaClock::warm`]: back to back, nothing emptied: throughput.
//! * [`CudaClock::cold_graph`], [`CudaClock::warm_graph`]: the same for a captured [`Graph`].
//!
//! The stream is held by a kernel that spins on a flag of the host, with a timeout: it shows that it gave up, and takes no
//! driver feature that some platforms lack. `cuStreamWaitValue32` would hold no SM at all; but one warp that naps costs
//! nothing before the work starts, and has ended when it does. Where not even that works (a driver that runs what it is
//! given at once), trials are made without and say so ([`Trial::unblocked`]).

use super::Trial;
use super::steady::{ClockReading, SteadyRule, WarmUp};
use crate::machine::driver_error;
use crate::ops::cuda::probe::{Moment, Probe, Stamp};
use crate::ops::cuda::{Cuda, Gpu, Graph, Priority};
use crate::ops::{DType, Ops};
use crate::{Error, Result};
use cudarc::driver::{CudaEvent, DriverError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ticks of the device's timer between the two stamps of a trial: each is good to one tick.
const WINDOW_TICKS: f64 = 200.0;
/// A timer so coarse that the window would be longer than this is not waited for.
const LONGEST_WINDOW_NS: f64 = 2e6;
/// An SM clock less certain than this is no ground to discard a sample.
const RESOLVED: f64 = 0.01;
/// What a trial of a warm-up should last, and how often it may run short work for that.
const WARM_UP_TRIAL_NS: f64 = 1e7;
const MOST_WARM_UP_RUNS: u64 = 4096;
/// Work is put on a held stream in microseconds: who takes this long waits for the stream.
const HOLD_TIMEOUT: Duration = Duration::from_secs(10);
/// For the first tries, made to see whether a stream can be held at all: this thread may lose its core in one of them.
const TRY_TIMEOUT: Duration = Duration::from_millis(200);
const TRIES: usize = 3;

/// Times work on the streams of one GPU.
pub struct CudaClock {
    probe: Probe,
    begin: CudaEvent,
    end: CudaEvent,
    /// Where both stamps are taken.
    sm: u32,
    tick_ns: Option<f64>,
    holds: bool,
    timeout: Duration,
}

impl CudaClock {
    /// Allocates what all trials need, and finds out what this GPU's timer and queue are like.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        let (begin, end) = (gpu.timed_event()?, gpu.timed_event()?);
        let mut ops = Cuda::on(gpu, DType::F32, Priority::Plain)?;
        let mut probe = Probe::new(gpu)?;
        let (sm, tick_ns) = (probe.some_sm(&mut ops)?, probe.tick_ns(&mut ops)?);
        let mut clock = CudaClock { probe, begin, end, sm, tick_ns, holds: false, timeout: HOLD_TIMEOUT };
        clock.load_kernels(&mut ops)?;
        clock.holds = clock.try_to_hold(&mut ops)?;
        Ok(clock)
    }

    /// The step of the GPU's nanosecond timer, in nanoseconds; `None` where the timer was not seen to move.
    pub fn tick_ns(&self) -> Option<f64> {
        self.tick_ns
    }

    /// Whether this GPU's stream can be held while work is put on it; if not, cold trials are made without a blocker.
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// Sets how long a held stream waits to be let go before it gives up; ten seconds unless set.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// A kernel's code is loaded when it is first launched, and loading may wait for all that runs: behind a blocker
    /// that would be for ever, so every probe runs once without.
    fn load_kernels(&mut self, ops: &mut Cuda) -> Result<()> {
        self.probe.flush(ops)?;
        self.warm(ops, 1, &mut |_| Ok(())).map(drop)
    }

    /// A driver that runs a launch before it returns would never let the stream go.
    fn try_to_hold(&mut self, ops: &mut Cuda) -> Result<bool> {
        if !self.probe.can_hold() {
            return Ok(false);
        }
        for _ in 0..TRIES {
            self.probe.begin();
            let hold = self.probe.hold(ops, TRY_TIMEOUT)?;
            drop(hold);
            ops.synchronize()?;
            if !self.probe.gave_up() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Times one run of `work` from an empty L2, with no launch latency in it. The work must have run once before (what
    /// is loaded or planned on first use waits for the stream), makes at most 509 launches and waits for none of them.
    pub fn cold(&mut self, ops: &mut Cuda, work: &mut dyn FnMut(&mut Cuda) -> Result<()>) -> Result<Trial> {
        self.probe.begin();
        self.probe.flush(ops)?;
        ops.synchronize()?;
        let hold = if self.holds { self.probe.hold(ops, self.timeout)? } else { None };
        let held = hold.is_some();
        let start = Instant::now();
        let put = self.between_stamps(ops, held, work);
        let ready = if held { Instant::now() } else { start };
        drop(hold);
        let mut trial = self.finish(ops, put, ready)?;
        if held && self.probe.gave_up() {
            return Err(gave_up(self.timeout));
        }
        trial.unblocked = !held;
        Ok(trial)
    }

    /// Times `n` runs back to back with warm caches; the time is that of all of them together.
    pub fn warm(&mut self, ops: &mut Cuda, n: u64, work: &mut dyn FnMut(&mut Cuda) -> Result<()>) -> Result<Trial> {
        self.warm_behind(ops, 0, n, work)
    }

    /// Times `n` runs back to back right behind `lead` runs that are not timed. While those run, the timed ones are
    /// queued: however slowly work is put on the stream, no launch latency is in their time.
    pub fn warm_behind(
        &mut self,
        ops: &mut Cuda,
        lead: u64,
        n: u64,
        work: &mut dyn FnMut(&mut Cuda) -> Result<()>,
    ) -> Result<Trial> {
        self.probe.begin();
        ops.synchronize()?;
        let start = Instant::now();
        let led = (0..lead).try_for_each(|_| work(ops));
        let put = led.and_then(|()| self.between_stamps(ops, false, &mut |ops| (0..n).try_for_each(|_| work(ops))));
        self.finish(ops, put, start)
    }

    /// The events before and after the work of the last trial.
    pub fn events(&self) -> (&CudaEvent, &CudaEvent) {
        (&self.begin, &self.end)
    }

    /// Times one replay of a graph from an empty L2, as [`CudaClock::cold`] does. The graph must have been launched
    /// once before.
    pub fn cold_graph(&mut self, ops: &mut Cuda, graph: &Graph) -> Result<Trial> {
        self.cold(ops, &mut |ops| graph.launch(ops))
    }

    /// Times `n` replays of a graph back to back, as [`CudaClock::warm`] does; the time is that of all of them
    /// together.
    pub fn warm_graph(&mut self, ops: &mut Cuda, n: u64, graph: &Graph) -> Result<Trial> {
        self.warm(ops, n, &mut |ops| graph.launch(ops))
    }

    /// Runs `work` until the SM clock keeps still ([`SteadyRule::capped_at`]), but no longer than `cap`.
    pub fn warm_up(
        &mut self,
        ops: &mut Cuda,
        cap: Duration,
        work: &mut dyn FnMut(&mut Cuda) -> Result<()>,
    ) -> Result<WarmUp> {
        self.warm_up_by(SteadyRule::capped_at(u64::try_from(cap.as_nanos()).unwrap_or(u64::MAX)), ops, work)
    }

    /// Warms the GPU up before a case. The first on a GPU waits for a steady clock, three seconds at most; later ones
    /// only bridge the pause in which the CPU made and checked the case, because under a power limit the clock never
    /// keeps still. The software device, whose clock is made up, gets a millisecond.
    pub fn settle(&mut self, ops: &mut Cuda, work: &mut dyn FnMut(&mut Cuda) -> Result<()>) -> Result<WarmUp> {
        let rule = if ops.facts().software {
            SteadyRule::capped_at(1_000_000)
        } else if ops.gpu().is_cold() {
            SteadyRule::capped_at(3_000_000_000)
        } else {
            SteadyRule { window_ns: 200_000_000, least_readings: 5, spread: 0.03, cap_ns: 500_000_000 }
        };
        self.warm_up_by(rule, ops, work)
    }

    fn warm_up_by(
        &mut self,
        rule: SteadyRule,
        ops: &mut Cuda,
        work: &mut dyn FnMut(&mut Cuda) -> Result<()>,
    ) -> Result<WarmUp> {
        let (start, mut readings, mut n) = (Instant::now(), Vec::new(), 1u64);
        loop {
            let trial = self.warm(ops, n, work)?;
            // Short work is strung together: between trials the GPU idles, and a GPU that mostly idles stays cold.
            let wanted = (n as f64 * WARM_UP_TRIAL_NS / trial.ns.max(1.0)) as u64;
            n = wanted.clamp(1, (4 * n).min(MOST_WARM_UP_RUNS));
            let spent_ns = start.elapsed().as_nanos() as u64;
            let mhz = trial.sm_clock_mhz.filter(|_| !trial.clock_unresolved);
            readings.push(ClockReading { at_ns: spent_ns, mhz });
            if let Some(end) = rule.decide(&readings, spent_ns) {
                return Ok(end);
            }
        }
    }

    /// Stamp, event, work, event, stamp.
    fn between_stamps(
        &mut self,
        ops: &mut Cuda,
        held: bool,
        work: &mut dyn FnMut(&mut Cuda) -> Result<()>,
    ) -> Result<()> {
        let wrap = |e: DriverError| driver_error("cannot record an event", e);
        let window_ns = self.window_ns();
        self.probe.stamp(ops, self.sm, Moment::Before)?;
        self.begin.record(ops.stream()).map_err(wrap)?;
        if held {
            ops.begin_held();
        }
        let done = work(ops);
        ops.end_held();
        done?;
        self.end.record(ops.stream()).map_err(wrap)?;
        self.probe.stamp(ops, self.sm, Moment::After { window_ns })
    }

    /// Waits for what was put on the stream, whether all of it could be or not.
    fn finish(&mut self, ops: &mut Cuda, put: Result<()>, ready: Instant) -> Result<Trial> {
        let ended = put.and_then(|()| self.end.synchronize().map_err(|e| driver_error("the GPU failed", e)));
        let host_ns = ready.elapsed().as_nanos() as f64;
        // What was launched before an error still runs; its error, if it has one, is the cause of what follows.
        let drained = ops.synchronize();
        ended?;
        drained?;
        let ms = self.begin.elapsed_ms(&self.end).map_err(|e| driver_error("cannot read the GPU's events", e))?;
        let (sm_clock_mhz, clock_unresolved) = match self.probe.stamps(ops)? {
            Some(stamps) => self.sm_clock(stamps),
            None => {
                // No block came to lie there: this stream may have other multiprocessors than the last one.
                self.sm = self.probe.some_sm(ops)?;
                (None, true)
            }
        };
        let ns = f64::from(ms) * 1e6;
        Ok(Trial { ns, host_ns: Some(host_ns), sm_clock_mhz, clock_unresolved, ..Trial::default() })
    }

    fn window_ns(&self) -> u64 {
        self.tick_ns.map(|tick| tick * WINDOW_TICKS).filter(|window| *window <= LONGEST_WINDOW_NS).unwrap_or(0.0) as u64
    }

    fn sm_clock(&self, (before, after): (Stamp, Stamp)) -> (Option<f64>, bool) {
        sm_clock(before, after, self.tick_ns)
    }
}

/// The clock between two stamps of one multiprocessor in MHz, and whether the timer's tick leaves it unresolved.
fn sm_clock(before: Stamp, after: Stamp, tick_ns: Option<f64>) -> (Option<f64>, bool) {
    let ns = after.global_ns.saturating_sub(before.global_ns) as f64;
    let cycles = after.cycles.saturating_sub(before.cycles) as f64;
    if ns <= 0.0 || cycles <= 0.0 {
        return (None, true);
    }
    let unresolved = tick_ns.is_none_or(|tick| tick > RESOLVED * ns);
    (Some(1e3 * cycles / ns), unresolved)
}

fn gave_up(timeout: Duration) -> Error {
    Error::machine(
        format!(
            "the stream was not let go within {:.1} s: the work waited for the GPU, or loaded a kernel",
            timeout.as_secs_f64()
        ),
        "run the work once on its own before it is timed cold, and let it wait for nothing",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(global_ns: u64, cycles: u64) -> Stamp {
        Stamp { global_ns, cycles }
    }

    #[test]
    fn the_clock_is_cycles_over_time_and_resolved_only_by_a_hundred_ticks() {
        let (a, b) = (stamp(1_000, 50), stamp(101_000, 198_050));
        assert_eq!(sm_clock(a, b, Some(1000.0)), (Some(1980.0), false));
        assert_eq!(sm_clock(a, b, Some(1001.0)), (Some(1980.0), true));
        assert_eq!(sm_clock(a, b, None), (Some(1980.0), true), "a timer of unknown step resolves nothing");
        assert_eq!(sm_clock(b, a, Some(32.0)), (None, true), "stamps of two multiprocessors, or a timer set back");
        assert_eq!(sm_clock(a, a, Some(32.0)), (None, true));
    }

    proptest! {
        /// What counts as resolved is within 1 % of the truth, whatever the tick cuts off at either end.
        #[test]
        fn a_resolved_clock_is_right(
            mhz in 300.0..2500.0f64, ns in 1_000u64..10_000_000, tick in 1u64..2_000, start in 0u64..1_000_000
        ) {
            // At worst a stamp shows a moment up to a tick before the one its cycles are of.
            let shown = |at: u64| at / tick * tick;
            let (a, b) = (stamp(shown(start), 0), stamp(shown(start + ns), (mhz * ns as f64 / 1e3) as u64));
            if let (Some(got), false) = sm_clock(a, b, Some(tick as f64)) {
                prop_assert!((got / mhz - 1.0).abs() < 0.011, "{got} is not {mhz}");
            }
        }
    }
}
