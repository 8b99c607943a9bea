//! From raw samples to one record: throttled samples set aside, medians with intervals, flags. Pure.

use super::case::{CaseInfo, Detail, FillSample, RawSample};
use super::stop_rule::StopReason;
use super::throttle::{self, SampleVerdicts};
use crate::machine::nvml::reasons;
use crate::records::measurement::{FillOutcome, Interval, Kind, Verified};
use crate::records::telemetry::Telemetry;
use crate::records::{Measurement, flags};
use crate::shape::collective::bus_factor;
use crate::stats;

/// Samples kept in a record.
pub(super) const KEPT: usize = 1000;
/// An interval wider than this share of the median makes the row `noisy`.
const NOISY: f64 = 0.02;

/// What measuring a case gave, beside what its [`CaseInfo`] says.
#[derive(Debug, Default)]
pub struct CaseOutcome {
    /// The samples in the order taken, those of a throttled GPU included.
    pub samples: Vec<RawSample>,
    /// The check that ran before timing; `None` where the case has none.
    pub verified: Option<Verified>,
    /// Why sampling stopped; `None` where another driver sampled, or nothing was sampled.
    pub stop: Option<StopReason>,
    /// Number of trials that the case itself threw away, such as pairs without overlap.
    pub discarded: u64,
    /// What was predicted of a filled stage before it ran; `None` for every other case.
    pub fill: Option<FillOutcome>,
    /// What the GPU's sensors said since the case was prepared; `None` on the host, and where no sensor answered.
    pub telemetry: Option<Telemetry>,
    /// Name of the device, as records write it.
    pub device: String,
    /// When the case ended, RFC 3339 in UTC.
    pub at: String,
}

/// The record of a case: its samples without the throttled ones, as medians with 95 % intervals, and its flags.
pub fn summarise(info: &CaseInfo, outcome: CaseOutcome) -> Measurement {
    let mut record = Measurement::blank(&info.id, info.kind, info.backend);
    record.params.clone_from(&info.params);
    record.device = outcome.device;
    record.at = outcome.at;
    record.cache = info.cache;
    record.launch = info.launch;
    record.flop = info.flop;
    record.bytes = info.bytes;
    record.sharing.clone_from(&info.sharing);
    record.flags.clone_from(&info.flags);
    record.fill = outcome.fill;
    record.verified = outcome.verified.map(finite);
    if record.verified.as_ref().is_some_and(|v| v.wrong > 0) {
        record.flags.push(flags::WRONG.into());
        return record;
    }
    let (samples, verdict) = set_throttled_aside(outcome.samples);
    let throttled = verdict.thrown_away();
    let on_gpu = record.backend == crate::records::measurement::Backend::Cuda;
    record.throttled_samples = on_gpu.then_some(throttled);
    record.discarded_samples = Some(outcome.discarded + throttled);
    clock_flags(&mut record, &samples, &verdict);
    if samples.is_empty() {
        record.flags.push(if throttled > 0 { flags::THROTTLED } else { flags::NO_SAMPLE }.into());
        return record;
    }
    times(&mut record, &samples);
    details(&mut record, &samples);
    sensors(&mut record, outcome.telemetry);
    if outcome.stop == Some(StopReason::Capped) {
        record.flags.push(flags::CAPPED.into());
    }
    record
}

/// JSON has no NaN: an error that is none stands as the largest number there is.
fn finite(verified: Verified) -> Verified {
    Verified { max_error: if verified.max_error.is_finite() { verified.max_error } else { f64::MAX }, ..verified }
}

fn set_throttled_aside(samples: Vec<RawSample>) -> (Vec<RawSample>, SampleVerdicts) {
    let verdict = throttle::judge_samples(&samples);
    let kept = samples.into_iter().zip(&verdict.keep).filter(|(_, keep)| **keep).map(|(sample, _)| sample).collect();
    (kept, verdict)
}

fn clock_flags(record: &mut Measurement, samples: &[RawSample], verdict: &SampleVerdicts) {
    if verdict.unresolved {
        record.flags.push(flags::UNRESOLVED.into());
    }
    if samples.iter().any(|sample| sample.unblocked) {
        record.flags.push(flags::UNBLOCKED.into());
    }
}

