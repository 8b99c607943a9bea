//! A list of operations: a schedule that runs to its end, or a sentence.
#![no_main]

use bubblebench::pipeline::{StageTimes, Times, given, simulate};
use std::path::Path;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    match given::parse(Path::new("order.json"), json) {
        Ok(schedule) => {
            let times = Times::even(schedule.stages, StageTimes::new(3, 2, 1), 1);
            assert!(simulate(schedule, times).is_ok());
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.contains('\n') && sentence.contains("; "), "{sentence}");
        }
    }
});
