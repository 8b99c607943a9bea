//! An order for two chunks a stage in V shape (F0 down, F1 up, B1 down, B0 up), and W put into what waits remain.
//!
//! Used by [`super::zb_v`], which searches over [`PassPattern`]s: this is its inner loop. Every lane runs its micro-batches
//! in order, so that an order is a list of lanes, and what has arrived is a count.

use super::vee_pattern::{LANES, LaneOrder, PassPattern};
use crate::pipeline::schedule::{ScheduleSpec, StageOperation, Work};

/// The chunk of each lane.
const CHUNK: [usize; LANES] = [0, 1, 1, 0];
/// The lane that a stage waits for if it waits for none.
const NO_LANE: usize = usize::MAX;

/// How good a run was; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// The longest time of a stage from its first operation to its last.
    pub span_ns: u64,
    /// What all stages together wait in between.
    pub idle_ns: u64,
}

/// Runs candidates; keeps its memory between them.
pub struct Filler {
    /// How many of them; a search looks at fewer than the schedule has.
    micro_batches: usize,
    stages: Vec<Stage>,
    /// By the passes that a stage holds whole: how many W may wait while another forward begins; past the end it may not.
    room: Vec<usize>,
    /// The order of each stage's passes, as lanes.
    orders: Vec<Vec<u8>>,
    /// When each pass arrives, by stage, lane and micro-batch; valid as far as the stage's `arrived` goes.
    arrival_ns: Vec<u64>,
    /// The chunk of each B that has run, by stage, for the W that follow in the same order.
    backwards: Vec<u8>,
    ready: Vec<usize>,
    /// Passes that all runs together have run.
    passes_run: usize,
}

/// What a run hung on: patterns that agree in it run alike.
#[derive(Debug, Clone, Default)]
pub struct Decisions {
    stages: Vec<(LaneOrder, [u64; 2], [u64; 2])>,
}

/// A stage and how far it is in a run.
#[derive(Clone, Default)]
struct Stage {
    /// Of a lane's pass, and of the W of each chunk.
    duration_ns: [u64; LANES],
    weight_ns: [u64; 2],
    work_ns: u64,
    output: [Output; LANES],
    merged: LaneOrder,
    /// The shortest wait in which the W of each chunk is started.
    least_wait_ns: [u64; 2],
    /// Of the waits of this run with a W of the chunk at hand: the longest in which it was not started, and the shortest
    /// in which it was.
    longest_left_ns: [u64; 2],
    shortest_used_ns: [u64; 2],
    position: usize,
    /// Passes that have arrived and that have run, by lane.
    arrived: [usize; LANES],
    ran: [usize; LANES],
    waits_for: usize,
    weights: usize,
    whole: usize,
    idle_ns: u64,
    free_ns: u64,
}

/// Where a lane's result goes.
#[derive(Clone, Copy, Default)]
struct Output {
    /// The number of stages if it goes nowhere.
    stage: usize,
    lane: usize,
    message_ns: u64,
}

impl Filler {
    /// `limit` is the most activations that a stage may hold, in micro-batches.
    pub fn new(spec: &ScheduleSpec, micro_batches: usize, limit: f64) -> Self {
        let (layout, count) = (spec.layout(2), spec.stages);
        let message_ns = spec.times.send_recv_ns;
        let stage = |at: usize| {
            let [down, up] = [0, 1].map(|chunk| layout.cell_times(spec.times, at, chunk));
            // Down the stages in even lanes, up in odd ones; the ends turn round without a message.
            let output = [0, 1, 2, 3].map(|lane| match lane {
                0 | 2 if at + 1 < count => Output { stage: at + 1, lane, message_ns },
                1 | 3 if at > 0 => Output { stage: at - 1, lane, message_ns },
                3 => Output { stage: count, ..Output::default() },
                turn => Output { stage: at, lane: turn + 1, message_ns: 0 },
            });
            Stage {
                duration_ns: [down.forward_ns, up.forward_ns, up.backward_input_ns, down.backward_input_ns],
                weight_ns: [down.backward_weight_ns, up.backward_weight_ns],
                work_ns: (down.total_ns() + up.total_ns()) * micro_batches as u64,
                output,
                ..Stage::default()
            }
        };
        Filler {
            micro_batches,
            stages: (0..count).map(stage).collect(),
            room: room(2.0 * limit, spec.weight_share, 2 * micro_batches),
            orders: vec![Vec::new(); count],
            arrival_ns: vec![0; count * LANES * micro_batches],
            backwards: vec![0; count * 2 * micro_batches],
            ready: Vec::new(),
            passes_run: 0,
        }
    }

