//! Holds the documentation to the code: the flags that docs/reading.md explains are those a line can carry, and every file
//! and page that the documentation names is there.

#[path = "../examples/validate/fills.rs"]
mod fills;
#[path = "../examples/validate/iterations.rs"]
mod iterations;
#[path = "house/sources.rs"]
mod sources;

use assert_cmd::Command;
use bubblebench::machine::nvml::reasons;
use bubblebench::monitor::metrics;
use bubblebench::records::flags;
use sources::{code, root, sources};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How a word in backquotes begins that names a file or folder of this project.
const ROOTS: [&str; 8] = ["src/", "tests/", "docs/", "cuda/", "benches/", "python/", "results/", ".ci/"];

/// README.md, CONTRIBUTING.md and every page below docs/, with their texts.
fn pages() -> Vec<(String, String)> {
    let folder = fs::read_dir(root().join("docs")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.extend(["README.md", "CONTRIBUTING.md"].map(String::from));
    pages.sort();
    pages.into_iter().map(|page| (page.clone(), fs::read_to_string(root().join(page)).unwrap())).collect()
}

/// A page's paragraphs without its fenced blocks.
fn paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if line.trim().is_empty() {
            paragraphs.push(String::new());
        } else if !fenced && let Some(last) = paragraphs.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs
}

/// What stands between backquotes in a paragraph.
fn quoted(paragraph: &str) -> Vec<&str> {
    let parts: Vec<&str> = paragraph.split('`').collect();
    assert!(parts.len() % 2 == 1, "a backquote is not closed in: {paragraph}");
    parts.into_iter().skip(1).step_by(2).collect()
}

/// The path that a word in backquotes names, without `:line` behind it; none for other words and for placeholders.
fn path_of(word: &str) -> Option<&str> {
    let is_path = ROOTS.iter().any(|root| word.starts_with(root));
    if !is_path || word.contains(['<', '…', ' ', '\n', '$']) {
        return None;
    }
    Some(word.split(':').next().unwrap_or(word).trim_end_matches('/'))
}

/// The paths that one with a choice in braces stands for: `a/{b,c}.cu` is `a/b.cu` and `a/c.cu`.
fn choices(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    let Some((head, (list, tail))) = parts else { return vec![path.to_string()] };
    list.split(',').map(|choice| format!("{head}{choice}{tail}")).collect()
}

/// Whether something of this name lies in the folder; `*` stands for any part of a name.
fn exists(folder: &Path, path: &str) -> bool {
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let Some((head, tail)) = first.split_once('*') else {
        let here = folder.join(first);
        return here.exists() && (rest.is_empty() || exists(&here, rest));
    };
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.map(|entry| entry.unwrap()).any(|entry| {
        let name = entry.file_name().into_string().unwrap_or_default();
        let fits = name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail);
        fits && (rest.is_empty() || exists(&entry.path(), rest))
    })
}

/// The targets of a paragraph's links that lie in this project, without their `#heading`.
fn links(paragraph: &str) -> Vec<&str> {
    let targets = paragraph.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    local.map(|target| target.split('#').next().unwrap_or(target)).filter(|target| !target.is_empty()).collect()
}

/// The names in the first column of the tables below a heading.
fn first_column<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let below = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`")).1;
    let section = below.split("\n## ").next().unwrap_or(below);
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

#[test]
fn the_page_on_reading_explains_every_flag_and_no_other() {
    let text = fs::read_to_string(root().join("docs/reading.md")).unwrap();
    let explained = first_column(&text, "Flags");
    let all: BTreeSet<&str> = flags::ALL.into_iter().chain(reasons::throttling()).collect();
    for flag in &all {
        assert!(explained.contains(flag), "docs/reading.md does not explain the flag `{flag}`");
    }
    for flag in &explained {
        assert!(all.contains(flag), "docs/reading.md explains `{flag}`, which no line carries");
    }
    assert_eq!(explained.len(), all.len(), "docs/reading.md explains a flag twice");
}

#[test]
fn the_page_on_monitoring_has_every_metric_as_it_is_served() {
    let text = fs::read_to_string(root().join("docs/monitoring.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `bubblebench_") || line.starts_with("| `DCGM_"));
    let listed: Vec<[String; 3]> = rows
        .map(|row| {
            let cells: Vec<String> = row.split('|').map(|cell| cell.replace('`', "").trim().to_string()).collect();
            [cells[1].clone(), cells[2].clone(), cells[4].clone()]
        })
        .collect();
    let served = metrics::ALL.iter();
    let served =
        served.map(|metric| [metric.name.to_string(), metric.kind.name().to_string(), metric.labels.join(" ")]);
    assert_eq!(listed, served.collect::<Vec<_>>(), "the tables of docs/monitoring.md");
}

