//! The planner: which side models stay on a stage, and in which way, so that what [`super::beam`] then puts into the bubbles is worth
//! most.
//!
//! While memory is no matter, every side is resident and may stop between any two kernels: that allows everything, and only where the
//! main job may lose no more can whole steps be better, which are overrun less where they end well before a bubble does. Otherwise
//! few sides or short problems are solved for every combination, and long ones side by side in the order of what each
//! is worth alone.
//! A test holds the result against the exact optimum (tests/planner_exact.rs); docs/planning.md has the equations.

use super::beam;
use super::pack::{Residency, Resident, Slot, StageProblem, StageSolution};

/// Most combinations of residents that are solved, each over at most `SHORT` slots.
const MOST_SETS: usize = 90;
const SHORT: usize = 24;
/// Of these the best are searched thoroughly.
const AGAIN: usize = 3;

/// Chooses the residents of one stage and fills its slots so that Σ side work · value is as large as the search finds;
/// docs/planning.md compares it with the exact optimum.
pub fn solve(problem: &StageProblem) -> StageSolution {
    let able = able(problem);
    let everything: Vec<Resident> = able.iter().filter(|r| can_split(problem, r)).copied().collect();
    let sides = able.iter().fold(Vec::new(), |mut sides: Vec<usize>, r| {
        if !sides.contains(&r.side) {
            sides.push(r.side);
        }
        sides
    });
    let mut best = None;
    if everything.len() == sides.len() && all_run(problem, &everything) {
        let found = beam::assign_within(problem, &everything);
        if !found.bound || !able.iter().any(|r| is_cheaper_whole(problem, *r)) {
            return found.solution;
        }
        best = Some(found.solution);
    }
    let sets = combinations(problem, &able, &sides);
    let few = problem.slots.len() <= SHORT && sets.len() <= MOST_SETS;
    let other = if few { best_of(problem, &sets) } else { one_by_one(problem, &able) };
    best.into_iter().fold(other, beam::better)
}

/// Whether whole steps of a side that could also stop within one cost the main job less in some bubble.
fn is_cheaper_whole(problem: &StageProblem, resident: Resident) -> bool {
    let by = |slot: &Slot, residency| problem.overrun_ns(slot, Resident { residency, ..resident }, false);
    let cheaper = |slot: &Slot| by(slot, Residency::Whole) < by(slot, Residency::Split);
    problem.sides[resident.side].split && problem.slots.iter().any(cheaper)
}

/// Residents that could do any work at all.
fn able(problem: &StageProblem) -> Vec<Resident> {
    (0..problem.sides.len())
        .filter(|&side| problem.sides[side].value > 0.0)
        .flat_map(|side| [Residency::Split, Residency::Whole].map(|residency| Resident { side, residency }))
        .filter(|r| problem.sides[r.side].split || r.residency == Residency::Whole)
        .filter(|r| holds(problem, &[*r]))
        .filter(|r| {
            let possible = |slot| problem.longest_run(slot, slot.start_ns, *r, 0).is_some();
            problem.slots.iter().any(|slot| problem.fits(slot, r.side, 0.0) && possible(slot))
        })
        .collect()
}

fn can_split(problem: &StageProblem, resident: &Resident) -> bool {
    resident.residency == Residency::Split || !problem.sides[resident.side].split
}

/// Whether a set's state fits beside the main job at its fullest.
fn holds(problem: &StageProblem, set: &[Resident]) -> bool {
    let held: f64 = set.iter().map(|r| r.held_bytes(problem.sides)).sum();
    problem.least_free.is_none_or(|free| held <= free)
}

/// Whether all of them could run at once at any moment: then none of them is ever in another's way.
fn all_run(problem: &StageProblem, set: &[Resident]) -> bool {
    let memory: f64 = set.iter().map(|r| problem.sides[r.side].memory_bytes).sum();
    problem.least_free.is_none_or(|free| memory <= free)
}

