//! When the last operation of each opening of a gate ended, on the clock of both programs.
//!
//! The gate's page says when a side stood still, which is when it next looked at the gate. How far an operation reached
//! beyond its bubble is told by the operation itself: the side's thread keeps it here ([`super::gated`]), and
//! [`super::replay`] reads it between two iterations. Each operation costs a look at the clock, and each of the last ones
//! one at the thread's count of lost cores, so this is for measuring only.

use super::time::{now_ns, thread_preemptions};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Operations that end earlier before their deadline than this are followed by others: whether they lost their core need
/// not be known. The system tells it by a call that takes as long as a short operation.
const WATCHED_NS: u64 = 2_000_000;
/// One that begins so long before it may be one of the last.
const MAY_BE_LAST_NS: u64 = 10_000_000;

/// The last operation that a side did in one opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastOperation {
    /// Generation of the gate in that opening.
    pub opening: u64,
    /// When it ended, in nanoseconds on [`now_ns`]'s clock.
    pub end_ns: u64,
    /// Whether the thread that ran it lost its core to another meanwhile; threads that helped it are not asked.
    pub preempted: bool,
}

#[derive(Default)]
struct Kept {
    opening: u64,
    deadline_ns: u64,
    preemptions: u64,
    last: Vec<LastOperation>,
}

/// The last operations of the openings since the main last took them.
#[derive(Default)]
pub struct LastOperations(Mutex<Kept>);

impl LastOperations {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation begins in the opening of this generation, in which operations must have ended by this time.
    pub(super) fn begins(&self, opening: u64, deadline_ns: u64) {
        let mut kept = self.lock();
        let is_new = kept.opening != opening;
        (kept.opening, kept.deadline_ns) = (opening, deadline_ns);
        // What was lost before it began, at the gate or in earlier operations, is not its own.
        if is_new || now_ns().saturating_add(MAY_BE_LAST_NS) >= deadline_ns {
            kept.preemptions = thread_preemptions();
        }
    }

    /// That operation has ended, on the thread that it began on.
    pub(super) fn ended(&self) {
        let end_ns = now_ns();
        let mut kept = self.lock();
        let before = kept.preemptions;
        if end_ns.saturating_add(WATCHED_NS) >= kept.deadline_ns {
            kept.preemptions = thread_preemptions();
        }
        let preempted = kept.preemptions != before;
        let operation = LastOperation { opening: kept.opening, end_ns, preempted };
        match kept.last.last_mut() {
            Some(last) if last.opening == operation.opening => *last = operation,
            _ => kept.last.push(operation),
        }
    }

    /// Those of all openings since this was last called, in their order.
    pub fn take(&self) -> Vec<LastOperation> {
        std::mem::take(&mut self.lock().last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_opening_the_last_operation_is_kept() {
        let kept = LastOperations::default();
        let mut times = vec![now_ns()];
        for opening in [3, 3, 3, 5] {
            kept.begins(opening, 0);
            kept.ended();
            times.push(now_ns());
        }
        let last = kept.take();
        assert_eq!(last.iter().map(|last| last.opening).collect::<Vec<_>>(), [3, 5]);
        assert!((times[2]..=times[3]).contains(&last[0].end_ns) && (times[3]..=times[4]).contains(&last[1].end_ns));
        assert!(kept.take().is_empty());
        kept.begins(5, 0);
        kept.ended();
        assert_eq!(kept.take()[0].opening, 5, "an operation that was in flight when the others were taken");
    }
}
