//! The plan as `plan --json` prints it, put together from the chosen candidate and what other flags would make of the job.

use super::alternatives::{Intervals, Tried};
use super::attempt::{Candidate, PlanContext};
use super::overrun::GrainOverrun;
use super::pack::Residency;
use super::receive::WaitingReceive;
use super::record::*;
use super::side::CompleteSide;
use super::stages::StagePlan;
use super::why;
use crate::cost::datasheet;
use crate::pipeline::costs::ListedPrice;
use crate::pipeline::prices::Price;
use crate::pipeline::variants::Change;
use crate::pipeline::{activations, iteration};
use crate::shape::DType;
use std::sync::Arc;

/// Takes the side work out of the candidate: of millions of bubbles there should be no second copy.
pub(super) fn record(
    context: &PlanContext,
    chosen: &mut Candidate,
    tried: &[Tried],
    intervals: &Intervals,
    mut notes: Vec<String>,
) -> PlanRecord {
    let job = context.job;
    let iteration_ns = chosen.base.iteration_ns;
    let use_of = iteration::utilisation(job, iteration_ns);
    let sheet = datasheet::of_device(&context.model.machine.device);
    let of_peak = |tflops: f64| {
        let sheet = sheet?;
        Some(tflops / if context.costs.dtype == DType::F32 { sheet.f32_tflops } else { sheet.tensor_tflops })
    };
    let alternatives: Vec<Alternative> =
        tried.iter().zip(&intervals.alternatives).map(|(tried, ends)| alternative(tried, ends)).collect();
    let side: Vec<PlanSide> =
        (0..context.sides.len()).map(|s| side(context, chosen, s, intervals.steps_per_s[s])).collect();
    let unused = side.iter().filter_map(|s| Some((s.name.as_str(), s.unused.as_ref()?)));
    notes.extend(unused.map(|(name, why)| format!("side {name} is put nowhere: {why}")));
    let outcome = outcome(context, chosen, tried, &alternatives, intervals);
    let names: Arc<[String]> = context.sides.iter().map(|side| side.name.clone()).collect();
    let plans = std::mem::take(&mut chosen.stages);
    let chosen = &*chosen;
    let stage =
        plans.into_iter().enumerate().map(|(index, plan)| stage(context, chosen, index, plan, &names)).collect();

    let timeline = &chosen.timeline;
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
        iteration_low_ns: intervals.iteration_ns.0.round() as u64,
        iteration_high_ns: intervals.iteration_ns.1.round() as u64,
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
        stage,
        side,
        outcome,
        alternatives,
        in_range: context.costs.in_range,
        prices: context.costs.prices.iter().map(price).collect(),
        assumed: assumed(context),
        measured: None,
        lengths: None,
        notes,
        operations: None,
    }
}

fn assumed(context: &PlanContext) -> Vec<String> {
    let receive = WaitingReceive::of(context.job, context.model).assumed.filter(|_| !context.sides.is_empty());
    context.costs.assumed().into_iter().chain(receive).collect()
}

/// What one of a side's runs costs the main job on average, side work that ends late included.
fn cost_ns(context: &PlanContext, chosen: &Candidate, index: usize) -> f64 {
    let side = &context.sides[index];
    let runs = |stage: &StagePlan| stage.bubbles.iter().flat_map(|b| b.runs).filter(|run| run.side == index).count();
    let runs: usize = chosen.stages.iter().map(runs).sum();
    let late_ns = match runs {
        0 => unused_late_ns(side, &chosen.stages),
        _ => chosen.stages.iter().filter_map(|s| s.late_ns.get(index)).sum::<f64>() / runs as f64,
    };
    context.close_ns + (side.after_ns + late_ns)
}

