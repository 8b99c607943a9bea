//! A job under one schedule, filled: a candidate that a plan chooses from. [`PlanContext`] holds what the candidates of
//! a job have in common.

use super::side::{self, CompleteSide};
use super::stages::{Filling, StagePlan};
use crate::Result;
use crate::cost::predict;
use crate::pipeline::costs::{self, Costs};
use crate::pipeline::job::Job;
use crate::pipeline::memory::{self, Memory};
use crate::pipeline::{Schedule, ScheduleName, Timeline, iteration};
use crate::records::{CostModel, Measurement};

/// What the candidates of a job have in common: costs, side models and limits.
pub(super) struct PlanContext<'a> {
    pub job: &'a Job,
    pub model: &'a CostModel,
    pub costs: Costs,
    pub memory: Memory,
    pub sides: Vec<CompleteSide>,
    pub weight_share: f64,
    pub close_ns: f64,
}

/// The job under one schedule, with its bubbles filled.
pub(super) struct Candidate {
    pub timeline: Timeline,
    /// What a device holds follows from the schedule: a V has both ends on one, a two-way pipeline every layer twice.
    pub memory: Memory,
    pub base: Base,
    pub stages: Vec<StagePlan>,
    /// Useful work, main and side by its value, of one iteration on all stages, over the main job's alone.
    pub gain: f64,
    /// Filled iteration over empty.
    pub slowdown: f64,
}

/// The empty iteration.
pub(super) struct Base {
    /// With what follows the pipeline.
    pub iteration_ns: u64,
    pub pipeline_ns: u64,
    pub busy_ns: Vec<u64>,
    pub bubble_ratio: f64,
}

impl Base {
    /// Useful work over the main job's alone, and the filled iteration over the empty one.
    pub fn gain(&self, stages: &[StagePlan], sides: &[CompleteSide], lost_ns: u64) -> (f64, f64) {
        let main: f64 = self.busy_ns.iter().map(|&ns| ns as f64).sum();
        let side: f64 = stages.iter().map(|s| s.worth(sides)).sum();
        let slowdown = 1.0 + lost_ns as f64 / (self.iteration_ns as f64).max(1.0);
        (if main > 0.0 { (main + side) / main / slowdown } else { 1.0 }, slowdown)
    }
}

fn general_notes(job: &Job, model: &CostModel, memory: &Memory) -> Vec<String> {
    let mut notes = Vec::new();
    if memory.total_bytes.is_none() {
        notes.push("the GPU's memory is not known, so nothing was checked against it: set memory_gib".into());
    }
    if model.gate.is_none() && !job.side.is_empty() {
        let assumed = side::ASSUMED_GATE;
        notes.push(format!(
            "the cost model has no gate figures: {:.0} µs to open, {:.0} µs to signal and {:.0} µs to restart are assumed",
            assumed.open_ns / 1e3,
            assumed.signal_ns / 1e3,
            assumed.restart_ns / 1e3
        ));
    }
    if job.side.is_empty() {
        notes.push("the job names no [[side]]: bubbles are shown, not filled".into());
    }
    notes
}

impl<'a> PlanContext<'a> {
    /// Also returns what the reader should know so far.
    pub fn new(job: &'a Job, model: &'a CostModel, measurements: &[Measurement]) -> Result<(Self, Vec<String>)> {
        let dtype = job.model.dtype.unwrap_or_else(|| predict::usual_dtype(model));
        let mut costs = costs::of_job(job, model, dtype)?;
        let memory = memory::of_job(job, dtype, &costs.layer, model.machine.memory_bytes)?;
        let mut notes = std::mem::take(&mut costs.notes);
        let sides = side::of_job(job, model, measurements, &mut notes)?;
        notes.extend(general_notes(job, model, &memory));
        let close_ns = side::close_ns(model.gate.as_ref());
        Ok((PlanContext { job, model, weight_share: job.weight_share(), costs, memory, sides, close_ns }, notes))
    }

    /// The timeline of the job under its own schedule.
    pub fn timeline(&self) -> Result<Timeline> {
        iteration::own_timeline(self.job, &self.costs)
    }

    pub fn filling(&self) -> Filling<'_> {
        Filling {
            sides: &self.sides,
            main_slowdown: self.job.limits.main_slowdown,
            close_ns: self.close_ns,
            sides_per_bubble: self.job.limits.sides_per_bubble as usize,
        }
    }

    /// The job under another schedule than its own, filled.
    pub fn attempt(&self, name: ScheduleName, chunks: Option<usize>) -> Result<Candidate> {
        Ok(self.filled(iteration::timeline(self.job, &self.costs, name, chunks)?))
    }

    pub fn filled(&self, timeline: Timeline) -> Candidate {
        let base = Base {
            iteration_ns: timeline.iteration_ns + self.after_pipeline_ns(&timeline.schedule),
            pipeline_ns: timeline.iteration_ns,
            busy_ns: (0..timeline.schedule.stages).map(|s| timeline.busy_ns(s)).collect(),
            bubble_ratio: timeline.bubble_ratio(),
        };
        let memory = self.memory_of(&timeline.schedule);
        let (stages, lost_ns) = self.filling().timeline(&timeline, self.weight_share, &memory, base.iteration_ns);
        let (gain, slowdown) = base.gain(&stages, &self.sides, lost_ns);
        Candidate { timeline, memory, base, stages, gain, slowdown }
    }

    /// Gradient all-reduce and optimizer step.
    pub fn after_pipeline_ns(&self, schedule: &Schedule) -> u64 {
        self.costs.after(schedule.layout.placement).total_ns()
    }

    /// What each device holds under a schedule.
    pub fn memory_of(&self, schedule: &Schedule) -> Memory {
        let (costs, share) = (&self.costs, self.weight_share);
        memory::for_schedule(self.job, costs.dtype, &costs.layer, &self.memory, schedule, share)
    }

    /// Whether the job itself fits the memory on every stage; `None` where the memory is not known.
    pub fn fits(&self, candidate: &Candidate) -> Option<bool> {
        candidate.memory.fits(&candidate.timeline.schedule, self.weight_share)
    }

    /// Other schedules a flag would have chosen, filled.
    pub fn others(&self, own: &Schedule) -> Vec<Candidate> {
        let layers = (self.job.model.layers / self.job.parallel.pipeline) as usize;
        let interleaved = [2, 3, 4].into_iter().filter(|v| layers >= *v).map(|v| (ScheduleName::Interleaved, Some(v)));
        let plain = [ScheduleName::OneFOneB, ScheduleName::ZbH1, ScheduleName::ZbH2].map(|n| (n, None));
        plain
            .into_iter()
            .chain(interleaved)
            .filter(|(name, chunks)| *name != own.name || chunks.is_some_and(|c| c != own.chunks))
            .filter_map(|(name, chunks)| self.attempt(name, chunks).ok())
            .collect()
    }
}
