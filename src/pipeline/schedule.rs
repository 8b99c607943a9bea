//! What a schedule is: for every stage a fixed list of operations, and which of them wait for another stage.
//!
//! A stage holds one or more *chunks* (groups of layers). A chunk on a stage is a [`Schedule::cell`]; the cells form
//! one or two chains that a micro-batch runs through forwards and comes back through backwards. Nothing here knows
//! times: the searched schedules get them through [`Spec`].

use super::nearest;
use super::times::Times;
use crate::{Error, Result};

/// What an operation computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Work {
    Forward,
    /// Gradients of the inputs (B).
    BackwardInput,
    /// Gradients of the weights (W).
    BackwardWeight,
    /// Both in one (B+W): the stage before waits for its end.
    Backward,
}

/// One entry of a stage's list: eight bytes, because there may be tens of millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    pub micro_batch: u32,
    pub chunk: u16,
    pub work: Work,
}

impl Operation {
    pub const fn new(work: Work, micro_batch: usize, chunk: usize) -> Self {
        Operation { micro_batch: micro_batch as u32, chunk: chunk as u16, work }
    }
}

/// The schedules by the names of their papers and of Megatron-LM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    Gpipe,
    OneFOneB,
    Interleaved,
    ZbH1,
    ZbH2,
    Zb1p,
    Zb2p,
    ZbV,
    VHalf,
    VMin,
    Dualpipe,
    Dualpipev,
    Chimera,
}

impl Name {
    pub const ALL: [Name; 13] = [
        Name::Gpipe,
        Name::OneFOneB,
        Name::Interleaved,
        Name::ZbH1,
        Name::ZbH2,
        Name::Zb1p,
        Name::Zb2p,
        Name::ZbV,
        Name::VHalf,
        Name::VMin,
        Name::Dualpipe,
        Name::Dualpipev,
        Name::Chimera,
    ];

    pub const fn text(self) -> &'static str {
        match self {
            Name::Gpipe => "gpipe",
            Name::OneFOneB => "1f1b",
            Name::Interleaved => "interleaved",
            Name::ZbH1 => "zb-h1",
            Name::ZbH2 => "zb-h2",
            Name::Zb1p => "zb-1p",
            Name::Zb2p => "zb-2p",
            Name::ZbV => "zb-v",
            Name::VHalf => "v-half",
            Name::VMin => "v-min",
            Name::Dualpipe => "dualpipe",
            Name::Dualpipev => "dualpipev",
            Name::Chimera => "chimera",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        Name::ALL.into_iter().find(|n| n.text() == text).ok_or_else(|| {
            Error::input(format!("`{text}` is not a schedule"), nearest::cure(text, Name::ALL.map(Name::text)))
        })
    }

    /// The backward pass is one operation B+W, and the stage before waits for all of it.
    pub const fn fused_backward(self) -> bool {
        matches!(self, Name::Gpipe | Name::OneFOneB | Name::Interleaved | Name::Chimera)
    }

    /// The optimizer step follows each stage's own last operation, without a barrier over the stages (Qi et al.,
    /// arXiv 2401.10241, §4): the iteration is the longest span of one stage.
    pub const fn windowed(self) -> bool {
        matches!(self, Name::ZbH2 | Name::Zb1p | Name::Zb2p | Name::ZbV)
    }
}

/// How the chunks of the stages are strung together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Chunk 0 of every stage in order, then chunk 1 of every stage in order, … (one chunk: the plain pipeline).
    Loop,
    /// Chunk 0 down the stages, chunk 1 back up: the first stage holds both ends, the last turns round without a message.
    Vee,
    /// Two whole pipelines: chunk 0 runs down the stages, chunk 1 up them, each with half of the micro-batches. Chunk 1
    /// of a device is the stage its mirror image holds as chunk 0.
    Both,
}

/// What to build a schedule for.
#[derive(Debug, Clone)]
pub struct Spec<'a> {
    pub name: Name,
    pub stages: usize,
    pub micro_batches: usize,
    /// Chunks per stage; only `interleaved` leaves the choice.
    pub chunks: Option<usize>,
    /// Most activations a stage may hold, in micro-batches.
    pub memory_limit: Option<f64>,
    /// Activations a micro-batch still holds between its B and its W.
    pub weight_share: f64,
    /// The searched schedules order operations by these; the fixed ones do not look at them.
    pub times: &'a Times,
}

/// Largest number of operations a schedule may have.
pub const MAX_OPERATIONS: u128 = 50_000_000;

/// A schedule: every stage's list, laid end to end.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub name: Name,
    pub stages: usize,
    pub micro_batches: usize,
    pub chunks: usize,
    pub placement: Placement,
    operations: Vec<Operation>,
    /// Where each stage's list begins in `operations`; one more entry than stages.
    offsets: Vec<usize>,
}

impl Schedule {
    /// Builds the schedule after checking that it exists for these numbers.
    pub fn build(spec: &Spec) -> Result<Self> {
        check_sizes(spec)?;
        super::schedules::build(spec)
    }

