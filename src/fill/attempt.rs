//! A job under one schedule, filled: a candidate that a plan chooses from. [`PlanContext`] holds what the candidates of
//! a job have in common.

use super::gate_defaults::{self, GateLevel};
use super::lengths::LearnedLength;
use super::receive::WaitingReceive;
use super::side::{self, CompleteSide};
use super::stages::{Filling, Jitter, StagePlan};
use crate::Result;
use crate::cost::predict;
use crate::pipeline::costs::{self, Costs};
use crate::pipeline::job::Job;
use crate::pipeline::memory::{self, Memory};
use crate::pipeline::prices::{PriceGroup, Prices, ShiftedPrices};
use crate::pipeline::{Schedule, ScheduleName, Timeline, iteration};
use crate::records::{CostModel, Measurement};

/// What the candidates of a job have in common: costs, side models and limits.
#[derive(Clone)]
pub(super) struct PlanContext<'a> {
    pub job: &'a Job,
    pub model: &'a CostModel,
    /// Those that the cost model was made from, for sides named by what was measured.
    pub measurements: &'a [Measurement],
    /// The cost model's, remembered from one variant of the job to the next.
    pub prices: &'a (dyn Prices + Sync),
    pub costs: Costs,
    pub memory: Memory,
    pub sides: Vec<CompleteSide>,
    pub weight_share: f64,
    pub close_ns: f64,
    /// What simulated bubbles vary like unless the job says how: the bubbles of a measured run that they are compared with.
    pub learned: Option<&'a LearnedLength>,
}

/// What a plan's figures may be wrong by: each cause on its own, everything else at its median.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A group of the main job's prices.
    Prices(PriceGroup),
    /// The side models' own steps.
    Sides,
    /// What opening and closing the gate costs, where nobody measured it.
    Gate,
    /// What a waiting receive leaves the sides, where nobody measured it.
    Receive,
}

impl Cause {
    pub const ALL: [Cause; 7] = [
        Cause::Prices(PriceGroup::Layers),
        Cause::Prices(PriceGroup::Operations),
        Cause::Prices(PriceGroup::Collectives),
        Cause::Prices(PriceGroup::Messages),
        Cause::Sides,
        Cause::Gate,
        Cause::Receive,
    ];
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
    /// The main job's work on all stages, with what follows the pipeline.
    pub work_ns: f64,
    pub bubble_ratio: f64,
}

impl Candidate {
    /// Steps of a side in an iteration of one pipeline, on average.
    pub fn steps(&self, sides: &[CompleteSide], side: usize) -> f64 {
        self.stages.iter().map(|stage| stage.side_ns(side)).sum::<f64>() / sides[side].kernels.step_ns() as f64
    }

    /// Whether it is known of the bubbles how they vary.
    pub fn varies(&self) -> bool {
        self.stages.iter().any(|stage| stage.bubbles.fillable().any(|bubble| bubble.variation.is_some()))
    }

    /// Length of the filled iteration in s.
    pub fn seconds(&self) -> f64 {
        self.base.iteration_ns as f64 * self.slowdown / 1e9
    }
}

impl Base {
    /// Useful work over the main job's alone, and the filled iteration over the empty one.
    pub fn gain(&self, stages: &[StagePlan], sides: &[CompleteSide], lost_ns: u64) -> (f64, f64) {
        let main = self.work_ns;
        let side: f64 = stages.iter().map(|s| s.worth(sides)).sum();
        let slowdown = 1.0 + lost_ns as f64 / (self.iteration_ns as f64).max(1.0);
        (if main > 0.0 { (main + side) / main / slowdown } else { 1.0 }, slowdown)
    }
}

impl<'a> PlanContext<'a> {
    /// Also returns what the reader should know so far. `prices` are those of `model`.
    pub fn new(
        job: &'a Job,
        model: &'a CostModel,
        prices: &'a (dyn Prices + Sync),
        measurements: &'a [Measurement],
    ) -> Result<(Self, Vec<String>)> {
        let dtype = job.model.dtype.unwrap_or_else(|| predict::usual_dtype(model));
        let mut costs = costs::of_job(job, prices, dtype)?;
        let memory = memory::of_job(job, dtype, &costs.layer, model.machine.memory_bytes)?;
        let mut notes = std::mem::take(&mut costs.notes);
        let sides = side::of_job(job, model, measurements, GateLevel::Median, &mut notes)?;
        let close_ns = side::close_ns(model.gate.as_ref(), GateLevel::Median);
        let weight_share = job.weight_share();
        let context = PlanContext {
            job,
            model,
            measurements,
            prices,
            costs,
            memory,
            sides,
            weight_share,
            close_ns,
            learned: None,
        };
        Ok((context, notes))
    }

    /// What the reader should know of any plan of the job, whose bubbles are known to `vary` or not.
    pub fn general_notes(&self, vary: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if self.memory.total_bytes.is_none() {
            notes.push("the GPU's memory is not known, so nothing was checked against it: set memory_gib".into());
        }
        if self.model.gate.is_none() && !self.job.side.is_empty() {
            let published = self.sides.iter().any(|side| side.overrun.is_published());
            notes.push(gate_defaults::assumed_note(published.then_some(vary)));
        }
        if self.job.side.is_empty() {
            notes.push("the job names no [[side]]: bubbles are shown, not filled".into());
        }
        notes
    }

