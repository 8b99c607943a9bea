//! Side models as the planner sees them: a step of so many nanoseconds made of kernels, the longest of which may still
//! run after the gate has closed; and the margin that costs in every bubble.

use crate::pipeline::job::{self, Job};
use crate::pipeline::memory::GIB;
use crate::records::cost_model::GateCost;
use crate::records::{CostModel, Measurement};
use crate::{Error, Result};

/// A small model, its figures complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    pub name: String,
    /// One training step alone.
    pub step_ns: f64,
    /// Its longest kernel.
    pub kernel_ns: f64,
    /// While it runs.
    pub memory_bytes: f64,
    /// Between bubbles.
    pub resident_bytes: f64,
    /// Worth of a second of its work; a second of the main job is worth 1.
    pub value: f64,
    /// What a bubble loses at its ends.
    pub margin: Margin,
}

/// Time at a bubble's ends in which nothing useful can run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Margin {
    /// From opening the gate to the first kernel.
    pub open_ns: f64,
    /// What going on after a pause costs beyond that.
    pub restart_ns: f64,
    /// From closing to standing still: signal, and the longest kernel in flight.
    pub drain_ns: f64,
}

impl Margin {
    pub fn total_ns(&self) -> f64 {
        self.open_ns + self.restart_ns + self.drain_ns
    }
}

/// Where no gate was measured: figures of the order host signals and kernel launches have, on the careful side.
pub const ASSUMED_GATE: AssumedGate =
    AssumedGate { open_ns: 50_000.0, close_ns: 2_000.0, signal_ns: 50_000.0, restart_ns: 50_000.0 };

pub struct AssumedGate {
    pub open_ns: f64,
    pub close_ns: f64,
    pub signal_ns: f64,
    pub restart_ns: f64,
}

/// The call that closes the gate, made by the main model's own thread once a bubble.
pub fn close_ns(gate: Option<&GateCost>) -> f64 {
    gate.map_or(ASSUMED_GATE.close_ns, |g| g.close_ns)
}

/// Completes the job's sides from the cost model and from the measurements it was made from.
pub fn of_job(job: &Job, model: &CostModel, measurements: &[Measurement]) -> Result<Vec<Side>> {
    job.side.iter().map(|side| complete(job, side, model.gate.as_ref(), measurements)).collect()
}

fn complete(job: &Job, side: &job::Side, gate: Option<&GateCost>, measurements: &[Measurement]) -> Result<Side> {
    let lacking = |key: &str| {
        Error::input(
            format!(
                "{}:{}: side `{}` has no {key}, and no measurement of it stands beside the cost model",
                job.path.display(),
                side.line,
                side.name
            ),
            format!("add `{key}`, or measure the side with `bubblebench measure` and fit again"),
        )
    };
    let measured = side.measured.as_ref().and_then(|name| {
        let id = format!("side/{name}/step");
        measurements.iter().rev().find(|m| m.id == id)
    });
    let drain = side.measured.as_ref().and_then(|name| gate.and_then(|g| g.drain_by_side_ns.get(name).copied()));
    let step_ns = side.step_ns.or(measured.and_then(|m| m.median_ns)).ok_or_else(|| lacking("step_ns"))?;
    // A measured drain holds the kernel in flight already.
    let kernel_ns = match (side.kernel_ns, drain) {
        (Some(kernel), _) => kernel,
        (None, Some(drain)) => drain,
        (None, None) => return Err(lacking("kernel_ns")),
    };
    let memory = side.memory_gib.map(|g| g * GIB);
    let recorded = measured.and_then(|m| m.param_u64("memory_bytes")).map(|b| b as f64);
    let memory_bytes = memory.or(recorded).ok_or_else(|| lacking("memory_gib"))?;
    Ok(Side {
        name: side.name.clone(),
        step_ns,
        kernel_ns,
        memory_bytes,
        resident_bytes: side.resident_gib.map_or(memory_bytes, |g| g * GIB).min(memory_bytes),
        value: side.value,
        margin: margin(gate, drain, kernel_ns),
    })
}

fn margin(gate: Option<&GateCost>, measured_drain: Option<f64>, kernel_ns: f64) -> Margin {
    let Some(gate) = gate else {
        let a = ASSUMED_GATE;
        return Margin { open_ns: a.open_ns, restart_ns: a.restart_ns, drain_ns: a.signal_ns + kernel_ns };
    };
    // A side that nobody drained here: the signal as fast as with the quickest side, then its longest kernel.
    let signal = gate.drain_by_side_ns.values().copied().fold(gate.drain_ns, f64::min);
    let drain_ns = measured_drain.map_or(signal + kernel_ns, |d| d.max(kernel_ns));
    Margin { open_ns: gate.open_ns, restart_ns: gate.restart_ns, drain_ns }
}
