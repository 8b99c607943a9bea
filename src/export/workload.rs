//! Which training job an export is of: the one given, or one that follows from the cost model.
//!
//! Formats about layers need sizes that a cost model does not prescribe. Without a job they are those of the model's first
//! measured layer, in four stages of eight such layers; of GPT-3 6.7B where no layer was measured.

use crate::Result;
use crate::cost::predict;
use crate::pipeline::job::Job;
use crate::records::CostModel;
use crate::records::cost_model::LayerAnchor;
use crate::shape::{AttentionKind, DType, LayerShape};
use std::path::Path;

/// The preset whose layer stands in where none was measured: GPT-3 6.7B, hidden 4096, 32 heads, sequence 2048.
const USUAL: &str = "gpt-6.7b";
/// Vocabulary of GPT-2 and GPT-3 as Megatron-LM pads it to a multiple of 1,024.
const VOCABULARY: u64 = 51_200;
/// GPUs of a node where the cost model states none.
const GPUS_PER_NODE: u64 = 8;

/// A training job with its number format and the GPUs that an export is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The job; its attention is settled.
    pub job: Job,
    /// The number format in which everything is priced.
    pub dtype: DType,
    /// All GPUs: the job's, or those of one node where no job was given.
    pub gpus: u64,
    /// Sentences on what was taken for granted.
    pub notes: Vec<String>,
}

impl Workload {
    /// The job given, or the one that the cost model's first layer, else GPT-3 6.7B, makes. Fails if the layer's sizes make
    /// no job.
    pub fn of(model: &CostModel, job: Option<Job>) -> Result<Workload> {
        let usual = predict::usual_dtype(model);
        if let Some(mut job) = job {
            job.model.attention = job.model.attention.or_else(|| Some(predict::usual_attention(model)));
            let (dtype, gpus) = (job.model.dtype.unwrap_or(usual), job.gpus());
            return Ok(Workload { job, dtype, gpus, notes: Vec::new() });
        }
        let gpus = gpus_per_node(model);
        let (job, note) = match model.layer.first() {
            Some(anchor) => (of_layer(anchor, gpus)?, of_layer_note(&anchor.shape)),
            None => (
                of_preset(model, gpus)?,
                format!(
                    "no layer was measured: the sizes are those of GPT-3 6.7B ({USUAL}: hidden 4096, 32 heads, sequence 2048); \
                 --job JOB.toml gives others"
                ),
            ),
        };
        let dtype = job.model.dtype.unwrap_or(usual);
        Ok(Workload { job, dtype, gpus, notes: vec![note] })
    }

    /// The layer's shape for a micro-batch of `micro_batch` sequences on one of `tensor` ranks; invalid where the heads
    /// cannot be divided over them.
    pub fn shape(&self, micro_batch: u64, tensor: u64) -> LayerShape {
        let shape = self.job.layer(self.dtype);
        LayerShape { micro_batch, tensor, context: 1, sequence_parallel: false, ..shape }
    }

    /// GPUs of one node, as many as there are at most.
    pub fn gpus_per_node(&self) -> u64 {
        self.job.hardware.gpus_per_node.clamp(1, self.gpus.max(1))
    }
}

/// GPUs of one node as the cost model states them, else 8.
pub fn gpus_per_node(model: &CostModel) -> u64 {
    model.topology.as_ref().and_then(|t| t.gpus_per_node).unwrap_or(GPUS_PER_NODE).max(1)
}

fn of_layer_note(shape: &LayerShape) -> String {
    let causal = if shape.causal { "" } else { ", causal here" };
    format!(
        "the sizes are those of the model's first layer, {}{causal}, in 4 stages of 8 layers with a vocabulary of {VOCABULARY}; \
         --job JOB.toml gives others",
        shape.slug()
    )
}

fn of_layer(anchor: &LayerAnchor, gpus: u64) -> Result<Job> {
    let s = &anchor.shape;
    let layers = format!(
        "layers = 32\nhidden = {}\nheads = {}\nkv_heads = {}\nffn_hidden = {}\ngated = {}\nnorm = \"{}\"\npositions = \"{}\"\n\
         bias = {}\nattention = \"{}\"\nsequence = {}\nvocabulary = {VOCABULARY}\ndtype = \"{}\"",
        s.hidden,
        s.heads,
        s.kv_heads,
        s.ffn_hidden,
        s.gated,
        s.norm.name(),
        s.positions.name(),
        s.bias,
        s.attention.name(),
        s.sequence,
        s.dtype.name()
    );
    let parallel = format!(
        "tensor = {}\ncontext = {}\nsequence_parallel = {}\nrecompute = \"{}\"",
        s.tensor,
        s.context,
        s.sequence_parallel,
        s.recompute.name()
    );
    made(&layers, &parallel, s.micro_batch, gpus)
}

fn of_preset(model: &CostModel, gpus: u64) -> Result<Job> {
    let attention = match predict::usual_attention(model) {
        AttentionKind::Flash => "",
        AttentionKind::Materialised => "\nattention = \"materialised\"",
    };
    made(&format!("preset = \"{USUAL}\"{attention}"), "", 1, gpus)
}

/// Four stages and twelve micro-batches: enough of both for a pipeline to have bubbles that a scheduler can remove.
fn made(model: &str, parallel: &str, micro_batch: u64, gpus: u64) -> Result<Job> {
    let text = format!(
        "[model]\n{model}\n[parallel]\npipeline = 4\nmicro_batch = {micro_batch}\nglobal_batch = {}\n{parallel}\n[hardware]\n\
         gpus_per_node = {gpus}\n",
        12 * micro_batch
    );
    Job::parse(Path::new("the job made of the model's layer"), &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;
    use crate::records::measurement::Interval;

    #[test]
    fn without_a_job_and_without_layers_it_is_gpt_3_and_said() {
        let model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        let workload = Workload::of(&model, None).unwrap();
        let shape = workload.job.layer(workload.dtype);
        assert_eq!((shape.hidden, shape.heads, shape.sequence, workload.gpus), (4096, 32, 2048, 8));
        assert!(workload.notes[0].contains("GPT-3 6.7B"), "{:?}", workload.notes);
        assert_eq!((workload.job.micro_batches(), workload.job.parallel.pipeline), (12, 4));
    }

    #[test]
    fn the_first_layer_measured_gives_all_of_its_sizes() {
        let mut model = datasheet::model(&datasheet::find("a100-sxm-80").unwrap());
        let time = Interval { median: 1e6, low: 1e6, high: 1e6 };
        let plain = LayerShape::new(2304, 24, 1024, 6, DType::Bf16).llama(8, 6144).tensor(2);
        let shape = LayerShape { attention: AttentionKind::Materialised, sequence_parallel: true, ..plain };
        model.layer.push(LayerAnchor {
            shape,
            forward_ns: time,
            backward_input_ns: time,
            backward_weight_ns: time,
            activation_bytes: 1,
            parameter_bytes: 1,
        });
        let workload = Workload::of(&model, None).unwrap();
        assert_eq!(workload.job.layer(workload.dtype), shape);
        assert!(workload.notes[0].contains(&shape.slug()), "{:?}", workload.notes);
        assert_eq!((workload.shape(3, 1).micro_batch, workload.shape(3, 1).tensor), (3, 1));
    }
}
