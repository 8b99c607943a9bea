//! The page of `plan --html`: for a reader who was not there when the plan was made.

use super::page::{self, escape, figure, section};
use super::{bars, memory, timeline};
use crate::fill::plan::FillPlan;
use crate::fill::record::PlanRecord;
use crate::report::plan::answer::{gpu_seconds, verdict, with_ends};
use crate::report::plan::{alternatives, best_alternatives, bubbles, shown, sides};
use crate::units::{counted, format_ns};
use std::fmt::Write;

/// Alternatives in the picture and the table.
const ALTERNATIVES: usize = 16;

/// Memory pictures are larger than lanes: so many of them.
const MEMORY_STAGES: usize = 8;

/// The whole page of a plan; `source` says where the cost model's figures are from.
pub fn html(plan: &FillPlan, source: Option<&str>) -> String {
    let r = &plan.record;
    let stages = shown(r.stage.len());
    let mut body = head(r);
    let _ = writeln!(body, "<p class=\"verdict\">{}</p>", escape(&verdict(r)));
    body += &cards(r);
    body +=
        &section("One iteration", &timeline_lead(r), &figure(&timeline::svg(plan, &stages), &timeline::legend(plan)));
    body += &section(
        "Where each GPU's time goes",
        "A stage's iteration by what it is spent on. What stays grey is idle with this plan too.",
        &figure(&bars::time(r, &stages), &bars::time_legend(r)),
    );
    body += &memory_section(plan, &stages);
    body += &section("The bubbles", BUBBLES_LEAD, &page::table(&bubbles(r, &stages)));
    if !r.side.is_empty() {
        body += &section("The side models", SIDES_LEAD, &page::table(&sides(r)));
    }
    let best = best_alternatives(r, ALTERNATIVES);
    if !best.is_empty() {
        let keys = [
            ("gain", "this job alone, nothing filled".to_string()),
            ("gainf", "with the bubbles that remain filled too".to_string()),
        ];
        let picture = figure(&bars::alternatives(r, &best), &keys);
        body +=
            &section("Would other flags do?", &flags_lead(r), &(picture + "<br>" + &page::table(&alternatives(&best))));
    }
    body += &assumptions(r, source);
    let _ = write!(
        body,
        "<footer>Made by <code>bubblebench plan {} --html</code>, version {}. The method and its equations: docs/planning.md; the simulator's rules: docs/pipeline.md.</footer>",
        escape(&r.job),
        env!("CARGO_PKG_VERSION")
    );
    page::page(&format!("Bubble plan: {}", r.model), &body)
}

fn head(r: &PlanRecord) -> String {
    let ways = r.gpus / r.stages.max(1);
    let copies = if ways > 1 {
        format!("; {ways} such pipelines side by side (tensor- and data-parallel)")
    } else {
        String::new()
    };
    let chunks = if r.chunks > 1 { format!(" with {} chunks a stage", r.chunks) } else { String::new() };
    let machine = if r.measured.is_some() {
        "bubbles as measured, times by the cost model of"
    } else {
        "times by the cost model of"
    };
    format!(
        "<h1>Filling the bubbles of {}</h1>\n<p class=\"sub\">{}: a pipeline of {}, {} an iteration, schedule {}{chunks}{copies}; {machine} {}.</p>\n",
        escape(&r.model),
        counted(r.gpus, "GPU"),
        counted(r.stages, "stage"),
        counted(r.micro_batches, "micro-batch"),
        escape(&r.schedule),
        escape(&r.machine)
    )
}

fn cards(r: &PlanRecord) -> String {
    let o = &r.outcome;
    let net = match &o.best_alternative {
        Some(best) => format!("what filling wins beyond {best}, which alone would win {:.3}", o.best_alternative_gain),
        None => "no other flags would be faster".to_string(),
    };
    let ends = |low: f64, high: f64| format!("95 %: {low:.3} to {high:.3}. ");
    let iteration = match r.measured {
        Some(_) => "measured, nothing filled".to_string(),
        None => format!(
            "95 %: {} to {}, nothing filled",
            format_ns(r.iteration_low_ns as f64),
            format_ns(r.iteration_high_ns as f64)
        ),
    };
    let pays = if o.filling_pays == Some(true) { "good" } else { "" };
    let cards = [
        ("", "one iteration", format_ns(r.iteration_ns as f64), iteration),
        (
            "",
            "idle",
            format!("{:.1} %", 100.0 * r.bubble_ratio),
            "of the GPUs' time within the pipeline: its bubbles".to_string(),
        ),
        (
            "good",
            "useful work, filled",
            format!("{:.3}×", o.gain),
            format!(
                "{}Main and side over main alone; at most {:.3}× if no bubble time were lost",
                ends(o.gain_low, o.gain_high),
                o.gain_bound
            ),
        ),
        (pays, "net of other flags", format!("{:.3}×", o.net_gain), ends(o.net_gain_low, o.net_gain_high) + &net),
        (
            "",
            "main job slower by",
            format!("{:.2} %", 100.0 * (o.main_slowdown - 1.0)),
            format!(
                "95 %: {:.2} to {:.2} %. {:.0} % of the bubble time becomes side work",
                100.0 * (o.main_slowdown_low - 1.0),
                100.0 * (o.main_slowdown_high - 1.0),
                100.0 * o.bubble_used
            ),
        ),
    ];
    let mut html = String::from("<div class=\"cards\">");
    for (class, key, value, detail) in cards {
        let _ = write!(
            html,
            "<div class=\"card {class}\"><div class=\"k\">{key}</div><div class=\"v\">{value}</div><div class=\"d\">{}</div></div>",
            escape(&detail)
        );
    }
    html + "</div>\n"
}

