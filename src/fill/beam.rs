//! Which runs go into which bubble, the residents being given: a search over the bubbles in order of time that keeps the states
//! no other is ahead of.
//!
//! A state is how far each side has come and what the main job has lost so far. One state is at least as good as another if
//! every side has come as far and the main job has lost no more: whoever is ahead in a fixed sequence of kernels stays ahead
//! when both are given the same gap. So the dominated states can go, and with one side and no tight budget a single state
//! is left: going as far as possible in every bubble is then the optimum.
//!
//! Where few states and few ways to go on remain, as with few long kernels, nothing is left out and the result is the
//! optimum. Else the states worth most are kept, and `fill/ways.rs` leaves out some of the stops. Where the budget binds
//! then, states are compared by worth less `price` times what the main job loses; the price is found by bisection.

use super::pack::{Resident, RunLists, Slot, StageProblem, StageSolution};
use super::recent::Recent;
use super::ways;

/// States kept over all slots together, in a quick search and in a thorough one. A plan searches once a stage, schedule
/// and budget.
const QUICK: usize = 400;
const THOROUGH: usize = 1_600;
/// States kept behind one slot, at most, and at least up to `LONG` slots: among more there is little to gain by looking ahead.
const MOST: usize = 400;
const FEWEST: usize = 4;
const LONG: usize = 250;
/// Ways to go on that are looked at for each state that may be kept.
const WAYS_EACH: usize = 12;
/// Most slots for which a thorough search is worth its time.
const SHORT: usize = 12;
/// Share of a bound that no answer can pass from which on a quick search is good enough.
const NEAR: f64 = 0.995;
const PRICE_ROUNDS: usize = 12;
/// The price that a first guess is off by, as a factor.
const PRICE_STEP: f64 = 1.1;
const PRICE_WIDTH: usize = 4;

/// States behind a slot, or ways to go on in one: kernels of each resident, and what they come to.
#[derive(Debug, Default)]
pub(super) struct Front {
    /// Resident by resident, in the search's order: done so far in a state, added in a way to go on.
    pub kernels: Vec<u64>,
    pub totals: Vec<Totals>,
}

impl Front {
    pub fn clear(&mut self) {
        self.kernels.clear();
        self.totals.clear();
    }

    pub fn kernels_of(&self, index: usize, stride: usize) -> &[u64] {
        &self.kernels[index * stride..][..stride]
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub worth: f64,
    pub spent_ns: f64,
    /// Of a state: its place in the trail, `u32::MAX` at the beginning. Of a way to go on: the state it goes on from.
    pub from: u32,
}

/// How each state that was kept came about: the one before, and the kernels each resident ran in the slot between.
#[derive(Debug, Default)]
struct Trail {
    before: Vec<u32>,
    kernels: Vec<u64>,
}

/// One walk through all slots.
pub(super) struct Search<'a> {
    pub problem: &'a StageProblem<'a>,
    /// Those with the longest kernels first: the last in a bubble fills what the others leave, and short kernels fill it best.
    pub residents: Vec<Resident>,
    /// Memory each of them keeps.
    pub held: Vec<f64>,
    /// Worth per nanosecond that the main job loses.
    price: f64,
    pub budget_ns: f64,
    /// Sides in one bubble, at most.
    pub depth: usize,
    /// States kept behind a slot.
    width: usize,
    /// What the main job waits in each slot for each of them, first in the slot and behind another, slot by slot.
    overrun: Vec<[f64; 2]>,
}

/// How one set of residents is best used, as far as was searched.
pub(super) struct Found {
    pub solution: StageSolution,
    /// Whether a longer search could find more.
    pub open: bool,
    /// Whether the budget is in the way: without it more would be filled.
    pub bound: bool,
}

/// Fills every slot for one given set of residents, within the problem's budget.
pub fn assign(problem: &StageProblem, residents: &[Resident]) -> StageSolution {
    assign_within(problem, residents).solution
}

/// The same, with what stood in its way.
pub(super) fn assign_within(problem: &StageProblem, residents: &[Resident]) -> Found {
    let quick = quick(problem, residents);
    match quick.open {
        true => Found { solution: thorough(problem, residents, quick.solution), ..quick },
        false => quick,
    }
}

/// A first look.
pub(super) fn quick(problem: &StageProblem, residents: &[Resident]) -> Found {
    if residents.is_empty() {
        let solution = StageSolution { runs: RunLists::empty(problem.slots.len()), ..StageSolution::default() };
        return Found { solution, open: false, bound: false };
    }
    let found = search(problem, residents, QUICK);
    let far = || found.solution.worth < NEAR * bounds(problem, residents).sum::<f64>();
    let open = found.open && problem.slots.len() <= SHORT && far();
    Found { open, ..found }
}

/// The better of a quick search's answer and a longer one's.
pub(super) fn thorough(problem: &StageProblem, residents: &[Resident], quick: StageSolution) -> StageSolution {
    better(quick, search(problem, residents, THOROUGH).solution)
}

