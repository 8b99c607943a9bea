//! The gate between two processes, one of which is killed or suspended in the middle, or lives in another container.
//!
//! The second process is this test program once more, told by the environment to play `child_process`.

use assert_cmd::cargo::CommandCargoExt;
use bubblebench::corun::gate::lock;
use bubblebench::corun::gate::process::Life;
use bubblebench::corun::gate::{self, GateState, MainEnd, Pass, Stop};
use bubblebench::corun::time::now_ns;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

const LONG: u64 = 20_000_000_000;
/// The exit code of a side whose place another took, or which was refused.
const LOST: i32 = 42;

/// Not a test when run by hand: it returns at once.
#[test]
fn child_process() {
    let (Ok(role), Ok(path)) = (std::env::var("GATE_TEST_ROLE"), std::env::var("GATE_TEST_PATH")) else { return };
    let path = Path::new(&path);
    match role.as_str() {
        "side" => {
            let mut side = gate::attach(path).unwrap();
            let end = loop {
                match side.pass(20_000) {
                    Pass::Go => {
                        std::thread::sleep(Duration::from_micros(20));
                        if side.done().is_err() {
                            break Pass::LeaseLost;
                        }
                    }
                    end => break end,
                }
            };
            std::process::exit(if end == Pass::LeaseLost { LOST } else { 0 });
        }
        "refused side" => {
            let refused = gate::attach(path).err().unwrap().to_string();
            assert!(refused.contains("another time namespace"), "{refused}");
            std::process::exit(LOST);
        }
        "main open" | "main closed" => {
            let mut main = gate::create(path).unwrap();
            main.set_grace(5_000_000);
            if role == "main open" {
                main.open(30_000_000);
            }
            std::thread::sleep(Duration::from_secs(60));
        }
        "main executes" => {
            let _main = gate::create(path).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            panic!("{}", Command::new("sleep").arg("60").exec());
        }
        "main forks" => {
            let _main = gate::create(path).unwrap();
            // SAFETY: the child only waits, and leaves by _exit.
            if unsafe { libc::fork() } == 0 {
                std::thread::sleep(Duration::from_secs(20));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) };
            }
            std::thread::sleep(Duration::from_secs(60));
        }
        "refused main" => {
            let refused = gate::create(path).err().unwrap().to_string();
            assert!(refused.contains("already has a main program"), "{refused}");
            let refused = gate::status(path).err().unwrap().to_string();
            assert!(refused.contains("another time namespace"), "{refused}");
            std::process::exit(LOST);
        }
        "main works" => {
            let mut main = gate::create(path).unwrap();
            loop {
                main.open(500_000);
                std::thread::sleep(Duration::from_micros(300));
                main.close();
                std::thread::sleep(Duration::from_micros(100));
            }
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

impl Killed {
    /// Without waiting for it, as a container's manager would.
    fn signal(&self, signal: libc::c_int) {
        // SAFETY: sends a signal to a child that nobody has waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as libc::pid_t, signal) }, 0);
    }

    fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("its end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

fn start(role: &str, path: &Path) -> Killed {
    start_within(&[], role, path)
}

/// Started by a command such as `unshare`.
fn start_within(within: &[&str], role: &str, path: &Path) -> Killed {
    let own = std::env::current_exe().unwrap();
    let mut command = match within {
        [] => Command::new(own),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(own);
            command
        }
    };
    let child = command
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
    let _ = side.pass(0);
    let killed = now_ns();
    main.0.kill().unwrap();
    // It works on until the expected close and the grace have passed, then learns that nobody is there any more.
    let end = loop {
        match side.pass(0) {
            Pass::Go => side.done().unwrap(),
            end => break end,
        }
    };
    assert_eq!(end, Pass::MainGone);
    assert!(now_ns() - killed < LONG / 2);
    drop(side);
    assert!(path.exists(), "a killed main cannot tidy up");
    assert_eq!(gate::attach(&path).unwrap().pass(0), Pass::MainGone, "a late comer learns it too");
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
    let waiting = std::thread::spawn(move || side.pass(0));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!waiting.is_finished());
    main.0.kill().unwrap();
    let killed = now_ns();
    assert_eq!(waiting.join().unwrap(), Pass::MainGone);
    assert!(now_ns() - killed < LONG / 2);
}

/// The process is there, and its start is the same; the gate ended with the program.
#[test]
fn a_main_that_becomes_another_program_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = start("main executes", &path);
    eventually("the gate", || path.exists());
    let mut side = gate::attach(&path).unwrap();
    assert_eq!(side.pass(0), Pass::MainGone);
    assert_eq!(gate::status(&path).unwrap().main.pid, main.0.id());
    drop(gate::create(&path).unwrap());
}

