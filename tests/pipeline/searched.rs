//! The schedules that are searched for: published figures, their limits, and never worse than what is handcrafted.

use crate::published::{number, rows};
use crate::{run, spec};
use bubblebench::pipeline::activations::{self, DEFAULT_WEIGHT_SHARE};
use bubblebench::pipeline::{Schedule, ScheduleName, StageTimes, Times, simulate};
use proptest::prelude::*;

/// The searched schedules: no worse than published + 0.002, within p and 2p micro-batches of activations.
#[test]
fn searched_schedules_reach_the_published_figures() {
    for row in rows("rows") {
        let p = number(&row, "p") as usize;
        let time = |name: &str| 1000 * number(&row, name);
        let times = Times::even(p, StageTimes::new(time("t_f"), time("t_b"), time("t_w")), time("t_comm"));
        for (column, name, limit) in [("zb_1p", ScheduleName::Zb1p, p), ("zb_2p", ScheduleName::Zb2p, 2 * p)] {
            let published = row["bubble"][column].as_f64().unwrap();
            let timeline = run(name, number(&row, "m") as usize, None, &times);
            let ours = timeline.bubble_ratio();
            assert!(ours <= published + 0.002, "{column} {row}: {ours}");
            for stage in 0..p {
                assert!(activations::peak(&timeline.schedule, stage, DEFAULT_WEIGHT_SHARE) <= limit as f64 + 1e-9);
            }
        }
    }
}

/// The last stage 44 % heavier, as with a head on it: a search must not lose to the handcrafted order.
#[test]
fn searched_schedules_stand_uneven_stages() {
    for (p, m) in [(4, 8), (4, 32), (8, 24), (8, 64), (16, 48)] {
        let mut times = Times::even(p, StageTimes::new(20_000, 19_000, 14_000), 500);
        times.stage[p - 1] = StageTimes::new(28_800, 27_360, 20_160);
        let [h1, one, two] = [ScheduleName::ZbH1, ScheduleName::Zb1p, ScheduleName::Zb2p]
            .map(|n| run(n, m, None, &times).bubble_ratio());
        assert!(one <= h1 && two <= one, "p {p} m {m}: zb-h1 {h1} zb-1p {one} zb-2p {two}");
    }
}

/// A limit below the schedule's own is kept, at a price.
#[test]
fn searched_schedules_keep_a_memory_limit() {
    let times = Times::even(6, StageTimes::new(20_000, 19_000, 14_000), 300);
    let mut last = f64::INFINITY;
    for limit in [2.0, 4.0, 6.0, 12.0] {
        let mut spec = spec(ScheduleName::Zb2p, 6, 24, None, &times);
        spec.memory_limit = Some(limit);
        let timeline = simulate(Schedule::build(&spec).unwrap(), times.clone()).unwrap();
        assert!((0..6).all(|s| activations::peak(&timeline.schedule, s, DEFAULT_WEIGHT_SHARE) <= limit + 1e-9));
        assert!(timeline.bubble_ratio() <= last, "limit {limit}");
        last = timeline.bubble_ratio();
    }
    assert!(last < 0.01);
}

/// ZB-V's own rows, within p micro-batches of activations and within 0.002 of the published figures.
#[test]
fn zb_v_reaches_its_published_figures() {
    // A search of about a second each: without optimisation the first row must do.
    let tried = if cfg!(debug_assertions) { 1 } else { 3 };
    for row in rows("zb_v_rows").into_iter().take(tried) {
        let p = number(&row, "p") as usize;
        let time = |name: &str| 2000 * number(&row, &format!("{name}_chunk"));
        let stage = StageTimes::new(time("t_f"), time("t_b"), time("t_w"));
        let times = Times::even(p, stage, 1000 * number(&row, "t_comm"));
        let timeline = run(ScheduleName::ZbV, number(&row, "m") as usize, None, &times);
        let published = row["bubble"]["zb_v"].as_f64().unwrap();
        assert!(timeline.bubble_ratio() <= published + 0.002, "{row}: {}", timeline.bubble_ratio());
        for stage in 0..p {
            assert!(activations::peak(&timeline.schedule, stage, DEFAULT_WEIGHT_SHARE) <= p as f64 + 1e-9);
        }
    }
}

prop_compose! {
    /// Stages of any times, a heavier head or none.
    fn any_times()(p in 1usize..9, seed in any::<u64>(), message in 0u64..40, even in any::<bool>(), head in 0u64..100) -> Times {
        let mut random = bubblebench::stats::SplitMix(seed);
        let mut stage = || StageTimes::new(
            20 + random.below(100) as u64, 20 + random.below(100) as u64, random.below(100) as u64);
        let first = stage();
        let list = (0..p).map(|_| if even { first } else { stage() }).collect();
        Times { last: StageTimes::new(head, head, head / 2), ..Times::new(list, message) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// On any times: never worse than what is handcrafted for the same memory, never above the limit, and more memory
    /// never makes it worse.
    #[test]
    fn a_search_never_loses_to_the_handcrafted(times in any_times(), m in 1usize..40) {
        let p = times.stage.len();
        let ratio = |name| run(name, m, None, &times);
        let [h1, h2, one, two] = [ScheduleName::ZbH1, ScheduleName::ZbH2, ScheduleName::Zb1p, ScheduleName::Zb2p].map(ratio);
        prop_assert!(one.iteration_ns <= h1.iteration_ns && two.iteration_ns <= one.iteration_ns);
        prop_assert!(two.iteration_ns <= h2.iteration_ns);
        for (timeline, limit) in [(&one, p), (&two, 2 * p)] {
            for stage in 0..p {
                prop_assert!(activations::peak(&timeline.schedule, stage, DEFAULT_WEIGHT_SHARE) <= limit as f64 + 1e-9);
            }
        }
    }

    /// Any limit from one micro-batch on can be kept, by V too.
    #[test]
    fn any_memory_limit_is_kept(p in 1usize..6, m in 1usize..8, limit in 1.0f64..8.0, f in 1u64..100, b in 1u64..100, w in 0u64..100) {
        let times = Times::even(p, StageTimes::new(f, b, w), 3);
        for name in [ScheduleName::Zb1p, ScheduleName::ZbV] {
            let mut spec = spec(name, p, m, None, &times);
            spec.memory_limit = Some(limit);
            let timeline = simulate(Schedule::build(&spec).unwrap(), times.clone()).unwrap();
            for stage in 0..p {
                prop_assert!(activations::peak(&timeline.schedule, stage, DEFAULT_WEIGHT_SHARE) <= limit + 1e-9);
            }
        }
    }
}

/// Longer pipelines and more micro-batches leave the same bubble per stage: the block's middle repeats without one.
#[test]
fn zb_v_does_not_fall_apart_when_repeated() {
    let bubble = |m: usize| {
        let times = Times::even(8, StageTimes::new(29_718, 29_444, 19_927), 527);
        run(ScheduleName::ZbV, m, None, &times).iteration_ns - m as u64 * (29_718 + 29_444 + 19_927)
    };
    let (few, many) = (bubble(20), bubble(200));
    assert!(many as f64 <= 1.05 * few as f64, "{few} with 20 micro-batches, {many} with 200");
}
