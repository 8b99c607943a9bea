//! What exports have and lack: tables, columns, several processes, graphs, copies, streams.

use crate::planted::{found, plant};
use crate::recording::{ALL_REDUCE, Kernel, PID, RECEIVE, Recording};
use crate::{bubbles, options, read};
use bubblebench::records::bubbles::BubbleClass;
use bubblebench::trace::profile::Options;

/// One iteration of 1 ms: compute, a gap of 200 µs from 300 µs on, compute to 900 µs.
fn simple() -> Recording {
    let mut run = Recording::default();
    run.range(1_000_000, 2_000_000, "train_step 0");
    run.kernel(1_000_000, 1_300_000, 7, "gemm");
    let next = run.kernel(1_500_000, 1_900_000, 7, "gelu");
    run.kernels[next].launch = Some(1_100_000);
    run
}

fn classes(run: &Recording) -> Vec<(u64, u64, BubbleClass)> {
    let folder = tempfile::tempdir().unwrap();
    let record = bubbles(&run.nsys(folder.path(), "a.sqlite"));
    let json = bubbles(&run.kineto(folder.path(), "a.json"));
    assert_eq!(record.devices, json.devices);
    record.devices[0].bubbles.iter().map(|b| (b.start_ns, b.end_ns, b.class)).collect()
}

const TAIL: (u64, u64, BubbleClass) = (1_900_000, 2_000_000, BubbleClass::Tail);

#[test]
fn a_bubble_has_its_neighbours_names_and_is_never_split() {
    let mut run = simple();
    run.kernel(1_350_000, 1_400_000, 21, ALL_REDUCE);
    let folder = tempfile::tempdir().unwrap();
    let record = bubbles(&run.nsys(folder.path(), "a.sqlite"));
    let bubble = &record.devices[0].bubbles[0];
    assert_eq!((bubble.start_ns, bubble.end_ns), (1_300_000, 1_500_000));
    assert_eq!(bubble.class, BubbleClass::Communication);
    assert_eq!(bubble.previous_kernel.as_ref().unwrap().as_str(), "gemm");
    assert_eq!(bubble.next_kernel.as_ref().unwrap().as_str(), "gelu");
    assert!(record.devices[0].bubbles[1].next_kernel.is_none());
    assert_eq!(record.devices[0].communication_ns, 50_000);
}

#[test]
fn communication_counts_only_where_it_reaches_into_the_gap() {
    let gap = |class| vec![(1_300_000, 1_500_000, class), TAIL];
    assert_eq!(classes(&simple()), gap(BubbleClass::Dependency), "launched in time, and it waited");
    let with = |start, end, name| {
        let mut run = simple();
        run.kernel(start, end, 21, name);
        run
    };
    assert_eq!(
        classes(&with(1_200_000, 1_300_000, ALL_REDUCE)),
        gap(BubbleClass::Dependency),
        "ends as the gap begins"
    );
    assert_eq!(classes(&with(1_200_000, 1_300_001, ALL_REDUCE)), gap(BubbleClass::Communication));
    assert_eq!(classes(&with(1_500_000, 1_600_000, ALL_REDUCE)), gap(BubbleClass::Dependency), "begins as it ends");
    assert_eq!(classes(&with(1_499_999, 1_600_000, RECEIVE)), gap(BubbleClass::Dependency));
    let mut late = simple();
    late.kernels[1].launch = Some(1_300_001);
    assert_eq!(classes(&late), gap(BubbleClass::Launch));
    late.kernels[1].launch = Some(1_300_000);
    assert_eq!(classes(&late), gap(BubbleClass::Dependency), "launched at the moment the gap began");
}

#[test]
fn copies_are_no_compute_and_are_counted() {
    let mut run = simple();
    run.copies.push((1_310_000, 1_390_000, 0));
    let folder = tempfile::tempdir().unwrap();
    for file in [run.nsys(folder.path(), "a.sqlite"), run.kineto(folder.path(), "a.json")] {
        let run = read(&[&file], &options()).unwrap();
        assert_eq!(run.extras[0].copy_ns, 80_000);
        assert_eq!(run.record.devices[0].absent_ns, 300_000);
    }
}

#[test]
fn kernels_in_graphs_may_appear_as_graphs_only() {
    let mut run = simple();
    run.kernels.clear();
    run.graphs = vec![(1_000_000, 1_300_000, 0, 5), (1_500_000, 1_900_000, 0, 6)];
    let folder = tempfile::tempdir().unwrap();
    for drop_kernels in [false, true] {
        let file = run.nsys_with(folder.path(), &format!("{drop_kernels}.sqlite"), |db| {
            if drop_kernels {
                db.execute_batch("DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL; DROP TABLE StringIds").unwrap();
            }
        });
        let run = read(&[&file], &options()).unwrap();
        let bubble = &run.record.devices[0].bubbles[0];
        assert_eq!((bubble.start_ns, bubble.end_ns), (1_300_000, 1_500_000));
        assert_eq!(bubble.next_kernel.as_ref().unwrap().as_str(), "CUDA graph 6");
        assert!(run.notes.iter().any(|n| n.contains("--cuda-graph-trace=node")), "{:?}", run.notes);
    }
}

