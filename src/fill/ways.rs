//! The ways to go on in one bubble: which sides run in it, and how far each. [`super::beam`] chooses among them.
//!
//! The sides in a bubble come in the search's order; their margins add up in any. The last of them goes as far as it
//! can, because whoever is ahead stays ahead; those before it may stop after any of their kernels, to leave it room.

use super::beam::{Front, Search, Totals};
use super::pack::{SideRun, Slot};

/// Stops of a side that are tried before another follows in the same bubble, at least.
const FEWEST_STOPS: usize = 4;

/// Puts every way to go on in the slot of this number from every state into `ways`. Returns whether none was left out: where there would be
/// many more than `most`, some of the stops are.
pub(super) fn list(search: &Search, number: usize, states: &Front, most: usize, ways: &mut Front) -> bool {
    let slot = &search.problem.slots[number];
    let (stride, all) = (search.residents.len(), search.held.iter().sum::<f64>());
    let fits = |i: &usize| search.problem.fits(slot, search.residents[*i].side, all - search.held[*i]);
    let may_run: Vec<usize> = (0..stride).filter(fits).collect();
    ways.clear();
    let overrun = may_run.iter().map(|&i| [false, true].map(|behind| search.overrun_ns(number, i, behind))).collect();
    let stops = (most / states.totals.len() / sets(may_run.len(), search.depth)).max(FEWEST_STOPS);
    let mut walk = Walk {
        search,
        slot,
        may_run,
        overrun,
        most_stops: stops as u64,
        complete: true,
        ways,
        so_far: vec![0; stride],
        least: vec![0; stride],
    };
    for (from, state) in states.totals.iter().enumerate() {
        let start = Totals { from: from as u32, ..*state };
        walk.least.fill(0);
        walk.add(start);
        walk.extend(states.kernels_of(from, stride), 0, search.depth, slot.start_ns, start);
    }
    walk.complete
}

/// Sets of up to `depth` of `many` sides, the empty one among them.
fn sets(many: usize, depth: usize) -> usize {
    let (mut sets, mut all) = (1_usize, 1_usize);
    for k in 1..=depth.min(many) {
        sets = sets.saturating_mul(many + 1 - k) / k;
        all = all.saturating_add(sets);
    }
    all
}

struct Walk<'a> {
    search: &'a Search<'a>,
    slot: &'a Slot<'a>,
    /// Residents that find their memory in this slot.
    may_run: Vec<usize>,
    /// What the main job waits for each of them on average, first in the slot and behind another, in ns.
    overrun: Vec<[f64; 2]>,
    /// Stops tried of a side that another follows.
    most_stops: u64,
    complete: bool,
    ways: &'a mut Front,
    /// Kernels of each resident in the way being made.
    so_far: Vec<u64>,
    /// How far each resident came as the last of a bubble, at a later stop of the side before it: a stop that lets it come no
    /// further is no use.
    least: Vec<u64>,
}

impl Walk<'_> {
    fn add(&mut self, totals: Totals) {
        self.ways.kernels.extend_from_slice(&self.so_far);
        self.ways.totals.push(totals);
    }

    /// Adds every way that goes on from `so_far` with one to `more` of the sides from `first` in `may_run` on.
    fn extend(&mut self, done: &[u64], first: usize, more: usize, at_ns: u64, so_far: Totals) {
        let (search, problem) = (self.search, self.search.problem);
        let behind = usize::from(at_ns > self.slot.start_ns);
        for nth in first..self.may_run.len() {
            let index = self.may_run[nth];
            let resident = search.residents[index];
            let spent_ns = so_far.spent_ns + problem.cost_ns(resident.side) + self.overrun[nth][behind];
            let Some(longest) = problem.longest_run(self.slot, at_ns, resident, done[index]) else { continue };
            if spent_ns > search.budget_ns || (more == 1 && longest.kernels <= self.least[index]) {
                continue;
            }
            let with = |run: &SideRun| Totals { worth: so_far.worth + problem.worth(run), spent_ns, ..so_far };
            self.so_far[index] = longest.kernels;
            self.add(with(&longest));
            if more == 1 {
                self.least[index] = longest.kernels;
            } else if nth + 1 < self.may_run.len() {
                self.least.fill(0);
                let unit = problem.unit(resident);
                let units = longest.kernels / unit;
                self.complete &= units <= self.most_stops;
                for stop in 0..units.min(self.most_stops) {
                    let kernels = unit * units_at(stop, units, self.most_stops);
                    let run = problem.run(self.slot, resident.side, longest.start_ns, done[index], kernels);
                    self.so_far[index] = kernels;
                    let free_ns = run.end_ns() + problem.sides[resident.side].margin.signal_ns;
                    self.extend(done, nth + 1, more - 1, free_ns, with(&run));
                }
                self.least.fill(0);
            }
            self.so_far[index] = 0;
        }
    }
}

/// How many of `units` a side runs if it stops at the `stop`th of its `most` stops, counted from the last: the last few
/// places where it can stop, then others evenly spread. At least 1, and fewer at each.
fn units_at(stop: u64, units: u64, most: u64) -> u64 {
    let near = most.div_ceil(2);
    if units <= most || stop < near {
        return units - stop;
    }
    let (last, far) = (units - near, most - near);
    last - last * (stop - near) / far
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_every_one_or_the_last_few_and_some_spread_over_the_rest() {
        let all = |units: u64, most: u64| (0..units.min(most)).map(|s| units_at(s, units, most)).collect::<Vec<_>>();
        assert_eq!(all(3, 4), [3, 2, 1]);
        assert_eq!(all(100, 4), [100, 99, 98, 49]);
        assert_eq!(all(7, 6), [7, 6, 5, 4, 3, 2]);
        for (units, most) in [(9, 8), (1000, 9), (1 << 40, 400)] {
            let stops = all(units, most);
            assert!(stops.windows(2).all(|pair| pair[0] > pair[1]) && stops.iter().all(|&s| s > 0), "{stops:?}");
        }
    }

    #[test]
    fn sets_are_counted() {
        assert_eq!([sets(0, 2), sets(1, 1), sets(2, 2), sets(3, 2), sets(4, 4)], [1, 2, 4, 7, 16]);
    }
}
