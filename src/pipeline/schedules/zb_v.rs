//! ZB-V (Qi et al., arXiv 2401.10241, §6): two chunks a stage in V shape, no more activations than 1F1B's p micro-batches.
//!
//! The order of F and B comes from a V-shaped building block repeated once a period; W goes into the waits, or where memory
//! must be freed. The block's paces, its turns, how many forwards run ahead and how patient each stage is with its W are
//! searched for on the simulated span: the best of many random blocks, improved by random steps. Seeded, and ended by what
//! has been run, not by a clock, so the same question has the same answer on every machine.

use super::SearchEffort;
use super::vee_order::{Decisions, Filler, Score};
use super::vee_pattern::PassPattern;
use crate::pipeline::schedule::{Schedule, ScheduleSpec};
use crate::stats::SplitMix;
use crate::units::counted;
use crate::{Error, Result};
use rayon::prelude::*;

/// How much worse a step may be at first, as a part of the span.
const HEAT: f64 = 0.01;
const SEED: u64 = 0x2b_5eed;

const NONE: Score = Score { span_ns: u64::MAX, idle_ns: u64::MAX };

/// How far a search goes: to the end of its passes on a long pipeline, of its steps on a short one.
struct Extent {
    /// Passes to run, over the whole search: 10 to 15 ns each.
    passes: f64,
    /// Blocks to try, over the whole search, whether they have to be run or not.
    steps: f64,
    /// The part of both that goes into random starts.
    starting: f64,
    /// Blocks that are improved, side by side.
    chains: usize,
    /// After each round the worse half of the chains ends.
    rounds: usize,
}

impl Extent {
    fn new(effort: SearchEffort, spec: &ScheduleSpec) -> Self {
        let stages = spec.stages as f64;
        // Each chain holds the times of all passes: of millions, one.
        let chains = if spec.stages * spec.micro_batches > 250_000 { 1 } else { 4 };
        match effort {
            SearchEffort::Full => Extent { passes: 3e7, steps: 8000.0 * stages, starting: 0.1, chains, rounds: 2 },
            SearchEffort::Quick => {
                let stages = stages.max(8.0);
                Extent { passes: 25_000.0 * stages, steps: 100.0 * stages, starting: 0.3, chains: 1, rounds: 1 }
            }
        }
    }
}

pub fn build(spec: &ScheduleSpec, effort: SearchEffort) -> Result<Schedule> {
    let limit = spec.memory_limit.unwrap_or(spec.stages as f64);
    let lists = search(spec, limit, &Extent::new(effort, spec))
        .and_then(|block| Filler::new(spec, spec.micro_batches, limit).lists(&block))
        .ok_or_else(|| {
            Error::input(
                format!("no order of operations keeps {} within {}", spec.name.text(), counted(limit, "micro-batch")),
                "raise the memory limit to at least 1",
            )
        })?;
    Ok(Schedule::from_lists(spec, 2, |stage, list| list.extend_from_slice(&lists[stage])))
}

/// The best block of all.
fn search(spec: &ScheduleSpec, limit: f64, extent: &Extent) -> Option<PassPattern> {
    let mut chains = starts(spec, limit, extent);
    for round in 0..extent.rounds {
        let share = 1.0 / extent.rounds as f64;
        let first = 1.0 - share * round as f64;
        let part = (1.0 - extent.starting) * share / chains.len().max(1) as f64;
        let (passes, steps) = (extent.passes * part, (extent.steps * part) as usize);
        chains.par_iter_mut().for_each(|chain| chain.improve(passes, steps, [first, first - share]));
        chains.sort_by_key(|chain| chain.best.all);
        chains.truncate((chains.len() / 2).max(1));
    }
    chains.into_iter().next().map(|chain| chain.best.block)
}

/// The best of many random blocks, each the start of a chain. None if nothing fits the memory.
fn starts(spec: &ScheduleSpec, limit: f64, extent: &Extent) -> Vec<Chain> {
    let mut search = Search::new(spec, limit);
    let mut random = SplitMix(SEED);
    let mut tried = vec![search.on_few(PassPattern::one_at_a_time(spec.stages))];
    let [passes, most] = [extent.passes, extent.steps].map(|whole| (whole * extent.starting) as usize);
    while tried.len() < 3 * extent.chains || (search.few.passes_run() < passes && tried.len() < most) {
        tried.push(search.on_few(PassPattern::random(spec.stages, limit, &mut random)));
    }
    tried.sort_by_key(|found| found.few);
    // What runs alike would be improved alike.
    tried.dedup_by_key(|found| found.few);
    // A block that fits with a few micro-batches may not with all; one micro-batch at a time always does.
    let complete = tried.into_iter().filter_map(|found| search.on_all(found));
    let best: Vec<Found> = complete.take(extent.chains).collect();
    let chain =
        |(index, best)| Chain { search: Search::new(spec, limit), best, random: SplitMix(SEED + 1 + index as u64) };
    best.into_iter().enumerate().map(chain).collect()
}

/// Begin and end of the pipeline and some of its middle; more micro-batches repeat the middle.
const fn few(stages: usize) -> usize {
    stages + stages / 2 + 4
}

