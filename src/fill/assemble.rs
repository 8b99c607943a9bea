//! The plan as `plan --json` prints it, put together from the chosen candidate and those of the other schedules.

use super::attempt::{Candidate, PlanContext};
use super::pack::{Residency, SideRun};
use super::record::*;
use super::stages::{Planned, StagePlan};
use super::why;
use crate::cost::datasheet;
use crate::pipeline::costs::ListedPrice;
use crate::pipeline::prices::Price;
use crate::pipeline::{Bubble, Timeline, activations, iteration};
use crate::shape::DType;

pub(super) fn record(
    context: &PlanContext,
    chosen: &Candidate,
    others: &[Candidate],
    mut notes: Vec<String>,
) -> PlanRecord {
    let (job, timeline) = (context.job, &chosen.timeline);
    let iteration_ns = chosen.base.iteration_ns;
    // The job was priced before; where it cannot be priced again there is no interval to tell.
    let (iteration_low_ns, iteration_high_ns) =
        iteration::interval_ns(job, context.model, timeline, &context.costs).unwrap_or((iteration_ns, iteration_ns));
    let use_of = iteration::utilisation(job, iteration_ns);
    let sheet = datasheet::of_device(&context.model.machine.device);
    let of_peak = |tflops: f64| {
        let sheet = sheet?;
        Some(tflops / if context.costs.dtype == DType::F32 { sheet.f32_tflops } else { sheet.tensor_tflops })
    };
    let alternatives: Vec<Alternative> = others.iter().map(|o| alternative(context, timeline, o)).collect();
    let side: Vec<PlanSide> = (0..context.sides.len()).map(|s| side(context, chosen, s)).collect();
    let unused = side.iter().filter_map(|s| Some((s.name.as_str(), s.unused.as_ref()?)));
    notes.extend(unused.map(|(name, why)| format!("side {name} is put nowhere: {why}")));
    PlanRecord {
        schema: SCHEMA.into(),
        job: job.path.display().to_string(),
        model: job.model.name.clone(),
        machine: context.model.machine.name.clone(),
        gpus: job.gpus(),
        schedule: timeline.schedule.name.text().into(),
        stages: job.parallel.pipeline,
        micro_batches: job.micro_batches(),
        chunks: timeline.schedule.chunks as u64,
        iteration_ns,
        iteration_low_ns,
        iteration_high_ns,
        tokens_per_s: use_of.tokens_per_s,
        tflops_per_gpu: use_of.tflops_per_gpu,
        hardware_tflops_per_gpu: use_of.hardware_tflops_per_gpu,
        six_n_tflops_per_gpu: use_of.six_n_tflops_per_gpu,
        model_flops_utilization: of_peak(use_of.tflops_per_gpu),
        hardware_flops_utilization: of_peak(use_of.hardware_tflops_per_gpu),
        gpu_hours_per_billion_tokens: use_of.gpu_hours_per_billion_tokens,
        pipeline_ns: chosen.base.pipeline_ns,
        send_recv_ns: context.costs.send_recv_ns,
        data_parallel_ns: context.costs.after(chosen.timeline.schedule.layout.placement).gradients_ns,
        optimizer_ns: context.costs.after(chosen.timeline.schedule.layout.placement).optimizer_ns,
        bubble_ratio: chosen.base.bubble_ratio,
        weight_share: context.weight_share,
        memory_bytes: context.memory.total_bytes.map(|b| b as u64),
        stage: (0..chosen.stages.len()).map(|s| stage(context, chosen, s)).collect(),
        side,
        outcome: outcome(context, chosen, &alternatives),
        alternatives,
        in_range: context.costs.in_range,
        prices: context.costs.prices.iter().map(price).collect(),
        assumed: context.costs.assumed(),
        measured: None,
        notes,
        operations: None,
    }
}

