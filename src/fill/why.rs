//! Why a side model was put nowhere: the first of its needs that no bubble meets.

use super::pack::{Residency, Slot};
use super::side::CompleteSide;
use super::stages::StagePlan;
use crate::pipeline::memory::GIB;
use crate::units::format_ns;

/// The reason why no bubble takes the side, as a clause to stand behind "side x is put nowhere: ". `budget_ns` is what
/// the main job may lose in an iteration, `close_ns` the call that closes the gate; `another_runs` says
/// that some other side was put somewhere.
pub fn nowhere(side: &CompleteSide, stages: &[StagePlan], budget_ns: f64, close_ns: f64, another_runs: bool) -> String {
    let bubbles = || stages.iter().flat_map(|s| s.bubbles.fillable());
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let least_free = most(&mut stages.iter().map(|s| s.least_free.unwrap_or(f64::INFINITY)));
    let most_free = most(&mut bubbles().map(|b| b.level.free_bytes.unwrap_or(f64::INFINITY)));
    let kept = kept_bytes(side);
    if bubbles().next().is_none() {
        return "there is no bubble".into();
    }
    if side.value <= 0.0 {
        return "its value is 0".into();
    }
    if kept > least_free {
        return format!(
            "the {:.2} GiB it keeps between steps fit beside the main job on no stage; at most {:.2} GiB are always free",
            kept / GIB,
            least_free / GIB
        );
    }
    if side.memory_bytes > most_free {
        return format!(
            "it needs {:.2} GiB, no bubble has more than {:.2} GiB free",
            side.memory_bytes / GIB,
            most_free / GIB
        );
    }
    let slots: Vec<(Slot, Residency)> = with_room(side, stages).collect();
    let long_enough: Vec<&(Slot, Residency)> =
        slots.iter().filter(|(slot, residency)| could_begin(side, slot, *residency)).collect();
    if long_enough.is_empty() {
        let Some((slot, residency)) = slots.iter().max_by_key(|(slot, _)| opens_ns(slot)) else {
            return "no stage that keeps its state has a bubble with room for it".into();
        };
        let varies = if slot.true_end.is_some() { "is opened for" } else { "has" };
        return format!(
            "the longest bubble with room for it {varies} {}, its margin and its first {} take {}",
            format_ns(opens_ns(slot) as f64),
            if *residency == Residency::Whole { "step" } else { "kernel" },
            format_ns(needs_ns(side, slot, *residency) as f64)
        );
    }
    let own_ns = close_ns + side.after_ns;
    let costs = long_enough.iter().map(|(slot, residency)| own_ns + side.overrun_ns(slot, *residency, false));
    let cost_ns = costs.fold(f64::INFINITY, f64::min);
    if cost_ns > budget_ns {
        return format!(
            "a single bubble would cost the main job {}, the slowdown limit allows {} an iteration",
            format_ns(cost_ns),
            format_ns(budget_ns)
        );
    }
    match another_runs {
        true => "another side is worth more wherever it would fit".into(),
        false => "the slowdown limit, shared by all stages, leaves none of them what a single bubble costs".into(),
    }
}

/// What the side keeps on a stage at least.
fn kept_bytes(side: &CompleteSide) -> f64 {
    if side.split { side.resident_bytes.min(side.memory_bytes) } else { side.resident_bytes }
}

/// The bubbles that have the memory for the side, on stages that keep its state, and how it would stay there.
pub(super) fn with_room<'a>(
    side: &'a CompleteSide,
    stages: &'a [StagePlan],
) -> impl Iterator<Item = (Slot<'a>, Residency)> {
    // What it must finish to run at all: one kernel if its memory may stay, else a step.
    let splits = |s: &StagePlan| side.split && s.least_free.is_none_or(|free| side.memory_bytes <= free);
    let way = move |s: &StagePlan| if splits(s) { Residency::Split } else { Residency::Whole };
    let keeps = |s: &&StagePlan| s.least_free.is_none_or(|free| kept_bytes(side) <= free);
    let room = |slot: &Slot| slot.free_bytes.is_none_or(|free| side.memory_bytes <= free);
    stages
        .iter()
        .filter(keeps)
        .flat_map(move |s| s.bubbles.fillable().map(move |b| (b.slot(), way(s))))
        .filter(move |(slot, _)| room(slot))
}

/// Whether the bubble is long enough for the first piece of the side.
pub(super) fn could_begin(side: &CompleteSide, slot: &Slot, residency: Residency) -> bool {
    opens_ns(slot) >= needs_ns(side, slot, residency)
}

/// What the gate opens for, not what the bubble usually lasts.
const fn opens_ns(slot: &Slot) -> u64 {
    slot.end_ns - slot.start_ns
}

