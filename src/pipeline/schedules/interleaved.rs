//! Interleaved 1F1B (Narayanan et al., arXiv 2104.04473, §2.2): a stage holds v chunks of layers, so the pipeline fills
//! v times faster; micro-batches go through in groups of p.

use super::numbers;
use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};

pub fn build(spec: &ScheduleSpec) -> Schedule {
    let (p, m, v) = (spec.stages, spec.micro_batches, numbers::chunks(spec.name, spec.chunks));
    let group = p * v;
    // The k-th chunk pass of a stage: micro-batch, and chunk counted from the end the pass begins at.
    let pass = move |k: usize| ((k / group) * p + k % p, k % group / p);
    Schedule::from_lists(spec, v, |stage, list| {
        let passes = m * v;
        let forward = |k: usize| {
            let (micro_batch, chunk) = pass(k);
            StageOperation::new(Work::Forward, micro_batch, chunk)
        };
        let warmup = (2 * (p - 1 - stage) + (v - 1) * p).min(passes);
        list.extend((0..warmup).map(forward));
        for k in 0..passes {
            if warmup + k < passes {
                list.push(forward(warmup + k));
            }
            let (micro_batch, from_end) = pass(k);
            list.push(StageOperation::new(Work::Backward, micro_batch, v - 1 - from_end));
        }
    })
}
