//! What is printed on a screen: no line is wider than it, nothing is drawn where nothing can be drawn, and only characters
//! that it shows are used.

#[allow(dead_code)]
#[path = "golden/hold.rs"]
mod hold;
#[allow(dead_code)]
#[path = "traces/recording.rs"]
mod recording;

use assert_cmd::Command;
use bubblebench::cli::Cli;
use bubblebench::pipeline::ScheduleName;
use clap::CommandFactory;
use hold::ROOT;
use std::path::Path;
use tempfile::TempDir;

const PUBLISHED: &str = "results/published/amd-epyc-2c";

/// A line a command, whose answers hold every table, timeline and list that the program prints without a GPU.
const COMMANDS: &str = "
plan examples/gpt-a100-8.toml
plan examples/gpt-a100-4x8.toml
plan examples/gpt-rtx3090-4.toml
plan examples/gpt-a100-4x8.toml --sweep
plan examples/steps-against-segments.toml --segments
plan examples/gpt-rtx3090-4.toml --sweep
predict --cost-model MODEL layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2
predict --cost-model MODEL collective --operation all_reduce --ranks 8 --bytes 1GiB
predict --cost-model MODEL corun --main gpt-h512-a8-s128-b1-t1-f32-forward --side mlp-b32 --sharing free
fit --results MEASURED
import --from nccl-tests MEASURED/ours.log --results MEASURED/imported --machine again
bubbles MEASURED/rank0.sqlite
doctor
doctor --kernels
measure --list --device host --preset quick
";

/// A folder with the published measurements, their collectives as nccl-tests prints them, and a profile.
fn measured() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["measurements.jsonl", "machine.json"] {
        std::fs::copy(Path::new(ROOT).join(PUBLISHED).join(file), folder.path().join(file)).unwrap();
    }
    let export = hold::run(Path::new(ROOT), &["export", "--to", "nccl-tests", "--results", PUBLISHED]);
    std::fs::write(folder.path().join("ours.log"), export.stdout).unwrap();
    let mut run = recording::Recording::default();
    run.range(0, 9_990_000, "iteration 0");
    run.kernel(1_000, 3_000_000, 7, "sm80_gemm_tn");
    run.kernel(3_400_000, 5_000_000, 7, "flash_fwd_kernel");
    run.nsys(folder.path(), "rank0.sqlite");
    folder
}

fn commands(folder: &Path) -> Vec<Vec<String>> {
    let fill = |word: &str| {
        word.replace("MODEL", &format!("{PUBLISHED}/cost_model.json")).replace("MEASURED", folder.to_str().unwrap())
    };
    let mut all: Vec<Vec<String>> = COMMANDS.trim().lines().map(|line| line.split(' ').map(fill).collect()).collect();
    for name in ScheduleName::ALL {
        let times = "--forward 2ms --backward-input 1.9ms --backward-weight 900us --send-recv 50us";
        let line = format!("simulate --schedule {} --stages 4 --micro-batches 8 {times}", name.text());
        all.push(line.split(' ').map(String::from).collect());
    }
    all
}

fn answer(mut command: Command, arguments: &[String]) -> String {
    let output = command.args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{arguments:?} draws into a pipe");
    String::from_utf8(output.stdout).unwrap()
}

fn program(set: &[(&str, &str)]) -> Command {
    let mut command = hold::program(Path::new(ROOT));
    command.envs(set.iter().copied());
    command
}

/// Names of files and cases are never broken; no other line may be wider.
fn fits(line: &str, columns: usize) -> bool {
    line.chars().count() <= columns || !line.trim().contains(' ')
}

#[test]
fn no_line_is_wider_than_80_columns() {
    let folder = measured();
    for arguments in commands(folder.path()) {
        let text = answer(program(&[("COLUMNS", "80")]), &arguments);
        for line in text.lines() {
            assert!(fits(line, 80), "{arguments:?}: {} columns: {line}", line.chars().count());
        }
    }
}

#[test]
fn tables_of_a_run_fit_80_columns_and_cut_no_number() {
    let folder = measured();
    let import = |columns| {
        let words = ["import", "--from", "nccl-tests", "ours.log", "--results", "out", "--machine", "again"];
        let mut command = hold::program(folder.path());
        command.env("COLUMNS", columns);
        answer(command, &words.map(String::from))
    };
    let (narrow, wide) = (import("80"), import("400"));
    for line in narrow.lines() {
        assert!(fits(line, 80), "{line}");
    }
    assert!(narrow.contains("left out at 80 columns: ") && !wide.contains("left out at"), "{narrow}");
    let numbers =
        |text: &str| text.split_whitespace().filter(|w| w.parse::<f64>().is_ok()).map(String::from).collect::<Vec<_>>();
    let all = numbers(&wide);
    for number in numbers(&narrow).into_iter().filter(|number| number != "80") {
        assert!(all.contains(&number), "{number} stands on the narrow screen only: it was cut");
    }
}

