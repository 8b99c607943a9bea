//! What all gates of this process have seen so far, for whoever watches a run from outside ([`crate::monitor`]).
//!
//! The numbers are those that a gate's page holds anyway: an opening costs nothing more because somebody may look. A gate
//! is listed while its main end lives; what it counted stands in the sum behind that.

use crate::corun::gate::page::Page;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the gates whose main end is, or was, of this process have counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateCounts {
    /// Number of openings.
    pub openings: u64,
    /// Number of closings; a gate that was shut down while open has one opening more.
    pub closings: u64,
    /// Operations that the sides finished.
    pub operations: u64,
    /// Openings in which a side worked and stopped by the clock, before the closing.
    pub self_stops: u64,
}

static GATES: Mutex<Gates> = Mutex::new(Gates { live: Vec::new(), gone: GateCounts::NONE });

struct Gates {
    live: Vec<Arc<Page>>,
    gone: GateCounts,
}

impl GateCounts {
    const NONE: GateCounts = GateCounts { openings: 0, closings: 0, operations: 0, self_stops: 0 };

    fn of(page: &Page) -> GateCounts {
        let (main, side) = (&page.layout().main, &page.layout().side);
        GateCounts {
            openings: main.openings.load(Relaxed),
            closings: main.closings.load(Relaxed),
            operations: side.operations.load(Relaxed),
            self_stops: side.self_stops.load(Relaxed),
        }
    }

    /// Another program may write what it likes on a page that has a name.
    fn plus(self, other: GateCounts) -> GateCounts {
        GateCounts {
            openings: self.openings.saturating_add(other.openings),
            closings: self.closings.saturating_add(other.closings),
            operations: self.operations.saturating_add(other.operations),
            self_stops: self.self_stops.saturating_add(other.self_stops),
        }
    }
}

/// What the gates of this process have counted up to now, those that are gone included.
pub fn counts() -> GateCounts {
    let gates = lock();
    gates.live.iter().fold(gates.gone, |sum, page| sum.plus(GateCounts::of(page)))
}

pub(super) fn enter(page: &Arc<Page>) {
    lock().live.push(Arc::clone(page));
}

/// A side may be in its last operation, which is then not counted.
pub(super) fn leave(page: &Arc<Page>) {
    let mut gates = lock();
    gates.live.retain(|other| !Arc::ptr_eq(other, page));
    gates.gone = gates.gone.plus(GateCounts::of(page));
}

fn lock() -> MutexGuard<'static, Gates> {
    GATES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corun::gate;

    /// Other tests open gates meanwhile: the sum only grows.
    #[test]
    fn a_gate_counts_while_it_lives_and_when_it_is_gone() {
        let before = counts();
        let (mut main, side) = gate::pair().unwrap();
        main.open(1_000_000);
        main.close();
        main.open(1_000_000);
        let live = counts();
        assert!(live.openings >= before.openings + 2 && live.closings > before.closings, "{before:?} {live:?}");
        drop((main, side));
        let gone = counts();
        assert!(gone.openings >= live.openings && gone.closings >= live.closings, "{live:?} {gone:?}");
    }
}
