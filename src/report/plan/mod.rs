//! A plan for people: headline, timeline, stages, bubbles, side models, other schedules, notes.

pub mod answer;
pub mod segments;

use super::lanes::Lanes;
use super::timeline::{draw, letter};
use super::{Screen, Table};
use crate::fill::bubble_list::Planned;
use crate::fill::lengths::{rank, share_below};
use crate::fill::plan::FillPlan;
use crate::fill::record::{Alternative, PlanBubbles, PlanLengths, PlanRecord, PlanStage};
use crate::pipeline::BubbleKind;
use crate::pipeline::memory::GIB;
use crate::records::bubbles::BubbleClass;
use crate::report::lanes::Part;
use crate::units::{counted, format_ns, significant};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Stages shown of a longer pipeline; all of them are in the JSON.
const SHOWN: usize = 16;

/// Rows of the table of alternatives; all of them are in the JSON.
const ALTERNATIVES: usize = 10;

/// The job and the answer, without what stands behind them.
pub fn brief(record: &PlanRecord, screen: Screen) -> String {
    let headline = headline(record);
    format!("{}\n{}", screen.prose(&headline, 2), answer::answer(record, screen))
}

/// The whole plan as it is printed on a screen: the answer first, then what it rests on.
pub fn render(plan: &FillPlan, screen: Screen) -> String {
    let record = &plan.record;
    let shown = shown(record.stage.len());
    let mut text = brief(record, screen);
    let _ = write!(
        text,
        "\n{}\n{}\n{}",
        draw(&Lanes::of_plan(plan), &shown, screen, &letters(plan)),
        stages(record, &shown).terminal(screen),
        Some(bubbles(record, &shown)).filter(|table| !table.is_empty()).map_or(String::new(), |t| t.terminal(screen))
    );
    if shown.len() < record.stage.len() {
        let _ = writeln!(text, "{} of {} stages are shown: --json has all", shown.len(), record.stage.len());
    }
    if !record.side.is_empty() {
        let _ = write!(text, "\n{}", sides(record).terminal(screen));
    }
    if record.stage.iter().any(|s| !s.beside.is_empty()) {
        let _ = write!(text, "\n{}", beside(record, &shown).terminal(screen));
    }
    if !record.alternatives.is_empty() {
        let best = best_alternatives(record, ALTERNATIVES);
        let _ = write!(text, "\n{}", alternatives(&best).terminal(screen));
        if best.len() < record.alternatives.len() {
            let hidden = counted(record.alternatives.len() - best.len(), "slower or larger alternative");
            text += &screen.prose(&format!("not shown: {hidden}; --json has all\n"), 2);
        }
    }
    text + &notes(&record.notes, screen)
}

/// What the reader should know, a paragraph each, with a line before them.
fn notes(notes: &[String], screen: Screen) -> String {
    let each = |note: &String| screen.prose(&format!("note: {note}\n"), 6);
    let text: String = notes.iter().map(each).collect();
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// All stages of a short pipeline; of a long one the first, the last and some between, evenly.
pub fn shown(stages: usize) -> Vec<usize> {
    if stages <= SHOWN {
        return (0..stages).collect();
    }
    (0..SHOWN).map(|k| k * (stages - 1) / (SHOWN - 1)).collect()
}

fn letters(plan: &FillPlan) -> String {
    let r = &plan.record;
    let fused = r.stage.iter().all(|s| s.backward_weight_ns == 0) || plan.timeline.schedule.name.fused_backward();
    let mut text = match (&r.measured, fused) {
        (Some(_), _) => "█ compute".to_string(),
        (None, true) => "F forward  B backward".to_string(),
        (None, false) => "F forward  B backward to inputs  W backward to weights".to_string(),
    };
    for (index, side) in r.side.iter().enumerate().filter(|(_, s)| s.bubbles_used > 0) {
        let _ = write!(text, "  {} {}", letter(Some(Part::Side(index))), side.name);
    }
    text + "  · bubble"
}

/// Model, GPUs, schedule, the iteration's time and its bubble ratio, and what it makes of the GPUs.
pub fn headline(r: &PlanRecord) -> String {
    let chunks = if r.chunks > 1 { format!(", {} chunks", r.chunks) } else { String::new() };
    let parts = [(r.data_parallel_ns, "gradients"), (r.optimizer_ns, "optimizer")];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(ns, _)| *ns > 0 && r.measured.is_none())
        .map(|(ns, what)| format!("{} {what}", format_ns(*ns as f64)))
        .collect();
    let after = if parts.is_empty() { String::new() } else { format!(", of which {}", parts.join(" and ")) };
    let mut text = format!(
        "{} on {} ({}): {}, {}, {}{chunks}\niteration {}{}{after}; bubble ratio {:.4}\n",
        r.model,
        counted(r.gpus, "GPU"),
        r.machine,
        counted(r.stages, "stage"),
        counted(r.micro_batches, "micro-batch"),
        r.schedule,
        format_ns(r.iteration_ns as f64),
        interval(r),
        r.bubble_ratio
    );
    if r.measured.is_none() {
        text += &use_of_hardware(r);
    }
    if let Some(m) = &r.measured {
        let learned = r.lengths.as_ref().and_then(|lengths| lengths.iterations);
        let from = match learned {
            Some(learned) => format!("learned from {learned} of {} in {}", counted(m.iterations, "iteration"), m.file),
            None if m.iterations == 1 => format!("the only iteration in {}", m.file),
            None => format!("iteration {} of {} in {}", m.iteration, m.iterations, m.file),
        };
        let _ = writeln!(
            text,
            "measured: {from} ({}); the simulator says {} for the pipeline",
            m.source,
            format_ns(m.simulated_ns as f64)
        );
    }
    if let Some(lengths) = &r.lengths {
        text += &varying(lengths);
    }
    text
}

