//! The planner against the exact optimum of two thousand random stages, half of them with lengths that vary. A thousand are small enough to be put as a
//! mixed-integer linear program to `good_lp` with its pure-Rust solver `microlp` (branch and bound; docs/planning.md has the
//! program); of the others, with awkward sides, everything is tried.

#[path = "planner/exhaustive.rs"]
mod exhaustive;
#[path = "planner/problems.rs"]
mod problems;
#[path = "planner/program.rs"]
mod program;

use bubblebench::fill::pack::{Residency, Resident, StageProblem};
use bubblebench::fill::side::CompleteSide;
use bubblebench::fill::{beam, planner};
use bubblebench::stats::SplitMix;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

const CASES: usize = 500;
/// What the planner must reach of the optimum, in every case.
const LEAST: f64 = 0.98;

/// What giving each bubble to the side worth most there would win, every side staying in memory: no looking ahead, one side a bubble.
fn plain(problem: &StageProblem) -> f64 {
    let everyone: Vec<Resident> =
        (0..problem.sides.len()).map(|side| Resident { side, residency: Residency::Split }).collect();
    let alone = StageProblem { sides_per_bubble: 1, ..problem.clone() };
    everyone
        .iter()
        .filter(|r| alone.sides[r.side].split && alone.least_free.is_none_or(|free| r.held_bytes(alone.sides) <= free))
        .map(|&r| beam::assign(&alone, &[r]).worth)
        .fold(0.0, f64::max)
}

/// What is found of one problem.
struct Answer {
    found: f64,
    best: f64,
    /// What one side alone gets without looking ahead.
    plain: f64,
}

impl Answer {
    fn of(problem: &StageProblem, best: f64) -> Self {
        let found = planner::solve(problem).worth;
        assert!(found <= best + 1e-6 * best.max(1.0), "{found} is more than the optimum {best}: {problem:?}");
        assert!(found >= LEAST * best - 1e-9, "{found} of {best}: {problem:?}");
        Answer { found, best, plain: plain(problem) }
    }
}

/// As many answers as there are cases, each from its own random numbers.
fn answers(seed: u64, answer: impl Fn(&mut SplitMix) -> Answer + Sync) -> Vec<Answer> {
    let mut random = SplitMix(seed);
    let seeds: Vec<u64> = (0..CASES).map(|_| random.next_u64()).collect();
    seeds.into_par_iter().map(|seed| answer(&mut SplitMix(seed))).collect()
}

/// Says how near the planner came, and that the cases are hard enough to tell.
fn report(kind: &str, answers: &[Answer]) {
    let filled: Vec<_> = answers.iter().filter(|a| a.best > 1e-9).collect();
    let worst = filled.iter().map(|a| a.found / a.best).fold(1.0, f64::min);
    let short_of = filled.iter().filter(|a| a.found < a.best * (1.0 - 1e-9)).count();
    let missed = filled.iter().filter(|a| a.plain < LEAST * a.best).count();
    println!(
        "{kind}: worst {worst:.4}, {short_of} of {CASES} below the optimum; one side alone misses in {missed}; nothing fits in {}",
        CASES - filled.len()
    );
    assert!(missed > CASES / 5 && filled.len() > 2 * CASES / 3, "the cases are too easy: {missed} of {}", filled.len());
}

fn sides(random: &mut SplitMix, side: fn(&mut SplitMix) -> CompleteSide) -> Vec<CompleteSide> {
    (0..problems::between(random, 1, 3)).map(|_| side(random)).collect()
}

#[test]
fn the_planner_reaches_98_percent_of_the_exact_optimum() {
    let answers = answers(0xb0bb1e, |random| {
        let sides = sides(random, problems::side);
        let problem = problems::problem(random, &sides);
        let (best, tried) = (program::optimum(&problem), exhaustive::optimum(&problem));
        assert!((best - tried).abs() <= 1e-6 * best.max(1.0), "{tried} by trying, {best} by the program: {problem:?}");
        Answer::of(&problem, best)
    });
    report("small", &answers);
}

/// What a bubble costs is then a matter of the bubble.
#[test]
fn it_does_where_lengths_vary_too() {
    for (kind, seed, awkward) in [("small, varying", 0x5a11, false), ("awkward, varying", 0xa3c5, true)] {
        let answers = answers(seed, |random| {
            let sides = sides(random, if awkward { problems::awkward_side } else { problems::side });
            let mut problem = if awkward { problems::awkward_problem } else { problems::problem }(random, &sides);
            problems::vary(random, &mut problem);
            let best = exhaustive::optimum(&problem);
            if !awkward {
                let program = program::optimum(&problem);
                assert!(
                    (best - program).abs() <= 1e-6 * best.max(1.0),
                    "{best}, {program} by the program: {problem:?}"
                );
            }
            Answer::of(&problem, best)
        });
        report(kind, &answers);
    }
}

#[test]
fn it_does_where_sides_are_awkward_too() {
    let answers = answers(0xa3c3a4d, |random| {
        let sides = sides(random, problems::awkward_side);
        let problem = problems::awkward_problem(random, &sides);
        Answer::of(&problem, exhaustive::optimum(&problem))
    });
    report("awkward", &answers);
}
