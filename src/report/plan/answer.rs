//! The answer of a plan, before any detail: whether filling pays here, by how much, beside what, and how well that is known.

use crate::fill::record::{Alternative, PlanPrice, PlanRecord};
use crate::records::cost_model::Source;
use crate::report::Screen;
use crate::report::plan::gib;
use crate::units::{counted, format_ns, significant};
use std::fmt::Write;

/// Side models named in the answer; the table has all.
const SIDES: usize = 4;
/// Width of the words before each figure, so that the figures stand in a column.
const LABEL: usize = 17;

/// The whole answer as it is printed on a screen.
pub fn answer(r: &PlanRecord, screen: Screen) -> String {
    let mut text = screen.prose(&format!("{}\n", verdict(r)), 2);
    for (label, figure) in figures(r) {
        text += &screen.prose(&format!("  {label:LABEL$}{figure}\n"), LABEL);
    }
    text
}

/// Whether filling pays, in a sentence.
pub fn verdict(r: &PlanRecord) -> String {
    let o = &r.outcome;
    let more = 100.0 * (o.net_gain - 1.0);
    let beside = match &o.best_alternative {
        Some(best) => format!("than {best} alone would"),
        None => "than the job as it is, which no other flags make faster".to_string(),
    };
    if let Some(text) = too_full(r) {
        return text;
    }
    if r.side.is_empty() {
        return "Nothing to fill the bubbles with: the job names no [[side]].".into();
    }
    if o.recovered_gpu_s <= 0.0 {
        let why = r.side.iter().find_map(|s| Some(format!(" {} is put nowhere: {}.", s.name, s.unused.as_ref()?)));
        return format!("Nothing is filled.{}", why.unwrap_or_default());
    }
    match o.filling_pays {
        Some(true) => format!("Filling pays here: it wins {more:.1} % more {beside}."),
        Some(false) => {
            let best = o.best_alternative.as_deref().unwrap_or("the job as it is");
            format!("Filling does not pay here: {best} alone wins {:.1} % more than filling does.", less(o.net_gain))
        }
        None if more >= 0.0 => {
            format!("Filling may pay here: it wins {more:.1} % more {beside}, less than the prices are uncertain by.")
        }
        None => {
            let best = o.best_alternative.as_deref().unwrap_or("the job as it is");
            format!(
                "Filling hardly pays here: {best} alone wins {:.1} % more, less than the prices are uncertain by.",
                less(o.net_gain)
            )
        }
    }
}

/// That the job itself does not fit its GPUs, and which flags would let it; none where it fits.
fn too_full(r: &PlanRecord) -> Option<String> {
    let there = r.memory_bytes?;
    let needed = r.stage.iter().map(|s| s.peak_bytes).max().filter(|needed| *needed > there)?;
    let fits = |a: &&Alternative| a.sure && a.fits_memory == Some(true);
    let best = r.alternatives.iter().filter(fits).max_by(|a, b| a.gain.total_cmp(&b.gain));
    let cure = best.map_or("no other flags that were tried would let it".to_string(), |best| {
        format!("{} fits, in {} an iteration", best.describes, format_ns(best.iteration_ns as f64))
    });
    Some(format!(
        "The job itself does not fit: the fullest GPU needs {} of {} GiB; {cure}.",
        gib(needed as f64),
        gib(there as f64)
    ))
}

/// By how many percent the alternative is better than a net gain below 1.
fn less(net: f64) -> f64 {
    100.0 * (1.0 / net - 1.0)
}

