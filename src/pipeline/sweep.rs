//! One job divided over its GPUs in every way: pipeline × tensor × data × micro-batch, each with its predicted
//! iteration, bubble ratio and memory.

use super::costs;
use super::iteration;
use super::job::Job;
use super::memory;
use super::prices::{Prices, RememberedPrices};
use crate::shape::DType;
use crate::units::counted;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The name and version of the format, which every file holds in `schema`.
pub const SCHEMA: &str = "bubblebench.sweep/2";

/// Sequences of a micro-batch that are tried; beyond, a layer gains nothing more and the pipeline only loses.
const LARGEST_MICRO_BATCH: u64 = 32;

/// A job divided over its GPUs in every way that divides, as `plan --sweep --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepRecord {
    /// Always `bubblebench.sweep/2`.
    pub schema: String,
    /// Path of the job file.
    pub job: String,
    /// The model's preset, or its layers and hidden size in words.
    pub model: String,
    /// The name of the machine whose cost model the times come from.
    pub machine: String,
    /// GPUs of the job; every division uses all of them.
    pub gpus: u64,
    /// Sequences of one iteration, over all data-parallel ranks.
    pub global_batch: u64,
    /// The schedule's name, e.g. `1f1b`; it is the same for every division.
    pub schedule: String,
    /// Memory of one GPU in bytes; null where it is not known, and then nothing was checked against it.
    pub memory_bytes: Option<u64>,
    /// One row a division: those that fit the memory first, then by iteration time.
    pub rows: Vec<SweepRow>,
    /// How many divisions were left out because something does not divide, or the schedule does not exist for the
    /// numbers.
    pub left_out: u64,
    /// What the reader should know about the rows, a sentence each.
    pub notes: Vec<String>,
}

/// One way to divide the job over its GPUs, and what is predicted for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepRow {
    /// Pipeline-parallel size: the number of stages.
    pub pipeline: u64,
    /// Tensor-parallel size; at most the GPUs of a node.
    pub tensor: u64,
    /// Data-parallel size.
    pub data: u64,
    /// Sequences of one micro-batch.
    pub micro_batch: u64,
    /// Micro-batches of one iteration on each data-parallel rank.
    pub micro_batches: u64,
    /// Predicted time of one iteration in ns: pipeline, gradients and optimizer step.
    pub iteration_ns: u64,
    /// Lower end of the 95 % interval of `iteration_ns`, in ns.
    pub iteration_low_ns: u64,
    /// Upper end of the 95 % interval of `iteration_ns`, in ns.
    pub iteration_high_ns: u64,
    /// The row's place in the list, counted from 1. Rows share a place as long as they are not known to be
    /// slower than the first of it: the 95 % interval of the ratio of their iterations holds 1.
    pub rank: u64,
    /// The share of the pipeline's time in which stages compute nothing; gradients and optimizer step do not count.
    pub bubble_ratio: f64,
    /// Sequences of the global batch per second of `iteration_ns`.
    pub sequences_per_s: f64,
    /// The most bytes that the fullest GPU holds at once.
    pub peak_bytes: u64,
    /// Whether `peak_bytes` and the headroom are within the GPU's memory; null where the memory is not known.
    pub fits_memory: Option<bool>,
    /// Whether the layer's shape lies within what the cost model was measured on; its times are extrapolated if not.
    pub layer_in_range: bool,
    /// Whether the layer and every other price lie within what the cost model was measured on.
    pub in_range: bool,
    /// Whether this is the division that the job file itself asks for.
    pub own: bool,
}

/// Every division of the job's GPUs that is possible, and how many are not because something does not divide. Tensor
/// parallelism stays within a node.
pub fn divisions(job: &Job) -> (Vec<Job>, u64) {
    let (gpus, batch) = (job.gpus(), job.parallel.global_batch);
    let mut found = Vec::new();
    let mut left_out = 0;
    for pipeline in divisors(gpus, job.model.layers) {
        for tensor in divisors(gpus / pipeline, job.hardware.gpus_per_node) {
            let shared = pipeline * tensor * job.parallel.context;
            if !gpus.is_multiple_of(shared) {
                left_out += 1;
                continue;
            }
            let data = gpus / shared;
            let mut micro_batches = divisors(batch / data, LARGEST_MICRO_BATCH);
            if !micro_batches.contains(&job.parallel.micro_batch) {
                micro_batches.push(job.parallel.micro_batch);
            }
            for micro_batch in micro_batches {
                match job.divided(pipeline, tensor, data, micro_batch) {
                    Some(division) => found.push(division),
                    None => left_out += 1,
                }
            }
        }
    }
    (found, left_out)
}

/// Of n, up to the largest; none of 0.
fn divisors(n: u64, largest: u64) -> Vec<u64> {
    (1..=largest.min(n)).filter(|d| n.is_multiple_of(*d)).collect()
}

