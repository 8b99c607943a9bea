//! V-Min and V-Half (Qi et al., arXiv 2405.15362): chunk 0 goes down the stages and chunk 1 comes back up, so that long
//! and short lives of activations meet on every stage and memory is the same on all: p/3 and p/2 of a micro-batch's.
//!
//! One micro-batch's passes are laid on a grid with F = B = W = 1 (a *building block*) and repeated every six slots. The
//! way from stage to stage takes `pace` slots forwards and backwards together: two for V-Min, three for V-Half. The
//! offsets are searched for so that no two passes of a stage fall on the same slot modulo six; W takes the slots left
//! over. A pass's life is a sixth of its slots in micro-batches, so the pace decides the memory. Of the blocks that hold
//! least, the one that is quickest with the given times is taken.

use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};
use crate::pipeline::simulate;
use crate::units::counted;
use crate::{Error, Result};

/// Slots until the next micro-batch: two chunks' F, B and W.
const PERIOD: usize = 6;

/// Where the passes of a micro-batch begin on a stage, in slots: F0, F1, B1, B0.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Block {
    stages: usize,
    /// Slots from stage to stage: of F0, F1, B1, B0.
    pace: [usize; 4],
    /// Slots lost at each turn: before F1, B1, B0.
    wait: [usize; 3],
}

/// Blocks that are tried on the given times, of those that hold least.
const TRIED: usize = 48;

pub fn build(spec: &ScheduleSpec, pace: usize) -> Result<Schedule> {
    let blocks = shortest(spec.stages, pace);
    // The pattern repeats: a few rounds show which block suits the times.
    let few = ScheduleSpec { micro_batches: spec.micro_batches.min(3 * spec.stages + 6), ..spec.clone() };
    let span = |block: &Block| {
        simulate(lists(&few, block), spec.times.clone()).map_or(u64::MAX, |timeline| timeline.iteration_ns)
    };
    let best = blocks.iter().take(TRIED).min_by_key(|block| span(block)).ok_or_else(|| {
        Error::input(
            format!("{} has no building block for {}", spec.name.text(), counted(spec.stages, "stage")),
            "use another number of stages",
        )
    })?;
    Ok(lists(spec, best))
}

/// The block once a period, for every micro-batch.
fn lists(spec: &ScheduleSpec, block: &Block) -> Schedule {
    let m = spec.micro_batches;
    Schedule::from_lists(spec, 2, |stage, list| {
        let mut slots: Vec<(usize, StageOperation)> = Vec::with_capacity(6 * m);
        for (slot, work, chunk) in block.passes(stage) {
            slots.extend((0..m).map(|k| (slot + k * PERIOD, StageOperation::new(work, k, chunk))));
        }
        slots.sort_unstable_by_key(|(slot, _)| *slot);
        list.extend(slots.into_iter().map(|(_, operation)| operation));
    })
}

/// All blocks with the shortest life whose passes never meet: modulo the period, stages repeat after a period of them.
fn shortest(stages: usize, pace: usize) -> Vec<Block> {
    let (mut least, mut found) = (usize::MAX, Vec::new());
    let splits: Vec<(usize, usize)> = (1..pace).map(|down| (down, pace - down)).collect();
    for &(f0, b0) in &splits {
        for &(f1, b1) in &splits {
            for waits in 0..PERIOD * PERIOD * PERIOD {
                let wait = [waits % PERIOD, waits / PERIOD % PERIOD, waits / PERIOD / PERIOD];
                let block = Block { stages, pace: [f0, f1, b1, b0], wait };
                let life = block.life();
                if life <= least && (0..stages.min(PERIOD)).all(|s| block.is_free_of_collisions(s)) {
                    if life < least {
                        found.clear();
                    }
                    least = life;
                    found.push(block);
                }
            }
        }
    }
    found
}

impl Block {
    fn begins(&self, stage: usize) -> [usize; 4] {
        let far = self.stages - 1;
        let [f0, f1, b1, b0] = self.pace;
        let turn_f1 = far * f0 + 1 + self.wait[0];
        let turn_b1 = turn_f1 + far * f1 + 1 + self.wait[1];
        let turn_b0 = turn_b1 + far * b1 + 1 + self.wait[2];
        [stage * f0, turn_f1 + (far - stage) * f1, turn_b1 + stage * b1, turn_b0 + (far - stage) * b0]
    }

    /// Slots both chunks together are held, on the stage where that is longest.
    fn life(&self) -> usize {
        let held = |s| {
            let [f0, f1, b1, b0] = self.begins(s);
            b0 - f0 + b1 - f1
        };
        // It grows or falls evenly along the stages.
        held(0).max(held(self.stages - 1))
    }

    fn is_free_of_collisions(&self, stage: usize) -> bool {
        let mut taken = [false; PERIOD];
        self.begins(stage).into_iter().all(|slot| !std::mem::replace(&mut taken[slot % PERIOD], true))
    }

    /// All six passes: the W of each chunk in the first free slot after its B.
    fn passes(&self, stage: usize) -> [(usize, Work, usize); 6] {
        let [f0, f1, b1, b0] = self.begins(stage);
        let mut taken = [false; PERIOD];
        for slot in [f0, f1, b1, b0] {
            taken[slot % PERIOD] = true;
        }
        let mut weights = |after: usize| {
            let slot = (after + 1..=after + PERIOD).find(|s| !taken[s % PERIOD]).unwrap_or(after + 1);
            taken[slot % PERIOD] = true;
            slot
        };
        let (w1, w0) = (weights(b1), weights(b0));
        [
            (f0, Work::Forward, 0),
            (f1, Work::Forward, 1),
            (b1, Work::BackwardInput, 1),
            (w1, Work::BackwardWeight, 1),
            (b0, Work::BackwardInput, 0),
            (w0, Work::BackwardWeight, 0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2·pace·p slots of both chunks' lives, a chunk being half a micro-batch: pace/6 of p, and a little for the turns.
    #[test]
    fn blocks_exist_and_live_as_long_as_their_pace_says() {
        for p in 1..=64 {
            for pace in [2, 3] {
                let block = shortest(p, pace)[0];
                let micro_batches = block.life() as f64 / PERIOD as f64 / 2.0;
                let ideal = (pace * p) as f64 / 6.0;
                assert!(micro_batches <= ideal + 1.0, "p {p} pace {pace}: {micro_batches} {block:?}");
            }
        }
    }
}
