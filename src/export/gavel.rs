//! Gavel's table of throughputs (Narayanan et al., OSDI 2020): steps a second of every job alone, and of every two jobs on one
//! GPU.
//!
//! Its estimator and its scheduler look up every two jobs, a job with its like among them, so the table has no holes: two that
//! were not run together have `[0.0, 0.0]`, Gavel's own word for what does not fit beside each other. Nothing is faster in
//! company than alone, which Gavel asserts. Jobs and the worker bear names that its scripts know.

use super::Exported;
use crate::cost::predict;
use crate::records::cost_model::CorunPair;
use crate::records::measurement::Kind;
use crate::records::{CostModel, Measurement};
use crate::shape::{DType, LayerShape, Phase};
use crate::units::counted;
use crate::{Error, Result, nearest};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The names that Gavel's scripts and two of its policies know; a device of ours goes by one of them.
pub const WORKERS: [&str; 3] = ["v100", "p100", "k80"];

/// The sharing mode to take where none is named: `free`, else the first that the model has pairs of.
pub fn usual_sharing(model: &CostModel) -> &str {
    let modes: BTreeSet<&str> = model.interference.pairs.iter().map(|p| p.sharing.as_str()).collect();
    if modes.contains("free") { "free" } else { modes.first().copied().unwrap_or("free") }
}

/// How fast a job is alone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Alone {
    /// Steps a second.
    Steps(f64),
    /// Not known: 1, so that only its speed in company ÷ alone says something.
    Relative,
}

impl Alone {
    const fn per_s(self) -> f64 {
        match self {
            Alone::Steps(rate) => rate,
            Alone::Relative => 1.0,
        }
    }
}

/// The table for one sharing mode. `records` are those that the model was made from, where they are at hand: they hold how
/// fast mains and sides are alone. Fails where the worker is unknown or no two programs ran on one device.
pub fn file(model: &CostModel, records: &[Measurement], worker: &str, sharing: &str) -> Result<Exported> {
    if !WORKERS.contains(&worker) {
        return Err(Error::input(format!("--worker {worker} is unknown to Gavel"), nearest::cure(worker, WORKERS)));
    }
    let (pairs, left_out) = training_pairs(model, sharing)?;
    let mut alone: BTreeMap<&str, Alone> = BTreeMap::new();
    for pair in &pairs {
        alone.insert(&pair.main, main_alone(model, records, pair));
        alone.insert(&pair.side, side_alone(records, pair));
    }
    let mut table: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (&job, rate) in &alone {
        let mut row = Map::from_iter([("null".to_string(), json!(rate.per_s()))]);
        row.extend(alone.keys().map(|other| (key(other), json!([0.0, 0.0]))));
        table.insert(job, row);
    }
    for pair in &pairs {
        let main = alone[pair.main.as_str()].per_s() / pair.slowdown.median.max(1.0);
        let side = alone[pair.side.as_str()].per_s() * pair.side_rate.unwrap_or(0.0).clamp(0.0, 1.0);
        let mut put = |row: &str, column: &str, cell: [f64; 2]| {
            if let Some(row) = table.get_mut(row) {
                row.insert(key(column), json!(cell));
            }
        };
        put(&pair.main, &pair.side, [main, side]);
        put(&pair.side, &pair.main, [side, main]);
    }
    let notes = notes(worker, sharing, &alone, left_out);
    let rows: Map<String, Value> = table.into_iter().map(|(job, row)| (key(job), Value::Object(row))).collect();
    Exported::json(&json!({ worker: rows }), notes)
}

/// A job as Gavel writes it in JSON: a Python tuple of its name and its number of workers, as text.
fn key(job: &str) -> String {
    format!("('{job}', 1)")
}

/// The pairs of that mode whose side trains, and how many others there are.
fn training_pairs<'a>(model: &'a CostModel, sharing: &str) -> Result<(Vec<&'a CorunPair>, usize)> {
    let all = &model.interference.pairs;
    let modes: BTreeSet<&str> = all.iter().map(|p| p.sharing.as_str()).collect();
    let of_mode: Vec<&CorunPair> = all.iter().filter(|p| p.sharing == sharing).collect();
    if all.is_empty() {
        return Err(Error::input(
            format!("no two programs ran on one device of {}", model.machine.name),
            "measure pairs with `bubblebench measure corun` and fit again, or give another cost model",
        ));
    }
    if of_mode.is_empty() {
        let cure = nearest::cure(sharing, modes.iter().copied());
        return Err(Error::input(format!("no two programs shared a device by --sharing {sharing}"), cure));
    }
    let count = of_mode.len();
    let trains = |p: &&CorunPair| {
        // Older models do not say it; no training is called so.
        let load = p.side.starts_with("pressure-") || p.side.contains("all_reduce");
        p.side_rate.is_some()
            && (p.side_alone_per_s.is_some() || !load)
            && !p.main.contains('\'')
            && !p.side.contains('\'')
    };
    let pairs: Vec<&CorunPair> = of_mode.into_iter().filter(trains).collect();
    if pairs.is_empty() {
        return Err(Error::input(
            format!("no training ran beside another program by --sharing {sharing}"),
            "measure pairs with `bubblebench measure corun` and fit again, or give another --sharing",
        ));
    }
    let left_out = count - pairs.len();
    Ok((pairs, left_out))
}