/// Predicts every division, on all cores; `machine` is its name and a GPU's memory in bytes, `progress` hears how many
/// of how many are done. Fails if no division could be predicted.
pub fn sweep(
    job: &Job,
    prices: &(dyn Prices + Sync),
    dtype: DType,
    machine: (&str, Option<u64>),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<SweepRecord> {
    let (divisions, left_out) = divisions(job);
    let prices = &RememberedPrices::new(prices);
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(divisions.len().max(1));
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut rows = Vec::new();
        while let Some(division) = divisions.get(next.fetch_add(1, Ordering::Relaxed)) {
            rows.push(row(job, division, prices, dtype, machine.1));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, divisions.len());
        }
        rows
    };
    let tried: Vec<Result<Swept>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|w| w.join().ok()).flatten().collect()
    });
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for result in tried {
        match result {
            Ok(row) => rows.push(row),
            Err(error) => failures.push(error),
        }
    }
    if rows.is_empty() {
        return Err(failures.pop().unwrap_or_else(|| {
            let what = format!("{}: no way to divide {} fits the job", job.path.display(), counted(job.gpus(), "GPU"));
            Error::input(
                what,
                "layers, heads and global_batch must divide, and the schedule must exist for the numbers",
            )
        }));
    }
    let place = |r: &SweepRow| (r.fits_memory == Some(false), r.iteration_ns, r.pipeline, r.tensor, r.micro_batch);
    rows.sort_by_key(|swept: &Swept| place(&swept.row));
    let rows = ranked(rows);
    Ok(SweepRecord {
        schema: SCHEMA.into(),
        job: job.path.display().to_string(),
        model: job.model.name.clone(),
        machine: machine.0.into(),
        gpus: job.gpus(),
        global_batch: job.parallel.global_batch,
        schedule: job.parallel.schedule.text().into(),
        memory_bytes: job.hardware.memory_gib.map(|gib| (gib * memory::GIB) as u64).or(machine.1),
        notes: notes(&rows, failures),
        rows,
        left_out,
    })
}

/// A row, and its iteration with each group of prices at its ends, over its median.
struct Swept {
    row: SweepRow,
    moved: Vec<f64>,
}

/// Gives rows, the fastest first, their places.
fn ranked(swept: Vec<Swept>) -> Vec<SweepRow> {
    let (mut rows, mut first): (Vec<SweepRow>, Option<(SweepRow, Vec<f64>)>) = (Vec::new(), None);
    for Swept { mut row, moved } in swept {
        let like = first.as_ref().filter(|(leader, leaders)| {
            let ratio = row.iteration_ns as f64 / (leader.iteration_ns as f64).max(1.0);
            let apart = (row.tensor, row.micro_batch) != (leader.tensor, leader.micro_batch);
            let (low, _) = iteration::quadrature(ratio, iteration::ratios(ratio, &moved, leaders, apart));
            low <= 1.0 && (row.fits_memory == Some(false)) == (leader.fits_memory == Some(false))
        });
        row.rank = like.map_or(rows.len() as u64 + 1, |(leader, _)| leader.rank);
        if like.is_none() {
            first = Some((row.clone(), moved));
        }
        rows.push(row);
    }
    rows
}

fn row(job: &Job, division: &Job, prices: &dyn Prices, dtype: DType, machine_bytes: Option<u64>) -> Result<Swept> {
    let costs = costs::of_job(division, prices, dtype)?;
    let p = &division.parallel;
    let share = division.weight_share();
    let timeline = iteration::timeline(division, &costs, p.schedule, p.chunks())?;
    let memory = memory::estimate(division, dtype, &costs.layer, machine_bytes);
    let memory = memory::for_schedule(division, dtype, &costs.layer, &memory, &timeline.schedule, share);
    let iteration_ns = iteration::whole_ns(&timeline, &costs);
    let median = iteration_ns as f64;
    let moved = iteration::moved_ns(division, prices, &timeline, dtype)?;
    let (low, high) = iteration::quadrature(median, moved.iter().copied());
    let row = SweepRow {
        pipeline: p.pipeline,
        tensor: p.tensor,
        data: p.data,
        micro_batch: p.micro_batch,
        micro_batches: division.micro_batches(),
        iteration_ns,
        iteration_low_ns: low.round() as u64,
        iteration_high_ns: high.round() as u64,
        rank: 0,
        bubble_ratio: timeline.bubble_ratio(),
        sequences_per_s: p.global_batch as f64 / (iteration_ns as f64 / 1e9).max(f64::MIN_POSITIVE),
        peak_bytes: memory.peak_bytes(&timeline.schedule, share) as u64,
        fits_memory: memory.fits_with_headroom(&timeline.schedule, share),
        layer_in_range: costs.layer.in_range(),
        in_range: costs.in_range,
        own: *p == job.parallel,
    };
    Ok(Swept { row, moved: moved.into_iter().map(|ns| ns / median.max(1.0)).collect() })
}

