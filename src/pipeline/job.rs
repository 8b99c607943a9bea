//! `job.toml`: a training job as its owner describes it. Every key is checked; docs/pipeline.md lists them.

use super::activations;
use super::layout::{Layout, Placement};
use super::presets;
use super::schedule::ScheduleName;
use super::schedules::numbers::{self, Number};
use super::toml_section::{Section, TomlSource};
use crate::shape::{DType, LayerShape, Recompute};
use crate::units::counted;
use crate::{Error, Result, nearest};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

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
}

/// The machine that the job is to run on.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    /// Path of the cost model, resolved against the job's folder; `None` where the file names none.
    pub cost_model: Option<PathBuf>,
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
        let source = TomlSource { path, text };
        let mut file = File::split(source)?;
        let model = read_model(&mut file)?;
        let parallel = read_parallel(&mut file)?;
        let hardware = read_hardware(&mut file, path)?;
        let side = file.side.into_iter().map(|section| read_side(section, source)).collect::<Result<Vec<_>>>()?;
        let limits = read_limits(file.limits)?;
        let job = Job { path: path.to_path_buf(), model: model.0, parallel: parallel.0, hardware, side, limits };
        job.check(&model.1, &parallel.1)?;
        Ok(job)
    }

    /// Micro-batches of one iteration on each data-parallel rank; a two-way pipeline sends half of them each way.
    pub fn micro_batches(&self) -> u64 {
        self.parallel.global_batch / (self.parallel.data * self.parallel.micro_batch)
    }

    /// Transformer layers of one pipeline stage, all of its chunks together.
    pub fn layers_per_stage(&self) -> u64 {
        self.model.layers / self.parallel.pipeline
    }

    /// The part of a micro-batch's activations that W still needs (docs/pipeline.md). With full recomputation that is
    /// there only while the backward runs; recomputed attention leaves its quadratic part out.
    pub fn weight_share(&self) -> f64 {
        let m = &self.model;
        match self.parallel.recompute {
            Recompute::None => activations::weight_share(m.heads, m.sequence, m.hidden),
            Recompute::Selective | Recompute::Full => 32.0 / 34.0,
        }
    }

    /// The same job divided over its GPUs in another way; `None` where something does not divide, or the schedule does not
    /// exist for the numbers.
    pub fn divided(&self, pipeline: u64, tensor: u64, data: u64, micro_batch: u64) -> Option<Job> {
        let parallel = Parallel { pipeline, tensor, data, micro_batch, ..self.parallel.clone() };
        let job = Job { parallel, ..self.clone() };
        let (m, p) = (&job.model, &job.parallel);
        let chunks = p.chunks.map(|c| c as usize);
        let parts = pipeline.checked_mul(numbers::chunks(p.schedule, chunks) as u64)?;
        let divides = m.heads.is_multiple_of(tensor)
            && m.layers.is_multiple_of(parts)
            && p.global_batch.is_multiple_of(data.checked_mul(micro_batch)?);
        let exists = || numbers::check(p.schedule, pipeline as usize, job.micro_batches() as usize, chunks).is_ok();
        (divides && exists() && job.layer(DType::Bf16).validate().is_ok()).then_some(job)
    }

    /// Which layers each stage holds under the job's own schedule.
    pub fn layout(&self) -> Layout {
        let p = &self.parallel;
        let placement = p.schedule.placement();
        let chunks = match placement {
            Placement::Both => 2,
            _ => numbers::chunks(p.schedule, p.chunks.map(|c| c as usize)),
        };
        Layout { placement, stages: p.pipeline as usize, chunks }
    }

    /// GPUs of the whole job: pipeline · tensor · data.
    pub fn gpus(&self) -> u64 {
        self.parallel.pipeline * self.parallel.tensor * self.parallel.data
    }

    /// The shape of one layer as a tensor-parallel rank runs it for one micro-batch in the number format `dtype`.
    pub fn layer(&self, dtype: DType) -> LayerShape {
        let (m, p) = (&self.model, &self.parallel);
        LayerShape::new(m.hidden, m.heads, m.sequence, p.micro_batch, dtype).tensor(p.tensor).recompute(p.recompute)
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
        divides(
            parallel,
            "tensor",
            "heads",
            m.heads,
            p.tensor,
            "tensor",
            "every tensor-parallel rank holds whole heads",
        )?;
        let chunks = p.chunks.map(|c| c as usize);
        let placed = |misfit: numbers::Misfit| {
            let key = match misfit.number {
                Number::Stages => "pipeline",
                Number::MicroBatches => "global_batch",
                Number::Chunks => "chunks",
            };
            parallel.error(key, misfit.what, misfit.cure)
        };
        numbers::check_chunks(p.schedule, chunks).map_err(placed)?;
        let parts = numbers::chunks(p.schedule, chunks) as u64;
        let what = if parts > 1 { "pipeline · chunks" } else { "pipeline" };
        let cure = "every chunk of every stage holds the same number of layers";
        divides(parallel, "pipeline", "layers", m.layers, p.pipeline * parts, what, cure)?;
        let (batch, what) = (p.data * p.micro_batch, "data · micro_batch");
        let cure = "every data-parallel rank runs the same number of micro-batches";
        divides(parallel, "global_batch", "global_batch", p.global_batch, batch, what, cure)?;
        numbers::check(p.schedule, p.pipeline as usize, self.micro_batches() as usize, chunks).map_err(placed)?;
        self.layer(DType::Bf16).validate()
    }
}

