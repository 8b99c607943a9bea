//! What else the job could have been ([`crate::pipeline::variants`]), filled with the same sides; and how far one may
//! believe that, and the plan itself: each cause of error moved to the ends of its interval in turn.

use super::attempt::{Candidate, Cause, PlanContext};
use crate::Result;
use crate::pipeline::job::{Job, Parallel};
use crate::pipeline::variants::{self, Variant};
use crate::pipeline::{Schedule, Timeline, activations, iteration};
use crate::stats::{self, SplitMix, normal};
use rayon::prelude::*;

/// A variant of the job with what it would bring.
pub(super) struct Tried {
    pub variant: Variant,
    /// The job's own simulated iteration over the variant's.
    pub gain: f64,
    pub bubble_ratio: f64,
    pub peak_activations: f64,
    /// Gain over the variant's own empty iteration with its bubbles filled; `None` where the schedule is too long to be
    /// filled for comparison.
    pub filled: Option<f64>,
    /// Its iteration with each cause at the lower and the upper end, in the order of [`causes`], over its median.
    moved: Vec<f64>,
}

/// The plan's own figures once.
#[derive(Debug, Clone, PartialEq)]
struct Figures {
    iteration_ns: f64,
    gain: f64,
    slowdown: f64,
    steps_per_s: Vec<f64>,
}

/// The 95 % intervals of a plan's figures.
pub(super) struct Intervals {
    pub iteration_ns: (f64, f64),
    pub gain: (f64, f64),
    pub slowdown: (f64, f64),
    /// Of the best alternative's gain, and of what filling wins beyond it.
    pub best: (f64, f64),
    pub net: (f64, f64),
    /// By side.
    pub steps_per_s: Vec<(f64, f64)>,
    /// By alternative: of its iteration and of its gain.
    pub alternatives: Vec<[(f64, f64); 2]>,
}

fn causes() -> impl Iterator<Item = (Cause, bool)> {
    Cause::ALL.into_iter().flat_map(|cause| [(cause, false), (cause, true)])
}

/// All variants of the job that are worth showing, filled. `own_ns` is the simulated iteration of the job as it is.
pub(super) fn tried(context: &PlanContext, own_ns: u64) -> Vec<Tried> {
    let machine_bytes = context.model.machine.memory_bytes;
    let found = variants::of_job(context.job, &context.costs, context.prices, machine_bytes);
    found.into_par_iter().filter_map(|variant| try_out(context, own_ns, variant)).collect()
}

fn try_out(context: &PlanContext, own_ns: u64, mut variant: Variant) -> Option<Tried> {
    let (job, costs) = (variant.job.clone(), variant.costs.clone());
    let own = context.of_variant(&job, costs);
    let p = &job.parallel;
    let layout = job.layout();
    let operations = 3 * layout.cells() as u64 * job.micro_batches();
    let (timeline, filled) = if operations <= iteration::SIMULATED as u64 {
        let candidate = own.attempt(p.schedule, p.chunks()).ok()?;
        variant.iteration_ns = candidate.base.iteration_ns;
        variant.fits_memory = candidate.memory.fits_with_headroom(&candidate.timeline.schedule, own.weight_share);
        (candidate.timeline, Some(candidate.gain))
    } else {
        let few = own.shortened()?;
        (iteration::timeline(&few, &own.costs, p.schedule, p.chunks()).ok()?, None)
    };
    let stages = timeline.schedule.stages;
    let peak = |stage| activations::peak(&timeline.schedule, stage, own.weight_share);
    let after = own.after_pipeline_ns(&timeline.schedule);
    let pipeline_ns = variant.iteration_ns.saturating_sub(after) as f64;
    let passes = job.micro_batches() as f64 / timeline.schedule.micro_batches as f64;
    let busy = passes * (0..stages).map(|stage| timeline.busy_ns(stage) as f64).sum::<f64>();
    let median = iteration::whole_ns(&timeline, &own.costs) as f64;
    // Its own iteration is the same whatever the sides, the gate and a waiting receive cost.
    let moved = iteration::moved_ns(&job, context.prices, &timeline, own.costs.dtype).ok()?;
    let moved = moved.into_iter().map(|ns| ns / median).chain([1.0; 6]).collect();
    Some(Tried {
        gain: own_ns as f64 / (variant.iteration_ns as f64).max(1.0),
        bubble_ratio: if pipeline_ns > 0.0 { 1.0 - busy / (stages as f64 * pipeline_ns) } else { 0.0 },
        peak_activations: (0..stages).map(peak).fold(0.0, f64::max),
        filled,
        moved,
        variant,
    })
}

