//! Which part of the model each stage holds: how the *chunks* (groups of layers) of the stages are strung together into
//! the one or two chains that a micro-batch runs through, and how long each chunk takes.
//!
//! A chunk on a stage is a *cell*.

use super::times::{StageTimes, Times};

/// How the chunks of the stages are strung together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Chunk 0 of every stage in order, then chunk 1 of every stage in order, …; with one chunk this is the plain
    /// pipeline.
    Loop,
    /// Chunk 0 runs down the stages and chunk 1 back up: the first stage holds both ends of the model, the last turns
    /// round without a message.
    Vee,
    /// Two whole pipelines: chunk 0 runs down the stages, chunk 1 up them, each with half of the micro-batches. Chunk 1
    /// of a device is the stage its mirror image holds as chunk 0.
    Both,
}

/// Which chunks the stages hold, and in which order a micro-batch runs through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// How the chunks of the stages are strung together.
    pub placement: Placement,
    /// Pipeline stages, which is also the number of devices along the pipeline.
    pub stages: usize,
    /// Cells a device holds: the chunks of its stage, or the two stages of a two-way pipeline.
    pub chunks: usize,
}

impl Layout {
    /// The number of cells: stages · chunks.
    pub const fn cells(&self) -> usize {
        self.stages * self.chunks
    }

    /// The index of the cell of a stage and chunk, from 0 to [`Layout::cells`] − 1: the chunks of a stage follow one
    /// another.
    pub const fn cell(&self, stage: usize, chunk: usize) -> usize {
        stage * self.chunks + chunk
    }

    /// The cell (stage, chunk) that a micro-batch goes to after this one in its forward; `None` at the end of the
    /// chain.
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

    /// The cell (stage, chunk) that a micro-batch came from in its forward; `None` at the beginning of the chain.
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

    /// Whether a chain of cells begins here, so that the embedding is in this cell.
    pub fn is_first(&self, stage: usize, chunk: usize) -> bool {
        self.previous(stage, chunk).is_none()
    }

    /// Whether a chain of cells ends here, so that the head and the loss are in this cell.
    pub fn is_last(&self, stage: usize, chunk: usize) -> bool {
        self.next(stage, chunk).is_none()
    }

    /// Whether a stage's times are split among its chunks; in a two-way pipeline each chunk is a stage of its own
    /// instead.
    pub const fn splits(&self) -> bool {
        !matches!(self.placement, Placement::Both)
    }

    /// The fraction of a stage's layers that one chunk holds.
    pub fn chunk_share(&self) -> f64 {
        if self.splits() { 1.0 / self.chunks as f64 } else { 1.0 }
    }

    /// The pipeline stage whose layers a cell holds.
    const fn held(&self, stage: usize, chunk: usize) -> usize {
        if self.splits() || chunk == 0 { stage } else { self.stages - 1 - stage }
    }

    /// The times of one micro-batch in one cell. Where a stage's times are split among its chunks, the parts add up to
    /// the nanosecond.
    pub fn cell_times(&self, times: &Times, stage: usize, chunk: usize) -> StageTimes {
        let t = times.stage[self.held(stage, chunk)];
        let part = |ns: u64| if self.splits() { part_of(ns, chunk, self.chunks) } else { ns };
        let mut cell = match &times.cells {
            Some(cells) if self.splits() => cells[self.cell(stage, chunk)],
            _ => StageTimes::new(part(t.forward_ns), part(t.backward_input_ns), part(t.backward_weight_ns)),
        };
        if self.is_first(stage, chunk) {
            cell = cell.plus(times.first);
        }
        if self.is_last(stage, chunk) {
            cell = cell.plus(times.last);
        }
        cell
    }

    /// The time of an overlapped pair in ns: the forward of this cell with the whole backward of the stage's other one.
    pub fn pair_ns(&self, times: &Times, stage: usize, chunk: usize) -> u64 {
        let (forward, backward) = (
            self.cell_times(times, stage, chunk).forward_ns,
            self.cell_times(times, stage, self.chunks - 1 - chunk).backward_ns(),
        );
        match times.overlapped_ns {
            Some(whole) if self.splits() => part_of(whole, chunk, self.chunks),
            Some(whole) => whole,
            None => forward + backward,
        }
    }
}

/// The part of `ns` that falls on chunk `k` of `chunks`: the parts differ by at most a nanosecond and add up exactly.
pub fn part_of(ns: u64, k: usize, chunks: usize) -> u64 {
    let upto = |k: usize| (u128::from(ns) * k as u128 / chunks as u128) as u64;
    upto(k + 1) - upto(k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_is_walked_both_ways() {
        for placement in [Placement::Loop, Placement::Vee, Placement::Both] {
            for stages in 1..6 {
                let chunks = if placement == Placement::Loop { 3 } else { 2 };
                let layout = Layout { placement, stages, chunks };
                let cells = || (0..stages).flat_map(|s| (0..chunks).map(move |c| (s, c)));
                let ends = cells().filter(|&(s, c)| layout.is_last(s, c)).count();
                assert_eq!(ends, if placement == Placement::Both { 2 } else { 1 });
                for (s, c) in cells() {
                    if let Some((t, d)) = layout.next(s, c) {
                        assert_eq!(layout.previous(t, d), Some((s, c)), "{layout:?}");
                    }
                }
            }
        }
    }

    /// The head stands where the chain ends, whatever the layout; a stage's body is split to the nanosecond.
    #[test]
    fn ends_are_added_where_the_chain_ends() {
        let mut times = Times::even(3, StageTimes::new(101, 51, 33), 0);
        times.first = StageTimes::new(7, 0, 5);
        times.last = StageTimes::new(1000, 2000, 3000);
        let at = |placement, chunks, stage, chunk| {
            Layout { placement, stages: 3, chunks }.cell_times(&times, stage, chunk).forward_ns
        };
        assert_eq!([at(Placement::Loop, 2, 0, 0), at(Placement::Loop, 2, 2, 1)], [50 + 7, 51 + 1000]);
        assert_eq!([at(Placement::Loop, 2, 2, 0), at(Placement::Loop, 2, 0, 1)], [50, 51]);
        assert_eq!([at(Placement::Vee, 2, 0, 0), at(Placement::Vee, 2, 0, 1)], [50 + 7, 51 + 1000]);
        assert_eq!([at(Placement::Both, 2, 0, 0), at(Placement::Both, 2, 0, 1)], [101 + 7, 101 + 1000]);
        assert_eq!([at(Placement::Both, 2, 2, 0), at(Placement::Both, 2, 2, 1)], [101 + 1000, 101 + 7]);
    }
}
