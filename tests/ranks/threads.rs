//! The same coordinator with a thread a rank, and the cases that it measures.

use crate::transport::Files;
use bubblebench::collectives::ranks::{Coordinator, GroupConfig, Task};
use bubblebench::collectives::{CollectiveOperation, Element, Exchange};
use bubblebench::suite::collectives::SharedCoordinator;
use bubblebench::suite::{Context, Detail, Platform, Preset};
use bubblebench::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn coordinator(devices: &[u32], fault: &str, deadline: Duration) -> (TempDir, Coordinator) {
    let folder = tempfile::tempdir().unwrap();
    let (path, fault) = (folder.path().to_path_buf(), fault.to_string());
    let transport = Arc::new(Files { folder: path, fault, groups: AtomicU8::new(0) });
    let config = GroupConfig { transport, deadline, interrupted: || false, last_resort: |_| {} };
    (folder, Coordinator::of_threads(&config, devices).unwrap())
}

fn task(ranks: usize) -> Task {
    let exchange = Exchange::new(CollectiveOperation::AllReduce, 1 << 20, ranks).in_place(true);
    Task { exchange, dtype: Element::Bf16, graph: true, registered: false, max_ctas: Some(4) }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn fewer_ranks_than_there_are_may_measure_and_more_may_follow() {
    let (_folder, mut coordinator) = coordinator(&[0, 1, 2], "", LONG);
    for ranks in [2, 3, 1] {
        assert_eq!(coordinator.prepare(&task(ranks)).unwrap().wrong, 0);
        assert_eq!(coordinator.time(10, 0).unwrap().by_rank.len(), ranks);
    }
    let error = coordinator.prepare(&task(4)).unwrap_err().to_string();
    assert!(error.contains("a case of 4 ranks, and there are 3"), "{error}");
    coordinator.finish().unwrap();
    assert!(coordinator.time(1, 0).unwrap_err().to_string().contains("have parted"));
}

fn measured(devices: &[u32]) -> Result<bubblebench::suite::CaseInfo> {
    let (_folder, coordinator) = coordinator(devices, "", LONG);
    let shared = SharedCoordinator::new(coordinator);
    let specs = shared.cases(vec![task(devices.len())]);
    let context =
        Context { preset: Preset::Quick, platform: Platform::Gpu(0), cores: 2, last_level_cache_bytes: 1 << 20 };
    let mut case = specs[0].build(&context)?;
    assert_eq!(case.prepare()?.unwrap().wrong, 0);
    let samples = case.sample(20)?;
    // The slowest rank's: rank r takes r + 1 ns an operation here.
    assert_eq!((samples[0].ns, samples[0].iterations), (20.0 * devices.len() as f64, 20));
    assert!(matches!(samples[0].detail, Detail::Isolated { ns } if ns > 0.0));
    shared.lock().finish()?;
    Ok(case.info().clone())
}

#[test]
fn a_record_tells_the_ranks_apart() {
    let info = measured(&[0, 1, 2]).unwrap();
    assert_eq!(info.id, "files/all_reduce/r3/bf16/2MiB/in_place/graph/ctas4");
    assert_eq!(info.params["rank_median_ns"], serde_json::json!([1.0, 2.0, 3.0]));
    assert_eq!(
        (info.params["slowest_rank"].as_u64(), info.params["rank_spread_percent"].as_f64()),
        (Some(2), Some(200.0))
    );
    assert_eq!((info.params["nodes"].as_u64(), info.bytes), (Some(1), Some((2 << 20) as f64)));
    assert!(info.flags.is_empty());
}

#[test]
fn ranks_on_one_gpu_are_flagged() {
    let info = measured(&[0, 1, 0, 1, 0]).unwrap();
    assert_eq!(info.params["ranks_per_gpu"], 3);
    assert_eq!(info.flags, ["shared-gpu"]);
}

/// As where a native call never returns: the thread stays, the coordinator does not wait for it.
#[test]
fn a_thread_that_hangs_is_named_and_not_waited_for() {
    let (_folder, mut coordinator) = coordinator(&[0, 1], "hang:1:3", Duration::from_secs(1));
    coordinator.prepare(&task(2)).unwrap();
    let begun = Instant::now();
    let error = coordinator.time(1, 1).unwrap_err();
    assert!(
        matches!(&error, Error::Gpu { what, .. } if what.contains("rank 1 (") && what.contains("did not answer")),
        "{error}"
    );
    assert!(coordinator.prepare(&task(2)).unwrap_err().to_string().contains("have parted"));
    drop(coordinator);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// Everybody answers, nobody can do it: the case is skipped, and the next one runs in a communicator of its own.
#[test]
fn what_one_rank_of_one_cannot_do_ends_nothing_but_the_case() {
    let (_folder, mut coordinator) = coordinator(&[0], "fail:0:3", LONG);
    assert_eq!(coordinator.prepare(&task(1)).unwrap().wrong, 0);
    let error = coordinator.time(1, 1).unwrap_err();
    assert!(matches!(&error, Error::Machine { what, .. } if what.contains("out of memory")), "{error}");
    assert!(coordinator.time(1, 1).unwrap_err().to_string().contains("unprepared"));
    assert_eq!(coordinator.prepare(&task(1)).unwrap().wrong, 0);
}

/// Where nobody can join, no case can run.
#[test]
fn ranks_that_cannot_join_end_the_run() {
    let (_folder, mut coordinator) = coordinator(&[0], "fail:0:1", LONG);
    let error = coordinator.prepare(&task(1)).unwrap_err();
    assert!(matches!(&error, Error::Rank { what, .. } if what.contains("out of memory")), "{error}");
    assert!(coordinator.prepare(&task(1)).unwrap_err().to_string().contains("have parted"));
}
