//! What holds for every schedule, whatever the numbers.

use crate::{run, spec};
use bubblebench::pipeline::activations::{self, DEFAULT_WEIGHT_SHARE};
use bubblebench::pipeline::{
    BubbleKind, OrderName, Schedule, ScheduleName, ScheduleSpec, StageTimes, Timeline, Times, Work, bubbles,
};
use proptest::prelude::*;
use std::collections::HashMap;

fn any_name() -> impl Strategy<Value = ScheduleName> {
    // ZB-V's search takes too long for hundreds of cases; it has its own.
    proptest::sample::select(ScheduleName::ALL.into_iter().filter(|n| *n != ScheduleName::ZbV).collect::<Vec<_>>())
}

/// Stages and micro-batches near these for which the schedule exists.
fn sizes(name: ScheduleName, p: usize, groups: usize, rest: usize) -> (usize, usize) {
    match name {
        ScheduleName::Chimera => (2 * p, 2 * p * groups),
        ScheduleName::Dualpipe => (2 * p, 4 * p + 2 * rest),
        ScheduleName::Dualpipev => (p, 2 * p + rest),
        ScheduleName::Interleaved => (p, p * groups),
        _ => (p, p * groups + rest),
    }
}

prop_compose! {
    fn any_case()(
        name in any_name(), p in 1usize..9, groups in 1usize..5, rest in 0usize..4, v in 1usize..4, seed in any::<u64>(),
        message in 0u64..60, even in any::<bool>(), ends in any::<bool>(), overlap in any::<bool>(),
    ) -> (ScheduleName, usize, Option<usize>, Times) {
        let (p, m) = sizes(name, p, groups, rest);
        let mut random = bubblebench::stats::SplitMix(seed);
        let mut stage = || StageTimes::new(
            random.below(200) as u64, random.below(200) as u64, random.below(200) as u64);
        let first = stage();
        let list = (0..p).map(|_| if even { first } else { stage() }).collect();
        let mut times = Times::new(list, message);
        if ends {
            (times.first, times.last) = (stage(), stage());
        }
        times.overlapped_ns = (overlap && even && !ends).then_some(first.total_ns() * 9 / 10);
        (name, m, (name == ScheduleName::Interleaved).then_some(v), times)
    }
}

/// (stage, chunk, work, micro-batch).
type Key = (usize, usize, Work, u32);

/// When each operation starts and when its result is there: that of a pair's halves when both have ended.
fn results(timeline: &Timeline) -> Result<HashMap<Key, (u64, u64)>, TestCaseError> {
    let mut found = HashMap::new();
    for stage in 0..timeline.schedule.stages {
        let list: Vec<_> = timeline.operations(stage).collect();
        let mut free = 0;
        for (index, &(o, start, end)) in list.iter().enumerate() {
            prop_assert!(start >= free && end >= start, "operations overlap on stage {}", stage);
            free = end;
            let (start, end) = match (o.paired, o.work) {
                (true, Work::Forward) => (start, list[index + 1].2),
                (true, _) => (list[index - 1].1, end),
                (false, _) => (start, end),
            };
            let new = found.insert((stage, o.chunk as usize, o.work, o.micro_batch), (start, end)).is_none();
            prop_assert!(new, "an operation runs twice");
        }
    }
    Ok(found)
}

/// Where an operation's input comes from, and when it is there.
fn input(timeline: &Timeline, done: &HashMap<Key, (u64, u64)>, key: Key) -> Option<u64> {
    let (stage, chunk, work, k) = key;
    let message = |other: usize| if other == stage { 0 } else { timeline.times.send_recv_ns };
    let end = |key: Key| done.get(&key).map(|(_, end)| *end);
    let backward = |s, c| end((s, c, Work::Backward, k)).or(end((s, c, Work::BackwardInput, k)));
    match work {
        Work::Forward => {
            timeline.schedule.previous(stage, chunk).map(|(s, c)| end((s, c, Work::Forward, k)).unwrap() + message(s))
        }
        Work::BackwardWeight => end((stage, chunk, Work::BackwardInput, k)),
        _ => match timeline.schedule.next(stage, chunk) {
            None => end((stage, chunk, Work::Forward, k)),
            Some((s, c)) => backward(s, c).map(|e| e + message(s)),
        },
    }
}

