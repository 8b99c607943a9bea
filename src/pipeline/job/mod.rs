//! `job.toml`: a training job as its owner describes it. Every key is checked; docs/pipeline.md lists them.

mod read;
mod schedule;
pub mod spread;

use super::activations;
use super::layout::{Layout, Placement};
use super::schedule::{Schedule, ScheduleName};
use super::schedules::numbers::{self, Number};
use super::toml_section::Section;
use crate::shape::{AttentionKind, DType, LayerShape, Normalization, Positions, Recompute};
use crate::{Error, Result};
use spread::Spread;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A training job as its `job.toml` describes it, checked: everything that must divide does.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Where the job was read from, for messages; what it names by a relative path lies beside it.
    pub path: PathBuf,
    /// The `[model]` section: the GPT that is trained.
    pub model: Model,
    /// The `[parallel]` section: how the model and its batch are divided over the GPUs.
    pub parallel: Parallel,
    /// The `[hardware]` section: the machine and its cost model.
    pub hardware: Hardware,
    /// The `[[side]]` sections in the file's order: small models that may fill the bubbles.
    pub side: Vec<Side>,
    /// The `[limits]` section: what side work may cost the main job.
    pub limits: Limits,
    /// A list of operations that stands in place of the order of `parallel.schedule`; no job file holds one
    /// ([`Job::with_order`]).
    pub order: Option<Arc<Schedule>>,
}

/// The shape of the GPT that the job trains.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The preset's name, or a text made of layers and hidden size where none is given.
    pub name: String,
    /// Transformer layers of the whole model.
    pub layers: u64,
    /// Hidden size: elements of one token's activations between layers; a multiple of `heads`.
    pub hidden: u64,
    /// Attention heads of a layer, over all tensor-parallel ranks.
    pub heads: u64,
    /// Heads of keys and values of a layer, over all tensor-parallel ranks; `heads` where the file does not say.
    pub kv_heads: u64,
    /// Inner width of the MLP, over all tensor-parallel ranks; 4 · `hidden` where the file does not say.
    pub ffn_hidden: u64,
    /// Whether the MLP is gated, its first product twice as wide; false where the file does not say.
    pub gated: bool,
    /// How rows are normalised; layer normalisation where the file does not say.
    pub norm: Normalization,
    /// How positions come in; learned where the file does not say.
    pub positions: Positions,
    /// Whether the products add biases; true where the file does not say.
    pub bias: bool,
    /// Whether embedding and head are one matrix; true where the file does not say.
    pub tied: bool,
    /// Whether attention's scores lie in memory; `None` leaves it to how the cost model's layers were measured.
    pub attention: Option<AttentionKind>,
    /// Tokens of one sequence.
    pub sequence: u64,
    /// Rows of the embedding's matrix, any padding included.
    pub vocabulary: u64,
    /// The number format of training; `None` leaves it to the cost model's usual one.
    pub dtype: Option<DType>,
}

