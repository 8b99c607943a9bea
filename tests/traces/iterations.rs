//! Iterations: from ranges, from what repeats, and where the host is far ahead of the device.

use crate::recording::{PID, RECEIVE, Recording};
use crate::{bubbles, options, read};
use bubblebench::records::BubblesRecord;
use bubblebench::records::bubbles::BubbleClass;
use bubblebench::stats::SplitMix;
use bubblebench::trace::profile::Options;
use bubblebench::trace::run::Analysis;

/// A stage of 1F1B, `iterations` times: 3 forwards, a wait, 5 × (backward, forward), 3 × (wait, backward); every pass is
/// the same kernels. Between iterations `pause` passes, with an optimizer's kernels in it if asked for.
fn stage(iterations: u64, pause: u64, optimizer: bool) -> (Recording, Vec<u64>) {
    let (mut run, mut starts, mut at) = (Recording::default(), Vec::new(), 3_000_000);
    let mut random = SplitMix(8);
    for _ in 0..iterations {
        starts.push(at);
        let mut passes = |run: &mut Recording, count: u64| {
            for _ in 0..count {
                for name in ["gemm", "flash", "gelu", "gemm"] {
                    let length = 90_000 + random.below(5_000) as u64;
                    run.kernel(at, at + length, 7, name);
                    at += length + 1_000;
                }
            }
            at
        };
        let mut end = passes(&mut run, 3);
        let mut waits = vec![(2_900_000, 1)];
        waits.extend([(150_000, 2); 5]);
        waits.extend([(400_000, 1); 3]);
        for (wait, count) in waits {
            run.kernel(end, end + wait, 20, RECEIVE);
            at = end + wait;
            for _ in 0..count * 4 {
                run.kernel(at, at + 90_000, 7, "gemm");
                at += 91_000;
            }
            end = at;
        }
        if optimizer {
            for _ in 0..10 {
                run.kernel(at, at + 8_000, 7, "zero_fill");
                run.kernel(at + 10_000, at + 40_000, 7, "multi_tensor_apply_kernel<FusedAdamMathFunctor>");
                at += 42_000;
            }
        }
        at += pause;
    }
    (run, starts)
}

fn both(run: &Recording) -> Analysis {
    let folder = tempfile::tempdir().unwrap();
    let nsys = read(&[&run.nsys(folder.path(), "a.sqlite")], &options()).unwrap();
    let json = read(&[&run.kineto(folder.path(), "a.json")], &options()).unwrap();
    assert_eq!(nsys.record.devices, json.record.devices);
    nsys
}

fn starts(run: &Analysis) -> Vec<u64> {
    run.extras[0].iterations.iter().map(|i| i.1).collect()
}

#[test]
fn without_ranges_an_iteration_begins_behind_the_optimizer() {
    for pause in [0, 2_000, 900_000] {
        let (run, wanted) = stage(4, pause, true);
        let read = both(&run);
        assert_eq!(starts(&read), wanted, "pause {pause}");
        assert!(read.notes.iter().any(|n| n.contains("cut where its kernels repeat")), "{:?}", read.notes);
        let tails = |r: &BubblesRecord| r.devices[0].bubbles.iter().filter(|b| b.class == BubbleClass::Tail).count();
        // The last iteration ends with its last kernel.
        assert_eq!(tails(&read.record), if pause > 10_000 { 3 } else { 0 });
    }
}

#[test]
fn without_an_optimizer_the_shortest_period_of_the_whole_is_taken() {
    for iterations in [2, 3, 6] {
        let (run, wanted) = stage(iterations, 700_000, false);
        let read = both(&run);
        assert_eq!(starts(&read), wanted, "{iterations} iterations");
        let device = &read.record.devices[0];
        assert_eq!(device.iterations, iterations);
        let per_iteration = |k| device.bubbles.iter().filter(|b| b.iteration == k).count();
        assert!((0..iterations - 1).all(|k| per_iteration(k) == 10) && per_iteration(iterations - 1) == 9);
    }
}

#[test]
fn what_does_not_repeat_is_one_iteration_and_said() {
    let mut run = Recording::default();
    let mut random = SplitMix(4);
    let mut at = 1_000_000;
    for index in 0..40 {
        at += 15_000 + random.below(700_000) as u64;
        run.kernel(at, at + 50_000, 7, &format!("kernel_{}", index * index % 37));
        at += 50_000;
    }
    let read = both(&run);
    assert_eq!(read.record.devices[0].iterations, 1);
    assert_eq!(read.record.devices[0].bubbles.len(), 39);
    assert!(read.notes.iter().any(|n| n.contains("counts as one")), "{:?}", read.notes);
}

#[test]
fn the_steady_part_of_one_iteration_is_no_period() {
    let (run, wanted) = stage(1, 0, false);
    assert_eq!(starts(&both(&run)), wanted);
}

#[test]
fn ranges_of_parts_are_not_taken_for_iterations() {
    let (mut run, wanted) = stage(3, 500_000, false);
    let end = run.kernels.last().unwrap().end;
    for (index, &start) in wanted.iter().enumerate() {
        let next = wanted.get(index + 1).copied().unwrap_or(end);
        run.range(start - 100, next - 200, &format!("ProfilerStep#{}", index + 7));
        run.range(start, start + 5_000, "Optimizer.step#AdamW.step");
        for part in 0..8 {
            run.range(start + part * 1_000, start + part * 1_000 + 900, &format!("step of micro-batch {part}"));
            run.range(start + part * 1_000, start + part * 1_000 + 900, "train_step_inner");
        }
    }
    let cuts: Vec<u64> = wanted.iter().map(|s| s - 100).collect();
    assert_eq!(starts(&both(&run)), cuts);
}

