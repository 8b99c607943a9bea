//! Where in a pipeline schedule a measured bubble lies: the simulator's kinds ([`crate::pipeline::BubbleKind`]).
//!
//! The start and the end of an iteration are what they are. Between them the kernels beside a bubble tell forward from
//! backward, where their names do; where not, and several devices are the stages of one pipeline in the order of ranks,
//! 1F1B's counts tell: the longest wait is the one before the first backward, the last p − 1 − i are its cool-down.

use crate::pipeline::BubbleKind;
use crate::records::bubbles::{BubbleClass, BubblesRecord, DeviceBubbles, KernelName, MeasuredBubble};

/// What tells the positions between the start and the end of an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The names of kernels beside a bubble, which tell forward from backward.
    KernelNames,
    /// The device's place among several, which are taken for the stages of a 1F1B pipeline.
    Rank,
    /// Nothing tells: what lies between start and end counts as steady.
    Missing,
}

/// Where in a pipeline schedule the bubbles of one device lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// One position a bubble, in the order of the device's bubbles.
    pub kinds: Vec<BubbleKind>,
    /// What the positions between start and end rest on.
    pub evidence: Evidence,
}

/// The positions of every device's bubbles, in the record's order. `windows` are each device's iterations: number,
/// start and end in ns.
pub fn of_record(record: &BubblesRecord, windows: &[&[(u64, u64, u64)]]) -> Vec<Positions> {
    let stages = record.devices.len();
    let pipeline = stages > 1 && record.devices.iter().all(waits_inside);
    let devices = record.devices.iter().zip(windows).enumerate();
    devices.map(|(stage, (device, windows))| of_device(device, windows, pipeline.then_some((stage, stages)))).collect()
}

/// A stage of a pipeline waits for its neighbours in every iteration.
fn waits_inside(device: &DeviceBubbles) -> bool {
    let waits = device.bubbles.iter().filter(|b| inner_wait(b)).count();
    waits as u64 >= device.iterations
}

/// A wait between two compute kernels of one iteration.
fn inner_wait(bubble: &MeasuredBubble) -> bool {
    bubble.class == BubbleClass::Dependency && bubble.previous_kernel.is_some() && bubble.next_kernel.is_some()
}

fn of_device(device: &DeviceBubbles, windows: &[(u64, u64, u64)], stage: Option<(usize, usize)>) -> Positions {
    let named = device.bubbles.iter().any(|b| is_backward(&b.next_kernel) && !is_backward(&b.previous_kernel));
    let evidence = match (named, stage) {
        (true, _) => Evidence::KernelNames,
        (false, Some(_)) => Evidence::Rank,
        (false, None) => Evidence::Missing,
    };
    let mut kinds = Vec::with_capacity(device.bubbles.len());
    for iteration in device.bubbles.chunk_by(|a, b| a.iteration == b.iteration) {
        let window = windows.iter().find(|w| w.0 == iteration[0].iteration);
        let first = kinds.len();
        kinds.extend(iteration.iter().map(|b| edge(b, window)));
        let inner = &mut kinds[first..];
        match (evidence, stage) {
            (Evidence::KernelNames, _) => by_names(iteration, inner),
            (Evidence::Rank, Some((stage, stages))) => by_rank(iteration, inner, stages - 1 - stage),
            _ => {}
        }
    }
    Positions { kinds, evidence }
}

fn edge(bubble: &MeasuredBubble, window: Option<&(u64, u64, u64)>) -> BubbleKind {
    match window {
        Some(w) if bubble.start_ns == w.1 => BubbleKind::Warmup,
        Some(w) if bubble.end_ns == w.2 => BubbleKind::Tail,
        _ => BubbleKind::Steady,
    }
}

fn is_backward(name: &Option<KernelName>) -> bool {
    let Some(name) = name else { return false };
    let plain: String = name.as_str().chars().take(1024).map(|c| c.to_ascii_lowercase()).collect();
    ["backward", "bwd", "dgrad", "wgrad"].iter().any(|part| plain.contains(part))
}

