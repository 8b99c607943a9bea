//! One profile a rank: order, numbers, clocks, and the places of bubbles in the schedule.

use crate::recording::{ALL_REDUCE, RECEIVE, Recording};
use crate::{bubbles, options, read};
use bubblebench::report::Screen;
use bubblebench::report::bubbles::render;
use bubblebench::stats::SplitMix;
use std::path::PathBuf;

const EPOCH: u64 = 1_760_000_000_000_000_000;

/// The same moments on a clock that shows `clock` ns more, in a session that began `later` ns after the first.
fn rank(number: u64, later: u64, clock: i64, random: &mut SplitMix) -> Recording {
    let mut run =
        Recording { rank: Some(number), epoch: Some((EPOCH + later).wrapping_add_signed(clock)), ..Default::default() };
    let local = |time: u64| time - later;
    for step in 0..20u64 {
        let begin = 5_000_000_000 + step * 20_000_000;
        run.range(local(begin), local(begin + 20_000_000), &format!("iteration {step}"));
        let wait = 1_000_000 * (number + 1) + random.below(50_000) as u64;
        run.kernel(local(begin + wait), local(begin + 9_000_000), 7, "gemm");
        // Ends on every rank within 2 µs.
        let end = begin + 15_000_000 + random.below(2_000) as u64;
        run.kernel(local(begin + 9_500_000 + random.below(400_000) as u64), local(end), 21, ALL_REDUCE);
        run.kernel(local(end + 5_000), local(begin + 19_000_000), 7, "adam");
    }
    run
}

fn starts_of_iteration(files: &[&PathBuf]) -> Vec<u64> {
    read(files, &options()).unwrap().extras.iter().map(|b| b.iterations[3].1).collect()
}

#[test]
fn clocks_of_ranks_are_brought_together_by_their_collectives() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix(6);
    let sessions = [(0, 0), (700_000_000, 3_000_000), (40_000_000, -9_000_000)];
    let ranks: Vec<Recording> =
        sessions.iter().enumerate().map(|(i, s)| rank(i as u64, s.0, s.1, &mut random)).collect();
    let nsys: Vec<PathBuf> =
        ranks.iter().enumerate().map(|(i, r)| r.nsys(folder.path(), &format!("{i}.sqlite"))).collect();
    let json: Vec<PathBuf> =
        ranks.iter().enumerate().map(|(i, r)| r.kineto(folder.path(), &format!("{i}.json"))).collect();
    for files in [&nsys, &json] {
        let all: Vec<&PathBuf> = files.iter().collect();
        let starts = starts_of_iteration(&all);
        assert!(starts.iter().all(|s| s.abs_diff(starts[0]) < 3_000), "{starts:?}");
        assert!(starts.contains(&5_060_000_000), "the earliest session keeps its own times: {starts:?}");
        let run = read(&all, &options()).unwrap();
        assert_eq!(run.record.devices.iter().map(|d| d.device).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(run.notes.iter().any(|n| n.contains("corrected by common collectives for 2 of 2")), "{:?}", run.notes);
        // What a device did does not depend on the clock it is told by.
        for (file, device) in files.iter().zip(&run.record.devices) {
            let alone = &bubbles(file).devices[0];
            assert_eq!((alone.window_ns, alone.compute_ns), (device.window_ns, device.compute_ns));
            let lengths = |d: &bubblebench::records::bubbles::DeviceBubbles| -> Vec<_> {
                d.bubbles.iter().map(|b| (b.length_ns(), b.class)).collect()
            };
            assert_eq!(lengths(alone), lengths(device));
        }
    }
}

#[test]
fn files_that_say_their_ranks_are_put_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix(7);
    let files: Vec<PathBuf> =
        (0..3).map(|i| rank(i, 0, 0, &mut random).kineto(folder.path(), &format!("{i}.json.gz"))).collect();
    let record = read(&[&files[2], &files[0], &files[1]], &options()).unwrap().record;
    let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    assert_eq!(record.source, names.join(", "));
    let waits: Vec<u64> = record.devices.iter().map(|d| d.bubbles[0].length_ns() / 1_000_000).collect();
    assert_eq!(waits, [1, 2, 3]);
}

#[test]
fn the_report_shows_every_device_and_what_its_bubbles_are() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..2u64)
        .map(|stage| {
            let mut run = Recording { epoch: Some(EPOCH), ..Default::default() };
            run.range(1_000_000, 11_000_000, "iteration 0");
            run.kernel(1_000_000 + stage * 1_000_000, 4_000_000, 7, "gemm");
            run.kernel(4_000_000, 6_000_000, 20, RECEIVE);
            run.kernel(6_000_000, 8_000_000, 7, "gemm");
            run.kernel(8_000_100, 9_000_000, 20, RECEIVE);
            run.kernel(9_000_000, 10_000_000, 7, "gemm");
            run.nsys(folder.path(), &format!("{stage}.sqlite"))
        })
        .collect();
    let run = read(&[&files[0], &files[1]], &options()).unwrap();
    let text = render(&run, 10_000, Screen::wide(44));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.contains(&"0 │████████████dddddddd████████dddd████tttt│"), "{text}");
    assert!(lines.contains(&"1 │llll████████dddddddd████████dddd████tttt│"), "{text}");
    let text = render(&run, 10_000, Screen::default());
    assert!(text.contains("rank, as 1F1B") && text.contains("0.4000") && text.contains("0.5000"), "{text}");
    // Stage 0: the longest wait is the one before its first backward, the other its cool-down.
    let rows = text.lines().skip_while(|l| !l.starts_with("Where")).map(|l| l.split(['│', '┆']).map(str::trim));
    let cells: Vec<&str> = rows.map(Iterator::collect::<Vec<_>>).find(|cells| cells.get(1) == Some(&"0")).unwrap();
    assert_eq!(cells[2..7], ["–", "1 × 2.000 ms", "–", "1 × 1.000 ms", "1 × 1.000 ms"], "{text}");
}
