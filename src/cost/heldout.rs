//! Which cases are held out, and the error on them.
//!
//! A part of the model is judged in rounds: in each round a fifth of its keys (shapes, cases, pairs) is left out, the
//! part is fitted to the rest and predicts what it has not seen; after five rounds every key has been predicted once
//! by a model that did not know it. With fewer than five keys each is left out on its own. A round takes its keys by
//! a hash, not by size or order, so neither a small nor a large corner of the range is left out as a block, and two
//! runs over the same cases hold out the same ones.

use crate::records::cost_model::Accuracy;
use std::collections::BTreeSet;

/// Four fifths stay, one fifth is held out.
const ROUNDS: usize = 5;
const SEED: u64 = 0x6275_6262_6c65_5f31;

/// The keys held out of each round, every key in one of five rounds (of as many as there are keys, if fewer). Empty
/// where there is only one key, which cannot be held out.
pub fn rounds<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<BTreeSet<String>> {
    let distinct: BTreeSet<&str> = keys.into_iter().collect();
    if distinct.len() < 2 {
        return Vec::new();
    }
    let mut ordered: Vec<&str> = distinct.into_iter().collect();
    ordered.sort_by_key(|key| (hash(key), *key));
    let mut rounds = vec![BTreeSet::new(); ROUNDS.min(ordered.len())];
    let count = rounds.len();
    for (rank, key) in ordered.into_iter().enumerate() {
        rounds[rank % count].insert(key.to_string());
    }
    rounds
}

/// FNV-1a, 64 bit (Fowler, Noll, Vo), finished with SplitMix64's mixing so that short names spread too.
fn hash(text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ SEED;
    let folded = text.bytes().fold(start, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    crate::stats::SplitMix(folded).next_u64()
}

/// A case predicted by a fit that had not seen it: the prediction and the measurement, both in the same unit (ns or a
/// slowdown).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOutCase {
    /// What the fit predicted.
    pub predicted: f64,
    /// What was measured.
    pub measured: f64,
}

impl HeldOutCase {
    /// A held-out case from its prediction and its measurement, both in the same unit.
    pub fn new(predicted: f64, measured: f64) -> Self {
        HeldOutCase { predicted, measured }
    }

    /// Relative distance of the measurement from the prediction: measured ÷ predicted − 1.
    pub fn residual(&self) -> f64 {
        self.measured / self.predicted.max(f64::MIN_POSITIVE) - 1.0
    }

    /// Relative error of the prediction: |predicted − measured| ÷ measured.
    pub fn error(&self) -> f64 {
        (self.predicted - self.measured).abs() / self.measured
    }
}

/// The held-out cases of one part of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutPart {
    /// The part as `accuracy` names it: `gemm`, `layer/forward`, `collective/all_reduce`, `corun` (whose cases are slowdowns), …
    pub what: String,
    /// Its cases, each predicted once.
    pub cases: Vec<HeldOutCase>,
}

impl HeldOutPart {
    /// The part's entry of `accuracy`; `None` where nothing could be held out.
    pub fn accuracy(&self) -> Option<Accuracy> {
        accuracy(&self.what, &self.cases)
    }
}

/// The entry of `accuracy` named `what`: mean and largest relative error of the held-out cases, in percent. `None`
/// where nothing could be held out.
pub fn accuracy(what: &str, outcomes: &[HeldOutCase]) -> Option<Accuracy> {
    let errors: Vec<f64> = outcomes.iter().map(HeldOutCase::error).filter(|e| e.is_finite()).collect();
    let mean = crate::stats::mean(&errors)?;
    Some(Accuracy {
        what: what.to_string(),
        held_out: errors.len() as u64,
        mape_percent: 100.0 * mean,
        worst_percent: 100.0 * errors.iter().copied().fold(0.0, f64::max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_held_out_once_a_fifth_at_a_time() {
        let keys: Vec<String> = (0..40).map(|i| format!("shape-{i}")).collect();
        let rounds = rounds(keys.iter().map(String::as_str));
        assert_eq!(rounds.len(), 5);
        assert!(rounds.iter().all(|r| r.len() == 8));
        assert_eq!(rounds.iter().flatten().collect::<BTreeSet<_>>().len(), 40);
    }

    #[test]
    fn few_keys_are_left_out_one_by_one_and_one_never() {
        let three = rounds(["a", "b", "c", "a"]);
        assert_eq!(three.len(), 3);
        assert!(three.iter().all(|r| r.len() == 1));
        assert!(rounds(["a", "a"]).is_empty());
    }

    #[test]
    fn the_choice_is_stable_and_not_by_order() {
        let keys: Vec<String> = (0..100).map(|i| format!("h{i}")).collect();
        let forward = rounds(keys.iter().map(String::as_str));
        let backward = rounds(keys.iter().rev().map(String::as_str));
        assert_eq!(forward, backward);
        let positions: Vec<usize> = (0..100).filter(|i| forward[0].contains(&keys[*i])).collect();
        assert!(positions.windows(2).any(|w| w[1] - w[0] != 5), "{positions:?} is a pattern");
    }

    #[test]
    fn errors_are_relative_to_what_was_measured() {
        let a = accuracy("x", &[HeldOutCase::new(110.0, 100.0), HeldOutCase::new(70.0, 100.0)]).unwrap();
        assert_eq!(a.held_out, 2);
        assert!((a.mape_percent - 20.0).abs() < 1e-9 && (a.worst_percent - 30.0).abs() < 1e-9);
        assert_eq!(accuracy("x", &[]), None);
    }
}
