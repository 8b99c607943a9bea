//! The gate's protocol between threads; two processes are in tests/gate.rs.

use super::*;
use crate::stats::SplitMix;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

const LONG: u64 = 10_000_000_000;

/// Runs a side that does `work` per operation until the gate ends it.
fn side_thread(mut side: SideEnd, mut work: impl FnMut() + Send + 'static) -> std::thread::JoinHandle<(Pass, u64)> {
    std::thread::spawn(move || {
        loop {
            match side.pass() {
                Pass::Go => {
                    work();
                    side.done();
                }
                end => return (end, side.operations()),
            }
        }
    })
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = now_ns();
    while !holds() {
        assert!(now_ns() - begun < LONG, "{what} did not come about");
        std::thread::sleep(Duration::from_micros(50));
    }
}

#[test]
fn a_closed_gate_lets_nothing_through_and_an_open_one_everything() {
    let (mut main, side) = pair().unwrap();
    let thread = side_thread(side, || {});
    std::thread::sleep(Duration::from_millis(3));
    assert_eq!(main.side_operations(), 0);
    main.open(LONG);
    eventually("work", || main.side_operations() > 1000);
    assert!(main.side_started_at().unwrap() >= main.opened_at());
    main.close();
    let Stop::Stopped { latency_ns } = main.wait_stopped(LONG) else { panic!("the side must stop") };
    assert!(latency_ns < LONG);
    assert!(main.last_start_latency().is_some() && main.last_work_ns().unwrap() >= latency_ns);
    let at = main.side_operations();
    std::thread::sleep(Duration::from_millis(3));
    assert_eq!(main.side_operations(), at);
    main.shut_down();
    assert_eq!(thread.join().unwrap(), (Pass::ShutDown, at));
}

/// The promise itself: between an acknowledged closing and the next opening no operation runs. Random pauses on both ends
/// stand for every interleaving the scheduler may choose.
#[test]
fn nothing_ever_runs_behind_an_acknowledged_closing() {
    let (mut main, side) = pair().unwrap();
    let (standing, broken) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (seen, wrong) = (Arc::clone(&standing), Arc::clone(&broken));
    let mut random = SplitMix(3);
    let thread = side_thread(side, move || {
        for _ in 0..random.below(4) {
            wrong.fetch_add(u64::from(seen.load(SeqCst)), SeqCst);
            pause(&mut random);
        }
    });
    let mut random = SplitMix(4);
    let mut stopped = 0;
    for _ in 0..3000 {
        standing.store(false, SeqCst);
        main.open(LONG);
        pause(&mut random);
        main.close();
        if random.below(8) > 0 {
            assert!(matches!(main.wait_stopped(LONG), Stop::Stopped { .. }));
            standing.store(true, SeqCst);
            stopped += 1;
            pause(&mut random);
        }
    }
    drop(main);
    assert_eq!(thread.join().unwrap().0, Pass::ShutDown);
    assert!(stopped > 2000);
    assert_eq!(broken.load(SeqCst), 0);
}

fn pause(random: &mut SplitMix) {
    match random.below(40) {
        0 => std::thread::sleep(Duration::from_micros(random.below(300) as u64)),
        1..=8 => std::thread::yield_now(),
        _ => (0..random.below(200)).for_each(|_| std::hint::spin_loop()),
    }
}

#[test]
fn an_old_acknowledgement_is_not_taken_for_a_new_one() {
    let (mut main, mut side) = pair().unwrap();
    main.open(LONG);
    assert_eq!(side.pass(), Pass::Go);
    main.close();
    let thread = std::thread::spawn(move || {
        let go = side.pass();
        (go, side)
    });
    assert!(matches!(main.wait_stopped(LONG), Stop::Stopped { .. }));
    main.open(LONG);
    let (go, side) = thread.join().unwrap();
    assert_eq!(go, Pass::Go);
    main.close();
    // The side is in an operation and has not asked since: it stands acknowledged for the first closing only.
    assert_eq!(main.stopped(), None);
    assert_eq!(main.wait_stopped(300_000), Stop::Late);
    drop(side);
    assert_eq!(main.wait_stopped(LONG), Stop::Absent);
}

