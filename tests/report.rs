//! `report` and `publish` from outside: the page, the figures and their numbers, bad folders, and what is withheld.

use assert_cmd::Command;
use bubblebench::figures::figure::{Activity, Cell, Figure, Picture};
use bubblebench::figures::{self, ReportSide};
use bubblebench::records::store::Journal;
use bubblebench::records::{MachineRecord, Measurement, files};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PUBLISHED: &str = "results/published/amd-epyc-2c";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bubblebench"));
    command.current_dir(root());
    command
}

/// Exit code 2 and one line that holds all of these.
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = program().args(arguments).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(parts.iter().all(|part| last.contains(part)), "{arguments:?}: {text}");
}

fn lines() -> Vec<Value> {
    let text = fs::read_to_string(root().join(PUBLISHED).join("measurements.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A results folder of these lines, with the published machine.
fn folder(path: &Path, lines: &[Value]) {
    fs::create_dir_all(path).unwrap();
    fs::copy(root().join(PUBLISHED).join("machine.json"), path.join("machine.json")).unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path.join("measurements.jsonl"), text).unwrap();
}

fn side() -> ReportSide {
    let path = root().join(PUBLISHED);
    let machine: MachineRecord = files::read_json(&path.join("machine.json"), "machine").unwrap();
    let journal = Journal::read(&path).unwrap();
    let (records, _) = figures::shown(journal.measurements);
    let fitted = bubblebench::cost::fit(&records, &machine, &journal.sha256).unwrap();
    let (model, held_out) = (Some(fitted.model), fitted.held_out);
    ReportSide { name: "epyc".into(), machine: Some(machine), records, model, held_out }
}

fn figure<'a>(all: &'a [Figure], name: &str) -> &'a Figure {
    all.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn numbers(figure: &Figure, column: &str) -> Vec<f64> {
    let at = figure.data.columns.iter().position(|known| known.name == column).unwrap();
    let number = |row: &Vec<Cell>| if let Cell::Number(number) = row[at] { Some(number) } else { None };
    figure.data.rows.iter().filter_map(number).collect()
}

#[test]
fn the_page_is_one_small_file_and_every_figure_has_its_numbers() {
    let out = tempfile::tempdir().unwrap();
    let (page, drawn) = (out.path().join("r.html"), out.path().join("new/fig"));
    program().args(["report", PUBLISHED, "--out"]).arg(&page).arg("--figures").arg(&drawn).assert().success();
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.len() < 3_000_000 && html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(!html.contains("<script") && !html.replace("http://www.w3.org/2000/svg", "").contains("http"));
    assert!(html.contains("@media print") && html.contains("prefers-color-scheme:dark"));
    assert!(!html.contains("NaN") && !html.contains(">inf"), "a number went missing");
    // Every figure twice, of which one is shown.
    let figures = html.matches("<figure class=\"paper\">").count();
    assert_eq!(html.matches("<svg class=").count(), 2 * figures);
    assert_eq!(html.matches("<details>").count(), figures);
    let names: BTreeSet<String> =
        fs::read_dir(&drawn).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let stems: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".csv")).collect();
    assert_eq!(stems.len(), figures);
    for stem in stems {
        assert!(names.contains(&format!("{stem}-3.5in.svg")) && names.contains(&format!("{stem}-7in.svg")), "{stem}");
        assert!(html.contains(&format!("<section id=\"{stem}\">")), "{stem}");
    }
    let tables = names.iter().filter(|name| name.ends_with(".tex")).count();
    let of_markdown = fs::read_to_string(root().join(PUBLISHED).join("tables.md")).unwrap().matches("\n## ").count();
    assert_eq!(tables, of_markdown, "{names:?}");
}

