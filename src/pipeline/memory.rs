//! What each stage keeps in a GPU's memory, and what is free at a given moment.
//!
//! Weights in the training format; gradients in 32 bits; AdamW's two moments in 32 bits, and a 32-bit copy of the weights
//! where training runs in 16 bits (Rajbhandari et al., arXiv 1910.02054, §3.1; gradients as Megatron-LM keeps them).
//! Where the embedding and the head stand, and whether a device holds one stage or two, the schedule's layout says.

use super::activations::{self, Live};
use super::job::Job;
use super::layout::Layout;
use super::schedule::Schedule;
use crate::shape::{DType, Recompute};
use crate::{Error, Result};

/// Bytes of one GiB.
pub const GIB: f64 = (1u64 << 30) as f64;

/// What one stage keeps in the memory of one GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageMemory {
    /// Parameters the GPU holds, as a count of elements.
    pub parameters: u64,
    /// Bytes of the weights in the training format.
    pub weights_bytes: u64,
    /// Bytes of the gradients, 4 a parameter.
    pub gradients_bytes: u64,
    /// Bytes of AdamW's two 32-bit moments, and of the 32-bit copy of the weights where training runs in 16 bits.
    pub optimizer_bytes: u64,
    /// Bytes of one micro-batch's activations, held between its forward and its backward.
    pub activation_bytes: u64,
}

impl StageMemory {
    fn new(parameters: u64, dtype: DType, activation_bytes: u64) -> Self {
        StageMemory {
            parameters,
            weights_bytes: parameters.saturating_mul(dtype.bytes() as u64),
            gradients_bytes: parameters.saturating_mul(4),
            optimizer_bytes: parameters.saturating_mul(if dtype.bytes() < 4 { 12 } else { 8 }),
            activation_bytes,
        }
    }

    /// Bytes held through the whole iteration: weights, gradients and optimizer state.
    pub const fn static_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.gradients_bytes).saturating_add(self.optimizer_bytes)
    }

    /// Bytes held at a moment at which the activations of so many micro-batches are live.
    pub fn used_bytes(&self, live_micro_batches: f64) -> f64 {
        self.static_bytes() as f64 + self.activation_bytes as f64 * live_micro_batches
    }
}

/// The memory of a GPU, and what each stage keeps in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// One entry a stage, in pipeline order.
    pub stage: Vec<StageMemory>,
    /// Bytes of one GPU's memory; `None` where neither the job nor the cost model says it.
    pub total_bytes: Option<f64>,
    /// Bytes that side work leaves free on every GPU.
    pub headroom_bytes: f64,
}

impl Memory {
    /// Bytes that side work may take on a stage while it holds `live` micro-batches; `None` where the GPU's memory is
    /// not known.
    pub fn free_bytes(&self, stage: usize, live: f64) -> Option<f64> {
        let free = self.total_bytes? - self.stage[stage].used_bytes(live) - self.headroom_bytes;
        Some(free.max(0.0))
    }

    /// The most bytes that the fullest device holds while the schedule runs.
    pub fn peak_bytes(&self, schedule: &Schedule, weight_share: f64) -> f64 {
        let used = |stage: usize| self.stage[stage].used_bytes(activations::peak(schedule, stage, weight_share));
        (0..schedule.stages).map(used).fold(0.0, f64::max)
    }

    /// Whether every device holds the job, headroom aside; `None` where the GPU's memory is not known.
    pub fn fits(&self, schedule: &Schedule, weight_share: f64) -> Option<bool> {
        Some(self.peak_bytes(schedule, weight_share) <= self.total_bytes?)
    }
}

/// Parameters that each device holds on one tensor-parallel rank, at most `u64::MAX`: its layers, of both stages in a
/// two-way pipeline; the embedding where the model begins, the head where it ends, one matrix for both where that is
/// one device.
pub fn parameters(job: &Job, layout: Layout) -> Vec<u64> {
    let ways = if layout.splits() { 1 } else { layout.chunks as u64 };
    let layers = job.layer(DType::Bf16).parameters().saturating_mul(job.layers_per_stage()).saturating_mul(ways);
    let vocabulary = job.model.vocabulary.div_ceil(job.parallel.tensor).saturating_mul(job.model.hidden);
    (0..layout.stages)
        .map(|stage| {
            let any = |is: &dyn Fn(usize) -> bool| u64::from((0..layout.chunks).any(is));
            let first = any(&|chunk| layout.is_first(stage, chunk));
            let last = any(&|chunk| layout.is_last(stage, chunk));
            layers
                .saturating_add(vocabulary.saturating_mul(first.max(last)))
                .saturating_add(first * job.model.sequence * job.model.hidden)
                .saturating_add(last * 2 * job.model.hidden)
        })
        .collect()
}