/// How a job is divided: its GPUs, its batch, and the pipeline schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Parallel {
    /// Pipeline-parallel size: the number of stages.
    pub pipeline: u64,
    /// Tensor-parallel size: GPUs that share every layer; 1 where the file does not give it.
    pub tensor: u64,
    /// Data-parallel size: copies of the whole pipeline; 1 where the file does not give it.
    pub data: u64,
    /// Sequences of one micro-batch.
    pub micro_batch: u64,
    /// Sequences of one iteration, over all data-parallel ranks.
    pub global_batch: u64,
    /// The pipeline schedule; `1f1b` where the file does not name one.
    pub schedule: ScheduleName,
    /// Chunks of layers a stage, which only `interleaved` leaves to the job; `None` is the schedule's own number.
    pub chunks: Option<u64>,
    /// Whether norms and dropout are divided along the sequence over the tensor-parallel ranks (Korthikanti et al.,
    /// arXiv 2205.05198).
    pub sequence_parallel: bool,
    /// Which activations the backward computes again; none where the file does not say.
    pub recompute: Recompute,
    /// Layers of each stage that recompute everything while its others keep all; `None` is `recompute` for every layer.
    pub recompute_layers: Option<u64>,
    /// Context-parallel size: GPUs that share every sequence; 1 where the file does not give it.
    pub context: u64,
    /// What the ranks that hold the same layers divide among themselves (Rajbhandari et al., arXiv 1910.02054): 0 nothing,
    /// 1 the optimizer state, 2 the gradients too, 3 the weights too; 0 where the file does not say.
    pub zero: u64,
    /// The layers of each stage, or of each chunk of each stage, in the order of the model; `None` spreads them evenly.
    pub layout: Option<Spread>,
    /// Whether gradients are reduced while the last micro-batch's backward still runs; false where the file does not say.
    pub overlap_gradients: bool,
    /// Whether parameters that ZeRO divided are gathered while the first micro-batch's forward runs; false where the file
    /// does not say.
    pub overlap_parameters: bool,
    /// The number format in which gradients are kept and reduced; f32 where the file does not say.
    pub gradient_dtype: DType,
}

impl Parallel {
    /// [`Parallel::chunks`] as schedules count them.
    pub fn chunks(&self) -> Option<usize> {
        self.chunks.map(|chunks| chunks as usize)
    }
}

/// The machine that the job is to run on.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    /// Paths of the cost models, resolved against the job's folder; the first that knows something answers for it.
    pub cost_models: Vec<PathBuf>,
    /// Name of the GPU whose data sheet answers for what no cost model knows; `None` where the file names none.
    pub gpu: Option<String>,
    /// GPUs of one node; 8 where the file does not say.
    pub gpus_per_node: u64,
    /// Memory of one GPU in GiB; `None` leaves it to the machine of the cost model.
    pub memory_gib: Option<f64>,
}

/// A small model whose training may fill the main job's bubbles.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// What reports call the side; it follows from `measured` or from the preset and batch where the file gives no
    /// name.
    pub name: String,
    /// The side's name among the measurements, model and batch, e.g. `convnet-b16`; `None` where it was not measured
    /// here.
    pub measured: Option<String>,
    /// Time of one training step alone, in ns; `None` leaves it to `kernels_ns`, to measurements or to the cost model.
    pub step_ns: Option<f64>,
    /// Time of the side's longest kernel, in ns: what may still run after it was told to stop. `None` as for `step_ns`.
    pub kernel_ns: Option<f64>,
    /// Memory the side takes while it runs, in GiB; `None` leaves it to measurements or to the cost model.
    pub memory_gib: Option<f64>,
    /// Memory that stays taken between steps, parameters and optimizer state, in GiB; `None` is the cost model's for a
    /// GPT, else all of it.
    pub resident_gib: Option<f64>,
    /// The sizes of a side that is a GPT, whose step follows from the cost model; `None` for any other side.
    pub gpt: Option<SideGpt>,
    /// Times of all kernels of a step in their order, in ns, in place of `step_ns` and `kernel_ns`; `None` where not
    /// given.
    pub kernels_ns: Option<Vec<f64>>,
    /// Whether the side may stop within a step, between two kernels; true where the file does not say.
    pub split: bool,
    /// What the main job loses behind each bubble that the side ran in, in ns, beyond the call that closes the gate;
    /// `None` is the measured loss, or 0.
    pub after_ns: Option<f64>,
    /// Slowdown the side causes to a probe of each resource, less 1, by the resource's name, for running beside
    /// compute; `None` leaves it to the cost model.
    pub pressure: Option<BTreeMap<String, f64>>,
    /// The side's speed beside the main job's compute, where 1 is its speed alone; `None` leaves it to the cost model.
    pub beside_rate: Option<f64>,
    /// The side's speed in a bubble in which the main job waits in a receive, where 1 is its speed alone; `None` leaves it
    /// to the multiprocessors that the receive keeps.
    pub receive_rate: Option<f64>,
    /// Worth of a second of the side's work, where a second of the main job is worth 1.
    pub value: f64,
    /// Line of the side's `[[side]]` in the job file, counted from 1.
    pub line: usize,
}

