//! Jobs planned under every schedule.

use bubblebench::fill;
use bubblebench::pipeline::ScheduleName;
use bubblebench::pipeline::job::Job;
use bubblebench::records::CostModel;
use std::path::Path;

fn plan(schedule: &str) -> fill::plan::FillPlan {
    let text = include_str!("../../results/published/a100-80gb/cost_model.json");
    let model: CostModel = serde_json::from_str(text).unwrap();
    let job = format!(
        "[model]\npreset = \"gpt-6.7b\"\n[parallel]\npipeline = 4\nmicro_batch = 3\nglobal_batch = 24\nschedule = \"{schedule}\""
    );
    fill::plan(&Job::parse(Path::new("job.toml"), &job).unwrap(), &model, &[]).unwrap()
}

/// Embedding and head stand where the schedule begins and ends the model, and the same work is done under each.
#[test]
fn every_schedule_is_planned_with_its_ends_in_place() {
    // Without the messages that a micro-batch's way through the stages takes, there and back.
    let work = |plan: &fill::plan::FillPlan, ways: u64| {
        let busy: u64 = plan.record.stage.iter().map(|s| s.busy_ns).sum();
        busy - 2 * ways * plan.record.micro_batches * plan.record.send_recv_ns
    };
    let plain = plan("1f1b");
    for name in ScheduleName::ALL {
        let plan = plan(name.text());
        let busy: Vec<u64> = plan.record.stage.iter().map(|s| s.busy_ns).collect();
        let heaviest = (0..4).max_by_key(|&s| busy[s]).unwrap();
        let (expected, copies) = match name {
            ScheduleName::ZbV | ScheduleName::VHalf | ScheduleName::VMin | ScheduleName::Dualpipev => (vec![0], 1),
            ScheduleName::Chimera | ScheduleName::Dualpipe => (vec![0, 3], 2),
            _ => (vec![3], 1),
        };
        assert!(expected.contains(&heaviest), "{}: {busy:?}", name.text());
        let ways = match name {
            ScheduleName::Interleaved => 7,
            _ if expected == [0] => 6,
            _ => 3,
        };
        // Rounding to the nanosecond in each chunk.
        assert!(work(&plan, ways).abs_diff(work(&plain, 3)) < 1000, "{}", name.text());
        let parameters = |plan: &fill::plan::FillPlan| plan.record.stage[1].weights_bytes;
        assert_eq!(parameters(&plan), copies * parameters(&plain), "{}", name.text());
        assert!(plan.record.stage.iter().all(|s| s.busy_ns + s.bubble_ns == plan.record.pipeline_ns));
    }
}
