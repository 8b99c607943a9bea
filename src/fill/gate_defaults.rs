//! What opening and closing a gate costs where nobody measured it: published figures, each at its cheap, usual and dear end.
//!
//! | | low | median | high |
//! |---|--:|--:|--:|
//! | open | 5 µs: a kernel's launch on the host takes 5 to 20 µs (Holistic Trace Analysis' manual) | 50 µs: a flag in mapped memory and a synchronisation, 56 µs (NVIDIA's forum, 20503) | 5 ms: a manager that looks every 10 ms waits 5 on average (FreeRide's code); starting a task takes PipeSwitch 3.6 to 6.6 ms |
//! | close call | 2 µs, the least of the 2 to 10 µs in which a flag is written | 5 µs, their middle | 0.7 ms: a call to another process by gRPC from Python, 0.6 to 0.7 ms (A. Vuorinen's measurement) |
//! | signal | as open | as open | 5 ms: FreeRide's sides look for a pause every 5 or 10 ms |
//! | restart | 0: nothing to do but launch | 20 µs: a framework's first kernel on a V100 (Nsight Systems' guide) | 5 ms: FreeRide's sides look for a start every 5 or 10 ms |
//! | after | 0 | 0.1 ms | 0.27 ms: the loss a bubble of FreeRide's side with the shortest steps, 3.5 ms, all of it |
//! | overrun | 0.6 % | 8.5 % | 17 % of the longest piece of side work that cannot be stopped: FreeRide's six slowdowns, below |
//!
//! FreeRide (arXiv 2409.06941; figures of its artifact) fills four stages of an iteration of 4.25 s. A delay behind each bubble
//! that a side fills lengthens the simulated iteration 8, 7 or 4 times for sides on all stages, on three and on two. So 0.03, 1.36,
//! 2.10, 1.16, 0.05 and 0.74 % of slowdown with steps of 31, 87, 160, 145, 3.5 and 47 ms are, a bubble, 0.6, 9.5, 13.9, 4.2, 7.6
//! and 16.7 % of a step: longer steps cost more because now and then one ends late. PipeFill (arXiv 2410.07192) states less
//! than 2 % for the whole, which these figures keep to.

use crate::records::cost_model::GateCost;

/// End of the published figures that a gate nobody measured is taken at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GateLevel {
    /// The cheapest gate that figures were published of.
    Low,
    /// What most of them support.
    Median,
    /// The dearest.
    High,
}

/// What a gate costs, in both what a side cannot use of a bubble and what the main job loses behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GateFigures {
    /// Time from opening the gate to the side's first kernel, in ns.
    pub open_ns: f64,
    /// Time of the main job's call that closes the gate, in ns.
    pub close_ns: f64,
    /// Time from closing the gate until the side knows of it, in ns.
    pub signal_ns: f64,
    /// Time that resuming after a pause takes beyond `open_ns`, in ns.
    pub restart_ns: f64,
    /// Time that the main job loses behind a filled bubble whatever ran in it (cold caches, a late start), in ns.
    pub after_ns: f64,
    /// What it loses besides, because side work ends late now and then: a fraction of the longest piece of it that cannot
    /// be stopped. For bubbles whose lengths are not known to vary, of which nothing can be computed
    /// ([`super::overrun`]).
    pub overrun: f64,
    /// The same where they are, at least, whatever is computed: how they vary is then known, and not whether the gate keeps to
    /// the time. So the cheapest published gate counts, and the dearest one at the dear end.
    pub least_overrun: f64,
}

const LOW: GateFigures = GateFigures {
    open_ns: 5e3,
    close_ns: 2e3,
    signal_ns: 5e3,
    restart_ns: 0.0,
    after_ns: 0.0,
    overrun: 0.006,
    least_overrun: 0.006,
};
const MEDIAN: GateFigures = GateFigures {
    open_ns: 50e3,
    close_ns: 5e3,
    signal_ns: 50e3,
    restart_ns: 20e3,
    after_ns: 100e3,
    overrun: 0.085,
    least_overrun: LOW.overrun,
};
const HIGH: GateFigures = GateFigures {
    open_ns: 5e6,
    close_ns: 700e3,
    signal_ns: 5e6,
    restart_ns: 5e6,
    after_ns: 270e3,
    overrun: 0.17,
    least_overrun: 0.17,
};

