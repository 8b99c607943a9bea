//! `bubblebench plan --sweep`: the job divided over its GPUs in every way.

use super::print;
use super::simulate::json_line;
use crate::Result;
use crate::cost::predict;
use crate::pipeline::job::Job;
use crate::pipeline::sweep::{self, SweepRecord};
use crate::records::CostModel;
use crate::report::Table;
use crate::report::plan::gib;
use crate::units::format_ns;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Rows of the table; `--json` has all.
const SHOWN: usize = 24;

pub fn run(job: &Job, model: &CostModel, json: bool) -> Result<()> {
    let dtype = job.model.dtype.unwrap_or_else(|| predict::usual_dtype(model));
    let told = Mutex::new(Instant::now());
    let progress = |done: usize, all: usize| {
        let Ok(mut last) = told.lock() else { return };
        if last.elapsed() > Duration::from_secs(2) {
            eprintln!("{done} of {all} divisions simulated");
            *last = Instant::now();
        }
    };
    let machine = (model.machine.name.as_str(), model.machine.memory_bytes);
    let record = sweep::sweep(job, model, dtype, machine, &progress)?;
    if json { print(&json_line(&record)?) } else { print(&render(&record)) }
}

fn render(record: &SweepRecord) -> String {
    let memory = record.memory_bytes.map_or(String::new(), |b| format!(" of {}", gib(b as f64)));
    let mut text = format!(
        "{} on {} GPUs ({}): {}, {} sequences an iteration\n\n",
        record.model, record.gpus, record.machine, record.schedule, record.global_batch
    );
    let mut table = Table::new(
        "Divisions",
        &format!(
            "Predicted iteration with gradients and optimizer step, bubble ratio of the pipeline, memory of the fullest GPU{memory}. ~ extrapolated. → the job as it is."
        ),
        &[
            "",
            "pipeline",
            "tensor",
            "data",
            "micro-batch",
            "micro-batches",
            "iteration",
            "bubble ratio",
            "sequences/s",
            "memory",
            "fits",
        ],
    );
    let own = record.rows.iter().position(|r| r.own);
    let shown = |index: &usize| *index < SHOWN || Some(*index) == own;
    for r in (0..record.rows.len()).filter(shown).map(|index| &record.rows[index]) {
        let fits = match r.fits_memory {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        let mut cells = vec![if r.own { "→" } else { "" }.to_string()];
        cells.extend([r.pipeline, r.tensor, r.data, r.micro_batch, r.micro_batches].map(|n| n.to_string()));
        let extrapolated = if r.in_range { "" } else { " ~" };
        cells.push(format!("{}{extrapolated}", format_ns(r.iteration_ns as f64)));
        cells.push(format!("{:.4}", r.bubble_ratio));
        cells.push(format!("{:.2}", r.sequences_per_s));
        cells.push(gib(r.peak_bytes as f64));
        cells.push(fits.into());
        table.row(cells);
    }
    text += &table.terminal();
    let hidden = record.rows.len() - (0..record.rows.len()).filter(shown).count();
    if hidden > 0 {
        let _ = writeln!(text, "{hidden} slower or larger ones are not shown: --json has them all");
    }
    if record.left_out > 0 {
        let _ = writeln!(
            text,
            "{} divisions are left out: layers, heads or global_batch do not divide, or {} does not exist for the numbers",
            record.left_out, record.schedule
        );
    }
    for note in &record.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}
