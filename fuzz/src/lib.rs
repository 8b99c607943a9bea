//! What the fuzz targets feed and what must hold: an answer or a sentence, and of an answer that its numbers add up.

mod nsys;

pub use nsys::{file, rows};

use bubblebench::Result;
use bubblebench::trace::profile::{self, Options, Profile};
use bubblebench::trace::run::{self, Run};

pub fn options() -> Options {
    Options { min_gap_ns: 1, ..Options::default() }
}

/// A Kineto or Chrome trace of these bytes.
pub fn kineto(text: &[u8]) {
    check(profile::read_json(text, "fuzz.json", &options()));
}

/// What must hold of every answer.
pub fn check(profile: Result<Profile>) {
    match profile.and_then(|p| run::assemble(vec![("fuzz".into(), p)])) {
        Ok(run) => holds(&run),
        Err(error) => {
            let sentence = error.to_string();
            assert!(!sentence.contains('\n') && sentence.contains("; "), "{sentence}");
        }
    }
}

fn holds(run: &Run) {
    assert!(!run.record.devices.is_empty());
    for (device, beside) in run.record.devices.iter().zip(&run.beside) {
        assert_eq!(device.compute_ns + device.absent_ns, device.window_ns);
        assert_eq!(device.iterations, beside.iterations.len() as u64);
        let listed: u64 = device.bubbles.iter().map(|b| b.length_ns()).sum();
        assert_eq!(listed, device.absent_ns, "every bubble is listed");
        for pair in device.bubbles.windows(2) {
            assert!(pair[0].end_ns <= pair[1].start_ns, "{pair:?}");
        }
        for bubble in &device.bubbles {
            let window = beside.iterations.iter().find(|i| i.0 == bubble.iteration);
            assert!(window.is_some_and(|w| w.1 <= bubble.start_ns && bubble.end_ns <= w.2), "{bubble:?}");
        }
    }
    let text = bubblebench::report::bubbles::render(run, 1, 80);
    assert!(text.contains("Devices"));
}
