//! From a job and a cost model to a plan: stage times, timeline, bubbles with their free memory, side work in them, and
//! what other schedules would have won instead.

use super::assemble;
use super::attempt::{Ground, Tried};
use super::record::PlanRecord;
use crate::Result;
use crate::pipeline::Timeline;
use crate::pipeline::job::Job;
use crate::pipeline::memory::Memory;
use crate::records::{CostModel, Measurement};

/// A plan with the timeline it was made on.
#[derive(Debug, Clone)]
pub struct Plan {
    pub timeline: Timeline,
    pub weight_share: f64,
    pub memory: Memory,
    pub record: PlanRecord,
}

/// `measurements` are those the cost model was made from, for side models named by what was measured; may be empty.
pub fn plan(job: &Job, model: &CostModel, measurements: &[Measurement]) -> Result<Plan> {
    let (ground, notes) = Ground::new(job, model, measurements)?;
    let chosen = ground.attempt(job.parallel.schedule, job.parallel.chunks.map(|c| c as usize))?;
    Ok(finish(&ground, chosen, notes))
}

/// The plan that was chosen, beside what other schedules would have won.
pub(super) fn finish(ground: &Ground, chosen: Tried, mut notes: Vec<String>) -> Plan {
    if ground.fits(&chosen) == Some(false) {
        notes.push(
            "by this estimate the job itself does not fit the memory on every stage: nothing is put where none is free"
                .into(),
        );
    }
    let others = ground.others(&chosen.timeline.schedule);
    let record = assemble::record(ground, &chosen, &others, notes);
    let Tried { timeline, memory, .. } = chosen;
    Plan { timeline, weight_share: ground.weight_share, memory, record }
}
