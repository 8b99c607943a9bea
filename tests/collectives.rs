//! Collectives between threads: right for every operation, size, rank count, root and tuning; and an end, with a name in
//! it, for every way a rank can be lost.

use bubblebench::collectives::threads::{Combine, EAGER_CAPACITY, Tuning, World};
use bubblebench::collectives::{
    BufferSpan, CollectiveOperation, Exchange, Pattern, RankBuffer, Session, count_wrong, load,
};
use bubblebench::stats::SplitMix;
use std::time::{Duration, Instant};

/// 1 to about 100,000, every order of magnitude as often as the others.
fn random_elements(random: &mut SplitMix) -> usize {
    (10f64.powf(random.unit() * 5.0) as usize).max(1)
}

fn random_tuning(random: &mut SplitMix, ranks: usize) -> Tuning {
    let chunk = [16, 100, 1024, 4096, 32 * 1024][random.below(5)] + random.below(7);
    let eager = [0, 1, 64, EAGER_CAPACITY][random.below(4)];
    // Tests run beside each other: pinned to the same two cores they would wait for one another.
    Tuning { chunk, eager, pinned: false, ..Tuning::new(ranks, 2) }
}

fn random_exchange(random: &mut SplitMix, ranks: usize) -> Exchange {
    let operation = CollectiveOperation::ALL[random.below(CollectiveOperation::ALL.len())];
    let in_place = operation.definition().can_be_in_place() && random.below(2) == 0;
    Exchange::new(operation, random_elements(random), ranks).root(random.below(ranks)).in_place(in_place)
}

#[test]
fn random_exchanges_have_no_wrong_element() {
    let mut random = SplitMix(0xb0bb1e);
    for _ in 0..250 {
        let ranks = 1 + random.below(8);
        let tuning = random_tuning(&mut random, ranks);
        let mut world = World::new(ranks, tuning).unwrap();
        for _ in 0..5 {
            let exchange = random_exchange(&mut random, ranks);
            let wrong = world
                .run(move |rank| {
                    load(&exchange, rank)?;
                    exchange.operation.definition().run(&exchange, rank)?;
                    Ok(count_wrong(&exchange, rank))
                })
                .unwrap();
            assert_eq!(wrong.iter().sum::<u64>(), 0, "{exchange:?} {tuning:?} wrong by rank {wrong:?}");
        }
    }
}

/// Back to back, with nothing between them: a rank may be an operation ahead of its neighbour.
#[test]
fn results_stay_right_when_operations_follow_each_other_closely() {
    let mut random = SplitMix(77);
    for operation in CollectiveOperation::ALL {
        let ranks = 2 + random.below(4);
        let tuning = Tuning { chunk: 200, ..Tuning::new(ranks, 2) };
        for elements in [3, 1500, 30_000] {
            let exchange = Exchange::new(operation, elements, ranks).root(ranks - 1);
            let mut world = World::new(ranks, tuning).unwrap();
            let wrong = world
                .run(move |rank| {
                    load(&exchange, rank)?;
                    for _ in 0..10 {
                        exchange.operation.definition().run(&exchange, rank)?;
                    }
                    Ok(count_wrong(&exchange, rank))
                })
                .unwrap();
            assert_eq!(wrong.iter().sum::<u64>(), 0, "{exchange:?}");
        }
    }
}

/// The sums are those of plain addition, not only of the library's own expectation.
#[test]
fn an_all_reduce_adds_what_the_ranks_gave() {
    let mut world = World::new(3, Tuning::new(3, 2)).unwrap();
    let exchange = Exchange::new(CollectiveOperation::AllReduce, 7, 3);
    let sums = world
        .run(move |rank| {
            load(&exchange, rank)?;
            let me = rank.index() as f32;
            rank.view_mut(BufferSpan::new(RankBuffer::Send, 0, 7))?.copy_from_slice(&[
                me,
                1.0,
                10.0 * me,
                0.0,
                -me,
                0.5,
                100.0,
            ]);
            exchange.operation.definition().run(&exchange, rank)?;
            Ok(rank.view(BufferSpan::new(RankBuffer::Receive, 0, 7)).to_vec())
        })
        .unwrap();
    for sum in sums {
        assert_eq!(sum, [3.0, 3.0, 30.0, 0.0, -3.0, 1.5, 300.0]);
    }
}

