//! A job's whole iteration: pipeline, gradients and optimizer step, with its interval; and what it makes of the hardware.

use super::costs::{self, Costs};
use super::job::Job;
use super::prices::{PriceGroup, Prices, ShiftedPrices};
use super::schedule::{Schedule, ScheduleName, ScheduleSpec};
use super::schedules::SearchEffort;
use super::simulate::{Timeline, simulate};
use crate::shape::operation::Operation;
use crate::shape::{DType, Phase, Recompute};
use crate::{Error, Result};

/// Operations of a schedule up to which every shifted price is simulated; beyond, the pipeline's time follows the work of
/// its stages.
pub const SIMULATED: usize = 200_000;

/// The timeline of a job under its own schedule, or under the list of operations that stands in its place. Fails like
/// [`timeline`].
pub fn own_timeline(job: &Job, costs: &Costs) -> Result<Timeline> {
    let Some(order) = &job.order else {
        return timeline(job, costs, job.parallel.schedule, job.parallel.chunks());
    };
    let times = costs.times(job, order.layout);
    order.check_given(None, job.weight_share(), &times).map_err(|e| named(job, e))?;
    simulate(Schedule::clone(order), times)
}

/// The error with the job's file in front.
fn named(job: &Job, error: Error) -> Error {
    match error {
        Error::Input { what, cure } => Error::input(format!("{}: {what}", job.path.display()), cure),
        other => other,
    }
}

/// The timeline of a job under a schedule of `name`, with its stages' times from `costs`. Fails if the schedule does not
/// exist for the job's numbers; the error names the job's file.
pub fn timeline(job: &Job, costs: &Costs, name: ScheduleName, chunks: Option<usize>) -> Result<Timeline> {
    searched(job, costs, (name, chunks), job.micro_batches() as usize, SearchEffort::Full)
}

/// The [`timeline`] of an iteration of `micro_batches` in place of the job's own number, for a comparison: a schedule that is
/// searched for is not searched for as long.
pub fn compared(
    job: &Job,
    costs: &Costs,
    name: ScheduleName,
    chunks: Option<usize>,
    micro_batches: usize,
) -> Result<Timeline> {
    searched(job, costs, (name, chunks), micro_batches, SearchEffort::Quick)
}

fn searched(
    job: &Job,
    costs: &Costs,
    (name, chunks): (ScheduleName, Option<usize>),
    micro_batches: usize,
    effort: SearchEffort,
) -> Result<Timeline> {
    let times = costs.times(job, job.layout_under(name, chunks));
    let spec = ScheduleSpec {
        name,
        stages: job.parallel.pipeline as usize,
        micro_batches,
        chunks,
        memory_limit: None,
        weight_share: job.weight_share(),
        times: &times,
    };
    let schedule = Schedule::build_with(&spec, effort).map_err(|e| named(job, e))?;
    simulate(schedule, times)
}

/// The length of an iteration in ns: the pipeline's, and what follows it.
pub fn whole_ns(timeline: &Timeline, costs: &Costs) -> u64 {
    timeline.iteration_ns + costs.after(timeline.schedule.layout.placement).total_ns()
}

/// The 95 % interval of the iteration in ns. The prices of a group ([`PriceGroup`]) rest on the same fits and are wrong
/// together; groups are wrong independently. So each group is moved to its lower and its upper ends, the same schedule runs
/// again, and the differences add up in quadrature. Fails where pricing the job does.
pub fn interval_ns(job: &Job, prices: &dyn Prices, timeline: &Timeline, costs: &Costs) -> Result<(u64, u64)> {
    let moved = moved_ns(job, prices, timeline, costs.dtype)?;
    let (low, high) = quadrature(whole_ns(timeline, costs) as f64, moved);
    Ok((low.round() as u64, high.round() as u64))
}

/// The iteration of the timeline's schedule in ns with each group of prices at its lower, then its upper ends, in the order
/// of [`PriceGroup::ALL`]. Fails where pricing the job does.
pub fn moved_ns(job: &Job, prices: &dyn Prices, timeline: &Timeline, dtype: DType) -> Result<Vec<f64>> {
    let ends = PriceGroup::ALL.into_iter().flat_map(|group| [(group, false), (group, true)]);
    ends.map(|(group, up)| {
        let shifted = costs::of_job(job, &ShiftedPrices { prices, group, up }, dtype)?;
        again_ns(job, timeline, &shifted)
    })
    .collect()
}

/// The interval of a figure whose value is `median`, and one of `moved` when one cause after another is at an end of its own
/// interval: independent causes add up in quadrature on the side to which they move the figure.
pub fn quadrature(median: f64, moved: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let mut squares = [0.0, 0.0];
    for value in moved {
        let by = value - median;
        // A cause may shorten one thing and lengthen nothing: its sign says on which side it counts.
        squares[usize::from(by > 0.0)] += by * by;
    }
    let [below, above] = squares.map(f64::sqrt);
    ((median - below).max(0.0), median + above)
}

