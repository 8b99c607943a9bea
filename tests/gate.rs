//! The gate between two processes, one of which is killed in the middle.
//!
//! The second process is this test program once more, told by the environment to play `child_process`.

use bubblebench::corun::gate::{self, MainEnd, Pass, Stop};
use bubblebench::corun::time::now_ns;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LONG: u64 = 20_000_000_000;

/// Not a test when run by hand: it returns at once.
#[test]
fn child_process() {
    let (Ok(role), Ok(path)) = (std::env::var("GATE_TEST_ROLE"), std::env::var("GATE_TEST_PATH")) else { return };
    let path = Path::new(&path);
    match role.as_str() {
        "side" => {
            let mut side = gate::attach(path).unwrap();
            while side.pass() == Pass::Go {
                std::thread::sleep(Duration::from_micros(20));
                side.done();
            }
        }
        "main open" | "main closed" => {
            let mut main = gate::create(path).unwrap();
            main.set_grace(5_000_000);
            if role == "main open" {
                main.open(30_000_000);
            }
            std::thread::sleep(Duration::from_secs(60));
        }
        other => panic!("{other} is not a role"),
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(role: &str, path: &Path) -> Killed {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child_process", "--exact", "--nocapture", "--test-threads=1"])
        .env("GATE_TEST_ROLE", role)
        .env("GATE_TEST_PATH", path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Killed(child)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = now_ns();
    while !holds() {
        assert!(now_ns() - begun < LONG, "{what} did not come about");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Opens until the side has done something, closes, and waits for it to stand still.
fn one_bubble(main: &mut MainEnd) {
    let before = main.side_operations();
    main.open(LONG);
    eventually("work", || main.side_operations() > before + 2);
    main.close();
    assert!(matches!(main.wait_stopped(LONG), Stop::Stopped { .. }));
    let at = main.side_operations();
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(main.side_operations(), at, "an acknowledged side stands still");
}

#[test]
fn two_processes_share_the_gate_and_a_killed_side_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = gate::create(&path).unwrap();
    let mut side = start("side", &path);
    for _ in 0..50 {
        one_bubble(&mut main);
    }
    main.open(LONG);
    let before = main.side_operations();
    eventually("work", || main.side_operations() > before);
    side.0.kill().unwrap();
    main.close();
    let begun = now_ns();
    // Killed between two operations it may still have acknowledged; it never counts as running.
    let answer = main.wait_stopped(LONG);
    assert!(matches!(answer, Stop::Absent | Stop::Stopped { .. }), "{answer:?}");
    assert!(now_ns() - begun < LONG / 2, "noticed long before the deadline");

    // Its place is free for another one.
    eventually("the end of the first", || side.0.try_wait().unwrap().is_some());
    let mut second = start("side", &path);
    one_bubble(&mut main);
    main.shut_down();
    eventually("the side's own end", || second.0.try_wait().unwrap().is_some());
}

#[test]
fn a_main_killed_with_the_gate_open_stops_the_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = start("main open", &path);
    eventually("the gate", || path.exists());
    let mut side = gate::attach(&path).unwrap();
    // Every answer may already be the end where this machine is slow: the gate was open for 35 ms only.
    let _ = side.pass();
    let killed = now_ns();
    main.0.kill().unwrap();
    // It works on until the expected close and the grace have passed, then learns that nobody is there any more.
    let end = loop {
        match side.pass() {
            Pass::Go => side.done(),
            end => break end,
        }
    };
    assert_eq!(end, Pass::MainGone);
    assert!(now_ns() - killed < LONG / 2);
    drop(side);
    assert!(path.exists(), "a killed main cannot tidy up");
    assert_eq!(gate::attach(&path).unwrap().pass(), Pass::MainGone, "a late comer learns it too");
    drop(gate::create(&path).unwrap());
    assert!(!path.exists(), "the next main takes the path over");
}

#[test]
fn a_main_killed_with_the_gate_closed_ends_the_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = start("main closed", &path);
    eventually("the gate", || path.exists());
    let mut side = gate::attach(&path).unwrap();
    let waiting = std::thread::spawn(move || side.pass());
    std::thread::sleep(Duration::from_millis(20));
    assert!(!waiting.is_finished());
    main.0.kill().unwrap();
    let killed = now_ns();
    assert_eq!(waiting.join().unwrap(), Pass::MainGone);
    assert!(now_ns() - killed < LONG / 2);
}