#[cfg(unix)]
#[test]
fn a_trace_may_come_through_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let run = simple();
    for name in ["a.json", "a.json.gz"] {
        let file = run.kineto(folder.path(), name);
        let mut writer =
            std::process::Command::new("cat").arg(&file).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let pipe = std::os::fd::AsRawFd::as_raw_fd(writer.stdout.as_ref().unwrap());
        let piped = bubbles(&std::path::PathBuf::from(format!("/dev/fd/{pipe}")));
        assert_eq!(piped.devices, bubbles(&file).devices);
        assert!(writer.wait().unwrap().success());
    }
}

/// Two GPUs whose numbers stand in quotes stay two, and launches find their kernels.
#[test]
fn numbers_may_stand_in_quotes() {
    let mut run = simple();
    run.kernels[1].launch = Some(1_400_000);
    let other = run.kernel(1_000_000, 1_900_000, 7, "gemm");
    run.kernels[other].device = 1;
    let folder = tempfile::tempdir().unwrap();
    let plain = bubbles(&run.kineto(folder.path(), "plain.json"));
    let quote = |text: &str, key: &str| -> String {
        let key = format!("\"{key}\": ");
        let mut parts = text.split(&key);
        let mut quoted = parts.next().unwrap().to_string();
        for part in parts {
            let end = part.find([',', '}']).unwrap();
            quoted += &format!("{key}\"{}\"{}", &part[..end], &part[end..]);
        }
        quoted
    };
    let keys = ["pid", "tid", "ts", "dur", "device", "stream", "correlation"];
    let text = keys.iter().fold(run.json(), |text, key| quote(&text, key));
    assert!(text.contains(r#""ts": "1000.000""#) && text.contains(r#""correlation": "2""#));
    let path = folder.path().join("quoted.json");
    std::fs::write(&path, text).unwrap();
    let quoted = bubbles(&path);
    assert_eq!(quoted.devices.len(), 2);
    assert_eq!(quoted.devices[0].bubbles[0].class, BubbleClass::Launch);
    assert_eq!(quoted.devices, plain.devices);
}

#[test]
fn only_the_named_streams_compute() {
    let mut run = simple();
    run.kernel(1_350_000, 1_450_000, 30, "split_with_sizes_copy_kernel");
    let folder = tempfile::tempdir().unwrap();
    for file in [run.nsys(folder.path(), "a.sqlite"), run.kineto(folder.path(), "a.json")] {
        let on = |streams: Vec<u64>| read(&[&file], &Options { compute_streams: Some(streams), ..options() });
        assert_eq!(bubbles(&file).devices[0].bubbles.len(), 3);
        let device = &on(vec![7]).unwrap().record.devices[0];
        assert_eq!((device.bubbles.len(), device.compute_ns), (2, 700_000));
        let error = on(vec![99]).unwrap_err().to_string();
        assert!(error.contains("--compute-streams"), "{error}");
    }
}

#[test]
fn tables_that_were_not_recorded_are_done_without_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let (run, planted) = plant(4, 3);
    let without = |name: &str, sql: &'static str| {
        let file = run.nsys_with(folder.path(), name, |db| db.execute_batch(sql).unwrap());
        read(&[&file], &options()).unwrap()
    };
    let no_calls = without("a.sqlite", "DROP TABLE CUPTI_ACTIVITY_KIND_RUNTIME");
    assert!(no_calls.notes.iter().any(|n| n.contains("no launches")), "{:?}", no_calls.notes);
    let edges = |p: &(u64, u64, u64, BubbleClass)| (p.0, p.1, p.2);
    assert!(found(&no_calls.record).iter().map(edges).eq(planted.iter().map(edges)));
    assert!(found(&no_calls.record).iter().all(|p| p.3 != BubbleClass::Launch));

    let short = "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN demangledName;
        ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN mangledName;
        ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN greenContextId;
        DROP TABLE TARGET_INFO_GPU";
    assert_eq!(found(&without("b.sqlite", short).record), planted);
    let nulls = "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET demangledName = NULL WHERE rowid % 2 = 0";
    assert_eq!(found(&without("c.sqlite", nulls).record), planted);
    let texts = "INSERT INTO StringIds SELECT 1000 + rowid, text FROM NVTX_EVENTS;
        UPDATE NVTX_EVENTS SET textId = 1000 + rowid, text = NULL";
    assert_eq!(found(&without("d.sqlite", texts).record), planted);
    let unknown = "DELETE FROM StringIds WHERE value = 'gelu'";
    assert_eq!(found(&without("e.sqlite", unknown).record), planted);
}

