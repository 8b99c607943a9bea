//! One pipeline stage replayed with real operations and real waits, its bubbles filled by a small model or left empty.
//!
//! The stage's steps come from [`super::stage`]; forward and backward run some layers of the GPT model, a bubble is a wait
//! of exactly the schedule's length. In a filled iteration the main opens the gate at a bubble's start and closes it a
//! margin before the end, so that the operation then in flight is over when the main goes on. It goes on at the bubble's
//! end whatever the side does. Bubbles too short to be worth an opening stay empty.
//!
//! Everything predicted comes from a [`Calibration`], made before the first iteration. `suite::fill` runs this.

use super::calibration::{Calibration, FillForecast};
use super::gate::{MainEnd, Stop};
use super::load::GatedModel;
use super::profile::StepProfile;
use super::stage::{Stage, StageStep};
use super::time::{fine_timers, now_ns, sleep_until, wait_until};
use crate::Result;
use crate::models::SideSpec;
use crate::models::gpt::Layer;
use crate::ops::Ops;
use crate::ops::host::{Host, HostConfig};
use crate::shape::LayerShape;
use crate::stats;

const SEED: u64 = 0x57a9e;
/// Runs of forward and backward that are timed to set the schedule's times.
const TIMED_RUNS: usize = 9;
/// Bubbles run to learn the drain, then to learn what a filled one leaves behind.
const DRAINS: usize = 20;
const AFTERS: usize = 10;
/// The margin covers this share of the drains seen.
const MARGIN_QUANTILE: f64 = 0.9;
/// How long an iteration's end waits for the side.
const LAST_STOP_NS: u64 = 1_000_000_000;

/// Which stage of which pipeline is replayed, and with which small model in its bubbles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplaySpec {
    /// Shape of each GPT layer of the stage.
    pub shape: LayerShape,
    /// GPT layers of the stage; 0 counts as 1.
    pub layers: u64,
    /// Stages of the pipeline, p.
    pub stages: u64,
    /// Micro-batches of an iteration, m.
    pub micro_batches: u64,
    /// The place of the replayed stage in the pipeline, counted from 0.
    pub stage: u64,
    /// The small model that trains in the stage's bubbles.
    pub side: SideSpec,
}

/// The stage's own work.
struct Layers(Vec<Layer<Host>>);

impl Layers {
    fn forward(&mut self, ops: &mut Host) {
        self.0.iter_mut().for_each(|layer| layer.forward(ops));
    }

    fn backward(&mut self, ops: &mut Host) {
        self.0.iter_mut().rev().for_each(|layer| {
            layer.backward_input(ops);
            layer.backward_weight(ops);
        });
    }
}

/// What the bubbles of one iteration gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Account {
    /// Bubble time of the iteration as the schedule has it, in nanoseconds.
    pub bubble_ns: f64,
    /// Time that the gate stood open in the iteration's bubbles, in nanoseconds.
    pub open_ns: f64,
    /// Number of bubbles of the iteration, opened or not.
    pub bubbles: u64,
    /// Number of bubbles in which the gate was opened.
    pub bubbles_opened: u64,
    /// Side operations done within the opened bubbles, in the nanoseconds that they take alone.
    pub side_work_ns: f64,
    /// Training steps that the side did within the opened bubbles, steps begun by their share.
    pub side_steps: f64,
    /// Nanoseconds from each closing until the side stood still. Where it was still at work when the next bubble opened,
    /// or when the wait at the iteration's end was over, the time up to then: it took longer.
    pub stop_latencies_ns: Vec<f64>,
}

/// One iteration's time and, where it was filled, what the bubbles gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Iteration {
    /// Time of the whole iteration on the main in nanoseconds, bubbles included.
    pub ns: f64,
    /// What the bubbles gave; nothing was opened where the iteration was to leave them empty.
    pub fill: Account,
}

/// One pipeline stage and a small model behind a gate, both made and calibrated.
pub struct Replay {
    host: Host,
    layers: Layers,
    side: GatedModel,
    /// The stage in its pipeline, with the forward and backward times of the calibration.
    pub stage: Stage,
    /// The work and the waits of one iteration, in order.
    pub steps: Vec<StageStep>,
    /// What was measured of stage and side before the first iteration.
    pub calibration: Calibration,
}