#[test]
fn a_corrupted_element_is_counted_on_every_operation() {
    let mut random = SplitMix(5);
    for operation in CollectiveOperation::ALL {
        let exchange = Exchange::new(operation, 1000, 4).root(1);
        let victim = 1;
        let place = random.below(exchange.placement(victim).output.len);
        let mut world = World::new(4, Tuning::new(4, 2)).unwrap();
        let wrong = world
            .run(move |rank| {
                load(&exchange, rank)?;
                exchange.operation.definition().run(&exchange, rank)?;
                if rank.index() == victim {
                    let output = exchange.placement(victim).output.slice(place, 1);
                    rank.view_mut(output)?[0] += 1.0;
                }
                Ok(count_wrong(&exchange, rank))
            })
            .unwrap();
        assert_eq!(wrong, [0, 1, 0, 0], "{operation:?}");
    }
}

/// The check sees an operation that did nothing at all: outputs were poisoned.
#[test]
fn an_unwritten_output_is_all_wrong() {
    let exchange = Exchange::new(CollectiveOperation::AllReduce, 100, 2);
    let mut world = World::new(2, Tuning::new(2, 2)).unwrap();
    let wrong = world.run(move |rank| load(&exchange, rank).map(|()| count_wrong(&exchange, rank))).unwrap();
    assert_eq!(wrong, [100, 100]);
}

fn short(ranks: usize) -> Tuning {
    Tuning { deadline: Duration::from_millis(300), ..Tuning::new(ranks, 2) }
}

/// One rank does nothing: everybody ends, and the error names that rank, not its neighbours.
#[test]
fn a_rank_that_never_arrives_is_named_before_the_deadline_is_long_over() {
    for (operation, lost) in
        [(CollectiveOperation::AllReduce, 2), (CollectiveOperation::Broadcast, 1), (CollectiveOperation::AllToAll, 3)]
    {
        let exchange = Exchange::new(operation, 5000, 4);
        let begun = Instant::now();
        let mut world = World::new(4, short(4)).unwrap();
        let error = world
            .run(move |rank| {
                load(&exchange, rank)?;
                if rank.index() == lost {
                    return Ok(());
                }
                exchange.operation.definition().run(&exchange, rank)
            })
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("for rank {lost}, which never came")), "{operation:?}: {error}");
        assert!(world.run(|_| Ok(())).is_err(), "a world that lost a rank is of no further use");
        drop(world);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_rank_missing_at_the_meeting_is_named() {
    let mut world = World::new(3, short(3)).unwrap();
    let error = world.run(|rank| if rank.index() == 1 { Ok(0) } else { rank.meet() }).unwrap_err().to_string();
    assert!(error.contains("for rank 1, which never came"), "{error}");
}

/// A rank stuck in something that is no wait of ours: the others end, and dropping the world does not hang.
#[test]
fn a_stuck_rank_is_left_behind() {
    let begun = Instant::now();
    let mut world = World::new(2, short(2)).unwrap();
    let error = world
        .run(|rank| {
            if rank.index() == 1 {
                std::thread::sleep(Duration::from_secs(20));
            }
            rank.meet()
        })
        .unwrap_err()
        .to_string();
    drop(world);
    assert!(error.contains("rank 1"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_panic_ends_everybody_and_is_told() {
    for culprit in [0, 1] {
        let mut world = World::new(3, Tuning::new(3, 2)).unwrap();
        let error = world
            .run(move |rank| {
                assert!(rank.index() != culprit, "on purpose");
                rank.meet()
            })
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("rank {culprit} panicked: on purpose")), "{error}");
    }
}

#[test]
fn ranks_that_disagree_about_a_message_say_so() {
    let mut world = World::new(2, Tuning::new(2, 2)).unwrap();
    let error = world
        .run(|rank| {
            rank.reserve(RankBuffer::Send, 10)?;
            rank.reserve(RankBuffer::Receive, 10)?;
            if rank.index() == 0 {
                rank.send(1, BufferSpan::new(RankBuffer::Send, 0, 10))
            } else {
                rank.receive(0, BufferSpan::new(RankBuffer::Receive, 0, 9), Combine::Replace)
            }
        })
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected 9 elements from rank 0 and got 10"), "{error}");
}

#[test]
fn a_session_checks_and_times() {
    for operation in
        [CollectiveOperation::AllReduce, CollectiveOperation::SendRecv(Pattern::PingPong), CollectiveOperation::Reduce]
    {
        let exchange = Exchange::new(operation, 513, 2);
        let mut session = Session::new(exchange, Tuning::new(2, 2)).unwrap();
        assert_eq!(session.verify().unwrap(), 0);
        let timing = session.time(10, 3).unwrap();
        assert!(timing.pipelined_ns > 0.0 && timing.isolated_ns.len() == 3);
        assert!(timing.isolated_ns.iter().all(|ns| *ns > 0.0));
        assert_eq!(session.verify().unwrap(), 0, "and again after timing");
    }
}
