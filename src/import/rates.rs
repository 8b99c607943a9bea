//! Which times no GPU can have taken: what a unit mistaken looks like.
//!
//! The bounds are wide on purpose. A GPU that is faster than all of today's, or a small operation that waits for its launch,
//! passes; a time in seconds, or of a whole model, does not.

use super::table::Row;
use crate::Result;
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
}

impl Bounds {
    /// Of products in this element type. The fastest data sheets promise half of these figures without sparsity.
    pub(super) const fn flop(dtype: DType) -> Bounds {
        let most_per_s = if dtype.bytes() > 2 { 2e15 } else { 5e15 };
        Bounds { most_per_s, least_per_s: 2e10, overhead_ns: 2e6, unit: ("TFLOP/s", 1e12) }
    }

    /// Of bytes that one device reads and writes, its cache included.
    pub(super) const fn memory() -> Bounds {
        Bounds { most_per_s: 5e13, least_per_s: 2e9, overhead_ns: 2e6, unit: ("GB/s", 1e9) }
    }

    /// Of a message between ranks.
    pub(super) const fn message() -> Bounds {
        Bounds { most_per_s: 5e12, least_per_s: 2e7, overhead_ns: 1e8, unit: ("GB/s", 1e9) }
    }

    /// Refuses a row whose time for so much work lies outside; `unit` is that of the column.
    pub(super) fn hold(&self, row: &Row, column: &str, unit: &str, time: Interval, work: f64) -> Result<()> {
        let per_s = 1e9 * work / time.median;
        let slowest_ns = self.overhead_ns + 1e9 * work / self.least_per_s;
        let why = match (per_s > self.most_per_s, time.median > slowest_ns) {
            (true, _) => "more than any GPU does",
            (_, true) => "less than any GPU does",
            _ => return Ok(()),
        };
        let (name, size) = self.unit;
        let given = row.text(column).unwrap_or_default();
        Err(row.refused(
            format_args!("{column} {given} would be {} {name}, {why}", significant(per_s / size)),
            format!("is {column} in {unit}, and are the sizes of the row those of what was timed?"),
        ))
    }
}
