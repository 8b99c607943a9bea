//! How long a stage's work takes, and how long a message between stages.

use crate::units::counted;
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One micro-batch on one stage, all its chunks together; whole nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTimes {
    pub forward_ns: u64,
    /// Gradients of the inputs: what the stage before waits for.
    pub backward_input_ns: u64,
    /// Gradients of the weights: nobody waits for them before the optimizer step.
    pub backward_weight_ns: u64,
}

impl StageTimes {
    pub const fn new(forward_ns: u64, backward_input_ns: u64, backward_weight_ns: u64) -> Self {
        StageTimes { forward_ns, backward_input_ns, backward_weight_ns }
    }

    /// F + B + W.
    pub const fn total_ns(&self) -> u64 {
        self.forward_ns.saturating_add(self.backward_ns())
    }

    /// B + W.
    pub const fn backward_ns(&self) -> u64 {
        self.backward_input_ns.saturating_add(self.backward_weight_ns)
    }

    /// Both, one after the other.
    pub const fn plus(self, other: StageTimes) -> StageTimes {
        StageTimes {
            forward_ns: self.forward_ns.saturating_add(other.forward_ns),
            backward_input_ns: self.backward_input_ns.saturating_add(other.backward_input_ns),
            backward_weight_ns: self.backward_weight_ns.saturating_add(other.backward_weight_ns),
        }
    }
}

/// The times of a whole pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// One entry a stage.
    pub stage: Vec<StageTimes>,
    /// From the end of an operation to the earliest start of the one on another stage that needs its result.
    pub send_recv_ns: u64,
    /// Added where the model begins (embedding) and where it ends (head and loss); which stage that is, the schedule says.
    pub first: StageTimes,
    pub last: StageTimes,
    /// A forward and a whole backward of one stage run side by side (`dualpipe`, `dualpipev`); F + B + W if not given.
    pub overlapped_ns: Option<u64>,
}

impl Times {
    /// The same times on every stage.
    pub fn even(stages: usize, stage: StageTimes, send_recv_ns: u64) -> Self {
        Times::new(vec![stage; stages], send_recv_ns)
    }

    /// Each stage's own; nothing added at the ends, nothing overlapped.
    pub fn new(stage: Vec<StageTimes>, send_recv_ns: u64) -> Self {
        let none = StageTimes::default();
        Times { stage, send_recv_ns, first: none, last: none, overlapped_ns: None }
    }

    /// Refuses times that do not fit the stages, or whose sum could leave 64 bits.
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

    /// Reads `[{"forward_ns":…,"backward_input_ns":…,"backward_weight_ns":…}, …]`, one entry a stage.
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
                format!("{} holds {}, --stages says {stages}", path.display(), counted(list.len(), "stage")),
                "give one entry a stage, in pipeline order",
            ));
        }
        Ok(list)
    }
}
