//! Cost models as one comparison: what each predicts over the range that all of them were measured on.

use super::environment::{self, DifferenceWeight, fact};
use super::measured::{environment_rows, refuse_unlike_sides};
use super::record::*;
use super::verdict::by_interval;
use crate::cost::predict::{self, CollectiveQuery, Prediction, Predictor};
use crate::records::CostModel;
use crate::records::measurement::Interval;
use crate::shape::LayerShape;
use crate::units::{counted, format_bytes};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Message sizes that collectives are asked for: from 1 KiB by factors of four to 16 GiB.
const MESSAGE_BYTES: std::ops::Range<u32> = 5..18;

/// Hidden sizes, heads and sequences of layers that are asked for beside those that were measured.
const USUAL_LAYERS: [(u64, u64, u64); 6] =
    [(512, 8, 512), (1024, 16, 1024), (2048, 16, 2048), (4096, 32, 2048), (8192, 64, 2048), (12288, 96, 2048)];

/// A cost model with its name.
#[derive(Debug, Clone)]
pub struct ModelSide {
    /// What the side is called.
    pub name: String,
    /// Its cost model.
    pub model: CostModel,
}

/// A question that every model is asked, by the name that its row has.
enum Question {
    Layer(LayerShape),
    Collective(CollectiveQuery),
    Corun { main: String, side: String, sharing: String },
}

/// Compares cost models with the first of them. It is an error where they are of different devices and `across` does not say
/// that they are meant to be, or where they answer no question in common.
pub fn compare(sides: &[ModelSide], options: &CompareOptions) -> Result<ComparisonRecord> {
    let names: Vec<String> = sides.iter().map(|side| side.name.clone()).collect();
    let facts: Vec<_> = sides.iter().map(|side| facts(&side.model)).collect();
    let differences = environment::differences_of(&facts);
    refuse_unlike_sides(&differences, options)?;
    let mut record = ComparisonRecord::of(ComparedFiles::CostModels, &names, options);
    record.environment = environment_rows(differences);
    let asked = questions(sides);
    let predictors: Vec<Predictor> = sides.iter().map(|side| Predictor::new(&side.model)).collect();
    let mut outside = 0;
    for (id, question) in &asked {
        if options.filter.is_some_and(|filter| !id.contains(filter)) {
            continue;
        }
        let answers: Vec<Option<Answers>> = predictors.iter().map(|by| answers(by, question)).collect();
        if answers.iter().flatten().any(|answer| !answer.in_range) {
            outside += 1;
            continue;
        }
        record.rows.extend(rows(id, question, &names, &answers, options));
    }
    if let (Some(filter), true) = (options.filter, record.rows.is_empty()) {
        return Err(super::measured::no_case(filter));
    }
    if record.rows.is_empty() {
        return Err(Error::input(
            format!("no question lies within what all of {} were measured on", names.join(", ")),
            "give models of the same kinds of cases, or a --filter that some of their predictions pass",
        ));
    }
    record.sort_rows();
    record.summary = summary(&record, &names);
    record.notes = notes(outside);
    Ok(record)
}

fn notes(outside: usize) -> Vec<String> {
    let mut notes = vec![
        "Predictions, not measurements: a verdict says whether the models' intervals can be of the same time."
            .to_string(),
    ];
    if outside > 0 {
        notes.push(format!(
            "{} left out that a model was not measured near enough to answer.",
            counted(outside, "prediction")
        ));
    }
    notes
}

fn facts(model: &CostModel) -> Vec<environment::Fact> {
    use DifferenceWeight::{Incidental, Matters, Unlike};
    let machine = &model.machine;
    vec![
        fact("backend", Some(machine.backend.clone()), Unlike),
        fact("device", Some(machine.device.clone()), Unlike),
        fact("source", Some(machine.source.name().into()), Matters),
        fact("machine", Some(machine.name.clone()), Incidental),
        fact("commit", model.made_from.commit.clone(), Incidental),
        fact("made from", model.made_from.measurements_sha256.clone(), Incidental),
        fact("at", Some(model.made_from.at.clone()), Incidental),
    ]
}

