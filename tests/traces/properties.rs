//! Properties of every recording, on random ones.

use crate::planted::found;
use crate::recording::{ALL_REDUCE, PID, RECEIVE, Recording};
use crate::{bubbles, options, read};
use bubblebench::trace::profile::{self, Options};
use proptest::prelude::*;

/// Kernels of several kinds on two devices, in any order, overlapping as they please.
fn recordings() -> impl Strategy<Value = Recording> {
    let kernel = (0u64..3_000_000, 0u64..200_000, 0u64..2, 0usize..6, 0u64..4_000_000);
    let ranges = prop_oneof![Just(0usize), Just(1), Just(3)];
    (prop::collection::vec(kernel, 1..60), ranges).prop_map(|(kernels, ranges)| {
        let mut run = Recording::default();
        for (start, length, device, kind, launch) in kernels {
            let name = ["gemm", "flash", "adam", RECEIVE, ALL_REDUCE, "gemm"][kind];
            let index = run.kernel(1_000_000 + start, 1_000_000 + start + length, 7 + kind as u64, name);
            run.kernels[index].device = device;
            run.kernels[index].launch = (kind != 5).then_some(launch);
        }
        // A process numbers its launches in their order.
        run.kernels.sort_by_key(|k| (k.launch.is_none(), k.launch));
        run.kernels.iter_mut().zip(1..).for_each(|(kernel, number)| kernel.correlation = number);
        for step in 0..ranges as u64 {
            run.ranges.push((1_000_000 + step * 1_000_000, 2_000_000 + step * 1_000_000, format!("step {step}"), PID));
        }
        run
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_formats_say_the_same_and_what_they_say_holds(run in recordings()) {
        let folder = tempfile::tempdir().unwrap();
        let every = Options { min_gap_ns: 1, ..options() };
        let nsys = read(&[&run.nsys(folder.path(), "a.sqlite")], &every);
        let json = profile::read_json(run.json().as_bytes(), "a.json", &every)
            .and_then(|p| bubblebench::trace::run::assemble(vec![("a.json".into(), p)]));
        let (nsys, json) = match (nsys, json) {
            (Ok(a), Ok(b)) => (a, b),
            (a, b) => {
                // Only communication, or nothing within the ranges: refused in the same words.
                let words = |r: bubblebench::Result<bubblebench::trace::run::Analysis>| {
                    r.unwrap_err().to_string().split_once(' ').unwrap().1.to_string()
                };
                prop_assert_eq!(words(a), words(b));
                return Ok(());
            }
        };
        prop_assert_eq!(&nsys.record.devices, &json.record.devices);
        for (device, beside) in nsys.record.devices.iter().zip(&nsys.extras) {
            prop_assert_eq!(device.compute_ns + device.absent_ns, device.window_ns);
            prop_assert!(device.communication_ns <= device.window_ns, "{:?}", device);
            prop_assert!(beside.copy_ns <= device.window_ns);
            let listed: u64 = device.bubbles.iter().map(|b| b.length_ns()).sum();
            prop_assert_eq!(listed, device.absent_ns);
            let computing = |from: u64, to: u64| run.kernels.iter().any(|k| {
                k.device == device.device && !k.name.starts_with("nccl") && k.end > k.start && k.start < to && k.end > from
            });
            for b in &device.bubbles {
                prop_assert!(!computing(b.start_ns, b.end_ns), "a kernel runs in {:?}", b);
                let window = beside.iterations.iter().find(|i| i.0 == b.iteration).unwrap();
                let edge = (b.start_ns == window.1, b.end_ns == window.2);
                // Maximal: a kernel runs just before and just after, or the iteration begins or ends there.
                prop_assert!(edge.0 || computing(b.start_ns - 1, b.start_ns), "{:?}", b);
                prop_assert!(edge.1 || computing(b.end_ns, b.end_ns + 1), "{:?}", b);
            }
        }
    }

    /// The list does not depend on the order of the rows.
    #[test]
    fn any_order_of_rows_gives_the_same_list(run in recordings(), seed in any::<u64>()) {
        let folder = tempfile::tempdir().unwrap();
        let sorted = |run: &Recording, name: &str| {
            let mut run = run.clone();
            run.kernels.sort_by_key(|k| k.start);
            read(&[&run.nsys(folder.path(), name)], &options()).map(|r| r.record.devices)
        };
        let mut shuffled = run.clone();
        bubblebench::stats::SplitMix(seed).shuffle(&mut shuffled.kernels);
        let other = read(&[&shuffled.nsys(folder.path(), "b.sqlite")], &options()).map(|r| r.record.devices);
        let edges = |devices: bubblebench::Result<Vec<bubblebench::records::bubbles::DeviceBubbles>>| {
            devices.ok().map(|d| d.iter().flat_map(|d| d.bubbles.iter().map(|b| (b.start_ns, b.end_ns)).collect::<Vec<_>>()).collect::<Vec<_>>())
        };
        prop_assert_eq!(edges(sorted(&run, "a.sqlite")), edges(other));
    }
}

/// A few thousand random changes to right files: an answer or a sentence, never a panic.
#[test]
fn damaged_files_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (run, planted) = crate::planted::plant(1, 2);
    let mut random = bubblebench::stats::SplitMix(12);
    let sqlite = std::fs::read(run.nsys(folder.path(), "right.sqlite")).unwrap();
    let json = run.json().into_bytes();
    let gz = std::fs::read(run.kineto(folder.path(), "right.json.gz")).unwrap();
    let mut refused = 0;
    for (text, rounds) in [(&sqlite, 400), (&json, 400), (&gz, 100)] {
        for _ in 0..rounds {
            let mut text = text.clone();
            match random.below(3) {
                0 => text.truncate(random.below(text.len())),
                1 => (0..1 + random.below(20)).for_each(|_| {
                    let at = random.below(text.len());
                    text[at] = random.next_u64() as u8;
                }),
                _ => {
                    let (from, to) = (random.below(text.len()), random.below(text.len()));
                    text.drain(from.min(to)..from.max(to));
                }
            }
            let path = folder.path().join("damaged");
            std::fs::write(&path, &text).unwrap();
            if let Err(error) = read(&[&path], &options()) {
                refused += 1;
                let sentence = error.to_string();
                assert!(sentence.contains("damaged") && !sentence.contains('\n'), "{sentence}");
            }
        }
    }
    assert!(refused > 300, "{refused} of 900 were refused");
    let right = folder.path().join("right.sqlite");
    assert_eq!(found(&bubbles(&right)), planted);
}