fn times(record: &mut Measurement, samples: &[RawSample]) {
    let times: Vec<f64> = samples.iter().map(RawSample::per_operation_ns).collect();
    if let Some(interval) = interval(&times) {
        median_of(record, interval, times.len());
    }
    extremes(record, &times);
    record.samples_total = times.len() as u64;
    record.iterations_per_sample = samples[0].iterations;
    // An unresolved clock is still the best there is; its flag stands beside it.
    let clocks: Vec<f64> = samples.iter().filter_map(|s| s.sm_clock_mhz).filter(|mhz| mhz.is_finite()).collect();
    record.sm_clock_mhz = stats::median(&clocks);
    record.samples_ns = times;
    record.samples_ns.truncate(KEPT);
}

/// Sets the median of so many samples, its interval, and whether that is too wide. Two samples make no interval narrow, and one
/// makes none at all.
pub(super) fn median_of(record: &mut Measurement, Interval { median, low, high }: Interval, samples: usize) {
    let ends = (samples > 1).then_some((low, high)).unzip();
    (record.median_ns, (record.ci95_low_ns, record.ci95_high_ns)) = (Some(median), ends);
    record.flags.retain(|flag| flag != flags::NOISY);
    if samples < 3 || high - low > NOISY * median {
        record.flags.push(flags::NOISY.into());
    }
}

/// Sets the smallest sample, and the 99 % quantile where there are enough samples for one.
pub(super) fn extremes(record: &mut Measurement, times: &[f64]) {
    record.min_ns = stats::quantile(times, 0.0);
    record.p99_ns = if times.len() >= 500 { stats::quantile(times, 0.99) } else { None };
}

/// The clock read beside each sample is the better one; the sensors' stands in where there is none.
fn sensors(record: &mut Measurement, telemetry: Option<Telemetry>) {
    let Some(telemetry) = telemetry else { return };
    record.sm_clock_mhz = record.sm_clock_mhz.or(telemetry.sm_clock_median_mhz);
    record.power_w = telemetry.power_mean_w;
    if telemetry.other_process_ids.as_ref().is_some_and(|pids| !pids.is_empty()) {
        record.flags.push(flags::OTHER_PROCESSES.into());
    }
    let seen = telemetry.clock_event_reasons.iter().flatten();
    record.flags.extend(seen.filter(|name| reasons::throttles(name)).cloned());
    record.telemetry = Some(telemetry);
}

/// The median of values that were taken at one go, and its bootstrap interval; `None` where there are none.
pub(super) fn interval(values: &[f64]) -> Option<Interval> {
    stats::median_interval(values).map(|(median, low, high)| Interval { median, low, high })
}

fn details(record: &mut Measurement, samples: &[RawSample]) {
    match &samples[0].detail {
        Detail::None => {}
        Detail::Isolated { .. } => collective(record, samples),
        Detail::Pair { .. } => pair(record, samples),
        Detail::Fill { .. } => fill(record, samples),
    }
}

fn collective(record: &mut Measurement, samples: &[RawSample]) {
    let isolated: Vec<f64> =
        samples.iter().filter_map(|s| if let Detail::Isolated { ns } = s.detail { Some(ns) } else { None }).collect();
    record.isolated_ns = interval(&isolated);
    bandwidths(record);
}

/// Sets a collective's bandwidths, from its bytes and its median.
pub(super) fn bandwidths(record: &mut Measurement) {
    let (Some(bytes), Some(ns)) = (record.bytes, record.median_ns) else { return };
    let algorithm_bandwidth = bytes / ns; // bytes per ns are GB/s
    record.algbw_gb_per_s = Some(algorithm_bandwidth);
    let ranks = record.param_u64("ranks").unwrap_or(1);
    let factor = record.param_str("operation").and_then(|operation| bus_factor(operation, ranks));
    record.busbw_gb_per_s = factor.map(|factor| algorithm_bandwidth * factor);
}

fn pair(record: &mut Measurement, samples: &[RawSample]) {
    let (mut alone, mut ratio, mut side_alone, mut side_together, mut overlap) =
        (vec![], vec![], vec![], vec![], vec![]);
    for sample in samples {
        if let Detail::Pair { alone_ns, side_alone_per_s, side_together_per_s, overlap_percent } = sample.detail {
            alone.push(alone_ns);
            ratio.push(sample.per_operation_ns() / alone_ns);
            side_alone.push(side_alone_per_s);
            side_together.push(side_together_per_s);
            overlap.push(overlap_percent);
        }
    }
    record.alone_ns = interval(&alone);
    record.together_ns = interval(&record.samples_ns);
    record.slowdown = interval(&ratio);
    record.side_alone_per_s = stats::median(&side_alone);
    record.side_together_per_s = stats::median(&side_together);
    record.overlap_percent = stats::median(&overlap);
}