/// The file's sections, each there or empty.
struct File<'a> {
    model: Option<Section<'a>>,
    parallel: Option<Section<'a>>,
    hardware: Option<Section<'a>>,
    limits: Option<Section<'a>>,
    side: Vec<Section<'a>>,
    source: TomlSource<'a>,
}

const SECTIONS: [&str; 5] = ["model", "parallel", "hardware", "side", "limits"];

const SIDE_KEYS: [&str; 19] = [
    "name",
    "model",
    "batch",
    "preset",
    "layers",
    "hidden",
    "heads",
    "sequence",
    "vocabulary",
    "step_ns",
    "kernel_ns",
    "kernels_ns",
    "memory_gib",
    "resident_gib",
    "split",
    "after_ns",
    "pressure",
    "beside_rate",
    "value",
];

/// The keys of a section.
fn keys(section: &str) -> &'static [&'static str] {
    match section {
        "model" => &["preset", "layers", "hidden", "heads", "sequence", "vocabulary", "dtype"],
        "parallel" => &[
            "pipeline",
            "tensor",
            "data",
            "micro_batch",
            "global_batch",
            "schedule",
            "chunks",
            "sequence_parallel",
            "recompute",
        ],
        "hardware" => &["cost_model", "gpus_per_node", "memory_gib"],
        "limits" => &["main_slowdown", "memory_headroom_gib", "sides_per_bubble", "beside_compute"],
        _ => &SIDE_KEYS,
    }
}

impl<'a> File<'a> {
    fn split(source: TomlSource<'a>) -> Result<Self> {
        let mut file = File { model: None, parallel: None, hardware: None, limits: None, side: Vec::new(), source };
        for (key, value) in source.parse()? {
            let at = key.span().start;
            let Some(name) = SECTIONS.into_iter().find(|s| *s == key.get_ref().as_ref()) else {
                let what = format!("a job has no section `{}`", key.get_ref());
                return Err(source.error(at, what, nearest::cure(key.get_ref(), SECTIONS)));
            };
            match (name, value.into_inner()) {
                ("side", DeValue::Array(list)) => {
                    for entry in list {
                        let at = entry.span().start;
                        let DeValue::Table(table) = entry.into_inner() else {
                            return Err(source.error(at, "a side is not a table", "write it as [[side]]"));
                        };
                        file.side.push(Section::new(source, name, at, table, keys(name))?);
                    }
                }
                ("side", _) => return Err(source.error(at, "`side` is not a list", "write each as [[side]]")),
                (_, DeValue::Table(table)) => {
                    let section = Some(Section::new(source, name, at, table, keys(name))?);
                    match name {
                        "model" => file.model = section,
                        "parallel" => file.parallel = section,
                        "hardware" => file.hardware = section,
                        _ => file.limits = section,
                    }
                }
                _ => return Err(source.error(at, format!("`{name}` is not a table"), format!("write it as [{name}]"))),
            }
        }
        Ok(file)
    }

