//! Measurements of two or more sides as one comparison.

use super::environment::{self, DifferenceWeight, EnvironmentDifference, fact};
use super::record::*;
use super::rows::RowQuantity;
use super::summary::{GroupSummary, summarise_groups};
use super::verdict::VerdictRule;
use super::{ComparedRow, RowValue, SideComparison, compare_sides, words};
use crate::records::fill_verdict::{self, FillVerdict};
use crate::records::measurement::{FillOutcome, Interval, Kind};
use crate::records::{MachineRecord, Measurement};
use crate::units::counted;
use crate::{Error, Result, nearest};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One run of a side: the machine it ran on, where that is known, and its cases, each once.
#[derive(Debug, Clone)]
pub struct MeasuredRun {
    /// The machine and the run; `None` where no `machine.json` lies beside the measurements.
    pub machine: Option<MachineRecord>,
    /// The last line of every case.
    pub measurements: Vec<Measurement>,
}

/// A side of a comparison: repeated runs of one machine, or a single one.
#[derive(Debug, Clone)]
pub struct MeasuredSide {
    /// What the side is called.
    pub name: String,
    /// Its runs.
    pub runs: Vec<MeasuredRun>,
}

/// What rows are grouped by where nothing is named.
pub const BY_KIND: &str = "kind";

/// Compares measured sides with the first of them. It is an error where repeated runs are not of one machine and setting,
/// where the sides are of different machines and `across` does not say that they are meant to be, and where no case has the
/// parameter that rows are grouped by.
pub fn compare(mut sides: Vec<MeasuredSide>, options: &CompareOptions) -> Result<ComparisonRecord> {
    let names: Vec<String> = sides.iter().map(|side| side.name.clone()).collect();
    for side in &sides {
        refuse_unlike_runs(side)?;
    }
    let differences = differences(&sides.iter().map(|side| &side.runs[0]).collect::<Vec<_>>());
    refuse_unlike_sides(&differences, options)?;
    let mut record = ComparisonRecord::of(ComparedFiles::Measurements, &names, options);
    for run in sides.iter_mut().flat_map(|side| &mut side.runs) {
        run.measurements.retain(|case| options.filter.is_none_or(|filter| case.id.contains(filter)));
    }
    record.environment = environment_rows(differences);
    if let Some(filter) = options.filter
        && sides.iter().flat_map(|side| &side.runs).all(|run| run.measurements.is_empty())
    {
        return Err(no_case(filter));
    }
    let groups = Groups::of(&sides, options.group_by)?;
    let rule = VerdictRule { threshold: options.threshold, ..VerdictRule::default() };
    let rule = (!options.across).then_some(rule);
    let reference = runs_of(&sides[0]);
    let compared: Vec<SideComparison> =
        sides[1..].iter().map(|side| compare_sides(&reference, &runs_of(side), rule.as_ref())).collect();
    record.rows = join(&names, &compared);
    record.sort_rows();
    record.only = only(&names, &compared);
    record.summary = summary(&names, &compared, &groups);
    record.figures = fills(&sides);
    record.notes = notes(&sides, &compared, options);
    Ok(record)
}

pub(super) fn no_case(filter: &str) -> Error {
    Error::input(
        format!("--filter {filter}: no case has this in its name"),
        "`compare` without --filter and with --all lists the names",
    )
}

fn runs_of(side: &MeasuredSide) -> Vec<&[Measurement]> {
    side.runs.iter().map(|run| run.measurements.as_slice()).collect()
}

/// Repeated runs are of one machine with one setting: what differs between them would pass for noise.
fn refuse_unlike_runs(side: &MeasuredSide) -> Result<()> {
    let found = differences(&side.runs.iter().collect::<Vec<_>>());
    if !environment::not_repeated(&found) {
        return Ok(());
    }
    Err(Error::input(
        format!("the runs {} are no repeated runs: they differ in {}", side.name, listed(&found)),
        "join with commas only runs of one machine and setting, or compare them as sides of their own",
    ))
}