impl Replay {
    /// Makes the stage and the side, and calibrates both; an error where the stage or its shape is not valid, or
    /// threads or memory cannot be had.
    pub fn new(spec: ReplaySpec, main: HostConfig, side: HostConfig) -> Result<Self> {
        let mut stage = Stage {
            stages: spec.stages,
            micro_batches: spec.micro_batches,
            stage: spec.stage,
            forward_ns: 1.0,
            backward_ns: 1.0,
        };
        stage.validate()?;
        let mut host = Host::new(main)?;
        let make = |seed| Layer::new(&mut host, spec.shape, SEED + seed);
        let mut layers = Layers((0..spec.layers.max(1)).map(make).collect::<Result<_>>()?);
        layers.0.iter_mut().for_each(|layer| layer.zero_gradients(&mut host));
        let mut side = GatedModel::start(spec.side, side)?;
        // From here on it runs whenever the gate is open.
        side.gate.close();
        side.worker.start_running()?;
        let calibration = host.run(|ops| calibrate(ops, &mut layers, &mut side))?;
        stage.forward_ns = calibration.forward_ns;
        stage.backward_ns = calibration.backward_ns;
        Ok(Replay { steps: stage.steps()?, host, layers, side, stage, calibration })
    }

    /// Predicts a filled iteration from the calibration alone.
    pub fn predict(&self) -> FillForecast {
        self.calibration.predict(&self.steps)
    }

    /// The time alone of each operation of the side's training step.
    pub fn profile(&self) -> &StepProfile {
        &self.side.profile
    }

    /// Runs one iteration, its bubbles filled or left empty; an error of the main's operations is returned.
    pub fn iteration(&mut self, filled: bool) -> Result<Iteration> {
        let Replay { host, layers, side, steps, calibration, .. } = self;
        host.run(|ops| {
            fine_timers();
            let mut bubbles = Bubbles::new(side, *calibration);
            let start = now_ns();
            for step in steps.iter() {
                match *step {
                    StageStep::Forward => layers.forward(ops),
                    StageStep::Backward => layers.backward(ops),
                    StageStep::Bubble(ns) if filled => bubbles.filled(ns),
                    StageStep::Bubble(ns) => bubbles.empty(ns),
                }
            }
            let ns = (now_ns() - start) as f64;
            ops.synchronize()?;
            Ok(Iteration { ns, fill: bubbles.finish() })
        })
    }
}

/// The main's conduct in bubbles, and the account of it.
struct Bubbles<'a> {
    gate: &'a mut MainEnd,
    profile: &'a StepProfile,
    calibration: Calibration,
    closed_at: Option<u64>,
    account: Account,
}

impl<'a> Bubbles<'a> {
    fn new(side: &'a mut GatedModel, calibration: Calibration) -> Self {
        Bubbles {
            gate: &mut side.gate,
            profile: &side.profile,
            calibration,
            closed_at: None,
            account: Account::default(),
        }
    }

    fn empty(&mut self, ns: f64) {
        self.account.bubble_ns += ns;
        self.account.bubbles += 1;
        wait_until(now_ns() + ns as u64);
    }

    fn filled(&mut self, ns: f64) {
        if !self.calibration.opens(ns) {
            return self.empty(ns);
        }
        self.account.bubble_ns += ns;
        self.account.bubbles += 1;
        self.account.bubbles_opened += 1;
        let start = now_ns();
        // An operation that an earlier bubble began was done beside the main's work, however late it ends.
        let late = self.settle_stop();
        let before = self.gate.side_operations() + u64::from(late);
        self.open_for(ns - self.calibration.margin_ns);
        wait_until(start + ns as u64);
        // What is done from here on is done beside the main's work and fills nothing.
        self.count(before, self.gate.side_operations());
        self.note_stop();
    }

    fn count(&mut self, before: u64, after: u64) {
        let after = after.max(before);
        self.account.side_work_ns += self.profile.work_ns(after) - self.profile.work_ns(before);
        self.account.side_steps += self.profile.steps(after) - self.profile.steps(before);
    }