impl GateFigures {
    /// The figures of a measured gate, which has no interval in the record; those published of others, at `level`, where
    /// `gate` is `None`. What the main job loses behind a bubble is measured side by side, not with the gate, and counts as
    /// 0 here for a measured one; so does the overrun, which filled stages measure and varying lengths tell.
    pub fn of(gate: Option<&GateCost>, level: GateLevel) -> Self {
        let Some(gate) = gate else {
            return match level {
                GateLevel::Low => LOW,
                GateLevel::Median => MEDIAN,
                GateLevel::High => HIGH,
            };
        };
        GateFigures {
            open_ns: gate.open_ns,
            close_ns: gate.close_ns,
            // A signal takes the same way in either direction.
            signal_ns: gate.open_ns,
            restart_ns: gate.restart_ns,
            after_ns: 0.0,
            overrun: 0.0,
            least_overrun: 0.0,
        }
    }

    /// Time that the main job loses behind a bubble in which a side ran whose longest piece that cannot be stopped takes
    /// `piece_ns`, in ns.
    pub fn behind_ns(&self, piece_ns: u64) -> f64 {
        self.after_ns + self.late_ns(piece_ns)
    }

    /// What of that is for side work that ends late, in ns.
    pub fn late_ns(&self, piece_ns: u64) -> f64 {
        self.overrun * piece_ns as f64
    }

    /// The least of it where the bubble's length is known to vary, in ns.
    pub fn late_at_least_ns(&self, piece_ns: u64) -> f64 {
        self.least_overrun * piece_ns as f64
    }
}

/// What a plan's notes say of a gate that nobody measured. `late` says whether bubbles are known to vary; it is `None` where no side's
/// late ends are priced by published figures.
pub fn assumed_note(late: Option<bool>) -> String {
    let us = |of: fn(&GateFigures) -> f64| {
        let [low, median, high] = [LOW, MEDIAN, HIGH].map(|figures| of(&figures) / 1e3);
        format!("{median:.0} µs ({low:.0}–{high:.0})")
    };
    let share = |of: fn(&GateFigures) -> f64| {
        let [low, median, high] = [LOW, MEDIAN, HIGH].map(|figures| 100.0 * of(&figures));
        format!("{median:.1} % ({low:.1}–{high:.0}) of the side's longest kernel")
    };
    let late = match late {
        None => String::new(),
        Some(false) => format!(", and {}", share(|f| f.overrun)),
        Some(true) => format!(", and by late ends at least {}", share(|f| f.least_overrun)),
    };
    format!(
        "the cost model has no gate figures, so published ones are assumed: {} to open, {} to signal, {} to restart; the main \
         job loses {} by closing and {} behind each filled bubble{late}",
        us(|f| f.open_ns),
        us(|f| f.signal_ns),
        us(|f| f.restart_ns),
        us(|f| f.close_ns),
        us(|f| f.after_ns),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn published_figures_are_in_order() {
        let [low, median, high] =
            [GateLevel::Low, GateLevel::Median, GateLevel::High].map(|level| GateFigures::of(None, level));
        for (a, b) in [(low, median), (median, high)] {
            assert!(a.open_ns < b.open_ns && a.close_ns < b.close_ns && a.signal_ns < b.signal_ns);
            assert!(a.restart_ns < b.restart_ns && a.after_ns < b.after_ns && a.overrun < b.overrun);
        }
        assert_eq!(median.behind_ns(1_000_000), 185_000.0);
        assert_eq!((median.late_at_least_ns(1_000_000), high.late_at_least_ns(1_000_000)), (6_000.0, 170_000.0));
        let (note, varying) = (assumed_note(Some(false)), assumed_note(Some(true)));
        assert!(!assumed_note(None).contains('%'));
        assert!(note.contains("50 µs (5–5000) to open") && note.contains("8.5 % (0.6–17)"), "{note}");
        assert!(varying.contains("at least 0.6 % (0.6–17)") && !varying.contains("8.5"), "{varying}");
    }

    #[test]
    fn a_measured_gate_is_the_same_at_every_level() {
        let gate =
            GateCost { open_ns: 7.0, close_ns: 1.0, drain_ns: 9.0, drain_by_side_ns: BTreeMap::new(), restart_ns: 3.0 };
        let figures = GateFigures::of(Some(&gate), GateLevel::Median);
        assert_eq!((figures.open_ns, figures.signal_ns, figures.restart_ns, figures.close_ns), (7.0, 7.0, 3.0, 1.0));
        assert_eq!(figures.behind_ns(1000), 0.0);
        assert_eq!(figures, GateFigures::of(Some(&gate), GateLevel::High));
    }
}
