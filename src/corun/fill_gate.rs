//! What the gate itself costs a side: from opening to its first operation, from closing to standing still, and what it
//! loses when it goes on with cold caches.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timed {
    /// Opening → first operation.
    Open,
    /// Closing → standing still.
    Drain,
    /// Time lost in one step's worth of operations after a pause, beyond waking.
    Restart,
}

pub struct GateProbe {
    host: Host,
    layers: Vec<Layer<Host>>,
    side: GatedModel,
    random: SplitMix,
}

impl GateProbe {
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

    /// One opening and closing; `None` where the side was not there in time.
    pub fn time(&mut self, what: Timed) -> Result<Option<f64>> {
        let GateProbe { host, layers, side, random } = self;
        host.run(|ops| {
            fine_timers();
            layers.iter_mut().for_each(|layer| layer.forward(ops));
            ops.synchronize()?;
            let window = side.profile.step_ns() * (1.0 + random.unit());
            let before = side.gate.side_operations();
            let opened = now_ns();
            side.gate.open((window as u64).max(PATIENCE_NS));
            let restart = if what == Timed::Restart { lost_in_one_step(side, before) } else { None };
            sleep_until(opened + window as u64);
            while side.gate.side_started_at().is_none() && now_ns() - opened < PATIENCE_NS {
                sleep_until(now_ns() + 20_000);
            }
            side.gate.close();
            let Stop::Stopped { latency_ns } = side.gate.wait_stopped(PATIENCE_NS) else { return Ok(None) };
            Ok(match what {
                Timed::Open => side.gate.last_start_latency().map(|ns| ns as f64),
                Timed::Drain => Some(latency_ns as f64),
                Timed::Restart => restart,
            })
        })
    }
}

/// From the first operation on: the time of one step's worth of operations, less what they take in steady state. Noise
/// below nothing counts as nothing.
fn lost_in_one_step(side: &GatedModel, before: u64) -> Option<f64> {
    let until = before + side.profile.operations() as u64;
    let begun = now_ns();
    while side.gate.side_operations() < until {
        if now_ns() - begun > PATIENCE_NS {
            return None;
        }
        sleep_until(now_ns() + 20_000);
    }
    let ended = now_ns();
    let count = side.gate.side_operations();
    let alone = side.profile.work_ns(count) - side.profile.work_ns(before);
    let started = side.gate.side_started_at()?;
    Some((ended.saturating_sub(started) as f64 - alone).max(0.0))
}