    fn required(&self, section: Option<Section<'a>>, name: &str, example: &str) -> Result<Section<'a>> {
        let lacking =
            || self.source.error(0, format!("the job lacks [{name}]"), format!("add [{name}] with {example}"));
        section.ok_or_else(lacking)
    }
}

/// Returns the section too: what does not divide is answered with its line.
fn read_model<'a>(file: &mut File<'a>) -> Result<(Model, Section<'a>)> {
    let section = file.model.take();
    let s =
        file.required(section, "model", "`preset = \"gpt-22b\"`, or layers, hidden, heads, sequence, vocabulary")?;
    let preset = s.choice("preset", "a model's name in quotes", presets::find)?;
    let given = |key: &str, most, value: Option<u64>, s: &Section| -> Result<u64> {
        match s.count(key, most)?.or(value) {
            Some(n) => Ok(n),
            None => Err(s.missing(key, "give layers, hidden, heads, sequence and vocabulary, or a preset")),
        }
    };
    let model = Model {
        layers: given("layers", 1 << 14, preset.map(|p| p.layers), &s)?,
        hidden: given("hidden", 1 << 17, preset.map(|p| p.hidden), &s)?,
        heads: given("heads", 1 << 12, preset.map(|p| p.heads), &s)?,
        sequence: given("sequence", 1 << 22, preset.map(|p| p.sequence), &s)?,
        vocabulary: given("vocabulary", 1 << 24, preset.map(|p| p.vocabulary), &s)?,
        dtype: s.choice("dtype", "a number format in quotes, like \"bf16\"", read_dtype)?,
        name: preset.map_or("", |p| p.name).to_string(),
    };
    let name = if model.name.is_empty() {
        format!("GPT of {}, hidden {}", counted(model.layers, "layer"), model.hidden)
    } else {
        model.name.clone()
    };
    Ok((Model { name, ..model }, s))
}

fn read_dtype(text: &str) -> Result<DType> {
    DType::parse(text).filter(|dtype| DType::TRAINED.contains(dtype)).ok_or_else(|| {
        Error::input(format!("`{text}` is not a number format"), nearest::cure(text, DType::TRAINED.map(DType::name)))
    })
}

fn read_recompute(text: &str) -> Result<Recompute> {
    Recompute::parse(text).ok_or_else(|| {
        Error::input(
            format!("`{text}` is not a way to recompute"),
            nearest::cure(text, Recompute::ALL.map(Recompute::name)),
        )
    })
}

fn read_parallel<'a>(file: &mut File<'a>) -> Result<(Parallel, Section<'a>)> {
    let section = file.parallel.take();
    let s = file.required(section, "parallel", "pipeline, micro_batch and global_batch")?;
    let needed = |key: &str, most, s: &Section| {
        s.count(key, most)?.ok_or_else(|| s.missing(key, format!("add it, like `{key} = 8`")))
    };
    let parallel = Parallel {
        pipeline: needed("pipeline", 1 << 14, &s)?,
        tensor: s.count("tensor", 1 << 12)?.unwrap_or(1),
        data: s.count("data", 1 << 20)?.unwrap_or(1),
        micro_batch: needed("micro_batch", 1 << 16, &s)?,
        global_batch: needed("global_batch", 1 << 32, &s)?,
        schedule: s
            .choice("schedule", "a schedule's name in quotes", ScheduleName::parse)?
            .unwrap_or(ScheduleName::OneFOneB),
        chunks: s.count("chunks", 4096)?,
        sequence_parallel: s.flag("sequence_parallel")?.unwrap_or(false),
        recompute: s
            .choice("recompute", "\"none\", \"selective\" or \"full\"", read_recompute)?
            .unwrap_or(Recompute::None),
    };
    Ok((parallel, s))
}

