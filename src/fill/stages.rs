//! All stages of a timeline filled, and what that makes of the iteration.

use super::bubble_list::{BubbleList, MemoryLevel, Planned};
use super::delay;
use super::lengths::LearnedLength;
use super::overlap::{self, BesideRun, Busy};
use super::pack::{Residency, Resident, SideRun, StageProblem};
use super::planner;
use super::recent::Recent;
use super::side::CompleteSide;
use crate::pipeline::bubbles::{self, Bubble};
use crate::pipeline::memory::Memory;
use crate::pipeline::{Timeline, Work, activations};
use crate::stats::normal;
use rayon::prelude::*;

/// Rounds in which the budget is lowered until the slowdown of the whole keeps to the limit.
const ROUNDS: usize = 6;

/// The bubbles of one stage with the side work in them and beside its operations.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// Bubbles of the stage in order of time, those that may not be filled included.
    pub bubbles: BubbleList,
    /// Memory free at the moment when the main job holds most, in bytes; `None` where the GPU's memory is not known.
    pub least_free: Option<f64>,
    /// Side models that keep memory on the stage through the whole iteration.
    pub resident: Vec<Resident>,
    /// Side work beside the stage's own operations.
    pub beside: Vec<BesideRun>,
    /// Time that the main job loses on this stage in an iteration, in ns.
    pub lost_ns: f64,
    /// By side, its work in this stage's bubbles on average over all iterations, in ns of its time alone: less than its runs hold where
    /// bubbles may end before them. Empty as long as nothing was put into them.
    pub done_ns: Vec<f64>,
    /// By side, what the main job waits on average in an iteration for its runs that are still at work when their bubbles truly end,
    /// in ns. Empty like `done_ns`.
    pub late_ns: Vec<f64>,
}

impl StagePlan {
    /// Side work in this stage's bubbles on average, in ns of the side models' time alone.
    pub fn filled_ns(&self) -> u64 {
        self.done_ns.iter().sum::<f64>().round() as u64
    }

    /// What a side does on this stage on average, in bubbles and beside operations, in ns of its time alone.
    pub fn side_ns(&self, side: usize) -> f64 {
        let beside = self.beside.iter().filter(|run| run.side == side).map(|run| run.work_ns);
        self.done_ns.get(side).copied().unwrap_or(0.0) + beside.sum::<f64>()
    }

    /// Side work beside this stage's own operations, in ns of the side models' time alone.
    pub fn beside_ns(&self) -> f64 {
        self.beside.iter().map(|run| run.work_ns).sum()
    }

    /// How a side stays on this stage; one that does not may be thought to stop anywhere.
    pub fn residency(&self, side: usize) -> Residency {
        self.resident.iter().find(|r| r.side == side).map_or(Residency::Split, |r| r.residency)
    }

    /// What the main job waits on average for a run that is still at work when its bubble truly ends, in ns.
    pub fn overrun_ns(&self, bubble: &Planned, run: &SideRun, sides: &[CompleteSide]) -> f64 {
        sides[run.side].overrun_ns(&bubble.slot(), self.residency(run.side), bubble.is_behind(run))
    }

    /// Sums up what the runs come to on average.
    fn add_up(&mut self, sides: &[CompleteSide]) {
        let (mut done_ns, mut late_ns) = (vec![0.0; sides.len()], vec![0.0; sides.len()]);
        let mut recent = Recent::new();
        for bubble in self.bubbles.iter().filter(|bubble| !bubble.runs.is_empty()) {
            let slot = bubble.slot();
            for run in bubble.runs {
                let key = (slot.kind(), run.side, run.start_ns - slot.start_ns, run.takes_ns, bubble.is_behind(run));
                let (share, late) = *recent.get_or(key, || {
                    let done_ns = sides[run.side].done_ns(&slot, run, self.residency(run.side));
                    (done_ns / (run.work_ns as f64).max(1.0), self.overrun_ns(&bubble, run, sides))
                });
                done_ns[run.side] += share * run.work_ns as f64;
                late_ns[run.side] += late;
            }
        }
        (self.done_ns, self.late_ns) = (done_ns, late_ns);
    }

    /// All side work of the stage on average, each side's in ns times its value. `sides` are those that the runs' indices
    /// refer to.
    pub fn worth(&self, sides: &[CompleteSide]) -> f64 {
        sides.iter().enumerate().map(|(index, side)| self.side_ns(index) * side.value).sum()
    }
}

