//! The schedules, a file each: functions from (stages, micro-batches, chunks) to every stage's list. What is to be touched
//! to add one, from its name in `pipeline/schedule.rs` on: docs/extending.md.

mod chimera;
mod dualpipe;
mod gpipe;
mod interleaved;
pub mod numbers;
mod one_f_one_b;
mod vee;
mod vee_order;
mod vee_pattern;
mod zb_h;
mod zb_search;
mod zb_v;

use super::activations;
use super::schedule::{MAX_OPERATIONS, Schedule, ScheduleName, ScheduleSpec};
use super::times::Times;
use crate::units::counted;
use crate::{Error, Result};

/// How long the order of operations is searched for by the schedules that search for one; the others do not look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SearchEffort {
    /// Some tenths of a second for `zb-v`, less for the others: for a schedule that is shown.
    Full,
    /// One to three milliseconds on eight stages: for schedules that are only compared with each other.
    Quick,
}

impl Schedule {
    /// Builds the schedule. Fails if sizes, times or limits cannot be used, if the schedule does not exist for them, or
    /// if it needs more activations than the memory limit.
    pub fn build(spec: &ScheduleSpec) -> Result<Self> {
        Schedule::build_with(spec, SearchEffort::Full)
    }

    /// Builds the schedule as [`Schedule::build`] does, the searched ones with this effort.
    pub fn build_with(spec: &ScheduleSpec, effort: SearchEffort) -> Result<Self> {
        check_sizes(spec)?;
        build(spec, effort)
    }

    /// Checks a schedule that was given as a list as [`Schedule::build`] checks what it makes. Fails if times or limits
    /// cannot be used, or if the schedule needs more activations than the memory limit.
    pub fn check_given(&self, memory_limit: Option<f64>, weight_share: f64, times: &Times) -> Result<()> {
        check_limits(memory_limit, weight_share)?;
        times.validate(self.stages, self.micro_batches, self.chunks)?;
        check_memory(self, memory_limit, weight_share)
    }
}

fn build(spec: &ScheduleSpec, effort: SearchEffort) -> Result<Schedule> {
    numbers::check(spec.name, spec.stages, spec.micro_batches, spec.chunks)?;
    let schedule = match spec.name {
        ScheduleName::Gpipe => gpipe::build(spec),
        ScheduleName::OneFOneB => one_f_one_b::build(spec),
        ScheduleName::Interleaved => interleaved::build(spec),
        ScheduleName::ZbH1 => zb_h::build(spec, 1),
        ScheduleName::ZbH2 => zb_h::build(spec, 2),
        ScheduleName::Zb1p => zb_search::build(spec, 1, effort)?,
        ScheduleName::Zb2p => zb_search::build(spec, 2, effort)?,
        ScheduleName::ZbV => zb_v::build(spec, effort)?,
        ScheduleName::VHalf => vee::build(spec, 3)?,
        ScheduleName::VMin => vee::build(spec, 2)?,
        ScheduleName::Chimera => chimera::build(spec),
        ScheduleName::Dualpipe => dualpipe::two_way(spec),
        ScheduleName::Dualpipev => dualpipe::vee(spec),
    };
    check_memory(&schedule, spec.memory_limit, spec.weight_share)?;
    Ok(schedule)
}

fn check_sizes(spec: &ScheduleSpec) -> Result<()> {
    for (what, value) in [("stages", spec.stages), ("micro-batches", spec.micro_batches)] {
        if value == 0 {
            return Err(Error::input(format!("{what} is 0"), format!("give 1 or more {what}")));
        }
    }
    let given = spec.chunks.unwrap_or(1);
    if given == 0 || given > 4096 {
        return Err(Error::input(format!("chunks is {given}"), "give 1 to 4096 chunks a stage"));
    }
    let chunks = numbers::chunks(spec.name, spec.chunks);
    let operations = 3 * spec.stages as u128 * spec.micro_batches as u128 * chunks as u128;
    if operations > MAX_OPERATIONS {
        return Err(Error::input(
            format!(
                "{} × {} × {} are {operations} operations",
                counted(spec.stages, "stage"),
                counted(spec.micro_batches, "micro-batch"),
                counted(chunks, "chunk")
            ),
            format!("stay under {MAX_OPERATIONS}: the pattern repeats, fewer micro-batches show the same bubbles"),
        ));
    }
    check_limits(spec.memory_limit, spec.weight_share)?;
    spec.times.validate(spec.stages, spec.micro_batches, chunks)
}

fn check_limits(memory_limit: Option<f64>, weight_share: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&weight_share) {
        return Err(Error::input(
            format!("the weight share is {weight_share}"),
            "give the part of a micro-batch's activations that W still needs, 0 to 1",
        ));
    }
    match memory_limit {
        Some(limit) if !(limit > 0.0 && limit.is_finite()) => {
            Err(Error::input(format!("the memory limit is {limit}"), "give a number of micro-batches above 0"))
        }
        _ => Ok(()),
    }
}

/// A fixed list cannot give way to a limit: it can only say that it does not fit.
fn check_memory(schedule: &Schedule, memory_limit: Option<f64>, weight_share: f64) -> Result<()> {
    let Some(limit) = memory_limit else { return Ok(()) };
    for stage in 0..schedule.stages {
        let peak = activations::peak(schedule, stage, weight_share);
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
