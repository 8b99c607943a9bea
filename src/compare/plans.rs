//! Plans of training jobs as one comparison: what came out otherwise, and which settings and prices it comes from.

use super::environment::{self, DifferenceWeight, fact};
use super::measured::{environment_rows, no_case};
use super::models::{predicted, ratio, summary};
use super::record::*;
use crate::Result;
use crate::fill::record::{PlanPrice, PlanRecord};
use crate::records::measurement::Interval;
use std::collections::BTreeSet;

/// A plan with its name.
#[derive(Debug, Clone)]
pub struct PlanSideFile {
    /// What the side is called.
    pub name: String,
    /// The plan.
    pub plan: PlanRecord,
}

/// Compares plans with the first of them: times of the iteration and prices as rows, other figures beside them, settings
/// that differ as the environment.
/// It is an error where no row has the filter's text in its name.
pub fn compare(sides: &[PlanSideFile], options: &CompareOptions) -> Result<ComparisonRecord> {
    let names: Vec<String> = sides.iter().map(|side| side.name.clone()).collect();
    let mut record = ComparisonRecord::of(ComparedFiles::Plans, &names, options);
    let facts: Vec<_> = sides.iter().map(|side| settings(&side.plan)).collect();
    record.environment = environment_rows(environment::differences_of(&facts));
    let mut rows: Vec<ComparisonRow> =
        TIMES.iter().filter_map(|(id, time)| row(id, "plan", sides, options, time)).collect();
    for what in prices(sides) {
        let price = |plan: &PlanRecord| plan.prices.iter().find(|price| price.what == what).and_then(interval);
        rows.extend(row(&format!("price: {what}"), "price", sides, options, &price));
    }
    rows.retain(|row| options.filter.is_none_or(|filter| row.id.contains(filter)));
    if let (Some(filter), true) = (options.filter, rows.is_empty()) {
        return Err(no_case(filter));
    }
    record.rows = rows;
    record.figures = figures(sides);
    record.summary = summary(&record, &names);
    record.notes = vec![
        "Prices that both plans rest on are wrong in both alike: intervals of ratios are wider than they need to be."
            .into(),
    ];
    Ok(record)
}

type Time = fn(&PlanRecord) -> Option<Interval>;

/// The times of an iteration, those that are sums of others first.
const TIMES: [(&str, Time); 5] = [
    ("iteration", |plan| {
        let ends = (plan.iteration_low_ns as f64, plan.iteration_high_ns as f64);
        Some(Interval { median: plan.iteration_ns as f64, low: ends.0, high: ends.1 })
    }),
    ("pipeline", |plan| exact(plan.pipeline_ns)),
    ("gradient exchange", |plan| exact(plan.data_parallel_ns)),
    ("optimizer", |plan| exact(plan.optimizer_ns)),
    ("send/recv of a micro-batch", |plan| exact(plan.send_recv_ns)),
];

/// A time that the plan gives no interval of.
fn exact(ns: u64) -> Option<Interval> {
    let ns = ns as f64;
    (ns > 0.0).then_some(Interval { median: ns, low: ns, high: ns })
}

fn interval(price: &PlanPrice) -> Option<Interval> {
    let median = price.time_ns?;
    Some(Interval { median, low: price.low_ns.unwrap_or(median), high: price.high_ns.unwrap_or(median) })
}

/// What the plans price, in the order of the first plan that does.
fn prices(sides: &[PlanSideFile]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let all = sides.iter().flat_map(|side| &side.plan.prices).map(|price| price.what.clone());
    all.filter(|what| seen.insert(what.clone())).collect()
}

/// A row, where the reference and another plan have the time. Of a time without an interval only the ratio is told.
fn row(
    id: &str,
    kind: &str,
    sides: &[PlanSideFile],
    options: &CompareOptions,
    time: &dyn Fn(&PlanRecord) -> Option<Interval>,
) -> Option<ComparisonRow> {
    let reference = time(&sides[0].plan)?;
    let quantity = ComparedQuantity::Time;
    let mut row = ComparisonRow {
        id: id.into(),
        kind: kind.into(),
        quantity,
        values: vec![predicted(&sides[0].name, &reference, quantity)],
        ratios: Vec::new(),
    };
    for side in &sides[1..] {
        let Some(theirs) = time(&side.plan) else { continue };
        row.values.push(predicted(&side.name, &theirs, quantity));
        row.ratios.push(ratio(&side.name, &reference, &theirs, options));
    }
    (!row.ratios.is_empty()).then_some(row)
}

