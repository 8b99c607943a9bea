//! What runs beside the main: a small model that trains, a pressure program, or nothing; by name, in a thread with its own
//! pool.
//!
//! A small model always runs behind a gate ([`super::gated`]): its operations are counted there, and each asks with the
//! time that it needs. Beside a main in steady state the gate stays open; in a filled stage the main opens it for as long
//! as a bubble is expected to last.

use super::gate::{self, MainEnd, SideEnd};
use super::gated::{Ended, Gated, Grain};
use super::last_operations::LastOperations;
use super::pair::HostSide;
use super::pressure::{HostPressure, PressureSpec};
use super::profile::StepProfile;
use super::time;
use super::worker::{SideWorker, Slice, Turn};
use crate::models::{SideModel, SideSpec, side_model};
use crate::ops::Ops;
use crate::ops::host::{Host, HostConfig};
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;

/// A gate that is meant to stay open.
const ALWAYS: u64 = u64::MAX / 4;
/// Steps run before the operations are timed; steps timed at least, and at most within the time.
const WARM_STEPS: usize = 4;
const LEAST_STEPS: usize = 9;
const MOST_STEPS: usize = 64;
const PROFILE_NS: u64 = 100_000_000;

/// What runs as the side of a pair, written `nothing`, `mlp-b32` or `pressure-memory-50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Load {
    /// No side: the main beside nothing, which is the noise floor.
    Nothing,
    /// A small model that trains behind a gate, counted in training steps.
    Model(SideSpec),
    /// A pressure program that loads one resource of the host.
    Pressure(PressureSpec),
}

impl Load {
    /// The unit that its progress is counted in: `nothing`, `steps`, `flop` or `bytes`.
    pub const fn unit(&self) -> &'static str {
        match self {
            Load::Nothing => "nothing",
            Load::Model(_) => "steps",
            Load::Pressure(spec) => spec.resource.unit(),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Nothing => f.write_str("nothing"),
            Load::Model(spec) => spec.fmt(f),
            Load::Pressure(spec) => write!(f, "pressure-{}", spec.name()),
        }
    }
}

impl FromStr for Load {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("pressure-") {
            Some(pressure) => PressureSpec::parse(pressure).map(Load::Pressure),
            None if text == "nothing" => Ok(Load::Nothing),
            None => text.parse().map(Load::Model),
        }
    }
}

/// A small model that trains behind a gate, in a thread of its own.
pub struct GatedModel {
    /// The main's end of the gate, open when the model has started.
    pub gate: MainEnd,
    /// The time alone of each operation of a training step, measured at the start.
    pub profile: StepProfile,
    /// The thread; each of its slices is one training step.
    pub worker: SideWorker,
    /// When its last operation in each opening ended; empty unless it was started by [`GatedModel::start_watched`].
    pub last: Arc<LastOperations>,
}

impl GatedModel {
    /// Starts the thread, makes the model, warms it up and times its operations, each of which asks the gate from then on
    /// with its own time. The gate is open afterwards and the thread stands until [`SideWorker::run`]. An error where the
    /// thread or the model cannot be made.
    pub fn start(spec: SideSpec, host: HostConfig) -> Result<Self> {
        Self::start_as(spec, host, Grain::Operation, false)
    }

    /// As [`GatedModel::start`], asking for so much at a time, with [`GatedModel::last`] kept.
    pub fn start_watched(spec: SideSpec, host: HostConfig, grain: Grain) -> Result<Self> {
        Self::start_as(spec, host, grain, true)
    }

    fn start_as(spec: SideSpec, host: HostConfig, grain: Grain, watched: bool) -> Result<Self> {
        let (mut gate, side) = gate::pair()?;
        gate.open(ALWAYS);
        let (tell, told) = mpsc::channel();
        let last = Arc::new(LastOperations::default());
        let theirs = watched.then(|| Arc::clone(&last));
        let worker =
            SideWorker::start("side", move |turn| serve_model(spec, host, (side, theirs), grain, &tell, turn))?;
        let profile = told.recv().map_err(|_| Error::machine("the side program ended early", "run the case alone"))?;
        Ok(GatedModel { gate, profile, worker, last })
    }
}

impl Drop for GatedModel {
    /// A side that waits at the gate must hear that this is the end before its thread is waited for.
    fn drop(&mut self) {
        self.gate.shut_down();
    }
}

fn serve_model(
    spec: SideSpec,
    config: HostConfig,
    (gate, last): (SideEnd, Option<Arc<LastOperations>>),
    grain: Grain,
    tell: &mpsc::Sender<StepProfile>,
    turn: Turn,
) -> Result<()> {
    let host = Host::new(config)?;
    let workers = host.workers();
    let tell = tell.clone();
    // The whole of it inside the pool: operations then start without a hop between threads.
    workers.install(move || {
        time::fine_timers();
        let mut ops = Gated::new(host, gate);
        let mut model = side_model(&mut ops, spec)?;
        let profile = profile_of(&mut ops, model.as_mut(), time::now_ns, || false)?;
        let Some(profile) = profile else { return Ok(()) };
        match grain {
            Grain::Operation => ops.learn(profile.needs_ns().to_vec()),
            Grain::Step => ops.learn_step(profile.step_need_ns()),
        }
        if let Some(last) = last {
            ops.keep_last(last);
        }
        if tell.send(profile).is_err() {
            return Ok(());
        }
        turn.serve(|| {
            if ops.ended().is_none() {
                ops.begin_step();
                model.step(&mut ops);
            }
            match ops.ended() {
                None | Some(Ended::NeverFits { .. }) => ops.synchronize(),
                // The end of the gate is no failure of the side: its thread is about to be ended.
                Some(_) => Ok(()),
            }
        })
    })
}