/// The side models that the stages of a job are filled with, and the limits of the filling.
pub struct Filling<'a> {
    /// The job's side models.
    pub sides: &'a [CompleteSide],
    /// Largest slowdown of the main job that is allowed, as a fraction of the iteration.
    pub main_slowdown: f64,
    /// Time of the call that closes the gate, in ns: what the main job loses by every run besides the side's
    /// `after_ns`.
    pub close_ns: f64,
    /// Most side models that may run one after another in one bubble.
    pub sides_per_bubble: usize,
    /// How much a simulated bubble's length varies; `None` where that is not known. That it does not is known too.
    pub jitter: Option<Jitter<'a>>,
}

/// How much simulated bubbles vary from iteration to iteration, each by as much of its length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter<'a> {
    /// Normally.
    Normal {
        /// Standard deviation of a bubble's length over its length.
        relative: f64,
        /// By how many standard deviations the gate opens for less than the length: the quantile's distance from the median.
        deviations_short: f64,
    },
    /// As bubbles did that were measured.
    Learned(&'a LearnedLength),
}

impl Jitter<'_> {
    /// A standard deviation relative to the length, and the quantile of the lengths that the gate opens for.
    pub fn normal(relative: f64, quantile: f64) -> Self {
        Jitter::Normal { relative, deviations_short: -normal::quantile(quantile) }
    }

    /// How a bubble varies that is so long by its median.
    pub fn of_length(self, median_ns: u64) -> LearnedLength {
        match self {
            Jitter::Normal { relative, deviations_short } => {
                let deviation_ns = relative * median_ns as f64;
                let expected_ns = median_ns as f64 - deviation_ns * deviations_short;
                let expected_ns = expected_ns.max(0.0).round() as u64;
                LearnedLength { median_ns, expected_ns, deviation_ns, parts: Vec::new() }
            }
            Jitter::Learned(like) => like.scaled_to(median_ns),
        }
    }
}

impl Filling<'_> {
    /// Fills every stage on its own, each within a budget of `budget_ns` that the main job may lose on it. `busy` holds
    /// each stage's own operations; where it is empty no side runs beside compute.
    pub fn fill(&self, stages: &mut [StagePlan], busy: &[Busy], budget_ns: f64) {
        stages.par_iter_mut().enumerate().for_each(|(index, stage)| {
            let problem = StageProblem {
                sides: self.sides,
                slots: stage.bubbles.fillable().map(|b| b.slot()).collect(),
                least_free: stage.least_free,
                budget_ns,
                close_ns: self.close_ns,
                sides_per_bubble: self.sides_per_bubble,
            };
            let solution = planner::solve(&problem);
            stage.beside = busy.get(index).map_or_else(Vec::new, |&busy| overlap::fill(&problem, &solution, busy));
            let lost_beside: f64 = stage.beside.iter().map(|b| b.operations as f64 * b.cost_each_ns).sum();
            (stage.lost_ns, stage.resident) = (solution.lost_ns + lost_beside, solution.resident);
            stage.bubbles.put(solution.runs);
            stage.add_up(self.sides);
        });
    }

    /// Fills a simulated timeline so that the iteration keeps to `main_slowdown`; returns the stages and the time the
    /// iteration loses, in ns. `iteration_ns` is the whole iteration, with what follows the pipeline.
    pub fn timeline(
        &self,
        timeline: &Timeline,
        weight_share: f64,
        memory: &Memory,
        iteration_ns: u64,
    ) -> (Vec<StagePlan>, u64) {
        let count = timeline.schedule.stages;
        let mut stages: Vec<StagePlan> =
            (0..count).map(|s| empty(timeline, s, weight_share, memory, self.jitter)).collect();
        let busy: Vec<Busy> = (0..count).map(|s| busy(timeline, s)).collect();
        // The largest share of the limit for each stage that keeps the whole within it: all of it, where the stages' losses do
        // not add up; else by bisection.
        let allowed = self.main_slowdown * iteration_ns as f64;
        let (mut low, mut high, mut share) = (0.0, 1.0, 1.0);
        let mut best = None;
        for _ in 0..ROUNDS {
            self.fill(&mut stages, &busy, share * allowed);
            let lost = self.lost_ns(timeline, &stages);
            if lost as f64 <= allowed {
                if share == 1.0 {
                    return (stages, lost);
                }
                (low, best) = (share, Some((stages.clone(), lost)));
            } else {
                high = share;
            }
            share = 0.5 * (low + high);
        }
        best.unwrap_or_else(|| {
            self.fill(&mut stages, &busy, 0.0);
            let lost = self.lost_ns(timeline, &stages);
            (stages, lost)
        })
    }

    /// What the whole iteration loses by what each stage does.
    fn lost_ns(&self, timeline: &Timeline, stages: &[StagePlan]) -> u64 {
        if stages.iter().all(|s| s.lost_ns == 0.0) {
            return 0;
        }
        travelled_ns(timeline, stages, |stage, _, bubble| {
            let own = |run: &SideRun| self.close_ns + self.sides[run.side].after_ns;
            let each = |run: &SideRun| own(run) + stages[stage].overrun_ns(bubble, run, self.sides);
            bubble.runs.iter().map(each).sum::<f64>()
        })
    }
}

