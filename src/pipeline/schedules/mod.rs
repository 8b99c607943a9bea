//! The schedules, a file each: functions from (stages, micro-batches, chunks) to every stage's list.

mod chimera;
mod gpipe;
mod interleaved;
mod one_f_one_b;
mod vee;
mod vee_order;
mod zb_h;
mod zb_search;
mod zb_v;

use super::activations;
use super::schedule::{Name, Schedule, Spec};
use crate::{Error, Result};

/// The schedules this version can build.
pub const AVAILABLE: [Name; 11] = [
    Name::Gpipe,
    Name::OneFOneB,
    Name::Interleaved,
    Name::ZbH1,
    Name::ZbH2,
    Name::Zb1p,
    Name::Zb2p,
    Name::ZbV,
    Name::VHalf,
    Name::VMin,
    Name::Chimera,
];

/// Called by [`Schedule::build`] once the sizes are checked.
pub(super) fn build(spec: &Spec) -> Result<Schedule> {
    if spec.name != Name::Interleaved && spec.chunks.is_some_and(|c| c != 1) {
        return Err(Error::input(
            format!("chunks are not a choice of {}", spec.name.text()),
            "leave --chunks out, or use --schedule interleaved",
        ));
    }
    let schedule = match spec.name {
        Name::Gpipe => gpipe::build(spec),
        Name::OneFOneB => one_f_one_b::build(spec),
        Name::Interleaved => interleaved::build(spec)?,
        Name::ZbH1 => zb_h::build(spec, 1),
        Name::ZbH2 => zb_h::build(spec, 2),
        Name::Zb1p => zb_search::build(spec, 1)?,
        Name::Zb2p => zb_search::build(spec, 2)?,
        Name::ZbV => zb_v::build(spec)?,
        Name::VHalf => vee::build(spec, 3)?,
        Name::VMin => vee::build(spec, 2)?,
        Name::Chimera => chimera::build(spec)?,
        other => {
            let known = AVAILABLE.map(Name::text).join(", ");
            return Err(Error::input(
                format!("schedule {} is not in this version", other.text()),
                format!("choose one of {known}"),
            ));
        }
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
