//! Measures a case until its [`StopRule`] says that it has been measured well enough: finds a batch long enough to
//! time, warms up until the times are steady, then samples until the rule stops.

use super::case::{Case, RawSample};
use super::stop_rule::{StopReason, StopRule};
use super::throttle::{self, SampleClock};
use crate::{Error, Result};

/// The clock and the stop request that the sampler looks at: time since some fixed moment, and whether somebody asked
/// to stop.
pub trait Watch {
    /// Nanoseconds since that moment.
    fn elapsed_ns(&self) -> u64;
    /// Whether somebody has asked to stop; the sampler looks between two samples.
    fn interrupted(&self) -> bool;
    /// Is shown each batch of samples once it is taken; nothing is done with them unless somebody observes the run.
    fn sampled(&self, _samples: &[RawSample]) {}
}

/// Which part of a case's measuring is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Number of visits that the case's samples and time are shared among.
    pub visits: usize,
    /// Operations in a sample, where an earlier visit has settled it: all samples of a case are of one length.
    pub iterations: Option<u64>,
}

impl Part {
    /// All of the case at one go.
    pub const WHOLE: Part = Part { visits: 1, iterations: None };
}

/// While the GPU is throttled a case may take this many times its time cap.
const PATIENCE: u64 = 3;

/// The number of operations whose sample lasts at least 70 % of `batch_ns`, found by ever longer trials; 1 where
/// `batch_ns` is 0. It grows no further from 2²⁴ on. An error where the case cannot be sampled.
pub fn batch_size(case: &mut dyn Case, batch_ns: f64) -> Result<u64> {
    let mut n = 1u64;
    loop {
        let samples = case.sample(n)?;
        let longest = samples.iter().map(|s| s.ns).fold(0.0, f64::max);
        if batch_ns <= 0.0 || longest >= 0.7 * batch_ns || n >= 1 << 24 {
            return Ok(n);
        }
        let wanted = (batch_ns / longest.max(1.0) * n as f64).ceil() as u64;
        n = wanted.clamp(n + 1, n * 16);
    }
}

/// Samples a prepared case until the rule stops, throttled samples included; an error where the case fails or somebody
/// asked to stop.
pub fn measure(
    case: &mut dyn Case,
    rule: &StopRule,
    part: Part,
    watch: &dyn Watch,
) -> Result<(Vec<RawSample>, StopReason)> {
    let whole = case.sampling();
    let rule = whole.rule.as_ref().unwrap_or(rule);
    let rule = StopRule { min_samples: rule.min_samples.max(whole.min_samples), ..*rule }.of_one_visit(part.visits);
    let sampling = whole.of_one_visit(part.visits);
    let start = watch.elapsed_ns();
    let spent = || watch.elapsed_ns().saturating_sub(start);
    let n = match part.iterations {
        // Never batched: `sample(n)` gives n samples, whatever the iterations of each.
        Some(_) if sampling.batch_ns <= 0.0 => 1,
        Some(iterations) => iterations.max(1),
        None => batch_size(case, sampling.batch_ns)?,
    };
    warm_up(case, n, rule.cap_ns / 6, &spent)?;
    case.begin();
    let (mut samples, mut empty) = (Vec::new(), 0);
    loop {
        if watch.interrupted() {
            return Err(Error::Interrupted);
        }
        let taken = case.sample(n)?;
        watch.sampled(&taken);
        empty = if taken.is_empty() { empty + 1 } else { 0 };
        samples.extend(taken);
        // Every trial thrown away (throttled, no overlap): the case ends without a number rather than never.
        if empty >= 20 {
            return Ok((samples, StopReason::Capped));
        }
        let times = standing_values(&samples);
        // A GPU that stays throttled gives samples that all go: it ends as well, and the record says so.
        if times.len() < samples.len() && spent() >= rule.cap_ns.saturating_mul(PATIENCE) {
            return Ok((samples, StopReason::Capped));
        }
        match rule.decide(&times, spent()) {
            Some(StopReason::Capped) if times.len() < sampling.least_samples => {}
            Some(stop) => return Ok((samples, stop)),
            None => {}
        }
    }
}

