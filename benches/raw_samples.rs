//! Criterion's measured samples on their way to the records.
//!
//! Criterion asks a `Measurement` for the number behind a value ([`Measurement::to_f64`]) for measured samples only, not
//! for the warm-up: whatever passes there is what Criterion itself reports on, so exactly that is recorded.

use bubblebench::suite::RawSample;
use bubblebench::units::format_ns;
use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};
use std::cell::RefCell;
use std::rc::Rc;

/// One batch as Criterion asked for it.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub samples: Vec<RawSample>,
    pub iterations: u64,
}

/// Keeps what Criterion measured.
#[derive(Debug, Clone, Default)]
pub struct RawSamples {
    measured: Rc<RefCell<Vec<RawSample>>>,
}

impl RawSamples {
    pub fn take(&self) -> Vec<RawSample> {
        self.measured.take()
    }
}

impl Measurement for RawSamples {
    type Intermediate = ();
    type Value = Batch;

    fn start(&self) {}

    /// Cases are timed by their own clocks through `iter_custom`; Criterion's stopwatch is never used.
    fn end(&self, (): ()) -> Batch {
        Batch::default()
    }

    fn add(&self, a: &Batch, b: &Batch) -> Batch {
        let samples = a.samples.iter().chain(&b.samples).cloned().collect();
        Batch { samples, iterations: a.iterations + b.iterations }
    }

    fn zero(&self) -> Batch {
        Batch::default()
    }

    fn to_f64(&self, batch: &Batch) -> f64 {
        self.measured.borrow_mut().extend(batch.samples.iter().cloned());
        let (ns, done) = batch.samples.iter().fold((0.0, 0), |(ns, n), s| (ns + s.ns, n + s.iterations));
        // Trials a case threw away (throttled, no overlap) count as long as the others; with none left, one
        // nanosecond keeps Criterion from aborting on zero.
        if done == 0 { 1.0 } else { (ns / done as f64 * batch.iterations as f64).max(1.0) }
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Nanoseconds
    }
}

#[derive(Debug)]
struct Nanoseconds;

impl ValueFormatter for Nanoseconds {
    fn format_value(&self, value: f64) -> String {
        format_ns(value)
    }

    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (divisor, unit) = match typical {
            t if t < 1e3 => (1.0, "ns"),
            t if t < 1e6 => (1e3, "µs"),
            t if t < 1e9 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        values.iter_mut().for_each(|value| *value /= divisor);
        unit
    }

    fn scale_throughputs(&self, typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let _ = typical;
        match throughput {
            // FLOP per nanosecond are GFLOP/s, bytes per nanosecond GB/s.
            Throughput::Elements(flop) => {
                values.iter_mut().for_each(|value| *value = *flop as f64 / *value);
                "GFLOP/s"
            }
            Throughput::Bytes(bytes) | Throughput::BytesDecimal(bytes) => {
                values.iter_mut().for_each(|value| *value = *bytes as f64 / *value);
                "GB/s"
            }
            _ => "1/ns",
        }
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "ns"
    }
}