#[test]
fn figures_hold_the_numbers_of_the_records() {
    let side = side();
    let records = side.records.clone();
    let all = figures::all(&[side]);
    // The roof is the fastest operation.
    let rates = |r: &Measurement| (r.id.contains("/op/")).then_some(r.flop? / r.median_ns?);
    let fastest = records.iter().filter_map(rates).fold(0.0, f64::max);
    let roofline = figure(&all, "roofline");
    let drawn = numbers(roofline, "gflop_per_s").into_iter().fold(0.0, f64::max);
    assert!((drawn / fastest - 1.0).abs() < 1e-12);
    let Picture::Charts(charts) = &roofline.picture else { panic!("no charts") };
    let roof = charts[0].series.iter().find(|s| s.name == "highest reached").unwrap();
    assert!((roof.points[2].y / fastest - 1.0).abs() < 1e-12 && roof.points[0].y < fastest);
    // Half of all samples of a kind lie at or below their medians.
    let halves = numbers(figure(&all, "sample-distribution"), "sample_over_median");
    assert!(halves.chunks(15).all(|curve| (curve[8] - 1.0).abs() < 0.25 && curve.is_sorted()), "{halves:?}");
    // A layer of all whose operations were measured is about their sum.
    let ratios = numbers(figure(&all, "additivity"), "layer_over_operations");
    assert!(!ratios.is_empty() && ratios.iter().all(|ratio| (0.5..2.0).contains(ratio)), "{ratios:?}");
    // What is drawn of a stage is what the case measured: its bubbles are as long.
    let stage = figure(&all, "filled-stage");
    let Picture::Lanes(lanes) = &stage.picture else { panic!("no lanes") };
    for ((_, spans), bubble_ns) in lanes.lanes.iter().zip(numbers(stage, "bubble_ns")) {
        let waits = spans.iter().filter(|span| span.activity == Activity::Bubble);
        let drawn: f64 = waits.map(|span| span.end_ns - span.start_ns).sum();
        assert!((drawn / bubble_ns - 1.0).abs() < 0.01, "{drawn} {bubble_ns}");
    }
    // Every held-out case stands beside its prediction.
    let predicted = figure(&all, "predicted-measured");
    let held = predicted.data.rows.iter().filter(|row| row[3] == Cell::Text("yes".into())).count();
    assert!(held > 100, "{held}");
    let drift = numbers(figure(&all, "drift"), "minutes");
    assert!(drift.is_sorted() && drift[0] == 0.0 && drift.last().is_some_and(|last| *last < 10.0));
}

#[test]
fn names_of_figures_are_names_of_files_and_differ() {
    let (mut other, one) = (side(), side());
    other.name = "Other <machine>/2".into();
    let all = figures::all(&[one, other]);
    let names: BTreeSet<&str> = all.iter().map(|figure| figure.name.as_str()).collect();
    assert_eq!(names.len(), all.len());
    assert!(
        names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')),
        "{names:?}"
    );
    let layers = figure(&all, "layer-time");
    let machines: BTreeSet<String> = layers.data.rows.iter().map(|row| format!("{:?}", row[0])).collect();
    assert_eq!(machines.len(), 2);
}

#[test]
fn several_folders_lie_over_each_other_and_names_cannot_break_out() {
    let out = tempfile::tempdir().unwrap();
    let mut few: Vec<Value> = lines().into_iter().take(40).collect();
    few[0]["params"]["reason"] = json!("</svg><script>");
    few.iter_mut().for_each(|line| line["device"] = json!("x<script>alert(1)</script>"));
    let other = out.path().join("b\"><script>");
    folder(&other, &few);
    let page = out.path().join("r.html");
    program().args(["report", PUBLISHED]).arg(&other).arg("--out").arg(&page).assert().success();
    let html = fs::read_to_string(&page).unwrap();
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
    assert!(html.contains("amd-epyc-2c</th>") && html.contains(">amd-epyc-2c</text>"));
}

