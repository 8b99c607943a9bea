//! The rows of two sides: records of the same case put side by side, and those that get no verdict set apart.

use super::sample::RunTimes;
use crate::records::measurement::{Backend, Interval, Kind};
use crate::records::{Measurement, flags};
use std::collections::BTreeMap;

/// The event clock of a GPU tells times apart that lie half a microsecond apart (CUDA Runtime API,
/// `cudaEventElapsedTime`); many are finer, which the samples show.
const EVENT_TICK_NS: f64 = 500.0;
/// Reasons of a throttling GPU that say that something is wrong with it. A power cap, by the driver or the board, is how
/// large products always run, and the row's cycles tell it.
const FORCED_DOWN: [&str; 4] = ["hw-slowdown", "sw-thermal-slowdown", "hw-thermal-slowdown", "hw-power-brake"];
/// Flags that make a time another quantity: rows of which only one side has one are not of the same thing.
const OTHER_QUANTITY: [&str; 6] = [
    flags::OTHER_PROCESSES,
    flags::UNBLOCKED,
    flags::CACHE_LARGER_THAN_ROTATION,
    flags::OVERSUBSCRIBED,
    flags::SHARED_GPU,
    flags::ONE_CONNECTION,
];

/// What of a row is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowQuantity {
    /// Time of one operation, in nanoseconds.
    Time,
    /// Slowdown of the main by its side, a ratio. Pairs are made for it: what drifts is in both halves of a pair.
    Slowdown,
}

/// One case's records on both sides, a record a run.
#[derive(Debug, Clone)]
pub struct JoinedRow<'a> {
    /// The case's path.
    pub id: &'a str,
    /// What the case measures.
    pub kind: Kind,
    /// The reference's records.
    pub reference: Vec<&'a Measurement>,
    /// The other side's records.
    pub other: Vec<&'a Measurement>,
}

/// The rows of both sides, in the reference's order, and the names of those that only one side has.
#[derive(Debug, Clone, Default)]
pub struct JoinedRows<'a> {
    /// Rows that both sides have.
    pub rows: Vec<JoinedRow<'a>>,
    /// Cases of the reference alone.
    pub only_reference: Vec<&'a str>,
    /// Cases of the other side alone.
    pub only_other: Vec<&'a str>,
}

/// Why a row gets no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetApart {
    /// A result was wrong.
    Wrong,
    /// Measured on the software device.
    Software,
    /// Made from another tool's output.
    Imported,
    /// A GPU was throttled by heat, by its power supply or by its hardware, or left no sample that was not.
    Throttled,
    /// A side has no time.
    NoTime,
    /// The sides measured different things: the flag that only one of them has, or `cache` or `launch`.
    Unlike(String),
}

/// Puts records of the same case side by side. Each side is a list of runs.
pub fn join_rows<'a>(reference: &[&'a [Measurement]], other: &[&'a [Measurement]]) -> JoinedRows<'a> {
    let (reference, mut other) = (by_id(reference), by_id(other));
    let mut joined = JoinedRows::default();
    for (id, records) in in_order(reference) {
        match other.remove(id) {
            Some((_, theirs)) => {
                joined.rows.push(JoinedRow { id, kind: records[0].kind, reference: records, other: theirs })
            }
            None => joined.only_reference.push(id),
        }
    }
    joined.only_other = in_order(other).into_iter().map(|(id, _)| id).collect();
    joined
}

type ById<'a> = BTreeMap<&'a str, (usize, Vec<&'a Measurement>)>;

/// The records of every case, one a run, with the place at which the case was first seen.
fn by_id<'a>(runs: &[&'a [Measurement]]) -> ById<'a> {
    let mut cases = ById::new();
    for run in runs {
        for record in run.iter().filter(|record| record.kind != Kind::End) {
            let place = cases.len();
            cases.entry(&record.id).or_insert((place, Vec::new())).1.push(record);
        }
    }
    cases
}

fn in_order<'a>(cases: ById<'a>) -> Vec<(&'a str, Vec<&'a Measurement>)> {
    let mut ordered: Vec<_> = cases.into_iter().map(|(id, (place, records))| (place, id, records)).collect();
    ordered.sort_by_key(|(place, ..)| *place);
    ordered.into_iter().map(|(_, id, records)| (id, records)).collect()
}