    /// Opens, waits, closes; does not wait for the side.
    fn open_for(&mut self, ns: f64) {
        let start = now_ns();
        self.gate.open(ns as u64);
        sleep_until(start + ns as u64);
        self.gate.close();
        let closed_at = now_ns();
        self.account.open_ns += (closed_at - start) as f64;
        self.closed_at = Some(closed_at);
    }

    /// The latency of the last closing, once the side has acknowledged it.
    fn note_stop(&mut self) {
        if let (Some(_), Some(latency)) = (self.closed_at, self.gate.stopped()) {
            self.account.stop_latencies_ns.push(latency as f64);
            self.closed_at = None;
        }
    }

    /// Ends the account of the last closing: the latency, or the time so far where the side is still at work (then true).
    /// Left out, the longest latencies would be the ones missing.
    fn settle_stop(&mut self) -> bool {
        self.note_stop();
        let late = self.closed_at.take();
        self.account.stop_latencies_ns.extend(late.map(|closed_at| (now_ns() - closed_at) as f64));
        late.is_some()
    }

    /// Waits for the side, so that the next iteration starts without it.
    fn finish(mut self) -> Account {
        // A side that is gone takes no time to stop.
        if self.closed_at.is_some() && self.gate.wait_stopped(LAST_STOP_NS) != Stop::Absent {
            self.settle_stop();
        }
        self.account
    }
}

fn calibrate(ops: &mut Host, layers: &mut Layers, side: &mut GatedModel) -> Result<Calibration> {
    fine_timers();
    let mut calibration = Calibration { longest_ns: side.profile.longest_ns(), ..Calibration::default() };
    let time = |work: &mut dyn FnMut()| {
        let start = now_ns();
        work();
        (now_ns() - start) as f64
    };
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    for round in 0..TIMED_RUNS + 2 {
        let forward = time(&mut || layers.forward(ops));
        let backward = time(&mut || layers.backward(ops));
        // The first two warm up.
        if round >= 2 {
            forwards.push(forward);
            backwards.push(backward);
        }
    }
    ops.synchronize()?;
    calibration.forward_ns = stats::median(&forwards).unwrap_or(0.0);
    calibration.backward_ns = stats::median(&backwards).unwrap_or(0.0);
    drains(ops, layers, side, &mut calibration)?;
    afters(ops, layers, side, &mut calibration)?;
    Ok(calibration)
}

/// Opens the gate for bubble-like times behind real work and closes it: waking, draining, margin.
fn drains(ops: &mut Host, layers: &mut Layers, side: &mut GatedModel, calibration: &mut Calibration) -> Result<()> {
    let (mut opens, mut drains) = (Vec::new(), Vec::new());
    let mut random = stats::SplitMix(SEED);
    for _ in 0..DRAINS {
        layers.forward(ops);
        // Lengths differ, so that the closing meets every operation of the step.
        let window = calibration.forward_ns * (0.5 + random.unit()) + side.profile.step_ns() * random.unit();
        let mut bubbles = Bubbles::new(side, *calibration);
        bubbles.open_for(window);
        let account = bubbles.finish();
        drains.extend(account.stop_latencies_ns);
        opens.extend(side.gate.last_start_latency().map(|ns| ns as f64));
    }
    ops.synchronize()?;
    calibration.open_ns = stats::median(&opens).unwrap_or(0.0);
    calibration.drain_ns = stats::median(&drains).unwrap_or(0.0);
    calibration.margin_ns = stats::quantile(&drains, MARGIN_QUANTILE).unwrap_or(0.0);
    Ok(())
}