/// A block that was tried: its score on a few micro-batches and on all of them.
#[derive(Clone)]
struct Found {
    few: Score,
    all: Score,
    block: PassPattern,
    /// What its run of a few micro-batches hung on.
    decisions: Decisions,
}

struct Search {
    few: Filler,
    /// Where there are more than a few.
    all: Option<Filler>,
}

impl Search {
    fn new(spec: &ScheduleSpec, limit: f64) -> Self {
        let (few, all) = (few(spec.stages), spec.micro_batches);
        Search { few: Filler::new(spec, few.min(all), limit), all: (few < all).then(|| Filler::new(spec, all, limit)) }
    }

    fn on_few(&mut self, block: PassPattern) -> Found {
        let few = self.few.run(&block, u64::MAX).unwrap_or(NONE);
        Found { few, all: NONE, block, decisions: self.few.decisions() }
    }

    fn on_all(&mut self, found: Found) -> Option<Found> {
        let all = match &mut self.all {
            Some(all) => all.run(&found.block, u64::MAX)?,
            None => found.few,
        };
        (all != NONE).then_some(Found { all, ..found })
    }

    /// The work of the busiest stage, which no order makes shorter.
    fn work_ns(&self) -> u64 {
        self.all.as_ref().unwrap_or(&self.few).work_ns()
    }

    fn passes_run(&self) -> usize {
        self.few.passes_run() + self.all.as_ref().map_or(0, Filler::passes_run)
    }
}

/// A block being improved.
struct Chain {
    search: Search,
    best: Found,
    random: SplitMix,
}

impl Chain {
    /// Random steps, a little worse ones too while it is hot. The best must hold for all micro-batches: a middle that falls
    /// apart when repeated does not count.
    fn improve(&mut self, passes: f64, steps: usize, heat: [f64; 2]) {
        let Chain { search, best, random } = self;
        let mut now = best.clone();
        let begin = search.passes_run();
        for step in 0..steps {
            let spent = ((search.passes_run() - begin) as f64 / passes).max(step as f64 / steps as f64);
            if spent > 1.0 || best.all.span_ns == search.work_ns() {
                return;
            }
            let left = heat[0] + (heat[1] - heat[0]) * spent;
            let most = now.few.span_ns as f64 * (1.0 + HEAT * left * left * random.unit());
            let block = now.block.step(random);
            if search.few.runs_alike(&block, &now.decisions) {
                // Many small steps change nothing, and need not be run to know it.
                now.block = block;
                continue;
            }
            let Some(few) = search.few.run(&block, most as u64) else { continue };
            now = Found { few, all: few, block, decisions: search.few.decisions() };
            if few < best.few {
                if let Some(all) = &mut search.all {
                    match all.run(&now.block, best.all.span_ns).filter(|all| *all <= best.all) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{ScheduleName, StageTimes, Times, simulate};

    fn iteration_ns(micro_batches: usize, memory_limit: Option<f64>, effort: SearchEffort, times: &Times) -> u64 {
        let (name, stages) = (ScheduleName::ZbV, times.stage.len());
        let spec = ScheduleSpec { name, stages, micro_batches, chunks: None, memory_limit, weight_share: 0.43, times };
        simulate(Schedule::build_with(&spec, effort).unwrap(), times.clone()).unwrap().iteration_ns
    }

    /// No worse than the answers of the search that took seconds for them.
    #[test]
    fn a_search_is_as_good_as_it_was() {
        let even = Times::even(8, StageTimes::new(18_522, 18_086, 9_337), 601);
        let mut uneven = Times::even(4, StageTimes::new(20_000, 19_000, 14_000), 500);
        uneven.stage[2] = StageTimes::new(28_800, 27_360, 20_160);
        let before = [
            (24, None, &even, 1_186_022),
            (24, Some(5.0), &even, 1_333_155),
            (16, None, &uneven, 1_235_240),
            (20, Some(3.0), &uneven, 1_552_740),
        ];
        for (micro_batches, limit, times, before_ns) in before {
            let full = iteration_ns(micro_batches, limit, SearchEffort::Full, times);
            let quick = iteration_ns(micro_batches, limit, SearchEffort::Quick, times);
            assert!(full <= before_ns, "{micro_batches}, {limit:?}: {full}, it was {before_ns}");
            assert!(quick as f64 <= 1.05 * before_ns as f64, "{micro_batches}, {limit:?}: {quick} quickly, {full}");
        }
    }

    /// The same question has the same answer, whatever threads the chains run on.
    #[test]
    fn an_answer_repeats() {
        let times = Times::even(3, StageTimes::new(30, 29, 20), 2);
        let answer = || iteration_ns(12, None, SearchEffort::Full, &times);
        let first = answer();
        assert_eq!(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(answer), first);
    }

    /// Room for one micro-batch is enough, with either effort.
    #[test]
    fn the_tightest_limit_is_kept_quickly_too() {
        let times = Times::even(5, StageTimes::new(30, 29, 20), 2);
        assert_eq!(
            iteration_ns(6, Some(1.0), SearchEffort::Quick, &times),
            iteration_ns(6, Some(1.0), SearchEffort::Full, &times)
        );
    }
}