impl JoinedRow<'_> {
    /// Why the row gets no verdict; `None` where it gets one.
    pub fn set_apart(&self) -> Option<SetApart> {
        let either = |flag: &str| self.reference.iter().chain(&self.other).any(|record| record.has_flag(flag));
        let timed = |records: &[&Measurement]| records.iter().any(|record| record.median_ns.is_some());
        if either(flags::WRONG) {
            Some(SetApart::Wrong)
        } else if either(flags::SOFTWARE) {
            Some(SetApart::Software)
        } else if either(flags::IMPORTED) {
            Some(SetApart::Imported)
        } else if either(flags::THROTTLED) || FORCED_DOWN.into_iter().any(either) {
            Some(SetApart::Throttled)
        } else if !timed(&self.reference) || !timed(&self.other) {
            Some(SetApart::NoTime)
        } else {
            self.unlike().map(|what| SetApart::Unlike(what.to_string()))
        }
    }

    /// What makes the row's records measurements of different things.
    fn unlike(&self) -> Option<&'static str> {
        let all = || self.reference.iter().chain(&self.other);
        let first = self.reference[0];
        if all().any(|record| record.backend != first.backend) {
            return Some("backend");
        }
        if all().any(|record| record.cache != first.cache) {
            return Some("cache");
        }
        if all().any(|record| record.launch != first.launch) {
            return Some("launch");
        }
        OTHER_QUANTITY.into_iter().find(|flag| all().any(|record| record.has_flag(flag) != first.has_flag(flag)))
    }

    /// What is compared: the slowdown of pairs and filled stages, of everything else the time.
    pub fn quantity(&self) -> RowQuantity {
        let has_slowdown = |records: &[&Measurement]| records.iter().any(|record| record.slowdown.is_some());
        if has_slowdown(&self.reference) && has_slowdown(&self.other) {
            RowQuantity::Slowdown
        } else {
            RowQuantity::Time
        }
    }

    /// Whether the row is a GPU's.
    pub fn on_gpu(&self) -> bool {
        self.reference.iter().chain(&self.other).any(|record| record.backend == Backend::Cuda)
    }
}

/// The times, or the slowdowns, of the runs that have one.
pub fn run_times<'a>(records: &[&'a Measurement], quantity: RowQuantity) -> Vec<RunTimes<'a>> {
    let of = |record: &&'a Measurement| match quantity {
        RowQuantity::Time => record.median_ns.map(|median_ns| times_of(record, median_ns)),
        RowQuantity::Slowdown => record.slowdown.map(|slowdown| slowdown_of(record, slowdown)),
    };
    records.iter().filter_map(of).collect()
}

fn times_of(record: &Measurement, median_ns: f64) -> RunTimes<'_> {
    let on_gpu = record.backend == Backend::Cuda;
    RunTimes {
        samples_ns: &record.samples_ns,
        visit_samples: record.visits.iter().flatten().map(|visit| visit.samples as usize).collect(),
        samples_behind: record.samples_total as usize,
        median_ns,
        interval_ns: record.ci95_low_ns.zip(record.ci95_high_ns),
        tick_ns: if on_gpu { EVENT_TICK_NS / record.iterations_per_sample.max(1) as f64 } else { 0.0 },
        // An unresolved clock would confirm nothing.
        sm_clock_mhz: record.sm_clock_mhz.filter(|_| !record.has_flag(flags::UNRESOLVED)),
    }
}

