//! The gate: the big model opens it at a bubble's start and closes it before the bubble's end; the small model asks it
//! between operations.
//!
//! ```no_run
//! # use bubblebench::corun::gate::{self, Pass};
//! # fn main() -> bubblebench::Result<()> {
//! // The main program:
//! let mut main = gate::create("/dev/shm/stage-3".as_ref())?;
//! main.open(8_000_000);                    // a bubble of 8 ms begins
//! main.close();                            // 8 ms later, or earlier
//! main.wait_stopped(1_000_000);            // how long did the side take to stand still?
//!
//! // The side program, another process or thread:
//! let mut side = gate::attach("/dev/shm/stage-3".as_ref())?;
//! while side.pass(300_000) == Pass::Go {   // an operation of 0.3 ms
//!     // the operation
//!     side.done()?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Rules. The main never waits for the side beyond the time it names. The side asks before every operation and says how
//! long it takes: it starts only if it would end before the opening is expected to, so a main that closes late, or never,
//! is not disturbed; the closing is the second line. Every closing has a generation, and the side acknowledges that
//! generation, with the time: a late acknowledgement of an earlier closing is never taken for one of this closing. An
//! opening is the main's lease, the place is the side's: a main that has died leaves the gate closed for good, and a side
//! that has died, or was suspended for long, leaves its place to another. One side a gate: a stage with two small models
//! makes two.
//!
//! [`page`] is the layout, [`protocol`] what both do with it, held against every order of their steps by a model in its
//! tests; [`MainEnd`] and [`SideEnd`] wait, and [`status()`] looks on.

pub mod counts;
pub mod fork;
pub mod lock;
mod main_end;
pub mod memory;
#[cfg(test)]
mod model;
pub mod page;
pub mod process;
pub mod protocol;
mod side_end;
pub mod status;

pub use main_end::MainEnd;
pub use side_end::{LEASE_NS, SideEnd};
pub use status::{GateRecord, GateState, GateStatus, status};

use crate::{Error, Result};
use page::Page;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The default margin: the last operation ends so long before the expected close. A core that is woken, and the clock
/// that is read, take a few microseconds.
pub const MARGIN_NS: u64 = 10_000;

/// A place changes hands within moments; who stood still in the middle of that is waited for this long.
const HAND_OVER: Duration = Duration::from_nanos(LEASE_NS);

fn stands_still(name: &str) -> Error {
    Error::machine(
        format!("a program has stood still for long while it took or left the side's place of {name}"),
        "find a suspended side program, and end it",
    )
}

fn other_clock(name: &str, cure: &str) -> Error {
    let what = format!("the main program of {name} lives in another time namespace: its clock is not this one's");
    Error::input(what, cure)
}

/// What the gate answers to a side that asks before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The gate is open for long enough: do one operation.
    Go,
    /// The main has ended in good order: stop for good.
    ShutDown,
    /// The main died: stop for good.
    MainGone,
    /// Another side has taken this one's place, because it was suspended for longer than its lease, or this is a child
    /// of `fork`: stop for good.
    LeaseLost,
    /// The operation would wait for ever: the last 64 openings were all too short for it from their first moment on, or in
    /// the last 1024 too little was left whenever the side came to them. Cut it, or ask with less.
    NeverFits {
        /// The longest of them, or the most that was left, in nanoseconds, less the margin.
        longest_ns: u64,
    },
}

/// What came of waiting for the side to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The side stood still after the closing.
    Stopped {
        /// Nanoseconds from the last closing until the side stood still; 0 where it had stopped by the clock before.
        latency_ns: u64,
    },
    /// The side was still at work when the deadline passed.
    Late,
    /// There is no side that is ready to work, or it has died: nothing runs.
    Absent,
}

/// Makes a gate at `path` (a folder in memory such as /dev/shm is best) and becomes its main; an error where the file
/// cannot be made, another main lives there, or what stands there is no gate.
pub fn create(path: &Path) -> Result<MainEnd> {
    MainEnd::create(path)
}

/// Makes a gate in this process's own memory and returns both of its ends.
pub fn pair() -> Result<(MainEnd, SideEnd)> {
    let page = Arc::new(Page::anonymous()?);
    let main = MainEnd::anonymous(Arc::clone(&page));
    Ok((main, SideEnd::enter(page, None, "the gate")?))
}

/// Becomes the side of the gate at `path`; an error where there is no gate page of this version, its clock is another, or
/// a side that lives is already attached. The lease of one in another container is waited for, 1.5 s at most.
pub fn attach(path: &Path) -> Result<SideEnd> {
    SideEnd::attach(path)
}

#[cfg(test)]
mod tests;