/// More than this nothing in a slot is worth, slot by slot: that it is full of the side worth most.
fn bounds<'a>(problem: &'a StageProblem, residents: &'a [Resident]) -> impl Iterator<Item = f64> + 'a {
    let room = |slot: &Slot, side: usize| {
        let side = &problem.sides[side];
        side.alone_ns((slot.end_ns - slot.start_ns).saturating_sub(side.margin.total_ns()), slot.receiving) as f64
    };
    let all: f64 = residents.iter().map(|r| r.held_bytes(problem.sides)).sum();
    problem.slots.iter().map(move |slot| {
        let fitting = residents.iter().filter(|r| problem.fits(slot, r.side, all - r.held_bytes(problem.sides)));
        fitting.map(|r| problem.sides[r.side].value * room(slot, r.side)).fold(0.0, f64::max)
    })
}

fn search(problem: &StageProblem, residents: &[Resident], states: usize) -> Found {
    let slots = problem.slots.len().max(1);
    let width = (states / slots).min(MOST).max((FEWEST * LONG / slots).clamp(1, FEWEST));
    let unbound = Search::new(problem, residents, width).go(0.0, f64::INFINITY);
    if unbound.solution.lost_ns <= problem.budget_ns {
        return unbound;
    }
    let mut within = Search::new(problem, residents, width);
    let found = Found { bound: true, ..within.go(0.0, problem.budget_ns) };
    if !found.open {
        return found;
    }
    let price = price(problem, residents);
    let priced = [price, 0.7 * price].map(|p| within.go(p, problem.budget_ns).solution);
    Found { solution: priced.into_iter().fold(found.solution, better), open: true, bound: true }
}

pub(super) fn better(one: StageSolution, other: StageSolution) -> StageSolution {
    if other.worth > one.worth { other } else { one }
}

/// The lowest price at which what is chosen freely stays within the budget.
fn price(problem: &StageProblem, residents: &[Resident]) -> f64 {
    let mut narrow = Search::new(problem, residents, PRICE_WIDTH);
    // Too high a price, too low a one, and how far from the nearer of them the next is looked for.
    let (mut high, mut low, mut step) = (None, None, PRICE_STEP);
    for _ in 0..PRICE_ROUNDS {
        let next = match (low, high) {
            (None, None) => marginal(&narrow),
            (Some(low), Some(high)) => 0.5 * (low + high),
            (one, other) => {
                step *= step;
                one.map_or_else(|| other.unwrap_or(0.0) / step, |low: f64| low * step)
            }
        };
        let spent_ns = narrow.go(next, f64::INFINITY).solution.lost_ns;
        *(if spent_ns > problem.budget_ns { &mut low } else { &mut high }) = Some(next);
    }
    high.or(low).unwrap_or(0.0)
}

/// What a nanosecond of the budget wins at its end, if the slots that win most for what they cost are filled first, each as if it were full
/// of the side worth most: slots cost by how they vary, from next to nothing to many times as much.
fn marginal(search: &Search) -> f64 {
    let problem = search.problem;
    let cheapest = |slot: usize| {
        let cost_ns = |(index, r): (usize, &Resident)| problem.cost_ns(r.side) + search.overrun_ns(slot, index, false);
        search.residents.iter().enumerate().map(cost_ns).fold(f64::INFINITY, f64::min).max(1e-9)
    };
    let offers = bounds(problem, &search.residents).enumerate().map(|(slot, worth)| (worth, cheapest(slot)));
    let mut offers: Vec<(f64, f64)> =
        offers.filter(|(worth, _)| *worth > 0.0).map(|(w, cost)| (w / cost, cost)).collect();
    offers.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut left = problem.budget_ns;
    let last = offers.iter().find(|(_, cost)| {
        left -= cost;
        left < 0.0
    });
    last.or(offers.last()).map_or(0.0, |(ratio, _)| *ratio)
}

/// What the main job waits in each slot for each resident, slot by slot; once for all where no slot is known to vary. A search goes
/// through the slots a dozen times, and many are alike.
fn overruns(problem: &StageProblem, residents: &[Resident]) -> Vec<[f64; 2]> {
    let each = |slot: &Slot, r: Resident| [false, true].map(|behind| problem.overrun_ns(slot, r, behind));
    let of = |slot: &Slot| residents.iter().map(|&r| each(slot, r)).collect::<Vec<_>>();
    if problem.slots.iter().all(|slot| slot.true_end.is_none()) {
        return problem.slots.first().map(of).unwrap_or_default();
    }
    let mut recent = Recent::new();
    let mut all = Vec::with_capacity(problem.slots.len() * residents.len());
    for slot in &problem.slots {
        all.extend_from_slice(recent.get_or(slot.kind(), || of(slot)));
    }
    all
}

