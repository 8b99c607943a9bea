//! One stage's problem and its solution: bubbles in order of time, side models with their kernels, the memory free in
//! each bubble, and what the main job may lose. [`super::planner`] solves it; no pipeline is known here.
//!
//! A side that is *resident* keeps its state in the stage's memory through the whole iteration. It is resident in one of two ways:
//! `Split` holds all its memory all the time and may stop between any two kernels; `Whole` keeps only parameters and optimizer
//! state between bubbles and therefore runs whole steps only (a step stopped half way holds its activations).

use super::kernels::PieceClass;
use super::overrun::{NEED_DEVIATIONS, Pieces, TrueEnd};
use super::side::CompleteSide;
use std::cmp::Reverse;

/// A bubble that may be filled, as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot<'a> {
    /// Start of the bubble, in ns from the beginning of the iteration.
    pub start_ns: u64,
    /// Time at which the main job is expected to continue, in ns from the beginning of the iteration; where the bubble's
    /// length varies, the time until which the gate opens.
    pub end_ns: u64,
    /// Memory free during the bubble, in bytes, beyond what the main job holds and the headroom; `None` where the GPU's
    /// memory is not known.
    pub free_bytes: Option<f64>,
    /// Whether the main job waits in a receive during the bubble, beside which sides are slower.
    pub receiving: bool,
    /// When the bubble truly ends, as seen from `end_ns`; `None` where nothing is known of how its length varies.
    pub true_end: Option<TrueEnd<'a>>,
}

impl Slot<'_> {
    /// A bubble of a length that does not vary, in which nothing is received.
    pub const fn new(start_ns: u64, end_ns: u64, free_bytes: Option<f64>) -> Self {
        Slot { start_ns, end_ns, free_bytes, receiving: false, true_end: None }
    }
}

impl<'a> Slot<'a> {
    /// All of it that says what side work in it comes to: slots of one kind differ only in where they lie and in free memory.
    pub const fn kind(&self) -> SlotKind<'a> {
        SlotKind { length_ns: self.end_ns - self.start_ns, receiving: self.receiving, true_end: self.true_end }
    }
}

/// What slots have in common in which the same side work comes to the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlotKind<'a> {
    length_ns: u64,
    receiving: bool,
    true_end: Option<TrueEnd<'a>>,
}

/// How a side model stays in a stage's memory between bubbles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// All its memory stays, and it may stop between any two kernels.
    Split,
    /// Only parameters and optimizer state stay, so it runs whole steps only.
    Whole,
}

/// A side model that stays in a stage's memory through the whole iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resident {
    /// Index of the side model in `StageProblem::sides`.
    pub side: usize,
    /// Whether the side keeps all its memory and may stop within a step, or keeps its state and runs whole steps.
    pub residency: Residency,
}

impl Resident {
    /// Memory that the side keeps while the main job or another side runs, in bytes. `sides` are those that
    /// `Resident::side` is an index into.
    pub fn held_bytes(&self, sides: &[CompleteSide]) -> f64 {
        let side = &sides[self.side];
        match self.residency {
            Residency::Split => side.memory_bytes,
            Residency::Whole => side.resident_bytes,
        }
    }
}

/// A side model's run of kernels in one bubble, without a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SideRun {
    /// Index of the side model in `StageProblem::sides`.
    pub side: usize,
    /// Start of its first kernel, in ns from the beginning of the iteration.
    pub start_ns: u64,
    /// Number of kernels that run.
    pub kernels: u64,
    /// Time of these kernels alone, in ns.
    pub work_ns: u64,
    /// Time that they take in the bubble, in ns: longer than alone beside a receive that waits.
    pub takes_ns: u64,
}

impl SideRun {
    /// End of the last kernel, in ns from the beginning of the iteration.
    pub const fn end_ns(&self) -> u64 {
        self.start_ns + self.takes_ns
    }
}

/// A list of runs for each slot of a stage, one behind the other: there may be millions of slots.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunLists {
    runs: Vec<SideRun>,
    /// Where each list ends.
    ends: Vec<u32>,
}

impl RunLists {
    /// As many lists without a run.
    pub fn empty(slots: usize) -> Self {
        RunLists { runs: Vec::new(), ends: vec![0; slots] }
    }

    /// No list yet; memory for so many with about a run each.
    pub fn with_capacity(slots: usize) -> Self {
        RunLists { runs: Vec::with_capacity(slots), ends: Vec::with_capacity(slots) }
    }

    /// Adds a list.
    pub fn push(&mut self, list: impl IntoIterator<Item = SideRun>) {
        self.runs.extend(list);
        self.ends.push(self.runs.len() as u32);
    }

    /// The number of lists.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no list.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The lists, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = &[SideRun]> {
        (0..self.len()).map(|index| &self[index])
    }

    /// All runs, and where each list ends among them.
    pub fn into_parts(self) -> (Vec<SideRun>, Vec<u32>) {
        (self.runs, self.ends)
    }
}