/// Cool-down is what follows the last bubble with a forward kernel beside it.
fn by_names(bubbles: &[MeasuredBubble], kinds: &mut [BubbleKind]) {
    let inner = |k: &BubbleKind| *k == BubbleKind::Steady;
    let Some(first) = (0..bubbles.len()).find(|&i| inner(&kinds[i]) && is_backward(&bubbles[i].next_kernel)) else {
        return;
    };
    let began = bubbles[..first].iter().any(|b| is_backward(&b.next_kernel));
    if !began && !is_backward(&bubbles[first].previous_kernel) {
        kinds[first] = BubbleKind::BeforeBackward;
    }
    let forward = |b: &MeasuredBubble| !is_backward(&b.previous_kernel) || !is_backward(&b.next_kernel);
    let from = (first + 1..bubbles.len()).rev().find(|&i| inner(&kinds[i]) && forward(&bubbles[i])).unwrap_or(first);
    for kind in kinds[from + 1..].iter_mut().filter(|k| inner(k)) {
        *kind = BubbleKind::Cooldown;
    }
}

/// `ahead` stages follow this one: it has run that many forwards more than the last when its first backward comes.
fn by_rank(bubbles: &[MeasuredBubble], kinds: &mut [BubbleKind], ahead: usize) {
    let waits: Vec<usize> =
        (0..bubbles.len()).filter(|&i| kinds[i] == BubbleKind::Steady && inner_wait(&bubbles[i])).collect();
    if ahead == 0 || waits.is_empty() {
        return;
    }
    let cooldown = waits.len().saturating_sub(ahead).max(1);
    let longest = waits[..cooldown].iter().copied().rev().max_by_key(|&i| bubbles[i].length_ns());
    if let Some(longest) = longest {
        kinds[longest] = BubbleKind::BeforeBackward;
    }
    for &index in &waits[cooldown..] {
        kinds[index] = BubbleKind::Cooldown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BubbleKind::{BeforeBackward, Cooldown, Steady, Tail, Warmup};

    /// Bubbles of one iteration from (start, end, kernel before, kernel after).
    fn device(list: &[(u64, u64, &str, &str)]) -> DeviceBubbles {
        let name = |n: &str| (!n.is_empty()).then(|| n.into());
        let bubbles = list.iter().map(|(start_ns, end_ns, previous, next)| MeasuredBubble {
            iteration: 0,
            start_ns: *start_ns,
            end_ns: *end_ns,
            class: BubbleClass::Dependency,
            previous_kernel: name(previous),
            next_kernel: name(next),
        });
        DeviceBubbles {
            device: 0,
            iterations: 1,
            window_ns: 100,
            compute_ns: 50,
            communication_ns: 0,
            absent_ns: 50,
            bubble_ratio: 0.5,
            bubbles: bubbles.collect(),
        }
    }

    const WINDOW: &[(u64, u64, u64)] = &[(0, 0, 100)];

    #[test]
    fn names_tell_where_the_backwards_begin_and_the_forwards_end() {
        let list = [
            (0, 5, "", "ln_fwd"),
            (10, 12, "gemm_fwd", "ln_fwd"),
            (20, 30, "gemm_fwd", "ln_bwd"),
            (40, 42, "gemm_dgrad", "ln_fwd"),
            (50, 52, "gemm_fwd", "ln_bwd"),
            (60, 62, "gemm_wgrad", "ln_bwd"),
            (70, 72, "gemm_wgrad", "ln_bwd"),
            (90, 100, "adam", ""),
        ];
        let positions = of_device(&device(&list), WINDOW, Some((0, 2)));
        assert_eq!(positions.evidence, Evidence::KernelNames);
        assert_eq!(positions.kinds, [Warmup, Steady, BeforeBackward, Steady, Steady, Cooldown, Cooldown, Tail]);
    }

    #[test]
    fn without_names_the_rank_tells() {
        let list = [
            (0, 5, "", "k"),
            (10, 12, "k", "k"),
            (20, 30, "k", "k"),
            (40, 42, "k", "k"),
            (60, 64, "k", "k"),
            (70, 75, "k", "k"),
            (90, 100, "k", ""),
        ];
        let kinds = |stage| of_device(&device(&list), WINDOW, stage).kinds;
        assert_eq!(kinds(Some((1, 4))), [Warmup, Steady, BeforeBackward, Steady, Cooldown, Cooldown, Tail]);
        assert_eq!(kinds(Some((3, 4))), [Warmup, Steady, Steady, Steady, Steady, Steady, Tail]);
        assert_eq!(kinds(None), [Warmup, Steady, Steady, Steady, Steady, Steady, Tail]);
        assert_eq!(kinds(Some((0, 9)))[1..6], [BeforeBackward, Cooldown, Cooldown, Cooldown, Cooldown]);
    }
}
