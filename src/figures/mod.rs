//! What the pictures of one or more results folders show, as values: axes, series of points, heat maps, spans of time, and
//! the table of numbers behind each. Nothing is drawn and no number becomes text here: `report` does both, on the page of
//! `bubblebench report` and as the figures of a paper.
//!
//! `cli` reads the folders into [`ReportSide`]s and calls [`all`], which asks every file below for its figures:
//!
//! | file | figures |
//! |---|---|
//! | [`layers`] | time of a layer by shape and phase |
//! | [`roofline`] | every operation under the roof of its machine |
//! | [`collectives`] | time and bus bandwidth over message size, with the fit |
//! | [`corun`] | slowdown of every main beside every side |
//! | [`additivity`] | layers against the sum of their operations |
//! | [`stage`] | a filled pipeline stage: its work, its bubbles, the open gate |
//! | [`predicted`] | predictions against measurements, those of held-out cases apart |
//! | [`spread`] | how samples scatter about their medians, and how a run drifts |

pub mod additivity;
pub mod chart;
pub mod collectives;
pub mod corun;
pub mod figure;
pub mod layers;
pub mod predicted;
pub mod roofline;
pub mod spread;
pub mod stage;

use crate::cost::heldout::HeldOutPart;
use crate::records::flags::{SOFTWARE, WRONG};
use crate::records::measurement::Kind;
use crate::records::{CostModel, MachineRecord, Measurement};
use crate::units::counted;
use chart::{Key, NEUTRAL, Style};
use figure::Figure;
use std::collections::{BTreeMap, BTreeSet};

/// A results folder as a report shows it.
#[derive(Debug, Clone)]
pub struct ReportSide {
    /// What the folder is called.
    pub name: String,
    /// The machine and the run; `None` where the folder does not say it.
    pub machine: Option<MachineRecord>,
    /// One record a case, those that cannot be shown left out.
    pub records: Vec<Measurement>,
    /// The cost model fitted to the records, where there are enough of them.
    pub model: Option<CostModel>,
    /// Cases predicted by fits that had not seen them; empty where none were held out.
    pub held_out: Vec<HeldOutPart>,
}

/// Times that can be true, in ns: from a thousandth of one to eleven days.
const POSSIBLE_NS: std::ops::RangeInclusive<f64> = 1e-3..=1e15;

/// Whether a record has a time that can be drawn: one that can be true, of a result that was right.
pub fn has_time(record: &Measurement) -> bool {
    record.median_ns.is_some_and(|ns| POSSIBLE_NS.contains(&ns)) && !record.has_flag(WRONG)
}

/// The records that a report shows, and a sentence on each kind that it does not: repeated names, times that are no times.
pub fn shown(mut records: Vec<Measurement>) -> (Vec<Measurement>, Vec<String>) {
    let mut notes = Vec::new();
    records.retain(|record| record.kind != Kind::End);
    let untimed = records.iter().filter(|record| record.median_ns.is_none()).count();
    if untimed > 0 {
        notes.push(format!("{} without a time: skipped, wrong or throttled", counted(untimed, "case")));
    }
    let mut leave_out = |what: &str, is: &dyn Fn(&Measurement) -> bool| {
        let Some(first) = records.iter().find(|record| is(record)).map(|record| record.id.clone()) else { return };
        let before = records.len();
        records.retain(|record| !is(record));
        notes.push(format!("{} {what}, `{first}` first: left out", counted(before - records.len(), "case")));
    };
    leave_out("of a wrong result that have a time", &|r| r.median_ns.is_some() && r.has_flag(WRONG));
    leave_out("whose time cannot be", &|r| r.median_ns.is_some_and(|ns| ns != 0.0 && !POSSIBLE_NS.contains(&ns)));
    let none = records.iter().filter(|record| record.median_ns == Some(0.0)).count();
    if none > 0 {
        notes.push(format!("{} that took no time, too little to be told from none: not drawn", counted(none, "case")));
    }
    let usual = usual_device(&records);
    if let Some(device) = records.iter().find(|record| record.device != usual).map(|record| record.device.clone()) {
        let before = records.len();
        records.retain(|record| record.device == usual);
        let count = counted(before - records.len(), "case");
        notes.push(format!("{count} of another device ({device}) than most: left out"));
    }
    let software = records.iter().filter(|record| record.has_flag(SOFTWARE)).count();
    if software > 0 {
        notes.push(format!("{} of the software device, whose times mean nothing", counted(software, "case")));
    }
    (records, notes)
}