fn price(listed: &ListedPrice) -> PlanPrice {
    let of = |value: fn(&Price) -> f64| listed.price.as_ref().map(value);
    PlanPrice {
        what: listed.what.clone(),
        time_ns: of(|p| p.time_ns),
        low_ns: of(|p| p.low_ns),
        high_ns: of(|p| p.high_ns),
        in_range: listed.price.is_some_and(|p| p.in_range),
        source: listed.price.map(|p| p.source),
    }
}

/// Compared with the simulated iteration of the job's own schedule, with equal figures for what follows the pipeline.
fn alternative(context: &PlanContext, own: &Timeline, candidate: &Candidate) -> Alternative {
    let t = &candidate.timeline;
    let now = (own.iteration_ns + context.after_pipeline_ns(&own.schedule)) as f64;
    let gain = now / (candidate.base.iteration_ns as f64).max(1.0);
    let peak = |s| activations::peak(&t.schedule, s, context.weight_share);
    Alternative {
        schedule: t.schedule.name.text().into(),
        chunks: t.schedule.chunks as u64,
        iteration_ns: candidate.base.iteration_ns,
        bubble_ratio: candidate.base.bubble_ratio,
        gain,
        gain_filled: gain * candidate.gain,
        peak_activations: (0..t.schedule.stages).map(peak).fold(0.0, f64::max),
        fits_memory: context.fits(candidate),
    }
}

fn stage(context: &PlanContext, chosen: &Candidate, index: usize) -> PlanStage {
    let (timeline, m, plan) = (&chosen.timeline, &chosen.memory.stage[index], &chosen.stages[index]);
    let times = timeline.stage_times(index);
    let peak = activations::peak(&timeline.schedule, index, context.weight_share);
    let name = |side: usize| context.sides[side].name.clone();
    PlanStage {
        stage: index as u64,
        forward_ns: times.forward_ns,
        backward_input_ns: times.backward_input_ns,
        backward_weight_ns: times.backward_weight_ns,
        busy_ns: chosen.base.busy_ns[index],
        bubble_ns: plan.bubbles.iter().map(|b| b.bubble.length_ns()).sum(),
        filled_ns: plan.filled_ns(),
        beside_ns: plan.beside_ns(),
        lost_ns: plan.lost_ns,
        weights_bytes: m.weights_bytes,
        gradients_bytes: m.gradients_bytes,
        optimizer_bytes: m.optimizer_bytes,
        activation_bytes_per_micro_batch: m.activation_bytes,
        peak_activations: peak,
        peak_bytes: m.peak_bytes(peak) as u64,
        resident: plan.resident.iter().map(|r| resident(context, r)).collect(),
        beside: plan
            .beside
            .iter()
            .map(|b| PlanBeside {
                side: name(b.side),
                phase: if b.backward { "backward" } else { "forward" }.into(),
                operations: b.operations,
                work_ns: b.work_ns,
                cost_each_ns: b.cost_each_ns,
            })
            .collect(),
        bubbles: plan.bubbles.iter().map(|b| bubble(context, b)).collect(),
    }
}

fn resident(context: &PlanContext, resident: &super::pack::Resident) -> PlanResident {
    PlanResident {
        side: context.sides[resident.side].name.clone(),
        split: resident.residency == Residency::Split,
        held_bytes: resident.held_bytes(&context.sides) as u64,
    }
}

fn bubble(context: &PlanContext, planned: &Planned) -> PlanBubble {
    let Bubble { start_ns, end_ns, kind, .. } = planned.bubble;
    let fill = |run: &SideRun| PlanFill {
        side: context.sides[run.side].name.clone(),
        start_ns: run.start_ns,
        end_ns: run.end_ns(),
        kernels: run.kernels,
    };
    PlanBubble {
        start_ns,
        end_ns,
        kind,
        live_micro_batches: planned.live_micro_batches,
        free_bytes: planned.free_bytes.map(|b| b as u64),
        fills: planned.runs.iter().map(fill).collect(),
        class: planned.class.map(|class| class.to_string()),
    }
}

