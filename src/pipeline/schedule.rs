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
    /// The forward pass (F).
    Forward,
    /// The backward pass to the inputs (B): the stage before waits for it.
    BackwardInput,
    /// The backward pass to the weights (W): no other stage waits for it.
    BackwardWeight,
    /// Both backward passes in one operation (B+W): the stage before waits for its end.
    Backward,
}

/// One operation in a stage's list, kept in eight bytes because there may be tens of millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageOperation {
    /// The micro-batch's number, counted from 0.
    pub micro_batch: u32,
    /// Which of the stage's chunks runs, counted from 0.
    pub chunk: u16,
    /// What the operation computes.
    pub work: Work,
    /// Whether this is half of an overlapped pair: a forward and the whole backward behind it start together, when the
    /// inputs of both are there, and their results are there together, when both have ended.
    pub paired: bool,
}

/// The number of durations that a cell's operations can have: one for each kind of work, and two more for the halves of
/// a pair.
pub const DURATIONS: usize = 6;

impl StageOperation {
    /// An operation that is not half of an overlapped pair.
    pub const fn new(work: Work, micro_batch: usize, chunk: usize) -> Self {
        StageOperation { micro_batch: micro_batch as u32, chunk: chunk as u16, work, paired: false }
    }

    pub(super) const fn in_pair(self) -> Self {
        StageOperation { paired: true, ..self }
    }

    /// The index of the operation's duration among its cell's [`DURATIONS`].
    pub const fn duration(self) -> usize {
        match (self.paired, self.work) {
            (false, work) => work as usize,
            (true, Work::Forward) => 4,
            (true, _) => 5,
        }
    }
}

/// The pipeline schedules, by the names of their papers and of Megatron-LM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScheduleName {
    /// GPipe: all forwards, then all backwards, last micro-batch first (Huang et al., arXiv 1811.06965).
    Gpipe,
    /// 1F1B, PipeDream-flush: after its warm-up a stage alternates forwards and backwards (Narayanan et al., arXiv
    /// 2006.09503).
    OneFOneB,
    /// Interleaved 1F1B: every stage holds several chunks of layers (Narayanan et al., arXiv 2104.04473, §2.2).
    Interleaved,
    /// ZB-H1: the backward is split into B and W, in the activation memory of 1F1B (Qi et al., arXiv 2401.10241, §2).
    ZbH1,
    /// ZB-H2: the backward is split into B and W, with up to twice the activation memory of 1F1B (Qi et al., arXiv
    /// 2401.10241, §2).
    ZbH2,
    /// ZB-1p: the order of F, B and W is searched for within p micro-batches of activations (Qi et al., arXiv
    /// 2401.10241, §3).
    Zb1p,
    /// ZB-2p: the order of F, B and W is searched for within 2p micro-batches of activations (Qi et al., arXiv
    /// 2401.10241, §3).
    Zb2p,
    /// ZB-V: two chunks a stage in V shape, their order searched for within p micro-batches of activations (Qi et al.,
    /// arXiv 2401.10241, §6).
    ZbV,
    /// V-Half: two chunks a stage in V shape, at most (p+2)/2 micro-batches of activations (Qi et al., arXiv
    /// 2405.15362).
    VHalf,
    /// V-Min: two chunks a stage in V shape, at most (p+4)/3 micro-batches of activations (Qi et al., arXiv
    /// 2405.15362).
    VMin,
    /// DualPipe: two pipelines in opposite directions, forwards of one side by side with backwards of the other
    /// (DeepSeek-V3, arXiv 2412.19437, §3.2.1).
    Dualpipe,
    /// DualPipeV: half of DualPipe on its own, the two stages of a device being two chunks in V shape (DeepSeek's
    /// open-source release).
    Dualpipev,
    /// Chimera: two pipelines in opposite directions through the same devices (Li & Hoefler, arXiv 2107.06925).
    Chimera,
}

impl ScheduleName {
    /// Every schedule, in the order in which error messages list them.
    pub const ALL: [ScheduleName; 13] = [
        ScheduleName::Gpipe,
        ScheduleName::OneFOneB,
        ScheduleName::Interleaved,
        ScheduleName::ZbH1,
        ScheduleName::ZbH2,
        ScheduleName::Zb1p,
        ScheduleName::Zb2p,
        ScheduleName::ZbV,
        ScheduleName::VHalf,
        ScheduleName::VMin,
        ScheduleName::Dualpipe,
        ScheduleName::Dualpipev,
        ScheduleName::Chimera,
    ];

