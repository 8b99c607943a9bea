//! ZB-1p and ZB-2p (Qi et al., arXiv 2401.10241, §3): the order of F, B and W is searched for under a limit on
//! activations, p or 2p micro-batches, for the times at hand.
//!
//! A candidate is made by list scheduling: the stages run side by side in simulated time, and a stage that is free takes
//! a B that has arrived, else an F that has arrived and fits the memory, else a W if the wait is worth it. What "worth
//! it" means and how far a stage runs ahead are the policy; the best of many policies wins, the handcrafted schedules
//! among them: ZB-1p is never worse than ZB-H1, ZB-2p never worse than ZB-1p or ZB-H2.

use super::{SearchEffort, zb_h};
use crate::Result;
use crate::pipeline::activations;
use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};
use crate::pipeline::simulate;
use crate::units::counted;

/// Policies that are tried however large the pipeline.
const LEAST_TRIED: usize = 6;

/// Operations scheduled over the whole search: more policies for small pipelines than for large ones.
const fn budget(effort: SearchEffort) -> usize {
    match effort {
        SearchEffort::Full => 6_000_000,
        SearchEffort::Quick => 400_000,
    }
}

/// How a stage decides.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Policy {
    /// Micro-batches a stage may run ahead, as a multiple of what covers the way to the last stage and back.
    ahead: f64,
    extra: usize,
    /// A W is started if at least this part of it fits into the wait.
    patience: f64,
    /// With both an F and a B at hand: the F first, while fewer micro-batches are ahead than that.
    forward_first: bool,
}

/// `multiple` is 1 for ZB-1p and 2 for ZB-2p.
pub fn build(spec: &ScheduleSpec, multiple: usize, effort: SearchEffort) -> Result<Schedule> {
    let limit = spec.memory_limit.unwrap_or((multiple * spec.stages) as f64);
    let mut greedy = Greedy::new(spec);
    let mut best: Option<(u64, Candidate)> = None;
    for depth in 1..=multiple {
        let schedule = zb_h::build(spec, depth);
        if (0..spec.stages).all(|s| activations::peak(&schedule, s, spec.weight_share) <= limit + 1e-9) {
            let span = simulate(schedule, spec.times.clone())?.iteration_ns;
            if best.as_ref().is_none_or(|(least, _)| span < *least) {
                best = Some((span, Candidate::Handcrafted(depth)));
            }
        }
    }
    // More room must not make it worse: what fits p micro-batches is tried under 2p too.
    let narrow = ((spec.stages as f64) < limit).then_some(spec.stages as f64);
    let tried = (budget(effort) / (3 * spec.stages * spec.micro_batches)).max(LEAST_TRIED);
    let step = match effort {
        SearchEffort::Quick => (policies().len() / tried).max(1),
        SearchEffort::Full => 1,
    };
    for policy in policies().into_iter().step_by(step).take(tried) {
        for limit in narrow.into_iter().chain([limit]) {
            let most = best.as_ref().map_or(u64::MAX, |(span, _)| *span);
            if let Some(span) = greedy.run(limit, policy, most, |_, _| ()).filter(|span| *span < most) {
                best = Some((span, Candidate::Listed(limit, policy)));
            }
        }
    }
    match best {
        Some((_, Candidate::Handcrafted(depth))) => Ok(zb_h::build(spec, depth)),
        Some((_, Candidate::Listed(limit, policy))) => {
            let mut lists = vec![Vec::with_capacity(3 * spec.micro_batches); spec.stages];
            greedy.run(limit, policy, u64::MAX, |stage, operation| lists[stage].push(operation));
            Ok(Schedule::from_lists(spec, 1, |stage, list| list.extend_from_slice(&lists[stage])))
        }
        None => Err(crate::Error::input(
            format!("no order of operations keeps {} within {}", spec.name.text(), counted(limit, "micro-batch")),
            "raise the memory limit to at least 1",
        )),
    }
}

