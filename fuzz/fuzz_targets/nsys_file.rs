#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bubblebench_fuzz::file(data));
