//! How time is read. A [`Clock`] times a piece of work; what the work is, it does not know.
//!
//! [`HostClock`] reads the monotonic clock around the work; a device's clock reads events around it. `suite` calls this.
//! Statistics and stop rules never see a clock: they are tested on numbers and scripted cases.

use crate::Result;
use std::time::Instant;

/// The time of one trial of `iterations` operations, and what the device did meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Trial {
    pub ns: f64,
    pub sm_clock_mhz: Option<f64>,
    pub throttled: bool,
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