/// Filled and empty bubbles in random order, a forward behind each: what is lost of the opening, and what the main loses.
fn afters(ops: &mut Host, layers: &mut Layers, side: &mut GatedModel, calibration: &mut Calibration) -> Result<()> {
    let (mut filled, mut empty, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = stats::SplitMix(SEED + 1);
    let bubble = calibration.forward_ns.max(calibration.margin_ns + calibration.open_ns + 2.0 * calibration.longest_ns);
    let mut order: Vec<bool> = (0..2 * AFTERS).map(|i| i % 2 == 0).collect();
    random.shuffle(&mut order);
    for fill in order {
        layers.backward(ops);
        let mut bubbles = Bubbles::new(side, *calibration);
        let start = now_ns();
        if fill {
            bubbles.filled(bubble)
        } else {
            bubbles.empty(bubble)
        }
        layers.forward(ops);
        // From the bubble's start: waking late is part of what the main loses.
        let ns = (now_ns() - start) as f64 - bubble;
        let account = bubbles.finish();
        if fill {
            filled.push(ns);
            lost.push(bubble - calibration.margin_ns - account.side_work_ns);
        } else {
            empty.push(ns);
        }
    }
    ops.synchronize()?;
    let difference = stats::median(&filled).unwrap_or(0.0) - stats::median(&empty).unwrap_or(0.0);
    calibration.after_ns = difference;
    calibration.lost_ns = stats::mean(&lost).unwrap_or(0.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corun::gate;
    use crate::ops::DType;

    /// A side that never stops in time and works between the bubbles only.
    #[test]
    fn late_stops_are_kept_and_work_outside_bubbles_is_not_counted() {
        let (mut gate, mut side) = gate::pair().unwrap();
        side.ready();
        let profile = StepProfile::from_steps(0, &[1e5; 4], 2).unwrap();
        let (calibration, account) = (Calibration::default(), Account::default());
        let mut bubbles = Bubbles { gate: &mut gate, profile: &profile, calibration, closed_at: None, account };
        for _ in 0..3 {
            bubbles.filled(1e5);
            std::thread::sleep(std::time::Duration::from_millis(2));
            (0..5).for_each(|_| side.done().unwrap());
        }
        assert!(bubbles.account.stop_latencies_ns.len() == 2, "those of the bubbles that were followed by another");
        let account = bubbles.finish();
        assert!(account.stop_latencies_ns.len() == 3 && account.stop_latencies_ns.iter().all(|&ns| ns >= 2e6));
        assert!(account.stop_latencies_ns[2] >= LAST_STOP_NS as f64);
        assert_eq!((account.side_work_ns, account.side_steps), (0.0, 0.0));
    }

    #[test]
    fn a_small_stage_runs_filled_and_empty() {
        let spec = ReplaySpec {
            shape: LayerShape::new(64, 4, 128, 1, DType::F32),
            layers: 1,
            stages: 3,
            micro_batches: 3,
            stage: 1,
            side: "mlp-b1".parse().unwrap(),
        };
        let config = HostConfig { threads: 1, cores: None, nice: None };
        let mut replay = Replay::new(spec, config.clone(), config).unwrap();
        // Long enough bubbles whatever this machine does meanwhile.
        replay.calibration.margin_ns = replay.calibration.margin_ns.min(1e6);
        replay.steps = vec![StageStep::Forward, StageStep::Bubble(30e6), StageStep::Backward, StageStep::Bubble(1e3)];
        let opened = u64::from(replay.calibration.opens(30e6));
        let empty = replay.iteration(false).unwrap();
        assert!(empty.ns > 30e6);
        assert_eq!((empty.fill.side_work_ns, empty.fill.bubbles, empty.fill.bubbles_opened), (0.0, 2, 0));
        let filled = replay.iteration(true).unwrap();
        assert!(filled.ns > 30e6);
        assert_eq!((filled.fill.bubbles, filled.fill.bubbles_opened, filled.fill.bubble_ns), (2, opened, 30e6 + 1e3));
        assert_eq!(filled.fill.stop_latencies_ns.len() as u64, opened);
        // On a machine with little time for it the side does not come to work in every bubble.
        let mut works = || {
            let fill = replay.iteration(true).unwrap().fill;
            fill.side_work_ns > 0.0 && fill.side_steps > 0.0
        };
        assert!(opened == 0 || (0..50).any(|_| works()));
        let wrong = ReplaySpec { stage: 3, ..spec };
        let config = HostConfig { threads: 1, cores: None, nice: None };
        assert!(Replay::new(wrong, config.clone(), config).is_err());
    }
}
