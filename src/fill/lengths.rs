//! How long a bubble will be, learned from the iterations of a run: by its position among the bubbles that may be filled.
//!
//! A pipeline repeats its iteration, and with it the order of its waits. So the lengths that the k-th bubble of a device had in the
//! iterations say how long it will be, and a low quantile of them how long it will be at least, nearly always. That is what a gate
//! is opened for in a live run, and what the plan fills. The quantile is the dial between the side's work and the main's delay.
//!
//! Of few iterations that quantile is their shortest, and later ones are shorter more often than it says: the k-th shortest of n lengths
//! leaves k / (n + 1) of all later ones below it, however they are distributed (David and Nagaraja, Order Statistics, 2003). And a
//! deviation of few says too little of the next length: as in a prediction interval it counts √(1 + 1/n) times, and as many times
//! more as Student's quantile lies farther out than the normal one.

use super::overrun::Variation;
use crate::records::bubbles::{BubbleClass, BubblesRecord, DeviceBubbles};
use crate::stats::normal;
use crate::units::counted;
use std::collections::{BTreeMap, BTreeSet};

/// Iterations that must line up before their lengths are learned: as many as the hooks of a live run look at before they open a
/// gate. Of fewer every fifth later one or more is shorter than all of them.
pub const FEWEST: u64 = 5;

/// The lengths of a run's bubbles.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnedLengths {
    /// Number of the iteration that stands for all: of those that line up on every device the one with the median idle time.
    pub iteration: u64,
    /// Iterations that line up, on the device with the fewest.
    pub iterations: u64,
    /// By device, and there by position among the bubbles that may be filled.
    pub devices: Vec<Vec<LearnedLength>>,
}

/// The length of one bubble.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearnedLength {
    /// Its median, in ns.
    pub median_ns: u64,
    /// For how long the gate opens, and how it varies.
    pub variation: Variation,
}

/// Learns the lengths in a bubbles file: those of the iterations in which a device has the bubbles it has in most. Fails with the
/// reason, a clause, if fewer than [`FEWEST`] iterations line up so on a device, or no more than half of all, and where no bubble may
/// be filled.
pub fn learn(record: &BubblesRecord, quantile: f64) -> Result<LearnedLengths, String> {
    let all: BTreeSet<u64> = record.devices.iter().flat_map(|d| &d.bubbles).map(|b| b.iteration).collect();
    let mut shared = all.clone();
    let (mut fewest, mut devices) = (u64::MAX, Vec::new());
    for device in &record.devices {
        let alike = alike(device, &all);
        let count = alike.len() as u64;
        if count < FEWEST || 2 * alike.len() <= all.len() {
            let of = if count == all.len() as u64 { String::new() } else { format!(" of {}", all.len()) };
            return Err(format!(
                "device {} has the same bubbles in the same order in {}{of}, and {FEWEST} and more than half of all are needed",
                device.device,
                counted(alike.len(), "iteration"),
            ));
        }
        fewest = fewest.min(count);
        shared.retain(|number| alike.contains_key(number));
        devices.push(positions(alike.into_values().collect(), quantile));
    }
    if devices.iter().all(Vec::is_empty) {
        return Err("no bubble in it may be filled".into());
    }
    let idle = |number: u64| -> u128 {
        let of = record.devices.iter().flat_map(|d| &d.bubbles).filter(|b| b.iteration == number);
        of.map(|b| u128::from(b.length_ns())).sum()
    };
    let mut by_idle: Vec<(u128, u64)> = shared.into_iter().map(|number| (idle(number), number)).collect();
    by_idle.sort_unstable();
    let middle = by_idle.get(by_idle.len().saturating_sub(1) / 2);
    let (_, iteration) = *middle.ok_or("no iteration has its usual bubbles on every device")?;
    Ok(LearnedLengths { iteration, iterations: fewest, devices })
}

/// The iterations in which the device has the classes of bubbles that it has most often, each with its lengths.
fn alike(device: &DeviceBubbles, all: &BTreeSet<u64>) -> BTreeMap<u64, Vec<u64>> {
    let mut seen: BTreeMap<u64, (Vec<BubbleClass>, Vec<u64>)> =
        all.iter().map(|&number| (number, Default::default())).collect();
    for b in device.bubbles.iter().filter(|b| b.class.is_fillable()) {
        let (classes, lengths) = seen.entry(b.iteration).or_default();
        classes.push(b.class);
        lengths.push(b.length_ns());
    }
    let mut counts: BTreeMap<&[BubbleClass], usize> = BTreeMap::new();
    seen.values().for_each(|(classes, _)| *counts.entry(classes).or_default() += 1);
    let usual = counts.into_iter().max_by_key(|(_, count)| *count).map(|(classes, _)| classes.to_vec());
    let of = |(number, (classes, lengths)): (u64, (Vec<BubbleClass>, Vec<u64>))| {
        (Some(&classes) == usual.as_ref()).then_some((number, lengths))
    };
    seen.into_iter().filter_map(of).collect()
}

