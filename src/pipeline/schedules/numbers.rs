//! For which stages, micro-batches and chunks each schedule exists. Asked before a schedule is built, and by
//! [`crate::pipeline::job`] so that a job file is answered with its line.

use crate::Error;
use crate::pipeline::schedule::Name;
use crate::units::counted;

/// Which of the numbers is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    Stages,
    MicroBatches,
    Chunks,
}

/// Why a schedule does not exist for some numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    pub number: Number,
    pub what: String,
    pub cure: String,
}

impl From<Misfit> for Error {
    fn from(misfit: Misfit) -> Self {
        Error::input(misfit.what, misfit.cure)
    }
}

/// Chunks of an interleaved schedule when nobody chose: the smallest number that interleaves.
pub const DEFAULT_CHUNKS: usize = 2;

/// Into how many chunks a stage's layers are divided.
pub fn chunks(name: Name, given: Option<usize>) -> usize {
    match name {
        Name::Interleaved => given.unwrap_or(DEFAULT_CHUNKS),
        Name::ZbV | Name::VHalf | Name::VMin | Name::Dualpipev => 2,
        _ => 1,
    }
}

/// Only `interleaved` leaves the chunks to the user.
pub fn check_chunks(name: Name, chunks: Option<usize>) -> Result<(), Misfit> {
    if name == Name::Interleaved || chunks.is_none_or(|c| c == 1) {
        return Ok(());
    }
    let what = format!("chunks are not a choice of {}", name.text());
    Err(Misfit { number: Number::Chunks, what, cure: "leave chunks out, or use the schedule interleaved".into() })
}

pub fn check(name: Name, stages: usize, micro_batches: usize, chunks: Option<usize>) -> Result<(), Misfit> {
    let (p, m, schedule) = (stages, micro_batches, name.text());
    let misfit = |number, what: String, cure: &str| Err(Misfit { number, what, cure: cure.into() });
    check_chunks(name, chunks)?;
    match name {
        Name::Interleaved if !m.is_multiple_of(p) => misfit(
            Number::MicroBatches,
            format!("micro-batches {m} cannot be divided by stages {p}"),
            &format!("interleaved runs them in groups of one per stage: use {}", multiples(m, p)),
        ),
        Name::Chimera | Name::Dualpipe if !p.is_multiple_of(2) => misfit(
            Number::Stages,
            format!("{schedule} with {}", counted(p, "stage")),
            "two pipelines share the devices, each device holding a stage of both: use an even number of stages",
        ),
        Name::Chimera if !m.is_multiple_of(p) => misfit(
            Number::MicroBatches,
            format!("micro-batches {m} cannot be divided by stages {p}"),
            &format!("chimera runs them in blocks of one per stage: use {}", multiples(m, p)),
        ),
        Name::Dualpipe if !m.is_multiple_of(2) => misfit(
            Number::MicroBatches,
            format!("dualpipe with {}", counted(m, "micro-batch")),
            "half of them enter at either end: use an even number",
        ),
        Name::Dualpipe | Name::Dualpipev if m < 2 * p => misfit(
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