/// Every layer, curve and pair that a model knows, and layers of usual sizes, each once and in a fixed order.
fn questions(sides: &[ModelSide]) -> Vec<(String, Question)> {
    let mut asked = BTreeMap::new();
    for side in sides {
        let dtype = predict::usual_dtype(&side.model);
        let usual = USUAL_LAYERS.map(|(hidden, heads, sequence)| LayerShape::new(hidden, heads, sequence, 1, dtype));
        for shape in side.model.layer.iter().map(|anchor| anchor.shape).chain(usual) {
            asked.insert(format!("gpt/{}", shape.slug()), Question::Layer(shape));
        }
        for curve in side.model.collectives.iter().filter(|curve| curve.latency == "pipelined") {
            for bytes in MESSAGE_BYTES.map(|step| 1u64 << (2 * step)) {
                let over = format!("r{}n{}/{}", curve.ranks, curve.nodes, curve.dtype);
                let id = format!("{}/{over}/{}", curve.operation, format_bytes(bytes));
                asked.insert(
                    id,
                    Question::Collective(CollectiveQuery {
                        operation: curve.operation.clone(),
                        ranks: curve.ranks,
                        nodes: curve.nodes,
                        bytes,
                        isolated: false,
                        dtype: Some(curve.dtype.clone()),
                    }),
                );
            }
        }
        for pair in &side.model.interference.pairs {
            let (main, side, sharing) = (pair.main.clone(), pair.side.clone(), pair.sharing.clone());
            asked.insert(format!("corun/{sharing}/{main}+{side}"), Question::Corun { main, side, sharing });
        }
    }
    asked.into_iter().collect()
}