fn side(context: &PlanContext, chosen: &Candidate, index: usize) -> PlanSide {
    let side = &context.sides[index];
    let runs = || chosen.stages.iter().flat_map(|s| &s.bubbles).flat_map(|b| &b.runs).filter(|r| r.side == index);
    let beside: f64 = chosen.stages.iter().flat_map(|s| &s.beside).filter(|b| b.side == index).map(|b| b.work_ns).sum();
    let step_ns = side.kernels.step_ns() as f64;
    let work = runs().map(|r| r.work_ns as f64).sum::<f64>() + beside;
    let steps = replicas(context) * work / step_ns;
    let iteration_s = chosen.base.iteration_ns as f64 * chosen.slowdown / 1e9;
    let budget_ns = context.job.limits.main_slowdown * chosen.base.iteration_ns as f64;
    PlanSide {
        name: side.name.clone(),
        source: side.origin.text().into(),
        step_ns,
        kernels_per_step: side.kernels.per_step(),
        longest_kernel_ns: side.kernels.longest_ns(),
        margin_ns: side.margin.total_ns(),
        open_ns: side.margin.open_ns,
        restart_ns: side.margin.restart_ns,
        signal_ns: side.margin.signal_ns,
        cost_ns: context.close_ns + side.after_ns,
        memory_bytes: side.memory_bytes as u64,
        resident_bytes: side.resident_bytes as u64,
        value: side.value,
        bubbles_used: runs().count() as u64,
        steps_per_iteration: steps,
        steps_per_s: if iteration_s > 0.0 { steps / iteration_s } else { 0.0 },
        unused: (work == 0.0).then(|| why::nowhere(side, &chosen.stages, budget_ns, context.close_ns)),
    }
}

/// Pipelines side by side: tensor-, context- and data-parallel ranks.
fn replicas(context: &PlanContext) -> f64 {
    (context.job.gpus() / context.job.parallel.pipeline) as f64
}

fn outcome(context: &PlanContext, chosen: &Candidate, alternatives: &[Alternative]) -> Outcome {
    let bubble: u64 = chosen.stages.iter().flat_map(|s| &s.bubbles).map(|b| b.bubble.length_ns()).sum();
    let filled: u64 = chosen.stages.iter().map(StagePlan::filled_ns).sum();
    let beside: f64 = chosen.stages.iter().map(StagePlan::beside_ns).sum();
    let fitting = || alternatives.iter().filter(|a| a.fits_memory != Some(false));
    let best = fitting().filter(|a| a.gain > 1.0).max_by(|a, b| a.gain.total_cmp(&b.gain));
    let filled_best = fitting().max_by(|a, b| a.gain_filled.total_cmp(&b.gain_filled));
    let filled_best = filled_best.filter(|a| a.gain_filled > chosen.gain);
    let best_gain = best.map_or(1.0, |a| a.gain);
    let gpu_s = |ns: f64| context.job.gpus() as f64 * ns / 1e9;
    let recovered_gpu_s = replicas(context) * (filled as f64 + beside) / 1e9;
    let iteration = chosen.base.iteration_ns as f64;
    let lost_gpu_s = gpu_s(iteration * (chosen.slowdown - 1.0));
    let schedule_gpu_s = gpu_s(iteration * (1.0 - 1.0 / best_gain));
    Outcome {
        bubble_used: if bubble > 0 { filled as f64 / bubble as f64 } else { 0.0 },
        main_slowdown: chosen.slowdown,
        gain: chosen.gain,
        gain_bound: 1.0 / (1.0 - chosen.base.bubble_ratio).max(1e-12),
        best_schedule: best.map(named),
        best_schedule_gain: best_gain,
        net_gain: chosen.gain / best_gain,
        best_filled_schedule: filled_best.map(named),
        best_filled_gain: filled_best.map_or(chosen.gain, |a| a.gain_filled),
        recovered_gpu_s,
        lost_gpu_s,
        schedule_gpu_s,
        net_recovered_gpu_s: recovered_gpu_s - lost_gpu_s - schedule_gpu_s,
    }
}

fn named(a: &Alternative) -> String {
    match a.chunks {
        1 => a.schedule.clone(),
        v => format!("{} with {v} chunks", a.schedule),
    }
}
