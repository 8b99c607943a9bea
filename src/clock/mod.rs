//! How time is read. A [`Clock`] times a piece of work; what the work is, it does not know.
//!
//! [`HostClock`] reads the monotonic clock around the work; [`cuda::CudaClock`] reads a GPU's events around it, with
//! the SM clock beside them. [`steady`] is the pure rule by which a warm-up ends. Statistics and stop rules never see a
//! clock: they are tested on numbers.

pub mod cuda;
pub mod steady;

use crate::Result;
use std::time::Instant;

/// The time of one trial, and what the device did while it ran.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Trial {
    /// Time of the work alone in nanoseconds: on a GPU between two events on its stream, on the host around the call.
    pub ns: f64,
    /// Host time in nanoseconds from the moment the work could start on the GPU until the host knew that it had ended;
    /// `None` on the host.
    pub host_ns: Option<f64>,
    /// Mean SM clock between the trial's two stamps, in MHz; `None` on the host, and where the stamps do not tell it.
    pub sm_clock_mhz: Option<f64>,
    /// Whether the stamps fail to tell the clock to 1 %, so that nothing may be discarded because of it. Never set on
    /// the host.
    pub clock_unresolved: bool,
    /// Whether the device itself reported that it throttled; such a sample is always set aside. Neither clock of this
    /// crate sets it.
    pub throttled: bool,
    /// Whether the stream could not be held while the work was put on it, so that launch latency is part of a short
    /// time.
    pub unblocked: bool,
}

/// Something that times a piece of work.
pub trait Clock {
    /// Runs `work` (which does all the iterations of one trial) and says how long it took. An error of the work is
    /// passed on.
    fn time(&mut self, work: &mut dyn FnMut() -> Result<()>) -> Result<Trial>;
}

/// The operating system's monotonic clock, read before and after the work.
#[derive(Debug, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn time(&mut self, work: &mut dyn FnMut() -> Result<()>) -> Result<Trial> {
        let start = Instant::now();
        work()?;
        Ok(Trial { ns: start.elapsed().as_nanos() as f64, ..Trial::default() })
    }
}
