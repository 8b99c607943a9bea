//! How long a million operations take: interleaved, 64 stages, 2,048 micro-batches, 4 chunks.

use bubblebench::Result;
use bubblebench::pipeline::activations::DEFAULT_WEIGHT_SHARE;
use bubblebench::pipeline::record::TimelineRecord;
use bubblebench::pipeline::{Schedule, ScheduleName, ScheduleSpec, StageTimes, Times, simulate};
use std::time::{Duration, Instant};

pub fn table() -> Result<String> {
    let times = Times::even(64, StageTimes::new(10_000_000, 10_000_000, 8_000_000), 0);
    let spec = ScheduleSpec {
        name: ScheduleName::Interleaved,
        stages: 64,
        micro_batches: 2048,
        chunks: Some(4),
        memory_limit: None,
        weight_share: DEFAULT_WEIGHT_SHARE,
        times: &times,
    };
    let mut best = [Duration::MAX; 3];
    let mut operations = 0;
    for _ in 0..10 {
        let began = Instant::now();
        let schedule = Schedule::build(&spec)?;
        let built = began.elapsed();
        let timeline = simulate(schedule, times.clone())?;
        let simulated = began.elapsed() - built;
        let record = TimelineRecord::new(&timeline, DEFAULT_WEIGHT_SHARE);
        let told = began.elapsed() - simulated - built;
        operations = timeline.start_ns.len();
        for (best, now) in best.iter_mut().zip([built, simulated, told]) {
            *best = now.min(*best);
        }
        std::hint::black_box(record);
    }
    let [built, simulated, told] = best.map(|d| d.as_secs_f64() * 1e3);
    Ok(format!(
        "{operations} operations, best of ten: built in {built:.1} ms, simulated in {simulated:.1} ms, bubbles in {told:.1} ms\n"
    ))
}