/// A hundred sides, each killed at a moment of its own: the main never waits beyond what it says, and the next side works.
#[test]
fn sides_are_killed_at_any_moment_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = gate::create(&path).unwrap();
    for round in 0..100u64 {
        let before = main.side_operations();
        let side = start("side", &path);
        let mut bubbles = 0;
        let last = |main: &MainEnd| main.side_operations() > before;
        while !last(&main) || bubbles < 3 {
            main.open(2_000_000);
            std::thread::sleep(Duration::from_micros(300));
            main.close();
            let begun = now_ns();
            main.wait_stopped(5_000_000);
            assert!(now_ns() - begun < 1_000_000_000);
            bubbles += 1;
            assert!(bubbles < 20_000, "round {round}: the side does not come to work");
        }
        main.open(LONG);
        std::thread::sleep(Duration::from_nanos(round * 7_919 % 400_000));
        side.signal(libc::SIGKILL);
        main.close();
    }
    eventually("nobody", || gate::status(&path).unwrap().record.state == GateState::Idle);
}

/// A hundred mains, each killed at a moment of its own: the side learns it, and the next main takes the path over.
#[test]
fn mains_are_killed_at_any_moment_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    for round in 0..100u64 {
        let main = start("main works", &path);
        let own = u64::from(main.0.id());
        eventually("the gate", || gate::status(&path).is_ok_and(|seen| u64::from(seen.main.pid) == own));
        let mut side = gate::attach(&path).unwrap();
        let kill_at = now_ns() + 2_000_000 + round * 7_919 % 1_000_000;
        let mut killed = false;
        loop {
            if !killed && now_ns() >= kill_at {
                main.signal(libc::SIGKILL);
                killed = true;
            }
            match side.pass_within(1_000, 1_000_000) {
                Some(Pass::Go) => side.done().unwrap(),
                None => {}
                Some(end) => {
                    assert_eq!((end, killed), (Pass::MainGone, true), "round {round}");
                    break;
                }
            }
            assert!(now_ns() < kill_at + LONG, "round {round}: the end of the main is not noticed");
        }
    }
}

#[test]
fn a_suspended_side_loses_its_place_and_knows_it_when_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = gate::create(&path).unwrap();
    let mut first = start("side", &path);
    one_bubble(&mut main);
    main.open(LONG);
    first.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(20));
    main.close();
    // It may have stood still when it was stopped; the main does not wait for it beyond what it says.
    let begun = now_ns();
    main.wait_stopped(5_000_000);
    assert!(now_ns() - begun < 1_000_000_000);
    let refused = gate::attach(&path).err().unwrap().to_string();
    assert!(refused.contains(&format!("process {}", first.0.id())), "{refused}");
    std::thread::sleep(Duration::from_nanos(gate::LEASE_NS + 100_000_000));
    let mut second = start("side", &path);
    one_bubble(&mut main);
    first.signal(libc::SIGCONT);
    assert_eq!(first.ends().code(), Some(LOST));
    one_bubble(&mut main);
    main.shut_down();
    assert_eq!(second.ends().code(), Some(0));
}

/// A command that starts another in a namespace of its own; `None` where this user may not.
fn namespace(arguments: &'static [&'static str]) -> Option<Vec<&'static str>> {
    let within: Vec<&str> = std::iter::once("unshare").chain(arguments.iter().copied()).collect();
    let allowed = Command::new(within[0]).args(&within[1..]).arg("true").output().is_ok_and(|o| o.status.success());
    if !allowed {
        eprintln!("SKIPPED: `{}` is not allowed here: nothing is tested across namespaces", within.join(" "));
    }
    allowed.then_some(within)
}