/// The sizes of a side that is a GPT, on one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SideGpt {
    /// Transformer layers.
    pub layers: u64,
    /// Hidden size: elements of one token's activations between layers; a multiple of `heads`.
    pub hidden: u64,
    /// Attention heads of a layer.
    pub heads: u64,
    /// Tokens of one sequence.
    pub sequence: u64,
    /// Rows of the embedding's matrix.
    pub vocabulary: u64,
    /// Sequences of one training step.
    pub batch: u64,
}

/// What side work may cost the main job, and how it may share a GPU with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The most side work may prolong the main job's iteration, as a fraction of it; 0.01 where the file does not say.
    pub main_slowdown: f64,
    /// Memory that is kept free on every GPU, in GiB; 2 where the file does not say.
    pub memory_headroom_gib: f64,
    /// The most side models that may run one after another in one bubble, 1 to 8; 2 where the file does not say.
    pub sides_per_bubble: u64,
    /// The sharing mode in which side work may also run beside the main job's compute; `None` keeps it in bubbles.
    pub beside_compute: Option<String>,
    /// Standard deviation of a simulated bubble's length from iteration to iteration over its length; `None` where the file does
    /// not say, and then nothing is known of how bubbles vary. Of 0 it is known that they do not.
    pub bubble_jitter: Option<f64>,
    /// Quantile of a bubble's lengths that the gate opens for, from 0.001 to 0.5; `None` where neither the file nor the command line
    /// says, which [`Limits::quantile`] answers.
    pub bubble_quantile: Option<f64>,
}

impl Limits {
    /// The quantile of a bubble's lengths that the hooks of a live run open the gate for unless they are told another.
    pub const LEARNED_QUANTILE: f64 = 0.1;
    /// Quantiles that can be asked for. Below the lower end a bubble would be learned from thousands of iterations, above the upper one
    /// most would be overrun.
    pub const QUANTILES: std::ops::RangeInclusive<f64> = 0.001..=0.5;

    /// Quantile of a bubble's lengths that the gate opens for.
    pub fn quantile(&self) -> f64 {
        self.bubble_quantile.unwrap_or(Self::LEARNED_QUANTILE)
    }
}

