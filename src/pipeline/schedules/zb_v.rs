//! ZB-V (Qi et al., arXiv 2401.10241, §6): two chunks a stage in V shape, no more activations than 1F1B's p micro-batches.
//!
//! The order of F and B comes from a V-shaped building block repeated once a period; W goes into the waits, or where memory
//! must be freed. The block's paces, its turns, how many forwards run ahead and how patient each stage is with its W are
//! searched for on the simulated span: the best of many random blocks, improved by random steps. Seeded, so the same
//! question has the same answer.

use super::vee_order::{Filler, PassPattern};
use crate::pipeline::schedule::{Schedule, ScheduleSpec};
use crate::stats::SplitMix;
use crate::units::counted;
use crate::{Error, Result};

/// Operations simulated over the whole search, by both chains: about a second. Up to twice as many on long pipelines.
const BUDGET: usize = 40_000_000;
/// How much worse a step may be at first.
const HEAT: f64 = 0.03;
/// Blocks that are improved, side by side.
const KEPT: usize = 2;
const SEED: u64 = 0x2b_5eed;

/// Longest wait of a stage, and of all together.
type Score = (u64, u64);
const NONE: Score = (u64::MAX, u64::MAX);

pub fn build(spec: &ScheduleSpec) -> Result<Schedule> {
    let limit = spec.memory_limit.unwrap_or(spec.stages as f64);
    let mut filler = Filler::new(spec, spec.micro_batches, limit);
    let found = search(spec, limit).filter(|block| filler.run(block, u64::MAX).is_some());
    if found.is_none() {
        return Err(Error::input(
            format!("no order of operations keeps {} within {}", spec.name.text(), counted(limit, "micro-batch")),
            "raise the memory limit to at least 1",
        ));
    }
    Ok(Schedule::from_lists(spec, 2, |stage, list| list.extend_from_slice(filler.list(stage))))
}

/// The best block of all.
fn search(spec: &ScheduleSpec, limit: f64) -> Option<PassPattern> {
    let mut search = Search::new(spec, limit);
    let budget = BUDGET * spec.stages.clamp(16, 32) / 16;
    let runs = (budget / (6 * spec.stages * search.few.micro_batches())).clamp(24, 10_000);
    // Runs of all micro-batches, where they are many: as much again as the others at most.
    let full = budget / (6 * spec.stages * spec.micro_batches);
    let mut random = SplitMix(SEED);
    let mut starts = vec![search.found(PassPattern::one_at_a_time(spec.stages))];
    for _ in 0..(runs / 10).min(full / 2).max(KEPT) {
        starts.push(search.found(PassPattern::random(spec.stages, limit, &mut random)));
    }
    starts.sort_by_key(|found| found.all);
    starts.truncate(KEPT);
    let improve = |(index, mut found): (usize, Found)| {
        let mut random = SplitMix(SEED + 1 + index as u64);
        Search::new(spec, limit).improve(&mut found, runs * 9 / 10 / KEPT, full.max(4), &mut random);
        found
    };
    let improved: Vec<Found> = std::thread::scope(|scope| {
        let chains: Vec<_> = starts.into_iter().enumerate().map(|start| scope.spawn(move || improve(start))).collect();
        chains.into_iter().filter_map(|chain| chain.join().ok()).collect()
    });
    improved.into_iter().min_by_key(|found| found.all).filter(|found| found.all != NONE).map(|found| found.block)
}

/// Begin and end of the pipeline and some of its middle; more micro-batches repeat the middle.
fn few(stages: usize) -> usize {
    2 * stages + 4
}

/// A block that was tried: its score on a few micro-batches and on all of them.
#[derive(Clone)]
struct Found {
    few: Score,
    all: Score,
    block: PassPattern,
}

struct Search<'a> {
    few: Filler<'a>,
    /// Where there are more than a few.
    all: Option<Filler<'a>>,
}

impl<'a> Search<'a> {
    fn new(spec: &'a ScheduleSpec<'a>, limit: f64) -> Self {
        let (few, all) = (few(spec.stages), spec.micro_batches);
        Search { few: Filler::new(spec, few.min(all), limit), all: (few < all).then(|| Filler::new(spec, all, limit)) }
    }

    fn found(&mut self, block: PassPattern) -> Found {
        let few = self.few.run(&block, u64::MAX).unwrap_or(NONE);
        let all = self.all.as_mut().map_or(Some(few), |f| f.run(&block, u64::MAX)).unwrap_or(NONE);
        Found { few, all, block }
    }

    /// Random steps, a little worse ones too at first. The best must hold for all micro-batches: a middle that falls apart
    /// when repeated does not count. It ends early when it has run all of them `full` times.
    fn improve(&mut self, best: &mut Found, steps: usize, full: usize, random: &mut SplitMix) {
        let mut now = best.clone();
        let mut full_runs = 0;
        for step in 0..steps {
            let left = 1.0 - step as f64 / steps as f64;
            let most = now.few.0 as f64 * (1.0 + HEAT * left * left * random.unit());
            let block = now.block.step(random);
            let Some(few) = self.few.run(&block, most as u64) else { continue };
            now = Found { few, all: few, block };
            if few < best.few {
                if let Some(all) = &mut self.all {
                    if full_runs == full {
                        return;
                    }
                    full_runs += 1;
                    match all.run(&now.block, best.all.0).filter(|all| *all <= best.all) {
                        Some(all) => now.all = all,
                        None => {
                            now = best.clone();
                            continue;
                        }
                    }
                }
                *best = now.clone();
            }
        }
    }
}

impl PassPattern {
    /// Fits any memory: a micro-batch begins when the one before it is through.
    fn one_at_a_time(stages: usize) -> Self {
        // Down and back, twice, is less than half a period however long the pipeline.
        let pace = (0.1 / stages as f64).min(1e-3);
        PassPattern { pace: [pace; 4], turn: [1e-3; 3], early: 0.0, early_fall: 0.0, patience: vec![0.5; stages] }
    }

    /// Paces near half a period fill the memory of p micro-batches.
    fn random(stages: usize, limit: f64, random: &mut SplitMix) -> Self {
        let pace = (0.40 + 0.1 * random.unit()) * (limit / stages as f64).clamp(0.05, 1.0);
        PassPattern {
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
                let size = [0.8, 0.16, 0.04][random.below(3)] / self.patience.len() as f64;
                next.pace[k] = (self.pace[k] + size * random.symmetric()).max(1e-3);
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
