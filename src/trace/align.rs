//! Clocks of several profiles brought together.
//!
//! Each profile says when its zero was on the wall clock of its node. Wall clocks of nodes differ, so collectives that
//! all ranks took part in correct them: such a collective ends on every rank at nearly the same moment.

use crate::records::bubbles::KernelName;
use std::collections::HashMap;

/// What one profile brings to the alignment of clocks: its wall clock and its collectives.
pub struct ProfileClock<'a> {
    /// Wall-clock time of the profile's time zero, in ns since 1970; `None` where the profile does not say, and then no
    /// wall clock is used.
    pub epoch_ns: Option<u64>,
    /// Names and ends of collectives in the order in which they ran, in ns on the profile's own clock.
    pub collective_ends: &'a [(KernelName, u64)],
}

/// How the clocks of several profiles were brought together.
#[derive(Debug, Clone, PartialEq)]
pub struct Alignment {
    /// Time to add to every time of each profile, in ns; the earliest profile keeps its own.
    pub shift_ns: Vec<u64>,
    /// Number of profiles whose clock was compared with the first one's by collectives, those found to agree included.
    pub corrected: usize,
    /// The largest correction by collectives in ns, positive where that profile's clock was ahead of the first
    /// one's; 0 where there is none.
    pub largest_correction_ns: i64,
}

/// Ends of one collective lie this near each other on different ranks, or it was not one.
const TOGETHER_NS: i64 = 200_000;
/// Fewer common collectives than this prove nothing.
const FEWEST: usize = 3;

/// Brings the clocks together: by wall clocks where every profile has one, corrected by the collectives that a profile
/// and the first one both hold equally often.
pub fn align(clocks: &[ProfileClock]) -> Alignment {
    // Times since 1970 leave room in an i64; without a wall clock the profiles' own times are all there is.
    let known = clocks.iter().all(|c| c.epoch_ns.is_some());
    let wall: Vec<i64> = clocks.iter().map(|c| if known { c.epoch_ns.unwrap_or(0) as i64 } else { 0 }).collect();
    let mut shifts = wall.clone();
    let (mut corrected, mut largest) = (0, 0i64);
    for index in 1..clocks.len() {
        let offset = wall[index].saturating_sub(wall[0]);
        let Some(correction) = correction(clocks[0].collective_ends, clocks[index].collective_ends, offset) else {
            continue;
        };
        shifts[index] = shifts[index].saturating_sub(correction);
        corrected += 1;
        if correction.abs() > largest.abs() {
            largest = correction;
        }
    }
    let earliest = shifts.iter().copied().min().unwrap_or(0);
    let shift_ns = shifts.iter().map(|s| s.abs_diff(earliest)).collect();
    Alignment { shift_ns, corrected, largest_correction_ns: largest }
}

/// How much later the other's collectives end than the first's, by the kind of collective on which they agree best.
fn correction(first: &[(KernelName, u64)], other: &[(KernelName, u64)], offset: i64) -> Option<i64> {
    let (first, other) = (by_name(first), by_name(other));
    let mut best: Option<(i64, i64)> = None;
    for (name, ends) in &first {
        let Some(theirs) = other.get(name).filter(|t| t.len() == ends.len() && t.len() >= FEWEST) else { continue };
        let mut apart: Vec<i64> = ends
            .iter()
            .zip(theirs)
            .map(|(a, b)| (*b as i64).saturating_add(offset).saturating_sub(*a as i64))
            .collect();
        let middle = median(&mut apart);
        let mut spread: Vec<i64> = apart.iter().map(|d| d.saturating_sub(middle).saturating_abs()).collect();
        let spread = median(&mut spread);
        if spread <= TOGETHER_NS && best.is_none_or(|b| spread < b.1) {
            best = Some((middle, spread));
        }
    }
    // What lies within the spread is noise of the ends, not of the clocks.
    best.map(|(middle, spread)| if middle.saturating_abs() <= spread { 0 } else { middle })
}

fn by_name(collective_ends: &[(KernelName, u64)]) -> HashMap<&str, Vec<u64>> {
    let mut all: HashMap<&str, Vec<u64>> = HashMap::new();
    for (name, end) in collective_ends {
        all.entry(name.as_str()).or_default().push(*end);
    }
    all
}

fn median(values: &mut [i64]) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    fn collective_ends(ends: &[u64]) -> Vec<(KernelName, u64)> {
        ends.iter().map(|e| ("ncclDevKernel_AllReduce".into(), *e)).collect()
    }

    #[test]
    fn collectives_correct_what_the_wall_clocks_say() {
        let mut random = SplitMix(1);
        let first: Vec<u64> = (1..50).map(|i| 1_000_000_000 + i * 30_000_000).collect();
        // The other session began 2 s later by its clock, which is 5 ms ahead; ends scatter by a few µs.
        let other: Vec<u64> =
            first.iter().map(|e| e + 2_000_000_000 - 2_000_000_000 + 5_000_000 + random.next_u64() % 4000).collect();
        let other: Vec<u64> = other.iter().map(|e| e - 500_000_000).collect();
        let (a, b) = (collective_ends(&first), collective_ends(&other));
        let epoch = 1_760_000_000_000_000_000;
        let clocks = [
            ProfileClock { epoch_ns: Some(epoch), collective_ends: &a },
            ProfileClock { epoch_ns: Some(epoch + 500_000_000), collective_ends: &b },
        ];
        let alignment = align(&clocks);
        assert_eq!((alignment.shift_ns[0], alignment.corrected), (0, 1));
        assert!(alignment.shift_ns[1].abs_diff(495_000_000) < 5_000, "{alignment:?}");
    }

    #[test]
    fn without_common_collectives_the_wall_clocks_stand() {
        let (a, b) =
            (collective_ends(&[10, 20, 30, 40]), collective_ends(&[5_000_000, 90_000_000, 91_000_000, 200_000_000]));
        let epoch = 1_760_000_000_000_000_000;
        let clocks = [
            ProfileClock { epoch_ns: Some(epoch + 70), collective_ends: &a },
            ProfileClock { epoch_ns: Some(epoch), collective_ends: &b },
        ];
        assert_eq!(align(&clocks), Alignment { shift_ns: vec![70, 0], corrected: 0, largest_correction_ns: 0 });
        let clocks = [
            ProfileClock { epoch_ns: None, collective_ends: &[] },
            ProfileClock { epoch_ns: Some(epoch), collective_ends: &[] },
        ];
        assert_eq!(align(&clocks).shift_ns, [0, 0]);
    }
}
