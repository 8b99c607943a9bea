//! What a small model beside the big one costs it: measured pairs, and a prediction for pairs nobody measured.
//!
//! slowdown(main, side) = 1 + Σ_r pressure(side, r) · sensitivity(main, r), per sharing mode. The pressure of a side on
//! a resource is what it does to a probe of that resource; the sensitivity of a main is what a program that loads only
//! that resource does to it, divided by that program's own pressure, times a weight the machine's measured pairs give
//! (two threads on one core press on every resource at once: added up unweighted that would count several times). The
//! idea of describing both sides by resource scores is Bubble-Up's (Mars et al., MICRO 2011).

use super::heldout::{self, HeldOutCase, HeldOutPart};
use super::nnls;
use crate::records::Measurement;
use crate::records::cost_model::{CorunPair, Interference};
use crate::records::measurement::{Interval, Kind};
use crate::stats;
use std::collections::{BTreeMap, BTreeSet};

/// Name of the side in A/A rows, in which a main runs beside no side at all: they give the noise floor.
pub const NOTHING: &str = "nothing";
const PRESSURE: &str = "pressure-";
const PROBE: &str = "probe-";
/// Name of the resource on which every side presses with 1, which is not written down: what any side costs, whatever it
/// does.
pub const PRESENCE: &str = "presence";
/// A program that slows the probe of its own resource by less than this does not load it: nothing to divide by.
const LEAST_PRESSURE: f64 = 0.02;

type Scores = BTreeMap<String, BTreeMap<String, f64>>;

/// Key of a resource under a sharing mode in `pressure` and `sensitivity`, such as `free/memory`.
pub fn resource_key(sharing: &str, resource: &str) -> String {
    format!("{sharing}/{resource}")
}

/// Fits the interference to the co-run rows among the records; also returns the held-out pairs and sentences on what stays
/// unknown.
pub fn fit(records: &[&Measurement]) -> (Interference, HeldOutPart, Vec<String>) {
    let pairs: Vec<CorunPair> = records.iter().filter(|r| r.kind == Kind::Corun).filter_map(|r| pair(r)).collect();
    let part = |cases| HeldOutPart { what: "corun".into(), cases };
    let mut notes = Vec::new();
    if pairs.is_empty() {
        notes.push("no interference: no co-run pair was measured".to_string());
        return (Interference::default(), part(Vec::new()), notes);
    }
    let mut found = Interference { noise_floor: noise_floor(&pairs), ..Interference::default() };
    let mut outcomes = Vec::new();
    let modes: BTreeSet<String> = pairs.iter().map(|p| p.sharing.clone()).collect();
    for mode in &modes {
        measured_pressure(&pairs, mode, &mut found.pressure);
    }
    for mode in &modes {
        match sensitivities(&pairs, mode, &mut found) {
            Some(judged) => outcomes.extend(judged),
            None => notes.push(format!(
                "interference under {mode}: no pressure program ran beside a main; pairs not measured stay unknown"
            )),
        }
    }
    found.pairs = pairs.into_iter().filter(|p| p.side != NOTHING && !is_probe(&p.main)).collect();
    (found, part(outcomes), notes)
}

fn is_probe(main: &str) -> bool {
    main.starts_with(PROBE)
}

fn pair(record: &Measurement) -> Option<CorunPair> {
    let slowdown = record.slowdown.filter(|s| s.median.is_finite() && s.median > 0.0)?;
    let side_rate = match (record.side_together_per_s, record.side_alone_per_s) {
        (Some(together), Some(alone)) if alone > 0.0 && together.is_finite() => Some((together / alone).max(0.0)),
        _ => None,
    };
    Some(CorunPair {
        main: record.param_str("main")?.to_string(),
        side: record.param_str("side")?.to_string(),
        sharing: record.param_str("sharing").or(record.sharing.as_deref()).unwrap_or("free").to_string(),
        slowdown,
        side_rate,
        side_alone_per_s: record
            .side_alone_per_s
            .filter(|_| trains(record))
            .filter(|rate| rate.is_finite() && *rate > 0.0),
    })
}

/// Whether the side of a co-run row is a model in training, which counts its progress in steps.
fn trains(record: &Measurement) -> bool {
    record.param_str("side_unit") == Some("steps")
}

/// All A/A rows together: the median of their medians, the widest of their intervals.
fn noise_floor(pairs: &[CorunPair]) -> Option<Interval> {
    let rows: Vec<&Interval> = pairs.iter().filter(|p| p.side == NOTHING).map(|p| &p.slowdown).collect();
    let medians: Vec<f64> = rows.iter().map(|s| s.median).collect();
    Some(Interval {
        median: stats::median(&medians)?,
        low: rows.iter().map(|s| s.low).fold(f64::INFINITY, f64::min),
        high: rows.iter().map(|s| s.high).fold(f64::NEG_INFINITY, f64::max),
    })
}