fn needs_ns(side: &CompleteSide, slot: &Slot, residency: Residency) -> u64 {
    let unit_ns = match residency {
        Residency::Split => side.kernels.work_ns(1),
        Residency::Whole => side.kernels.step_ns(),
    };
    side.margin.total_ns().saturating_add(side.beside_ns(side.asked_ns(unit_ns), slot.receiving))
}

#[cfg(test)]
mod tests {
    use super::super::bubble_list::MemoryLevel;
    use super::super::bubble_list::Planned;
    use super::super::kernels::Kernels;
    use super::super::overrun::{Overrun, Variation};
    use super::super::receive::ReceiveRate;
    use super::super::side::{KernelOrigin, Margin};
    use super::*;
    use crate::pipeline::BubbleKind;

    #[test]
    fn the_first_unmet_need_is_named() {
        let level = MemoryLevel { live_micro_batches: 0.0, free_bytes: Some(2.0 * GIB) };
        let planned = Planned {
            start_ns: 0,
            end_ns: 1000,
            kind: BubbleKind::Tail,
            level,
            class: None,
            variation: None,
            runs: &[],
        };
        let stage = StagePlan {
            bubbles: [planned].into_iter().collect(),
            least_free: Some(GIB),
            resident: Vec::new(),
            beside: Vec::new(),
            lost_ns: 0.0,
            done_ns: Vec::new(),
            late_ns: Vec::new(),
        };
        let fine = CompleteSide {
            name: "x".into(),
            kernels: Kernels::of_longest(800, 100),
            memory_bytes: 0.9 * GIB,
            resident_bytes: 0.5 * GIB,
            value: 1.0,
            margin: Margin { open_ns: 50, restart_ns: 50, signal_ns: 50 },
            after_ns: 0.0,
            split: true,
            origin: KernelOrigin::Profile,
            step_interval: [1.0; 2],
            beside: None,
            receive: ReceiveRate::FULL,
            overrun: Overrun::NONE,
            piece_spread: 0.0,
        };
        let cases: [(CompleteSide, &str); 8] = [
            (fine.clone(), "another side is worth more"),
            (CompleteSide { receive: ReceiveRate::exactly(0.1), ..fine.clone() }, "another side is worth more"),
            (CompleteSide { value: 0.0, ..fine.clone() }, "its value is 0"),
            (
                CompleteSide { resident_bytes: 1.5 * GIB, memory_bytes: 1.5 * GIB, ..fine.clone() },
                "fit beside the main job on no stage",
            ),
            (CompleteSide { memory_bytes: 3.0 * GIB, ..fine.clone() }, "no bubble has more than 2.00 GiB"),
            (CompleteSide { kernels: Kernels::of_longest(2000, 900), ..fine.clone() }, "first kernel take 1.050 µs"),
            // Its memory may not stay, so a whole step is the unit.
            (
                CompleteSide { memory_bytes: 1.5 * GIB, kernels: Kernels::of_longest(900, 10), ..fine.clone() },
                "first step take",
            ),
            (CompleteSide { after_ns: 20.0, ..fine.clone() }, "the slowdown limit allows 10.00 ns"),
        ];
        for (side, expected) in cases {
            let why = nowhere(&side, std::slice::from_ref(&stage), 10.0, 1.0, true);
            assert!(why.contains(expected), "{why}, not {expected}");
        }
        let why = nowhere(&fine, std::slice::from_ref(&stage), 10.0, 1.0, false);
        assert!(why.contains("shared by all stages"), "nobody else is put anywhere: {why}");
        // A bubble that varies is opened for less than it usually lasts, and overrun for all that.
        let varying = |expected_ns: u64, deviation_ns: f64| {
            let variation = Some(Variation { expected_ns, deviation_ns, parts: &[] });
            StagePlan { bubbles: [Planned { variation, ..planned }].into_iter().collect(), ..stage.clone() }
        };
        let why = nowhere(&fine, &[varying(249, 300.0)], 10.0, 1.0, false);
        assert!(why.contains("is opened for 249.0 ns") && why.contains("first kernel take 250.0 ns"), "{why}");
        let why = nowhere(&fine, &[varying(900, 800.0)], 10.0, 1.0, false);
        assert!(why.contains("a single bubble would cost") && why.contains("allows 10.00 ns"), "{why}");
        // Beside a receive that takes half of the GPU its first kernel is twice as long.
        let slow = CompleteSide { receive: ReceiveRate::exactly(0.5), ..fine.clone() };
        let waiting = Planned { end_ns: 300, kind: BubbleKind::Steady, ..planned };
        let waits = StagePlan { bubbles: [waiting].into_iter().collect(), ..stage.clone() };
        let why = nowhere(&slow, &[waits], 10.0, 1.0, false);
        assert!(why.contains("has 300.0 ns") && why.contains("take 350.0 ns"), "{why}");
    }
}
