//! A small model that trains in a process of its own, behind the gate of a main program that it knows by the gate's path
//! only.
//!
//! It gets ready first: the model is made, its operations are timed, and only then the main learns that a side is there.
//! From then on each operation asks with its own time, so that none starts that would end too late. The command line
//! ([`crate::cli`]) waits for the gate, keeps what was learned in a file, and says how it went.

use super::gate::page::PageLayout;
use super::gate::{SideEnd, protocol};
use super::gated::{Ended, Gated};
use super::load::profile_of;
use super::profile::StepProfile;
use super::time;
use crate::Result;
use crate::models::{ModelState, SideModel, SideSpec, seeded_side_model};
use crate::ops::host::{Host, HostConfig};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// What is trained behind a gate, and up to where.
#[derive(Debug, Clone)]
pub struct LiveTraining {
    /// The model and its batch.
    pub spec: SideSpec,
    /// The seed of its first weights.
    pub seed: u64,
    /// The threads that it computes with.
    pub host: HostConfig,
    /// Where it goes on from, instead of from its first weights.
    pub resume: Option<Resume>,
    /// It ends once so many steps are done, those before `resume` included.
    pub most_steps: Option<u64>,
    /// Whether this program is to end; looked at between steps, and every 50 ms at the gate.
    pub asked: fn() -> bool,
}

/// Where a training goes on from.
#[derive(Debug, Clone)]
pub struct Resume {
    /// What the model had learned.
    pub state: ModelState,
    /// Where that was read, for errors.
    pub place: String,
}

/// What a training behind a gate tells while it lasts.
#[derive(Debug)]
pub enum Told<'a> {
    /// The operations are timed: from now on the main knows that a side is there.
    Ready(&'a StepProfile),
    /// A step was done.
    Step {
        /// Steps done, those before a resume included.
        steps: u64,
        /// Its mean loss.
        loss: f64,
    },
}

/// What came of a training behind a gate.
#[derive(Debug)]
pub struct LiveOutcome {
    /// Why it ended; `None` where all the steps asked for are done.
    pub ended: Option<Ended>,
    /// What the model has learned, as of the last whole step.
    pub state: ModelState,
    /// Steps done in this run.
    pub steps: u64,
    /// Operations done behind the gate in this run.
    pub operations: u64,
    /// Mean loss of this run's first and of its last step; `None` where it did none.
    pub losses: Option<(f64, f64)>,
    /// How the openings were used.
    pub usage: GateUsage,
}

/// How the openings of a gate were used since a side was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateUsage {
    /// Openings, by the main's own calls; one that was open already counts too.
    pub openings: u64,
    /// Openings in which the side stopped by the clock: its next operation would not have ended in time.
    pub self_stops: u64,
    /// Time that the gate stood open, in nanoseconds.
    pub open_ns: u64,
    /// Time from the first operation of an opening to standing still, in nanoseconds, all openings together.
    pub work_ns: u64,
    /// A device opens and closes the gate: nobody counts its openings, nor for how long.
    pub by_device: bool,
}

impl GateUsage {
    /// The totals of a page so far, without the present opening among the openings, nor what another side works in it.
    fn before(layout: &PageLayout) -> Self {
        let open = protocol::phase(layout.main.state.load(Acquire)) == protocol::OPEN;
        let now = GateUsage::now(layout, u64::MAX);
        GateUsage { openings: now.openings.saturating_sub(open.into()), ..now }
    }

    /// The totals of a page so far; what a side went to work at before `ready_at` is another's.
    fn now(layout: &PageLayout, ready_at: u64) -> Self {
        let PageLayout { header, main, side, place, .. } = layout;
        let now = time::now_ns();
        let state = main.state.load(Acquire);
        let opening = protocol::generation(state);
        let open = protocol::phase(state) == protocol::OPEN;
        let standing = protocol::standing(place.generation.load(Acquire), opening);
        let started_at = side.started_at.load(Relaxed);
        let own = side.started.load(Acquire) == opening && started_at >= ready_at;
        let works = open && own && side.stopped.load(Acquire) != standing;
        let up_to_now = |counts: bool, since: u64| if counts { now.saturating_sub(since) } else { 0 };
        let open_now = up_to_now(open, main.opened_at.load(Relaxed));
        let work_now = up_to_now(works, started_at);
        GateUsage {
            openings: main.openings.load(Relaxed),
            self_stops: side.self_stops.load(Relaxed),
            open_ns: main.open_ns.load(Relaxed).saturating_add(open_now),
            work_ns: side.work_ns.load(Relaxed).saturating_add(work_now),
            by_device: header.by_device(),
        }
    }

