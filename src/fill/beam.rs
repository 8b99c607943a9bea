//! Which runs go into which bubble, the residents being given: a beam search over the bubbles in order of time.
//!
//! A state is how far each side has come and what the main job has lost so far. One state is at least as good as another if
//! every side has come as far and the main job has lost no more: whoever is ahead in a fixed sequence of kernels stays ahead
//! when both are given the same gap. So the dominated states can go, and with one side and no tight budget a single state
//! is left: going as far as possible in every bubble is then the optimum. Otherwise the beam keeps the best by worth
//! less `price` times what the main job loses; the price is found by bisection when the budget binds.

use super::pack::{Residency, Resident, SideRun, Slot, StageProblem, StageSolution};

/// States kept, and shorter first runs tried before a second side in the same bubble, at most.
const WIDEST: usize = 96;
const MOST_GIVEN_BACK: u64 = 3;
/// Choices looked at in one search, roughly: what the width of the beam is cut to. A plan searches once a stage,
/// schedule and budget, so that long problems get less; their many bubbles leave little to gain by looking ahead.
const EFFORT: usize = 60_000;
const EFFORT_LONG: usize = 6_000;
const SHORT: usize = 6;
const PRICE_ROUNDS: usize = 20;

/// What may be done in one slot.
#[derive(Debug, Clone, Default)]
struct Choice {
    runs: Vec<SideRun>,
    cost_ns: f64,
    worth: f64,
}

#[derive(Debug, Clone)]
struct State {
    /// Kernels done, by resident.
    position: Vec<u64>,
    spent_ns: f64,
    worth: f64,
    /// Index into the trail; `u32::MAX` at the beginning.
    last: u32,
}

struct Search<'a> {
    problem: &'a StageProblem<'a>,
    residents: &'a [Resident],
    held: Vec<f64>,
    /// Worth per nanosecond that the main job loses.
    price: f64,
    budget_ns: f64,
    width: usize,
    given_back: u64,
    /// Sides in one bubble, at most: fewer than allowed where even one state would have too many choices.
    depth: usize,
}

/// Fills every slot for one given set of residents, within the problem's budget.
pub fn assign(problem: &StageProblem, residents: &[Resident]) -> StageSolution {
    if residents.is_empty() {
        return StageSolution { runs: vec![Vec::new(); problem.slots.len()], ..StageSolution::default() };
    }
    let free = Search::new(problem, residents, 0.0, f64::INFINITY);
    let unbound = free.go();
    if unbound.lost_ns <= problem.budget_ns {
        return unbound;
    }
    let price = price(problem, residents, &unbound);
    let found = [0.0, price, 0.7 * price].map(|p| Search::new(problem, residents, p, problem.budget_ns).go());
    found.into_iter().max_by(|a, b| a.worth.total_cmp(&b.worth)).unwrap_or_default()
}

