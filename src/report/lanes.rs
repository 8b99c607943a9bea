//! What every stage does over an iteration, as spans to draw: the job's own work, side work, and nothing. The
//! terminal's timeline and the page's picture are both drawn from these.

use crate::fill::plan::FillPlan;
use crate::fill::record::{PlanFill, PlanRecord, PlanStage};
use crate::pipeline::{Timeline, Work};

/// What a stage does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Forward of a micro-batch.
    Forward,
    /// To inputs, or whole.
    Backward,
    /// To weights.
    Weights,
    /// Of a measured run: something.
    Compute,
    /// A side model, by its place among the plan's sides.
    Side(usize),
}

/// One part of a lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneSpan {
    /// When it begins, in ns from the start of the iteration.
    pub start_ns: u64,
    /// When it ends, in ns from the start of the iteration.
    pub end_ns: u64,
    /// What is done.
    pub part: Part,
    /// Of the job's own operations.
    pub micro_batch: Option<u32>,
}

/// One lane a stage, of which the spans are made when they are asked for: a long iteration has millions.
pub struct Lanes<'a> {
    timeline: &'a Timeline,
    /// The plan whose side work lies in the lanes too.
    plan: Option<&'a PlanRecord>,
    /// The end of the picture, in ns from the start of the iteration.
    pub end_ns: u64,
}

impl<'a> Lanes<'a> {
    /// The job's own operations as they were simulated.
    pub fn of_timeline(timeline: &'a Timeline) -> Self {
        let stages = 0..timeline.schedule.stages;
        let end_ns = stages.map(|s| timeline.window_start_ns(s) + timeline.iteration_ns).max().unwrap_or(0);
        Lanes { timeline, plan: None, end_ns }
    }

    /// The plan's own timeline, or what was measured, with the side work in it.
    pub fn of_plan(plan: &'a FillPlan) -> Self {
        let FillPlan { timeline, record, .. } = plan;
        let end_ns = match record.measured {
            None => Lanes::of_timeline(timeline).end_ns,
            Some(_) => record.stage.iter().map(|stage| between_bubbles(stage).1).max().unwrap_or(0),
        };
        Lanes { timeline, plan: Some(record), end_ns }
    }

    /// How many spans a stage has, those of no length included.
    pub fn count(&self, stage: usize) -> usize {
        let operations = self.timeline.schedule.range(stage).len();
        self.plan.map_or(operations, |record| {
            let bubbles = &record.stage[stage].bubbles;
            let own = if record.measured.is_some() { bubbles.list().iter().len() + 1 } else { operations };
            own + bubbles.list().runs().len()
        })
    }

    /// The spans of a stage in order of time.
    pub fn spans(&self, stage: usize) -> Vec<LaneSpan> {
        let Some(record) = self.plan else { return own_work(self.timeline, stage) };
        let own = &record.stage[stage];
        let mut lane = match record.measured {
            None => own_work(self.timeline, stage),
            Some(_) => between_bubbles(own).0,
        };
        let span = |fill: PlanFill| {
            let part = Part::Side(record.side.iter().position(|s| s.name == fill.side).unwrap_or(0));
            LaneSpan { start_ns: fill.start_ns, end_ns: fill.end_ns, part, micro_batch: None }
        };
        lane.extend(own.bubbles.fills().map(span));
        lane.sort_by_key(|span| (span.start_ns, span.end_ns));
        lane
    }

    /// For each of `columns` equal pieces of the time, the part that takes most of it, `None` where nothing runs: for
    /// pictures too coarse for single spans.
    pub fn columns(&self, stage: usize, columns: usize) -> Vec<Option<Part>> {
        let width = self.end_ns.max(1) as f64 / columns.max(1) as f64;
        let mut spent: Vec<Vec<(Part, f64)>> = vec![Vec::new(); columns];
        for span in self.spans(stage) {
            let (mut at, stop) = (span.start_ns as f64, span.end_ns as f64);
            let mut index = ((at / width) as usize).min(columns - 1);
            while at < stop {
                let border = if index + 1 == columns { f64::INFINITY } else { (index + 1) as f64 * width };
                let part = stop.min(border) - at;
                match spent[index].iter_mut().find(|(p, _)| *p == span.part) {
                    Some((_, sum)) => *sum += part,
                    None => spent[index].push((span.part, part)),
                }
                at = border;
                index += 1;
            }
        }
        spent.iter().map(|parts| most(parts, width)).collect()
    }
}

/// What takes most of a column, if not idleness; of equals the later of F, B, W.
fn most(parts: &[(Part, f64)], width: f64) -> Option<Part> {
    let idle = width - parts.iter().map(|(_, ns)| ns).sum::<f64>();
    let best = parts.iter().max_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    best.filter(|(_, ns)| *ns > 0.0 && *ns >= idle).map(|(part, _)| *part)
}

/// Of measured bubbles: between them something was computed. Also where the lane ends.
fn between_bubbles(stage: &PlanStage) -> (Vec<LaneSpan>, u64) {
    let whole = stage.busy_ns + stage.bubble_ns;
    let first = stage.bubbles.iter().next().map_or(0, |b| b.start_ns);
    // A stage that begins with work begins where its bubbles and its work together would end.
    let last = stage.bubbles.iter().next_back().map_or(whole, |b| b.end_ns);
    let begin = first.min(last.saturating_sub(whole));
    let (mut at, mut lane) = (begin, Vec::new());
    let compute = |start_ns, end_ns| LaneSpan { start_ns, end_ns, part: Part::Compute, micro_batch: None };
    for b in stage.bubbles.iter() {
        lane.push(compute(at, b.start_ns));
        at = b.end_ns;
    }
    let end = at.max(begin + whole);
    lane.push(compute(at, end));
    lane.retain(|span| span.end_ns > span.start_ns);
    (lane, end)
}

fn own_work(timeline: &Timeline, stage: usize) -> Vec<LaneSpan> {
    timeline
        .operations(stage)
        .map(|(operation, start_ns, end_ns)| LaneSpan {
            start_ns,
            end_ns,
            part: match operation.work {
                Work::Forward => Part::Forward,
                Work::BackwardInput | Work::Backward => Part::Backward,
                Work::BackwardWeight => Part::Weights,
            },
            micro_batch: Some(operation.micro_batch),
        })
        .collect()
}
