//! When every operation runs: each stage works through its list; an operation starts when its stage is free and its
//! input from another stage has ended and arrived. Event driven: a stage runs until it must wait, and is taken up
//! again by the operation it waits for; time and memory are linear in the operations.

use super::schedule::{DURATIONS, Schedule, StageOperation, Work};
use super::times::{StageTimes, Times};
use crate::Result;

const PENDING: u64 = u64::MAX;
const NOTHING: u32 = u32::MAX;

/// A schedule with the time at which each of its operations runs, in whole ns from the start of the first one.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// The schedule that was run.
    pub schedule: Schedule,
    /// The stage and message times it was run with.
    pub times: Times,
    /// The start of each operation in ns, in the order of [`Schedule::operations`].
    pub start_ns: Vec<u64>,
    /// The durations in ns, by cell and [`StageOperation::duration`].
    pub durations: Vec<[u64; DURATIONS]>,
    /// Time of the iteration in ns: the last end of any stage, or for a windowed schedule the longest span of one
    /// stage.
    pub iteration_ns: u64,
}

/// Which way a result travels: forwards, or backwards.
const WAYS: usize = 2;

/// Where a cell's results come from and go to, by way, looked up once: this is the inner loop.
#[derive(Clone, Copy)]
struct Links {
    /// Slot of micro-batch 0 of the cell that must have run before; `NOWHERE` at a chain's end.
    input: [usize; WAYS],
    message_ns: [u64; WAYS],
    /// Slot of this cell's own micro-batch 0.
    output: [usize; WAYS],
    /// The stage that waits for it.
    consumer: [u32; WAYS],
}

const NOWHERE: usize = usize::MAX;

struct Run<'a> {
    schedule: &'a Schedule,
    durations: &'a [[u64; DURATIONS]],
    links: Vec<Links>,
    /// End of F and of the backward that the stage before waits for, by slot (cell, way, micro-batch); `PENDING` until it has run.
    ends: Vec<u64>,
    /// The slot each stage waits for.
    waiting: Vec<u32>,
    position: Vec<usize>,
    free: Vec<u64>,
    start_ns: Vec<u64>,
}

/// Runs the schedule: finds when each operation starts. Fails only if the lists wait for each other in a circle.
pub fn simulate(schedule: Schedule, times: Times) -> Result<Timeline> {
    let durations = schedule.durations(&times);
    let mut run = Run::new(&schedule, &durations, &times);
    let mut ready: Vec<u32> = (0..schedule.stages as u32).rev().collect();
    while let Some(stage) = ready.pop() {
        run.advance(stage as usize, &mut ready);
    }
    if let Some(stage) = (0..schedule.stages).find(|&s| run.position[s] != schedule.range(s).end) {
        return Err(schedule.never_starts(stage, run.position[stage]));
    }
    let start_ns = run.start_ns;
    let mut timeline = Timeline { schedule, times, start_ns, durations, iteration_ns: 0 };
    timeline.iteration_ns = timeline.longest_window();
    Ok(timeline)
}

impl<'a> Run<'a> {
    fn new(schedule: &'a Schedule, durations: &'a [[u64; DURATIONS]], times: &Times) -> Self {
        Run {
            schedule,
            durations,
            links: links(schedule, times.send_recv_ns),
            ends: vec![PENDING; 2 * schedule.cells() * schedule.micro_batches],
            waiting: vec![NOTHING; schedule.stages],
            position: (0..schedule.stages).map(|s| schedule.range(s).start).collect(),
            free: vec![0; schedule.stages],
            start_ns: vec![0; schedule.operations().len()],
        }
    }

    /// When the operation's input is there: at once if it needs none; `Err` with the slot it waits for.
    fn arrival(&self, cell: usize, operation: StageOperation) -> std::result::Result<u64, usize> {
        let Some(way) = way(operation.work) else { return Ok(0) };
        let links = &self.links[cell];
        // The chain's last cell turns round: its own forward stands before the backward in the same list.
        if links.input[way] == NOWHERE {
            return Ok(0);
        }
        let slot = links.input[way] + operation.micro_batch as usize;
        match self.ends[slot] {
            PENDING => Err(slot),
            end => Ok(end + links.message_ns[way]),
        }
    }

    /// Runs a stage's list up to the first operation whose input is not there.
    fn advance(&mut self, stage: usize, ready: &mut Vec<u32>) {
        let (operations, end) = (self.schedule.operations(), self.schedule.range(stage).end);
        let mut free = self.free[stage];
        let mut position = self.position[stage];
        self.waiting[stage] = NOTHING;
        while position < end {
            let operation = operations[position];
            let cell = self.schedule.cell(stage, operation.chunk as usize);
            let ran = if operation.paired {
                self.pair(stage, position, free, ready)
            } else {
                self.arrival(cell, operation).map(|arrival| {
                    let start = free.max(arrival);
                    self.start_ns[position] = start;
                    let end = start + self.durations[cell][operation.duration()];
                    self.publish(cell, operation, end, ready);
                    end
                })
            };
            match ran {
                Ok(end) => free = end,
                Err(slot) => {
                    self.waiting[stage] = slot as u32;
                    break;
                }
            }
            position += if operation.paired { 2 } else { 1 };
        }
        self.free[stage] = free;
        self.position[stage] = position;
    }