#[test]
fn bad_folders_are_named_and_the_rest_is_used() {
    let out = tempfile::tempdir().unwrap();
    let page = out.path().join("r.html");
    let path = |name: &str| out.path().join(name);
    let page_text = page.to_str().unwrap();
    let text = |name: &str| path(name).to_str().unwrap().to_string();
    fs::create_dir(path("empty")).unwrap();
    refused(&["report", &text("empty"), "--out", page_text], &["measurements.jsonl", "check the path"]);
    refused(&["report", "no/such", "--out", page_text], &["no/such"]);
    refused(&["report", PUBLISHED, "--out", "/no/such/folder/r.html"], &["/no/such/folder"]);
    let mut newer = lines()[..3].to_vec();
    newer[1]["schema"] = json!("bubblebench.measurement/3");
    folder(&path("newer"), &newer);
    refused(&["report", &text("newer"), "--out", page_text], &["measurement/3", ":2"]);
    folder(&path("file"), &[]);
    refused(&["report", &text("file"), "--out", page_text], &["holds no measurement"]);
    assert!(!page.exists());
    // One case; a negative time; a case without one; two devices; one name twice.
    let mut odd = lines()[..6].to_vec();
    odd[1]["median_ns"] = json!(-5.0);
    odd[2]["median_ns"] = Value::Null;
    odd[3]["device"] = json!("another");
    odd.push(odd[4].clone());
    for (name, lines) in [("one", &lines()[..1]), ("odd", &odd)] {
        folder(&path(name), lines);
        let output = program().args(["report", &text(name), "--out", page_text]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{name}: {told}");
        if name == "odd" {
            for part in ["1 case without a time", "1 case whose time cannot be", "1 case of another device (another)"] {
                assert!(told.contains(part), "{told}");
            }
        }
    }
    // A folder with a file that no machine.json explains.
    folder(&path("bare"), &lines()[..5]);
    fs::remove_file(path("bare").join("machine.json")).unwrap();
    let output = program().args(["report", &text("bare"), "--out", page_text]).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no machine.json"));
}

#[test]
fn many_cases_are_thinned_and_the_table_says_so() {
    let out = tempfile::tempdir().unwrap();
    let all = lines();
    let operations: Vec<Value> = all.iter().filter(|line| line["kind"] == "operation").cloned().collect();
    let mut many = Vec::new();
    for round in 0..20 {
        for line in &operations {
            let mut line = line.clone();
            line["id"] = json!(format!("{}/{round}", line["id"].as_str().unwrap()));
            many.push(line);
        }
    }
    assert!(many.len() > 1_200);
    folder(&out.path().join("many"), &many);
    let page = out.path().join("r.html");
    let fig = out.path().join("fig");
    let output = program()
        .arg("report")
        .arg(out.path().join("many"))
        .arg("--out")
        .arg(&page)
        .arg("--figures")
        .arg(&fig)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("more than 1200 cases and no cost model"), "{told}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("more operations are in the numbers only")
            && html.contains("the first 200; all are in roofline.csv")
    );
    let rows = fs::read_to_string(fig.join("roofline.csv")).unwrap().lines().count();
    assert_eq!(rows, many.len() + 1);
}

/// A folder whose every secret is known.
fn secretive(path: &Path) {
    let mut few: Vec<Value> = lines().into_iter().take(60).collect();
    let last = lines().pop().unwrap();
    few[5]["median_ns"] = Value::Null;
    few[5]["flags"] = json!(["skipped"]);
    few[5]["params"]["reason"] = json!("no libnccl.so.2 in /home/alice/lib on gpu-node-17");
    few.push(last);
    folder(path, &few);
    let mut machine: Value = serde_json::from_str(&fs::read_to_string(path.join("machine.json")).unwrap()).unwrap();
    machine["hostname"] = json!("gpu-node-17");
    machine["environment"] =
        json!({"NCCL_COMM_ID": "10.1.2.3:777", "NCCL_ALGO": "Ring", "NCCL_TOPO_FILE": "/scratch/alice/t.xml"});
    machine["run"]["commit"] = json!("c674686ed6fc-dirty");
    machine["run"]["command"] = json!(["/home/alice/bubblebench", "measure", "all", "--results", "/scratch/alice/out"]);
    fs::write(path.join("machine.json"), machine.to_string()).unwrap();
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut list = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list.extend(all_files(&path)) } else { list.push(path) }
    }
    list
}

