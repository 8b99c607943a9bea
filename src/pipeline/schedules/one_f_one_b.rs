//! 1F1B, PipeDream-flush (Narayanan et al., arXiv 2006.09503): a stage keeps at most as many micro-batches as there are
//! stages from it to the end.

use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};

pub fn build(spec: &ScheduleSpec) -> Schedule {
    let (p, m) = (spec.stages, spec.micro_batches);
    Schedule::from_lists(spec, 1, |stage, list| {
        let warmup = (p - 1 - stage).min(m);
        list.extend((0..warmup).map(|k| StageOperation::new(Work::Forward, k, 0)));
        for k in 0..m {
            if warmup + k < m {
                list.push(StageOperation::new(Work::Forward, warmup + k, 0));
            }
            list.push(StageOperation::new(Work::Backward, k, 0));
        }
    })
}