    /// The work of the busiest stage.
    pub fn work_ns(&self) -> u64 {
        self.stages.iter().map(|s| s.work_ns).max().unwrap_or(0)
    }

    /// What the last run hung on; it must have come to its end.
    pub fn decisions(&self) -> Decisions {
        let of = |s: &Stage| (s.merged, s.longest_left_ns, s.shortest_used_ns);
        Decisions { stages: self.stages.iter().map(of).collect() }
    }

    /// Whether the pattern would run as that run did.
    pub fn runs_alike(&self, block: &PassPattern, decisions: &Decisions) -> bool {
        let (count, m) = (self.stages.len(), self.micro_batches);
        decisions.stages.iter().zip(&self.stages).enumerate().all(|(at, ((order, left, used), stage))| {
            let least = stage.least_waits(block.patience[at]);
            (0..2).all(|c| left[c] < least[c] && least[c] <= used[c]) && block.order(count, m, at) == *order
        })
    }

    /// Passes that all runs of this filler together have run.
    pub const fn passes_run(&self) -> usize {
        self.passes_run
    }

    /// Runs all passes in the pattern's order. `None` if it cannot run within the memory limit, or if a stage takes longer
    /// than `most_ns`.
    pub fn run(&mut self, block: &PassPattern, most_ns: u64) -> Option<Score> {
        self.reset(block);
        while let Some(at) = self.ready.pop() {
            self.advance(at, most_ns, |_, _, _| ())?;
        }
        self.score()
    }

    /// Runs the pattern and writes down what each stage does, in order.
    pub fn lists(&mut self, block: &PassPattern) -> Option<Vec<Vec<StageOperation>>> {
        let mut lists = vec![Vec::with_capacity(6 * self.micro_batches); self.stages.len()];
        let mut weights = vec![[0; 2]; self.stages.len()];
        self.reset(block);
        while let Some(at) = self.ready.pop() {
            self.advance(at, u64::MAX, |work, pass, chunk| {
                let pass = if work == Work::BackwardWeight { weights[at][chunk] } else { pass };
                weights[at][chunk] += usize::from(work == Work::BackwardWeight);
                lists[at].push(StageOperation::new(work, pass, chunk));
            })?;
        }
        self.score().map(|_| lists)
    }

    fn score(&self) -> Option<Score> {
        if self.stages.iter().any(|s| s.position < LANES * self.micro_batches) {
            return None;
        }
        let span_ns = self.stages.iter().map(|s| s.work_ns + s.idle_ns).max()?;
        Some(Score { span_ns, idle_ns: self.stages.iter().map(|s| s.idle_ns).fold(0, u64::saturating_add) })
    }

