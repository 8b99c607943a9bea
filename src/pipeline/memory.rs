//! What each stage keeps in a GPU's memory, and what is free at a given moment.
//!
//! Weights in the training format; gradients in 32 bits; AdamW's two moments in 32 bits, and a 32-bit copy of the weights
//! where training runs in 16 bits (Rajbhandari et al., arXiv 1910.02054, §3.1; gradients as Megatron-LM keeps them).

use super::job::Job;
use crate::ops::DType;
use crate::shape::Recompute;
use crate::{Error, Result};

pub const GIB: f64 = (1u64 << 30) as f64;

/// One stage on one GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageMemory {
    pub parameters: u64,
    pub weights_bytes: u64,
    pub gradients_bytes: u64,
    pub optimizer_bytes: u64,
    /// Of one micro-batch, between its forward and its backward.
    pub activation_bytes: u64,
}

impl StageMemory {
    /// Held through the whole iteration.
    pub const fn static_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.gradients_bytes).saturating_add(self.optimizer_bytes)
    }

    pub fn used_bytes(&self, live_micro_batches: f64) -> f64 {
        self.static_bytes() as f64 + self.activation_bytes as f64 * live_micro_batches
    }
}

/// A GPU's memory and the stages on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    pub stage: Vec<StageMemory>,
    /// `None` where neither the job nor the cost model says it.
    pub total_bytes: Option<f64>,
    /// Kept free of side work.
    pub headroom_bytes: f64,
}

impl Memory {
    /// What side work may take while `live` micro-batches are held; nothing where the memory is not known.
    pub fn free_bytes(&self, stage: usize, live: f64) -> Option<f64> {
        let free = self.total_bytes? - self.stage[stage].used_bytes(live) - self.headroom_bytes;
        Some(free.max(0.0))
    }
}

/// Elements each stage holds (as many as a u64 counts, should a job file ask for more) on one tensor-parallel rank: its layers, the embedding on the first, the head on the last.
pub fn parameters(job: &Job) -> Vec<u64> {
    let layers = job.layer(DType::Bf16).parameters().saturating_mul(job.layers_per_stage());
    let vocabulary = job.model.vocabulary.div_ceil(job.parallel.tensor).saturating_mul(job.model.hidden);
    let last = job.parallel.pipeline - 1;
    (0..=last)
        .map(|stage| {
            let positions = job.model.sequence * job.model.hidden;
            let first = if stage == 0 { vocabulary.saturating_add(positions) } else { 0 };
            // A single stage shares one matrix between embedding and head.
            let head = if stage == last && stage > 0 { vocabulary } else { 0 };
            let norm = if stage == last { 2 * job.model.hidden } else { 0 };
            layers.saturating_add(first).saturating_add(head).saturating_add(norm)
        })
        .collect()
}

pub fn of_job(job: &Job, dtype: DType, layer_activation_bytes: u64, machine_bytes: Option<u64>) -> Result<Memory> {
    let total_bytes = job.hardware.memory_gib.map(|g| g * GIB).or(machine_bytes.map(|b| b as f64));
    let last = job.parallel.pipeline as usize - 1;
    let stage: Vec<StageMemory> = parameters(job)
        .into_iter()
        .enumerate()
        .map(|(index, parameters)| {
            let logits = if index == last { logits_bytes(job) } else { 0 };
            StageMemory {
                parameters,
                weights_bytes: parameters.saturating_mul(dtype.bytes() as u64),
                gradients_bytes: parameters.saturating_mul(4),
                optimizer_bytes: parameters.saturating_mul(if dtype.bytes() < 4 { 12 } else { 8 }),
                activation_bytes: layer_bytes(job, dtype, layer_activation_bytes)
                    .saturating_mul(job.layers_per_stage())
                    .saturating_add(logits),
            }
        })
        .collect();
    if let Some(total) = total_bytes
        && let Some((index, most)) = stage.iter().enumerate().find(|(_, s)| s.static_bytes() as f64 > total)
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
    Ok(Memory { stage, total_bytes, headroom_bytes: job.limits.memory_headroom_gib * GIB })
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

/// The last stage keeps the logits in 32 bits until its backward.
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
}
