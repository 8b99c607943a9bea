//! For which stages, micro-batches and chunks each schedule exists. Asked before a schedule is built, and by
//! [`crate::pipeline::job`] so that a job file is answered with its line.

use crate::Error;
use crate::pipeline::schedule::ScheduleName;
use crate::units::counted;

/// Which of a schedule's numbers does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The number of pipeline stages.
    Stages,
    /// The number of micro-batches of an iteration.
    MicroBatches,
    /// The number of chunks a stage.
    Chunks,
}

/// Why a schedule does not exist for some numbers, and which other numbers it exists for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The number that has to change.
    pub number: Number,
    /// What does not fit, which is the first half of the error message.
    pub what: String,
    /// What to give instead, which is the second half of the error message.
    pub cure: String,
}

impl From<Misfit> for Error {
    fn from(misfit: Misfit) -> Self {
        Error::input(misfit.what, misfit.cure)
    }
}

/// Chunks a stage of an interleaved schedule where none are given: the smallest number that interleaves.
pub const DEFAULT_CHUNKS: usize = 2;

/// Into how many chunks the layers of a pipeline stage are divided; 1 in a two-way pipeline, whose devices hold two
/// whole stages.
pub fn chunks(name: ScheduleName, given: Option<usize>) -> usize {
    match name {
        ScheduleName::Interleaved => given.unwrap_or(DEFAULT_CHUNKS),
        ScheduleName::ZbV | ScheduleName::VHalf | ScheduleName::VMin | ScheduleName::Dualpipev => 2,
        _ => 1,
    }
}

/// Fails if chunks other than 1 are given to a schedule that is not `interleaved`, the only one that leaves them to the
/// user.
pub fn check_chunks(name: ScheduleName, chunks: Option<usize>) -> Result<(), Misfit> {
    if name == ScheduleName::Interleaved || chunks.is_none_or(|c| c == 1) {
        return Ok(());
    }
    let what = format!("chunks are not a choice of {}", name.text());
    Err(Misfit { number: Number::Chunks, what, cure: "leave chunks out, or use the schedule interleaved".into() })
}

/// Fails if the schedule does not exist for these stages, micro-batches and chunks (docs/pipeline.md lists what each
/// asks for).
pub fn check(name: ScheduleName, stages: usize, micro_batches: usize, chunks: Option<usize>) -> Result<(), Misfit> {
    let (p, m, schedule) = (stages, micro_batches, name.text());
    let misfit = |number, what: String, cure: &str| Err(Misfit { number, what, cure: cure.into() });
    check_chunks(name, chunks)?;
    match name {
        ScheduleName::Interleaved if !m.is_multiple_of(p) => misfit(
            Number::MicroBatches,
            format!("micro-batches {m} cannot be divided by stages {p}"),
            &format!("interleaved runs them in groups of one per stage: use {}", multiples(m, p)),
        ),
        ScheduleName::Chimera | ScheduleName::Dualpipe if !p.is_multiple_of(2) => misfit(
            Number::Stages,
            format!("{schedule} with {}", counted(p, "stage")),
            "two pipelines share the devices, each device holding a stage of both: use an even number of stages",
        ),
        ScheduleName::Chimera if !m.is_multiple_of(p) => misfit(
            Number::MicroBatches,
            format!("micro-batches {m} cannot be divided by stages {p}"),
            &format!("chimera runs them in blocks of one per stage: use {}", multiples(m, p)),
        ),
        ScheduleName::Dualpipe if !m.is_multiple_of(2) => misfit(
            Number::MicroBatches,
            format!("dualpipe with {}", counted(m, "micro-batch")),
            "half of them enter at either end: use an even number",
        ),
        ScheduleName::Dualpipe | ScheduleName::Dualpipev if m < 2 * p => misfit(
            Number::MicroBatches,
            format!("{schedule} with {} on {}", counted(m, "micro-batch"), counted(p, "stage")),
            &format!("it needs two a stage to begin and to end with: use at least {}", 2 * p),
        ),
        _ => Ok(()),
    }
}

/// The multiples of p next to m.
fn multiples(m: usize, p: usize) -> String {
    let (below, above) = (m / p * p, m.div_ceil(p) * p);
    if below == 0 { format!("{above}") } else { format!("{below} or {above}") }
}
