//! A main beside a side: as measured where the pair was; else from pressure and sensitivity.

use super::SCHEMA;
use crate::cost::interference::{NOTHING, PRESENCE, pressure_of};
use crate::records::CostModel;
use crate::records::cost_model::CorunPair;
use crate::records::measurement::Interval;
use crate::{Error, Result, nearest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Half the interval, relative to the slowdown, where no pair could be held out.
const UNJUDGED: f64 = 0.5;
/// A mean absolute error covers 1.96 standard deviations of a normal error when multiplied by this (1.96 · √(π/2)).
const MAPE_TO_95: f64 = 2.457;

/// Added to the interval where a layer of another shape answers for the one asked for.
const OTHER_MAIN: f64 = 0.25;

/// Predicted slowdown of a main that runs beside a side, and the speed that is left to the side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorunPrediction {
    /// Name and version of this format: `bubblebench.prediction/1`.
    pub schema: String,
    /// Time of the main together with the side ÷ alone, with its 95 % interval.
    pub slowdown: Interval,
    /// Progress of the side together with the main ÷ alone; for a pair that was not measured the mean beside other
    /// mains, null if there is none.
    pub side_rate: Option<f64>,
    /// Whether this very pair was measured.
    pub measured: bool,
    /// Whether the pair was measured, or the main's sensitivities and the side's pressures all were and the error of
    /// such predictions is known.
    pub in_range: bool,
}

/// Predicts a main beside a side under a sharing mode: the pair as measured, else from pressure and sensitivity; for a
/// layer that was not measured the nearest one stands in. Returns an error if the cost model does not know the main or
/// the side, or not the main under this sharing mode.
pub fn corun(model: &CostModel, main: &str, side: &str, sharing: &str) -> Result<CorunPrediction> {
    let pairs = &model.interference.pairs;
    if let Some(pair) = pairs.iter().find(|p| p.main == main && p.side == side && p.sharing == sharing) {
        return Ok(CorunPrediction {
            schema: SCHEMA.into(),
            slowdown: pair.slowdown,
            side_rate: pair.side_rate.or_else(|| mean_rate(pairs, side, sharing)),
            measured: true,
            in_range: true,
        });
    }
    if side == NOTHING {
        if !pairs.iter().any(|p| p.main == main && p.sharing == sharing) {
            sensitivities(model, main, sharing)?;
        }
        let slowdown = model.interference.noise_floor.unwrap_or(Interval { median: 1.0, low: 1.0, high: 1.0 });
        let in_range = model.interference.noise_floor.is_some();
        return Ok(CorunPrediction { schema: SCHEMA.into(), slowdown, side_rate: None, measured: in_range, in_range });
    }
    if let Some(nearest) = nearest_main(model, main, sharing) {
        let found = corun(model, &nearest, side, sharing)?;
        let Interval { median, low, high } = found.slowdown;
        let slowdown = Interval { median, low: low / (1.0 + OTHER_MAIN), high: high * (1.0 + OTHER_MAIN) };
        return Ok(CorunPrediction { slowdown, measured: false, in_range: false, ..found });
    }
    let (slowdown, complete) = from_scores(model, main, side, sharing)?;
    let (half, judged) = match model.accuracy.iter().find(|a| a.what == "corun") {
        Some(a) => (MAPE_TO_95 * a.mape_percent / 100.0, true),
        None => (UNJUDGED, false),
    };
    let half = if complete { half } else { half + 0.25 };
    let interval = Interval { median: slowdown, low: slowdown / (1.0 + half), high: slowdown * (1.0 + half) };
    Ok(CorunPrediction {
        schema: SCHEMA.into(),
        slowdown: interval,
        side_rate: mean_rate(pairs, side, sharing),
        measured: false,
        in_range: complete && judged,
    })
}

