//! Operations with their times, as `--operations` puts them into the JSON of `simulate` and `plan`, and as
//! [`super::given`] reads them.

use super::schedule::Work;
use super::simulate::Timeline;
use crate::nearest;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// What an operation computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum OperationKind {
    /// The forward pass.
    #[serde(rename = "F")]
    Forward,
    /// The backward pass to the inputs; where its W is not listed it is the whole backward, to inputs and weights together.
    #[serde(rename = "B")]
    Backward,
    /// The backward pass to the weights.
    #[serde(rename = "W")]
    Weight,
}

impl OperationKind {
    /// Every kind, in the order in which a micro-batch's operations run.
    pub const ALL: [OperationKind; 3] = [OperationKind::Forward, OperationKind::Backward, OperationKind::Weight];

    /// The kind as records spell it: `F`, `B` or `W`.
    pub const fn text(self) -> &'static str {
        match self {
            OperationKind::Forward => "F",
            OperationKind::Backward => "B",
            OperationKind::Weight => "W",
        }
    }
}

impl From<Work> for OperationKind {
    fn from(work: Work) -> Self {
        match work {
            Work::Forward => OperationKind::Forward,
            Work::BackwardInput | Work::Backward => OperationKind::Backward,
            Work::BackwardWeight => OperationKind::Weight,
        }
    }
}

/// By hand, so that another kind is answered with the nearest.
impl<'de> Deserialize<'de> for OperationKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = OperationKind;
            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("the kind of an operation, \"F\", \"B\" or \"W\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OperationKind, E> {
                OperationKind::ALL.into_iter().find(|kind| kind.text() == text).ok_or_else(|| {
                    let known = nearest::cure(text, OperationKind::ALL.map(OperationKind::text));
                    let shown: String = text.chars().take(40).collect();
                    E::custom(format!("`{shown}` is not a kind of operation, {known}"))
                })
            }
        }
        from.deserialize_str(Text)
    }
}

/// One operation of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationRecord {
    /// The stage that runs it, counted from 0.
    pub stage: u32,
    /// `F` the forward, `B` the backward to the inputs, `W` the backward to the weights. A `B` without a `W` of the same
    /// stage, micro-batch and chunk is the whole backward, as all are in a schedule with one backward operation.
    pub kind: OperationKind,
    /// The micro-batch's number, counted from 0, those of both directions of a two-way pipeline together.
    pub micro_batch: u32,
    /// Which of the stage's chunks runs, counted from 0; in a two-way pipeline 0 runs down the stages and 1 up them.
    pub chunk: u32,
    /// When it starts, in ns from the start of the pipeline's first operation.
    pub start_ns: u64,
    /// When it ends, in ns from the start of the pipeline's first operation.
    pub end_ns: u64,
    /// Whether it is half of an overlapped pair: a forward and the whole backward listed behind it that run side by side.
    /// Their times here are drawn one after the other, and the results of both are there at the end of the second. Absent
    /// where it is false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paired: bool,
}

/// Every operation of a timeline, the stages one after another, each in the order in which it runs.
pub fn of_timeline(timeline: &Timeline) -> Vec<OperationRecord> {
    let mut records = Vec::with_capacity(timeline.schedule.operations().len());
    for stage in 0..timeline.schedule.stages {
        records.extend(timeline.operations(stage).map(|(operation, start_ns, end_ns)| OperationRecord {
            stage: stage as u32,
            kind: operation.work.into(),
            micro_batch: operation.micro_batch,
            chunk: u32::from(operation.chunk),
            start_ns,
            end_ns,
            paired: operation.paired,
        }));
    }
    records
}