impl Job {
    /// Reads and checks a job file. Fails if it cannot be read, is no TOML, or holds keys, values or sizes
    /// that do not fit; the error names the line.
    pub fn read(path: &Path) -> Result<Job> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        Job::parse(path, &text)
    }

    /// Checks the text of a job file as [`Job::read`] does; `path` is for error messages, and for what the job names
    /// relative to itself.
    pub fn parse(path: &Path, text: &str) -> Result<Job> {
        read::job(path, text)
    }

    /// Micro-batches of one iteration on each data-parallel rank; a two-way pipeline sends half of them each way.
    pub fn micro_batches(&self) -> u64 {
        self.parallel.global_batch / (self.parallel.data * self.parallel.micro_batch)
    }

    /// Transformer layers of every cell of a layout, by the cell's index: as the job lists them where its list is for such
    /// a layout, else spread evenly with lighter ends.
    pub fn cell_layers(&self, layout: Layout) -> Vec<u64> {
        let given = self.parallel.layout.as_ref().filter(|given| given.fits(layout));
        let even = || Spread::even(self.model.layers, spread::pieces(layout) as u64);
        given.cloned().unwrap_or_else(even).cells(layout)
    }

    /// Ranks that hold the same weights and share each step's work on them: data- and context-parallel ones together.
    pub const fn replicas(&self) -> u64 {
        self.parallel.data.saturating_mul(self.parallel.context)
    }

    /// The part of a micro-batch's activations that W still needs (docs/pipeline.md). With full recomputation that is
    /// there only while the backward runs; fused and recomputed attention leave the quadratic part out.
    pub fn weight_share(&self) -> f64 {
        let m = &self.model;
        match (self.parallel.recompute, m.attention) {
            (Recompute::None, Some(AttentionKind::Materialised)) => {
                activations::weight_share(m.heads, m.sequence, m.hidden)
            }
            _ => 32.0 / 34.0,
        }
    }

    /// The same job divided over its GPUs in another way; `None` where something does not divide, or the schedule does not
    /// exist for the numbers.
    pub fn divided(&self, pipeline: u64, tensor: u64, data: u64, micro_batch: u64) -> Option<Job> {
        self.with(Parallel { pipeline, tensor, data, micro_batch, ..self.parallel.clone() })
    }

    /// The same job under other `[parallel]` keys; `None` where something does not divide, or the schedule does not exist
    /// for the numbers. A layout of the layers stays where it is for as many pieces; else they are spread evenly.
    pub fn with(&self, parallel: Parallel) -> Option<Job> {
        // A list of operations is of one division and layout only.
        let mut job = Job { parallel, order: None, ..self.clone() };
        let layout = job.layout();
        job.parallel.layout = job.parallel.layout.filter(|given| given.fits(layout));
        let (m, p) = (&job.model, &job.parallel);
        let chunks = p.chunks();
        let divides = m.heads.is_multiple_of(p.tensor)
            && (p.layout.is_some() || m.layers >= spread::pieces(layout) as u64)
            && p.global_batch.is_multiple_of(p.data.checked_mul(p.micro_batch)?);
        let exists = || numbers::check(p.schedule, p.pipeline as usize, job.micro_batches() as usize, chunks).is_ok();
        (divides && exists() && job.memory_mistake().is_none() && job.layer(DType::Bf16).validate().is_ok())
            .then_some(job)
    }

    /// Rows of the embedding's matrix that one tensor-parallel rank holds: padded to whole groups of 128 a rank, as
    /// Megatron-LM does.
    pub const fn local_vocabulary(&self) -> u64 {
        128 * self.model.vocabulary.div_ceil(128 * self.parallel.tensor)
    }

    /// The layout of the job under a schedule, which places and cuts its stages.
    pub fn layout_under(&self, schedule: ScheduleName, chunks: Option<usize>) -> Layout {
        let placement = schedule.placement();
        let chunks = match placement {
            Placement::Both => 2,
            _ => numbers::chunks(schedule, chunks),
        };
        Layout { placement, stages: self.parallel.pipeline as usize, chunks }
    }

    /// Which layers each stage holds under the job's own schedule, or under the list that stands in its place.
    pub fn layout(&self) -> Layout {
        match &self.order {
            Some(order) => order.layout,
            None => self.layout_under(self.parallel.schedule, self.parallel.chunks()),
        }
    }

    /// GPUs of the whole job: pipeline · tensor · context · data.
    pub const fn gpus(&self) -> u64 {
        self.parallel.pipeline * self.parallel.tensor * self.parallel.context * self.parallel.data
    }

    /// The shape of one layer as a tensor-parallel rank runs it for one micro-batch in the number format `dtype`.
    pub fn layer(&self, dtype: DType) -> LayerShape {
        let (m, p) = (&self.model, &self.parallel);
        LayerShape {
            kv_heads: m.kv_heads,
            ffn_hidden: m.ffn_hidden,
            gated: m.gated,
            norm: m.norm,
            positions: m.positions,
            bias: m.bias,
            attention: m.attention.unwrap_or(AttentionKind::Flash),
            tensor: p.tensor,
            context: p.context,
            sequence_parallel: p.sequence_parallel && p.tensor > 1,
            recompute: p.recompute,
            ..LayerShape::new(m.hidden, m.heads, m.sequence, p.micro_batch, dtype)
        }
    }

    /// What must divide what.
    fn check(&self, model: &Section, parallel: &Section) -> Result<()> {
        let (m, p) = (&self.model, &self.parallel);
        let divides = |section: &Section, key, what: &str, value: u64, by: u64, by_what: &str, cure: &str| {
            if value.is_multiple_of(by) {
                return Ok(());
            }
            Err(section.error(key, format!("{what} {value} cannot be divided by {by_what} {by}"), cure))
        };
        divides(model, "hidden", "hidden", m.hidden, m.heads, "heads", "hidden / heads is the size of a head")?;
        let cure = "every head of keys and values serves equally many heads of queries";
        divides(model, "kv_heads", "heads", m.heads, m.kv_heads, "kv_heads", cure)?;
        let cure = "every tensor-parallel rank holds whole heads";
        divides(parallel, "tensor", "heads", m.heads, p.tensor, "tensor", cure)?;
        let cure = "every tensor-parallel rank holds an equal part of the MLP";
        divides(parallel, "tensor", "ffn_hidden", m.ffn_hidden, p.tensor, "tensor", cure)?;
        let cure = "each rank takes an early and a late part of every sequence, so that causal attention is balanced";
        let parts = if p.context > 1 { 2 * p.context } else { 1 };
        divides(parallel, "context", "sequence", m.sequence, parts, "2 · context", cure)?;
        let chunks = p.chunks();
        let placed = |misfit: numbers::Misfit| {
            let key = match misfit.number {
                Number::Stages => "pipeline",
                Number::MicroBatches => "global_batch",
                Number::Chunks => "chunks",
            };
            parallel.error(key, misfit.what, misfit.cure)
        };
        numbers::check_chunks(p.schedule, chunks).map_err(placed)?;
        self.check_layers(parallel)?;
        let (batch, what) = (p.data * p.micro_batch, "data · micro_batch");
        let cure = "every data-parallel rank runs the same number of micro-batches";
        divides(parallel, "global_batch", "global_batch", p.global_batch, batch, what, cure)?;
        numbers::check(p.schedule, p.pipeline as usize, self.micro_batches() as usize, chunks).map_err(placed)?;
        if let Some((key, what, cure)) = self.memory_mistake() {
            return Err(parallel.error(key, what, cure));
        }
        self.layer(DType::Bf16).validate()
    }

    /// Every piece of the model has a layer, or as many as the job lists.
    fn check_layers(&self, parallel: &Section) -> Result<()> {
        let (layers, layout) = (self.model.layers, self.layout());
        if let Some(given) = &self.parallel.layout {
            return given.check(layers, layout).map_err(|(what, cure)| parallel.error("layout", what, cure));
        }
        let parts = spread::pieces(layout) as u64;
        if layers >= parts {
            return Ok(());
        }
        let what = if layout.splits() && layout.chunks > 1 { "pipeline · chunks" } else { "pipeline" };
        Err(parallel.error(
            "pipeline",
            format!("layers {layers} are fewer than {what} {parts}"),
            "every chunk of every stage holds a layer: lower pipeline or chunks",
        ))
    }

    /// What ZeRO and recomputation ask of the rest: the key that is wrong, what is wrong with it, and what to do.
    fn memory_mistake(&self) -> Option<(&'static str, String, &'static str)> {
        let p = &self.parallel;
        if p.zero == 3 && p.pipeline > 1 {
            return Some((
                "zero",
                format!("zero = 3 with {} on {} stages", p.schedule.text(), p.pipeline),
                "every micro-batch would gather a stage's weights again: use zero = 1 or 2, or pipeline = 1",
            ));
        }
        let most =
            self.cell_layers(self.layout()).chunks(self.layout().chunks).map(|c| c.iter().sum()).max().unwrap_or(0);
        match p.recompute_layers {
            Some(_) if p.recompute != Recompute::None => Some((
                "recompute_layers",
                format!("recompute_layers and recompute = \"{}\" are both given", p.recompute.name()),
                "keep one: recompute_layers recomputes everything in that many layers of each stage and nothing in the others",
            )),
            Some(layers) if layers > most => Some((
                "recompute_layers",
                format!("recompute_layers {layers} are more than a stage's {most}"),
                "give at most the layers of a stage, or recompute = \"full\"",
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
