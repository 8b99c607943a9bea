//! How much side work the slowdown limit allows beside the main job's own operations, once the bubbles are filled.
//!
//! Running a side of value v beside an operation of time d stretches it to σ·d and leaves the side at rate ρ: the main
//! loses (σ−1)·d and a closing call, the side wins ρ·σ·d·v. What is left of a stage's budget goes to the pairs of side
//! and phase in the order of ρ·σ·v / (σ−1).

use super::beside::Together;
use super::pack::{StageProblem, StageSolution};
use super::side::CompleteSide;

/// Operations of one phase on one stage beside which a side model runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BesideRun {
    /// Index of the side model in `StageProblem::sides`.
    pub side: usize,
    /// Whether the stage's operations are backwards (of any kind) rather than forwards.
    pub backward: bool,
    /// Number of the stage's operations in an iteration beside which the side runs.
    pub operations: u64,
    /// Work that the side does beside all these operations together, in ns of its time alone.
    pub work_ns: f64,
    /// Time by which each of these operations becomes longer, the call that closes the gate included, in ns.
    pub cost_each_ns: f64,
}

/// A stage's own operations in an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Busy {
    /// Number of forwards, and the mean time of one in ns.
    pub forward: (u64, f64),
    /// Number of backward operations, and the mean time of one in ns.
    pub backward: (u64, f64),
}

/// Side work beside compute that the stage's budget still allows once its bubbles are filled as in `solution`. A side
/// must fit in memory at the stage's fullest moment, beside what other residents hold.
pub fn fill(problem: &StageProblem, solution: &StageSolution, busy: Busy) -> Vec<BesideRun> {
    let mut left = problem.budget_ns - solution.lost_ns;
    let mut free = [busy.forward, busy.backward].map(|(count, _)| count);
    let mut runs = Vec::new();
    for (side, backward, together) in offers(problem, solution) {
        let each = if backward { busy.backward.1 } else { busy.forward.1 };
        let cost_each_ns = (together.slowdown - 1.0) * each + problem.close_ns;
        let allowed = if cost_each_ns > 0.0 { (left / cost_each_ns).max(0.0) as u64 } else { u64::MAX };
        let operations = free[usize::from(backward)].min(allowed);
        // One side beside the main at a time: the first that is worth most keeps the rest of the stage out of it.
        if operations == 0 || runs.iter().any(|r: &BesideRun| r.side != side) {
            continue;
        }
        free[usize::from(backward)] -= operations;
        left -= operations as f64 * cost_each_ns;
        let work_ns = operations as f64 * each * together.slowdown * together.rate;
        runs.push(BesideRun { side, backward, operations, work_ns, cost_each_ns });
    }
    runs
}

/// Sides and phases in the order of what they win for each nanosecond the main loses.
fn offers(problem: &StageProblem, solution: &StageSolution) -> Vec<(usize, bool, Together)> {
    let fits = |index: usize, side: &CompleteSide| {
        let others = solution.resident.iter().filter(|r| r.side != index);
        let held: f64 = others.map(|r| r.held_bytes(problem.sides)).sum();
        problem.least_free.is_none_or(|free| side.memory_bytes + held <= free)
    };
    let mut offers: Vec<(f64, usize, bool, Together)> = problem
        .sides
        .iter()
        .enumerate()
        .filter(|(index, side)| side.value > 0.0 && fits(*index, side))
        .filter_map(|(index, side)| Some((index, side.value, side.beside?)))
        .flat_map(|(index, value, b)| {
            [(false, b.forward), (true, b.backward)].map(|(backward, t)| {
                let won = t.rate * t.slowdown * value;
                (won / (t.slowdown - 1.0).max(1e-6), index, backward, t)
            })
        })
        .filter(|(ratio, ..)| *ratio > 0.0)
        .collect();
    offers.sort_by(|a, b| b.0.total_cmp(&a.0));
    offers.into_iter().map(|(_, side, backward, t)| (side, backward, t)).collect()
}