    /// What came since `before`.
    fn since(self, before: GateUsage) -> GateUsage {
        GateUsage {
            openings: self.openings.saturating_sub(before.openings),
            self_stops: self.self_stops.saturating_sub(before.self_stops),
            open_ns: self.open_ns.saturating_sub(before.open_ns),
            work_ns: self.work_ns.saturating_sub(before.work_ns),
            by_device: self.by_device,
        }
    }
}

/// Trains behind `gate` until the gate ends, the steps are done, or it is asked to end.
/// An error where threads or memory cannot be had, or the state to resume is another model's.
pub fn train(training: &LiveTraining, gate: SideEnd, told: &mut (dyn FnMut(Told<'_>) + Send)) -> Result<LiveOutcome> {
    let page = gate.page();
    let host = Host::new(training.host.clone())?;
    // The whole of it inside the pool: operations then start without a hop between threads.
    host.workers().install(move || {
        time::fine_timers();
        let mut ops = Gated::getting_ready(host, gate);
        let mut model = seeded_side_model(&mut ops, training.spec, training.seed)?;
        let (profile, start) = get_ready(training, &mut ops, model.as_mut())?;
        let Some(profile) = profile else {
            let usage = GateUsage::default();
            return Ok(LiveOutcome {
                ended: Some(Ended::Asked),
                state: start,
                steps: 0,
                operations: 0,
                losses: None,
                usage,
            });
        };
        let before = GateUsage::before(page.layout());
        let operations = ops.operations();
        let ready_at = time::now_ns();
        ops.ready();
        told(Told::Ready(&profile));
        let (ended, losses) = run(training, &mut ops, model.as_mut(), told)?;
        let usage = GateUsage::now(page.layout(), ready_at).since(before);
        let operations = ops.operations() - operations;
        let state = ModelState::of(model.as_mut(), &mut ops)?;
        let steps = state.steps - training.resume.as_ref().map_or(0, |resume| resume.state.steps);
        Ok(LiveOutcome { ended, state, steps, operations, losses, usage })
    })
}

/// Times the operations of a step and goes back to where the training begins, which comes with it: the steps that were timed
/// are no part of it. No profile where this program is asked to end meanwhile.
fn get_ready(
    training: &LiveTraining,
    ops: &mut Gated<Host>,
    model: &mut dyn SideModel<Gated<Host>>,
) -> Result<(Option<StepProfile>, ModelState)> {
    // Another model's state is refused before anything is timed.
    if let Some(Resume { state, place }) = &training.resume {
        state.restore(model, ops, place)?;
    }
    let start = ModelState::of(model, ops)?;
    // One thread's own time is what the operation takes, however busy the cores are with others; while it has lost its core,
    // it takes nothing from the main.
    let clock = if training.host.threads == 1 { time::thread_ns } else { time::now_ns };
    let profile = profile_of(ops, model, clock, training.asked)?;
    start.restore(model, ops, "the model")?;
    let Some(profile) = profile else { return Ok((None, start)) };
    ops.learn(profile.needs_ns().to_vec());
    ops.end_when(training.asked);
    Ok((Some(profile), start))
}

type Losses = Option<(f64, f64)>;

fn run(
    training: &LiveTraining,
    ops: &mut Gated<Host>,
    model: &mut dyn SideModel<Gated<Host>>,
    told: &mut (dyn FnMut(Told<'_>) + Send),
) -> Result<(Option<Ended>, Losses)> {
    let mut losses: Losses = None;
    loop {
        if training.most_steps.is_some_and(|most| model.steps() >= most) {
            return Ok((None, losses));
        }
        if (training.asked)() {
            return Ok((Some(Ended::Asked), losses));
        }
        ops.begin_step();
        model.gradients(ops);
        // What was reckoned of this step is given up: nothing was updated yet.
        if ops.ended().is_some() {
            return Ok((ops.ended(), losses));
        }
        ops.set_finishing(true);
        model.update(ops);
        ops.set_finishing(false);
        let loss = model.loss(ops)?;
        losses = Some((losses.map_or(loss, |(first, _)| first), loss));
        told(Told::Step { steps: model.steps(), loss });
        if ops.ended().is_some() {
            return Ok((ops.ended(), losses));
        }
    }
}