/// A share in percent, without zeros at its end.
fn percent(share: f64) -> f64 {
    (1e5 * share).round() / 1e3
}

/// How lengths vary, and what is made of it, in a line.
fn varying(lengths: &PlanLengths) -> String {
    if lengths.jitter == Some(0.0) {
        return "bubbles do not vary, as the job says\n".into();
    }
    let vary = lengths.jitter.map_or(String::new(), |jitter| format!("vary by {} % and ", percent(jitter)));
    let still = lengths.expected_ns == lengths.median_ns;
    // A quantile of few is their shortest, and says so.
    let few = lengths.iterations.filter(|&count| rank(count as usize, lengths.quantile) == 0 && !still);
    let few = few.map_or(String::new(), |count| {
        let later = 100.0 * share_below(count as usize, lengths.quantile);
        format!(" (the shortest of {count}: about {later:.0} % of later ones are shorter)")
    });
    let filled = match still {
        true => format!(", {}, as all of them were that long", format_ns(lengths.median_ns as f64)),
        false => format!(
            "{few}: {} of {} at the median",
            format_ns(lengths.expected_ns as f64),
            format_ns(lengths.median_ns as f64)
        ),
    };
    let late = match lengths.overrun_ns > 0.0 {
        true => format!("side work ends late by {} an iteration on all stages", format_ns(lengths.overrun_ns)),
        false => "no side work ends late".to_string(),
    };
    format!(
        "bubbles {vary}are filled for the {} % quantile of their lengths{filled}; {late}\n",
        percent(lengths.quantile),
    )
}

/// ` [low, high]`; nothing where the iteration was measured.
fn interval(r: &PlanRecord) -> String {
    if r.measured.is_some() {
        return String::new();
    }
    format!(" [{}, {}]", format_ns(r.iteration_low_ns as f64), format_ns(r.iteration_high_ns as f64))
}

/// What the iteration makes of the GPUs, in a line.
fn use_of_hardware(r: &PlanRecord) -> String {
    let percent =
        |share: Option<f64>, what: &str| share.map_or(String::new(), |s| format!(", {:.1} % {what}", 100.0 * s));
    let recomputed = match r.hardware_tflops_per_gpu > r.tflops_per_gpu {
        true => format!(
            " ({} with what is recomputed{})",
            significant(r.hardware_tflops_per_gpu),
            percent(r.hardware_flops_utilization, "HFU")
        ),
        false => String::new(),
    };
    format!(
        "{} TFLOP/s a GPU{}{recomputed}; {} tokens/s, {} GPU-hours per billion tokens\n",
        significant(r.tflops_per_gpu),
        percent(r.model_flops_utilization, "MFU"),
        significant(r.tokens_per_s),
        significant(r.gpu_hours_per_billion_tokens)
    )
}