/// A dashboard asks for what is served.
#[test]
fn the_dashboard_names_metrics_that_are_served() {
    let board = fs::read_to_string(root().join("docs/monitoring/grafana.json")).unwrap();
    let board: serde_json::Value = serde_json::from_str(&board).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let texts: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let words =
        |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').map(String::from).collect::<Vec<_>>();
    let asked: BTreeSet<String> = texts.iter().flat_map(|text| words(text)).collect();
    let asked = asked.iter().filter(|word| word.starts_with("bubblebench_") || word.starts_with("DCGM_"));
    let asked: BTreeSet<&str> = asked.map(|word| word.trim_end_matches("_sum").trim_end_matches("_count")).collect();
    let served: BTreeSet<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    assert!(asked.is_subset(&served), "{:?}", asked.difference(&served));
    // Shown nowhere: what other numbers are made of.
    let left: Vec<&&str> = served.difference(&asked).collect();
    assert_eq!(left, [&"bubblebench_cases_planned", &"bubblebench_start_time_seconds"]);
}

#[test]
fn the_list_of_flags_holds_every_constant() {
    let text = fs::read_to_string(root().join("src/records/flags.rs")).unwrap();
    let constants = text.lines().filter(|line| line.starts_with("pub const") && line.contains(": &str =")).count();
    assert_eq!(constants, flags::ALL.len(), "a constant of flags.rs is missing from ALL");
}

#[test]
fn no_two_flags_are_the_same_word() {
    let all: Vec<&str> = flags::ALL.into_iter().chain(reasons::throttling()).collect();
    let different: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(different.len(), all.len());
}

/// A flag spelled in place would be missing from the list, and from the page.
#[test]
fn flags_are_named_by_their_constants() {
    let mut literals = Vec::new();
    let words = flags::ALL.map(|flag| format!("\"{flag}\""));
    for (file, text) in sources().into_iter().filter(|(file, _)| file != "src/records/flags.rs") {
        for (at, line) in code(&text) {
            // A word that means nothing else is a flag wherever it stands, another where the line speaks of flags (and does
            // not just name a column).
            let of_flags = line.replace("\"flags\"", "").contains("flag");
            let spelled = words.iter().any(|word| line.contains(word) && (of_flags || word.contains('-')));
            if spelled || line.contains("flags.push(\"") || line.contains("has_flag(\"") {
                literals.push(format!("{file}:{at}: {}", line.trim()));
            }
        }
    }
    assert!(literals.is_empty(), "name the constant of records::flags:\n{}", literals.join("\n"));
}

#[test]
fn files_that_the_documentation_names_are_there() {
    let mut missing = Vec::new();
    for (page, text) in pages() {
        for paragraph in paragraphs(&text) {
            let paths = quoted(&paragraph).into_iter().filter_map(path_of).flat_map(choices);
            missing.extend(paths.filter(|path| !exists(&root(), path)).map(|path| format!("{page}: `{path}`")));
        }
    }
    assert!(missing.is_empty(), "no such file:\n{}", missing.join("\n"));
}