/// How much longer the simulated iteration becomes if each bubble of these stages delays the operation behind it by what
/// `cost_ns` says, in ns. `cost_ns` is given the stage, the bubble's index in it, and the bubble.
pub(super) fn travelled_ns(
    timeline: &Timeline,
    stages: &[StagePlan],
    mut cost_ns: impl FnMut(usize, usize, &Planned) -> f64,
) -> u64 {
    let mut extra = vec![0u64; timeline.schedule.operations().len()];
    let mut tail = vec![0u64; stages.len()];
    for (index, stage) in stages.iter().enumerate() {
        let mut cost = |(nth, bubble): (usize, Planned)| cost_ns(index, nth, &bubble).ceil() as u64;
        let mut bubbles = stage.bubbles.iter().enumerate().peekable();
        let offset = timeline.schedule.range(index).start;
        for (nth, (_, start, _)) in timeline.operations(index).enumerate() {
            if let Some(bubble) = bubbles.next_if(|(_, bubble)| bubble.end_ns == start) {
                extra[offset + nth] += cost(bubble);
            }
        }
        tail[index] = bubbles.map(cost).sum();
        beside_delays(timeline, index, &stage.beside, &mut extra);
    }
    delay::iteration_ns(timeline, &extra, &tail) - timeline.iteration_ns
}

/// The first operations of a kind take longer.
fn beside_delays(timeline: &Timeline, stage: usize, runs: &[BesideRun], extra: &mut [u64]) {
    let range = timeline.schedule.range(stage);
    for run in runs {
        let alike = |index: &usize| (timeline.schedule.operations()[*index].work != Work::Forward) == run.backward;
        for index in range.clone().filter(alike).take(run.operations as usize) {
            extra[index] += run.cost_each_ns.ceil() as u64;
        }
    }
}

/// A stage's bubbles with the memory free in each, nothing in them.
fn empty(timeline: &Timeline, stage: usize, weight_share: f64, memory: &Memory, jitter: Option<Jitter>) -> StagePlan {
    let share = timeline.schedule.chunk_share();
    let mut list = BubbleList::default();
    for Bubble { start_ns, end_ns, kind, live } in bubbles::of_stage(timeline, stage) {
        let live_micro_batches = live.micro_batches(share, weight_share);
        let level = MemoryLevel { live_micro_batches, free_bytes: memory.free_bytes(stage, live_micro_batches) };
        let varying = jitter.map(|jitter| jitter.of_length(end_ns - start_ns));
        let variation = varying.as_ref().map(LearnedLength::variation);
        list.push(&Planned { start_ns, end_ns, kind, level, class: None, variation, runs: &[] });
    }
    let peak = activations::peak(&timeline.schedule, stage, weight_share);
    StagePlan {
        bubbles: list,
        least_free: memory.always_free_bytes(stage, peak),
        resident: Vec::new(),
        beside: Vec::new(),
        lost_ns: 0.0,
        done_ns: Vec::new(),
        late_ns: Vec::new(),
    }
}

fn busy(timeline: &Timeline, stage: usize) -> Busy {
    let mut sums = [(0u64, 0u64); 2];
    for (operation, start, end) in timeline.operations(stage) {
        let sum = &mut sums[usize::from(operation.work != Work::Forward)];
        *sum = (sum.0 + 1, sum.1 + end - start);
    }
    let [forward, backward] = sums.map(|(count, ns)| (count, ns as f64 / count.max(1) as f64));
    Busy { forward, backward }
}

#[cfg(test)]
mod tests {
    use super::super::beside::{BesideCompute, Together};
    use super::super::kernels::Kernels;
    use super::super::overrun::Overrun;
    use super::super::receive::ReceiveRate;
    use super::super::side::{KernelOrigin, Margin};
    use super::super::simulation;
    use super::*;
    use crate::pipeline::memory::StageMemory;
    use crate::pipeline::{BubbleKind, Schedule, ScheduleName, ScheduleSpec, StageTimes, Times, simulate};