/// What differs between runs: by their machines' records, as far as there are any, and by what their lines say.
fn differences(runs: &[&MeasuredRun]) -> Vec<EnvironmentDifference> {
    let known: Vec<&MachineRecord> = runs.iter().filter_map(|run| run.machine.as_ref()).collect();
    let mut found = environment::differences(&known);
    for difference in &mut found {
        let mut told = std::mem::take(&mut difference.values).into_iter();
        difference.values = runs.iter().map(|run| run.machine.as_ref().and_then(|_| told.next().flatten())).collect();
    }
    let lines: Vec<_> = runs.iter().map(|run| what_lines_say(run)).collect();
    let mut of_lines = environment::differences_of(&lines);
    of_lines.extend(found);
    of_lines
}

/// What most of a run's lines were measured on, whatever lies beside them.
fn what_lines_say(run: &MeasuredRun) -> Vec<environment::Fact> {
    let mut devices: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for record in &run.measurements {
        *devices.entry((record.backend.name(), &record.device)).or_default() += 1;
    }
    let most = devices.into_iter().max_by_key(|(_, cases)| *cases).map(|(device, _)| device);
    vec![
        fact("measured by", most.map(|(backend, _)| backend.into()), DifferenceWeight::Unlike),
        fact("measured on", most.map(|(_, device)| device.into()), DifferenceWeight::Unlike),
    ]
}

pub(super) fn refuse_unlike_sides(found: &[EnvironmentDifference], options: &CompareOptions) -> Result<()> {
    if options.across || !environment::unlike(found) {
        return Ok(());
    }
    let unlike: Vec<EnvironmentDifference> =
        found.iter().filter(|difference| difference.weight == DifferenceWeight::Unlike).cloned().collect();
    Err(Error::input(
        format!("the sides are not alike: they differ in {}", listed(&unlike)),
        "give --across if that is what is compared: values side by side, and ratios without verdicts",
    ))
}

/// `gpu (NVIDIA A100, NVIDIA H200), driver (570, 580)`.
fn listed(differences: &[EnvironmentDifference]) -> String {
    let matters = differences.iter().filter(|difference| difference.matters());
    let one = |difference: &EnvironmentDifference| {
        let values: Vec<&str> = difference.values.iter().map(|value| value.as_deref().unwrap_or("unknown")).collect();
        format!("{} ({})", difference.what, values.join(", "))
    };
    matters.map(one).collect::<Vec<_>>().join("; ")
}

pub(super) fn environment_rows(differences: Vec<EnvironmentDifference>) -> Vec<EnvironmentRow> {
    let row = |found: EnvironmentDifference| {
        let matters = found.matters();
        EnvironmentRow { what: found.what, values: found.values, matters }
    };
    differences.into_iter().map(row).collect()
}

/// The rows of all sides: a row a case that the reference and another side have.
fn join(names: &[String], compared: &[SideComparison]) -> Vec<ComparisonRow> {
    let mut rows: Vec<ComparisonRow> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (name, side) in names[1..].iter().zip(compared) {
        for row in &side.rows {
            let place = *places.entry(&row.id).or_insert_with(|| {
                rows.push(row_of(row, &names[0]));
                rows.len() - 1
            });
            rows[place].values.push(value(name, row.other.as_ref(), row.quantity));
            rows[place].ratios.push(ratio(name, row));
        }
    }
    rows
}

fn row_of(row: &ComparedRow, reference: &str) -> ComparisonRow {
    ComparisonRow {
        id: row.id.clone(),
        kind: kind_name(row.kind).into(),
        quantity: match row.quantity {
            RowQuantity::Time => ComparedQuantity::Time,
            RowQuantity::Slowdown => ComparedQuantity::Slowdown,
        },
        values: vec![value(reference, row.reference.as_ref(), row.quantity)],
        ratios: Vec::new(),
    }
}

/// The word that records spell.
const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Operation => "operation",
        Kind::Layer => "layer",
        Kind::Collective => "collective",
        Kind::Corun => "corun",
        Kind::Fill => "fill",
        Kind::End => "end",
    }
}

fn value(name: &str, value: Option<&RowValue>, quantity: RowQuantity) -> SideValue {
    let time = value.filter(|_| quantity == RowQuantity::Time);
    let slowdown = value.filter(|_| quantity == RowQuantity::Slowdown).map(|value| {
        let (low, high) = value.interval.unwrap_or((value.median, value.median));
        Interval { median: value.median, low, high }
    });
    SideValue {
        name: name.into(),
        median_ns: time.map(|time| time.median),
        low_ns: time.and_then(|time| time.interval).map(|interval| interval.0),
        high_ns: time.and_then(|time| time.interval).map(|interval| interval.1),
        slowdown,
        samples: value.map(|value| value.samples as u64),
        runs: value.map(|value| value.runs as u64),
    }
}

