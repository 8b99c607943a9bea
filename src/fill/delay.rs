//! What the iteration becomes when single operations take longer: the timeline run once more, each operation with what side
//! work costs it. A delay on one stage may vanish in the next stage's wait or travel through all of them; this finds out.
//!
//! The rules are those of [`crate::pipeline::simulate()`]; only the durations differ from operation to operation here.

use crate::pipeline::{StageOperation, Timeline, Work};

const PENDING: u64 = u64::MAX;

struct Run<'a> {
    timeline: &'a Timeline,
    extra_ns: &'a [u64],
    /// End of F and of the backward the stage before waits for, by cell and micro-batch; `PENDING` until it has run.
    ends: Vec<[u64; 2]>,
    position: Vec<usize>,
    first_start: Vec<Option<u64>>,
    free: Vec<u64>,
}

/// Length of the pipeline's iteration in ns with `extra_ns` added to each operation (in the order of the schedule's
/// operations) and `tail_ns` to the end of each stage; missing entries count as 0.
pub fn iteration_ns(timeline: &Timeline, extra_ns: &[u64], tail_ns: &[u64]) -> u64 {
    let schedule = &timeline.schedule;
    let mut run = Run {
        timeline,
        extra_ns,
        ends: vec![[PENDING; 2]; schedule.cells() * schedule.micro_batches],
        position: (0..schedule.stages).map(|s| schedule.range(s).start).collect(),
        first_start: vec![None; schedule.stages],
        free: vec![0; schedule.stages],
    };
    // Up the stages and down again: forwards travel one way, backwards the other.
    let stages: Vec<usize> = (0..schedule.stages).chain((0..schedule.stages).rev()).collect();
    while stages.iter().fold(false, |moved, &stage| run.advance(stage) | moved) {}
    let begin = |stage: usize| if schedule.name.windowed() { run.first_start[stage].unwrap_or(0) } else { 0 };
    let span = |stage: usize| run.free[stage] + tail_ns.get(stage).copied().unwrap_or(0) - begin(stage);
    let longest = (0..schedule.stages).map(span).max().unwrap_or(0);
    longest.max(timeline.iteration_ns)
}

impl Run<'_> {
    /// Runs a stage's list up to the first operation whose input is not there; whether anything ran.
    fn advance(&mut self, stage: usize) -> bool {
        let schedule = &self.timeline.schedule;
        let (before, end) = (self.position[stage], schedule.range(stage).end);
        while self.position[stage] < end {
            let index = self.position[stage];
            let operation = schedule.operations()[index];
            let Some(mut start) = self.arrival(stage, operation) else { break };
            let mut ended = 0;
            // A pair begins when the inputs of both are there, and its results are there when both have ended.
            if operation.paired && operation.work == Work::Forward {
                let second = schedule.operations()[index + 1];
                let Some(arrived) = self.arrival(stage, second) else { break };
                start = start.max(arrived);
                ended = self.takes(stage, index + 1, second);
            }
            start = start.max(self.free[stage]);
            self.first_start[stage].get_or_insert(start);
            let free = start + self.takes(stage, index, operation);
            ended += free;
            self.free[stage] = free;
            if operation.work != Work::BackwardWeight {
                let slot = self.slot(stage, operation.chunk as usize, operation.micro_batch);
                self.ends[slot][usize::from(operation.work != Work::Forward)] = ended;
            }
            self.position[stage] += 1;
        }
        self.position[stage] > before
    }

    /// When an operation's input is there; `None` until then.
    fn arrival(&self, stage: usize, operation: StageOperation) -> Option<u64> {
        let schedule = &self.timeline.schedule;
        let chunk = operation.chunk as usize;
        let (from, backward) = match operation.work {
            Work::BackwardWeight => (None, 0),
            Work::Forward => (schedule.previous(stage, chunk), 0),
            _ => (schedule.next(stage, chunk), 1),
        };
        let Some((other, c)) = from else { return Some(0) };
        let ended = self.ends[self.slot(other, c, operation.micro_batch)][backward];
        (ended != PENDING).then(|| ended + if other == stage { 0 } else { self.timeline.times.send_recv_ns })
    }

    fn takes(&self, stage: usize, index: usize, operation: StageOperation) -> u64 {
        self.timeline.duration_ns(stage, operation) + self.extra_ns.get(index).copied().unwrap_or(0)
    }

    fn slot(&self, stage: usize, chunk: usize, micro_batch: u32) -> usize {
        let schedule = &self.timeline.schedule;
        schedule.cell(stage, chunk) * schedule.micro_batches + micro_batch as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Schedule, ScheduleName, ScheduleSpec, StageTimes, Times, simulate};

    fn timeline(name: ScheduleName, p: usize, m: usize, times: &Times) -> Timeline {
        let chunks = (name == ScheduleName::Interleaved).then_some(2);
        let spec =
            ScheduleSpec { name, stages: p, micro_batches: m, chunks, memory_limit: None, weight_share: 0.4, times };
        simulate(Schedule::build(&spec).unwrap(), times.clone()).unwrap()
    }

    #[test]
    fn without_delays_it_is_the_simulator() {
        let mut times = Times::even(4, StageTimes::new(30, 25, 20), 3);
        times.stage[3].forward_ns = 47;
        for name in ScheduleName::ALL.into_iter().filter(|n| *n != ScheduleName::ZbV) {
            let timeline = timeline(name, 4, 8, &times);
            assert_eq!(iteration_ns(&timeline, &[], &[]), timeline.iteration_ns, "{name:?}");
        }
    }

    #[test]
    fn a_delay_may_vanish_in_a_wait_or_travel_through_all_stages() {
        let times = Times::even(4, StageTimes::new(300, 300, 300), 0);
        let timeline = timeline(ScheduleName::OneFOneB, 4, 8, &times);
        let with = |stage: usize, nth: usize, ns: u64| {
            let mut extra = vec![0; timeline.schedule.operations().len()];
            extra[timeline.schedule.range(stage).start + nth] = ns;
            iteration_ns(&timeline, &extra, &[]) - timeline.iteration_ns
        };
        assert_eq!(with(0, 0, 70), 70, "everyone waits for the first forward");
        assert_eq!(with(0, 1, 70), 0, "the second waits for nobody, and 1800 lie before the first backward");
        assert_eq!(with(3, 5, 70), 70, "the last stage never waits between its operations");
        assert_eq!(iteration_ns(&timeline, &[], &[9, 0, 0, 0]), timeline.iteration_ns + 9);
        assert_eq!(iteration_ns(&timeline, &[], &[0, 0, 0, 9]), timeline.iteration_ns, "three F+B lie behind it");
    }
}
