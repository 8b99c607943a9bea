//! Iteration times and memory of training runs that others measured and printed, beside what `plan` says of the same jobs
//! from the published machines' cost models. Nothing is fitted to these rows; docs/method.md says which of them were in view
//! while the model's form was chosen. A test holds the tables in docs/method.md against these.

use bubblebench::pipeline::job::Job;
use bubblebench::pipeline::memory::{self, GIB};
use bubblebench::pipeline::{costs, iteration};
use bubblebench::records::CostModel;
use bubblebench::report::Table;
use bubblebench::shape::AttentionKind;
use bubblebench::{Error, Result, stats};
use serde_json::Value;
use std::path::Path;

const A100: &str = include_str!("../../results/published/a100-80gb/cost_model.json");
const B200: &str = include_str!("../../results/published/b200/cost_model.json");

/// All three tables, a blank line between them.
pub fn tables() -> Result<String> {
    Ok([narayanan()?, korthikanti()?, llama()?].join("\n"))
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::input(format!("a published file is not JSON: {e}"), "restore it"))
}

fn rows(file: &Value) -> &[Value] {
    file["rows"].as_array().map_or(&[], Vec::as_slice)
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(f64::NAN)
}

fn whole(row: &Value, key: &str) -> u64 {
    number(row, key) as u64
}

/// What is predicted of a job.
struct Predicted {
    seconds: f64,
    low_s: f64,
    high_s: f64,
    /// Of the fullest GPU.
    gib: f64,
}

fn predicted(text: &str, model: &CostModel) -> Result<Predicted> {
    let mut job = Job::parse(Path::new("published.toml"), text)?;
    job.model.attention = job.model.attention.or_else(|| Some(bubblebench::cost::predict::usual_attention(model)));
    let dtype = bubblebench::shape::DType::Bf16;
    let costs = costs::of_job(&job, model, dtype)?;
    let timeline = iteration::timeline(&job, &costs, job.parallel.schedule, job.parallel.chunks.map(|c| c as usize))?;
    let (low, high) = iteration::interval_ns(&job, model, &timeline, &costs)?;
    let estimate = memory::estimate(&job, dtype, &costs.layer, None);
    let share = job.weight_share();
    let memory = memory::for_schedule(&job, dtype, &costs.layer, &estimate, &timeline.schedule, share);
    Ok(Predicted {
        seconds: iteration::whole_ns(&timeline, &costs) as f64 / 1e9,
        low_s: low as f64 / 1e9,
        high_s: high as f64 / 1e9,
        gib: memory.peak_bytes(&timeline.schedule, share) / GIB,
    })
}

/// Errors of a table, as its last line says them.
#[derive(Default)]
struct Errors {
    errors: Vec<f64>,
    inside: usize,
}

impl Errors {
    /// The cells of a row: published, predicted, its interval, the error.
    fn cells(&mut self, published_s: f64, p: &Predicted) -> Vec<String> {
        let error = p.seconds / published_s - 1.0;
        self.errors.push(100.0 * error.abs());
        self.inside += usize::from((p.low_s..=p.high_s).contains(&published_s));
        vec![
            format!("{published_s:.2}"),
            format!("{:.2}", p.seconds),
            format!("{:.2}–{:.2}", p.low_s, p.high_s),
            format!("{:+.1} %", 100.0 * error),
        ]
    }

    fn line(&self) -> String {
        format!(
            "mean error {:.1} %, worst {:.1} %; {} of {} in the interval\n",
            stats::mean(&self.errors).unwrap_or(f64::NAN),
            self.errors.iter().copied().fold(0.0, f64::max),
            self.inside,
            self.errors.len()
        )
    }
}

/// The table prints neither micro-batch nor chunks: one sequence in a pipeline, four without one; the fewest chunks that
/// interleave.
fn narayanan() -> Result<String> {
    let (file, model): (Value, CostModel) = (json(include_str!("../../tests/data/megatron_a100.json"))?, json(A100)?);
    let mut table = Table::new(
        "Megatron-LM of 2021 on A100",
        "Seconds an iteration.",
        &["parameters", "GPUs", "p", "t", "d", "b", "published", "predicted", "interval", "error"],
    );
    let mut errors = Errors::default();
    for row in rows(&file) {
        let (p, t, layers) = (whole(row, "pipeline_parallel"), whole(row, "tensor_parallel"), whole(row, "layers"));
        let data = whole(row, "gpus") / (p * t);
        let micro_batch = if p > 1 { 1 } else { 4 };
        let chunks = (2..=layers).find(|v| layers.is_multiple_of(p * v)).unwrap_or(1);
        let schedule = if p > 1 { format!("schedule = \"interleaved\"\nchunks = {chunks}") } else { String::new() };
        let text = format!(
            "[model]\nlayers = {layers}\nhidden = {}\nheads = {}\nsequence = 2048\nvocabulary = 51200\n[parallel]\n\
             pipeline = {p}\ntensor = {t}\ndata = {data}\nmicro_batch = {micro_batch}\nglobal_batch = {}\n\
             recompute = \"full\"\n{schedule}",
            whole(row, "hidden"),
            whole(row, "heads"),
            whole(row, "global_batch"),
        );
        let mut cells = vec![format!("{} B", number(row, "parameters_billion")), whole(row, "gpus").to_string()];
        cells.extend([p, t, data, micro_batch].map(|n| n.to_string()));
        cells.extend(errors.cells(number(row, "iteration_seconds_derived"), &predicted(&text, &model)?));
        table.row(cells);
    }
    Ok(format!("{}\n{}", table.markdown(), errors.line()))
}

