//! Every metric that is served: name, kind, labels, meaning. docs/monitoring.md has the same list, which `tests/docs.rs`
//! holds to this one.
//!
//! Names of our own begin with `bubblebench_` and end in their unit, as Prometheus' naming rules ask. What DCGM-exporter
//! serves too has DCGM-exporter's name, labels and unit, so that a dashboard for one shows the other.

/// What a metric's values do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Always 1: what is told stands in its labels.
    Info,
    /// A sum and how many it is of.
    Summary,
}

impl MetricKind {
    /// The kind as OpenMetrics writes it.
    pub const fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Info => "info",
            MetricKind::Summary => "summary",
        }
    }
}

/// A metric that is served.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name in front of its values.
    pub name: &'static str,
    /// What its values do.
    pub kind: MetricKind,
    /// Its labels, in their order.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Metric =
                Metric { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them, in the order in which they are served.
        pub static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    RUN = "bubblebench_run_info", Info, ["version", "run", "preset", "device", "machine"],
        "What is run: the program's version, the run's id, the preset, the device, and the machine's name in the results.";
    STARTED = "bubblebench_start_time_seconds", Gauge, [],
        "When this process began to measure, in seconds since 1970.";
    CASES_PLANNED = "bubblebench_cases_planned", Gauge, [],
        "Cases of the run.";
    CASES = "bubblebench_cases", Gauge, ["outcome"],
        "Cases that have a line in measurements.jsonl, by what came out; measured ones have a time.";
    FLAGGED = "bubblebench_flagged_cases", Gauge, ["flag"],
        "Cases whose line in measurements.jsonl has the flag; one case can have several.";
    VISIT = "bubblebench_visit", Gauge, [],
        "Which visit the cases now get, from 1.";
    VISITS_PLANNED = "bubblebench_visits_planned", Gauge, [],
        "Visits that a case gets which is visited more than once.";
    CASE_VISITS = "bubblebench_case_visits_total", Counter, [],
        "Visits to cases that are over, those of an earlier part of the run included: where the progress bar stands.";
    CASE_VISITS_PLANNED = "bubblebench_case_visits_planned", Gauge, [],
        "Visits to cases that the run takes: where the progress bar ends. Falls when fewer cases are to be visited again.";
    TIME_LEFT = "bubblebench_time_left_seconds", Gauge, [],
        "Time until the end of the run as the progress bar estimates it; absent until there is an estimate.";
    CASE = "bubblebench_current_case_info", Info, ["case"],
        "The case that is built, checked or measured now.";
    CASE_SINCE = "bubblebench_current_case_start_time_seconds", Gauge, [],
        "When the present case began, in seconds since 1970.";
    SAMPLES = "bubblebench_samples_total", Counter, ["kind"],
        "Samples taken by this process, by the kind of case, those that are set aside later included.";
    FILL_ITERATIONS = "bubblebench_fill_iterations_total", Counter, [],
        "Iterations of a pipeline stage in which a bubble was filled; each has a partner whose bubbles stay empty.";
    FILL_BUBBLES = "bubblebench_fill_bubbles_total", Counter, [],
        "Bubbles in the filled iterations.";
    FILL_OPENED = "bubblebench_fill_bubbles_opened_total", Counter, [],
        "Bubbles that were long enough for the gate to be opened.";
    FILL_BUBBLE_TIME = "bubblebench_fill_bubble_seconds_total", Counter, [],
        "Bubble time of the filled iterations as the schedule has it.";
    FILL_OPEN_TIME = "bubblebench_fill_open_seconds_total", Counter, [],
        "Time during which the gate stood open in the filled iterations.";
    FILL_SIDE_WORK = "bubblebench_fill_side_work_seconds_total", Counter, [],
        "Side work done in the bubbles, as the time that it takes alone.";
    FILL_SIDE_STEPS = "bubblebench_fill_side_steps_total", Counter, [],
        "Training steps of the side done in the bubbles, fractions included.";
    FILL_STOP = "bubblebench_fill_stop_latency_seconds", Summary, [],
        "Time from a closing of the gate until the side stood still, in the filled iterations.";
    GATE_OPENINGS = "bubblebench_gate_openings_total", Counter, [],
        "Openings of all gates of this process, those of calibrations and warm-ups included.";
    GATE_CLOSINGS = "bubblebench_gate_closings_total", Counter, [],
        "Closings of all gates of this process.";
    GATE_OPERATIONS = "bubblebench_gate_side_operations_total", Counter, [],
        "Operations that sides finished behind the gates of this process.";
    GATE_SELF_STOPS = "bubblebench_gate_self_stops_total", Counter, [],
        "Openings in which a side stopped by the clock, before the closing.";
    SM_CLOCK = "DCGM_FI_DEV_SM_CLOCK", Gauge, ["gpu", "UUID", "device", "modelName"],
        "SM clock frequency (in MHz).";
    MEMORY_CLOCK = "DCGM_FI_DEV_MEM_CLOCK", Gauge, ["gpu", "UUID", "device", "modelName"],
        "Memory clock frequency (in MHz).";
    TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP", Gauge, ["gpu", "UUID", "device", "modelName"],
        "GPU temperature (in C).";
    POWER = "DCGM_FI_DEV_POWER_USAGE", Gauge, ["gpu", "UUID", "device", "modelName"],
        "Power draw (in W).";
    REASONS = "DCGM_FI_DEV_CLOCKS_EVENT_REASONS", Gauge, ["gpu", "UUID", "device", "modelName"],
        "Why the clock is below the one asked for, as NVML's bits.";
    SM_ACTIVE = "DCGM_FI_PROF_SM_ACTIVE", Gauge, ["gpu", "UUID", "device", "modelName"],
        "The ratio of cycles an SM has at least 1 warp assigned.";
    SM_OCCUPANCY = "DCGM_FI_PROF_SM_OCCUPANCY", Gauge, ["gpu", "UUID", "device", "modelName"],
        "The ratio of number of warps resident on an SM.";
    TENSOR_ACTIVE = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", Gauge, ["gpu", "UUID", "device", "modelName"],
        "The ratio of cycles a tensor pipe is active.";
    DRAM_ACTIVE = "DCGM_FI_PROF_DRAM_ACTIVE", Gauge, ["gpu", "UUID", "device", "modelName"],
        "The ratio of cycles the device memory interface is active.";
    THROTTLING = "bubblebench_gpu_throttling", Gauge, ["gpu", "UUID", "device", "reason"],
        "1 where the GPU is slowed against its will for this reason, by the name that a record's flags have; else 0.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_prometheus_and_follow_their_kind() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let name = metric.name;
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
            assert!(name.starts_with("bubblebench_") || name.starts_with("DCGM_FI_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), metric.kind == MetricKind::Info, "{name}");
            assert!(metric.help.is_ascii() && metric.help.ends_with('.'), "{name}");
        }
    }
}
