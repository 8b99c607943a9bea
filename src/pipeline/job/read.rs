//! From the text of a job file to a [`Job`]: sections, keys, and the answer to each mistake with its line.

use super::spread::Spread;
use super::{Hardware, Job, Limits, Model, Parallel, Side, SideGpt};
use crate::pipeline::presets;
use crate::pipeline::schedule::ScheduleName;
use crate::pipeline::toml_section::{Section, TomlSource};
use crate::shape::{AttentionKind, DType, Normalization, Positions, Recompute};
use crate::units::counted;
use crate::{Error, Result, nearest};
use std::path::Path;
use toml::de::DeValue;

/// Reads and checks the text of a job file.
pub(super) fn job(path: &Path, text: &str) -> Result<Job> {
    let source = TomlSource { path, text };
    let mut file = File::split(source)?;
    let model = read_model(&mut file)?;
    let parallel = read_parallel(&mut file)?;
    let hardware = read_hardware(&mut file, path)?;
    let side = file.side.into_iter().map(|section| read_side(section, source)).collect::<Result<Vec<_>>>()?;
    let limits = read_limits(file.limits)?;
    let job =
        Job { path: path.to_path_buf(), model: model.0, parallel: parallel.0, hardware, side, limits, order: None };
    job.check(&model.1, &parallel.1)?;
    Ok(job)
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

const SIDE_KEYS: [&str; 20] = [
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
    "receive_rate",
    "value",
];

/// The keys of a section.
fn keys(section: &str) -> &'static [&'static str] {
    match section {
        "model" => &[
            "preset",
            "layers",
            "hidden",
            "heads",
            "kv_heads",
            "ffn_hidden",
            "gated",
            "norm",
            "positions",
            "bias",
            "tied",
            "attention",
            "experts",
            "experts_per_token",
            "sequence",
            "vocabulary",
            "dtype",
        ],
        "parallel" => &[
            "pipeline",
            "tensor",
            "data",
            "context",
            "expert",
            "micro_batch",
            "global_batch",
            "schedule",
            "chunks",
            "layout",
            "sequence_parallel",
            "recompute",
            "recompute_layers",
            "zero",
            "overlap_gradients",
            "overlap_parameters",
            "gradient_dtype",
        ],
        "hardware" => &["cost_model", "gpu", "gpus_per_node", "memory_gib"],
        "limits" => &[
            "main_slowdown",
            "memory_headroom_gib",
            "sides_per_bubble",
            "beside_compute",
            "bubble_jitter",
            "bubble_quantile",
        ],
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
    refuse_experts(&s, &["experts", "experts_per_token"])?;
    let preset = s.choice("preset", "a model's name in quotes", presets::find)?;
    let given = |key: &str, most, value: Option<u64>, s: &Section| -> Result<u64> {
        match s.count(key, most)?.or(value) {
            Some(n) => Ok(n),
            None => Err(s.missing(key, "give layers, hidden, heads, sequence and vocabulary, or a preset")),
        }
    };
    let hidden = given("hidden", 1 << 17, preset.map(|p| p.hidden), &s)?;
    let heads = given("heads", 1 << 12, preset.map(|p| p.heads), &s)?;
    // A preset's widths belong to its own hidden size and heads.
    let own_widths = preset.filter(|p| p.hidden == hidden);
    let own_heads = preset.filter(|p| p.heads == heads);
    let gated = s.flag("gated")?.or(preset.map(|p| p.gated)).unwrap_or(false);
    let ffn_hidden = match s.count("ffn_hidden", 1 << 20)?.or(own_widths.map(|p| p.ffn_hidden)) {
        Some(given) => given,
        None if gated => {
            return Err(s.missing(
                "ffn_hidden",
                "a gated MLP's inner width is no fixed part: add it, like `ffn_hidden = 14336`",
            ));
        }
        None => 4 * hidden,
    };
    let layers = given("layers", 1 << 14, preset.map(|p| p.layers), &s)?;
    let model = Model {
        name: preset
            .map_or_else(|| format!("GPT of {}, hidden {hidden}", counted(layers, "layer")), |p| p.name.to_string()),
        layers,
        hidden,
        heads,
        kv_heads: s.count("kv_heads", 1 << 12)?.or(own_heads.map(|p| p.kv_heads)).unwrap_or(heads),
        ffn_hidden,
        gated,
        norm: named(&s, "norm", &Normalization::ALL, Normalization::name)?
            .or(preset.map(|p| p.norm))
            .unwrap_or(Normalization::Layernorm),
        positions: named(&s, "positions", &Positions::ALL, Positions::name)?
            .or(preset.map(|p| p.positions))
            .unwrap_or(Positions::Learned),
        bias: s.flag("bias")?.or(preset.map(|p| p.bias)).unwrap_or(true),
        tied: s.flag("tied")?.or(preset.map(|p| p.tied)).unwrap_or(true),
        attention: named(&s, "attention", &AttentionKind::ALL, AttentionKind::name)?,
        sequence: given("sequence", 1 << 22, preset.map(|p| p.sequence), &s)?,
        vocabulary: given("vocabulary", 1 << 24, preset.map(|p| p.vocabulary), &s)?,
        dtype: named(&s, "dtype", &DType::TRAINED, DType::name)?,
    };
    Ok((model, s))
}

/// A mixture of experts is another model, which no case measures yet.
fn refuse_experts(s: &Section, keys: &[&str]) -> Result<()> {
    match keys.iter().find(|key| s.has(key)) {
        None => Ok(()),
        Some(key) => Err(s.error(
            key,
            format!("`{key}`: mixtures of experts have no price yet"),
            "describe a dense model, or price the layers of your own profile with `import --from layers`",
        )),
    }
}

/// The key's value among those that have names; `None` where the key is not given.
fn named<T: Copy>(s: &Section, key: &str, all: &[T], name: fn(T) -> &'static str) -> Result<Option<T>> {
    let examples = || all.iter().map(|&value| format!("\"{}\"", name(value))).collect::<Vec<_>>().join(" or ");
    s.choice(key, &examples(), |text| {
        all.iter().copied().find(|&value| name(value) == text).ok_or_else(|| {
            Error::input(format!("`{text}` is unknown"), nearest::cure(text, all.iter().map(|&value| name(value))))
        })
    })
}

fn read_parallel<'a>(file: &mut File<'a>) -> Result<(Parallel, Section<'a>)> {
    let section = file.parallel.take();
    let s = file.required(section, "parallel", "pipeline, micro_batch and global_batch")?;
    refuse_experts(&s, &["expert"])?;
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
        recompute: named(&s, "recompute", &Recompute::ALL, Recompute::name)?.unwrap_or(Recompute::None),
        recompute_layers: s.count("recompute_layers", 1 << 14)?,
        context: s.count("context", 1 << 12)?.unwrap_or(1),
        zero: read_zero(&s)?,
        layout: read_layout(&s)?,
        overlap_gradients: s.flag("overlap_gradients")?.unwrap_or(false),
        overlap_parameters: s.flag("overlap_parameters")?.unwrap_or(false),
        gradient_dtype: named(&s, "gradient_dtype", &[DType::F32, DType::Bf16], DType::name)?.unwrap_or(DType::F32),
    };
    Ok((parallel, s))
}