/// A schedule that can be made again: only the best one's lists are written.
enum Candidate {
    /// ZB-H1 or ZB-H2, by its depth.
    Handcrafted(usize),
    /// List scheduling within a limit.
    Listed(f64, Policy),
}

/// The likeliest first.
fn policies() -> Vec<Policy> {
    let mut list = Vec::new();
    for patience in [1.0, 0.5, 0.75, 0.25, 0.0] {
        for (ahead, extra) in [(1.0, 1), (1.0, 2), (2.0, 0), (1.0, 0), (0.9, 1), (0.8, 1), (0.7, 1), (0.5, 1)] {
            for forward_first in [false, true] {
                list.push(Policy { ahead, extra, patience, forward_first });
            }
        }
    }
    list
}

const NEVER: u64 = u64::MAX;

/// List scheduling; keeps its memory between runs.
struct Greedy<'a> {
    spec: &'a ScheduleSpec<'a>,
    /// Of F and B, from behind each stage to the last and back.
    way_ns: Vec<f64>,
    stages: Vec<Stage>,
    /// When the input of each pass is there, by stage, F or B, and micro-batch; valid as far as the stage's `delivered` goes.
    arrival_ns: Vec<u64>,
    next: Earliest,
}

/// A stage and how far it is in a run.
#[derive(Clone, Default)]
struct Stage {
    duration_ns: [u64; 3],
    work_ns: u64,
    window: usize,
    /// The shortest wait in which a W is started.
    least_wait_ns: f64,
    /// When the stage ended what it began last.
    free_ns: u64,
    /// What it waited since its first operation.
    idle_ns: u64,
    /// Micro-batches begun of each kind of work.
    begun: [usize; 3],
    /// F and B whose arrival is known.
    delivered: [usize; 2],
}

impl<'a> Greedy<'a> {
    fn new(spec: &'a ScheduleSpec<'a>) -> Self {
        let (p, m) = (spec.stages, spec.micro_batches);
        let layout = spec.layout(1);
        let mut way_ns = vec![0.0; p];
        for i in (1..p).rev() {
            let t = layout.cell_times(spec.times, i, 0);
            let pass = (t.forward_ns + t.backward_input_ns + 2 * spec.times.send_recv_ns) as f64;
            way_ns[i - 1] = way_ns[i] + pass;
        }
        let stage = |i| {
            let t = layout.cell_times(spec.times, i, 0);
            let duration_ns = [t.forward_ns, t.backward_input_ns, t.backward_weight_ns];
            Stage { duration_ns, work_ns: m as u64 * t.total_ns(), ..Stage::default() }
        };
        let stages = (0..p).map(stage).collect();
        Greedy { spec, way_ns, stages, arrival_ns: vec![0; 2 * p * m], next: Earliest::new(p) }
    }

    fn reset(&mut self, policy: Policy) {
        for (i, s) in self.stages.iter_mut().enumerate() {
            let cover = policy.ahead * self.way_ns[i] / (s.duration_ns[0] as f64).max(1.0);
            s.window = (cover.min(1e9) as usize + policy.extra).max(1);
            s.least_wait_ns = policy.patience * s.duration_ns[2] as f64;
            (s.free_ns, s.idle_ns, s.begun, s.delivered) = (0, 0, [0; 3], [0; 2]);
            self.next.set(i, 0);
        }
        self.stages[0].delivered[0] = self.spec.micro_batches;
        self.arrival_ns[..self.spec.micro_batches].fill(0);
    }

    /// The longest time of a stage from its first operation to its last. `None` if not all fits within the limit, or if a
    /// stage takes longer than `most_ns`.
    fn run(
        &mut self,
        limit: f64,
        policy: Policy,
        most_ns: u64,
        mut began: impl FnMut(usize, StageOperation),
    ) -> Option<u64> {
        self.reset(policy);
        while let Some((now, at)) = self.next.earliest() {
            let Some(work) = self.decide(at, now, limit, policy) else { continue };
            let s = &self.stages[at];
            began(at, StageOperation::new(work, s.begun[work as usize], 0));
            self.start(at, now, work);
            let s = &self.stages[at];
            if s.work_ns + s.idle_ns > most_ns {
                return None;
            }
        }
        let m = self.spec.micro_batches;
        let whole = self.stages.iter().all(|s| s.begun == [m; 3]);
        self.stages.iter().map(|s| s.work_ns + s.idle_ns).max().filter(|_| whole)
    }