fn korthikanti() -> Result<String> {
    let (file, model): (Value, CostModel) =
        (json(include_str!("../../tests/data/korthikanti_a100.json"))?, json(A100)?);
    let mut table = Table::new(
        "Megatron-LM of 2022 on A100",
        "Seconds an iteration.",
        &["model", "recomputed", "p", "t", "b", "published", "predicted", "interval", "error"],
    );
    let mut errors = Errors::default();
    for row in rows(&file) {
        for (mode, recompute, sequence_parallel) in
            [("full", "full", false), ("selective_sequence_parallel", "selective", true)]
        {
            let chunks = whole(row, "chunks");
            let schedule = match chunks {
                1 => String::new(),
                v => format!("schedule = \"interleaved\"\nchunks = {v}"),
            };
            let [p, t, b] = ["pipeline", "tensor", "micro_batch"].map(|key| whole(row, key));
            let text = format!(
                "[model]\nlayers = {}\nhidden = {}\nheads = {}\nsequence = 2048\nvocabulary = 51200\nattention = \"{}\"\n\
                 [parallel]\npipeline = {p}\ntensor = {t}\nmicro_batch = {b}\nglobal_batch = {}\nrecompute = \"{recompute}\"\n\
                 sequence_parallel = {sequence_parallel}\n{schedule}",
                whole(row, "layers"),
                whole(row, "hidden"),
                whole(row, "heads"),
                AttentionKind::Materialised.name(),
                whole(row, "global_batch"),
            );
            let name = row["model"].as_str().unwrap_or_default().to_string();
            let mut cells = vec![name, recompute.to_string(), p.to_string(), t.to_string(), b.to_string()];
            cells.extend(errors.cells(number(&row["iteration_s"], mode), &predicted(&text, &model)?));
            table.row(cells);
        }
    }
    Ok(format!("{}\n{}", table.markdown(), errors.line()))
}

fn llama() -> Result<String> {
    let (file, model): (Value, CostModel) = (json(include_str!("../../tests/data/llama3_b200.json"))?, json(B200)?);
    let mut table = Table::new(
        "Llama-3 70B of 12 layers on 8 B200",
        "Seconds an iteration; GiB of the fullest GPU.",
        &["p", "t", "d", "m", "published", "predicted", "interval", "error", "GiB published", "GiB predicted"],
    );
    let (mut errors, mut worst_gib) = (Errors::default(), 0f64);
    for row in rows(&file) {
        let [p, t, d, m] = ["pipeline", "tensor", "data", "micro_batches"].map(|key| whole(row, key));
        let text = format!(
            "[model]\npreset = \"llama3-70b\"\nlayers = {}\nsequence = {}\nvocabulary = {}\n[parallel]\npipeline = {p}\n\
             tensor = {t}\ndata = {d}\ncontext = {}\nmicro_batch = 1\nglobal_batch = {}\nsequence_parallel = {}\nzero = 1",
            whole(row, "layers"),
            whole(row, "sequence"),
            whole(row, "vocabulary"),
            whole(row, "context"),
            m * d,
            t > 1,
        );
        let found = predicted(&text, &model)?;
        let published_gib = number(row, "allocated_gib");
        worst_gib = worst_gib.max(100.0 * (found.gib / published_gib - 1.0).abs());
        let mut cells = [p, t, d, m].map(|n| n.to_string()).to_vec();
        cells.extend(errors.cells(number(row, "iteration_ms") / 1e3, &found));
        cells.extend([format!("{published_gib:.2}"), format!("{:.2}", found.gib)]);
        table.row(cells);
    }
    Ok(format!("{}\n{}memory: worst error {worst_gib:.1} %\n", table.markdown(), errors.line()))
}