fn read_zero(s: &Section) -> Result<u64> {
    let Some(stage) = s.number("zero")? else { return Ok(0) };
    if [0.0, 1.0, 2.0, 3.0].contains(&stage) {
        return Ok(stage as u64);
    }
    Err(s.error("zero", format!("`zero` is {stage}"), "give 0, 1, 2 or 3: what the data-parallel ranks divide"))
}

/// A list of layers, or Megatron-LM's string.
fn read_layout(s: &Section) -> Result<Option<Spread>> {
    if !s.has("layout") {
        return Ok(None);
    }
    if let Ok(Some(text)) = s.string("layout", "") {
        return Spread::parse(&text).map(Some).map_err(|(what, cure)| s.error("layout", what, cure));
    }
    let list = s.list("layout")?.unwrap_or_default();
    match list.iter().find(|n| n.fract() != 0.0 || **n > 16_384.0) {
        Some(wrong) => {
            Err(s.error("layout", format!("`layout` holds {wrong}"), "give whole numbers of layers, like [5, 6, 6, 5]"))
        }
        None => Ok(Some(Spread(list.into_iter().map(|n| n as u64).collect()))),
    }
}

fn read_hardware(file: &mut File, path: &Path) -> Result<Hardware> {
    let Some(s) = file.hardware.take() else {
        return Ok(Hardware { cost_models: Vec::new(), gpu: None, gpus_per_node: 8, memory_gib: None });
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let hardware = Hardware {
        cost_models: s
            .strings("cost_model", "a path in quotes, or a list of them")?
            .iter()
            .map(|p| folder.join(p))
            .collect(),
        gpu: s.string("gpu", "a GPU's name in quotes, like \"h100-sxm\"")?,
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
        receive_rate: s.number("receive_rate")?,
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
    if let Some(rate) = side.receive_rate.filter(|rate| !(0.01..=1.0).contains(rate)) {
        let what = format!("`receive_rate` is {rate}");
        return Err(s.error("receive_rate", what, "give a speed from 0.01 to 1, the side's alone being 1"));
    }
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

/// Standard deviations of bubbles' lengths over these lengths that say something: less is not known to vary, more is no variation about
/// a length.
const JITTERS: std::ops::RangeInclusive<f64> = 0.0001..=0.3;

fn read_limits(section: Option<Section>) -> Result<Limits> {
    let mut limits = Limits {
        main_slowdown: 0.01,
        memory_headroom_gib: 2.0,
        sides_per_bubble: 2,
        beside_compute: None,
        bubble_jitter: None,
        bubble_quantile: None,
    };
    if let Some(s) = section {
        limits.main_slowdown = s.percent("main_slowdown")?.unwrap_or(limits.main_slowdown);
        limits.memory_headroom_gib = s.number("memory_headroom_gib")?.unwrap_or(limits.memory_headroom_gib);
        limits.sides_per_bubble = s.count("sides_per_bubble", 8)?.unwrap_or(limits.sides_per_bubble);
        limits.beside_compute = s.string("beside_compute", "a sharing mode in quotes, like \"priority\"")?;
        limits.bubble_jitter = s.percent("bubble_jitter")?;
        limits.bubble_quantile = s.percent("bubble_quantile")?;
        if let Some(jitter) = limits.bubble_jitter.filter(|jitter| *jitter != 0.0 && !JITTERS.contains(jitter)) {
            let cure = "give a standard deviation of \"0.01%\" to \"30%\" of the bubbles' lengths, or \"0%\"";
            return Err(s.error("bubble_jitter", format!("`bubble_jitter` is {} %", 100.0 * jitter), cure));
        }
        if let Some(quantile) = limits.bubble_quantile.filter(|quantile| !Limits::QUANTILES.contains(quantile)) {
            let what = format!("`bubble_quantile` is {} %", 100.0 * quantile);
            return Err(s.error("bubble_quantile", what, "give \"0.1%\" to \"50%\", like \"10%\""));
        }
    }
    Ok(limits)
}
