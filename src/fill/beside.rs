//! Side work beside the main job's own: what it costs the main and what the side still gets, from the cost model's co-run
//! figures; and how much of it the slowdown limit allows once the bubbles are filled.
//!
//! Running a side of value v beside an operation of time d stretches it to σ·d and leaves the side at rate ρ: the main loses (σ−1)·d, the side
//! wins ρ·σ·d·v. What is left of a stage's budget goes to the pairs of side and phase with the most won per time lost.

use super::pack::{Answer, Question};
use super::side::Side;
use crate::cost::predict;
use crate::pipeline::job::{self, Job};
use crate::records::CostModel;
use std::collections::BTreeMap;

/// One phase of the main job beside the side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Together {
    /// Main's time together ÷ alone, at least 1.
    pub slowdown: f64,
    /// Side's speed together ÷ alone.
    pub rate: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beside {
    pub forward: Together,
    pub backward: Together,
}

/// Operations of one kind on one stage beside which a side runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BesideRun {
    pub side: usize,
    pub backward: bool,
    pub operations: u64,
    /// The side's work, as if alone.
    pub work_ns: f64,
    /// What each of these operations takes longer.
    pub cost_each_ns: f64,
}

/// A stage's own work: how many operations of each kind, and how long one takes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Busy {
    pub forward: (u64, f64),
    pub backward: (u64, f64),
}

impl Beside {
    /// `None` where the job does not ask for it, or the cost model cannot say; then a note says why.
    pub fn of(job: &Job, model: &CostModel, side: &job::Side, notes: &mut Vec<String>) -> Option<Self> {
        let sharing = job.limits.beside_compute.as_deref()?;
        let dtype = job.model.dtype.unwrap_or_else(|| predict::usual_dtype(model));
        let slug = job.layer(dtype).slug();
        let name = side.measured.as_deref().unwrap_or(&side.name);
        let known = with_pressure(model, side, name, sharing);
        let mut ask = |phase: &str| {
            let why = match predict::corun(&known, &format!("gpt-{slug}-{phase}"), name, sharing) {
                Ok(found) => match side.beside_rate.or(found.side_rate) {
                    Some(rate) => return Some(Together { slowdown: found.slowdown.median.max(1.0), rate }),
                    None => format!("how fast it runs beside {phase} under {sharing} is not known: give beside_rate"),
                },
                Err(e) => e.to_string().replace('\n', "; "),
            };
            notes.push(format!("side {} is not put beside compute: {why}", side.name));
            None
        };
        Some(Beside { forward: ask("forward")?, backward: ask("backward")? })
    }
}

/// The model with the pressures the job gives for this side, if any.
fn with_pressure(model: &CostModel, side: &job::Side, name: &str, sharing: &str) -> CostModel {
    let mut known = model.clone();
    if let Some(pressure) = &side.pressure {
        let keyed: BTreeMap<String, f64> =
            pressure.iter().map(|(resource, value)| (format!("{sharing}/{resource}"), *value)).collect();
        known.interference.pressure.insert(name.to_string(), keyed);
    }
    known
}

/// What the limit still allows once the bubbles are filled. A side must fit in memory at every moment, beside what the answer already holds.
pub fn fill(question: &Question, answer: &Answer, busy: Busy) -> Vec<BesideRun> {
    let mut left = question.budget_ns - answer.lost_ns;
    let mut free = [busy.forward, busy.backward].map(|(count, _)| count);
    let mut runs = Vec::new();
    for (side, backward, together) in offers(question, answer) {
        let each = if backward { busy.backward.1 } else { busy.forward.1 };
        let cost_each_ns = (together.slowdown - 1.0) * each + question.close_ns;
        let allowed = if cost_each_ns > 0.0 { (left / cost_each_ns).max(0.0) as u64 } else { u64::MAX };
        let operations = free[usize::from(backward)].min(allowed);
        // One side beside the main at a time: the first that is worth most keeps the rest of the stage out of it.
        if operations == 0 || runs.iter().any(|r: &BesideRun| r.side != side) {
            continue;
        }
        free[usize::from(backward)] -= operations;
        left -= operations as f64 * cost_each_ns;
        let work_ns = operations as f64 * each * together.slowdown * together.rate;
        runs.push(BesideRun { side, backward, operations, work_ns, cost_each_ns });
    }
    runs
}

/// Sides and phases in the order of what they win for each nanosecond the main loses.
fn offers(question: &Question, answer: &Answer) -> Vec<(usize, bool, Together)> {
    let fits = |index: usize, side: &Side| {
        let others = answer.resident.iter().filter(|r| r.side != index);
        let held: f64 = others.map(|r| r.held_bytes(question.sides)).sum();
        question.least_free.is_none_or(|free| side.memory_bytes + held <= free)
    };
    let mut offers: Vec<(f64, usize, bool, Together)> = question
        .sides
        .iter()
        .enumerate()
        .filter(|(index, side)| side.value > 0.0 && fits(*index, side))
        .filter_map(|(index, side)| Some((index, side.value, side.beside?)))
        .flat_map(|(index, value, b)| {
            [(false, b.forward), (true, b.backward)].map(|(backward, t)| {
                let won = t.rate * t.slowdown * value;
                (won / (t.slowdown - 1.0).max(1e-6), index, backward, t)
            })
        })
        .filter(|(ratio, ..)| *ratio > 0.0)
        .collect();
    offers.sort_by(|a, b| b.0.total_cmp(&a.0));
    offers.into_iter().map(|(_, side, backward, t)| (side, backward, t)).collect()
}
