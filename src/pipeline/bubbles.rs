//! Where a stage computes nothing, why, and what it holds in memory at that moment.

use super::activations::Live;
use super::schedule::Work;
use super::simulate::Timeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A bubble's place in the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BubbleKind {
    /// Before the stage's first operation: no activation is live.
    Warmup,
    /// Just before its first backward: as many activations are live as ever.
    BeforeBackward,
    /// After its last forward has run: memory is being released.
    Cooldown,
    /// After its last operation, to the end of the iteration: no activation is live.
    Tail,
    /// Any other.
    Steady,
}

impl BubbleKind {
    pub const ALL: [BubbleKind; 5] =
        [BubbleKind::Warmup, BubbleKind::BeforeBackward, BubbleKind::Steady, BubbleKind::Cooldown, BubbleKind::Tail];

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
    pub start_ns: u64,
    pub end_ns: u64,
    pub kind: BubbleKind,
    /// Activations the stage holds during it.
    pub live: Live,
}

impl Bubble {
    pub const fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// A stage's bubbles in order of time. Together with its work they fill its iteration exactly.
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
