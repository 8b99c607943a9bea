//! A run's state, as the suite tells it and as it is served. What is told between samples goes into atomics; what is told
//! between cases stands behind a lock that is held for a few stores or copies.

use super::gpu::{self, GpuName};
use super::metrics::{self, Metric};
use super::text::{Family, Sample};
use crate::corun::gate::counts::{self, GateCounts};
use crate::machine::nvml::reasons;
use crate::machine::telemetry::NewestReading;
use crate::records::measurement::Kind;
use crate::records::{Measurement, flags};
use crate::suite::case::{Detail, FillSample, RawSample};
use crate::suite::observer::Observer;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A reading that is older says nothing about now: the sensors hang.
const FRESH: Duration = Duration::from_secs(5);
/// The outcome of a case that has a time; all others are flags.
const MEASURED: &str = "measured";
/// What keeps a case from having a time, those first that explain most.
const WITHOUT_TIME: [&str; 6] =
    [flags::BUG, flags::GPU_FAULT, flags::WRONG, flags::THROTTLED, flags::NO_SAMPLE, flags::SKIPPED];
const KINDS: [(Kind, &str); 5] = [
    (Kind::Operation, "operation"),
    (Kind::Layer, "layer"),
    (Kind::Collective, "collective"),
    (Kind::Corun, "corun"),
    (Kind::Fill, "fill"),
];

/// What a run is, as its records say it.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// The run's id.
    pub run: String,
    /// The preset's name.
    pub preset: String,
    /// The device, `host` or `cuda:N`.
    pub device: String,
    /// The machine's name, which is its folder's below `results/`.
    pub machine: String,
    /// The GPU that is measured on.
    pub gpu: Option<GpuName>,
    /// Number of cases.
    pub cases: usize,
    /// Number of visits to a case that is visited more than once.
    pub visits: usize,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Visits to cases that are over.
    pub done: u64,
    /// Visits to cases in all.
    pub of: u64,
    /// Time until the end; `None` where there is no estimate yet.
    pub left: Option<Duration>,
}

/// The state of a run.
pub struct RunValues {
    facts: RunFacts,
    started: SystemTime,
    progress: Box<dyn Fn() -> Progress + Send + Sync>,
    telemetry: Option<NewestReading>,
    samples: [AtomicU64; KINDS.len()],
    fill: FillSums,
    present: Mutex<Present>,
}

#[derive(Clone, Default)]
struct Present {
    visit: usize,
    case: Option<(String, SystemTime)>,
    tally: Tally,
}

/// How many cases have which outcome and which flags, and what each case counts for.
#[derive(Clone, Default)]
struct Tally {
    cases: BTreeMap<String, (&'static str, Vec<String>)>,
    outcomes: BTreeMap<&'static str, u64>,
    flags: BTreeMap<String, u64>,
}

/// A sum with one writer.
#[derive(Default)]
struct Sum(AtomicU64);

#[derive(Default)]
struct FillSums {
    iterations: Sum,
    bubbles: Sum,
    opened: Sum,
    bubble_ns: Sum,
    open_ns: Sum,
    side_work_ns: Sum,
    side_steps: Sum,
    stops: Sum,
    stop_ns: Sum,
}

impl Sum {
    fn add(&self, value: f64) {
        self.0.store((self.get() + value).to_bits(), Relaxed);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    fn seconds(&self) -> f64 {
        self.get() / 1e9
    }
}

impl FillSums {
    fn add(&self, sample: &FillSample) {
        // Nothing was filled, as in A/A pairs.
        if sample.bubbles_opened == 0 {
            return;
        }
        self.iterations.add(1.0);
        self.bubbles.add(sample.bubbles as f64);
        self.opened.add(sample.bubbles_opened as f64);
        self.bubble_ns.add(sample.bubble_ns);
        self.open_ns.add(sample.open_ns);
        self.side_work_ns.add(sample.side_work_ns);
        self.side_steps.add(sample.side_steps);
        self.stops.add(sample.stop_latencies_ns.len() as f64);
        self.stop_ns.add(sample.stop_latencies_ns.iter().sum());
    }