/// Warms a small model up and times the operations of its step by a clock of nanoseconds; `None` where it is `asked` to end
/// between two steps, an error where its steps differ.
pub(super) fn profile_of(
    ops: &mut Gated<Host>,
    model: &mut dyn SideModel<Gated<Host>>,
    clock: fn() -> u64,
    asked: fn() -> bool,
) -> Result<Option<StepProfile>> {
    for _ in 0..WARM_STEPS {
        if asked() {
            return Ok(None);
        }
        model.step(ops);
    }
    ops.synchronize()?;
    let base = ops.operations();
    ops.time_operations(clock);
    let (begun, mut steps) = (time::now_ns(), 0);
    while steps < LEAST_STEPS || (steps < MOST_STEPS && time::now_ns() - begun < PROFILE_NS) {
        if asked() {
            return Ok(None);
        }
        model.step(ops);
        steps += 1;
    }
    ops.synchronize()?;
    let profile = StepProfile::from_steps(base, &ops.take_times(), steps);
    profile.map(Some).ok_or_else(|| Error::bug(format!("the steps of {} differ in their operations", model.name())))
}

/// A load that runs beside a main, started and halted by [`super::pair`].
pub enum Running {
    /// A small model that trains behind its gate.
    Model(GatedModel),
    /// A pressure program.
    Pressure {
        /// The thread; each of its slices is one of [`HostPressure::slice`].
        worker: SideWorker,
        /// FLOP or bytes done so far, by the program's resource.
        progress: Arc<AtomicU64>,
    },
}

impl Running {
    /// Makes the side, standing still until it is told to run; `None` for [`Load::Nothing`]. An error where its threads
    /// or its memory cannot be had.
    pub fn start(load: Load, host: HostConfig, last_level_cache_bytes: u64) -> Result<Option<Self>> {
        match load {
            Load::Nothing => Ok(None),
            Load::Model(spec) => GatedModel::start(spec, host).map(|model| Some(Running::Model(model))),
            Load::Pressure(spec) => {
                let pressure = HostPressure::new(spec, host.threads, last_level_cache_bytes)?;
                let progress = pressure.progress();
                let body = move |turn: Turn| {
                    let pool = Host::new(host)?;
                    pool.within(|| {
                        turn.serve(|| {
                            pressure.slice();
                            Ok(())
                        })
                    })
                };
                Ok(Some(Running::Pressure { worker: SideWorker::start("side", body)?, progress }))
            }
        }
    }

    fn worker(&mut self) -> &mut SideWorker {
        match self {
            Running::Model(model) => &mut model.worker,
            Running::Pressure { worker, .. } => worker,
        }
    }
}

impl HostSide for Running {
    fn run(&mut self) -> Result<()> {
        self.worker().run()
    }

    fn halt(&mut self) -> Result<Vec<Slice>> {
        self.worker().halt()
    }

    /// Steps, FLOP or bytes ([`Load::unit`]).
    fn progress(&self) -> f64 {
        match self {
            Running::Model(model) => model.profile.steps(model.gate.side_operations()),
            Running::Pressure { progress, .. } => progress.load(Relaxed) as f64,
        }
    }

    fn linger(&mut self, ns: u64) {
        time::sleep_until(time::now_ns() + ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corun::pressure::Resource;

    fn one_thread() -> HostConfig {
        HostConfig { threads: 1, cores: None, nice: None }
    }

    #[test]
    fn names_are_read_back() {
        for text in ["nothing", "mlp-b32", "convnet-b16", "pressure-fma", "pressure-memory-50"] {
            assert_eq!(text.parse::<Load>().unwrap().to_string(), text);
        }
        assert!("something".parse::<Load>().unwrap_err().to_string().contains("mlp-b32"));
        assert!("pressure-disk".parse::<Load>().is_err());
    }

    #[test]
    fn a_model_counts_whole_steps_and_stops_at_its_gate() {
        let spec = "mlp-b2".parse().unwrap();
        let mut model = GatedModel::start(spec, one_thread()).unwrap();
        assert!(model.profile.operations() > 10 && model.profile.step_ns() > 0.0);
        let profiled = model.profile.steps(model.gate.side_operations());
        assert!(profiled >= LEAST_STEPS as f64 && profiled.fract() == 0.0);
        model.worker.run().unwrap();
        let steps = model.worker.halt().unwrap().len();
        assert_eq!(model.profile.steps(model.gate.side_operations()), profiled + steps as f64);
        model.gate.close();
        model.worker.start_running().unwrap();
        assert!(matches!(model.gate.wait_stopped(10_000_000_000), gate::Stop::Stopped { .. }));
        drop(model); // ends although the side waits at the gate
    }

    #[test]
    fn pressure_runs_beside_and_reports_its_progress() {
        let load = Load::Pressure(PressureSpec::full(Resource::Cache));
        let mut side = Running::start(load, one_thread(), 1 << 20).unwrap().unwrap();
        side.run().unwrap();
        let slices = side.halt().unwrap().len();
        assert!(side.progress() >= (slices * 4 * (1 << 14) * 64) as f64);
        assert!(Running::start(Load::Nothing, one_thread(), 0).unwrap().is_none());
    }
}
