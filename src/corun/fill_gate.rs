//! What the gate itself costs: the main, to close it; a side, from opening to its first operation, from closing to standing
//! still, and what it loses when it goes on with cold caches.
//!
//! Between any two openings the main runs its layers, as it does between bubbles. `suite::fill` samples this.

use super::gate::Stop;
use super::load::GatedModel;
use super::time::{fine_timers, now_ns, sleep_until};
use crate::Result;
use crate::models::SideSpec;
use crate::models::gpt::Layer;
use crate::ops::Ops;
use crate::ops::host::{Host, HostConfig};
use crate::shape::LayerShape;
use crate::stats::SplitMix;

/// Longest wait for a side to begin or to stop before a sample is given up.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Closings of one sample of [`GateProbe::time_closings`], where the call itself is timed.
pub const CLOSINGS: u64 = 32;

/// Which cost of the gate one sample times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timed {
    /// From opening the gate to the side's first operation.
    Open,
    /// The main's call that closes the gate, by itself.
    Close,
    /// From closing the gate until the side stands still.
    Drain,
    /// Time lost in the first one to two steps' worth of operations after a pause, beyond waking.
    Restart,
}

/// A main with its layers and a small model behind a gate, on which the costs of the gate are timed.
pub struct GateProbe {
    host: Host,
    layers: Vec<Layer<Host>>,
    side: GatedModel,
    random: SplitMix,
}

impl GateProbe {
    /// Makes a main of `layers` GPT layers, and a side behind a closed gate; an error where the shape is not valid, or
    /// threads or memory cannot be had.
    pub fn new(
        side: SideSpec,
        shape: LayerShape,
        layers: u64,
        main_host: HostConfig,
        side_host: HostConfig,
    ) -> Result<Self> {
        let mut host = Host::new(main_host)?;
        let layers = (0..layers).map(|seed| Layer::new(&mut host, shape, seed)).collect::<Result<_>>()?;
        let mut side = GatedModel::start(side, side_host)?;
        side.gate.close();
        side.worker.start_running()?;
        Ok(GateProbe { host, layers, side, random: SplitMix(0x9a7e) })
    }

    /// Time in nanoseconds of [`CLOSINGS`] calls that close an open gate behind which the side works, the calls alone
    /// and all together; `None` where the side did not start or stop in time.
    pub fn time_closings(&mut self) -> Result<Option<f64>> {
        let GateProbe { host, layers, side, .. } = self;
        host.run(|ops| {
            fine_timers();
            layers.iter_mut().for_each(|layer| layer.forward(ops));
            ops.synchronize()?;
            let mut total = 0;
            for _ in 0..CLOSINGS {
                let opened = now_ns();
                side.gate.open(PATIENCE_NS);
                while side.gate.side_started_at().is_none() {
                    if now_ns() - opened >= PATIENCE_NS {
                        side.gate.close();
                        return Ok(None);
                    }
                    sleep_until(now_ns() + 50_000);
                }
                // One call is a few times as long as a look at the clock, which is taken off again.
                let (before, start) = (now_ns(), now_ns());
                side.gate.close();
                let end = now_ns();
                total += (end - start).saturating_sub(start - before);
                if !matches!(side.gate.wait_stopped(PATIENCE_NS), Stop::Stopped { .. }) {
                    return Ok(None);
                }
            }
            Ok(Some(total as f64))
        })
    }

    /// Opens and closes the gate once and returns the cost asked for in nanoseconds; `None` where the side did not
    /// start or stop in time, and for [`Timed::Close`], which [`GateProbe::time_closings`] times.
    pub fn time(&mut self, what: Timed) -> Result<Option<f64>> {
        let GateProbe { host, layers, side, random } = self;
        host.run(|ops| {
            fine_timers();
            layers.iter_mut().for_each(|layer| layer.forward(ops));
            ops.synchronize()?;
            let window = side.profile.step_ns() * (1.0 + random.unit());
            let before = side.gate.side_operations();
            let opened = now_ns();
            side.gate.open(PATIENCE_NS);
            sleep_until(opened + window as u64);
            while side.gate.side_started_at().is_none() && now_ns() - opened < PATIENCE_NS {
                sleep_until(now_ns() + 200_000);
            }
            side.gate.close();
            let Stop::Stopped { latency_ns } = side.gate.wait_stopped(PATIENCE_NS) else { return Ok(None) };
            Ok(match what {
                Timed::Open => side.gate.last_start_latency().map(|ns| ns as f64),
                // The call alone is too short to be timed once.
                Timed::Close => None,
                Timed::Drain => Some(latency_ns as f64),
                Timed::Restart => lost(side, before),
            })
        })
    }
}

/// From the side's first operation to its standing still, less what its operations take in steady state. Noise below
/// nothing counts as nothing. Nobody looks on meanwhile: a main that polled would take the side's core.
fn lost(side: &GatedModel, before: u64) -> Option<f64> {
    let worked = side.gate.last_work_ns()? as f64;
    let alone = side.profile.work_ns(side.gate.side_operations()) - side.profile.work_ns(before);
    Some((worked - alone).max(0.0))
}
