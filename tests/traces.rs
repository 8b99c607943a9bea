//! Profiles of real runs: bubbles planted into recordings are found in both formats, whatever the exports lack; ranks are
//! brought onto one clock; bad files are answered with a sentence.

mod traces {
    pub mod bad;
    pub mod exports;
    pub mod iterations;
    pub mod planted;
    pub mod properties;
    pub mod ranks;
    pub mod recording;
}

use bubblebench::Result;
use bubblebench::records::BubblesRecord;
use bubblebench::trace::profile::Options;
use bubblebench::trace::run::{self, Analysis};
use std::path::{Path, PathBuf};
pub use traces::{planted, recording};

pub fn options() -> Options {
    Options { min_gap_ns: 10_000, ..Options::default() }
}

pub fn read(files: &[&PathBuf], options: &Options) -> Result<Analysis> {
    let paths: Vec<PathBuf> = files.iter().map(|f| (*f).clone()).collect();
    run::read(&paths, options)
}

pub fn bubbles(file: &Path) -> BubblesRecord {
    run::read(&[file.to_path_buf()], &options()).unwrap().record
}