#[test]
fn every_help_fits_80_columns() {
    fn walk(command: &clap::Command, path: &[String]) {
        let arguments: Vec<String> = path.iter().cloned().chain(["--help".to_string()]).collect();
        let text = answer(program(&[("COLUMNS", "80")]), &arguments);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
            assert!(line.is_ascii(), "{arguments:?}: help is the same on every screen: {line}");
        }
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{arguments:?} does not say what {} is", argument.get_id());
        }
        for below in command.get_subcommands() {
            walk(below, &[path, &[below.get_name().to_string()]].concat());
        }
    }
    walk(&Cli::command(), &[]);
}

#[test]
fn a_locale_without_utf_8_is_answered_in_ascii() {
    let folder = measured();
    for arguments in commands(folder.path()).iter().filter(|arguments| arguments[0] != "doctor") {
        for set in [[("LC_ALL", "C")], [("LC_ALL", "de_DE.ISO-8859-1")]] {
            let text = answer(program(&set), arguments);
            let other: String = text.chars().filter(|c| !c.is_ascii()).collect();
            assert!(other.is_empty(), "{arguments:?}: {other} in:\n{text}");
        }
    }
}

#[test]
fn errors_are_in_ascii_too() {
    let sizes = ["simulate", "--schedule", "1f1b", "--stages", "100000", "--micro-batches", "100000"];
    let times = ["--forward", "2us", "--backward-input", "2us", "--backward-weight", "1us"];
    for (set, sign) in [([("LC_ALL", "C")], 'x'), ([("LC_ALL", "C.UTF-8")], '×')] {
        let output = program(&set).args(sizes).args(times).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(&format!("100000 stages {sign} ")), "{text}");
    }
}

#[test]
fn a_locale_with_utf_8_keeps_its_lines_and_signs() {
    let arguments = ["simulate", "--schedule", "1f1b", "--stages", "2", "--micro-batches", "2"];
    let times = ["--forward", "2us", "--backward-input", "2us", "--backward-weight", "1us"];
    let words: Vec<String> = arguments.iter().chain(&times).map(|word| (*word).to_string()).collect();
    let mut by_lang = program(&[("LANG", "en_US.UTF-8")]);
    by_lang.env_remove("LC_ALL").env_remove("LC_CTYPE");
    let text = answer(by_lang, &words);
    assert!(text.contains('│') && text.contains("µs") && text.contains('·'), "{text}");
    let ascii = answer(program(&[("LC_ALL", "C")]), &words);
    assert!(ascii.contains("0 |") && ascii.contains("us") && ascii.contains('+'), "{ascii}");
}

/// `script` gives the program a terminal of 80 columns; where it is not installed there is nothing to try.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_is_drawn_upon_only_without_no_color() {
    let in_terminal = |set: &[(&str, &str)], line: &str| {
        let program = assert_cmd::cargo::cargo_bin("bubblebench");
        let line = format!("stty cols 80; {} {line}", program.display());
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).current_dir(ROOT).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        command.env_remove("COLUMNS").env_remove("NO_COLOR").envs(set.iter().copied());
        command.stdin(std::process::Stdio::null()).output().ok()
    };
    let folder = tempfile::tempdir().unwrap();
    let measure = format!(
        "measure collectives all_reduce/r2/f32/8B --preset quick --device host --results {}",
        folder.path().display()
    );
    let Some(drawn) = in_terminal(&[], &measure) else { return };
    assert!(drawn.stdout.contains(&0x1b), "a progress bar is drawn: {}", String::from_utf8_lossy(&drawn.stdout));
    let output = in_terminal(&[("NO_COLOR", "1")], &(measure.clone() + " --fresh")).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("Collectives"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    for line in ["measure --help", "measure nonsense"] {
        let output = in_terminal(&[("NO_COLOR", "1")], line).unwrap();
        assert!(!output.stdout.contains(&0x1b), "{line}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let output = in_terminal(&[], "plan examples/gpt-a100-8.toml").unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let table = text.lines().find(|line| line.starts_with('┌')).unwrap_or_else(|| panic!("{text}"));
    assert!(table.trim_end().chars().count() <= 80 && text.contains("left out at 80 columns"), "{text}");
}