    fn side(memory: f64) -> CompleteSide {
        CompleteSide {
            name: "mlp".into(),
            kernels: Kernels::of_longest(100, 10),
            memory_bytes: memory,
            resident_bytes: memory / 2.0,
            value: 1.0,
            margin: Margin { open_ns: 30, restart_ns: 30, signal_ns: 30 },
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

    fn timeline(p: usize, m: usize) -> Timeline {
        let times = Times::even(p, StageTimes::new(300, 600, 0), 0);
        let spec = ScheduleSpec {
            name: ScheduleName::OneFOneB,
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
            temporary_bytes: 0,
        };
        Memory { stage: vec![stage; p], total_bytes: Some(total), headroom_bytes: 20.0 }
    }

    fn filled(sides: &[CompleteSide], total: f64, slowdown: f64, close_ns: f64) -> (Vec<StagePlan>, u64) {
        let timeline = timeline(4, 8);
        let filling = Filling { sides, main_slowdown: slowdown, close_ns, sides_per_bubble: 2, jitter: None };
        filling.timeline(&timeline, 0.4, &memory(4, total), timeline.iteration_ns)
    }

    /// F = 300, B = 600: stage 1 has gaps of 300, 1200, twice 300 and 600 (closed form of 1F1B).
    #[test]
    fn stages_are_filled_up_to_the_margin() {
        let (stages, lost) = filled(&[side(50.0)], 1e6, 1.0, 0.0);
        let work: Vec<u64> = stages[1].bubbles.iter().map(|b| b.runs[0].work_ns).collect();
        assert_eq!((work, lost), (vec![210, 1110, 210, 210, 510], 0));
    }

    /// Free with n live: 215 − 100 − 20 − 10n; stage 0 holds four micro-batches where it is fullest. A side of 60 stopped
    /// within a step would need 60 always; its 30 of state fit, and whole steps run where 60 are free.
    #[test]
    fn memory_decides_where_and_how_a_side_may_run() {
        let (stages, _) = filled(&[side(60.0)], 215.0, 1.0, 0.0);
        let empty: Vec<BubbleKind> = stages[0].bubbles.iter().filter(|b| b.runs.is_empty()).map(|b| b.kind).collect();
        assert_eq!(empty, [BubbleKind::BeforeBackward]);
        assert!(stages[0].bubbles.runs().iter().all(|r| r.work_ns % 100 == 0));
        assert_eq!(stages[3].bubbles.runs()[0].work_ns, 900 - 90, "there it may stop anywhere");
        let (stages, _) = filled(&[side(60.0)], 185.0, 1.0, 0.0);
        assert!(stages[0].bubbles.iter().all(|b| b.runs.is_empty()), "25 are free at the fullest, 30 stay");
    }

    /// A side that may stop anywhere runs whole steps on the stage whose memory does not hold it between bubbles, in the plan and in
    /// what a gate makes of it.
    #[test]
    fn a_plan_is_carried_out_with_the_residency_it_has() {
        let sides = [side(60.0)];
        let (stages, _) = filled(&sides, 215.0, 1.0, 0.0);
        assert_eq!((stages[0].residency(0), stages[3].residency(0)), (Residency::Whole, Residency::Split));
        let out = simulation::carried_out(&timeline(4, 8), &stages, &sides, 0.0, 1, 3, 1);
        let planned: u64 = stages.iter().map(StagePlan::filled_ns).sum();
        assert_eq!((out.came.work_ns, out.iterations, out.slowdown), (3.0 * planned as f64, 3, None));
    }

    #[test]
    fn the_whole_iteration_keeps_to_the_limit() {
        let timeline = timeline(4, 8);
        for limit in [0.05, 0.02, 0.0] {
            let (stages, lost) = filled(&[side(50.0)], 1e6, limit, 40.0);
            assert!(lost as f64 <= limit * timeline.iteration_ns as f64, "{limit}: {lost}");
            assert_eq!(limit == 0.0, stages.iter().all(|s| s.filled_ns() == 0));
        }
    }

    /// Beside forwards the main takes 10 % longer and the side keeps half its speed; beside backwards it costs too much.
    #[test]
    fn what_the_limit_leaves_goes_beside_compute() {
        let together = |slowdown| Together { slowdown, rate: 0.5 };
        let sides = [CompleteSide {
            beside: Some(BesideCompute { forward: together(1.1), backward: together(2.0) }),
            ..side(50.0)
        }];
        let timeline = timeline(4, 8);
        let (stages, lost) = filled(&sides, 1e6, 0.05, 0.0);
        let forward = stages[3].beside[0];
        assert!(!forward.backward && forward.operations >= 1);
        assert!((forward.work_ns - forward.operations as f64 * 300.0 * 1.1 * 0.5).abs() < 1e-6);
        assert!(lost > 0 && lost as f64 <= 0.05 * timeline.iteration_ns as f64, "{lost}");
        let (stages, lost) = filled(&sides, 1e6, 0.0, 0.0);
        assert!(lost == 0 && stages.iter().all(|s| s.beside.is_empty()));
        // Memory that is free in bubbles only is no place to run beside compute.
        assert!(filled(&sides, 165.0, 0.05, 0.0).0[0].beside.is_empty());
    }
}
