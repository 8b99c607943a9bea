//! One pipeline stage replayed with real operations and real waits, its bubbles filled by a small model or left empty.
//!
//! The stage's steps come from [`super::stage`]; forward and backward run some layers of the GPT model, a bubble is a wait
//! of exactly the schedule's length. How long each bubble lasts, by its position in the iteration, is learned from empty
//! iterations, as a training run learns it. In a filled one the main opens the gate at a bubble's start and says the learned
//! length; the side starts only what ends in time and stops itself; and the main closes when the bubble has ended, which is
//! the second line. It goes on at the bubble's end whatever the side does. Bubbles too short to be worth an opening stay
//! empty.
//!
//! An iteration is timed from behind its first forward to behind that of the next: what a bubble leaves behind, in caches or
//! by side work that ends late, falls into the iteration that it is a part of, that of the last bubble too.
//!
//! Everything predicted comes from a [`Calibration`], made before the first iteration. `suite::fill` runs this.

use super::calibration::{Calibration, FillForecast};
use super::gate::{MARGIN_NS, MainEnd, Stop};
use super::gated::Grain;
use super::last_operations::{LastOperation, LastOperations};
use super::load::GatedModel;
use super::profile::StepProfile;
use super::stage::{Stage, StageStep};
use super::time::{SPIN_NS, fine_timers, now_ns, wait_until};
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
/// Bubbles run to learn what a filled one loses, then to learn what it leaves behind.
const DRAINS: usize = 20;
const AFTERS: usize = 10;
/// Empty iterations from which the lengths of the bubbles are learned.
const LEARNED_ITERATIONS: usize = 6;
/// A bubble is expected to last this quantile of what it was seen to last: of ten openings one is named too long.
const LENGTH_QUANTILE: f64 = 0.1;
/// The side stands still so long before a bubble's expected end, in nanoseconds. The main of the replay comes back to its
/// core [`SPIN_NS`] before the bubble ends: an operation still in flight then would lose that core for as long as the main
/// works. The rest is the gate's own.
const REPLAY_MARGIN_NS: u64 = SPIN_NS + MARGIN_NS;
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
    /// What the small model asks the gate for: one operation, or a whole training step.
    pub grain: Grain,
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
    /// How long each bubble lasted, in nanoseconds and in order, until the main was back on its core.
    pub lengths_ns: Vec<f64>,
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
    /// Nanoseconds from each closing until the side stood still, 0 where it had stopped by the clock before. Where it was
    /// still at work when the next bubble opened, or when the wait at the iteration's end was over, the time up to then: it
    /// took longer.
    pub stop_latencies_ns: Vec<f64>,
    /// Nanoseconds from the true end of each opened bubble, as the schedule has it, to the end of the side's last operation
    /// in it; negative where that ended before. None for a bubble in which the side did nothing.
    pub overruns_ns: Vec<f64>,
    /// How long the main waited for each of these operations, 0 where it had ended by then, without those that lost their core to
    /// another thread meanwhile.
    pub waits_ns: Vec<f64>,
    /// Nanoseconds from the expected close to the same end, without operations that lost their core meanwhile: how long
    /// those take is not the side's to know.
    pub expected_overruns_ns: Vec<f64>,
    /// Number of opened bubbles whose last operation lost its core meanwhile.
    pub preempted: u64,
    /// Nanoseconds from the expected close of each opening to its closing; negative where it was closed before.
    pub late_closes_ns: Vec<f64>,
    /// Of each opened bubble the learned length ÷ how long it lasted this time.
    pub learned_over_true: Vec<f64>,
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
    /// How long each bubble is expected to last, in nanoseconds and in order.
    pub learned_ns: Vec<f64>,
    /// What was measured of stage and side before the first iteration.
    pub calibration: Calibration,
}

