//! What each stage keeps in a GPU's memory, and what is free at a given moment.
//!
//! Weights in the training format; gradients in 32 bits unless the job says 16; AdamW's two moments in 32 bits, and a 32-bit
//! copy of the weights where training runs in 16 bits (Rajbhandari et al., arXiv 1910.02054, §3.1; gradients as Megatron-LM
//! keeps them). ZeRO divides the optimizer state, the gradients or the weights too over the ranks that hold the same layers.
//! Where the embedding and the head stand, and whether a device holds one stage or two, the schedule's layout says.

use super::activations::{self, Live};
use super::job::Job;
use super::layout::Layout;
use super::prices::LayerPrice;
use super::schedule::Schedule;
use crate::shape::{DType, LayerShape, Normalization, Positions, Recompute};
use crate::{Error, Result};

/// Bytes of one GiB.
pub const GIB: f64 = (1u64 << 30) as f64;

/// What one stage keeps in the memory of one GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageMemory {
    /// Parameters the GPU computes with, as a count of elements.
    pub parameters: u64,
    /// Bytes of the weights in the training format.
    pub weights_bytes: u64,
    /// Bytes of the gradients, 4 a parameter unless the job keeps them in 16 bits.
    pub gradients_bytes: u64,
    /// Bytes of AdamW's two 32-bit moments, and of the 32-bit copy of the weights where training runs in 16 bits.
    pub optimizer_bytes: u64,
    /// Bytes of one micro-batch's activations, held between its forward and its backward.
    pub activation_bytes: u64,
    /// Bytes held while the stage works and free in its bubbles: the widest activation of a layer and its gradient, and the
    /// weights' gradients of one layer, or of the head, before they are added to what was accumulated.
    pub temporary_bytes: u64,
}

impl StageMemory {
    /// Bytes held through the whole iteration: weights, gradients and optimizer state.
    pub const fn static_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.gradients_bytes).saturating_add(self.optimizer_bytes)
    }

    /// Bytes held at a moment at which the activations of so many micro-batches are live and nothing is computed.
    pub fn used_bytes(&self, live_micro_batches: f64) -> f64 {
        self.static_bytes() as f64 + self.activation_bytes as f64 * live_micro_batches
    }

    /// The most bytes held while the stage works with the activations of so many micro-batches.
    pub fn peak_bytes(&self, live_micro_batches: f64) -> f64 {
        self.used_bytes(live_micro_batches) + self.temporary_bytes as f64
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
    /// Bytes that side work may take in a bubble of a stage while it holds `live` micro-batches; `None` where the GPU's
    /// memory is not known.
    pub fn free_bytes(&self, stage: usize, live: f64) -> Option<f64> {
        let free = self.total_bytes? - self.stage[stage].used_bytes(live) - self.headroom_bytes;
        Some(free.max(0.0))
    }

    /// Bytes that side work may hold on a stage through the whole iteration, at most `live` micro-batches of which are held
    /// at once; `None` where the GPU's memory is not known.
    pub fn always_free_bytes(&self, stage: usize, live: f64) -> Option<f64> {
        let free = self.total_bytes? - self.stage[stage].peak_bytes(live) - self.headroom_bytes;
        Some(free.max(0.0))
    }

    /// The most bytes that the fullest device holds while the schedule runs.
    pub fn peak_bytes(&self, schedule: &Schedule, weight_share: f64) -> f64 {
        let peak = |stage: usize| self.stage[stage].peak_bytes(activations::peak(schedule, stage, weight_share));
        (0..schedule.stages).map(peak).fold(0.0, f64::max)
    }

    /// Whether every device holds the job and leaves the headroom free, which is for what no estimate counts (the CUDA context,
    /// NCCL's buffers, fragmentation); `None` where the GPU's memory is not known.
    pub fn fits_with_headroom(&self, schedule: &Schedule, weight_share: f64) -> Option<bool> {
        Some(self.peak_bytes(schedule, weight_share) + self.headroom_bytes <= self.total_bytes?)
    }

    /// Whether every device holds the job, headroom aside; `None` where the GPU's memory is not known.
    pub fn fits(&self, schedule: &Schedule, weight_share: f64) -> Option<bool> {
        Some(self.peak_bytes(schedule, weight_share) <= self.total_bytes?)
    }
}

