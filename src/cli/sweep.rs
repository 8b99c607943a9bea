//! `bubblebench plan --sweep`: the job divided over its GPUs in every way.

use super::terminal::{self, note};
use super::{print, print_json};
use crate::Result;
use crate::cost::predict;
use crate::pipeline::job::Job;
use crate::pipeline::sweep::{self, SweepRecord};
use crate::records::CostModel;
use crate::report::plan::gib;
use crate::report::{Screen, Table};
use crate::units::{counted, format_ns};
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
            note(format_args!("{done} of {all} divisions simulated"));
            *last = Instant::now();
        }
    };
    let machine = (model.machine.name.as_str(), model.machine.memory_bytes);
    let record = sweep::sweep(job, model, dtype, machine, &progress)?;
    if json { print_json(&record) } else { print(&render(&record, terminal::screen())) }
}

fn render(record: &SweepRecord, screen: Screen) -> String {
    let memory = record.memory_bytes.map_or(String::new(), |b| format!(" of {}", gib(b as f64)));
    let mut text = format!(
        "{} on {} ({}): {}, {} an iteration\n\n",
        record.model,
        counted(record.gpus, "GPU"),
        record.machine,
        record.schedule,
        counted(record.global_batch, "sequence")
    );
    text = screen.prose(&text, 2);
    let mut table = Table::new(
        "Divisions",
        &format!(
            "Predicted iteration with gradients and optimizer step and its 95 % interval, bubble ratio of the pipeline, GiB of the fullest GPU{memory}. Rows of one place are not known to differ. ~ layer times extrapolated. → the job as it is."
        ),
        &[
            "",
            "place",
            "pipeline",
            "tensor",
            "data",
            "micro-batch",
            "micro-batches",
            "iteration",
            "interval",
            "bubble ratio",
            "sequences/s",
            "memory",
            "fits",
        ],
    )
    .keys(2)
    .spare(&["micro-batches", "sequences/s", "bubble ratio", "interval"]);
    let own = record.rows.iter().position(|r| r.own);
    let shown = |index: &usize| *index < SHOWN || Some(*index) == own;
    for r in (0..record.rows.len()).filter(shown).map(|index| &record.rows[index]) {
        let fits = match r.fits_memory {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        let mut cells = vec![if r.own { "→" } else { "" }.to_string(), r.rank.to_string()];
        cells.extend([r.pipeline, r.tensor, r.data, r.micro_batch, r.micro_batches].map(|n| n.to_string()));
        let extrapolated = if r.layer_in_range { "" } else { " ~" };
        cells.push(format!("{}{extrapolated}", format_ns(r.iteration_ns as f64)));
        cells.push(format!("[{}, {}]", format_ns(r.iteration_low_ns as f64), format_ns(r.iteration_high_ns as f64)));
        cells.push(format!("{:.4}", r.bubble_ratio));
        cells.push(format!("{:.2}", r.sequences_per_s));
        cells.push(gib(r.peak_bytes as f64));
        cells.push(fits.into());
        table.row(cells);
    }
    text += &table.terminal(screen);
    let hidden = record.rows.len() - (0..record.rows.len()).filter(shown).count();
    text + &screen.prose(&below(record, hidden), 2)
}

/// What the table does not show, and why, and the notes.
fn below(record: &SweepRecord, hidden: usize) -> String {
    let mut text = String::new();
    if hidden > 0 {
        let _ = writeln!(text, "not shown, slower or larger: {}; --json has all", counted(hidden, "division"));
    }
    if record.left_out > 0 {
        let _ = writeln!(
            text,
            "left out: {}, where layers, heads or global_batch do not divide, or {} does not exist for the numbers",
            counted(record.left_out, "division"),
            record.schedule
        );
    }
    for note in &record.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}
