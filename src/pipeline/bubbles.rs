//! Where a stage computes nothing, why, and what it holds in memory at that moment.

use super::activations::Live;
use super::schedule::Work;
use super::simulate::Timeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where in its stage's list of operations a bubble lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BubbleKind {
    /// The bubble lies before the stage's first operation: no activation is live.
    Warmup,
    /// The bubble lies just before the stage's first backward: as many activations are live as ever.
    BeforeBackward,
    /// The bubble lies after the stage's last forward: memory is being released.
    Cooldown,
    /// The bubble reaches from the stage's last operation to the end of the iteration: no activation is live.
    Tail,
    /// The bubble lies in none of the other places.
    Steady,
}

impl BubbleKind {
    /// Every kind, in the order of time within an iteration.
    pub const ALL: [BubbleKind; 5] =
        [BubbleKind::Warmup, BubbleKind::BeforeBackward, BubbleKind::Steady, BubbleKind::Cooldown, BubbleKind::Tail];

    /// The kind as records spell it, e.g. `before_backward`.
    pub const fn name(self) -> &'static str {
        match self {
            BubbleKind::Warmup => "warmup",
            BubbleKind::BeforeBackward => "before_backward",
            BubbleKind::Cooldown => "cooldown",
            BubbleKind::Tail => "tail",
            BubbleKind::Steady => "steady",
        }
    }
}

/// One maximal interval in which a stage computes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bubble {
    /// When the bubble begins, in ns from the start of the pipeline's first operation.
    pub start_ns: u64,
    /// When the bubble ends, in ns from the start of the pipeline's first operation; always after `start_ns`.
    pub end_ns: u64,
    /// Where in the schedule the bubble lies.
    pub kind: BubbleKind,
    /// The chunk passes whose activations the stage holds during the bubble.
    pub live: Live,
}

impl Bubble {
    /// How long the bubble lasts, in ns.
    pub const fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// All bubbles of a stage in order of time. Together with the stage's work they fill its iteration exactly.
pub fn of_stage(timeline: &Timeline, stage: usize) -> Vec<Bubble> {
    let list = timeline.schedule.list(stage);
    let forwards = list.iter().rposition(|o| o.work == Work::Forward).unwrap_or(0);
    let first_backward = list.iter().position(|o| o.work != Work::Forward).unwrap_or(0);
    let begin = timeline.window_start_ns(stage);
    let mut bubbles = Vec::new();
    let (mut live, mut at) = (Live::default(), begin);
    for (index, (operation, start, end)) in timeline.operations(stage).enumerate() {
        if start > at {
            let kind = match index {
                0 => BubbleKind::Warmup,
                i if i == first_backward => BubbleKind::BeforeBackward,
                i if i > forwards => BubbleKind::Cooldown,
                _ => BubbleKind::Steady,
            };
            bubbles.push(Bubble { start_ns: at, end_ns: start, kind, live });
        }
        live.after(operation);
        at = end;
    }
    let close = begin + timeline.iteration_ns;
    if close > at {
        bubbles.push(Bubble { start_ns: at, end_ns: close, kind: BubbleKind::Tail, live });
    }
    bubbles
}
