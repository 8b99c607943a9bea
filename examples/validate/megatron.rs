//! Iteration times of Narayanan et al.'s table 1 from a cost model made of other people's published figures
//! (results/published/a100-80gb), beside what one constant TFLOP/s would give. Nothing is fitted to these rows but the
//! constant, to the median of all five.

use crate::{number, published, rows};
use bubblebench::ops::DType;
use bubblebench::pipeline::job::Job;
use bubblebench::pipeline::{costs, iteration};
use bubblebench::records::CostModel;
use bubblebench::report::Table;
use bubblebench::{Error, Result, stats};
use serde_json::Value;
use std::path::Path;

pub fn table() -> Result<String> {
    let file = published(include_str!("../../tests/data/megatron_a100.json"))?;
    let text = include_str!("../../results/published/a100-80gb/cost_model.json");
    let model: CostModel = serde_json::from_str(text)
        .map_err(|e| Error::input(format!("the published cost model is not one: {e}"), "restore it"))?;
    let rows = rows(&file, "rows");
    let rates: Vec<f64> = rows.iter().map(|r| number(r, "teraflop_per_second_per_gpu")).collect();
    let constant = stats::median(&rates).unwrap_or(f64::NAN);
    let mut table = Table::new(
        "Megatron-LM on A100",
        &format!(
            "Seconds an iteration: published (derived from the printed TFLOP/s), predicted by the cost model, and at a constant {constant:.0} TFLOP/s."
        ),
        &["parameters", "GPUs", "p", "t", "d", "b", "published", "cost model", "error", "bubble", "constant", "error"],
    );
    let (mut ours, mut flat) = (Vec::new(), Vec::new());
    for row in rows {
        let job = job(row)?;
        let (iteration_s, bubble) = predicted(&job, &model)?;
        let published = number(row, "iteration_seconds_derived");
        let at_constant = published * number(row, "teraflop_per_second_per_gpu") / constant;
        let (error, flat_error) = (iteration_s / published - 1.0, at_constant / published - 1.0);
        ours.push(error.abs());
        flat.push(flat_error.abs());
        let p = &job.parallel;
        let mut cells = vec![format!("{} B", number(row, "parameters_billion")), job.gpus().to_string()];
        cells.extend([p.pipeline, p.tensor, p.data, p.micro_batch].map(|n| n.to_string()));
        cells.push(format!("{published:.2}"));
        cells.push(format!("{iteration_s:.2}"));
        cells.push(format!("{:+.1} %", 100.0 * error));
        cells.push(format!("{bubble:.3}"));
        cells.push(format!("{at_constant:.2}"));
        cells.push(format!("{:+.1} %", 100.0 * flat_error));
        table.row(cells);
    }
    let mean = |errors: &[f64]| 100.0 * stats::mean(errors).unwrap_or(f64::NAN);
    Ok(format!(
        "{}\nmean error: cost model {:.1} %, constant {:.1} % (fitted to these very rows)\n",
        table.markdown(),
        mean(&ours),
        mean(&flat)
    ))
}

/// The table prints neither micro-batch nor chunks: one sequence in a pipeline, four without one; the fewest chunks that
/// interleave.
fn job(row: &Value) -> Result<Job> {
    let whole = |key: &str| number(row, key) as u64;
    let (p, t) = (whole("pipeline_parallel"), whole("tensor_parallel"));
    let data = whole("gpus") / (p * t);
    let layers = whole("layers");
    let chunks = (2..=layers).find(|v| layers.is_multiple_of(p * v)).unwrap_or(1);
    let schedule = if p > 1 { format!("schedule = \"interleaved\"\nchunks = {chunks}") } else { String::new() };
    let text = format!(
        "[model]\nlayers = {layers}\nhidden = {}\nheads = {}\nsequence = 2048\nvocabulary = 51200\n[parallel]\npipeline = {p}\n\
         tensor = {t}\ndata = {data}\nmicro_batch = {}\nglobal_batch = {}\nrecompute = \"full\"\n{schedule}",
        whole("hidden"),
        whole("heads"),
        if p > 1 { 1 } else { 4 },
        whole("global_batch"),
    );
    Job::parse(Path::new("megatron.toml"), &text)
}

fn predicted(job: &Job, model: &CostModel) -> Result<(f64, f64)> {
    let costs = costs::of_job(job, model, DType::Bf16)?;
    let timeline = iteration::timeline(job, &costs, job.parallel.schedule, job.parallel.chunks.map(|c| c as usize))?;
    Ok((iteration::whole_ns(&timeline, &costs) as f64 / 1e9, timeline.bubble_ratio()))
}