/// Slowdown − 1 of `probe-r` beside each side under this mode.
fn measured_pressure(pairs: &[CorunPair], mode: &str, pressure: &mut Scores) {
    for p in pairs.iter().filter(|p| p.sharing == mode && p.side != NOTHING) {
        if let Some(resource) = p.main.strip_prefix(PROBE) {
            let value = (p.slowdown.median - 1.0).max(0.0);
            pressure.entry(p.side.clone()).or_default().insert(resource_key(mode, resource), value);
        }
    }
}

/// Pressure of a side on a resource (slowdown − 1 of that resource's probe), as measured under this mode, else under
/// any other: what a side demands of the memory hardly depends on how the cores are shared. `None` if never measured.
pub fn pressure_of(pressure: &Scores, side: &str, mode: &str, resource: &str) -> Option<f64> {
    let own = pressure.get(side)?;
    let elsewhere = || own.iter().find(|(key, _)| key.split_once('/').is_some_and(|(_, r)| r == resource));
    own.get(&resource_key(mode, resource)).or_else(|| elsewhere().map(|(_, v)| v)).copied()
}

/// Fills in this mode's sensitivities, weighted by its measured pairs; the pairs predicted on the way while held out are
/// returned. `None` where the mode has no main beside a pressure program.
fn sensitivities(pairs: &[CorunPair], mode: &str, found: &mut Interference) -> Option<Vec<HeldOutCase>> {
    let raw = raw_sensitivities(pairs, mode, &found.pressure);
    if raw.is_empty() {
        return None;
    }
    let sides: Vec<&str> =
        pairs.iter().filter(|p| p.sharing == mode && is_model(&p.side)).map(|p| p.side.as_str()).collect();
    let known = |resource: &str| sides.iter().any(|side| pressure_of(&found.pressure, side, mode, resource).is_some());
    let named: BTreeSet<String> = raw.values().flat_map(|r| r.keys().cloned()).collect();
    let resources: Vec<String> = named.into_iter().filter(|r| sides.is_empty() || known(r)).collect();
    let cases = pair_cases(pairs, mode, &raw, &resources, &found.pressure);
    let weights = choose(&cases, resources.len());
    for (main, by_resource) in &raw {
        let scores = found.sensitivity.entry(main.clone()).or_default();
        for (resource, weight) in resources.iter().zip(&weights) {
            if let Some(value) = by_resource.get(resource) {
                scores.insert(resource_key(mode, resource), value * weight);
            }
        }
        scores.insert(resource_key(mode, PRESENCE), weights[resources.len()]);
    }
    Some(held_out(&cases, resources.len()))
}

/// A side whose pair is predicted: a small model, or a pressure program at less than its full strength.
fn is_model(side: &str) -> bool {
    side != NOTHING && scale_of(side).is_none()
}

/// The resource whose scale this side is: `pressure-memory` at full strength, not `pressure-memory-50`.
fn scale_of(side: &str) -> Option<&str> {
    let resource = side.strip_prefix(PRESSURE)?;
    let partial = resource.rsplit_once('-').is_some_and(|(_, percent)| percent.parse::<u32>().is_ok());
    (!partial).then_some(resource)
}

/// Sensitivity before weighting: (slowdown beside `pressure-r` − 1) ÷ that program's pressure on r.
fn raw_sensitivities(pairs: &[CorunPair], mode: &str, pressure: &Scores) -> Scores {
    let mut raw = Scores::new();
    for p in pairs.iter().filter(|p| p.sharing == mode && !is_probe(&p.main)) {
        let Some(resource) = scale_of(&p.side) else { continue };
        // Without its own probe a pressure program is the unit.
        let unit = pressure_of(pressure, &p.side, mode, resource).unwrap_or(1.0);
        if unit >= LEAST_PRESSURE {
            let value = (p.slowdown.median - 1.0).max(0.0) / unit;
            raw.entry(p.main.clone()).or_default().insert(resource.to_string(), value);
        }
    }
    raw
}

/// A measured pair: pressure × sensitivity per resource, then 1 for the presence of a side; and what was measured.
struct PairCase {
    terms: Vec<f64>,
    slowdown: f64,
    key: String,
}

fn pair_cases(pairs: &[CorunPair], mode: &str, raw: &Scores, resources: &[String], pressure: &Scores) -> Vec<PairCase> {
    pairs
        .iter()
        .filter(|p| p.sharing == mode && is_model(&p.side))
        .filter_map(|p| {
            let sensitivity = raw.get(&p.main)?;
            let mut terms = Vec::with_capacity(resources.len() + 1);
            for resource in resources {
                let pressure = pressure_of(pressure, &p.side, mode, resource)?;
                terms.push(pressure * sensitivity.get(resource).copied().unwrap_or(0.0));
            }
            terms.push(1.0);
            Some(PairCase { terms, slowdown: p.slowdown.median, key: format!("{}+{}", p.main, p.side) })
        })
        .collect()
}

