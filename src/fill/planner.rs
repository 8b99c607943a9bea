//! The planner: every bubble, less its margin, to the side model whose work there is worth most, as far as memory
//! and the main job's slowdown allow.
//!
//! Greedy. A side that is used on a stage stays in its memory through the iteration (`resident`), so sides are taken up
//! by the worth they alone would bring, while they fit; then each bubble takes the best of those that fit at that
//! moment. A bubble opened costs the main job one call; if the calls of a stage add up to more than the limit, the
//! bubbles that bring least per call stay shut.

use super::side::Side;
use crate::pipeline::bubbles::{self, Bubble};
use crate::pipeline::memory::Memory;
use crate::pipeline::{Timeline, activations};

/// Side work in one bubble.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filling {
    /// Index into the sides.
    pub side: usize,
    /// When its kernels run: the bubble less the margin.
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Filling {
    /// The side's own time, as if alone.
    pub const fn work_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// A bubble, what is free in it, and what was put there.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub bubble: Bubble,
    pub live_micro_batches: f64,
    /// Beside everything the main job holds and the headroom; `None` where the memory is not known.
    pub free_bytes: Option<f64>,
    pub filling: Option<Filling>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    pub bubbles: Vec<Planned>,
    /// Sides whose state stays in this stage's memory.
    pub resident: Vec<usize>,
    /// What the main job loses on this stage, in an iteration.
    pub lost_ns: f64,
}

/// What the planner must respect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Fraction of the iteration.
    pub main_slowdown: f64,
    /// Cost to the main job of each bubble that is opened.
    pub close_ns: f64,
}

pub fn fill(timeline: &Timeline, weight_share: f64, memory: &Memory, sides: &[Side], limits: Limits) -> Vec<StagePlan> {
    (0..timeline.schedule.stages)
        .map(|stage| {
            let mut plan = empty(timeline, stage, weight_share, memory);
            let peak = activations::peak(&timeline.schedule, stage, weight_share);
            choose(&mut plan, sides, memory.free_bytes(stage, peak));
            shut(&mut plan, sides, limits, timeline.iteration_ns);
            plan
        })
        .collect()
}

fn empty(timeline: &Timeline, stage: usize, weight_share: f64, memory: &Memory) -> StagePlan {
    let share = timeline.schedule.chunk_share();
    let bubbles = bubbles::of_stage(timeline, stage)
        .into_iter()
        .map(|bubble| {
            let live = bubble.live.micro_batches(share, weight_share);
            Planned { bubble, live_micro_batches: live, free_bytes: memory.free_bytes(stage, live), filling: None }
        })
        .collect();
    StagePlan { bubbles, resident: Vec::new(), lost_ns: 0.0 }
}

/// The side's run within a bubble, if anything is left of it.
fn run_in(bubble: &Bubble, side: usize, sides: &[Side]) -> Option<Filling> {
    let margin = &sides[side].margin;
    let start_ns = bubble.start_ns.saturating_add((margin.open_ns + margin.restart_ns).ceil() as u64);
    let end_ns = bubble.end_ns.checked_sub(margin.drain_ns.ceil() as u64)?;
    (end_ns > start_ns).then_some(Filling { side, start_ns, end_ns })
}

fn worth(filling: &Filling, sides: &[Side]) -> f64 {
    filling.work_ns() as f64 * sides[filling.side].value
}

/// Whether the side fits in a bubble in which `others` stay in memory beside it. Unknown memory refuses nobody: the
/// plan's notes say that it was not checked.
fn fits(planned: &Planned, side: &Side, others: f64) -> bool {
    planned.free_bytes.is_none_or(|free| side.memory_bytes + others <= free)
}

fn choose(plan: &mut StagePlan, sides: &[Side], least_free: Option<f64>) {
    let alone = |side: usize| -> f64 {
        let usable = plan.bubbles.iter().filter(|b| fits(b, &sides[side], 0.0));
        usable.filter_map(|b| run_in(&b.bubble, side, sides)).map(|f| worth(&f, sides)).sum()
    };
    let mut order: Vec<(usize, f64)> = (0..sides.len()).map(|s| (s, alone(s))).filter(|(_, w)| *w > 0.0).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut left = least_free;
    for (side, _) in order {
        let resident = sides[side].resident_bytes;
        if left.is_some_and(|l| resident > l) {
            continue;
        }
        // Another resident takes room from those already chosen: only if the stage gains by it.
        let mut trial = plan.clone();
        trial.resident.push(side);
        assign(&mut trial, sides);
        if total(&trial, sides) > total(plan, sides) {
            *plan = trial;
            left = left.map(|l| l - resident);
        }
    }
}

