//! Both ends between threads; two processes are in tests/gate.rs, every order of their steps in `model.rs`.

use super::memory::{Memory, Order, Word};
use super::process::{Life, ProcessId};
use super::*;
use crate::corun::time::now_ns;
use crate::stats::SplitMix;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

const LONG: u64 = 10_000_000_000;

/// Runs a side that does `work` per operation until the gate ends it.
fn side_thread(mut side: SideEnd, mut work: impl FnMut() + Send + 'static) -> std::thread::JoinHandle<(Pass, u64)> {
    std::thread::spawn(move || {
        loop {
            match side.pass(0) {
                Pass::Go => {
                    work();
                    side.done().unwrap();
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
    let (mut main, mut side) = pair().unwrap();
    side.ready();
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
    assert_eq!(side.pass(0), Pass::Go);
    main.close();
    let thread = std::thread::spawn(move || {
        let go = side.pass(0);
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
fn a_guessed_opening_that_is_forgotten_ends_behind_the_grace() {
    let (mut main, side) = pair().unwrap();
    main.set_grace(4_000_000);
    main.set_margin(0);
    let thread = side_thread(side, || std::thread::sleep(Duration::from_micros(200)));
    let opened = now_ns();
    main.open(2_000_000);
    eventually("a stop of its own", || main.self_stops() == 1);
    assert!(now_ns() - opened >= 6_000_000, "not before expected close and grace");
    let at = main.side_operations();
    std::thread::sleep(Duration::from_millis(12));
    assert_eq!((main.side_operations(), main.self_stops()), (at, 1), "it stays stopped, and says so once");
    // The main comes to its senses: the side has stood still since before, and the next opening works.
    main.close();
    assert_eq!(main.stopped(), Some(0));
    main.open(LONG);
    eventually("work again", || main.side_operations() > at);
    drop(main);
    assert_eq!(thread.join().unwrap().0, Pass::ShutDown);
}

/// The time check: with 5 ms expected and operations that need 1 ms none starts in the last one, although nobody closes.
#[test]
fn an_operation_starts_only_if_it_would_end_in_time() {
    const NEED: u64 = 1_000_000;
    let (mut main, mut side) = pair().unwrap();
    for _ in 0..20 {
        main.open(5_000_000);
        let close = side.expected_close();
        let mut starts = 0;
        while let Some(pass) = side.pass_within(NEED, 8_000_000) {
            assert_eq!(pass, Pass::Go);
            // What another program takes of this core between the answer and here is not the gate's.
            let started = now_ns();
            assert!(started + NEED <= close + 500_000, "{} ns before the close", close as i64 - started as i64);
            starts += 1;
            std::thread::sleep(Duration::from_micros(900));
            side.done().unwrap();
        }
        assert!((1..=5).contains(&starts), "{starts}");
        main.close();
        assert_eq!(main.stopped(), Some(0), "it stood still before the closing");
    }
    assert_eq!(main.self_stops(), 20);
}

#[test]
fn an_operation_that_fits_no_opening_is_refused_with_the_number() {
    let (mut main, mut side) = pair().unwrap();
    let mut open = |ns| {
        main.close();
        main.open(ns);
    };
    // A long one among them is an end of the row, whether the side comes in time for it or not.
    for round in 0..200 {
        open(3_000_000);
        assert_eq!(side.pass_within(3_000_000, 0), None);
        if round % 50 == 49 {
            open(LONG);
            assert_eq!(side.pass_within(3_000_000, 0), Some(Pass::Go));
        }
    }
    open(3_000_000);
    assert_eq!(side.pass_within(3_000_000, 0), None);
    for round in 0..50 {
        open(4_000_000 - round);
        assert_eq!(side.pass_within(5_000_000, 0), None);
    }
    open(5_010_000);
    std::thread::sleep(Duration::from_micros(50));
    assert_eq!(side.pass_within(5_000_000, 0), None, "too late for one that was long enough");
    for round in 0..64 {
        open(3_000_000 - round);
        let answer = side.pass_within(3_000_000, 0);
        let longest_ns = 3_000_000 - MARGIN_NS;
        assert_eq!(answer, (round == 63).then_some(Pass::NeverFits { longest_ns }), "round {round}");
    }
    assert_eq!(main.self_stops(), 0, "where it did not work it did not stop");
    // Long enough from its first moment on, and too late when the side comes to it.
    let starved = (0..1024).filter_map(|_| {
        main.close();
        main.open(5_010_000);
        side.pass_within(5_000_000, 0)
    });
    let starved: Vec<Pass> = starved.collect();
    assert!(matches!(starved[..], [Pass::NeverFits { longest_ns: 4_900_000..5_000_000 }]), "{starved:?}");
    // It is no end: one that fits may start.
    main.open(LONG);
    assert_eq!(side.pass(1_000), Pass::Go);
}

#[test]
fn opening_again_without_closing_names_a_new_end() {
    let (mut main, side) = pair().unwrap();
    let thread = side_thread(side, || std::thread::sleep(Duration::from_micros(100)));
    eventually("a stop of its own", || {
        main.open(1_000_000);
        std::thread::sleep(Duration::from_millis(3));
        main.self_stops() > 0
    });
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
    let (mut main, mut side) = pair().unwrap();
    main.shut_down();
    main.open(LONG);
    main.close();
    assert_eq!((side.pass(0), side.pass(0)), (Pass::ShutDown, Pass::ShutDown));
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
    drop(main);
    assert_eq!(side.pass(0), Pass::ShutDown);
    assert!(!path.exists() && attach(&path).is_err());
}

#[test]
fn a_second_main_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let refused = || create(&path).err().unwrap().to_string();
    let main = create(&path).unwrap();
    let own = format!("process {}, started ", std::process::id());
    let text = refused();
    assert!(text.contains("already has a main program") && text.contains(&own) && text.lines().count() == 1, "{text}");
    drop(main);
    // Of one that is gone the page is replaced; whoever still has the old one mapped is not disturbed.
    drop(create(&path).unwrap());
    // Another program's file is not.
    std::fs::write(&path, "mine").unwrap();
    assert!(refused().contains("is no gate: it is not written over"));
    std::fs::write(&path, [7; page::PAGE_BYTES]).unwrap();
    assert!(refused().contains("is no gate"));
    // A page of version 1: its main holds no lock, and its process tells.
    let mut old = [0u8; page::PAGE_BYTES];
    old[..8].copy_from_slice(b"BBGATE01");
    old[8] = 1;
    let id = ProcessId::own();
    for (at, word) in [(16, u64::from(id.pid)), (24, id.started), (32, id.namespace)] {
        old[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    std::fs::write(&path, old).unwrap();
    assert!(refused().contains("already has a main program"));
    old[16] ^= 0xff;
    old[24] ^= 0xff;
    std::fs::write(&path, old).unwrap();
    drop(create(&path).unwrap());
    // What a link leads to is looked at and replaced, and not the link.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let text = create(&link).err().unwrap().to_string();
    assert!(text.contains("link is there and is no gate"), "a link that leads nowhere: {text}");
    std::fs::write(&path, old).unwrap();
    let main = create(&link).unwrap();
    assert!(link.is_symlink() && !path.is_symlink() && attach(&path).is_ok());
    drop(main);
    std::fs::create_dir(&path).unwrap();
    assert!(refused().contains("is no gate"));
    assert!(create(&folder.path().join("no/such/folder")).err().unwrap().to_string().contains("create the gate"));
}

/// Many create at once, over an abandoned page and where there is none.
#[test]
fn of_many_that_create_at_once_one_is_the_main() {
    use std::os::unix::fs::PermissionsExt;
    const THREADS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let barrier = std::sync::Barrier::new(THREADS);
    for round in 0..100 {
        if round % 2 == 0 {
            let main = create(&path).unwrap();
            let mut abandoned = std::fs::read(&path).unwrap();
            drop(main);
            abandoned[24] ^= 0xff;
            std::fs::write(&path, abandoned).unwrap();
        }
        let mains: Vec<_> = std::thread::scope(|scope| {
            let made = || {
                barrier.wait();
                create(&path)
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(made)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(mains.iter().filter(|main| main.is_ok()).count(), 1, "round {round}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(attach(&path).is_ok());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no temporary file stays");
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
        let place = &page.layout().place;
        if round % 2 == 0 {
            place.process.store(dead);
            place.holder.store(1, Relaxed);
            place.lease_until.store(u64::MAX, Relaxed);
        }
        let sides: Vec<_> = std::thread::scope(|scope| {
            let attach = || {
                let page = Arc::clone(&page);
                barrier.wait();
                SideEnd::enter(page, None, "the gate")
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(attach)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(sides.iter().filter(|side| side.is_ok()).count(), 1, "round {round}");
        assert_eq!(page.layout().place.holder.load(Relaxed), u64::from(std::process::id()));
        assert_eq!(page.layout().place.process.load(), None, "not ready yet");
        drop(sides);
        assert_eq!(page.layout().place.holder.load(Relaxed), 0);
    }
}

#[test]
fn a_side_that_gets_ready_is_absent() {
    let (mut main, mut side) = pair().unwrap();
    main.open(LONG);
    main.close();
    assert_eq!(main.wait_stopped(LONG), Stop::Absent);
    side.ready();
    assert_eq!(main.wait_stopped(100_000), Stop::Late, "it may have work in flight for all the main knows");
    assert_eq!(side.pass_within(0, 1), None);
    assert!(matches!(main.wait_stopped(LONG), Stop::Stopped { .. }));
}

/// A side of another container, whose life cannot be asked about: its lease alone counts.
fn of_another_container(main: &MainEnd) {
    main.page().layout().place.process.namespace.store(1, Relaxed);
}

#[test]
fn a_lease_that_ends_is_taken_over_and_the_side_before_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = create(&path).unwrap();
    let mut first = attach(&path).unwrap();
    main.open(LONG);
    assert_eq!(first.pass(0), Pass::Go);
    first.done().unwrap();
    assert_eq!(first.pass(0), Pass::Go);
    // It lives and renews: who waits for the lease learns that it is no longer the one it saw.
    of_another_container(&main);
    assert!(attach(&path).err().unwrap().to_string().contains("already has a side program"));
    // It is killed, or suspended, in the middle of an operation.
    first.stop_renewing();
    main.page().layout().place.lease_until.store(now_ns() + 300_000_000, Relaxed);
    let begun = now_ns();
    let mut second = attach(&path).unwrap();
    assert!((200_000_000..2_000_000_000).contains(&(now_ns() - begun)));
    assert_eq!(second.pass(0), Pass::Go);
    second.done().unwrap();
    // The first goes on where it stood.
    let before: Vec<u8> = std::fs::read(&path).unwrap();
    assert!(first.done().unwrap_err().to_string().contains("has taken this one's place"));
    assert_eq!(first.pass(0), Pass::LeaseLost);
    drop(first);
    assert!(before == std::fs::read(&path).unwrap(), "it has touched nothing");
    assert_eq!((main.side_operations(), second.operations()), (2, 2));
    assert_eq!(second.pass(0), Pass::Go);
    main.close();
    assert_eq!(second.pass_within(0, 1), None);
    assert!(main.stopped().is_some());
}

/// A word of the first side's that was on its way when it was suspended is not taken for the second's.
#[test]
fn a_stray_acknowledgement_of_a_side_before_counts_for_nobody() {
    let page = Page::anonymous().unwrap();
    let claim = |pid| {
        let Ok(side) = protocol::claim(&page, pid, u64::MAX);
        side.unwrap()
    };
    let first = claim(1);
    let Ok(_) = protocol::open(&page, LONG);
    let mut second = claim(2);
    let Ok(look) = second.look(&page, 0);
    assert_eq!(look, protocol::Look::Go);
    let Ok(_) = protocol::close(&page);
    let Ok(state) = page.load(Word::State, Order::Relaxed);
    let stray = protocol::standing(first.generation(), protocol::generation(state));
    let Ok(()) = page.store(Word::Stopped, stray, Order::Publish);
    assert_eq!(protocol::stopped(&page), Ok(None));
    // One that comes over the second's own is no more than that: it is said again.
    for _ in 0..2 {
        let Ok(look) = second.look(&page, 0);
        assert_eq!((look, protocol::stopped(&page).unwrap().is_some()), (protocol::Look::Wait(state), true));
        let Ok(()) = page.store(Word::Stopped, stray, Order::Publish);
    }
    // Nor does the first name itself, or say that it is ready.
    assert_eq!(first.ready(&page, 1), Ok(false));
    assert_eq!(page.load(Word::SidePid, Order::Relaxed), Ok(0));
    assert_eq!(second.ready(&page, 2), Ok(true));
    // A third that was killed as soon as its claim was made leaves nobody who may start anything.
    let Ok(before) = page.load(Word::SideGeneration, Order::Relaxed);
    assert_eq!(page.exchange(Word::SideGeneration, before + 1, before + 2), Ok(false));
    assert_eq!(page.exchange(Word::SideGeneration, before, before + 1), Ok(true));
    let Ok(_) = protocol::open(&page, LONG);
    assert_eq!(second.look(&page, 0), Ok(protocol::Look::LeaseLost));
}

/// A killed renewal, or one that was suspended between its looks, lengthens nobody else's lease.
#[test]
fn a_lease_is_lengthened_by_its_own_side_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = create(&path).unwrap();
    let _side = attach(&path).unwrap();
    let lease = &main.page().layout().place.lease_until;
    let first = lease.load(SeqCst);
    eventually("a renewal", || lease.load(SeqCst) > first);
    // As where another has taken the place.
    let theirs = now_ns() + LEASE_NS / 2;
    lease.store(theirs, SeqCst);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(lease.load(SeqCst), theirs);
}

/// Of another boot of the machine: the page outlived its clock.
#[test]
fn a_lease_longer_than_any_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = create(&path).unwrap();
    let place = &main.page().layout().place;
    place.process.namespace.store(1, Relaxed);
    place.holder.store(7, Relaxed);
    place.lease_until.store(now_ns() + 3_600_000_000_000, Relaxed);
    let begun = now_ns();
    assert!(attach(&path).is_ok());
    assert!(now_ns() - begun < LEASE_NS);
}

/// A program that was suspended while the place changed hands holds its lock; nobody waits for that for ever.
#[test]
fn a_place_whose_lock_is_not_given_back_is_refused_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = create(&path).unwrap();
    let side = attach(&path).unwrap();
    let suspended = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    assert_eq!(lock::try_lock(&suspended, lock::PLACE), lock::Lock::Held);
    let begun = now_ns();
    let refused = attach(&path).err().unwrap().to_string();
    assert!(refused.contains("has stood still for long") && refused.lines().count() == 1, "{refused}");
    drop(side);
    assert!(now_ns() - begun < LONG);
    drop(suspended);
    assert!(attach(&path).is_ok(), "the lease that could not be given back ends by itself");
    drop(main);
}

/// What the main is told of a stop does not change when the side says later that it still stands still.
#[test]
fn a_stop_is_told_once() {
    let (mut main, mut side) = pair().unwrap();
    assert_eq!((main.stopped(), main.side_started_at(), main.last_work_ns()), (None, None, None), "nothing was yet");
    let began = now_ns();
    main.open(1_000_000);
    while side.pass_within(100_000, 3_000_000) == Some(Pass::Go) {
        std::thread::sleep(Duration::from_micros(100));
        side.done().unwrap();
    }
    let at_most = now_ns() - began;
    std::thread::sleep(Duration::from_millis(20));
    main.close();
    let told = (main.stopped(), main.last_work_ns());
    assert!(told.0 == Some(0) && told.1.unwrap() <= at_most, "{told:?}, not within {at_most}");
    assert_eq!(side.pass_within(0, 3_000_000), None);
    assert_eq!((main.stopped(), main.last_work_ns()), told);
}

#[test]
fn a_silent_main_ends_nobody_but_who_asked_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = create(&path).unwrap();
    let mut side = attach(&path).unwrap();
    // A main of another container, silent for long; its lock is held.
    main.page().layout().header.main.namespace.store(1, Relaxed);
    main.page().layout().main.heartbeat.store(1, Relaxed);
    drop(side);
    side = attach(&path).unwrap();
    assert_eq!(side.pass_within(0, 30_000_000), None, "it waits");
    side.set_main_timeout(1_000_000_000);
    assert_eq!(side.pass(0), Pass::MainGone);
}

#[test]
fn a_main_that_is_gone_may_have_shut_the_gate_down() {
    for shuts_down in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate");
        let mut main = create(&path).unwrap();
        let mut side = attach(&path).unwrap();
        assert_eq!(side.pass_within(0, 3_000_000), None);
        side.set_main_timeout(1_000_000_000);
        assert_eq!(side.gone(now_ns()), None);
        // What this side sees behind its last look.
        if shuts_down {
            main.shut_down();
        }
        main.page().layout().main.heartbeat.store(1, Relaxed);
        let how = if shuts_down { Pass::ShutDown } else { Pass::MainGone };
        assert_eq!(side.gone(now_ns()), Some(how));
    }
}

#[test]
fn another_time_namespace_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = create(&path).unwrap();
    main.page().layout().header.time_namespace.fetch_add(1, Relaxed);
    let text = attach(&path).err().unwrap().to_string();
    assert!(text.contains("another time namespace") && text.lines().count() == 1, "{text}");
}

/// In a child of fork both ends are copies: the child's calls, and its end, change nothing on the page.
#[test]
fn a_forked_child_has_no_end_of_the_gate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = create(&path).unwrap();
    let mut side = attach(&path).unwrap();
    side.ready();
    let before = std::fs::read(&path).unwrap();
    // SAFETY: the child calls nothing that takes a lock of another thread, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        main.set_grace(7);
        main.set_margin(7);
        main.hand_to_device();
        main.open(LONG);
        main.close();
        let lost = side.pass(0) == Pass::LeaseLost && side.done().is_err();
        drop(main);
        drop(side);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!lost)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child's side has lost its place");
    let after = std::fs::read(&path).unwrap();
    // The parent renews its lease meanwhile.
    let differs: Vec<usize> = (0..after.len()).filter(|&at| before[at] != after[at]).collect();
    assert!(differs.iter().all(|at| (536..544).contains(at)), "{differs:?}");
    assert!(path.exists());
    main.open(LONG);
    assert_eq!(side.pass(0), Pass::Go);
}

/// A device writes its line in the order of a stream; nobody calls open or close, and nobody wakes the side.
#[test]
fn a_device_opens_and_closes_by_its_line() {
    let (mut main, side) = pair().unwrap();
    main.hand_to_device();
    main.set_margin(0);
    let page = Arc::clone(main.page());
    let line = &page.layout().device;
    let thread = side_thread(side, || std::thread::sleep(Duration::from_micros(50)));
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(pair().map(|(mut main, _side)| (main.hand_to_device(), main.stopped()).1).unwrap(), None, "no word yet");
    // The main's own calls open nothing now.
    main.open(LONG);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(main.side_operations(), 0);
    let mut last = 0;
    for opening in 1..=20 {
        line.generation.store(opening, SeqCst);
        line.expected_us.store(if opening % 2 == 0 { 50_000 } else { 10_000_000 }, SeqCst);
        line.open.store(1, SeqCst);
        eventually("work", || main.side_operations() > last);
        if opening % 2 == 0 {
            // Forgotten: the side stops by itself.
            eventually("a stop of its own", || main.self_stops() == u64::from(opening / 2));
            let at = main.side_operations();
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(main.side_operations(), at);
        }
        assert_eq!(main.stopped(), None);
        line.open.store(0, SeqCst);
        assert!(matches!(main.wait_stopped(LONG), Stop::Stopped { .. }));
        last = main.side_operations();
        std::thread::sleep(Duration::from_micros(500));
        assert_eq!(main.side_operations(), last);
    }
    main.shut_down();
    assert_eq!(thread.join().unwrap().0, Pass::ShutDown);
    assert!(matches!(main.wait_stopped(LONG), Stop::Stopped { .. } | Stop::Absent));
}

/// An opening that was there before the side came may be of any age: it is left alone.
#[test]
fn a_device_opening_of_unknown_age_is_not_used() {
    let (mut main, mut side) = pair().unwrap();
    main.hand_to_device();
    let page = Arc::clone(main.page());
    let line = &page.layout().device;
    for (word, value) in [(&line.generation, 1), (&line.expected_us, 1_000_000), (&line.open, 1)] {
        word.store(value, SeqCst);
    }
    assert_eq!(side.pass_within(0, 1_000_000), None);
    line.open.store(0, SeqCst);
    assert_eq!(side.pass_within(0, 100_000), None);
    line.generation.store(2, SeqCst);
    line.open.store(1, SeqCst);
    assert_eq!(side.pass(0), Pass::Go);
}

#[test]
fn somebody_who_looks_on_sees_the_states() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let state = || status(&path).unwrap().record.state;
    let mut main = create(&path).unwrap();
    assert_eq!(state(), GateState::Idle);
    let mut side = attach(&path).unwrap();
    let seen = status(&path).unwrap();
    assert_eq!((seen.record.state, seen.side_gets_ready, seen.side), (GateState::Idle, true, None));
    side.ready();
    assert_eq!(state(), GateState::Armed);
    assert_eq!(side.pass_within(0, 1), None);
    assert_eq!(state(), GateState::Armed, "shut, and never open yet");
    main.open(LONG);
    assert_eq!(state(), GateState::Armed, "open, and the side has not come to it");
    assert_eq!(side.pass(0), Pass::Go);
    let seen = status(&path).unwrap();
    assert_eq!((seen.record.state, seen.record.open, seen.record.stop_latency_ns), (GateState::Running, true, None));
    assert!(
        seen.record.left_ns.unwrap() > 0
            && seen.record.open_ns > 0
            && seen.record.work_ns > 0
            && seen.record.work_ns <= seen.record.open_ns
    );
    main.close();
    assert_eq!(state(), GateState::Draining);
    side.done().unwrap();
    assert_eq!(side.pass_within(0, 1), None);
    let seen = status(&path).unwrap();
    assert_eq!(
        (seen.record.state, seen.record.operations, seen.record.openings, seen.record.closings),
        (GateState::Stopped, 1, 1, 1)
    );
    assert!(seen.record.stop_latency_ns.is_some() && seen.record.work_ns > 0);
    let pid = std::process::id();
    assert_eq!((seen.main.pid, seen.main.life, seen.side.unwrap().pid), (pid, Life::Running, pid));
    main.open(1_000);
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(side.pass_within(0, 1), None);
    assert_eq!(
        (state(), status(&path).unwrap().record.left_ns.unwrap() < 0),
        (GateState::Armed, true),
        "it came too late"
    );
    drop(side);
    assert_eq!(state(), GateState::Idle);
    main.shut_down();
    assert!(status(&path).unwrap().record.shut_down);
}

/// Whatever stands on a page, who looks on gets an answer: extremes and small numbers on every word.
#[test]
fn a_page_of_any_content_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut random = SplitMix(11);
    for _ in 0..3000 {
        let mut bytes = [0u8; page::PAGE_BYTES];
        for word in bytes.chunks_exact_mut(4) {
            let value = match random.below(5) {
                0 => 0,
                1 => 1 + random.below(5) as u32,
                2 => u32::MAX - random.below(3) as u32,
                3 => 1 << random.below(32),
                _ => random.below(1 << 31) as u32,
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
        bytes[..8].copy_from_slice(b"BBGATE01");
        bytes[8..16].copy_from_slice(&[2, 0, 0, 0, 0, 16, 0, 0]);
        bytes[40..48].copy_from_slice(&process::time_namespace().to_le_bytes());
        if random.below(2) == 0 {
            bytes[48] = random.below(2) as u8;
            bytes[49..56].fill(0);
        }
        std::fs::write(&path, bytes).unwrap();
        let seen = status(&path).unwrap();
        let record = &seen.record;
        assert_eq!((record.schema.as_str(), record.main_pid), ("bubblebench.gate/1", seen.main.pid));
        assert!(serde_json::to_string(&record).unwrap().len() < 1000);
    }
}
