//! ZB-V (Qi et al., arXiv 2401.10241, §6): two chunks a stage in V shape, no more activations than 1F1B's p micro-batches.
//!
//! The order of F and B comes from a V-shaped building block repeated once a period; W goes into the waits, or where memory
//! must be freed. The block's paces, its turns, how many forwards run ahead and how patient each stage is with its W are
//! searched for on the simulated span: a few of many random blocks, each improved by random steps. Seeded, so the same
//! question has the same answer.

use super::vee_order::{Block, Filler};
use crate::pipeline::schedule::{Schedule, Spec};
use crate::stats::SplitMix;
use crate::{Error, Result};

/// Operations simulated over the whole search: about a second.
const BUDGET: usize = 12_000_000;
/// Blocks that are improved.
const KEPT: usize = 3;

type Score = (u64, u64);

pub fn build(spec: &Spec) -> Result<Schedule> {
    let limit = spec.memory_limit.unwrap_or(spec.stages as f64);
    let mut filler = Filler::new(spec, limit);
    let block = search(spec, &mut filler);
    // The lists of the best block, not of the last one tried.
    if filler.run(&block).is_none() {
        return Err(Error::input(
            format!("no order found that keeps {} within {limit} micro-batches", spec.name.text()),
            "raise the memory limit",
        ));
    }
    Ok(Schedule::from_lists(spec, 2, |stage, list| list.extend_from_slice(filler.list(stage))))
}

fn search(spec: &Spec, filler: &mut Filler) -> Block {
    let runs = (BUDGET / (6 * spec.stages * spec.micro_batches)).clamp(24, 3000);
    let mut random = SplitMix(0x2b_5eed);
    let mut score = |block: &Block| filler.run(block).unwrap_or((u64::MAX, u64::MAX));
    let mut starts: Vec<(Score, Block)> = (0..(runs / 10).max(KEPT))
        .map(|_| {
            let block = Block::random(spec.stages, &mut random);
            (score(&block), block)
        })
        .collect();
    starts.sort_by_key(|(score, _)| *score);
    starts.truncate(KEPT);
    for (best, block) in &mut starts {
        for _ in 0..runs * 3 / 10 {
            let candidate = block.step(&mut random);
            let reached = score(&candidate);
            if reached <= *best {
                (*best, *block) = (reached, candidate);
            }
        }
    }
    starts.sort_by_key(|(score, _)| *score);
    starts.swap_remove(0).1
}

impl Block {
    /// Paces near half a period fill the memory of p micro-batches.
    fn random(stages: usize, random: &mut SplitMix) -> Self {
        let pace = 0.40 + 0.1 * random.unit();
        Block {
            pace: std::array::from_fn(|_| pace * (1.0 + 0.03 * random.symmetric())),
            turn: std::array::from_fn(|_| 0.2 + 0.5 * random.unit()),
            early: random.unit() * stages as f64,
            early_fall: 1.5 * random.unit(),
            patience: (0..stages).map(|_| random.unit()).collect(),
        }
    }

    fn step(&self, random: &mut SplitMix) -> Self {
        let mut next = self.clone();
        match random.below(12) {
            k @ 0..=3 => {
                let size = [0.05, 0.01, 0.0025][random.below(3)];
                next.pace[k] = (self.pace[k] + size * random.symmetric()).max(0.05);
            }
            k @ 4..=6 => {
                let size = [0.2, 0.03][random.below(2)];
                next.turn[k - 4] = (self.turn[k - 4] + size * random.symmetric()).max(0.0);
            }
            7 => next.early = (self.early + 2.0 * random.symmetric()).max(0.0),
            8 => next.early_fall += 0.15 * random.symmetric(),
            _ => {
                // One stage, or a few neighbours.
                let few = if random.below(5) == 0 { 1 + random.below(4) } else { 1 };
                let (first, value) = (random.below(self.patience.len()), 1.6 * random.unit());
                next.patience.iter_mut().skip(first).take(few).for_each(|p| *p = value);
            }
        }
        next
    }
}