/// The figures behind the verdict, each with its name.
fn figures(r: &PlanRecord) -> Vec<(&'static str, String)> {
    let o = &r.outcome;
    let mut list = vec![(
        "gain",
        format!(
            "{}: useful work, main and side, over the main job alone; {:.3} if no bubble time were lost",
            with_ends(o.gain, o.gain_low, o.gain_high),
            o.gain_bound
        ),
    )];
    if !r.alternatives.is_empty() {
        list.push(match &o.best_alternative {
            Some(best) => (
                "without filling",
                format!(
                    "{} by {best}",
                    with_ends(o.best_alternative_gain, o.best_alternative_gain_low, o.best_alternative_gain_high)
                ),
            ),
            None => ("without filling", "no other flags would be faster".into()),
        });
        list.push(("net", format!("{}: gain over that", with_ends(o.net_gain, o.net_gain_low, o.net_gain_high))));
    }
    // Half a percent is less than anybody would change a flag for.
    let worth_it = o.best_filled_alternative_gain > 1.005 * o.gain.max(o.best_alternative_gain);
    if let Some(best) = o.best_filled_alternative.as_ref().filter(|_| worth_it) {
        list.push(("most of all", format!("{:.3} by {best}, its own bubbles filled", o.best_filled_alternative_gain)));
    }
    list.extend(not_sure(r));
    list.push((
        "main job",
        format!(
            "{} slower; {:.0} % of the bubble time becomes side work",
            slower(o.main_slowdown, o.main_slowdown_low, o.main_slowdown_high),
            100.0 * o.bubble_used
        ),
    ));
    list.extend(sides(r).into_iter().map(|side| ("fill with", side)));
    list.push(("GPU-seconds", gpu_seconds(r)));
    let sources = sources(r);
    if !sources.is_empty() {
        list.push(("prices", sources));
    }
    list
}

/// Alternatives that would be best of all, were they known as well as the job is.
fn not_sure(r: &PlanRecord) -> Option<(&'static str, String)> {
    let better = |a: &&Alternative| !a.sure && a.may_fit() && a.gain > r.outcome.best_alternative_gain;
    let best = r.alternatives.iter().filter(better).max_by(|a, b| a.gain.total_cmp(&b.gain))?;
    let figure = with_ends(best.gain, best.gain_low, best.gain_high);
    Some(("not sure", format!("{figure} by {}, further from what was measured than the job is", best.describes)))
}

fn sides(r: &PlanRecord) -> Vec<String> {
    let used: Vec<_> = r.side.iter().filter(|s| s.steps_per_iteration > 0.0).collect();
    let mut list: Vec<String> = used
        .iter()
        .take(SIDES)
        .map(|s| {
            format!(
                "{}: {} steps/s [{}, {}] on all GPUs, in {} of a pipeline",
                s.name,
                significant(s.steps_per_s),
                significant(s.steps_per_s_low),
                significant(s.steps_per_s_high),
                counted(s.bubbles_used, "bubble")
            )
        })
        .collect();
    if used.len() > SIDES {
        list.push(format!("and {} more", used.len() - SIDES));
    }
    list
}

/// What an iteration brings in seconds of one GPU, and what of it filling alone can claim.
pub fn gpu_seconds(r: &PlanRecord) -> String {
    let o = &r.outcome;
    let freed = match o.alternative_gpu_s > 0.0 {
        true => format!(" and {} that other flags would free", significant(o.alternative_gpu_s)),
        false => String::new(),
    };
    format!(
        "{} of side work by its value an iteration, less {} of slowdown{freed}: net {}",
        significant(o.recovered_gpu_s),
        significant(o.lost_gpu_s),
        significant(o.net_recovered_gpu_s)
    )
}

/// Where the prices come from, in a line; nothing where all were measured within range.
fn sources(r: &PlanRecord) -> String {
    let count = |is: &dyn Fn(&PlanPrice) -> bool| r.prices.iter().filter(|p| is(p)).count();
    let of = |source: Source| count(&|p: &PlanPrice| p.source == Some(source));
    let extrapolated = count(&|p: &PlanPrice| !p.in_range && p.source.is_some_and(|s| s != Source::Datasheet));
    let unknown = count(&|p: &PlanPrice| p.source.is_none());
    if of(Source::Measured) == r.prices.len() && extrapolated == 0 {
        return String::new();
    }
    let parts = [
        (of(Source::Measured), "measured"),
        (of(Source::Published), "published"),
        (of(Source::Datasheet), "from a data sheet"),
        (unknown, "unknown and counted as 0"),
    ];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let mut text = parts.join(", ");
    if extrapolated > 0 {
        let _ = write!(text, "; {extrapolated} of them extrapolated");
    }
    text
}

/// `1.318 [1.301, 1.330]`.
pub fn with_ends(value: f64, low: f64, high: f64) -> String {
    format!("{value:.3} [{low:.3}, {high:.3}]")
}

/// A ratio of times as percent above 1: `0.12 % [0.03, 0.60]`.
pub fn slower(value: f64, low: f64, high: f64) -> String {
    let percent = |ratio: f64| 100.0 * (ratio - 1.0);
    format!("{:.2} % [{:.2}, {:.2}]", percent(value), percent(low), percent(high))
}