    /// A forward and the backward behind it, side by side: drawn one after the other, their results there at the end.
    fn pair(
        &mut self,
        stage: usize,
        position: usize,
        free: u64,
        ready: &mut Vec<u32>,
    ) -> std::result::Result<u64, usize> {
        let halves = [self.schedule.operations()[position], self.schedule.operations()[position + 1]];
        let cells = halves.map(|o| self.schedule.cell(stage, o.chunk as usize));
        let start = free.max(self.arrival(cells[0], halves[0])?).max(self.arrival(cells[1], halves[1])?);
        let middle = start + self.durations[cells[0]][halves[0].duration()];
        let end = middle + self.durations[cells[1]][halves[1].duration()];
        (self.start_ns[position], self.start_ns[position + 1]) = (start, middle);
        self.publish(cells[0], halves[0], end, ready);
        self.publish(cells[1], halves[1], end, ready);
        Ok(end)
    }

    /// Notes the end of an operation and wakes the stage that waits for exactly this one.
    fn publish(&mut self, cell: usize, operation: StageOperation, end: u64, ready: &mut Vec<u32>) {
        let Some(way) = way(operation.work) else { return };
        let links = &self.links[cell];
        let slot = links.output[way] + operation.micro_batch as usize;
        self.ends[slot] = end;
        let stage = links.consumer[way];
        if stage != NOTHING && self.waiting[stage as usize] == slot as u32 {
            self.waiting[stage as usize] = NOTHING;
            ready.push(stage);
        }
    }
}

/// W stays where it is.
const fn way(work: Work) -> Option<usize> {
    match work {
        Work::BackwardWeight => None,
        Work::Forward => Some(0),
        Work::BackwardInput | Work::Backward => Some(1),
    }
}

fn links(schedule: &Schedule, send_recv_ns: u64) -> Vec<Links> {
    let slot = |stage, chunk, way| (WAYS * schedule.cell(stage, chunk) + way) * schedule.micro_batches;
    let message = |stage: usize, place: Option<(usize, usize)>| match place {
        Some((other, _)) if other != stage => send_recv_ns,
        _ => 0,
    };
    (0..schedule.cells())
        .map(|cell| {
            let (stage, chunk) = (cell / schedule.chunks, cell % schedule.chunks);
            let sources = [schedule.previous(stage, chunk), schedule.next(stage, chunk)];
            let input = |way: usize| sources[way].map_or(NOWHERE, |(s, c)| slot(s, c, way));
            let consumer = |way: usize| sources[1 - way].map_or(NOTHING, |(s, _)| s as u32);
            Links {
                input: [input(0), input(1)],
                message_ns: sources.map(|source| message(stage, source)),
                output: [slot(stage, chunk, 0), slot(stage, chunk, 1)],
                consumer: [consumer(0), consumer(1)],
            }
        })
        .collect()
}

impl Timeline {
    /// How long an operation runs on this stage, in ns; for half of an overlapped pair its part of the pair's time.
    pub fn duration_ns(&self, stage: usize, operation: StageOperation) -> u64 {
        self.durations[self.schedule.cell(stage, operation.chunk as usize)][operation.duration()]
    }

    /// The times of one micro-batch on a stage, all chunks together; of a two-way pipeline the mean of the device's two
    /// stages.
    pub fn stage_times(&self, stage: usize) -> StageTimes {
        let layout = self.schedule.layout;
        let cells = (0..layout.chunks).map(|chunk| layout.cell_times(&self.times, stage, chunk));
        let t = cells.fold(StageTimes::default(), StageTimes::plus);
        let ways = if layout.splits() { 1 } else { layout.chunks as u64 };
        StageTimes::new(t.forward_ns / ways, t.backward_input_ns / ways, t.backward_weight_ns / ways)
    }

    /// A stage's operations in order, each with its start and its end in ns.
    pub fn operations(&self, stage: usize) -> impl Iterator<Item = (StageOperation, u64, u64)> + '_ {
        let range = self.schedule.range(stage);
        self.schedule
            .list(stage)
            .iter()
            .zip(&self.start_ns[range])
            .map(move |(&operation, &start)| (operation, start, start + self.duration_ns(stage, operation)))
    }

    fn first_start(&self, stage: usize) -> u64 {
        self.start_ns.get(self.schedule.range(stage).start).copied().unwrap_or(0)
    }

    fn last_end(&self, stage: usize) -> u64 {
        let range = self.schedule.range(stage);
        let last = self.schedule.list(stage).last().zip(self.start_ns[range].last());
        last.map_or(0, |(&operation, start)| start + self.duration_ns(stage, operation))
    }

    /// Last end, counted from the pipeline's beginning or (windowed schedules) from the stage's own first start.
    fn longest_window(&self) -> u64 {
        (0..self.schedule.stages).map(|s| self.last_end(s) - self.window_start_ns(s)).max().unwrap_or(0)
    }

    /// When the stage's iteration begins, in ns; it ends `iteration_ns` later.
    pub fn window_start_ns(&self, stage: usize) -> u64 {
        if self.schedule.name.windowed() { self.first_start(stage) } else { 0 }
    }

    /// Time in which the stage computes, in ns.
    pub fn busy_ns(&self, stage: usize) -> u64 {
        if self.schedule.name.overlaps() || !self.schedule.layout.splits() {
            return self.operations(stage).map(|(_, start, end)| end - start).sum();
        }
        let cells = &self.durations[self.schedule.cell(stage, 0)..self.schedule.cell(stage + 1, 0)];
        let pass: u64 = cells.iter().map(|d| d[Work::Forward as usize] + d[Work::Backward as usize]).sum();
        pass * self.schedule.passes() as u64
    }

    /// The share of the iteration in which stages compute nothing: 1 − work of all stages / (stages · iteration); with
    /// even stages that is (iteration − m(F+B+W)) / iteration.
    pub fn bubble_ratio(&self) -> f64 {
        let work: u128 = (0..self.schedule.stages).map(|s| u128::from(self.busy_ns(s))).sum();
        let whole = self.schedule.stages as u128 * u128::from(self.iteration_ns);
        if whole == 0 { 0.0 } else { (whole - work) as f64 / whole as f64 }
    }
}
