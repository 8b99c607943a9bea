//! ZB-H1 and ZB-H2 (Qi et al., arXiv 2401.10241, §2): the backward pass is split in B, which the stage before waits
//! for, and W, which nobody waits for and which therefore fills what would be bubbles. H1 keeps 1F1B's memory, H2 twice it.

use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};

/// `depth` is 1 for H1 and 2 for H2: how many micro-batches per following stage run ahead.
pub fn build(spec: &ScheduleSpec, depth: usize) -> Schedule {
    let (p, m) = (spec.stages, spec.micro_batches);
    Schedule::from_lists(spec, 1, |stage, list| {
        let warmup = (depth * (p - 1 - stage)).min(m);
        list.extend((0..warmup).map(|k| StageOperation::new(Work::Forward, k, 0)));
        let mut weights = 0;
        for j in 0..m {
            if warmup + j < m {
                list.push(StageOperation::new(Work::Forward, warmup + j, 0));
            }
            list.push(StageOperation::new(Work::BackwardInput, j, 0));
            if j >= depth * stage {
                list.push(StageOperation::new(Work::BackwardWeight, weights, 0));
                weights += 1;
            }
        }
        list.extend((weights..m).map(|k| StageOperation::new(Work::BackwardWeight, k, 0)));
    })
}