#[test]
fn events_without_a_time_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, planted) = plant(6, 3);
    for _ in 0..3 {
        run.kernel(0, 0, 7, "gemm");
    }
    let read = read(&[&run.nsys(folder.path(), "a.sqlite")], &options()).unwrap();
    assert_eq!(found(&read.record), planted);
    assert!(read.notes.iter().any(|n| n.contains("3 events without a time")), "{:?}", read.notes);
}

/// Correlation ids are a process's own: the other process's launch of the same id must not be taken.
#[test]
fn launches_are_joined_within_their_process() {
    for swap in [false, true] {
        let mut run = Recording::default();
        for (index, pid) in [PID, PID + 1].into_iter().enumerate() {
            let late = (index == 1) != swap;
            run.ranges.push((1_000_000, 2_000_000, "step 0".into(), pid));
            let mut kernel = |start, end, correlation, launch| {
                let (device, name) = (index as u64, "gemm".to_string());
                run.kernels.push(Kernel {
                    start,
                    end,
                    device,
                    stream: 7,
                    pid,
                    correlation,
                    name,
                    launch: Some(launch),
                });
            };
            kernel(1_000_000, 1_300_000, 1, 900_000);
            kernel(1_500_000, 2_000_000, 2, if late { 1_450_000 } else { 1_200_000 });
        }
        let folder = tempfile::tempdir().unwrap();
        let record = bubbles(&run.nsys(folder.path(), "a.sqlite"));
        let classes: Vec<_> = record.devices.iter().map(|d| (d.device, d.bubbles.len(), d.bubbles[0].class)).collect();
        let wanted = [BubbleClass::Dependency, BubbleClass::Launch];
        assert_eq!(classes, [(0, 1, wanted[usize::from(swap)]), (1, 1, wanted[usize::from(!swap)])]);
    }
}

/// Where each process sees its own GPU as device 0, the export says which GPU that is.
#[test]
fn device_numbers_of_processes_become_those_of_gpus() {
    let mut run = Recording::default();
    for pid in [PID, PID + 1] {
        run.ranges.push((1_000_000, 2_000_000, "step 0".into(), pid));
        for (start, end) in [(1_000_000, 1_200_000), (1_500_000, 2_000_000)] {
            let (start, correlation) = (start + 10_000 * (pid - PID), start / 1000);
            run.kernels.push(Kernel {
                start,
                end,
                device: 0,
                stream: 7,
                pid,
                correlation,
                name: "gemm".into(),
                launch: None,
            });
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = run.nsys_with(folder.path(), "a.sqlite", |db| {
        db.execute_batch(
            "CREATE TABLE TARGET_INFO_CUDA_DEVICE (gpuId INTEGER, cudaId INTEGER, pid INTEGER, uuid TEXT);
             INSERT INTO TARGET_INFO_CUDA_DEVICE VALUES (2, 0, 4000, ''), (5, 0, 4001, '')",
        )
        .unwrap();
    });
    let record = bubbles(&file);
    assert_eq!(record.devices.iter().map(|d| d.device).collect::<Vec<_>>(), [2, 5]);
    assert_eq!(record.devices[1].bubbles.last().unwrap().length_ns(), 310_000);
}

/// Many gaps whose launches are asked for in a table in no order, and few in a long one.
#[test]
fn launches_are_found_however_many_and_in_whatever_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Recording::default();
    run.range(1_000_000, 1_000_000_000, "step 0");
    for index in 0..3000u64 {
        let start = 1_000_000 + index * 100_000;
        let wide = index % 1000 == 999;
        let next = run.kernel(start, start + if wide { 20_000 } else { 99_000 }, 7, "gemm");
        run.kernels[next].launch = Some(if index % 2000 == 1000 { start - 10 } else { start - 90_000 });
    }
    let late = |record: &bubblebench::records::BubblesRecord| {
        let of = |c| record.devices[0].bubbles.iter().filter(|b| b.class == c).count();
        (of(BubbleClass::Launch), of(BubbleClass::Dependency), of(BubbleClass::Tail))
    };
    let wanted = (1, 1, 1);
    assert_eq!(late(&bubbles(&run.nsys(folder.path(), "a.sqlite"))), wanted);
    let mixed = "CREATE TABLE x AS SELECT * FROM CUPTI_ACTIVITY_KIND_RUNTIME ORDER BY correlationId * 7919 % 3001;
        DELETE FROM CUPTI_ACTIVITY_KIND_RUNTIME; INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME SELECT * FROM x; DROP TABLE x";
    let file = run.nsys_with(folder.path(), "b.sqlite", |db| db.execute_batch(mixed).unwrap());
    assert_eq!(late(&bubbles(&file)), wanted);
}