fn positions(iterations: Vec<Vec<u64>>, quantile: f64) -> Vec<LearnedLength> {
    let count = iterations.first().map_or(0, Vec::len);
    (0..count).map(|at| length(iterations.iter().map(|lengths| lengths[at]).collect(), quantile)).collect()
}

/// Of one position's lengths; the median and the quantile are lengths that were seen, the lower one of two, as in the hooks.
fn length(mut seen: Vec<u64>, quantile: f64) -> LearnedLength {
    seen.sort_unstable();
    let middle = (seen.len() - 1) / 2;
    let median_ns = seen[middle];
    let expected_ns = low_quantile(&seen, quantile);
    // A bubble that was much longer once (a checkpoint) says nothing of how much shorter one may be.
    let squares = seen[..middle].iter().map(|ns| ((median_ns - ns) as f64).powi(2)).sum::<f64>();
    let seen_ns = (squares / middle.max(1) as f64).sqrt();
    let share = share_below(seen.len(), quantile);
    let z = normal::quantile(share);
    let count = seen.len() as f64;
    let deviation_ns = seen_ns * (1.0 + 1.0 / count).sqrt() * normal::student_over_normal(z, middle.max(1) as f64);
    // At least that share of later ones is shorter.
    let least_ns = if z < 0.0 { (median_ns - expected_ns) as f64 / -z } else { 0.0 };
    LearnedLength { median_ns, variation: Variation { expected_ns, deviation_ns: deviation_ns.max(least_ns) } }
}

/// Which of `count` lengths in rising order a gate opens for, from 0.
pub fn rank(count: usize, quantile: f64) -> usize {
    (quantile.clamp(0.0, 1.0) * count.saturating_sub(1) as f64) as usize
}

/// Share of later lengths that are shorter than that one, whatever their distribution.
pub fn share_below(count: usize, quantile: f64) -> f64 {
    (rank(count, quantile) + 1) as f64 / (count + 1) as f64
}

