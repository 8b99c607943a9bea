//! The keyword arguments of Zero Bubble's automatic scheduler (`GraphConfig`; Qi et al., arXiv 2401.10241) as JSON.
//!
//! Times are µs and memory is MiB, a number a stage. The scheduler takes floats only, and wants `mem_f + mem_b + mem_w` to be
//! exactly 0: whole bytes over a power of two are exact, and so are their differences.

use super::workload::Workload;
use super::{Exported, MIB};
use crate::pipeline::job::Job;
use crate::pipeline::memory::{self, GIB, StageMemory};
use crate::pipeline::{ScheduleName, StageTimes, costs};
use crate::records::CostModel;
use crate::{Error, Result};
use serde::Serialize;

/// The scheduler's arguments, by its own names.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct GraphConfig {
    n_stages: u64,
    n_micro: u64,
    max_chunks: u64,
    /// Forward of a stage, in µs.
    cost_f: Vec<f64>,
    /// Backward to the inputs, in µs.
    cost_b: Vec<f64>,
    /// Backward to the weights, in µs.
    cost_w: Vec<f64>,
    /// A message between two stages, in µs.
    cost_comm: f64,
    /// What a forward keeps, in MiB.
    mem_f: Vec<f64>,
    /// What the backward to the inputs frees, below 0, in MiB.
    mem_b: Vec<f64>,
    /// What the backward to the weights frees, below 0, in MiB.
    mem_w: Vec<f64>,
    /// What a stage has for activations, in MiB; null for as much as one likes.
    max_mem: Option<Vec<f64>>,
    /// By what the scheduler divides times where it draws them.
    print_scaling: u64,
}

/// The arguments for the job's stages, one chunk each, as `plan` prices them. Fails where the job has one stage, its layer has
/// no price, or a stage cannot hold one micro-batch.
pub fn file(model: &CostModel, workload: &Workload) -> Result<Exported> {
    let mut notes = workload.notes.clone();
    let job = one_chunk(&workload.job, &mut notes)?;
    let mut costs = costs::of_job(&job, model, workload.dtype)?;
    // The optimizer is no part of the pipeline.
    let follows = |note: &&String| note.contains("optimizer step") || note.contains("passes over gradients");
    notes.extend(costs.notes.iter().filter(|note| !follows(note)).cloned());
    let message_ns = costs.send_recv_ns;
    // The scheduler adds messages itself.
    costs.send_recv_ns = 0;
    let times = costs.times(&job, job.layout());
    let mut stages = times.stage.clone();
    if let Some(first) = stages.first_mut() {
        *first = first.plus(times.first);
    }
    if let Some(last) = stages.last_mut() {
        *last = last.plus(times.last);
    }
    let memory = memory::of_job(&job, workload.dtype, &costs.layer, model.machine.memory_bytes)?;
    let room = match memory.total_bytes {
        Some(total) => Some(room(&job, &memory.stage, total - memory.headroom_bytes)?),
        None => {
            notes.push("no limit of memory: neither the job nor the cost model says how much a GPU has".into());
            None
        }
    };
    notes.push(
        "lost: intervals, and what follows the pipeline (gradients, optimizer); Zero Bubble's runtime, unlike its scheduler, takes \
         the median over stages for each of them"
            .into(),
    );
    let config = config(&job, &stages, message_ns, &memory.stage, room.as_deref());
    Exported::json(&config, notes)
}

/// The job under `1f1b`, whose stages are in one piece: the scheduler's own graph of two chunks takes one number for all stages.
fn one_chunk(job: &Job, notes: &mut Vec<String>) -> Result<Job> {
    if job.parallel.pipeline < 2 {
        return Err(Error::input(
            format!("{} has one stage; Zero Bubble schedules two or more", job.path.display()),
            "raise pipeline in the job",
        ));
    }
    if job.layout().chunks > 1 || job.order.is_some() {
        let schedule = job.parallel.schedule.text();
        notes.push(format!("the job's schedule {schedule} is left out: stages are in one piece, as `1f1b` has them"));
    }
    job.with_schedule(ScheduleName::OneFOneB)
}

/// Bytes that each stage has for activations, in whole bytes.
fn room(job: &Job, stages: &[StageMemory], total: f64) -> Result<Vec<u64>> {
    let free = |s: &StageMemory| (total - s.static_bytes() as f64 - s.temporary_bytes as f64).max(0.0) as u64;
    let room: Vec<u64> = stages.iter().map(free).collect();
    let short = stages.iter().zip(&room).enumerate().find(|(_, (stage, room))| **room < stage.activation_bytes);
    match short {
        None => Ok(room),
        Some((index, (stage, room))) => Err(Error::input(
            format!(
                "{}: stage {index} has {:.1} GiB for activations, one micro-batch keeps {:.1}",
                job.path.display(),
                *room as f64 / GIB,
                stage.activation_bytes as f64 / GIB
            ),
            "give --job JOB.toml with more stages, tensor parallelism, recomputation or a smaller micro_batch",
        )),
    }
}