fn timeline_lead(r: &PlanRecord) -> String {
    let what = "In a pipeline each stage waits for its neighbours: before its first input comes, between a forward and the backward \
        that answers it, and once it is done. These waits, the bubbles, come back at the same places in every iteration, so their lengths are \
        known in advance and a small model can train in them.";
    match &r.measured {
        None => {
            format!("{what} Time runs to the right; numbers are micro-batches. Point at anything to see its length.")
        }
        Some(m) => format!(
            "{what} These are the bubbles of a real run: {} of {} in {}. Side work goes into waits for other stages only; \
             where the host launched late or a collective ran, nothing is put.",
            match r.lengths.as_ref().and_then(|lengths| lengths.iterations) {
                Some(learned) => format!("their median lengths over {learned} iterations"),
                None => format!("iteration {}", m.iteration),
            },
            m.iterations,
            m.source
        ),
    }
}

const BUBBLES_LEAD: &str = "By stage and kind. Free is the memory, in GiB, that the main job and the headroom leave in the \
    fullest bubble of the row: at an iteration's two ends no activation is live, before the first backward all of them are. Cost is what opening and closing takes from the main job.";

const SIDES_LEAD: &str = "A side model is a sequence of kernels. In each bubble it waits for the gate to open and for its own restart, runs \
    whole kernels, and starts none that would not end before the gate closes again; a step that is cut goes on in the next bubble. \
    Memory is what it takes while it runs, and what of it stays between steps.";

fn flags_lead(r: &PlanRecord) -> String {
    let o = &r.outcome;
    let first = match &o.best_alternative {
        Some(best) => format!(
            "Before filling a bubble, ask whether a flag would remove it: {best} would win {} with nothing filled. ",
            with_ends(o.best_alternative_gain, o.best_alternative_gain_low, o.best_alternative_gain_high)
        ),
        None => "No other flags would be faster by themselves. ".to_string(),
    };
    let second = match &o.best_filled_alternative {
        Some(best) => format!(
            "Most useful work of all would come from {best} with its own bubbles filled: {:.3}. ",
            o.best_filled_alternative_gain
        ),
        None => "With bubbles filled these flags do most. ".to_string(),
    };
    format!("{first}{second}In GPU-seconds: {}.", gpu_seconds(r))
}

fn memory_section(plan: &FillPlan, stages: &[usize]) -> String {
    let few: Vec<usize> = match stages.len() {
        n if n <= MEMORY_STAGES => stages.to_vec(),
        n => (0..MEMORY_STAGES).map(|k| stages[k * (n - 1) / (MEMORY_STAGES - 1)]).collect(),
    };
    let Some(svg) = memory::svg(plan, &few) else { return String::new() };
    let mut keys = vec![("static", "weights, gradients, optimizer".to_string()), ("act", "activations".to_string())];
    if plan.record.stage.iter().any(|s| !s.resident.is_empty()) {
        keys.push(("held", "side models, held throughout".to_string()));
        keys.push(("run", "side models at work".to_string()));
    }
    keys.push(("lane", "free; the dashed line leaves the headroom".to_string()));
    let lead =
        "GiB on each stage's GPU over the iteration. A bubble is only as useful as the memory that is free in it.";
    section("Memory, moment by moment", lead, &figure(&svg, &keys))
}

fn assumptions(r: &PlanRecord, source: Option<&str>) -> String {
    let mut list = String::from("<ul>");
    for note in &r.notes {
        let _ = write!(list, "<li>{}</li>", escape(note));
    }
    let range = if r.in_range {
        "Every price lies within what the cost model was measured on."
    } else {
        "Some prices lie outside what the cost model was measured on; they are named above."
    };
    let _ = write!(list, "<li>{range}</li>");
    if let Some(source) = source {
        let _ = write!(list, "<li>Figures of the cost model: {}</li>", escape(source));
    }
    section("Assumptions and sources", "What stands behind the numbers, and what was not known.", &(list + "</ul>"))
}
