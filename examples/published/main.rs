//! Makes the cost models of published figures again, from the tables beside them:
//!
//!     cargo run --example published
//!
//! `… published -- --check` writes nothing and exits with 1 where a file differs. Folders can be named, as in
//! `… published -- results/published/b200`; without any, all below `results/published` that hold a `published.json`.

use bubblebench::import::published::{Published, folders};
use bubblebench::records::{CostModel, files};
use bubblebench::{Result, cost};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (check, named): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word == "--check");
    match run(!check.is_empty(), &named) {
        Ok(different) if different.is_empty() => ExitCode::SUCCESS,
        Ok(different) => {
            let different: Vec<String> = different.iter().map(|folder| folder.display().to_string()).collect();
            eprintln!("published: not what the tables make: {}; run without --check", different.join(", "));
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("published: {error}");
            ExitCode::from(2)
        }
    }
}

/// Makes or checks every folder; the ones that differ, where nothing may be written.
fn run(check: bool, named: &[String]) -> Result<Vec<PathBuf>> {
    let all = match named {
        [] => folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results/published"))?,
        named => named.iter().map(PathBuf::from).collect(),
    };
    let mut different = Vec::new();
    for folder in all {
        let published = Published::read(&folder)?;
        let fitted = cost::fit(&published.records, &published.machine, "")?;
        for note in published.notes.iter().chain(&fitted.notes) {
            println!("{}: {note}", published.machine.name);
        }
        println!("{}", summary(&published, &fitted.model));
        let content = published.file(fitted.model)?;
        if published.holds(&content)? {
            continue;
        }
        match check {
            true => different.push(folder),
            false => files::write_atomic(&published.path(), content.as_bytes())?,
        }
    }
    Ok(different)
}

/// What a folder's tables became, and the error on what was held out.
fn summary(published: &Published, model: &CostModel) -> String {
    let mut text = format!(
        "{}: {} records, {} layers, {} collectives; held out:",
        published.machine.name,
        published.records.len(),
        model.layer.len(),
        model.collectives.len()
    );
    for part in &model.accuracy {
        text.push_str(&format!(
            " {} {:.1} % (worst {:.1} %, {} cases);",
            part.what, part.mape_percent, part.worst_percent, part.held_out
        ));
    }
    if model.accuracy.is_empty() {
        text.push_str(" nothing, there are too few rows");
    }
    text.trim_end_matches(';').to_string()
}