    fn reset(&mut self, block: &PassPattern) {
        self.ready.clear();
        let count = self.stages.len();
        for (index, (stage, order)) in self.stages.iter_mut().zip(&mut self.orders).enumerate() {
            let merged = block.order(count, self.micro_batches, index);
            if merged != stage.merged || order.is_empty() {
                merged.write(self.micro_batches, order);
                stage.merged = merged;
            }
            stage.least_wait_ns = stage.least_waits(block.patience[index]);
            (stage.longest_left_ns, stage.shortest_used_ns) = ([0; 2], [u64::MAX; 2]);
            (stage.arrived, stage.ran) = ([0; LANES], [0; LANES]);
            (stage.position, stage.weights, stage.whole) = (0, 0, 0);
            (stage.idle_ns, stage.free_ns, stage.waits_for) = (0, 0, NO_LANE);
            self.ready.push(index);
        }
        self.stages[0].arrived[0] = self.micro_batches;
        self.arrival_ns[..self.micro_batches].fill(0);
    }

    /// Works through a stage's order up to the first pass that has not arrived.
    fn advance(&mut self, at: usize, most_ns: u64, mut ran: impl FnMut(Work, usize, usize)) -> Option<()> {
        let m = self.micro_batches;
        let order = &self.orders[at];
        let chunks = &mut self.backwards[at * 2 * m..(at + 1) * 2 * m];
        let s = &mut self.stages[at];
        s.waits_for = NO_LANE;
        let most_idle_ns = most_ns.saturating_sub(s.work_ns);
        let (mut free, mut weights, mut whole) = (s.free_ns, s.weights, s.whole);
        let mut backwards = s.ran[2] + s.ran[3];
        let first = s.position;
        for position in first.. {
            let s = &mut self.stages[at];
            let Some(&lane) = order.get(position) else {
                self.passes_run += position - first;
                (s.position, s.free_ns) = (position, free);
                chunks[weights..backwards].iter().for_each(|chunk| ran(Work::BackwardWeight, 0, *chunk as usize));
                break;
            };
            let lane = lane as usize % LANES;
            let pass = s.ran[lane];
            if pass >= s.arrived[lane] {
                self.passes_run += position - first;
                (s.position, s.free_ns, s.weights, s.whole) = (position, free, weights, whole);
                s.waits_for = lane;
                break;
            }
            let arrival = self.arrival_ns[(at * LANES + lane) * m + pass];
            if lane < 2 {
                // Only a W makes room; without one this order does not fit.
                let room = *self.room.get(whole)?;
                while backwards - weights > room {
                    let chunk = chunks[weights] as usize % 2;
                    (free, weights) = (free + s.weight_ns[chunk], weights + 1);
                    ran(Work::BackwardWeight, 0, chunk);
                }
                whole += 1;
            } else {
                whole -= 1;
            }
            while weights < backwards {
                let chunk = chunks[weights] as usize % 2;
                let wait = arrival.saturating_sub(free);
                if wait < s.least_wait_ns[chunk] {
                    s.longest_left_ns[chunk] = s.longest_left_ns[chunk].max(wait);
                    break;
                }
                s.shortest_used_ns[chunk] = s.shortest_used_ns[chunk].min(wait);
                (free, weights) = (free + s.weight_ns[chunk], weights + 1);
                ran(Work::BackwardWeight, 0, chunk);
            }
            if arrival > free {
                // What a stage waits before its first operation is no part of its time.
                s.idle_ns += if position > 0 { arrival - free } else { 0 };
                if s.idle_ns > most_idle_ns {
                    return None;
                }
                free = arrival;
            }
            free += s.duration_ns[lane];
            s.ran[lane] = pass + 1;
            if lane < 2 {
                ran(Work::Forward, pass, CHUNK[lane]);
            } else {
                chunks[backwards] = CHUNK[lane] as u8;
                backwards += 1;
                ran(Work::BackwardInput, pass, CHUNK[lane]);
            }
            let output = s.output[lane];
            if let Some(to) = self.stages.get_mut(output.stage) {
                to.arrived[output.lane] = pass + 1;
                self.arrival_ns[(output.stage * LANES + output.lane) * m + pass] = free + output.message_ns;
                if to.waits_for == output.lane {
                    to.waits_for = NO_LANE;
                    self.ready.push(output.stage);
                }
            }
        }
        Some(())
    }
}