/// Measured fields; the predicted ones stand in the outcome the case gave beforehand.
fn fill(record: &mut Measurement, samples: &[RawSample]) {
    let Some(mut outcome) = record.fill.take() else { return };
    let parts: Vec<(&RawSample, f64, &FillSample)> = samples
        .iter()
        .filter_map(|s| {
            if let Detail::Fill { empty_ns, outcome } = &s.detail { Some((s, *empty_ns, outcome)) } else { None }
        })
        .collect();
    let median_of = |f: &dyn Fn(&FillSample) -> f64| {
        stats::median(&parts.iter().map(|(_, _, o)| f(o)).collect::<Vec<_>>()).unwrap_or(0.0)
    };
    outcome.bubble_ns = median_of(&|o| o.bubble_ns);
    outcome.bubbles = median_of(&|o| o.bubbles as f64) as u64;
    outcome.bubbles_opened = median_of(&|o| o.bubbles_opened as f64) as u64;
    outcome.open_ns = median_of(&|o| o.open_ns);
    outcome.bubble_used_percent =
        100.0 * median_of(&|o| if o.bubble_ns > 0.0 { o.side_work_ns / o.bubble_ns } else { 0.0 });
    let rates: Vec<f64> = parts.iter().map(|(s, _, o)| o.side_steps / s.ns * 1e9).collect();
    outcome.side_steps_per_s = stats::median(&rates).unwrap_or(0.0);
    let slowdowns: Vec<f64> = parts.iter().map(|(s, _, _)| s.judged()).collect();
    let of_openings = |f: &dyn Fn(&FillSample) -> &Vec<f64>| -> Vec<f64> {
        parts.iter().flat_map(|(_, _, o)| f(o).iter().copied()).collect()
    };
    outcome.main_slowdown = interval(&slowdowns).unwrap_or_default();
    outcome.stop_latency_ns = interval(&of_openings(&|o| &o.stop_latencies_ns)).unwrap_or_default();
    outcome.pairs = Some(parts.len() as u64);
    outcome.late_close_ns = interval(&of_openings(&|o| &o.late_closes_ns));
    outcome.learned_over_true = interval(&of_openings(&|o| &o.learned_over_true));
    let overruns = of_openings(&|o| &o.overruns_ns);
    if !overruns.is_empty() {
        outcome.openings = Some(overruns.len() as u64);
        outcome.preempted_openings = Some(parts.iter().map(|(_, _, o)| o.preempted).sum());
    }
    outcome.overrun_p50_ns = stats::median(&overruns);
    outcome.overrun_p99_ns = rare(&overruns);
    outcome.overrun_max_ns = stats::quantile(&overruns, 1.0);
    let waits = of_openings(&|o| &o.waits_ns);
    outcome.overrun_mean_ns = (!waits.is_empty()).then(|| waits.iter().sum::<f64>() / waits.len() as f64);
    let expected = of_openings(&|o| &o.expected_overruns_ns);
    outcome.expected_overrun_p50_ns = stats::median(&expected);
    outcome.expected_overrun_p99_ns = rare(&expected);
    let alone: Vec<f64> = parts.iter().map(|(_, empty, _)| *empty).collect();
    record.alone_ns = interval(&alone);
    record.together_ns = interval(&record.samples_ns);
    record.slowdown = Some(outcome.main_slowdown);
    record.fill = Some(outcome);
}

/// The 99 % quantile; `None` where there are not even a hundred values.
fn rare(values: &[f64]) -> Option<f64> {
    (values.len() >= 100).then(|| stats::quantile(values, 0.99))?
}