/// The device that most of the records were measured on.
fn usual_device(records: &[Measurement]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    records.iter().for_each(|record| *counts.entry(&record.device).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map_or_else(String::new, |(device, _)| device.into())
}

/// Every figure that the sides have numbers for, in the order in which a report shows them.
pub fn all(sides: &[ReportSide]) -> Vec<Figure> {
    let mut figures = Vec::new();
    figures.extend(layers::figure(sides));
    figures.extend(roofline::figure(sides));
    figures.extend(collectives::figures(sides));
    figures.extend(corun::figures(sides));
    figures.extend(stage::figures(sides));
    figures.extend(additivity::figure(sides));
    figures.extend(predicted::figures(sides));
    figures.extend(spread::samples(sides));
    figures.extend(spread::drift(sides));
    // Sides whose names differ in signs only have figures of one name.
    let mut seen = BTreeSet::new();
    figures.iter_mut().for_each(|figure| figure.name = figure::distinct(&mut seen, &figure.name, ""));
    figures
}

/// What tells the marks of several sides and kinds apart: a colour a side, a shape a kind. Empty for one side, whose series have
/// names enough.
fn keys(sides: &[ReportSide], kinds: &[&str]) -> Vec<Key> {
    if sides.len() < 2 {
        return Vec::new();
    }
    let side = |(index, side): (usize, &ReportSide)| Key {
        name: side.name.clone(),
        colour: index,
        shape: 0,
        style: marks_of(index, sides),
    };
    let kind =
        |(shape, name): (usize, &&str)| Key { name: (*name).into(), colour: NEUTRAL, shape, style: Style::Marks };
    sides.iter().enumerate().map(side).chain(kinds.iter().enumerate().map(kind)).collect()
}

/// What a caption adds where a picture leaves some out.
fn rest(left_out: usize, what: &str) -> String {
    if left_out > 0 { format!(" {} more {what} are in the numbers only.", left_out) } else { String::new() }
}

/// `name`, with the side's behind it where there are several.
fn with_side(name: impl Into<String>, side: &ReportSide, sides: &[ReportSide]) -> String {
    let name = name.into();
    match sides {
        [_] => name,
        _ if name.is_empty() => side.name.clone(),
        _ => format!("{name}, {}", side.name),
    }
}

/// Marks of a side where its colour is all that tells it from another in the same shape: every other side's are hollow, which
/// shows in grey print.
fn marks_of(side: usize, sides: &[ReportSide]) -> Style {
    if sides.len() > 1 && side % 2 == 1 { Style::Hollow } else { Style::Marks }
}

/// At most so many of a list, evenly spaced and both ends among them.
fn evenly<T: Clone>(list: &[T], most: usize) -> Vec<T> {
    match list.len() {
        n if n <= most || most < 2 => list.to_vec(),
        n => (0..most).map(|k| list[k * (n - 1) / (most - 1)].clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::Backend;

    #[test]
    fn times_that_are_none_are_left_out_and_told() {
        let case = |id: &str, ns: Option<f64>| {
            let mut record = Measurement::blank(id, Kind::Operation, Backend::Host);
            record.median_ns = ns;
            record
        };
        let given = vec![case("a", Some(1.0)), case("b", Some(-1.0)), case("c", None), case("d", Some(f64::INFINITY))];
        let (kept, notes) = shown(given);
        assert_eq!(kept.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(notes.len(), 2);
        assert!(
            notes[0].starts_with("1 case without a time") && notes[1].starts_with("2 cases whose time"),
            "{notes:?}"
        );
        assert!(notes[1].contains("`b` first"));
    }

    #[test]
    fn a_folder_of_two_devices_shows_the_one_with_more() {
        let case = |id: &str, device: &str| {
            let mut record = Measurement::blank(id, Kind::Operation, Backend::Host);
            (record.median_ns, record.device) = (Some(1.0), device.into());
            record
        };
        let (kept, notes) = shown(vec![case("a", "one"), case("b", "other"), case("c", "one")]);
        assert_eq!(kept.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(notes, ["1 case of another device (other) than most: left out"]);
    }

    #[test]
    fn a_long_list_keeps_its_ends() {
        let list: Vec<usize> = (0..1000).collect();
        let few = evenly(&list, 10);
        assert_eq!((few.len(), few[0], few[9]), (10, 0, 999));
        assert_eq!(evenly(&list[..5], 10).len(), 5);
    }
}
