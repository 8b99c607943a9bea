//! The project's own code as text: what the rules of the house are held against.

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `src/`, by its path from the project's root, that is not a file of tests.
pub fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    found.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
    let files: Vec<(String, String)> =
        found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect();
    let tests: Vec<String> = files.iter().flat_map(|(file, text)| modules_of_tests(file, text)).collect();
    files.into_iter().filter(|(file, _)| !tests.iter().any(|of_tests| file.starts_with(of_tests))).collect()
}

/// Where the modules lie that a file declares for tests only: `src/corun/gate_tests.rs` and `src/models/gpt/tests/`.
pub fn modules_of_tests(file: &str, text: &str) -> Vec<String> {
    let folder = match file.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs")) => folder.to_string(),
        _ => file.trim_end_matches(".rs").to_string(),
    };
    let mut modules = Vec::new();
    for rest in text.split("#[cfg(test)]\n").skip(1) {
        let first = rest.lines().next().unwrap_or_default();
        let path = first.strip_prefix("#[path = \"").and_then(|path| path.strip_suffix("\"]"));
        if let (Some(path), Some((beside, _))) = (path, file.rsplit_once('/')) {
            modules.push(format!("{beside}/{path}"));
        } else if let Some(name) = first.trim().strip_prefix("mod ").and_then(|name| name.strip_suffix(';')) {
            modules.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/")]);
        }
    }
    modules
}

/// The numbered lines that are neither comment nor part of the file's module of tests.
pub fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..tests].lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn only_tests_are_left_out_of_the_code() {
    assert_eq!(modules_of_tests("src/a/mod.rs", "#[cfg(test)]\nmod tests;\n"), ["src/a/tests.rs", "src/a/tests/"]);
    assert_eq!(modules_of_tests("src/a/b.rs", "#[cfg(test)]\n#[path = \"c.rs\"]\nmod tests;\n"), ["src/a/c.rs"]);
    let text = "a\n// b\n#[cfg(test)]\nmod tests;\nc\n#[cfg(test)]\nmod tests {\n    d\n}\n";
    assert_eq!(code(text).map(|(_, line)| line).collect::<Vec<_>>(), ["a", "#[cfg(test)]", "mod tests;", "c"]);
    let files: Vec<String> = sources().into_iter().map(|(file, _)| file).collect();
    assert!(files.contains(&"src/import/nccl_tests/records.rs".to_string()), "a name is no sign of tests");
    assert!(!files.contains(&"src/corun/gate_tests.rs".to_string()));
}