/// Parameters that each device computes with on one tensor-parallel rank, at most `u64::MAX`: its layers, of both stages in
/// a two-way pipeline; the embedding where the model begins, the head where it ends, one matrix for both where that is one
/// device and they are tied.
pub fn parameters(job: &Job, layout: Layout) -> Vec<u64> {
    let layer = job.layer(DType::Bf16).parameters();
    let hidden = job.model.hidden;
    let matrix = job.local_vocabulary().saturating_mul(hidden);
    let positions = if job.model.positions == Positions::Learned { job.model.sequence * hidden } else { 0 };
    let norm = if job.model.norm == Normalization::Layernorm { 2 * hidden } else { hidden };
    let cells = job.cell_layers(layout);
    (0..layout.stages)
        .map(|stage| {
            let any = |is: &dyn Fn(usize) -> bool| u64::from((0..layout.chunks).any(is));
            let first = any(&|chunk| layout.is_first(stage, chunk));
            let last = any(&|chunk| layout.is_last(stage, chunk));
            let matrices = if job.model.tied { first.max(last) } else { first + last };
            let layers: u64 = (0..layout.chunks).map(|chunk| cells[layout.cell(stage, chunk)]).sum();
            layer
                .saturating_mul(layers)
                .saturating_add(matrix.saturating_mul(matrices))
                .saturating_add(first * positions)
                .saturating_add(last * norm)
        })
        .collect()
}

/// The memory of the job under its own layout, whether it fits or not; `machine_bytes` is the memory of a GPU where the
/// job does not give it.
pub fn estimate(job: &Job, dtype: DType, layer: &LayerPrice, machine_bytes: Option<u64>) -> Memory {
    let total_bytes = job.hardware.memory_gib.map(|g| g * GIB).or(machine_bytes.map(|b| b as f64));
    let layout = job.layout();
    let heads = |stage| if (0..layout.chunks).any(|chunk| layout.is_last(stage, chunk)) { 1.0 } else { 0.0 };
    Memory {
        stage: stages(job, dtype, layer, layout, &heads),
        total_bytes,
        headroom_bytes: job.limits.memory_headroom_gib * GIB,
    }
}

/// The memory of the job as [`estimate`] gives it. Fails if weights, gradients and optimizer state alone do not fit on
/// a GPU.
pub fn of_job(job: &Job, dtype: DType, layer: &LayerPrice, machine_bytes: Option<u64>) -> Result<Memory> {
    let memory = estimate(job, dtype, layer, machine_bytes);
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
            "raise pipeline, tensor or zero, or correct memory_gib",
        ));
    }
    Ok(memory)
}

/// The memory `of` the job under this schedule's layout. The logits live between the head's forward and its backward
/// only; they are spread over what a stage holds at its peak, so that the peak is right.
pub fn for_schedule(
    job: &Job,
    dtype: DType,
    layer: &LayerPrice,
    of: &Memory,
    schedule: &Schedule,
    weight_share: f64,
) -> Memory {
    let heads = |stage: usize| {
        let peak = activations::peak(schedule, stage, weight_share).max(f64::MIN_POSITIVE);
        peak_heads(schedule, stage) as f64 / peak
    };
    Memory { stage: stages(job, dtype, layer, schedule.layout, &heads), ..of.clone() }
}

/// `heads` says how many times the logits count to one micro-batch's activations on a stage.
fn stages(
    job: &Job,
    dtype: DType,
    layer: &LayerPrice,
    layout: Layout,
    heads: &dyn Fn(usize) -> f64,
) -> Vec<StageMemory> {
    let p = &job.parallel;
    let part = |n: u64, from: u64| if p.zero >= from { n.div_ceil(job.replicas()) } else { n };
    let element = dtype.bytes() as u64;
    let shape = job.layer(dtype);
    let recomputed = if p.recompute_layers.is_some() { Recompute::Full } else { shape.recompute };
    let working = working_bytes(&shape.recompute(recomputed));
    let cells = job.cell_layers(layout);
    parameters(job, layout)
        .into_iter()
        .enumerate()
        .map(|(stage, parameters)| {
            // A cell's share of a micro-batch: a chunk, or in a two-way pipeline one of two stages of a micro-batch each.
            let ways = if layout.splits() { 1.0 } else { layout.chunks as f64 };
            let layers = (0..layout.chunks).map(|chunk| cells[layout.cell(stage, chunk)]).sum::<u64>() as f64 / ways;
            let activations = layers * layer_bytes(job, dtype, layer, layers) + heads(stage) * logits_bytes(job, dtype);
            let is_last = (0..layout.chunks).any(|chunk| layout.is_last(stage, chunk));
            let head = if is_last { head_working_bytes(job, dtype) } else { 0 };
            StageMemory {
                parameters,
                weights_bytes: part(parameters, 3).saturating_mul(element),
                gradients_bytes: part(parameters, 2).saturating_mul(p.gradient_dtype.bytes() as u64),
                optimizer_bytes: part(parameters, 1).saturating_mul(if element < 4 { 12 } else { 8 }),
                activation_bytes: activations as u64,
                temporary_bytes: working.max(head).saturating_add(shape.parameters() * element),
            }
        })
        .collect()
}

