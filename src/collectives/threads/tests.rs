//! The transport's promises, one by one; whole operations are tested in `tests/collectives.rs`.

use super::{Combine, EAGER_CAPACITY, Tuning, World};
use crate::collectives::{BufferSpan, RankBuffer};
use std::time::Duration;

fn world(ranks: usize) -> World {
    World::new(ranks, Tuning::new(ranks, 2)).unwrap()
}

const LARGE: usize = 4 * EAGER_CAPACITY;
const SEND: BufferSpan = BufferSpan::new(RankBuffer::Send, 0, LARGE);
const RECEIVE: BufferSpan = BufferSpan::new(RankBuffer::Receive, 0, LARGE);

/// The owner may not write what another rank has still to read, whatever its code does.
#[test]
fn writing_what_is_lent_waits_for_the_reader() {
    let seen = world(2).run(|rank| {
        rank.reserve(RankBuffer::Send, LARGE)?;
        rank.reserve(RankBuffer::Receive, LARGE)?;
        if rank.index() == 0 {
            rank.view_mut(SEND)?.fill(1.0);
            rank.send(1, SEND)?;
            rank.view_mut(SEND.slice(LARGE - 1, 1))?.fill(2.0);
            return Ok(Vec::new());
        }
        std::thread::sleep(Duration::from_millis(30));
        rank.receive(0, RECEIVE, Combine::Replace)?;
        Ok(rank.view(RECEIVE).to_vec())
    });
    assert!(seen.unwrap()[1].iter().all(|v| *v == 1.0));
}

/// What does not overlap a lent span can be written at once: here nobody would ever end the wait.
#[test]
fn writing_beside_what_is_lent_does_not_wait() {
    let tuning = Tuning { deadline: Duration::from_secs(5), ..Tuning::new(2, 2) };
    let mut world = World::new(2, tuning).unwrap();
    world
        .run(|rank| {
            rank.reserve(RankBuffer::Send, 2 * LARGE)?;
            rank.reserve(RankBuffer::Receive, LARGE)?;
            if rank.index() == 0 {
                rank.send(1, SEND)?;
                rank.view_mut(BufferSpan::new(RankBuffer::Send, LARGE, LARGE))?.fill(2.0);
            }
            rank.meet()?;
            if rank.index() == 1 { rank.receive(0, RECEIVE, Combine::Replace) } else { rank.settle() }
        })
        .unwrap();
}

/// Small messages belong to the edge: their sender may write at once, and several may be under way, in order.
#[test]
fn small_messages_are_the_edges_own() {
    let got = world(2).run(|rank| {
        rank.reserve(RankBuffer::Send, 2)?;
        rank.reserve(RankBuffer::Receive, 2)?;
        let mut got = Vec::new();
        for number in 0..100 {
            if rank.index() == 0 {
                rank.view_mut(BufferSpan::new(RankBuffer::Send, 0, 2))?.copy_from_slice(&[number as f32, -1.0]);
                rank.send(1, BufferSpan::new(RankBuffer::Send, 0, 2))?;
            } else {
                rank.receive(0, BufferSpan::new(RankBuffer::Receive, 0, 2), Combine::Replace)?;
                got.push(rank.view(BufferSpan::new(RankBuffer::Receive, 0, 1))[0]);
            }
        }
        Ok(got)
    });
    assert_eq!(got.unwrap()[1], (0..100).map(|n| n as f32).collect::<Vec<_>>());
}

#[test]
fn sums_are_made_in_place_and_from_elsewhere() {
    let got = world(2).run(|rank| {
        rank.reserve(RankBuffer::Send, LARGE)?;
        rank.reserve(RankBuffer::Receive, LARGE)?;
        let me = rank.index() as f32;
        rank.view_mut(SEND)?.fill(1.0 + me);
        rank.view_mut(RECEIVE)?.fill(10.0);
        for own in [SEND, RECEIVE] {
            rank.send(1 - rank.index(), SEND)?;
            rank.receive(1 - rank.index(), RECEIVE, Combine::Add(own))?;
        }
        rank.settle()?;
        Ok(rank.view(RECEIVE)[LARGE / 2])
    });
    // (own + other) + other
    assert_eq!(got.unwrap(), [1.0 + 2.0 + 2.0, 2.0 + 1.0 + 1.0]);
}

#[test]
fn a_meeting_gives_all_ranks_one_moment_after_the_last_one_came() {
    let times = world(4).run(|rank| {
        if rank.index() == 2 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mine = rank.now_ns();
        Ok((mine, rank.meet()?, rank.meet()?))
    });
    let times = times.unwrap();
    let last = times.iter().map(|t| t.0).max().unwrap();
    assert!(times.iter().all(|t| t.1 == times[0].1 && t.1 >= last && t.2 == times[0].2 && t.2 >= t.1));
}

#[test]
fn a_world_does_job_after_job_also_after_a_rest() {
    let mut world = world(3);
    for round in 0..20u64 {
        if round == 10 {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            world.run(move |rank| Ok(round * 10 + rank.index() as u64)).unwrap(),
            [0, 1, 2].map(|r| round * 10 + r)
        );
    }
}

#[test]
fn a_world_of_nobody_is_refused() {
    assert!(World::new(0, Tuning::new(1, 1)).is_err());
    assert_eq!(World::new(1, Tuning::new(1, 1)).unwrap().run(|rank| rank.meet().map(|_| rank.next())).unwrap(), [0]);
}

/// Wherever malloc puts them: whether a copy is fast must not be chance.
#[test]
fn buffers_begin_on_cache_lines() {
    for len in [1, LARGE, LARGE + 1] {
        let starts = world(2).run(move |rank| {
            Ok([RankBuffer::Send, RankBuffer::Receive].map(|buffer| {
                rank.reserve(buffer, len).map(|()| rank.view(BufferSpan::new(buffer, 0, len)).as_ptr() as usize % 64)
            }))
        });
        assert!(starts.unwrap().into_iter().flatten().all(|start| start.unwrap() == 0), "{len}");
    }
}
