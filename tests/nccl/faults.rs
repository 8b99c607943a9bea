//! What goes wrong: each ends with an error within the deadline, and says what it was.

use super::group::{coordinator, coordinator_on, even, task};
use super::harness::{bubblebench, text};
use bubblebench::collectives::{CollectiveOperation, Element};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(2);
/// Long enough to join first, on cores that other tests use too.
const MIDDLE: Duration = Duration::from_secs(5);
/// Where nobody is waited for in vain: other tests may have the cores.
const LONG: Duration = Duration::from_secs(60);

fn small() -> bubblebench::collectives::ranks::Task {
    task(even(CollectiveOperation::AllReduce, 1000, 3), Element::F32)
}

/// The error of a case that cannot end well, and that it came in time.
fn error(deadline: Duration) -> String {
    let begun = Instant::now();
    let mut coordinator = coordinator(3, deadline);
    let error =
        coordinator.prepare(&small()).map(|_| ()).and_then(|()| coordinator.time(200, 3).map(|_| ())).unwrap_err();
    drop(coordinator);
    assert!(begun.elapsed() < deadline + Duration::from_secs(5), "{:?}", begun.elapsed());
    error.to_string()
}

alone!(a_rank_that_never_arrives_ends_the_others_wait, [("SOFTGPU_DEVICES", "3"), ("SOFTGPU_NCCL", "absent:1")], {
    let text = error(SHORT);
    assert!(text.contains("rank 1") || text.contains("joining"), "{text}");
});

alone!(a_rank_that_hangs_ends_at_the_deadline, [("SOFTGPU_DEVICES", "3"), ("SOFTGPU_NCCL", "hang:2:9")], {
    let text = error(MIDDLE);
    assert!(text.contains("waited 5 s") || text.contains("within"), "{text}");
});

alone!(an_asynchronous_error_is_told, [("SOFTGPU_DEVICES", "3"), ("SOFTGPU_NCCL", "async:1:9")], {
    let text = error(LONG);
    assert!(text.contains("rank 1") && text.contains("on purpose"), "{text}");
});

// An error that was met between two calls is the status of the second: it has NCCL's words as well.
alone!(a_call_that_fails_says_what_nccl_met, [("SOFTGPU_DEVICES", "3"), ("SOFTGPU_NCCL", "refuse:1:9")], {
    let text = error(LONG);
    assert!(text.contains("rank 1") && text.contains("all_reduce failed") && text.contains("on purpose"), "{text}");
});

alone!(a_wrong_id_is_refused, [("SOFTGPU_DEVICES", "3"), ("SOFTGPU_NCCL", "wrong-id")], {
    let text = error(LONG);
    assert!(text.contains("nobody listens"), "{text}");
});

alone!(two_ranks_on_one_gpu_are_refused_unless_asked_for, [("SOFTGPU_DEVICES", "1")], {
    let mut coordinator = coordinator_on(&[0, 0], LONG).unwrap();
    let text =
        coordinator.prepare(&task(even(CollectiveOperation::AllReduce, 10, 2), Element::F32)).unwrap_err().to_string();
    assert!(text.contains("NCCL_MULTI_RANK_GPU_ENABLE=1"), "{text}");
});

alone!(
    ranks_may_share_a_gpu_where_that_is_asked_for,
    [("SOFTGPU_DEVICES", "1"), ("NCCL_MULTI_RANK_GPU_ENABLE", "1")],
    {
        let mut coordinator = coordinator_on(&[0, 0, 0, 0], LONG).unwrap();
        assert_eq!(coordinator.ranks_per_gpu(4), 4);
        let task = task(even(CollectiveOperation::AllToAll, 4000, 4), Element::Bf16);
        assert_eq!(coordinator.prepare(&task).unwrap().wrong, 0);
    }
);

alone!(an_older_nccl_shares_no_gpu, [("SOFTGPU_NCCL", "version:22902"), ("NCCL_MULTI_RANK_GPU_ENABLE", "1")], {
    let mut coordinator = coordinator_on(&[0, 0], LONG).unwrap();
    let text =
        coordinator.prepare(&task(even(CollectiveOperation::AllReduce, 10, 2), Element::F32)).unwrap_err().to_string();
    assert!(text.contains("NCCL 2.29.2") && text.contains("use NCCL 2.30"), "{text}");
});

alone!(an_nccl_that_is_too_old_is_refused, [("SOFTGPU_NCCL", "version:21700")], {
    let text = bubblebench::collectives::nccl::Nccl::load().err().unwrap().to_string();
    assert!(text.contains("2.17.0") && text.contains("older than 2.18") && text.contains("pip install"), "{text}");
});

// FP8 is added up on GPUs from compute capability 9.0 on.
alone!(fp8_sums_are_refused_on_older_gpus, [("SOFTGPU_DEVICES", "2"), ("SOFTGPU_ARCH", "80")], {
    let mut coordinator = coordinator(2, LONG);
    let text = coordinator
        .prepare(&task(even(CollectiveOperation::AllReduce, 10, 2), Element::F8E4m3))
        .unwrap_err()
        .to_string();
    assert!(text.contains("invalid argument"), "{text}");
});

// What NCCL cannot cut into equal parts is refused before anything runs, and the coordinator goes on.
alone!(unequal_parts_are_refused, [("SOFTGPU_DEVICES", "3")], {
    let mut coordinator = coordinator(3, LONG);
    let uneven = task(bubblebench::collectives::Exchange::new(CollectiveOperation::AllGather, 100, 3), Element::F32);
    let text = coordinator.prepare(&uneven).unwrap_err().to_string();
    assert!(text.contains("equal parts"), "{text}");
});

#[test]
fn doctor_finds_the_software_nccl() {
    let output = bubblebench(softgpu::device::libraries(), &[], &["doctor", "--json"]);
    let doctor: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nccl = doctor["libraries"].as_array().unwrap().iter().find(|library| library["name"] == "nccl").unwrap();
    assert_eq!(nccl["version"], "2.30.7", "{}", text(&output.stderr));
    assert!(nccl["path"].as_str().unwrap().contains("softgpu"), "{nccl}");
}