impl<'a> Search<'a> {
    fn new(problem: &'a StageProblem<'a>, residents: &[Resident], width: usize) -> Self {
        let mut residents = residents.to_vec();
        residents.sort_by_key(|r| problem.place_in_a_bubble(*r));
        let held = residents.iter().map(|r| r.held_bytes(problem.sides)).collect();
        let depth = problem.sides_per_bubble.min(residents.len()).max(1);
        let overrun = overruns(problem, &residents);
        Search { problem, held, price: 0.0, budget_ns: f64::INFINITY, depth, width, residents, overrun }
    }

    /// What the main job waits on average in a slot for one of the residents, by its place among them; `behind` another one in the slot.
    pub fn overrun_ns(&self, slot: usize, index: usize, behind: bool) -> f64 {
        let stride = self.residents.len();
        let both = self.overrun[if self.overrun.len() == stride { index } else { slot * stride + index }];
        both[usize::from(behind)]
    }

    fn go(&mut self, price: f64, budget_ns: f64) -> Found {
        (self.price, self.budget_ns) = (price, budget_ns);
        let mut trail = Trail::default();
        let start = Totals { from: u32::MAX, ..Totals::default() };
        let mut states = Front { kernels: vec![0; self.residents.len()], totals: vec![start] };
        let (mut ways, mut next) = (Front::default(), Front::default());
        let mut complete = true;
        for slot in 0..self.problem.slots.len() {
            complete &= ways::list(self, slot, &states, WAYS_EACH * self.width, &mut ways);
            complete &= self.keep(&states, &ways, &mut next, &mut trail);
            std::mem::swap(&mut states, &mut next);
        }
        let best = states.totals.iter().max_by(|a, b| self.score(a).total_cmp(&self.score(b)));
        let solution = best.map(|t| self.solution(t, &trail)).unwrap_or_default();
        Found { solution, open: !complete, bound: false }
    }

    fn score(&self, totals: &Totals) -> f64 {
        totals.worth - self.price * totals.spent_ns
    }

    /// Puts the best states behind a slot into `kept`, none of them dominated by another; whether there was room for all.
    fn keep(&self, states: &Front, ways: &Front, kept: &mut Front, trail: &mut Trail) -> bool {
        let stride = self.residents.len();
        let scored = ways.totals.iter().enumerate().map(|(index, totals)| (self.score(totals), index));
        let mut order: Vec<(f64, usize)> = scored.collect();
        // Whoever dominates another is worth more, or spent less, so that it comes first.
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        kept.clear();
        let nobody_counts = self.price == 0.0 && self.budget_ns.is_infinite();
        let mut position = vec![0u64; stride];
        for (_, index) in order {
            let (totals, added) = (&ways.totals[index], ways.kernels_of(index, stride));
            let before = states.kernels_of(totals.from as usize, stride);
            for ((at, before), added) in position.iter_mut().zip(before).zip(added) {
                *at = before + added;
            }
            let ahead = |(kernels, other): (&[u64], &Totals)| {
                (nobody_counts || other.spent_ns <= totals.spent_ns)
                    && kernels.iter().zip(&position).all(|(x, y)| x >= y)
            };
            if kept.kernels.chunks_exact(stride).zip(&kept.totals).any(ahead) {
                continue;
            }
            if kept.totals.len() == self.width {
                return false;
            }
            trail.before.push(states.totals[totals.from as usize].from);
            trail.kernels.extend_from_slice(added);
            kept.kernels.extend_from_slice(&position);
            kept.totals.push(Totals { from: trail.before.len() as u32 - 1, ..*totals });
        }
        true
    }

    /// The runs that led to a state.
    fn solution(&self, state: &Totals, trail: &Trail) -> StageSolution {
        let stride = self.residents.len();
        let mut added: Vec<&[u64]> = Vec::with_capacity(self.problem.slots.len());
        let mut at = state.from;
        while let Some(&before) = trail.before.get(at as usize) {
            added.push(&trail.kernels[at as usize * stride..][..stride]);
            at = before;
        }
        let mut position = vec![0u64; stride];
        let mut runs = RunLists::with_capacity(added.len());
        for (slot, added) in self.problem.slots.iter().zip(added.into_iter().rev()) {
            let mut at_ns = slot.start_ns;
            runs.push(added.iter().enumerate().filter(|(_, kernels)| **kernels > 0).map(|(index, &kernels)| {
                let side = self.residents[index].side;
                let margin = self.problem.sides[side].margin;
                let start_ns = at_ns.saturating_add(margin.before_ns());
                let run = self.problem.run(slot, side, start_ns, position[index], kernels);
                at_ns = run.end_ns() + margin.signal_ns;
                position[index] += kernels;
                run
            }));
        }
        let used = self.residents.iter().zip(position).filter(|(_, kernels)| *kernels > 0);
        let resident = used.map(|(resident, _)| *resident).collect();
        StageSolution { resident, lost_ns: state.spent_ns, worth: state.worth, runs }
    }
}