/// Mean bytes that a layer of a stage keeps for one micro-batch.
fn layer_bytes(job: &Job, dtype: DType, layer: &LayerPrice, of_stage: f64) -> f64 {
    let kept = layer.activation_bytes as f64;
    match job.parallel.recompute_layers {
        None => kept,
        Some(recomputed) => {
            let full = job.layer(dtype).recompute(Recompute::Full).activation_bytes() as f64;
            let share = (recomputed as f64 / of_stage.max(1.0)).min(1.0);
            (1.0 - share) * kept + share * full
        }
    }
}

/// The widest activation of a layer, that of the MLP, and one of the hidden size, whose gradients are on their way; with
/// full recomputation all that the layer computes again.
fn working_bytes(shape: &LayerShape) -> u64 {
    let element = shape.dtype.bytes() as u64;
    let passing = shape.rows() * (shape.local_inner_outputs() + shape.hidden) * element;
    match shape.recompute {
        Recompute::Full => passing + shape.recompute(Recompute::None).activation_bytes(),
        Recompute::Selective => {
            passing + shape.recompute(Recompute::None).activation_bytes().saturating_sub(shape.activation_bytes())
        }
        Recompute::None => passing,
    }
}

/// The head's weight gradient in the training format, the gradient of its input and the input itself.
fn head_working_bytes(job: &Job, dtype: DType) -> u64 {
    let shape = job.layer(dtype);
    let rows = 2 * shape.rows() * shape.hidden;
    rows.saturating_add(job.local_vocabulary().saturating_mul(shape.hidden)).saturating_mul(dtype.bytes() as u64)
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

/// The logits, whose gradients take their place, in the training format until the head's backward.
fn logits_bytes(job: &Job, dtype: DType) -> f64 {
    job.layer(dtype).rows() as f64 * job.local_vocabulary() as f64 * dtype.bytes() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A layer that keeps a MiB.
    const MIB: LayerPrice = LayerPrice::exact(1.0, 1.0, 1.0, 1 << 20);

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
        let memory = of_job(&job(80), DType::Bf16, &MIB, None).unwrap();
        let parameters: u64 = memory.stage.iter().map(|s| s.parameters).sum();
        assert!((parameters as f64 / 6.87e9 - 1.0).abs() < 0.01, "{parameters}");
        let s = memory.stage[1];
        assert_eq!(s.static_bytes(), 18 * s.parameters);
        assert_eq!(s.activation_bytes, 8 << 20);
        assert_eq!(
            memory.always_free_bytes(1, 2.5).unwrap(),
            memory.free_bytes(1, 2.5).unwrap() - s.temporary_bytes as f64
        );
        let free = memory.free_bytes(1, 2.5).unwrap();
        assert_eq!(free, 79.0 * GIB - 18.0 * s.parameters as f64 - 20.0 * (1 << 20) as f64);
        assert_eq!(memory.free_bytes(1, 1e6), Some(0.0));
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let error = of_job(&job(24), DType::Bf16, &MIB, None).unwrap_err().to_string();
        assert!(error.contains("stage 0 needs") && error.contains("24.0 GiB"), "{error}");
        let mut unknown = job(24);
        unknown.hardware.memory_gib = None;
        assert_eq!(of_job(&unknown, DType::Bf16, &MIB, None).unwrap().free_bytes(0, 0.0), None);
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
        let memory = of_job(&job, DType::Bf16, &MIB, None).unwrap();
        (for_schedule(&job, DType::Bf16, &MIB, &memory, &schedule, 0.43), schedule)
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
        let logits = 2.0 * 2048.0 * 51_200.0;
        for (name, stage, often) in [("1f1b", 3, 1.0), ("gpipe", 3, 16.0), ("zb-v", 0, 1.0), ("interleaved", 3, 1.0)] {
            let (memory, schedule) = under(name);
            let peak = activations::peak(&schedule, stage, 0.43);
            let held = (memory.stage[stage].activation_bytes - (8 << 20)) as f64 * peak;
            assert!((held / logits - often).abs() < 0.01, "{name}: {}", held / logits);
        }
    }
}