/// For a layer nobody ran beside anything: the measured one of the same phase whose sizes are nearest, among those
/// measured under that sharing mode if there are any. `None` where the main itself is known, is no layer, or no layer of
/// its phase is known.
fn nearest_main(model: &CostModel, main: &str, sharing: &str) -> Option<String> {
    let scores = &model.interference;
    let in_mode = |keys: &BTreeMap<String, f64>| {
        keys.keys().any(|key| key.split_once('/').is_some_and(|(mode, _)| mode == sharing))
    };
    let under: BTreeSet<&str> = scores
        .pairs
        .iter()
        .filter(|p| p.sharing == sharing)
        .map(|p| p.main.as_str())
        .chain(scores.sensitivity.iter().filter(|(_, keys)| in_mode(keys)).map(|(main, _)| main.as_str()))
        .collect();
    let known: BTreeSet<&str> =
        scores.pairs.iter().map(|p| p.main.as_str()).chain(scores.sensitivity.keys().map(String::as_str)).collect();
    let (wanted, phase) = (sizes(main)?, main.rsplit('-').next()?);
    if known.contains(main) {
        return None;
    }
    let distance = |name: &str| {
        let pairs = sizes(name)?.into_iter().zip(&wanted).map(|(a, b)| (a / b).ln().abs());
        Some(pairs.sum::<f64>())
    };
    let closest = |names: BTreeSet<&str>| {
        let candidates = names.into_iter().filter(|name| name.rsplit('-').next() == Some(phase));
        let found = candidates.filter_map(|name| Some((name, distance(name)?))).min_by(|a, b| a.1.total_cmp(&b.1));
        found.map(|(name, _)| name.to_string())
    };
    // Where no layer was measured under this mode, the nearest of any is named in the answer.
    closest(under).or_else(|| closest(known))
}

/// h, a, s, b, t of `gpt-h512-a8-s128-b1-t1-f32-forward`.
fn sizes(main: &str) -> Option<Vec<f64>> {
    let mut parts = main.strip_prefix("gpt-")?.split('-');
    ["h", "a", "s", "b", "t"]
        .into_iter()
        .map(|letter| parts.next()?.strip_prefix(letter)?.parse::<f64>().ok().filter(|v| *v > 0.0))
        .collect()
}

/// 1 + Σ pressure · sensitivity; false if the side's pressure on some resource is not known and counted as 0.
fn from_scores(model: &CostModel, main: &str, side: &str, sharing: &str) -> Result<(f64, bool)> {
    let scores = &model.interference;
    main_known(model, main)?;
    if !scores.pressure.contains_key(side) {
        return Err(unknown("side", side, &scores.pressure, model));
    }
    let of_mode = sensitivities(model, main, sharing)?;
    let mut complete = true;
    let presence = of_mode.iter().find(|(resource, _)| *resource == PRESENCE);
    let mut slowdown = 1.0 + presence.map_or(0.0, |(_, value)| *value);
    for (resource, value) in of_mode.into_iter().filter(|(r, value)| *r != PRESENCE && *value > 0.0) {
        match pressure_of(&scores.pressure, side, sharing, resource) {
            Some(pressure) => slowdown += pressure * value,
            None => complete = false,
        }
    }
    Ok((slowdown, complete))
}

/// The main's sensitivities, by resource; an error if it has none under that sharing mode.
fn sensitivities<'a>(model: &'a CostModel, main: &str, sharing: &str) -> Result<Vec<(&'a str, f64)>> {
    let sensitivity = main_known(model, main)?;
    let of_mode: Vec<(&str, f64)> = sensitivity
        .iter()
        .filter_map(|(key, value)| Some((key.split_once('/').filter(|(mode, _)| *mode == sharing)?.1, *value)))
        .collect();
    if of_mode.is_empty() {
        let modes: BTreeSet<&str> = sensitivity.keys().filter_map(|k| Some(k.split_once('/')?.0)).collect();
        return Err(Error::input(
            format!("{main} was not measured under sharing mode {sharing}"),
            nearest::cure(sharing, modes),
        ));
    }
    Ok(of_mode)
}

fn main_known<'a>(model: &'a CostModel, main: &str) -> Result<&'a BTreeMap<String, f64>> {
    let known = &model.interference.sensitivity;
    known.get(main).ok_or_else(|| unknown("main", main, known, model))
}

fn unknown(what: &str, name: &str, known: &BTreeMap<String, BTreeMap<String, f64>>, model: &CostModel) -> Error {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let listed = nearest::some_of(&names, 12);
    let cure = match names.is_empty() {
        true => "measure co-running with `bubblebench measure corun` and fit again".to_string(),
        false => match nearest::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? it knows {listed}"),
            None => format!("it knows {listed}"),
        },
    };
    Error::input(format!("the cost model of {} has no {what} `{name}`", model.machine.name), cure)
}

fn mean_rate(pairs: &[CorunPair], side: &str, sharing: &str) -> Option<f64> {
    let rates: Vec<f64> =
        pairs.iter().filter(|p| p.side == side && p.sharing == sharing).filter_map(|p| p.side_rate).collect();
    crate::stats::mean(&rates)
}
