//! The optimum of a stage's problem by trying everything: each set of residents, and in each bubble each number of kernels of
//! each side. Only what another way is ahead of on every side, at no more cost, is dropped, and nothing else. Slow, and
//! written apart from the planner, which has sides in a bubble in one order; a program for another solver confirms it where that is small enough.

use bubblebench::fill::pack::{Residency, Resident, Slot, StageProblem};

/// The most that any filling is worth.
pub fn optimum(problem: &StageProblem) -> f64 {
    let ways = [None, Some(Residency::Split), Some(Residency::Whole)];
    let sets = (0..ways.len().pow(problem.sides.len() as u32)).map(|number| {
        let way = |side: usize| ways[number / ways.len().pow(side as u32) % ways.len()];
        (0..problem.sides.len())
            .filter_map(|side| way(side).map(|residency| Resident { side, residency }))
            .collect::<Vec<Resident>>()
    });
    let possible = sets.filter(|set| {
        let held: f64 = set.iter().map(|r| r.held_bytes(problem.sides)).sum();
        let may = |r: &Resident| problem.sides[r.side].split || r.residency == Residency::Whole;
        set.iter().all(may) && held <= problem.least_free.unwrap()
    });
    let in_order = |mut set: Vec<Resident>| {
        set.sort_by_key(|r| problem.place_in_a_bubble(*r));
        set
    };
    possible.map(in_order).map(|set| Everything::new(problem, &set).best()).fold(0.0, f64::max)
}

/// How far each side has come, and what the main job has lost.
type State = (Vec<u64>, f64);

struct Everything<'a> {
    problem: &'a StageProblem<'a>,
    set: &'a [Resident],
    held: f64,
}

impl<'a> Everything<'a> {
    fn new(problem: &'a StageProblem<'a>, set: &'a [Resident]) -> Self {
        Everything { problem, set, held: set.iter().map(|r| r.held_bytes(problem.sides)).sum() }
    }

    fn best(&self) -> f64 {
        let mut states: Vec<State> = vec![(vec![0; self.set.len()], 0.0)];
        for slot in &self.problem.slots {
            let mut next = Vec::new();
            for state in &states {
                self.go_on(slot, 0, slot.end_ns - slot.start_ns, 0, state, &mut next);
            }
            states = self.undominated(next);
        }
        states.iter().map(|state| self.worth(state)).fold(0.0, f64::max)
    }

    fn worth(&self, (done, _): &State) -> f64 {
        let sides = self.set.iter().map(|r| &self.problem.sides[r.side]);
        sides.zip(done).map(|(side, &kernels)| side.value * side.kernels.work_ns(kernels) as f64).sum()
    }

    /// Every state that the sides from `index` on make of `state` with `room` ns of the slot left and `opened` sides in it.
    fn go_on(&self, slot: &Slot, index: usize, room: u64, opened: usize, state: &State, next: &mut Vec<State>) {
        let Some(resident) = self.set.get(index) else {
            next.push(state.clone());
            return;
        };
        self.go_on(slot, index + 1, room, opened, state, next);
        let side = &self.problem.sides[resident.side];
        let others = self.held - resident.held_bytes(self.problem.sides);
        let late = self.problem.overrun_ns(slot, *resident, opened > 0);
        let spent = state.1 + self.problem.cost_ns(resident.side) + late;
        let allowed = opened < self.problem.sides_per_bubble && spent <= self.problem.budget_ns;
        let Some(room) = room.checked_sub(side.margin.total_ns()) else { return };
        if !allowed || others + side.memory_bytes > slot.free_bytes.unwrap() {
            return;
        }
        let unit = if resident.residency == Residency::Split { 1 } else { side.kernels.per_step() };
        let takes = |kernels| side.kernels.work_ns(state.0[index] + kernels) - side.kernels.work_ns(state.0[index]);
        for kernels in (1..).map(|units| units * unit).take_while(|&kernels| takes(kernels) <= room) {
            let mut after = (state.0.clone(), spent);
            after.0[index] += kernels;
            self.go_on(slot, index + 1, room - takes(kernels), opened + 1, &after, next);
        }
    }

    fn undominated(&self, mut states: Vec<State>) -> Vec<State> {
        states.sort_by(|a, b| self.worth(b).total_cmp(&self.worth(a)).then(a.1.total_cmp(&b.1)));
        let mut kept: Vec<State> = Vec::new();
        for state in states {
            let ahead = |other: &State| other.1 <= state.1 && other.0.iter().zip(&state.0).all(|(x, y)| x >= y);
            if !kept.iter().any(ahead) {
                kept.push(state);
            }
        }
        kept
    }
}