/// The record of a pair, where it is among those given.
fn record<'a>(records: &'a [Measurement], pair: &CorunPair) -> Option<&'a Measurement> {
    records.iter().filter(|r| r.kind == Kind::Corun).find(|r| {
        let sharing = r.param_str("sharing").or(r.sharing.as_deref());
        r.param_str("main") == Some(&pair.main)
            && r.param_str("side") == Some(&pair.side)
            && sharing == Some(pair.sharing.as_str())
    })
}

/// A main's step is one run of it: as its record says, else as the model prices the layer that its name spells.
fn main_alone(model: &CostModel, records: &[Measurement], pair: &CorunPair) -> Alone {
    let measured = record(records, pair).and_then(|r| r.alone_ns).map(|ns| ns.median);
    let ns = measured.or_else(|| layer_ns(model, &pair.main)).filter(|ns| ns.is_finite() && *ns > 0.0);
    ns.map_or(Alone::Relative, |ns| Alone::Steps(1e9 / ns))
}

fn side_alone(records: &[Measurement], pair: &CorunPair) -> Alone {
    let measured = record(records, pair).and_then(|r| r.side_alone_per_s).or(pair.side_alone_per_s);
    measured.filter(|rate| rate.is_finite() && *rate > 0.0).map_or(Alone::Relative, Alone::Steps)
}

/// Time of the layer phase that a main's name spells, `gpt-h512-a8-s128-b1-t1-f32-forward`; `None` for any other name.
fn layer_ns(model: &CostModel, main: &str) -> Option<f64> {
    let parts: Vec<&str> = main.strip_prefix("gpt-")?.split('-').collect();
    let [h, a, s, b, t, dtype, phase] = parts.as_slice() else { return None };
    let number = |text: &str, letter: char| text.strip_prefix(letter)?.parse::<u64>().ok();
    let sizes = (number(h, 'h')?, number(a, 'a')?, number(s, 's')?, number(b, 'b')?);
    let shape = LayerShape::new(sizes.0, sizes.1, sizes.2, sizes.3, DType::parse(dtype)?).tensor(number(t, 't')?);
    let layer = predict::layer(model, shape).ok()?;
    match *phase {
        "backward" => Some(layer.backward_input.median_ns + layer.backward_weight.median_ns),
        phase if phase == Phase::Forward.name() => Some(layer.forward.median_ns),
        phase if phase == Phase::BackwardInput.name() => Some(layer.backward_input.median_ns),
        phase if phase == Phase::BackwardWeight.name() => Some(layer.backward_weight.median_ns),
        phase if phase == Phase::ForwardBackward.name() => Some(layer.forward_backward.median_ns),
        _ => None,
    }
}

