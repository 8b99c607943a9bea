//! How ranks meet, and who does not get in.

use crate::party::{DEADLINE, MARGIN, Party, free_port};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const ENOUGH: Duration = Duration::from_secs(60);

fn codes(party: &mut Party, limit: Duration) -> Vec<Option<i32>> {
    party.all_end(limit, &[]).iter().map(|end| end.code).collect()
}

/// Rank 0's port, once it listens there.
fn knock(port: u16) -> TcpStream {
    let end = Instant::now() + ENOUGH;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn order_of_arrival_does_not_matter() {
    let mut party = Party::new();
    for rank in [3, 1, 0, 2] {
        party.start(rank, 4, 2, &[]);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(codes(&mut party, ENOUGH), [Some(0); 4]);
}

#[test]
fn on_one_host_no_token_need_be_given() {
    let mut party = Party::new();
    (0..3).for_each(|rank| party.start(rank, 3, 2, &[("BUBBLEBENCH_TOKEN", "")]));
    assert_eq!(codes(&mut party, ENOUGH), [Some(0); 3], "{}", party.said(0));
    assert!(party.said(0).contains("BUBBLEBENCH_TOKEN is not set: made "), "{}", party.said(0));
}

#[test]
fn ipv6_and_a_name_lead_there_too() {
    for address in ["::1", "localhost"] {
        if address == "::1" && TcpListener::bind("[::1]:0").is_err() {
            println!("skipped: this host has no IPv6");
            continue;
        }
        let mut party = Party::new();
        (0..2).for_each(|rank| party.start(rank, 2, 1, &[("MASTER_ADDR", address)]));
        assert_eq!(codes(&mut party, ENOUGH), [Some(0); 2], "{address}: {}", party.said(1));
    }
}

#[test]
fn without_a_token_ranks_of_several_hosts_are_told_to_have_one() {
    let mut party = Party::new();
    for rank in 0..2 {
        let hosts = [("BUBBLEBENCH_TOKEN", ""), ("LOCAL_WORLD_SIZE", "1"), ("LOCAL_RANK", "0")];
        party.start(rank, 2, 1, &hosts);
    }
    for end in party.all_end(ENOUGH, &[]) {
        assert!(end.code == Some(2) && end.said.contains("export BUBBLEBENCH_TOKEN="), "{end:?}");
    }
}

#[test]
fn a_wrong_token_does_not_get_in_and_the_others_do() {
    let mut party = Party::new();
    party.start(0, 2, 2, &[]);
    party.start(1, 2, 2, &[("BUBBLEBENCH_TOKEN", "another secret")]);
    let stranger = party.all_end(ENOUGH, &[0]);
    assert!(stranger[0].code == Some(2) && stranger[0].said.contains("BUBBLEBENCH_TOKEN"), "{stranger:?}");
    party.start(1, 2, 2, &[]);
    let ends = party.all_end(ENOUGH, &[1]);
    assert!(ends.iter().all(|end| end.code == Some(0)), "{ends:#?}");
    assert!(party.said(0).contains("does not know the token"), "{}", party.said(0));
}

#[test]
fn a_rank_that_never_comes_is_named_to_all_within_the_deadline() {
    let mut party = Party::new();
    [0, 1, 3].into_iter().for_each(|rank| party.start(rank, 5, 1, &[]));
    let ends = party.all_end(DEADLINE + MARGIN, &[]);
    for end in &ends {
        assert!(end.code == Some(2) && end.said.contains("ranks 2, 4 of 5 did not come"), "{end:?}");
    }
}

#[test]
fn without_rank_0_the_others_say_where_they_looked() {
    let mut party = Party::new();
    party.start(1, 2, 1, &[]);
    party.start(1, 2, 1, &[("MASTER_ADDR", "no-such-host.invalid")]);
    let ends = party.all_end(DEADLINE + MARGIN, &[]);
    let place = format!("127.0.0.1:{}", party.port);
    assert!(ends[0].code == Some(2) && ends[0].said.contains(&place), "{ends:#?}");
    assert!(ends[1].code == Some(2) && ends[1].said.contains("no-such-host.invalid does not resolve"), "{ends:#?}");
}

#[test]
fn ranks_that_cannot_belong_together_end_the_meeting_with_their_names() {
    for (ranks, rank, words) in [(4, 1, "both call themselves rank 1"), (3, 2, "one of 3 ranks and rank 0 as one of 4")]
    {
        let mut party = Party::new();
        party.start(0, 4, 1, &[]);
        party.start(1, 4, 1, &[]);
        std::thread::sleep(Duration::from_millis(300));
        party.start(rank, ranks, 1, &[]);
        let ends = party.all_end(MARGIN, &[]);
        assert!(ends.iter().all(|end| end.code == Some(2)), "{ends:#?}");
        for end in [&ends[0], &ends[2]] {
            assert!(end.said.contains(words) && end.said.contains(&party.pid(2).to_string()), "{words}: {end:?}");
        }
    }
}

#[test]
fn a_rank_of_another_job_is_turned_away_and_the_job_goes_on() {
    let mut party = Party::new();
    let job = |name| [("TORCHELASTIC_RUN_ID", name)];
    party.start(0, 2, 1, &job("mine"));
    party.start(1, 2, 1, &job("theirs"));
    let other = party.all_end(ENOUGH, &[0]);
    assert!(other[0].code == Some(2) && other[0].said.contains("another job"), "{other:?}");
    party.start(1, 2, 1, &job("mine"));
    assert!(party.all_end(ENOUGH, &[1]).iter().all(|end| end.code == Some(0)), "{}", party.said(0));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let port = free_port();
    let _taken = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let mut party = Party::new();
    party.port = port;
    party.start(0, 2, 1, &[]);
    let ends = party.all_end(ENOUGH, &[]);
    let words = [format!("port {port}"), "MASTER_PORT".into()];
    assert!(ends[0].code == Some(2) && words.iter().all(|word| ends[0].said.contains(word)), "{ends:?}");
}

/// Callers that say nothing, that say too much, and that leave at once keep nobody from meeting.
#[test]
fn strangers_do_not_disturb_a_meeting() {
    let mut party = Party::new();
    party.start(0, 2, 3, &[]);
    let silent: Vec<TcpStream> = (0..20).map(|_| knock(party.port)).collect();
    for noise in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 64], &[0; 4096]] {
        // Whether it is taken or not.
        let _ = knock(party.port).write_all(noise);
    }
    drop(knock(party.port));
    let mut greeted = knock(party.port);
    let mut length = [0; 4];
    greeted.read_exact(&mut length).unwrap();
    party.start(1, 2, 3, &[]);
    assert_eq!(codes(&mut party, ENOUGH), [Some(0); 2], "{}", party.said(0));
    drop(silent);
}

/// Any first words, against the same rank 0, which is still there afterwards.
#[test]
fn no_first_words_bring_rank_0_down() {
    let mut party = Party::new();
    party.start(0, 2, 1, &[("BUBBLEBENCH_TEST_DEADLINE_MS", "60000")]);
    let port = party.port;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 40, ..ProptestConfig::default() });
    let letters = proptest::collection::vec(any::<u8>(), 0..200);
    let framed = (any::<bool>(), letters);
    runner
        .run(&framed, |(framed, noise)| {
            let mut stream = knock(port);
            let mut bytes = if framed { (noise.len() as u32).to_le_bytes().to_vec() } else { Vec::new() };
            bytes.extend(noise);
            // Rank 0 may have hung up already.
            let _ = stream.write_all(&bytes);
            Ok(())
        })
        .unwrap();
    party.start(1, 2, 1, &[("BUBBLEBENCH_TEST_DEADLINE_MS", "60000")]);
    assert_eq!(codes(&mut party, ENOUGH), [Some(0); 2], "{}", party.said(0));
}
