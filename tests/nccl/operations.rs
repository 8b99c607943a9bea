//! Right results: every operation, type, size, number of ranks; graphs, registered buffers, capped communicators.

use super::group::{coordinator, even, task};
use bubblebench::collectives::ranks::{Coordinator, Task};
use bubblebench::collectives::{CollectiveOperation, Element, Pattern};
use bubblebench::stats::SplitMix;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Random cases where nobody asks for another number.
const CASES: usize = 280;

fn random_task(random: &mut SplitMix, ranks: usize) -> Task {
    let operation = CollectiveOperation::ALL[random.below(CollectiveOperation::ALL.len())];
    let dtype = Element::ALL[random.below(Element::ALL.len())];
    // Every order of magnitude as often as the others, up to about 100,000 elements.
    let elements = (10f64.powf(random.unit() * 5.0) as usize).max(1);
    let in_place = operation.definition().can_be_in_place() && random.below(2) == 0;
    let exchange = even(operation, elements, ranks).root(random.below(ranks)).in_place(in_place);
    Task { registered: random.below(8) == 0, ..task(exchange, dtype) }
}

alone!(random_exchanges_have_no_wrong_element, [("SOFTGPU_DEVICES", "8")], {
    let cases = std::env::var("RANDOM_NCCL_CASES").map_or(CASES, |text| text.parse().unwrap());
    let mut random = SplitMix(std::env::var("RANDOM_NCCL_SEED").map_or(0x2cc1, |text| text.parse().unwrap()));
    let mut coordinator = coordinator(8, PATIENCE);
    let mut done = 0;
    for ranks in 2..=8 {
        for _ in 0..cases.div_ceil(7) {
            let task = random_task(&mut random, ranks);
            let prepared = coordinator.prepare(&task).unwrap();
            assert_eq!(prepared.wrong, 0, "{task:?}");
            done += 1;
        }
    }
    println!("{done} cases, 0 wrong");
    coordinator.finish().unwrap();
});

// Each operation in each type, timed as well; the times are those of the slowest rank.
alone!(every_operation_is_right_and_timed_in_every_type, [("SOFTGPU_DEVICES", "4")], {
    let mut coordinator = coordinator(4, PATIENCE);
    for operation in CollectiveOperation::ALL {
        for dtype in Element::ALL {
            let task = task(even(operation, 3000, 4).root(1), dtype);
            check(&mut coordinator, &task);
        }
    }
});

fn check(coordinator: &mut Coordinator, task: &Task) {
    let prepared = coordinator.prepare(task).unwrap();
    assert_eq!(prepared.wrong, 0, "{task:?}");
    let timing = coordinator.time(3, 2).unwrap();
    assert!(timing.pipelined_ns > 0.0 && timing.isolated_ns.len() == 2, "{task:?}");
    // What was measured is still right afterwards.
    assert_eq!(coordinator.prepare(task).unwrap().wrong, 0, "{task:?}");
}

alone!(graphs_registered_buffers_and_caps, [("SOFTGPU_DEVICES", "3")], {
    let mut coordinator = coordinator(3, PATIENCE);
    for operation in CollectiveOperation::ALL {
        let plain = task(even(operation, 30_000, 3), Element::Bf16);
        check(&mut coordinator, &Task { graph: true, ..plain.clone() });
        check(&mut coordinator, &Task { registered: true, ..plain.clone() });
        check(&mut coordinator, &Task { max_ctas: Some(4), graph: true, registered: true, ..plain });
    }
    // Longer than one graph holds.
    let long = Task { graph: true, ..task(even(CollectiveOperation::AllReduce, 10, 3), Element::F32) };
    coordinator.prepare(&long).unwrap();
    assert!(coordinator.time(71, 0).unwrap().pipelined_ns > 0.0);
});

// Larger than what lies in shared memory at once, and one rank alone.
alone!(large_messages_and_a_lonely_rank, [("SOFTGPU_DEVICES", "2")], {
    let mut coordinator = coordinator(2, PATIENCE);
    for operation in [
        CollectiveOperation::AllReduce,
        CollectiveOperation::SendRecv(Pattern::BothWays),
        CollectiveOperation::ReduceScatter,
    ] {
        let large = task(even(operation, 3_000_000, 2), Element::F32);
        assert_eq!(coordinator.prepare(&large).unwrap().wrong, 0);
    }
    for operation in CollectiveOperation::ALL {
        let lonely = task(even(operation, 100, 1), Element::F16);
        assert_eq!(coordinator.prepare(&lonely).unwrap().wrong, 0, "{operation:?}");
    }
});

// An element that is wrong is counted, on whichever operation: what is spoilt on purpose is one output on one rank. Every
// case begins with a meeting, so its own operation is every second one after the communicator's warm-up.
alone!(a_wrong_element_is_counted, [("SOFTGPU_DEVICES", "2"), ("SOFTGPU_NCCL", "wrong:1:6")], {
    let mut coordinator = coordinator(2, PATIENCE);
    let wrong: u64 =
        coordinator.prepare(&task(even(CollectiveOperation::AllReduce, 1000, 2), Element::F32)).unwrap().wrong;
    assert_eq!(wrong, 1);
    assert_eq!(
        coordinator.prepare(&task(even(CollectiveOperation::AllReduce, 1000, 2), Element::F32)).unwrap().wrong,
        0
    );
});

alone!(
    the_log_tells_the_choice,
    [
        ("SOFTGPU_DEVICES", "2"),
        ("NCCL_DEBUG", "INFO"),
        ("NCCL_DEBUG_SUBSYS", "TUNING"),
        ("NCCL_DEBUG_FILE", concat!(env!("CARGO_TARGET_TMPDIR"), "/nccl.%p"))
    ],
    {
        let mut coordinator = coordinator(2, PATIENCE);
        let prepared =
            coordinator.prepare(&task(even(CollectiveOperation::AllGather, 100_000, 2), Element::Bf16)).unwrap();
        assert_eq!((&prepared.facts["algorithm"], &prepared.facts["protocol"]), (&"ring".into(), &"simple".into()));
        assert!(prepared.facts["channels"].as_u64().unwrap() > 0);
        let capped =
            Task { max_ctas: Some(7), ..task(even(CollectiveOperation::AllReduce, 100_000, 2), Element::Bf16) };
        assert_eq!(coordinator.prepare(&capped).unwrap().facts["channels"], 7);
        let message = task(even(CollectiveOperation::SendRecv(Pattern::Ring), 100, 2), Element::Bf16);
        assert!(coordinator.prepare(&message).unwrap().facts["algorithm"].is_null());
        let path = format!("{}/nccl.{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        std::fs::remove_file(path).unwrap();
    }
);