    /// Lays the stages' lists end to end.
    pub(super) fn from_lists(
        spec: &Spec,
        chunks: usize,
        placement: Placement,
        list: impl Fn(usize, &mut Vec<Operation>),
    ) -> Self {
        let per_cell = if spec.name.fused_backward() { 2 } else { 3 };
        let mut operations = Vec::with_capacity(spec.stages * spec.micro_batches * chunks * per_cell);
        let mut offsets = Vec::with_capacity(spec.stages + 1);
        offsets.push(0);
        for stage in 0..spec.stages {
            list(stage, &mut operations);
            offsets.push(operations.len());
        }
        Schedule {
            name: spec.name,
            stages: spec.stages,
            micro_batches: spec.micro_batches,
            chunks,
            placement,
            operations,
            offsets,
        }
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Index range of a stage's list within [`Self::operations`].
    pub fn range(&self, stage: usize) -> std::ops::Range<usize> {
        self.offsets[stage]..self.offsets[stage + 1]
    }

    pub fn list(&self, stage: usize) -> &[Operation] {
        &self.operations[self.range(stage)]
    }

    pub const fn cells(&self) -> usize {
        self.stages * self.chunks
    }

    pub const fn cell(&self, stage: usize, chunk: usize) -> usize {
        stage * self.chunks + chunk
    }

    /// The cell a micro-batch goes to after this one, forwards.
    pub fn next(&self, stage: usize, chunk: usize) -> Option<(usize, usize)> {
        let last = self.stages - 1;
        match (self.placement, chunk) {
            (Placement::Loop, _) if stage < last => Some((stage + 1, chunk)),
            (Placement::Loop, _) => (chunk + 1 < self.chunks).then_some((0, chunk + 1)),
            (Placement::Vee, 0) => Some(if stage < last { (stage + 1, 0) } else { (last, 1) }),
            (Placement::Both, 0) => (stage < last).then_some((stage + 1, 0)),
            (Placement::Vee | Placement::Both, _) => (stage > 0).then(|| (stage - 1, chunk)),
        }
    }

    /// The cell a micro-batch came from, forwards.
    pub fn previous(&self, stage: usize, chunk: usize) -> Option<(usize, usize)> {
        let last = self.stages - 1;
        match (self.placement, chunk) {
            (Placement::Loop, _) if stage > 0 => Some((stage - 1, chunk)),
            (Placement::Loop, _) => (chunk > 0).then(|| (last, chunk - 1)),
            (Placement::Vee | Placement::Both, 0) => (stage > 0).then(|| (stage - 1, 0)),
            (Placement::Vee, _) => Some(if stage < last { (stage + 1, 1) } else { (last, 0) }),
            (Placement::Both, _) => (stage < last).then_some((stage + 1, chunk)),
        }
    }

    /// Whether a stage's times are split among its chunks, or each chunk is a stage of its own.
    const fn splits(&self) -> bool {
        !matches!(self.placement, Placement::Both)
    }

    /// Duration of each kind of work in each cell, indexed by [`Self::cell`] then by [`Work`]. Where a stage's times
    /// are split among its chunks, they add up to the nanosecond.
    pub fn durations(&self, times: &Times) -> Vec<[u64; 4]> {
        (0..self.cells())
            .map(|cell| {
                let (stage, chunk) = (cell / self.chunks, cell % self.chunks);
                let held = if self.splits() || chunk == 0 { stage } else { self.stages - 1 - stage };
                let t = times.stage[held];
                let part = |ns: u64| if self.splits() { part_of(ns, chunk, self.chunks) } else { ns };
                let (b, w) = (part(t.backward_input_ns), part(t.backward_weight_ns));
                [part(t.forward_ns), b, w, b + w]
            })
            .collect()
    }

    /// Micro-batches that go through each chunk.
    pub const fn passes(&self) -> usize {
        if self.splits() { self.micro_batches } else { self.micro_batches / 2 }
    }

    /// How much of a micro-batch's activations on a stage one chunk holds.
    pub fn chunk_share(&self) -> f64 {
        if self.splits() { 1.0 / self.chunks as f64 } else { 1.0 }
    }
}

/// Chunk `k` of `chunks`: the parts differ by at most a nanosecond and add up exactly.
pub(super) fn part_of(ns: u64, k: usize, chunks: usize) -> u64 {
    let upto = |k: usize| (u128::from(ns) * k as u128 / chunks as u128) as u64;
    upto(k + 1) - upto(k)
}

fn check_sizes(spec: &Spec) -> Result<()> {
    for (what, value) in [("stages", spec.stages), ("micro-batches", spec.micro_batches)] {
        if value == 0 {
            return Err(Error::input(format!("{what} is 0"), format!("give 1 or more {what}")));
        }
    }
    let chunks = spec.chunks.unwrap_or(1);
    if chunks == 0 || chunks > 4096 {
        return Err(Error::input(format!("chunks is {chunks}"), "give 1 to 4096 chunks a stage"));
    }
    let operations = 3 * spec.stages as u128 * spec.micro_batches as u128 * chunks as u128;
    if operations > MAX_OPERATIONS {
        return Err(Error::input(
            format!(
                "{} stages × {} micro-batches × {chunks} chunks are {operations} operations",
                spec.stages, spec.micro_batches
            ),
            format!("stay under {MAX_OPERATIONS}: the pattern repeats, fewer micro-batches show the same bubbles"),
        ));
    }
    if !(0.0..=1.0).contains(&spec.weight_share) {
        return Err(Error::input(
            format!("the weight share is {}", spec.weight_share),
            "give the part of a micro-batch's activations that W still needs, 0 to 1",
        ));
    }
    if let Some(limit) = spec.memory_limit
        && !(limit > 0.0 && limit.is_finite())
    {
        return Err(Error::input(format!("the memory limit is {limit}"), "give a number of micro-batches above 0"));
    }
    spec.times.validate(spec.stages, spec.micro_batches, chunks)
}