/// The memory of the job under its own layout, whether it fits or not; `machine_bytes` is the memory of a GPU where the
/// job does not give it.
pub fn estimate(job: &Job, dtype: DType, layer_activation_bytes: u64, machine_bytes: Option<u64>) -> Memory {
    let total_bytes = job.hardware.memory_gib.map(|g| g * GIB).or(machine_bytes.map(|b| b as f64));
    let layout = job.layout();
    let activations = stage_activation_bytes(job, dtype, layer_activation_bytes);
    let logits = |stage| {
        if (0..layout.chunks).any(|chunk| layout.is_last(stage, chunk)) { logits_bytes(job) } else { 0 }
    };
    let stage: Vec<StageMemory> = parameters(job, layout)
        .into_iter()
        .enumerate()
        .map(|(index, parameters)| StageMemory::new(parameters, dtype, activations.saturating_add(logits(index))))
        .collect();
    Memory { stage, total_bytes, headroom_bytes: job.limits.memory_headroom_gib * GIB }
}

/// The memory of the job as [`estimate`] gives it. Fails if weights, gradients and optimizer state alone do not fit on
/// a GPU.
pub fn of_job(job: &Job, dtype: DType, layer_activation_bytes: u64, machine_bytes: Option<u64>) -> Result<Memory> {
    let memory = estimate(job, dtype, layer_activation_bytes, machine_bytes);
    if let Some(total) = memory.total_bytes
        && let Some((index, most)) = memory.stage.iter().enumerate().find(|(_, s)| s.static_bytes() as f64 > total)
    {
        return Err(Error::input(
            format!(
                "{}: stage {index} needs {:.1} GiB for weights, gradients and optimizer, a GPU has {:.1} GiB",
                job.path.display(),
                most.static_bytes() as f64 / GIB,
                total / GIB
            ),
            "raise pipeline or tensor, or correct memory_gib",
        ));
    }
    Ok(memory)
}

/// The memory `of` the job under this schedule's layout. The logits live between the head's forward and its backward
/// only; they are spread over what a stage holds at its peak, so that the peak is right.
pub fn for_schedule(
    job: &Job,
    dtype: DType,
    layer_activation_bytes: u64,
    of: &Memory,
    schedule: &Schedule,
    weight_share: f64,
) -> Memory {
    let activations = stage_activation_bytes(job, dtype, layer_activation_bytes);
    let stage = parameters(job, schedule.layout)
        .into_iter()
        .enumerate()
        .map(|(stage, parameters)| {
            let peak = activations::peak(schedule, stage, weight_share).max(f64::MIN_POSITIVE);
            let logits = peak_heads(schedule, stage) as f64 / peak * logits_bytes(job) as f64;
            StageMemory::new(parameters, dtype, activations.saturating_add(logits as u64))
        })
        .collect();
    Memory { stage, ..of.clone() }
}

/// The most passes of the head a stage holds between their forward and their backward.
fn peak_heads(schedule: &Schedule, stage: usize) -> u64 {
    let heads = (0..schedule.chunks).filter(|&chunk| schedule.layout.is_last(stage, chunk)).map(|chunk| {
        let passes = schedule.list(stage).iter().filter(move |o| o.chunk as usize == chunk);
        passes.fold((0, Live::default()), |(most, mut live), &operation| {
            live.after(operation);
            (live.whole.max(most), live)
        })
    });
    heads.map(|(most, _)| most).sum()
}

/// Of one micro-batch on one stage, without logits.
fn stage_activation_bytes(job: &Job, dtype: DType, layer_activation_bytes: u64) -> u64 {
    layer_bytes(job, dtype, layer_activation_bytes).saturating_mul(job.layers_per_stage())
}

/// Sequence parallelism also splits what tensor parallelism leaves whole: four rows of hidden size a layer (one where
/// everything is recomputed).
fn layer_bytes(job: &Job, dtype: DType, bytes: u64) -> u64 {
    if !job.parallel.sequence_parallel {
        return bytes;
    }
    let shape = job.layer(dtype);
    let rows = if shape.recompute == Recompute::Full { 1 } else { 4 };
    let whole = rows * shape.rows() * shape.hidden * dtype.bytes() as u64;
    bytes.saturating_sub(whole - whole / shape.tensor)
}

