//! What the program says of itself: help of every command, the manual, the schemas of its files.

use crate::hold::{Golden, ROOT, json, narrow, run, text};
use bubblebench::cli::Cli;
use clap::CommandFactory;
use std::path::Path;

/// The program's and every command's at 80 columns, walked from the commands themselves: a new one is held as soon as it is there.
pub fn help() -> Vec<Golden> {
    let mut goldens = Vec::new();
    walk(&Cli::command(), &[], &mut goldens);
    goldens.push(Golden::new("man", || text(Path::new(ROOT), &["man"])));
    goldens.push(Golden::new("man-predict-layer", || text(Path::new(ROOT), &["man", "predict", "layer"])));
    goldens
}

fn walk(command: &clap::Command, path: &[String], goldens: &mut Vec<Golden>) {
    let name = std::iter::once("help").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let arguments: Vec<String> = path.iter().cloned().chain(["--help".to_string()]).collect();
    goldens.push(Golden::new(name, move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        narrow(Path::new(ROOT), &arguments)
    }));
    for below in command.get_subcommands() {
        walk(below, &[path, &[below.get_name().to_string()]].concat(), goldens);
    }
}

/// Every kind of file, as the program lists them where it does not know one.
pub fn schemas() -> Vec<Golden> {
    let refused = String::from_utf8(run(Path::new(ROOT), &["schema", "of-nothing"]).stderr).unwrap();
    let (_, kinds) = refused.trim_end().split_once("known are ").unwrap();
    let kinds: Vec<String> = kinds.split(", ").map(String::from).collect();
    assert!(kinds.len() >= 9, "{refused}");
    let golden =
        |kind: String| Golden::new(format!("schema-{kind}.json"), move || json(Path::new(ROOT), &["schema", &kind]));
    kinds.into_iter().map(golden).collect()
}