    fn families(&self) -> Vec<Family> {
        let stop = |suffix, value| Sample { suffix, labels: Vec::new(), value };
        let stops = vec![stop("_sum", self.stop_ns.seconds()), stop("_count", self.stops.get())];
        vec![
            plain(&metrics::FILL_ITERATIONS, self.iterations.get()),
            plain(&metrics::FILL_BUBBLES, self.bubbles.get()),
            plain(&metrics::FILL_OPENED, self.opened.get()),
            plain(&metrics::FILL_BUBBLE_TIME, self.bubble_ns.seconds()),
            plain(&metrics::FILL_OPEN_TIME, self.open_ns.seconds()),
            plain(&metrics::FILL_SIDE_WORK, self.side_work_ns.seconds()),
            plain(&metrics::FILL_SIDE_STEPS, self.side_steps.get()),
            Family { metric: &metrics::FILL_STOP, samples: stops },
        ]
    }
}

impl Tally {
    fn count(&mut self, record: &Measurement) {
        let without = WITHOUT_TIME.into_iter().find(|flag| record.has_flag(flag));
        let outcome = if record.median_ns.is_some() { MEASURED } else { without.unwrap_or(flags::NO_SAMPLE) };
        let counted = (outcome, record.flags.clone());
        *self.outcomes.entry(outcome).or_default() += 1;
        for flag in &counted.1 {
            *self.flags.entry(flag.clone()).or_default() += 1;
        }
        let Some((outcome, flags)) = self.cases.insert(record.id.clone(), counted) else { return };
        self.outcomes.entry(outcome).and_modify(|count| *count -= 1);
        for flag in flags {
            self.flags.entry(flag).and_modify(|count| *count -= 1);
        }
    }
}

impl Observer for RunValues {
    fn case_begins(&self, id: &str) {
        let begun = Some((id.to_string(), SystemTime::now()));
        self.lock().case = begun;
    }

    fn sampled(&self, kind: Kind, samples: &[RawSample]) {
        if let Some(at) = KINDS.iter().position(|(known, _)| *known == kind) {
            self.samples[at].fetch_add(samples.len() as u64, Relaxed);
        }
        for sample in samples {
            if let Detail::Fill { outcome, .. } = &sample.detail {
                self.fill.add(outcome);
            }
        }
    }

    fn written(&self, record: &Measurement) {
        self.lock().tally.count(record);
    }
}

impl RunValues {
    /// The state of a run that begins; `progress` and `telemetry` are looked at when somebody asks.
    pub fn new(
        facts: RunFacts,
        progress: impl Fn() -> Progress + Send + Sync + 'static,
        telemetry: Option<NewestReading>,
    ) -> RunValues {
        RunValues {
            facts,
            started: SystemTime::now(),
            progress: Box::new(progress),
            telemetry,
            samples: Default::default(),
            fill: FillSums::default(),
            present: Mutex::new(Present { visit: 1, ..Present::default() }),
        }
    }

    /// The cases now get this visit.
    pub fn visit_begins(&self, visit: usize) {
        self.lock().visit = visit;
    }

    /// Everything that is served, in the order of [`metrics::ALL`].
    pub fn families(&self) -> Vec<Family> {
        // Copied, so that the run never waits while text is made.
        let present = {
            let present = self.lock();
            let tally = &present.tally;
            let tally = Tally { cases: BTreeMap::new(), outcomes: tally.outcomes.clone(), flags: tally.flags.clone() };
            Present { visit: present.visit, case: present.case.clone(), tally }
        };
        let mut families = self.run();
        families.extend(present.tally.families());
        families.extend(self.position(&present));
        families.extend(case(present.case));
        families.push(self.samples());
        families.extend(self.fill.families());
        families.extend(gates(counts::counts()));
        let reading = self.telemetry.as_ref().and_then(|telemetry| telemetry.get(FRESH));
        if let (Some(name), Some(reading)) = (&self.facts.gpu, reading) {
            families.extend(gpu::families(name, &reading));
        }
        families
    }

