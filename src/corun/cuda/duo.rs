//! The pair on a GPU: the main on its stream, the side on the other, their times from events.
//!
//! A run of the main is a number of passes, long enough to be timed well; its untimed run comes right before it on the
//! stream, so that all of the timed one is queued before it begins: no launch latency is in its time, alone or beside the
//! side, whatever the side's thread does to the driver meanwhile.

use super::events::{self, EventClock};
use super::side::{SideStream, SideTurn};
use crate::Result;
use crate::clock::Trial;
use crate::corun::pair::{Duo, ProgressWindow};
use crate::corun::time::{now_ns, sleep_until};
use crate::corun::worker::Slice;
use crate::ops::cuda::Cuda;

/// A run of the main lasts that long at least, and as long as so many steps of the side: what an end of the run cuts off a
/// step is then little of what was done. Never longer than the last.
const LEAST_NS: f64 = 5e6;
const LEAST_SIDE_STEPS: f64 = 10.0;
const MOST_NS: f64 = 50e6;
const MOST_PASSES: u64 = 64;

/// Passes of the main in one run, from the nanoseconds of a pass and of a side's step: as many as 5 ms and ten steps of
/// the side take, but never for more than 50 ms, and from 1 to 64.
pub fn passes(pass_ns: f64, side_step_ns: f64) -> u64 {
    let wanted = LEAST_NS.max(LEAST_SIDE_STEPS * side_step_ns).min(MOST_NS);
    ((wanted / pass_ns.max(1.0)).ceil() as u64).clamp(1, MOST_PASSES)
}

/// A main and a side on two streams of one GPU, both timed by events on it.
pub struct OnGpu<'a> {
    /// The device on whose stream the main runs.
    pub ops: &'a mut Cuda,
    /// Puts one pass of the main on its stream.
    pub pass: &'a mut dyn FnMut(&mut Cuda) -> Result<()>,
    /// Passes of the main in one run, as [`passes`] counts them.
    pub passes: u64,
    /// The side on its own stream; `None` leaves the main beside nothing, which is the noise floor.
    pub side: Option<&'a mut SideStream>,
    /// The clock from whose origin the times of both streams count.
    pub clock: &'a mut EventClock,
    /// Where the clocks and late steps of the pair's parts are noted.
    pub seen: &'a mut Seen,
}

/// What was seen of the parts of a pair beside their times.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Seen {
    /// The main's last run alone, with the SM clock in it.
    pub alone: Trial,
    /// The main's last run beside the side, with the SM clock in it.
    pub together: Trial,
    /// Steps of the side beside the main, of all pairs.
    pub steps: usize,
    /// Steps of the side beside the main, of all pairs, that found their stream empty: the side's thread, not the GPU,
    /// set its pace.
    pub late_steps: usize,
}

impl Seen {
    fn add(&mut self, turn: &SideTurn) {
        self.steps += turn.slices.len();
        self.late_steps += turn.late;
    }

    /// The late steps in percent of the side's steps beside the main; 0 where it did none.
    pub fn late_percent(&self) -> f64 {
        100.0 * self.late_steps as f64 / self.steps.max(1) as f64
    }
}

impl OnGpu<'_> {
    /// Runs the main until the SM clock has settled, and returns the nanoseconds of one pass by itself.
    pub fn warm_up(&mut self) -> Result<f64> {
        self.clock.main.settle(self.ops, self.pass)?;
        Ok(self.clock.main.warm_behind(self.ops, 1, 1, self.pass)?.ns)
    }

    fn timed(&mut self) -> Result<(ProgressWindow, Trial)> {
        let trial = self.clock.main.warm_behind(self.ops, self.passes, self.passes, self.pass)?;
        Ok((self.clock.main_window()?, trial))
    }
}

impl Duo for OnGpu<'_> {
    fn main_alone(&mut self) -> Result<ProgressWindow> {
        self.clock.restart(self.ops)?;
        let (window, trial) = self.timed()?;
        self.seen.alone = trial;
        Ok(window)
    }

    fn side_alone(&mut self, ns: u64) -> Result<ProgressWindow> {
        self.clock.restart(self.ops)?;
        let Some(side) = &mut self.side else {
            sleep_until(now_ns() + ns);
            return Ok(ProgressWindow::default());
        };
        side.run()?;
        sleep_until(now_ns() + ns);
        let window = events::alone(&side.halt(self.clock)?.slices);
        Ok(ProgressWindow { progress: side.facts.units * window.progress, ..window })
    }

    fn together(&mut self) -> Result<(ProgressWindow, Vec<Slice>)> {
        self.clock.restart(self.ops)?;
        if let Some(side) = &mut self.side {
            side.run()?;
        }
        let (mut window, trial) = self.timed()?;
        self.seen.together = trial;
        let Some(side) = &mut self.side else {
            // Always there and never at work, as on the host.
            return Ok((window, vec![Slice { start_ns: 0, end_ns: u64::MAX }]));
        };
        let turn = side.halt(self.clock)?;
        self.seen.add(&turn);
        let steps = events::steps_within(window.start_ns, window.end_ns, &turn.slices);
        window.progress = side.facts.units * steps;
        Ok((window, turn.slices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_long_enough_for_both_and_no_longer() {
        assert_eq!(passes(5e6, 1e5), 1);
        assert_eq!(passes(3e5, 1e5), 17);
        assert_eq!(passes(5e6, 2e6), 4, "ten steps of the side");
        assert_eq!(passes(5e6, 1e9), 10, "but not for ever");
        assert_eq!(passes(1e3, 0.0), MOST_PASSES);
        assert_eq!((passes(1e9, 1e6), passes(0.0, 0.0)), (1, MOST_PASSES));
    }

    #[test]
    fn late_steps_are_a_share() {
        let mut seen = Seen::default();
        assert_eq!(seen.late_percent(), 0.0);
        seen.add(&SideTurn { slices: vec![Slice { start_ns: 0, end_ns: 1 }; 8], late: 2 });
        assert_eq!(seen.late_percent(), 25.0);
    }
}