    /// The same for another form of the job, which may or may not fit the memory. What its sides would do beside its
    /// operations is another question: they stay in bubbles.
    pub fn of_variant<'b>(&'b self, job: &'b Job, costs: Costs) -> PlanContext<'b> {
        let memory = memory::estimate(job, costs.dtype, &costs.layer, self.model.machine.memory_bytes);
        let same_layers = job.layer(costs.dtype) == self.job.layer(costs.dtype);
        let mut sides = self.sides.clone();
        sides.iter_mut().filter(|_| !same_layers).for_each(|side| side.beside = None);
        // Over another number of stages a receive has another number of channels.
        let receive = WaitingReceive::of(job, self.model);
        sides.iter_mut().zip(&job.side).for_each(|(side, of)| side.receive = receive.of_side(of));
        PlanContext { job, memory, sides, weight_share: job.weight_share(), costs, ..*self }
    }

    /// Whether a cause has an interval here; without one the plan need not be made again.
    pub fn is_moved_by(&self, cause: Cause) -> bool {
        match cause {
            Cause::Prices(_) => true,
            Cause::Gate => self.model.gate.is_none(),
            Cause::Receive => self.sides.iter().any(|side| side.receive.ends != [side.receive.rate; 2]),
            Cause::Sides => self.sides.iter().any(|side| side.step_interval != [1.0; 2]),
        }
    }

    /// The same with a cause at an end of its interval, the upper one where `up`.
    pub fn moved(&self, cause: Cause, up: bool) -> Result<PlanContext<'a>> {
        let mut moved = self.clone();
        match cause {
            Cause::Prices(group) => {
                let shifted = ShiftedPrices { prices: self.prices, group, up };
                moved.costs = costs::of_job(self.job, &shifted, self.costs.dtype)?;
            }
            Cause::Gate => {
                let level = if up { GateLevel::High } else { GateLevel::Low };
                // What there is to say of the sides was said when they stood at their medians.
                let sides = side::of_job(self.job, self.model, self.measurements, level, &mut Vec::new())?;
                for (side, again) in moved.sides.iter_mut().zip(sides) {
                    (side.margin, side.after_ns, side.overrun) = (again.margin, again.after_ns, again.overrun);
                }
                moved.close_ns = side::close_ns(self.model.gate.as_ref(), level);
            }
            Cause::Receive => {
                for side in &mut moved.sides {
                    side.receive.rate = side.receive.ends[usize::from(up)];
                }
            }
            Cause::Sides => {
                for side in &mut moved.sides {
                    side.kernels = side.kernels.scaled(side.step_interval[usize::from(up)]);
                }
            }
        }
        Ok(moved)
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
            jitter: match self.job.limits.bubble_jitter {
                Some(relative) => Some(Jitter::normal(relative, self.job.limits.quantile())),
                None => self.learned.map(Jitter::Learned),
            },
        }
    }

    /// The job under a schedule that is only compared with its own, filled.
    pub fn attempt(&self, name: ScheduleName, chunks: Option<usize>) -> Result<Candidate> {
        let micro_batches = self.job.micro_batches() as usize;
        Ok(self.filled(iteration::compared(self.job, &self.costs, name, chunks, micro_batches)?))
    }

    /// A timeline with its bubbles filled.
    pub fn filled(&self, timeline: Timeline) -> Candidate {
        let after_ns = self.after_pipeline_ns(&timeline.schedule);
        let busy_ns: Vec<u64> = (0..timeline.schedule.stages).map(|s| timeline.busy_ns(s)).collect();
        let base = Base {
            iteration_ns: timeline.iteration_ns + after_ns,
            pipeline_ns: timeline.iteration_ns,
            work_ns: busy_ns.iter().map(|ns| (ns + after_ns) as f64).sum(),
            busy_ns,
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;
    use crate::pipeline::job;
    use crate::pipeline::prices::RememberedPrices;
    use std::path::Path;

    /// Over two stages a receive has as many of NCCL's channels as each of two ranks may have, over eight an eighth; a rate that the job
    /// gives stands.
    #[test]
    fn a_receive_is_that_of_the_variant() {
        let mut job = Job::read(Path::new("examples/gpt-a100-8.toml")).unwrap();
        job.side.push(job::Side { receive_rate: Some(0.7), ..job.side[0].clone() });
        let model = datasheet::model(&datasheet::find("a100-sxm-80").unwrap());
        let prices = RememberedPrices::new(&model);
        let (context, _) = PlanContext::new(&job, &model, &prices, &[]).unwrap();
        let rates = |context: &PlanContext| -> Vec<f64> { context.sides.iter().map(|s| s.receive.rate).collect() };
        let last = job.side.len() - 1;
        assert_eq!((rates(&context)[0], rates(&context)[last]), (1.0 - 4.0 / 108.0, 0.7));
        let mut two = job.clone();
        (two.parallel.pipeline, two.parallel.tensor) = (2, 4);
        let costs = costs::of_job(&two, &prices, context.costs.dtype).unwrap();
        let variant = context.of_variant(&two, costs);
        assert_eq!((rates(&variant)[0], rates(&variant)[last]), (1.0 - 16.0 / 108.0, 0.7));
    }
}