/// The quantile of lengths in rising order that a gate opens for: one that was seen, the lower one of two. There must be one.
pub fn low_quantile(sorted: &[u64], quantile: f64) -> u64 {
    sorted[rank(sorted.len(), quantile)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::bubbles::{MeasuredBubble, SCHEMA};
    use crate::stats::SplitMix;

    /// A device whose iterations of 1000 have bubbles of these lengths, 100 apart.
    fn device(number: u64, iterations: &[&[(BubbleClass, u64)]]) -> DeviceBubbles {
        let mut bubbles = Vec::new();
        for (iteration, lengths) in iterations.iter().enumerate() {
            let mut at = 1000 * iteration as u64;
            for &(class, length) in *lengths {
                bubbles.push(MeasuredBubble {
                    iteration: iteration as u64,
                    start_ns: at,
                    end_ns: at + length,
                    class,
                    previous_kernel: Some("a".into()),
                    next_kernel: Some("b".into()),
                });
                at += length + 100;
            }
        }
        let absent_ns = bubbles.iter().map(|b| b.length_ns()).sum();
        let window_ns = 1000 * iterations.len() as u64;
        DeviceBubbles {
            device: number,
            iterations: iterations.len() as u64,
            window_ns,
            compute_ns: window_ns - absent_ns,
            communication_ns: 0,
            absent_ns,
            bubble_ratio: 0.5,
            bubbles,
        }
    }

    fn record(devices: Vec<DeviceBubbles>) -> BubblesRecord {
        BubblesRecord { schema: SCHEMA.into(), source: "made".into(), devices }
    }

    #[test]
    fn a_position_is_expected_as_long_as_its_low_quantile() {
        use BubbleClass::{Communication, Dependency, Launch, Tail};
        // What is not filled does not count as a position; the fourth iteration has another order and is left out.
        let iterations: Vec<Vec<(BubbleClass, u64)>> = [90, 100, 80, 500, 110, 70]
            .iter()
            .enumerate()
            .map(|(k, &ns)| match k {
                3 => vec![(Tail, 5), (Dependency, ns)],
                4 => vec![(Dependency, ns), (Communication, 7), (Tail, 50)],
                5 => vec![(Launch, 3), (Dependency, ns), (Tail, 50)],
                _ => vec![(Dependency, ns), (Tail, 50)],
            })
            .collect();
        let slices: Vec<&[(BubbleClass, u64)]> = iterations.iter().map(Vec::as_slice).collect();
        let run = record(vec![device(0, &slices)]);
        let learned = learn(&run, 0.1).unwrap();
        assert_eq!(learned.iterations, 5);
        let [first, tail] = learned.devices[0][..] else { panic!("{learned:?}") };
        assert_eq!((first.median_ns, first.variation.expected_ns), (90, 70));
        // 15.8 as seen; of five the shortest, which one of six later ones is below, so 20 is no more than 0.97 deviations.
        let seen = (0.5 * (400.0 + 100.0_f64)).sqrt() * 1.2_f64.sqrt();
        let student = first.variation.deviation_ns / seen;
        assert!((1.25..1.40).contains(&student), "{student}");
        assert!(first.variation.deviation_ns > 20.0 / 0.97);
        assert_eq!((tail.median_ns, tail.variation), (50, Variation { expected_ns: 50, deviation_ns: 0.0 }));
        assert_eq!(learn(&run, 0.5).unwrap().devices[0][0].variation.expected_ns, 90);
        assert_eq!(learned.iteration, 0, "its idle time is the middle one of the five");
    }

    #[test]
    fn what_does_not_line_up_is_not_learned() {
        use BubbleClass::{Dependency, Tail};
        let (one, two): (&[_], &[_]) = (&[(Dependency, 90)], &[(Dependency, 90), (Tail, 40)]);
        let halves =
            record(vec![device(0, &[one; 10]), device(3, &[one, two, one, two, one, two, one, two, one, two])]);
        let why = learn(&halves, 0.1).unwrap_err();
        let needed = "and 5 and more than half of all are needed";
        assert_eq!(why, format!("device 3 has the same bubbles in the same order in 5 iterations of 10, {needed}"));
        let few = |count: usize| learn(&record(vec![device(0, &vec![one; count])]), 0.1);
        assert!(
            few(4).unwrap_err().contains("in 4 iterations, and 5"),
            "a fifth of all would be shorter than all four"
        );
        assert!(few(1).unwrap_err().contains("in 1 iteration, and"));
        assert_eq!(few(5).unwrap().iterations, 5);
        let nothing: &[_] = &[(BubbleClass::Launch, 90)];
        let none = learn(&record(vec![device(0, &[nothing; 6])]), 0.1);
        assert_eq!(none.unwrap_err(), "no bubble in it may be filled");
        // Each lines up in six of nine iterations, but both in three of them.
        let odd = record(vec![
            device(0, &[one, one, one, one, one, one, two, two, two]),
            device(1, &[two, two, two, one, one, one, one, one, one]),
        ]);
        assert!((3..6).contains(&learn(&odd, 0.1).unwrap().iteration));
    }

    /// Learned from n iterations, then held against many more: so many are shorter as `share_below` says, the plan's normal distribution
    /// has no fewer of them, and it expects at least nine tenths of what the main then waits, whatever n.
    #[test]
    fn few_iterations_promise_no_more_than_they_can() {
        let (mean, deviation, quantile) = (1e6, 5e4, 0.1);
        let mut random = SplitMix(0x1ea4);
        for count in [5, 6, 8, 11, 16, 20, 40, 200] {
            let (mut shorter, mut said, mut late, mut priced) = (0.0, 0.0, 0.0, 0.0);
            let runs = 4_000;
            for _ in 0..runs {
                let seen = (0..count).map(|_| (mean + deviation * normal::sample(&mut random)) as u64).collect();
                let LearnedLength { median_ns, variation } = length(seen, quantile);
                let Variation { expected_ns, deviation_ns } = variation;
                let (expected, median) = (expected_ns as f64, median_ns as f64);
                shorter += normal::below((expected - mean) / deviation);
                said += if deviation_ns > 0.0 { normal::below((expected - median) / deviation_ns) } else { 0.0 };
                late += normal::positive_part(expected - mean, deviation);
                priced += normal::positive_part(expected - median, deviation_ns);
            }
            let runs = f64::from(runs);
            let (shorter, said, ratio) = (shorter / runs, said / runs, priced / late);
            let share = share_below(count, quantile);
            assert!((shorter / share - 1.0).abs() < 0.05, "{count}: {shorter} shorter, {share} by the rank");
            assert!(said > 0.95 * shorter && ratio > 0.9, "{count}: {shorter} shorter, {said} said; priced {ratio}");
            assert!(said < 1.6 * shorter && ratio < 2.5, "{count}: {shorter} shorter, {said} said; priced {ratio}");
            println!("{count}: {shorter:.3} shorter, {said:.3} said; priced {ratio:.2}");
        }
    }

    #[test]
    fn a_quantile_is_a_length_that_was_seen() {
        let lengths: Vec<u64> = (0..=10).map(|k| 10 * k).collect();
        assert_eq!([0.0, 0.1, 0.19, 0.5, 1.0].map(|q| low_quantile(&lengths, q)), [0, 10, 10, 50, 100]);
        assert_eq!(low_quantile(&[7], 0.1), 7);
    }
}