/// The record of a case that could not run: it has no time, the flag `skipped`, and the reason among its parameters.
pub fn skipped(info: &CaseInfo, reason: &str, device: String, at: String) -> Measurement {
    let mut record = summarise(info, CaseOutcome { device, at, ..CaseOutcome::default() });
    record.flags = vec![flags::SKIPPED.into()];
    record.params.insert("reason".into(), reason.into());
    debug_assert!(record.kind != Kind::End);
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::Backend;

    fn sampled(ns: f64, clock: Option<f64>, detail: Detail) -> RawSample {
        RawSample { sm_clock_mhz: clock, detail, ..RawSample::new(ns, 2) }
    }

    fn outcome(samples: Vec<RawSample>) -> CaseOutcome {
        CaseOutcome { samples, ..CaseOutcome::default() }
    }

    #[test]
    fn times_are_of_one_operation() {
        let info = CaseInfo::new("x", Kind::Operation, Backend::Host);
        let record =
            summarise(&info, outcome((0..9).map(|i| sampled(200.0 + f64::from(i), None, Detail::None)).collect()));
        assert_eq!(record.median_ns, Some(102.0));
        assert_eq!((record.samples_total, record.iterations_per_sample, record.p99_ns), (9, 2, None));
        assert_eq!(record.throttled_samples, None, "the host reads no SM clock");
    }

    #[test]
    fn throttled_samples_are_set_aside_and_counted() {
        let info = CaseInfo::new("x", Kind::Operation, Backend::Cuda);
        let mut samples: Vec<RawSample> = (0..9).map(|_| sampled(200.0, Some(1980.0), Detail::None)).collect();
        samples.push(sampled(400.0, Some(1200.0), Detail::None));
        let record = summarise(&info, outcome(samples));
        assert_eq!((record.samples_total, record.throttled_samples, record.median_ns), (9, Some(1), Some(100.0)));
        let all = summarise(&info, outcome(vec![RawSample { throttled: true, ..RawSample::new(1.0, 1) }]));
        assert_eq!((all.median_ns, all.flags), (None, vec!["throttled".to_string()]));
    }

    #[test]
    fn an_unresolved_clock_discards_nothing_and_is_flagged() {
        let info = CaseInfo::new("x", Kind::Operation, Backend::Cuda);
        let sample = |mhz| RawSample { clock_unresolved: true, ..sampled(200.0, Some(mhz), Detail::None) };
        let record = summarise(&info, outcome([1980.0, 1980.0, 600.0].map(sample).to_vec()));
        assert_eq!((record.samples_total, record.throttled_samples, record.discarded_samples), (3, Some(0), Some(0)));
        assert!(record.has_flag("clock: unresolved") && record.median_ns == Some(100.0));
        let unblocked = RawSample { unblocked: true, ..sampled(200.0, Some(1980.0), Detail::None) };
        let record = summarise(&info, outcome(vec![unblocked; 3]));
        assert!(record.has_flag("unblocked") && !record.has_flag("clock: unresolved"));
    }

    #[test]
    fn a_wrong_result_reports_no_time() {
        let info = CaseInfo::new("x", Kind::Operation, Backend::Host);
        let verified = Some(Verified { against: "f64".into(), max_error: f64::NAN, wrong: 3 });
        let record = summarise(&info, CaseOutcome { verified, ..outcome(vec![RawSample::new(5.0, 1)]) });
        assert_eq!((record.median_ns, record.flags), (None, vec!["wrong".to_string()]));
        assert_eq!(record.verified.unwrap().max_error, f64::MAX);
    }

    #[test]
    fn sensors_stand_beside_the_times_and_raise_flags() {
        let info = CaseInfo::new("x", Kind::Operation, Backend::Cuda);
        let telemetry = Telemetry {
            sm_clock_median_mhz: Some(1900.0),
            power_mean_w: Some(640.0),
            clock_event_reasons: Some(vec!["gpu-idle".into(), "sw-power-cap".into()]),
            other_process_ids: Some(vec![7]),
            ..Telemetry::default()
        };
        let told = |clock| {
            let samples = vec![sampled(200.0, clock, Detail::None); 9];
            summarise(&info, CaseOutcome { telemetry: Some(telemetry.clone()), ..outcome(samples) })
        };
        let record = told(None);
        assert_eq!((record.sm_clock_mhz, record.power_w), (Some(1900.0), Some(640.0)));
        assert_eq!(record.flags, ["other-processes", "sw-power-cap"]);
        assert_eq!(record.telemetry.as_ref(), Some(&telemetry));
        assert_eq!(told(Some(1980.0)).sm_clock_mhz, Some(1980.0), "read beside each sample");
        let silent = summarise(&info, outcome(vec![sampled(200.0, None, Detail::None)]));
        assert_eq!((silent.telemetry, silent.sm_clock_mhz), (None, None));
    }

    #[test]
    fn bandwidths_are_nccl_tests() {
        let mut info =
            CaseInfo::new("x", Kind::Collective, Backend::Host).param("operation", "all_reduce").param("ranks", 4);
        info.bytes = Some(1e6);
        let record = summarise(&info, outcome(vec![sampled(2e6, None, Detail::Isolated { ns: 3e6 }); 5]));
        assert_eq!((record.algbw_gb_per_s, record.busbw_gb_per_s), (Some(1.0), Some(1.5)));
        assert_eq!(record.isolated_ns.unwrap().median, 3e6);
    }

    #[test]
    fn pairs_give_the_slowdown_of_each_pair() {
        let detail =
            Detail::Pair { alone_ns: 50.0, side_alone_per_s: 10.0, side_together_per_s: 8.0, overlap_percent: 99.0 };
        let info = CaseInfo::new("x", Kind::Corun, Backend::Host);
        let record = summarise(&info, outcome(vec![RawSample { detail, ..RawSample::new(75.0, 1) }; 5]));
        assert_eq!(record.slowdown.unwrap().median, 1.5);
        assert_eq!(record.side_together_per_s, Some(8.0));
    }

    fn filled(pairs: usize, outcome: &FillSample) -> FillOutcome {
        let detail = Detail::Fill { empty_ns: 50.0, outcome: outcome.clone() };
        let samples = vec![RawSample { detail, ..RawSample::new(51.0, 1) }; pairs];
        let fill = Some(FillOutcome::default());
        let info = CaseInfo::new("x", Kind::Fill, Backend::Host);
        let record = summarise(&info, CaseOutcome { samples, fill, ..CaseOutcome::default() });
        assert_eq!(record.slowdown, Some(record.fill.as_ref().unwrap().main_slowdown));
        record.fill.unwrap()
    }

    #[test]
    fn overruns_are_of_all_openings_and_a_rare_one_needs_a_hundred() {
        let sample = FillSample {
            bubbles: 5,
            bubbles_opened: 4,
            overruns_ns: vec![-30.0, -20.0, 500.0],
            waits_ns: vec![0.0, 6.0],
            expected_overruns_ns: vec![-40.0, -10.0],
            preempted: 1,
            late_closes_ns: vec![5.0, 7.0, 6.0, 6.0],
            learned_over_true: vec![0.9, 0.9, 0.9, 1.0],
            ..FillSample::default()
        };
        let few = filled(12, &sample);
        assert_eq!((few.pairs, few.openings, few.preempted_openings), (Some(12), Some(36), Some(12)));
        assert_eq!((few.overrun_p50_ns, few.overrun_p99_ns, few.overrun_max_ns), (Some(-20.0), None, Some(500.0)));
        assert_eq!((few.expected_overrun_p50_ns, few.expected_overrun_p99_ns), (Some(-25.0), None));
        assert_eq!((few.late_close_ns.unwrap().median, few.learned_over_true.unwrap().median), (6.0, 0.9));
        assert_eq!(
            few.overrun_mean_ns,
            Some(3.0),
            "of those that kept their core, whatever the median and the worst are"
        );
        assert_eq!(few.main_slowdown.median, 1.02);
        let many = filled(50, &sample);
        assert_eq!((many.overrun_p99_ns, many.expected_overrun_p99_ns), (Some(500.0), Some(-10.0)));
    }

    #[test]
    fn a_pair_of_empty_iterations_has_no_openings() {
        let nothing = filled(12, &FillSample { bubbles: 5, ..FillSample::default() });
        assert_eq!((nothing.pairs, nothing.openings, nothing.preempted_openings), (Some(12), None, None));
        assert_eq!((nothing.overrun_p50_ns, nothing.overrun_max_ns, nothing.late_close_ns), (None, None, None));
        assert_eq!(nothing.overrun_mean_ns, None, "not 0: nobody was waited for");
        assert_eq!(nothing.stop_latency_ns, Interval::default());
        // What an A/A row and a line of earlier days lack is left out of the line, and read as lacking.
        let line = serde_json::to_string(&nothing).unwrap();
        assert!(!line.contains("overrun") && !line.contains("late_close"), "{line}");
        assert_eq!(serde_json::from_str::<FillOutcome>(&line).unwrap(), nothing);
    }
}
