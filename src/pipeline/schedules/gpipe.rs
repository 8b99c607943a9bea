//! GPipe (Huang et al., arXiv 1811.06965): every forward, then every backward, last micro-batch first.

use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};

pub fn build(spec: &ScheduleSpec) -> Schedule {
    let m = spec.micro_batches;
    Schedule::from_lists(spec, 1, |_, list| {
        list.extend((0..m).map(|k| StageOperation::new(Work::Forward, k, 0)));
        list.extend((0..m).rev().map(|k| StageOperation::new(Work::Backward, k, 0)));
    })
}
