//! From a job and a cost model to a plan: stage times, timeline, bubbles with their free memory, side work in them, and
//! what other schedules would have won instead.

use super::assemble;
use super::attempt::{Candidate, PlanContext};
use super::record::PlanRecord;
use crate::Result;
use crate::pipeline::Timeline;
use crate::pipeline::job::Job;
use crate::pipeline::memory::Memory;
use crate::records::{CostModel, Measurement};

/// A plan with the timeline it was made on.
#[derive(Debug, Clone)]
pub struct FillPlan {
    pub timeline: Timeline,
    pub weight_share: f64,
    pub memory: Memory,
    pub record: PlanRecord,
}

/// `measurements` are those the cost model was made from, for side models named by what was measured; may be empty.
pub fn plan(job: &Job, model: &CostModel, measurements: &[Measurement]) -> Result<FillPlan> {
    let (context, notes) = PlanContext::new(job, model, measurements)?;
    let chosen = context.attempt(job.parallel.schedule, job.parallel.chunks.map(|c| c as usize))?;
    Ok(finish(&context, chosen, notes))
}

/// The plan that was chosen, beside what other schedules would have won.
pub(super) fn finish(context: &PlanContext, chosen: Candidate, mut notes: Vec<String>) -> FillPlan {
    if context.fits(&chosen) == Some(false) {
        notes.push(
            "by this estimate the job itself does not fit the memory on every stage: nothing is put where none is free"
                .into(),
        );
    }
    let others = context.others(&chosen.timeline.schedule);
    let record = assemble::record(context, &chosen, &others, notes);
    let Candidate { timeline, memory, .. } = chosen;
    FillPlan { timeline, weight_share: context.weight_share, memory, record }
}
