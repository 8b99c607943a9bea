//! A plan for people: headline, timeline, stages, bubbles, side models, other schedules, notes.

use super::Table;
use super::timeline::picture;
use crate::fill::plan::Plan;
use crate::fill::record::{PlanBubble, PlanRecord, PlanStage};
use crate::pipeline::memory::GIB;
use crate::units::{format_ns, significant};
use std::fmt::Write;

pub fn render(plan: &Plan, width: usize) -> String {
    let record = &plan.record;
    let mut text = headline(record);
    let _ = write!(
        text,
        "\n{}\n{}\n{}",
        picture(&plan.timeline, width),
        stages(record).terminal(),
        bubbles(record).terminal()
    );
    if !record.side.is_empty() {
        let _ = write!(text, "\n{}", sides(record).terminal());
    }
    let _ = write!(text, "\n{}\n{}", alternatives(record).terminal(), outcome(record));
    for note in &record.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn headline(r: &PlanRecord) -> String {
    let chunks = if r.chunks > 1 { format!(", {} chunks", r.chunks) } else { String::new() };
    let after = match r.data_parallel_ns + r.optimizer_ns {
        0 => String::new(),
        _ => format!(
            ", of which {} gradient all-reduce and {} optimizer",
            format_ns(r.data_parallel_ns as f64),
            format_ns(r.optimizer_ns as f64)
        ),
    };
    format!(
        "{} on {} GPUs ({}): {} stages, {} micro-batches, {}{chunks}\niteration {}{after}; bubble ratio {:.4}\n",
        r.model,
        r.gpus,
        r.machine,
        r.stages,
        r.micro_batches,
        r.schedule,
        format_ns(r.iteration_ns as f64),
        r.bubble_ratio
    )
}

fn stages(r: &PlanRecord) -> Table {
    let mut table = Table::new(
        "Stages",
        "F, B, W of one micro-batch; memory per GPU in GiB: weights, gradients and optimizer, activations at their peak, and free at that moment.",
        &["stage", "F", "B", "W", "bubbles", "filled", "static", "activations", "free at peak"],
    );
    for s in &r.stage {
        let fixed = s.weights_bytes + s.gradients_bytes + s.optimizer_bytes;
        table.row(vec![
            s.stage.to_string(),
            format_ns(s.forward_ns as f64),
            format_ns(s.backward_input_ns as f64),
            format_ns(s.backward_weight_ns as f64),
            format_ns(s.bubble_ns as f64),
            share(s.filled_ns, s.bubble_ns),
            gib(fixed as f64),
            gib(s.peak_bytes.saturating_sub(fixed) as f64),
            r.memory_bytes.map_or("?".into(), |m| gib(m.saturating_sub(s.peak_bytes) as f64)),
        ]);
    }
    table
}

/// Bubbles of one stage and kind together; the free memory is the least among them.
fn bubbles(r: &PlanRecord) -> Table {
    let mut table = Table::new(
        "Bubbles",
        "By stage and kind: how many, how long, the memory free for side work in them (GiB, least), and what goes in.",
        &["stage", "kind", "count", "longest", "together", "free", "filled", "with"],
    );
    for stage in &r.stage {
        for kind in crate::pipeline::BubbleKind::ALL {
            let list: Vec<&PlanBubble> = stage.bubbles.iter().filter(|b| b.kind == kind).collect();
            if !list.is_empty() {
                table.row(bubble_row(stage, kind.name(), &list));
            }
        }
    }
    table
}

fn bubble_row(stage: &PlanStage, kind: &str, list: &[&PlanBubble]) -> Vec<String> {
    let length = |b: &&PlanBubble| b.end_ns - b.start_ns;
    let together: u64 = list.iter().map(length).sum();
    let filled: u64 = list.iter().flat_map(|b| &b.fills).map(|f| f.end_ns - f.start_ns).sum();
    let mut names: Vec<&str> = list.iter().flat_map(|b| &b.fills).map(|f| f.side.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    vec![
        stage.stage.to_string(),
        kind.replace('_', " "),
        list.len().to_string(),
        format_ns(list.iter().map(length).max().unwrap_or(0) as f64),
        format_ns(together as f64),
        list.iter().filter_map(|b| b.free_bytes).min().map_or("?".into(), |b| gib(b as f64)),
        share(filled, together),
        if names.is_empty() { "–".into() } else { names.join(", ") },
    ]
}

fn sides(r: &PlanRecord) -> Table {
    let mut table = Table::new(
        "Side work",
        "Over all GPUs of the job; the margin is lost in every bubble to opening, restart, signal and the longest kernel.",
        &["side", "step alone", "margin", "memory", "bubbles", "steps/iteration", "steps/s"],
    );
    for s in &r.side {
        table.row(vec![
            s.name.clone(),
            format_ns(s.step_ns),
            format_ns(s.margin_ns as f64),
            gib(s.memory_bytes as f64),
            s.bubbles_used.to_string(),
            significant(s.steps_per_iteration),
            significant(s.steps_per_s),
        ]);
    }
    table
}

fn alternatives(r: &PlanRecord) -> Table {
    let mut table = Table::new(
        "Other schedules",
        "The same job: throughput over this schedule's, empty and with its remaining bubbles filled.",
        &["schedule", "chunks", "iteration", "bubble ratio", "gain", "gain filled", "peak activations", "fits"],
    );
    for a in &r.alternatives {
        table.row(vec![
            a.schedule.clone(),
            a.chunks.to_string(),
            format_ns(a.iteration_ns as f64),
            format!("{:.4}", a.bubble_ratio),
            format!("{:.3}", a.gain),
            format!("{:.3}", a.gain_filled),
            format!("{:.1}", a.peak_activations),
            a.fits_memory.map_or("?", |f| if f { "yes" } else { "no" }).into(),
        ]);
    }
    table
}

fn outcome(r: &PlanRecord) -> String {
    let o = &r.outcome;
    let mut text = format!(
        "gain {:.3} of at most {:.3}: useful work (main + side) over main alone; {:.0} % of bubble time used, main slowdown {:.2} %, {} GPU-seconds an iteration\n",
        o.gain,
        o.gain_bound,
        100.0 * o.bubble_used,
        100.0 * (o.main_slowdown - 1.0),
        significant(o.recovered_gpu_s)
    );
    if let Some(best) = &o.best_schedule {
        let _ = writeln!(
            text,
            "net {:.3}: {best} alone would win {:.3} with nothing filled",
            o.net_gain, o.best_schedule_gain
        );
    }
    text
}

fn gib(bytes: f64) -> String {
    format!("{:.1}", bytes / GIB)
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "–".into() } else { format!("{:.0} %", 100.0 * part as f64 / whole as f64) }
}
