//! How long a stage's work takes, and how long a message between stages.

use crate::units::counted;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The times of one micro-batch on one stage, all chunks of the stage together, in whole ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTimes {
    /// Time of the forward (F), in ns.
    pub forward_ns: u64,
    /// Time of the backward to the inputs (B), which the stage before waits for, in ns.
    pub backward_input_ns: u64,
    /// Time of the backward to the weights (W), which nothing waits for before the optimizer step, in ns.
    pub backward_weight_ns: u64,
}

impl StageTimes {
    /// The times F, B and W of one stage, in ns.
    pub const fn new(forward_ns: u64, backward_input_ns: u64, backward_weight_ns: u64) -> Self {
        StageTimes { forward_ns, backward_input_ns, backward_weight_ns }
    }

    /// The time of all three, F + B + W, in ns.
    pub const fn total_ns(&self) -> u64 {
        self.forward_ns.saturating_add(self.backward_ns())
    }

    /// The time of the whole backward, B + W, in ns.
    pub const fn backward_ns(&self) -> u64 {
        self.backward_input_ns.saturating_add(self.backward_weight_ns)
    }

    /// The times of both, one after the other.
    pub const fn plus(self, other: StageTimes) -> StageTimes {
        StageTimes {
            forward_ns: self.forward_ns.saturating_add(other.forward_ns),
            backward_input_ns: self.backward_input_ns.saturating_add(other.backward_input_ns),
            backward_weight_ns: self.backward_weight_ns.saturating_add(other.backward_weight_ns),
        }
    }
}

/// The times of a whole pipeline, in ns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// The times of each stage, in pipeline order.
    pub stage: Vec<StageTimes>,
    /// The times of every cell by its index ([`Layout::cell`](super::Layout::cell)), for a schedule whose stages are cut into
    /// chunks that are not equal; `None` cuts every stage into equal ones.
    pub cells: Option<Vec<StageTimes>>,
    /// Time of a message in ns: from the end of an operation to the earliest start of the one on another stage that
    /// needs its result.
    pub send_recv_ns: u64,
    /// The embedding's times, added where the model begins; which stage that is, the schedule says.
    pub first: StageTimes,
    /// The times of head and loss, added where the model ends; which stage that is, the schedule says.
    pub last: StageTimes,
    /// Time of a forward and a whole backward of one stage side by side (`dualpipe`, `dualpipev`), in ns; `None` is
    /// F + B + W.
    pub overlapped_ns: Option<u64>,
}

impl Times {
    /// A pipeline whose stages all take the same times, with nothing added at the ends and nothing overlapped.
    pub fn even(stages: usize, stage: StageTimes, send_recv_ns: u64) -> Self {
        Times::new(vec![stage; stages], send_recv_ns)
    }

    /// A pipeline whose stages take the times given, with nothing added at the ends and nothing overlapped.
    pub fn new(stage: Vec<StageTimes>, send_recv_ns: u64) -> Self {
        let none = StageTimes::default();
        Times { stage, cells: None, send_recv_ns, first: none, last: none, overlapped_ns: None }
    }

    /// Fails if the times are not one entry a stage, or if the length of the iteration could leave 64 bits.
    pub fn validate(&self, stages: usize, micro_batches: usize, chunks: usize) -> Result<()> {
        if self.stage.len() != stages {
            return Err(Error::input(
                format!("times are given for {}, the pipeline has {stages}", counted(self.stage.len(), "stage")),
                "give one entry a stage, in pipeline order",
            ));
        }
        // Twice: a device of a two-way pipeline holds two stages.
        let ends = [self.first.total_ns(), self.last.total_ns(), self.overlapped_ns.unwrap_or(0)];
        let work: u128 = 2 * self.stage.iter().map(|t| t.total_ns()).chain(ends).map(u128::from).sum::<u128>();
        let messages = 4 * (stages * chunks) as u128 * u128::from(self.send_recv_ns);
        if (work + messages) * micro_batches as u128 > u128::from(u64::MAX / 2) {
            return Err(Error::input(
                "the whole iteration would be longer than a hundred years",
                "check the times and the number of micro-batches",
            ));
        }
        Ok(())
    }

    /// Reads `[{"forward_ns":…,"backward_input_ns":…,"backward_weight_ns":…}, …]`, one entry a stage. Fails if the file
    /// cannot be read, holds something else, or another number of stages.
    pub fn read_stages(path: &Path, stages: usize) -> Result<Vec<StageTimes>> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let list: Vec<StageTimes> = serde_json::from_str(&text).map_err(|e| {
            Error::input(
                format!("{} is not a list of stage times: {e}", path.display()),
                r#"write [{"forward_ns":1,"backward_input_ns":1,"backward_weight_ns":1}, …], whole nanoseconds, one entry a stage"#,
            )
        })?;
        if list.len() != stages {
            return Err(Error::input(
                format!("{} holds {}, the pipeline has {stages}", path.display(), counted(list.len(), "stage")),
                "give one entry a stage, in pipeline order",
            ));
        }
        Ok(list)
    }
}