impl Stage {
    fn least_waits(&self, patience: f64) -> [u64; 2] {
        self.weight_ns.map(|w| ((patience * w as f64).ceil() as u64).max(1))
    }
}

/// For a stage that may hold `limit` passes: by the passes held whole, how many W may wait while another forward begins.
fn room(limit: f64, weight_share: f64, most: usize) -> Vec<usize> {
    (0..=most)
        .map(|whole| limit + 1e-9 - 1.0 - whole as f64)
        .take_while(|left| *left >= 0.0)
        .map(|left| if weight_share > 0.0 { (left / weight_share) as usize } else { usize::MAX })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::schedules::vee_pattern::any_pattern as pattern;
    use crate::pipeline::{Schedule, ScheduleName, StageTimes, Times, activations, simulate};
    use crate::stats::SplitMix;
    use proptest::prelude::*;

    fn times(stages: usize, send_recv_ns: u64, random: &mut SplitMix) -> Times {
        let mut ns = || 20 + random.below(80) as u64;
        let stage = (0..stages).map(|_| StageTimes::new(ns(), ns(), ns())).collect();
        Times { last: StageTimes::new(ns(), ns(), ns()), ..Times::new(stage, send_recv_ns) }
    }

    fn spec(micro_batches: usize, times: &Times) -> ScheduleSpec<'_> {
        let (name, stages) = (ScheduleName::ZbV, times.stage.len());
        ScheduleSpec { name, stages, micro_batches, chunks: None, memory_limit: None, weight_share: 0.4, times }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What a run says is what the simulator says of its lists, and they keep the limit.
        #[test]
        fn a_run_agrees_with_the_simulator(
            stages in 1usize..7, m in 1usize..16, message in 0u64..30, limit in 1.0f64..8.0, seed in any::<u64>()
        ) {
            let mut random = SplitMix(seed);
            let times = times(stages, message, &mut random);
            let spec = spec(m, &times);
            let block = pattern(stages, &mut random);
            let mut filler = Filler::new(&spec, m, limit);
            let Some(score) = filler.run(&block, u64::MAX) else { return Ok(()) };
            prop_assert_eq!(filler.run(&block, score.span_ns), Some(score), "a bound that holds changes nothing");
            if score.span_ns > filler.work_ns() {
                prop_assert_eq!(filler.run(&block, score.span_ns - 1), None);
            }
            let lists = filler.lists(&block).unwrap();
            let schedule = Schedule::from_lists(&spec, 2, |stage, list| list.extend_from_slice(&lists[stage]));
            for stage in 0..stages {
                prop_assert!(activations::peak(&schedule, stage, spec.weight_share) <= limit + 1e-9);
            }
            let timeline = simulate(schedule, times.clone()).unwrap();
            prop_assert_eq!(timeline.iteration_ns, score.span_ns);
        }

        /// A pattern that is said to run alike does.
        #[test]
        fn patterns_alike_score_alike(stages in 1usize..6, m in 1usize..12, seed in any::<u64>()) {
            let mut random = SplitMix(seed);
            let times = times(stages, 5, &mut random);
            let mut filler = Filler::new(&spec(m, &times), m, stages as f64 + 1.0);
            let block = pattern(stages, &mut random);
            let Some(score) = filler.run(&block, u64::MAX) else { return Ok(()) };
            let decisions = filler.decisions();
            prop_assert!(filler.runs_alike(&block, &decisions));
            for _ in 0..30 {
                let mut other = block.clone();
                match random.below(2) {
                    0 => other.patience[random.below(stages)] += 0.3 * random.symmetric(),
                    _ => other.pace[random.below(LANES)] += 0.05 * random.symmetric(),
                }
                if filler.runs_alike(&other, &decisions) {
                    prop_assert_eq!(filler.run(&other, u64::MAX), Some(score));
                }
            }
        }
    }
}
