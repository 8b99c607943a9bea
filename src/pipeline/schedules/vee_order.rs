//! An order for two chunks a stage in V shape (F0 down, F1 up, B1 down, B0 up), and W put into what waits remain.
//!
//! Used by [`super::zb_v`], which searches over [`PassPattern`]s.

use crate::pipeline::schedule::{ScheduleSpec, StageOperation, Work};
use std::collections::VecDeque;

/// Lanes of a stage: F0, F1, B1, B0.
pub const LANES: usize = 4;
const NEVER: u64 = u64::MAX;

/// Where each pass of the first micro-batch would stand, in periods of a stage's two chunks' F+B+W; the passes of the
/// others follow a period apart. Only the order that results is used.
#[derive(Debug, Clone, PartialEq)]
pub struct PassPattern {
    /// From stage to stage, by lane.
    pub pace: [f64; LANES],
    /// At the three turns: F0→F1, F1→B1, B1→B0.
    pub turn: [f64; 3],
    /// Forwards of chunk 0 drawn to the front on the first stage, beyond those that stand there.
    pub early: f64,
    /// How fast their number falls along the stages; 1 reaches none at the last.
    pub early_fall: f64,
    /// Part of a W that must fit into a wait for it to be started there, by stage.
    pub patience: Vec<f64>,
}

impl PassPattern {
    /// The lanes of every stage merged by position.
    fn lanes(&self, stages: usize, micro_batches: usize, stage: usize, order: &mut Vec<(u8, u32)>) {
        let (far, d, m) = ((stages - 1) as f64, stage as f64, micro_batches);
        let [f0, f1, b1, b0] = self.pace;
        let turn_f1 = far * f0 + self.turn[0];
        let turn_b1 = turn_f1 + far * f1 + self.turn[1];
        let turn_b0 = turn_b1 + far * b1 + self.turn[2];
        let begin = [d * f0, turn_f1 + (far - d) * f1, turn_b1 + d * b1, turn_b0 + (far - d) * b0];
        let mut next = [0usize; LANES];
        order.clear();
        // F0 up to the first of another lane, and some more.
        let first_other = begin[1..].iter().copied().fold(f64::INFINITY, f64::min);
        let standing = (first_other - begin[0]).max(0.0).ceil();
        let fall = if far > 0.0 { 1.0 - d / far * self.early_fall } else { 1.0 };
        let front = (standing + (self.early * fall).round().max(0.0)).min(m as f64) as usize;
        order.extend((0..front).map(|k| (0, k as u32)));
        next[0] = front;
        while next != [m; LANES] {
            let at = |lane: usize| if next[lane] < m { begin[lane] + next[lane] as f64 } else { f64::INFINITY };
            let lane = (1..LANES).fold(0, |best, lane| if at(lane) < at(best) { lane } else { best });
            order.push((lane as u8, next[lane] as u32));
            next[lane] += 1;
        }
    }
}

/// Runs candidates; keeps its memory between them.
pub struct Filler<'a> {
    spec: &'a ScheduleSpec<'a>,
    /// How many of them; a search looks at fewer than the schedule has.
    micro_batches: usize,
    /// The most a stage may hold, in chunk passes.
    limit: f64,
    stage: Vec<Stage>,
    /// A run in which a stage waits longer is given up.
    most_idle: u64,
    ready: Vec<usize>,
}

#[derive(Default)]
struct Stage {
    order: Vec<(u8, u32)>,
    position: usize,
    list: Vec<StageOperation>,
    arrival: [Vec<u64>; LANES],
    /// Stands still until this pass arrives.
    waits_for: Option<(u8, u32)>,
    /// B that have run and whose W have not.
    pending: VecDeque<StageOperation>,
    whole: usize,
    begun: bool,
    idle: u64,
    free: u64,
    /// Of a lane's pass, and of the W of each chunk.
    duration: [u64; LANES],
    weights: [u64; 2],
}

impl<'a> Filler<'a> {
    pub fn new(spec: &'a ScheduleSpec<'a>, micro_batches: usize, limit: f64) -> Self {
        let layout = spec.layout(2);
        let stage = (0..spec.stages)
            .map(|stage| {
                let [down, up] = [0, 1].map(|chunk| layout.cell_times(spec.times, stage, chunk));
                Stage {
                    duration: [down.forward_ns, up.forward_ns, up.backward_input_ns, down.backward_input_ns],
                    weights: [down.backward_weight_ns, up.backward_weight_ns],
                    ..Stage::default()
                }
            })
            .collect();
        Filler { spec, micro_batches, limit: 2.0 * limit, stage, most_idle: u64::MAX, ready: Vec::new() }
    }