#[test]
fn what_is_published_names_nobody_and_its_checksums_hold() {
    let out = tempfile::tempdir().unwrap();
    let (from, to) = (out.path().join("from"), out.path().join("to"));
    secretive(&from);
    let before: Vec<Vec<u8>> =
        ["machine.json", "measurements.jsonl"].map(|name| fs::read(from.join(name)).unwrap()).into();
    let output = program().arg("publish").arg(&from).arg("--out").arg(&to).output().unwrap();
    let (answer, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{told}");
    assert!(
        answer.starts_with("AMD EPYC, 2 cores (amd-epyc-2c). Measured with bubblebench") && answer.lines().count() == 1
    );
    assert!(told.contains("withheld: hostname") && told.contains("NCCL_COMM_ID"), "{told}");
    let doubt = "built from commit c674686ed6fc with changes that are in no commit";
    let page = fs::read_to_string(to.join("README.md")).unwrap();
    assert!(told.contains(doubt) && page.contains(doubt), "who cites a commit learns that it is not what ran: {told}");
    let files = all_files(&to);
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for secret in ["alice", "gpu-node-17", "10.1.2.3"] {
            assert!(!text.contains(secret), "{secret} in {}", file.display());
        }
    }
    let sums = fs::read_to_string(to.join("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), files.len() - 1, "every file but the checksums");
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(sum, bubblebench::records::sha256(&fs::read(to.join(name)).unwrap()), "{name}");
    }
    // The folder is one that every command reads, and its cost model is of its own lines.
    let journal = Journal::read(&to).unwrap();
    let model: Value = serde_json::from_str(&fs::read_to_string(to.join("cost_model.json")).unwrap()).unwrap();
    assert_eq!(model["made_from"]["measurements_sha256"], json!(journal.sha256));
    program().arg("compare").arg(&to).arg(&to).assert().success();
    for (name, content) in ["machine.json", "measurements.jsonl"].iter().zip(before) {
        assert_eq!(fs::read(from.join(name)).unwrap(), content, "{name} was measured and stays as it is");
    }
}

#[test]
fn a_publication_is_written_again_and_nothing_else_is_written_over() {
    let out = tempfile::tempdir().unwrap();
    let (from, to) = (out.path().join("from"), out.path().join("to"));
    folder(&from, &lines());
    let publish = || program().arg("publish").arg(&from).arg("--out").arg(&to).output().unwrap();
    assert!(publish().status.success());
    let first: BTreeSet<PathBuf> = all_files(&to).into_iter().collect();
    // Fewer cases have fewer figures, and none of the earlier ones stays.
    folder(&from, &lines()[..50]);
    let output = publish();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("was not finished"), "{told}");
    let second: BTreeSet<PathBuf> = all_files(&to).into_iter().collect();
    assert!(second.len() < first.len() && second.is_subset(&first));
    // In place: from the published folder into itself.
    program().arg("publish").arg(&to).arg("--out").arg(&to).assert().success();
    let given = [to.to_str().unwrap().to_string(), from.to_str().unwrap().to_string()];
    fs::write(to.join("notes.txt"), "mine").unwrap();
    refused(&["publish", &given[1], "--out", &given[0]], &["holds other files: notes.txt"]);
    fs::remove_file(to.join("notes.txt")).unwrap();
    fs::write(to.join("README.md"), "# written by hand\n").unwrap();
    refused(&["publish", &given[1], "--out", &given[0]], &["was not written by publish"]);
    assert_eq!(fs::read_to_string(to.join("README.md")).unwrap(), "# written by hand\n");
    refused(&["publish", "no/such"], &["no/such is not a folder"]);
    let mut software = lines()[..3].to_vec();
    software[0]["flags"] = json!(["software"]);
    folder(&from, &software);
    refused(&["publish", &given[1]], &["software device"]);
}

/// What was measured, or belongs to somebody else, is not written over.
#[test]
fn nothing_that_was_measured_is_written_over() {
    let out = tempfile::tempdir().unwrap();
    let path = |name: &str| out.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_string();
    folder(&path("a"), &lines()[..20]);
    folder(&path("b"), &lines()[..10]);
    let before = fs::read(path("b").join("measurements.jsonl")).unwrap();
    refused(&["publish", &text("a"), "--out", &text("b")], &["was not written by publish"]);
    refused(&["publish", &text("a"), "--out", &text("a")], &["was not written by publish"]);
    let measured = text("b/measurements.jsonl");
    refused(&["report", &text("a"), "--out", &measured], &["is there already and is no page"]);
    assert_eq!(fs::read(path("b").join("measurements.jsonl")).unwrap(), before);
    // Figures behind a link, and files of others among them.
    program().args(["publish", &text("a"), "--out", &text("p")]).assert().success();
    fs::write(path("p").join("figures/mine.txt"), "mine").unwrap();
    refused(&["publish", &text("a"), "--out", &text("p")], &["holds other files: figures/mine.txt"]);
    fs::remove_dir_all(path("p").join("figures")).unwrap();
    fs::create_dir(path("victim")).unwrap();
    std::os::unix::fs::symlink(path("victim"), path("p").join("figures")).unwrap();
    refused(&["publish", &text("a"), "--out", &text("p")], &["figures, a link"]);
    assert_eq!(fs::read_dir(path("victim")).unwrap().count(), 0);
    // A name that somebody wrote is no path.
    let mut machine: Value =
        serde_json::from_str(&fs::read_to_string(path("a").join("machine.json")).unwrap()).unwrap();
    machine["name"] = json!("../../escaped");
    fs::write(path("a").join("machine.json"), machine.to_string()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_bubblebench"))
        .current_dir(out.path())
        .args(["publish", &text("a")])
        .assert()
        .success();
    assert!(path("results/published/escaped/README.md").exists() && !path("escaped").exists());
}

#[test]
fn devices_and_links_stay_what_they_are() {
    let out = tempfile::tempdir().unwrap();
    let (page, link) = (out.path().join("page.html"), out.path().join("link.html"));
    let output = program().args(["report", PUBLISHED, "--out", "/dev/stdout"]).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"<!doctype html>"));
    std::os::unix::fs::symlink(&page, &link).unwrap();
    fs::write(&page, "<!doctype html>old").unwrap();
    program().args(["report", PUBLISHED, "--out"]).arg(&link).assert().success();
    assert!(link.is_symlink() && fs::read(&page).unwrap() == output.stdout);
}