    /// The name as job files, records and `--schedule` spell it, e.g. `1f1b`.
    pub const fn text(self) -> &'static str {
        match self {
            ScheduleName::Gpipe => "gpipe",
            ScheduleName::OneFOneB => "1f1b",
            ScheduleName::Interleaved => "interleaved",
            ScheduleName::ZbH1 => "zb-h1",
            ScheduleName::ZbH2 => "zb-h2",
            ScheduleName::Zb1p => "zb-1p",
            ScheduleName::Zb2p => "zb-2p",
            ScheduleName::ZbV => "zb-v",
            ScheduleName::VHalf => "v-half",
            ScheduleName::VMin => "v-min",
            ScheduleName::Dualpipe => "dualpipe",
            ScheduleName::Dualpipev => "dualpipev",
            ScheduleName::Chimera => "chimera",
        }
    }

    /// The schedule of this name, as [`ScheduleName::text`] spells it. Fails if there is none; the error proposes the nearest
    /// name.
    pub fn parse(text: &str) -> Result<Self> {
        ScheduleName::ALL.into_iter().find(|n| n.text() == text).ok_or_else(|| {
            Error::input(
                format!("`{text}` is not a schedule"),
                nearest::cure(text, ScheduleName::ALL.map(ScheduleName::text)),
            )
        })
    }

    /// Whether every backward pass is one operation B+W, for all of which the stage before waits (`dualpipe` and
    /// `dualpipev` have both kinds and answer false).
    pub const fn fused_backward(self) -> bool {
        matches!(self, ScheduleName::Gpipe | ScheduleName::OneFOneB | ScheduleName::Interleaved | ScheduleName::Chimera)
    }

    /// How the schedule places the model's layers on the stages.
    pub const fn placement(self) -> Placement {
        match self {
            ScheduleName::ZbV | ScheduleName::VHalf | ScheduleName::VMin | ScheduleName::Dualpipev => Placement::Vee,
            ScheduleName::Chimera | ScheduleName::Dualpipe => Placement::Both,
            _ => Placement::Loop,
        }
    }

    /// Whether the order of operations is searched for, which takes many times as long as writing down a fixed one.
    pub const fn searched(self) -> bool {
        matches!(
            self,
            ScheduleName::Zb1p | ScheduleName::Zb2p | ScheduleName::ZbV | ScheduleName::VHalf | ScheduleName::VMin
        )
    }

    /// Whether some forwards run side by side with a backward of the other direction.
    pub const fn overlaps(self) -> bool {
        matches!(self, ScheduleName::Dualpipe | ScheduleName::Dualpipev)
    }

    /// Whether the optimizer step follows each stage's own last operation without a barrier over the stages (Qi et al.,
    /// arXiv 2401.10241, §4), so that the iteration is the longest span of one stage.
    pub const fn windowed(self) -> bool {
        matches!(self, ScheduleName::ZbH2 | ScheduleName::Zb1p | ScheduleName::Zb2p | ScheduleName::ZbV)
    }
}

/// Which order of operations a schedule has: that of a known schedule, or one that was given as a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderName {
    /// The schedule of this name, as [`Schedule::build`] makes it.
    Known(ScheduleName),
    /// A list of operations that somebody else made ([`super::given`]).
    Given {
        /// The schedule that whoever gave the list says it is. Its operations need not be that schedule's own.
        says: Option<ScheduleName>,
        /// Whether the list holds no W, so that every B is the whole backward.
        fused_backward: bool,
        /// Whether the list holds overlapped pairs.
        overlaps: bool,
    },
}

impl OrderName {
    /// The schedule's name; `list` for a list of operations that does not say which schedule it is.
    pub const fn text(self) -> &'static str {
        match self {
            OrderName::Known(name) | OrderName::Given { says: Some(name), .. } => name.text(),
            OrderName::Given { says: None, .. } => "list",
        }
    }

    /// Whether every backward pass is one operation, as [`ScheduleName::fused_backward`] says; a list shows it.
    pub const fn fused_backward(self) -> bool {
        match self {
            OrderName::Known(name) => name.fused_backward(),
            OrderName::Given { fused_backward, .. } => fused_backward,
        }
    }

    /// Whether some forwards run side by side with a backward; a list shows it.
    pub const fn overlaps(self) -> bool {
        match self {
            OrderName::Known(name) => name.overlaps(),
            OrderName::Given { overlaps, .. } => overlaps,
        }
    }

    /// Whether the iteration is the longest span of one stage, as [`ScheduleName::windowed`] says; a list that does not
    /// say which schedule it is has the usual barrier over the stages.
    pub const fn windowed(self) -> bool {
        match self {
            OrderName::Known(name) | OrderName::Given { says: Some(name), .. } => name.windowed(),
            OrderName::Given { says: None, .. } => false,
        }
    }
}