/// What is judged of the samples that will stand in the record: those the rule may count on.
fn standing_values(samples: &[RawSample]) -> Vec<f64> {
    let keep = throttle::judge_samples(samples).keep;
    samples.iter().zip(keep).filter(|(_, keep)| *keep).map(|(sample, _)| sample.judged()).collect()
}

/// Until three batches in a row agree within 5 % at one SM clock, or the allowance is spent.
fn warm_up(case: &mut dyn Case, n: u64, allowance_ns: u64, spent: &dyn Fn() -> u64) -> Result<()> {
    let begin = spent();
    let mut last = Vec::new();
    while spent() - begin < allowance_ns {
        last.extend(case.sample(n)?.iter().map(|sample| (sample.per_operation_ns(), SampleClock::of(sample))));
        if let [.., (a, at_a), (b, at_b), (c, at_c)] = last[..] {
            let (low, high) = (a.min(b).min(c), a.max(b).max(c));
            if high <= 1.05 * low && throttle::settled(&[at_a, at_b, at_c]) {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::{Backend, Kind, Verified};
    use crate::suite::case::{CaseInfo, Detail, FillSample, Sampling};
    use std::cell::Cell;
    use std::rc::Rc;

    const RULE: StopRule = StopRule::new(8, 100, 0.02, 1_000_000_000);

    /// A case on a scripted clock: an operation takes `ns`, the first `warm` samples twice that.
    struct Scripted {
        info: CaseInfo,
        ns: f64,
        slow_until: u64,
        taken: u64,
        clock: Rc<Cell<u64>>,
        batch_ns: f64,
        least: usize,
        drop_all: bool,
        /// Every sample but each k-th is throttled; 0: none is.
        throttled_but: u64,
        rule: Option<StopRule>,
        /// How long the empty partner of each sample takes, one after the other; empty: samples have no partner.
        partners: Vec<f64>,
    }

    struct ScriptedWatch(Rc<Cell<u64>>, bool);

    impl Watch for ScriptedWatch {
        fn elapsed_ns(&self) -> u64 {
            self.0.get()
        }
        fn interrupted(&self) -> bool {
            self.1
        }
    }

    impl Case for Scripted {
        fn info(&self) -> &CaseInfo {
            &self.info
        }
        fn sampling(&self) -> Sampling {
            Sampling {
                batch_ns: self.batch_ns,
                min_samples: 4,
                least_samples: self.least,
                revisited: true,
                rule: self.rule,
            }
        }
        fn prepare(&mut self) -> Result<Option<Verified>> {
            Ok(None)
        }
        fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
            self.taken += 1;
            let ns = self.ns * if self.taken <= self.slow_until { 2.0 } else { 1.0 } * n as f64;
            self.clock.set(self.clock.get() + ns as u64);
            let throttled = self.throttled_but > 0 && !self.taken.is_multiple_of(self.throttled_but);
            let detail = match self.partners.len() as u64 {
                0 => Detail::None,
                partners => Detail::Fill {
                    empty_ns: self.partners[(self.taken % partners) as usize],
                    outcome: FillSample::default(),
                },
            };
            Ok(if self.drop_all { vec![] } else { vec![RawSample { throttled, detail, ..RawSample::new(ns, n) }] })
        }
    }

    fn scripted(ns: f64, slow_until: u64, batch_ns: f64) -> (Scripted, Rc<Cell<u64>>) {
        let clock = Rc::new(Cell::new(0));
        let info = CaseInfo::new("x", Kind::Operation, Backend::Host);
        (
            Scripted {
                info,
                ns,
                slow_until,
                taken: 0,
                clock: clock.clone(),
                batch_ns,
                least: 3,
                drop_all: false,
                throttled_but: 0,
                rule: None,
                partners: Vec::new(),
            },
            clock,
        )
    }

    #[test]
    fn short_operations_are_batched_and_the_warm_up_is_not_measured() {
        let (mut case, clock) = scripted(100.0, 6, 200_000.0);
        let (samples, stop) = measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap();
        assert_eq!(stop, StopReason::Steady);
        assert!(samples.iter().all(|s| s.iterations >= 1000 && s.per_operation_ns() == 100.0), "{samples:?}");
    }

    #[test]
    fn a_slow_case_is_capped_but_has_a_number() {
        let (mut case, clock) = scripted(0.7e9, 0, 200_000.0);
        let (samples, stop) = measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap();
        assert_eq!((stop, samples.len()), (StopReason::Capped, 3));
        let (mut case, clock) = scripted(0.7e9, 0, 200_000.0);
        case.least = 7;
        let (samples, stop) = measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap();
        assert_eq!((stop, samples.len()), (StopReason::Capped, 7), "a case may need more");
    }

    #[test]
    fn a_visit_takes_its_share_in_samples_of_the_length_it_is_told() {
        let (mut case, clock) = scripted(100.0, 0, 200_000.0);
        let part = Part { visits: 2, iterations: Some(7) };
        let (samples, _) = measure(&mut case, &RULE, part, &ScriptedWatch(clock, false)).unwrap();
        assert!(samples.len() == 4 && samples.iter().all(|s| s.iterations == 7), "{samples:?}");
        let (mut case, clock) = scripted(0.7e9, 0, 200_000.0);
        let part = Part { visits: 5, iterations: Some(1) };
        let (samples, stop) = measure(&mut case, &RULE, part, &ScriptedWatch(clock, false)).unwrap();
        assert_eq!((stop, samples.len()), (StopReason::Capped, 1), "the visits together have enough");
    }

    #[test]
    fn a_case_may_bring_a_rule_of_its_own() {
        let (mut case, clock) = scripted(100.0, 0, 0.0);
        case.rule = Some(StopRule::new(20, 100, 0.02, 1_000_000_000));
        let (samples, stop) = measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap();
        assert_eq!((stop, samples.len()), (StopReason::Steady, 20));
    }

    /// All samples take the same time; that of their partners differs, so the slowdown is not known until the end.
    #[test]
    fn a_filled_stage_goes_on_until_its_slowdown_is_known() {
        let (mut case, clock) = scripted(100.0, 0, 0.0);
        case.partners = vec![80.0, 100.0, 120.0, 140.0];
        let (samples, stop) = measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap();
        assert_eq!((stop, samples.len()), (StopReason::Enough, RULE.max_samples));
        let (mut case, clock) = scripted(100.0, 0, 0.0);
        case.partners = vec![99.0];
        let (samples, stop) = measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap();
        assert_eq!((stop, samples.len()), (StopReason::Steady, 8));
    }

    #[test]
    fn an_interrupt_ends_the_case() {
        let (mut case, clock) = scripted(100.0, 0, 0.0);
        assert!(matches!(measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, true)), Err(Error::Interrupted)));
    }

    #[test]
    fn throttled_samples_do_not_count_and_do_not_go_on_forever() {
        let (mut case, clock) = scripted(100.0, 0, 200_000.0);
        case.throttled_but = 4;
        let (samples, stop) = measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap();
        assert_eq!((stop, samples.iter().filter(|s| !s.throttled).count()), (StopReason::Steady, 8));
        let (mut case, clock) = scripted(1e6, 0, 200_000.0);
        case.throttled_but = u64::MAX;
        let (samples, stop) = measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap();
        assert!(stop == StopReason::Capped && samples.iter().all(|s| s.throttled));
    }

    #[test]
    fn a_case_whose_trials_are_all_thrown_away_ends() {
        let (mut case, clock) = scripted(100.0, 0, 0.0);
        case.drop_all = true;
        assert!(measure(&mut case, &RULE, Part::WHOLE, &ScriptedWatch(clock, false)).unwrap().0.is_empty());
    }
}