fn total(plan: &StagePlan, sides: &[Side]) -> f64 {
    plan.bubbles.iter().filter_map(|b| b.filling.as_ref()).map(|f| worth(f, sides)).sum()
}

/// Each bubble to the resident side whose work there is worth most.
fn assign(plan: &mut StagePlan, sides: &[Side]) {
    let together: f64 = plan.resident.iter().map(|&s| sides[s].resident_bytes).sum();
    for planned in &mut plan.bubbles {
        let candidates =
            plan.resident.iter().filter(|&&s| fits(planned, &sides[s], together - sides[s].resident_bytes));
        planned.filling = candidates
            .filter_map(|&s| run_in(&planned.bubble, s, sides))
            .max_by(|a, b| worth(a, sides).total_cmp(&worth(b, sides)));
    }
}

/// Keeps the calls that open and close bubbles within the slowdown the owner allows.
fn shut(plan: &mut StagePlan, sides: &[Side], limits: Limits, iteration_ns: u64) {
    let mut opened: Vec<usize> = (0..plan.bubbles.len()).filter(|&i| plan.bubbles[i].filling.is_some()).collect();
    if limits.close_ns > 0.0 {
        let most = (limits.main_slowdown * iteration_ns as f64 / limits.close_ns) as usize;
        let value = |i: usize| plan.bubbles[i].filling.map_or(0.0, |f| worth(&f, sides));
        opened.sort_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
        for &index in opened.get(most..).unwrap_or(&[]) {
            plan.bubbles[index].filling = None;
        }
        opened.truncate(most);
    }
    plan.lost_ns = opened.len() as f64 * limits.close_ns;
}

#[cfg(test)]
mod tests {
    use super::super::side::Margin;
    use super::*;
    use crate::pipeline::memory::StageMemory;
    use crate::pipeline::{BubbleKind, Name, Schedule, Spec, StageTimes, Times, simulate};
    use proptest::prelude::*;

    fn side(name: &str, value: f64, memory: f64, margin: f64) -> Side {
        let part = margin / 3.0;
        Side {
            name: name.into(),
            step_ns: 100.0,
            kernel_ns: part,
            memory_bytes: memory,
            resident_bytes: memory / 2.0,
            value,
            margin: Margin { open_ns: part, restart_ns: part, drain_ns: part },
        }
    }

    fn timeline(p: usize, m: usize, f: u64, b: u64) -> Timeline {
        let times = Times::even(p, StageTimes::new(f, b, 0), 0);
        let spec = Spec {
            name: Name::OneFOneB,
            stages: p,
            micro_batches: m,
            chunks: None,
            memory_limit: None,
            weight_share: 0.4,
            times: &times,
        };
        simulate(Schedule::build(&spec).unwrap(), times.clone()).unwrap()
    }

    fn memory(p: usize, total: f64) -> Memory {
        let stage = StageMemory {
            parameters: 0,
            weights_bytes: 100,
            gradients_bytes: 0,
            optimizer_bytes: 0,
            activation_bytes: 10,
        };
        Memory { stage: vec![stage; p], total_bytes: Some(total), headroom_bytes: 20.0 }
    }

    const FREELY: Limits = Limits { main_slowdown: 1.0, close_ns: 0.0 };

    /// Four stages, F = 300, B = 600: stage 1 has gaps of 300, 1200 and twice 300 and 600 (closed form of 1F1B).
    #[test]
    fn a_stage_is_filled_up_to_the_margin() {
        let plans = fill(&timeline(4, 8, 300, 600), 0.4, &memory(4, 1e6), &[side("mlp", 1.0, 50.0, 90.0)], FREELY);
        let work: Vec<u64> = plans[1].bubbles.iter().map(|b| b.filling.unwrap().work_ns()).collect();
        assert_eq!(work, [300 - 90, 1200 - 90, 300 - 90, 300 - 90, 600 - 90]);
        let first = plans[1].bubbles[0].filling.unwrap();
        assert_eq!((first.start_ns, first.end_ns), (60, 270));
    }

