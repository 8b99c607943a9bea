//! job.toml: a job or a sentence.
#![no_main]

use bubblebench::pipeline::job::Job;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = Job::parse(Path::new("job.toml"), text) {
        let sentence = error.to_string();
        assert!(!sentence.contains('\n') && sentence.contains("; "), "{sentence}");
    }
});
