//! Why a side model was put nowhere: the first of its needs that no bubble meets.

use super::bubble_list::Planned;
use super::side::CompleteSide;
use super::stages::StagePlan;
use crate::pipeline::memory::GIB;
use crate::units::format_ns;

/// The reason why no bubble takes the side, as a clause to stand behind "side x is put nowhere: ". `budget_ns` is what
/// the main job may lose in an iteration, `close_ns` the call that closes the gate.
pub fn nowhere(side: &CompleteSide, stages: &[StagePlan], budget_ns: f64, close_ns: f64) -> String {
    let bubbles = || stages.iter().flat_map(|s| s.bubbles.fillable());
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let least_free = most(&mut stages.iter().map(|s| s.least_free.unwrap_or(f64::INFINITY)));
    let most_free = most(&mut bubbles().map(|b| b.level.free_bytes.unwrap_or(f64::INFINITY)));
    let kept = if side.split { side.resident_bytes.min(side.memory_bytes) } else { side.resident_bytes };
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
    // What it must finish to run at all: one kernel if its memory may stay, else a step.
    let splits = |s: &StagePlan| side.split && s.least_free.is_none_or(|free| side.memory_bytes <= free);
    let unit = if stages.iter().any(splits) { side.kernels.work_ns(1) } else { side.kernels.step_ns() };
    let room = |b: &Planned| b.level.free_bytes.is_none_or(|free| side.memory_bytes <= free);
    let longest = bubbles().filter(room).map(|b| b.length_ns()).max().unwrap_or(0);
    if longest < side.margin.total_ns().saturating_add(unit) {
        return format!(
            "the longest bubble with room for it has {}, its margin and its first {} take {}",
            format_ns(longest as f64),
            if unit == side.kernels.step_ns() { "step" } else { "kernel" },
            format_ns((side.margin.total_ns() + unit) as f64)
        );
    }
    let cost_ns = close_ns + side.after_ns + side.usual_overrun_ns();
    if cost_ns > budget_ns {
        return format!(
            "a single bubble would cost the main job {}, the slowdown limit allows {} an iteration",
            format_ns(cost_ns),
            format_ns(budget_ns)
        );
    }
    "another side is worth more wherever it would fit".into()
}

#[cfg(test)]
mod tests {
    use super::super::bubble_list::MemoryLevel;
    use super::super::kernels::Kernels;
    use super::super::overrun::Overrun;
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
            overrun: Overrun::Assumed(0.0),
            piece_spread: 0.0,
        };
        let cases: [(CompleteSide, &str); 7] = [
            (fine.clone(), "another side is worth more"),
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
            (CompleteSide { after_ns: 20.0, ..fine }, "the slowdown limit allows 10.00 ns"),
        ];
        for (side, expected) in cases {
            let why = nowhere(&side, std::slice::from_ref(&stage), 10.0, 1.0);
            assert!(why.contains(expected), "{why}, not {expected}");
        }
    }
}