fn notes(worker: &str, sharing: &str, alone: &BTreeMap<&str, Alone>, left_out: usize) -> Vec<String> {
    let mut notes = vec![format!(
        "the device goes by the name {worker}, sharing is {sharing}; a main's step is one run of the layer's phase; lost: intervals, \
         other sharing modes, and what was not run together (0 steps)"
    )];
    let relative: Vec<&str> = alone.iter().filter(|(_, a)| **a == Alone::Relative).map(|(job, _)| *job).collect();
    if !relative.is_empty() {
        notes.push(format!(
            "the speeds of {} are relative (1 alone): the model does not say their steps a second; give --results DIR, or fit again",
            nearest::some_of(&relative, 4)
        ));
    }
    if left_out > 0 {
        notes.push(format!("left out: {} whose side is no training", counted(left_out, "pair")));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;
    use crate::export::Content;
    use crate::records::cost_model::Interval;
    use crate::records::measurement::Backend;

    const MAIN: &str = "gpt-h512-a8-s128-b1-t1-bf16-forward";

    fn pair(side: &str, sharing: &str, slowdown: f64, rate: f64, alone: Option<f64>) -> CorunPair {
        CorunPair {
            main: MAIN.into(),
            side: side.into(),
            sharing: sharing.into(),
            slowdown: Interval { median: slowdown, low: slowdown, high: slowdown },
            side_rate: Some(rate),
            side_alone_per_s: alone,
        }
    }

    fn model(pairs: Vec<CorunPair>) -> CostModel {
        let mut model = datasheet::model(&datasheet::find("v100").unwrap());
        model.interference.pairs = pairs;
        model
    }

    fn written(model: &CostModel, records: &[Measurement]) -> (Value, Vec<String>) {
        let made = file(model, records, "v100", "free").unwrap();
        let Content::File(text) = made.content else { panic!("a folder") };
        (serde_json::from_str(&text).unwrap(), made.notes)
    }

    fn of_record() -> Measurement {
        let mut record = Measurement::blank("corun", Kind::Corun, Backend::Host);
        for (name, value) in [("main", MAIN), ("side", "convnet-b16"), ("sharing", "free")] {
            record.params.insert(name.into(), value.into());
        }
        record.alone_ns = Some(Interval { median: 5e6, low: 5e6, high: 5e6 });
        record.side_alone_per_s = Some(40.0);
        record
    }

    /// By hand: 200 steps a second alone at 1.25 are 160, 40 at 0.9 are 36; the other way round in the other row.
    #[test]
    fn each_pair_stands_both_ways_in_steps_a_second() {
        let pairs = vec![
            pair("convnet-b16", "free", 1.25, 0.9, None),
            pair("lstm-b16", "free", 0.98, 1.02, Some(12.0)),
            pair("pressure-memory", "free", 2.0, 0.5, None),
            pair("mlp-b32", "nice", 1.1, 0.1, None),
        ];
        let mut lstm = of_record();
        lstm.params.insert("side".into(), "lstm-b16".into());
        lstm.side_alone_per_s = None;
        let (value, notes) = written(&model(pairs), &[of_record(), lstm]);
        let table = &value["v100"];
        let [main, conv, lstm] = [MAIN, "convnet-b16", "lstm-b16"].map(key);
        assert_eq!(table[&main]["null"], 200.0);
        assert_eq!(table[&main][&conv], json!([160.0, 36.0]));
        assert_eq!(table[&conv][&main], json!([36.0, 160.0]));
        // Nothing is faster in company.
        assert_eq!(table[&main][&lstm], json!([200.0, 12.0]));
        assert_eq!(table[&conv][&lstm], json!([0.0, 0.0]));
        assert_eq!(table.as_object().unwrap().len(), 3);
        assert!(table.as_object().unwrap().values().all(|row| row.as_object().unwrap().len() == 4));
        assert!(notes.iter().any(|n| n.contains("1 pair whose side is no training")), "{notes:?}");
        assert!(!notes.iter().any(|n| n.contains("relative")), "{notes:?}");
    }

    /// An older model alone: sides are relative and it is said.
    #[test]
    fn a_model_without_speeds_gives_relative_ones() {
        let (value, notes) = written(&model(vec![pair("convnet-b16", "free", 2.0, 0.5, None)]), &[]);
        let side = key("convnet-b16");
        assert_eq!(value["v100"][&side]["null"], 1.0);
        assert_eq!(value["v100"][&side][key(MAIN)][0], 0.5);
        assert!(notes.iter().any(|n| n.contains("speeds of convnet-b16") && n.contains("are relative")), "{notes:?}");
    }

    #[test]
    fn a_layers_name_is_priced_by_the_model() {
        let model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        let shape = LayerShape::new(512, 8, 128, 1, DType::Bf16);
        let layer = predict::layer(&model, shape).unwrap();
        assert_eq!(layer_ns(&model, MAIN), Some(layer.forward.median_ns));
        assert_eq!(layer_ns(&model, "probe-memory"), None);
        assert_eq!(layer_ns(&model, "gpt-hx-a8-s128-b1-t1-bf16-forward"), None);
    }

    #[test]
    fn what_lacks_is_refused() {
        let says =
            |model: &CostModel, worker: &str, sharing: &str| file(model, &[], worker, sharing).unwrap_err().to_string();
        assert!(says(&model(vec![]), "v100", "free").contains("no two programs ran on one device"));
        let one = model(vec![pair("pressure-memory", "free", 2.0, 0.5, None)]);
        assert!(says(&one, "a100", "free").contains("known are v100, p100, k80"));
        assert!(says(&one, "v100", "nice").contains("--sharing nice"));
        assert!(says(&one, "v100", "free").contains("no training ran beside"));
    }
}