/// Commands are in fenced blocks; what they name of ours must be there, what they write need not.
#[test]
fn files_that_commands_read_are_there() {
    let mut missing = Vec::new();
    for (page, text) in pages() {
        for word in text.split(|c: char| c.is_whitespace() || "`()\"'".contains(c)) {
            let word = word.trim_end_matches(['.', ',', ':', ';']);
            let of_ours = word.starts_with("results/published/") || word.starts_with("examples/");
            if of_ours && !word.contains(['<', '…', '*']) && !root().join(word).exists() {
                missing.push(format!("{page}: {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such file:\n{}", missing.join("\n"));
}

#[test]
fn pages_that_the_documentation_links_to_are_there() {
    let mut missing = Vec::new();
    for (page, text) in pages() {
        let folder = root().join(&page).parent().unwrap().to_path_buf();
        for paragraph in paragraphs(&text) {
            let gone = links(&paragraph).into_iter().filter(|target| !folder.join(target).exists());
            missing.extend(gone.map(|target| format!("{page}: {target}")));
        }
    }
    assert!(missing.is_empty(), "no such page:\n{}", missing.join("\n"));
}

#[test]
fn every_page_is_in_the_readmes_list() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (page, _) in pages() {
        assert!(!page.starts_with("docs/") || readme.contains(&format!("]({page})")), "README.md does not link {page}");
    }
}

/// The wheel takes Cargo's version; what says it a second time is held here.
#[test]
fn the_program_and_the_python_package_are_of_one_version() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let version = format!("\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
    for file in ["Cargo.toml", "python/pyproject.toml"] {
        assert!(read(file).contains(&version), "{file}");
    }
    let package = format!("\n__version__ = \"{}\"\n", env!("CARGO_PKG_VERSION"));
    assert!(read("python/bubblebench/__init__.py").contains(&package), "python/bubblebench/__init__.py");
    let wheel = read("pyproject.toml");
    assert!(wheel.contains("\ndynamic = [\"version\"]") && !wheel.contains("\nversion ="), "pyproject.toml");
}

/// Every row that `cargo run --example validate iterations` prints stands in docs/method.md as it is, and every mean error.
#[test]
fn the_page_on_method_holds_the_iteration_times_as_they_are_predicted() {
    let page = fs::read_to_string(root().join("docs/method.md")).unwrap();
    let tables = iterations::tables().unwrap();
    let rows: Vec<&str> = tables.lines().filter(|line| line.starts_with('|') || line.contains("error")).collect();
    assert!(rows.len() > 20, "{tables}");
    for row in rows {
        assert!(page.contains(row), "docs/method.md lacks a row that is predicted now:\n{row}\n\n{tables}");
    }
}

/// The printouts of `plan` in README.md: what the program prints now, but for what `[…]` stands for.
#[test]
fn the_plans_in_the_readme_are_what_is_printed() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```console\n$ bubblebench plan ").skip(1).collect();
    assert!(blocks.len() >= 2, "README.md shows a plan that pays and one that does not");
    for block in blocks {
        let (command, shown) = block.split_once('\n').unwrap();
        let mut program = Command::new(assert_cmd::cargo::cargo_bin!("bubblebench"));
        program.current_dir(root()).arg("plan").args(command.split_whitespace());
        let printed = String::from_utf8(program.output().unwrap().stdout).unwrap();
        for line in shown.split("```").next().unwrap().lines().filter(|line| !line.contains("[…")) {
            assert!(printed.lines().any(|known| known == line), "plan {command} does not print:\n{line}\n\n{printed}");
        }
    }
}

/// Every row that `cargo run --example validate fills` prints stands there too.
#[test]
fn the_page_on_method_holds_the_fills_as_they_are_predicted() {
    let page = fs::read_to_string(root().join("docs/method.md")).unwrap();
    let table = fills::table().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with('|') || line.contains("error")).collect();
    assert!(rows.len() > 12, "{table}");
    for row in rows {
        assert!(page.contains(row), "docs/method.md lacks a row that is predicted now:\n{row}\n\n{table}");
    }
}

#[test]
fn words_paths_and_links_are_told_apart() {
    let text =
        "See `src/lib.rs:7`\nand [a](docs/a.md#b).\n\n```sh\ncat `src/no.rs`\n```\n\nNot `src/<x>/y.rs`, `a b`.\n";
    let paragraphs = paragraphs(text);
    assert_eq!(paragraphs.len(), 2);
    assert_eq!(quoted(&paragraphs[0]), ["src/lib.rs:7"]);
    assert_eq!(links(&paragraphs[0]), ["docs/a.md"]);
    assert!(links("[a](https://example.org) [b](#c)").is_empty());
    let paths: Vec<Option<&str>> =
        ["src/lib.rs:7", "src/<x>/y.rs", "src/…", "cargo test", "cuda/"].map(path_of).to_vec();
    assert_eq!(paths, [Some("src/lib.rs"), None, None, None, Some("cuda")]);
    assert_eq!(choices("a/{b,c}.cu"), ["a/b.cu", "a/c.cu"]);
    assert_eq!(choices("a/b.cu"), ["a/b.cu"]);
    assert!(exists(&root(), "src/lib.rs") && exists(&root(), "cuda/*.cu") && exists(&root(), "src/*/mod.rs"));
    assert!(!exists(&root(), "src/none.rs") && !exists(&root(), "cuda/*.rs") && !exists(&root(), "src/*/none.rs"));
    assert_eq!(first_column("\n## Flags\n\n| a |\n|---|\n| `b` | `c` |\n\n## More\n\n| `d` |\n", "Flags"), ["b"]);
}
