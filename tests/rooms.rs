//! The house rules that prose alone let drift: which room of `src/` may use which, where cudarc may be named, and that the
//! picture in `src/lib.rs` shows what is there. Whoever adds a room adds its row here and its place in that picture.

#[path = "house/sources.rs"]
mod sources;

use sources::{code, root, sources};
use std::fs;

/// Every room and the rooms it may import, from the ground up: a row names rows above it only, so no circle can be written
/// down. `error` is open to all. The first block is the ground floor, the second the device wing, which touches hardware; the
/// third the value wing, whose functions run on a laptop; the command line stands above both.
const ROOMS: [(&str, &[&str]); 24] = [
    ("error", &[]),
    ("nearest", &[]),
    ("units", &[]),
    ("stats", &[]),
    ("shape", &[]),
    ("records", &["nearest", "shape"]),
    //
    ("machine", &["nearest", "records", "stats"]),
    ("ops", &["machine", "shape", "stats"]),
    ("clock", &["machine", "ops"]),
    ("models", &["nearest", "ops", "shape", "stats"]),
    ("collectives", &["machine", "units"]),
    ("corun", &["clock", "collectives", "machine", "models", "ops", "shape", "stats", "units"]),
    (
        "suite",
        &["clock", "collectives", "corun", "machine", "models", "nearest", "ops", "records", "shape", "stats", "units"],
    ),
    ("monitor", &["corun", "machine", "records", "suite"]),
    //
    ("cost", &["nearest", "records", "shape", "stats", "units"]),
    ("pipeline", &["cost", "nearest", "records", "shape", "stats", "units"]),
    ("trace", &["pipeline", "records", "stats", "units"]),
    ("fill", &["cost", "pipeline", "records", "shape", "stats", "units"]),
    ("compare", &["cost", "fill", "nearest", "records", "shape", "stats", "units"]),
    ("import", &["cost", "nearest", "records", "shape", "stats", "units"]),
    ("export", &["cost", "fill", "import", "nearest", "pipeline", "records", "shape", "stats", "units"]),
    ("figures", &["cost", "pipeline", "records", "shape", "stats", "units"]),
    ("report", &["compare", "figures", "fill", "pipeline", "records", "trace", "units"]),
    //
    (
        "cli",
        &[
            "collectives",
            "compare",
            "corun",
            "cost",
            "export",
            "figures",
            "fill",
            "import",
            "machine",
            "models",
            "monitor",
            "nearest",
            "ops",
            "pipeline",
            "records",
            "report",
            "shape",
            "suite",
            "trace",
            "units",
        ],
    ),
];

/// Folders in which the CUDA driver's bindings may be named.
const CUDARC: [&str; 5] = ["src/machine/", "src/ops/cuda/", "src/clock/", "src/collectives/", "src/corun/"];

/// Rooms that may hold unsafe code, as `src/lib.rs` allows it to them.
const UNSAFE: [&str; 4] = ["collectives", "corun", "machine", "ops"];

/// Other ways to the crate's root, which the reading of imports would not follow.
const ALIASES: [&str; 5] = ["crate as", "super as", "self as", "{super", "extern crate"];

/// The rest of the tree: what the crate's root exports besides rooms.
const ROOT: [&str; 2] = ["Error", "Result"];

/// The room a file belongs to: `src/cost/fit.rs` and `src/cost.rs` are of `cost`. None for `lib.rs` and `main.rs`.
fn room_of(file: &str) -> Option<&str> {
    let first = file.strip_prefix("src/")?.split('/').next()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (room != "lib" && room != "main").then_some(room)
}

