//! From a job and a cost model to a plan: stage times, timeline, bubbles with their free memory, side work in them, and
//! what other schedules would have won instead.

use super::planner::{self, Limits, StagePlan};
use super::record::*;
use super::side::{self, Side};
use crate::ops::DType;
use crate::pipeline::costs::{self, Costs};
use crate::pipeline::job::Job;
use crate::pipeline::memory::{self, Memory};
use crate::pipeline::{Bubble, Name, Schedule, Spec, Timeline, activations, simulate};
use crate::records::{CostModel, Measurement};
use crate::shape::Recompute;
use crate::{Error, Result};

/// A plan with the timeline it was made on.
#[derive(Debug, Clone)]
pub struct Plan {
    pub timeline: Timeline,
    pub weight_share: f64,
    pub memory: Memory,
    pub record: PlanRecord,
}

/// What every schedule of the job is tried with.
struct Ground<'a> {
    job: &'a Job,
    costs: Costs,
    memory: Memory,
    sides: Vec<Side>,
    weight_share: f64,
    limits: Limits,
}

/// One schedule, filled.
struct Tried {
    timeline: Timeline,
    memory: Memory,
    stages: Vec<StagePlan>,
    /// Useful work, main and side by its value, of one iteration on all stages, over the main job's alone.
    gain: f64,
    slowdown: f64,
}

/// `measurements` are those the cost model was made from, for side models named by what was measured; may be empty.
pub fn plan(job: &Job, model: &CostModel, measurements: &[Measurement]) -> Result<Plan> {
    let dtype = job.model.dtype.unwrap_or_else(|| usual_dtype(model));
    let mut costs = costs::of_job(job, model, dtype)?;
    let memory = memory::of_job(job, dtype, costs.layer.activation_bytes, model.machine.memory_bytes)?;
    let sides = side::of_job(job, model, measurements)?;
    let mut notes = std::mem::take(&mut costs.notes);
    notes.extend(general_notes(job, model, &memory));
    let gate = model.gate.as_ref();
    let limits = Limits { main_slowdown: job.limits.main_slowdown, close_ns: side::close_ns(gate) };
    let ground = Ground { job, weight_share: weight_share(job), costs, memory, sides, limits };
    let chosen = ground.attempt(job.parallel.schedule, job.parallel.chunks.map(|c| c as usize))?;
    notes.extend(ground.memory_note(&chosen));
    let record = ground.record(&chosen, model, notes);
    let weight_share = ground.weight_share;
    let Tried { timeline, memory, .. } = chosen;
    Ok(Plan { timeline, weight_share, memory, record })
}

/// What most layers of the cost model were measured in.
fn usual_dtype(model: &CostModel) -> DType {
    let count = |dtype| model.layer.iter().filter(|a| a.shape.dtype == dtype).count();
    [DType::Bf16, DType::F16, DType::F32].into_iter().rev().max_by_key(|&d| count(d)).unwrap_or(DType::Bf16)
}