/// What the ratio `own` ÷ `other` of two iterations becomes under each cause, its median being `ratio`: their moves are given
/// over their own medians, lower and upper end in turn. A cause moves both alike. Where they rest on prices of other shapes
/// (`apart`), only half of what they may be wrong by is common to both (a correlation of ½), and what is not comes on top.
pub fn ratios(ratio: f64, own: &[f64], other: &[f64], apart: bool) -> Vec<f64> {
    let together = own.iter().zip(other).map(|(own, other)| ratio * own / other);
    let alone = own.iter().zip(other).enumerate().filter(|_| apart).map(|(end, (own, other))| {
        let by = ((own - 1.0).abs() * (other - 1.0).abs()).sqrt();
        ratio * if end % 2 == 0 { 1.0 / (1.0 + by) } else { 1.0 + by }
    });
    together.chain(alone).collect()
}

/// The iteration of the timeline's schedule with other costs, in ns.
pub fn again_ns(job: &Job, timeline: &Timeline, costs: &Costs) -> Result<f64> {
    let schedule = &timeline.schedule;
    let times = costs.times(job, schedule.layout);
    if schedule.operations().len() <= SIMULATED {
        let again = simulate(schedule.clone(), times)?;
        return Ok(whole_ns(&again, costs) as f64);
    }
    let work = |times: &super::Times| {
        let ends = times.first.total_ns() + times.last.total_ns();
        (ends + times.stage.iter().map(|t| t.total_ns()).sum::<u64>()) as f64
    };
    let pipeline = timeline.iteration_ns as f64 * work(&times) / work(&timeline.times).max(1.0);
    Ok(pipeline + costs.after(schedule.layout.placement).total_ns() as f64)
}

/// The work of an iteration, and how much of the GPUs' peak it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Utilisation {
    /// Tokens a second over all GPUs.
    pub tokens_per_s: f64,
    /// FLOPs that training the model needs, a second and GPU, in TFLOP/s: forward once, backward twice as much, every pair
    /// of positions counted (Narayanan et al., arXiv 2104.04473, appendix, and Megatron-LM's own log).
    pub tflops_per_gpu: f64,
    /// The same with what is recomputed, which the GPUs execute too, in TFLOP/s.
    pub hardware_tflops_per_gpu: f64,
    /// 6 · parameters · tokens, a second and GPU, in TFLOP/s (Kaplan et al., arXiv 2001.08361): without attention.
    pub six_n_tflops_per_gpu: f64,
    /// Hours of one GPU for a billion tokens.
    pub gpu_hours_per_billion_tokens: f64,
}

/// What an iteration of `iteration_ns` makes of the job's GPUs.
pub fn utilisation(job: &Job, iteration_ns: u64) -> Utilisation {
    let seconds = (iteration_ns as f64 / 1e9).max(f64::MIN_POSITIVE);
    let gpus = job.gpus() as f64;
    let tokens = (job.parallel.global_batch * job.model.sequence) as f64;
    let per_gpu = |flop: f64| flop / seconds / gpus / 1e12;
    let flop = Flop::of(job);
    Utilisation {
        tokens_per_s: tokens / seconds,
        tflops_per_gpu: per_gpu(3.0 * flop.forward),
        hardware_tflops_per_gpu: per_gpu(3.0 * flop.forward + flop.recomputed),
        six_n_tflops_per_gpu: per_gpu(6.0 * flop.parameters * tokens),
        gpu_hours_per_billion_tokens: gpus * seconds / 3600.0 * 1e9 / tokens,
    }
}

/// FLOPs of one iteration over all GPUs.
struct Flop {
    forward: f64,
    recomputed: f64,
    parameters: f64,
}