impl PlanContext<'_> {
    /// The job with few micro-batches, where it has so many that its plan cannot be made a dozen times: the middle of an
    /// iteration repeats.
    pub fn shortened(&self) -> Option<Job> {
        let p = &self.job.parallel;
        let micro_batches = 6 * p.pipeline;
        let global_batch = p.data * p.micro_batch * micro_batches.min(self.job.micro_batches());
        self.job.with(Parallel { global_batch, ..p.clone() })
    }

    fn figures(&self, candidate: &Candidate) -> Figures {
        let per_s = |side| candidate.steps(&self.sides, side) / candidate.seconds();
        Figures {
            iteration_ns: candidate.base.iteration_ns as f64,
            gain: candidate.gain,
            slowdown: candidate.slowdown,
            steps_per_s: (0..self.sides.len()).map(per_s).collect(),
        }
    }
}

/// How a plan is made again with other costs.
#[derive(Clone, Copy)]
pub(super) enum Again<'a> {
    /// On the simulated timeline of the same schedule, of a long one with fewer micro-batches: its middle repeats.
    Simulated,
    /// On what was measured, which is as long as it is.
    Measured(&'a (dyn Fn(&PlanContext, &Schedule) -> Result<Candidate> + Sync)),
}

impl Again<'_> {
    fn plan(self, context: &PlanContext, schedule: &Schedule) -> Result<Candidate> {
        match self {
            Again::Measured(plan) => plan(context, schedule),
            Again::Simulated => {
                let times = context.costs.times(context.job, schedule.layout);
                Ok(context.filled(crate::pipeline::simulate(schedule.clone(), times)?))
            }
        }
    }
}

/// The intervals of all figures of a plan.
pub(super) fn intervals(context: &PlanContext, chosen: &Candidate, tried: &[Tried], again: Again) -> Result<Intervals> {
    // A list of operations is as long as it is, too.
    let shortens = matches!(again, Again::Simulated) && context.job.order.is_none();
    let long = shortens && chosen.timeline.schedule.operations().len() > iteration::SIMULATED;
    let few = if long { context.shortened() } else { None };
    let short = few.as_ref().map(|job| context.of_variant(job, context.costs.clone()));
    let probe = short.as_ref().unwrap_or(context);
    let p = &probe.job.parallel;
    let first = match &short {
        Some(short) => short.attempt(p.schedule, p.chunks())?,
        None => again.plan(probe, &chosen.timeline.schedule)?,
    };
    let schedule = &first.timeline.schedule;
    let (base, own) = (probe.figures(&first), simulated_ns(probe, &first.timeline));
    let moved: Vec<(Figures, f64)> = causes()
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|(cause, up)| {
            if !probe.is_moved_by(cause) {
                return Ok((base.clone(), own));
            }
            let moved = probe.moved(cause, up)?;
            let candidate = again.plan(&moved, schedule)?;
            Ok((moved.figures(&candidate), simulated_ns(&moved, &candidate.timeline)))
        })
        .collect::<Result<_>>()?;
    let at = |value: f64, of: &dyn Fn(&Figures) -> f64| {
        // Relative changes, so that a shortened job speaks for the long one.
        iteration::quadrature(value, moved.iter().map(|(m, _)| value * of(m) / of(&base).max(f64::MIN_POSITIVE)))
    };
    let own_moved: Vec<f64> = moved.iter().map(|(_, ns)| ns / own).collect();
    // By alternative, its gain under each cause; an alternative of other layers has causes of its own.
    let ratios = |t: &Tried| iteration::ratios(t.gain, &own_moved, &t.moved, t.variant.is_apart());
    let by_cause: Vec<Vec<f64>> = tried.iter().map(ratios).collect();
    let best_now = tried.iter().filter(|t| t.variant.counts()).map(|t| t.gain).fold(1.0, f64::max);
    let own_gain: Vec<f64> = moved.iter().map(|(m, _)| m.gain / base.gain).collect();
    let question = Question { tried, own_moved: &own_moved, gain: chosen.gain, gain_moved: &own_gain };
    let (best, net) = question.sampled();
    let (low, high) = at(chosen.slowdown, &|f| f.slowdown);
    let steps_per_s = context.figures(chosen).steps_per_s;
    Ok(Intervals {
        iteration_ns: at(chosen.base.iteration_ns as f64, &|f| f.iteration_ns),
        gain: at(chosen.gain, &|f| f.gain),
        slowdown: (low.max(1.0), high),
        best: around(best_now, best),
        net: around(chosen.gain / best_now, net),
        steps_per_s: (0..steps_per_s.len()).map(|side| at(steps_per_s[side], &|f| f.steps_per_s[side])).collect(),
        alternatives: tried
            .iter()
            .zip(&by_cause)
            .map(|(t, by_cause)| {
                let ns = t.variant.iteration_ns as f64;
                [
                    iteration::quadrature(ns, t.moved.iter().map(|factor| ns * factor)),
                    iteration::quadrature(t.gain, by_cause.iter().copied()),
                ]
            })
            .collect(),
    })
}

