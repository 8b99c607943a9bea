//! The bubbles of a stage with the side work in them. A long iteration has millions of them, so each takes a few dozen bytes
//! here: what a stage holds is one of few levels, and all runs of side work stand in one list.

use super::overrun::{Part, TrueEnd, Variation};
use super::pack::{RunLists, SideRun, Slot};
use crate::pipeline::BubbleKind;
use crate::records::bubbles::BubbleClass;

/// What a stage holds at some moment, and what is free then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryLevel {
    /// Activations that the stage holds, in micro-batches.
    pub live_micro_batches: f64,
    /// Memory free, in bytes, beyond what the main job holds and the headroom; `None` where the GPU's memory is not known.
    pub free_bytes: Option<f64>,
}

/// A bubble, the memory free in it, and the side work that was put there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned<'a> {
    /// When the bubble begins, in ns from the beginning of the iteration.
    pub start_ns: u64,
    /// When the bubble is expected to end, in ns from the beginning of the iteration; where its length varies, by the median.
    pub end_ns: u64,
    /// Where in the schedule the bubble lies.
    pub kind: BubbleKind,
    /// What the stage holds during the bubble.
    pub level: MemoryLevel,
    /// What a measured bubble waits for; `None` for a simulated one.
    pub class: Option<BubbleClass>,
    /// How its length varies; `None` where that is not known.
    pub variation: Option<Variation<'a>>,
    /// Side work in the bubble, in order of time.
    pub runs: &'a [SideRun],
}

impl<'a> Planned<'a> {
    /// How long the bubble lasts, in ns.
    pub const fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }

    /// The bubble as the planner fills it: as long as the gate opens for it.
    pub fn slot(&self) -> Slot<'a> {
        let expected_ns = self.variation.map_or(self.length_ns(), |v| v.expected_ns.min(self.length_ns()));
        Slot {
            start_ns: self.start_ns,
            end_ns: self.start_ns + expected_ns,
            free_bytes: self.level.free_bytes,
            receiving: self.is_receiving(),
            true_end: self.true_end(),
        }
    }

    /// When it truly ends, as seen from the time until which the gate opens; `None` where nothing is known of how its length varies.
    /// That it does not is known too.
    pub fn true_end(&self) -> Option<TrueEnd<'a>> {
        let Variation { expected_ns, deviation_ns, parts } = self.variation?;
        let later_ns = self.length_ns().saturating_sub(expected_ns) as f64;
        Some(TrueEnd { later_ns, deviation_ns, parts })
    }

    /// Whether the main job waits in a receive meanwhile. Behind the last operation nothing is received any more; a measured
    /// bubble has a class that says so.
    pub fn is_receiving(&self) -> bool {
        match self.class {
            Some(class) => class == BubbleClass::Dependency,
            None => self.kind != BubbleKind::Tail,
        }
    }

    /// Whether another of its runs is before this one.
    pub fn is_behind(&self, run: &SideRun) -> bool {
        self.runs.first().is_some_and(|first| first.start_ns < run.start_ns)
    }

    /// Whether side work may go into the bubble at all.
    pub fn is_fillable(&self) -> bool {
        self.class.is_none_or(BubbleClass::is_fillable)
    }
}

/// Bubbles of a stage in order of time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BubbleList {
    places: Vec<Place>,
    levels: Vec<MemoryLevel>,
    variations: Vec<OwnVariation>,
    runs: Vec<SideRun>,
}

/// How many levels, or variations, back a bubble's own is looked for.
const LOOKED_AT: usize = 16;
/// In place of the index of a variation: there is none.
const NO_VARIATION: u32 = u32::MAX;

/// A variation that owns its parts.
#[derive(Debug, Clone, PartialEq)]
struct OwnVariation {
    expected_ns: u64,
    deviation_ns: f64,
    parts: Box<[Part]>,
}

impl OwnVariation {
    fn of(variation: Variation) -> Self {
        let Variation { expected_ns, deviation_ns, parts } = variation;
        OwnVariation { expected_ns, deviation_ns, parts: parts.into() }
    }

    fn get(&self) -> Variation<'_> {
        Variation { expected_ns: self.expected_ns, deviation_ns: self.deviation_ns, parts: &self.parts }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    start_ns: u64,
    end_ns: u64,
    /// Index of its level.
    level: u32,
    /// Where its runs end in the list of all; they begin where those of the bubble before end.
    runs_end: u32,
    /// Index of its variation, or `NO_VARIATION`.
    variation: u32,
    kind: BubbleKind,
    class: Option<BubbleClass>,
}

impl BubbleList {
    /// Adds a bubble behind those there are; its `runs` are copied.
    pub fn push(&mut self, bubble: &Planned) {
        // Among the last ones only: the middle of an iteration goes back and forth between two, and where every bubble has a
        // level of its own, as in GPipe, nothing is gained by looking through all.
        let level = place_of(&mut self.levels, bubble.level);
        let variation =
            bubble.variation.map_or(NO_VARIATION, |own| place_of(&mut self.variations, OwnVariation::of(own)));
        self.runs.extend_from_slice(bubble.runs);
        let Planned { start_ns, end_ns, kind, class, .. } = *bubble;
        let runs_end = self.runs.len() as u32;
        self.places.push(Place { start_ns, end_ns, level, runs_end, variation, kind, class });
    }