    /// What the free stage begins now; if it is nothing, notes when to ask again.
    fn decide(&mut self, at: usize, now: u64, limit: f64, policy: Policy) -> Option<Work> {
        let m = self.spec.micro_batches;
        let s = &self.stages[at];
        let [f, b, w] = s.begun;
        let ready = |kind: usize| {
            if s.begun[kind] < s.delivered[kind] { self.arrival_ns[(2 * at + kind) * m + s.begun[kind]] } else { NEVER }
        };
        let live = (f - b) as f64 + (b - w) as f64 * self.spec.weight_share;
        let may_forward = f < m && live + 1.0 <= limit + 1e-9 && (f - b < s.window || f == b);
        let forward = if may_forward { ready(0) } else { NEVER };
        let backward = ready(1);
        let prefer_forward = policy.forward_first && forward <= now && (f - b) < s.window.div_ceil(2);
        if backward <= now && !prefer_forward {
            return Some(Work::BackwardInput);
        }
        if forward <= now {
            return Some(Work::Forward);
        }
        let input = forward.min(backward);
        if w < b && (input == NEVER || input.saturating_sub(now) as f64 >= s.least_wait_ns) {
            return Some(Work::BackwardWeight);
        }
        self.next.set(at, input);
        None
    }

    fn start(&mut self, at: usize, now: u64, work: Work) {
        let s = &mut self.stages[at];
        let kind = work as usize;
        let micro_batch = s.begun[kind];
        // What a stage waits before its first operation is no part of its time.
        s.idle_ns += if s.begun[0] > 0 { now - s.free_ns } else { 0 };
        s.begun[kind] += 1;
        s.free_ns = now + s.duration_ns[kind];
        let free = s.free_ns;
        self.next.set(at, free);
        let arrives = free + self.spec.times.send_recv_ns;
        match work {
            Work::Forward if at + 1 < self.spec.stages => self.deliver(at + 1, 0, micro_batch, arrives),
            Work::Forward => self.deliver(at, 1, micro_batch, free),
            Work::BackwardInput if at > 0 => self.deliver(at - 1, 1, micro_batch, arrives),
            _ => {}
        }
    }

    fn deliver(&mut self, to: usize, kind: usize, micro_batch: usize, arrives: u64) {
        let s = &mut self.stages[to];
        s.delivered[kind] = micro_batch + 1;
        self.arrival_ns[(2 * to + kind) * self.spec.micro_batches + micro_batch] = arrives;
        let when = arrives.max(s.free_ns);
        if when < self.next.of(to) {
            self.next.set(to, when);
        }
    }
}

/// When each stage next has something to decide: a tree of minima, of equal ones the first stage's.
struct Earliest {
    leaves: usize,
    ns: Vec<u64>,
}

impl Earliest {
    fn new(stages: usize) -> Self {
        let leaves = stages.next_power_of_two();
        Earliest { leaves, ns: vec![NEVER; 2 * leaves] }
    }

    fn of(&self, stage: usize) -> u64 {
        self.ns[self.leaves + stage]
    }

    fn set(&mut self, stage: usize, ns: u64) {
        let mut at = self.leaves + stage;
        self.ns[at] = ns;
        while at > 1 {
            at /= 2;
            self.ns[at] = self.ns[2 * at].min(self.ns[2 * at + 1]);
        }
    }