/// What a bubble would have cost besides, had the side been put there: the mean over those that it could begin in, or the least,
/// where it is known how bubbles vary, or the usual where none is.
fn unused_late_ns(side: &CompleteSide, stages: &[StagePlan]) -> f64 {
    let (mut count, mut sum) = (0u64, 0.0);
    for (slot, residency) in why::with_room(side, stages).filter(|(slot, way)| why::could_begin(side, slot, *way)) {
        (count, sum) = (count + 1, sum + side.overrun_ns(&slot, residency, false));
    }
    let residency = if side.split { Residency::Split } else { Residency::Whole };
    let GrainOverrun { usual_ns, least_ns } = side.overrun.of(residency);
    let vary = stages.iter().flat_map(|stage| stage.bubbles.fillable()).any(|bubble| bubble.variation.is_some());
    match (count, vary) {
        (0, true) => least_ns,
        (0, false) => usual_ns,
        (count, _) => sum / count as f64,
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

fn alternative(tried: &Tried, ends: &[(f64, f64); 2]) -> Alternative {
    let (variant, p) = (&tried.variant, &tried.variant.job.parallel);
    let [iteration, gains] = ends;
    Alternative {
        kind: variant.change.name().into(),
        describes: variant.describes(),
        schedule: p.schedule.text().into(),
        chunks: variant.job.layout().chunks as u64,
        pipeline: p.pipeline,
        tensor: p.tensor,
        data: p.data,
        micro_batch: p.micro_batch,
        iteration_ns: variant.iteration_ns,
        iteration_low_ns: iteration.0.round() as u64,
        iteration_high_ns: iteration.1.round() as u64,
        bubble_ratio: tried.bubble_ratio,
        gain: tried.gain,
        gain_low: gains.0,
        gain_high: gains.1,
        gain_filled: tried.filled.map(|filled| tried.gain * filled),
        peak_activations: tried.peak_activations,
        fits_memory: variant.fits_memory,
        sure: variant.sure,
    }
}

fn stage(context: &PlanContext, chosen: &Candidate, index: usize, plan: StagePlan, names: &Arc<[String]>) -> PlanStage {
    let (timeline, m) = (&chosen.timeline, &chosen.memory.stage[index]);
    let times = timeline.stage_times(index);
    let peak = activations::peak(&timeline.schedule, index, context.weight_share);
    let name = |side: usize| names[side].clone();
    let varies = plan.bubbles.iter().any(|bubble| bubble.variation.is_some());
    PlanStage {
        stage: index as u64,
        forward_ns: times.forward_ns,
        backward_input_ns: times.backward_input_ns,
        backward_weight_ns: times.backward_weight_ns,
        busy_ns: chosen.base.busy_ns[index],
        bubble_ns: plan.bubbles.length_ns(),
        filled_ns: plan.filled_ns(),
        beside_ns: plan.beside_ns(),
        lost_ns: plan.lost_ns,
        overrun_ns: varies.then(|| plan.late_ns.iter().sum()),
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
        bubbles: PlanBubbles::new(plan.bubbles, Arc::clone(names)),
    }
}

fn resident(context: &PlanContext, resident: &super::pack::Resident) -> PlanResident {
    PlanResident {
        side: context.sides[resident.side].name.clone(),
        split: resident.residency == Residency::Split,
        held_bytes: resident.held_bytes(&context.sides) as u64,
    }
}

fn side(context: &PlanContext, chosen: &Candidate, index: usize, per_s: (f64, f64)) -> PlanSide {
    let side = &context.sides[index];
    let runs = || chosen.stages.iter().flat_map(|s| s.bubbles.runs()).filter(|r| r.side == index);
    let pipelines = replicas(context);
    let steps = pipelines * chosen.steps(&context.sides, index);
    let budget_ns = context.job.limits.main_slowdown * chosen.base.iteration_ns as f64;
    let another_runs =
        || (0..context.sides.len()).any(|other| other != index && chosen.steps(&context.sides, other) > 0.0);
    PlanSide {
        name: side.name.clone(),
        source: side.origin.text().into(),
        step_ns: side.kernels.step_ns() as f64,
        kernels_per_step: side.kernels.per_step(),
        longest_kernel_ns: side.kernels.longest_ns(),
        margin_ns: side.margin.total_ns(),
        open_ns: side.margin.open_ns,
        restart_ns: side.margin.restart_ns,
        signal_ns: side.margin.signal_ns,
        cost_ns: cost_ns(context, chosen, index),
        receive_rate: side.receive.rate,
        receive_rate_low: side.receive.ends[0],
        receive_rate_high: side.receive.ends[1],
        memory_bytes: side.memory_bytes as u64,
        resident_bytes: side.resident_bytes as u64,
        value: side.value,
        bubbles_used: runs().count() as u64,
        steps_per_iteration: steps,
        steps_per_s: steps / chosen.seconds().max(f64::MIN_POSITIVE),
        steps_per_s_low: pipelines * per_s.0,
        steps_per_s_high: pipelines * per_s.1,
        unused: (steps == 0.0).then(|| why::nowhere(side, &chosen.stages, budget_ns, context.close_ns, another_runs())),
    }
}

/// Pipelines side by side: tensor-, context- and data-parallel ranks.
fn replicas(context: &PlanContext) -> f64 {
    (context.job.gpus() / context.job.parallel.pipeline) as f64
}

fn outcome(
    context: &PlanContext,
    chosen: &Candidate,
    tried: &[Tried],
    alternatives: &[Alternative],
    intervals: &Intervals,
) -> Outcome {
    let bubble: u64 = chosen.stages.iter().map(|s| s.bubbles.length_ns()).sum();
    let filled: u64 = chosen.stages.iter().map(StagePlan::filled_ns).sum();
    let counting = tried.iter().zip(alternatives).filter(|(tried, _)| tried.variant.counts());
    let best = Best::of(counting.clone().map(|(_, alternative)| alternative), chosen.gain);
    let other_schedules = counting.filter(|(tried, _)| tried.variant.changes_only(Change::Schedule));
    let schedule = Best::of(other_schedules.map(|(_, alternative)| alternative), chosen.gain);
    let gpu_s = |ns: f64| context.job.gpus() as f64 * ns / 1e9;
    let worth: f64 = chosen.stages.iter().map(|stage| stage.worth(&context.sides)).sum();
    let recovered_gpu_s = replicas(context) * worth / 1e9;
    let most_valuable = context.sides.iter().map(|side| side.value).reduce(f64::max).unwrap_or(1.0);
    let iteration = chosen.base.iteration_ns as f64;
    let lost_gpu_s = gpu_s(iteration * (chosen.slowdown - 1.0));
    let freed_gpu_s = |gain: f64| gpu_s(iteration * (1.0 - 1.0 / gain));
    let (net_low, net_high) = intervals.net;
    Outcome {
        bubble_used: if bubble > 0 { filled as f64 / bubble as f64 } else { 0.0 },
        main_slowdown: chosen.slowdown,
        main_slowdown_low: intervals.slowdown.0,
        main_slowdown_high: intervals.slowdown.1,
        gain: chosen.gain,
        gain_low: intervals.gain.0,
        gain_high: intervals.gain.1,
        gain_bound: 1.0 + most_valuable * bubble as f64 / chosen.base.work_ns.max(1.0),
        best_alternative_gain: best.gain,
        best_alternative_gain_low: intervals.best.0,
        best_alternative_gain_high: intervals.best.1,
        net_gain: chosen.gain / best.gain,
        net_gain_low: net_low,
        net_gain_high: net_high,
        filling_pays: match recovered_gpu_s > 0.0 {
            true if net_low > 1.0 => Some(true),
            true if net_high >= 1.0 => None,
            _ => Some(false),
        },
        best_filled_alternative_gain: best.filled_gain,
        best_schedule_gain: schedule.gain,
        best_filled_gain: schedule.filled_gain,
        recovered_gpu_s,
        lost_gpu_s,
        schedule_gpu_s: freed_gpu_s(schedule.gain),
        alternative_gpu_s: freed_gpu_s(best.gain),
        net_recovered_gpu_s: recovered_gpu_s - lost_gpu_s - freed_gpu_s(best.gain),
        best_alternative: best.alternative,
        best_filled_alternative: best.filled,
        best_schedule: schedule.alternative,
        best_filled_schedule: schedule.filled,
    }
}

/// The best alternatives of some, empty and filled.
struct Best {
    alternative: Option<String>,
    gain: f64,
    filled: Option<String>,
    filled_gain: f64,
}

impl Best {
    /// `own` is the plan's own gain.
    fn of<'a>(alternatives: impl Iterator<Item = &'a Alternative> + Clone, own: f64) -> Best {
        let best = alternatives.clone().filter(|a| a.gain > 1.0).max_by(|a, b| a.gain.total_cmp(&b.gain));
        let filled = alternatives.filter_map(|a| Some((a, a.gain_filled?)));
        let filled = filled.filter(|(_, gain)| *gain > own).max_by(|a, b| a.1.total_cmp(&b.1));
        Best {
            alternative: best.map(|a| a.describes.clone()),
            gain: best.map_or(1.0, |a| a.gain),
            filled: filled.map(|(a, _)| a.describes.clone()),
            filled_gain: filled.map_or(own, |(_, gain)| gain),
        }
    }
}