/// Records keep a slowdown's interval and no samples of it.
fn slowdown_of(record: &Measurement, slowdown: Interval) -> RunTimes<'_> {
    RunTimes {
        samples_ns: &[],
        visit_samples: Vec::new(),
        samples_behind: record.samples_total as usize,
        median_ns: slowdown.median,
        interval_ns: Some((slowdown.low, slowdown.high)),
        tick_ns: 0.0,
        sm_clock_mhz: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::{Cache, Launch};

    fn record(id: &str, flags: &[&str]) -> Measurement {
        let mut record = Measurement::blank(id, Kind::Operation, Backend::Cuda);
        record.median_ns = Some(100.0);
        record.flags = flags.iter().map(|flag| flag.to_string()).collect();
        record
    }

    fn apart(reference: Measurement, other: Measurement) -> Option<SetApart> {
        join_rows(&[&[reference]], &[&[other]]).rows[0].set_apart()
    }

    #[test]
    fn rows_are_joined_by_name_in_the_references_order() {
        let (first, second) = ([record("b", &[]), record("a", &[])], [record("c", &[]), record("b", &[])]);
        let other =
            [record("d", &[]), record("c", &[]), record("b", &[]), Measurement::blank("", Kind::End, Backend::Cuda)];
        let joined = join_rows(&[&first, &second], &[&other]);
        let rows: Vec<(&str, usize, usize)> =
            joined.rows.iter().map(|row| (row.id, row.reference.len(), row.other.len())).collect();
        assert_eq!(rows, [("b", 2, 1), ("c", 1, 1)]);
        assert_eq!((joined.only_reference, joined.only_other), (vec!["a"], vec!["d"]));
    }

    #[test]
    fn rows_without_a_verdict_say_why() {
        for (flag, known) in [
            (flags::WRONG, SetApart::Wrong),
            (flags::SOFTWARE, SetApart::Software),
            (flags::IMPORTED, SetApart::Imported),
            (flags::THROTTLED, SetApart::Throttled),
            ("hw-thermal-slowdown", SetApart::Throttled),
            (flags::SHARED_GPU, SetApart::Unlike(flags::SHARED_GPU.into())),
        ] {
            assert_eq!(apart(record("a", &[]), record("a", &[flag])), Some(known.clone()), "{flag} on the other side");
            assert_eq!(apart(record("a", &[flag]), record("a", &[])), Some(known), "{flag} in the reference");
        }
        for flag in [flags::NOISY, flags::CAPPED, flags::UNRESOLVED, "sw-power-cap"] {
            assert_eq!(apart(record("a", &[]), record("a", &[flag])), None, "{flag}");
        }
        assert_eq!(apart(record("a", &[flags::SHARED_GPU]), record("a", &[flags::SHARED_GPU])), None, "both share");
        let untimed = Measurement { median_ns: None, ..record("a", &[flags::SKIPPED]) };
        assert_eq!(apart(record("a", &[]), untimed), Some(SetApart::NoTime));
    }

    #[test]
    fn cold_rows_are_not_held_against_warm_ones() {
        let cold = Measurement { cache: Some(Cache::Cold), ..record("a", &[]) };
        let warm = Measurement { cache: Some(Cache::Warm), ..record("a", &[]) };
        let graph = Measurement { launch: Some(Launch::Graph), ..cold.clone() };
        assert_eq!(apart(cold.clone(), warm), Some(SetApart::Unlike("cache".into())));
        assert_eq!(apart(cold, graph), Some(SetApart::Unlike("launch".into())));
    }

    #[test]
    fn pairs_are_compared_by_their_slowdown() {
        let slowdown = Some(Interval { median: 1.4, low: 1.3, high: 1.5 });
        let pair = Measurement { slowdown, samples_total: 8, ..record("a", &[]) };
        let (pairs, others) = ([pair], [record("a", &[])]);
        let joined = join_rows(&[&pairs], &[&pairs]);
        assert_eq!(joined.rows[0].quantity(), RowQuantity::Slowdown);
        let times = run_times(&joined.rows[0].reference, RowQuantity::Slowdown);
        assert_eq!((times[0].median_ns, times[0].interval_ns, times[0].samples_behind), (1.4, Some((1.3, 1.5)), 8));
        assert_eq!(join_rows(&[&pairs], &[&others]).rows[0].quantity(), RowQuantity::Time);
    }

    #[test]
    fn a_clock_that_is_not_resolved_confirms_nothing() {
        let clocked = |flags: &[&str]| [Measurement { sm_clock_mhz: Some(1980.0), ..record("a", flags) }];
        let clock_of =
            |records: &[Measurement]| run_times(&records.iter().collect::<Vec<_>>(), RowQuantity::Time)[0].sm_clock_mhz;
        assert_eq!(clock_of(&clocked(&[])), Some(1980.0));
        assert_eq!(clock_of(&clocked(&[flags::UNRESOLVED])), None);
    }
}