/// Draws for the interval of the best of several alternatives, which no sum of squares gives.
const DRAWS: usize = 4000;
/// How far what is apart goes together: half of its variance is common (a correlation of ½).
const TOGETHER: f64 = 0.5;

/// Of which the best alternative's gain and the net gain are asked: medians, and what each cause makes of them at its ends.
struct Question<'a> {
    tried: &'a [Tried],
    own_moved: &'a [f64],
    gain: f64,
    gain_moved: &'a [f64],
}

impl Question<'_> {
    /// The 95 % intervals of the best alternative's gain and of net, drawn: every cause normally, its ends being 1.96 standard
    /// deviations away; the causes of an alternative that is apart half on their own, alike for alternatives of like shapes.
    /// Seeded, so that the same question has the same answer.
    fn sampled(&self) -> ((f64, f64), (f64, f64)) {
        let mut random = SplitMix(0x9a1_2026);
        let causes = self.own_moved.len() / 2;
        let counting: Vec<usize> = (0..self.tried.len()).filter(|&index| self.tried[index].variant.counts()).collect();
        let mut shapes: Vec<[u64; 5]> = Vec::new();
        let of_shape: Vec<Option<usize>> = counting
            .iter()
            .map(|&index| {
                let variant = &self.tried[index].variant;
                let p = &variant.job.parallel;
                let shape = [p.pipeline, p.tensor, p.data, p.micro_batch, p.recompute as u64];
                variant.is_apart().then(|| {
                    shapes.iter().position(|known| *known == shape).unwrap_or_else(|| {
                        shapes.push(shape);
                        shapes.len() - 1
                    })
                })
            })
            .collect();
        let (mut bests, mut nets) = (Vec::with_capacity(DRAWS), Vec::with_capacity(DRAWS));
        for _ in 0..DRAWS {
            let common: Vec<f64> = (0..causes).map(|_| half_widths(&mut random)).collect();
            let alone: Vec<Vec<f64>> =
                shapes.iter().map(|_| (0..causes).map(|_| half_widths(&mut random)).collect()).collect();
            let own = moved_by(self.own_moved, common.iter().copied());
            let best = counting.iter().zip(&of_shape).fold(1.0_f64, |best, (&index, shape)| {
                let draws = common.iter().enumerate().map(|(cause, &common)| match shape {
                    Some(shape) => TOGETHER * common + (1.0 - TOGETHER * TOGETHER).sqrt() * alone[*shape][cause],
                    None => common,
                });
                best.max(self.tried[index].gain * own / moved_by(&self.tried[index].moved, draws))
            });
            bests.push(best);
            nets.push(self.gain * moved_by(self.gain_moved, common.iter().copied()) / best);
        }
        (ends(bests), ends(nets))
    }
}

/// What causes that are so many half-intervals away from their medians make of a figure, over its median; `moved` is that at
/// each cause's lower and upper end.
fn moved_by(moved: &[f64], draws: impl Iterator<Item = f64>) -> f64 {
    let parts = moved.chunks(2).zip(draws).map(|(ends, draw)| ends[usize::from(draw > 0.0)].max(1e-3).powf(draw.abs()));
    parts.product()
}

/// A normal deviate, in half-widths of a 95 % interval.
fn half_widths(random: &mut SplitMix) -> f64 {
    normal::sample(random) / 1.96
}

/// The middle 95 % of some draws.
fn ends(mut draws: Vec<f64>) -> (f64, f64) {
    draws.sort_by(f64::total_cmp);
    let at = |share| stats::quantile_sorted(&draws, share).unwrap_or(f64::NAN);
    (at(0.025), at(0.975))
}

/// An interval that holds the figure at the medians, whatever the draws' own middle.
fn around(value: f64, (low, high): (f64, f64)) -> (f64, f64) {
    (low.min(value), high.max(value))
}

/// The simulated iteration of a context on a timeline's schedule, in ns.
fn simulated_ns(context: &PlanContext, timeline: &Timeline) -> f64 {
    iteration::again_ns(context.job, timeline, &context.costs).unwrap_or(timeline.iteration_ns as f64)
}
