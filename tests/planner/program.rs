//! A stage's problem as the mixed-integer linear program of docs/planning.md, solved by `good_lp` with `microlp`.

use bubblebench::fill::pack::{Residency, Resident, Slot, StageProblem};
use good_lp::{
    Expression, ProblemVariables, Solution, SolverModel, Variable, constraint, microlp, variable, variables,
};

/// One way for a side to be resident, with its units of work (kernels, or whole steps) in the order they must run.
struct Way {
    resident: Resident,
    chosen: Variable,
    opened: Vec<Variable>,
    /// By slot: runs there behind another side, where that costs more.
    behind: Vec<Option<Variable>>,
    /// By unit, then by slot: done in that slot.
    done: Vec<(u64, Vec<Variable>)>,
}

impl Way {
    /// Whether this one goes first where both are in a bubble.
    fn comes_before(&self, problem: &StageProblem, other: &Way) -> bool {
        let place = |way: &Way| problem.place_in_a_bubble(way.resident);
        self.resident.side != other.resident.side && place(self) < place(other)
    }
}

fn ways(problem: &StageProblem, variables: &mut ProblemVariables) -> Vec<Way> {
    let room: u64 = problem.slots.iter().map(|s| s.end_ns - s.start_ns).sum();
    let mut ways = Vec::new();
    for (index, side) in problem.sides.iter().enumerate() {
        for residency in [Residency::Split, Residency::Whole] {
            if residency == Residency::Split && !side.split {
                continue;
            }
            let step = side.kernels.per_step();
            let unit = if residency == Residency::Split { 1 } else { step };
            let times = (0..).map(|k| side.kernels.work_ns((k + 1) * unit) - side.kernels.work_ns(k * unit));
            let mut sum = 0;
            let times: Vec<u64> = times
                .take_while(|ns| {
                    sum += ns;
                    sum <= room
                })
                .collect();
            let mut binary = || variables.add(variable().binary());
            let of_slots = |binary: &mut dyn FnMut() -> Variable| problem.slots.iter().map(|_| binary()).collect();
            let resident = Resident { side: index, residency };
            let dearer = |slot| problem.overrun_ns(slot, resident, true) > problem.overrun_ns(slot, resident, false);
            let behind = problem.slots.iter().map(|slot| dearer(slot).then(&mut binary)).collect();
            ways.push(Way {
                resident,
                behind,
                chosen: binary(),
                opened: of_slots(&mut binary),
                done: times.into_iter().map(|ns| (ns, of_slots(&mut binary))).collect(),
            });
        }
    }
    ways
}

/// The most that any filling is worth. All sides may share a bubble.
pub fn optimum(problem: &StageProblem) -> f64 {
    variables! { vars: }
    let ways = ways(problem, &mut vars);
    let sides = problem.sides;
    let value = |way: &Way| sides[way.resident.side].value;
    let units = |way: &'_ Way| {
        way.done.iter().flat_map(|(ns, slots)| slots.iter().map(|&x| (*ns as f64, x))).collect::<Vec<_>>()
    };
    let objective: Expression =
        ways.iter().map(|way| units(way).into_iter().map(|(ns, x)| ns * value(way) * x).sum::<Expression>()).sum();
    let mut model = vars.maximise(objective.clone()).using(microlp);
    let held: Expression = ways.iter().map(|w| w.resident.held_bytes(sides) * w.chosen).sum();
    model = model.with(constraint!(held.clone() <= problem.least_free.unwrap()));
    for side in 0..sides.len() {
        let of_side: Expression =
            ways.iter().filter(|w| w.resident.side == side).map(|w| Expression::from(w.chosen)).sum();
        model = model.with(constraint!(of_side <= 1));
    }
    for before in &ways {
        for way in ways.iter().filter(|way| before.comes_before(problem, way)) {
            for (behind, (&y, &other)) in way.behind.iter().zip(way.opened.iter().zip(&before.opened)) {
                if let Some(behind) = *behind {
                    model = model.with(constraint!(Expression::from(y) + other - behind <= 1));
                }
            }
        }
    }
    let cost: Expression = ways
        .iter()
        .map(|w| {
            let each = |(i, slot): (usize, &Slot)| {
                let [first, behind] = [false, true].map(|behind| problem.overrun_ns(slot, w.resident, behind));
                let more = w.behind[i].map_or(Expression::from(0.0), |x| (behind - first) * x);
                (problem.cost_ns(w.resident.side) + first) * w.opened[i] + more
            };
            problem.slots.iter().enumerate().map(each).sum::<Expression>()
        })
        .sum();
    if problem.budget_ns.is_finite() {
        model = model.with(constraint!(cost <= problem.budget_ns));
    }
    for (i, slot) in problem.slots.iter().enumerate() {
        let used: Expression = ways
            .iter()
            .map(|w| {
                let margin = sides[w.resident.side].margin.total_ns() as f64 * w.opened[i];
                margin + w.done.iter().map(|(ns, slots)| *ns as f64 * slots[i]).sum::<Expression>()
            })
            .sum();
        model = model.with(constraint!(used <= (slot.end_ns - slot.start_ns) as f64));
        for way in &ways {
            let more = sides[way.resident.side].memory_bytes - way.resident.held_bytes(sides);
            model = model.with(constraint!(held.clone() + more * way.opened[i] <= slot.free_bytes.unwrap()));
            model = model.with(constraint!(way.opened[i] <= way.chosen));
        }
    }
    for way in &ways {
        for (k, (_, slots)) in way.done.iter().enumerate() {
            let once: Expression = slots.iter().map(|&x| Expression::from(x)).sum();
            model = model.with(constraint!(once <= 1));
            for (i, &x) in slots.iter().enumerate() {
                model = model.with(constraint!(x <= way.opened[i]));
                if k > 0 {
                    let before: Expression = way.done[k - 1].1[..=i].iter().map(|&x| Expression::from(x)).sum();
                    model = model.with(constraint!(x <= before));
                }
            }
        }
    }
    model.solve().unwrap().eval(objective)
}