/// Every set that fits, each side in it at most once.
fn combinations(problem: &StageProblem, able: &[Resident], sides: &[usize]) -> Vec<Vec<Resident>> {
    let mut sets: Vec<Vec<Resident>> = vec![Vec::new()];
    for &side in sides {
        let with: Vec<Vec<Resident>> = sets
            .iter()
            .flat_map(|set| able.iter().filter(|r| r.side == side).map(|&r| [set.as_slice(), &[r]].concat()))
            .filter(|set| holds(problem, set))
            .collect();
        sets.extend(with);
        if sets.len() > MOST_SETS {
            break;
        }
    }
    sets
}

/// The best use of any of these sets: a quick look at each, and a second one at the most promising.
fn best_of(problem: &StageProblem, sets: &[Vec<Resident>]) -> StageSolution {
    let mut found: Vec<(beam::Found, &Vec<Resident>)> =
        sets.iter().map(|set| (beam::quick(problem, set), set)).collect();
    found.sort_by(|a, b| b.0.solution.worth.total_cmp(&a.0.solution.worth));
    let looked_at_again = found.into_iter().enumerate().map(|(rank, (quick, set))| {
        if quick.open && rank < AGAIN { beam::thorough(problem, set, quick.solution) } else { quick.solution }
    });
    looked_at_again.reduce(|best, other| if other.worth > best.worth { other } else { best }).unwrap_or_default()
}