fn stages(r: &PlanRecord, shown: &[usize]) -> Table {
    let mut table = Table::new(
        "Stages",
        "F, B, W of one micro-batch; side work put into the bubbles; what the main job loses by it; memory per GPU in GiB: weights, gradients and optimizer, activations at their peak, side models held throughout, and free at that moment.",
        &["stage", "F", "B", "W", "bubbles", "filled", "cost", "static", "activations", "side", "free at peak"],
    )
    .spare(&["static", "activations", "side", "cost"]);
    for s in shown.iter().map(|&s| &r.stage[s]) {
        let fixed = s.weights_bytes + s.gradients_bytes + s.optimizer_bytes;
        let held: u64 = s.resident.iter().map(|x| x.held_bytes).sum();
        table.row(vec![
            s.stage.to_string(),
            format_ns(s.forward_ns as f64),
            format_ns(s.backward_input_ns as f64),
            format_ns(s.backward_weight_ns as f64),
            format_ns(s.bubble_ns as f64),
            share(s.filled_ns, s.bubble_ns),
            time(s.lost_ns),
            gib(fixed as f64),
            gib(s.peak_bytes.saturating_sub(fixed) as f64),
            if held == 0 { "–".into() } else { gib(held as f64) },
            r.memory_bytes.map_or("?".into(), |m| gib(m.saturating_sub(s.peak_bytes + held) as f64)),
        ]);
    }
    table
}

/// Bubbles of one stage and kind together; the free memory is the least among them.
pub fn bubbles(r: &PlanRecord, shown: &[usize]) -> Table {
    let means = match r.lengths {
        Some(_) => {
            " What is done of work that bubbles may cut is the mean over the stage, what a bubble costs the mean over all that a side is in."
        }
        None => "",
    };
    let mut table = Table::new(
        "Bubbles",
        &format!("By stage and kind: how many, how long, the memory free for side work in them (GiB, least), how much of their time becomes side work and whose, and what opening and closing them costs the main job.{means}"),
        &["stage", "kind", "count", "longest", "together", "free", "filled", "with", "cost"],
    )
    .keys(2)
    .spare(&["longest", "cost", "free"]);
    for stage in shown.iter().map(|&s| &r.stage[s]) {
        for (label, group) in groups(stage) {
            table.row(bubble_row(r, stage, &label, &group));
        }
    }
    table
}

/// Bubbles of one stage and kind together.
#[derive(Default)]
struct Group<'a> {
    count: usize,
    longest_ns: u64,
    together_ns: u64,
    least_free: Option<f64>,
    filled_ns: u64,
    /// Runs of each side model.
    runs: BTreeMap<&'a str, usize>,
}

impl<'a> Group<'a> {
    fn add(&mut self, bubbles: &'a PlanBubbles, bubble: &Planned<'a>) {
        self.count += 1;
        self.longest_ns = self.longest_ns.max(bubble.length_ns());
        self.together_ns += bubble.length_ns();
        self.least_free = match (self.least_free, bubble.level.free_bytes) {
            (Some(least), Some(free)) => Some(least.min(free)),
            (one, other) => one.or(other),
        };
        for run in bubble.runs {
            self.filled_ns += run.work_ns;
            *self.runs.entry(bubbles.side(run)).or_default() += 1;
        }
    }
}

/// A stage's bubbles by kind; measured ones that are not filled by their class instead.
fn groups(stage: &PlanStage) -> Vec<(String, Group<'_>)> {
    let shut = BubbleClass::ALL.into_iter().filter(|class| !class.is_fillable());
    let by_kind = BubbleKind::ALL.into_iter().map(|kind| kind.name().replace('_', " "));
    let labels = by_kind.chain(shut.clone().map(|class| format!("({})", class.name())));
    let mut groups: Vec<(String, Group)> = labels.map(|label| (label, Group::default())).collect();
    for bubble in stage.bubbles.list().iter() {
        let place = match bubble.class.filter(|class| !class.is_fillable()) {
            None => BubbleKind::ALL.iter().position(|kind| *kind == bubble.kind),
            Some(class) => shut.clone().position(|other| other == class).map(|place| BubbleKind::ALL.len() + place),
        };
        if let Some((_, group)) = place.and_then(|place| groups.get_mut(place)) {
            group.add(&stage.bubbles, &bubble);
        }
    }
    groups.retain(|(_, group)| group.count > 0);
    groups
}