impl Replay {
    /// Makes the stage and the side, calibrates both and learns the lengths of the bubbles; an error where the stage or its
    /// shape is not valid, or threads or memory cannot be had.
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
        let mut side = GatedModel::start_watched(spec.side, side, spec.grain)?;
        // From here on it runs whenever the gate is open.
        side.gate.close();
        side.gate.set_margin(REPLAY_MARGIN_NS);
        side.worker.start_running()?;
        let calibration = host.run(|ops| calibrate(ops, &mut layers, &mut side, spec.grain))?;
        stage.forward_ns = calibration.forward_ns;
        stage.backward_ns = calibration.backward_ns;
        let mut replay = Replay {
            steps: ending_with_work(stage.steps()?),
            host,
            layers,
            side,
            stage,
            learned_ns: Vec::new(),
            calibration,
        };
        replay.learn()?;
        Ok(replay)
    }

    /// Learns from empty iterations how long each bubble lasts, waking included: a low quantile by position.
    fn learn(&mut self) -> Result<()> {
        let iterations = (0..LEARNED_ITERATIONS).map(|_| Ok(self.iteration(false)?.fill.lengths_ns));
        self.learned_ns = low_quantiles(&iterations.collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    /// Predicts a filled iteration from the calibration and the learned lengths alone.
    pub fn predict(&self) -> FillForecast {
        self.calibration.predict(&self.steps, &self.learned_ns)
    }

    /// The time alone of each operation of the side's training step.
    pub fn profile(&self) -> &StepProfile {
        &self.side.profile
    }

    /// Runs one iteration, its bubbles filled or left empty; an error of the main's operations, or of a side that has
    /// failed, is returned.
    pub fn iteration(&mut self, filled: bool) -> Result<Iteration> {
        let Replay { host, layers, side, steps, calibration, learned_ns, .. } = self;
        let iteration: Result<Iteration> = host.run(|ops| {
            fine_timers();
            let mut bubbles = Bubbles::new(side, *calibration);
            let mut learned = learned_ns.iter().copied();
            // The forward that the iteration before ended with: whatever came between, the main's caches are warm.
            layers.forward(ops);
            let start = now_ns();
            for step in steps.iter() {
                match *step {
                    StageStep::Forward => layers.forward(ops),
                    StageStep::Backward => layers.backward(ops),
                    StageStep::Bubble(ns) => match learned.next().filter(|_| filled) {
                        Some(learned_ns) => bubbles.filled(ns, learned_ns),
                        None => bubbles.empty(ns),
                    },
                }
            }
            let ns = (now_ns() - start) as f64;
            ops.synchronize()?;
            Ok(Iteration { ns, fill: bubbles.finish() })
        });
        side.worker.check()?;
        iteration
    }
}

/// The same iteration from behind its first forward on, so that it ends with that of the next.
fn ending_with_work(mut steps: Vec<StageStep>) -> Vec<StageStep> {
    let first = steps.iter().position(|step| *step == StageStep::Forward).map_or(0, |first| first + 1);
    steps.rotate_left(first);
    steps
}

/// The expected length of each bubble from the lengths of some iterations, position by position.
fn low_quantiles(iterations: &[Vec<f64>]) -> Vec<f64> {
    let positions = iterations.iter().map(Vec::len).min().unwrap_or(0);
    let expected = |position: usize| {
        let lengths: Vec<f64> = iterations.iter().map(|lengths| lengths[position]).collect();
        stats::quantile(&lengths, LENGTH_QUANTILE).unwrap_or(0.0)
    };
    (0..positions).map(expected).collect()
}

/// One opening of the gate: what the side's last operation in it is held against.
#[derive(Debug, Clone, Copy)]
struct Opening {
    generation: u64,
    /// When the bubble truly ended, by the schedule.
    end_ns: u64,
    expected_close_ns: u64,
}

/// The main's conduct in bubbles, and the account of it.
struct Bubbles<'a> {
    gate: &'a mut MainEnd,
    profile: &'a StepProfile,
    last: &'a LastOperations,
    calibration: Calibration,
    closed_at: Option<u64>,
    openings: Vec<Opening>,
    account: Account,
}

