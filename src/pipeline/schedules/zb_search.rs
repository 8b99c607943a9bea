//! ZB-1p and ZB-2p (Qi et al., arXiv 2401.10241, §3): the order of F, B and W is searched for under a limit on
//! activations, p or 2p micro-batches, for the times at hand.
//!
//! A candidate is made by list scheduling: the stages run side by side in simulated time, and a stage that is free takes
//! a B that has arrived, else an F that has arrived and fits the memory, else a W if the wait is worth it. What "worth
//! it" means and how far a stage runs ahead are the policy; the best of many policies wins, the handcrafted schedules
//! among them: ZB-1p is never worse than ZB-H1, ZB-2p never worse than ZB-1p or ZB-H2.

use super::zb_h;
use crate::Result;
use crate::pipeline::activations;
use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};
use crate::pipeline::simulate;
use crate::units::counted;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Operations scheduled over the whole search; more candidates for small pipelines, at least a handful for large ones.
const BUDGET: usize = 6_000_000;

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
pub fn build(spec: &ScheduleSpec, multiple: usize) -> Result<Schedule> {
    let limit = spec.memory_limit.unwrap_or((multiple * spec.stages) as f64);
    let mut best: Option<(u64, Schedule)> = None;
    let mut consider = |schedule: Schedule| -> Result<()> {
        let fits = (0..spec.stages).all(|s| activations::peak(&schedule, s, spec.weight_share) <= limit + 1e-9);
        if fits {
            let timeline = simulate(schedule, spec.times.clone())?;
            if best.as_ref().is_none_or(|(span, _)| timeline.iteration_ns < *span) {
                best = Some((timeline.iteration_ns, timeline.schedule));
            }
        }
        Ok(())
    };
    for depth in 1..=multiple {
        consider(zb_h::build(spec, depth))?;
    }
    let operations = 3 * spec.stages * spec.micro_batches;
    // More room must not make it worse: what fits p micro-batches is tried under 2p too.
    let narrow = ((spec.stages as f64) < limit).then_some(spec.stages as f64);
    for policy in policies().into_iter().take((BUDGET / operations).max(6)) {
        for limit in narrow.into_iter().chain([limit]) {
            if let Some(lists) = Greedy::new(spec, limit, policy).run() {
                consider(Schedule::from_lists(spec, 1, |s, list| list.extend_from_slice(&lists[s])))?;
            }
        }
    }
    best.map(|(_, schedule)| schedule).ok_or_else(|| {
        crate::Error::input(
            format!("no order of operations keeps {} within {}", spec.name.text(), counted(limit, "micro-batch")),
            "raise the memory limit to at least 1",
        )
    })
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

/// One run of list scheduling.
struct Greedy<'a> {
    spec: &'a ScheduleSpec<'a>,
    limit: f64,
    policy: Policy,
    stage: Vec<Stage>,
    lists: Vec<Vec<StageOperation>>,
    events: BinaryHeap<Reverse<(u64, usize)>>,
}

struct Stage {
    free: u64,
    /// Next micro-batch of each kind of work.
    next: [usize; 3],
    /// When the input of each forward and each B is there.
    arrival: [Vec<u64>; 2],
    window: usize,
    duration: [u64; 3],
}

const NEVER: u64 = u64::MAX;

impl<'a> Greedy<'a> {
    fn new(spec: &'a ScheduleSpec<'a>, limit: f64, policy: Policy) -> Self {
        let (p, m) = (spec.stages, spec.micro_batches);
        let layout = spec.layout(1);
        let times: Vec<_> = (0..p).map(|i| layout.cell_times(spec.times, i, 0)).collect();
        // The way from each stage to the last and back.
        let mut way = vec![0.0; p + 1];
        for i in (0..p).rev() {
            way[i] =
                way[i + 1] + (times[i].forward_ns + times[i].backward_input_ns + 2 * spec.times.send_recv_ns) as f64;
        }
        let stage = (0..p)
            .map(|i| {
                let (t, behind) = (times[i], way[i + 1]);
                let cover = policy.ahead * behind / (t.forward_ns as f64).max(1.0);
                Stage {
                    free: 0,
                    next: [0; 3],
                    arrival: [vec![if i == 0 { 0 } else { NEVER }; m], vec![NEVER; m]],
                    window: (cover.min(1e9) as usize + policy.extra).max(1),
                    duration: [t.forward_ns, t.backward_input_ns, t.backward_weight_ns],
                }
            })
            .collect();
        let events = (0..p).map(|i| Reverse((0, i))).collect();
        Greedy { spec, limit, policy, stage, lists: vec![Vec::with_capacity(3 * m); p], events }
    }

    fn run(mut self) -> Option<Vec<Vec<StageOperation>>> {
        while let Some(Reverse((now, at))) = self.events.pop() {
            if self.stage[at].free <= now {
                self.decide(at, now);
            }
        }
        let whole = 3 * self.spec.micro_batches;
        self.lists.iter().all(|l| l.len() == whole).then_some(self.lists)
    }

    fn decide(&mut self, at: usize, now: u64) {
        let m = self.spec.micro_batches;
        let s = &self.stage[at];
        let [f, b, w] = s.next;
        let ready = |kind: usize| s.arrival[kind].get(s.next[kind]).copied().unwrap_or(NEVER);
        let live = (f - b) as f64 + (b - w) as f64 * self.spec.weight_share;
        let may_forward = f < m && live + 1.0 <= self.limit + 1e-9 && (f - b < s.window || (f == b));
        let forward = if may_forward { ready(0) } else { NEVER };
        let backward = ready(1);
        let pending = w < b;
        let prefer_forward = self.policy.forward_first && forward <= now && (f - b) < s.window.div_ceil(2);
        if backward <= now && !prefer_forward {
            self.start(at, now, Work::BackwardInput);
        } else if forward <= now {
            self.start(at, now, Work::Forward);
        } else if backward <= now {
            self.start(at, now, Work::BackwardInput);
        } else {
            let wait = forward.min(backward).saturating_sub(now);
            let worth = wait as f64 >= self.policy.patience * s.duration[2] as f64;
            if pending && worth {
                self.start(at, now, Work::BackwardWeight);
            } else if forward.min(backward) != NEVER {
                self.events.push(Reverse((forward.min(backward), at)));
            } else if pending {
                self.start(at, now, Work::BackwardWeight);
            }
        }
    }

    fn start(&mut self, at: usize, now: u64, work: Work) {
        let s = &mut self.stage[at];
        let kind = work as usize;
        let micro_batch = s.next[kind];
        s.next[kind] += 1;
        s.free = now + s.duration[kind];
        let free = s.free;
        self.lists[at].push(StageOperation::new(work, micro_batch, 0));
        self.events.push(Reverse((free, at)));
        let arrives = free + self.spec.times.send_recv_ns;
        match work {
            Work::Forward if at + 1 < self.spec.stages => self.deliver(at + 1, 0, micro_batch, arrives),
            Work::Forward => self.deliver(at, 1, micro_batch, free),
            Work::BackwardInput if at > 0 => self.deliver(at - 1, 1, micro_batch, arrives),
            _ => {}
        }
    }

    fn deliver(&mut self, to: usize, kind: usize, micro_batch: usize, arrives: u64) {
        let s = &mut self.stage[to];
        s.arrival[kind][micro_batch] = arrives;
        self.events.push(Reverse((arrives.max(s.free), to)));
    }
}