/// A list that was given is no known schedule's own, whatever it says.
impl PartialEq<OrderName> for ScheduleName {
    fn eq(&self, order: &OrderName) -> bool {
        *order == OrderName::Known(*self)
    }
}

/// What a schedule is built for: its sizes, its memory limit, and the times that a searched schedule looks at.
#[derive(Debug, Clone)]
pub struct ScheduleSpec<'a> {
    /// Which schedule to build.
    pub name: ScheduleName,
    /// Number of pipeline stages.
    pub stages: usize,
    /// Micro-batches of one iteration; a two-way pipeline sends half of them each way.
    pub micro_batches: usize,
    /// Chunks per stage, a choice that only `interleaved` leaves; `None` is the schedule's own number.
    pub chunks: Option<usize>,
    /// The most activations that a stage may hold, in micro-batches; `None` is the schedule's own limit where it has
    /// one.
    pub memory_limit: Option<f64>,
    /// The part of a micro-batch's activations that is still held between its B and its W, 0 to 1.
    pub weight_share: f64,
    /// The times by which the searched schedules order operations; the fixed ones do not look at them.
    pub times: &'a Times,
}

impl ScheduleSpec<'_> {
    /// What each stage holds when it is divided into this many chunks.
    pub const fn layout(&self, chunks: usize) -> Layout {
        Layout { placement: self.name.placement(), stages: self.stages, chunks }
    }
}

/// The most operations, counted as 3 · stages · micro-batches · chunks of a stage, for which [`Schedule::build`] makes a
/// schedule.
pub const MAX_OPERATIONS: u128 = 50_000_000;

/// A schedule: the list of operations of every stage, laid end to end.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Which schedule this is.
    pub name: OrderName,
    /// Number of pipeline stages.
    pub stages: usize,
    /// Micro-batches of one iteration, of both directions together.
    pub micro_batches: usize,
    /// Cells of a stage: its chunks, or 2 in a two-way pipeline, whose devices hold two stages each.
    pub chunks: usize,
    /// Which part of the model each cell holds.
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
            name: OrderName::Known(spec.name),
            stages: spec.stages,
            micro_batches: spec.micro_batches,
            chunks,
            layout: spec.layout(chunks),
            operations,
            offsets,
        }
    }

    /// A schedule of operations that were given: the lists of the stages laid end to end, and where each begins, with one
    /// more entry than stages.
    pub(super) fn from_given(
        name: OrderName,
        layout: Layout,
        micro_batches: usize,
        operations: Vec<StageOperation>,
        offsets: Vec<usize>,
    ) -> Self {
        let Layout { stages, chunks, .. } = layout;
        Schedule { name, stages, micro_batches, chunks, layout, operations, offsets }
    }

    /// All operations, the lists of the stages one after another.
    pub fn operations(&self) -> &[StageOperation] {
        &self.operations
    }

    /// The index range of a stage's list within [`Self::operations`].
    pub fn range(&self, stage: usize) -> std::ops::Range<usize> {
        self.offsets[stage]..self.offsets[stage + 1]
    }

    /// The operations of one stage, in the order in which it runs them.
    pub fn list(&self, stage: usize) -> &[StageOperation] {
        &self.operations[self.range(stage)]
    }

    /// The number of cells: stages · chunks.
    pub const fn cells(&self) -> usize {
        self.layout.cells()
    }

    /// The index of the cell of a stage and chunk, as [`Layout::cell`] counts them.
    pub const fn cell(&self, stage: usize, chunk: usize) -> usize {
        self.layout.cell(stage, chunk)
    }

    /// The cell (stage, chunk) that a micro-batch goes to after this one in its forward; `None` at the end of the
    /// chain.
    pub fn next(&self, stage: usize, chunk: usize) -> Option<(usize, usize)> {
        self.layout.next(stage, chunk)
    }

    /// The cell (stage, chunk) that a micro-batch came from in its forward; `None` at the beginning of the chain.
    pub fn previous(&self, stage: usize, chunk: usize) -> Option<(usize, usize)> {
        self.layout.previous(stage, chunk)
    }

    /// The durations of each cell's operations in ns, indexed by [`Self::cell`], then by [`StageOperation::duration`].
    /// A pair's time is divided between its halves as their work is.
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

    /// The number of micro-batches that go through each chunk: all, or half of them in a two-way pipeline (in one that
    /// was given as a list, the directions need not have equally many).
    pub const fn passes(&self) -> usize {
        if self.layout.splits() { self.micro_batches } else { self.micro_batches / 2 }
    }

    /// The fraction of a micro-batch's activations on a stage that one chunk holds.
    pub fn chunk_share(&self) -> f64 {
        self.layout.chunk_share()
    }
}
