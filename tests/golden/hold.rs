//! How a golden file is made and held.

use assert_cmd::Command;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// One golden file. Its content is made when it is held, so that the names alone cost nothing.
pub struct Golden {
    name: String,
    make: Box<dyn Fn() -> String>,
}

impl Golden {
    /// `name` is the file's, without `.snap`.
    pub fn new(name: impl Into<String>, make: impl Fn() -> String + 'static) -> Golden {
        Golden { name: name.into(), make: Box::new(make) }
    }

    pub fn file(&self) -> String {
        format!("{}.snap", self.name)
    }
}

/// Holds all of them; one that differs does not hide the next.
pub fn hold(goldens: Vec<Golden>) {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(FOLDER);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut differ = Vec::new();
    for golden in goldens {
        let held = catch_unwind(AssertUnwindSafe(|| {
            let text = (golden.make)();
            settings.bind(|| insta::assert_snapshot!(golden.name.as_str(), text));
        }));
        if held.is_err() {
            differ.push(golden.file());
        }
    }
    let how = "to take them over: INSTA_UPDATE=always cargo test --test golden, then git diff tests/golden";
    assert!(differ.is_empty(), "differ or failed: {}; {how}", differ.join(" "));
}

/// The program in a folder, with nothing of the caller's environment: width, colours and language would show.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("bubblebench"));
    command.env_clear().env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.current_dir(folder).timeout(Duration::from_secs(120));
    command
}

/// `$ bubblebench …`, as it can be typed.
pub fn typed(arguments: &[&str]) -> String {
    let quoted = |argument: &&str| match argument.is_empty() || argument.contains([' ', '*', '"', '|']) {
        true => format!("'{argument}'"),
        false => (*argument).to_string(),
    };
    let words: Vec<String> = arguments.iter().map(quoted).collect();
    format!("$ bubblebench {}\n", words.join(" "))
}

pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().unwrap()
}

/// The command, what it prints, and its notes if it has any. It must succeed.
pub fn text(folder: &Path, arguments: &[&str]) -> String {
    text_of(program(folder), arguments)
}

/// The same on a screen of 80 columns.
pub fn narrow(folder: &Path, arguments: &[&str]) -> String {
    let mut program = program(folder);
    program.env("COLUMNS", "80");
    text_of(program, arguments)
}

fn text_of(mut program: Command, arguments: &[&str]) -> String {
    let output = program.args(arguments).output().unwrap();
    // insta compares without the space at the end.
    assert!(output.stdout.ends_with(b"\n"), "{arguments:?}: the answer's last line has no end");
    let text = typed(arguments) + &unversioned(&stdout(&output, arguments));
    let notes = String::from_utf8(output.stderr).unwrap();
    if notes.is_empty() { text } else { format!("{text}\non stderr:\n{notes}") }
}

/// The same of JSON, laid out so that a diff shows the value that changed.
pub fn json(folder: &Path, arguments: &[&str]) -> String {
    typed(arguments) + &laid_out(&stdout(&run(folder, arguments), arguments), 12)
}

/// A release is no change of the output.
pub fn unversioned(text: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let places = [format!("bubblebench {version}"), format!("version {version}"), format!("v{version}")];
    places.iter().fold(text.to_string(), |text, place| text.replace(place, &place.replace(version, "VERSION")))
}

/// What a command that must succeed printed.
pub fn stdout(output: &Output, arguments: &[&str]) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Lines of JSON: what fits into one is one.
///
/// Numbers keep `digits` digits: the mathematical functions of the C library answer differently in the last one on
/// processors with and without fused multiply-add.
pub fn laid_out(text: &str, digits: usize) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    let forms = [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()];
    assert!(
        forms.iter().any(|form| format!("{form}\n") == text),
        "JSON of neither form, or with no line's end: {text}"
    );
    round(&mut value, digits);
    let mut out = String::new();
    lay_out(&value, 0, &mut out);
    out
}

fn round(value: &mut Value, digits: usize) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|v| round(v, digits)),
        Value::Object(map) => map.values_mut().for_each(|v| round(v, digits)),
        Value::Number(number) if number.is_f64() => {
            let rounded: f64 = format!("{:.*e}", digits - 1, number.as_f64().unwrap()).parse().unwrap();
            *value = Value::from(rounded);
        }
        _ => {}
    }
}

const WIDTH: usize = 120;

fn lay_out(value: &Value, indent: usize, out: &mut String) {
    let (open, close, entries): (_, _, Vec<(String, &Value)>) = match value {
        Value::Array(list) => ('[', ']', list.iter().map(|v| (String::new(), v)).collect()),
        Value::Object(map) => {
            ('{', '}', map.iter().map(|(k, v)| (format!("{}: ", Value::from(k.as_str())), v)).collect())
        }
        _ => (' ', ' ', Vec::new()),
    };
    let line = value.to_string();
    if entries.is_empty() || indent + line.chars().count() <= WIDTH {
        out.push_str(&line);
        return;
    }
    out.push(open);
    for (index, (key, value)) in entries.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.push_str(&" ".repeat(indent + 2));
        out.push_str(key);
        lay_out(value, indent + 2, out);
    }
    out.push('\n');
    out.push_str(&" ".repeat(indent));
    out.push(close);
}