fn ratio(name: &str, row: &ComparedRow) -> SideRatio {
    let reason = match (&row.set_apart, &row.judged) {
        (Some(why), _) => Some(words::set_apart(why)),
        (None, judged) => judged.as_ref().and_then(words::reason),
    };
    SideRatio {
        name: name.into(),
        ratio: row.plain_ratio().filter(|ratio| ratio.is_finite()),
        low: row.ratio.map(|ratio| ratio.low),
        high: row.ratio.map(|ratio| ratio.high),
        verdict: row.judged.map(|judged| judged.verdict),
        reason,
        set_apart: row.set_apart.is_some(),
    }
}

/// Cases of the reference that no other side has, and of each other side those that the reference lacks.
fn only(names: &[String], compared: &[SideComparison]) -> Vec<OnlyIn> {
    let mut alone: Option<BTreeSet<&str>> = None;
    for side in compared {
        let lacking: BTreeSet<&str> = side.only_reference.iter().map(String::as_str).collect();
        alone = Some(alone.map_or(lacking.clone(), |known| known.intersection(&lacking).copied().collect()));
    }
    let alone = alone.unwrap_or_default();
    let ordered = compared.first().map(|side| side.only_reference.iter()).into_iter().flatten();
    let of_reference = ordered.filter(|id| alone.contains(id.as_str())).cloned().collect();
    let mut only = vec![OnlyIn { name: names[0].clone(), ids: of_reference }];
    only.extend(
        names[1..].iter().zip(compared).map(|(name, side)| OnlyIn { name: name.clone(), ids: side.only_other.clone() }),
    );
    only.retain(|side| !side.ids.is_empty());
    only
}

/// Which group each case belongs to.
struct Groups<'a> {
    by: &'a str,
    of: HashMap<String, String>,
}

impl<'a> Groups<'a> {
    /// It is an error where no case has the parameter.
    fn of(sides: &[MeasuredSide], by: &'a str) -> Result<Self> {
        let records = || sides.iter().flat_map(|side| &side.runs).flat_map(|run| &run.measurements);
        if by == BY_KIND {
            return Ok(Groups { by, of: HashMap::new() });
        }
        let value = |record: &Measurement| record.params.get(by).map(text_of);
        let of: HashMap<String, String> =
            records().filter_map(|record| Some((record.id.clone(), value(record)?))).collect();
        if of.is_empty() && records().next().is_some() {
            let mut known: BTreeSet<&str> =
                records().flat_map(|record| record.params.keys()).map(String::as_str).collect();
            known.insert(BY_KIND);
            return Err(Error::input(format!("no case has `{by}` to be grouped by"), nearest::cure(by, known)));
        }
        Ok(Groups { by, of })
    }