#[test]
fn a_forgotten_open_gate_stops_the_side_after_the_grace() {
    let (mut main, side) = pair().unwrap();
    main.set_grace(4_000_000);
    let thread = side_thread(side, || std::thread::sleep(Duration::from_micros(200)));
    let opened = now_ns();
    main.open(2_000_000);
    eventually("a stop of its own", || main.self_stops() == 1);
    assert!(now_ns() - opened >= 6_000_000, "not before expected close and grace");
    let at = main.side_operations();
    std::thread::sleep(Duration::from_millis(12));
    assert_eq!((main.side_operations(), main.self_stops()), (at, 1), "it stays stopped, and says so once");
    // The main comes to its senses: the closing is acknowledged, the next opening works.
    main.close();
    assert!(matches!(main.wait_stopped(LONG), Stop::Stopped { .. }));
    main.open(LONG);
    eventually("work again", || main.side_operations() > at);
    drop(main);
    assert_eq!(thread.join().unwrap().0, Pass::ShutDown);
}

#[test]
fn opening_again_without_closing_names_a_new_end() {
    let (mut main, side) = pair().unwrap();
    main.set_grace(1_000_000);
    let thread = side_thread(side, || std::thread::sleep(Duration::from_micros(100)));
    main.open(1_000_000);
    eventually("a stop of its own", || main.self_stops() == 1);
    let at = main.side_operations();
    main.open(LONG);
    eventually("work again", || main.side_operations() > at + 5);
    main.close();
    main.close();
    assert!(matches!(main.wait_stopped(LONG), Stop::Stopped { .. }));
    main.shut_down();
    thread.join().unwrap();
}

#[test]
fn the_end_is_told_again_to_who_asks_again() {
    let (main, mut side) = pair().unwrap();
    drop(main);
    assert_eq!((side.pass(), side.pass()), (Pass::ShutDown, Pass::ShutDown));
    assert_eq!(side.expected_close(), 0);
}

#[test]
fn a_gate_on_disk_has_one_side_and_goes_with_its_main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = create(&path).unwrap();
    let side = attach(&path).unwrap();
    assert!(attach(&path).err().unwrap().to_string().contains("already has a side program"));
    drop(side);
    let mut side = attach(&path).unwrap();
    // A new main at the same path: the old one must not take the new page's name away.
    let second = create(&path).unwrap();
    drop(main);
    assert_eq!(side.pass(), Pass::ShutDown);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
    assert!(attach(&path).is_err());
}

/// Threads attach at once, to an empty place and to one that a dead process holds.
#[test]
fn a_place_that_many_race_for_is_taken_by_one() {
    const THREADS: usize = 4;
    let dead = ProcessId { pid: 1, started: u64::MAX, ..ProcessId::own() };
    assert_eq!(dead.life(), Life::Gone);
    let barrier = std::sync::Barrier::new(THREADS);
    for round in 0..500 {
        let page = Arc::new(Page::anonymous().unwrap());
        if round % 2 == 0 {
            page.layout().side_process.process.store(dead);
        }
        let sides: Vec<_> = std::thread::scope(|scope| {
            let attach = || {
                let page = Arc::clone(&page);
                barrier.wait();
                SideEnd::enter(page, "the gate")
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(attach)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(sides.iter().filter(|side| side.is_ok()).count(), 1, "round {round}");
        assert_eq!(page.layout().side_process.process.load(), Place::Taken(ProcessId::own()));
    }
}

#[test]
fn a_place_being_taken_is_neither_empty_nor_dead() {
    let page = Arc::new(Page::anonymous().unwrap());
    let mut main = MainEnd { page: Arc::clone(&page), path: None }.ready();
    main.open(LONG);
    main.close();
    assert_eq!(main.wait_stopped(0), Stop::Absent);
    // What a side that claims the place writes first.
    let place = &page.layout().side_process.process;
    place.claim_only();
    assert_eq!(place.load(), Place::BeingTaken);
    assert_eq!(main.wait_stopped(100_000), Stop::Late);
    assert!(SideEnd::enter(Arc::clone(&page), "the gate").err().unwrap().to_string().contains("at the same time"));
}
