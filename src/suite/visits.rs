//! One record of several visits to a case. Pure: the record so far and the record of one more visit in, their sum out.
//!
//! What slows a CPU (its clock, its neighbours, where in memory the data came to lie) changes more slowly than one visit
//! takes, so samples of one visit agree with each other better than with those of the next. The interval of the median
//! is therefore that of the visits (docs/method.md, "Visits"): if every visit's median is as likely above the long-run
//! median as below it, all k lie on one side of it with probability 2·(1/2)^k, and else it lies between the smallest and
//! the largest of them.

use super::summary::{self, KEPT};
use crate::records::Measurement;
use crate::records::measurement::{Interval, Kind, Visit};
use crate::stats;

/// The record of a case's first visit, from that of its samples. One without a time stays as it is.
pub fn first(mut record: Measurement) -> Measurement {
    record.visits = visit(&record).map(|visit| vec![visit]);
    record
}

/// The record of all visits: of the earlier ones, whose record is `earlier`, and one more. `earlier` is returned where
/// the later visit gave no time.
pub fn join(earlier: Measurement, later: Measurement) -> Measurement {
    let (Some(mut visits), Some(visit)) = (earlier.visits.clone(), visit(&later)) else { return earlier };
    visits.push(visit);
    // What the case is, and that it was checked, stands in the first visit's record.
    let mut record = Measurement { at: later.at, ..earlier };
    for flag in later.flags {
        if !record.has_flag(&flag) {
            record.flags.push(flag);
        }
    }
    let mut times = std::mem::take(&mut record.samples_ns);
    times.extend(later.samples_ns);
    record.samples_total = record.samples_total.saturating_add(later.samples_total);
    record.discarded_samples = add(record.discarded_samples, later.discarded_samples);
    let medians: Vec<f64> = visits.iter().map(|visit| visit.median_ns).collect();
    if let Some(interval) = summary::interval(&times) {
        summary::median_of(&mut record, over_visits(interval, &medians), times.len());
    }
    summary::extremes(&mut record, &times);
    times.truncate(KEPT);
    record.samples_ns = times;
    if record.kind == Kind::Collective {
        let isolated: Vec<f64> = visits.iter().filter_map(|visit| visit.isolated_ns).collect();
        record.isolated_ns = stats::median(&isolated).map(|median| {
            let one = Interval { median, low: median, high: median };
            over_visits(one, &isolated)
        });
        summary::bandwidths(&mut record);
    }
    record.visits = Some(visits);
    record
}

/// The interval of all samples, as wide as the medians of the visits lie apart at the least.
fn over_visits(samples: Interval, medians: &[f64]) -> Interval {
    let low = medians.iter().copied().fold(samples.low, f64::min);
    let high = medians.iter().copied().fold(samples.high, f64::max);
    Interval { low, high, ..samples }
}

fn visit(record: &Measurement) -> Option<Visit> {
    let isolated_ns = record.isolated_ns.map(|interval| interval.median);
    record.median_ns.map(|median_ns| Visit {
        at: record.at.clone(),
        samples: record.samples_total,
        median_ns,
        isolated_ns,
    })
}

fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.map_or(b, |a| Some(a.saturating_add(b.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::super::case::{CaseInfo, Detail, RawSample};
    use super::super::summary::{CaseOutcome, summarise};
    use super::*;
    use crate::records::flags::{CAPPED, NOISY};
    use crate::records::measurement::Backend;
    use crate::stats::SplitMix;
    use crate::suite::stop_rule::StopReason;

    fn record_of(samples: Vec<RawSample>, stop: StopReason) -> Measurement {
        let mut info = CaseInfo::new("x", Kind::Collective, Backend::Host);
        info.bytes = Some(1000.0);
        summarise(&info, CaseOutcome { samples, stop: Some(stop), at: "then".into(), ..CaseOutcome::default() })
    }

    fn of_times(times: &[f64]) -> Measurement {
        record_of(times.iter().map(|&ns| RawSample::new(ns, 1)).collect(), StopReason::Steady)
    }

    /// As [`of_times`], without the interval, which a later visit's own record has no use for.
    fn without_interval(times: &[f64]) -> Measurement {
        let mut record = Measurement::blank("x", Kind::Operation, Backend::Host);
        (record.median_ns, record.samples_total) = (stats::median(times), times.len() as u64);
        record.samples_ns = times.to_vec();
        record
    }

    fn run(visits: &[Vec<f64>]) -> Measurement {
        let (one, more) = visits.split_first().unwrap();
        more.iter().fold(first(without_interval(one)), |record, times| join(record, without_interval(times)))
    }

    #[test]
    fn the_interval_holds_every_visits_median() {
        let record = run(&[vec![100.0; 4], vec![110.0; 4], vec![101.0; 4]]);
        assert_eq!(
            (record.median_ns, record.ci95_low_ns, record.ci95_high_ns),
            (Some(101.0), Some(100.0), Some(110.0))
        );
        assert_eq!((record.samples_total, record.samples_ns.len(), record.min_ns), (12, 12, Some(100.0)));
        assert!(record.has_flag(NOISY));
        let visits = record.visits.unwrap();
        assert_eq!(
            visits.iter().map(|v| (v.samples, v.median_ns)).collect::<Vec<_>>(),
            [(4, 100.0), (4, 110.0), (4, 101.0)]
        );
    }

    #[test]
    fn a_narrow_interval_takes_the_flag_of_a_wide_one_back() {
        let first = first(of_times(&[90.0, 100.0, 110.0]));
        assert!(first.has_flag(NOISY));
        let joined = join(first, of_times(&[100.0; 60]));
        assert!(!joined.has_flag(NOISY), "{:?}", joined.flags);
    }

    #[test]
    fn isolated_latencies_bandwidths_and_flags_are_of_all_visits() {
        let visit = |ns: f64, isolated: f64, stop| {
            let detail = Detail::Isolated { ns: isolated };
            record_of(vec![RawSample { detail, ..RawSample::new(ns, 1) }; 5], stop)
        };
        let record = join(first(visit(10.0, 30.0, StopReason::Steady)), visit(30.0, 50.0, StopReason::Capped));
        assert_eq!(record.isolated_ns, Some(Interval { median: 40.0, low: 30.0, high: 50.0 }));
        assert_eq!((record.algbw_gb_per_s, record.discarded_samples), (Some(50.0), Some(0)));
        assert!(record.has_flag(CAPPED));
    }

    /// However sure one sample seems of itself.
    #[test]
    fn few_samples_are_noisy_and_one_makes_no_interval() {
        let one = first(of_times(&[100.0]));
        assert_eq!((one.median_ns, one.ci95_low_ns, one.ci95_high_ns), (Some(100.0), None, None));
        assert!(one.has_flag(NOISY));
        let two = join(one, of_times(&[100.0]));
        assert!(two.has_flag(NOISY) && two.ci95_low_ns == Some(100.0));
        assert!(!join(two, of_times(&[100.0])).has_flag(NOISY));
    }

    #[test]
    fn a_visit_without_a_time_changes_nothing() {
        let record = first(of_times(&[1.0, 2.0]));
        assert_eq!(join(record.clone(), of_times(&[])), record);
        assert_eq!(first(of_times(&[])).visits, None);
    }

    /// About normal, with variance 1.
    fn normal(random: &mut SplitMix) -> f64 {
        (0..12).map(|_| random.unit()).sum::<f64>() - 6.0
    }

    /// `runs` runs of five visits to a case of 1,000 ns whose speed drifts by `drift` and whose samples differ by
    /// `noise`: how many intervals hold 1,000, and their mean width.
    fn simulated(runs: usize, drift: f64, noise: f64) -> (usize, f64) {
        let (mut random, mut held, mut width) = (SplitMix(17), 0, 0.0);
        for _ in 0..runs {
            let visits: Vec<Vec<f64>> = (0..5)
                .map(|_| {
                    let speed = 1000.0 + drift * normal(&mut random);
                    (0..6).map(|_| speed + noise * normal(&mut random)).collect()
                })
                .collect();
            let record = run(&visits);
            let (low, high) = (record.ci95_low_ns.unwrap(), record.ci95_high_ns.unwrap());
            held += usize::from(low <= 1000.0 && 1000.0 <= high);
            width += (high - low) / runs as f64;
        }
        (held, width)
    }

    /// Known answer: 1 − 2·(1/2)^5 = 93.75 % of intervals hold the long-run median where drift is all there is.
    #[test]
    fn drift_between_visits_is_covered() {
        let (held, _) = simulated(1000, 50.0, 5.0);
        assert!((910..=970).contains(&held), "{held} of 1000");
        // One visit alone says nothing of it.
        let mut random = SplitMix(3);
        let alone = (0..1000).filter(|_| {
            let speed = 1000.0 + 50.0 * normal(&mut random);
            let times: Vec<f64> = (0..30).map(|_| speed + 5.0 * normal(&mut random)).collect();
            let record = first(of_times(&times));
            record.ci95_low_ns.unwrap() <= 1000.0 && 1000.0 <= record.ci95_high_ns.unwrap()
        });
        let alone = alone.count();
        assert!(alone < 100, "{alone} of 1000");
    }

    #[test]
    fn without_drift_the_interval_is_hardly_wider_than_of_one_visit() {
        let (held, width) = simulated(1000, 0.0, 5.0);
        assert!(held >= 930, "{held} of 1000");
        let mut random = SplitMix(3);
        let one: f64 = (0..200)
            .map(|_| {
                let times: Vec<f64> = (0..30).map(|_| 1000.0 + 5.0 * normal(&mut random)).collect();
                let record = first(of_times(&times));
                (record.ci95_high_ns.unwrap() - record.ci95_low_ns.unwrap()) / 200.0
            })
            .sum();
        assert!(width < 1.6 * one, "{width:.2} ns and {one:.2} ns");
    }
}