fn notes(rows: &[SweepRow], failures: Vec<Error>) -> Vec<String> {
    let mut notes = Vec::new();
    let outside = rows.iter().filter(|r| !r.in_range).count();
    if outside > 0 {
        notes.push(format!(
            "{outside} of {} need a price the cost model does not hold or has to extrapolate",
            counted(rows.len(), "division")
        ));
    }
    if rows.iter().any(|r| r.fits_memory.is_none()) {
        notes.push("the GPU's memory is not known, so nothing was checked against it: set memory_gib".into());
    }
    if let Some(first) = failures.first() {
        notes.push(format!("{} more could not be simulated, the first because {first}", failures.len()));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::prices::{LayerPrice, Price, PricedCollective};
    use crate::pipeline::{Schedule, ScheduleSpec, simulate};
    use crate::shape::LayerShape;
    use std::path::Path;

    /// Layers by their FLOPs, messages by their bytes.
    struct Made;

    impl Prices for Made {
        fn layer(&self, shape: LayerShape) -> Result<LayerPrice> {
            let ns = (shape.micro_batch * 1000 / shape.tensor) as f64;
            let activation_bytes = (shape.rows() * shape.hidden * 34) / shape.tensor;
            Ok(LayerPrice::exact(ns, ns, ns, activation_bytes))
        }
        fn collective(&self, message: PricedCollective) -> Option<Price> {
            Some(Price::exact(message.bytes as f64 / 1e4, message.nodes == 1))
        }
        fn operation(&self, _: &crate::shape::operation::Operation, _: DType) -> Option<Price> {
            Some(Price::exact(10.0, true))
        }
    }

    fn job(parallel: &str) -> Job {
        let text = format!(
            "[model]\nlayers = 8\nhidden = 1024\nheads = 16\nsequence = 128\nvocabulary = 4096\n[parallel]\n{parallel}\n\
             [hardware]\ngpus_per_node = 4\nmemory_gib = 0.8\n[limits]\nmemory_headroom_gib = 0"
        );
        Job::parse(Path::new("job.toml"), &text).unwrap()
    }

    fn swept(parallel: &str) -> SweepRecord {
        sweep(&job(parallel), &Made, DType::Bf16, ("made", None), &|_, _| {}).unwrap()
    }

    #[test]
    fn every_division_is_whole_and_sorted() {
        let record = swept("pipeline = 4\ntensor = 2\nmicro_batch = 2\nglobal_batch = 48");
        assert_eq!(record.rows.iter().filter(|r| r.own).count(), 1);
        for r in &record.rows {
            assert_eq!(r.pipeline * r.tensor * r.data, 8);
            assert_eq!(r.micro_batches * r.micro_batch * r.data, 48);
            assert!(r.tensor <= 4 && 8 % r.pipeline == 0);
        }
        let order: Vec<_> = record.rows.iter().map(|r| (r.fits_memory == Some(false), r.iteration_ns)).collect();
        assert!(order.is_sorted(), "{order:?}");
        assert!(order.first().unwrap() != order.last().unwrap());
        assert!(record.rows.iter().any(|r| r.fits_memory == Some(false)) && record.rows[0].fits_memory == Some(true));
        assert!(record.notes[0].contains("divisions need a price"));
    }

    /// What a plan of the same division says.
    #[test]
    fn a_row_is_the_iteration_of_its_division() {
        let parallel = "pipeline = 2\ntensor = 2\ndata = 2\nmicro_batch = 2\nglobal_batch = 48";
        let own = swept(parallel).rows.into_iter().find(|r| r.own).unwrap();
        let (job, dtype) = (job(parallel), DType::Bf16);
        let costs = costs::of_job(&job, &Made, dtype).unwrap();
        let times = costs.times(&job, job.layout());
        let spec = ScheduleSpec {
            name: job.parallel.schedule,
            stages: 2,
            micro_batches: 12,
            chunks: None,
            memory_limit: None,
            weight_share: job.weight_share(),
            times: &times,
        };
        let timeline = simulate(Schedule::build(&spec).unwrap(), times.clone()).unwrap();
        let after = costs.after(timeline.schedule.layout.placement).total_ns();
        assert_eq!(own.iteration_ns, timeline.iteration_ns + after);
        assert_eq!(own.bubble_ratio, timeline.bubble_ratio());
    }

    #[test]
    fn what_a_schedule_does_not_allow_is_left_out() {
        let parallel =
            "pipeline = 4\ntensor = 2\nmicro_batch = 2\nglobal_batch = 48\nschedule = \"interleaved\"\nchunks = 2";
        let record = swept(parallel);
        assert!(
            record.left_out > 0 && record.rows.iter().all(|r| r.pipeline <= 4 && r.micro_batches % r.pipeline == 0)
        );
    }
}