    /// Takes the side work of all bubbles out and puts this in: a list of runs for each bubble that may be filled, in order.
    pub fn put(&mut self, solution: RunLists) {
        let (runs, ends) = solution.into_parts();
        self.runs = runs;
        let (mut ends, mut end) = (ends.into_iter(), 0);
        for place in &mut self.places {
            if place.class.is_none_or(BubbleClass::is_fillable) {
                end = ends.next().unwrap_or(end);
            }
            place.runs_end = end;
        }
    }

    /// The bubbles in order of time.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Planned<'_>> + ExactSizeIterator + Clone {
        (0..self.places.len()).map(|index| self.get(index))
    }

    fn get(&self, index: usize) -> Planned<'_> {
        let Place { start_ns, end_ns, level, runs_end, variation, kind, class } = self.places[index];
        let runs_start = if index == 0 { 0 } else { self.places[index - 1].runs_end };
        let runs = &self.runs[runs_start as usize..runs_end as usize];
        let variation = self.variations.get(variation as usize).map(OwnVariation::get);
        Planned { start_ns, end_ns, kind, level: self.levels[level as usize], class, variation, runs }
    }

    /// The bubbles that side work may go into, in order of time.
    pub fn fillable(&self) -> impl Iterator<Item = Planned<'_>> + Clone {
        self.iter().filter(Planned::is_fillable)
    }

    /// Side work in all bubbles, in order of time.
    pub fn runs(&self) -> &[SideRun] {
        &self.runs
    }

    /// Length of all bubbles together, in ns.
    pub fn length_ns(&self) -> u64 {
        self.places.iter().map(|place| place.end_ns - place.start_ns).sum()
    }
}

/// The index of a value among some, where it is put if it is not among the last ones.
fn place_of<T: PartialEq>(known: &mut Vec<T>, value: T) -> u32 {
    let found = (0..known.len()).rev().take(LOOKED_AT).find(|&index| known[index] == value);
    let index = found.unwrap_or(known.len());
    if found.is_none() {
        known.push(value);
    }
    index as u32
}

impl<'a> FromIterator<Planned<'a>> for BubbleList {
    fn from_iter<T: IntoIterator<Item = Planned<'a>>>(bubbles: T) -> Self {
        let mut list = BubbleList::default();
        bubbles.into_iter().for_each(|bubble| list.push(&bubble));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: SideRun = SideRun { side: 1, start_ns: 12, kernels: 2, work_ns: 5, takes_ns: 5 };

    fn planned(start_ns: u64, live: f64, class: Option<BubbleClass>) -> Planned<'static> {
        let level = MemoryLevel { live_micro_batches: live, free_bytes: Some(100.0 - live) };
        Planned { start_ns, end_ns: start_ns + 10, kind: BubbleKind::Steady, level, class, variation: None, runs: &[] }
    }

    #[test]
    fn bubbles_come_out_as_they_went_in_and_take_little_room() {
        let bubbles: Vec<_> = (0..100).map(|i| planned(20 * i, (i % 3) as f64, None)).collect();
        let list: BubbleList = bubbles.iter().copied().collect();
        assert!(list.iter().eq(bubbles.iter().copied()));
        assert_eq!((list.levels.len(), list.length_ns()), (3, 1000));
        assert_eq!(size_of::<Place>(), 32);
    }

    #[test]
    fn a_bubble_that_varies_is_filled_as_far_as_the_gate_opens() {
        let variation = Some(Variation { expected_ns: 7, deviation_ns: 2.0, parts: &[] });
        let one = Planned { variation, ..planned(20, 0.0, Some(BubbleClass::Dependency)) };
        let list: BubbleList = [one, planned(40, 0.0, Some(BubbleClass::Tail))].into_iter().collect();
        let slots: Vec<Slot> = list.iter().map(|b| b.slot()).collect();
        assert_eq!((slots[0].start_ns, slots[0].end_ns, slots[0].receiving), (20, 27, true));
        assert_eq!(slots[0].true_end, Some(TrueEnd::normal(3.0, 2.0)));
        assert_eq!((slots[1].end_ns, slots[1].receiving, slots[1].true_end), (50, false, None));
        let still = Planned { variation: Some(Variation { expected_ns: 10, deviation_ns: 0.0, parts: &[] }), ..one };
        assert_eq!(still.slot().true_end, Some(TrueEnd::normal(0.0, 0.0)), "that it does not vary is known");
    }

    #[test]
    fn side_work_goes_into_the_fillable_ones_and_is_replaced() {
        let classes = [None, Some(BubbleClass::Launch), Some(BubbleClass::Dependency)];
        let mut list: BubbleList =
            classes.into_iter().enumerate().map(|(i, c)| planned(20 * i as u64, 0.0, c)).collect();
        let counts = |list: &BubbleList| list.iter().map(|b| b.runs.len()).collect::<Vec<_>>();
        let lists = |counts: [usize; 2]| {
            let mut lists = RunLists::default();
            counts.into_iter().for_each(|count| lists.push(vec![RUN; count]));
            lists
        };
        list.put(lists([2, 1]));
        assert_eq!((counts(&list), list.runs().len(), list.fillable().count()), (vec![2, 0, 1], 3, 2));
        list.put(lists([0, 3]));
        assert_eq!(counts(&list), [0, 0, 3]);
    }
}
