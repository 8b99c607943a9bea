//! One stage's problem and its answer: bubbles in order of time, side models with their kernels, the memory free in
//! each bubble, and what the main job may lose. [`super::planner`] answers it; no pipeline is known here.
//!
//! A side that is *resident* keeps its state in the stage's memory through the whole iteration. It is resident in one of two ways:
//! `Split` holds all its memory all the time and may stop between any two kernels; `Whole` keeps only parameters and optimizer
//! state between bubbles and therefore runs whole steps only (a step stopped half way holds its activations).

use super::side::CompleteSide;

/// A bubble as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    pub start_ns: u64,
    /// When the main job is expected to go on.
    pub end_ns: u64,
    /// Beside everything the main job holds and the headroom; `None` where the memory is not known.
    pub free_bytes: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    Split,
    Whole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resident {
    /// Index into the sides.
    pub side: usize,
    pub residency: Residency,
}

impl Resident {
    /// What it keeps while the main job or another side runs.
    pub fn held_bytes(&self, sides: &[CompleteSide]) -> f64 {
        let side = &sides[self.side];
        match self.residency {
            Residency::Split => side.memory_bytes,
            Residency::Whole => side.resident_bytes,
        }
    }
}

/// Side work in one bubble, without a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SideRun {
    /// Index into the sides.
    pub side: usize,
    /// When its first kernel begins.
    pub start_ns: u64,
    /// Kernels that run, and their time alone.
    pub kernels: u64,
    pub work_ns: u64,
}

impl SideRun {
    pub const fn end_ns(&self) -> u64 {
        self.start_ns + self.work_ns
    }
}

/// What one stage has to offer, and what it must respect.
#[derive(Debug, Clone)]
pub struct StageProblem<'a> {
    pub sides: &'a [CompleteSide],
    pub slots: Vec<Slot>,
    /// Free where the main job holds most: what stays resident must fit here.
    pub least_free: Option<f64>,
    /// What the main job may lose on this stage in an iteration.
    pub budget_ns: f64,
    /// What the main job loses by every run: the call that closes the gate. Each side's own cost comes on top.
    pub close_ns: f64,
    /// Most sides in one bubble.
    pub sides_per_bubble: usize,
}

/// One stage, filled.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StageSolution {
    /// Runs of each slot, in order of time.
    pub runs: Vec<Vec<SideRun>>,
    /// Only those that run.
    pub resident: Vec<Resident>,
    /// What the main job loses.
    pub lost_ns: f64,
    /// Σ side work · value.
    pub worth: f64,
}

impl StageProblem<'_> {
    /// What a run of this side costs the main job.
    pub fn cost_ns(&self, side: usize) -> f64 {
        self.close_ns + self.sides[side].after_ns
    }

    /// Whether a side may run in a slot while `held` bytes of other sides stay beside it. Unknown memory refuses nobody:
    /// the plan's notes say that it was not checked.
    pub fn fits(&self, slot: &Slot, side: usize, held: f64) -> bool {
        slot.free_bytes.is_none_or(|free| self.sides[side].memory_bytes + held <= free)
    }

    /// The most a resident can do within a slot from `at_ns` on, its margin taken off at both ends.
    pub fn longest_run(&self, slot: &Slot, at_ns: u64, resident: Resident, position: u64) -> Option<SideRun> {
        let side = &self.sides[resident.side];
        let start_ns = at_ns.saturating_add(side.margin.before_ns());
        let close_ns = slot.end_ns.checked_sub(side.margin.signal_ns)?;
        let room = close_ns.checked_sub(start_ns)?;
        let kernels = match resident.residency {
            Residency::Split => side.kernels.that_fit(position, room),
            Residency::Whole => room / side.kernels.step_ns() * side.kernels.per_step(),
        };
        (kernels > 0).then(|| self.run(resident.side, start_ns, position, kernels))
    }

    /// A run of so many kernels.
    pub fn run(&self, side: usize, start_ns: u64, position: u64, kernels: u64) -> SideRun {
        let all = &self.sides[side].kernels;
        SideRun { side, start_ns, kernels, work_ns: all.work_ns(position + kernels) - all.work_ns(position) }
    }

    /// A side's worth of so much work.
    pub fn worth(&self, run: &SideRun) -> f64 {
        run.work_ns as f64 * self.sides[run.side].value
    }
}
