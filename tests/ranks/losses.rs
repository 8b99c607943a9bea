//! One rank is killed, stopped, stuck, failing or told to go, at some moment of a run that is under way.

use crate::party::{DEADLINE, Ended, FAULT, MARGIN, Party};
use std::time::Duration;

/// More than a run gets done before it is disturbed.
const ENDLESS: u64 = 1_000_000;

/// Three ranks of which one misbehaves as `fault` says (`transport::misbehave`), once a case is done.
fn with_fault(fault: &str) -> Party {
    let mut party = Party::new();
    (0..3).for_each(|rank| party.start(rank, 3, ENDLESS, &[(FAULT, fault)]));
    party.wait_for_cases(1);
    party
}

fn all_failed(ends: &[Ended]) {
    assert!(ends.iter().all(|end| end.code == Some(2)), "{ends:#?}");
    assert!(!ends.iter().any(|end| end.said.contains("panicked")), "{ends:#?}");
}

fn rank_0_names(ends: &[Ended], words: &[&str]) {
    assert!(words.iter().all(|word| ends[0].said.contains(word)), "{words:?}: {}", ends[0].said);
}

#[test]
fn four_ranks_measure_to_the_end() {
    let mut party = Party::of(4, 5);
    let ends = party.all_end(Duration::from_secs(60), &[]);
    assert!(ends.iter().all(|end| end.code == Some(0)), "{ends:#?}");
    assert_eq!(party.cases(), 5);
}

#[test]
fn a_killed_rank_ends_all_at_once_and_is_named() {
    for (victim, moment) in [(1, 1), (2, 7), (3, 3)] {
        let mut party = Party::of(4, ENDLESS);
        party.wait_for_cases(moment);
        let pid = party.pid(victim).to_string();
        party.signal(victim, libc::SIGKILL);
        // Its connection closes with it: nobody waits for the deadline.
        let ends = party.all_end(MARGIN, &[victim]);
        all_failed(&ends);
        rank_0_names(&ends, &[&format!("rank {victim} ("), &pid, "was lost while", "what was measured is kept"]);
        assert!(party.cases() >= moment);
    }
}

#[test]
fn when_rank_0_is_killed_nobody_stays() {
    let mut party = Party::of(4, ENDLESS);
    party.wait_for_cases(2);
    party.signal(0, libc::SIGKILL);
    let ends = party.all_end(MARGIN, &[0]);
    all_failed(&ends);
    assert!(ends.iter().all(|end| end.said.contains("rank 0 (") && end.said.contains("is lost")), "{ends:#?}");
}

/// Whenever it is: at start-up, while they meet, or later.
#[test]
fn a_rank_killed_at_any_moment_leaves_nobody() {
    for (victim, after_ms) in [(0, 1), (2, 5), (1, 40), (0, 80), (3, 160), (2, 320)] {
        let mut party = Party::of(4, ENDLESS);
        std::thread::sleep(Duration::from_millis(after_ms));
        party.signal(victim, libc::SIGKILL);
        all_failed(&party.all_end(DEADLINE + MARGIN, &[victim]));
    }
}

#[test]
fn a_stopped_rank_is_found_by_its_silence() {
    let mut party = Party::of(3, ENDLESS);
    party.wait_for_cases(2);
    party.signal(2, libc::SIGSTOP);
    let ends = party.all_end(DEADLINE + MARGIN, &[2]);
    all_failed(&ends);
    rank_0_names(&ends, &["rank 2 (", "no sign of life", "stopped"]);
}

#[test]
fn a_stopped_rank_0_is_left() {
    let mut party = Party::of(3, ENDLESS);
    party.wait_for_cases(2);
    party.signal(0, libc::SIGSTOP);
    let ends = party.all_end(DEADLINE + MARGIN, &[0]);
    all_failed(&ends);
    assert!(ends.iter().all(|end| end.said.contains("no sign of life")), "{ends:#?}");
}

/// Its process beats on, but its worker never comes back, not even when it is aborted.
#[test]
fn a_worker_stuck_in_a_native_call_is_named_and_left_behind() {
    for victim in [0, 2] {
        let mut party = with_fault(&format!("hang:{victim}:9"));
        let ends = party.all_end(DEADLINE + MARGIN, &[]);
        all_failed(&ends);
        rank_0_names(&ends, &[&format!("rank {victim} ("), "did not answer within 4 s while"]);
    }
}

/// The others are in the collective that it never comes to; it is the cause, and they are not.
#[test]
fn a_rank_that_fails_alone_ends_all_with_its_own_words() {
    let mut party = with_fault("fail:1:10");
    let ends = party.all_end(MARGIN, &[]);
    all_failed(&ends);
    rank_0_names(&ends, &["rank 1 (", "out of memory; take less"]);
    assert!(!ends[0].said.contains("timed out"), "{}", ends[0].said);
}

/// The process that holds the bug and rank 0, which hears of it, end as a bug does; the others are told why they end.
#[test]
fn a_bug_ends_its_own_process_and_rank_0_with_101() {
    let mut party = with_fault("bug:1:10");
    let ends = party.all_end(MARGIN, &[]);
    assert_eq!(ends.iter().map(|end| end.code).collect::<Vec<_>>(), [Some(101), Some(101), Some(2)], "{ends:#?}");
    rank_0_names(&ends, &["rank 1 (", "an index out of range", "report it"]);
}

#[test]
fn a_signal_to_any_rank_ends_all() {
    for (victim, signal) in [(0, libc::SIGINT), (2, libc::SIGTERM)] {
        let mut party = Party::of(3, ENDLESS);
        party.wait_for_cases(2);
        party.signal(victim, signal);
        let ends = party.all_end(MARGIN, &[]);
        all_failed(&ends);
        assert!(ends.iter().all(|end| end.said.contains("interrupted")), "{ends:#?}");
    }
}
