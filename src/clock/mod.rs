//! How time is read. A [`Clock`] times a piece of work; what the work is, it does not know.
//!
//! [`HostClock`] reads the monotonic clock around the work; [`cuda::CudaClock`] reads a GPU's events around it, with
//! the SM clock beside them. [`steady`] is the pure rule by which a warm-up ends. Statistics and stop rules never see a
//! clock: they are tested on numbers.

pub mod cuda;
pub mod steady;

use crate::Result;
use std::time::Instant;

/// The time of one trial, and what the device did meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Trial {
    /// Of the work alone: on a GPU between two events on its stream, on the host around the call.
    pub ns: f64,
    /// On a GPU: from the moment the work could start until the host knew that it had ended.
    pub host_ns: Option<f64>,
    /// The SM clock between the trial's stamps.
    pub sm_clock_mhz: Option<f64>,
    /// The stamps cannot tell the clock to 1 %: nothing may be discarded because of it. Never set on the host.
    pub clock_unresolved: bool,
    pub throttled: bool,
    /// The stream could not be held while the work was put on it: launch latency is part of a short time.
    pub unblocked: bool,
}

pub trait Clock {
    /// Runs `work` (which does all the iterations of one trial) and says how long it took.
    fn time(&mut self, work: &mut dyn FnMut() -> Result<()>) -> Result<Trial>;
}

/// The operating system's monotonic clock.
#[derive(Debug, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn time(&mut self, work: &mut dyn FnMut() -> Result<()>) -> Result<Trial> {
        let start = Instant::now();
        work()?;
        Ok(Trial { ns: start.elapsed().as_nanos() as f64, ..Trial::default() })
    }
}
