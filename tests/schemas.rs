//! Files of every version of every format, as the program of that version wrote them (`tests/data/schemas`), read by this
//! one: with the same answers as the same file in today's version, or refused with what to do. That today's files follow
//! the schemas which the program prints is held by `.ci/check_schemas.py`.

#[path = "house/sources.rs"]
mod sources;

use bubblebench::records::schema;
use serde_json::{Value, json};
use sources::{code, root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The formats that some command reads.
const READ: [&str; 6] = ["measurement", "machine", "cost_model", "plan", "timeline", "bubbles"];

/// Of them, those whose files in an earlier version are refused: what they lack cannot be supplied.
const REFUSED: [&str; 1] = ["plan-1.json"];

/// The program in a folder, with these bytes on stdin.
fn run(folder: &Path, arguments: &str, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bubblebench"));
    command.env_clear().current_dir(folder).args(arguments.split(' '));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What is asked is less than a pipe holds; a program that refuses before it has read is no failure of the test's.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What it printed; it must succeed.
fn answer(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line with which it refused.
fn refusal(output: &Output, what: &str) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{what}: {said}");
    let refused: Vec<&str> = said.lines().filter(|line| !line.starts_with("note: ")).collect();
    assert!(refused.len() == 1 && output.stdout.is_empty(), "{what}: {said}");
    refused[0].to_string()
}

/// The files of `tests/data/schemas`, by kind and version.
fn files() -> BTreeMap<(String, u32), String> {
    let folder = fs::read_dir(root().join("tests/data/schemas")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let split = |name: String| {
        let (kind, rest) = name.rsplit_once('-').unwrap_or_else(|| panic!("{name} is not KIND-VERSION.json"));
        ((kind.to_string(), rest.split('.').next().unwrap().parse().unwrap()), name.clone())
    };
    names.filter(|name| name != "README.md").map(split).collect()
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join("tests/data/schemas").join(name)).unwrap()
}

/// The values of a file: one, or one a line.
fn values(name: &str) -> Vec<Value> {
    let text = text(name);
    match name.ends_with(".jsonl") {
        true => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        false => vec![serde_json::from_str(&text).unwrap()],
    }
}

/// The values as a file of that name would hold them.
fn written(name: &str, values: &[Value]) -> String {
    assert!(name.ends_with(".jsonl") || values.len() == 1);
    values.iter().map(|value| format!("{value}\n")).collect()
}

/// Has the command read a file that reads files of this kind.
fn read(kind: &str, text: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let write = |name: &str, text: &str| fs::write(here.join(name), text).unwrap();
    match kind {
        "measurement" | "machine" => {
            write("measurements.jsonl", &self::text("measurement-2.jsonl"));
            write("machine.json", &self::text("machine-1.json"));
            write(if kind == "machine" { "machine.json" } else { "measurements.jsonl" }, text);
            let output = run(here, "fit --results . --out model.json", "");
            let made = fs::read(here.join("model.json")).unwrap_or_default();
            Output { stdout: made, ..output }
        }
        "cost_model" => {
            write("model.json", text);
            run(here, "predict --cost-model model.json --batch", &self::text("question-1.jsonl"))
        }
        "plan" => {
            write("plan.json", text);
            write("other.json", &self::text("plan-2.json"));
            run(here, "compare other.json plan.json --format json", "")
        }
        "timeline" => {
            write("order.json", text);
            let times = "--forward 2ms --backward-input 1.9ms --backward-weight 900us --send-recv 50us";
            run(here, &format!("simulate --schedule order.json {times} --json --operations"), "")
        }
        "bubbles" => {
            write("bubbles.json", text);
            write("job.toml", &job());
            run(here, "plan job.toml --bubbles bubbles.json --json", "")
        }
        _ => panic!("no command reads {kind}"),
    }
}

/// An example's job on the two stages whose bubbles are in the file.
fn job() -> String {
    let job = fs::read_to_string(root().join("examples/gpt-rtx3090-4.toml")).unwrap();
    let models = root().join("results");
    job.replace("pipeline = 4", "pipeline = 2").replace("../results", models.to_str().unwrap())
}

/// The values with another version in `schema`, and without the checksum that was of the line as it was.
fn in_version(values: &[Value], kind: &str, version: u32) -> Vec<Value> {
    let mut changed = values.to_vec();
    for value in &mut changed {
        value["schema"] = json!(format!("bubblebench.{kind}/{version}"));
        value.as_object_mut().unwrap().shift_remove("crc32");
    }
    changed
}

/// A new version without a file of it fails here, and so does a file of what nobody wrote.
#[test]
fn every_version_that_was_ever_written_has_a_file() {
    let mut versions = BTreeMap::new();
    for (file, text) in sources() {
        let constants: Vec<&str> =
            code(&text).filter_map(|(_, line)| line.split_once("SCHEMA: &str = \"bubblebench.")).map(|l| l.1).collect();
        for constant in constants {
            let (kind, version) = constant.trim_end_matches("\";").split_once('/').unwrap();
            let version: u32 = version.parse().unwrap();
            assert_eq!(version, schema::version(kind), "{file} and records::schema differ in the version of {kind}");
            versions.insert(kind.to_string(), version);
        }
    }
    assert!(versions.len() >= 11, "{versions:?}");
    let expected: BTreeSet<(String, u32)> =
        versions.iter().flat_map(|(kind, last)| (1..=*last).map(|version| (kind.clone(), version))).collect();
    let held: BTreeSet<(String, u32)> = files().into_keys().collect();
    assert_eq!(held, expected, "tests/data/schemas: a file of each version, KIND-VERSION.json");
    let listed = text("README.md");
    for ((kind, version), name) in files() {
        // A question is the one thing that people write; it does not say its version.
        let named = |value: &Value| value["schema"] == format!("bubblebench.{kind}/{version}").as_str();
        assert!(kind == "question" || values(&name).iter().all(named), "{name} says that it is something else");
        assert!(
            listed.contains(&format!("`{name}`")),
            "tests/data/schemas/README.md does not say where {name} is from"
        );
    }
}

/// Every kind that a command reads is read in every version from its oldest on, and the oldest is where refusing ends.
#[test]
fn every_version_is_read_or_refused_with_the_way_out() {
    for ((kind, version), name) in files().into_iter().filter(|((kind, _), _)| READ.contains(&kind.as_str())) {
        let output = read(&kind, &text(&name));
        if version >= schema::oldest(&kind) {
            answer(&output);
            assert!(!REFUSED.contains(&name.as_str()), "{name} is read");
        } else {
            let line = refusal(&output, &name);
            assert!(REFUSED.contains(&name.as_str()) && line.contains("make the file again"), "{line}");
        }
    }
}

/// A file of an earlier version says what the same file says in today's.
#[test]
fn earlier_versions_answer_as_todays_do() {
    for ((kind, version), name) in files().into_iter().filter(|((kind, _), _)| READ.contains(&kind.as_str())) {
        if !(schema::oldest(&kind)..schema::version(&kind)).contains(&version) {
            continue;
        }
        let mut today = in_version(&values(&name), &kind, schema::version(&kind));
        for value in &mut today {
            match kind.as_str() {
                "measurement" => value["visits"] = Value::Null,
                "cost_model" => value["machine"]["source"] = json!("measured"),
                _ => panic!("say what {kind} became since version {version}"),
            }
        }
        let strip = |text: String| match kind.as_str() {
            "measurement" => {
                let mut model: Value = serde_json::from_str(&text).unwrap();
                // The sum of the file that it was made from, and when.
                model.as_object_mut().unwrap().shift_remove("made_from");
                model.to_string()
            }
            _ => text,
        };
        let (old, new) = (answer(&read(&kind, &text(&name))), answer(&read(&kind, &written(&name, &today))));
        assert!(old.len() > 500, "{name}: {old}");
        assert_eq!(strip(old), strip(new), "{name}");
    }
}

/// The layer that the second question asks for, and the measurements' first line is of.
fn smallest_layer(model: &Value) -> &Value {
    let shape = |layer: &&Value| layer["shape"]["hidden"] == 256 && layer["shape"]["sequence"] == 128;
    model["layer"].as_array().unwrap().iter().find(shape).unwrap()
}

/// What stands in a file of each version is what is answered: a layer that was measured, as it was measured.
#[test]
fn measured_layers_of_every_version_are_answered_as_measured() {
    for version in 1..=schema::version("cost_model") {
        let model = &values(&format!("cost_model-{version}.json"))[0];
        let answers = answer(&read("cost_model", &model.to_string()));
        let layer: Value = serde_json::from_str(answers.lines().nth(1).unwrap()).unwrap();
        let measured = &smallest_layer(model)["forward_ns"]["median"];
        assert!(measured.is_f64() && layer["forward"]["median_ns"] == *measured, "version {version}");
    }
    for version in 1..=schema::version("measurement") {
        let lines = values(&format!("measurement-{version}.jsonl"));
        let fitted = answer(&read("measurement", &text(&format!("measurement-{version}.jsonl"))));
        let model: Value = serde_json::from_str(&fitted).unwrap();
        assert_eq!(smallest_layer(&model)["forward_ns"]["median"], lines[0]["median_ns"], "version {version}");
        assert!(model["collectives"].as_array().is_some_and(|list| !list.is_empty()), "version {version}");
    }
}

/// The order that a timeline holds is simulated to what that timeline says.
#[test]
fn a_timelines_operations_give_the_timeline() {
    let held = &values("timeline-1.json")[0];
    let simulated: Value = serde_json::from_str(&answer(&read("timeline", &held.to_string()))).unwrap();
    for field in ["schedule", "iteration_ns", "stage", "operations"] {
        assert_eq!(simulated[field], held[field], "{field}");
    }
}

#[test]
fn a_later_version_is_refused_in_one_line_that_says_to_update() {
    for kind in READ {
        let latest = schema::version(kind);
        let name = &files()[&(kind.to_string(), latest)];
        let line = refusal(&read(kind, &written(name, &in_version(&values(name), kind, latest + 1))), name);
        assert!(line.contains(&format!("bubblebench.{kind}/{}", latest + 1)), "{line}");
        assert!(line.contains("update bubblebench"), "{line}");
    }
}

/// What a version does not have is a slip of a hand or of a later program, and is named rather than passed over. Of a
/// timeline or a plan that gives an order of operations nothing but the order is read.
#[test]
fn a_field_that_a_version_does_not_have_is_named() {
    for kind in READ.into_iter().filter(|kind| *kind != "timeline") {
        let latest = schema::version(kind);
        let name = &files()[&(kind.to_string(), latest)];
        let mut more = in_version(&values(name), kind, latest);
        more[0]["surplus"] = json!(1);
        let line = refusal(&read(kind, &written(name, &more)), name);
        assert!(line.contains("surplus"), "{line}");
    }
    let mut more = values("timeline-1.json")[0].clone();
    more["surplus"] = json!(1);
    answer(&read("timeline", &more.to_string()));
}
