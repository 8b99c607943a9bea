//! How long a bubble will be, learned from the iterations of a run: by its position among the bubbles that may be filled.
//!
//! A pipeline repeats its iteration, and with it the order of its waits. So the lengths that the k-th bubble of a device had in the
//! iterations say how long it will be, and a low quantile of them how long it will be at least, nearly always. That is what a gate
//! is opened for in a live run, and what the plan fills. The quantile is the dial between the side's work and the main's delay.
//!
//! Of few iterations that quantile is their shortest, and later ones are shorter more often than it says: the k-th shortest of n lengths
//! leaves k / (n + 1) of all later ones below it, however they are distributed (David and Nagaraja, Order Statistics, 2003). More than
//! that is known: a later length lies in each of the n + 1 gaps that n lengths leave with the same probability (Hill, Posterior
//! distribution of percentiles, JASA 63, 1968). So the lengths to come are taken to be a mixture of these gaps, each even, the open one
//! below the shortest as wide as the two above it together. A later length that falls there lies as far below the shortest, in the mean
//! of even distributions; of exponential tails three quarters as far.

use super::overrun::{Part, Variation};
use crate::records::bubbles::{BubbleClass, BubblesRecord, DeviceBubbles};
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
    /// All of these bubbles as one, if all are long and short together: what a bubble of another schedule is taken to vary like.
    pub together: LearnedLength,
}

/// The length of one bubble.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnedLength {
    /// Its median, in ns.
    pub median_ns: u64,
    /// Length that the gate opens for, in ns.
    pub expected_ns: u64,
    /// Standard deviation of later lengths about the median as far as they are shorter, in ns; 0 where all were the same.
    pub deviation_ns: f64,
    /// The distribution of later lengths; empty where all were the same.
    pub parts: Vec<Part>,
}

impl LearnedLength {
    /// How the bubble varies.
    pub fn variation(&self) -> Variation<'_> {
        Variation { expected_ns: self.expected_ns, deviation_ns: self.deviation_ns, parts: &self.parts }
    }

    /// A bubble whose median length is another, and which varies by as much of it.
    pub fn scaled_to(&self, median_ns: u64) -> LearnedLength {
        let scale = median_ns as f64 / (self.median_ns as f64).max(1.0);
        let part = |part: &Part| Part {
            share: part.share,
            from_median_ns: scale * part.from_median_ns,
            deviation_ns: scale * part.deviation_ns,
        };
        LearnedLength {
            median_ns,
            expected_ns: (scale * self.expected_ns as f64).round() as u64,
            deviation_ns: scale * self.deviation_ns,
            parts: self.parts.iter().map(part).collect(),
        }
    }
}