/// As in another container: neither end can ask whether the other lives.
const CONTAINER: &[&str] = &["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];

#[test]
fn a_side_killed_in_another_container_is_replaced() {
    let Some(within) = namespace(CONTAINER) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = gate::create(&path).unwrap();
    let first = start_within(&within, "side", &path);
    one_bubble(&mut main);
    main.open(LONG);
    // The first process of the namespace dies with `unshare`.
    first.signal(libc::SIGKILL);
    main.close();
    let killed = now_ns();
    let mut second = gate::attach(&path).unwrap();
    assert!(now_ns() - killed < 2_000_000_000, "replaced after {} ms", (now_ns() - killed) / 1_000_000);
    main.open(LONG);
    assert_eq!(second.pass(0), Pass::Go);
}

#[test]
fn a_main_in_another_container_is_waited_for_and_its_end_is_noticed() {
    let Some(within) = namespace(CONTAINER) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = start_within(&within, "main closed", &path);
    eventually("the gate", || path.exists());
    let mut side = gate::attach(&path).unwrap();
    assert_eq!(side.pass_within(0, 300_000_000), None, "it is silent, and lives");
    let refused = gate::create(&path).err().unwrap().to_string();
    assert!(refused.contains("already has a main program"), "{refused}");
    main.signal(libc::SIGKILL);
    assert_eq!(side.pass(0), Pass::MainGone);
    drop(gate::create(&path).unwrap());
}

#[test]
fn a_side_with_another_clock_is_refused() {
    let Some(within) = namespace(&["--user", "--map-root-user", "--time", "--fork", "--kill-child"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let _main = gate::create(&path).unwrap();
    assert_eq!(start_within(&within, "refused side", &path).ends().code(), Some(LOST));
}

/// Its table of processes tells other starts than the page: the lock alone tells that the main lives.
#[test]
fn a_main_with_another_clock_takes_no_living_ones_place() {
    const CLOCK: &[&str] = &["--user", "--map-root-user", "--time", "--boottime", "100000", "--fork", "--kill-child"];
    let Some(within) = namespace(CLOCK) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = gate::create(&path).unwrap();
    assert_eq!(start_within(&within, "refused main", &path).ends().code(), Some(LOST));
    main.open(LONG);
    assert_eq!(gate::attach(&path).unwrap().pass(0), Pass::Go);
}

/// A data loader's worker, say: it has a copy of the main's mapping, and none of its locks.
#[test]
fn a_killed_mains_child_keeps_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = start("main forks", &path);
    eventually("the gate", || path.exists());
    let file = std::fs::File::open(&path).unwrap();
    assert_eq!(lock::is_held(&file, lock::MAIN), Some(true));
    std::thread::sleep(Duration::from_millis(300));
    main.0.kill().unwrap();
    main.0.wait().unwrap();
    // It lives for 20 s.
    let killed = now_ns();
    eventually("the end of the lock", || lock::is_held(&file, lock::MAIN) == Some(false));
    assert!(now_ns() - killed < 10_000_000_000);
}

fn told(arguments: &[&str], path: &Path) -> (Option<i32>, String, String) {
    let output = Command::cargo_bin("bubblebench").unwrap().args(arguments).arg(path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_person_sees_the_gate_and_is_told_what_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let mut main = gate::create(&path).unwrap();
    let (code, text, _) = told(&["gate", "status"], &path);
    assert!(code == Some(0) && text.contains("idle") && text.contains(&std::process::id().to_string()), "{text}");
    let side = start("side", &path);
    one_bubble(&mut main);
    let (_, text, _) = told(&["gate", "status"], &path);
    assert!(text.contains("stopped") && text.contains(&side.0.id().to_string()), "{text}");
    let (code, json, _) = told(&["gate", "status", "--json"], &path);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["schema"], &json["state"]), (Some(0), &"bubblebench.gate/1".into(), &"stopped".into()));
    assert_eq!(json["main_pid"], std::process::id());
    assert_eq!(json["side_pid"], side.0.id());
    assert!(json["operations"].as_u64().unwrap() > 2 && json["stop_latency_ns"].is_u64(), "{json}");
    main.shut_down();
    let (code, text, _) = told(&["gate", "watch", "--interval", "50ms"], &path);
    assert!(code == Some(0) && text.contains("shut down"), "a watch ends with the gate: {text}");
    drop(main);
    std::fs::write(&path, "no gate").unwrap();
    for (arguments, words) in [(["gate", "status"], "is not a gate page"), (["gate", "watch"], "is not a gate page")] {
        let (code, out, err) = told(&arguments, &path);
        assert!(code == Some(2) && out.is_empty() && err.contains(words) && err.lines().count() == 1, "{err}");
    }
    let (code, _, err) = told(&["gate", "status"], &folder.path().join("none"));
    assert!(code == Some(2) && err.lines().count() == 1, "{err}");
}

/// What a watch writes up to its end, which comes with something that is done meanwhile.
fn watched(path: &Path, meanwhile: impl FnOnce()) -> (Option<i32>, String, String) {
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    command.args(["gate", "watch", "--interval", "20ms"]).arg(path);
    let mut watch = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut out = BufReader::new(watch.0.stdout.take().unwrap());
    let mut text = String::new();
    // It has looked once.
    out.read_line(&mut text).unwrap();
    meanwhile();
    out.read_to_string(&mut text).unwrap();
    let mut err = String::new();
    watch.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (watch.ends().code(), text, err)
}

#[test]
fn a_watch_ends_with_the_gate_whatever_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let main = gate::create(&path).unwrap();
    let (code, text, err) = watched(&path, || drop(main));
    assert!(code == Some(0) && text.starts_with("idle, 0 openings") && err.contains("its main has ended"), "{err}");

    let child = start("main closed", &path);
    eventually("the gate", || path.exists());
    let (code, _, err) = watched(&path, || child.signal(libc::SIGKILL));
    assert!(code == Some(0) && err.contains(&format!("(process {}) is gone", child.0.id())), "{err}");

    // Replaced between two looks: as by a rename of another main's page.
    let other = folder.path().join("other");
    let _living = start("main closed", &path);
    let _child = start("main closed", &other);
    eventually("the gates", || gate::status(&path).is_ok_and(|seen| seen.main.life == Life::Running) && other.exists());
    let (code, _, err) = watched(&path, || std::fs::rename(&other, &path).unwrap());
    assert!(code == Some(0) && err.contains("has made a new gate at"), "{err}");

    let (code, _, err) = watched(&path, || std::fs::write(&path, "rubbish").unwrap());
    assert!(code == Some(2) && err.contains("is not a gate page"), "{err}");
}

#[test]
fn a_watch_that_nobody_reads_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let _main = gate::create(&path).unwrap();
    let mut command = Command::cargo_bin("bubblebench").unwrap();
    command.args(["gate", "watch", "--interval", "10ms"]).arg(&path);
    let mut watch = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(watch.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(watch.ends().code(), Some(0));
}
