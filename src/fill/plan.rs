//! From a job and a cost model to a plan: stage times, timeline, bubbles with their free memory, side work in them, and
//! what other schedules would have won instead.

use super::alternatives::{self, Again};
use super::assemble;
use super::attempt::{Candidate, PlanContext};
use super::record::{PlanLengths, PlanRecord};
use crate::Result;
use crate::pipeline::job::Job;
use crate::pipeline::memory::{GIB, Memory};
use crate::pipeline::prices::RememberedPrices;
use crate::pipeline::{Timeline, iteration};
use crate::records::{CostModel, Measurement};

/// A plan, with the timeline that it was made on and the memory of its stages.
#[derive(Debug, Clone)]
pub struct FillPlan {
    /// Simulated timeline of the job under its own schedule, without side work.
    pub timeline: Timeline,
    /// Fraction of a micro-batch's activations that the weight gradients still need once the backward to the inputs is
    /// done.
    pub weight_share: f64,
    /// Memory of a GPU and what each stage keeps in it under the schedule.
    pub memory: Memory,
    /// The plan as `plan --json` prints it.
    pub record: PlanRecord,
}

/// Plans the job on simulated bubbles. `measurements` are those the cost model was made from, for side models named by
/// what was measured; may be empty.
/// Returns an error if a layer or side cannot be priced, the weights alone do not fit, or the schedule cannot be built.
pub fn plan(job: &Job, model: &CostModel, measurements: &[Measurement]) -> Result<FillPlan> {
    let prices = RememberedPrices::new(model);
    let (context, mut notes) = PlanContext::new(job, model, &prices, measurements)?;
    let limits = &job.limits;
    let chosen = context.filled(context.timeline()?);
    notes.extend(context.general_notes(chosen.varies()));
    if limits.bubble_quantile.is_some() {
        let why = match limits.bubble_jitter {
            None => Some("the bubbles are not known to vary, so set bubble_jitter too"),
            Some(0.0) => Some("bubble_jitter says that the bubbles do not vary"),
            Some(_) => None,
        };
        notes.extend(why.map(|why| format!("bubble_quantile counts for nothing: {why}")));
    }
    let mut plan = finish(&context, chosen, notes, Again::Simulated)?;
    let lengths = limits.bubble_jitter.map(|_| PlanLengths::of(&plan.record.stage, limits.quantile()));
    let lengths = lengths.filter(|of| of.median_ns > 0);
    plan.record.lengths = lengths.map(|of| PlanLengths { jitter: limits.bubble_jitter, ..of });
    Ok(plan)
}

/// The plan that was chosen, beside what other flags would have won. `again` makes it once more with other costs.
pub(super) fn finish(
    context: &PlanContext,
    mut chosen: Candidate,
    mut notes: Vec<String>,
    again: Again,
) -> Result<FillPlan> {
    if context.fits(&chosen) == Some(false) {
        let needed = chosen.memory.peak_bytes(&chosen.timeline.schedule, context.weight_share) / GIB;
        let there = chosen.memory.total_bytes.unwrap_or(0.0) / GIB;
        notes.insert(
            0,
            format!(
                "by this estimate the job itself does not fit: the fullest GPU needs {needed:.1} GiB of {there:.1}; nothing is put \
                 where none is free"
            ),
        );
    }
    let tried = alternatives::tried(context, iteration::whole_ns(&chosen.timeline, &context.costs));
    let intervals = alternatives::intervals(context, &chosen, &tried, again)?;
    let record = assemble::record(context, &mut chosen, &tried, &intervals, notes);
    let Candidate { timeline, memory, .. } = chosen;
    Ok(FillPlan { timeline, weight_share: context.weight_share, memory, record })
}