fn config(
    job: &Job,
    times: &[StageTimes],
    message_ns: u64,
    memory: &[StageMemory],
    room: Option<&[u64]>,
) -> GraphConfig {
    let us = |ns: fn(&StageTimes) -> u64| times.iter().map(|t| ns(t) as f64 / 1e3).collect::<Vec<f64>>();
    let (cost_f, cost_b) = (us(|t| t.forward_ns), us(|t| t.backward_input_ns));
    let cost_w = us(|t| t.backward_weight_ns);
    let shortest = cost_f.iter().chain(&cost_b).chain(&cost_w).copied().fold(f64::INFINITY, f64::min);
    let weights = |s: &StageMemory| (s.activation_bytes as f64 * job.weight_share()).floor();
    let mem_f: Vec<f64> = memory.iter().map(|s| s.activation_bytes as f64 / MIB).collect();
    let mem_w: Vec<f64> = memory.iter().map(|s| -weights(s) / MIB).collect();
    let mem_b = mem_f.iter().zip(&mem_w).map(|(f, w)| -(f + w)).collect();
    GraphConfig {
        n_stages: times.len() as u64,
        n_micro: job.micro_batches(),
        max_chunks: 1,
        cost_f,
        cost_b,
        cost_w,
        cost_comm: message_ns as f64 / 1e3,
        mem_f,
        mem_b,
        mem_w,
        max_mem: room.map(|room| room.iter().map(|bytes| *bytes as f64 / MIB).collect()),
        print_scaling: (shortest / 4.0).round().max(1.0) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{datasheet, predict};
    use crate::export::Content;
    use crate::shape::{DType, LayerShape};
    use serde_json::Value;
    use std::path::Path;

    const SIZES: &str = "[model]\npreset = \"gpt-2.7b\"\n[parallel]\nmicro_batch = 2\nglobal_batch = 32\n";

    fn written(job: &str) -> Result<(Value, Vec<String>)> {
        let model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        let job = Job::parse(Path::new("job.toml"), job).unwrap();
        let Exported { content, notes } = file(&model, &Workload::of(&model, Some(job)).unwrap())?;
        let Content::File(text) = content else { panic!("a folder") };
        Ok((serde_json::from_str(&text).unwrap(), notes))
    }

    fn list(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    /// A middle stage is its eight layers: ns over a thousand; a message of s·b·h bf16 elements is 15 µs and its bytes.
    #[test]
    fn times_are_the_stages_in_microseconds_without_their_messages() {
        let (value, _) = written(&format!("{SIZES}pipeline = 4")).unwrap();
        let model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        let layer = predict::layer(&model, LayerShape::new(2560, 32, 2048, 2, DType::Bf16)).unwrap();
        for (key, time) in
            [("cost_f", layer.forward), ("cost_b", layer.backward_input), ("cost_w", layer.backward_weight)]
        {
            let us = list(&value[key]);
            assert!((us[1] - 8.0 * time.median_ns / 1e3).abs() < 0.001, "{key} {us:?}");
            assert!(us[1] == us[2] && us[3] > us[1], "the head stands on the last: {us:?}");
        }
        let message = 15.0 + (2.0 * 2.0 * 2048.0 * 2560.0) / 337.5e3;
        assert!((value["cost_comm"].as_f64().unwrap() - message).abs() < 0.001, "{}", value["cost_comm"]);
        assert_eq!((&value["n_stages"], &value["n_micro"], &value["max_chunks"]), (&4.into(), &16.into(), &1.into()));
    }

    /// GraphConfig's own assertion, and its check of types: floats, and sums that are exactly 0.
    #[test]
    fn memory_sums_to_zero_in_floats() {
        let (value, _) = written(&format!("{SIZES}pipeline = 4")).unwrap();
        let [f, b, w, most] = ["mem_f", "mem_b", "mem_w", "max_mem"].map(|key| list(&value[key]));
        for stage in 0..4 {
            assert!(f[stage] + b[stage] + w[stage] == 0.0 && b[stage] < 0.0 && w[stage] < 0.0);
            assert!(most[stage] >= f[stage]);
        }
        let bytes = 8 * LayerShape::new(2560, 32, 2048, 2, DType::Bf16).activation_bytes();
        assert_eq!(f[1], bytes as f64 / 1_048_576.0);
        assert!((w[1] + f[1] * 32.0 / 34.0).abs() < 1e-5, "{w:?}");
        let text = serde_json::to_string(&value).unwrap();
        assert!(value["cost_f"].as_array().unwrap().iter().all(Value::is_f64), "{text}");
    }

    #[test]
    fn whole_microseconds_are_written_as_floats() {
        let job = Job::parse(Path::new("j"), &format!("{SIZES}pipeline = 2")).unwrap();
        let memory = StageMemory {
            parameters: 1,
            weights_bytes: 1,
            gradients_bytes: 1,
            optimizer_bytes: 1,
            activation_bytes: 22 << 20,
            temporary_bytes: 0,
        };
        let times = [StageTimes::new(5_478_000, 5_806_000, 3_534_000); 2];
        let text = serde_json::to_string(&config(&job, &times, 200_000, &[memory; 2], None)).unwrap();
        assert!(text.contains(r#""cost_f":[5478.0,5478.0]"#) && text.contains(r#""cost_comm":200.0"#), "{text}");
        assert!(text.contains(r#""max_mem":null"#) && text.contains(r#""print_scaling":884"#), "{text}");
    }

    #[test]
    fn a_stage_without_room_and_a_job_without_stages_are_refused() {
        let error = written(&format!("{SIZES}pipeline = 1")).unwrap_err().to_string();
        assert!(error.contains("one stage") && !error.contains('\n'), "{error}");
        let small = format!("{SIZES}pipeline = 4\n[hardware]\nmemory_gib = 16");
        let error = written(&small).unwrap_err().to_string();
        assert!(error.contains("stage 0 has") && error.contains("one micro-batch keeps"), "{error}");
    }

    #[test]
    fn another_schedule_of_the_job_is_named() {
        let (_, notes) = written(&format!("{SIZES}pipeline = 4\nschedule = \"interleaved\"\nchunks = 2")).unwrap();
        assert!(notes.iter().any(|n| n.contains("interleaved is left out")), "{notes:?}");
        let (_, notes) = written(&format!("{SIZES}pipeline = 4\nschedule = \"zb-h1\"")).unwrap();
        assert!(!notes.iter().any(|n| n.contains("left out")), "{notes:?}");
    }
}