/// Everything a timeline must hold, whatever the schedule.
fn check(timeline: &Timeline) -> Result<(), TestCaseError> {
    let schedule = &timeline.schedule;
    let done = results(timeline)?;
    let count = |work: Work| done.keys().filter(|k| k.2 == work).count();
    let passes = schedule.cells() * schedule.passes();
    prop_assert_eq!(count(Work::Forward), passes);
    prop_assert_eq!(count(Work::Backward) + count(Work::BackwardInput), passes);
    prop_assert_eq!(count(Work::BackwardWeight), count(Work::BackwardInput));
    for (&key, &(start, _)) in &done {
        let arrived = input(timeline, &done, key).unwrap_or(0);
        prop_assert!(start >= arrived, "{:?} starts before its input", key);
        prop_assert!(key.2 == Work::Forward || input(timeline, &done, key).is_some(), "{:?} has no input", key);
    }
    for stage in 0..schedule.stages {
        check_bubbles(timeline, stage)?;
    }
    Ok(())
}

fn check_bubbles(timeline: &Timeline, stage: usize) -> Result<(), TestCaseError> {
    let bubbles = bubbles::of_stage(timeline, stage);
    let idle: u64 = bubbles.iter().map(|b| b.length_ns()).sum();
    let busy: u64 = timeline.operations(stage).map(|(_, start, end)| end - start).sum();
    prop_assert_eq!(busy, timeline.busy_ns(stage));
    prop_assert_eq!(idle + busy, timeline.iteration_ns);
    prop_assert!(bubbles.windows(2).all(|b| b[0].end_ns <= b[1].start_ns));
    prop_assert!(bubbles.iter().all(|b| b.length_ns() > 0));
    let ends = bubbles.iter().filter(|b| matches!(b.kind, BubbleKind::Warmup | BubbleKind::Tail));
    for b in ends {
        prop_assert_eq!((b.live.whole, b.live.weights), (0, 0), "the iteration's ends hold no activation");
    }
    if timeline.schedule.name.windowed() {
        prop_assert!(bubbles.iter().all(|b| b.kind != BubbleKind::Warmup));
    }
    Ok(())
}

/// The most whole micro-batches a stage may hold (w = 0), by the schedule's own rule.
fn bound(schedule: &Schedule, stage: usize) -> usize {
    let (p, m, v) = (schedule.stages, schedule.micro_batches, schedule.chunks);
    let OrderName::Known(name) = schedule.name else { panic!("not built") };
    let chunks = match name {
        ScheduleName::Gpipe => m,
        ScheduleName::OneFOneB | ScheduleName::ZbH1 => p - stage,
        ScheduleName::ZbH2 => 2 * (p - 1 - stage) + 1,
        ScheduleName::Interleaved => 2 * (p - 1 - stage) + (v - 1) * p + 1,
        ScheduleName::Zb1p => p,
        ScheduleName::Zb2p => 2 * p,
        ScheduleName::ZbV => 2 * p,
        ScheduleName::VHalf => p + 2,
        ScheduleName::VMin => 2 * p / 3 + 2,
        // Each way at most the block's p/2, and no more than reach the stage before the first comes back.
        ScheduleName::Chimera => (p / 2).min(p - stage) + (p / 2).min(stage + 1),
        ScheduleName::Dualpipe => p + 1,
        ScheduleName::Dualpipev => 2 * p + 1,
    };
    chunks.min(m * v)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn time_is_conserved_and_nothing_starts_early((name, m, chunks, times) in any_case()) {
        let timeline = run(name, m, chunks, &times);
        check(&timeline)?;
        for stage in 0..timeline.schedule.stages {
            let peak = activations::peak(&timeline.schedule, stage, 0.0) / timeline.schedule.chunk_share();
            prop_assert!(peak.round() as usize <= bound(&timeline.schedule, stage));
        }
    }

    #[test]
    fn zb_v_is_a_timeline_too(p in 1usize..4, m in 1usize..5, f in 1u64..100, b in 1u64..100, w in 0u64..100, c in 0u64..30) {
        let times = Times::even(p, StageTimes::new(f, b, w), c);
        let timeline = run(ScheduleName::ZbV, m, None, &times);
        check(&timeline)?;
        for stage in 0..p {
            prop_assert!(activations::peak(&timeline.schedule, stage, DEFAULT_WEIGHT_SHARE) <= p as f64 + 1e-9);
        }
    }

    /// Slower work or messages never end the iteration sooner: the lists are fixed.
    #[test]
    fn slower_is_never_faster((name, m, chunks, times) in any_case(), which in 0usize..8, more in 1u64..100) {
        // The others choose their lists by the times.
        prop_assume!(!name.windowed() && !matches!(name, ScheduleName::VHalf | ScheduleName::VMin));
        let before = run(name, m, chunks, &times).iteration_ns;
        let mut slower = times.clone();
        let stage = which % times.stage.len();
        slower.stage[stage].backward_input_ns += more;
        prop_assert!(run(name, m, chunks, &slower).iteration_ns >= before);
        slower.send_recv_ns += more;
        prop_assert!(run(name, m, chunks, &slower).iteration_ns >= before);
    }
}

