//! How many micro-batches' activations a stage holds: 1 after a forward, w after B, 0 after W.
//!
//! w is the part of the activations that the weight gradients still need. For a transformer layer it is
//! 32 / (34 + 5·a·s/h) (Qi et al., arXiv 2401.10241, table 2, from Korthikanti et al., arXiv 2205.05198).
//! A chunk counts its share of a stage; schedules with one backward operation release everything there.

use super::schedule::{Schedule, StageOperation, Work};

/// The weight share w that `simulate` assumes where none is given: the part of a micro-batch's activations that W still
/// needs.
pub const DEFAULT_WEIGHT_SHARE: f64 = 0.43;

/// The weight share w of a transformer layer without recomputation: 32 / (34 + 5·a·s/h) with a heads, sequence s and
/// hidden size h (Qi et al., arXiv 2401.10241, table 2).
pub fn weight_share(heads: u64, sequence: u64, hidden: u64) -> f64 {
    32.0 / (34.0 + 5.0 * heads as f64 * sequence as f64 / hidden as f64)
}

/// The chunk passes whose activations a stage holds, as whole counts until they are asked for in micro-batches: sums of
/// fractions would drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Live {
    /// Chunk passes between their F and their B (or B+W), which hold all of their activations.
    pub whole: u64,
    /// Chunk passes between their B and their W, which hold the weight share of their activations.
    pub weights: u64,
}

impl Live {
    /// Updates the counts to what the stage holds after this operation has ended.
    pub fn after(&mut self, operation: StageOperation) {
        match operation.work {
            Work::Forward => self.whole += 1,
            Work::BackwardInput => {
                self.whole = self.whole.saturating_sub(1);
                self.weights += 1;
            }
            Work::BackwardWeight => self.weights = self.weights.saturating_sub(1),
            Work::Backward => self.whole = self.whole.saturating_sub(1),
        }
    }

    /// The activations held, in micro-batches: `chunk_share` is what one chunk counts, `weight_share` the part that W
    /// still needs.
    pub fn micro_batches(&self, chunk_share: f64, weight_share: f64) -> f64 {
        (self.whole as f64 + self.weights as f64 * weight_share) * chunk_share
    }
}

/// The most activations that the stage holds at once while it works through its list, in micro-batches.
pub fn peak(schedule: &Schedule, stage: usize, weight_share: f64) -> f64 {
    let mut live = Live::default();
    schedule.list(stage).iter().fold(0.0, |most: f64, &operation| {
        live.after(operation);
        most.max(live.micro_batches(schedule.chunk_share(), weight_share))
    })
}
