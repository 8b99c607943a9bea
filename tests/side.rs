//! `bubblebench side`: a small model in a process of its own, in the bubbles of this program or of one that is killed.
//!
//! The main that is killed is this test program once more, told by the environment to play `child_process`.

use bubblebench::corun::gate::{self, GateState, MainEnd};
use bubblebench::corun::time::{now_ns, wait_until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const LONG: u64 = 60_000_000_000;

/// Not a test when run by hand: it returns at once.
#[test]
fn child_process() {
    let Ok(path) = std::env::var("SIDE_TEST_GATE") else { return };
    let mut main = gate::create(Path::new(&path)).unwrap();
    loop {
        main.open(200_000_000);
        std::thread::sleep(Duration::from_millis(200));
        main.close();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A side that is killed where its test fails.
struct Side(Option<Child>);

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Side {
    fn start(gate: &Path, arguments: &[&str]) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_bubblebench")), gate, arguments)
    }

    fn of(mut command: Command, gate: &Path, arguments: &[&str]) -> Self {
        // At the tests' own niceness: with others beside them they would wait for it.
        command.args(["side", "--nice", "0", "--gate"]).arg(gate).args(arguments).env("LC_ALL", "C.UTF-8");
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Side(Some(piped.spawn().unwrap()))
    }

    fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: sends a signal to a child that nobody has waited for.
        assert_eq!(unsafe { libc::kill(self.pid() as libc::pid_t, signal) }, 0);
    }

    /// Returns once the main sees this side ready to work.
    fn ready(&mut self, gate: &Path) {
        let pid = self.pid();
        eventually("the side", || {
            let ended = self.0.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ends before it is ready: {}", text(&self.ends()));
            gate::status(gate).is_ok_and(|seen| seen.side.is_some_and(|side| side.pid == pid))
        });
    }

    /// Its exit code and what it said, once it has ended of itself.
    fn ends(&mut self) -> Output {
        eventually("its end", || self.0.as_mut().unwrap().try_wait().unwrap().is_some());
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = now_ns();
    while !holds() {
        assert!(now_ns() - begun < LONG / 3, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn text(output: &Output) -> String {
    format!("{:?}\n{}{}", output.status, stdout(output), String::from_utf8_lossy(&output.stderr))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line of an error, behind notes.
fn error_of(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let errors: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("note: ")).collect();
    assert!(output.status.code() == Some(2) && errors.len() == 1, "{}", text(output));
    errors[0].to_string()
}

/// The number in front of a word of a summary.
fn number(summary: &str, word: &str) -> u64 {
    // One step is no steps.
    let one = format!(" {}", word.trim_end_matches('s'));
    let (before, _) = summary.split_once(&one).unwrap_or_else(|| panic!("no {word} in: {summary}"));
    before.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("no number of {word} in: {summary}"))
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    (folder, gate)
}

fn words(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

/// Bubbles of 20 ms, a third of which are never closed in time: at most the operation in flight ends behind the expected
/// close, and none starts.
#[test]
fn it_trains_in_the_bubbles_starts_nothing_late_and_ends_with_its_main() {
    let (_folder, path) = folder();
    let mut main = gate::create(&path).unwrap();
    let mut side = Side::start(&path, &["--model", "lstm", "--batch", "2"]);
    side.ready(&path);
    assert_eq!(main.side_operations(), 0, "what is timed beforehand does not count");
    let mut used = 0;
    for bubble in 0..24 {
        let before = main.side_operations();
        main.open(20_000_000);
        let close = main.opened_at() + 20_000_000;
        wait_until(close);
        if bubble % 3 > 0 {
            main.close();
            wait_until(close + 3_000_000);
        } else {
            let at_close = main.side_operations();
            wait_until(close + 12_000_000);
            let late = main.side_operations() - at_close;
            assert!(late <= 1, "bubble {bubble}: {late} operations behind the expected close");
            main.close();
        }
        used += u64::from(main.side_operations() > before);
    }
    // Most of them on a quiet machine.
    assert!(used >= 4 && main.self_stops() >= 1, "{used} bubbles used, {} self-stops", main.self_stops());
    main.shut_down();
    let shut = now_ns();
    let output = side.ends();
    assert!(now_ns() - shut < 5_000_000_000);
    let (summary, operations) = (stdout(&output), main.side_operations());
    assert!(output.status.code() == Some(0) && summary.lines().count() == 1, "{}", text(&output));
    assert!(summary.starts_with("lstm-b2: ") && summary.contains("loss "), "{summary}");
    assert_eq!(number(&summary, "operations"), operations);
    assert_eq!(number(&summary, "openings"), 24);
    assert!(number(&summary, "steps") >= 1, "{summary}");
}

#[test]
fn a_main_that_is_killed_ends_it_and_what_was_learned_is_kept() {
    let (folder, path) = folder();
    let checkpoint = folder.path().join("mlp.safetensors");
    let own = std::env::current_exe().unwrap();
    let mut main = Command::new(own)
        .args(["child_process", "--exact", "--nocapture"])
        .env("SIDE_TEST_GATE", &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Started before there is a gate, as it may be in a script.
    let mut side = Side::start(&path, &["--model", "mlp", "--batch", "1", "--checkpoint", &words(&checkpoint)]);
    side.ready(&path);
    eventually("work", || gate::status(&path).unwrap().record.operations > 100);
    main.kill().unwrap();
    main.wait().unwrap();
    let killed = now_ns();
    let output = side.ends();
    assert!(now_ns() - killed < 5_000_000_000);
    let error = error_of(&output);
    assert!(error.contains("main program behind the gate has died"), "{error}");
    assert!(number(&stdout(&output), "steps") > 0 && checkpoint.exists(), "{}", text(&output));

    // What the dead main left at the path is no gate to work behind: the next main's is waited for.
    let again = ["--model", "mlp", "--batch", "1", "--wait", "0.1"];
    let error = error_of(&Side::start(&path, &again).ends());
    assert!(error.contains("its main has ended, and no other came within 0.100 s"), "{error}");
}

#[test]
fn a_signal_ends_it_in_good_order_at_work_and_at_a_closed_gate() {
    let (folder, path) = folder();
    let mut main = gate::create(&path).unwrap();
    for (open, signal) in [(true, libc::SIGTERM), (false, libc::SIGTERM), (true, libc::SIGINT)] {
        let checkpoint = folder.path().join(format!("{open}-{signal}"));
        let mut side = Side::start(&path, &["--model", "mlp", "--batch", "1", "--checkpoint", &words(&checkpoint)]);
        side.ready(&path);
        let before = main.side_operations();
        if open {
            main.open(LONG);
            eventually("work", || main.side_operations() > before + 50);
        }
        side.signal(signal);
        let output = side.ends();
        assert!(output.status.code() == Some(0) && checkpoint.exists(), "{}", text(&output));
        assert_eq!(number(&stdout(&output), "steps") > 0, open);
        main.close();
    }
    eventually("its place to be free", || gate::status(&path).unwrap().record.state == GateState::Idle);
}

fn train(main: &mut MainEnd, path: &Path, arguments: &[&str]) -> Output {
    main.open(LONG);
    let output = Side::start(path, arguments).ends();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    output
}

#[test]
fn a_resumed_training_is_bit_by_bit_one_that_never_stopped() {
    let (folder, path) = folder();
    let mut main = gate::create(&path).unwrap();
    for model in ["mlp", "convnet"] {
        let file = |name: &str| words(&folder.path().join(format!("{model}-{name}")));
        let (straight, parts) = (file("straight"), file("parts"));
        let common = ["--model", model, "--batch", "1", "--seed", "7", "--steps"];
        train(&mut main, &path, &[&common[..], &["6", "--checkpoint", &straight]].concat());
        // The same command line twice, but for the steps: the first begins.
        train(&mut main, &path, &[&common[..], &["3", "--checkpoint", &parts, "--resume"]].concat());
        let over = [&common[..], &["6", "--checkpoint", &parts]].concat();
        let error = error_of(&Side::start(&path, &over).ends());
        assert!(error.contains("does not write over it; give --resume"), "{error}");
        assert_ne!(std::fs::read(&straight).unwrap(), std::fs::read(&parts).unwrap());
        let output = train(&mut main, &path, &[&common[..], &["6", "--checkpoint", &parts, "--resume"]].concat());
        assert_eq!(number(&stdout(&output), "steps"), 3, "those of this run");
        assert!(std::fs::read(&straight).unwrap() == std::fs::read(&parts).unwrap(), "{model} differs");
    }
}

/// Shut down within a step: what is kept is what so many whole steps give, whether the end comes before the update or in it.
#[test]
fn whatever_the_end_catches_the_checkpoint_is_of_a_whole_step() {
    let (folder, path) = folder();
    let file = |name: &str| words(&folder.path().join(name));
    let (caught, straight) = (file("caught"), file("straight"));
    let common = ["--model", "mlp", "--batch", "1", "--checkpoint"];
    // Of 21 operations the last six are the update.
    for operations in [21 + 8, 21 + 16, 21 + 19] {
        let _ = (std::fs::remove_file(&caught), std::fs::remove_file(&straight));
        let mut main = gate::create(&path).unwrap();
        let mut side = Side::start(&path, &[&common[..], &[&caught]].concat());
        side.ready(&path);
        main.open(LONG);
        while main.side_operations() < operations {
            std::hint::spin_loop();
        }
        main.shut_down();
        let steps = number(&stdout(&side.ends()), "steps").to_string();
        drop(main);
        let mut main = gate::create(&path).unwrap();
        train(&mut main, &path, &[&common[..], &[&straight, "--steps", &steps]].concat());
        assert!(std::fs::read(&caught).unwrap() == std::fs::read(&straight).unwrap(), "{operations}: {steps} steps");
    }
}

#[test]
fn wrong_names_and_numbers_are_answered_in_one_line() {
    let (folder, path) = folder();
    let refused = |arguments: &[&str]| error_of(&Side::start(&path, arguments).ends());
    let error = refused(&["--model", "mpl"]);
    assert!(error.contains("did you mean `mlp`? known are mlp, convnet, lstm, gpt"), "{error}");
    let error = refused(&["--model", "mlp", "--wait", "0.2"]);
    assert!(error.contains("gate: no gate was made there within 0.200 s"), "{error}");
    assert!(refused(&["--model", "mlp", "--batch", "0"]).contains("give 1 to 4096"));
    assert!(refused(&["--model", "mlp", "--threads", "5000"]).contains("--threads 5000"));
    assert!(refused(&["--model", "mlp", "--wait", "nan"]).contains("--wait NaN is no time"));
    let nowhere = words(&folder.path().join("none/a"));
    assert!(refused(&["--model", "mlp", "--checkpoint", &nowhere]).contains("cannot write"));
    let lost = error_of(&Side::start(&folder.path().join("none/gate"), &["--model", "mlp"]).ends());
    assert!(lost.contains("there is no folder for the gate") && lost.contains("none/gate; check the path"), "{lost}");
    std::fs::write(&path, "no gate").unwrap();
    assert!(refused(&["--model", "mlp"]).contains("gate"), "what is no gate is not waited for");
    assert_eq!(std::fs::read(&path).unwrap(), b"no gate");
}

#[test]
fn a_second_side_is_refused_and_openings_that_never_fit_are_named() {
    let (_folder, path) = folder();
    let mut main = gate::create(&path).unwrap();
    let mut side = Side::start(&path, &["--model", "mlp", "--batch", "16"]);
    side.ready(&path);
    let error = error_of(&Side::start(&path, &["--model", "mlp"]).ends());
    assert!(error.contains(&format!("already has a side program (process {})", side.pid())), "{error}");
    while side.0.as_mut().unwrap().try_wait().unwrap().is_none() {
        main.open(11_000);
        std::thread::sleep(Duration::from_millis(2));
        main.close();
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = error_of(&side.ends());
    assert!(error.contains("an operation takes") && error.contains("had more than 1.000 µs"), "{error}");
    assert_eq!(main.side_operations(), 0);
}

#[test]
fn bad_checkpoints_are_refused_before_anything_is_trained() {
    let (folder, path) = folder();
    let mut main = gate::create(&path).unwrap();
    let good = folder.path().join("good");
    train(&mut main, &path, &["--model", "mlp", "--batch", "1", "--steps", "1", "--checkpoint", &words(&good)]);
    let bytes = std::fs::read(&good).unwrap();
    let bad = folder.path().join("bad");
    let refused = |model: &[&str]| {
        let file = words(&bad);
        let arguments = [&["--checkpoint", &file, "--resume", "--steps", "2"], model].concat();
        error_of(&Side::start(&path, &arguments).ends())
    };
    let mlp = ["--model", "mlp", "--batch", "1"];
    for content in [&b""[..], b"not a checkpoint, and long enough for a header", &bytes[..bytes.len() / 2]] {
        std::fs::write(&bad, content).unwrap();
        let error = refused(&mlp);
        assert!(error.contains("bad is not a whole safetensors file"), "{error}");
    }
    let change = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        std::fs::write(&bad, [&bytes[..at], to, &bytes[at + from.len()..]].concat()).unwrap();
    };
    change(b"checkpoint/1", b"checkpoint/9");
    assert!(refused(&mlp).contains("update bubblebench"));
    change(b"\"fc1.bias\"", b"\"fc1.bios\"");
    assert!(refused(&mlp).contains("no tensor `fc1.bias`"));
    change(b"\"steps\":\"1\"", b"\"steps\":\"x\"");
    assert!(refused(&mlp).contains("does not say its steps"));
    change(b"mlp-b1", b"mlp-b1");
    assert!(refused(&["--model", "lstm"]).contains("of `mlp-b1`, not of lstm-b16; give --model mlp --batch 1"));
}

/// A full disk, played by a limit to the size of files, and by the device that is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
    let (folder, path) = folder();
    let mut main = gate::create(&path).unwrap();
    let file = folder.path().join("mlp");
    let name = words(&file);
    let arguments = ["--model", "mlp", "--batch", "1", "--checkpoint", &name, "--steps"];
    train(&mut main, &path, &[&arguments[..], &["1"]].concat());
    let before = std::fs::read(&file).unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_bubblebench")]);
    let output = Side::of(limited, &path, &[&arguments[..], &["2", "--resume"]].concat()).ends();
    assert!(error_of(&output).contains("cannot write"), "{}", text(&output));
    assert!(stdout(&output).contains("1 step,"), "what was done is said: {}", text(&output));
    assert!(std::fs::read(&file).unwrap() == before);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the gate and the checkpoint: {left:?}");
    let full = ["--model", "mlp", "--batch", "1", "--steps", "1", "--checkpoint", "/dev/full"];
    let error = error_of(&Side::start(&path, &full).ends());
    assert!(error.contains("cannot write /dev/full") && error.contains("free some space"), "{error}");
}