/// The lowest price at which what is chosen freely stays within the budget.
fn price(problem: &StageProblem, residents: &[Resident], unbound: &StageSolution) -> f64 {
    let cheapest = residents.iter().map(|r| problem.cost_ns(r.side)).fold(f64::INFINITY, f64::min);
    let (mut low, mut high) = (0.0, unbound.worth / cheapest.max(1e-9));
    for _ in 0..PRICE_ROUNDS {
        let middle = 0.5 * (low + high);
        let mut search = Search::new(problem, residents, middle, f64::INFINITY);
        search.width = search.width.min(4);
        if search.go().lost_ns > problem.budget_ns {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Ways to go on in one slot, at most: nothing, or an order of up to `depth` of `many` sides, of which each but the last may
/// also run `given_back` kernels less far.
fn choices(many: usize, depth: usize, given_back: u64) -> usize {
    let mut orders = 1_usize;
    let mut all = 1_usize;
    for k in 1..=depth.min(many) {
        let ways = if k < depth { given_back as usize + 1 } else { 1 };
        orders = orders.saturating_mul(many + 1 - k);
        all = all.saturating_add(orders.saturating_mul(ways));
        orders = orders.saturating_mul(ways);
    }
    all
}

impl<'a> Search<'a> {
    fn new(problem: &'a StageProblem<'a>, residents: &'a [Resident], price: f64, budget_ns: f64) -> Self {
        let held = residents.iter().map(|r| r.held_bytes(problem.sides)).collect();
        let (many, slots) = (residents.len(), problem.slots.len().max(1));
        let effort = if slots <= SHORT { EFFORT } else { EFFORT_LONG };
        let width = |depth: usize, given_back: u64| effort / slots.saturating_mul(choices(many, depth, given_back));
        let mut depth = problem.sides_per_bubble.min(many).max(1);
        let given_back = if width(depth, MOST_GIVEN_BACK) >= 8 { MOST_GIVEN_BACK } else { 0 };
        while depth > 1 && width(depth, given_back) == 0 {
            depth -= 1;
        }
        let width = width(depth, given_back).clamp(1, WIDEST);
        Search { problem, residents, held, price, budget_ns, width, given_back, depth }
    }

    fn go(&self) -> StageSolution {
        let mut trail: Vec<(u32, Vec<SideRun>)> = Vec::new();
        let start = State { position: vec![0; self.residents.len()], spent_ns: 0.0, worth: 0.0, last: u32::MAX };
        let mut states = vec![start];
        let mut choices = Vec::new();
        for slot in &self.problem.slots {
            let mut next: Vec<(State, usize, Choice)> = Vec::new();
            for (parent, state) in states.iter().enumerate() {
                choices.clear();
                self.extend(slot, &state.position, &Choice::default(), &mut choices);
                choices.push(Choice::default());
                for choice in choices.drain(..) {
                    if state.spent_ns + choice.cost_ns <= self.budget_ns {
                        next.push((self.after(state, &choice), parent, choice));
                    }
                }
            }
            let parents = states;
            states = self.keep(next, &parents, &mut trail);
        }
        let best = states.into_iter().max_by(|a, b| self.score(a).total_cmp(&self.score(b)));
        best.map(|state| self.solution(&state, &trail)).unwrap_or_default()
    }

    fn score(&self, state: &State) -> f64 {
        state.worth - self.price * state.spent_ns
    }

    fn after(&self, state: &State, choice: &Choice) -> State {
        let mut position = state.position.clone();
        for run in &choice.runs {
            if let Some(index) = self.residents.iter().position(|r| r.side == run.side) {
                position[index] += run.kernels;
            }
        }
        State {
            position,
            spent_ns: state.spent_ns + choice.cost_ns,
            worth: state.worth + choice.worth,
            last: state.last,
        }
    }

    /// Every way to go on in a slot after `so_far`: each side not in it yet, as far as it gets, and a little less far where
    /// another may follow.
    fn extend(&self, slot: &Slot, position: &[u64], so_far: &Choice, out: &mut Vec<Choice>) {
        if so_far.runs.len() >= self.depth {
            return;
        }
        let at_ns = so_far
            .runs
            .last()
            .map_or(slot.start_ns, |last| last.end_ns() + self.problem.sides[last.side].margin.signal_ns);
        let all: f64 = self.held.iter().sum();
        for (index, &resident) in self.residents.iter().enumerate() {
            let used = so_far.runs.iter().any(|run| run.side == resident.side);
            if used || !self.problem.fits(slot, resident.side, all - self.held[index]) {
                continue;
            }
            let Some(longest) = self.problem.longest_run(slot, at_ns, resident, position[index]) else { continue };
            let unit = match resident.residency {
                Residency::Split => 1,
                Residency::Whole => self.problem.sides[resident.side].kernels.per_step(),
            };
            let more = so_far.runs.len() + 1 < self.depth;
            for less in 0..=if more { self.given_back } else { 0 } {
                let kernels = longest.kernels.saturating_sub(less * unit);
                if kernels == 0 {
                    break;
                }
                let run = self.problem.run(resident.side, longest.start_ns, position[index], kernels);
                let mut choice = so_far.clone();
                choice.cost_ns += self.problem.cost_ns(run.side);
                choice.worth += self.problem.worth(&run);
                choice.runs.push(run);
                if more {
                    self.extend(slot, position, &choice, out);
                }
                out.push(choice);
            }
        }
    }

    /// The best states, none of them dominated by another that is kept.
    fn keep(
        &self,
        mut next: Vec<(State, usize, Choice)>,
        parents: &[State],
        trail: &mut Vec<(u32, Vec<SideRun>)>,
    ) -> Vec<State> {
        next.sort_by(|a, b| self.score(&b.0).total_cmp(&self.score(&a.0)));
        let mut kept: Vec<State> = Vec::with_capacity(self.width);
        for (mut state, parent, choice) in next {
            if kept.iter().any(|other| self.dominates(other, &state)) {
                continue;
            }
            trail.push((parents[parent].last, choice.runs));
            state.last = trail.len() as u32 - 1;
            kept.push(state);
            if kept.len() == self.width {
                break;
            }
        }
        kept
    }

    fn dominates(&self, a: &State, b: &State) -> bool {
        let nobody_counts = self.price == 0.0 && self.budget_ns.is_infinite();
        let cheaper = nobody_counts || a.spent_ns <= b.spent_ns;
        cheaper && a.position.iter().zip(&b.position).all(|(x, y)| x >= y)
    }

    fn solution(&self, state: &State, trail: &[(u32, Vec<SideRun>)]) -> StageSolution {
        let mut runs: Vec<Vec<SideRun>> = Vec::with_capacity(self.problem.slots.len());
        let mut at = state.last;
        while let Some((before, chosen)) = trail.get(at as usize) {
            runs.push(chosen.clone());
            at = *before;
        }
        runs.reverse();
        let used = |r: &&Resident| runs.iter().flatten().any(|run| run.side == r.side);
        let resident = self.residents.iter().filter(used).copied().collect();
        StageSolution { resident, lost_ns: state.spent_ns, worth: state.worth, runs }
    }
}
