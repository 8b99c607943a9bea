//! Whole steps against segments: the same sides, each alone in the job's bubbles, once stopping between whole training steps only and once
//! between any two of their kernels. As planned, and as carried out event by event.

use super::attempt::PlanContext;
use super::simulation::{self, CarriedOut};
use crate::Result;
use crate::pipeline::job::{Job, Side};
use crate::pipeline::prices::RememberedPrices;
use crate::records::{CostModel, Measurement};

/// Iterations that are carried out, unless they are long ones.
const ITERATIONS: u64 = 200;

/// A side alone in the job's bubbles, in both grains.
#[derive(Debug, Clone, PartialEq)]
pub struct GrainComparison {
    /// Name of the side.
    pub side: String,
    /// Time of a training step alone, in ns.
    pub step_ns: u64,
    /// Time of its longest kernel alone, in ns: the longest segment that it can be cut into.
    pub segment_ns: u64,
    /// It stops between steps only.
    pub whole_steps: GrainOutcome,
    /// It stops between any two kernels.
    pub segments: GrainOutcome,
}

/// What one grain makes of the bubbles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GrainOutcome {
    /// Share of all bubble time that becomes side work, as planned.
    pub used: f64,
    /// Filled iteration over the empty one, as planned.
    pub slowdown: f64,
    /// The plan carried out.
    pub carried_out: CarriedOut,
}

/// Compares the grains for each side of the job, and says what a plan of the job says of what it assumes. Fails as a plan of the job does,
/// and for a job without sides.
pub fn compare(
    job: &Job,
    model: &CostModel,
    measurements: &[Measurement],
) -> Result<(Vec<GrainComparison>, Vec<String>)> {
    if job.side.is_empty() {
        return Err(crate::Error::input(
            format!("{} names no [[side]]", job.path.display()),
            "add the small models whose grain is to be compared (docs/planning.md)",
        ));
    }
    let prices = RememberedPrices::new(model);
    let mut notes: Vec<String> = Vec::new();
    let mut of = |side: &Side, split: bool| -> Result<(GrainOutcome, u64, u64)> {
        let job = Job { side: vec![Side { split, ..side.clone() }], ..job.clone() };
        let (context, own_notes) = PlanContext::new(&job, model, &prices, measurements)?;
        let filled = context.filled(context.timeline()?);
        for note in own_notes.into_iter().chain(context.general_notes(filled.varies())) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        let all: u64 = filled.stages.iter().map(|stage| stage.bubbles.length_ns()).sum();
        let used: u64 = filled.stages.iter().map(|stage| stage.filled_ns()).sum();
        let (sides, close_ns) = (&context.sides, context.close_ns);
        let iteration_ns = filled.base.iteration_ns;
        let (timeline, stages) = (&filled.timeline, &filled.stages);
        let carried_out = simulation::carried_out(timeline, stages, sides, close_ns, iteration_ns, ITERATIONS, SEED);
        let kernels = &sides[0].kernels;
        let outcome = GrainOutcome { used: used as f64 / all.max(1) as f64, slowdown: filled.slowdown, carried_out };
        Ok((outcome, kernels.step_ns(), kernels.longest_ns()))
    };
    let each = |side: &Side| -> Result<GrainComparison> {
        let ((whole_steps, step_ns, segment_ns), (segments, ..)) = (of(side, false)?, of(side, true)?);
        Ok(GrainComparison { side: side.name.clone(), step_ns, segment_ns, whole_steps, segments })
    };
    let sides = job.side.iter().map(each).collect::<Result<_>>()?;
    Ok((sides, notes))
}

/// Of the random lengths, so that the same job has the same table.
const SEED: u64 = 0x9ea1;