impl Flop {
    fn of(job: &Job) -> Flop {
        let (m, p) = (&job.model, &job.parallel);
        let sequences = p.global_batch as f64;
        // One sequence on one rank, with every pair of positions.
        let shape = crate::shape::LayerShape {
            micro_batch: 1,
            tensor: 1,
            context: 1,
            sequence_parallel: false,
            causal: false,
            recompute: Recompute::None,
            ..job.layer(DType::Bf16)
        };
        let (mut products, mut attention) = (0.0, 0.0);
        for (_, operation) in shape.operations(Phase::Forward) {
            match operation {
                Operation::Linear { .. } => products += operation.flop(),
                Operation::AttentionForward(_) | Operation::BatchedProduct { .. } => attention += operation.flop(),
                _ => {}
            }
        }
        let layers = m.layers as f64;
        let head = 2.0 * m.sequence as f64 * m.hidden as f64 * m.vocabulary as f64;
        let again = match (p.recompute, p.recompute_layers) {
            (Recompute::Full, _) => layers * (products + attention),
            (Recompute::Selective, _) => layers * attention,
            (Recompute::None, Some(k)) => (k * p.pipeline).min(m.layers) as f64 * (products + attention),
            (Recompute::None, None) => 0.0,
        };
        let matrices = if m.tied { 1 } else { 2 };
        let parameters = m.layers * shape.parameters() + matrices * m.vocabulary * m.hidden;
        Flop {
            forward: sequences * (layers * (products + attention) + head),
            recomputed: sequences * again,
            parameters: parameters as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::prices::{LayerPrice, Price, PricedCollective};
    use crate::records::cost_model::Source;
    use crate::shape::LayerShape;
    use std::path::Path;

    /// Every layer takes 1 ms a phase, give or take a tenth; a message 10 µs, give or take half.
    struct Made;

    impl Prices for Made {
        fn layer(&self, _: LayerShape) -> Result<LayerPrice> {
            let phase = Price { time_ns: 1e6, low_ns: 0.9e6, high_ns: 1.2e6, in_range: true, source: Source::Measured };
            Ok(LayerPrice { forward: phase, backward_input: phase, backward_weight: phase, activation_bytes: 0 })
        }
        fn collective(&self, message: PricedCollective) -> Option<Price> {
            let exact = Price::exact(10_000.0, true);
            Some(match message.operation {
                "send_recv" => Price { low_ns: 5_000.0, high_ns: 15_000.0, ..exact },
                _ => exact,
            })
        }
        fn operation(&self, _: &Operation, _: DType) -> Option<Price> {
            Some(Price::exact(0.0, true))
        }
    }

    fn job(parallel: &str) -> Job {
        let text = format!(
            "[model]\nlayers = 8\nhidden = 1024\nheads = 16\nsequence = 128\nvocabulary = 1024\n[parallel]\n{parallel}"
        );
        Job::parse(Path::new("job.toml"), &text).unwrap()
    }

    /// With layers alone the interval is theirs; messages widen it in quadrature.
    #[test]
    fn groups_of_prices_move_together_and_apart_from_others() {
        let ends = |parallel: &str| {
            let job = job(parallel);
            let costs = costs::of_job(&job, &Made, DType::Bf16).unwrap();
            let timeline = timeline(&job, &costs, job.parallel.schedule, None).unwrap();
            let median = whole_ns(&timeline, &costs) as f64;
            let (low, high) = interval_ns(&job, &Made, &timeline, &costs).unwrap();
            (median, median - low as f64, high as f64 - median)
        };
        let (median, below, above) = ends("pipeline = 1\nmicro_batch = 1\nglobal_batch = 4");
        assert!((below / median - 0.1).abs() < 0.001 && (above / median - 0.2).abs() < 0.001, "{below} {above}");
        let (_, below, above) = ends("pipeline = 4\nmicro_batch = 1\nglobal_batch = 4");
        // 7 steps of 2 layers; a message out and back in each of the middle stages' steps.
        let layers = 7.0 * 6e6 * 0.1;
        assert!(below > layers && below < layers * 1.01, "{below}");
        assert!(above > 2.0 * layers && above < 2.0 * layers * 1.01, "{above}");
    }

    /// Two iterations wrong by a tenth each: alike they cancel, apart a tenth remains; a cause of one alone stays whole.
    #[test]
    fn what_is_common_to_two_iterations_cancels_in_their_ratio() {
        let ends = |own: [f64; 2], other: [f64; 2], apart| quadrature(2.0, ratios(2.0, &own, &other, apart));
        assert_eq!(ends([0.9, 1.1], [0.9, 1.1], false), (2.0, 2.0));
        let (low, high) = ends([0.9, 1.1], [0.9, 1.1], true);
        assert!((low - 2.0 / 1.1).abs() < 1e-12 && (high - 2.2).abs() < 1e-12, "{low} {high}");
        let (low, high) = ends([0.9, 1.1], [1.0, 1.0], true);
        assert!((low - 1.8).abs() < 1e-12 && (high - 2.2).abs() < 1e-12, "{low} {high}");
    }

    /// Narayanan et al., equation 3: 96·B·s·l·h²·(1 + s/(6h) + V/(16·l·h)) FLOPs with full recomputation of the layers.
    #[test]
    fn flops_are_megatrons_count() {
        let (b, s, l, h, v) = (4.0, 128.0, 8.0, 1024.0, 1024.0);
        let full = job("pipeline = 1\nmicro_batch = 1\nglobal_batch = 4\nrecompute = \"full\"");
        let flop = Flop::of(&full);
        let expected = 96.0 * b * s * l * h * h * (1.0 + s / (6.0 * h) + v / (16.0 * l * h));
        assert_eq!(3.0 * flop.forward + flop.recomputed, expected);
        let found = utilisation(&full, 1_000_000_000);
        assert_eq!(found.tokens_per_s, b * s);
        assert_eq!(found.hardware_tflops_per_gpu, expected / 1e12);
        assert!(found.six_n_tflops_per_gpu < found.tflops_per_gpu);
        assert!((found.gpu_hours_per_billion_tokens - 1e9 / (b * s) / 3600.0).abs() < 1e-6);
    }
}