impl std::ops::Index<usize> for RunLists {
    type Output = [SideRun];

    fn index(&self, index: usize) -> &[SideRun] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.runs[start as usize..self.ends[index] as usize]
    }
}

/// What one stage has to offer to side models, and which limits its filling must respect.
#[derive(Debug, Clone)]
pub struct StageProblem<'a> {
    /// The job's side models.
    pub sides: &'a [CompleteSide],
    /// Bubbles that may be filled, in order of time.
    pub slots: Vec<Slot<'a>>,
    /// Memory free at the moment when the main job holds most, in bytes: what stays resident must fit into it. `None`
    /// where the GPU's memory is not known.
    pub least_free: Option<f64>,
    /// Time that the main job may lose on this stage in an iteration, in ns.
    pub budget_ns: f64,
    /// Time that the main job loses by every run, in ns: the call that closes the gate. Each side's `after_ns` is added
    /// to it.
    pub close_ns: f64,
    /// Most side models that may run one after another in one bubble.
    pub sides_per_bubble: usize,
}

/// How one stage is filled: the side work in each bubble, and what it costs and is worth.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StageSolution {
    /// Runs in each slot, in order of time, one list for each of `StageProblem::slots`.
    pub runs: RunLists,
    /// Side models that stay on the stage; those that run in no bubble are left out.
    pub resident: Vec<Resident>,
    /// Time that the main job loses on this stage in an iteration, in ns.
    pub lost_ns: f64,
    /// Σ side work · value over all runs, in ns of the main job's work.
    pub worth: f64,
}

impl CompleteSide {
    /// The side's speed in a bubble, its speed alone being 1.
    fn rate(&self, receiving: bool) -> f64 {
        if receiving { self.receive.rate } else { 1.0 }
    }

    /// The time alone of what the side does in `ns` of a bubble.
    pub fn alone_ns(&self, ns: u64, receiving: bool) -> u64 {
        match self.rate(receiving) {
            1.0 => ns,
            rate => (ns as f64 * rate) as u64,
        }
    }

    /// How long work takes in a bubble that alone takes `work_ns`.
    pub fn beside_ns(&self, work_ns: u64, receiving: bool) -> u64 {
        match self.rate(receiving) {
            1.0 => work_ns,
            // Less than a rounding error more than fits is what fits.
            rate => (work_ns as f64 / rate - 1e-3).ceil() as u64,
        }
    }

    /// What a piece is asked for alone beyond what it takes on average, in ns.
    fn need_ns(&self, piece_ns: u64) -> u64 {
        match self.piece_spread > 0.0 {
            true => (NEED_DEVIATIONS * self.piece_spread * piece_ns as f64).ceil() as u64,
            false => 0,
        }
    }

    /// Time alone that the first piece must find in a bubble to be begun, in ns, if it takes `piece_ns`.
    pub fn asked_ns(&self, piece_ns: u64) -> u64 {
        piece_ns.saturating_add(self.need_ns(piece_ns))
    }

    /// Kernels from `position` on that are begun in `room` ns alone: each asks for what it takes nearly always, and the first that would
    /// not end in time is the last that is asked for.
    fn that_are_begun(&self, position: u64, room: u64) -> u64 {
        let longest_need = self.need_ns(self.kernels.longest_ns());
        let mut begun = self.kernels.that_fit(position, room.saturating_sub(longest_need));
        if longest_need == 0 {
            return begun;
        }
        let before = self.kernels.work_ns(position);
        for _ in 0..MOST_ASKED {
            let (at, end) = (self.kernels.work_ns(position + begun), self.kernels.work_ns(position + begun + 1));
            if end - before + self.need_ns(end - at) > room {
                break;
            }
            begun += 1;
        }
        begun
    }

    /// What the side's work comes in.
    fn pieces<'p>(&'p self, slot: &Slot, residency: Residency, step: &'p [PieceClass]) -> Pieces<'p> {
        let (classes, alike) = match residency {
            Residency::Split => (self.kernels.classes(), self.kernels.are_alike()),
            Residency::Whole => (step, true),
        };
        Pieces { classes, alike, rate: self.rate(slot.receiving), spread: self.piece_spread }
    }

    fn step(&self) -> [PieceClass; 1] {
        [PieceClass { length_ns: self.kernels.step_ns(), count: 1 }]
    }

    /// Time that the main job waits on average because the side is still at work at a bubble's true end, in ns: by the closed form where
    /// it is known how the bubble's length varies, and at least what was measured or published. `behind` says that another side runs in
    /// the bubble before it.
    pub fn overrun_ns(&self, slot: &Slot, residency: Residency, behind: bool) -> f64 {
        let known = self.overrun.of(residency);
        let Some(end) = slot.true_end else { return known.usual_ns };
        // Nothing is started that would not end a signal's time before.
        let end = end.seen_before(self.margin.signal_ns as f64);
        let room_ns = (slot.end_ns - slot.start_ns).saturating_sub(self.margin.total_ns()) as f64;
        let step = self.step();
        let pieces = self.pieces(slot, residency, &step);
        let form = if behind { pieces.overrun_behind_ns(room_ns, end) } else { pieces.overrun_ns(room_ns, end) };
        form.max(known.least_ns)
    }

