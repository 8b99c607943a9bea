//! The process's own watch: time since it began, and Ctrl-C as a flag that samplers look at between samples.

use super::sampler::Watch;
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The time since the run's start, and whether Ctrl-C or SIGTERM has been received.
#[derive(Debug)]
pub struct ProcessWatch {
    start: Instant,
}

impl ProcessWatch {
    /// Starts the clock. From here on the first Ctrl-C (or SIGTERM) ends the run after the sample in flight, the second
    /// at once. An error where the signals cannot be caught, as on a second call.
    pub fn start() -> Result<Self> {
        ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                // Exit handlers may wait for a GPU.
                crate::machine::leave(2);
            }
        })
        .map_err(|e| Error::machine(format!("Ctrl-C cannot be caught: {e}"), "start the program from a shell"))?;
        Ok(ProcessWatch { start: Instant::now() })
    }
}

/// Whether Ctrl-C or SIGTERM has been received since the watch was started.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

impl Watch for ProcessWatch {
    fn elapsed_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn interrupted(&self) -> bool {
        interrupted()
    }
}