    fn key(&self, row: &ComparedRow) -> String {
        match self.by {
            BY_KIND => kind_name(row.kind).into(),
            by => format!("{by} {}", self.of.get(&row.id).map_or("–", String::as_str)),
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn summary(names: &[String], compared: &[SideComparison], groups: &Groups) -> Vec<GroupRow> {
    let mut rows = Vec::new();
    for (name, side) in names[1..].iter().zip(compared) {
        let mut found = summarise_groups(&side.rows, |row| groups.key(row));
        found.sort_by(|a, b| numbers_first(&a.group).total_cmp(&numbers_first(&b.group)));
        let all = summarise_groups(&side.rows, |_| ALL_ROWS.into());
        let all = all.into_iter().filter(|_| found.len() != 1);
        rows.extend(found.iter().cloned().chain(all).map(|group| group_row(name, group)));
    }
    rows
}

/// The number at the end of a group's name, by which groups are ordered; those without one stand behind.
fn numbers_first(group: &str) -> f64 {
    group.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::INFINITY)
}

fn group_row(name: &str, group: GroupSummary) -> GroupRow {
    let interval = group.mean.and_then(|mean| mean.interval);
    GroupRow {
        name: name.into(),
        group: group.group,
        rows: group.rows as u64,
        same: group.same as u64,
        faster: group.faster as u64,
        slower: group.slower as u64,
        unsure: group.unsure as u64,
        set_apart: group.set_apart as u64,
        geometric_mean_ratio: group.mean.map(|mean| mean.ratio),
        low: interval.map(|interval| interval.0),
        high: interval.map(|interval| interval.1),
    }
}

/// What filled stages did on each side, and what had been predicted of them.
fn fills(sides: &[MeasuredSide]) -> Vec<FigureRow> {
    let mut rows: BTreeMap<(String, usize), FigureRow> = BTreeMap::new();
    for side in sides {
        // Of repeated runs the last one's: a prediction belongs to its run.
        let Some(run) = side.runs.last() else { continue };
        // A noise floor is no stage of its own: it is in the verdicts.
        let stages = run.measurements.iter().filter(|record| !fill_verdict::is_nothing(&record.id));
        for (record, fill) in stages.filter_map(|record| Some((record, record.fill.as_ref()?))) {
            let nothing = fill_verdict::nothing_of(&run.measurements, &record.id);
            for (place, (what, unit, figure)) in fill_figures(fill, nothing).into_iter().enumerate() {
                let row = rows.entry((record.id.clone(), place)).or_insert_with(|| FigureRow {
                    id: record.id.clone(),
                    what: what.into(),
                    unit: unit.into(),
                    values: Vec::new(),
                });
                row.values.push(SideFigure { name: side.name.clone(), ..figure });
            }
        }
    }
    rows.into_values().collect()
}

fn fill_figures(fill: &FillOutcome, nothing: Option<&Interval>) -> [(&'static str, &'static str, SideFigure); 4] {
    let figure = |value: Option<f64>, interval: Option<&Interval>, predicted: f64| SideFigure {
        name: String::new(),
        value,
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
        predicted: Some(predicted),
        text: None,
    };
    let verdict = FillVerdict::judge(&fill.main_slowdown, nothing).words();
    let stop = Some(&fill.stop_latency_ns).filter(|_| fill.bubbles_opened > 0);
    [
        (
            "main_slowdown",
            "ratio",
            figure(Some(fill.main_slowdown.median), Some(&fill.main_slowdown), fill.predicted_main_slowdown),
        ),
        ("verdict", "text", SideFigure { text: Some(verdict.into()), predicted: None, ..figure(None, None, 0.0) }),
        ("bubble_used", "percent", figure(Some(fill.bubble_used_percent), None, fill.predicted_bubble_used_percent)),
        ("stop_latency", "ns", figure(stop.map(|stop| stop.median), stop, fill.predicted_stop_latency_ns)),
    ]
}

fn notes(sides: &[MeasuredSide], compared: &[SideComparison], options: &CompareOptions) -> Vec<String> {
    let mut notes = Vec::new();
    let once: Vec<&str> = sides.iter().filter(|side| side.runs.len() < 2).map(|side| side.name.as_str()).collect();
    if !once.is_empty() && !options.across {
        let all = if once.len() == sides.len() { "each side" } else { &once.join(", ") };
        notes.push(format!(
            "One run of {all}: how runs differ is not known, so intervals are narrower than the truth. Repeated runs, joined by commas (a1,a2,a3), tell it."
        ));
    }
    let rows = || compared.iter().flat_map(|side| &side.rows);
    let visited_once = rows().filter(|row| row.drifts_unseen).count();
    if visited_once > 0 {
        notes.push(format!(
            "{} of the host visited once in a run: drift between visits is not seen, and on a shared machine it is often larger than the threshold.",
            counted(visited_once, "row")
        ));
    }
    for side in sides {
        let unknown = side.runs.iter().filter(|run| run.machine.is_none()).count();
        if unknown > 0 {
            notes.push(format!(
                "{}: no machine.json lies beside the measurements, so what its machine is like is not known.",
                side.name
            ));
        }
        notes.extend(several_devices(side));
    }
    if rows().next().is_none() {
        notes.push("The sides have no case in common.".into());
    }
    notes
}

/// A folder is of one machine; lines of several devices were put together by hand.
fn several_devices(side: &MeasuredSide) -> Option<String> {
    let mut devices: BTreeMap<&str, usize> = BTreeMap::new();
    for record in side.runs.iter().flat_map(|run| &run.measurements) {
        *devices.entry(&record.device).or_default() += 1;
    }
    let told: Vec<String> =
        devices.iter().map(|(device, cases)| format!("{device} ({})", counted(cases, "case"))).collect();
    (devices.len() > 1).then(|| format!("{} holds measurements of several devices: {}.", side.name, told.join(", ")))
}
