//! What a schedule is: for every stage a fixed list of operations. What waits for what follows from the [`Layout`]: a
//! micro-batch runs through a chain of cells forwards and comes back through it backwards. Nothing here knows times: the
//! searched schedules get them through [`ScheduleSpec`].

use super::layout::{Layout, Placement};
use super::times::Times;
use crate::{Error, Result, nearest};

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
pub struct StageOperation {
    pub micro_batch: u32,
    pub chunk: u16,
    pub work: Work,
    /// Half of an overlapped pair: a forward and the whole backward behind it start together, when the inputs of both are
    /// there, and their results are there together, when both have ended.
    pub paired: bool,
}

/// Kinds of duration an operation can have: one for each kind of work, and two more for the halves of a pair.
pub const DURATIONS: usize = 6;

impl StageOperation {
    pub const fn new(work: Work, micro_batch: usize, chunk: usize) -> Self {
        StageOperation { micro_batch: micro_batch as u32, chunk: chunk as u16, work, paired: false }
    }

    pub(super) const fn in_pair(self) -> Self {
        StageOperation { paired: true, ..self }
    }

    /// Index among a cell's [`DURATIONS`].
    pub const fn duration(self) -> usize {
        match (self.paired, self.work) {
            (false, work) => work as usize,
            (true, Work::Forward) => 4,
            (true, _) => 5,
        }
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

    /// Every backward pass is one operation B+W, and the stage before waits for all of it (`dualpipe` and `dualpipev` have
    /// both kinds).
    pub const fn fused_backward(self) -> bool {
        matches!(self, Name::Gpipe | Name::OneFOneB | Name::Interleaved | Name::Chimera)
    }

    pub const fn placement(self) -> Placement {
        match self {
            Name::ZbV | Name::VHalf | Name::VMin | Name::Dualpipev => Placement::Vee,
            Name::Chimera | Name::Dualpipe => Placement::Both,
            _ => Placement::Loop,
        }
    }

    /// Some forwards run side by side with a backward of the other direction.
    pub const fn overlaps(self) -> bool {
        matches!(self, Name::Dualpipe | Name::Dualpipev)
    }

    /// The optimizer step follows each stage's own last operation, without a barrier over the stages (Qi et al.,
    /// arXiv 2401.10241, §4): the iteration is the longest span of one stage.
    pub const fn windowed(self) -> bool {
        matches!(self, Name::ZbH2 | Name::Zb1p | Name::Zb2p | Name::ZbV)
    }
}

/// What to build a schedule for.
#[derive(Debug, Clone)]
pub struct ScheduleSpec<'a> {
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

impl ScheduleSpec<'_> {
    /// What the stages hold when each is divided into so many chunks.
    pub const fn layout(&self, chunks: usize) -> Layout {
        Layout { placement: self.name.placement(), stages: self.stages, chunks }
    }
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
    pub layout: Layout,
    operations: Vec<StageOperation>,
    /// Where each stage's list begins in `operations`; one more entry than stages.
    offsets: Vec<usize>,
}

impl Schedule {
    /// Lays the stages' lists end to end.
    pub(super) fn from_lists(
        spec: &ScheduleSpec,
        chunks: usize,
        list: impl Fn(usize, &mut Vec<StageOperation>),
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
            layout: spec.layout(chunks),
            operations,
            offsets,
        }
    }

    pub fn operations(&self) -> &[StageOperation] {
        &self.operations
    }

    /// Index range of a stage's list within [`Self::operations`].
    pub fn range(&self, stage: usize) -> std::ops::Range<usize> {
        self.offsets[stage]..self.offsets[stage + 1]
    }

    pub fn list(&self, stage: usize) -> &[StageOperation] {
        &self.operations[self.range(stage)]
    }

    pub const fn cells(&self) -> usize {
        self.layout.cells()
    }

    pub const fn cell(&self, stage: usize, chunk: usize) -> usize {
        self.layout.cell(stage, chunk)
    }

    /// The cell a micro-batch goes to after this one, forwards.
    pub fn next(&self, stage: usize, chunk: usize) -> Option<(usize, usize)> {
        self.layout.next(stage, chunk)
    }

    /// The cell a micro-batch came from, forwards.
    pub fn previous(&self, stage: usize, chunk: usize) -> Option<(usize, usize)> {
        self.layout.previous(stage, chunk)
    }

    /// Durations in each cell, indexed by [`Self::cell`] then by [`StageOperation::duration`]. A pair's time is divided
    /// between its halves as their work is.
    pub fn durations(&self, times: &Times) -> Vec<[u64; DURATIONS]> {
        let layout = self.layout;
        let paired = self.name.overlaps();
        (0..self.cells())
            .map(|cell| {
                let (stage, chunk) = (cell / self.chunks, cell % self.chunks);
                let t = layout.cell_times(times, stage, chunk);
                let [forward, _] = if paired { self.halves(times, stage, chunk) } else { [0; 2] };
                let [_, backward] = if paired { self.halves(times, stage, self.chunks - 1 - chunk) } else { [0; 2] };
                [t.forward_ns, t.backward_input_ns, t.backward_weight_ns, t.backward_ns(), forward, backward]
            })
            .collect()
    }

    /// Of a pair: the forward of this chunk, the backward of the other.
    fn halves(&self, times: &Times, stage: usize, chunk: usize) -> [u64; 2] {
        let forward = self.layout.cell_times(times, stage, chunk).forward_ns;
        let backward = self.layout.cell_times(times, stage, self.chunks - 1 - chunk).backward_ns();
        let whole = self.layout.pair_ns(times, stage, chunk);
        let work = u128::from(forward + backward).max(1);
        let first = (u128::from(whole) * u128::from(forward) / work) as u64;
        [first, whole - first]
    }

    /// Micro-batches that go through each chunk.
    pub const fn passes(&self) -> usize {
        if self.layout.splits() { self.micro_batches } else { self.micro_batches / 2 }
    }

    /// How much of a micro-batch's activations on a stage one chunk holds.
    pub fn chunk_share(&self) -> f64 {
        self.layout.chunk_share()
    }
}
