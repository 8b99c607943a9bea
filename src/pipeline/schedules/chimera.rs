//! Chimera (Li & Hoefler, arXiv 2107.06925): two pipelines in opposite directions through the same devices, so that the
//! one's start fills the other's wait. Blocks of p micro-batches, half of them each way, follow one another directly.
//!
//! On a grid with F = B = 1, pass j of a pipeline reaches its stage s at s + 2j and comes back through it at
//! 2p − 1 − s + 2j; the two pipelines fall on slots of different parity, and blocks 2p apart do not meet.

use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};

pub fn build(spec: &ScheduleSpec) -> Schedule {
    let (p, m) = (spec.stages, spec.micro_batches);
    Schedule::from_lists(spec, 2, |device, list| {
        let mut slots: Vec<(usize, StageOperation)> = Vec::with_capacity(2 * m);
        for pass in 0..m / 2 {
            let (block, j) = (pass / (p / 2), pass % (p / 2));
            for (chunk, stage) in [(0, device), (1, p - 1 - device)] {
                let begin = 2 * p * block + 2 * j;
                let micro_batch = chunk * (m / 2) + pass;
                slots.push((begin + stage, StageOperation::new(Work::Forward, micro_batch, chunk)));
                slots.push((begin + 2 * p - 1 - stage, StageOperation::new(Work::Backward, micro_batch, chunk)));
            }
        }
        slots.sort_unstable_by_key(|(slot, _)| *slot);
        list.extend(slots.into_iter().map(|(_, operation)| operation));
    })
}
