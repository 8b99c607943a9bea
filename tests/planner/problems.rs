//! Random problems of one stage: small ones of every kind, and awkward ones, whose sides have few kernels of very unequal
//! length, so that it matters where each of them stops.

use bubblebench::fill::kernels::Kernels;
use bubblebench::fill::overrun::{Overrun, TrueEnd};
use bubblebench::fill::pack::{Slot, StageProblem};
use bubblebench::fill::receive::ReceiveRate;
use bubblebench::fill::side::{CompleteSide, KernelOrigin, Margin};
use bubblebench::stats::SplitMix;

pub fn between(random: &mut SplitMix, low: u64, high: u64) -> u64 {
    low + random.below((high - low + 1) as usize) as u64
}

pub fn side(random: &mut SplitMix) -> CompleteSide {
    let kernels: Vec<u64> = (0..between(random, 1, 3)).map(|_| between(random, 30, 160)).collect();
    let memory = between(random, 10, 100) as f64;
    CompleteSide {
        name: "side".into(),
        kernels: Kernels::new(&kernels).unwrap(),
        memory_bytes: memory,
        resident_bytes: (memory * (0.1 + 0.9 * random.unit())).floor(),
        value: between(random, 5, 20) as f64 / 10.0,
        margin: Margin {
            open_ns: between(random, 2, 15),
            restart_ns: between(random, 0, 15),
            signal_ns: between(random, 2, 15),
        },
        after_ns: between(random, 0, 4) as f64,
        split: random.below(5) > 0,
        origin: KernelOrigin::Profile,
        step_interval: [1.0; 2],
        beside: None,
        receive: ReceiveRate::FULL,
        overrun: Overrun::NONE,
        piece_spread: 0.0,
    }
}

/// Up to three sides and three bubbles; memory short in half of the cases, the limit in half of them.
pub fn problem<'a>(random: &mut SplitMix, sides: &'a [CompleteSide]) -> StageProblem<'a> {
    let short = random.below(2) == 0;
    let slots: Vec<Slot> = (0..between(random, 1, 3))
        .map(|index| {
            let free = if short { between(random, 30, 140) } else { 1000 };
            let start_ns = 1000 * index;
            Slot::new(start_ns, start_ns + between(random, 60, 420), Some(free as f64))
        })
        .collect();
    let least = slots.iter().filter_map(|s| s.free_bytes).fold(f64::INFINITY, f64::min);
    StageProblem {
        sides,
        least_free: Some(if short { least * (0.4 + 0.6 * random.unit()) } else { least }),
        budget_ns: if random.below(2) == 0 { between(random, 0, 14) as f64 } else { f64::INFINITY },
        close_ns: 1.0,
        sides_per_bubble: sides.len(),
        slots,
    }
}

/// One to five kernels of 20 to 400.
pub fn awkward_side(random: &mut SplitMix) -> CompleteSide {
    let kernels: Vec<u64> = (0..between(random, 1, 5)).map(|_| between(random, 20, 400)).collect();
    let margin =
        Margin { open_ns: between(random, 0, 8), restart_ns: between(random, 0, 8), signal_ns: between(random, 0, 8) };
    let value = if random.below(4) > 0 { 1.0 } else { between(random, 5, 20) as f64 / 10.0 };
    CompleteSide { kernels: Kernels::new(&kernels).unwrap(), margin, value, ..side(random) }
}

/// Up to four bubbles, as a stage has them: short ones of about one length, and a long one among them. Memory short in a
/// quarter of the cases, the limit in a quarter, sides per bubble in some of those with three.
pub fn awkward_problem<'a>(random: &mut SplitMix, sides: &'a [CompleteSide]) -> StageProblem<'a> {
    let short = random.below(4) == 0;
    let unit = between(random, 150, 450);
    let count = between(random, 2, 4);
    let (long, alike) = (random.below(count as usize) as u64, random.below(2) == 0);
    let mut start_ns = 0;
    let slots: Vec<Slot> = (0..count)
        .map(|index| {
            let units = if index == long { between(random, 3, 7) } else { 1 };
            let end_ns = start_ns + units * unit + if alike { 0 } else { between(random, 0, unit) };
            let free = if short { between(random, 30, 200) } else { 1000 };
            let slot = Slot::new(start_ns, end_ns, Some(free as f64));
            start_ns = end_ns + unit;
            slot
        })
        .collect();
    let least = slots.iter().filter_map(|s| s.free_bytes).fold(f64::INFINITY, f64::min);
    StageProblem {
        sides,
        least_free: Some(if short { least * (0.4 + 0.6 * random.unit()) } else { least }),
        budget_ns: if random.below(4) == 0 { between(random, 0, 20) as f64 } else { f64::INFINITY },
        close_ns: 1.0,
        sides_per_bubble: sides.len().min(between(random, 2, 3) as usize),
        slots,
    }
}

/// The same with bubbles whose lengths vary, each by another amount and some by none, and with a limit that binds: what a bubble costs
/// then differs a hundredfold.
pub fn vary(random: &mut SplitMix, problem: &mut StageProblem) {
    for slot in &mut problem.slots {
        slot.true_end = (random.below(5) > 0).then(|| {
            let deviation_ns = 100_f64.powf(random.unit());
            TrueEnd::normal(deviation_ns * 2.5 * random.unit(), deviation_ns)
        });
    }
    problem.close_ns = [0.0, 1.0][random.below(2)];
    problem.budget_ns = 60_f64.powf(random.unit());
}