    #[test]
    fn memory_decides_where_a_side_may_run() {
        // Free with n live: 250 − 100 − 20 − 10n; the side needs 100 while it runs and 50 always.
        let plans = fill(&timeline(4, 8, 300, 600), 0.4, &memory(4, 250.0), &[side("mlp", 1.0, 100.0, 90.0)], FREELY);
        let kinds = |stage: usize, filled: bool| -> Vec<BubbleKind> {
            plans[stage].bubbles.iter().filter(|b| b.filling.is_some() == filled).map(|b| b.bubble.kind).collect()
        };
        assert_eq!(kinds(0, false), [BubbleKind::BeforeBackward], "four micro-batches are live there");
        assert!(kinds(1, false).is_empty() && kinds(3, false).is_empty());
        // Where not even its state fits through the iteration, it runs nowhere.
        let tight = fill(&timeline(4, 8, 300, 600), 0.4, &memory(4, 200.0), &[side("mlp", 1.0, 100.0, 90.0)], FREELY);
        assert!(tight[0].bubbles.iter().all(|b| b.filling.is_none()));
    }

    #[test]
    fn the_worthier_side_wins_and_a_second_helps_only_where_it_fits_better() {
        let sides = [side("slow", 1.0, 10.0, 30.0), side("dear", 2.0, 10.0, 900.0)];
        let plans = fill(&timeline(4, 8, 300, 600), 0.4, &memory(4, 1e6), &sides, FREELY);
        let of = |index: usize| plans[0].bubbles[index].filling.map(|f| sides[f.side].name.clone());
        assert_eq!(of(0).as_deref(), Some("dear"), "1800 before the first backward");
        assert_eq!(of(1).as_deref(), Some("slow"), "300 is less than the dear one's margin");
    }

    #[test]
    fn the_slowdown_limit_keeps_the_best_bubbles() {
        let timeline = timeline(4, 8, 300, 600);
        let limits = Limits { main_slowdown: 0.01, close_ns: 0.0045 * timeline.iteration_ns as f64 };
        let plans = fill(&timeline, 0.4, &memory(4, 1e6), &[side("mlp", 1.0, 50.0, 90.0)], limits);
        let open: Vec<u64> =
            plans[1].bubbles.iter().filter(|b| b.filling.is_some()).map(|b| b.bubble.length_ns()).collect();
        assert_eq!(open, [1200, 600]);
        assert!(plans[1].lost_ns <= 0.01 * timeline.iteration_ns as f64);
    }

    proptest! {
        /// Whatever the sides: work stays inside its bubble, memory is never overdrawn, the slowdown limit holds.
        #[test]
        fn a_plan_never_breaks_its_limits(
            p in 1usize..6, m in 1usize..9, total in 100f64..400.0, close in 0f64..50.0, slowdown in 0f64..0.1,
            made in proptest::collection::vec((0.1f64..3.0, 0f64..200.0, 0f64..900.0), 0..4),
        ) {
            let sides: Vec<Side> = made.iter().map(|&(value, memory, margin)| side("x", value, memory, margin)).collect();
            let (timeline, memory) = (timeline(p, m, 300, 600), memory(p, total));
            let limits = Limits { main_slowdown: slowdown, close_ns: close };
            for plan in fill(&timeline, 0.4, &memory, &sides, limits) {
                let resident: f64 = plan.resident.iter().map(|&s| sides[s].resident_bytes).sum();
                prop_assert!(plan.lost_ns <= slowdown * timeline.iteration_ns as f64 + 1e-6);
                for planned in &plan.bubbles {
                    prop_assert!(plan.resident.is_empty() || resident <= planned.free_bytes.unwrap());
                    let Some(f) = planned.filling else { continue };
                    prop_assert!(f.start_ns >= planned.bubble.start_ns && f.end_ns <= planned.bubble.end_ns);
                    let needed = resident - sides[f.side].resident_bytes + sides[f.side].memory_bytes;
                    prop_assert!(needed <= planned.free_bytes.unwrap() + 1e-9);
                }
            }
        }
    }
}
