//! Which chunk follows which in a list of operations, and whether its stages can run to their ends under it.

use super::check::Order;
use crate::pipeline::layout::{Layout, Placement};
use crate::pipeline::operations::OperationKind;
use crate::pipeline::schedule::{OrderName, Schedule, ScheduleName, StageOperation, Work};
use crate::pipeline::simulate::simulate;
use crate::pipeline::times::{StageTimes, Times};
use crate::{Error, Result};

/// The schedule of a list: with the placement of the schedule that it says it is, else with the one its operations show.
/// Fails if the stages wait for each other in a circle.
pub fn place(order: Order, says: Option<ScheduleName>) -> Result<Schedule> {
    let any = |is: fn(&StageOperation) -> bool| order.operations.iter().any(is);
    let name = OrderName::Given {
        says,
        fused_backward: !any(|o| o.work == Work::BackwardWeight),
        overlaps: any(|o| o.paired),
    };
    // Whether lists wait in a circle does not depend on how long anything takes.
    let times = Times::even(order.stages, StageTimes::new(1, 1, 1), 0);
    let mut circle = None;
    for placement in placements(&order, says) {
        let layout = Layout { placement, stages: order.stages, chunks: order.chunks };
        let (operations, offsets) = (order.operations.clone(), order.offsets.clone());
        let schedule = Schedule::from_given(name, layout, order.micro_batches, operations, offsets);
        match simulate(schedule, times.clone()) {
            Ok(timeline) => return Ok(timeline.schedule),
            Err(e) => circle = circle.or(Some(e)),
        }
    }
    Err(circle.unwrap_or_else(|| Error::bug("a list of operations has no placement")))
}

/// The placements that may be meant, the likeliest first.
fn placements(order: &Order, says: Option<ScheduleName>) -> Vec<Placement> {
    match says {
        Some(name) => vec![name.placement()],
        None if order.two_way => vec![Placement::Both],
        None if order.chunks == 2 => {
            let both = vec![Placement::Loop, Placement::Vee];
            let shown: Vec<Placement> = both.iter().copied().filter(|&p| shown_by_times(order, p)).collect();
            if shown.is_empty() { both } else { shown }
        }
        None => vec![Placement::Loop],
    }
}

/// Whether no forward starts before the one that it needs; true where the times are not known.
fn shown_by_times(order: &Order, placement: Placement) -> bool {
    let Some(starts) = &order.start_ns else { return true };
    let layout = Layout { placement, stages: order.stages, chunks: order.chunks };
    let slot = |(stage, chunk): (usize, usize), micro_batch: u32| {
        layout.cell(stage, chunk) * order.micro_batches + micro_batch as usize
    };
    let mut forward = vec![0; layout.cells() * order.micro_batches];
    let cells = || {
        let stages =
            (0..order.stages).flat_map(|s| (order.offsets[s]..order.offsets[s + 1]).map(move |index| (s, index)));
        let forwards = stages.filter(|&(_, index)| order.operations[index].work == Work::Forward);
        forwards.map(|(s, index)| {
            ((s, order.operations[index].chunk as usize), order.operations[index].micro_batch, starts[index])
        })
    };
    for (cell, micro_batch, start) in cells() {
        forward[slot(cell, micro_batch)] = start;
    }
    cells().all(|((stage, chunk), micro_batch, start)| {
        layout.previous(stage, chunk).is_none_or(|before| forward[slot(before, micro_batch)] <= start)
    })
}

/// That the operation with this index never starts on this stage: the user's mistake in a list, ours in a schedule of ours.
pub fn never_starts(schedule: &Schedule, stage: usize, index: usize) -> Error {
    let name = |work: Work, (stage, chunk): (usize, usize), micro_batch: u32| {
        let chunk = if schedule.chunks > 1 { format!(", chunk {chunk}") } else { String::new() };
        format!("{} of micro-batch {micro_batch} on stage {stage}{chunk}", OperationKind::from(work).text())
    };
    let operation = schedule.operations()[index];
    let here = (stage, operation.chunk as usize);
    let input = match operation.work {
        _ if operation.paired => None,
        Work::Forward => schedule.previous(here.0, here.1),
        _ => schedule.next(here.0, here.1),
    };
    let mut what = name(operation.work, here, operation.micro_batch);
    what += if operation.paired { ", half of a pair, can never start" } else { " can never start" };
    if let Some(other) = input {
        what +=
            &format!(": it waits for {}, which never runs either", name(operation.work, other, operation.micro_batch));
    }
    match schedule.name {
        OrderName::Known(known) => Error::bug(format!("{}: {what}", known.text())),
        OrderName::Given { says, .. } => {
            let placed = match says {
                None if schedule.chunks == 2 => ", or say in `schedule` which one places its chunks as yours does",
                _ => "",
            };
            Error::input(what, format!("the stages wait for each other in a circle: change the order of one{placed}"))
        }
    }
}