fn bubble_row(r: &PlanRecord, stage: &PlanStage, kind: &str, group: &Group) -> Vec<String> {
    let names: Vec<&str> = group.runs.keys().copied().collect();
    let each = |name: &str| r.side.iter().find(|s| s.name == name).map_or(0.0, |s| s.cost_ns);
    // Of what is put into bubbles so much is done on average: they may end before.
    let put: u64 = stage.bubbles.list().runs().iter().map(|run| run.work_ns).sum();
    let done = if put > 0 { stage.filled_ns as f64 / put as f64 } else { 1.0 };
    vec![
        stage.stage.to_string(),
        kind.to_string(),
        group.count.to_string(),
        format_ns(group.longest_ns as f64),
        format_ns(group.together_ns as f64),
        group.least_free.map_or("?".into(), gib),
        share((done * group.filled_ns as f64).round() as u64, group.together_ns),
        if names.is_empty() { "–".into() } else { names.join(", ") },
        time(group.runs.iter().map(|(name, runs)| *runs as f64 * each(name)).sum()),
    ]
}

/// A row a small model: its step, its kernels, its memory, and how many steps it makes.
pub fn sides(r: &PlanRecord) -> Table {
    let mut table = Table::new(
        "Side work",
        "A step alone, its kernels and the longest of them; the margin lost in every run to opening, restart, and signal with drain; memory running / between steps (GiB); steps over all GPUs of the job.",
        &["side", "step alone", "kernels", "longest", "margin", "memory", "runs", "steps/iteration", "steps/s", "from"],
    )
    .spare(&["from", "kernels", "longest", "margin", "steps/s"]);
    for s in &r.side {
        table.row(vec![
            s.name.clone(),
            format_ns(s.step_ns),
            s.kernels_per_step.to_string(),
            format_ns(s.longest_kernel_ns as f64),
            format_ns(s.margin_ns as f64),
            format!("{} / {}", gib(s.memory_bytes as f64), gib(s.resident_bytes as f64)),
            s.bubbles_used.to_string(),
            significant(s.steps_per_iteration),
            significant(s.steps_per_s),
            s.source.clone(),
        ]);
    }
    table
}

fn beside(r: &PlanRecord, shown: &[usize]) -> Table {
    let mut table = Table::new(
        "Beside compute",
        "Operations of the stage's own beside which a side runs: the side's work, and what each of them takes longer.",
        &["stage", "side", "phase", "operations", "side work", "cost each"],
    )
    .keys(3);
    for stage in shown.iter().map(|&s| &r.stage[s]) {
        for b in &stage.beside {
            table.row(vec![
                stage.stage.to_string(),
                b.side.clone(),
                b.phase.clone(),
                b.operations.to_string(),
                format_ns(b.work_ns),
                format_ns(b.cost_each_ns),
            ]);
        }
    }
    table
}

/// The fastest alternatives that fit, sure ones and others, at most so many; fewer where others do not fit.
pub fn best_alternatives(r: &PlanRecord, most: usize) -> Vec<&Alternative> {
    let mut list: Vec<&Alternative> = r.alternatives.iter().filter(|a| a.may_fit()).collect();
    list.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    list.truncate(most);
    list
}

/// A row for each of the flags that the job could have had instead.
pub fn alternatives(list: &[&Alternative]) -> Table {
    let mut table = Table::new(
        "Other flags",
        "The same model and batch on the same GPUs: throughput over this job's, empty with its 95 % interval, and with its own bubbles filled. ~ further from what was measured than the job is.",
        &["instead", "iteration", "gain", "interval", "gain filled", "bubble ratio", "peak activations", "fits"],
    )
    .spare(&["peak activations", "bubble ratio", "fits", "iteration"]);
    for a in list {
        table.row(vec![
            a.describes.clone(),
            format_ns(a.iteration_ns as f64),
            format!("{:.3}{}", a.gain, if a.sure { "" } else { " ~" }),
            format!("[{:.3}, {:.3}]", a.gain_low, a.gain_high),
            a.gain_filled.map_or("–".into(), |gain| format!("{gain:.3}")),
            format!("{:.4}", a.bubble_ratio),
            format!("{:.1}", a.peak_activations),
            a.fits_memory.map_or("?", |f| if f { "yes" } else { "no" }).into(),
        ]);
    }
    table
}

/// Bytes in GiB, to two decimals where there is less than one.
pub fn gib(bytes: f64) -> String {
    let value = bytes / GIB;
    if value > 0.0 && value < 0.95 { format!("{value:.2}") } else { format!("{value:.1}") }
}

fn time(ns: f64) -> String {
    if ns > 0.0 { format_ns(ns) } else { "–".into() }
}

/// A part in percent of the whole, or a dash where there is no whole.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "–".into() } else { format!("{:.0} %", 100.0 * part as f64 / whole as f64) }
}
