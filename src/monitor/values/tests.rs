//! A scripted run, and what is served of it.

use super::*;
use crate::machine::telemetry::{Sampler, SensorReading, Sensors};
use crate::monitor::text::{Format, write};
use crate::records::measurement::Backend;

fn values(telemetry: Option<NewestReading>) -> RunValues {
    let facts = RunFacts {
        run: "20260101T000000Z-7".into(),
        preset: "quick".into(),
        device: "cuda:0".into(),
        machine: "h200-x8".into(),
        gpu: Some(GpuName { index: 0, uuid: "GPU-1".into(), model: "NVIDIA H200".into() }),
        cases: 3,
        visits: 2,
    };
    RunValues::new(facts, || Progress { done: 4, of: 6, left: Some(Duration::from_millis(1500)) }, telemetry)
}

fn text(values: &RunValues) -> String {
    write(&values.families(), Format::Text)
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|own| own == line), "no `{line}` in\n{text}");
}

fn line(id: &str, median: Option<f64>, flags: &[&str]) -> Measurement {
    let flags = flags.iter().map(|flag| flag.to_string()).collect();
    Measurement { median_ns: median, flags, ..Measurement::blank(id, Kind::Operation, Backend::Host) }
}

#[test]
fn a_run_is_named_as_its_records_name_it() {
    let text = text(&values(None));
    let version = env!("CARGO_PKG_VERSION");
    has(
        &text,
        &format!(
            "bubblebench_run_info{{version=\"{version}\",run=\"20260101T000000Z-7\",preset=\"quick\",device=\"cuda:0\",machine=\"h200-x8\"}} 1"
        ),
    );
    has(&text, "bubblebench_case_visits_total 4");
    has(&text, "bubblebench_case_visits_planned 6");
    has(&text, "bubblebench_time_left_seconds 1.5");
    has(&text, "bubblebench_visit 1");
    assert!(!text.contains("current_case") && !text.contains("DCGM"), "{text}");
}

#[test]
fn a_later_line_of_a_case_takes_the_place_of_the_earlier() {
    let values = values(None);
    values.case_begins("a");
    values.written(&line("a", Some(1.0), &[flags::NOISY, flags::CAPPED]));
    values.written(&line("b", None, &[flags::SKIPPED, flags::GPU_FAULT]));
    let first = text(&values);
    has(&first, "bubblebench_flagged_cases{flag=\"noisy\"} 1");
    has(&first, "bubblebench_cases{outcome=\"gpu-fault\"} 1");
    has(&first, "bubblebench_current_case_info{case=\"a\"} 1");
    values.visit_begins(2);
    values.written(&line("a", None, &[flags::WRONG]));
    let second = text(&values);
    has(&second, "bubblebench_visit 2");
    for (outcome, count) in [("measured", 0), ("wrong", 1), ("gpu-fault", 1), ("skipped", 0), ("throttled", 0)] {
        has(&second, &format!("bubblebench_cases{{outcome=\"{outcome}\"}} {count}"));
    }
    for (flag, count) in [("noisy", 0), ("capped", 0), ("skipped", 1), ("wrong", 1)] {
        has(&second, &format!("bubblebench_flagged_cases{{flag=\"{flag}\"}} {count}"));
    }
}

#[test]
fn filled_iterations_are_summed_in_seconds() {
    let values = values(None);
    let outcome = FillSample {
        bubble_ns: 2e9,
        bubbles: 4,
        bubbles_opened: 3,
        open_ns: 1.5e9,
        side_work_ns: 1e9,
        side_steps: 2.5,
        stop_latencies_ns: vec![1e6, 3e6],
        ..FillSample::default()
    };
    // Of an A/A pair, in which nothing is filled, nothing is added but that it was sampled.
    let nothing = FillSample { bubble_ns: 2e9, bubbles: 4, ..FillSample::default() };
    let sample = |outcome| RawSample { detail: Detail::Fill { empty_ns: 1.0, outcome }, ..RawSample::new(1.0, 1) };
    values.sampled(Kind::Fill, &[sample(outcome.clone()), sample(nothing), sample(outcome)]);
    values.sampled(Kind::Layer, &[RawSample::new(1.0, 1)]);
    let text = text(&values);
    for expected in [
        "bubblebench_samples_total{kind=\"fill\"} 3",
        "bubblebench_samples_total{kind=\"layer\"} 1",
        "bubblebench_samples_total{kind=\"corun\"} 0",
        "bubblebench_fill_iterations_total 2",
        "bubblebench_fill_bubbles_total 8",
        "bubblebench_fill_bubbles_opened_total 6",
        "bubblebench_fill_bubble_seconds_total 4",
        "bubblebench_fill_open_seconds_total 3",
        "bubblebench_fill_side_work_seconds_total 2",
        "bubblebench_fill_side_steps_total 5",
        "bubblebench_fill_stop_latency_seconds_sum 0.008",
        "bubblebench_fill_stop_latency_seconds_count 4",
    ] {
        has(&text, expected);
    }
}

struct Fixed;

impl Sensors for Fixed {
    fn read(&mut self, _thorough: bool) -> SensorReading {
        SensorReading {
            sm_clock_mhz: Some(1980),
            memory_clock_mhz: Some(3201),
            power_w: Some(300.0),
            temperature_c: Some(61),
            clock_event_reasons: Some(0),
            activity: crate::machine::nvml::gpm::GpmActivity::from_values([Some(50.0); 4]),
            ..SensorReading::default()
        }
    }
}

/// What is served when everything is known: every metric of the list, once, in its order, with its labels.
#[test]
fn every_metric_of_the_list_is_served_in_its_order() {
    let sampler = Sampler::with(|| Some(Box::new(Fixed))).unwrap();
    assert!(sampler.first(Duration::from_secs(20)).is_some());
    let values = values(Some(sampler.newest()));
    values.case_begins("a");
    let limit = std::time::Instant::now() + Duration::from_secs(20);
    while !text(&values).contains("DCGM_FI_DEV_SM_CLOCK") {
        assert!(std::time::Instant::now() < limit, "a reading is served");
    }
    let families = values.families();
    let names: Vec<&str> = families.iter().map(|family| family.metric.name).collect();
    assert_eq!(names, metrics::ALL.iter().map(|metric| metric.name).collect::<Vec<_>>());
    for family in &families {
        assert!(!family.samples.is_empty(), "{}", family.metric.name);
        for sample in &family.samples {
            let labels: Vec<&str> = sample.labels.iter().map(|(label, _)| *label).collect();
            assert_eq!(labels, family.metric.labels, "{}", family.metric.name);
        }
    }
    assert!(text(&values).contains("device=\"nvidia0\",modelName=\"NVIDIA H200\"} 0.5"));
}