    /// The stage whose time comes first, and that time.
    fn earliest(&self) -> Option<(u64, usize)> {
        let mut at = 1;
        while at < self.leaves {
            at = if self.ns[2 * at] == self.ns[at] { 2 * at } else { 2 * at + 1 };
        }
        Some((self.ns[at], at - self.leaves)).filter(|(ns, _)| *ns < NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{ScheduleName, StageTimes, Times};
    use proptest::prelude::*;

    fn spec(name: ScheduleName, micro_batches: usize, memory_limit: Option<f64>, times: &Times) -> ScheduleSpec<'_> {
        let stages = times.stage.len();
        ScheduleSpec { name, stages, micro_batches, chunks: None, memory_limit, weight_share: 0.43, times }
    }

    /// The answers of the search as it was written first: with a heap of events, each candidate simulated.
    #[test]
    fn answers_are_what_they_were() {
        let even = Times::even(8, StageTimes::new(18_522, 18_086, 9_337), 601);
        let mut uneven = Times::even(4, StageTimes::new(20_000, 19_000, 14_000), 500);
        uneven.stage[2] = StageTimes::new(28_800, 27_360, 20_160);
        let before = [
            (24, None, &even, [1_310_405, 1_153_201]),
            (24, Some(5.0), &even, [1_788_530, 1_788_530]),
            (16, None, &uneven, [1_221_120, 1_221_120]),
            (20, Some(3.0), &uneven, [1_562_920, 1_562_920]),
        ];
        for (micro_batches, limit, times, before_ns) in before {
            for (name, before_ns) in [ScheduleName::Zb1p, ScheduleName::Zb2p].into_iter().zip(before_ns) {
                let spec = spec(name, micro_batches, limit, times);
                let ns = |effort| {
                    simulate(Schedule::build_with(&spec, effort).unwrap(), times.clone()).unwrap().iteration_ns
                };
                assert_eq!(ns(SearchEffort::Full), before_ns, "{name:?} {micro_batches} {limit:?}");
                let quick = ns(SearchEffort::Quick);
                assert!(before_ns <= quick && quick as f64 <= 1.02 * before_ns as f64, "{name:?} quickly {quick}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A run's span is what the simulator says of its lists, and a bound that holds changes nothing.
        #[test]
        fn a_run_agrees_with_the_simulator(
            stages in 1usize..7, m in 1usize..12, message in 0u64..30, limit in 1.0f64..8.0, which in 0usize..80, seed in any::<u64>()
        ) {
            let mut random = crate::stats::SplitMix(seed);
            let mut ns = || random.below(80) as u64;
            let times = Times::new((0..stages).map(|_| StageTimes::new(ns(), ns(), ns())).collect(), message);
            let spec = spec(ScheduleName::Zb1p, m, None, &times);
            let mut greedy = Greedy::new(&spec);
            let mut lists = vec![Vec::new(); stages];
            let policy = policies()[which];
            let span = greedy.run(limit, policy, u64::MAX, |stage, operation| lists[stage].push(operation));
            let span = span.expect("one micro-batch always fits");
            prop_assert_eq!(greedy.run(limit, policy, span, |_, _| ()), Some(span));
            let schedule = Schedule::from_lists(&spec, 1, |stage, list| list.extend_from_slice(&lists[stage]));
            for stage in 0..stages {
                prop_assert!(activations::peak(&schedule, stage, spec.weight_share) <= limit + 1e-9);
            }
            prop_assert_eq!(simulate(schedule, times.clone()).unwrap().iteration_ns, span);
        }

        /// The tree answers as a look at every stage would.
        #[test]
        fn the_earliest_is_the_first_of_the_least(times in proptest::collection::vec(0u64..6, 1..40)) {
            let mut next = Earliest::new(times.len());
            for (stage, ns) in times.iter().enumerate() {
                next.set(stage, if *ns == 5 { NEVER } else { *ns });
            }
            let naive = times.iter().enumerate().filter(|(_, ns)| **ns < 5).min_by_key(|(_, ns)| **ns);
            prop_assert_eq!(next.earliest(), naive.map(|(stage, ns)| (*ns, stage)));
        }
    }
}