fn read_hardware(file: &mut File, path: &Path) -> Result<Hardware> {
    let Some(s) = file.hardware.take() else {
        return Ok(Hardware { cost_model: None, gpus_per_node: 8, memory_gib: None });
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let hardware = Hardware {
        cost_model: s.string("cost_model", "a path in quotes")?.map(|p| folder.join(p)),
        gpus_per_node: s.count("gpus_per_node", 1 << 10)?.unwrap_or(8),
        memory_gib: s.number("memory_gib")?,
    };
    Ok(hardware)
}

fn read_side(s: Section, source: TomlSource) -> Result<Side> {
    let model = s.string("model", "a small model's name in quotes, like \"convnet\"")?;
    let batch = s.count("batch", 1 << 20)?;
    let name = s.string("name", "a name in quotes")?;
    let (gpt, preset) = read_side_gpt(&s, batch)?;
    if gpt.is_some() && model.is_some() {
        return Err(s.error("model", "`model` and a GPT's sizes are given", "keep one: `model` names a measured side"));
    }
    let measured = match (model, batch) {
        (Some(model), Some(batch)) => Some(format!("{model}-b{batch}")),
        (Some(model), None) if model.contains("-b") => Some(model),
        (Some(_), None) => return Err(s.missing("batch", "add it, like `batch = 16`")),
        (None, Some(_)) if gpt.is_none() => {
            return Err(s.missing("model", "add it, like `model = \"convnet\"`, or a GPT's `preset`"));
        }
        (None, _) => None,
    };
    let Some(name) = name.or_else(|| measured.clone()).or(preset) else {
        return Err(s.missing("name", "add it, or name a measured side with `model` and `batch`"));
    };
    let side = Side {
        name,
        gpt,
        step_ns: s.number("step_ns")?,
        kernel_ns: s.number("kernel_ns")?,
        kernels_ns: s.list("kernels_ns")?,
        memory_gib: s.number("memory_gib")?,
        resident_gib: s.number("resident_gib")?,
        split: s.flag("split")?.unwrap_or(true),
        after_ns: s.number("after_ns")?,
        pressure: s.numbers("pressure")?,
        beside_rate: s.number("beside_rate")?,
        value: s.number("value")?.unwrap_or(1.0),
        line: 1 + source.text.as_bytes().iter().take(s.at).filter(|&&b| b == b'\n').count(),
        measured,
    };
    check_side(&side, &s)?;
    Ok(side)
}

/// A side GPT's sizes, from a preset or one by one; and the name a preset with its batch gives it.
fn read_side_gpt(s: &Section, batch: Option<u64>) -> Result<(Option<SideGpt>, Option<String>)> {
    let preset = s.choice("preset", "a model's name in quotes", presets::find)?;
    let sizes = [
        s.count("layers", 1 << 14)?.or(preset.map(|p| p.layers)),
        s.count("hidden", 1 << 17)?.or(preset.map(|p| p.hidden)),
        s.count("heads", 1 << 12)?.or(preset.map(|p| p.heads)),
        s.count("sequence", 1 << 22)?.or(preset.map(|p| p.sequence)),
        s.count("vocabulary", 1 << 24)?.or(preset.map(|p| p.vocabulary)),
    ];
    if sizes.iter().all(Option::is_none) {
        return Ok((None, None));
    }
    let names = ["layers", "hidden", "heads", "sequence", "vocabulary"];
    let [Some(layers), Some(hidden), Some(heads), Some(sequence), Some(vocabulary)] = sizes else {
        let missing = names.into_iter().zip(sizes).find(|(_, size)| size.is_none()).map_or("layers", |(name, _)| name);
        return Err(s.missing(missing, "give layers, hidden, heads, sequence and vocabulary, or a preset"));
    };
    let batch = batch.ok_or_else(|| s.missing("batch", "add it, like `batch = 4`"))?;
    let gpt = SideGpt { layers, hidden, heads, sequence, vocabulary, batch };
    if !hidden.is_multiple_of(heads) {
        let what = format!("hidden {hidden} cannot be divided by heads {heads}");
        return Err(s.error("heads", what, "hidden / heads is the size of a head"));
    }
    Ok((Some(gpt), preset.map(|p| format!("{}-b{batch}", p.name))))
}

fn check_side(side: &Side, s: &Section) -> Result<()> {
    if side.step_ns == Some(0.0) {
        return Err(s.error("step_ns", "`step_ns` is 0", "give the time of one training step in nanoseconds"));
    }
    if let (Some(step), Some(kernel)) = (side.step_ns, side.kernel_ns)
        && kernel > step
    {
        let what = format!("`kernel_ns` {kernel} is longer than the whole step of {step}");
        return Err(s.error("kernel_ns", what, "give the longest kernel within one training step"));
    }
    if let Some(kernels) = &side.kernels_ns {
        if let Some(key) = [("step_ns", side.step_ns), ("kernel_ns", side.kernel_ns)].iter().find(|k| k.1.is_some()) {
            let what = format!("`kernels_ns` and `{}` are both given", key.0);
            return Err(s.error(key.0, what, "keep kernels_ns: the step and its longest kernel follow from it"));
        }
        if kernels.iter().sum::<f64>() < 1.0 {
            return Err(s.error(
                "kernels_ns",
                "`kernels_ns` holds no kernel",
                "give the kernels' times, like [120e3, 80e3]",
            ));
        }
    }
    if side.measured.is_some() || side.gpt.is_some() {
        return Ok(());
    }
    let profiled = side.kernels_ns.as_ref().map(|_| 1.0);
    let needed = [
        ("step_ns", side.step_ns.or(profiled)),
        ("kernel_ns", side.kernel_ns.or(profiled)),
        ("memory_gib", side.memory_gib),
    ];
    match needed.iter().find(|(_, given)| given.is_none()) {
        None => Ok(()),
        Some((key, _)) => Err(s.missing(
            key,
            "add it from your own profile, name a measured side with `model` and `batch`, or a GPT with `preset` and `batch`",
        )),
    }
}

fn read_limits(section: Option<Section>) -> Result<Limits> {
    let mut limits =
        Limits { main_slowdown: 0.01, memory_headroom_gib: 2.0, sides_per_bubble: 2, beside_compute: None };
    if let Some(s) = section {
        limits.main_slowdown = s.percent("main_slowdown")?.unwrap_or(limits.main_slowdown);
        limits.memory_headroom_gib = s.number("memory_headroom_gib")?.unwrap_or(limits.memory_headroom_gib);
        limits.sides_per_bubble = s.count("sides_per_bubble", 8)?.unwrap_or(limits.sides_per_bubble);
        limits.beside_compute = s.string("beside_compute", "a sharing mode in quotes, like \"priority\"")?;
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RIGHT: &str = r#"
[model]
preset = "gpt-22b"
[parallel]
pipeline = 8
tensor = 8
data = 2
micro_batch = 4
global_batch = 64
schedule = "interleaved"
chunks = 3
sequence_parallel = true
recompute = "selective"
[hardware]
cost_model = "models/cost_model.json"
gpus_per_node = 8
memory_gib = 80
[[side]]
model = "convnet"
batch = 16
[[side]]
name = "mine"
step_ns = 2.5e6
kernel_ns = 120_000
memory_gib = 3
pressure = { memory = 0.3 }
[limits]
main_slowdown = "0.5%"
memory_headroom_gib = 1.5
sides_per_bubble = 3
beside_compute = "priority"
[[side]]
preset = "gpt-125m"
batch = 4
split = false
after_ns = 100
[[side]]
name = "listed"
kernels_ns = [120e3, 80_000]
memory_gib = 1
beside_rate = 0.5
"#;

    fn parse(text: &str) -> Result<Job> {
        Job::parse(Path::new("jobs/job.toml"), text)
    }

    #[test]
    fn every_key_is_read() {
        let job = parse(RIGHT).unwrap();
        assert_eq!((job.model.layers, job.model.hidden, job.model.vocabulary), (48, 6144, 51_200));
        assert_eq!((job.micro_batches(), job.layers_per_stage(), job.gpus()), (8, 6, 128));
        assert_eq!(job.parallel.schedule, ScheduleName::Interleaved);
        assert_eq!(job.parallel.recompute, Recompute::Selective);
        assert!(job.parallel.sequence_parallel);
        assert_eq!(job.hardware.cost_model.as_deref(), Some(Path::new("jobs/models/cost_model.json")));
        assert_eq!(job.side[0].measured.as_deref(), Some("convnet-b16"));
        assert_eq!((job.side[1].step_ns, job.side[1].kernel_ns), (Some(2.5e6), Some(120_000.0)));
        assert_eq!(job.side[1].pressure.as_ref().unwrap()["memory"], 0.3);
        assert_eq!(job.side[1].line, 21);
        assert_eq!((job.limits.main_slowdown, job.limits.memory_headroom_gib), (0.005, 1.5));
        assert_eq!((job.limits.sides_per_bubble, job.limits.beside_compute.as_deref()), (3, Some("priority")));
        let (gpt, listed) = (&job.side[2], &job.side[3]);
        let sizes = SideGpt { layers: 12, hidden: 768, heads: 12, sequence: 2048, vocabulary: 51_200, batch: 4 };
        assert_eq!(
            (gpt.name.as_str(), gpt.gpt, gpt.split, gpt.after_ns),
            ("gpt-125m-b4", Some(sizes), false, Some(100.0))
        );
        assert_eq!((listed.kernels_ns.as_deref(), listed.beside_rate), (Some(&[120e3, 80e3][..]), Some(0.5)));
        assert!(listed.split && job.side[0].split);
    }

    /// What is wrong, the line it is in, and a word of the way out.
    #[test]
    fn each_mistake_is_answered_with_its_line() {
        let cases = [
            ("preset = \"gpt-22b\"", "presett = \"gpt-22b\"", 3, "preset"),
            ("preset = \"gpt-22b\"", "preset = \"gpt-22c\"", 3, "did you mean `gpt-22b`"),
            ("preset = \"gpt-22b\"", "preset = 22", 3, "a model's name in quotes"),
            ("pipeline = 8", "pipeline = 0", 5, "a whole number from 1"),
            ("pipeline = 8", "pipeline = 7", 5, "layers 48 cannot be divided by pipeline · chunks 21"),
            ("pipeline = 8", "pipeline = -8", 5, "`pipeline` is -8"),
            ("pipeline = 8", "", 4, "[parallel] lacks `pipeline`"),
            ("tensor = 8", "tensor = 7", 6, "heads 64 cannot be divided by tensor 7"),
            ("global_batch = 64", "global_batch = 60", 9, "cannot be divided by data · micro_batch 8"),
            ("\"interleaved\"", "\"interleafed\"", 10, "did you mean `interleaved`"),
            ("\"interleaved\"", "\"zb-h1\"", 11, "chunks are not a choice of zb-h1"),
            ("\"interleaved\"", "\"zb-v\"", 11, "chunks are not a choice of zb-v"),
            ("global_batch = 64", "global_batch = 72", 9, "micro-batches 9 cannot be divided by stages 8"),
            ("\"interleaved\"\nchunks = 3", "\"dualpipe\"", 9, "dualpipe with 8 micro-batches on 8 stages"),
            ("= true", "= 1", 12, "true or false"),
            ("\"selective\"", "\"some\"", 13, "none, selective, full"),
            ("[hardware]", "[hardwear]", 14, "did you mean `hardware`"),
            ("memory_gib = 80", "memory_gib = \"80\"", 17, "a number of zero or more"),
            ("step_ns = 2.5e6", "step_ns = 0", 23, "`step_ns` is 0"),
            ("step_ns = 2.5e6", "", 21, "lacks `step_ns`"),
            ("batch = 16", "", 18, "lacks `batch`"),
            ("memory = 0.3", "memory = \"much\"", 26, "a number of zero or more"),
            ("\"0.5%\"", "0.5", 28, "a percentage in quotes"),
            ("headroom_gib = 1.5", "headrom_gib = 1.5", 29, "did you mean `memory_headroom_gib`"),
            ("sides_per_bubble = 3", "sides_per_buble = 3", 30, "did you mean `sides_per_bubble`"),
            ("sides_per_bubble = 3", "sides_per_bubble = 0", 30, "a whole number from 1"),
            ("\"priority\"", "true", 31, "a sharing mode in quotes"),
            ("batch = 4\nsplit", "split", 32, "lacks `batch`"),
            ("\"gpt-125m\"", "\"gpt-124m\"", 33, "did you mean `gpt-125m`"),
            ("batch = 4\nsplit", "batch = 4\nheads = 7\nsplit", 35, "hidden 768 cannot be divided by heads 7"),
            ("preset = \"gpt-125m\"", "layers = 2", 32, "lacks `hidden`"),
            ("batch = 4\nsplit", "batch = 4\nmodel = \"mlp\"\nsplit", 35, "keep one"),
            ("split = false", "split = \"no\"", 35, "true or false"),
            ("[120e3, 80_000]", "[120e3, \"80\"]", 39, "a number of zero or more"),
            ("[120e3, 80_000]", "120e3", 39, "a list of numbers"),
            ("[120e3, 80_000]", "[]", 39, "holds no kernel"),
            ("beside_rate = 0.5", "step_ns = 1", 41, "both given"),
            ("kernel_ns = 120_000", "kernel_ns = 1e7", 24, "longer than the whole step"),
            ("[model]", "[model", 2, "not TOML"),
        ];
        for (old, new, line, answer) in cases {
            assert!(RIGHT.contains(old), "{old}");
            let error = parse(&RIGHT.replacen(old, new, 1)).unwrap_err().to_string();
            assert!(error.contains(answer), "{new:?}: {error}");
            let place = format!("jobs/job.toml:{line}: ");
            assert!(error.starts_with(&place), "{new:?}: {error}, not {place}");
        }
        assert!(parse("not json").unwrap_err().to_string().starts_with("jobs/job.toml:1: not TOML"));
        assert!(parse("").unwrap_err().to_string().contains("lacks [model]"));
        assert!(parse("[model]\nlayrs = 3\n").unwrap_err().to_string().contains("`layrs`"));
        assert!(parse("side = 3").unwrap_err().to_string().contains("[[side]]"));
    }

    proptest! {
        /// Whatever stands in the file, the answer is a job or one line that names it.
        #[test]
        fn no_text_panics(cut in 0usize..900, insert in ".{0,12}", drop in 0usize..9) {
            let cut = (0..=cut.min(RIGHT.len())).rev().find(|&i| RIGHT.is_char_boundary(i)).unwrap();
            let rest = (cut + drop..RIGHT.len()).find(|&i| RIGHT.is_char_boundary(i)).unwrap_or(RIGHT.len());
            let text = format!("{}{insert}{}", &RIGHT[..cut], &RIGHT[rest..]);
            if let Err(error) = parse(&text) {
                let error = error.to_string();
                prop_assert!(error.starts_with("jobs/job.toml:"), "{}", error);
                prop_assert!(!error.contains('\n'));
            }
        }
    }
}