/// Learns the lengths in a bubbles file: those of the iterations in which a device has the bubbles it has in most. Fails with the
/// reason, a clause, if fewer than [`FEWEST`] iterations line up so on a device, or no more than half of those it had, whether the file
/// lists bubbles of them or not, and where no bubble may be filled.
pub fn learn(record: &BubblesRecord, quantile: f64) -> Result<LearnedLengths, String> {
    let all: BTreeSet<u64> = record.devices.iter().flat_map(|d| &d.bubbles).map(|b| b.iteration).collect();
    let mut shared = all.clone();
    let (mut fewest, mut devices, mut sorted) = (u64::MAX, Vec::new(), Vec::new());
    for device in &record.devices {
        let alike = alike(device, &all);
        let count = alike.len() as u64;
        let had = device.iterations.max(all.len() as u64);
        if count < FEWEST || 2 * count <= had {
            let of = if count == had { String::new() } else { format!(" of {had}") };
            return Err(format!(
                "device {} has the same bubbles in the same order in {}{of}, and {FEWEST} and more than half of all are needed",
                device.device,
                counted(alike.len(), "iteration"),
            ));
        }
        fewest = fewest.min(count);
        shared.retain(|number| alike.contains_key(number));
        let positions = positions(alike.into_values().collect());
        devices.push(positions.iter().map(|seen| length(seen, quantile)).collect());
        sorted.extend(positions);
    }
    if devices.iter().all(Vec::is_empty) {
        return Err("no bubble in it may be filled".into());
    }
    let mut idle: BTreeMap<u64, u128> = shared.into_iter().map(|number| (number, 0)).collect();
    for b in record.devices.iter().flat_map(|d| &d.bubbles) {
        idle.entry(b.iteration).and_modify(|ns| *ns += u128::from(b.length_ns()));
    }
    let mut by_idle: Vec<(u128, u64)> = idle.into_iter().map(|(number, ns)| (ns, number)).collect();
    by_idle.sort_unstable();
    let middle = by_idle.get(by_idle.len().saturating_sub(1) / 2);
    let (_, iteration) = *middle.ok_or("no iteration has its usual bubbles on every device")?;
    let together = length(&rank_by_rank(&sorted, fewest as usize), quantile);
    Ok(LearnedLengths { iteration, iterations: fewest, devices, together })
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

/// By position its lengths in rising order.
fn positions(iterations: Vec<Vec<u64>>) -> Vec<Vec<u64>> {
    let count = iterations.first().map_or(0, Vec::len);
    let sorted = |at: usize| {
        let mut seen: Vec<u64> = iterations.iter().map(|lengths| lengths[at]).collect();
        seen.sort_unstable();
        seen
    };
    (0..count).map(sorted).collect()
}

/// The sums of the shortest of some lengths, of the next, and so on; of those of which there are more than `count` some are left out,
/// evenly.
fn rank_by_rank(sorted: &[Vec<u64>], count: usize) -> Vec<u64> {
    let of = |lengths: &Vec<u64>, rank: usize| lengths[rank * (lengths.len() - 1) / (count - 1).max(1)];
    (0..count).map(|rank| sorted.iter().map(|lengths| of(lengths, rank)).sum()).collect()
}

/// Of lengths in rising order; the median and the quantile are lengths that were seen, the lower one of two, as in the hooks.
fn length(seen: &[u64], quantile: f64) -> LearnedLength {
    let (median_ns, rank) = (seen[(seen.len() - 1) / 2], rank(seen.len(), quantile));
    let expected_ns = low_quantile(seen, quantile);
    if seen[0] == seen[seen.len() - 1] {
        return LearnedLength { median_ns, expected_ns, deviation_ns: 0.0, parts: Vec::new() };
    }
    let gaps = gaps(seen, median_ns);
    let shorter = gaps.iter().filter(|gap| gap.middle_ns < 0.0);
    let (count, squares) = shorter.fold((0.0, 0.0), |(count, sum), gap| (count + 1.0, sum + gap.square()));
    let deviation_ns = if count > 0.0 { (squares / count).sqrt() } else { 0.0 };
    // What is below the length that the gate opens for is priced, a few gaps together where there are many. Of what is above the nearest
    // matters most.
    let (below, above) = gaps.split_at(rank + 1);
    let mut parts: Vec<Part> =
        below.chunks(below.len().div_ceil(MOST_PARTS)).map(|some| part(some, gaps.len())).collect();
    let (mut above, mut together) = (above, 1);
    while !above.is_empty() {
        let (some, others) = above.split_at(together.min(above.len()));
        let mut part = part(some, gaps.len());
        if together > 1 {
            // A normal distribution has tails where the lengths have none: they must not reach below.
            let above_ns = part.from_median_ns - (expected_ns as f64 - median_ns as f64);
            part.deviation_ns = part.deviation_ns.min(above_ns / FAR);
        }
        parts.push(part);
        (above, together) = (others, 2 * together);
    }
    LearnedLength { median_ns, expected_ns, deviation_ns, parts }
}

/// Parts of the distribution below the length that the gate opens for, at most.
const MOST_PARTS: usize = 12;
/// Standard deviations beyond which nothing of a part counts.
const FAR: f64 = 6.0;
/// Between two lengths that were seen, or beyond all of them.
struct Gap {
    /// From the median, in ns.
    middle_ns: f64,
    width_ns: f64,
}

impl Gap {
    /// Mean square of its lengths, all alike probable, about the median.
    fn square(&self) -> f64 {
        self.middle_ns.powi(2) + self.width_ns.powi(2) / 12.0
    }
}

/// In which later lengths lie with the same probability each, by rising length. Of two or more lengths in rising order.
fn gaps(seen: &[u64], median_ns: u64) -> Vec<Gap> {
    let last = seen.len() - 1;
    let mut ends = vec![(seen[0] as f64 - (seen[2.min(last)] - seen[0]) as f64).max(0.0)];
    ends.extend(seen.iter().map(|&ns| ns as f64));
    ends.push(seen[last] as f64 + (seen[last] - seen[last.saturating_sub(2)]) as f64);
    let gap =
        |ends: &[f64]| Gap { middle_ns: 0.5 * (ends[0] + ends[1]) - median_ns as f64, width_ns: ends[1] - ends[0] };
    ends.windows(2).map(gap).collect()
}

/// Some gaps of all as one part, with their mean and variance.
fn part(some: &[Gap], all: usize) -> Part {
    let count = some.len() as f64;
    let mean = some.iter().map(|gap| gap.middle_ns).sum::<f64>() / count;
    let square = some.iter().map(Gap::square).sum::<f64>() / count;
    let deviation_ns = (square - mean * mean).max(0.0).sqrt();
    Part { share: count / all as f64, from_median_ns: mean, deviation_ns }
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
    use super::super::kernels::PieceClass;
    use super::super::overrun::{Pieces, TrueEnd};
    use super::*;
    use crate::records::bubbles::{MeasuredBubble, SCHEMA};
    use crate::stats::{SplitMix, normal};

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
        let [first, tail] = &learned.devices[0][..] else { panic!("{learned:?}") };
        assert_eq!((first.median_ns, first.expected_ns), (90, 70));
        // 70, 80, 90, 100, 110 leave gaps of 10, and of 20 at both ends; below 90 lie three of six.
        let below = [(85.0, 10.0), (75.0, 10.0), (60.0, 20.0_f64)];
        let squares = below.iter().map(|(middle, width)| (90.0_f64 - middle).powi(2) + width * width / 12.0);
        assert!((first.deviation_ns - (squares.sum::<f64>() / 3.0).sqrt()).abs() < 1e-9);
        let lowest = first.parts[0];
        assert_eq!((lowest.share, lowest.from_median_ns), (1.0 / 6.0, -30.0));
        assert!((lowest.deviation_ns - 20.0 / 12.0_f64.sqrt()).abs() < 1e-9);
        assert!((first.parts.iter().map(|part| part.share).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(
            (tail.median_ns, tail.variation()),
            (50, Variation { expected_ns: 50, deviation_ns: 0.0, parts: &[] })
        );
        assert_eq!(learn(&run, 0.5).unwrap().devices[0][0].expected_ns, 90);
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

    const MS: f64 = 1e6;

    /// A length of about 10 ms, of each kind.
    fn drawn(kind: &str, random: &mut SplitMix) -> f64 {
        let about = |relative: f64, random: &mut SplitMix| 10.0 * MS * (1.0 + relative * normal::sample(random));
        let half = |share: f64, random: &mut SplitMix| match random.unit() < share {
            true => 5.0 * MS,
            false => about(0.01, random),
        };
        match kind {
            "normal, 1 %" => about(0.01, random),
            "normal, 5 %" => about(0.05, random),
            "even, ± 5 %" => 10.0 * MS * (0.95 + 0.1 * random.unit()),
            "tail to short" => 10.0 * MS + 0.2 * MS * (1.0 - random.unit()).ln(),
            "tail to long" => 10.0 * MS - 0.2 * MS * (1.0 - random.unit()).ln(),
            "2 % half as long" => half(0.02, random),
            "5 % half as long" => half(0.05, random),
            "10 % half as long" => half(0.1, random),
            _ => about(0.002, random) - if random.unit() < 0.3 { 0.5 * MS } else { 0.0 },
        }
    }

    const KINDS: [&str; 9] = [
        "normal, 1 %",
        "normal, 5 %",
        "even, ± 5 %",
        "tail to short",
        "tail to long",
        "2 % half as long",
        "5 % half as long",
        "10 % half as long",
        "two modes",
    ];

    /// For pieces much shorter than what lengths vary by, and much longer ones.
    const PIECES: [f64; 3] = [0.02 * MS, 0.5 * MS, 4.0 * MS];

    fn of(mut seen: Vec<u64>, quantile: f64) -> LearnedLength {
        seen.sort_unstable();
        length(&seen, quantile)
    }

    /// What is priced over what is then waited, in the mean over as many runs, by piece; and the same of the share of shorter ones. Learned
    /// from `count` lengths and held against many more.
    fn priced(kind: &str, count: usize, runs: usize) -> ([f64; 3], f64) {
        let mut random = SplitMix(0x1ea4 ^ count as u64);
        let mut later: Vec<f64> = (0..20_000).map(|_| drawn(kind, &mut random)).collect();
        later.sort_by(f64::total_cmp);
        let ([mut price, mut waited], [mut said, mut shorter]) = ([[0.0; 3]; 2], [0.0; 2]);
        for _ in 0..runs {
            let seen = (0..count).map(|_| drawn(kind, &mut random) as u64).collect();
            let learned = of(seen, 0.1);
            let Variation { expected_ns, deviation_ns, parts } = learned.variation();
            let expected = expected_ns as f64;
            let end = TrueEnd { later_ns: learned.median_ns as f64 - expected, deviation_ns, parts };
            let below = &later[..later.partition_point(|ns| *ns < expected)];
            for (index, piece) in PIECES.into_iter().enumerate() {
                let classes = [PieceClass { length_ns: piece as u64, count: 1 }];
                let pieces = Pieces { classes: &classes, alike: false, rate: 1.0, spread: 0.0 };
                price[index] += pieces.overrun_ns(expected, end);
                let wait = |ns: &f64| (expected - ns).min(piece).powi(2) / (2.0 * piece);
                waited[index] += below.iter().map(wait).sum::<f64>() / later.len() as f64;
            }
            said += parts.iter().filter(|p| p.from_median_ns + end.later_ns < 0.0).map(|p| p.share).sum::<f64>();
            shorter += below.len() as f64 / later.len() as f64;
        }
        ([0, 1, 2].map(|index| price[index] / waited[index]), said / shorter)
    }

    /// Lengths are not normal, and one of fifty may be half as long: what the main then waits is priced as what it comes to all the same.
    #[test]
    fn late_work_is_priced_for_what_it_is_whatever_the_lengths() {
        for kind in KINDS {
            for (count, runs) in [(20, 1_500), (50, 1_000), (200, 300)] {
                let (prices, share) = priced(kind, count, runs);
                println!("{kind}, {count} lengths: {prices:.2?}, {share:.2} as many shorter");
                // Where a part that is apart is about as large as the share of shorter ones, it is chance whether the gate opens for it.
                let least = match (kind, count) {
                    ("10 % half as long", _) => 0.5,
                    ("two modes", 20) => 0.4,
                    _ => 0.7,
                };
                assert!(prices.iter().all(|price| (least..2.0).contains(price)), "{kind}, {count} lengths: {prices:?}");
            }
        }
    }

    /// Of few the shortest is all there is to go by, and a rare length that is much shorter is not among them.
    #[test]
    fn few_iterations_promise_no_more_than_they_can() {
        for kind in KINDS {
            for count in [5, 6, 8, 11, 16] {
                let (prices, share) = priced(kind, count, 1_500);
                println!("{kind}, {count} lengths: {prices:.2?}, {share:.2} as many shorter");
                let rare = kind.ends_with("half as long");
                assert!(rare || prices.iter().all(|price| (0.45..2.5).contains(price)), "{kind}, {count}: {prices:?}");
                assert!(rare || (share - 1.0).abs() < 0.1, "{kind}, {count} lengths: {share} as many shorter");
            }
        }
    }

    /// One of fifty that is half as long is one of fifty, not a reason to fear for all.
    #[test]
    fn one_short_iteration_of_fifty_is_one_of_fifty() {
        let mut random = SplitMix(5);
        let mut seen: Vec<u64> = (0..50).map(|_| drawn("normal, 1 %", &mut random) as u64).collect();
        let classes = [PieceClass { length_ns: 500_000, count: 1 }];
        let pieces = Pieces { classes: &classes, alike: false, rate: 1.0, spread: 0.0 };
        let price = |seen: &[u64]| {
            let learned = of(seen.to_vec(), 0.1);
            let Variation { expected_ns, deviation_ns, parts } = learned.variation();
            let later_ns = (learned.median_ns - expected_ns) as f64;
            (pieces.overrun_ns(1e7, TrueEnd { later_ns, deviation_ns, parts }), deviation_ns)
        };
        let (usual, deviation) = price(&seen);
        seen[7] /= 2;
        let (with_one, larger) = price(&seen);
        // A fiftieth of all waits for half a piece, 5 µs, and with the gaps beside it no more than twice that.
        assert!(with_one - usual > 4_000.0 && with_one - usual < 12_000.0, "{usual} {with_one}");
        assert!(deviation > 5e4 && larger > 3.0 * deviation, "{deviation}, {larger}");
    }

    /// The same number for every iteration is known as well as one that differs by a nanosecond.
    #[test]
    fn lengths_that_did_not_vary_are_known_not_to() {
        let alike = of(vec![1_000_000; 6], 0.1);
        assert_eq!((alike.expected_ns, alike.deviation_ns, alike.parts.len()), (1_000_000, 0.0, 0));
        let nearly = of(vec![1_000_000, 999_999, 1_000_000, 1_000_000, 1_000_000, 1_000_000], 0.1);
        assert!(nearly.deviation_ns < 3.0 && !nearly.parts.is_empty(), "{nearly:?}");
    }

    /// Positions of a device that has a long iteration more are added up without it; what varies by as much of another length keeps its
    /// shares.
    #[test]
    fn bubbles_of_a_run_are_long_and_short_together() {
        let sorted = [vec![10, 20, 30, 40, 50], vec![1, 2, 3, 4, 5], vec![100, 200, 300, 400, 500, 9_000]];
        assert_eq!(rank_by_rank(&sorted, 5), [111, 222, 333, 444, 9_055]);
        let whole = of(vec![80, 90, 100, 100, 120], 0.1);
        let double = whole.scaled_to(200);
        assert_eq!((double.median_ns, double.expected_ns, double.parts.len()), (200, 160, whole.parts.len()));
        assert!((double.deviation_ns - 2.0 * whole.deviation_ns).abs() < 1e-9);
        for (one, two) in whole.parts.iter().zip(&double.parts) {
            assert_eq!(
                (one.share, 2.0 * one.from_median_ns, 2.0 * one.deviation_ns),
                (two.share, two.from_median_ns, two.deviation_ns)
            );
        }
        assert_eq!(of(vec![0; 6], 0.1).scaled_to(70).expected_ns, 0, "of nothing nothing is known");
    }

    #[test]
    fn a_quantile_is_a_length_that_was_seen() {
        let lengths: Vec<u64> = (0..=10).map(|k| 10 * k).collect();
        assert_eq!([0.0, 0.1, 0.19, 0.5, 1.0].map(|q| low_quantile(&lengths, q)), [0, 10, 10, 50, 100]);
        assert_eq!(low_quantile(&[7], 0.1), 7);
    }
}