    pub const fn micro_batches(&self) -> usize {
        self.micro_batches
    }

    /// How long the stages wait between their first and their last operation: the longest, and all together. `None` if the
    /// order cannot run within the limit, or if a stage waits longer than `most`.
    pub fn run(&mut self, block: &PassPattern, most: u64) -> Option<(u64, u64)> {
        self.most_idle = most;
        self.reset(block);
        while let Some(at) = self.ready.pop() {
            self.advance(at, block.patience[at])?;
        }
        let whole = 6 * self.micro_batches;
        let idle = || self.stage.iter().map(|s| s.idle);
        self.stage
            .iter()
            .all(|s| s.list.len() == whole)
            .then(|| (idle().max().unwrap_or(0), idle().fold(0, u64::saturating_add)))
    }

    /// The list of a stage as the last run left it.
    pub fn list(&self, stage: usize) -> &[StageOperation] {
        &self.stage[stage].list
    }

    fn reset(&mut self, block: &PassPattern) {
        self.ready.clear();
        for (index, stage) in self.stage.iter_mut().enumerate() {
            block.lanes(self.spec.stages, self.micro_batches, index, &mut stage.order);
            stage.position = 0;
            stage.list.clear();
            for arrival in &mut stage.arrival {
                arrival.clear();
                arrival.resize(self.micro_batches, NEVER);
            }
            stage.pending.clear();
            (stage.whole, stage.begun, stage.idle, stage.free, stage.waits_for) = (0, false, 0, 0, None);
            self.ready.push(index);
        }
        self.stage[0].arrival[0].fill(0);
    }

    /// Works through a stage's order up to the first pass that has not arrived.
    fn advance(&mut self, at: usize, patience: f64) -> Option<()> {
        let weight_share = self.spec.weight_share;
        loop {
            let s = &mut self.stage[at];
            let Some(&(lane, k)) = s.order.get(s.position) else {
                while s.weight() {}
                return Some(());
            };
            let arrival = s.arrival[lane as usize][k as usize];
            if arrival == NEVER {
                s.waits_for = Some((lane, k));
                return Some(());
            }
            // Only a W makes room; without one this order does not fit.
            while lane < 2 && s.whole as f64 + s.pending.len() as f64 * weight_share + 1.0 > self.limit + 1e-9 {
                s.weight().then_some(())?;
            }
            while let Some(next) = s.pending.front() {
                let wait = arrival.saturating_sub(s.free);
                if wait == 0 || (wait as f64) < patience * s.weights[next.chunk as usize] as f64 {
                    break;
                }
                s.weight();
            }
            let end = s.start(arrival, lane, k);
            if s.idle > self.most_idle {
                return None;
            }
            self.deliver(at, lane, k, end);
        }
    }

    /// Down the stages in even lanes, up in odd ones; the ends turn round without a message.
    fn deliver(&mut self, at: usize, lane: u8, k: u32, end: u64) {
        let last = self.spec.stages - 1;
        let message = end + self.spec.times.send_recv_ns;
        let (to, lane, arrives) = match lane {
            0 | 2 if at < last => (at + 1, lane, message),
            1 | 3 if at > 0 => (at - 1, lane, message),
            3 => return,
            turn => (at, turn + 1, end),
        };
        let s = &mut self.stage[to];
        s.arrival[lane as usize][k as usize] = arrives;
        if s.waits_for == Some((lane, k)) {
            s.waits_for = None;
            self.ready.push(to);
        }
    }
}

impl Stage {
    /// Runs the W that waits longest, if one does.
    fn weight(&mut self) -> bool {
        let Some(operation) = self.pending.pop_front() else { return false };
        self.free += self.weights[operation.chunk as usize];
        self.list.push(operation);
        true
    }

    fn start(&mut self, arrival: u64, lane: u8, k: u32) -> u64 {
        let chunk = usize::from(lane == 1 || lane == 2);
        let now = self.free.max(arrival);
        self.idle += if self.begun { now - self.free } else { 0 };
        self.begun = true;
        self.free = now + self.duration[lane as usize];
        self.position += 1;
        if lane < 2 {
            self.whole += 1;
            self.list.push(StageOperation::new(Work::Forward, k as usize, chunk));
        } else {
            self.whole -= 1;
            self.list.push(StageOperation::new(Work::BackwardInput, k as usize, chunk));
            self.pending.push_back(StageOperation::new(Work::BackwardWeight, k as usize, chunk));
        }
        self.free
    }
}