impl<'a> Bubbles<'a> {
    fn new(side: &'a mut GatedModel, calibration: Calibration) -> Self {
        Bubbles {
            gate: &mut side.gate,
            profile: &side.profile,
            last: &side.last,
            calibration,
            closed_at: None,
            openings: Vec::new(),
            account: Account::default(),
        }
    }

    /// Waits out a bubble; returns how long it lasted.
    fn wait(&mut self, start: u64, ns: f64) -> f64 {
        wait_until(start + ns as u64);
        let lasted = (now_ns() - start) as f64;
        self.account.bubble_ns += ns;
        self.account.bubbles += 1;
        self.account.lengths_ns.push(lasted);
        lasted
    }

    fn empty(&mut self, ns: f64) {
        self.wait(now_ns(), ns);
    }

    /// A bubble that lasts `ns` nanoseconds and is expected to last `learned_ns`.
    fn filled(&mut self, ns: f64, learned_ns: f64) {
        if !self.calibration.opens(learned_ns) {
            return self.empty(ns);
        }
        let start = now_ns();
        // An operation that an earlier bubble began was done beside the main's work, however late it ends.
        let late = self.settle_stop();
        let done = self.gate.side_operations();
        let before = match self.calibration.grain {
            _ if !late => done,
            Grain::Operation => done + 1,
            Grain::Step => self.profile.step_end(done),
        };
        self.gate.open(learned_ns as u64);
        let opened_at = self.gate.opened_at();
        let lasted = self.wait(start, ns);
        // What is done from here on is done beside the main's work and fills nothing.
        self.count(before, self.gate.side_operations());
        self.gate.close();
        let closed_at = now_ns();
        self.closed_at = Some(closed_at);
        let expected_close_ns = opened_at + learned_ns as u64;
        self.openings.push(Opening { generation: self.gate.opening(), end_ns: start + ns as u64, expected_close_ns });
        let account = &mut self.account;
        account.bubbles_opened += 1;
        account.open_ns += (closed_at - opened_at) as f64;
        account.late_closes_ns.push(closed_at as f64 - expected_close_ns as f64);
        account.learned_over_true.push(learned_ns / lasted.max(1.0));
        self.note_stop();
    }

    fn count(&mut self, before: u64, after: u64) {
        let after = after.max(before);
        self.account.side_work_ns += self.profile.work_ns(after) - self.profile.work_ns(before);
        self.account.side_steps += self.profile.steps(after) - self.profile.steps(before);
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
        let stop = self.closed_at.map(|_| self.gate.wait_stopped(LAST_STOP_NS));
        if stop.is_some_and(|stop| stop != Stop::Absent) {
            self.settle_stop();
        }
        let mut last = self.last.take();
        if let (Some(Stop::Late), Some(opening)) = (stop, self.openings.last()) {
            // Not over yet: it takes longer than this, and it has lost its core, for no operation is as long.
            last.retain(|last| last.opening != opening.generation);
            last.push(LastOperation { opening: opening.generation, end_ns: now_ns(), preempted: true });
        }
        self.overruns(&last);
        self.account
    }

    /// How far the last operation of each opening reached.
    fn overruns(&mut self, last: &[LastOperation]) {
        for opening in &self.openings {
            let Some(last) = last.iter().find(|last| last.opening == opening.generation) else { continue };
            let beyond = |end: u64| last.end_ns as f64 - end as f64;
            self.account.overruns_ns.push(beyond(opening.end_ns));
            if last.preempted {
                self.account.preempted += 1;
            } else {
                self.account.waits_ns.push(beyond(opening.end_ns).max(0.0));
                self.account.expected_overruns_ns.push(beyond(opening.expected_close_ns));
            }
        }
    }
}

