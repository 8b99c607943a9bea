//! The schedules, a file each: functions from (stages, micro-batches, chunks) to every stage's list.

mod chimera;
mod dualpipe;
mod gpipe;
mod interleaved;
pub mod numbers;
mod one_f_one_b;
mod vee;
mod vee_order;
mod zb_h;
mod zb_search;
mod zb_v;

use super::activations;
use super::schedule::{Name, Schedule, Spec};
use crate::{Error, Result};

/// Called by [`Schedule::build`] once the sizes are checked.
pub(super) fn build(spec: &Spec) -> Result<Schedule> {
    numbers::check(spec.name, spec.stages, spec.micro_batches, spec.chunks)?;
    let schedule = match spec.name {
        Name::Gpipe => gpipe::build(spec),
        Name::OneFOneB => one_f_one_b::build(spec),
        Name::Interleaved => interleaved::build(spec),
        Name::ZbH1 => zb_h::build(spec, 1),
        Name::ZbH2 => zb_h::build(spec, 2),
        Name::Zb1p => zb_search::build(spec, 1)?,
        Name::Zb2p => zb_search::build(spec, 2)?,
        Name::ZbV => zb_v::build(spec)?,
        Name::VHalf => vee::build(spec, 3)?,
        Name::VMin => vee::build(spec, 2)?,
        Name::Chimera => chimera::build(spec),
        Name::Dualpipe => dualpipe::two_way(spec),
        Name::Dualpipev => dualpipe::vee(spec),
    };
    check_memory(&schedule, spec)?;
    Ok(schedule)
}

/// A fixed list cannot give way to a limit: it can only say that it does not fit.
fn check_memory(schedule: &Schedule, spec: &Spec) -> Result<()> {
    let Some(limit) = spec.memory_limit else { return Ok(()) };
    for stage in 0..schedule.stages {
        let peak = activations::peak(schedule, stage, spec.weight_share);
        if peak > limit + 1e-9 {
            return Err(Error::input(
                format!(
                    "{} keeps the activations of {peak:.2} micro-batches on stage {stage}, the memory limit is {limit}",
                    schedule.name.text()
                ),
                "raise the limit, or choose a schedule that keeps fewer (1f1b and zb-h1 keep one a stage behind it)",
            ));
        }
    }
    Ok(())
}