/// Takes up sides in the order of what each is worth alone, as long as the stage gains by it: another resident takes room
/// from those already there.
fn one_by_one(problem: &StageProblem, able: &[Resident]) -> StageSolution {
    let mut alone: Vec<(Resident, StageSolution)> = able.iter().map(|&r| (r, beam::assign(problem, &[r]))).collect();
    alone.sort_by(|a, b| b.1.worth.total_cmp(&a.1.worth));
    let mut best = beam::assign(problem, &[]);
    let mut chosen: Vec<Resident> = Vec::new();
    for (resident, answer) in alone {
        if chosen.iter().any(|r| r.side == resident.side) {
            continue;
        }
        let set = [chosen.as_slice(), &[resident]].concat();
        if !holds(problem, &set) {
            continue;
        }
        let trial = if chosen.is_empty() { answer } else { beam::assign(problem, &set) };
        if trial.worth > best.worth {
            (best, chosen) = (trial, set);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Kernels;
    use super::super::overrun::{Overrun, TrueEnd};
    use super::super::pack::SideRun;
    use super::super::receive::ReceiveRate;
    use super::super::side::{CompleteSide, KernelOrigin, Margin};
    use super::*;
    use crate::stats::SplitMix;
    use proptest::prelude::*;

    fn side(name: &str, kernels: &[u64], value: f64, memory: f64) -> CompleteSide {
        CompleteSide {
            name: name.into(),
            kernels: Kernels::new(kernels).unwrap(),
            memory_bytes: memory,
            resident_bytes: memory / 2.0,
            value,
            margin: Margin { open_ns: 20, restart_ns: 10, signal_ns: 30 },
            after_ns: 0.0,
            split: true,
            origin: KernelOrigin::Profile,
            step_interval: [1.0; 2],
            beside: None,
            receive: ReceiveRate::FULL,
            overrun: Overrun::NONE,
            piece_spread: 0.0,
        }
    }

    fn problem<'a>(sides: &'a [CompleteSide], lengths: &[u64], free: Option<f64>) -> StageProblem<'a> {
        let mut at = 0;
        let slots = lengths
            .iter()
            .map(|&length| {
                let slot = Slot::new(at, at + length, free);
                at += length + 1000;
                slot
            })
            .collect();
        StageProblem { sides, slots, least_free: free, budget_ns: f64::INFINITY, close_ns: 1.0, sides_per_bubble: 2 }
    }

    fn work(answer: &StageSolution) -> Vec<u64> {
        answer.runs.iter().map(|runs| runs.iter().map(|r| r.work_ns).sum()).collect()
    }

    /// Kernels of 50, 100 and 30 in gaps of 300, 200 and 70, 60 of each lost at the ends.
    #[test]
    fn whole_kernels_run_up_to_the_margin_and_a_cut_step_goes_on() {
        let sides = [side("mlp", &[50, 100, 30], 1.0, 1.0)];
        let answer = solve(&problem(&sides, &[300, 200, 70], None));
        // 240: the step of 180 and 50 of the next; 140: 100 and 30; 10: the next kernel takes 50.
        assert_eq!(work(&answer), [230, 130, 0]);
        assert_eq!(answer.runs[0], [SideRun { side: 0, start_ns: 30, kernels: 4, work_ns: 230, takes_ns: 230 }]);
        assert_eq!((answer.runs[1][0].start_ns, answer.lost_ns), (1330, 2.0));
    }

    #[test]
    fn a_step_that_cannot_be_cut_runs_whole_or_not_at_all() {
        let mut sides = [side("mlp", &[50, 100, 30], 1.0, 1.0)];
        sides[0].split = false;
        assert_eq!(work(&solve(&problem(&sides, &[300, 200, 70, 440], None))), [180, 0, 0, 360]);
    }

    /// Split it would hold 100 at every moment, of which the fullest leaves 60: whole steps keep 50 and run where 100 are free.
    #[test]
    fn where_memory_is_short_between_bubbles_only_whole_steps_run() {
        let sides = [side("mlp", &[50, 50], 1.0, 100.0)];
        let mut q = problem(&sides, &[300, 300, 220], Some(100.0));
        q.least_free = Some(60.0);
        q.slots[1].free_bytes = Some(99.0);
        let answer = solve(&q);
        assert_eq!((work(&answer), answer.resident[0].residency), (vec![200, 0, 100], Residency::Whole));
        q.least_free = Some(49.0);
        assert_eq!(work(&solve(&q)), [0, 0, 0]);
        q.least_free = None;
        q.slots.iter_mut().for_each(|s| s.free_bytes = None);
        assert_eq!(work(&solve(&q)), [200, 200, 150]);
    }

    /// 200 is long enough for the dear side's 120 and then, 60 lost again, for nothing else; 290 also for one of 40.
    #[test]
    fn a_second_side_takes_what_the_first_leaves() {
        let sides = [side("dear", &[120], 2.0, 1.0), side("short", &[40], 1.0, 1.0)];
        let mut q = problem(&sides, &[200, 290, 310], None);
        let answer = solve(&q);
        assert_eq!(work(&answer), [120, 160, 240], "twice the dear one in the third");
        assert_eq!(answer.runs[1].len(), 2);
        assert_eq!(answer.runs[1][1].start_ns, answer.runs[1][0].end_ns() + 60);
        q.sides_per_bubble = 1;
        assert_eq!(work(&solve(&q)), [120, 120, 240]);
    }

    #[test]
    fn the_slowdown_limit_keeps_the_best_bubbles() {
        let sides = [side("mlp", &[10], 1.0, 1.0)];
        let mut q = problem(&sides, &[100, 500, 200, 400, 150], None);
        q.budget_ns = 2.5;
        let answer = solve(&q);
        assert_eq!(work(&answer), [0, 440, 0, 340, 0]);
        assert!(answer.lost_ns <= q.budget_ns);
        let dear = [CompleteSide { after_ns: 3.0, ..sides[0].clone() }];
        q.sides = &dear;
        assert_eq!(work(&solve(&q)), [0; 5], "one bubble costs 4, 2.5 are allowed");
    }

    /// What a bubble costs differs a thousandfold, by how much its length varies, and the limit allows three tenths of it all: of what
    /// could be won at most, when the last bubble is filled in part, 98 % are.
    #[test]
    fn bubbles_that_cost_little_go_before_dear_ones() {
        let mut random = SplitMix(0x0b1d);
        for count in [40, 200, 600] {
            let sides = [side("mlp", &[10], 1.0, 1.0)];
            let lengths: Vec<u64> = (0..count).map(|_| 200 + random.below(800) as u64).collect();
            let mut q = problem(&sides, &lengths, None);
            q.close_ns = 0.0;
            for slot in &mut q.slots {
                let deviation_ns = 1_000_f64.powf(random.unit());
                slot.true_end = Some(TrueEnd::normal(1.3 * deviation_ns, deviation_ns));
            }
            let resident = Resident { side: 0, residency: Residency::Split };
            let mut offers: Vec<(f64, f64)> = q
                .slots
                .iter()
                .map(|slot| {
                    (((slot.end_ns - slot.start_ns - 60) / 10 * 10) as f64, q.overrun_ns(slot, resident, false))
                })
                .collect();
            q.budget_ns = 0.3 * offers.iter().map(|(_, cost)| cost).sum::<f64>();
            offers.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
            let mut left = q.budget_ns;
            let most: f64 = offers
                .iter()
                .map(|(worth, cost)| {
                    let part = (left / cost).clamp(0.0, 1.0);
                    left -= part * cost;
                    part * worth
                })
                .sum();
            let answer = solve(&q);
            assert!(answer.lost_ns <= q.budget_ns * (1.0 + 1e-9));
            assert!(answer.worth >= 0.98 * most, "{count}: {} of {most}", answer.worth);
        }
    }

    /// Two sides of few long kernels in one long bubble and three short ones: going as far as possible in each, or a little less
    /// far, leaves 4 % undone. The optimum stops the first side after two of its kernels in the long bubble.
    #[test]
    fn a_side_stops_early_where_all_of_them_get_further_so() {
        let kernels = [&[357_898_989, 326_353_183, 167_540_818][..], &[282_264_331, 54_632_263]];
        let sides = kernels.map(|kernels| side("long", kernels, 0.5, 1.0));
        let answer = solve(&problem(&sides, &[1_859_631_864, 310_152_699, 310_152_699, 310_152_699], None));
        let (first, both, short) = (684_252_172 + 3 * 336_896_594, 167_540_818 + 54_632_263, 282_264_331);
        assert_eq!(work(&answer), [first, short, both, short]);
    }

    proptest! {
        /// Whatever the sides: kernels stay within their bubble, memory is never overdrawn, the limit holds, and no answer is worth
        /// less than the best single side.
        #[test]
        fn an_answer_never_breaks_its_limits(
            lengths in proptest::collection::vec(1u64..900, 0..40),
            made in proptest::collection::vec(
                (proptest::collection::vec(1u64..300, 1..5), 0f64..3.0, 0f64..200.0, 0f64..9.0, any::<bool>()), 0..4),
            free in 0f64..400.0, less in 0.3f64..1.0, budget in 0f64..60.0, together in 1usize..4,
        ) {
            let sides: Vec<CompleteSide> = made.iter().map(|(kernels, value, memory, after, split)| CompleteSide {
                after_ns: *after, split: *split, ..side("x", kernels, *value, *memory)
            }).collect();
            let mut q = problem(&sides, &lengths, Some(free));
            (q.budget_ns, q.sides_per_bubble, q.least_free) = (budget, together, Some(free * less));
            let answer = solve(&q);
            prop_assert_eq!(answer.runs.len(), lengths.len());
            let held = |r: &Resident| r.held_bytes(&sides);
            let all: f64 = answer.resident.iter().map(held).sum();
            prop_assert!(all <= free * less + 1e-9);
            let mut position = vec![0u64; sides.len()];
            let (mut lost, mut worth) = (0.0, 0.0);
            for (slot, runs) in q.slots.iter().zip(answer.runs.iter()) {
                prop_assert!(runs.len() <= together);
                let mut at = slot.start_ns;
                for run in runs {
                    let (s, own) = (&sides[run.side], answer.resident.iter().find(|r| r.side == run.side).unwrap());
                    prop_assert!(run.start_ns >= at + s.margin.before_ns());
                    at = run.end_ns() + s.margin.signal_ns;
                    prop_assert!(at <= slot.end_ns && run.kernels > 0);
                    prop_assert!(s.memory_bytes + all - held(own) <= free + 1e-9);
                    let done = s.kernels.work_ns(position[run.side] + run.kernels) - s.kernels.work_ns(position[run.side]);
                    prop_assert_eq!(done, run.work_ns);
                    position[run.side] += run.kernels;
                    if own.residency == Residency::Whole {
                        prop_assert_eq!(position[run.side] % s.kernels.per_step(), 0);
                    }
                    lost += q.cost_ns(run.side);
                    worth += q.worth(run);
                }
            }
            prop_assert!(lost <= budget + 1e-6 && (lost - answer.lost_ns).abs() < 1e-6);
            prop_assert!((worth - answer.worth).abs() <= 1e-6 * worth.max(1.0));
        }
    }
}
