//! Moments of several streams on one clock: events, and one of them that all times count from.
//!
//! The driver says how far two events are apart, in milliseconds as a 32-bit float: the origin is set anew for each part of
//! a pair, so that times stay small (at 100 ms a float's step is 8 ns, far below an event's own resolution).

use crate::Result;
use crate::clock::cuda::CudaClock;
use crate::corun::pair::ProgressWindow;
use crate::corun::worker::Slice;
use crate::machine::driver_error;
use crate::ops::cuda::{Cuda, Gpu};
use cudarc::driver::{CudaEvent, DriverError};
use std::sync::Arc;

/// The events around one step.
pub(super) struct TimedStep {
    pub begin: CudaEvent,
    pub end: CudaEvent,
    /// Put on a stream on which nothing was left.
    pub dry: bool,
}

pub(super) fn record(event: &CudaEvent, ops: &Cuda) -> Result<()> {
    event.record(ops.stream()).map_err(|e| driver_error("cannot record an event", e))
}

/// The clock of one GPU for two streams: the main is timed by [`CudaClock`], and all times count from one origin.
pub struct EventClock {
    gpu: Arc<Gpu>,
    origin: CudaEvent,
    /// The clock that times the runs of the main.
    pub main: CudaClock,
}

impl EventClock {
    /// Makes the clock's events on `gpu`; an error where the driver has none to give.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        Ok(EventClock { origin: gpu.timed_event()?, main: CudaClock::new(gpu)?, gpu: Arc::clone(gpu) })
    }

    /// Waits until the GPU stands still and sets the origin there, from which times then count; an error where the GPU
    /// has failed.
    pub fn restart(&mut self, ops: &Cuda) -> Result<()> {
        let wrap = |e: DriverError| driver_error("the GPU failed", e);
        self.gpu.context().synchronize().map_err(wrap)?;
        record(&self.origin, ops)?;
        self.origin.synchronize().map_err(wrap)
    }

    /// When a recorded event was passed; waits for it.
    fn at_ns(&self, event: &CudaEvent) -> Result<u64> {
        let ms = self.origin.elapsed_ms(event).map_err(|e| driver_error("cannot read the GPU's events", e))?;
        Ok((f64::from(ms) * 1e6).max(0.0).round() as u64)
    }

    /// Where the main's last trial lies.
    pub(super) fn main_window(&self) -> Result<ProgressWindow> {
        let (begin, end) = self.main.events();
        Ok(ProgressWindow { start_ns: self.at_ns(begin)?, end_ns: self.at_ns(end)?, progress: 0.0 })
    }

    pub(super) fn slices(&self, steps: &[TimedStep]) -> Result<Vec<Slice>> {
        let moment = |step: &TimedStep| {
            let begin_ns = if step.dry { Some(self.at_ns(&step.begin)?) } else { None };
            Ok((begin_ns, self.at_ns(&step.end)?))
        };
        Ok(joined(&steps.iter().map(moment).collect::<Result<Vec<_>>>()?))
    }
}

/// Slices from the ends of steps. One that was on the stream when the step before it ended begins there, however long it
/// was kept from the multiprocessors; one that was not begins with its own event.
fn joined(steps: &[(Option<u64>, u64)]) -> Vec<Slice> {
    let mut last_ns = 0;
    let slice = |&(begin_ns, end_ns): &(Option<u64>, u64)| {
        let start_ns = begin_ns.unwrap_or(last_ns).clamp(last_ns, end_ns.max(last_ns));
        last_ns = end_ns.max(last_ns);
        Slice { start_ns, end_ns: last_ns }
    };
    steps.iter().map(slice).collect()
}

/// Number of slices done within `start_ns` to `end_ns`; of a slice that either end cuts, the share of its time. Within
/// a step the GPU tells nothing, so at either end progress is uncertain by less than one step.
pub fn steps_within(start_ns: u64, end_ns: u64, slices: &[Slice]) -> f64 {
    let share = |s: &Slice| {
        let inside = s.end_ns.min(end_ns).saturating_sub(s.start_ns.max(start_ns)) as f64;
        match s.end_ns.saturating_sub(s.start_ns) {
            0 if (start_ns..end_ns).contains(&s.start_ns) => 1.0,
            0 => 0.0,
            length => inside / length as f64,
        }
    };
    slices.iter().map(share).sum()
}

/// The window of a side that ran by itself, with its steps: from the end of its first step, which began on an empty
/// stream, to that of its last.
pub fn alone(slices: &[Slice]) -> ProgressWindow {
    match slices {
        [] => ProgressWindow::default(),
        [only] => ProgressWindow { start_ns: only.start_ns, end_ns: only.end_ns, progress: 1.0 },
        [first, rest @ ..] => {
            let end_ns = rest.last().map_or(first.end_ns, |last| last.end_ns);
            ProgressWindow { start_ns: first.end_ns, end_ns, progress: rest.len() as f64 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    fn slice(start_ns: u64, end_ns: u64) -> Slice {
        Slice { start_ns, end_ns }
    }

    #[test]
    fn a_step_that_is_cut_counts_by_its_share() {
        let steps = [slice(0, 100), slice(100, 200), slice(210, 310)];
        assert_eq!(steps_within(0, 310, &steps), 3.0);
        assert_eq!(steps_within(50, 260, &steps), 2.0);
        assert_eq!(steps_within(120, 145, &steps), 0.25);
        assert_eq!((steps_within(200, 210, &steps), steps_within(400, 500, &steps)), (0.0, 0.0));
        assert_eq!(steps_within(0, 10, &[slice(5, 5), slice(10, 10)]), 1.0, "too short to be seen");
    }

    #[test]
    fn a_queued_step_begins_where_the_last_one_ended() {
        let steps = [(Some(5), 100), (Some(130), 200), (None, 290), (Some(280), 310)];
        let expected = [slice(5, 100), slice(130, 200), slice(200, 290), slice(290, 310)];
        assert_eq!(joined(&steps), expected, "and none before that");
    }

    /// Cut anywhere, the parts add up to the whole.
    #[test]
    fn progress_is_additive() {
        let mut random = SplitMix(6);
        for _ in 0..200 {
            let mut at = 0;
            let steps: Vec<Slice> = (0..1 + random.below(8))
                .map(|_| {
                    let start = at + random.below(20) as u64;
                    at = start + 1 + random.below(100) as u64;
                    slice(start, at)
                })
                .collect();
            let cut = random.below(at as usize + 1) as u64;
            let parts = steps_within(0, cut, &steps) + steps_within(cut, at, &steps);
            assert!((parts - steps.len() as f64).abs() < 1e-9, "{steps:?} cut at {cut}");
        }
    }

    #[test]
    fn alone_is_counted_between_ends_of_steps() {
        let window = alone(&[slice(5, 100), slice(100, 150), slice(160, 200)]);
        assert_eq!((window.start_ns, window.end_ns, window.progress), (100, 200, 2.0));
        assert_eq!(alone(&[slice(5, 100)]).per_s(), 1e9 / 95.0);
        assert_eq!(alone(&[]).per_s(), 0.0);
    }
}