/// Weights per term (resources, then presence). Fewer than four pairs cannot set any: each resource counts in full.
fn choose(cases: &[PairCase], resources: usize) -> Vec<f64> {
    let mut full = vec![1.0; resources];
    full.push(0.0);
    if cases.len() < 4 {
        return full;
    }
    let all: Vec<&PairCase> = cases.iter().collect();
    choose_among(&all, resources)
}

/// The set of terms with the smallest cross-validated error, simplest first; a larger one must be 3 % better.
fn choose_among(cases: &[&PairCase], resources: usize) -> Vec<f64> {
    let mut best: Option<(Vec<usize>, f64)> = None;
    for set in term_sets(resources).into_iter().filter(|set| cases.len() > set.len()) {
        let outcomes = in_rounds(cases, |training| weigh(&set, training, resources));
        let score = stats::mean(&outcomes.iter().map(HeldOutCase::error).collect::<Vec<_>>()).unwrap_or(f64::INFINITY);
        if best.as_ref().is_none_or(|(_, least)| score < 0.97 * least) {
            best = Some((set, score));
        }
    }
    let set = best.map_or_else(|| vec![resources], |(set, _)| set);
    weigh(&set, cases, resources)
}

fn term_sets(resources: usize) -> Vec<Vec<usize>> {
    let presence = resources;
    let mut sets = vec![vec![presence]];
    sets.extend((0..resources).map(|r| vec![r]));
    sets.extend((0..resources).map(|r| vec![r, presence]));
    if resources > 1 {
        sets.push((0..resources).collect());
        sets.push((0..=resources).collect());
    }
    sets
}

/// Non-negative weights with the smallest Σ ((1 + weights·terms) ÷ slowdown − 1)².
fn weigh(set: &[usize], cases: &[&PairCase], resources: usize) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = cases.iter().map(|c| set.iter().map(|&t| c.terms[t] / c.slowdown).collect()).collect();
    let target: Vec<f64> = cases.iter().map(|c| (c.slowdown - 1.0) / c.slowdown).collect();
    let mut weights = vec![0.0; resources + 1];
    set.iter().zip(nnls::solve(&rows, &target)).for_each(|(&t, w)| weights[t] = w);
    weights
}

fn slowdown(weights: &[f64], case: &PairCase) -> f64 {
    1.0 + weights.iter().zip(&case.terms).map(|(w, t)| w * t).sum::<f64>()
}

fn in_rounds(cases: &[&PairCase], fit: impl Fn(&[&PairCase]) -> Vec<f64>) -> Vec<HeldOutCase> {
    let mut outcomes = Vec::new();
    for held in heldout::rounds(cases.iter().map(|c| c.key.as_str())) {
        let (out, training): (Vec<&PairCase>, Vec<&PairCase>) = cases.iter().partition(|c| held.contains(&c.key));
        let weights = fit(&training);
        outcomes.extend(out.iter().map(|c| HeldOutCase::new(slowdown(&weights, c), c.slowdown)));
    }
    outcomes
}

/// Every pair predicted by weights it had no part in.
fn held_out(cases: &[PairCase], resources: usize) -> Vec<HeldOutCase> {
    let all: Vec<&PairCase> = cases.iter().collect();
    match cases.len() >= 4 {
        true => in_rounds(&all, |training| choose_among(training, resources)),
        false => {
            // Unweighted, nothing of the pair itself is in its prediction.
            let weights = choose(&[], resources);
            cases.iter().map(|c| HeldOutCase::new(slowdown(&weights, c), c.slowdown)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::Backend;

    /// Steps a second are kept of a side that trains; bytes a second of a pressure program are no steps.
    #[test]
    fn a_pair_keeps_the_steps_a_second_of_a_side_that_trains() {
        let row = |side: &str, unit: &str| {
            let mut row = Measurement::blank(format!("corun/free/m+{side}"), Kind::Corun, Backend::Host);
            for (name, value) in [("main", "m"), ("side", side), ("sharing", "free"), ("side_unit", unit)] {
                row.params.insert(name.into(), value.into());
            }
            row.slowdown = Some(Interval { median: 1.5, low: 1.4, high: 1.6 });
            (row.side_alone_per_s, row.side_together_per_s) = (Some(40.0), Some(20.0));
            row
        };
        let rows = [row("convnet-b16", "steps"), row("pressure-memory", "bytes")];
        let (found, ..) = fit(&rows.iter().collect::<Vec<_>>());
        let of = |side: &str| found.pairs.iter().find(|p| p.side == side).map(|p| (p.side_rate, p.side_alone_per_s));
        assert_eq!(of("convnet-b16"), Some((Some(0.5), Some(40.0))));
        assert_eq!(of("pressure-memory"), Some((Some(0.5), None)));
    }
}
