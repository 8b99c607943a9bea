//! Which times no GPU can have taken: what a unit mistaken looks like.
//!
//! The bounds are wide on purpose. A small operation that waits for its launch passes, and of a GPU whose data sheet is not
//! known anything that is not absurd. A time in the wrong unit, a thousand times too short or too long, passes only there.

use super::table::Row;
use crate::Result;
use crate::cost::datasheet;
use crate::records::measurement::Interval;
use crate::shape::DType;
use crate::units::significant;

/// What a piece of work cannot be faster or slower than.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of the work, per second.
    most_per_s: f64,
    least_per_s: f64,
    /// Time that launching may add, in nanoseconds.
    overhead_ns: f64,
    /// The unit of the work per second, and how much of it one of that unit is.
    unit: (&'static str, f64),
    /// The GPU whose data sheet they are from; `None` for any GPU's.
    device: Option<&'static str>,
}

/// How far above its data sheet's peak a figure may lie: cards for games accumulate in 16 bits at twice the rate, and clocks are
/// boosted.
const ABOVE_PEAK: f64 = 2.5;
/// Which part of the peak is less than anything that is worth timing: a product of one row, bound by the memory, reaches a
/// hundredth and more.
const LEAST_OF_PEAK: f64 = 1.0 / 500.0;

impl Bounds {
    /// Of products in this element type. Without a data sheet: the fastest promise half of these figures without sparsity.
    pub(super) fn flop(dtype: DType, gpu: &str) -> Bounds {
        let full = dtype.bytes() > 2;
        let any = if full { (2e15, 2e10) } else { (5e15, 2e10) };
        let sheet = datasheet::of_device(gpu);
        let (most_per_s, least_per_s) = sheet.map_or(any, |sheet| {
            // f32 may run on the tensor cores, at half of their 16-bit rate.
            let least = if full { sheet.f32_tflops } else { sheet.tensor_tflops };
            let most = if full { sheet.f32_tflops.max(0.5 * sheet.tensor_tflops) } else { sheet.tensor_tflops };
            (ABOVE_PEAK * 1e12 * most, LEAST_OF_PEAK * 1e12 * least)
        });
        let device = sheet.map(|sheet| sheet.device);
        Bounds { most_per_s, least_per_s, overhead_ns: 2e6, unit: ("TFLOP/s", 1e12), device }
    }

    /// Of bytes that one device reads and writes, its cache included.
    pub(super) fn memory(gpu: &str) -> Bounds {
        let sheet = datasheet::of_device(gpu);
        let least_per_s = sheet.map_or(2e9, |sheet| LEAST_OF_PEAK * 1e9 * sheet.memory_gb_per_s);
        let device = sheet.map(|sheet| sheet.device);
        Bounds { most_per_s: 5e13, least_per_s, overhead_ns: 2e6, unit: ("GB/s", 1e9), device }
    }

    /// Of a message between ranks.
    pub(super) const fn message() -> Bounds {
        Bounds { most_per_s: 5e12, least_per_s: 2e7, overhead_ns: 1e8, unit: ("GB/s", 1e9), device: None }
    }

    /// Refuses a row whose time for so much work lies outside; `unit` is that of the column.
    pub(super) fn hold(&self, row: &Row, column: &str, unit: &str, time: Interval, work: f64) -> Result<()> {
        let per_s = 1e9 * work / time.median;
        let slowest_ns = self.overhead_ns + 1e9 * work / self.least_per_s;
        let why = match (per_s > self.most_per_s, time.median > slowest_ns) {
            (true, _) => "more",
            (_, true) => "less",
            _ => return Ok(()),
        };
        let whose = self.device.map_or("any GPU does".to_string(), |device| format!("the {device} does"));
        let (name, size) = self.unit;
        let given = row.text(column).unwrap_or_default();
        Err(row.refused(
            format_args!("{column} {given} would be {} {name}, {why} than {whose}", significant(per_s / size)),
            format!("is {column} in {unit}, and are the sizes of the row those of what was timed?"),
        ))
    }
}