/// What a model answers: the parts of the question by name, each with its interval.
struct Answers {
    parts: Vec<(&'static str, Interval)>,
    in_range: bool,
}

/// `None` where the model knows nothing to answer with.
fn answers(by: &Predictor<'_>, question: &Question) -> Option<Answers> {
    let interval = |p: Prediction| Interval { median: p.median_ns, low: p.low_ns, high: p.high_ns };
    match question {
        Question::Layer(shape) => {
            let layer = by.layer(*shape).ok()?;
            let phases = [
                ("forward", layer.forward),
                ("backward_input", layer.backward_input),
                ("backward_weight", layer.backward_weight),
            ];
            let in_range = phases.iter().all(|(_, phase)| phase.in_range);
            Some(Answers { parts: phases.map(|(name, phase)| (name, interval(phase))).to_vec(), in_range })
        }
        Question::Collective(query) => {
            let time = by.collective(query).ok()?;
            Some(Answers { parts: vec![("", interval(time))], in_range: time.in_range })
        }
        Question::Corun { main, side, sharing } => {
            let pair = by.corun(main, side, sharing).ok()?;
            Some(Answers { parts: vec![("", pair.slowdown)], in_range: pair.in_range })
        }
    }
}

/// A row for each part of a question that the reference and at least one other model answer.
fn rows(
    id: &str,
    question: &Question,
    names: &[String],
    answers: &[Option<Answers>],
    options: &CompareOptions,
) -> Vec<ComparisonRow> {
    let Some(Some(reference)) = answers.first() else { return Vec::new() };
    let kind = match question {
        Question::Layer(_) => "layer",
        Question::Collective(_) => "collective",
        Question::Corun { .. } => "corun",
    };
    let quantity = if kind == "corun" { ComparedQuantity::Slowdown } else { ComparedQuantity::Time };
    let mut rows = Vec::new();
    for (at, (part, own)) in reference.parts.iter().enumerate() {
        let mut row = ComparisonRow {
            id: if part.is_empty() { id.into() } else { format!("{id}/{part}") },
            kind: kind.into(),
            quantity,
            values: vec![predicted(&names[0], own, quantity)],
            ratios: Vec::new(),
        };
        for (name, answer) in names[1..].iter().zip(&answers[1..]) {
            let Some((_, theirs)) = answer.as_ref().and_then(|answer| answer.parts.get(at)) else { continue };
            row.values.push(predicted(name, theirs, quantity));
            row.ratios.push(ratio(name, own, theirs, options));
        }
        rows.push(row);
    }
    rows.retain(|row| !row.ratios.is_empty());
    rows
}

/// A side's prediction as a row's value.
pub(super) fn predicted(name: &str, value: &Interval, quantity: ComparedQuantity) -> SideValue {
    let time = (quantity == ComparedQuantity::Time).then_some(value);
    SideValue {
        name: name.into(),
        median_ns: time.map(|time| time.median),
        low_ns: time.map(|time| time.low),
        high_ns: time.map(|time| time.high),
        slowdown: (quantity == ComparedQuantity::Slowdown).then_some(*value),
        samples: None,
        runs: None,
    }
}

/// The ratio of two predictions whose errors are independent: the ends of the interval by the method of variance estimates
/// recovery (Donner & Zou 2012), on logarithms.
pub(super) fn ratio(name: &str, reference: &Interval, other: &Interval, options: &CompareOptions) -> SideRatio {
    let usable = |value: &Interval| value.low > 0.0 && value.median > 0.0 && value.high.is_finite();
    // Without intervals nothing tells how surely two times differ.
    let told = |value: &Interval| value.low < value.high;
    let (ratio, ends) = if reference == other && usable(reference) {
        (Some(1.0), Some((1.0, 1.0)))
    } else if usable(reference) && usable(other) && !(told(reference) && told(other)) {
        (Some(other.median / reference.median), None)
    } else if usable(reference) && usable(other) {
        let ln = other.median.ln() - reference.median.ln();
        let (below, above) = (reaches(reference), reaches(other));
        (Some(ln.exp()), Some(((ln - above.0.hypot(below.1)).exp(), (ln + above.1.hypot(below.0)).exp())))
    } else {
        (None, None)
    };
    let threshold = options.threshold;
    let verdict = ends.filter(|_| !options.across).map(|ends| by_interval(ends, threshold, threshold));
    SideRatio {
        name: name.into(),
        ratio,
        low: ends.map(|ends| ends.0),
        high: ends.map(|ends| ends.1),
        verdict,
        reason: match (ratio, ends) {
            (None, _) => Some("a side has no positive time".into()),
            (Some(_), None) => Some("no interval is known".into()),
            _ => None,
        },
        set_apart: ratio.is_none(),
    }
}

/// How far an interval reaches below and above its median, as logarithms.
fn reaches(value: &Interval) -> (f64, f64) {
    ((value.median / value.low).ln().max(0.0), (value.high / value.median).ln().max(0.0))
}

/// Counts and means of each kind of row, and of all.
pub(super) fn summary(record: &ComparisonRecord, names: &[String]) -> Vec<GroupRow> {
    let mut kinds: Vec<&str> = record.rows.iter().map(|row| row.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let all: &[&str] = if kinds.len() > 1 { &[ALL_ROWS] } else { &[] };
    let mut groups = Vec::new();
    for name in &names[1..] {
        for kind in kinds.iter().chain(all) {
            let of_kind = record.rows.iter().filter(|row| *kind == ALL_ROWS || row.kind == *kind);
            groups.push(group(name, kind, of_kind.filter_map(|row| row.ratio(name)).collect()));
        }
    }
    groups
}

fn group(name: &str, group: &str, ratios: Vec<&SideRatio>) -> GroupRow {
    let count = |verdict| ratios.iter().filter(|ratio| ratio.verdict == Some(verdict)).count() as u64;
    let logarithms: Vec<f64> = ratios.iter().filter_map(|ratio| ratio.ratio).map(f64::ln).collect();
    GroupRow {
        name: name.into(),
        group: group.into(),
        rows: ratios.len() as u64,
        same: count(RowVerdict::Same),
        faster: count(RowVerdict::Faster),
        slower: count(RowVerdict::Slower),
        unsure: count(RowVerdict::Unsure),
        set_apart: ratios.iter().filter(|ratio| ratio.set_apart).count() as u64,
        geometric_mean_ratio: crate::stats::mean(&logarithms).map(f64::exp),
        // What is wrong with a model is wrong in many rows alike: nothing tells how surely the mean is known.
        low: None,
        high: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: CompareOptions = CompareOptions { threshold: 0.02, across: false, group_by: "kind", filter: None };

    fn of(median: f64, low: f64, high: f64) -> Interval {
        Interval { median, low, high }
    }

    #[test]
    fn predictions_that_can_be_of_one_time_are_no_difference() {
        let verdict = |other: Interval| ratio("b", &of(100.0, 95.0, 105.0), &other, &OPTIONS).verdict.unwrap();
        assert_eq!(verdict(of(104.0, 99.0, 109.0)), RowVerdict::Unsure);
        assert_eq!(verdict(of(150.0, 140.0, 160.0)), RowVerdict::Slower);
        assert_eq!(verdict(of(70.0, 66.0, 74.0)), RowVerdict::Faster);
        assert_eq!(verdict(of(100.0, 95.0, 105.0)), RowVerdict::Same, "the same prediction");
        let exact = ratio("b", &of(100.0, 100.0, 100.0), &of(101.0, 101.0, 101.0), &OPTIONS);
        assert_eq!((exact.verdict, exact.ratio, exact.low), (None, Some(1.01), None), "nothing tells an error");
        let across = ratio("b", &of(1.0, 1.0, 1.0), &of(2.0, 2.0, 2.0), &CompareOptions { across: true, ..OPTIONS });
        assert_eq!((across.verdict, across.ratio), (None, Some(2.0)));
    }

    /// Known answer: both sides reach 5 % below and 10 % above, so the ratio's logarithm reaches √(ln²(1/0.95) + ln²(1.1)).
    #[test]
    fn the_ends_of_a_ratio_are_made_of_both_sides_ends() {
        let found = ratio("b", &of(100.0, 95.0, 110.0), &of(200.0, 190.0, 220.0), &OPTIONS);
        let reach = (1.0f64 / 0.95).ln().hypot(1.1f64.ln());
        let ends = (found.low.unwrap() / 2.0, found.high.unwrap() / 2.0);
        assert!((ends.1 - reach.exp()).abs() < 1e-12 && (ends.0 - (-reach).exp()).abs() < 1e-12);
        assert!(ratio("b", &of(0.0, 0.0, 0.0), &of(1.0, 1.0, 1.0), &OPTIONS).set_apart);
    }
}
