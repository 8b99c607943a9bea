//! Runs with bubbles planted into them: every one must be found, to the nanosecond and with its class, and no other.

use crate::recording::{ALL_REDUCE, RECEIVE, Recording};
use crate::{bubbles, options, read};
use bubblebench::records::bubbles::{BubbleClass, BubblesRecord};
use bubblebench::stats::SplitMix;
use bubblebench::trace::profile::Options;

/// Iteration, start, end, class.
pub type Planted = Vec<(u64, u64, u64, BubbleClass)>;

const MIN_GAP: u64 = 10_000;

/// Compute on two streams from `start`: kernels that overlap or follow after less than the smallest bubble. Returns its
/// end, and the index of its first kernel.
fn compute(run: &mut Recording, random: &mut SplitMix, start: u64) -> (u64, usize) {
    let names = ["sm80_gemm_tn", "flash_fwd_kernel", "void layer_norm<float, 4>(float*, \"x\")", "gelu"];
    let (mut end, first) = (start, run.kernels.len());
    for index in 0..1 + random.below(6) {
        let from = if index == 0 { start } else { end + random.below(9_000) as u64 - random.below(4_000) as u64 };
        // Long enough that what begins beside it does not reach into the gap before.
        let least = if index == 0 { 60_000 } else { 1 };
        let to = from.max(end) + least + random.below(200_000) as u64;
        run.kernel(from.max(start), to, 7 + random.below(2) as u64, names[random.below(4)]);
        end = end.max(to);
    }
    (end, first)
}

/// Several iterations with bubbles of every class.
pub fn plant(seed: u64, iterations: u64) -> (Recording, Planted) {
    let mut random = SplitMix(seed);
    let (mut run, mut planted) = (Recording::default(), Vec::new());
    let mut at = 5_000_000;
    for iteration in 0..iterations {
        let begin = at;
        // A start that waits for a message, or none.
        if random.below(2) == 0 {
            at += MIN_GAP + random.below(3_000_000) as u64;
            run.kernel(begin + 700, at, 20, RECEIVE);
            planted.push((iteration, begin, at, BubbleClass::Dependency));
        }
        for gap in 0..2 + random.below(12) {
            let first = run.kernels.len();
            if gap > 0 {
                let class = gap_before(&mut run, &mut random, &mut at);
                planted.push((iteration, class.0, at, class.1));
                let late = class.1 == BubbleClass::Launch;
                let (end, next) = compute(&mut run, &mut random, at);
                if late {
                    let within = random.below((at - class.0) as usize) as u64;
                    run.kernels[next].launch = Some(class.0 + 1 + within.min(at - class.0 - 1));
                } else {
                    run.kernels[next].launch = Some(class.0 - random.below(90_000) as u64);
                }
                at = end;
            } else {
                at = compute(&mut run, &mut random, at).0;
                run.kernels[first].launch = Some(begin - 1_000);
            }
        }
        let tail = MIN_GAP + random.below(2_000_000) as u64;
        planted.push((iteration, at, at + tail, BubbleClass::Tail));
        at += tail;
        // The host's range ends a little before the next one begins.
        run.range(begin, at - 300 - random.below(5_000) as u64, &format!("iteration {iteration}"));
    }
    // The last iteration ends with its range.
    let last = run.ranges.last().unwrap().1;
    planted.last_mut().unwrap().2 = last;
    (run, planted.into_iter().filter(|p| p.2 - p.1 >= MIN_GAP).collect())
}

/// A gap from `at`, which moves to its end; its start and class.
fn gap_before(run: &mut Recording, random: &mut SplitMix, at: &mut u64) -> (u64, BubbleClass) {
    let (start, length) = (*at, MIN_GAP + random.below(4_000_000) as u64);
    *at += length;
    let class = match random.below(5) {
        0 => {
            // The receive kernel spins from early on, beside compute, and through the gap; sometimes two of them.
            run.kernel(start - random.below(3_000) as u64, start + length / 2, 20, RECEIVE);
            run.kernel(start + length / 2 + 10, *at, 20, RECEIVE);
            BubbleClass::Dependency
        }
        1 => {
            // A message beside an all-reduce: the peer comes first.
            run.kernel(start + 1, *at, 21, ALL_REDUCE);
            run.kernel(start + length / 3, start + length / 2, 20, RECEIVE);
            BubbleClass::Dependency
        }
        2 => {
            // Begun beside compute, and still running when that is over: exposed.
            run.kernel(
                start.saturating_sub(50_000),
                start + 1 + random.below(length as usize - 1) as u64,
                21,
                ALL_REDUCE,
            );
            BubbleClass::Communication
        }
        3 => BubbleClass::Launch,
        _ => {
            // Nothing but a copy: its stream waits for it.
            run.copies.push((start + 10, *at - 5, 0));
            BubbleClass::Dependency
        }
    };
    (start, class)
}

