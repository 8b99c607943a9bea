//! How many micro-batches' activations a stage holds: 1 after a forward, w after B, 0 after W.
//!
//! w is the part of the activations that the weight gradients still need. For a transformer layer it is
//! 32 / (34 + 5·a·s/h) (Qi et al., arXiv 2401.10241, table 2, from Korthikanti et al., arXiv 2205.05198).
//! A chunk counts its share of a stage; schedules with one backward operation release everything there.

use super::schedule::{Schedule, StageOperation, Work};

/// What to assume where the model is not known.
pub const DEFAULT_WEIGHT_SHARE: f64 = 0.43;

/// w of a transformer layer without recomputation.
pub fn weight_share(heads: u64, sequence: u64, hidden: u64) -> f64 {
    32.0 / (34.0 + 5.0 * heads as f64 * sequence as f64 / hidden as f64)
}

/// Counts of chunk passes, whole until they are asked for: sums of fractions would drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Live {
    /// Passes between their F and their B.
    pub whole: u64,
    /// Passes between their B and their W.
    pub weights: u64,
}

impl Live {
    /// After the operation has ended.
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

    /// In micro-batches.
    pub fn micro_batches(&self, chunk_share: f64, weight_share: f64) -> f64 {
        (self.whole as f64 + self.weights as f64 * weight_share) * chunk_share
    }
}

/// The most a stage holds at once, in micro-batches.
pub fn peak(schedule: &Schedule, stage: usize, weight_share: f64) -> f64 {
    let mut live = Live::default();
    schedule.list(stage).iter().fold(0.0, |most: f64, &operation| {
        live.after(operation);
        most.max(live.micro_batches(schedule.chunk_share(), weight_share))
    })
}