/// Names that stand first behind `crate::`, those of a list in braces too, with the line each begins on.
fn imports(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<(usize, &str)> = code(text).collect();
    let mut names = Vec::new();
    for (index, (at, line)) in lines.iter().enumerate() {
        for (found, _) in line.match_indices("crate::") {
            let behind = &line[found + "crate::".len()..];
            let before = line[..found].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue; // `some_crate::`
            }
            if let Some(list) = behind.strip_prefix('{') {
                let rest: String = lines[index + 1..].iter().map(|(_, line)| *line).collect();
                names.extend(heads_of_list(&format!("{list}{rest}")).into_iter().map(|name| (*at, name)));
            } else {
                names.push((*at, word(behind)));
            }
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first word of each entry of a list whose opening brace was read: `a::{b, c}, d}` → a, d.
fn heads_of_list(text: &str) -> Vec<String> {
    let (mut depth, mut entry, mut heads) = (0, true, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => entry = true,
            c if entry && (c.is_alphanumeric() || c == '_') => {
                heads.push(word(&text[at..]));
                entry = false;
            }
            _ => {}
        }
    }
    heads
}

/// How many `super`s lead from a file to the crate's root.
fn depth(file: &str) -> usize {
    let parts: Vec<&str> = file.trim_start_matches("src/").split('/').collect();
    parts.len() - usize::from(parts.last() == Some(&"mod.rs"))
}

#[test]
fn a_room_imports_only_the_rooms_its_row_names() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let Some(room) = room_of(&file) else { continue };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            broken.push(format!("{file}: the room `{room}` has no row in tests/rooms.rs"));
            continue;
        };
        for (line, name) in imports(&text) {
            let open = name == room || name == "error" || ROOT.contains(&name.as_str());
            if !open && !allowed.contains(&name.as_str()) {
                broken.push(format!("{file}:{line}: `{room}` may not import `{name}`: its row allows {allowed:?}"));
            }
        }
        for (line, content) in code(&text) {
            if content.contains(&"super::".repeat(depth(&file))) {
                broken.push(format!("{file}:{line}: leaves its room by `super`: write `crate::`"));
            }
            if let Some(alias) = ALIASES.iter().find(|alias| content.contains(*alias)) {
                broken.push(format!("{file}:{line}: `{alias}` hides what is imported: name it in full"));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// An import nobody needs any more leaves the table, or the table stops telling the truth.
#[test]
fn every_import_that_the_table_allows_is_used() {
    let sources = sources();
    for (room, allowed) in ROOMS {
        let used: Vec<String> = sources
            .iter()
            .filter(|(file, _)| room_of(file) == Some(room))
            .flat_map(|(_, text)| imports(text).into_iter().map(|(_, name)| name))
            .collect();
        for name in allowed {
            assert!(used.iter().any(|n| n == name), "`{room}` imports nothing of `{name}`: take it off its row");
        }
    }
}

#[test]
fn the_table_has_no_circle_and_the_value_wing_no_device() {
    for (index, (room, allowed)) in ROOMS.iter().enumerate() {
        for name in *allowed {
            let at = ROOMS.iter().position(|(r, _)| r == name);
            assert!(at.is_some_and(|at| at < index), "`{room}` names `{name}`, which does not stand above it");
        }
    }
    let device = ["machine", "ops", "clock", "models", "collectives", "corun", "suite", "monitor"];
    for room in ["records", "shape", "cost", "pipeline", "trace", "fill", "import", "export", "report"] {
        let (_, allowed) = ROOMS.iter().find(|(name, _)| *name == room).unwrap();
        assert!(!allowed.iter().any(|name| device.contains(name)), "`{room}` would touch hardware");
    }
}

#[test]
fn cudarc_is_named_only_where_devices_are() {
    for (file, text) in sources() {
        if CUDARC.iter().any(|folder| file.starts_with(folder)) {
            continue;
        }
        for (line, content) in code(&text) {
            assert!(!content.contains("cudarc"), "{file}:{line} names cudarc: only {CUDARC:?} may");
        }
    }
}

/// The root denies unsafe code and lets some rooms have it; no file may let itself have it.
#[test]
fn unsafe_code_is_allowed_only_where_lib_rs_says_so() {
    let mut allowed = Vec::new();
    for (file, text) in sources() {
        let lines: Vec<(usize, &str)> = code(&text).collect();
        for (index, (line, content)) in lines.iter().enumerate() {
            if !content.contains("unsafe_code") || content.contains("deny(unsafe_code)") {
                continue;
            }
            assert_eq!(file, "src/lib.rs", "{file}:{line} allows itself unsafe code");
            assert_eq!(*content, "#[allow(unsafe_code)]", "{file}:{line}");
            let module = lines.get(index + 1).map_or("", |(_, next)| next);
            allowed.push(module.trim_start_matches("pub mod ").trim_end_matches(';').to_string());
        }
    }
    assert_eq!(allowed, UNSAFE);
    assert!(fs::read_to_string(root().join("src/lib.rs")).unwrap().contains("#![deny(unsafe_code)]"));
}

/// `lib.rs` declares the rooms that are there, and its picture shows no other. Words in brackets explain and do not count.
#[test]
fn the_picture_in_lib_rs_shows_the_rooms_that_are_there() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut rooms: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    rooms.sort_unstable();
    assert_eq!(declared, rooms, "the modules of lib.rs and the rows of tests/rooms.rs");

    let doc: Vec<&str> = lib.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let fences: Vec<usize> = (0..doc.len()).filter(|&i| doc[i].trim_start().starts_with("```")).collect();
    let picture = doc[fences[0] + 1..fences[1]].join("\n");
    let mut shown = Vec::new();
    let mut bracket = 0;
    for part in picture.split_inclusive(|c: char| c.is_whitespace() || c == '(' || c == ')') {
        let name = part.trim_matches(|c: char| !c.is_alphanumeric());
        // Files and folders are written with a dot or a slash.
        if bracket == 0 && !name.is_empty() && !part.contains(['.', '/', '<']) {
            shown.push(name.to_string());
        }
        bracket += part.matches('(').count();
        bracket -= part.matches(')').count();
    }
    for name in &shown {
        assert!(rooms.contains(&name.as_str()), "lib.rs draws a room `{name}` that is not there");
    }
    for room in rooms.iter().filter(|room| !["error", "nearest", "units", "stats", "cli"].contains(room)) {
        assert!(shown.iter().any(|name| name == room), "lib.rs does not draw the room `{room}`");
    }
}

#[test]
fn lists_in_braces_are_read_as_the_compiler_reads_them() {
    let text =
        "use crate::{Error, Result, cost::{fit, predict}, units};\nlet x = crate::stats::median;\n// crate::no\n";
    let names: Vec<(usize, String)> = imports(text);
    let expected = [(1, "Error"), (1, "Result"), (1, "cost"), (1, "units"), (2, "stats")];
    assert_eq!(names, expected.map(|(line, name)| (line, name.to_string())));
    assert_eq!((depth("src/cost/mod.rs"), depth("src/cost/fit.rs"), depth("src/units.rs")), (1, 2, 1));
}
