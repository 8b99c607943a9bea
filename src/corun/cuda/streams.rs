//! How two streams share a GPU, and the settings of the process that decide whether they overlap.

use crate::Result;
use crate::machine::driver_error;
use crate::ops::cuda::{Cuda, Priority};
use cudarc::driver::sys;

/// What limits the hardware queues a process has; read by the driver when it starts.
const CONNECTIONS: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
/// Queues without that variable.
const DEFAULT_CONNECTIONS: u64 = 8;

/// How two streams of one GPU share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Streams {
    /// Two streams like any other: the hardware shares the multiprocessors out as blocks end.
    Plain,
    /// The main has the highest priority there is, the side the lowest: where both have blocks waiting, the main's
    /// start.
    Priority,
}

impl Streams {
    /// Both modes, in the order in which cases are listed.
    pub const ALL: [Streams; 2] = [Streams::Priority, Streams::Plain];

    /// The mode as it stands in case names and records: `stream` or `priority`.
    pub const fn name(self) -> &'static str {
        match self {
            Streams::Plain => "stream",
            Streams::Priority => "priority",
        }
    }

    /// The priority of the main's stream.
    pub const fn main(self) -> Priority {
        match self {
            Streams::Plain => Priority::Plain,
            Streams::Priority => Priority::Highest,
        }
    }

    /// The priority of the side's stream.
    pub const fn side(self) -> Priority {
        match self {
            Streams::Plain => Priority::Plain,
            Streams::Priority => Priority::Lowest,
        }
    }

    /// Whether being kept from all work is what this mode may do to a side, and so a result.
    pub const fn may_starve(self) -> bool {
        matches!(self, Streams::Priority)
    }
}

/// The stream's priority as the driver has it, of which the lower number goes first; an error where the driver does not
/// tell.
pub fn priority_of(ops: &Cuda) -> Result<i32> {
    let mut priority = 0;
    // SAFETY: the stream lives as long as the borrow, and the call writes one integer.
    let code = unsafe { sys::cuStreamGetPriority(ops.stream().cu_stream(), &mut priority) };
    code.result().map_err(|e| driver_error("cannot ask a stream for its priority", e))?;
    Ok(priority)
}

/// Hardware queues of this process: `CUDA_DEVICE_MAX_CONNECTIONS`, or 8 where that is not set to 1 to 32. Of two
/// streams in one queue the second waits for the first.
pub fn connections() -> u64 {
    connections_from(std::env::var(CONNECTIONS).ok().as_deref())
}

/// The driver takes 1 to 32; anything else counts as not set.
fn connections_from(text: Option<&str>) -> u64 {
    text.and_then(|t| t.trim().parse().ok()).filter(|n| (1..=32).contains(n)).unwrap_or(DEFAULT_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_connections_is_the_drivers() {
        for (text, is) in [(None, 8), (Some("1"), 1), (Some(" 32 "), 32), (Some("0"), 8), (Some("x"), 8)] {
            assert_eq!(connections_from(text), is, "{text:?}");
        }
    }

    #[test]
    fn only_priorities_may_starve_a_side() {
        assert_eq!(Streams::ALL.map(Streams::name), ["priority", "stream"]);
        assert_eq!((Streams::Priority.main(), Streams::Priority.side()), (Priority::Highest, Priority::Lowest));
        assert_eq!((Streams::Plain.main(), Streams::Plain.side()), (Priority::Plain, Priority::Plain));
        assert!(Streams::Priority.may_starve() && !Streams::Plain.may_starve());
    }
}