pub fn found(record: &BubblesRecord) -> Planted {
    record.devices[0].bubbles.iter().map(|b| (b.iteration, b.start_ns, b.end_ns, b.class)).collect()
}

#[test]
fn every_planted_bubble_is_found_in_every_format_and_none_is_invented() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        let (run, planted) = plant(seed, 3);
        let files = [
            run.nsys(folder.path(), &format!("{seed}.sqlite")),
            run.kineto(folder.path(), &format!("{seed}.json")),
            run.kineto(folder.path(), &format!("{seed}.json.gz")),
        ];
        let records: Vec<BubblesRecord> = files.iter().map(|f| bubbles(f)).collect();
        assert_eq!(found(&records[0]), planted, "seed {seed}");
        for record in &records[1..] {
            assert_eq!(record.devices, records[0].devices, "seed {seed}: the formats differ");
        }
        let device = &records[0].devices[0];
        assert_eq!((device.iterations, device.compute_ns + device.absent_ns), (3, device.window_ns));
    }
}

#[test]
fn one_iteration_is_a_part_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let (run, planted) = plant(77, 4);
    for file in [run.nsys(folder.path(), "a.sqlite"), run.kineto(folder.path(), "a.json")] {
        let mut sum = 0;
        for iteration in 0..4 {
            let record = read(&[&file], &Options { iteration: Some(iteration), ..options() }).unwrap().record;
            let wanted: Planted = planted.iter().copied().filter(|p| p.0 == iteration).collect();
            assert_eq!(found(&record), wanted);
            assert_eq!(record.devices[0].iterations, 1);
            sum += record.devices[0].window_ns;
        }
        assert_eq!(sum, bubbles(&file).devices[0].window_ns);
        let error = read(&[&file], &Options { iteration: Some(4), ..options() }).unwrap_err().to_string();
        assert!(error.contains("--iteration 4") && error.contains("4 iterations"), "{error}");
    }
}

#[test]
fn short_bubbles_are_in_the_totals_only() {
    let folder = tempfile::tempdir().unwrap();
    let (run, planted) = plant(5, 3);
    let file = run.nsys(folder.path(), "a.sqlite");
    let all = bubbles(&file);
    for min_gap_ns in [1, 100_000, 1_000_000, 1_000_000_000] {
        let record = read(&[&file], &Options { min_gap_ns, ..options() }).unwrap().record;
        assert!(record.devices[0].bubbles.iter().all(|b| b.length_ns() >= min_gap_ns));
        assert_eq!(record.devices[0].absent_ns, all.devices[0].absent_ns);
        if min_gap_ns == 1 {
            let listed: u64 = record.devices[0].bubbles.iter().map(|b| b.length_ns()).sum();
            assert_eq!(listed, record.devices[0].absent_ns, "with every bubble listed, the list is the total");
        } else {
            let wanted: Planted = planted.iter().copied().filter(|p| p.2 - p.1 >= min_gap_ns).collect();
            assert_eq!(found(&record), wanted);
        }
    }
}

#[test]
fn rows_in_any_order_give_the_same_list() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, planted) = plant(9, 100);
    SplitMix(3).shuffle(&mut run.kernels);
    // More rows than the window that sorts what is nearly in order, the earliest of them last.
    let filler: Vec<_> = run.kernels.iter().cycle().take(40_000).cloned().collect();
    let early = run.kernels.iter().min_by_key(|k| k.start).unwrap().clone();
    run.kernels.extend(filler);
    run.kernels.push(early);
    let file = run.nsys(folder.path(), "a.sqlite");
    assert_eq!(found(&bubbles(&file)), planted);
}