    /// Work of a run in this slot that is done on average, in ns alone: in a bubble that ended nothing more is begun.
    pub fn done_ns(&self, slot: &Slot, run: &SideRun, residency: Residency) -> f64 {
        let work_ns = run.work_ns as f64;
        let Some(end) = slot.true_end else { return work_ns };
        let end = end.seen_before(self.margin.signal_ns as f64);
        let until = slot.end_ns.saturating_sub(self.margin.signal_ns) as f64;
        let step = self.step();
        let (from, to) = (run.start_ns as f64 - until, run.end_ns() as f64 - until);
        let not_begun = self.pieces(slot, residency, &step).not_begun_ns(from, to, end);
        work_ns * (1.0 - not_begun / (run.takes_ns as f64).max(1.0)).clamp(0.0, 1.0)
    }
}

/// Kernels that are asked for one by one where they vary; of a great many short ones behind a long one fewer are counted than fit.
const MOST_ASKED: u64 = 256;

impl StageProblem<'_> {
    /// Time that the main job loses by one run of this side in any bubble, in ns: the closing call and the delay behind a
    /// filled bubble. [`StageProblem::overrun_ns`] is what a bubble of its own adds.
    pub fn cost_ns(&self, side: usize) -> f64 {
        self.close_ns + self.sides[side].after_ns
    }

    /// Time that the main job waits on average for a resident that is still at work when this bubble truly ends, in ns; `behind` says
    /// that another side runs in the bubble before it. It is never less then.
    pub fn overrun_ns(&self, slot: &Slot, resident: Resident, behind: bool) -> f64 {
        self.sides[resident.side].overrun_ns(slot, resident.residency, behind)
    }

    /// Whether a side may run in a slot while other sides keep `held` bytes beside it. It always may where the memory
    /// is not known; the plan's notes say that it was not checked.
    pub fn fits(&self, slot: &Slot, side: usize, held: f64) -> bool {
        slot.free_bytes.is_none_or(|free| self.sides[side].memory_bytes + held <= free)
    }

    /// The longest run of a resident in a slot from `at_ns` on, less its margin at both ends, if it is `position`
    /// kernels into its sequence; `None` if not even one kernel (of a `Residency::Whole` side: one step) fits.
    pub fn longest_run(&self, slot: &Slot, at_ns: u64, resident: Resident, position: u64) -> Option<SideRun> {
        let side = &self.sides[resident.side];
        let start_ns = at_ns.saturating_add(side.margin.before_ns());
        let close_ns = slot.end_ns.checked_sub(side.margin.signal_ns)?;
        let room = side.alone_ns(close_ns.checked_sub(start_ns)?, slot.receiving);
        let kernels = match resident.residency {
            Residency::Split => side.that_are_begun(position, room),
            Residency::Whole => {
                let step_ns = side.kernels.step_ns();
                room.saturating_sub(side.need_ns(step_ns)) / step_ns * side.kernels.per_step()
            }
        };
        (kernels > 0).then(|| self.run(slot, resident.side, start_ns, position, kernels))
    }

    /// By what residents are ordered in a bubble: those with the longest pieces go first, as short ones fill best what others leave.
    pub fn place_in_a_bubble(&self, resident: Resident) -> (Reverse<u64>, usize) {
        let kernels = &self.sides[resident.side].kernels;
        let unit_ns = match resident.residency {
            Residency::Split => kernels.longest_ns(),
            Residency::Whole => kernels.step_ns(),
        };
        (Reverse(unit_ns), resident.side)
    }

    /// Kernels between two places where a resident may stop: one, or all of a step.
    pub fn unit(&self, resident: Resident) -> u64 {
        match resident.residency {
            Residency::Split => 1,
            Residency::Whole => self.sides[resident.side].kernels.per_step(),
        }
    }

    /// A run of `kernels` kernels from `position` in the side's sequence on, the first of them at `start_ns` in the slot.
    pub fn run(&self, slot: &Slot, side: usize, start_ns: u64, position: u64, kernels: u64) -> SideRun {
        let all = &self.sides[side].kernels;
        let work_ns = all.work_ns(position + kernels) - all.work_ns(position);
        let takes_ns = self.sides[side].beside_ns(work_ns, slot.receiving);
        SideRun { side, start_ns, kernels, work_ns, takes_ns }
    }

    /// Value of a run: its work in ns times the side's value.
    pub fn worth(&self, run: &SideRun) -> f64 {
        run.work_ns as f64 * self.sides[run.side].value
    }
}
