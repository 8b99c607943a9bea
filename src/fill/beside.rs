//! What a side costs the main job's own operations when it runs beside them, and what it still gets itself, from the cost
//! model's co-run figures. [`super::overlap`] decides how much of it there is.

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
pub struct BesideCompute {
    pub forward: Together,
    pub backward: Together,
}

impl BesideCompute {
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