/// Nothing to do, one stage with nothing to do, and times near the most that is accepted.
#[test]
fn zero_and_extreme_times_do_not_break() {
    let long = 1 << 53;
    for name in ScheduleName::ALL {
        for (f, b, w, message) in
            [(0, 0, 0, 0), (0, 0, 0, 9), (1, 0, 0, 0), (0, 5, 0, 1), (long, 1, long, 0), (1, long, 0, long)]
        {
            let mut times = Times::even(4, StageTimes::new(f, b, w), message);
            check(&run(name, 8, None, &times)).unwrap();
            times.stage[2] = StageTimes::default();
            check(&run(name, 8, None, &times)).unwrap();
        }
    }
}

#[test]
fn numbers_that_no_schedule_has_are_answered_with_a_sentence() {
    let times = Times::even(4, StageTimes::new(1, 1, 1), 0);
    let refuse = |change: &dyn Fn(&mut ScheduleSpec)| {
        let mut spec = spec(ScheduleName::OneFOneB, 4, 8, None, &times);
        change(&mut spec);
        Schedule::build(&spec).unwrap_err().to_string()
    };
    assert!(refuse(&|s| s.stages = 0).contains("stages is 0"));
    assert!(refuse(&|s| s.micro_batches = 0).contains("micro-batches is 0"));
    assert!(refuse(&|s| s.micro_batches = 1 << 40).contains("operations"));
    assert!(refuse(&|s| s.stages = 5).contains("4 stages"));
    assert!(refuse(&|s| s.chunks = Some(2)).contains("chunks are not a choice of 1f1b"));
    assert!(refuse(&|s| s.weight_share = f64::NAN).contains("weight share"));
    assert!(refuse(&|s| s.memory_limit = Some(3.0)).contains("memory limit is 3"));
    let of = |name, p, m| refuse(&|s| (s.name, s.stages, s.micro_batches) = (name, p, m));
    assert!(of(ScheduleName::Chimera, 4, 6).contains("micro-batches 6 cannot be divided by stages 4"));
    assert!(of(ScheduleName::Dualpipe, 4, 6).contains("dualpipe with 6 micro-batches on 4 stages"));
    assert!(of(ScheduleName::Dualpipe, 4, 9).contains("use an even number"));
    let odd = bubblebench::pipeline::schedules::numbers::check(ScheduleName::Dualpipe, 3, 8, None).unwrap_err();
    assert!(odd.what.contains("3 stages") && odd.cure.contains("even number of stages"));
    assert!(of(ScheduleName::Dualpipev, 4, 7).contains("at least 8"));
    let interleaved = refuse(&|s| (s.name, s.micro_batches, s.chunks) = (ScheduleName::Interleaved, 7, Some(2)));
    assert!(interleaved.contains("micro-batches 7 cannot be divided by stages 4"), "{interleaved}");
    let long = Times::even(4, StageTimes::new(u64::MAX / 8, 1, 1), 0);
    assert!(Schedule::build(&spec(ScheduleName::OneFOneB, 4, 8, None, &long)).is_err());
    assert!(ScheduleName::parse("1f1c").unwrap_err().to_string().contains("did you mean `1f1b`"));
}