    fn run(&self) -> Vec<Family> {
        let facts = &self.facts;
        let values = [env!("CARGO_PKG_VERSION"), &facts.run, &facts.preset, &facts.device, &facts.machine];
        vec![
            labelled(&metrics::RUN, vec![(values.map(String::from).to_vec(), 1.0)]),
            plain(&metrics::STARTED, seconds_of(self.started)),
            plain(&metrics::CASES_PLANNED, facts.cases as f64),
        ]
    }

    fn position(&self, present: &Present) -> Vec<Family> {
        let progress = (self.progress)();
        vec![
            plain(&metrics::VISIT, present.visit as f64),
            plain(&metrics::VISITS_PLANNED, self.facts.visits as f64),
            plain(&metrics::CASE_VISITS, progress.done as f64),
            plain(&metrics::CASE_VISITS_PLANNED, progress.of as f64),
            plain(&metrics::TIME_LEFT, progress.left.map_or(f64::NAN, |left| left.as_secs_f64())),
        ]
    }

    fn samples(&self) -> Family {
        let counts = KINDS.iter().zip(&self.samples);
        labelled(
            &metrics::SAMPLES,
            counts.map(|((_, name), count)| (vec![name.to_string()], count.load(Relaxed) as f64)).collect(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Every outcome and flag that there is, so that none appears out of nothing.
    fn families(&self) -> Vec<Family> {
        let outcomes = [MEASURED].into_iter().chain(WITHOUT_TIME);
        let outcomes = outcomes.map(|name| (vec![name.to_string()], count(self.outcomes.get(name))));
        let mut counted: BTreeMap<&str, f64> =
            flags::ALL.into_iter().chain(reasons::throttling()).map(|flag| (flag, 0.0)).collect();
        counted.extend(self.flags.iter().map(|(flag, number)| (flag.as_str(), *number as f64)));
        let flagged = counted.into_iter().map(|(flag, number)| (vec![flag.to_string()], number));
        vec![labelled(&metrics::CASES, outcomes.collect()), labelled(&metrics::FLAGGED, flagged.collect())]
    }
}

fn count(number: Option<&u64>) -> f64 {
    number.copied().unwrap_or_default() as f64
}

fn case(case: Option<(String, SystemTime)>) -> Vec<Family> {
    let Some((id, since)) = case else { return Vec::new() };
    vec![labelled(&metrics::CASE, vec![(vec![id], 1.0)]), plain(&metrics::CASE_SINCE, seconds_of(since))]
}

fn gates(counts: GateCounts) -> [Family; 4] {
    [
        plain(&metrics::GATE_OPENINGS, counts.openings as f64),
        plain(&metrics::GATE_CLOSINGS, counts.closings as f64),
        plain(&metrics::GATE_OPERATIONS, counts.operations as f64),
        plain(&metrics::GATE_SELF_STOPS, counts.self_stops as f64),
    ]
}

fn plain(metric: &'static Metric, value: f64) -> Family {
    labelled(metric, vec![(Vec::new(), value)])
}

/// A family of values, each with one for every label of the metric.
fn labelled(metric: &'static Metric, values: Vec<(Vec<String>, f64)>) -> Family {
    let sample = |(labels, value): (Vec<String>, f64)| Sample {
        suffix: "",
        labels: metric.labels.iter().copied().zip(labels).collect(),
        value,
    };
    Family { metric, samples: values.into_iter().map(sample).collect() }
}

fn seconds_of(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(f64::NAN, |since| since.as_millis() as f64 / 1e3)
}

#[cfg(test)]
mod tests;