/// Of a transformer layer; with full recomputation what W needs is there only while the backward runs.
fn weight_share(job: &Job) -> f64 {
    let m = &job.model;
    match job.parallel.recompute {
        Recompute::None => activations::weight_share(m.heads, m.sequence, m.hidden),
        // Without the attention's quadratic part.
        Recompute::Selective | Recompute::Full => 32.0 / 34.0,
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

impl Ground<'_> {
    fn timeline(&self, name: Name, chunks: Option<usize>) -> Result<Timeline> {
        let schedule = Schedule::build(&Spec {
            name,
            stages: self.job.parallel.pipeline as usize,
            micro_batches: self.job.micro_batches() as usize,
            chunks,
            memory_limit: None,
            weight_share: self.weight_share,
            times: &self.costs.times,
        })
        .map_err(|e| match e {
            Error::Input { what, cure } => Error::input(format!("{}: {what}", self.job.path.display()), cure),
            other => other,
        })?;
        simulate(schedule, self.costs.times.clone())
    }

    fn attempt(&self, name: Name, chunks: Option<usize>) -> Result<Tried> {
        let timeline = self.timeline(name, chunks)?;
        let memory = self.memory_of(&timeline.schedule);
        let stages = planner::fill(&timeline, self.weight_share, &memory, &self.sides, self.limits);
        let main: f64 = (0..stages.len()).map(|s| timeline.busy_ns(s) as f64).sum();
        let fillings = stages.iter().flat_map(|s| &s.bubbles).filter_map(|b| b.filling);
        let side: f64 = fillings.map(|f| f.work_ns() as f64 * self.sides[f.side].value).sum();
        let lost = stages.iter().map(|s| s.lost_ns).fold(0.0, f64::max);
        let slowdown = 1.0 + lost / (self.iteration_ns(&timeline) as f64).max(1.0);
        let gain = if main > 0.0 { (main + side) / main / slowdown } else { 1.0 };
        Ok(Tried { timeline, memory, stages, gain, slowdown })
    }

    fn iteration_ns(&self, timeline: &Timeline) -> u64 {
        timeline.iteration_ns + self.costs.after(timeline.schedule.layout.placement).total_ns()
    }

    /// What a device holds follows from the schedule: a V has both ends on one, a two-way pipeline every layer twice.
    fn memory_of(&self, schedule: &Schedule) -> Memory {
        let (costs, share) = (&self.costs, self.weight_share);
        memory::for_schedule(self.job, costs.dtype, costs.layer.activation_bytes, &self.memory, schedule, share)
    }

    fn fits(&self, tried: &Tried) -> Option<bool> {
        let (total, schedule) = (tried.memory.total_bytes?, &tried.timeline.schedule);
        let used = |stage: usize| {
            let peak = activations::peak(schedule, stage, self.weight_share);
            tried.memory.stage[stage].used_bytes(peak)
        };
        Some((0..schedule.stages).all(|s| used(s) <= total))
    }

    fn memory_note(&self, chosen: &Tried) -> Option<String> {
        (self.fits(chosen) == Some(false)).then(|| {
            "by this estimate the job itself does not fit the memory on every stage: nothing is put where none is free".into()
        })
    }

    /// Schedules a flag would have chosen: without filling, and with what filling still adds.
    fn alternatives(&self, chosen: &Tried) -> Vec<Alternative> {
        let layers = self.job.layers_per_stage() as usize;
        let interleaved =
            [2, 3, 4].into_iter().filter(|v| layers.is_multiple_of(*v)).map(|v| (Name::Interleaved, Some(v)));
        let plain = [Name::OneFOneB, Name::ZbH1, Name::ZbH2].map(|n| (n, None));
        let own = &chosen.timeline.schedule;
        let now = self.iteration_ns(&chosen.timeline) as f64;
        plain
            .into_iter()
            .chain(interleaved)
            .filter(|(name, chunks)| *name != own.name || chunks.is_some_and(|c| c != own.chunks))
            .filter_map(|(name, chunks)| self.attempt(name, chunks).ok())
            .map(|tried| {
                let (t, iteration_ns) = (&tried.timeline, self.iteration_ns(&tried.timeline));
                let gain = now / (iteration_ns as f64).max(1.0);
                let peak = |s| activations::peak(&t.schedule, s, self.weight_share);
                Alternative {
                    schedule: t.schedule.name.text().into(),
                    chunks: t.schedule.chunks as u64,
                    iteration_ns,
                    bubble_ratio: t.bubble_ratio(),
                    gain,
                    gain_filled: gain * tried.gain,
                    peak_activations: (0..t.schedule.stages).map(peak).fold(0.0, f64::max),
                    fits_memory: self.fits(&tried),
                }
            })
            .collect()
    }

    fn record(&self, chosen: &Tried, model: &CostModel, notes: Vec<String>) -> PlanRecord {
        let (job, timeline) = (self.job, &chosen.timeline);
        let alternatives = self.alternatives(chosen);
        PlanRecord {
            schema: SCHEMA.into(),
            job: job.path.display().to_string(),
            model: job.model.name.clone(),
            machine: model.machine.name.clone(),
            gpus: job.gpus(),
            schedule: timeline.schedule.name.text().into(),
            stages: job.parallel.pipeline,
            micro_batches: job.micro_batches(),
            chunks: timeline.schedule.chunks as u64,
            iteration_ns: self.iteration_ns(timeline),
            pipeline_ns: timeline.iteration_ns,
            send_recv_ns: self.costs.times.send_recv_ns,
            data_parallel_ns: self.costs.after(timeline.schedule.layout.placement).gradients_ns,
            optimizer_ns: self.costs.after(timeline.schedule.layout.placement).optimizer_ns,
            bubble_ratio: timeline.bubble_ratio(),
            weight_share: self.weight_share,
            memory_bytes: self.memory.total_bytes.map(|b| b as u64),
            stage: (0..timeline.schedule.stages).map(|s| self.stage(chosen, s)).collect(),
            side: (0..self.sides.len()).map(|s| self.side(chosen, s)).collect(),
            outcome: self.outcome(chosen, &alternatives),
            alternatives,
            in_range: self.costs.in_range,
            notes,
        }
    }

    fn stage(&self, chosen: &Tried, stage: usize) -> PlanStage {
        let (timeline, m) = (&chosen.timeline, &chosen.memory.stage[stage]);
        let times = timeline.stage_times(stage);
        let plan = &chosen.stages[stage].bubbles;
        let peak = activations::peak(&timeline.schedule, stage, self.weight_share);
        PlanStage {
            stage: stage as u64,
            forward_ns: times.forward_ns,
            backward_input_ns: times.backward_input_ns,
            backward_weight_ns: times.backward_weight_ns,
            busy_ns: timeline.busy_ns(stage),
            bubble_ns: plan.iter().map(|b| b.bubble.length_ns()).sum(),
            filled_ns: plan.iter().filter_map(|b| b.filling).map(|f| f.work_ns()).sum(),
            weights_bytes: m.weights_bytes,
            gradients_bytes: m.gradients_bytes,
            optimizer_bytes: m.optimizer_bytes,
            activation_bytes_per_micro_batch: m.activation_bytes,
            peak_activations: peak,
            peak_bytes: m.used_bytes(peak) as u64,
            bubbles: plan.iter().map(|b| self.bubble(b)).collect(),
        }
    }

    fn bubble(&self, planned: &planner::Planned) -> PlanBubble {
        let Bubble { start_ns, end_ns, kind, .. } = planned.bubble;
        let fill = planned.filling.map(|f| PlanFill {
            side: self.sides[f.side].name.clone(),
            start_ns: f.start_ns,
            end_ns: f.end_ns,
        });
        PlanBubble {
            start_ns,
            end_ns,
            kind,
            live_micro_batches: planned.live_micro_batches,
            free_bytes: planned.free_bytes.map(|b| b as u64),
            fill,
        }
    }

    fn side(&self, chosen: &Tried, index: usize) -> PlanSide {
        let side = &self.sides[index];
        let fillings: Vec<_> = chosen.stages.iter().flat_map(|s| &s.bubbles).filter_map(|b| b.filling).collect();
        let mine = fillings.iter().filter(|f| f.side == index);
        let replicas = (self.job.parallel.tensor * self.job.parallel.data) as f64;
        let steps = replicas * mine.clone().map(|f| f.work_ns() as f64 / side.step_ns).sum::<f64>();
        let iteration_s = self.iteration_ns(&chosen.timeline) as f64 * chosen.slowdown / 1e9;
        PlanSide {
            name: side.name.clone(),
            step_ns: side.step_ns,
            margin_ns: side.margin.total_ns(),
            memory_bytes: side.memory_bytes as u64,
            bubbles_used: mine.count() as u64,
            steps_per_iteration: steps,
            steps_per_s: if iteration_s > 0.0 { steps / iteration_s } else { 0.0 },
        }
    }

    fn outcome(&self, chosen: &Tried, alternatives: &[Alternative]) -> Outcome {
        let planned = || chosen.stages.iter().flat_map(|s| &s.bubbles);
        let bubble: u64 = planned().map(|b| b.bubble.length_ns()).sum();
        let filled: u64 = planned().filter_map(|b| b.filling).map(|f| f.work_ns()).sum();
        let fitting = alternatives.iter().filter(|a| a.fits_memory != Some(false) && a.gain > 1.0);
        let best = fitting.max_by(|a, b| a.gain.total_cmp(&b.gain));
        let best_gain = best.map_or(1.0, |a| a.gain);
        let replicas = (self.job.parallel.tensor * self.job.parallel.data) as f64;
        Outcome {
            bubble_used: if bubble > 0 { filled as f64 / bubble as f64 } else { 0.0 },
            main_slowdown: chosen.slowdown,
            gain: chosen.gain,
            gain_bound: 1.0 / (1.0 - chosen.timeline.bubble_ratio()).max(1e-12),
            best_schedule: best.map(|a| match a.chunks {
                1 => a.schedule.clone(),
                v => format!("{} with {v} chunks", a.schedule),
            }),
            best_schedule_gain: best_gain,
            net_gain: chosen.gain / best_gain,
            recovered_gpu_s: replicas * filled as f64 / 1e9,
        }
    }
}