/// Numbers that cannot be are named, and end nothing.
#[test]
fn extreme_numbers_break_nothing() {
    let out = tempfile::tempdir().unwrap();
    let extremes = [json!(1e308), json!(5e-324), json!(-1e308), json!(0.0), Value::Null];
    let mut all = lines();
    for (index, line) in all.iter_mut().enumerate() {
        let value = &extremes[index % extremes.len()];
        let names = ["ci95_low_ns", "ci95_high_ns", "bytes", "flop", "busbw_gb_per_s", "sm_clock_mhz", "power_w"];
        line[names[index % names.len()]] = value.clone();
        if index % 9 == 0 {
            line["median_ns"] = value.clone();
        }
        if !line["slowdown"].is_null() {
            line["slowdown"]["median"] = json!([1e308, 5e-324, -3.0, 2.0][index % 4]);
        }
        if index % 7 == 0 {
            line["at"] = json!("not a time");
        }
    }
    folder(&out.path().join("odd"), &all);
    let page = out.path().join("r.html");
    let fig = out.path().join("fig");
    let output = program()
        .arg("report")
        .arg(out.path().join("odd"))
        .arg("--out")
        .arg(&page)
        .arg("--figures")
        .arg(&fig)
        .timeout(std::time::Duration::from_secs(120))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in all_files(&fig) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            file.extension().unwrap() != "svg" || !(text.contains("NaN") || text.contains("\"inf")),
            "{}",
            file.display()
        );
    }
}

/// Folders whose names differ in signs only, and more of them than colours.
#[test]
fn every_folder_is_drawn_and_no_file_stands_for_two() {
    let out = tempfile::tempdir().unwrap();
    let few: Vec<Value> = lines().into_iter().filter(|line| line["kind"] != "operation").collect();
    let names = ["run_1", "run-1", "日本", "中国", "a", "b", "c"];
    names.iter().for_each(|name| folder(&out.path().join(name), &few));
    let fig = out.path().join("fig");
    let output = program()
        .arg("report")
        .args(names.map(|name| out.path().join(name)))
        .arg("--out")
        .arg(out.path().join("r.html"))
        .arg("--figures")
        .arg(&fig)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let files = all_files(&fig).len();
    assert!(told.contains(&format!("{files} files written")), "{files}: {told}");
    let curve = fs::read_to_string(fig.join("collective-all-reduce.csv")).unwrap();
    let drawn = fs::read_to_string(fig.join("collective-all-reduce-7in.svg")).unwrap();
    assert!(names.iter().all(|name| curve.contains(name)));
    assert!(names[..6].iter().all(|name| drawn.contains(&format!(", {name}<"))), "six of seven have a curve");
    let html = fs::read_to_string(out.path().join("r.html")).unwrap();
    assert!(html.len() < 3_000_000 && html.contains("In the numbers only: "), "{}", html.len());
}

#[test]
fn the_page_of_a_plan_and_the_terminal_agree_on_free_memory() {
    let out = tempfile::tempdir().unwrap();
    let page = out.path().join("plan.html");
    let output = program().args(["plan", "examples/gpt-rtx3090-4.toml", "--html"]).arg(&page).output().unwrap();
    let (text, html) = (String::from_utf8(output.stdout).unwrap(), fs::read_to_string(&page).unwrap());
    let drawn: Vec<&str> = html.split(" GiB free at peak").filter_map(|part| part.rsplit('>').next()).collect();
    let header = text.lines().find(|line| line.contains("free at peak")).unwrap();
    let column = header.split('┆').position(|cell| cell.contains("free at peak")).unwrap();
    let rows = text.lines().skip_while(|line| *line != header).skip(2).take_while(|line| line.starts_with('│'));
    let told: Vec<String> =
        rows.map(|row| row.split('┆').nth(column).unwrap().trim_matches([' ', '│']).to_string()).collect();
    assert_eq!(told.len(), 4, "{text}");
    assert_eq!(told, drawn[..4].to_vec(), "{text}");
}
