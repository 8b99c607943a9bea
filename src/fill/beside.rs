//! What a side costs the main job's own operations when it runs beside them, and what it still gets itself, from the cost
//! model's co-run figures. [`super::overlap`] decides how much of it there is.

use crate::cost::predict;
use crate::pipeline::job::{self, Job};
use crate::records::CostModel;
use std::collections::BTreeMap;

/// What one phase of the main job and a side model do to each other when they run together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Together {
    /// Time of the main job's operation together with the side ÷ alone, at least 1.
    pub slowdown: f64,
    /// Speed of the side together with the main job ÷ alone.
    pub rate: f64,
}

/// What a side model and the main job's forward and backward do to each other under the job's sharing mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BesideCompute {
    /// The side beside the forward of the main job's layer.
    pub forward: Together,
    /// The side beside the backward of the main job's layer.
    pub backward: Together,
}

impl BesideCompute {
    /// Predicts the side beside the main job's layer under the sharing mode in `beside_compute`. `None` where the job
    /// sets none, or where the cost model lacks a figure; then a note says which.
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
        Some(BesideCompute { forward: ask("forward")?, backward: ask("backward")? })
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