fn calibrate(ops: &mut Host, layers: &mut Layers, side: &mut GatedModel, grain: Grain) -> Result<Calibration> {
    fine_timers();
    let profile = &side.profile;
    let largest = profile.needs_ns().iter().copied().max().unwrap_or(0);
    let mut calibration = Calibration {
        longest_ns: profile.longest_ns(),
        step_ns: profile.step_ns(),
        margin_ns: REPLAY_MARGIN_NS as f64,
        need_ns: if grain == Grain::Step { profile.step_need_ns() } else { largest } as f64,
        grain,
        ..Calibration::default()
    };
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
    let mut lost = drains(ops, layers, side, &mut calibration)?;
    lost.extend(afters(ops, layers, side, &mut calibration)?);
    calibration.lost_ns = stats::mean(&lost).unwrap_or(0.0);
    Ok(calibration)
}

/// Fills bubbles of many lengths behind real work: waking and stopping, and what each loses, which is returned.
fn drains(
    ops: &mut Host,
    layers: &mut Layers,
    side: &mut GatedModel,
    calibration: &mut Calibration,
) -> Result<Vec<f64>> {
    let (mut opens, mut drains, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = stats::SplitMix(SEED);
    for _ in 0..DRAINS {
        layers.forward(ops);
        // Lengths differ, so that the end meets every operation of the step.
        let window = calibration.forward_ns * (0.5 + random.unit()) + side.profile.step_ns() * random.unit();
        let window = window.max(calibration.margin_ns + 1.5 * calibration.need_ns);
        let mut bubbles = Bubbles::new(side, *calibration);
        bubbles.filled(window, window);
        let account = bubbles.finish();
        lost.push(window - account.side_work_ns);
        drains.extend(account.stop_latencies_ns);
        opens.extend(side.gate.last_start_latency().map(|ns| ns as f64));
    }
    ops.synchronize()?;
    calibration.open_ns = stats::median(&opens).unwrap_or(0.0);
    calibration.drain_ns = stats::median(&drains).unwrap_or(0.0);
    Ok(lost)
}

/// Filled and empty bubbles in random order, a forward behind each: what the main loses, and what the bubbles lose, which is
/// returned.
fn afters(
    ops: &mut Host,
    layers: &mut Layers,
    side: &mut GatedModel,
    calibration: &mut Calibration,
) -> Result<Vec<f64>> {
    let (mut filled, mut empty, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = stats::SplitMix(SEED + 1);
    let least = calibration.margin_ns + calibration.open_ns + 2.0 * calibration.need_ns;
    let bubble = calibration.forward_ns.max(least);
    let mut order: Vec<bool> = (0..2 * AFTERS).map(|i| i % 2 == 0).collect();
    random.shuffle(&mut order);
    for fill in order {
        layers.backward(ops);
        let mut bubbles = Bubbles::new(side, *calibration);
        let start = now_ns();
        if fill {
            bubbles.filled(bubble, bubble)
        } else {
            bubbles.empty(bubble)
        }
        layers.forward(ops);
        // From the bubble's start: waking late is part of what the main loses.
        let ns = (now_ns() - start) as f64 - bubble;
        let account = bubbles.finish();
        if fill {
            filled.push(ns);
            lost.push(bubble - account.side_work_ns);
        } else {
            empty.push(ns);
        }
    }
    ops.synchronize()?;
    let difference = stats::median(&filled).unwrap_or(0.0) - stats::median(&empty).unwrap_or(0.0);
    calibration.after_ns = difference;
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corun::gate;
    use crate::ops::DType;

    fn profile() -> StepProfile {
        StepProfile::from_steps(0, &[1e5; 4], 2).unwrap()
    }

    fn bubbles<'a>(gate: &'a mut MainEnd, profile: &'a StepProfile, last: &'a LastOperations) -> Bubbles<'a> {
        let (calibration, account) = (Calibration::default(), Account::default());
        Bubbles { gate, profile, last, calibration, closed_at: None, openings: Vec::new(), account }
    }

    /// A side that never stops in time and works between the bubbles only.
    #[test]
    fn late_stops_are_kept_and_work_outside_bubbles_is_not_counted() {
        let (mut gate, mut side) = gate::pair().unwrap();
        side.ready();
        let (profile, last) = (profile(), LastOperations::default());
        let mut bubbles = bubbles(&mut gate, &profile, &last);
        for _ in 0..3 {
            bubbles.filled(1e5, 1e5);
            std::thread::sleep(std::time::Duration::from_millis(2));
            (0..5).for_each(|_| side.done().unwrap());
        }
        assert!(bubbles.account.stop_latencies_ns.len() == 2, "those of the bubbles that were followed by another");
        let account = bubbles.finish();
        assert!(account.stop_latencies_ns.len() == 3 && account.stop_latencies_ns.iter().all(|&ns| ns >= 2e6));
        assert!(account.stop_latencies_ns[2] >= LAST_STOP_NS as f64);
        assert_eq!((account.side_work_ns, account.side_steps), (0.0, 0.0));
        // Of the last one it is known that it took longer than the wait for it.
        assert!(account.overruns_ns.len() == 1 && account.overruns_ns[0] >= LAST_STOP_NS as f64);
        assert_eq!((account.preempted, account.expected_overruns_ns.len()), (1, 0));
    }

    /// Ends before, between and behind the expected and the true end, one of them of an operation that lost its core.
    #[test]
    fn the_last_operation_is_held_against_the_true_and_the_expected_end() {
        let (mut gate, _side) = gate::pair().unwrap();
        let (profile, last) = (profile(), LastOperations::default());
        let mut bubbles = bubbles(&mut gate, &profile, &last);
        let opening = |generation| Opening { generation, end_ns: 1000, expected_close_ns: 900 };
        bubbles.openings = [1, 3, 5, 7, 11].map(opening).to_vec();
        let ended = |opening, end_ns, preempted| LastOperation { opening, end_ns, preempted };
        // Nothing ran in opening 5; 9 is of another iteration.
        let (early, late) = ([ended(1, 800, false), ended(3, 950, false)], ended(11, 1030, false));
        bubbles.overruns(&[early[0], early[1], ended(7, 5000, true), ended(9, 1, false), late]);
        assert_eq!(bubbles.account.overruns_ns, [-200.0, -50.0, 4000.0, 30.0]);
        assert_eq!((bubbles.account.expected_overruns_ns, bubbles.account.preempted), (vec![-100.0, 50.0, 130.0], 1));
        assert_eq!(bubbles.account.waits_ns, [0.0, 0.0, 30.0], "the one that lost its core is nobody's measure");
    }

    #[test]
    fn an_opening_says_the_learned_length_and_is_closed_at_the_true_end() {
        let (mut gate, mut side) = gate::pair().unwrap();
        side.ready();
        let (profile, last) = (profile(), LastOperations::default());
        let mut bubbles = bubbles(&mut gate, &profile, &last);
        bubbles.calibration.need_ns = 1e5;
        bubbles.filled(4e6, 1e6);
        bubbles.filled(4e6, 1e5);
        let account = &bubbles.account;
        assert_eq!((account.bubbles, account.bubbles_opened), (2, 1), "the other was learned too short for the side");
        assert!(account.open_ns >= 3.9e6 && account.late_closes_ns[0] >= 2.9e6, "{account:?}");
        assert!(account.lengths_ns.iter().all(|&ns| ns >= 4e6) && account.learned_over_true[0] <= 0.25);
        let opening = bubbles.openings[0];
        assert!(opening.end_ns.abs_diff(opening.expected_close_ns + 3_000_000) < 4_000_000 && side.opening().0 == 0);
    }

    #[test]
    fn lengths_are_learned_by_position_from_the_shorter_ones() {
        let iterations: Vec<Vec<f64>> = (0..11).map(|i| vec![100.0 + f64::from(i), 1e6 * f64::from(i % 2)]).collect();
        assert_eq!(low_quantiles(&iterations), [101.0, 0.0]);
        assert!(low_quantiles(&[]).is_empty());
    }

    fn spec() -> ReplaySpec {
        ReplaySpec {
            shape: LayerShape::new(64, 4, 128, 1, DType::F32),
            layers: 1,
            stages: 3,
            micro_batches: 3,
            stage: 1,
            side: "mlp-b1".parse().unwrap(),
            grain: Grain::Operation,
        }
    }

    fn runs_filled_and_empty(grain: Grain) {
        let config = HostConfig { threads: 1, cores: None, nice: None };
        let mut replay = Replay::new(ReplaySpec { grain, ..spec() }, config.clone(), config).unwrap();
        assert_eq!(replay.learned_ns.len(), 4);
        let waits =
            replay.steps.iter().filter_map(|step| if let StageStep::Bubble(ns) = step { Some(*ns) } else { None });
        // No wait is ever short.
        assert!(replay.learned_ns.iter().zip(waits).all(|(learned, ns)| *learned >= ns.floor()));
        // Long enough bubbles whatever this machine does meanwhile.
        replay.steps = vec![StageStep::Forward, StageStep::Bubble(30e6), StageStep::Backward, StageStep::Bubble(1e3)];
        replay.learned_ns = vec![30e6, 1e3];
        let opened = u64::from(replay.calibration.opens(30e6));
        let empty = replay.iteration(false).unwrap();
        assert!(empty.ns > 30e6);
        assert_eq!((empty.fill.side_work_ns, empty.fill.bubbles, empty.fill.bubbles_opened), (0.0, 2, 0));
        let filled = replay.iteration(true).unwrap();
        assert!(filled.ns > 30e6);
        assert_eq!((filled.fill.bubbles, filled.fill.bubbles_opened, filled.fill.bubble_ns), (2, opened, 30e6 + 1e3));
        let (stops, closes) = (filled.fill.stop_latencies_ns.len(), filled.fill.late_closes_ns.len());
        assert_eq!((stops as u64, closes as u64), (opened, opened));
        // On a machine with little time for it the side does not come to work in every bubble.
        let mut works = || {
            let fill = replay.iteration(true).unwrap().fill;
            fill.side_work_ns > 0.0 && fill.side_steps > 0.0 && fill.overruns_ns.len() == 1
        };
        assert!(opened == 0 || (0..50).any(|_| works()));
    }

    #[test]
    fn an_iteration_is_as_long_as_before_and_ends_with_work() {
        for stage in 0..4 {
            let stage = Stage { stages: 4, micro_batches: 6, stage, forward_ns: 10.0, backward_ns: 20.0 };
            let (whole, rotated) = (stage.steps().unwrap(), ending_with_work(stage.steps().unwrap()));
            assert_eq!(rotated.last(), Some(&StageStep::Forward));
            let count = |steps: &[StageStep], of| steps.iter().filter(|step| **step == of).count();
            for step in &whole {
                assert_eq!(count(&whole, *step), count(&rotated, *step));
            }
        }
        assert_eq!(ending_with_work(vec![StageStep::Bubble(1.0)]), [StageStep::Bubble(1.0)]);
    }

    #[test]
    fn a_small_stage_runs_filled_and_empty() {
        runs_filled_and_empty(Grain::Operation);
    }

    #[test]
    fn a_small_stage_runs_with_whole_steps_too() {
        runs_filled_and_empty(Grain::Step);
    }

    #[test]
    fn a_stage_that_is_none_is_refused() {
        let config = HostConfig { threads: 1, cores: None, nice: None };
        assert!(Replay::new(ReplaySpec { stage: 3, ..spec() }, config.clone(), config).is_err());
    }
}