/// The head keeps the logits in 32 bits until its backward.
fn logits_bytes(job: &Job) -> u64 {
    let columns = job.model.vocabulary.div_ceil(job.parallel.tensor);
    [job.parallel.micro_batch, job.model.sequence, columns].into_iter().fold(4, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn job(memory_gib: u64) -> Job {
        let text = format!(
            "[model]\npreset = \"gpt-6.7b\"\n[parallel]\npipeline = 4\nmicro_batch = 1\nglobal_batch = 8\n\
             [hardware]\nmemory_gib = {memory_gib}\n[limits]\nmemory_headroom_gib = 1"
        );
        Job::parse(Path::new("job.toml"), &text).unwrap()
    }

    /// 6.7 billion parameters over four stages at 18 bytes each.
    #[test]
    fn sixteen_bit_training_keeps_eighteen_bytes_a_parameter() {
        let memory = of_job(&job(80), DType::Bf16, 1 << 20, None).unwrap();
        let parameters: u64 = memory.stage.iter().map(|s| s.parameters).sum();
        assert!((parameters as f64 / 6.87e9 - 1.0).abs() < 0.01, "{parameters}");
        let s = memory.stage[1];
        assert_eq!(s.static_bytes(), 18 * s.parameters);
        assert_eq!(s.activation_bytes, 8 << 20);
        let free = memory.free_bytes(1, 2.5).unwrap();
        assert_eq!(free, 79.0 * GIB - 18.0 * s.parameters as f64 - 20.0 * (1 << 20) as f64);
        assert_eq!(memory.free_bytes(1, 1e6), Some(0.0));
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let error = of_job(&job(24), DType::Bf16, 1, None).unwrap_err().to_string();
        assert!(error.contains("stage 0 needs") && error.contains("24.0 GiB"), "{error}");
        let mut unknown = job(24);
        unknown.hardware.memory_gib = None;
        assert_eq!(of_job(&unknown, DType::Bf16, 1, None).unwrap().free_bytes(0, 0.0), None);
    }

    fn under(schedule: &str) -> (Memory, Schedule) {
        let text = format!(
            "[model]\npreset = \"gpt-6.7b\"\n[parallel]\npipeline = 4\nmicro_batch = 1\nglobal_batch = 16\n\
             schedule = \"{schedule}\"\n[hardware]\nmemory_gib = 800"
        );
        let job = Job::parse(Path::new("job.toml"), &text).unwrap();
        let times = crate::pipeline::Times::even(4, crate::pipeline::StageTimes::new(10, 10, 10), 0);
        let schedule = Schedule::build(&crate::pipeline::ScheduleSpec {
            name: job.parallel.schedule,
            stages: 4,
            micro_batches: 16,
            chunks: None,
            memory_limit: None,
            weight_share: 0.43,
            times: &times,
        })
        .unwrap();
        let memory = of_job(&job, DType::Bf16, 1 << 20, None).unwrap();
        (for_schedule(&job, DType::Bf16, 1 << 20, &memory, &schedule, 0.43), schedule)
    }

    /// A V brings both ends to the first device, which then shares their matrix; a two-way pipeline holds every layer twice.
    #[test]
    fn the_layout_decides_who_holds_what() {
        let parameters = |name: &str| under(name).0.stage.iter().map(|s| s.parameters).collect::<Vec<_>>();
        let plain = parameters("1f1b");
        let (layers, matrix) = (plain[1], plain[3] - plain[1] - 2 * 4096);
        assert_eq!(plain[0], layers + matrix + 2048 * 4096);
        for name in ["zb-v", "v-half", "v-min", "dualpipev"] {
            assert_eq!(parameters(name), [plain[0] + 2 * 4096, layers, layers, layers], "{name}");
        }
        for name in ["chimera", "dualpipe"] {
            let ends = 2 * layers + matrix + 2048 * 4096 + 2 * 4096;
            assert_eq!(parameters(name), [ends, 2 * layers, 2 * layers, ends], "{name}");
        }
    }

    /// Logits are there while the head waits for its backward: for one micro-batch in 1F1B and a V, for all in GPipe.
    #[test]
    fn logits_count_where_the_head_is_and_as_often_as_it_waits() {
        let logits = 4.0 * 2048.0 * 51_200.0;
        for (name, stage, often) in [("1f1b", 3, 1.0), ("gpipe", 3, 16.0), ("zb-v", 0, 1.0), ("interleaved", 3, 1.0)] {
            let (memory, schedule) = under(name);
            let peak = activations::peak(&schedule, stage, 0.43);
            let held = (memory.stage[stage].activation_bytes - (8 << 20)) as f64 * peak;
            assert!((held / logits - often).abs() < 0.01, "{name}: {}", held / logits);
        }
    }
}