#[test]
fn an_iteration_is_cut_by_when_its_kernels_run() {
    // The host launches a step in 20 µs, the device takes 1 ms for it: ranges are over before the first step is.
    let mut run = Recording::default();
    let mut device = 1_050_000;
    let mut wanted = Vec::new();
    for step in 0..8u64 {
        let host = 1_000_000 + step * 20_000;
        run.range(host, host + 20_000, &format!("iteration {step}"));
        wanted.push(device);
        for part in 0..10 {
            let kernel = run.kernel(device, device + 80_000, 7, "gemm");
            run.kernels[kernel].launch = Some(host + 1_000 + part * 1_500);
            device += 80_000 + if part == 4 { 120_000 } else { 1_000 };
        }
    }
    let read = both(&run);
    assert_eq!(starts(&read), wanted);
    let bubbles = &read.record.devices[0].bubbles;
    assert_eq!(bubbles.iter().map(|b| b.iteration).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// Every step is one launch of a graph that was recorded as a whole, with other kernels beside it or none at all.
#[test]
fn an_iteration_is_cut_by_when_its_graph_runs() {
    let folder = tempfile::tempdir().unwrap();
    for beside in [true, false] {
        let mut run = Recording::default();
        let mut wanted = Vec::new();
        for step in 0..8u64 {
            let (host, device) = (1_000_000 + step * 20_000, 1_050_000 + step * 1_000_000);
            run.range(host, host + 20_000, &format!("iteration {step}"));
            run.graphs.push((device, device + 800_000, 0, 5));
            // The call that launches the graph; its kernel gives the row to be renumbered.
            let kernel = run.kernel(device + 850_000, device + 900_000, 7, "gemm");
            run.kernels[kernel].launch = Some(host + 1_000);
            wanted.push(device);
        }
        let file = run.nsys_with(folder.path(), &format!("{beside}.sqlite"), |db| {
            let graphs = "UPDATE CUPTI_ACTIVITY_KIND_GRAPH_TRACE SET correlationId = rowid;
                UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET correlationId = correlationId + 100000";
            db.execute_batch(graphs).unwrap();
            if !beside {
                db.execute_batch("DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL").unwrap();
            }
        });
        assert_eq!(starts(&read(&[&file], &options()).unwrap()), wanted, "kernels beside: {beside}");
    }
}

/// The first kernel of each step is on a stream that was not asked for, and says all the same when the step runs.
#[test]
fn kernels_of_other_streams_say_when_an_iteration_runs() {
    let mut run = Recording::default();
    let mut device = 1_050_000;
    for step in 0..8u64 {
        let host = 1_000_000 + step * 20_000;
        run.range(host, host + 20_000, &format!("iteration {step}"));
        for part in 0..10 {
            let kernel = run.kernel(device, device + 80_000, if part == 0 { 30 } else { 7 }, "gemm");
            run.kernels[kernel].launch = Some(host + 1_000 + part * 1_500);
            device += 100_000;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let on = Options { compute_streams: Some(vec![7]), ..options() };
    let nsys = read(&[&run.nsys(folder.path(), "a.sqlite")], &on).unwrap();
    let json = read(&[&run.kineto(folder.path(), "a.json")], &on).unwrap();
    assert_eq!(nsys.record.devices, json.record.devices);
    assert_eq!(starts(&json), (0..8).map(|step| 1_050_000 + step * 1_000_000).collect::<Vec<u64>>());
}

#[test]
fn a_kernel_launched_before_its_range_runs_within_it() {
    let mut run = Recording::default();
    for step in 0..3u64 {
        let begin = 10_000_000 + step * 10_000_000;
        run.range(begin, begin + 9_900_000, &format!("iteration {step}"));
        let first = run.kernel(begin + 50_000, begin + 4_000_000, 7, "gemm");
        run.kernels[first].launch = Some(begin - 1_000_000);
        run.kernel(begin + 5_000_000, begin + 9_000_000, 7, "gemm");
    }
    let read = both(&run);
    assert_eq!(starts(&read), [10_000_000, 20_000_000, 30_000_000]);
    assert!(read.record.devices[0].bubbles.iter().filter(|b| b.previous_kernel.is_none()).count() == 3);
}

/// Another process may use a device first, one that wrote no ranges.
#[test]
fn a_device_takes_the_iterations_of_the_process_that_wrote_some() {
    let mut run = Recording::default();
    for step in 0..3u64 {
        let begin = 10_000_000 + step * 10_000_000;
        for device in 0..2 {
            run.ranges.push((begin, begin + 10_000_000, format!("step {step}"), PID + device));
            let kernel = run.kernel(begin + 50_000, begin + 9_000_000, 7, "gemm");
            (run.kernels[kernel].device, run.kernels[kernel].pid) = (device, PID + device);
        }
    }
    let stranger = run.kernel(9_000_000, 9_100_000, 7, "gemm");
    run.kernels[stranger].pid = PID + 9;
    let folder = tempfile::tempdir().unwrap();
    let read = read(&[&run.nsys(folder.path(), "a.sqlite")], &options()).unwrap();
    for extra in &read.extras {
        assert_eq!(extra.iterations.iter().map(|i| i.1).collect::<Vec<_>>(), [10_000_000, 20_000_000, 30_000_000]);
    }
    assert_eq!(read.extras.len(), 2);
}

#[test]
fn ranges_of_one_process_stand_for_all_others_without() {
    let (mut run, _) = stage(2, 500_000, false);
    run.ranges.push((3_000_000, 9_000_000, "step 0".into(), PID + 9));
    run.ranges.push((9_000_000, 15_000_000, "step 1".into(), PID + 9));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(bubbles(&run.nsys(folder.path(), "a.sqlite")).devices[0].window_ns, 12_000_000);
}