/// What the job, its flags and its prices' origin are.
fn settings(plan: &PlanRecord) -> Vec<environment::Fact> {
    use DifferenceWeight::{Incidental, Matters};
    let number = |value: u64| Some(value.to_string());
    let mut facts = vec![
        fact("model", Some(plan.model.clone()), Matters),
        fact("machine", Some(plan.machine.clone()), Matters),
        fact("GPUs", number(plan.gpus), Matters),
        fact("schedule", Some(plan.schedule.clone()), Matters),
        fact("stages", number(plan.stages), Matters),
        fact("micro-batches", number(plan.micro_batches), Matters),
        fact("chunks", number(plan.chunks), Matters),
        fact("GPU memory, bytes", plan.memory_bytes.map(|bytes| bytes.to_string()), Matters),
        fact("bubbles", Some(bubbles_from(plan)), Matters),
        fact("sides", Some(side_names(plan)), Matters),
    ];
    facts.extend(plan.assumed.iter().map(|what| fact(&format!("assumed: {what}"), Some("yes".into()), Matters)));
    facts.push(fact("job file", Some(plan.job.clone()), Incidental));
    facts
}

fn bubbles_from(plan: &PlanRecord) -> String {
    plan.measured.as_ref().map_or_else(|| "simulated".into(), |measured| format!("measured, {}", measured.file))
}

fn side_names(plan: &PlanRecord) -> String {
    let names: Vec<&str> = plan.side.iter().map(|side| side.name.as_str()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// A figure of a plan with its interval.
type Figure = (f64, Option<(f64, f64)>);

/// A figure of the outcome: what it is called, its unit, and where it stands.
type OutcomeFigure = (&'static str, &'static str, fn(&PlanRecord) -> Option<Figure>);

const FIGURES: [OutcomeFigure; 9] = [
    ("bubble_ratio", "ratio", |plan| Some((plan.bubble_ratio, None))),
    ("tokens_per_s", "per_s", |plan| Some((plan.tokens_per_s, None))),
    ("tflops_per_gpu", "tflops", |plan| Some((plan.tflops_per_gpu, None))),
    ("model_flops_utilization", "ratio", |plan| Some((plan.model_flops_utilization?, None))),
    ("peak_memory", "bytes", |plan| Some((plan.stage.iter().map(|s| s.peak_bytes).max()? as f64, None))),
    ("bubble_used", "ratio", |plan| Some((plan.outcome.bubble_used, None))),
    ("main_slowdown", "ratio", |plan| {
        let outcome = &plan.outcome;
        Some((outcome.main_slowdown, Some((outcome.main_slowdown_low, outcome.main_slowdown_high))))
    }),
    ("gain", "ratio", |plan| Some((plan.outcome.gain, Some((plan.outcome.gain_low, plan.outcome.gain_high))))),
    ("net_gain", "ratio", |plan| {
        Some((plan.outcome.net_gain, Some((plan.outcome.net_gain_low, plan.outcome.net_gain_high))))
    }),
];

fn figures(sides: &[PlanSideFile]) -> Vec<FigureRow> {
    let mut rows: Vec<FigureRow> = Vec::new();
    for (what, unit, figure) in FIGURES {
        let values = sides.iter().filter_map(|side| Some(side_figure(&side.name, figure(&side.plan)?))).collect();
        rows.push(FigureRow { id: "plan".into(), what: what.into(), unit: unit.into(), values });
    }
    let mut seen = BTreeSet::new();
    let models = sides.iter().flat_map(|side| &side.plan.side).map(|model| model.name.as_str());
    for model in models.filter(|name| seen.insert(*name)) {
        let of = |plan: &PlanRecord| {
            let side = plan.side.iter().find(|side| side.name == model)?;
            Some((side.steps_per_s, Some((side.steps_per_s_low, side.steps_per_s_high))))
        };
        let values = sides.iter().filter_map(|side| Some(side_figure(&side.name, of(&side.plan)?))).collect();
        rows.push(FigureRow { id: format!("side {model}"), what: "steps_per_s".into(), unit: "per_s".into(), values });
    }
    let best = |side: &PlanSideFile| SideFigure {
        text: Some(side.plan.outcome.best_alternative.clone().unwrap_or_else(|| "none".into())),
        ..side_figure(&side.name, (f64::NAN, None))
    };
    rows.push(FigureRow {
        id: "plan".into(),
        what: "best_alternative".into(),
        unit: "text".into(),
        values: sides.iter().map(best).collect(),
    });
    rows
}

fn side_figure(name: &str, (value, interval): Figure) -> SideFigure {
    SideFigure {
        name: name.into(),
        value: Some(value).filter(|value| value.is_finite()),
        low: interval.map(|interval| interval.0),
        high: interval.map(|interval| interval.1),
        predicted: None,
        text: None,
    }
}
